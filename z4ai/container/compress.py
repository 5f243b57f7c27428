"""A whole `.safetensors` file to a container; what is none, to a frame where that is wished."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.container import st_header, zstn
from z4ai.container.dedup import same_as
from z4ai.container.encode import FrameWaves
from z4ai.container.original import parse_original, whole_file
from z4ai.container.sink import put
from z4ai.container.small import SmallTensors, is_small
from z4ai.container.source import read
from z4ai.container.writer import container_stats
from z4ai.dtypes import AUTO, OPAQUE
from z4ai.errors import FormatError
from z4ai.plan import BLOCKS_HEAD_NBYTES, find_blocks, may_have_blocks, resolve_or_guess

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from z4ai.container.sink import Sink
    from z4ai.container.source import Source
    from z4ai.container.st_header import Header, Tensor
    from z4ai.container.zstn import Location
    from z4ai.dtypes import DType
    from z4ai.stages.blocks import Layout

__all__ = ["Compression"]

# By what a file is judged that is no safetensors file.
_RUNS, _RUN_NBYTES = 16, 1 << 16


class Compression:
    """A file to compress: parsed, or taken as bytes where that is wished.

    Parameters
    ----------
    source : Source
        The file.
    fallback : {"bytes", "auto"}, optional
        What to do with one that safetensors would refuse; None raises.

    Attributes
    ----------
    nbytes : int
        Its size.

    Raises
    ------
    FormatError
        If safetensors would refuse it.
    """

    def __init__(self, source: Source, fallback: str | None) -> None:
        self._source = source
        self.nbytes = source.nbytes
        self._header: Header | None = None
        self._header_bytes = b""
        self._fallback = fallback
        try:
            self._header_bytes, self._header = parse_original(source)
        except FormatError:
            if fallback is None:
                raise

    def bound(self) -> int:
        """Memory that `write` may touch: the content, around it frames and index, and one wave."""
        n_tensors = len(self._header.tensors) if self._header is not None else 1
        return self.nbytes + (self.nbytes >> 10) + 256 * n_tensors + (16 << 20)

    def write(
        self, sink: Sink, effort: str, threads: int | None, done: Callable[[int], None]
    ) -> dict[str, Any]:
        """Write the compressed file, and describe it."""
        if self._header is None:
            return self._write_frame(sink, effort, threads, done)
        start = 8 + len(self._header_bytes)
        put(sink, zstn.write_header())
        done(start)
        waves = FrameWaves(sink, zstn.HEADER_NBYTES, effort, threads, done)
        tensors = self._header.tensors
        first = same_as(self._source, start, tensors)
        small = SmallTensors(waves, effort, threads)
        # Of each tensor that has bytes of its own: whether it is small, and its number.
        places: dict[int, tuple[bool, int]] = {}
        n_shared = 0
        for k, tensor in enumerate(tensors):
            if tensor.begin == tensor.end:
                continue
            dtype = st_header.dtype_of(tensor.dtype)
            if first[k] != k:
                n_shared += 1
                done(tensor.nbytes)
            elif is_small(tensor.nbytes, effort):
                content = np.empty(tensor.nbytes, np.uint8)
                self._source.read_into(start + tensor.begin, content.data)
                places[k] = True, small.add(dtype, tensor.shape, content)
            else:
                places[k] = False, self._add(waves, start + tensor.begin, tensor, dtype)
        small.flush()
        waves.flush()
        locations: list[Location] = []
        for k in first:
            if k not in places:
                locations.append(zstn.NO_LOCATION)
                continue
            shares, number = places[k]
            own = small.location(number) if shares else (*waves.frames[number], 0)
            locations.append(own)
        data_nbytes = self._header.data_nbytes
        end = zstn.write_end(self._header_bytes, locations, data_nbytes, waves.position, effort)
        put(sink, end)
        return container_stats(self.nbytes, waves.position + len(end), len(tensors), n_shared)

    def _write_frame(
        self, sink: Sink, effort: str, threads: int | None, done: Callable[[int], None]
    ) -> dict[str, Any]:
        waves = FrameWaves(sink, 0, effort, threads, done)
        dtype = OPAQUE
        blocks = None
        if self._fallback == AUTO:
            blocks = _find_blocks(self._source, effort)
            if blocks is None:
                dtype = resolve_or_guess(AUTO, _spread(self._source), effort)
        self._add(waves, 0, whole_file(self.nbytes), dtype, blocks)
        waves.flush()
        return container_stats(self.nbytes, waves.position, 0, 0)

    def _add(
        self,
        waves: FrameWaves,
        begin: int,
        tensor: Tensor,
        dtype: DType,
        blocks: Layout | None = None,
    ) -> int:
        source = self._source
        if source.memory is not None:
            memory = source.memory
            return waves.add_from(dtype, tensor.shape, memory, begin, tensor.nbytes, blocks)

        def read_into(at: int, view: memoryview) -> None:
            source.read_into(begin + at, view)

        return waves.add(dtype, tensor.shape, tensor.nbytes, read_into, blocks)


def _spread(source: Source) -> NDArray[np.uint8]:
    """Read runs from all over a file, at offsets that any width of elements divides."""
    if source.nbytes <= _RUNS * _RUN_NBYTES:
        return np.frombuffer(read(source, 0, source.nbytes), np.uint8)
    last = source.nbytes - _RUN_NBYTES
    starts = [last * run // (_RUNS - 1) // 8 * 8 for run in range(_RUNS)]
    return np.concatenate([np.frombuffer(read(source, at, _RUN_NBYTES), np.uint8) for at in starts])


def _find_blocks(source: Source, effort: str) -> Layout | None:
    """Find what blocks a file is made of, if its header tells."""
    magic = np.frombuffer(read(source, 0, min(4, source.nbytes)), np.uint8)
    if not may_have_blocks(AUTO, magic, effort):
        return None
    head = read(source, 0, min(BLOCKS_HEAD_NBYTES, source.nbytes))
    return find_blocks(AUTO, np.frombuffer(head, np.uint8), effort)
