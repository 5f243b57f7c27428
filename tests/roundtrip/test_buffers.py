"""Buffers of any kind come back to the byte, and are not touched."""

from __future__ import annotations

import ctypes
import mmap
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies
from frames import encode
from hypothesis import given
from hypothesis import strategies as st

import z4ai
import z4ai.chunked
from z4ai._reference import decode_frame

EFFORTS = ["fast", "balanced", "max"]
NAMES = sorted(strategies.DTYPES) + sorted(strategies.ALIASES)


def both(frame: bytes) -> bytes:
    """Content of a frame by production and by the reference, which agree."""
    content = z4ai.decompress(frame)
    assert isinstance(content, bytes)
    assert decode_frame(frame).content == content
    return content


@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_and_alias_comes_back(name: str) -> None:
    width = z4ai.dtype_width(name)
    tried = 0
    for spelling in {name, name.upper()}:
        for nbytes in [*range(20), 1000, 4099]:
            for kind in ("weights", "noise"):
                content = strategies.make(kind, nbytes, width, nbytes)
                frame = z4ai.compress(content, dtype=spelling)
                assert both(frame) == content
                assert len(frame) <= len(content) + 64
                tried += 1
    assert tried in (44, 88)
    wanted = strategies.ALIASES.get(name, name)
    assert z4ai.info(frame).dtype == (None if wanted == "opaque" else wanted)


@given(
    st.sampled_from(["opaque", "int8", "int16", "bf16", "fp32", "int32", "fp64", "int64"]).flatmap(
        lambda name: st.tuples(st.just(name), strategies.contents(z4ai.dtype_width(name), 300_000))
    ),
    st.sampled_from([None, "default", *EFFORTS]),
    st.sampled_from([None, 1, 2, 5]),
)
def test_any_content_comes_back(
    pair: tuple[str, bytes], effort: str | None, threads: int | None
) -> None:
    name, content = pair
    frame = z4ai.compress(content, dtype=name, effort=effort, threads=threads)
    assert both(frame) == content
    assert len(frame) <= min(len(content) + 64, z4ai.compress_bound(len(content), name))
    assert z4ai.decompress(frame, threads=threads) == content


@given(
    st.sampled_from([64, 256, 4096]),
    st.sampled_from(["opaque", "int16", "bf16", "fp32", "int32", "fp64", "int64"]),
    st.sampled_from(strategies.KINDS),
    st.integers(0, 5),
    st.integers(-9, 9),
    st.booleans(),
    st.booleans(),
)
def test_chunk_edges_come_back(
    chunk_nbytes: int,
    name: str,
    kind: str,
    chunks: int,
    step: int,
    big_endian: bool,
    streamed: bool,
) -> None:
    width = z4ai.dtype_width(name)
    content = strategies.make(kind, max(chunks * chunk_nbytes + step, 0), width, chunks)
    frame = encode(
        content,
        dtype=name,
        chunk_nbytes=chunk_nbytes,
        big_endian=big_endian and width > 1,
        streamed=streamed,
        run_chunks=1 + chunks % 3,
        threads=1 + chunks % 2,
    )
    assert both(frame) == content
    assert z4ai.info(frame).n_chunks == -(-len(content) // chunk_nbytes)


@pytest.mark.parametrize("name", ["bf16", "fp32", "int64", "opaque"])
@pytest.mark.parametrize("step", [-9, -8, -1, 0, 1, 7, 8])
def test_edges_of_default_chunks_come_back(name: str, step: int) -> None:
    default = z4ai.info(z4ai.compress(b"", dtype=name)).chunk_nbytes
    for chunks in (1, 2):
        content = strategies.weights(chunks * default + step, z4ai.dtype_width(name))
        frame = z4ai.compress(content, dtype=name, threads=2)
        assert z4ai.decompress(frame) == content
        found = z4ai.info(frame)
        assert found.n_chunks == -(-len(content) // found.chunk_nbytes)
        assert found.chunk_nbytes == default or name == "opaque"  # which may choose smaller ones


@pytest.mark.parametrize("name", ["bf16", "fp16", "int16", "uint16"])
def test_all_16_bit_patterns_come_back(name: str) -> None:
    """Every NaN, infinity, subnormal and zero there is; in order, and among others."""
    patterns = strategies.all_16_bit_patterns()
    for content in (patterns, strategies.weights(100_000, 2) + patterns + bytes(70_000)):
        for effort in EFFORTS:
            assert both(z4ai.compress(content, dtype=name, effort=effort)) == content


@pytest.mark.parametrize(
    ("name", "width"), [("fp16", 2), ("bf16", 2), ("fp32", 4), ("fp64", 8), ("complex128", 8)]
)
def test_special_floats_come_back(name: str, width: int) -> None:
    special = strategies.special_floats(width)
    for content in (special, special * 400, strategies.weights(9000, width) + special):
        assert both(z4ai.compress(content, dtype=name)) == content


@pytest.mark.parametrize("name", ["opaque", "bf16", "fp32", "fp64"])
def test_unaligned_read_only_views_come_back(name: str) -> None:
    content = strategies.weights(70_001, z4ai.dtype_width(name))
    wanted = z4ai.compress(content, dtype=name)
    for offset in range(1, 16):
        view = memoryview(bytes(offset) + content)[offset:]
        assert view.readonly
        assert z4ai.compress(view, dtype=name) == wanted
        shifted = memoryview(bytes(offset) + wanted)[offset:]
        out = bytearray(len(content) + 15)
        filled = z4ai.decompress(shifted, out=memoryview(out)[offset:])
        assert filled == content
        assert out[:offset] == bytes(offset)
        assert out[offset + len(content) :] == bytes(15 - offset)


def test_input_is_not_changed() -> None:
    content = bytearray(strategies.weights(300_000, 4))
    before = bytes(content)
    for name in ("opaque", "fp32", "int32"):
        for big_endian in (False, True):
            dtype: Any = name
            if big_endian and name == "fp32":
                dtype = np.dtype(">f4")
            frame = bytearray(z4ai.compress(content, dtype=dtype))
            assert content == before
            kept = bytes(frame)
            assert z4ai.decompress(frame) == before
            assert frame == kept


def test_a_map_of_a_file_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    content = strategies.weights(200_000, 2)
    path.write_bytes(content)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        frame = z4ai.compress(view, dtype="bf16")
        assert z4ai.compress(memoryview(view)[2:], dtype="bf16")
    assert both(frame) == content
    mapped = np.memmap(path, np.uint16, mode="r")
    assert z4ai.compress(mapped, dtype="bf16") == frame
    del mapped
    path.write_bytes(frame)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        assert z4ai.decompress(view) == content


class _Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_float), ("y", ctypes.c_int)]


FORMS: dict[str, Any] = {
    "bytes": b"abcdef",
    "empty": b"",
    "bytearray": bytearray(b"abcdef"),
    "array of double": array("d", [1.0, -0.0]),
    "float view": memoryview(b"abcdefgh").cast("f"),
    "char view": memoryview(b"abcdefgh").cast("c"),
    "bool view": memoryview(b"\0\1\0\1").cast("?"),
    "two dimensions": memoryview(bytes(range(24))).cast("B", (2, 3, 4)),
    "0-d": memoryview(b"abcd").cast("B").cast("i", ()),
    "every second byte": memoryview(b"abcdef")[::2],
    "backwards": memoryview(b"abcdef")[::-1],
    "big-endian": memoryview(np.arange(5, dtype=">f4")),
    "big-endian strided": memoryview(np.arange(10, dtype=">i2"))[::3],
    "half": memoryview(np.arange(5, dtype=np.float16)),
    "complex": memoryview(np.arange(5, dtype=np.complex64)),
    "bool array": memoryview(np.array([True, False])),
    "structure": (_Point * 2)(_Point(1, 2), _Point(3, 4)),
    "record array": np.zeros(3, "f4,i2"),
    "record view": memoryview(np.ones(3, "f4,i2")),
    "Fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "Fortran view": memoryview(np.asfortranarray(np.arange(6.0).reshape(2, 3))),
    "0-d array": np.array(2.5, np.float32),
    "empty array": np.zeros((3, 0, 2)),
    "strided array": np.arange(20, dtype=np.int16)[::3],
    "broadcast": np.broadcast_to(np.float32(1.5), (3, 3)),
    "strings": np.array(["ab", "c"]),
    "times": np.array(["2026-01-01"], "M8[D]"),
    "bfloat16": strategies.array_of("bf16", (7,)),
    "fp8": strategies.array_of("fp8_e4m3", (3, 5))[:, ::2],
}


@pytest.mark.parametrize("name", FORMS)
def test_a_buffer_of_any_form_is_its_bytes(name: str) -> None:
    given = FORMS[name]
    wanted = given.tobytes() if hasattr(given, "tobytes") else bytes(given)
    for dtype in (None, "bf16", "fp32"):
        assert both(z4ai.compress(given, dtype=dtype)) == wanted


def test_out_of_any_form_is_filled() -> None:
    content = strategies.weights(64, 4)
    frame = z4ai.compress(content, dtype="fp32")
    room: list[Any] = [
        bytearray(64),
        memoryview(bytearray(64)).cast("f"),
        array("d", bytes(64)),
        np.zeros(16, np.float32),
        np.zeros((4, 4), ">f4"),
        strategies.array_of("bf16", (4, 8)),
        np.zeros(8, "M8[s]"),
    ]
    for out in room:
        assert z4ai.decompress(frame, out=out) == content
        assert memoryview(np.asarray(out).view(np.uint8)).tobytes() == content


def test_the_load_often_path_makes_the_same_frames() -> None:
    content = strategies.weights(300_001, 2)
    frame = z4ai.chunked.compress(content, dtype="bf16")
    assert frame == z4ai.compress(content, dtype="bf16", effort="fast")
    assert z4ai.chunked.decompress(frame) == z4ai.decompress(frame) == content


@pytest.mark.parametrize("name", ["opaque", "bf16", "fp32", "fp64", "int8"])
def test_content_of_which_nothing_is_gained_costs_64_bytes_at_most(name: str) -> None:
    """Also where it spans many default chunks."""
    for nbytes in (0, 1, 63, 64, 4096, (1 << 20) + 1, (9 << 20) + 5):
        content = strategies.noise(nbytes, nbytes)
        for effort in ("fast", "balanced"):
            frame = z4ai.compress(content, dtype=name, effort=effort)
            assert len(frame) <= nbytes + 64, effort
            assert len(frame) <= z4ai.compress_bound(nbytes, name)
            assert z4ai.decompress(frame) == content
