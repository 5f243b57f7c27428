"""Cheap looks at a tensor and its reference, so that not everything is coded in both ways."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from z4ai.dtypes import FLOAT2, FLOAT4, FLOAT8
from z4ai.encoder import find_copies

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["is_clearly_smaller", "looks_related"]

_RUNS, _RUN = 4, 1024
_FLOATS = (FLOAT2, FLOAT4, FLOAT8)
# What is estimated from a sample is trusted by so much, in hundredths.
_TRUST = 65
# Runs of integers on a grid, or of a palette, have fewer values than so many of ten.
_DISTINCT = 4


def _sample(content: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Take some runs of elements from all over a content."""
    n = len(content) // width
    if n <= _RUNS * _RUN:
        return content[: n * width]
    gap = (n - _RUN) // (_RUNS - 1)
    starts = [k * gap * width for k in range(_RUNS)]
    return np.concatenate([content[at : at + _RUN * width] for at in starts])


def looks_related(content: NDArray[np.uint8], reference: NDArray[np.uint8], dtype: DType) -> bool:
    """Tell whether a tensor may be near its reference; of floats, by signs and exponents.

    Those of unrelated weights are equal, or nearly so, in a third of all cases.
    """
    if dtype.layout not in _FLOATS:
        return True
    width = dtype.width
    tops = []
    for side in (content, reference[: len(content)]):
        top = _sample(side, width).view("<u2")[width // 2 - 1 :: width // 2]
        tops.append(top.astype(np.int32))
    n = min(map(len, tops))
    one, other = tops[0][:n], tops[1][:n]
    mantissa = 10 if dtype.name == "fp16" else 4 if width == 8 else 7
    near = np.abs((one & 0x7FFF) - (other & 0x7FFF)) < 1 << mantissa
    same_sign = ((one ^ other) & 0x8000) == 0
    return 2 * int(np.count_nonzero(near & same_sign)) >= n


def is_clearly_smaller(
    nbytes: int, content: NDArray[np.uint8], dtype: DType, shape: tuple[int, ...] | None
) -> bool:
    """Tell whether a delta of so many bytes is smaller than any coding of the content alone.

    Only of what looks like weights: floats of many values, that do not repeat.
    """
    if dtype.layout not in _FLOATS or not nbytes:
        return False
    sample = _sample(content, dtype.width)
    words = sample.view(f"<u{dtype.width}")
    words = np.sort(words[: len(words) // _RUN * _RUN].reshape(-1, _RUN))
    changes = np.count_nonzero(words[:, 1:] != words[:, :-1])
    if not words.size or 10 * changes < _DISTINCT * words.size:
        return False
    bits = 0
    for plane in sample.reshape(-1, dtype.width).T:
        counts = np.bincount(plane)
        logs = _sixteenths()
        bits += int((counts * (logs[len(plane)] - logs[counts])).sum())
    estimate = len(content) * bits // (16 * 8 * len(sample))
    if nbytes * 100 >= estimate * _TRUST:
        return False
    return find_copies(content, dtype, shape)[0] is None


@lru_cache(maxsize=1)
def _sixteenths() -> NDArray[np.int64]:
    """Binary logarithms in sixteenths, of counts in a sample; the same on every machine."""
    most = _RUNS * _RUN
    return np.array([0, *((n**16).bit_length() - 1 for n in range(1, most + 1))], np.int64)
