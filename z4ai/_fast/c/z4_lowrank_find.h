/* z4_lowrank_find.h -- finds the two thin matrices that a difference of matrices is the product of.
 *
 * All of it is an encoder's: a bit more or less is no error. Yet sums have a fixed order and nothing is
 * contracted, so that every machine finds the same. Matrices of floats are m x n, row by row; what is
 * not finite counts as unchanged and weighs nothing. Scratch is the caller's. */
#ifndef Z4_LOWRANK_FIND_H
#define Z4_LOWRANK_FIND_H

#include <math.h>

#include "z4_lowrank.h"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#endif

/* Columns side by side in a sample. */
#define Z4_LOWRANK_RUN 16

/* Rows that are worked on together, so that what they share is read but once. */
#define Z4_LOWRANK_BLOCK 8

/* Binary exponent of a finite double; of zero, the least one. */
Z4_INLINE int z4_exponent(double x) { return (int)(z4_bits_of(x) >> 52 & 0x7ff) - 1023; }
Z4_INLINE double z4_power(int exponent) { return z4_double_of((uint64_t)(exponent + 1023) << 52); }

/* Differences of n elements, and their weights: 2^-2 (e - least), e being the exponent of the larger of
 * the pair, or `least` if that is more. */
Z4_INLINE void z4_lowrank_row_body(int kind, const uint8_t *target, const uint8_t *base, size_t n, int least,
                                   double *Z4_RESTRICT delta, double *Z4_RESTRICT weight)
{
    for (size_t j = 0; j < n; j++) {
        uint64_t t = z4_float_word(kind, target, j), b = z4_float_word(kind, base, j);
        int apart = z4_float_apart(kind, t) | z4_float_apart(kind, b);
        double x = z4_float_value(kind, t), y = z4_float_value(kind, b);
        double d = x - y;
        apart |= (int)(z4_bits_of(d) >> 52 & 0x7ff) == 0x7ff;
        int e = z4_exponent(x), f = z4_exponent(y);
        e = e < f ? f : e;
        e = e < least ? least : e;
        int less = e - least < 500 ? e - least : 500;
        delta[j] = apart ? 0.0 : d;
        weight[j] = apart ? 0.0 : z4_power(-2 * less);
    }
}

Z4_INLINE void z4_lowrank_row(int kind, const uint8_t *target, const uint8_t *base, size_t n, int least,
                              double *Z4_RESTRICT delta, double *Z4_RESTRICT weight)
{
    switch (kind) {
    case Z4_FP16:
        z4_lowrank_row_body(Z4_FP16, target, base, n, least, delta, weight);
        break;
    case Z4_BF16:
        z4_lowrank_row_body(Z4_BF16, target, base, n, least, delta, weight);
        break;
    case Z4_FP32:
        z4_lowrank_row_body(Z4_FP32, target, base, n, least, delta, weight);
        break;
    default:
        z4_lowrank_row_body(Z4_FP64, target, base, n, least, delta, weight);
    }
}

/* Sum of a[j] * b[j], in a fixed order. */
Z4_INLINE double z4_dot(const double *a, const double *b, size_t n)
{
    double lanes[8] = {0};
    size_t j = 0;
    for (; j + 8 <= n; j += 8) {
        for (int l = 0; l < 8; l++) {
            lanes[l] += a[j + l] * b[j + l];
        }
    }
    for (; j < n; j++) {
        lanes[j & 7] += a[j] * b[j];
    }
    return ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
}

/* out[i][q] = sum over columns j of delta[i][j] * factor[j][q]; scratch: (BLOCK + 1) n doubles. */
Z4_INLINE void z4_lowrank_project_body(int kind, const uint8_t *target, const uint8_t *base, size_t m, size_t n,
                                       const double *factor, size_t q, double *out, double *scratch)
{
    size_t pitch = n * z4_float_width(kind);
    memset(out, 0, m * q * sizeof *out);
    for (size_t from = 0; from < m; from += Z4_LOWRANK_BLOCK) {
        size_t rows = m - from < Z4_LOWRANK_BLOCK ? m - from : Z4_LOWRANK_BLOCK, j = 0;
        for (size_t i = 0; i < rows; i++) {
            const uint8_t *t = target + (from + i) * pitch, *b = base + (from + i) * pitch;
            z4_lowrank_row(kind, t, b, n, 0, scratch + i * n, scratch + Z4_LOWRANK_BLOCK * n);
        }
        for (; j + 4 <= n; j += 4) {
            const double *f = factor + j * q;
            for (size_t i = 0; i < rows; i++) {
                const double *d = scratch + i * n + j;
                double *Z4_RESTRICT sums = out + (from + i) * q;
                double a = d[0], b = d[1], c = d[2], e = d[3];
                for (size_t k = 0; k < q; k++) {
                    sums[k] = (((sums[k] + a * f[k]) + b * f[q + k]) + c * f[2 * q + k]) + e * f[3 * q + k];
                }
            }
        }
        for (; j < n; j++) {
            for (size_t i = 0; i < rows; i++) {
                for (size_t k = 0; k < q; k++) {
                    out[(from + i) * q + k] += scratch[i * n + j] * factor[j * q + k];
                }
            }
        }
    }
}

/* Cholesky factor of a symmetric r x r matrix in its lower half, in place; pivots that vanish become 0. */
Z4_INLINE void z4_cholesky(double *g, size_t r)
{
    for (size_t k = 0; k < r; k++) {
        double before = g[k * r + k];
        double pivot = before - z4_dot(g + k * r, g + k * r, k);
        double root = pivot > 1e-11 * before ? sqrt(pivot) : 0.0;
        g[k * r + k] = root;
        for (size_t i = k + 1; i < r; i++) {
            double v = g[i * r + k] - z4_dot(g + i * r, g + k * r, k);
            g[i * r + k] = root > 0.0 ? v / root : 0.0;
        }
    }
}

/* Solve by it, in place. */
Z4_INLINE void z4_cholesky_solve(const double *g, size_t r, double *x)
{
    for (size_t i = 0; i < r; i++) {
        double v = x[i] - z4_dot(g + i * r, x, i);
        x[i] = g[i * r + i] > 0.0 ? v / g[i * r + i] : 0.0;
    }
    for (size_t i = r; i-- > 0;) {
        double v = x[i];
        for (size_t k = i + 1; k < r; k++) {
            v -= g[k * r + i] * x[k];
        }
        x[i] = g[i * r + i] > 0.0 ? v / g[i * r + i] : 0.0;
    }
}

/* What a refinement of the left factor works by. */
typedef struct {
    size_t rows;
    size_t columns;
    size_t rank;
    const double *right;  /* rank x columns */
    const double *shared; /* NULL, or a Cholesky factor of sum of weights * right * right^T, for all rows */
    double shared_weight; /* sum of the weights that `shared` was made by */
    int least;            /* exponent below which elements weigh the same */
    int half;             /* of an element whose exponent is e, a rounding takes up to 2^(e + half) */
    double slack;         /* 0: least squares. Else an error up to slack * 2^(e + half) is none */
} z4_lowrank_refiner;

/* What a row's errors weigh, from its differences and what the factors make of them, in place of both. */
Z4_INLINE void z4_lowrank_errors(int kind, const z4_lowrank_refiner *by, const uint8_t *target,
                                 const double *weight, const double *sums, double *Z4_RESTRICT delta)
{
    if (by->slack > 0.0) {
        for (size_t j = 0; j < by->columns; j++) {
            int e = z4_exponent(z4_float_value(kind, z4_float_word(kind, target, j)));
            e = e < by->least ? by->least : e;
            double error = delta[j] - sums[j];
            double size = fabs(error) - by->slack * z4_power(e + by->half);
            size = size > 0.0 ? 1.9 * size : 0.0; /* a step too long is a step ahead */
            delta[j] = weight[j] * (error < 0.0 ? -size : size);
        }
    } else {
        for (size_t j = 0; j < by->columns; j++) {
            delta[j] = weight[j] * (delta[j] - sums[j]);
        }
    }
}

/* Add to a row of left the solution of its normal equations, whose right side is x. */
Z4_INLINE void z4_lowrank_solve(const z4_lowrank_refiner *by, const double *weight, double *x, double *row,
                                double *weighted, double *gram)
{
    size_t n = by->columns, r = by->rank;
    double factor = 1.0;
    if (by->shared) {
        double total = 0.0;
        for (size_t j = 0; j < n; j++) {
            total += weight[j];
        }
        factor = total > 0.0 ? by->shared_weight / total : 0.0;
        z4_cholesky_solve(by->shared, r, x);
    } else {
        for (size_t k = 0; k < r; k++) {
            const double *a = by->right + k * n;
            for (size_t j = 0; j < n; j++) {
                weighted[j] = weight[j] * a[j];
            }
            for (size_t l = 0; l <= k; l++) {
                gram[k * r + l] = z4_dot(weighted, by->right + l * n, n);
            }
        }
        z4_cholesky(gram, r);
        z4_cholesky_solve(gram, r, x);
    }
    for (size_t k = 0; k < r; k++) {
        row[k] += factor * x[k];
    }
}

/* One step of weighted least squares of each row of left, rows x rank.
 * scratch: 3 BLOCK n + r (r + BLOCK) doubles. */
Z4_INLINE void z4_lowrank_refine_body(int kind, const z4_lowrank_refiner *by, const uint8_t *target,
                                      const uint8_t *base, double *left, double *scratch)
{
    size_t n = by->columns, r = by->rank, pitch = n * z4_float_width(kind);
    double *delta = scratch, *weight = delta + Z4_LOWRANK_BLOCK * n, *sums = weight + Z4_LOWRANK_BLOCK * n;
    double *gram = sums + Z4_LOWRANK_BLOCK * n, *x = gram + r * r;
    for (size_t first = 0; first < by->rows; first += Z4_LOWRANK_BLOCK) {
        size_t rows = by->rows - first < Z4_LOWRANK_BLOCK ? by->rows - first : Z4_LOWRANK_BLOCK;
        for (size_t i = 0; i < rows; i++) {
            size_t at = (first + i) * pitch;
            z4_lowrank_row(kind, target + at, base + at, n, by->least, delta + i * n, weight + i * n);
        }
        for (size_t from = 0; from < n; from += Z4_LOWRANK_TILE) {
            size_t part = n - from < Z4_LOWRANK_TILE ? n - from : Z4_LOWRANK_TILE;
            for (size_t i = 0; i < rows; i++) {
                z4_lowrank_sums(left + (first + i) * r, r, by->right + from, n, part, sums + i * n + from);
            }
        }
        for (size_t i = 0; i < rows; i++) {
            z4_lowrank_errors(kind, by, target + (first + i) * pitch, weight + i * n, sums + i * n, delta + i * n);
        }
        memset(x, 0, rows * r * sizeof *x);
        for (size_t from = 0; from < n; from += Z4_LOWRANK_TILE) {
            size_t part = n - from < Z4_LOWRANK_TILE ? n - from : Z4_LOWRANK_TILE;
            for (size_t k = 0; k < r; k++) {
                for (size_t i = 0; i < rows; i++) {
                    x[i * r + k] += z4_dot(delta + i * n + from, by->right + k * n + from, part);
                }
            }
        }
        for (size_t i = 0; i < rows; i++) {
            z4_lowrank_solve(by, weight + i * n, x + i * r, left + (first + i) * r, sums, gram);
        }
    }
}

/* Weights of each column, added up over rows `step` apart: sums, n of them; scratch: 2 n. */
static inline void z4_lowrank_weights(int kind, const uint8_t *target, const uint8_t *base, size_t m, size_t n,
                                      size_t step, int least, double *sums, double *scratch)
{
    size_t pitch = n * z4_float_width(kind);
    memset(sums, 0, n * sizeof *sums);
    for (size_t i = 0; i < m; i += step) {
        z4_lowrank_row(kind, target + i * pitch, base + i * pitch, n, least, scratch, scratch + n);
        for (size_t j = 0; j < n; j++) {
            sums[j] += scratch[n + j];
        }
    }
}

/* Make the r vectors of n orthonormal, twice for exactness; upper[k][l], r x r, so that
 * vector l was the sum over k of upper[k][l] * new vector k. What depends on those before becomes zero. */
static inline void z4_orthonormal(double *vectors, size_t r, size_t n, double *upper)
{
    memset(upper, 0, r * r * sizeof *upper);
    for (size_t l = 0; l < r; l++) {
        double *v = vectors + l * n;
        double before = sqrt(z4_dot(v, v, n));
        for (int pass = 0; pass < 2; pass++) {
            for (size_t k = 0; k < l; k++) {
                const double *u = vectors + k * n;
                double c = z4_dot(u, v, n);
                upper[k * r + l] += c;
                for (size_t j = 0; j < n; j++) {
                    v[j] -= c * u[j];
                }
            }
        }
        double norm = sqrt(z4_dot(v, v, n));
        double inverse = norm > 1e-13 * before ? 1.0 / norm : 0.0;
        upper[l * r + l] = inverse > 0.0 ? norm : 0.0;
        for (size_t j = 0; j < n; j++) {
            v[j] *= inverse;
        }
    }
}

/* One-sided Jacobi: r vectors of r in `a` become orthogonal, and `v`, r vectors of r too, is rotated with
 * them; both hold a vector in a row. */
static inline void z4_jacobi(double *a, double *v, size_t r)
{
    for (int sweep = 0; sweep < 30; sweep++) {
        int turned = 0;
        for (size_t k = 0; k + 1 < r; k++) {
            for (size_t l = k + 1; l < r; l++) {
                double *x = a + k * r, *y = a + l * r;
                double xx = z4_dot(x, x, r), yy = z4_dot(y, y, r), xy = z4_dot(x, y, r);
                if (fabs(xy) <= 1e-13 * sqrt(xx * yy)) {
                    continue;
                }
                turned = 1;
                double zeta = (yy - xx) / (2.0 * xy);
                double t = (zeta < 0.0 ? -1.0 : 1.0) / (fabs(zeta) + sqrt(1.0 + zeta * zeta));
                double c = 1.0 / sqrt(1.0 + t * t), s = c * t;
                for (int side = 0; side < 2; side++) {
                    double *p = (side ? v : a) + k * r, *q = (side ? v : a) + l * r;
                    for (size_t j = 0; j < r; j++) {
                        double u = p[j];
                        p[j] = c * u - s * q[j];
                        q[j] = s * u + c * q[j];
                    }
                }
            }
        }
        if (!turned) {
            return;
        }
    }
}

/* A level for each difference in units of the last place, as docs/format/codecs/difference.md has them
 * (half as fine where elements have 8 bytes), counted by the reference's exponent: counts[16][256]. */
static inline void z4_lowrank_count(int kind, const uint8_t *target, const uint8_t *reference, size_t n,
                                    int top, ptrdiff_t *counts)
{
    unsigned width = 8 * z4_float_width(kind);
    int mantissa = z4_float_mantissa(kind), g = kind == Z4_FP64 ? 1 : 2;
    uint64_t mask = ((uint64_t)1 << (width - 1)) - 1;
    for (size_t i = 0; i < n; i++) {
        uint64_t t = z4_float_word(kind, target, i), b = z4_float_word(kind, reference, i);
        uint64_t x = t & mask, y = b & mask;
        int64_t r = (int64_t)((t ^ b) >> (width - 1) ? ~(x + y) : x - y);
        uint64_t m = r < 0 ? 0 - (uint64_t)r : (uint64_t)r;
        int row = top - (int)(y >> mantissa);
        row = row < 0 ? 0 : row > 15 ? 15 : row;
        uint64_t level = m;
        if (m >> g) {
            int e = z4_exponent((double)m) - g;
            level = ((uint64_t)e << g) + (m >> e);
        }
        level = level < 127 ? level : 127;
        counts[row * 256 + 2 * (int)level + (r < 0)]++;
    }
}

/* Inner products of s sampled rows, over n sampled columns: gram[s][s]. Rows and runs of columns are spread
 * evenly; energy gets the mean squares of the differences and of the steps of the larger of each pair, and
 * the number of rows with differences.
 * values: s x n doubles, weights: n doubles. */
Z4_INLINE void z4_lowrank_sample_body(int kind, const uint8_t *target, const uint8_t *base, size_t rows,
                                      size_t columns, size_t s, size_t n, double *gram, double *energy,
                                      double *values, double *weights)
{
    size_t width = z4_float_width(kind), runs = n / Z4_LOWRANK_RUN;
    double squares = 0.0, steps = 0.0, changed = 0.0;
    for (size_t i = 0; i < s; i++) {
        double before = squares;
        size_t row = (2 * i + 1) * rows / (2 * s);
        double *d = values + i * n;
        for (size_t c = 0; c < runs; c++) {
            size_t gap = columns - Z4_LOWRANK_RUN;
            size_t at = (row * columns + (runs > 1 ? c * gap / (runs - 1) : 0)) * width;
            z4_lowrank_row(kind, target + at, base + at, Z4_LOWRANK_RUN, -400, d + c * Z4_LOWRANK_RUN,
                           weights + c * Z4_LOWRANK_RUN);
        }
        for (size_t j = 0; j < n; j++) {
            /* The weight is 2^-2 (e + 400). */
            int e = weights[j] > 0.0 ? -z4_exponent(weights[j]) / 2 - 400 : -400;
            squares += d[j] * d[j];
            steps += z4_power(2 * (e - z4_float_mantissa(kind)));
        }
        changed += squares > before;
    }
    for (size_t i = 0; i < s; i++) {
        for (size_t k = 0; k <= i; k++) {
            gram[i * s + k] = gram[k * s + i] = z4_dot(values + i * n, values + k * n, n);
        }
    }
    energy[0] = squares / (double)(s * n);
    energy[1] = steps / (double)(s * n);
    energy[2] = changed;
}

/* A symmetric s x s matrix, which is destroyed, to one of three diagonals with the same eigenvalues, by
 * Householder reflections: diagonal, squares[i] = that beside it in rows i - 1 and i, squared. scratch: 2 s. */
static inline void z4_three_diagonals(double *a, size_t s, double *diagonal, double *squares, double *scratch)
{
    double *off = scratch, *p = scratch + s;
    for (size_t k = 0; k + 2 < s; k++) {
        double *v = a + k * s; /* the row, right of the diagonal */
        double norm = sqrt(z4_dot(v + k + 1, v + k + 1, s - k - 1)), dot;
        off[k + 1] = v[k + 1] > 0.0 ? -norm : norm;
        if (norm == 0.0) {
            continue;
        }
        v[k + 1] -= off[k + 1];
        double scale = 2.0 / z4_dot(v + k + 1, v + k + 1, s - k - 1);
        for (size_t i = k + 1; i < s; i++) {
            p[i] = scale * z4_dot(a + i * s + k + 1, v + k + 1, s - k - 1);
        }
        dot = 0.5 * scale * z4_dot(p + k + 1, v + k + 1, s - k - 1);
        for (size_t i = k + 1; i < s; i++) {
            p[i] -= dot * v[i];
        }
        for (size_t i = k + 1; i < s; i++) {
            double c = v[i], d = p[i];
            double *row = a + i * s;
            for (size_t j = k + 1; j < s; j++) {
                row[j] -= c * p[j] + d * v[j];
            }
        }
    }
    if (s > 1) {
        off[s - 1] = a[(s - 2) * s + s - 1];
    }
    off[0] = 0.0;
    for (size_t i = 0; i < s; i++) {
        diagonal[i] = a[i * s + i];
        squares[i] = off[i] * off[i];
    }
}

/* How many eigenvalues are above a bound: as many as the Sturm sequence has positive quotients. */
static inline size_t z4_eigenvalues_above(const double *diagonal, const double *squares, size_t s, double bound)
{
    size_t above = 0;
    double q = 1.0;
    for (size_t i = 0; i < s; i++) {
        q = diagonal[i] - bound - squares[i] / q;
        q = q == 0.0 ? -1e-300 : q;
        above += q > 0.0;
    }
    return above;
}

typedef void (*z4_project_fn)(int kind, const uint8_t *target, const uint8_t *base, size_t m, size_t n,
                              const double *factor, size_t q, double *out, double *scratch);
typedef void (*z4_refine_fn)(int kind, const z4_lowrank_refiner *by, const uint8_t *target,
                             const uint8_t *base, double *left, double *scratch);
typedef void (*z4_sample_fn)(int kind, const uint8_t *target, const uint8_t *base, size_t rows, size_t columns,
                             size_t s, size_t n, double *gram, double *energy, double *values,
                             double *weights);

#define Z4_LOWRANK_FIND(isa, target_)                                                                        \
    target_ static void z4_project_##isa(int kind, const uint8_t *t, const uint8_t *b, size_t m, size_t n,   \
                                         const double *f, size_t q, double *out, double *scratch)            \
    {                                                                                                        \
        z4_lowrank_project_body(kind, t, b, m, n, f, q, out, scratch);                                       \
    }                                                                                                        \
    target_ static void z4_refine_##isa(int kind, const z4_lowrank_refiner *by, const uint8_t *t,            \
                                        const uint8_t *b, double *left, double *scratch)                     \
    {                                                                                                        \
        z4_lowrank_refine_body(kind, by, t, b, left, scratch);                                               \
    }                                                                                                        \
    target_ static void z4_sample_##isa(int kind, const uint8_t *t, const uint8_t *b, size_t rows,           \
                                        size_t columns, size_t s, size_t n, double *g, double *e, double *v, \
                                        double *w)                                                           \
    {                                                                                                        \
        z4_lowrank_sample_body(kind, t, b, rows, columns, s, n, g, e, v, w);                                 \
    }

Z4_LOWRANK_FIND(scalar, )
#if Z4_X86
Z4_LOWRANK_FIND(avx2, Z4_TARGET_AVX2)
Z4_LOWRANK_FIND(avx512, Z4_TARGET_AVX512)
#endif

typedef struct {
    const char *name;
    int isa;
    z4_project_fn project;
    z4_refine_fn refine;
    z4_sample_fn sample;
} z4_lowrank_finder;

/* Worst first. */
static const z4_lowrank_finder Z4_LOWRANK_FINDERS[] = {
    {"scalar", Z4_ISA_SCALAR, z4_project_scalar, z4_refine_scalar, z4_sample_scalar},
#if Z4_X86
    {"avx2", Z4_ISA_AVX2, z4_project_avx2, z4_refine_avx2, z4_sample_avx2},
    {"avx512", Z4_ISA_AVX512, z4_project_avx512, z4_refine_avx512, z4_sample_avx512},
#endif
};

static inline const z4_lowrank_finder *z4_lowrank_finder_pick(int isa)
{
    int n = (int)(sizeof Z4_LOWRANK_FINDERS / sizeof Z4_LOWRANK_FINDERS[0]);
    const z4_lowrank_finder *best = &Z4_LOWRANK_FINDERS[0];
    for (int k = 1; k < n; k++) {
        if (Z4_LOWRANK_FINDERS[k].isa <= isa) {
            best = &Z4_LOWRANK_FINDERS[k];
        }
    }
    return best;
}

#endif
