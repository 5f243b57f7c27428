"""A few thousand elements of a tensor, as numbers that can be compared, and what they tell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai.align.casts import cast
from z4ai.align.elements import FLOATS, item_nbytes, n_items

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.align.source import TensorSource

__all__ = [
    "RUN",
    "RUNS",
    "Relation",
    "in_order",
    "kind_of",
    "relate",
    "relate_runs",
    "sample",
    "sketch",
]

RUN = 256
RUNS = 8
# What is saved must exceed what chance may save: by one bit an element, and six deviations.
_DEVIATIONS = 6


def kind_of(dtype: str) -> str:
    """Name the dtypes that a dtype can be compared with: all floats, or its own kind."""
    return "float" if dtype in FLOATS else dtype


def sample(model: TensorSource, k: int) -> NDArray[np.uint8]:
    """Read runs of elements at places that follow from the number of elements alone."""
    tensor = model.tensors[k]
    item, n = item_nbytes(tensor.dtype), n_items(tensor)
    if n <= RUN * RUNS:
        return model.read(k, 0, n * item)
    runs = []
    for i in range(RUNS):
        at = (n - RUN) * i // (RUNS - 1)
        runs.append(model.read(k, at * item, (at + RUN) * item))
    return np.concatenate(runs)


def in_order(content: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """Turn elements into unsigned integers in the order of the numbers that they are."""
    item = item_nbytes(dtype)
    words: NDArray[Any] = content.view(f"<u{item}")
    u = words.dtype.type
    sign = u(1 << (8 * item - 1))
    if dtype in FLOATS:
        # Of negative numbers all bits are turned, of others the sign.
        turned = (words.view(f"<i{item}") >> (8 * item - 1)).view(words.dtype)
        words = words ^ (turned | sign)
    elif dtype[0] == "I":
        words = words ^ sign
    return words


def sketch(ordered: NDArray[Any], n_bits: int) -> NDArray[np.uint16]:
    """Tell of each element whether it is larger than its neighbour, in words of sixteen bits.

    Training, rounding to another dtype, scaling: hardly a bit of it changes. In unrelated tensors
    it is a coin toss, whatever the distribution of the elements.
    """
    n = ordered.shape[-1]
    bits = np.empty(ordered.shape, np.bool_)
    np.greater(ordered[..., :-1], ordered[..., 1:], out=bits[..., :-1])
    np.greater(ordered[..., -1], ordered[..., 0], out=bits[..., -1])
    bits = bits[..., : min(n_bits, n) // 16 * 16]
    return np.packbits(bits, axis=-1, bitorder="little").view("<u2")


class Relation(NamedTuple):
    """What a tensor would gain from a reference, by samples.

    Attributes
    ----------
    cost : int
        Bits of all differences.
    saved : int
        How many more those from unrelated elements of the same reference have.
    certain : bool
        Whether that is more than chance.
    """

    cost: int
    saved: int
    certain: bool


def relate(
    ours: NDArray[np.uint8], dtype: str, theirs: NDArray[np.uint8], base_dtype: str
) -> Relation:
    """Compare samples of a tensor with those of a base tensor."""
    return _judge(*_costs(ours, dtype, theirs, base_dtype))


def relate_runs(
    ours: NDArray[np.uint8], dtype: str, theirs: NDArray[np.uint8], base_dtype: str
) -> list[Relation]:
    """Compare samples as `relate` does, but each run by itself."""
    costs, gains = _costs(ours, dtype, theirs, base_dtype)
    return [_judge(costs[at : at + RUN], gains[at : at + RUN]) for at in range(0, len(costs), RUN)]


def _costs(
    ours: NDArray[np.uint8], dtype: str, theirs: NDArray[np.uint8], base_dtype: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the bits of each difference, and what more those of a reference moved away have."""
    left = in_order(ours, dtype)
    right = in_order(cast(theirs, base_dtype, dtype), dtype)
    costs = _lengths(left, right)
    return costs, _lengths(left, np.roll(right, len(right) // 2 + 3)) - costs


def _judge(costs: NDArray[np.int64], gains: NDArray[np.int64]) -> Relation:
    saved = int(gains.sum())
    clear = saved > 0 and saved**2 >= _DEVIATIONS**2 * int((gains * gains).sum())
    return Relation(int(costs.sum()), saved, clear and saved >= len(costs))


def _lengths(left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.int64]:
    """Count the bits of the distance of each two numbers."""
    distance = np.maximum(left, right) - np.minimum(left, right)
    lengths: NDArray[np.int64] = np.frexp(distance.astype(np.float64))[1].astype(np.int64)
    return lengths
