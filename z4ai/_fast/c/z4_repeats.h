/* z4_repeats.h -- long repeats in a buffer: find them, take them out, put them back.
 *
 * docs/format/copies.md has the rules of a list of copies and what the search promises. In short:
 * an anchor is a position chosen by the 8 bytes from there on, so that equal ranges have anchors at
 * equal places; a table leads from a hash of the 32 bytes at an anchor to its position; what it
 * yields is compared. Sources are literal, hence a copy never waits for another. */
#ifndef Z4_REPEATS_H
#define Z4_REPEATS_H

#include "z4_bits.h"
#include "z4_portable.h"
#include "z4_status.h"

typedef struct {
    uint64_t dst, src, nbytes;
} z4_copy;

#define Z4_COPY_MIN_NBYTES 64u
#define Z4_COPY_MAX_COUNT ((size_t)1 << 20)

/* --- a list of copies ------------------------------------------------------------------------ */

/* What is wrong with a list. */
enum {
    Z4_COPIES_FINE = 0,
    Z4_COPIES_COUNT,    /* none, or too many */
    Z4_COPIES_VARINT,   /* a number that is cut off, too large, or not in its shortest form */
    Z4_COPIES_TRAILING, /* bytes behind the last copy */
    Z4_COPIES_SHORT,    /* a copy below the minimum */
    Z4_COPIES_ORDER,    /* a copy before the end of the one before it */
    Z4_COPIES_END,      /* a copy ends behind the content */
    Z4_COPIES_SOURCE,   /* a source does not end before its copy */
    Z4_COPIES_COPIED,   /* a source touches a copied range */
    Z4_COPIES_DEFECTS
};

/* How many of k rising copies begin at or before `at`. */
Z4_INLINE size_t z4_copies_before(const z4_copy *copies, size_t k, uint64_t at)
{
    size_t low = 0, high = k;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (copies[mid].dst <= at)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

/* One of Z4_COPIES_*, and in *bad the number of the copy that breaks the rule. */
static int z4_copies_check(const z4_copy *copies, size_t k, uint64_t content_nbytes, size_t *bad)
{
    uint64_t end = 0;
    size_t i;
    *bad = 0;
    if (k > Z4_COPY_MAX_COUNT)
        return Z4_COPIES_COUNT;
    for (i = 0; i < k; i++) {
        const z4_copy *c = copies + i;
        *bad = i;
        if (c->nbytes < Z4_COPY_MIN_NBYTES)
            return Z4_COPIES_SHORT;
        if (c->dst < end)
            return Z4_COPIES_ORDER;
        if (c->dst > content_nbytes || c->nbytes > content_nbytes - c->dst)
            return Z4_COPIES_END;
        if (c->src > c->dst || c->nbytes > c->dst - c->src)
            return Z4_COPIES_SOURCE;
        end = c->dst + c->nbytes;
    }
    /* Only now is the order known by which to search. */
    for (i = 0; i < k; i++) {
        size_t before = z4_copies_before(copies, k, copies[i].src);
        *bad = i;
        if (before > 0 && copies[before - 1].dst + copies[before - 1].nbytes > copies[i].src)
            return Z4_COPIES_COPIED;
        if (before < k && copies[before].dst < copies[i].src + copies[i].nbytes)
            return Z4_COPIES_COPIED;
    }
    return Z4_COPIES_FINE;
}

/* Size of the content without the copied ranges. The list must have been checked. */
Z4_INLINE uint64_t z4_copies_dense(const z4_copy *copies, size_t k, uint64_t content_nbytes)
{
    size_t i;
    for (i = 0; i < k; i++)
        content_nbytes -= copies[i].nbytes;
    return content_nbytes;
}

/* Put the literal ranges together. out has room for them; the list has been checked. */
static void z4_copies_take_out(const uint8_t *content, uint64_t content_nbytes,
                               const z4_copy *copies, size_t k, uint8_t *out)
{
    uint64_t from = 0;
    size_t i;
    for (i = 0; i <= k; i++) {
        uint64_t to = i < k ? copies[i].dst : content_nbytes;
        memcpy(out, content + from, (size_t)(to - from));
        out += to - from;
        if (i < k)
            from = to + copies[i].nbytes;
    }
}

/* From the dense content, in the first bytes of out, to all of it; the list has been checked. */
static void z4_copies_expand(uint8_t *out, uint64_t content_nbytes, const z4_copy *copies, size_t k)
{
    uint64_t to = content_nbytes;
    uint64_t shift = content_nbytes - z4_copies_dense(copies, k, content_nbytes);
    size_t i;
    for (i = k; i-- > 0;) {
        uint64_t from = copies[i].dst + copies[i].nbytes;
        memmove(out + from, out + (from - shift), (size_t)(to - from));
        shift -= copies[i].nbytes;
        to = copies[i].dst;
    }
    for (i = 0; i < k; i++)
        memcpy(out + copies[i].dst, out + copies[i].src, (size_t)copies[i].nbytes);
}

/* --- the record ------------------------------------------------------------------------------ */

#define Z4_COPIES_RECORD_BOUND(k) (10 + 30 * (size_t)(k))

Z4_INLINE uint8_t *z4_copies_put(uint8_t *p, uint64_t v)
{
    while (v > 0x7f) {
        *p++ = (uint8_t)(v | 0x80);
        v >>= 7;
    }
    *p++ = (uint8_t)v;
    return p;
}

/* 0, or a defect. */
Z4_INLINE int z4_copies_get(const uint8_t *src, size_t nbytes, size_t *pos, uint64_t *v)
{
    unsigned shift = 0;
    *v = 0;
    for (;;) {
        uint8_t b;
        if (*pos >= nbytes || shift > 63)
            return Z4_COPIES_VARINT;
        b = src[(*pos)++];
        if (shift == 63 && b > 1)
            return Z4_COPIES_VARINT;
        *v |= (uint64_t)(b & 0x7f) << shift;
        if (b < 0x80)
            return b == 0 && shift > 0 ? Z4_COPIES_VARINT : Z4_COPIES_FINE;
        shift += 7;
    }
}

/* Write the record of a list that has been checked and is not empty; the size. dst has room for
 * Z4_COPIES_RECORD_BOUND(k) bytes. */
static size_t z4_copies_write(const z4_copy *copies, size_t k, uint8_t *dst)
{
    uint8_t *p = z4_copies_put(dst, k);
    uint64_t end = 0, source_end = 0;
    size_t i;
    for (i = 0; i < k; i++) {
        const z4_copy *c = copies + i;
        uint64_t gap = c->dst - end, guess = source_end + gap;
        p = z4_copies_put(p, gap);
        p = z4_copies_put(p, c->nbytes - Z4_COPY_MIN_NBYTES);
        p = z4_copies_put(p, c->src >= guess ? 2 * (c->src - guess) : 2 * (guess - c->src) - 1);
        end = c->dst + c->nbytes;
        source_end = c->src + c->nbytes;
    }
    return (size_t)(p - dst);
}

/* How many copies a record announces; 0 if it is no record. A copy takes three bytes at least. */
static size_t z4_copies_count(const uint8_t *src, size_t nbytes)
{
    size_t pos = 0;
    uint64_t k;
    if (z4_copies_get(src, nbytes, &pos, &k) != Z4_COPIES_FINE || k > Z4_COPY_MAX_COUNT ||
        k > (nbytes - pos) / 3)
        return 0;
    return (size_t)k;
}

/* Read as many copies as z4_copies_count says, and check them. The end of a copy is bounded by
 * content_nbytes, below 2^63, before it is computed. A source below zero wraps around to above 2^63,
 * and so is refused as one that does not lie before its copy. */
static int z4_copies_read(const uint8_t *src, size_t nbytes, uint64_t content_nbytes,
                          z4_copy *copies, size_t *bad)
{
    size_t pos = 0, i;
    uint64_t k, end = 0, source_end = 0;
    *bad = 0;
    if (content_nbytes >> 63)
        return Z4_COPIES_END;
    if (z4_copies_get(src, nbytes, &pos, &k) != Z4_COPIES_FINE)
        return Z4_COPIES_VARINT;
    if (k == 0 || k > Z4_COPY_MAX_COUNT)
        return Z4_COPIES_COUNT;
    if (k > (nbytes - pos) / 3)
        return Z4_COPIES_VARINT;
    for (i = 0; i < k; i++) {
        uint64_t gap, excess, step, guess;
        *bad = i;
        if (z4_copies_get(src, nbytes, &pos, &gap) || z4_copies_get(src, nbytes, &pos, &excess) ||
            z4_copies_get(src, nbytes, &pos, &step))
            return Z4_COPIES_VARINT;
        if (gap > content_nbytes - end || excess > content_nbytes - end - gap ||
            excess + Z4_COPY_MIN_NBYTES > content_nbytes - end - gap)
            return Z4_COPIES_END;
        copies[i].dst = end + gap;
        copies[i].nbytes = excess + Z4_COPY_MIN_NBYTES;
        guess = source_end + gap;
        copies[i].src = step & 1 ? guess - (step >> 1) - 1 : guess + (step >> 1);
        end = copies[i].dst + copies[i].nbytes;
        source_end = copies[i].src + copies[i].nbytes;
    }
    if (pos != nbytes)
        return Z4_COPIES_TRAILING;
    return z4_copies_check(copies, (size_t)k, content_nbytes, bad);
}

/* --- anchors --------------------------------------------------------------------------------- */

#define Z4_ANCHOR_BLOCK 64u /* positions tested by a call */
#define Z4_ANCHOR_READS (Z4_ANCHOR_BLOCK + 7u)
#define Z4_ANCHOR_HASHED 32u

/* Odd, and such that runs of one byte, zeros first of all, are far from the threshold. */
#define Z4_ANCHOR_M0 0x9E35u
#define Z4_ANCHOR_M1 0x7A6Du
#define Z4_ANCHOR_M2 0xC2B3u
#define Z4_ANCHOR_M3 0x85EBu
#define Z4_ANCHOR_BIAS 0x8000u

/* Bit i: the hash of the 8 bytes from p + i on is below the limit. Reads Z4_ANCHOR_READS bytes. */
Z4_INLINE uint64_t z4_anchor_mask_any(const uint8_t *p, uint16_t limit)
{
    uint8_t hit[Z4_ANCHOR_BLOCK];
    uint64_t mask = 0;
    unsigned i;
    for (i = 0; i < Z4_ANCHOR_BLOCK; i++) {
        uint16_t h = (uint16_t)((uint32_t)z4_load16(p + i) * Z4_ANCHOR_M0 +
                                (uint32_t)z4_load16(p + i + 2) * Z4_ANCHOR_M1 +
                                (uint32_t)z4_load16(p + i + 4) * Z4_ANCHOR_M2 +
                                (uint32_t)z4_load16(p + i + 6) * Z4_ANCHOR_M3 + Z4_ANCHOR_BIAS);
        hit[i] = h < limit;
    }
    for (i = 0; i < Z4_ANCHOR_BLOCK; i += 8)
        mask |= (z4_load64(hit + i) * 0x0102040810204080u >> 56) << i;
    return mask;
}

#if Z4_X86
/* Lanes of 16 bits hold every other position: even ones, then odd ones. SSE2 is always there. */
Z4_INLINE __m128i z4_anchor_hash_sse2(const uint8_t *p)
{
    __m128i h = _mm_set1_epi16((short)Z4_ANCHOR_BIAS);
#define Z4_ADD(k, m)                                                                               \
    h = _mm_add_epi16(h, _mm_mullo_epi16(_mm_loadu_si128((const __m128i *)(p + 2 * (k))),          \
                                         _mm_set1_epi16((short)(m))))
    Z4_ADD(0, Z4_ANCHOR_M0);
    Z4_ADD(1, Z4_ANCHOR_M1);
    Z4_ADD(2, Z4_ANCHOR_M2);
    Z4_ADD(3, Z4_ANCHOR_M3);
#undef Z4_ADD
    return h;
}

Z4_INLINE uint64_t z4_anchor_mask_sse2(const uint8_t *p, uint16_t limit)
{
    const __m128i above = _mm_set1_epi16((short)(limit - 1)), low = _mm_set1_epi16(0x00ff);
    const __m128i zero = _mm_setzero_si128();
    uint64_t mask = 0;
    unsigned i;
    for (i = 0; i < Z4_ANCHOR_BLOCK; i += 16) {
        __m128i even = _mm_subs_epu16(z4_anchor_hash_sse2(p + i), above);
        __m128i odd = _mm_subs_epu16(z4_anchor_hash_sse2(p + i + 1), above);
        even = _mm_cmpeq_epi16(even, zero);
        odd = _mm_cmpeq_epi16(odd, zero);
        __m128i both = _mm_or_si128(_mm_and_si128(low, even), _mm_andnot_si128(low, odd));
        mask |= (uint64_t)(uint32_t)_mm_movemask_epi8(both) << i;
    }
    return mask;
}
#define z4_anchor_mask_base z4_anchor_mask_sse2

Z4_TARGET_AVX2 static inline __m256i z4_anchor_hash_avx2(const uint8_t *p)
{
    __m256i h = _mm256_set1_epi16((short)Z4_ANCHOR_BIAS);
#define Z4_ADD(k, m)                                                                               \
    h = _mm256_add_epi16(h, _mm256_mullo_epi16(_mm256_loadu_si256((const __m256i *)(p + 2 * (k))), \
                                               _mm256_set1_epi16((short)(m))))
    Z4_ADD(0, Z4_ANCHOR_M0);
    Z4_ADD(1, Z4_ANCHOR_M1);
    Z4_ADD(2, Z4_ANCHOR_M2);
    Z4_ADD(3, Z4_ANCHOR_M3);
#undef Z4_ADD
    return h;
}

Z4_TARGET_AVX2 static inline uint64_t z4_anchor_mask_avx2(const uint8_t *p, uint16_t limit)
{
    const __m256i above = _mm256_set1_epi16((short)(limit - 1)), low = _mm256_set1_epi16(0x00ff);
    const __m256i zero = _mm256_setzero_si256();
    uint64_t mask = 0;
    unsigned i;
    for (i = 0; i < Z4_ANCHOR_BLOCK; i += 32) {
        __m256i even = _mm256_subs_epu16(z4_anchor_hash_avx2(p + i), above);
        __m256i odd = _mm256_subs_epu16(z4_anchor_hash_avx2(p + i + 1), above);
        even = _mm256_cmpeq_epi16(even, zero);
        odd = _mm256_cmpeq_epi16(odd, zero);
        __m256i both = _mm256_or_si256(_mm256_and_si256(low, even), _mm256_andnot_si256(low, odd));
        mask |= (uint64_t)(uint32_t)_mm256_movemask_epi8(both) << i;
    }
    return mask;
}
#else
#define z4_anchor_mask_base z4_anchor_mask_any
#endif

typedef uint64_t z4_anchor_mask(const uint8_t *p, uint16_t limit);

/* Anchors found and not yet looked up. */
#define Z4_ANCHORS_A_BLOCK 4u
#define Z4_ANCHORS 64u
typedef struct {
    uint64_t hash[Z4_ANCHORS];
    size_t at[Z4_ANCHORS + Z4_ANCHORS_A_BLOCK]; /* what is written behind the last is never read */
    unsigned count;
} z4_anchors;

#define Z4_TABLE_WAYS 4u

typedef struct {
    const uint8_t *content;
    size_t n;
    uint64_t *table; /* buckets of Z4_TABLE_WAYS entries: 24 bits of hash, 40 of position + 1 */
    unsigned bits;   /* log2 of the number of buckets */
    size_t width; /* copies begin at a multiple of it, and are a multiple of it long */
    size_t min_nbytes;
    z4_copy *copies;
    size_t count, capacity;
    size_t literal; /* behind the last copy */
    size_t spent;   /* bytes compared for nothing */
} z4_search;

#define Z4_REPEATS_MAX_NBYTES ((uint64_t)1 << 40)

Z4_INLINE uint64_t z4_anchor_hash(const uint8_t *p)
{
    uint64_t h = z4_load64(p) * 0x9E3779B185EBCA87u + z4_load64(p + 8) * 0xC2B2AE3D27D4EB4Fu +
                 z4_load64(p + 16) * 0x165667B19E3779F9u + z4_load64(p + 24) * 0x85EBCA77C2B2AE63u;
    h ^= h >> 32;
    h *= 0x9FB21C651E98DF25u;
    return h ^ h >> 29;
}

/* Runs of a period that divides 8. */
Z4_INLINE int z4_anchor_run(const uint8_t *p)
{
    uint64_t v = z4_load64(p);
    return v == z4_load64(p + 8) && v == z4_load64(p + 16);
}

Z4_INLINE uint64_t *z4_search_bucket(const z4_search *s, uint64_t hash)
{
    return s->table + Z4_TABLE_WAYS * (size_t)(hash >> (64 - s->bits));
}

/* Take the anchors of a block at `at`. No branch depends on the data: it could not be foretold. */
Z4_INLINE void z4_anchors_take(size_t at, uint64_t mask, z4_anchors *a)
{
    unsigned i, count = a->count;
    for (i = 0; i < Z4_ANCHORS_A_BLOCK; i++) {
        a->at[count] = at + z4_ctz64(mask | (uint64_t)1 << 63);
        count += mask != 0;
        mask &= mask - 1;
    }
    a->count = count;
}

/* Hash the anchors that were taken, drop those in runs, and send for the buckets of the others. */
Z4_INLINE void z4_anchors_hash(const z4_search *s, z4_anchors *a)
{
    unsigned i, kept = 0;
    for (i = 0; i < a->count; i++) {
        const uint8_t *p = s->content + a->at[i];
        uint64_t hash = z4_anchor_hash(p);
        z4_prefetch(z4_search_bucket(s, hash));
        a->at[kept] = a->at[i];
        a->hash[kept] = hash;
        kept += !z4_anchor_run(p);
    }
    a->count = kept;
}

/* --- matches --------------------------------------------------------------------------------- */

/* How many bytes are equal from a and b on, max at most. */
static size_t z4_same_after(const uint8_t *a, const uint8_t *b, size_t max)
{
    size_t i = 0;
    while (max - i >= 1024 && memcmp(a + i, b + i, 1024) == 0)
        i += 1024;
    while (max - i >= 8) {
        uint64_t x = z4_load64(a + i) ^ z4_load64(b + i);
        if (x != 0)
            return i + z4_ctz64(x) / 8;
        i += 8;
    }
    while (i < max && a[i] == b[i])
        i++;
    return i;
}

/* How many bytes are equal before a and b. */
static size_t z4_same_before(const uint8_t *a, const uint8_t *b, size_t max)
{
    size_t i = 0;
    while (max - i >= 1024 && memcmp(a - i - 1024, b - i - 1024, 1024) == 0)
        i += 1024;
    while (max - i >= 8 && z4_load64(a - i - 8) == z4_load64(b - i - 8))
        i += 8;
    while (i < max && a[-(ptrdiff_t)i - 1] == b[-(ptrdiff_t)i - 1])
        i++;
    return i;
}

/* Whether there is more to a range than runs: enough words that differ from the word before. */
static int z4_has_substance(const uint8_t *p, size_t n, size_t enough)
{
    size_t i, words = 0;
    for (i = 8; i + 8 <= n; i += 8) {
        words += z4_load64(p + i) != z4_load64(p + i - 8);
        if (8 * words + 64 >= enough)
            return 1;
    }
    return 0;
}

/* The copy that the equal bytes at p and q allow, q before p, with at most `reach` bytes in either
 * direction. 1 if it is worth while. */
static int z4_search_match(z4_search *s, size_t p, size_t q, size_t reach, z4_copy *copy)
{
    const uint8_t *content = s->content;
    size_t first = 0, last = p, after, before, most, skip, n, k;
    int open;
    if (q < s->literal) { /* then it is not in the last literal range */
        k = z4_copies_before(s->copies, s->count, q);
        if (k > 0 && q < s->copies[k - 1].dst + s->copies[k - 1].nbytes) {
            q = (size_t)(s->copies[k - 1].src + (q - s->copies[k - 1].dst));
            k = z4_copies_before(s->copies, s->count, q);
        }
        if (k > 0)
            first = (size_t)(s->copies[k - 1].dst + s->copies[k - 1].nbytes);
        open = k == s->count;
        if (!open)
            last = (size_t)s->copies[k].dst;
    } else {
        first = s->literal;
        open = 1;
    }
    most = last - q < s->n - p ? last - q : s->n - p;
    after = z4_same_after(content + p, content + q, most < reach ? most : reach);
    most = p - s->literal < q - first ? p - s->literal : q - first;
    if (open && most > p - q - after) /* the source must end before the copy begins */
        most = p - q - after;
    before = z4_same_before(content + p, content + q, most < reach ? most : reach);
    n = before + after;
    skip = s->width - 1 - (p - before + s->width - 1) % s->width; /* to a multiple of the width */
    copy->dst = p - before + skip;
    copy->src = q - before + skip;
    copy->nbytes = n > skip ? (n - skip) / s->width * s->width : 0;
    if (copy->nbytes < s->min_nbytes) {
        s->spent += n;
        return 0;
    }
    if (!z4_has_substance(content + copy->dst, (size_t)copy->nbytes, s->min_nbytes)) {
        s->spent += 2 * n;
        return 0;
    }
    return 1;
}

/* Look an anchor up and enter it. A position of the same hash before it, or SIZE_MAX. */
Z4_INLINE size_t z4_search_enter(z4_search *s, size_t p, uint64_t hash)
{
    uint64_t *bucket = z4_search_bucket(s, hash), tag = hash & 0xffffff;
    unsigned i;
    for (i = 0; i < Z4_TABLE_WAYS; i++) {
        if (bucket[i] == 0)
            break;
        if (bucket[i] >> 40 == tag)
            return (size_t)(bucket[i] & 0xffffffffffu) - 1;
    }
    if (i == Z4_TABLE_WAYS) { /* the oldest goes */
        for (i = 0; i + 1 < Z4_TABLE_WAYS; i++)
            bucket[i] = bucket[i + 1];
    }
    bucket[i] = tag << 40 | (uint64_t)(p + 1);
    return SIZE_MAX;
}

/* --- probe and search ------------------------------------------------------------------------ */

/* Places of windows in a period. Differences of two are every number below the period, once each:
 * whatever the distance of two equal ranges, some pair of windows sees the same bytes of both. */
#define Z4_PROBE_WINDOW 256u
#define Z4_PROBE_WINDOW_SMALL 64u /* small buffers have room for few windows, and are in a cache */
#define Z4_SMALL_NBYTES ((uint64_t)1 << 20)
#define Z4_PROBE_WINDOWS 17u
#define Z4_PROBE_PERIOD 273u
static const uint16_t Z4_PROBE_AT[Z4_PROBE_WINDOWS] = {0,   62,  82,  101, 106, 112, 114, 141, 148,
                                                      179, 189, 201, 204, 205, 222, 250, 259};
#define Z4_PROBE_AHEAD 8u /* windows asked for before they are looked at */
#define Z4_PROBE_DENSITY 6u           /* one anchor in 2^6 positions */
#define Z4_PROBE_ANCHORS_LOG2 17u     /* and no more than about so many */
#define Z4_SEARCH_DENSITY 8u
#define Z4_SEARCH_STRIDE ((size_t)2048) /* positions whose anchors are looked up at once */
#define Z4_SEARCH_TABLE ((uint64_t)1 << 22)
#define Z4_SEARCH_TABLE_MAX ((uint64_t)1 << 26)
#define Z4_WHOLE_NBYTES ((size_t)1 << 15) /* below this there is no probe */

/* log2 of how rare anchors are. */
Z4_INLINE unsigned z4_probe_density(uint64_t n)
{
    unsigned k = n < Z4_SMALL_NBYTES / 4 ? Z4_PROBE_DENSITY - 1 : Z4_PROBE_DENSITY;
    while (k < 16 && n >> (4 + k) > (uint64_t)1 << Z4_PROBE_ANCHORS_LOG2)
        k++;
    return k;
}

Z4_INLINE unsigned z4_search_density(uint64_t n)
{
    unsigned k = Z4_SEARCH_DENSITY;
    uint64_t most = n / 64 < Z4_SEARCH_TABLE ? Z4_SEARCH_TABLE : n / 64;
    if (most > Z4_SEARCH_TABLE_MAX)
        most = Z4_SEARCH_TABLE_MAX;
    while (k < 16 && 16 * (n >> k) > most)
        k++;
    return k;
}

/* log2 of the number of buckets for so many anchors: half of the entries are free. */
Z4_INLINE unsigned z4_table_bits(uint64_t anchors)
{
    unsigned bits = 6;
    while (bits < 28 && (uint64_t)Z4_TABLE_WAYS << bits < 2 * anchors)
        bits++;
    return bits;
}
Z4_INLINE unsigned z4_probe_bits(uint64_t n)
{
    return z4_table_bits(n >> (4 + z4_probe_density(n)));
}

/* A power of two above the budget would be twice the budget: round down. */
Z4_INLINE unsigned z4_search_bits(uint64_t n)
{
    return z4_table_bits((n >> z4_search_density(n)) / 2);
}

/* Positions below this one may be anchors: block and hash stay inside the content. */
Z4_INLINE size_t z4_anchor_end(size_t n)
{
    const size_t behind = Z4_ANCHOR_READS + Z4_ANCHOR_HASHED;
    return n < behind ? 0 : n - behind;
}

/* Look collected anchors up; 1 as soon as enough has been found. A hit stands for as many bytes as
 * it took: a position in 16 is seen on either side, and few of those are anchors. */
static int z4_probe_look(z4_search *s, z4_anchors *a, uint64_t *found, uint64_t wanted)
{
    const uint64_t hit = (uint64_t)1 << (8 + z4_probe_density(s->n));
    unsigned i;
    z4_anchors_hash(s, a);
    for (i = 0; i < a->count; i++) {
        size_t q = z4_search_enter(s, a->at[i], a->hash[i]);
        z4_copy copy;
        if (q == SIZE_MAX || s->spent > a->at[i] / 16 + 65536)
            continue;
        if (!z4_search_match(s, a->at[i], q, (size_t)wanted + s->min_nbytes, &copy))
            continue;
        *found += copy.nbytes > hit ? copy.nbytes : hit;
        if (*found >= wanted)
            return 1;
    }
    a->count = 0;
    return 0;
}

/* Whether it is worth while to search. The table has been zeroed; copies are not used. */
Z4_INLINE int z4_probe(z4_search *s, z4_anchor_mask *mask)
{
    const uint16_t limit = (uint16_t)(65536u >> z4_probe_density(s->n));
    const uint64_t wanted = s->n >> 12;
    const size_t window = s->n < Z4_SMALL_NBYTES ? Z4_PROBE_WINDOW_SMALL : Z4_PROBE_WINDOW;
    const size_t end = z4_anchor_end(s->n), period = Z4_PROBE_PERIOD * window;
    uint64_t found = 0;
    z4_anchors a;
    size_t base, i;
    unsigned w;
    a.count = 0;
    for (base = 0; base < end; base += period) {
        for (w = 0; w < Z4_PROBE_WINDOWS; w++) {
            const unsigned v = w + Z4_PROBE_AHEAD;
            const size_t at = base + Z4_PROBE_AT[w] * window;
            const size_t ahead = (v < Z4_PROBE_WINDOWS ? base : base + period) +
                                 Z4_PROBE_AT[v % Z4_PROBE_WINDOWS] * window;
            if (at + window > end)
                break;
            if (ahead + window < end)
                for (i = 0; i <= window; i += 64)
                    z4_prefetch(s->content + ahead + i);
            for (i = 0; i < window; i += Z4_ANCHOR_BLOCK)
                z4_anchors_take(at + i, mask(s->content + at + i, limit), &a);
            if (a.count > Z4_ANCHORS - Z4_ANCHORS_A_BLOCK * (Z4_PROBE_WINDOW / Z4_ANCHOR_BLOCK) &&
                z4_probe_look(s, &a, &found, wanted))
                return 1;
        }
    }
    return z4_probe_look(s, &a, &found, wanted);
}

/* Look collected anchors up; where to go on. */
static size_t z4_search_look(z4_search *s, z4_anchors *a, size_t at)
{
    unsigned i;
    z4_anchors_hash(s, a);
    for (i = 0; i < a->count && s->count < s->capacity; i++) {
        size_t p = a->at[i], q = z4_search_enter(s, p, a->hash[i]);
        z4_copy *copy = s->copies + s->count;
        if (q == SIZE_MAX || s->spent / 4 > p + 65536 || !z4_search_match(s, p, q, SIZE_MAX, copy))
            continue;
        s->literal = (size_t)(copy->dst + copy->nbytes);
        s->count++;
        return s->literal; /* anchors inside the copy are not entered: it is no source */
    }
    return at;
}

/* Find the copies of a content. The table has been zeroed; their number is s->count. */
Z4_INLINE void z4_search_all(z4_search *s, z4_anchor_mask *mask)
{
    const uint16_t limit = (uint16_t)(65536u >> z4_search_density(s->n));
    const size_t end = z4_anchor_end(s->n);
    size_t at = 0;
    while (at < end && s->count < s->capacity) {
        const size_t stop = end - at < Z4_SEARCH_STRIDE ? end : at + Z4_SEARCH_STRIDE;
        z4_anchors a;
        a.count = 0;
        for (; at < stop && a.count <= Z4_ANCHORS - Z4_ANCHORS_A_BLOCK; at += Z4_ANCHOR_BLOCK) {
            uint64_t hits = mask(s->content + at, limit);
            if (hits != 0)
                z4_anchors_take(at, hits, &a);
        }
        at = z4_search_look(s, &a, at);
    }
}

static int z4_probe_base(z4_search *s) { return z4_probe(s, z4_anchor_mask_base); }
static void z4_search_base(z4_search *s) { z4_search_all(s, z4_anchor_mask_base); }
#if Z4_X86
Z4_TARGET_AVX2 static int z4_probe_avx2(z4_search *s) { return z4_probe(s, z4_anchor_mask_avx2); }
Z4_TARGET_AVX2 static void z4_search_avx2(z4_search *s) { z4_search_all(s, z4_anchor_mask_avx2); }
#endif

typedef struct {
    const char *name;
    int isa;
    int (*probe)(z4_search *);
    void (*search)(z4_search *);
} z4_repeats_impl;

static const z4_repeats_impl Z4_REPEATS[] = {
    {"scalar", Z4_ISA_SCALAR, z4_probe_base, z4_search_base},
#if Z4_X86
    {"avx2", Z4_ISA_AVX2, z4_probe_avx2, z4_search_avx2},
#endif
};
enum { Z4_REPEATS_COUNT = sizeof Z4_REPEATS / sizeof Z4_REPEATS[0] };

static inline const z4_repeats_impl *z4_repeats_pick(int isa)
{
    int i = Z4_REPEATS_COUNT - 1;
    while (i > 0 && (Z4_REPEATS[i].isa > isa || isa == Z4_ISA_NEON))
        i--;
    return &Z4_REPEATS[i];
}

#endif
