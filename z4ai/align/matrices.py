"""Tensors as matrices, and small blocks of them as sketches of the rows or columns they are in."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai.align.elements import item_nbytes, n_items
from z4ai.align.pieces import transposable
from z4ai.align.samples import in_order, sketch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.align.source import TensorSource
    from z4ai.container.st_header import Tensor

__all__ = ["Axis", "Blocks", "axes_of", "can_turn", "line_of", "similar", "telling"]

# A block has this many elements, if it is not of a vector, and at most so many across.
_BLOCK = 256
_ACROSS = 16
_OF_VECTOR = 128
# A single row has more of them, a single column fewer: each of its elements is read apart.
_OF_ROW = 256
_OF_COLUMN = 64
_FEWEST_OF_LINE = 32
# Rows that lie together are read at once up to this many bytes.
_SPAN_NBYTES = 1 << 16
# Blocks that are in memory at once.
_AT_ONCE = 1 << 12
# Bits in a hundred that agree in what is alike: eight deviations from chance at 128 bits.
_ALIKE = 85


class Axis(NamedTuple):
    """One axis of a tensor that is seen as a matrix.

    Attributes
    ----------
    k : int
        Number of the tensor.
    rows, columns : int
        The matrix.
    across : bool
        Whether the axis is that of the columns.
    """

    k: int
    rows: int
    columns: int
    across: bool

    @property
    def length(self) -> int:
        return self.columns if self.across else self.rows

    @property
    def other(self) -> int:
        return self.rows if self.across else self.columns

    @property
    def along(self) -> int:
        """Rows or columns of a block."""
        if self.other == 1:
            return _OF_VECTOR
        return -(-_BLOCK // min(self.other, _ACROSS))


def axes_of(tensor: Tensor, k: int) -> list[Axis]:
    """List the axes along which a tensor may be cut: rows, columns, rows of all but the last."""
    shape = [extent for extent in tensor.shape if extent != 1]
    n = n_items(tensor)
    if not shape or not n:
        return []
    # Of a dtype that is not known a shape says nothing, not even that there are bytes.
    if len(shape) == 1 or 0 in shape:
        return [Axis(k, n, 1, False)]
    found = [Axis(k, shape[0], n // shape[0], across) for across in (False, True)]
    if len(shape) > 2 and shape[-1] >= _ACROSS:
        found.append(Axis(k, n // shape[-1], shape[-1], False))
    return found


def can_turn(tensor: Tensor, axis: Axis) -> bool:
    """Tell whether rows may be taken for columns: only of the matrix of ``shape[0]`` rows."""
    return axis.columns > 1 and axis.rows == tensor.shape[0] and transposable(tensor)


class Blocks:
    """Sketches of a model's blocks, each read once."""

    def __init__(self, model: TensorSource) -> None:
        self.model = model
        self._known: dict[tuple[Axis, int], NDArray[np.uint16]] = {}

    def at(self, axis: Axis, place: int) -> NDArray[np.uint16]:
        """Sketch the rows, or columns, from `place` on, where the other axis has its middle.

        A matrix and its transpose have the same sketches along the axes that correspond.
        """
        known = self._known.get((axis, place))
        return self.all_at([(axis, place)])[0] if known is None else known

    def all_at(self, places: Sequence[tuple[Axis, int]]) -> list[NDArray[np.uint16]]:
        """Sketch many blocks at once."""
        by_dtype: dict[tuple[str, int], list[tuple[Axis, int]]] = defaultdict(list)
        for axis, place in places:
            if (axis, place) not in self._known:
                n = axis.along * min(axis.other, _ACROSS)
                by_dtype[self.model.tensors[axis.k].dtype, n].append((axis, place))
        for (dtype, _), some in by_dtype.items():
            for at in range(0, len(some), _AT_ONCE):
                these = some[at : at + _AT_ONCE]
                contents = [
                    self._content(axis, place, axis.along, min(axis.other, _ACROSS))
                    for axis, place in these
                ]
                blocks = in_order(np.concatenate(contents), dtype).reshape(len(these), -1)
                self._known.update(zip(these, sketch(blocks[:, :_BLOCK], _BLOCK), strict=True))
        return [self._known[place] for place in places]

    def forget(self) -> None:
        """Give back what is known."""
        self._known.clear()

    def line(self, axis: Axis, place: int, n: int) -> NDArray[np.uint16]:
        """Sketch `n` elements of a single row or column."""
        content = self._content(axis, place, 1, n)
        return sketch(in_order(content, self.model.tensors[axis.k].dtype), _BLOCK)

    def _content(self, axis: Axis, place: int, along: int, n_other: int) -> NDArray[np.uint8]:
        """Read a block, in the middle of the other axis; in rows that run across the axis."""
        other = (axis.other - n_other) // 2
        if axis.across:
            block = np.ascontiguousarray(self._read(axis, other, n_other, place, along).T)
        else:
            block = self._read(axis, place, along, other, n_other)
        return block.reshape(-1).view(np.uint8)

    def _read(
        self, axis: Axis, row: int, n_rows: int, column: int, n_columns: int
    ) -> NDArray[np.unsignedinteger]:
        item = item_nbytes(self.model.tensors[axis.k].dtype)
        word = f"<u{item}"
        pitch = axis.columns * item
        begin = row * pitch + column * item
        end = begin + (n_rows - 1) * pitch + n_columns * item
        if end - begin <= _SPAN_NBYTES:
            span = self.model.read(axis.k, begin, end)
            rows = [span[at * pitch :][: n_columns * item] for at in range(n_rows)]
        else:
            rows = [
                self.model.read(axis.k, begin + at * pitch, begin + at * pitch + n_columns * item)
                for at in range(n_rows)
            ]
        return np.concatenate(rows).view(word).reshape(n_rows, n_columns)


def line_of(axis: Axis, source: Axis) -> int:
    """Choose of how many elements a row or column is told; 0 if it is too short."""
    n = min(axis.other, _OF_COLUMN if axis.across or source.across else _OF_ROW)
    return n if n >= _FEWEST_OF_LINE else 0


def similar(one: NDArray[np.uint16], other: NDArray[np.uint16]) -> bool:
    """Tell whether two sketches are of the same elements, but for some training."""
    n_bits = 16 * len(one)
    same = n_bits - int(np.bitwise_count(one ^ other).sum())
    return 100 * same >= _ALIKE * n_bits


def telling(one: NDArray[np.uint16]) -> bool:
    """Tell whether a sketch is that of elements in no order: not constant, not sorted."""
    n_bits = 16 * len(one)
    return n_bits < 4 * int(np.bitwise_count(one).sum()) < 3 * n_bits
