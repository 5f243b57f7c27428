/* z4_rans_avx2.h -- eight lanes a vector.
 *
 * Table look-ups are done by eight scalar loads and seven blends rather than by a gather: on the
 * machines at hand gathers are microcode, and half as fast. The indices pass through memory because
 * stores forward to narrower loads, which leaves the shuffle port alone. */
#ifndef Z4_RANS_AVX2_H
#define Z4_RANS_AVX2_H

#include "z4_rans_scalar.h"

#if Z4_X86

#define Z4_RANS_AVX2 Z4_TARGET_AVX2 static inline __attribute__((always_inline))

/* Place of each lane among the lanes of mask m, for all m: where its word stands. */
#define Z4_RANS_BELOW(m, i)                                                                        \
    (((m) & 1 && i > 0) + ((m) >> 1 & (i > 1)) + ((m) >> 2 & (i > 2)) + ((m) >> 3 & (i > 3)) +     \
     ((m) >> 4 & (i > 4)) + ((m) >> 5 & (i > 5)) + ((m) >> 6 & (i > 6)))
#define Z4_RANS_ROW(m)                                                                             \
    {Z4_RANS_BELOW(m, 0), Z4_RANS_BELOW(m, 1), Z4_RANS_BELOW(m, 2), Z4_RANS_BELOW(m, 3),           \
     Z4_RANS_BELOW(m, 4), Z4_RANS_BELOW(m, 5), Z4_RANS_BELOW(m, 6), Z4_RANS_BELOW(m, 7)}
#define Z4_RANS_ROWS4(m) Z4_RANS_ROW(m), Z4_RANS_ROW(m + 1), Z4_RANS_ROW(m + 2), Z4_RANS_ROW(m + 3)
#define Z4_RANS_ROWS16(m)                                                                          \
    Z4_RANS_ROWS4(m), Z4_RANS_ROWS4(m + 4), Z4_RANS_ROWS4(m + 8), Z4_RANS_ROWS4(m + 12)
#define Z4_RANS_ROWS64(m)                                                                          \
    Z4_RANS_ROWS16(m), Z4_RANS_ROWS16(m + 16), Z4_RANS_ROWS16(m + 32), Z4_RANS_ROWS16(m + 48)
static const uint8_t Z4_RANS_PLACES[256][8] = {Z4_RANS_ROWS64(0), Z4_RANS_ROWS64(64),
                                               Z4_RANS_ROWS64(128), Z4_RANS_ROWS64(192)};
#undef Z4_RANS_ROWS64
#undef Z4_RANS_ROWS16
#undef Z4_RANS_ROWS4
#undef Z4_RANS_ROW
#undef Z4_RANS_BELOW

/* The elements of a table at eight places. */
Z4_RANS_AVX2 __m256i z4_rans_pick8(const uint32_t *t, size_t a, size_t b, size_t c, size_t d,
                                   size_t e, size_t f, size_t g, size_t h)
{
#define Z4_RANS_ALL(i) _mm256_set1_epi32((int)t[i])
    __m256i ab = _mm256_blend_epi32(Z4_RANS_ALL(a), Z4_RANS_ALL(b), 0x02);
    __m256i cd = _mm256_blend_epi32(Z4_RANS_ALL(c), Z4_RANS_ALL(d), 0x08);
    __m256i ef = _mm256_blend_epi32(Z4_RANS_ALL(e), Z4_RANS_ALL(f), 0x20);
    __m256i gh = _mm256_blend_epi32(Z4_RANS_ALL(g), Z4_RANS_ALL(h), 0x80);
#undef Z4_RANS_ALL
    return _mm256_blend_epi32(_mm256_blend_epi32(ab, cd, 0x0c), _mm256_blend_epi32(ef, gh, 0xc0),
                              0xf0);
}

Z4_RANS_AVX2 __m256i z4_rans_lookup8(const uint32_t *t, __m256i index)
{
    uint64_t pair[4];
    _mm256_storeu_si256((__m256i *)pair, index);
    __asm__("" : "+m"(pair)); /* or the compiler takes the vector apart with shuffles */
    return z4_rans_pick8(t, (uint32_t)pair[0], pair[0] >> 32, (uint32_t)pair[1], pair[1] >> 32,
                         (uint32_t)pair[2], pair[2] >> 32, (uint32_t)pair[3], pair[3] >> 32);
}

/* ---- decoder ---- */

/* n: vectors, a constant at each call. */
Z4_RANS_AVX2 void z4_rans_read_body_avx2(z4_rans_reading *r, int n, int with_contexts)
{
    const __m256i slots = _mm256_set1_epi32(Z4_RANS_TOTAL - 1),
                  low = _mm256_set1_epi32(Z4_RANS_LOW);
    const __m256i byte = _mm256_set1_epi32(0xff);
    const uint8_t *in = r->in, *limit = r->limit, *contexts = r->contexts;
    uint8_t *dst = r->dst;
    size_t groups = r->groups;
    __m256i state[8];
    for (int j = 0; j < n; j++)
        state[j] = _mm256_loadu_si256((const __m256i *)(r->state + 8 * j));
    for (; groups > 0 && limit - in >= Z4_RANS_ROOM; groups--) {
        __m256i e[8];
#pragma GCC unroll 8
        for (int j = 0; j < n; j++) {
            __m256i x = state[j], index = _mm256_and_si256(x, slots), taken, words;
            unsigned mask;
            if (with_contexts) {
                __m256i c =
                    _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(contexts + 8 * j)));
                index = _mm256_or_si256(index, _mm256_slli_epi32(c, Z4_RANS_BITS));
            }
            e[j] = z4_rans_lookup8(r->tables, index);
            x = _mm256_mullo_epi32(_mm256_srli_epi32(x, Z4_RANS_BITS),
                                   _mm256_and_si256(_mm256_srli_epi32(e[j], 8), slots));
            x = _mm256_add_epi32(x, _mm256_srli_epi32(e[j], 20));
            taken = _mm256_cmpgt_epi32(low, x); /* below 2^31, so the sign is no matter */
            mask = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(taken));
            words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)in));
            words = _mm256_permutevar8x32_epi32(words, _mm256_cvtepu8_epi32(_mm_loadl_epi64(
                                                           (const __m128i *)Z4_RANS_PLACES[mask])));
            state[j] =
                _mm256_blendv_epi8(x, _mm256_or_si256(_mm256_slli_epi32(x, 16), words), taken);
            in += 2 * _mm_popcnt_u32(mask);
        }
        for (int j = 0; j < n; j += 2) {
            __m256i pair =
                _mm256_packus_epi32(_mm256_and_si256(e[j], byte), _mm256_and_si256(e[j + 1], byte));
            e[j / 2] = _mm256_permute4x64_epi64(pair, 0xd8); /* 16 words in order */
        }
        if (n == 2) {
            __m256i last = _mm256_packus_epi16(e[0], e[0]);
            _mm_storeu_si128((__m128i *)dst,
                             _mm256_castsi256_si128(_mm256_permute4x64_epi64(last, 0x08)));
        } else {
            for (int j = 0; j < n / 2; j += 2)
                _mm256_storeu_si256(
                    (__m256i *)(dst + 16 * j),
                    _mm256_permute4x64_epi64(_mm256_packus_epi16(e[j], e[j + 1]), 0xd8));
        }
        dst += 8 * n;
        if (with_contexts)
            contexts += 8 * n;
    }
    for (int j = 0; j < n; j++)
        _mm256_storeu_si256((__m256i *)(r->state + 8 * j), state[j]);
    r->in = in;
    r->dst = dst;
    r->contexts = contexts;
    r->groups = groups;
}

Z4_TARGET_AVX2 static inline void z4_rans_read_avx2(z4_rans_reading *r, unsigned lanes)
{
    if (lanes == 64 && r->contexts != NULL)
        z4_rans_read_body_avx2(r, 8, 1);
    else if (lanes == 64)
        z4_rans_read_body_avx2(r, 8, 0);
    else if (lanes == 16 && r->contexts != NULL)
        z4_rans_read_body_avx2(r, 2, 1);
    else if (lanes == 16)
        z4_rans_read_body_avx2(r, 2, 0);
    else
        z4_rans_read_scalar(r, lanes);
}

/* ---- encoder ---- */

/* Just below 1, so that an estimate of x / f never exceeds it: it is made by three roundings, each
 * off by 2^-23 at most in any rounding mode. x / f is below 2^19 and the estimate short by less
 * than 2^19 (2^-21 + 3 2^-23) < 1/2: its integer part is right or one too small. */
#define Z4_RANS_SHORT 0x1.fffffp-1f /* 1 - 2^-21 */

/* Codes of eight symbols; contexts NULL: one table. */
Z4_RANS_AVX2 __m256i z4_rans_codes8(const uint32_t *codes, const uint8_t *s,
                                    const uint8_t *contexts)
{
    uint16_t k[8];
    __m128i both;
    if (contexts == NULL)
        return z4_rans_pick8(codes, s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]);
    both = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)s),
                             _mm_loadl_epi64((const __m128i *)contexts));
    _mm_storeu_si128((__m128i *)k, both);
    __asm__("" : "+m"(k));
    return z4_rans_pick8(codes, k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7]);
}

/* For each mask, the lanes of it in order, the last of them last. */
Z4_RANS_AVX2 void z4_rans_gathering8(uint8_t lanes[256][8])
{
    for (unsigned m = 0; m < 256; m++) {
        unsigned to = 8;
        memset(lanes[m], 0, 8);
        for (unsigned i = 8; i-- > 0;)
            if (m >> i & 1)
                lanes[m][--to] = (uint8_t)i;
    }
}

Z4_RANS_AVX2 void z4_rans_write_body_avx2(z4_rans_writing *w, int n, int with_contexts)
{
    const __m256i twelve = _mm256_set1_epi32(Z4_RANS_TOTAL - 1);
    const __m256i total = _mm256_set1_epi32(Z4_RANS_TOTAL);
    const __m256i words =
        _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, -1, -1, -1, -1, -1, -1, -1, -1, 0, 1, 4, 5, 8, 9,
                         12, 13, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256 nearly = _mm256_set1_ps(Z4_RANS_SHORT);
    const uint8_t *symbols = w->symbols, *contexts = w->contexts;
    uint8_t *out = w->out;
    size_t groups = w->groups;
    __m256i state[8], least = total;
    uint8_t gathering[256][8];
    z4_rans_gathering8(gathering);
    for (int j = 0; j < n; j++)
        state[j] = _mm256_loadu_si256((const __m256i *)(w->state + 8 * j));
    for (; groups > 0 && out - w->floor >= Z4_RANS_ROOM; groups--) {
        symbols -= 8 * n;
        if (with_contexts)
            contexts -= 8 * n;
#pragma GCC unroll 8
        for (int j = n - 1; j >= 0; j--) {
            __m256i e =
                z4_rans_codes8(w->codes, symbols + 8 * j, with_contexts ? contexts + 8 * j : NULL);
            __m256i x = state[j], f = _mm256_and_si256(e, twelve), rest, q, r, fits;
            __m256 inverse = _mm256_div_ps(nearly, _mm256_cvtepi32_ps(f));
            unsigned mask;
            least = _mm256_min_epu32(least, f);
            fits = _mm256_cmpgt_epi32(_mm256_slli_epi32(f, 19), x); /* both below 2^31 */
            mask = ~(unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(fits)) & 255;
            r = _mm256_permutevar8x32_epi32(
                x, _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)gathering[mask])));
            r = _mm256_permute4x64_epi64(_mm256_shuffle_epi8(r, words), 0x08);
            _mm_storeu_si128((__m128i *)(out - 16), _mm256_castsi256_si128(r));
            out -= 2 * _mm_popcnt_u32(mask);
            x = _mm256_blendv_epi8(_mm256_srli_epi32(x, 16), x, fits);
            q = _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_cvtepi32_ps(x), inverse));
            rest = _mm256_sub_epi32(total, f);
            r = _mm256_sub_epi32(x, _mm256_mullo_epi32(q, f));
            x = _mm256_add_epi32(_mm256_add_epi32(_mm256_slli_epi32(q, Z4_RANS_BITS), r),
                                 _mm256_srli_epi32(e, 12));
            /* one too small: 4096 more, and f less of the remainder */
            state[j] = _mm256_add_epi32(x, _mm256_andnot_si256(_mm256_cmpgt_epi32(f, r), rest));
        }
    }
    for (int j = 0; j < n; j++)
        _mm256_storeu_si256((__m256i *)(w->state + 8 * j), state[j]);
    w->symbols = symbols;
    w->contexts = contexts;
    w->out = out;
    w->groups = groups;
    w->strange |= _mm256_movemask_epi8(_mm256_cmpeq_epi32(least, _mm256_setzero_si256())) != 0;
}

Z4_TARGET_AVX2 static inline void z4_rans_write_avx2(z4_rans_writing *w, unsigned lanes)
{
    if (lanes == 64 && w->contexts != NULL)
        z4_rans_write_body_avx2(w, 8, 1);
    else if (lanes == 64)
        z4_rans_write_body_avx2(w, 8, 0);
    else if (lanes == 16 && w->contexts != NULL)
        z4_rans_write_body_avx2(w, 2, 1);
    else if (lanes == 16)
        z4_rans_write_body_avx2(w, 2, 0);
    else
        z4_rans_write_scalar(w, lanes);
}

#endif
#endif
