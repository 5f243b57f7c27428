"""Stage `steps`: what it takes apart it restores, and small differences become small."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai._reference import steps as reference
from z4ai.dtypes import DType, resolve
from z4ai.errors import CorruptError
from z4ai.stages import steps
from z4ai.stages._part import Split

Bytes = npt.NDArray[np.uint8]
Ints = npt.NDArray[np.int64]

# The mode of chunks without exceptions.
COMPLETE = 1 << 4
PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "steps.md"
NAMES = ["int16", "uint16", "int32", "uint32", "int64", "uint64"]
N = 1 << 17


def given_parts(parts: list[bytes]) -> Callable[[int, int], Bytes]:
    """Hand out parts as a frame does: in order, once, and of the size asked for."""
    asked = iter(range(len(parts)))

    def part(k: int, nbytes: int) -> Bytes:
        assert k == next(asked)
        if k >= len(parts) or len(parts[k]) != nbytes:
            raise CorruptError(f"part {k} has {len(parts[k])} bytes, expected {nbytes}")
        found = np.frombuffer(parts[k], np.uint8)
        found.flags.writeable = False
        return found

    return part


def join(params: bytes, parts: list[bytes], dtype: DType, nbytes: int) -> bytes:
    out = np.full(nbytes, 0x5A, np.uint8)
    steps.join(memoryview(params), given_parts(parts), dtype, nbytes, out)
    return out.tobytes()


def restored(split: Split, dtype: DType, nbytes: int) -> bytes:
    parts = [part.content.tobytes() for part in split.parts]
    assert steps.n_parts(memoryview(split.params)) == len(parts)
    return join(split.params, parts, dtype, nbytes)


def entropy(symbols: Bytes) -> float:
    """Bytes of an ideal coder of order 0."""
    counts = np.bincount(symbols)
    counts = counts[counts > 0]
    return float((counts * np.log2(len(symbols) / counts)).sum()) / 8


def nbytes_of(split: Split) -> float:
    """Bytes that the parts take by an ideal coder; exceptions whole."""
    if split.params[0] & COMPLETE:
        return sum(entropy(p.content) for p in split.parts)
    symbols, exceptions, *lows = split.parts
    return len(exceptions.content) + sum(entropy(p.content) for p in [symbols, *lows])


def words(values: Ints, name: str) -> Bytes:
    width = resolve(name).width
    return values.astype(np.int64).view(np.uint64).astype(f"<u{width}").view(np.uint8)


def shapes(rng: np.random.Generator, n: int) -> dict[str, Ints]:
    return {
        "sorted": np.sort(rng.integers(0, 3 * n, n)),
        "range": np.arange(n) * 7 - 1000,
        "back": -3 * np.arange(n),
        "near": rng.integers(-4, 5, n),
        "labels": np.where(rng.random(n) < 0.5, -100, rng.integers(0, 30_000, n)),
        "walk": np.cumsum(rng.integers(-40, 41, n)),
        "leaps": np.cumsum(rng.geometric(1e-4, n)),
        "runs": np.repeat(np.arange(n // 7 + 1), 7)[:n],
        "rows": np.sort(rng.integers(0, 100_000, (n // 16, 16)), 1).reshape(-1),
        "noise": rng.integers(-(2**63), 2**63 - 1, n),
    }


KINDS = list(shapes(np.random.default_rng(0), 64))


@given(
    name=st.sampled_from(NAMES),
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 1000).map(lambda k: 16 * k),
    seed=st.integers(0, 1000),
    odd=st.integers(0, 20),
)
def test_what_is_taken_apart_is_restored(name: str, kind: str, n: int, seed: int, odd: int) -> None:
    rng = np.random.default_rng(seed)
    values = shapes(rng, n)[kind].astype(np.int64)
    values[rng.integers(0, n, odd)] = rng.integers(-(2**63), 2**63 - 1, odd)
    content = words(values, name)
    content.flags.writeable = False
    dtype = resolve(name)
    split = steps.split(content, dtype, 0, 0)
    if split is None:
        return
    parts = [part.content.tobytes() for part in split.parts]
    assert restored(split, dtype, len(content)) == content.tobytes()
    if n <= 2000:
        assert reference.join(split.params, parts, dtype.width, len(content)) == content.tobytes()


def test_sorted_draws_take_what_their_gaps_take() -> None:
    n = 524_288
    draws = np.sort(np.random.default_rng(1).choice(1 << 20, n, replace=False)).astype(np.int64)
    gaps = np.diff(draws, prepend=draws[0] - 1).astype(np.uint8)
    split = steps.split(draws.view(np.uint8), resolve("int64"), 0, 0)
    assert split is not None
    assert nbytes_of(split) < 1.001 * entropy(gaps)
    assert draws.nbytes / nbytes_of(split) > 31
    assert split.params[0] & COMPLETE
    assert len(split.parts) == 1
    assert restored(split, resolve("int64"), draws.nbytes) == draws.tobytes()
    odd = draws.copy()
    odd[n // 3] = -(1 << 61)
    split = steps.split(odd.view(np.uint8), resolve("int64"), 0, 0)
    assert split is not None
    assert split.parts[1].content.view(np.int64).tolist() == [odd[n // 3], odd[n // 3 + 1]]
    assert odd.nbytes / nbytes_of(split) > 31
    assert restored(split, resolve("int64"), odd.nbytes) == odd.tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("step", [1, -1, 12_345])
def test_a_range_is_one_symbol_over_and_over(name: str, step: int) -> None:
    content = words(np.arange(N) * step + 99, name)
    split = steps.split(content, resolve(name), 0, 0)
    assert split is not None
    (symbols,) = split.parts
    assert len(set(symbols.content.tolist())) == 1
    assert restored(split, resolve(name), len(content)) == content.tobytes()


@pytest.mark.parametrize(
    ("kind", "name", "low", "least"),
    [
        ("sorted", "int32", 0, 8),
        ("near", "int64", 0, 19),
        ("labels", "int64", 1, 6),
        ("walk", "uint64", 0, 9),
        ("leaps", "int64", 1, 4),
        ("runs", "int16", 0, 25),
        ("rows", "int32", 2, 2),
    ],
)
def test_close_integers_become_small(kind: str, name: str, low: int, least: float) -> None:
    content = words(shapes(np.random.default_rng(2), N)[kind].astype(np.int64), name)
    split = steps.split(content, resolve(name), 0, 0)
    assert split is not None
    assert len(split.parts) == low + (1 if split.params[0] & COMPLETE else 2)
    assert len(content) / nbytes_of(split) > least
    width = resolve(name).width
    planes = content.reshape(-1, width).T
    assert nbytes_of(split) < 0.97 * sum(entropy(np.ascontiguousarray(p)) for p in planes)
    assert restored(split, resolve(name), len(content)) == content.tobytes()


def test_what_planes_do_as_well_is_left_alone() -> None:
    rng = np.random.default_rng(3)
    for values in (rng.integers(0, 50_000, N), rng.integers(-(2**63), 2**63 - 1, N), np.full(N, 7)):
        for name in NAMES:
            assert steps.split(words(values, name), resolve(name), 0, 0) is None
    few = np.arange(60)
    assert steps.split(words(few, "int64"), resolve("int64"), 0, 0) is None
    assert steps.split(words(few[:0], "int64"), resolve("int64"), 0, 0) is None


def test_weights_are_not_looked_at() -> None:
    content = words(np.arange(N), "int32")
    for name in ("bf16", "fp16", "fp32", "fp64", "int8", "uint8", "opaque", "complex64"):
        assert steps.split(content, resolve(name), 0, 0) is None


def test_a_sample_that_misled_costs_nothing() -> None:
    values = np.random.default_rng(4).integers(-(2**63), 2**63 - 1, N)
    for start in np.arange(64) * (N - 256) // 63:  # where the sample lies
        values[start : start + 256] = np.arange(256)
    assert steps.split(words(values, "int64"), resolve("int64"), 0, 0) is None


COMPLETE_GOOD = (b"\x19\0\0\0\0", [b"\x01\x04", b"\x02\x03"])
GOOD = (b"\x09\0\0\0\0", [b"\x01\xff", b"ab", b"\x02\x03"])


@pytest.mark.parametrize(
    ("params", "parts", "message"),
    [
        (b"", GOOD[1], "no parameters"),
        (b"\x29\0\0\0\0", GOOD[1], "bits 5 to 7 zero"),
        (b"\x89\0\0\0\0", GOOD[1], "bits 5 to 7 zero"),
        (b"\x19\0\0\0\0", [b"\x01\xff", b"12"], "1 symbols that ask for one"),
        (b"\x19\0\0\0\0", [b"\x01\x02", b"1"], "part 1 has 1 bytes, expected 2"),
        (b"\x0f\0\0\0\0", GOOD[1], "7 low bytes, expected at most 6"),
        (b"\x0a\0\0\0\0", [*GOOD[1], b"12"], "2 low bytes of elements of 2"),
        (b"\x09\0\0\0", GOOD[1], "4 bytes of parameters, expected 5"),
        (b"\x09\0\0\0\0\0", GOOD[1], "6 bytes of parameters, expected 5"),
        (b"\x01\0\0\0\0", GOOD[1], "5 bytes of parameters, expected 3"),
        (GOOD[0], [b"\x01", b"", b"12"], "part 0 has 1 bytes, expected 2"),
        (GOOD[0], [b"\x01\xff\x02", b"ab", b"12"], "part 0 has 3 bytes, expected 2"),
        (GOOD[0], [b"\x01\x02", b"ab", b"12"], "part 1 has 2 bytes, expected 0"),
        (GOOD[0], [b"\xff\xff", b"ab", b"12"], "part 1 has 2 bytes, expected 4"),
        (GOOD[0], [b"\x01\xff", b"a", b"12"], "part 1 has 1 bytes, expected 2"),
        (GOOD[0], [b"\x01\xff", b"ab", b"1"], "part 2 has 1 bytes, expected 2"),
    ],
)
def test_hostile_parts(params: bytes, parts: list[bytes], message: str) -> None:
    assert join(*GOOD, resolve("int16"), 4) == reference.join(*GOOD, 2, 4) == b"\x02\x01ab"
    low = COMPLETE_GOOD
    assert join(*low, resolve("int16"), 4) == reference.join(*low, 2, 4) == b"\x02\x01\x05\x05"
    with pytest.raises(CorruptError, match=message):
        join(params, parts, resolve("int16"), 4)
    with pytest.raises(ValueError, match=r"expected|low bytes|parameters|reserved"):
        reference.join(params, parts, 2, 4)


def test_elements_of_one_byte_are_refused() -> None:
    with pytest.raises(CorruptError, match="steps of int8, expected elements of 2, 4 or 8"):
        join(b"\0\0", [b"\1\2", b""], resolve("int8"), 2)
    with pytest.raises(ValueError, match="elements of 1 bytes"):
        reference.join(b"\0\0", [b"\1\2", b""], 1, 2)


def test_examples_of_the_page() -> None:
    block = re.search(r"```steps\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    seen = 0
    for line in block[1].splitlines():
        head, _, elements = line.partition("=")
        first, *parts = head.split("|")
        width, params = first.split(maxsplit=1)
        dtype = resolve({"2": "int16", "4": "int32", "8": "int64"}[width])
        decoded = [bytes.fromhex(part.replace("-", "")) for part in parts]
        content = bytes.fromhex(elements)
        assert join(bytes.fromhex(params), decoded, dtype, len(content)) == content
        assert reference.join(bytes.fromhex(params), decoded, int(width), len(content)) == content
        seen += 1
    assert seen == 4
