/* The decoder of a chunk of differences, with a model and a reference of its own. Input, numbers little-endian:
 *
 *     1  width of elements (log2), same << 2, tables by hand << 3, the reference as short as it is << 4, its sign << 5
 *     1  what the model has, shift << 4
 *     1  escape
 *     1  bits of a magnitude below its class
 *     2  top
 *     2  period
 *     3  content size
 *     4  seed: where the chunk begins
 *     8  sizes of the classes of rows and of the rare symbols, n_rare, n_raw (2 each)
 *     6  sizes of the tables of symbols, of the rare symbols, of the classes (2 each)
 *     2  size of the reference, which is repeated as often as the content needs
 *     4  sizes of the bits apart and of the symbols (2 each)
 *
 * then the tables (see fuzz_model.h), the reference, the bits apart, the symbols, the tail.
 *
 * Every variant must give the same status and stream, and, if only the checksum is wrong, the same content. Content that
 * was decoded is encoded again, as it is, and must come back. */
#include "fuzz_model.h"
#include "z4_chunk_decode.h"
#include "z4_chunk_encode.h"

enum { GAP = 20, GAP_STREAM = 5 };

/* Encode content beside a reference by the same model, and decode it. */
static void there_and_back(const z4_kernels *kernels, const z4_chunk_job *like, const z4_model *m,
                           z4_reference reference, const uint8_t *content, z4_decode_scratch *scratch,
                           z4_symbols_scratch *symbols)
{
    static void *kept, *kept_symbols;
    const int layouts[] = {Z4_LAYOUT_BYTES1, Z4_LAYOUT_FLOAT2, Z4_LAYOUT_FLOAT4, Z4_LAYOUT_FLOAT8};
    const size_t nbytes = like->content_nbytes, bound = z4_encode_bound(nbytes, like->layout, GAP, GAP_STREAM);
    z4_encode_scratch *encoder = z4_fuzz_scratch(&kept, sizeof *encoder);
    z4_symbols_encoder *coder = z4_fuzz_scratch(&kept_symbols, sizeof *coder);
    uint8_t *out = z4_fuzz_alloc(bound), *back = z4_fuzz_alloc(nbytes), *exact;
    uint8_t *planes = z4_fuzz_alloc(z4_encode_planes_nbytes(nbytes, like->layout));
    z4_chunk_job job, read;
    memset(&job, 0, sizeof job);
    job.content_nbytes = nbytes;
    job.seed = like->seed;
    job.layout = like->layout;
    job.planes = job.other_layout = (uint8_t)layouts[like->layout - Z4_DIFFERENCE_FIRST];
    coder->model = NULL;
    z4_encode_chunk(kernels, &job, m, content, reference, out, bound, GAP, GAP_STREAM, encoder, coder, planes);
    Z4_FUZZ_CHECK(job.status == Z4_OK && job.encoded_nbytes <= bound);
    exact = z4_fuzz_copy(out, job.encoded_nbytes);
    read = job;
    z4_decode_chunk(kernels, &read, m, exact, job.encoded_nbytes, reference, back, nbytes, scratch, symbols);
    Z4_FUZZ_CHECK(read.status == Z4_OK && memcmp(back, content, nbytes) == 0);
    free(exact);
    free(planes);
    free(back);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static void *kept, *kept_symbols;
    z4_chunk_job job, first_job;
    z4_reference reference;
    z4_model head, *m;
    reader r = {data, nbytes};
    uint8_t *first = NULL, *encoded, *beside;
    size_t tables[3], seen;
    const int what = (int)take(&r, 1);
    memset(&job, 0, sizeof job);
    memset(&first_job, 0, sizeof first_job);
    memset(&head, 0, sizeof head);
    job.layout = (uint8_t)(what >> 2 & 1 ? Z4_SAME : Z4_DIFFERENCE_FIRST + (what & 3));
    head.difference = 1;
    head.octave = 2;
    head.most = 127;
    head.has = (uint8_t)take(&r, 1);
    head.shift = head.has >> 4 & 7;
    head.has &= Z4_MODEL_ROWS | Z4_MODEL_RARE | Z4_MODEL_FLOATS;
    head.escape = (uint8_t)take(&r, 1);
    head.below = (uint8_t)take(&r, 1);
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
    seen = (size_t)take(&r, 2);
    job.stream_nbytes[1] = (uint32_t)take(&r, 2);
    job.stream_nbytes[0] = (uint32_t)take(&r, 2);
    job.stream_offset[0] = job.stream_nbytes[1];
    job.stream_codec[0] = Z4_CODEC_CONTEXTS;
    job.n_streams = job.layout == Z4_SAME ? 0 : 2;
    job.tail_offset = job.layout == Z4_SAME ? 0 : job.stream_offset[0] + job.stream_nbytes[0];
    m = model_of(&r, &head, tables, what >> 3 & 1, 0);
    if (m == NULL)
        return 0;
    seen = seen < r.left ? seen : r.left;
    reference.nbytes = what >> 4 & 1 ? seen : job.content_nbytes;
    beside = z4_fuzz_alloc(reference.nbytes);
    for (size_t i = 0; i < reference.nbytes; i++)
        beside[i] = (uint8_t)((seen == 0 ? 0 : r.at[i % seen]) ^ (what >> 5 & 1 ? i / 7 : 0));
    reference.at = beside;
    r.at += seen;
    r.left -= seen;
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
        z4_decode_chunk(&kernels, &mine, m, encoded, r.left, reference, content, job.content_nbytes, scratch, symbols);
        if ((mine.status == Z4_OK || mine.status == Z4_CHECKSUM) && job.layout != Z4_SAME) {
            symbols->model = NULL;
            there_and_back(&kernels, &job, m, reference, content, scratch, symbols);
        }
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
    free(beside);
    free(m);
    return 0;
}
