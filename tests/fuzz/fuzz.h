/* fuzz.h -- what the targets share.
 *
 * Every buffer that a kernel gets is a fresh allocation of exactly the size it was promised, so that the sanitizer
 * sees the first byte read or written outside it. */
#ifndef Z4_FUZZ_H
#define Z4_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "z4_cpu.h"
#include "z4_portable.h"
#include "z4_status.h"

#define Z4_FUZZ_CHECK(truth)                                                                                         \
    do {                                                                                                             \
        if (!(truth)) {                                                                                              \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #truth);                                      \
            abort();                                                                                                 \
        }                                                                                                            \
    } while (0)

static inline void *z4_fuzz_alloc(size_t nbytes)
{
    void *p = malloc(nbytes ? nbytes : 1);
    Z4_FUZZ_CHECK(p != NULL);
    return p;
}

static inline uint8_t *z4_fuzz_copy(const uint8_t *data, size_t nbytes)
{
    uint8_t *p = z4_fuzz_alloc(nbytes);
    if (nbytes)
        memcpy(p, data, nbytes);
    return p;
}

/* Scratch of a megabyte costs more to make than an input takes to decode: made once, and filled with rubbish. */
static inline void *z4_fuzz_scratch(void **kept, size_t nbytes)
{
    if (*kept == NULL)
        *kept = z4_fuzz_alloc(nbytes);
    memset(*kept, 0xA5, nbytes < 65536 ? nbytes : 65536);
    return *kept;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t nbytes);

#ifdef Z4_FUZZ_REPLAY
/* Without a fuzzer: run the files named, one after the other. */
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        Z4_FUZZ_CHECK(file != NULL);
        fseek(file, 0, SEEK_END);
        const size_t nbytes = (size_t)ftell(file);
        uint8_t *data = z4_fuzz_alloc(nbytes);
        rewind(file);
        Z4_FUZZ_CHECK(fread(data, 1, nbytes, file) == nbytes);
        fclose(file);
        LLVMFuzzerTestOneInput(data, nbytes);
        free(data);
    }
    printf("%d replayed\n", argc - 1);
    return 0;
}
#endif

#endif
