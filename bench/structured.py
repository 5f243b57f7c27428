"""Seeded inputs with a structure, and the size that the structure allows.

Each input comes with its bound: the order-0 entropy of what is really there. That is the codes (or
the words of the values, where there are no codes), one scale of the tensor's own width for each
tensor, row or group, the values of a palette, and the positions of what is not a code. Of fp32
words only the upper half has an entropy worth counting: the lower half is as good as random.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import data

__all__ = ["INPUTS", "Structured", "entropy", "normal_bf16", "normals", "safetensors"]

MIB = 1 << 20
COLS = 4096
SIGMA = np.float32(0.02)
CODES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32", "int64": "I64"}
WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4, "int64": 8}


class Structured(NamedTuple):
    """An input, and what it should come to.

    Attributes
    ----------
    dtype, shape, content
        What is compressed; without a shape the bytes are not a whole number of elements.
    bound : float
        Bytes that an order-0 coder of what is there needs.
    goal : float or None
        Ratio asked for.
    part : bytes or None
        What repeats: the ratio asked for is `goal` times the ratio of this.
    """

    dtype: str
    shape: tuple[int, ...] | None
    content: bytes
    bound: float
    goal: float | None = None
    part: bytes | None = None

    def file(self) -> tuple[str, bytes]:
        """Return suffix and bytes of the file that rivals get."""
        if self.shape is None:
            return ".bin", self.content
        code = CODES[self.dtype]
        return ".safetensors", safetensors("weight", code, self.shape, self.content)


def safetensors(name: str, code: str, shape: tuple[int, ...], content: bytes) -> bytes:
    """Return a safetensors file of one tensor."""
    entry = {"dtype": code, "shape": list(shape), "data_offsets": [0, len(content)]}
    text = json.dumps({name: entry}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content


def entropy(symbols: NDArray[Any]) -> float:
    """Return the order-0 entropy of all symbols together, in bytes."""
    _, counts = np.unique(symbols, return_counts=True)
    shares = counts / symbols.size
    return float(-(counts * np.log2(shares)).sum() / 8)


def generator(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def normals(seed: int, n: int) -> NDArray[np.float32]:
    """Return normal values of unit variance."""
    return generator(seed).standard_normal(n, np.float32)


def normal_bf16(nbytes: int, seed: int = 3) -> bytes:
    """Return normal bf16 words of deviation 0.02."""
    return data.bf16(normals(seed, nbytes // 2) * SIGMA).tobytes()


def matrix(content: NDArray[Any]) -> tuple[int, ...]:
    return (content.size // COLS, COLS) if content.size % COLS == 0 else (content.size,)


def words_of(dtype: str, values: NDArray[np.float32]) -> NDArray[Any]:
    """Return the words of values in a dtype, rounded once."""
    return data.bf16(values) if dtype == "bf16" else values.view(np.uint32)


def word_entropy(dtype: str, words: NDArray[Any]) -> float:
    if dtype == "bf16":
        return entropy(words)
    return entropy((words >> 16).astype(np.uint16)) + words.size * 2


def of_words(dtype: str, words: NDArray[Any], bound: float, goal: float | None) -> Structured:
    return Structured(dtype, matrix(words), words.tobytes(), bound, goal)


# --- the inputs -------------------------------------------------------------------------------


def cast(inner: str, goal: float, nbytes: int) -> Structured:
    """fp32 that holds values of a narrower type."""
    x = normals(21, nbytes // 4) * SIGMA
    if inner == "bf16":
        short = data.bf16(x)
        words = short.astype(np.uint32) << 16
    else:
        half = x.astype(np.float16)
        short, words = half.view(np.uint16), half.astype(np.float32).view(np.uint32)
    return of_words("fp32", words, entropy(short), goal)


def zeros(dtype: str, share: float, goal: float | None, nbytes: int) -> Structured:
    """Weights of which a share is exactly zero, anywhere."""
    n = nbytes // WIDTHS[dtype]
    zero = generator(22).random(n, np.float32) < share
    words = words_of(dtype, normals(23, n) * SIGMA)
    words[zero] = 0
    bound = entropy(zero) + word_entropy(dtype, words[words != 0])
    return of_words(dtype, words, bound, goal)


def grid(dtype: str, top: int, group: int | None, nbytes: int) -> Structured:
    """Codes of -top to top times a scale of each `group` elements (None: of all), dequantised.

    Rows have deviations of their own within 4x where there is more than one scale.
    """
    n = nbytes // WIDTHS[dtype]
    x = normals(24, n) * SIGMA
    if group is not None:
        x = x.reshape(-1, COLS)
        x *= np.exp2(generator(25).random((x.shape[0], 1), np.float32) * 2 - 1)
    x = x.reshape(-1, group or n)
    scales = np.abs(x).max(axis=1, keepdims=True) / np.float32(top)
    if dtype == "bf16":
        scales = (data.bf16(scales).astype(np.uint32) << 16).view(np.float32)
    codes = np.clip(np.rint(x / scales), -top, top).astype(np.int8)
    words = words_of(dtype, codes.astype(np.float32) * scales).reshape(-1)
    bound = entropy(codes.reshape(-1)) + scales.size * WIDTHS[dtype]
    return of_words(dtype, words, bound, None)


def palette(dtype: str, n_values: int, nbytes: int) -> Structured:
    """A few values off any grid: two as often as each other, or more about as normals fall."""
    n = nbytes // WIDTHS[dtype]
    values = np.sort(normals(26, n_values)) * SIGMA
    if n_values == 2:
        codes = generator(27).integers(0, 2, n, np.uint8)
    else:
        middles = (values[1:] + values[:-1]) / 2
        codes = np.searchsorted(middles, normals(28, n) * SIGMA).astype(np.uint8)
    words = words_of(dtype, values)[codes]
    bound = entropy(codes) + n_values * WIDTHS[dtype]
    return of_words(dtype, words, bound, None)


def copies(nbytes: int) -> Structured:
    """A layer followed by seven copies of it, each behind 13 random bytes."""
    layer = normal_bf16(nbytes // 8, 29)
    gaps = generator(30).bytes(7 * 13)
    content = layer + b"".join(gaps[13 * k : 13 * k + 13] + layer for k in range(7))
    bound = entropy(np.frombuffer(layer, np.uint16)) + len(gaps)
    return Structured("bf16", None, content, bound, 7.5, layer)


def draws(*, again: bool, odd: bool, goal: float | None, nbytes: int) -> Structured:
    """Sorted draws below twice their number (2**20 for 524,288) as int64.

    `again`: with replacement. `odd`: one in a million, and at least one, is any number instead.
    """
    rng = generator(31)
    n = nbytes // 64
    drawn = rng.integers(0, 2 * n, n) if again else rng.choice(2 * n, n, replace=False)
    values = np.sort(drawn.astype(np.int64))
    bound = entropy(np.diff(values, prepend=0))
    if odd:
        at = rng.choice(n, max(1, n // 1_000_000), replace=False)
        values[at] = rng.integers(-(1 << 62), 1 << 62, at.size)
        bound += at.size * (8 + np.log2(n) / 8)
    return Structured("int64", (n,), values.tobytes(), float(bound), goal)


INPUTS: dict[str, Callable[[int], Structured]] = {
    "fp32 holding bf16": partial(cast, "bf16", 3.03),
    "fp32 holding fp16": partial(cast, "fp16", 2.35),
}
for _dtype in ("bf16", "fp32"):
    for _share in (0.5, 0.9):
        _goal = 2.48 if (_dtype, _share) == ("bf16", 0.5) else None
        INPUTS[f"{_dtype}, {_share:.0%} zeros"] = partial(zeros, _dtype, _share, _goal)
for _name, _top, _group in (
    ("int8 per tensor", 127, None),
    ("int8 per row of 4096", 127, COLS),
    ("int4 per tensor", 7, None),
    ("int4 in groups of 64", 7, 64),
):
    for _dtype in ("bf16", "fp32"):
        INPUTS[f"{_name} in {_dtype}"] = partial(grid, _dtype, _top, _group)
for _n, _name in ((2, "two"), (8, "eight")):
    for _dtype in ("bf16", "fp32"):
        INPUTS[f"{_name} values in {_dtype}"] = partial(palette, _dtype, _n)
INPUTS["a layer and seven copies"] = copies
# 524,288 of them where the others have 32 MiB.
INPUTS["sorted draws"] = lambda nbytes: draws(again=False, odd=False, goal=25, nbytes=nbytes)
INPUTS["sorted draws, one odd"] = lambda nbytes: draws(
    again=False, odd=True, goal=25, nbytes=nbytes
)
INPUTS["sorted draws, repeating"] = lambda nbytes: draws(
    again=True, odd=False, goal=None, nbytes=nbytes
)
