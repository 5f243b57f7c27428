"""Models of differences, and delta frames, rule by rule: by the reference reader and production.

Every rule of docs/format/codecs/difference.md and delta.md that a header can break has a case that
breaks it alone, with all checksums right.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from differences_writer import MOST_SYMBOL, Fitted, Model, encode, fit
from hypothesis import given, settings
from hypothesis import strategies as st
from symbols_writer import varint

import z4ai
from z4ai import _reference, errors
from z4ai._reference import contexts, difference
from z4ai._reference.xxh3 import xxh3_64, xxh3_128
from z4ai.difference import BLOCK, parse_difference

MODELS = {
    "one table": Model(),
    "no floats": Model(floats=False),
    "classes": Model(below=3, top=700, shift=2, contexts=30),
    "rows": Model(period=300, rows=lambda row: row % 5, contexts=5),
    "rare": Model(rare=range(20, 200), escape=30),
    "all": Model(
        below=9, top=3, shift=7, contexts=9, period=16, rows=lambda row: row, rare=[1], escape=1
    ),
}


def fitted_of(model: Model, width: int = 2) -> Fitted:
    rng = np.random.default_rng(5)
    reference = rng.integers(0, 256, 500 * width, dtype=np.uint8)
    content = reference.copy()
    content[::3] ^= rng.integers(0, 4, len(content[::3]), dtype=np.uint8)
    return fit(model, content, reference, width)


# --- The record -----------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 2, 4, 8])
@pytest.mark.parametrize("name", MODELS)
def test_a_record_says_the_same_to_both_readers(name: str, width: int) -> None:
    fitted = fitted_of(MODELS[name], width)
    model = difference.parse_model(fitted.record(), width)
    assert list(map(list, model.tables)) == fitted.tables
    for field in ("floats", "shift", "below", "top", "period", "escape"):
        assert getattr(model, field) == getattr(fitted.model, field), field
    assert model.has_rows == (fitted.model.rows is not None)
    got = parse_difference(memoryview(fitted.record()), 0, width)
    wanted = fitted.block(most=0).copy()
    # Tables that a model does not have are no matter.
    n_tables, there = len(fitted.tables), len(wanted) - 2 * 512
    assert bytes(got[:there]) == bytes(wanted[:there])
    rare, classes = got[there:].view("<u2").reshape(2, 256).tolist()
    if fitted.model.escape is not None:
        assert rare == fitted.rare
    if fitted.model.rows is not None:
        assert classes == fitted.classes
    assert BLOCK.unpack_from(got)[1] == n_tables


def table(*symbols: int) -> bytes:
    counts = [0] * 256
    for symbol in symbols:
        counts[symbol] = 1
    return contexts.write_tables([counts])[0]


def record(
    flags: int = 1,
    escape: int = 0,
    shift: int = 0,
    below: int = 0,
    top: int = 0,
    period: int = 0,
    *tables: bytes,
) -> bytes:
    head = struct.pack("<BBBBH", flags, escape, shift, below, top) + varint(period)
    return head + b"".join(varint(len(t)) + t for t in tables or (table(0, 1),))


TWO = contexts.write_tables([[1, 1] + [0] * 254] * 2)[0]
PLAIN = table(0, 1)
RULES = {
    "reserved flag": record(9),
    "escape without rare symbols": record(1, 1),
    "escape that no difference has": record(5, 247, 0, 0, 0, 0, PLAIN, PLAIN),
    "shift": record(1, 0, 8),
    "bits below": record(1, 0, 0, 64),
    "bits below without floats": record(0, 0, 0, 1),
    "top without floats": record(0, 0, 0, 0, 1),
    "period without rows": record(1, 0, 0, 0, 0, 16),
    "short rows": record(3, 0, 0, 0, 0, 15, PLAIN, PLAIN),
    "rows of no length": record(3, 0, 0, 0, 0, 0, PLAIN, PLAIN),
    "long rows": record(3, 0, 0, 0, 0, 1 << 32, PLAIN, PLAIN),
    "a symbol that no difference has": record(1, 0, 0, 0, 0, 0, table(0, 247)),
    "a rare one that no difference has": record(5, 0, 0, 0, 0, 0, PLAIN, table(0, 250)),
    "two rare tables": record(5, 0, 0, 0, 0, 0, PLAIN, TWO),
    "two class tables": record(3, 0, 0, 0, 0, 16, PLAIN, TWO),
    "a class of 128": record(3, 0, 0, 0, 0, 16, PLAIN, table(0, 128)),
    "no rare table": record(5),
    "no class table": record(3, 0, 0, 0, 0, 16),
    "a table too many": record(1, 0, 0, 0, 0, 0, PLAIN, PLAIN),
    "a byte behind": record() + b"\0",
    "nothing": b"",
    "no tables": record()[:7],
    "half a table": record()[:-1],
    "a long varint": record()[:6] + b"\x80\0" + record()[7:],
}
ALLOWED = {
    "highest symbol": record(1, 0, 0, 0, 0, 0, table(0, 246)),
    "highest escape": record(5, 246, 7, 63, 65535, 0, PLAIN, table(246, 1)),
    "highest class": record(3, 0, 0, 0, 0, (1 << 32) - 1, PLAIN, table(0, 127)),
    "several contexts of nothing": record(0, 0, 0, 0, 0, 0, TWO),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_record_that_breaks_a_rule_is_refused(rule: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        difference.parse_model(RULES[rule], 2)
    with pytest.raises((errors.CorruptError, errors.TruncatedError)):
        parse_difference(memoryview(RULES[rule]), 0, 2)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_record_at_its_limits_is_read(name: str) -> None:
    difference.parse_model(ALLOWED[name], 2)
    parse_difference(memoryview(ALLOWED[name]), 0, 2)


def test_symbols_reach_further_where_elements_have_eight_bytes() -> None:
    for width in (1, 2, 4, 8):
        most = MOST_SYMBOL[width]
        for symbol, fine in ((most, True), (most + 1, False)):
            mine = record(1, 0, 0, 0, 0, 0, table(0, symbol))
            if fine:
                difference.parse_model(mine, width)
                parse_difference(memoryview(mine), 0, width)
                continue
            with pytest.raises(ValueError, match="symbol"):
                difference.parse_model(mine, width)
            with pytest.raises(errors.CorruptError, match="symbol"):
                parse_difference(memoryview(mine), 0, width)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=60) | st.sampled_from([*RULES.values(), *ALLOWED.values()]), st.data())
def test_both_readers_refuse_the_same_records(mine: bytes, data: st.DataObject) -> None:
    if mine and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(mine) - 1))
        mine = mine[:at] + bytes([data.draw(st.integers(0, 255))]) + mine[at + 1 :]
    answers: list[Callable[[], object]] = [
        lambda: difference.parse_model(mine, 2),
        lambda: parse_difference(memoryview(mine), 0, 2),
    ]
    refused = []
    for answer in answers:
        try:
            answer()
        except (ValueError, errors.FormatError):
            refused.append(True)
        else:
            refused.append(False)
    assert refused[0] == refused[1]


# --- Frames ---------------------------------------------------------------------------------------

BASE = np.random.default_rng(1).integers(0, 256, 4000, dtype=np.uint8)
CONTENT = BASE.copy()
CONTENT[::7] ^= 1


class Parts:
    """A delta frame of one chunk by hand; `frame` puts it together with whatever was changed."""

    def __init__(self, dtype: int = 17, width: int = 2) -> None:
        fitted = fit(Model(), CONTENT, BASE, width)
        coded = encode(fitted, CONTENT, BASE, width)
        digest = xxh3_128(BASE.tobytes())
        low, high = digest & (1 << 64) - 1, digest >> 64
        self.magic, self.flags, self.dtype = b"Z4DL", 0, dtype
        self.records = [
            (3, struct.pack("<QQQ", len(BASE), low, high)),
            (4, fitted.record()),
        ]
        self.transform, self.params = {1: 28, 2: 29, 4: 30, 8: 31}[width], b""
        self.streams = [(3, coded.symbols), (0, coded.apart)]
        self.content = CONTENT.tobytes()
        self.tail = b""

    def frame(self) -> bytes:
        tables = b"".join(struct.pack("<HHI", k, 0, len(r)) + r for k, r in self.records)
        head = struct.pack(
            "<4sBBBBQII",
            self.magic,
            16,
            self.flags,
            self.dtype,
            0,
            len(self.content),
            1 << 16,
            len(tables),
        )
        head += tables
        head += struct.pack("<Q", xxh3_64(head, 0))
        body = b"".join(struct.pack("<BI", codec, len(s)) for codec, s in self.streams)
        body += self.params + b"".join(s for _, s in reversed(self.streams)) + self.tail
        chunk = struct.pack(
            "<IIQBBH",
            20 + len(body),
            len(self.content),
            xxh3_64(self.content, 0),
            self.transform,
            len(self.streams),
            len(self.params),
        )
        return head + chunk + body


def both(frame: bytes, base: bytes = BASE.tobytes()) -> bytes:
    restored = _reference.decode_delta(frame, base).content
    assert z4ai.decompress_delta(frame, base) == restored
    return restored


def test_frames_by_hand_are_read() -> None:
    for width, dtype in ((1, 0), (2, 17), (4, 18), (8, 19)):
        assert both(Parts(dtype, width).frame()) == CONTENT.tobytes()
    parts = Parts()
    parts.params = bytes(12)
    assert both(parts.frame()) == CONTENT.tobytes()
    parts = Parts()
    parts.transform, parts.streams, parts.content = 24, [], BASE.tobytes()
    for records in (parts.records, parts.records[:1]):
        for flags in (0, 4):
            parts.records, parts.flags = records, flags
            assert both(parts.frame()) == BASE.tobytes()
    mask = bytes(np.bitwise_xor(CONTENT, BASE))
    for nbytes in (4000, 3999, 1):
        parts = Parts()
        parts.transform, parts.content = 25, CONTENT.tobytes()[:nbytes]
        parts.streams = [(4, z4ai.compress(mask[:nbytes], dtype="bf16"))]
        assert both(parts.frame()) == CONTENT.tobytes()[:nbytes]


def test_a_short_reference_goes_on_with_zeros() -> None:
    for nbytes in (0, 1, 3001):
        base = BASE.tobytes()[:nbytes]
        blob = z4ai.compress_delta(CONTENT, base, dtype="bf16")
        assert both(blob, base) == CONTENT.tobytes()


def broken() -> dict[str, Parts]:
    made: dict[str, Parts] = {}

    def case(name: str, **fields: object) -> None:
        made[name] = Parts()
        for field, value in fields.items():
            assert hasattr(made[name], field)
            setattr(made[name], field, value)

    fine = Parts()
    reference, model = fine.records
    symbols, apart = fine.streams
    case("another magic", magic=b"Z4AI")
    case("streamed", flags=8)
    case("big-endian differences", flags=4)
    case("no reference", records=[model])
    case("two references", records=[reference, reference, model])
    case("a reference of 25 bytes", records=[(3, reference[1] + b"\0"), model])
    case("a reference of another size", records=[(3, b"\1" + reference[1][1:]), model])
    case("another digest", records=[(3, reference[1][:-1] + b"\1"), model])
    case("no model", records=[reference])
    case("two models", records=[reference, model, model])
    case("copies", records=[reference, model, (2, b"")])
    case("a record of kind 5", records=[reference, model, (5, b"")])
    case("one stream", streams=[symbols])
    case("three streams", streams=[symbols, apart, apart])
    case("stored symbols", streams=[(0, symbols[1]), apart])
    case("constant bits", streams=[symbols, (1, b"\0")])
    case("bits by contexts", streams=[symbols, (3, apart[1])])
    case("a bit short", streams=[symbols, (0, b"")] if apart[1] else [symbols, (0, b"\0")])
    case("a byte of bits too many", streams=[symbols, (0, apart[1] + b"\0")])
    case("11 bytes of parameters", params=bytes(11))
    case("a raw field", params=bytes(10) + b"\1\0")
    case("a rare symbol", params=bytes(8) + b"\1\0\0\0")
    case("classes of rows", params=b"\2" + bytes(11))
    case("differences of another width", transform=30)
    case("an unknown transform", transform=26)
    case("same, with a stream", transform=24, streams=[symbols])
    case("same, with parameters", transform=24, streams=[], params=bytes(12))
    case("same, with a tail", transform=24, streams=[], tail=b"\0")
    case("same, but it is not", transform=24, streams=[])
    mask = z4ai.compress(bytes(4000))
    case("xor by store", transform=25, streams=[(0, bytes(4000))])
    case("xor of two parts", transform=25, streams=[(4, mask), (4, mask)])
    case("xor with parameters", transform=25, streams=[(4, mask)], params=b"\0")
    case("xor of another size", transform=25, streams=[(4, z4ai.compress(bytes(3999)))])
    case("xor, but it is not", transform=25, streams=[(4, mask)])
    return made


BROKEN = broken()


@pytest.mark.parametrize("rule", BROKEN)
def test_a_frame_that_breaks_a_rule_is_refused(rule: str) -> None:
    frame = BROKEN[rule].frame()
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        _reference.decode_delta(frame, BASE.tobytes())
    with pytest.raises(errors.Z4Error):
        z4ai.decompress_delta(frame, BASE.tobytes())


def test_frames_and_delta_frames_are_told_apart() -> None:
    frame, delta = z4ai.compress(CONTENT.tobytes()), Parts().frame()
    with pytest.raises(ValueError, match="magic"):
        _reference.decode_frame(delta)
    with pytest.raises(ValueError, match="magic"):
        _reference.decode_delta(frame, b"")
    # Records and transforms of delta frames are none of a frame's.
    for change in ({"magic": b"Z4AI"}, {"magic": b"Z4AI", "records": []}):
        parts = Parts()
        for field, value in change.items():
            setattr(parts, field, value)
        with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
            _reference.decode_frame(parts.frame())
        with pytest.raises(errors.Z4Error):
            z4ai.decompress(parts.frame())


def test_a_frame_within_another_file_tells_no_reference() -> None:
    parts = Parts()
    with pytest.raises(ValueError, match="tells of its reference"):
        _reference.decode_delta(parts.frame(), BASE.tobytes(), alone=False)
    parts.records = parts.records[1:]
    got = _reference.decode_delta(parts.frame(), BASE.tobytes(), alone=False)
    assert got.content == CONTENT.tobytes()
    assert replace(got.header, delta=False).reference is None
