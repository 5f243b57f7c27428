/* z4_rans_rare.h -- symbols too rare for 12 bits, coded apart.
 *
 * A table gives 1/4096 to whatever occurs. Where dozens of symbols are rarer than that (the far
 * tail of exponents) they cost the others up to 1 %. So all of them may become one symbol, the
 * escape, which is one of them; which it was each time is told by a second, short stream under a
 * table of its own. */
#ifndef Z4_RANS_RARE_H
#define Z4_RANS_RARE_H

#include "z4_bits.h"
#include "z4_rans_types.h"

/* Mark the symbols that are rarer than 1/4096 over all contexts. Returns the lowest, which is the
 * escape, or -1 if there are fewer than two. */
static inline int z4_rans_rare(const uint32_t (*counts)[Z4_RANS_SYMBOLS], unsigned count,
                               uint8_t rare[Z4_RANS_SYMBOLS])
{
    uint64_t sum[Z4_RANS_SYMBOLS], total = 0;
    unsigned n = 0;
    int escape = -1;
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
        sum[s] = 0;
        for (unsigned k = 0; k < count; k++)
            sum[s] += counts[k][s];
        total += sum[s];
    }
    for (unsigned s = Z4_RANS_SYMBOLS; s-- > 0;) {
        rare[s] = sum[s] > 0 && sum[s] < total >> Z4_RANS_BITS;
        n += rare[s];
        if (rare[s])
            escape = (int)s;
    }
    return n < 2 ? -1 : escape;
}

/* Put the escape in the place of rare symbols, and these into rest, in order. Returns how many they
 * are. rest: room for one more. */
static inline size_t z4_rans_set_apart(uint8_t *symbols, size_t n,
                                       const uint8_t rare[Z4_RANS_SYMBOLS], uint8_t escape,
                                       uint8_t *rest)
{
    uint8_t map[Z4_RANS_SYMBOLS];
    size_t k = 0;
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++)
        map[s] = rare[s] ? escape : (uint8_t)s;
    for (size_t i = 0; i < n; i++) {
        uint8_t s = symbols[i];
        rest[k] = s;
        k += rare[s];
        symbols[i] = map[s];
    }
    return k;
}

/* Undo it: every escape becomes the next of rest. Returns how many were taken, or Z4_CORRUPT if
 * there are not enough. A caller that goes on tile by tile passes what is left; none may be left at
 * the end. */
static inline ptrdiff_t z4_rans_put_back(uint8_t *symbols, size_t n, uint8_t escape,
                                         const uint8_t *rest, size_t n_rest)
{
    uint8_t *at = symbols, *const end = symbols + n;
    size_t k = 0;
    while (at < end && (at = (uint8_t *)memchr(at, escape, (size_t)(end - at))) != NULL) {
        if (k == n_rest)
            return Z4_CORRUPT;
        *at++ = rest[k++];
    }
    return (ptrdiff_t)k;
}

#endif
