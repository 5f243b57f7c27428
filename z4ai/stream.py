"""`compress_stream` and `decompress_stream`: frames between file objects, in bounded memory."""

from __future__ import annotations

from contextlib import contextmanager
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from z4ai import frame
from z4ai._fast import _threads
from z4ai._fast.chunks import JOB
from z4ai._fileobj import read_some, write_all
from z4ai.codec import check_extents, check_shape
from z4ai.copies import expand
from z4ai.decoder import check_output, decode_jobs
from z4ai.dtypes import OPAQUE, is_auto, resolve
from z4ai.encoder import FrameEncoder
from z4ai.errors import CorruptError, FormatError, TruncatedError
from z4ai.options import Limits, resolve_effort, resolve_limits
from z4ai.plan import (
    BLOCKS_HEAD_NBYTES,
    adapt_plan,
    find_blocks,
    make_plan,
    may_have_blocks,
    resolve_or_guess,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["compress_stream", "decompress_stream", "stats_of"]

# Content in flight: enough chunks to keep every thread busy while the last ones of a run finish.
_CHUNKS_PER_THREAD = 4
_LEAST_CHUNKS = 8
_MOST_NBYTES = 128 << 20
# Content by which the rest is judged: so much for any number of threads, so that they make the
# same bytes.
_JUDGED_NBYTES = 8 << 20


def wave_chunks(threads: int | None, chunk_nbytes: int) -> int:
    """Number of chunks to code at a time, for so many threads; fewer where they are large."""
    wanted = max(_LEAST_CHUNKS, _CHUNKS_PER_THREAD * _threads.effective(threads, 1 << 10))
    return max(1, min(wanted, _MOST_NBYTES // chunk_nbytes))


def stats_of(original_nbytes: int, compressed_nbytes: int) -> dict[str, Any]:
    """Sizes as every function that writes a file reports them."""
    return {
        "original_bytes": original_nbytes,
        "compressed_bytes": compressed_nbytes,
        "ratio": original_nbytes / compressed_nbytes if compressed_nbytes else 1.0,
        "saved_pct": 100 * (1 - compressed_nbytes / original_nbytes) if original_nbytes else 0.0,
    }


def compress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    dtype: Any = None,
    effort: str | None = None,
    shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Compress what can be read from `src` to one frame, written to `dst`.

    Neither file needs to seek. Memory is a few chunks a thread, whatever the size.

    Parameters
    ----------
    src, dst : binary file objects
        Read until its end; written in order.
    dtype, effort, shape, threads
        As for `compress`; what is judged by a sample, such as ``dtype="auto"``, is judged by the
        first 8 MiB. Whether `shape` fits the content turns out at its end.

    Returns
    -------
    dict
        ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct``; ``dtype``, the code of
        what the content was taken for, ``"gguf"`` for such a file, None for opaque bytes.

    Raises
    ------
    ValueError
        As `compress`. If it is the shape that does not fit, `dst` has been written.

    Examples
    --------
    >>> import io, z4ai
    >>> packed, back = io.BytesIO(), io.BytesIO()
    >>> z4ai.compress_stream(io.BytesIO(b"weights"), packed)["original_bytes"]
    7
    >>> _ = packed.seek(0)
    >>> z4ai.decompress_stream(packed, back), back.getvalue()
    (7, b'weights')
    """
    tier = resolve_effort(effort)
    if not is_auto(dtype):
        check_extents(shape, resolve(dtype))  # before anything is read
    elif shape is not None:
        msg = "a shape needs a dtype, got dtype='auto'"
        raise ValueError(msg)
    judged = np.empty(_JUDGED_NBYTES, np.uint8)
    n = _read_into(src, judged)
    judged = judged[:n]
    ended = n < _JUDGED_NBYTES
    blocks = find_blocks(dtype, judged, tier)
    if blocks is None and not ended and may_have_blocks(dtype, judged, tier):
        # The header alone may be larger.
        more = np.empty(BLOCKS_HEAD_NBYTES, np.uint8)
        more[:n] = judged
        n += _read_into(src, more[n:])
        judged = more[:n]
        ended = n < BLOCKS_HEAD_NBYTES
        blocks = find_blocks(dtype, judged, tier)
    resolved = OPAQUE if blocks is not None else resolve_or_guess(dtype, judged, tier)
    total = n if ended else 1 << 62
    places = check_extents(shape, resolved)
    rows, places = _whole_rows(judged, places, resolved)
    plan = adapt_plan(make_plan(resolved, tier, blocks), rows, resolved, places, nbytes=total)
    room = plan.chunk_nbytes * max(
        wave_chunks(threads, plan.chunk_nbytes), -(-n // plan.chunk_nbytes)
    )
    content = np.empty(room, np.uint8)
    content[:n] = judged
    del judged, rows
    if not ended:
        n += _read_into(src, content[n:])
    header = frame.FrameHeader(resolved, None, plan.chunk_nbytes)
    encoder = FrameEncoder(header, plan)
    out = np.empty(encoder.bound(room), np.uint8)
    done = end = 0
    if plan.model is not None:
        # The header cannot be taken back: whether a model pays, what is judged must show.
        done = min(n, _JUDGED_NBYTES)
        end = encoder.encode(content[:done], out, 0, threads)
        if not encoder.pays:
            encoder = FrameEncoder(header, plan.without_model())
            done = end = 0
    write_all(dst, memoryview(encoder.header_bytes))
    write_all(dst, out[:end].data)
    compressed = len(encoder.header_bytes) + end
    while True:
        end = encoder.encode(content[done:n], out, 0, threads)
        done = 0
        write_all(dst, out[:end].data)
        compressed += end
        if n < room:
            break
        n = _read_into(src, content)
    trailer = encoder.trailer()
    write_all(dst, memoryview(trailer))
    if shape is not None:
        check_shape(shape, encoder.content_nbytes, resolved)
    stats = stats_of(encoder.content_nbytes, compressed + len(trailer))
    name = "gguf" if blocks is not None else resolved.name if resolved.code else None
    return {**stats, "dtype": name}


def _whole_rows(
    judged: NDArray[np.uint8], shape: tuple[int, ...] | None, dtype: DType
) -> tuple[NDArray[np.uint8], tuple[int, ...] | None]:
    """Take the rows that are there as a whole; -> them, and their shape if there are any."""
    row_nbytes = prod(shape[1:]) * dtype.width if shape is not None and len(shape) > 1 else 0
    if shape is None or not 0 < row_nbytes <= len(judged):
        return judged, None
    n = min(len(judged) // row_nbytes, shape[0])
    return judged[: n * row_nbytes], (n, *shape[1:])


def decompress_stream(
    src: BinaryIO,
    dst: BinaryIO,
    *,
    threads: int | None = None,
    limits: Limits | None = None,
) -> int:
    """Restore the content of the frame that can be read from `src`, and write it to `dst`.

    Neither file needs to seek. Memory is a few chunks a thread, whatever the size; a chunk is
    written only after its checksum was verified.

    Parameters
    ----------
    src, dst : binary file objects
        Holds one frame, alone; written in order.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    limits : Limits, optional
        Only ``max_table_nbytes`` applies: the content is never held as a whole.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    FormatError
        If the frame is truncated, corrupt, or of another version. The chunks before the damage
        have been written then.
    LimitError
        If its tables are larger than `limits` allow.

    Examples
    --------
    >>> import io, z4ai
    >>> back = io.BytesIO()
    >>> z4ai.decompress_stream(io.BytesIO(z4ai.compress(b"weights")), back)
    7
    >>> back.getvalue()
    b'weights'
    """
    limits = resolve_limits(limits)
    source = _Source(src)
    header = _read_header(source, limits)
    most = wave_chunks(threads, header.chunk_nbytes)
    sizes: list[int] = []
    written = 0
    ended = False
    restored = np.empty(0, np.uint8)
    if header.copies is not None:
        check_output((header.content_nbytes or 0) + header.copied_nbytes, limits)
        restored = np.empty((header.content_nbytes or 0) + header.copied_nbytes, np.uint8)
    while not ended:
        jobs, content_nbytes, ended = _gather(source, header, len(sizes), most)
        if not len(jobs):
            break
        content = np.empty(content_nbytes, np.uint8)
        with _offsets_from(source.offset):
            models = [] if header.model is None else [header.model]
            decode_jobs(source.bytes(), content, jobs, models, threads, first_chunk=len(sizes))
        sizes += jobs["encoded_nbytes"].tolist()
        source.drop(int(jobs["encoded_nbytes"].sum()))
        if header.copies is None:
            write_all(dst, content.data)
        else:
            # Ranges are copied from anywhere before them: all of the content is held.
            restored[written : written + content_nbytes] = content
        written += content_nbytes
    if header.has_trailer:
        _read_trailer(source, header, sizes, written, limits)
    if source.fill(1):
        msg = "bytes follow the end of the frame"
        raise CorruptError(msg, offset=source.offset)
    if header.copies is not None:
        expand(restored, header.copies, written)
        write_all(dst, restored.data)
    return written + header.copied_nbytes


@contextmanager
def _offsets_from(offset: int) -> Iterator[None]:
    """Count the offsets of errors from the start of the file, not of what was read ahead."""
    try:
        yield
    except FormatError as error:
        if error.offset is not None:
            error.offset += offset
        raise


class _Source:
    """Bytes read ahead from a file object.

    Attributes
    ----------
    offset : int
        Bytes of the file that have been dropped so far.
    """

    def __init__(self, src: BinaryIO) -> None:
        self._src = src
        self._room = np.empty(1 << 16, np.uint8)
        self._nbytes = 0
        self.offset = 0

    def fill(self, nbytes: int) -> int:
        """Read until `nbytes` bytes are there, or the file ends; -> how many there are."""
        if nbytes > len(self._room):
            room = np.empty(max(nbytes, 2 * len(self._room)), np.uint8)
            room[: self._nbytes] = self.bytes()
            self._room = room
        if nbytes > self._nbytes:
            self._nbytes += _read_into(self._src, self._room[self._nbytes : nbytes])
        return self._nbytes

    def bytes(self) -> NDArray[np.uint8]:
        """View what is there; valid until the next `fill` or `drop`."""
        return self._room[: self._nbytes]

    def drop(self, nbytes: int) -> None:
        rest = self._nbytes - nbytes
        self._room[:rest] = self._room[nbytes : self._nbytes].copy()
        self._nbytes = rest
        self.offset += nbytes


def _read_header(source: _Source, limits: Limits) -> frame.FrameHeader:
    want = 128
    while True:
        have = source.fill(want)
        try:
            header = frame.parse_header(source.bytes().data, limits)
        except TruncatedError:
            if have < want:
                raise
            want *= 2
        else:
            source.drop(header.nbytes)
            return header


def _gather(
    source: _Source, header: frame.FrameHeader, first: int, most: int
) -> tuple[NDArray[np.void], int, bool]:
    """Read the next chunks; -> their jobs, their content bytes, whether the frame's chunks end."""
    jobs = np.zeros(most, JOB)
    rows = jobs.view(np.uint8).data
    n = pos = content_nbytes = 0
    total = header.n_chunks
    while n < most and (total is None or first + n < total):
        have = source.fill(pos + frame.CHUNK_SIZES_NBYTES)
        if total is None and frame.is_end_mark(source.bytes().data, pos):
            return jobs[:n], content_nbytes, True
        if have < pos + frame.CHUNK_SIZES_NBYTES:
            msg = "file ends where a chunk should begin"
            raise TruncatedError(msg, offset=source.offset + have, chunk=first + n)
        encoded, content = frame.parse_chunk_sizes(source.bytes().data, pos)
        # Only so much is read on the word of a chunk; parse_chunk_header says what is wrong.
        claim = min(encoded, frame.most_chunk_nbytes(header))
        have = source.fill(pos + claim)
        with _offsets_from(source.offset):
            pos = frame.parse_chunk_header(
                source.bytes().data, pos, have, header, first + n, rows, n, content_nbytes
            )
        content_nbytes += content
        n += 1
        if content < header.chunk_nbytes:
            # The last one, or an end mark must follow, which the next round checks.
            if total is None:
                have = source.fill(pos + frame.CHUNK_SIZES_NBYTES)
                complete = have >= pos + frame.CHUNK_SIZES_NBYTES
                if complete and not frame.is_end_mark(source.bytes().data, pos):
                    msg = f"chunk {first + n - 1} is not full, yet another follows"
                    raise CorruptError(msg, offset=source.offset + pos)
            break
    return jobs[:n], content_nbytes, total is not None and first + n >= total


def _read_trailer(
    source: _Source,
    header: frame.FrameHeader,
    sizes: list[int],
    content_nbytes: int,
    limits: Limits,
) -> None:
    nbytes = frame.trailer_nbytes(len(sizes))
    have = source.fill(nbytes)
    if have < nbytes:
        msg = f"trailer ends after {have} bytes, expected {nbytes}"
        raise TruncatedError(msg, offset=source.offset + have)
    found, total = frame.parse_trailer(
        source.bytes()[:nbytes].data, header, limits, base=source.offset
    )
    if found.tolist() != sizes or total != content_nbytes:
        msg = "trailer does not match the chunks before it"
        raise CorruptError(msg, offset=source.offset)
    source.drop(nbytes)


def _read_into(src: BinaryIO, content: NDArray[np.uint8]) -> int:
    """Fill `content` from `src`; -> bytes read, fewer than its size only at the end."""
    n = 0
    while n < len(content):
        piece = read_some(src, len(content) - n)
        if not piece:
            break
        content[n : n + len(piece)] = np.frombuffer(piece, np.uint8)
        n += len(piece)
    return n
