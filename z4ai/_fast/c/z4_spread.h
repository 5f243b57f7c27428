/* z4_spread.h -- get the workers of a parallel region onto different processors at once.
 *
 * Threads of an OpenMP pool sleep between regions, and a system may wake them on the processor of the thread that
 * wakes them, where they wait for its time slice to end: longer than many a region lasts. So the first worker naps
 * for a moment, which lets the others run, and a worker that finds itself on the first one's processor moves away.
 * A hint: nothing that is computed depends on it. */
#ifndef Z4_SPREAD_H
#define Z4_SPREAD_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <stddef.h>

/* Chunks a worker from which on the nap, some 60 microseconds, is small beside the work. */
#define Z4_SPREAD_LEAST ((size_t)8)

#if defined(__linux__)
#include <sched.h>
#include <time.h>

/* The processor of the calling thread, which is to be worker 0; -1: do not spread. */
static inline int z4_spread_home(size_t n_jobs, size_t n_workers)
{
    return n_jobs / n_workers < Z4_SPREAD_LEAST ? -1 : sched_getcpu();
}

/* At the start of worker `t`. */
static inline void z4_spread(int t, int home)
{
    const struct timespec moment = {0, 1};
    cpu_set_t allowed, away;
    if (home < 0 || home >= CPU_SETSIZE)
        return;
    if (t == 0) {
        (void)nanosleep(&moment, NULL);
        return;
    }
    if (sched_getcpu() != home || sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return;
    away = allowed;
    CPU_CLR((unsigned)home, &away);
    if (CPU_COUNT(&away) == 0)
        return;
    /* Moves the thread now; then it may run where it could before. */
    if (sched_setaffinity(0, sizeof away, &away) == 0)
        (void)sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
static inline int z4_spread_home(size_t n_jobs, size_t n_workers)
{
    (void)n_jobs;
    (void)n_workers;
    return -1;
}
static inline void z4_spread(int t, int home)
{
    (void)t;
    (void)home;
}
#endif

#endif
