"""Kill a series while steps are added and dropped, and look whether anything is lost.

    python bench/e2e/series_kill.py [--kills 50] [--seed 0] [--folder DIR]

A process of its own adds and drops steps without end, and notes, behind a flush to the disk, what
it is about to do and what is done. It is killed (SIGKILL) at a random moment, again and again, at
times while it cleans up behind the last kill. After each kill every step that was there before and
that it was not about to drop must be restored byte for byte, and so must be whatever else is named.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))

from checkpoints import checkpoint

from z4ai.series import Series

MOST_STEPS = 6
# Longest time until a kill; an addition takes some hundredths of a second.
SECONDS = 0.6
KINDS = ("fp32", "bf16", "adam")


def content_of(name: str) -> bytes:
    """Return what a step holds, by its name: kind, step, run."""
    kind, step, run = name.removeprefix("x-").split("-")
    return checkpoint(kind, int(step), int(run))


def work(folder: Path, seed: int) -> None:
    """Add and drop until killed."""
    rng = random.Random(seed)
    series = Series.open(folder / "run")
    journal = os.open(folder / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(text: str) -> None:
        os.write(journal, f"{text}\n".encode())
        os.fsync(journal)

    while True:
        names = [step.name for step in series.ls()]
        if len(names) >= MOST_STEPS or (names and rng.random() < 0.3):
            name = rng.choice(names)
            note(f"drop {name}")
            series.drop(name)
        else:
            name = f"x-{rng.choice(KINDS)}-{rng.randrange(20)}-{rng.randrange(10**9)}"
            name = name[: name.rindex("-") + 1] + str(rng.randrange(3))
            if name in names:
                continue
            path = folder / "in.safetensors"
            path.write_bytes(content_of(name))
            note(f"add {name}")
            series.add(path, name)
        note("done")


def survivors(folder: Path) -> tuple[set[str], set[str]]:
    """Read the journal; -> names that must be there, names that may be."""
    must: set[str] = set()
    may: set[str] = set()
    text = (folder / "journal").read_text() if (folder / "journal").exists() else ""
    action, name = "", ""
    for line in text.splitlines():
        if line != "done":
            # The one before was cut off: either it happened or it did not.
            if action == "add":
                may.add(name)
            elif action == "drop":
                must.discard(name)
                may.add(name)
            action, _, name = line.partition(" ")
            continue
        may.discard(name)
        must.discard(name)
        if action == "add":
            must.add(name)
        action = ""
    if action == "add":
        may.add(name)
    elif action == "drop":
        must.discard(name)
        may.add(name)
    return must, may


def check(folder: Path) -> int:
    """Compare the series with the journal; -> number of steps; SystemExit if anything is lost."""
    series = Series.open(folder / "run")
    must, may = survivors(folder)
    names = {step.name for step in series.ls()}
    if not must <= names <= must | may:
        raise SystemExit(f"lost {sorted(must - names)}, or too many {sorted(names - must - may)}")
    for name in names:
        series.restore(name, folder / "out")
        back, there = (folder / "out").read_bytes(), content_of(name)
        if hashlib.sha256(back).digest() != hashlib.sha256(there).digest():
            raise SystemExit(f"{name}: not what was added")
    report = series.verify()
    if not report.ok:
        raise SystemExit(f"damaged: {report.failures}")
    return len(names)


def kill_often(folder: Path, kills: int, seed: int) -> None:
    """Do all of it."""
    rng = random.Random(seed)
    Series.create(folder / "run", max_depth=3)
    left_behind = 0
    changes = 0
    for k in range(kills):
        command = [sys.executable, __file__, "--work", str(folder), "--seed", str(seed * 1000 + k)]
        child = subprocess.Popen(command)
        started = (folder / "journal").stat().st_size if (folder / "journal").exists() else 0
        give_up = time.monotonic() + 60
        # From its first step on: starting takes longer than what is to be hit.
        while not (folder / "journal").exists() or (folder / "journal").stat().st_size == started:
            if child.poll() is not None or time.monotonic() > give_up:
                raise SystemExit(f"the worker ended by itself: {child.returncode}")
            time.sleep(0.001)
        time.sleep(rng.random() * SECONDS)
        child.send_signal(signal.SIGKILL)
        child.wait()
        entries = {entry.name for entry in (folder / "run" / ".partial").iterdir()}
        orphans = Series.open(folder / "run").verify().orphans
        left_behind += bool(entries or orphans)
        n_steps = check(folder)
        changes = (folder / "journal").read_text().count("done")
        print(f"kill {k + 1}: {n_steps} steps whole, {len(entries) + len(orphans)} files left over")
    print(f"{kills} kills, {left_behind} in the middle of one of {changes} changes: nothing lost")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, metavar="DIR", help="default: a temporary one")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(args.work, args.seed)
    elif args.folder:
        args.folder.mkdir(exist_ok=True)
        kill_often(args.folder, args.kills, args.seed)
    else:
        with tempfile.TemporaryDirectory(prefix="z4ai-bench-") as folder:
            kill_often(Path(folder), args.kills, args.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
