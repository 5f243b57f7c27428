/* z4_rans_avx512.h -- sixteen lanes a vector; words are spread and collected by expand and
 * compress. */
#ifndef Z4_RANS_AVX512_H
#define Z4_RANS_AVX512_H

#include "z4_rans_avx2.h"

#if Z4_X86

#define Z4_RANS_AVX512 Z4_TARGET_AVX512 static inline __attribute__((always_inline))

Z4_RANS_AVX512 __m512i z4_rans_join512(__m256i a, __m256i b)
{
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
}

/* Not a gather, for the reason given in z4_rans_avx2.h. */
Z4_RANS_AVX512 __m512i z4_rans_lookup16(const uint32_t *t, __m512i index)
{
    return z4_rans_join512(z4_rans_lookup8(t, _mm512_castsi512_si256(index)),
                           z4_rans_lookup8(t, _mm512_extracti64x4_epi64(index, 1)));
}

/* ---- decoder ---- */

Z4_RANS_AVX512 void z4_rans_read_body_avx512(z4_rans_reading *r, int n, int with_contexts)
{
    const __m512i slots = _mm512_set1_epi32(Z4_RANS_TOTAL - 1),
                  low = _mm512_set1_epi32(Z4_RANS_LOW);
    const uint8_t *in = r->in, *limit = r->limit, *contexts = r->contexts;
    uint8_t *dst = r->dst;
    size_t groups = r->groups;
    __m512i state[4];
    for (int j = 0; j < n; j++)
        state[j] = _mm512_loadu_si512(r->state + 16 * j);
    for (; groups > 0 && limit - in >= Z4_RANS_ROOM; groups--) {
#pragma GCC unroll 4
        for (int j = 0; j < n; j++) {
            __m512i x = state[j], index = _mm512_and_si512(x, slots), e, words;
            __mmask16 taken;
            if (with_contexts) {
                __m512i c =
                    _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(contexts + 16 * j)));
                index = _mm512_or_si512(index, _mm512_slli_epi32(c, Z4_RANS_BITS));
            }
            e = z4_rans_lookup16(r->tables, index);
            _mm_storeu_si128((__m128i *)(dst + 16 * j), _mm512_cvtepi32_epi8(e));
            x = _mm512_mullo_epi32(_mm512_srli_epi32(x, Z4_RANS_BITS),
                                   _mm512_and_si512(_mm512_srli_epi32(e, 8), slots));
            x = _mm512_add_epi32(x, _mm512_srli_epi32(e, 20));
            taken = _mm512_cmplt_epu32_mask(x, low);
            words = _mm512_cvtepu16_epi32(
                _mm256_maskz_expand_epi16(taken, _mm256_loadu_si256((const __m256i *)in)));
            state[j] = _mm512_mask_or_epi32(x, taken, _mm512_slli_epi32(x, 16), words);
            in += 2 * _mm_popcnt_u32(taken);
        }
        dst += 16 * n;
        if (with_contexts)
            contexts += 16 * n;
    }
    for (int j = 0; j < n; j++)
        _mm512_storeu_si512(r->state + 16 * j, state[j]);
    r->in = in;
    r->dst = dst;
    r->contexts = contexts;
    r->groups = groups;
}

Z4_TARGET_AVX512 static inline void z4_rans_read_avx512(z4_rans_reading *r, unsigned lanes)
{
    if (lanes == 64 && r->contexts != NULL)
        z4_rans_read_body_avx512(r, 4, 1);
    else if (lanes == 64)
        z4_rans_read_body_avx512(r, 4, 0);
    else if (lanes == 16 && r->contexts != NULL)
        z4_rans_read_body_avx512(r, 1, 1);
    else if (lanes == 16)
        z4_rans_read_body_avx512(r, 1, 0);
    else
        z4_rans_read_scalar(r, lanes);
}

/* ---- encoder ---- */

Z4_RANS_AVX512 void z4_rans_write_body_avx512(z4_rans_writing *w, int n, int with_contexts)
{
    const __m512i twelve = _mm512_set1_epi32(Z4_RANS_TOTAL - 1);
    const __m512i total = _mm512_set1_epi32(Z4_RANS_TOTAL);
    const __m256i last =
        _mm256_setr_epi16(-16, -15, -14, -13, -12, -11, -10, -9, -8, -7, -6, -5, -4, -3, -2, -1);
    const __m512 nearly = _mm512_set1_ps(Z4_RANS_SHORT);
    const uint8_t *symbols = w->symbols, *contexts = w->contexts;
    uint8_t *out = w->out;
    size_t groups = w->groups;
    __m512i state[4], least = total;
    for (int j = 0; j < n; j++)
        state[j] = _mm512_loadu_si512(w->state + 16 * j);
    for (; groups > 0 && out - w->floor >= Z4_RANS_ROOM; groups--) {
        symbols -= 16 * n;
        if (with_contexts)
            contexts -= 16 * n;
#pragma GCC unroll 4
        for (int j = n - 1; j >= 0; j--) {
            const uint8_t *s = symbols + 16 * j, *c = with_contexts ? contexts + 16 * j : NULL;
            __m512i e =
                z4_rans_join512(z4_rans_codes8(w->codes, s, c),
                                z4_rans_codes8(w->codes, s + 8, with_contexts ? c + 8 : NULL));
            __m512i x = state[j], f = _mm512_and_si512(e, twelve), q, r;
            __m512 inverse = _mm512_div_ps(nearly, _mm512_cvtepi32_ps(f));
            __mmask16 full = _mm512_cmpge_epu32_mask(x, _mm512_slli_epi32(f, 19));
            __m256i words = _mm256_maskz_compress_epi16(full, _mm512_cvtepi32_epi16(x));
            unsigned count = (unsigned)_mm_popcnt_u32(full);
            least = _mm512_min_epu32(least, f);
            /* move them to the end of the vector, in front of what is written */
            words = _mm256_permutexvar_epi16(
                _mm256_add_epi16(last, _mm256_set1_epi16((short)count)), words);
            _mm256_storeu_si256((__m256i *)(out - 32), words);
            out -= 2 * count;
            x = _mm512_mask_srli_epi32(x, full, x, 16);
            q = _mm512_cvttps_epi32(_mm512_mul_ps(_mm512_cvtepi32_ps(x), inverse));
            r = _mm512_sub_epi32(x, _mm512_mullo_epi32(q, f));
            x = _mm512_add_epi32(_mm512_add_epi32(_mm512_slli_epi32(q, Z4_RANS_BITS), r),
                                 _mm512_srli_epi32(e, 12));
            /* one too small: 4096 more, and f less of the remainder */
            state[j] = _mm512_mask_add_epi32(x, _mm512_cmpge_epi32_mask(r, f), x,
                                             _mm512_sub_epi32(total, f));
        }
    }
    for (int j = 0; j < n; j++)
        _mm512_storeu_si512(w->state + 16 * j, state[j]);
    w->symbols = symbols;
    w->contexts = contexts;
    w->out = out;
    w->groups = groups;
    w->strange |= _mm512_cmpeq_epi32_mask(least, _mm512_setzero_si512()) != 0;
}

Z4_TARGET_AVX512 static inline void z4_rans_write_avx512(z4_rans_writing *w, unsigned lanes)
{
    if (lanes == 64 && w->contexts != NULL)
        z4_rans_write_body_avx512(w, 4, 1);
    else if (lanes == 64)
        z4_rans_write_body_avx512(w, 4, 0);
    else if (lanes == 16 && w->contexts != NULL)
        z4_rans_write_body_avx512(w, 1, 1);
    else if (lanes == 16)
        z4_rans_write_body_avx512(w, 1, 0);
    else
        z4_rans_write_scalar(w, lanes);
}

#endif
#endif
