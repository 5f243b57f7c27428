# cython: freethreading_compatible=True
"""What a model of differences is chosen by: levels of rows, and symbols counted by class.

Specification: docs/format/codecs/difference.md.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

import numpy as np

from z4ai._fast._dispatch cimport current_isa
from z4ai._fast import _dispatch

cdef extern from "z4_difference_survey.h" nogil:
    enum:
        Z4_DIFFERENCE_CLASSES
        Z4_DIFFERENCE_VARIANTS
    ctypedef struct z4_difference_impl:
        const char *name
    const z4_difference_impl *z4_difference_pick(int isa) noexcept
    const z4_difference_impl Z4_DIFFERENCE[]
    ctypedef struct z4_difference_way:
        int kind
        int floats
        unsigned top
        unsigned below
        unsigned octave
        size_t period
    void z4_difference_levels(const z4_difference_impl *impl, const z4_difference_way *way,
                              const uint8_t *content, const uint8_t *reference, size_t n,
                              uint16_t *levels, uint8_t *symbols, uint8_t *classes) noexcept
    void z4_difference_count(const z4_difference_impl *impl, const z4_difference_way *way,
                             const uint8_t *content, const uint8_t *reference, size_t n,
                             uint32_t (*counts)[256]) noexcept
    void z4_difference_count_rows(const uint8_t *symbols, const uint8_t *classes, size_t n,
                                  size_t period, const uint8_t *rows,
                                  uint32_t (*counts)[256]) noexcept
    size_t z4_difference_classes(const uint32_t (*counts)[256]) noexcept
    uint64_t z4_difference_count_bits(int kind, const uint32_t (*counts)[256],
                                      size_t classes) noexcept
    size_t z4_difference_split_all(const z4_difference_impl *impl, int kind, int floats,
                                   const uint8_t *content, const uint8_t *reference, size_t n,
                                   uint8_t *symbols, uint8_t *out) noexcept
    bint z4_difference_merge_all(const z4_difference_impl *impl, int kind, int floats,
                                 const uint8_t *symbols, const uint8_t *bits, size_t nbytes,
                                 const uint8_t *reference, size_t n, uint8_t *content) noexcept

# Rows of what `count` returns: sums of a class of the reference and a class of a row.
CLASSES = Z4_DIFFERENCE_CLASSES

cdef unsigned MOST_OCTAVE = 8


cdef const z4_difference_impl *_variant(object isa) except NULL:
    return z4_difference_pick(current_isa() if isa is None else _dispatch.isa_code(isa))


def variants():
    """Return the names of the variants that this build and processor can run."""
    names = (Z4_DIFFERENCE[i].name.decode() for i in range(Z4_DIFFERENCE_VARIANTS))
    return [name for name in names if name in _dispatch.runnable()]


def picked(isa=None):
    """Return the name of the variant that runs under `isa`, by default the current one."""
    return _variant(isa).name.decode()


cdef int _kind(size_t width) except -1:
    if width not in (1, 2, 4, 8):
        raise ValueError(f"no elements have {width} bytes")
    return (0, 1, 1, 2, 2, 2, 2, 3)[width - 1]


cdef size_t _elements(const uint8_t[::1] content, const uint8_t[::1] reference,
                      size_t width) except? 0:
    cdef size_t n = <size_t> content.shape[0] // width
    if n * width != <size_t> content.shape[0]:
        raise ValueError("content must hold whole elements")
    if reference.shape[0] < content.shape[0]:
        raise ValueError("the reference is shorter than the content")
    return n


cdef z4_difference_way _way(size_t width, bint floats, unsigned below, unsigned top) except *:
    cdef z4_difference_way way
    if top >> 16:
        raise ValueError(f"top is {top}, of 16 bits")
    way.kind = _kind(width)
    way.floats = floats
    way.top = top
    way.below = below
    way.octave = 0
    way.period = 0
    return way


def levels(const uint8_t[::1] content, const uint8_t[::1] reference, size_t width, bint floats,
           unsigned below, unsigned top, unsigned octave, size_t period, isa=None):
    """Measure by how much the elements of each row differ from the reference.

    Parameters
    ----------
    content, reference : buffer
        Whole elements; the reference is at least as long.
    width : int
        Bytes of an element.
    floats : bool
        They are floats.
    below, top : int
        Of classes of the reference.
    octave : int
        log2 of the classes of an octave, at most 8.
    period : int
        Elements of a row.
    isa : str, optional
        Run the variant of one instruction set: a door for tests.

    Returns
    -------
    levels : ndarray of uint16
        For each row (the last may be shorter) 0 if it does not differ, else the mean difference
        in the same steps as classes.
    symbols, classes : ndarray of uint8
        Of each element, and of its reference: what `count_rows` takes.
    """
    cdef z4_difference_way way = _way(width, floats, below, top)
    cdef size_t n = _elements(content, reference, width)
    cdef const z4_difference_impl *impl = _variant(isa)
    cdef uint16_t[::1] view
    cdef uint8_t[::1] y, c
    if period == 0 or octave > MOST_OCTAVE:
        raise ValueError("no rows, or too many steps of an octave")
    way.octave = octave
    way.period = period
    out = np.empty((n + period - 1) // period, np.uint16)
    symbols = np.empty(n, np.uint8)
    classes = np.empty(n, np.uint8)
    view = out
    y = symbols
    c = classes
    if n:
        with nogil:
            z4_difference_levels(impl, &way, &content[0], &reference[0], n, &view[0], &y[0], &c[0])
    return out, symbols, classes


def count(const uint8_t[::1] content, const uint8_t[::1] reference, size_t width, bint floats,
          unsigned below, unsigned top, isa=None):
    """Count symbols by the class of their reference.

    Parameters
    ----------
    content, reference : buffer
        Whole elements; the reference is at least as long.
    width : int
        Bytes of an element.
    floats : bool
        They are floats.
    below, top : int
        Of classes of the reference.
    isa : str, optional
        Run the variant of one instruction set: a door for tests.

    Returns
    -------
    ndarray of uint32, shape (classes, 256)
        Of as many classes as occur, at most CLASSES.
    """
    cdef z4_difference_way way = _way(width, floats, below, top)
    cdef size_t n = _elements(content, reference, width)
    cdef const z4_difference_impl *impl = _variant(isa)
    cdef uint32_t[:, ::1] view
    cdef size_t classes = 0
    counts = np.zeros((CLASSES, 256), np.uint32)
    view = counts
    if n:
        with nogil:
            z4_difference_count(impl, &way, &content[0], &reference[0], n,
                                <uint32_t (*)[256]> &view[0, 0])
            classes = z4_difference_classes(<const uint32_t (*)[256]> &view[0, 0])
    return counts[:classes]


def count_rows(const uint8_t[::1] symbols, const uint8_t[::1] classes, size_t period,
               const uint8_t[::1] rows):
    """Count symbols by the sum of their reference's class and their row's class.

    Parameters
    ----------
    symbols, classes : buffer
        From `levels`.
    period : int
        Elements of a row.
    rows : buffer
        The class of each row, below 128.

    Returns
    -------
    ndarray of uint32, shape (classes, 256)
        Of as many sums as occur, at most CLASSES.
    """
    cdef size_t n = <size_t> symbols.shape[0], found = 0
    cdef uint32_t[:, ::1] view
    if (period == 0 or classes.shape[0] != symbols.shape[0]
            or <size_t> rows.shape[0] != (n + period - 1) // period
            or (n and np.max(rows) >= 128)):
        raise ValueError("classes do not fit the symbols")
    counts = np.zeros((CLASSES, 256), np.uint32)
    view = counts
    if n:
        with nogil:
            z4_difference_count_rows(&symbols[0], &classes[0], n, period, &rows[0],
                                     <uint32_t (*)[256]> &view[0, 0])
            found = z4_difference_classes(<const uint32_t (*)[256]> &view[0, 0])
    return counts[:found]


def count_bits(const uint32_t[:, ::1] counts, size_t width):
    """Return how many bits apart symbols so counted have: a door for tests."""
    if counts.shape[1] != 256 or counts.shape[0] == 0:
        raise ValueError("counts must have a row of 256 for each class")
    return z4_difference_count_bits(_kind(width), <const uint32_t (*)[256]> &counts[0, 0],
                                    <size_t> counts.shape[0])


def xor(const uint8_t[::1] a, const uint8_t[::1] b, uint8_t[::1] out):
    """Write the exclusive-or of two buffers of one size to a third, which may be one of them."""
    cdef size_t i, n = <size_t> a.shape[0]
    cdef const uint8_t *x
    cdef const uint8_t *y
    cdef uint8_t *z
    if b.shape[0] != a.shape[0] or out.shape[0] != a.shape[0]:
        raise ValueError("the buffers differ in size")
    if n == 0:
        return
    x = &a[0]
    y = &b[0]
    z = &out[0]
    with nogil:
        for i in range(n):
            z[i] = x[i] ^ y[i]


def split(const uint8_t[::1] content, const uint8_t[::1] reference, size_t width, bint floats,
          isa=None):
    """Return the symbols and the bits apart of a content: a door for tests."""
    cdef int kind = _kind(width)
    cdef size_t n = _elements(content, reference, width), nbytes = 0
    cdef const z4_difference_impl *impl = _variant(isa)
    cdef uint8_t[::1] y, x
    symbols = np.empty(n, np.uint8)
    bits = np.empty(n * width + 8, np.uint8)
    y = symbols
    x = bits
    if n:
        with nogil:
            nbytes = z4_difference_split_all(impl, kind, floats, &content[0], &reference[0], n,
                                             &y[0], &x[0])
    return symbols, bits[:nbytes].copy()


def merge_back(const uint8_t[::1] symbols, const uint8_t[::1] bits, const uint8_t[::1] reference,
               size_t width, bint floats, isa=None):
    """Undo `split`; None where the bits are not as many as the symbols need."""
    cdef int kind = _kind(width)
    cdef size_t n = <size_t> symbols.shape[0]
    cdef const z4_difference_impl *impl = _variant(isa)
    cdef uint8_t[::1] view
    cdef bint whole
    if <size_t> reference.shape[0] < n * width:
        raise ValueError("the reference is shorter than the content")
    content = np.empty(n * width, np.uint8)
    view = content
    if n == 0:
        return content if bits.shape[0] == 0 else None
    with nogil:
        whole = z4_difference_merge_all(
            impl, kind, floats, &symbols[0], &bits[0] if bits.shape[0] else NULL,
            <size_t> bits.shape[0], &reference[0], n, &view[0])
    return content if whole else None
