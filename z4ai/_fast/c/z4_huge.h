/* z4_huge.h -- huge pages for large fresh outputs, where they come quickly: faulting in 4 KiB pages costs about as much
 * as decoding. A system that must first make room for a huge page, or a virtual machine whose host has to find memory
 * for it, may take ten times as long for one as for as much in small pages, which come from what was in use lately. So
 * one huge page of each stretch is touched, and timed; a slow one leaves the stretch to small pages, and the longer it
 * goes on like this, the fewer are tried.
 */
#ifndef Z4_HUGE_H
#define Z4_HUGE_H

#include <stddef.h>
#include <stdint.h>

#include "z4_portable.h"

#if defined(__linux__)
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#endif

#define Z4_HUGE_PAGE ((size_t)2 << 20)
#define Z4_HUGE_STRETCH (16 * Z4_HUGE_PAGE)
/* Nanoseconds of this thread: as much in small pages takes 0.4 to 0.8 ms. */
#define Z4_HUGE_SLOW 1000000
/* Stretches that are not tried after a slow one, at most. */
#define Z4_HUGE_REST 15

/* How many stretches are left to small pages untried, now and after the next slow one. Threads may well lose a change. */
typedef struct {
    uint32_t skip, rest;
} z4_huge_luck;

Z4_INLINE int z4_huge_is_tried(z4_huge_luck *luck)
{
    if (luck->skip == 0)
        return 1;
    luck->skip--;
    return 0;
}

Z4_INLINE void z4_huge_was(z4_huge_luck *luck, int slow)
{
    if (slow) {
        luck->rest = 2 * luck->rest + 1 < Z4_HUGE_REST ? 2 * luck->rest + 1 : Z4_HUGE_REST;
        luck->skip = luck->rest;
    } else {
        luck->rest /= 2;
    }
}

#if defined(__linux__) && defined(MADV_HUGEPAGE) && defined(MADV_NOHUGEPAGE)
static int64_t z4_thread_time(void)
{
    struct timespec t;
    return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0 ? (int64_t)t.tv_sec * 1000000000 + t.tv_nsec : 0;
}

/* Touch a huge page that lies in [first, last) and nowhere else; -> whether it took long. */
static int z4_huge_is_slow(uintptr_t first, uintptr_t last)
{
    const uintptr_t page = (first + Z4_HUGE_PAGE - 1) & ~(uintptr_t)(Z4_HUGE_PAGE - 1);
    if (page < first || page >= last || last - page < Z4_HUGE_PAGE)
        return 0;
    const int64_t begin = z4_thread_time();
    *(volatile uint8_t *)page = 0;
    return z4_thread_time() - begin > Z4_HUGE_SLOW;
}
#endif

/* Choose the pages of [p, p + nbytes), which is fresh: what it holds may be changed. The first and the last page
 * included: a large allocation often begins a few bytes into a huge page. What the system makes of it does not
 * matter. */
static inline void z4_ready_fresh(void *p, size_t nbytes, z4_huge_luck *luck)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE) && defined(MADV_NOHUGEPAGE)
    const long page = sysconf(_SC_PAGESIZE);
    if (page <= 0 || nbytes < Z4_HUGE_PAGE)
        return;
    const uintptr_t mask = (uintptr_t)page - 1, begin = (uintptr_t)p, end = begin + nbytes;
    for (uintptr_t at = begin & ~mask, next; at < end; at = next) {
        next = end - at < 2 * Z4_HUGE_STRETCH ? (end + mask) & ~mask : at + Z4_HUGE_STRETCH;
        const int tried = z4_huge_is_tried(luck);
        if (madvise((void *)at, next - at, tried ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) != 0 || !tried)
            continue;
        const int slow = z4_huge_is_slow(at < begin ? begin : at, next < end ? next : end);
        if (slow)
            (void)madvise((void *)at, next - at, MADV_NOHUGEPAGE);
        z4_huge_was(luck, slow);
    }
#else
    (void)p;
    (void)nbytes;
    (void)luck;
#endif
}

#endif
