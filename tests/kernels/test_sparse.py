"""Sparse and step kernels: each variant against the reference, and the ends of its buffers."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import numpy.typing as npt
import pytest

from z4ai._fast import _dispatch, sparse
from z4ai._reference import steps as reference_steps
from z4ai._reference import zeros as reference_zeros

Bytes = npt.NDArray[np.uint8]

LENGTHS = [*range(140), 255, 256, 257, 1031]
FILL = 0xA5


def noise(n: int, seed: int) -> npt.NDArray[np.uint64]:
    state = np.uint64(seed << 32) + np.arange(n, dtype=np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    return state ^ state >> np.uint64(32)


def elements(n: int, width: int, fill: int, percent: int, seed: int) -> Bytes:
    """Words of which so many percent are the fill, and some differ from it by one bit alone."""
    words = noise(n, seed)
    words[noise(n, seed + 1) % 5 == 0] = fill ^ 1 << (8 * width - 1)
    words[noise(n, seed + 2) % 100 < percent] = fill
    return words.astype(f"<u{width}").view(np.uint8)


def at_offset(source: Bytes, offset: int) -> Bytes:
    moved = np.empty(offset + len(source), np.uint8)[offset:]
    moved[:] = source
    return moved


def test_the_private_door_runs_every_variant() -> None:
    assert set(sparse.variants()) == set(_dispatch.runnable()) & {"scalar", "avx512"}
    for isa in sparse.variants():
        assert sparse.picked(isa) == isa
    assert sparse.picked() == sparse.picked(_dispatch.current())


@pytest.mark.parametrize("percent", [0, 8, 50, 97, 100])
@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_variants_equal_the_reference(width: int, percent: int) -> None:
    fill = 0x8123456789ABCDEF >> 64 - 8 * width
    exercised = set()
    for isa in _dispatch.runnable():
        for n in LENGTHS:
            content = at_offset(elements(n, width, fill, percent, n + width), n % 16)
            bitmap, dense = sparse.compact(content, width, fill, isa=isa)
            params = fill.to_bytes(width, "little")
            restored = reference_zeros.join(
                params, [bitmap.tobytes(), dense.tobytes()], width, len(content)
            )
            assert restored == content.tobytes(), (isa, n)
            words = content.view(f"<u{width}")
            assert len(dense) == width * int((words != fill).sum())
            assert sparse.count_ones(bitmap, n) * width == len(dense)
            memory = np.full(len(content) + 128, FILL, np.uint8)
            out = memory[64 + n % 16 :][: len(content)]
            sparse.expand(bitmap, at_offset(dense, 3), width, fill, out, isa=isa)
            assert np.array_equal(out, content), (isa, n)
            assert (memory[: 64 + n % 16] == FILL).all()
            assert (memory[64 + n % 16 + len(content) :] == FILL).all()
        exercised.add(isa)
    assert exercised == set(_dispatch.runnable())


@pytest.mark.parametrize("isa", sparse.variants())
def test_bitmap_and_dense_must_fit(isa: str) -> None:
    out = np.empty(64, np.uint8)
    bitmap = np.array([0b101], np.uint8)
    dense = np.zeros(8, np.uint8)
    sparse.expand(bitmap, dense, 4, 0, out[:32], isa=isa)
    with pytest.raises(ValueError, match="2 ones, expected 1"):
        sparse.expand(bitmap, dense[:4], 4, 0, out[:32], isa=isa)
    with pytest.raises(ValueError, match="2 ones, expected 4"):
        sparse.expand(bitmap, np.zeros(16, np.uint8), 4, 0, out[:32], isa=isa)
    with pytest.raises(ValueError, match="-1 ones, expected 2"):
        sparse.expand(bitmap, dense, 4, 0, out[:8], isa=isa)
    with pytest.raises(ValueError, match="bitmap has 1 bytes, expected 2"):
        sparse.expand(bitmap, dense, 4, 0, out[:36], isa=isa)


def test_wrong_arguments_are_refused() -> None:
    content = np.zeros(24, np.uint8)
    with pytest.raises(ValueError, match="width must be one of 1, 2, 4, 8, not 3"):
        sparse.compact(content, 3, 0)
    with pytest.raises(ValueError, match="width must be one of 2, 4, 8, not 1"):
        sparse.split_steps(content, 1, 0, None, 0)
    with pytest.raises(ValueError, match="no whole number of 4-byte elements"):
        sparse.probe(content[:7], 4)
    with pytest.raises(ValueError, match="fill 256 is no word of 1 bytes"):
        sparse.compact(content, 1, 256)
    with pytest.raises(ValueError, match="base -1 is no word"):
        sparse.split_steps(content, 8, -1, None, 0)
    for width, n_low in ((2, 2), (4, 4), (8, 7), (8, -1)):
        with pytest.raises(ValueError, match=f"{n_low} low bytes of elements of {width}"):
            sparse.split_steps(content, width, 0, None, n_low)
    with pytest.raises(ValueError, match="count -1 is out of range"):
        sparse.entropy(np.array([-1], np.intp))
    with pytest.raises(ValueError, match="cannot run here"):
        sparse.compact(content, 1, 0, isa="mmx")


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_the_probe_finds_what_is_frequent(width: int) -> None:
    fill = 0xFEDCBA9876543210 >> 64 - 8 * width
    for n in (0, 1, 100, 1023, 1024, 1025, 100_003):
        found, seen, n_sampled = sparse.probe(elements(n, width, fill, 60, 7), width)
        assert n_sampled == min(n, 1024)
        assert 0 <= seen <= n_sampled
        if n > 1:
            assert found == fill
            assert seen >= n_sampled * 0.5 or n < 10
    ramp = np.arange(1 << 8 * min(width, 2)).astype(f"<u{width}").view(np.uint8)
    assert sparse.probe(ramp, width)[1] == 1


def test_the_sample_reaches_from_end_to_end() -> None:
    words = np.arange(100_000, dtype=np.uint32)
    words[-1] = words[-2]
    assert sparse.probe(words.view(np.uint8), 4) == (99_998, 2, 1024)
    words[-1], words[1] = 99_999, 0
    assert sparse.probe(words.view(np.uint8), 4) == (0, 2, 1024)


def test_entropy_is_that_of_the_counts() -> None:
    cases = [[], [0], [5], [1, 1], [3, 0, 5], [1 << 30, 1], list(range(256)), [70_000, 80_001]]
    for counts in cases:
        total = sum(counts)
        exact = sum(c * math.log2(total / c) for c in counts if c)
        hidden = 0.5 / math.log(2) * max(sum(c > 0 for c in counts) - 1, 0)
        found = sparse.entropy(np.array(counts, np.intp)) / 65536
        assert found == pytest.approx(exact + hidden, rel=1e-3, abs=1e-3 + 1e-4 * total), counts
    assert sparse.entropy(np.array([4, 4], np.intp)) == (8 << 16) + 47274


STEP_CASES = [(w, m, d) for w in (2, 4, 8) for m in range(min(w - 1, 6) + 1) for d in (False, True)]


@pytest.mark.parametrize(("width", "n_low", "differences"), STEP_CASES)
def test_steps_equal_the_reference(width: int, n_low: int, differences: bool) -> None:
    escapes = 0
    for n in (*range(20), 300):
        # Numbers about the window, and outliers: sums or distances of them.
        small = noise(n, n) % np.uint64(0x110 << 8 * n_low)
        small[noise(n, 5) % 7 == 0] = noise(n, 6)[noise(n, 5) % 7 == 0]
        base, start = 0xFFFFFFFFFFFFFF85 >> 64 - 8 * width, 0x8234567812345678 >> 64 - 8 * width
        words = small + np.uint64(base)
        if differences:
            words = np.cumsum(words) + np.uint64(start)
        content = at_offset(words.astype(f"<u{width}").view(np.uint8), n % 3)
        symbols, exceptions, lows = sparse.split_steps(
            content, width, base, start if differences else None, n_low
        )
        mode = n_low | (8 if differences else 0)
        params = bytes([mode]) + base.to_bytes(width, "little")
        params += start.to_bytes(width, "little") if differences else b""
        parts = [part.tobytes() for part in (symbols, exceptions, *lows)]
        assert reference_steps.join(params, parts, width, len(content)) == content.tobytes()
        memory = np.full(len(content) + 32, FILL, np.uint8)
        out = memory[16 : 16 + len(content)]
        sparse.join_steps(
            symbols, exceptions, lows, width, base, start if differences else None, out
        )
        assert np.array_equal(out, content)
        assert (memory[:16] == FILL).all()
        assert (memory[16 + len(content) :] == FILL).all()
        assert sparse.count_escapes(symbols) * width == len(exceptions)
        escapes += len(exceptions)
    assert escapes > 0


def test_a_window_holds_its_ends_and_no_more() -> None:
    for n_low in (0, 1):
        span = 255 << 8 * n_low
        words = np.array([7, 7 + span - 1, 7 + span, 6], "<u4")
        symbols, exceptions, _ = sparse.split_steps(words.view(np.uint8), 4, 7, None, n_low)
        assert symbols.tolist() == [0, 254, 255, 255]
        assert exceptions.view("<u4").tolist() == [7 + span, 6]


def test_symbols_and_exceptions_must_fit() -> None:
    out = np.empty(8, np.uint8)
    symbols = np.array([1, 255], np.uint8)
    exception = np.zeros(4, np.uint8)
    sparse.join_steps(symbols, exception, [], 4, 0, None, out)
    for wrong in (exception[:0], np.zeros(8, np.uint8)):
        with pytest.raises(ValueError, match="do not ask for"):
            sparse.join_steps(symbols, wrong, [], 4, 0, 0, out)
    with pytest.raises(ValueError, match="1 symbols, expected 2"):
        sparse.join_steps(symbols[:1], exception, [], 4, 0, None, out)
    with pytest.raises(ValueError, match="low bytes 0 are 1, expected 2"):
        sparse.join_steps(symbols, exception, [symbols[:1]], 4, 0, None, out)


def test_escapes_are_counted_across_blocks() -> None:
    symbols = np.full(200_001, 255, np.uint8)
    symbols[::2] = 254
    assert sparse.count_escapes(symbols) == 100_000


FENCED = """
import ctypes, mmap
import numpy as np
from z4ai._fast import _dispatch, sparse

PAGE = mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
keep = []

def fenced():
    # a page between two that may not be touched
    memory = mmap.mmap(-1, 3 * PAGE)
    whole = np.frombuffer(memory, np.uint8)
    keep.append((memory, whole))
    for page in (0, 2):
        assert libc.mprotect(whole.ctypes.data + page * PAGE, PAGE, 0) == 0
    return whole[PAGE : 2 * PAGE]

wide, bits, rest, out = fenced(), fenced(), fenced(), fenced()
wide[:] = np.arange(PAGE) % 3 == 0
runs = 0
for isa in _dispatch.runnable():
    for width in (1, 2, 4, 8):
        for n in range(1, 200):
            for end in (False, True):
                cut = lambda where, k: where[PAGE - k :] if end else where[:k]
                content = cut(wide, n * width)
                bitmap, dense = sparse.compact(content, width, 0, isa=isa)
                placed, others = cut(bits, len(bitmap)), cut(rest, len(dense))
                placed[:] = bitmap
                others[:] = dense
                sparse.expand(placed, others, width, 0, cut(out, n * width), isa=isa)
                assert np.array_equal(cut(out, n * width), content)
                sparse.probe(content, width)
                runs += 1
print(runs)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="mprotect is POSIX")
def test_no_byte_outside_the_buffers_is_touched() -> None:
    result = subprocess.run(
        [sys.executable, "-c", FENCED], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, f"{result.returncode}: {result.stderr}"
    assert int(result.stdout) == 4 * 199 * 2 * len(_dispatch.runnable())
