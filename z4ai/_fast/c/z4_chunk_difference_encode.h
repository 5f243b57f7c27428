/* z4_chunk_difference_encode.h -- content of one chunk and its reference -> symbols under a model, bits apart.
 *
 * READ ME FIRST. The encoded chunk is: a gap for its header and parameters, then the bits apart, then the symbols (rows,
 * rare ones, all of them). One pass over content and reference makes symbols, bits apart, classes, weights of rows and
 * the checksum; what rows weigh makes contexts of the classes.
 */
#ifndef Z4_CHUNK_DIFFERENCE_ENCODE_H
#define Z4_CHUNK_DIFFERENCE_ENCODE_H

#include "z4_chunk_difference.h"
#include "z4_chunk_symbols_encode.h"
#include "z4_entropy.h"

/* Runs that a chunk without its reference is judged by. */
#define Z4_PROMISE_RUNS ((size_t)16)
#define Z4_PROMISE_RUN ((size_t)256)

Z4_INLINE size_t z4_difference_bound(uint64_t content_nbytes, size_t width, size_t gap, size_t gap_stream)
{
    const size_t n = (size_t)(content_nbytes / width);
    return gap + Z4_SYMBOLS_PARAMS + Z4_DIFFERENCE_STREAMS * gap_stream + (size_t)content_nbytes + z4_rans_bound(n) +
           z4_rans_bound(n / Z4_MODEL_LEAST_PERIOD + 2) + z4_rans_bound(Z4_MODEL_RARES) + width + 64;
}

/* Classes of rows as they are completed, one element range after the other. */
typedef struct {
    uint64_t sum;
    size_t n;
    uint8_t *next;
} z4_row_weight;

Z4_INLINE void z4_end_row(const z4_model *m, z4_row_weight *row)
{
    const uint32_t level = z4_difference_row_level(row->sum, row->n, m->octave);
    const uint32_t above = level > m->least ? level - m->least : 0;
    *row->next++ = (uint8_t)(above < m->most ? above : m->most);
    row->sum = 0;
    row->n = 0;
}

/* One pass: symbols, classes of references, classes of rows, bits apart at out; -> their bytes. */
static size_t z4_split_difference(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *src,
                                  const uint8_t *reference, size_t n, uint8_t *symbols, uint8_t *classes, uint8_t *out,
                                  z4_symbols_encoder *s)
{
    const z4_difference_impl *impl = k->difference;
    const int kind = job->layout - Z4_DIFFERENCE_FIRST, floats = (m->has & Z4_MODEL_FLOATS) != 0;
    const size_t width = (size_t)1 << kind;
    const uint64_t first = job->seed / width;
    const uint8_t *const sizes = (const uint8_t *)s->sizes;
    z4_difference_writer bits = {out, 0, 0};
    z4_row_weight row = {0, 0, s->rows};
    z4_xxh3_state hash;
    z4_xxh3_begin(&hash, job->seed);
    for (size_t i = 0; i < n; i += Z4_SYMBOLS_TILE) {
        const size_t t = n - i < Z4_SYMBOLS_TILE ? n - i : Z4_SYMBOLS_TILE;
        const uint8_t *from = reference + i * width;
        impl->split[kind](src + i * width, from, t, floats, symbols + i, s->sizes);
        impl->put[kind](&bits, symbols + i, s->sizes, t);
        if (floats)
            impl->contexts[kind](from, t, m->base, m->below, 0, 0, 255, classes + i);
        for (size_t done = 0; m->has & Z4_MODEL_ROWS && done < t;) {
            const size_t left = z4_left_of_row(m, first + i, done, t);
            row.sum += impl->weigh[kind](sizes + done * width, floats ? classes + i + done : NULL, left, m->octave);
            row.n += left;
            done += left;
            if ((first + i + done) % m->period == 0 || i + done == n)
                z4_end_row(m, &row);
        }
        z4_xxh3_advance(k->xxh3, &hash, src, (i + t) * width);
    }
    job->checksum = z4_xxh3_64_end(k->xxh3, &hash, src, job->content_nbytes);
    return (size_t)(z4_difference_written(&bits) - out);
}

/* Classes of references to contexts, or of rows alone. */
static void z4_raise_classes(const z4_difference_impl *impl, const z4_model *m, const uint8_t *rows, uint64_t first,
                             size_t n, uint8_t *contexts)
{
    const unsigned most = m->count - 1;
    for (size_t i = 0; i < n;) {
        const size_t left = z4_left_of_row(m, first, i, n);
        const unsigned row = m->has & Z4_MODEL_ROWS ? *rows++ : 0;
        if (m->has & Z4_MODEL_FLOATS)
            impl->raise(contexts + i, left, row, m->shift, most);
        else
            memset(contexts + i, (int)(row >> m->shift < most ? row >> m->shift : most), left);
        i += left;
    }
}

/* Append rows, rare symbols and symbols at out; -> bytes, or a negative status. */
static ptrdiff_t z4_encode_difference0(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, uint8_t *symbols,
                                       uint8_t *contexts, uint64_t first, size_t n, uint8_t *out, size_t capacity,
                                       z4_symbols_encoder *s)
{
    z4_rans_codes codes = {s->codes, s->reciprocals, m->count};
    size_t at = 0;
    ptrdiff_t got;
    job->rows_nbytes = 0;
    job->rare_nbytes = 0;
    job->n_rare = 0;
    job->n_raw = 0;
    if (m->has & Z4_MODEL_ROWS) {
        got = z4_encode_side(k, z4_model_classes(m), s->rows, z4_model_rows(m, first, n), out, capacity, s);
        if (got < 0)
            return got;
        job->rows_nbytes = (uint32_t)got;
        at += (size_t)got;
    }
    if (m->count > 1)
        z4_raise_classes(k->difference, m, s->rows, first, n, contexts);
    if (m->has & Z4_MODEL_RARE) {
        const ptrdiff_t n_rare = z4_set_rare_apart(k, m, symbols, contexts, n, s);
        if (n_rare < 0)
            return n_rare;
        got = z4_encode_side(k, z4_model_rare(m), s->rare, (size_t)n_rare, out + at, capacity - at, s);
        if (got < 0)
            return got;
        job->n_rare = (uint16_t)n_rare;
        job->rare_nbytes = (uint32_t)got;
        at += (size_t)got;
    }
    got = z4_rans_encode(k->rans, symbols, contexts, n, &codes, out + at, capacity - at);
    return got < 0 ? got : (ptrdiff_t)at + got;
}

/* What planes of n elements would take, by the entropy of a sample. */
static uint64_t z4_planes_promise(const z4_kernels *k, int layout, const uint8_t *src, size_t n,
                                  z4_encode_scratch *scratch)
{
    const size_t width = z4_layout_width(layout), m = n < Z4_PROMISE_RUN ? n : Z4_PROMISE_RUN;
    uint64_t bits = 0; /* in 1/65536 */
    if (n == 0)
        return 0;
    memset(scratch->counts, 0, width * sizeof scratch->counts[0]);
    for (size_t r = 0; r < Z4_PROMISE_RUNS; r++) {
        uint8_t *planes[Z4_MAX_PLANES];
        for (size_t p = 0; p < width; p++)
            planes[p] = scratch->probe[p];
        k->planes->split[layout](src + r * ((n - m) / (Z4_PROMISE_RUNS - 1)) * width, m, planes);
        for (size_t p = 0; p < width; p++)
            for (size_t i = 0; i < m; i++)
                scratch->counts[p][planes[p][i]]++;
    }
    for (size_t p = 0; p < width; p++) {
        uint64_t taken = z4_v_log2_v(Z4_PROMISE_RUNS * m);
        for (size_t s = 0; s < 256; s++)
            taken -= z4_v_log2_v(scratch->counts[p][s]);
        bits += taken;
    }
    return (bits >> 16) * n / (8 * Z4_PROMISE_RUNS * m);
}

/* z4_encode_chunk() by differences. A status below 0: the model does not fit this content; what was written is void.
 * Sets `doubtful` where planes promise nearly as much, or more. */
static void z4_encode_as_difference(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *content,
                                    const uint8_t *reference, uint8_t *out, size_t capacity, size_t gap,
                                    size_t gap_stream, z4_encode_scratch *scratch, z4_symbols_encoder *s,
                                    uint8_t *planes)
{
    const uint8_t *src = content + job->content_offset;
    const size_t width = z4_transform_width(job->layout), total = job->content_nbytes;
    const size_t n = total / width, tail = total % width, stride = z4_align64(n + 64);
    uint8_t *symbols = planes, *contexts = planes + stride;
    job->status = n > Z4_MODEL_ELEMENTS ? Z4_CAPACITY : (int8_t)z4_symbols_prepare(m, s);
    if (job->status != Z4_OK)
        return;
    job->params_nbytes = m->has & (Z4_MODEL_ROWS | Z4_MODEL_RARE) ? Z4_SYMBOLS_PARAMS : 0;
    gap += job->params_nbytes;
    const size_t begin = gap + Z4_DIFFERENCE_STREAMS * gap_stream;
    const size_t apart = z4_split_difference(k, job, m, src, reference, n, symbols, contexts, out + begin, s);
    const ptrdiff_t got = z4_encode_difference0(k, job, m, symbols, contexts, job->seed / width, n, out + begin + apart,
                                                capacity - begin - apart, s);
    if (got < 0) {
        job->status = (int8_t)got;
        return;
    }
    job->n_streams = Z4_DIFFERENCE_STREAMS;
    job->stream_codec[0] = Z4_CODEC_CONTEXTS;
    job->stream_codec[1] = Z4_CODEC_STORE;
    job->stream_offset[1] = job->encoded_offset + begin;
    job->stream_nbytes[1] = (uint32_t)apart;
    job->stream_offset[0] = job->stream_offset[1] + apart;
    job->stream_nbytes[0] = (uint32_t)got;
    job->tail_offset = job->stream_offset[0] + (size_t)got;
    const size_t at = begin + apart + (size_t)got;
    memcpy(out + at, src + total - tail, tail);
    job->encoded_nbytes = at + tail;
    const uint64_t mine = at + tail - begin;
    job->doubtful = n < ((size_t)1 << 16) ||
                    10 * mine >= 9 * (z4_planes_promise(k, job->planes, src, n, scratch) + tail);
}

/* z4_encode_chunk() of content that is its reference: nothing but a header. */
static void z4_encode_as_same(const z4_kernels *k, z4_chunk_job *job, const uint8_t *src, size_t gap)
{
    z4_xxh3_state hash;
    z4_xxh3_begin(&hash, job->seed);
    job->checksum = z4_xxh3_64_end(k->xxh3, &hash, src, job->content_nbytes);
    job->status = Z4_OK;
    job->layout = Z4_SAME;
    job->n_streams = 0;
    job->params_nbytes = 0;
    job->doubtful = 0;
    job->encoded_nbytes = gap;
    job->tail_offset = job->encoded_offset + gap;
}

#endif
