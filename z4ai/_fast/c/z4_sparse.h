/* z4_sparse.h -- elements of which many are one value, the fill: a bitmap and the dense rest.
 * Implements docs/format/codecs/zeros.md.
 *
 * Widths 1, 2, 4, 8; n may be 0; src, bitmap, dense and dst need no alignment and may not overlap.
 * compact: src has n elements; bitmap has room for (n + 7) / 8 bytes, dense for n elements (all of
 * which may be written); returns how many of them count. Cannot fail.
 * expand: bitmap has (n + 7) / 8 bytes and exactly n_dense ones, as z4_sparse_count found; dense has
 * n_dense elements, of which no byte behind the last is read. Cannot fail then. */
#ifndef Z4_SPARSE_H
#define Z4_SPARSE_H

#include "z4_portable.h"
#include "z4_status.h"

typedef size_t (*z4_compact_fn)(const uint8_t *src, size_t n, uint64_t fill, uint8_t *bitmap,
                                uint8_t *dense);
typedef void (*z4_expand_fn)(const uint8_t *bitmap, size_t n, const uint8_t *dense, size_t n_dense,
                             uint64_t fill, uint8_t *dst);

/* Arrays by the binary logarithm of the width. */
typedef struct {
    const char *name;
    int isa;
    z4_compact_fn compact[4];
    z4_expand_fn expand[4];
} z4_sparse_impl;

/* An element of w bytes, w a constant once this is inlined. */
Z4_INLINE uint64_t z4_load_word(const uint8_t *p, unsigned w)
{
    return w == 1 ? *p : w == 2 ? z4_load16(p) : w == 4 ? z4_load32(p) : z4_load64(p);
}
Z4_INLINE void z4_store_word(uint8_t *p, uint64_t x, unsigned w)
{
    if (w == 1)
        *p = (uint8_t)x;
    else if (w == 2)
        z4_store16(p, (uint16_t)x);
    else if (w == 4)
        z4_store32(p, (uint32_t)x);
    else
        z4_store64(p, x);
}

Z4_INLINE unsigned z4_ones64(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555ULL;
    x = (x & 0x3333333333333333ULL) + (x >> 2 & 0x3333333333333333ULL);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
    return (unsigned)(x * 0x0101010101010101ULL >> 56);
}

/* The ones of a bitmap of n bits, or Z4_CORRUPT if a bit behind them is set. */
static inline ptrdiff_t z4_sparse_count(const uint8_t *bitmap, size_t n)
{
    const size_t nbytes = n / 8 + (n % 8 != 0);
    size_t ones = 0, i = 0;
    if (n % 8 && bitmap[nbytes - 1] >> (n % 8))
        return Z4_CORRUPT;
    for (; i + 8 <= nbytes; i += 8)
        ones += z4_ones64(z4_load64(bitmap + i));
    for (; i < nbytes; i++)
        ones += z4_ones64(bitmap[i]);
    return (ptrdiff_t)ones;
}

/* What stands out of a sample of 1024 elements, in 64 runs evenly spread: its most frequent element.
 * Returns how often it is there, with *fill and how many were looked at. Ties go to the one that got
 * there first. */
enum { Z4_SPARSE_RUNS = 64, Z4_SPARSE_RUN = 16, Z4_SPARSE_SLOTS = 2048 };

static inline unsigned z4_sparse_probe(const uint8_t *src, size_t n, unsigned w, uint64_t *fill,
                                       unsigned *n_sampled)
{
    uint64_t keys[Z4_SPARSE_SLOTS];
    uint16_t counts[Z4_SPARSE_SLOTS]; /* at most 1024 */
    const size_t all = Z4_SPARSE_RUNS * Z4_SPARSE_RUN;
    const size_t runs = n <= all ? 1 : Z4_SPARSE_RUNS, run = n <= all ? n : Z4_SPARSE_RUN;
    unsigned best = 0;
    *fill = 0;
    *n_sampled = (unsigned)(runs * run);
    memset(counts, 0, sizeof counts);
    for (size_t r = 0; r < runs; r++) {
        /* from the first element to the last; a product of less than 2^63 */
        const size_t first = runs == 1 ? 0 : (size_t)((uint64_t)(n - run) * r / (runs - 1));
        for (size_t i = first; i < first + run; i++) {
            const uint64_t x = z4_load_word(src + w * i, w);
            size_t slot = (size_t)(x * 0x9e3779b97f4a7c15ULL >> 53); /* 2048 = 2^11 */
            while (counts[slot] && keys[slot] != x) /* ends: half of the slots stay free */
                slot = (slot + 1) % Z4_SPARSE_SLOTS;
            keys[slot] = x;
            if (++counts[slot] > best) {
                best = counts[slot];
                *fill = x;
            }
        }
    }
    return best;
}

/* --- scalar: no branch an element ------------------------------------------------------------- */

Z4_INLINE size_t z4_compact_body(const uint8_t *Z4_RESTRICT src, size_t n, uint64_t fill,
                                 uint8_t *Z4_RESTRICT bitmap, uint8_t *Z4_RESTRICT dense, unsigned w)
{
    size_t count = 0, i = 0; /* count <= i, so every store is within n elements */
    for (; i + 8 <= n; i += 8) {
        unsigned bits = 0;
        for (unsigned k = 0; k < 8; k++) {
            const uint64_t x = z4_load_word(src + w * (i + k), w);
            const unsigned other = x != fill;
            z4_store_word(dense + w * count, x, w);
            count += other;
            bits |= other << k;
        }
        bitmap[i / 8] = (uint8_t)bits;
    }
    if (i < n) { /* 7 elements at most */
        unsigned bits = 0;
        for (unsigned k = 0; i + k < n; k++) {
            const uint64_t x = z4_load_word(src + w * (i + k), w);
            const unsigned other = x != fill;
            z4_store_word(dense + w * count, x, w);
            count += other;
            bits |= other << k;
        }
        bitmap[i / 8] = (uint8_t)bits;
    }
    return count;
}

Z4_INLINE void z4_expand_body(const uint8_t *Z4_RESTRICT bitmap, size_t n,
                              const uint8_t *Z4_RESTRICT dense, size_t n_dense, uint64_t fill,
                              uint8_t *Z4_RESTRICT dst, unsigned w)
{
    size_t at = 0, i = 0; /* at: ones before element i, at most n_dense */
    /* Within a byte each element loads dense[at], used or not: at + 7 at most. */
    for (; i + 8 <= n && at + 8 <= n_dense; i += 8) {
        const unsigned bits = bitmap[i / 8];
        for (unsigned k = 0; k < 8; k++) {
            const uint64_t x = z4_load_word(dense + w * at, w);
            const uint64_t other = bits >> k & 1;
            z4_store_word(dst + w * (i + k), fill ^ ((x ^ fill) & (0 - other)), w);
            at += (size_t)other;
        }
    }
    for (; i < n; i++) { /* at most 8 of these are not the fill */
        if (bitmap[i / 8] >> (i % 8) & 1)
            z4_store_word(dst + w * i, z4_load_word(dense + w * at++, w), w);
        else
            z4_store_word(dst + w * i, fill, w);
    }
}

#define Z4_SPARSE_SCALAR(w_)                                                                       \
    static size_t z4_compact##w_##_scalar(const uint8_t *src, size_t n, uint64_t fill,             \
                                          uint8_t *bitmap, uint8_t *dense)                         \
    {                                                                                              \
        return z4_compact_body(src, n, fill, bitmap, dense, w_);                                   \
    }                                                                                              \
    static void z4_expand##w_##_scalar(const uint8_t *bitmap, size_t n, const uint8_t *dense,      \
                                       size_t n_dense, uint64_t fill, uint8_t *dst)                \
    {                                                                                              \
        z4_expand_body(bitmap, n, dense, n_dense, fill, dst, w_);                                  \
    }
Z4_SPARSE_SCALAR(1)
Z4_SPARSE_SCALAR(2)
Z4_SPARSE_SCALAR(4)
Z4_SPARSE_SCALAR(8)

/* --- AVX-512: a register of 64 / w elements a turn --------------------------------------------- */

#if Z4_X86
/* Compressing into a register and storing all of it is one store; compressing into memory is dozens
 * of steps on some machines. Whole stores stay within dense, as count <= i there. Expanding takes
 * whole loads while 64 bytes are left, then masked ones, which do not touch what is masked.
 *
 * w width, e bits of an element, mask type, bits of mask. */
#define Z4_SPARSE_AVX512(w_, e_, mask_, set1_, load_mask_, store_mask_)                            \
    Z4_TARGET_AVX512 static size_t z4_compact##w_##_avx512(                                        \
        const uint8_t *src, size_t n, uint64_t fill, uint8_t *bitmap, uint8_t *dense)              \
    {                                                                                              \
        const size_t lanes = 64 / w_;                                                              \
        const __m512i f = set1_;                                                                   \
        size_t count = 0, i = 0;                                                                   \
        for (; i + lanes <= n; i += lanes) {                                                       \
            const __m512i x = _mm512_loadu_si512((const void *)(src + w_ * i));                    \
            const mask_ other = _mm512_cmpneq_epu##e_##_mask(x, f);                                \
            _mm512_storeu_si512((void *)(dense + w_ * count),                                      \
                                _mm512_maskz_compress_epi##e_(other, x));                          \
            store_mask_;                                                                           \
            count += (size_t)_mm_popcnt_u64((uint64_t)other);                                      \
        }                                                                                          \
        return count + z4_compact_body(src + w_ * i, n - i, fill, bitmap + i / 8,                  \
                                       dense + w_ * count, w_);                                    \
    }                                                                                              \
    Z4_TARGET_AVX512 static void z4_expand##w_##_avx512(const uint8_t *bitmap, size_t n,           \
                                                        const uint8_t *dense, size_t n_dense,      \
                                                        uint64_t fill, uint8_t *dst)               \
    {                                                                                              \
        const size_t lanes = 64 / w_;                                                              \
        const __m512i f = set1_;                                                                   \
        size_t at = 0, i = 0;                                                                      \
        for (; i + lanes <= n; i += lanes) {                                                       \
            const mask_ other = load_mask_;                                                        \
            const size_t left = w_ * (n_dense - at);                                               \
            const __m512i x =                                                                      \
                left >= 64 ? _mm512_loadu_si512((const void *)(dense + w_ * at))                   \
                           : _mm512_maskz_loadu_epi8(((__mmask64)1 << left) - 1,                   \
                                                     (const void *)(dense + w_ * at));             \
            _mm512_storeu_si512((void *)(dst + w_ * i),                                            \
                                _mm512_mask_expand_epi##e_(f, other, x));                          \
            at += (size_t)_mm_popcnt_u64((uint64_t)other);                                         \
        }                                                                                          \
        z4_expand_body(bitmap + i / 8, n - i, dense + w_ * at, n_dense - at, fill, dst + w_ * i,   \
                       w_);                                                                        \
    }
Z4_SPARSE_AVX512(1, 8, __mmask64, _mm512_set1_epi8((char)fill), z4_load64(bitmap + i / 8),
                 z4_store64(bitmap + i / 8, other))
Z4_SPARSE_AVX512(2, 16, __mmask32, _mm512_set1_epi16((short)fill), z4_load32(bitmap + i / 8),
                 z4_store32(bitmap + i / 8, other))
Z4_SPARSE_AVX512(4, 32, __mmask16, _mm512_set1_epi32((int)fill), z4_load16(bitmap + i / 8),
                 z4_store16(bitmap + i / 8, other))
Z4_SPARSE_AVX512(8, 64, __mmask8, _mm512_set1_epi64((long long)fill), bitmap[i / 8],
                 bitmap[i / 8] = other)
#endif

#define Z4_SPARSE_ROW(isa_)                                                                        \
    {z4_compact1_##isa_, z4_compact2_##isa_, z4_compact4_##isa_, z4_compact8_##isa_},              \
    {                                                                                              \
        z4_expand1_##isa_, z4_expand2_##isa_, z4_expand4_##isa_, z4_expand8_##isa_                 \
    }

static const z4_sparse_impl Z4_SPARSE[] = {
    {"scalar", Z4_ISA_SCALAR, Z4_SPARSE_ROW(scalar)},
#if Z4_X86
    {"avx512", Z4_ISA_AVX512, Z4_SPARSE_ROW(avx512)},
#endif
};

enum { Z4_SPARSE_VARIANTS = (int)(sizeof Z4_SPARSE / sizeof Z4_SPARSE[0]) };

/* The row of that instruction set, or the nearest before it. */
static inline const z4_sparse_impl *z4_sparse_pick(int isa)
{
    const z4_sparse_impl *best = &Z4_SPARSE[0];
    for (int k = 1; k < Z4_SPARSE_VARIANTS; k++)
        if (Z4_SPARSE[k].isa <= isa)
            best = &Z4_SPARSE[k];
    return best;
}

#endif
