/* z4_chunk_difference.h -- what encoder and decoder of chunks that differ from a reference share. */
#ifndef Z4_CHUNK_DIFFERENCE_H
#define Z4_CHUNK_DIFFERENCE_H

#include "z4_chunk_symbols.h"

/* Streams of a difference: symbols, and bits apart. */
enum { Z4_DIFFERENCE_STREAMS = 2 };

/* Whether the chunk has all of its reference. */
Z4_INLINE int z4_has_reference(const z4_chunk_job *job, z4_reference reference)
{
    return reference.at != NULL && job->reference_offset <= reference.nbytes &&
           job->content_nbytes <= reference.nbytes - job->reference_offset;
}

/* Elements from the i-th on, of n, that are of one row; first: number of the 0th in the frame. */
Z4_INLINE size_t z4_left_of_row(const z4_model *m, uint64_t first, size_t i, size_t n)
{
    if (!(m->has & Z4_MODEL_ROWS))
        return n - i;
    const uint64_t left = m->period - (first + i) % m->period;
    return left < n - i ? (size_t)left : n - i;
}

#endif
