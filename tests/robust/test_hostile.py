"""Frames that lie, with every checksum right: each breaks one rule, and is refused cheaply."""

from __future__ import annotations

import io
import itertools
import struct
import subprocess
import sys
import textwrap
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import reference_writer as writer
from frames import encode, samples
from records import RECORDS
from reference_writer import varint, write_chunk, write_frame, write_header, write_trailer
from strategies import noise, weights

import z4ai
import z4ai.chunked
from z4ai import errors
from z4ai._reference import decode_frame
from z4ai.codecs import CODECS

CODEC_IDS = {name: number for number, name in CODECS.items()}
U64 = 2**64 - 1

# Python's own objects around a frame of a few hundred bytes, and the scratch of one decoder.
MOST_MEMORY = 4 << 20
MOST_SECONDS = 5.0


def refused(frame: bytes, expected: type[Exception] | tuple[type[Exception], ...]) -> None:
    """Every reader refuses the frame, in little time and memory; the reference agrees."""
    readers: list[Callable[[], Any]] = [
        lambda: z4ai.decompress(frame),
        lambda: z4ai.decompress(frame, threads=3),
        lambda: z4ai.decompress(frame, out=bytearray(1 << 20)),
        lambda: z4ai.decompress_stream(io.BytesIO(frame), io.BytesIO()),
    ]
    for reader in readers:
        begun = time.perf_counter()
        tracemalloc.start()
        try:
            with pytest.raises(errors.Z4Error) as caught:
                reader()
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert isinstance(caught.value, ValueError)
        assert peak < MOST_MEMORY + 2 * len(frame)
        assert time.perf_counter() - begun < MOST_SECONDS
        if reader is not readers[3]:  # a pipe has no end to look at: it may find another reason
            assert isinstance(caught.value, expected), repr(caught.value)
    with pytest.raises(ValueError, match=r"."):
        decode_frame(frame)


# --- Headers --------------------------------------------------------------------------------------

HEADERS: dict[str, tuple[dict[str, Any], Any]] = {
    "content of 2^63": ({"content_nbytes": 1 << 63}, errors.CorruptError),
    "content of 2^64 - 1, not streamed": ({"content_nbytes": U64}, errors.CorruptError),
    "content of 2^63 - 1": ({"content_nbytes": (1 << 63) - 1}, errors.TruncatedError),
    "content of 2^40": ({"content_nbytes": 1 << 40}, errors.TruncatedError),
    "content of one byte more": ({"content_nbytes": 65}, errors.FormatError),
    "content of one byte less": ({"content_nbytes": 63}, errors.FormatError),
    "no content": ({"content_nbytes": 0}, errors.CorruptError),
    "chunks of zero bytes": ({"chunk_nbytes": 0}, errors.CorruptError),
    "chunks of 8 bytes": ({"chunk_nbytes": 8}, errors.CorruptError),
    "chunks of 2^26 + 16 bytes": ({"chunk_nbytes": (1 << 26) + 16}, errors.CorruptError),
    "chunks of 2^32 - 16 bytes": ({"chunk_nbytes": 2**32 - 16}, errors.CorruptError),
    "more chunks than there are": ({"chunk_nbytes": 16}, errors.FormatError),
    "reserved flag 16": ({"flags": 16}, errors.CorruptError),
    "reserved flag 128": ({"flags": 128}, errors.CorruptError),
    "fortran without array": ({"flags": 2}, errors.CorruptError),
    "streamed with a size": ({"flags": 8}, errors.CorruptError),
    "streamed array": ({"flags": 9, "content_nbytes": U64}, errors.CorruptError),
    "big-endian bytes": ({"flags": 4, "dtype": 3}, errors.CorruptError),
    "an array of opaque bytes": ({"flags": 1, "dtype": 0}, errors.CorruptError),
    "an array of no shape": ({"flags": 1, "dtype": 18}, errors.CorruptError),
    "dimensions without array": ({"ndim": 1, "shape": b"\x40"}, errors.CorruptError),
    "65 dimensions": ({"flags": 1, "ndim": 65, "shape": b"\1" * 65}, errors.CorruptError),
    "255 dimensions": ({"flags": 1, "ndim": 255, "shape": b"\1" * 255}, errors.CorruptError),
    "dtype 10": ({"dtype": 10}, errors.UnsupportedCodecError),
    "dtype 255": ({"dtype": 255}, errors.UnsupportedCodecError),
    "a table record of kind 0": ({"tables": struct.pack("<HHI", 0, 0, 0)}, errors.FormatError),
    "a table record of kind 32767": (
        {"tables": struct.pack("<HHI", 32767, 0, 0)},
        errors.UnsupportedCodecError,
    ),
    "a table record cut short": ({"tables": bytes([0, 128, 0])}, errors.CorruptError),
    "a table record too long": (
        {"tables": struct.pack("<HHI", 40000, 0, 1)},
        errors.CorruptError,
    ),
    "a table record of 2^32 - 1 bytes": (
        {"tables": struct.pack("<HHI", 40000, 0, 2**32 - 1)},
        errors.CorruptError,
    ),
    "a reserved field of a record": (
        {"tables": struct.pack("<HHI", 40000, 1, 0)},
        errors.CorruptError,
    ),
    "tables of 2^32 - 1 bytes": ({"tables_nbytes": 2**32 - 1}, errors.Z4Error),
    "tables of 100 MiB": ({"tables_nbytes": 100 << 20}, errors.TruncatedError),
    "magic": ({"magic": b"Z4AJ"}, errors.FormatError),
    "checksum": ({"checksum": 1}, errors.ChecksumError),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_breaks_one_rule_is_refused(name: str) -> None:
    fields, expected = HEADERS[name]
    refused(write_frame(noise(64), dtype="fp32", header=fields), expected)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        (b"\x90\x00", "not the shortest form"),
        (b"\x80" * 9 + b"\x02", "2^64"),
        (b"\xff" * 9 + b"\x7f", "70 bits"),
        (b"\x80" * 10 + b"\x01", "eleven bytes"),
        (b"\xff" * 20, "no end"),
        (varint(U64), "2^64 - 1 elements"),
        (varint(15), "too few"),
        (varint(17), "too many"),
    ],
)
def test_a_varint_that_breaks_a_rule_is_refused(shape: bytes, why: str) -> None:
    fields = {"flags": 1, "ndim": 1, "shape": shape}
    refused(write_frame(noise(64), dtype="fp32", header=fields), errors.FormatError)


def test_a_product_of_dimensions_does_not_wrap() -> None:
    for shape in ((1 << 32, 1 << 32), (1 << 63, 2), (U64, U64, 16), (0, U64, 3), (1 << 62,) * 64):
        extents = b"".join(varint(extent) for extent in shape)
        fields = {"flags": 1, "ndim": len(shape), "shape": extents}
        refused(write_frame(noise(64), dtype="fp32", header=fields), errors.CorruptError)


def test_an_empty_array_may_be_as_wide_as_it_likes_but_not_as_numpy_dislikes() -> None:
    """A legal shape that NumPy cannot hold is a z4ai error too, if it is not an array."""
    shape = (0, 1 << 62, 1 << 62)
    frame = write_frame(b"", dtype="fp32", shape=shape)
    assert z4ai.decompress(frame) == b""
    assert z4ai.info(frame).shape == shape
    with pytest.raises(errors.Z4Error):
        z4ai.decompress_array(frame)


@pytest.mark.parametrize("version", [0, *range(4, 16), 17, 255])
def test_unknown_versions_are_refused(version: int) -> None:
    frame = write_frame(noise(64), header={"version": version})
    with pytest.raises(errors.UnsupportedVersionError, match=f"version {version}"):
        z4ai.decompress(frame)


@pytest.mark.parametrize("version", [1, 2, 3])
def test_frames_of_the_earlier_package_say_where_they_come_from(version: int) -> None:
    for frame in (write_frame(noise(64), header={"version": version}), b"Z4AI" + bytes([version])):
        for reader in (z4ai.decompress, z4ai.decompress_array, z4ai.info):
            with pytest.raises(errors.UnsupportedVersionError, match="earlier package") as caught:
                reader(frame)
            assert "PyPI" in str(caught.value)
        assert not z4ai.peek_is_z4ai(frame)


def test_other_frames_of_the_earlier_package_say_where_they_come_from() -> None:
    with pytest.raises(errors.UnsupportedVersionError, match="earlier package"):
        z4ai.decompress(b"Z4AIMF01" + noise(64))


# --- Chunks ---------------------------------------------------------------------------------------

CONTENT = weights(160, 2)
CHUNKS: dict[str, tuple[dict[str, Any], Any]] = {
    "encoded size 0": ({"encoded_nbytes": 0}, errors.FormatError),
    "encoded size 25": ({"encoded_nbytes": 25}, errors.FormatError),
    "encoded size one too few": ({"encoded_nbytes": 93}, errors.FormatError),
    "encoded size one too many": ({"encoded_nbytes": 95}, errors.FormatError),
    "encoded size 2^32 - 1": ({"encoded_nbytes": 2**32 - 1}, errors.FormatError),
    "no content": ({"content_nbytes": 0}, errors.CorruptError),
    "content of 2^32 - 1": ({"content_nbytes": 2**32 - 1}, errors.CorruptError),
    "content one too few": ({"content_nbytes": 63}, errors.CorruptError),
    "content one too many": ({"content_nbytes": 65}, errors.CorruptError),
    "transform 7": ({"transform": 7}, errors.CorruptError),  # there is no model, nor its width
    "transform 12": ({"transform": 12}, errors.UnsupportedCodecError),
    "transform 15": ({"transform": 15}, errors.UnsupportedCodecError),
    "transform 21": ({"transform": 21}, errors.UnsupportedCodecError),
    "transform 24, of delta frames": ({"transform": 24}, errors.CorruptError),
    "transform 25, of delta frames": ({"transform": 25}, errors.CorruptError),
    "transform 29, of delta frames": ({"transform": 29}, errors.CorruptError),
    "transform 255": ({"transform": 255}, errors.UnsupportedCodecError),
    "transform of another width": ({"transform": 5}, errors.CorruptError),
    "no streams": ({"n_streams": 0}, errors.CorruptError),
    "one stream": ({"n_streams": 1}, errors.CorruptError),
    "255 streams": ({"n_streams": 255}, errors.CorruptError),
    "parameters": ({"params": b"\0"}, errors.CorruptError),
    "parameters of 65535 bytes": ({"params_nbytes": 65535}, errors.CorruptError),
    "another checksum": ({"checksum": 7}, errors.ChecksumError),
    "the checksum of another place": (
        {"checksum": writer.xxh3(CONTENT[:64], 64)},
        errors.ChecksumError,
    ),
    "codec 3, of other transforms": ({"streams": [(3, noise(32))] * 2}, errors.CorruptError),
    "codec 4, of other transforms": (
        {"streams": [(0, noise(32)), (4, noise(32))]},
        errors.CorruptError,
    ),
    "codec 6": ({"streams": [(6, noise(32))] * 2}, errors.UnsupportedCodecError),
    "codec 254": ({"streams": [(254, noise(32))] * 2}, errors.UnsupportedCodecError),
    "codec 255": ({"streams": [(255, noise(32)), (0, noise(32))]}, errors.UnsupportedCodecError),
    "a tail": ({"tail": b"\0"}, errors.CorruptError),
    "streams swapped": (
        {"streams": [(0, p) for p in reversed(writer.split(CONTENT[:64], "float2"))]},
        errors.ChecksumError,
    ),
}


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "among others"])
@pytest.mark.parametrize("name", CHUNKS)
def test_a_chunk_that_breaks_one_rule_is_refused(name: str, alone: bool) -> None:
    fields, expected = CHUNKS[name]
    content = CONTENT[:64] if alone else CONTENT
    plans = [("float2", "store")]
    valid = write_frame(content, dtype="bf16", plans=plans, chunk_nbytes=64)
    assert z4ai.decompress(valid) == content
    frame = write_frame(content, dtype="bf16", plans=plans, chunk_nbytes=64, chunks={0: fields})
    refused(frame, expected)


def _with_stream_sizes(sizes: tuple[int, int]) -> bytes:
    """A frame whose two streams claim these sizes; everything else is as it must be."""
    frame = bytearray(write_frame(CONTENT[:64], dtype="bf16", plans=[("float2", "store")]))
    at = 32 + 20
    assert struct.unpack_from("<BIBI", frame, at) == (0, 32, 0, 32)
    struct.pack_into("<BIBI", frame, at, 0, sizes[0], 0, sizes[1])
    return bytes(frame)


@pytest.mark.parametrize(
    "sizes",
    [(31, 33), (33, 31), (0, 64), (64, 0), (2**32 - 1, 65), (2**32 - 32, 96), (32, 33), (32, 31)],
)
def test_streams_that_overlap_or_leave_holes_are_refused(sizes: tuple[int, int]) -> None:
    refused(_with_stream_sizes(sizes), errors.CorruptError)


def test_a_chunk_of_another_frame_in_the_wrong_place_is_refused() -> None:
    first, second = (write_chunk(CONTENT[:64], offset=at) for at in (0, 64))
    head = write_header(content_nbytes=128, chunk_nbytes=64)
    checksum = int.from_bytes(head[-8:], "little")
    tail = write_trailer([len(first), len(second)], 128, checksum)
    assert z4ai.decompress(head + first + second + tail) == CONTENT[:64] * 2
    refused(head + second + first + tail, errors.ChecksumError)
    refused(head + first + first + tail, errors.ChecksumError)


@pytest.mark.parametrize(
    ("codec", "why"),
    [(name, why) for name, r in RECORDS.items() for why, _, _ in r.hostile(r.planes["zeros"])],
)
def test_a_stream_that_its_codec_refuses_is_refused(codec: str, why: str) -> None:
    record = RECORDS[codec]
    tried = 0
    for plane in record.planes.values():
        stream, expected = next(
            ((s, e) for w, s, e in record.hostile(plane) if w == why), (None, "")
        )
        if stream is None or not 3 <= len(plane) <= 5000:
            continue  # of a byte or two some lies are the truth
        number = CODEC_IDS[codec]
        for streams, transform in (
            ([(number, stream)], "bytes1"),
            ([(number, stream), (0, noise(len(plane)))], "float2"),
            ([(0, noise(len(plane))), (number, stream)], "bytes2"),
        ):
            content = bytes(len(plane) * len(streams))
            frame = write_frame(
                content, dtype="int16", plans=[(transform, streams)], chunk_nbytes=1 << 20
            )
            refused(frame, getattr(errors, expected))
        tried += 1
        if tried == 3:
            break
    assert tried


# --- Trailers -------------------------------------------------------------------------------------

TRAILERS: dict[str, tuple[dict[str, Any], Any]] = {
    "end is not zero": ({"end": 1}, errors.FormatError),
    "a size one too large": ({"sizes": [91, 91, 58]}, errors.FormatError),
    "two sizes that make up for each other": ({"sizes": [91, 89, 58]}, errors.FormatError),
    "sizes of zero": ({"sizes": [0, 0, 0]}, errors.FormatError),
    "sizes of 2^32 - 1": ({"sizes": [2**32 - 1] * 3}, errors.FormatError),
    "a size too many": ({"sizes": [90, 90, 58, 0]}, errors.FormatError),
    "a size too few": ({"sizes": [90, 90]}, errors.FormatError),
    "n_chunks 0": ({"n_chunks": 0}, errors.FormatError),
    "n_chunks 2": ({"n_chunks": 2}, errors.FormatError),
    "n_chunks 4": ({"n_chunks": 4}, errors.FormatError),
    "n_chunks 2^62": ({"n_chunks": 1 << 62}, errors.FormatError),
    "n_chunks 2^64 - 1": ({"n_chunks": U64}, errors.FormatError),
    "content one too few": ({"content_nbytes": 159}, errors.FormatError),
    "content one too many": ({"content_nbytes": 161}, errors.FormatError),
    "content of 2^64 - 1": ({"content_nbytes": U64}, errors.FormatError),
    "content of zero": ({"content_nbytes": 0}, errors.FormatError),
    "checksum": ({"checksum": 0}, errors.ChecksumError),
    "magic": ({"magic": b"IA4X"}, errors.FormatError),
}


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", TRAILERS)
def test_a_trailer_that_breaks_one_rule_is_refused(name: str, streamed: bool) -> None:
    fields, expected = TRAILERS[name]
    valid = write_frame(CONTENT, chunk_nbytes=64, streamed=streamed)
    assert z4ai.decompress(valid) == CONTENT
    head = len(write_header(content_nbytes=160))
    assert [struct.unpack_from("<I", valid, head + at)[0] for at in (0, 89, 178)] == [89, 89, 57]
    if "sizes" in fields:
        fields = {**fields, "sizes": [max(size - 1, 0) for size in fields["sizes"]]}
    frame = write_frame(CONTENT, chunk_nbytes=64, streamed=streamed, trailer=fields)
    refused(frame, expected)


def test_the_trailer_of_another_frame_is_refused() -> None:
    one, other = (write_frame(CONTENT, chunk_nbytes=64, dtype=d) for d in ("int8", "uint8"))
    tail = 32 + 4 * 3
    refused(one[:-tail] + other[-tail:], errors.ChecksumError)


def test_a_missing_and_a_needless_trailer_are_refused() -> None:
    refused(write_frame(CONTENT, chunk_nbytes=64, with_trailer=False), errors.TruncatedError)
    refused(write_frame(CONTENT, streamed=True, with_trailer=False), errors.TruncatedError)
    refused(write_frame(CONTENT, with_trailer=True), errors.FormatError)
    refused(write_frame(b"", with_trailer=True), errors.FormatError)


@pytest.mark.parametrize("streamed", [False, True])
def test_chunks_of_uneven_sizes_are_refused(streamed: bool) -> None:
    for cut in ((32, 64, 64), (64, 32, 64), (64, 64, 16, 16), (65, 63, 32), (64, 96)):
        at = np.cumsum((0, *cut)).tolist()
        pieces = [CONTENT[begin:end] for begin, end in itertools.pairwise(at)]
        frame = write_frame(CONTENT, chunk_nbytes=64, streamed=streamed, pieces=pieces)
        refused(frame, errors.FormatError)


# --- Memory and time ------------------------------------------------------------------------------


def test_a_tiny_frame_with_much_content_meets_the_limit() -> None:
    """Constant planes make 64 MiB of 27 bytes: the limit is what bounds memory."""
    frame = encode_constant(1 << 26)
    assert len(frame) < 100
    assert z4ai.info(frame).content_nbytes == 1 << 26
    tracemalloc.start()
    try:
        for reader in (z4ai.decompress, z4ai.chunked.decompress):
            with pytest.raises(errors.LimitError) as caught:
                reader(frame, limits=z4ai.Limits(max_output_nbytes=(1 << 26) - 1))
            assert caught.value.option == "max_output_nbytes"
            assert "max_output_nbytes" in str(caught.value)
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()
    assert z4ai.decompress(frame, limits=z4ai.Limits(max_output_nbytes=1 << 26)) == bytes(1 << 26)


def encode_constant(nbytes: int) -> bytes:
    head = write_header(content_nbytes=nbytes, chunk_nbytes=1 << 26)
    chunk = write_chunk(bytes(nbytes), plan=("bytes1", "constant"))
    return head + chunk


def test_an_array_meets_the_limit_too() -> None:
    frame = z4ai.compress_array(np.zeros(1 << 20, np.float32))
    with pytest.raises(errors.LimitError):
        z4ai.decompress_array(frame, limits=z4ai.Limits(max_output_nbytes=(4 << 20) - 1))


def test_tables_meet_their_limit() -> None:
    limits = z4ai.Limits(max_table_nbytes=11)
    frame = write_frame(CONTENT, chunk_nbytes=64)
    for reader in (z4ai.decompress, z4ai.info):
        with pytest.raises(errors.LimitError) as caught:
            reader(frame, limits=limits)
        assert caught.value.option == "max_table_nbytes"
    assert z4ai.decompress(frame, limits=z4ai.Limits(max_table_nbytes=12)) == CONTENT
    frame = write_frame(CONTENT, tables=[(40000, bytes(4))])
    with pytest.raises(errors.LimitError):
        z4ai.decompress(frame, limits=limits)
    assert z4ai.decompress(frame, limits=z4ai.Limits(max_table_nbytes=12)) == CONTENT


def test_an_output_buffer_that_is_given_needs_no_limit() -> None:
    frame = encode_constant(1 << 20)
    out = bytearray(1 << 20)
    limits = z4ai.Limits(max_output_nbytes=0)
    assert len(z4ai.decompress(frame, out=out, limits=limits)) == 1 << 20


def test_claims_allocate_nothing_in_a_process_that_has_nothing_to_give() -> None:
    """Frames of a few bytes that claim much, under an address space limit."""
    pytest.importorskip("resource")
    claims = [
        write_frame(noise(64), header={"content_nbytes": nbytes}) for nbytes in (1 << 62, 1 << 40)
    ]
    claims += [write_frame(noise(64), header={"tables_nbytes": n}) for n in (2**32 - 1, 200 << 20)]
    claims += [write_frame(CONTENT, chunk_nbytes=64, streamed=True, trailer={"n_chunks": 1 << 40})]
    claims += [
        write_frame(CONTENT, chunk_nbytes=64, streamed=True, trailer={"content_nbytes": 1 << 62})
    ]
    claims += [
        write_frame(bytes(64), plans=[("bytes1", [(2, stream)])])
        for why, stream, _ in RECORDS["zstd"].hostile(bytes(64))
        if "window" in why or "2^6" in why or "bomb" in why
    ]
    assert len(claims) >= 10
    program = textwrap.dedent("""
        import resource, sys, z4ai
        z4ai.decompress(z4ai.compress(bytes(5000), dtype="bf16"))
        import zstandard
        used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20),) * 2)
        for line in sys.stdin:
            try:
                z4ai.decompress(bytes.fromhex(line))
            except z4ai.errors.Z4Error as error:
                print(type(error).__name__)
    """)
    ran = subprocess.run(
        [sys.executable, "-c", program],
        input="\n".join(claim.hex() for claim in claims),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.split()) == len(claims)


def test_many_tiny_chunks_take_time_and_memory_in_proportion() -> None:
    nbytes = 16 * 4_000
    frame = write_frame(bytes(nbytes), plans=[("bytes1", "constant")], chunk_nbytes=16)
    begun = time.perf_counter()
    tracemalloc.start()
    try:
        assert z4ai.decompress(frame) == bytes(nbytes)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY + 20 * len(frame)
    assert time.perf_counter() - begun < MOST_SECONDS


def test_a_stream_of_empty_blocks_takes_linear_time() -> None:
    empty = struct.pack("<I", 0)[:3]
    stream = struct.pack("<IBQ", 0xFD2FB528, 3 << 6 | 1 << 5, 64) + empty * 20_000
    frame = write_frame(bytes(64), plans=[("bytes1", [(2, stream)])])
    begun = time.perf_counter()
    with pytest.raises(errors.FormatError):
        z4ai.decompress(frame)
    assert time.perf_counter() - begun < 1


def test_a_failed_decode_leaves_the_library_as_it_was() -> None:
    good = samples()["coded fp32"]
    bad = bytearray(good.frame)
    bad[-1] ^= 1
    for threads in (1, 2):
        for _ in range(20):
            with pytest.raises(errors.ChecksumError):
                z4ai.decompress(bad, threads=threads)
            assert z4ai.decompress(good.frame, threads=threads) == good.content


def test_the_lowest_chunk_that_fails_is_named() -> None:
    content = weights(64 * 40, 2)
    frame = bytearray(encode(content, dtype="bf16", chunk_nbytes=64))
    sizes = [c.encoded_nbytes for c in decode_frame(bytes(frame)).chunks]
    for k in (31, 7, 22):
        frame[32 + sum(sizes[: k + 1]) - 1] ^= 1
    for threads in (1, 2, 5):
        with pytest.raises(errors.ChecksumError) as caught:
            z4ai.decompress(frame, threads=threads)
        assert caught.value.chunk == 7
