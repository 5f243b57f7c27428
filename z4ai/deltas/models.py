"""Models that may be the base of a delta, however they are stored, and what tells them apart."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai import _wire
from z4ai._fast.hashing import Xxh3
from z4ai.align import ByName, FileTensors, model_digest
from z4ai.container import zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.original import parse_original
from z4ai.container.sink import IntoMemory
from z4ai.container.source import open_source, read, source_of_buffer
from z4ai.errors import BaseMismatchError, CorruptError, FormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from z4ai.align import TensorSource
    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.options import Limits

__all__ = ["Base", "ZstnTensors", "digests_of", "open_base", "source_of"]

_RUN_NBYTES = 1 << 20
# Content that is decoded and not asked for, by what was; as for containers.
_WASTE_FACTOR = 8
_WASTE_NBYTES = 1 << 29


class ZstnTensors:
    """The tensors of a container.

    Parameters
    ----------
    source : Source
        The container.
    limits : Limits
        For its tables.
    threads : int or None
        The caller's wish.
    """

    def __init__(self, source: Source, limits: Limits, threads: int | None) -> None:
        container = zstn.parse_container(source, limits)
        self.tensors: Sequence[Tensor] = container.header.tensors
        self._locations = container.locations
        self._decoder = TensorDecoder(source, limits, threads)
        self._asked = source.nbytes
        self._last: tuple[int, int, NDArray[np.uint8]] | None = None

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Decode bytes of a tensor; short runs of them a longer run at a time."""
        last = self._last
        if last is not None and last[0] == k and last[1] <= begin <= end <= last[1] + len(last[2]):
            return last[2][begin - last[1] : end - last[1]]
        self._last = None
        stop = min(max(end, begin + _RUN_NBYTES), self.tensors[k].nbytes)
        out = np.empty(stop - begin, np.uint8)
        self._decoder.decode(self.tensors[k], self._locations[k], begin, stop, IntoMemory(out))
        out.flags.writeable = False
        self._asked += end - begin
        if self._decoder.waste > _WASTE_NBYTES + _WASTE_FACTOR * self._asked:
            msg = "frames of the base hold far more content than is asked of them"
            raise CorruptError(msg, tensor=self.tensors[k].name)
        self._last = k, begin, out
        return out[: end - begin]


class _Hashed:
    """A model whose tensors are hashed while they are read, as far as they are read in order."""

    def __init__(self, model: TensorSource) -> None:
        self._model = model
        self.tensors = model.tensors
        self._states: dict[int, tuple[Xxh3, int]] = {}
        self._digests: list[bytes | None] = [None] * len(model.tensors)
        self.failures = 0

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        try:
            data = self._model.read(k, begin, end)
        except FormatError:
            self.failures += 1
            raise
        if self._digests[k] is None:
            state, done = self._states.get(k) or (Xxh3(), 0)
            if begin <= done < end:
                state.update(data[done - begin :])
                done = end
                self._states[k] = state, done
            if done == self.tensors[k].nbytes:
                self._states.pop(k, None)
                self._digests[k] = state.digest128().to_bytes(16, "little")
        return data

    def digests(self) -> list[bytes]:
        """Return the digest of each tensor; what was not read yet is read now."""
        found = []
        for k, tensor in enumerate(self.tensors):
            done = self._states[k][1] if k in self._states else 0
            while done < tensor.nbytes and self._digests[k] is None:
                stop = min(done + _RUN_NBYTES, tensor.nbytes)
                self.read(k, done, stop)
                done = stop
            if tensor.nbytes == 0:
                self._digests[k] = Xxh3().digest128().to_bytes(16, "little")
            digest = self._digests[k]
            assert digest is not None
            found.append(digest)
        return found


class Base(ByName):
    """A base: its tensors by name, and its digest.

    Parameters
    ----------
    model : TensorSource
        Its tensors.
    close : callable
        Gives back what it holds.

    Attributes
    ----------
    numbers : dict of str to int
        Number of each tensor, by name.
    nbytes : int
        Bytes of all tensors.
    """

    def __init__(self, model: TensorSource, close: Callable[[], None]) -> None:
        self._hashed = _Hashed(model)
        super().__init__(self._hashed)
        self._close = close
        self.numbers = {tensor.name: k for k, tensor in enumerate(self.tensors)}
        self.nbytes = sum(tensor.nbytes for tensor in self.tensors)

    @property
    def failures(self) -> int:
        """How often reading it ended in an error."""
        return self._hashed.failures

    def digests(self) -> list[bytes]:
        """Return the digest of each tensor, by number; reads what has not been read."""
        found = self._hashed.digests()
        return [found[k] for k in self.order]

    def digest(self) -> int:
        """Return the digest of the model; reads what has not been read."""
        return int.from_bytes(model_digest(self.tensors, self.digests()), "little")

    def check(self, nbytes: int, digest: int) -> None:
        """Check that this is the base that a file was made against.

        Raises
        ------
        BaseMismatchError
        """
        self.check_size(nbytes)
        found = self.digest()
        if found != digest:
            msg = (
                f"base has digest {found:032x}, the model delta was made against one of "
                f"{digest:032x} (XXH3-128 of names, dtypes, shapes and bytes)"
            )
            raise BaseMismatchError(msg)

    def check_size(self, nbytes: int) -> None:
        """Check as far as that costs nothing; as `check`."""
        if self.nbytes != nbytes:
            msg = (
                f"tensors of the base have {self.nbytes} bytes, the model delta was made against "
                f"a base of {nbytes}"
            )
            raise BaseMismatchError(msg)

    def close(self) -> None:
        """Give back what the base holds."""
        self.release()
        self._close()


def digests_of(model: TensorSource) -> list[bytes]:
    """Return the digest of each tensor of a model."""
    return _Hashed(model).digests()


def source_of(data: Any) -> Source:
    """Open a path, or take a buffer."""
    return open_source(data) if isinstance(data, str | os.PathLike) else source_of_buffer(data)


def open_base(base: Any, limits: Limits, threads: int | None) -> Base:
    """Open whatever may be a base.

    Parameters
    ----------
    base : path-like, buffer, or a model
        A `.safetensors` file or a container, by path or in memory; or anything with tensors that
        can be read, such as a `DeltaReader`, which stays the caller's.
    """
    if hasattr(base, "tensors") and hasattr(base, "read"):
        return Base(base, _nothing)
    source = source_of(base)
    try:
        return Base(_model_of(source, limits, threads), source.close)
    except BaseException:
        source.close()
        raise


def _model_of(source: Source, limits: Limits, threads: int | None) -> TensorSource:
    magic = bytes(read(source, 0, min(4, source.nbytes)))
    if magic == _wire.MAGIC_CONTAINER:
        return ZstnTensors(source, limits, threads)
    if magic == _wire.MAGIC_MODEL_DELTA:
        msg = "the base is a model delta itself: open it beside its own base, and give the reader"
        raise ValueError(msg)
    header_bytes, header = parse_original(source)
    return FileTensors(source, 8 + len(header_bytes), header)


def _nothing() -> None:
    pass
