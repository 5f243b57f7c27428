"""Low-rank predictions: each variant against the reference, and factors that are hostile."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from z4ai._fast import _dispatch, contexts, lowrank
from z4ai._reference import lowrank as reference
from z4ai._wire import put_varint
from z4ai.dtypes import resolve
from z4ai.errors import CorruptError, FormatError, TruncatedError
from z4ai.lowrank import Factors, decode_factors, encode_factors, find_factors, predict

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "lowrank.md"
NAMES = {"fp16": "F16", "bf16": "BF16", "fp32": "F32", "fp64": "F64"}
FILL = 0xA5

Bytes = npt.NDArray[np.uint8]


def noise(n: int, seed: int) -> npt.NDArray[np.uint64]:
    state = np.uint64(seed << 32) + np.arange(n, dtype=np.uint64)
    state *= np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    return state ^ state >> np.uint64(32)


def numbers(rank: int, n: int, bits: int, seed: int) -> npt.NDArray[np.int32]:
    """Signed integers of so many bits, some of them at the ends."""
    found = (noise(rank * n, seed) >> np.uint64(64 - bits - 1)).astype(np.int64) - (1 << bits)
    found[noise(rank * n, seed + 1) % 9 == 0] = (1 << bits) - 1
    found[noise(rank * n, seed + 2) % 7 == 0] = 0
    return np.clip(found, -(2**31), 2**31 - 1).astype(np.int32).reshape(rank, n)


def factors_of(
    m: int, n: int, rank: int, bits: int, exponent: int, *, seed: int = 1, rounds: bool = False
) -> Factors:
    shifts = tuple(int(k) % 4 for k in noise(rank, seed + 9))
    left, right = numbers(rank, m, bits, seed), numbers(rank, n, bits, seed + 5)
    return Factors(left, right, shifts, exponent, rounds=rounds)


def bases(dtype: str, n: int, seed: int) -> Bytes:
    """All sorts of words: any bits, zeros, subnormal, largest, infinite, NaN."""
    width = resolve(dtype).width
    words = noise(n, seed) >> np.uint64(64 - 8 * width)
    mantissa, exponent_bits = {"fp16": (10, 5), "bf16": (7, 8), "fp32": (23, 8), "fp64": (52, 11)}[
        dtype
    ]
    kind = noise(n, seed + 3) % 16
    sign = np.uint64(1 << 8 * width - 1)
    infinity = ((1 << exponent_bits) - 1) << mantissa
    words[kind == 0] &= sign
    words[kind == 1] &= sign | np.uint64((1 << mantissa) - 1)
    words[kind == 2] |= np.uint64(infinity)
    words[kind == 3] = np.uint64(infinity)
    words[kind == 4] = np.uint64(infinity - 1) | sign
    # Most of a size that what is added can change.
    usual = kind > 6
    words[usual] &= sign | np.uint64((1 << mantissa) - 1)
    bias = (1 << exponent_bits - 1) - 1
    words[usual] |= (np.uint64(bias - 6) + noise(n, seed + 4)[usual] % np.uint64(6)) << np.uint64(
        mantissa
    )
    return words.astype(f"<u{width}").view(np.uint8)


def predicted(base: Bytes, dtype: str, f: Factors, isa: str | None) -> Bytes:
    """Prediction of a variant, with guards around what it writes."""
    memory = np.full(len(base) + 96, FILL, np.uint8)
    out = memory[48:-48]
    high, low = f.left_as_doubles(0, f.shape[0])
    lowrank.predict(
        base,
        lowrank.KINDS[dtype],
        low,
        f.right_as_doubles,
        f.exponent,
        out,
        high=high,
        rounds=f.rounds,
        isa=isa,
    )
    assert (memory[:48] == FILL).all()
    assert (memory[-48:] == FILL).all()
    return out


def slow(base: Bytes, dtype: str, f: Factors) -> bytes:
    plain = reference.Factors(
        f.left.tolist(), f.right.tolist(), list(f.shifts), f.exponent, f.rounds
    )
    return reference.predict(base.tobytes(), NAMES[dtype], plain, f.shape)


def test_the_private_door_runs_every_variant() -> None:
    assert set(lowrank.variants()) == set(_dispatch.runnable()) & {"scalar", "avx2", "avx512"}
    for isa in lowrank.variants():
        assert lowrank.picked(isa) == isa
    assert lowrank.picked() == lowrank.picked(_dispatch.current())


@pytest.mark.parametrize("rounds", [False, True])
@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize(
    ("bits", "exponent"),
    [(6, -20), (12, -32), (26, -60), (27, -54), (5, -150), (10, -900), (12, 400), (8, 110), (8, 0)],
)
def test_variants_equal_the_reference(dtype: str, bits: int, exponent: int, rounds: bool) -> None:
    exercised = set()
    for rank, n in ((1, 1), (3, 33), (4, 8), (7, 40)):
        m = 5
        f = factors_of(m, n, rank, bits, exponent, seed=rank, rounds=rounds)
        base = bases(dtype, m * n, 7 * rank)
        expected = slow(base, dtype, f)
        for isa in _dispatch.runnable():
            assert predicted(base, dtype, f, isa).tobytes() == expected, (isa, rank, n)
            exercised.add(isa)
    assert exercised == set(_dispatch.runnable())


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_every_word_equals_the_reference(dtype: str) -> None:
    base = np.arange(1 << 16, dtype="<u2").view(np.uint8)
    for exponent in (-8, -30):
        left, right = numbers(1, 256, 6, 3), numbers(1, 256, 6, 4)
        f = Factors(left, right, (0,), exponent)
        assert predicted(base, dtype, f, None).tobytes() == slow(base, dtype, f)


def test_tiles_of_columns_meet() -> None:
    f = factors_of(3, 1100, 2, 9, -22)
    base = bases("bf16", 3300, 1)
    assert predicted(base, "bf16", f, None).tobytes() == slow(base, "bf16", f)


def test_halves_of_a_large_product_are_one_number() -> None:
    """Sums beyond 2**53 round once: where the low half decides, a rounding of each would differ."""
    left = np.array([[2**30 + 1, 2**30 + 1, -(2**30) - 1]], np.int32)
    right = np.array([[2**30 + 1, 2**29 + 3, 2**30 - 1]], np.int32)
    f = Factors(left, right, (0,), -60)
    base = np.zeros(9, np.float64).view(np.uint8)
    base.view(np.float64)[:] = 0.25
    got = predicted(base, "fp64", f, None).view(np.float64)
    exact = [0.25 + float(int(a) * int(b)) * 2.0**-60 for a in left[0] for b in right[0]]
    assert got.tolist() == exact


def test_rows_alone_equal_the_whole() -> None:
    f = factors_of(23, 17, 3, 12, -30)
    base = bases("fp32", 23 * 17, 2)
    whole, part = np.empty_like(base), np.empty(7 * 17 * 4, np.uint8)
    predict(base, resolve("fp32"), f, 0, 23, whole)
    predict(base[11 * 68 : 18 * 68], resolve("fp32"), f, 11, 7, part)
    assert np.array_equal(whole[11 * 68 : 18 * 68], part)


FLUSH = """
import ctypes, sys, numpy as np
from z4ai._fast import lowrank
try:
    import torch
    assert torch.set_flush_denormal(True)
except ImportError:
    sys.exit(77)
base = np.arange(0, 4096, dtype="<u4").view(np.uint8)
low, right = np.ones((64, 1)), np.arange(64, dtype=np.float64)[None, :]
out = np.empty_like(base)
lowrank.predict(base, 2, low, right, -149, out)
words = out.view("<u4").reshape(64, 64)
sys.exit(not np.array_equal(words, np.arange(4096).reshape(64, 64) + np.arange(64)))
"""


def test_subnormal_numbers_survive_a_processor_that_flushes_them() -> None:
    result = subprocess.run([sys.executable, "-c", FLUSH], check=False, timeout=60)
    if result.returncode == 77:
        pytest.skip("torch, which sets the processor's mode, is not installed")
    assert result.returncode == 0


# --- On the wire ----------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(2, 40),
    st.integers(2, 40),
    st.integers(1, 9),
    st.integers(0, 27),
    st.integers(0, 1000),
    st.booleans(),
)
def test_factors_come_back(m: int, n: int, rank: int, bits: int, seed: int, rounds: bool) -> None:
    rank = min(rank, m * n // (m + n))
    f = factors_of(m, n, rank, bits, -50, seed=seed, rounds=rounds)
    data = encode_factors(f)
    g = decode_factors(data, (m, n))
    assert np.array_equal(f.left, g.left)
    assert np.array_equal(f.right, g.right)
    assert (f.shifts, f.exponent, f.rounds) == (g.shifts, g.exponent, g.rounds)
    r = reference.decode_factors(data, (m, n))
    assert r.left == f.left.tolist()
    assert r.right == f.right.tolist()
    assert (tuple(r.shifts), r.exponent, r.rounds) == (f.shifts, f.exponent, f.rounds)


def test_numbers_cost_their_entropy() -> None:
    """Gaussian numbers of 12 bits: within 2 % of what they must take."""
    sigma = 700.0
    uniform = (noise(12 * 6144, 1) >> np.uint64(11)).astype(np.float64) / 2.0**53
    normal = (uniform.reshape(12, -1).sum(axis=0) - 6) * sigma
    integers = np.rint(normal).astype(np.int32)
    f = Factors(integers[:3072].reshape(8, 384), integers[3072:].reshape(8, 384), (0,) * 8, -40)
    entropy = 6144 * (np.log2(sigma) + 2.047) / 8
    assert len(encode_factors(f)) < 1.02 * entropy + 64


def test_the_example_of_the_page() -> None:
    block = re.search(r"```lowrank\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert block is not None
    record, line = block[1].strip().splitlines()
    before, after = (bytes.fromhex(side) for side in line.split("->"))
    data = bytes.fromhex(record)
    f = decode_factors(data, (2, 2))
    assert encode_factors(f) == data
    assert predicted(np.frombuffer(before, np.uint8), "fp32", f, None).tobytes() == after
    r = reference.decode_factors(data, (2, 2))
    assert reference.predict(before, "F32", r, (2, 2)) == after


def record(
    *,
    rank: int = 1,
    flags: int = 0,
    exponent: int = -6,
    shifts: bytes = b"\0",
    low: bytes = b"\0\0",
    tables: bytes | None = None,
    where: bytes = b"",
    symbols: bytes = bytes(range(8)),
    stream: bytes | None = None,
    rest: bytes = b"",
) -> bytes:
    """Factors of a matrix of 4 x 4, wrong wherever the caller wants."""
    counts = np.ones((2 if where else 1, 256), np.uint32)
    written, _ = contexts.write_tables(counts)
    tables = written if tables is None else tables
    if stream is None:
        freqs = contexts.read_tables(written)
        numbers = np.frombuffer(symbols, np.uint8)
        stream = contexts.encode(numbers, np.zeros(8, np.uint8) if where else None, freqs)
    head = put_varint(rank) + bytes([flags]) + exponent.to_bytes(2, "little", signed=True)
    sized = put_varint(len(tables)) + tables + where + put_varint(len(stream)) + stream
    return head + shifts + low + sized + rest


def test_the_record_of_hostile_tests_is_legal_itself() -> None:
    assert decode_factors(record(), (4, 4)).left.tolist() == [[0, 1, 2, 3]]
    assert decode_factors(record(where=b"\0\1"), (4, 4)).rank == 1
    # What is zero may be shifted as far as can be said.
    nothing = decode_factors(record(shifts=b"\x3e", symbols=bytes(8)), (4, 4))
    base = np.ones(16, "<f4").view(np.uint8)
    assert np.array_equal(predicted(base, "fp32", nothing, None), base)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(record(rank=0), id="rank 0"),
        pytest.param(record(rank=3), id="more numbers than elements"),
        pytest.param(record(rank=5), id="rank above sides"),
        pytest.param(record(rank=2**63), id="absurd rank"),
        pytest.param(record(flags=2), id="reserved flag"),
        pytest.param(record(exponent=-901), id="exponent below"),
        pytest.param(record(exponent=401), id="exponent above"),
        pytest.param(record(shifts=b"\x3f"), id="shift above"),
        pytest.param(record(shifts=b"\x3f", symbols=bytes(8)), id="shift of nothing above"),
        pytest.param(record(shifts=b"\x3e"), id="sums reach 2**62"),
        pytest.param(record(low=b"\0\x19", rest=bytes(13)), id="low bits above"),
        pytest.param(record(low=b"\x18\x18", shifts=b"\x0b", rest=bytes(24)), id="shifted too far"),
        pytest.param(record(tables=b""), id="no tables"),
        pytest.param(record(tables=b"\xff" * 40), id="tables of noise"),
        pytest.param(record(stream=b""), id="no stream"),
        pytest.param(record(stream=bytes(4)), id="state out of range"),
        pytest.param(record(where=b"\0\2"), id="context above"),
        pytest.param(record(rest=b"\0"), id="bytes behind"),
    ],
)
def test_hostile_factors_are_refused(data: bytes) -> None:
    with pytest.raises(CorruptError):
        decode_factors(data, (4, 4))
    with pytest.raises(ValueError, match=r"."):
        reference.decode_factors(data, (4, 4))


def test_a_small_record_does_not_claim_large_memory() -> None:
    with pytest.raises(CorruptError, match="numbers for"):
        decode_factors(record(rank=1024), (1 << 20, 1 << 20))


def test_every_prefix_is_refused() -> None:
    data = encode_factors(factors_of(30, 40, 3, 12, -30))
    for n in range(len(data)):
        with pytest.raises((TruncatedError, CorruptError)):
            decode_factors(data[:n], (30, 40))


def test_every_flipped_bit_is_refused_or_exact() -> None:
    data = encode_factors(factors_of(12, 14, 2, 9, -30))
    base = bases("bf16", 12 * 14, 5)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            f = decode_factors(damaged, (12, 14))
        except FormatError:
            with pytest.raises(ValueError, match=r"."):
                reference.decode_factors(bytes(damaged), (12, 14))
            continue
        plain = reference.decode_factors(bytes(damaged), (12, 14))
        assert plain.left == f.left.tolist()
        if bit % 16 == 0:
            expected = reference.predict(base.tobytes(), "BF16", plain, (12, 14))
            assert predicted(base, "bf16", f, None).tobytes() == expected


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": 4},
        {"exponent": -901},
        {"exponent": 401},
        {"out": np.empty(15, np.uint8)},
        {"base": np.empty(15, np.uint8)},
        {"low": np.ones((2, 3))},
        {"high": np.ones((2, 3))},
    ],
)
def test_the_door_checks_its_arguments(wrong: dict[str, object]) -> None:
    right: dict[str, object] = {
        "base": np.zeros(16, np.uint8),
        "kind": 2,
        "low": np.ones((2, 1)),
        "right": np.ones((1, 2)),
        "exponent": 0,
        "out": np.empty(16, np.uint8),
    }
    lowrank.predict(**right)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"."):
        lowrank.predict(**right | wrong)  # type: ignore[arg-type]


# --- Found ----------------------------------------------------------------------------------------


def gaussian(n: int, seed: int) -> npt.NDArray[np.float64]:
    uniform = (noise(12 * n, seed) >> np.uint64(11)).astype(np.float64) / 2.0**53
    found: npt.NDArray[np.float64] = uniform.reshape(12, n).sum(axis=0) - 6
    return found


def as_dtype(x: npt.NDArray[np.float64], dtype: str) -> Bytes:
    if dtype == "bf16":
        words = x.astype("<f4").view("<u4")
        words = (words + 0x7FFF + (words >> 16 & 1)) >> 16
        return words.astype("<u2").reshape(-1).view(np.uint8)
    kind = {"fp16": "<f2", "fp32": "<f4", "fp64": "<f8"}[dtype]
    return np.ascontiguousarray(x.astype(kind)).reshape(-1).view(np.uint8)


def merged(
    dtype: str, m: int, n: int, rank: int, share: float = 0.03
) -> tuple[Bytes, Bytes, npt.NDArray[np.float64]]:
    """Target, base, and what was added to it."""
    base = as_dtype(0.05 * gaussian(m * n, 1).reshape(m, n), dtype)
    exact = np.zeros(m * n)
    for k, word in enumerate(base.view(f"<u{resolve(dtype).width}").tolist()):
        mantissa, bits = {"fp16": (10, 5), "bf16": (7, 8), "fp32": (23, 8), "fp64": (52, 11)}[dtype]
        exact[k] = reference.value(word, mantissa, bits)
    product = gaussian(m * rank, 2).reshape(m, rank) @ gaussian(rank * n, 3).reshape(rank, n)
    product *= share * 0.05 / np.sqrt(rank)
    return as_dtype(exact.reshape(m, n) + product, dtype), base, product


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize(("m", "n", "rank"), [(128, 160, 3), (144, 96, 8)])
def test_a_merged_adapter_is_found(dtype: str, m: int, n: int, rank: int) -> None:
    target, base, _ = merged(dtype, m, n, rank, 0.3 if dtype == "fp16" else 0.1)
    found = find_factors(target, base, resolve(dtype), (m, n))
    assert found is not None
    assert found.rank == rank
    out = np.empty_like(base)
    predict(base, resolve(dtype), found, 0, m, out)
    word = f"<u{resolve(dtype).width}"
    if dtype == "fp64":
        # Products of 62 bits leave some of a mantissa of 53 to the differences.
        apart = np.abs(out.view(np.float64) - target.view(np.float64)).max()
        assert apart < 2.0**-26 * np.abs(target.view(np.float64)).max()
    else:
        assert (out.view(word) == target.view(word)).mean() > 0.8
    assert len(encode_factors(found)) < len(target) // (2 if dtype == "fp64" else 3)


def test_what_is_not_of_low_rank_is_not_found() -> None:
    m, n = 128, 160
    base = 0.05 * gaussian(m * n, 1).reshape(m, n)
    tuned = base + 0.001 * gaussian(m * n, 4).reshape(m, n)
    for dtype in NAMES:
        pair = as_dtype(tuned, dtype), as_dtype(base, dtype)
        assert find_factors(*pair, resolve(dtype), (m, n)) is None, dtype
    few = base.copy()
    few[::40] += 1.0 * gaussian(4 * n, 5).reshape(4, n)
    assert (
        find_factors(as_dtype(few, "bf16"), as_dtype(base, "bf16"), resolve("bf16"), (m, n)) is None
    )


def test_infinite_and_nan_elements_do_not_hide_an_adapter() -> None:
    target, base, _ = merged("bf16", 128, 160, 3, 0.1)
    base.view("<u2")[5::997] = 0x7FC1
    target.view("<u2")[5::997] = 0x7FC1
    base.view("<u2")[6::1999] = 0xFF80
    target.view("<u2")[7::1999] = 0x7F80
    found = find_factors(target, base, resolve("bf16"), (128, 160))
    assert found is not None
    out = np.empty_like(base)
    predict(base, resolve("bf16"), found, 0, 128, out)
    assert (out.view("<u2")[5::997] == 0x7FC1).all()
    assert (out.view("<u2") == target.view("<u2")).mean() > 0.8


def test_all_kinds_of_nonsense_are_survived() -> None:
    for dtype in NAMES:
        width = resolve(dtype).width
        one = (noise(64 * 64, 1) >> np.uint64(64 - 8 * width)).astype(f"<u{width}").view(np.uint8)
        other = (noise(64 * 64, 2) >> np.uint64(64 - 8 * width)).astype(f"<u{width}").view(np.uint8)
        zeros = np.zeros(64 * 64 * width, np.uint8)
        nan = np.full(64 * 64 * width, 255, np.uint8)
        for target in (one, zeros, nan):
            for base in (other, zeros, nan):
                find_factors(target, base, resolve(dtype), (64, 64))


def test_every_variant_finds_the_same() -> None:
    target, base, _ = merged("bf16", 96, 112, 3, 0.1)
    code = """
import sys, numpy as np
from z4ai.dtypes import resolve
from z4ai.lowrank import encode_factors, find_factors
data = np.frombuffer(sys.stdin.buffer.read(), np.uint8)
half = len(data) // 2
found = find_factors(data[:half].copy(), data[half:].copy(), resolve("bf16"), (96, 112))
sys.stdout.buffer.write(encode_factors(found))
"""
    seen = {}
    for isa in _dispatch.runnable():
        result = subprocess.run(
            [sys.executable, "-c", code],
            input=target.tobytes() + base.tobytes(),
            capture_output=True,
            check=True,
            env={"Z4AI_ISA": isa, "PYTHONPATH": ":".join(sys.path)},
            timeout=60,
        )
        seen[isa] = result.stdout
    assert set(seen) == set(_dispatch.runnable())
    assert len(set(seen.values())) == 1, {isa: len(data) for isa, data in seen.items()}
