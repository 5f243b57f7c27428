"""The bytes of a reference, put together from those of the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai.align.casts import cast
from z4ai.align.elements import item_nbytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.align.pieces import Piece
    from z4ai.align.source import ByName

__all__ = ["reference_of", "reference_of_elements"]

# Rows are read together with what lies between them up to this many bytes at a time ...
_SPAN_NBYTES = 4 << 20
# ... where no more than this many times what is wanted is read, or the rows are short.
_MOST_READ = 4
_SHORT_NBYTES = 4 << 10


def reference_of(
    piece: Piece, base: ByName, target_dtype: str, first_row: int, n_rows: int
) -> NDArray[np.uint8]:
    """Gather the reference of some rows of a piece.

    Parameters
    ----------
    piece : Piece
        Of an alignment that is checked; with a source.
    base : ByName
        The base, its tensors in the order of their names.
    target_dtype : str
        The code of what is wanted; elements of another dtype are cast.
    first_row, n_rows : int
        Which of the rows of the target.

    Returns
    -------
    ndarray of uint8
        Contiguous; ``n_rows * piece.width`` elements. May be a read-only view of the base.

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.align import ByName, FileTensors, Piece, reference_of
    >>> from z4ai.container.source import source_of_buffer
    >>> from z4ai.container.st_header import Header, Tensor
    >>> matrix = np.arange(12, dtype=np.uint8)  # three rows of four
    >>> header = Header([Tensor("m", "U8", (3, 4), 0, 12)], None)
    >>> base = ByName(FileTensors(source_of_buffer(matrix), 0, header))
    >>> reference_of(Piece(2, 0, 4, 1, False), base, "U8", 1, 2)
    array([ 5,  6,  9, 10], dtype=uint8)
    >>> reference_of(Piece(3, 0, 3, 0, True), base, "U8", 0, 2)
    array([0, 4, 8, 1, 5, 9], dtype=uint8)
    """
    width = piece.width
    return reference_of_elements(
        piece, base, target_dtype, first_row * width, (first_row + n_rows) * width
    )


def reference_of_elements(
    piece: Piece, base: ByName, target_dtype: str, begin: int, end: int
) -> NDArray[np.uint8]:
    """Gather the reference of a range of the elements of a piece, counted row by row.

    So even a single long row can be had a block at a time.

    Parameters
    ----------
    piece, base, target_dtype
        As in `reference_of`.
    begin, end : int
        Elements of the piece: its rows, one behind the other.

    Returns
    -------
    ndarray of uint8
        Contiguous; ``end - begin`` elements. May be a read-only view of the base.
    """
    dtype = base.tensors[piece.source].dtype
    return cast(_content(piece, base, begin, end), dtype, target_dtype)


def _content(piece: Piece, base: ByName, begin: int, end: int) -> NDArray[np.uint8]:
    """Gather elements as the base has them."""
    tensor = base.tensors[piece.source]
    item = item_nbytes(tensor.dtype)
    held = base.transposed(piece.source, item) if piece.transposed else None

    def read(at: int, stop: int) -> NDArray[np.uint8]:
        if held is not None:
            return held[at * item : stop * item]
        return base.read(piece.source, at * item, stop * item)

    first_row, last_row = begin // piece.width, (end - 1) // piece.width
    if first_row == last_row or piece.width == piece.inner:
        at = first_row * piece.inner + piece.first + begin % piece.width
        return read(at, at + end - begin)
    out = np.empty((end - begin) * item, np.uint8)
    pos = begin
    while pos < end:
        row, column = divmod(pos, piece.width)
        at = row * piece.inner + piece.first + column
        if column or end - pos < 2 * piece.width:
            stop = min(end, (row + 1) * piece.width)
            run = read(at, at + stop - pos)
        else:
            n_rows = min((end - pos) // piece.width, _rows_together(piece, item))
            span = read(at, at + (n_rows - 1) * piece.inner + piece.width)
            run = _cut(span, n_rows, piece, item)
            stop = pos + n_rows * piece.width
        out[(pos - begin) * item : (stop - begin) * item] = run
        pos = stop
    return out


def _rows_together(piece: Piece, item: int) -> int:
    """Choose how many rows are read at once."""
    dense = piece.inner <= _MOST_READ * piece.width or piece.inner * item <= _SHORT_NBYTES
    return max(1, _SPAN_NBYTES // (piece.inner * item)) if dense else 1


def _cut(span: NDArray[np.uint8], n_rows: int, piece: Piece, item: int) -> NDArray[np.uint8]:
    """Leave out what lies between the rows of a span, which ends with the last one."""
    width, inner = piece.width * item, piece.inner * item
    if n_rows == 1:
        return span
    rows = np.lib.stride_tricks.as_strided(span, (n_rows, width), (inner, 1), writeable=False)
    return rows.reshape(-1)
