"""The fused path, one thread: compress, decompress into a warm buffer, decompress to new bytes."""

from __future__ import annotations

import pytest

import z4ai
from bench import data

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

NBYTES = 16 << 20
DTYPES = ("bf16", "fp16", "fp32", "fp8_e4m3")


@pytest.mark.parametrize("dtype", DTYPES)
def test_compress(benchmark, dtype: str) -> None:
    content = data.weights_of(dtype, NBYTES)
    benchmark.extra_info["content_nbytes"] = len(content)
    blob = benchmark(z4ai.compress, content, dtype=dtype, effort="fast", threads=1)
    benchmark.extra_info["encoded_nbytes"] = len(blob)
    assert z4ai.decompress(blob) == content


@pytest.mark.parametrize("dtype", DTYPES)
def test_decompress_into(benchmark, dtype: str) -> None:
    content = data.weights_of(dtype, NBYTES)
    blob = z4ai.compress(content, dtype=dtype, effort="fast")
    out = bytearray(len(content))
    benchmark.extra_info["content_nbytes"] = len(content)
    benchmark(z4ai.decompress, blob, out=out, threads=1)
    assert out == content


@pytest.mark.parametrize("dtype", DTYPES)
def test_decompress(benchmark, dtype: str) -> None:
    content = data.weights_of(dtype, NBYTES)
    blob = z4ai.compress(content, dtype=dtype, effort="fast")
    benchmark.extra_info["content_nbytes"] = len(content)
    assert benchmark(z4ai.decompress, blob, threads=1) == content
