"""Low-rank deltas: what each merged matrix takes, part by part, and what a search costs.

    python bench/e2e/lowrank.py DIR

`DIR` holds the corpus of `bench/pairs.py`, whose pairs with an adapter are used; the one that is
merged in bf16 is made there, by `numpy.random.default_rng(0)`. *Ideal* is the record of factors and
the entropy of the differences that are left, under the exponent of their reference. *Plain* is that
entropy without factors. All other tensors are copies.

Last come the pairs of fine-tunes, where the search finds nothing: nanoseconds a byte that it took,
fastest of seven, and the share of an encoder of 400 MB/s.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench.pairs import Pair, pairs, read
from z4ai._fast import lowrank, sparse
from z4ai.dtypes import DType, resolve
from z4ai.lowrank import Factors, encode_factors, find_factors, predict

ENCODER_MB_S = 400
GOAL_SHARE = 0.05
RUNS = 7

Bytes = npt.NDArray[np.uint8]


class Changed(NamedTuple):
    """A matrix that differs from its base."""

    name: str
    dtype: DType
    shape: tuple[int, int]
    target: Bytes
    base: Bytes


def changed(pair: Pair) -> Iterator[Changed]:
    """Yield the matrices of a pair that differ; convolutions as their rows by the rest."""
    base = read(pair.base)
    for name, tensor in read(pair.target).items():
        other = base.get(name)
        if other is None or other == tensor or len(tensor.shape) < 2:
            continue
        target, of = (np.frombuffer(t.content, np.uint8) for t in (tensor, other))
        dtype = resolve(tensor.dtype)
        rows = tensor.shape[0]
        yield Changed(name, dtype, (rows, len(target) // dtype.width // rows), target, of)


def entropy(matrix: Changed, reference: Bytes) -> float:
    """Return the bytes of the differences from a reference, at their entropy."""
    mantissa = {"fp16": 10, "bf16": 7, "fp32": 23, "fp64": 52}[matrix.dtype.name]
    words = reference.view(f"<u{matrix.dtype.width}") & (1 << 8 * matrix.dtype.width - 1) - 1
    kind = lowrank.KINDS[matrix.dtype.name]
    counts = lowrank.count(matrix.target, reference, kind, int(words.max()) >> mantissa)
    grain = 1 if matrix.dtype.width == 8 else 2
    apart = np.maximum((np.arange(256) // 2 >> grain) - 1, 0)
    bits = sum(sparse.entropy(row) for row in counts if row.any()) / 65536
    return (bits + float((counts.sum(axis=0) * apart).sum())) / 8


def ideal(matrix: Changed, factors: Factors) -> tuple[int, float, float]:
    """Return bytes of the factors, bytes of the differences, share of exact predictions."""
    out = np.empty_like(matrix.base)
    predict(matrix.base, matrix.dtype, factors, 0, matrix.shape[0], out)
    word = f"<u{matrix.dtype.width}"
    exact = float((out.view(word) == matrix.target.view(word)).mean())
    return len(encode_factors(factors)), entropy(matrix, out), exact


def show_sizes(pair: Pair) -> None:
    print(f"\n{pair.name}")
    total = 0.0
    for matrix in changed(pair):
        start = time.perf_counter()
        factors = find_factors(matrix.target, matrix.base, matrix.dtype, matrix.shape)
        seconds = time.perf_counter() - start
        plain = entropy(matrix, matrix.base)
        if factors is None:
            total += plain
            print(f"  {matrix.name:<48} none    plain {plain:9.0f}")
            continue
        numbers, rest, exact = ideal(matrix, factors)
        total += numbers + rest
        print(
            f"  {matrix.name:<48} rank {factors.rank:3}{' rounds' if factors.rounds else '':7}"
            f"  factors {numbers:7}  left {rest:8.0f}  exact {exact:.4f}"
            f"  plain {plain:9.0f}  {seconds:.2f} s"
        )
    nbytes = pair.target.stat().st_size
    print(f"  ideal: {total:.0f} bytes of {nbytes}, ratio {nbytes / total:.1f}")


def show_search(pair: Pair) -> None:
    nbytes, seconds, found = 0, 0.0, 0
    for matrix in changed(pair):
        fastest = float("inf")
        for _ in range(RUNS):
            start = time.perf_counter()
            factors = find_factors(matrix.target, matrix.base, matrix.dtype, matrix.shape)
            fastest = min(fastest, time.perf_counter() - start)
        nbytes += len(matrix.target)
        seconds += fastest
        found += factors is not None
    share = seconds / (nbytes / (ENCODER_MB_S * 1e6))
    verdict = "" if share <= GOAL_SHARE else f"  MORE THAN {GOAL_SHARE:.0%}"
    print(
        f"{pair.name:<32} found {found}, {seconds / nbytes * 1e9:.3f} ns/byte,"
        f" {share:.2%} of encoding{verdict}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        known = list(pairs(options.corpus, Path(folder)))
        for pair in known:
            if pair.group == "LoRA":
                show_sizes(pair)
        print()
        for pair in known:
            if pair.group == "fine-tune":
                show_search(pair)


if __name__ == "__main__":
    main()
