/* z4_symbols.h -- elements to symbols, remainders and low bytes, and back; contexts; statistics.
 * Specification: docs/format/codecs/symbols.md.
 *
 * Contract of every function of a variant: any alignment, any count (0 too). Nothing can fail,
 * nothing outside the n elements of a buffer is read or written (of packed remainders: outside
 * z4_symbols_packed_nbytes), and what is read and what is written do not overlap. Every variant
 * gives the same bytes.
 *
 * split    n elements -> symbols, remainders one a byte, low bytes in planes low[0, width - 2), the
 *          most significant first. 255 stands for every field that has no other symbol: the caller
 *          collects those fields, z4_symbols_field(). Where the field has 8 bits base is ignored,
 *          and 255 is a symbol as any other. Not touched, may be NULL: rest of SYMBOLS1, low of
 *          elements of one or two bytes.
 * merge    The inverse. An element of symbol 255 is put right afterwards, z4_symbols_patch(). Any
 *          base will do; bits of base + symbol that no field has are dropped. Only the r bits of a
 *          remainder count.
 * merge_packed  The same from packed remainders, which begin a group of 64.
 * pack     The lower r bits of n remainders, one a byte, packed, beginning a group.
 * unpack   The inverse. Both do nothing for SYMBOLS1, which has none.
 * contexts Of n neighbours in a row: min((row + columns[j]) >> shift, most), where columns may be
 *          NULL: all 0. row + columns[j] must be below 256, shift below 8, most below 256.
 * count    counts[contexts[j]][symbols[j]] += 1; contexts NULL: counts[0]. Contexts are trusted,
 *          and below 64.
 * weigh    Sum of the n values max(floor, symbol), where 0 and 255 count as floor, below 256; with
 *          sums each value is added to sums[j] as well.
 * find_rares  See z4_rares.h. */
#ifndef Z4_SYMBOLS_H
#define Z4_SYMBOLS_H

#include "z4_symbols_body.h"
#include "z4_symbols_count.h"

/* ---- what is the same for all ---- */

static inline void z4_symbols_split1(const uint8_t *src, size_t n, unsigned base, uint8_t *symbols,
                                     uint8_t *rest, uint8_t *const *low)
{
    (void)base, (void)rest, (void)low;
    if (n > 0)
        memcpy(symbols, src, n);
}
static inline void z4_symbols_merge1(const uint8_t *symbols, const uint8_t *rest,
                                     const uint8_t *const *low, size_t n, unsigned base,
                                     uint8_t *dst)
{
    (void)base, (void)rest, (void)low;
    if (n > 0)
        memcpy(dst, symbols, n);
}
static inline void z4_symbols_pack1(const uint8_t *from, size_t n, uint8_t *to)
{
    (void)from, (void)n, (void)to;
}
static inline void z4_symbols_pack2h(const uint8_t *from, size_t n, uint8_t *to)
{
    if (n > 0)
        memcpy(to, from, n);
}

/* ---- variants ----
 * Of the elements of four and eight bytes a tile at a time is cut into planes, the upper two of
 * which become symbols and remainders. Symbols and remainders of fp16 are the planes of FLOAT2. */

#define Z4_SYMBOLS_WIDE(isa_, target_, w_, k_, r_)                                                 \
    target_ static void z4_symbols_split##w_##_##isa_(const uint8_t *src, size_t n, unsigned base, \
                                                      uint8_t *symbols, uint8_t *rest,             \
                                                      uint8_t *const *low)                         \
    {                                                                                              \
        uint8_t half[2][Z4_SYMBOLS_TILE], *planes[w_] = {half[0], half[1]};                        \
        for (size_t i = 0; i < n; i += Z4_SYMBOLS_TILE) {                                          \
            const size_t m = n - i < Z4_SYMBOLS_TILE ? n - i : Z4_SYMBOLS_TILE;                    \
            for (int p = 2; p < w_; p++)                                                           \
                planes[p] = low[p - 2] + i;                                                        \
            z4_split_bytes##w_##_##isa_(src + w_ * i, m, planes);                                  \
            z4_symbols_fold_##isa_(half[0], half[1], m, base, symbols + i, rest + i, k_);          \
        }                                                                                          \
    }                                                                                              \
    target_ static void z4_symbols_merge##w_##_##isa_(                                             \
        const uint8_t *symbols, const uint8_t *rest, const uint8_t *const *low, size_t n,          \
        unsigned base, uint8_t *dst)                                                               \
    {                                                                                              \
        uint8_t half[2][Z4_SYMBOLS_TILE];                                                          \
        const uint8_t *planes[w_] = {half[0], half[1]};                                            \
        for (size_t i = 0; i < n; i += Z4_SYMBOLS_TILE) {                                          \
            const size_t m = n - i < Z4_SYMBOLS_TILE ? n - i : Z4_SYMBOLS_TILE;                    \
            for (int p = 2; p < w_; p++)                                                           \
                planes[p] = low[p - 2] + i;                                                        \
            z4_symbols_unfold_##isa_(symbols + i, rest + i, m, base, half[0], half[1], k_);        \
            z4_interleave_bytes##w_##_##isa_(planes, m, dst + w_ * i);                             \
        }                                                                                          \
    }                                                                                              \
    Z4_SYMBOLS_STAGED(isa_, target_, w_, w_, r_)

/* merge_packed: through a tile of remainders in the first cache. */
#define Z4_SYMBOLS_STAGED(isa_, target_, name_, w_, r_)                                            \
    target_ static void z4_symbols_merge_packed##name_##_##isa_(                                   \
        const uint8_t *symbols, const uint8_t *packed, const uint8_t *const *low, size_t n,        \
        unsigned base, uint8_t *dst)                                                               \
    {                                                                                              \
        uint8_t rest[Z4_SYMBOLS_TILE];                                                             \
        const uint8_t *planes[Z4_MAX_PLANES];                                                      \
        for (size_t i = 0; i < n; i += Z4_SYMBOLS_TILE) {                                          \
            const size_t m = n - i < Z4_SYMBOLS_TILE ? n - i : Z4_SYMBOLS_TILE;                    \
            for (int p = 0; p < w_ - 2; p++)                                                       \
                planes[p] = low[p] + i;                                                            \
            z4_symbols_unpack_r##r_##_##isa_(packed + i / 8 * r_, m, rest);                        \
            z4_symbols_merge##name_##_##isa_(symbols + i, rest, planes, m, base, dst + w_ * i);    \
        }                                                                                          \
    }

#define Z4_SYMBOLS_PACK(isa_, target_, r_)                                                         \
    target_ static void z4_symbols_pack_r##r_##_##isa_(const uint8_t *rest, size_t n,              \
                                                       uint8_t *packed)                            \
    {                                                                                              \
        for (; n >= 64; n -= 64, rest += 64, packed += 8 * r_)                                     \
            z4_symbols_pack_group_##isa_(rest, packed, r_);                                        \
        z4_symbols_pack_tail(rest, n, packed, r_);                                                 \
    }                                                                                              \
    target_ static void z4_symbols_unpack_r##r_##_##isa_(const uint8_t *packed, size_t n,          \
                                                         uint8_t *rest)                            \
    {                                                                                              \
        for (; n >= 64; n -= 64, rest += 64, packed += 8 * r_)                                     \
            z4_symbols_unpack_group_##isa_(packed, rest, r_);                                      \
        z4_symbols_unpack_tail(packed, n, rest, r_);                                               \
    }

#define Z4_SYMBOLS_VARIANT(isa_, target_)                                                          \
    Z4_SYMBOLS_PACK(isa_, target_, 4)                                                              \
    Z4_SYMBOLS_PACK(isa_, target_, 6)                                                              \
    target_ static void z4_symbols_split2h_##isa_(const uint8_t *src, size_t n, unsigned base,     \
                                                  uint8_t *symbols, uint8_t *rest,                 \
                                                  uint8_t *const *low)                             \
    {                                                                                              \
        uint8_t *const planes[2] = {symbols, rest};                                                \
        (void)base, (void)low;                                                                     \
        z4_split_float2_##isa_(src, n, planes);                                                    \
    }                                                                                              \
    target_ static void z4_symbols_merge2h_##isa_(const uint8_t *symbols, const uint8_t *rest,     \
                                                  const uint8_t *const *low, size_t n,             \
                                                  unsigned base, uint8_t *dst)                     \
    {                                                                                              \
        const uint8_t *const planes[2] = {symbols, rest};                                          \
        (void)base, (void)low;                                                                     \
        z4_interleave_float2_##isa_(planes, n, dst);                                               \
    }                                                                                              \
    Z4_SYMBOLS_WIDE(isa_, target_, 4, 5, 6)                                                        \
    Z4_SYMBOLS_WIDE(isa_, target_, 8, 3, 4)                                                        \
    target_ static void z4_symbols_count_##isa_(const uint8_t *symbols, const uint8_t *contexts,   \
                                                size_t n, uint32_t(*counts)[256])                  \
    {                                                                                              \
        z4_symbols_count_body(symbols, contexts, n, counts);                                       \
    }                                                                                              \
    target_ static uint64_t z4_symbols_weigh_##isa_(const uint8_t *symbols, size_t n,              \
                                                    unsigned floor, uint32_t *sums)                \
    {   /* two loops, that the sum alone is fast */                                                \
        return sums == NULL ? z4_symbols_weigh_body(symbols, n, floor, NULL)                       \
                            : z4_symbols_weigh_body(symbols, n, floor, sums);                      \
    }

static inline void z4_symbols_split2_scalar(const uint8_t *src, size_t n, unsigned base,
                                            uint8_t *symbols, uint8_t *rest, uint8_t *const *low)
{
    (void)low;
    z4_symbols_split_body(src, 0, n, base, symbols, rest, 5);
}
static inline void z4_symbols_merge2_scalar(const uint8_t *symbols, const uint8_t *rest,
                                            const uint8_t *const *low, size_t n, unsigned base,
                                            uint8_t *dst)
{
    (void)low;
    z4_symbols_merge_body(symbols, rest, 0, n, base, dst, 5);
}
Z4_INLINE void z4_symbols_fold_scalar(const uint8_t *high, const uint8_t *low, size_t n,
                                      unsigned base, uint8_t *symbols, uint8_t *rest, unsigned k)
{
    z4_symbols_fold_body(high, low, 0, n, base, symbols, rest, k);
}
Z4_INLINE void z4_symbols_unfold_scalar(const uint8_t *symbols, const uint8_t *rest, size_t n,
                                        unsigned base, uint8_t *high, uint8_t *low, unsigned k)
{
    z4_symbols_unfold_body(symbols, rest, 0, n, base, high, low, k);
}
static inline void z4_symbols_contexts_scalar(unsigned row, const uint8_t *columns, size_t n,
                                              unsigned shift, unsigned most, uint8_t *contexts)
{
    z4_symbols_contexts_body(row, columns, 0, n, shift, most, contexts);
}
#define Z4_SYMBOLS_NO_TARGET /* what every processor of the family has */
Z4_SYMBOLS_VARIANT(scalar, Z4_SYMBOLS_NO_TARGET)
Z4_SYMBOLS_STAGED(scalar, Z4_SYMBOLS_NO_TARGET, 2, 2, 6)

#if Z4_X86
#include "z4_symbols_avx2.h"
#include "z4_symbols_avx512.h"
Z4_SYMBOLS_VARIANT(avx2, Z4_TARGET_AVX2)
Z4_SYMBOLS_VARIANT(avx512, Z4_TARGET_AVX512)
#endif

#define Z4_SYMBOLS_ROW(isa_)                                                                       \
    {                                                                                              \
        #isa_,                                                                                     \
        {z4_symbols_split1, z4_symbols_split2_##isa_, z4_symbols_split2h_##isa_,                   \
         z4_symbols_split4_##isa_, z4_symbols_split8_##isa_},                                      \
        {z4_symbols_merge1, z4_symbols_merge2_##isa_, z4_symbols_merge2h_##isa_,                   \
         z4_symbols_merge4_##isa_, z4_symbols_merge8_##isa_},                                      \
        {z4_symbols_merge1, z4_symbols_merge_packed2_##isa_, z4_symbols_merge2h_##isa_,            \
         z4_symbols_merge_packed4_##isa_, z4_symbols_merge_packed8_##isa_},                        \
        {z4_symbols_pack1, z4_symbols_pack_r6_##isa_, z4_symbols_pack2h,                           \
         z4_symbols_pack_r6_##isa_, z4_symbols_pack_r4_##isa_},                                    \
        {z4_symbols_pack1, z4_symbols_unpack_r6_##isa_, z4_symbols_pack2h,                         \
         z4_symbols_unpack_r6_##isa_, z4_symbols_unpack_r4_##isa_},                                \
        z4_symbols_contexts_##isa_,                                                                \
        z4_symbols_count_##isa_,                                                                   \
        z4_symbols_weigh_##isa_,                                                                   \
        z4_rares_find_##isa_,                                                                      \
    }

static const z4_symbols_impl Z4_SYMBOLS[] = {
    Z4_SYMBOLS_ROW(scalar),
#if Z4_X86
    Z4_SYMBOLS_ROW(avx2),
    Z4_SYMBOLS_ROW(avx512),
#endif
};

enum { Z4_SYMBOLS_VARIANTS = (int)(sizeof Z4_SYMBOLS / sizeof *Z4_SYMBOLS) };

/* The row of that instruction set, or the nearest before it. */
static inline const z4_symbols_impl *z4_symbols_pick(int isa)
{
    const int row = isa == Z4_ISA_AVX512 ? 2 : isa == Z4_ISA_AVX2 ? 1 : 0;
    return &Z4_SYMBOLS[row < Z4_SYMBOLS_VARIANTS ? row : 0];
}

#endif
