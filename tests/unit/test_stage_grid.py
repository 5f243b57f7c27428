"""Stage grid: dequantised weights and back, what it must leave alone, hostile parts."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import special_floats, weights

from z4ai._reference import grid as reference
from z4ai.dtypes import DType, resolve
from z4ai.errors import CorruptError
from z4ai.stages import grid
from z4ai.stages._part import Split

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

NAMES = ("bf16", "fp16", "fp32", "fp64")
NUMPY: dict[str, np.dtype[Any]] = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
    "fp32": np.dtype(np.float32),
    "fp64": np.dtype(np.float64),
}
ROW = 1024


def gauss(n: int, seed: int = 0) -> Array:
    """Normal numbers of a deviation of 0.02 from a formula, the same on every machine."""
    state = np.arange(2 * n, dtype=np.uint64) + np.uint64(seed << 40)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(32)
    uniform = ((state >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53
    radius, angle = np.sqrt(-2 * np.log(uniform[:n])), 2 * np.pi * uniform[n:]
    return 0.02 * radius * np.cos(angle)


def dequantised(
    name: str,
    levels: int,
    group: int,
    *,
    n: int = 64 * ROW,
    scale: str | None = None,
    lowest: int | None = None,
    clip: float = 1,
    seed: int = 0,
) -> tuple[Array, Array, Array]:
    """-> elements, the integers they stand for, the scales; group 0 is all."""
    arithmetic = np.float64 if name == "fp64" else np.float32
    w = gauss(n, seed).astype(np.float32).reshape(-1, group or n)
    s = np.abs(w).max(axis=1, keepdims=True) * np.float32(clip) / np.float32(levels)
    s = s.astype(NUMPY[scale or name]).astype(arithmetic)
    q = np.rint(w / s).clip(-levels if lowest is None else lowest, levels).astype(np.int32)
    return (q * s).astype(arithmetic).astype(NUMPY[name]).reshape(-1), q, s


def raw(elements: Array) -> Bytes:
    content = np.ascontiguousarray(elements).reshape(-1).view(np.uint8)
    content.flags.writeable = False
    return content


def restore(split: Split, dtype: DType, nbytes: int) -> bytes:
    asked = []

    def parts(k: int, expected: int) -> Bytes:
        assert len(split.parts[k].content) == expected
        asked.append(k)
        content = split.parts[k].content.copy()
        content.flags.writeable = False
        return content

    out = np.full(nbytes, 0xA5, np.uint8)
    grid.join(memoryview(split.params), parts, dtype, nbytes, out)
    assert (
        asked
        == list(range(grid.n_parts(memoryview(split.params))))
        == list(range(len(split.parts)))
    )
    return out.tobytes()


def check(content: Bytes, dtype: DType, row: int = 0, first: int = 0) -> Split | None:
    """Split, and if there is an answer, join it."""
    before = content.tobytes()
    split = grid.split(content, dtype, row, first)
    assert content.tobytes() == before
    if split is not None:
        for part in split.parts:
            assert part.content.dtype == np.uint8
            assert part.content.ndim == 1
            assert part.content.flags.c_contiguous
            assert len(part.content) % part.dtype.width == 0
        assert restore(split, dtype, len(content)) == before
    return split


def entropy_nbytes(codes: Array) -> float:
    _, counts = np.unique(codes, return_counts=True)
    p = counts / counts.sum()
    return float(-(counts * np.log2(p)).sum()) / 8


CASES = [
    ("int8 per tensor", 127, 0, None),
    ("int8 per channel", 127, ROW, None),
    ("int4 per tensor", 7, 0, -8),
    ("int4 in groups", 7, 64, -8),
    ("int4 in groups of 32", 7, 32, -8),
    ("int4 in groups of 128", 7, 128, -8),
]


@pytest.mark.parametrize("rows", [True, False], ids=["rows", "flat"])
@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
@pytest.mark.parametrize("name", NAMES)
def test_parts_are_as_small_as_what_was_quantised(
    name: str, case: tuple[str, int, int, int | None], rows: bool
) -> None:
    _, levels, group, lowest = case
    elements, q, s = dequantised(name, levels, group, lowest=lowest)
    dtype = resolve(name)
    split = check(raw(elements), dtype, ROW if rows else 0)
    assert split is not None
    assert len(split.parts) == 2
    scales, codes = split.parts
    bound = entropy_nbytes(q) + s.size * dtype.width
    assert entropy_nbytes(codes.content) + len(scales.content) <= 1.002 * bound
    # The integers are those that were quantised, not multiples of them.
    found = codes.content.astype(np.int32) - split.params[1]
    assert (found == q.reshape(-1)).all() or name in ("bf16", "fp16")
    assert len(scales.content) == s.size * scales.dtype.width


@pytest.mark.parametrize("case", CASES[1:4], ids=[case[0] for case in CASES[1:4]])
@pytest.mark.parametrize("name", ["bf16", "fp16", "fp64"])
def test_scales_of_binary32(name: str, case: tuple[str, int, int, int | None]) -> None:
    _, levels, group, lowest = case
    elements, q, s = dequantised(name, levels, group, lowest=lowest, scale="fp32")
    split = check(raw(elements), resolve(name), ROW)
    assert split is not None
    if group != 0 or name == "fp64":  # one scale may happen to have a short form
        assert split.params[0] & grid.WIDE_SCALES
        assert split.parts[0].dtype.name == "fp32"
    exceptions = len(split.parts[2].content) if len(split.parts) == 3 else 0
    assert exceptions <= 0.001 * len(split.parts[1].content)
    assert entropy_nbytes(split.parts[1].content) <= 1.01 * entropy_nbytes(q)
    assert len(split.parts[0].content) == split.parts[0].dtype.width * s.size


def test_integers_that_a_sample_does_not_show() -> None:
    """They narrow the scale further; a scale that only the sample agrees with is not enough."""
    for seed in range(20):
        q = np.rint(gauss(64 * ROW, seed) * 40).astype(np.int32).clip(-2, 2)
        q[1::4096], q[2::4096], q[3::4096] = 5, -7, 3  # a sample of 1,024 takes every 64th
        scale = np.float32(0.0157 + seed * 1.37e-5)
        elements = (q * scale).astype(np.float32).astype(NUMPY["bf16"])
        split = check(raw(elements), resolve("bf16"), ROW)
        assert split is not None
        assert len(split.parts[0].content) in (2, 4)
        assert not split.params[0] & grid.EXCEPTIONS
        assert (split.parts[1].content.astype(np.int32) - split.params[1] == q).all()


@pytest.mark.parametrize("name", NAMES)
def test_clipped_and_asymmetric_integers(name: str) -> None:
    """Groups whose largest integer is not always the same; integers of which none is negative."""
    elements, q, _ = dequantised(name, 7, 128, lowest=-8, clip=0.8)
    split = check(raw(elements), resolve(name), ROW)
    assert split is not None
    assert entropy_nbytes(split.parts[1].content) <= 1.01 * entropy_nbytes(q)

    q = (gauss(64 * ROW) * 50 * 255).astype(np.int32).clip(-40, 215)
    scale = NUMPY["fp64" if name == "fp64" else "fp32"].type(0.013)
    elements = (q * scale).astype(scale.dtype).astype(NUMPY[name])
    split = check(raw(elements), resolve(name), ROW)
    assert split is not None
    if name in ("fp32", "fp64"):
        assert split.params[1] == -q.min()
    assert entropy_nbytes(split.parts[1].content) <= 1.01 * entropy_nbytes(q)


@pytest.mark.parametrize("name", NAMES)
def test_first_within_a_row_and_a_group(name: str) -> None:
    row = 1000  # the last of its groups has 40 elements
    w = gauss(80 * row).astype(np.float32).reshape(-1, row)
    arithmetic = np.float64 if name == "fp64" else np.float32
    elements = np.empty_like(w, arithmetic)
    for begin in range(0, row, 64):
        part = w[:, begin : begin + 64]
        s = (np.abs(part).max(axis=1, keepdims=True) / 7).astype(NUMPY[name]).astype(arithmetic)
        elements[:, begin : begin + 64] = np.rint(part / s).astype(np.int32) * s
    flat = elements.astype(NUMPY[name]).reshape(-1)
    for first in (0, 1, 17, 64, 999, 1000, 1001, 40_123):
        split = check(raw(flat[first:]), resolve(name), row, first)
        assert split is not None
        column = first % row
        groups = sum(1 for i in range(first, len(flat)) if i == first or i % row % 64 == 0)
        assert len(split.parts) == 2
        assert len(split.parts[0].content) == groups * split.parts[0].dtype.width
        assert column == first % row


@pytest.mark.parametrize("name", NAMES)
def test_groups_of_a_flat_buffer_begin_before_it(name: str) -> None:
    elements, _, s = dequantised(name, 7, 64, lowest=-8)
    split = check(raw(elements[100:]), resolve(name), 0, 100)
    assert split is not None
    assert len(split.parts) == 2
    assert len(split.parts[0].content) == (s.size - 1) * split.parts[0].dtype.width


@pytest.mark.parametrize("name", NAMES)
def test_exceptions_are_kept_as_they_are(name: str) -> None:
    elements, q, _ = dequantised(name, 7, 64, lowest=-8)
    dtype = resolve(name)
    odd = np.frombuffer(special_floats(dtype.width), NUMPY[name])
    elements = elements.copy()
    where = np.arange(50, len(elements), 311)
    elements[where] = np.resize(odd, len(where))
    split = check(raw(elements), dtype, ROW)
    assert split is not None
    assert split.params[0] & (grid.EXCEPTIONS | grid.MINUS_ZEROS) == 6
    scales, codes, exceptions = split.parts
    assert exceptions.dtype == dtype
    n_exceptions = len(exceptions.content) // dtype.width
    assert n_exceptions == np.count_nonzero(codes.content == 255) <= len(where)
    assert scales.dtype == (dtype if name != "fp64" else resolve("fp32"))
    assert entropy_nbytes(codes.content) < 1.02 * entropy_nbytes(q)

    elements[::30] = gauss(len(elements[::30])).astype(NUMPY[name])
    assert check(raw(elements), dtype, ROW) is None, "too many exceptions"


@pytest.mark.parametrize("name", ["bf16", "fp32"])
@pytest.mark.parametrize("stretch", [1, 30], ids=["within", "outliers"])
def test_some_elements_off_the_grid(name: str, stretch: int) -> None:
    elements, q, _ = dequantised(name, 127, ROW)
    elements = elements.copy()
    where = np.arange(7, len(elements), 401)
    elements[where] = (gauss(len(where), 3) * stretch).astype(NUMPY[name])
    split = check(raw(elements), resolve(name), ROW)
    assert split is not None
    assert len(split.parts[2].content) <= 1.1 * len(where) * elements.itemsize
    assert entropy_nbytes(split.parts[1].content) <= 1.02 * entropy_nbytes(q)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [7, 127])
def test_negative_zeros_of_rounding(name: str, levels: int) -> None:
    """Quantised in floating point alone, what rounds to zero from below is -0.0."""
    elements, q, _ = dequantised(name, levels, ROW)
    signs = np.where(gauss(len(elements)) < 0, -1.0, 1.0)
    elements = np.copysign(elements.astype(np.float64), signs).astype(NUMPY[name])
    split = check(raw(elements), resolve(name), ROW)
    assert split is not None
    assert split.params[0] & ~grid.WIDE_SCALES == grid.MINUS_ZEROS
    assert np.count_nonzero(split.parts[1].content == 255) == np.count_nonzero(
        np.signbit(elements.astype(np.float64)) & (q.reshape(-1) == 0)
    )


def test_256_integers_and_exceptions() -> None:
    """Code 255 is needed: the rarer end of the integers becomes exceptions too."""
    q = np.resize(np.arange(-128, 128), 64 * ROW).copy()
    q[q == -128] = -1
    q[0] = -128
    elements = (q * np.float32(0.001)).astype(np.float32)
    dtype = resolve("fp32")
    split = check(raw(elements), dtype, ROW)
    assert split is not None
    assert split.params[0] == 0
    assert split.params[1] == 128
    elements[5] = np.nan
    elements[6] = -0.0
    split = check(raw(elements), dtype, ROW)
    assert split is not None
    assert split.params[0] == grid.EXCEPTIONS
    assert split.params[1] == 127
    assert split.parts[2].content.tobytes() == elements[[0, 5, 6]].tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_ordinary_weights_are_left_alone(name: str) -> None:
    dtype = resolve(name)
    for seed in range(20):
        elements = gauss(64 * ROW, seed).astype(NUMPY[name])
        assert grid.split(raw(elements), dtype, ROW, 0) is None
        assert grid.split(raw(elements), dtype, 0, 0) is None
        zeros = np.where(gauss(64 * ROW, 50 + seed) < 0.02 * (seed / 10 - 1), elements, 0)
        assert check(raw(zeros.astype(NUMPY[name])), dtype, ROW) is None
    content = np.frombuffer(weights(1 << 17, dtype.width), np.uint8)
    assert grid.split(content, dtype, ROW, 0) is None


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_grid_to_find(name: str) -> None:
    dtype = resolve(name)
    for value in (0.0, -0.0, 1.0, math.nan, math.inf):
        assert check(raw(np.full(8192, value, NUMPY[name])), dtype, ROW) is None
    assert grid.split(np.empty(0, np.uint8), dtype, ROW, 0) is None
    assert grid.split(raw(np.arange(16).astype(NUMPY[name])), dtype, 0, 0) is None


def test_other_dtypes_are_left_alone() -> None:
    content = raw(dequantised("fp32", 7, 0)[0])
    for name in ("opaque", "int8", "int32", "uint64", "fp8_e4m3", "bool"):
        assert grid.split(content, resolve(name), ROW, 0) is None


@pytest.mark.parametrize(("name", "twin"), [("complex64", "fp32"), ("complex128", "fp64")])
def test_complex_numbers_are_pairs(name: str, twin: str) -> None:
    elements, _, _ = dequantised(twin, 7, 64)
    split = check(raw(elements), resolve(name), ROW)
    assert split is not None
    assert split.parts[0].dtype.name in (twin, "fp32")
    assert split.params == grid.split(raw(elements), resolve(twin), ROW, 0).params  # type: ignore[union-attr]


@given(st.data())
def test_round_trip_of_anything_on_a_grid(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(NAMES))
    dtype = resolve(name)
    row = data.draw(st.sampled_from([0, 1, 5, 16, 64, 100, 768, 1000, 5000]))
    first = data.draw(st.integers(0, 3000))
    n = data.draw(st.integers(1024, 9000))
    group = data.draw(st.sampled_from([16, 32, 64, 128, 100, row or 7, 9000]))
    largest = data.draw(st.sampled_from([1, 2, 3, 7, 8, 31, 127, 128, 200, 255]))
    seed = data.draw(st.integers(0, 1000))
    exponent = data.draw(st.integers(-20, 3))
    q = np.rint(gauss(n, seed) * 25 * largest).clip(-largest, largest)
    number = (first % row + np.arange(n)) % row if row else first + np.arange(n)
    s = np.ldexp(1 + 50 * np.abs(gauss(n, seed + 1)), exponent).astype(NUMPY[name])
    elements = q * s.astype(np.float64)[number // group]
    if name != "fp64":
        elements = elements.astype(np.float32)
    elements = elements.astype(NUMPY[name])
    odd = np.frombuffer(special_floats(dtype.width), NUMPY[name])
    for _ in range(data.draw(st.integers(0, 12))):
        elements[data.draw(st.integers(0, n - 1))] = data.draw(st.sampled_from(list(odd)))
    content = raw(elements)
    split = check(content, dtype, row, first)
    if split is not None:
        parts = [part.content.tobytes() for part in split.parts]
        assert reference.join(split.params, parts, name, len(content)) == content.tobytes()


def a_split() -> Split:
    elements, _, _ = dequantised("bf16", 7, 64, n=4096)
    elements = elements.copy()
    elements[10] = np.nan
    split = check(raw(elements), resolve("bf16"), ROW)
    assert split is not None
    assert len(split.parts) == 3
    return split


def join_with(params: bytes, parts: list[bytes], name: str = "bf16") -> bytes:
    """Join parts; those of a wrong size are refused as the decoder of frames refuses them."""

    def give(k: int, expected: int) -> Bytes:
        if len(parts[k]) != expected:
            raise CorruptError(f"part {k} has {len(parts[k])} bytes, expected {expected}")
        return np.frombuffer(parts[k], np.uint8)

    out = np.zeros(8192, np.uint8)
    grid.join(memoryview(params), give, resolve(name), 8192, out)
    return out.tobytes()


def reference_refuses(params: bytes, parts: list[bytes]) -> bool:
    try:
        reference.join(params, parts, "bf16", 8192)
    except ValueError:
        return True
    return False


def test_hostile_parameters() -> None:
    split = a_split()
    parts = [part.content.tobytes() for part in split.parts]
    assert split.params == bytes([2, split.params[1], 0x80, 8, 0, 64])
    good = join_with(split.params, parts)
    low = split.params[1]
    hostile = {
        "reserved flag": bytes([10, low, 0x80, 8, 0, 64]),
        "nothing": b"",
        "one byte": bytes([2]),
        "ends early": split.params[:-1],
        "bytes behind": split.params + b"\0",
        "column = row": bytes([2, low, 0x80, 8, 0x80, 8, 64]),
        "column without row": bytes([2, low, 0, 1, 64]),
        "group = row": bytes([2, low, 64, 0, 64]),
        "group above the chunk": bytes([2, low, 0, 0, 0x80, 32]),
        "row of 2**32": bytes([2, low, 0x80, 0x80, 0x80, 0x80, 0x10, 0, 64]),
        "varint not the shortest": bytes([2, low, 0x80, 8, 0x80, 0, 64]),
        "varint of 70 bits": bytes([2, low, *[0xFF] * 10, 1, 0, 64]),
    }
    for what, params in hostile.items():
        with pytest.raises(CorruptError):
            join_with(params, parts)
        assert reference_refuses(params, parts), what
    for what in ("reserved flag", "nothing", "ends early", "column = row"):
        with pytest.raises(CorruptError):
            grid.n_parts(memoryview(hostile[what]))
    assert join_with(split.params, parts) == good
    assert not reference_refuses(split.params, parts)


def test_hostile_parts() -> None:
    split = a_split()
    scales, codes, rest = (part.content.tobytes() for part in split.parts)
    for parts in (
        [scales[2:], codes, rest],
        [scales + b"\0\0", codes, rest],
        [scales, codes[1:], rest],
        [scales, codes, rest + b"\0\0"],
        [scales, codes, b""],
        [scales, b"\xff" + codes[1:], rest],
        [b"\x80\x7f" + scales[2:], codes, rest],
        [b"\xff\xff" + scales[2:], codes, rest],
        [scales[:-2] + b"\1\0", codes, rest],
    ):
        with pytest.raises(CorruptError):
            join_with(split.params, parts)
        assert reference_refuses(split.params, parts)


def test_hostile_dtypes() -> None:
    split = a_split()
    parts = [part.content.tobytes() for part in split.parts]
    with pytest.raises(CorruptError):
        join_with(split.params, parts, "int16")
    with pytest.raises(CorruptError):
        join_with(split.params, parts, "fp8_e4m3")
    wide = bytes([split.params[0] | grid.WIDE_SCALES]) + split.params[1:]
    with pytest.raises(CorruptError):
        join_with(wide, parts, "fp32")
