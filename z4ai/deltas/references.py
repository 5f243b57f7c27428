"""What a tensor is compared with: gathered from the base, and predicted where it can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai.align import (
    Alignment,
    check_alignment,
    item_nbytes,
    n_items,
    reference_of_elements,
    whole,
)
from z4ai.container.st_header import dtype_of
from z4ai.deltas.records import FROM_NAME, FROM_PIECES, Columns, row_items
from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from z4ai.align import Piece
    from z4ai.container.st_header import Tensor
    from z4ai.deltas.models import Base
    from z4ai.deltas.records import Entry
    from z4ai.lowrank import Factors

__all__ = ["Reference", "alignment_of", "named"]


def named(tensor: Tensor, base: Base) -> int | None:
    """Find the base tensor of the same name, if it is of the same shape."""
    number = base.numbers.get(tensor.name)
    if number is None or base.tensors[number].shape != tensor.shape:
        return None
    return number


def alignment_of(entry: Entry, tensor: Tensor, base: Base) -> Alignment:
    """Find where in the base an entry's reference lies, and check that it is there.

    Raises
    ------
    CorruptError
        If it is not.
    """
    if entry.origin == FROM_PIECES:
        alignment = Alignment(entry.outer, entry.pieces)
    else:
        number = named(tensor, base) if entry.origin == FROM_NAME else entry.source
        if number is None or number >= len(base.tensors):
            msg = "the base has no such tensor"
            raise CorruptError(msg, tensor=tensor.name)
        alignment = whole(tensor, number)
        if n_items(base.tensors[number]) != n_items(tensor):
            msg = f"base tensor {number} has another number of elements"
            raise CorruptError(msg, tensor=tensor.name)
    check_alignment(alignment, tensor, base.tensors)
    return alignment


class _Run(NamedTuple):
    """Elements of one piece in some whole rows, or in a part of one row.

    Attributes
    ----------
    piece : Piece
        Whose they are.
    begin, end : int
        Elements of the piece, row by row.
    at, width : int
        Where they begin in a row of the rectangle, and how many of each row they are.
    """

    piece: Piece
    begin: int
    end: int
    at: int
    width: int


class Reference:
    """The reference of one tensor.

    Parameters
    ----------
    tensor : Tensor
        Of the target.
    alignment : Alignment
        Where its reference lies; checked.
    base : Base
        In which.
    factors : Factors, optional
        What is added to it.
    """

    def __init__(
        self, tensor: Tensor, alignment: Alignment, base: Base, factors: Factors | None = None
    ) -> None:
        self._tensor = tensor
        self._base = base
        self._pieces = alignment.pieces
        self._columns = Columns(alignment.pieces)
        self.item = item_nbytes(tensor.dtype)
        self.n_items = n_items(tensor)
        self.factors = factors

    @property
    def has_new(self) -> bool:
        """Whether some elements have no reference."""
        return self._columns.known < self._columns.inner

    def n_known(self, begin: int, end: int) -> int:
        """Count the elements of a range that have a reference."""
        return self._columns.n_known(begin, end)

    def gather(self, begin: int, end: int) -> NDArray[np.uint8]:
        """Return the references of those elements of a range that have one; not to be changed.

        With factors the range is one of whole rows.
        """
        content = self._gather(begin, end)
        if self.factors is None:
            return content
        from z4ai.lowrank import predict  # noqa: PLC0415 - seldom needed

        row = row_items(self._tensor)
        out = np.empty(len(content), np.uint8)
        dtype = dtype_of(self._tensor.dtype)
        predict(content, dtype, self.factors, begin // row, (end - begin) // row, out)
        return out

    def _gather(self, begin: int, end: int) -> NDArray[np.uint8]:
        if len(self._pieces) == 1:
            return self._read(self._pieces[0], begin, end)
        out = np.empty(self.n_known(begin, end) * self.item, np.uint8)
        pos = 0
        for rows, runs in self._walk(begin, end):
            known = sum(run.width for run in runs if run.piece.source >= 0)
            nbytes = rows * known * self.item
            block = out[pos : pos + nbytes].reshape(rows, -1)
            pos += nbytes
            at = 0
            for run in runs:
                if run.piece.source >= 0:
                    stop = at + run.width * self.item
                    content = self._read(run.piece, run.begin, run.end)
                    block[:, at:stop] = content.reshape(rows, -1)
                    at = stop
        return out

    def _read(self, piece: Piece, begin: int, end: int) -> NDArray[np.uint8]:
        return reference_of_elements(piece, self._base, self._tensor.dtype, begin, end)

    def split(
        self, content: NDArray[np.uint8], begin: int, end: int
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Divide the content of a range; -> what has a reference, and what is new."""
        known = np.empty(self.n_known(begin, end) * self.item, np.uint8)
        new = np.empty(len(content) - len(known), np.uint8)
        for part, run in self._parts(content, known, new, begin, end):
            run[:] = part
        return known, new

    def join(
        self,
        out: NDArray[np.uint8],
        known: NDArray[np.uint8],
        new: NDArray[np.uint8],
        begin: int,
        end: int,
    ) -> None:
        """Put together the content of a range, as `split` divided it."""
        for part, run in self._parts(out, known, new, begin, end):
            part[:] = run

    def _parts(
        self,
        content: NDArray[np.uint8],
        known: NDArray[np.uint8],
        new: NDArray[np.uint8],
        begin: int,
        end: int,
    ) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        """Pair the runs of a content with their places among what is known or new."""
        pos, at = 0, [0, 0]
        for rows, runs in self._walk(begin, end):
            width = sum(run.width for run in runs)
            block = content[pos : pos + rows * width * self.item].reshape(rows, -1)
            pos += block.size
            sides = []
            for side, (apart, is_known) in enumerate(((known, True), (new, False))):
                inside = sum(run.width for run in runs if (run.piece.source >= 0) == is_known)
                nbytes = rows * inside * self.item
                sides.append(apart[at[side] : at[side] + nbytes].reshape(rows, inside * self.item))
                at[side] += nbytes
            filled = [0, 0]
            for run in runs:
                side = int(run.piece.source < 0)
                nbytes = run.width * self.item
                left = run.at * self.item
                there = sides[side][:, filled[side] : filled[side] + nbytes]
                filled[side] += nbytes
                yield block[:, left : left + nbytes], there

    def _walk(self, begin: int, end: int) -> Iterator[tuple[int, list[_Run]]]:
        """Divide a range of elements into rectangles; -> rows of each, and its runs of pieces."""
        inner = self._columns.inner
        while begin < end:
            row, column = divmod(begin, inner)
            rows = (end - begin) // inner if column == 0 else 0
            if rows:
                stop, left, right = begin + rows * inner, 0, inner
            else:
                rows, left = 1, column
                right = min(inner, column + end - begin)
                stop = begin + right - left
            yield rows, list(self._runs(row, rows, left, right))
            begin = stop

    def _runs(self, row: int, rows: int, left: int, right: int) -> Iterator[_Run]:
        for p in self._columns.between(left, right):
            piece, start = self._pieces[p], self._columns.starts[p]
            low, high = max(left, start), min(right, start + piece.width)
            first = row * piece.width
            begin = first + low - start
            stop = first + (rows - 1) * piece.width + high - start
            yield _Run(piece, begin, stop, low - left, high - low)
