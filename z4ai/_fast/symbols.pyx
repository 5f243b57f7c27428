# cython: language_level=3
# cython: freethreading_compatible=True
"""Private doors to the symbol kernels of ``c/z4_symbols.h`` (docs/format/codecs/symbols.md)."""

from __future__ import annotations

import numpy as np

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

ctypedef uint32_t[256] z4_row

cdef extern from "z4_symbols.h" nogil:
    enum:
        Z4_SYMBOLS1
        Z4_SYMBOLS2
        Z4_SYMBOLS2H
        Z4_SYMBOLS4
        Z4_SYMBOLS8
        Z4_SYMBOLS_COUNT
        Z4_SYMBOLS_VARIANTS
    ctypedef void (*z4_symbols_split_fn)(
        const uint8_t *src, size_t n, unsigned base, uint8_t *symbols, uint8_t *rest,
        uint8_t **low) noexcept nogil
    ctypedef void (*z4_symbols_merge_fn)(
        const uint8_t *symbols, const uint8_t *rest, const uint8_t **low, size_t n, unsigned base,
        uint8_t *dst) noexcept nogil
    ctypedef void (*z4_symbols_pack_fn)(
        const uint8_t *src, size_t n, uint8_t *dst) noexcept nogil
    ctypedef void (*z4_symbols_contexts_fn)(
        unsigned row, const uint8_t *columns, size_t n, unsigned shift, unsigned most,
        uint8_t *contexts) noexcept nogil
    ctypedef void (*z4_symbols_count_fn)(
        const uint8_t *symbols, const uint8_t *contexts, size_t n, z4_row *counts) noexcept nogil
    ctypedef uint64_t (*z4_symbols_weigh_fn)(
        const uint8_t *symbols, size_t n, unsigned floor, uint32_t *sums) noexcept nogil
    enum:
        Z4_RARES_TILE
    ctypedef struct z4_rares:
        pass
    void z4_rares_prepare(z4_rares *r, unsigned context, const uint16_t *freqs,
                          uint8_t escape) noexcept
    ctypedef size_t (*z4_rares_find_fn)(
        const uint8_t *symbols, const uint8_t *contexts, size_t n, const z4_rares *rares,
        uint16_t *places) noexcept nogil
    ctypedef struct z4_symbols_impl:
        const char *name
        z4_symbols_split_fn *split
        z4_symbols_merge_fn *merge
        z4_symbols_merge_fn *merge_packed
        z4_symbols_pack_fn *pack
        z4_symbols_pack_fn *unpack
        z4_symbols_contexts_fn contexts
        z4_symbols_count_fn count
        z4_symbols_weigh_fn weigh
        z4_rares_find_fn find_rares
    const z4_symbols_impl Z4_SYMBOLS[]
    const z4_symbols_impl *z4_symbols_pick(int isa) noexcept
    unsigned z4_symbols_width(int kind) noexcept
    unsigned z4_symbols_rest_bits(int kind) noexcept
    unsigned z4_symbols_field_bits(int kind) noexcept
    size_t z4_symbols_packed_nbytes(int kind, size_t n) noexcept
    unsigned z4_symbols_field(int kind, const uint8_t *element) noexcept
    void z4_symbols_patch(int kind, unsigned field, uint8_t *element) noexcept

SYMBOLS1 = int(Z4_SYMBOLS1)
SYMBOLS2 = int(Z4_SYMBOLS2)
SYMBOLS2H = int(Z4_SYMBOLS2H)
SYMBOLS4 = int(Z4_SYMBOLS4)
SYMBOLS8 = int(Z4_SYMBOLS8)

KINDS = (SYMBOLS1, SYMBOLS2, SYMBOLS2H, SYMBOLS4, SYMBOLS8)

MAX_CONTEXTS = 64
RARES_TILE = int(Z4_RARES_TILE)


def variants() -> tuple[str, ...]:
    """Return the names of the compiled variants that this machine can run, worst first."""
    names = [Z4_SYMBOLS[k].name.decode() for k in range(Z4_SYMBOLS_VARIANTS)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_symbols_impl *_pick(object isa) except NULL:
    return z4_symbols_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


def picked(isa: str | None = None) -> str:
    """Return the name of the variant that an instruction set gets."""
    return _pick(isa).name.decode()


cdef int _kind(object kind) except -1:
    if kind not in KINDS:
        raise ValueError(f"no such kind: {kind}")
    return kind


cdef unsigned _base(object base) except? 0xffffffff:
    if not 0 <= base < 65536:
        raise ValueError(f"base out of range: {base}")
    return base


cdef size_t _count(object n) except? 0xffffffff:
    if not 0 <= n < 1 << 32:
        raise ValueError(f"number of elements out of range: {n}")
    return n


def width(kind: int) -> int:
    """Return the bytes of an element."""
    return z4_symbols_width(_kind(kind))


def rest_bits(kind: int) -> int:
    """Return the bits of a remainder."""
    return z4_symbols_rest_bits(_kind(kind))


def field_bits(kind: int) -> int:
    """Return the bits of a field."""
    return z4_symbols_field_bits(_kind(kind))


def packed_nbytes(kind: int, n: int) -> int:
    """Return the bytes of ``n`` packed remainders."""
    return z4_symbols_packed_nbytes(_kind(kind), _count(n))


def field(kind: int, element: object) -> int:
    """Return the field of an element."""
    cdef int code = _kind(kind)
    cdef const uint8_t[::1] source = _input("element", element, z4_symbols_width(code))
    return z4_symbols_field(code, &source[0])


def patch(kind: int, field: int, element: object) -> None:
    """Put a field into an element, a writable buffer."""
    cdef int code = _kind(kind)
    cdef uint8_t[::1] target = _output("element", element, z4_symbols_width(code))
    if not 0 <= field < 1 << z4_symbols_field_bits(code):
        raise ValueError(f"field out of range: {field}")
    z4_symbols_patch(code, field, &target[0])


cdef object _flat(object buffer):
    """Return a flat uint8 view of any contiguous buffer."""
    return np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)


cdef object _input(str name, object given, Py_ssize_t nbytes):
    """Return a buffer of exactly nbytes as a flat uint8 array."""
    flat = _flat(given)
    if flat.shape[0] != nbytes:
        raise ValueError(f"{name} has {flat.shape[0]} bytes, expected {nbytes}")
    return flat


cdef object _output(str name, object out, Py_ssize_t nbytes):
    """Return out as a flat writable uint8 array of nbytes, made here where it is None."""
    if out is None:
        return np.empty(nbytes, np.uint8)
    if memoryview(out).readonly:
        raise ValueError(f"{name} is read-only")
    return _input(name, out, nbytes)


cdef const uint8_t *_read(const uint8_t[::1] source) noexcept:
    if source.shape[0] == 0:
        return NULL
    return &source[0]


cdef uint8_t *_write(uint8_t[::1] target) noexcept:
    if target.shape[0] == 0:
        return NULL
    return &target[0]


def split(
    src: object, kind: int, base: int = 0, out: object = None, *, isa: str | None = None
) -> list[object]:
    """Split elements into symbols, remainders and planes of low bytes.

    Parameters
    ----------
    src
        Any contiguous buffer, a whole number of elements long.
    kind
        One of the kinds.
    base
        Of the fields.
    out
        Writable buffers to fill, of one byte an element each: symbols, remainders (not of elements
        of one byte), low bytes; made here by default. May not overlap ``src``.
    isa
        Run the variant of this instruction set.

    Returns
    -------
    list of numpy.ndarray
        One uint8 array each, in this order.
    """
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef int code = _kind(kind), k
    cdef unsigned begin = _base(base)
    cdef Py_ssize_t w = z4_symbols_width(code)
    cdef const uint8_t[::1] elements = _flat(src)
    cdef uint8_t *parts[8]
    cdef const uint8_t *first = _read(elements)
    if elements.shape[0] % w:
        raise ValueError(f"{elements.shape[0]} bytes are no whole number of {w}-byte elements")
    cdef size_t n = elements.shape[0] // w
    if out is not None and len(out) != w:
        raise ValueError(f"out has {len(out)} parts, expected {w}")
    result = [_output(f"part {k}", None if out is None else out[k], n) for k in range(w)]
    for k in range(w):
        parts[k] = _write(result[k])
    with nogil:
        impl.split[code](first, n, begin, parts[0], parts[1] if w > 1 else NULL,
                         &parts[2] if w > 2 else NULL)
    return result


cdef object _merge(
    object symbols, object rest, object low, int code, unsigned begin, object out, object isa,
    bint packed
):
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef int k, w = z4_symbols_width(code)
    cdef const uint8_t[::1] values = _flat(symbols)
    cdef size_t n = values.shape[0]
    cdef const uint8_t *first = _read(values)
    cdef const uint8_t *remainders = NULL
    cdef const uint8_t *planes[6]
    keep = []
    if len(low) != max(w - 2, 0):
        raise ValueError(f"{len(low)} planes of low bytes, expected {max(w - 2, 0)}")
    if w > 1:
        keep.append(_input("rest", rest, z4_symbols_packed_nbytes(code, n) if packed else n))
        remainders = _read(keep[0])
    for k in range(w - 2):
        keep.append(_input(f"plane {k}", low[k], n))
        planes[k] = _read(keep[k + 1])
    result = _output("out", out, w * n)
    cdef uint8_t *target = _write(result)
    with nogil:
        if packed:
            impl.merge_packed[code](first, remainders, planes if w > 2 else NULL, n, begin, target)
        else:
            impl.merge[code](first, remainders, planes if w > 2 else NULL, n, begin, target)
    return result


def merge(
    symbols: object,
    rest: object,
    low: object,
    kind: int,
    base: int = 0,
    out: object = None,
    *,
    isa: str | None = None,
) -> object:
    """Put elements together: the inverse of `split`.

    Parameters
    ----------
    symbols
        Any contiguous buffer, one byte an element.
    rest
        Remainders, one byte an element; of elements of one byte ``None``.
    low
        Planes of low bytes, one buffer each.
    kind
        One of the kinds.
    base
        Of the fields.
    out
        Writable buffer of exactly the right size; made here by default. May not overlap a part.
    isa
        Run the variant of this instruction set.

    Returns
    -------
    numpy.ndarray
        The elements as uint8, a view of ``out`` where given.
    """
    return _merge(symbols, rest, low, _kind(kind), _base(base), out, isa, False)


def merge_packed(
    symbols: object,
    packed: object,
    low: object,
    kind: int,
    base: int = 0,
    out: object = None,
    *,
    isa: str | None = None,
) -> object:
    """Put elements together from packed remainders; see `merge`."""
    return _merge(symbols, packed, low, _kind(kind), _base(base), out, isa, True)


def pack(rest: object, kind: int, out: object = None, *, isa: str | None = None) -> object:
    """Pack remainders, one byte each, of which the lower bits count."""
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef int code = _kind(kind)
    cdef const uint8_t[::1] source = _flat(rest)
    cdef size_t n = source.shape[0]
    cdef const uint8_t *first = _read(source)
    result = _output("out", out, z4_symbols_packed_nbytes(code, n))
    cdef uint8_t *target = _write(result)
    with nogil:
        impl.pack[code](first, n, target)
    return result


def unpack(
    packed: object, n: int, kind: int, out: object = None, *, isa: str | None = None
) -> object:
    """Return ``n`` remainders, one byte each: the inverse of `pack`."""
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef int code = _kind(kind)
    cdef size_t count = _count(n)
    if code == Z4_SYMBOLS1:
        raise ValueError("elements of one byte have no remainders")
    cdef const uint8_t[::1] source = _input("packed", packed, z4_symbols_packed_nbytes(code, count))
    cdef const uint8_t *first = _read(source)
    result = _output("out", out, count)
    cdef uint8_t *target = _write(result)
    with nogil:
        impl.unpack[code](first, count, target)
    return result


def contexts(
    row: int,
    columns: object,
    n: int,
    shift: int,
    most: int,
    out: object = None,
    *,
    isa: str | None = None,
) -> object:
    """Return the contexts of ``n`` neighbours in a row.

    Parameters
    ----------
    row
        Class of the row.
    columns
        Class of each column, one byte each; ``None``: all 0. With ``row`` below 256.
    n
        Number of neighbours.
    shift
        Of the sum of both classes, below 8.
    most
        No context is larger, below 256.
    out
        Writable buffer of ``n`` bytes; made here by default.
    isa
        Run the variant of this instruction set.

    Returns
    -------
    numpy.ndarray
        One uint8 each.
    """
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef size_t count = _count(n)
    cdef const uint8_t[::1] classes
    cdef const uint8_t *first = NULL
    cdef unsigned row_class, bits, limit
    cdef int largest = 0
    if columns is not None and n > 0:
        classes = _input("columns", columns, n)
        first = _read(classes)
        largest = np.asarray(classes).max()
    if not 0 <= row < 256 - largest:
        raise ValueError(f"row out of range: {row} and column {largest}")
    if not (0 <= shift < 8 and 0 <= most < 256):
        raise ValueError(f"shift or most out of range: {shift}, {most}")
    row_class, bits, limit = row, shift, most
    result = _output("out", out, n)
    cdef uint8_t *target = _write(result)
    with nogil:
        impl.contexts(row_class, first, count, bits, limit, target)
    return result


def count(symbols: object, contexts: object, counts: object, *, isa: str | None = None) -> None:
    """Add the number of times that each symbol stands in each context.

    Parameters
    ----------
    symbols
        Any contiguous buffer.
    contexts
        One byte a symbol; ``None``: all 0.
    counts
        Array of uint32, one row of 256 a context, at most 64 of them; added to.
    isa
        Run the variant of this instruction set.
    """
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef const uint8_t[::1] values = _flat(symbols)
    cdef uint32_t[:, ::1] target = counts
    cdef const uint8_t[::1] chosen
    cdef const uint8_t *first = _read(values)
    cdef const uint8_t *which = NULL
    cdef size_t n = values.shape[0]
    if target.shape[1] != 256 or not 1 <= target.shape[0] <= MAX_CONTEXTS:
        raise ValueError(f"counts of shape {np.shape(counts)}, expected (1..64, 256)")
    if contexts is not None:
        chosen = _input("contexts", contexts, n)
        which = _read(chosen)
        if n > 0 and np.asarray(chosen).max() >= target.shape[0]:
            raise ValueError(f"a context is not below {target.shape[0]}")
    cdef z4_row *rows = <z4_row *> &target[0, 0]
    with nogil:
        impl.count(first, which, n, rows)


def weigh(symbols: object, floor: int, sums: object = None, *, isa: str | None = None) -> int:
    """Return the sum of the values ``max(floor, symbol)``, where 0 and 255 count as ``floor``.

    Parameters
    ----------
    symbols
        Any contiguous buffer.
    floor
        Least value, below 256.
    sums
        Array of uint32, one a symbol, to which its value is added.
    isa
        Run the variant of this instruction set.

    Returns
    -------
    int
        The sum.
    """
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef const uint8_t[::1] values = _flat(symbols)
    cdef const uint8_t *first = _read(values)
    cdef uint32_t[::1] target
    cdef uint32_t *columns = NULL
    cdef size_t n = values.shape[0]
    cdef uint64_t total
    cdef unsigned least
    if not 0 <= floor < 256:
        raise ValueError(f"floor out of range: {floor}")
    least = floor
    if sums is not None:
        target = sums
        if target.shape[0] != values.shape[0]:
            raise ValueError(f"{target.shape[0]} sums for {values.shape[0]} symbols")
        if n > 0:
            columns = &target[0]
    with nogil:
        total = impl.weigh(first, n, least, columns)
    return total


def find_rares(
    const uint8_t[::1] symbols,
    const uint8_t[::1] contexts,
    const uint16_t[:, ::1] freqs,
    uint8_t escape,
    *,
    isa: str | None = None,
) -> object:
    """Return the places of symbols that the table of their context lacks, the escape too.

    Parameters
    ----------
    symbols : buffer
        At most RARES_TILE.
    contexts : buffer or None
        One each, below the number of tables; None: all are of the first.
    freqs : buffer of uint16, shape (tables, 256)
        At most 64 tables.
    escape : int
        The symbol.
    isa : str, optional
        The variant to run.

    Returns
    -------
    ndarray of uint16
    """
    cdef const z4_symbols_impl *impl = _pick(isa)
    cdef size_t n = <size_t> symbols.shape[0], found = 0
    cdef const uint8_t *c = NULL
    cdef uint16_t[::1] out
    cdef z4_rares rares
    cdef unsigned k
    if n > RARES_TILE or not 1 <= freqs.shape[0] <= MAX_CONTEXTS or freqs.shape[1] != 256:
        raise ValueError("too many symbols, or no tables of 256")
    if contexts is not None:
        if <size_t> contexts.shape[0] != n or (n and np.max(contexts) >= freqs.shape[0]):
            raise ValueError("contexts do not fit")
        c = _read(contexts)
    for k in range(<unsigned> freqs.shape[0]):
        z4_rares_prepare(&rares, k, &freqs[k, 0], escape)
    places = np.empty(n, np.uint16)
    out = places
    if n:
        with nogil:
            found = impl.find_rares(&symbols[0], c, n, &rares, &out[0])
    return places[:found]
