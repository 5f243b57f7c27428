"""Stage palette: few distinct elements and back, what it must leave alone, hostile parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import noise, special_floats, weights

from z4ai._reference import palette as reference
from z4ai.dtypes import DType, resolve
from z4ai.errors import CorruptError
from z4ai.stages import palette
from z4ai.stages._part import Split

Bytes = npt.NDArray[np.uint8]

NAMES = ("bf16", "fp16", "fp32", "fp64", "int16", "uint32", "int64", "complex64")


def raw(content: bytes) -> Bytes:
    return np.frombuffer(content, np.uint8)


def picked(colours: list[bytes], n: int, seed: int = 0) -> bytes:
    """n of the colours, the first few far more often than the last."""
    picks = np.frombuffer(noise(2 * n, seed), np.uint8).astype(np.int64)
    picks = picks[:n] * picks[n:] * len(colours) >> 16
    table = np.array([list(colour) for colour in colours], np.uint8)
    return table[picks].tobytes()


def random_colours(width: int, count: int, seed: int = 0) -> list[bytes]:
    found = dict.fromkeys(noise(width, 1000 * seed + k) for k in range(4 * count))
    return list(found)[:count]


def restore(split: Split, dtype: DType, nbytes: int) -> bytes:
    asked = []

    def parts(k: int, expected: int) -> Bytes:
        assert len(split.parts[k].content) == expected
        asked.append(k)
        return split.parts[k].content

    out = np.full(nbytes, 0xA5, np.uint8)
    palette.join(memoryview(split.params), parts, dtype, nbytes, out)
    assert asked == list(range(palette.n_parts(memoryview(split.params))))
    assert len(asked) == len(split.parts)
    return out.tobytes()


def check(content: bytes, dtype: DType, row: int = 0, first: int = 0) -> Split | None:
    split = palette.split(raw(content), dtype, row, first)
    if split is not None:
        for part in split.parts:
            assert part.content.flags.c_contiguous
            assert len(part.content) % part.dtype.width == 0
        assert restore(split, dtype, len(content)) == content
        parts = [part.content.tobytes() for part in split.parts]
        assert reference.join(split.params, parts, dtype.width, len(content)) == content
    return split


@pytest.mark.parametrize("count", [2, 3, 8, 16, 255, 256])
@pytest.mark.parametrize("name", NAMES)
def test_few_distinct_elements(name: str, count: int) -> None:
    dtype = resolve(name)
    colours = random_colours(dtype.width, count)
    content = picked(colours, 30_000) + b"".join(colours)
    split = check(content, dtype)
    assert split is not None
    first, codes = split.parts
    assert split.params == bytes([0, count - 1])
    assert len(first.content) == count * dtype.width
    assert (first.dtype.width, codes.dtype.name) == (dtype.width, "uint8")
    words = first.content.view(f"<u{dtype.width}")
    assert (words[1:] > words[:-1]).all()
    assert len(codes.content) == len(content) // dtype.width


@pytest.mark.parametrize("name", NAMES)
def test_nan_payloads_and_signed_zeros_are_elements_like_others(name: str) -> None:
    dtype = resolve(name)
    values = special_floats(dtype.width)
    assert check(values * 200, dtype) is not None


@pytest.mark.parametrize("name", NAMES)
def test_what_has_no_palette(name: str) -> None:
    dtype = resolve(name)
    width = dtype.width
    assert check(weights(1 << 16, width), dtype, 256) is None
    assert check(noise(1 << 16), dtype, 256) is None
    assert check(bytes(1 << 16), dtype) is None, "one element is a constant plane"
    assert check(b"", dtype) is None
    assert check(noise(width) + noise(width, 1), dtype) is None
    colours = random_colours(width, 257)
    content = bytes(colours[0]) * 50_000 + b"".join(colours)
    assert check(content, dtype) is None, "257, of which a sample shows few"


def test_bytes_have_no_palette() -> None:
    for name in ("opaque", "int8", "fp8_e4m3"):
        assert palette.split(raw(b"ab" * 4000), resolve(name), 0, 0) is None


@pytest.mark.parametrize("first", [0, 1, 511, 512, 700])
@pytest.mark.parametrize("name", NAMES)
def test_palettes_of_rows(name: str, first: int) -> None:
    dtype = resolve(name)
    rows = [picked(random_colours(dtype.width, 16, seed), 512, seed) for seed in range(1, 41)]
    content = b"".join(rows)[first * dtype.width :]
    split = check(content, dtype, 512, first)
    assert split is not None
    sizes, palettes, codes = split.parts
    assert len(sizes.content) == 40 - first // 512
    assert int(sizes.content.max()) <= 15
    assert len(palettes.content) <= 16 * dtype.width * len(sizes.content)
    assert int(codes.content.max()) <= 15
    assert check(content, dtype, 0, first) is None, "rows are not known"


def test_palettes_of_rows_must_pay() -> None:
    dtype = resolve("bf16")
    rows = [picked(random_colours(2, 16, seed), 40, seed) for seed in range(1, 401)]
    assert check(b"".join(rows), dtype, 40) is None


@given(st.data())
def test_round_trip_of_anything(data: st.DataObject) -> None:
    dtype = resolve(data.draw(st.sampled_from(NAMES)))
    width = dtype.width
    n = data.draw(st.integers(0, 5000))
    row = data.draw(st.sampled_from([0, 1, 7, 64, 300, 4000]))
    first = data.draw(st.integers(0, 5000))
    count = data.draw(st.integers(1, 300))
    seed = data.draw(st.integers(0, 50))
    if row:
        content = b"".join(
            picked(random_colours(width, count % 20 + 1, seed + k % 17), row, k)
            for k in range(n // row + 1)
        )[: n * width]
    else:
        content = picked(random_colours(width, count, seed), n, seed)
    check(content, dtype, row, first)


def join_with(params: bytes, parts: list[bytes], dtype: DType, nbytes: int) -> bytes:
    """Join parts; those of a wrong size are refused as the decoder of frames refuses them."""

    def give(k: int, expected: int) -> Bytes:
        if len(parts[k]) != expected:
            raise CorruptError(f"part {k} has {len(parts[k])} bytes, expected {expected}")
        return raw(parts[k])

    out = np.zeros(nbytes, np.uint8)
    palette.join(memoryview(params), give, dtype, nbytes, out)
    return out.tobytes()


def reference_refuses(params: bytes, parts: list[bytes]) -> bool:
    try:
        reference.join(params, parts, 2, 6)
    except ValueError:
        return True
    return False


BF16 = resolve("bf16")
ONE = (b"\0\1", [b"\1\0\2\0", b"\0\1\1"])
ROWS = (b"\2\1", [b"\0\1", b"\5\0\1\0\2\0", b"\0\1\0"])


def test_these_are_legal() -> None:
    assert not reference_refuses(*ONE)
    assert not reference_refuses(*ROWS)
    assert join_with(*ONE, BF16, 6) == b"\1\0\2\0\2\0"
    assert join_with(*ROWS, BF16, 6) == b"\5\0\2\0\1\0"


@pytest.mark.parametrize(
    "params",
    [
        b"",
        b"\0",
        b"\0\1\0",
        b"\2",
        b"\2\2",
        b"\2\1\0",
        b"\x80",
        b"\x82\0\1",
        b"\x80\x80\x80\x80\x10\0",
        b"\xff" * 10 + b"\0",
    ],
    ids=bytes.hex,
)
def test_hostile_parameters(params: bytes) -> None:
    for _, parts in (ONE, ROWS):
        with pytest.raises(CorruptError):
            join_with(params, parts, BF16, 6)
        assert reference_refuses(params, parts)
    with pytest.raises(CorruptError):
        palette.n_parts(memoryview(params))


@pytest.mark.parametrize(
    ("params", "parts"),
    [
        (b"\0\1", [b"\1\0", b"\0\1\1"]),
        (b"\0\1", [b"\1\0\2\0", b"\0\1"]),
        (b"\0\1", [b"\1\0\2\0", b"\0\1\2"]),
        (b"\0\1", [b"\2\0\1\0", b"\0\1\1"]),
        (b"\0\1", [b"\1\0\1\0", b"\0\1\1"]),
        (b"\2\1", [b"\0", b"\5\0", b"\0\0\0"]),
        (b"\2\1", [b"\0\1\0", b"\5\0\1\0\2\0\1\0", b"\0\1\0"]),
        (b"\2\1", [b"\0\1", b"\5\0\1\0", b"\0\1\0"]),
        (b"\2\1", [b"\0\1", b"\5\0\1\0\2\0\3\0", b"\0\1\0"]),
        (b"\2\1", [b"\0\1", b"\5\0\2\0\1\0", b"\0\1\0"]),
        (b"\2\1", [b"\0\1", b"\5\0\1\0\2\0", b"\1\1\0"]),
        (b"\2\1", [b"\0\1", b"\5\0\1\0\2\0", b"\0\2\0"]),
        (b"\2\1", [b"\0\1", b"\5\0\1\0\2\0", b"\0\1"]),
    ],
)
def test_hostile_parts(params: bytes, parts: list[bytes]) -> None:
    with pytest.raises(CorruptError):
        join_with(params, parts, BF16, 6)
    assert reference_refuses(params, parts)


def test_hostile_widths() -> None:
    with pytest.raises(CorruptError):
        join_with(*ONE, resolve("int8"), 3)
    with pytest.raises(ValueError, match="elements of 1 bytes"):
        reference.join(ONE[0], ONE[1], 1, 3)
