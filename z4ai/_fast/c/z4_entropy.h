/* z4_entropy.h -- what symbols of given counts take by an ideal coder of order 0, in integers, so that
 * every machine makes the same choice by it. Depends on nothing but the counts; cannot fail. */
#ifndef Z4_ENTROPY_H
#define Z4_ENTROPY_H

#include "z4_bits.h"
#include "z4_rans_tables.h"

/* v log2(v), the logarithm in 1/65536; v below 2^40. Of larger v the top 16 bits tell it well enough. */
static inline uint64_t z4_v_log2_v(uint64_t v)
{
    unsigned drop = 0;
    if (v == 0)
        return 0;
    while (v >> drop >> 16)
        drop++;
    return v * ((uint64_t)z4_rans_log2((uint32_t)(v >> drop)) + ((uint64_t)drop << 16));
}

/* Bits in 1/65536 of symbols with those counts, which sum to less than 2^40. Counts of a sample hide
 * half of 1 / ln 2 bits a symbol that is present (Miller and Madow), which is added. */
static inline uint64_t z4_entropy(const ptrdiff_t *counts, size_t n)
{
    enum { Z4_ENTROPY_HIDDEN = 47274 }; /* 65536 / (2 ln 2) */
    uint64_t total = 0, taken = 0, present = 0, whole;
    for (size_t k = 0; k < n; k++) {
        total += (uint64_t)counts[k];
        taken += z4_v_log2_v((uint64_t)counts[k]);
        present += counts[k] != 0;
    }
    whole = z4_v_log2_v(total);
    return present < 2 ? 0 : (whole > taken ? whole - taken : 0) + Z4_ENTROPY_HIDDEN * (present - 1);
}

#endif
