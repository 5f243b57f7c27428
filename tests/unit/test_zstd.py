"""Codec `zstd` by the library: both ways of decoding agree on what is a frame; long matches."""

from __future__ import annotations

import numpy as np
import pytest
import zstandard

from z4ai.codecs import zstd
from z4ai.errors import CorruptError, FormatError, UnsupportedCodecError

SIZES = [0, 1, 7, 255, 256, 1000, 65_535, 65_536, 65_792, 131_072, 131_073, 400_000]


def noise(nbytes: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(nbytes)


def text(nbytes: int) -> bytes:
    words = np.random.default_rng(1).integers(0, 500, nbytes // 2 + 1)
    return " ".join(map(str, words)).encode()[:nbytes]


def into(stream: bytes, nbytes: int) -> bytes:
    out = bytearray(b"\x5a" * nbytes)
    zstd.decode_into(memoryview(stream), memoryview(out))
    return bytes(out)


def outcome(stream: bytes, nbytes: int, *, place: bool) -> bytes | type[FormatError]:
    try:
        return into(stream, nbytes) if place else zstd.decode(memoryview(stream), nbytes)
    except FormatError as error:
        return type(error)


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize("level", [1, 3, 19])
@pytest.mark.parametrize("make", [noise, text, bytes])
def test_what_is_encoded_is_decoded(make: type[bytes], level: int, long: bool) -> None:
    for nbytes in SIZES if level < 19 else SIZES[:-2]:
        content = make(nbytes)
        stream = zstd.encode(memoryview(content), level, long=long)
        assert zstandard.get_frame_parameters(stream).content_size == nbytes
        assert zstd.decode(memoryview(stream), nbytes) == content
        assert into(stream, nbytes) == content


def test_long_finds_what_lies_far_back() -> None:
    once = noise(3 << 20)
    content = once + noise(6 << 20, 1) + once
    plain = zstd.encode(memoryview(content), 3)
    found = zstd.encode(memoryview(content), 3, long=True)
    assert len(plain) > len(content)
    assert len(found) < len(content) - len(once) + 20_000
    assert zstandard.get_frame_parameters(found).window_size <= zstd.MAX_WINDOW_NBYTES
    assert into(found, len(content)) == zstd.decode(memoryview(found), len(content)) == content


def other_frames() -> dict[str, tuple[bytes, int]]:
    """Streams and the size that is expected: legal and not."""
    content = text(5000)
    stream = zstd.encode(memoryview(content), 3)
    checked = zstandard.ZstdCompressor(write_checksum=True).compress(content)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(content)
    empty = zstandard.ZstdCompressor().compress(b"")
    flushed = zstandard.ZstdCompressor().compressobj(size=len(content))
    pieces = [
        piece
        for at in range(0, len(content), 100)
        for piece in (
            flushed.compress(content[at : at + 100]),
            flushed.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK),
        )
    ]
    in_blocks = b"".join(pieces) + flushed.flush()
    many = b"\x28\xb5\x2f\xfd\x20\x01" + b"\0\0\0" * 70_000 + b"\x0b\0\0a"
    return {
        "plain": (stream, 5000),
        "checksum": (checked, 5000),
        "wrong checksum": (checked[:-1] + bytes([checked[-1] ^ 1]), 5000),
        "no checksum": (checked[:-4], 5000),
        "part of checksum": (checked[:-1], 5000),
        "small blocks": (in_blocks, 5000),
        "many empty blocks": (many, 1),
        "run": (bytes.fromhex("28B52FFD 20 09 4B0000 61"), 9),
        "runs cut off": (bytes.fromhex("28B52FFD 20 09 4B0000"), 9),
        "reserved block": (bytes.fromhex("28B52FFD 20 09 4F0000 61"), 9),
        "no size": (unsized, 5000),
        "larger": (stream, 5001),
        "smaller": (stream, 4999),
        "byte behind": (stream + b"\0", 5000),
        "frame behind": (stream + empty, 5000),
        "skippable behind": (stream + b"\x50\x2a\x4d\x18\0\0\0\0", 5000),
        "skippable before": (b"\x50\x2a\x4d\x18\0\0\0\0" + stream, 5000),
        "empty": (empty, 0),
        "empty and more": (empty + b"\0", 0),
        "nothing": (b"", 0),
        "no magic": (noise(100), 100),
        "wide window": (bytes.fromhex("28B52FFD 80 98 05000000 290000 6162636465"), 5),
        "dictionary": (bytes.fromhex("28B52FFD 21 07 01 090000 61"), 1),
    }


@pytest.mark.parametrize("name", other_frames())
def test_both_ways_agree(name: str) -> None:
    stream, nbytes = other_frames()[name]
    expected = outcome(stream, nbytes, place=False)
    assert outcome(stream, nbytes, place=True) == expected
    legal = {"plain", "checksum", "small blocks", "many empty blocks", "run", "empty"}
    if name in legal:
        assert isinstance(expected, bytes)
        assert len(expected) == nbytes
    elif name == "dictionary":
        assert expected is UnsupportedCodecError
    else:
        assert expected is CorruptError


def test_both_ways_agree_on_damage() -> None:
    content = text(3000)
    stream = zstd.encode(memoryview(content), 3)
    for end in range(len(stream)):
        assert outcome(stream[:end], 3000, place=True) is CorruptError
    for at in range(len(stream)):
        for bit in (0, 3, 7):
            damaged = stream[:at] + bytes([stream[at] ^ 1 << bit]) + stream[at + 1 :]
            found = outcome(damaged, 3000, place=True)
            assert found == outcome(damaged, 3000, place=False), (at, bit)
