# cython: language_level=3
# cython: freethreading_compatible=True
"""Grids and palettes: the binding of ``c/z4_grid_find.h`` and ``c/z4_palette.h``."""

from __future__ import annotations

import numpy as np

from libc.stddef cimport ptrdiff_t
from libc.stdint cimport SIZE_MAX, int16_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "z4_grid_find.h" nogil:
    enum:
        Z4_OK
        Z4_GRID_BF16
        Z4_GRID_FP16
        Z4_GRID_FP32
        Z4_GRID_FP64
        Z4_GRID_KINDS
        Z4_GRID_MOST
        Z4_GRID_MINUS_ZERO
        Z4_GRID_EXCEPTION
        Z4_GRID_BINS
        Z4_GRID_NONE
        Z4_GRID_PERHAPS
        Z4_GRID_SURE
    ctypedef struct z4_grid_sample:
        pass
    unsigned z4_grid_width(int kind) noexcept
    size_t z4_grid_groups(size_t n, size_t row, size_t column, size_t group) noexcept
    size_t z4_grid_count(const uint8_t *codes, size_t n, uint8_t code) noexcept
    int z4_grid_probe(int kind, const uint8_t *src, size_t m, z4_grid_sample *t,
                      double *mean) noexcept
    double z4_grid_logarithm(double x) noexcept
    int z4_grid_is_own(int kind, double s) noexcept
    size_t z4_grid_split(int kind, const uint8_t *src, size_t n, size_t row, size_t column,
                         size_t group, z4_grid_sample *t, int16_t *ks, double *scales) noexcept
    void z4_grid_histogram(const int16_t *ks, size_t n, uint64_t *bins) noexcept
    ptrdiff_t z4_grid_codes(const int16_t *ks, size_t n, int low, int top, int minus,
                            const uint8_t *src, unsigned w, uint8_t *codes, uint8_t *exceptions,
                            size_t capacity) noexcept
    int z4_grid_join(int kind, unsigned flags, int low, size_t row, size_t column, size_t group,
                     const uint8_t *scales, const uint8_t *codes, size_t n,
                     const uint8_t *exceptions, size_t n_exceptions, uint8_t *dst) noexcept

cdef extern from "z4_palette.h" nogil:
    ctypedef struct z4_palette:
        pass
    unsigned z4_palette_count(z4_palette *p, const uint8_t *src, size_t n, unsigned w,
                              size_t step) noexcept
    ptrdiff_t z4_palette_split(z4_palette *p, const uint8_t *src, size_t n, unsigned w,
                               uint8_t *codes, uint8_t *palette) noexcept
    ptrdiff_t z4_palette_split_rows(z4_palette *p, const uint8_t *src, size_t n, unsigned w,
                                    size_t row, size_t column, uint8_t *codes, uint8_t *sizes,
                                    uint8_t *palettes, size_t capacity) noexcept
    int z4_palette_join(const uint8_t *codes, size_t n, const uint8_t *palette, unsigned count,
                        unsigned w, uint8_t *dst) noexcept
    int z4_palette_join_rows(const uint8_t *codes, size_t n, const uint8_t *sizes, size_t n_rows,
                             const uint8_t *palettes, size_t total, unsigned w, size_t row,
                             size_t column, uint8_t *dst) noexcept

BF16 = int(Z4_GRID_BF16)
FP16 = int(Z4_GRID_FP16)
FP32 = int(Z4_GRID_FP32)
FP64 = int(Z4_GRID_FP64)
MOST = int(Z4_GRID_MOST)
MINUS_ZERO = int(Z4_GRID_MINUS_ZERO)
EXCEPTION = int(Z4_GRID_EXCEPTION)


cdef object _bytes_of(object buffer):
    """Return a flat uint8 view of any contiguous buffer."""
    return np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)


cdef const uint8_t *_start(const uint8_t[::1] view) noexcept:
    return &view[0] if view.shape[0] > 0 else NULL


cdef uint8_t *_place(uint8_t[::1] view) noexcept:
    return &view[0] if view.shape[0] > 0 else NULL


cdef size_t _elements(Py_ssize_t nbytes, unsigned width) except? 0:
    if nbytes % width:
        raise ValueError(f"{nbytes} bytes are no whole number of {width}-byte elements")
    return nbytes // width


cdef int _check_kind(int kind) except -1:
    if not 0 <= kind < Z4_GRID_KINDS:
        raise ValueError(f"no such kind of element: {kind}")
    return 0


cdef int _check_width(int width) except -1:
    if width not in (2, 4, 8):
        raise ValueError(f"width must be 2, 4 or 8, not {width}")
    return 0


cdef int _check_rows(Py_ssize_t row, Py_ssize_t column, Py_ssize_t group) except -1:
    if not (0 <= column < row and 0 < group <= row):
        raise ValueError(f"row {row}, column {column}, group {group}")
    return 0


cdef object _output(object out, Py_ssize_t nbytes):
    view = memoryview(out)
    if view.readonly:
        raise ValueError("out is read-only")
    if view.nbytes != nbytes:
        raise ValueError(f"out has {view.nbytes} bytes, expected {nbytes}")
    return _bytes_of(view)


def count(codes: object, code: int) -> int:
    """Return how often a byte occurs."""
    cdef const uint8_t[::1] view = _bytes_of(codes)
    cdef uint8_t wanted = code
    cdef const uint8_t *first = _start(view)
    cdef size_t n = view.shape[0], found
    with nogil:
        found = z4_grid_count(first, n, wanted)
    return found


def grid_groups(n: int, row: int, column: int, group: int) -> int:
    """Return how many groups ``n`` elements from ``column`` of a row on touch."""
    _check_rows(row, column, group)
    return z4_grid_groups(<size_t> n, <size_t> row, <size_t> column, <size_t> group)


def grid_probe(content: object, kind: int, places: list) -> tuple:
    """Look for a grid at each of some places, (first element, number of elements).

    Returns
    -------
    sure, perhaps, none : int
        At how many places there is a grid; at how many the elements are too few or too alike to
        tell, though not all zero; at how many there is no grid.
    size : float
        About the logarithm to base 2 of one more than the mean number, averaged over the
        places of a grid.
    """
    _check_kind(kind)
    cdef const uint8_t[::1] view = _bytes_of(content)
    cdef unsigned width = z4_grid_width(kind)
    cdef size_t n = _elements(view.shape[0], width), begin, m
    cdef const uint8_t *first = _start(view)
    cdef int code = kind, found, sure = 0, perhaps = 0, none = 0
    cdef double mean = 0, size = 0
    cdef z4_grid_sample *sample = <z4_grid_sample *> malloc(sizeof(z4_grid_sample))
    if sample is NULL:
        raise MemoryError
    try:
        for place in places:
            begin = place[0]
            m = place[1]
            if begin > n or m > n - begin:
                raise ValueError(f"{m} elements at {begin} of {n}")
            with nogil:
                found = z4_grid_probe(code, first + width * begin, m, sample, &mean)
            if found == Z4_GRID_SURE or found == Z4_GRID_PERHAPS:
                size += z4_grid_logarithm(1 + mean)
            sure += found == Z4_GRID_SURE
            perhaps += found == Z4_GRID_PERHAPS
            none += found == Z4_GRID_NONE
    finally:
        free(sample)
    return sure, perhaps, none, size / max(sure + perhaps, 1)


def grid_split(content: object, kind: int, row: int, column: int, group: int) -> tuple | None:
    """Find the scale of each group and the whole number of each element.

    Returns
    -------
    tuple or None
        Numbers (int16; ``MINUS_ZERO`` and ``EXCEPTION`` mark what is neither), scales (float64),
        and how often each number occurs (uint64, number + ``MOST``); None if too few elements are
        on a grid.
    """
    _check_kind(kind)
    _check_rows(row, column, group)
    cdef const uint8_t[::1] view = _bytes_of(content)
    cdef size_t n = _elements(view.shape[0], z4_grid_width(kind)), found
    cdef size_t r = row, c = column, g = group
    numbers = np.empty(n, np.int16)
    scales = np.empty(z4_grid_groups(n, r, c, g), np.float64)
    bins = np.zeros(Z4_GRID_BINS, np.uint64)
    if n == 0:
        return numbers, scales, bins
    cdef const uint8_t *first = _start(view)
    cdef int16_t[::1] ks = numbers
    cdef double[::1] ss = scales
    cdef uint64_t[::1] bs = bins
    cdef int code = kind
    cdef z4_grid_sample *sample = <z4_grid_sample *> malloc(sizeof(z4_grid_sample))
    if sample is NULL:
        raise MemoryError
    cdef int16_t *k = &ks[0]
    cdef double *s = &ss[0]
    cdef uint64_t *b = &bs[0]
    with nogil:
        found = z4_grid_split(code, first, n, r, c, g, sample, k, s)
        if found != SIZE_MAX:
            z4_grid_histogram(k, n, b)
    free(sample)
    return None if found == SIZE_MAX else (numbers, scales, bins)


def grid_own(const double[::1] scales, kind: int) -> bool:
    """Tell whether every scale is a number of the element's own type."""
    _check_kind(kind)
    cdef Py_ssize_t i
    cdef int code = kind
    for i in range(scales.shape[0]):
        if not z4_grid_is_own(code, scales[i]):
            return False
    return True


def grid_codes(
    const int16_t[::1] numbers,
    content: object,
    width: int,
    low: int,
    top: int,
    minus: int,
    n_exceptions: int,
) -> tuple:
    """Make codes of whole numbers, and collect the elements that are exceptions.

    Parameters
    ----------
    numbers, content
        What `grid_split` returned, and was given.
    width
        Bytes of an element.
    low, top
        The code of 0, and the last code of a number; what is outside is an exception.
    minus
        Code of the negative zero, or -1: an exception.
    n_exceptions
        How many exceptions there are.

    Returns
    -------
    codes, exceptions : ndarray of uint8
    """
    _check_width(width)
    cdef const uint8_t[::1] view = _bytes_of(content)
    cdef size_t n = _elements(view.shape[0], width)
    cdef size_t capacity = n_exceptions
    cdef int a = low, b = top, m = minus
    cdef unsigned w = width
    cdef ptrdiff_t found
    if <size_t> numbers.shape[0] != n:
        raise ValueError(f"{numbers.shape[0]} numbers, {n} elements")
    codes = np.empty(n, np.uint8)
    exceptions = np.empty(capacity * w, np.uint8)
    if n == 0:
        return codes, exceptions
    cdef const int16_t *k = &numbers[0]
    cdef const uint8_t *first = _start(view)
    cdef uint8_t *to = _place(codes)
    cdef uint8_t *rest = _place(exceptions)
    with nogil:
        found = z4_grid_codes(k, n, a, b, m, first, w, to, rest, capacity)
    if found < 0 or <size_t> found != capacity:
        raise ValueError(f"not {n_exceptions} exceptions")
    return codes, exceptions


def grid_join(
    kind: int,
    flags: int,
    low: int,
    row: int,
    column: int,
    group: int,
    scales: object,
    codes: object,
    exceptions: object,
    out: object,
) -> bool:
    """Restore elements from the parts of a grid.

    Returns
    -------
    bool
        False if a scale is none that the format allows, or if exceptions are missing or left over.
    """
    _check_kind(kind)
    _check_rows(row, column, group)
    cdef const uint8_t[::1] a = _bytes_of(scales)
    cdef const uint8_t[::1] b = _bytes_of(codes)
    cdef const uint8_t[::1] c = _bytes_of(exceptions)
    cdef unsigned width = z4_grid_width(kind), bits = flags
    cdef unsigned scale_width = 4 if flags & 1 else width
    cdef size_t n = b.shape[0], n_exceptions = _elements(c.shape[0], width)
    cdef size_t r = row, at = column, g = group
    cdef int code = kind, zero = low, status
    if <size_t> a.shape[0] != scale_width * z4_grid_groups(n, r, at, g):
        raise ValueError(f"{a.shape[0]} bytes of scales")
    cdef uint8_t[::1] d = _output(out, width * n)
    cdef const uint8_t *pa = _start(a)
    cdef const uint8_t *pb = _start(b)
    cdef const uint8_t *pc = _start(c)
    cdef uint8_t *pd = _place(d)
    with nogil:
        status = z4_grid_join(code, bits, zero, r, at, g, pa, pb, n, pc, n_exceptions, pd)
    return status == Z4_OK


def palette_count(content: object, width: int, step: int) -> int:
    """Count the distinct elements among every ``step``th; 257 if there are more than 256."""
    _check_width(width)
    if step < 1:
        raise ValueError("step must be positive")
    cdef const uint8_t[::1] view = _bytes_of(content)
    cdef size_t n = _elements(view.shape[0], width), s = step
    cdef const uint8_t *first = _start(view)
    cdef unsigned w = width, found
    cdef z4_palette table
    with nogil:
        found = z4_palette_count(&table, first, n, w, s)
    return found


def palette_split(content: object, width: int) -> tuple | None:
    """Make codes of elements and the palette of those; None if there are more than 256 distinct.

    Returns
    -------
    codes, palette : ndarray of uint8
    """
    _check_width(width)
    cdef const uint8_t[::1] view = _bytes_of(content)
    cdef size_t n = _elements(view.shape[0], width)
    cdef const uint8_t *first = _start(view)
    cdef unsigned w = width
    cdef ptrdiff_t found
    cdef z4_palette table
    codes = np.empty(n, np.uint8)
    palette = np.empty(256 * w, np.uint8)
    cdef uint8_t *to = _place(codes)
    cdef uint8_t *values = _place(palette)
    with nogil:
        found = z4_palette_split(&table, first, n, w, to, values)
    return None if found < 0 else (codes, palette[: found * w].copy())


def palette_split_rows(
    content: object, width: int, row: int, column: int, limit: int
) -> tuple | None:
    """Do the same for each row; None if the palettes have more than ``limit`` elements in all.

    Returns
    -------
    codes, sizes, palettes : ndarray of uint8
        Codes in the palette of the row, sizes of the palettes less one, the palettes.
    """
    _check_width(width)
    _check_rows(row, column, 1)
    cdef const uint8_t[::1] view = _bytes_of(content)
    cdef size_t n = _elements(view.shape[0], width)
    cdef size_t r = row, c = column, capacity = limit
    cdef const uint8_t *first = _start(view)
    cdef unsigned w = width
    cdef ptrdiff_t found
    cdef z4_palette table
    codes = np.empty(n, np.uint8)
    sizes = np.empty(z4_grid_groups(n, r, c, r), np.uint8)
    palettes = np.empty(capacity * w, np.uint8)
    cdef uint8_t *to = _place(codes)
    cdef uint8_t *counts = _place(sizes)
    cdef uint8_t *values = _place(palettes)
    with nogil:
        found = z4_palette_split_rows(&table, first, n, w, r, c, to, counts, values, capacity)
    return None if found < 0 else (codes, sizes, palettes[: found * w].copy())


def palette_join(codes: object, palette: object, width: int, out: object) -> bool:
    """Restore elements; False if the palette does not ascend or a code is not in it."""
    _check_width(width)
    cdef const uint8_t[::1] a = _bytes_of(codes)
    cdef const uint8_t[::1] b = _bytes_of(palette)
    cdef size_t n = a.shape[0], total = _elements(b.shape[0], width)
    cdef uint8_t[::1] d = _output(out, n * width)
    cdef const uint8_t *pa = _start(a)
    cdef const uint8_t *pb = _start(b)
    cdef uint8_t *pd = _place(d)
    cdef unsigned w = width, size
    cdef int status
    if total > 256:
        return False
    size = <unsigned> total
    with nogil:
        status = z4_palette_join(pa, n, pb, size, w, pd)
    return status == Z4_OK


def palette_join_rows(
    codes: object,
    sizes: object,
    palettes: object,
    width: int,
    row: int,
    column: int,
    out: object,
) -> bool:
    """Restore elements of rows; False where `palette_join` is, or if sizes and palettes differ."""
    _check_width(width)
    _check_rows(row, column, 1)
    cdef const uint8_t[::1] a = _bytes_of(codes)
    cdef const uint8_t[::1] s = _bytes_of(sizes)
    cdef const uint8_t[::1] b = _bytes_of(palettes)
    cdef size_t n = a.shape[0], n_rows = s.shape[0], total = _elements(b.shape[0], width)
    cdef size_t r = row, c = column
    cdef uint8_t[::1] d = _output(out, n * width)
    cdef const uint8_t *pa = _start(a)
    cdef const uint8_t *ps = _start(s)
    cdef const uint8_t *pb = _start(b)
    cdef uint8_t *pd = _place(d)
    cdef unsigned w = width
    cdef int status
    with nogil:
        status = z4_palette_join_rows(pa, n, ps, n_rows, pb, total, w, r, c, pd)
    return status == Z4_OK
