/* z4_symbols_body.h -- the symbol kernels in plain C; included by z4_symbols.h, contract there.
 *
 * Bodies are inlined into every variant and compiled for it. k is the number of bits below the
 * field in the upper half word t, a constant at every call. */
#ifndef Z4_SYMBOLS_BODY_H
#define Z4_SYMBOLS_BODY_H

#include "z4_symbols_types.h"

/* Elements of a turn where something is staged: within the first cache, and whole groups. */
enum { Z4_SYMBOLS_TILE = 1024 };

/* ---- elements of two bytes, or their upper half words in two planes ---- */

/* 1..254 for the fields behind base, 255 for all others; 0 for field 0. */
Z4_INLINE uint8_t z4_symbols_of(uint16_t field, uint16_t base)
{
    const uint16_t d = (uint16_t)(field - base - 1);
    const uint8_t y = (uint8_t)((d < 254 ? d : 254) + 1);
    return field == 0 ? 0 : y;
}
Z4_INLINE uint8_t z4_symbols_rest_of(uint16_t t, unsigned k)
{
    return (uint8_t)((unsigned)t >> 15 << k | (t & ((1u << k) - 1)));
}

/* The upper half word; base is base << k. */
Z4_INLINE uint16_t z4_symbols_half(uint8_t y, uint8_t rest, uint16_t base, unsigned k)
{
    const uint16_t low = (uint16_t)((1u << k) - 1), field = (uint16_t)(0x7fff & ~low);
    const uint16_t seen = (uint16_t)((uint16_t)((uint16_t)(y << k) + base) & field);
    const uint16_t sign = (uint16_t)((uint16_t)(rest << (15 - k)) & 0x8000);
    return (uint16_t)((y == 0 ? 0 : seen) | sign | (rest & low));
}

Z4_INLINE void z4_symbols_split_body(const uint8_t *Z4_RESTRICT src, size_t i, size_t n,
                                     unsigned base, uint8_t *Z4_RESTRICT symbols,
                                     uint8_t *Z4_RESTRICT rest, unsigned k)
{
    for (; i < n; i++) {
        const uint16_t t = z4_load16(src + 2 * i);
        symbols[i] = z4_symbols_of((uint16_t)((t & 0x7fff) >> k), (uint16_t)base);
        rest[i] = z4_symbols_rest_of(t, k);
    }
}

Z4_INLINE void z4_symbols_merge_body(const uint8_t *Z4_RESTRICT symbols,
                                     const uint8_t *Z4_RESTRICT rest, size_t i, size_t n,
                                     unsigned base, uint8_t *Z4_RESTRICT dst, unsigned k)
{
    const uint16_t shifted = (uint16_t)(base << k);
    for (; i < n; i++)
        z4_store16(dst + 2 * i, z4_symbols_half(symbols[i], rest[i], shifted, k));
}

Z4_INLINE void z4_symbols_fold_body(const uint8_t *Z4_RESTRICT high,
                                    const uint8_t *Z4_RESTRICT low, size_t i, size_t n,
                                    unsigned base, uint8_t *Z4_RESTRICT symbols,
                                    uint8_t *Z4_RESTRICT rest, unsigned k)
{
    for (; i < n; i++) {
        const uint16_t t = (uint16_t)(high[i] << 8 | low[i]);
        symbols[i] = z4_symbols_of((uint16_t)((t & 0x7fff) >> k), (uint16_t)base);
        rest[i] = z4_symbols_rest_of(t, k);
    }
}

Z4_INLINE void z4_symbols_unfold_body(const uint8_t *Z4_RESTRICT symbols,
                                      const uint8_t *Z4_RESTRICT rest, size_t i, size_t n,
                                      unsigned base, uint8_t *Z4_RESTRICT high,
                                      uint8_t *Z4_RESTRICT low, unsigned k)
{
    const uint16_t shifted = (uint16_t)(base << k);
    for (; i < n; i++) {
        const uint16_t t = z4_symbols_half(symbols[i], rest[i], shifted, k);
        high[i] = (uint8_t)(t >> 8);
        low[i] = (uint8_t)t;
    }
}

/* ---- packed remainders ---- */

/* m < 64 remainders behind the last whole group, r bits each. */
Z4_INLINE void z4_symbols_pack_tail(const uint8_t *rest, size_t m, uint8_t *packed, unsigned r)
{
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < m; i++) {
        bits |= (uint32_t)(rest[i] & ((1u << r) - 1)) << have;
        have += r;
        if (have >= 8) {
            *packed++ = (uint8_t)bits;
            bits >>= 8;
            have -= 8;
        }
    }
    if (have > 0)
        *packed = (uint8_t)bits;
}

Z4_INLINE void z4_symbols_unpack_tail(const uint8_t *packed, size_t m, uint8_t *rest, unsigned r)
{
    uint32_t bits = 0;
    unsigned have = 0;
    for (size_t i = 0; i < m; i++) {
        if (have < r) {
            bits |= (uint32_t)*packed++ << have;
            have += 8;
        }
        rest[i] = (uint8_t)(bits & ((1u << r) - 1));
        bits >>= r;
        have -= r;
    }
}

/* Eight bytes a word: a compiler makes vectors of it, and where it does not it is fast too. */
#define Z4_EACH(byte_) (0x0101010101010101ULL * (byte_))

Z4_INLINE void z4_symbols_pack_group_scalar(const uint8_t *rest, uint8_t *packed, unsigned r)
{
    uint64_t w[8];
    for (int q = 0; q < 8; q++)
        w[q] = z4_load64(rest + 8 * q);
    for (int q = 0; q < 4; q++)
        z4_store64(packed + 8 * q, (w[q] & Z4_EACH(0x0f)) | (w[q + 4] & Z4_EACH(0x0f)) << 4);
    if (r == 6)
        for (int q = 0; q < 2; q++)
            z4_store64(packed + 32 + 8 * q,
                       (w[q] >> 4 & Z4_EACH(0x03)) | (w[q + 2] >> 2 & Z4_EACH(0x0c))
                           | (w[q + 4] & Z4_EACH(0x30)) | (w[q + 6] << 2 & Z4_EACH(0xc0)));
}

Z4_INLINE void z4_symbols_unpack_group_scalar(const uint8_t *packed, uint8_t *rest, unsigned r)
{
    uint64_t w[8];
    for (int q = 0; q < 4; q++) {
        const uint64_t x = z4_load64(packed + 8 * q);
        w[q] = x & Z4_EACH(0x0f);
        w[q + 4] = x >> 4 & Z4_EACH(0x0f);
    }
    if (r == 6)
        for (int q = 0; q < 2; q++) {
            const uint64_t x = z4_load64(packed + 32 + 8 * q);
            w[q] |= x << 4 & Z4_EACH(0x30);
            w[q + 2] |= x << 2 & Z4_EACH(0x30);
            w[q + 4] |= x & Z4_EACH(0x30);
            w[q + 6] |= x >> 2 & Z4_EACH(0x30);
        }
    for (int q = 0; q < 8; q++)
        z4_store64(rest + 8 * q, w[q]);
}

/* The elements of two bytes from i on, fewer than 64; packed are their remainders. */
Z4_INLINE void z4_symbols_merge_packed_tail(const uint8_t *symbols, const uint8_t *packed,
                                            size_t i, size_t n, unsigned base, uint8_t *dst)
{
    uint8_t rest[64];
    z4_symbols_unpack_tail(packed, n - i, rest, 6);
    z4_symbols_merge_body(symbols + i, rest, 0, n - i, base, dst + 2 * i, 5);
}

/* ---- contexts, statistics ---- */

Z4_INLINE void z4_symbols_contexts_body(unsigned row, const uint8_t *Z4_RESTRICT columns, size_t i,
                                        size_t n, unsigned shift, unsigned most,
                                        uint8_t *Z4_RESTRICT contexts)
{
    const uint16_t limit = (uint16_t)most;
    if (columns == NULL) {
        const unsigned all = row >> shift;
        if (i < n)
            memset(contexts + i, (int)(all < most ? all : most), n - i);
        return;
    }
    for (; i < n; i++) {
        const uint16_t c = (uint16_t)((uint16_t)(row + columns[i]) >> shift);
        contexts[i] = (uint8_t)(c < limit ? c : limit);
    }
}

Z4_INLINE uint64_t z4_symbols_weigh_body(const uint8_t *Z4_RESTRICT symbols, size_t n,
                                         unsigned floor, uint32_t *Z4_RESTRICT sums)
{
    const uint8_t least = (uint8_t)floor;
    uint64_t total = 0;
    for (size_t i = 0; i < n;) {
        const size_t m = n - i < 4096 ? n - i : 4096; /* a sum of bytes fits 32 bits */
        uint32_t part = 0;
        for (size_t j = i; j < i + m; j++) {
            const uint8_t y = symbols[j] == 255 ? 0 : symbols[j];
            const uint8_t v = y > least ? y : least;
            part += v;
            if (sums != NULL)
                sums[j] += v;
        }
        total += part;
        i += m;
    }
    return total;
}

#endif
