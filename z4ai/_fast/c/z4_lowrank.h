/* z4_lowrank.h -- what a product of two thin matrices of integers adds to a matrix of floats.
 *
 * docs/format/codecs/lowrank.md. What a decoder needs is exact: products and sums of integers below
 * 2^53, held in doubles, so neither their order nor a fused multiply-add can change a bit; then one
 * rounding, a product with a power of two, one addition, one rounding. Numbers are converted here and
 * not by the processor, which may have been told to flush subnormal ones to zero; no double on the way
 * is subnormal. Contract: no overlap of inputs with outputs, nothing fails, nothing is allocated. */
#ifndef Z4_LOWRANK_H
#define Z4_LOWRANK_H

#include <float.h>

#include "z4_cpu.h"
#include "z4_portable.h"

#if defined(FLT_EVAL_METHOD) && FLT_EVAL_METHOD > 1
#error "doubles with excess precision: build with -msse2 -mfpmath=sse"
#endif

enum z4_float { Z4_FP16 = 0, Z4_BF16 = 1, Z4_FP32 = 2, Z4_FP64 = 3 };

/* Columns of a tile: two rows of sums, one of prediction, and eight rows of the right factor. */
#define Z4_LOWRANK_TILE 512
/* Bits of the low half of a left factor, where a product needs two halves. */
#define Z4_LOWRANK_LOW_BITS 12

Z4_INLINE unsigned z4_float_width(int kind) { return kind == Z4_FP64 ? 8 : kind == Z4_FP32 ? 4 : 2; }
Z4_INLINE int z4_float_mantissa(int kind)
{
    return kind == Z4_FP16 ? 10 : kind == Z4_BF16 ? 7 : kind == Z4_FP32 ? 23 : 52;
}
Z4_INLINE int z4_float_bias(int kind) { return kind == Z4_FP16 ? 15 : kind == Z4_FP64 ? 1023 : 127; }

Z4_INLINE double z4_double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
Z4_INLINE uint64_t z4_bits_of(double x)
{
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

Z4_INLINE uint64_t z4_float_word(int kind, const uint8_t *src, size_t i)
{
    return kind == Z4_FP64   ? z4_load64(src + 8 * i)
           : kind == Z4_FP32 ? z4_load32(src + 4 * i)
                             : z4_load16(src + 2 * i);
}

Z4_INLINE int z4_float_infinite(int kind, uint64_t word)
{
    unsigned width = 8 * z4_float_width(kind);
    int mantissa = z4_float_mantissa(kind);
    uint64_t mask = ((uint64_t)1 << (width - 1 - mantissa)) - 1;
    return (word >> mantissa & mask) == mask;
}

/* All ones in the exponent: infinite or not a number; of fp64 also what is so small that a sum with it
 * could be subnormal. Such an element is its own prediction. */
Z4_INLINE int z4_float_apart(int kind, uint64_t word)
{
    return z4_float_infinite(kind, word) || (kind == Z4_FP64 && (word >> 52 & 0x7ff) < 64);
}

/* The value of a finite word; exact. */
Z4_INLINE double z4_float_value(int kind, uint64_t word)
{
    if (kind == Z4_FP64) {
        return z4_double_of(word);
    }
    unsigned width = 8 * z4_float_width(kind);
    int mantissa = z4_float_mantissa(kind);
    int bias = z4_float_bias(kind);
    uint64_t magnitude = word & (((uint64_t)1 << (width - 1)) - 1);
    uint64_t sign = word >> (width - 1) << 63;
    uint64_t normal = (magnitude << (52 - mantissa)) + ((uint64_t)(1023 - bias) << 52);
    /* A subnormal number counts steps of 2^(1 - bias - mantissa): as if its exponent were 1, less the
     * leading one that this one does not have. */
    double least = z4_double_of((uint64_t)(1024 - bias) << 52);
    double small = z4_double_of(normal + ((uint64_t)1 << 52)) - least;
    uint64_t bits = magnitude >> mantissa ? normal : z4_bits_of(small);
    return z4_double_of(bits | sign);
}

/* The word nearest to a finite double, of two the even one; infinity beyond the largest. */
Z4_INLINE uint64_t z4_float_round(int kind, double x)
{
    if (kind == Z4_FP64) {
        return z4_bits_of(x);
    }
    unsigned width = 8 * z4_float_width(kind);
    int mantissa = z4_float_mantissa(kind);
    int bias = z4_float_bias(kind);
    int drop = 52 - mantissa;
    uint64_t sign = z4_bits_of(x) >> 63 << (width - 1);
    uint64_t bits = z4_bits_of(x) & ~((uint64_t)1 << 63);
    uint64_t infinity = (((uint64_t)1 << (width - 1 - mantissa)) - 1) << mantissa;
    /* Of a sum with 2^52 steps the low bits are the number of steps, rounded by the addition. */
    double steps = z4_double_of((uint64_t)(1023 + 52 + 1 - bias - mantissa) << 52);
    uint64_t least = (uint64_t)(1024 - bias) << 52;
    uint64_t small = z4_bits_of(z4_double_of(bits < least ? bits : 0) + steps) - z4_bits_of(steps);
    uint64_t rounded = (bits + (((uint64_t)1 << (drop - 1)) - 1) + (bits >> drop & 1)) >> drop;
    uint64_t normal = rounded - ((uint64_t)(1023 - bias) << mantissa);
    uint64_t word = bits < least ? small : normal;
    return (word < infinity ? word : infinity) | sign;
}

Z4_INLINE void z4_float_store(int kind, uint8_t *dst, size_t i, uint64_t word)
{
    if (kind == Z4_FP64) {
        z4_store64(dst + 8 * i, word);
    } else if (kind == Z4_FP32) {
        z4_store32(dst + 4 * i, (uint32_t)word);
    } else {
        z4_store16(dst + 2 * i, (uint16_t)word);
    }
}

/* sums[j] = sum of left[k] * right[k * stride + j] over k, exact for integers. */
Z4_INLINE void z4_lowrank_sums(const double *left, size_t rank, const double *right, size_t stride, size_t n,
                               double *Z4_RESTRICT sums)
{
    size_t k = 0;
    memset(sums, 0, n * sizeof *sums);
    for (; k + 4 <= rank; k += 4) {
        const double *r0 = right + k * stride, *r1 = r0 + stride, *r2 = r1 + stride, *r3 = r2 + stride;
        double a = left[k], b = left[k + 1], c = left[k + 2], d = left[k + 3];
        for (size_t j = 0; j < n; j++) {
            sums[j] = (((sums[j] + a * r0[j]) + b * r1[j]) + c * r2[j]) + d * r3[j];
        }
    }
    for (; k < rank; k++) {
        const double *r = right + k * stride;
        double a = left[k];
        for (size_t j = 0; j < n; j++) {
            sums[j] += a * r[j];
        }
    }
}

/* A matrix and what is added to it. `high` and `low` are rows x rank: a left factor is 2^12 high + low,
 * or `low` alone where `high` is NULL; all sums of products with `right`, rank x columns, are below 2^53. */
typedef struct {
    size_t columns;
    size_t rank;
    const double *high;
    const double *low;
    const double *right;
    double scale; /* a power of two */
    int rounds;
} z4_lowrank_product;

Z4_INLINE void z4_lowrank_predict_body(int kind, const z4_lowrank_product *product, const uint8_t *base,
                                       size_t rows, uint8_t *dst)
{
    double high[Z4_LOWRANK_TILE], low[Z4_LOWRANK_TILE];
    size_t rank = product->rank, columns = product->columns;
    double scale = product->scale;
    int rounds = product->rounds;
    for (size_t from = 0; from < columns; from += Z4_LOWRANK_TILE) {
        size_t n = columns - from < Z4_LOWRANK_TILE ? columns - from : Z4_LOWRANK_TILE;
        for (size_t i = 0; i < rows; i++) {
            const uint8_t *src = base + (i * columns + from) * z4_float_width(kind);
            uint8_t *out = dst + (i * columns + from) * z4_float_width(kind);
            z4_lowrank_sums(product->low + i * rank, rank, product->right + from, columns, n, low);
            if (product->high) {
                z4_lowrank_sums(product->high + i * rank, rank, product->right + from, columns, n, high);
                for (size_t j = 0; j < n; j++) {
                    low[j] += high[j] * (1 << Z4_LOWRANK_LOW_BITS);
                }
            }
            for (size_t j = 0; j < n; j++) {
                uint64_t word = z4_float_word(kind, src, j);
                double add = low[j] * scale;
                if (rounds) {
                    uint64_t bits = z4_float_round(kind, add);
                    double infinite = z4_double_of((z4_bits_of(add) >> 63 << 63) | (uint64_t)0x7ff << 52);
                    double finite = z4_float_value(kind, bits);
                    add = z4_float_infinite(kind, bits) ? infinite : finite;
                }
                uint64_t sum = z4_float_round(kind, z4_float_value(kind, word) + add);
                z4_float_store(kind, out, j, z4_float_apart(kind, word) ? word : sum);
            }
        }
    }
}

typedef void (*z4_predict_fn)(const z4_lowrank_product *product, const uint8_t *base, size_t rows,
                              uint8_t *dst);

#define Z4_LOWRANK_PREDICT(isa, target)                                                                      \
    target static void z4_predict_fp16_##isa(const z4_lowrank_product *p, const uint8_t *b, size_t m,        \
                                             uint8_t *d)                                                     \
    {                                                                                                        \
        z4_lowrank_predict_body(Z4_FP16, p, b, m, d);                                                        \
    }                                                                                                        \
    target static void z4_predict_bf16_##isa(const z4_lowrank_product *p, const uint8_t *b, size_t m,        \
                                             uint8_t *d)                                                     \
    {                                                                                                        \
        z4_lowrank_predict_body(Z4_BF16, p, b, m, d);                                                        \
    }                                                                                                        \
    target static void z4_predict_fp32_##isa(const z4_lowrank_product *p, const uint8_t *b, size_t m,        \
                                             uint8_t *d)                                                     \
    {                                                                                                        \
        z4_lowrank_predict_body(Z4_FP32, p, b, m, d);                                                        \
    }                                                                                                        \
    target static void z4_predict_fp64_##isa(const z4_lowrank_product *p, const uint8_t *b, size_t m,        \
                                             uint8_t *d)                                                     \
    {                                                                                                        \
        z4_lowrank_predict_body(Z4_FP64, p, b, m, d);                                                        \
    }

Z4_LOWRANK_PREDICT(scalar, )
#if Z4_X86
Z4_LOWRANK_PREDICT(avx2, Z4_TARGET_AVX2)
Z4_LOWRANK_PREDICT(avx512, Z4_TARGET_AVX512)
#endif

typedef struct {
    const char *name;
    int isa;
    z4_predict_fn predict[4]; /* by z4_float */
} z4_lowrank_impl;

#define Z4_LOWRANK_ROW(isa, code)                                                                            \
    {#isa, code,                                                                                             \
     {z4_predict_fp16_##isa, z4_predict_bf16_##isa, z4_predict_fp32_##isa, z4_predict_fp64_##isa}}

/* Worst first. */
static const z4_lowrank_impl Z4_LOWRANK[] = {
    Z4_LOWRANK_ROW(scalar, Z4_ISA_SCALAR),
#if Z4_X86
    Z4_LOWRANK_ROW(avx2, Z4_ISA_AVX2),
    Z4_LOWRANK_ROW(avx512, Z4_ISA_AVX512),
#endif
};
enum { Z4_LOWRANK_VARIANTS = (int)(sizeof Z4_LOWRANK / sizeof Z4_LOWRANK[0]) };
/* The row of that instruction set, or the nearest before it. */
static inline const z4_lowrank_impl *z4_lowrank_pick(int isa)
{
    const z4_lowrank_impl *best = &Z4_LOWRANK[0];
    for (int k = 1; k < Z4_LOWRANK_VARIANTS; k++) {
        if (Z4_LOWRANK[k].isa <= isa) {
            best = &Z4_LOWRANK[k];
        }
    }
    return best;
}

#endif
