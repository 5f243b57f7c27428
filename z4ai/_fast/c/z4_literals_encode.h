/* z4_literals_encode.h -- frames of Huffman-coded literals: which tree for which block, and the loops.
 *
 * A frame is cut into blocks and blocks into groups of 16. All blocks of a group are
 * counted first. One tree for the whole group is taken when it is as small as a tree a block, else
 * the group is halved, and so on. A tree that is in use stays while it is as small as a new one. All
 * sizes compared are exact; "as small" allows 1/2048 more, because each tree costs the decoder time. */
#ifndef Z4_LITERALS_ENCODE_H
#define Z4_LITERALS_ENCODE_H

#include "z4_huffman.h"
#include "z4_literals_types.h"

/* ---- the loops; each is compiled once for every variant ---- */

/* Stream k of a block of n symbols covers `seg` symbols from k * seg on, the fourth what is left. */
Z4_INLINE size_t z4_lit_segment(size_t n) { return (n + 3) / 4; }

/* Histograms of the four streams of a block (n <= 128 KiB, so a count fits 16 bits; n >= 4). Two
 * tables a stream, taken in turn: a symbol that repeats waits for its own last store otherwise. */
Z4_INLINE void z4_lit_count_body(const uint8_t *src, size_t n, uint16_t counts[4][Z4_HUF_SYMBOLS])
{
    size_t seg = z4_lit_segment(n), shortest = n - 3 * seg, i = 0;
    const uint8_t *s0 = src, *s1 = src + seg, *s2 = src + 2 * seg, *s3 = src + 3 * seg;
    uint16_t other[4][Z4_HUF_SYMBOLS];
    memset(counts, 0, sizeof other);
    memset(other, 0, sizeof other);
    for (; i + 8 <= shortest; i += 8) {
        uint64_t a = z4_load64(s0 + i), b = z4_load64(s1 + i);
        uint64_t c = z4_load64(s2 + i), d = z4_load64(s3 + i);
#define Z4_LIT_COUNT(table, shift)                                                                 \
    table[0][a >> (shift) & 255]++;                                                                \
    table[1][b >> (shift) & 255]++;                                                                \
    table[2][c >> (shift) & 255]++;                                                                \
    table[3][d >> (shift) & 255]++;
        Z4_LIT_COUNT(counts, 0)
        Z4_LIT_COUNT(other, 8)
        Z4_LIT_COUNT(counts, 16)
        Z4_LIT_COUNT(other, 24)
        Z4_LIT_COUNT(counts, 32)
        Z4_LIT_COUNT(other, 40)
        Z4_LIT_COUNT(counts, 48)
        Z4_LIT_COUNT(other, 56)
#undef Z4_LIT_COUNT
    }
    for (; i < seg; i++) {
        counts[0][s0[i]]++;
        counts[1][s1[i]]++;
        counts[2][s2[i]]++;
        if (i < shortest)
            counts[3][s3[i]]++;
    }
    for (unsigned k = 0; k < 4; k++)
        for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++)
            counts[k][s] = (uint16_t)(counts[k][s] + other[k][s]);
}

/* A bit container that grows at the top: the newest symbol is topmost, and adding one shifts the
 * rest down. An entry holds its code in the top bits and its length in the low byte; the lengths
 * that get into the container fall off below it. `pos` counts the bits not yet stored, in its low
 * six bits: at most 7 + 4 * 11 = 51 before a flush, so the container never overflows, and the
 * four bits that the last length left at the bottom are shifted out by the flush (64 - 51 > 4). */
typedef struct {
    const uint8_t *src; /* next symbol is src[-1]: streams are written from the last symbol on */
    uint8_t *dst;
    uint64_t bits, pos;
} z4_lit_writer;

Z4_INLINE void z4_lit_add(z4_lit_writer *w, uint64_t entry)
{
    w->bits = w->bits >> (entry & 63) | entry;
    w->pos += entry;
}

/* Store eight bytes, of which the whole ones count. */
Z4_INLINE void z4_lit_flush(z4_lit_writer *w)
{
    z4_store64(w->dst, w->bits >> (-w->pos & 63));
    w->dst += (w->pos & 63) >> 3;
    w->pos &= 7;
}

Z4_INLINE void z4_lit_add4(z4_lit_writer *w, const uint64_t *entry)
{
    z4_lit_add(w, entry[w->src[-1]]);
    z4_lit_add(w, entry[w->src[-2]]);
    z4_lit_add(w, entry[w->src[-3]]);
    z4_lit_add(w, entry[w->src[-4]]);
    w->src -= 4;
    z4_lit_flush(w);
}

Z4_INLINE void z4_lit_close(z4_lit_writer *w)
{
    unsigned n = (unsigned)(w->pos & 7);
    uint64_t rest = n ? w->bits >> (64 - n) : 0;
    *w->dst++ = (uint8_t)(rest | 1u << n);
}

/* The four streams of a block, n >= Z4_LIT_FOUR, written side by side: nbytes[k] is the exact size
 * of stream k, so all four places are known. A stream may scribble 7 bytes past its end: over the
 * head of the next one, which is saved when both are half way and put back at the end, and after
 * the last one, where the caller grants 8 bytes.
 *
 * Half way is at least 128 symbols from either end of each stream: 16 bytes written, 15 to come. */
Z4_INLINE void z4_lit_encode4_body(const uint8_t *src, size_t n, uint8_t *dst, const uint32_t nbytes[4],
                                   const uint64_t *entry)
{
    size_t seg = z4_lit_segment(n), quads = (n - 3 * seg) / 4;
    uint8_t *start1 = dst + nbytes[0], *start2 = start1 + nbytes[1], *start3 = start2 + nbytes[2];
    uint64_t head1, head2, head3;
    z4_lit_writer a = {src + seg, dst, 0, 0}, b = {src + 2 * seg, start1, 0, 0};
    z4_lit_writer c = {src + 3 * seg, start2, 0, 0}, d = {src + n, start3, 0, 0};
#define Z4_LIT_LEAD(w, upto)                                                                       \
    while (w.src > (upto)) {                                                                       \
        z4_lit_add(&w, entry[*--w.src]);                                                           \
        z4_lit_flush(&w);                                                                          \
    }
    Z4_LIT_LEAD(a, src + 4 * quads)
    Z4_LIT_LEAD(b, src + seg + 4 * quads)
    Z4_LIT_LEAD(c, src + 2 * seg + 4 * quads)
    Z4_LIT_LEAD(d, src + 3 * seg + 4 * quads)
#undef Z4_LIT_LEAD
#define Z4_LIT_QUADS(count)                                                                        \
    for (size_t i = (count); i > 0; i--) {                                                         \
        z4_lit_add4(&a, entry);                                                                    \
        z4_lit_add4(&b, entry);                                                                    \
        z4_lit_add4(&c, entry);                                                                    \
        z4_lit_add4(&d, entry);                                                                    \
    }
    Z4_LIT_QUADS(quads / 2)
    head1 = z4_load64(start1);
    head2 = z4_load64(start2);
    head3 = z4_load64(start3);
    Z4_LIT_QUADS(quads - quads / 2)
#undef Z4_LIT_QUADS
    z4_lit_close(&a);
    z4_lit_close(&b);
    z4_lit_close(&c);
    z4_lit_close(&d);
    z4_store64(start1, head1);
    z4_store64(start2, head2);
    z4_store64(start3, head3);
}

/* One stream, any length; same grant of 8 bytes. */
Z4_INLINE void z4_lit_encode1(const uint8_t *src, size_t n, uint8_t *dst, const uint64_t *entry)
{
    z4_lit_writer w = {src + n, dst, 0, 0};
    for (; n & 3; n--) {
        z4_lit_add(&w, entry[*--w.src]);
        z4_lit_flush(&w);
    }
    for (; n; n -= 4)
        z4_lit_add4(&w, entry);
    z4_lit_close(&w);
}

/* ---- trees ---- */

/* Fill a tree from a histogram. Without a description (Z4_LIT_NEVER) it cannot be used. */
static inline void z4_lit_tree_build(z4_lit_tree *t, const uint32_t *counts)
{
    ptrdiff_t size = Z4_UNSUPPORTED;
    t->log = z4_huf_lengths(counts, t->length);
    if (t->log)
        size = z4_huf_write_tree(t->length, t->log, t->description);
    t->nbytes = size < 0 ? Z4_LIT_NEVER : (uint32_t)size;
}

/* Codes in the form that z4_lit_add() takes. */
static inline void z4_lit_tree_codes(const z4_lit_tree *t, uint64_t *entry)
{
    uint32_t next[Z4_HUF_LOG + 2] = {0}, at = 0;
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++)
        next[t->length[s]]++;
    for (unsigned l = t->log; l > 0; l--) { /* longest first, from value 0 */
        uint32_t here = next[l];
        next[l] = at >> (t->log - l);
        at += here << (t->log - l);
    }
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++) {
        unsigned l = t->length[s];
        entry[s] = l ? (uint64_t)next[l]++ << (64 - l) | l : 0;
    }
}

/* ---- what a block would take ---- */

Z4_INLINE uint32_t z4_lit_raw_nbytes(size_t n) { return (uint32_t)n + 3; }

/* Bytes of a whole block without the tree's description, and of its streams; Z4_LIT_NEVER when a
 * symbol has no code. */
static inline uint32_t z4_lit_coded_nbytes(const z4_lit_tree *t, uint16_t counts[4][Z4_HUF_SYMBOLS], size_t n,
                                    uint32_t nbytes[4])
{
    unsigned streams = n < Z4_LIT_FOUR ? 1 : 4;
    uint32_t sum = 3 + (n < 1024 ? 3 : n < 16384 ? 4 : 5) + (streams == 4 ? 6 : 0) + 1;
    uint32_t missing = 0;
    if (t->nbytes == Z4_LIT_NEVER)
        return Z4_LIT_NEVER;
    for (unsigned k = 0; k < streams; k++) {
        uint32_t bits = 0;
        for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++) {
            bits += (uint32_t)counts[k][s] * t->length[s];
            missing += t->length[s] == 0 ? counts[k][s] : 0;
        }
        nbytes[k] = bits / 8 + 1; /* with the marker */
        sum += nbytes[k];
    }
    return missing ? Z4_LIT_NEVER : sum;
}

/* Whether coding saves enough to be worth the decoder's time. */
Z4_INLINE int z4_lit_worth(uint32_t coded, size_t n)
{
    return coded != Z4_LIT_NEVER && coded + (n >> Z4_LIT_MARGIN) < z4_lit_raw_nbytes(n);
}

/* ---- blocks ---- */

Z4_INLINE uint8_t *z4_lit_put24(uint8_t *dst, uint32_t v)
{
    dst[0] = (uint8_t)v;
    dst[1] = (uint8_t)(v >> 8);
    dst[2] = (uint8_t)(v >> 16);
    return dst + 3;
}

/* How far behind the exact size of a block of n symbols its streams may be written: 8 bytes by the
 * loops, and the whole of the last stream at the longest codes. Content that somebody changes between
 * the counting and the coding gives a frame that nobody can read, but it stays in its place. */
Z4_INLINE size_t z4_lit_overrun(size_t n)
{
    return (n < Z4_LIT_FOUR ? n : z4_lit_segment(n)) * Z4_HUF_LOG / 8 + 1 + 8;
}

/* One block; room for its exact size and z4_lit_overrun() more has been checked. `tree` is described in
 * front of the streams unless it is NULL. */
static inline uint8_t *z4_lit_write_coded(const z4_literals_impl *impl, const uint8_t *src, size_t n,
                                   uint8_t *dst, const z4_lit_tree *tree, const uint64_t *entry,
                                   const uint32_t nbytes[4], uint32_t total, uint32_t last)
{
    uint32_t four = n >= Z4_LIT_FOUR;
    uint32_t lead = n < 1024 ? 3 : n < 16384 ? 4 : 5, width = n < 1024 ? 10 : n < 16384 ? 14 : 18;
    uint64_t head;
    dst = z4_lit_put24(dst, last | Z4_LIT_COMPRESSED << 1 | (total - 3) << 3);
    /* type, size format (0: one stream), symbols, bytes of tree and streams */
    head = (tree ? Z4_LIT_COMPRESSED : Z4_LIT_TREELESS) | (four ? lead - 2 : 0) << 2 |
           (uint64_t)n << 4 | (uint64_t)(total - 3 - lead - 1) << (4 + width);
    for (uint32_t i = 0; i < lead; i++)
        *dst++ = (uint8_t)(head >> 8 * i);
    if (tree) {
        memcpy(dst, tree->description, tree->nbytes);
        dst += tree->nbytes;
    }
    if (four) {
        for (int k = 0; k < 3; k++, dst += 2)
            z4_store16(dst, (uint16_t)nbytes[k]); /* 32768 * 11 bits: below 2^16 bytes */
        impl->encode4(src, n, dst, nbytes, entry);
        dst += nbytes[0] + nbytes[1] + nbytes[2] + nbytes[3];
    } else {
        z4_lit_encode1(src, n, dst, entry);
        dst += nbytes[0];
    }
    *dst++ = 0; /* no sequences */
    return dst;
}

/* ---- groups ---- */

/* Tree for blocks lo..hi-1 together. Returns what they take with it, description included; a block
 * that is better raw counts as raw. Blocks of one symbol take no part. */
static inline uint64_t z4_lit_joint(z4_lit_encoder *e, unsigned lo, unsigned hi, z4_lit_tree *t)
{
    uint32_t counts[Z4_HUF_SYMBOLS] = {0}, nbytes[4];
    uint64_t coded = 0, raw = 0;
    int used = 0;
    for (unsigned b = lo; b < hi; b++)
        if (!e->constant[b])
            for (unsigned k = 0; k < 4; k++)
                for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++)
                    counts[s] += e->counts[b][k][s];
    z4_lit_tree_build(t, counts);
    for (unsigned b = lo; b < hi; b++) {
        uint32_t plain = z4_lit_raw_nbytes(e->nbytes[b]), size;
        if (e->constant[b])
            continue;
        size = z4_lit_coded_nbytes(t, e->counts[b], e->nbytes[b], nbytes);
        raw += plain;
        coded += size < plain ? size : plain;
        used |= size < plain;
    }
    coded += used ? t->nbytes : 0;
    if (coded < raw)
        return coded;
    t->nbytes = Z4_LIT_NEVER; /* so that it does not displace a tree that serves */
    return raw;
}

/* What blocks lo..hi-1 take with the tree in use. */
static inline uint64_t z4_lit_current(z4_lit_encoder *e, unsigned lo, unsigned hi)
{
    uint64_t sum = 0;
    uint32_t nbytes[4];
    for (unsigned b = lo; b < hi; b++) {
        uint32_t plain = z4_lit_raw_nbytes(e->nbytes[b]), size;
        if (e->constant[b])
            continue;
        size = z4_lit_coded_nbytes(&e->tree, e->counts[b], e->nbytes[b], nbytes);
        sum += size < plain ? size : plain;
    }
    return sum;
}

/* Write blocks lo..hi-1, which share e->tree; `fresh`: its description has not been written yet. */
static inline uint8_t *z4_lit_write_run(const z4_literals_impl *impl, z4_lit_encoder *e, const uint8_t *src,
                                 unsigned lo, unsigned hi, int fresh, int last, uint8_t *dst,
                                 const uint8_t *end)
{
    for (unsigned b = lo; b < hi; b++) {
        const uint8_t *at = src + b * e->block;
        size_t n = e->nbytes[b];
        uint32_t nbytes[4], final = last && b + 1 == hi, size;
        if (e->constant[b]) {
            if (end - dst < 4)
                return NULL;
            dst = z4_lit_put24(dst, final | Z4_LIT_RLE << 1 | (uint32_t)n << 3);
            *dst++ = at[0];
            continue;
        }
        size = z4_lit_coded_nbytes(&e->tree, e->counts[b], n, nbytes);
        if (size != Z4_LIT_NEVER && fresh)
            size += e->tree.nbytes;
        if (z4_lit_worth(size, n)) {
            if ((size_t)(end - dst) < (size_t)size + z4_lit_overrun(n))
                return NULL;
            dst = z4_lit_write_coded(impl, at, n, dst, fresh ? &e->tree : NULL, e->entry, nbytes, size,
                                     final);
            fresh = 0;
            e->live = 1;
        } else {
            if ((size_t)(end - dst) < n + 3)
                return NULL;
            dst = z4_lit_put24(dst, final | Z4_LIT_RAW << 1 | (uint32_t)n << 3);
            memcpy(dst, at, n);
            dst += n;
        }
    }
    return dst;
}

/* Write one group: n <= 16 blocks' worth. `last`: the frame ends here. NULL: does not fit. */
static inline uint8_t *z4_lit_write_group(const z4_literals_impl *impl, z4_lit_encoder *e, const uint8_t *src,
                                   size_t n, int last, uint8_t *dst, const uint8_t *end)
{
    unsigned n_blocks = (unsigned)((n + e->block - 1) / e->block), depth = 0;
    struct {
        uint8_t lo, hi;
    } todo[8]; /* halves waiting: one a level, and the one in hand */
    for (unsigned b = 0; b < n_blocks; b++) {
        const uint8_t *at = src + b * e->block;
        size_t left = n - b * e->block, size = left < e->block ? left : e->block;
        e->nbytes[b] = (uint32_t)size;
        if (size < Z4_LIT_FOUR) {
            memset(e->counts[b], 0, sizeof e->counts[b]);
            for (size_t i = 0; i < size; i++)
                e->counts[b][0][at[i]]++;
        } else {
            impl->count(at, size, e->counts[b]);
        }
        e->constant[b] = size > 1 && (uint32_t)e->counts[b][0][at[0]] + e->counts[b][1][at[0]] +
                                             e->counts[b][2][at[0]] + e->counts[b][3][at[0]] == size;
        e->own[b] = 0;
        if (n_blocks > 1)
            e->own[b] = (uint32_t)z4_lit_joint(e, b, b + 1, &e->draft);
    }
    todo[depth].lo = 0;
    todo[depth++].hi = (uint8_t)n_blocks;
    while (depth) {
        unsigned lo = todo[--depth].lo, hi = todo[depth].hi;
        uint64_t joint = z4_lit_joint(e, lo, hi, &e->draft), split = 0;
        int fresh;
        for (unsigned b = lo; b < hi; b++)
            split += e->own[b];
        if (hi - lo > 1 && joint > split + (split >> Z4_LIT_MARGIN)) {
            unsigned mid = (lo + hi) / 2;
            todo[depth].lo = (uint8_t)mid;
            todo[depth++].hi = (uint8_t)hi;
            todo[depth].lo = (uint8_t)lo;
            todo[depth++].hi = (uint8_t)mid;
            continue;
        }
        fresh = !e->live || z4_lit_current(e, lo, hi) > joint + (joint >> Z4_LIT_MARGIN);
        if (fresh && e->draft.nbytes != Z4_LIT_NEVER) {
            e->tree = e->draft;
            e->live = 0; /* until its description is written */
            z4_lit_tree_codes(&e->tree, e->entry);
        }
        dst = z4_lit_write_run(impl, e, src, lo, hi, !e->live, last && hi == n_blocks, dst, end);
        if (dst == NULL)
            return NULL;
    }
    return dst;
}

#endif
