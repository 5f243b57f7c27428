"""Speed and size of buffers against ZipNN and memcpy, one thread and two.

    python bench/e2e/buffers.py --corpus DIR --rivals DIR [--dtypes bf16,fp16,fp32] [--json FILE]

DIR of the corpus holds the .safetensors files; without it, seeded weights are used. What a row's
name says about its output decides its speed as much as the codec does:

fresh
    The call allocates its output, on pages that the process has not touched. Without huge pages
    the system maps them 4 KiB at a time, which costs about as much as decoding.
into out=
    Decoded into a buffer given by the caller, already mapped.
recycled
    ZipNN has no such argument; its allocator is told never to return memory, so that its outputs
    land on pages already mapped: the best it can do.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import data, measure, rivals
from bench.measure import Comparison, Row

MODELS = ("minilm", "craft", "crepe_full")
SUFFIX = {"bf16": ".bf16", "fp16": ".fp16", "fp32": ""}
# Goals of speed: decode fresh, decode into out=, encode.
GOALS = {"bf16": (1.7, 2.2, 2.0), "fp16": (1.3, None, 1.3), "fp32": (1.3, None, 1.3)}
SIZE_GOALS = {"bf16": 1.0005, "fp16": 1.0, "fp32": 1.0}
MEMCPY_GOAL = 0.3
TWO_THREADS_GOAL = 1.7


def contents(corpus: Path | None, dtype: str) -> list[tuple[str, bytes]]:
    """Return (name, tensor data) of each file; of one seeded buffer without a corpus."""
    if corpus is None:
        return [(f"seeded {dtype}", data.weights_of(dtype, 48 << 20))]
    code = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}[dtype]
    paths = [corpus / f"{model}{SUFFIX[dtype]}.safetensors" for model in MODELS]
    return [(path.name.removesuffix(".safetensors"), data.float_data(path, code)) for path in paths]


class Lane:
    """A contender: a worker and the operation it runs."""

    def __init__(self, name: str, op: str, worker: rivals.Worker) -> None:
        self.name = name
        self.op = op
        self.worker = worker


def race(lanes: list[Lane], files: list[tuple[str, bytes]], dtype: str, rounds: int) -> tuple:
    """Run all lanes over all files; return rows by lane and sizes by (codec, file)."""
    totals: dict[str, Row] = {}
    sizes: dict[tuple[str, str], int] = {}
    for name, content in files:
        with measure.input_file(content) as path:
            for lane in lanes:
                sizes[lane.worker.name, name] = lane.worker.load(path, dtype)
        rows = [Row(lane.name, len(content)) for lane in lanes]
        calls = [lambda lane=lane: lane.worker.run(lane.op) for lane in lanes]
        measure.take_turns(list(zip(rows, calls, strict=True)), rounds)
        for row in rows:
            totals[row.name] = totals[row.name].summed(row) if row.name in totals else row
    return totals, sizes


def bench(args: argparse.Namespace, dtype: str, threads: int) -> dict[str, Any]:
    files = contents(args.corpus, dtype)
    pythons = rivals.pythons(args)
    decode_lanes: list[Lane] = []
    encode_lanes: list[Lane] = []
    workers: list[rivals.Worker] = []

    # Each lane has a process of its own: what one leaves in its heap does not help another.
    def lane(lanes: list[Lane], label: str, op: str, codec: str, **options: Any) -> None:
        worker = rivals.Worker(codec, pythons, **options)
        workers.append(worker)
        lanes.append(Lane(label, op, worker))

    tag = f", {threads} threads" if threads > 1 else ""
    codec = args.codec
    ours: dict[str, Any] = {"effort": args.effort, "threads": threads}
    if codec != "z4ai":
        ours = {"threads": threads}
    try:
        lane(decode_lanes, f"{codec} decode, fresh{tag}", "decode", codec, **ours)
        if "decode_into" in workers[-1].ops:
            lane(decode_lanes, f"{codec} decode, into out={tag}", "decode_into", codec, **ours)
        lane(encode_lanes, f"{codec} encode{tag}", "encode", codec, **ours)
        if threads > 1:
            one = {**ours, "threads": 1}
            lane(decode_lanes, f"{codec} decode, fresh", "decode", codec, **one)
            if "decode_into" in workers[-1].ops:
                lane(decode_lanes, f"{codec} decode, into out=", "decode_into", codec, **one)
            lane(encode_lanes, f"{codec} encode", "encode", codec, **one)
        if "zipnn" in pythons:
            for suffix, recycle in (("fresh", False), ("recycled", True)):
                label = f"ZipNN decode, {suffix}{tag}"
                lane(decode_lanes, label, "decode", "zipnn", threads=threads, recycle=recycle)
                label = f"ZipNN encode, {suffix}{tag}"
                lane(encode_lanes, label, "encode", "zipnn", threads=threads, recycle=recycle)
        lane(decode_lanes, "memcpy, fresh", "decode", "memcpy")
        lane(decode_lanes, "memcpy, into out=", "decode_into", "memcpy")
        decode, sizes = race(decode_lanes, files, dtype, args.rounds)
        encode, _ = race(encode_lanes, files, dtype, args.rounds)
    finally:
        for worker in workers:
            worker.close()

    rows = {**decode, **encode}
    total = sum(len(content) for _, content in files)
    measure.print_rows(list(rows.values()), f"{dtype}, {threads} thread(s), {total} bytes")
    comparisons = list(compare(rows, dtype, threads, codec))
    measure.print_comparisons(comparisons)
    result = {"dtype": dtype, "threads": threads, "rows": list(rows.values())}
    result["comparisons"] = comparisons
    if threads == 1:
        result["sizes"] = print_sizes(files, sizes, dtype, codec)
    return result


def compare(rows: dict[str, Row], dtype: str, threads: int, codec: str) -> list[Comparison]:
    tag = f", {threads} threads" if threads > 1 else ""
    fresh_goal, into_goal, encode_goal = GOALS[dtype] if threads == 1 else (None, None, None)
    wanted: list[tuple[str, str, str, float | None]] = []
    for against in ("fresh", "recycled"):
        theirs = f"ZipNN decode, {against}{tag}"
        goals = (fresh_goal, into_goal, encode_goal) if against == "fresh" else (None, None, None)
        fresh, into = f"{codec} decode, fresh{tag}", f"{codec} decode, into out={tag}"
        wanted += [
            (f"decode fresh / ZipNN {against}", fresh, theirs, goals[0]),
            (f"decode into out= / ZipNN {against}", into, theirs, goals[1]),
            (
                f"encode / ZipNN {against}",
                f"{codec} encode{tag}",
                f"ZipNN encode, {against}{tag}",
                goals[2],
            ),
        ]
    memcpy_goal = MEMCPY_GOAL if (dtype, threads) == ("bf16", 1) else None
    wanted += [
        ("decode fresh / memcpy fresh", f"{codec} decode, fresh{tag}", "memcpy, fresh", None),
        (
            "decode into out= / memcpy into out=",
            f"{codec} decode, into out={tag}",
            "memcpy, into out=",
            memcpy_goal,
        ),
    ]
    if threads > 1:
        goal = TWO_THREADS_GOAL if threads == 2 else None
        for kind in ("decode, fresh", "decode, into out=", "encode"):
            label = f"{kind.replace(',', '')}: {threads} threads / 1"
            wanted.append((label, f"{codec} {kind}{tag}", f"{codec} {kind}", goal))
    return [
        Comparison(label, rows[ours], rows[theirs], goal)
        for label, ours, theirs, goal in wanted
        if ours in rows and theirs in rows
    ]


def print_sizes(
    files: list[tuple[str, bytes]], sizes: dict[tuple[str, str], int], dtype: str, codec: str
) -> list[dict[str, Any]]:
    lines, result = [], []
    for name, content in files:
        ours, theirs = sizes[codec, name], sizes.get(("zipnn", name))
        result.append({"file": name, "content": len(content), "z4ai": ours, "zipnn": theirs})
        line = [name, str(len(content)), str(ours), f"{len(content) / ours:.4f}"]
        if theirs is not None:
            ratio = ours / theirs
            met = "yes" if ratio <= SIZE_GOALS[dtype] else "NO"
            line += [str(theirs), f"{ratio:.5f}", f"<= {SIZE_GOALS[dtype]:g}", met]
        else:
            line += ["", "", "", ""]
        lines.append(line)
    head = ["sizes", "content", codec, "ratio", "ZipNN", f"{codec}/ZipNN", "goal", "met"]
    measure.print_table(head, lines, " ")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, help="folder of the corpus (or its st/ folder)")
    parser.add_argument("--dtypes", default="bf16,fp16,fp32")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--effort", default="fast")
    parser.add_argument(
        "--codec", default="z4ai", help="another adapter in z4ai's place, to try the harness"
    )
    measure.rounds_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    if args.corpus and (args.corpus / "st").is_dir():
        args.corpus = args.corpus / "st"
    results = [
        bench(args, dtype, int(threads))
        for dtype in args.dtypes.split(",")
        for threads in args.threads.split(",")
    ]
    measure.write_json(args.json, {"benchmark": "buffers", "results": results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
