"""The reference reader of frames, against the reference writer and rule by rule.

Each table of docs/format/frame.md that has a column *error if not* has a list of tests here that
break exactly one of its rules, with every checksum right, and name the rule that must refuse it.
"""

from __future__ import annotations

import itertools
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import zstandard
from reference_writer import (
    DTYPE_CODES,
    TRANSFORM_IDS,
    split,
    varint,
    write_array,
    write_chunk,
    write_frame,
    write_header,
    write_trailer,
    xxh3,
    zstd,
)

from z4ai._reference import (
    decode_array,
    decode_frame,
    difference,
    find_chunks,
    parse_header,
    symbols,
    zstd_literals,
)
from z4ai._reference.frame import (
    CODECS,
    DELTA_TABLE_KINDS,
    DTYPES,
    STAGES,
    TABLE_KINDS,
    TRANSFORMS,
    numpy_dtype,
    read_varint,
)

PAGES = Path(__file__).resolve().parents[2] / "docs" / "format"

DTYPE_OF_WIDTH = {1: "opaque", 2: "bf16", 4: "fp32", 8: "fp64"}


def weights(nbytes: int, width: int) -> bytes:
    """Bytes that look like weights: few exponents, noisy mantissas; from a formula."""
    n = -(-nbytes // width) + 1
    state = np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    if width == 1:
        return (state >> np.uint64(60)).astype(np.uint8).tobytes()[:nbytes]
    exponent = np.uint64(120) + (state >> np.uint64(40)) % np.uint64(5)
    word = (exponent << np.uint64(56)) | (state & np.uint64(0x80FFFFFFFFFFFFFF))
    return (word >> np.uint64(64 - 8 * width)).astype(f"<u{width}").tobytes()[:nbytes]


def refused(frame: bytes, message: str | None = None) -> None:
    with pytest.raises(ValueError, match=message):
        decode_frame(frame)


# --- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize("transform", TRANSFORM_IDS)
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("streamed", [False, True])
def test_every_transform_length_and_codec_comes_back(
    transform: str, big_endian: bool, streamed: bool
) -> None:
    width = TRANSFORMS[TRANSFORM_IDS[transform]][1]
    if big_endian and width == 1:
        big_endian, dtype = True, "int16"  # bytes1 of big-endian words: nothing is reversed
    else:
        dtype = DTYPE_OF_WIDTH[width]
    codecs = itertools.cycle(["store", "zstd", "zstd-19", "zstd-negative", "zstd+checksum"])
    for nbytes in [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 128, 1000]:
        content = weights(nbytes, width)
        plans = [(transform, [next(codecs) for _ in range(width)]) for _ in range(3)]
        frame = write_frame(
            content,
            dtype=dtype,
            plans=plans,
            big_endian=big_endian,
            streamed=streamed,
            chunk_nbytes=64,
        )
        decoded = decode_frame(frame)
        assert decoded.content == content
        assert decoded.encoded_nbytes == len(frame)
        assert decoded.header.dtype_name == dtype
        assert decoded.header.big_endian == big_endian
        assert decoded.header.content_nbytes == (None if streamed else nbytes)
        assert len(decoded.chunks) == -(-nbytes // 64)
        sizes = [chunk.encoded_nbytes for chunk in decoded.chunks]
        assert [size for _, size in find_chunks(frame)] == sizes


@pytest.mark.parametrize(
    ("transform", "dtype", "element"),
    [
        ("bytes2", "int16", "0102"),
        ("float2", "bf16", "0102"),
        ("bytes4", "uint32", "01020304"),
        ("float4", "fp32", "01020304"),
        ("float4", "complex64", "01020304"),
        ("bytes8", "int64", "0102030405060708"),
        ("float8", "fp64", "0102030405060708"),
        ("float8", "complex128", "0102030405060708"),
    ],
)
def test_constant_planes_come_back(transform: str, dtype: str, element: str) -> None:
    content = bytes.fromhex(element) * 50 + b"\x55"
    frame = write_frame(content, dtype=dtype, plans=[(transform, "constant")])
    assert decode_frame(frame).content == content
    assert len(frame) < len(content) + 64


def test_planes_are_those_of_the_page() -> None:
    """Planes written by hand: -1.5 and 2.0 as bf16, little- and big-endian."""
    planes = [(0, bytes([0x7F, 0x80])), (0, bytes([0xC0, 0x00]))]
    little, big = bytes.fromhex("c0bf 0040"), bytes.fromhex("bfc0 4000")
    for content, big_endian in [(little, False), (big, True)]:
        frame = write_frame(
            content, dtype="bf16", plans=[("float2", planes)], big_endian=big_endian
        )
        assert decode_frame(frame).content == content


def test_streams_lie_highest_number_first() -> None:
    frame = write_frame(b"\x01\xff\x02\xff", dtype="int16", plans=[("bytes2", "store")])
    assert frame.endswith(b"\x01\x02\xff\xff")  # plane 1, the least significant bytes, comes first


def test_zstd_frames_with_sequences_come_back() -> None:
    plane = b"a sentence that repeats itself. " * 300
    encoded = zstd(plane, 9)
    with pytest.raises(zstd_literals.UnsupportedFrame):
        zstd_literals.decode(encoded, len(plane))
    frame = write_frame(plane, plans=[("bytes1", [(2, encoded)])])
    assert decode_frame(frame).content == plane


def test_zstd_frames_of_literals_need_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    content = weights(6000, 2)
    encoded = [zstd_literals.encode(plane) for plane in split(content, "float2")]
    assert len(encoded[0]) < 2000, "the plane was stored"
    frame = write_frame(content, dtype="bf16", plans=[("float2", [(2, e) for e in encoded])])
    with_sequences = write_frame(bytes(range(256)) * 9, plans=[("bytes1", "zstd-19")])
    assert decode_frame(with_sequences)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert decode_frame(frame).content == content
    with pytest.raises(ImportError):
        decode_frame(with_sequences)


def test_a_streamed_frame_may_end_with_a_whole_chunk_or_with_none() -> None:
    for nbytes in [0, 16, 32, 40]:
        frame = write_frame(bytes(nbytes), streamed=True, chunk_nbytes=16)
        assert decode_frame(frame).content == bytes(nbytes)
        assert frame.endswith(b"IA4Z")


def test_chunks_of_one_frame_may_differ_in_transform() -> None:
    content = weights(160, 4)
    plans = [("float4", "zstd"), ("bytes4", "store"), ("bytes1", "zstd")]
    frame = write_frame(content, dtype="fp32", plans=plans, chunk_nbytes=48)
    decoded = decode_frame(frame)
    assert decoded.content == content
    assert [chunk.transform for chunk in decoded.chunks] == [5, 2, 0, 5]


def test_unknown_table_records_from_32768_on_are_skipped() -> None:
    tables = [(32768, b""), (65535, b"note")]
    frame = write_frame(b"content", tables=tables)
    decoded = decode_frame(frame)
    assert decoded.content == b"content"
    assert decoded.header.tables == tuple(tables)


def test_a_frame_need_not_be_alone_if_told_so() -> None:
    frame = write_frame(b"content")
    assert decode_frame(frame + b"more", alone=False).encoded_nbytes == len(frame)
    refused(frame + b"m", "1 trailing bytes")


def test_the_facts_of_a_header() -> None:
    header = parse_header(write_header(content_nbytes=48, dtype="fp32", shape=(3, 4), fortran=True))
    assert (header.dtype, header.dtype_name, header.width) == (18, "fp32", 4)
    assert (header.shape, header.order, header.content_nbytes) == ((3, 4), "F", 48)
    assert (header.array, header.streamed, header.big_endian) == (True, False, False)


# --- Arrays ---------------------------------------------------------------------------------------

ARRAY_DTYPES: dict[str, Any] = {
    "bool": np.bool_,
    **{name: np.dtype(name) for name in DTYPE_CODES if re.fullmatch(r"u?int\d+", name)},
    "fp16": np.float16,
    "fp32": np.float32,
    "fp64": np.float64,
    "complex64": np.complex64,
    "complex128": np.complex128,
    "bf16": ml_dtypes.bfloat16,
    "fp8_e4m3": ml_dtypes.float8_e4m3fn,
    "fp8_e5m2": ml_dtypes.float8_e5m2,
    "fp8_e4m3fnuz": ml_dtypes.float8_e4m3fnuz,
    "fp8_e5m2fnuz": ml_dtypes.float8_e5m2fnuz,
    "fp8_e8m0": ml_dtypes.float8_e8m0fnu,
    "fp8_e4m3b11fnuz": ml_dtypes.float8_e4m3b11fnuz,
    "fp8_e3m4": ml_dtypes.float8_e3m4,
    "fp8_e4m3_ieee": ml_dtypes.float8_e4m3,
    "fp4_unpacked": ml_dtypes.float4_e2m1fn,
    "fp6_e2m3_unpacked": ml_dtypes.float6_e2m3fn,
    "fp6_e3m2_unpacked": ml_dtypes.float6_e3m2fn,
    "int4_unpacked": ml_dtypes.int4,
    "uint4_unpacked": ml_dtypes.uint4,
    "int2_unpacked": ml_dtypes.int2,
    "uint2_unpacked": ml_dtypes.uint2,
}


def test_every_dtype_of_arrays_is_tried() -> None:
    assert set(ARRAY_DTYPES) == {name for name, _, nbytes in DTYPES.values() if nbytes is not None}


@pytest.mark.parametrize("name", ARRAY_DTYPES)
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_come_back(name: str, order: str) -> None:
    values = np.arange(24).reshape(2, 3, 4) % 2
    array = np.array(values.astype(ARRAY_DTYPES[name]), order=order)
    back = decode_array(write_array(array, name))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    assert back.flags.f_contiguous == (order == "F")


@pytest.mark.parametrize("name", ["int16", "fp32", "complex128"])
def test_big_endian_arrays_come_back(name: str) -> None:
    dtype = np.dtype(ARRAY_DTYPES[name]).newbyteorder(">")
    array = np.arange(5).astype(dtype)
    transform = {2: "bytes2", 4: "float4", 8: "float8"}[DTYPES[DTYPE_CODES[name]][1]]
    back = decode_array(write_array(array, name, plans=[(transform, "store")]))
    assert back.dtype == dtype
    np.testing.assert_array_equal(back, array)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (1,) * 64])
def test_empty_and_scalar_arrays_come_back(shape: tuple[int, ...]) -> None:
    back = decode_array(write_array(np.ones(shape, np.float32), "fp32"))
    assert back.shape == shape
    assert (back == 1).all()


@pytest.mark.parametrize("name", ["opaque", "fp4"])
def test_some_dtypes_have_no_arrays(name: str) -> None:
    with pytest.raises(ValueError, match="not a dtype of arrays"):
        numpy_dtype(DTYPE_CODES[name])


def test_a_frame_without_an_array_has_none() -> None:
    with pytest.raises(ValueError, match="holds no array"):
        decode_array(write_frame(b"abcd", dtype="fp32"))


# --- ids.md ---------------------------------------------------------------------------------------


def table_of(heading: str) -> list[list[str]]:
    """Rows of the table under a heading of ids.md, cells without backquotes."""
    page = (PAGES / "ids.md").read_text(encoding="utf-8")
    section = page.split(f"## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


def test_dtype_codes_are_those_of_the_page() -> None:
    page = {
        int(code): (name, int(width), None if array == "–" else int(array.split()[0]))
        for code, name, width, _, array in table_of("Dtype codes")
    }
    assert page == DTYPES


def test_transforms_are_those_of_the_page() -> None:
    page = {int(i): (name, n) for i, name, n, _ in table_of("Transforms of a chunk")}
    planes = {i: (name, str(n)) for i, (name, n) in TRANSFORMS.items()}
    planes |= {i: (row.name, str(row.width)) for i, row in symbols.TRANSFORMS.items()}
    planes |= {difference.SAME: ("same", "0"), difference.XOR: ("xor", "1")}
    planes |= {i: (name, str(difference.STREAMS)) for i, (name, _) in difference.TRANSFORMS.items()}
    assert page == planes | {i: (name, "parts") for i, name in STAGES.items()}


def test_table_records_are_those_of_the_page() -> None:
    page = {int(kind) for kind, _, _ in table_of("Table records of a frame header")}
    assert page == TABLE_KINDS | DELTA_TABLE_KINDS


def test_codecs_are_those_of_the_page() -> None:
    page = {int(number): name for number, name, _ in table_of("Codecs of a stream")}
    assert page == CODECS


# --- Header: error if not -------------------------------------------------------------------------

HEADER_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "magic": ({"header": {"magic": b"Z4AJ"}}, "magic"),
    "version 0": ({"header": {"version": 0}}, "version 0 is unknown"),
    "version 1": ({"header": {"version": 1}}, "unrelated earlier package"),
    "version 3": ({"header": {"version": 3}}, "unrelated earlier package"),
    "version 4": ({"header": {"version": 4}}, "version 4 is unknown"),
    "version 17": ({"header": {"version": 17}}, "version 17 is unknown"),
    "reserved flag 4": ({"header": {"flags": 1 << 4}}, "reserved flags"),
    "reserved flag 5": ({"header": {"flags": 1 << 5}}, "reserved flags"),
    "reserved flag 6": ({"header": {"flags": 1 << 6}}, "reserved flags"),
    "reserved flag 7": ({"header": {"flags": 1 << 7}}, "reserved flags"),
    "fortran without array": ({"fortran": True}, "fortran without array"),
    "array and streamed": ({"shape": (16,), "streamed": True}, "exclude each other"),
    "big_endian of width 1": ({"big_endian": True}, "whose width is 1"),
    "dtype unknown": ({"header": {"dtype": 10}}, "dtype code 10 is unknown"),
    "dtype 255": ({"header": {"dtype": 255}}, "dtype code 255 is unknown"),
    "ndim 65": ({"dtype": "uint8", "shape": (16,) + (1,) * 64}, "65 dimensions"),
    "ndim without array": (
        {"header": {"flags": 0}, "shape": (16,), "dtype": "uint8"},
        "without flag array",
    ),
    "content_nbytes of 2**63": ({"header": {"content_nbytes": 2**63}}, "not below 2"),
    "content_nbytes of 2**64-1, not streamed": (
        {"header": {"content_nbytes": 2**64 - 1}},
        "not below 2",
    ),
    "content_nbytes if streamed": (
        {"streamed": True, "header": {"content_nbytes": 16}},
        "in a streamed frame",
    ),
    "chunk_nbytes 0": ({"header": {"chunk_nbytes": 0}}, "chunk_nbytes is 0"),
    "chunk_nbytes 24": ({"header": {"chunk_nbytes": 24}}, "chunk_nbytes is 24"),
    "chunk_nbytes above 2**26": (
        {"header": {"chunk_nbytes": 2**26 + 16}},
        "chunk_nbytes is 67108880",
    ),
    "tables_nbytes": ({"header": {"tables_nbytes": 2**32 - 1}}, "tables needs 4294967295 bytes"),
    "shape": ({"shape": (17,), "dtype": "uint8"}, "does not have 16 bytes"),
    "shape of a complex": ({"shape": (4,), "dtype": "complex64"}, "does not have 16 bytes"),
    "shape of 2**64 elements": (
        {"shape": (2**32, 2**32), "dtype": "uint8", "header": {"content_nbytes": 0}},
        "does not have 0 bytes",
    ),
    "array of opaque": ({"shape": (16,)}, "an array of opaque"),
    "array of packed fp4": ({"shape": (16,), "dtype": "fp4"}, "an array of fp4"),
    "varint not shortest": (
        {"dtype": "uint8", "shape": (16,), "header": {"shape": b"\x90\x00"}},
        "shortest form",
    ),
    "varint above 64 bits": (
        {"dtype": "uint8", "shape": (16,), "header": {"shape": b"\xff" * 9 + b"\x02"}},
        "64 bits",
    ),
    "varint without end": (
        {"dtype": "uint8", "shape": (16,), "header": {"shape": b"\x80" * 11}},
        "64 bits",
    ),
    "header checksum": ({"header": {"checksum": 0}}, "header checksum"),
    "table kind": ({"tables": [(0, b"")]}, "unknown kind 0"),
    "table kind 32767": ({"tables": [(32768, b""), (32767, b"")]}, "unknown kind 32767"),
    "table record reserved": (
        {"header": {"tables": struct.pack("<HHI", 32768, 1, 0)}},
        "reserved field",
    ),
    "table record too long": (
        {"header": {"tables": struct.pack("<HHI", 32768, 0, 1)}},
        "table record needs 1 bytes",
    ),
    "table records end early": (
        {"header": {"tables": struct.pack("<HHI", 32768, 0, 0) + bytes(7)}},
        "table record needs 8 bytes",
    ),
}


@pytest.mark.parametrize("rule", HEADER_RULES)
def test_header_rules(rule: str) -> None:
    options, message = HEADER_RULES[rule]
    refused(write_frame(bytes(range(16)), **options), message)


def test_a_reader_checks_in_the_order_of_the_page() -> None:
    both: dict[str, Any] = {"flags": 0x80, "dtype": 255}
    refused(write_frame(b"x", header={**both, "magic": b"ZSTN", "version": 1, "checksum": 0}), "ma")
    refused(write_frame(b"x", header={**both, "version": 1, "checksum": 0}), "version 1")
    refused(write_header(content_nbytes=1, override={**both, "checksum": 0})[:-1], "truncated")
    refused(write_frame(b"x", header={**both, "checksum": 0}), "header checksum")


def test_varints() -> None:
    for value in [0, 1, 127, 128, 16383, 16384, 2**63, 2**64 - 1]:
        assert read_varint(b"\xff" + varint(value) + b"\x00", 1) == (value, 1 + len(varint(value)))


# --- Chunks: error if not -------------------------------------------------------------------------

CONTENT = bytes(range(33))  # sixteen elements of two bytes and a tail
STREAMS = [(0, CONTENT[1:32:2]), (0, CONTENT[0:32:2])]
GROWN = 2**16 + 40

CHUNK_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "encoded_nbytes beyond the frame": ({"encoded_nbytes": 64}, "truncated: chunk"),
    "encoded_nbytes without the header": ({"encoded_nbytes": 19}, "streams needs 5"),
    "encoded_nbytes above content + 2**16": (
        {"streams": [(0, bytes(GROWN)), STREAMS[1]]},
        "bytes for 33 content bytes",
    ),
    "content_nbytes 0": ({"content_nbytes": 0}, "without content"),
    "content_nbytes too small": ({"content_nbytes": 31}, "has 31 content bytes, expected 33"),
    "content_nbytes too large": ({"content_nbytes": 35}, "has 35 content bytes, expected 33"),
    "checksum": ({"checksum": 0}, "checksum of the chunk"),
    "checksum with another seed": ({"checksum": xxh3(CONTENT, 1)}, "checksum of the chunk"),
    "transform unknown": ({"transform": 12}, "transform 12 is unknown"),
    "transform of another width": (
        {"transform": 2, "streams": [(0, bytes(8))] * 4},
        "bytes4 with int16 of width 2",
    ),
    "n_streams too few": ({"streams": [(0, CONTENT[:32])]}, "1 streams, but bytes2 has 2"),
    "n_streams too many": ({"streams": [*STREAMS, (0, b"")]}, "3 streams, but bytes2 has 2"),
    "n_streams 0": ({"n_streams": 0}, "0 streams, but bytes2 has 2"),
    "params_nbytes": ({"params": b"\0"}, "1 bytes of parameters, but bytes2 has none"),
    "codec unknown": ({"streams": [(6, STREAMS[0][1]), STREAMS[1]]}, "codec 6 is unknown"),
    "sizes add up to less": ({"tail": b"\x20\x20"}, "do not add up"),
    "sizes add up to more": ({"tail": b""}, "do not add up"),
    "a stream beyond the chunk": (
        {"streams": [STREAMS[0], (0, bytes(16))], "encoded_nbytes": 46},
        "stream 0 needs 16 bytes, 0 left",
    ),
    "stored too short": (
        {"streams": [(0, STREAMS[0][1][:-1]), STREAMS[1]]},
        "stored stream of 15 bytes, expected 16",
    ),
    "stored too long": (
        {"streams": [(0, STREAMS[0][1] + b"x"), STREAMS[1]]},
        "stored stream of 17 bytes, expected 16",
    ),
    "constant of no byte": ({"streams": [(1, b""), STREAMS[1]]}, "constant stream of 0 bytes"),
    "constant of two bytes": ({"streams": [(1, b"xx"), STREAMS[1]]}, "constant stream of 2 bytes"),
}


@pytest.mark.parametrize("rule", CHUNK_RULES)
def test_chunk_rules(rule: str) -> None:
    override, message = CHUNK_RULES[rule]
    options: dict[str, Any] = {"dtype": "int16", "plans": [("bytes2", "store")]}
    assert decode_frame(write_frame(CONTENT, **options)).content == CONTENT
    refused(write_frame(CONTENT, **options, chunks={0: override}), message)


def test_a_transform_needs_one_whole_element() -> None:
    chunk = {"transform": 1, "streams": [(0, b""), (0, b"")], "tail": b"x"}
    refused(write_frame(b"x", dtype="int16", chunks={0: chunk}), "without a whole element")


def test_the_seed_of_a_chunk_is_its_offset() -> None:
    content = bytes(range(40))
    assert decode_frame(write_frame(content, chunk_nbytes=16)).content == content
    wrong = {1: {"checksum": xxh3(content[16:32], 0)}}
    refused(write_frame(content, chunk_nbytes=16, chunks=wrong), "checksum of the chunk at.* 16")


def test_chunks_cannot_change_places() -> None:
    head = write_header(content_nbytes=32, chunk_nbytes=16)
    first = write_chunk(bytes(16), offset=0)
    second = write_chunk(bytes([1]) * 16, offset=16)
    trailer = write_trailer([len(first)] * 2, 32, struct.unpack("<Q", head[-8:])[0])
    assert decode_frame(head + first + second + trailer).content == bytes(16) + bytes([1]) * 16
    refused(head + second + first + trailer, "checksum of the chunk")


def test_more_chunks_than_the_file_can_hold() -> None:
    refused(write_frame(b"x" * 16, header={"content_nbytes": 2**62}), "chunks do not fit")


def test_only_the_last_chunk_of_a_streamed_frame_is_short() -> None:
    short = [bytes(15), bytes(16)]
    refused(write_frame(b"", streamed=True, chunk_nbytes=16, pieces=short), "short, but not the")
    long = [bytes(17)]
    refused(write_frame(b"", streamed=True, chunk_nbytes=16, pieces=long), "has 17 content bytes")


ZSTD_PLANE = weights(5000, 1)


ZSTD_RULES: dict[str, Callable[[], bytes]] = {
    "declared size too small": lambda: zstd(ZSTD_PLANE[:-1]),
    "declared size too large": lambda: zstd(ZSTD_PLANE + b"x"),
    "no declared size": lambda: zstd(ZSTD_PLANE, write_content_size=False),
    "bytes behind it": lambda: zstd(ZSTD_PLANE) + b"x",
    "a second frame": lambda: zstd(ZSTD_PLANE) + zstd(b"x"),
    "an empty frame behind it": lambda: zstd(ZSTD_PLANE) + zstd(b""),
    "ends early": lambda: zstd(ZSTD_PLANE)[:-1],
    "ends early, before its checksum": lambda: zstd(ZSTD_PLANE, write_checksum=True)[:-4],
    "nothing": lambda: b"",
    "no Zstandard frame": lambda: b"\0" + zstd(ZSTD_PLANE),
    "a skippable frame before it": lambda: SKIPPABLE + zstd(ZSTD_PLANE),
    "a skippable frame behind it": lambda: zstd(ZSTD_PLANE) + SKIPPABLE,
    "a wrong checksum": lambda: flip_last(zstd(ZSTD_PLANE, write_checksum=True)),
    "a dictionary": lambda: zstd(ZSTD_PLANE, dict_data=dictionary()),
    "a window above 2**27": lambda: zstd_by_hand(window_log=28),
}

SKIPPABLE = b"\x50\x2a\x4d\x18\0\0\0\0"


def flip_last(encoded: bytes) -> bytes:
    return encoded[:-1] + bytes([encoded[-1] ^ 1])


def dictionary() -> zstandard.ZstdCompressionDict:
    return zstandard.train_dictionary(1024, [ZSTD_PLANE[i : i + 50] for i in range(999)])


def zstd_by_hand(window_log: int) -> bytes:
    """One raw block; four bytes of content size, no single segment."""
    n = len(ZSTD_PLANE)
    window = bytes([(window_log - 10) << 3])
    block = struct.pack("<I", n << 3 | 1)[:3] + ZSTD_PLANE
    return bytes.fromhex("28b52ffd80") + window + struct.pack("<I", n) + block


@pytest.mark.parametrize("rule", ZSTD_RULES)
def test_zstd_rules(rule: str) -> None:
    for encoded in [zstd(ZSTD_PLANE), zstd_by_hand(window_log=27)]:
        good = write_frame(ZSTD_PLANE, plans=[("bytes1", [(2, encoded)])])
        assert decode_frame(good).content == ZSTD_PLANE
    refused(write_frame(ZSTD_PLANE, plans=[("bytes1", [(2, ZSTD_RULES[rule]())])]))


# --- Trailer: error if not ------------------------------------------------------------------------

TRAILER_RULES: dict[str, tuple[dict[str, Any], str]] = {
    "end": ({"end": 1}, "does not begin with zero"),
    "sizes": ({"sizes": [41, 42, 34]}, "sizes in the trailer differ"),
    "too few sizes": ({"sizes": [41, 41]}, "trailer"),
    "n_chunks": ({"n_chunks": 2}, "counts 2 chunks, there are 3"),
    "n_chunks 2**64-1": ({"n_chunks": 2**64 - 1}, "counts"),
    "content_nbytes": ({"content_nbytes": 41}, "says 41 content bytes"),
    "trailer checksum": ({"checksum": 0}, "trailer checksum"),
    "magic": ({"magic": b"Z4AI"}, "trailer ends in"),
}


@pytest.mark.parametrize("rule", TRAILER_RULES)
@pytest.mark.parametrize("streamed", [False, True])
def test_trailer_rules(rule: str, streamed: bool) -> None:
    override, message = TRAILER_RULES[rule]
    options: dict[str, Any] = {"chunk_nbytes": 16, "streamed": streamed}
    good = decode_frame(write_frame(bytes(40), **options))
    assert [chunk.encoded_nbytes for chunk in good.chunks] == [41, 41, 33]
    if streamed and rule == "end":
        message = "chunk"  # what is not zero is the size of another chunk
    refused(write_frame(bytes(40), **options, trailer=override), message)


def test_the_seed_of_the_trailer_is_the_header_checksum() -> None:
    one = write_frame(bytes(40), chunk_nbytes=16)
    other = write_frame(bytes(40), chunk_nbytes=16, dtype="uint8")
    trailer = 32 + 4 * 3
    assert one[-trailer:-12] == other[-trailer:-12]
    refused(one[:-trailer] + other[-trailer:], "trailer checksum")


def test_a_trailer_is_there_exactly_when_the_page_says_so() -> None:
    refused(write_frame(bytes(40), chunk_nbytes=16, with_trailer=False), "truncated")
    refused(write_frame(bytes(16), streamed=True, with_trailer=False), "truncated")
    refused(write_frame(bytes(16), with_trailer=True), "trailing bytes")
    refused(write_frame(b"", with_trailer=True), "trailing bytes")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("sizes", "sizes in the trailer do not add up"),
        ("n_chunks", "trailer checksum"),
        ("n_chunks 2**64-1", "does not fit in the frame"),
        ("trailer checksum", "trailer checksum"),
        ("magic", "does not end in a trailer"),
    ],
)
def test_seeking_checks_the_trailer(rule: str, message: str) -> None:
    frame = write_frame(bytes(40), chunk_nbytes=16, trailer=TRAILER_RULES[rule][0])
    with pytest.raises(ValueError, match=message):
        find_chunks(frame)


# --- Whole frames ---------------------------------------------------------------------------------


def small_frames() -> dict[str, tuple[bytes, bytes]]:
    content = weights(37, 2)
    array = np.arange(6, dtype=">i4").reshape(2, 3)
    constant = ("bytes2", "constant")
    return {
        "empty": (b"", write_frame(b"")),
        "empty streamed": (b"", write_frame(b"", streamed=True)),
        "stored": (content, write_frame(content)),
        "planes": (content, write_frame(content, dtype="bf16", plans=[("float2", "zstd")])),
        "constant": (b"ab" * 9, write_frame(b"ab" * 9, dtype="int16", plans=[constant])),
        "chunks": (content, write_frame(content, chunk_nbytes=16, tables=[(40000, b"note")])),
        "streamed": (content, write_frame(content, chunk_nbytes=16, streamed=True)),
        "array": (array.tobytes(), write_array(array, "int32", plans=[("bytes4", "store")])),
    }


@pytest.mark.parametrize("name", small_frames())
def test_every_prefix_and_every_trailing_byte_is_refused(name: str) -> None:
    content, frame = small_frames()[name]
    assert decode_frame(frame).content == content
    for nbytes in range(len(frame)):
        refused(frame[:nbytes])
    refused(frame + b"\0")


@pytest.mark.parametrize("name", small_frames())
def test_every_bit_flip_is_refused_or_ignored(name: str) -> None:
    content, frame = small_frames()[name]
    ignored = []
    for bit in range(8 * len(frame)):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            decoded = decode_frame(flipped)
        except ValueError:
            continue
        ignored.append(bit)
        assert decoded.content == content
        assert decoded.header == parse_header(frame)
    if name != "planes":  # a Zstandard frame has bits that do not matter
        assert ignored == []
