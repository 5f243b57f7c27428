"""What an alignment counts: the elements of a tensor, and which dtypes become which."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from z4ai.container.st_header import known_codes, tensor_nbytes

if TYPE_CHECKING:
    from z4ai.container.st_header import Tensor

__all__ = ["FLOATS", "Float", "castable", "item_nbytes", "n_items"]


class Float(NamedTuple):
    """How the bits of a float are divided.

    Attributes
    ----------
    nbytes : int
        Bytes of an element.
    exponent, mantissa : int
        Bits of each; the sign has the one that is left.
    infinite : bool
        Whether there are infinities; if not, only all ones is NaN.
    """

    nbytes: int
    exponent: int
    mantissa: int
    infinite: bool = True

    @property
    def bias(self) -> int:
        return (1 << (self.exponent - 1)) - 1

    @property
    def top(self) -> int:
        """Magnitude bits of infinity; of NaN where there is none."""
        ones = (1 << self.exponent) - 1
        return ones << self.mantissa if self.infinite else (1 << (8 * self.nbytes - 1)) - 1


FLOATS = {
    "F64": Float(8, 11, 52),
    "F32": Float(4, 8, 23),
    "F16": Float(2, 5, 10),
    "BF16": Float(2, 8, 7),
    "F8_E5M2": Float(1, 5, 2),
    "F8_E4M3": Float(1, 4, 3, infinite=False),
}


def _whole_bytes() -> dict[str, int]:
    found = {}
    for code in known_codes():
        nbytes = tensor_nbytes(code, (8,)) or 0
        if nbytes % 8 == 0:
            found[code] = nbytes // 8
    return found


_ITEM_NBYTES = _whole_bytes()


def item_nbytes(dtype: str) -> int:
    """Return the bytes of an element; 1 where elements are no whole bytes or not known.

    Examples
    --------
    >>> from z4ai.align import item_nbytes
    >>> item_nbytes("BF16"), item_nbytes("F4")
    (2, 1)
    """
    return _ITEM_NBYTES.get(dtype, 1)


def n_items(tensor: Tensor) -> int:
    """Count the elements of a tensor as `item_nbytes` has them."""
    return tensor.nbytes // item_nbytes(tensor.dtype)


def castable(base: str, target: str) -> bool:
    """Tell whether a tensor of dtype `base` can be the reference of one of dtype `target`.

    Examples
    --------
    >>> from z4ai.align import castable
    >>> castable("F32", "BF16"), castable("I8", "I16")
    (True, False)
    """
    return base == target or (base in FLOATS and target in FLOATS)
