/* The decoder of literals-only Zstandard frames. Input: slack (1 byte), content size (3 bytes), the frame.
 *
 * Every variant must give the same status and the same bytes, and touch nothing outside its buffers. */
#include "fuzz.h"
#include "z4_literals.h"

static ptrdiff_t decode(int isa, const uint8_t *frame, size_t nbytes, size_t content_nbytes, size_t slack, uint8_t *dst)
{
    z4_lit_decoder *d = z4_fuzz_alloc(sizeof *d);
    ptrdiff_t status = z4_lit_begin(d, frame, nbytes, content_nbytes);
    size_t done = 0;
    while (status == Z4_OK) {
        const ptrdiff_t m = z4_lit_block(z4_literals_pick(isa), d, dst + done, content_nbytes - done, slack);
        if (m < 0)
            status = m;
        if (m <= 0)
            break;
        Z4_FUZZ_CHECK((size_t)m <= content_nbytes - done);
        done += (size_t)m;
    }
    if (status == Z4_OK)
        status = z4_lit_end(d);
    Z4_FUZZ_CHECK(status != Z4_OK || done == content_nbytes);
    free(d);
    return status;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes)
{
    uint8_t *first = NULL, *frame;
    ptrdiff_t status = 0;
    size_t content_nbytes, slack;
    if (nbytes < 4)
        return 0;
    slack = data[0] & 63;
    content_nbytes = (data[1] | (size_t)data[2] << 8 | (size_t)data[3] << 16) & 0x7FFFF;
    frame = z4_fuzz_copy(data + 4, nbytes - 4);
    for (int isa = 0; isa < Z4_ISA_COUNT; isa++) {
        uint8_t *dst;
        ptrdiff_t found;
        if (!z4_cpu_runs(isa))
            continue;
        dst = z4_fuzz_alloc(content_nbytes + slack);
        found = decode(isa, frame, nbytes - 4, content_nbytes, slack, dst);
        if (first == NULL) {
            first = dst;
            status = found;
            continue;
        }
        Z4_FUZZ_CHECK(found == status);
        Z4_FUZZ_CHECK(status != Z4_OK || memcmp(first, dst, content_nbytes) == 0);
        free(dst);
    }
    free(first);
    free(frame);
    return 0;
}
