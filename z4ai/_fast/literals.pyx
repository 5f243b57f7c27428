# cython: freethreading_compatible=True
"""Zstandard frames of Huffman-coded literals: the binding of ``c/z4_literals.h``."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stddef cimport ptrdiff_t
from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc

from z4ai._fast import _dispatch

cdef extern from "z4_literals.h" nogil:
    enum:
        Z4_OK
        Z4_CORRUPT
        Z4_TRUNCATED
        Z4_UNSUPPORTED
        Z4_CAPACITY
        Z4_LITERALS_COUNT
    ctypedef struct z4_lit_encoder:
        pass
    ctypedef struct z4_lit_decoder:
        pass
    ctypedef struct z4_literals_impl:
        const char *name
    const z4_literals_impl Z4_LITERALS[]
    const z4_literals_impl *z4_literals_pick(int isa) noexcept
    enum:
        Z4_LIT_BLOCK
        Z4_LIT_BLOCK_LEAST
    size_t z4_lit_bound(size_t n, size_t block) noexcept
    ptrdiff_t z4_lit_encode(const z4_literals_impl *impl, const uint8_t *src, size_t n,
                            size_t block,
                            uint8_t *dst, size_t capacity, z4_lit_encoder *scratch) noexcept
    int z4_lit_begin(z4_lit_decoder *d, const uint8_t *src, size_t nbytes,
                     size_t content_nbytes) noexcept
    ptrdiff_t z4_lit_block(const z4_literals_impl *impl, z4_lit_decoder *d, uint8_t *dst,
                           size_t capacity, size_t slack) noexcept
    int z4_lit_end(const z4_lit_decoder *d) noexcept
    void z4_histogram(const uint8_t *src, size_t n, uint32_t *counts) noexcept
    size_t z4_lit_estimate(const uint32_t *counts, size_t n) noexcept

CORRUPT = Z4_CORRUPT
TRUNCATED = Z4_TRUNCATED
UNSUPPORTED = Z4_UNSUPPORTED

MAX_CONTENT_NBYTES = 1 << 31
MIN_BLOCK_NBYTES = Z4_LIT_BLOCK_LEAST
MAX_BLOCK_NBYTES = Z4_LIT_BLOCK

cdef dict _WORDS = {
    Z4_CORRUPT: "corrupt",
    Z4_TRUNCATED: "truncated",
    Z4_UNSUPPORTED: "legal, but not literals only",
    Z4_CAPACITY: "larger than declared",
}


class LiteralsError(ValueError):
    """A frame that this decoder does not accept.

    Attributes
    ----------
    status : int
        ``CORRUPT``, ``TRUNCATED`` or ``UNSUPPORTED``.
    """

    def __init__(self, status: int) -> None:
        super().__init__(f"zstd frame of literals: {_WORDS.get(status, status)}")
        self.status = status


def variants() -> tuple:
    """Return the names of the variants that this machine can run, the slowest first."""
    runnable = _dispatch.runnable()
    names = [Z4_LITERALS[i].name.decode() for i in range(Z4_LITERALS_COUNT)]
    return tuple([name for name in names if name in runnable])


cdef const z4_literals_impl *_pick(object isa) except NULL:
    cdef int i
    if isa is None:
        return z4_literals_pick(_dispatch.isa_code(_dispatch.current()))
    if isa in variants():
        for i in range(Z4_LITERALS_COUNT):
            if Z4_LITERALS[i].name.decode() == isa:
                return &Z4_LITERALS[i]
    raise ValueError(f"no variant {isa!r}, expected one of {variants()}")


def bound(Py_ssize_t n) -> int:
    """Return the room that suffices to encode ``n`` bytes, scribbling included."""
    if n < 0:
        raise ValueError("n must not be negative")
    return z4_lit_bound(<size_t> n, <size_t> MAX_BLOCK_NBYTES)


def encode(
    const uint8_t[::1] src, *, Py_ssize_t block_nbytes=MAX_BLOCK_NBYTES, isa=None
) -> bytes:
    """Encode bytes as one standard Zstandard frame without matches.

    Parameters
    ----------
    src : contiguous buffer of bytes
        At most ``MAX_CONTENT_NBYTES``.
    block_nbytes : int
        Content of every block but the last, ``MIN_BLOCK_NBYTES`` to ``MAX_BLOCK_NBYTES``.
    isa : str, optional
        Variant to run, one of `variants()`; by default the fastest. All give the same bytes.

    Returns
    -------
    bytes
        The frame.
    """
    cdef const z4_literals_impl *impl = _pick(isa)
    cdef size_t n = <size_t> src.shape[0], block = <size_t> block_nbytes, capacity
    cdef const uint8_t *p = &src[0] if n > 0 else NULL
    cdef ptrdiff_t size
    cdef z4_lit_encoder *scratch
    cdef uint8_t *dst
    if n > <size_t> MAX_CONTENT_NBYTES:
        raise ValueError(f"{n} bytes are more than a frame holds ({MAX_CONTENT_NBYTES})")
    if not MIN_BLOCK_NBYTES <= block_nbytes <= MAX_BLOCK_NBYTES:
        raise ValueError(
            f"block_nbytes is {block_nbytes}, "
            f"expected {MIN_BLOCK_NBYTES} to {MAX_BLOCK_NBYTES}"
        )
    capacity = z4_lit_bound(n, block)
    dst = <uint8_t *> malloc(capacity)
    scratch = <z4_lit_encoder *> malloc(sizeof(z4_lit_encoder))
    try:
        if dst == NULL or scratch == NULL:
            raise MemoryError
        with nogil:
            size = z4_lit_encode(impl, p, n, block, dst, capacity, scratch)
        if size < 0:
            raise LiteralsError(size)
        return PyBytes_FromStringAndSize(<char *> dst, size)
    finally:
        free(scratch)
        free(dst)


def decode(const uint8_t[::1] src, Py_ssize_t content_nbytes, *, isa=None) -> bytes:
    """Decode one frame that declares exactly ``content_nbytes`` bytes of content.

    Parameters
    ----------
    src : contiguous buffer of bytes
        The frame, and nothing else.
    content_nbytes : int
        The caller's limit: a frame that declares another size is refused before anything is
        decoded.
    isa : str, optional
        Variant to run, one of `variants()`.

    Returns
    -------
    bytes
        The content.

    Raises
    ------
    LiteralsError
        With `status`: ``UNSUPPORTED`` if the frame is legal, but has sequences, a dictionary, a
        checksum, or no content size; a complete Zstandard decoder may read it.
    """
    cdef const z4_literals_impl *impl = _pick(isa)
    cdef size_t nbytes = <size_t> src.shape[0], n, done = 0
    cdef const uint8_t *p = &src[0] if nbytes > 0 else NULL
    cdef ptrdiff_t status
    cdef z4_lit_decoder *d
    cdef uint8_t *dst
    cdef bytes out
    if content_nbytes < 0:
        raise ValueError("content_nbytes must not be negative")
    n = <size_t> content_nbytes
    d = <z4_lit_decoder *> malloc(sizeof(z4_lit_decoder))
    if d == NULL:
        raise MemoryError
    try:
        status = z4_lit_begin(d, p, nbytes, n)
        if status == Z4_OK:
            out = PyBytes_FromStringAndSize(NULL, content_nbytes)
            dst = <uint8_t *> PyBytes_AS_STRING(out)
            with nogil:
                while True:
                    status = z4_lit_block(impl, d, dst + done, n - done, 0)
                    if status <= 0:
                        break
                    done += <size_t> status
                if status == 0:
                    status = z4_lit_end(d)
            if status == Z4_OK:
                return out
        raise LiteralsError(status)
    finally:
        free(d)


def histogram(const uint8_t[::1] src) -> list:
    """Return how often each of the 256 byte values occurs."""
    cdef uint32_t counts[256]
    cdef size_t n = <size_t> src.shape[0]
    cdef const uint8_t *p = &src[0] if n > 0 else NULL
    if n > 0xffffffff:
        raise ValueError("more than 2**32 - 1 bytes")
    with nogil:
        z4_histogram(p, n, counts)
    return [counts[i] for i in range(256)]


def estimate(counts, Py_ssize_t n) -> int:
    """Estimate the bytes that `encode` makes of ``n`` bytes distributed like ``counts``.

    Parameters
    ----------
    counts : sequence of 256 int
        A histogram, of all bytes or of a sample.
    n : int
        How many bytes there are.
    """
    cdef uint32_t c[256]
    if len(counts) != 256:
        raise ValueError(f"{len(counts)} counts, expected 256")
    if n < 0:
        raise ValueError("n must not be negative")
    for i in range(256):
        c[i] = counts[i]
    return z4_lit_estimate(c, <size_t> n)
