"""`compress` and `decompress`: arguments, and what is promised of them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import strategies
from frames import encode

import z4ai
import z4ai.chunked
from z4ai import errors

CONTENT = strategies.weights(10_001, 2)
FRAME = z4ai.compress(CONTENT, dtype="bf16")


@pytest.mark.parametrize("threads", [0, -1, -(2**70)])
def test_too_few_threads_are_a_value_error(threads: int) -> None:
    for call in _calls():
        with pytest.raises(ValueError, match="threads"):
            call(threads)


@pytest.mark.parametrize("threads", ["x", "2", True, False, 1.5, b"1", [1]])
def test_threads_that_are_no_number_are_a_type_error(threads: object) -> None:
    for call in _calls():
        with pytest.raises(TypeError, match="threads"):
            call(threads)


def _calls() -> list[Any]:
    array = z4ai.compress_array(np.zeros(3))
    return [
        lambda n: z4ai.compress(CONTENT, dtype="bf16", threads=n),
        lambda n: z4ai.compress(CONTENT, threads=n),
        lambda n: z4ai.decompress(FRAME, threads=n),
        lambda n: z4ai.compress_array([1.0], threads=n),
        lambda n: z4ai.decompress_array(array, threads=n),
        lambda n: z4ai.chunked.compress(CONTENT, threads=n),
        lambda n: z4ai.chunked.decompress(FRAME, threads=n),
    ]


def test_threads_of_any_integer_type_and_size() -> None:
    for threads in (1, 3, np.int64(2), np.uint8(2), 10**6, 2**80):
        assert z4ai.compress(CONTENT, dtype="bf16", threads=threads) == FRAME
        assert z4ai.decompress(FRAME, threads=threads) == CONTENT


def test_an_out_that_is_too_small_is_refused_before_it_is_written() -> None:
    for nbytes in (0, 1, 9999, 10_000):
        room = np.full(nbytes + 64, 0xA5, np.uint8)
        with pytest.raises(ValueError, match="out has") as caught:
            z4ai.decompress(FRAME, out=room[:nbytes])
        assert not isinstance(caught.value, errors.Z4Error)
        assert (room == 0xA5).all()


def test_an_out_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(ValueError, match="read-only"):
        z4ai.decompress(FRAME, out=bytes(20_000))
    with pytest.raises(ValueError, match="contiguous"):
        z4ai.decompress(FRAME, out=np.zeros(40_000, np.uint8)[::2])
    with pytest.raises(TypeError):
        z4ai.decompress(FRAME, out="x" * 20_000)


def test_out_is_filled_and_nothing_behind_it() -> None:
    room = np.full(10_001 + 64, 0xA5, np.uint8)
    for nbytes in (10_001, 10_002, 10_065):
        room[:] = 0xA5
        filled = z4ai.decompress(FRAME, out=room[:nbytes])
        assert isinstance(filled, memoryview)
        assert filled == CONTENT
        assert filled.nbytes == len(CONTENT)
        assert (room[10_001:] == 0xA5).all()
        assert np.shares_memory(np.frombuffer(filled, np.uint8), room)


def test_no_out_is_refused_for_an_empty_frame() -> None:
    empty = z4ai.compress(b"", dtype="fp32")
    assert z4ai.decompress(empty) == b""
    filled = z4ai.decompress(empty, out=bytearray())
    assert isinstance(filled, memoryview)
    assert bytes(filled) == b""


@pytest.mark.parametrize("data", ["text", None, 5, [1, 2], np.array([None])], ids=repr)
def test_data_that_are_no_bytes_are_a_type_error(data: Any) -> None:
    for call in (z4ai.compress, z4ai.decompress, z4ai.info, z4ai.peek_is_z4ai):
        with pytest.raises(TypeError):
            call(data)


def test_options_are_keywords() -> None:
    for function in (z4ai.compress, z4ai.decompress, z4ai.compress_array, z4ai.decompress_array):
        first, *rest = inspect.signature(function).parameters.values()
        assert first.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert all(parameter.kind is inspect.Parameter.KEYWORD_ONLY for parameter in rest)


@pytest.mark.parametrize("frame", [b"", b"Z", b"Z4AI", b"PK\3\4", b"\0" * 100, b"ZSTN" + bytes(60)])
def test_what_is_no_frame_is_an_error_of_ours(frame: bytes) -> None:
    for call in (z4ai.decompress, z4ai.decompress_array, z4ai.info):
        with pytest.raises(errors.FormatError):
            call(frame)
    assert not z4ai.peek_is_z4ai(frame)


def test_peeking() -> None:
    assert z4ai.peek_is_z4ai(FRAME)
    assert z4ai.peek_is_z4ai(FRAME[:5])
    assert z4ai.peek_is_z4ai(bytearray(FRAME))
    assert z4ai.peek_is_z4ai(np.frombuffer(FRAME, np.uint8))
    assert not z4ai.peek_is_z4ai(FRAME[:4])
    for version in set(range(256)) - {16}:
        assert not z4ai.peek_is_z4ai(b"Z4AI" + bytes([version]))


def test_the_bound_holds_and_is_near() -> None:
    for nbytes in (0, 1, 100, 1 << 20, 1 << 26, (1 << 26) + 1, 1 << 40, 1 << 62):
        bound = z4ai.compress_bound(nbytes, "bf16")
        assert bound == z4ai.compress_bound(nbytes) == z4ai.compress_bound(nbytes, None)
        assert nbytes + 58 <= bound <= nbytes + 200 + (nbytes >> 20)
    for nbytes in (-1, -(2**70)):
        with pytest.raises(ValueError, match="nbytes"):
            z4ai.compress_bound(nbytes)
    with pytest.raises(ValueError, match="unknown dtype"):
        z4ai.compress_bound(5, "x")


def test_a_buffer_of_many_large_stored_chunks_keeps_the_bound() -> None:
    """Noise over the largest chunks: the header of every chunk counts."""
    content = np.frombuffer(strategies.noise((1 << 26) + 5), np.uint8)
    frame = z4ai.compress(content, dtype="fp32")
    assert len(frame) <= z4ai.compress_bound(len(content), "fp32")
    told = z4ai.info(frame)
    assert told.n_chunks == 2
    assert told.encoded_nbytes == len(frame) <= len(content) + 64 + 61
    assert z4ai.decompress(frame) == content.tobytes()


def test_the_length_need_not_be_a_multiple_of_the_width() -> None:
    for nbytes in range(40):
        content = strategies.noise(nbytes)
        for name in ("bf16", "fp32", "fp64", "complex128"):
            frame = z4ai.compress(content, dtype=name)
            assert z4ai.decompress(frame) == content
            assert len(frame) <= nbytes + 64


def test_gains_are_real() -> None:
    """The tests of sizes would pass if everything were stored."""
    content = strategies.weights(1 << 20, 2)
    for name in ("bf16", "int16"):
        for effort in ("fast", "balanced", "max"):
            assert len(z4ai.compress(content, dtype=name, effort=effort)) < 0.75 * len(content)
    assert len(z4ai.compress(bytes(1 << 20), dtype="fp32")) < 100
    assert len(encode(content, dtype="bf16", chunk_nbytes=4096)) < 0.9 * len(content)


def test_the_bound_is_an_integer_of_an_integer() -> None:
    assert type(z4ai.compress_bound(np.int32(2**31 - 1))) is int
    assert z4ai.compress_bound(np.uint8(255)) == z4ai.compress_bound(255) > 255
    with pytest.raises(TypeError):
        z4ai.compress_bound(1.5)  # type: ignore[arg-type]


def test_what_is_guessed_has_no_shape_yet() -> None:
    content = strategies.weights(4000, 4)
    with pytest.raises(ValueError, match="shape"):
        z4ai.compress(content, dtype="auto", shape=(10, 100))
    assert z4ai.compress_bound(4000, "auto") == z4ai.compress_bound(4000, "fp32")
    for nbytes in (0, 1, 4095):
        blob = z4ai.compress(content[:nbytes], dtype="auto")
        assert z4ai.info(blob).dtype is None, "too little to tell"
        assert z4ai.decompress(blob) == content[:nbytes]


@pytest.mark.parametrize("gain", [0, 20, 40, 70])
@pytest.mark.parametrize("dtype", [None, "bf16", "fp64"])
def test_a_little_gain_over_several_chunks_is_not_lost_in_their_headers(
    gain: int, dtype: str | None
) -> None:
    noise = np.random.default_rng(gain).bytes((2 << 20) + 5)
    content = noise[: len(noise) - 2 * gain] + bytes(2 * gain)
    blob = z4ai.compress(content, dtype=dtype)
    assert len(blob) <= len(content) + 57
    assert z4ai.decompress(blob) == content


def test_finding_the_chunks_of_a_frame_reads_its_ends_alone() -> None:
    from z4ai.decoder import index_of_range
    from z4ai.options import Limits

    rng = np.random.default_rng(1)
    values = rng.normal(0, rng.uniform(0.01, 0.1, (2048, 1)), (2048, 512)).astype(np.float32)
    blob = memoryview(z4ai.compress_array(values))
    header_nbytes = z4ai.info(blob).header_nbytes
    assert header_nbytes > 256  # more than the first guess
    reads: list[int] = []

    def read(offset: int, nbytes: int) -> memoryview:
        reads.append(nbytes)
        return blob[offset : offset + nbytes]

    assert index_of_range(read, len(blob), Limits()).nbytes == len(blob)
    assert sum(reads) < header_nbytes + 1024
