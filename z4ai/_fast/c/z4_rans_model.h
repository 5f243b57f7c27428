/* z4_rans_model.h -- the tables of a stream, to bytes and back.
 *
 * READ ME FIRST. What is written is not frequencies but levels: logarithms of weights, in steps
 * that an octave has 4, 8, 16 or 32 of. The frequencies follow from the weights by
 * z4_rans_normalise(). So a table is written no finer than its symbols are worth, and levels of
 * neighbours (the symbol below, the same symbol in the table before) predict each other by
 * differences, whatever the scale. Levels are coded by an adaptive binary arithmetic coder: about
 * half a byte each. */
#ifndef Z4_RANS_MODEL_H
#define Z4_RANS_MODEL_H

#include "z4_rans_tables.h"

enum {
    Z4_RANS_FINEST = 5, /* log2 of the steps of an octave: 2 to 5 */
    Z4_RANS_COARSEST = 2,
    Z4_RANS_WIDEST = 9, /* bits of a difference of levels: below 12 * 32 */
    Z4_RANS_ENOUGH = 20 /* bits seen after which a probability moves no slower */
};

/* Tables of a stream. Level 0: the symbol has no weight. About 32 KiB. */
typedef struct {
    unsigned count, precision;
    uint16_t level[Z4_RANS_CONTEXTS][Z4_RANS_SYMBOLS];
} z4_rans_model;

/* Level v > 0, with p = precision: bits of v - 1 are e eeem mmm, p of them m: weight (2^p + m) 2^e.
 */
Z4_INLINE uint32_t z4_rans_weight(unsigned level, unsigned precision)
{
    unsigned v = level - 1;
    return level == 0 ? 0 : ((1u << precision) + (v & ((1u << precision) - 1))) << (v >> precision);
}

Z4_INLINE unsigned z4_rans_most_level(unsigned precision)
{
    return 12u << precision;
}

/* Levels of one table from counts: a weight of 2^p stands for a frequency of 1 or less. */
static inline void z4_rans_levels(const uint32_t counts[Z4_RANS_SYMBOLS], unsigned precision,
                                  uint16_t levels[Z4_RANS_SYMBOLS])
{
    const unsigned most = z4_rans_most_level(precision);
    uint64_t total = 0;
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++)
        total += counts[s];
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
        uint32_t w, exponent, level;
        levels[s] = 0;
        if (counts[s] == 0)
            continue;
        w = (uint32_t)((((uint64_t)counts[s] << (13 + precision)) / total + 1) >> 1);
        if (w < 1u << precision)
            w = 1u << precision;
        exponent = z4_log2(w) - precision;
        /* a carry out of m moves on to the next exponent by itself */
        level = (exponent << precision) + ((w + (1u << exponent >> 1)) >> exponent) -
                (1u << precision) + 1;
        levels[s] = (uint16_t)(level < most ? level : most);
    }
}

static inline void z4_rans_model_freqs(const z4_rans_model *m, unsigned context,
                                       uint16_t freqs[Z4_RANS_SYMBOLS])
{
    uint32_t weights[Z4_RANS_SYMBOLS];
    for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++)
        weights[s] = z4_rans_weight(m->level[context][s], m->precision);
    z4_rans_normalise(weights, freqs);
}

/* ---- binary arithmetic coder ---- */

/* What stands for the bits to come is a number between low and high; the bytes in which both agree
 * are settled. */
typedef struct {
    uint32_t low, high, value; /* value: of a reader */
    const uint8_t *src;
    uint8_t *dst;
    size_t at, nbytes; /* may run past nbytes: zeros are read there, and nothing is written */
} z4_rans_bits;

/* Probability of a 1 in 1/65536, and how many bits it was learnt from. */
typedef struct {
    uint16_t p, seen;
} z4_rans_bit;

Z4_INLINE void z4_rans_shift(z4_rans_bits *b)
{
    while ((b->low ^ b->high) >> 24 == 0) {
        if (b->src != NULL)
            b->value = b->value << 8 | (b->at < b->nbytes ? b->src[b->at] : 0);
        else if (b->at < b->nbytes)
            b->dst[b->at] = (uint8_t)(b->high >> 24);
        b->at++;
        b->low <<= 8;
        b->high = b->high << 8 | 255;
    }
}

/* Code a bit of probability p / 65536 to be 1: `bit` when writing, else what is returned. */
Z4_INLINE unsigned z4_rans_code(z4_rans_bits *b, uint32_t p, unsigned bit)
{
    uint32_t middle = b->low + (uint32_t)((uint64_t)(b->high - b->low) * p >> 16);
    if (b->src != NULL)
        bit = b->value <= middle;
    if (bit)
        b->high = middle;
    else
        b->low = middle + 1;
    z4_rans_shift(b);
    return bit;
}

Z4_INLINE unsigned z4_rans_adapt(z4_rans_bits *b, z4_rans_bit *a, unsigned bit)
{
    uint32_t p = a->p;
    bit = z4_rans_code(b, p, bit);
    p = bit ? p + (65536 - p) / (a->seen + 2u) : p - p / (a->seen + 2u); /* stays within 1..65535 */
    a->p = (uint16_t)p;
    a->seen = (uint16_t)(a->seen + (a->seen < Z4_RANS_ENOUGH));
    return bit;
}

/* ---- levels ---- */

/* What is learnt: whether a symbol has a weight, by how many of its neighbours have one; whether a
 * difference is negative, by its bits; the bit behind its first, likewise; whether it has more bits
 * than these, by these and by whether the difference before it was 0. */
enum {
    Z4_RANS_SOME = 4,
    Z4_RANS_LEARNT = Z4_RANS_SOME + 2 * (Z4_RANS_WIDEST + 1) + 2 * Z4_RANS_WIDEST
};

/* Neither the least nor the greatest of three. */
Z4_INLINE int z4_rans_median(int a, int b, int c)
{
    int low = a < b ? a : b, high = a < b ? b : a;
    return c < low ? low : c > high ? high : c;
}

/* Read the levels of a model; or, b->src NULL, write them, and touch none. */
static inline int z4_rans_levels_code(z4_rans_bits *b, z4_rans_model *m)
{
    const int most = (int)z4_rans_most_level(m->precision);
    z4_rans_bit learnt[Z4_RANS_LEARNT], *const some = learnt, *const below = some + Z4_RANS_SOME;
    z4_rans_bit *const second = below + Z4_RANS_WIDEST + 1, *more = second + Z4_RANS_WIDEST + 1;
    for (unsigned i = 0; i < Z4_RANS_LEARNT; i++) {
        learnt[i].p = 32768;
        learnt[i].seen = 0;
    }
    for (unsigned k = 0; k < m->count; k++) {
        uint16_t *level = m->level[k];
        unsigned before = 0; /* Z4_RANS_WIDEST if the last difference was not 0 */
        for (unsigned s = 0; s < Z4_RANS_SYMBOLS; s++) {
            int left = s > 0 ? level[s - 1] : 0, up, corner, next = 0, expected, d;
            unsigned size, bits, sign;
            if (k > 0) {
                const uint16_t *row = m->level[k - 1];
                up = row[s];
                corner = s > 0 ? row[s - 1] : 0;
                next = s < Z4_RANS_SYMBOLS - 1 ? row[s + 1] : 0;
            } else { /* four symbols are an octave */
                up = s > 3 ? level[s - 4] : 0;
                corner = s > 4 ? level[s - 5] : 0;
            }
            if (!z4_rans_adapt(b, &some[(left > 0) + (up > 0) + (next > 0)], level[s] > 0)) {
                if (b->src != NULL)
                    level[s] = 0;
                continue;
            }
            if (left == 0 || up == 0)
                expected = left + up > 0 ? left + up : 1;
            else if (corner == 0)
                expected = (left + up) / 2;
            else
                expected = z4_rans_median(left, up, left + up - corner);
            d = (int)level[s] - expected; /* anything when reading */
            bits = (unsigned)(d < 0 ? -d : d);
            for (size = 0; size < Z4_RANS_WIDEST; size++)
                if (!z4_rans_adapt(b, &more[before + size], bits >> size > 0))
                    break;
            before = size > 0 ? Z4_RANS_WIDEST : 0;
            sign = 0;
            if (size > 0) {
                unsigned got = 1;
                sign = z4_rans_adapt(b, &below[size], d < 0);
                if (size > 1)
                    got = got << 1 | z4_rans_adapt(b, &second[size], bits >> (size - 2) & 1);
                for (unsigned i = 2; i < size; i++)
                    got = got << 1 | z4_rans_code(b, 32768, bits >> (size - 1 - i) & 1);
                bits = got;
            } else {
                bits = 0;
            }
            d = expected + (sign ? -(int)bits : (int)bits);
            if (d < 1 || d > most)
                return Z4_CORRUPT;
            if (b->src != NULL)
                level[s] = (uint16_t)d;
        }
    }
    return Z4_OK;
}

/* Bytes of a model, which may be more than capacity: then they are not all written. The first has
 * count - 1, and above it precision - 2. */
static inline size_t z4_rans_model_write(const z4_rans_model *m, uint8_t *dst, size_t capacity)
{
    z4_rans_bits b = {0, UINT32_MAX, 0, NULL, dst, 1, capacity};
    (void)z4_rans_levels_code(&b, (z4_rans_model *)(uintptr_t)m);
    if (b.low > 0) { /* the shortest number between low and high */
        if (b.at < capacity)
            dst[b.at] = (uint8_t)((b.low >> 24) + 1);
        b.at++;
    }
    if (capacity > 0)
        dst[0] = (uint8_t)((m->count - 1) | (m->precision - Z4_RANS_COARSEST) << 6);
    return b.at;
}

/* Read a model that fills src. Only what z4_rans_model_write() would write of it is accepted. */
static inline int z4_rans_model_read(const uint8_t *src, size_t nbytes, z4_rans_model *m)
{
    z4_rans_bits b = {0, UINT32_MAX, 0, src, NULL, 1, nbytes};
    int status;
    size_t used;
    if (nbytes == 0)
        return Z4_TRUNCATED;
    m->count = (src[0] & 63) + 1u;
    m->precision = Z4_RANS_COARSEST + (src[0] >> 6);
    memset(m->level, 0, m->count * sizeof m->level[0]);
    for (; b.at < 5; b.at++)
        b.value = b.value << 8 | (b.at < nbytes ? src[b.at] : 0);
    status = z4_rans_levels_code(&b, m);
    if (status != Z4_OK)
        return status;
    used = b.at - 4 + (b.low > 0);
    if (nbytes < used)
        return Z4_TRUNCATED;
    if (nbytes > used || (b.low > 0 && src[nbytes - 1] != (uint8_t)((b.low >> 24) + 1)))
        return Z4_CORRUPT;
    return Z4_OK;
}

/* The model of one precision for symbols counted by context. */
static inline void z4_rans_model_count(const uint32_t (*counts)[Z4_RANS_SYMBOLS], unsigned count,
                                       unsigned precision, z4_rans_model *m)
{
    m->count = count;
    m->precision = precision;
    for (unsigned k = 0; k < count; k++)
        z4_rans_levels(counts[k], precision, m->level[k]);
}

/* Make the model for symbols counted by context. precision 0: the one that makes tables and symbols
 * the smallest together. Returns that size in 1/256 bit. `draft`: scratch, not used otherwise. */
static inline uint64_t z4_rans_model_make(const uint32_t (*counts)[Z4_RANS_SYMBOLS], unsigned count,
                                          unsigned precision, z4_rans_model *m,
                                          z4_rans_model *draft)
{
    uint64_t least = UINT64_MAX;
    for (unsigned p = Z4_RANS_COARSEST; p <= Z4_RANS_FINEST; p++) {
        uint64_t size = 0;
        if (precision != 0 && p != precision)
            continue;
        z4_rans_model_count(counts, count, p, draft);
        for (unsigned k = 0; k < count; k++) {
            uint16_t freqs[Z4_RANS_SYMBOLS];
            z4_rans_model_freqs(draft, k, freqs);
            size += z4_rans_cost(counts[k], freqs);
        }
        size += 2048 * (uint64_t)z4_rans_model_write(draft, NULL, 0);
        if (size < least) {
            least = size;
            memcpy(m, draft, sizeof *m);
        }
    }
    return least;
}

#endif
