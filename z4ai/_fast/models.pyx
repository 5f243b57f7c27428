# cython: freethreading_compatible=True
"""What a model is made from: symbols of a sample, weighed by row and column, counted by context."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

import numpy as np

from z4ai._fast._dispatch cimport current_isa

cdef extern from "z4_survey.h" nogil:
    enum:
        Z4_SYMBOLS_COUNT
        Z4_SURVEY_CLASSES
    ctypedef struct z4_symbols_impl:
        pass
    const z4_symbols_impl *z4_symbols_pick(int isa) noexcept
    unsigned z4_symbols_width(int kind) noexcept
    void z4_survey_symbols(const z4_symbols_impl *impl, int kind, unsigned base, bint swap,
                           const uint8_t *src, size_t n, uint8_t *symbols) noexcept
    void z4_survey_weigh(const z4_symbols_impl *impl, const uint8_t *symbols, size_t n,
                         size_t period, unsigned floor, uint64_t *rows, uint32_t *columns) noexcept
    void z4_survey_count(const z4_symbols_impl *impl, const uint8_t *symbols, size_t n,
                         size_t period, const uint8_t *rows, const uint8_t *columns,
                         uint32_t (*counts)[256]) noexcept
    uint64_t z4_survey_cost(const uint32_t *counts, size_t n) noexcept
    uint64_t z4_survey_merge(const uint32_t (*counts)[256], unsigned bins, unsigned shift,
                             unsigned most, unsigned *count) noexcept
    int z4_survey_apart(const uint32_t (*counts)[256], unsigned bins, unsigned shift,
                        unsigned count, unsigned width, bint complete, uint32_t (*kept)[256],
                        uint32_t *rare) noexcept
    void z4_survey_begin() noexcept

z4_survey_begin()

# Rows of what `count` returns: sums of a row class and a column class.
CLASSES = 128


def symbols_of(const uint8_t[::1] content, starts, size_t n, int kind, unsigned base, bint swap):
    """Return the symbols of runs of elements, one run behind the other.

    Parameters
    ----------
    content : buffer
        Whole elements.
    starts : sequence of int
        First element of each run.
    n : int
        Elements of a run.
    kind : int
        Transform of symbols, less the first of them.
    base : int
        Of the window.
    swap : bool
        The elements are big-endian.

    Returns
    -------
    ndarray of uint8
    """
    cdef size_t width, total, at = 0, first
    cdef uint8_t[::1] out
    cdef const z4_symbols_impl *impl = z4_symbols_pick(current_isa())
    if not 0 <= kind < Z4_SYMBOLS_COUNT:
        raise ValueError(f"kind {kind} is none")
    width = z4_symbols_width(kind)
    total = <size_t> content.shape[0] // width
    symbols = np.empty(len(starts) * n, np.uint8)
    out = symbols
    for start in starts:
        first = start
        if n == 0 or first > total or n > total - first:
            raise ValueError("a run does not lie in the content")
        with nogil:
            z4_survey_symbols(impl, kind, base, swap, &content[first * width], n, &out[at])
        at += n
    return symbols


def weigh(const uint8_t[::1] symbols, size_t period, unsigned floor):
    """Sum the symbols of each row and each column, those below `floor` (and 255) counting as it.

    Returns
    -------
    rows, columns : ndarray of uint64, ndarray of uint32
        The last row may be shorter than `period`.
    """
    cdef size_t n = <size_t> symbols.shape[0]
    cdef uint64_t[::1] r
    cdef uint32_t[::1] c
    cdef const z4_symbols_impl *impl = z4_symbols_pick(current_isa())
    if period == 0 or n == 0 or n >> 24:
        raise ValueError("no rows, or too many symbols")
    rows = np.zeros((n + period - 1) // period, np.uint64)
    columns = np.zeros(period, np.uint32)
    r = rows
    c = columns
    with nogil:
        z4_survey_weigh(impl, &symbols[0], n, period, floor, &r[0], &c[0])
    return rows, columns


def count(const uint8_t[::1] symbols, size_t period, const uint8_t[::1] rows,
          const uint8_t[::1] columns):
    """Count symbols by the sum of their row's class and their column's class.

    Parameters
    ----------
    symbols : buffer
        Row by row.
    period : int
        Symbols of a row.
    rows, columns : buffer or None
        Classes, below 64; None stands for 0.

    Returns
    -------
    ndarray of uint32, shape (CLASSES, 256)
    """
    cdef size_t n = <size_t> symbols.shape[0]
    cdef uint32_t[:, ::1] out
    cdef const uint8_t *r = NULL
    cdef const uint8_t *c = NULL
    cdef const z4_symbols_impl *impl = z4_symbols_pick(current_isa())
    counts = np.zeros((CLASSES, 256), np.uint32)
    out = counts
    if period == 0 or n == 0:
        raise ValueError("no rows, or no symbols")
    if rows is not None:
        if <size_t> rows.shape[0] != (n + period - 1) // period or np.max(rows) >= 64:
            raise ValueError("classes of rows do not fit the symbols")
        r = &rows[0]
    if columns is not None:
        if <size_t> columns.shape[0] != period or np.max(columns) >= 64:
            raise ValueError("classes of columns do not fit the symbols")
        c = &columns[0]
    with nogil:
        z4_survey_count(impl, &symbols[0], n, period, r, c, <uint32_t (*)[256]> &out[0, 0])
    return counts


def histogram(const uint8_t[::1] symbols):
    """Count symbols: 256 uint32."""
    cdef uint32_t[:, ::1] out
    cdef const z4_symbols_impl *impl = z4_symbols_pick(current_isa())
    counts = np.zeros((1, 256), np.uint32)
    out = counts
    if symbols.shape[0]:
        with nogil:
            z4_survey_count(impl, &symbols[0], <size_t> symbols.shape[0], 1, NULL, NULL,
                            <uint32_t (*)[256]> &out[0, 0])
    return counts[0]


def cost(const uint32_t[::1] counts):
    """Return the order-0 size of symbols so counted, in 1/256 bit, the same everywhere."""
    return z4_survey_cost(&counts[0], <size_t> counts.shape[0]) if counts.shape[0] else 0


def merge(const uint32_t[:, ::1] counts, unsigned shift, unsigned most):
    """Choose how many contexts to keep where classes are shifted and the highest ones are one.

    Returns
    -------
    cost, count : int
        Size of tables (as expected) and symbols in 1/256 bit, and the number of contexts.
    """
    cdef unsigned found = 0
    cdef uint64_t size
    if (counts.shape[1] != 256 or not 1 <= counts.shape[0] <= Z4_SURVEY_CLASSES or most < 1
            or shift > 7):
        raise ValueError("counts must have a row of 256 for each class")
    size = z4_survey_merge(<const uint32_t (*)[256]> &counts[0, 0],
                           <unsigned> counts.shape[0], shift, most, &found)
    return size, found


def apart(const uint32_t[:, ::1] counts, unsigned shift, unsigned count, unsigned width,
          bint complete):
    """Add up classes to contexts, and take the symbols out that are rare in theirs.

    A symbol is rare in a context where a frequency of 1/4096 would be more than its due.

    Parameters
    ----------
    counts : buffer of uint32, shape (any, 256)
        Of symbols by class.
    shift : int
        Of classes.
    count : int
        Contexts; the last one has all classes above.
    width : int
        Symbols that there are.
    complete : bool
        All is counted: what was not seen need not have a frequency.

    Returns
    -------
    kept : ndarray of uint32, shape (count, 256)
        What tables are made of.
    rare : ndarray of uint32, shape (256,), or None
        Of the symbols coded apart.
    escape : int
        The symbol that stands for them; 0 without.
    """
    cdef int escape
    cdef uint32_t[:, ::1] out
    cdef uint32_t[::1] rest
    if (counts.shape[1] != 256 or not 1 <= counts.shape[0] <= Z4_SURVEY_CLASSES or shift > 7
            or not 1 <= count <= 64 or not 2 <= width <= 256):
        raise ValueError("counts must have a row of 256 for each class")
    kept = np.empty((count, 256), np.uint32)
    rare = np.empty(256, np.uint32)
    out = kept
    rest = rare
    with nogil:
        escape = z4_survey_apart(<const uint32_t (*)[256]> &counts[0, 0],
                                 <unsigned> counts.shape[0], shift, count, width, complete,
                                 <uint32_t (*)[256]> &out[0, 0], &rest[0])
    return (kept, None, 0) if escape < 0 else (kept, rare, escape)
