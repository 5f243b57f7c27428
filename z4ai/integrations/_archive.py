"""A container that is read whole, by tensor or by strides, into fresh memory. No framework here."""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai.container import st_header
from z4ai.container.decode import TensorDecoder
from z4ai.container.encode import wave_nbytes
from z4ai.container.sink import IntoMemory
from z4ai.container.source import open_source
from z4ai.container.st_header import Tensor
from z4ai.decoder import check_output
from z4ai.integrations._index import CACHE
from z4ai.integrations._memory import fresh_memory, item_nbytes
from z4ai.integrations._strided import StridedRead
from z4ai.options import resolve_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from z4ai.container.zstn import Location
    from z4ai.options import Limits

__all__ = ["Archive"]


class _Piece(NamedTuple):
    """Tensors that are decoded together: they fill one range of a frame, or are one."""

    tensor: Tensor
    location: Location
    names: list[tuple[str, int, int]]  # of each tensor its range in the piece


class Archive:
    """An open container. Threads may share it; it is closed when nobody holds it any more.

    Parameters
    ----------
    file : path-like or seekable binary file object
        The container.
    limits : Limits, optional
        What may be allocated because it says so.
    threads : int, optional
        Threads that one read may use.
    """

    def __init__(
        self, file: Any, *, limits: Limits | None = None, threads: int | None = None
    ) -> None:
        self.limits = resolve_limits(limits)
        self.threads = threads
        self.source = open_source(file)
        weakref.finalize(self, self.source.close)
        self.index = CACHE.get(self.source, self.limits)
        self._count_lock = threading.Lock()
        self._n_chunks = 0

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, in the order of their data."""
        return self.index.container.header.tensors

    @property
    def decoded_nbytes(self) -> int:
        """Bytes of all tensors, those that have the same bytes counted once."""
        locations = self.index.container.locations
        pairs = zip(locations, self.tensors, strict=True)
        return sum({(where, row.nbytes): row.nbytes for where, row in pairs}.values())

    @property
    def n_chunks(self) -> int:
        """Chunks decoded so far."""
        return self._n_chunks

    def decoder(self, done: Callable[[int], None] | None = None) -> TensorDecoder:
        """Make what decodes, for one thread."""
        return TensorDecoder(self.source, self.limits, self.threads, done)

    def count(self, decoder: TensorDecoder) -> None:
        """Count what a decoder has done."""
        with self._count_lock:
            self._n_chunks += decoder.n_chunks

    def find(self, name: str) -> tuple[Tensor, Location] | None:
        """Find a tensor by its name."""
        k = self.index.places.get(name)
        return None if k is None else (self.tensors[k], self.index.container.locations[k])

    def read(self, name: str, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Decode the bytes of a tensor, into fresh memory or into `out`."""
        k = self.index.places[name]
        tensor, location = self.tensors[k], self.index.container.locations[k]
        check_output(tensor.nbytes, self.limits)
        decoder = self.decoder()
        decoder.check_claims([tensor], [location])
        out = fresh_memory(tensor.nbytes) if out is None else out
        decoder.decode_all([tensor], [location], IntoMemory(out))
        self.count(decoder)
        return out

    # --- All tensors --------------------------------------------------------------------------

    def read_all(
        self, done: Callable[[int], None] | None = None
    ) -> Iterator[tuple[str, NDArray[np.uint8], str | None]]:
        """Decode every tensor into fresh memory, small ones into memory that they share.

        Yields
        ------
        name : str
            Of the tensor, in no order that means anything.
        content : ndarray of uint8
            Its bytes; empty, if it has none or if there is a `twin`.
        twin : str or None
            Name of a tensor that came before and has the same bytes.
        """
        check_output(sum(tensor.nbytes for tensor in self.tensors), self.limits)
        alone, pieces, twins = self._plan()
        decoder = self.decoder(done)
        nothing = np.empty(0, np.uint8)
        for group in [[piece] for piece in alone] + self._groups(pieces):
            tensors = [piece.tensor for piece in group]
            locations = [piece.location for piece in group]
            decoder.check_claims(tensors, locations)
            memory = fresh_memory(sum(tensor.nbytes for tensor in tensors))
            decoder.decode_all(tensors, locations, IntoMemory(memory))
            base = 0
            for piece in group:
                for name, begin, end in piece.names:
                    yield name, memory[base + begin : base + end], None
                base += piece.tensor.nbytes
        self.count(decoder)
        for name, twin in twins.items():
            yield name, nothing, twin
        for tensor in self.tensors:
            if not tensor.nbytes:
                yield tensor.name, nothing, None

    def _plan(self) -> tuple[list[_Piece], list[_Piece], dict[str, str]]:
        """Sort the tensors; -> those of their own, pieces of small ones, same bytes as which."""
        large = wave_nbytes(self.threads) // 4
        alone: list[_Piece] = []
        twins: dict[str, str] = {}
        seen: dict[tuple[Location, int], str] = {}
        frames: dict[int, list[tuple[Tensor, Location]]] = {}
        for tensor, location in zip(self.tensors, self.index.container.locations, strict=True):
            if not tensor.nbytes:
                continue
            first = seen.setdefault((location, tensor.nbytes), tensor.name)
            if first != tensor.name:
                twins[tensor.name] = first
            elif tensor.nbytes >= large:
                alone.append(_Piece(tensor, location, [(tensor.name, 0, tensor.nbytes)]))
            else:
                frames.setdefault(location[0], []).append((tensor, location))
        pieces = [piece for shared in frames.values() for piece in _pieces(shared)]
        # Falling sizes of items keep every tensor aligned in memory that is filled without gaps.
        pieces.sort(key=lambda piece: (-_alignment(piece.tensor), piece.location))
        return alone, pieces, twins

    def _groups(self, pieces: list[_Piece]) -> list[list[_Piece]]:
        groups: list[list[_Piece]] = []
        room = 0
        for piece in pieces:
            if piece.tensor.nbytes > room:
                groups.append([])
                room = wave_nbytes(self.threads)
            groups[-1].append(piece)
            room -= piece.tensor.nbytes
        return groups

    # --- A part of one ------------------------------------------------------------------------

    def read_strided(
        self, name: str, offset: int, shape: Sequence[int], strides: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Decode a strided part of a tensor, from the chunks that hold it alone.

        Parameters
        ----------
        name : str
            Of the tensor.
        offset : int
            First element.
        shape, strides : sequence of int
            Of the part, in elements of memory; no stride is negative.

        Returns
        -------
        ndarray of uint8
            The bytes of the part, in C order.
        """
        k = self.index.places[name]
        tensor, location = self.tensors[k], self.index.container.locations[k]
        item = item_nbytes(tensor)
        count = int(np.prod(shape, dtype=object))
        check_output(count * item, self.limits)
        out = fresh_memory(count * item)
        if count:
            decoder = self.decoder()
            decoder.check_claims([tensor], [location])
            frame = decoder.frame_index(tensor, location)
            chunk = frame.header.chunk_nbytes
            if frame.header.copies is not None:
                chunk = frame.restored_nbytes  # restored as a whole, so in one go
            axes = [(n, s * item) for n, s in zip(shape, strides, strict=True) if n > 1]
            strided = StridedRead(decoder, tensor, location, item, chunk)
            strided.fill(out, offset * item, axes)
            self.count(decoder)
        return out

    def read_ranges(
        self, name: str, ranges: Sequence[tuple[int, int]], out: NDArray[np.uint8]
    ) -> None:
        """Decode ranges of a tensor into `out`, one behind the other.

        Parameters
        ----------
        name : str
            Of the tensor.
        ranges : sequence of (int, int)
            First byte and number of bytes, in order.
        out : ndarray of uint8
            Takes them.
        """
        k = self.index.places[name]
        tensor, location = self.tensors[k], self.index.container.locations[k]
        decoder = self.decoder()
        copies = bool(ranges) and decoder.frame_index(tensor, location).header.copies is not None
        if copies:
            # Such a frame is restored as a whole for each read.
            whole = self.read(name)
            pos = 0
            for begin, nbytes in ranges:
                out[pos : pos + nbytes] = whole[begin : begin + nbytes]
                pos += nbytes
            return
        sink = IntoMemory(out)
        for begin, nbytes in _joined(ranges):
            decoder.decode(tensor, location, begin, begin + nbytes, sink)
        self.count(decoder)


def _joined(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same bytes in fewer ranges."""
    joined: list[tuple[int, int]] = []
    for begin, nbytes in ranges:
        if joined and sum(joined[-1]) == begin:
            joined[-1] = joined[-1][0], joined[-1][1] + nbytes
        else:
            joined.append((begin, nbytes))
    return joined


def _alignment(tensor: Tensor) -> int:
    return st_header.dtype_of(tensor.dtype).item_nbytes


def _pieces(shared: list[tuple[Tensor, Location]]) -> list[_Piece]:
    """Tensors that lie in one frame: one piece, if they fill a range of it without gaps."""
    shared.sort(key=lambda pair: pair[1][2])
    begin = shared[0][1][2]
    names = [(t.name, at - begin, at - begin + t.nbytes) for t, (_, _, at) in shared]
    pos = 0
    for _, start, end in names:
        if start != pos:
            return [_Piece(t, location, [(t.name, 0, t.nbytes)]) for t, location in shared]
        pos = end
    first, (offset, nbytes, _) = shared[0]
    together = first._replace(begin=0, end=pos)
    return [_Piece(together, (offset, nbytes, begin), names)]
