/* z4_chunk_difference_decode.h -- a chunk of differences and its reference -> its content, fused.
 *
 * READ ME FIRST. A tile (Z4_SYMBOLS_TILE) at a time: contexts from the reference and the rows, symbols, rare ones put
 * back; bits apart taken; the elements restored and hashed, all while the tile is in cache. Most tiles have few bits
 * apart or none, and some are as the reference is.
 */
#ifndef Z4_CHUNK_DIFFERENCE_DECODE_H
#define Z4_CHUNK_DIFFERENCE_DECODE_H

#include "z4_chunk_difference.h"
#include "z4_chunk_symbols_decode.h"

/* Check one job against the buffers, as z4_decode_check(). */
static int z4_check_beside(const z4_chunk_job *job, size_t encoded_nbytes, z4_reference reference)
{
    if (!z4_has_reference(job, reference))
        return Z4_CORRUPT;
    if (job->layout == Z4_SAME)
        return job->n_streams == 0 && job->params_nbytes == 0 ? Z4_OK : Z4_CORRUPT;
    const size_t width = z4_transform_width(job->layout);
    if (job->content_nbytes < width || job->swap || job->n_streams != Z4_DIFFERENCE_STREAMS ||
        job->stream_codec[0] != Z4_CODEC_CONTEXTS || job->stream_codec[1] != Z4_CODEC_STORE)
        return Z4_CORRUPT;
    for (size_t p = 0; p < Z4_DIFFERENCE_STREAMS; p++)
        if (job->stream_offset[p] > encoded_nbytes || job->stream_nbytes[p] > encoded_nbytes - job->stream_offset[p])
            return Z4_CAPACITY;
    if (job->tail_offset > encoded_nbytes || job->content_nbytes % width > encoded_nbytes - job->tail_offset)
        return Z4_CAPACITY;
    return Z4_OK;
}

/* No table may have symbols that no difference has. */
static int z4_difference_tables_ok(const z4_model *m, int kind)
{
    const unsigned first = kind == 3 ? 255 : 247, n = m->count + (m->has & Z4_MODEL_RARE ? 1 : 0);
    unsigned some = 0;
    for (unsigned c = 0; c < n; c++)
        for (unsigned y = first; y < 256; y++)
            some |= z4_model_freqs(m, c)[y];
    return some == 0;
}

static int z4_difference_check(const z4_chunk_job *job, const z4_model *m, int kind, size_t n)
{
    if (m == NULL || !m->difference || n > Z4_MODEL_ELEMENTS || job->n_raw != 0 ||
        (uint64_t)job->rows_nbytes + job->rare_nbytes > job->stream_nbytes[0])
        return Z4_CORRUPT;
    if (!(m->has & Z4_MODEL_ROWS) && job->rows_nbytes != 0)
        return Z4_CORRUPT;
    if (!(m->has & Z4_MODEL_RARE) && (job->n_rare != 0 || job->rare_nbytes != 0))
        return Z4_CORRUPT;
    return z4_difference_tables_ok(m, kind) ? Z4_OK : Z4_CORRUPT;
}

/* Contexts of the elements [i, i + t) of a chunk; rows: the class of each row that the chunk touches. */
static void z4_difference_contexts_of(const z4_difference_impl *impl, const z4_model *m, int kind, const uint8_t *rows,
                                      uint64_t first, size_t i, size_t t, const uint8_t *reference, uint8_t *contexts)
{
    const size_t width = (size_t)1 << kind;
    const unsigned most = m->count - 1;
    if (m->has & Z4_MODEL_ROWS)
        rows += (first + i) / m->period - first / m->period;
    for (size_t done = 0; done < t;) {
        const size_t k = z4_left_of_row(m, first + i, done, t);
        const unsigned row = m->has & Z4_MODEL_ROWS ? *rows++ : 0;
        if (m->has & Z4_MODEL_FLOATS)
            impl->contexts[kind](reference + done * width, k, m->base, m->below, row, m->shift, most, contexts + done);
        else
            memset(contexts + done, (int)(row >> m->shift < most ? row >> m->shift : most), k);
        done += k;
    }
}

static int z4_decode_difference(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *encoded,
                                const uint8_t *reference, uint8_t *content, z4_symbols_scratch *s, z4_xxh3_state *hash)
{
    const z4_difference_impl *impl = k->difference;
    const int kind = job->layout - Z4_DIFFERENCE_FIRST;
    const size_t width = (size_t)1 << kind, n = job->content_nbytes / width;
    const uint64_t first = job->seed / width;
    const unsigned apart = kind == 3 ? Z4_DIFFERENCE_APART8 : Z4_DIFFERENCE_APART4;
    int status = z4_difference_check(job, m, kind, n);
    if (status != Z4_OK)
        return status;
    const int floats = (m->has & Z4_MODEL_FLOATS) != 0;
    status = z4_symbols_begin(k, job, m, first, n, encoded + job->stream_offset[0], s);
    if (status != Z4_OK)
        return status;
    const uint8_t *rare = s->rare;
    size_t n_rare = job->n_rare;
    z4_difference_reader bits = {encoded + job->stream_offset[1], job->stream_nbytes[1], 0};
    for (size_t i = 0; i < n; i += Z4_SYMBOLS_TILE) {
        const size_t t = n - i < Z4_SYMBOLS_TILE ? n - i : Z4_SYMBOLS_TILE;
        const uint8_t *from = reference + i * width;
        uint8_t *dst = content + i * width, *y = s->symbols;
        z4_fetch_symbols(dst, t * width, from + t * width, t * width);
        if (m->count > 1)
            z4_difference_contexts_of(impl, m, kind, s->rows, first, i, t, from, s->contexts);
        status = z4_rans_next_known(k->rans, &s->coder, m->count > 1 ? s->contexts : NULL, t, y);
        if (status != Z4_OK)
            return status;
        if (m->has & Z4_MODEL_RARE) {
            const ptrdiff_t taken = z4_rans_put_back(y, t, m->escape, rare, n_rare);
            if (taken < 0)
                return Z4_CORRUPT;
            rare += taken;
            n_rare -= (size_t)taken;
        }
        const unsigned most = impl->most(y, t);
        if (most == 0) {
            memcpy(dst, from, t * width);
        } else if (most < apart) {
            impl->restore_near[kind](from, y, t, floats, dst);
        } else {
            impl->take[kind](&bits, y, t, s->apart);
            impl->restore[kind](from, y, s->apart, t, floats, dst);
        }
        z4_xxh3_advance(k->xxh3, hash, content, (i + t) * width);
    }
    if (!z4_difference_read_all(&bits)) {
        job->stream = 1;
        return Z4_CORRUPT;
    }
    return n_rare == 0 ? z4_rans_end(&s->coder) : Z4_CORRUPT;
}

/* The content is the reference. */
static int z4_decode_same(const z4_kernels *k, const z4_chunk_job *job, const uint8_t *reference, uint8_t *content,
                          z4_xxh3_state *hash)
{
    for (size_t done = 0; done < job->content_nbytes;) {
        const size_t m = job->content_nbytes - done < 16384 ? job->content_nbytes - done : 16384;
        memcpy(content + done, reference + done, m);
        done += m;
        z4_xxh3_advance(k->xxh3, hash, content, done);
    }
    return Z4_OK;
}

#endif
