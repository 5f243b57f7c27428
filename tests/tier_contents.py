"""Contents with structure for the tiers above fast: what weights, quantised ones and indices have.

Each is a function of a dtype's name, a number of elements and a seed. Unlike those of
strategies.py they come from NumPy's generators: what they are matters, not their exact bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import strategies

from z4ai import dtypes

Content = Callable[[str, int, int], bytes]


def row_of(n: int) -> int:
    """Elements of a row for so many: a few dozen rows if there can be."""
    return max(1, min(256, n // 24))


def is_float(name: str) -> bool:
    return name.startswith(("fp16", "bf16", "fp32", "fp64", "fp8", "complex"))


def cast(x: npt.NDArray[np.float64], name: str) -> bytes:
    """Numbers around 0.02 as elements of a type: integers get a scale."""
    row = strategies.DTYPES[name]
    if row.numpy_name is None:
        return np.clip(np.rint(x * 2000), -128, 127).astype(np.int8).tobytes()
    if name.startswith("complex"):
        return x.astype(f"<f{row.width}").tobytes()
    dtype = dtypes.numpy_dtype(row)
    if name == "fp8_e8m0":
        return np.clip(np.rint(127 + np.log2(np.abs(x) + 1e-9)), 0, 254).astype(np.uint8).tobytes()
    if is_float(name):
        return x.astype(dtype).tobytes()
    if name == "bool":
        return (x > 0.02).tobytes()
    if name.endswith("_unpacked"):
        return np.clip(np.rint(np.abs(x) * 40), 0, 1).astype(np.int8).astype(dtype).tobytes()
    info = np.iinfo(dtype)
    scale = {1: 2000.0, 2: 2e5}.get(row.width, 1e7)
    return np.clip(np.rint(x * scale), info.min, info.max).astype(dtype).tobytes()


def _normal(n: int, seed: int) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).standard_normal(n) * 0.02


def weights(name: str, n: int, seed: int) -> bytes:
    """One scale for all."""
    return cast(_normal(n, seed), name)


def rows(name: str, n: int, seed: int) -> bytes:
    """Each row has a scale of its own."""
    row = row_of(n)
    scale = np.exp2(np.random.default_rng(seed + 1).integers(-4, 5, n // row + 1))
    return cast(_normal(n, seed) * np.repeat(scale, row)[:n], name)


def columns(name: str, n: int, seed: int) -> bytes:
    """Each column has a scale of its own."""
    row = row_of(n)
    scale = np.exp2(np.random.default_rng(seed + 1).integers(-4, 5, row))
    return cast(_normal(n, seed) * np.tile(scale, n // row + 1)[:n], name)


def rows_and_columns(name: str, n: int, seed: int) -> bytes:
    row = row_of(n)
    rng = np.random.default_rng(seed + 1)
    down = np.repeat(np.exp2(rng.integers(-3, 4, n // row + 1)), row)[:n]
    across = np.tile(np.exp2(rng.integers(-3, 4, row)), n // row + 1)[:n]
    return cast(_normal(n, seed) * down * across, name)


def outliers(name: str, n: int, seed: int) -> bytes:
    """Weights, and one in 500 of a magnitude far from all others."""
    x = _normal(n, seed)
    rng = np.random.default_rng(seed + 1)
    at = rng.integers(0, max(n, 1), n // 500 + (n > 0))
    x[at] *= np.exp2(rng.integers(-60, 60, len(at)))
    return cast(np.clip(x, -1e4, 1e4), name)


def _sparse(name: str, n: int, seed: int, share: float) -> bytes:
    keep = np.random.default_rng(seed + 1).random(n) >= share
    return cast(_normal(n, seed) * keep, name)


def half_zeros(name: str, n: int, seed: int) -> bytes:
    return _sparse(name, n, seed, 0.5)


def mostly_zeros(name: str, n: int, seed: int) -> bytes:
    return _sparse(name, n, seed, 0.9)


def one_other_value(name: str, n: int, seed: int) -> bytes:
    """A value that is not zero takes most places."""
    rng = np.random.default_rng(seed)
    return cast(np.where(rng.random(n) < 0.8, 0.0123, _normal(n, seed)), name)


def _codes(n: int, seed: int, most: int) -> npt.NDArray[np.float64]:
    x = np.random.default_rng(seed).standard_normal(n)
    return np.clip(np.rint(x * most / 3), -most, most)


def grid(name: str, n: int, seed: int) -> bytes:
    """Symmetric int8 with one scale, dequantised."""
    return _dequantised(name, _codes(n, seed, 127), np.array([0.0013]), max(n, 1))


def grid_of_rows(name: str, n: int, seed: int) -> bytes:
    row = row_of(n)
    scale = np.random.default_rng(seed + 1).uniform(0.0005, 0.004, n // row + 1)
    return _dequantised(name, _codes(n, seed, 127), scale, row)


def grid_of_groups(name: str, n: int, seed: int) -> bytes:
    """Groups of 64 in 4 bits."""
    scale = np.random.default_rng(seed + 1).uniform(0.005, 0.04, n // 64 + 1)
    return _dequantised(name, _codes(n, seed, 7), scale, 64)


def grid_with_exceptions(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    made = np.frombuffer(grid(name, n, seed), f"<u{width}").copy()
    made[5::211] = np.frombuffer(weights(name, len(made[5::211]), seed + 9), f"<u{width}")
    return made.tobytes()


def _dequantised(
    name: str, codes: npt.NDArray[np.float64], scale: npt.NDArray[np.float64], group: int
) -> bytes:
    if not is_float(name):
        return cast(codes * 0.01, name)
    # In single precision, as it is done.
    single = scale.astype(np.float32) if name not in ("fp64", "complex128") else scale
    product = codes.astype(single.dtype) * np.repeat(single, group)[: len(codes)]
    return cast(product.astype(np.float64), name)


def _palette(name: str, n: int, seed: int, size: int) -> bytes:
    width = strategies.DTYPES[name].width
    values = np.frombuffer(weights(name, size, seed), f"<u{width}")
    rng = np.random.default_rng(seed + 1)
    return values[np.minimum(rng.geometric(min(0.5, 3 / size), n) - 1, size - 1)].tobytes()


def two_values(name: str, n: int, seed: int) -> bytes:
    return _palette(name, n, seed, 2)


def eight_values(name: str, n: int, seed: int) -> bytes:
    return _palette(name, n, seed, 8)


def many_values(name: str, n: int, seed: int) -> bytes:
    return _palette(name, n, seed, 200)


def palette_of_rows(name: str, n: int, seed: int) -> bytes:
    row = row_of(n)
    made = [_palette(name, row, seed + k, 6) for k in range(n // row + 1)]
    return b"".join(made)[: n * strategies.DTYPES[name].width]


def repeats(name: str, n: int, seed: int) -> bytes:
    """A layer and copies of it, with some bytes before each that move it out of step."""
    width = strategies.DTYPES[name].width
    nbytes = n * width
    layer = weights(name, n // 5 + 1, seed)[: nbytes // 5]
    made = b"".join(strategies.noise(13, seed + k) + layer for k in range(5))
    return (made + bytes(nbytes))[:nbytes]


def repeats_in_step(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    layer = rows(name, n // 4 + 1, seed)[: n // 4 * width]
    between = weights(name, n - 3 * (n // 4), seed + 1)
    return (layer + between + layer + layer)[: n * width]


def _integers(name: str, values: npt.NDArray[np.int64]) -> bytes:
    width = strategies.DTYPES[name].width
    return values.astype("<i8").astype(f"<i{width}").tobytes()


def sorted_integers(name: str, n: int, seed: int) -> bytes:
    most = 1 << 8 * min(strategies.DTYPES[name].width, 3) - 1
    return _integers(name, np.sort(np.random.default_rng(seed).integers(0, most, n)))


def sorted_but_one(name: str, n: int, seed: int) -> bytes:
    made = np.frombuffer(sorted_integers(name, n, seed), f"<i{strategies.DTYPES[name].width}")
    made = made.copy()
    made[n // 3 : n // 3 + 1] = -7
    return made.tobytes()


def ids(name: str, n: int, seed: int) -> bytes:
    """Numbers below 40,000, not sorted."""
    return _integers(name, np.random.default_rng(seed).integers(0, 40_000, n))


def counting(name: str, n: int, seed: int) -> bytes:
    return _integers(name, np.arange(seed, seed + n))


def truncated(name: str, n: int, seed: int) -> bytes:
    """A wide type that holds a narrow one: dead low bits."""
    width = strategies.DTYPES[name].width
    made = np.frombuffer(weights(name, n, seed), np.uint8).reshape(n, width).copy()
    made[:, : width // 2] = 0
    return made.tobytes()


def low_bits_of_exponents(name: str, n: int, seed: int) -> bytes:
    """Elements some of which have dead low bits, as after a cast there and back."""
    width = strategies.DTYPES[name].width
    made = np.frombuffer(weights(name, n, seed), np.uint8).reshape(n, width).copy()
    made[np.random.default_rng(seed).random(n) < 0.3, : width // 2] = 0
    return made.tobytes()


def half_noise(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    half = n // 2 * width
    return strategies.noise(half, seed) + weights(name, n - n // 2, seed)


def half_structure(name: str, n: int, seed: int) -> bytes:
    """Dequantised weights, then ordinary ones."""
    return grid(name, n // 2, seed) + weights(name, n - n // 2, seed)


def turns(name: str, n: int, seed: int) -> bytes:
    """Blocks of a few hundred elements of every kind take turns."""
    each = [weights, mostly_zeros, noise, grid, eight_values, counting, constant]
    made = b""
    for k in range(n // 300 + 1):
        made += each[k % len(each)](name, 300, seed + k)
    return made[: n * strategies.DTYPES[name].width]


def special(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    return strategies.make("special", n * width, width, seed)


def zeros_of_both_signs(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    made = np.frombuffer(half_zeros(name, n, seed), np.uint8).reshape(n, width).copy()
    made[::3, width - 1] |= 0x80
    return made.tobytes()


def noise(name: str, n: int, seed: int) -> bytes:
    return strategies.noise(n * strategies.DTYPES[name].width, seed)


def constant(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    return strategies.make("constant", n * width, width, seed)


def zero(name: str, n: int, seed: int) -> bytes:
    return bytes(n * strategies.DTYPES[name].width)


def text(name: str, n: int, seed: int) -> bytes:
    width = strategies.DTYPES[name].width
    return strategies.make("text", n * width, width, seed)


CONTENTS: dict[str, Content] = {
    f.__name__: f
    for f in (
        *(weights, rows, columns, rows_and_columns, outliers),
        *(half_zeros, mostly_zeros, one_other_value, zeros_of_both_signs),
        *(grid, grid_of_rows, grid_of_groups, grid_with_exceptions),
        *(two_values, eight_values, many_values, palette_of_rows),
        *(repeats, repeats_in_step),
        *(sorted_integers, sorted_but_one, ids, counting),
        *(truncated, low_bits_of_exponents, half_noise, half_structure, turns, special),
        *(noise, constant, zero, text),
    )
}


def shape_of(name: str, n: int) -> tuple[int, ...] | None:
    """A shape of rows for so many elements, if they fill them."""
    per = 2 if name.startswith("complex") else 1
    row = row_of(n)
    if row < 2 or n % row or row % per:
        return None
    return (n // row, row // per)
