"""Frames over file objects: memory, and where errors say they are."""

from __future__ import annotations

import io

import numpy as np
import pytest

import z4ai
from z4ai import errors, stream
from z4ai.decoder import index_of_buffer
from z4ai.options import NO_LIMITS


@pytest.mark.parametrize("chunk_nbytes", [16, 1 << 20, 4 << 20, 1 << 26])
@pytest.mark.parametrize("threads", [1, 2, 256])
def test_a_wave_is_bounded_in_chunks_and_in_bytes(threads: int, chunk_nbytes: int) -> None:
    n = stream.wave_chunks(threads, chunk_nbytes)
    assert 1 <= n <= max(8, 4 * threads)
    assert n * chunk_nbytes <= 128 << 20


def test_large_chunks_come_few_at_a_time() -> None:
    # What does not shrink is stored in chunks of 64 MiB.
    content = np.random.default_rng(3).bytes(200 << 20)
    blob = z4ai.compress(content, dtype="int8")
    assert z4ai.info(blob).chunk_nbytes == 1 << 26
    largest = 0

    class Parts(io.BytesIO):
        def write(self, data: object, /) -> int:
            nonlocal largest
            nbytes = memoryview(data).nbytes  # type: ignore[arg-type]
            largest = max(largest, nbytes)
            return nbytes

    assert z4ai.decompress_stream(io.BytesIO(blob), Parts()) == len(content)
    assert largest == 128 << 20


@pytest.mark.parametrize("place", [0, 4, 16, 40])
def test_an_error_of_a_stream_says_where_in_the_file(place: int) -> None:
    content = np.random.default_rng(4).normal(size=6 << 20).astype(np.float16).tobytes()
    packed = io.BytesIO()
    z4ai.compress_stream(io.BytesIO(content), packed, dtype="fp16", threads=1)
    blob = bytearray(packed.getvalue())
    # In the tenth chunk, which is not of the first wave.
    index = index_of_buffer(memoryview(blob), NO_LIMITS)
    assert index.header.nbytes > 32, "a model precedes the chunks"
    begin = int(index.offsets[9])
    blob[begin + place] ^= 0xFF
    with pytest.raises(errors.FormatError) as whole:
        z4ai.decompress(blob)
    with pytest.raises(errors.FormatError) as streamed:
        z4ai.decompress_stream(io.BytesIO(blob), io.BytesIO(), threads=1)
    assert (streamed.value.chunk, whole.value.chunk) == (9, 9)
    if streamed.value.offset is not None:
        assert begin <= streamed.value.offset <= begin + (2 << 20)
    assert streamed.value.offset == whole.value.offset or place == 0


def drifting(n: int) -> bytes:
    """Weights whose scale changes with the place, so that it matters by what they are judged."""
    draws = np.random.default_rng(7)
    scales = np.repeat(np.exp(draws.normal(size=-(-n // 65536))), 65536)[:n]
    return (draws.normal(size=n) * scales).astype(np.float16).tobytes()


@pytest.mark.parametrize("n", [1 << 20, 4 << 20, (5 << 20) + 3, 12 << 20])
def test_any_number_of_threads_streams_the_same_bytes(n: int) -> None:
    content = drifting(n)
    made = set()
    for threads in (1, 3, 7):
        packed = io.BytesIO()
        z4ai.compress_stream(io.BytesIO(content), packed, dtype="fp16", threads=threads)
        made.add(packed.getvalue())
    (blob,) = made
    assert z4ai.decompress(blob) == content


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("dtype", [None, "fp16", "fp32", "int64"])
def test_a_stream_is_taken_for_what_it_is(dtype: str | None, effort: str) -> None:
    draws = np.random.default_rng(8)
    content = {
        None: b"".join(b"%d little words, " % k for k in range(50_000)),
        "fp16": drifting(1 << 18),
        "fp32": draws.normal(0, 0.02, 1 << 17).astype("<f4").tobytes(),
        "int64": np.sort(draws.integers(0, 1 << 20, 1 << 17)).astype("<i8").tobytes(),
    }[dtype]
    if (dtype, effort) == ("int64", "fast"):
        dtype = None  # the library sees in bytes what planes alone do not show
    packed, back = io.BytesIO(), io.BytesIO()
    told = z4ai.compress_stream(io.BytesIO(content), packed, dtype="auto", effort=effort)
    blob = packed.getvalue()
    assert told["dtype"] == z4ai.info(blob).dtype == dtype
    z4ai.decompress_stream(io.BytesIO(blob), back)
    assert back.getvalue() == content
    at_once = z4ai.compress(content, dtype="AUTO", effort=effort)
    assert z4ai.info(at_once).dtype == dtype
    assert z4ai.decompress(at_once) == content
    if dtype is not None:
        assert z4ai.compress(content, dtype=dtype, effort=effort) == at_once


@pytest.mark.parametrize("rows", [0, 1, 100, 5000])
def test_a_stream_has_a_shape_too(rows: int) -> None:
    draws = np.random.default_rng(9)
    scales = np.exp2(draws.integers(0, 6, rows))[:, None]
    matrix = (draws.normal(size=(rows, 1000)) * scales).astype(np.float16)
    sizes = []
    for options in (
        {},
        {"shape": (rows, 1000)},
        {"shape": (rows, 10, 100)},
        {"shape": (rows * 1000,)},
    ):
        packed = io.BytesIO()
        z4ai.compress_stream(io.BytesIO(matrix.tobytes()), packed, dtype="fp16", **options)
        assert z4ai.decompress(packed.getvalue()) == matrix.tobytes()
        sizes.append(len(packed.getvalue()))
    assert sizes[0] == sizes[3]
    if rows >= 100:
        assert max(sizes[1:3]) < 0.995 * sizes[0]


def test_a_shape_that_does_not_fit_a_stream() -> None:
    for shape in ((2, 3), (-1, -8), (9,), ()):
        with pytest.raises(ValueError, match="shape"):
            z4ai.compress_stream(io.BytesIO(bytes(32)), io.BytesIO(), dtype="fp32", shape=shape)
    for shape in ((8,), (2, 4), (1, 1, 8)):
        z4ai.compress_stream(io.BytesIO(bytes(32)), io.BytesIO(), dtype="fp32", shape=shape)
    with pytest.raises(ValueError, match="shape"):
        z4ai.compress_stream(io.BytesIO(bytes(32)), io.BytesIO(), dtype="auto", shape=(8,))


def test_a_wrong_dtype_is_told_before_anything_is_read() -> None:
    source = io.BytesIO(b"abc")
    with pytest.raises(ValueError, match="unknown dtype"):
        z4ai.compress_stream(source, io.BytesIO(), dtype="bf17")
    assert source.tell() == 0


@pytest.mark.parametrize("dtype", ["int8", "fp16", "fp32", None])
def test_a_stream_is_not_larger_than_at_the_tier_below(dtype: str | None) -> None:
    """A model that gains nothing is not written, though the header comes first."""
    draws = np.random.default_rng(14)
    contents = [draws.bytes(3 << 20), draws.normal(size=1 << 18).astype(np.float32).tobytes()]
    for content in (*contents, bytes(1 << 20), b"", b"12345", draws.bytes(5000)):
        sizes = []
        for effort in ("fast", "balanced", "max"):
            packed = io.BytesIO()
            z4ai.compress_stream(io.BytesIO(content), packed, dtype=dtype, effort=effort)
            assert z4ai.decompress(packed.getvalue()) == content
            sizes.append(len(packed.getvalue()))
        assert sizes == sorted(sizes, reverse=True), len(content)
