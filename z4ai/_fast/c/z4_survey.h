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

static z4_survey_logs z4_survey_table;

/* Once, before anything else. */
static void z4_survey_begin(void)
{
    for (uint32_t i = 0; i <= 257; i++)
        z4_survey_table.log[i] = z4_rans_log2(256 + (i < 256 ? i : 256)) - (8 << 16);
}

/* v log2(v), log2 in 1/65536. */
Z4_INLINE uint64_t z4_survey_term(uint32_t v)
{
    if (v < 2)
        return 0;
    const unsigned whole = z4_log2(v);
    const uint64_t fraction = ((uint64_t)v << (32 - whole)) & 0xffffffffu; /* of 2^32 */
    const uint32_t i = (uint32_t)(fraction >> 24);
    const uint64_t between = fraction & 0xffffff, low = z4_survey_table.log[i], high = z4_survey_table.log[i + 1];
    return v * (((uint64_t)whole << 16) + low + ((high - low) * between >> 24));
}

static uint64_t z4_survey_entropy(const uint32_t *counts, size_t n)
{
    uint64_t sum = 0, total = 0;
    for (size_t i = 0; i < n; i++) {
        sum += z4_survey_term(counts[i]);
        total += counts[i];
    }
    const uint64_t all = z4_survey_term((uint32_t)total);
    return all > sum ? (all - sum) >> 8 : 0;
}

static uint64_t z4_survey_cost(const uint32_t *counts, size_t n) { return z4_survey_entropy(counts, n); }

/* Cost of one context with its table: about four bits for each symbol that occurs, and a few bytes. */
static uint64_t z4_survey_context(const uint32_t counts[256])
{
    unsigned some = 0;
    for (unsigned y = 0; y < 256; y++)
        some += counts[y] != 0;
    return some == 0 ? 256 * 8 : z4_survey_entropy(counts, 256) + 256 * (40 + 4 * (uint64_t)some);
}

/* Least cost of `bins` classes, shifted, where those from some class on are one context; *count: contexts. */
static uint64_t z4_survey_merge(const uint32_t (*counts)[256], unsigned bins, unsigned shift, unsigned most,
                                unsigned *count)
{
    const unsigned groups = ((bins - 1) >> shift) + 1;
    uint64_t cost[Z4_SURVEY_CLASSES], before = 0, least = UINT64_MAX;
    uint32_t sum[256];
    memset(cost, 0, sizeof cost);
    for (unsigned g = 0; g < groups; g++) {
        memset(sum, 0, sizeof sum);
        for (unsigned b = g << shift; b < bins && b >> shift == g; b++)
            for (unsigned y = 0; y < 256; y++)
                sum[y] += counts[b][y];
        cost[g] = z4_survey_context(sum);
        before += cost[g];
    }
    memset(sum, 0, sizeof sum);
    for (unsigned g = groups; g-- > 0;) { /* contexts 0 … g, the last with all above */
        before -= cost[g];
        for (unsigned b = g << shift; b < bins && b >> shift == g; b++)
            for (unsigned y = 0; y < 256; y++)
                sum[y] += counts[b][y];
        const uint64_t all = before + z4_survey_context(sum);
        if (g < most && all < least) {
            least = all;
            *count = g + 1;
        }
    }
    return least;
}

/* The symbol that stands for rare ones is rarer than one in so many. */
#define Z4_SURVEY_RAREST 1024

/* What contexts (classes shifted, the last `count` - 1 with all above) keep of `width` symbols, and what is rare in its
 * context: where a frequency of 1/4096 is more than its due. -> the escape, or -1 where nothing is coded apart.
 * complete: what was counted is all there is. */
static int z4_survey_apart(const uint32_t (*counts)[256], unsigned bins, unsigned shift, unsigned count,
                           unsigned width, int complete, uint32_t (*kept)[256], uint32_t *rare)
{
    uint64_t occurs[256] = {0}, all = 0;
    int some = 0;
    unsigned escape = 0;
    memset(kept, 0, count * sizeof *kept);
    memset(rare, 0, 256 * sizeof *rare);
    for (unsigned b = 0; b < bins; b++) {
        const unsigned c = b >> shift < count ? b >> shift : count - 1;
        for (unsigned y = 0; y < width; y++)
            kept[c][y] += counts[b][y];
    }
    for (unsigned c = 0; c < count; c++) {
        uint64_t total = 0;
        for (unsigned y = 0; y < width; y++)
            total += kept[c][y];
        for (unsigned y = 0; y < width; y++) {
            occurs[y] += kept[c][y];
            some |= kept[c][y] > 0 && (uint64_t)kept[c][y] * Z4_RANS_TOTAL < total;
        }
        all += total;
    }
    for (unsigned y = 1; y < width; y++)
        escape = occurs[y] < occurs[escape] ? y : escape;
    if (complete && !some)
        return -1;
    if (occurs[escape] * Z4_SURVEY_RAREST > all) {
        /* Every symbol is frequent: none can stand for others. */
        for (unsigned c = 0; c < count; c++)
            for (unsigned y = 0; y < width; y++)
                kept[c][y] += kept[c][y] == 0;
        return -1;
    }
    for (unsigned c = 0; c < count; c++) {
        uint64_t total = 0;
        uint32_t apart = 0;
        for (unsigned y = 0; y < width; y++)
            total += kept[c][y];
        for (unsigned y = 0; y < width; y++) {
            if (y == escape || (uint64_t)kept[c][y] * Z4_RANS_TOTAL < total) {
                rare[y] += kept[c][y];
                apart += kept[c][y];
                kept[c][y] = 0;
            }
        }
        kept[c][escape] = apart + (apart == 0 && !complete);
    }
    for (unsigned y = 0; !complete && y < width; y++)
        rare[y]++;
    return (int)escape;
}

#endif
