"""What is told of a frame without decoding it."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import strategies
from frames import encode, samples

import z4ai
from z4ai import dtypes, errors, parts
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


def test_what_the_chunks_share_is_told() -> None:
    draws = np.random.default_rng(9)
    scales = np.exp2(np.arange(64)) * np.exp2(np.arange(64))[:, None]
    weights = (draws.normal(size=(64, 64, 64)) * (scales[:, :, None] ** 0.1)).astype(np.float32)
    told = z4ai.info(z4ai.compress(weights, dtype="fp32", shape=(64, 4096)))
    assert told.model is not None
    assert told.model.rows
    assert told.model.n_contexts > 1
    assert told.transforms == {"symbols4": 1}
    assert told.planes[0].codecs == {"contexts": 1}
    assert (told.parts, told.copies) == ((), None)
    fast = z4ai.info(z4ai.compress(weights, dtype="fp32", effort="fast"))
    assert fast.model is None
    assert fast.transforms == {"float4": 1}
    assert told.header_nbytes > fast.header_nbytes == 32


def test_copies_are_told() -> None:
    content = strategies.noise(100_000)
    told = z4ai.info(z4ai.compress(content * 3, dtype="int8"))
    assert told.copies is not None
    assert told.copies.n_copies == 2
    assert 199_000 < told.copies.nbytes <= 200_000
    assert told.content_nbytes == 300_000
    assert told.planes[0].content_nbytes == 300_000 - told.copies.nbytes


def test_parts_are_told() -> None:
    values = np.random.default_rng(10).normal(size=3 << 20).astype(np.float32)
    values[np.random.default_rng(11).random(3 << 20) < 0.7] = 0
    told = z4ai.info(z4ai.compress(values, dtype="fp32"))
    assert told.transforms == {"zeros": 3}
    assert [(part.transform, part.part) for part in told.parts] == [("zeros", 0), ("zeros", 1)]
    bitmap, dense = told.parts
    assert bitmap.content_nbytes == len(values) // 8
    assert dense.content_nbytes == 4 * np.count_nonzero(values)
    assert dense.dtypes == {"fp32": 3}
    assert sum(part.encoded_nbytes for part in told.parts) < told.encoded_nbytes
    assert told.planes == ()


def test_a_damaged_part_is_told_where_it_lies() -> None:
    values = np.where(np.random.default_rng(12).random(1 << 16) < 0.5, 0, 1.1).astype(np.float32)
    values += values * np.random.default_rng(13).normal(size=1 << 16).astype(np.float32)
    blob = bytearray(z4ai.compress(values, dtype="fp32"))
    assert z4ai.info(blob).transforms == {"zeros": 1}
    at = blob.rindex(b"Z4AI")
    blob[at + 20] ^= 1  # in a header of a part
    with pytest.raises(errors.FormatError) as caught:
        z4ai.info(blob)
    assert caught.value.offset is not None
    assert at <= caught.value.offset < at + 64


def test_transforms_have_the_names_of_the_registry() -> None:
    page = Path(__file__).parents[2] / "docs" / "format" / "ids.md"
    table = page.read_text("utf-8").split("## Transforms of a chunk")[1].split("##")[0]
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", table, re.MULTILINE)
    assert {int(number): name for number, name in rows} == dtypes.TRANSFORMS
    assert {t: name for t, name in dtypes.TRANSFORMS.items() if 16 <= t < 24} == parts.STAGES
