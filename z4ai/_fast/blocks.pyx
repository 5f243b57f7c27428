# cython: language_level=3
# cython: freethreading_compatible=True
"""Fields of blocks: the binding of ``c/z4_blocks.h``."""

from __future__ import annotations

import numpy as np

from libc.stddef cimport size_t
from libc.stdint cimport UINT32_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc

cdef extern from "z4_blocks.h" nogil:
    enum:
        Z4_BLOCKS_PARTS
        Z4_BLOCKS_FIELDS
        Z4_BLOCKS_RATIO
        Z4_BLOCKS_RATIOS
        Z4_BLOCKS_SUBS
        Z4_BLOCKS_SUB
    ctypedef struct z4_blocks_format:
        uint32_t n_fields
        uint32_t ordered
        uint32_t part[16]
        uint32_t width[16]
    ctypedef struct z4_blocks_run:
        uint64_t format
        uint64_t count
    void z4_blocks_split(const uint8_t *content, const z4_blocks_format *formats, size_t n_formats,
                         const z4_blocks_run *runs, size_t n_runs,
                         uint8_t *const *parts) noexcept
    void z4_blocks_join(uint8_t *content, const z4_blocks_format *formats, size_t n_formats,
                        const z4_blocks_run *runs, size_t n_runs, uint8_t *const *parts) noexcept

MOST_PARTS = int(Z4_BLOCKS_PARTS)
MOST_FIELDS = int(Z4_BLOCKS_FIELDS)


cdef class _Layout:
    """Formats and runs as the kernels take them, with the size of content and of every part."""

    cdef z4_blocks_format *formats
    cdef z4_blocks_run *runs
    cdef size_t n_formats, n_runs, nbytes
    cdef size_t sizes[8]

    def __cinit__(self, list formats, list runs) -> None:
        cdef size_t k, f, size
        cdef uint64_t count
        cdef z4_blocks_format *row
        self.n_formats, self.n_runs, self.nbytes = len(formats), len(runs), 0
        self.formats = <z4_blocks_format *> malloc(self.n_formats * sizeof(z4_blocks_format) + 1)
        self.runs = <z4_blocks_run *> malloc(self.n_runs * sizeof(z4_blocks_run) + 1)
        if self.formats == NULL or self.runs == NULL:
            raise MemoryError
        for k in range(8):
            self.sizes[k] = 0
        # The parts of the last fields of ordered blocks are theirs alone.
        owners = [0] * 8
        alone = set()
        for f, (ordered, fields) in enumerate(formats):
            if not 1 <= len(fields) <= Z4_BLOCKS_FIELDS:
                raise ValueError(f"{len(fields)} fields")
            row = self.formats + f
            row.n_fields, row.ordered = len(fields), ordered
            for k, (part, width) in enumerate(fields):
                if not 0 <= part < Z4_BLOCKS_PARTS or not 0 < width <= UINT32_MAX >> 8:
                    raise ValueError(f"field of part {part} and {width} bytes")
                row.part[k], row.width[k] = part, width
                owners[part] += 1
            if ordered:
                if len(fields) < 3 or row.width[0] != 2 or row.width[1] != 2:
                    raise ValueError("ordered without a ratio")
                if ordered > Z4_BLOCKS_RATIO and (
                    ordered != Z4_BLOCKS_RATIOS
                    or len(fields) < 4
                    or row.width[2] != 12
                    or row.width[row.n_fields - 1] != Z4_BLOCKS_SUBS * Z4_BLOCKS_SUB
                ):
                    raise ValueError("ordered without ratios")
                alone.add(fields[-1][0])
        if any(owners[part] != 1 for part in alone):
            raise ValueError("a part of ordered fields has others")
        for k, (f, count) in enumerate(runs):
            if f >= self.n_formats or count > UINT32_MAX:
                raise ValueError(f"run of {count} blocks of format {f}")
            self.runs[k].format, self.runs[k].count = f, count
            row = self.formats + f
            for size in range(row.n_fields):
                self.nbytes += count * row.width[size]
                self.sizes[row.part[size]] += count * row.width[size]

    def __dealloc__(self) -> None:
        free(self.formats)
        free(self.runs)


cdef object _bytes_of(object buffer):
    """Return a flat uint8 view of any contiguous buffer."""
    return np.frombuffer(buffer, np.uint8) if memoryview(buffer).nbytes else np.empty(0, np.uint8)


cdef int _start(object array, size_t nbytes, uint8_t **place) except -1:
    cdef const uint8_t[::1] view = _bytes_of(array)
    if <size_t> view.shape[0] != nbytes:
        raise ValueError(f"{view.shape[0]} bytes, expected {nbytes}")
    place[0] = <uint8_t *> &view[0] if nbytes else NULL
    return 0


def split(content: object, formats: list, runs: list, n_parts: int) -> list:
    """Gather the fields of blocks.

    Parameters
    ----------
    content : buffer
        The blocks.
    formats : list of (int, list of (int, int))
        How the last field is ordered: 0 not, 1 by a ratio, 2 by those of sub-blocks; part and
        width of each field.
    runs : list of (int, int)
        Format and number of blocks.
    n_parts : int
        Parts to return.
    """
    cdef _Layout layout = _Layout(formats, runs)
    cdef uint8_t *start = NULL
    cdef uint8_t *parts[8]
    cdef size_t k
    _start(content, layout.nbytes, &start)
    if not 0 <= n_parts <= Z4_BLOCKS_PARTS:
        raise ValueError(f"{n_parts} parts")
    made = []
    for k in range(8):
        parts[k] = NULL
        if k < <size_t> n_parts:
            made.append(np.empty(layout.sizes[k], np.uint8))
            _start(made[k], layout.sizes[k], &parts[k])
        elif layout.sizes[k]:
            raise ValueError(f"a field of part {k} of {n_parts}")
    with nogil:
        z4_blocks_split(start, layout.formats, layout.n_formats, layout.runs, layout.n_runs, parts)
    return made


def join(parts: list, formats: list, runs: list, out: object) -> None:
    """Put fields back into blocks; everything as for `split`."""
    cdef _Layout layout = _Layout(formats, runs)
    cdef uint8_t *start = NULL
    cdef uint8_t *places[8]
    cdef size_t k
    if memoryview(out).readonly:
        raise ValueError("out is read-only")
    _start(out, layout.nbytes, &start)
    for k in range(8):
        places[k] = NULL
        if k < <size_t> len(parts):
            _start(parts[k], layout.sizes[k], &places[k])
        elif layout.sizes[k]:
            raise ValueError(f"a field of part {k} of {len(parts)}")
    with nogil:
        z4_blocks_join(start, layout.formats, layout.n_formats, layout.runs, layout.n_runs, places)
