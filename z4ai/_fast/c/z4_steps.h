/* z4_steps.h -- integers as small steps from one to the next, or distances from a constant.
 * Implements docs/format/codecs/steps.md.
 *
 * Widths 2, 4, 8; m low bytes, below the width and at most 6; nothing needs alignment, nothing may
 * overlap. Arithmetic is on 64-bit words, of which the low 8 w bits count.
 * split: symbols and each low[k] have room for n bytes, exceptions for n elements (all of which may
 * be written); returns how many count. Cannot fail.
 * join: exceptions has n_exceptions elements; Z4_CORRUPT unless the symbols ask for exactly those. */
#ifndef Z4_STEPS_H
#define Z4_STEPS_H

#include "z4_sparse.h"

enum { Z4_STEPS_MAX_LOW = 6, Z4_STEPS_ESCAPE = 255 };

typedef struct {
    uint64_t base;
    uint64_t start;  /* of steps: what stands before the first element */
    unsigned n_low;  /* m */
    int differences; /* steps, not distances */
} z4_steps_rule;

Z4_INLINE uint64_t z4_steps_mask(unsigned w) { return w == 8 ? ~0ULL : (1ULL << 8 * (w & 7)) - 1; }

Z4_INLINE size_t z4_steps_split_body(const uint8_t *Z4_RESTRICT src, size_t n, uint64_t base,
                                     uint64_t start, uint8_t *Z4_RESTRICT symbols,
                                     uint8_t *const *low, uint8_t *Z4_RESTRICT exceptions,
                                     unsigned w, unsigned m, int differences)
{
    const uint64_t mask = z4_steps_mask(w);
    uint64_t before = differences ? start : 0;
    size_t count = 0; /* <= i, so every store is within n elements */
    for (size_t i = 0; i < n; i++) {
        const uint64_t x = z4_load_word(src + w * i, w);
        const uint64_t v = (x - before - base) & mask, high = v >> 8 * m;
        const unsigned escaped = high >= Z4_STEPS_ESCAPE;
        symbols[i] = (uint8_t)(escaped ? Z4_STEPS_ESCAPE : high);
        for (unsigned k = 0; k < m; k++)
            low[k][i] = (uint8_t)(escaped ? 0 : v >> 8 * (m - 1 - k));
        z4_store_word(exceptions + w * count, x, w);
        count += escaped;
        if (differences)
            before = x;
    }
    return count;
}

Z4_INLINE int z4_steps_join_body(const uint8_t *Z4_RESTRICT symbols, size_t n,
                                 const uint8_t *const *low, const uint8_t *Z4_RESTRICT exceptions,
                                 size_t n_exceptions, uint64_t base, uint64_t start,
                                 uint8_t *Z4_RESTRICT dst, unsigned w, unsigned m, int differences)
{
    uint64_t before = differences ? start + base : base; /* the base is in it already */
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t v = symbols[i];
        uint64_t x;
        if (Z4_UNLIKELY(v == Z4_STEPS_ESCAPE)) {
            if (at == n_exceptions)
                return Z4_CORRUPT;
            x = z4_load_word(exceptions + w * at++, w);
        } else {
            for (unsigned k = 0; k < m; k++)
                v = v << 8 | low[k][i];
            x = before + v;
        }
        z4_store_word(dst + w * i, x, w);
        if (differences)
            before = x + base;
    }
    return at == n_exceptions ? Z4_OK : Z4_CORRUPT;
}

/* m is a constant where it is small, as it nearly always is. */
#define Z4_STEPS_WIDTH(w_)                                                                         \
    static inline size_t z4_steps_split##w_(const uint8_t *src, size_t n, const z4_steps_rule *r,  \
                                            uint8_t *symbols, uint8_t *const *low,                 \
                                            uint8_t *exceptions)                                   \
    {                                                                                              \
        const int d = r->differences;                                                              \
        if (r->n_low == 0 && d)                                                                    \
            return z4_steps_split_body(src, n, r->base, r->start, symbols, low, exceptions, w_, 0, \
                                       1);                                                         \
        if (r->n_low == 1 && d)                                                                    \
            return z4_steps_split_body(src, n, r->base, r->start, symbols, low, exceptions, w_, 1, \
                                       1);                                                         \
        return z4_steps_split_body(src, n, r->base, r->start, symbols, low, exceptions, w_,        \
                                   r->n_low, d);                                                   \
    }                                                                                              \
    static inline int z4_steps_join##w_(const uint8_t *symbols, size_t n,                          \
                                        const z4_steps_rule *r, const uint8_t *const *low,         \
                                        const uint8_t *exceptions, size_t n_exceptions,            \
                                        uint8_t *dst)                                              \
    {                                                                                              \
        const int d = r->differences;                                                              \
        if (r->n_low == 0 && d)                                                                    \
            return z4_steps_join_body(symbols, n, low, exceptions, n_exceptions, r->base,          \
                                      r->start, dst, w_, 0, 1);                                    \
        if (r->n_low == 1 && d)                                                                    \
            return z4_steps_join_body(symbols, n, low, exceptions, n_exceptions, r->base,          \
                                      r->start, dst, w_, 1, 1);                                    \
        return z4_steps_join_body(symbols, n, low, exceptions, n_exceptions, r->base, r->start,    \
                                  dst, w_, r->n_low, d);                                           \
    }
Z4_STEPS_WIDTH(2)
Z4_STEPS_WIDTH(4)
Z4_STEPS_WIDTH(8)

static inline size_t z4_steps_split(const uint8_t *src, size_t n, unsigned w,
                                    const z4_steps_rule *rule, uint8_t *symbols,
                                    uint8_t *const *low, uint8_t *exceptions)
{
    return w == 2   ? z4_steps_split2(src, n, rule, symbols, low, exceptions)
           : w == 4 ? z4_steps_split4(src, n, rule, symbols, low, exceptions)
                    : z4_steps_split8(src, n, rule, symbols, low, exceptions);
}

static inline int z4_steps_join(const uint8_t *symbols, size_t n, unsigned w,
                                const z4_steps_rule *rule, const uint8_t *const *low,
                                const uint8_t *exceptions, size_t n_exceptions, uint8_t *dst)
{
    return w == 2   ? z4_steps_join2(symbols, n, rule, low, exceptions, n_exceptions, dst)
           : w == 4 ? z4_steps_join4(symbols, n, rule, low, exceptions, n_exceptions, dst)
                    : z4_steps_join8(symbols, n, rule, low, exceptions, n_exceptions, dst);
}

/* How many symbols are escapes: as many exceptions must follow. */
static inline size_t z4_steps_count(const uint8_t *symbols, size_t n)
{
    size_t count = 0;
    for (size_t i = 0; i < n;) {
        unsigned some = 0; /* in 32 bits the loop vectorises well */
        const size_t end = n - i < 1u << 16 ? n : i + (1u << 16);
        for (; i < end; i++)
            some += symbols[i] == Z4_STEPS_ESCAPE;
        count += some;
    }
    return count;
}

#endif
