"""The reference reader of symbols and of parts, against the reference writer and rule by rule.

Every rule of docs/format/codecs/symbols.md and structure.md has a case that breaks it alone, with
all checksums right, and names the message that must refuse it.
"""

from __future__ import annotations

import random
import struct
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_writer import Parts, varint, write_array, write_frame, zstd
from symbols_cases import BASES, CODECS, DTYPES, MODELS, encode, model_for, weights
from symbols_writer import KINDS, Model, fields, fit, pack, remainders, table

from z4ai._reference import contexts, decode_array, decode_frame, parse_header, symbols


def comes_back(content: bytes, *args: Any, **options: Any) -> None:
    assert decode_frame(encode(content, *args, **options)).content == content


def refused(frame: bytes, message: str | None = None) -> None:
    with pytest.raises(ValueError, match=message):
        decode_frame(frame)


def test_every_transform_is_tried() -> None:
    assert set(DTYPES) == set(KINDS)
    assert {(kind.number, name, kind.width) for name, kind in KINDS.items()} == {
        (number, row.name, row.width) for number, row in symbols.TRANSFORMS.items()
    }


# --- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", KINDS)
@pytest.mark.parametrize("codecs", CODECS)
@pytest.mark.parametrize("streamed", [False, True])
def test_every_transform_length_and_codec_comes_back(
    transform: str, codecs: str, streamed: bool
) -> None:
    width = KINDS[transform].width
    for big_endian in [False, True] if width > 1 else [False]:
        for n in [0, 1, 63, 64, 65, 150]:
            little = weights(n, transform)
            words = np.frombuffer(little, f"<u{width}")
            content = words.astype(f">u{width}").tobytes() if big_endian else little
            for tail in {0, width - 1}:
                comes_back(
                    content + b"tail behind"[:tail],
                    transform,
                    codecs=codecs,
                    streamed=streamed,
                    big_endian=big_endian,
                    chunk_nbytes=16 * 49,
                )


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("transform", ["symbols1", "symbols2"])
def test_every_choice_of_a_model_comes_back(name: str, transform: str) -> None:
    model = model_for(name, transform)
    content = weights(1000, transform) + b"x" * (KINDS[transform].width - 1)
    for chunk_nbytes in [1 << 20, 160 * KINDS[transform].width]:
        comes_back(content, transform, model=model, chunk_nbytes=chunk_nbytes)


def test_the_models_above_are_what_they_are_called() -> None:
    """Each leaves its trace in the frame: parameters, tables, and what is restored apart."""
    content = weights(1000, "symbols2")

    def params_of(name: str) -> symbols.Params:
        (chunk,) = decode_frame(encode(content, model=model_for(name, "symbols2"))).chunks
        return symbols.parse_params(chunk.params)

    assert params_of("one table") == (0, 0, 0, 0)
    assert params_of("rows").rows_nbytes > 4
    assert params_of("rare").n_rare > 1
    assert params_of("rare, but none is") == (0, 0, 0, 0)
    assert params_of("everything rare").n_rare == 1000
    assert params_of("raw fields, all of them").n_raw == 1000
    assert params_of("raw fields, zero too").n_raw == fields(content, "symbols2").count(0) == 143
    assert min(params_of("all at once")) > 0


@pytest.mark.parametrize("n", [2047, 2048, 16383, 16384, 262143, 262144])
def test_every_number_of_lanes_comes_back(n: int) -> None:
    content = weights(n, "symbols1")
    model = Model(period=64, rows=lambda row, _: row % 3, contexts=3)
    comes_back(content, "symbols1", model=model, chunk_nbytes=1 << 26)


def test_chunks_of_one_frame_may_differ_in_transform() -> None:
    """Elements are numbered by the width of the chunk's own transform."""
    content = weights(300, "symbols2") + b"t"
    plans: list[Any] = [("symbols2", "zstd"), ("symbols1", []), ("float2", "store")]
    model = Model(
        period=20, rows=lambda row, _: row % 4, columns=range(20), contexts=23, every_symbol=True
    )
    frame = write_frame(content, dtype="bf16", plans=plans, model=model, chunk_nbytes=160)
    decoded = decode_frame(frame)
    assert decoded.content == content
    assert [chunk.transform for chunk in decoded.chunks] == [8, 7, 4, 8]


def test_arrays_come_back() -> None:
    array = np.frombuffer(weights(480, "symbols4"), "<f4").reshape(24, 20)
    model = Model(base=250, period=20, rows=lambda row, _: row % 4, contexts=4)
    for one in [array, array.astype(">f4")]:
        frame = write_array(one, "fp32", plans=[("symbols4", "zstd")], model=model)
        back = decode_array(frame)
        assert back.dtype == one.dtype
        np.testing.assert_array_equal(back, one)


def test_a_model_may_be_there_for_nothing() -> None:
    model = Model(period=16, columns=[1] * 16, contexts=2)
    frame = write_frame(b"content", model=model)
    assert decode_frame(frame).content == b"content"
    assert parse_header(frame).model is not None


@st.composite
def models(draw: st.DrawFn, transform: str) -> Model:
    has_rows, has_columns = draw(st.booleans()), draw(st.booleans())
    has_classes = has_rows or has_columns
    period = draw(st.integers(16 if has_rows else 1, 100)) if has_classes else 0
    classes = st.integers(0, draw(st.sampled_from([1, 9, 127])))
    seed = draw(st.integers(0, 99))
    most = draw(classes)
    return Model(
        base=0 if KINDS[transform].field_bits == 8 else draw(st.integers(0, 65535)),
        shift=draw(st.integers(0, 7)),
        contexts=draw(st.integers(1, 64)) if has_classes else 1,
        period=period,
        rows=(lambda row, first: (row * seed + first) % (most + 1)) if has_rows else None,
        columns=draw(st.lists(classes, min_size=period, max_size=period)) if has_columns else None,
        rare=draw(st.none() | st.sets(st.integers(0, 255), max_size=20)),
        escape=draw(st.sampled_from([0, 1, 100, 254, 255])),
        raw=draw(st.sets(st.integers(0, 1023), max_size=20)),
        zero_by_base=draw(st.booleans()),
        every_symbol=draw(st.booleans()),
        full_params=draw(st.booleans()),
        precision=draw(st.integers(2, 5)),
    )


@settings(max_examples=30, deadline=None, database=None, derandomize=True)
@given(data=st.data(), transform=st.sampled_from(sorted(KINDS)))
def test_any_model_and_any_content_come_back(data: st.DataObject, transform: str) -> None:
    width = KINDS[transform].width
    n = data.draw(st.integers(1, 150))
    if data.draw(st.booleans()):
        content = random.Random(n).randbytes(n * width + data.draw(st.integers(0, width - 1)))
    else:
        content = weights(n, transform, n)
    comes_back(
        content,
        transform,
        model=data.draw(models(transform)),
        codecs=data.draw(st.lists(st.sampled_from(CODECS), min_size=width - 1, max_size=width - 1)),
        big_endian=width > 1 and data.draw(st.booleans()),
        streamed=data.draw(st.booleans()),
        chunk_nbytes=data.draw(st.sampled_from([64, 400, 1 << 20])),
    )


# --- By hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "element", "field", "remainder"),
    [
        ("symbols1", 0xA5, 0xA5, None),
        ("symbols2", 0b1_01111111_1000101, 0b01111111_10, 0b1_00101),
        ("symbols2h", 0b1_01111_1010000011, 0b01111_101, 0b1_0000011),
        ("symbols4", 0b1_01111111_1000101 << 16 | 0xABCD, 0b01111111_10, 0b1_00101),
        ("symbols8", 0b1_01111111111_1011 << 48 | 0x123456789ABC, 0b01111111111_1, 0b1_011),
    ],
)
def test_elements_are_cut_as_on_the_page(
    transform: str, element: int, field: int, remainder: int | None
) -> None:
    kind = KINDS[transform]
    content = element.to_bytes(kind.width, "little")
    assert fields(content, transform) == [field]
    raw = struct.pack("<H", field) if kind.field_bits > 8 else b""
    packed = [] if remainder is None else [(0, bytes([remainder]))]
    low = [(0, content[k : k + 1]) for k in range(kind.width - 3, -1, -1)]
    symbol = 255 if raw else field
    tables = {"tables": table([0] * symbol + [1])}
    coded = contexts.encode(bytes([symbol]), None, contexts.read_tables(tables["tables"]))
    chunk = {
        "streams": [(3, raw + coded), *packed, *low],
        "params": struct.pack("<IIHH", 0, 0, 0, len(raw) // 2),
    }
    frame = encode(content, transform, model_fields=tables, chunks={0: chunk})
    assert decode_frame(frame).content == content


def test_symbols_stand_for_fields_as_on_the_page() -> None:
    raw = iter([7])
    assert symbols.field_of(0, 300, 10, raw) == 0
    assert symbols.field_of(1, 300, 10, raw) == 301
    assert symbols.field_of(254, 300, 10, raw) == 554
    assert symbols.field_of(5, 65531, 10, raw) == 0
    assert symbols.field_of(6, 65531, 10, raw) == 1
    assert symbols.field_of(1, 1022, 10, raw) == 1023
    assert symbols.field_of(255, 300, 10, raw) == 7
    with pytest.raises(ValueError, match=r"symbol 2 stands for 1024, not below 2\*\*10"):
        symbols.field_of(2, 1022, 10, raw)
    with pytest.raises(ValueError, match="fewer raw fields"):
        symbols.field_of(255, 300, 10, raw)


@pytest.mark.parametrize("bits", [4, 6])
def test_remainders_are_packed_as_on_the_page(bits: int) -> None:
    """One bit set in all of a group: where it must lie, and that both sides put it there."""
    group_nbytes = 8 * bits
    for j in range(64):
        for bit in range(bits):
            if bit < 4:
                at = j % 32, bit + 4 * (j // 32)
            else:
                at = 32 + j % 16, bit - 4 + 2 * (j // 16)
            packed = bytearray(group_nbytes)
            packed[at[0]] = 1 << at[1]
            rest = bytes(64 + j) + bytes([1 << bit]) + bytes(63 - j)
            assert pack(rest, bits) == bytes(group_nbytes) + packed
            assert symbols.unpack(bytes(group_nbytes) + packed, bits, 128) == rest


def test_what_is_left_of_a_group_is_a_string_of_bits() -> None:
    rest = bytes([0b000001, 0b000011, 0b100000])
    packed = bytes([0b11_000001, 0b0000_0000, 0b10])
    assert pack(rest, 6) == symbols_packed(6, rest) == packed
    assert symbols.unpack(packed, 6, 3) == rest
    assert symbols.unpack(packed[:2] + b"\xfe", 6, 3) == rest, "bits behind the last are unused"
    assert pack(b"\x0f\x01\x08", 4) == b"\x1f\x08"
    assert symbols.unpack(b"\x1f\x08", 4, 3) == b"\x0f\x01\x08"
    assert symbols.unpack(b"\x1f\xa8", 4, 3) == b"\x0f\x01\x08"


def symbols_packed(bits: int, rest: bytes) -> bytes:
    """A string of bits, one bit at a time."""
    out = bytearray(-(-len(rest) * bits // 8))
    for k, value in enumerate(rest):
        for bit in range(bits):
            position = k * bits + bit
            out[position // 8] |= (value >> bit & 1) << position % 8
    return bytes(out)


@pytest.mark.parametrize("bits", [4, 6, 8])
@pytest.mark.parametrize("n", [1, 2, 31, 63, 64, 65, 100, 127, 128, 300])
def test_packing_comes_back(bits: int, n: int) -> None:
    rest = random.Random(n).randbytes(n)
    rest = bytes(value & 2**bits - 1 for value in rest)
    packed = pack(rest, bits)
    assert len(packed) == symbols.packed_nbytes(bits, n)
    assert symbols.unpack(packed, bits, n) == rest


@pytest.mark.parametrize("transform", ["symbols2", "symbols8"])
def test_only_the_lower_bits_of_a_remainder_count(transform: str) -> None:
    content = weights(100, transform)
    rest = remainders(content, transform)
    junk = bytes(value | 0xC0 for value in rest)
    assert junk != rest
    low = ["store"] * (KINDS[transform].width - 2)
    comes_back(content, transform, codecs=[(2, zstd(junk)), *low])


@pytest.mark.parametrize("transform", ["symbols2", "symbols2h", "symbols4", "symbols8"])
def test_a_constant_remainder_is_that_of_every_element(transform: str) -> None:
    kind = KINDS[transform]
    positive = b"\x00" * (kind.width - 2) + b"\x00\x3c"
    for element in [positive, b"\x00" * (kind.width - 2) + b"\x01\xbc"]:
        content = element * 100
        comes_back(content, transform, codecs="constant")
    frame = encode(positive * 100, transform, codecs="constant")
    assert decode_frame(frame).chunks[0].streams[1].encoded == b"\x00"
    if kind.below < 7:
        junk = [(1, b"\x80"), *["constant"] * (kind.width - 2)]
        comes_back(positive * 100, transform, codecs=junk)


def test_classes_choose_the_table_of_the_page() -> None:
    """Contexts by hand: row and column classes, shifted and cut off."""
    model = Model(shift=1, contexts=3, period=16, rows=[0, 3], columns=[0, 1, 2, 3, *[0] * 12])
    record = fit(model, [("symbols1", bytes(32), 0)]).record()
    parsed = symbols.parse_model(record)
    assert [parsed.context_of(r, c) for r, c in [(0, 0), (0, 1), (0, 2), (3, 0)]] == [0, 0, 1, 1]
    assert [parsed.context_of(3, 1), parsed.context_of(3, 3), parsed.context_of(127, 127)] == [
        2
    ] * 3
    assert parsed.columns == bytes([0, 1, 2, 3, *[0] * 12])
    assert (parsed.period, parsed.shift, parsed.escape, parsed.has_rows) == (16, 1, None, True)


# --- Model: error if not --------------------------------------------------------------------------

CONTENT = weights(96, "symbols2")
BOTH = Model(base=250, period=16, rows=[0, 1, 2] * 2, columns=range(16), contexts=4)
ROWS = Model(base=250, period=16, rows=[0, 1, 2] * 2, contexts=4)
COLUMNS = Model(base=250, period=16, columns=range(16), contexts=4)
PLAIN = Model(base=250)
RARE = Model(base=250, rare=range(200, 240), escape=255)
TWO = table([1] * 256, [1] * 256)
ONE = table([1] * 256)
CLASSES = table([1, 1, 1])
CLASS_128 = table([1] * 129)
ROWS_BIT, COLUMNS_BIT, RARE_BIT = 8, 16, 32

MODEL_RULES: dict[str, tuple[Model, dict[str, Any], str]] = {
    "reserved bit 6": (PLAIN, {"shift": 1 << 6}, "reserved bits 0x40"),
    "reserved bit 7": (PLAIN, {"shift": 1 << 7}, "reserved bits 0x80"),
    "escape without rare symbols": (PLAIN, {"escape": 1}, "escape 1 without rare"),
    "period 0 with rows": (ROWS, {"period": varint(0)}, "period of 0, expected 16 to 4294967295"),
    "period 15 with rows": (ROWS, {"period": varint(15)}, "period of 15"),
    "period 2**32 with rows": (ROWS, {"period": varint(2**32)}, "period of 4294967296"),
    "period 0 with columns": (COLUMNS, {"period": varint(0)}, "period of 0, expected 1 to 1048576"),
    "period above 2**20 with columns": (COLUMNS, {"period": varint(2**20 + 1)}, "of 1048577"),
    "period 15 with both": (BOTH, {"period": varint(15)}, "period of 15, expected 16 to 1048576"),
    "period above 2**20 with both": (BOTH, {"period": varint(2**20 + 1)}, "period of 1048577"),
    "period without classes": (PLAIN, {"period": varint(16)}, "period of 16, expected 0 to 0"),
    "period not in its shortest form": (ROWS, {"period": b"\x90\x00"}, "shortest form"),
    "no tables": (PLAIN, {"tables": b""}, "no tables"),
    "tables end early": (PLAIN, {"tables": ONE[:-1]}, "truncated|out of range|than they should be"),
    "bytes behind tables": (PLAIN, {"tables": ONE + b"\0"}, "bytes behind tables"),
    "tables longer than the model": (PLAIN, {"tables_nbytes": 2**30}, "tables needs 1073741824"),
    "two tables without classes": (PLAIN, {"tables": TWO}, "2 tables without classes"),
    "no rare table": (RARE, {"rare_table": None}, "truncated: varint"),
    "two rare tables": (RARE, {"rare_table": TWO}, "2 tables in the rare table"),
    "a rare table unasked for": (PLAIN, {"rare_table": ONE}, "bytes behind a model"),
    "no class table": (ROWS, {"class_table": None}, "truncated: varint"),
    "two class tables": (ROWS, {"class_table": TWO}, "2 tables in the class table"),
    "a class table unasked for": (PLAIN, {"class_table": ONE}, "bytes behind a model"),
    "class 128": (ROWS, {"class_table": CLASS_128}, "classes of 128 or above"),
    "no columns": (COLUMNS, {"columns": b""}, "truncated"),
    "columns unasked for": (ROWS, {"columns": b"\0"}, "1 bytes behind a model"),
    "columns of another period": (COLUMNS, {"period": varint(17)}, "corrupt|truncated"),
    "columns with a state out of range": (COLUMNS, {"columns": bytes(6)}, "state out of range"),
}


@pytest.mark.parametrize("rule", MODEL_RULES)
def test_model_rules(rule: str) -> None:
    model, override, message = MODEL_RULES[rule]
    comes_back(CONTENT, model=model)
    frame = encode(CONTENT, model=model, model_fields=override)
    refused(frame, message)
    with pytest.raises(ValueError, match=message):
        parse_header(frame)


@pytest.mark.parametrize("model", [PLAIN, ROWS, COLUMNS, BOTH, RARE])
def test_every_prefix_of_a_model_is_refused(model: Model) -> None:
    record = fit(model, [("symbols2", CONTENT, 0)]).record()
    symbols.parse_model(record)
    for nbytes in range(len(record)):
        with pytest.raises(ValueError, match=r"truncated|corrupt"):
            symbols.parse_model(record[:nbytes])
    with pytest.raises(ValueError, match=r"behind a model|odd size|words are left"):
        symbols.parse_model(record + b"\0\0")


def test_the_largest_numbers_of_a_model_are_allowed() -> None:
    for model in [PLAIN, RARE]:
        symbols.parse_model(fit(model, [("symbols2", CONTENT, 0)]).record({"base": 65535}))
    big = fit(ROWS, [("symbols2", CONTENT, 0)]).record({"period": varint(2**32 - 1)})
    assert symbols.parse_model(big).period == 2**32 - 1
    highest = fit(ROWS, [("symbols2", CONTENT, 0)]).record({"class_table": table([1] * 128)})
    assert symbols.parse_model(highest).class_table is not None


def test_there_is_one_model_where_there_are_symbols() -> None:
    record = fit(PLAIN, [("symbols2", CONTENT, 0)]).record()
    refused(encode(CONTENT, tables=[(1, record)]), "2 models")
    frame = encode(CONTENT, header={"tables": b""})
    refused(frame, "a chunk of symbols2 in a frame without a model")


# --- Chunks: error if not -------------------------------------------------------------------------

N = len(CONTENT) // 2
RAW = Model(base=250, raw=[480, 481, 482, 483, 484, 485])
ALL = Model(
    base=250, period=16, rows=[0, 1, 2] * 2, contexts=3, rare=range(100), escape=255, raw=[480]
)
CODED = contexts.encode(bytes(N), None, contexts.read_tables(ONE))
STATE = struct.pack("<I", 1 << 15)


def chunk_of(model: Model, transform: str = "symbols2", **options: Any) -> Any:
    (chunk,) = decode_frame(encode(CONTENT, transform, model=model, **options)).chunks
    return chunk


CHUNK_RULES: dict[str, tuple[Model, dict[str, Any], str]] = {
    "parameters of 1 byte": (PLAIN, {"params": bytes(1)}, "1 bytes of parameters"),
    "parameters of 11 bytes": (PLAIN, {"params": bytes(11)}, "11 bytes of parameters"),
    "parameters of 13 bytes": (PLAIN, {"params": bytes(13)}, "13 bytes of parameters"),
    "parameters of 24 bytes": (PLAIN, {"params": bytes(24)}, "24 bytes of parameters"),
    "no parameters, but rows": (ROWS, {"params": b""}, "truncated: no room for the states"),
    "rows beyond the stream": (
        ROWS,
        {"rows_nbytes": 2**32 - 1},
        "classes of rows needs 4294967295",
    ),
    "rare beyond the stream": (RARE, {"rare_nbytes": 2**32 - 1}, "rare symbols needs 4294967295"),
    "raw beyond the stream": (RAW, {"n_raw": 65535}, "raw needs 131070 bytes"),
    "rows without classes": (PLAIN, {"rows": STATE}, "classes of rows without a table"),
    "rows where only columns have classes": (COLUMNS, {"rows": STATE}, "where rows have none"),
    "no rows": (ROWS, {"rows": b""}, "truncated"),
    "rows with a word left": (ROWS, {"rows": STATE + b"\0\0"}, "corrupt"),
    "rows of an odd size": (ROWS, {"rows": STATE + b"\0"}, "odd size"),
    "rows with a state out of range": (ROWS, {"rows": bytes(4)}, "state out of range"),
    "rare bytes without a table": (PLAIN, {"rare": STATE}, "rare symbols without a table"),
    "rare symbols without a table": (PLAIN, {"n_rare": 1}, "rare symbols without a table"),
    "rare symbols end early": (RARE, {"rare": b""}, "truncated"),
    "fewer rare symbols": (RARE, {"n_rare": 0, "rare": b""}, "escapes and rare symbols differ"),
    "a rare stream of none": (RARE, {"n_rare": 0}, "words are left"),
    "one more raw field": (PLAIN, {"raw": b"\0\0"}, "1 raw fields are left"),
    "no raw fields": (RAW, {"raw": b""}, "fewer raw fields than symbols 255"),
    "no symbols": (PLAIN, {"symbols": b""}, "truncated: no room for the states"),
    "symbols of an odd size": (PLAIN, {"symbols": STATE + b"\0"}, "odd size"),
    "symbols with a state out of range": (PLAIN, {"symbols": bytes(4)}, "state out of range"),
    "symbols that run out": (PLAIN, {"symbols": struct.pack("<I", 2**31 - 1)}, "words run out"),
}


@pytest.mark.parametrize("rule", CHUNK_RULES)
def test_chunk_rules(rule: str) -> None:
    model, override, message = CHUNK_RULES[rule]
    comes_back(CONTENT, model=model)
    refused(encode(CONTENT, model=model, chunks={0: override}), message)


def test_the_models_of_the_rules_use_what_is_broken() -> None:
    assert symbols.parse_params(chunk_of(ROWS).params).rows_nbytes == 4
    assert symbols.parse_params(chunk_of(RARE).params).n_rare > 0
    assert symbols.parse_params(chunk_of(RAW).params).n_raw > 1
    assert min(symbols.parse_params(chunk_of(ALL).params)) > 0


def other_stream(number: int, codec: int, encoded: bytes) -> dict[str, Any]:
    streams = [(stream.codec, stream.encoded) for stream in chunk_of(PLAIN).streams]
    streams[number] = (codec, encoded)
    return {"streams": streams}


STREAM_RULES: dict[str, tuple[dict[str, Any], str]] = {
    **{
        f"symbols by {name}": (other_stream(0, codec, encoded), f"symbols by codec {name}")
        for name, codec, encoded in [
            ("store", 0, bytes(N)),
            ("constant", 1, b"\0"),
            ("zstd", 2, zstd(bytes(N))),
            ("frame", 4, write_frame(bytes(N))),
            ("brotli", 5, b"\x06"),
        ]
    },
    "remainders by contexts": (other_stream(1, 3, CODED), "a plane by codec contexts"),
    "remainders by frame": (other_stream(1, 4, write_frame(bytes(N))), "a plane by codec frame"),
    "remainders too short": (other_stream(1, 0, bytes(71)), "71 bytes of 96 remainders of 6 bits"),
    "remainders too long": (other_stream(1, 0, bytes(73)), "73 bytes of 96 remainders of 6 bits"),
    "remainders not packed": (other_stream(1, 0, bytes(N)), "96 bytes of 96 remainders of 6 bits"),
    "remainders of two constants": (other_stream(1, 1, bytes(2)), "constant stream of 2 bytes"),
    "remainders packed and coded": (other_stream(1, 2, zstd(bytes(72))), "72 bytes, expected 96"),
    "codec unknown": (other_stream(1, 6, bytes(72)), "codec 6 is unknown"),
    "streams too few": ({"streams": [(3, CODED)]}, "1 streams, but symbols2 has 2 planes"),
    "streams too many": ({"n_streams": 3}, "3 streams, but symbols2 has 2 planes"),
    "transform of another width": ({"transform": 10}, "symbols4 with bf16 of width 2"),
    "transform unknown": ({"transform": 12}, "transform 12 is unknown"),
    "checksum": ({"checksum": 0}, "checksum of the chunk"),
}


@pytest.mark.parametrize("rule", STREAM_RULES)
def test_stream_rules(rule: str) -> None:
    override, message = STREAM_RULES[rule]
    assert len(chunk_of(PLAIN).streams[1].encoded) == 72
    refused(encode(CONTENT, model=PLAIN, chunks={0: override}), message)


@pytest.mark.parametrize("codec", ["store", "constant", "zstd", "brotli"])
def test_low_bytes_must_be_as_many_as_elements(codec: str) -> None:
    content = weights(10, "symbols4")
    numbers = {"store": (0, bytes(11)), "constant": (1, b"ab"), "zstd": (2, zstd(bytes(11)))}
    wrong = numbers.get(codec, (5, bytes.fromhex("0f0580 00 00 00 00 00 00 00 00 00 00 00 03")))
    refused(encode(content, "symbols4", codecs=["store", "store", wrong]))


@pytest.mark.parametrize("number", [3, 4])
def test_planes_have_no_codec_of_symbols_or_parts(number: int) -> None:
    encoded = {3: CODED, 4: write_frame(bytes(N))}[number]
    refused(write_frame(bytes(N), plans=[("bytes1", [(number, encoded)])]), "a plane by codec")


@pytest.mark.parametrize("transform", ["symbols1", "symbols2h"])
def test_where_the_symbol_is_the_field_there_is_no_base_and_nothing_raw(transform: str) -> None:
    content = weights(50, transform)
    comes_back(content, transform)
    refused(encode(content, transform, model_fields={"base": 1}), "a base of 1 with " + transform)
    refused(encode(content, transform, chunks={0: {"raw": b"\0\0"}}), "raw fields with")
    comes_back(b"\xff" * 100, transform)


@pytest.mark.parametrize(("transform", "bits"), [("symbols2", 10), ("symbols8", 12)])
def test_fields_have_as_many_bits_as_there_are(transform: str, bits: int) -> None:
    content = weights(50, transform)
    model = Model(raw=range(4096))
    for field, message in [(2**bits - 1, "checksum"), (2**bits, f"raw field {2**bits}")]:
        raw = struct.pack("<50H", *[field] * 50)
        refused(encode(content, transform, model=model, chunks={0: {"raw": raw}}), message)
    # The base is raised behind the writer's back: its symbols come to stand for higher fields.
    good = Model(base=BASES[transform])
    raised = {"base": 2**bits - 1}
    refused(encode(content, transform, model=good, model_fields=raised), "stands for")


def test_a_chunk_holds_at_most_a_number_of_elements() -> None:
    for nbytes, message in [(2**23 + 2, "4194305 elements"), (2**23, "6291456|remainders")]:
        frame = encode(
            CONTENT,
            chunk_nbytes=1 << 24,
            header={"content_nbytes": nbytes},
            chunks={0: {"content_nbytes": nbytes}},
        )
        refused(frame, message)


def test_every_prefix_and_every_trailing_byte_is_refused() -> None:
    frame = encode(CONTENT, model=ALL, chunk_nbytes=64)
    assert decode_frame(frame).content == CONTENT
    for nbytes in range(len(frame)):
        refused(frame[:nbytes])
    refused(frame + b"\0", "trailing")


def test_every_bit_flip_is_refused_or_ignored() -> None:
    content = CONTENT[:88]
    frame = encode(content, model=ALL)
    assert min(symbols.parse_params(decode_frame(frame).chunks[0].params)) > 0
    header = parse_header(frame)
    ignored = 0
    for bit in range(8 * header.nbytes, 8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            assert decode_frame(flipped).content == content
        except ValueError:
            continue
        ignored += 1
    assert ignored == 0


def test_every_bit_flip_of_a_model_is_read_or_refused() -> None:
    """Two descriptions may stand for the same tables: not every flip changes what is read."""
    record = fit(ALL, [("symbols2", CONTENT, 0)]).record()
    meant = symbols.parse_model(record)
    refusals = changes = 0
    for bit in range(8 * len(record)):
        flipped = bytearray(record)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            changes += symbols.parse_model(bytes(flipped)) != meant
        except ValueError:
            refusals += 1
    assert refusals > changes > len(record) // 2
    assert refusals + changes > 8 * len(record) - 9


# --- Parts ----------------------------------------------------------------------------------------


@pytest.fixture
def palette(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule of its own in place of that of a page: the elements are those of all parts in turn."""
    fake = ModuleType("palette")

    def join(params: bytes, parts: list[bytes], width: int, nbytes: int) -> bytes:
        if params != b"p":
            raise ValueError(f"parameters {params!r}")
        if sum(map(len, parts)) != nbytes and parts[-1] != b"wrong size":
            raise ValueError("parts of another size")
        assert nbytes % width == 0
        return b"".join(parts)

    fake.join = join  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "z4ai._reference.palette", fake)


def parts_frame(content: bytes, frames: list[bytes], **options: Any) -> bytes:
    plan = ("palette", Parts(options.pop("params", b"p"), frames, options.pop("width", 2)))
    return write_frame(content, dtype=options.pop("dtype", "bf16"), plans=[plan], **options)


HALVES = [CONTENT[:64], CONTENT[64:]]


@pytest.mark.usefixtures("palette")
def test_parts_are_frames_of_any_kind() -> None:
    first = encode(HALVES[0], model=BOTH, chunk_nbytes=32)
    second = write_frame(HALVES[1], dtype="fp32", plans=[("float4", "zstd")])
    for n in [0, 1, 6]:
        frames = [first, second] + [write_frame(b"")] * n
        decoded = decode_frame(parts_frame(CONTENT + b"t", frames))
        assert decoded.content == CONTENT + b"t"
        assert [stream.codec for stream in decoded.chunks[0].streams] == [4] * (n + 2)


@pytest.mark.usefixtures("palette")
def test_elements_of_parts_are_reversed_where_the_frame_is() -> None:
    swapped = np.frombuffer(CONTENT, "<u2").astype(">u2").tobytes() + b"t"
    frame = parts_frame(swapped, [write_frame(CONTENT)], big_endian=True)
    assert decode_frame(frame).content == swapped


@pytest.mark.usefixtures("palette")
def test_chunks_of_parts_may_stand_beside_others() -> None:
    plans: list[Any] = [
        ("palette", Parts(b"p", [write_frame(CONTENT[:64])], 2)),
        ("symbols2", "store"),
        ("bytes1", "store"),
    ]
    frame = write_frame(CONTENT, dtype="bf16", plans=plans, model=PLAIN, chunk_nbytes=64)
    assert decode_frame(frame).content == CONTENT


def nested(depth: int) -> bytes:
    frame = write_frame(CONTENT)
    for _ in range(depth):
        frame = parts_frame(CONTENT, [frame])
    return frame


@pytest.mark.usefixtures("palette")
def test_parts_of_parts_are_the_end() -> None:
    for depth in range(3):
        assert decode_frame(nested(depth)).content == CONTENT
    refused(nested(3), "parts within parts within parts")
    refused(nested(50), "parts within parts within parts")


PART_RULES: dict[str, tuple[list[bytes], str]] = {
    "an array": ([write_frame(CONTENT, dtype="uint8", shape=(192,))], "a part with flag array"),
    "streamed": ([write_frame(CONTENT, streamed=True)], "a part with flag streamed"),
    "big-endian": (
        [write_frame(CONTENT, dtype="bf16", big_endian=True)],
        "a part with flag big_endian",
    ),
    "not alone": ([write_frame(CONTENT) + b"\0"], "1 trailing bytes"),
    "cut": ([write_frame(CONTENT)[:-1]], "truncated"),
    "nothing": ([b""], "truncated"),
    "no frame": ([CONTENT], "magic"),
    "of another size": ([write_frame(CONTENT + b"\0\0")], "parts of another size"),
    "restored to another size": ([write_frame(b"wrong size")], "restores 10 bytes, expected 192"),
    "nine": ([write_frame(CONTENT)] + [write_frame(b"")] * 8, "9 streams, but palette"),
    "wrong in itself": ([write_frame(CONTENT, chunks={0: {"checksum": 0}})], "checksum of the"),
}


@pytest.mark.usefixtures("palette")
@pytest.mark.parametrize("rule", PART_RULES)
def test_part_rules(rule: str) -> None:
    frames, message = PART_RULES[rule]
    refused(parts_frame(CONTENT, frames), message)


@pytest.mark.usefixtures("palette")
def test_chunks_of_parts_keep_the_rules_of_chunks() -> None:
    good = [write_frame(CONTENT)]
    refused(parts_frame(CONTENT, good, params=b"q"), "parameters b'q'")
    refused(parts_frame(CONTENT, good, chunks={0: {"checksum": 0}}), "checksum of the chunk")
    refused(parts_frame(CONTENT, good, chunks={0: {"tail": b"x"}}), "do not add up")
    for codec, encoded in [(0, CONTENT), (1, b"x"), (2, zstd(CONTENT)), (3, CODED)]:
        override = {"streams": [(codec, encoded)]}
        refused(parts_frame(CONTENT, good, chunks={0: override}), "a part by codec")
    none = {0: {"n_streams": 0}}
    refused(parts_frame(CONTENT, good, chunks=none), "0 streams, but palette has 1 to 8 parts")
    short = {"header": {"content_nbytes": 1}, "chunks": {0: {"content_nbytes": 1}}}
    refused(parts_frame(CONTENT, good, **short), "without a whole element")


@pytest.mark.parametrize("name", ["zeros", "palette", "grid", "steps"])
def test_every_stage_is_reached(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    fake = ModuleType(name)

    def join(params: bytes, parts: list[bytes], width: int | str, nbytes: int) -> bytes:
        asked.append((params, parts, width, nbytes))
        return CONTENT

    fake.join = join  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "z4ai._reference." + name, fake)
    frames = [write_frame(b"one"), write_frame(b"two")]
    frame = write_frame(CONTENT, dtype="bf16", plans=[(name, Parts(b"some", frames, 2))])
    assert decode_frame(frame).content == CONTENT
    expected = "bf16" if name == "grid" else 2
    assert asked == [(b"some", [b"one", b"two"], expected, len(CONTENT))]
