"""Frames of symbols that the encoder would never write, by every kernel of the decoder."""

from __future__ import annotations

import pytest
from frames import decode
from symbols_cases import MODELS, encode, model_for, weights
from symbols_writer import KINDS, Model

import z4ai
from z4ai._fast import _dispatch

ISAS = _dispatch.runnable()


def comes_back(frame: bytes, content: bytes) -> None:
    assert z4ai.decompress(frame) == content
    for isa in ISAS:
        assert decode(frame, isa=isa) == content, isa


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("transform", KINDS)
def test_every_choice_of_a_model_is_decoded(name: str, transform: str) -> None:
    width = KINDS[transform].width
    model = model_for(name, transform)
    content = weights(700, transform) + b"tail behind"[: width - 1]
    comes_back(encode(content, transform, model=model), content)
    frame = encode(
        content,
        transform,
        model=model,
        codecs="zstd",
        chunk_nbytes=160 * width,
        big_endian=width > 1,
        streamed=True,
    )
    assert z4ai.decompress(frame) == content


@pytest.mark.parametrize("transform", KINDS)
def test_all_lengths_around_a_group_are_decoded(transform: str) -> None:
    model = model_for("all at once", transform)
    for n in [1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 193]:
        content = weights(n, transform, n)
        comes_back(encode(content, transform, model=model), content)


@pytest.mark.parametrize(
    ("transform", "n"),
    [
        ("symbols1", 2048),
        ("symbols2", 16383),
        ("symbols2h", 16384),
        ("symbols4", 20001),
        ("symbols8", 16500),
    ],
)
def test_more_lanes_are_decoded(transform: str, n: int) -> None:
    content = weights(n, transform)
    comes_back(encode(content, transform, model=model_for("all at once", transform)), content)


@pytest.mark.parametrize("name", ["one table", "rows and columns"])
def test_the_most_lanes_are_decoded(name: str) -> None:
    content = weights(262_144 + 77, "symbols2")
    frame = encode(content, model=model_for(name, "symbols2"), chunk_nbytes=1 << 20)
    comes_back(frame, content)


def test_chunks_of_one_frame_share_a_model_whatever_their_transform() -> None:
    from reference_writer import write_frame

    content = weights(900, "symbols4") + b"xyz"
    model = Model(
        period=50, rows=lambda row, _: row % 4, columns=range(50), contexts=23, every_symbol=True
    )
    plans = [("symbols4", "zstd"), ("symbols1", []), ("float4", "store"), ("bytes1", "store")]
    frame = write_frame(content, dtype="fp32", plans=plans, model=model, chunk_nbytes=320)
    comes_back(frame, content)
