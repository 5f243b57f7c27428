"""Deltas of real pairs: sizes beside every rival's, and speed beside lmzip's.

    python bench/e2e/deltas.py DIR --cache FILE --rivals DIR --tiers ''    measures rivals, once
    python bench/e2e/deltas.py DIR --cache FILE                            the table, rivals cached
    python bench/e2e/deltas.py DIR --rivals DIR --speed                    speed

`bench/pairs.py` says which pairs; some are made here, of others. Sizes: files in and out,
everything counted, by the command line; each delta is applied and what it gives compared.
`rivals/deltas.py` says in which ways a rival is tried: the smallest one counts, and what it makes
of the target alone is one of them. Speed: one thread, in memory; lmzip, which has files only, has
them in memory too, appends the target to an archive that holds the base, and extracts it. What
encoding takes with and without the search for factors of low rank is timed where it finds none.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import geometric_mean
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import data, measure, rivals
from bench.measure import Comparison, Row
from bench.pairs import STRAIGHT, Pair, pairs
from bench.rivals import Missing, Worker
from bench.rivals.cache import SizeCache
from z4ai.cli import main as command

RIVALS = ("lmzip", "bigsmall", "zipnn", "zstandard")
# Training steps: z4ai by the smallest rival, geometric mean.
MEAN_GOAL = 0.92
# Speed: the pair, MB/s asked for, times faster than lmzip asked for.
SPEED = "minilm_ft.step040.bf16"
SPEED_GOALS = {"encode": (300, 4.0), "decode": (600, 15.0)}
# Encoding with the search by encoding without it, where it finds nothing.
SEARCH_GOAL = 1.05


def key_of(pair: Pair) -> str:
    """Return the key of a pair in the cache: its name, and what both hold."""
    return SizeCache.key(pair.name, pair.base.read_bytes() + b"\0" + _raw(pair))


def _raw(pair: Pair) -> bytes:
    return pair.target.read_bytes()


# --- Sizes ------------------------------------------------------------------------------------


def run(*words: object) -> None:
    """Run the command line; SystemExit if it fails."""
    if command([str(word) for word in words]):
        raise SystemExit(f"failed: {' '.join(map(str, words))}")


def our_size(pair: Pair, tier: str, folder: Path) -> int:
    """Return the size of the delta that z4ai makes; SystemExit if it does not give it back."""
    coded, back = folder / "coded", folder / "back"
    run("delta", "make", "-q", "--effort", tier, "-o", coded, pair.target, pair.base)
    run("delta", "apply", "-q", "-o", back, coded, pair.base)
    if back.read_bytes() != _raw(pair):
        raise SystemExit(f"{pair.name}, {tier}: not restored")
    nbytes = coded.stat().st_size
    coded.unlink()
    back.unlink()
    return nbytes


def alone(pair: Pair, tier: str, folder: Path) -> int:
    """Return the size of the container of the target."""
    coded = folder / "alone"
    run("compress", "-q", "-f", "--effort", tier, "-o", coded, pair.target)
    return coded.stat().st_size


def shortcomings(
    pair: Pair, nbytes: int, theirs: dict[str, int], folder: Path, ratios: dict[str, float]
) -> list[str]:
    """Say what of the goal is not met; `ratios` are those of the pairs so far."""
    raw, goal = pair.target.stat().st_size, pair.goal
    ratio = raw / nbytes
    wrong = []
    if goal.ratio is not None and ratio < goal.ratio:
        wrong.append(f"below {goal.ratio:g}")
    if goal.against_best is not None and theirs:
        best = min(theirs.values()) / nbytes
        if best < goal.against_best or nbytes >= min(theirs.values()):
            wrong.append(f"{best:.3f} × smaller than the best rival")
    if goal.straight is not None and goal.straight[0] in ratios:
        share = ratio / ratios[goal.straight[0]]
        if share < goal.straight[1]:
            wrong.append(f"{share:.3f} of {goal.straight[0]}")
    if goal.within is not None:
        header = int.from_bytes(_raw(pair)[:8], "little")
        if nbytes >= goal.within + header:
            wrong.append(f"{nbytes - header} B beside the header")
    if goal.unrelated:
        n_tensors = len(data.tensors(pair.target))
        over = nbytes - alone(pair, "default", folder)
        if over > 256 + n_tensors / 4:
            wrong.append(f"{over} B above the target alone")
    return wrong


def asked(pair: Pair) -> str:
    """Say what is asked of a pair."""
    goal = pair.goal
    if goal.ratio is not None:
        return f"{goal.ratio:g}"
    if goal.against_best is not None:
        return f"{goal.against_best:g} × the best" if goal.against_best > 1 else "the smallest"
    if goal.straight is not None:
        return f"{goal.straight[1]:g} of {goal.straight[0]}"
    if goal.within is not None:
        return f"header + {goal.within} B"
    return "alone + 256 B + 2 bits a tensor" if goal.unrelated else "–"


def sizes(args: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], bool]:
    """Measure rivals where that is asked for, then z4ai; print the table."""
    cache, pythons = SizeCache(args.cache), rivals.pythons(args)
    tiers = [tier for tier in args.tiers.split(",") if tier]
    rows: list[dict[str, Any]] = []
    ratios: dict[str, dict[str, float]] = {tier: {} for tier in tiers}
    with tempfile.TemporaryDirectory(prefix="z4ai-bench-") as name:
        scratch = Path(name)
        for pair in selected(args, folder):
            key = key_of(pair)
            if args.rivals or args.python:
                cache.measure(key, pair.target, pythons, args.names.split(","), pair.base)
            theirs = cache.sizes(key)
            ours = {tier: our_size(pair, tier, scratch) for tier in tiers}
            raw = pair.target.stat().st_size
            row: dict[str, Any] = {"pair": pair.name, "group": pair.group, "nbytes": raw}
            row |= {"asked": asked(pair), "rivals": theirs, "z4ai": ours, "wrong": []}
            for tier, nbytes in ours.items():
                ratios[tier][pair.name] = raw / nbytes
            if "default" in ours:
                given = (ours["default"], theirs, scratch, ratios["default"])
                row["wrong"] = shortcomings(pair, *given)
            rows.append(row)
            print(json.dumps(row, ensure_ascii=False), file=sys.stderr)
    cache.close()
    lines = [cells_of(row, tiers) for row in rows]
    head = ["pair", "bytes", *RIVALS, "best rival", *(f"z4ai {t}" for t in tiers), "asked for"]
    measure.print_markdown([*head, "verdict"], lines, "deltas", args.into)
    good = not any(row["wrong"] for row in rows)
    for group in dict.fromkeys(row["group"] for row in rows):
        good &= _mean(group, rows, tiers)
    return rows, good


def _mean(group: str, rows: Sequence[dict[str, Any]], tiers: Sequence[str]) -> bool:
    """Print the geometric mean of z4ai by the best rival over a group; tell whether it will do."""
    good = True
    mine = [row for row in rows if row["group"] == group and row["rivals"]]
    for tier in tiers if mine else ():
        mean = geometric_mean(row["z4ai"][tier] / min(row["rivals"].values()) for row in mine)
        goal = MEAN_GOAL if (group, tier) == ("training", "default") else None
        verdict = "" if goal is None else f", at most {goal}: {'yes' if mean <= goal else 'NO'}"
        print(f"{group}, {len(mine)} pairs: {tier} by the best rival {mean:.4f}{verdict}")
        good &= goal is None or mean <= goal
    return good


def cells_of(row: dict[str, Any], tiers: Sequence[str]) -> list[str]:
    raw, theirs, ours = row["nbytes"], row["rivals"], row["z4ai"]

    def ratio(found: dict[str, int], name: str) -> str:
        return shown(raw / found[name]) if name in found else "–"

    best = min(theirs, key=lambda name: theirs[name], default="")
    cells = [row["pair"], f"{raw:,}", *(ratio(theirs, name) for name in RIVALS)]
    cells.append(f"{best} {ratio(theirs, best)}" if best else "–")
    cells += [ratio(ours, tier) for tier in tiers]
    verdict = "pass" if "default" in ours and row["asked"] != "–" else ""
    return [*cells, row["asked"], "; ".join(row["wrong"]) or verdict]


def shown(ratio: float) -> str:
    """Write a ratio with four digits or so."""
    return f"{ratio:.3f}" if ratio < 10 else f"{ratio:.2f}" if ratio < 100 else f"{ratio:,.0f}"


def selected(args: argparse.Namespace, folder: Path) -> Iterator[Pair]:
    """Yield the pairs whose name or group is asked for."""
    # Those that others are held against come first.
    found = sorted(pairs(args.folder, folder), key=lambda p: p.name not in STRAIGHT.values())
    for pair in found:
        if any(fnmatch.fnmatch(word, args.only) for word in (pair.name, pair.group)):
            yield pair


# --- Speed ------------------------------------------------------------------------------------


def race(pair: Pair, op: str, workers: dict[str, Worker], rounds: int) -> dict[str, Row]:
    """Run one operation of all workers in turns; print and return their rows."""
    nbytes = pair.target.stat().st_size
    rows = {name: Row(name, nbytes) for name in workers}
    contenders = [
        (rows[name], lambda worker=worker: worker.run(f"{op}_delta"))
        for name, worker in workers.items()
    ]
    measure.take_turns(contenders, rounds)
    measure.print_rows(list(rows.values()), f"{op}, one thread, {pair.name}, {nbytes} bytes")
    return rows


@contextmanager
def opened(pair: Pair, wanted: dict[str, Any], args: argparse.Namespace) -> Iterator[Any]:
    """Start the workers that are there, one process each, and give them the pair."""
    pythons = rivals.pythons(args)
    workers: dict[str, Worker] = {}
    try:
        for name, options in wanted.items():
            try:
                worker = Worker(name.partition(",")[0], pythons, threads=1, **options)
            except Missing as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            workers[name] = worker
            worker.load_pair(pair.target, pair.base)
        yield workers
    finally:
        for worker in workers.values():
            worker.close()


def speed(args: argparse.Namespace, folder: Path) -> tuple[dict[str, Any], bool]:
    """Race z4ai and lmzip on one pair, and z4ai with itself; print the tables."""
    found = {pair.name: pair for pair in pairs(args.folder, folder)}
    ours: dict[str, Any] = {"effort": "default"}
    results: dict[str, Any] = {}
    comparisons: list[Comparison] = []
    lines: list[list[str]] = []
    good = True
    with opened(found[SPEED], {"z4ai": ours, "lmzip": {}}, args) as workers:
        for op, (goal, times) in SPEED_GOALS.items():
            rows = results[op] = race(found[SPEED], op, workers, args.rounds)
            rate = rows["z4ai"].best * 1000
            good &= rate >= goal
            cells = [op, f"{rate:.0f}", f"{goal}"]
            if "lmzip" in rows:
                c = Comparison(f"{op} / lmzip", rows["z4ai"], rows["lmzip"], times)
                comparisons.append(c)
                cells += [f"{c.against.best * 1000:.0f}", f"{c.best:.1f}, {c.paired:.1f}"]
                cells.append(f"{times:g}")
            lines.append([*cells, *["–"] * (6 - len(cells))])
    head = ["", "z4ai, MB/s", "at least", "lmzip, MB/s", "times: of best, paired", "at least"]
    measure.print_markdown(head, lines, "delta speed", args.into)
    lines = []
    for name in STRAIGHT.values():
        wanted = {"z4ai": ours, "z4ai, no search": {**ours, "low_rank": False}}
        with opened(found[name], wanted, args) as workers:
            rows = results[f"search, {name}"] = race(found[name], "encode", workers, args.rounds)
        plain, searched = rows["z4ai, no search"], rows["z4ai"]
        if plain.encoded_nbytes != searched.encoded_nbytes:
            raise SystemExit(f"{name}: the search found something")
        # What it costs: the others' time by that without it.
        c = Comparison(f"encode without / with the search, {name}", plain, searched)
        comparisons.append(c)
        good &= max(c.best, c.paired) <= SEARCH_GOAL
        cells = [name, *(f"{row.best * 1000:.0f}" for row in (plain, searched))]
        lines.append([*cells, f"{c.best:.3f}, {c.paired:.3f}", f"{SEARCH_GOAL:g}"])
    head = ["encode", "without, MB/s", "with, MB/s", "cost: of best, paired", "at most"]
    measure.print_markdown(head, lines, "delta search", args.into)
    measure.print_comparisons(comparisons)
    good &= all(c.met for c in comparisons)
    return {"rows": results, "comparisons": comparisons}, good


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the corpus (or its st/ folder)")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="JSON of the rivals' sizes")
    parser.add_argument("--tiers", default="default")
    parser.add_argument("--names", default=",".join(RIVALS), help="rivals to measure")
    parser.add_argument("--only", default="*", help="glob of pairs or of groups of them")
    parser.add_argument("--speed", action="store_true", help="speed instead of sizes")
    parser.add_argument("--made", type=Path, metavar="DIR", help="keep the files made of others")
    measure.rounds_option(parser)
    measure.into_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    if (args.folder / "st").is_dir():
        args.folder = args.folder / "st"
    with folder_of(args.made) as folder:
        results, good = (speed if args.speed else sizes)(args, folder)
    measure.write_json(args.json, {"benchmark": "deltas", "results": results})
    return int(not good)


@contextmanager
def folder_of(kept: Path | None) -> Iterator[Path]:
    """Hold the folder of files that are made."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="z4ai-bench-") as name:
        yield Path(name)


if __name__ == "__main__":
    raise SystemExit(main())
