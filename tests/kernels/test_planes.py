"""Plane kernels: each variant against the reference, the page, and the ends of its buffers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from z4ai._fast import _dispatch, planes
from z4ai._reference import planes as reference

Bytes = npt.NDArray[np.uint8]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "planes.md"
NAMES = dict(enumerate(reference.LAYOUTS))
LENGTHS = [*range(258), 511, 1023, 4099, 10_007]
GUARD = 64
FILL = 0xA5


def noise(nbytes: int, seed: int) -> Bytes:
    """Bytes of a linear congruential generator of our own, the same on every machine."""
    state = np.uint64(seed) + np.arange(nbytes, dtype=np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    return (state >> np.uint64(56)).astype(np.uint8)


class Guarded:
    """A place for n bytes, with guard bytes around it that must stay as they are."""

    def __init__(self, nbytes: int, offset: int) -> None:
        self.memory = np.full(GUARD + offset + nbytes + GUARD, FILL, np.uint8)
        self.room = self.memory[GUARD + offset : GUARD + offset + nbytes]

    def untouched(self) -> bool:
        end = len(self.memory) - GUARD
        first = end - len(self.room)
        return bool((self.memory[:first] == FILL).all() and (self.memory[end:] == FILL).all())


def cases(layout: int) -> Iterator[tuple[Bytes, list[Bytes], int, int]]:
    """Elements, their planes by the reference, count, offset; each length at each offset mod 16."""
    name = NAMES[layout]
    width = reference.layout_width(name)
    elements = noise(max(LENGTHS) * width, layout + 1)
    expected = [
        np.frombuffer(plane, np.uint8) for plane in reference.split(elements.tobytes(), name)
    ]
    for n in LENGTHS:
        for offset in range(16):
            yield elements[: n * width], [plane[:n] for plane in expected], n, offset


def at_offset(source: Bytes, offset: int) -> Bytes:
    moved = np.empty(offset + len(source), np.uint8)[offset:]
    moved[:] = source
    return moved


def test_layouts_are_those_of_the_reference() -> None:
    assert {code: planes.layout_width(code) for code in planes.LAYOUTS} == {
        code: reference.layout_width(name) for code, name in NAMES.items()
    }
    assert [getattr(planes, name.upper()) for name in reference.LAYOUTS] == list(NAMES)


def test_the_private_door_runs_every_variant() -> None:
    x86 = {"scalar", "avx2", "avx512"}
    assert set(planes.variants()) == set(_dispatch.runnable()) & x86
    for isa in planes.variants():
        assert planes.picked(isa) == isa
    assert planes.picked() == planes.picked(_dispatch.current())


@pytest.mark.parametrize("isa", _dispatch.runnable())
@pytest.mark.parametrize("layout", planes.LAYOUTS, ids=NAMES.get)
def test_split_equals_the_reference(layout: int, isa: str) -> None:
    compared = 0
    for elements, expected, n, offset in cases(layout):
        out = [Guarded(n, (offset * 7 + k) % 16) for k in range(len(expected))]
        got = planes.split(at_offset(elements, offset), layout, [o.room for o in out], isa=isa)
        for k, plane in enumerate(expected):
            assert np.array_equal(out[k].room, plane), (n, offset, k)
            assert np.shares_memory(got[k], out[k].room) or n == 0
            assert out[k].untouched(), (n, offset, k)
            compared += 1
    assert compared == len(LENGTHS) * 16 * reference.layout_width(NAMES[layout])


@pytest.mark.parametrize("stream", [False, True], ids=["cached", "streamed"])
@pytest.mark.parametrize("isa", _dispatch.runnable())
@pytest.mark.parametrize("layout", planes.LAYOUTS, ids=NAMES.get)
def test_interleave_equals_the_reference(layout: int, isa: str, stream: bool) -> None:
    compared = 0
    for elements, source, n, offset in cases(layout):
        given = [at_offset(plane, (offset * 5 + k) % 16) for k, plane in enumerate(source)]
        out = Guarded(len(elements), offset)
        planes.interleave(given, layout, n, out.room, stream=stream, isa=isa)
        assert np.array_equal(out.room, elements), (n, offset)
        assert out.untouched(), (n, offset)
        compared += 1
    assert compared == len(LENGTHS) * 16


@pytest.mark.parametrize("isa", _dispatch.runnable())
@pytest.mark.parametrize("layout", planes.LAYOUTS, ids=NAMES.get)
def test_every_pattern_of_the_top_16_bits(layout: int, isa: str) -> None:
    width = planes.layout_width(layout)
    elements = noise(65_536 * width, 99).reshape(65_536, width)
    top = np.arange(65_536, dtype=np.uint16)
    elements[:, width - 1] = top >> 8
    if width > 1:
        elements[:, width - 2] = top & 0xFF
    content = elements.tobytes()
    got = planes.split(content, layout, isa=isa)
    assert [plane.tobytes() for plane in got] == reference.split(content, NAMES[layout])
    assert planes.interleave(got, layout, 65_536, isa=isa).tobytes() == content
    assert reference.interleave([plane.tobytes() for plane in got], NAMES[layout]) == content


@pytest.mark.parametrize("isa", _dispatch.runnable())
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_swap_equals_the_reference(width: int, isa: str) -> None:
    elements = noise(1100 * width, 5)
    expected = np.frombuffer(reference.swap_bytes(elements.tobytes(), width), np.uint8)
    for n in [*range(130), 1100]:
        for offset in range(16):
            source = at_offset(elements[: n * width], offset)
            out = Guarded(n * width, 15 - offset)
            planes.swap_bytes(source, width, out.room, isa=isa)
            assert np.array_equal(out.room, expected[: n * width]), (n, offset)
            assert out.untouched(), (n, offset)
            planes.swap_bytes(source, width, source, isa=isa)
            assert np.array_equal(source, expected[: n * width]), (n, offset, "in place")


@pytest.mark.parametrize("isa", _dispatch.runnable())
def test_stream_copy_copies(isa: str) -> None:
    content = noise(5000, 8)
    for n in [*range(200), 4096, 4999]:
        for offset in range(0, 64, 5):
            out = Guarded(n, offset)
            planes.stream_copy(content[:n], out.room, isa=isa)
            assert np.array_equal(out.room, content[:n]), (n, offset)
            assert out.untouched(), (n, offset)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="no such layout: 7"):
        planes.layout_width(7)
    with pytest.raises(ValueError, match="no such layout: -1"):
        planes.split(b"", -1)
    with pytest.raises(ValueError, match="whole number of 4-byte elements"):
        planes.split(b"12345", planes.FLOAT4)
    with pytest.raises(ValueError, match="out has 1 planes, expected 2"):
        planes.split(b"1234", planes.FLOAT2, [bytearray(2)])
    with pytest.raises(ValueError, match="out has 3 bytes, expected 2"):
        planes.split(b"1234", planes.FLOAT2, [bytearray(2), bytearray(3)])
    with pytest.raises(ValueError, match="plane 1 has 1 bytes, expected 2"):
        planes.interleave([b"ab", b"c"], planes.BYTES2, 2)
    with pytest.raises(ValueError, match="1 planes given, expected 2"):
        planes.interleave([b"ab"], planes.BYTES2, 2)
    with pytest.raises(ValueError, match="n_elems out of range"):
        planes.interleave([b"", b""], planes.BYTES2, -1)
    with pytest.raises(ValueError, match="read-only"):
        planes.interleave([b"a", b"b"], planes.BYTES2, 1, b"12")
    with pytest.raises(ValueError, match="width must be 1, 2, 4 or 8"):
        planes.swap_bytes(b"123", 3)
    with pytest.raises(ValueError, match="cannot run here"):
        planes.split(b"", planes.BYTES1, isa="mmx")


def test_examples_of_the_page() -> None:
    block = re.search(r"```planes\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    seen = set()
    for line in block[1].splitlines():
        head, _, tail = line.partition("=")
        name, *content = head.split()
        elements = bytes.fromhex("".join(content))
        expected = [bytes.fromhex(plane) for plane in tail.split("|")]
        layout = list(reference.LAYOUTS).index(name)
        assert reference.interleave(expected, name) == elements
        assert planes.interleave(expected, layout, len(expected[0])).tobytes() == elements
        assert [plane.tobytes() for plane in planes.split(elements, layout)] == expected
        seen.add(name)
    assert seen == set(reference.LAYOUTS)


FENCED = """
import ctypes, mmap
import numpy as np
from z4ai._fast import _dispatch, hashing, planes

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
keep = []

def fenced():
    # two pages between two that may not be touched
    memory = mmap.mmap(-1, 4 * PAGE)
    whole = np.frombuffer(memory, np.uint8)
    keep.append((memory, whole))
    for page in (0, 3):
        assert libc.mprotect(whole.ctypes.data + page * PAGE, PAGE, 0) == 0
    return whole[PAGE : 3 * PAGE]

wide, narrow = fenced(), [fenced() for _ in range(8)]
runs = 0
for isa in _dispatch.runnable():
    for layout in planes.LAYOUTS:
        width = planes.layout_width(layout)
        for n in [*range(1, 140), 2 * PAGE // width]:
            for end in (False, True):
                place = slice(-n, None) if end else slice(0, n)
                across = slice(-n * width, None) if end else slice(0, n * width)
                cut = [plane[place] for plane in narrow[:width]]
                planes.split(wide[across], layout, cut, isa=isa)
                planes.interleave(cut, layout, n, wide[across], isa=isa)
                planes.interleave(cut, layout, n, wide[across], stream=True, isa=isa)
                planes.swap_bytes(wide[across], width, isa=isa)
                runs += 1
    for n in range(2 * PAGE + 1):
        for place in (slice(0, n), slice(2 * PAGE - n, 2 * PAGE)):
            hashing.xxh3_64(wide[place], isa=isa)
            hashing.xxh3_128(wide[place], isa=isa)
            runs += 1
print(runs)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_no_byte_outside_the_buffers_is_touched() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FENCED], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stderr}"
    assert int(result.stdout) > 5000 * len(_dispatch.runnable())
