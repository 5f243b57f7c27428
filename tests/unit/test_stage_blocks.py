"""Stage `blocks`: what it takes apart it restores, and parameters that lie are refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai._fast import blocks as kernels
from z4ai._reference import blocks as reference
from z4ai._wire import put_varint
from z4ai.dtypes import OPAQUE, resolve
from z4ai.errors import FormatError
from z4ai.stages import blocks
from z4ai.stages.blocks import BY_RATIO, BY_RATIOS, BYTES, Format, Layout, Run

Bytes = npt.NDArray[np.uint8]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "blocks.md"
FP16, UINT8, INT8 = map(resolve, ("fp16", "uint8", "int8"))


def given_parts(parts: list[bytes]) -> Callable[[int, int], Bytes]:
    """Hand out parts as a frame does: in order, once, and of the size asked for."""
    asked = iter(range(len(parts)))

    def part(k: int, nbytes: int) -> Bytes:
        assert k == next(asked)
        if len(parts[k]) != nbytes:
            raise FormatError(f"part {k} has {len(parts[k])} bytes, expected {nbytes}")
        found = np.frombuffer(parts[k], np.uint8)
        found.flags.writeable = False
        return found

    return part


def join(params: bytes, parts: list[bytes], nbytes: int) -> bytes:
    out = np.full(nbytes, 0x5A, np.uint8)
    if blocks.n_parts(memoryview(params)) != len(parts):
        raise FormatError("number of parts")
    blocks.join(memoryview(params), given_parts(parts), OPAQUE, nbytes, out)
    return out.tobytes()


WIDTHS = st.one_of(st.sampled_from([1, 2, 4, 8, 12, 16, 32, 64, 128]), st.integers(1, 40))
FIELDS = st.tuples(st.sampled_from([OPAQUE, FP16, UINT8, INT8]), WIDTHS)


@st.composite
def formats(draw: st.DrawFn) -> Format:
    fields = draw(st.lists(FIELDS, min_size=1, max_size=6))
    order = draw(st.integers(0, 2))
    if order == BY_RATIOS:
        scales = (FP16, 2), (FP16, 2), (UINT8, 12)
        return Format((*scales, *fields[:3], (UINT8, 128)), order)
    return Format(((FP16, 2), (FP16, 2), *fields) if order else tuple(fields), order)


@given(data=st.data(), several=st.lists(formats(), min_size=1, max_size=5, unique=True))
def test_what_is_taken_apart_is_restored(data: st.DataObject, several: list[Format]) -> None:
    runs = [
        Run(data.draw(st.sampled_from(several)), data.draw(st.integers(1, 40)))
        for _ in range(data.draw(st.integers(1, 8)))
    ]
    runs = Layout(runs).cut(0, sum(run.nbytes for run in runs))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    content = rng.integers(0, 256, sum(run.nbytes for run in runs), np.uint8)
    if data.draw(st.booleans()):
        content[:] = content & 0x3F  # few exponents: keys of all kinds
    content.flags.writeable = False
    split = blocks.split(content, runs)
    assert split is not None
    parts = [part.content.tobytes() for part in split.parts]
    assert sum(map(len, parts)) == len(content)
    assert len(parts) <= 8
    assert join(split.params, parts, len(content)) == content.tobytes()
    assert reference.join(split.params, parts, 1, len(content)) == content.tobytes()


def test_keys_are_those_of_the_page_for_every_pair_of_magnitudes() -> None:
    # All first fields against a choice of second ones: payloads come in the order of the reference.
    form = Format(((FP16, 2), (FP16, 2), (UINT8, 4)), ordered=BY_RATIO)
    a = np.arange(1 << 16, dtype="<u2")
    for b in (0, 1, 0x3C00, 0x8001, 0xC700, 0x7C00, 0xFFFF, 0x0400, 0x03FF, 0x4BFF):
        content = np.empty((1 << 16, 8), np.uint8)
        content[:, :2] = a.view(np.uint8).reshape(-1, 2)
        content[:, 2:4] = np.frombuffer(b.to_bytes(2, "little"), np.uint8)
        content[:, 4:] = np.arange(1 << 16, dtype="<u4").view(np.uint8).reshape(-1, 4)
        split = blocks.split(content.reshape(-1), [Run(form, 1 << 16)])
        assert split is not None
        order = split.parts[2].content.view("<u4")
        above = 2 * reference.magnitude(b)
        below = [reference.magnitude(int(h)) for h in a]
        keys = [63 if v == 0 else min(63, above // v) for v in below]
        assert np.array_equal(order, np.argsort(keys, kind="stable"))


def test_sub_blocks_stand_by_keys_of_their_own() -> None:
    rng = np.random.default_rng(5)
    content = rng.integers(0, 256, (500, 144), np.uint8)
    content[:, 1] &= 0x3F  # no large scales: not all keys are the last
    content[::7, 4:16] = 0
    form = Format(((FP16, 2), (FP16, 2), (UINT8, 12), (UINT8, 128)), BY_RATIOS)
    split = blocks.split(content.reshape(-1), [Run(form, 500)])
    assert split is not None
    pieces = split.parts[3].content.reshape(-1, 16)
    expected = []
    for block in content:
        a, b, scales = (block[i:j].tobytes() for i, j in ((0, 2), (2, 4), (4, 16)))
        for s in range(8):
            two = block[16 + 32 * (s // 2) :][:32]
            half = two >> 4 if s % 2 else two & 15
            expected.append((reference.sub_key(a, b, scales, s), half[:16] | half[16:] << 4))
    expected.sort(key=lambda pair: pair[0])
    assert len({key for key, _ in expected}) > 30
    assert np.array_equal(pieces, np.array([piece for _, piece in expected]))


def test_fields_of_one_kind_share_parts_where_there_are_too_many() -> None:
    wide = Format(tuple((UINT8, k + 1) for k in range(7)))
    other = Format(((FP16, 2), (FP16, 2), (UINT8, 16)), ordered=BY_RATIO)
    runs = [Run(wide, 5), Run(other, 9), Run(BYTES, 3)]
    content = np.arange(sum(run.nbytes for run in runs), dtype=np.uint64).astype(np.uint8)
    split = blocks.split(content, runs)
    assert split is not None
    assert len(split.parts) == 8
    assert {part.dtype.name for part in split.parts} == {"uint8", "fp16", "opaque"}
    parts = [part.content.tobytes() for part in split.parts]
    assert join(split.params, parts, len(content)) == content.tobytes()


def test_rows_of_a_tensor_are_told() -> None:
    form = Format(((FP16, 2), (INT8, 32)))
    runs = [Run(form, 180, 18), Run(BYTES, 5)]
    split = blocks.split(np.zeros(180 * 34 + 5, np.uint8), runs)
    assert split is not None
    assert [part.shape for part in split.parts] == [(10, 18), (10, 576), None]
    mixed = [Run(form, 100, 18), Run(form, 100, 20)]
    split = blocks.split(np.zeros(200 * 34, np.uint8), mixed)
    assert split is not None
    assert [part.shape for part in split.parts] == [None, None]


def test_too_many_runs_are_not_described() -> None:
    one, two = Format(((UINT8, 3),)), Format(((UINT8, 4),))
    runs = [Run(one, 1), Run(two, 1)] * 17_000
    assert blocks.split(np.zeros(7 * 17_000, np.uint8), runs) is None
    assert blocks.split(np.zeros(7 * 16_000, np.uint8), runs[:32_000]) is not None
    many = [Run(Format(((UINT8, width),)), 1) for width in range(1, 67)]
    assert blocks.split(np.zeros(66 * 67 // 2, np.uint8), many) is None


@given(data=st.data())
def test_layouts_are_cut_anywhere(data: st.DataObject) -> None:
    several = [BYTES, Format(((UINT8, 3),)), Format(((FP16, 2), (UINT8, 5)))]
    runs = [
        Run(data.draw(st.sampled_from(several)), data.draw(st.integers(0, 9)))
        for _ in range(data.draw(st.integers(0, 6)))
    ]
    nbytes = sum(run.nbytes for run in runs)
    # Every byte: of which format, and where in its block.
    expected = [
        (run.format, k)
        for run in runs
        for _ in range(run.n_blocks)
        for k in range(run.format.nbytes)
    ]
    expected += [(BYTES, 0)] * 20
    begin = data.draw(st.integers(0, nbytes + 10))
    end = data.draw(st.integers(begin, nbytes + 20))
    at = begin
    for run in Layout(runs).cut(begin, end):
        assert run.n_blocks > 0
        for _ in range(run.n_blocks):
            if run.format != BYTES:
                size = run.format.nbytes
                assert expected[at : at + size] == [(run.format, k) for k in range(size)]
            at += run.format.nbytes
    assert at == end


def test_what_is_copied_leaves_the_layout() -> None:
    form = Format(((UINT8, 10),))
    layout = Layout([Run(BYTES, 7), Run(form, 20)])
    # Copied: bytes 45 to 74, so that the blocks at 37 and at 67 are there in part.
    left = layout.without(np.array([[45, 0, 30]], np.uint64), 207)
    expected = [Run(BYTES, 7), Run(form, 3), Run(BYTES, 10), Run(form, 13)]
    assert left.cut(0, 177) == expected
    assert left.cut(0, 190) == [*expected, Run(BYTES, 13)]


# --- Hostile --------------------------------------------------------------------------------------

FINE = "02 02 00 02 01 03 83 02 02 02 02 03 04 00 02 01 01"


def test_what_hostile_parameters_are_made_of_is_fine() -> None:
    parts = [bytes(4), bytes(6), bytes(4), bytes(4)]
    params = bytes.fromhex(FINE)
    assert len(join(params, parts, 18)) == len(reference.join(params, parts, 1, 18)) == 18


@pytest.mark.parametrize(
    ("params", "parts", "nbytes"),
    [
        ("", [], 1),
        ("00", [], 1),  # no formats
        ("41" + " 01 00 01" * 65 + " 00 01", [b"a"], 1),  # too many
        ("01 00 00 01", [b"a"], 1),  # no fields
        ("01 11" + " 00 01" * 17 + " 00 01", [bytes(17)], 17),
        ("01 01 08 01 00 01", [b""] * 8 + [b"a"], 1),  # part 8
        ("01 01 01 01 00 01", [b"", b"a"], 1),  # part 0 of nothing
        ("01 01 00 00 00 01", [b""], 0),  # no width
        ("01 01 00 81 80 04 00 01", [bytes((1 << 16) + 1)], (1 << 16) + 1),
        ("01 01 00 01 01 01", [b"a"], 1),  # format 1 of 1
        ("01 01 00 01 00 00", [b""], 0),  # no blocks
        ("01 01 00 01 00", [b""], 0),
        ("01 01 00 01 00 80", [b""], 0),
        ("01 01 00", [b""], 0),
        ("01 02 00 01", [b"a"], 1),
        ("01 01 00 01 00 05", [b"abcde"], 4),  # more than the chunk has
        ("01 01 00 01 00 05", [b"abcde"], 6),  # less
        ("01 01 00 01 00 05", [b"abcd"], 5),
        ("01 01 00 01 00 05", [b"abcdef"], 5),
        ("01 01 00 01", [b""], 5),  # no runs
        ("01 01 00 01 00 05", [b"abcde", b""], 5),
        ("01 01 00 01 00 FF FF FF FF FF FF FF FF FF 01", [b"a"], 1),
        ("01 01 00 10 00 80 80 80 80 80 80 80 80 10", [b""], 0),  # 2**64 bytes
        ("01 82 00 02 01 02 00 01", [bytes(2), bytes(2)], 4),  # ordered without payload
        ("01 43 00 02 01 02 02 01 00 01", [bytes(2), bytes(2), bytes(1)], 5),  # bit 6 alone
        ("01 C3 00 02 01 02 02 0C 00 01", [bytes(2), bytes(2), bytes(12)], 16),  # scales alone
        (
            "01 C4 00 02 01 02 02 0B 03 80 01 00 01",
            [bytes(2), bytes(2), bytes(11), bytes(128)],
            143,
        ),
        (
            "01 C4 00 02 01 02 02 0C 03 81 01 00 01",
            [bytes(2), bytes(2), bytes(12), bytes(129)],
            145,
        ),
        ("01 83 00 01 01 02 02 01 00 01", [bytes(1), bytes(2), bytes(1)], 4),
        ("01 83 00 02 01 04 02 01 00 01", [bytes(2), bytes(4), bytes(1)], 7),
        ("01 83 00 02 01 02 01 01 00 01", [bytes(2), bytes(3)], 5),  # its part is not its own
        ("02 83 00 02 01 02 02 01 01 02 01 00 01 01 01", [bytes(2), bytes(2), bytes(2)], 6),
    ],
)
def test_hostile_parameters(params: str, parts: list[bytes], nbytes: int) -> None:
    with pytest.raises(FormatError):
        join(bytes.fromhex(params), parts, nbytes)
    with pytest.raises(ValueError, match=r"\w"):
        reference.join(bytes.fromhex(params), parts, 1, nbytes)


@given(params=st.binary(min_size=1, max_size=40), nbytes=st.integers(0, 300))
def test_any_parameters_end_in_content_or_an_error(params: bytes, nbytes: int) -> None:
    params = bytes([params[0] % 4 + 1]) + params[1:]
    restored: bytes | None = None
    try:
        n = blocks.n_parts(memoryview(params))
        parts = [b""] * n
        described = blocks._parse(memoryview(params), nbytes)
        parts = [bytes(range(256)) * 2 for _ in range(n)]
        parts = [part[:size] for part, size in zip(parts, described.sizes, strict=True)]
        restored = join(params, parts, nbytes)
    except FormatError:
        parts = []
    if restored is not None:
        assert reference.join(params, parts, 1, nbytes) == restored
    else:
        with pytest.raises(ValueError, match=r"\w"):
            reference.join(params, parts, 1, nbytes)


def test_many_short_runs_are_read_in_time() -> None:
    params = bytes.fromhex("01 01 00 01") + b"\0\1" * 32_000
    assert join(params, [bytes(32_000)], 32_000) == bytes(32_000)


def test_examples_of_the_page() -> None:
    block = re.search(r"```blocks\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    seen = 0
    for line in block[1].splitlines():
        head, _, tail = line.partition("=")
        params, *hexed = head.split("|")
        parts = [bytes.fromhex(part.replace("-", "")) for part in hexed]
        content = bytes.fromhex(tail)
        assert join(bytes.fromhex(params), parts, len(content)) == content
        assert reference.join(bytes.fromhex(params), parts, 1, len(content)) == content
        seen += 1
    assert seen == 5


# --- Kernels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formats", "runs"),
    [
        ([(0, [])], []),
        ([(0, [(8, 1)])], []),
        ([(0, [(0, 0)])], []),
        ([(0, [(0, 1)] * 17)], []),
        ([(0, [(0, 1)])], [(1, 1)]),
        ([(1, [(0, 2), (1, 2)])], []),
        ([(1, [(0, 2), (1, 4), (2, 1)])], []),
        ([(1, [(0, 2), (1, 2), (1, 1)])], []),
        ([(2, [(0, 2), (1, 2), (2, 12)])], []),
        ([(2, [(0, 2), (1, 2), (2, 11), (3, 128)])], []),
        ([(2, [(0, 2), (1, 2), (2, 12), (3, 127)])], []),
        ([(3, [(0, 2), (1, 2), (2, 12), (3, 128)])], []),
        ([(0, [(0, 1)])], [(0, 2)]),  # of one byte
        ([(0, [(1, 1)])], [(0, 1)]),  # of the part that is not asked for
    ],
)
def test_kernels_check_what_they_are_given(
    formats: list[tuple[int, list[tuple[int, int]]]], runs: list[tuple[int, int]]
) -> None:
    content = np.zeros(1, np.uint8)
    with pytest.raises(ValueError, match=r"\w"):
        kernels.split(content, formats, runs, 1)
    with pytest.raises(ValueError, match=r"\w"):
        kernels.join([content], formats, runs, content)


def test_kernels_do_not_write_to_what_is_read_only() -> None:
    with pytest.raises(ValueError, match="read-only"):
        kernels.join([np.zeros(1, np.uint8)], [(0, [(0, 1)])], [(0, 1)], b"x")


def test_varints_of_widths() -> None:
    width = 1 << 16
    params = b"\1\1\0" + put_varint(width) + b"\0\1"
    assert join(params, [bytes(width)], width) == bytes(width)
