/* z4_xxh3.h -- XXH3, 64 and 128 bits, with the default secret and any seed.
 * Specification: docs/format/xxh3.md and the page it points to. Every variant gives the same hash.
 *
 * Three ways in:
 *   one shot       z4_xxh3_64, z4_xxh3_128
 *   one buffer     z4_xxh3_begin / advance / 64_end: the buffer is hashed while it is being filled
 *                  (each tile while it is in cache); nothing is copied
 *   many buffers   z4_xxh3_stream_*: copies at most one block a call */
#ifndef Z4_XXH3_H
#define Z4_XXH3_H

#include "z4_portable.h"

enum { Z4_XXH3_STRIPE = 64, Z4_XXH3_BLOCK = 1024, Z4_XXH3_SECRET = 192 };

#define Z4_P32_1 0x9E3779B1ULL
#define Z4_P32_2 0x85EBCA77ULL
#define Z4_P32_3 0xC2B2AE3DULL
#define Z4_P64_1 0x9E3779B185EBCA87ULL
#define Z4_P64_2 0xC2B2AE3D27D4EB4FULL
#define Z4_P64_3 0x165667B19E3779F9ULL
#define Z4_P64_4 0x85EBCA77C2B2AE63ULL
#define Z4_P64_5 0x27D4EB2F165667C5ULL
#define Z4_PMX_1 0x165667919E3779F9ULL
#define Z4_PMX_2 0x9FB21C651E98DF25ULL

static const uint8_t Z4_XXH3_DEFAULT_SECRET[Z4_XXH3_SECRET] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e,
};

typedef struct z4_xxh3_impl {
    const char *name;
    int isa;
    /* n stripes of the block that begins at p, secret from its start; no scramble. */
    void (*stripes)(uint64_t acc[8], const uint8_t *p, size_t n, const uint8_t *secret);
    /* n whole blocks: 16 stripes and a scramble each. */
    void (*blocks)(uint64_t acc[8], const uint8_t *p, size_t n, const uint8_t *secret);
} z4_xxh3_impl;

/* ---- arithmetic ----------------------------------------------------------------------------- */
Z4_INLINE uint64_t z4_xxh3_mul(uint64_t a, uint64_t b, uint64_t *high)
{
#if defined(__SIZEOF_INT128__)
    __extension__ const unsigned __int128 m = (unsigned __int128)a * b;
    *high = (uint64_t)(m >> 64);
    return (uint64_t)m;
#else
    const uint64_t a0 = (uint32_t)a, a1 = a >> 32, b0 = (uint32_t)b, b1 = b >> 32;
    const uint64_t low = a0 * b0, mid = a1 * b0 + (low >> 32); /* < 2^64: (2^32-1)^2 + 2^32-1 */
    const uint64_t mid2 = a0 * b1 + (uint32_t)mid;
    *high = a1 * b1 + (mid >> 32) + (mid2 >> 32);
    return mid2 << 32 | (uint32_t)low;
#endif
}

/* Low half xor high half of the full product. */
Z4_INLINE uint64_t z4_xxh3_mul_fold(uint64_t a, uint64_t b)
{
    uint64_t high;
    const uint64_t low = z4_xxh3_mul(a, b, &high);
    return low ^ high;
}

Z4_INLINE uint64_t z4_xxh3_rotl(uint64_t x, int s) { return x << s | x >> (64 - s); }
Z4_INLINE uint32_t z4_xxh3_swap32(uint32_t x)
{
    return x << 24 | (x << 8 & 0xff0000u) | (x >> 8 & 0xff00u) | x >> 24;
}
Z4_INLINE uint64_t z4_xxh3_swap64(uint64_t x)
{
    return (uint64_t)z4_xxh3_swap32((uint32_t)x) << 32 | z4_xxh3_swap32((uint32_t)(x >> 32));
}

Z4_INLINE uint64_t z4_xxh3_avalanche(uint64_t x)
{
    x ^= x >> 37;
    x *= Z4_PMX_1;
    return x ^ x >> 32;
}
Z4_INLINE uint64_t z4_xxh3_avalanche64(uint64_t x)
{
    x ^= x >> 33;
    x *= Z4_P64_2;
    x ^= x >> 29;
    x *= Z4_P64_3;
    return x ^ x >> 32;
}

/* Word k bytes into the default secret. */
Z4_INLINE uint64_t z4_xxh3_key(size_t k) { return z4_load64(Z4_XXH3_DEFAULT_SECRET + k); }

/* ---- 0 to 240 bytes: no accumulator lanes, default secret and seed --------------------------- */
static inline uint64_t z4_xxh3_64_upto16(const uint8_t *p, size_t n, uint64_t seed)
{
    if (n > 8) {
        const uint64_t low = ((z4_xxh3_key(24) ^ z4_xxh3_key(32)) + seed) ^ z4_load64(p);
        const uint64_t high = ((z4_xxh3_key(40) ^ z4_xxh3_key(48)) - seed) ^ z4_load64(p + n - 8);
        return z4_xxh3_avalanche(n + z4_xxh3_swap64(low) + high + z4_xxh3_mul_fold(low, high));
    }
    if (n >= 4) {
        const uint64_t first = z4_load32(p), last = z4_load32(p + n - 4);
        const uint64_t mixed = seed ^ (uint64_t)z4_xxh3_swap32((uint32_t)seed) << 32;
        uint64_t x = ((z4_xxh3_key(8) ^ z4_xxh3_key(16)) - mixed) ^ (last | first << 32);
        x ^= z4_xxh3_rotl(x, 49) ^ z4_xxh3_rotl(x, 24);
        x *= Z4_PMX_2;
        x ^= (x >> 35) + n;
        x *= Z4_PMX_2;
        return x ^ x >> 28;
    }
    if (n) {
        const uint32_t word = p[n - 1] | (uint32_t)n << 8 | (uint32_t)p[0] << 16
                              | (uint32_t)p[n >> 1] << 24;
        const uint8_t *s = Z4_XXH3_DEFAULT_SECRET;
        const uint32_t key = z4_load32(s) ^ z4_load32(s + 4);
        return z4_xxh3_avalanche64((key + seed) ^ word);
    }
    return z4_xxh3_avalanche64(seed ^ z4_xxh3_key(56) ^ z4_xxh3_key(64));
}

static inline void z4_xxh3_128_upto16(const uint8_t *p, size_t n, uint64_t seed, uint64_t out[2])
{
    if (n > 8) {
        const uint64_t first = z4_load64(p), last = z4_load64(p + n - 8);
        const uint64_t a = ((z4_xxh3_key(32) ^ z4_xxh3_key(40)) - seed) ^ first ^ last;
        const uint64_t b = ((z4_xxh3_key(48) ^ z4_xxh3_key(56)) + seed) ^ last;
        uint64_t high, low = z4_xxh3_mul(a, Z4_P64_1, &high), carry;
        low += (uint64_t)(n - 1) << 54;
        high += b + (uint64_t)(uint32_t)b * (Z4_P32_2 - 1);
        low ^= z4_xxh3_swap64(high);
        low = z4_xxh3_mul(low, Z4_P64_2, &carry);
        out[0] = z4_xxh3_avalanche(low);
        out[1] = z4_xxh3_avalanche(carry + high * Z4_P64_2);
    } else if (n >= 4) {
        const uint64_t first = z4_load32(p), last = z4_load32(p + n - 4);
        const uint64_t mixed = seed ^ (uint64_t)z4_xxh3_swap32((uint32_t)seed) << 32;
        const uint64_t x = ((z4_xxh3_key(16) ^ z4_xxh3_key(24)) + mixed) ^ (first | last << 32);
        uint64_t high, low = z4_xxh3_mul(x, Z4_P64_1 + ((uint64_t)n << 2), &high);
        high += low << 1;
        low ^= high >> 3;
        low ^= low >> 35;
        low *= Z4_PMX_2;
        out[0] = low ^ low >> 28;
        out[1] = z4_xxh3_avalanche(high);
    } else if (n) {
        const uint32_t word = p[n - 1] | (uint32_t)n << 8 | (uint32_t)p[0] << 16
                              | (uint32_t)p[n >> 1] << 24;
        const uint32_t swapped = z4_xxh3_swap32(word), turned = swapped << 13 | swapped >> 19;
        const uint8_t *s = Z4_XXH3_DEFAULT_SECRET;
        const uint32_t key = z4_load32(s) ^ z4_load32(s + 4);
        const uint32_t key2 = z4_load32(s + 8) ^ z4_load32(s + 12);
        out[0] = z4_xxh3_avalanche64((key + seed) ^ word);
        out[1] = z4_xxh3_avalanche64((key2 - seed) ^ turned);
    } else {
        out[0] = z4_xxh3_avalanche64(seed ^ z4_xxh3_key(64) ^ z4_xxh3_key(72));
        out[1] = z4_xxh3_avalanche64(seed ^ z4_xxh3_key(80) ^ z4_xxh3_key(88));
    }
}

/* 16 bytes of input with 16 bytes of secret at k. */
Z4_INLINE uint64_t z4_xxh3_mix(const uint8_t *p, size_t k, uint64_t seed)
{
    return z4_xxh3_mul_fold(z4_load64(p) ^ (z4_xxh3_key(k) + seed),
                            z4_load64(p + 8) ^ (z4_xxh3_key(k + 8) - seed));
}

static inline uint64_t z4_xxh3_64_upto240(const uint8_t *p, size_t n, uint64_t seed)
{
    uint64_t acc = n * Z4_P64_1;
    if (n <= 128) {
        for (size_t i = ((n - 1) >> 5) + 1; i-- > 0;) {
            acc += z4_xxh3_mix(p + 16 * i, 32 * i, seed);
            acc += z4_xxh3_mix(p + n - 16 * i - 16, 32 * i + 16, seed);
        }
    } else {
        for (size_t i = 0; i < 8; i++)
            acc += z4_xxh3_mix(p + 16 * i, 16 * i, seed);
        acc = z4_xxh3_avalanche(acc);
        for (size_t i = 8; i < n >> 4; i++)
            acc += z4_xxh3_mix(p + 16 * i, 16 * (i - 8) + 3, seed);
        acc += z4_xxh3_mix(p + n - 16, 119, seed);
    }
    return z4_xxh3_avalanche(acc);
}

/* Two pieces of input with 32 bytes of secret at k. */
Z4_INLINE void z4_xxh3_mix2(uint64_t acc[2], const uint8_t *a, const uint8_t *b, size_t k,
                            uint64_t seed)
{
    acc[0] += z4_xxh3_mix(a, k, seed);
    acc[1] += z4_xxh3_mix(b, k + 16, seed);
    acc[0] ^= z4_load64(b) + z4_load64(b + 8);
    acc[1] ^= z4_load64(a) + z4_load64(a + 8);
}

static inline void z4_xxh3_128_upto240(const uint8_t *p, size_t n, uint64_t seed, uint64_t out[2])
{
    uint64_t acc[2] = {n * Z4_P64_1, 0};
    if (n <= 128) {
        for (size_t i = ((n - 1) >> 5) + 1; i-- > 0;)
            z4_xxh3_mix2(acc, p + 16 * i, p + n - 16 * i - 16, 32 * i, seed);
    } else {
        for (size_t i = 0; i < 4; i++)
            z4_xxh3_mix2(acc, p + 32 * i, p + 32 * i + 16, 32 * i, seed);
        acc[0] = z4_xxh3_avalanche(acc[0]);
        acc[1] = z4_xxh3_avalanche(acc[1]);
        for (size_t i = 4; i < n >> 5; i++)
            z4_xxh3_mix2(acc, p + 32 * i, p + 32 * i + 16, 32 * (i - 4) + 3, seed);
        z4_xxh3_mix2(acc, p + n - 16, p + n - 32, 103, (uint64_t)0 - seed);
    }
    out[0] = z4_xxh3_avalanche(acc[0] + acc[1]);
    out[1] = (uint64_t)0
             - z4_xxh3_avalanche(acc[0] * Z4_P64_1 + acc[1] * Z4_P64_4 + (n - seed) * Z4_P64_2);
}

/* ---- lanes: scalar -------------------------------------------------------------------------- */
Z4_INLINE void z4_xxh3_stripe_scalar(uint64_t *Z4_RESTRICT acc, const uint8_t *Z4_RESTRICT p,
                                     const uint8_t *Z4_RESTRICT secret)
{
    for (int i = 0; i < 8; i++) {
        const uint64_t data = z4_load64(p + 8 * i), x = data ^ z4_load64(secret + 8 * i);
        acc[i ^ 1] += data;
        acc[i] += (uint64_t)(uint32_t)x * (x >> 32);
    }
}

static inline void z4_xxh3_stripes_scalar(uint64_t acc[8], const uint8_t *p, size_t n,
                                          const uint8_t *secret)
{
    for (size_t i = 0; i < n; i++)
        z4_xxh3_stripe_scalar(acc, p + Z4_XXH3_STRIPE * i, secret + 8 * i);
}

static inline void z4_xxh3_blocks_scalar(uint64_t acc[8], const uint8_t *p, size_t n,
                                         const uint8_t *secret)
{
    for (; n; n--, p += Z4_XXH3_BLOCK) {
        for (size_t i = 0; i < 16; i++)
            z4_xxh3_stripe_scalar(acc, p + Z4_XXH3_STRIPE * i, secret + 8 * i);
        for (int i = 0; i < 8; i++) {
            const uint64_t key = z4_load64(secret + Z4_XXH3_SECRET - 64 + 8 * i);
            acc[i] = (acc[i] ^ acc[i] >> 47 ^ key) * Z4_P32_1;
        }
    }
}

/* ---- lanes: AVX2 and AVX-512 ------------------------------------------------------------------
 * Lanes stay in registers over all blocks of a call. vpmuludq multiplies the low halves of 64-bit
 * lanes, so the high half is brought down first; exchanging neighbours is a shuffle of dwords. */
#if Z4_X86
#define Z4_XXH3_AVX2 Z4_TARGET_AVX2 Z4_INLINE
#define Z4_XXH3_AVX512 Z4_TARGET_AVX512 Z4_INLINE

Z4_XXH3_AVX2 __m256i z4_xxh3_load_avx2(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

Z4_XXH3_AVX2 __m256i z4_xxh3_lane_avx2(__m256i acc, const uint8_t *p, const uint8_t *secret)
{
    const __m256i data = z4_xxh3_load_avx2(p);
    const __m256i x = _mm256_xor_si256(data, z4_xxh3_load_avx2(secret));
    const __m256i product = _mm256_mul_epu32(x, _mm256_srli_epi64(x, 32));
    return _mm256_add_epi64(acc, _mm256_add_epi64(product, _mm256_shuffle_epi32(data, 0x4e)));
}

Z4_XXH3_AVX2 __m256i z4_xxh3_scramble_avx2(__m256i acc, const uint8_t *secret)
{
    const __m256i prime = _mm256_set1_epi64x((long long)Z4_P32_1);
    const __m256i x = _mm256_xor_si256(_mm256_xor_si256(acc, _mm256_srli_epi64(acc, 47)),
                                       z4_xxh3_load_avx2(secret));
    const __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), prime);
    return _mm256_add_epi64(_mm256_mul_epu32(x, prime), _mm256_slli_epi64(high, 32));
}

Z4_TARGET_AVX2 static void z4_xxh3_stripes_avx2(uint64_t acc[8], const uint8_t *p, size_t n,
                                                const uint8_t *secret)
{
    __m256i a = z4_xxh3_load_avx2((const uint8_t *)acc);
    __m256i b = z4_xxh3_load_avx2((const uint8_t *)(acc + 4));
    for (; n; n--, p += Z4_XXH3_STRIPE, secret += 8) {
        a = z4_xxh3_lane_avx2(a, p, secret);
        b = z4_xxh3_lane_avx2(b, p + 32, secret + 32);
    }
    _mm256_storeu_si256((__m256i *)acc, a);
    _mm256_storeu_si256((__m256i *)(acc + 4), b);
}

Z4_TARGET_AVX2 static void z4_xxh3_blocks_avx2(uint64_t acc[8], const uint8_t *p, size_t n,
                                               const uint8_t *secret)
{
    __m256i a = z4_xxh3_load_avx2((const uint8_t *)acc);
    __m256i b = z4_xxh3_load_avx2((const uint8_t *)(acc + 4));
    for (; n; n--) {
        for (int i = 0; i < 16; i++, p += Z4_XXH3_STRIPE) {
            a = z4_xxh3_lane_avx2(a, p, secret + 8 * i);
            b = z4_xxh3_lane_avx2(b, p + 32, secret + 8 * i + 32);
        }
        a = z4_xxh3_scramble_avx2(a, secret + Z4_XXH3_SECRET - 64);
        b = z4_xxh3_scramble_avx2(b, secret + Z4_XXH3_SECRET - 32);
    }
    _mm256_storeu_si256((__m256i *)acc, a);
    _mm256_storeu_si256((__m256i *)(acc + 4), b);
}

Z4_XXH3_AVX512 __m512i z4_xxh3_lane_avx512(__m512i acc, const uint8_t *p, __m512i key)
{
    const __m512i data = _mm512_loadu_si512((const void *)p), x = _mm512_xor_si512(data, key);
    const __m512i product = _mm512_mul_epu32(x, _mm512_srli_epi64(x, 32));
    const __m512i swapped = _mm512_shuffle_epi32(data, (_MM_PERM_ENUM)0x4e);
    return _mm512_add_epi64(acc, _mm512_add_epi64(product, swapped));
}

Z4_TARGET_AVX512 static void z4_xxh3_stripes_avx512(uint64_t acc[8], const uint8_t *p, size_t n,
                                                    const uint8_t *secret)
{
    __m512i a = _mm512_loadu_si512((const void *)acc);
    for (; n; n--, p += Z4_XXH3_STRIPE, secret += 8)
        a = z4_xxh3_lane_avx512(a, p, _mm512_loadu_si512((const void *)secret));
    _mm512_storeu_si512((void *)acc, a);
}

Z4_TARGET_AVX512 static void z4_xxh3_blocks_avx512(uint64_t acc[8], const uint8_t *p, size_t n,
                                                   const uint8_t *secret)
{
    const __m512i prime = _mm512_set1_epi64((long long)Z4_P32_1);
    __m512i a = _mm512_loadu_si512((const void *)acc), key[17], high;
    for (int i = 0; i < 17; i++) /* the seventeenth scrambles: 16 * 8 = 192 - 64 */
        key[i] = _mm512_loadu_si512((const void *)(secret + 8 * i));
    for (; n; n--) {
        for (int i = 0; i < 16; i++, p += Z4_XXH3_STRIPE)
            a = z4_xxh3_lane_avx512(a, p, key[i]);
        a = _mm512_xor_si512(_mm512_xor_si512(a, _mm512_srli_epi64(a, 47)), key[16]);
        high = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), prime);
        a = _mm512_add_epi64(_mm512_mul_epu32(a, prime), _mm512_slli_epi64(high, 32));
    }
    _mm512_storeu_si512((void *)acc, a);
}
#endif

static const z4_xxh3_impl Z4_XXH3[] = {
    {"scalar", Z4_ISA_SCALAR, z4_xxh3_stripes_scalar, z4_xxh3_blocks_scalar},
#if Z4_X86
    {"avx2", Z4_ISA_AVX2, z4_xxh3_stripes_avx2, z4_xxh3_blocks_avx2},
    {"avx512", Z4_ISA_AVX512, z4_xxh3_stripes_avx512, z4_xxh3_blocks_avx512},
#endif
};

enum { Z4_XXH3_VARIANTS = (int)(sizeof Z4_XXH3 / sizeof Z4_XXH3[0]) };

/* The row of that instruction set, or the nearest before it. */
static inline const z4_xxh3_impl *z4_xxh3_pick(int isa)
{
    const z4_xxh3_impl *best = &Z4_XXH3[0];
    for (int k = 1; k < Z4_XXH3_VARIANTS; k++)
        if (Z4_XXH3[k].isa <= isa)
            best = &Z4_XXH3[k];
    return best;
}

/* ---- 241 bytes and more ---------------------------------------------------------------------- */
typedef struct z4_xxh3_state {
    uint64_t acc[8];
    uint64_t seed;
    uint64_t consumed; /* bytes of the buffer already in acc: whole blocks, never the last one */
    uint8_t secret[Z4_XXH3_SECRET];
} z4_xxh3_state;

static inline void z4_xxh3_begin(z4_xxh3_state *st, uint64_t seed)
{
    static const uint64_t start[8] = {Z4_P32_3, Z4_P64_1, Z4_P64_2, Z4_P64_3,
                                      Z4_P64_4, Z4_P32_2, Z4_P64_5, Z4_P32_1};
    memcpy(st->acc, start, sizeof start);
    st->seed = seed;
    st->consumed = 0;
    for (size_t k = 0; k < Z4_XXH3_SECRET; k += 16) {
        z4_store64(st->secret + k, z4_xxh3_key(k) + seed);
        z4_store64(st->secret + k + 8, z4_xxh3_key(k + 8) - seed);
    }
}

/* Take in whole blocks of base[consumed, filled) that cannot be the last: some byte follows them.
 * base must be the same buffer in every call, filled must not shrink. */
static inline void z4_xxh3_advance(const z4_xxh3_impl *impl, z4_xxh3_state *st, const uint8_t *base,
                                   size_t filled)
{
    if (filled > st->consumed) {
        const size_t n = (size_t)(filled - st->consumed - 1) / Z4_XXH3_BLOCK;
        if (n) {
            impl->blocks(st->acc, base + st->consumed, n, st->secret);
            st->consumed += n * Z4_XXH3_BLOCK;
        }
    }
}

/* The last block of n bytes (1..1024), then the last 64 bytes of all input once more. */
static inline void z4_xxh3_last(const z4_xxh3_impl *impl, uint64_t acc[8], const uint8_t *block,
                                size_t n, const uint8_t *last64, const uint8_t *secret)
{
    impl->stripes(acc, block, (n - 1) / Z4_XXH3_STRIPE, secret);
    impl->stripes(acc, last64, 1, secret + Z4_XXH3_SECRET - 71);
}

static inline uint64_t z4_xxh3_merge(const uint64_t acc[8], const uint8_t *key, uint64_t x)
{
    for (int i = 0; i < 8; i += 2)
        x += z4_xxh3_mul_fold(acc[i] ^ z4_load64(key + 8 * i),
                              acc[i + 1] ^ z4_load64(key + 8 * i + 8));
    return z4_xxh3_avalanche(x);
}

static inline uint64_t z4_xxh3_merge_low(const uint64_t acc[8], const uint8_t *secret, uint64_t n)
{
    return z4_xxh3_merge(acc, secret + 11, n * Z4_P64_1);
}
static inline uint64_t z4_xxh3_merge_high(const uint64_t acc[8], const uint8_t *secret, uint64_t n)
{
    return z4_xxh3_merge(acc, secret + Z4_XXH3_SECRET - 75, ~(n * Z4_P64_2));
}

static inline void z4_xxh3_finish(const z4_xxh3_impl *impl, z4_xxh3_state *st, const uint8_t *base,
                                  size_t total)
{
    z4_xxh3_advance(impl, st, base, total);
    z4_xxh3_last(impl, st->acc, base + st->consumed, total - (size_t)st->consumed,
                 base + total - Z4_XXH3_STRIPE, st->secret);
}

/* The hash of base[0, total). st is used up: begin again before the next buffer. */
static inline uint64_t z4_xxh3_64_end(const z4_xxh3_impl *impl, z4_xxh3_state *st,
                                      const uint8_t *base, size_t total)
{
    if (total <= 16)
        return z4_xxh3_64_upto16(base, total, st->seed);
    if (total <= 240)
        return z4_xxh3_64_upto240(base, total, st->seed);
    z4_xxh3_finish(impl, st, base, total);
    return z4_xxh3_merge_low(st->acc, st->secret, total);
}

/* out[0] is the low half, out[1] the high half. */
static inline void z4_xxh3_128_end(const z4_xxh3_impl *impl, z4_xxh3_state *st, const uint8_t *base,
                                   size_t total, uint64_t out[2])
{
    if (total <= 16) {
        z4_xxh3_128_upto16(base, total, st->seed, out);
    } else if (total <= 240) {
        z4_xxh3_128_upto240(base, total, st->seed, out);
    } else {
        z4_xxh3_finish(impl, st, base, total);
        out[0] = z4_xxh3_merge_low(st->acc, st->secret, total);
        out[1] = z4_xxh3_merge_high(st->acc, st->secret, total);
    }
}

static inline uint64_t z4_xxh3_64(const z4_xxh3_impl *impl, const void *p, size_t n, uint64_t seed)
{
    z4_xxh3_state st;
    z4_xxh3_begin(&st, seed);
    return z4_xxh3_64_end(impl, &st, (const uint8_t *)p, n);
}

static inline void z4_xxh3_128(const z4_xxh3_impl *impl, const void *p, size_t n, uint64_t seed,
                               uint64_t out[2])
{
    z4_xxh3_state st;
    z4_xxh3_begin(&st, seed);
    z4_xxh3_128_end(impl, &st, (const uint8_t *)p, n, out);
}

/* ---- many buffers ---------------------------------------------------------------------------- */
typedef struct z4_xxh3_stream {
    z4_xxh3_state st;             /* st.consumed: bytes in acc, of the whole input */
    size_t held;                  /* bytes in block: 1..1024 after the first byte */
    uint8_t tail[Z4_XXH3_STRIPE]; /* the 64 bytes before block, once consumed > 0 ... */
    uint8_t block[Z4_XXH3_BLOCK]; /* ... so that tail and block are one run */
} z4_xxh3_stream;

static inline void z4_xxh3_stream_begin(z4_xxh3_stream *s, uint64_t seed)
{
    z4_xxh3_begin(&s->st, seed);
    s->held = 0;
}

static inline void z4_xxh3_stream_update(const z4_xxh3_impl *impl, z4_xxh3_stream *s,
                                         const void *src, size_t n)
{
    const uint8_t *p = (const uint8_t *)src;
    size_t whole;
    if (!n)
        return;
    if (n > Z4_XXH3_BLOCK - s->held) {
        if (s->held) { /* complete the block held; more follows, so it is not the last */
            const size_t room = Z4_XXH3_BLOCK - s->held;
            memcpy(s->block + s->held, p, room);
            p += room;
            n -= room;
            impl->blocks(s->st.acc, s->block, 1, s->st.secret);
            memcpy(s->tail, s->block + Z4_XXH3_BLOCK - Z4_XXH3_STRIPE, Z4_XXH3_STRIPE);
            s->st.consumed += Z4_XXH3_BLOCK;
            s->held = 0;
        }
        whole = (n - 1) / Z4_XXH3_BLOCK * Z4_XXH3_BLOCK;
        if (whole) {
            impl->blocks(s->st.acc, p, whole / Z4_XXH3_BLOCK, s->st.secret);
            memcpy(s->tail, p + whole - Z4_XXH3_STRIPE, Z4_XXH3_STRIPE);
            s->st.consumed += whole;
            p += whole;
            n -= whole;
        }
    }
    memcpy(s->block + s->held, p, n);
    s->held += n;
}

/* Close a copy of the lanes, so that more may be added to the stream afterwards. */
static inline void z4_xxh3_stream_close(const z4_xxh3_impl *impl, const z4_xxh3_stream *s,
                                        uint64_t acc[8])
{
    uint8_t last[Z4_XXH3_STRIPE];
    const size_t old = s->held < Z4_XXH3_STRIPE ? Z4_XXH3_STRIPE - s->held : 0;
    memcpy(last, s->tail + Z4_XXH3_STRIPE - old, old);
    memcpy(last + old, s->block + s->held - (Z4_XXH3_STRIPE - old), Z4_XXH3_STRIPE - old);
    memcpy(acc, s->st.acc, sizeof s->st.acc);
    z4_xxh3_last(impl, acc, s->block, s->held, last, s->st.secret);
}

static inline uint64_t z4_xxh3_stream_64(const z4_xxh3_impl *impl, const z4_xxh3_stream *s)
{
    uint64_t acc[8];
    const uint64_t total = s->st.consumed + s->held;
    if (total <= 16)
        return z4_xxh3_64_upto16(s->block, s->held, s->st.seed);
    if (total <= 240)
        return z4_xxh3_64_upto240(s->block, s->held, s->st.seed);
    z4_xxh3_stream_close(impl, s, acc);
    return z4_xxh3_merge_low(acc, s->st.secret, total);
}

static inline void z4_xxh3_stream_128(const z4_xxh3_impl *impl, const z4_xxh3_stream *s,
                                      uint64_t out[2])
{
    uint64_t acc[8];
    const uint64_t total = s->st.consumed + s->held;
    if (total <= 16) {
        z4_xxh3_128_upto16(s->block, s->held, s->st.seed, out);
    } else if (total <= 240) {
        z4_xxh3_128_upto240(s->block, s->held, s->st.seed, out);
    } else {
        z4_xxh3_stream_close(impl, s, acc);
        out[0] = z4_xxh3_merge_low(acc, s->st.secret, total);
        out[1] = z4_xxh3_merge_high(acc, s->st.secret, total);
    }
}

#endif
