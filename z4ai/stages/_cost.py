"""What content costs that is coded without its structure: a yardstick for stages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai._fast import planes, sparse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["bits_of", "order0", "plain_bits", "planes_order0"]

_BLOCKS = 64
_BLOCK = 512

_UNIT = 1 << 16
_ROOT = 0.7071067811865476
_TWO_BY_LN2 = 2.8853900817779268

# Bits of the remainder below the field of docs/format/codecs/symbols.md, by the width.
_LOWER_BITS = {2: 5, 4: 5, 8: 3}
_FP16_LOWER_BITS = 7


def bits_of(counts: NDArray[np.integer]) -> float:
    """Return the order-0 entropy, in bits, of all symbols counted."""
    positive = counts[counts > 0].astype(np.int64)
    total = positive.sum(keepdims=True)
    scaled = (total * _logarithms(total)).sum() - (positive * _logarithms(positive)).sum()
    return int(scaled) / _UNIT


def _logarithms(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Logarithms to base 2 in units of 1 / `_UNIT`, below 2**43.

    Libraries differ in the last bits of a logarithm, and choices must not: single operations of
    IEEE 754 only, and sums of integers.
    """
    mantissas, exponents = np.frexp(counts.astype(np.float64))
    t = (mantissas - _ROOT) / (mantissas + _ROOT)
    square = t * t
    logarithms = t * (1.0 + square * (1.0 / 3.0 + square * 0.2)) * _TWO_BY_LN2
    whole: NDArray[np.int64] = np.rint((exponents - 0.5 + logarithms) * _UNIT).astype(np.int64)
    return whole


def plain_bits(content: NDArray[np.uint8], dtype: DType) -> float:
    """Estimate the bits that `content` takes, from a sample: top field, remainder, low bytes.

    Zeros count as a symbol of their own, as a stage of their own may take them out.
    """
    width = dtype.width
    n = len(content) // width
    elements = content.reshape(n, width)
    if n > _BLOCKS * _BLOCK:
        starts = np.arange(_BLOCKS) * ((n - _BLOCK) // (_BLOCKS - 1))
        elements = elements[(starts[:, None] + np.arange(_BLOCK)).ravel()]
    m = len(elements)
    elements = elements[elements.any(axis=1)]
    bits = bits_of(np.array([m - len(elements), len(elements)]))
    if len(elements):
        top = elements[:, -2].astype(np.uint16) | elements[:, -1].astype(np.uint16) << 8
        lower = _FP16_LOWER_BITS if dtype.name == "fp16" else _LOWER_BITS[width]
        sign = top >> 15 << lower
        bits += bits_of(np.bincount((top & 0x7FFF) >> lower))
        bits += bits_of(np.bincount(sign | top & (1 << lower) - 1))
        for byte in range(width - 2):
            bits += bits_of(np.bincount(elements[:, byte]))
    return bits * n / m


def order0(symbols: NDArray[np.uint8]) -> int:
    """Return the order-0 entropy of symbols, in the units of the kernel: 1/65536 bit."""
    return sparse.entropy(np.bincount(symbols))


def planes_order0(content: NDArray[np.uint8], dtype: DType) -> int:
    """Return that of the planes of a content, together: what it takes as it is."""
    return sum(order0(plane) for plane in planes.split(content, dtype.layout))
