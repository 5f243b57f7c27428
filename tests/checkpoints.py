"""Small checkpoints of runs that were never trained: drifting weights, copies, moments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

__all__ = ["checkpoint", "file_of", "write"]

_CODES = {"float32": "F32", "bfloat16": "BF16", "int64": "I64", "uint8": "U8"}


def file_of(tensors: dict[str, np.ndarray[Any, Any]], **metadata: str) -> bytes:
    """A `.safetensors` file, written by hand."""
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    begin = 0
    for name, array in tensors.items():
        end = begin + array.nbytes
        code = _CODES[array.dtype.name]
        header[name] = {"dtype": code, "shape": array.shape, "data_offsets": [begin, end]}
        begin = end
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + b"".join(a.tobytes() for a in tensors.values())


def checkpoint(kind: str, step: int, run: int = 0) -> bytes:
    """One step of a run: `kind` is ``"fp32"``, ``"bf16"``, ``"adam"`` or ``"empty"``."""
    if kind == "empty":
        return file_of({}, step=str(step))
    rng = np.random.default_rng([run, 1])
    start = {"layer.weight": (96, 160), "layer.bias": (96,), "head.weight": (40, 96)}
    weights = {name: rng.normal(0, 0.02, shape) for name, shape in start.items()}
    for k in range(1, step + 1):
        rng = np.random.default_rng([run, 2, k])
        for name, array in weights.items():
            weights[name] = array + rng.normal(0, 1e-5, array.shape)
    if kind == "adam":
        rng = np.random.default_rng([run, 3, step])
        moments: dict[str, np.ndarray[Any, Any]] = {"count": np.array([step], np.int64)}
        for name, array in weights.items():
            for moment in ("exp_avg", "exp_avg_sq"):
                noise = rng.normal(0, 1e-4, array.shape).astype(np.float32)
                moments[f"{name}.{moment}"] = noise if moment == "exp_avg" else noise**2
        return file_of(moments)
    dtype: Any = ml_dtypes.bfloat16 if kind == "bf16" else np.float32
    cast = {name: array.astype(np.float32).astype(dtype) for name, array in weights.items()}
    return file_of(cast, format="pt")


def write(path: Path, kind: str, step: int, run: int = 0) -> bytes:
    """Write such a file; -> its bytes."""
    data = checkpoint(kind, step, run)
    path.write_bytes(data)
    return data
