/* The encoder of literals-only Zstandard frames. Input: size of a block (1 byte), a number of times (1 byte), content
 * that is taken so often.
 *
 * Every variant must write the same bytes within the bound, and every variant must read them back. */
#include "fuzz.h"
#include "z4_literals.h"

static void decode(int isa, const uint8_t *frame, size_t nbytes, const uint8_t *content, size_t content_nbytes)
{
    z4_lit_decoder *d = z4_fuzz_alloc(sizeof *d);
    uint8_t *dst = z4_fuzz_alloc(content_nbytes), *copy = z4_fuzz_copy(frame, nbytes);
    size_t done = 0;
    ptrdiff_t m;
    Z4_FUZZ_CHECK(z4_lit_begin(d, copy, nbytes, content_nbytes) == Z4_OK);
    while ((m = z4_lit_block(z4_literals_pick(isa), d, dst + done, content_nbytes - done, 0)) > 0)
        done += (size_t)m;
    Z4_FUZZ_CHECK(m == 0 && done == content_nbytes && z4_lit_end(d) == Z4_OK);
    Z4_FUZZ_CHECK(content_nbytes == 0 || memcmp(dst, content, content_nbytes) == 0);
    free(copy);
    free(dst);
    free(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    uint8_t *content, *first = NULL;
    size_t times, total, bound, block;
    ptrdiff_t first_nbytes = 0;
    if (nbytes < 2)
        return 0;
    block = Z4_LIT_BLOCK_LEAST + (size_t)data[0] * (Z4_LIT_BLOCK - Z4_LIT_BLOCK_LEAST) / 255;
    times = data[1] < 128 ? 1 : (size_t)(data[1] - 127) * 8;
    nbytes -= 2;
    data += 2;
    total = nbytes * times;
    if (total > (size_t)400000)
        return 0;
    content = z4_fuzz_alloc(total);
    for (size_t i = 0; i < times && nbytes; i++)
        memcpy(content + i * nbytes, data, nbytes);
    bound = z4_lit_bound(total, block);
    for (int isa = 0; isa < Z4_ISA_COUNT; isa++) {
        z4_lit_encoder *scratch;
        uint8_t *dst;
        ptrdiff_t found;
        if (!z4_cpu_runs(isa))
            continue;
        scratch = z4_fuzz_alloc(sizeof *scratch);
        dst = z4_fuzz_alloc(bound);
        found = z4_lit_encode(z4_literals_pick(isa), content, total, block, dst, bound, scratch);
        Z4_FUZZ_CHECK(found > 0 && (size_t)found <= bound);
        decode(isa, dst, (size_t)found, content, total);
        free(scratch);
        if (first == NULL) {
            first = dst;
            first_nbytes = found;
            continue;
        }
        Z4_FUZZ_CHECK(found == first_nbytes && memcmp(first, dst, (size_t)found) == 0);
        free(dst);
    }
    free(first);
    free(content);
    return 0;
}
