"""Where bytes go that are made in order: into memory, to a function, or nowhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from z4ai._fast.chunks import BytesBuilder
from z4ai.container.source import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["Discard", "IntoMemory", "Sink", "WriteOut", "collect", "put"]


class Sink(Protocol):
    """Takes bytes piece by piece, in order.

    Attributes
    ----------
    in_place : bool
        Whether what `room` returns is where the bytes stay, so that a large piece costs nothing.
    """

    in_place: bool

    def room(self, nbytes: int) -> NDArray[np.uint8]:
        """Return memory for the next bytes; what it held is lost."""

    def commit(self, nbytes: int) -> None:
        """Take the first bytes of what `room` returned last."""


def put(sink: Sink, data: bytes) -> None:
    """Hand `data` to a sink."""
    sink.room(len(data)).data[:] = data
    sink.commit(len(data))


class IntoMemory:
    """Sink that is the memory to be filled.

    Attributes
    ----------
    nbytes : int
        How much of it has been filled.
    """

    in_place = True

    def __init__(self, out: NDArray[np.uint8]) -> None:
        self._out = out
        self.nbytes = 0

    def room(self, nbytes: int) -> NDArray[np.uint8]:
        return self._out[self.nbytes : self.nbytes + nbytes]

    def commit(self, nbytes: int) -> None:
        self.nbytes += nbytes


def collect(most: int, make: Callable[[IntoMemory], object]) -> bytes:
    """Return the bytes that `make` hands to a sink, at most so many."""
    builder = BytesBuilder(most)
    with memoryview(builder) as view:
        sink = IntoMemory(np.frombuffer(view, np.uint8))
        make(sink)
        nbytes = sink.nbytes
        del sink
    return builder.finish(nbytes)


class WriteOut:
    """Sink that hands each piece to a function; its memory is used again."""

    in_place = False

    def __init__(self, write: Callable[[memoryview], object]) -> None:
        self._scratch = Scratch()
        self._write = write

    def room(self, nbytes: int) -> NDArray[np.uint8]:
        return self._scratch.take(nbytes)

    def commit(self, nbytes: int) -> None:
        self._write(self._scratch.take(nbytes).data)


class Discard:
    """Sink for what only had to be made."""

    in_place = False

    def __init__(self) -> None:
        self._scratch = Scratch()

    def room(self, nbytes: int) -> NDArray[np.uint8]:
        return self._scratch.take(nbytes)

    def commit(self, nbytes: int) -> None:
        pass
