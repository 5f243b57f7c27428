"""Codec brotli, and chunks that only a library reads: both readers, hostile streams, no brotli."""

from __future__ import annotations

import re
import sys
import tracemalloc
from pathlib import Path
from types import ModuleType

import brotli as library
import numpy as np
import pytest
import reference_writer as writer
from hypothesis import given
from hypothesis import strategies as st
from records import RECORDS, brotli_raw
from strategies import make, noise, weights
from symbols_writer import KINDS, Model

import z4ai
from z4ai import errors
from z4ai._reference import decode_frame, planes
from z4ai.codecs import BROTLI, CODECS, CONSTANT, STORE, ZSTD, brotli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "brotli.md"
RECORD = RECORDS["brotli"]

#: What the writer of the tests calls them; its Zstandard is the library's, with matches.
NAMES = {STORE: "store", ZSTD: "zstd", BROTLI: "brotli"}

#: transform -> dtype
TRANSFORMS = {
    "bytes1": "opaque",
    "bytes2": "int16",
    "float2": "bf16",
    "bytes4": "int32",
    "float4": "fp32",
    "bytes8": "int64",
    "float8": "fp64",
}


def test_the_number_is_that_of_the_registry() -> None:
    assert CODECS[BROTLI] == "brotli"
    assert BROTLI == 5


# --- The codec alone ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECORD.planes)
def test_planes_come_back(name: str) -> None:
    plane = RECORD.planes[name]
    for quality in (0, 5, 9):
        coded = brotli.encode(memoryview(plane), quality)
        assert library.decompress(coded) == plane
        assert brotli.decode(memoryview(coded), len(plane)) == plane


@given(st.binary(min_size=1, max_size=400), st.integers(0, 11), st.integers(10, 24))
def test_any_bytes_come_back(plane: bytes, quality: int, window: int) -> None:
    coded = brotli.encode(memoryview(plane), quality, window)
    assert brotli.decode(memoryview(coded), len(plane)) == plane


@pytest.mark.parametrize("n", [1, 32_752, 32_753, 98_272, 229_328, (1 << 20) + 1, 5 << 20])
def test_content_that_ends_where_the_decoder_stops_is_whole(n: int) -> None:
    """The library hands its output over in blocks of these sizes."""
    for plane in (bytes(n), (noise(1000) * (n // 1000 + 1))[:n]):
        coded = brotli.encode(memoryview(plane), 1)
        assert brotli.decode(memoryview(coded), n) == plane
        for stream in (coded + b"\0", coded + coded):
            with pytest.raises(errors.CorruptError):
                brotli.decode(memoryview(stream), n)
        for wrong in (n - 1, n + 1):
            with pytest.raises(errors.CorruptError, match=str(wrong)):
                brotli.decode(memoryview(coded), wrong)


def test_every_prefix_is_refused() -> None:
    plane = make("text", 3000, 1, 2)
    coded = brotli.encode(memoryview(plane), 9)
    for cut in range(len(coded)):
        with pytest.raises(errors.FormatError):
            brotli.decode(memoryview(coded[:cut]), len(plane))


@given(st.data())
def test_damage_is_refused_or_gives_n_bytes(data: st.DataObject) -> None:
    plane = make("text", 2000, 1, 4)
    coded = bytearray(brotli.encode(memoryview(plane), 9))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(coded) - 1))
        coded[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = brotli.decode(memoryview(bytes(coded)), len(plane))
    except errors.FormatError:
        return
    assert len(decoded) == len(plane)


@pytest.mark.parametrize("n", [1, 100_000, 4 << 20])
def test_a_bomb_costs_little_more_than_the_plane(n: int) -> None:
    bomb = library.compress(bytes(1 << 28), quality=5)
    assert len(bomb) < 1 << 11
    tracemalloc.start()
    try:
        with pytest.raises(errors.CorruptError, match=f"more than the expected {n} bytes"):
            brotli.decode(memoryview(bomb), n)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < n + (6 << 20)


def test_large_windows_are_refused() -> None:
    # 0010001, a zero, six bits of the window: as RFC 7932 does not have it.
    with pytest.raises(errors.CorruptError, match="does not decode"):
        brotli.decode(memoryview(bytes([0x11, 24]) + brotli_raw(b"abc")[1:]), 3)


def test_examples_of_the_page() -> None:
    block = re.search(r"^```brotli\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert block is not None
    compared = 0
    for line in block[1].splitlines():
        stream, content = (part.strip() for part in line.split("="))
        coded = bytes.fromhex(stream)
        times = re.fullmatch(r"(\d+) times ([0-9A-F]{2})", content)
        expected = bytes.fromhex(times[2]) * int(times[1]) if times else bytes.fromhex(content)
        assert library.decompress(coded) == expected
        assert brotli.decode(memoryview(coded), len(expected)) == expected
        compared += 1
    assert compared == 3


# --- In chunks ------------------------------------------------------------------------------------

ENCODERS = {
    STORE: bytes,
    CONSTANT: lambda plane: plane[:1],
    ZSTD: RECORDS["zstd"].encoders["library 3"],
    BROTLI: RECORDS["brotli"].encoders["quality 5"],
    # Frames that the kernels read, and such as they begin to read and give up.
    ZSTD | 256: RECORDS["zstd"].encoders["literals"],
    ZSTD | 512: RECORDS["zstd"].encoders["short blocks"],
}


def frame_of(draw: st.DataObject) -> tuple[bytes, bytes]:
    """A frame of one to three chunks, any mix of codecs in each, and its content."""
    transform = draw.draw(st.sampled_from(list(TRANSFORMS)))
    width = int(transform[-1])
    chunk_nbytes = 16 * draw.draw(st.integers(1, 40)) * width
    n_chunks = draw.draw(st.integers(1, 3))
    big_endian = width > 1 and draw.draw(st.booleans())
    content, plans = b"", []
    for k in range(n_chunks):
        n = chunk_nbytes // width
        if k == n_chunks - 1:
            n = draw.draw(st.integers(1, n))
        kinds = [draw.draw(st.sampled_from(list(ENCODERS))) for _ in range(width)]
        made = [plane_for(draw, kind, n) for kind in kinds]
        streams = [(kind & 255, ENCODERS[kind](p)) for kind, p in zip(kinds, made, strict=True)]
        chunk = planes.interleave(made, transform)
        if big_endian:
            chunk = b"".join(chunk[i : i + width][::-1] for i in range(0, len(chunk), width))
        content += chunk
        plans.append((transform, streams))
    tail = draw.draw(st.integers(0, width - 1)) if len(content) % chunk_nbytes else 0
    content += noise(tail)
    frame = writer.write_frame(
        content,
        dtype=TRANSFORMS[transform],
        plans=plans,
        big_endian=big_endian,
        chunk_nbytes=chunk_nbytes,
    )
    return frame, content


def plane_for(draw: st.DataObject, kind: int, n: int) -> bytes:
    seed = draw.draw(st.integers(0, 9))
    if kind == CONSTANT:
        return bytes([seed]) * n
    return make(draw.draw(st.sampled_from(["text", "weights", "noise"])), n, 1, seed)


@given(st.data())
def test_chunks_of_any_mix_of_codecs_come_back(data: st.DataObject) -> None:
    frame, content = frame_of(data)
    assert z4ai.decompress(frame) == content
    assert z4ai.decompress(frame, threads=3) == content
    assert decode_frame(frame).content == content


@given(st.data())
def test_a_flipped_bit_of_such_a_chunk_is_found(data: st.DataObject) -> None:
    frame, content = frame_of(data)
    broken = bytearray(frame)
    broken[data.draw(st.integers(0, len(frame) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decoded = z4ai.decompress(bytes(broken))
    except errors.Z4Error:
        return
    assert decoded == content


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_large_planes_by_a_library_come_back(transform: str) -> None:
    """Several tiles of the kernels, and a chunk that does not begin the frame."""
    width = int(transform[-1])
    n = (3 << 17) // width * 2 + 5
    made = [weights(n, 1, p) for p in range(width)]
    kinds = [(BROTLI, ZSTD, STORE, ZSTD | 512)[p % 4] for p in range(width)]
    streams = [(kind & 255, ENCODERS[kind](p)) for kind, p in zip(kinds, made, strict=True)]
    chunk = planes.interleave(made, transform)
    first = noise(-(-len(chunk) // 16) * 16, 5)
    content = first + chunk
    frame = writer.write_frame(
        content,
        dtype=TRANSFORMS[transform],
        plans=[("bytes1", "store"), (transform, streams)],
        chunk_nbytes=len(first),
    )
    assert z4ai.decompress(frame) == content


SYMBOLS = {
    "symbols2": ("bf16", 250),
    "symbols2h": ("fp16", 0),
    "symbols4": ("fp32", 250),
    "symbols8": ("fp64", 1900),
}


def test_every_transform_with_remainders_is_tried() -> None:
    assert set(SYMBOLS) == {name for name, kind in KINDS.items() if kind.width > 1}


@pytest.mark.parametrize("transform", SYMBOLS)
@given(st.data())
def test_remainders_and_low_bytes_by_a_library_come_back(
    transform: str, data: st.DataObject
) -> None:
    """One a byte as the library gives them, though stored ones are packed."""
    dtype, base = SYMBOLS[transform]
    width = KINDS[transform].width
    n = data.draw(st.integers(1, 700))
    unit = data.draw(st.integers(1, n))  # repeated, so that there are matches
    words = weights(unit * width, width, data.draw(st.integers(0, 9))) * (n // unit + 1)
    words = words[: n * width]
    kinds = [data.draw(st.sampled_from([STORE, ZSTD, BROTLI])) for _ in range(width - 1)]
    streams: list[writer.Codec] = [NAMES[kind] for kind in kinds]
    big_endian = data.draw(st.booleans())
    content = words + noise(data.draw(st.integers(0, width - 1)))
    frame = writer.write_frame(
        content,
        dtype=dtype,
        plans=[(transform, streams)],
        model=Model(base=base),
        big_endian=big_endian,
        chunk_nbytes=16 * data.draw(st.integers(1, 400)),
    )
    assert decode_frame(frame).content == content
    assert z4ai.decompress(frame) == content


def test_a_wrong_checksum_behind_a_library_names_the_chunk() -> None:
    plane = make("text", 64, 1, 1)
    stream = [(BROTLI, ENCODERS[BROTLI](plane))]
    frame = writer.write_frame(plane, plans=[("bytes1", stream)], chunks={0: {"checksum": 1}})
    with pytest.raises(errors.ChecksumError, match="does not match its checksum") as info:
        z4ai.decompress(frame)
    assert info.value.chunk == 0


# --- Without brotli -------------------------------------------------------------------------------


def without(monkeypatch: pytest.MonkeyPatch, module: ModuleType | None) -> None:
    monkeypatch.setitem(sys.modules, "brotli", module)  # type: ignore[arg-type]


def test_without_brotli_an_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = make("text", 4992, 1, 1)
    stream = [(BROTLI, ENCODERS[BROTLI](plane))]
    frame = writer.write_frame(
        noise(4992) + plane, plans=[("bytes1", "store"), ("bytes1", stream)], chunk_nbytes=4992
    )
    assert brotli.is_installed()
    without(monkeypatch, None)
    assert not brotli.is_installed()
    with pytest.raises(errors.UnsupportedCodecError, match=r'pip install "z4ai\[maxratio\]"') as e:
        z4ai.decompress(frame)
    assert e.value.chunk == 1
    with pytest.raises(errors.UnsupportedCodecError, match="maxratio"):
        brotli.encode(memoryview(plane), 5)


def test_a_brotli_that_cannot_bound_its_output_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("brotli")
    old.Decompressor = type("Decompressor", (), {"process": None})  # type: ignore[attr-defined]
    without(monkeypatch, old)
    assert not brotli.is_installed()
    with pytest.raises(errors.UnsupportedCodecError, match=r"brotli 1\.2 or newer"):
        brotli.decode(memoryview(b"\x06"), 1)


def test_chunks_without_brotli_streams_need_no_brotli(monkeypatch: pytest.MonkeyPatch) -> None:
    plane = make("text", 5000, 1, 1)
    frame = writer.write_frame(plane, plans=[("bytes1", [(ZSTD, ENCODERS[ZSTD](plane))])])
    without(monkeypatch, None)
    assert z4ai.decompress(frame) == plane
    array = np.arange(1000, dtype=np.float32)
    assert (z4ai.decompress_array(z4ai.compress_array(array)) == array).all()
