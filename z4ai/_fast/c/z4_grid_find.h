/* z4_grid_find.h -- whole numbers and scales found in elements: the encoder beside z4_grid.h.
 *
 * Contract: as there. Nothing here can fail; what is found was checked by the decoder's own rule. Equal elements
 * give equal answers on every machine. */
#ifndef Z4_GRID_FIND_H
#define Z4_GRID_FIND_H

#include "z4_grid.h"

/* Whole numbers as the encoder hands them around: -255 .. 255, or one of the two marks. */
enum { Z4_GRID_MOST = 255, Z4_GRID_MINUS_ZERO = 256, Z4_GRID_EXCEPTION = 257, Z4_GRID_BINS = 513 };

/* The encoder looks at that many elements of a group to find its scale. */
enum { Z4_GRID_SAMPLE = 1024, Z4_GRID_SEED = 24, Z4_GRID_HINTS = 4 };

/* --- Encoder: whole numbers under a given scale --- */

/* Whole numbers of m elements, checked: an element that its number does not restore is a mark. Returns how many
 * are exceptions. s > 0. */
Z4_INLINE size_t z4_grid_numbers(int kind, const uint8_t *Z4_RESTRICT src, size_t m, double s, int16_t *Z4_RESTRICT ks)
{
    size_t bad = 0;
    if (kind == Z4_GRID_FP64) {
        const double inverse = 1 / s, magic = 6755399441055744.0; /* 1.5 * 2^52: a sum with it is rounded */
        const uint64_t zero = z4_grid_bits64(magic);
        for (size_t i = 0; i < m; i++) {
            uint64_t x = z4_load64(src + 8 * i);
            double quotient = z4_grid_double(x) * inverse;
            int64_t k = (int64_t)(z4_grid_bits64(quotient + magic) - zero);
            k = k < -Z4_GRID_MOST ? -Z4_GRID_MOST : k > Z4_GRID_MOST ? Z4_GRID_MOST : k;
            double back = (double)k * s;
            int same = z4_grid_bits64(back) == x, minus = x == UINT64_C(0x8000000000000000);
            ks[i] = (int16_t)(same ? (int)k : minus ? Z4_GRID_MINUS_ZERO : Z4_GRID_EXCEPTION);
            bad += !same & !minus;
        }
        return bad;
    }
    const float f = (float)s, inverse = 1 / f, magic = 12582912.0F; /* 1.5 * 2^23 */
    const uint32_t zero = z4_grid_bits(magic);
    while (m > 0) {
        size_t some = m < 4096 ? m : 4096;
        uint32_t here = 0; /* as wide as the lanes it is summed in */
        for (size_t i = 0; i < some; i++) {
            uint32_t x, back;
            float v;
            if (kind == Z4_GRID_FP32) {
                x = z4_load32(src + 4 * i);
                v = z4_grid_float(x);
            } else {
                x = z4_load16(src + 2 * i);
                v = kind == Z4_GRID_FP16 ? z4_grid_of_fp16(x) : z4_grid_float(x << 16);
            }
            float quotient = v * inverse;
            int32_t k = (int32_t)(z4_grid_bits(quotient + magic) - zero);
            k = k < -Z4_GRID_MOST ? -Z4_GRID_MOST : k;
            k = k > Z4_GRID_MOST ? Z4_GRID_MOST : k;
            back = z4_grid_bits((float)k * f);
            if (kind == Z4_GRID_BF16)
                back = z4_grid_to_bf16(back);
            else if (kind == Z4_GRID_FP16)
                back = z4_grid_to_fp16(back);
            uint32_t same = back == x, minus = x == (kind == Z4_GRID_FP32 ? 0x80000000 : 0x8000);
            int32_t mark = minus ? Z4_GRID_MINUS_ZERO : Z4_GRID_EXCEPTION;
            ks[i] = (int16_t)(same ? k : mark);
            here += (same | minus) ^ 1;
        }
        bad += here;
        src += z4_grid_width(kind) * some;
        ks += some;
        m -= some;
    }
    return bad;
}

static inline size_t z4_grid_try(int kind, const uint8_t *src, size_t m, double s, int16_t *ks)
{
    switch (kind) {
    case Z4_GRID_BF16: return z4_grid_numbers(Z4_GRID_BF16, src, m, s, ks);
    case Z4_GRID_FP16: return z4_grid_numbers(Z4_GRID_FP16, src, m, s, ks);
    case Z4_GRID_FP32: return z4_grid_numbers(Z4_GRID_FP32, src, m, s, ks);
    default: return z4_grid_numbers(Z4_GRID_FP64, src, m, s, ks);
    }
}

/* --- Encoder: the scale of a group ---
 *
 * An element of magnitude v is the rounding of some number within v - h .. v + h, so if its whole number is c, the
 * scale is within (v - h) / c .. (v + h) / c. The intersection over the elements of a group is narrow, or empty.
 * Which c an element has follows from the interval so far; where that leaves two, the element waits for
 * the next pass. The first interval comes from one element whose whole number is guessed. */

typedef struct {
    double v[Z4_GRID_SAMPLE + 1];       /* distinct magnitudes; zeros and what is not finite is left out */
    double h[Z4_GRID_SAMPLE + 1];       /* half of the distance to the next larger element, and a little more */
    uint32_t times[Z4_GRID_SAMPLE + 1]; /* how often each was seen */
    size_t n, total;                    /* magnitudes; the sum of times */
    size_t top;                         /* number of the largest */
    size_t frequent;                    /* so many at the front occur more than once */
    unsigned shift;                     /* the hash table has 2^(64 - shift) slots */
    uint16_t slots[4 * Z4_GRID_SAMPLE]; /* number of a magnitude + 1, or 0 */
    uint8_t raw[8 * (Z4_GRID_SAMPLE + 1)]; /* the magnitudes as elements */
    int16_t ks[Z4_GRID_SAMPLE + 1];
} z4_grid_sample;

typedef struct {
    double lo, hi;
    double luck; /* about the chance that numbers without a grid pass as these did */
} z4_grid_interval;

/* Magnitude of an element as an integer that orders as the numbers do. */
Z4_INLINE uint64_t z4_grid_magnitude(int kind, const uint8_t *p)
{
    if (kind == Z4_GRID_FP64)
        return z4_load64(p) & UINT64_C(0x7FFFFFFFFFFFFFFF);
    return kind == Z4_GRID_FP32 ? z4_load32(p) & 0x7FFFFFFF : z4_load16(p) & 0x7FFF;
}

Z4_INLINE uint64_t z4_grid_infinity(int kind)
{
    static const uint64_t infinities[Z4_GRID_KINDS] = {0x7F80, 0x7C00, 0x7F800000, UINT64_C(0x7FF0000000000000)};
    return infinities[kind];
}

Z4_INLINE double z4_grid_number(int kind, uint64_t magnitude)
{
    if (kind == Z4_GRID_FP64)
        return z4_grid_double(magnitude);
    if (kind == Z4_GRID_FP16)
        return (double)z4_grid_of_fp16((uint32_t)magnitude);
    return (double)z4_grid_float((uint32_t)magnitude << (kind == Z4_GRID_BF16 ? 16 : 0));
}

/* Empty a sample that `m` elements will be added to, at most Z4_GRID_SAMPLE + 1. */
Z4_INLINE void z4_grid_clear(z4_grid_sample *t, size_t m)
{
    t->n = t->total = 0;
    t->shift = m <= 64 ? 57 : 52;
    memset(t->slots, 0, sizeof *t->slots << (64 - t->shift));
}

Z4_INLINE void z4_grid_add(z4_grid_sample *t, int kind, const uint8_t *p)
{
    uint64_t a = z4_grid_magnitude(kind, p);
    if (a == 0 || a >= z4_grid_infinity(kind) - 1)
        return;
    const unsigned width = z4_grid_width(kind), last = (1U << (64 - t->shift)) - 1;
    unsigned slot = (unsigned)((a ^ a >> 31) * UINT64_C(0x9E3779B97F4A7C15) >> t->shift);
    t->total++;
    while (t->slots[slot]) {
        unsigned at = t->slots[slot] - 1U;
        if (z4_grid_magnitude(kind, t->raw + width * at) == a) {
            t->times[at]++;
            return;
        }
        slot = (slot + 1) & last;
    }
    t->slots[slot] = (uint16_t)(t->n + 1);
    t->times[t->n] = 1;
    double v = z4_grid_number(kind, a), next = z4_grid_number(kind, a + 1);
    t->v[t->n] = v;
    /* A binary32 product is itself rounded, by 2^-12 of h or less in fp16, and so is what is computed here: in
     * binary64 h is no more than the rounding of a double. */
    t->h[t->n] = (next - v) * (kind == Z4_GRID_FP64 ? 2.0 : kind == Z4_GRID_FP16 ? 0.5 + 0x1p-12 : 0.5 + 0x1p-15);
    if (kind == Z4_GRID_FP64)
        z4_store64(t->raw + 8 * t->n, a);
    else if (kind == Z4_GRID_FP32)
        z4_store32(t->raw + 4 * t->n, (uint32_t)a);
    else
        z4_store16(t->raw + 2 * t->n, (uint16_t)a);
    t->n++;
}

/* Narrow an interval by magnitudes from .. to; 0 if more than `budget` elements have no whole number in it. That of
 * `top` was guessed: its passing means nothing. */
static inline int z4_grid_narrow(const z4_grid_sample *t, size_t from, size_t to, size_t top, size_t budget,
                                 z4_grid_interval *x)
{
    double lo = x->lo, hi = x->hi, luck = 1;
    if (!(lo > 2.3e-308 && hi < 1.7e308)) /* so that nothing below is NaN */
        return 0;
    for (int pass = 0; pass < 4; pass++) {
        double to_most = 1 / lo, to_least = 1 / hi;
        size_t waiting = 0, misses = 0;
        int narrowed = 0;
        for (size_t i = from; i < to; i++) {
            double least = t->v[i] - t->h[i], most = t->v[i] + t->h[i];
            double a = least * to_least, b = most * to_most;
            if (a > Z4_GRID_MOST) {
                misses += t->times[i];
                if (misses > budget)
                    return 0;
                continue;
            }
            const double chance = b - a;
            if (b > Z4_GRID_MOST + 1)
                b = Z4_GRID_MOST + 1;
            int c = (int)b, first = a <= 1 ? 1 : (int)a + (a > (double)(int)a);
            if (c > first) {
                waiting++;
                continue;
            }
            double new_lo = lo, new_hi = hi;
            if (pass == 0 && i != top && c == first && chance < 1 && luck > 1e-30)
                luck *= chance;
            if (c == first) {
                if ((double)c * lo < least)
                    new_lo = least / (double)c;
                if ((double)c * hi > most)
                    new_hi = most / (double)c;
            }
            if (c < first || new_lo > new_hi) {
                misses += t->times[i];
                if (misses > budget)
                    return 0;
                continue;
            }
            if (new_lo > lo) {
                lo = new_lo;
                to_most = 1 / lo;
                narrowed = 1;
            }
            if (new_hi < hi) {
                hi = new_hi;
                to_least = 1 / hi;
                narrowed = 1;
            }
        }
        if (!waiting || !narrowed)
            break;
    }
    x->lo = lo;
    x->hi = hi;
    x->luck = luck;
    return 1;
}

/* Bits of the scale type: binary64 for fp64, else binary32. */
Z4_INLINE uint64_t z4_grid_scale_bits(int kind, double s)
{
    return kind == Z4_GRID_FP64 ? z4_grid_bits64(s) : z4_grid_bits((float)s);
}
Z4_INLINE double z4_grid_scale_of(int kind, uint64_t bits)
{
    return kind == Z4_GRID_FP64 ? z4_grid_double(bits) : (double)z4_grid_float((uint32_t)bits);
}

/* The bits within first .. last that end in the most zeros. */
Z4_INLINE uint64_t z4_grid_simplest(uint64_t first, uint64_t last)
{
    uint64_t found = last;
    for (int shift = 1; shift < 62; shift++) {
        uint64_t cut = last >> shift << shift;
        if (cut < first)
            break;
        found = cut;
    }
    return found;
}

/* Whether a scale of binary32 (or 64) is a number of the element's type, and one that the page allows. */
Z4_INLINE int z4_grid_is_own(int kind, double s)
{
    uint32_t x = z4_grid_bits((float)s);
    if (kind == Z4_GRID_BF16)
        return (x & 0xFFFF) == 0;
    if (kind == Z4_GRID_FP16)
        return s < 65520 && (double)z4_grid_of_fp16(z4_grid_to_fp16(x)) == s;
    return 1;
}

/* Distance between numbers of the element's own type around a binary32 scale, in units of its bits. */
Z4_INLINE uint64_t z4_grid_own_step(int kind, uint64_t bits)
{
    if (kind == Z4_GRID_BF16)
        return 0x10000;
    if (kind != Z4_GRID_FP16)
        return 1;
    uint64_t exponent = bits >> 23; /* below 113 they are subnormal: one bit less each */
    return UINT64_C(1) << (exponent >= 113 ? 13 : exponent > 103 ? 126 - exponent : 23);
}

/* The candidates of an interval in the order of preference; at most 24. */
static inline int z4_grid_candidates(int kind, const z4_grid_interval *x, double *out)
{
    const uint64_t least = kind == Z4_GRID_FP64 ? UINT64_C(0x0010000000000000) : 0x00800000;
    const uint64_t most = kind == Z4_GRID_FP64 ? UINT64_C(0x7FEFFFFFFFFFFFFF) : 0x7F7FFFFF;
    uint64_t first, last;
    int n = 0;
    if (!(x->lo > 0) || !(x->hi < (kind == Z4_GRID_FP64 ? 1.7e308 : 3.4e38)))
        return 0;
    first = z4_grid_scale_bits(kind, x->lo);
    last = z4_grid_scale_bits(kind, x->hi);
    first += z4_grid_scale_of(kind, first) < x->lo;
    last -= z4_grid_scale_of(kind, last) > x->hi;
    if (last < first) { /* between two numbers of the type: rounding put the interval there */
        last = first;
        first -= 1;
    }
    if (first < least || last > most)
        return 0;
    out[n++] = z4_grid_scale_of(kind, z4_grid_simplest(first, last));
    if (kind == Z4_GRID_BF16 || kind == Z4_GRID_FP16) {
        const uint64_t step = z4_grid_own_step(kind, first);
        for (uint64_t b = (first + step - 1) / step * step; b <= last && n < 8; b += step)
            out[n++] = z4_grid_scale_of(kind, b);
    }
    uint64_t quarter = (last - first) / 4;
    if (last - first < 16)
        for (uint64_t b = first; b <= last; b++)
            out[n++] = z4_grid_scale_of(kind, b);
    else {
        out[n++] = z4_grid_scale_of(kind, z4_grid_simplest(first + quarter, last - quarter));
        for (uint64_t k = 1; k < 8; k++) /* the middle first: 4, 5, 3, 6, 2, 7, 1 eighths */
            out[n++] = z4_grid_scale_of(kind, first + (last - first) / 8 * (k % 2 ? 4 - k / 2 : 4 + k / 2));
    }
    return n;
}

/* The best candidate on the sample; returns how many of its elements miss, SIZE_MAX if there is no candidate. */
static inline size_t z4_grid_choose(int kind, z4_grid_sample *t, const z4_grid_interval *x, double *s)
{
    double candidates[24];
    int n = z4_grid_candidates(kind, x, candidates);
    size_t best = SIZE_MAX;
    for (int i = 0; i < n && best > 0; i++) {
        size_t bad = z4_grid_try(kind, t->raw, t->n, candidates[i], t->ks);
        if (bad > 0) {
            bad = 0;
            for (size_t k = 0; k < t->n; k++)
                bad += t->ks[k] == Z4_GRID_EXCEPTION ? t->times[k] : 0;
        }
        if (bad < best) {
            best = bad;
            *s = candidates[i];
        }
    }
    return best;
}

typedef struct {
    int m[Z4_GRID_HINTS]; /* whole numbers of the largest elements of groups, last seen first; 0: none */
} z4_grid_hints;

static inline void z4_grid_remember(z4_grid_hints *hints, int m)
{
    int i = 0;
    while (i < Z4_GRID_HINTS - 1 && hints->m[i] != m)
        i++;
    for (; i > 0; i--)
        hints->m[i] = hints->m[i - 1];
    hints->m[0] = m;
}

/* With element `top` of the sample being m times the scale: narrow by the seed, then by all. Returns how many
 * elements miss, SIZE_MAX if that are too many. */
static inline size_t z4_grid_assume(int kind, z4_grid_sample *t, size_t top, int m, size_t from, size_t to,
                                    size_t budget, z4_grid_interval *x, double *s)
{
    x->lo = (t->v[top] - t->h[top]) / m;
    x->hi = (t->v[top] + t->h[top]) / m;
    if (!z4_grid_narrow(t, from, to, top, 0, x))
        return SIZE_MAX;
    if ((from > 0 || to < t->n) && !z4_grid_narrow(t, 0, t->n, top, budget, x))
        return SIZE_MAX;
    x->luck *= m; /* so many numbers were tried before */
    size_t bad = z4_grid_choose(kind, t, x, s);
    return bad <= budget ? bad : SIZE_MAX;
}

/* The mean number of a sample under the scale s; what is too large for a number does not count. */
static inline double z4_grid_mean(const z4_grid_sample *t, double s)
{
    double sum = 0, most = s * (Z4_GRID_MOST + 1);
    for (size_t i = 0; i < t->n; i++)
        sum += t->v[i] < most ? t->v[i] * t->times[i] : 0;
    return sum / s / (double)t->total;
}

/* About the logarithm to base 2, the same on every machine: linear between powers of two. */
static inline double z4_grid_logarithm(double x)
{
    return (double)(int64_t)(z4_grid_bits64(x) >> 20) * 0x1p-32 - 1023;
}

/* About the bits of a sample under the scale s. */
static inline double z4_grid_price(const z4_grid_sample *t, double s, size_t bad)
{
    return (double)bad * 24 + (double)t->total * z4_grid_logarithm(1 + z4_grid_mean(t, s));
}

typedef struct {
    double s, price;
    z4_grid_interval x;
    int m;
} z4_grid_found;

/* The same for every number that the element `top` may have: the first that does, if it is better than `best`. */
static inline void z4_grid_search(int kind, z4_grid_sample *t, size_t top, size_t from, size_t to, size_t budget,
                                  z4_grid_found *best)
{
    z4_grid_interval x = {0, 0, 1};
    double s = 0;
    for (int m = 1; m <= Z4_GRID_MOST; m++) {
        size_t bad = z4_grid_assume(kind, t, top, m, from, to, budget, &x, &s);
        if (bad == SIZE_MAX)
            continue;
        double price = z4_grid_price(t, s, bad);
        if (best->m == 0 || price < best->price) {
            best->s = s;
            best->price = price;
            best->x = x;
            best->m = m;
        }
        return;
    }
}

/* The largest of magnitudes from .. to. */
static inline size_t z4_grid_top(const z4_grid_sample *t, size_t from, size_t to)
{
    size_t top = from;
    for (size_t i = from; i < to; i++)
        if (t->v[i] > t->v[top])
            top = i;
    return top;
}

/* Find a scale for a sample; 0 if there is none. */
static inline int z4_grid_solve(int kind, z4_grid_sample *t, z4_grid_hints *hints, z4_grid_interval *x, double *s)
{
    const size_t n = t->n, budget = t->total / 24;
    z4_grid_found best = {0, 0, {0, 0, 1}, 0};
    size_t seed = t->frequent >= 3 && budget > 0 ? t->frequent : n;
    if (seed > Z4_GRID_SEED && (budget > 0 || seed > 2 * Z4_GRID_SEED))
        seed = Z4_GRID_SEED;
    for (int i = 0; i < Z4_GRID_HINTS && hints->m[i]; i++)
        if (z4_grid_assume(kind, t, t->top, hints->m[i], 0, seed, budget, x, s) != SIZE_MAX) {
            z4_grid_remember(hints, hints->m[i]);
            return 1;
        }
    z4_grid_search(kind, t, t->top, 0, seed, budget, &best);
    if (budget == 0 || (best.m > 0 && t->top < seed)) {
        if (best.m > 0)
            z4_grid_remember(hints, best.m);
    } else {
        /* The largest element may be off the grid, or one of the seed: look at other seeds, and at the largest
         * element of each. */
        for (size_t from = 0; from < n && from < 3 * seed && (from == 0 || best.m == 0); from += seed) {
            size_t to = from + seed < n ? from + seed : n, top = z4_grid_top(t, from, to);
            if (to - from >= 3 && (from > 0 || top != t->top))
                z4_grid_search(kind, t, top, from, to, budget, &best);
        }
        /* With elements off the grid in all seeds: is there a scale of the element's own type? */
        for (int i = 0; i < Z4_GRID_HINTS && hints->m[i] && best.m == 0; i++) {
            double number = hints->m[i];
            best.x.lo = (t->v[t->top] - t->h[t->top]) / number;
            best.x.hi = (t->v[t->top] + t->h[t->top]) / number;
            if (z4_grid_choose(kind, t, &best.x, &best.s) <= budget)
                best.m = hints->m[i];
        }
    }
    *x = best.x;
    *s = best.s;
    return best.m > 0;
}

/* The largest finite magnitude among every `step`th of m elements. */
Z4_INLINE uint64_t z4_grid_largest_body(int kind, const uint8_t *src, size_t m, size_t step)
{
    const unsigned w = z4_grid_width(kind);
    const uint64_t infinity = z4_grid_infinity(kind);
    uint64_t largest = 0;
    for (size_t i = 0; i < m; i += step) {
        uint64_t a = z4_grid_magnitude(kind, src + w * i);
        a = a < infinity - 1 ? a : 0;
        largest = a > largest ? a : largest;
    }
    return largest;
}
static inline uint64_t z4_grid_largest(int kind, const uint8_t *src, size_t m, size_t step)
{
    switch (kind) {
    case Z4_GRID_BF16: return z4_grid_largest_body(Z4_GRID_BF16, src, m, step);
    case Z4_GRID_FP16: return z4_grid_largest_body(Z4_GRID_FP16, src, m, step);
    case Z4_GRID_FP32: return z4_grid_largest_body(Z4_GRID_FP32, src, m, step);
    default: return z4_grid_largest_body(Z4_GRID_FP64, src, m, step);
    }
}

/* Take a sample of m elements; the largest, which is given, comes first. */
static inline void z4_grid_take(int kind, const uint8_t *src, size_t m, uint64_t largest, z4_grid_sample *t)
{
    const unsigned w = z4_grid_width(kind);
    const size_t n = m < Z4_GRID_SAMPLE ? m : Z4_GRID_SAMPLE, step = m / n, rest = m % n;
    uint8_t first[8];
    z4_store64(first, largest);
    z4_grid_clear(t, n + 1);
    z4_grid_add(t, kind, first);
    for (size_t k = 0; k < n; k++)
        z4_grid_add(t, kind, src + w * (step * k + k * rest / n));
    /* What occurs again is on the grid if anything is: it moves to the front. */
    t->top = t->frequent = 0;
    t->times[0]--; /* counted twice if it is in the sample, and else not at all */
    for (size_t k = 0; k < t->n; k++)
        if (t->times[k] > 1) {
            size_t to = t->frequent++;
            double v = t->v[k], h = t->h[k];
            uint32_t times = t->times[k];
            uint8_t raw[8];
            memcpy(raw, t->raw + w * k, w);
            if (t->top == to)
                t->top = k;
            else if (t->top == k)
                t->top = to;
            t->v[k] = t->v[to], t->h[k] = t->h[to], t->times[k] = t->times[to];
            memcpy(t->raw + w * k, t->raw + w * to, w);
            t->v[to] = v, t->h[to] = h, t->times[to] = times;
            memcpy(t->raw + w * to, raw, w);
        }
}

enum { Z4_GRID_ZEROS, Z4_GRID_NONE, Z4_GRID_PERHAPS, Z4_GRID_SURE };

/* Whether m elements are on one grid; perhaps, if they are too few or too alike to tell. The mean of
 * their numbers goes to *mean if there is a grid. */
static inline int z4_grid_probe(int kind, const uint8_t *src, size_t m, z4_grid_sample *t, double *mean)
{
    z4_grid_hints none = {{0, 0, 0, 0}};
    z4_grid_interval x = {0, 0, 1};
    double s = 0;
    uint64_t largest = z4_grid_largest(kind, src, m, m / Z4_GRID_SAMPLE + 1);
    if (largest == 0)
        return Z4_GRID_ZEROS;
    z4_grid_take(kind, src, m, largest, t);
    if (!z4_grid_solve(kind, t, &none, &x, &s))
        return Z4_GRID_NONE;
    *mean = z4_grid_mean(t, s);
    if (t->total >= 8 * t->n) /* few magnitudes again and again */
        return Z4_GRID_SURE;
    return x.luck < 0x1p-12 ? Z4_GRID_SURE : Z4_GRID_PERHAPS;
}

/* The short way: the largest element has the number that it had in another group, and the scale is a number of
 * the element's own type. 0 if that leaves exceptions. */
static inline int z4_grid_guess(int kind, const uint8_t *src, size_t m, uint64_t largest, z4_grid_hints *hints,
                                double *scale, int16_t *ks)
{
    const uint64_t least = kind == Z4_GRID_FP64 ? UINT64_C(0x0010000000000000) : 0x00800000;
    double v = z4_grid_number(kind, largest), h = (z4_grid_number(kind, largest + 1) - v) * 0.5;
    for (int i = 0; i < Z4_GRID_HINTS && hints->m[i]; i++) {
        double number = hints->m[i];
        uint64_t first = z4_grid_scale_bits(kind, (v - h) / number), last = z4_grid_scale_bits(kind, (v + h) / number);
        if (first < least)
            return 0;
        const uint64_t step = z4_grid_own_step(kind, first);
        first = (first + step - 1) / step * step;
        for (uint64_t bits = first; bits <= last && bits < first + 4 * step; bits += step) {
            double s = z4_grid_scale_of(kind, bits);
            if (z4_grid_try(kind, src, m, s, ks) == 0) {
                *scale = s;
                z4_grid_remember(hints, hints->m[i]);
                return 1;
            }
        }
    }
    return 0;
}

/* Numbers and scale of one group of m elements. Returns its exceptions. */
static inline size_t z4_grid_group(int kind, const uint8_t *src, size_t m, z4_grid_sample *t, z4_grid_hints *hints,
                                   double *scale, int16_t *ks)
{
    const unsigned w = z4_grid_width(kind);
    z4_grid_interval x = {0, 0, 1};
    double s = *scale;
    uint64_t largest = z4_grid_largest(kind, src, m, 1);
    if (largest == 0) /* zeros need no scale of their own */
        return z4_grid_try(kind, src, m, *scale, ks);
    if (m <= Z4_GRID_SAMPLE && z4_grid_guess(kind, src, m, largest, hints, scale, ks))
        return 0;
    z4_grid_take(kind, src, m, largest, t);
    if (!z4_grid_solve(kind, t, hints, &x, &s))
        return z4_grid_try(kind, src, m, *scale, ks);
    size_t bad = z4_grid_try(kind, src, m, s, ks);
    for (int round = 0; round < 4 && bad > 0 && m > Z4_GRID_SAMPLE; round++) {
        /* What the sample did not show: elements that narrow the interval further. */
        double again = s;
        for (size_t i = 0, seen = 0; i < m && seen < Z4_GRID_SAMPLE && t->n < Z4_GRID_SAMPLE; i++)
            if (ks[i] == Z4_GRID_EXCEPTION) {
                z4_grid_add(t, kind, src + w * i);
                seen++;
            }
        if (!z4_grid_narrow(t, 0, t->n, SIZE_MAX, t->total / 2, &x) || z4_grid_choose(kind, t, &x, &again) == SIZE_MAX)
            break;
        size_t now = z4_grid_try(kind, src, m, again, ks);
        if (now >= bad) {
            bad = z4_grid_try(kind, src, m, s, ks);
            break;
        }
        bad = now;
        s = again;
    }
    *scale = s;
    return bad;
}

/* Numbers of n elements and the scales of their groups; row, column, group as in z4_grid_groups. Returns the
 * number of exceptions, or SIZE_MAX as soon as there are too many: above n / 50. Equal for equal input. */
static inline size_t z4_grid_split(int kind, const uint8_t *src, size_t n, size_t row, size_t column, size_t group,
                                   z4_grid_sample *t, int16_t *ks, double *scales)
{
    z4_grid_hints hints = {{0, 0, 0, 0}};
    const unsigned w = z4_grid_width(kind);
    double s = 1;
    size_t c = column, bad = 0, j = 0;
    for (size_t i = 0; i < n; j++) {
        size_t m = z4_grid_left(row, group, c);
        m = m < n - i ? m : n - i;
        bad += z4_grid_group(kind, src + w * i, m, t, &hints, &s, ks + i);
        if (bad > n / 50)
            return SIZE_MAX;
        scales[j] = s;
        i += m;
        c = c + m == row ? 0 : c + m;
    }
    return bad;
}

/* How often each number and mark occurs: bin 255 + number. */
static inline void z4_grid_histogram(const int16_t *ks, size_t n, uint64_t *bins)
{
    uint32_t part[2][Z4_GRID_BINS];
    memset(bins, 0, Z4_GRID_BINS * sizeof *bins);
    while (n > 0) {
        size_t some = n < ((size_t)1 << 30) ? n : (size_t)1 << 30;
        memset(part, 0, sizeof part);
        for (size_t i = 0; i + 1 < some; i += 2) {
            part[0][Z4_GRID_MOST + ks[i]]++;
            part[1][Z4_GRID_MOST + ks[i + 1]]++;
        }
        if (some & 1)
            part[0][Z4_GRID_MOST + ks[some - 1]]++;
        for (int b = 0; b < Z4_GRID_BINS; b++)
            bins[b] += (uint64_t)part[0][b] + part[1][b];
        ks += some;
        n -= some;
    }
}

/* Codes of n numbers: number + low within 0 .. top, else an exception, code 255. `minus` is the code of -0.0, below 0
 * where that is an exception too. Returns the number of exceptions; the elements themselves go to `exceptions`,
 * which has room for `capacity` of them. */
static inline ptrdiff_t z4_grid_codes(const int16_t *ks, size_t n, int low, int top, int minus, const uint8_t *src,
                                      unsigned w, uint8_t *codes, uint8_t *exceptions, size_t capacity)
{
    size_t count = 0;
    for (size_t at = 0; at < n; at += 64) {
        size_t end = n - at < 64 ? n : at + 64;
        unsigned any = 0;
        for (size_t i = at; i < end; i++) {
            int b = ks[i] + low;
            any |= (unsigned)((b < 0) | (b > top) | (ks[i] > Z4_GRID_MOST));
            codes[i] = (uint8_t)b;
        }
        if (!any)
            continue;
        for (size_t i = at; i < end; i++) {
            int b = ks[i] + low;
            if (ks[i] == Z4_GRID_MINUS_ZERO && minus >= 0) {
                codes[i] = (uint8_t)minus;
            } else if (b < 0 || b > top || ks[i] > Z4_GRID_MOST) {
                if (count == capacity)
                    return Z4_CAPACITY;
                memcpy(exceptions + w * count++, src + w * i, w);
                codes[i] = 255;
            }
        }
    }
    return (ptrdiff_t)count;
}

#endif
