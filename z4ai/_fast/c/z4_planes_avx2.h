/* z4_planes_avx2.h -- the plane kernels with AVX2; included by z4_planes.h, contract there.
 *
 * Loops take 32 elements a turn (w registers of 32 bytes) and leave at most 31 to the scalar form.
 * Unpacks and byte shuffles stay inside the 16-byte lanes. So element registers are loaded and
 * stored as two pieces that lie 16 elements apart, and then planes come out in order. */

#define Z4_AVX2 Z4_TARGET_AVX2 Z4_INLINE

/* Two 16-byte pieces in one register. */
Z4_AVX2 __m256i z4_load2_avx2(const uint8_t *low, const uint8_t *high)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low)),
                                   _mm_loadu_si128((const __m128i *)high), 1);
}
Z4_AVX2 void z4_store2_avx2(uint8_t *low, uint8_t *high, __m256i x)
{
    _mm_storeu_si128((__m128i *)low, _mm256_castsi256_si128(x));
    _mm_storeu_si128((__m128i *)high, _mm256_extracti128_si256(x, 1));
}
Z4_AVX2 __m256i z4_load_avx2(const uint8_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}
Z4_AVX2 void z4_store_avx2(uint8_t *p, __m256i x)
{
    _mm256_storeu_si256((__m256i *)p, x);
}

/* Bits of b where mask has a one, of a elsewhere. */
Z4_AVX2 __m256i z4_select_avx2(__m256i a, __m256i b, __m256i mask)
{
    return _mm256_xor_si256(a, _mm256_and_si256(_mm256_xor_si256(a, b), mask));
}

/* Fold the top two bytes of elements, see Z4_FOLD, where each byte has a register of its own:
 * high = s eeeeeee, low = e mmmmmmm  <->  high = eeeeeeee, low = s mmmmmmm.
 * There is no shift of bytes: a shift of 16-bit words brings the right bit to each byte's end, and
 * the mask drops what came in from the neighbour. */
Z4_AVX2 void z4_fold_bytes_avx2(__m256i *high, __m256i *low)
{
    const __m256i h = *high, l = *low;
    *high = z4_select_avx2(_mm256_add_epi8(h, h), _mm256_srli_epi16(l, 7), _mm256_set1_epi8(1));
    *low = z4_select_avx2(l, h, _mm256_set1_epi8((char)0x80));
}
Z4_AVX2 void z4_unfold_bytes_avx2(__m256i *high, __m256i *low)
{
    const __m256i top = _mm256_set1_epi8((char)0x80), h = *high, l = *low;
    *high = z4_select_avx2(_mm256_srli_epi16(h, 1), l, top);
    *low = z4_select_avx2(l, _mm256_slli_epi16(h, 7), top);
}

Z4_AVX2 size_t z4_split2_avx2(const uint8_t *src, size_t n, uint8_t *const *planes, int fold)
{
    const __m256i low8 = _mm256_set1_epi16(0xff);
    uint8_t *p0 = planes[0], *p1 = planes[1];
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i a = z4_load2_avx2(src + 2 * i, src + 2 * i + 32);
        const __m256i b = z4_load2_avx2(src + 2 * i + 16, src + 2 * i + 48);
        __m256i h = _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8));
        __m256i l = _mm256_packus_epi16(_mm256_and_si256(a, low8), _mm256_and_si256(b, low8));
        if (fold)
            z4_fold_bytes_avx2(&h, &l);
        z4_store_avx2(p0 + i, h);
        z4_store_avx2(p1 + i, l);
    }
    return i;
}

Z4_AVX2 size_t z4_interleave2_avx2(const uint8_t *const *planes, size_t n, uint8_t *dst, int fold)
{
    const uint8_t *p0 = planes[0], *p1 = planes[1];
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i h = z4_load_avx2(p0 + i), l = z4_load_avx2(p1 + i);
        if (fold)
            z4_unfold_bytes_avx2(&h, &l);
        const __m256i a = _mm256_unpacklo_epi8(l, h), b = _mm256_unpackhi_epi8(l, h);
        z4_store_avx2(dst + 2 * i, _mm256_permute2x128_si256(a, b, 0x20));
        z4_store_avx2(dst + 2 * i + 32, _mm256_permute2x128_si256(a, b, 0x31));
    }
    return i;
}

Z4_AVX2 size_t z4_split4_avx2(const uint8_t *src, size_t n, uint8_t *const *planes, int fold)
{
    /* per lane: the four bytes of one plane side by side, most significant plane first */
    const __m256i gather = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(3, 7, 11, 15, 2, 6, 10, 14, 1, 5, 9, 13, 0, 4, 8, 12));
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i x[4], t[4];
        for (int k = 0; k < 4; k++) {
            const uint8_t *p = src + 4 * i + 16 * k;
            x[k] = _mm256_shuffle_epi8(z4_load2_avx2(p, p + 64), gather);
        }
        t[0] = _mm256_unpacklo_epi32(x[0], x[1]); /* planes 0 and 1 of elements 0..7 */
        t[1] = _mm256_unpacklo_epi32(x[2], x[3]); /* planes 0 and 1 of elements 8..15 */
        t[2] = _mm256_unpackhi_epi32(x[0], x[1]); /* planes 2 and 3 */
        t[3] = _mm256_unpackhi_epi32(x[2], x[3]);
        x[0] = _mm256_unpacklo_epi64(t[0], t[1]);
        x[1] = _mm256_unpackhi_epi64(t[0], t[1]);
        if (fold)
            z4_fold_bytes_avx2(&x[0], &x[1]);
        z4_store_avx2(planes[0] + i, x[0]);
        z4_store_avx2(planes[1] + i, x[1]);
        z4_store_avx2(planes[2] + i, _mm256_unpacklo_epi64(t[2], t[3]));
        z4_store_avx2(planes[3] + i, _mm256_unpackhi_epi64(t[2], t[3]));
    }
    return i;
}

Z4_AVX2 size_t z4_interleave4_avx2(const uint8_t *const *planes, size_t n, uint8_t *dst, int fold)
{
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i p2 = z4_load_avx2(planes[2] + i), p3 = z4_load_avx2(planes[3] + i);
        __m256i p0 = z4_load_avx2(planes[0] + i), p1 = z4_load_avx2(planes[1] + i), x[4];
        if (fold)
            z4_unfold_bytes_avx2(&p0, &p1);
        const __m256i low0 = _mm256_unpacklo_epi8(p3, p2), low1 = _mm256_unpackhi_epi8(p3, p2);
        const __m256i high0 = _mm256_unpacklo_epi8(p1, p0), high1 = _mm256_unpackhi_epi8(p1, p0);
        x[0] = _mm256_unpacklo_epi16(low0, high0); /* elements 0..3 and 16..19 */
        x[1] = _mm256_unpackhi_epi16(low0, high0);
        x[2] = _mm256_unpacklo_epi16(low1, high1);
        x[3] = _mm256_unpackhi_epi16(low1, high1);
        for (int k = 0; k < 4; k++) {
            uint8_t *p = dst + 4 * i + 16 * k;
            z4_store2_avx2(p, p + 64, x[k]);
        }
    }
    return i;
}

Z4_AVX2 size_t z4_split8_avx2(const uint8_t *src, size_t n, uint8_t *const *planes, int fold)
{
    /* per lane: the two bytes of one plane side by side, most significant plane first */
    const __m256i gather = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(7, 15, 6, 14, 5, 13, 4, 12, 3, 11, 2, 10, 1, 9, 0, 8));
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i x[8], t[8];
        for (int k = 0; k < 8; k++) {
            const uint8_t *p = src + 8 * i + 16 * k;
            x[k] = _mm256_shuffle_epi8(z4_load2_avx2(p, p + 128), gather);
        }
        for (int k = 0; k < 4; k++) { /* planes 0..3 (4..7) of four elements */
            t[k] = _mm256_unpacklo_epi16(x[2 * k], x[2 * k + 1]);
            t[k + 4] = _mm256_unpackhi_epi16(x[2 * k], x[2 * k + 1]);
        }
        for (int h = 0; h < 2; h++) {
            /* two planes of 8 elements each */
            const __m256i a0 = _mm256_unpacklo_epi32(t[4 * h], t[4 * h + 1]);
            const __m256i a1 = _mm256_unpacklo_epi32(t[4 * h + 2], t[4 * h + 3]);
            const __m256i b0 = _mm256_unpackhi_epi32(t[4 * h], t[4 * h + 1]);
            const __m256i b1 = _mm256_unpackhi_epi32(t[4 * h + 2], t[4 * h + 3]);
            __m256i first = _mm256_unpacklo_epi64(a0, a1), second = _mm256_unpackhi_epi64(a0, a1);
            if (fold && h == 0)
                z4_fold_bytes_avx2(&first, &second);
            z4_store_avx2(planes[4 * h] + i, first);
            z4_store_avx2(planes[4 * h + 1] + i, second);
            z4_store_avx2(planes[4 * h + 2] + i, _mm256_unpacklo_epi64(b0, b1));
            z4_store_avx2(planes[4 * h + 3] + i, _mm256_unpackhi_epi64(b0, b1));
        }
    }
    return i;
}

Z4_AVX2 size_t z4_interleave8_avx2(const uint8_t *const *planes, size_t n, uint8_t *dst, int fold)
{
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i pair[4][2], quad[2][4];
        for (int k = 0; k < 4; k++) { /* bytes 2k and 2k + 1 of the word */
            __m256i low = z4_load_avx2(planes[7 - 2 * k] + i);
            __m256i high = z4_load_avx2(planes[6 - 2 * k] + i);
            if (fold && k == 3)
                z4_unfold_bytes_avx2(&high, &low);
            pair[k][0] = _mm256_unpacklo_epi8(low, high); /* elements 0..7 */
            pair[k][1] = _mm256_unpackhi_epi8(low, high); /* elements 8..15 */
        }
        for (int k = 0; k < 2; k++) /* the low and the high half of the word */
            for (int e = 0; e < 2; e++) {
                quad[k][2 * e] = _mm256_unpacklo_epi16(pair[2 * k][e], pair[2 * k + 1][e]);
                quad[k][2 * e + 1] = _mm256_unpackhi_epi16(pair[2 * k][e], pair[2 * k + 1][e]);
            }
        for (int e = 0; e < 4; e++) { /* four elements each, and the four 16 further on */
            const __m256i a = _mm256_unpacklo_epi32(quad[0][e], quad[1][e]);
            const __m256i b = _mm256_unpackhi_epi32(quad[0][e], quad[1][e]);
            uint8_t *p = dst + 8 * i + 32 * e;
            z4_store2_avx2(p, p + 128, a);
            z4_store2_avx2(p + 16, p + 144, b);
        }
    }
    return i;
}

Z4_AVX2 size_t z4_swap_avx2(const uint8_t *src, size_t nbytes, uint8_t *dst, __m128i order)
{
    const __m256i reverse = _mm256_broadcastsi128_si256(order);
    size_t i = 0;
    for (; i + 64 <= nbytes; i += 64) {
        const __m256i a = z4_load_avx2(src + i), b = z4_load_avx2(src + i + 32);
        z4_store_avx2(dst + i, _mm256_shuffle_epi8(a, reverse));
        z4_store_avx2(dst + i + 32, _mm256_shuffle_epi8(b, reverse));
    }
    return i;
}

Z4_TARGET_AVX2 static void z4_swap_bytes2_avx2(const uint8_t *src, size_t n, uint8_t *dst)
{
    const __m128i order = _mm_setr_epi8(1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    const size_t done = z4_swap_avx2(src, 2 * n, dst, order);
    z4_swap_bytes2_scalar(src + done, n - done / 2, dst + done);
}
Z4_TARGET_AVX2 static void z4_swap_bytes4_avx2(const uint8_t *src, size_t n, uint8_t *dst)
{
    const __m128i order = _mm_setr_epi8(3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12);
    const size_t done = z4_swap_avx2(src, 4 * n, dst, order);
    z4_swap_bytes4_scalar(src + done, n - done / 4, dst + done);
}
Z4_TARGET_AVX2 static void z4_swap_bytes8_avx2(const uint8_t *src, size_t n, uint8_t *dst)
{
    const __m128i order = _mm_setr_epi8(7, 6, 5, 4, 3, 2, 1, 0, 15, 14, 13, 12, 11, 10, 9, 8);
    const size_t done = z4_swap_avx2(src, 8 * n, dst, order);
    z4_swap_bytes8_scalar(src + done, n - done / 8, dst + done);
}

/* Head up to a line of 64 bytes, whole lines past the cache, tail. */
Z4_TARGET_AVX2 static void z4_stream_copy_avx2(uint8_t *dst, const uint8_t *src, size_t nbytes)
{
    size_t head = (size_t)(0 - (uintptr_t)dst) & 63, i;
    if (head > nbytes)
        head = nbytes;
    z4_stream_copy_scalar(dst, src, head);
    for (i = head; i + 64 <= nbytes; i += 64) {
        const __m256i a = z4_load_avx2(src + i), b = z4_load_avx2(src + i + 32);
        _mm256_stream_si256((__m256i *)(dst + i), a);
        _mm256_stream_si256((__m256i *)(dst + i + 32), b);
    }
    z4_stream_copy_scalar(dst + i, src + i, nbytes - i);
}

Z4_PLANES_VARIANT(avx2, Z4_TARGET_AVX2)
