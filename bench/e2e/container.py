"""Memory and time of whole files: compress_file, decompress_file, one small tensor read alone.

    python bench/e2e/container.py FOLDER [--gigabytes 3] [--threads 2] [--json FILE]

A seeded bf16 .safetensors of that size is written to FOLDER piece by piece (and kept, so that a
second run need not). Each step runs in a process of its own, which samples its RssAnon (anonymous
memory: pages of a mapped file do not count) and reports the peak above what it held when z4ai had
been imported. The restored file is compared with the original by hash.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import data, measure

SMALL = "model.norm.weight"
MIB = 1 << 20
PEAK_GOAL_MIB = 256
READ_GOAL_MIB = 64
READ_GOAL_MS = 20
PERIOD = 0.002


def generate(path: Path, nbytes: int) -> None:
    """Write a bf16 model of about `nbytes`: large matrices, one tensor of 256 MiB, small ones.

    All matrices come from one seeded block of 64 MiB, but differ element by element: signs and
    fractions are exchanged with those of another place of the block, a different one each time.
    """
    block = data.bf16(data.weights(1, 32768, 1024)).reshape(-1)
    shapes: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (131072, 1024))]
    left = nbytes - 131072 * 1024 * 2
    layer = 0
    while left > 0:
        for name, shape in (("mlp.weight", (8192, 1024)), ("attn.weight", (4096, 1024))):
            shapes.append((f"model.layers.{layer}.{name}", shape))
            left -= shape[0] * shape[1] * 2
        shapes.append((f"model.layers.{layer}.norm.weight", (1024,)))
        layer += 1
    shapes.append((SMALL, (1024,)))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes:
        size = 2 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        step = 0
        for _, shape in shapes:
            count = shape[0] * (shape[1] if len(shape) > 1 else 1)
            while count > 0:
                step += 1
                n = min(count, block.size - 4099 * step % (block.size // 2))
                start = 4099 * step % (block.size // 2)
                other = (start + 977 * step) % (block.size - n + 1)
                piece = (block[start : start + n] & 0x7F80) | (block[other : other + n] & 0x807F)
                file.write(piece.astype("<u2").tobytes())
                count -= n
    partial.rename(path)


def rss_anon() -> int:
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    raise OSError("no RssAnon in /proc/self/status")


class Watch(threading.Thread):
    """Sample RssAnon until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.base = rss_anon()
        self.peak = self.base
        self.samples = 0
        self._done = threading.Event()

    def run(self) -> None:
        while not self._done.wait(PERIOD):
            self.peak = max(self.peak, rss_anon())
            self.samples += 1

    def stop(self) -> int:
        self._done.set()
        self.join()
        return max(self.peak, rss_anon()) - self.base


def child(step: str, options: dict[str, Any]) -> dict[str, Any]:
    """Do one step; runs in a process of its own."""
    from z4ai.safetensors import ZstnReader, compress_file, decompress_file

    src, dst = options.get("src", ""), options.get("dst", "")
    watch = Watch()
    watch.start()
    start = time.perf_counter()
    if step == "compress":
        compress_file(src, dst, effort=options["effort"], threads=options["threads"])
    elif step == "decompress":
        decompress_file(src, dst, threads=options["threads"])
    else:
        with ZstnReader.open(src) as reader:
            opened = time.perf_counter()
            array = reader.read_numpy(SMALL)
    seconds = time.perf_counter() - start
    result: dict[str, Any] = {"seconds": seconds, "peak_nbytes": watch.stop()}
    result["samples"] = watch.samples
    if step == "read":
        result["open_seconds"] = opened - start
        result["sha256"] = hashlib.sha256(array.tobytes()).hexdigest()
    return result


def run(step: str, **options: Any) -> dict[str, Any]:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, __file__, "--child", step, json.dumps(options, default=str)]
    text = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout
    result: dict[str, Any] = json.loads(text)
    return result


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        if hasattr(hashlib, "file_digest"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        digest = hashlib.sha256()
        while piece := file.read(1 << 22):
            digest.update(piece)
        return digest.hexdigest()


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2], json.loads(sys.argv[3]))))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--gigabytes", type=float, default=3.0)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--reads", type=int, default=7, help="processes that read the tensor")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    model = args.folder / f"model-{args.gigabytes:g}gb.safetensors"
    if not model.exists():
        print(f"writing {model}", flush=True)
        generate(model, int(args.gigabytes * 1e9))
    small = args.folder / "model.zstn"
    back = args.folder / "restored.safetensors"
    options = {"effort": args.effort, "threads": args.threads}
    compress = run("compress", src=model, dst=small, **options)
    decompress = run("decompress", src=small, dst=back, **options)
    same = sha256(model) == sha256(back)
    back.unlink()
    reads = [run("read", src=small) for _ in range(args.reads)]
    _, _, _, start, end = next(row for row in data.tensors(model) if row[0] == SMALL)
    with model.open("rb") as file:
        file.seek(start)
        expected = hashlib.sha256(file.read(end - start)).hexdigest()
    same_tensor = all(read["sha256"] == expected for read in reads)
    content, encoded = model.stat().st_size, small.stat().st_size
    small.unlink()

    lines = []
    for name, result in (("compress_file", compress), ("decompress_file", decompress)):
        peak = result["peak_nbytes"] / MIB
        met = "yes" if peak <= PEAK_GOAL_MIB else "NO"
        seconds = result["seconds"]
        speed = f"{content / seconds / 1e9:.2f} GB/s"
        goal = f"<= {PEAK_GOAL_MIB} MiB"
        lines.append([name, f"{seconds:.2f} s", speed, f"{peak:.0f} MiB", goal, met])
    best = min(reads, key=lambda r: r["seconds"])
    worst = max(r["peak_nbytes"] for r in reads) / MIB
    met = best["seconds"] * 1e3 <= READ_GOAL_MS and worst <= READ_GOAL_MIB
    lines.append(
        [
            "open + read_numpy",
            f"{best['seconds'] * 1e3:.1f} ms",
            f"open {best['open_seconds'] * 1e3:.1f} ms",
            f"{worst:.0f} MiB",
            f"<= {READ_GOAL_MS} ms, {READ_GOAL_MIB} MiB",
            "yes" if met else "NO",
        ]
    )
    head = ["", "time", "", "peak RssAnon", "goal", "met"]
    measure.print_table(head, lines, f"{content} bytes -> {encoded} ({content / encoded:.4f}x)")
    print(f"restored file identical: {same}; tensor identical: {same_tensor}")
    results = {"compress": compress, "decompress": decompress, "reads": reads}
    sizes = {"content_nbytes": content, "encoded_nbytes": encoded}
    measure.write_json(args.json, {"benchmark": "container", **sizes, **results})
    return 0 if same and same_tensor else 1


if __name__ == "__main__":
    raise SystemExit(main())
