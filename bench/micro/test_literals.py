"""The literals coder over the exponents of a chunk, every variant; stock zstandard beside it."""

from __future__ import annotations

import pytest
import zstandard

from bench import data
from z4ai._fast import literals, planes

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

SYMBOLS = 1 << 20  # the exponents of a 2 MiB chunk of bf16


def exponents() -> bytes:
    return planes.split(data.weights_of("bf16", 2 * SYMBOLS), planes.FLOAT2)[0].tobytes()


@pytest.mark.parametrize("variant", literals.variants())
def test_encode(benchmark, variant: str) -> None:
    plane = exponents()
    benchmark.extra_info["content_nbytes"] = len(plane)
    frame = benchmark(literals.encode, plane, isa=variant)
    assert zstandard.ZstdDecompressor().decompress(frame) == plane


@pytest.mark.parametrize("variant", literals.variants())
def test_decode(benchmark, variant: str) -> None:
    plane = exponents()
    frame = literals.encode(plane)
    benchmark.extra_info["content_nbytes"] = len(plane)
    assert benchmark(literals.decode, frame, len(plane), isa=variant) == plane


def test_histogram(benchmark) -> None:
    plane = exponents()
    benchmark.extra_info["content_nbytes"] = len(plane)
    assert sum(benchmark(literals.histogram, plane)) == len(plane)


def test_stock_zstandard_decode(benchmark) -> None:
    plane = exponents()
    frame = literals.encode(plane)
    decompressor = zstandard.ZstdDecompressor()
    benchmark.extra_info["content_nbytes"] = len(plane)
    assert benchmark(decompressor.decompress, frame) == plane
