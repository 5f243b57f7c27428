"""A whole `.safetensors` file out of its container, or whatever file out of its frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai import _wire
from z4ai.container import zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.original import whole_file
from z4ai.container.sink import put
from z4ai.container.source import read
from z4ai.container.writer import container_stats
from z4ai.decoder import index_of_range

if TYPE_CHECKING:
    from collections.abc import Callable

    from z4ai.container.sink import Sink
    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.container.zstn import Location
    from z4ai.options import Limits

__all__ = ["Restore", "plan_restore"]


class Restore:
    """What restores a file: a container, or a frame alone. Made by `plan_restore`."""

    def __init__(
        self,
        source: Source,
        limits: Limits,
        head: bytes,
        tensors: list[Tensor],
        locations: list[Location],
        n_tensors: int,
    ) -> None:
        self._source = source
        self._limits = limits
        self._head = head
        self._tensors = tensors
        self._locations = locations
        self._n_tensors = n_tensors
        self.original_nbytes = len(head) + (tensors[-1].end if tensors else 0)

    def restore(self, sink: Sink, threads: int | None, done: Callable[[int], None]) -> None:
        """Hand the whole file to `sink`, piece by piece."""
        if self._head:
            put(sink, self._head)
            done(len(self._head))
        decoder = TensorDecoder(self._source, self._limits, threads, done)
        decoder.decode_all(self._tensors, self._locations, sink)

    def check_claims(self) -> None:
        """Check, as far as that is cheap, that so much content can be in the file."""
        decoder = TensorDecoder(self._source, self._limits, 1)
        decoder.check_claims(self._tensors, self._locations)

    def stats(self) -> dict[str, Any]:
        stored = {location for location in self._locations if location[1]}
        with_data = sum(location[1] > 0 for location in self._locations)
        n_shared = with_data - len(stored)
        return container_stats(self.original_nbytes, self._source.nbytes, self._n_tensors, n_shared)


def plan_restore(source: Source, limits: Limits) -> Restore:
    """Read what a file says of itself, and plan how to restore it.

    Raises
    ------
    FormatError
        If it is neither a container nor a frame, or damaged.
    LimitError
        If its index is larger than `limits` allow.
    """
    magic = bytes(read(source, 0, min(4, source.nbytes)))
    if magic == _wire.MAGIC_FRAME:
        index = index_of_range(lambda at, n: read(source, at, n), source.nbytes, limits)
        whole = whole_file(index.restored_nbytes)
        return Restore(source, limits, b"", [whole], [(0, source.nbytes, 0)], 0)
    container = zstn.parse_container(source, limits)
    head = _wire.U64.pack(len(container.header_bytes)) + container.header_bytes
    tensors = container.header.tensors
    return Restore(source, limits, head, tensors, container.locations, len(tensors))
