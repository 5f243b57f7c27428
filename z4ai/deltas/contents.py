"""The content of tensors of a model delta, any range of it, out of its frames and the base."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import TYPE_CHECKING

import numpy as np

from z4ai._fast.hashing import Xxh3
from z4ai.align import item_nbytes
from z4ai.container.decode import TensorDecoder
from z4ai.container.sink import IntoMemory
from z4ai.container.source import Scratch, read
from z4ai.decoder import decode_frame, index_of_range
from z4ai.delta_frame import decode_delta, index_of_delta
from z4ai.deltas.records import BLOCKS, COPY, FRAME, FROM_TARGET, MOST_BLOCK_NBYTES, SCRATCH
from z4ai.deltas.references import Reference, alignment_of
from z4ai.deltas.z4dm import copy_groups
from z4ai.dtypes import OPAQUE
from z4ai.errors import ChecksumError, CorruptError, FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.deltas.models import Base
    from z4ai.deltas.records import Entry
    from z4ai.deltas.z4dm import ModelDelta
    from z4ai.lowrank import Factors
    from z4ai.options import Limits

__all__ = ["Contents"]

_MOST_FRAME_NBYTES = 2 * MOST_BLOCK_NBYTES
_MOST_FACTORS_NBYTES = 1 << 26
# Contents of frames that are kept for the next tensor of the same frame.
_HELD_NBYTES = 2 * MOST_BLOCK_NBYTES
# Content that is decoded in vain, as for containers.
_WASTE_FACTOR = 8
_WASTE_NBYTES = 1 << 29
# The same of what is transposed: the parts of a matrix may lie far from one another.
_TRANSPOSED_FACTOR = 32
_RUN_NBYTES = 4 << 20

# Of what is kept: offset of a delta frame and -1, or a tensor and its block. What is in a block
# does not follow from its frame alone: blocks of several tensors may share one.
_Key = tuple[int, int]


class Contents:
    """Decoder of tensors of one model delta; not to be shared between threads.

    Parameters
    ----------
    source : Source
        The model delta.
    delta : ModelDelta
        Its index.
    base : Base
        What it was made against; that it is that is the caller's to check.
    limits : Limits
        For the tables of frames.
    threads : int or None
        The caller's wish.
    """

    def __init__(
        self,
        source: Source,
        delta: ModelDelta,
        base: Base,
        limits: Limits,
        threads: int | None,
    ) -> None:
        self._source = source
        self._entries = delta.entries
        self._tensors = delta.header.tensors
        self._base = base
        self._limits = limits
        self._threads = threads
        self.decoder = TensorDecoder(source, limits, threads)
        self._encoded = Scratch()
        self._reference: tuple[int, Reference] | None = None
        self._held: OrderedDict[_Key, NDArray[np.uint8]] = OrderedDict()
        # What may be decoded in vain grows with what is asked for: a reader may live long.
        self._asked = source.nbytes + delta.header.data_nbytes + base.nbytes
        self._waste = 0
        self._members = _members(delta)
        self._groups = copy_groups(delta.entries, delta.header.tensors)
        self._group_of = {k: g for g, group in enumerate(self._groups) for k in group}
        self._checksums = delta.checksums
        self._verified: set[int] = set()
        self._copied, self._n_copied = Xxh3(), 0

    def check(self) -> None:
        """Check that the base has all that is asked of it."""
        for tensor, entry in zip(self._tensors, self._entries, strict=True):
            if entry.coding != SCRATCH and entry.origin != FROM_TARGET:
                alignment_of(entry, tensor, self._base)

    def fill(self, k: int, begin: int, end: int, out: NDArray[np.uint8]) -> None:
        """Decode the bytes `begin` … `end` of tensor `k` into `out`.

        Raises
        ------
        FormatError, LimitError
            `tensor` names the tensor.
        """
        self._asked += end - begin
        try:
            self._fill(k, begin, end, out)
        except FormatError as error:
            if error.tensor is None:
                error.tensor = self._tensors[k].name
            raise

    def verify_copy(self, k: int) -> None:
        """Verify the checksum of the group of copies that a tensor is in, if it is in one, once."""
        entry = self._entries[k]
        if entry.origin == FROM_TARGET and entry.coding == COPY:
            k = entry.source
        g = self._group_of.get(k)
        if g is None or g in self._verified:
            return
        state = Xxh3()
        for member in self._groups[g]:
            nbytes = self._tensors[member].nbytes
            for at in range(0, nbytes, _RUN_NBYTES):
                run = np.empty(min(_RUN_NBYTES, nbytes - at), np.uint8)
                self.fill(member, at, at + len(run), run)
                state.update(run)
        self._compare(g, state)
        self._verified.add(g)

    def check_copied(self, k: int, content: NDArray[np.uint8]) -> None:
        """Take the next content, of all tensors in their order; verify groups of copies."""
        g = self._group_of.get(k)
        if g is None:
            return
        self._copied.update(content)
        self._n_copied += len(content)
        if self._n_copied == sum(self._tensors[member].nbytes for member in self._groups[g]):
            self._compare(g, self._copied)
            self._copied, self._n_copied = Xxh3(), 0

    def _compare(self, group: int, state: Xxh3) -> None:
        if state.digest64() != self._checksums[group]:
            msg = "a copy of the base does not match its checksum"
            raise ChecksumError(msg, tensor=self._tensors[self._groups[group][0]].name)

    # --- Inside -----------------------------------------------------------------------------------

    def _fill(self, k: int, begin: int, end: int, out: NDArray[np.uint8]) -> None:
        entry, tensor = self._entries[k], self._tensors[k]
        if begin >= end:
            return
        if entry.coding == SCRATCH:
            assert entry.location is not None
            self.decoder.decode(tensor, entry.location, begin, end, IntoMemory(out))
        elif entry.coding == FRAME:
            self._fill_frame(k, entry, begin, end, out)
        elif entry.coding == BLOCKS:
            self._fill_blocks(k, entry, begin, end, out)
        elif entry.origin == FROM_TARGET:
            self._fill(entry.source, begin, end, out)
        else:
            item = item_nbytes(tensor.dtype)
            first = begin // item
            content = self._reference_of(k).gather(first, -(-end // item))
            out[:] = content[begin - first * item : end - first * item]

    def _reference_of(self, k: int) -> Reference:
        if self._reference is not None and self._reference[0] == k:
            return self._reference[1]
        entry, tensor = self._entries[k], self._tensors[k]
        alignment = alignment_of(entry, tensor, self._base)
        # What was transposed for the tensor before, but for what is needed again.
        self._base.release({piece.source for piece in alignment.pieces if piece.transposed})
        if self._base.transposed_nbytes > _WASTE_NBYTES + _TRANSPOSED_FACTOR * self._asked:
            msg = "far more content of the base is transposed than is asked for"
            raise CorruptError(msg)
        factors = None if entry.factors is None else self._factors(tensor, entry.factors)
        reference = Reference(tensor, alignment, self._base, factors)
        self._reference = k, reference
        return reference

    def _factors(self, tensor: Tensor, place: tuple[int, int]) -> Factors:
        from z4ai.lowrank import decode_factors  # noqa: PLC0415 - seldom needed

        offset, nbytes = place
        index = index_of_range(
            lambda at, n: read(self._source, offset + at, n), nbytes, self._limits
        )
        if index.header.dtype is not OPAQUE or index.header.shape is not None:
            msg = "factors are not a frame of opaque bytes"
            raise CorruptError(msg, offset=offset)
        if index.restored_nbytes > _MOST_FACTORS_NBYTES:
            msg = f"factors of {index.restored_nbytes} bytes"
            raise CorruptError(msg, offset=offset)
        content = np.empty(index.restored_nbytes, np.uint8)
        decode_frame(read(self._source, offset, nbytes), index, content, self._threads)
        rows = tensor.shape[0]
        return decode_factors(content.data, (rows, self._n_items(tensor) // rows))

    @staticmethod
    def _n_items(tensor: Tensor) -> int:
        return tensor.nbytes // item_nbytes(tensor.dtype)

    def _fill_frame(
        self, k: int, entry: Entry, begin: int, end: int, out: NDArray[np.uint8]
    ) -> None:
        """Decode from a delta frame that holds the tensor, alone or with others."""
        assert entry.location is not None
        offset, nbytes, at = entry.location
        members = self._members[offset]
        whole = self._end_in_frame(members[-1])
        if end - begin == whole:
            reference = self._reference_of(k)
            self._decode_delta(offset, nbytes, reference.gather(0, reference.n_items), out, whole)
            return
        key = offset, -1
        content = self._held_content(key)
        if content is None:
            content = np.empty(whole, np.uint8)
            references = []
            for member in members:
                reference = self._reference_of(member)
                references.append(reference.gather(0, reference.n_items))
            together = references[0] if len(references) == 1 else np.concatenate(references)
            self._decode_delta(offset, nbytes, together, content, whole)
            self._hold(key, content, end - begin)
        out[:] = content[at + begin : at + end]

    def _end_in_frame(self, k: int) -> int:
        location = self._entries[k].location
        return self._tensors[k].nbytes + (location[2] if location is not None else 0)

    def _fill_blocks(
        self, k: int, entry: Entry, begin: int, end: int, out: NDArray[np.uint8]
    ) -> None:
        reference = self._reference_of(k)
        item, n = reference.item, reference.n_items
        nbytes = entry.block * item
        for b in range(begin // nbytes, -(-end // nbytes)):
            first, last = b * entry.block, min((b + 1) * entry.block, n)
            low, high = max(begin, first * item), min(end, last * item)
            part = out[low - begin : high - begin]
            if low == first * item and high == last * item:
                self._decode_block(reference, entry, b, first, last, part)
                continue
            content = self._held_content((k, b))
            if content is None:
                content = np.empty((last - first) * item, np.uint8)
                self._decode_block(reference, entry, b, first, last, content)
                self._hold((k, b), content, len(part))
            part[:] = content[low - first * item : high - first * item]

    def _decode_block(
        self,
        reference: Reference,
        entry: Entry,
        number: int,
        first: int,
        last: int,
        out: NDArray[np.uint8],
    ) -> None:
        block = entry.blocks[number]
        if not block.delta:
            self._decode_frame(block.frame, out)
            return
        n_known = reference.n_known(first, last)
        known = out if n_known == last - first else np.empty(n_known * reference.item, np.uint8)
        self._decode_delta(*block.frame, reference.gather(first, last), known, len(known))
        if block.new is not None:
            new = np.empty(len(out) - len(known), np.uint8)
            self._decode_frame(block.new, new)
            reference.join(out, known, new, first, last)

    def _decode_frame(self, place: tuple[int, int], out: NDArray[np.uint8]) -> None:
        offset, nbytes = place
        _check_frame_nbytes(nbytes)
        index = index_of_range(
            lambda at, n: read(self._source, offset + at, n), nbytes, self._limits
        )
        if index.restored_nbytes != len(out):
            msg = f"frame of {index.restored_nbytes} bytes of content, expected {len(out)}"
            raise CorruptError(msg, offset=offset)
        decode_frame(read(self._source, offset, nbytes, self._encoded), index, out, self._threads)

    def _decode_delta(
        self,
        offset: int,
        nbytes: int,
        reference: NDArray[np.uint8],
        out: NDArray[np.uint8],
        expected: int,
    ) -> None:
        _check_frame_nbytes(nbytes)
        buf = read(self._source, offset, nbytes, self._encoded)
        index = index_of_delta(buf, self._limits)
        if index.header.reference is not None:
            msg = "delta frame of a model delta tells of its reference"
            raise CorruptError(msg, offset=offset)
        if index.content_nbytes != expected:
            msg = f"delta frame of {index.content_nbytes} bytes of content, expected {expected}"
            raise CorruptError(msg, offset=offset)
        decode_delta(buf, index, reference, out, self._threads)

    # --- What is kept -----------------------------------------------------------------------------

    def _held_content(self, key: _Key) -> NDArray[np.uint8] | None:
        content = self._held.get(key)
        if content is not None:
            self._held.move_to_end(key)
        return content

    def _hold(self, key: _Key, content: NDArray[np.uint8], asked: int) -> None:
        self._waste += len(content) - asked
        if self._waste > _WASTE_NBYTES + _WASTE_FACTOR * self._asked:
            msg = "delta frames hold far more content than is asked of them"
            raise CorruptError(msg)
        self._held[key] = content
        while sum(map(len, self._held.values())) > _HELD_NBYTES and len(self._held) > 1:
            self._held.popitem(last=False)


def _check_frame_nbytes(nbytes: int) -> None:
    if nbytes > _MOST_FRAME_NBYTES:
        msg = f"frame of {nbytes} bytes, expected at most {_MOST_FRAME_NBYTES}"
        raise CorruptError(msg)


def _members(delta: ModelDelta) -> dict[int, list[int]]:
    """List the tensors in each delta frame, and check that they lie behind one another."""
    found: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for k, entry in enumerate(delta.entries):
        if entry.coding == FRAME and entry.location is not None:
            found[entry.location[0]].append((entry.location[2], k))
    for offset, places in found.items():
        places.sort()
        end = 0
        for at, k in places:
            tensor = delta.header.tensors[k]
            if at != end:
                msg = f"tensor at {at} of its delta frame, expected {end}: hole or overlap"
                raise CorruptError(msg, tensor=tensor.name, offset=offset)
            end += tensor.nbytes
            if end > MOST_BLOCK_NBYTES:
                msg = f"{end} bytes in a delta frame, expected at most {MOST_BLOCK_NBYTES}"
                raise CorruptError(msg, tensor=tensor.name, offset=offset)
    return {offset: [k for _, k in places] for offset, places in found.items()}
