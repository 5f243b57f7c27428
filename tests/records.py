"""One record for each codec of a stream: how it is written, what is hard for it, what it refuses.

Round trips, hostile frames, golden files and the seeds of the fuzzers are made from these, so a
codec without a record has no tests: test_records.py fails then.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache

import brotli
import numpy as np
import zstandard
from strategies import in_parts, make, noise, weights

from z4ai._fast import literals


@dataclass(frozen=True)
class Record:
    """One codec.

    Attributes
    ----------
    name : str
        As in the table of codecs.
    since : int
        First format version that has it.
    encoders : mapping
        Configuration to encoder of one plane. An encoder may be for certain planes only.
    planes : mapping
        Name to a plane: edge cases, and a few ordinary ones.
    suits : callable
        Whether the codec can hold a plane.
    hostile : callable
        From a plane, (why, stream, class name of the error): streams that must be refused.
    """

    name: str
    since: int
    encoders: Mapping[str, Callable[[bytes], bytes]]
    planes: Mapping[str, bytes]
    suits: Callable[[bytes], bool] = field(default=lambda plane: True)
    hostile: Callable[[bytes], Iterable[tuple[str, bytes, str]]] = field(default=lambda plane: ())


#: Codecs that planes do not have: they belong to transforms, and are tested with those.
NOT_OF_PLANES = {"contexts", "frame"}

EDGE_PLANES = {
    "one byte": b"\x00",
    "two alike": b"\xff\xff",
    "two": b"\x01\x02",
    "five": b"abcde",
    "six": b"aabbbc",
    "256 bytes": bytes(range(256)),
    "zeros": bytes(3000),
    "all but one": bytes(1500) + b"\x01" + bytes(1499),
    "noise": noise(2000),
    "weights": weights(5000, 1),
    "weights again": weights(1023, 1, 9),
    "text": make("text", 4000, 1, 3),
    "two symbols": np.packbits(np.frombuffer(noise(4000), np.uint8) & 1).tobytes(),
    "skewed": bytes(min(noise_byte * noise_byte >> 10, 255) for noise_byte in noise(3000)),
    "parts": in_parts(700, weights(2100, 1), noise(2100), bytes(2100)),
    "block and a byte": weights((1 << 17) + 1, 1, 4),
}


def _constant_suits(plane: bytes) -> bool:
    return plane.count(plane[:1]) == len(plane)


def _store_hostile(plane: bytes) -> Iterable[tuple[str, bytes, str]]:
    yield "short", plane[:-1], "CorruptError"
    yield "long", plane + b"\0", "CorruptError"
    yield "empty", b"", "FormatError"


def _constant_hostile(plane: bytes) -> Iterable[tuple[str, bytes, str]]:
    yield "empty", b"", "FormatError"
    yield "two bytes", plane[:1] * 2, "CorruptError"
    if len(plane) > 1:
        yield "stored", plane, "CorruptError"


def _library(level: int, **options: int) -> Callable[[bytes], bytes]:
    return lambda plane: zstandard.ZstdCompressor(level=level, **options).compress(plane)


def _small_window(plane: bytes) -> bytes:
    params = zstandard.ZstdCompressionParameters.from_level(3, window_log=10, write_content_size=1)
    return zstandard.ZstdCompressor(compression_params=params).compress(plane)


def _short_blocks(plane: bytes) -> bytes:
    """Blocks that end where the library was told to flush, as no coder of ours has them."""
    encoder = zstandard.ZstdCompressor(level=3).compressobj(size=len(plane))
    step = max(len(plane) // 3, 1)
    out = []
    for at in range(0, len(plane), step):
        out.append(encoder.compress(plane[at : at + step]))
        out.append(encoder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
    return b"".join(out) + encoder.flush()


def zstd_frame(content_nbytes: int, blocks: bytes, *, window: int | None = None) -> bytes:
    """A Zstandard frame by hand: size in eight bytes, a window descriptor or a single segment."""
    if window is None:
        return struct.pack("<IBQ", 0xFD2FB528, 3 << 6 | 1 << 5, content_nbytes) + blocks
    return struct.pack("<IBBQ", 0xFD2FB528, 3 << 6, window, content_nbytes) + blocks


def zstd_block(kind: int, nbytes: int, body: bytes, *, last: bool = True) -> bytes:
    return struct.pack("<I", last | kind << 1 | nbytes << 3)[:3] + body


def _zstd_hostile(plane: bytes) -> Iterable[tuple[str, bytes, str]]:
    n = len(plane)
    valid = _library(3)(plane)
    yield "empty", b"", "FormatError"
    yield "no magic", b"\0" + valid[1:], "CorruptError"
    yield "cut", valid[:-1], "CorruptError"
    yield "cut behind its header", valid[:6], "CorruptError"
    yield "a byte behind", valid + b"\0", "CorruptError"
    yield "a frame behind", valid + valid, "CorruptError"
    yield "an empty frame behind", valid + _library(3)(b""), "CorruptError"
    yield "a skippable frame in front", struct.pack("<II", 0x184D2A50, 0) + valid, "CorruptError"
    yield (
        "a skippable frame of this size",
        struct.pack("<II", 0x184D2A50, n) + plane,
        "CorruptError",
    )
    yield "shorter content", _library(3)(plane[:-1]), "CorruptError"
    yield "longer content", _library(3)(plane + b"\0"), "CorruptError"
    yield "size not declared", _library(3, write_content_size=False)(plane), "CorruptError"
    yield "content checksum wrong", _wrong_checksum(plane), "CorruptError"
    # By hand: a dictionary's number behind the descriptor, then the size.
    named = struct.pack("<IBBI", 0xFD2FB528, 2 << 6 | 1 << 5 | 1, 7, n)
    named += zstd_block(0, min(n, 1 << 17), plane[: 1 << 17])
    yield "a dictionary", named, "UnsupportedCodecError"
    raw = zstd_block(0, min(n, 1 << 17), plane[: 1 << 17])
    # Exponent 18: 2^28 bytes; 2^27 are allowed.
    yield "a window of 2^28", zstd_frame(n, raw, window=18 << 3), "CorruptError"
    yield "a window of 2^41", zstd_frame(n, raw, window=31 << 3), "CorruptError"
    yield "more than it declares", zstd_frame(n, zstd_block(1, 2 * n, b"\0")), "CorruptError"
    yield "less than it declares", zstd_frame(n, zstd_block(1, n - 1, b"\0")), "CorruptError"
    yield "a bomb", zstd_frame(n, zstd_block(1, 1 << 17, b"\0", last=False) * 50), "CorruptError"
    yield "no last block", zstd_frame(n, zstd_block(0, n, plane, last=False)), "CorruptError"
    yield "a reserved block", zstd_frame(n, zstd_block(3, n, plane)), "CorruptError"
    yield "a declared size of 2^63", zstd_frame(1 << 63, raw), "CorruptError"
    yield "a declared size of 2^64 - 3", zstd_frame(2**64 - 3, raw), "CorruptError"
    yield "the reserved bit", valid[:4] + bytes([valid[4] | 8]) + valid[5:], "CorruptError"
    yield (
        "only empty blocks",
        zstd_frame(n, zstd_block(0, 0, b"", last=False) * 200),
        "CorruptError",
    )


def _brotli(quality: int, **options: int) -> Callable[[bytes], bytes]:
    def encode(plane: bytes) -> bytes:
        coded: bytes = brotli.compress(plane, quality=quality, **options)
        return coded

    return encode


def _brotli_flushed(plane: bytes) -> bytes:
    """Meta-blocks that end where the library was told to flush, empty ones between them."""
    encoder = brotli.Compressor(quality=5)
    step = max(len(plane) // 3, 1)
    out = []
    for at in range(0, len(plane), step):
        out += [encoder.process(plane[at : at + step]), encoder.flush(), encoder.flush()]
    return b"".join(out) + encoder.finish()


def brotli_raw(content: bytes, *, last: bool = True) -> bytes:
    """A Brotli stream by hand: uncompressed meta-blocks of at most 64 KiB, window 2^16."""
    out = b""
    for at in range(0, len(content), 1 << 16):
        block = content[at : at + (1 << 16)]
        # The window's bit stands before the first meta-block.
        head = len(block) - 1 << 3 | 1 << 19
        out += (head << 1 if at == 0 else head).to_bytes(3, "little") + block
    return out + b"\x03" if last else out


@cache
def _brotli_bomb() -> bytes:
    return _brotli(1)(bytes(1 << 26))


def _brotli_hostile(plane: bytes) -> Iterable[tuple[str, bytes, str]]:
    n = len(plane)
    valid = _brotli(5)(plane)
    yield "empty", b"", "FormatError"
    yield "cut", valid[:-1], "FormatError"
    yield "its first byte", valid[:1], "FormatError"
    yield "no last block", brotli_raw(plane, last=False), "TruncatedError"
    yield "a byte behind", valid + b"\0", "CorruptError"
    yield "a stream behind", valid + valid, "CorruptError"
    yield "an empty stream behind", valid + b"\x06", "CorruptError"
    yield "no content", b"\x06", "CorruptError"
    yield "shorter content", brotli_raw(plane[:-1]) if n > 1 else b"\x06", "CorruptError"
    yield "longer content", _brotli(5)(plane + b"\0"), "CorruptError"
    yield "a bomb", _brotli_bomb(), "CorruptError"
    yield "a large window", bytes([0x11, 24]) + valid[1:], "CorruptError"
    yield "a Zstandard frame", _library(3)(plane), "FormatError"
    yield "padding that is not zero", brotli_raw(plane)[:-1] + b"\x83", "CorruptError"


def _wrong_checksum(plane: bytes) -> bytes:
    valid = _library(3, write_checksum=True)(plane)
    return valid[:-1] + bytes([valid[-1] ^ 1])


RECORDS = {
    record.name: record
    for record in (
        Record(
            name="store",
            since=16,
            encoders={"as it is": bytes},
            planes=EDGE_PLANES,
            hostile=_store_hostile,
        ),
        Record(
            name="constant",
            since=16,
            encoders={"one byte": lambda plane: plane[:1]},
            planes={name: p for name, p in EDGE_PLANES.items() if _constant_suits(p)},
            suits=_constant_suits,
            hostile=_constant_hostile,
        ),
        Record(
            name="zstd",
            since=16,
            encoders={
                "literals": lambda plane: literals.encode(plane),
                "library 1": _library(1),
                "library 3": _library(3),
                "library 19": _library(19),
                "library -5": _library(-5),
                "with checksum": _library(3, write_checksum=True),
                "small window": _small_window,
                "short blocks": _short_blocks,
            },
            planes=EDGE_PLANES,
            hostile=_zstd_hostile,
        ),
        Record(
            name="brotli",
            since=16,
            encoders={
                "by hand": brotli_raw,
                "quality 1": _brotli(1),
                "quality 5": _brotli(5),
                "quality 11": _brotli(11),
                "least window": _brotli(9, lgwin=10),
                "flushed": _brotli_flushed,
            },
            planes=EDGE_PLANES,
            hostile=_brotli_hostile,
        ),
    )
}
