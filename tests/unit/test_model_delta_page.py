"""The worked example of docs/format/model_delta.md, byte for byte."""

from __future__ import annotations

import re
from pathlib import Path

from model_pairs import file_of
from reference_writer import Tensor

from z4ai import model_delta
from z4ai._reference.model_delta import restore

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "model_delta.md"
EXAMPLE = re.compile(r"^<!-- example: three-tensors -->\n```\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINE = re.compile(r"([0-9A-F]{2}(?: [0-9A-F]{2})*)  \S.*")

W = Tensor("w", "BF16", (2,), bytes.fromhex("803f 0040"))
B = Tensor("b", "F32", (1,), bytes.fromhex("0000803f"))
TARGET = [
    W,
    Tensor("c", "F32", (1,), B.data),
    Tensor("w2", "BF16", (3,), W.data + bytes.fromhex("403f")),
]


def example() -> bytes:
    found = EXAMPLE.search(PAGE.read_text(encoding="utf-8"))
    assert found is not None
    out = bytearray()
    for line in found[1].splitlines():
        match = LINE.fullmatch(line)
        assert match is not None, line
        out += bytes.fromhex(match[1])
    return bytes(out)


def test_the_example_is_restored() -> None:
    blob, base = example(), file_of([W, B])
    assert model_delta.decompress(blob, base) == file_of(TARGET)
    assert restore(blob, base) == file_of(TARGET)
    with model_delta.open(blob, base) as reader:
        assert {name: reader.way(name) for name in reader} == {
            "w": "copied",
            "c": "copied",
            "w2": "delta",
        }
        assert reader.read_raw("w2") == TARGET[2].data
