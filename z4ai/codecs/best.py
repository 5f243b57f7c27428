"""The costly coders of the `max` tier: a plane by the libraries, where samples promise a gain.

Entropy coding by static tables leaves what neighbours say of each other and what repeats nearby.
Most planes of weights have neither, and then Brotli or a high level of Zstandard only costs time:
so a plane passes two gates before it is coded whole. The first, about a millisecond, looks at
statistics of a small sample; the second codes a larger one. Everything counted here is an integer,
so that the choice is the same on every machine.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from z4ai.codecs import BROTLI, ZSTD, brotli, zstd

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

__all__ = ["missing_extras", "refine"]

# Brotli 11 gains as little over 10 as it loses, on planes; it takes twice as long.
_BROTLI_QUALITY = 10
_ZSTD_LEVEL = 19
_ZSTD_PROBE_LEVEL = 6

_LOOK_NBYTES, _LOOK_RUN = 1 << 16, 1 << 13
_TRIAL_NBYTES, _TRIAL_RUN = 1 << 17, 1 << 14
_LEAST_NBYTES = 1 << 8
_MOST_BUCKETS = 8
# Fraction bits of entropies, which are in bits.
_FRACTION = 16


def missing_extras() -> tuple[str, ...]:
    """Name the extras of this package that would let `refine` try more."""
    return () if brotli.is_installed() else (brotli.EXTRA,)


def refine(plane: NDArray[np.uint8], nbytes: int) -> tuple[int, bytes] | None:
    """Look for a smaller coding of a plane than the one it has.

    Parameters
    ----------
    plane : ndarray of uint8
        Contiguous; the plane itself.
    nbytes : int
        Size of its present coding.

    Returns
    -------
    tuple of int and bytes, or None
        Codec and stream, smaller than `nbytes`; None if there is none, or none worth the search.
        Depends on the arguments and on the installed libraries alone.
    """
    if len(plane) < _LEAST_NBYTES or not _looks_promising(plane, nbytes):
        return None
    sample = _sample(plane, _TRIAL_NBYTES, _TRIAL_RUN)
    trials = [(codec, coder(sample.data), coder) for codec, coder in _coders()]
    if len(sample) == len(plane):
        found = [(codec, coded) for codec, coded, _ in trials]
    else:
        best = min(len(coded) for _, coded, _ in trials)
        found = [
            (codec, coder(plane.data))
            for codec, coded, coder in trials
            if _promises(len(coded), len(sample), nbytes, len(plane))
            and len(coded) * 99 < best * 100
        ]
    smallest = min(found, key=lambda pair: len(pair[1]), default=None)
    if smallest is None or len(smallest[1]) >= nbytes:
        return None
    return smallest


def _coders() -> list[tuple[int, Callable[[memoryview], bytes]]]:
    """Candidates, the quicker to decode first: it wins a tie."""
    coders: list[tuple[int, Callable[[memoryview], bytes]]] = [
        (ZSTD, lambda content: zstd.encode(content, _ZSTD_LEVEL))
    ]
    if brotli.is_installed():
        coders.append((BROTLI, lambda content: brotli.encode(content, _BROTLI_QUALITY)))
    return coders


def _promises(coded: int, sample_nbytes: int, nbytes: int, plane_nbytes: int) -> bool:
    """Whether a sample of this size is at least 0.5 % smaller than its share of the plane."""
    return coded * plane_nbytes * 200 <= nbytes * sample_nbytes * 199


def _sample(plane: NDArray[np.uint8], nbytes: int, run: int) -> NDArray[np.uint8]:
    """Runs from end to end of the plane, `nbytes` in all; the plane itself if it is not longer."""
    n, runs = len(plane), nbytes // run
    if n <= nbytes:
        return plane
    starts = [i * (n - run) // (runs - 1) for i in range(runs)]
    return np.concatenate([plane[start : start + run] for start in starts])


def _looks_promising(plane: NDArray[np.uint8], nbytes: int) -> bool:
    """First gate: repeats, or a distribution that changes with place or with what went before."""
    sample = _sample(plane, _LOOK_NBYTES, _LOOK_RUN)
    n = len(sample)
    repeats = len(zstd.encode(sample.data, _ZSTD_PROBE_LEVEL))
    if _promises(repeats, n, nbytes, len(plane)):
        return True
    symbols = sample.astype(np.int64)
    places = _counts(np.arange(n) // _LOOK_RUN, symbols)
    counts = places.sum(0, keepdims=True)
    # Each symbol's bucket: equal shares of the sample in rising order, few where that is short.
    buckets = max(2, min(n >> 12, _MOST_BUCKETS))
    bucket = np.cumsum(counts[0]) * buckets // (n + 1)
    near = np.zeros(n, np.int64)
    near[1:] += bucket[symbols[:-1]]
    near[2:] += bucket[symbols[:-2]]
    plain = _entropy(counts)
    gain = plain - min(_entropy(places), _entropy(_counts(near, symbols)))
    # The libraries find up to twice as much; what is nearly nothing is chance.
    expected = plain - 2 * gain
    return gain * 400 >= plain and _promises(expected, n, nbytes << 3 + _FRACTION, len(plane))


def _counts(context: NDArray[np.int64], symbols: NDArray[np.int64]) -> NDArray[np.int64]:
    """Histogram of the symbols in each context."""
    joint = np.bincount(context << 8 | symbols)
    return np.pad(joint, (0, -len(joint) % 256)).reshape(-1, 256)


def _entropy(counts: NDArray[np.int64]) -> int:
    """Bits of all symbols, each in its context, in units of 2^-_FRACTION; for at most 2^16."""
    table = _n_log_n()
    total = counts.sum(1)
    bits = int(table[total].sum()) - int(table[counts].sum())
    # Samples look more ordered than their source: 1 / (2 ln 2) bits for each free parameter.
    free = int(np.count_nonzero(counts)) - int(np.count_nonzero(total))
    return bits + (free * 94548 >> 17) * (1 << _FRACTION)


@cache
def _n_log_n() -> NDArray[np.int64]:
    """Table of n log2(n) in units of 2^-_FRACTION, by integers alone."""
    n = np.arange(_LOOK_NBYTES + 1, dtype=np.uint64)
    n[0] = 1
    whole = np.zeros(len(n), np.int64)
    for bit in range(_LOOK_NBYTES.bit_length()):
        whole[1 << bit :] = bit
    # The mantissa, squared again and again: each time it passes 2, the next bit of its logarithm.
    mantissa = n << (31 - whole).astype(np.uint64)
    log = whole
    for _ in range(_FRACTION):
        mantissa = mantissa * mantissa >> np.uint64(31)
        carry = mantissa >> np.uint64(32)
        mantissa >>= carry
        log = log << 1 | carry.astype(np.int64)
    table = n.astype(np.int64) * log
    table[0] = 0
    return table
