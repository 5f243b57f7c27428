"""One large tensor against its reference, block by block, each in the way that takes least."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai.codec import compress
from z4ai.container.st_header import dtype_of
from z4ai.delta_encoder import encode_delta
from z4ai.deltas.choose import is_clearly_smaller, looks_related
from z4ai.deltas.records import MOST_BLOCK_NBYTES, row_items
from z4ai.encoder import encode_content
from z4ai.frame import FrameHeader

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from z4ai.container.st_header import Tensor
    from z4ai.deltas.references import Reference
    from z4ai.difference_choice import Hints
    from z4ai.lowrank import Factors

__all__ = ["BlockCoder", "Coded"]

# Low rank is looked for in tensors of up to this size, which are held as a whole for it.
_MOST_FACTORED_NBYTES = 256 << 20
_FACTORED = ("F16", "BF16", "F32", "F64")
_LOOKS, _LOOK = 4, 1 << 12


class Coded(NamedTuple):
    """A coded block.

    Attributes
    ----------
    delta : bool
        Whether `frame` is a delta frame of what has a reference, or a frame of all.
    frame, new : bytes
        That, and the frame of what has no reference; None if there is nothing such.
    content_nbytes : int
        Bytes of the block.
    has_reference : bool
        Whether some of it has a reference.
    """

    delta: bool
    frame: bytes
    new: bytes | None
    content_nbytes: int
    has_reference: bool = True

    @property
    def nbytes(self) -> int:
        return len(self.frame) + len(self.new or b"")


class BlockCoder:
    """Coder of one tensor.

    Parameters
    ----------
    tensor : Tensor
        Of the target.
    reference : Reference
        What it may be near.
    read : callable
        ``read(begin, end)`` returns elements of the tensor.
    record_nbytes : int
        What its record takes in the index.
    effort : str
        The tier.
    threads : int or None
        The caller's wish.
    hints : dict
        Shared by the tensors of a model, whose layers resemble one another.

    Attributes
    ----------
    block, n_blocks : int
        Elements of a block, and how many blocks there are.
    factors : bytes or None
        A frame of factors that the blocks ask for; known after the first was coded.
    """

    def __init__(
        self,
        tensor: Tensor,
        reference: Reference,
        read: Callable[[int, int], NDArray[np.uint8]],
        record_nbytes: int,
        effort: str,
        threads: int | None,
        hints: Hints,
    ) -> None:
        self._tensor = tensor
        self._record_nbytes = record_nbytes
        self._dtype = dtype_of(tensor.dtype)
        self._reference = reference
        self._read = read
        self._effort = effort
        self._threads = threads
        self._hints = hints
        self._row = row_items(tensor) if tensor.shape else 1
        self.block = self._block()
        self.n_blocks = -(-reference.n_items // self.block)
        self.factors: bytes | None = None

    def _block(self) -> int:
        n, item = self._reference.n_items, self._reference.item
        most = MOST_BLOCK_NBYTES // item
        if n <= most:
            return n
        return most // self._row * self._row if 0 < self._row <= most else most

    def looks_related(self) -> bool:
        """Tell by some runs of the tensor whether it may be near its reference."""
        reference = self._reference
        n = reference.n_items
        run = min(n, _LOOK)
        for r in range(_LOOKS):
            begin = (n - run) * r // (_LOOKS - 1)
            content = self._read(begin, begin + run)
            if reference.has_new:
                content = reference.split(content, begin, begin + run)[0]
            there = reference.gather(begin, begin + run)
            if len(content) and looks_related(content, there, self._dtype):
                return True
        return False

    def code(self, number: int) -> Coded:
        """Code a block; the first one decides on factors."""
        begin = number * self.block
        end = min(begin + self.block, self._reference.n_items)
        content = self._read(begin, end)
        found = self._delta(content, begin, end)
        if number == 0:
            found = self._try_factors(content, begin, end, found)
        added = 0
        if found is not None:
            shape = self._shape(end - begin)
            added = self._record_nbytes + len(self.factors or b"")
            clear = self._effort != "max" and is_clearly_smaller(
                found.nbytes + added, content, self._dtype, shape
            )
            if clear:
                return found
        scratch = self._scratch(content, self._shape(end - begin))
        if found is not None and found.nbytes + added < len(scratch):
            return found
        return Coded(False, scratch, None, len(content), found is not None)

    def _delta(self, content: NDArray[np.uint8], begin: int, end: int) -> Coded | None:
        """Code what has a reference against it, and the rest apart."""
        reference = self._reference
        n_known = reference.n_known(begin, end)
        if n_known == 0:
            return None
        known, new = content, content[:0]
        if n_known < end - begin:
            known, new = reference.split(content, begin, end)
        there = reference.gather(begin, end)
        shape = self._shape(n_known)
        # What remains beside factors is of another kind.
        hints = self._hints if self._reference.factors is None else None
        frame = encode_delta(
            known, there, self._dtype, self._effort, shape, self._threads, hints=hints
        )
        apart = self._scratch(new, self._shape(end - begin - n_known)) if len(new) else None
        return Coded(True, frame, apart, len(content))

    def _scratch(self, content: NDArray[np.uint8], shape: tuple[int, ...] | None) -> bytes:
        header = FrameHeader(self._dtype, len(content))
        return encode_content(content, header, self._effort, shape, self._threads)

    def _shape(self, n: int) -> tuple[int, ...] | None:
        """Shape of so many elements, where they are whole rows; as the kernels count elements."""
        shape = self._tensor.shape
        whole = bool(shape) and self._row > 0 and n % self._row == 0
        if not whole or self._reference.item != self._dtype.width:
            return None
        found = (n // self._row, *shape[1:])
        return found if prod(found) == n else None

    # --- Low rank ---------------------------------------------------------------------------------

    def _try_factors(
        self, content: NDArray[np.uint8], begin: int, end: int, plain: Coded | None
    ) -> Coded | None:
        """Keep factors if the first block, with its part of them, is smaller by them."""
        found = None if plain is None else self._find_factors(content)
        if found is None:
            return plain
        from z4ai.lowrank import encode_factors  # noqa: PLC0415 - seldom needed

        encoded = compress(np.frombuffer(encode_factors(found), np.uint8), effort=self._effort)
        self._reference.factors = found
        coded = self._delta(content, begin, end)
        share = len(encoded) // self.n_blocks
        if coded is not None and plain is not None and coded.nbytes + share < plain.nbytes:
            self.factors = encoded
            return coded
        self._reference.factors = None
        return plain

    def _find_factors(self, content: NDArray[np.uint8]) -> Factors | None:
        tensor, reference = self._tensor, self._reference
        if tensor.dtype not in _FACTORED or len(tensor.shape) < 2 or reference.has_new:
            return None
        if tensor.nbytes > _MOST_FACTORED_NBYTES:
            return None
        from z4ai.lowrank import find_factors  # noqa: PLC0415 - costs import time

        if self.block % self._row:
            return None
        # The whole is read only if its first block shows that it is worth that.
        shape = self.block // self._row, self._row
        found = find_factors(content, reference.gather(0, self.block), self._dtype, shape)
        if found is None or self.n_blocks == 1:
            return found
        n = reference.n_items
        shape = tensor.shape[0], self._row
        return find_factors(self._read(0, n), reference.gather(0, n), self._dtype, shape)
