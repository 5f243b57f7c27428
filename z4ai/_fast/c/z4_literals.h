/* z4_literals.h -- Zstandard frames (RFC 8878) that hold literals only: no matches, no sequences.
 *
 * Encode:   size = z4_lit_encode(impl, src, n, block, dst, capacity, scratch)
 *           One frame of n <= 2^31 bytes, or Z4_CAPACITY; never the latter when capacity is at
 *           least z4_lit_bound(n, block). Every block but the last holds exactly `block` bytes of
 *           content, Z4_LIT_BLOCK_LEAST to Z4_LIT_BLOCK. Bytes between the size returned and capacity may be scribbled on.
 * Decode:   z4_lit_begin(), then z4_lit_block() until it returns 0, then z4_lit_end().
 *           begin: Z4_OK, Z4_TRUNCATED, Z4_CORRUPT (no such frame, or another content size than
 *           content_nbytes), Z4_UNSUPPORTED (skippable frame, dictionary, checksum, reserved bit,
 *           window above 128 MiB, content size not given).
 *           block: content of the next block that has any, 0 after the last one, or a status;
 *           Z4_UNSUPPORTED: the block has sequences. Writes nothing beyond dst + capacity + slack,
 *           reads nothing outside src. After an error the decoder must not be used again.
 *           end: Z4_OK when the last block has been read, nothing follows it, and the content is
 *           complete; else Z4_TRUNCATED or Z4_CORRUPT.
 * Estimate: z4_lit_estimate(counts, n): bytes that n symbols distributed like counts would take.
 * Variants: z4_literals_pick(isa). All give the same bytes and the same statuses.
 *
 * src and dst must not overlap. Nothing is allocated; the two structs are the caller's. src may change
 * while it is encoded: nothing is written out of place then, but the frame is of no use. */
#ifndef Z4_LITERALS_H
#define Z4_LITERALS_H

#include "z4_literals_decode.h"
#include "z4_literals_encode.h"
#include "z4_literals_avx512.h"

/* ---- variants: the same bodies under other target attributes ---- */

static inline void z4_lit_count_scalar(const uint8_t *src, size_t n, uint16_t counts[4][Z4_HUF_SYMBOLS])
{
    z4_lit_count_body(src, n, counts);
}
static inline void z4_lit_encode4_scalar(const uint8_t *src, size_t n, uint8_t *dst, const uint32_t nbytes[4],
                                  const uint64_t *entry)
{
    z4_lit_encode4_body(src, n, dst, nbytes, entry);
}
static inline int z4_lit_decode_scalar(const z4_lit_decoder *d, const z4_lit_stream *streams, unsigned n_streams,
                                const uint8_t *limit)
{
    return z4_lit_decode_body(d, streams, n_streams, limit);
}

#if Z4_X86
Z4_TARGET_AVX2 static inline void z4_lit_encode4_avx2(const uint8_t *src, size_t n, uint8_t *dst,
                                               const uint32_t nbytes[4], const uint64_t *entry)
{
    z4_lit_encode4_body(src, n, dst, nbytes, entry);
}
Z4_TARGET_AVX2 static inline int z4_lit_decode_avx2(const z4_lit_decoder *d, const z4_lit_stream *streams,
                                             unsigned n_streams, const uint8_t *limit)
{
    return z4_lit_decode_body(d, streams, n_streams, limit);
}
#endif

static const z4_literals_impl Z4_LITERALS[] = {
    {"scalar", z4_lit_count_scalar, z4_lit_encode4_scalar, z4_lit_decode_scalar},
#if Z4_X86
    {"avx2", z4_lit_count_scalar, z4_lit_encode4_avx2, z4_lit_decode_avx2},
    {"avx512", z4_lit_count_scalar, z4_lit_encode4_avx512, z4_lit_decode_avx2},
#endif
};

enum { Z4_LITERALS_COUNT = sizeof Z4_LITERALS / sizeof *Z4_LITERALS };

static inline const z4_literals_impl *z4_literals_pick(int isa)
{
    int row = isa == Z4_ISA_AVX512 ? 2 : isa == Z4_ISA_AVX2 ? 1 : 0;
    return &Z4_LITERALS[row < (int)Z4_LITERALS_COUNT ? row : 0];
}

/* ---- encoder ---- */

/* Frame header of at most 9 bytes, 3 a block, the content, and what a block may scribble on behind
 * it: the most of one with a single stream and of one with four. What this adds to n never falls as n
 * grows, so that callers may grant it once, for the largest of many. */
static inline size_t z4_lit_bound(size_t n, size_t block)
{
    const size_t around = 3 * (n / block + 1) + 9;
    if (n < Z4_LIT_FOUR)
        return n + around + z4_lit_overrun(n);
    return n + around + z4_lit_overrun(Z4_LIT_FOUR - 1) + z4_lit_overrun(n < block ? n : block);
}

static inline ptrdiff_t z4_lit_encode(const z4_literals_impl *impl, const uint8_t *src, size_t n,
                                      size_t block, uint8_t *dst, size_t capacity,
                                      z4_lit_encoder *scratch)
{
    const size_t group = Z4_LIT_GROUP * block;
    unsigned flag = n < 256 ? 0 : n < 65536 + 256 ? 1 : 2;
    uint32_t content = (uint32_t)(flag == 1 ? n - 256 : n);
    uint8_t *out = dst;
    if (n > (size_t)1 << 31 || capacity < 12)
        return Z4_CAPACITY;
    z4_store32(out, 0xFD2FB528u);
    out[4] = (uint8_t)(flag << 6 | 1 << 5); /* single segment */
    out += 5;
    for (unsigned i = 0; i < 1u << flag; i++)
        *out++ = (uint8_t)(content >> 8 * i);
    if (n == 0) {
        z4_lit_put24(out, 1 | Z4_LIT_RAW << 1);
        return out + 3 - dst;
    }
    scratch->block = block;
    scratch->live = 0;
    scratch->tree.nbytes = Z4_LIT_NEVER;
    for (size_t at = 0; at < n; at += group) {
        size_t part = n - at < group ? n - at : group;
        out = z4_lit_write_group(impl, scratch, src + at, part, at + part == n, out, dst + capacity);
        if (out == NULL)
            return Z4_CAPACITY;
    }
    return out - dst;
}

/* ---- for probes ---- */

/* Histogram of any buffer. n < 2^32. */
static inline void z4_histogram(const uint8_t *src, size_t n, uint32_t counts[Z4_HUF_SYMBOLS])
{
    uint32_t table[4][Z4_HUF_SYMBOLS];
    size_t i = 0;
    memset(table, 0, sizeof table);
    for (; i + 8 <= n; i += 8) {
        uint64_t v = z4_load64(src + i);
        table[0][v & 255]++;
        table[1][v >> 8 & 255]++;
        table[2][v >> 16 & 255]++;
        table[3][v >> 24 & 255]++;
        table[0][v >> 32 & 255]++;
        table[1][v >> 40 & 255]++;
        table[2][v >> 48 & 255]++;
        table[3][v >> 56]++;
    }
    for (; i < n; i++)
        table[0][src[i]]++;
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++)
        counts[s] = table[0][s] + table[1][s] + table[2][s] + table[3][s];
}

/* Bytes that n symbols distributed like counts[] would take: one tree, blocks of 128 KiB; never more
 * than raw blocks. counts[] may be those of a sample. Integers only, so the same everywhere. */
static inline size_t z4_lit_estimate(const uint32_t counts[Z4_HUF_SYMBOLS], size_t n)
{
    uint32_t scaled[Z4_HUF_SYMBOLS];
    uint64_t total = 0, sum = 0, bits = 0, size;
    size_t blocks = n / Z4_LIT_BLOCK + (n % Z4_LIT_BLOCK != 0), raw = 12 + 3 * blocks + n;
    unsigned shift = 0;
    z4_lit_tree tree;
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++)
        total += counts[s];
    if (total == 0)
        return raw;
    while (total >> shift >= Z4_HUF_MAX_TOTAL / 2)
        shift++;
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++) { /* what occurs, occurs at least once */
        scaled[s] = counts[s] >> shift;
        scaled[s] += counts[s] != 0 && scaled[s] == 0;
        sum += scaled[s];
    }
    z4_lit_tree_build(&tree, scaled);
    if (tree.log == 0) /* one symbol */
        return 12 + 4 * blocks;
    if (tree.nbytes == Z4_LIT_NEVER)
        return raw;
    for (unsigned s = 0; s < Z4_HUF_SYMBOLS; s++)
        bits += (uint64_t)scaled[s] * tree.length[s];
    /* bits / sum is 11 at most and n below 2^48: split, so that nothing overflows */
    size = n / sum * bits + n % sum * bits / sum;
    size = 12 + tree.nbytes + blocks * (3 + 5 + 6 + 4 + 1) + (size + 7) / 8;
    return size < raw ? (size_t)size : raw;
}

#endif
