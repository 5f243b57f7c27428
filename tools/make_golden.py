"""Add golden files of this version: what this release writes, to be read by every later one.

Only cases that have no file yet are written. A file whose manifest entry has `released` set was
part of a release: it is never written again and never removed, whatever this script is told.
Before a release `--again` writes the unreleased files anew, and `--release VERSION` marks them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT)]

from golden_inputs import content_of  # noqa: E402 - lies beside the tests

import z4ai  # noqa: E402
import z4ai.model_delta  # noqa: E402
import z4ai.safetensors  # noqa: E402
from z4ai._wire import FORMAT_VERSION  # noqa: E402
from z4ai.dtypes import numpy_dtype, resolve  # noqa: E402

GOLDEN = ROOT / "tests" / "compat" / "golden"
MOST_NBYTES = 500_000
MIB = 1 << 20
SUFFIXES = {"compress_file": ".zstn", "model_delta": ".z4dm", "compress_delta": ".z4dl"}


#: Takes the name of a case, what writes it, the recipe of its content, and options.
Add = Callable[..., None]


def recipe(formula: str, nbytes: int, width: int, seed: int = 1) -> dict[str, Any]:
    return {"formula": formula, "nbytes": nbytes, "width": width, "seed": seed}


def cases() -> dict[str, dict[str, Any]]:
    """Name of a case to how it is made: recipe, what made it, with which options."""
    made: dict[str, dict[str, Any]] = {}

    def add(name: str, by: str, inputs: dict[str, Any], **options: Any) -> None:
        made[name] = {"by": by, "recipe": inputs, "options": options}

    names = ["opaque", "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
    names += ["uint64", "fp16", "bf16", "fp32", "fp64", "complex64", "complex128", "fp8_e4m3"]
    names += ["fp8_e5m2", "fp8_e8m0", "fp4"]
    for name in names:
        width = resolve(name).width
        inputs = recipe("weights", 2400 // width * width + width - 1, width)
        add(f"buffer-{name}", "compress", inputs, dtype=name)
    for effort in ("fast", "max"):
        add(f"effort-{effort}-bf16", "compress", recipe("weights", 5000, 2), dtype="bf16")
        made[f"effort-{effort}-bf16"]["options"]["effort"] = effort
        add(f"effort-{effort}-opaque", "compress", recipe("text", 9000, 1), effort=effort)
    add("empty", "compress", recipe("noise", 0, 1), dtype="bf16")
    add("one-byte", "compress", recipe("noise", 1, 1), dtype="fp64")
    add("noise", "compress", recipe("noise", 3000, 1), dtype="fp32")
    add("patterns-bf16", "compress", recipe("patterns", 1 << 14, 2), dtype="bf16", effort="fast")
    for name in ("bf16", "fp32", "int64", "opaque"):
        width = resolve(name).width
        inputs = recipe("steps", (6 if name == "opaque" else 2) * MIB + 2003, width)
        add(f"chunks-{name}", "compress", inputs, dtype=name)
        add(f"streamed-{name}", "compress_stream", inputs, dtype=name)
    add("sparse-bf16", "compress", recipe("sparse", MIB + 1001, 2), dtype="bf16")
    add("chunks-text", "compress", recipe("text", 4 * MIB + 50_000, 1))
    add("streamed-empty", "compress_stream", recipe("noise", 0, 1))
    shapes: dict[str, tuple[str, list[int]]] = {
        "c": ("bf16", [30, 20]),
        "0-d": ("fp64", []),
        "empty": ("fp16", [3, 0, 2]),
        "many-dimensions": ("int8", [1, 2, 1, 3, 1, 2, 1, 5]),
        "bool": ("bool", [50]),
        "complex": ("complex64", [10, 6]),
    }
    for name, (dtype, shape) in shapes.items():
        row = resolve(dtype)
        nbytes = int(np.prod(shape, dtype=np.int64)) * row.item_nbytes
        inputs = recipe("weights", nbytes, row.width)
        add(f"array-{name}", "compress_array", inputs, dtype=dtype, shape=shape)
    for name, dtype, order, big in [
        ("fortran", "fp32", "F", False),
        ("big-endian", "int32", "C", True),
        ("big-endian-fortran", "fp64", "F", True),
    ]:
        row = resolve(dtype)
        inputs = recipe("weights", 300 * row.width, row.width)
        options = {"dtype": dtype, "shape": [20, 15], "order": order, "big_endian": big}
        add(f"array-{name}", "compress_array", inputs, **options)
    block = recipe("weights", 6000, 2)
    tensors = [
        ["embed.weight", "BF16", [50, 60], block],
        ["layer.0.weight", "F32", [20, 25], recipe("weights", 2000, 4, 2)],
        ["layer.0.bias", "F32", [0], recipe("noise", 0, 4)],
        ["layer.1.weight", "F16", [3, 100], recipe("weights", 600, 2, 3)],
        ["steps", "I64", [], recipe("weights", 8, 8, 4)],
        ["mask", "BOOL", [16], recipe("noise", 16, 1, 5)],
        ["lm_head.weight", "BF16", [50, 60], block],
        ["scales", "F8_E4M3", [300], recipe("weights", 300, 1, 6)],
    ]
    for effort in ("fast", "balanced", "max"):
        add(f"container-{effort}", "compress_file", {"tensors": tensors}, effort=effort)
    add("container-empty", "compress_file", {"tensors": []})
    add_models(add)
    add_parts(add)
    add_others(add)
    add_deltas(add)
    return made


def add_models(add: Add) -> None:
    """Frames with a model: every transform of symbols, every kind of context."""
    for name in ("int8", "fp8_e4m3", "bf16", "fp16", "fp32", "fp64"):
        width = resolve(name).width
        n = 64 * {4: 24, 8: 12}.get(width, 48)
        for formula in ("rows", "columns", "rows_and_columns"):
            inputs = recipe(formula, n * width, width)
            add(f"model-{formula}-{name}", "compress", inputs, dtype=name, shape=[n // 64, 64])
    for name in ("int8", "fp8_e4m3", "fp16"):
        inputs = recipe("weights", 3000 * resolve(name).width, resolve(name).width)
        add(f"model-weights-{name}", "compress", inputs, dtype=name)
    raw = recipe("outliers", 2 * 64 * 100, 2)
    add("model-raw", "compress", raw, dtype="bf16", shape=[100, 64])
    rare = recipe("outliers", 64 * 400, 1)
    add("model-rare", "compress", rare, dtype="fp8_e4m3", shape=[400, 64], effort="max")
    inputs = recipe("rows_and_columns", 2 * 64 * 48, 2)
    for order, big in (("C", True), ("F", False), ("F", True)):
        name = f"model-array{'-fortran' * (order == 'F')}{'-big-endian' * big}"
        options: dict[str, Any] = {"dtype": "fp16" if big else "bf16", "order": order}
        options["shape"] = [48, 64] if order == "C" else [64, 48]
        add(name, "compress_array", {**inputs, "big_endian": big}, **options, big_endian=big)
    add("model-streamed", "compress_stream", recipe("weights", 6001, 2, 5), dtype="bf16")


def add_parts(add: Add) -> None:
    """Frames of parts: every stage."""
    for formula, name, n in [
        ("pruned", "bf16", 4000),
        ("pruned", "fp32", 2000),
        ("pruned", "int32", 3000),
        ("few", "bf16", 3000),
        ("few", "fp64", 2000),
        ("few_a_row", "bf16", 512 * 12),
        ("grid", "bf16", 3000),
        ("grid", "fp32", 3000),
        ("grid", "fp64", 2000),
        ("grid_of_groups", "bf16", 64 * 60),
        ("grid_of_groups", "fp32", 64 * 60),
        ("grid_and_others", "fp32", 3000),
        ("rising", "int64", 3000),
        ("rising", "int32", 3000),
        ("rising", "uint16", 3000),
        ("vocabulary", "int64", 2000),
        ("vocabulary", "int32", 2000),
    ]:
        width = resolve(name).width
        options: dict[str, Any] = {"dtype": name}
        if formula == "few_a_row":
            options["shape"] = [n // 512, 512]
        add(f"parts-{formula}-{name}", "compress", recipe(formula, n * width, width), **options)
    inputs = recipe("grid", 2500 * 4 + 3, 4, 2)
    add("parts-tail", "compress", inputs, dtype="fp32", effort="max")
    for effort in ("balanced", "max"):
        inputs = recipe("gguf", 9000, 1)
        add(f"blocks-{effort}", "compress", inputs, dtype="auto", effort=effort)
    add("blocks-of-sub-blocks", "compress", recipe("gguf_of_sub_blocks", 9000, 1), dtype="auto")
    add("blocks-streamed", "compress_stream", recipe("gguf", 7000, 1, 2), dtype="auto")


def add_others(add: Add) -> None:
    """Copies, Brotli, and a container whose frames have all of it."""
    add("copies-bf16", "compress", recipe("layers", 40_001, 2), dtype="bf16")
    add("copies-opaque", "compress", recipe("layers", 36_000, 1, 2))
    add("brotli-text", "compress", recipe("text", 9000, 1, 3), dtype="uint8", effort="max")
    add("brotli-bf16", "compress", recipe("text", 9000, 2, 3), dtype="bf16", effort="max")
    layer = recipe("rows_and_columns", 2 * 64 * 64, 2, 8)
    tensors: list[list[Any]] = [
        ["embed", "BF16", [64, 64], layer],
        ["norm.0", "BF16", [64], recipe("weights", 128, 2, 9)],
        ["norm.1", "BF16", [64], recipe("weights", 128, 2, 10)],
        ["norm.2", "BF16", [60], recipe("weights", 120, 2, 11)],
        ["grid", "F32", [40, 64], recipe("grid_of_groups", 4 * 64 * 40, 4, 12)],
        ["pruned", "I32", [2000], recipe("pruned", 8000, 4, 13)],
        ["few", "BF16", [50, 60], recipe("few", 6000, 2, 14)],
        ["ids", "I64", [1000], recipe("rising", 8000, 8, 15)],
        ["tied", "BF16", [64, 64], layer],
        ["layers", "BF16", [150, 128], recipe("layers", 38_400, 2, 16)],
    ]
    add("container-kinds", "compress_file", {"tensors": tensors})


def add_deltas(add: Add) -> None:
    """Model deltas: each way, aligned by name, by content, by parts; of low rank."""
    base = [
        ["embed", "BF16", [120, 96], recipe("weights", 23_040, 2, 1)],
        ["query", "BF16", [96, 96], recipe("weights", 18_432, 2, 2)],
        ["key", "BF16", [96, 96], recipe("weights", 18_432, 2, 3)],
        ["norm", "F32", [96], recipe("weights", 384, 4, 4)],
        ["ids", "I64", [96], recipe("rising", 768, 8, 5)],
        ["merged", "F32", [96, 128], recipe("weights", 49_152, 4, 6)],
    ]
    target: list[list[Any]] = [
        ["embed", "BF16", [120, 96], recipe("nudged", 23_040, 2, 1)],
        ["q", "BF16", [96, 96], recipe("nudged", 18_432, 2, 2)],
        ["key", "BF16", [96, 96], recipe("weights", 18_432, 2, 3)],
        ["norm", "F32", [96], recipe("nudged", 384, 4, 4)],
        ["ids", "I64", [96], recipe("rising", 768, 8, 5)],
        ["merged", "F32", [96, 128], recipe("merged", 49_152, 4, 6)],
        ["new", "BF16", [64, 32], recipe("weights", 4096, 2, 9)],
        ["tied", "BF16", [120, 96], recipe("nudged", 23_040, 2, 1)],
    ]
    add("model-delta-kinds", "model_delta", {"tensors": target, "base": base})
    inputs = {"tensors": base[:3], "base": base}
    add("model-delta-copies", "model_delta", inputs)
    # Every transform of delta frames: differences of each width, of floats and of integers, with
    # rows and without; exclusive-or; nothing changed; more and less than the reference.
    for name, n in (("fp8_e4m3", 9001), ("bf16", 9002), ("int16", 4000), ("fp32", 9004)):
        width = resolve(name).width
        inputs = recipe("nudged", n, width) | {"base": recipe("weights", n, width)}
        add(f"delta-{name}", "compress_delta", inputs, dtype=name)
    inputs = recipe("nudged", 24_000, 8) | {"base": recipe("weights", 24_000, 8)}
    add("delta-fp64-rows", "compress_delta", inputs, dtype="fp64", shape=[50, 60])
    inputs = recipe("nudged", 40_000, 2) | {"base": recipe("weights", 40_000, 2)}
    add("delta-bf16-rows", "compress_delta", inputs, dtype="bf16", shape=[100, 200])
    inputs = recipe("nudged", 5000, 1) | {"base": recipe("weights", 5000, 1)}
    add("delta-opaque", "compress_delta", inputs)
    inputs = recipe("weights", 5000, 2) | {"base": recipe("weights", 5000, 2)}
    add("delta-same", "compress_delta", inputs, dtype="bf16")
    inputs = recipe("nudged", 9000, 2) | {"base": recipe("weights", 7000, 2)}
    add("delta-longer", "compress_delta", inputs, dtype="bf16", effort="max")
    inputs = recipe("steps", 3 * MIB, 2) | {"base": recipe("steps", 3 * MIB + 16, 2)}
    add("delta-chunks", "compress_delta", inputs, dtype="bf16")


def encode(case: dict[str, Any]) -> bytes:
    """Make the bytes of a case."""
    content = content_of(case["recipe"])
    options = dict(case["options"])
    if case["by"] == "compress":
        return z4ai.compress(content, **options)
    if case["by"] == "compress_stream":
        out = io.BytesIO()
        z4ai.compress_stream(io.BytesIO(content), out, **options)
        return out.getvalue()
    if case["by"] == "compress_array":
        dtype = numpy_dtype(resolve(options["dtype"]), big_endian=options.get("big_endian", False))
        if options["dtype"] == "bool":
            content = bytes(byte & 1 for byte in content)
        flat = np.frombuffer(content, dtype)
        return z4ai.compress_array(flat.reshape(options["shape"], order=options.get("order", "C")))
    if case["by"] == "model_delta":
        base = content_of({"tensors": case["recipe"]["base"]})
        return z4ai.model_delta.compress(content, base, **options)
    if case["by"] == "compress_delta":
        return z4ai.compress_delta(content, content_of(case["recipe"]["base"]), **options)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "a.safetensors", Path(folder) / "a.zstn"
        source.write_bytes(content)
        z4ai.safetensors.compress_file(source, target, **options)
        return target.read_bytes()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--again", action="store_true", help="write unreleased files anew")
    parser.add_argument("--release", metavar="VERSION", help="mark what is there as released")
    args = parser.parse_args()
    folder = GOLDEN / f"v{FORMAT_VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text()) if path.exists() else {}
    for name, case in cases().items():
        file = name + SUFFIXES.get(case["by"], ".z4ai")
        entry = manifest.get(file)
        if entry is not None and (entry["released"] or not args.again):
            continue
        encoded = encode(case)
        content = content_of(case["recipe"])
        (folder / file).write_bytes(encoded)
        manifest[file] = {
            **case,
            "content_nbytes": len(content),
            "content_sha256": sha256(content),
            "encoded_nbytes": len(encoded),
            "encoded_sha256": sha256(encoded),
            "library_version": z4ai.__version__,
            "released": None,
        }
        print(f"{file}: {len(encoded)} bytes")
    if args.release:
        for entry in manifest.values():
            entry["released"] = entry["released"] or args.release
    path.write_text(json.dumps(dict(sorted(manifest.items())), indent=1) + "\n")
    total = sum(entry["encoded_nbytes"] for entry in manifest.values())
    print(f"{len(manifest)} files, {total} bytes")
    if total > MOST_NBYTES:
        print(f"more than {MOST_NBYTES} bytes: choose smaller inputs")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
