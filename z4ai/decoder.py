"""Read one frame: find its chunks, in memory or by ranged reads, and decode any run of them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import frame
from z4ai._fast import planes
from z4ai._fast.chunks import JOB
from z4ai.codecs import run
from z4ai.copies import expand
from z4ai.dtypes import OPAQUE, XOR, dtype_of_code
from z4ai.errors import CorruptError, LimitError, TruncatedError
from z4ai.options import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

__all__ = [
    "FrameIndex",
    "check_output",
    "decode_frame",
    "decode_jobs",
    "index_of_buffer",
    "index_of_range",
    "jobs_of_chunks",
    "models_of",
]

# A header without shape and tables; shapes of four dimensions fit as well.
_HEADER_GUESS = 128
# Of parts: their sizes are checked one by one.
_PART_LIMITS = Limits(max_output_nbytes=1 << 62, max_table_nbytes=1 << 24)


class FrameIndex(NamedTuple):
    """Where the parts of a frame lie.

    Attributes
    ----------
    header : FrameHeader
        The header.
    content_nbytes : int
        Bytes of content that the chunks hold, from header or trailer.
    offsets : ndarray of uint64, shape (n_chunks + 1,)
        Where each chunk begins, counted from the start of the frame, and where the last one ends.
    nbytes : int
        Size of the whole frame.
    """

    header: frame.FrameHeader
    content_nbytes: int
    offsets: NDArray[np.uint64]
    nbytes: int

    @property
    def n_chunks(self) -> int:
        return len(self.offsets) - 1

    @property
    def restored_nbytes(self) -> int:
        """Bytes of content, those that are copied included."""
        return self.content_nbytes + self.header.copied_nbytes


def check_output(nbytes: int, limits: Limits) -> None:
    """Check content that is to be restored into memory against the limit."""
    if nbytes > limits.max_output_nbytes:
        msg = f"content of {nbytes} bytes exceeds the limit of {limits.max_output_nbytes} bytes"
        raise LimitError(msg, option="max_output_nbytes")


def index_of_range(
    read: Callable[[int, int], memoryview], nbytes: int, limits: Limits, *, delta: bool = False
) -> FrameIndex:
    """Find the chunks of a frame through ranged reads: header and trailer only.

    Parameters
    ----------
    read : callable
        ``read(offset, nbytes)`` returns that range of the frame.
    nbytes : int
        Size of the frame.
    limits : Limits
        For the tables.
    delta : bool
        It must be a delta frame; else it must not.
    """
    guess = min(nbytes, _HEADER_GUESS)
    head = read(0, guess)
    try:
        header = frame.parse_header(head, limits, delta=delta)
    except TruncatedError:
        if guess == nbytes:
            raise
        # By now the claim of the tables has been checked against the limits.
        most = min(nbytes, frame.header_claim(head))
        header = frame.parse_header(read(0, most), limits, delta=delta)
    n = header.n_chunks
    if not header.has_trailer:
        return _without_trailer(header, nbytes)
    if n is None:
        if nbytes < header.nbytes + frame.trailer_nbytes(0):
            msg = "frame ends before its trailer"
            raise TruncatedError(msg, offset=nbytes)
        end = read(nbytes - frame.TRAILER_END_NBYTES, frame.TRAILER_END_NBYTES)
        n = frame.parse_trailer_claim(end, nbytes)
    _check_claim(header, n, nbytes, limits)
    size = min(frame.trailer_nbytes(n), nbytes - header.nbytes)
    sizes, content_nbytes = frame.parse_trailer(
        read(nbytes - size, size), header, limits, base=nbytes - size
    )
    index = _index(header, content_nbytes, sizes)
    if index.nbytes != nbytes:
        msg = f"chunks and trailer make {index.nbytes} bytes, the frame has {nbytes}"
        raise (TruncatedError if index.nbytes > nbytes else CorruptError)(msg, offset=nbytes)
    return index


def index_of_buffer(buf: memoryview, limits: Limits, *, delta: bool = False) -> FrameIndex:
    """Find the chunks of a frame that lies in memory, alone; as `index_of_range`."""
    return index_of_range(
        lambda offset, nbytes: buf[offset : offset + nbytes], len(buf), limits, delta=delta
    )


def _without_trailer(header: frame.FrameHeader, nbytes: int) -> FrameIndex:
    n = header.n_chunks or 0
    if n == 0 and nbytes != header.nbytes:
        msg = f"{nbytes - header.nbytes} bytes follow a frame without content"
        raise CorruptError(msg, offset=header.nbytes)
    if n and nbytes < header.nbytes + frame.least_chunk_nbytes(header):
        msg = f"frame ends after {nbytes} bytes, in its only chunk"
        raise TruncatedError(msg, offset=nbytes)
    offsets = np.array([header.nbytes, nbytes][: n + 1], np.uint64)
    return FrameIndex(header, header.content_nbytes or 0, offsets, nbytes)


def _check_claim(header: frame.FrameHeader, n_chunks: int, nbytes: int, limits: Limits) -> None:
    """Check that the frame is long enough for its chunks, before a table of them is made."""
    least = (
        header.nbytes + n_chunks * frame.least_chunk_nbytes(header) + frame.trailer_nbytes(n_chunks)
    )
    if nbytes < least:
        msg = f"frame of {nbytes} bytes, expected at least {least} for its {n_chunks} chunks"
        raise TruncatedError(msg, offset=nbytes)
    if 4 * n_chunks > limits.max_table_nbytes:
        msg = f"table of {n_chunks} chunks exceeds the limit of {limits.max_table_nbytes} bytes"
        raise LimitError(msg, option="max_table_nbytes")


def _index(header: frame.FrameHeader, content_nbytes: int, sizes: NDArray[np.uint32]) -> FrameIndex:
    offsets = np.empty(len(sizes) + 1, np.uint64)
    offsets[0] = header.nbytes
    np.cumsum(sizes, dtype=np.uint64, out=offsets[1:])
    offsets[1:] += np.uint64(header.nbytes)
    nbytes = int(offsets[-1]) + frame.trailer_nbytes(len(sizes))
    return FrameIndex(header, content_nbytes, offsets, nbytes)


def jobs_of_chunks(
    buf: memoryview,
    index: FrameIndex,
    first: int,
    last: int,
    *,
    base: int = 0,
    content_offset: int = 0,
) -> NDArray[np.void]:
    """Parse the headers of chunks `first` … `last` - 1.

    Parameters
    ----------
    buf : memoryview
        Bytes that hold those chunks.
    index : FrameIndex
        Of the frame.
    first, last : int
        Numbers of the chunks.
    base : int
        Where byte 0 of the frame would be in `buf` (negative if it lies before).
    content_offset : int
        Where the content of chunk `first` goes in the output.
    """
    # Of a streamed frame the trailer has told the size by now: each chunk must have its part of it.
    header = index.header._replace(content_nbytes=index.content_nbytes)
    jobs = np.zeros(last - first, JOB)
    rows = jobs.view(np.uint8).data
    bounds = (index.offsets[first : last + 1].astype(np.int64) + base).tolist()
    for row, (pos, end) in enumerate(pairwise(bounds)):
        k = first + row
        found = frame.parse_chunk_header(buf, pos, end, header, k, rows, row, content_offset)
        if found != end:
            msg = f"chunk of {found - pos} bytes where the frame has {end - pos}"
            raise CorruptError(msg, offset=pos, chunk=k)
        content_offset += header.chunk_content_nbytes(k)
    return jobs


def decode_frame(
    buf: memoryview, index: FrameIndex, out: NDArray[np.uint8], threads: int | None
) -> None:
    """Decode a whole frame that lies in memory into `out`."""
    jobs = jobs_of_chunks(buf, index, 0, index.n_chunks)
    decode_jobs(np.frombuffer(buf, np.uint8), out, jobs, models_of([index]), threads)
    if index.header.copies is not None:
        expand(out, index.header.copies, index.content_nbytes)


def models_of(indexes: Iterable[FrameIndex]) -> list[NDArray[np.uint8]]:
    """Models of frames, in order, for the kernels."""
    return [model for index in indexes for model in frame.models_of(index.header)]


def decode_jobs(
    encoded: NDArray[np.uint8],
    content: NDArray[np.uint8],
    jobs: NDArray[np.void],
    models: list[NDArray[np.uint8]],
    threads: int | None,
    *,
    first_chunk: int = 0,
    depth: int = 0,
    reference: NDArray[np.uint8] | None = None,
    fetch: run.Fetch | None = None,
) -> None:
    """Decode chunks, also those that are made of parts; as `run.decode_run`.

    depth : 0 for a frame of its own; see docs/format/codecs/structure.md. reference : of a delta
    frame; `reference_offset` of each job lies in it, with all its content.
    """

    def join(job: np.void) -> None:
        if reference is not None and int(job["layout"]) == XOR:
            _unmask(encoded, content, reference, job, depth)
        else:
            _join(encoded, content, job, depth)

    run.decode_run(
        encoded,
        content,
        jobs,
        threads,
        models=models,
        join=join,
        first_chunk=first_chunk,
        reference=reference,
        fetch=fetch,
    )


def _unmask(
    encoded: NDArray[np.uint8],
    content: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    job: np.void,
    depth: int,
) -> None:
    """Restore a chunk that is its reference, exclusive-or a part."""
    begin, nbytes = int(job["content_offset"]), int(job["content_nbytes"])
    at, size = int(job["stream_offset"][0]), int(job["stream_nbytes"][0])
    mask = _decode_part(encoded.data[at : at + size], nbytes, depth + 1)
    at = int(job["reference_offset"])
    np.bitwise_xor(mask, reference[at : at + nbytes], out=content[begin : begin + nbytes])


def _join(encoded: NDArray[np.uint8], content: NDArray[np.uint8], job: np.void, depth: int) -> None:
    """Restore a chunk that is made of parts."""
    from z4ai.parts import MAX_DEPTH, join_chunk  # noqa: PLC0415 - few frames have such chunks

    buf = encoded.data
    offset = int(job["encoded_offset"])
    if depth >= MAX_DEPTH:
        msg = f"parts within parts, more than {MAX_DEPTH} deep"
        raise CorruptError(msg, offset=offset)
    dtype = dtype_of_code(int(job["dtype"])) or OPAQUE
    begin, nbytes = int(job["content_offset"]), int(job["content_nbytes"])
    n = nbytes // dtype.width * dtype.width
    elements = content[begin : begin + n]
    streams = []
    for p in range(int(job["n_streams"])):
        at = int(job["stream_offset"][p])
        streams.append(buf[at : at + int(job["stream_nbytes"][p])])

    def decode(stream: memoryview, expected: int) -> NDArray[np.uint8]:
        return _decode_part(stream, expected, depth + 1)

    params = frame.chunk_params(buf, offset)
    join_chunk(int(job["layout"]), params, streams, decode, dtype, elements)
    if job["swap"]:
        planes.swap_bytes(elements, dtype.width, elements)
    at = int(job["tail_offset"])
    content[begin + n : begin + nbytes] = encoded[at : at + nbytes - n]


def _decode_part(stream: memoryview, nbytes: int, depth: int) -> NDArray[np.uint8]:
    """Decode a frame that must hold so much; its claim is checked before anything is allocated."""
    index = index_of_buffer(stream, _PART_LIMITS)
    header = index.header
    wrong = header.big_endian or header.copies is not None or header.content_nbytes is None
    if wrong or header.shape is not None:
        msg = "a part is an array, big-endian, streamed, or has copies"
        raise CorruptError(msg)
    if index.content_nbytes != nbytes:
        msg = f"part of {index.content_nbytes} bytes, expected {nbytes}"
        raise CorruptError(msg)
    out = np.empty(nbytes, np.uint8)
    jobs = jobs_of_chunks(stream, index, 0, index.n_chunks)
    encoded = np.frombuffer(stream, np.uint8)
    decode_jobs(encoded, out, jobs, models_of([index]), 1, depth=depth)
    return out
