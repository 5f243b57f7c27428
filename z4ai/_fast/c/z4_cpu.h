/* z4_cpu.h -- which instruction sets this machine can run.
 * The compiler's builtin asks the processor and the operating system (saved registers). LZCNT alone
 * is asked by CPUID: some compilers' builtin does not know its name, and it needs no OS help. */
#ifndef Z4_CPU_H
#define Z4_CPU_H

#include "z4_portable.h"

#if Z4_X86
#include <cpuid.h>

static inline int z4_cpu_has_lzcnt(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(0x80000001u, &a, &b, &c, &d) && (c >> 5 & 1);
}
#endif

/* Nonzero where code compiled for isa may run. */
static inline int z4_cpu_runs(int isa)
{
    switch (isa) {
    case Z4_ISA_SCALAR:
        return 1;
#if Z4_X86
    case Z4_ISA_AVX2:
        __builtin_cpu_init();
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi")
               && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt")
               && z4_cpu_has_lzcnt();
    case Z4_ISA_AVX512:
        return z4_cpu_runs(Z4_ISA_AVX2) && __builtin_cpu_supports("avx512f")
               && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")
               && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi")
               && __builtin_cpu_supports("avx512vbmi2");
#endif
#if Z4_NEON
    case Z4_ISA_NEON:
        return 1; /* part of the aarch64 baseline */
#endif
    default:
        return 0;
    }
}

#endif
