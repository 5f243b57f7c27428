# cython: language_level=3
# cython: freethreading_compatible=True
"""Split elements into byte planes and interleave them again (docs/format/codecs/planes.md)."""

from __future__ import annotations

import numpy as np

from libc.stdint cimport uint8_t

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

cdef extern from "z4_planes.h":
    enum z4_layout:
        Z4_LAYOUT_BYTES1
        Z4_LAYOUT_BYTES2
        Z4_LAYOUT_BYTES4
        Z4_LAYOUT_BYTES8
        Z4_LAYOUT_FLOAT2
        Z4_LAYOUT_FLOAT4
        Z4_LAYOUT_FLOAT8
        Z4_LAYOUT_COUNT
    enum:
        Z4_MAX_PLANES
        Z4_PLANES_VARIANTS
    ctypedef void (*z4_split_fn)(const uint8_t *src, size_t n, uint8_t **planes) noexcept nogil
    ctypedef void (*z4_interleave_fn)(const uint8_t **planes, size_t n, uint8_t *dst) noexcept nogil
    ctypedef void (*z4_swap_fn)(const uint8_t *src, size_t n, uint8_t *dst) noexcept nogil
    ctypedef void (*z4_copy_fn)(uint8_t *dst, const uint8_t *src, size_t nbytes) noexcept nogil
    ctypedef struct z4_planes_impl:
        const char *name
        int isa
        z4_split_fn *split
        z4_interleave_fn *interleave
        z4_interleave_fn *interleave_nt
        z4_swap_fn *swap
        z4_copy_fn stream_copy
    const z4_planes_impl *Z4_PLANES
    unsigned z4_layout_width(int layout) noexcept nogil
    const z4_planes_impl *z4_planes_pick(int isa) noexcept nogil
    void z4_stream_fence() noexcept nogil

BYTES1 = int(Z4_LAYOUT_BYTES1)
BYTES2 = int(Z4_LAYOUT_BYTES2)
BYTES4 = int(Z4_LAYOUT_BYTES4)
BYTES8 = int(Z4_LAYOUT_BYTES8)
FLOAT2 = int(Z4_LAYOUT_FLOAT2)
FLOAT4 = int(Z4_LAYOUT_FLOAT4)
FLOAT8 = int(Z4_LAYOUT_FLOAT8)

LAYOUTS = (BYTES1, BYTES2, BYTES4, BYTES8, FLOAT2, FLOAT4, FLOAT8)


def variants() -> tuple[str, ...]:
    """Return the names of the compiled variants that this machine can run, worst first."""
    names = [Z4_PLANES[k].name.decode() for k in range(Z4_PLANES_VARIANTS)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_planes_impl *_pick(object isa) except NULL:
    return z4_planes_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


def picked(isa: str | None = None) -> str:
    """Return the name of the variant that an instruction set gets."""
    return _pick(isa).name.decode()


def layout_width(layout: int) -> int:
    """Return the bytes of an element, which is also the number of its planes.

    Raises
    ------
    ValueError
        If there is no such layout.
    """
    cdef unsigned width = 0
    if 0 <= layout < Z4_LAYOUT_COUNT:
        width = z4_layout_width(layout)
    if width == 0:
        raise ValueError(f"no such layout: {layout}")
    return width


cdef object _bytes_of(object buffer):
    """Return a flat uint8 view of any contiguous buffer."""
    return np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)


cdef object _output(object out, Py_ssize_t nbytes):
    """Return out as a flat writable uint8 array of nbytes, made here where it is None."""
    if out is None:
        return np.empty(nbytes, np.uint8)
    view = memoryview(out)
    if view.readonly:
        raise ValueError("out is read-only")
    if view.nbytes != nbytes:
        raise ValueError(f"out has {view.nbytes} bytes, expected {nbytes}")
    return _bytes_of(view)


def split(src: object, layout: int, out: object = None, *, isa: str | None = None) -> list[object]:
    """Split a buffer of elements into its planes.

    Parameters
    ----------
    src
        Any contiguous buffer, a whole number of elements long.
    layout
        One of the layout constants.
    out
        The planes to fill, one writable buffer each; made here by default. May not overlap ``src``.
    isa
        Run the variant of this instruction set (for tests).

    Returns
    -------
    list of numpy.ndarray
        One uint8 array a plane, most significant first.
    """
    cdef const z4_planes_impl *impl = _pick(isa)
    cdef int code = layout, k
    cdef Py_ssize_t width = layout_width(layout), n
    cdef const uint8_t[::1] elements = _bytes_of(src)
    cdef uint8_t *pointers[8]
    cdef uint8_t[::1] plane
    if elements.shape[0] % width:
        raise ValueError(f"{elements.shape[0]} bytes are no whole number of {width}-byte elements")
    n = elements.shape[0] // width
    if out is not None and len(out) != width:
        raise ValueError(f"out has {len(out)} planes, expected {width}")
    planes = [_output(None if out is None else out[k], n) for k in range(width)]
    if n == 0:
        return planes
    for k in range(width):
        plane = planes[k]
        pointers[k] = &plane[0]
    cdef const uint8_t *first = &elements[0]
    with nogil:
        impl.split[code](first, n, pointers)
    return planes


def interleave(
    planes: object,
    layout: int,
    n_elems: int,
    out: object = None,
    *,
    stream: bool = False,
    isa: str | None = None,
) -> object:
    """Put planes together to elements: the inverse of `split`.

    Parameters
    ----------
    planes
        One contiguous buffer a plane, of ``n_elems`` bytes each.
    layout
        One of the layout constants.
    n_elems
        Number of elements.
    out
        Writable buffer of exactly the right size; made here by default. May not overlap a plane.
    stream
        Write past the cache: for a large ``out`` whose pages are mapped and that is not read soon.
    isa
        Run the variant of this instruction set (for tests).

    Returns
    -------
    numpy.ndarray
        The elements as uint8, a view of ``out`` where given.
    """
    cdef const z4_planes_impl *impl = _pick(isa)
    cdef int code = layout, k
    cdef Py_ssize_t width = layout_width(layout), n = n_elems
    cdef const uint8_t *pointers[8]
    cdef const uint8_t[::1] plane
    cdef uint8_t[::1] elements
    cdef bint past_cache = stream
    if n < 0 or n > 0x7fffffffffffffff // width:
        raise ValueError(f"n_elems out of range: {n_elems}")
    if len(planes) != width:
        raise ValueError(f"{len(planes)} planes given, expected {width}")
    flat = [_bytes_of(given) for given in planes]
    for k in range(width):
        if flat[k].shape[0] != n:
            raise ValueError(f"plane {k} has {flat[k].shape[0]} bytes, expected {n}")
    result = _output(out, n * width)
    if n == 0:
        return result
    for k in range(width):
        plane = flat[k]
        pointers[k] = &plane[0]
    elements = result
    cdef uint8_t *first = &elements[0]
    with nogil:
        if past_cache:
            impl.interleave_nt[code](pointers, n, first)
            z4_stream_fence()
        else:
            impl.interleave[code](pointers, n, first)
    return result


def swap_bytes(src: object, width: int, out: object = None, *, isa: str | None = None) -> object:
    """Reverse the bytes of each element.

    Parameters
    ----------
    src
        Any contiguous buffer, a whole number of elements long.
    width
        Bytes of an element: 1, 2, 4 or 8.
    out
        Writable buffer as long as ``src``, which may be ``src`` itself; made here by default.
    isa
        Run the variant of this instruction set (for tests).

    Returns
    -------
    numpy.ndarray
        The elements as uint8, a view of ``out`` where given.
    """
    cdef const z4_planes_impl *impl = _pick(isa)
    cdef const uint8_t[::1] elements = _bytes_of(src)
    cdef uint8_t[::1] swapped
    cdef int k
    if width not in (1, 2, 4, 8):
        raise ValueError(f"width must be 1, 2, 4 or 8, not {width}")
    k = (1, 2, 4, 8).index(width)
    if elements.shape[0] % width:
        raise ValueError(f"{elements.shape[0]} bytes are no whole number of {width}-byte elements")
    result = _output(out, elements.shape[0])
    if elements.shape[0] == 0:
        return result
    swapped = result
    cdef size_t n = elements.shape[0] >> k
    cdef const uint8_t *first = &elements[0]
    cdef uint8_t *target = &swapped[0]
    with nogil:
        impl.swap[k](first, n, target)
    return result


def stream_copy(src: object, out: object, *, isa: str | None = None) -> None:
    """Copy a buffer past the cache into a writable buffer of the same size."""
    cdef const z4_planes_impl *impl = _pick(isa)
    cdef const uint8_t[::1] source = _bytes_of(src)
    cdef uint8_t[::1] target = _output(out, source.shape[0])
    cdef size_t nbytes = source.shape[0]
    if nbytes == 0:
        return
    cdef const uint8_t *first = &source[0]
    cdef uint8_t *start = &target[0]
    with nogil:
        impl.stream_copy(start, first, nbytes)
        z4_stream_fence()
