/* The fused encoder of a chunk. Input: two layouts and byte order (1 byte), a number of times (1 byte), content that
 * is taken so often.
 *
 * Every variant must write the same chunk within the bound, and every variant must read it back. */
#include "fuzz.h"
#include "z4_chunk_decode.h"
#include "z4_chunk_encode.h"

enum { GAP = 20, GAP_STREAM = 5 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    static const uint8_t layouts[8][2] = {{0, 0}, {1, 1}, {2, 2}, {3, 3}, {4, 4}, {5, 5}, {6, 6}, {4, 1}};
    static void *kept, *back_kept;
    z4_chunk_job job, first_job;
    const z4_reference none = {NULL, 0};
    uint8_t *content, *first = NULL;
    size_t times, total, bound;
    if (nbytes < 3)
        return 0;
    memset(&job, 0, sizeof job);
    memset(&first_job, 0, sizeof first_job);
    job.layout = layouts[data[0] & 7][0];
    job.other_layout = layouts[data[0] & 7][1];
    job.swap = data[0] >> 3 & 1;
    times = data[1] < 128 ? 1 : (size_t)(data[1] - 127) * 16;
    data += 2;
    nbytes -= 2;
    total = nbytes * times;
    if (total > (size_t)100000)
        return 0;
    content = z4_fuzz_alloc(total);
    for (size_t i = 0; i < times; i++)
        memcpy(content + i * nbytes, data, nbytes);
    job.content_nbytes = total;
    job.seed = 3;
    bound = z4_encode_bound(total, job.layout, GAP, GAP_STREAM);
    for (int isa = 0; isa < Z4_ISA_COUNT; isa++) {
        const z4_kernels kernels = z4_kernels_pick(isa);
        z4_encode_scratch *scratch;
        z4_decode_scratch *back_scratch;
        uint8_t *out, *planes, *back, *exact;
        z4_chunk_job mine = job, read;
        if (!z4_cpu_runs(isa))
            continue;
        scratch = z4_fuzz_scratch(&kept, sizeof *scratch);
        planes = z4_fuzz_alloc(z4_encode_planes_nbytes(total, job.layout));
        out = z4_fuzz_alloc(bound);
        memset(out, 0, bound);
        z4_encode_chunk(&kernels, &mine, NULL, content, none, out, bound, GAP, GAP_STREAM, scratch, NULL, planes);
        Z4_FUZZ_CHECK(mine.status == Z4_OK && mine.encoded_nbytes <= GAP + GAP_STREAM + total);
        free(planes);
        exact = z4_fuzz_copy(out, mine.encoded_nbytes);
        back_scratch = z4_fuzz_scratch(&back_kept, sizeof *back_scratch);
        back = z4_fuzz_alloc(total);
        read = mine;
        z4_decode_chunk(&kernels, &read, NULL, exact, mine.encoded_nbytes, none, back, total, back_scratch, NULL);
        Z4_FUZZ_CHECK(read.status == Z4_OK && memcmp(back, content, total) == 0);
        free(back);
        free(out);
        if (first == NULL) {
            first = exact;
            first_job = mine;
            continue;
        }
        Z4_FUZZ_CHECK(memcmp(&mine, &first_job, sizeof mine) == 0);
        for (size_t i = GAP + GAP_STREAM * mine.n_streams; i < mine.encoded_nbytes; i++)
            Z4_FUZZ_CHECK(first[i] == exact[i]);
        free(exact);
    }
    free(first);
    free(content);
    return 0;
}
