"""Frames with copies by the reference reader: what docs/format/copies.md says of the frame."""

from __future__ import annotations

from typing import Any

import pytest
from reference_writer import Parts, write_frame
from symbols_writer import Model

from z4ai._reference import decode_array, decode_frame, find_chunks, repeats
from z4ai._reference.repeats import Copy

HEAD = bytes(range(100))
CONTENT = HEAD + b"\xff" + HEAD + b"\xfe" * 55
COPIES = [Copy(101, 0, 100)]
DENSE = HEAD + b"\xff" + b"\xfe" * 55


def with_copies(copies: list[Copy] = COPIES, **options: Any) -> bytes:
    record = repeats.write(copies)
    return write_frame(
        options.pop("dense", DENSE),
        tables=[(2, record), *options.pop("tables", [])],
        header={"content_nbytes": options.pop("content_nbytes", len(CONTENT))},
        **options,
    )


def refused(frame: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_frame(frame)


@pytest.mark.parametrize("chunk_nbytes", [16, 96, 160, 1 << 20])
def test_chunks_hold_what_is_not_copied(chunk_nbytes: int) -> None:
    frame = with_copies(chunk_nbytes=chunk_nbytes)
    decoded = decode_frame(frame)
    assert decoded.content == CONTENT
    assert decoded.header.content_nbytes == 256
    assert decoded.header.dense_nbytes == 156
    assert sum(chunk.content_nbytes for chunk in decoded.chunks) == 156
    assert [size for _, size in find_chunks(frame)] == [c.encoded_nbytes for c in decoded.chunks]


def test_several_copies_of_one_source() -> None:
    copies = [Copy(100 + 100 * k, 33 * (k % 2), 64 + k) for k in range(4)]
    content = HEAD
    for k, (dst, src, nbytes) in enumerate(copies):
        content += bytes([200 + k]) * (dst - len(content)) + content[src : src + nbytes]
    dense = repeats.dense(content, copies)
    frame = with_copies(copies, dense=dense, content_nbytes=len(content), chunk_nbytes=64)
    assert decode_frame(frame).content == content


def test_rows_and_columns_are_those_of_the_dense_content() -> None:
    model = Model(base=300, period=3, columns=[0, 1, 2], contexts=3)
    options: dict[str, Any] = {"dtype": "bf16", "plans": [("symbols2", "store")]}
    frame = with_copies(model=model, chunk_nbytes=64, **options)
    plain = write_frame(DENSE, model=model, chunk_nbytes=64, **options)
    assert decode_frame(frame).content == CONTENT
    assert decode_frame(frame).chunks == decode_frame(plain).chunks


def test_an_array_has_the_shape_of_all_of_its_content() -> None:
    array = decode_array(with_copies(dtype="uint8", shape=(16, 16)))
    assert array.shape == (16, 16)
    assert array.tobytes() == CONTENT
    refused(with_copies(dtype="uint8", shape=(156,)), "does not have 256 bytes")


def test_a_part_has_no_copies() -> None:
    def zeros(part: bytes) -> bytes:
        bitmap = write_frame(b"\xff" * 32)
        return write_frame(
            CONTENT, dtype="uint8", plans=[("zeros", Parts(b"\0", [bitmap, part], 1))]
        )

    assert decode_frame(zeros(write_frame(CONTENT))).content == CONTENT
    refused(zeros(with_copies()), "a part with copies")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (repeats.write([Copy(157, 0, 100)]), "ends behind the content"),
        (repeats.write([Copy(50, 0, 100)]), "has its source at"),
        (repeats.write([]), "0 copies, expected 1"),
        (repeats.write(COPIES) + b"\0", "1 bytes behind the last copy"),
        (repeats.write(COPIES)[:-1], "ends in a varint"),
    ],
)
def test_the_record_is_asked(record: bytes, message: str) -> None:
    """All that it may break is tried in the tests of its own."""
    header = {"content_nbytes": len(CONTENT)}
    good = repeats.write(COPIES)
    assert decode_frame(write_frame(DENSE, tables=[(2, good)], header=header)).content == CONTENT
    refused(write_frame(DENSE, tables=[(2, record)], header=header), message)


def test_a_frame_has_one_record_of_copies_unless_it_is_streamed() -> None:
    record = repeats.write(COPIES)
    refused(with_copies(tables=[(2, record)]), "2 records of copies")
    refused(write_frame(DENSE, tables=[(2, record)], streamed=True), "copies in a streamed frame")


def test_chunks_are_counted_by_what_is_not_copied() -> None:
    refused(with_copies(dense=CONTENT), "has 256 content bytes, expected 156")
    refused(with_copies(dense=DENSE[:-1]), "has 155 content bytes, expected 156")
    frame = with_copies(chunk_nbytes=64, trailer={"content_nbytes": 256})
    refused(frame, "the trailer says 256 content bytes")
