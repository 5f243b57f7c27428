"""Symbol kernels: each variant against NumPy written from the page, and the ends of its buffers."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from z4ai._fast import _dispatch, symbols

Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "symbols.md"
X86 = {"scalar", "avx2", "avx512"}
GUARD = 64
FILL = 0xA5


class Kind(NamedTuple):
    """A row of the page's table: t is the upper half word, of one byte the byte."""

    width: int
    below: int  # bits of t below the field
    bits: int  # of the field
    rest: int  # bits of a remainder


KINDS = {
    symbols.SYMBOLS1: Kind(1, 0, 8, 0),
    symbols.SYMBOLS2: Kind(2, 5, 10, 6),
    symbols.SYMBOLS2H: Kind(2, 7, 8, 8),
    symbols.SYMBOLS4: Kind(4, 5, 10, 6),
    symbols.SYMBOLS8: Kind(8, 3, 12, 4),
}
NAMES = {
    symbols.SYMBOLS1: "symbols1",
    symbols.SYMBOLS2: "symbols2",
    symbols.SYMBOLS2H: "symbols2h",
    symbols.SYMBOLS4: "symbols4",
    symbols.SYMBOLS8: "symbols8",
}
LENGTHS = [*range(201), 511, 1023, 1024, 1025, 2049, 4099, 10_007]
BASES = {
    symbols.SYMBOLS1: [0],
    symbols.SYMBOLS2: [0, 300, 1023, 65_400],
    symbols.SYMBOLS2H: [0],
    symbols.SYMBOLS4: [0, 300, 65_535],
    symbols.SYMBOLS8: [0, 1700, 4000, 65_336],
}
kinds = pytest.mark.parametrize("kind", symbols.KINDS, ids=NAMES.get)
variants = pytest.mark.parametrize("isa", sorted(set(_dispatch.runnable()) & X86))


# ---- the page in NumPy ----


def halves(kind: int, content: Bytes) -> Numbers:
    elements = content.reshape(-1, KINDS[kind].width).astype(np.int64)
    if KINDS[kind].width == 1:
        return elements[:, 0]
    return elements[:, -2] | elements[:, -1] << 8


def fields(kind: int, content: Bytes) -> Numbers:
    return halves(kind, content) >> KINDS[kind].below & (1 << KINDS[kind].bits) - 1


def to_symbols(kind: int, field: Numbers, base: int) -> Bytes:
    if KINDS[kind].bits == 8:
        return field.astype(np.uint8)
    y = (field - base) % 65_536
    y[(y < 1) | (y > 254)] = 255
    y[field == 0] = 0
    return y.astype(np.uint8)


def to_fields(kind: int, y: Bytes, base: int) -> Numbers:
    if KINDS[kind].bits == 8:
        return y.astype(np.int64)
    field = (base + y.astype(np.int64)) % 65_536
    field[y == 0] = 0
    return field


def remainders(kind: int, content: Bytes) -> Bytes:
    t, below = halves(kind, content), KINDS[kind].below
    return (t >> 15 << below | t & (1 << below) - 1).astype(np.uint8)


def planes_below(kind: int, content: Bytes) -> list[Bytes]:
    elements = content.reshape(-1, KINDS[kind].width)
    return [elements[:, k].copy() for k in range(KINDS[kind].width - 3, -1, -1)]


def put_together(kind: int, field: Numbers, rest: Bytes, low: list[Bytes]) -> Bytes:
    width, below, _, r = KINDS[kind]
    elements = np.empty((len(field), width), np.uint8)
    for k, plane in enumerate(low):
        elements[:, width - 3 - k] = plane
    if width == 1:
        elements[:, 0] = field
        return elements.ravel()
    rest_bits = rest.astype(np.int64) & (1 << r) - 1
    t = rest_bits >> below << 15 | field << below | rest_bits & (1 << below) - 1
    elements[:, width - 2], elements[:, width - 1] = t & 0xFF, t >> 8
    return elements.ravel()


def packed_by_page(kind: int, rest: Bytes) -> bytes:
    r = KINDS[kind].rest
    if r in (0, 8):
        return rest.tobytes() if r else b""
    out = bytearray()
    whole = len(rest) // 64 * 64
    for start in range(0, whole, 64):
        group = [int(value) for value in rest[start : start + 64]]
        out += bytes([group[j] & 15 | (group[j + 32] & 15) << 4 for j in range(32)])
        if r == 6:
            upper = [value >> 4 & 3 for value in group]
            out += bytes([sum(upper[j + 16 * k] << 2 * k for k in range(4)) for j in range(16)])
    string = sum((int(value) & (1 << r) - 1) << r * j for j, value in enumerate(rest[whole:]))
    return bytes(out) + string.to_bytes(-(-(len(rest) - whole) * r // 8), "little")


# ---- data ----


def noise(nbytes: int, seed: int) -> Bytes:
    """Bytes of a linear congruential generator of our own, the same on every machine."""
    state = np.uint64(seed) + np.arange(nbytes, dtype=np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    return (state >> np.uint64(56)).astype(np.uint8)


def elements_of(kind: int, n: int, seed: int) -> Bytes:
    """Noise, of which every seventh element has the field 0."""
    width, below, bits, _ = KINDS[kind]
    content = noise(n * width, seed)
    chosen = np.arange(n) % 7 == 3
    if width == 1:
        content[chosen] = 0
    else:
        t = content.reshape(-1, width)[:, -2:].copy().view("<u2")
        t[chosen] &= 0xFFFF ^ ((1 << bits) - 1 << below)
        content.reshape(-1, width)[:, -2:] = t.view(np.uint8)
    return content


class Guarded:
    """A place for n bytes, with guard bytes around it that must stay as they are."""

    def __init__(self, nbytes: int, offset: int) -> None:
        self.memory = np.full(GUARD + offset + nbytes + GUARD, FILL, np.uint8)
        self.room = self.memory[GUARD + offset : GUARD + offset + nbytes]

    def untouched(self) -> bool:
        end = len(self.memory) - GUARD
        first = end - len(self.room)
        return bool((self.memory[:first] == FILL).all() and (self.memory[end:] == FILL).all())


def at_offset(source: Bytes, offset: int) -> Bytes:
    moved = np.empty(offset + len(source), np.uint8)[offset:]
    moved[:] = source
    return moved


def offsets(n: int) -> range:
    """Every offset of short buffers, a few of the others."""
    return range(0, 16, 1 if n < 140 else 5)


# ---- tests ----


def test_the_private_door_runs_every_variant() -> None:
    assert set(symbols.variants()) == set(_dispatch.runnable()) & X86
    for isa in symbols.variants():
        assert symbols.picked(isa) == isa
    assert symbols.picked() == symbols.picked(_dispatch.current())


def test_kinds_are_those_of_the_page() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `(symbols\w+)` \| (\d) \|.*\br = (\d) \|$", PAGE.read_text(), re.MULTILINE
    )
    assert [(int(i) - 7, name, int(w), int(r)) for i, name, w, r in rows] == [
        (kind, NAMES[kind], KINDS[kind].width, KINDS[kind].rest) for kind in symbols.KINDS
    ]
    for kind, (width, _, bits, rest) in KINDS.items():
        assert symbols.width(kind) == width
        assert symbols.field_bits(kind) == bits
        assert symbols.rest_bits(kind) == rest
        for n in range(300):
            assert symbols.packed_nbytes(kind, n) == len(packed_by_page(kind, noise(n, 1)))


@variants
@kinds
def test_split_equals_the_page(kind: int, isa: str) -> None:
    compared = 0
    source = elements_of(kind, max(LENGTHS), kind + 1)
    width = KINDS[kind].width
    for n in LENGTHS:
        content = source[: n * width]
        for offset in offsets(n):
            base = BASES[kind][(n + offset) % len(BASES[kind])]
            expected = [to_symbols(kind, fields(kind, content), base)]
            if width > 1:
                expected += [remainders(kind, content), *planes_below(kind, content)]
            out = [Guarded(n, (offset * 7 + k) % 16) for k in range(width)]
            got = symbols.split(
                at_offset(content, offset), kind, base, [o.room for o in out], isa=isa
            )
            for k, part in enumerate(expected):
                assert np.array_equal(out[k].room, part), (n, offset, base, k)
                assert np.shares_memory(got[k], out[k].room) or n == 0
                assert out[k].untouched(), (n, offset, k)
                compared += 1
    assert compared == sum(len(offsets(n)) for n in LENGTHS) * width


@variants
@kinds
def test_merge_equals_the_page(kind: int, isa: str) -> None:
    compared = 0
    width, _, bits, _ = KINDS[kind]
    source, pool = noise(max(LENGTHS), 11), [noise(max(LENGTHS), 20 + k) for k in range(7)]
    source[::9] = 0
    for n in LENGTHS:
        for offset in offsets(n):
            base = BASES[kind][(n + offset) % len(BASES[kind])]
            y, rest, low = source[:n], pool[0][:n], [plane[:n] for plane in pool[1 : width - 1]]
            # bits of a sum that no field has are dropped
            field = to_fields(kind, y, base) & (1 << bits) - 1
            expected = put_together(kind, field, rest, low)
            moved = at_offset(y, offset)
            planes = [at_offset(plane, (offset * 5 + k) % 16) for k, plane in enumerate(low)]
            out = Guarded(n * width, offset * 3 % 16)
            got = symbols.merge(
                moved, at_offset(rest, offset + 1), planes, kind, base, out.room, isa=isa
            )
            assert np.array_equal(out.room, expected), (n, offset, base)
            assert np.shares_memory(got, out.room) or n == 0
            assert out.untouched(), (n, offset)
            packed = np.frombuffer(packed_by_page(kind, rest), np.uint8)
            out = Guarded(n * width, offset)
            symbols.merge_packed(
                moved, at_offset(packed, offset + 2), planes, kind, base, out.room, isa=isa
            )
            assert np.array_equal(out.room, expected), (n, offset, base)
            assert out.untouched(), (n, offset)
            compared += 2
    assert compared == 2 * sum(len(offsets(n)) for n in LENGTHS)


@variants
@kinds
def test_pack_equals_the_page(kind: int, isa: str) -> None:
    compared = 0
    r = KINDS[kind].rest
    source = noise(max(LENGTHS), 31)
    for n in LENGTHS:
        rest = source[:n]  # with bits above those that count
        expected = np.frombuffer(packed_by_page(kind, rest), np.uint8)
        for offset in offsets(n):
            out = Guarded(len(expected), offset)
            symbols.pack(at_offset(rest, offset * 3 % 16), kind, out.room, isa=isa)
            assert np.array_equal(out.room, expected), (n, offset)
            assert out.untouched(), (n, offset)
            compared += 1
            if r == 0:
                continue
            out = Guarded(n, offset)
            symbols.unpack(at_offset(expected, offset * 7 % 16), n, kind, out.room, isa=isa)
            assert np.array_equal(out.room, rest & (1 << r) - 1), (n, offset)
            assert out.untouched(), (n, offset)
            compared += 1
    assert compared == (2 if r else 1) * sum(len(offsets(n)) for n in LENGTHS)


@variants
@pytest.mark.parametrize("kind", [k for k in KINDS if KINDS[k].rest in (4, 6)], ids=NAMES.get)
def test_unused_bits_behind_the_last_remainder_do_not_count(kind: int, isa: str) -> None:
    r = KINDS[kind].rest
    for n in range(1, 140):
        rest = noise(n, n) & (1 << r) - 1
        packed = symbols.pack(rest, kind, isa=isa)
        unused = -(n % 64) * r % 8
        packed[-1] |= (0xFF << (8 - unused)) & 0xFF if unused else 0
        assert np.array_equal(symbols.unpack(packed, n, kind, isa=isa), rest), n


@variants
@kinds
def test_every_pattern_of_the_upper_half_word(kind: int, isa: str) -> None:
    width, _, bits, _ = KINDS[kind]
    patterns = 65_536 if width > 1 else 256
    elements = noise(patterns * width, 99).reshape(patterns, width)
    top = np.arange(patterns)
    elements[:, width - 1] = top >> 8 if width > 1 else top
    if width > 1:
        elements[:, width - 2] = top & 0xFF
    content = elements.ravel()
    field = fields(kind, content)
    for base in [*BASES[kind], *([1 << bits - 1] if bits > 8 else [])]:
        y, *parts = symbols.split(content, kind, base, isa=isa)
        assert np.array_equal(y, to_symbols(kind, field, base))
        rest, low = (parts[0], parts[1:]) if parts else (None, [])
        packed = None if rest is None else symbols.pack(rest, kind, isa=isa)
        raw = np.flatnonzero(y == 255) if bits > 8 else np.arange(0)
        restored = np.sort(np.unique(field[raw]))
        window = {(base + v) % 65_536 for v in range(1, 255)} | {0}
        if bits > 8:
            assert restored.tolist() == sorted(set(range(1 << bits)) - window)
        for back in (
            symbols.merge(y, rest, low, kind, base, isa=isa),
            symbols.merge_packed(y, packed, low, kind, base, isa=isa),
        ):
            got = back.reshape(patterns, width)
            same = (got == elements).all(axis=1)
            assert same[y != 255].all() if bits > 8 else same.all()
            for i in raw[:: max(1, len(raw) // 500)]:
                symbols.patch(kind, symbols.field(kind, elements[i]), got[i])
                assert np.array_equal(got[i], elements[i]), i


@kinds
def test_field_and_patch_equal_the_page(kind: int) -> None:
    width, _, bits, _ = KINDS[kind]
    content = elements_of(kind, 3000, 7)
    expected = fields(kind, content)
    for i, element in enumerate(content.reshape(-1, width)):
        assert symbols.field(kind, element) == expected[i]
        wanted = i * 37 % (1 << bits)
        room = Guarded(width, i % 16)
        room.room[:] = element
        symbols.patch(kind, wanted, room.room)
        rest = remainders(kind, element) if width > 1 else np.empty(0, np.uint8)
        assert np.array_equal(
            room.room,
            put_together(kind, np.array([wanted]), rest, planes_below(kind, element)),
        )
        assert room.untouched()


@variants
def test_contexts_equal_the_page(isa: str) -> None:
    compared = 0
    source = noise(max(LENGTHS), 41) % 200
    for n in LENGTHS:
        for offset in offsets(n):
            for shift in range(8):
                row, most = (n + 3 * offset) % 55, (63, 0, 254, 9, 31)[(n + shift) % 5]
                columns = None if (n + shift) % 6 == 5 else at_offset(source[:n], offset)
                added = np.zeros(n, np.int64) if columns is None else columns.astype(np.int64)
                expected = np.minimum((row + added) >> shift, most)
                out = Guarded(n, offset * 3 % 16)
                symbols.contexts(row, columns, n, shift, most, out.room, isa=isa)
                assert np.array_equal(out.room, expected), (n, offset, shift)
                assert out.untouched(), (n, offset, shift)
                compared += 1
    assert compared == 8 * sum(len(offsets(n)) for n in LENGTHS)


@variants
@pytest.mark.parametrize("spread", [1, 30, 256])
def test_count_equals_numpy(isa: str, spread: int) -> None:
    compared = 0
    source, chosen = noise(200_003, 51), noise(200_003, 52)
    for rows in (1, 2, 3, 9, 22, 64):
        for n in [*range(0, 201, 7), 511, 1024, 4099, 70_001, 200_003]:
            y = at_offset((255 - source[:n].astype(int) % spread).astype(np.uint8), n % 16)
            context = at_offset(chosen[:n] % rows, n % 11)
            before = np.arange(rows * 256, dtype=np.uint32).reshape(rows, 256)
            at = y.astype(np.int64)
            for contexts in (context, None):
                places = at if contexts is None else at + 256 * contexts.astype(np.int64)
                counts = before.copy()
                symbols.count(y, contexts, counts, isa=isa)
                added = np.bincount(places, minlength=rows * 256).reshape(rows, 256)
                assert np.array_equal(counts, before + added), (rows, n, contexts is None)
                compared += 1
    assert compared == 6 * 34 * 2


@variants
def test_count_holds_more_than_16_bits_of_one_symbol(isa: str) -> None:
    y = np.full(300_000, 77, np.uint8)
    contexts = np.full(300_000, 5, np.uint8)
    counts = np.zeros((6, 256), np.uint32)
    symbols.count(y, contexts, counts, isa=isa)
    symbols.count(y, None, counts, isa=isa)
    assert counts[5, 77] == counts[0, 77] == 300_000
    assert counts.sum() == 600_000


@variants
def test_weigh_equals_numpy(isa: str) -> None:
    compared = 0
    source = noise(max(LENGTHS), 61)
    source[::5], source[1::6] = 255, 0
    for n in LENGTHS:
        for offset in offsets(n):
            floor = (0, 1, 77, 128, 200, 254, 255)[(n + offset) % 7]
            y = at_offset(source[:n], offset)
            plain = np.where(y == 255, 0, y).astype(np.int64)
            expected = np.maximum(plain, floor)
            assert symbols.weigh(y, floor, isa=isa) == expected.sum(), (n, offset, floor)
            memory = np.arange(n + 32, dtype=np.uint32)
            before = memory.copy()
            total = symbols.weigh(y, floor, memory[16 : 16 + n], isa=isa)
            assert total == expected.sum(), (n, offset, floor)
            before[16 : 16 + n] += expected.astype(np.uint32)
            assert np.array_equal(memory, before), (n, offset, floor)
            compared += 1
    assert compared == sum(len(offsets(n)) for n in LENGTHS)


@variants
def test_weigh_does_not_overflow(isa: str) -> None:
    y = np.full(20_000_000, 254, np.uint8)
    assert symbols.weigh(y, 0, isa=isa) == 254 * len(y)  # beyond 32 bits


def test_doors_check_what_they_are_given() -> None:
    two = np.zeros(4, np.uint8)
    counts = np.zeros((1, 256), np.uint32)
    wrong: list[tuple[str, Callable[[], object]]] = [
        ("no such kind: 5", lambda: symbols.width(5)),
        ("no whole number of 2-byte", lambda: symbols.split(two[:3], symbols.SYMBOLS2)),
        ("base out of range", lambda: symbols.split(two, symbols.SYMBOLS2, 65_536)),
        ("4 bytes, expected 2", lambda: symbols.split(two, symbols.SYMBOLS2, 0, [two, two])),
        ("1 parts, expected 2", lambda: symbols.split(two, symbols.SYMBOLS2, 0, [two[:2]])),
        ("mmx", lambda: symbols.split(two, symbols.SYMBOLS2, isa="mmx")),
        ("3 bytes, expected 4", lambda: symbols.merge(two, two[:3], [], symbols.SYMBOLS2)),
        ("1 planes of low bytes", lambda: symbols.merge(two, two, [two], symbols.SYMBOLS2)),
        ("1 planes of low bytes", lambda: symbols.merge(two, two, [two], symbols.SYMBOLS4)),
        ("expected 3", lambda: symbols.merge_packed(two, two, [], symbols.SYMBOLS2)),
        ("read-only", lambda: symbols.merge(two, two, [], symbols.SYMBOLS2, 0, bytes(8))),
        ("expected 3", lambda: symbols.unpack(two, 4, symbols.SYMBOLS2)),
        ("no remainders", lambda: symbols.unpack(two, 4, symbols.SYMBOLS1)),
        ("field out of range", lambda: symbols.patch(symbols.SYMBOLS2, 1024, two[:2])),
        ("4 bytes, expected 2", lambda: symbols.field(symbols.SYMBOLS2, two)),
        ("250 and column 6", lambda: symbols.contexts(250, two + np.uint8(6), 4, 0, 63)),
        ("expected 3", lambda: symbols.contexts(1, two, 3, 0, 63)),
        ("shift or most", lambda: symbols.contexts(1, two, 4, 8, 63)),
        ("not below 1", lambda: symbols.count(two, two + np.uint8(1), counts)),
        ("shape", lambda: symbols.count(two, None, np.zeros((1, 255), np.uint32))),
        ("floor out of range", lambda: symbols.weigh(two, 256)),
        ("3 sums for 4", lambda: symbols.weigh(two, 0, np.zeros(3, np.uint32))),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()


FENCED = r"""
import ctypes, mmap
import numpy as np
from z4ai._fast import symbols

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

wide, tight, narrow = fenced(), fenced(), [fenced() for _ in range(8)]
table, counts = fenced(), np.zeros((64, 256), np.uint32)
runs = 0
for isa in symbols.variants():
    for kind in symbols.KINDS:
        width = symbols.width(kind)
        for n in [*range(1, 140), 2 * PAGE // width]:
            for end in (False, True):
                cut = lambda room, nbytes: room[len(room) - nbytes :] if end else room[:nbytes]
                parts = [cut(plane, n) for plane in narrow[:width]]
                elements = cut(wide, n * width)
                packed = cut(tight, symbols.packed_nbytes(kind, n))
                symbols.split(elements, kind, 0, parts, isa=isa)
                rest = parts[1] if width > 1 else None
                symbols.merge(parts[0], rest, parts[2:], kind, 0, elements, isa=isa)
                if width > 1:
                    symbols.pack(rest, kind, packed, isa=isa)
                    symbols.unpack(packed, n, kind, rest, isa=isa)
                symbols.merge_packed(parts[0], packed, parts[2:], kind, 0, elements, isa=isa)
                runs += 1
    for n in [*range(1, 200), PAGE // 2]:
        for end in (False, True):
            cut = lambda room, nbytes: room[len(room) - nbytes :] if end else room[:nbytes]
            symbols.contexts(9, cut(wide, n), n, 3, 63, cut(narrow[0], n), isa=isa)
            symbols.count(cut(wide, n), cut(narrow[0], n), counts, isa=isa)
            symbols.count(cut(wide, n), None, counts, isa=isa)
            symbols.weigh(cut(wide, n), 9, cut(table, 4 * n).view(np.uint32), isa=isa)
            runs += 1
print(runs)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_no_byte_outside_the_buffers_is_touched() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FENCED], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stderr}"
    assert int(result.stdout) == (5 * 140 + 200) * 2 * len(symbols.variants())
