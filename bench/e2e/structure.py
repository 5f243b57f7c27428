"""Generated inputs with a structure: the size of the default tier beside what is possible.

    python bench/e2e/structure.py [--cache FILE] [--rivals DIR] [--mebibytes 32] [--only GLOB]

`bench/structured.py` makes the inputs and says what each bound counts. A row passes where the size
is within 2 % of the bound, the ratio is at least what is asked for, and no rival's is smaller.
Rivals get a safetensors file of the one tensor (its header counts, some 80 bytes), except where
the bytes are no whole number of elements: there they get the bytes. Speeds are of one thread, the
fastest of some calls; they stand beside no rival here.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import z4ai
from bench import measure, rivals, structured
from bench.rivals.cache import RIVALS, SizeCache

EXCESS_GOAL = 0.02
CALLS = 3


def fastest(call: Callable[[], Any], calls: int) -> tuple[float, Any]:
    """Return the seconds of the fastest call and the last result."""
    best, result = float("inf"), None
    for _ in range(calls):
        result = None  # freed outside the timer
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return best, result


def row_of(
    name: str, made: structured.Structured, effort: str, theirs: dict[str, int], calls: int
) -> dict[str, Any]:
    """Compress, restore and judge one input."""
    options: dict[str, Any] = {"dtype": made.dtype, "effort": effort, "threads": 1}
    shaped = {**options, "shape": made.shape}
    encode, blob = fastest(lambda: z4ai.compress(made.content, **shaped), calls)
    decode, back = fastest(lambda: z4ai.decompress(blob, threads=1), calls)
    if back != made.content:
        raise SystemExit(f"{name}: not restored")
    n, size, goal = len(made.content), len(blob), made.goal
    if made.part is not None and goal is not None:
        goal *= len(made.part) / len(z4ai.compress(made.part, **options))
    excess = size / made.bound - 1
    wrong = measure.beaten_by(size, theirs)
    if excess > EXCESS_GOAL:
        wrong.append(f"{EXCESS_GOAL:.0%} over the bound")
    if goal is not None and n / size < goal:
        wrong.append(f"below {goal:.4g}")
    return {
        "input": name,
        "nbytes": n,
        "bound": made.bound,
        "z4ai": size,
        "excess": excess,
        "goal": goal,
        "rivals": theirs,
        "encode": n / encode / 1e9,
        "decode": n / decode / 1e9,
        "wrong": wrong,
    }


def cells_of(row: dict[str, Any]) -> list[str]:
    n, theirs, goal = row["nbytes"], row["rivals"], row["goal"]
    best = min(theirs, key=lambda rival: theirs[rival], default=None)
    return [
        row["input"],
        f"{row['bound']:,.0f}",
        f"{row['z4ai']:,}",
        f"{row['excess']:+.2%}",
        f"{n / row['bound']:.3f}",
        f"{n / row['z4ai']:.3f}",
        "–" if goal is None else f"{goal:.3f}",
        f"{best} {n / theirs[best]:.3f}" if best else "–",
        f"{row['encode']:.2f}",
        f"{row['decode']:.2f}",
        "; ".join(row["wrong"]) or "pass",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mebibytes", type=int, default=32, help="size of each input")
    parser.add_argument("--only", default="*", help="glob of input names")
    parser.add_argument("--effort", default="default")
    parser.add_argument("--calls", type=int, default=CALLS, help="calls timed, the fastest counts")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="JSON of the rivals' sizes")
    parser.add_argument("--measure-only", action="store_true", help="fill the cache, no table")
    parser.add_argument("--names", default=",".join(RIVALS), help="rivals to measure")
    parser.add_argument("--json", type=Path, metavar="FILE")
    measure.into_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    names = [name for name in structured.INPUTS if fnmatch.fnmatch(name, args.only)]
    if not names:
        parser.error(f"no input {args.only}; there are: {', '.join(structured.INPUTS)}")
    cache, pythons = SizeCache(args.cache), rivals.pythons(args)
    rows = []
    for name in names:
        made = structured.INPUTS[name](args.mebibytes << 20)
        key = cache.key(name, made.content)
        if pythons:
            suffix, content = made.file()
            with tempfile.TemporaryDirectory(prefix="z4ai-bench-") as folder:
                path = Path(folder) / f"input{suffix}"
                path.write_bytes(content)
                cache.measure(key, path, pythons, args.names.split(","))
        if not args.measure_only:
            rows.append(row_of(name, made, args.effort, cache.sizes(key), args.calls))
            print(json.dumps(rows[-1]), file=sys.stderr)
    cache.close()
    head = ["input", "bound, B", f"z4ai {args.effort}, B", "over the bound", "ratio of the bound"]
    head += ["ratio", "at least", "smallest rival", "encode GB/s", "decode GB/s", "verdict"]
    if not args.measure_only:
        lines = [cells_of(row) for row in rows]
        measure.print_markdown(head, lines, "structure", args.into)
    measure.write_json(args.json, {"benchmark": "structure", "rows": rows})
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
