/* z4_difference_survey.h -- what a model of differences is chosen by: levels of rows, symbols counted by class.
 *
 * Integers only: the same on every machine. */
#ifndef Z4_DIFFERENCE_SURVEY_H
#define Z4_DIFFERENCE_SURVEY_H

#include "z4_difference.h"

#define Z4_DIFFERENCE_TILE ((size_t)1024)
/* Sums of a class of a reference and one of a row. */
#define Z4_DIFFERENCE_CLASSES 384

/* How contexts follow, as in z4_model. */
typedef struct {
    int kind, floats;
    unsigned top, below, octave;
    size_t period; /* 0: no rows */
} z4_difference_way;

Z4_INLINE void z4_difference_look(const z4_difference_impl *impl, const z4_difference_way *way, const uint8_t *content,
                                  const uint8_t *reference, size_t n, uint64_t *sizes, uint8_t *symbols, uint8_t *classes)
{
    impl->split[way->kind](content, reference, n, way->floats, symbols, sizes);
    if (way->floats)
        impl->contexts[way->kind](reference, n, way->top, way->below, 0, 0, 255, classes);
    else
        memset(classes, 0, n);
}

/* Level of each row of n elements; their symbols, and the classes of their references, are kept for a count. */
static void z4_difference_levels(const z4_difference_impl *impl, const z4_difference_way *way, const uint8_t *content,
                                 const uint8_t *reference, size_t n, uint16_t *levels, uint8_t *symbols,
                                 uint8_t *classes)
{
    const size_t width = (size_t)1 << way->kind;
    uint64_t sizes[Z4_DIFFERENCE_TILE];
    uint64_t sum = 0;
    size_t row = 0; /* elements of it that are summed up */
    for (size_t i = 0; i < n; i += Z4_DIFFERENCE_TILE) {
        const size_t t = n - i < Z4_DIFFERENCE_TILE ? n - i : Z4_DIFFERENCE_TILE;
        z4_difference_look(impl, way, content + i * width, reference + i * width, t, sizes, symbols + i, classes + i);
        for (size_t done = 0; done < t;) {
            const size_t k = way->period - row < t - done ? way->period - row : t - done;
            sum += impl->weigh[way->kind]((const uint8_t *)sizes + done * width, classes + i + done, k, way->octave);
            row += k;
            done += k;
            if (row == way->period || i + done == n) {
                *levels++ = (uint16_t)z4_difference_row_level(sum, row, way->octave);
                sum = 0;
                row = 0;
            }
        }
    }
}

/* counts[class of the reference][symbol] += 1 */
static void z4_difference_count(const z4_difference_impl *impl, const z4_difference_way *way, const uint8_t *content,
                                const uint8_t *reference, size_t n, uint32_t (*counts)[256])
{
    const size_t width = (size_t)1 << way->kind;
    uint64_t sizes[Z4_DIFFERENCE_TILE];
    uint8_t symbols[Z4_DIFFERENCE_TILE], classes[Z4_DIFFERENCE_TILE];
    for (size_t i = 0; i < n; i += Z4_DIFFERENCE_TILE) {
        const size_t t = n - i < Z4_DIFFERENCE_TILE ? n - i : Z4_DIFFERENCE_TILE;
        z4_difference_look(impl, way, content + i * width, reference + i * width, t, sizes, symbols, classes);
        for (size_t j = 0; j < t; j++)
            counts[classes[j]][symbols[j]]++;
    }
}

/* counts[class of the reference + class of the row][symbol] += 1, of what z4_difference_levels() kept. */
static void z4_difference_count_rows(const uint8_t *symbols, const uint8_t *classes, size_t n, size_t period,
                                     const uint8_t *rows, uint32_t (*counts)[256])
{
    for (size_t i = 0; i < n; i += period) {
        const size_t end = n - i < period ? n : i + period;
        uint32_t(*const from)[256] = counts + *rows++;
        for (size_t j = i; j < end; j++)
            from[classes[j]][symbols[j]]++;
    }
}

/* Classes up to the last that occurs. */
static size_t z4_difference_classes(const uint32_t (*counts)[256])
{
    for (size_t c = Z4_DIFFERENCE_CLASSES; c > 0; c--) {
        uint32_t some = 0;
        for (size_t y = 0; y < 256; y++)
            some |= counts[c - 1][y];
        if (some)
            return c;
    }
    return 0;
}

/* Bits apart of symbols so counted. */
static uint64_t z4_difference_count_bits(int kind, const uint32_t (*counts)[256], size_t classes)
{
    const unsigned g = kind == 3 ? Z4_DIFFERENCE_G8 : Z4_DIFFERENCE_G4;
    uint64_t bits = 0;
    for (size_t c = 0; c < classes; c++)
        for (unsigned y = 0; y < 256; y++)
            bits += (uint64_t)counts[c][y] * z4_difference_bits_of((uint8_t)y, g);
    return bits;
}

/* ---- whole contents, for tests ---- */

/* -> bytes of the string of bits, for which there are as many as n elements have, and eight more. */
static size_t z4_difference_split_all(const z4_difference_impl *impl, int kind, int floats, const uint8_t *content,
                                      const uint8_t *reference, size_t n, uint8_t *symbols, uint8_t *out)
{
    const size_t width = (size_t)1 << kind;
    z4_difference_writer bits = {out, 0, 0};
    uint64_t sizes[Z4_DIFFERENCE_TILE];
    for (size_t i = 0; i < n; i += Z4_DIFFERENCE_TILE) {
        const size_t t = n - i < Z4_DIFFERENCE_TILE ? n - i : Z4_DIFFERENCE_TILE;
        impl->split[kind](content + i * width, reference + i * width, t, floats, symbols + i, sizes);
        impl->put[kind](&bits, symbols + i, sizes, t);
    }
    return (size_t)(z4_difference_written(&bits) - out);
}

/* -> whether the string has as many bytes as the symbols need. */
static int z4_difference_merge_all(const z4_difference_impl *impl, int kind, int floats, const uint8_t *symbols,
                                   const uint8_t *bits, size_t nbytes, const uint8_t *reference, size_t n,
                                   uint8_t *content)
{
    const size_t width = (size_t)1 << kind;
    z4_difference_reader reader = {bits, nbytes, 0};
    uint64_t apart[Z4_DIFFERENCE_TILE];
    for (size_t i = 0; i < n; i += Z4_DIFFERENCE_TILE) {
        const size_t t = n - i < Z4_DIFFERENCE_TILE ? n - i : Z4_DIFFERENCE_TILE;
        impl->take[kind](&reader, symbols + i, t, apart);
        impl->restore[kind](reference + i * width, symbols + i, apart, t, floats, content + i * width);
    }
    return z4_difference_read_all(&reader);
}

#endif
