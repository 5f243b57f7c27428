"""The symbol kernels, every variant that runs here, over the elements of a chunk."""

from __future__ import annotations

import numpy as np
import pytest

from bench import data
from z4ai._fast import symbols

pytestmark = pytest.mark.benchmark(min_rounds=7, warmup=True, warmup_iterations=1)

TILE = 1 << 14  # elements of a long row
CHUNK = 1 << 20
KINDS = {
    "bf16": symbols.SYMBOLS2,
    "fp16": symbols.SYMBOLS2H,
    "fp32": symbols.SYMBOLS4,
    "fp64": symbols.SYMBOLS8,
}
variants = pytest.mark.parametrize("variant", symbols.variants())
dtypes = pytest.mark.parametrize("dtype", KINDS)


class Case:
    """Elements of weights, in symbols of a window that ends where the largest of them are."""

    def __init__(self, dtype: str, n: int) -> None:
        self.kind, self.n = KINDS[dtype], n
        width = symbols.width(self.kind)
        self.content = np.frombuffer(data.weights_of(dtype, n * width), np.uint8)
        fields = [symbols.field(self.kind, e) for e in self.content.reshape(-1, width)[:4096]]
        self.base = max(0, max(fields) - 240) if symbols.field_bits(self.kind) > 8 else 0
        self.parts = symbols.split(self.content, self.kind, self.base)
        self.packed = symbols.pack(self.parts[1], self.kind)
        self.out = np.empty_like(self.content)

    def check(self) -> None:
        same = (self.out == self.content).reshape(self.n, -1).all(axis=1)
        assert same[self.parts[0] != 255].all()


@variants
@dtypes
def test_split_and_pack(benchmark, dtype: str, variant: str) -> None:
    case = Case(dtype, CHUNK)

    def split() -> None:
        symbols.split(case.content, case.kind, case.base, case.parts, isa=variant)
        symbols.pack(case.parts[1], case.kind, case.packed, isa=variant)

    benchmark.extra_info["content_nbytes"] = case.content.nbytes
    benchmark(split)
    symbols.merge_packed(case.parts[0], case.packed, case.parts[2:], case.kind, case.base, case.out)
    case.check()


@variants
@dtypes
def test_merge_packed(benchmark, dtype: str, variant: str) -> None:
    case = Case(dtype, CHUNK)
    low = case.parts[2:]
    benchmark.extra_info["content_nbytes"] = case.content.nbytes
    benchmark(
        symbols.merge_packed,
        case.parts[0],
        case.packed,
        low,
        case.kind,
        case.base,
        case.out,
        isa=variant,
    )
    case.check()


@variants
def test_contexts(benchmark, variant: str) -> None:
    columns = (np.arange(TILE) * 7 // 5 % 100).astype(np.uint8)
    out = np.empty(TILE, np.uint8)
    benchmark.extra_info["content_nbytes"] = TILE
    benchmark(symbols.contexts, 90, columns, TILE, 3, 20, out, isa=variant)
    assert np.array_equal(out, np.minimum((90 + columns.astype(int)) >> 3, 20))


@variants
@pytest.mark.parametrize("rows", [1, 21])
def test_count(benchmark, rows: int, variant: str) -> None:
    case = Case("bf16", CHUNK)
    contexts = (np.arange(CHUNK) // 4096 * 7 // 5 % rows).astype(np.uint8) if rows > 1 else None
    table = np.zeros((rows, 256), np.uint32)
    benchmark.extra_info["content_nbytes"] = CHUNK
    benchmark(symbols.count, case.parts[0], contexts, table, isa=variant)
    assert table.sum() % CHUNK == 0
    assert (table.sum(axis=0) > 0).tolist() == (
        np.bincount(case.parts[0], minlength=256) > 0
    ).tolist()


@variants
@pytest.mark.parametrize("columns", [False, True], ids=["sum", "columns"])
def test_weigh(benchmark, columns: bool, variant: str) -> None:
    case = Case("bf16", TILE)
    sums = np.zeros(TILE, np.uint32) if columns else None
    benchmark.extra_info["content_nbytes"] = TILE
    total = benchmark(symbols.weigh, case.parts[0], 180, sums, isa=variant)
    y = np.where(case.parts[0] == 255, 0, case.parts[0]).astype(int)
    assert total == np.maximum(y, 180).sum()
