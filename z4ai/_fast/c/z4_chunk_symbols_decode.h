/* z4_chunk_symbols_decode.h -- a chunk of symbols -> its content, fused.
 *
 * READ ME FIRST. Symbols are restored a tile (Z4_SYMBOLS_TILE) at a time: contexts from rows and columns, symbols,
 * rare ones put back; then merged with remainders and low bytes into the content, fields outside the window patched,
 * and hashed, all while the tile is in cache. Low planes that are Huffman-coded come in blocks of z4_tile().
 */
#ifndef Z4_CHUNK_SYMBOLS_DECODE_H
#define Z4_CHUNK_SYMBOLS_DECODE_H

#include "z4_chunk_symbols.h"

typedef struct {
    const z4_model *model; /* whose tables these are */
    uint32_t tables[Z4_RANS_CONTEXTS * Z4_RANS_TOTAL];
    uint32_t side[Z4_RANS_TOTAL]; /* of the rare symbols, or of the classes */
    uint8_t rows[Z4_MODEL_MOST_ROWS];
    uint8_t rare[Z4_MODEL_RARES + Z4_TILE_SLACK];
    uint8_t symbols[Z4_SYMBOLS_TILE];
    uint8_t contexts[Z4_SYMBOLS_TILE];
    uint8_t rest[Z4_SYMBOLS_TILE];
    uint64_t apart[Z4_SYMBOLS_TILE]; /* bits of differences, numbers as wide as the elements */
    z4_rans_decoder coder;
} z4_symbols_scratch;

/* A stream of n symbols under one table. */
static int z4_decode_side(const z4_kernels *k, const uint16_t *freqs, const uint8_t *src, size_t nbytes, size_t n,
                          uint8_t *dst, z4_symbols_scratch *s)
{
    int status = z4_rans_table_build(freqs, s->side);
    if (status == Z4_OK)
        status = z4_rans_decode(k->rans, src, nbytes, NULL, n, s->side, 1, dst);
    return status;
}

/* Check what only chunks of symbols have; z4_decode_check() has seen to the rest. */
static int z4_symbols_check(const z4_chunk_job *job, const z4_model *m, size_t n)
{
    const int kind = job->layout - Z4_SYMBOLS_FIRST;
    const uint64_t sides = (uint64_t)job->rows_nbytes + job->rare_nbytes + 2 * (uint64_t)job->n_raw;
    if (m == NULL || m->difference || n > Z4_MODEL_ELEMENTS || sides > job->stream_nbytes[0])
        return Z4_CORRUPT;
    if (!(m->has & Z4_MODEL_ROWS) && job->rows_nbytes != 0)
        return Z4_CORRUPT;
    if (!(m->has & Z4_MODEL_RARE) && (job->n_rare != 0 || job->rare_nbytes != 0))
        return Z4_CORRUPT;
    if (z4_symbols_field_bits(kind) == 8 && (job->n_raw != 0 || m->base != 0))
        return Z4_CORRUPT;
    return Z4_OK;
}

/* Rows and rare symbols, and the coder at the first symbol. */
static int z4_symbols_begin(const z4_kernels *k, const z4_chunk_job *job, const z4_model *m, uint64_t first, size_t n,
                            const uint8_t *src, z4_symbols_scratch *s)
{
    int status = Z4_OK;
    if (s->model != m) {
        s->model = NULL;
        for (unsigned c = 0; status == Z4_OK && c < m->count; c++)
            status = z4_rans_table_build(z4_model_freqs(m, c), s->tables + (size_t)c * Z4_RANS_TOTAL);
        if (status != Z4_OK)
            return status;
        s->model = m;
    }
    if (m->has & Z4_MODEL_ROWS)
        status = z4_decode_side(k, z4_model_classes(m), src, job->rows_nbytes, z4_model_rows(m, first, n), s->rows, s);
    src += job->rows_nbytes;
    if (status == Z4_OK && m->has & Z4_MODEL_RARE)
        status = z4_decode_side(k, z4_model_rare(m), src, job->rare_nbytes, job->n_rare, s->rare, s);
    src += job->rare_nbytes + 2 * (size_t)job->n_raw;
    if (status == Z4_OK)
        status = z4_rans_begin(&s->coder, src,
                               job->stream_nbytes[0] - job->rows_nbytes - job->rare_nbytes - 2 * (size_t)job->n_raw, n,
                               s->tables, m->count);
    return status;
}

/* Put the raw fields of a tile into its elements; -> how many, or Z4_CORRUPT. */
static ptrdiff_t z4_put_raw(int kind, const uint8_t *symbols, size_t n, const uint8_t *raw, size_t n_raw, uint8_t *dst)
{
    const unsigned width = z4_symbols_width(kind);
    const uint32_t most = (uint32_t)1 << z4_symbols_field_bits(kind);
    const uint8_t *const end = symbols + n;
    size_t taken = 0;
    for (const uint8_t *at = symbols; (at = (const uint8_t *)memchr(at, 255, (size_t)(end - at))) != NULL; at++) {
        const uint32_t field = taken < n_raw ? z4_load16(raw + 2 * taken) : most;
        if (field >= most)
            return Z4_CORRUPT;
        z4_symbols_patch(kind, field, dst + (size_t)(at - symbols) * width);
        taken++;
    }
    return (ptrdiff_t)taken;
}

/* Where the planes beside the symbols are read. */
typedef struct {
    const uint8_t *low[Z4_MAX_PLANES]; /* low bytes at the current element */
    const uint8_t *packed;             /* remainders, or NULL: `rest` */
    const uint8_t *rest;               /* remainders one a byte */
} z4_symbols_sides;

/* Have the pages of the next tile on their way while the symbols of this one are restored. */
Z4_INLINE void z4_fetch_symbols(const uint8_t *content, size_t nbytes, const uint8_t *packed, size_t packed_nbytes)
{
    for (size_t i = 0; i < nbytes; i += 64)
        z4_prefetch(content + i);
    if (packed != NULL)
        for (size_t i = 0; i < packed_nbytes; i += 64)
            z4_prefetch(packed + i);
}

static int z4_decode_symbols(const z4_kernels *k, z4_chunk_job *job, const z4_model *m, const uint8_t *encoded,
                             uint8_t *content, z4_decode_scratch *scratch, z4_symbols_scratch *s, z4_xxh3_state *hash)
{
    const int kind = job->layout - Z4_SYMBOLS_FIRST, windowed = z4_symbols_field_bits(kind) > 8;
    const size_t width = z4_symbols_width(kind), n = job->content_nbytes / width;
    const size_t block = z4_tile(width);
    const uint64_t first = job->seed / width;
    const uint8_t *const stream = encoded + job->stream_offset[0];
    const uint8_t *raw, *rare;
    size_t n_raw = job->n_raw, n_rare = job->n_rare;
    int status = z4_symbols_check(job, m, n);
    if (status == Z4_OK)
        status = z4_symbols_begin(k, job, m, first, n, stream, s);
    if (status != Z4_OK)
        return status;
    /* Not before: the sizes were not checked, and without a model there is no scratch. */
    raw = stream + job->rows_nbytes + job->rare_nbytes;
    rare = s->rare;
    for (size_t p = 1; p < width; p++) {
        const uint8_t *src = encoded + job->stream_offset[p];
        job->stream = (uint8_t)p;
        if (job->stream_codec[p] == Z4_CODEC_CONSTANT)
            memset(scratch->tile[p], src[0], n < block ? n : block);
        else if (job->stream_codec[p] == Z4_CODEC_ZSTD &&
                 (status = z4_lit_begin(&scratch->zstd[p], src, job->stream_nbytes[p], n)) != Z4_OK)
            return status;
        scratch->zstd[p].fetch = NULL;
    }
    const uint8_t *rows = s->rows;
    for (size_t base = 0; base < n; base += block) {
        const size_t m_block = n - base < block ? n - base : block;
        z4_symbols_sides sides;
        sides.packed = NULL;
        sides.rest = NULL;
        for (size_t p = 1; p < width; p++) {
            const uint8_t *at = scratch->tile[p];
            const uint8_t codec = job->stream_codec[p];
            const uint8_t *src = encoded + job->stream_offset[p];
            job->stream = (uint8_t)p;
            if (codec == Z4_CODEC_ZSTD) {
                const ptrdiff_t got =
                    z4_lit_block(k->literals, &scratch->zstd[p], scratch->tile[p], m_block, Z4_TILE_SLACK);
                if (got != (ptrdiff_t)m_block)
                    return got < 0 && got != Z4_CAPACITY ? (int)got : Z4_UNSUPPORTED;
            } else if (codec == Z4_CODEC_PLAIN || (codec == Z4_CODEC_STORE && p > 1)) {
                at = src + base;
            }
            if (p > 1)
                sides.low[p - 2] = at;
            else if (codec == Z4_CODEC_STORE)
                sides.packed = src + z4_symbols_packed_nbytes(kind, base); /* base: whole groups of 64 */
            else
                sides.rest = at;
        }
        job->stream = 0;
        for (size_t i = 0; i < m_block; i += Z4_SYMBOLS_TILE) {
            const size_t t = m_block - i < Z4_SYMBOLS_TILE ? m_block - i : Z4_SYMBOLS_TILE;
            uint8_t *dst = content + (base + i) * width, *symbols = width == 1 ? dst : s->symbols;
            z4_fetch_symbols(dst, t * width, sides.packed, z4_symbols_packed_nbytes(kind, t));
            if (m->count > 1) {
                const uint64_t e = first + base + i;
                z4_contexts_of(k->symbols, m, m->has & Z4_MODEL_ROWS ? rows + (e / m->period - first / m->period) : NULL,
                               e, t, s->contexts);
            }
            status = z4_rans_next_known(k->rans, &s->coder, m->count > 1 ? s->contexts : NULL, t, symbols);
            if (status != Z4_OK)
                return status;
            if (m->has & Z4_MODEL_RARE) {
                const ptrdiff_t taken = z4_rans_put_back(symbols, t, m->escape, rare, n_rare);
                if (taken < 0)
                    return Z4_CORRUPT;
                rare += taken;
                n_rare -= (size_t)taken;
            }
            if (sides.packed != NULL)
                k->symbols->merge_packed[kind](symbols, sides.packed, sides.low, t, m->base, dst);
            else if (width > 1)
                k->symbols->merge[kind](symbols, sides.rest, sides.low, t, m->base, dst);
            if (windowed) {
                const ptrdiff_t taken = z4_put_raw(kind, symbols, t, raw, n_raw, dst);
                if (taken < 0)
                    return Z4_CORRUPT;
                raw += 2 * taken;
                n_raw -= (size_t)taken;
            }
            if (job->swap)
                z4_swap_elements(k, width, dst, t, dst);
            for (size_t p = 2; p < width; p++)
                sides.low[p - 2] += t;
            if (sides.packed != NULL)
                sides.packed += z4_symbols_packed_nbytes(kind, t);
            else if (sides.rest != NULL)
                sides.rest += t;
            z4_xxh3_advance(k->xxh3, hash, content, (base + i + t) * width);
        }
    }
    for (size_t p = 1; p < width; p++)
        if (job->stream_codec[p] == Z4_CODEC_ZSTD && (status = z4_decode_end(k, &scratch->zstd[p])) != Z4_OK) {
            job->stream = (uint8_t)p;
            return status;
        }
    return n_raw == 0 && n_rare == 0 ? z4_rans_end(&s->coder) : Z4_CORRUPT;
}

#endif
