/* z4_huge.h -- ask for huge pages on large fresh outputs: faulting in 4 KiB pages costs about as much as decoding. */
#ifndef Z4_HUGE_H
#define Z4_HUGE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#define Z4_HUGE_PAGE ((uintptr_t)2 << 20)

/* A hint on the whole huge pages inside [p, p + nbytes); what the system makes of it does not matter. */
static inline void z4_advise_huge(void *p, size_t nbytes)
{
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t first = ((uintptr_t)p + Z4_HUGE_PAGE - 1) & ~(Z4_HUGE_PAGE - 1);
    const uintptr_t last = ((uintptr_t)p + nbytes) & ~(Z4_HUGE_PAGE - 1);
    if (last > first)
        (void)madvise((void *)first, last - first, MADV_HUGEPAGE);
#else
    (void)p;
    (void)nbytes;
#endif
}

#endif
