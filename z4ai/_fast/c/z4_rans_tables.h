/* z4_rans_tables.h -- frequencies: from counts, to the tables of either direction, and what they
 * cost.
 *
 * Integers only: the same on every machine. A table is 256 frequencies of 0 to 4095 that sum to
 * 4096; none is 4096, which saves the decoder an addition a symbol, and costs 0.0004 bit where
 * there is one symbol only. */
#ifndef Z4_RANS_TABLES_H
#define Z4_RANS_TABLES_H

#include "z4_bits.h"
#include "z4_rans_types.h"

/* Frequencies nearly proportional to weights, at least 1 for each symbol that has a weight: the
 * proportions rounded up, and then one at a time the symbol that is furthest ahead of its share
 * gives one (the lower symbol first where two are alike), until the sum is right. One symbol alone
 * gives 1 to its neighbour; none is as symbol 0. */
static inline void z4_rans_normalise(const uint32_t weights[Z4_RANS_SYMBOLS],
                                     uint16_t freqs[Z4_RANS_SYMBOLS])
{
    uint8_t present[Z4_RANS_SYMBOLS];
    uint64_t total = 0;
    unsigned n = 0, sum = 0;
    memset(freqs, 0, Z4_RANS_SYMBOLS * sizeof *freqs);
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
        total += weights[s];
        if (weights[s])
            present[n++] = (uint8_t)s;
    }
    if (n < 2) {
        unsigned s = n ? present[0] : 0;
        freqs[s] = Z4_RANS_TOTAL - 1;
        freqs[s ^ 1] = 1;
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        unsigned s = present[i];
        freqs[s] = (uint16_t)((((uint64_t)weights[s] << Z4_RANS_BITS) + total - 1) / total);
        sum += freqs[s];
    }
    for (; sum > Z4_RANS_TOTAL; sum--) { /* the smallest weight / (2 f - 1) of those above 1 */
        unsigned best = Z4_RANS_SYMBOLS;
        for (unsigned i = 0; i < n; i++) {
            unsigned s = present[i];
            if (freqs[s] > 1 &&
                (best == Z4_RANS_SYMBOLS || (uint64_t)weights[s] * (2u * freqs[best] - 1) <
                                                (uint64_t)weights[best] * (2u * freqs[s] - 1)))
                best = s;
        }
        freqs[best]--;
    }
}

static inline int z4_rans_check(const uint16_t freqs[Z4_RANS_SYMBOLS])
{
    unsigned sum = 0, most = 0;
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
        sum += freqs[s];
        most = freqs[s] > most ? freqs[s] : most;
    }
    return sum == Z4_RANS_TOTAL && most < Z4_RANS_TOTAL ? Z4_OK : Z4_CORRUPT;
}

/* ---- cost ---- */

/* log2(v) in 1/65536, rounded down; 1 <= v < 2^16. The square of a number has twice the logarithm:
 * each time it passes 2, a bit of the result is 1. */
static inline uint32_t z4_rans_log2(uint32_t v)
{
    unsigned whole = z4_log2(v);
    uint64_t x = (uint64_t)v << (31 - whole); /* 1 <= x / 2^31 < 2 */
    uint32_t log = whole;
    for (int i = 0; i < 16; i++) {
        x = x * x >> 31;
        log = log << 1 | (uint32_t)(x >> 32);
        x >>= x >> 32;
    }
    return log;
}

/* What symbols distributed like counts take under freqs, in 1/256 bit, without states. UINT64_MAX:
 * some occur that have no frequency. */
static inline uint64_t z4_rans_cost(const uint32_t counts[Z4_RANS_SYMBOLS],
                                    const uint16_t freqs[Z4_RANS_SYMBOLS])
{
    uint64_t sum = 0; /* in 1/65536 bit: 2^40 symbols of 12 bits are 2^60 */
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
        if (counts[s] == 0)
            continue;
        if (freqs[s] == 0)
            return UINT64_MAX;
        sum += (uint64_t)counts[s] * ((Z4_RANS_BITS << 16) - z4_rans_log2(freqs[s]));
    }
    return (sum + 255) >> 8;
}

/* ---- tables of either direction ---- */

/* Z4_RANS_TOTAL elements: symbol, frequency << 8, position in the symbol's range << 20. */
static inline int z4_rans_table_build(const uint16_t freqs[Z4_RANS_SYMBOLS], uint32_t *table)
{
    if (z4_rans_check(freqs) != Z4_OK)
        return Z4_CORRUPT;
    for (uint32_t s = 0; s < Z4_RANS_SYMBOLS; s++) {
        uint32_t f = freqs[s], e = s | f << 8;
        for (uint32_t i = 0; i < f; i++)
            table[i] = e | i << 20;
        table += f;
    }
    return Z4_OK;
}

/* Z4_RANS_SYMBOLS elements of each: frequency and its begin << 12; the reciprocal of the frequency,
 * see z4_rans_scalar.h. */
static inline int z4_rans_codes_build(const uint16_t freqs[Z4_RANS_SYMBOLS], uint32_t *codes,
                                      uint64_t *reciprocals)
{
    uint32_t begin = 0;
    if (z4_rans_check(freqs) != Z4_OK)
        return Z4_CORRUPT;
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
        uint32_t f = freqs[s];
        codes[s] = f ? f | begin << 12 : 0;
        reciprocals[s] = f ? (((uint64_t)1 << 43) + f - 1) / f : 0;
        begin += f;
    }
    return Z4_OK;
}

#endif
