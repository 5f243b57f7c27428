"""What unknown bytes are: float or integer elements that coding by planes suits, or just bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai._fast import planes, sparse
from z4ai.codecs import zstd
from z4ai.dtypes import (
    BYTES2,
    BYTES4,
    BYTES8,
    FLOAT2,
    FLOAT4,
    FLOAT8,
    LAYOUT_WIDTHS,
    OPAQUE,
    resolve,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from z4ai.dtypes import DType

    Bytes = NDArray[np.uint8]

__all__ = ["guess_dtype"]


# The sample: runs evenly spread, each at an offset that any element width divides.
_RUNS, _RUN_NBYTES = 16, 1 << 16
_MIN_NBYTES = 1 << 12
# Percent of what the Zstandard library leaves that must suffice, by estimate. It sees repeats that
# a sample does not show, so bytes stay bytes unless much is gained.
_FLOATS_LEAVE, _OTHERS_LEAVE = 96, 93
# And this part of the content must be gained: what is nearly nothing already stays what it is.
_LEAST_GAIN = 256
# A wider element must be better by so many percent: halves of it often do as well.
_WIDER_LEAVES = 99
# What stages promise is less sure than what planes do: percent put on top of their estimate.
_STAGE_TAKES = 102
# Bytes that are looked through for few distinct values, how many are few, and how often each must
# then be there.
_DISTINCT_NBYTES, _FEW, _OFTEN = 1 << 18, 1 << 11, 8
_BIT = 1 << 16  # what the kernel counts entropy in
_LEVEL = 3
_MUCH = 1 << 63


class _Width(NamedTuple):
    """Candidates of one width of elements.

    Attributes
    ----------
    floats, integers : int
        Layouts.
    names : tuple of str
        Of their types.
    ordinary : tuple of int
        The least and the largest first byte of the `floats` layout that is no surprise.
    """

    floats: int
    integers: int
    names: tuple[str, str]
    ordinary: tuple[int, int]


# Top bits of the exponents of 2**-79 to 2**33, and for fp64 of 2**-127 to 2**128. What fp16 has
# there for 2**-7 to 2**4 is among those of bf16.
_WIDTHS = (
    _Width(FLOAT2, BYTES2, ("bf16", "int16"), (0x30, 0xA0)),
    _Width(FLOAT4, BYTES4, ("fp32", "int32"), (0x30, 0xA0)),
    _Width(FLOAT8, BYTES8, ("fp64", "int64"), (0x70, 0x8F)),
)


def guess_dtype(content: NDArray[np.uint8], *, stages: bool = True) -> DType:
    """Guess what unknown bytes are, for ``dtype="auto"``.

    At most 1 MiB is looked at. Whatever the answer, the content is restored bit for bit; a wrong
    one costs size alone.

    Parameters
    ----------
    content : ndarray of uint8
        The bytes, such as those of a file.
    stages : bool
        Whether structure will be looked for when the content is coded, as all tiers but ``fast``
        do.

    Returns
    -------
    DType
        A float or integer type if coding the content as such elements promises clearly less than
        the Zstandard library makes of it; else opaque.
    """
    runs = _sample(content)
    nbytes = sum(map(len, runs))
    if nbytes < _MIN_NBYTES:
        return OPAQUE
    opaque = sum(len(zstd.encode(run.data, _LEVEL)) for run in runs) * 8 * _BIT
    best, guess = opaque * _OTHERS_LEAVE // 100, OPAQUE
    alone = sum(map(_entropy, runs))
    if alone < best:
        best, guess = alone, resolve("uint8")
    for row in _WIDTHS:
        if _are_floats(runs, row):
            name = row.names[0] if row.floats != FLOAT2 or _are_bf16(runs) else "fp16"
            cost, leaves = _float_cost(runs, row, name, stages), _FLOATS_LEAVE
        else:
            name = row.names[1]
            cost, leaves = _integer_cost(runs, row, stages), _OTHERS_LEAVE
        ahead = best * _WIDER_LEAVES // 100 if guess is not OPAQUE else opaque * leaves // 100
        if cost < ahead:
            best, guess = cost, resolve(name)
    return guess if (opaque - best) * _LEAST_GAIN > nbytes * 8 * _BIT else OPAQUE


def _sample(content: Bytes) -> list[Bytes]:
    nbytes = len(content) // 8 * 8
    runs = min(-(-nbytes // _RUN_NBYTES), _RUNS)
    last = nbytes - _RUN_NBYTES
    starts = [last * run // (runs - 1) // 8 * 8 for run in range(runs)] if runs > 1 else [0]
    return [
        np.ascontiguousarray(content[start : min(start + _RUN_NBYTES, nbytes)]) for start in starts
    ]


def _are_floats(runs: Iterable[Bytes], row: _Width) -> bool:
    """Tell floats from integers: most have the exponent of an ordinary number, or are zero."""
    width = LAYOUT_WIDTHS[row.floats]
    ordinary = nonzero = 0
    for run in runs:
        first = planes.split(run, row.floats)[0][~_zeros(run, width)]
        nonzero += len(first)
        ordinary += int(((first >= row.ordinary[0]) & (first <= row.ordinary[1])).sum())
    return ordinary * 5 > nonzero * 4


def _zeros(run: Bytes, width: int) -> NDArray[np.bool_]:
    """Find zeros of either sign: the sign is shifted out."""
    words = run.view(f"<u{width}")
    zeros: NDArray[np.bool_] = words << words.dtype.type(1) == 0
    return zeros


def _are_bf16(runs: Iterable[Bytes]) -> bool:
    """Tell bf16 from fp16 by the three bits that are exponent in one and mantissa in the other.

    Under the five bits above them, three bits of a mantissa take nearly all values alike; the lower
    three of an exponent do not.
    """
    bits = n = 0
    for run in runs:
        field = (run.view("<u2")[~_zeros(run, 2)] >> 7 & 0xFF).astype(np.intp)
        bits += sparse.entropy(np.bincount(field)) - sparse.entropy(np.bincount(field >> 3))
        n += len(field)
    return bits * 25 < n * 63 * _BIT  # 2.52 of the 3 bits


def _float_cost(runs: list[Bytes], row: _Width, name: str, stages: bool) -> int:
    # As planes of fp16 either will do, whichever suits the sign.
    layouts = (row.floats, row.integers) if name == "fp16" else (row.floats,)
    plain = min(sum(_planes_cost(run, layout) for run in runs) for layout in layouts)
    if not stages:
        return plain
    staged = min(_sparse_cost(runs, row.floats), _palette_cost(runs, row.floats))
    return min(plain, staged * _STAGE_TAKES // 100)


def _integer_cost(runs: list[Bytes], row: _Width, stages: bool) -> int:
    layout = row.integers
    plain = sum(_planes_cost(run, layout) for run in runs)
    if not stages:
        return plain
    steps = [np.diff(run.view(f"<u{LAYOUT_WIDTHS[layout]}")).view(np.uint8) for run in runs]
    staged = min(
        sum(_planes_cost(step, layout) for step in steps),
        _sparse_cost(runs, layout),
        _palette_cost(runs, layout),
    )
    return min(plain, staged * _STAGE_TAKES // 100)


def _sparse_cost(runs: Iterable[Bytes], layout: int, depth: int = 2) -> int:
    """Estimate what elements take without the most frequent one, and a bitmap of it.

    Twice, since what was multiplied by a mask has zeros of both signs.
    """
    width = LAYOUT_WIDTHS[layout]
    cost = 0
    for run in runs:
        fill, seen, n_sampled = sparse.probe(run, width)
        if depth and seen * 8 > n_sampled:
            bitmap, dense = sparse.compact(run, width, fill)
            cost += _entropy(bitmap) + _sparse_cost([dense], layout, depth - 1)
        else:
            cost += _planes_cost(run, layout)
    return cost


def _palette_cost(runs: list[Bytes], layout: int) -> int:
    """Estimate what elements take as numbers of few distinct ones."""
    width = LAYOUT_WIDTHS[layout]
    each = _DISTINCT_NBYTES // len(runs) // 8 * 8
    looked_at = np.concatenate([run[:each] for run in runs])
    _, seen, n_sampled = sparse.probe(looked_at, width)
    if seen * _FEW < n_sampled * _OFTEN // 2:
        return _MUCH  # of few values, one would have been seen more often
    some = looked_at.view(f"<u{width}")
    counts = np.unique(some, return_counts=True)[1]
    if len(counts) > min(_FEW, len(some) // _OFTEN):
        return _MUCH
    n = sum(map(len, runs)) // width
    return sparse.entropy(counts.astype(np.intp)) * n // len(some) + len(counts) * 8 * width * _BIT


def _planes_cost(content: Bytes, layout: int) -> int:
    return sum(_entropy(plane) for plane in planes.split(content, layout))


def _entropy(symbols: Bytes) -> int:
    return sparse.entropy(np.bincount(symbols))
