"""A series of checkpoints: its size against single containers and against lmzip's archive of all.

    python bench/e2e/series.py DIR --rivals DIR [--max-depth 8] [--into PAGE]

The checkpoints of bytellama in DIR/train/bytellama (or DIR): weights in fp32, their bf16 copies,
the state of Adam. They are added as a run would, step by step, then all are restored and compared;
files in, files out, one thread. The seconds of adding are those without the check behind each step,
as the others have none. lmzip makes its archive in the ways that `rivals/archive.py` knows, of
which the smallest counts. The series passes if it is smaller than both.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import measure, rivals
from z4ai.safetensors import compress_file, decompress_file
from z4ai.series import Series
from z4ai.series.choice import step_of

SUFFIX = ".safetensors"


def checkpoints(folder: Path) -> list[Path]:
    """List the files in the order in which a run writes them: masters before their copies."""
    inside = folder / "train" / "bytellama"
    paths = sorted((inside if inside.is_dir() else folder).glob(f"*{SUFFIX}"))
    return sorted(paths, key=lambda p: (step_of(p.name) or 0, "bf16" in p.name, p.name))


def series_of(paths: list[Path], folder: Path, max_depth: int) -> dict[str, Any]:
    """Add all, restore all; -> bytes and seconds."""
    series = Series.create(folder / "series", max_depth=max_depth, threads=1)
    start = time.perf_counter()
    for path in paths:
        series.add(path, verify=False)
    made = time.perf_counter()
    for path in paths:
        series.restore(path.name.removesuffix(SUFFIX), folder / "back")
        if (folder / "back").read_bytes() != path.read_bytes():
            raise SystemExit(f"{path.name}: not restored")
    done = time.perf_counter()
    streams: dict[str, dict[str, int]] = {}
    for step in series.ls():
        row = streams.setdefault(step.stream, {"steps": 0, "keyframes": 0, "from": 0, "nbytes": 0})
        row["steps"] += 1
        row["keyframes"] += step.is_keyframe
        row["from"] += step.original_nbytes
        row["nbytes"] += step.encoded_nbytes
    # Everything counts, the manifest too.
    nbytes = sum(path.stat().st_size for path in (folder / "series").iterdir() if path.is_file())
    deepest = max(step.depth for step in series.ls())
    times = {"make": made - start, "restore": done - made}
    return {"nbytes": nbytes, "streams": streams, "deepest": deepest, **times}


def containers_of(paths: list[Path], folder: Path) -> dict[str, Any]:
    """Compress each alone."""
    nbytes = 0
    start = time.perf_counter()
    for path in paths:
        made = compress_file(path, folder / f"{path.stem}.zstn", threads=1)
        nbytes += made["compressed_bytes"]
    between = time.perf_counter()
    for path in paths:
        decompress_file(folder / f"{path.stem}.zstn", folder / "back", threads=1)
    done = time.perf_counter()
    return {"nbytes": nbytes, "make": between - start, "restore": done - between}


def archive_of(paths: list[Path], folder: Path, python: str) -> dict[str, Any]:
    """Let lmzip make its smallest archive."""
    inputs = folder / "inputs"
    inputs.mkdir()
    for path in paths:
        shutil.copyfile(path, inputs / path.name)
    script = Path(rivals.__file__).parent / "archive.py"
    run = subprocess.run([python, script, inputs], check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(run.stdout)
    way = min(found["ways"], key=lambda name: found["ways"][name]["nbytes"])
    return {"way": way, "version": found["version"], **found["ways"][way], "all": found["ways"]}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--max-depth", type=int, default=8)
    parser.add_argument("--json", type=Path, metavar="FILE")
    measure.into_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    paths = checkpoints(args.folder)
    if not paths:
        parser.error(f"no checkpoints in {args.folder}")
    original = sum(path.stat().st_size for path in paths)
    with tempfile.TemporaryDirectory(prefix="z4ai-bench-") as name:
        ours = series_of(paths, Path(name), args.max_depth)
        alone = containers_of(paths, Path(name))
        python = rivals.pythons(args).get("lmzip")
        archive = archive_of(paths, Path(name), python) if python else None
    results = {f"{len(paths)} containers `.zstn`": alone}
    if archive is not None:
        results[f"lmzip {archive['version']}, one archive ({archive['way']})"] = archive
    results[f"z4ai series, {ours['deepest']} steps deep at most"] = ours

    def line(what: str, nbytes: int, row: dict[str, Any]) -> list[str]:
        seconds = [f"{row[key]:.1f}" if key in row else "" for key in ("make", "restore")]
        size, share = row["nbytes"], row["nbytes"] / ours["nbytes"]
        ratio = f"{nbytes / size:,.3f}" if nbytes / size < 1000 else f"{nbytes / size:,.0f}"
        return [what, f"{size:,}", ratio, f"{share:.3f}", *seconds]

    lines = [line(what, original, row) for what, row in results.items()]
    for stream, row in ours["streams"].items():
        what = f"of it {stream}: {row['steps']} steps, {row['keyframes']} of them keyframes"
        lines.append(line(what, row["from"], row))
    head = ["stored as", "bytes", "ratio", "to the series", "make, s", "restore all, s"]
    measure.print_markdown(head, lines, "series", args.into)
    measure.write_json(args.json, {"benchmark": "series", "original": original, "rows": results})
    beaten = [what for what, row in results.items() if row["nbytes"] < ours["nbytes"]]
    print("; ".join(f"larger than {what}" for what in beaten) or "pass", file=sys.stderr)
    return int(bool(beaten))


if __name__ == "__main__":
    raise SystemExit(main())
