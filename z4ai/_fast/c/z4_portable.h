/* z4_portable.h -- what differs between compilers and processors, in one place. */
#ifndef Z4_PORTABLE_H
#define Z4_PORTABLE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "z4ai kernels assume a little-endian machine"
#endif

#if defined(__GNUC__) || defined(__clang__)
#define Z4_INLINE static inline __attribute__((always_inline))
#define Z4_NOINLINE __attribute__((noinline))
#define Z4_LIKELY(x) __builtin_expect(!!(x), 1)
#define Z4_UNLIKELY(x) __builtin_expect(!!(x), 0)
#define Z4_RESTRICT __restrict__
/* Into the second-level cache. Any address will do. */
#define z4_prefetch(p) __builtin_prefetch((p), 0, 2)
#else
#define Z4_INLINE static __forceinline
#define Z4_NOINLINE __declspec(noinline)
#define Z4_LIKELY(x) (x)
#define Z4_UNLIKELY(x) (x)
#define Z4_RESTRICT __restrict
#define z4_prefetch(p) ((void)(p))
#endif

/* x86 variants are compiled by target attributes, so that one wheel serves every machine. A compiler
 * that does not know all of them (before GCC 8, Clang 6) builds the scalar twins alone. */
#if defined(__clang__)
#define Z4_KNOWS_AVX512 (__clang_major__ >= 6)
#elif defined(__GNUC__)
#define Z4_KNOWS_AVX512 (__GNUC__ >= 8)
#else
#define Z4_KNOWS_AVX512 0
#endif
#if Z4_KNOWS_AVX512 && (defined(__x86_64__) || defined(__amd64__))
#define Z4_X86 1
#include <immintrin.h>
#define Z4_TARGET_AVX2 __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt")))
#define Z4_TARGET_AVX512                                                                           \
    __attribute__((target("avx2,bmi,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,"         \
                          "avx512vbmi,avx512vbmi2")))
#else
#define Z4_X86 0
#endif

#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define Z4_NEON 1
#include <arm_neon.h>
#else
#define Z4_NEON 0
#endif

enum z4_isa { Z4_ISA_SCALAR = 0, Z4_ISA_AVX2 = 1, Z4_ISA_AVX512 = 2, Z4_ISA_NEON = 3, Z4_ISA_COUNT = 4 };

Z4_INLINE uint16_t z4_load16(const void *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
Z4_INLINE uint32_t z4_load32(const void *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
Z4_INLINE uint64_t z4_load64(const void *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}
Z4_INLINE void z4_store16(void *p, uint16_t v) { memcpy(p, &v, sizeof v); }
Z4_INLINE void z4_store32(void *p, uint32_t v) { memcpy(p, &v, sizeof v); }
Z4_INLINE void z4_store64(void *p, uint64_t v) { memcpy(p, &v, sizeof v); }

#endif
