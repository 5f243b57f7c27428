"""Several threads against one: the same calls, one behind the other, in one process.

    python bench/e2e/threads.py --corpus DIR [--dtype bf16] [--threads 2] [--runs 3]

Each run times nine calls of each kind and takes the fastest; the figure is the median over the
runs. Calls follow one another without a pause, so that processors are awake: what a first call
after a pause costs belongs to the machine (`buffers.py` shows it).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))

import z4ai
from bench import measure

CALLS = 9
GOAL = 1.7
NAMES = ("minilm", "craft", "crepe_full")


def content_of(folder: Path, dtype: str) -> bytes:
    """Read the tensor data of the three models of the corpus."""
    suffix = "" if dtype == "fp32" else f".{dtype}"
    parts = []
    for name in NAMES:
        raw = (folder / f"{name}{suffix}.safetensors").read_bytes()
        parts.append(raw[8 + int.from_bytes(raw[:8], "little") :])
    return b"".join(parts)


def fastest(call: Callable[[], Any]) -> float:
    """Return the seconds of the fastest of some calls; results are dropped outside the timer."""
    best = float("inf")
    for _ in range(CALLS):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
        del result
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    folder = options.corpus / "st" if (options.corpus / "st").is_dir() else options.corpus
    content, dtype = content_of(folder, options.dtype), options.dtype
    blob = z4ai.compress(content, dtype=dtype, effort="fast")
    out = np.ones(len(content), np.uint8)
    assert bytes(z4ai.decompress(blob, out=out)) == content
    calls: dict[str, Callable[[int], Any]] = {
        "decode, fresh": lambda n: z4ai.decompress(blob, threads=n),
        "decode, into out=": lambda n: z4ai.decompress(blob, out=out, threads=n),
        "encode": lambda n: z4ai.compress(content, dtype=dtype, effort="fast", threads=n),
    }
    rows = []
    for name, call in calls.items():
        one, many, ratios = [], [], []
        for _ in range(options.runs):
            one.append(fastest(lambda call=call: call(1)))  # type: ignore[misc]
            many.append(fastest(lambda call=call: call(options.threads)))  # type: ignore[misc]
            ratios.append(one[-1] / many[-1])
        ratio = statistics.median(ratios)
        rows.append(
            [
                name,
                f"{len(content) / min(one) / 1e9:.2f}",
                f"{len(content) / min(many) / 1e9:.2f}",
                f"{min(ratios):.2f}-{max(ratios):.2f}",
                f"{ratio:.2f}",
                "yes" if ratio >= GOAL else "NO",
            ]
        )
    head = ["call", "1 thread GB/s", f"{options.threads} threads GB/s", "ratios", "median", "met"]
    measure.print_table(head, rows)


if __name__ == "__main__":
    main()
