"""One chunk in every way that its plan allows, of which the smallest is kept.

The kernels code a chunk by symbols or planes; beside that there are parts (`z4ai.parts`), matches
by the Zstandard library, and the costly coders of single planes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai._fast import chunks, hashing, planes, symbols
from z4ai.codecs import CONTEXTS, FRAME, STORE, ZSTD, best, run, zstd
from z4ai.dtypes import BYTES1, SYMBOLS1
from z4ai.parts import BLOCKS, MATCHES, split_chunk
from z4ai.stages import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.plan import Plan
    from z4ai.stages._part import Part

__all__ = ["encode_best", "encode_blocks"]

# What a job says of a chunk of symbols.
_OF_SYMBOLS = ("params_nbytes", "model", "rows_nbytes", "rare_nbytes", "n_rare", "n_raw")
# Matches are worth trying on a chunk if they are not this far behind on a sample.
_SAMPLE_NBYTES = 1 << 17
_BEHIND_PERCENT = 115
# Of a chunk of blocks, what the Zstandard library makes of pieces of it: it must be this much
# larger for blocks to be taken without trying.
_PIECES, _PIECE_NBYTES = 4, 1 << 15
_SURE_PERCENT = 110


class _Chunk(NamedTuple):
    """An encoded chunk: its job, and what follows the table of its streams."""

    row: NDArray[np.void]
    params: bytes
    streams: list[NDArray[np.uint8]]
    tail: NDArray[np.uint8]

    def nbytes(self, gap: int, gap_stream: int) -> int:
        n = len(self.streams)
        params_nbytes = int(self.row["params_nbytes"][0])
        return gap + n * gap_stream + params_nbytes + sum(map(len, self.streams)) + len(self.tail)

    def pack(self, gap: int, gap_stream: int) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
        """Return the job and the bytes, as if the chunk began at byte 0."""
        row = self.row
        out = np.empty(self.nbytes(gap, gap_stream), np.uint8)
        at = gap + len(self.streams) * gap_stream
        out[at : at + len(self.params)] = np.frombuffer(self.params, np.uint8)
        at += int(row["params_nbytes"][0])
        for p in reversed(range(len(self.streams))):
            stream = self.streams[p]
            row["stream_offset"][0, p] = at
            row["stream_nbytes"][0, p] = len(stream)
            out[at : at + len(stream)] = stream
            at += len(stream)
        row["tail_offset"] = at
        row["encoded_nbytes"] = len(out)
        out[at:] = self.tail
        return row, out


def encode_best(
    content: NDArray[np.uint8],
    job: np.void,
    plan: Plan,
    dtype: DType,
    models: Sequence[NDArray[np.uint8]],
    gaps: tuple[int, int],
    encode_part: Callable[[Part, int], bytes],
) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    """Encode one chunk; -> its job and its bytes, with gaps for what the frame writes.

    Parameters
    ----------
    content : ndarray of uint8
        What the job's content lies in.
    job : void
        As for the kernels.
    plan : Plan
        What to try.
    dtype : DType
        Of the elements.
    models : sequence of ndarray
        What the job's `model` counts from 1.
    gaps : tuple of int
        Bytes to leave for the header of the chunk: fixed, and for each stream.
    encode_part : callable
        Makes a frame of a part of a chunk of the given transform.
    """
    row = np.array([job])
    row["lead"] = 0
    begin, nbytes = int(job["content_offset"]), int(job["content_nbytes"])
    n = nbytes // dtype.width * dtype.width
    chunk = content[begin : begin + nbytes]
    elements = chunk[:n]
    if job["swap"]:
        native = np.empty(n, np.uint8)
        planes.swap_bytes(elements, dtype.width, native)
        elements = native

    smallest = _by_kernels(content, row, plan, models, gaps)
    first = int(job["seed"]) // dtype.width
    found = split_chunk(plan.stages, elements, dtype, plan.row, first, encode_part)
    if found is not None:
        parts = [np.frombuffer(stream, np.uint8) for stream in found.streams]
        other = _another(row, smallest, found.transform, [FRAME] * len(parts))
        other["params_nbytes"] = len(found.params)
        by_parts = _Chunk(other, found.params, parts, chunk[n:])
        if by_parts.nbytes(*gaps) < smallest.nbytes(*gaps):
            smallest = by_parts
    if MATCHES in plan.stages and _may_match(chunk, smallest.nbytes(*gaps)):
        tries = (zstd.encode(chunk.data, level) for level in plan.match_levels)
        stream = np.frombuffer(min(tries, key=len), np.uint8)
        other = _another(row, smallest, BYTES1, [ZSTD])
        matched = _Chunk(other, b"", [stream], chunk[nbytes:])
        if matched.nbytes(*gaps) < smallest.nbytes(*gaps):
            smallest = matched
    if plan.effort == "max":
        _refine(smallest, chunk, elements)
    return smallest.pack(*gaps)


def encode_blocks(
    content: NDArray[np.uint8],
    job: np.void,
    plan: Plan,
    gaps: tuple[int, int],
    encode_part: Callable[[Part, int], bytes],
) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
    """Encode one chunk of a content whose blocks are known; everything as for `encode_best`."""
    row = np.array([job])
    row["lead"] = 0
    begin, nbytes = int(job["content_offset"]), int(job["content_nbytes"])
    chunk = content[begin : begin + nbytes]
    seed = int(job["seed"])
    row["checksum"] = hashing.xxh3_64(chunk, seed)
    stored = _Chunk(row, b"", [], chunk[nbytes:])

    def opaque(codec: int, stream: NDArray[np.uint8]) -> _Chunk:
        return _Chunk(_another(row, stored, BYTES1, [codec]), b"", [stream], chunk[nbytes:])

    smallest = opaque(STORE, chunk)
    runs = plan.blocks.cut(seed, seed + nbytes) if plan.blocks is not None else []
    split = blocks.split(chunk, runs) if any(run.format != blocks.BYTES for run in runs) else None
    if split is not None:
        parts = [np.frombuffer(encode_part(part, BLOCKS), np.uint8) for part in split.parts]
        other = _another(row, stored, BLOCKS, [FRAME] * len(parts))
        other["params_nbytes"] = len(split.params)
        by_blocks = _Chunk(other, split.params, parts, chunk[nbytes:])
        if by_blocks.nbytes(*gaps) < smallest.nbytes(*gaps):
            smallest = by_blocks
    if plan.effort == "max" or not _are_ahead(chunk, smallest.nbytes(*gaps)):
        for level in plan.zstd_levels or ():
            coded = opaque(ZSTD, np.frombuffer(zstd.encode(chunk.data, level), np.uint8))
            if coded.nbytes(*gaps) < smallest.nbytes(*gaps):
                smallest = coded
    return smallest.pack(*gaps)


def _are_ahead(chunk: NDArray[np.uint8], nbytes: int) -> bool:
    """Tell by pieces of a chunk whether `nbytes` are surely fewer than the library makes of it."""
    size = min(len(chunk) // _PIECES, _PIECE_NBYTES)
    starts = [k * (len(chunk) - size) // (_PIECES - 1) for k in range(_PIECES)]
    coded = sum(len(zstd.encode(chunk[at : at + size].data, 3)) for at in starts)
    return _SURE_PERCENT * nbytes * size * _PIECES < 100 * coded * len(chunk)


def _by_kernels(
    content: NDArray[np.uint8],
    row: NDArray[np.void],
    plan: Plan,
    models: Sequence[NDArray[np.uint8]],
    gaps: tuple[int, int],
) -> _Chunk:
    row = row.copy()
    out = np.empty(run.encode_bound(int(row["content_nbytes"][0]), plan.transform, *gaps), np.uint8)
    end = chunks.encode(content, out, 0, row.view(np.uint8), *gaps, 1, models=models)
    streams = []
    for p in range(int(row["n_streams"][0])):
        at = int(row["stream_offset"][0, p])
        streams.append(out[at : at + int(row["stream_nbytes"][0, p])])
    return _Chunk(row, b"", streams, out[int(row["tail_offset"][0]) : end])


def _another(
    row: NDArray[np.void], coded: _Chunk, transform: int, codecs: list[int]
) -> NDArray[np.void]:
    """Return the job of another coding of a chunk that has been coded."""
    other = row.copy()
    other["checksum"] = coded.row["checksum"]
    for field in (*_OF_SYMBOLS, "saved"):
        other[field] = 0
    other["layout"] = transform
    other["n_streams"] = len(codecs)
    other["stream_codec"][0, : len(codecs)] = codecs
    return other


def _may_match(chunk: NDArray[np.uint8], nbytes: int) -> bool:
    """Tell by a sample whether matches may make a chunk smaller than `nbytes`."""
    size = min(len(chunk), _SAMPLE_NBYTES)
    begin = (len(chunk) - size) // 2
    coded = len(zstd.encode(chunk[begin : begin + size].data, 3))
    return 100 * coded * len(chunk) < _BEHIND_PERCENT * nbytes * size


def _refine(coded: _Chunk, chunk: NDArray[np.uint8], elements: NDArray[np.uint8]) -> None:
    """Put smaller codings of single planes in the place of what they have."""
    row = coded.row
    transform = int(row["layout"][0])
    if transform == BYTES1:
        raw = [chunk]
    elif transform < SYMBOLS1:
        raw = planes.split(elements, transform)
    elif int(row["stream_codec"][0, 0]) == CONTEXTS:
        raw = symbols.split(elements, transform - SYMBOLS1)
    else:
        return
    for p, plane in enumerate(raw):
        if int(row["stream_codec"][0, p]) not in (STORE, ZSTD):
            continue
        found = best.refine(plane, len(coded.streams[p]))
        if found is not None:
            row["stream_codec"][0, p] = found[0]
            coded.streams[p] = np.frombuffer(found[1], np.uint8)
