"""The worked examples of docs/format, byte for byte.

An example is a fenced block behind a comment ``<!-- example: NAME -->``; a line is hex, then its
meaning behind two spaces. Each is decoded by the reference reader and by z4ai, and must be exactly
what the reference writer makes of the content that the page names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from reference_writer import (
    Tensor,
    safetensors_file,
    safetensors_header,
    write_container,
    write_frame,
)
from symbols_writer import Model

import z4ai
from z4ai._reference import decode_array, decode_frame, open_container

PAGES = Path(__file__).resolve().parents[2] / "docs" / "format"
EXAMPLE = re.compile(r"^<!-- example: (\S+) -->\n```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!-- example: (\S+) -->")
LINE = re.compile(r"([0-9A-F]{2}(?: [0-9A-F]{2})*)(?:  \S.*)?")

CHUNK = {"chunk_nbytes": 1 << 20}
BF16 = bytes.fromhex("803f a03f c03f e03f 80bf a0bf c0bf e0bf")
RLE = bytes.fromhex("28b52ffd 20 08 43 00 00 7f")

TENSORS = [Tensor("e", "F32", (0,), b""), Tensor("w", "BF16", (2,), bytes.fromhex("803f0040"))]
JSON = safetensors_header(TENSORS, order=[1, 0], padding=4)


class Frame(NamedTuple):
    """A frame of a page: its content, and how the writer makes it."""

    content: bytes
    options: dict[str, Any]


FRAMES_OF_FRAME = {
    "bf16-odd": Frame(b"\x80\x3f\x00\x40\x40\x40\xff", {"dtype": "bf16", **CHUNK}),
    "bf16-array": Frame(
        BF16,
        {"dtype": "bf16", "shape": (2, 4), "plans": [("float2", [(2, RLE), "store"])], **CHUNK},
    ),
    "int16-streamed": Frame(
        b"\x01\x02" * 9 + b"\x03",
        {
            "dtype": "int16",
            "streamed": True,
            "chunk_nbytes": 16,
            "plans": [("bytes2", "constant"), ("bytes1", "store")],
        },
    ),
}
FRAMES_OF_SYMBOLS = {
    "bf16-columns": Frame(
        bytes.fromhex("803f 003e c1bf 203e 803f 01be 805f 0000 ff"),
        {
            "dtype": "bf16",
            "plans": [("symbols2", "store")],
            "model": Model(base=490, contexts=2, period=2, columns=[0, 1], precision=2),
            **CHUNK,
        },
    ),
}
FRAMES = {
    "frame.md": FRAMES_OF_FRAME,
    "codecs/symbols.md": FRAMES_OF_SYMBOLS,
}
CASES = [(page, name) for page, frames in FRAMES.items() for name in frames]
CONTAINERS: dict[str, Callable[[], bytes]] = {
    "two-tensors": lambda: write_container(
        TENSORS, json_header=JSON, frame_options=CHUNK, index_options=CHUNK
    ),
}


def examples(page: str) -> dict[str, bytes]:
    """The bytes of each example of a page."""
    text = (PAGES / page).read_text(encoding="utf-8")
    found = EXAMPLE.findall(text)
    names = [name for name, _ in found]
    assert names == COMMENT.findall(text), f"{page}: a comment without a block"
    assert len(set(names)) == len(names), f"{page}: a name twice"
    return {name: parse(page, block) for name, block in found}


def parse(page: str, block: str) -> bytes:
    out = bytearray()
    for line in block.splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, f"{page}: {line!r} is not hex, two spaces, text"
        out += bytes.fromhex(match[1])
    return bytes(out)


def test_every_example_is_tried() -> None:
    for page, frames in FRAMES.items():
        assert set(examples(page)) == set(frames)
    assert set(examples("zstn.md")) == set(CONTAINERS)


@pytest.mark.parametrize(("page", "name"), CASES)
def test_frames_decode(page: str, name: str) -> None:
    frame = examples(page)[name]
    content, options = FRAMES[page][name]
    decoded = decode_frame(frame)
    assert decoded.content == content
    assert decoded.header.dtype_name == options["dtype"]
    assert z4ai.decompress(frame) == content
    assert write_frame(content, **options) == frame


def test_the_array_decodes() -> None:
    frame = examples("frame.md")["bf16-array"]
    expected = [[1.0, 1.25, 1.5, 1.75], [-1.0, -1.25, -1.5, -1.75]]
    for array in [decode_array(frame), z4ai.decompress_array(frame)]:
        assert array.dtype.name == "bfloat16"
        assert array.tolist() == expected


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_decode_by_the_reference(name: str) -> None:
    container = examples("zstn.md")[name]
    opened = open_container(container)
    assert opened.restore() == safetensors_file(JSON, TENSORS)
    assert opened.names() == ["e", "w"]
    assert opened.read("w") == TENSORS[1].data
    assert CONTAINERS[name]() == container


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_decode(name: str) -> None:
    safetensors = pytest.importorskip("z4ai.safetensors")
    container = examples("zstn.md")[name]
    assert safetensors.decompress_bytes(container) == safetensors_file(JSON, TENSORS)
    with safetensors.ZstnReader.from_bytes(container) as reader:
        assert list(reader.names()) == ["e", "w"]
        assert bytes(reader.read_raw("w")) == TENSORS[1].data
