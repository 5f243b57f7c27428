"""What is known of a container without decoding: that it is one, and its index, kept for later."""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from z4ai import _wire
from z4ai.container import zstn
from z4ai.errors import FormatError

if TYPE_CHECKING:
    from z4ai.container.source import Source
    from z4ai.container.zstn import Container
    from z4ai.options import Limits

__all__ = ["CACHE", "Index", "is_container"]

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


CACHE = _IndexCache()


def _forget_lock() -> None:
    # Another thread of the parent may have held it.
    CACHE._lock = threading.Lock()


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
