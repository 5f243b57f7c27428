"""Every configuration of every codec, in every place a plane can have, by both readers."""

from __future__ import annotations

import pytest
import reference_writer as writer
import zstandard
from records import RECORDS
from strategies import noise

import z4ai
from z4ai._reference import decode_frame
from z4ai.codecs import CODECS

CODEC_IDS = {name: number for number, name in CODECS.items()}
CASES = [(name, encoder) for name, record in RECORDS.items() for encoder in record.encoders]

#: transform -> (dtype, plane that the codec under test gets)
PLACES = [("bytes1", "opaque", 0), ("float2", "bf16", 0), ("bytes2", "int16", 1)]
PLACES += [("float4", "fp32", 2), ("bytes8", "int64", 7), ("float8", "fp64", 1)]


@pytest.mark.parametrize(("codec", "encoder"), CASES)
def test_streams_of_every_codec_decode_in_every_place(codec: str, encoder: str) -> None:
    record = RECORDS[codec]
    compared = 0
    for plane_name, plane in record.planes.items():
        if encoder == "literals" and len(plane) > 1 << 20:
            continue
        stream = (CODEC_IDS[codec], record.encoders[encoder](plane))
        for transform, dtype, place in PLACES:
            width = writer.TRANSFORMS[writer.TRANSFORM_IDS[transform]][1]
            planes = [noise(len(plane), p) for p in range(width)]
            planes[place] = plane
            content = _content(planes, transform)
            streams: list[writer.Codec] = [(0, p) for p in planes]
            streams[place] = stream
            for big_endian in [False, True] if width > 1 else [False]:
                wanted = _reversed(content, width) if big_endian else content
                frame = writer.write_frame(
                    wanted,
                    dtype=dtype,
                    plans=[(transform, streams)],
                    big_endian=big_endian,
                    chunk_nbytes=1 << 26,
                )
                where = (plane_name, transform, big_endian)
                assert z4ai.decompress(frame) == wanted, where
                assert decode_frame(frame).content == wanted, where
                compared += 1
    assert compared == len(record.planes) * (2 * len(PLACES) - 1)


def _content(planes: list[bytes], transform: str) -> bytes:
    from z4ai._reference.planes import interleave

    return interleave(planes, transform)


def _reversed(content: bytes, width: int) -> bytes:
    return b"".join(content[i : i + width][::-1] for i in range(0, len(content), width))


def test_the_encoders_of_zstd_reach_every_kind_of_block() -> None:
    """The planes are worth their name: the library finds matches, and none where there are none."""
    record = RECORDS["zstd"]
    text, few = record.planes["text"], record.planes["weights"]
    assert len(record.encoders["library 3"](text)) < len(text) // 20, "no matches found"
    assert len(record.encoders["literals"](few)) < 0.8 * len(few), "no Huffman code"
    single = zstandard.get_frame_parameters(record.encoders["library 3"](text))
    windowed = zstandard.get_frame_parameters(record.encoders["small window"](text))
    assert single.window_size == single.content_size == len(text)
    assert windowed.window_size == 1024
    assert zstandard.get_frame_parameters(record.encoders["with checksum"](text)).has_checksum
