# cython: language_level=3
# cython: freethreading_compatible=True
"""Take chunks of one frequent value, and of small steps, apart and put them together again.

Formats: docs/format/codecs/zeros.md and docs/format/codecs/steps.md.
"""

from __future__ import annotations

import numpy as np

from libc.stdint cimport uint8_t, uint64_t

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

cdef extern from "z4_sparse.h":
    enum:
        Z4_SPARSE_VARIANTS
    ctypedef size_t (*z4_compact_fn)(
        const uint8_t *src, size_t n, uint64_t fill, uint8_t *bitmap, uint8_t *dense
    ) noexcept nogil
    ctypedef void (*z4_expand_fn)(
        const uint8_t *bitmap, size_t n, const uint8_t *dense, size_t n_dense, uint64_t fill,
        uint8_t *dst
    ) noexcept nogil
    ctypedef struct z4_sparse_impl:
        const char *name
        int isa
        z4_compact_fn *compact
        z4_expand_fn *expand
    const z4_sparse_impl *Z4_SPARSE
    const z4_sparse_impl *z4_sparse_pick(int isa) noexcept nogil
    ptrdiff_t z4_sparse_count(const uint8_t *bitmap, size_t n) noexcept nogil
    unsigned z4_sparse_probe(
        const uint8_t *src, size_t n, unsigned w, uint64_t *fill, unsigned *n_sampled
    ) noexcept nogil

cdef extern from "z4_steps.h":
    enum:
        Z4_STEPS_MAX_LOW
    ctypedef struct z4_steps_rule:
        uint64_t base
        uint64_t start
        unsigned n_low
        int differences
    size_t z4_steps_split(
        const uint8_t *src, size_t n, unsigned w, const z4_steps_rule *rule, uint8_t *symbols,
        uint8_t **low, uint8_t *exceptions
    ) noexcept nogil
    int z4_steps_join(
        const uint8_t *symbols, size_t n, unsigned w, const z4_steps_rule *rule,
        const uint8_t **low, const uint8_t *exceptions, size_t n_exceptions, uint8_t *dst
    ) noexcept nogil
    size_t z4_steps_count(const uint8_t *symbols, size_t n) noexcept nogil

cdef extern from "z4_entropy.h":
    uint64_t z4_entropy(const ptrdiff_t *counts, size_t n) noexcept nogil

MAX_LOW = int(Z4_STEPS_MAX_LOW)

_WIDTHS = (1, 2, 4, 8)
# Where a pointer must be and nothing is read.
cdef uint8_t _NOWHERE[1]


def variants() -> tuple[str, ...]:
    """Return the names of the compiled variants that this machine can run, worst first."""
    names = [Z4_SPARSE[k].name.decode() for k in range(Z4_SPARSE_VARIANTS)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_sparse_impl *_pick(object isa) except NULL:
    return z4_sparse_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


def picked(isa: str | None = None) -> str:
    """Return the name of the variant that an instruction set gets."""
    return _pick(isa).name.decode()


cdef Py_ssize_t _elements(const uint8_t[::1] content, object width, object widths) except -1:
    """Return the number of elements of content."""
    if width not in widths:
        raise ValueError(f"width must be one of {', '.join(map(str, widths))}, not {width}")
    cdef Py_ssize_t w = width
    if content.shape[0] % w:
        raise ValueError(f"{content.shape[0]} bytes are no whole number of {w}-byte elements")
    return content.shape[0] // w


cdef const uint8_t *_first(const uint8_t[::1] view) noexcept:
    return &view[0] if view.shape[0] else _NOWHERE


cdef uint64_t _word(object value, object width, object what) except? 0:
    if not 0 <= value < 1 << 8 * width:
        raise ValueError(f"{what} {value} is no word of {width} bytes")
    return value


def entropy(const ptrdiff_t[::1] counts) -> int:
    """Return what symbols of these counts take by an ideal coder of order 0.

    Parameters
    ----------
    counts : ndarray of intp
        How often each symbol is there, in a sample; a sum below 2**40.

    Returns
    -------
    int
        In 1/65536 bit, the same on every machine, with what a sample hides of it.
    """
    cdef size_t n = counts.shape[0]
    cdef uint64_t bits
    for k in range(counts.shape[0]):
        if not 0 <= counts[k] < 1 << 40:
            raise ValueError(f"count {counts[k]} is out of range")
    if n == 0:
        return 0
    cdef const ptrdiff_t *first = &counts[0]
    with nogil:
        bits = z4_entropy(first, n)
    return bits


def probe(const uint8_t[::1] content, width: int) -> tuple[int, int, int]:
    """Find the most frequent element of a small sample.

    Parameters
    ----------
    content : ndarray of uint8
        Elements.
    width : int
        Bytes of an element: 1, 2, 4 or 8.

    Returns
    -------
    tuple of int
        The element as a word, how often it was seen, among how many.
    """
    cdef size_t n = _elements(content, width, _WIDTHS)
    cdef unsigned w = width, seen, n_sampled
    cdef uint64_t fill
    cdef const uint8_t *first = _first(content)
    with nogil:
        seen = z4_sparse_probe(first, n, w, &fill, &n_sampled)
    return fill, seen, n_sampled


def compact(
    const uint8_t[::1] content, width: int, fill: int, *, isa: str | None = None
) -> tuple[object, object]:
    """Take out the elements that are the fill.

    Parameters
    ----------
    content : ndarray of uint8
        Elements.
    width : int
        Bytes of an element: 1, 2, 4 or 8.
    fill : int
        The element to leave out, as a word.
    isa : str, optional
        Run the variant of this instruction set (for tests).

    Returns
    -------
    tuple of ndarray of uint8
        Bitmap of the others, and the others.
    """
    cdef const z4_sparse_impl *impl = _pick(isa)
    cdef size_t n = _elements(content, width, _WIDTHS), count
    cdef uint64_t word = _word(fill, width, "fill")
    cdef int log_width = _WIDTHS.index(width)
    bitmap = np.empty((n + 7) // 8, np.uint8)
    dense = np.empty(content.shape[0], np.uint8)
    if n == 0:
        return bitmap, dense
    cdef uint8_t[::1] bitmap_view = bitmap
    cdef uint8_t[::1] dense_view = dense
    cdef const uint8_t *first = &content[0]
    cdef uint8_t *bits = &bitmap_view[0]
    cdef uint8_t *others = &dense_view[0]
    with nogil:
        count = impl.compact[log_width](first, n, word, bits, others)
    return bitmap, dense[: count << log_width]


def count_ones(const uint8_t[::1] bitmap, n: int) -> int:
    """Count the ones of a bitmap of n bits.

    Returns
    -------
    int
        -1 if a bit behind the n is set.
    """
    cdef size_t n_bits = n
    cdef ptrdiff_t ones
    if bitmap.shape[0] != (n + 7) // 8:
        raise ValueError(f"bitmap has {bitmap.shape[0]} bytes, expected {(n + 7) // 8}")
    cdef const uint8_t *bits = _first(bitmap)
    with nogil:
        ones = z4_sparse_count(bits, n_bits)
    return ones if ones >= 0 else -1


def expand(
    const uint8_t[::1] bitmap,
    const uint8_t[::1] dense,
    width: int,
    fill: int,
    uint8_t[::1] out,
    *,
    isa: str | None = None,
) -> None:
    """Put the fill back between the other elements: the inverse of `compact`.

    Raises
    ------
    ValueError
        If bitmap and dense are not of a size for out, or do not fit each other.
    """
    cdef const z4_sparse_impl *impl = _pick(isa)
    cdef size_t n = _elements(out, width, _WIDTHS)
    cdef size_t n_dense = _elements(dense, width, _WIDTHS)
    cdef uint64_t word = _word(fill, width, "fill")
    cdef int log_width = _WIDTHS.index(width)
    ones = count_ones(bitmap, n)
    if ones != n_dense:
        raise ValueError(f"bitmap has {ones} ones, expected {n_dense} for what is dense")
    if n == 0:
        return
    cdef const uint8_t *bits = &bitmap[0]
    cdef const uint8_t *others = _first(dense)
    cdef uint8_t *first = &out[0]
    with nogil:
        impl.expand[log_width](bits, n, others, n_dense, word, first)


cdef z4_steps_rule _rule(
    object width, object base, object start, object n_low
) except *:
    cdef z4_steps_rule rule
    if not 0 <= n_low < width or n_low > Z4_STEPS_MAX_LOW:
        raise ValueError(f"{n_low} low bytes of elements of {width}")
    rule.base = _word(base, width, "base")
    rule.start = 0 if start is None else _word(start, width, "start")
    rule.n_low = n_low
    rule.differences = start is not None
    return rule


def split_steps(
    const uint8_t[::1] content, width: int, base: int, start: int | None, n_low: int
) -> tuple[object, object, list[object]]:
    """Tell each integer by a small number.

    Parameters
    ----------
    content : ndarray of uint8
        Elements.
    width : int
        Bytes of an element: 2, 4 or 8.
    base : int
        Subtracted from every number, as a word.
    start : int or None
        What stands before the first element, for steps; None for distances from `base`.
    n_low : int
        Low bytes of a number that stand apart from its symbol.

    Returns
    -------
    tuple
        Symbols, exceptions, and a list of low bytes, most significant first: arrays of uint8.
    """
    cdef size_t n = _elements(content, width, _WIDTHS[1:]), count
    cdef z4_steps_rule rule = _rule(width, base, start, n_low)
    cdef unsigned w = width
    cdef uint8_t *low[8]
    cdef uint8_t[::1] view
    symbols = np.empty(n, np.uint8)
    exceptions = np.empty(content.shape[0], np.uint8)
    lows = [np.empty(n, np.uint8) for _ in range(n_low)]
    if n == 0:
        return symbols, exceptions, lows
    for k in range(n_low):
        view = lows[k]
        low[k] = &view[0]
    cdef uint8_t[::1] symbol_view = symbols
    cdef uint8_t[::1] exception_view = exceptions
    cdef const uint8_t *first = &content[0]
    cdef uint8_t *symbol = &symbol_view[0]
    cdef uint8_t *exception = &exception_view[0]
    with nogil:
        count = z4_steps_split(first, n, w, &rule, symbol, low, exception)
    return symbols, exceptions[: count * w], lows


def count_escapes(const uint8_t[::1] symbols) -> int:
    """Count the symbols that stand for an exception."""
    cdef size_t n = symbols.shape[0], count
    cdef const uint8_t *first = _first(symbols)
    with nogil:
        count = z4_steps_count(first, n)
    return count


def join_steps(
    const uint8_t[::1] symbols,
    const uint8_t[::1] exceptions,
    lows: object,
    width: int,
    base: int,
    start: int | None,
    uint8_t[::1] out,
) -> None:
    """Restore integers: the inverse of `split_steps`.

    Raises
    ------
    ValueError
        If a part is not of a size for out, or the symbols ask for more exceptions or fewer.
    """
    cdef size_t n = _elements(out, width, _WIDTHS[1:])
    cdef size_t n_exceptions = _elements(exceptions, width, _WIDTHS[1:])
    cdef z4_steps_rule rule = _rule(width, base, start, len(lows))
    cdef unsigned w = width
    cdef const uint8_t *low[8]
    cdef const uint8_t[::1] view
    cdef int status
    if symbols.shape[0] != <Py_ssize_t> n:
        raise ValueError(f"{symbols.shape[0]} symbols, expected {n}")
    for k in range(len(lows)):
        view = lows[k]
        if view.shape[0] != <Py_ssize_t> n:
            raise ValueError(f"low bytes {k} are {view.shape[0]}, expected {n}")
        low[k] = _first(view)
    if n == 0 and n_exceptions == 0:
        return
    cdef const uint8_t *symbol = _first(symbols)
    cdef const uint8_t *exception = _first(exceptions)
    cdef uint8_t *first = <uint8_t *> _first(out)
    with nogil:
        status = z4_steps_join(symbol, n, w, &rule, low, exception, n_exceptions, first)
    if status:
        raise ValueError(f"symbols do not ask for {n_exceptions} exceptions")
