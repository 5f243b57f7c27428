"""Split and interleave, every variant that runs here; memcpy of the same bytes for scale."""

from __future__ import annotations

import numpy as np
import pytest

from bench import data
from z4ai._fast import planes

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

NBYTES = 2 << 20  # one chunk
LAYOUTS = {
    "bf16": planes.FLOAT2,
    "fp32": planes.FLOAT4,
    "fp64": planes.FLOAT8,
    "int16": planes.BYTES2,
    "int32": planes.BYTES4,
}
SOURCES = {"int16": "bf16", "int32": "fp32"}


def content_of(dtype: str) -> np.ndarray:
    return np.frombuffer(data.weights_of(SOURCES.get(dtype, dtype), NBYTES), np.uint8)


@pytest.mark.parametrize("variant", planes.variants())
@pytest.mark.parametrize("dtype", LAYOUTS)
def test_split(benchmark, dtype: str, variant: str) -> None:
    content, layout = content_of(dtype), LAYOUTS[dtype]
    out = planes.split(content, layout)
    benchmark.extra_info["content_nbytes"] = content.nbytes
    benchmark(planes.split, content, layout, out, isa=variant)
    back = planes.interleave(out, layout, content.nbytes // planes.layout_width(layout))
    assert np.array_equal(back, content)


@pytest.mark.parametrize("variant", planes.variants())
@pytest.mark.parametrize("dtype", LAYOUTS)
def test_interleave(benchmark, dtype: str, variant: str) -> None:
    content, layout = content_of(dtype), LAYOUTS[dtype]
    n_elems = content.nbytes // planes.layout_width(layout)
    split = planes.split(content, layout)
    out = np.empty_like(content)
    benchmark.extra_info["content_nbytes"] = content.nbytes
    benchmark(planes.interleave, split, layout, n_elems, out, isa=variant)
    assert np.array_equal(out, content)


def test_memcpy(benchmark) -> None:
    content = content_of("bf16")
    out = np.empty_like(content)
    benchmark.extra_info["content_nbytes"] = content.nbytes
    benchmark(np.copyto, out, content)
    assert np.array_equal(out, content)
