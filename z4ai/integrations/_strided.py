"""A strided part of a tensor, from no more chunks than hold it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai.container.sink import IntoMemory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.container.decode import TensorDecoder
    from z4ai.container.sink import Sink
    from z4ai.container.st_header import Tensor
    from z4ai.container.zstn import Location

__all__ = ["StridedRead"]

# What may be decoded beside the result.
_HULL_NBYTES = 16 << 20


class StridedRead:
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
