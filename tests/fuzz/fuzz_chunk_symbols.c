/* The decoder of a chunk of symbols, with a model of its own. Input, numbers little-endian:
 *
 *     1  transform of symbols, byte order << 3, tables by hand << 4
 *     1  what the model has, shift << 3
 *     1  escape
 *     2  base
 *     2  period
 *     3  content size
 *     4  seed: where the chunk begins
 *     8  sizes of the classes of rows and of the rare symbols, n_rare, n_raw (2 each)
 *     6  sizes of the tables of symbols, of the rare symbols, of the classes (2 each)
 *     1  columns: their classes repeat after so many, which follow the tables
 *     3  for each stream: codec (1), size (2)
 *
 * then the tables (see fuzz_model.h), the classes, and the streams from the last to the first.
 *
 * Every variant must give the same status and stream, and, if only the checksum is wrong, the same content. */
#include "fuzz_model.h"
#include "z4_chunk_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static void *kept, *kept_symbols;
    z4_chunk_job job, first_job;
    const z4_reference none = {NULL, 0};
    z4_model head, *m;
    reader r = {data, nbytes};
    uint8_t *first = NULL, *encoded;
    size_t tables[3], columns, width, at = 0;
    int by_hand;
    memset(&job, 0, sizeof job);
    memset(&first_job, 0, sizeof first_job);
    memset(&head, 0, sizeof head);
    by_hand = (int)take(&r, 1);
    job.layout = (uint8_t)(Z4_SYMBOLS_FIRST + (by_hand & 7) % Z4_SYMBOLS_COUNT);
    job.swap = by_hand >> 3 & 1;
    by_hand = by_hand >> 4 & 1;
    head.has = (uint8_t)take(&r, 1);
    head.shift = head.has >> 3 & 7;
    head.has &= Z4_MODEL_ROWS | Z4_MODEL_COLUMNS | Z4_MODEL_RARE;
    head.escape = (uint8_t)take(&r, 1);
    head.base = (uint16_t)take(&r, 2);
    head.period = (uint32_t)take(&r, 2);
    job.content_nbytes = take(&r, 3) & 0x7FFFF;
    job.seed = take(&r, 4);
    job.rows_nbytes = (uint32_t)take(&r, 2);
    job.rare_nbytes = (uint32_t)take(&r, 2);
    job.n_rare = (uint16_t)take(&r, 2);
    job.n_raw = (uint16_t)take(&r, 2);
    for (int part = 0; part < 3; part++)
        tables[part] = (size_t)take(&r, 2);
    columns = (size_t)take(&r, 1);
    width = z4_transform_width(job.layout);
    job.n_streams = (uint8_t)width;
    for (size_t p = width; p-- > 0;) {
        job.stream_codec[p] = (uint8_t)take(&r, 1);
        job.stream_nbytes[p] = (uint32_t)take(&r, 2);
        job.stream_offset[p] = at;
        at += job.stream_nbytes[p];
    }
    job.tail_offset = at;
    m = model_of(&r, &head, tables, by_hand, columns);
    if (m == NULL)
        return 0;
    encoded = z4_fuzz_copy(r.at, r.left);
    for (int isa = 0; isa < Z4_ISA_COUNT; isa++) {
        const z4_kernels kernels = z4_kernels_pick(isa);
        z4_decode_scratch *scratch;
        z4_symbols_scratch *symbols;
        uint8_t *content;
        z4_chunk_job mine = job;
        if (!z4_cpu_runs(isa))
            continue;
        scratch = z4_fuzz_scratch(&kept, sizeof *scratch);
        symbols = z4_fuzz_scratch(&kept_symbols, sizeof *symbols);
        symbols->model = NULL;
        content = z4_fuzz_alloc(job.content_nbytes);
        z4_decode_chunk(&kernels, &mine, m, encoded, r.left, none, content, job.content_nbytes, scratch, symbols);
        if (first == NULL) {
            first = content;
            first_job = mine;
            continue;
        }
        Z4_FUZZ_CHECK(mine.status == first_job.status && mine.stream == first_job.stream);
        Z4_FUZZ_CHECK((mine.status != Z4_OK && mine.status != Z4_CHECKSUM) ||
                      memcmp(first, content, job.content_nbytes) == 0);
        free(content);
    }
    free(first);
    free(encoded);
    free(m);
    return 0;
}
