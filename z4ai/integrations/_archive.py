"""A container that is read whole, by tensor or by strides, into fresh memory. No framework here."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai.container import st_header, zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.encode import wave_nbytes
from z4ai.container.sink import IntoMemory
from z4ai.container.source import open_source
from z4ai.container.st_header import Tensor
from z4ai.decoder import check_output
from z4ai.errors import FormatError
from z4ai.options import resolve_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from z4ai.container.sink import Sink
    from z4ai.container.source import Source
    from z4ai.container.zstn import Container, Location
    from z4ai.options import Limits

__all__ = ["Archive", "Index", "fresh_memory", "is_container", "item_nbytes", "memory_shape"]

# Frameworks and caches like their data to begin with a line of the cache.
_ALIGNMENT = 64
# What a strided read may decode beside its result.
_HULL_NBYTES = 16 << 20
_INDEXES, _INDEXES_NBYTES = 64, 64 << 20
# Two changes within a tick of the clock of a file system look like one.
_TICK_NS = 50_000_000

_OTHERS = {
    _wire.MAGIC_FRAME: "a single frame: decompress it with z4ai.decompress",
    _wire.MAGIC_DELTA: "a delta of a buffer: restore it with z4ai.decompress_delta",
    _wire.MAGIC_MODEL_DELTA: (
        "a model delta, which needs its base: restore it with z4ai.model_delta.decompress_file"
    ),
}


def is_container(path: Any) -> bool:
    """Tell by its content whether a file is a `ZSTN` container.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    bool
        False for whatever z4ai did not write.

    Raises
    ------
    FormatError
        If z4ai wrote it, and it holds no tensors that could be loaded by name.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> from z4ai.integrations import is_container
    >>> from z4ai.safetensors import compress_file
    >>> _ = compress_file("model.safetensors", "model.zstn")
    >>> is_container("model.zstn"), is_container("model.safetensors")
    (True, False)
    """
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic in _OTHERS:
        msg = f"{os.fspath(path)!r} is {_OTHERS[magic]}"
        raise FormatError(msg, offset=0)
    return magic == _wire.MAGIC_CONTAINER


# --- Indexes --------------------------------------------------------------------------------------


class Index(NamedTuple):
    """What is known of a container once its index is read.

    Attributes
    ----------
    container : Container
        Header and locations.
    places : dict of str to int
        Number of each tensor.
    ties : dict of str to str
        Names of tensors that were one when they were saved, each with the name of the other: the
        metadata says it, as `safetensors.torch.save_model` writes it, and both lie in one place.
    """

    container: Container
    places: dict[str, int]
    ties: dict[str, str]


class _IndexCache:
    """Indexes of the files opened last: a shard is opened once for each of its tensors."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._indexes: OrderedDict[tuple[int, ...], Index] = OrderedDict()
        self._nbytes = 0
        self.n_reads = 0

    def get(self, source: Source, limits: Limits) -> Index:
        key = source.identity
        if key is not None:
            key = (*key, limits.max_table_nbytes)
            with self._lock:
                index = self._indexes.get(key)
                if index is not None:
                    self._indexes.move_to_end(key)
                    return index
        index = _read_index(source, limits)
        self.n_reads += 1
        if key is not None and time.time_ns() - key[3] > _TICK_NS:
            with self._lock:
                self._keep(key, index)
        return index

    def _keep(self, key: tuple[int, ...], index: Index) -> None:
        if key not in self._indexes:
            self._nbytes += len(index.container.header_bytes)
        self._indexes[key] = index
        while len(self._indexes) > _INDEXES or self._nbytes > _INDEXES_NBYTES:
            _, old = self._indexes.popitem(last=False)
            self._nbytes -= len(old.container.header_bytes)


_CACHE = _IndexCache()


def _forget_lock() -> None:
    # Another thread of the parent may have held it.
    _CACHE._lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def _read_index(source: Source, limits: Limits) -> Index:
    container = zstn.parse_container(source, limits)
    tensors = container.header.tensors
    places = {tensor.name: k for k, tensor in enumerate(tensors)}
    ties = {}
    for name, other in (container.header.metadata or {}).items():
        a, b = places.get(name), places.get(other)
        if a is not None and b is not None and a != b:
            one, two = tensors[a], tensors[b]
            same = one.dtype == two.dtype and one.shape == two.shape
            if same and container.locations[a] == container.locations[b]:
                ties[name] = other
    # One name keeps the data, and the others point to it: no chains, no circles.
    ties = {name: other for name, other in ties.items() if other not in ties}
    return Index(container, places, ties)


# --- Memory ---------------------------------------------------------------------------------------


def fresh_memory(nbytes: int) -> NDArray[np.uint8]:
    """Allocate aligned memory, not initialised; NumPy asks for huge pages where they pay."""
    memory = np.empty(nbytes + _ALIGNMENT - 1, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes]


def item_nbytes(tensor: Tensor) -> int:
    """Bytes of one item in memory; of F4, which is packed in pairs, those of a pair.

    Raises
    ------
    TypeError
        If the dtype has no form in memory.
    """
    if tensor.dtype == "F4":
        return 1
    nbytes = st_header.dtype_of(tensor.dtype).item_nbytes
    if not nbytes:
        msg = (
            f"tensor {tensor.name!r} has dtype {tensor.dtype!r}, which has no form in memory: "
            "ZstnReader.read_raw gives its bytes"
        )
        raise TypeError(msg)
    return nbytes


def memory_shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape of a tensor in memory: of F4, half the extent of the last axis.

    Raises
    ------
    TypeError
        If pairs of F4 would not lie within a row.
    """
    if tensor.dtype != "F4":
        return tensor.shape
    if not tensor.shape or tensor.shape[-1] % 2:
        msg = f"tensor {tensor.name!r} is F4 of shape {tensor.shape}: its last axis is not even"
        raise TypeError(msg)
    return (*tensor.shape[:-1], tensor.shape[-1] // 2)


# --- Reading --------------------------------------------------------------------------------------


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
        self.index = _CACHE.get(self.source, self.limits)
        self._count_lock = threading.Lock()
        self._n_chunks = 0

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors, in the order of their data."""
        return self.index.container.header.tensors

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
            strided = _StridedRead(decoder, tensor, location, item, chunk)
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


class _StridedRead:
    """What reads a strided part: ranges of a tensor, each from as few chunks as hold it."""

    def __init__(
        self, decoder: TensorDecoder, tensor: Tensor, location: Location, item: int, chunk: int
    ) -> None:
        self._decoder = decoder
        self._tensor = tensor
        self._location = location
        self._item = item
        self._chunk = chunk

    def fill(self, out: NDArray[np.uint8], offset: int, axes: list[tuple[int, int]]) -> None:
        """Decode into `out` what begins at byte `offset` and has these extents and strides."""
        hull, dense, hole = self._measure(axes)
        if dense:
            self._decode(offset, IntoMemory(out), len(out))
        elif hull <= max(_HULL_NBYTES, self._chunk) and hole < self._chunk:
            block = np.empty(hull, np.uint8)
            self._decode(offset, IntoMemory(block), hull)
            word = f"V{self._item}"
            shape, strides = [n for n, _ in axes], [s for _, s in axes]
            part = np.ndarray(shape, word, block, 0, strides)
            out.view(word).reshape(shape)[...] = part
        else:
            # Along the outermost axis, which has the widest strides, in two.
            (n, stride), *rest = axes
            half = n // 2
            mine = len(out) // n * half
            for count, start, part in ((half, 0, out[:mine]), (n - half, half, out[mine:])):
                inner = [(count, stride), *rest] if count > 1 else rest
                self.fill(part, offset + start * stride, inner)

    def _measure(self, axes: list[tuple[int, int]]) -> tuple[int, bool, int]:
        """Bytes from first to last, whether all of them are wanted, the widest that is not."""
        hull, hole, dense = self._item, 0, True
        for n, stride in reversed(axes):
            dense = dense and stride == hull
            hole = max(hole, stride - hull)
            hull += (n - 1) * stride
        return hull, dense, hole

    def _decode(self, offset: int, sink: Sink, nbytes: int) -> None:
        self._decoder.decode(self._tensor, self._location, offset, offset + nbytes, sink)
