"""Rounds, rows, tables: what every end-to-end benchmark shares.

Contenders take turns, round by round (A B A B ...), so that whatever the machine does meets all of
them. The fastest round stands for a contender; a comparison is quoted both as the ratio of fastest
rounds and as the median of the per-round ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.rivals import Sample

__all__ = ["MIN_ROUNDS", "Comparison", "Row", "beaten_by", "input_file", "into_option"]
__all__ += ["machine", "print_comparisons", "print_markdown", "print_rows", "print_table"]
__all__ += ["rounds_option", "take_turns", "write_json"]

MIN_ROUNDS = 7
ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Row:
    """What one contender did with some content, round by round."""

    name: str
    content_nbytes: int
    encoded_nbytes: int = 0
    seconds: list[float] = field(default_factory=list)
    cpu_seconds: list[float] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)

    def add(self, sample: Sample) -> None:
        self.seconds.append(sample.seconds)
        self.cpu_seconds.append(sample.cpu_seconds)
        self.faults.append(sample.faults)
        self.encoded_nbytes = sample.encoded_nbytes or self.encoded_nbytes

    @property
    def best(self) -> float:
        """GB/s of content, fastest round."""
        return self.content_nbytes / min(self.seconds) / 1e9

    @property
    def median(self) -> float:
        """GB/s of content, median round."""
        return self.content_nbytes / statistics.median(self.seconds) / 1e9

    @property
    def cores(self) -> float:
        """Processors used, median round: less than the threads where others took their time."""
        pairs = zip(self.cpu_seconds, self.seconds, strict=True)
        return statistics.median(cpu / wall for cpu, wall in pairs)

    def summed(self, other: Row) -> Row:
        """Return the row of both contents, round by round."""
        return Row(
            self.name,
            self.content_nbytes + other.content_nbytes,
            self.encoded_nbytes + other.encoded_nbytes,
            [a + b for a, b in zip(self.seconds, other.seconds, strict=True)],
            [a + b for a, b in zip(self.cpu_seconds, other.cpu_seconds, strict=True)],
            [a + b for a, b in zip(self.faults, other.faults, strict=True)],
        )


@dataclass(frozen=True)
class Comparison:
    """How many times faster `row` is than `against`."""

    label: str
    row: Row
    against: Row
    goal: float | None = None

    @property
    def best(self) -> float:
        return min(self.against.seconds) / min(self.row.seconds)

    @property
    def paired(self) -> float:
        pairs = zip(self.against.seconds, self.row.seconds, strict=True)
        return statistics.median(theirs / ours for theirs, ours in pairs)

    @property
    def met(self) -> bool:
        return self.goal is None or min(self.best, self.paired) >= self.goal


def take_turns(
    contenders: Sequence[tuple[Row, Callable[[], Sample]]], rounds: int, warmups: int = 1
) -> None:
    """Run each contender once a round, in turn, and add the samples to its row."""
    for _ in range(warmups):
        for _, call in contenders:
            call()
    for _ in range(rounds):
        for row, call in contenders:
            row.add(call())


def rounds_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--rounds`` (at least seven) and ``--json``."""

    def at_least(text: str) -> int:
        if int(text) < MIN_ROUNDS:
            raise argparse.ArgumentTypeError(f"at least {MIN_ROUNDS} rounds")
        return int(text)

    parser.add_argument("--rounds", type=at_least, default=9, help="rounds, at least 7")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")


@contextmanager
def input_file(data: bytes) -> Iterator[Path]:
    """Hold `data` in a file that workers can read, in memory where the system allows."""
    folder = "/dev/shm" if os.path.isdir("/dev/shm") else None
    with tempfile.TemporaryDirectory(dir=folder, prefix="z4ai-bench-") as name:
        path = Path(name) / "content"
        path.write_bytes(data)
        yield path


def machine() -> dict[str, Any]:
    """Say what the figures were measured on."""
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
    }
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        facts["cpu"] = models[0].partition(":")[2].strip() if models else platform.processor()
    huge = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if huge.exists():
        facts["huge_pages"] = huge.read_text().strip()
    try:
        from z4ai._fast import _dispatch

        facts["isa"] = _dispatch.current()
    except ImportError:
        facts["isa"] = "unknown"
    git = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
    )
    facts["commit"] = git.stdout.strip()
    return facts


def print_table(head: Sequence[str], lines: Sequence[Sequence[str]], title: str = "") -> None:
    """Print columns, the first to the left and the others to the right."""
    widths = [max(len(line[k]) for line in (head, *lines)) for k in range(len(head))]
    if title:
        print(f"\n{title}")
    for line in (head, ["-" * w for w in widths], *lines):
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join(cells).rstrip())
    sys.stdout.flush()


def beaten_by(size: int, rivals: dict[str, int]) -> list[str]:
    """Say by how much `size` is larger than the smallest of the rivals' sizes, if it is."""
    best = min(rivals, key=lambda name: rivals[name], default=None)
    if best is None or size <= rivals[best]:
        return []
    return [f"{size / rivals[best] - 1:.2%} larger than {best}"]


def print_markdown(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    name: str = "",
    into: Path | None = None,
) -> None:
    """Print a table for a page of documentation; put it `into` the page where it says `name`.

    The page says so by two lines, ``<!-- table: NAME -->`` and ``<!-- end -->``.
    """
    rows = (head, ["---"] * len(head), *lines)
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    print(f"\n{table}")
    sys.stdout.flush()
    if into is None:
        return
    begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
    text = into.read_text(encoding="utf-8")
    before, mark, rest = text.partition(begin)
    _, close, after = rest.partition(end)
    if not mark or not close:
        raise SystemExit(f"{into} has no lines {begin.strip()!r} and {end!r}")
    into.write_text(f"{before}{mark}{table}\n{close}{after}", encoding="utf-8")


def into_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--into``."""
    parser.add_argument("--into", type=Path, metavar="PAGE", help="put the table there too")


def print_rows(rows: Sequence[Row], title: str = "") -> None:
    """Print speeds in GB/s of content, and the page faults of a call (many: fresh memory)."""
    lines = [
        [
            r.name,
            f"{r.best:.3f}",
            f"{r.median:.3f}",
            f"{r.cores:.2f}",
            f"{statistics.median(r.faults):.0f}",
        ]
        for r in rows
    ]
    print_table(["", "best GB/s", "median", "cores", "faults"], lines, title)


def print_comparisons(comparisons: Sequence[Comparison], title: str = "") -> None:
    """Print ratios of speed, and the goal where there is one."""
    lines = []
    for c in comparisons:
        goal = "" if c.goal is None else f">= {c.goal:g}"
        verdict = "" if c.goal is None else ("yes" if c.met else "NO")
        lines.append([c.label, f"{c.best:.2f}", f"{c.paired:.2f}", goal, verdict])
    print_table(["times faster", "of best", "paired", "goal", "met"], lines, title)


def write_json(path: Path | None, results: dict[str, Any]) -> None:
    """Write the results and the machine they came from."""
    if path is None:
        return
    path.write_text(json.dumps({"machine": machine(), **results}, indent=1, default=_plain) + "\n")


def _plain(value: object) -> object:
    if isinstance(value, Row):
        return {**vars(value), "best_gbps": value.best, "median_gbps": value.median}
    if isinstance(value, Comparison):
        return {
            "label": value.label,
            "of_best": value.best,
            "paired": value.paired,
            "goal": value.goal,
        }
    raise TypeError(f"cannot write {type(value).__name__}")
