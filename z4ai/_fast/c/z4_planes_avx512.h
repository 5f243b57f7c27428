/* z4_planes_avx512.h -- the plane kernels with AVX-512 and VBMI; included by z4_planes.h, contract
 * there. Loops take 64 elements a turn (w registers of 64 bytes) and leave at most 63 to the scalar
 * form. */

#define Z4_AVX512 Z4_TARGET_AVX512 Z4_INLINE

/* Truth table of "mask ? b : c" for _mm512_ternarylogic_epi64(mask, b, c, ...). */
#define Z4_SELECT 0xca

Z4_AVX512 __m512i z4_load_avx512(const uint8_t *p)
{
    return _mm512_loadu_si512((const void *)p);
}
Z4_AVX512 void z4_store_avx512(uint8_t *p, __m512i x)
{
    _mm512_storeu_si512((void *)p, x);
}
Z4_AVX512 __m512i z4_select_avx512(__m512i a, __m512i b, __m512i mask)
{
    return _mm512_ternarylogic_epi64(mask, b, a, Z4_SELECT);
}

/* As in AVX2: high = s eeeeeee, low = e mmmmmmm  <->  high = eeeeeeee, low = s mmmmmmm. */
Z4_AVX512 void z4_fold_bytes_avx512(__m512i *high, __m512i *low)
{
    const __m512i h = *high, l = *low;
    *high = z4_select_avx512(_mm512_add_epi8(h, h), _mm512_srli_epi16(l, 7), _mm512_set1_epi8(1));
    *low = z4_select_avx512(l, h, _mm512_set1_epi8((char)0x80));
}
Z4_AVX512 void z4_unfold_bytes_avx512(__m512i *high, __m512i *low)
{
    const __m512i top = _mm512_set1_epi8((char)0x80), h = *high, l = *low;
    *high = z4_select_avx512(_mm512_srli_epi16(h, 1), l, top);
    *low = z4_select_avx512(l, _mm512_slli_epi16(h, 7), top);
}

/* Transpose a 4 x 4 matrix of 16-byte pieces, one row a register. Its own inverse. */
Z4_AVX512 void z4_transpose4x4_avx512(__m512i x[4])
{
    const __m512i a = _mm512_shuffle_i64x2(x[0], x[1], 0x44); /* left halves of rows 0 and 1 */
    const __m512i b = _mm512_shuffle_i64x2(x[2], x[3], 0x44);
    const __m512i c = _mm512_shuffle_i64x2(x[0], x[1], 0xee); /* right halves */
    const __m512i d = _mm512_shuffle_i64x2(x[2], x[3], 0xee);
    x[0] = _mm512_shuffle_i64x2(a, b, 0x88);
    x[1] = _mm512_shuffle_i64x2(a, b, 0xdd);
    x[2] = _mm512_shuffle_i64x2(c, d, 0x88);
    x[3] = _mm512_shuffle_i64x2(c, d, 0xdd);
}

/* Index tables for vpermb and vpermi2b: byte j of the result is byte f(j) of the source, or of the
 * first and then the second source. */
#define Z4_TABLE8(f, j) f(j), f(j + 1), f(j + 2), f(j + 3), f(j + 4), f(j + 5), f(j + 6), f(j + 7)
#define Z4_TABLE64(f)                                                                              \
    {                                                                                              \
        Z4_TABLE8(f, 0), Z4_TABLE8(f, 8), Z4_TABLE8(f, 16), Z4_TABLE8(f, 24), Z4_TABLE8(f, 32),    \
            Z4_TABLE8(f, 40), Z4_TABLE8(f, 48), Z4_TABLE8(f, 56)                                   \
    }
/* split, width 2: one byte of each of 64 elements */
#define Z4_AT_EVEN(j) (2 * (j))
#define Z4_AT_ODD(j) (2 * (j) + 1)
/* interleave, width 2: low, high, low, high ... of bytes 0..31 and 32..63 of the planes */
#define Z4_AT_FRONT2(j) (((j) & 1) * 64 + (j) / 2)
#define Z4_AT_BACK2(j) (((j) & 1) * 64 + (j) / 2 + 32)
/* split, width 4: of 16 elements, 16 bytes of plane 0, of plane 1 ... */
#define Z4_AT_GATHER4(j) (3 - (j) / 16 + 4 * ((j) & 15))
/* interleave, width 4: the way back */
#define Z4_AT_SCATTER4(j) (16 * (3 - ((j) & 3)) + (j) / 4)
/* split, width 8: of 16 elements, 16 bytes of each of planes 0..3, and of planes 4..7 */
#define Z4_AT_UPPER8(j) (7 - (j) / 16 + 8 * ((j) & 15))
#define Z4_AT_LOWER8(j) (3 - (j) / 16 + 8 * ((j) & 15))
/* interleave, width 8: the way back, from planes 4..7 and 0..3, elements 0..7 and 8..15 */
#define Z4_AT_FRONT8(j) (16 * ((j) & 4) + 16 * (3 - ((j) & 3)) + (j) / 8)
#define Z4_AT_BACK8(j) (16 * ((j) & 4) + 16 * (3 - ((j) & 3)) + (j) / 8 + 8)

static const uint8_t Z4_EVEN[64] = Z4_TABLE64(Z4_AT_EVEN);
static const uint8_t Z4_ODD[64] = Z4_TABLE64(Z4_AT_ODD);
static const uint8_t Z4_FRONT2[64] = Z4_TABLE64(Z4_AT_FRONT2);
static const uint8_t Z4_BACK2[64] = Z4_TABLE64(Z4_AT_BACK2);
static const uint8_t Z4_GATHER4[64] = Z4_TABLE64(Z4_AT_GATHER4);
static const uint8_t Z4_SCATTER4[64] = Z4_TABLE64(Z4_AT_SCATTER4);
static const uint8_t Z4_UPPER8[64] = Z4_TABLE64(Z4_AT_UPPER8);
static const uint8_t Z4_LOWER8[64] = Z4_TABLE64(Z4_AT_LOWER8);
static const uint8_t Z4_FRONT8[64] = Z4_TABLE64(Z4_AT_FRONT8);
static const uint8_t Z4_BACK8[64] = Z4_TABLE64(Z4_AT_BACK8);

Z4_AVX512 size_t z4_split2_avx512(const uint8_t *src, size_t n, uint8_t *const *planes, int fold)
{
    const __m512i odd = z4_load_avx512(Z4_ODD), even = z4_load_avx512(Z4_EVEN);
    uint8_t *p0 = planes[0], *p1 = planes[1];
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        const __m512i a = z4_load_avx512(src + 2 * i), b = z4_load_avx512(src + 2 * i + 64);
        __m512i h = _mm512_permutex2var_epi8(a, odd, b), l = _mm512_permutex2var_epi8(a, even, b);
        if (fold)
            z4_fold_bytes_avx512(&h, &l);
        z4_store_avx512(p0 + i, h);
        z4_store_avx512(p1 + i, l);
    }
    return i;
}

Z4_AVX512 size_t z4_interleave2_avx512(const uint8_t *const *planes, size_t n, uint8_t *dst,
                                       int fold)
{
    const __m512i front = z4_load_avx512(Z4_FRONT2), back = z4_load_avx512(Z4_BACK2);
    const uint8_t *p0 = planes[0], *p1 = planes[1];
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i h = z4_load_avx512(p0 + i), l = z4_load_avx512(p1 + i);
        if (fold)
            z4_unfold_bytes_avx512(&h, &l);
        z4_store_avx512(dst + 2 * i, _mm512_permutex2var_epi8(l, front, h));
        z4_store_avx512(dst + 2 * i + 64, _mm512_permutex2var_epi8(l, back, h));
    }
    return i;
}

Z4_AVX512 size_t z4_split4_avx512(const uint8_t *src, size_t n, uint8_t *const *planes, int fold)
{
    const __m512i gather = z4_load_avx512(Z4_GATHER4);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i x[4];
        for (int k = 0; k < 4; k++)
            x[k] = _mm512_permutexvar_epi8(gather, z4_load_avx512(src + 4 * i + 64 * k));
        z4_transpose4x4_avx512(x);
        if (fold)
            z4_fold_bytes_avx512(&x[0], &x[1]);
        for (int k = 0; k < 4; k++)
            z4_store_avx512(planes[k] + i, x[k]);
    }
    return i;
}

Z4_AVX512 size_t z4_interleave4_avx512(const uint8_t *const *planes, size_t n, uint8_t *dst,
                                       int fold)
{
    const __m512i scatter = z4_load_avx512(Z4_SCATTER4);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i x[4];
        for (int k = 0; k < 4; k++)
            x[k] = z4_load_avx512(planes[k] + i);
        if (fold)
            z4_unfold_bytes_avx512(&x[0], &x[1]);
        z4_transpose4x4_avx512(x); /* 16 bytes of each plane a register */
        for (int k = 0; k < 4; k++)
            z4_store_avx512(dst + 4 * i + 64 * k, _mm512_permutexvar_epi8(scatter, x[k]));
    }
    return i;
}

Z4_AVX512 size_t z4_split8_avx512(const uint8_t *src, size_t n, uint8_t *const *planes, int fold)
{
    const __m512i upper = z4_load_avx512(Z4_UPPER8), lower = z4_load_avx512(Z4_LOWER8);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i u[4], l[4];
        for (int k = 0; k < 4; k++) {
            const uint8_t *p = src + 8 * i + 128 * k;
            const __m512i a = z4_load_avx512(p), b = z4_load_avx512(p + 64);
            u[k] = _mm512_permutex2var_epi8(a, upper, b);
            l[k] = _mm512_permutex2var_epi8(a, lower, b);
        }
        z4_transpose4x4_avx512(u);
        z4_transpose4x4_avx512(l);
        if (fold)
            z4_fold_bytes_avx512(&u[0], &u[1]);
        for (int k = 0; k < 4; k++) {
            z4_store_avx512(planes[k] + i, u[k]);
            z4_store_avx512(planes[k + 4] + i, l[k]);
        }
    }
    return i;
}

Z4_AVX512 size_t z4_interleave8_avx512(const uint8_t *const *planes, size_t n, uint8_t *dst,
                                       int fold)
{
    const __m512i front = z4_load_avx512(Z4_FRONT8), back = z4_load_avx512(Z4_BACK8);
    size_t i = 0;
    for (; i + 64 <= n; i += 64) {
        __m512i u[4], l[4];
        for (int k = 0; k < 4; k++) {
            u[k] = z4_load_avx512(planes[k] + i);
            l[k] = z4_load_avx512(planes[k + 4] + i);
        }
        if (fold)
            z4_unfold_bytes_avx512(&u[0], &u[1]);
        z4_transpose4x4_avx512(u);
        z4_transpose4x4_avx512(l);
        for (int k = 0; k < 4; k++) {
            uint8_t *p = dst + 8 * i + 128 * k;
            z4_store_avx512(p, _mm512_permutex2var_epi8(l[k], front, u[k]));
            z4_store_avx512(p + 64, _mm512_permutex2var_epi8(l[k], back, u[k]));
        }
    }
    return i;
}

Z4_TARGET_AVX512 static void z4_stream_copy_avx512(uint8_t *dst, const uint8_t *src, size_t nbytes)
{
    size_t head = (size_t)(0 - (uintptr_t)dst) & 63, i;
    if (head > nbytes)
        head = nbytes;
    z4_stream_copy_scalar(dst, src, head);
    for (i = head; i + 64 <= nbytes; i += 64)
        _mm512_stream_si512((void *)(dst + i), z4_load_avx512(src + i));
    z4_stream_copy_scalar(dst + i, src + i, nbytes - i);
}

Z4_PLANES_VARIANT(avx512, Z4_TARGET_AVX512)
