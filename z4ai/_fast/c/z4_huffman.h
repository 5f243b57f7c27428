/* z4_huffman.h -- Huffman code lengths, and the description of a tree (RFC 8878, 4.2.1).
 *
 * A code of length l in a tree whose longest code has `log` bits has weight log + 1 - l; a symbol
 * that does not occur has weight 0. Codes are given out from value 0 by rising weight, then by
 * rising symbol. The weight of the last symbol is not written: it is what completes the tree. */
#ifndef Z4_HUFFMAN_H
#define Z4_HUFFMAN_H

#include "z4_bits.h"
#include "z4_fse.h"

enum {
    Z4_HUF_LOG = 11,       /* longest code */
    Z4_HUF_SYMBOLS = 256,
    Z4_HUF_DIRECT = 128,   /* most weights that may be written without FSE */
    Z4_HUF_MAX_TREE = 128  /* bytes of a description, with its head */
};

/* Most that the sum of a histogram may be here: a key is a count and a symbol in 32 bits, and
 * package-merge adds up Z4_HUF_LOG times the sum. */
#define Z4_HUF_MAX_TOTAL ((uint32_t)1 << 24)

/* Code lengths without a limit: the two-queue method. key[] sorted; length[i] of key[i]. */
Z4_INLINE unsigned z4_huf_lengths_free(const uint32_t *key, unsigned n, uint8_t *length)
{
    uint32_t weight[2 * Z4_HUF_SYMBOLS];
    uint16_t parent[2 * Z4_HUF_SYMBOLS];
    uint8_t depth[2 * Z4_HUF_SYMBOLS];
    unsigned leaf = 0, inner = n, made = n;
    for (unsigned i = 0; i < n; i++)
        weight[i] = key[i] >> 8;
    for (; made < 2 * n - 1; made++) {
        uint32_t sum = 0;
        for (int k = 0; k < 2; k++) { /* at equal weight the leaf first: shallower trees */
            unsigned x = inner >= made || (leaf < n && weight[leaf] <= weight[inner]) ? leaf++ : inner++;
            sum += weight[x];
            parent[x] = (uint16_t)made;
        }
        weight[made] = sum;
    }
    depth[made - 1] = 0;
    for (unsigned i = made - 1; i-- > 0;)
        depth[i] = (uint8_t)(depth[parent[i]] + 1); /* 255 at most */
    memcpy(length, depth, n);
    return depth[0];
}

/* Optimal code lengths of at most Z4_HUF_LOG bits: package-merge. */
Z4_INLINE void z4_huf_lengths_limited(const uint32_t *key, unsigned n, uint8_t *length)
{
    uint32_t list[2][2 * Z4_HUF_SYMBOLS];
    uint16_t leaves[Z4_HUF_LOG][2 * Z4_HUF_SYMBOLS + 1]; /* leaves among the first i of a level */
    unsigned n_list = 0, take = 2 * n - 2;
    for (unsigned level = 0; level < Z4_HUF_LOG; level++) {
        const uint32_t *below = list[level & 1];
        uint32_t *here = list[~level & 1];
        unsigned pairs = n_list / 2, leaf = 0, pair = 0, i = 0;
        leaves[level][0] = 0;
        while (leaf < n || pair < pairs) {
            uint32_t a = leaf < n ? key[leaf] >> 8 : UINT32_MAX;
            uint32_t b = pair < pairs ? below[2 * pair] + below[2 * pair + 1] : UINT32_MAX;
            unsigned is_leaf = a <= b;
            here[i++] = is_leaf ? a : b;
            leaf += is_leaf;
            pair += !is_leaf;
            leaves[level][i] = (uint16_t)leaf;
        }
        n_list = i;
    }
    memset(length, 0, n);
    for (unsigned level = Z4_HUF_LOG; level-- > 0;) {
        unsigned n_leaves = leaves[level][take];
        for (unsigned i = 0; i < n_leaves; i++)
            length[i]++;
        take = 2 * (take - n_leaves);
    }
}

/* Code lengths for a histogram of sum <= Z4_HUF_MAX_TOTAL; 0 for a symbol that does not occur.
 * Returns the longest, 0 when fewer than two symbols occur. */
Z4_INLINE unsigned z4_huf_lengths(const uint32_t *counts, uint8_t *length)
{
    uint32_t found[Z4_HUF_SYMBOLS], key[Z4_HUF_SYMBOLS];
    uint8_t sorted[Z4_HUF_SYMBOLS];
    unsigned n = 0;
    memset(length, 0, Z4_HUF_SYMBOLS);
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++) {
        found[n] = counts[s] << 8 | s;
        n += counts[s] != 0;
    }
    if (n < 2)
        return 0;
    for (unsigned i = 0; i < n; i++) { /* keys differ, so the rank is the place; this vectorises */
        uint32_t mine = found[i], rank = 0;
        for (unsigned j = 0; j < n; j++)
            rank += found[j] < mine;
        key[rank] = mine;
    }
    if (z4_huf_lengths_free(key, n, sorted) > Z4_HUF_LOG)
        z4_huf_lengths_limited(key, n, sorted);
    for (unsigned i = 0; i < n; i++)
        length[key[i] & 255] = sorted[i];
    return sorted[0]; /* the rarest symbol has the longest code */
}

/* Write the description of a tree; dst has room for Z4_HUF_MAX_TREE. The smaller of the two forms;
 * direct at a tie, being the quicker to read. Z4_UNSUPPORTED: there is none (symbols above 128,
 * and weights that are all alike or too many for 127 bytes). */
static inline ptrdiff_t z4_huf_write_tree(const uint8_t *length, unsigned log, uint8_t *dst)
{
    uint8_t weight[Z4_HUF_SYMBOLS], coded[Z4_FSE_SCRATCH];
    unsigned n = Z4_HUF_SYMBOLS, kinds = 0;
    ptrdiff_t best = Z4_UNSUPPORTED;
    while (length[n - 1] == 0)
        n--;
    n--; /* symbols before the last */
    for (unsigned s = 0; s < n; s++) {
        weight[s] = (uint8_t)(length[s] ? log + 1 - length[s] : 0);
        kinds |= 1u << weight[s];
    }
    if (n <= Z4_HUF_DIRECT) {
        best = (ptrdiff_t)(1 + (n + 1) / 2);
        dst[0] = (uint8_t)(127 + n);
        weight[n] = 0;
        for (unsigned s = 0; s < n; s += 2)
            dst[1 + s / 2] = (uint8_t)(weight[s] << 4 | weight[s + 1]);
    }
    if (n < 2 || (kinds & (kinds - 1)) == 0)
        return best;
    for (unsigned accuracy = Z4_FSE_LOG_MAX; accuracy >= Z4_FSE_LOG_MIN; accuracy--) {
        ptrdiff_t size = z4_fse_encode(weight, n, accuracy, coded);
        if (size > 0 && (best < 0 || size + 1 < best)) {
            best = size + 1;
            dst[0] = (uint8_t)size;
            memcpy(dst + 1, coded, (size_t)size);
        }
    }
    return best;
}

/* Read a description. weight[] is filled up to *n_symbols; returns the bytes it took.
 * Sum of 2^(weight-1) is 2^log exactly, and 1 <= log <= Z4_HUF_LOG, when this succeeds. */
static inline ptrdiff_t z4_huf_read_tree(const uint8_t *src, size_t nbytes, uint8_t *weight,
                                  unsigned *n_symbols, unsigned *log)
{
    size_t head, n;
    uint32_t sum = 0, rest, of_one = 0;
    if (nbytes == 0)
        return Z4_CORRUPT;
    if (src[0] >= 128) {
        n = src[0] - 127u; /* 1..128 */
        head = 1 + (n + 1) / 2;
        if (head > nbytes)
            return Z4_CORRUPT;
        for (size_t s = 0; s < n; s++)
            weight[s] = s & 1 ? src[1 + s / 2] & 15 : src[1 + s / 2] >> 4;
    } else {
        ptrdiff_t found;
        head = 1 + (size_t)src[0];
        if (head > nbytes)
            return Z4_CORRUPT;
        found = z4_fse_decode(src + 1, head - 1, weight, Z4_HUF_SYMBOLS - 1);
        if (found < 0)
            return found;
        n = (size_t)found;
    }
    for (size_t s = 0; s < n; s++) {
        if (weight[s] > Z4_HUF_LOG)
            return Z4_CORRUPT;
        sum += (1u << weight[s]) >> 1;
        of_one += weight[s] == 1;
    }
    if (sum == 0)
        return Z4_CORRUPT;
    *log = z4_log2(sum) + 1;
    if (*log > Z4_HUF_LOG)
        return Z4_CORRUPT;
    rest = (1u << *log) - sum; /* at least 1: sum < 2^log */
    if (rest & (rest - 1))
        return Z4_CORRUPT;
    weight[n] = (uint8_t)(z4_log2(rest) + 1);
    of_one += weight[n] == 1;
    if (of_one < 2) /* the longest codes come in pairs */
        return Z4_CORRUPT;
    *n_symbols = (unsigned)n + 1;
    return (ptrdiff_t)head;
}

#endif
