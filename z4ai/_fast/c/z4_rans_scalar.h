/* z4_rans_scalar.h -- groups of N symbols, one symbol at a time and without a branch on any of
 * them.
 *
 * READ ME FIRST. A state x of a lane codes a symbol of frequency f that begins at c as
 *     x' = (x / f) * 4096 + x % f + c
 * after moving its low 16 bits to the output if x' would reach 2^31. The decoder undoes it in the
 * opposite order: x % 4096 finds the symbol, and a state that has fallen below 2^15 takes a word.
 * So the encoder goes from the last symbol to the first and writes downwards. */
#ifndef Z4_RANS_SCALAR_H
#define Z4_RANS_SCALAR_H

#include "z4_rans_types.h"

/* ---- decoder ---- */

/* Element of a table: symbol, its frequency << 8, position in its range << 20. */
Z4_INLINE uint32_t z4_rans_step(uint32_t x, uint32_t e)
{
    return (e >> 8 & 0xfff) * (x >> Z4_RANS_BITS) + (e >> 20);
}

/* n, the lanes, and with_contexts are constants at each call that matters. Words are 2 bytes and a
 * symbol takes one at most: Z4_RANS_ROOM bytes suffice for any n. */
Z4_INLINE void z4_rans_read_body(z4_rans_reading *r, unsigned n, int with_contexts)
{
    const uint32_t *Z4_RESTRICT tables = r->tables;
    const uint8_t *in = r->in, *limit = r->limit;
    const uint8_t *Z4_RESTRICT contexts = r->contexts;
    uint8_t *Z4_RESTRICT dst = r->dst;
    uint32_t state[Z4_RANS_LANES];
    size_t groups = r->groups;
    memcpy(state, r->state, n * sizeof *state);
    for (; groups > 0 && limit - in >= Z4_RANS_ROOM; groups--) {
        for (unsigned i = 0; i < n; i++) {
            uint32_t x = state[i], slot = x & (Z4_RANS_TOTAL - 1), e, word, low;
            if (with_contexts)
                slot |= (uint32_t)contexts[i] << Z4_RANS_BITS;
            e = tables[slot];
            dst[i] = (uint8_t)e;
            x = z4_rans_step(x, e);
            /* a mask where the compiler would see a branch, which every second symbol mispredicts
             */
            word = x << 16 | z4_load16(in);
            low = (x - Z4_RANS_LOW) >> 31; /* x is below 2^31 */
            state[i] = x ^ ((x ^ word) & (0 - low));
            in += 2 * low;
        }
        dst += n;
        if (with_contexts)
            contexts += n;
    }
    memcpy(r->state, state, n * sizeof *state);
    r->in = in;
    r->dst = dst;
    r->contexts = contexts;
    r->groups = groups;
}

static inline void z4_rans_read_scalar(z4_rans_reading *r, unsigned lanes)
{
    int with_contexts = r->contexts != NULL;
    if (lanes == 64 && with_contexts)
        z4_rans_read_body(r, 64, 1);
    else if (lanes == 64)
        z4_rans_read_body(r, 64, 0);
    else if (lanes == 16)
        z4_rans_read_body(r, 16, with_contexts);
    else if (lanes == 4)
        z4_rans_read_body(r, 4, with_contexts);
    else
        z4_rans_read_body(r, 1, with_contexts);
}

/* ---- encoder ---- */

/* Code: frequency, its begin << 12; 0 where a symbol has none. Division by reciprocal:
 * m = ceil(2^43 / f), so m f = 2^43 + d with d < f, and x m / 2^43 = x / f + x d / (f 2^43). The
 * last term stays below 1 / f, which cannot carry x / f past an integer, as long as x d < 2^43: x
 * is below f 2^19 and d below f, f below 2^12. And x m < f 2^19 (2^43 / f + 1) < 2^63. */
enum { Z4_RANS_SHIFT = 43 };

Z4_INLINE void z4_rans_put(uint32_t *state, uint32_t code, uint64_t reciprocal, uint8_t **out,
                           uint32_t *least)
{
    uint32_t x = *state, f = code & 0xfff, full = x >= f << 19;
    z4_store16(*out - 2, (uint16_t)x);
    *out -= 2 * full;
    x = full ? x >> 16 : x;
    *state = (uint32_t)(x * reciprocal >> Z4_RANS_SHIFT) * (Z4_RANS_TOTAL - f) + x + (code >> 12);
    *least = f < *least ? f : *least;
}

Z4_INLINE void z4_rans_write_body(z4_rans_writing *w, unsigned n, int with_contexts)
{
    const uint8_t *symbols = w->symbols, *contexts = w->contexts;
    const uint32_t *codes = w->codes;
    const uint64_t *reciprocals = w->reciprocals;
    uint8_t *out = w->out;
    uint32_t state[Z4_RANS_LANES], least = Z4_RANS_TOTAL;
    size_t groups = w->groups;
    memcpy(state, w->state, n * sizeof *state);
    for (; groups > 0 && out - w->floor >= Z4_RANS_ROOM; groups--) {
        symbols -= n;
        if (with_contexts)
            contexts -= n;
        for (unsigned i = n; i-- > 0;) {
            uint32_t k = symbols[i];
            if (with_contexts)
                k |= (uint32_t)contexts[i] << 8;
            z4_rans_put(&state[i], codes[k], reciprocals[k], &out, &least);
        }
    }
    memcpy(w->state, state, n * sizeof *state);
    w->symbols = symbols;
    w->contexts = contexts;
    w->out = out;
    w->groups = groups;
    w->strange |= least == 0;
}

static inline void z4_rans_write_scalar(z4_rans_writing *w, unsigned lanes)
{
    int with_contexts = w->contexts != NULL;
    if (lanes == 64 && with_contexts)
        z4_rans_write_body(w, 64, 1);
    else if (lanes == 64)
        z4_rans_write_body(w, 64, 0);
    else if (lanes == 16)
        z4_rans_write_body(w, 16, with_contexts);
    else if (lanes == 4)
        z4_rans_write_body(w, 4, with_contexts);
    else
        z4_rans_write_body(w, 1, with_contexts);
}

#endif
