"""Rare symbols: which they are, and where, against NumPy; each variant finds the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from z4ai._fast import _dispatch, models, symbols

X86 = {"scalar", "avx2", "avx512"}
VARIANTS = sorted(set(_dispatch.runnable()) & X86)


def tables(rng: np.random.Generator, count: int, share: float) -> NDArray[np.uint16]:
    """Make tables of which a share of symbols has no frequency, in runs and alone."""
    freqs = rng.integers(1, 4096, (count, 256)).astype(np.uint16)
    freqs[rng.random((count, 256)) < share] = 0
    for row in freqs:
        a, b = np.sort(rng.integers(0, 257, 2))
        row[a:b] = 0
    return freqs


@pytest.mark.parametrize("isa", VARIANTS)
def test_places_of_rare_symbols(isa: str) -> None:
    rng = np.random.default_rng(5)
    compared = found = 0
    for n in (*range(130), 1000, symbols.RARES_TILE - 1, symbols.RARES_TILE):
        for count, share in ((1, 0.0), (1, 0.9), (2, 0.02), (64, 0.1), (64, 1.0)):
            freqs = tables(rng, count, share)
            escape = int(rng.integers(0, 256))
            y = rng.integers(0, 256, n).astype(np.uint8)
            c = rng.integers(0, count, n).astype(np.uint8)
            rare = freqs == 0
            rare[:, escape] = True
            for contexts in (c, None):
                got = symbols.find_rares(y, contexts, freqs, escape, isa=isa)
                wanted = np.flatnonzero(rare[0 if contexts is None else c, y])
                assert got.tolist() == wanted.tolist(), (n, count, share)
                compared += 1
                found += len(got)
    assert compared == 133 * 5 * 2
    assert found > 10_000


def test_what_does_not_fit_is_refused() -> None:
    y = np.zeros(symbols.RARES_TILE + 1, np.uint8)
    freqs = np.ones((2, 256), np.uint16)
    for wrong in ((y, None, freqs), (y[:4], y[:3], freqs), (y[:4], y[:4] + 2, freqs)):
        with pytest.raises(ValueError, match=r"symbols|fit"):
            symbols.find_rares(*wrong, 0)
    with pytest.raises(ValueError, match="tables"):
        symbols.find_rares(y[:4], None, freqs[:, :9].copy(), 0)


def apart(
    counts: NDArray[np.uint32], shift: int, count: int, width: int, *, complete: bool
) -> tuple[Any, Any, int]:
    """Do what `models.apart` does, in plain NumPy."""
    merged = np.zeros((count, 256), np.uint64)
    for k, row in enumerate(counts):
        merged[min(k >> shift, count - 1)] += row
    merged = merged[:, :width]
    rare = merged * np.uint64(4096) < merged.sum(1, keepdims=True)
    occurs = merged.sum(0)
    if complete and not (rare & (merged > 0)).any():
        return merged, None, 0
    escape = int(np.argmin(occurs))
    if occurs[escape] * 1024 > occurs.sum():
        return np.maximum(merged, np.uint64(1)), None, 0
    rare[:, escape] = True
    kept = np.where(rare, np.uint64(0), merged)
    tail = np.where(rare, merged, np.uint64(0))
    kept[:, escape] = np.maximum(tail.sum(1), 0 if complete else 1)
    return kept, tail.sum(0) + np.uint64(0 if complete else 1), escape


@given(
    seed=st.integers(0, 1 << 30),
    bins=st.integers(1, 40),
    shift=st.integers(0, 7),
    count=st.integers(1, 64),
    width=st.sampled_from((2, 17, 247, 255, 256)),
    complete=st.booleans(),
    spread=st.sampled_from((1, 3, 8)),
)
def test_symbols_apart_are_those_that_numpy_takes(
    seed: int, bins: int, shift: int, count: int, width: int, complete: bool, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    counts = np.minimum(rng.exponential(2.0, (bins, 256)) ** spread, 1e7).astype(np.uint32)
    counts[:, width:] = 0
    kept, rare, escape = models.apart(counts, shift, count, width, complete)
    wanted, wanted_rare, wanted_escape = apart(counts, shift, count, width, complete=complete)
    assert np.array_equal(kept[:, :width], wanted)
    assert not kept[:, width:].any()
    assert escape == wanted_escape
    assert (rare is None) == (wanted_rare is None)
    if rare is not None:
        assert np.array_equal(rare[:width], wanted_rare)
        assert not rare[width:].any()


def test_all_ways_to_set_apart_are_taken() -> None:
    counts = np.zeros((1, 256), np.uint32)
    counts[0, :4] = 1000
    assert models.apart(counts, 0, 1, 256, True)[1] is None
    assert models.apart(counts, 0, 1, 4, False)[1] is None
    counts[0, 9] = 1_000_000
    kept, rare, escape = models.apart(counts, 0, 1, 256, False)
    assert rare is not None
    assert rare[4] == 1
    assert escape == 4
    assert kept[0, 4] == 1
    with pytest.raises(ValueError, match="each class"):
        models.apart(counts[:, :9].copy(), 0, 1, 9, True)
