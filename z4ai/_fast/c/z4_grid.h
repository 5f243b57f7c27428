/* z4_grid.h -- elements that are whole numbers times a scale: the rule, the decoder (docs/format/codecs/grid.md).
 *
 * Contract: sources and targets do not overlap, need no alignment; nothing is allocated. Functions that read
 * what a file says return a status of z4_status.h; the others cannot fail.
 *
 * The rule: an element is round(s * k), s the scale of its group. Floating point here is single operations
 * rounded to nearest even, never a product and a sum in one expression, so that no compiler fuses two. */
#ifndef Z4_GRID_H
#define Z4_GRID_H

#include "z4_portable.h"
#include "z4_status.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

enum z4_grid_kind { Z4_GRID_BF16 = 0, Z4_GRID_FP16 = 1, Z4_GRID_FP32 = 2, Z4_GRID_FP64 = 3, Z4_GRID_KINDS = 4 };

Z4_INLINE unsigned z4_grid_width(int kind) { return kind == Z4_GRID_FP64 ? 8 : kind == Z4_GRID_FP32 ? 4 : 2; }

Z4_INLINE float z4_grid_float(uint32_t bits)
{
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
Z4_INLINE uint32_t z4_grid_bits(float v)
{
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}
Z4_INLINE double z4_grid_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}
Z4_INLINE uint64_t z4_grid_bits64(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

/* --- Rounding and widening. No NaN goes in. --- */

/* Selecting by masks keeps branches out of the loops: a compiler may not run a float operation that it could skip. */
Z4_INLINE uint32_t z4_grid_mask(int condition) { return 0U - (uint32_t)condition; }

Z4_INLINE uint16_t z4_grid_to_bf16(uint32_t x) { return (uint16_t)((x + 0x7FFF + (x >> 16 & 1)) >> 16); }

Z4_INLINE uint16_t z4_grid_to_fp16(uint32_t x)
{
    uint32_t sign = x >> 16 & 0x8000, a = x & 0x7FFFFFFF;
    uint32_t most = a > 0x47800000 ? 0x47800000 : a; /* 2^16 and above become infinity */
    uint32_t normal = (most - 0x38000000 + 0xFFF + (most >> 13 & 1)) >> 13;
    /* Floats from 0.5 on lie 2^-24 apart, as subnormal binary16 numbers do: the sum rounds to them. */
    uint32_t below = z4_grid_mask(a < 0x38800000);
    uint32_t subnormal = z4_grid_bits(z4_grid_float(a & below) + 0.5F) - 0x3F000000;
    return (uint16_t)(sign | (subnormal & below) | (normal & ~below));
}

/* Infinities and NaN become finite numbers above all others; the encoder finds them off the grid. Subnormal numbers
 * are restored by a difference of normal ones, which holds where a thread flushes subnormal numbers too. */
Z4_INLINE float z4_grid_of_fp16(uint32_t h)
{
    uint32_t x = (h & 0x7FFF) << 13;
    uint32_t below = z4_grid_mask(x < 0x00800000);
    uint32_t subnormal = z4_grid_bits(z4_grid_float((x & below) + 0x38800000) - 0x1p-14F);
    return z4_grid_float((subnormal & below) | ((x + 0x38000000) & ~below) | (h & 0x8000) << 16);
}

/* --- Decoder --- */

/* One group: m codes to elements, special codes like any other. kind is a constant where this is inlined. */
Z4_INLINE void z4_grid_values(int kind, const uint8_t *Z4_RESTRICT codes, size_t m, int low, double s,
                              uint8_t *Z4_RESTRICT dst)
{
    const float f = (float)s;
    for (size_t i = 0; i < m; i++) {
        int32_t k = (int32_t)codes[i] - low;
        if (kind == Z4_GRID_FP64)
            z4_store64(dst + 8 * i, z4_grid_bits64((double)k * s));
        else if (kind == Z4_GRID_FP32)
            z4_store32(dst + 4 * i, z4_grid_bits((float)k * f));
        else if (kind == Z4_GRID_FP16)
            z4_store16(dst + 2 * i, z4_grid_to_fp16(z4_grid_bits((float)k * f)));
        else
            z4_store16(dst + 2 * i, z4_grid_to_bf16(z4_grid_bits((float)k * f)));
    }
}

/* Scale number j of part 0; a status if the page forbids it. */
Z4_INLINE int z4_grid_scale(int kind, int wide, const uint8_t *scales, size_t j, double *s)
{
    if (kind == Z4_GRID_FP64 && !wide) {
        uint64_t x = z4_load64(scales + 8 * j), a = x & UINT64_C(0x7FFFFFFFFFFFFFFF);
        *s = z4_grid_double(x);
        return a < UINT64_C(0x7FF0000000000000) && (a >= UINT64_C(0x0010000000000000) || a == 0) ? Z4_OK : Z4_CORRUPT;
    }
    uint32_t x;
    if (kind == Z4_GRID_FP16 && !wide) {
        uint32_t h = z4_load16(scales + 2 * j);
        x = (h & 0x7C00) == 0x7C00 ? 0x7F800000 : z4_grid_bits(z4_grid_of_fp16(h));
    } else if (kind == Z4_GRID_BF16 && !wide) {
        x = (uint32_t)z4_load16(scales + 2 * j) << 16;
    } else {
        x = z4_load32(scales + 4 * j);
    }
    uint32_t a = x & 0x7FFFFFFF;
    if (a >= 0x7F800000 || (a < 0x00800000 && a != 0))
        return Z4_CORRUPT; /* subnormal as a number of the arithmetic, binary32 or binary64 with binary32 scales */
    *s = (double)z4_grid_float(x);
    return Z4_OK;
}

/* Elements up to the end of the group, from column c of a row of `row` elements. */
Z4_INLINE size_t z4_grid_left(size_t row, size_t group, size_t c)
{
    size_t in_row = row - c, in_group = group - c % group;
    return in_row < in_group ? in_row : in_group;
}

/* Groups that n elements touch. row, group >= 1, column < row, group <= row. Never above n. */
static inline size_t z4_grid_groups(size_t n, size_t row, size_t column, size_t group)
{
    size_t first = row - column < n ? row - column : n;
    if (n == 0)
        return 0;
    size_t rest = n - first, whole = (row - 1) / group + 1;
    size_t groups = (column + first - 1) / group - column / group + 1 + rest / row * whole;
    return groups + (rest % row ? (rest % row - 1) / group + 1 : 0);
}

Z4_INLINE int z4_grid_join_body(int kind, const uint8_t *scales, int wide, const uint8_t *codes, size_t n, int low,
                                size_t row, size_t column, size_t group, uint8_t *dst)
{
    const unsigned w = z4_grid_width(kind);
    size_t c = column, j = 0;
    for (size_t i = 0; i < n; j++) {
        double s = 0;
        if (z4_grid_scale(kind, wide, scales, j, &s) != Z4_OK)
            return Z4_CORRUPT;
        size_t m = z4_grid_left(row, group, c);
        m = m < n - i ? m : n - i;
        z4_grid_values(kind, codes + i, m, low, s, dst + w * i);
        i += m;
        c = c + m == row ? 0 : c + m;
    }
    return Z4_OK;
}

/* Elements of n codes. scales holds z4_grid_groups() of them, exceptions n_exceptions elements, all of which must
 * be used. flags as on the page. */
static inline int z4_grid_join(int kind, unsigned flags, int low, size_t row, size_t column, size_t group,
                               const uint8_t *scales, const uint8_t *codes, size_t n, const uint8_t *exceptions,
                               size_t n_exceptions, uint8_t *dst)
{
    const int wide = flags & 1;
    int status = Z4_OK;
    switch (kind) {
    case Z4_GRID_BF16:
        status = z4_grid_join_body(Z4_GRID_BF16, scales, wide, codes, n, low, row, column, group, dst);
        break;
    case Z4_GRID_FP16:
        status = z4_grid_join_body(Z4_GRID_FP16, scales, wide, codes, n, low, row, column, group, dst);
        break;
    case Z4_GRID_FP32:
        status = z4_grid_join_body(Z4_GRID_FP32, scales, wide, codes, n, low, row, column, group, dst);
        break;
    case Z4_GRID_FP64:
        status = z4_grid_join_body(Z4_GRID_FP64, scales, wide, codes, n, low, row, column, group, dst);
        break;
    default: return Z4_CORRUPT;
    }
    if (status != Z4_OK || (flags & 6) == 0)
        return status == Z4_OK && n_exceptions ? Z4_CORRUPT : status;

    const unsigned w = z4_grid_width(kind);
    const int has_exceptions = flags >> 1 & 1;
    const unsigned lowest = 255 - ((flags & 6) == 6);
    size_t used = 0;
    for (size_t at = 0; at < n; at += 64) {
        size_t end = n - at < 64 ? n : at + 64;
        unsigned any = 0;
        for (size_t i = at; i < end; i++)
            any |= codes[i] >= lowest;
        if (!any)
            continue;
        for (size_t i = at; i < end; i++) {
            if (codes[i] < lowest)
                continue;
            uint8_t *to = dst + w * i;
            if (has_exceptions && codes[i] == 255) {
                if (used == n_exceptions)
                    return Z4_CORRUPT;
                memcpy(to, exceptions + w * used++, w);
            } else {
                memset(to, 0, w);
                to[w - 1] = 0x80;
            }
        }
    }
    return used == n_exceptions ? Z4_OK : Z4_CORRUPT;
}

/* Codes that are exceptions. */
static inline size_t z4_grid_count(const uint8_t *codes, size_t n, uint8_t code)
{
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        count += codes[i] == code;
    return count;
}

#endif
