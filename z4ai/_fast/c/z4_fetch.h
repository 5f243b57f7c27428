/* z4_fetch.h -- chunks of a file into memory by the worker that decodes them: read in parallel, and still in its cache
 * when they are looked at. Where there is no pread() nothing can be fetched. */
#ifndef Z4_FETCH_H
#define Z4_FETCH_H

#include "z4_chunk.h"
#include "z4_status.h"

#if !defined(_WIN32)
#define Z4_CAN_FETCH 1
#include <errno.h>
#include <sys/types.h>
#include <unistd.h>
#else
#define Z4_CAN_FETCH 0
#endif

/* The place of a chunk that is in memory already. */
#define Z4_FETCHED UINT64_MAX

typedef struct {
    int fd;
    const uint64_t *places; /* in the file, of each job's chunk; NULL: all are in memory */
    uint8_t *into;          /* the encoded buffer */
    size_t nbytes;
    int error; /* errno of a read that failed; of several, any */
} z4_fetch;

/* Bring the chunk of job i to its place in the encoded buffer; -> Z4_OK, or Z4_MISSING if the file ends before or
 * cannot be read. */
static int z4_fetch_chunk(z4_fetch *f, size_t i, const z4_chunk_job *job)
{
    if (f->places == NULL || f->places[i] == Z4_FETCHED)
        return Z4_OK;
    if (job->encoded_offset > f->nbytes || job->encoded_nbytes > f->nbytes - job->encoded_offset)
        return Z4_MISSING;
#if Z4_CAN_FETCH
    for (uint64_t done = 0; done < job->encoded_nbytes;) {
        const ssize_t got = pread(f->fd, f->into + job->encoded_offset + done, (size_t)(job->encoded_nbytes - done),
                                  (off_t)(f->places[i] + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            f->error = errno;
        if (got <= 0)
            return Z4_MISSING;
        done += (uint64_t)got;
    }
    return Z4_OK;
#else
    return Z4_MISSING;
#endif
}

#endif
