"""Stage `zeros`: what it takes apart it restores, what it should leave alone it leaves alone."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai._reference import zeros as reference
from z4ai.dtypes import DType, resolve
from z4ai.errors import CorruptError
from z4ai.stages import zeros
from z4ai.stages._part import Split

Bytes = npt.NDArray[np.uint8]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "zeros.md"
NAMES = ["uint8", "bool", "bf16", "fp16", "int16", "fp32", "complex64", "int64", "fp64"]


def given_parts(parts: list[bytes]) -> Callable[[int, int], Bytes]:
    """Hand out parts as a frame does: in order, once, and of the size asked for."""
    asked = iter(range(len(parts)))

    def part(k: int, nbytes: int) -> Bytes:
        assert k == next(asked)
        if len(parts[k]) != nbytes:
            raise CorruptError(f"part {k} has {len(parts[k])} bytes, expected {nbytes}")
        found = np.frombuffer(parts[k], np.uint8)
        found.flags.writeable = False
        return found

    return part


def join(params: bytes, parts: list[bytes], dtype: DType, nbytes: int) -> bytes:
    out = np.full(nbytes, 0x5A, np.uint8)
    zeros.join(memoryview(params), given_parts(parts), dtype, nbytes, out)
    return out.tobytes()


def restored(split: Split, dtype: DType, nbytes: int) -> bytes:
    parts = [part.content.tobytes() for part in split.parts]
    assert zeros.n_parts(memoryview(split.params)) == len(parts)
    content = join(split.params, parts, dtype, nbytes)
    assert reference.join(split.params, parts, dtype.width, nbytes) == content
    return content


def weights(n: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(n).astype(np.float32) * np.float32(0.02)


def pruned(name: str, n: int, share: float, seed: int = 0) -> Bytes:
    rng = np.random.default_rng(seed)
    dtype = resolve(name)
    bits = weights(n, seed).view(np.uint32)
    words = bits >> 16 if dtype.width == 2 else bits
    words = words * (rng.random(n) >= share)
    return words.astype(f"<u{dtype.width}").view(np.uint8)


@given(
    name=st.sampled_from(NAMES),
    data=st.data(),
    share=st.sampled_from([0.1, 0.3, 0.5, 0.9, 0.99]),
    n=st.integers(64, 3000),
    fill=st.integers(0, 2**64 - 1),
)
def test_what_is_taken_apart_is_restored(
    name: str, data: st.DataObject, share: float, n: int, fill: int
) -> None:
    dtype = resolve(name)
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    words = rng.integers(0, 2**64, n, np.uint64, endpoint=False) | np.uint64(1)
    words[rng.random(n) < share] = np.uint64(fill)
    content = words.astype(f"<u{dtype.width}").view(np.uint8)
    content.flags.writeable = False
    split = zeros.split(content, dtype, data.draw(st.integers(0, 100)), data.draw(st.integers(0)))
    if share >= 0.3 and n > 500 and dtype.width > 1:
        assert split is not None
    if split is not None:
        assert restored(split, dtype, len(content)) == content.tobytes()


@pytest.mark.parametrize("share", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32"])
def test_zeros_are_found(name: str, share: float) -> None:
    content = pruned(name, 1 << 18, share)
    split = zeros.split(content, resolve(name), 0, 0)
    assert split is not None
    assert not any(split.params)
    bitmap, dense = split.parts
    assert (bitmap.dtype.name, dense.dtype.name) == ("uint8", name)
    assert len(dense.content) / len(content) == pytest.approx(1 - share, abs=0.01)
    assert restored(split, resolve(name), len(content)) == content.tobytes()


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_negative_zero_and_nans_are_values_like_any_other(name: str) -> None:
    dtype = resolve(name)
    top = 1 << 8 * dtype.width - 1
    exponents = 0x7F80 << 8 * (dtype.width - 2)
    words = pruned(name, 1 << 14, 0.5).view(f"<u{dtype.width}").copy()
    words[1000:2000:3] = top  # -0.0
    words[3000:4000:7] = exponents | 1
    words[4000:4100] = top | exponents | 5
    content = words.view(np.uint8)
    split = zeros.split(content, dtype, 0, 0)
    assert split is not None
    assert int.from_bytes(split.params, "little") == 0
    assert len(split.parts[1].content) == dtype.width * int((words != 0).sum())
    assert restored(split, dtype, len(content)) == content.tobytes()


def test_zeros_of_both_signs_are_two_rounds() -> None:
    values = weights(1 << 16) * (np.random.default_rng(1).random(1 << 16) < 0.4)
    split = zeros.split(values.astype(np.float32).view(np.uint8), resolve("fp32"), 0, 0)
    assert split is not None
    again = zeros.split(split.parts[1].content, resolve("fp32"), 0, 0)
    assert again is not None
    assert {split.params, again.params} == {bytes(4), b"\0\0\0\x80"}
    assert len(again.parts[1].content) == pytest.approx(0.4 * values.nbytes, rel=0.02)


def test_the_fill_need_not_be_zero() -> None:
    words = pruned("fp32", 1 << 16, 0.4).view(np.uint32).copy()
    words[words == 0] = 0xFFC00001  # a NaN
    split = zeros.split(words.view(np.uint8), resolve("fp32"), 0, 0)
    assert split is not None
    assert split.params == bytes.fromhex("0100C0FF")


def test_pairs_are_split_by_their_halves() -> None:
    content = pruned("fp32", 1 << 16, 0.5)
    split = zeros.split(content, resolve("complex64"), 0, 0)
    assert split is not None
    assert split.parts[1].dtype.name == "fp32"


def test_rows_of_zeros_go_to_a_match_finder() -> None:
    matrix = pruned("bf16", 1 << 20, 0.0).view(np.uint16).reshape(1024, 1024).copy()
    matrix[np.random.default_rng(5).random(1024) < 0.5] = 0
    split = zeros.split(matrix.reshape(-1).view(np.uint8), resolve("bf16"), 1024, 0)
    assert split is not None
    assert split.parts[0].dtype.name == "opaque"


@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32", "fp64", "int8", "fp8_e4m3", "int64"])
def test_ordinary_weights_are_left_alone(name: str) -> None:
    values = weights(1 << 18)
    content = {
        "bf16": (values.view(np.uint32) >> 16).astype(np.uint16),
        "fp16": values.astype(np.float16),
        "fp32": values,
        "fp64": values.astype(np.float64) * np.pi,
        "int8": np.rint(values * 1000).astype(np.int8),
        "fp8_e4m3": (values.view(np.uint32) >> 20).astype(np.uint8),
        "int64": np.arange(1 << 18),
    }[name].view(np.uint8)
    assert zeros.split(content, resolve(name), 0, 0) is None


def test_nothing_is_found_in_what_is_small_opaque_or_constant() -> None:
    content = pruned("bf16", 1 << 12, 0.5)
    assert zeros.split(content, resolve(None), 0, 0) is None
    assert zeros.split(content[:126], resolve("bf16"), 0, 0) is None
    assert zeros.split(content[:0], resolve("bf16"), 0, 0) is None
    assert zeros.split(np.zeros(1 << 16, np.uint8), resolve("bf16"), 0, 0) is None


@pytest.mark.parametrize("n", [5, 8])
@pytest.mark.parametrize(
    ("params", "bitmap", "dense", "message"),
    [
        (b"\0", b"\x05", b"abcd", "fill of zeros has 1 bytes, expected 2"),
        (b"\0" * 4, b"\x05", b"abcd", "fill of zeros has 4 bytes, expected 2"),
        (b"", b"\x05", b"abcd", "fill of zeros has 0 bytes, expected 2"),
        (b"\0\0", b"", b"abcd", "part 0 has 0 bytes, expected 1"),
        (b"\0\0", b"\x05\0", b"abcd", "part 0 has 2 bytes, expected 1"),
        (b"\0\0", b"\x05", b"ab", "part 1 has 2 bytes, expected 4"),
        (b"\0\0", b"\x05", b"abcdef", "part 1 has 6 bytes, expected 4"),
        (b"\0\0", b"\x05", b"abc", "part 1 has 3 bytes, expected 4"),
    ],
)
def test_hostile_parts(n: int, params: bytes, bitmap: bytes, dense: bytes, message: str) -> None:
    assert len(join(b"\0\0", [b"\x05", b"abcd"], resolve("bf16"), 2 * n)) == 2 * n
    with pytest.raises(CorruptError, match=message):
        join(params, [bitmap, dense], resolve("bf16"), 2 * n)
    with pytest.raises(ValueError, match="expected"):
        reference.join(params, [bitmap, dense], 2, 2 * n)


def test_bits_behind_the_last_element_are_refused() -> None:
    for n, last in ((5, 0x20), (7, 0x80), (1, 2)):
        with pytest.raises(CorruptError, match=f"a bit set behind its {n}"):
            join(b"\0\0", [bytes([last]), b"ab"], resolve("bf16"), 2 * n)
        with pytest.raises(ValueError, match="reserved bits"):
            reference.join(b"\0\0", [bytes([last]), b"ab"], 2, 2 * n)


def test_parameters_of_no_width_are_refused() -> None:
    for nbytes in (0, 3, 5, 16):
        with pytest.raises(CorruptError, match="expected 1, 2, 4 or 8"):
            zeros.n_parts(memoryview(bytes(nbytes)))


def test_examples_of_the_page() -> None:
    block = re.search(r"```zeros\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    seen = 0
    for line in block[1].splitlines():
        head, _, elements = line.partition("=")
        first, *parts = head.split("|")
        width, params = first.split(maxsplit=1)
        dtype = resolve({"1": "uint8", "2": "bf16", "4": "fp32"}[width])
        decoded = [bytes.fromhex(part.replace("-", "")) for part in parts]
        content = bytes.fromhex(elements)
        assert join(bytes.fromhex(params), decoded, dtype, len(content)) == content
        assert reference.join(bytes.fromhex(params), decoded, int(width), len(content)) == content
        seen += 1
    assert seen == 3
