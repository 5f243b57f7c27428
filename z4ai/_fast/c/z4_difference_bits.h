/* z4_difference_bits.h -- the bits of a difference that its symbol does not tell, as one string.
 *
 * Most symbols have none: eight are looked at at a time. */
#ifndef Z4_DIFFERENCE_BITS_H
#define Z4_DIFFERENCE_BITS_H

#include "z4_bits.h"
#include "z4_portable.h"

/* Levels of an octave are 2^g of them; the least symbol that has bits apart. */
enum { Z4_DIFFERENCE_G1 = 2, Z4_DIFFERENCE_G2 = 2, Z4_DIFFERENCE_G4 = 2, Z4_DIFFERENCE_G8 = 1 };
enum { Z4_DIFFERENCE_APART1 = 15, Z4_DIFFERENCE_APART2 = 15, Z4_DIFFERENCE_APART4 = 15, Z4_DIFFERENCE_APART8 = 7 };

/* Whether one of eight symbols has bits apart. */
Z4_INLINE int z4_difference_some_apart(const uint8_t *symbols, size_t n, unsigned least)
{
    const uint64_t each = 0x0101010101010101u;
    uint64_t y = 0;
    memcpy(&y, symbols, n < 8 ? n : 8);
    return ((((y & each * 0x7f) + each * (0x80 - least)) | y) & each * 0x80) != 0;
}

/* Bytes from which on eight elements can be read without a look at where the string ends. */
#define Z4_DIFFERENCE_AHEAD ((size_t)80)

/* Position of the highest set bit; v must not be 0. */
Z4_INLINE unsigned z4_difference_log2(uint64_t v)
{
#if defined(__GNUC__) || defined(__clang__)
    return 63u - (unsigned)__builtin_clzll(v);
#else
    return v >> 32 ? 32 + z4_log2((uint32_t)(v >> 32)) : z4_log2((uint32_t)v);
#endif
}

/* Bits apart of a symbol: at most 31, with g = 1 at most 63. */
Z4_INLINE unsigned z4_difference_bits_of(uint8_t y, unsigned g)
{
    const unsigned octave = ((unsigned)y + 1) >> (1 + g);
    return octave - (octave > 0);
}

/* The least size of a symbol that has so many bits apart. */
Z4_INLINE uint64_t z4_difference_least(uint8_t y, unsigned bits, unsigned g)
{
    const unsigned level = ((unsigned)y + 1) >> 1, one = 1u << g;
    return level < one ? level : (uint64_t)(one + (level & (one - 1))) << bits;
}

/* `have` bits, fewer than eight between two writes, wait in `held`. */
typedef struct {
    uint8_t *at;
    uint64_t held;
    unsigned have;
} z4_difference_writer;

/* Write the lowest bits of a number, at most 32. Scribbles on eight bytes from where the string ends. */
Z4_INLINE void z4_difference_write4(z4_difference_writer *w, unsigned bits, uint64_t x)
{
    w->held |= (x & (((uint64_t)1 << bits) - 1)) << w->have;
    w->have += bits;
    z4_store64(w->at, w->held);
    w->at += w->have >> 3;
    w->held >>= w->have & ~7u;
    w->have &= 7;
}
#define z4_difference_write1 z4_difference_write4
#define z4_difference_write2 z4_difference_write4

/* The same of at most 63. */
Z4_INLINE void z4_difference_write8(z4_difference_writer *w, unsigned bits, uint64_t x)
{
    const unsigned first = bits < 32 ? bits : 32;
    z4_difference_write4(w, first, x);
    z4_difference_write4(w, bits - first, x >> 32);
}

Z4_INLINE uint8_t *z4_difference_written(const z4_difference_writer *w)
{
    *w->at = (uint8_t)w->held;
    return w->at + (w->have > 0);
}

/* `at` counts bits, and may run past the end, where zeros are read: that it did is seen afterwards. */
typedef struct {
    const uint8_t *src;
    size_t nbytes;
    uint64_t at;
} z4_difference_reader;

/* `bits` bits, at most 57, of a string that goes on for eight bytes. */
Z4_INLINE uint64_t z4_difference_read4(const z4_difference_reader *r, uint64_t at, unsigned bits)
{
    return z4_load64(r->src + (size_t)(at >> 3)) >> (at & 7) & (((uint64_t)1 << bits) - 1);
}
#define z4_difference_read1 z4_difference_read4
#define z4_difference_read2 z4_difference_read4

/* The same of at most 63, where it goes on for sixteen bytes. */
Z4_INLINE uint64_t z4_difference_read8(const z4_difference_reader *r, uint64_t at, unsigned bits)
{
    const uint8_t *src = r->src + (size_t)(at >> 3);
    const uint64_t low = z4_load64(src) >> (at & 7), high = z4_load64(src + 8) << 1 << (63 - (at & 7));
    return (low | high) & (((uint64_t)1 << bits) - 1);
}

/* The same wherever it ends. */
static inline uint64_t z4_difference_read_near(const z4_difference_reader *r, uint64_t at, unsigned bits)
{
    uint8_t around[16] = {0};
    const size_t first = (size_t)(at >> 3);
    const z4_difference_reader mine = {around, sizeof around, 0};
    if (first < r->nbytes)
        memcpy(around, r->src + first, r->nbytes - first < 16 ? r->nbytes - first : 16);
    return z4_difference_read8(&mine, at & 7, bits);
}

/* Whether a string has been read to its last byte. */
Z4_INLINE int z4_difference_read_all(const z4_difference_reader *r)
{
    return (r->at + 7) >> 3 == r->nbytes;
}

#endif
