/* z4_chunk_encode.h -- content of one chunk -> its streams, fused.
 *
 * READ ME FIRST. The encoded chunk is: a gap for its header, then the streams from the highest plane number to plane
 * 0, then the tail. The planes that are stored are, as a rule, the last ones (low mantissa bits), so they can be
 * split straight to their place in the output while the planes to be coded go to scratch; the coder then appends.
 */
#ifndef Z4_CHUNK_ENCODE_H
#define Z4_CHUNK_ENCODE_H

#include "z4_chunk.h"

/* Elements split, and hashed, at a time. */
#define Z4_SPLIT_TILE ((size_t)4096)
/* The probe looks at this many runs of this many elements of each block, spread evenly. */
#define Z4_PROBE_RUNS ((size_t)8)
#define Z4_PROBE_RUN ((size_t)512)

/* What the probe expects of one layout. */
typedef struct {
    size_t estimate;              /* bytes, in proportion: of all planes, over what was sampled */
    size_t lean;                  /* the same without what frames and trees take, which samples exaggerate */
    uint8_t coded[Z4_MAX_PLANES]; /* worth coding, in one block at least */
} z4_forecast;

typedef struct {
    z4_lit_encoder zstd;
    uint32_t counts[Z4_MAX_PLANES][256];
    uint8_t probe[Z4_MAX_PLANES][Z4_PROBE_RUN];
    uint8_t swapped[Z4_SPLIT_TILE * 8];
} z4_encode_scratch;

/* Room for the planes of one chunk that are coded; follows z4_encode_scratch. Symbols have contexts beside them, and
 * remainders and symbols are planes even of a single byte; so have differences. */
Z4_INLINE size_t z4_encode_planes_nbytes(uint64_t content_nbytes, int transform)
{
    const size_t width = z4_transform_width(transform);
    const size_t planes = z4_is_symbols(transform)      ? width + 2
                          : z4_is_difference(transform) ? (width < 2 ? 2 : width)
                          : width == 1                  ? 0
                                                        : width;
    return planes * z4_align64((size_t)(content_nbytes / width) + 64);
}

Z4_INLINE size_t z4_plane_bound(uint64_t content_nbytes, int layout, size_t gap, size_t gap_stream)
{
    const size_t width = z4_layout_width(layout);
    return gap + width * gap_stream + width * z4_lit_bound((size_t)(content_nbytes / width), z4_tile(width)) +
           width + 64;
}

/* Count a sample of every plane of one block; -> elements sampled. */
static size_t z4_probe_block(const z4_kernels *k, const z4_chunk_job *job, int layout, const uint8_t *src, size_t n,
                             z4_encode_scratch *scratch)
{
    const size_t width = z4_layout_width(layout);
    const size_t whole = n <= Z4_PROBE_RUNS * Z4_PROBE_RUN;
    const size_t runs = whole ? (n + Z4_PROBE_RUN - 1) / Z4_PROBE_RUN : Z4_PROBE_RUNS;
    size_t seen = 0;
    memset(scratch->counts, 0, width * sizeof scratch->counts[0]);
    for (size_t r = 0; r < runs; r++) {
        const size_t first = whole ? r * Z4_PROBE_RUN : r * ((n - Z4_PROBE_RUN) / (runs - 1));
        const size_t m = n - first < Z4_PROBE_RUN ? n - first : Z4_PROBE_RUN;
        const uint8_t *run = src + first * width;
        uint8_t *planes[Z4_MAX_PLANES];
        for (size_t p = 0; p < width; p++)
            planes[p] = scratch->probe[p];
        if (job->swap) {
            z4_swap_elements(k, width, run, m, scratch->swapped);
            run = scratch->swapped;
        }
        k->planes->split[layout](run, m, planes);
        for (size_t p = 0; p < width; p++)
            for (size_t i = 0; i < m; i++)
                scratch->counts[p][planes[p][i]]++;
        seen += m;
    }
    return seen;
}

/* Bytes that a sample of this distribution would take. */
Z4_INLINE size_t z4_sample_nbytes(const uint32_t counts[256], size_t seen)
{
    size_t symbols = 0;
    for (size_t s = 0; s < 256; s++)
        symbols += counts[s] != 0;
    /* A sample looks more ordered than its source: (symbols - 1) / (2 ln 2) bits in all, here in bytes. */
    return z4_lit_estimate(counts, seen) + ((symbols * 23) >> 8);
}

/* The same but for a frame's header, and a tree of half a byte a symbol at most. */
Z4_INLINE size_t z4_sample_lean(const uint32_t counts[256], size_t nbytes)
{
    size_t fixed = 42;
    for (size_t s = 0; s < 256; s++)
        fixed += counts[s] != 0;
    fixed /= 2;
    return nbytes > fixed ? nbytes - fixed : 0;
}

/* Find which planes of a layout are worth coding: those that promise more than 1 % in some block. -> elements seen. */
static size_t z4_probe(const z4_kernels *k, const z4_chunk_job *job, int layout, const uint8_t *src, size_t n,
                       z4_encode_scratch *scratch, z4_forecast *forecast)
{
    size_t all = 0;
    const size_t width = z4_layout_width(layout);
    memset(forecast, 0, sizeof *forecast);
    const size_t block = z4_tile(width);
    for (size_t base = 0; base < n; base += block) {
        const size_t m = n - base < block ? n - base : block;
        const size_t seen = z4_probe_block(k, job, layout, src + base * width, m, scratch);
        for (size_t p = 0; p < width; p++) {
            const size_t nbytes = z4_sample_nbytes(scratch->counts[p], seen);
            const int pays = nbytes * 100 < seen * 99;
            forecast->coded[p] |= (uint8_t)pays;
            forecast->estimate += pays ? nbytes : seen;
            forecast->lean += pays ? z4_sample_lean(scratch->counts[p], nbytes) : seen;
        }
        all += seen;
    }
    return all;
}

Z4_INLINE int z4_is_constant(const uint8_t *plane, size_t n)
{
    return n > 0 && (n == 1 || memcmp(plane, plane + 1, n - 1) == 0);
}

/* Put the content down as it is: transform 0, one stored stream. */
static void z4_store_chunk(z4_chunk_job *job, const uint8_t *src, uint8_t *out, size_t gap)
{
    memcpy(out + gap, src, job->content_nbytes);
    job->layout = Z4_LAYOUT_BYTES1;
    job->n_streams = 1;
    job->stream_codec[0] = Z4_CODEC_STORE;
    job->stream_offset[0] = job->encoded_offset + gap;
    job->stream_nbytes[0] = (uint32_t)job->content_nbytes;
    job->tail_offset = job->stream_offset[0] + job->content_nbytes;
    job->encoded_nbytes = gap + job->content_nbytes;
}

/* Append one coded plane at out[at]; -> bytes, or a negative status. Falls back to storing it. */
static ptrdiff_t z4_encode_plane(const z4_kernels *k, const uint8_t *plane, size_t n, size_t block, uint8_t *out,
                                 size_t capacity, uint8_t *codec, z4_encode_scratch *scratch)
{
    if (z4_is_constant(plane, n)) {
        *codec = Z4_CODEC_CONSTANT;
        out[0] = plane[0];
        return 1;
    }
    *codec = Z4_CODEC_ZSTD;
    const ptrdiff_t m = z4_lit_encode(k->literals, plane, n, block, out, capacity, &scratch->zstd);
    if (m >= 0 && (size_t)m < n)
        return m;
    if (m < 0 && m != Z4_CAPACITY)
        return m;
    *codec = Z4_CODEC_STORE;
    memcpy(out, plane, n);
    return (ptrdiff_t)n;
}

/* z4_encode_chunk() by a transform of planes. Reads the content once, apart from a sampled probe. */
static void z4_encode_as_planes(const z4_kernels *k, z4_chunk_job *job, const uint8_t *content, uint8_t *out,
                                size_t capacity, size_t gap, size_t gap_stream, z4_encode_scratch *scratch,
                                uint8_t *planes)
{
    const uint8_t *src = content + job->content_offset;
    const size_t total = job->content_nbytes;
    size_t width = z4_layout_width(job->layout);
    job->status = Z4_OK;
    job->params_nbytes = 0;
    if (total < width) {
        job->layout = Z4_LAYOUT_BYTES1;
        job->swap = 0;
        width = 1;
    }
    const size_t n = total / width, tail = total % width;
    z4_forecast forecast;
    z4_probe(k, job, job->layout, src, n, scratch, &forecast);
    if (job->other_layout != job->layout && width > 1) {
        z4_forecast other;
        z4_probe(k, job, job->other_layout, src, n, scratch, &other);
        if (other.estimate < forecast.estimate) {
            forecast = other;
            job->layout = job->other_layout;
        }
    }
    const uint8_t *coded = forecast.coded;

    uint8_t *dst[Z4_MAX_PLANES];
    size_t at = gap + width * gap_stream; /* where the next stream begins */
    int direct = 1, any = 0;
    for (size_t p = width; p-- > 0;) {
        any |= coded[p];
        direct &= !coded[p];
        if (direct) {
            dst[p] = out + at;
            at += n;
        } else {
            dst[p] = planes + p * z4_align64(n + 64);
        }
    }

    z4_xxh3_state hash;
    z4_xxh3_begin(&hash, job->seed);
    if (!any) {
        job->checksum = z4_xxh3_64_end(k->xxh3, &hash, src, total);
        z4_store_chunk(job, src, out, gap + gap_stream);
        return;
    }
    if (width == 1) {
        dst[0] = (uint8_t *)(uintptr_t)src; /* nothing to split: coded from where it lies */
    } else {
        for (size_t i = 0; i < n; i += Z4_SPLIT_TILE) {
            const size_t m = n - i < Z4_SPLIT_TILE ? n - i : Z4_SPLIT_TILE;
            const uint8_t *tile = src + i * width;
            uint8_t *to[Z4_MAX_PLANES];
            for (size_t p = 0; p < width; p++)
                to[p] = dst[p] + i;
            if (job->swap) {
                z4_swap_elements(k, width, tile, m, scratch->swapped);
                tile = scratch->swapped;
            }
            k->planes->split[job->layout](tile, m, to);
            z4_xxh3_advance(k->xxh3, &hash, src, (i + m) * width);
        }
    }
    job->checksum = z4_xxh3_64_end(k->xxh3, &hash, src, total);

    job->n_streams = (uint8_t)width;
    at = gap + width * gap_stream;
    for (size_t p = width; p-- > 0;) {
        ptrdiff_t m = (ptrdiff_t)n;
        job->stream_offset[p] = job->encoded_offset + at;
        job->stream_codec[p] = Z4_CODEC_STORE;
        if (coded[p]) {
            m = z4_encode_plane(k, dst[p], n, z4_tile(width), out + at, capacity - at, &job->stream_codec[p],
                                scratch);
            if (m < 0) {
                job->status = (int8_t)m;
                return;
            }
        } else if (dst[p] != out + at) {
            memcpy(out + at, dst[p], n);
        }
        job->stream_nbytes[p] = (uint32_t)m;
        at += (size_t)m;
    }
    job->tail_offset = job->encoded_offset + at;
    memcpy(out + at, src + total - tail, tail);
    at += tail;
    job->encoded_nbytes = at;
    if (at >= gap + gap_stream + total)
        z4_store_chunk(job, src, out, gap + gap_stream);
}

#include "z4_chunk_difference_encode.h"
#include "z4_chunk_symbols_encode.h"

/* What z4_encode_chunk() may need at its place in the output, however badly the content codes. */
Z4_INLINE size_t z4_encode_bound(uint64_t content_nbytes, int transform, size_t gap, size_t gap_stream)
{
    if (transform < Z4_SYMBOLS_FIRST)
        return z4_plane_bound(content_nbytes, transform, gap, gap_stream);
    if (transform == Z4_SAME)
        return gap;
    const size_t a = z4_is_symbols(transform)
                         ? z4_symbols_bound(content_nbytes, transform - Z4_SYMBOLS_FIRST, gap, gap_stream)
                         : z4_difference_bound(content_nbytes, z4_transform_width(transform), gap, gap_stream);
    const size_t b = z4_plane_bound(content_nbytes, z4_planes_like(transform), gap, gap_stream);
    return a > b ? a : b;
}

/* z4_encode_chunk() of what has a reference, with room for all of it. What does not fit the model goes as planes. */
static void z4_encode_beside(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *content,
                             const uint8_t *reference, uint8_t *out, size_t capacity, size_t gap, size_t gap_stream,
                             z4_encode_scratch *scratch, z4_symbols_encoder *symbols, uint8_t *planes)
{
    const int transform = job->layout;
    if (memcmp(content + job->content_offset, reference, job->content_nbytes) == 0) {
        z4_encode_as_same(k, job, content + job->content_offset, gap);
        return;
    }
    if (m != NULL && m->difference && symbols != NULL && !job->swap &&
        job->content_nbytes >= z4_transform_width(transform)) {
        z4_chunk_job coded = *job;
        z4_encode_as_difference(k, &coded, m, content, reference, out, capacity, gap, gap_stream, scratch, symbols,
                                planes);
        if (coded.status == Z4_OK) {
            *job = coded;
            return;
        }
    }
    job->layout = job->planes;
    z4_encode_as_planes(k, job, content, out, capacity, gap, gap_stream, scratch, planes);
    job->doubtful = 1;
}

/* Encode one job's content to out (= the encoded buffer at job->encoded_offset).
 *
 * m: the model of a job of symbols or differences. reference: has all of the chunk's where it differs from one. gap
 * and gap_stream: bytes to leave for the chunk header, fixed and for each stream. capacity: at least
 * z4_encode_bound(). planes: z4_encode_planes_nbytes() of scratch. Fills the job's layout, streams, parameters, offsets
 * (in the encoded buffer), checksum, encoded_nbytes, status; and `saved`, which is what symbols save against planes. */
static void z4_encode_chunk(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *content,
                            z4_reference reference, uint8_t *out, size_t capacity, size_t gap, size_t gap_stream,
                            z4_encode_scratch *scratch, z4_symbols_encoder *symbols, uint8_t *planes)
{
    const int transform = job->layout;
    job->saved = 0;
    if (z4_is_difference(transform)) {
        z4_encode_beside(k, job, m, content, reference.at + job->reference_offset, out, capacity, gap, gap_stream,
                         scratch, symbols, planes);
        return;
    }
    if (z4_is_symbols(transform) && m != NULL && !m->difference && symbols != NULL &&
        job->content_nbytes >= z4_transform_width(transform)) {
        z4_chunk_job coded = *job;
        z4_encode_as_symbols(k, &coded, m, content, out, capacity, gap, gap_stream, scratch, symbols, planes);
        if (coded.status == Z4_OK && !coded.doubtful) {
            *job = coded;
            return;
        }
        job->layout = job->planes;
        z4_encode_as_planes(k, job, content, out, capacity, gap, gap_stream, scratch, planes);
        if (coded.status != Z4_OK || (job->status == Z4_OK && job->encoded_nbytes <= coded.encoded_nbytes))
            return;
        coded.saved = (uint32_t)(job->encoded_nbytes - coded.encoded_nbytes);
        job->layout = (uint8_t)transform;
        z4_encode_as_symbols(k, job, m, content, out, capacity, gap, gap_stream, scratch, symbols, planes);
        job->saved = coded.saved;
        if (job->status != Z4_OK) { /* the content is not what it was a moment ago */
            job->layout = job->planes;
            z4_encode_as_planes(k, job, content, out, capacity, gap, gap_stream, scratch, planes);
            job->saved = 0;
        }
        return;
    }
    if (z4_is_symbols(transform))
        job->layout = job->planes;
    z4_encode_as_planes(k, job, content, out, capacity, gap, gap_stream, scratch, planes);
}

#endif
