/* z4_difference.h -- elements and a reference to symbols and sizes of what is between them, and back; contexts; weights.
 * Specification: docs/format/codecs/difference.md.
 *
 * Contract of every function of a variant: any alignment of bytes, any count (0 too). Nothing can fail, nothing outside
 * the n elements of a buffer is read or written, and what is read and what is written do not overlap. Every variant
 * gives the same bytes. Sizes (a residual's distance from zero) and bits apart are numbers of the width of an element,
 * modulo 2^W, in arrays aligned for them. Index of a function: log2 of that width.
 *
 * split         n elements and their references -> symbols, sizes.
 * restore       n references, symbols and bits apart -> elements.
 * restore_near  The same of symbols none of which has bits apart.
 * contexts      Of n references: min((class + row) >> shift, most), with class = min(max(top - (magnitude >> below), 0),
 *               255). row and most below 256, shift below 8.
 * raise         The same from classes, which become contexts; row below 128.
 * weigh         Sum of (min(size, 2^43 - 1) << 20) >> min(class >> octave, 63), modulo 2^64. classes NULL: all 0.
 * most          The highest of n symbols.
 * put           Bits apart of n symbols and sizes to a string, see z4_difference_bits.h.
 * take          Bits apart of n symbols out of a string: a number each. */
#ifndef Z4_DIFFERENCE_H
#define Z4_DIFFERENCE_H

#include "z4_difference_bits.h"

typedef struct {
    const char *name;
    void (*split[4])(const uint8_t *content, const uint8_t *reference, size_t n, int floats, uint8_t *symbols,
                     void *sizes);
    void (*restore[4])(const uint8_t *reference, const uint8_t *symbols, const void *apart, size_t n, int floats,
                       uint8_t *dst);
    void (*restore_near[4])(const uint8_t *reference, const uint8_t *symbols, size_t n, int floats, uint8_t *dst);
    void (*contexts[4])(const uint8_t *reference, size_t n, unsigned top, unsigned below, unsigned row, unsigned shift,
                        unsigned most, uint8_t *contexts);
    void (*raise)(uint8_t *contexts, size_t n, unsigned row, unsigned shift, unsigned most);
    uint8_t (*most)(const uint8_t *symbols, size_t n);
    uint64_t (*weigh[4])(const void *sizes, const uint8_t *classes, size_t n, unsigned octave);
    void (*put[4])(z4_difference_writer *w, const uint8_t *symbols, const void *sizes, size_t n);
    void (*take[4])(z4_difference_reader *r, const uint8_t *symbols, size_t n, void *apart);
} z4_difference_impl;

/* ---- levels ---- */

/* The exponent of a float and two bits of its mantissa are the level of what it is of, from 4 on; below, the size is. */
Z4_INLINE uint32_t z4_difference_level_of(float f, uint32_t m)
{
    union {
        float f;
        uint32_t bits;
    } v;
    v.f = f;
    const int32_t level = (int32_t)((v.bits & 0x7fffffff) >> 21) - (4 * 127 + 4), least = (int32_t)(m < 3 ? m : 3);
    return (uint32_t)(level > least ? level : least);
}

/* Of sizes up to 2^24, which a float holds as they are. */
Z4_INLINE uint32_t z4_difference_level_short(uint32_t m) { return z4_difference_level_of((float)(int32_t)m, m); }
#define z4_difference_level1 z4_difference_level_short
#define z4_difference_level2 z4_difference_level_short

/* Bits are cleared so that none is carried where the float is rounded; 2^31 becomes the negative of it. */
Z4_INLINE uint32_t z4_difference_level4(uint32_t m)
{
    return z4_difference_level_of((float)(int32_t)(m & ~(m >> 8)), m);
}

Z4_INLINE uint32_t z4_difference_level8(uint64_t m)
{
    const unsigned e = z4_difference_log2(m | 2); /* of 0 and 1 too the level is the size */
    return 2 * (e - 1) + (uint32_t)(m >> (e - 1));
}

/* ---- bodies: inlined into every variant, and compiled for it ---- */

#define Z4_DIFFERENCE_BODIES(w_, t_, load_, store_)                                                                   \
    enum { Z4_DIFFERENCE_SIGN##w_ = 8 * w_ - 1 };                                                                     \
    Z4_INLINE void z4_difference_split_body##w_(const uint8_t *Z4_RESTRICT content,                                   \
                                                const uint8_t *Z4_RESTRICT reference, size_t n, int floats,           \
                                                uint8_t *Z4_RESTRICT symbols, t_ *Z4_RESTRICT sizes)                  \
    {                                                                                                                 \
        const t_ sign = (t_)((t_)1 << Z4_DIFFERENCE_SIGN##w_), rest = (t_)(sign - 1);                                 \
        for (size_t i = 0; i < n; i++) {                                                                              \
            const t_ b = load_(reference + w_ * i), t = load_(content + w_ * i);                                      \
            /* as if the reference were positive; below zero, sizes count the other way */                            \
            const t_ u = (t_)(t ^ (b & sign));                                                                        \
            const t_ v = (t_)(u ^ ((t_)(0 - (t_)(u >> Z4_DIFFERENCE_SIGN##w_)) & rest));                              \
            const t_ r = floats ? (t_)(v - (b & rest)) : (t_)(t - b);                                                 \
            const t_ down = (t_)(r >> Z4_DIFFERENCE_SIGN##w_);                                                        \
            const t_ m = (t_)((t_)(r ^ (t_)(0 - down)) + down);                                                       \
            sizes[i] = m;                                                                                             \
            symbols[i] = (uint8_t)(2 * z4_difference_level##w_(m) - (uint32_t)down);                                  \
        }                                                                                                             \
    }                                                                                                                 \
    Z4_INLINE t_ z4_difference_signed##w_(t_ m, uint8_t y)                                                            \
    {                                                                                                                 \
        const t_ down = (t_)(0 - (t_)(y & 1));                                                                        \
        return (t_)((t_)(m ^ down) - down);                                                                           \
    }                                                                                                                 \
    Z4_INLINE t_ z4_difference_size##w_(uint8_t y, t_ apart)                                                          \
    {                                                                                                                 \
        const Z4_DIFFERENCE_SHIFTED##w_ one = 1u << Z4_DIFFERENCE_G##w_;                                              \
        const Z4_DIFFERENCE_SHIFTED##w_ level = ((Z4_DIFFERENCE_SHIFTED##w_)y + 1) >> 1;                              \
        const Z4_DIFFERENCE_SHIFTED##w_ octave = level >> Z4_DIFFERENCE_G##w_, bits = octave - (octave > 0);          \
        const Z4_DIFFERENCE_SHIFTED##w_ top = (level & (one - 1)) + (octave > 0 ? one : 0);                           \
        return (t_)((t_)(top << bits) + apart);                                                                       \
    }                                                                                                                 \
    Z4_INLINE t_ z4_difference_add##w_(t_ b, t_ r, int floats)                                                        \
    {                                                                                                                 \
        const t_ sign = (t_)((t_)1 << Z4_DIFFERENCE_SIGN##w_), rest = (t_)(sign - 1);                                 \
        const t_ v = (t_)((b & rest) + r);                                                                            \
        const t_ past = (t_)((t_)(0 - (t_)(v >> Z4_DIFFERENCE_SIGN##w_)) & rest);                                     \
        return floats ? (t_)(v ^ past ^ (b & sign)) : (t_)(b + r);                                                    \
    }                                                                                                                 \
    Z4_INLINE void z4_difference_restore_body##w_(const uint8_t *Z4_RESTRICT reference,                               \
                                                  const uint8_t *Z4_RESTRICT symbols, const t_ *Z4_RESTRICT apart,    \
                                                  size_t n, int floats, uint8_t *Z4_RESTRICT dst)                     \
    {                                                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                                              \
            const t_ m = z4_difference_size##w_(symbols[i], apart[i]);                                                \
            const t_ r = z4_difference_signed##w_(m, symbols[i]);                                                     \
            store_(dst + w_ * i, z4_difference_add##w_(load_(reference + w_ * i), r, floats));                        \
        }                                                                                                             \
    }                                                                                                                 \
    Z4_INLINE void z4_difference_restore_near_body##w_(const uint8_t *Z4_RESTRICT reference,                          \
                                                       const uint8_t *Z4_RESTRICT symbols, size_t n, int floats,      \
                                                       uint8_t *Z4_RESTRICT dst)                                      \
    {                                                                                                                 \
        for (size_t i = 0; i < n; i++) {                                                                              \
            const t_ r = z4_difference_signed##w_((t_)(((unsigned)symbols[i] + 1) >> 1), symbols[i]);                 \
            store_(dst + w_ * i, z4_difference_add##w_(load_(reference + w_ * i), r, floats));                        \
        }                                                                                                             \
    }                                                                                                                 \
    Z4_INLINE void z4_difference_contexts_body##w_(const uint8_t *Z4_RESTRICT reference, size_t n, unsigned top,      \
                                                   unsigned below, unsigned row, unsigned shift, unsigned most,       \
                                                   uint8_t *Z4_RESTRICT contexts)                                     \
    {                                                                                                                 \
        const t_ rest = (t_)(((t_)1 << Z4_DIFFERENCE_SIGN##w_) - 1);                                                  \
        const unsigned by = below < Z4_DIFFERENCE_SIGN##w_ ? below : Z4_DIFFERENCE_SIGN##w_;                          \
        const Z4_DIFFERENCE_WORD##w_ from = (Z4_DIFFERENCE_WORD##w_)top;                                              \
        for (size_t i = 0; i < n; i++) {                                                                              \
            const Z4_DIFFERENCE_WORD##w_ x =                                                                          \
                (Z4_DIFFERENCE_WORD##w_)((t_)(load_(reference + w_ * i) & rest) >> by);                               \
            const Z4_DIFFERENCE_WORD##w_ away = (Z4_DIFFERENCE_WORD##w_)(from > x ? from - x : 0);                    \
            const uint16_t c = (uint16_t)(((away < 255 ? (uint16_t)away : 255) + (uint16_t)row) >> shift);            \
            contexts[i] = (uint8_t)(c < most ? c : most);                                                             \
        }                                                                                                             \
    }                                                                                                                 \
    Z4_INLINE uint64_t z4_difference_weigh_body##w_(const t_ *Z4_RESTRICT sizes, const uint8_t *Z4_RESTRICT classes,  \
                                                    size_t n, unsigned octave)                                        \
    {                                                                                                                 \
        const uint64_t limit = ((uint64_t)1 << 43) - 1;                                                               \
        uint64_t sum = 0;                                                                                             \
        for (size_t i = 0; i < n; i++) {                                                                              \
            const uint64_t size = sizes[i], m = w_ < 8 || size < limit ? size : limit;                                \
            const unsigned o = classes == NULL ? 0 : (unsigned)classes[i] >> octave;                                  \
            sum += m << 20 >> (o < 63 ? o : 63);                                                                      \
        }                                                                                                             \
        return sum;                                                                                                   \
    }                                                                                                                 \
    Z4_INLINE void z4_difference_put_body##w_(z4_difference_writer *w, const uint8_t *symbols, const t_ *sizes,       \
                                              size_t n)                                                               \
    {                                                                                                                 \
        z4_difference_writer mine = *w;                                                                               \
        for (size_t i = 0; i < n; i += 8) {                                                                           \
            if (i % 64 == 0)                                                                                          \
                i = z4_difference_skip(symbols, i, n, Z4_DIFFERENCE_APART##w_);                                       \
            const size_t k = n - i < 8 ? n - i : 8;                                                                   \
            const uint64_t y = z4_difference_eight(symbols + i, k);                                                   \
            if (!z4_difference_some_apart(y, Z4_DIFFERENCE_APART##w_))                                                \
                continue;                                                                                             \
            const uint64_t bits = z4_difference_eight_bits(y, Z4_DIFFERENCE_G##w_);                                   \
            z4_difference_write_eight##w_(&mine, bits, sizes + i, k);                                                 \
        }                                                                                                             \
        *w = mine;                                                                                                    \
    }                                                                                                                 \
    Z4_INLINE void z4_difference_take_body##w_(z4_difference_reader *r, const uint8_t *Z4_RESTRICT symbols, size_t n, \
                                               t_ *Z4_RESTRICT apart)                                                 \
    {                                                                                                                 \
        const z4_difference_reader mine = *r;                                                                         \
        uint64_t at = mine.at;                                                                                        \
        memset(apart, 0, n * sizeof *apart);                                                                          \
        for (size_t i = 0; i < n; i += 8) {                                                                           \
            if (i % 64 == 0)                                                                                          \
                i = z4_difference_skip(symbols, i, n, Z4_DIFFERENCE_APART##w_);                                       \
            const size_t k = n - i < 8 ? n - i : 8;                                                                   \
            const uint64_t y = z4_difference_eight(symbols + i, k);                                                   \
            if (!z4_difference_some_apart(y, Z4_DIFFERENCE_APART##w_))                                                \
                continue;                                                                                             \
            const uint64_t bits = z4_difference_eight_bits(y, Z4_DIFFERENCE_G##w_);                                   \
            if (Z4_LIKELY(k == 8 && at >> 3 < mine.nbytes && mine.nbytes - (size_t)(at >> 3) >= Z4_DIFFERENCE_AHEAD)) { \
                at = z4_difference_read_eight##w_(&mine, at, bits, apart + i);                                        \
            } else {                                                                                                  \
                for (size_t j = 0; j < k; j++) {                                                                      \
                    const unsigned b = (unsigned)(bits >> (8 * j) & 255);                                             \
                    apart[i + j] = (t_)z4_difference_read_near(&mine, at, b);                                         \
                    at += b;                                                                                          \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
        r->at = at;                                                                                                   \
    }

Z4_INLINE uint8_t z4_load8(const void *p) { return *(const uint8_t *)p; }
Z4_INLINE void z4_store8(void *p, uint8_t v) { *(uint8_t *)p = v; }
/* What shifts are made in: no vectors have all of them for less than 32 bits. */
#define Z4_DIFFERENCE_SHIFTED1 uint32_t
#define Z4_DIFFERENCE_SHIFTED2 uint32_t
#define Z4_DIFFERENCE_SHIFTED4 uint32_t
#define Z4_DIFFERENCE_SHIFTED8 uint64_t
/* What classes are reckoned in: wide enough for a magnitude and for a top of 16 bits. */
#define Z4_DIFFERENCE_WORD1 uint16_t
#define Z4_DIFFERENCE_WORD2 uint16_t
#define Z4_DIFFERENCE_WORD4 uint32_t
#define Z4_DIFFERENCE_WORD8 uint64_t
Z4_DIFFERENCE_BODIES(1, uint8_t, z4_load8, z4_store8)
Z4_DIFFERENCE_BODIES(2, uint16_t, z4_load16, z4_store16)
Z4_DIFFERENCE_BODIES(4, uint32_t, z4_load32, z4_store32)
Z4_DIFFERENCE_BODIES(8, uint64_t, z4_load64, z4_store64)

/* ---- variants ---- */

#define Z4_DIFFERENCE_WIDTH(isa_, target_, w_, t_)                                                                    \
    target_ static void z4_difference_split##w_##_##isa_(const uint8_t *content, const uint8_t *reference, size_t n,  \
                                                         int floats, uint8_t *symbols, void *sizes)                   \
    {                                                                                                                 \
        if (floats)                                                                                                   \
            z4_difference_split_body##w_(content, reference, n, 1, symbols, (t_ *)sizes);                             \
        else                                                                                                          \
            z4_difference_split_body##w_(content, reference, n, 0, symbols, (t_ *)sizes);                             \
    }                                                                                                                 \
    target_ static void z4_difference_restore##w_##_##isa_(const uint8_t *reference, const uint8_t *symbols,          \
                                                           const void *apart, size_t n, int floats, uint8_t *dst)     \
    {                                                                                                                 \
        if (floats)                                                                                                   \
            z4_difference_restore_body##w_(reference, symbols, (const t_ *)apart, n, 1, dst);                         \
        else                                                                                                          \
            z4_difference_restore_body##w_(reference, symbols, (const t_ *)apart, n, 0, dst);                         \
    }                                                                                                                 \
    target_ static void z4_difference_restore_near##w_##_##isa_(const uint8_t *reference, const uint8_t *symbols,     \
                                                                size_t n, int floats, uint8_t *dst)                   \
    {                                                                                                                 \
        if (floats)                                                                                                   \
            z4_difference_restore_near_body##w_(reference, symbols, n, 1, dst);                                       \
        else                                                                                                          \
            z4_difference_restore_near_body##w_(reference, symbols, n, 0, dst);                                       \
    }                                                                                                                 \
    target_ static void z4_difference_contexts##w_##_##isa_(const uint8_t *reference, size_t n, unsigned top,         \
                                                            unsigned below, unsigned row, unsigned shift,             \
                                                            unsigned most, uint8_t *contexts)                         \
    {                                                                                                                 \
        z4_difference_contexts_body##w_(reference, n, top, below, row, shift, most, contexts);                        \
    }                                                                                                                 \
    target_ static uint64_t z4_difference_weigh##w_##_##isa_(const void *sizes, const uint8_t *classes, size_t n,     \
                                                             unsigned octave)                                         \
    {                                                                                                                 \
        return classes == NULL ? z4_difference_weigh_body##w_((const t_ *)sizes, NULL, n, octave)                     \
                               : z4_difference_weigh_body##w_((const t_ *)sizes, classes, n, octave);                 \
    }                                                                                                                 \
    target_ static void z4_difference_put##w_##_##isa_(z4_difference_writer *w, const uint8_t *symbols,               \
                                                       const void *sizes, size_t n)                                   \
    {                                                                                                                 \
        z4_difference_put_body##w_(w, symbols, (const t_ *)sizes, n);                                                 \
    }                                                                                                                 \
    target_ static void z4_difference_take##w_##_##isa_(z4_difference_reader *r, const uint8_t *symbols, size_t n,    \
                                                        void *apart)                                                  \
    {                                                                                                                 \
        z4_difference_take_body##w_(r, symbols, n, (t_ *)apart);                                                      \
    }

#define Z4_DIFFERENCE_VARIANT(isa_, target_)                                                                          \
    Z4_DIFFERENCE_WIDTH(isa_, target_, 1, uint8_t)                                                                    \
    Z4_DIFFERENCE_WIDTH(isa_, target_, 2, uint16_t)                                                                   \
    Z4_DIFFERENCE_WIDTH(isa_, target_, 4, uint32_t)                                                                   \
    Z4_DIFFERENCE_WIDTH(isa_, target_, 8, uint64_t)                                                                   \
    target_ static void z4_difference_raise_##isa_(uint8_t *contexts, size_t n, unsigned row, unsigned shift,         \
                                                   unsigned most)                                                     \
    {                                                                                                                 \
        const uint16_t limit = (uint16_t)most;                                                                        \
        for (size_t i = 0; i < n; i++) {                                                                              \
            const uint16_t c = (uint16_t)((uint16_t)(contexts[i] + row) >> shift);                                    \
            contexts[i] = (uint8_t)(c < limit ? c : limit);                                                           \
        }                                                                                                             \
    }                                                                                                                 \
    target_ static uint8_t z4_difference_most_##isa_(const uint8_t *symbols, size_t n)                                \
    {                                                                                                                 \
        uint8_t most = 0;                                                                                             \
        for (size_t i = 0; i < n; i++)                                                                                \
            most = symbols[i] > most ? symbols[i] : most;                                                             \
        return most;                                                                                                  \
    }

#define Z4_DIFFERENCE_NO_TARGET /* what every processor of the family has */
Z4_DIFFERENCE_VARIANT(scalar, Z4_DIFFERENCE_NO_TARGET)
#if Z4_X86
Z4_DIFFERENCE_VARIANT(avx2, Z4_TARGET_AVX2)
Z4_DIFFERENCE_VARIANT(avx512, Z4_TARGET_AVX512)
#endif

#define Z4_DIFFERENCE_EACH(what_, isa_)                                                                               \
    {z4_difference_##what_##1_##isa_, z4_difference_##what_##2_##isa_, z4_difference_##what_##4_##isa_,               \
     z4_difference_##what_##8_##isa_}
#define Z4_DIFFERENCE_ROW(isa_)                                                                                       \
    {                                                                                                                 \
        #isa_,                                                                                                        \
        Z4_DIFFERENCE_EACH(split, isa_),                                                                              \
        Z4_DIFFERENCE_EACH(restore, isa_),                                                                            \
        Z4_DIFFERENCE_EACH(restore_near, isa_),                                                                       \
        Z4_DIFFERENCE_EACH(contexts, isa_),                                                                           \
        z4_difference_raise_##isa_,                                                                                   \
        z4_difference_most_##isa_,                                                                                    \
        Z4_DIFFERENCE_EACH(weigh, isa_),                                                                              \
        Z4_DIFFERENCE_EACH(put, isa_),                                                                                \
        Z4_DIFFERENCE_EACH(take, isa_),                                                                               \
    }

static const z4_difference_impl Z4_DIFFERENCE[] = {
    Z4_DIFFERENCE_ROW(scalar),
#if Z4_X86
    Z4_DIFFERENCE_ROW(avx2),
    Z4_DIFFERENCE_ROW(avx512),
#endif
};

enum { Z4_DIFFERENCE_VARIANTS = (int)(sizeof Z4_DIFFERENCE / sizeof *Z4_DIFFERENCE) };

/* The row of that instruction set, or the nearest before it. */
static inline const z4_difference_impl *z4_difference_pick(int isa)
{
    const int row = isa == Z4_ISA_AVX512 ? 2 : isa == Z4_ISA_AVX2 ? 1 : 0;
    return &Z4_DIFFERENCE[row < Z4_DIFFERENCE_VARIANTS ? row : 0];
}

/* Level of a row whose elements weigh `sum`: 0 for none, else steps of 1 / 2^octave octave from 1 on; octave is 8 at
 * most. Only encoders need it. */
Z4_INLINE uint32_t z4_difference_row_level(uint64_t sum, size_t n, unsigned octave)
{
    const uint64_t v = n == 0 ? 0 : sum / n;
    if (v == 0)
        return 0;
    const unsigned e = z4_difference_log2(v);
    const uint64_t top = e >= octave ? v >> (e - octave) : v << (octave - e);
    return (uint32_t)((e << octave) + (uint32_t)top - (1u << octave) + 1);
}

#endif
