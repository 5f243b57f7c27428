/* The fused decoder of a chunk. Input: layout and byte order (1 byte), content size (3 bytes), for each stream
 * its codec (1 byte) and size (2 bytes), then the streams.
 *
 * Every variant must give the same status and stream, and, if only the checksum is wrong, the same content. */
#include "fuzz.h"
#include "z4_chunk_decode.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    z4_chunk_job job, first_job;
    const z4_reference none = {NULL, 0};
    uint8_t *first = NULL, *encoded;
    size_t width, at = 0;
    static void *kept;
    z4_decode_scratch *scratch;
    if (nbytes < 4)
        return 0;
    memset(&job, 0, sizeof job);
    memset(&first_job, 0, sizeof first_job);
    job.layout = data[0] & 15;
    job.swap = data[0] >> 4 & 1;
    job.content_nbytes = (data[1] | (uint64_t)data[2] << 8 | (uint64_t)data[3] << 16) & 0x7FFFF;
    width = z4_transform_known(job.layout) ? z4_transform_width(job.layout) : 1;
    job.n_streams = (uint8_t)(data[0] >> 5 == 7 ? 9 : width);
    data += 4;
    nbytes -= 4;
    if (nbytes < 3 * width)
        return 0;
    for (size_t p = width; p-- > 0;) {
        job.stream_codec[p] = data[3 * p];
        job.stream_nbytes[p] = (uint32_t)(data[3 * p + 1] | data[3 * p + 2] << 8);
        job.stream_offset[p] = at;
        at += job.stream_nbytes[p];
    }
    job.tail_offset = at;
    data += 3 * width;
    nbytes -= 3 * width;
    encoded = z4_fuzz_copy(data, nbytes);
    scratch = z4_fuzz_scratch(&kept, sizeof *scratch);
    for (int isa = 0; isa < Z4_ISA_COUNT; isa++) {
        const z4_kernels kernels = z4_kernels_pick(isa);
        uint8_t *content;
        z4_chunk_job mine = job;
        if (!z4_cpu_runs(isa))
            continue;
        content = z4_fuzz_alloc(job.content_nbytes);
        z4_decode_chunk(&kernels, &mine, NULL, encoded, nbytes, none, content, job.content_nbytes, scratch, NULL);
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
    return 0;
}
