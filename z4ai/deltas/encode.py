"""A target into a model delta: each tensor in the way that takes least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.align import FileTensors, align, model_digest, n_items, whole
from z4ai.container import st_header
from z4ai.container.dedup import same_as
from z4ai.container.encode import FrameWaves
from z4ai.container.original import parse_original
from z4ai.container.sink import put
from z4ai.container.small import SMALL_NBYTES
from z4ai.container.zstn import HEADER_NBYTES
from z4ai.deltas.blocks import BlockCoder
from z4ai.deltas.models import digests_of
from z4ai.deltas.records import (
    BLOCKS,
    COPY,
    FRAME,
    FROM_NAME,
    FROM_PIECES,
    FROM_TARGET,
    FROM_WHOLE,
    SCRATCH,
    Block,
    Entry,
    write_record,
)
from z4ai.deltas.references import Reference, named
from z4ai.deltas.small import SmallTensors
from z4ai.deltas.stats import describe
from z4ai.deltas.z4dm import Ends, ModelDelta, copy_checksums, write_end, write_start

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from z4ai.align import Alignment
    from z4ai.container.sink import Sink
    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.deltas.blocks import Coded
    from z4ai.deltas.models import Base
    from z4ai.difference_choice import Hints

__all__ = ["Compression"]

_COMPARED_NBYTES = 4 << 20
# What a record may take beside the reference: places of frames.
_PLACE_NBYTES = 16
# A record of many pieces must be small beside the tensor.
_FREE_RECORD_NBYTES = 64
_RECORD_SHARE = 16


class Compression:
    """A target to be compressed against a base.

    Parameters
    ----------
    source : Source
        The `.safetensors` file.
    base : Base
        What it may resemble.

    Raises
    ------
    FormatError
        If safetensors would refuse the file.
    """

    def __init__(self, source: Source, base: Base) -> None:
        self._source = source
        self._base = base
        self.nbytes = source.nbytes
        self._header_bytes, self._header = parse_original(source)
        self._start = 8 + len(self._header_bytes)
        self._tensors = self._header.tensors
        self._model = FileTensors(source, self._start, self._header)
        self._entries: list[Entry | None] = [None] * len(self._tensors)

    def bound(self) -> int:
        """Memory that `write` may touch, as for a container."""
        return self.nbytes + (self.nbytes >> 10) + 512 * len(self._tensors) + (64 << 20)

    def write(
        self, sink: Sink, effort: str, threads: int | None, done: Callable[[int], None]
    ) -> dict[str, Any]:
        """Write the model delta, and describe it."""
        self._effort, self._threads = effort, threads
        self._hints: Hints = {}
        digests = digests_of(self._model)
        theirs = self._base.digests()
        alignments = align(self._model, self._base, digests, theirs)
        put(sink, write_start())
        done(self._start)
        self._done = done
        self._waves = FrameWaves(sink, HEADER_NBYTES, effort, threads, done)
        self._small = SmallTensors(self._waves, effort, threads, self._place_small)
        first = same_as(self._source, self._start, self._tensors)
        origins: dict[int, Entry] = {}
        self._origins = origins
        for k, alignment in enumerate(alignments):
            self._add(k, alignment, first[k])
            self._base.release()
        self._small.flush()
        self._waves.flush()
        entries = [self._resolved(k) for k in range(len(self._tensors))]
        ends = Ends(
            self._base.nbytes,
            _number(model_digest(self._base.tensors, theirs)),
            _number(model_digest(self._tensors, digests)),
        )
        checksums = copy_checksums(entries, self._tensors, self._model)
        end = write_end(
            self._header_bytes,
            entries,
            checksums,
            self._header.data_nbytes,
            self._waves.position,
            ends,
            effort,
        )
        put(sink, end)
        nbytes = self._waves.position + len(end)
        # They hold the sink, whose memory the caller wants back.
        del self._waves, self._small
        delta = ModelDelta(self._header_bytes, self._header, entries, checksums, self.nbytes, ends)
        return describe(delta, nbytes)

    # --- One tensor -------------------------------------------------------------------------------

    def _add(self, k: int, alignment: Alignment | None, first: int) -> None:
        tensor = self._tensors[k]
        if not tensor.nbytes:
            self._entries[k] = Entry(SCRATCH)
            return
        reference = None
        if alignment is not None:
            reference = Reference(tensor, alignment, self._base)
            self._origins[k] = self._origin(tensor, alignment)
            if self._record_nbytes(k) > _FREE_RECORD_NBYTES + tensor.nbytes // _RECORD_SHARE:
                reference = None
            elif self._is_copy(k, reference):
                self._entries[k] = self._origins[k]._replace(coding=COPY)
                self._done(tensor.nbytes)
                return
        if first != k:
            self._entries[k] = Entry(COPY, FROM_TARGET, source=first)
            self._done(tensor.nbytes)
        elif tensor.nbytes < SMALL_NBYTES:
            self._add_small(k, reference)
        elif reference is None or not self._add_delta(k, reference):
            self._add_scratch(k)

    def _origin(self, tensor: Tensor, alignment: Alignment) -> Entry:
        """Say in an entry where a reference lies, in as few bytes as that takes."""
        piece = alignment.pieces[0]
        is_whole = piece.source >= 0 and alignment == whole(tensor, piece.source)
        if is_whole and n_items(self._base.tensors[piece.source]) == piece.width:
            if named(tensor, self._base) == piece.source:
                return Entry(COPY, FROM_NAME)
            return Entry(COPY, FROM_WHOLE, source=piece.source)
        return Entry(COPY, FROM_PIECES, outer=alignment.outer, pieces=alignment.pieces)

    def _record_nbytes(self, k: int) -> int:
        """Bytes of the index that a delta takes beyond those of a frame of its own."""
        origin = self._origins[k]
        return 0 if origin.origin == FROM_NAME else len(write_record(origin)) + _PLACE_NBYTES

    def _read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        return self._model.read(k, begin, end)

    def _is_copy(self, k: int, reference: Reference) -> bool:
        """Tell whether a tensor is its reference; digests alone are not trusted with that."""
        if reference.has_new:
            return False
        nbytes = self._tensors[k].nbytes
        # A look at the beginning tells most.
        step = reference.item << 10
        begin = 0
        while begin < nbytes:
            end = min(begin + step, nbytes)
            there = reference.gather(begin // reference.item, end // reference.item)
            if not np.array_equal(self._read(k, begin, end), there):
                return False
            begin, step = end, _COMPARED_NBYTES
        return True

    def _add_small(self, k: int, reference: Reference | None) -> None:
        tensor = self._tensors[k]
        content = self._read(k, 0, tensor.nbytes)
        known = None
        if reference is not None and not reference.has_new:
            known = reference.gather(0, reference.n_items)
        record = self._record_nbytes(k) if known is not None else 0
        dtype = st_header.dtype_of(tensor.dtype)
        self._small.add(k, dtype, tensor.shape, content, known, record)

    def _place_small(self, k: int, frame: int, at: int, delta: bool) -> None:
        entry = self._origins[k]._replace(coding=FRAME) if delta else Entry(SCRATCH)
        self._entries[k] = entry._replace(location=(frame, 0, at))

    def _add_scratch(self, k: int) -> None:
        tensor = self._tensors[k]
        source, begin = self._source, self._start + tensor.begin
        dtype = st_header.dtype_of(tensor.dtype)
        if source.memory is not None:
            number = self._waves.add_from(dtype, tensor.shape, source.memory, begin, tensor.nbytes)
        else:

            def read_into(at: int, view: memoryview) -> None:
                source.read_into(begin + at, view)

            number = self._waves.add(dtype, tensor.shape, tensor.nbytes, read_into)
        self._entries[k] = Entry(SCRATCH, location=(number, 0, 0))

    # --- Differences ------------------------------------------------------------------------------

    def _add_delta(self, k: int, reference: Reference) -> bool:
        """Code a tensor against its reference; -> whether it was written, in one way or another."""
        tensor = self._tensors[k]
        item = reference.item

        def read_items(begin: int, end: int) -> NDArray[np.uint8]:
            return self._read(k, begin * item, end * item)

        coder = BlockCoder(
            tensor,
            reference,
            read_items,
            self._record_nbytes(k),
            self._effort,
            self._threads,
            self._hints,
        )
        if not coder.looks_related():
            return False
        first = coder.code(0)
        if coder.n_blocks == 1:
            self._entries[k] = self._alone(self._origins[k], coder, first, tensor)
            return True
        if not first.delta and first.has_reference:
            return False
        entry = self._origins[k]._replace(coding=BLOCKS, block=coder.block)
        blocks = [self._put_block(first)]
        blocks += (self._put_block(coder.code(b)) for b in range(1, coder.n_blocks))
        factors = self._put_factors(coder)
        self._entries[k] = entry._replace(blocks=tuple(blocks), factors=factors)
        return True

    def _alone(self, origin: Entry, coder: BlockCoder, block: Coded, tensor: Tensor) -> Entry:
        """Write the only block of a tensor."""
        if not block.delta:
            number = self._waves.add_encoded(block.frame, tensor.nbytes)
            return Entry(SCRATCH, location=(number, 0, 0))
        factors = self._put_factors(coder)
        if block.new is None:
            number = self._waves.add_encoded(block.frame, tensor.nbytes)
            return origin._replace(coding=FRAME, location=(number, 0, 0), factors=factors)
        blocks = (self._put_block(block),)
        return origin._replace(coding=BLOCKS, block=coder.block, blocks=blocks)

    def _put_block(self, block: Coded) -> Block:
        frame = self._waves.add_encoded(block.frame, block.content_nbytes), 0
        new = None if block.new is None else (self._waves.add_encoded(block.new, 0), 0)
        return Block(block.delta, frame, new)

    def _put_factors(self, coder: BlockCoder) -> tuple[int, int] | None:
        if coder.factors is None:
            return None
        return self._waves.add_encoded(coder.factors, 0), 0

    # --- The index --------------------------------------------------------------------------------

    def _resolved(self, k: int) -> Entry:
        """Replace the numbers of frames in an entry by their places."""
        entry = self._entries[k]
        assert entry is not None
        if entry.origin == FROM_TARGET:
            other = self._entries[entry.source]
            assert other is not None
            if other.coding != SCRATCH:
                return entry
            entry = other
        frames = self._waves.frames
        if entry.location is not None:
            entry = entry._replace(location=(*frames[entry.location[0]], entry.location[2]))
        if entry.factors is not None:
            entry = entry._replace(factors=frames[entry.factors[0]])
        blocks = tuple(
            block._replace(
                frame=frames[block.frame[0]],
                new=None if block.new is None else frames[block.new[0]],
            )
            for block in entry.blocks
        )
        return entry._replace(blocks=blocks)


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")
