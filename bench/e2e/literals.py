"""The literals coder alone against stock zstandard, on the byte planes of weights.

    python bench/e2e/literals.py --corpus DIR [--dtypes bf16] [--symbols 1048576] [--json FILE]

Both decoders read the same frames: those that our encoder writes, which are ordinary Zstandard.
The encoders differ in what they write; zstandard's level 1 is shown for scale.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np
import zstandard

from bench import measure
from bench.e2e.buffers import contents
from bench.measure import Comparison, Row
from bench.rivals import Sample

GOAL = 1.5
LAYOUTS = {"bf16": "FLOAT2", "fp16": "FLOAT2", "fp32": "FLOAT4"}


def planes_of(content: bytes, dtype: str, symbols: int) -> list[bytes]:
    """Cut the exponent plane of the content into pieces of that many symbols."""
    from z4ai._fast import planes

    words = np.frombuffer(content, np.uint8)
    exponents = planes.split(words, getattr(planes, LAYOUTS[dtype]))[0].tobytes()
    return [exponents[i : i + symbols] for i in range(0, len(exponents), symbols)]


def timed(function: Callable[[], Any], check: Callable[[Any], bool] | None = None) -> Sample:
    cpu = time.process_time()
    start = time.perf_counter()
    result = function()
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    if check is not None and not check(result):
        raise RuntimeError("not restored")
    return Sample(seconds, cpu, 0, 0)


def main() -> int:
    from z4ai._fast import literals

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="folder of the corpus (or its st/ folder)")
    parser.add_argument("--dtypes", default="bf16")
    parser.add_argument("--symbols", type=int, default=1 << 20, help="symbols of one frame")
    measure.rounds_option(parser)
    args = parser.parse_args()
    if args.corpus and (args.corpus / "st").is_dir():
        args.corpus = args.corpus / "st"
    decompressor = zstandard.ZstdDecompressor()
    level1 = zstandard.ZstdCompressor(level=1)
    results = []
    for dtype in args.dtypes.split(","):
        for name, content in contents(args.corpus, dtype):
            planes = planes_of(content, dtype, args.symbols)
            frames = [bytes(literals.encode(plane)) for plane in planes]
            total = sum(map(len, planes))
            coded = sum(map(len, frames))

            def stock(frames: list[bytes] = frames) -> list[bytes]:
                return [decompressor.decompress(f) for f in frames]

            def ours(frames: list[bytes] = frames, planes: list[bytes] = planes) -> list[Any]:
                return [literals.decode(f, len(p)) for f, p in zip(frames, planes, strict=True)]

            def restored(result: list[Any], planes: list[bytes] = planes) -> bool:
                return all(bytes(r) == p for r, p in zip(result, planes, strict=True))

            def encode(planes: list[bytes] = planes) -> list[Any]:
                return [literals.encode(p) for p in planes]

            def encode_stock(planes: list[bytes] = planes) -> list[bytes]:
                return [level1.compress(p) for p in planes]

            rows = [
                Row(label, total, coded)
                for label in ("literals decode", "zstandard decode", "literals encode")
            ]
            rows.append(Row("zstandard -1 encode", total, sum(map(len, encode_stock()))))
            calls: list[Callable[[], Sample]] = [
                lambda f=ours, c=restored: timed(f, c),
                lambda f=stock, c=restored: timed(f, c),
                lambda f=encode: timed(f),
                lambda f=encode_stock: timed(f),
            ]
            measure.take_turns(list(zip(rows, calls, strict=True)), args.rounds)
            bits = [f"{8 * row.encoded_nbytes / total:.3f}" for row in rows]
            lines = [
                [r.name, f"{r.best:.3f}", f"{r.median:.3f}", b]
                for r, b in zip(rows, bits, strict=True)
            ]
            title = f"{name}: exponent plane, {len(planes)} frames of {args.symbols} symbols"
            measure.print_table(["", "best GB/s", "median", "bits a symbol"], lines, title)
            comparisons = [
                Comparison("decode / zstandard", rows[0], rows[1], GOAL),
                Comparison("encode / zstandard -1", rows[2], rows[3]),
            ]
            measure.print_comparisons(comparisons)
            results.append({"file": name, "rows": rows, "comparisons": comparisons})
    measure.write_json(args.json, {"benchmark": "literals", "results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
