"""Import time of z4ai against numpy alone, in fresh processes that take turns.

    python bench/e2e/imports.py [--rounds 25] [--json FILE]

Each process times its one import and ends. The ratio quoted is that of the medians.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import measure

GOAL = 1.3
PROGRAM = (
    "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)\n"
    "import sys; print(len(sys.modules))"
)


def import_time(module: str) -> tuple[float, int]:
    """Return seconds of one import, and the modules loaded after it."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", PROGRAM.format(module)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    seconds, modules = text.split()
    return float(seconds), int(modules)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    measure.rounds_option(parser)
    parser.set_defaults(rounds=25)
    args = parser.parse_args()
    modules = ("numpy", "z4ai")
    seconds: dict[str, list[float]] = {name: [] for name in modules}
    loaded = {name: import_time(name)[1] for name in modules}  # and warms the file cache
    for _ in range(args.rounds):
        for name in modules:
            seconds[name].append(import_time(name)[0])
    lines = [
        [
            name,
            f"{min(seconds[name]) * 1e3:.1f}",
            f"{statistics.median(seconds[name]) * 1e3:.1f}",
            str(loaded[name]),
        ]
        for name in modules
    ]
    measure.print_table(["import", "best ms", "median ms", "modules"], lines)
    of_medians = statistics.median(seconds["z4ai"]) / statistics.median(seconds["numpy"])
    of_best = min(seconds["z4ai"]) / min(seconds["numpy"])
    verdict = "yes" if of_medians <= GOAL else "NO"
    head = ["z4ai / numpy", "of medians", "of best", "goal", "met"]
    measure.print_table(head, [["", f"{of_medians:.3f}", f"{of_best:.3f}", f"<= {GOAL}", verdict]])
    results = {"benchmark": "imports", "seconds": seconds, "modules": loaded}
    measure.write_json(args.json, {**results, "of_medians": of_medians, "of_best": of_best})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
