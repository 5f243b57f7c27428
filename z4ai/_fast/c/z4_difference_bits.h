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

#define Z4_DIFFERENCE_EACH_BYTE(v_) (0x0101010101010101u * (uint64_t)(v_))

/* Up to eight symbols in a word, the first in its lowest byte; 0 behind the last. */
Z4_INLINE uint64_t z4_difference_eight(const uint8_t *symbols, size_t n)
{
    uint64_t y = 0;
    if (n >= 8)
        return z4_load64(symbols);
    memcpy(&y, symbols, n);
    return y;
}

/* From i on, the first of 64 symbols together of which one has bits apart, or fewer than 64. */
Z4_INLINE size_t z4_difference_skip(const uint8_t *symbols, size_t i, size_t n, uint8_t least)
{
    for (; i + 64 <= n; i += 64) {
        uint8_t most = 0;
        for (size_t j = 0; j < 64; j++)
            most = symbols[i + j] > most ? symbols[i + j] : most;
        if (most >= least)
            break;
    }
    return i;
}

/* Whether one of eight symbols has bits apart. */
Z4_INLINE int z4_difference_some_apart(uint64_t y, unsigned least)
{
    const uint64_t above = (y & Z4_DIFFERENCE_EACH_BYTE(0x7f)) + Z4_DIFFERENCE_EACH_BYTE(0x80 - least);
    return ((above | y) & Z4_DIFFERENCE_EACH_BYTE(0x80)) != 0;
}

/* Bits apart of eight symbols, as z4_difference_bits_of(). */
Z4_INLINE uint64_t z4_difference_eight_bits(uint64_t y, unsigned g)
{
    const unsigned rest = (2u << g) - 1; /* of a symbol, below its octave; the next one begins a symbol early */
    const uint64_t low = y & Z4_DIFFERENCE_EACH_BYTE(rest);
    const uint64_t octave = y >> (1 + g) & Z4_DIFFERENCE_EACH_BYTE(255 >> (1 + g));
    const uint64_t t = octave + ((low + Z4_DIFFERENCE_EACH_BYTE(1)) >> (1 + g) & Z4_DIFFERENCE_EACH_BYTE(1));
    return t - ((t + Z4_DIFFERENCE_EACH_BYTE(0x7f)) >> 7 & Z4_DIFFERENCE_EACH_BYTE(1));
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

/* `have` bits, fewer than eight between two writes, wait in `held`. */
typedef struct {
    uint8_t *at;
    uint64_t held;
    unsigned have;
} z4_difference_writer;

/* Write a number of so many bits, at most 56. Scribbles on eight bytes from where the string ends. */
Z4_INLINE void z4_difference_write(z4_difference_writer *w, unsigned bits, uint64_t x)
{
    w->held |= x << w->have;
    w->have += bits;
    z4_store64(w->at, w->held);
    w->at += w->have >> 3;
    w->held >>= w->have & ~7u;
    w->have &= 7;
}

Z4_INLINE uint64_t z4_difference_lowest(uint64_t x, unsigned bits) { return x & (((uint64_t)1 << bits) - 1); }

/* Write the lowest bits of k numbers, a byte of `bits` each. Each write waits for the one before, so that several go
 * at once where they fit: of two bytes, four have 52 bits at most. */
#define Z4_DIFFERENCE_WRITE_SHORT(w_, t_)                                                                             \
    Z4_INLINE void z4_difference_write_eight##w_(z4_difference_writer *w, uint64_t bits, const t_ *sizes, size_t k)   \
    {                                                                                                                 \
        if (k < 8) {                                                                                                  \
            for (size_t j = 0; j < k; j++, bits >>= 8)                                                                \
                z4_difference_write(w, bits & 255, z4_difference_lowest(sizes[j], bits & 255));                       \
            return;                                                                                                   \
        }                                                                                                             \
        for (int j = 0; j < 8; j += 4, bits >>= 32) {                                                                 \
            const uint32_t ends = (uint32_t)bits * 0x01010101u;                                                       \
            uint64_t x = z4_difference_lowest(sizes[j], bits & 255);                                                  \
            x |= z4_difference_lowest(sizes[j + 1], bits >> 8 & 255) << (ends & 255);                                 \
            x |= z4_difference_lowest(sizes[j + 2], bits >> 16 & 255) << (ends >> 8 & 255);                           \
            x |= z4_difference_lowest(sizes[j + 3], bits >> 24 & 255) << (ends >> 16 & 255);                          \
            z4_difference_write(w, ends >> 24, x);                                                                    \
        }                                                                                                             \
    }
Z4_DIFFERENCE_WRITE_SHORT(1, uint8_t)
Z4_DIFFERENCE_WRITE_SHORT(2, uint16_t)
#undef Z4_DIFFERENCE_WRITE_SHORT

Z4_INLINE void z4_difference_write_eight4(z4_difference_writer *w, uint64_t bits, const uint32_t *sizes, size_t k)
{
    for (size_t j = 0; j < k; j += 2, bits >>= 16) {
        const unsigned first = bits & 255, second = bits >> 8 & 255;
        const uint64_t a = z4_difference_lowest(sizes[j], first);
        const uint64_t b = j + 1 < k ? z4_difference_lowest(sizes[j + 1], second) : 0;
        if (Z4_LIKELY(first + second <= 56)) {
            z4_difference_write(w, first + second, a | b << first);
        } else {
            z4_difference_write(w, first, a);
            z4_difference_write(w, second, b);
        }
    }
}

Z4_INLINE void z4_difference_write_eight8(z4_difference_writer *w, uint64_t bits, const uint64_t *sizes, size_t k)
{
    for (size_t j = 0; j < k; j++, bits >>= 8) {
        const unsigned all = bits & 255, first = all < 32 ? all : 32;
        const uint64_t x = z4_difference_lowest(sizes[j], all);
        z4_difference_write(w, first, x & 0xffffffffu);
        z4_difference_write(w, all - first, x >> 32);
    }
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

/* The same of at most 63, where it goes on for sixteen bytes. */
Z4_INLINE uint64_t z4_difference_read8(const z4_difference_reader *r, uint64_t at, unsigned bits)
{
    const uint8_t *src = r->src + (size_t)(at >> 3);
    const uint64_t low = z4_load64(src) >> (at & 7), high = z4_load64(src + 8) << 1 << (63 - (at & 7));
    return (low | high) & (((uint64_t)1 << bits) - 1);
}

/* Eight numbers of so many bits, a byte each, where the string goes on for Z4_DIFFERENCE_AHEAD; -> where they end. All
 * places are known at once: the sums of bytes below each, which are less than 256. */
#define Z4_DIFFERENCE_READ_EIGHT(w_, t_)                                                                              \
    Z4_INLINE uint64_t z4_difference_read_eight##w_(const z4_difference_reader *r, uint64_t at, uint64_t bits,        \
                                                    t_ *Z4_RESTRICT apart)                                            \
    {                                                                                                                 \
        const uint64_t ends = bits * Z4_DIFFERENCE_EACH_BYTE(1);                                                      \
        const uint64_t begins = ends << 8;                                                                            \
        for (int j = 0; j < 8; j++)                                                                                   \
            apart[j] = (t_)z4_difference_read4(r, at + (begins >> (8 * j) & 255), (unsigned)(bits >> (8 * j) & 255)); \
        return at + (ends >> 56);                                                                                     \
    }
Z4_DIFFERENCE_READ_EIGHT(1, uint8_t)
Z4_DIFFERENCE_READ_EIGHT(2, uint16_t)
Z4_DIFFERENCE_READ_EIGHT(4, uint32_t)
#undef Z4_DIFFERENCE_READ_EIGHT

Z4_INLINE uint64_t z4_difference_read_eight8(const z4_difference_reader *r, uint64_t at, uint64_t bits,
                                             uint64_t *Z4_RESTRICT apart)
{
    for (int j = 0; j < 8; j++) {
        const unsigned b = (unsigned)(bits >> (8 * j) & 255);
        apart[j] = z4_difference_read8(r, at, b);
        at += b;
    }
    return at;
}

/* One number, wherever the string ends. */
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
