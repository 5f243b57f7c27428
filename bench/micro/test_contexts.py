"""The context coder over exponent and two bits of mantissa: every variant, 1 and 8 contexts."""

from __future__ import annotations

import numpy as np
import pytest

from bench import data
from z4ai._fast import contexts

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

SYMBOLS = 1 << 20  # a stream of 64 lanes
CONTEXTS = [1, 8]


def planes_of(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Symbols of bf16 weights whose scale a context tells, in blocks of 64, as if in rows."""
    context = (np.arange(SYMBOLS) // 64 * 7 // 5 % count).astype(np.uint8)
    values = data.normals(1, SYMBOLS) * 0.02 * 2.0 ** (context / 8)
    bits = values.astype(np.float32).view(np.uint32) >> 21 & 1023
    return (bits.max() - bits).clip(0, 63).astype(np.uint8), context


def tables_of(symbols: np.ndarray, context: np.ndarray, count: int) -> np.ndarray:
    at = context.astype(np.int64) * 256 + symbols
    counts = np.bincount(at, minlength=count * 256).reshape(count, 256)
    return contexts.read_tables(contexts.write_tables(counts.astype(np.uint32))[0])


@pytest.mark.parametrize("variant", contexts.variants())
@pytest.mark.parametrize("count", CONTEXTS)
def test_encode(benchmark, count: int, variant: str) -> None:
    symbols, context = planes_of(count)
    freqs = tables_of(symbols, context, count)
    benchmark.extra_info["content_nbytes"] = SYMBOLS
    stream = benchmark(contexts.encode, symbols, context, freqs, isa=variant)
    assert contexts.decode(stream, context, SYMBOLS, freqs) == symbols.tobytes()


@pytest.mark.parametrize("variant", contexts.variants())
@pytest.mark.parametrize("count", CONTEXTS)
def test_decode(benchmark, count: int, variant: str) -> None:
    symbols, context = planes_of(count)
    freqs = tables_of(symbols, context, count)
    stream = contexts.encode(symbols, context, freqs)
    benchmark.extra_info["content_nbytes"] = SYMBOLS
    content = benchmark(contexts.decode, stream, context, SYMBOLS, freqs, isa=variant)
    assert content == symbols.tobytes()


@pytest.mark.parametrize("count", [1, 64])
def test_tables(benchmark, count: int) -> None:
    """Choosing a precision and writing the tables: what a tensor pays once."""
    symbols, context = planes_of(count)
    at = context.astype(np.int64) * 256 + symbols
    counts = np.bincount(at, minlength=count * 256).reshape(count, 256).astype(np.uint32)
    tables, _ = benchmark(contexts.write_tables, counts)
    assert contexts.read_tables(tables).shape == (count, 256)
