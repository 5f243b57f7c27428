/* z4_literals_decode.h -- frames whose blocks are raw, RLE or literals without sequences.
 *
 * Nothing read is trusted; whatever src holds, no byte outside it is read and no byte outside
 * dst[0, capacity + slack) is written. */
#ifndef Z4_LITERALS_DECODE_H
#define Z4_LITERALS_DECODE_H

#include "z4_literals_types.h"

/* ---- tables ---- */

/* Symbols by rising weight, then by rising symbol: the order of codes from value 0 on. */
Z4_INLINE void z4_lit_order(const z4_lit_decoder *d, uint8_t *order, unsigned *n_of_weight)
{
    unsigned at[Z4_HUF_LOG + 1], sum = 0;
    memset(n_of_weight, 0, (Z4_HUF_LOG + 1) * sizeof *n_of_weight);
    for (unsigned s = 0; s < d->n_symbols; s++)
        n_of_weight[d->weight[s]]++;
    for (unsigned w = 1; w <= Z4_HUF_LOG; w++) {
        at[w] = sum;
        sum += n_of_weight[w];
    }
    for (unsigned s = 0; s < d->n_symbols; s++)
        if (d->weight[s])
            order[at[d->weight[s]]++] = (uint8_t)s;
}

/* The sum of 2^(weight-1) is 2^log, as z4_huf_read_tree() made sure: the table is filled exactly. */
static inline void z4_lit_build_one(z4_lit_decoder *d)
{
    uint8_t order[Z4_HUF_SYMBOLS];
    unsigned n_of_weight[Z4_HUF_LOG + 1], at = 0, k = 0;
    z4_lit_order(d, order, n_of_weight);
    for (unsigned w = 1; w <= d->log; w++) {
        unsigned run = 1u << (w - 1);
        for (unsigned i = 0; i < n_of_weight[w]; i++, k++) {
            uint16_t entry = (uint16_t)(order[k] << 8 | (d->log + 1 - w));
            for (unsigned j = 0; j < run; j++)
                d->one[at++] = entry;
        }
    }
}

/* A table for r bits is, for each symbol of length l <= r, the table for r - l bits with that symbol
 * put in front. Codes longer than r lie below all others and complete nothing: entry 0. The parts
 * are whole, because each shorter code covers a multiple of 2^(log-r) values. */
static inline void z4_lit_build_wide(z4_lit_decoder *d)
{
    const uint64_t keep = 0xff000000000000ffu, symbols = 0x0000ffffffffff00u, one_more = (uint64_t)1 << 56;
    uint8_t order[Z4_HUF_SYMBOLS];
    unsigned n_of_weight[Z4_HUF_LOG + 1], shortest;
    z4_lit_order(d, order, n_of_weight);
    for (shortest = 1; n_of_weight[d->log + 1 - shortest] == 0;)
        shortest++;
    for (unsigned r = 0; r <= Z4_HUF_LOG; r++) {
        uint64_t *table = d->wide + ((size_t)1 << r), *at;
        unsigned k = 0, covered = 0;
        if (r > Z4_HUF_LOG - shortest && r < Z4_HUF_LOG)
            continue; /* nothing refers to it */
        for (unsigned l = shortest; l <= r && l <= d->log; l++)
            covered += n_of_weight[d->log + 1 - l] << (r - l);
        at = table + ((1u << r) - covered);
        memset(table, 0, (size_t)(at - table) * sizeof *table);
        for (unsigned w = 1; w <= d->log; w++) {
            unsigned l = d->log + 1 - w;
            if (l > r) {
                k += n_of_weight[w];
                continue;
            }
            for (unsigned i = 0; i < n_of_weight[w]; i++, k++) {
                const uint64_t *below = d->wide + ((size_t)1 << (r - l));
                uint64_t front = one_more | (uint64_t)order[k] << 8 | l;
                unsigned count = 1u << (r - l);
                if (shortest > 1) { /* five symbols at most: 6 * 2 > 11 */
                    for (unsigned j = 0; j < count; j++)
                        at[j] = ((below[j] & symbols) << 8) + (below[j] & keep) + front;
                } else {
                    for (unsigned j = 0; j < count; j++) {
                        uint64_t e = below[j];
                        if (e >> 56 == 6) /* full: the last one makes room */
                            e -= one_more + (d->log + 1u - d->weight[e >> 48 & 255]);
                        at[j] = ((e & symbols) << 8) + (e & keep) + front;
                    }
                }
                at += count;
            }
        }
    }
    d->has_wide = 1;
}

/* ---- the loops ---- */

/* A stream on its way. `bits` holds the next bits topmost, and below the last of them a single set
 * bit, so that the zeros under it count what has been taken from the eight bytes at `src`. */
typedef struct {
    const uint8_t *src, *start;
    uint64_t bits;
    uint8_t *dst, *end;
} z4_lit_lane;

/* Fetch the lines due in one round. */
Z4_INLINE void z4_lit_fetch_some(z4_lit_fetch *f)
{
    const uint8_t *at, *end;
    if (f->n == 0)
        return;
    at = f->range[f->n - 1].at;
    end = f->range[f->n - 1].end;
    for (unsigned i = f->rate; i > 0; i--, at += 64)
        z4_prefetch(at);
    f->range[f->n - 1].at = at;
    f->n -= at >= end;
}

/* Look-ups a refill: 5 * 11 = 55 bits; a refill leaves 64 - 7 - 1 = 56 above the marker. */
enum { Z4_LIT_LOOKUPS = 5, Z4_LIT_ROUND_SYMBOLS = 30 };

/* Rounds that are safe for a lane, whatever the bits are.
 * In: before a round at most 55 + 7 = 62 bits of the eight bytes are taken, so a refill moves 7
 * bytes back at most; it must not pass `start`.
 * Out: a round yields 5 * 6 symbols at most, and its last store, 24 symbols in at most, spans 8
 * bytes: R rounds stay within 30 (R - 1) + 32 bytes. */
Z4_INLINE ptrdiff_t z4_lit_rounds(const uint8_t *src, const uint8_t *start, const uint8_t *dst,
                                  const uint8_t *end)
{
    ptrdiff_t in = (src - start) / 7, out = end - dst < 32 ? 0 : (end - dst - 2) / Z4_LIT_ROUND_SYMBOLS;
    return in < out ? in : out;
}

/* Run n lanes side by side until one of them has no safe round left. n is a constant at each call,
 * so the lanes beyond it vanish. */
Z4_INLINE void z4_lit_run(z4_lit_lane *lane, unsigned n, const uint64_t *table, z4_lit_fetch *fetch)
{
    z4_lit_lane a = lane[0], b = lane[n > 1 ? 1 : 0], c = lane[n > 2 ? 2 : 0], d = lane[n > 3 ? 3 : 0];
    for (;;) {
        ptrdiff_t rounds = z4_lit_rounds(a.src, a.start, a.dst, a.end), r;
        if (n > 1 && (r = z4_lit_rounds(b.src, b.start, b.dst, b.end)) < rounds)
            rounds = r;
        if (n > 2 && (r = z4_lit_rounds(c.src, c.start, c.dst, c.end)) < rounds)
            rounds = r;
        if (n > 3 && (r = z4_lit_rounds(d.src, d.start, d.dst, d.end)) < rounds)
            rounds = r;
        if (rounds < 1)
            break;
        do {
#define Z4_LIT_REFILL(x, k)                                                                        \
    if (n > k) {                                                                                   \
        unsigned taken = z4_ctz64(x.bits);                                                         \
        x.src -= taken >> 3;                                                                       \
        x.bits = (z4_load64(x.src) | 1) << (taken & 7);                                            \
    }
#define Z4_LIT_LOOKUP(x, k)                                                                        \
    if (n > k) {                                                                                   \
        uint64_t e = table[x.bits >> (64 - Z4_HUF_LOG)];                                           \
        x.bits <<= e & 63;                                                                         \
        z4_store64(x.dst, e >> 8);                                                                 \
        x.dst += e >> 56;                                                                          \
    }
#define Z4_LIT_ALL(STEP) STEP(a, 0) STEP(b, 1) STEP(c, 2) STEP(d, 3)
            Z4_LIT_ALL(Z4_LIT_REFILL)
            if (fetch != NULL)
                z4_lit_fetch_some(fetch);
            Z4_LIT_ALL(Z4_LIT_LOOKUP)
            Z4_LIT_ALL(Z4_LIT_LOOKUP)
            Z4_LIT_ALL(Z4_LIT_LOOKUP)
            Z4_LIT_ALL(Z4_LIT_LOOKUP)
            Z4_LIT_ALL(Z4_LIT_LOOKUP)
#undef Z4_LIT_ALL
#undef Z4_LIT_LOOKUP
#undef Z4_LIT_REFILL
        } while (--rounds);
    }
    lane[0] = a;
    if (n > 1)
        lane[1] = b;
    if (n > 2)
        lane[2] = c;
    if (n > 3)
        lane[3] = d;
}

/* The same for four lanes at once and one symbol a look-up: where codes are too long for two to share
 * 11 bits, nothing is gained by the wide table, and all lanes advance alike. A round takes 62 bits
 * at most as above, and writes exactly 5 bytes a lane. */
Z4_INLINE void z4_lit_run_single(z4_lit_lane *lane, const uint16_t *table, unsigned log,
                                 z4_lit_fetch *fetch)
{
    z4_lit_lane a = lane[0], b = lane[1], c = lane[2], d = lane[3];
    unsigned shift = 64 - log;
    for (;;) {
        ptrdiff_t rounds = (d.end - d.dst) / Z4_LIT_LOOKUPS, r; /* the last one is the shortest */
#define Z4_LIT_LEAST(x)                                                                            \
    if ((r = (x.src - x.start) / 7) < rounds)                                                      \
        rounds = r;
        Z4_LIT_LEAST(a)
        Z4_LIT_LEAST(b)
        Z4_LIT_LEAST(c)
        Z4_LIT_LEAST(d)
#undef Z4_LIT_LEAST
        if (rounds < 1)
            break;
        do {
#define Z4_LIT_REFILL(x)                                                                           \
    {                                                                                              \
        unsigned taken = z4_ctz64(x.bits);                                                         \
        x.src -= taken >> 3;                                                                       \
        x.bits = (z4_load64(x.src) | 1) << (taken & 7);                                            \
    }
#define Z4_LIT_LOOKUP(x, i)                                                                        \
    {                                                                                              \
        unsigned e = table[x.bits >> shift];                                                       \
        x.bits <<= e & 63;                                                                         \
        x.dst[i] = (uint8_t)(e >> 8);                                                              \
    }
#define Z4_LIT_ALL(i) Z4_LIT_LOOKUP(a, i) Z4_LIT_LOOKUP(b, i) Z4_LIT_LOOKUP(c, i) Z4_LIT_LOOKUP(d, i)
            Z4_LIT_REFILL(a)
            Z4_LIT_REFILL(b)
            Z4_LIT_REFILL(c)
            Z4_LIT_REFILL(d)
            if (fetch != NULL)
                z4_lit_fetch_some(fetch);
            Z4_LIT_ALL(0)
            Z4_LIT_ALL(1)
            Z4_LIT_ALL(2)
            Z4_LIT_ALL(3)
            Z4_LIT_ALL(4)
#undef Z4_LIT_ALL
#undef Z4_LIT_LOOKUP
#undef Z4_LIT_REFILL
            a.dst += Z4_LIT_LOOKUPS;
            b.dst += Z4_LIT_LOOKUPS;
            c.dst += Z4_LIT_LOOKUPS;
            d.dst += Z4_LIT_LOOKUPS;
        } while (--rounds);
    }
    lane[0] = a;
    lane[1] = b;
    lane[2] = c;
    lane[3] = d;
}

/* The careful end of a stream, or all of it. Writes dst..end-1, and with the wide table up to 8
 * bytes at a time while these stay below `limit`. The stream must be used up exactly. */
Z4_INLINE int z4_lit_finish(const z4_lit_decoder *d, z4_bits bits, uint8_t *dst, uint8_t *end,
                            const uint8_t *limit)
{
    const uint64_t *wide = d->wide + ((size_t)1 << Z4_HUF_LOG);
    unsigned shift = 64 - d->log;
    if (d->has_wide)
        while (end - dst >= 6 && limit - dst >= 8 && bits.left > 0) {
            uint64_t e = wide[z4_bits_window(&bits) >> (64 - Z4_HUF_LOG)];
            z4_store64(dst, e >> 8);
            dst += e >> 56;
            bits.left -= (ptrdiff_t)(e & 63);
        }
    while (dst < end) {
        uint64_t window = z4_bits_window(&bits);
        if (bits.left <= 0)
            return Z4_CORRUPT; /* every symbol takes a bit at least */
        for (unsigned i = 0; i < Z4_LIT_LOOKUPS && dst < end; i++) {
            unsigned e = d->one[window >> shift];
            *dst++ = (uint8_t)(e >> 8);
            window <<= e & 63;
            bits.left -= (ptrdiff_t)(e & 63);
        }
    }
    return bits.left == 0 ? Z4_OK : Z4_CORRUPT;
}

/* Decode the streams of a block. `limit`: end of what the last one may scribble on; the others may
 * not pass their own end, where the next one has begun. */
Z4_INLINE int z4_lit_decode_body(const z4_lit_decoder *d, const z4_lit_stream *streams,
                                 unsigned n_streams, const uint8_t *limit)
{
    z4_bits bits[4];
    z4_lit_lane lane[4];
    unsigned of_lane[4], n = 0;
    for (unsigned k = 0; k < n_streams; k++) {
        const z4_lit_stream *s = &streams[k];
        if (z4_bits_open(&bits[k], s->src, s->nbytes) != Z4_OK)
            return Z4_CORRUPT;
        if ((d->has_wide || d->single) && s->nbytes >= 8) {
            size_t taken = 8 * s->nbytes - (size_t)bits[k].left; /* 1..8 */
            z4_lit_lane begun = {s->src + s->nbytes - 8, s->src, (uint64_t)1 << taken, s->dst, s->end};
            lane[n] = begun;
            of_lane[n++] = k;
        }
    }
    if (n == 4 && d->single)
        z4_lit_run_single(lane, d->one, d->log, d->fetch);
    while (n > 0) {
        unsigned left = 0;
        const uint64_t *wide = d->wide + ((size_t)1 << Z4_HUF_LOG);
        if (!d->has_wide)
            ; /* short already */
        else if (n == 4)
            z4_lit_run(lane, 4, wide, d->fetch);
        else if (n == 3)
            z4_lit_run(lane, 3, wide, NULL);
        else if (n == 2)
            z4_lit_run(lane, 2, wide, NULL);
        else
            z4_lit_run(lane, 1, wide, NULL);
        for (unsigned i = 0; i < n; i++) { /* streams differ in bits a symbol: go on with the others */
            z4_lit_lane *x = &lane[i];
            unsigned k = of_lane[i];
            if (d->has_wide && z4_lit_rounds(x->src, x->start, x->dst, x->end) > 0) {
                of_lane[left] = k;
                lane[left++] = *x;
                continue;
            }
            bits[k].left = 8 * (x->src - x->start) + 64 - (ptrdiff_t)z4_ctz64(x->bits);
            if (z4_lit_finish(d, bits[k], x->dst, x->end, k + 1 == n_streams ? limit : x->end) != Z4_OK)
                return Z4_CORRUPT;
            bits[k].nbytes = 0; /* done */
        }
        n = left;
    }
    for (unsigned k = 0; k < n_streams; k++) /* those too short for a lane */
        if (bits[k].nbytes != 0 &&
            z4_lit_finish(d, bits[k], streams[k].dst, streams[k].end,
                          k + 1 == n_streams ? limit : streams[k].end) != Z4_OK)
            return Z4_CORRUPT;
    return Z4_OK;
}

/* ---- frame, blocks, literals section ---- */

static inline int z4_lit_begin(z4_lit_decoder *d, const uint8_t *src, size_t nbytes, size_t content_nbytes)
{
    static const uint8_t size_of_flag[4] = {0, 2, 4, 8};
    uint32_t magic;
    unsigned flags, single, fcs_nbytes;
    uint64_t content = 0, window;
    d->fetch = NULL;
    d->src = d->end = src;
    d->content_left = d->block_max = 0;
    d->last = d->has_tree = d->has_wide = 0;
    if (nbytes < 5)
        return Z4_TRUNCATED;
    magic = z4_load32(src);
    if (magic >> 4 == 0x184D2A5u) /* a skippable frame */
        return Z4_UNSUPPORTED;
    if (magic != 0xFD2FB528u)
        return Z4_CORRUPT;
    flags = src[4];
    single = flags >> 5 & 1;
    fcs_nbytes = flags >> 6 == 0 ? single : size_of_flag[flags >> 6];
    if ((flags & 3) != 0 || (flags & 4) != 0 || (flags & 8) != 0 || fcs_nbytes == 0)
        return Z4_UNSUPPORTED; /* dictionary, checksum, reserved bit, content size unknown */
    if (nbytes < 5 + (single ? 0 : 1) + fcs_nbytes)
        return Z4_TRUNCATED;
    src += 5;
    for (unsigned i = 0; i < fcs_nbytes; i++)
        content |= (uint64_t)src[(single ? 0 : 1) + i] << 8 * i;
    if (fcs_nbytes == 2)
        content += 256;
    window = content;
    if (!single) {
        unsigned log = 10 + (src[0] >> 3);
        window = ((uint64_t)1 << log) + ((uint64_t)1 << log) / 8 * (src[0] & 7);
        if (window > Z4_LIT_MAX_WINDOW)
            return Z4_UNSUPPORTED;
    }
    if (content != content_nbytes)
        return Z4_CORRUPT;
    d->end = d->src + nbytes;
    d->src = src + (single ? 0 : 1) + fcs_nbytes;
    d->content_left = content_nbytes;
    d->block_max = window < Z4_LIT_BLOCK ? (size_t)window : Z4_LIT_BLOCK;
    return Z4_OK;
}

/* Spread what is to be fetched over the rounds of a block. A round of the wide table takes about 25
 * bytes: four lanes, five look-ups, ten bits. */
Z4_INLINE void z4_lit_fetch_plan(z4_lit_fetch *f, size_t rounds)
{
    size_t lines = 0;
    for (unsigned i = 0; i < f->n; i++)
        lines += (size_t)(f->range[i].end - f->range[i].at) / 64;
    f->rate = (unsigned)(lines / (rounds + 1) + 1);
    if (f->rate > 16)
        f->rate = 16;
}

/* Huffman-coded literals of n symbols, at src..end-1, tree first if there is one. */
static inline int z4_lit_coded(const z4_literals_impl *impl, z4_lit_decoder *d, const uint8_t *src,
                        const uint8_t *end, int with_tree, unsigned n_streams, uint8_t *dst, size_t n,
                        const uint8_t *limit)
{
    z4_lit_stream s[4];
    if (with_tree) {
        ptrdiff_t head;
        d->has_tree = d->has_wide = 0;
        head = z4_huf_read_tree(src, (size_t)(end - src), d->weight, &d->n_symbols, &d->log);
        if (head < 0)
            return (int)head;
        src += head;
        z4_lit_build_one(d);
        d->has_tree = 1;
    }
    if (!d->has_tree || n == 0)
        return Z4_CORRUPT;
    d->single = n_streams == 4 && (size_t)(end - src) * 8 > n * Z4_LIT_SINGLE;
    if (n >= Z4_LIT_WIDE && !d->single && !d->has_wide)
        z4_lit_build_wide(d);
    if (n_streams == 1) {
        s[0].src = src;
        s[0].nbytes = (size_t)(end - src);
        s[0].dst = dst;
        s[0].end = dst + n;
    } else {
        size_t seg = (n + 3) / 4, room = (size_t)(end - src);
        if (n < 6 || room < 6) /* below 6 symbols the third stream would start past the end */
            return Z4_CORRUPT;
        room -= 6;
        for (unsigned k = 0; k < 4; k++) {
            size_t size = k < 3 ? z4_load16(src + 2 * k) : room;
            if (size > room)
                return Z4_CORRUPT;
            s[k].src = k ? s[k - 1].src + s[k - 1].nbytes : src + 6;
            s[k].nbytes = size;
            s[k].dst = dst + k * seg;
            s[k].end = k < 3 ? dst + (k + 1) * seg : dst + n;
            room -= size;
        }
    }
    if (d->fetch != NULL)
        z4_lit_fetch_plan(d->fetch, d->single ? n / (4 * Z4_LIT_LOOKUPS) : (size_t)(end - src) / 25);
    return impl->decode(d, s, n_streams, limit);
}

/* A compressed block of exactly src..end-1. */
static inline ptrdiff_t z4_lit_compressed(const z4_literals_impl *impl, z4_lit_decoder *d, const uint8_t *src,
                                   const uint8_t *end, uint8_t *dst, size_t capacity, size_t slack)
{
    size_t room = (size_t)(end - src), n, head, coded;
    unsigned type, format;
    if (room < 2)
        return Z4_CORRUPT;
    type = src[0] & 3;
    format = src[0] >> 2 & 3;
    if (type == Z4_LIT_RAW || type == Z4_LIT_RLE) {
        head = format == 1 ? 2 : format == 3 ? 3 : 1;
        if (room < head)
            return Z4_CORRUPT;
        n = head == 1 ? src[0] >> 3 : head == 2 ? z4_load16(src) >> 4
                                                : (z4_load16(src) | (size_t)src[2] << 16) >> 4;
        coded = type == Z4_LIT_RLE ? 1 : n;
    } else {
        unsigned width = format < 2 ? 10 : format == 2 ? 14 : 18;
        uint64_t v = 0;
        head = format < 2 ? 3 : format == 2 ? 4 : 5;
        if (room < head)
            return Z4_CORRUPT;
        for (size_t i = 0; i < head; i++)
            v |= (uint64_t)src[i] << 8 * i;
        n = (size_t)(v >> 4) & (((size_t)1 << width) - 1);
        coded = (size_t)(v >> (4 + width)) & (((size_t)1 << width) - 1);
    }
    if (n > d->block_max || n > d->content_left)
        return Z4_CORRUPT;
    if (room - head <= coded) /* a byte at least for the sequences */
        return Z4_CORRUPT;
    if (src[head + coded] != 0)
        return Z4_UNSUPPORTED; /* sequences */
    if (room - head - coded != 1)
        return Z4_CORRUPT;
    if (n > capacity)
        return Z4_CAPACITY;
    src += head;
    if (type == Z4_LIT_RAW) {
        if (n > 0)
            memcpy(dst, src, n);
    } else if (type == Z4_LIT_RLE) {
        if (n > 0)
            memset(dst, src[0], n);
    } else {
        int status = z4_lit_coded(impl, d, src, src + coded, type == Z4_LIT_COMPRESSED,
                                  format == 0 ? 1 : 4, dst, n, dst + capacity + slack);
        if (status != Z4_OK)
            return status;
    }
    return (ptrdiff_t)n;
}

static inline ptrdiff_t z4_lit_block(const z4_literals_impl *impl, z4_lit_decoder *d, uint8_t *dst,
                              size_t capacity, size_t slack)
{
    while (!d->last) { /* blocks without content are passed over */
        size_t room = (size_t)(d->end - d->src), size;
        const uint8_t *src = d->src + 3;
        unsigned head, type;
        ptrdiff_t n;
        if (room < 3)
            return Z4_TRUNCATED;
        head = z4_load16(d->src) | (unsigned)d->src[2] << 16;
        type = head >> 1 & 3;
        size = head >> 3;
        room -= 3;
        if (type == 3 || size > d->block_max)
            return Z4_CORRUPT;
        if (room < (type == Z4_LIT_RLE ? 1 : size))
            return Z4_TRUNCATED;
        if (type == Z4_LIT_COMPRESSED) {
            n = z4_lit_compressed(impl, d, src, src + size, dst, capacity, slack);
            if (n < 0)
                return n;
            d->src = src + size;
        } else {
            if (size > d->content_left)
                return Z4_CORRUPT;
            if (size > capacity)
                return Z4_CAPACITY;
            if (size > 0 && type == Z4_LIT_RLE)
                memset(dst, src[0], size);
            else if (size > 0)
                memcpy(dst, src, size);
            d->src = src + (type == Z4_LIT_RLE ? 1 : size);
            n = (ptrdiff_t)size;
        }
        d->content_left -= (size_t)n;
        d->last = (int)(head & 1);
        if (n > 0)
            return n;
    }
    return 0;
}

static inline int z4_lit_end(const z4_lit_decoder *d)
{
    if (!d->last)
        return Z4_TRUNCATED;
    return d->src == d->end && d->content_left == 0 ? Z4_OK : Z4_CORRUPT;
}

#endif
