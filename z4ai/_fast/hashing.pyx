# cython: language_level=3
# cython: freethreading_compatible=True
"""XXH3 of buffers (docs/format/xxh3.md)."""

from __future__ import annotations

import threading

from cpython.buffer cimport (
    PyBUF_SIMPLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from libc.stdint cimport uint8_t, uint64_t

from z4ai._fast cimport _dispatch
from z4ai._fast import _dispatch as _dispatch_py

cdef extern from "z4_xxh3.h":
    enum:
        Z4_XXH3_VARIANTS
    ctypedef struct z4_xxh3_impl:
        const char *name
        int isa
    ctypedef struct z4_xxh3_state:
        pass
    ctypedef struct z4_xxh3_stream:
        pass
    const z4_xxh3_impl *Z4_XXH3
    const z4_xxh3_impl *z4_xxh3_pick(int isa) noexcept nogil
    uint64_t z4_xxh3_64(const z4_xxh3_impl *, const void *p, size_t n, uint64_t seed) noexcept nogil
    void z4_xxh3_128(
        const z4_xxh3_impl *, const void *p, size_t n, uint64_t seed, uint64_t *out) noexcept nogil
    void z4_xxh3_begin(z4_xxh3_state *, uint64_t seed) noexcept nogil
    void z4_xxh3_advance(
        const z4_xxh3_impl *, z4_xxh3_state *, const uint8_t *base, size_t filled) noexcept nogil
    uint64_t z4_xxh3_64_end(
        const z4_xxh3_impl *, z4_xxh3_state *, const uint8_t *base, size_t total) noexcept nogil
    void z4_xxh3_128_end(
        const z4_xxh3_impl *, z4_xxh3_state *, const uint8_t *base, size_t total,
        uint64_t *out) noexcept nogil
    void z4_xxh3_stream_begin(z4_xxh3_stream *, uint64_t seed) noexcept nogil
    void z4_xxh3_stream_update(
        const z4_xxh3_impl *, z4_xxh3_stream *, const void *p, size_t n) noexcept nogil
    uint64_t z4_xxh3_stream_64(const z4_xxh3_impl *, const z4_xxh3_stream *) noexcept nogil
    void z4_xxh3_stream_128(
        const z4_xxh3_impl *, const z4_xxh3_stream *, uint64_t *out) noexcept nogil

# Below this many bytes the hash takes less time than giving the lock away and taking it back.
cdef Py_ssize_t _GIL_NBYTES = 65536


def variants() -> tuple[str, ...]:
    """Return the names of the compiled variants that this machine can run, worst first."""
    names = [Z4_XXH3[k].name.decode() for k in range(Z4_XXH3_VARIANTS)]
    return tuple([name for name in names if name in _dispatch_py.runnable()])


cdef const z4_xxh3_impl *_pick(object isa) except NULL:
    return z4_xxh3_pick(_dispatch.isa if isa is None else _dispatch_py.isa_code(isa))


def picked(isa: str | None = None) -> str:
    """Return the name of the variant that an instruction set gets."""
    return _pick(isa).name.decode()


cdef uint64_t _seed(object seed) except? 0:
    if not 0 <= seed < 1 << 64:
        raise ValueError(f"seed must be in [0, 2**64), not {seed}")
    return seed


def xxh3_64(data: object, seed: int = 0, *, isa: str | None = None) -> int:
    """Return the 64-bit XXH3 of a contiguous buffer.

    Parameters
    ----------
    data
        Any C-contiguous buffer.
    seed
        Unsigned 64-bit seed.
    isa
        Run the variant of this instruction set (for tests).
    """
    cdef const z4_xxh3_impl *impl = _pick(isa)
    cdef uint64_t start = _seed(seed), result
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len < _GIL_NBYTES:
            result = z4_xxh3_64(impl, view.buf, view.len, start)
        else:
            with nogil:
                result = z4_xxh3_64(impl, view.buf, view.len, start)
    finally:
        PyBuffer_Release(&view)
    return result


def xxh3_128(data: object, seed: int = 0, *, isa: str | None = None) -> int:
    """Return the 128-bit XXH3 of a contiguous buffer; parameters as for `xxh3_64`."""
    cdef const z4_xxh3_impl *impl = _pick(isa)
    cdef uint64_t start = _seed(seed)
    cdef uint64_t result[2]
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        if view.len < _GIL_NBYTES:
            z4_xxh3_128(impl, view.buf, view.len, start, result)
        else:
            with nogil:
                z4_xxh3_128(impl, view.buf, view.len, start, result)
    finally:
        PyBuffer_Release(&view)
    return int(result[1]) << 64 | int(result[0])


def xxh3_filling(
    data: object, fills: object, seed: int = 0, *, isa: str | None = None
) -> tuple[int, int]:
    """Hash one buffer as if it were being filled (for tests of the kernel's incremental form).

    Parameters
    ----------
    data
        Any C-contiguous buffer.
    fills
        Growing byte counts, none above the size of ``data``; the rest is hashed at the end.
    seed, isa
        As for `xxh3_64`.

    Returns
    -------
    tuple of int
        The 64-bit and the 128-bit hash.
    """
    cdef const z4_xxh3_impl *impl = _pick(isa)
    cdef uint64_t start = _seed(seed), narrow
    cdef uint64_t wide[2]
    cdef z4_xxh3_state one, two
    cdef Py_ssize_t filled, before = 0
    cdef Py_buffer view
    PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
    try:
        z4_xxh3_begin(&one, start)
        z4_xxh3_begin(&two, start)
        for filled in fills:
            if not before <= filled <= view.len:
                raise ValueError(f"fill of {filled} bytes after {before}, of {view.len}")
            z4_xxh3_advance(impl, &one, <const uint8_t *> view.buf, filled)
            z4_xxh3_advance(impl, &two, <const uint8_t *> view.buf, filled)
            before = filled
        narrow = z4_xxh3_64_end(impl, &one, <const uint8_t *> view.buf, view.len)
        z4_xxh3_128_end(impl, &two, <const uint8_t *> view.buf, view.len, wide)
    finally:
        PyBuffer_Release(&view)
    return narrow, int(wide[1]) << 64 | int(wide[0])


cdef class Xxh3:
    """XXH3 over many buffers.

    Parameters
    ----------
    seed
        Unsigned 64-bit seed.
    isa
        Run the variant of this instruction set (for tests).

    Examples
    --------
    >>> state = Xxh3()
    >>> state.update(b"abc")
    >>> state.digest64() == xxh3_64(b"abc")
    True
    """

    cdef const z4_xxh3_impl *impl
    cdef z4_xxh3_stream stream
    cdef object lock

    def __init__(self, seed: int = 0, *, isa: str | None = None) -> None:
        cdef uint64_t start = _seed(seed)
        self.impl = _pick(isa)
        self.lock = threading.Lock()
        z4_xxh3_stream_begin(&self.stream, start)

    def update(self, data: object) -> None:
        """Add a C-contiguous buffer to what is hashed."""
        cdef Py_buffer view
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            with self.lock:
                if view.len < _GIL_NBYTES:
                    z4_xxh3_stream_update(self.impl, &self.stream, view.buf, view.len)
                else:
                    with nogil:
                        z4_xxh3_stream_update(self.impl, &self.stream, view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def digest64(self) -> int:
        """Return the 64-bit hash of everything so far; more may be added afterwards."""
        with self.lock:
            return z4_xxh3_stream_64(self.impl, &self.stream)

    def digest128(self) -> int:
        """Return the 128-bit hash of everything so far; more may be added afterwards."""
        cdef uint64_t result[2]
        with self.lock:
            z4_xxh3_stream_128(self.impl, &self.stream, result)
        return int(result[1]) << 64 | int(result[0])
