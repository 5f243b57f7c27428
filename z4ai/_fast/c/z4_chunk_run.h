/* z4_chunk_run.h -- many chunks by several workers.
 *
 * Workers claim jobs in rising order from a counter, so the jobs in flight are always neighbours. A decoder knows
 * where each job goes; an encoder does not until its predecessor is done. It codes to its place if that is known by
 * then, else into a slot of its own, and goes on; a chunk is copied from its slot when its turn has come. Only a
 * worker whose slots are all taken waits. The bytes come out the same for any number of workers.
 */
#ifndef Z4_CHUNK_RUN_H
#define Z4_CHUNK_RUN_H

#include "z4_chunk_decode.h"
#include "z4_chunk_encode.h"
#include "z4_fetch.h"

#if defined(_WIN32)
#include <windows.h>
#define z4_nap() Sleep(0)
#else
#include <time.h>
static void z4_nap(void)
{
    /* Not sched_yield(): on a busy machine that gives a whole time slice away. */
    const struct timespec moment = {0, 20000};
    (void)nanosleep(&moment, NULL);
}
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
    const z4_model *const *models; /* job->model - 1: number in this list */
    size_t last;                   /* one past the last job of this run */
    const uint8_t *encoded;
    size_t encoded_nbytes;
    z4_fetch fetch;
    z4_reference reference;
    uint8_t *content;
    size_t content_nbytes;
    size_t share; /* jobs claimed at a time */
    size_t next;  /* atomic: the job to claim */
} z4_decode_run;

Z4_INLINE const z4_model *z4_model_of(const z4_model *const *models, const z4_chunk_job *job)
{
    return job->model == 0 ? NULL : models[job->model - 1];
}

/* One worker. symbols: its scratch, or NULL if no job has a model. */
static void z4_decode_worker(z4_decode_run *run, z4_decode_scratch *scratch, z4_symbols_scratch *symbols)
{
    if (symbols != NULL)
        symbols->model = NULL;
    for (size_t first; (first = z4_fetch_add(&run->next, run->share)) < run->last;) {
        const size_t end = run->last - first < run->share ? run->last : first + run->share;
        for (size_t i = first; i < end; i++) {
            z4_chunk_job *const job = &run->jobs[i];
            job->status = (int8_t)z4_fetch_chunk(&run->fetch, i, job);
            if (job->status == Z4_OK)
                z4_decode_chunk(&run->kernels, job, z4_model_of(run->models, job), run->encoded, run->encoded_nbytes,
                                run->reference, run->content, run->content_nbytes, scratch, symbols);
        }
    }
}

/* Jobs to claim at a time: neighbours share huge pages of a fresh output, and two workers that touch one at the
 * same moment have it cleared twice. So several, as long as each worker still gets a number of shares. */
Z4_INLINE size_t z4_decode_share(size_t n_jobs, size_t n_workers)
{
    const size_t share = n_jobs / (4 * n_workers);
    return share < 1 ? 1 : share > 4 ? 4 : share;
}

typedef struct {
    z4_kernels kernels;
    z4_chunk_job *jobs;
    const z4_model *const *models;
    size_t last;
    const uint8_t *content;
    z4_reference reference;
    uint8_t *out;
    size_t capacity;
    size_t gap, gap_stream;
    size_t next;   /* atomic: the job to claim */
    size_t placed; /* atomic: jobs before this one have their place and their size */
    size_t end;    /* where job `placed` begins in out; belongs to its worker */
} z4_encode_run;

/* Encoded chunks that a worker may hold back until their turn comes. */
#define Z4_SLOTS 3

typedef struct {
    uint8_t *slot[Z4_SLOTS]; /* room for one encoded chunk of any job */
    size_t slot_nbytes;
    size_t job[Z4_SLOTS]; /* rising; the chunk of job[k] lies in slot[k] */
    size_t n;             /* held back */
} z4_held;

Z4_INLINE int z4_is_turn(const z4_encode_run *run, size_t i) { return z4_load_acquire(&run->placed) == i; }

/* It is the turn of job i, whose chunk has been coded as if it began at byte 0 of `slot`: give it its place. */
static void z4_place(z4_encode_run *run, size_t i, const uint8_t *slot)
{
    z4_chunk_job *job = &run->jobs[i];
    const size_t room = run->capacity - run->end;
    if (job->status == Z4_OK && (job->lead > room || job->encoded_nbytes > room - job->lead))
        job->status = Z4_CAPACITY;
    if (job->status == Z4_OK) {
        job->encoded_offset = run->end + job->lead;
        job->tail_offset += job->encoded_offset;
        for (size_t p = 0; p < job->n_streams; p++)
            job->stream_offset[p] += job->encoded_offset;
        run->end = job->encoded_offset + job->encoded_nbytes;
    }
    /* Have fresh pages mapped by one worker: two at the same huge page would both clear it. */
    if (job->status == Z4_OK)
        run->out[run->end - 1] = 0;
    /* The place of the next chunk is known: let its worker go on while this one copies. */
    z4_store_release(&run->placed, i + 1);
    if (job->status == Z4_OK)
        memcpy(run->out + job->encoded_offset, slot, job->encoded_nbytes);
}

/* Place what is held back, the oldest first: as long as its turn has come, and until `most` are left. */
static void z4_place_held(z4_encode_run *run, z4_held *held, size_t most)
{
    size_t done = 0;
    while (done < held->n) {
        const size_t i = held->job[done];
        unsigned spins = 0;
        while (!z4_is_turn(run, i) && held->n - done > most)
            if (++spins > 4096)
                z4_nap();
        if (!z4_is_turn(run, i))
            break;
        z4_place(run, i, held->slot[done++]);
    }
    for (size_t k = 0; done > 0 && k + done < held->n; k++) {
        uint8_t *slot = held->slot[k];
        held->slot[k] = held->slot[k + done];
        held->slot[k + done] = slot;
        held->job[k] = held->job[k + done];
    }
    held->n -= done;
}

/* Code job i, whose turn it is, at its place. */
static void z4_encode_in_place(z4_encode_run *run, size_t i, z4_encode_scratch *scratch,
                               z4_symbols_encoder *symbols, uint8_t *planes)
{
    z4_chunk_job *job = &run->jobs[i];
    const size_t bound = z4_encode_bound(job->content_nbytes, job->layout, run->gap, run->gap_stream);
    const size_t room = run->capacity - run->end;
    job->encoded_offset = run->end + job->lead;
    job->encoded_nbytes = 0;
    job->status = Z4_CAPACITY;
    if (bound <= room && job->lead <= room - bound)
        z4_encode_chunk(&run->kernels, job, z4_model_of(run->models, job), run->content, run->reference,
                        run->out + job->encoded_offset, bound, run->gap, run->gap_stream, scratch, symbols, planes);
    if (job->status == Z4_OK)
        run->end = job->encoded_offset + job->encoded_nbytes;
    z4_store_release(&run->placed, i + 1);
}

/* One worker. symbols: its scratch, or NULL if no job has a model. held: its slots, or NULL if it is the only worker. */
static void z4_encode_worker(z4_encode_run *run, z4_encode_scratch *scratch, z4_symbols_encoder *symbols,
                             uint8_t *planes, z4_held *held)
{
    if (symbols != NULL)
        symbols->model = NULL;
    for (size_t i; (i = z4_fetch_add(&run->next, 1)) < run->last;) {
        if (held == NULL || (held->n == 0 && z4_is_turn(run, i))) {
            z4_encode_in_place(run, i, scratch, symbols, planes);
            continue;
        }
        run->jobs[i].encoded_offset = 0;
        z4_encode_chunk(&run->kernels, &run->jobs[i], z4_model_of(run->models, &run->jobs[i]), run->content,
                        run->reference, held->slot[held->n], held->slot_nbytes, run->gap, run->gap_stream, scratch, symbols, planes);
        held->job[held->n++] = i;
        z4_place_held(run, held, Z4_SLOTS - 1);
    }
    if (held != NULL)
        z4_place_held(run, held, 0);
}

#endif
