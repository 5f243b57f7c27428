"""Delta frames: what `compress_delta` writes comes back, by production and by the reference."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import strategies
from hypothesis import given, settings
from hypothesis import strategies as st

import z4ai
import z4ai._reference as reference
from z4ai import errors
from z4ai._fast import _dispatch

EFFORTS = ["fast", "balanced", "max"]
# A record of the reference, and one chunk header more.
ROOM = 96

FOUND: set[str] = set()


def words_of(width: int) -> np.dtype[Any]:
    return np.dtype(f"<u{width}")


def both(blob: bytes, base: bytes, content: bytes) -> set[str]:
    """Check a delta frame by every door of production and by the reference; -> its transforms."""
    restored = z4ai.decompress_delta(blob, base)
    assert restored == content
    out = np.full(len(content) + 32, 0xA5, np.uint8)
    view = z4ai.decompress_delta(blob, base, out=out[16:-16], threads=2)
    assert isinstance(view, memoryview)
    assert out[16:-16].tobytes() == content
    assert (out[:16] == 0xA5).all()
    assert (out[-16:] == 0xA5).all()
    assert reference.decode_delta(blob, base).content == content
    told = z4ai.info(blob)
    assert told.content_nbytes == len(content)
    assert told.reference is not None
    assert told.reference.nbytes == len(base)
    FOUND.update(told.transforms)
    return set(told.transforms)


def trained(n: int, dtype: str, *, share: float = 0.3, seed: int = 1) -> tuple[bytes, bytes]:
    """Weights, and the same after some steps of training: absolute moves, most of them small."""
    rng = np.random.default_rng(seed)
    numpy = z4ai.dtypes.numpy_dtype(z4ai.dtypes.resolve(dtype))
    wide = np.float64 if dtype == "fp64" else np.float32
    before = rng.normal(0, 0.05, n).astype(wide)
    moves = rng.normal(0, 1e-4, n) * (rng.random(n) < share)
    after = (before + moves).astype(wide)
    return before.astype(numpy).tobytes(), after.astype(numpy).tobytes()


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32", "fp64", "fp8_e4m3"])
def test_a_training_step_is_stored_as_differences(dtype: str, effort: str) -> None:
    base, content = trained(1 << 17, dtype)
    blob = z4ai.compress_delta(content, base, dtype=dtype, effort=effort)
    width = z4ai.dtype_width(dtype)
    assert f"difference{width}" in both(blob, base, content)
    # Much smaller than alone, and than what other bits are by exclusive-or.
    alone = len(z4ai.compress(content, dtype=dtype, effort=effort))
    masked = bytes(np.frombuffer(content, np.uint8) ^ np.frombuffer(base, np.uint8))
    assert len(blob) < 0.8 * alone
    assert len(blob) < len(z4ai.compress(masked, dtype=dtype, effort=effort))


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_every_pattern_against_every_kind_of_reference(dtype: str) -> None:
    patterns = np.arange(1 << 16, dtype=np.uint16)
    references = {
        "itself, turned": np.roll(patterns, 1),
        "far": np.roll(patterns, 12345),
        "reversed": patterns[::-1].copy(),
        "negated": patterns ^ np.uint16(0x8000),
        "zero": np.zeros_like(patterns),
        "minus zero": np.full_like(patterns, 0x8000),
        "not a number": np.full_like(patterns, 0xFFFF),
        "shuffled": np.random.default_rng(3).permutation(patterns),
    }
    found: set[str] = set()
    for base in references.values():
        for effort in EFFORTS:
            blob = z4ai.compress_delta(patterns, base.tobytes(), dtype=dtype, effort=effort)
            found |= both(blob, base.tobytes(), patterns.tobytes())
    assert {"difference2"} < found


NAMES = sorted(set(strategies.DTYPES) - {"fp4"})


@st.composite
def pairs(draw: st.DrawFn) -> tuple[str, bytes, bytes]:
    """A dtype, a base and what became of it: near, far, longer, shorter, shifted, the same."""
    dtype = draw(st.sampled_from(NAMES))
    width = max(1, z4ai.dtypes.resolve(dtype).width)
    n = draw(st.sampled_from([0, 1, 2, 3, 15, 16, 63, 64, 65, 511, 2047, 5000]))
    tail = draw(st.integers(0, width - 1))
    base = strategies.weights(n * width + tail, width, draw(st.integers(0, 3)))
    words = np.frombuffer(base, words_of(width), n).copy()
    kind = draw(st.sampled_from(["same", "near", "sparse", "far", "special", "wild"]))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    if kind == "near":
        words += rng.integers(0, 9, n).astype(words.dtype)
    elif kind == "sparse":
        some = rng.random(n) < 0.05
        words[some] ^= words.dtype.type(draw(st.integers(1, (1 << (8 * width)) - 1)))
    elif kind == "far":
        words = np.frombuffer(strategies.weights(n * width, width, 77), words.dtype).copy()
    elif kind == "special" and width > 1 and n:
        special = np.frombuffer(strategies.special_floats(width), words.dtype)
        words[rng.integers(0, n, n // 8 + 1)] = rng.choice(special, n // 8 + 1)
    elif kind == "wild":
        words = rng.integers(0, 1 << (8 * width), n, dtype=np.uint64).astype(words.dtype)
    content = words.tobytes() + base[len(base) - tail :] if tail else words.tobytes()
    cut = draw(st.sampled_from(["none", "longer", "shorter"]))
    if cut == "longer":
        content += strategies.noise(draw(st.integers(1, 200)))
    elif cut == "shorter":
        content = content[: draw(st.integers(0, len(content)))]
    return dtype, base, content


@settings(deadline=None)
@given(pairs(), st.sampled_from(EFFORTS))
def test_whatever_became_of_a_base_comes_back(pair: tuple[str, bytes, bytes], effort: str) -> None:
    dtype, base, content = pair
    blob = z4ai.compress_delta(content, base, dtype=dtype, effort=effort)
    both(blob, base, content)
    assert len(blob) <= len(content) + 64 + ROOM


def test_all_transforms_have_been_met() -> None:
    """Those above, which this file's other tests have gone through before."""
    if not FOUND:
        pytest.skip("runs behind the others only")
    expected = {"same", "xor", "difference1", "difference2", "difference4", "difference8"}
    assert expected <= FOUND


def test_rows_that_do_not_change_cost_almost_nothing() -> None:
    rng = np.random.default_rng(5)
    before = rng.normal(0, 0.05, (1000, 384)).astype(np.float32)
    after = before.copy()
    after[::10] += rng.normal(0, 1e-4, (100, 384)).astype(np.float32)
    flat = z4ai.compress_delta(after.tobytes(), before, dtype="fp32")
    shaped = z4ai.compress_delta(after, before)
    alone = z4ai.compress_delta(after[::10].copy(), before[::10].copy())
    both(shaped, before.tobytes(), after.tobytes())
    assert len(shaped) < len(flat)
    assert len(shaped) < 1.02 * len(alone) + 400
    given_shape = z4ai.compress_delta(
        after.tobytes(), before.tobytes(), dtype="fp32", shape=after.shape
    )
    assert given_shape == shaped


def test_what_did_not_change_takes_a_header() -> None:
    content = strategies.weights(5 << 20, 2)
    for dtype in (None, "bf16", "int8"):
        blob = z4ai.compress_delta(content, content, dtype=dtype)
        assert both(blob, content, content) == {"same"}
        assert len(blob) < 128


def test_a_stretch_that_did_not_change_takes_a_header() -> None:
    base, content = trained(4 << 20, "bf16")
    mixed = base[: 4 << 20] + content[4 << 20 :]
    blob = z4ai.compress_delta(mixed, base, dtype="bf16")
    assert "same" in both(blob, base, mixed)


def test_another_base_costs_no_more_than_none() -> None:
    one, other = strategies.weights(3 << 20, 2, 1), strategies.weights(3 << 20, 2, 2)
    for effort in EFFORTS:
        for dtype in ("bf16", "fp32", None):
            blob = z4ai.compress_delta(one, other, dtype=dtype, effort=effort)
            both(blob, other, one)
            assert len(blob) <= len(z4ai.compress(one, dtype=dtype, effort=effort)) * 1.002 + ROOM


def test_lengths_may_differ() -> None:
    base, content = trained(100_000, "bf16")
    more = strategies.weights(30_000, 2, 8)
    for current, known in [
        (content + more, base),
        (content, base + more),
        (content[:1001], base),
        (content, base[:1001]),
        (content, b""),
        (b"", base),
        (b"", b""),
    ]:
        both(z4ai.compress_delta(current, known, dtype="bf16"), known, current)
    # The common prefix is still coded as differences.
    longer = z4ai.compress_delta(content + more, base, dtype="bf16")
    assert len(longer) < len(z4ai.compress_delta(content, base, dtype="bf16")) + len(more) + ROOM


def test_arrays_are_taken_as_what_they_are() -> None:
    base, content = trained(6000, "fp32")
    before = np.frombuffer(base, np.float32).reshape(60, 100)
    after = np.frombuffer(content, np.float32).reshape(60, 100)
    blob = z4ai.compress_delta(after, before)
    assert z4ai.info(blob).dtype == "fp32"
    both(blob, base, content)
    # Not contiguous: in C order, as everywhere.
    blob = z4ai.compress_delta(after.T, before.T)
    assert z4ai.decompress_delta(blob, before.T) == after.T.tobytes()
    swapped = after.astype(">f4")
    blob = z4ai.compress_delta(swapped, before.astype(">f4"))
    both(blob, before.astype(">f4").tobytes(), swapped.tobytes())
    assert z4ai.info(blob).byteorder == ">"
    records = np.zeros(10, [("a", "<i4"), ("b", "<f8")])
    blob = z4ai.compress_delta(records, records)
    assert z4ai.info(blob).dtype is None


def test_tensors_of_torch_are_taken_as_what_they_are() -> None:
    torch = pytest.importorskip("torch")
    before = torch.linspace(-1, 1, 6000).reshape(60, 100).bfloat16()
    after = (before.float() * 1.01).bfloat16()
    blob = z4ai.compress_delta(after, before)
    assert z4ai.info(blob).dtype == "bf16"
    assert z4ai.decompress_delta(blob, before) == after.view(torch.uint8).numpy().tobytes()
    by_bytes = z4ai.compress_delta(
        after.view(torch.uint8).numpy().tobytes(), before, dtype="bf16", shape=(60, 100)
    )
    assert by_bytes == blob


def test_inputs_are_not_changed() -> None:
    base, content = map(bytearray, trained(5000, "bf16"))
    before = bytes(base), bytes(content)
    blob = z4ai.compress_delta(content, base, dtype="bf16", effort="max")
    z4ai.decompress_delta(bytearray(blob), base)
    assert (bytes(base), bytes(content)) == before
    readonly = np.frombuffer(bytes(content), np.uint16)
    readonly.flags.writeable = False
    unaligned = np.frombuffer(b"x" + bytes(base), np.uint8)[1:]
    assert (
        z4ai.compress_delta(readonly.view(np.uint8), unaligned, dtype="bf16", effort="max") == blob
    )


def test_the_bytes_do_not_depend_on_threads_or_instructions(tmp_path: Any) -> None:
    base, content = trained(3 << 20, "bf16")
    for effort in ("fast", "balanced"):
        blobs = {
            z4ai.compress_delta(content, base, dtype="bf16", effort=effort, threads=n)
            for n in (1, 2, 7)
        }
        assert len(blobs) == 1
    (tmp_path / "base").write_bytes(base)
    (tmp_path / "content").write_bytes(content)
    code = (
        "import sys, z4ai, hashlib\n"
        "base, content = (open(name, 'rb').read() for name in sys.argv[1:])\n"
        "blob = z4ai.compress_delta(content, base, dtype='bf16')\n"
        "assert z4ai.decompress_delta(blob, base) == content\n"
        "print(hashlib.sha256(blob).hexdigest())"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, tmp_path / "base", tmp_path / "content"],
            env={**os.environ, "Z4AI_ISA": isa},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for isa in _dispatch.runnable()
    }
    assert len(digests) == 1
    assert len(_dispatch.runnable()) > 1 or sys.platform != "linux"


# --- Errors ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[bytes, bytes, bytes]:
    base, content = trained(700, "bf16")
    return z4ai.compress_delta(content, base, dtype="bf16"), base, content


def test_a_wrong_reference_is_refused_before_anything_is_written(
    small: tuple[bytes, bytes, bytes],
) -> None:
    blob, base, content = small
    flipped = bytearray(base)
    flipped[100] ^= 1
    for wrong in (bytes(flipped), base[:-1], base + b"\0", b"", content):
        out = bytearray(b"\xa5" * len(content))
        with pytest.raises(errors.BaseMismatchError, match="made against one of"):
            z4ai.decompress_delta(blob, wrong, out=out)
        assert out == b"\xa5" * len(content)


def test_every_prefix_and_every_flipped_bit_is_an_error(
    small: tuple[bytes, bytes, bytes],
) -> None:
    blob, base, content = small
    for end in range(len(blob)):
        with pytest.raises(errors.FormatError):
            z4ai.decompress_delta(blob[:end], base)
    originals = 0
    for bit in range(8 * len(blob)):
        damaged = bytearray(blob)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            restored = z4ai.decompress_delta(bytes(damaged), base)
        except errors.Z4Error:
            continue
        assert restored == content
        originals += 1
    # Unused bits are few.
    assert originals < 16


def test_a_delta_is_no_frame_and_a_frame_is_no_delta(small: tuple[bytes, bytes, bytes]) -> None:
    blob, base, content = small
    with pytest.raises(errors.FormatError, match="decompress_delta"):
        z4ai.decompress(blob)
    with pytest.raises(errors.FormatError, match=r"z4ai\.decompress"):
        z4ai.decompress_delta(z4ai.compress(content), base)
    assert not z4ai.peek_is_z4ai(blob)


def test_out_must_fit_and_not_be_the_reference(small: tuple[bytes, bytes, bytes]) -> None:
    blob, base, content = small
    with pytest.raises(ValueError, match="out has"):
        z4ai.decompress_delta(blob, base, out=bytearray(len(content) - 1))
    both_at_once = bytearray(base)
    with pytest.raises(ValueError, match="overlaps"):
        z4ai.decompress_delta(blob, both_at_once, out=both_at_once)
    assert both_at_once == base


def test_limits_hold(small: tuple[bytes, bytes, bytes]) -> None:
    blob, base, content = small
    limits = z4ai.Limits(max_output_nbytes=len(content) - 1)
    with pytest.raises(errors.LimitError):
        z4ai.decompress_delta(blob, base, limits=limits)


def test_shapes_and_dtypes_are_checked() -> None:
    with pytest.raises(ValueError, match="does not make"):
        z4ai.compress_delta(bytes(100), bytes(100), dtype="bf16", shape=(3, 7))
    with pytest.raises(ValueError, match="needs a dtype"):
        z4ai.compress_delta(bytes(100), bytes(100), dtype="auto", shape=(100,))
    with pytest.raises(ValueError, match="unknown dtype"):
        z4ai.compress_delta(bytes(100), bytes(100), dtype="float7")
    with pytest.raises(TypeError):
        z4ai.compress_delta(bytes(100), 5)  # type: ignore[arg-type]
