"""Runs of chunks: content to encoded chunks and back, by the kernels or by a library."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, NoReturn

import numpy as np

from z4ai._fast import _threads, chunks, hashing
from z4ai.codecs import BROTLI, STORE, ZSTD
from z4ai.dtypes import BYTES1, FIRST_PARTS
from z4ai.errors import ChecksumError, CorruptError, FormatError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

__all__ = [
    "Fetch",
    "decode_run",
    "encode_bound",
    "encode_each",
    "encode_library_run",
    "encode_run",
]

_CORRUPT, _TRUNCATED, _UNSUPPORTED, _CAPACITY, _CHECKSUM, _MISSING = range(-1, -7, -1)
# From this level of the Zstandard library on, a chunk may take seconds.
_SLOW_LEVEL = 10
# Window of level 3: what lies further apart only a search for distant matches finds.
_LEAST_LONG_NBYTES = 2 << 20
# Z4_CODEC_PLAIN of z4_chunk.h, never on the wire: the bytes of a plane, or one a remainder.
_PLAIN = 254
# Where things lie in the encoded buffer.
_ENCODED_OFFSETS = [
    name for name in chunks.JOB.names or () if name.endswith("_offset") and name[:8] != "content_"
]
_WHY = {
    _CORRUPT: "breaks the rules of its codec",
    _TRUNCATED: "ends early",
    _CAPACITY: "does not fit the place it was given",
}


class Fetch(NamedTuple):
    """A file, and where in it the chunk of each job begins; `chunks.FETCHED`: it is in memory."""

    fd: int
    places: NDArray[np.uint64]


def encode_bound(content_nbytes: int, layout: int, gap: int, gap_stream: int) -> int:
    """Bytes of output that coding one chunk may touch."""
    return chunks.encode_bound(content_nbytes, layout, gap, gap_stream)


def encode_run(
    content: NDArray[np.uint8],
    out: NDArray[np.uint8],
    offset: int,
    jobs: NDArray[np.void],
    gap: int,
    gap_stream: int,
    threads: int | None,
    models: Sequence[NDArray[np.uint8]] = (),
    reference: NDArray[np.uint8] | None = None,
) -> int:
    """Encode chunks by the kernels, one behind the other; -> where the last one ends in `out`."""
    rows = jobs.view(np.uint8)
    with _threads.lease(threads, len(jobs)) as n_threads:
        return chunks.encode(
            content,
            out,
            offset,
            rows,
            gap,
            gap_stream,
            n_threads,
            models=models,
            **_beside(reference),
        )


def _beside(reference: NDArray[np.uint8] | None) -> dict[str, Any]:
    return {} if reference is None else {"reference": reference}


def encode_library_run(
    content: NDArray[np.uint8],
    out: NDArray[np.uint8],
    offset: int,
    jobs: NDArray[np.void],
    gap: int,
    gap_stream: int,
    threads: int | None,
    levels: tuple[int, ...],
    long: bool,
) -> int:
    """Encode chunks as opaque bytes by the Zstandard library, or store them; as `encode_run`.

    levels : each is tried; none stores. long : large chunks are also searched for distant matches,
    and the highest levels followed by what else the costly coders have.
    """
    from z4ai.codecs import zstd  # noqa: PLC0415 - as in _decode_by_library

    def encode_one(job: np.void) -> tuple[int, NDArray[np.uint8], int]:
        begin = int(job["content_offset"])
        chunk = content[begin : begin + int(job["content_nbytes"])]
        checksum = hashing.xxh3_64(chunk, int(job["seed"]))
        ways = _ways(len(chunk), long=long)
        tries = (zstd.encode(chunk.data, level, long=way) for level in levels for way in ways)
        coded = min(tries, key=len, default=None)
        codec = ZSTD
        if slow and coded is not None:
            from z4ai.codecs import best  # noqa: PLC0415 - slow tiers only

            codec, coded = best.refine(chunk, len(coded)) or (ZSTD, coded)
        if coded is None or len(coded) >= len(chunk):
            return STORE, chunk, checksum
        return codec, np.frombuffer(coded, np.uint8), checksum

    slow = max(levels, default=0) >= _SLOW_LEVEL
    encoded = _map(encode_one, jobs, threads, slow=slow)
    for job, (codec, stream, checksum) in zip(jobs, encoded, strict=True):
        begin = offset + int(job["lead"])
        at = begin + gap + gap_stream
        out[at : at + len(stream)] = stream
        offset = at + len(stream)
        job["layout"] = BYTES1
        job["n_streams"] = 1
        job["checksum"] = checksum
        job["stream_codec"][0] = codec
        job["stream_nbytes"][0] = len(stream)
        job["stream_offset"][0] = at
        job["tail_offset"] = offset
        job["encoded_offset"] = begin
        job["encoded_nbytes"] = offset - begin
    return offset


def _ways(nbytes: int, *, long: bool) -> tuple[bool, ...]:
    """With or without a search for distant matches: it pays from some MiB on."""
    if not long or nbytes <= _LEAST_LONG_NBYTES:
        return (False,)
    return (True,) if nbytes > 4 * _LEAST_LONG_NBYTES else (False, True)


def encode_each(
    encode_one: Callable[[np.void], tuple[NDArray[np.void], NDArray[np.uint8]]],
    out: NDArray[np.uint8],
    offset: int,
    jobs: NDArray[np.void],
    threads: int | None,
    *,
    slow: bool = False,
) -> int:
    """Encode chunks by a function that returns the job and the bytes of one; as `encode_run`."""
    encoded = _map(encode_one, jobs, threads, slow=slow)
    for k, (row, chunk) in enumerate(encoded):
        begin = offset + int(jobs["lead"][k])
        row["encoded_offset"] = begin
        row["tail_offset"] += np.uint64(begin)
        row["stream_offset"] += np.uint64(begin)
        row["lead"] = jobs["lead"][k]
        out[begin : begin + len(chunk)] = chunk
        offset = begin + len(chunk)
        jobs[k] = row[0]
    return offset


def decode_run(
    encoded: NDArray[np.uint8],
    content: NDArray[np.uint8],
    jobs: NDArray[np.void],
    threads: int | None,
    *,
    models: Sequence[NDArray[np.uint8]] = (),
    join: Callable[[np.void], None] | None = None,
    first_chunk: int = 0,
    tensor: str | None = None,
    reference: NDArray[np.uint8] | None = None,
    fetch: Fetch | None = None,
) -> None:
    """Decode chunks into `content` and verify each one's checksum.

    Parameters
    ----------
    encoded, content : ndarray of uint8
        Where the streams lie, and where the content goes.
    jobs : ndarray of JOB
        As `frame.parse_chunk_header` makes them.
    threads : int or None
        The caller's wish; None for the environment's default.
    models : sequence of ndarray
        What the jobs' `model` counts from 1.
    join : callable, optional
        Restores the content of a chunk that is made of parts, its checksum apart.
    first_chunk : int
        Number of the first job's chunk, for messages.
    tensor : str, optional
        Name of the tensor, for messages.
    reference : ndarray of uint8, optional
        What chunks of delta frames differ from.
    fetch : Fetch, optional
        Chunks are read to their places in `encoded` first.

    Raises
    ------
    CorruptError, ChecksumError, TruncatedError, UnsupportedCodecError
        For the lowest chunk that fails.
    """
    with _threads.lease(threads, len(jobs)) as n_threads:
        ok = chunks.decode(
            encoded,
            content,
            jobs.view(np.uint8),
            n_threads,
            models=models,
            fetch=fetch,
            **_beside(reference),
        )
    if ok:
        return
    failed = np.flatnonzero(jobs["status"])

    def decode_one(k: int) -> FormatError | None:
        job = jobs[k]
        try:
            if job["status"] != _UNSUPPORTED:
                _fail(job)
            if join is not None and int(job["layout"]) >= FIRST_PARTS:
                join(job)
                _check_content(content, job)
            else:
                _decode_by_library(encoded, content, job, models)
        except FormatError as error:
            error.chunk = first_chunk + k
            error.tensor = tensor
            return error
        return None

    for error in _map(decode_one, failed.tolist(), threads):
        if error is not None:
            raise error


def _fail(job: np.void) -> NoReturn:
    status = int(job["status"])
    if status == _CHECKSUM:
        msg = "restored content does not match its checksum"
        raise ChecksumError(msg)
    if status == _MISSING:
        msg = f"file ends in a chunk of {int(job['encoded_nbytes'])} bytes"
        raise TruncatedError(msg, offset=int(job["encoded_offset"]))
    msg = f"stream {int(job['stream'])} {_WHY.get(status, f'fails with status {status}')}"
    raise CorruptError(msg, offset=int(job["encoded_offset"]))


def _decode_by_library(
    encoded: NDArray[np.uint8],
    content: NDArray[np.uint8],
    job: np.void,
    models: Sequence[NDArray[np.uint8]],
) -> None:
    """Decode a chunk with streams that only a library reads: those first, then all by the kernels.

    The kernels get a copy of the chunk with the plain bytes of such streams behind it.
    """
    from z4ai.codecs import brotli, zstd  # noqa: PLC0415 - with libraries, and rarely needed

    begin, nbytes = int(job["encoded_offset"]), int(job["encoded_nbytes"])
    parts = [encoded[begin : begin + nbytes]]
    row = np.array([job])
    for field in _ENCODED_OFFSETS:
        row[field] -= np.uint64(begin)
    n = int(job["content_nbytes"]) // int(job["n_streams"])
    # Zstandard last: most such frames the kernels read themselves, and faster.
    for codec, decode in ((BROTLI, brotli.decode), (ZSTD, zstd.decode)):
        streams = np.flatnonzero(row["stream_codec"][0, : int(job["n_streams"])] == codec)
        for p in streams.tolist():
            at, size = int(job["stream_offset"][p]), int(job["stream_nbytes"][p])
            plain = decode(encoded[at : at + size].data, n)
            parts.append(np.frombuffer(plain, np.uint8))
            row["stream_codec"][0, p] = _PLAIN
            row["stream_offset"][0, p] = nbytes
            row["stream_nbytes"][0, p] = n
            nbytes += n
        if len(streams):
            chunks.decode(np.concatenate(parts), content, row.view(np.uint8), 1, models=models)
        if row["status"][0] != _UNSUPPORTED:
            break
    job["status"], job["stream"] = row["status"][0], row["stream"][0]
    if job["status"] == _UNSUPPORTED:
        codecs = sorted(set(row["stream_codec"][0, : int(job["n_streams"])].tolist()) - {_PLAIN})
        msg = f"transform {int(job['layout'])} with streams of codecs {codecs}"
        raise CorruptError(msg, offset=begin)
    if job["status"]:
        _fail(job)


def _check_content(content: NDArray[np.uint8], job: np.void) -> None:
    begin = int(job["content_offset"])
    restored = content[begin : begin + int(job["content_nbytes"])]
    if hashing.xxh3_64(restored, int(job["seed"])) != int(job["checksum"]):
        msg = "restored content does not match its checksum"
        raise ChecksumError(msg)
    job["status"] = 0


def _map(
    function: Callable[[Any], Any], items: Iterable[Any], threads: int | None, *, slow: bool = False
) -> Iterator[Any]:
    """Map in order; on a bounded pool where the library's work can overlap.

    `slow`: one call may take longer than Ctrl-C may wait, so even a single thread is another one.
    """
    items = list(items)
    with _threads.lease(threads, len(items)) as n_threads:
        if n_threads <= 1 and not slow:
            yield from map(function, items)
            return
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow to import, rare

        pool = ThreadPoolExecutor(n_threads)
        try:
            yield from pool.map(function, items)
        except BaseException:
            # What the threads are at they finish, for nobody: the library cannot be stopped.
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
