"""Kernels of grids and palettes: against the reference, the pages, NumPy, ends of buffers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import noise

from z4ai._fast import structure
from z4ai._reference import grid as grid_reference
from z4ai._reference import palette as palette_reference

Bytes = npt.NDArray[np.uint8]

PAGES = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs"
GUARD = 64
FILL = 0xA5
KINDS = {
    "bf16": structure.BF16,
    "fp16": structure.FP16,
    "fp32": structure.FP32,
    "fp64": structure.FP64,
}
WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}
NUMPY = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
    "fp32": np.dtype(np.float32),
    "fp64": np.dtype(np.float64),
}


class Guarded:
    """A place for n bytes, with guard bytes around it that must stay as they are."""

    def __init__(self, nbytes: int, offset: int = 0) -> None:
        self.memory = np.full(GUARD + offset + nbytes + GUARD, FILL, np.uint8)
        self.room = self.memory[GUARD + offset : GUARD + offset + nbytes]

    def untouched(self) -> bool:
        end = len(self.memory) - GUARD
        first = end - len(self.room)
        return bool((self.memory[:first] == FILL).all() and (self.memory[end:] == FILL).all())


def at_offset(content: bytes, offset: int) -> Bytes:
    moved = np.empty(offset + len(content), np.uint8)[offset:]
    moved[:] = np.frombuffer(content, np.uint8)
    return moved


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def scale_words(data: st.DataObject, name: str, wide: bool, n: int) -> bytes:
    """Scales that the page allows: of all exponents, signs and mantissas, and zeros."""
    mantissa, exponent = (23, 8) if wide else {
        "bf16": (7, 8), "fp16": (10, 5), "fp32": (23, 8), "fp64": (52, 11)
    }[name]  # fmt: skip
    width = (1 + mantissa + exponent) // 8
    words = data.draw(
        st.lists(
            st.tuples(
                st.integers(0, 1),
                st.integers(1, (1 << exponent) - 2),
                st.integers(0, (1 << mantissa) - 1),
                st.integers(0, 9),
            ),
            min_size=n,
            max_size=n,
        )
    )
    out = b""
    for sign, e, m, special in words:
        word = 0 if special == 0 else e << mantissa | m
        if special == 1 and name == "fp16" and not wide:
            word = m  # subnormal as binary16, but not in binary32
        out += (word | sign << (mantissa + exponent)).to_bytes(width, "little")
    return out


@given(st.data())
def test_grid_join_equals_the_reference(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(KINDS)))
    width = WIDTHS[name]
    n = data.draw(st.integers(1, 200))
    flags = data.draw(st.integers(0, 7)) & (6 if name == "fp32" else 7)
    low = data.draw(st.integers(0, 255))
    row = data.draw(st.one_of(st.just(0), st.integers(1, 80)))
    column = data.draw(st.integers(0, row - 1)) if row else 0
    group = data.draw(st.integers(0, (row or n) - 1))
    whole = row or n
    n_groups = structure.grid_groups(n, whole, column, group or whole)
    scales = scale_words(data, name, bool(flags & 1), n_groups)
    codes = data.draw(st.binary(min_size=n, max_size=n))
    n_exceptions = codes.count(255) if flags & 2 else 0
    exceptions = noise(n_exceptions * width, n)
    params = bytes([flags, low]) + varint(row) + varint(column) + varint(group)
    parts = [scales, codes, *([exceptions] if flags & 2 else [])]
    expected = grid_reference.join(params, parts, name, n * width)

    offset = data.draw(st.integers(0, 15))
    out = Guarded(n * width, offset)
    assert structure.grid_join(
        KINDS[name],
        flags,
        low,
        whole,
        column,
        group or whole,
        at_offset(scales, offset % 7),
        at_offset(codes, offset % 5),
        at_offset(exceptions, offset % 3),
        out.room,
    )
    assert out.room.tobytes() == expected, (name, params.hex())
    assert out.untouched()


@pytest.mark.parametrize("name", KINDS)
def test_grid_values_are_those_of_numpy(name: str) -> None:
    """Every integer times scales of every binade, against the casts of NumPy and ml_dtypes."""
    arithmetic = np.float64 if name == "fp64" else np.float32
    integers = np.arange(256, dtype=np.int64) - 100
    compared = 0
    exponents = range(-126, 128) if name != "fp64" else range(-1022, 1024, 5)
    scales = np.ldexp(1.0 + np.frombuffer(noise(len(exponents), 1), np.uint8) / 256, exponents)
    scales[::3] *= np.float64(np.float32(1 + 2**-12 + 2**-20))
    for scale in scales.astype(arithmetic):
        with np.errstate(over="ignore", under="ignore"):
            products = integers.astype(arithmetic) * scale
            expected = products.astype(NUMPY[name]).tobytes()
        out = np.empty(256 * WIDTHS[name], np.uint8)
        wide = name in ("bf16", "fp16")
        stored = scale.astype("<f4" if name != "fp64" else "<f8").tobytes()
        codes = np.arange(256, dtype=np.uint8)
        assert structure.grid_join(
            KINDS[name], int(wide), 100, 256, 0, 256, stored, codes, b"", out
        )
        assert out.tobytes() == expected, (name, scale)
        compared += 1
    assert compared == len(exponents)


def test_groups_are_counted_as_the_page_says() -> None:
    for row in range(1, 12):
        for column in range(row):
            for group in range(1, row + 1):
                for n in range(30):
                    places = {((column + i) // row, (column + i) % row // group) for i in range(n)}
                    assert structure.grid_groups(n, row, column, group) == len(places)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("wide", [False, True])
def test_scales_that_the_page_forbids(name: str, wide: bool) -> None:
    if name == "fp32" and wide:
        return
    fmt, least = {
        "bf16": ("<H", 0x0080), "fp16": ("<H", 0), "fp32": ("<I", 1 << 23), "fp64": ("<Q", 1 << 52)
    }[name]  # fmt: skip
    infinity = {"bf16": 0x7F80, "fp16": 0x7C00, "fp32": 0x7F800000, "fp64": 0x7FF << 52}[name]
    if wide:
        fmt, least, infinity = "<I", 1 << 23, 0x7F800000
    sign = 1 << (8 * struct.calcsize(fmt) - 1)

    def accepts(word: int) -> bool:
        out = np.empty(WIDTHS[name], np.uint8)
        words = struct.pack(fmt, word), struct.pack(fmt, word | sign)
        answers = {
            structure.grid_join(KINDS[name], int(wide), 0, 1, 0, 1, scale, b"\1", b"", out)
            for scale in words
        }
        assert len(answers) == 1
        return answers.pop()

    assert accepts(0)
    assert accepts(max(least, 1))
    assert accepts(infinity - 1)
    assert not accepts(infinity)
    assert not accepts(infinity + 1)
    if least:
        assert not accepts(1)
        assert not accepts(least - 1)


def test_exceptions_must_be_used_up() -> None:
    one = struct.pack("<f", 1.0)
    out = np.empty(8, np.uint8)
    arguments = (structure.FP32, 2, 0, 2, 0, 2, one, b"\xff\x01")
    assert structure.grid_join(*arguments, b"abcd", out)
    assert out.tobytes() == b"abcd" + one
    assert not structure.grid_join(*arguments, b"", out)
    assert not structure.grid_join(*arguments, b"abcdefgh", out)


@pytest.mark.parametrize("width", [2, 4, 8])
@given(data=st.data())
def test_palettes_equal_the_reference(width: int, data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 300))
    row = data.draw(st.integers(0, 60))
    colours = data.draw(
        st.lists(st.binary(min_size=width, max_size=width), min_size=1, max_size=40, unique=True)
    )
    picks = np.frombuffer(noise(n, data.draw(st.integers(0, 99))), np.uint8) % len(colours)
    content = b"".join(colours[k] for k in picks)
    source = at_offset(content, data.draw(st.integers(0, 7)))
    out = Guarded(len(content), data.draw(st.integers(0, 7)))
    if row == 0:
        found = structure.palette_split(source, width)
        assert found is not None
        codes, palette = found
        params = b"\0" + bytes([len(palette) // width - 1])
        parts = [palette.tobytes(), codes.tobytes()]
        assert structure.palette_join(codes, palette, width, out.room)
    else:
        column = data.draw(st.integers(0, row - 1))
        rows = structure.palette_split_rows(source, width, row, column, n)
        assert rows is not None
        codes, sizes, palettes = rows
        params = varint(row) + varint(column)
        parts = [sizes.tobytes(), palettes.tobytes(), codes.tobytes()]
        assert structure.palette_join_rows(codes, sizes, palettes, width, row, column, out.room)
        total = len(palettes) // width
        assert structure.palette_split_rows(source, width, row, column, total - 1) is None
    assert out.room.tobytes() == content
    assert out.untouched()
    assert palette_reference.join(params, parts, width, len(content)) == content


@pytest.mark.parametrize("width", [2, 4, 8])
def test_a_palette_has_256_elements_at_most(width: int) -> None:
    words = np.arange(257, dtype=np.uint64) * np.uint64(251) + np.uint64(7)
    content = words.astype(f"<u{width}")[::-1].copy()
    found = structure.palette_split(content[1:], width)
    assert found is not None
    assert found[1].tobytes() == np.sort(content[1:]).tobytes()
    assert found[0].tolist() == list(range(255, -1, -1))
    assert structure.palette_split(content, width) is None
    assert structure.palette_count(content, width, 1) == 257
    assert structure.palette_count(content, width, 2) == 129
    assert structure.palette_split_rows(content, width, 300, 0, 1000) is None


def test_palettes_of_hostile_parts() -> None:
    out = np.empty(4, np.uint8)
    assert structure.palette_join(b"\0\1", b"\1\0\2\0", 2, out)
    assert not structure.palette_join(b"\0\2", b"\1\0\2\0", 2, out), "a code too large"
    assert not structure.palette_join(b"\0\1", b"\2\0\1\0", 2, out), "a palette that descends"
    assert not structure.palette_join(b"\0\1", b"\2\0\2\0", 2, out), "a palette with one twice"
    assert not structure.palette_join(b"\0\0", b"", 2, out), "no palette"
    assert not structure.palette_join(b"\0\0", bytes(514), 2, out), "a palette of 257"

    def rows(sizes: bytes, palettes: bytes, codes: bytes = b"\0\0") -> bool:
        return structure.palette_join_rows(codes, sizes, palettes, 2, 1, 0, out)

    assert rows(b"\0\0", b"\1\0\1\0")
    assert not rows(b"\0", b"\1\0"), "a row too few"
    assert not rows(b"\0\0\0", b"\1\0\1\0\1\0"), "a row too many"
    assert not rows(b"\0\1", b"\1\0\1\0"), "palettes end early"
    assert not rows(b"\0\0", b"\1\0\1\0\1\0"), "palettes are left"
    assert not rows(b"\0\0", b"\1\0\1\0", b"\0\1"), "a code too large"


def test_wrong_arguments_are_refused() -> None:
    out = np.empty(8, np.uint8)
    with pytest.raises(ValueError, match="no such kind of element: 4"):
        structure.grid_probe(b"", 4, [])
    with pytest.raises(ValueError, match="3 elements at 3 of 4"):
        structure.grid_probe(bytes(8), structure.BF16, [(3, 3)])
    with pytest.raises(ValueError, match="no whole number of 4-byte elements"):
        structure.grid_split(bytes(7), structure.FP32, 1, 0, 1)
    with pytest.raises(ValueError, match="row 4, column 4, group 2"):
        structure.grid_split(bytes(8), structure.FP32, 4, 4, 2)
    with pytest.raises(ValueError, match="group 0"):
        structure.grid_groups(3, 4, 0, 0)
    with pytest.raises(ValueError, match="bytes of scales"):
        structure.grid_join(structure.FP32, 0, 0, 2, 0, 2, b"", b"\0\0", b"", out)
    with pytest.raises(ValueError, match="out has 8 bytes, expected 4"):
        structure.grid_join(structure.FP32, 0, 0, 1, 0, 1, bytes(4), b"\0", b"", out)
    with pytest.raises(ValueError, match="read-only"):
        structure.grid_join(structure.FP32, 0, 0, 1, 0, 1, bytes(4), b"\0", b"", bytes(4))
    with pytest.raises(ValueError, match="1 numbers, 2 elements"):
        structure.grid_codes(np.zeros(1, np.int16), bytes(4), 2, 0, 255, -1, 0)
    with pytest.raises(ValueError, match="not 0 exceptions"):
        structure.grid_codes(np.full(2, 257, np.int16), bytes(4), 2, 0, 254, -1, 0)
    with pytest.raises(ValueError, match="not 3 exceptions"):
        structure.grid_codes(np.full(2, 257, np.int16), bytes(4), 2, 0, 254, -1, 3)
    with pytest.raises(ValueError, match="width must be 2, 4 or 8, not 1"):
        structure.palette_split(b"", 1)
    with pytest.raises(ValueError, match="step must be positive"):
        structure.palette_count(b"", 2, 0)


def lines(page: str) -> list[str]:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    block = re.search(rf"```{page}\n(.*?)```", text, re.DOTALL)
    assert block is not None
    return block[1].splitlines()


def fields(line: str) -> tuple[str, bytes, list[bytes], bytes]:
    head, _, tail = line.partition("=")
    first, *parts = head.split("|")
    name, *params = first.split()
    return (
        name,
        bytes.fromhex("".join(params)),
        [bytes.fromhex(part) for part in parts],
        bytes.fromhex(tail),
    )


def test_examples_of_the_grid_page() -> None:
    seen = set()
    for line in lines("grid"):
        name, params, parts, elements = fields(line)
        assert grid_reference.join(params, parts, name, len(elements)) == elements
        assert grid_reference.n_parts(params) == len(parts)
        flags, low, row, column, group = params
        n = len(parts[1])
        out = np.empty(len(elements), np.uint8)
        assert structure.grid_join(
            KINDS[name],
            flags,
            low,
            row or n,
            column,
            group or row or n,
            *parts[:2],
            parts[2] if flags & 2 else b"",
            out,
        )
        assert out.tobytes() == elements
        seen.add(name)
    assert seen == set(KINDS)


def test_examples_of_the_palette_page() -> None:
    seen = set()
    for line in lines("palette"):
        width, params, parts, elements = fields(line)
        w = int(width)
        assert palette_reference.join(params, parts, w, len(elements)) == elements
        assert palette_reference.n_parts(params) == len(parts)
        out = np.empty(len(elements), np.uint8)
        if params[0] == 0:
            assert structure.palette_join(parts[1], parts[0], w, out)
        else:
            sizes, palettes, codes = parts
            assert structure.palette_join_rows(codes, sizes, palettes, w, *params, out)
        assert out.tobytes() == elements
        seen.add(w)
    assert seen == {2, 4, 8}
