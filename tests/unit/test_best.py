"""Costly candidates for a plane: what the gates let through, and that nothing grows."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import KINDS, make, noise

from z4ai._fast import literals
from z4ai.codecs import BROTLI, ZSTD, best, brotli, zstd

Plane = npt.NDArray[np.uint8]

N = 200_000  # longer than the samples of both gates


def as_plane(data: bytes) -> Plane:
    return np.frombuffer(data, np.uint8)


def draw(n: int, scale: npt.NDArray[np.float64]) -> Plane:
    """Exponents of normal weights, each of its own scale."""
    values = (np.random.default_rng(7).standard_normal(n) * scale).astype(np.float32)
    return (values.view(np.uint32) >> 23).astype(np.uint8)


def same_scale() -> Plane:
    return draw(N, np.ones(N))


def scales_by_place() -> Plane:
    return draw(N, np.repeat(np.exp2(np.arange(40) % 7), N // 40))


def scales_by_neighbour() -> Plane:
    return draw(N, np.repeat(np.exp2(np.random.default_rng(1).integers(0, 6, N // 8)), 8))


def repeats() -> Plane:
    return as_plane((noise(997) * (N // 997 + 1))[:N])


def entropy_nbytes(plane: Plane) -> int:
    """What a coder of static tables would need."""
    counts = np.bincount(plane)
    counts = counts[counts > 0]
    return int((counts * np.log2(len(plane) / counts)).sum() / 8) + 100


def decode(codec: int, stream: bytes, n: int) -> bytes:
    return {BROTLI: brotli.decode, ZSTD: zstd.decode}[codec](memoryview(stream), n)


@pytest.mark.parametrize("make_plane", [scales_by_place, scales_by_neighbour, repeats])
def test_planes_that_gain_are_refined(make_plane: Callable[[], Plane]) -> None:
    plane = make_plane()
    nbytes = entropy_nbytes(plane)
    found = best.refine(plane, nbytes)
    assert found is not None
    codec, stream = found
    assert len(stream) < 0.99 * nbytes
    assert decode(codec, stream, len(plane)) == plane.tobytes()


def test_the_smallest_is_kept() -> None:
    for plane in (scales_by_neighbour(), repeats()):
        found = best.refine(plane, entropy_nbytes(plane))
        assert found is not None
        sizes = {
            ZSTD: len(zstd.encode(plane.data, 19)),
            BROTLI: len(brotli.encode(plane.data, 10)),
        }
        assert found[0] == min(sizes, key=lambda codec: sizes[codec])
        assert len(found[1]) == min(sizes.values())


@pytest.fixture
def coded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes given to the slow coders, call by call."""
    calls: list[int] = []
    for module in (zstd, brotli):
        original = module.encode

        def spy(
            content: memoryview,
            level: int,
            *more: int,
            original: Callable[..., bytes] = original,
        ) -> bytes:
            if level >= 10:
                calls.append(content.nbytes)
            return original(content, level, *more)

        monkeypatch.setattr(module, "encode", spy)
    return calls


@pytest.mark.parametrize("kind", ["noise", "same scale", "zeros in the size"])
def test_planes_that_cannot_gain_never_meet_a_slow_coder(kind: str, coded: list[int]) -> None:
    plane = as_plane(noise(N)) if kind == "noise" else same_scale()
    nbytes = {"noise": N, "same scale": entropy_nbytes(plane), "zeros in the size": 0}[kind]
    assert best.refine(plane, nbytes) is None
    assert coded == []


def test_a_sample_is_coded_before_the_whole(coded: list[int]) -> None:
    plane = scales_by_neighbour()
    assert best.refine(plane, entropy_nbytes(plane)) is not None
    assert coded[:2] == [1 << 17] * 2
    assert set(coded[2:]) == {N}


def test_a_sample_that_disappoints_ends_the_search(coded: list[int]) -> None:
    """Statistics promise something; but what the plane takes now is already less."""
    plane = scales_by_neighbour()
    smallest = min(len(zstd.encode(plane.data, 19)), len(brotli.encode(plane.data, 10)))
    coded.clear()
    assert best.refine(plane, smallest * 99 // 100) is None
    assert N not in coded


def test_a_short_plane_is_coded_once(coded: list[int]) -> None:
    plane = scales_by_neighbour()[:20_000].copy()
    assert best.refine(plane, entropy_nbytes(plane)) is not None
    assert coded == [20_000] * 2


@given(st.sampled_from(KINDS), st.integers(1, 5000), st.integers(0, 9), st.integers(0, 6000))
def test_the_result_is_smaller_and_comes_back(kind: str, n: int, seed: int, nbytes: int) -> None:
    plane = as_plane(make(kind, n, 1, seed))
    found = best.refine(plane, nbytes)
    assert found == best.refine(plane.copy(), nbytes)
    if found is not None:
        codec, stream = found
        assert len(stream) < nbytes
        assert decode(codec, stream, n) == plane.tobytes()


@pytest.mark.parametrize("n", [0, 1, 2, 255, 256, 8191, 8192, 65_535, 65_537, 131_071, 131_073])
def test_every_length_is_taken(n: int) -> None:
    plane = as_plane(make("text", n, 1, 3))
    now = len(literals.encode(plane.tobytes())) if n else 0
    found = best.refine(plane, now)
    if n >= 8191:
        assert found is not None
        assert decode(*found, n) == plane.tobytes()


def test_samples_span_the_plane() -> None:
    n = 1 << 20
    # The number of each 4 KiB, so that a sample tells where it comes from.
    plane = (np.arange(n) >> 12).astype(np.uint8)
    for nbytes, run in ((1 << 16, 1 << 13), (1 << 17, 1 << 14)):
        sample = best._sample(plane, nbytes, run)
        assert len(sample) == nbytes
        assert sample[0] == 0
        assert sample[-1] == 255
        steps = np.diff(sample.astype(int))
        assert (steps >= 0).all()
        assert steps.max() <= (n >> 12) // (nbytes // run - 1) + 1
    assert best._sample(plane[:100], 1 << 16, 1 << 13).tolist() == plane[:100].tolist()


def test_the_table_of_logarithms_is_right() -> None:
    table = best._n_log_n()
    assert len(table) == (1 << 16) + 1
    assert table[0] == table[1] == 0
    for n in [2, 3, 5, 1000, 4096, 65_535, 65_536]:
        exact = n * math.log2(n)
        assert exact - n / 2**16 <= table[n] / 2**16 <= exact, n
    assert (np.diff(table[1:]) > 0).all()


def test_entropies_are_right() -> None:
    rng = np.random.default_rng(3)
    symbols = rng.integers(0, 5, 60_000)
    context = rng.integers(0, 3, 60_000)
    counts = best._counts(context, symbols)
    assert counts.shape == (3, 256)
    assert counts.sum() == 60_000
    exact = sum(
        -math.log2(counts[c, s] / counts[c].sum()) * counts[c, s]
        for c in range(3)
        for s in range(5)
    )
    # Twelve free parameters of 0.72 bits are added.
    assert best._entropy(counts) / 2**16 == pytest.approx(exact + 8, abs=2)


# --- Without brotli -------------------------------------------------------------------------------


def test_without_brotli_zstandard_is_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = repeats()
    nbytes = entropy_nbytes(plane)
    assert best.missing_extras() == ()
    monkeypatch.setitem(sys.modules, "brotli", None)
    assert best.missing_extras() == ("maxratio",)
    found = best.refine(plane, nbytes)
    assert found is not None
    assert found[0] == ZSTD
    assert decode(*found, len(plane)) == plane.tobytes()
