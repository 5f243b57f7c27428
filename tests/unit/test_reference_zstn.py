"""The reference reader of containers, against the reference writer and rule by rule.

Each rule of docs/format/zstn.md has a test that breaks exactly that one, with every checksum right,
and names the rule that must refuse it.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable
from typing import Any

import pytest
from reference_writer import (
    Tensor,
    assemble,
    safetensors_file,
    safetensors_header,
    write_container,
    write_frame,
    xxh3,
)
from safetensors import SafetensorError, deserialize

from z4ai._reference import open_container, restore
from z4ai._reference.zstn import ELEMENT_BITS, parse_safetensors_header


def data(seed: int, nbytes: int) -> bytes:
    return bytes((seed + 37 * i) & 0xFF for i in range(nbytes))


A = Tensor("a", "BF16", (3, 2), data(1, 12))
B = Tensor("layer.b", "F32", (4,), data(2, 16))
TIED = Tensor("tied", "BF16", (3, 2), A.data)
EMPTY = Tensor("empty", "F32", (0, 7), b"")
SCALAR = Tensor("scalar", "I64", (), data(3, 8))
STRANGE = Tensor("strange", "Q5_K", (7,), data(4, 7))
TENSORS = [EMPTY, A, B, TIED, SCALAR, STRANGE]


def refused(container: bytes, message: str | None = None) -> None:
    with pytest.raises(ValueError, match=message):
        restore(container)


def comes_back(container: bytes, header: bytes, tensors: list[Tensor]) -> None:
    opened = open_container(container)
    assert opened.names() == [t.name for t in tensors]
    assert [(t.dtype, t.shape) for t in opened.tensors] == [(t.dtype, t.shape) for t in tensors]
    for t in tensors:
        assert opened.read(t.name) == t.data
    assert opened.restore() == safetensors_file(header, tensors)
    assert opened.original_nbytes == len(safetensors_file(header, tensors))


# --- Round trips ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"groups": [[1, 2, 3, 4, 5]]},
        {"groups": [[1], [3, 2], [5, 4]]},
        {"groups": [[5], [4], [3], [2], [1]]},
        {"shared": {3: 1}},
        {"shared": {3: 1}, "groups": [[2, 1], [4, 5]]},
        {"frame_options": {"streamed": True, "chunk_nbytes": 16}},
        {"frame_options": {"dtype": "opaque", "plans": [("bytes1", "zstd")]}},
        {"index_options": {"plans": [("bytes1", "zstd-19")]}},
        {"index_options": {"streamed": True, "chunk_nbytes": 32}},
    ],
    ids=str,
)
def test_containers_come_back(options: dict[str, Any]) -> None:
    container = write_container(TENSORS, **options)
    comes_back(container, safetensors_header(TENSORS), TENSORS)


@pytest.mark.parametrize(
    "header",
    [
        safetensors_header(TENSORS, metadata={}),
        safetensors_header(TENSORS, metadata={"format": "pt", "ключ": "值"}),
        safetensors_header(TENSORS, order=[5, 4, 3, 2, 1, 0]),
        safetensors_header(TENSORS, padding=7),
        safetensors_header(TENSORS) + b"\n\t\r ",
        json.dumps(json.loads(safetensors_header(TENSORS)), indent=3).encode(),
        safetensors_header(TENSORS).replace(b'"shape"', b'"more":[1.5,null],"shape"'),
    ],
)
def test_the_json_header_comes_back_byte_for_byte(header: bytes) -> None:
    deserialize(safetensors_file(header.replace(b"Q5_K", b"I8"), TENSORS))
    comes_back(write_container(TENSORS, json_header=header), header, TENSORS)


@pytest.mark.parametrize("tensors", [[], [EMPTY]])
def test_a_container_without_frames_comes_back(tensors: list[Tensor]) -> None:
    container = write_container(tensors)
    comes_back(container, safetensors_header(tensors), tensors)
    assert container[16:20] == b"Z4AI", "the index begins behind the header"


def test_tensors_are_in_the_order_of_data_then_of_the_header() -> None:
    second, third = Tensor("0", "U8", (0,), b""), Tensor("-", "U8", (0, 0), b"")
    tensors = [A, second, third, B]
    header = safetensors_header(tensors, order=[3, 1, 2, 0])
    opened = open_container(write_container(tensors, json_header=header))
    assert opened.names() == ["a", "0", "-", "layer.b"]
    header = safetensors_header(tensors, order=[3, 2, 1, 0])
    opened = open_container(write_container([A, third, second, B], json_header=header))
    assert opened.names() == ["a", "-", "0", "layer.b"]


def test_content_of_a_frame_may_belong_to_no_tensor() -> None:
    header = safetensors_header([A])
    frame = write_frame(b"?" + A.data + b"?")
    container = assemble(
        header, [frame], [(0, 1)], original_nbytes=len(safetensors_file(header, [A]))
    )
    comes_back(container, header, [A])


def test_an_unknown_tensor_is_a_key_error() -> None:
    with pytest.raises(KeyError):
        open_container(write_container([A])).read("b")


def test_element_sizes_are_those_of_safetensors() -> None:
    for dtype, bits in ELEMENT_BITS.items():
        tensor = Tensor("t", dtype, (8,), bytes(bits))
        header = safetensors_header([tensor])
        deserialize(safetensors_file(header, [tensor]))
        comes_back(write_container([tensor]), header, [tensor])
        refused(write_container([Tensor("t", dtype, (8,), bytes(bits + 1))]), "does not have")


# --- Header, footer and index: error if not -------------------------------------------------------

GOOD: dict[str, Any] = {"tensors": [A, B]}
LOCATIONS = [(16, 69, 0), (85, 73, 0)]

RULES: dict[str, tuple[dict[str, Any], str]] = {
    # Header
    "magic": ({"header": {"magic": b"Z4AI"}}, "magic is"),
    "version 1": ({"header": {"version": 1}}, "unrelated earlier package"),
    "version 3": ({"header": {"version": 3}}, "unrelated earlier package"),
    "version 15": ({"header": {"version": 15}}, "version 15 is unknown"),
    "version 17": ({"header": {"version": 17}}, "version 17 is unknown"),
    "reserved of the header": ({"header": {"reserved": b"\0\0\1"}}, "reserved bytes of the header"),
    "header checksum": ({"header": {"checksum": 0}}, "header checksum"),
    # Footer
    "index_offset below 16": (
        {"footer": {"index_offset": 15, "index_nbytes": 400}},
        "index_offset is 15",
    ),
    "index_nbytes": ({"footer": {"index_nbytes": 1}}, "an index of 1 bytes"),
    "index_nbytes 2**64-1": ({"footer": {"index_nbytes": 2**64 - 1}}, "an index of 18446744073"),
    "original_nbytes": ({"footer": {"original_nbytes": 1}}, "original_nbytes is 1, expected"),
    "reserved of the footer": ({"footer": {"reserved": 1}}, "reserved bytes of the footer"),
    "footer checksum": ({"footer": {"checksum": 0}}, "footer checksum"),
    "footer version": ({"footer": {"version": 17}}, "version 17 in the footer, 16 in the header"),
    "last reserved": ({"footer": {"reserved_bytes": b"\1\0\0"}}, "reserved bytes of the footer"),
    "footer magic": ({"footer": {"magic": b"IA4Z"}}, "the footer ends in"),
    # Index
    "index of another dtype": ({"index_options": {"dtype": "uint8"}}, "not a frame of opaque"),
    "header_nbytes above 100000000": (
        {"index": {"header_nbytes": 100_000_001}},
        "at most 100000000",
    ),
    "header_nbytes beyond the index": ({"index": {"header_nbytes": 10_000}}, "JSON header needs"),
    "n_tensors too large": ({"index": {"n_tensors": 3}}, "48 bytes of locations for 3 tensors"),
    "n_tensors too small": ({"index": {"n_tensors": 1}}, "48 bytes of locations for 1 tensors"),
    "n_tensors 2**64-1": ({"index": {"n_tensors": 2**64 - 1}}, "bytes of locations for 1844"),
    "n_tensors unlike the header": (
        {"index": {"locations": [*LOCATIONS, (0, 0, 0)]}},
        "3 locations for 2 tensors",
    ),
    "bytes behind the locations": ({"index": {"behind": b"x"}}, "49 bytes of locations"),
    # Locations
    "frame offset below 16": (
        {"index": {"locations": [(0, 85, 0), LOCATIONS[1]]}},
        "a frame at 0, expected at 16",
    ),
    "overlap": (
        {"index": {"locations": [LOCATIONS[0], (84, 74, 0)]}},
        "a frame at 84, expected at 85: hole or overlap",
    ),
    "hole": (
        {"index": {"locations": [(16, 68, 0), LOCATIONS[1]]}},
        "a frame at 85, expected at 84: hole or overlap",
    ),
    "hole before the index": (
        {"index": {"locations": [LOCATIONS[0], (85, 72, 0)]}},
        "the frames end at 157, but the index begins at 158",
    ),
    "overlap with the index": (
        {"index": {"locations": [LOCATIONS[0], (85, 74, 0)]}},
        "the frames end at 159, but the index begins at 158",
    ),
    "two sizes of one frame": (
        {"index": {"locations": [LOCATIONS[0], (16, 142, 0)]}},
        "two sizes of the frame at 16",
    ),
    "frame of zero bytes": (
        {"index": {"locations": [(16, 142, 0), (158, 0, 0)]}},
        "a frame of zero bytes",
    ),
    "two frames in one": (
        {"index": {"locations": [(16, 142, 0), (16, 142, 0)]}},
        "is not within its frame",
    ),
    "content offset": (
        {"index": {"locations": [(16, 69, 1), LOCATIONS[1]]}},
        "tensor 'a' is not within its frame",
    ),
    "content offset 2**64-1": (
        {"index": {"locations": [(16, 69, 2**64 - 1), LOCATIONS[1]]}},
        "tensor 'a' is not within its frame",
    ),
    "wrong frame": ({"index": {"locations": LOCATIONS[::-1]}}, "'layer.b' is not within its frame"),
}


def test_the_good_container_is_good() -> None:
    container = write_container(**GOOD)
    found = open_container(container).tensors
    assert [(t.frame_offset, t.frame_nbytes, t.content_offset) for t in found] == LOCATIONS
    comes_back(container, safetensors_header([A, B]), [A, B])


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str) -> None:
    options, message = RULES[rule]
    refused(write_container(**GOOD, **options), message)


def test_the_index_holds_no_array() -> None:
    header = safetensors_header([])
    content = struct.pack("<Q", len(header)) + header + bytes(8)
    good = {"original_nbytes": 8 + len(header)}
    assert restore(assemble(header, [], [], **good)) == safetensors_file(header, [])
    array = {"dtype": "uint8", "shape": (len(content),)}
    refused(assemble(header, [], [], **good, index_options=array), "not a frame of opaque")


@pytest.mark.parametrize("location", [(16, 0, 0), (0, 69, 0), (0, 0, 1), (16, 69, 0)])
def test_a_tensor_of_zero_bytes_has_a_location_of_zeros(location: tuple[int, int, int]) -> None:
    locations = [location, (16, 69, 0)]
    assert restore(write_container([EMPTY, A]))
    refused(write_container([EMPTY, A], index={"locations": locations}), "has a location")


def test_the_seed_of_the_footer_is_the_header_checksum() -> None:
    container = write_container(**GOOD)
    wrong = struct.pack("<Q", xxh3(container[-48:-16], 0))
    refused(container[:-16] + wrong + container[-8:], "footer checksum")


def test_damage_in_a_frame_is_found_when_it_is_read() -> None:
    container = bytearray(write_container(**GOOD))
    container[85 - 1] ^= 1
    opened = open_container(container)
    assert opened.read("layer.b") == B.data
    with pytest.raises(ValueError, match="checksum of the chunk"):
        opened.read("a")


def test_a_frame_must_fill_its_place() -> None:
    header = safetensors_header([A])
    frame = write_frame(A.data)
    container = assemble(
        header, [frame + b"x"], [(0, 0)], original_nbytes=len(safetensors_file(header, [A]))
    )
    refused(container, "trailing bytes behind the frame")


def test_a_streamed_frame_that_ends_early_is_refused() -> None:
    header = safetensors_header([A])
    frame = write_frame(A.data[:-1], streamed=True)
    container = assemble(
        header, [frame], [(0, 0)], original_nbytes=len(safetensors_file(header, [A]))
    )
    refused(container, "'a' is not within its frame")


# --- The JSON header ------------------------------------------------------------------------------


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [2], "data_offsets": [0, 2], **changes}


def without(key: str) -> dict[str, Any]:
    return {k: v for k, v in entry().items() if k != key}


#: JSON header, what the reference says; all of them have (at most) two bytes of data.
JSON_RULES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "does not begin with {"),
    "begins with a space": (b' {"a":%b}' % json.dumps(entry()).encode(), "does not begin with"),
    "no object": (b"[]", "does not begin with {"),
    "not UTF-8": (b'{"\xff":%b}' % json.dumps(entry()).encode(), "utf-8"),
    "a lone surrogate": (b'{"\\ud800":%b}' % json.dumps(entry()).encode(), "surrogate"),
    "not JSON": (b"{'a':1}", "Expecting"),
    "ends early": (b"{", "Expecting"),
    "two values": (b"{}{}", "Extra data"),
    "padded by zeros": (b"{}\0", "Extra data"),
    "NaN": (b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2],"b":NaN}}', "NaN is not JSON"),
    "nested deeply": (b'{"a":' + b"[" * 200_000, "nested too deeply"),
    "duplicate keys": (
        b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},'
        b'"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        "duplicate key 'a'",
    ),
    "duplicate keys of a tensor": (
        b'{"a":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}',
        "duplicate key 'dtype'",
    ),
    "duplicate keys of the metadata": (
        b'{"__metadata__":{"k":"1","k":"2"}}',
        "duplicate key 'k'",
    ),
    **{
        name: (json.dumps(value).encode(), message)
        for name, value, message in [
            ("metadata of a number", {"__metadata__": {"k": 1}}, "strings to strings"),
            ("metadata of a list", {"__metadata__": ["k"]}, "strings to strings"),
            ("a tensor of a list", {"a": ["U8", [2], [0, 2]]}, "not described by an object"),
            ("no dtype", {"a": without("dtype")}, "has no dtype"),
            ("no shape", {"a": without("shape")}, "has no shape"),
            ("no data_offsets", {"a": without("data_offsets")}, "has no data_offsets"),
            ("dtype no string", {"a": entry(dtype=8)}, "dtype of tensor 'a'"),
            ("shape no list", {"a": entry(shape=2)}, "shape of tensor 'a' is not a list"),
            ("shape of a float", {"a": entry(shape=[2.0])}, "shape of tensor 'a' holds 2.0"),
            ("shape of a string", {"a": entry(shape=["2"])}, "shape of tensor 'a' holds '2'"),
            ("shape of a boolean", {"a": entry(shape=[2, True])}, "holds True"),
            ("shape below zero", {"a": entry(shape=[-1, -2])}, "holds -1"),
            ("shape above 64 bits", {"a": entry(shape=[0, 2**64])}, "holds 18446744073709551616"),
            ("data_offsets no list", {"a": entry(data_offsets="02")}, "is not a list"),
            ("one data_offset", {"a": entry(data_offsets=[2])}, r"'a' are \[2\]"),
            ("three data_offsets", {"a": entry(data_offsets=[0, 1, 2])}, r"'a' are \[0, 1, 2\]"),
            ("data_offsets backwards", {"a": entry(data_offsets=[2, 0])}, r"'a' are \[2, 0\]"),
            ("offsets begin at 1", {"a": entry(data_offsets=[1, 3])}, "begins at 1, expected 0"),
            (
                "a hole",
                {"a": entry(shape=[1], data_offsets=[0, 1]), "b": entry(data_offsets=[2, 4])},
                "'b' begins at 2, expected 1",
            ),
            (
                "an overlap",
                {"a": entry(), "b": entry(data_offsets=[1, 3])},
                "'b' begins at 1, expected 2",
            ),
            ("twice the same range", {"a": entry(), "b": entry()}, "'b' begins at 0, expected 2"),
            ("size too small", {"a": entry(shape=[3])}, "does not have 2 bytes"),
            ("size too large", {"a": entry(shape=[1])}, "does not have 2 bytes"),
            ("half a byte", {"a": entry(dtype="F4", shape=[3])}, "does not have 2 bytes"),
            ("size of 2**64", {"a": entry(shape=[2**32, 2**32, 2])}, "does not have 2 bytes"),
        ]
    },
}

#: Headers that safetensors itself accepts, though its rules on paper do not.
SAFETENSORS_ACCEPTS = {
    "begins with a space",
    "duplicate keys",
    "duplicate keys of the metadata",
    "a tensor of a list",
}


@pytest.mark.parametrize("rule", JSON_RULES)
def test_json_rules(rule: str) -> None:
    header, message = JSON_RULES[rule]
    with pytest.raises(ValueError, match=message):
        parse_safetensors_header(header)
    refused(assemble(header, [write_frame(b"xy")], [(0, 0)], original_nbytes=10 + len(header)))


@pytest.mark.parametrize("rule", JSON_RULES)
def test_safetensors_refuses_the_same_headers(rule: str) -> None:
    header, _ = JSON_RULES[rule]
    ends = [int(end) for end in re.findall(rb'(?:offsets": ?|, )\[\d+, ?(\d+)\]', header)]
    file = struct.pack("<Q", len(header)) + header + bytes(max(ends, default=0))
    if rule in SAFETENSORS_ACCEPTS:
        deserialize(file)
        return
    with pytest.raises(SafetensorError):
        deserialize(file)


# --- Whole containers -----------------------------------------------------------------------------


def small_containers() -> dict[str, Callable[[], bytes]]:
    return {
        "no tensors": lambda: write_container([]),
        "two tensors": lambda: write_container([A, B]),
        "shared": lambda: write_container([A, EMPTY, TIED, B], groups=[[0, 3]], shared={2: 0}),
        "planes": lambda: write_container([A], frame_options={"plans": [("float2", "store")]}),
        "streamed": lambda: write_container(
            [B], frame_options={"streamed": True, "chunk_nbytes": 16}
        ),
    }


@pytest.mark.parametrize("name", small_containers())
def test_every_prefix_and_every_trailing_byte_is_refused(name: str) -> None:
    container = small_containers()[name]()
    assert restore(container)
    for nbytes in range(len(container)):
        refused(container[:nbytes])
    refused(container + b"\0")


@pytest.mark.parametrize("name", small_containers())
def test_every_bit_flip_is_refused(name: str) -> None:
    container = small_containers()[name]()
    for bit in range(8 * len(container)):
        flipped = bytearray(container)
        flipped[bit // 8] ^= 1 << bit % 8
        refused(bytes(flipped))
