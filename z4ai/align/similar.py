"""Find what is alike among thousands of sketches without comparing each with each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["candidates"]

# Pairs that are listed at most: those of the same word, and all of them.
_MOST_OF_A_WORD = 64
_MOST_PAIRS = 1 << 22
# Pairs that are compared at a time.
_RUN = 1 << 14
# Bits in a hundred that differ at most in what may be alike.
_MOST_DIFFERING = 36


def candidates(ours: NDArray[np.uint16], theirs: NDArray[np.uint16], most: int) -> list[list[int]]:
    """List for each sketch the most similar ones of those that share words of sixteen bits.

    Unrelated sketches share a word once in 65536; of those of which one bit in ten differs, a
    word in five is the same.

    Parameters
    ----------
    ours, theirs : ndarray of uint16, two-dimensional
        A row each; as many columns in both.
    most : int
        How many to list at most.

    Returns
    -------
    list of list of int
        Rows of `theirs`, the one of which fewest bits differ first.
    """
    n, n_theirs = len(ours), len(theirs)
    found: list[list[int]] = [[] for _ in range(n)]
    if not n or not n_theirs:
        return found
    limit = max(4, min(_MOST_OF_A_WORD, _MOST_PAIRS // (n * ours.shape[1] + 1)))
    listed = [_sharing(ours[:, c], theirs[:, c], limit, c) for c in range(ours.shape[1])]
    pairs, shared = np.unique(np.concatenate(listed), return_counts=True)
    mine = pairs // n_theirs
    order = np.lexsort((pairs, -shared, mine))
    mine, other = mine[order], (pairs % n_theirs)[order]
    rank = np.arange(len(mine)) - np.searchsorted(mine, mine)
    mine, other = mine[rank < most], other[rank < most]
    differing = np.concatenate(
        [np.empty(0, np.int64)]
        + [
            np.bitwise_count(ours[mine[at : at + _RUN]] ^ theirs[other[at : at + _RUN]]).sum(axis=1)
            for at in range(0, len(mine), _RUN)
        ]
    )
    likely = 100 * differing <= _MOST_DIFFERING * 16 * ours.shape[1]
    mine, other, differing = mine[likely], other[likely], differing[likely]
    order = np.lexsort((other, differing, mine))
    for k, number in zip(mine[order].tolist(), other[order].tolist(), strict=True):
        found[k].append(number)
    return found


def _sharing(
    ours: NDArray[np.uint16], theirs: NDArray[np.uint16], limit: int, turn: int
) -> NDArray[np.int64]:
    """List the pairs that share a word, as one number each."""
    order = np.argsort(theirs, kind="stable")
    there = theirs[order]
    left = np.searchsorted(there, ours, "left")
    n_alike = np.searchsorted(there, ours, "right") - left
    # Words of what is constant tell nothing.
    n_alike[(ours == 0) | (ours == 0xFFFF)] = 0
    taken = np.minimum(n_alike, limit)
    mine = np.repeat(np.arange(len(ours)), taken)
    step = np.arange(len(mine)) - np.repeat(np.cumsum(taken) - taken, taken)
    # Of many that are alike, other ones for every word.
    at = (step + turn * limit) % np.maximum(n_alike[mine], 1)
    pairs: NDArray[np.int64] = mine * len(theirs) + order[left[mine] + at]
    return pairs
