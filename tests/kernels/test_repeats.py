"""Long repeats: what is found, what is never found, and lists against their reference."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai import copies as module
from z4ai._fast import _dispatch, repeats
from z4ai._reference import repeats as reference
from z4ai.errors import CorruptError

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "copies.md"
MIB = 1 << 20
Triple = tuple[int, int, int]


def rng(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def noise(n: int, seed: int = 0) -> np.ndarray:
    return rng(seed).integers(0, 256, n, dtype=np.uint8)


def bf16(n: int, seed: int = 0) -> np.ndarray:
    """n bytes of Gaussian weights."""
    values = rng(seed).standard_normal(n // 2, dtype=np.float32) * np.float32(0.02)
    return (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)


def periodic(period: int, n: int, seed: int = 0) -> np.ndarray:
    return np.tile(noise(period, seed), n // period + 1)[:n]


def rows(copies: Sequence[Triple]) -> np.ndarray:
    return np.array(copies, np.uint64).reshape(-1, 3)


def triples(copies: np.ndarray) -> list[reference.Copy]:
    return [reference.Copy(*row) for row in copies.tolist()]


def find(content: np.ndarray, *, width: int = 1, min_nbytes: int = 1024) -> list[reference.Copy]:
    """Find with every variant; all must agree, and what they find must be true."""
    options = {"width": width, "min_nbytes": min_nbytes}
    copies = triples(repeats.find(content, thorough=True, **options))
    met = repeats.probe(content, min_nbytes=min_nbytes)
    small = len(content) < repeats.WHOLE_NBYTES
    for isa in repeats.variants():
        others = triples(repeats.find(content, thorough=True, isa=isa, **options))
        assert others == copies, f"{isa} finds something else"
        assert repeats.probe(content, min_nbytes=min_nbytes, isa=isa) == met, isa
        others = triples(repeats.find(content, isa=isa, **options))
        assert others == (copies if met or small else []), f"{isa} is not guided by the probe"
    reference.check(copies, len(content))
    for dst, src, nbytes in copies:
        assert nbytes >= min_nbytes
        assert dst % width == nbytes % width == 0
        assert np.array_equal(content[dst : dst + nbytes], content[src : src + nbytes])
    return copies


def there_and_back(content: np.ndarray, copies: list[reference.Copy]) -> np.ndarray:
    """Take copies out and put them back, by kernel and by reference; return the dense content."""
    n = len(content)
    array = rows(copies)
    size = repeats.dense_nbytes(array, n)
    assert size == reference.dense_nbytes(copies, n)
    dense = np.full(size, 0xA5, np.uint8)
    repeats.dense(content, array, dense)
    assert dense.tobytes() == reference.dense(content.tobytes(), copies)
    assert reference.restore(dense.tobytes(), copies) == content.tobytes()
    out = np.full(n, 0x5A, np.uint8)
    out[:size] = dense
    repeats.expand(out, array, size)
    assert np.array_equal(out, content)
    if copies:
        record = module.encode_record(array, n)
        assert record == reference.write(copies)
        assert reference.read(record, n) == copies
        read, read_size = module.decode_record(record, n)
        assert triples(read) == copies
        assert read_size == size
    return dense


def check(content: np.ndarray, *, width: int = 1, min_nbytes: int = 1024) -> list[reference.Copy]:
    copies = find(content, width=width, min_nbytes=min_nbytes)
    there_and_back(content, copies)
    return copies


# --- what is found --------------------------------------------------------------------------------


def test_every_runnable_variant_is_compared() -> None:
    assert set(repeats.variants()) == set(_dispatch.runnable()) & {"scalar", "avx2"}


def test_a_layer_and_seven_copies_behind_odd_bytes() -> None:
    layer = bf16(4 * MIB)
    spacers = rng(1)
    parts = [layer]
    for _ in range(7):
        parts += [spacers.integers(0, 256, 13, dtype=np.uint8), layer]
    content = np.concatenate(parts)
    copies = check(content, width=2)
    assert len(copies) == 7
    missed = 7 * len(layer) - sum(copy.nbytes for copy in copies)
    assert 0 <= missed <= 7 * 2
    assert all(copy.src < 2 for copy in copies), "all from the first layer"
    assert len(repeats.write_record(rows(copies), len(content))) <= 7 * 10


@pytest.mark.parametrize("width", [1, 2, 4, 8, 384])
def test_copies_keep_elements_whole(width: int) -> None:
    shared = noise(10_000, 1)
    for shift in range(8):
        content = np.concatenate([noise(3000, 2), shared, noise(1000 + shift, 3), shared])
        (copy,) = check(content, width=width)
        assert copy.nbytes > 10_000 - 2 * width
        assert copy.dst % width == 0, "an element is put together from two"
        assert copy.nbytes % width == 0, "what follows is out of step"


def test_tied_layers_far_apart() -> None:
    content = rng(3).integers(0, 2**64, 32 * MIB, dtype=np.uint64).view(np.uint8)
    content[240 * MIB + 5 : 242 * MIB + 5] = content[1 * MIB : 3 * MIB]
    copies = triples(repeats.find(content, width=2))
    assert [copy.dst for copy in copies] == [240 * MIB + 6]
    assert copies[0].src == 1 * MIB + 1
    assert copies[0].nbytes == 2 * MIB - 2


@pytest.mark.parametrize(
    ("content_kib", "repeat_kib", "tries", "least"),
    [
        (64 * 1024, 64, 40, 32),
        (64 * 1024, 192, 40, 39),
        (2048, 128, 100, 97),
        (256, 64, 100, 92),
        (128, 64, 100, 98),
        (64, 32, 100, 97),
    ],
)
def test_how_often_a_repeat_is_met(
    content_kib: int, repeat_kib: int, tries: int, least: int
) -> None:
    n, m = content_kib << 10, repeat_kib << 10
    content = bf16(n, 4)
    places = rng(5)
    met = 0
    for _ in range(tries):
        src = int(places.integers(0, n - 2 * m + 1))
        dst = int(places.integers(src + m, n - m + 1))
        before = content[dst : dst + m].copy()
        content[dst : dst + m] = content[src : src + m]
        met += repeats.probe(content)
        content[dst : dst + m] = before
    assert met >= least, f"the probe met {met} of {tries} repeats"
    assert not repeats.probe(content)


def test_how_often_4_kib_are_found_once_it_searches() -> None:
    content = noise(8 * MIB, 6)
    content[7 * MIB : 7 * MIB + 500_000] = content[:500_000]  # for the probe
    places = range(MIB, 3 * MIB, 20_011)
    for k, src in enumerate(places):
        dst = 4 * MIB + k * 20_000
        content[dst : dst + 4096] = content[src : src + 4096]
    found = {copy.dst for copy in check(content)}
    planted = {4 * MIB + k * 20_000 for k in range(len(places))}
    assert len(planted & found) >= 0.97 * len(planted)


def test_copies_of_copies_come_from_the_first() -> None:
    a, b, c = noise(20_000, 1), noise(20_000, 2), noise(20_000, 3)
    # the last occurrence runs across two ranges that were copied from different places
    content = np.concatenate([a, noise(77, 4), b, noise(77, 5), a, b, c, noise(77, 6), a, b, c])
    copies = check(content)
    assert len(content) - sum(copy.nbytes for copy in copies) <= 60_000 + 4 * 77


@pytest.mark.parametrize("tail", [1, 40, 100, 300])
def test_a_source_does_not_reach_back_into_a_copy(tail: int) -> None:
    for seed in range(4):
        a, c = noise(9000, 10 + seed), noise(9000, 20 + seed)
        parts = [a, noise(99, 1), a, c, noise(99, 2), a[-tail:], c]
        copies = check(np.concatenate(parts))
        assert 17_500 <= sum(copy.nbytes for copy in copies) <= 18_000 + tail


@pytest.mark.parametrize("isa", repeats.variants())
def test_every_offset_and_length(isa: str) -> None:
    shared = noise(3000, 1)
    for k in range(70):
        nbytes = 2000 + 13 * k
        content = np.concatenate(
            [noise(500 + k, 2), shared[:nbytes], noise(k, 3), shared[:nbytes], noise(3 * k, 4)]
        )
        copies = triples(repeats.find(content, thorough=True, isa=isa))
        assert len(copies) <= 1
        for dst, src, n in copies:
            assert n >= nbytes
            assert np.array_equal(content[dst : dst + n], content[src : src + n])
        if nbytes >= 2500:
            assert copies


# --- what is not ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 63, 64, 2047, 2048, 5000, 300_000, MIB])
def test_noise_has_no_copies(n: int) -> None:
    for content in (noise(n, n), bf16(n // 2 * 2, n)):
        assert check(content) == []
        assert not repeats.probe(content)


@pytest.mark.parametrize("n", [5000, 300_000, 3 * MIB])
@pytest.mark.parametrize("period", [1, 2, 4, 8])
def test_runs_are_left_alone(n: int, period: int) -> None:
    for seed in range(4):
        assert check(periodic(period, n, seed)) == []
    assert check(np.zeros(n, np.uint8)) == []


@pytest.mark.parametrize("period", [3, 5, 12, 24, 768, 1024, 1031, 4096, 70_000])
def test_longer_periods(period: int) -> None:
    content = periodic(period, 2 * MIB + 17)
    copies = check(content)
    assert all(copy.nbytes >= 1024 for copy in copies)
    if period >= 1024:
        dense = len(content) - sum(copy.nbytes for copy in copies)
        assert dense < 2 * max(period, 4096) + 8192


def test_sparse_content_is_left_alone() -> None:
    content = np.zeros(4 * MIB, np.uint8)
    at = rng(1).integers(0, len(content), 2000)
    content[at] = rng(2).integers(1, 3, 2000)
    assert check(content) == []


def test_runs_around_something_equal_are_left_alone() -> None:
    """Each match is longer than a copy must be, but there is little in it."""
    for seed in range(8):
        content = np.zeros(250_000, np.uint8)
        motif = noise(200, seed)
        at = 0
        for gap in rng(seed).integers(3000, 9000, 24):
            at += int(gap)
            content[at : at + 200] = motif
        assert check(content) == []


def test_copies_below_the_minimum_are_left_alone() -> None:
    shared = noise(1000, 1)
    content = np.concatenate([part for k in range(30) for part in (shared, noise(500, 2 + k))])
    assert check(content) == []
    assert len(check(content, min_nbytes=512)) >= 25


def test_repeats_that_a_glance_cannot_miss_are_worth_a_search() -> None:
    content = noise(2 * MIB, 1)
    assert not repeats.probe(content)
    content[MIB : MIB + MIB // 2] = content[: MIB // 2]
    for isa in repeats.variants():
        assert repeats.probe(content, isa=isa), isa
    assert not repeats.probe(content, min_nbytes=MIB)


def test_hostile_anchors_cost_no_more_than_a_few_comparisons() -> None:
    """Near repeats of 1,000 bytes everywhere: each is compared, none is taken."""
    shared = noise(1000, 1)
    content = np.tile(np.concatenate([shared, noise(8, 2)]), 4000)
    content.reshape(-1, 1008)[:, 1000:] = noise(8 * 4000, 3).reshape(-1, 8)
    assert check(content) == []


# --- any list -------------------------------------------------------------------------------------


@st.composite
def legal_lists(draw: st.DrawFn) -> tuple[np.ndarray, list[reference.Copy]]:
    """Return a content and a legal list of its copies, built from the left."""
    seed = draw(st.integers(0, 2**32))
    first = draw(st.integers(64, 400))
    content = noise(first, seed)
    literal = [(0, first)]
    copies: list[reference.Copy] = []
    for _ in range(draw(st.integers(0, 12))):
        able = [(a, b) for a, b in literal if b - a >= 64]
        a, b = able[draw(st.integers(0, len(able) - 1))]
        nbytes = draw(st.integers(64, b - a))
        src = a + draw(st.integers(0, b - a - nbytes))
        copies.append(reference.Copy(len(content), src, nbytes))
        gap = draw(st.sampled_from([0, 0, 1, 63, 64, 65, 200]))
        start = len(content) + nbytes
        literal.append((start, start + gap))
        content = np.concatenate([content, content[src : src + nbytes], noise(gap, seed + 1)])
    return content, copies


@given(legal_lists())
def test_any_legal_list_there_and_back(case: tuple[np.ndarray, list[reference.Copy]]) -> None:
    content, copies = case
    dense = there_and_back(content, copies)
    # and any part of it by the map
    for start, stop in [(0, len(content)), (len(content) // 3, len(content) // 2), (7, 7)]:
        part = np.full(stop - start, 0xA5, np.uint8)
        pos = 0
        for offset, place, nbytes in module.pieces(rows(copies), start, stop):
            assert offset == pos
            assert nbytes > 0
            part[offset : offset + nbytes] = dense[place : place + nbytes]
            pos += nbytes
        assert pos == stop - start
        assert np.array_equal(part, content[start:stop])


@st.composite
def buffers(draw: st.DrawFn) -> np.ndarray:
    """Planted repeats of every kind, among noise, weights, few values, runs and periods."""
    parts: list[np.ndarray] = []
    for k in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["noise", "bf16", "few", "run", "period", "again", "again"]))
        n = draw(st.integers(0, 9000))
        if kind == "noise":
            part = noise(n, k)
        elif kind == "bf16":
            part = bf16(n // 2 * 2, k)
        elif kind == "few":
            part = rng(k).choice(np.array([0, 1, 60, 188], np.uint8), n)
        elif kind == "run":
            part = np.full(n, k % 2 * 255, np.uint8)
        elif kind == "period":
            part = periodic(draw(st.integers(1, 1500)), n, k)
        else:
            whole = np.concatenate([np.zeros(1, np.uint8), *parts])
            start = draw(st.integers(0, len(whole) - 1))
            part = whole[start : start + n].copy()
        parts.append(part)
    return np.concatenate(parts)


@given(buffers(), st.sampled_from([1, 2, 4, 8, 96]), st.sampled_from([64, 100, 1024]))
def test_whatever_is_found_is_true(content: np.ndarray, width: int, min_nbytes: int) -> None:
    check(content, width=width, min_nbytes=min_nbytes)


def test_read_only_content_and_no_copies() -> None:
    content = noise(5000)
    content.flags.writeable = False
    none = repeats.find(content)
    assert none.shape == (0, 3)
    assert none.dtype == np.uint64
    there_and_back(content, [])
    there_and_back(np.empty(0, np.uint8), [])
    with pytest.raises(repeats.CopiesError, match="copies"):
        repeats.write_record(none, 5000)
    for width in (0, 2**31):
        with pytest.raises(ValueError, match="width"):
            repeats.find(content, width=width)
    with pytest.raises(ValueError, match="min_nbytes"):
        repeats.find(content, min_nbytes=63)
    with pytest.raises(ValueError, match="instruction set"):
        repeats.find(content, isa="mmx")


# --- lists and records that break the rules -------------------------------------------------------

GOOD = [(1000, 0, 100), (1100, 200, 64), (2000, 1164, 500)]
BAD: list[tuple[str, list[Triple], str]] = [
    ("short", [(1000, 0, 63)], "less than 64"),
    ("overlaps", [(1000, 0, 100), (1099, 200, 64)], "before the end"),
    ("falls", [(2000, 0, 100), (1000, 200, 64)], "before the end"),
    ("behind the content", [(2950, 0, 100)], "behind the content"),
    ("far behind", [(2**64 - 10, 0, 100)], "behind the content"),
    ("wraps around", [(1000, 0, 2**64 - 500)], "behind the content"),
    ("source overlaps its copy", [(1000, 901, 100)], "does not lie before"),
    ("source behind its copy", [(1000, 1500, 100)], "does not lie before"),
    ("source is a copy", [(1000, 0, 100), (1500, 1000, 100)], "touches"),
    ("source begins in a copy", [(1000, 0, 100), (1500, 1099, 100)], "touches"),
    ("source ends in a copy", [(1000, 0, 100), (1500, 901, 100)], "touches"),
    ("source spans a copy", [(1000, 0, 100), (1500, 900, 300)], "touches"),
]


@pytest.mark.parametrize(("copies", "rule"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_an_illegal_list_is_refused(copies: list[Triple], rule: str) -> None:
    content = noise(3000)
    out = np.zeros(3000, np.uint8)
    with pytest.raises(repeats.CopiesError, match=rule) as caught:
        repeats.dense_nbytes(rows(copies), 3000)
    assert caught.value.copy == len(copies) - 1
    for use in (
        lambda: repeats.dense(content, rows(copies), out),
        lambda: repeats.expand(out, rows(copies), 100),
        lambda: repeats.write_record(rows(copies), 3000),
    ):
        with pytest.raises(repeats.CopiesError, match=rule):
            use()
    with pytest.raises(ValueError, match="copy"):
        reference.check([reference.Copy(*c) for c in copies], 3000)
    assert not out.any(), "nothing is written before everything is checked"


def leb128(value: int) -> bytes:
    return reference._leb128(value)


def raw(copies: Sequence[Triple], *, count: int | None = None) -> bytes:
    """Return the record of any list, legal or not, as long as its numbers are not negative."""
    out = leb128(len(copies) if count is None else count)
    end = source_end = 0
    for dst, src, nbytes in copies:
        d = src - source_end - (dst - end)
        out += leb128((dst - end) % 2**64) + leb128((nbytes - 64) % 2**64)
        out += leb128((2 * d if d >= 0 else -2 * d - 1) % 2**64)
        end, source_end = dst + nbytes, src + nbytes
    return out


def refused(record: bytes, content_nbytes: int, rule: str) -> None:
    with pytest.raises(CorruptError, match=rule):
        module.decode_record(record, content_nbytes)
    with pytest.raises(ValueError):  # noqa: PT011 - any reason will do
        reference.read(record, content_nbytes)


@pytest.mark.parametrize(("copies", "rule"), [case[1:] for case in BAD], ids=[c[0] for c in BAD])
def test_a_record_of_an_illegal_list_is_refused(copies: list[Triple], rule: str) -> None:
    assert raw(GOOD) == repeats.write_record(rows(GOOD), 3000)
    refused(raw(copies), 3000, "record of copies: copy")


def test_records_that_are_none() -> None:
    good = raw(GOOD)
    assert triples(module.decode_record(good, 3000)[0]) == GOOD
    refused(raw([]), 3000, "not 1 to")
    refused(leb128(2**20 + 1) + bytes(3 * 2**20 + 3), 2**40, "not 1 to")
    refused(leb128(2**63), 2**40, "not 1 to")
    refused(good + b"\0", 3000, "bytes behind")
    refused(raw(GOOD, count=2), 3000, "bytes behind")
    refused(raw(GOOD, count=4), 3000, "number that is cut off")
    refused(good, 2499, "behind the content")
    refused(b"\x81\0" + good[1:], 3000, "shortest form")
    refused(b"\x01" + b"\xff" * 9 + b"\x02\0\0", 3000, "too large")
    refused(b"\x01" + b"\x80" * 11 + b"\0\0", 3000, "too large")
    # sums that would wrap around in 64 bits
    biggest = leb128(2**64 - 1)
    for fields in ([biggest, b"\0", b"\0"], [b"\x40", biggest, b"\0"], [b"\x40", b"\0", biggest]):
        refused(b"\x01" + b"".join(fields), 2**63 - 1, "copy 0")
    with pytest.raises(CorruptError):
        module.decode_record(good, 2**63)


def test_every_prefix_of_a_record_is_refused() -> None:
    record = raw(GOOD)
    for n in range(len(record)):
        refused(record[:n], 3000, "record of copies")


def test_every_flipped_bit_gives_what_the_reference_says() -> None:
    record = raw(GOOD)
    legal = 0
    for bit in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        agree(bytes(flipped), 3000)
        legal += agree(bytes(flipped), 2**62)
    assert legal > 0


def agree(record: bytes, content_nbytes: int) -> bool:
    """Read by both; return whether the record is legal."""
    try:
        expected = reference.read(record, content_nbytes)
    except ValueError:
        with pytest.raises(CorruptError):
            module.decode_record(record, content_nbytes)
        return False
    assert triples(module.decode_record(record, content_nbytes)[0]) == expected
    return True


@given(st.binary(max_size=40), st.sampled_from([0, 100, 3000, 2**32, 2**63 - 1]))
def test_any_bytes_give_what_the_reference_says(record: bytes, content_nbytes: int) -> None:
    agree(record, content_nbytes)


@given(st.lists(st.tuples(*[st.integers(0, 2**12)] * 3), min_size=1, max_size=6))
def test_any_list_gives_what_the_reference_says(fields: list[Triple]) -> None:
    record = leb128(len(fields)) + b"".join(leb128(v) for triple in fields for v in triple)
    agree(record, 3000)
    agree(record, 2**40)


def test_sizes_that_do_not_fit_are_refused() -> None:
    content, good = noise(3000), rows(GOOD)
    size = repeats.dense_nbytes(good, 3000)
    for wrong in (size - 1, size + 1):
        with pytest.raises(ValueError, match="expected"):
            repeats.dense(content, good, np.empty(wrong, np.uint8))
        with pytest.raises(ValueError, match="expected"):
            repeats.expand(content.copy(), good, wrong)
    with pytest.raises(ValueError, match="shape"):
        repeats.dense_nbytes(np.zeros((2, 4), np.uint64), 3000)


def test_as_many_copies_as_there_may_be() -> None:
    k = repeats.MAX_COUNT
    copies = np.empty((k, 3), np.uint64)
    copies[:, 0] = 64 * np.arange(1, k + 1)
    copies[:, 1] = 0
    copies[:, 2] = 64
    n = 64 * (k + 1)
    record = repeats.write_record(copies, n)
    assert len(record) <= 6 * k
    read, size = module.decode_record(record, n)
    assert size == 64
    assert np.array_equal(read, copies)
    out = np.zeros(n, np.uint8)
    out[:64] = np.arange(64)
    repeats.expand(out, read, size)
    assert np.array_equal(out, np.tile(np.arange(64, dtype=np.uint8), k + 1))
    with pytest.raises(repeats.CopiesError, match="not 1 to"):
        repeats.dense_nbytes(np.concatenate([copies, [[n, 0, 64]]]).astype(np.uint64), n + 64)


# --- the page -------------------------------------------------------------------------------------


def test_the_example_of_the_page() -> None:
    block = re.search(r"<!-- example: copies -->\n```\n(.*?)```", PAGE.read_text(), re.S)
    assert block is not None
    record = bytes.fromhex("".join(line.split("  ")[0] for line in block[1].splitlines()))
    content = np.concatenate(
        [np.arange(100), [255], np.arange(100), np.full(55, 254)],
    ).astype(np.uint8)
    copies = [reference.Copy(101, 0, 100)]
    assert len(content) == 256
    assert reference.read(record, 256) == copies
    assert repeats.write_record(rows(copies), 256) == record
    assert len(there_and_back(content, copies)) == 156


def test_the_windows_of_the_probe_meet_at_every_distance() -> None:
    header = PAGE.parents[2] / "z4ai" / "_fast" / "c" / "z4_repeats.h"
    text = header.read_text()
    places = re.search(r"Z4_PROBE_AT\[Z4_PROBE_WINDOWS\] = \{(.*?)\}", text, re.S)
    assert places is not None
    at = [int(v) for v in places[1].split(",")]
    period = int(re.search(r"Z4_PROBE_PERIOD (\d+)u", text)[1])  # type: ignore[index]
    differences = sorted((a - b) % period for a in at for b in at if a != b)
    assert differences == list(range(1, period))
