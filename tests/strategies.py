"""Contents to compress: seeded formulas of our own, and hypothesis strategies over them."""

from __future__ import annotations

import struct
from typing import Any

import ml_dtypes  # noqa: F401 - registers the dtypes of its types with NumPy
import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from z4ai import dtypes

Bytes = npt.NDArray[np.uint8]

#: Every element type by name, and those that an array can have.
DTYPES = {row.name: row for row in dtypes._TABLE}
ARRAY_DTYPES = {name: row for name, row in DTYPES.items() if row.numpy_name is not None}
ALIASES = dict(dtypes._ALIASES)

#: Lengths at which kernels and tables change their ways, and their neighbours.
EDGES = sorted(
    {
        max(edge + step, 0)
        for edge in (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536 + 256)
        for step in (-1, 0, 1)
    }
)


def noise(nbytes: int, seed: int = 0) -> bytes:
    """Bytes without order, from a formula: the same on every machine."""
    state = np.arange(nbytes, dtype=np.uint64) + np.uint64(seed << 32)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(32)
    return (state >> np.uint64(56)).astype(np.uint8).tobytes()


def weights(nbytes: int, width: int, seed: int = 0) -> bytes:
    """Words that look like weights: few values of the top byte, noise below; odd tails too."""
    n = nbytes // width + 1
    raw = np.frombuffer(noise(n * width, seed), np.uint8).reshape(n, width).copy()
    # The popcount of noise is a bell curve, as exponents of weights are.
    bell = np.unpackbits(raw[:, -1:], axis=1).sum(axis=1).astype(np.uint8)
    raw[:, -1] = bell if width == 1 else 0x38 + (bell >> 1) | raw[:, 0] << 7
    return raw.tobytes()[:nbytes]


def special_floats(width: int) -> bytes:
    """Signed zeros, infinities, subnormals, and NaNs quiet, signalling and with payloads."""
    exponent, mantissa = {2: (5, 10), 4: (8, 23), 8: (11, 52)}[width]
    top = ((1 << exponent) - 1) << mantissa
    quiet = 1 << (mantissa - 1)
    words = [0, 1, 2, (1 << mantissa) - 1, 1 << mantissa, top - 1, top]
    words += [top | 1, top | quiet, top | quiet | 5, top | (1 << mantissa) - 1]
    words += [word | 1 << (8 * width - 1) for word in words]
    return b"".join(word.to_bytes(width, "little") for word in words)


def all_16_bit_patterns() -> bytes:
    return struct.pack("<65536H", *range(65536))


def in_parts(part: int, *contents: bytes) -> bytes:
    """Contents that take turns, `part` bytes each."""
    n = max(map(len, contents))
    return b"".join(c[at : at + part] for at in range(0, n, part) for c in contents)


def make(kind: str, nbytes: int, width: int, seed: int) -> bytes:
    """Content of a kind and exact size."""
    if kind == "noise":
        return noise(nbytes, seed)
    if kind == "weights":
        return weights(nbytes, width, seed)
    if kind == "zeros":
        return bytes(nbytes)
    if kind == "constant":
        return (noise(width, seed) * (nbytes // width + 1))[:nbytes]
    if kind == "sparse":
        dense = np.frombuffer(weights(nbytes, width, seed), np.uint8)
        keep = np.frombuffer(noise(nbytes // width + 1, seed + 1), np.uint8) < 40
        return (dense * np.repeat(keep, width)[:nbytes]).astype(np.uint8).tobytes()
    if kind == "text":
        return (b"the same words over and over, %d. " % seed * (nbytes // 16 + 1))[:nbytes]
    if kind == "special":
        values = special_floats(width) if width > 1 else bytes(range(256))
        return (values * (nbytes // len(values) + 1))[:nbytes]
    raise AssertionError(kind)


KINDS = ("noise", "weights", "zeros", "constant", "sparse", "text", "special")


def sizes(largest: int) -> st.SearchStrategy[int]:
    """Sizes in bytes: edges as often as any."""
    edges = [edge for edge in EDGES if edge <= largest]
    return st.one_of(st.sampled_from(edges), st.integers(0, largest))


@st.composite
def contents(draw: st.DrawFn, width: int, largest: int = 20_000) -> bytes:
    """Bytes of a kind, or whatever hypothesis thinks of."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.binary(max_size=200))
    kind = draw(st.sampled_from(KINDS))
    return make(kind, draw(sizes(largest)), width, draw(st.integers(0, 1000)))


def array_of(name: str, shape: tuple[int, ...], *, seed: int = 0) -> npt.NDArray[Any]:
    """An array of an element type whose bits are noise, valid for its type."""
    dtype = dtypes.numpy_dtype(ARRAY_DTYPES[name])
    count = int(np.prod(shape, dtype=np.int64))
    raw = np.frombuffer(noise(count * dtype.itemsize, seed), np.uint8).copy()
    if name == "bool":
        raw &= 1
    elif name.endswith("_unpacked"):
        return (raw.astype(np.int8) & 1).astype(dtype).reshape(shape)
    return raw.view(dtype).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn) -> npt.NDArray[Any]:
    """Arrays of every element type, shape, memory order, strides and byte order."""
    name = draw(st.sampled_from(sorted(ARRAY_DTYPES)))
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=5)))
    array = array_of(name, shape, seed=draw(st.integers(0, 100)))
    if draw(st.booleans()) and array.dtype.isbuiltin == 1:
        array = array.astype(array.dtype.newbyteorder(">"))
    form = draw(st.sampled_from(["C", "F", "transposed", "strided", "reversed", "broadcast"]))
    if form == "F":
        array = np.asfortranarray(array)
    elif form == "transposed":
        array = array.transpose(draw(st.permutations(range(array.ndim))))
    elif form == "strided" and array.ndim:
        array = array[..., ::2]
    elif form == "reversed" and array.ndim:
        array = array[::-1]
    elif form == "broadcast":
        array = np.broadcast_to(array, (2, *array.shape))
    return array
