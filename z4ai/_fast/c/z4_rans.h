/* z4_rans.h -- byte symbols under static tables, each chosen by a context that the decoder knows.
 *
 * Tables:   z4_rans_normalise(), z4_rans_check(), z4_rans_cost(): z4_rans_tables.h. How the tables
 * of a stream are written and read: z4_rans_model.h. Symbols too rare for them: z4_rans_rare.h. To
 * code with tables, one call a context: z4_rans_table_build(freqs, tables + 4096 * context): for
 * the decoder z4_rans_codes_build(freqs, codes + 256 * context, reciprocals + 256 * context)
 * Encode:   size = z4_rans_encode(impl, symbols, contexts, n, codes, dst, capacity)
 *           Z4_CAPACITY: never when capacity is at least z4_rans_bound(n), nor when it exceeds the
 * size by Z4_RANS_ROOM. Z4_CORRUPT: a context that is not below codes->count, or a symbol without
 *           a frequency. All of dst may be scribbled on.
 * Decode:   z4_rans_begin(), then z4_rans_next() for as many symbols as the stream has, then
 *           z4_rans_end(); or z4_rans_decode() for all of it.
 *           begin: Z4_OK, Z4_TRUNCATED (no room for the states), Z4_CORRUPT (an odd size, or a
 *           state out of range). `tables` must have been built, all of them; it is trusted.
 *           next: the next m symbols into dst, m a multiple of 64 unless they are the last: Z4_OK,
 *           Z4_TRUNCATED when the words run out, Z4_CORRUPT for more symbols than are left, or a
 *           context that is not below count: contexts are checked here. Writes nothing but
 *           dst[0, m), reads nothing outside src and contexts[0, m). After an error the decoder
 * must not be used again. end: Z4_OK when all symbols have been read, all words used, and all
 * states are at rest; else Z4_CORRUPT. contexts: one a symbol; of one table (count 1) none are
 * read, and NULL will do. Variants: z4_rans_pick(isa). All give the same bytes and the same
 * statuses.
 *
 * src and dst must not overlap. Nothing is allocated; the decoder is the caller's. */
#ifndef Z4_RANS_H
#define Z4_RANS_H

#include "z4_rans_avx512.h"
#include "z4_rans_model.h"
#include "z4_rans_rare.h"
#include "z4_rans_scalar.h"

static const z4_rans_impl Z4_RANS[] = {
    {"scalar", z4_rans_read_scalar, z4_rans_write_scalar},
#if Z4_X86
    {"avx2", z4_rans_read_avx2, z4_rans_write_avx2},
    {"avx512", z4_rans_read_avx512, z4_rans_write_avx512},
#endif
};

enum { Z4_RANS_COUNT = sizeof Z4_RANS / sizeof *Z4_RANS };

static inline const z4_rans_impl *z4_rans_pick(int isa)
{
    int row = isa == Z4_ISA_AVX512 ? 2 : isa == Z4_ISA_AVX2 ? 1 : 0;
    return &Z4_RANS[row < (int)Z4_RANS_COUNT ? row : 0];
}

/* Whether all contexts are below count, which is 1 to Z4_RANS_CONTEXTS. */
static inline int z4_rans_contexts_ok(const uint8_t *contexts, size_t n, unsigned count)
{
    uint8_t most = 0;
    for (size_t i = 0; i < n; i++)
        most = contexts[i] > most ? contexts[i] : most;
    return most < count;
}

/* ---- encoder ---- */

/* States, a word a symbol, and room for the loops to scribble on. */
static inline size_t z4_rans_bound(size_t n)
{
    return n == 0 ? 0 : 4 * (size_t)z4_rans_lanes(n) + 2 * n + Z4_RANS_ROOM;
}

static inline ptrdiff_t z4_rans_encode(const z4_rans_impl *impl, const uint8_t *symbols,
                                       const uint8_t *contexts, size_t n,
                                       const z4_rans_codes *codes, uint8_t *dst, size_t capacity)
{
    const unsigned lanes = z4_rans_lanes(n), rest = (unsigned)(n % lanes);
    uint32_t state[Z4_RANS_LANES], least = Z4_RANS_TOTAL;
    z4_rans_writing w;
    size_t size;
    if (n == 0)
        return 0;
    if (codes->count == 1)
        contexts = NULL;
    else if (!z4_rans_contexts_ok(contexts, n, codes->count))
        return Z4_CORRUPT;
    if (capacity < 4 * lanes + Z4_RANS_ROOM)
        return Z4_CAPACITY;
    for (unsigned i = 0; i < lanes; i++)
        state[i] = Z4_RANS_LOW;
    w.state = state;
    w.codes = codes->codes;
    w.reciprocals = codes->reciprocals;
    w.out = dst + capacity;
    w.floor = dst + 4 * lanes;
    w.symbols = symbols + (n - rest);
    w.contexts = contexts == NULL ? NULL : contexts + (n - rest);
    w.groups = n / lanes;
    w.strange = 0;
    for (unsigned i = rest; i-- > 0;) { /* 63 words at most, within Z4_RANS_ROOM */
        uint32_t k = w.symbols[i] | (contexts == NULL ? 0 : (uint32_t)w.contexts[i] << 8);
        z4_rans_put(&state[i], w.codes[k], w.reciprocals[k], &w.out, &least);
    }
    impl->write(&w, lanes);
    if (w.strange || least == 0)
        return Z4_CORRUPT;
    if (w.groups > 0)
        return Z4_CAPACITY;
    size = (size_t)(dst + capacity - w.out);
    for (unsigned i = 0; i < lanes; i++)
        z4_store32(dst + 4 * i, state[i]);
    memmove(dst + 4 * lanes, w.out, size);
    return (ptrdiff_t)(4 * lanes + size);
}

/* ---- decoder ---- */

static inline int z4_rans_begin(z4_rans_decoder *d, const uint8_t *src, size_t nbytes, size_t n,
                                const uint32_t *tables, unsigned count)
{
    unsigned lanes = n == 0 ? 0 : z4_rans_lanes(n);
    d->tables = tables;
    d->count = count;
    d->lanes = lanes;
    d->left = n;
    d->in_tail = 0;
    d->in = d->end = src;
    if (nbytes < 4 * (size_t)lanes)
        return Z4_TRUNCATED;
    if (nbytes % 2)
        return Z4_CORRUPT;
    for (unsigned i = 0; i < lanes; i++) {
        d->state[i] = z4_load32(src + 4 * i);
        if (d->state[i] - Z4_RANS_LOW >= ((uint32_t)1 << 31) - Z4_RANS_LOW)
            return Z4_CORRUPT;
    }
    if (nbytes > 0) {
        d->in = src + 4 * lanes;
        d->end = src + nbytes;
    }
    return Z4_OK;
}

/* Go on from a copy of the last words. Zeros follow them, so that the loops need not look where the
 * words end: a group that began before the end stays within the copy, and who ran past it is found
 * out afterwards. */
static inline void z4_rans_to_tail(z4_rans_decoder *d)
{
    size_t left = (size_t)(d->end - d->in); /* less than Z4_RANS_ROOM */
    memset(d->tail, 0, sizeof d->tail);
    if (left > 0)
        memcpy(d->tail, d->in, left);
    d->in = d->tail;
    d->end = d->tail + left;
    d->in_tail = 1;
}

/* z4_rans_next() of contexts that are known to be below count. */
static inline int z4_rans_next_known(const z4_rans_impl *impl, z4_rans_decoder *d,
                                     const uint8_t *contexts, size_t m, uint8_t *dst)
{
    z4_rans_reading r;
    unsigned rest;
    if (m > d->left || (m % Z4_RANS_LANES != 0 && m != d->left))
        return Z4_CORRUPT;
    if (m == 0)
        return Z4_OK;
    if (d->count == 1)
        contexts = NULL;
    r.state = d->state;
    r.contexts = contexts;
    r.tables = d->tables;
    r.dst = dst;
    r.groups = m / d->lanes;
    for (;;) {
        r.in = d->in;
        r.limit = d->in_tail ? d->end + Z4_RANS_ROOM : d->end;
        impl->read(&r, d->lanes);
        d->in = r.in;
        if (d->in_tail || d->end - d->in >= Z4_RANS_ROOM)
            break;
        z4_rans_to_tail(d);
    }
    if (r.groups > 0 || d->in > d->end)
        return Z4_TRUNCATED;
    rest = (unsigned)(m % d->lanes);
    for (unsigned i = 0; i < rest; i++) {
        uint32_t x = d->state[i], slot = x & (Z4_RANS_TOTAL - 1), e;
        if (contexts != NULL)
            slot |= (uint32_t)r.contexts[i] << Z4_RANS_BITS;
        e = d->tables[slot];
        r.dst[i] = (uint8_t)e;
        x = z4_rans_step(x, e);
        if (x < Z4_RANS_LOW) {
            if (d->in == d->end)
                return Z4_TRUNCATED;
            x = x << 16 | z4_load16(d->in);
            d->in += 2;
        }
        d->state[i] = x;
    }
    d->left -= m;
    return Z4_OK;
}

static inline int z4_rans_next(const z4_rans_impl *impl, z4_rans_decoder *d,
                               const uint8_t *contexts, size_t m, uint8_t *dst)
{
    if (d->count > 1 && m > 0 && !z4_rans_contexts_ok(contexts, m, d->count))
        return Z4_CORRUPT;
    return z4_rans_next_known(impl, d, contexts, m, dst);
}

static inline int z4_rans_end(const z4_rans_decoder *d)
{
    if (d->left != 0 || d->in != d->end)
        return Z4_CORRUPT;
    for (unsigned i = 0; i < d->lanes; i++)
        if (d->state[i] != Z4_RANS_LOW)
            return Z4_CORRUPT;
    return Z4_OK;
}

static inline int z4_rans_decode(const z4_rans_impl *impl, const uint8_t *src, size_t nbytes,
                                 const uint8_t *contexts, size_t n, const uint32_t *tables,
                                 unsigned count, uint8_t *dst)
{
    z4_rans_decoder d;
    int status = z4_rans_begin(&d, src, nbytes, n, tables, count);
    if (status == Z4_OK)
        status = z4_rans_next(impl, &d, contexts, n, dst);
    return status == Z4_OK ? z4_rans_end(&d) : status;
}

#endif
