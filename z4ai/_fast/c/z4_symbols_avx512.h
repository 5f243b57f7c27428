/* z4_symbols_avx512.h -- the symbol kernels of bf16 with AVX-512 and VBMI; included by
 * z4_symbols.h, contract there. Loops leave what is short of a turn to the plain form. */

Z4_TARGET_AVX512 static void z4_symbols_split2_avx512(const uint8_t *src, size_t n, unsigned base,
                                                      uint8_t *symbols, uint8_t *rest,
                                                      uint8_t *const *low)
{
    const __m512i even = z4_load_avx512(Z4_EVEN), odd = z4_load_avx512(Z4_ODD);
    const __m512i past = _mm512_set1_epi16((short)(base + 1)), most = _mm512_set1_epi16(254);
    const __m512i field = _mm512_set1_epi16(0x7fe0);
    size_t i = 0;
    (void)low;
    for (; i + 64 <= n; i += 64) {
        const __m512i a = z4_load_avx512(src + 2 * i), b = z4_load_avx512(src + 2 * i + 64);
        const __m512i fa = _mm512_and_si512(a, field), fb = _mm512_and_si512(b, field);
        const __m512i da = _mm512_sub_epi16(_mm512_srli_epi16(fa, 5), past);
        const __m512i db = _mm512_sub_epi16(_mm512_srli_epi16(fb, 5), past);
        const __m512i y = _mm512_permutex2var_epi8(_mm512_min_epu16(da, most), even,
                                                   _mm512_min_epu16(db, most));
        const __mmask64 some = (__mmask64)_mm512_test_epi16_mask(b, field) << 32
                               | _mm512_test_epi16_mask(a, field);
        const __m512i bits = _mm512_permutex2var_epi8(a, even, b);
        const __m512i sign = _mm512_srli_epi16(_mm512_permutex2var_epi8(a, odd, b), 2);
        z4_store_avx512(symbols + i, _mm512_maskz_add_epi8(some, y, _mm512_set1_epi8(1)));
        z4_store_avx512(rest + i,
                        z4_select_avx512(_mm512_and_si512(bits, _mm512_set1_epi8(0x1f)), sign,
                                         _mm512_set1_epi8(0x20)));
    }
    z4_symbols_split_body(src, i, n, base, symbols, rest, 5);
}

/* 32 elements from 32 symbols and remainders. */
Z4_AVX512 void z4_symbols_join2_avx512(const uint8_t *symbols, __m256i rest, __m512i base,
                                       uint8_t *dst)
{
    const __m512i y = _mm512_cvtepu8_epi16(z4_load_avx2(symbols));
    const __m512i r = _mm512_cvtepu8_epi16(rest);
    const __m512i seen = _mm512_maskz_add_epi16(_mm512_test_epi16_mask(y, y),
                                                _mm512_slli_epi16(y, 5), base);
    const __m512i low = _mm512_and_si512(r, _mm512_set1_epi16(0x1f));
    const __m512i signed_ =
        z4_select_avx512(low, _mm512_slli_epi16(r, 10), _mm512_set1_epi16((short)0x8000));
    z4_store_avx512(dst, z4_select_avx512(signed_, seen, _mm512_set1_epi16(0x7fe0)));
}

Z4_TARGET_AVX512 static void z4_symbols_merge2_avx512(const uint8_t *symbols, const uint8_t *rest,
                                                      const uint8_t *const *low, size_t n,
                                                      unsigned base, uint8_t *dst)
{
    const __m512i shifted = _mm512_set1_epi16((short)(base << 5));
    size_t i = 0;
    (void)low;
    for (; i + 32 <= n; i += 32)
        z4_symbols_join2_avx512(symbols + i, z4_load_avx2(rest + i), shifted, dst + 2 * i);
    z4_symbols_merge_body(symbols, rest, i, n, base, dst, 5);
}

Z4_TARGET_AVX512 static void z4_symbols_merge_packed2_avx512(const uint8_t *symbols,
                                                             const uint8_t *packed,
                                                             const uint8_t *const *low, size_t n,
                                                             unsigned base, uint8_t *dst)
{
    const __m512i shifted = _mm512_set1_epi16((short)(base << 5));
    size_t i = 0;
    (void)low;
    for (; i + 64 <= n; i += 64, packed += 48) {
        __m256i r0, r1;
        z4_symbols_unpack6_avx2(packed, &r0, &r1);
        z4_symbols_join2_avx512(symbols + i, r0, shifted, dst + 2 * i);
        z4_symbols_join2_avx512(symbols + i + 32, r1, shifted, dst + 2 * i + 64);
    }
    z4_symbols_merge_packed_tail(symbols, packed, i, n, base, dst);
}

Z4_TARGET_AVX512 static void z4_symbols_contexts_avx512(unsigned row, const uint8_t *columns,
                                                        size_t n, unsigned shift, unsigned most,
                                                        uint8_t *contexts)
{
    const __m512i start = _mm512_set1_epi8((char)row), limit = _mm512_set1_epi8((char)most);
    const __m512i kept = _mm512_set1_epi8((char)(0xff >> shift));
    const __m128i by = _mm_cvtsi32_si128((int)shift);
    size_t i = 0;
    for (; columns != NULL && i + 64 <= n; i += 64) {
        const __m512i sum = _mm512_add_epi8(z4_load_avx512(columns + i), start);
        const __m512i c = _mm512_and_si512(_mm512_srl_epi16(sum, by), kept);
        z4_store_avx512(contexts + i, _mm512_min_epu8(c, limit));
    }
    z4_symbols_contexts_body(row, columns, i, n, shift, most, contexts);
}

/* The planes around it take most of the time: no gain in writing this out for wider words. */
Z4_AVX512 void z4_symbols_unfold_avx512(const uint8_t *symbols, const uint8_t *rest, size_t n,
                                        unsigned base, uint8_t *high, uint8_t *low, unsigned k)
{
    z4_symbols_unfold_body(symbols, rest, 0, n, base, high, low, k);
}
#define z4_symbols_fold_avx512 z4_symbols_fold_avx2
#define z4_symbols_pack_group_avx512 z4_symbols_pack_group_avx2
#define z4_symbols_unpack_group_avx512 z4_symbols_unpack_group_avx2
