# cython: freethreading_compatible=True
"""Symbols coded under tables that their contexts choose: the binding of ``c/z4_rans.h``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport UINT64_MAX, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

import numpy as np

from z4ai._fast import _dispatch

cdef extern from "z4_rans.h" nogil:
    enum:
        Z4_OK
        Z4_CORRUPT
        Z4_TRUNCATED
        Z4_CAPACITY
        Z4_RANS_TOTAL
        Z4_RANS_SYMBOLS
        Z4_RANS_CONTEXTS
        Z4_RANS_LANES
        Z4_RANS_COARSEST
        Z4_RANS_FINEST
        Z4_RANS_COUNT
    ctypedef struct z4_rans_impl:
        const char *name
    ctypedef struct z4_rans_codes:
        const uint32_t *codes
        const uint64_t *reciprocals
        unsigned count
    ctypedef struct z4_rans_decoder:
        pass
    ctypedef struct z4_rans_model:
        unsigned count
        unsigned precision
    const z4_rans_impl Z4_RANS[]
    const z4_rans_impl *z4_rans_pick(int isa) noexcept
    unsigned z4_rans_lanes(size_t n) noexcept
    size_t z4_rans_bound(size_t n) noexcept
    void z4_rans_normalise(const uint32_t *weights, uint16_t *freqs) noexcept
    uint64_t z4_rans_cost(const uint32_t *counts, const uint16_t *freqs) noexcept
    int z4_rans_table_build(const uint16_t *freqs, uint32_t *table) noexcept
    int z4_rans_codes_build(const uint16_t *freqs, uint32_t *codes,
                            uint64_t *reciprocals) noexcept
    ptrdiff_t z4_rans_encode(const z4_rans_impl *impl, const uint8_t *symbols,
                             const uint8_t *contexts, size_t n, const z4_rans_codes *codes,
                             uint8_t *dst, size_t capacity) noexcept
    int z4_rans_begin(z4_rans_decoder *d, const uint8_t *src, size_t nbytes, size_t n,
                      const uint32_t *tables, unsigned count) noexcept
    int z4_rans_next(const z4_rans_impl *impl, z4_rans_decoder *d, const uint8_t *contexts,
                     size_t m, uint8_t *dst) noexcept
    int z4_rans_end(const z4_rans_decoder *d) noexcept
    uint64_t z4_rans_model_make(const uint32_t (*counts)[256], unsigned count,
                                unsigned precision, z4_rans_model *m,
                                z4_rans_model *draft) noexcept
    size_t z4_rans_model_write(const z4_rans_model *m, uint8_t *dst, size_t capacity) noexcept
    int z4_rans_model_read(const uint8_t *src, size_t nbytes, z4_rans_model *m) noexcept
    void z4_rans_model_count(const uint32_t (*counts)[256], unsigned count, unsigned precision,
                             z4_rans_model *m) noexcept
    void z4_rans_model_freqs(const z4_rans_model *m, unsigned context, uint16_t *freqs) noexcept
    int z4_rans_rare(const uint32_t (*counts)[256], unsigned count, uint8_t *rare) noexcept
    size_t z4_rans_set_apart(uint8_t *symbols, size_t n, const uint8_t *rare, uint8_t escape,
                             uint8_t *rest) noexcept
    ptrdiff_t z4_rans_put_back(uint8_t *symbols, size_t n, uint8_t escape, const uint8_t *rest,
                               size_t n_rest) noexcept

CORRUPT = Z4_CORRUPT
TRUNCATED = Z4_TRUNCATED
CAPACITY = Z4_CAPACITY

TOTAL = Z4_RANS_TOTAL
MAX_CONTEXTS = Z4_RANS_CONTEXTS
MIN_PRECISION = Z4_RANS_COARSEST
MAX_PRECISION = Z4_RANS_FINEST

cdef dict _WORDS = {
    Z4_CORRUPT: "corrupt",
    Z4_TRUNCATED: "truncated",
    Z4_CAPACITY: "does not fit",
}


class ContextsError(ValueError):
    """A stream, or tables, that the coder does not accept.

    Attributes
    ----------
    status : int
        ``CORRUPT``, ``TRUNCATED`` or ``CAPACITY``.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"stream of symbols in contexts: {_WORDS.get(status, status)}")
        self.status = status


def variants() -> tuple:
    """Return the names of the variants that this machine can run, the slowest first."""
    runnable = _dispatch.runnable()
    names = [Z4_RANS[i].name.decode() for i in range(Z4_RANS_COUNT)]
    return tuple([name for name in names if name in runnable])


cdef const z4_rans_impl *_pick(object isa) except NULL:
    cdef int i
    if isa is None:
        return z4_rans_pick(_dispatch.isa_code(_dispatch.current()))
    if isa in variants():
        for i in range(Z4_RANS_COUNT):
            if Z4_RANS[i].name.decode() == isa:
                return &Z4_RANS[i]
    raise ValueError(f"no variant {isa!r}, expected one of {variants()}")


cdef unsigned _check_rows(Py_ssize_t rows, Py_ssize_t columns) except 0:
    if not 1 <= rows <= MAX_CONTEXTS or columns != Z4_RANS_SYMBOLS:
        raise ValueError(
            f"tables of shape ({rows}, {columns}), expected (1..{MAX_CONTEXTS}, 256)"
        )
    return <unsigned> rows


cdef const uint8_t *_check_contexts(
    const uint8_t[::1] contexts, Py_ssize_t n, unsigned count
) except? NULL:
    if contexts is None:
        if count > 1:
            raise ValueError(f"{count} tables, but no contexts to choose one")
        return NULL
    if contexts.shape[0] != n:
        raise ValueError(f"{contexts.shape[0]} contexts for {n} symbols")
    return &contexts[0] if n > 0 else NULL


def lanes(Py_ssize_t n) -> int:
    """Return how many states a stream of ``n`` symbols has."""
    if n < 0:
        raise ValueError("n must not be negative")
    return z4_rans_lanes(<size_t> n) if n > 0 else 0


def bound(Py_ssize_t n) -> int:
    """Return the room that suffices to encode ``n`` symbols, scribbling included."""
    if n < 0:
        raise ValueError("n must not be negative")
    return z4_rans_bound(<size_t> n)


def normalise(const uint32_t[::1] weights) -> np.ndarray:
    """Return frequencies that sum to ``TOTAL``, nearly proportional to 256 weights.

    Parameters
    ----------
    weights : contiguous array of 256 uint32
        Every symbol of a weight above 0 gets a frequency of 1 at least.

    Returns
    -------
    ndarray
        256 uint16, none above ``TOTAL - 1``.
    """
    cdef uint16_t[::1] out
    _check_rows(1, weights.shape[0])
    freqs = np.empty(Z4_RANS_SYMBOLS, np.uint16)
    out = freqs
    z4_rans_normalise(&weights[0], &out[0])
    return freqs


def cost(const uint32_t[::1] counts, const uint16_t[::1] freqs) -> int:
    """Return what symbols distributed like ``counts`` take under a table, in 1/256 bit.

    The states are not included. Integer arithmetic: the same on every machine.

    Raises
    ------
    ContextsError
        ``CORRUPT`` if a symbol occurs that has no frequency.
    """
    cdef uint64_t size
    _check_rows(1, counts.shape[0])
    _check_rows(1, freqs.shape[0])
    size = z4_rans_cost(&counts[0], &freqs[0])
    if size == UINT64_MAX:
        raise ContextsError(CORRUPT)
    return size


def write_tables(const uint32_t[:, ::1] counts, *, int precision=0) -> tuple:
    """Describe tables for symbols that have been counted by context.

    Parameters
    ----------
    counts : contiguous array of uint32
        A row of 256 for each context.
    precision : int
        log2 of the steps an octave of weights has, ``MIN_PRECISION`` to ``MAX_PRECISION``; 0
        takes the one that makes tables and symbols the smallest together.

    Returns
    -------
    tuple of bytes and int
        The tables as `read_tables` takes them; and the size of tables and symbols, in 1/256 bit,
        states excluded.
    """
    cdef unsigned count = _check_rows(counts.shape[0], counts.shape[1])
    cdef const uint32_t *first = &counts[0, 0]
    cdef z4_rans_model *models
    cdef uint64_t size
    cdef size_t nbytes
    # A level takes 20 bits at most.
    cdef size_t capacity = <size_t> count * 640 + 64
    cdef uint8_t *written
    if precision != 0 and not MIN_PRECISION <= precision <= MAX_PRECISION:
        raise ValueError(
            f"precision is {precision}, expected 0 or {MIN_PRECISION} to {MAX_PRECISION}"
        )
    models = <z4_rans_model *> malloc(2 * sizeof(z4_rans_model) + capacity)
    if models == NULL:
        raise MemoryError
    written = <uint8_t *> (models + 2)
    try:
        with nogil:
            size = z4_rans_model_make(<const uint32_t (*)[256]> first, count,
                                      <unsigned> precision, models, models + 1)
            nbytes = z4_rans_model_write(models, written, capacity)
        assert nbytes <= capacity
        return PyBytes_FromStringAndSize(<const char *> written, <Py_ssize_t> nbytes), size
    finally:
        free(models)


def make_tables(const uint32_t[:, ::1] counts, int precision) -> tuple:
    """Describe tables as `write_tables` does, and tell what `read_tables` would make of them.

    Returns
    -------
    tuple of bytes and ndarray
    """
    cdef unsigned count = _check_rows(counts.shape[0], counts.shape[1])
    cdef z4_rans_model *model
    cdef uint16_t[:, ::1] out
    cdef uint16_t *first
    cdef unsigned k
    cdef size_t nbytes
    cdef size_t capacity = <size_t> count * 640 + 64
    cdef uint8_t *written
    if not MIN_PRECISION <= precision <= MAX_PRECISION:
        raise ValueError(
            f"precision is {precision}, expected {MIN_PRECISION} to {MAX_PRECISION}"
        )
    table = np.empty((count, 256), np.uint16)
    out = table
    first = &out[0, 0]
    model = <z4_rans_model *> malloc(sizeof(z4_rans_model) + capacity)
    if model == NULL:
        raise MemoryError
    written = <uint8_t *> (model + 1)
    try:
        with nogil:
            z4_rans_model_count(<const uint32_t (*)[256]> &counts[0, 0], count,
                                <unsigned> precision, model)
            for k in range(count):
                z4_rans_model_freqs(model, k, first + Z4_RANS_SYMBOLS * k)
            nbytes = z4_rans_model_write(model, written, capacity)
        assert nbytes <= capacity
        return PyBytes_FromStringAndSize(<const char *> written, <Py_ssize_t> nbytes), table
    finally:
        free(model)


def read_tables(const uint8_t[::1] src) -> np.ndarray:
    """Return the tables that `write_tables` described.

    Parameters
    ----------
    src : contiguous buffer of bytes
        The description, and nothing else.

    Returns
    -------
    ndarray
        A row of 256 uint16 for each context; each row sums to ``TOTAL``.

    Raises
    ------
    ContextsError
        If `write_tables` would not have written this.
    """
    cdef size_t nbytes = <size_t> src.shape[0]
    cdef const uint8_t *p = &src[0] if nbytes > 0 else NULL
    cdef z4_rans_model *model = <z4_rans_model *> malloc(sizeof(z4_rans_model))
    cdef uint16_t[:, ::1] out
    cdef uint16_t *first
    cdef unsigned k
    cdef int status
    if model == NULL:
        raise MemoryError
    try:
        with nogil:
            status = z4_rans_model_read(p, nbytes, model)
        if status != Z4_OK:
            raise ContextsError(status)
        freqs = np.empty((model.count, Z4_RANS_SYMBOLS), np.uint16)
        out = freqs
        first = &out[0, 0]
        with nogil:
            for k in range(model.count):
                z4_rans_model_freqs(model, k, first + Z4_RANS_SYMBOLS * k)
        return freqs
    finally:
        free(model)


def rare_symbols(const uint32_t[:, ::1] counts) -> list:
    """Return the symbols rarer than 1/4096 over all contexts; none if there is only one.

    The lowest is the escape: see `set_apart`.
    """
    cdef unsigned count = _check_rows(counts.shape[0], counts.shape[1])
    cdef uint8_t rare[256]
    if z4_rans_rare(<const uint32_t (*)[256]> &counts[0, 0], count, rare) < 0:
        return []
    return [s for s in range(256) if rare[s]]


def set_apart(uint8_t[::1] symbols, rare) -> bytes:
    """Put the lowest of ``rare`` in the place of each of them, and return these in order.

    Parameters
    ----------
    symbols : contiguous writable buffer of bytes
    rare : sequence of int
        Two symbols at least, rising.
    """
    cdef uint8_t marks[256]
    cdef size_t n = <size_t> symbols.shape[0], k
    cdef uint8_t *p = &symbols[0] if n > 0 else NULL
    cdef uint8_t *rest
    cdef uint8_t escape
    for s in range(256):
        marks[s] = s in rare
    if len(rare) < 2:
        raise ValueError(f"{len(rare)} rare symbols, expected two at least")
    escape = min(rare)
    rest = <uint8_t *> malloc(n + 1)
    if rest == NULL:
        raise MemoryError
    try:
        with nogil:
            k = z4_rans_set_apart(p, n, marks, escape, rest)
        return PyBytes_FromStringAndSize(<char *> rest, <Py_ssize_t> k)
    finally:
        free(rest)


def put_back(uint8_t[::1] symbols, uint8_t escape, const uint8_t[::1] rest) -> int:
    """Undo `set_apart`: every escape becomes the next of ``rest``.

    Returns
    -------
    int
        How many of ``rest`` were taken.

    Raises
    ------
    ContextsError
        ``CORRUPT`` if there are more escapes.
    """
    cdef size_t n = <size_t> symbols.shape[0], n_rest = <size_t> rest.shape[0]
    cdef uint8_t *p = &symbols[0] if n > 0 else NULL
    cdef const uint8_t *r = &rest[0] if n_rest > 0 else NULL
    cdef ptrdiff_t taken
    with nogil:
        taken = z4_rans_put_back(p, n, escape, r, n_rest)
    if taken < 0:
        raise ContextsError(taken)
    return taken


def encode(
    const uint8_t[::1] symbols, const uint8_t[::1] contexts, const uint16_t[:, ::1] freqs, *,
    capacity=None, isa=None
) -> bytes:
    """Encode symbols, each under the table of its context.

    Parameters
    ----------
    symbols : contiguous buffer of bytes
    contexts : contiguous buffer of bytes, or None
        One a symbol. Of one table none are read, and None will do.
    freqs : contiguous array of uint16
        A row of 256 for each context, summing to ``TOTAL``, none equal to it.
    capacity : int, optional
        Room to encode in; by default as much as ever needed.
    isa : str, optional
        Variant to run, one of `variants()`; by default the fastest. All give the same bytes.

    Returns
    -------
    bytes
        The stream.

    Raises
    ------
    ContextsError
        ``CORRUPT``: a context without a table, a symbol without a frequency, or a table that is
        none. ``CAPACITY``: the room does not suffice.
    """
    cdef const z4_rans_impl *impl = _pick(isa)
    cdef unsigned count = _check_rows(freqs.shape[0], freqs.shape[1]), k
    cdef size_t n = <size_t> symbols.shape[0], room
    cdef const uint8_t *c = _check_contexts(contexts, symbols.shape[0], count)
    cdef const uint8_t *p = &symbols[0] if n > 0 else NULL
    cdef const uint16_t *first = &freqs[0, 0]
    cdef z4_rans_codes codes
    cdef uint32_t *values = NULL
    cdef uint64_t *reciprocals = NULL
    cdef uint8_t *dst = NULL
    cdef ptrdiff_t size = Z4_OK
    if capacity is None:
        capacity = bound(symbols.shape[0])
    room = <size_t> capacity
    try:
        dst = <uint8_t *> malloc(room if room > 0 else 1)
        values = <uint32_t *> malloc(count * 256 * sizeof(uint32_t))
        reciprocals = <uint64_t *> malloc(count * 256 * sizeof(uint64_t))
        if dst == NULL or values == NULL or reciprocals == NULL:
            raise MemoryError
        codes.codes = values
        codes.reciprocals = reciprocals
        codes.count = count
        with nogil:
            for k in range(count):
                if size == Z4_OK:
                    size = z4_rans_codes_build(first + 256 * k, values + 256 * k,
                                               reciprocals + 256 * k)
            if size == Z4_OK:
                size = z4_rans_encode(impl, p, c, n, &codes, dst, room)
        if size < 0:
            raise ContextsError(size)
        return PyBytes_FromStringAndSize(<char *> dst, size)
    finally:
        free(reciprocals)
        free(values)
        free(dst)


def decode(
    const uint8_t[::1] src, const uint8_t[::1] contexts, Py_ssize_t n,
    const uint16_t[:, ::1] freqs, *, Py_ssize_t tile=0, isa=None
) -> bytes:
    """Decode a stream of ``n`` symbols.

    Parameters
    ----------
    src : contiguous buffer of bytes
        The stream, and nothing else.
    contexts, freqs
        What the symbols were encoded with.
    n : int
    tile : int
        Decode so many symbols a call of the kernel, a multiple of 64; 0 is all at once.
    isa : str, optional
        Variant to run, one of `variants()`.

    Returns
    -------
    bytes
        The symbols.

    Raises
    ------
    ContextsError
        ``TRUNCATED`` if the stream ends before the last symbol; ``CORRUPT`` if it does not end
        with it, or if a context has no table.
    """
    cdef const z4_rans_impl *impl = _pick(isa)
    cdef unsigned count = _check_rows(freqs.shape[0], freqs.shape[1]), k
    cdef size_t nbytes = <size_t> src.shape[0], left, m, done = 0
    cdef const uint8_t *c
    cdef const uint8_t *p = &src[0] if nbytes > 0 else NULL
    cdef const uint16_t *first = &freqs[0, 0]
    cdef z4_rans_decoder *d = NULL
    cdef uint32_t *tables = NULL
    cdef uint8_t *dst
    cdef int status = Z4_OK
    cdef bytes out
    if n < 0:
        raise ValueError("n must not be negative")
    if tile < 0 or tile % Z4_RANS_LANES:
        raise ValueError(f"tile is {tile}, expected a multiple of {Z4_RANS_LANES}")
    c = _check_contexts(contexts, n, count)
    try:
        d = <z4_rans_decoder *> malloc(sizeof(z4_rans_decoder))
        tables = <uint32_t *> malloc(count * <size_t> Z4_RANS_TOTAL * sizeof(uint32_t))
        if d == NULL or tables == NULL:
            raise MemoryError
        out = PyBytes_FromStringAndSize(NULL, n)
        dst = <uint8_t *> PyBytes_AS_STRING(out)
        left = <size_t> n
        with nogil:
            for k in range(count):
                if status == Z4_OK:
                    status = z4_rans_table_build(first + 256 * k, tables + Z4_RANS_TOTAL * k)
            if status == Z4_OK:
                status = z4_rans_begin(d, p, nbytes, left, tables, count)
            while status == Z4_OK and left > 0:
                m = left if tile == 0 or <size_t> tile > left else <size_t> tile
                status = z4_rans_next(impl, d, c + done if count > 1 else NULL, m, dst + done)
                done += m
                left -= m
            if status == Z4_OK:
                status = z4_rans_end(d)
        if status != Z4_OK:
            raise ContextsError(status)
        return out
    finally:
        free(tables)
        free(d)
