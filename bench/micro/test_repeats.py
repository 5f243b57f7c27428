"""Long repeats: the glance that every encode pays, beside the fast encoder; search and copying."""

from __future__ import annotations

import numpy as np
import pytest

import z4ai
from bench import data
from z4ai._fast import repeats

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

NBYTES = 64 << 20
LAYER = 4 << 20


def bf16(seed: int, nbytes: int) -> np.ndarray:
    return np.frombuffer(data.weights_of("bf16", nbytes, seed), np.uint8)


@pytest.fixture(scope="module")
def weights() -> np.ndarray:
    return bf16(1, NBYTES)


@pytest.fixture(scope="module")
def layers() -> np.ndarray:
    """One layer eight times, at odd distances."""
    layer = bf16(2, LAYER)
    spacers = data.uniform_bits(3, 16).view(np.uint8).reshape(8, 16)[:, :13]
    return np.concatenate([part for spacer in spacers for part in (layer, spacer)])


def evict() -> None:
    """Push what is measured out of the caches: where it comes from before it is encoded."""
    np.zeros(NBYTES, np.uint8).fill(1)


@pytest.mark.parametrize("variant", repeats.variants())
def test_probe(benchmark, weights: np.ndarray, variant: str) -> None:
    benchmark.extra_info["content_nbytes"] = weights.size
    met = benchmark.pedantic(
        repeats.probe, (weights,), {"isa": variant}, setup=evict, rounds=9, warmup_rounds=1
    )
    assert not met


def test_encode_beside_it(benchmark, weights: np.ndarray) -> None:
    """What the probe is measured against: the fastest tier on one thread."""
    benchmark.extra_info["content_nbytes"] = weights.size
    benchmark.pedantic(
        z4ai.compress,
        (weights,),
        {"dtype": "bf16", "effort": "fast", "threads": 1},
        setup=evict,
        rounds=7,
        warmup_rounds=1,
    )


@pytest.mark.parametrize("variant", repeats.variants())
def test_find(benchmark, layers: np.ndarray, variant: str) -> None:
    benchmark.extra_info["content_nbytes"] = layers.size
    copies = benchmark(repeats.find, layers, width=2, isa=variant)
    assert len(copies) == 7


@pytest.mark.parametrize("variant", repeats.variants())
def test_find_little(benchmark, weights: np.ndarray, variant: str) -> None:
    """The probe meets a repeat, and the search goes through all that has none."""
    content = np.concatenate([weights[: NBYTES // 2], weights[: NBYTES // 64]])
    benchmark.extra_info["content_nbytes"] = content.size
    copies = benchmark(repeats.find, content, width=2, isa=variant)
    assert len(copies) == 1


def test_dense(benchmark, layers: np.ndarray) -> None:
    copies = repeats.find(layers, width=2)
    out = np.empty(repeats.dense_nbytes(copies, layers.size), np.uint8)
    benchmark.extra_info["content_nbytes"] = layers.size
    benchmark(repeats.dense, layers, copies, out)


def test_expand(benchmark, layers: np.ndarray) -> None:
    copies = repeats.find(layers, width=2)
    nbytes = repeats.dense_nbytes(copies, layers.size)
    out = np.empty_like(layers)
    dense = np.empty(nbytes, np.uint8)
    repeats.dense(layers, copies, dense)
    out[:nbytes] = dense
    benchmark.extra_info["content_nbytes"] = layers.size
    # The moves scramble what they have made already, which takes the same time.
    benchmark(repeats.expand, out, copies, nbytes)
    out[:nbytes] = dense
    repeats.expand(out, copies, nbytes)
    assert np.array_equal(out, layers)
