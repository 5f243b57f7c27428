"""Frames of a container to the content of its tensors, a bounded wave of it at a time."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import frame
from z4ai._fast.chunks import FETCHED, JOB
from z4ai.codecs.run import Fetch
from z4ai.container.encode import (
    IN_PLACE_WAVE_NBYTES,
    join_jobs,
    number_models,
    wave_nbytes,
)
from z4ai.container.source import Scratch, Source, read
from z4ai.copies import expand, pieces
from z4ai.decoder import FrameIndex, decode_jobs, index_of_range, jobs_of_chunks, models_of
from z4ai.errors import CorruptError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from z4ai.container.sink import Sink
    from z4ai.container.st_header import Tensor
    from z4ai.container.zstn import Location
    from z4ai.options import Limits

__all__ = ["TensorDecoder"]

# A frame of as much is not read before it is decoded: the workers fetch its chunks.
_FETCHED_NBYTES = 1 << 18
# What is read around the content of frames that hardly shrink: their headers.
_SLACK = 1 << 20
# A tensor of less is allocated on the index's word alone.
_TRUSTED_NBYTES = 1 << 22
# Frames with copies are restored as a whole up to this size.
_RESTORED_NBYTES = 1 << 26
# How much content may be decoded that no tensor asked for: tensors may share frames.
_WASTE_FACTOR = 8
_WASTE_NBYTES = 1 << 29


class _Item(NamedTuple):
    """A frame in a wave: whose it is, where it begins in the container and in what was read.

    late : its chunks are fetched when they are decoded.
    """

    tensor: Tensor
    offset: int
    nbytes: int
    base: int
    late: bool = False


class TensorDecoder:
    """Decoder of tensors of one container; not to be shared between threads.

    Parameters
    ----------
    source : Source
        The container.
    limits : Limits
        For the tables of frames.
    threads : int or None
        The caller's wish.
    done : callable, optional
        Called with the number of content bytes that have been committed.
    """

    def __init__(
        self,
        source: Source,
        limits: Limits,
        threads: int | None,
        done: Callable[[int], None] | None = None,
    ) -> None:
        self._source = source
        self._memory = source.memory
        self._limits = limits
        self._threads = threads
        self._done = done
        self._wave = 0
        self._encoded = Scratch()
        self._edge = Scratch()
        self._chunk: tuple[int, int, NDArray[np.uint8]] | None = None
        self._frame: tuple[int, FrameIndex] | None = None
        self._waste = 0
        self._n_chunks = 0

    @property
    def n_chunks(self) -> int:
        """Chunks that were decoded."""
        return self._n_chunks

    @property
    def waste(self) -> int:
        """Content that was decoded and that nobody asked for, in bytes."""
        return self._waste

    # --- Many tensors -----------------------------------------------------------------------------

    def decode_all(
        self, tensors: Sequence[Tensor], locations: Sequence[Location], sink: Sink
    ) -> None:
        """Decode tensors, one behind the other, into `sink`."""
        most_waste = _WASTE_NBYTES + _WASTE_FACTOR * (
            self._source.nbytes + sum(t.end - t.begin for t in tensors)
        )
        self._choose_wave(sink)
        k = 0
        while k < len(tensors):
            stop = self._wave_end(tensors, locations, k)
            k += self._decode_wave(tensors[k:stop], locations[k:stop], sink)
            if k < stop:
                self.decode(tensors[k], locations[k], 0, tensors[k].nbytes, sink)
                k += 1
            if self._waste > most_waste:
                msg = "frames hold far more content than the tensors that lie in them"
                raise CorruptError(msg, tensor=tensors[k - 1].name)

    def _choose_wave(self, sink: Sink) -> None:
        in_place = self._memory is not None and sink.in_place
        self._wave = IN_PLACE_WAVE_NBYTES if in_place else wave_nbytes(self._threads)

    def _wave_end(
        self, tensors: Sequence[Tensor], locations: Sequence[Location], first: int
    ) -> int:
        """The tensor at which a wave that begins with `first` ends: one at least is in it."""
        content = encoded = 0
        for k in range(first, len(tensors)):
            content += tensors[k].end - tensors[k].begin
            encoded += locations[k][1]
            if content > self._wave or encoded > self._wave + _SLACK:
                return max(k, first + 1)
        return len(tensors)

    def _decode_wave(
        self, tensors: Sequence[Tensor], locations: Sequence[Location], sink: Sink
    ) -> int:
        """Decode tensors that have a frame each; -> how many, up to the first that has not."""
        if len(tensors) == 1 and locations[0][1] > self._wave + _SLACK:
            return 0
        items, encoded = self._read_frames(tensors, locations)
        jobs: list[NDArray[np.void]] = []
        models: list[list[NDArray[np.uint8]]] = []
        content_nbytes = held_nbytes = 0
        count = len(tensors)
        for k, item in enumerate(items):
            if item.nbytes == 0:
                jobs.append(_NO_JOBS)
                models.append([])
                continue
            with _Blame(item):
                index = self._index(item, encoded)
            whole = locations[k][2] == 0 and index.content_nbytes == item.tensor.nbytes
            whole = whole and index.header.copies is None
            if item.late and whole:
                self._read_heads(encoded, item, index, 0, index.n_chunks)
            model = index.header.model
            # A model can be far larger than its record: they count as what they take in memory.
            held_nbytes += 0 if model is None else model.nbytes
            if not whole or content_nbytes + index.content_nbytes + held_nbytes > self._wave:
                count = k
                break
            with _Blame(item, item.base):
                mine = jobs_of_chunks(
                    encoded,
                    index,
                    0,
                    index.n_chunks,
                    base=item.base,
                    content_offset=content_nbytes,
                )
            jobs.append(mine)
            models.append(models_of([index]))
            content_nbytes += index.content_nbytes
        if content_nbytes:
            content = sink.room(content_nbytes)
            self._run(encoded, content, jobs, models, items)
            self._commit(sink, content)
        return count

    def _index(self, item: _Item, encoded: memoryview) -> FrameIndex:
        if item.late:
            return self._index_of_source(item.offset, item.nbytes)
        view = encoded[item.base : item.base + item.nbytes]
        return index_of_range(lambda at, n: view[at : at + n], item.nbytes, self._limits)

    def _read_frames(
        self, tensors: Sequence[Tensor], locations: Sequence[Location]
    ) -> tuple[list[_Item], memoryview]:
        """Bring the frames of a wave into memory; neighbours by one read."""
        if self._memory is not None:
            items = [_Item(t, at, n, at) for t, (at, n, _) in zip(tensors, locations, strict=True)]
            return items, self._memory.data
        buffer = self._encoded.take(sum(nbytes for _, nbytes, _ in locations)).data
        items = []
        fill = 0
        begin, end, base = 0, 0, 0
        for tensor, (offset, nbytes, _) in zip(tensors, locations, strict=True):
            if self._source.fetches and nbytes >= _FETCHED_NBYTES:
                self._source.announce(offset, offset + nbytes)
                items.append(_Item(tensor, offset, nbytes, fill, late=True))
                if end > begin:
                    self._source.read_into(begin, buffer[base:fill])
                fill += nbytes
                begin = end = 0
                continue
            if nbytes and offset != end:
                if end > begin:
                    self._source.read_into(begin, buffer[base:fill])
                begin, end, base = offset, offset, fill
            items.append(_Item(tensor, offset, nbytes, fill))
            fill += nbytes
            end += nbytes
        if end > begin:
            self._source.read_into(begin, buffer[base:fill])
        return items, buffer

    def check_claims(self, tensors: Sequence[Tensor], locations: Sequence[Location]) -> None:
        """Ask the frames of large tensors before memory is allocated on the index's word."""
        for tensor, location in zip(tensors, locations, strict=True):
            if tensor.end - tensor.begin >= _TRUSTED_NBYTES:
                self.frame_index(tensor, location)

    # --- One tensor -------------------------------------------------------------------------------

    def frame_index(self, tensor: Tensor, location: Location) -> FrameIndex:
        """Find the chunks of a tensor's frame, and check that the tensor lies in it."""
        offset, nbytes, content_offset = location
        if self._frame is not None and self._frame[0] == offset:
            index = self._frame[1]
        else:
            item = _Item(tensor, offset, nbytes, 0)
            with _Blame(item):
                index = self._index_of_source(offset, nbytes)
            self._frame = offset, index
            self._waste += index.offsets.nbytes
        if content_offset + tensor.nbytes > index.restored_nbytes:
            msg = f"tensor of {tensor.nbytes} bytes at {content_offset} is not within its frame"
            raise CorruptError(msg, tensor=tensor.name, offset=offset)
        return index

    def _index_of_source(self, offset: int, nbytes: int) -> FrameIndex:
        return index_of_range(
            lambda at, n: read(self._source, offset + at, n), nbytes, self._limits
        )

    def decode(self, tensor: Tensor, location: Location, begin: int, end: int, sink: Sink) -> None:
        """Decode the bytes `begin` … `end` of a tensor, from those chunks alone."""
        if begin >= end:
            return
        self._choose_wave(sink)
        index = self.frame_index(tensor, location)
        before = self._waste
        begin += location[2]
        end += location[2]
        copies = index.header.copies
        if copies is None:
            self._decode_range(tensor, location, index, begin, end, sink)
        elif index.restored_nbytes <= _RESTORED_NBYTES:
            content = self._restore(tensor, location[0], index)
            self._waste += len(content) - (end - begin)
            part = sink.room(end - begin)
            part[:] = content[begin:end]
            self._commit(sink, part)
        else:
            for _, dense, nbytes in pieces(copies, begin, end):
                self._decode_range(tensor, location, index, dense, dense + nbytes, sink)
                if self._waste - before > _WASTE_NBYTES + _WASTE_FACTOR * (end - begin):
                    msg = "copies ask for far more content than they restore"
                    raise CorruptError(msg, tensor=tensor.name, offset=location[0])

    def _restore(self, tensor: Tensor, offset: int, index: FrameIndex) -> NDArray[np.uint8]:
        """Restore all content of a frame that has copies."""
        content = np.empty(index.restored_nbytes, np.uint8)
        dense = content[: index.content_nbytes]
        self._decode_chunks(tensor, offset, index, 0, index.n_chunks, dense)
        if index.header.copies is not None:
            expand(content, index.header.copies, index.content_nbytes)
        return content

    def _decode_range(
        self,
        tensor: Tensor,
        location: Location,
        index: FrameIndex,
        begin: int,
        end: int,
        sink: Sink,
    ) -> None:
        """Decode a range of what the chunks of a frame hold."""
        chunk_nbytes = index.header.chunk_nbytes
        k = begin // chunk_nbytes
        while begin < end:
            at = k * chunk_nbytes
            whole = min(chunk_nbytes, index.content_nbytes - at)
            if begin > at or end < at + whole:
                chunk = self._decode_edge(tensor, location[0], index, k)
                stop = min(end, at + whole)
                part = sink.room(stop - begin)
                part[:] = chunk[begin - at : stop - at]
                self._waste += whole - len(part)
                k += 1
            else:
                last = self._run_of_chunks(index, k, end)
                stop = min(last * chunk_nbytes, index.content_nbytes)
                part = sink.room(stop - begin)
                self._decode_chunks(tensor, location[0], index, k, last, part)
                k = last
            self._commit(sink, part)
            begin = stop

    def _run_of_chunks(self, index: FrameIndex, first: int, end: int) -> int:
        """Number of the chunk behind those that can be decoded at once, up to content `end`."""
        chunk_nbytes = index.header.chunk_nbytes
        last = index.n_chunks if end == index.content_nbytes else end // chunk_nbytes
        last = min(last, first + max(1, self._wave // chunk_nbytes))
        most = int(index.offsets[first]) + self._wave + _SLACK
        fits = int(np.searchsorted(index.offsets, most, side="right")) - 1
        return max(first + 1, min(last, fits))

    def _decode_edge(
        self, tensor: Tensor, offset: int, index: FrameIndex, k: int
    ) -> NDArray[np.uint8]:
        """Decode a chunk of which a part is wanted; tensors may be neighbours in one chunk."""
        if self._chunk is not None and self._chunk[:2] == (offset, k):
            return self._chunk[2]
        begin = k * index.header.chunk_nbytes
        self._chunk = None
        chunk = self._edge.take(min(index.header.chunk_nbytes, index.content_nbytes - begin))
        self._decode_chunks(tensor, offset, index, k, k + 1, chunk)
        self._chunk = offset, k, chunk
        return chunk

    def _decode_chunks(
        self,
        tensor: Tensor,
        offset: int,
        index: FrameIndex,
        first: int,
        last: int,
        content: NDArray[np.uint8],
    ) -> None:
        begin, end = int(index.offsets[first]), int(index.offsets[last])
        late = self._source.fetches and end - begin >= _FETCHED_NBYTES
        base = offset if self._memory is not None else -begin
        item = _Item(tensor, offset, index.nbytes, base, late)
        if self._memory is not None:
            encoded = self._memory.data
        elif late:
            encoded = self._encoded.take(end - begin).data
            self._source.announce(offset + begin, offset + end)
            self._read_heads(encoded, item, index, first, last)
        else:
            encoded = read(self._source, offset + begin, end - begin, self._encoded)
        with _Blame(item, base):
            jobs = jobs_of_chunks(encoded, index, first, last, base=base)
        self._run(encoded, content, [jobs], [models_of([index])], [item], first)

    def _read_heads(
        self, encoded: memoryview, item: _Item, index: FrameIndex, first: int, last: int
    ) -> None:
        """Read of chunks that will be fetched what tells how they are decoded."""
        bounds = index.offsets[first : last + 1].tolist()
        for at, end in pairwise(bounds):
            n = min(end - at, frame.CHUNK_HEAD_NBYTES)
            begin = item.base + at
            self._source.read_into(item.offset + at, encoded[begin : begin + n])

    # --- The kernels ------------------------------------------------------------------------------

    def _run(
        self,
        encoded: memoryview,
        content: NDArray[np.uint8],
        jobs: list[NDArray[np.void]],
        models: list[list[NDArray[np.uint8]]],
        items: Sequence[_Item],
        first_chunk: int = 0,
    ) -> None:
        """Decode chunks of several frames; an error names the tensor and its own chunk."""
        known = number_models(list(zip(jobs, models, strict=True)))
        together = jobs[0] if len(jobs) == 1 else join_jobs(jobs)
        self._n_chunks += len(together)
        places = _places(items, jobs, together)
        try:
            with self._source.fetching() if places is not None else nullcontext(-1) as fd:
                decode_jobs(
                    np.frombuffer(encoded, np.uint8),
                    content,
                    together,
                    known,
                    self._threads,
                    first_chunk=first_chunk,
                    fetch=None if places is None else Fetch(fd, places),
                )
        except FormatError as error:
            if error.chunk is None:
                raise
            chunk = error.chunk - first_chunk
            for item, mine in zip(items, jobs, strict=False):
                if chunk < len(mine):
                    error.tensor = item.tensor.name
                    error.chunk = chunk + first_chunk
                    if error.offset is not None:
                        error.offset += item.offset - item.base
                    break
                chunk -= len(mine)
            raise

    def _commit(self, sink: Sink, content: NDArray[np.uint8]) -> None:
        sink.commit(len(content))
        if self._done is not None:
            self._done(len(content))


_NO_JOBS = np.empty(0, JOB)


def _places(
    items: Sequence[_Item], jobs: list[NDArray[np.void]], together: NDArray[np.void]
) -> NDArray[np.uint64] | None:
    """Where the chunks of late frames begin in the container; None if there are none."""
    pairs = list(zip(items, jobs, strict=False))
    if not any(item.late for item, _ in pairs):
        return None
    shifts = [item.offset - item.base for item, _ in pairs]
    counts = [len(mine) for _, mine in pairs]
    places = together["encoded_offset"] + np.repeat(np.array(shifts, np.int64), counts).astype(
        np.uint64
    )
    places[np.repeat([not item.late for item, _ in pairs], counts)] = FETCHED
    return places


class _Blame:
    """Context in which an error about a frame gets its tensor, and its offset in the container."""

    def __init__(self, item: _Item, base: int = 0) -> None:
        self._item = item
        self._base = base

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, FormatError) and error.tensor is None:
            error.tensor = self._item.tensor.name
            if error.offset is not None:
                error.offset += self._item.offset - self._base
