# cython: language_level=3
# cython: freethreading_compatible=True
"""Predict matrices by low-rank factors, and find such factors.

Format: docs/format/codecs/lowrank.md.
"""

from __future__ import annotations

import numpy as np

from libc.stdint cimport uint8_t
from libc.math cimport ldexp

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

cdef extern from "z4_lowrank.h":
    enum:
        Z4_LOWRANK_VARIANTS
    ctypedef struct z4_lowrank_product:
        size_t columns
        size_t rank
        const double *high
        const double *low
        const double *right
        double scale
        int rounds
    ctypedef void (*z4_predict_fn)(
        const z4_lowrank_product *product, const uint8_t *base, size_t rows, uint8_t *dst
    ) noexcept nogil
    ctypedef struct z4_lowrank_impl:
        const char *name
        int isa
        z4_predict_fn *predict
    const z4_lowrank_impl *Z4_LOWRANK
    const z4_lowrank_impl *z4_lowrank_pick(int isa) noexcept nogil

cdef extern from "z4_lowrank_find.h":
    enum:
        Z4_LOWRANK_RUN
        Z4_LOWRANK_BLOCK
    ctypedef struct z4_lowrank_refiner:
        size_t rows
        size_t columns
        size_t rank
        const double *right
        const double *shared
        double shared_weight
        int least
        int half
        double slack
    ctypedef void (*z4_project_fn)(
        int kind, const uint8_t *target, const uint8_t *base, size_t m, size_t n,
        const double *factor, size_t q, double *out, double *scratch
    ) noexcept nogil
    ctypedef void (*z4_refine_fn)(
        int kind, const z4_lowrank_refiner *by, const uint8_t *target, const uint8_t *base,
        double *left, double *scratch
    ) noexcept nogil
    ctypedef void (*z4_sample_fn)(
        int kind, const uint8_t *target, const uint8_t *base, size_t rows, size_t columns,
        size_t s, size_t n, double *gram, double *energy, double *values, double *weights
    ) noexcept nogil
    ctypedef struct z4_lowrank_finder:
        z4_project_fn project
        z4_refine_fn refine
        z4_sample_fn sample
    const z4_lowrank_finder *z4_lowrank_finder_pick(int isa) noexcept nogil
    void z4_lowrank_weights(
        int kind, const uint8_t *target, const uint8_t *base, size_t m, size_t n, size_t step,
        int least, double *sums, double *scratch
    ) noexcept nogil
    void z4_orthonormal(double *vectors, size_t r, size_t n, double *upper) noexcept nogil
    void z4_jacobi(double *a, double *v, size_t r) noexcept nogil
    double z4_dot(const double *a, const double *b, size_t n) noexcept nogil
    void z4_cholesky(double *g, size_t r) noexcept nogil
    void z4_lowrank_count(
        int kind, const uint8_t *target, const uint8_t *reference, size_t n, int top,
        ptrdiff_t *counts
    ) noexcept nogil
    void z4_three_diagonals(
        double *a, size_t s, double *diagonal, double *squares, double *scratch
    ) noexcept nogil
    size_t z4_eigenvalues_above(
        const double *diagonal, const double *squares, size_t s, double bound
    ) noexcept nogil

# Columns side by side in a sample.
RUN = int(Z4_LOWRANK_RUN)
# Numbers of the kinds of floats, as in z4_lowrank.h, and their widths.
KINDS = {"fp16": 0, "bf16": 1, "fp32": 2, "fp64": 3}
_WIDTHS = (2, 2, 4, 8)


def variants() -> tuple[str, ...]:
    """Return the names of the compiled variants that this machine can run, worst first."""
    names = [Z4_LOWRANK[k].name.decode() for k in range(Z4_LOWRANK_VARIANTS)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_lowrank_impl *_pick(object isa) except NULL:
    return z4_lowrank_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


def picked(isa: str | None = None) -> str:
    """Return the name of the variant that an instruction set gets."""
    return _pick(isa).name.decode()


def predict(
    const uint8_t[::1] base,
    kind: int,
    const double[:, ::1] low,
    const double[:, ::1] right,
    exponent: int,
    uint8_t[::1] out,
    *,
    high: object = None,
    rounds: bool = False,
    isa: str | None = None,
) -> None:
    """Add a product of integers to rows of a matrix.

    Parameters
    ----------
    base : ndarray of uint8
        Content of the rows.
    kind : int
        One of `KINDS`.
    low, high : ndarray of float64
        Left factors of the rows, rows x rank: integers, 4096 high + low where `high` is given.
    right : ndarray of float64
        Rank x columns, integers. All sums of products must be below 2**53 in magnitude.
    exponent : int
        The product is multiplied by 2**exponent, -900 to 400.
    out : ndarray of uint8
        Takes the prediction; as large as `base`, which it must not overlap.
    rounds : bool
        Whether the product is rounded before it is added.
    isa : str, optional
        Run the variant of this instruction set (for tests).
    """
    cdef const z4_lowrank_impl *impl = _pick(isa)
    cdef z4_lowrank_product product
    cdef const double[:, ::1] high_view
    cdef size_t rows = low.shape[0]
    cdef int code = kind
    if not 0 <= code < 4 or not -900 <= exponent <= 400:
        raise ValueError(f"kind {kind} or exponent {exponent} is out of range")
    if low.shape[1] != right.shape[0]:
        raise ValueError(f"left has rank {low.shape[1]}, right {right.shape[0]}")
    nbytes = low.shape[0] * right.shape[1] * _WIDTHS[code]
    if base.shape[0] != nbytes or out.shape[0] != nbytes:
        raise ValueError(f"base has {base.shape[0]} bytes, out {out.shape[0]}, expected {nbytes}")
    if nbytes == 0:
        return
    if low.shape[1] == 0:
        raise ValueError("no components")
    product.high = NULL
    if high is not None:
        high_view = high
        if high_view.shape[0] != low.shape[0] or high_view.shape[1] != low.shape[1]:
            raise ValueError("high and low differ in shape")
        product.high = &high_view[0, 0]
    product.columns = right.shape[1]
    product.rank = right.shape[0]
    product.low = &low[0, 0]
    product.right = &right[0, 0]
    product.scale = ldexp(1.0, exponent)
    product.rounds = rounds
    cdef const uint8_t *src = &base[0]
    cdef uint8_t *dst = &out[0]
    with nogil:
        impl.predict[code](&product, src, rows, dst)


# --- To find factors ------------------------------------------------------------------------------


cdef int _pair(
    const uint8_t[::1] target, const uint8_t[::1] base, object kind, object rows, object columns
) except -1:
    """Check a pair of matrices; -> the kind."""
    if kind not in range(4) or rows < 1 or columns < 1:
        raise ValueError(f"kind {kind}, {rows} x {columns}")
    nbytes = rows * columns * _WIDTHS[kind]
    if target.shape[0] != nbytes or base.shape[0] != nbytes:
        raise ValueError(
            f"target has {target.shape[0]} bytes, base {base.shape[0]}, expected {nbytes}"
        )
    return kind


cdef const z4_lowrank_finder *_finder(object isa) except NULL:
    return z4_lowrank_finder_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


cdef class Sample:
    """Squares of the singular values of a sample of target - base.

    Parameters
    ----------
    target, base : ndarray of uint8
        Content of two matrices.
    kind : int
        One of `KINDS`.
    rows, columns : int
        Of the matrices.
    n_rows, n_columns : int
        Of the sample; columns in whole runs of `RUN`.
    """

    cdef size_t _s
    cdef object _diagonals
    cdef readonly double energy
    """Mean square of the differences."""
    cdef readonly double steps
    """Mean square of a unit in the last place."""
    cdef readonly int changed
    """Rows of the sample with a difference."""
    cdef readonly double trace
    """Sum of the squares of all differences."""

    def __init__(
        self,
        const uint8_t[::1] target,
        const uint8_t[::1] base,
        kind: int,
        rows: int,
        columns: int,
        n_rows: int,
        n_columns: int,
        *,
        isa: str | None = None,
    ) -> None:
        cdef int code = _pair(target, base, kind, rows, columns)
        cdef const z4_lowrank_finder *finder = _finder(isa)
        if not 2 <= n_rows <= rows or not RUN <= n_columns <= columns or n_columns % RUN:
            raise ValueError(f"a sample of {n_rows} x {n_columns}")
        cdef size_t m = rows, n = columns, s = n_rows, t = n_columns
        gram = np.zeros((n_rows, n_rows))
        self._diagonals = np.zeros((4, n_rows))
        values = np.empty((n_rows + 1, n_columns))
        cdef double[:, ::1] gram_view = gram
        cdef double[:, ::1] diagonals = self._diagonals
        cdef double[:, ::1] values_view = values
        cdef double energy[3]
        cdef const uint8_t *to = &target[0]
        cdef const uint8_t *of = &base[0]
        cdef double *g = &gram_view[0, 0]
        cdef double *d = &diagonals[0, 0]
        cdef double *v = &values_view[0, 0]
        with nogil:
            finder.sample(code, to, of, m, n, s, t, g, energy, v, v + s * t)
            z4_three_diagonals(g, s, d, d + s, d + 2 * s)
        self._s = s
        self.energy, self.steps, self.changed = energy[0], energy[1], int(energy[2])
        self.trace = energy[0] * n_rows * n_columns

    def above(self, double bound) -> int:
        """Count the squares of singular values above a bound."""
        cdef double[:, ::1] diagonals = self._diagonals
        return z4_eigenvalues_above(&diagonals[0, 0], &diagonals[1, 0], self._s, bound)


def project(
    const uint8_t[::1] target,
    const uint8_t[::1] base,
    kind: int,
    rows: int,
    columns: int,
    const double[:, ::1] factor,
    *,
    isa: str | None = None,
) -> object:
    """Multiply target - base with a factor, columns x q.

    Returns
    -------
    ndarray of float64
        Rows x q.
    """
    cdef int code = _pair(target, base, kind, rows, columns)
    cdef const z4_lowrank_finder *finder = _finder(isa)
    if factor.shape[0] != columns or factor.shape[1] < 1:
        raise ValueError(f"factor has {factor.shape[0]} x {factor.shape[1]} numbers")
    cdef size_t m = rows, n = columns, q = factor.shape[1]
    out = np.empty((rows, factor.shape[1]))
    cdef double[:, ::1] out_view = out
    cdef double[::1] scratch = np.empty((Z4_LOWRANK_BLOCK + 1) * columns)
    cdef const uint8_t *to = &target[0]
    cdef const uint8_t *of = &base[0]
    cdef const double *f = &factor[0, 0]
    cdef double *dst = &out_view[0, 0]
    cdef double *work = &scratch[0]
    with nogil:
        finder.project(code, to, of, m, n, f, q, dst, work)
    return out


def refine(
    const uint8_t[::1] target,
    const uint8_t[::1] base,
    kind: int,
    double[:, ::1] left,
    const double[:, ::1] right,
    least: int,
    *,
    slack: float = 0.0,
    step: int = 0,
    isa: str | None = None,
) -> None:
    """Improve a left factor, rows x rank, in place: weighted least squares, row by row.

    Parameters
    ----------
    target, base : ndarray of uint8
        Content of the matrices.
    kind : int
        One of `KINDS`.
    left : ndarray of float64
        Rows x rank.
    right : ndarray of float64
        Rank x columns.
    least : int
        Binary exponent; smaller elements weigh the same.
    slack : float
        0 for least squares; else errors up to so many halves of a unit in the last place count
        as none.
    step : int
        0: each row by its own weights. Else by the mean ones of every so many rows, which is
        far less to do, and a smaller step towards the same.
    isa : str, optional
        Run the variant of this instruction set (for tests).
    """
    rows, columns, rank = left.shape[0], right.shape[1], left.shape[1]
    cdef int code = _pair(target, base, kind, rows, columns)
    cdef const z4_lowrank_finder *finder = _finder(isa)
    cdef z4_lowrank_refiner by
    cdef size_t r = rank, n = columns, m = rows, every = step
    cdef int floor = least
    if right.shape[0] != rank or rank < 1 or step < 0 or not -500 <= least <= 500:
        raise ValueError(f"rank {rank} and {right.shape[0]}, step {step}, least {least}")
    by.rows, by.columns, by.rank = rows, columns, rank
    by.right = &right[0, 0]
    by.shared = NULL
    by.least = floor
    by.half = -1 - (10, 7, 23, 52)[code]
    by.slack = slack
    cdef double[::1] scratch = np.empty(
        3 * Z4_LOWRANK_BLOCK * columns + rank * (rank + Z4_LOWRANK_BLOCK)
    )
    cdef double[::1] weights
    cdef double[:, ::1] gram
    cdef const uint8_t *to = &target[0]
    cdef const uint8_t *of = &base[0]
    cdef double *work = &scratch[0]
    cdef double *first = &left[0, 0]
    cdef double *w
    cdef double *g
    if step:
        sums = np.empty(columns)
        weights = sums
        w = &weights[0]
        with nogil:
            z4_lowrank_weights(code, to, of, m, n, every, floor, w, work)
        gram = _gram(np.asarray(right), sums)
        by.shared_weight = float(sum(sums.tolist()))
        g = &gram[0, 0]
        with nogil:
            z4_cholesky(g, r)
        by.shared = g
    with nogil:
        finder.refine(code, &by, to, of, first, work)


cdef double[:, ::1] _gram(object right, object weights):
    """Return right * weights * right^T."""
    weighted = right * weights
    gram = np.zeros((len(right), len(right)))
    cdef const double[:, ::1] a = right
    cdef const double[:, ::1] b = weighted
    cdef double[:, ::1] out = gram
    cdef Py_ssize_t k, j, r = a.shape[0], n = a.shape[1]
    cdef const double *x = &b[0, 0]
    cdef const double *y = &a[0, 0]
    cdef double *dst = &out[0, 0]
    with nogil:
        for k in range(r):
            for j in range(k + 1):
                dst[k * r + j] = z4_dot(x + k * n, y + j * n, n)
    return gram


def orthonormal(double[:, ::1] vectors) -> object:
    """Make the rows of a matrix orthonormal, in place.

    Returns
    -------
    ndarray of float64
        Upper triangle, such that its transpose times the new rows are the old ones.
    """
    cdef size_t r = vectors.shape[0], n = vectors.shape[1]
    upper = np.zeros((vectors.shape[0], vectors.shape[0]))
    if upper.size == 0 or n == 0:
        raise ValueError("no vectors")
    cdef double[:, ::1] view = upper
    cdef double *first = &vectors[0, 0]
    cdef double *triangle = &view[0, 0]
    with nogil:
        z4_orthonormal(first, r, n, triangle)
    return upper


def jacobi(double[:, ::1] rows, double[:, ::1] other) -> None:
    """Rotate the rows of a square matrix until they are orthogonal; those of another turn along."""
    cdef size_t r = rows.shape[0]
    if r == 0 or rows.shape[1] != rows.shape[0]:
        raise ValueError(f"{rows.shape[0]} x {rows.shape[1]} is no square")
    if other.shape[0] != rows.shape[0] or other.shape[1] != rows.shape[0]:
        raise ValueError("the matrices differ in shape")
    cdef double *first = &rows[0, 0]
    cdef double *second = &other[0, 0]
    with nogil:
        z4_jacobi(first, second, r)


def count(
    const uint8_t[::1] target, const uint8_t[::1] reference, kind: int, top: int
) -> object:
    """Count the symbols of differences, by the exponent of the reference.

    Returns
    -------
    ndarray of intp
        16 x 256; row k is of elements whose exponent field is `top` - k, or beyond the ends.
    """
    if kind not in range(4) or target.shape[0] % _WIDTHS[kind]:
        raise ValueError(f"kind {kind}, {target.shape[0]} bytes")
    counts = np.zeros((16, 256), np.intp)
    cdef ptrdiff_t[:, ::1] view = counts
    cdef size_t n = target.shape[0] // _WIDTHS[kind]
    cdef int code = kind, highest = top
    if target.shape[0] != reference.shape[0]:
        raise ValueError(f"target has {target.shape[0]} bytes, reference {reference.shape[0]}")
    if n == 0:
        return counts
    cdef const uint8_t *to = &target[0]
    cdef const uint8_t *of = &reference[0]
    cdef ptrdiff_t *dst = &view[0, 0]
    with nogil:
        z4_lowrank_count(code, to, of, n, highest, dst)
    return counts
