/* z4_chunk_decode.h -- streams of one chunk -> its content, fused.
 *
 * READ ME FIRST. Planes are decoded one tile (z4_tile() elements = one zstd block of a plane) at a time into scratch,
 * interleaved from there into the content, and hashed, all while the tile is in cache. A stored plane is read
 * where it lies. The content is written once.
 */
#ifndef Z4_CHUNK_DECODE_H
#define Z4_CHUNK_DECODE_H

#include "z4_chunk.h"

/* What z4_lit_block may scribble behind a tile. */
#define Z4_TILE_SLACK ((size_t)64)
/* Elements interleaved and hashed at a time: at eight bytes each they still fit the first-level cache. */
#define Z4_SUBTILE ((size_t)4096)

typedef struct {
    z4_lit_decoder zstd[Z4_MAX_PLANES];
    uint8_t tile[Z4_MAX_PLANES][Z4_TILE_MOST + Z4_TILE_SLACK];
} z4_decode_scratch;

/* Content is complete: pass over blocks without content, and see that nothing else follows. */
static int z4_decode_end(const z4_kernels *k, z4_lit_decoder *zstd)
{
    uint8_t none = 0;
    const ptrdiff_t m = z4_lit_block(k->literals, zstd, &none, 0, 0);
    return m < 0 ? (int)m : m > 0 ? Z4_CORRUPT : z4_lit_end(zstd);
}

/* One plane of bytes: no interleaving, so it is decoded in place. */
static int z4_decode_plain(const z4_kernels *k, z4_chunk_job *job, const uint8_t *encoded, uint8_t *content,
                           z4_decode_scratch *scratch, z4_xxh3_state *hash)
{
    const size_t n = job->content_nbytes;
    const uint8_t *src = encoded + job->stream_offset[0];
    if (job->stream_codec[0] == Z4_CODEC_CONSTANT) {
        memset(content, src[0], n);
        return Z4_OK;
    }
    if (z4_is_plain(job->stream_codec[0])) {
        for (size_t done = 0; done < n;) {
            const size_t m = n - done < 16384 ? n - done : 16384;
            memcpy(content + done, src + done, m);
            done += m;
            z4_xxh3_advance(k->xxh3, hash, content, done);
        }
        return Z4_OK;
    }
    z4_lit_decoder *zstd = &scratch->zstd[0];
    int status = z4_lit_begin(zstd, src, job->stream_nbytes[0], n);
    if (status != Z4_OK)
        return status;
    for (size_t done = 0; done < n;) {
        /* The slack of a block is content still to come, except near the end of the chunk. */
        const size_t left = n - done, room = left < Z4_TILE_MOST ? left : Z4_TILE_MOST;
        const size_t slack = left - room < Z4_TILE_SLACK ? left - room : Z4_TILE_SLACK;
        const ptrdiff_t m = z4_lit_block(k->literals, zstd, content + done, room, slack);
        if (m <= 0)
            return m == 0 ? Z4_CORRUPT : (int)m;
        done += (size_t)m;
        z4_xxh3_advance(k->xxh3, hash, content, done);
    }
    return z4_decode_end(k, zstd);
}

/* What interleaving the tile at `base` will touch: stored planes and content. */
static void z4_fetch_tile(const z4_chunk_job *job, const uint8_t *encoded, const uint8_t *content, size_t base,
                          size_t m, z4_lit_fetch *fetch)
{
    const size_t width = z4_layout_width(job->layout);
    fetch->n = 0;
    fetch->range[fetch->n].at = content + base * width;
    fetch->range[fetch->n++].end = content + (base + m) * width;
    for (size_t p = 0; p < width; p++) {
        if (z4_is_plain(job->stream_codec[p])) {
            fetch->range[fetch->n].at = encoded + job->stream_offset[p] + base;
            fetch->range[fetch->n++].end = encoded + job->stream_offset[p] + base + m;
        }
    }
}

/* Several planes, tile by tile. */
static int z4_decode_planes(const z4_kernels *k, z4_chunk_job *job, const uint8_t *encoded, uint8_t *content,
                            z4_decode_scratch *scratch, z4_xxh3_state *hash)
{
    const size_t width = z4_layout_width(job->layout), tile = z4_tile(width);
    const size_t n = job->content_nbytes / width;
    z4_lit_fetch fetch;
    for (size_t p = 0; p < width; p++) {
        const uint8_t *src = encoded + job->stream_offset[p];
        if (job->stream_codec[p] == Z4_CODEC_CONSTANT) {
            memset(scratch->tile[p], src[0], n < tile ? n : tile);
        } else if (job->stream_codec[p] == Z4_CODEC_ZSTD) {
            const int status = z4_lit_begin(&scratch->zstd[p], src, job->stream_nbytes[p], n);
            if (status != Z4_OK) {
                job->stream = (uint8_t)p;
                return status;
            }
            scratch->zstd[p].fetch = &fetch;
        }
    }
    for (size_t base = 0; base < n; base += tile) {
        const size_t m = n - base < tile ? n - base : tile;
        z4_fetch_tile(job, encoded, content, base, m, &fetch);
        const uint8_t *plane[Z4_MAX_PLANES];
        for (size_t p = 0; p < width; p++) {
            plane[p] = scratch->tile[p];
            if (z4_is_plain(job->stream_codec[p])) {
                plane[p] = encoded + job->stream_offset[p] + base;
            } else if (job->stream_codec[p] == Z4_CODEC_ZSTD) {
                const ptrdiff_t got =
                    z4_lit_block(k->literals, &scratch->zstd[p], scratch->tile[p], m, Z4_TILE_SLACK);
                if (got != (ptrdiff_t)m) {
                    job->stream = (uint8_t)p;
                    /* Legal Zstandard may cut its blocks elsewhere: the library decodes those. */
                    return got < 0 && got != Z4_CAPACITY ? (int)got : Z4_UNSUPPORTED;
                }
            }
        }
        for (size_t i = 0; i < m; i += Z4_SUBTILE) {
            const size_t s = m - i < Z4_SUBTILE ? m - i : Z4_SUBTILE;
            uint8_t *dst = content + (base + i) * width;
            k->planes->interleave[job->layout](plane, s, dst);
            if (job->swap)
                z4_swap_elements(k, width, dst, s, dst);
            for (size_t p = 0; p < width; p++)
                plane[p] += s;
            z4_xxh3_advance(k->xxh3, hash, content, (base + i + s) * width);
        }
    }
    for (size_t p = 0; p < width; p++) {
        const int status =
            job->stream_codec[p] == Z4_CODEC_ZSTD ? z4_decode_end(k, &scratch->zstd[p]) : Z4_OK;
        if (status != Z4_OK) {
            job->stream = (uint8_t)p;
            return status;
        }
    }
    return Z4_OK;
}

#include "z4_chunk_difference_decode.h"
#include "z4_chunk_symbols_decode.h"

/* Check one job against the buffers: every range that the kernels will touch. */
Z4_INLINE int z4_decode_check(const z4_chunk_job *job, size_t encoded_nbytes, size_t content_nbytes,
                              z4_reference reference)
{
    if (!z4_transform_known(job->layout))
        return Z4_UNSUPPORTED;
    if (job->content_nbytes == 0 || job->content_nbytes > Z4_MAX_CHUNK ||
        job->content_offset > content_nbytes || job->content_nbytes > content_nbytes - job->content_offset)
        return Z4_CAPACITY;
    if (z4_is_beside(job->layout))
        return z4_check_beside(job, encoded_nbytes, reference);
    const size_t width = z4_transform_width(job->layout);
    const size_t n = job->content_nbytes / width;
    const size_t tail = job->content_nbytes % width;
    if (n == 0 || job->n_streams != width)
        return Z4_CORRUPT;
    for (size_t p = 0; p < width; p++) {
        if (job->stream_offset[p] > encoded_nbytes || job->stream_nbytes[p] > encoded_nbytes - job->stream_offset[p])
            return Z4_CAPACITY;
        const int symbols = z4_is_symbols(job->layout);
        switch (job->stream_codec[p]) {
        case Z4_CODEC_STORE:
            if (symbols && p == 0)
                return Z4_CORRUPT;
            if (job->stream_nbytes[p] != (symbols && p == 1
                                              ? z4_symbols_packed_nbytes(job->layout - Z4_SYMBOLS_FIRST, n)
                                              : n))
                return Z4_CORRUPT;
            break;
        case Z4_CODEC_PLAIN:
            if (job->stream_nbytes[p] != n || (symbols && p == 0))
                return Z4_CORRUPT;
            break;
        case Z4_CODEC_CONTEXTS:
            if (!symbols || p != 0)
                return Z4_CORRUPT;
            break;
        case Z4_CODEC_CONSTANT:
            if (job->stream_nbytes[p] != 1 || (symbols && p == 0))
                return Z4_CORRUPT;
            break;
        case Z4_CODEC_ZSTD:
            if (symbols && p == 0)
                return Z4_CORRUPT;
            break;
        default:
            return symbols && p == 0 ? Z4_CORRUPT : Z4_UNSUPPORTED;
        }
    }
    if (job->tail_offset > encoded_nbytes || tail > encoded_nbytes - job->tail_offset)
        return Z4_CAPACITY;
    return Z4_OK;
}

/* Decode one job; sets job->status (and job->stream).
 *
 * Sizes: `encoded` and `content` hold the bytes given; the two do not overlap. m: the job's model, or NULL. reference:
 * what chunks of delta frames differ from; it does not overlap `content`. Writes inside the job's content range only.
 * Z4_UNSUPPORTED means: legal as far as seen, but a stream needs another decoder. */
static void z4_decode_chunk(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *encoded,
                            size_t encoded_nbytes, z4_reference reference, uint8_t *content, size_t content_nbytes,
                            z4_decode_scratch *scratch, z4_symbols_scratch *symbols)
{
    job->stream = 0;
    int status = z4_decode_check(job, encoded_nbytes, content_nbytes, reference);
    if (status == Z4_OK) {
        z4_xxh3_state hash;
        const uint8_t *from = z4_is_beside(job->layout) ? reference.at + job->reference_offset : NULL;
        uint8_t *dst = content + job->content_offset;
        const size_t width = z4_transform_width(job->layout);
        const size_t tail = job->content_nbytes % width;
        z4_xxh3_begin(&hash, job->seed);
        status = z4_is_symbols(job->layout)
                     ? z4_decode_symbols(k, job, m, encoded, dst, scratch, symbols, &hash)
                 : z4_is_difference(job->layout) ? z4_decode_difference(k, job, m, encoded, from, dst, symbols, &hash)
                 : job->layout == Z4_SAME        ? z4_decode_same(k, job, from, dst, &hash)
                 : width == 1 ? z4_decode_plain(k, job, encoded, dst, scratch, &hash)
                              : z4_decode_planes(k, job, encoded, dst, scratch, &hash);
        if (status == Z4_OK) {
            if (tail > 0)
                memcpy(dst + job->content_nbytes - tail, encoded + job->tail_offset, tail);
            if (z4_xxh3_64_end(k->xxh3, &hash, dst, job->content_nbytes) != job->checksum)
                status = Z4_CHECKSUM;
        }
    }
    job->status = (int8_t)status;
}

#endif
