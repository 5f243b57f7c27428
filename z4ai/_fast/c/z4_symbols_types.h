/* z4_symbols_types.h -- kinds of elements, and the row of a variant; included by z4_symbols.h. */
#ifndef Z4_SYMBOLS_TYPES_H
#define Z4_SYMBOLS_TYPES_H

#include "z4_planes.h"
#include "z4_rares.h"

/* The id of the transform less 7. */
enum z4_symbols_kind {
    Z4_SYMBOLS1 = 0,
    Z4_SYMBOLS2 = 1,
    Z4_SYMBOLS2H = 2,
    Z4_SYMBOLS4 = 3,
    Z4_SYMBOLS8 = 4,
    Z4_SYMBOLS_COUNT = 5
};

typedef void (*z4_symbols_split_fn)(const uint8_t *src, size_t n, unsigned base, uint8_t *symbols,
                                    uint8_t *rest, uint8_t *const *low);
typedef void (*z4_symbols_merge_fn)(const uint8_t *symbols, const uint8_t *rest,
                                    const uint8_t *const *low, size_t n, unsigned base,
                                    uint8_t *dst);
typedef void (*z4_symbols_pack_fn)(const uint8_t *from, size_t n, uint8_t *to);

typedef struct z4_symbols_impl {
    const char *name;
    z4_symbols_split_fn split[Z4_SYMBOLS_COUNT];
    z4_symbols_merge_fn merge[Z4_SYMBOLS_COUNT];
    z4_symbols_merge_fn merge_packed[Z4_SYMBOLS_COUNT];
    z4_symbols_pack_fn pack[Z4_SYMBOLS_COUNT];
    z4_symbols_pack_fn unpack[Z4_SYMBOLS_COUNT];
    void (*contexts)(unsigned row, const uint8_t *columns, size_t n, unsigned shift, unsigned most,
                     uint8_t *contexts);
    void (*count)(const uint8_t *symbols, const uint8_t *contexts, size_t n,
                  uint32_t (*counts)[256]);
    uint64_t (*weigh)(const uint8_t *symbols, size_t n, unsigned floor, uint32_t *sums);
    size_t (*find_rares)(const uint8_t *symbols, const uint8_t *contexts, size_t n,
                         const z4_rares *rares, uint16_t *places);
} z4_symbols_impl;

/* Bytes of an element. */
Z4_INLINE unsigned z4_symbols_width(int kind)
{
    return kind == Z4_SYMBOLS8 ? 8 : kind == Z4_SYMBOLS4 ? 4 : kind == Z4_SYMBOLS1 ? 1 : 2;
}

/* Bits of a remainder. */
Z4_INLINE unsigned z4_symbols_rest_bits(int kind)
{
    return kind == Z4_SYMBOLS1 ? 0 : kind == Z4_SYMBOLS2H ? 8 : kind == Z4_SYMBOLS8 ? 4 : 6;
}

/* Bits of a field; of 8 the symbol is the field, and there is no base. */
Z4_INLINE unsigned z4_symbols_field_bits(int kind)
{
    return kind == Z4_SYMBOLS8 ? 12 : kind == Z4_SYMBOLS2 || kind == Z4_SYMBOLS4 ? 10 : 8;
}

/* Bytes of n packed remainders. */
Z4_INLINE size_t z4_symbols_packed_nbytes(int kind, size_t n)
{
    const unsigned r = z4_symbols_rest_bits(kind);
    return n / 64 * (8 * (size_t)r) + (n % 64 * r + 7) / 8;
}

/* Bits of the upper half word, or of the byte, below the field. */
Z4_INLINE unsigned z4_symbols_below(int kind)
{
    return kind == Z4_SYMBOLS1 ? 0 : z4_symbols_rest_bits(kind) - 1;
}

/* The field of one element. */
Z4_INLINE unsigned z4_symbols_field(int kind, const uint8_t *element)
{
    if (kind == Z4_SYMBOLS1)
        return *element;
    return (z4_load16(element + z4_symbols_width(kind) - 2) & 0x7fffu) >> z4_symbols_below(kind);
}

/* Put a field into an element; the rest of it stays. Bits that no field has are dropped. */
Z4_INLINE void z4_symbols_patch(int kind, unsigned field, uint8_t *element)
{
    if (kind == Z4_SYMBOLS1) {
        *element = (uint8_t)field;
    } else {
        uint8_t *half = element + z4_symbols_width(kind) - 2;
        const unsigned k = z4_symbols_below(kind), mask = 0x7fffu & ~((1u << k) - 1);
        z4_store16(half, (uint16_t)((z4_load16(half) & ~mask) | (field << k & mask)));
    }
}

#endif
