"""Where the reference of a tensor lies in the base, and what makes such a claim legal."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from z4ai.align.elements import castable, item_nbytes, n_items
from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.container.st_header import Tensor

__all__ = [
    "MAX_PIECES",
    "MAX_TRANSPOSED_NBYTES",
    "Alignment",
    "Piece",
    "check_alignment",
    "transposable",
    "whole",
]

# As docs/format/alignment.md has them.
MAX_TRANSPOSED_NBYTES = 256 << 20
MAX_PIECES = 4096
_MOST_SKIPPED = 256


class Piece(NamedTuple):
    """A range of the inner axis of a target, and where its reference lies.

    Attributes
    ----------
    width : int
        Elements of the range.
    source : int
        Number of the base tensor among those of its model, sorted by name; -1 where there is no
        reference.
    inner : int
        Elements of the inner axis of the base tensor.
    first : int
        The first one of them that is used.
    transposed : bool
        Whether the base tensor, a matrix of ``shape[0]`` rows, is transposed first.
    """

    width: int
    source: int
    inner: int
    first: int
    transposed: bool


class Alignment(NamedTuple):
    """How the reference of a whole tensor is put together.

    Attributes
    ----------
    outer : int
        The target is seen as `outer` rows.
    pieces : tuple of Piece
        They fill a row, in order.
    """

    outer: int
    pieces: tuple[Piece, ...]


def whole(target: Tensor, source: int) -> Alignment:
    """Align a tensor with a base tensor of as many elements, as they lie."""
    n = n_items(target)
    return Alignment(1, (Piece(n, source, n, 0, False),))


def transposable(tensor: Tensor) -> bool:
    """Tell whether a base tensor may be transposed: a matrix that can be held in memory."""
    if len(tensor.shape) < 2 or not 0 < tensor.nbytes <= MAX_TRANSPOSED_NBYTES:
        return False
    n = 1
    for extent in tensor.shape:
        n *= extent
    return n == n_items(tensor)


def check_alignment(alignment: Alignment, target: Tensor, base: Sequence[Tensor]) -> None:
    """Check an alignment that a file claims, before anything is read by it.

    Parameters
    ----------
    alignment : Alignment
        Any integers.
    target : Tensor
        Whose reference it describes.
    base : sequence of Tensor
        Of the base, sorted by name.

    Raises
    ------
    CorruptError
        If it is not legal; `tensor` names the target.
    """
    fault = _fault(alignment, target, base)
    if fault is not None:
        msg = f"alignment {fault}"
        raise CorruptError(msg, tensor=target.name)


def _fault(alignment: Alignment, target: Tensor, base: Sequence[Tensor]) -> str | None:
    outer, pieces = alignment
    n = n_items(target)
    if not 1 <= outer <= n or n % outer:
        return f"has {outer} rows of {n} elements"
    if not 1 <= len(pieces) <= MAX_PIECES:
        return f"has {len(pieces)} pieces, expected 1 to {MAX_PIECES}"
    if sum(piece.width for piece in pieces) != n // outer:
        return f"has pieces that do not fill a row of {n // outer} elements"
    transposed = set()
    for number, piece in enumerate(pieces):
        fault = _fault_of_piece(piece, outer, target, base)
        if fault is not None:
            return f"has piece {number} {fault}"
        if piece.transposed:
            transposed.add(piece.source)
    nbytes = sum(base[k].nbytes for k in transposed)
    if nbytes > MAX_TRANSPOSED_NBYTES:
        return f"transposes {nbytes} bytes, expected at most {MAX_TRANSPOSED_NBYTES}"
    return None


def _fault_of_piece(piece: Piece, outer: int, target: Tensor, base: Sequence[Tensor]) -> str | None:
    if piece.width < 1:
        return f"of {piece.width} elements"
    if piece.source == -1:
        bare = piece.inner == piece.first == 0 and not piece.transposed
        return None if bare else "that has no source, and a place in it"
    if not 0 <= piece.source < len(base):
        return f"of base tensor {piece.source}, there are {len(base)}"
    source = base[piece.source]
    if not castable(source.dtype, target.dtype):
        return f"of dtype {source.dtype} for one of {target.dtype}"
    n = n_items(source)
    if piece.inner < 1 or outer * piece.inner > n:
        return f"with {outer} rows of {piece.inner} elements of a base tensor of {n}"
    if not 0 <= piece.first <= piece.inner - piece.width:
        return f"at {piece.first} of {piece.width} elements, rows have {piece.inner}"
    if outer > 1 and piece.inner > _MOST_SKIPPED * piece.width:
        return f"of {piece.width} elements in rows of {piece.inner}: too few"
    if piece.transposed and not transposable(source):
        return f"of {source.name!r}, which cannot be transposed"
    return None


def nbytes_of(piece: Piece, outer: int, target: Tensor) -> int:
    """Compute the bytes of the target that a piece is the reference of."""
    return outer * piece.width * item_nbytes(target.dtype)
