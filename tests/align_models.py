"""Models of a few small tensors, made by formula, for the tests of alignments."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

from z4ai.align import FileTensors
from z4ai.container.source import source_of_buffer
from z4ai.container.st_header import Header, Tensor

Array = npt.NDArray[Any]

NUMPY = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype(np.int64),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
}
CODES = {dtype: code for code, dtype in NUMPY.items()}


class CountedTensors(FileTensors):
    """Tensors that count the bytes read of them."""

    nbytes_read = 0

    def read(self, k: int, begin: int, end: int) -> npt.NDArray[np.uint8]:
        self.nbytes_read += end - begin
        return super().read(k, begin, end)


def model(arrays: dict[str, Array]) -> CountedTensors:
    """Put arrays behind one another, in their order."""
    tensors, parts, pos = [], [], 0
    for name, array in arrays.items():
        content = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        end = pos + len(content)
        tensors.append(Tensor(name, CODES[array.dtype], array.shape, pos, end))
        parts.append(content)
        pos = end
    data = np.concatenate(parts) if parts else np.empty(0, np.uint8)
    return CountedTensors(source_of_buffer(data), 0, Header(tensors, None))


def uniform(n: int, seed: int) -> Array:
    """Numbers in (0, 1), from a formula: the same on every machine."""
    state = np.arange(n, dtype=np.uint64) + np.uint64(seed << 32)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(32)
    return ((state >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def weights(shape: tuple[int, ...], seed: int, dtype: str = "F32", scale: float = 0.05) -> Array:
    """Numbers around zero, much like weights."""
    n = int(np.prod(shape))
    bell = sum(uniform(n, 5 * seed + k) for k in range(4)) - 2.0
    return (scale * bell).reshape(shape).astype(np.float32).astype(NUMPY[dtype])


def tuned(array: Array, seed: int, step: float = 1e-4) -> Array:
    """Weights after a little training."""
    moved = array.astype(np.float64) + weights(array.shape, seed + 1000, "F64", step)
    return moved.astype(np.float32).astype(array.dtype)
