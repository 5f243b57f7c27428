"""A model as a list of tensors whose bytes can be read in ranges, however it is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from z4ai.container.source import read

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray

    from z4ai.container.source import Source
    from z4ai.container.st_header import Header, Tensor

__all__ = ["ByName", "FileTensors", "TensorSource"]


class TensorSource(Protocol):
    """A model whose tensors can be read.

    Attributes
    ----------
    tensors : sequence of Tensor
        What it holds, in any order.
    """

    @property
    def tensors(self) -> Sequence[Tensor]: ...

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Return the bytes [begin, end) of tensor `k`; the array is read-only.

        Small ranges of a tensor are asked for in the order in which they lie there.
        """


class FileTensors:
    """The tensors of a `.safetensors` file.

    Parameters
    ----------
    source : Source
        The whole file.
    start : int
        Where its data begins, behind the JSON header.
    header : Header
        What the JSON header says.
    """

    def __init__(self, source: Source, start: int, header: Header) -> None:
        self.tensors: Sequence[Tensor] = header.tensors
        self._source = source
        self._start = start

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Return bytes of a tensor: a view if the file is in memory, else read afresh."""
        at = self._start + self.tensors[k].begin
        # Asked each time: what is closed must not be held.
        memory = self._source.memory
        if memory is not None:
            out = memory[at + begin : at + end]
        else:
            out = np.frombuffer(read(self._source, at + begin, end - begin), np.uint8)
        out.flags.writeable = False
        return out


class ByName:
    """A model whose tensors are numbered in the order of their names, by code points.

    So a number means the same tensor whatever the order in the file is.

    Parameters
    ----------
    model : TensorSource
        The same tensors in any order.

    Attributes
    ----------
    order : list of int
        For each tensor its number in `model`.
    transposed_nbytes : int
        Bytes of all that was transposed so far.
    """

    def __init__(self, model: TensorSource) -> None:
        self._model = model
        self.order = sorted(range(len(model.tensors)), key=lambda k: model.tensors[k].name)
        self.tensors: Sequence[Tensor] = [model.tensors[k] for k in self.order]
        self.transposed_nbytes = 0
        self._held: dict[int, NDArray[np.uint8]] = {}

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Return bytes of tensor `k`."""
        return self._model.read(self.order[k], begin, end)

    def transposed(self, k: int, item: int) -> NDArray[np.uint8]:
        """Return the content of a transposed matrix, which is held until `release`."""
        held = self._held.get(k)
        if held is None:
            tensor = self.tensors[k]
            matrix = self.read(k, 0, tensor.nbytes).view(f"<u{item}").reshape(tensor.shape[0], -1)
            held = np.ascontiguousarray(matrix.T).reshape(-1).view(np.uint8)
            held.flags.writeable = False
            self._held[k] = held
            self.transposed_nbytes += tensor.nbytes
        return held

    def release(self, but: Collection[int] = ()) -> None:
        """Give back what is held, but of some tensors."""
        for k in [k for k in self._held if k not in but]:
            del self._held[k]
