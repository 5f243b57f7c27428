/* z4_planes.h -- cut little-endian elements into byte planes and put them together again.
 * Specification: docs/format/codecs/planes.md.
 *
 * Contract of every function here: any alignment, any count (0 too). Exactly n bytes of each plane
 * and n * width bytes of elements are touched; planes and elements do not overlap. Nothing can fail.
 * Every variant gives the same bytes. */
#ifndef Z4_PLANES_H
#define Z4_PLANES_H

#include "z4_portable.h"

enum z4_layout {
    Z4_LAYOUT_BYTES1 = 0,
    Z4_LAYOUT_BYTES2 = 1,
    Z4_LAYOUT_BYTES4 = 2,
    Z4_LAYOUT_BYTES8 = 3,
    Z4_LAYOUT_FLOAT2 = 4,
    Z4_LAYOUT_FLOAT4 = 5,
    Z4_LAYOUT_FLOAT8 = 6,
    Z4_LAYOUT_COUNT = 7
};

enum { Z4_MAX_PLANES = 8 };

/* Bytes of an element, which is also its number of planes; 0 for an unknown layout. */
static inline unsigned z4_layout_width(int layout)
{
    switch (layout) {
    case Z4_LAYOUT_BYTES1: return 1;
    case Z4_LAYOUT_BYTES2: case Z4_LAYOUT_FLOAT2: return 2;
    case Z4_LAYOUT_BYTES4: case Z4_LAYOUT_FLOAT4: return 4;
    case Z4_LAYOUT_BYTES8: case Z4_LAYOUT_FLOAT8: return 8;
    default: return 0;
    }
}

typedef void (*z4_split_fn)(const uint8_t *src, size_t n, uint8_t *const *planes);
typedef void (*z4_interleave_fn)(const uint8_t *const *planes, size_t n, uint8_t *dst);
typedef void (*z4_swap_fn)(const uint8_t *src, size_t n, uint8_t *dst);

typedef struct z4_planes_impl {
    const char *name;
    int isa;
    z4_split_fn split[Z4_LAYOUT_COUNT];
    z4_interleave_fn interleave[Z4_LAYOUT_COUNT];
    /* The same bytes past the cache, for large outputs whose pages are mapped already. The caller
     * ends a run of calls with z4_stream_fence(). */
    z4_interleave_fn interleave_nt[Z4_LAYOUT_COUNT];
    /* Reverse the bytes of each element of 1 << k bytes; src == dst is allowed. */
    z4_swap_fn swap[4];
    /* Copy past the cache; also ended by z4_stream_fence(). */
    void (*stream_copy)(uint8_t *dst, const uint8_t *src, size_t nbytes);
} z4_planes_impl;

/* ---- words ------------------------------------------------------------------------------------
 * A FLOAT word is first folded, so that its planes are the plain bytes of the folded word:
 *     s eeeeeeee mmmmmmm ...  ->  eeeeeeee s mmmmmmm ...
 * Only the top 16 bits move. top is the position of the sign bit. */
#define Z4_FOLD(T, x, top)                                                                         \
    ((T)(((T)((x) << 1) & ((T)0xff << ((top) - 7))) | (((x) >> 8) & ((T)1 << ((top) - 8)))         \
         | ((x) & (((T)1 << ((top) - 8)) - 1))))
#define Z4_UNFOLD(T, y, top)                                                                       \
    ((T)((((y) >> 1) & ((T)0xff << ((top) - 8))) | ((T)((y) << 8) & ((T)1 << (top)))               \
         | ((y) & (((T)1 << ((top) - 8)) - 1))))

Z4_INLINE uint16_t z4_fold16(uint16_t x) { return Z4_FOLD(uint16_t, x, 15); }
Z4_INLINE uint32_t z4_fold32(uint32_t x) { return Z4_FOLD(uint32_t, x, 31); }
Z4_INLINE uint64_t z4_fold64(uint64_t x) { return Z4_FOLD(uint64_t, x, 63); }
Z4_INLINE uint16_t z4_unfold16(uint16_t y) { return Z4_UNFOLD(uint16_t, y, 15); }
Z4_INLINE uint32_t z4_unfold32(uint32_t y) { return Z4_UNFOLD(uint32_t, y, 31); }
Z4_INLINE uint64_t z4_unfold64(uint64_t y) { return Z4_UNFOLD(uint64_t, y, 63); }

/* ---- scalar -----------------------------------------------------------------------------------
 * Bodies start at element i, so that the vector variants can use them for their tails. */
Z4_INLINE void z4_split2_body(const uint8_t *Z4_RESTRICT src, size_t i, size_t n,
                              uint8_t *Z4_RESTRICT p0, uint8_t *Z4_RESTRICT p1, int fold)
{
    for (; i < n; i++) {
        uint16_t x = z4_load16(src + 2 * i);
        if (fold)
            x = z4_fold16(x);
        p0[i] = (uint8_t)(x >> 8);
        p1[i] = (uint8_t)x;
    }
}

Z4_INLINE void z4_split4_body(const uint8_t *Z4_RESTRICT src, size_t i, size_t n,
                              uint8_t *Z4_RESTRICT p0, uint8_t *Z4_RESTRICT p1,
                              uint8_t *Z4_RESTRICT p2, uint8_t *Z4_RESTRICT p3, int fold)
{
    for (; i < n; i++) {
        uint32_t x = z4_load32(src + 4 * i);
        if (fold)
            x = z4_fold32(x);
        p0[i] = (uint8_t)(x >> 24);
        p1[i] = (uint8_t)(x >> 16);
        p2[i] = (uint8_t)(x >> 8);
        p3[i] = (uint8_t)x;
    }
}

/* Transpose an 8 x 8 matrix of bytes held in eight words: byte j of word i to byte i of word j.
 * Three steps, each exchanging off-diagonal squares of 4, 2 and 1 bytes. Its own inverse. */
#define Z4_EXCHANGE(a, b, shift, mask)                                                             \
    do {                                                                                           \
        const uint64_t z4_t = (((a) >> (shift)) ^ (b)) & (mask);                                   \
        (a) ^= z4_t << (shift);                                                                    \
        (b) ^= z4_t;                                                                               \
    } while (0)

Z4_INLINE void z4_transpose8x8(uint64_t w[8])
{
    for (int k = 0; k < 4; k++)
        Z4_EXCHANGE(w[k], w[k + 4], 32, 0x00000000ffffffffULL);
    for (int k = 0; k < 8; k += 4) {
        Z4_EXCHANGE(w[k], w[k + 2], 16, 0x0000ffff0000ffffULL);
        Z4_EXCHANGE(w[k + 1], w[k + 3], 16, 0x0000ffff0000ffffULL);
    }
    for (int k = 0; k < 8; k += 2)
        Z4_EXCHANGE(w[k], w[k + 1], 8, 0x00ff00ff00ff00ffULL);
}

/* Fold the top two bytes of eight elements, one word of eight bytes each:
 * high = s eeeeeee, low = e mmmmmmm  <->  high = eeeeeeee, low = s mmmmmmm. */
Z4_INLINE void z4_fold_bytes(uint64_t *high, uint64_t *low)
{
    const uint64_t top = 0x8080808080808080ULL, h = *high, l = *low;
    *high = (h & ~top) << 1 | (l & top) >> 7;
    *low = (h & top) | (l & ~top);
}
Z4_INLINE void z4_unfold_bytes(uint64_t *high, uint64_t *low)
{
    const uint64_t top = 0x8080808080808080ULL, h = *high, l = *low;
    *high = (l & top) | (h >> 1 & ~top);
    *low = (h << 7 & top) | (l & ~top);
}

Z4_INLINE void z4_split8_body(const uint8_t *src, size_t i, size_t n, uint8_t *const *planes,
                              int fold)
{
    uint64_t w[8];
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++)
            w[k] = z4_load64(src + 8 * (i + (size_t)k));
        z4_transpose8x8(w);
        if (fold)
            z4_fold_bytes(&w[7], &w[6]);
        for (int k = 0; k < 8; k++)
            z4_store64(planes[7 - k] + i, w[k]);
    }
    for (; i < n; i++) { /* 7 elements at most */
        uint64_t x = z4_load64(src + 8 * i);
        if (fold)
            x = z4_fold64(x);
        for (int k = 0; k < 8; k++)
            planes[7 - k][i] = (uint8_t)(x >> (8 * k));
    }
}

Z4_INLINE void z4_interleave2_body(const uint8_t *Z4_RESTRICT p0, const uint8_t *Z4_RESTRICT p1,
                                   size_t i, size_t n, uint8_t *Z4_RESTRICT dst, int fold)
{
    for (; i < n; i++) {
        uint16_t y = (uint16_t)((p0[i] << 8) | p1[i]);
        z4_store16(dst + 2 * i, fold ? z4_unfold16(y) : y);
    }
}

Z4_INLINE void z4_interleave4_body(const uint8_t *Z4_RESTRICT p0, const uint8_t *Z4_RESTRICT p1,
                                   const uint8_t *Z4_RESTRICT p2, const uint8_t *Z4_RESTRICT p3,
                                   size_t i, size_t n, uint8_t *Z4_RESTRICT dst, int fold)
{
    for (; i < n; i++) {
        uint32_t y = (uint32_t)p0[i] << 24 | (uint32_t)p1[i] << 16 | (uint32_t)p2[i] << 8 | p3[i];
        z4_store32(dst + 4 * i, fold ? z4_unfold32(y) : y);
    }
}

Z4_INLINE void z4_interleave8_body(const uint8_t *const *planes, size_t i, size_t n, uint8_t *dst,
                                   int fold)
{
    uint64_t w[8];
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++)
            w[k] = z4_load64(planes[7 - k] + i);
        if (fold)
            z4_unfold_bytes(&w[7], &w[6]);
        z4_transpose8x8(w);
        for (int k = 0; k < 8; k++)
            z4_store64(dst + 8 * (i + (size_t)k), w[k]);
    }
    for (; i < n; i++) { /* 7 elements at most */
        uint64_t y = 0;
        for (int k = 0; k < 8; k++)
            y = y << 8 | planes[k][i];
        z4_store64(dst + 8 * i, fold ? z4_unfold64(y) : y);
    }
}

Z4_INLINE uint16_t z4_bswap16(uint16_t x) { return (uint16_t)(x << 8 | x >> 8); }
Z4_INLINE uint32_t z4_bswap32(uint32_t x)
{
    return x << 24 | (x << 8 & 0xff0000u) | (x >> 8 & 0xff00u) | x >> 24;
}
Z4_INLINE uint64_t z4_bswap64(uint64_t x)
{
    return (uint64_t)z4_bswap32((uint32_t)x) << 32 | z4_bswap32((uint32_t)(x >> 32));
}

/* One element is read before it is written, so src == dst is right without a copy. */
Z4_INLINE void z4_swap2_body(const uint8_t *src, size_t i, size_t n, uint8_t *dst)
{
    for (; i < n; i++)
        z4_store16(dst + 2 * i, z4_bswap16(z4_load16(src + 2 * i)));
}
Z4_INLINE void z4_swap4_body(const uint8_t *src, size_t i, size_t n, uint8_t *dst)
{
    for (; i < n; i++)
        z4_store32(dst + 4 * i, z4_bswap32(z4_load32(src + 4 * i)));
}
Z4_INLINE void z4_swap8_body(const uint8_t *src, size_t i, size_t n, uint8_t *dst)
{
    for (; i < n; i++)
        z4_store64(dst + 8 * i, z4_bswap64(z4_load64(src + 8 * i)));
}

static inline void z4_split_bytes1(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    if (n)
        memcpy(planes[0], src, n);
}
static inline void z4_split_bytes2_scalar(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    z4_split2_body(src, 0, n, planes[0], planes[1], 0);
}
static inline void z4_split_bytes4_scalar(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    z4_split4_body(src, 0, n, planes[0], planes[1], planes[2], planes[3], 0);
}
static inline void z4_split_bytes8_scalar(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    z4_split8_body(src, 0, n, planes, 0);
}
static inline void z4_split_float2_scalar(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    z4_split2_body(src, 0, n, planes[0], planes[1], 1);
}
static inline void z4_split_float4_scalar(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    z4_split4_body(src, 0, n, planes[0], planes[1], planes[2], planes[3], 1);
}
static inline void z4_split_float8_scalar(const uint8_t *src, size_t n, uint8_t *const *planes)
{
    z4_split8_body(src, 0, n, planes, 1);
}

static inline void z4_interleave_bytes1(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    if (n)
        memcpy(dst, planes[0], n);
}
static inline void z4_interleave_bytes2_scalar(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    z4_interleave2_body(planes[0], planes[1], 0, n, dst, 0);
}
static inline void z4_interleave_bytes4_scalar(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    z4_interleave4_body(planes[0], planes[1], planes[2], planes[3], 0, n, dst, 0);
}
static inline void z4_interleave_bytes8_scalar(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    z4_interleave8_body(planes, 0, n, dst, 0);
}
static inline void z4_interleave_float2_scalar(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    z4_interleave2_body(planes[0], planes[1], 0, n, dst, 1);
}
static inline void z4_interleave_float4_scalar(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    z4_interleave4_body(planes[0], planes[1], planes[2], planes[3], 0, n, dst, 1);
}
static inline void z4_interleave_float8_scalar(const uint8_t *const *planes, size_t n, uint8_t *dst)
{
    z4_interleave8_body(planes, 0, n, dst, 1);
}

static inline void z4_swap_bytes1(const uint8_t *src, size_t n, uint8_t *dst)
{
    if (n && src != dst)
        memcpy(dst, src, n);
}
static inline void z4_swap_bytes2_scalar(const uint8_t *src, size_t n, uint8_t *dst)
{
    z4_swap2_body(src, 0, n, dst);
}
static inline void z4_swap_bytes4_scalar(const uint8_t *src, size_t n, uint8_t *dst)
{
    z4_swap4_body(src, 0, n, dst);
}
static inline void z4_swap_bytes8_scalar(const uint8_t *src, size_t n, uint8_t *dst)
{
    z4_swap8_body(src, 0, n, dst);
}

static inline void z4_stream_copy_scalar(uint8_t *dst, const uint8_t *src, size_t nbytes)
{
    if (nbytes)
        memcpy(dst, src, nbytes);
}

/* Order streaming stores before what follows; call it once after the last of them. */
static inline void z4_stream_fence(void)
{
#if Z4_X86
    _mm_sfence();
#endif
}

/* The functions of one variant, from its loops z4_splitW_isa and z4_interleaveW_isa, which return
 * how many elements they did. The rest goes to the scalar form. Names: z4_split_float2_avx2 and so on.
 *
 * The streaming form makes a few KiB in a buffer that stays in the first cache and copies it out
 * whole lines at a time, whatever the alignment of dst. */
enum { Z4_STREAM_STAGE = 4096 };

#define Z4_PLANES_LAYOUT(isa_, target_, layout_, w_, fold_)                                        \
    target_ static void z4_split_##layout_##_##isa_(const uint8_t *src, size_t n,                  \
                                                    uint8_t *const *planes)                        \
    {                                                                                              \
        uint8_t *rest[w_];                                                                         \
        const size_t done = z4_split##w_##_##isa_(src, n, planes, fold_);                          \
        for (int k = 0; k < w_; k++)                                                               \
            rest[k] = planes[k] + done;                                                            \
        z4_split_##layout_##_scalar(src + w_ * done, n - done, rest);                              \
    }                                                                                              \
    target_ static void z4_interleave_##layout_##_##isa_(const uint8_t *const *planes, size_t n,   \
                                                         uint8_t *dst)                             \
    {                                                                                              \
        const uint8_t *rest[w_];                                                                   \
        const size_t done = z4_interleave##w_##_##isa_(planes, n, dst, fold_);                     \
        for (int k = 0; k < w_; k++)                                                               \
            rest[k] = planes[k] + done;                                                            \
        z4_interleave_##layout_##_scalar(rest, n - done, dst + w_ * done);                         \
    }                                                                                              \
    target_ static void z4_interleave_nt_##layout_##_##isa_(const uint8_t *const *planes,          \
                                                            size_t n, uint8_t *dst)                \
    {                                                                                              \
        uint8_t stage[Z4_STREAM_STAGE];                                                            \
        const uint8_t *rest[w_];                                                                   \
        for (int k = 0; k < w_; k++)                                                               \
            rest[k] = planes[k];                                                                   \
        while (n) {                                                                                \
            const size_t m = n < Z4_STREAM_STAGE / w_ ? n : Z4_STREAM_STAGE / w_;                  \
            z4_interleave_##layout_##_##isa_(rest, m, stage);                                      \
            z4_stream_copy_##isa_(dst, stage, w_ * m);                                             \
            for (int k = 0; k < w_; k++)                                                           \
                rest[k] += m;                                                                      \
            dst += w_ * m;                                                                         \
            n -= m;                                                                                \
        }                                                                                          \
    }

#define Z4_PLANES_VARIANT(isa_, target_)                                                           \
    Z4_PLANES_LAYOUT(isa_, target_, bytes2, 2, 0)                                                  \
    Z4_PLANES_LAYOUT(isa_, target_, bytes4, 4, 0)                                                  \
    Z4_PLANES_LAYOUT(isa_, target_, bytes8, 8, 0)                                                  \
    Z4_PLANES_LAYOUT(isa_, target_, float2, 2, 1)                                                  \
    Z4_PLANES_LAYOUT(isa_, target_, float4, 4, 1)                                                  \
    Z4_PLANES_LAYOUT(isa_, target_, float8, 8, 1)                                                  \
    static void z4_interleave_nt_bytes1_##isa_(const uint8_t *const *planes, size_t n,             \
                                               uint8_t *dst)                                       \
    {                                                                                              \
        z4_stream_copy_##isa_(dst, planes[0], n);                                                  \
    }

#if Z4_X86
#include "z4_planes_avx2.h"
#include "z4_planes_avx512.h"
#endif

#define Z4_PLANES_SPLIT(isa_)                                                                      \
    {                                                                                              \
        z4_split_bytes1, z4_split_bytes2_##isa_, z4_split_bytes4_##isa_, z4_split_bytes8_##isa_,   \
            z4_split_float2_##isa_, z4_split_float4_##isa_, z4_split_float8_##isa_                 \
    }
#define Z4_PLANES_INTERLEAVE(isa_, bytes1_, nt_)                                                   \
    {                                                                                              \
        bytes1_, z4_interleave##nt_##_bytes2_##isa_, z4_interleave##nt_##_bytes4_##isa_,           \
            z4_interleave##nt_##_bytes8_##isa_, z4_interleave##nt_##_float2_##isa_,                \
            z4_interleave##nt_##_float4_##isa_, z4_interleave##nt_##_float8_##isa_                 \
    }

static const z4_planes_impl Z4_PLANES[] = {
    {"scalar", Z4_ISA_SCALAR, Z4_PLANES_SPLIT(scalar),
     Z4_PLANES_INTERLEAVE(scalar, z4_interleave_bytes1, ),
     Z4_PLANES_INTERLEAVE(scalar, z4_interleave_bytes1, ), /* no portable store past the cache */
     {z4_swap_bytes1, z4_swap_bytes2_scalar, z4_swap_bytes4_scalar, z4_swap_bytes8_scalar},
     z4_stream_copy_scalar},
#if Z4_X86
    {"avx2", Z4_ISA_AVX2, Z4_PLANES_SPLIT(avx2),
     Z4_PLANES_INTERLEAVE(avx2, z4_interleave_bytes1, ),
     Z4_PLANES_INTERLEAVE(avx2, z4_interleave_nt_bytes1_avx2, _nt),
     {z4_swap_bytes1, z4_swap_bytes2_avx2, z4_swap_bytes4_avx2, z4_swap_bytes8_avx2},
     z4_stream_copy_avx2},
    {"avx512", Z4_ISA_AVX512, Z4_PLANES_SPLIT(avx512),
     Z4_PLANES_INTERLEAVE(avx512, z4_interleave_bytes1, ),
     Z4_PLANES_INTERLEAVE(avx512, z4_interleave_nt_bytes1_avx512, _nt),
     /* bound by loads and stores already: the AVX2 form */
     {z4_swap_bytes1, z4_swap_bytes2_avx2, z4_swap_bytes4_avx2, z4_swap_bytes8_avx2},
     z4_stream_copy_avx512},
#endif
};

enum { Z4_PLANES_VARIANTS = (int)(sizeof Z4_PLANES / sizeof Z4_PLANES[0]) };

/* The row of that instruction set, or the nearest before it. */
static inline const z4_planes_impl *z4_planes_pick(int isa)
{
    const z4_planes_impl *best = &Z4_PLANES[0];
    for (int k = 1; k < Z4_PLANES_VARIANTS; k++)
        if (Z4_PLANES[k].isa <= isa)
            best = &Z4_PLANES[k];
    return best;
}

#endif
