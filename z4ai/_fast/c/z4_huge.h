/* z4_huge.h -- ask for huge pages on large fresh outputs: faulting in 4 KiB pages costs about as much as decoding. */
#ifndef Z4_HUGE_H
#define Z4_HUGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#define Z4_HUGE_PAGE ((size_t)2 << 20)

/* A hint on the pages of [p, p + nbytes), the first and the last one included: a large allocation often begins a few
 * bytes into a huge page. What the system makes of it does not matter. */
static inline void z4_advise_huge(void *p, size_t nbytes)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const long page = sysconf(_SC_PAGESIZE);
    if (page <= 0 || nbytes < Z4_HUGE_PAGE)
        return;
    const uintptr_t mask = (uintptr_t)page - 1;
    const uintptr_t first = (uintptr_t)p & ~mask, last = ((uintptr_t)p + nbytes + mask) & ~mask;
    (void)madvise((void *)first, last - first, MADV_HUGEPAGE);
#else
    (void)p;
    (void)nbytes;
#endif
}

#endif
