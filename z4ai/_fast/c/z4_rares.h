/* z4_rares.h -- find the symbols that the table of their context lacks; included by z4_symbols.h.
 *
 * find  Places, in order, of the rare ones of n symbols, at most Z4_RARES_TILE; contexts NULL: all are of context 0.
 *       `places` has room for n. Contexts are trusted, and below 64. Every variant finds the same. */
#ifndef Z4_RARES_H
#define Z4_RARES_H

#include "z4_bits.h"
#include "z4_rans_types.h"

#define Z4_RARES_TILE ((size_t)1 << 14)

typedef struct z4_rares {
    uint8_t is_rare[Z4_RANS_CONTEXTS * 256];
    uint8_t from[Z4_RANS_CONTEXTS], size[Z4_RANS_CONTEXTS]; /* none of these symbols is rare */
} z4_rares;

/* The table of a context lacks symbols of no frequency, and the escape, which stands for them. */
static inline void z4_rares_prepare(z4_rares *r, unsigned context, const uint16_t freqs[256], uint8_t escape)
{
    uint8_t *const is_rare = r->is_rare + 256 * context;
    unsigned begin = 0, sum = 0, most = 0;
    r->from[context] = r->size[context] = 0;
    for (unsigned y = 0; y < 256; y++) {
        is_rare[y] = freqs[y] == 0 || y == escape;
        if (is_rare[y]) {
            begin = y + 1;
            sum = 0;
        } else {
            sum += freqs[y];
        }
        if (sum > most) {
            most = sum;
            r->from[context] = (uint8_t)begin;
            r->size[context] = (uint8_t)(y + 1 - begin);
        }
    }
}

/* Eight symbols at a time are only looked at: few have a rare one among them. */
Z4_INLINE size_t z4_rares_find_body(const uint8_t *symbols, const uint8_t *contexts, size_t i, size_t n,
                                    const z4_rares *r, uint16_t *places, size_t found)
{
    for (; i < n; i += 8) {
        const size_t t = n - i < 8 ? n - i : 8;
        const uint8_t *const y = symbols + i;
        uint8_t some = 0;
        for (size_t j = 0; j < t; j++)
            some |= r->is_rare[y[j] | (contexts == NULL ? 0 : (size_t)contexts[i + j] << 8)];
        for (size_t j = 0; some && j < t; j++) {
            places[found] = (uint16_t)(i + j);
            found += r->is_rare[y[j] | (contexts == NULL ? 0 : (size_t)contexts[i + j] << 8)];
        }
    }
    return found;
}

static size_t z4_rares_find_scalar(const uint8_t *symbols, const uint8_t *contexts, size_t n, const z4_rares *r,
                                   uint16_t *places)
{
    return contexts == NULL ? z4_rares_find_body(symbols, NULL, 0, n, r, places, 0)
                            : z4_rares_find_body(symbols, contexts, 0, n, r, places, 0);
}

#if Z4_X86
#define z4_rares_find_avx2 z4_rares_find_scalar

/* Most symbols are within the range of their context, which a permutation looks up. */
Z4_TARGET_AVX512 static size_t z4_rares_find_avx512(const uint8_t *symbols, const uint8_t *contexts, size_t n,
                                                    const z4_rares *r, uint16_t *places)
{
    const __m512i from = _mm512_loadu_si512(r->from), size = _mm512_loadu_si512(r->size);
    size_t i = 0, found = 0;
    for (; i + 64 <= n; i += 64) {
        const __m512i y = _mm512_loadu_si512(symbols + i);
        const __m512i c = contexts == NULL ? _mm512_setzero_si512() : _mm512_loadu_si512(contexts + i);
        const __m512i past = _mm512_sub_epi8(y, _mm512_permutexvar_epi8(c, from));
        uint64_t outside = _mm512_cmpge_epu8_mask(past, _mm512_permutexvar_epi8(c, size));
        for (; outside != 0; outside &= outside - 1) {
            const size_t at = i + (size_t)__builtin_ctzll(outside);
            places[found] = (uint16_t)at;
            found += r->is_rare[symbols[at] | (contexts == NULL ? 0 : (size_t)contexts[at] << 8)];
        }
    }
    return z4_rares_find_body(symbols, contexts, i, n, r, places, found);
}
#endif

#endif
