/* z4_symbols_count.h -- histograms of symbols; included by z4_symbols.h, contract there. */
#ifndef Z4_SYMBOLS_COUNT_H
#define Z4_SYMBOLS_COUNT_H

#include "z4_portable.h"

/* Four histograms side by side: equal neighbours would wait for each other in one. */
Z4_INLINE void z4_symbols_count_plain(const uint8_t *symbols, size_t n, uint32_t *counts)
{
    uint32_t side[3][256];
    size_t i = 0;
    if (n >= 1024) {
        memset(side, 0, sizeof side);
        for (; i + 8 <= n; i += 8) {
            const uint64_t y = z4_load64(symbols + i);
            counts[y & 255]++;
            side[0][y >> 8 & 255]++;
            side[1][y >> 16 & 255]++;
            side[2][y >> 24 & 255]++;
            counts[y >> 32 & 255]++;
            side[0][y >> 40 & 255]++;
            side[1][y >> 48 & 255]++;
            side[2][y >> 56]++;
        }
        for (unsigned y = 0; y < 256; y++)
            counts[y] += side[0][y] + side[1][y] + side[2][y];
    }
    for (; i < n; i++)
        counts[symbols[i]]++;
}

/* As many symbols that every second of them fits 16 bits. Short calls do not pay for the second
 * histogram. */
enum { Z4_SYMBOLS_ROUND = 131064, Z4_SYMBOLS_LONG = 32768 };

Z4_INLINE void z4_symbols_count_round(const uint8_t *symbols, const uint8_t *contexts, size_t n,
                                      uint32_t *counts)
{
    uint16_t side[64 * 256];
    size_t i = 0, used;
    uint8_t most = 0;
    for (size_t j = 0; j < n; j++)
        most = contexts[j] > most ? contexts[j] : most;
    used = ((size_t)most + 1) * 256;
    memset(side, 0, used * sizeof *side);
    for (; i + 2 <= n; i += 2) {
        counts[(size_t)contexts[i] << 8 | symbols[i]]++;
        side[(size_t)contexts[i + 1] << 8 | symbols[i + 1]]++;
    }
    for (; i < n; i++)
        counts[(size_t)contexts[i] << 8 | symbols[i]]++;
    for (size_t j = 0; j < used; j++)
        counts[j] += side[j];
}

Z4_INLINE void z4_symbols_count_body(const uint8_t *symbols, const uint8_t *contexts, size_t n,
                                     uint32_t (*counts)[256])
{
    if (contexts == NULL) {
        z4_symbols_count_plain(symbols, n, counts[0]);
        return;
    }
    while (n >= Z4_SYMBOLS_LONG) {
        const size_t m = n < Z4_SYMBOLS_ROUND ? n : Z4_SYMBOLS_ROUND;
        z4_symbols_count_round(symbols, contexts, m, counts[0]);
        symbols += m;
        contexts += m;
        n -= m;
    }
    for (size_t i = 0; i < n; i++)
        counts[contexts[i]][symbols[i]]++;
}

#endif
