/* z4_chunk_symbols_encode.h -- content of one chunk -> symbols under a model, remainders, low planes.
 *
 * READ ME FIRST. The encoded chunk is: a gap for its header and parameters, then the low planes from the highest number
 * on, the remainders, and the symbols (rows, rare ones, raw fields, then all of them). What is stored is split straight to its
 * place as long as its place is known.
 */
#ifndef Z4_CHUNK_SYMBOLS_ENCODE_H
#define Z4_CHUNK_SYMBOLS_ENCODE_H

#include "z4_chunk_encode.h"
#include "z4_chunk_symbols.h"

/* Elements sampled from which on an estimate of planes is right to half a percent, and not to two. */
#define Z4_SURE_SAMPLE ((size_t)16384)
/* Parameters of a chunk of symbols, where there are any. */
#define Z4_SYMBOLS_PARAMS ((size_t)12)

typedef struct {
    const z4_model *model; /* whose codes these are */
    uint32_t codes[Z4_RANS_CONTEXTS * 256];
    uint64_t reciprocals[Z4_RANS_CONTEXTS * 256];
    z4_rares rares;
    uint16_t places[Z4_RARES_TILE];
    uint32_t side_codes[256];
    uint64_t side_reciprocals[256];
    uint8_t rows[Z4_MODEL_MOST_ROWS];
    uint8_t rare[Z4_MODEL_RARES + 16];
    uint8_t raw[2 * Z4_MODEL_RARES];
    uint8_t rest[Z4_SPLIT_TILE];
    uint8_t low[Z4_MAX_PLANES][Z4_PROBE_RUN];
    uint64_t sizes[Z4_SYMBOLS_TILE]; /* of differences, as wide as the elements */
} z4_symbols_encoder;

/* Planes of the same width. */
Z4_INLINE int z4_planes_like(int transform)
{
    const size_t width = z4_transform_width(transform);
    return width == 1 ? Z4_LAYOUT_BYTES1 : width == 2 ? Z4_LAYOUT_FLOAT2 : width == 4 ? Z4_LAYOUT_FLOAT4 : Z4_LAYOUT_FLOAT8;
}

Z4_INLINE size_t z4_symbols_bound(uint64_t content_nbytes, int kind, size_t gap, size_t gap_stream)
{
    const size_t width = z4_symbols_width(kind), n = (size_t)(content_nbytes / width);
    return gap + Z4_SYMBOLS_PARAMS + width * gap_stream + (width > 1 ? width - 1 : 0) * z4_lit_bound(n, z4_tile(width)) +
           z4_rans_bound(n) + z4_rans_bound(n / Z4_MODEL_LEAST_PERIOD + 2) + z4_rans_bound(Z4_MODEL_RARES) +
           2 * (size_t)Z4_MODEL_RARES + width + 64;
}

static int z4_symbols_prepare(const z4_model *m, z4_symbols_encoder *s)
{
    if (s->model == m)
        return Z4_OK;
    s->model = NULL;
    for (unsigned c = 0; c < m->count; c++) {
        const uint16_t *freqs = z4_model_freqs(m, c);
        const int status = z4_rans_codes_build(freqs, s->codes + 256 * c, s->reciprocals + 256 * c);
        if (status != Z4_OK)
            return status;
        z4_rares_prepare(&s->rares, c, freqs, m->escape);
    }
    s->model = m;
    return Z4_OK;
}

/* A stream of n symbols under one table; -> bytes, or a negative status. */
static ptrdiff_t z4_encode_side(const z4_kernels *k, const uint16_t *freqs, const uint8_t *symbols, size_t n,
                                uint8_t *dst, size_t capacity, z4_symbols_encoder *s)
{
    z4_rans_codes codes = {s->side_codes, s->side_reciprocals, 1};
    if (z4_rans_codes_build(freqs, s->side_codes, s->side_reciprocals) != Z4_OK)
        return Z4_CORRUPT;
    return z4_rans_encode(k->rans, symbols, NULL, n, &codes, dst, capacity);
}

/* Sum of what symbols weigh. */
static uint64_t z4_weight_of(const z4_symbols_impl *impl, const z4_model *m, const uint8_t *symbols, size_t n)
{
    uint8_t folded[1024];
    uint64_t sum = 0;
    if (!m->folds)
        return impl->weigh(symbols, n, m->floor, NULL);
    for (size_t i = 0; i < n; i += sizeof folded) {
        const size_t t = n - i < sizeof folded ? n - i : sizeof folded;
        for (size_t j = 0; j < t; j++)
            folded[j] = m->fold[symbols[i + j]];
        sum += impl->weigh(folded, t, m->floor, NULL);
    }
    return sum;
}

/* Twice the mean weight of a row, above that of class 0. */
static void z4_classes_of_rows(const z4_symbols_impl *impl, const z4_model *m, const uint8_t *symbols, uint64_t first,
                               size_t n, uint8_t *rows)
{
    size_t column = (size_t)(first % m->period);
    for (size_t i = 0; i < n;) {
        const size_t left = m->period - column, k = left < n - i ? left : n - i;
        const uint64_t sum = z4_weight_of(impl, m, symbols + i, k);
        const uint64_t twice = (4 * sum + k) / (2 * k);
        const uint64_t above = twice > m->least ? twice - m->least : 0;
        *rows++ = (uint8_t)(above > m->most ? m->most : above);
        i += k;
        column = 0;
    }
}

/* Put the escape in the place of what a table lacks; -> how many, or Z4_CAPACITY. */
static ptrdiff_t z4_set_rare_apart(const z4_kernels *k, const z4_model *m, uint8_t *symbols, const uint8_t *contexts,
                                   size_t n, z4_symbols_encoder *s)
{
    size_t taken = 0;
    for (size_t i = 0; i < n; i += Z4_RARES_TILE) {
        const size_t t = n - i < Z4_RARES_TILE ? n - i : Z4_RARES_TILE;
        const uint8_t *c = m->count > 1 ? contexts + i : NULL;
        const size_t found = k->symbols->find_rares(symbols + i, c, t, &s->rares, s->places);
        if (found > Z4_MODEL_RARES - taken)
            return Z4_CAPACITY;
        for (size_t j = 0; j < found; j++) {
            uint8_t *const y = symbols + i + s->places[j];
            s->rare[taken++] = *y;
            *y = m->escape;
        }
    }
    return (ptrdiff_t)taken;
}

/* Whether remainders are worth coding one a byte: more than 1 % below r bits each in a sample of the chunk. */
static int z4_probe_rest(const z4_kernels *k, const z4_chunk_job *job, int kind, unsigned base, const uint8_t *src,
                         size_t n, z4_encode_scratch *scratch, z4_symbols_encoder *s)
{
    const size_t width = z4_symbols_width(kind), runs = 16;
    uint8_t *low[Z4_MAX_PLANES];
    size_t seen = 0;
    uint32_t *counts = scratch->counts[0];
    for (size_t p = 0; p < Z4_MAX_PLANES; p++)
        low[p] = s->low[p];
    memset(counts, 0, 256 * sizeof *counts);
    for (size_t r = 0; r < runs; r++) {
        const size_t m = n < Z4_PROBE_RUN ? n : Z4_PROBE_RUN, at = (n - m) / (runs - 1) * r;
        const uint8_t *run = src + at * width;
        if (job->swap) {
            z4_swap_elements(k, width, run, m, scratch->swapped);
            run = scratch->swapped;
        }
        k->symbols->split[kind](run, m, base, scratch->probe[0], s->rest, low);
        for (size_t i = 0; i < m; i++)
            counts[s->rest[i]]++;
        seen += m;
        if (m == n)
            break;
    }
    return 800 * z4_sample_nbytes(counts, seen) < 99 * z4_symbols_rest_bits(kind) * seen;
}

/* Content to symbols, remainders and low bytes; raw fields and the checksum on the way. -> raw fields, or Z4_CAPACITY.
 * packed: where remainders go packed, or NULL: one a byte to `rest`. */
static ptrdiff_t z4_split_symbols(const z4_kernels *k, z4_chunk_job *job, int kind, unsigned base, const uint8_t *src,
                                  size_t n, uint8_t *symbols, uint8_t *packed, uint8_t *rest, uint8_t *const *low,
                                  z4_encode_scratch *scratch, z4_symbols_encoder *s)
{
    const size_t width = z4_symbols_width(kind), total = job->content_nbytes;
    const int windowed = z4_symbols_field_bits(kind) > 8;
    size_t n_raw = 0;
    z4_xxh3_state hash;
    z4_xxh3_begin(&hash, job->seed);
    for (size_t i = 0; i < n; i += Z4_SPLIT_TILE) {
        const size_t t = n - i < Z4_SPLIT_TILE ? n - i : Z4_SPLIT_TILE;
        const uint8_t *tile = src + i * width;
        uint8_t *to[Z4_MAX_PLANES] = {NULL}, *rests = packed != NULL ? s->rest : rest + i;
        for (size_t p = 2; p < width; p++)
            to[p - 2] = low[p - 2] + i;
        if (job->swap) {
            z4_swap_elements(k, width, tile, t, scratch->swapped);
            tile = scratch->swapped;
        }
        k->symbols->split[kind](tile, t, base, symbols + i, width > 1 ? rests : NULL, to);
        if (packed != NULL)
            k->symbols->pack[kind](rests, t, packed + z4_symbols_packed_nbytes(kind, i));
        if (windowed) {
            const uint8_t *const end = symbols + i + t;
            for (const uint8_t *at = symbols + i;
                 (at = (const uint8_t *)memchr(at, 255, (size_t)(end - at))) != NULL; at++) {
                if (n_raw == Z4_MODEL_RARES)
                    return Z4_CAPACITY;
                z4_store16(s->raw + 2 * n_raw++,
                           (uint16_t)z4_symbols_field(kind, tile + (size_t)(at - (symbols + i)) * width));
            }
        }
        z4_xxh3_advance(k->xxh3, &hash, src, (i + t) * width);
    }
    job->checksum = z4_xxh3_64_end(k->xxh3, &hash, src, total);
    return (ptrdiff_t)n_raw;
}

/* Append the streams of symbols at out; -> bytes, or a negative status. */
static ptrdiff_t z4_encode_stream0(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, uint8_t *symbols,
                                   uint8_t *contexts, size_t n, uint8_t *out, size_t capacity, z4_symbols_encoder *s)
{
    const uint64_t first = job->seed / z4_symbols_width(job->layout - Z4_SYMBOLS_FIRST);
    z4_rans_codes codes = {s->codes, s->reciprocals, m->count};
    size_t at = 0;
    ptrdiff_t got;
    job->rows_nbytes = 0;
    if (m->has & Z4_MODEL_ROWS) {
        z4_classes_of_rows(k->symbols, m, symbols, first, n, s->rows);
        got = z4_encode_side(k, z4_model_classes(m), s->rows, z4_model_rows(m, first, n), out, capacity, s);
        if (got < 0)
            return got;
        job->rows_nbytes = (uint32_t)got;
        at += (size_t)got;
    }
    if (m->count > 1)
        z4_contexts_of(k->symbols, m, m->has & Z4_MODEL_ROWS ? s->rows : NULL, first, n, contexts);
    job->rare_nbytes = 0;
    job->n_rare = 0;
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
    if (capacity - at < 2 * (size_t)job->n_raw)
        return Z4_CAPACITY;
    memcpy(out + at, s->raw, 2 * (size_t)job->n_raw);
    at += 2 * (size_t)job->n_raw;
    got = z4_rans_encode(k->rans, symbols, contexts, n, &codes, out + at, capacity - at);
    return got < 0 ? got : (ptrdiff_t)at + got;
}

/* z4_encode_chunk() by symbols. A status below 0: the model does not fit this content; what was written is void. Sets
 * `doubtful` where planes promise nearly as much, or more. */
static void z4_encode_as_symbols(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *content,
                                 uint8_t *out, size_t capacity, size_t gap, size_t gap_stream,
                                 z4_encode_scratch *scratch, z4_symbols_encoder *s, uint8_t *planes)
{
    const int kind = job->layout - Z4_SYMBOLS_FIRST;
    const uint8_t *src = content + job->content_offset;
    const size_t total = job->content_nbytes, width = z4_symbols_width(kind), n = total / width, tail = total % width;
    const size_t stride = z4_align64(n + 64);
    uint8_t *symbols = planes, *contexts = planes + stride, *rest = planes + 2 * stride, *low[Z4_MAX_PLANES];
    z4_forecast forecast;
    job->status = (int8_t)z4_symbols_prepare(m, s);
    if (job->status != Z4_OK)
        return;
    if (n > Z4_MODEL_ELEMENTS) {
        job->status = Z4_CAPACITY;
        return;
    }
    const int no_params = !(m->has & (Z4_MODEL_ROWS | Z4_MODEL_RARE)) && z4_symbols_field_bits(kind) == 8;
    job->params_nbytes = no_params ? 0 : Z4_SYMBOLS_PARAMS;
    gap += job->params_nbytes;
    const size_t seen = z4_probe(k, job, z4_planes_like(job->layout), src, n, scratch, &forecast);
    size_t estimate = forecast.lean; /* of the best planes */
    if (job->other_layout != job->planes && width > 1) {
        z4_forecast other;
        z4_probe(k, job, job->other_layout, src, n, scratch, &other);
        estimate = other.lean < estimate ? other.lean : estimate;
    }
    const int rest_coded = width > 1 && z4_probe_rest(k, job, kind, m->base, src, n, scratch, s);

    /* Places: direct as long as all before is stored. */
    const size_t packed_nbytes = width > 1 ? z4_symbols_packed_nbytes(kind, n) : 0;
    size_t at = gap + width * gap_stream;
    int direct = 1;
    for (size_t p = width; p-- > 2;) {
        direct &= !forecast.coded[p];
        low[p - 2] = direct ? out + at : planes + (p + 1) * stride;
        at += direct ? n : 0;
    }
    uint8_t *packed = width == 1 || rest_coded ? NULL : direct ? out + at : rest;
    const ptrdiff_t n_raw =
        z4_split_symbols(k, job, kind, m->base, src, n, symbols, packed, rest, low, scratch, s);
    if (n_raw < 0) {
        job->status = (int8_t)n_raw;
        return;
    }
    job->n_raw = (uint16_t)n_raw;

    job->n_streams = (uint8_t)width;
    at = gap + width * gap_stream;
    for (size_t p = width; p-- > 0;) {
        ptrdiff_t got;
        job->stream_offset[p] = job->encoded_offset + at;
        job->stream_codec[p] = Z4_CODEC_STORE;
        if (p == 0) {
            job->stream_codec[p] = Z4_CODEC_CONTEXTS;
            got = z4_encode_stream0(k, job, m, symbols, contexts, n, out + at, capacity - at, s);
        } else if (p == 1 && !rest_coded) {
            if (packed != out + at)
                memcpy(out + at, packed, packed_nbytes);
            got = (ptrdiff_t)packed_nbytes;
        } else if (p == 1 || forecast.coded[p]) {
            got = z4_encode_plane(k, p == 1 ? rest : low[p - 2], n, z4_tile(width), out + at, capacity - at,
                                  &job->stream_codec[p], scratch);
            if (p == 1 && got >= 0 && (size_t)got > packed_nbytes) { /* the sample was wrong */
                k->symbols->pack[kind](rest, n, out + at);
                job->stream_codec[p] = Z4_CODEC_STORE;
                got = (ptrdiff_t)packed_nbytes;
            }
        } else {
            if (low[p - 2] != out + at)
                memcpy(out + at, low[p - 2], n);
            got = (ptrdiff_t)n;
        }
        if (got < 0) {
            job->status = (int8_t)got;
            return;
        }
        job->stream_nbytes[p] = (uint32_t)got;
        at += (size_t)got;
    }
    job->tail_offset = job->encoded_offset + at;
    memcpy(out + at, src + total - tail, tail);
    at += tail;
    job->encoded_nbytes = at;
    /* What planes would take by the sample, less what the sample may be wrong by. */
    const uint64_t planes_nbytes = (uint64_t)estimate * n / (seen == 0 ? 1 : seen) + tail;
    const uint64_t sure = seen < Z4_SURE_SAMPLE ? 980 : 995;
    const uint64_t mine = at - gap - width * gap_stream;
    job->saved = planes_nbytes > mine ? (uint32_t)(planes_nbytes - mine) : 0;
    job->doubtful = n < ((size_t)1 << 16) || 1000 * mine > sure * planes_nbytes || 16 * mine < total;
}

#endif
