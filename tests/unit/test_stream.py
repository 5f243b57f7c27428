"""Frames over file objects: memory, and where errors say they are."""

from __future__ import annotations

import io

import numpy as np
import pytest

import z4ai
from z4ai import errors, stream
from z4ai.decoder import index_of_buffer
from z4ai.frame import NO_LIMITS


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
