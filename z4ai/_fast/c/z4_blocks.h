/* z4_blocks.h -- fields of blocks, each gathered into a part, and back (docs/format/codecs/blocks.md).
 *
 * Contract: content and parts do not overlap, need no alignment; nothing is allocated. The caller has checked that
 * formats and runs are within their limits, that the runs make up the content, and that every part has the size that
 * they call for (z4_blocks_sizes): nothing is checked here again. */
#ifndef Z4_BLOCKS_H
#define Z4_BLOCKS_H

#include "z4_portable.h"

enum { Z4_BLOCKS_PARTS = 8, Z4_BLOCKS_FIELDS = 16, Z4_BLOCKS_KEYS = 64 };

/* How the last field of a format stands in its part: as it comes, by the ratio of the first two, or each half of a byte
 * by the ratio of its own sub-block. */
enum { Z4_BLOCKS_PLAIN = 0, Z4_BLOCKS_RATIO = 1, Z4_BLOCKS_RATIOS = 2 };

/* Sub-blocks of Z4_BLOCKS_RATIOS, and where their 12 bytes of scales are. */
enum { Z4_BLOCKS_SUBS = 8, Z4_BLOCKS_SUB = 16, Z4_BLOCKS_SCALES = 4 };

typedef struct {
    uint32_t n_fields;
    uint32_t ordered; /* one of the above */
    uint32_t part[Z4_BLOCKS_FIELDS];
    uint32_t width[Z4_BLOCKS_FIELDS];
} z4_blocks_format;

typedef struct {
    uint64_t format;
    uint64_t count;
} z4_blocks_run;

Z4_INLINE size_t z4_blocks_size(const z4_blocks_format *f)
{
    size_t size = 0;
    for (unsigned k = 0; k < f->n_fields; k++)
        size += f->width[k];
    return size;
}

/* Magnitude of a half precision number in units of its smallest one; an exponent of 31 is one like any other. */
Z4_INLINE uint64_t z4_blocks_magnitude(const uint8_t *p)
{
    unsigned h = z4_load16(p);
    unsigned exponent = h >> 10 & 31, mantissa = h & 1023;
    return exponent ? (uint64_t)(1024 + mantissa) << (exponent - 1) : mantissa;
}

/* floor(2 |b| / |a|), at most 63. Both have 11 bits, so no ratio lies so near an integer that the division would
 * round to it. */
Z4_INLINE unsigned z4_blocks_key(const uint8_t *block)
{
    float a = (float)z4_blocks_magnitude(block);
    float b = (float)(2 * z4_blocks_magnitude(block + 2));
    if (a == 0.0F)
        return Z4_BLOCKS_KEYS - 1;
    float ratio = b / a;
    return ratio < (float)(Z4_BLOCKS_KEYS - 1) ? (unsigned)ratio : Z4_BLOCKS_KEYS - 1;
}

/* The same for sub-block s, whose two numbers are scaled by six bits each. */
Z4_INLINE unsigned z4_blocks_sub_key(const uint8_t *block, unsigned s)
{
    const uint8_t *p = block + Z4_BLOCKS_SCALES;
    unsigned k = s & 3;
    unsigned of_a = s < 4 ? p[k] & 63U : (p[k + 8] & 15U) | (unsigned)(p[k] >> 6) << 4;
    unsigned of_b = s < 4 ? p[k + 4] & 63U : (unsigned)(p[k + 8] >> 4) | (unsigned)(p[k + 4] >> 6) << 4;
    double a = (double)(z4_blocks_magnitude(block) * of_a);
    double b = (double)(2 * z4_blocks_magnitude(block + 2) * of_b);
    if (a == 0.0)
        return Z4_BLOCKS_KEYS - 1;
    double ratio = b / a;
    return ratio < (double)(Z4_BLOCKS_KEYS - 1) ? (unsigned)ratio : Z4_BLOCKS_KEYS - 1;
}

/* Copy n pieces of w bytes; unrolled for the widths that blocks have. */
Z4_INLINE void z4_blocks_copy(uint8_t *dst, size_t to, const uint8_t *src, size_t from, size_t w, size_t n)
{
#define Z4_BLOCKS_COPY(W)                                                                                              \
    case W:                                                                                                            \
        for (size_t i = 0; i < n; i++)                                                                                 \
            memcpy(dst + i * to, src + i * from, W);                                                                   \
        break;
    switch (w) {
        Z4_BLOCKS_COPY(1)
        Z4_BLOCKS_COPY(2)
        Z4_BLOCKS_COPY(4)
        Z4_BLOCKS_COPY(8)
        Z4_BLOCKS_COPY(12)
        Z4_BLOCKS_COPY(16)
        Z4_BLOCKS_COPY(32)
        Z4_BLOCKS_COPY(64)
        Z4_BLOCKS_COPY(128)
    default:
        for (size_t i = 0; i < n; i++)
            memcpy(dst + i * to, src + i * from, w);
    }
#undef Z4_BLOCKS_COPY
}

/* 32 bytes, whose lower halves are of one sub-block and whose upper halves are of another: forth or back. */
Z4_INLINE void z4_blocks_halves(uint8_t *payload, uint8_t **lower, uint8_t **upper, int join)
{
    uint8_t *lo = *lower;
    *lower += Z4_BLOCKS_SUB;
    uint8_t *hi = *upper; /* behind it where both are of one key */
    *upper += Z4_BLOCKS_SUB;
    for (unsigned i = 0; i < Z4_BLOCKS_SUB; i++) {
        uint8_t first = join ? lo[i] : payload[i], second = join ? hi[i] : payload[i + Z4_BLOCKS_SUB];
        uint8_t low = (uint8_t)((first & 15) | second << 4), high = (uint8_t)(first >> 4 | (second & 0xF0));
        if (join)
            payload[i] = low, payload[i + Z4_BLOCKS_SUB] = high;
        else
            lo[i] = low, hi[i] = high;
    }
}

/* Copy the payload of ordered blocks, whose heads are in the content: forth or back. */
Z4_INLINE void z4_blocks_deal(uint8_t *content, const z4_blocks_format *formats, const z4_blocks_run *runs,
                              size_t n_runs, uint8_t *const *parts, size_t f, int join)
{
    const z4_blocks_format *format = formats + f;
    size_t size = z4_blocks_size(format), w = format->width[format->n_fields - 1];
    size_t counts[Z4_BLOCKS_KEYS] = {0};
    int halves = format->ordered == Z4_BLOCKS_RATIOS;
    uint8_t *next[Z4_BLOCKS_KEYS];
    const uint8_t *at = content;
    size_t total = 0;
    for (size_t r = 0; r < n_runs; r++) {
        size_t n = (size_t)runs[r].count;
        if (runs[r].format == f) {
            for (size_t i = 0; i < n; i++)
                if (halves)
                    for (unsigned s = 0; s < Z4_BLOCKS_SUBS; s++)
                        counts[z4_blocks_sub_key(at + i * size, s)]++;
                else
                    counts[z4_blocks_key(at + i * size)]++;
            total += n;
        }
        at += n * z4_blocks_size(formats + runs[r].format);
    }
    if (total == 0)
        return; /* there may be no part at all */
    uint8_t *part = parts[format->part[format->n_fields - 1]];
    for (unsigned k = 0; k < Z4_BLOCKS_KEYS; k++) {
        next[k] = part;
        part += counts[k] * (halves ? Z4_BLOCKS_SUB : w);
    }
    uint8_t *block = content;
    for (size_t r = 0; r < n_runs; r++) {
        size_t n = (size_t)runs[r].count;
        if (runs[r].format != f) {
            block += n * z4_blocks_size(formats + runs[r].format);
            continue;
        }
        for (size_t i = 0; halves && i < n; i++, block += size)
            for (unsigned s = 0; s < Z4_BLOCKS_SUBS; s += 2)
                z4_blocks_halves(block + size - w + Z4_BLOCKS_SUB * s, next + z4_blocks_sub_key(block, s),
                                 next + z4_blocks_sub_key(block, s + 1), join);
        for (size_t i = 0; !halves && i < n; i++, block += size) {
            uint8_t **place = next + z4_blocks_key(block);
            uint8_t *payload = block + size - w;
            uint8_t *dst = join ? payload : *place;
            const uint8_t *src = join ? *place : payload;
            if (w == 16)
                memcpy(dst, src, 16);
            else
                memcpy(dst, src, w);
            *place += w;
        }
    }
}

Z4_INLINE void z4_blocks_move(uint8_t *content, const z4_blocks_format *formats, size_t n_formats,
                              const z4_blocks_run *runs, size_t n_runs, uint8_t *const *parts, int join)
{
    uint8_t *next[Z4_BLOCKS_PARTS];
    memcpy(next, parts, sizeof next);
    uint8_t *at = content;
    for (size_t r = 0; r < n_runs; r++) {
        const z4_blocks_format *format = formats + runs[r].format;
        size_t n = (size_t)runs[r].count, size = z4_blocks_size(format), begin = 0;
        unsigned n_fields = format->n_fields - (format->ordered ? 1 : 0);
        for (unsigned k = 0; k < n_fields; k++) {
            size_t w = format->width[k];
            uint8_t **part = next + format->part[k];
            /* Fields of one part take turns in it: so many bytes from one block to the next. */
            size_t stride = 0, before = 0;
            for (unsigned j = 0; j < n_fields; j++) {
                stride += format->part[j] == format->part[k] ? format->width[j] : 0;
                before += j < k && format->part[j] == format->part[k] ? format->width[j] : 0;
            }
            if (w == size && join)
                memcpy(at, *part, n * size);
            else if (w == size)
                memcpy(*part, at, n * size);
            else if (join)
                z4_blocks_copy(at + begin, size, *part + before, stride, w, n);
            else
                z4_blocks_copy(*part + before, stride, at + begin, size, w, n);
            begin += w;
        }
        for (unsigned k = 0; k < n_fields; k++)
            next[format->part[k]] += n * format->width[k];
        at += n * size;
    }
    for (size_t f = 0; f < n_formats; f++)
        if (formats[f].ordered)
            z4_blocks_deal(content, formats, runs, n_runs, parts, f, join);
}

/* Gather the fields of `content` into `parts`. */
static inline void z4_blocks_split(const uint8_t *content, const z4_blocks_format *formats, size_t n_formats,
                                   const z4_blocks_run *runs, size_t n_runs, uint8_t *const *parts)
{
    /* Content is only read when parts are made. */
    z4_blocks_move((uint8_t *)(uintptr_t)content, formats, n_formats, runs, n_runs, parts, 0);
}

/* Put them back; parts are only read. */
static inline void z4_blocks_join(uint8_t *content, const z4_blocks_format *formats, size_t n_formats,
                                  const z4_blocks_run *runs, size_t n_runs, uint8_t *const *parts)
{
    z4_blocks_move(content, formats, n_formats, runs, n_runs, parts, 1);
}

#endif
