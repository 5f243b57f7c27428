/* z4_survey.h -- what a model is chosen by: symbols of a sample, weighed, counted, and what they would cost.
 *
 * Integers only: the same on every machine. */
#ifndef Z4_SURVEY_H
#define Z4_SURVEY_H

#include "z4_planes.h"
#include "z4_rans_tables.h"
#include "z4_symbols.h"

#define Z4_SURVEY_TILE ((size_t)2048)
/* Most classes of which contexts are made: those of symbols are fewer than those of differences. */
#define Z4_SURVEY_CLASSES 384

/* Symbols of n elements; what lies beside them is dropped. */
static void z4_survey_symbols(const z4_symbols_impl *impl, int kind, unsigned base, int swap, const uint8_t *src,
                              size_t n, uint8_t *symbols)
{
    const size_t width = z4_symbols_width(kind);
    uint8_t rest[Z4_SURVEY_TILE], swapped[Z4_SURVEY_TILE * 8], low[Z4_SURVEY_TILE], *lows[6];
    for (size_t p = 0; p < 6; p++)
        lows[p] = low;
    for (size_t i = 0; i < n; i += Z4_SURVEY_TILE) {
        const size_t m = n - i < Z4_SURVEY_TILE ? n - i : Z4_SURVEY_TILE;
        const uint8_t *tile = src + i * width;
        if (swap) {
            for (size_t j = 0; j < m * width; j++)
                swapped[j] = tile[j - j % width + (width - 1 - j % width)];
            tile = swapped;
        }
        impl->split[kind](tile, m, base, symbols + i, rest, lows);
    }
}

static void z4_survey_weigh(const z4_symbols_impl *impl, const uint8_t *symbols, size_t n, size_t period,
                            unsigned floor, uint64_t *rows, uint32_t *columns)
{
    for (size_t i = 0; i < n; i += period)
        *rows++ = impl->weigh(symbols + i, n - i < period ? n - i : period, floor, columns);
}

/* counts[row class + column class][symbol] */
static void z4_survey_count(const z4_symbols_impl *impl, const uint8_t *symbols, size_t n, size_t period,
                            const uint8_t *rows, const uint8_t *columns, uint32_t (*counts)[256])
{
    uint8_t contexts[Z4_SURVEY_TILE];
    if (columns == NULL && rows == NULL) {
        impl->count(symbols, NULL, n, counts);
        return;
    }
    for (size_t i = 0; i < n;) {
        /* whole rows, where several fit */
        size_t m = 0;
        while (m < Z4_SURVEY_TILE && i + m < n) {
            const size_t at = i + m, column = at % period, left = period - column;
            size_t k = left < n - at ? left : n - at;
            k = k < Z4_SURVEY_TILE - m ? k : Z4_SURVEY_TILE - m;
            impl->contexts(rows == NULL ? 0 : rows[at / period], columns == NULL ? NULL : columns + column, k, 0, 127,
                           contexts + m);
            m += k;
        }
        impl->count(symbols + i, contexts, m, counts);
        i += m;
    }
}

/* log2(1 + i / 256) in 1/65536. */
typedef struct {
    uint32_t log[258];
} z4_survey_logs;

static void z4_survey_begin(z4_survey_logs *t)
{
    for (uint32_t i = 0; i <= 257; i++)
        t->log[i] = z4_rans_log2(256 + (i < 256 ? i : 256)) - (8 << 16);
}

/* v log2(v), log2 in 1/65536. */
Z4_INLINE uint64_t z4_survey_term(const z4_survey_logs *t, uint32_t v)
{
    if (v < 2)
        return 0;
    const unsigned whole = z4_log2(v);
    const uint64_t fraction = ((uint64_t)v << (32 - whole)) & 0xffffffffu; /* of 2^32 */
    const uint32_t i = (uint32_t)(fraction >> 24);
    const uint64_t between = fraction & 0xffffff, low = t->log[i], high = t->log[i + 1];
    return v * (((uint64_t)whole << 16) + low + ((high - low) * between >> 24));
}

static uint64_t z4_survey_entropy(const z4_survey_logs *t, const uint32_t *counts, size_t n)
{
    uint64_t sum = 0, total = 0;
    for (size_t i = 0; i < n; i++) {
        sum += z4_survey_term(t, counts[i]);
        total += counts[i];
    }
    const uint64_t all = z4_survey_term(t, (uint32_t)total);
    return all > sum ? (all - sum) >> 8 : 0;
}

static uint64_t z4_survey_cost(const uint32_t *counts, size_t n)
{
    z4_survey_logs logs;
    z4_survey_begin(&logs);
    return z4_survey_entropy(&logs, counts, n);
}

/* Cost of one context with its table: about four bits for each symbol that occurs, and a few bytes. */
static uint64_t z4_survey_context(const z4_survey_logs *t, const uint32_t counts[256])
{
    unsigned some = 0;
    for (unsigned y = 0; y < 256; y++)
        some += counts[y] != 0;
    return some == 0 ? 256 * 8 : z4_survey_entropy(t, counts, 256) + 256 * (40 + 4 * (uint64_t)some);
}

/* Least cost of `bins` classes, shifted, where those from some class on are one context; *count: contexts. */
static uint64_t z4_survey_merge(const uint32_t (*counts)[256], unsigned bins, unsigned shift, unsigned most,
                                unsigned *count)
{
    const unsigned groups = ((bins - 1) >> shift) + 1;
    uint64_t cost[Z4_SURVEY_CLASSES], before = 0, least = UINT64_MAX;
    uint32_t sum[256];
    z4_survey_logs logs;
    z4_survey_begin(&logs);
    memset(cost, 0, sizeof cost);
    for (unsigned g = 0; g < groups; g++) {
        memset(sum, 0, sizeof sum);
        for (unsigned b = g << shift; b < bins && b >> shift == g; b++)
            for (unsigned y = 0; y < 256; y++)
                sum[y] += counts[b][y];
        cost[g] = z4_survey_context(&logs, sum);
        before += cost[g];
    }
    memset(sum, 0, sizeof sum);
    for (unsigned g = groups; g-- > 0;) { /* contexts 0 … g, the last with all above */
        before -= cost[g];
        for (unsigned b = g << shift; b < bins && b >> shift == g; b++)
            for (unsigned y = 0; y < 256; y++)
                sum[y] += counts[b][y];
        const uint64_t all = before + z4_survey_context(&logs, sum);
        if (g < most && all < least) {
            least = all;
            *count = g + 1;
        }
    }
    return least;
}

#endif
