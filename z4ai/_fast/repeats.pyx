# cython: language_level=3
# cython: freethreading_compatible=True
"""Long repeats in a buffer (docs/format/copies.md): the binding of ``c/z4_repeats.h``."""

from __future__ import annotations

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

import numpy as np

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

cdef extern from "z4_repeats.h" nogil:
    enum:
        Z4_COPIES_FINE
        Z4_COPIES_COUNT
        Z4_COPIES_VARINT
        Z4_COPIES_TRAILING
        Z4_COPIES_SHORT
        Z4_COPIES_ORDER
        Z4_COPIES_END
        Z4_COPIES_SOURCE
        Z4_COPIES_COPIED
        Z4_COPIES_DEFECTS
        Z4_TABLE_WAYS
        Z4_REPEATS_COUNT
    const size_t Z4_COPY_MIN_NBYTES
    const size_t Z4_COPY_MAX_COUNT
    const size_t Z4_WHOLE_NBYTES
    const uint64_t Z4_REPEATS_MAX_NBYTES
    ctypedef struct z4_copy:
        uint64_t dst
        uint64_t src
        uint64_t nbytes
    ctypedef struct z4_search:
        const uint8_t *content
        size_t n
        uint64_t *table
        unsigned bits
        size_t width
        size_t min_nbytes
        z4_copy *copies
        size_t count
        size_t capacity
        size_t literal
        size_t spent
    ctypedef struct z4_repeats_impl:
        const char *name
        int (*probe)(z4_search *) noexcept nogil
        void (*search)(z4_search *) noexcept nogil
    const z4_repeats_impl *Z4_REPEATS
    const z4_repeats_impl *z4_repeats_pick(int isa) noexcept
    unsigned z4_probe_bits(uint64_t n) noexcept
    unsigned z4_search_bits(uint64_t n) noexcept
    int z4_copies_check(
        const z4_copy *copies, size_t k, uint64_t content_nbytes, size_t *bad) noexcept
    uint64_t z4_copies_dense(const z4_copy *copies, size_t k, uint64_t content_nbytes) noexcept
    void z4_copies_take_out(
        const uint8_t *content, uint64_t content_nbytes, const z4_copy *copies, size_t k,
        uint8_t *out) noexcept
    void z4_copies_expand(
        uint8_t *out, uint64_t content_nbytes, const z4_copy *copies, size_t k) noexcept
    size_t Z4_COPIES_RECORD_BOUND(size_t k) noexcept
    size_t z4_copies_write(const z4_copy *copies, size_t k, uint8_t *dst) noexcept
    size_t z4_copies_count(const uint8_t *src, size_t nbytes) noexcept
    int z4_copies_read(
        const uint8_t *src, size_t nbytes, uint64_t content_nbytes, z4_copy *copies,
        size_t *bad) noexcept

MIN_NBYTES = Z4_COPY_MIN_NBYTES
MAX_COUNT = Z4_COPY_MAX_COUNT
WHOLE_NBYTES = Z4_WHOLE_NBYTES

cdef size_t _MAX_WIDTH = 1 << 30

cdef dict _WORDS = {
    Z4_COPIES_COUNT: f"not 1 to {Z4_COPY_MAX_COUNT} copies",
    Z4_COPIES_VARINT: "a number that is cut off, too large or not in its shortest form",
    Z4_COPIES_TRAILING: "bytes behind the last copy",
    Z4_COPIES_SHORT: f"less than {Z4_COPY_MIN_NBYTES} bytes",
    Z4_COPIES_ORDER: "begins before the end of the one before it",
    Z4_COPIES_END: "ends behind the content",
    Z4_COPIES_SOURCE: "its source does not lie before it",
    Z4_COPIES_COPIED: "its source touches a copied range",
}
assert len(_WORDS) == Z4_COPIES_DEFECTS - 1


class CopiesError(ValueError):
    """A list of copies, or a record of one, that breaks a rule.

    Attributes
    ----------
    copy : int
        Number of the copy.
    rule : str
        What is wrong with it.
    """

    def __init__(self, rule: str, copy: int) -> None:
        super().__init__(f"copy {copy}: {rule}")
        self.rule = rule
        self.copy = copy


def variants() -> tuple[str, ...]:
    """Return the names of the variants that this machine can run, the slowest first."""
    names = [Z4_REPEATS[k].name.decode() for k in range(Z4_REPEATS_COUNT)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_repeats_impl *_pick(object isa) except NULL:
    return z4_repeats_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


cdef const z4_copy *_copies(const uint64_t[:, ::1] copies) except? NULL:
    if copies.shape[1] != 3:
        raise ValueError(f"copies of shape (k, {copies.shape[1]}), expected (k, 3)")
    return <const z4_copy *> &copies[0, 0] if copies.shape[0] > 0 else NULL


cdef int _check(const z4_copy *copies, size_t k, uint64_t content_nbytes) except -1:
    cdef size_t bad = 0
    cdef int defect
    with nogil:
        defect = z4_copies_check(copies, k, content_nbytes, &bad)
    if defect != Z4_COPIES_FINE:
        raise CopiesError(_WORDS[defect], bad)
    return 0


cdef int _worth(const z4_repeats_impl *impl, z4_search *s) except -1:
    cdef unsigned bits = z4_probe_bits(s.n)
    cdef int found
    s.bits = bits
    s.table = <uint64_t *> calloc(<size_t> Z4_TABLE_WAYS << bits, sizeof(uint64_t))
    if s.table == NULL:
        raise MemoryError
    with nogil:
        found = impl.probe(s)
        free(s.table)
    s.table = NULL
    s.spent = 0
    return found


cdef int _begin(
    z4_search *s, const uint8_t[::1] content, size_t width, size_t min_nbytes
) except -1:
    if not 1 <= width <= _MAX_WIDTH:
        raise ValueError(f"width is {width}, expected 1 to {_MAX_WIDTH}")
    if min_nbytes < Z4_COPY_MIN_NBYTES:
        raise ValueError(f"min_nbytes is {min_nbytes}, expected {Z4_COPY_MIN_NBYTES} at least")
    s.n = <size_t> content.shape[0]
    s.content = &content[0] if s.n > 0 else NULL
    s.table = NULL
    s.width = width
    s.min_nbytes = min_nbytes
    s.copies = NULL
    s.count = s.capacity = s.literal = s.spent = 0
    return 0


def probe(const uint8_t[::1] content, *, size_t min_nbytes=1024, isa=None) -> bool:
    """Return whether a glance at a sixteenth of the content meets a repeat.

    Parameters
    ----------
    content : contiguous buffer of bytes
    min_nbytes : int
        Ignore what is shorter.
    isa : str, optional
        Variant to run, one of `variants()`; all give the same answer.

    Returns
    -------
    bool
        Always false below ``WHOLE_NBYTES``, where `find` does not ask.
    """
    cdef const z4_repeats_impl *impl = _pick(isa)
    cdef z4_search s
    _begin(&s, content, 1, min_nbytes)
    if s.n < Z4_WHOLE_NBYTES or <uint64_t> s.n >= Z4_REPEATS_MAX_NBYTES:
        return False
    return _worth(impl, &s) != 0


def find(
    const uint8_t[::1] content, *, size_t width=1, size_t min_nbytes=1024, bint thorough=False,
    isa=None
) -> np.ndarray:
    """Find ranges of a content that occurred before.

    A sixteenth of it is looked at first, and the rest only if that meets a repeat.

    Parameters
    ----------
    content : contiguous buffer of bytes
        Must not be changed by others meanwhile.
    width : int
        Bytes of an element, or of a row: copies begin at a multiple of it and are a multiple of it
        long, so that what lies between them stays whole and in step.
    min_nbytes : int
        The shortest copy, ``MIN_NBYTES`` at least. What is shorter than the default saves little
        more than it costs.
    thorough : bool
        Do not ask `probe` first, whatever the size.
    isa : str, optional
        Variant to run, one of `variants()`; all find the same.

    Returns
    -------
    ndarray
        A row of (dst, src, nbytes) for each copy, uint64; a legal list, no row if there is none.
    """
    cdef const z4_repeats_impl *impl = _pick(isa)
    cdef uint64_t[:, ::1] rows
    cdef z4_search s
    _begin(&s, content, width, min_nbytes)
    if s.n < 2 * min_nbytes or <uint64_t> s.n >= Z4_REPEATS_MAX_NBYTES:
        return np.empty((0, 3), np.uint64)
    if not thorough and s.n >= Z4_WHOLE_NBYTES and _worth(impl, &s) == 0:
        return np.empty((0, 3), np.uint64)
    s.bits = z4_search_bits(s.n)
    s.capacity = min(s.n // min_nbytes, Z4_COPY_MAX_COUNT)
    try:
        s.table = <uint64_t *> calloc(<size_t> Z4_TABLE_WAYS << s.bits, sizeof(uint64_t))
        # Room for the most there can be; the system gives what is written to.
        s.copies = <z4_copy *> malloc(s.capacity * sizeof(z4_copy))
        if s.table == NULL or s.copies == NULL:
            raise MemoryError
        with nogil:
            impl.search(&s)
        copies = np.empty((s.count, 3), np.uint64)
        if s.count > 0:
            rows = copies
            memcpy(&rows[0, 0], s.copies, s.count * sizeof(z4_copy))
        return copies
    finally:
        free(s.table)
        free(s.copies)


def dense_nbytes(const uint64_t[:, ::1] copies, uint64_t content_nbytes) -> int:
    """Return the size of the content without its copied ranges.

    Raises
    ------
    CopiesError
        If the list breaks a rule.
    """
    cdef const z4_copy *c = _copies(copies)
    _check(c, <size_t> copies.shape[0], content_nbytes)
    return z4_copies_dense(c, <size_t> copies.shape[0], content_nbytes)


def dense(const uint8_t[::1] content, const uint64_t[:, ::1] copies, uint8_t[::1] out) -> None:
    """Put the literal ranges of a content together.

    Parameters
    ----------
    content : contiguous buffer of bytes
    copies : contiguous array of (k, 3) uint64
    out : contiguous writable buffer of bytes
        Exactly as large as the dense content; apart from the content.

    Raises
    ------
    CopiesError
        If the list breaks a rule.
    """
    cdef const z4_copy *c = _copies(copies)
    cdef size_t k = <size_t> copies.shape[0], n = <size_t> content.shape[0]
    cdef const uint8_t *p
    cdef uint8_t *q
    cdef uint64_t expected
    _check(c, k, n)
    expected = z4_copies_dense(c, k, n)
    if <uint64_t> out.shape[0] != expected:
        raise ValueError(f"out has {out.shape[0]} bytes, expected {expected}")
    if expected == 0:
        return
    p = &content[0]
    q = &out[0]
    with nogil:
        z4_copies_take_out(p, n, c, k, q)


def expand(uint8_t[::1] out, const uint64_t[:, ::1] copies, uint64_t dense_nbytes) -> None:
    """Restore a content in place.

    Parameters
    ----------
    out : contiguous writable buffer of bytes
        As large as the content; its first ``dense_nbytes`` are the dense content.
    copies : contiguous array of (k, 3) uint64
    dense_nbytes : int
        Must be what the list leaves of the content.

    Raises
    ------
    CopiesError
        If the list breaks a rule.
    """
    cdef const z4_copy *c = _copies(copies)
    cdef size_t k = <size_t> copies.shape[0], n = <size_t> out.shape[0]
    cdef uint8_t *q
    cdef uint64_t expected
    _check(c, k, n)
    expected = z4_copies_dense(c, k, n)
    if dense_nbytes != expected:
        raise ValueError(f"dense content of {dense_nbytes} bytes, expected {expected}")
    if k == 0:
        return
    q = &out[0]
    with nogil:
        z4_copies_expand(q, n, c, k)


def write_record(const uint64_t[:, ::1] copies, uint64_t content_nbytes) -> bytes:
    """Return the record of a list of one copy or more.

    Raises
    ------
    CopiesError
        If the list breaks a rule.
    """
    cdef const z4_copy *c = _copies(copies)
    cdef size_t k = <size_t> copies.shape[0], nbytes
    cdef uint8_t *record
    if k == 0 or content_nbytes >> 63:
        raise CopiesError(_WORDS[Z4_COPIES_COUNT if k == 0 else Z4_COPIES_END], 0)
    _check(c, k, content_nbytes)
    record = <uint8_t *> malloc(Z4_COPIES_RECORD_BOUND(k))
    if record == NULL:
        raise MemoryError
    try:
        with nogil:
            nbytes = z4_copies_write(c, k, record)
        return PyBytes_FromStringAndSize(<char *> record, <Py_ssize_t> nbytes)
    finally:
        free(record)


def read_record(const uint8_t[::1] record, uint64_t content_nbytes) -> np.ndarray:
    """Return the list of copies of a record.

    Raises
    ------
    CopiesError
        If record or list break a rule.
    """
    cdef size_t nbytes = <size_t> record.shape[0], bad = 0, k
    cdef const uint8_t *p = &record[0] if nbytes > 0 else NULL
    cdef z4_copy none
    cdef z4_copy *c = &none
    cdef uint64_t[:, ::1] rows
    cdef int defect
    k = z4_copies_count(p, nbytes)
    copies = np.empty((k, 3), np.uint64)
    if k > 0:
        rows = copies
        c = <z4_copy *> &rows[0, 0]
    with nogil:
        defect = z4_copies_read(p, nbytes, content_nbytes, c, &bad)
    if defect != Z4_COPIES_FINE:
        raise CopiesError(_WORDS[defect], bad)
    return copies
