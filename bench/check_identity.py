"""Check that output depends neither on the threads nor on the instruction set.

    python bench/check_identity.py DIR [--tiers default] [--threads 1,2,7] [--only GLOB]

Every file of the corpus is compressed by every runnable instruction set (each in a process of its
own, held to it by ``Z4AI_ISA``) with each number of threads: the file as a container, and the data
of each of its dtypes as one frame. The digests must agree, and each instruction set must restore
the file and the frame.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import z4ai
from bench import data, measure
from z4ai._fast import _dispatch
from z4ai.dtypes import resolve
from z4ai.safetensors import compress_file, decompress_file


def digest(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def known(code: str) -> str | None:
    """Return the dtype of a safetensors code; None (opaque) where it is not known."""
    try:
        return resolve(code).name
    except ValueError:
        return None


def digests(path: Path, tier: str, threads: list[int]) -> Iterator[tuple[str, int, str]]:
    """Yield (what, threads, digest of the output) of one file; SystemExit if not restored."""
    raw = path.read_bytes()
    frames: dict[str, tuple[str | None, bytes]] = {"bytes": (None, raw)}
    if path.suffix == ".safetensors":
        codes = sorted({code for _, code, _, _, _ in data.tensors(path)})
        frames = {code: (known(code), data.float_data(path, code)) for code in codes}
        folder = "/dev/shm" if Path("/dev/shm").is_dir() else None
        with tempfile.TemporaryDirectory(dir=folder, prefix="z4ai-bench-") as name:
            coded, back = Path(name) / "coded", Path(name) / "back"
            for n in threads:
                compress_file(path, coded, effort=tier, threads=n)
                yield "file", n, digest(coded.read_bytes())
                decompress_file(coded, back, threads=n)
                if back.read_bytes() != raw:
                    raise SystemExit(f"{path.name}, {tier}, {n} threads: file not restored")
                coded.unlink()
                back.unlink()
    for what, (dtype, content) in frames.items():
        for n in threads:
            blob = z4ai.compress(content, dtype=dtype, effort=tier, threads=n)
            yield what, n, digest(blob)
            if z4ai.decompress(blob, threads=n) != content:
                raise SystemExit(f"{path.name}, {tier}, {n} threads: {what} not restored")


def outputs_of(isa: str, args: argparse.Namespace, path: Path, tier: str) -> list[list[str]]:
    """Run `digests` in a process held to one instruction set."""
    command = [sys.executable, __file__, str(path), "--tiers", tier, "--threads", args.threads]
    env = {**os.environ, "Z4AI_ISA": isa, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [*command, "--one"], env=env, stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{path.name}, {tier}, {isa}: failed")
    found: list[list[str]] = json.loads(done.stdout)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tiers", default="default")
    parser.add_argument("--threads", default="1,2,7")
    parser.add_argument("--only", default="*", help="glob of file names, without the suffix")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        threads = [int(n) for n in args.threads.split(",")]
        print(json.dumps([list(map(str, d)) for d in digests(args.folder, args.tiers, threads)]))
        return 0
    folder = args.folder / "st" if (args.folder / "st").is_dir() else args.folder
    paths = [p for s in ("safetensors", "gguf") for p in sorted(folder.glob(f"{args.only}.{s}"))]
    if not paths:
        parser.error(f"no {args.only} in {folder}")
    lines, differ = [], 0
    for path in paths:
        for tier in args.tiers.split(","):
            found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
            for isa in _dispatch.runnable():
                for what, n, value in outputs_of(isa, args, path, tier):
                    found[what][value].append(f"{isa} {n}")
            for what, by_value in found.items():
                n_outputs = sum(map(len, by_value.values()))
                verdict = "identical" if len(by_value) == 1 else "DIFFER"
                if len(by_value) > 1:
                    differ += 1
                    groups = " | ".join(", ".join(names) for names in by_value.values())
                    print(f"{path.name}, {tier}, {what}: {groups}", file=sys.stderr)
                lines.append([path.name, tier, what, str(n_outputs), verdict])
    measure.print_table(["file", "tier", "what", "outputs", "digests"], lines)
    print(f"instruction sets: {', '.join(_dispatch.runnable())}; threads: {args.threads}")
    print(f"{len(lines) - differ} of {len(lines)} identical")
    return int(differ > 0)


if __name__ == "__main__":
    raise SystemExit(main())
