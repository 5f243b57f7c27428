/* z4_spread.h -- get the workers of a parallel region onto different processors at once.
 *
 * Threads of an OpenMP pool sleep between regions, and a system may wake them on the processor of the thread that
 * wakes them, where they wait for its time slice to end: longer than many a region lasts. So worker 0 naps until
 * the others have begun, and one that finds itself on the processor of worker 0 moves away first. A hint: nothing
 * that is computed depends on it. */
#ifndef Z4_SPREAD_H
#define Z4_SPREAD_H

#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE
#endif

#include <stddef.h>

/* Chunks a worker from which on a nap, some 60 microseconds, is small beside the work. */
#define Z4_SPREAD_LEAST ((size_t)8)
/* Naps at the most: a busy machine may have no processor for the others, and the work should begin. */
#define Z4_SPREAD_NAPS 4

typedef struct {
    int home;       /* processor of the thread that is to be worker 0; -1: do not spread */
    size_t missing; /* atomic: workers that have not begun */
} z4_spread;

#if defined(__linux__)
#include <sched.h>
#include <time.h>

static inline void z4_spread_begin(z4_spread *s, size_t n_jobs, size_t n_workers)
{
    s->home = n_jobs / n_workers < Z4_SPREAD_LEAST ? -1 : sched_getcpu();
    s->missing = n_workers - 1;
}

static inline void z4_spread_leave(int home)
{
    cpu_set_t allowed, away;
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

/* At the start of worker `t`. */
static inline void z4_spread_worker(z4_spread *s, int t)
{
    const struct timespec moment = {0, 1};
    if (s->home < 0 || s->home >= CPU_SETSIZE)
        return;
    if (t > 0) {
        z4_spread_leave(s->home);
        (void)__atomic_sub_fetch(&s->missing, 1, __ATOMIC_RELAXED);
        return;
    }
    /* Workers that are awake have begun by the end of this. */
    for (int spins = 0; spins < 2000; spins++)
        if (__atomic_load_n(&s->missing, __ATOMIC_RELAXED) == 0)
            return;
    for (int naps = 0; naps < Z4_SPREAD_NAPS && __atomic_load_n(&s->missing, __ATOMIC_RELAXED) != 0; naps++)
        (void)nanosleep(&moment, NULL);
}
#else
static inline void z4_spread_begin(z4_spread *s, size_t n_jobs, size_t n_workers)
{
    (void)n_jobs;
    (void)n_workers;
    s->home = -1;
}
static inline void z4_spread_worker(z4_spread *s, int t)
{
    (void)s;
    (void)t;
}
#endif

#endif
