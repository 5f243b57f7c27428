# cython: language_level=3, freethreading_compatible=True
"""Runs of chunks, fused and threaded: content to streams and back.

The frame layer describes each chunk by one row of `JOB`; the kernels fill in or follow it. The
format around the streams (headers, tables) is not known here.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.object cimport PyObject
from cython.parallel cimport prange
from libc.stdint cimport int8_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from z4ai._fast._dispatch cimport current_isa
from z4ai._fast import _dispatch

import os

import numpy as np

cdef extern from "z4_huge.h" nogil:
    ctypedef struct z4_huge_luck:
        pass
    bint z4_huge_is_tried(z4_huge_luck *luck) noexcept
    void z4_huge_was(z4_huge_luck *luck, bint slow) noexcept
    void z4_ready_fresh(void *p, size_t nbytes, z4_huge_luck *luck) noexcept

cdef extern from "z4_spread.h" nogil:
    ctypedef struct z4_spread:
        pass
    void z4_spread_begin(z4_spread *s, size_t n_jobs, size_t n_workers) noexcept
    void z4_spread_worker(z4_spread *s, int t) noexcept

cdef extern from "Python.h":
    int _PyBytes_Resize(PyObject **obj, Py_ssize_t nbytes) except -1
    void Py_INCREF(PyObject *obj)
    void _drop "Py_DECREF"(PyObject *obj)

cdef extern from "z4_fetch.h" nogil:
    enum:
        Z4_CAN_FETCH
    ctypedef struct z4_fetch:
        int fd
        const uint64_t *places
        uint8_t *into
        size_t nbytes
        int error

cdef extern from "z4_chunk_run.h" nogil:
    ctypedef struct z4_kernels:
        pass
    z4_kernels z4_kernels_pick(int isa) noexcept

    ctypedef struct z4_chunk_job:
        uint64_t content_offset
        uint64_t content_nbytes
        uint64_t encoded_offset
        uint64_t encoded_nbytes
        uint64_t reference_offset
        uint32_t lead
        uint32_t model
        uint8_t layout
        uint8_t other_layout
        uint8_t planes
        uint8_t n_streams
        int8_t status

    ctypedef struct z4_reference:
        const uint8_t *at
        size_t nbytes
    bint z4_is_beside(int transform) noexcept
    bint z4_has_reference(const z4_chunk_job *job, z4_reference reference) noexcept

    ctypedef struct z4_model:
        pass
    bint z4_model_ok(const z4_model *m, size_t nbytes) noexcept

    ctypedef struct z4_decode_scratch:
        pass
    ctypedef struct z4_symbols_scratch:
        pass
    ctypedef struct z4_decode_run:
        z4_kernels kernels
        z4_chunk_job *jobs
        const z4_model **models
        size_t last
        const uint8_t *encoded
        size_t encoded_nbytes
        z4_fetch fetch
        z4_reference reference
        uint8_t *content
        size_t content_nbytes
        size_t share
        size_t next
    size_t z4_decode_share(size_t n_jobs, size_t n_workers) noexcept
    void z4_decode_worker(z4_decode_run *run, z4_decode_scratch *scratch,
                          z4_symbols_scratch *symbols) noexcept

    ctypedef struct z4_encode_scratch:
        pass
    ctypedef struct z4_symbols_encoder:
        pass
    ctypedef struct z4_encode_run:
        z4_kernels kernels
        z4_chunk_job *jobs
        const z4_model **models
        size_t last
        const uint8_t *content
        z4_reference reference
        uint8_t *out
        size_t capacity
        size_t gap
        size_t gap_stream
        size_t next
        size_t placed
        size_t end
    enum:
        Z4_SLOTS
    ctypedef struct z4_held:
        uint8_t *slot[Z4_SLOTS]
        size_t slot_nbytes
        size_t n
    void z4_encode_worker(z4_encode_run *run, z4_encode_scratch *scratch,
                          z4_symbols_encoder *symbols, uint8_t *planes, z4_held *held) noexcept
    size_t z4_encode_bound(uint64_t content_nbytes, int transform, size_t gap,
                           size_t gap_stream) noexcept
    size_t z4_encode_planes_nbytes(uint64_t content_nbytes, int transform) noexcept
    size_t z4_transform_width(int transform) noexcept
    bint z4_transform_known(int transform) noexcept
    size_t z4_align64(size_t n) noexcept
    enum:
        Z4_LAYOUT_COUNT
        Z4_MAX_CHUNK
        Z4_SAME

cdef extern from "z4_status.h" nogil:
    enum:
        Z4_OK
        Z4_CAPACITY

# Whether `decode` can fetch; the place of what need not be fetched.
CAN_FETCH = bool(Z4_CAN_FETCH)
FETCHED = 2**64 - 1

# Mirrors z4_chunk_job of z4_chunk.h, in its order.
JOB = np.dtype(
    [
        ("content_offset", "<u8"),
        ("content_nbytes", "<u8"),
        ("seed", "<u8"),
        ("checksum", "<u8"),
        ("encoded_offset", "<u8"),
        ("encoded_nbytes", "<u8"),
        ("stream_offset", "<u8", 8),
        ("tail_offset", "<u8"),
        ("reference_offset", "<u8"),
        ("stream_nbytes", "<u4", 8),
        ("stream_codec", "u1", 8),
        ("lead", "<u4"),
        ("model", "<u4"),
        ("rows_nbytes", "<u4"),
        ("rare_nbytes", "<u4"),
        ("n_rare", "<u2"),
        ("n_raw", "<u2"),
        ("params_nbytes", "<u2"),
        ("doubtful", "u1"),
        ("params_reserved", "u1"),
        ("saved", "<u4"),
        ("layout", "u1"),
        ("swap", "u1"),
        ("n_streams", "u1"),
        ("status", "i1"),
        ("stream", "u1"),
        ("other_layout", "u1"),
        ("dtype", "u1"),
        ("planes", "u1"),
        ("reserved", "u1", 4),
    ]
)
if JOB.itemsize != sizeof(z4_chunk_job):
    raise ImportError("the chunk job of chunks.pyx and z4_chunk.h differ")

# Content handed to the workers between two looks at pending signals (Ctrl-C).
cdef uint64_t RUN_NBYTES = 128 << 20


cdef int _isa(object isa) except -1:
    return current_isa() if isa is None else _dispatch.isa_code(isa)


cdef z4_chunk_job *_jobs(uint8_t[::1] raw, size_t *n) except? NULL:
    n[0] = <size_t> raw.shape[0] // sizeof(z4_chunk_job)
    if n[0] * sizeof(z4_chunk_job) != <size_t> raw.shape[0]:
        raise ValueError("jobs must hold whole rows of JOB")
    return <z4_chunk_job *> &raw[0] if n[0] else NULL


cdef size_t _run_end(const z4_chunk_job *jobs, size_t first, size_t n) noexcept nogil:
    """The job at which a run that begins with `first` stops to look for signals."""
    cdef uint64_t total = 0
    while first < n and total < RUN_NBYTES:
        total += jobs[first].content_nbytes
        first += 1
    return first


cdef class _Models:
    """Pointers to the models of a run, and what keeps them alive.

    Each model is a block that `z4ai._fast.models` has made.
    """

    cdef list blocks
    cdef const z4_model **at
    cdef size_t n

    def __cinit__(self, models):
        cdef const uint8_t[::1] view
        cdef size_t i
        self.blocks = list(models)
        self.n = len(self.blocks)
        self.at = <const z4_model **> PyMem_RawMalloc((self.n + 1) * sizeof(z4_model *))
        if self.at == NULL:
            raise MemoryError
        for i in range(self.n):
            view = self.blocks[i]
            if view.shape[0] == 0 or not z4_model_ok(
                    <const z4_model *> &view[0], <size_t> view.shape[0]):
                raise ValueError(f"model {i} is none")
            self.at[i] = <const z4_model *> &view[0]

    def __dealloc__(self):
        PyMem_RawFree(self.at)

    cdef int check(self, const z4_chunk_job *rows, size_t n) except -1:
        """Tell whether any job has a model."""
        cdef size_t i
        cdef int some = 0
        for i in range(n):
            if rows[i].model > self.n:
                raise ValueError(f"job {i} has model {rows[i].model} of {self.n}")
            some |= rows[i].model != 0
        return some


cdef z4_reference _reference(const uint8_t[::1] reference) noexcept:
    cdef z4_reference found
    found.nbytes = 0 if reference is None else <size_t> reference.shape[0]
    found.at = &reference[0] if found.nbytes else NULL
    return found


def decode(const uint8_t[::1] encoded, uint8_t[::1] content, uint8_t[::1] jobs, int threads,
           isa=None, models=(), const uint8_t[::1] reference=None, fetch=None):
    """Decode the streams that `jobs` describe into `content`; each job gets its status.

    Parameters
    ----------
    encoded, content : buffer
        Where streams lie and where the content goes. They do not overlap.
    jobs : buffer of JOB rows, writable
        Their ranges of `content` are disjoint.
    threads : int
        Workers, from `_threads.effective`.
    isa : str, optional
        Run the kernels of one instruction set: a door for tests.
    models : sequence of models
        What the jobs' `model` counts from 1.
    reference : buffer, optional
        What chunks of delta frames differ from: all of each one's content from its
        `reference_offset` on. It does not overlap `content`.
    fetch : tuple of int and ndarray of uint64, optional
        A file descriptor, and where the chunk of each job begins in that file: the worker reads it
        to its place in `encoded`, which then is writable. FETCHED: it is there.

    Returns
    -------
    bool
        Whether every job has status 0.

    Raises
    ------
    OSError
        If a read fails. That the file ends too soon is a status.
    """
    cdef const uint64_t[::1] places
    cdef uint8_t[::1] into
    cdef size_t n, first = 0, last, i
    cdef z4_chunk_job *rows = _jobs(jobs, &n)
    cdef z4_decode_run run
    cdef z4_spread spread
    cdef int t
    cdef size_t head = z4_align64(sizeof(z4_decode_scratch)), stride = head
    cdef uint8_t *scratch
    cdef _Models known = _Models(models)
    cdef bint ok = True, symbols
    if n == 0:
        return True
    if threads < 1:
        raise ValueError("threads must be positive")
    symbols = known.check(rows, n)
    if symbols:
        stride += z4_align64(sizeof(z4_symbols_scratch))
    run.models = known.at
    run.reference = _reference(reference)
    run.kernels = z4_kernels_pick(_isa(isa))
    run.jobs = rows
    run.fetch.places = NULL
    run.fetch.error = 0
    if fetch is not None:
        run.fetch.fd, places = fetch
        if <size_t> places.shape[0] != n:
            raise ValueError("each job needs its place")
        into = encoded.base
        run.fetch.places = &places[0]
        run.fetch.into = &into[0] if into.shape[0] else NULL
        run.fetch.nbytes = <size_t> into.shape[0]
    run.encoded = &encoded[0] if encoded.shape[0] else NULL
    run.encoded_nbytes = <size_t> encoded.shape[0]
    run.content = &content[0] if content.shape[0] else NULL
    run.content_nbytes = <size_t> content.shape[0]
    scratch = <uint8_t *> PyMem_RawMalloc(stride * <size_t> threads)
    if scratch == NULL:
        raise MemoryError("no memory for the scratch of the decoder")
    try:
        while first < n:
            with nogil:
                last = _run_end(rows, first, n)
                run.next = first
                run.last = last
                run.share = z4_decode_share(last - first, <size_t> threads)
                if threads == 1:
                    z4_decode_worker(&run, <z4_decode_scratch *> scratch,
                                     <z4_symbols_scratch *> (scratch + head) if symbols else NULL)
                else:
                    z4_spread_begin(&spread, last - first, <size_t> threads)
                    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                        z4_spread_worker(&spread, t)
                        z4_decode_worker(
                            &run, <z4_decode_scratch *> (scratch + <size_t> t * stride),
                            <z4_symbols_scratch *> (scratch + <size_t> t * stride + head)
                            if symbols else NULL)
                for i in range(first, last):
                    if rows[i].status != Z4_OK:
                        ok = False
            first = last
            PyErr_CheckSignals()
    finally:
        PyMem_RawFree(scratch)
    if run.fetch.error:
        raise OSError(run.fetch.error, os.strerror(run.fetch.error))
    return ok


def encode(const uint8_t[::1] content, uint8_t[::1] out, size_t offset, uint8_t[::1] jobs,
           size_t gap, size_t gap_stream, int threads, isa=None, models=(),
           const uint8_t[::1] reference=None):
    """Encode the chunks that `jobs` describe, one behind the other, to `out` from `offset` on.

    Parameters
    ----------
    content, out : buffer
        Source and destination; they do not overlap.
    jobs : buffer of JOB rows, writable
        Gets layout, streams, offsets in `out`, sizes and checksums.
    gap, gap_stream : int
        Bytes to leave in front of each chunk for its header: fixed, and for each stream.
    threads : int
        Workers, from `_threads.effective`.
    isa : str, optional
        Run the kernels of one instruction set: a door for tests.
    models : sequence of models
        What the jobs' `model` counts from 1.
    reference : buffer, optional
        As in `decode`. A chunk that equals its own becomes a header alone, of transform `same`.

    Returns
    -------
    int
        Where the last chunk ends in `out`.

    Raises
    ------
    ValueError
        If a job does not fit its buffers: `out` must offer `encode_bound`, and `reference` what
        the job differs from.
    """
    cdef size_t n, first = 0, last, i, width, slot_nbytes = 0, planes_nbytes = 0, stride
    cdef z4_chunk_job *rows = _jobs(jobs, &n)
    cdef z4_encode_run run
    cdef z4_spread spread
    cdef int t
    cdef uint8_t *scratch
    cdef uint8_t *slots
    cdef z4_held *held
    cdef size_t fixed_nbytes = z4_align64(sizeof(z4_encode_scratch))
    cdef size_t head_nbytes = fixed_nbytes
    cdef _Models known = _Models(models)
    cdef bint symbols
    cdef size_t total = <size_t> content.shape[0]
    if offset > <size_t> out.shape[0]:
        raise ValueError("offset lies behind the end of out")
    if threads < 1:
        raise ValueError("threads must be positive")
    if n == 0:
        return offset
    run.reference = _reference(reference)
    for i in range(n):
        if (not z4_transform_known(rows[i].layout) or rows[i].layout == Z4_SAME
                or rows[i].content_nbytes == 0
                or rows[i].content_nbytes > Z4_MAX_CHUNK or rows[i].content_offset > total
                or rows[i].content_nbytes > total - rows[i].content_offset):
            raise ValueError("a job does not lie in the content")
        if z4_is_beside(rows[i].layout) and not z4_has_reference(&rows[i], run.reference):
            raise ValueError("a job does not lie in the reference")
        width = z4_transform_width(rows[i].layout)
        if (rows[i].other_layout >= Z4_LAYOUT_COUNT
                or z4_transform_width(rows[i].other_layout) != width
                or rows[i].layout >= Z4_LAYOUT_COUNT
                and (rows[i].planes >= Z4_LAYOUT_COUNT
                     or z4_transform_width(rows[i].planes) != width)):
            raise ValueError("the two layouts of a job differ in width")
        slot_nbytes = max(
            slot_nbytes, z4_encode_bound(rows[i].content_nbytes, rows[i].layout, gap, gap_stream))
        planes_nbytes = max(
            planes_nbytes, z4_encode_planes_nbytes(rows[i].content_nbytes, rows[i].layout))
    symbols = known.check(rows, n)
    if symbols:
        head_nbytes += z4_align64(sizeof(z4_symbols_encoder))
    run.models = known.at
    run.kernels = z4_kernels_pick(_isa(isa))
    run.jobs = rows
    run.content = &content[0]
    run.out = &out[0] if out.shape[0] else NULL
    run.capacity = <size_t> out.shape[0]
    run.gap = gap
    run.gap_stream = gap_stream
    run.end = offset
    # For each worker: scratch, planes; and if there are several, slots to hold chunks back.
    planes_nbytes = z4_align64(planes_nbytes)
    slot_nbytes = z4_align64(slot_nbytes)
    stride = head_nbytes + planes_nbytes
    if threads > 1:
        stride += z4_align64(sizeof(z4_held)) + Z4_SLOTS * slot_nbytes
    scratch = <uint8_t *> PyMem_RawMalloc(stride * <size_t> threads)
    if scratch == NULL:
        raise MemoryError("no memory for the scratch of the encoder")
    try:
        for t in range(threads if threads > 1 else 0):
            slots = scratch + <size_t> t * stride + head_nbytes + planes_nbytes
            held = <z4_held *> slots
            held.slot_nbytes = slot_nbytes
            held.n = 0
            for i in range(Z4_SLOTS):
                held.slot[i] = slots + z4_align64(sizeof(z4_held)) + i * slot_nbytes
        while first < n:
            with nogil:
                last = _run_end(rows, first, n)
                run.next = first
                run.placed = first
                run.last = last
                if threads == 1:
                    z4_encode_worker(
                        &run, <z4_encode_scratch *> scratch,
                        <z4_symbols_encoder *> (scratch + fixed_nbytes) if symbols else NULL,
                        scratch + head_nbytes, NULL)
                else:
                    z4_spread_begin(&spread, last - first, <size_t> threads)
                    for t in prange(threads, num_threads=threads, schedule="static", chunksize=1):
                        z4_spread_worker(&spread, t)
                        z4_encode_worker(
                            &run,
                            <z4_encode_scratch *> (scratch + <size_t> t * stride),
                            <z4_symbols_encoder *> (scratch + <size_t> t * stride + fixed_nbytes)
                            if symbols else NULL,
                            scratch + <size_t> t * stride + head_nbytes,
                            <z4_held *> (
                                scratch + <size_t> t * stride + head_nbytes + planes_nbytes),
                        )
            for i in range(first, last):
                if rows[i].status != Z4_OK:
                    raise ValueError(f"chunk {i} does not fit: out is too small")
            first = last
            PyErr_CheckSignals()
    finally:
        PyMem_RawFree(scratch)
    return run.end


def encode_bound(uint64_t content_nbytes, int layout, size_t gap, size_t gap_stream):
    """Bytes that `out` of `encode` must still offer when a chunk of this size comes up."""
    if layout < 0 or not z4_transform_known(layout) or content_nbytes > Z4_MAX_CHUNK:
        raise ValueError("unknown layout, or chunk too large")
    return z4_encode_bound(content_nbytes, layout, gap, gap_stream)


cdef z4_huge_luck _luck


cdef void _ready(void *p, size_t nbytes) noexcept:
    with nogil:
        z4_ready_fresh(p, nbytes, &_luck)


def fresh_array(size_t nbytes) -> np.ndarray:
    """Allocate bytes that are not initialised; large ones in pages that are quickly had."""
    cdef uint8_t[::1] view
    out = np.empty(nbytes, np.uint8)
    if nbytes:
        view = out
        _ready(&view[0], nbytes)
    return out


def huge_stretches_tried(slow):
    """Tell which of many stretches would be tried, if those in `slow` are: a door for tests."""
    cdef z4_huge_luck luck
    tried = []
    memset(&luck, 0, sizeof(luck))
    for one in slow:
        tried.append(bool(z4_huge_is_tried(&luck)))
        if tried[-1]:
            z4_huge_was(&luck, one)
    return tried


cdef class BytesBuilder:
    """A bytes object while it is being filled: no zeroing, no second copy.

    Parameters
    ----------
    nbytes : int
        Capacity. Large ones ask the system for huge pages.

    Examples
    --------
    >>> from z4ai._fast.chunks import BytesBuilder
    >>> b = BytesBuilder(8)
    >>> with memoryview(b) as v:
    ...     v[:3] = b"abc"
    >>> b.finish(3)
    b'abc'
    """

    cdef PyObject *obj
    cdef Py_ssize_t nbytes
    cdef Py_ssize_t views

    def __cinit__(self, Py_ssize_t nbytes):
        cdef object fresh
        if nbytes < 0:
            raise ValueError("nbytes must not be negative")
        # One byte at least: the empty bytes object is shared and must not be resized.
        fresh = PyBytes_FromStringAndSize(NULL, max(nbytes, 1))
        self.obj = <PyObject *> fresh
        Py_INCREF(self.obj)
        self.nbytes = nbytes
        self.views = 0
        _ready(PyBytes_AS_STRING(fresh), <size_t> nbytes)

    def __dealloc__(self):
        if self.obj != NULL:
            _drop(self.obj)

    def __getbuffer__(self, Py_buffer *view, int flags):
        if self.obj == NULL:
            raise BufferError("the bytes are already finished")
        PyBuffer_FillInfo(view, self, PyBytes_AS_STRING(<object> self.obj), self.nbytes, 0, flags)
        self.views += 1

    def __releasebuffer__(self, Py_buffer *view):
        self.views -= 1

    def finish(self, Py_ssize_t nbytes):
        """Return the first `nbytes` bytes; the builder is empty afterwards."""
        cdef PyObject *obj = self.obj
        cdef object result
        if obj == NULL:
            raise ValueError("the bytes are already finished")
        if self.views:
            raise BufferError("a view of the bytes is still open")
        if not 0 <= nbytes <= self.nbytes:
            raise ValueError("nbytes is not within the capacity")
        self.obj = NULL
        if nbytes == 0:
            _drop(obj)
            return b""
        _PyBytes_Resize(&obj, nbytes)
        result = <object> obj
        _drop(obj)
        return result
