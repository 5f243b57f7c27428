"""Sizes of whole files: every tier of z4ai, and the smallest file of every rival.

    python bench/e2e/sizes.py DIR --cache FILE --rivals DIR --tiers ''    measures rivals, once
    python bench/e2e/sizes.py DIR --cache FILE                            the table, rivals cached

Files in and out, everything counted, by the command line and its own choice for each kind of file.
Beside the corpus stands a tensor of normal bf16 of 16 MiB. Each file of z4ai is restored and
compared. `rivals/smallest.py` says in which ways a rival is tried: the smallest one counts. A file
passes where the default tier has the ratio asked for, or, if none is, is not larger than any
rival, and the tiers are in order.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import data, measure, rivals, structured
from bench.rivals.cache import RIVALS, SizeCache
from z4ai.cli import main as command

GAUSSIAN = "normal 0.02 bf16"
# Ratios of the default tier asked for.
GOALS = {
    "minilm.bf16": 1.522,
    "minilm.fp16": 1.184,
    "minilm": 1.224,
    "minilm.fp8e4m3": 1.328,
    "minilm.int8pc": 1.102,
    "craft.bf16": 1.523,
    "crepe_full.bf16": 1.54,
    "crepe_full": 1.645,
    "english_g2": 1.206,
    "piper_joe": 1.203,
    "wordllama": 1.184,
    "silero_vad": 1.323,
    "fracast": 1.195,
    GAUSSIAN: 1.526,
}


class Input(NamedTuple):
    name: str
    path: Path
    content: str  # dtypes of the data, most first


def describe(path: Path) -> str:
    """Say what a file holds: its dtypes, most bytes first, and its size."""
    nbytes = path.stat().st_size
    shares: dict[str, int] = {}
    if path.suffix == ".safetensors":
        for _, code, _, start, end in data.tensors(path):
            shares[code] = shares.get(code, 0) + end - start
    by_share = sorted(shares, key=lambda code: -shares[code])
    large = [code for code in by_share if shares[code] > nbytes / 50]
    kind = "+".join(large) or path.suffix[1:].upper()
    return f"{kind}, {nbytes:,} B"


@contextmanager
def inputs(folder: Path, only: str = "*") -> Iterator[list[Input]]:
    """Hold the files of the corpus and the generated one."""
    folder = folder / "st" if (folder / "st").is_dir() else folder
    paths = [p for s in ("safetensors", "gguf") for p in sorted(folder.glob(f"{only}.{s}"))]
    with tempfile.TemporaryDirectory(prefix="z4ai-bench-") as name:
        made = Path(name) / f"{GAUSSIAN}.safetensors"
        if made.match(f"{only}.safetensors"):
            content = structured.normal_bf16(16 << 20)
            made.write_bytes(structured.safetensors("weight", "BF16", (2048, 4096), content))
            paths.append(made)
        yield [Input(p.name.removesuffix(".safetensors"), p, describe(p)) for p in paths]


def our_size(file: Input, tier: str, folder: Path) -> int:
    """Return the size of the file that z4ai makes; SystemExit if it does not give the file back."""
    coded, back = folder / "coded", folder / "back"
    quiet = ["-q", "-f"]
    failed = command(["compress", *quiet, "--effort", tier, "-o", str(coded), str(file.path)])
    nbytes = 0 if failed else coded.stat().st_size
    failed = failed or command(["decompress", *quiet, "-o", str(back), str(coded)])
    if failed or back.read_bytes() != file.path.read_bytes():
        raise SystemExit(f"{file.name}, {tier}: not restored")
    coded.unlink()
    back.unlink()
    return nbytes


def row_of(file: Input, ours: dict[str, int], theirs: dict[str, int]) -> dict[str, Any]:
    """Return one row: sizes, the smallest rival, and what is not as it should be."""
    raw = file.path.stat().st_size
    goal = GOALS.get(file.name)
    wrong = []
    if "default" in ours:
        size = ours["default"]
        if goal is None:
            wrong += measure.beaten_by(size, theirs)
        elif raw / size < goal:
            wrong.append(f"below {goal}")
        if size > ours.get("fast", size):
            wrong.append("larger than fast")
        if ours.get("max", 0) > size:
            wrong.append("max larger than default")
    return {"file": file.name, "content": file.content, "nbytes": raw, "goal": goal} | {
        "rivals": theirs,
        "z4ai": ours,
        "wrong": wrong,
    }


def cells_of(row: dict[str, Any], tiers: list[str]) -> list[str]:
    raw, theirs, ours = row["nbytes"], row["rivals"], row["z4ai"]

    def ratio(sizes: dict[str, int], name: str) -> str:
        return f"{raw / sizes[name]:.4f}" if name in sizes else "–"

    best = min(theirs, key=lambda name: theirs[name], default="")
    cells = [row["file"], row["content"], *(ratio(theirs, name) for name in RIVALS)]
    cells.append(f"{best} {ratio(theirs, best)}" if best else "–")
    cells += [ratio(ours, tier) for tier in tiers]
    cells.append("–" if row["goal"] is None else f"{row['goal']:g}")
    verdict = "pass" if "default" in ours else ""
    cells.append("; ".join(row["wrong"]) or verdict)
    return cells


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cache", type=Path, metavar="FILE", help="JSON of the rivals' sizes")
    parser.add_argument("--tiers", default="fast,default,max")
    parser.add_argument("--names", default=",".join(RIVALS), help="rivals to measure")
    parser.add_argument("--only", default="*", help="glob of file names, without the suffix")
    parser.add_argument("--json", type=Path, metavar="FILE")
    measure.into_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    tiers = [tier for tier in args.tiers.split(",") if tier]
    cache = SizeCache(args.cache)
    pythons = rivals.pythons(args)
    rows = []
    with inputs(args.folder, args.only) as files, tempfile.TemporaryDirectory() as scratch:
        if not files:
            parser.error(f"no {args.only} in {args.folder}")
        keys = {file.name: cache.key(file.name, file.path.read_bytes()) for file in files}
        if pythons:
            for name in args.names.split(","):
                for file in files:
                    cache.measure(keys[file.name], file.path, pythons, [name])
            cache.close()
        for file in files:
            ours = {tier: our_size(file, tier, Path(scratch)) for tier in tiers}
            rows.append(row_of(file, ours, cache.sizes(keys[file.name])))
            print(json.dumps(rows[-1]), file=sys.stderr)
    head = ["file", "content", *RIVALS, "smallest rival", *(f"z4ai {t}" for t in tiers)]
    head += ["at least", "verdict"]
    lines = [cells_of(row, tiers) for row in rows]
    measure.print_markdown(head, lines, "sizes", args.into)
    measure.write_json(args.json, {"benchmark": "sizes", "rows": rows})
    return int(any(row["wrong"] for row in rows))


if __name__ == "__main__":
    raise SystemExit(main())
