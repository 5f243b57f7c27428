/* z4_bits.h -- bit counting, and the backward bit reader of Zstandard's entropy streams.
 *
 * A stream is written forwards and read backwards: the last byte holds, above its highest set bit,
 * nothing; that bit is a marker; what lies below it comes out first. */
#ifndef Z4_BITS_H
#define Z4_BITS_H

#include "z4_portable.h"
#include "z4_status.h"

/* Position of the highest set bit; v must not be 0. */
Z4_INLINE unsigned z4_log2(uint32_t v)
{
#if defined(__GNUC__) || defined(__clang__)
    return 31u - (unsigned)__builtin_clz(v);
#else
    unsigned n = 0;
    while (v >>= 1)
        n++;
    return n;
#endif
}

/* Number of zero bits below the lowest set bit; v must not be 0. */
Z4_INLINE unsigned z4_ctz64(uint64_t v)
{
#if defined(__GNUC__) || defined(__clang__)
    return (unsigned)__builtin_ctzll(v);
#else
    unsigned n = 0;
    while (!(v & 1)) {
        v >>= 1;
        n++;
    }
    return n;
#endif
}

/* Reader that never looks outside its stream. `left` goes below zero when more was taken than there
 * was; what is read there is zeros. */
typedef struct {
    const uint8_t *start;
    size_t nbytes;
    ptrdiff_t left; /* bits not yet taken */
} z4_bits;

Z4_INLINE int z4_bits_open(z4_bits *b, const uint8_t *start, size_t nbytes)
{
    b->start = start;
    b->nbytes = nbytes;
    b->left = 0;
    if (nbytes == 0 || start[nbytes - 1] == 0)
        return Z4_CORRUPT;
    b->left = (ptrdiff_t)(8 * (nbytes - 1) + z4_log2(start[nbytes - 1]));
    return Z4_OK;
}

/* The next bits, the first of them topmost; at least 57 of them are real while that many are left. */
Z4_INLINE uint64_t z4_bits_window(const z4_bits *b)
{
    uint64_t v = 0;
    if (b->left <= 0)
        return 0;
    if (b->left > 64) {
        size_t end = ((size_t)b->left + 7) >> 3; /* bytes that hold what is left: 9 at least */
        return z4_load64(b->start + end - 8) << (8 * end - (size_t)b->left);
    }
    memcpy(&v, b->start, b->nbytes < 8 ? b->nbytes : 8);
    return v << (64 - b->left);
}

/* Take n bits, 0 <= n <= 32. */
Z4_INLINE uint32_t z4_bits_take(z4_bits *b, unsigned n)
{
    uint64_t w = z4_bits_window(b);
    b->left -= (ptrdiff_t)n;
    return n == 0 ? 0 : (uint32_t)(w >> (64 - n));
}

#endif
