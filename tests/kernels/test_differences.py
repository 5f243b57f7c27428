"""Kernels of differences: each variant against numbers by the page, and the ends of its buffers."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import differences_writer as writer
import numpy as np
import numpy.typing as npt
import pytest

from z4ai._fast import _dispatch, differences, models
from z4ai._reference import difference

Bytes = npt.NDArray[np.uint8]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "difference.md"
X86 = {"scalar", "avx2", "avx512"}
WIDTHS = [1, 2, 4, 8]
# Ends of groups of eight and of vectors, of a tile (1024), and of the bits that are read ahead.
LENGTHS = [*range(70), 127, 255, 1023, 1024, 1025, 2047, 2049, 3001]
widths = pytest.mark.parametrize("width", WIDTHS)
variants = pytest.mark.parametrize("isa", sorted(set(_dispatch.runnable()) & X86))
either = pytest.mark.parametrize("floats", [False, True], ids=["whole", "floats"])


def noise(nbytes: int, seed: int) -> Bytes:
    return np.random.default_rng(seed).integers(0, 256, nbytes, dtype=np.uint8)


def pair(n: int, width: int, seed: int) -> tuple[Bytes, Bytes]:
    """Elements, and the same where a part has moved, by a little or by a lot."""
    reference = noise(n * width, seed)
    content = reference.copy()
    rng = np.random.default_rng(seed + 1)
    t = content.view(f"<u{width}")
    moves = rng.integers(0, 1 << min(8 * width, 63), n, dtype=np.uint64)
    moves >>= rng.integers(0, 8 * width, n, dtype=np.uint64)
    moves[rng.random(n) < 0.4] = 0
    t += np.where(rng.random(n) < 0.5, moves, -moves.astype(np.int64).astype(np.uint64)).astype(
        t.dtype
    )
    return content, reference


def by_page(content: Bytes, reference: Bytes, width: int, *, floats: bool) -> tuple[Bytes, bytes]:
    coded = [
        writer.symbol_of(r, width)
        for r in writer.residuals(content, reference, width, floats=floats)
    ]
    symbols = np.array([y for y, _, _ in coded], np.uint8)
    return symbols, writer.string_of([(x, bits) for _, x, bits in coded])


def at_offset(source: Bytes, offset: int) -> Bytes:
    moved = np.empty(offset + len(source), np.uint8)[offset:]
    moved[:] = source
    return moved


def test_the_private_door_runs_every_variant() -> None:
    assert set(differences.variants()) == set(_dispatch.runnable()) & X86
    for isa in differences.variants():
        assert differences.picked(isa) == isa
    assert differences.picked() == differences.picked(_dispatch.current())


def test_transforms_are_those_of_the_page() -> None:
    rows = re.findall(r"^\| (\d+) \| `(difference\d)` \| (\d) \| 2 \|$", PAGE.read_text(), re.M)
    assert {int(i): (name, int(w)) for i, name, w in rows} == difference.TRANSFORMS
    assert {w: int(i) for i, _, w in ((i, n, int(w)) for i, n, w in rows)} == writer.TRANSFORMS


@pytest.mark.parametrize("width", WIDTHS)
def test_every_level_is_that_of_the_page(width: int) -> None:
    """The writer and the reference reader read the table of the page alike, at every edge of it."""
    bits, g = 8 * width, difference.granularity(width)
    most = 1 << (bits - 1)
    edges = {m for e in range(bits) for k in range(4) for m in (e and (1 << e) + k, (1 << e) - k)}
    compared = 0
    for m in sorted(x for x in edges | set(range(64)) if 0 <= x <= most):
        for r in (m, -m) if m < most else (-m,):
            y, apart, count = writer.symbol_of(r, width)
            assert difference.bits_apart(y, g) == count
            assert difference.residual(y, apart, g) == r
            assert y <= writer.MOST_SYMBOL[width]
            compared += 1
    assert compared > 30 * width


@variants
@widths
@either
def test_symbols_and_bits_are_those_of_the_page(width: int, floats: bool, isa: str) -> None:
    content, reference = pair(max(LENGTHS), width, 5 * width)
    compared = 0
    for n in LENGTHS:
        for offset in (0, 1, 7):
            t = at_offset(content[: n * width], offset)
            b = at_offset(reference[: n * width], 2 * offset)
            symbols, bits = differences.split(t, b, width, floats, isa)
            wanted, string = by_page(t, b, width, floats=floats)
            assert np.array_equal(symbols, wanted), (n, offset)
            assert bits.tobytes() == string, (n, offset)
            # The bits end where their buffer does: what is read ahead must not be.
            back = differences.merge_back(symbols, at_offset(bits, offset), b, width, floats, isa)
            assert np.array_equal(back, t), (n, offset)
            compared += 1
    assert compared == 3 * len(LENGTHS)


# NaNs of either sign, infinities, zeros, the least and the greatest numbers, and some between.
HALF_WORDS = [0, 0x8000, 1, 0x8001, 0x7F80, 0xFF80, 0x7FC0, 0xFFFF, 0x7FFF, 0x3F80, 0xBF81, 0x7C00]
EVERY = np.arange(1 << 16, dtype="<u2").view(np.uint8)


@cache
def every_by_page(pattern: int, turned: bool, floats: bool) -> tuple[Bytes, bytes]:
    one = np.full(1 << 16, pattern, "<u2").view(np.uint8)
    pair = (one, EVERY) if turned else (EVERY, one)
    return by_page(*pair, 2, floats=floats)


@variants
@either
def test_every_pattern_beside_every_kind_and_the_other_way_round(floats: bool, isa: str) -> None:
    compared = 0
    for k, pattern in enumerate(HALF_WORDS):
        one = np.full(1 << 16, pattern, "<u2").view(np.uint8)
        for turned in (False, True):
            content, reference = (one, EVERY) if turned else (EVERY, one)
            symbols, bits = differences.split(content, reference, 2, floats, isa)
            back = differences.merge_back(symbols, bits, reference, 2, floats, isa)
            assert np.array_equal(back, content), pattern
            compared += 1
            if k % 2 == turned:  # by the page each pattern one way: that takes its time
                wanted, string = every_by_page(pattern, turned, floats)
                assert np.array_equal(symbols, wanted), pattern
                assert bits.tobytes() == string, pattern
    assert compared == 2 * len(HALF_WORDS)


@variants
@either
def test_every_byte_beside_every_byte(floats: bool, isa: str) -> None:
    content = np.tile(np.arange(256, dtype=np.uint8), 256)
    reference = np.repeat(np.arange(256, dtype=np.uint8), 256)
    symbols, bits = differences.split(content, reference, 1, floats, isa)
    wanted, string = by_page(content, reference, 1, floats=floats)
    assert np.array_equal(symbols, wanted)
    assert bits.tobytes() == string
    back = differences.merge_back(symbols, bits, reference, 1, floats, isa)
    assert np.array_equal(back, content)


@variants
@either
@pytest.mark.parametrize("width", [4, 8])
def test_extremes_of_wide_elements(width: int, floats: bool, isa: str) -> None:
    top = 1 << (8 * width - 1)
    ends = [0, 1, 2, 3, top - 2, top - 1, top, top + 1, 2 * top - 2, 2 * top - 1]
    ends += [(1 << e) + k for e in range(2, 8 * width) for k in (-1, 0, 1)]
    # As many as there are 24 bits of a float below, which round up there.
    ends += [top - (1 << e) for e in range(8 * width - 1)]
    content = np.array([t for t in ends for _ in range(8)], f"<u{width}").view(np.uint8)
    beside = [[0, top, 1, top - 1, top + 1, 2 * top - 1, t, t ^ top] for t in ends]
    reference = np.array(beside, f"<u{width}").ravel().view(np.uint8)
    symbols, bits = differences.split(content, reference, width, floats, isa)
    wanted, string = by_page(content, reference, width, floats=floats)
    assert np.array_equal(symbols, wanted)
    assert bits.tobytes() == string
    back = differences.merge_back(symbols, bits, reference, width, floats, isa)
    assert np.array_equal(back, content)
    # The greatest distance there is occurs.
    far = writer.residuals(content, reference, width, floats=floats)
    assert -top in far


@variants
@widths
def test_symbols_that_no_encoder_makes_are_restored_modulo_the_width(width: int, isa: str) -> None:
    """A decoder need not check that a distance fits; all of them agree on what it becomes."""
    g, most = difference.granularity(width), writer.MOST_SYMBOL[width]
    symbols = np.tile(np.arange(most + 1, dtype=np.uint8), 9)
    reference = noise(len(symbols) * width, 3)
    pieces = [difference.bits_apart(int(y), g) for y in symbols]
    string = noise((sum(pieces) + 7) // 8, 4)
    value, at = int.from_bytes(string.tobytes(), "little"), 0
    for floats in (False, True):
        wanted, at = [], 0
        for y, bits, b in zip(symbols, pieces, writer.words(reference, width), strict=True):
            apart = value >> at & (1 << bits) - 1
            at += bits
            wanted.append(
                difference.add(b, difference.residual(int(y), apart, g), 8 * width, floats)
            )
        back = differences.merge_back(symbols, string, reference, width, floats, isa)
        assert back is not None
        assert writer.words(back, width) == wanted


@variants
@widths
def test_bits_must_be_as_many_as_the_symbols_need(width: int, isa: str) -> None:
    content, reference = pair(3001, width, 77)
    symbols, bits = differences.split(content, reference, width, True, isa)
    for n in (0, 1, len(bits) // 2, len(bits) - 90, len(bits) - 1):
        short = bits[:n].copy()
        assert differences.merge_back(symbols, short, reference, width, True, isa) is None
    longer = np.append(bits, np.uint8(0))
    assert differences.merge_back(symbols, longer, reference, width, True, isa) is None
    assert differences.merge_back(symbols, bits, reference, width, True, isa) is not None
    # Any symbols: what they make is no matter, but it is the same for all, and within its buffers.
    wild = noise(3001, 9)
    made = [differences.merge_back(wild, bits, reference, width, True, v) for v in ("scalar", isa)]
    assert (made[0] is None) == (made[1] is None)


def levels_by_page(
    content: Bytes, reference: Bytes, width: int, model: writer.Model, octave: int, period: int
) -> list[int]:
    sizes = [abs(r) for r in writer.residuals(content, reference, width, floats=model.floats)]
    classes = [writer.reference_class(b, model, width) for b in writer.words(reference, width)]
    found = []
    for first in range(0, len(sizes), period):
        row = range(first, min(first + period, len(sizes)))
        scaled = [
            (min(sizes[i], (1 << 43) - 1) << 20) >> min(classes[i] >> octave, 63) for i in row
        ]
        mean = (sum(scaled) % (1 << 64)) // len(row)
        e = mean.bit_length() - 1
        step = (mean << octave) >> e if mean else 0
        found.append((e << octave) + step - (1 << octave) + 1 if mean else 0)
    return found


@variants
@widths
@either
def test_levels_of_rows(width: int, floats: bool, isa: str) -> None:
    compared = 0
    for n, period in ((1, 16), (3001, 16), (3001, 37), (3001, 1500), (3001, 5000), (1024, 1)):
        content, reference = pair(n, width, n + period)
        content[: width * 20] = reference[: width * 20]
        for octave, below, top in ((0, 0, 0), (2, 8 * width - 8, 100), (8, 3, 65535), (3, 63, 9)):
            model = writer.Model(floats=floats, below=below, top=top)
            got, symbols, classes = differences.levels(
                content, reference, width, floats, below, top, octave, period, isa
            )
            wanted = levels_by_page(content, reference, width, model, octave, period)
            assert got.tolist() == wanted, (n, period, octave)
            assert symbols.tolist() == list(by_page(content, reference, width, floats=floats)[0])
            words = writer.words(reference, width)
            assert classes.tolist() == [writer.reference_class(b, model, width) for b in words]
            compared += 1
    assert compared == 24


@variants
@widths
@either
def test_counts_by_class(width: int, floats: bool, isa: str) -> None:
    g = difference.granularity(width)
    compared = 0
    for n, period in ((0, 0), (5, 0), (3001, 0), (3001, 16), (3001, 999), (700, 5000)):
        content, reference = pair(n, width, n + period + 1)
        rows = (noise(-(-n // period), 8) % 128) if period else None
        for below, top in ((0, 0), (8 * width - 8, 127), (2, 65535)):
            model = writer.Model(floats=floats, below=below, top=top)
            if rows is None:
                counts = differences.count(content, reference, width, floats, below, top, isa)
            else:
                _, *kept = differences.levels(
                    content, reference, width, floats, below, top, 3, period, isa
                )
                counts = differences.count_rows(*kept, period, rows)
            symbols, _ = by_page(content, reference, width, floats=floats)
            wanted = np.zeros((differences.CLASSES, 256), np.uint32)
            for i, b in enumerate(writer.words(reference, width)):
                row = int(rows[i // period]) if rows is not None else 0
                wanted[writer.reference_class(b, model, width) + row, symbols[i]] += 1
            occur = 1 + int(np.flatnonzero(wanted.any(1))[-1]) if n else 0
            assert np.array_equal(counts, wanted[:occur]), (n, period, below)
            bits = sum(difference.bits_apart(int(y), g) for y in symbols)
            assert n == 0 or differences.count_bits(counts, width) == bits
            compared += 1
    assert compared == 18


def test_contexts_are_made_of_as_many_classes_as_there_are() -> None:
    counts = np.zeros((differences.CLASSES, 256), np.uint32)
    counts[::50, :4] = 1000
    counts[300:, 7] = 5000
    _, count = models.merge(counts, 0, 400)
    assert 1 <= count <= differences.CLASSES
    with pytest.raises(ValueError, match="each class"):
        models.merge(np.zeros((differences.CLASSES + 1, 256), np.uint32), 0, 4)


def test_exclusive_or() -> None:
    for n in (0, 1, 63, 64, 1000):
        a, b = noise(n, 1), noise(n, 2)
        out = np.empty(n, np.uint8)
        differences.xor(a, b, out)
        assert np.array_equal(out, a ^ b)
        differences.xor(out, b, out)
        assert np.array_equal(out, a)
    with pytest.raises(ValueError, match="differ in size"):
        differences.xor(a, b[1:], out)


def test_what_does_not_fit_is_refused() -> None:
    four = noise(4, 1)
    wrong = [
        ("no elements have 3", lambda: differences.split(four[:3], four, 3, True)),
        ("whole elements", lambda: differences.split(four[:3], four, 2, True)),
        ("shorter", lambda: differences.split(four, four[:2], 2, True)),
        ("shorter", lambda: differences.merge_back(four, four, four, 2, True)),
        ("16 bits", lambda: differences.count(four, four, 2, True, 0, 1 << 16)),
        ("rows", lambda: differences.levels(four, four, 2, True, 0, 0, 0, 0)),
        ("octave", lambda: differences.levels(four, four, 2, True, 0, 0, 9, 1)),
        ("classes", lambda: differences.count_rows(four, four, 1, four[:1])),
        ("classes", lambda: differences.count_rows(four, four, 4, four[:1] | 128)),
        ("classes", lambda: differences.count_rows(four, four[:3], 4, four[:1] & 127)),
        ("classes", lambda: differences.count_rows(four, four, 0, four[:1] & 127)),
        ("each class", lambda: differences.count_bits(np.zeros((1, 9), np.uint32), 2)),
    ]
    for message, call in wrong:
        with pytest.raises(ValueError, match=message):
            call()


FENCED = r"""
import ctypes, mmap
import numpy as np
from z4ai._fast import differences

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

t, b, y, x = (fenced() for _ in range(4))
t[:] = np.random.default_rng(1).integers(0, 256, len(t))
runs = 0
for isa in differences.variants():
    for width in (1, 2, 4, 8):
        for n in [*range(1, 140), 2 * PAGE // width]:
            for end in (False, True):
                cut = lambda room, nbytes: room[len(room) - nbytes :] if end else room[:nbytes]
                content, reference = cut(t, n * width), cut(b, n * width)
                symbols, bits = differences.split(content, reference, width, True, isa)
                cut(y, n)[:] = symbols
                short = cut(x, len(bits) - len(bits) // 3)
                short[:] = bits[: len(short)]
                differences.merge_back(cut(y, n), short, reference, width, True, isa)
                differences.count(content, reference, width, True, 3, 99, isa)
                differences.levels(content, reference, width, True, 3, 99, 2, 17, isa)
                runs += 1
print(runs)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_no_byte_outside_the_buffers_is_touched() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FENCED], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stderr}"
    assert int(result.stdout) == 4 * 140 * 2 * len(differences.variants())
