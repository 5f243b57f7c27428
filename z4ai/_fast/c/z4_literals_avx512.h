/* z4_literals_avx512.h -- writing four streams with the codes of 64 symbols looked up at once.
 *
 * READ ME FIRST. A vector holds 16 symbols of each stream, stream k in 128-bit lane k, in the order
 * of memory. Streams are written from the last symbol on, so of two neighbours the one at the higher
 * address goes into the lower bits. Codes are joined pairwise: words to dwords to qwords (4 symbols,
 * 44 bits at most), and if all of them are short enough once more (8 symbols, 56 bits at most). The
 * joined codes go to a small array, and from there into the streams as single symbols would. */
#ifndef Z4_LITERALS_AVX512_H
#define Z4_LITERALS_AVX512_H

#include "z4_literals_encode.h"

#if Z4_X86

/* Low byte of each code; and its upper three bits with its length above them. */
typedef struct {
    __m512i low[4], high[4]; /* symbols 0..63, 64..127, 128..191, 192..255 */
} z4_lit_vectors;

Z4_TARGET_AVX512 static inline __m512i z4_lit_lookup512(const __m512i table[4], __m512i index)
{
    __m512i lower = _mm512_permutex2var_epi8(table[0], index, table[1]); /* by bits 0..6 */
    __m512i upper = _mm512_permutex2var_epi8(table[2], index, table[3]);
    return _mm512_mask_blend_epi8(_mm512_movepi8_mask(index), lower, upper); /* by bit 7 */
}

/* Words of code | length << 11, the earlier symbol in the lower word. Codes of four symbols, and
 * their lengths, in qwords. */
Z4_TARGET_AVX512 static inline __m512i z4_lit_quads512(__m512i words, __m512i *length)
{
    const __m512i code = _mm512_set1_epi32(0x7ff), four = _mm512_set1_epi32(0x1f);
    const __m512i dword = _mm512_set1_epi64(0xffffffff);
    __m512i later = _mm512_and_si512(_mm512_srli_epi32(words, 16), code);
    __m512i later_length = _mm512_srli_epi32(words, 27);
    __m512i earlier = _mm512_and_si512(words, code);
    __m512i earlier_length = _mm512_and_si512(_mm512_srli_epi32(words, 11), four);
    __m512i pair = _mm512_or_si512(later, _mm512_sllv_epi32(earlier, later_length));
    __m512i pair_length = _mm512_add_epi32(later_length, earlier_length);
    __m512i upper_length = _mm512_srli_epi64(pair_length, 32);
    *length = _mm512_add_epi64(upper_length, _mm512_and_si512(pair_length, dword));
    return _mm512_or_si512(_mm512_srli_epi64(pair, 32),
                           _mm512_sllv_epi64(_mm512_and_si512(pair, dword), upper_length));
}

/* Steps of 16 symbols of each stream are joined a few at a time and then stored, so that each of the
 * two loops has the registers it needs. */
enum { Z4_LIT_STEPS = 8 };

typedef struct {
    /* A row a step. Stream k has 2 k and 2 k + 1; the later one is written first. */
    _Alignas(64) uint64_t code[2 * Z4_LIT_STEPS][8], length[2 * Z4_LIT_STEPS][8];
} z4_lit_joined;

/* Join `count` steps, the first of them at src (stream 0; the others at multiples of seg behind it)
 * and each 16 bytes before the last one. `eights`: eight symbols at a time, a row a step; returns 0
 * if some do not fit 56 bits. Else four at a time, two rows a step: the odd fours, then the even. */
Z4_TARGET_AVX512 static inline __attribute__((always_inline)) int
z4_lit_join512(const uint8_t *src, size_t seg, size_t count, const z4_lit_vectors *v, int eights,
               z4_lit_joined *out)
{
    const __m512i width = _mm512_set1_epi64(64);
    __m512i longest = _mm512_setzero_si512();
    for (size_t i = 0; i < count; i++, src -= 16) {
        __m512i symbols, low, high, first, second, first_length, second_length, q0, q1, n0, n1;
        symbols = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)src));
        symbols = _mm512_inserti32x4(symbols, _mm_loadu_si128((const __m128i *)(src + seg)), 1);
        symbols = _mm512_inserti32x4(symbols, _mm_loadu_si128((const __m128i *)(src + 2 * seg)), 2);
        symbols = _mm512_inserti32x4(symbols, _mm_loadu_si128((const __m128i *)(src + 3 * seg)), 3);
        low = z4_lit_lookup512(v->low, symbols);
        high = z4_lit_lookup512(v->high, symbols);
        first = z4_lit_quads512(_mm512_unpacklo_epi8(low, high), &first_length);   /* fours 0, 1 */
        second = z4_lit_quads512(_mm512_unpackhi_epi8(low, high), &second_length); /* fours 2, 3 */
        q0 = _mm512_unpacklo_epi64(first, second); /* fours 0, 2: the earlier of each eight */
        q1 = _mm512_unpackhi_epi64(first, second); /* fours 1, 3 */
        n0 = _mm512_unpacklo_epi64(first_length, second_length);
        n1 = _mm512_unpackhi_epi64(first_length, second_length);
        if (eights) {
            __m512i n = _mm512_add_epi64(n0, n1), joined = _mm512_or_si512(q1, _mm512_sllv_epi64(q0, n1));
            longest = _mm512_max_epu64(longest, n);
            _mm512_store_si512(out->code[i], _mm512_sllv_epi64(joined, _mm512_sub_epi64(width, n)));
            _mm512_store_si512(out->length[i], n);
        } else {
            /* per stream: fours 3, 2 in one row and 1, 0 in the next, written from the right */
            __m512i c0 = _mm512_sllv_epi64(q0, _mm512_sub_epi64(width, n0));
            __m512i c1 = _mm512_sllv_epi64(q1, _mm512_sub_epi64(width, n1));
            _mm512_store_si512(out->code[2 * i], _mm512_unpackhi_epi64(c0, c1));
            _mm512_store_si512(out->code[2 * i + 1], _mm512_unpacklo_epi64(c0, c1));
            _mm512_store_si512(out->length[2 * i], _mm512_unpackhi_epi64(n0, n1));
            _mm512_store_si512(out->length[2 * i + 1], _mm512_unpacklo_epi64(n0, n1));
        }
    }
    return !_mm512_cmpgt_epi64_mask(longest, _mm512_set1_epi64(56));
}

/* Add a code that stands in the top bits; 7 + 56 bits at most are waiting then. */
Z4_INLINE void z4_lit_add_joined(z4_lit_writer *w, uint64_t code, uint64_t length)
{
    w->bits = w->bits >> (length & 63) | code;
    w->pos += length;
    z4_lit_flush(w);
}

/* Write `count` steps of stream k, which end at src + k * seg. */
Z4_TARGET_AVX512 static inline __attribute__((always_inline)) void
z4_lit_steps512(z4_lit_writer w[4], const uint8_t *src, size_t seg, size_t count,
                const z4_lit_vectors *v, int eights)
{
    z4_lit_writer a = w[0], b = w[1], c = w[2], d = w[3];
    z4_lit_joined joined;
    while (count > 0) {
        size_t part = count < Z4_LIT_STEPS ? count : Z4_LIT_STEPS, rows = part;
        if (!eights || !z4_lit_join512(src - 16, seg, part, v, 1, &joined)) {
            z4_lit_join512(src - 16, seg, part, v, 0, &joined);
            rows = 2 * part;
        }
        for (size_t i = 0; i < rows; i++) {
            const uint64_t *code = joined.code[i], *length = joined.length[i];
            z4_lit_add_joined(&a, code[1], length[1]);
            z4_lit_add_joined(&b, code[3], length[3]);
            z4_lit_add_joined(&c, code[5], length[5]);
            z4_lit_add_joined(&d, code[7], length[7]);
            z4_lit_add_joined(&a, code[0], length[0]);
            z4_lit_add_joined(&b, code[2], length[2]);
            z4_lit_add_joined(&c, code[4], length[4]);
            z4_lit_add_joined(&d, code[6], length[6]);
        }
        src -= 16 * part;
        count -= part;
    }
    w[0] = a;
    w[1] = b;
    w[2] = c;
    w[3] = d;
}

/* As z4_lit_encode4_body(), in steps of 16 symbols. n >= 1024: 15 steps at least, so half way is at
 * least 112 symbols from either end. */
Z4_TARGET_AVX512 static inline void z4_lit_encode4_avx512(const uint8_t *src, size_t n, uint8_t *dst,
                                                   const uint32_t nbytes[4], const uint64_t *entry)
{
    size_t seg = z4_lit_segment(n), steps = (n - 3 * seg) / 16, total = 0;
    uint8_t *start[4] = {dst, dst + nbytes[0], 0, 0};
    _Alignas(64) uint8_t low[Z4_HUF_SYMBOLS], high[Z4_HUF_SYMBOLS];
    uint64_t head[4];
    z4_lit_writer w[4];
    z4_lit_vectors v;
    int eights;
    start[2] = start[1] + nbytes[1];
    start[3] = start[2] + nbytes[2];
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++) {
        unsigned length = entry[s] & 15;
        unsigned code = (unsigned)(entry[s] >> (-length & 63)) & 0x7ff; /* of no length: not used */
        low[s] = (uint8_t)code;
        high[s] = (uint8_t)(code >> 8 | length << 3);
    }
    for (int i = 0; i < 4; i++) {
        v.low[i] = _mm512_load_si512(low + 64 * i);
        v.high[i] = _mm512_load_si512(high + 64 * i);
    }
    for (size_t k = 0; k < 4; k++) {
        z4_lit_writer begun = {k < 3 ? src + (k + 1) * seg : src + n, start[k], 0, 0};
        while (begun.src > src + k * seg + 16 * steps) {
            z4_lit_add(&begun, entry[*--begun.src]);
            z4_lit_flush(&begun);
        }
        w[k] = begun;
        total += nbytes[k];
    }
    eights = total * 8 < n * 11 / 2; /* above 5.5 bits a symbol they would seldom fit 56 */
    if (eights)
        z4_lit_steps512(w, src + 16 * steps, seg, steps / 2, &v, 1);
    else
        z4_lit_steps512(w, src + 16 * steps, seg, steps / 2, &v, 0);
    for (int k = 1; k < 4; k++)
        head[k] = z4_load64(start[k]);
    steps -= steps / 2;
    if (eights)
        z4_lit_steps512(w, src + 16 * steps, seg, steps, &v, 1);
    else
        z4_lit_steps512(w, src + 16 * steps, seg, steps, &v, 0);
    for (int k = 0; k < 4; k++)
        z4_lit_close(&w[k]);
    for (int k = 1; k < 4; k++)
        z4_store64(start[k], head[k]);
}

#endif
#endif
