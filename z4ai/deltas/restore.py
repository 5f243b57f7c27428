"""The whole target of a model delta, tensor by tensor, into a sink."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai import _wire
from z4ai._fast.hashing import Xxh3
from z4ai.align import item_nbytes, model_digest
from z4ai.container.sink import put
from z4ai.container.zstn import NO_LOCATION
from z4ai.deltas.contents import Contents
from z4ai.deltas.records import BLOCKS, MOST_BLOCK_NBYTES, SCRATCH
from z4ai.deltas.stats import describe
from z4ai.deltas.z4dm import parse_model_delta
from z4ai.errors import ChecksumError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from z4ai.container.sink import Sink
    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.deltas.models import Base
    from z4ai.deltas.z4dm import Ends
    from z4ai.options import Limits

__all__ = ["Restore", "blaming_base"]

_COPY_NBYTES = 4 << 20


@contextmanager
def blaming_base(base: Base, ends: Ends) -> Iterator[None]:
    """Let an error be that of the base, where the base is another one than the file's."""
    failures = base.failures
    try:
        yield
    except FormatError as error:
        if base.failures != failures:
            # It is damaged itself. Along a chain, each delta would read it all again, twice.
            raise
        try:
            base.check(ends.base_nbytes, ends.base_digest)
        except FormatError:
            raise error from None
        raise


class Restore:
    """A model delta beside its base, to be restored.

    Parameters
    ----------
    source : Source
        The model delta.
    base : Base
        What it was made against.
    limits : Limits
        For its tables.
    """

    def __init__(self, source: Source, base: Base, limits: Limits) -> None:
        self._source = source
        self._base = base
        self._limits = limits
        self.delta = parse_model_delta(source, limits)
        base.check_size(self.delta.ends.base_nbytes)
        self.original_nbytes = self.delta.original_nbytes

    def check_base(self) -> None:
        """Check that the base is the right one; reads all of it that has not been read.

        Raises
        ------
        BaseMismatchError
        """
        ends = self.delta.ends
        self._base.check(ends.base_nbytes, ends.base_digest)

    def check_claims(self) -> None:
        """Check, as far as that is cheap, that so much content can be in the file."""
        contents = Contents(self._source, self.delta, self._base, self._limits, 1)
        contents.check()
        scratch = [k for k, entry in enumerate(self.delta.entries) if entry.coding == SCRATCH]
        tensors = [self.delta.header.tensors[k] for k in scratch]
        locations = [self.delta.entries[k].location or NO_LOCATION for k in scratch]
        contents.decoder.check_claims(tensors, locations)

    def write(self, sink: Sink, threads: int | None, done: Callable[[int], None]) -> None:
        """Hand the whole file to `sink`, piece by piece; then compare the base and the target.

        Raises
        ------
        BaseMismatchError
            If the base is another one.
        FormatError
            If anything is damaged.
        """
        with blaming_base(self._base, self.delta.ends):
            self._write(sink, threads, done)

    def _write(self, sink: Sink, threads: int | None, done: Callable[[int], None]) -> None:
        header_bytes = self.delta.header_bytes
        put(sink, _wire.U64.pack(len(header_bytes)) + header_bytes)
        done(8 + len(header_bytes))
        contents = Contents(self._source, self.delta, self._base, self._limits, threads)
        contents.check()
        tensors, entries = self.delta.header.tensors, self.delta.entries
        hashed = _Hashing(sink, tensors, done)
        k = 0
        while k < len(tensors):
            stop = k
            while stop < len(tensors) and entries[stop].coding == SCRATCH:
                stop += 1
            if stop > k:
                locations = [entry.location or NO_LOCATION for entry in entries[k:stop]]
                contents.decoder.decode_all(tensors[k:stop], locations, hashed)
                k = stop
                continue
            step = _COPY_NBYTES
            if entries[k].coding == BLOCKS:
                step = entries[k].block * item_nbytes(tensors[k].dtype)
            elif entries[k].location is not None:
                step = MOST_BLOCK_NBYTES
            nbytes = tensors[k].nbytes
            for begin in range(0, nbytes, step):
                end = min(begin + step, nbytes)
                part = hashed.room(end - begin)
                contents.fill(k, begin, end, part)
                contents.check_copied(k, part)
                hashed.commit(end - begin)
            k += 1
        self.check_base()
        found = int.from_bytes(model_digest(tensors, hashed.digests()), "little")
        if found != self.delta.ends.target_digest:
            msg = (
                f"what was restored has digest {found:032x}, "
                f"expected {self.delta.ends.target_digest:032x}"
            )
            raise ChecksumError(msg)

    def stats(self) -> dict[str, Any]:
        """Describe what the file cost."""
        return describe(self.delta, self._source.nbytes)


class _Hashing:
    """Sink before a sink: computes the digest of each tensor that goes through it."""

    def __init__(self, sink: Sink, tensors: Sequence[Tensor], done: Callable[[int], None]) -> None:
        self.in_place = sink.in_place
        self._sink = sink
        self._tensors = tensors
        self._done = done
        self._room: NDArray[np.uint8] = np.empty(0, np.uint8)
        self._digests: list[bytes] = []
        self._state = Xxh3()
        self._left = tensors[0].nbytes if tensors else 0

    def room(self, nbytes: int) -> NDArray[np.uint8]:
        self._room = self._sink.room(nbytes)
        return self._room

    def commit(self, nbytes: int) -> None:
        at = 0
        while at < nbytes:
            self._close()
            take = min(self._left, nbytes - at)
            self._state.update(self._room[at : at + take])
            self._left -= take
            at += take
        self._sink.commit(nbytes)
        self._done(nbytes)

    def _close(self) -> None:
        """End the tensors that are complete."""
        while not self._left and len(self._digests) < len(self._tensors):
            self._digests.append(self._state.digest128().to_bytes(16, "little"))
            self._state = Xxh3()
            if len(self._digests) < len(self._tensors):
                self._left = self._tensors[len(self._digests)].nbytes

    def digests(self) -> list[bytes]:
        self._close()
        return self._digests
