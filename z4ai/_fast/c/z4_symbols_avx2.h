/* z4_symbols_avx2.h -- the symbol kernels with AVX2, where the compiler's are slower; included by
 * z4_symbols.h, contract there. Loops leave what is short of a turn to the plain form.
 *
 * Unpacks and packs stay inside the 16-byte lanes, so words are loaded and stored as two pieces
 * that lie 16 elements apart: then bytes come out in order. */

/* 16 upper half words each in a and b: a symbol and a remainder a byte. past is base + 1. */
Z4_AVX2 void z4_symbols_cut_avx2(__m256i a, __m256i b, __m256i past, unsigned k, __m256i *symbols,
                                 __m256i *rest)
{
    const __m256i low = _mm256_set1_epi16((short)((1 << k) - 1));
    const __m256i field = _mm256_set1_epi16((short)(0x7fff & ~((1 << k) - 1)));
    const __m256i most = _mm256_set1_epi16(254), zero = _mm256_setzero_si256();
    const __m256i fa = _mm256_and_si256(a, field), fb = _mm256_and_si256(b, field);
    const __m256i da = _mm256_sub_epi16(_mm256_srli_epi16(fa, (int)k), past);
    const __m256i db = _mm256_sub_epi16(_mm256_srli_epi16(fb, (int)k), past);
    const __m256i y =
        _mm256_packus_epi16(_mm256_min_epu16(da, most), _mm256_min_epu16(db, most));
    const __m256i none =
        _mm256_packs_epi16(_mm256_cmpeq_epi16(fa, zero), _mm256_cmpeq_epi16(fb, zero));
    /* saturation keeps the signs */
    const __m256i sign =
        _mm256_and_si256(_mm256_packs_epi16(a, b), _mm256_set1_epi8((char)0x80));
    *symbols = _mm256_andnot_si256(none, _mm256_add_epi8(y, _mm256_set1_epi8(1)));
    *rest = _mm256_or_si256(
        _mm256_packus_epi16(_mm256_and_si256(a, low), _mm256_and_si256(b, low)),
        _mm256_srli_epi16(sign, (int)(7 - k)));
}

/* The way back; base is base << k. */
Z4_AVX2 void z4_symbols_join_avx2(__m256i symbols, __m256i rest, __m256i base, unsigned k,
                                  __m256i *a, __m256i *b)
{
    const __m256i field = _mm256_set1_epi16((short)(0x7fff & ~((1 << k) - 1)));
    const __m256i zero = _mm256_setzero_si256();
    const __m256i low = _mm256_and_si256(rest, _mm256_set1_epi8((char)((1 << k) - 1)));
    const __m256i sign = _mm256_and_si256(_mm256_slli_epi16(rest, (int)(7 - k)),
                                          _mm256_set1_epi8((char)0x80));
    const __m256i none = _mm256_cmpeq_epi8(symbols, zero);
    const __m256i ya = _mm256_unpacklo_epi8(symbols, zero);
    const __m256i yb = _mm256_unpackhi_epi8(symbols, zero);
    const __m256i ba = _mm256_andnot_si256(_mm256_unpacklo_epi8(none, none), base);
    const __m256i bb = _mm256_andnot_si256(_mm256_unpackhi_epi8(none, none), base);
    const __m256i fa = _mm256_add_epi16(_mm256_slli_epi16(ya, (int)k), ba);
    const __m256i fb = _mm256_add_epi16(_mm256_slli_epi16(yb, (int)k), bb);
    *a = _mm256_or_si256(_mm256_and_si256(fa, field), _mm256_unpacklo_epi8(low, sign));
    *b = _mm256_or_si256(_mm256_and_si256(fb, field), _mm256_unpackhi_epi8(low, sign));
}

Z4_TARGET_AVX2 static void z4_symbols_split2_avx2(const uint8_t *src, size_t n, unsigned base,
                                                  uint8_t *symbols, uint8_t *rest,
                                                  uint8_t *const *low)
{
    const __m256i past = _mm256_set1_epi16((short)(base + 1));
    size_t i = 0;
    (void)low;
    for (; i + 32 <= n; i += 32) {
        const uint8_t *p = src + 2 * i;
        __m256i y, r;
        z4_symbols_cut_avx2(z4_load2_avx2(p, p + 32), z4_load2_avx2(p + 16, p + 48), past, 5, &y,
                            &r);
        z4_store_avx2(symbols + i, y);
        z4_store_avx2(rest + i, r);
    }
    z4_symbols_split_body(src, i, n, base, symbols, rest, 5);
}

Z4_AVX2 void z4_symbols_join2_avx2(__m256i symbols, __m256i rest, __m256i base, uint8_t *dst)
{
    __m256i a, b;
    z4_symbols_join_avx2(symbols, rest, base, 5, &a, &b);
    z4_store2_avx2(dst, dst + 32, a);
    z4_store2_avx2(dst + 16, dst + 48, b);
}

Z4_TARGET_AVX2 static void z4_symbols_merge2_avx2(const uint8_t *symbols, const uint8_t *rest,
                                                  const uint8_t *const *low, size_t n,
                                                  unsigned base, uint8_t *dst)
{
    const __m256i shifted = _mm256_set1_epi16((short)(base << 5));
    size_t i = 0;
    (void)low;
    for (; i + 32 <= n; i += 32)
        z4_symbols_join2_avx2(z4_load_avx2(symbols + i), z4_load_avx2(rest + i), shifted,
                              dst + 2 * i);
    z4_symbols_merge_body(symbols, rest, i, n, base, dst, 5);
}

/* Remainders 0..31 and 32..63 of a group. Bits 6 and 7 are whatever they are. */
Z4_AVX2 void z4_symbols_unpack6_avx2(const uint8_t *packed, __m256i *first, __m256i *second)
{
    const __m256i low = z4_load_avx2(packed), four = _mm256_set1_epi8(0x0f);
    const __m256i upper =
        _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(packed + 32)));
    /* the upper two bits to bits 4 and 5: of j and j + 16, of j + 32 and j + 48 */
    const __m256i u0 = _mm256_sllv_epi64(upper, _mm256_setr_epi64x(4, 4, 2, 2));
    const __m256i u1 = _mm256_srlv_epi64(upper, _mm256_setr_epi64x(0, 0, 2, 2));
    *first = z4_select_avx2(u0, low, four);
    *second = z4_select_avx2(u1, _mm256_srli_epi16(low, 4), four);
}

Z4_AVX2 void z4_symbols_unpack_group_avx2(const uint8_t *packed, uint8_t *rest, unsigned r)
{
    const __m256i counts = _mm256_set1_epi8(r == 6 ? 0x3f : 0x0f);
    __m256i first, second;
    if (r == 6) {
        z4_symbols_unpack6_avx2(packed, &first, &second);
    } else {
        first = z4_load_avx2(packed);
        second = _mm256_srli_epi16(first, 4);
    }
    z4_store_avx2(rest, _mm256_and_si256(first, counts));
    z4_store_avx2(rest + 32, _mm256_and_si256(second, counts));
}

/* Masks of the first and of the other 16 bytes. */
#define Z4_HALVES(a_, b_)                                                                          \
    _mm256_inserti128_si256(_mm256_set1_epi8((char)(a_)), _mm_set1_epi8((char)(b_)), 1)

Z4_AVX2 void z4_symbols_pack_group_avx2(const uint8_t *rest, uint8_t *packed, unsigned r)
{
    const __m256i first = z4_load_avx2(rest), second = z4_load_avx2(rest + 32);
    z4_store_avx2(packed, z4_select_avx2(_mm256_slli_epi16(second, 4), first,
                                         _mm256_set1_epi8(0x0f)));
    if (r == 6) {
        const __m256i u0 = _mm256_srlv_epi64(first, _mm256_setr_epi64x(4, 4, 2, 2));
        const __m256i u1 = _mm256_sllv_epi64(second, _mm256_setr_epi64x(0, 0, 2, 2));
        const __m256i u = _mm256_or_si256(_mm256_and_si256(u0, Z4_HALVES(0x03, 0x0c)),
                                          _mm256_and_si256(u1, Z4_HALVES(0x30, 0xc0)));
        _mm_storeu_si128((__m128i *)(packed + 32),
                         _mm_or_si128(_mm256_castsi256_si128(u), _mm256_extracti128_si256(u, 1)));
    }
}

Z4_TARGET_AVX2 static void z4_symbols_merge_packed2_avx2(const uint8_t *symbols,
                                                         const uint8_t *packed,
                                                         const uint8_t *const *low, size_t n,
                                                         unsigned base, uint8_t *dst)
{
    const __m256i shifted = _mm256_set1_epi16((short)(base << 5));
    size_t i = 0;
    (void)low;
    for (; i + 64 <= n; i += 64, packed += 48) {
        __m256i r0, r1;
        z4_symbols_unpack6_avx2(packed, &r0, &r1);
        z4_symbols_join2_avx2(z4_load_avx2(symbols + i), r0, shifted, dst + 2 * i);
        z4_symbols_join2_avx2(z4_load_avx2(symbols + i + 32), r1, shifted, dst + 2 * i + 64);
    }
    z4_symbols_merge_packed_tail(symbols, packed, i, n, base, dst);
}

Z4_AVX2 void z4_symbols_fold_avx2(const uint8_t *high, const uint8_t *low, size_t n, unsigned base,
                                  uint8_t *symbols, uint8_t *rest, unsigned k)
{
    const __m256i past = _mm256_set1_epi16((short)(base + 1));
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        const __m256i h = z4_load_avx2(high + i), l = z4_load_avx2(low + i);
        __m256i y, r;
        z4_symbols_cut_avx2(_mm256_unpacklo_epi8(l, h), _mm256_unpackhi_epi8(l, h), past, k, &y,
                            &r);
        z4_store_avx2(symbols + i, y);
        z4_store_avx2(rest + i, r);
    }
    z4_symbols_fold_body(high, low, i, n, base, symbols, rest, k);
}

Z4_AVX2 void z4_symbols_unfold_avx2(const uint8_t *symbols, const uint8_t *rest, size_t n,
                                    unsigned base, uint8_t *high, uint8_t *low, unsigned k)
{
    const __m256i shifted = _mm256_set1_epi16((short)(base << k)), low8 = _mm256_set1_epi16(0xff);
    size_t i = 0;
    for (; i + 32 <= n; i += 32) {
        __m256i a, b;
        z4_symbols_join_avx2(z4_load_avx2(symbols + i), z4_load_avx2(rest + i), shifted, k, &a,
                             &b);
        z4_store_avx2(high + i,
                      _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8)));
        z4_store_avx2(low + i, _mm256_packus_epi16(_mm256_and_si256(a, low8),
                                                   _mm256_and_si256(b, low8)));
    }
    z4_symbols_unfold_body(symbols, rest, i, n, base, high, low, k);
}

Z4_TARGET_AVX2 static void z4_symbols_contexts_avx2(unsigned row, const uint8_t *columns, size_t n,
                                                    unsigned shift, unsigned most,
                                                    uint8_t *contexts)
{
    const __m256i start = _mm256_set1_epi8((char)row), limit = _mm256_set1_epi8((char)most);
    const __m256i kept = _mm256_set1_epi8((char)(0xff >> shift));
    const __m128i by = _mm_cvtsi32_si128((int)shift);
    size_t i = 0;
    for (; columns != NULL && i + 32 <= n; i += 32) {
        const __m256i sum = _mm256_add_epi8(z4_load_avx2(columns + i), start);
        const __m256i c = _mm256_and_si256(_mm256_srl_epi16(sum, by), kept);
        z4_store_avx2(contexts + i, _mm256_min_epu8(c, limit));
    }
    z4_symbols_contexts_body(row, columns, i, n, shift, most, contexts);
}
