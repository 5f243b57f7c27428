/* z4_palette.h -- elements by their number in a list of the distinct ones (docs/format/codecs/palette.md).
 *
 * Contract: sources and targets do not overlap, need no alignment; nothing is allocated. Functions that read
 * what a file says return a status of z4_status.h. */
#ifndef Z4_PALETTE_H
#define Z4_PALETTE_H

#include "z4_portable.h"
#include "z4_status.h"

enum { Z4_PALETTE_MOST = 256, Z4_PALETTE_SLOTS = 1024 };

typedef struct {
    uint64_t values[Z4_PALETTE_MOST];   /* distinct elements in the order of their first occurrence */
    uint16_t numbers[Z4_PALETTE_SLOTS]; /* hash table, at most a quarter full: number of a value + 1, 0 if empty */
    unsigned count;
} z4_palette;

Z4_INLINE uint64_t z4_palette_load(const uint8_t *p, unsigned w)
{
    return w == 2 ? z4_load16(p) : w == 4 ? z4_load32(p) : z4_load64(p);
}

/* Number of a value, which is added where it is new; Z4_PALETTE_MOST if there is no room for it. */
Z4_INLINE unsigned z4_palette_find(z4_palette *p, uint64_t value)
{
    unsigned slot = (unsigned)((value ^ value >> 29) * UINT64_C(0x9E3779B97F4A7C15) >> 54);
    while (p->numbers[slot]) {
        unsigned number = p->numbers[slot] - 1U;
        if (p->values[number] == value)
            return number;
        slot = (slot + 1) % Z4_PALETTE_SLOTS;
    }
    if (p->count == Z4_PALETTE_MOST)
        return Z4_PALETTE_MOST;
    p->values[p->count] = value;
    p->numbers[slot] = (uint16_t)++p->count;
    return p->count - 1;
}

Z4_INLINE void z4_palette_clear(z4_palette *p)
{
    memset(p->numbers, 0, sizeof p->numbers);
    p->count = 0;
}

/* Distinct elements among every `step`th of n, Z4_PALETTE_MOST + 1 if there are more than fit. */
static inline unsigned z4_palette_count(z4_palette *p, const uint8_t *src, size_t n, unsigned w, size_t step)
{
    z4_palette_clear(p);
    for (size_t i = 0; i < n; i += step)
        if (z4_palette_find(p, z4_palette_load(src + w * i, w)) == Z4_PALETTE_MOST)
            return Z4_PALETTE_MOST + 1;
    return p->count;
}

Z4_INLINE int z4_palette_number_body(z4_palette *p, const uint8_t *src, size_t n, unsigned w, uint8_t *codes)
{
    uint64_t last = 0;
    unsigned number = Z4_PALETTE_MOST;
    for (size_t i = 0; i < n; i++) {
        uint64_t value = z4_palette_load(src + w * i, w);
        if (number == Z4_PALETTE_MOST || value != last) {
            number = z4_palette_find(p, value);
            if (number == Z4_PALETTE_MOST)
                return Z4_CAPACITY;
            last = value;
        }
        codes[i] = (uint8_t)number;
    }
    return Z4_OK;
}

/* Codes of n elements and their palette, ascending, to `palette` (room for 256 elements). Returns its size, or
 * Z4_CAPACITY where there are more distinct elements than fit. */
static inline ptrdiff_t z4_palette_split(z4_palette *p, const uint8_t *src, size_t n, unsigned w, uint8_t *codes,
                                         uint8_t *palette)
{
    uint64_t sorted[Z4_PALETTE_MOST];
    uint8_t ranks[Z4_PALETTE_MOST];
    z4_palette_clear(p);
    int status = w == 2   ? z4_palette_number_body(p, src, n, 2, codes)
                 : w == 4 ? z4_palette_number_body(p, src, n, 4, codes)
                          : z4_palette_number_body(p, src, n, 8, codes);
    if (status != Z4_OK)
        return status;
    for (unsigned k = 0; k < p->count; k++) {
        unsigned at = k;
        for (; at > 0 && sorted[at - 1] > p->values[k]; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = p->values[k];
    }
    for (unsigned k = 0; k < p->count; k++) {
        memcpy(palette + w * k, &sorted[k], w);
        ranks[z4_palette_find(p, sorted[k])] = (uint8_t)k;
    }
    for (size_t i = 0; i < n; i++)
        codes[i] = ranks[codes[i]];
    return (ptrdiff_t)p->count;
}

/* The same for each row of a chunk that begins at `column`: palettes one behind the other into room for `capacity`
 * elements, their sizes less one to `sizes`. Returns the sum of the sizes, or Z4_CAPACITY. */
static inline ptrdiff_t z4_palette_split_rows(z4_palette *p, const uint8_t *src, size_t n, unsigned w, size_t row,
                                              size_t column, uint8_t *codes, uint8_t *sizes, uint8_t *palettes,
                                              size_t capacity)
{
    uint8_t palette[8 * Z4_PALETTE_MOST];
    size_t total = 0, m = row - column;
    for (size_t i = 0; i < n; i += m, m = row) {
        m = m < n - i ? m : n - i;
        ptrdiff_t count = z4_palette_split(p, src + w * i, m, w, codes + i, palette);
        if (count < 0)
            return count;
        if ((size_t)count > capacity - total)
            return Z4_CAPACITY;
        memcpy(palettes + w * total, palette, w * (size_t)count);
        total += (size_t)count;
        *sizes++ = (uint8_t)(count - 1);
    }
    return (ptrdiff_t)total;
}

Z4_INLINE void z4_palette_values(const uint8_t *Z4_RESTRICT codes, size_t n, const uint64_t *Z4_RESTRICT values,
                                 unsigned w, uint8_t *Z4_RESTRICT dst)
{
    for (size_t i = 0; i < n; i++)
        memcpy(dst + w * i, &values[codes[i]], w);
}

/* Elements of one row; the palette must ascend, the codes must be in it. */
static inline int z4_palette_join(const uint8_t *codes, size_t n, const uint8_t *palette, unsigned count, unsigned w,
                                  uint8_t *dst)
{
    uint64_t values[Z4_PALETTE_MOST];
    unsigned most = 0;
    if (count == 0 || count > Z4_PALETTE_MOST)
        return Z4_CORRUPT;
    for (unsigned k = 0; k < count; k++) {
        values[k] = z4_palette_load(palette + w * k, w);
        if (k > 0 && values[k] <= values[k - 1])
            return Z4_CORRUPT;
    }
    for (size_t i = 0; i < n; i++)
        most = codes[i] > most ? codes[i] : most;
    if (n > 0 && most >= count)
        return Z4_CORRUPT;
    switch (w) {
    case 2: z4_palette_values(codes, n, values, 2, dst); return Z4_OK;
    case 4: z4_palette_values(codes, n, values, 4, dst); return Z4_OK;
    case 8: z4_palette_values(codes, n, values, 8, dst); return Z4_OK;
    default: return Z4_CORRUPT;
    }
}

/* Elements of all rows of a chunk; sizes as z4_palette_split_rows has them, total the sum of the sizes. */
static inline int z4_palette_join_rows(const uint8_t *codes, size_t n, const uint8_t *sizes, size_t n_rows,
                                       const uint8_t *palettes, size_t total, unsigned w, size_t row, size_t column,
                                       uint8_t *dst)
{
    size_t used = 0, r = 0, m = row - column;
    for (size_t i = 0; i < n; i += m, m = row) {
        m = m < n - i ? m : n - i;
        if (r == n_rows)
            return Z4_CORRUPT;
        unsigned count = sizes[r++] + 1U;
        if (count > total - used)
            return Z4_CORRUPT;
        if (z4_palette_join(codes + i, m, palettes + w * used, count, w, dst + w * i) != Z4_OK)
            return Z4_CORRUPT;
        used += count;
    }
    return used == total && r == n_rows ? Z4_OK : Z4_CORRUPT;
}

#endif
