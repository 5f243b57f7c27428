/* z4_chunk_run.h -- many chunks by several workers.
 *
 * Workers claim jobs in rising order from a counter, so the jobs in flight are always neighbours. A decoder knows
 * where each job goes; an encoder does not until its predecessor is done: it codes into scratch of its own unless
 * its turn has already come, waits for its turn, and copies. The bytes come out the same for any number of workers.
 */
#ifndef Z4_CHUNK_RUN_H
#define Z4_CHUNK_RUN_H

#include "z4_chunk_decode.h"
#include "z4_chunk_encode.h"

#if defined(_WIN32)
#include <windows.h>
#define z4_yield() SwitchToThread()
#else
#include <sched.h>
#define z4_yield() sched_yield()
#endif

#if defined(__GNUC__) || defined(__clang__)
#define z4_fetch_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_ACQ_REL)
#define z4_load_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
#define z4_store_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
#else
#define z4_fetch_add(p, v) ((size_t)_InterlockedExchangeAdd64((volatile __int64 *)(p), (v)))
#define z4_load_acquire(p) (*(volatile size_t *)(p))
#define z4_store_release(p, v) (*(volatile size_t *)(p) = (v))
#endif

typedef struct {
    z4_kernels kernels;
    z4_chunk_job *jobs;
    size_t last; /* one past the last job of this run */
    const uint8_t *encoded;
    size_t encoded_nbytes;
    uint8_t *content;
    size_t content_nbytes;
    size_t next; /* atomic: the job to claim */
} z4_decode_run;

static void z4_decode_worker(z4_decode_run *run, z4_decode_scratch *scratch)
{
    for (size_t i; (i = z4_fetch_add(&run->next, 1)) < run->last;)
        z4_decode_chunk(&run->kernels, &run->jobs[i], run->encoded, run->encoded_nbytes, run->content,
                        run->content_nbytes, scratch);
}

typedef struct {
    z4_kernels kernels;
    z4_chunk_job *jobs;
    size_t last;
    const uint8_t *content;
    uint8_t *out;
    size_t capacity;
    size_t gap, gap_stream;
    size_t next;   /* atomic: the job to claim */
    size_t placed; /* atomic: jobs before this one have their place and their size */
    size_t end;    /* where job `placed` begins in out; belongs to its worker */
} z4_encode_run;

/* One worker. slot: room for one encoded chunk of any job, or NULL if there is a single worker. */
static void z4_encode_worker(z4_encode_run *run, z4_encode_scratch *scratch, uint8_t *planes, uint8_t *slot,
                             size_t slot_nbytes)
{
    for (size_t i; (i = z4_fetch_add(&run->next, 1)) < run->last;) {
        z4_chunk_job *job = &run->jobs[i];
        const int my_turn = slot == NULL || z4_load_acquire(&run->placed) == i;
        const size_t width = z4_layout_width(job->layout);
        const size_t bound = z4_encode_bound(job->content_nbytes, width, run->gap, run->gap_stream);
        if (my_turn) {
            const size_t room = run->capacity - run->end;
            job->encoded_offset = run->end + job->lead;
            if (bound > room || job->lead > room - bound) {
                job->status = Z4_CAPACITY;
                job->encoded_nbytes = 0;
            } else {
                z4_encode_chunk(&run->kernels, job, run->content, run->out + job->encoded_offset, bound,
                                run->gap, run->gap_stream, scratch, planes);
            }
        } else {
            job->encoded_offset = 0;
            z4_encode_chunk(&run->kernels, job, run->content, slot, slot_nbytes, run->gap, run->gap_stream, scratch,
                            planes);
            for (unsigned spins = 0; z4_load_acquire(&run->placed) != i; spins++)
                if (spins > 64)
                    z4_yield();
            if (job->status == Z4_OK && job->lead + job->encoded_nbytes > run->capacity - run->end)
                job->status = Z4_CAPACITY;
            if (job->status == Z4_OK) {
                job->encoded_offset = run->end + job->lead;
                job->tail_offset += job->encoded_offset;
                for (size_t p = 0; p < job->n_streams; p++)
                    job->stream_offset[p] += job->encoded_offset;
            }
        }
        if (job->status == Z4_OK)
            run->end = job->encoded_offset + job->encoded_nbytes;
        /* The place of the next chunk is known: let its worker go on while this one still copies. */
        z4_store_release(&run->placed, i + 1);
        if (!my_turn && job->status == Z4_OK)
            memcpy(run->out + job->encoded_offset, slot, job->encoded_nbytes);
    }
}

#endif
