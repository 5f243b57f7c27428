/* z4_fse.h -- Finite State Entropy as Zstandard uses it for Huffman weights (RFC 8878, 4.1 and 4.2.1.2).
 *
 * A few hundred symbols at most, so clarity before speed. Tables of 64 states at most; two states
 * take turns, the first one with the even positions. */
#ifndef Z4_FSE_H
#define Z4_FSE_H

#include "z4_bits.h"

enum {
    Z4_FSE_LOG_MIN = 5,
    Z4_FSE_LOG_MAX = 6,
    Z4_FSE_STATES = 1 << Z4_FSE_LOG_MAX,
    Z4_FSE_SYMBOLS = 13,      /* weights are 0..11; a 12 is read and then refused as a weight */
    Z4_FSE_MAX_NBYTES = 127,  /* the byte before the description must stay below 128 */
    Z4_FSE_SCRATCH = 192      /* worst case while writing: 255 symbols of 6 bits, and the counts */
};

/* Spread: which state carries which symbol. Symbols of "less than 1" sit at the end. */
Z4_INLINE void z4_fse_spread(const int *freq, unsigned n_symbols, unsigned log, uint8_t *symbol_of)
{
    unsigned size = 1u << log, mask = size - 1, step = (size >> 1) + (size >> 3) + 3;
    unsigned high = size, pos = 0;
    for (unsigned s = 0; s < n_symbols; s++)
        if (freq[s] < 0)
            symbol_of[--high] = (uint8_t)s;
    for (unsigned s = 0; s < n_symbols; s++)
        for (int i = 0; i < freq[s]; i++) {
            symbol_of[pos] = (uint8_t)s;
            do
                pos = (pos + step) & mask;
            while (pos >= high);
        }
}

/* Read the frequencies. Returns the bytes they take; freq[] gets -1 for "less than 1". */
static inline ptrdiff_t z4_fse_read_counts(const uint8_t *src, size_t nbytes, int *freq, unsigned *log)
{
    size_t bit = 4;
    unsigned s = 0;
    int left;
    memset(freq, 0, Z4_FSE_SYMBOLS * sizeof *freq);
    if (nbytes == 0)
        return Z4_CORRUPT;
    *log = (src[0] & 15u) + Z4_FSE_LOG_MIN;
    if (*log > Z4_FSE_LOG_MAX)
        return Z4_CORRUPT;
/* next n bits, n <= 8, forwards; bits past the end are zeros and are caught below */
#define Z4_FSE_PEEK(n)                                                                             \
    ((((bit >> 3) < nbytes ? src[bit >> 3] : 0u) |                                                 \
      ((bit >> 3) + 1 < nbytes ? (unsigned)src[(bit >> 3) + 1] << 8 : 0u)) >>                      \
         (bit & 7) &                                                                               \
     ((1u << (n)) - 1))
    left = 1 << *log; /* probability not given away yet */
    while (left > 0) {
        /* a value 0..left+1 in n bits; the smallest ones are told by one bit less */
        unsigned n = z4_log2((uint32_t)left + 1) + 1;
        unsigned spare = (1u << n) - 1 - ((unsigned)left + 1);
        unsigned value = Z4_FSE_PEEK(n);
        if ((value & ((1u << (n - 1)) - 1)) < spare) {
            value &= (1u << (n - 1)) - 1;
            bit += n - 1;
        } else {
            if (value >= 1u << (n - 1))
                value -= spare;
            bit += n;
        }
        if (s >= Z4_FSE_SYMBOLS)
            return Z4_CORRUPT;
        freq[s] = (int)value - 1;
        left -= freq[s] < 0 ? 1 : freq[s];
        if (freq[s++] == 0) {
            unsigned more;
            do { /* runs of further zeros, two bits at a time */
                more = Z4_FSE_PEEK(2);
                bit += 2;
                s += more;
                if (s > Z4_FSE_SYMBOLS || bit > 8 * nbytes)
                    return Z4_CORRUPT;
            } while (more == 3);
        }
        if (bit > 8 * nbytes)
            return Z4_CORRUPT;
    }
#undef Z4_FSE_PEEK
    return left == 0 ? (ptrdiff_t)((bit + 7) >> 3) : Z4_CORRUPT;
}

/* Decode at most `capacity` symbols from exactly nbytes. Returns how many there were. */
static inline ptrdiff_t z4_fse_decode(const uint8_t *src, size_t nbytes, uint8_t *dst, size_t capacity)
{
    int freq[Z4_FSE_SYMBOLS];
    uint8_t symbol_of[Z4_FSE_STATES], width[Z4_FSE_STATES], base[Z4_FSE_STATES];
    unsigned log, next[Z4_FSE_SYMBOLS], state[2];
    z4_bits b;
    size_t n = 0;
    ptrdiff_t head = z4_fse_read_counts(src, nbytes, freq, &log);
    if (head < 0)
        return head;
    z4_fse_spread(freq, Z4_FSE_SYMBOLS, log, symbol_of);
    for (unsigned s = 0; s < Z4_FSE_SYMBOLS; s++)
        next[s] = freq[s] < 0 ? 1 : (unsigned)freq[s];
    for (unsigned u = 0; u < 1u << log; u++) {
        unsigned x = next[symbol_of[u]]++;
        width[u] = (uint8_t)(log - z4_log2(x));
        base[u] = (uint8_t)((x << width[u]) - (1u << log));
    }
    if (z4_bits_open(&b, src + head, nbytes - (size_t)head) != Z4_OK)
        return Z4_CORRUPT;
    state[0] = z4_bits_take(&b, log);
    state[1] = z4_bits_take(&b, log);
    if (b.left < 0)
        return Z4_CORRUPT;
    for (unsigned turn = 0;; turn ^= 1) {
        unsigned u = state[turn];
        if (n + 2 > capacity)
            return Z4_CORRUPT;
        dst[n++] = symbol_of[u];
        state[turn] = base[u] + z4_bits_take(&b, width[u]);
        if (b.left < 0) { /* the other state holds the last symbol */
            dst[n++] = symbol_of[state[turn ^ 1]];
            return (ptrdiff_t)n;
        }
    }
}

/* Scale counts to sum 2^log, every symbol that occurs keeping 1 at least. At least two must occur. */
static inline void z4_fse_scale(const uint32_t *counts, uint32_t total, unsigned log, int *freq)
{
    int size = 1 << log, sum = 0;
    for (unsigned s = 0; s < Z4_FSE_SYMBOLS; s++) {
        int f = (int)((counts[s] * (uint32_t)size + total / 2) / total);
        freq[s] = counts[s] && f == 0 ? 1 : f;
        sum += freq[s];
    }
    while (sum != size) { /* step where the frequency is furthest off on the side to mend */
        int sign = sum > size ? 1 : -1, best = 0, at = -1;
        for (int s = 0; s < Z4_FSE_SYMBOLS; s++) {
            int off = sign * (freq[s] * (int)total - (int)counts[s] * size);
            if (counts[s] == 0 || (sign > 0 && freq[s] == 1))
                continue;
            if (at < 0 || off > best) {
                best = off;
                at = s;
            }
        }
        freq[at] -= sign;
        sum -= sign;
    }
}

/* Forward writer of a few bits at a time; dst has room for Z4_FSE_SCRATCH bytes. */
typedef struct {
    uint8_t *dst;
    size_t nbytes;
    uint32_t bits;
    unsigned n;
} z4_fse_writer;

Z4_INLINE void z4_fse_put(z4_fse_writer *w, uint32_t value, unsigned n)
{
    w->bits |= value << w->n; /* under 8 waiting, 8 more at most */
    w->n += n;
    while (w->n >= 8) {
        w->dst[w->nbytes++] = (uint8_t)w->bits;
        w->bits >>= 8;
        w->n -= 8;
    }
}

static inline void z4_fse_write_counts(z4_fse_writer *w, const int *freq, unsigned log)
{
    int left = 1 << log;
    z4_fse_put(w, log - Z4_FSE_LOG_MIN, 4);
    for (unsigned s = 0; left > 0; s++) {
        unsigned n = z4_log2((uint32_t)left + 1) + 1;
        unsigned spare = (1u << n) - 1 - ((unsigned)left + 1);
        unsigned value = (unsigned)freq[s] + 1;
        if (value < spare)
            z4_fse_put(w, value, n - 1);
        else
            z4_fse_put(w, value >= 1u << (n - 1) ? value + spare : value, n);
        left -= freq[s];
        if (freq[s] == 0) {
            unsigned run = 0;
            while (freq[s + 1 + run] == 0)
                run++;
            s += run;
            for (; run >= 3; run -= 3)
                z4_fse_put(w, 3, 2);
            z4_fse_put(w, run, 2);
        }
    }
    if (w->n) /* the bit stream starts at a byte */
        z4_fse_put(w, 0, 8 - w->n);
}

/* Encode n >= 2 symbols < Z4_FSE_SYMBOLS of at least two kinds. Returns the bytes written to dst,
 * which has room for Z4_FSE_SCRATCH. Worst case: 4 + 13 * 9 bits of counts in 15 bytes and a bit,
 * 255 * 6 bits and a marker in 192: hence the check on the way. Z4_CAPACITY: more than 127 bytes. */
static inline ptrdiff_t z4_fse_encode(const uint8_t *src, size_t n, unsigned log, uint8_t *dst)
{
    uint32_t counts[Z4_FSE_SYMBOLS] = {0};
    int freq[Z4_FSE_SYMBOLS];
    uint8_t symbol_of[Z4_FSE_STATES], place[Z4_FSE_STATES];
    unsigned first[Z4_FSE_SYMBOLS], fill[Z4_FSE_SYMBOLS], size = 1u << log, state[2] = {0, 0};
    z4_fse_writer w = {dst, 0, 0, 0};
    for (size_t i = 0; i < n; i++)
        counts[src[i]]++;
    z4_fse_scale(counts, (uint32_t)n, log, freq);
    z4_fse_write_counts(&w, freq, log);
    z4_fse_spread(freq, Z4_FSE_SYMBOLS, log, symbol_of);
    for (unsigned s = 0, at = 0; s < Z4_FSE_SYMBOLS; s++) {
        first[s] = fill[s] = at;
        at += (unsigned)freq[s];
    }
    for (unsigned u = 0; u < size; u++)
        place[fill[symbol_of[u]]++] = (uint8_t)u;
    for (size_t i = n; i-- > 0;) {
        unsigned s = src[i], f = (unsigned)freq[s], *x = &state[i & 1];
        if (i + 2 >= n) { /* the lowest state of a symbol takes most bits, so its reader runs dry */
            *x = size + place[first[s]];
            continue;
        }
        unsigned width = log - z4_log2(f);
        if (*x >> width < f)
            width--;
        z4_fse_put(&w, *x & ((1u << width) - 1), width);
        *x = size + place[first[s] + (*x >> width) - f];
        if (w.nbytes > Z4_FSE_MAX_NBYTES)
            return Z4_CAPACITY;
    }
    z4_fse_put(&w, state[1] - size, log);
    z4_fse_put(&w, state[0] - size, log);
    z4_fse_put(&w, 1, 1);
    if (w.n)
        z4_fse_put(&w, 0, 8 - w.n);
    return w.nbytes > Z4_FSE_MAX_NBYTES ? Z4_CAPACITY : (ptrdiff_t)w.nbytes;
}

#endif
