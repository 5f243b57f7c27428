"""Stage `zeros`: one value that is most of a chunk. Specification: docs/format/codecs/zeros.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai._fast import sparse
from z4ai.dtypes import OPAQUE, resolve
from z4ai.errors import CorruptError
from z4ai.stages._cost import order0, planes_order0
from z4ai.stages._part import Part, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.stages._part import Decode

__all__ = ["TRANSFORM", "join", "n_parts", "split"]

TRANSFORM = 16

_UINT8 = resolve("uint8")
# Pairs are coded as what they are pairs of: the dense rest of them may end within one.
_HALVES = {resolve("complex64"): resolve("fp32"), resolve("complex128"): resolve("fp64")}
# One in so many elements of the first sample must be the fill, before anything else is looked at.
_RARE = 14
# Elements of the second sample: runs of whole bytes of the bitmap.
_SAMPLE, _RUN = 1 << 15, 1 << 8
_BITMAP_SAMPLE = 1 << 14
# Percent of the plain planes that may be left, by estimate: to pay for the step of decoding.
_WORTH = 98


def split(content: NDArray[np.uint8], dtype: DType, row: int = 0, first: int = 0) -> Split | None:
    """Take a chunk apart if one value makes that smaller.

    Parameters
    ----------
    content : ndarray of uint8
        Whole elements.
    dtype : DType
        What they are.
    row, first : int
        Not looked at: it does not matter where a value stands.

    Returns
    -------
    Split or None
        None where plain planes would do as well.
    """
    width = dtype.width
    if dtype is OPAQUE or len(content) < 64 * width:
        return None
    fill, seen, n_sampled = sparse.probe(content, width)
    if seen * _RARE < n_sampled or not _pays(content, dtype, fill):
        return None
    bitmap, dense = sparse.compact(content, width, fill)
    return Split(
        fill.to_bytes(width, "little"),
        [Part(_bitmap_dtype(bitmap), bitmap), Part(_HALVES.get(dtype, dtype), dense)],
    )


def join(
    params: memoryview,
    parts: Decode,
    dtype: DType,
    nbytes: int,
    out: NDArray[np.uint8],
) -> None:
    """Restore a chunk from bitmap and dense rest, as `Stage.join`."""
    width = dtype.width
    if len(params) != width:
        msg = f"fill of zeros has {len(params)} bytes, expected {width}"
        raise CorruptError(msg)
    n = nbytes // width
    bitmap = parts(0, (n + 7) // 8)
    ones = sparse.count_ones(bitmap, n)
    if ones < 0:
        msg = f"bitmap of zeros has a bit set behind its {n}, expected none"
        raise CorruptError(msg)
    dense = parts(1, ones * width)
    sparse.expand(bitmap, dense, width, int.from_bytes(params, "little"), out)


def n_parts(params: memoryview) -> int:
    """Return the number of parts: bitmap and the dense rest."""
    if len(params) not in (1, 2, 4, 8):
        msg = f"fill of zeros has {len(params)} bytes, expected 1, 2, 4 or 8"
        raise CorruptError(msg)
    return 2


def _pays(content: NDArray[np.uint8], dtype: DType, fill: int) -> bool:
    width = dtype.width
    sample = _sample(content, width)
    bitmap, dense = sparse.compact(sample, width, fill)
    if len(dense) == 0:
        return False  # one value alone: planes say it in a byte each
    apart = order0(bitmap) + planes_order0(dense, dtype)
    return apart * 100 < planes_order0(sample, dtype) * _WORTH


def _sample(content: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    """Take runs of whole bitmap bytes, evenly spread."""
    n = len(content) // width
    if n <= _SAMPLE:
        return content
    runs = _SAMPLE // _RUN
    first = (np.arange(runs) * (n // _RUN) // runs) * _RUN
    whole = content[: n // _RUN * _RUN * width].reshape(-1, _RUN * width)
    return whole[first // _RUN].reshape(-1)


def _bitmap_dtype(bitmap: NDArray[np.uint8]) -> DType:
    """Choose how to code a bitmap: where whole runs repeat, for a match finder."""
    start = max(len(bitmap) - _BITMAP_SAMPLE, 0) // 2
    sample = bitmap[start : start + _BITMAP_SAMPLE].astype(np.intp)
    if len(sample) < _RUN:
        return _UINT8
    alone = sparse.entropy(np.bincount(sample))
    pairs = sparse.entropy(np.bincount(sample[:-1] << 8 | sample[1:]))
    # The second byte of a pair takes much less than a byte alone.
    return OPAQUE if (pairs - alone) * 5 < alone * 3 else _UINT8
