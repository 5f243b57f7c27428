"""What is told of a frame without decoding it."""

from __future__ import annotations

import numpy as np
import pytest
import strategies
from frames import encode, samples

import z4ai
from z4ai import errors
from z4ai._reference import decode_frame


def test_every_sample_is_described_as_the_reference_reads_it() -> None:
    compared = 0
    for name, sample in samples().items():
        told = z4ai.info(sample.frame)
        frame = decode_frame(sample.frame)
        assert told.format_version == 16
        assert told.dtype == (frame.header.dtype_name if frame.header.dtype else None), name
        assert told.shape == (frame.header.shape if frame.header.array else None)
        assert told.order == (frame.header.order if frame.header.array else None)
        assert told.byteorder == (">" if frame.header.big_endian else "<")
        assert told.content_nbytes == len(sample.content)
        assert told.encoded_nbytes == len(sample.frame)
        assert told.chunk_nbytes == frame.header.chunk_nbytes
        assert told.n_chunks == len(frame.chunks)
        for plane in told.planes:
            with_it = [c for c in frame.chunks if len(c.streams) > plane.plane]
            streams = [c.streams[plane.plane] for c in with_it]
            assert sum(plane.codecs.values()) == len(streams)
            assert plane.encoded_nbytes == sum(len(s.encoded) for s in streams)
            assert plane.content_nbytes == sum(c.content_nbytes // len(c.streams) for c in with_it)
            compared += 1
    assert compared > 100


def test_ratios() -> None:
    told = z4ai.info(z4ai.compress(bytes(10_000), dtype="fp32"))
    assert told.ratio == told.content_nbytes / told.encoded_nbytes > 100
    assert told.planes[0].ratio == 2500 / told.planes[0].encoded_nbytes
    empty = z4ai.info(z4ai.compress(b""))
    assert empty.ratio == 0
    assert empty.planes == ()
    assert told.planes[0]._replace(encoded_nbytes=0).ratio == 1


def test_codecs_are_named() -> None:
    content = strategies.weights(40_000, 4)
    told = z4ai.info(encode(content, dtype="fp32", chunk_nbytes=16_000))
    assert [plane.plane for plane in told.planes] == [0, 1, 2, 3]
    assert told.planes[0].codecs == {"zstd": 3}
    assert told.planes[3].codecs == {"store": 3}


def test_nothing_is_decoded() -> None:
    """Damage in a stream is not looked for; damage in what is told is."""
    content = strategies.noise(64)
    frame = bytearray(z4ai.compress(content))
    frame[-1] ^= 1
    assert z4ai.info(frame).content_nbytes == 64
    with pytest.raises(errors.ChecksumError):
        z4ai.decompress(frame)
    huge = z4ai.compress(np.zeros(1 << 26, np.uint8), dtype="uint8")
    assert z4ai.info(huge, limits=z4ai.Limits(max_output_nbytes=0)).content_nbytes == 1 << 26


def test_it_takes_any_buffer() -> None:
    frame = z4ai.compress(b"abc")
    for form in (frame, bytearray(frame), memoryview(frame), np.frombuffer(frame, np.uint8)):
        assert z4ai.info(form) == z4ai.info(frame)
