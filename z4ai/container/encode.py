"""Content of many tensors to frames, one behind the other, a bounded wave of it at a time."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import frame
from z4ai._fast import _threads
from z4ai._fast.chunks import JOB
from z4ai.codecs import run
from z4ai.container.source import Scratch
from z4ai.encoder import FrameEncoder, encode_content, encode_frame, find_copies
from z4ai.plan import PART_CHUNK_NBYTES, Plan, adapt_plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from z4ai.container.sink import Sink
    from z4ai.dtypes import DType
    from z4ai.stages.blocks import Layout

__all__ = ["IN_PLACE_WAVE_NBYTES", "FrameWaves", "join_jobs", "number_models", "wave_nbytes"]

_GAP, _GAP_STREAM = frame.CHUNK_FIXED_NBYTES, frame.CHUNK_STREAM_NBYTES
_MIB = 1 << 20
# The same where nothing is copied, from memory to memory.
IN_PLACE_WAVE_NBYTES = 128 * _MIB


def wave_nbytes(threads: int | None) -> int:
    """Content to work on at a time: some chunks a thread, up to what memory may show."""
    return min(max(16, 4 * _threads.effective(threads, 1 << 10)), 40) * _MIB


# A tensor up to this size is judged as a whole, a larger one by a sample, whatever the wave: so any
# number of threads and all doors make the same bytes.
_WHOLE_NBYTES = 32 * _MIB
# Every wave that begins a frame has so much of it, or all.
_PAID_NBYTES = PART_CHUNK_NBYTES
# Content of that sample, and in how many pieces.
_SAMPLE_NBYTES = 8 * _MIB
_SAMPLES = 16


class _Piece(NamedTuple):
    """Content of one frame in a wave."""

    number: int
    encoder: FrameEncoder
    jobs: NDArray[np.void]
    header_nbytes: int  # in front of the first job; 0 where the frame goes on
    last: bool


class FrameWaves:
    """Writer of frames; frames of many small tensors are coded together, by all threads.

    Parameters
    ----------
    sink : Sink
        Takes the encoded bytes.
    position : int
        Where the first frame begins, for `frames`.
    effort : str
        A tier of `options.EFFORTS`.
    threads : int or None
        The caller's wish.
    done : callable, optional
        Called with the number of content bytes that have been coded.

    Attributes
    ----------
    frames : list of (int, int)
        Offset and size of each frame, by the numbers that `add` returned; complete for a frame
        after `flush`.
    position : int
        Where the next frame begins, after `flush`.
    """

    def __init__(
        self,
        sink: Sink,
        position: int,
        effort: str,
        threads: int | None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self._sink = sink
        self._effort = effort
        self._threads = threads
        self._done = done
        self._wave = wave_nbytes(threads)
        self._room = self._wave
        self._buffer = Scratch()
        self._content: NDArray[np.uint8] | None = None
        self._levels: tuple[int, ...] | None = None
        self._fill = 0
        self._pieces: list[_Piece] = []
        self.frames: list[tuple[int, int]] = []
        self.position = position

    def add(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        nbytes: int,
        read_into: Callable[[int, memoryview], None],
        blocks: Layout | None = None,
    ) -> int:
        """Add a frame; -> its number.

        Parameters
        ----------
        dtype : DType
            Type of the elements.
        shape : tuple of int
            Of the tensor, in the order of the content.
        nbytes : int
            Bytes of content.
        read_into : callable
            ``read_into(begin, view)`` fills `view` with the content from `begin` on.
        blocks : Layout, optional
            What opaque content is made of.
        """
        return self._add(dtype, shape, nbytes, None, 0, read_into, blocks)

    def add_from(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        content: NDArray[np.uint8],
        begin: int,
        nbytes: int,
        blocks: Layout | None = None,
    ) -> int:
        """Add a frame of content that lies in memory; nothing of it is copied.

        It must not change before the next `flush`, and all frames of a wave take from one array.
        """
        read_into = _reader_of(content[begin : begin + nbytes])
        return self._add(dtype, shape, nbytes, content, begin, read_into, blocks)

    def _add(
        self,
        dtype: DType,
        shape: tuple[int, ...],
        nbytes: int,
        content: NDArray[np.uint8] | None,
        begin: int,
        read_into: Callable[[int, memoryview], None],
        blocks: Layout | None,
    ) -> int:
        plan = make_plan(dtype, self._effort, blocks)
        number = len(self.frames)
        self.frames.append((0, 0))
        if self._pieces and (content is not self._content or plan.zstd_levels != self._levels):
            self.flush()
        self._content = content
        self._levels = plan.zstd_levels
        in_place = content is not None and self._sink.in_place
        self._room = IN_PLACE_WAVE_NBYTES if in_place else self._wave
        done = 0
        chunk_nbytes = plan.chunk_nbytes
        encoder = None
        alone = False
        while True:
            take = self._take(nbytes - done, plan)
            offset = self._fill if content is None else begin + done
            if content is None and take:
                read_into(done, self._buffer.take(self._room)[offset : offset + take].data)
            if encoder is None:
                if nbytes > _WHOLE_NBYTES:
                    sample = _sample(dtype, shape, nbytes, read_into)
                elif content is not None:
                    sample = content[begin : begin + nbytes]
                elif take == nbytes:
                    sample = self._buffer.take(self._room)[offset : offset + take]
                else:
                    sample = np.empty(nbytes, np.uint8)
                    read_into(0, sample.data)
                rows = _rows_of(shape, dtype, nbytes, len(sample))
                if len(sample) == nbytes:
                    plan, encoded = self._adapt(plan, sample, dtype, rows)
                    if encoded is not None:
                        self._put(number, encoded, nbytes)
                        return number
                else:
                    plan = adapt_plan(plan, sample, dtype, rows, nbytes=nbytes)
                    if self._effort == "max" and blocks is None:
                        plan = self._settle(plan, sample, dtype, rows, nbytes)
                if take < nbytes and take % plan.chunk_nbytes:
                    plan = plan._replace(stages=(), chunk_nbytes=chunk_nbytes)
                alone = bool(plan.stages) or plan.effort == "max" or blocks is not None
                if alone:
                    self.flush()
                    self._content = content
                encoder = FrameEncoder(frame.FrameHeader(dtype, nbytes, plan.chunk_nbytes), plan)
            last = done + take == nbytes
            self._push(number, encoder, offset, take, first=done == 0, last=last)
            done += take
            if alone:
                self.flush()
                self._content = content
            if last:
                return number

    def _settle(
        self,
        plan: Plan,
        sample: NDArray[np.uint8],
        dtype: DType,
        shape: tuple[int, ...] | None,
        nbytes: int,
    ) -> Plan:
        """Keep the model of the tier below if a sample does not get smaller by the one searched."""
        below = adapt_plan(make_plan(dtype, "balanced"), sample, dtype, shape, nbytes=nbytes)
        sizes = []
        for model in (plan.model, below.model):
            tried = below._replace(
                model=model, stages=(), transform=dtype.symbols if model else below.layout
            )
            header = frame.FrameHeader(dtype, len(sample), tried.chunk_nbytes)
            sizes.append(len(encode_frame(sample, header, tried, self._threads)))
        if sizes[0] < sizes[1]:
            return plan
        return plan._replace(model=below.model, transform=below.transform)

    def _adapt(
        self, plan: Plan, content: NDArray[np.uint8], dtype: DType, shape: tuple[int, ...] | None
    ) -> tuple[Plan, bytes | None]:
        """Adapt a plan to a whole content; -> it, and the frame where it is not made in a wave."""
        if plan.effort == "fast" or not len(content):
            return adapt_plan(plan, content, dtype, shape), None
        adapted = None
        in_ways_of_its_own = plan.effort == "max" or plan.blocks is not None
        if not in_ways_of_its_own and find_copies(content, dtype, shape)[0] is None:
            adapted = adapt_plan(plan, content, dtype, shape, in_memory=True)
            if not adapted.stages:
                return adapted, None
        encoded = encode_content(
            content,
            frame.FrameHeader(dtype, len(content)),
            self._effort,
            shape,
            self._threads,
            plan.blocks,
            adapted,
        )
        return plan, encoded

    def add_encoded(self, encoded: bytes, content_nbytes: int) -> int:
        """Add a frame that has been made of so much content; -> its number."""
        number = len(self.frames)
        self.frames.append((0, 0))
        self._put(number, encoded, content_nbytes)
        return number

    def _put(self, number: int, encoded: bytes, content_nbytes: int) -> None:
        self.flush()
        self._sink.room(len(encoded))[:] = np.frombuffer(encoded, np.uint8)
        self._sink.commit(len(encoded))
        self.frames[number] = self.position, len(encoded)
        self.position += len(encoded)
        if self._done is not None:
            self._done(content_nbytes)

    def _take(self, nbytes: int, plan: Plan) -> int:
        """Content of the frame that goes into this wave, or into the next if none fits."""
        largest = max(plan.chunk_nbytes, min(PART_CHUNK_NBYTES, self._room))
        room = self._room - self._fill
        if nbytes <= room:
            return nbytes
        if room < largest:
            self.flush()
            room = self._room
        return min(nbytes, room - room % largest)

    def _push(
        self, number: int, encoder: FrameEncoder, offset: int, take: int, *, first: bool, last: bool
    ) -> None:
        lead = len(encoder.header_bytes) if first else 0
        before = self._pieces[-1] if self._pieces else None
        if before is not None and before.last:
            lead += _trailer_nbytes(before.encoder)
        jobs = encoder.jobs(offset, take, lead)
        header_nbytes = len(encoder.header_bytes) if first else 0
        self._pieces.append(_Piece(number, encoder, jobs, header_nbytes, last))
        self._fill += take
        if not take:
            # A frame without content has no job that could leave room for its header.
            self.flush()

    def flush(self) -> None:
        """Code and write what has been added."""
        pieces, self._pieces = self._pieces, []
        content_nbytes, self._fill = self._fill, 0
        if not pieces:
            return
        models = number_models([(piece.jobs, piece.encoder.models) for piece in pieces])
        jobs = join_jobs([piece.jobs for piece in pieces])
        out = self._sink.room(self._bound(pieces, jobs))
        end = self._encode(out, pieces[0].encoder, jobs, models)
        if self._drop_models(pieces, jobs):
            jobs = join_jobs([piece.jobs for piece in pieces])
            end = self._encode(out, pieces[0].encoder, jobs, models)
        view = out.data
        start = 0
        position = 0
        behind = b""
        for piece in pieces:
            stop = start + len(piece.jobs)
            mine = jobs[start:stop]
            start = stop
            # The trailer of the frame before goes right behind its last chunk.
            view[position : position + len(behind)] = behind
            position += len(behind)
            behind = b""
            if piece.header_nbytes:
                self.frames[piece.number] = (self.position + position, 0)
                view[position : position + piece.header_nbytes] = piece.encoder.header_bytes
                position += piece.header_nbytes
            if len(mine):
                piece.encoder.seal(view, mine)
                position = int(mine["encoded_offset"][-1]) + int(mine["encoded_nbytes"][-1])
            if piece.last:
                behind = piece.encoder.trailer()
                offset = self.frames[piece.number][0]
                nbytes = self.position + position + len(behind) - offset
                self.frames[piece.number] = (offset, nbytes)
        end = max(end, position)
        view[end : end + len(behind)] = behind
        end += len(behind)
        self._sink.commit(end)
        self.position += end
        if self._done is not None:
            self._done(content_nbytes)

    def _bound(self, pieces: list[_Piece], jobs: NDArray[np.void]) -> int:
        """Room that coding the wave needs."""
        around = sum(piece.header_nbytes for piece in pieces)
        around += sum(_trailer_nbytes(piece.encoder) for piece in pieces if piece.last)
        content_nbytes = int(jobs["content_nbytes"].sum())
        largest = int(jobs["content_nbytes"].max(initial=0))
        layouts = {piece.encoder.plan.transform for piece in pieces}
        # What a chunk may touch before it turns out that storing it is smaller.
        slack = max(run.encode_bound(largest, layout, _GAP, _GAP_STREAM) for layout in layouts)
        return around + content_nbytes + len(jobs) * (_GAP + _GAP_STREAM) + slack

    def _saved(self, piece: _Piece, saved: NDArray[np.uint32]) -> int:
        """Bytes that the model of a frame saves, by chunks that are there for any size of waves."""
        header = piece.encoder.header
        n = max(1, _PAID_NBYTES // header.chunk_nbytes)
        some = int(saved[:n].sum())
        return some if not header.n_chunks else some * header.n_chunks // min(n, len(saved) or 1)

    def _drop_models(self, pieces: list[_Piece], jobs: NDArray[np.void]) -> bool:
        """Go back to planes for frames whose model does not pay; -> whether there were any."""
        start = 0
        some = False
        for k, piece in enumerate(pieces):
            stop = start + len(piece.jobs)
            saved = self._saved(piece, jobs["saved"][start:stop])
            start = stop
            if not piece.header_nbytes or not len(piece.jobs) or piece.encoder.worth(saved):
                continue
            piece.encoder.drop_model()
            piece.jobs["layout"] = piece.encoder.plan.transform
            piece.jobs["model"] = 0
            header_nbytes = len(piece.encoder.header_bytes)
            piece.jobs["lead"][0] -= np.uint32(piece.header_nbytes - header_nbytes)
            pieces[k] = piece._replace(header_nbytes=header_nbytes)
            some = True
        return some

    def _encode(
        self,
        out: NDArray[np.uint8],
        encoder: FrameEncoder,
        jobs: NDArray[np.void],
        models: list[NDArray[np.uint8]],
    ) -> int:
        content = self._content
        if content is None:
            content = self._buffer.take(self._room)
        if not len(jobs):
            return 0
        # Frames of one wave are of one kind, or one frame is alone.
        return encoder.encode_jobs(content, out, 0, jobs, self._threads, models)


def _sample(
    dtype: DType,
    shape: tuple[int, ...],
    nbytes: int,
    read_into: Callable[[int, memoryview], None],
) -> NDArray[np.uint8]:
    """Read stretches of whole rows, spread over content that is not judged as a whole."""
    row_nbytes = nbytes // shape[0] if shape and shape[0] and nbytes % shape[0] == 0 else 0
    if row_nbytes == 0 or row_nbytes > _SAMPLE_NBYTES // _SAMPLES or row_nbytes % dtype.width:
        row_nbytes = dtype.width
    size = _SAMPLE_NBYTES // _SAMPLES // row_nbytes * row_nbytes
    gap = (nbytes - size) // (_SAMPLES - 1) // row_nbytes * row_nbytes
    sample = np.empty(size * _SAMPLES, np.uint8)
    for k in range(_SAMPLES):
        read_into(k * gap, sample[k * size : (k + 1) * size].data)
    return sample


def _reader_of(content: NDArray[np.uint8]) -> Callable[[int, memoryview], None]:
    def read_into(begin: int, view: memoryview) -> None:
        view[:] = content[begin : begin + len(view)].data

    return read_into


def _rows_of(
    shape: tuple[int, ...], dtype: DType, nbytes: int, sample_nbytes: int
) -> tuple[int, ...] | None:
    """Shape of a sample of whole rows, or of a whole tensor; None if its elements have none."""
    if not shape or prod(shape) * dtype.width != nbytes:
        return None
    if sample_nbytes == nbytes:
        return shape
    rows, rest = divmod(sample_nbytes * shape[0], nbytes)
    return (rows, *shape[1:]) if rest == 0 else None


def number_models(
    pieces: list[tuple[NDArray[np.void], list[NDArray[np.uint8]]]],
) -> list[NDArray[np.uint8]]:
    """Join the models of several frames, and let the jobs of each count among them all."""
    models: list[NDArray[np.uint8]] = []
    for jobs, mine in pieces:
        if models and mine:
            jobs["model"] += np.uint32(len(models)) * (jobs["model"] != 0)
        models += mine
    return models


def join_jobs(jobs: list[NDArray[np.void]]) -> NDArray[np.void]:
    """Concatenate jobs; as bytes, since NumPy would compare the fields of each array first."""
    return np.concatenate([mine.view(np.uint8) for mine in jobs]).view(JOB)


def _trailer_nbytes(encoder: FrameEncoder) -> int:
    header = encoder.header
    return frame.trailer_nbytes(header.n_chunks or 0) if header.has_trailer else 0
