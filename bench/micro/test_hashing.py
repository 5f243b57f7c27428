"""XXH3, every variant that runs here, over a tile and over a chunk."""

from __future__ import annotations

import pytest

from bench import data
from z4ai._fast import hashing

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

SIZES = {"64KiB": 64 << 10, "2MiB": 2 << 20}


@pytest.mark.parametrize("variant", hashing.variants())
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("bits", [64, 128])
def test_xxh3(benchmark, bits: int, size: str, variant: str) -> None:
    content = data.weights_of("bf16", SIZES[size])
    function = {64: hashing.xxh3_64, 128: hashing.xxh3_128}[bits]
    benchmark.extra_info["content_nbytes"] = len(content)
    digest = benchmark(function, content, isa=variant)
    assert digest == function(content)


def test_xxhash_package(benchmark) -> None:
    """The usual binding of the usual library, for scale."""
    xxhash = pytest.importorskip("xxhash")
    content = data.weights_of("bf16", SIZES["2MiB"])
    benchmark.extra_info["content_nbytes"] = len(content)
    digest = benchmark(xxhash.xxh3_64_intdigest, content)
    assert digest == hashing.xxh3_64(content)
