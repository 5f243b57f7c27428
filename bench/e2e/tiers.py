"""Speed of every tier and instruction set against ZipNN; what max gains and costs over default.

    python bench/e2e/tiers.py --corpus DIR --rivals DIR [--json FILE]          speed
    python bench/e2e/tiers.py --corpus DIR --files [--only GLOB]               max over default

Speed: the bf16 data of the corpus (125 MiB) in memory, one thread, every output fresh, all checks
on. The default tier runs three times: as it chooses, and held to AVX2 and to scalar code. What is
asked of max holds where it tries neither brotli nor zstd -19: ``--only 'minilm*' --lane max``. With
``--files`` each file is compressed and restored in memory by both tiers, safetensors in and out;
there the fastest of a few rounds is quoted, for it is a table of costs and not a race.
"""

from __future__ import annotations

import argparse
import fnmatch
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import measure, rivals
from bench.e2e.buffers import Lane, contents, race
from bench.e2e.sizes import inputs
from bench.measure import Comparison, Row
from bench.rivals import Missing, Worker

# Lane, options of z4ai, goals of decoding and encoding against ZipNN.
LANES: list[tuple[str, dict[str, Any], float | None, float | None]] = [
    ("fast", {"effort": "fast"}, 1.7, 2.0),
    ("default", {"effort": "default"}, 1.4, 1.0),
    ("max", {"effort": "max"}, 0.6, 0.1),
    ("default, avx2", {"effort": "default", "isa": "avx2"}, 1.1, None),
    ("default, scalar", {"effort": "default", "isa": "scalar"}, 0.3, None),
]
ZIPNN = "ZipNN"


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Race all lanes, decoding and then encoding; print rows and comparisons."""
    pythons = rivals.pythons(args)
    files = [f for f in contents(args.corpus, "bf16") if fnmatch.fnmatch(f[0], args.only)]
    if not files:
        raise SystemExit(f"no {args.only} among the files in bf16")
    wanted = [(name, "z4ai", options) for name, options, _, _ in LANES if name in args.lanes]
    wanted.append((ZIPNN, "zipnn", {}))
    rows: dict[str, dict[str, Row]] = {}
    for op in ("decode", "encode"):
        lanes: list[Lane] = []
        try:
            # Each lane has a process of its own: what one leaves in its heap helps no other.
            for name, codec, options in wanted:
                try:
                    worker = Worker(codec, pythons, threads=1, **options)
                except (Missing, RuntimeError) as error:
                    print(f"left out: {name}: {error}", file=sys.stderr)
                    continue
                lanes.append(Lane(name, op, worker))
            rows[op], _ = race(lanes, files, "bf16", args.rounds)
        finally:
            for lane in lanes:
                lane.worker.close()
        total = sum(len(content) for _, content in files)
        title = f"{op}, one thread, fresh output, {total} bytes of bf16"
        measure.print_rows(list(rows[op].values()), title)
    comparisons = [
        Comparison(f"{op}, {name} / ZipNN", rows[op][name], rows[op][ZIPNN], goal)
        for op, k in (("decode", 0), ("encode", 1))
        for name, _, *goals in LANES
        for goal in [goals[k]]
        if name in rows[op] and ZIPNN in rows[op]
    ]
    measure.print_comparisons(comparisons)
    by_label = {c.label: c for c in comparisons}
    table = []
    for name in args.lanes:
        cells = [name]
        for op in ("decode", "encode"):
            c = by_label.get(f"{op}, {name} / ZipNN")
            cells.append(f"{rows[op][name].best:.2f}" if name in rows[op] else "–")
            cells.append(f"{c.best:.2f}, {c.paired:.2f}" if c else "–")
            cells.append("–" if c is None or c.goal is None else f"{c.goal:g}")
        table.append(cells)
    head = ["tier", "decode GB/s", "/ ZipNN: of best, paired", "at least"]
    head += ["encode GB/s", "/ ZipNN: of best, paired", "at least"]
    measure.print_markdown(head, table, "tiers", args.into)
    sizes = {name: row.encoded_nbytes for name, row in rows["encode"].items()}
    lines = [[name, str(size), f"{total / size:.4f}"] for name, size in sizes.items()]
    measure.print_table(["sizes", "bytes", "ratio"], lines, " ")
    return {"rows": rows, "comparisons": comparisons, "sizes": sizes}


def of_files(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Compress and restore each file by both tiers, in turns; print what max gains and costs."""
    shared = "/dev/shm" if Path("/dev/shm").is_dir() else None
    results: list[dict[str, Any]] = []
    with (
        inputs(args.corpus, args.only) as files,
        tempfile.TemporaryDirectory(dir=shared, prefix="z4ai-bench-") as folder,
        Worker("z4ai", {}, threads=1, effort="default") as default,
        Worker("z4ai", {}, threads=1, effort="max") as most,
    ):
        for file in files:
            if file.path.suffix != ".safetensors":
                continue
            result: dict[str, Any] = {"file": file.name, "nbytes": file.path.stat().st_size}
            for _ in range(args.file_rounds):
                for worker, tier in ((default, "default"), (most, "max")):
                    coded, back = f"{folder}/{tier}", f"{folder}/back"
                    encode = worker.run("encode_file", src=str(file.path), dst=coded)
                    decode = worker.run("decode_file", src=coded, dst=back)
                    if Path(back).read_bytes() != file.path.read_bytes():
                        raise SystemExit(f"{file.name}, {tier}: not restored")
                    Path(back).unlink()
                    Path(coded).unlink()
                    entry = result.setdefault(tier, {"encode": [], "decode": []})
                    entry["nbytes"] = encode.encoded_nbytes
                    entry["encode"].append(encode.seconds)
                    entry["decode"].append(decode.seconds)
            results.append(result)
            print(result, file=sys.stderr)
    lines = []
    for result in results:
        a, b = result["default"], result["max"]
        cells = [result["file"], f"{a['nbytes']:,}", f"{b['nbytes']:,}"]
        cells.append(f"{1 - b['nbytes'] / a['nbytes']:.2%}")
        for op in ("encode", "decode"):
            before, after = min(a[op]), min(b[op])
            cells += [f"{before:.3f}", f"{after:.3f}", f"{after / before:.1f} ×"]
        cells.append("yes" if b["nbytes"] <= a["nbytes"] else "NO")
        lines.append(cells)
    head = ["file", "default, B", "max, B", "smaller by", "encode, s", "max", "cost"]
    head += ["decode, s", "max", "cost", "not larger"]
    measure.print_markdown(head, lines, "max", args.into)
    return results


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="folder of the corpus (or its st/ folder)")
    parser.add_argument("--files", action="store_true", help="the table of max over default")
    parser.add_argument("--only", default="*", help="glob of file names, without the suffix")
    parser.add_argument("--file-rounds", type=int, default=3, help="rounds of --files")
    names = [name for name, *_ in LANES]
    parser.add_argument("--lane", action="append", dest="lanes", choices=names, help="only these")
    measure.rounds_option(parser)
    measure.into_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    args.lanes = args.lanes or names
    if args.corpus and (args.corpus / "st").is_dir():
        args.corpus = args.corpus / "st"
    if args.files:
        if args.corpus is None:
            parser.error("--files needs --corpus")
        results: Any = of_files(args)
        wrong = [r["file"] for r in results if r["max"]["nbytes"] > r["default"]["nbytes"]]
    else:
        results = speed(args)
        wrong = [c.label for c in results["comparisons"] if c.goal and not c.met]
    measure.write_json(args.json, {"benchmark": "tiers", "results": results})
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
