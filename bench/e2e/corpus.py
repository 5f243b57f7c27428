"""Sizes of whole .safetensors files: each tier, and the rivals that are found.

    python bench/e2e/corpus.py DIR --rivals DIR [--efforts fast,balanced,max] [--json FILE]

Codecs of files get the file. Codecs of buffers get, for each dtype that they know, the data of all
its tensors joined in file order; what they do not know counts as it is, and so does the header.
Every result is restored and compared, except by codecs of files that give tensors back and not
the file (their rows are marked with a star).
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import data, measure, rivals

FILE_CODECS = ("lmzip", "bigsmall")
BUFFER_CODECS = ("zipnn", "openzl", "pcodec", "blosc2", "zstandard")
STARRED = ("bigsmall",)


def digest(path: Path) -> bytes:
    return hashlib.blake2b(path.read_bytes()).digest()


def by_file(worker: rivals.Worker, path: Path, folder: Path, starred: bool) -> dict[str, Any]:
    """Return size and times of a codec that takes the file."""
    coded, back = folder / "coded", folder / "back.safetensors"
    try:
        encode = worker.run("encode_file", src=str(path), dst=str(coded))
        decode = worker.run("decode_file", src=str(coded), dst=str(back))
        if not starred and digest(path) != digest(back):
            raise RuntimeError(f"{worker.name} did not restore {path.name}")
        return {
            "nbytes": encode.encoded_nbytes,
            "encode": encode.seconds,
            "decode": decode.seconds,
        }
    finally:
        coded.unlink(missing_ok=True)
        back.unlink(missing_ok=True)


def by_buffer(worker: rivals.Worker, path: Path) -> dict[str, Any]:
    """Return size and times of a codec that takes buffers of one dtype."""
    total = path.stat().st_size
    seconds = {"encode": 0.0, "decode": 0.0}
    for code in sorted({dtype for _, dtype, _, _, _ in data.tensors(path)}):
        content = data.float_data(path, code)
        if code not in data.FLOAT_CODES or not content:
            continue
        with measure.input_file(content) as given:
            try:
                encoded = worker.load(given, data.FLOAT_CODES[code][0])
            except RuntimeError as error:
                if "ValueError" not in str(error):  # does not know this dtype
                    raise
                continue
            total += min(encoded - len(content), 0)
            for op in seconds:
                seconds[op] += worker.run(op).seconds
    return {"nbytes": total, **seconds}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--efforts", default="fast,balanced,max")
    parser.add_argument("--only", default="*", help="glob of file names, without the suffix")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--times", action="store_true", help="show seconds (one run: rough)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    rivals.add_options(parser)
    args = parser.parse_args()
    folder = args.folder / "st" if (args.folder / "st").is_dir() else args.folder
    paths = sorted(folder.glob(f"{args.only}.safetensors"))
    if not paths:
        parser.error(f"no {args.only}.safetensors in {folder}")
    pythons = rivals.pythons(args)
    columns: dict[str, dict[str, Any]] = {p.name.removesuffix(".safetensors"): {} for p in paths}
    names: list[str] = []

    def fill(name: str, codec: str, **options: Any) -> None:
        try:
            worker = rivals.Worker(codec, pythons, threads=args.threads, **options)
        except rivals.Missing as error:
            print(f"left out: {error}", file=sys.stderr)
            return
        names.append(name)
        with worker, tempfile.TemporaryDirectory() as scratch:
            for path, column in zip(paths, columns.values(), strict=True):
                try:
                    if codec in BUFFER_CODECS:
                        column[name] = by_buffer(worker, path)
                    else:
                        column[name] = by_file(worker, path, Path(scratch), codec in STARRED)
                except RuntimeError as error:
                    print(f"{path.name}: {error}", file=sys.stderr)

    for effort in filter(None, args.efforts.split(",")):
        fill(f"z4ai {effort}", "z4ai", effort=effort)
    for codec in (*BUFFER_CODECS, *FILE_CODECS):
        fill(codec + ("*" if codec in STARRED else ""), codec)

    raw = {p.name.removesuffix(".safetensors"): p.stat().st_size for p in paths}
    lines = []
    for file, column in columns.items():
        line = [file, str(raw[file])]
        for name in names:
            cell = f"{raw[file] / column[name]['nbytes']:.4f}" if name in column else "-"
            if args.times and name in column:
                cell += f" {column[name]['encode']:.2f}/{column[name]['decode']:.2f}s"
            line.append(cell)
        lines.append(line)
    measure.print_table(["file", "bytes", *names], lines, "ratio (original / compressed)")
    lines = [
        [file, *(str(column[n]["nbytes"]) if n in column else "-" for n in names)]
        for file, column in columns.items()
    ]
    measure.print_table(["file", *names], lines, "bytes")
    measure.write_json(args.json, {"benchmark": "corpus", "original": raw, "files": columns})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
