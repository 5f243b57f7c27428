"""Seeded weight-like data and the tensor data of real files.

The generators are integer formulas of our own and IEEE operations in a fixed order, so they give
the same bytes on every machine and under every NumPy.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "FLOAT_CODES",
    "bf16",
    "float_data",
    "fp8_like",
    "fp16",
    "normals",
    "tensors",
    "uniform_bits",
    "weights",
    "weights_of",
]

GOLDEN = 0x9E3779B97F4A7C15
MASK64 = (1 << 64) - 1
SQRT3 = 1.7320508075688772

# safetensors code -> (z4ai dtype, width)
FLOAT_CODES = {"BF16": ("bf16", 2), "F16": ("fp16", 2), "F32": ("fp32", 4), "F64": ("fp64", 8)}


def uniform_bits(seed: int, n: int) -> NDArray[np.uint64]:
    """Return `n` words of splitmix64, word i depending on `seed` and i alone."""
    with np.errstate(over="ignore"):
        x = np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN)
        x += np.uint64((seed * 0xD1342543DE82EF95 + 0x2545F4914F6CDD1D) & MASK64)
        x ^= x >> np.uint64(30)
        x *= np.uint64(0xBF58476D1CE4E5B9)
        x ^= x >> np.uint64(27)
        x *= np.uint64(0x94D049BB133111EB)
        x ^= x >> np.uint64(31)
    return x


def normals(seed: int, n: int) -> NDArray[np.float64]:
    """Return `n` nearly normal values of unit variance: the sum of four 32-bit uniforms.

    The sum is an integer of 34 bits, exact in float64; the one rounding is that of the product.
    """
    a = uniform_bits(seed, n)
    b = uniform_bits(seed ^ 0x5EED, n)
    low = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    total = (a >> shift) + (a & low) + (b >> shift) + (b & low)
    centred = total.astype(np.int64) - ((1 << 33) - 2)
    return centred.astype(np.float64) * (SQRT3 / 2.0**32)


def weights(seed: int, rows: int, cols: int) -> NDArray[np.float32]:
    """Return a matrix like a trained one: normal, each row of a scale of its own (within 4x)."""
    scale = 0.01 + (uniform_bits(seed + 1, rows) >> np.uint64(54)).astype(np.float64) / 32768.0
    values = normals(seed, rows * cols).reshape(rows, cols) * scale[:, None]
    return values.astype(np.float32)


def bf16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round finite float32 to bfloat16, ties to even, as 16-bit words."""
    u = np.ascontiguousarray(x).view(np.uint32)
    return ((u + (((u >> 16) & 1) + np.uint32(0x7FFF))) >> 16).astype(np.uint16)


def fp16(x: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Round float32 to IEEE half, as 16-bit words."""
    return np.ascontiguousarray(x).astype(np.float16).view(np.uint16)


def fp8_like(x: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Truncate float32 to sign, 4 bits of exponent and 3 of fraction, scaled as fp8 weights are."""
    u = np.ascontiguousarray(x).view(np.uint32)
    exponent = np.clip(((u >> 23) & 0xFF).astype(np.int32) - 127 + 7 + 9, 0, 15)
    return (((u >> 24) & 0x80) | (exponent.astype(np.uint32) << 3) | ((u >> 20) & 7)).astype(
        np.uint8
    )


def weights_of(dtype: str, nbytes: int, seed: int = 1) -> bytes:
    """Return about `nbytes` of seeded weights of a dtype: bf16, fp16, fp32, fp64, fp8_e4m3, int8.

    Rounded down to whole rows of 1024 elements (at least one row).
    """
    cols = 1024
    width = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8, "fp8_e4m3": 1, "int8": 1}[dtype]
    rows = max(1, nbytes // (cols * width))
    if dtype == "fp64":
        return normals(seed, rows * cols).tobytes()
    x = weights(seed, rows, cols)
    if dtype == "bf16":
        return bf16(x).tobytes()
    if dtype == "fp16":
        return fp16(x).tobytes()
    if dtype == "fp8_e4m3":
        return fp8_like(x).tobytes()
    if dtype == "int8":
        return np.clip(np.rint(x * np.float32(2048)), -127, 127).astype(np.int8).tobytes()
    return x.tobytes()


def tensors(path: str | Path) -> list[tuple[str, str, tuple[int, ...], int, int]]:
    """List (name, safetensors dtype, shape, start, end) in file order, offsets in the file."""
    with Path(path).open("rb") as file:
        header_nbytes = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(header_nbytes))
    header.pop("__metadata__", None)
    base = 8 + header_nbytes
    rows = [
        (
            name,
            t["dtype"],
            tuple(t["shape"]),
            base + t["data_offsets"][0],
            base + t["data_offsets"][1],
        )
        for name, t in header.items()
    ]
    return sorted(rows, key=lambda row: row[3])


def float_data(path: str | Path, code: str) -> bytes:
    """Return the data of all tensors of one safetensors dtype, joined in file order."""
    raw = memoryview(Path(path).read_bytes())
    return b"".join(raw[a:b] for _, dtype, _, a, b in tensors(path) if dtype == code)
