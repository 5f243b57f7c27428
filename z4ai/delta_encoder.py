"""Write one delta frame: each chunk in the way that makes it the smallest.

Specification: docs/format/delta.md, docs/format/codecs/difference.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import frame
from z4ai._fast.chunks import JOB
from z4ai._fast.hashing import xxh3_64
from z4ai.codecs import FRAME, run
from z4ai.delta_frame import write_delta
from z4ai.dtypes import DIFFERENCE_WIDTHS, FIRST_PARTS, OPAQUE, SAME, SYMBOLS1, XOR
from z4ai.encoder import FrameEncoder, encode_frame
from z4ai.plan import STORE_PLAN, adapt_plan, make_plan

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.difference_choice import Hints
    from z4ai.dtypes import DType
    from z4ai.model import Model

__all__ = ["encode_delta"]

_GAP, _GAP_STREAM = frame.CHUNK_FIXED_NBYTES, frame.CHUNK_STREAM_NBYTES
# One chunk up to the first size; then chunks of the first, and of the second where there are many:
# what a chunk costs weighs more the less is left of its content.
_SMALL_CHUNK_NBYTES = 2 << 20
_LARGE_CHUNK_NBYTES = 1 << 20
_MANY = 4
# As much as chunks of symbols may hold.
_MOST_ELEMENTS = 1 << 22
# What shows whether exclusive-or is worth trying.
_SAMPLE_NBYTES = 1 << 16
# In the place of a size: there is no such coding.
_NEVER = 1 << 62


def encode_delta(
    content: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    dtype: DType,
    effort: str,
    shape: tuple[int, ...] | None,
    threads: int | None,
    *,
    digest: int | None = None,
    big_endian: bool = False,
    hints: Hints | None = None,
) -> bytes:
    """Compress content that resembles a reference to a delta frame.

    Parameters
    ----------
    content, reference : ndarray of uint8
        Flat and contiguous.
    dtype : DType
        Elements of both.
    effort : str
        The tier.
    shape : tuple of int or None
        The places of the content's elements, the last index running fastest.
    threads : int or None
        The caller's wish.
    digest : int, optional
        XXH3-128 of the reference, to be recorded with its size.
    big_endian : bool
        The elements are big-endian.
    hints : dict, optional
        Shared by frames that resemble one another: what was chosen for one shortens the choice for
        the next.
    """
    header = frame.FrameHeader(dtype, len(content), delta=True, big_endian=big_endian)
    if digest is not None:
        header = header._replace(reference=frame.Reference(len(reference), digest))
    if len(reference) < len(content):
        padded = np.zeros(len(content), np.uint8)
        padded[: len(reference)] = reference
        reference = padded
    reference = reference[: len(content)]
    if content.data == reference.data:
        header = header._replace(chunk_nbytes=STORE_PLAN.chunk_nbytes)
        return write_delta(header, _all_same(content, header.chunk_nbytes))
    header = header._replace(chunk_nbytes=_chunk_nbytes(len(content), dtype))
    encoder = _DeltaEncoder(header, content, reference, effort, shape, threads, hints)
    return encoder.encode()


def _chunk_nbytes(nbytes: int, dtype: DType) -> int:
    if nbytes <= _SMALL_CHUNK_NBYTES:
        return max(16, -(-nbytes // 16) * 16)
    if nbytes < _MANY * _LARGE_CHUNK_NBYTES:
        return _SMALL_CHUNK_NBYTES
    return min(_LARGE_CHUNK_NBYTES, _MOST_ELEMENTS * dtype.width)


class _Way(NamedTuple):
    """Chunks of a frame coded in one way: their jobs, and what these speak of."""

    jobs: NDArray[np.void]
    encoded: NDArray[np.uint8]
    number: NDArray[np.intp]


class _DeltaEncoder:
    """Encoder of one delta frame whose content lies in memory."""

    def __init__(
        self,
        header: frame.FrameHeader,
        content: NDArray[np.uint8],
        reference: NDArray[np.uint8],
        effort: str,
        shape: tuple[int, ...] | None,
        threads: int | None,
        hints: Hints | None,
    ) -> None:
        self._header = header
        self._content = content
        self._reference = reference
        self._effort = effort
        self._shape = shape
        self._threads = threads
        self._hints = None if effort == "max" else hints
        self._model: Model | None = None
        self._scratch_model: Model | None = None

    def encode(self) -> bytes:
        dtype = self._header.dtype
        apart = dtype is OPAQUE or self._header.big_endian
        first = None if apart else self._differences()
        ways = [] if first is None else [first]
        doubtful = self._all() if first is None else np.flatnonzero(first.jobs["doubtful"])
        if self._effort == "max":
            doubtful = self._all()
        if len(doubtful):
            if self._may_mask(first):
                ways.append(self._masked(doubtful))
            ways.append(self._from_scratch(doubtful))
        return self._smallest(ways)

    def _all(self) -> NDArray[np.intp]:
        return np.arange(self._header.n_chunks or 0)

    def _jobs(self, numbers: NDArray[np.intp]) -> NDArray[np.void]:
        """Describe chunks for the kernels, as they come from the content and the reference."""
        chunk_nbytes = self._header.chunk_nbytes
        jobs = np.zeros(len(numbers), JOB)
        starts = numbers.astype(np.uint64) * np.uint64(chunk_nbytes)
        jobs["content_offset"] = starts
        jobs["content_nbytes"] = np.minimum(
            np.uint64(len(self._content)) - starts, np.uint64(chunk_nbytes)
        )
        jobs["seed"] = starts
        jobs["reference_offset"] = starts
        return jobs

    # --- The ways ---------------------------------------------------------------------------------

    def _differences(self) -> _Way | None:
        """Code all chunks as differences; what does not fit becomes planes."""
        from z4ai.difference_choice import choose_difference  # noqa: PLC0415 - not to decode

        dtype = self._header.dtype
        self._model = choose_difference(
            self._content,
            self._reference,
            dtype,
            self._shape,
            thorough=self._effort == "max",
            hints=self._hints,
        )
        if self._model is None:
            return None
        jobs = self._jobs(self._all())
        jobs["layout"] = dtype.difference
        jobs["planes"] = jobs["other_layout"] = dtype.layout
        jobs["model"] = 1
        bound = sum(
            run.encode_bound(int(n), dtype.difference, _GAP, _GAP_STREAM)
            for n in jobs["content_nbytes"]
        )
        out = np.empty(bound, np.uint8)
        run.encode_run(
            self._content,
            out,
            0,
            jobs,
            _GAP,
            _GAP_STREAM,
            self._threads,
            [self._model.block],
            self._reference,
        )
        return _Way(jobs, out, self._all())

    def _from_scratch(self, numbers: NDArray[np.intp]) -> _Way:
        """Code chunks as a frame without a reference would."""
        dtype = self._header.dtype
        plan = adapt_plan(
            make_plan(dtype, self._effort),
            self._content,
            dtype,
            self._shape,
            big_endian=self._header.big_endian,
            in_memory=True,
        )
        encoder = FrameEncoder(self._header._replace(delta=False, reference=None), plan)
        out = np.empty(encoder.bound(len(self._content)), np.uint8)
        jobs = self._run(encoder, numbers, out)
        if not encoder.worth(int(jobs["saved"].sum())):
            encoder = FrameEncoder(encoder.header, plan.without_model())
            jobs = self._run(encoder, numbers, out)
        self._scratch_model = encoder.plan.model
        return _Way(jobs, out, numbers)

    def _run(
        self, encoder: FrameEncoder, numbers: NDArray[np.intp], out: NDArray[np.uint8]
    ) -> NDArray[np.void]:
        jobs = encoder.jobs(0, len(self._content))[numbers]
        encoder.encode_jobs(self._content, out, 0, jobs, self._threads, encoder.models)
        return jobs

    def _masked(self, numbers: NDArray[np.intp]) -> _Way:
        """Code chunks as frames of what they are, exclusive-or the reference."""
        dtype = self._header.dtype

        def encode_one(job: np.void) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
            begin, nbytes = int(job["content_offset"]), int(job["content_nbytes"])
            chunk = self._content[begin : begin + nbytes]
            mask = chunk ^ self._reference[begin : begin + nbytes]
            stream = _encode_part(mask, dtype, self._effort)
            out = np.empty(_GAP + _GAP_STREAM + len(stream), np.uint8)
            out[_GAP + _GAP_STREAM :] = np.frombuffer(stream, np.uint8)
            row = np.array([job])
            row["layout"] = XOR
            row["n_streams"] = 1
            row["checksum"] = xxh3_64(chunk, int(job["seed"]))
            row["stream_codec"][0, 0] = FRAME
            row["stream_offset"][0, 0] = _GAP + _GAP_STREAM
            row["stream_nbytes"][0, 0] = len(stream)
            row["tail_offset"] = row["encoded_nbytes"] = len(out)
            return row, out

        jobs = self._jobs(numbers)
        # Whatever the parts are: a frame never takes much more than its content.
        out = np.empty(sum(_bound(int(n)) for n in jobs["content_nbytes"]), np.uint8)
        slow = self._effort == "max"
        run.encode_each(encode_one, out, 0, jobs, self._threads, slow=slow)
        return _Way(jobs, out, numbers)

    def _may_mask(self, differences: _Way | None) -> bool:
        """Tell by a sample whether exclusive-or may be smaller than differences."""
        if differences is None or self._effort == "max":
            return True
        n = min(len(self._content), _SAMPLE_NBYTES) // 16 * 16
        if n == 0:
            return False
        begin = (len(self._content) - n) // 2 // 16 * 16
        mask = self._content[begin : begin + n] ^ self._reference[begin : begin + n]
        masked = len(_encode_part(mask, self._header.dtype, "fast"))
        sizes = int(differences.jobs["encoded_nbytes"].sum())
        return masked * len(self._content) < sizes * n

    # --- The frame --------------------------------------------------------------------------------

    def _smallest(self, ways: list[_Way]) -> bytes:
        """Put the frame together of the smallest coding of each chunk."""
        n = self._header.n_chunks or 0
        sizes = np.full((len(ways), n), _NEVER)
        transforms = np.zeros((len(ways), n), np.uint8)
        for w, way in enumerate(ways):
            sizes[w, way.number] = way.jobs["encoded_nbytes"]
            transforms[w, way.number] = way.jobs["layout"]
        header = self._header
        if self._model is not None:
            needed = transforms >= min(DIFFERENCE_WIDTHS)
            sizes, pays = _spare(sizes, needed, self._model)
            if pays:
                header = header._replace(difference_record=self._model.record)
        if self._scratch_model is not None:
            needed = (transforms >= SYMBOLS1) & (transforms < FIRST_PARTS)
            sizes, pays = _spare(sizes, needed, self._scratch_model)
            if pays:
                header = header._replace(model_record=self._scratch_model.record)
        return write_delta(header, [_pick(ways[w], k) for k, w in enumerate(np.argmin(sizes, 0))])


def _spare(
    sizes: NDArray[np.int64], needed: NDArray[np.bool_], model: Model
) -> tuple[NDArray[np.int64], bool]:
    """Do without a model where its record takes more than it saves; -> sizes, whether it stays.

    sizes : of each chunk in each way. needed : where the model is.
    """
    without = np.where(needed, _NEVER, sizes)
    record_nbytes = len(model.record) + frame.RECORD_HEADER_NBYTES
    least = without.min(0)
    if least.max(initial=0) < _NEVER and least.sum() <= sizes.min(0).sum() + record_nbytes:
        return without, False
    return sizes, bool((needed & (sizes == sizes.min(0))).any())


def _pick(way: _Way, k: int) -> tuple[np.void, NDArray[np.uint8]]:
    job = way.jobs[np.searchsorted(way.number, k)]
    begin = int(job["encoded_offset"])
    return job, way.encoded[begin : begin + int(job["encoded_nbytes"])]


def _all_same(
    content: NDArray[np.uint8], chunk_nbytes: int
) -> list[tuple[np.void, NDArray[np.uint8]]]:
    """Chunks of content that is its reference."""
    jobs = np.zeros(-(-len(content) // chunk_nbytes), JOB)
    for k, job in enumerate(jobs):
        begin = k * chunk_nbytes
        chunk = content[begin : begin + chunk_nbytes]
        job["content_nbytes"] = len(chunk)
        job["checksum"] = xxh3_64(chunk, begin)
        job["layout"] = SAME
        job["encoded_nbytes"] = _GAP
    return [(job, np.empty(_GAP, np.uint8)) for job in jobs]


def _encode_part(content: NDArray[np.uint8], dtype: DType, effort: str) -> bytes:
    """Make a frame that may be a part of a chunk: one without copies."""
    plan = make_plan(dtype, effort)._replace(depth=1)
    plan = adapt_plan(plan, content, dtype, None)
    header = frame.FrameHeader(dtype, len(content), plan.chunk_nbytes)
    return encode_frame(content, header, plan, 1)


def _bound(nbytes: int) -> int:
    """Most bytes that a chunk takes whose content is stored in a part."""
    return nbytes + (nbytes >> 8) + 256
