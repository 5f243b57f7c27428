"""GGUF files: compressed by their blocks where they have some, as bytes where they only look so."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import gguf_files
import numpy as np
import pytest
from gguf_files import ARRAY, KINDS, STRING, U32, Tensor, gguf, tensor, vocabulary
from hypothesis import given, settings
from hypothesis import strategies as st

import z4ai
from z4ai._reference import frame as reference
from z4ai.cli import main as command
from z4ai.gguf import _KINDS, find_layout
from z4ai.safetensors import compress_bytes, compress_file, decompress_bytes, decompress_file
from z4ai.stages.blocks import BYTES

# Bytes of a block and elements in it, as ggml has them.
SIZES = {
    0: (4, 1),
    1: (2, 1),
    2: (18, 32),
    3: (20, 32),
    6: (22, 32),
    7: (24, 32),
    8: (34, 32),
    9: (36, 32),
    10: (84, 256),
    11: (110, 256),
    12: (144, 256),
    13: (176, 256),
    14: (210, 256),
    15: (292, 256),
    16: (66, 256),
    17: (74, 256),
    18: (98, 256),
    19: (50, 256),
    20: (18, 32),
    21: (110, 256),
    22: (82, 256),
    23: (136, 256),
    24: (1, 1),
    25: (2, 1),
    26: (4, 1),
    27: (8, 1),
    28: (8, 1),
    29: (56, 256),
    30: (2, 1),
    34: (54, 256),
    35: (66, 256),
    39: (17, 32),
}


def comes_back(content: bytes, effort: str = "default") -> bytes:
    packed = z4ai.compress(content, dtype="auto", effort=effort)
    assert z4ai.decompress(packed) == content
    return packed


def mixture(rows: int = 256, columns: int = 512) -> bytes:
    kinds = ["f32", "q8_0", "q4_1", "q4_K", "q6_K", "f16", "q4_0", "bf16"]
    tensors = [tensor(kind, rows, columns, seed) for seed, kind in enumerate(kinds)]
    return gguf(tensors, vocabulary())


def test_blocks_have_the_sizes_that_ggml_gives_them() -> None:
    assert {n: (kind.format.nbytes, kind.elements) for n, kind in _KINDS.items()} == SIZES
    for number, quantise in KINDS.values():
        nbytes, elements = SIZES[number]
        assert len(quantise(gguf_files.weights(512, 0))) == 512 // elements * nbytes


def test_tensors_are_found_where_they_lie() -> None:
    tensors = [tensor("q4_1", 3, 64, 1), tensor("f32", 1, 5, 2), tensor("q6_K", 2, 256, 3)]
    content = gguf(tensors, vocabulary(), alignment=64)
    layout = find_layout(memoryview(content))
    assert layout is not None
    at = 0
    found = []
    for run in layout.cut(0, len(content)):
        if run.format != BYTES:
            found.append((content[at : at + run.nbytes], run.row))
        at += run.nbytes
    assert found == [(t.content, row) for t, row in zip(tensors, (2, 5, 1), strict=True)]


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
def test_every_door_makes_the_same_frame(effort: str, version: int, tmp_path: Path) -> None:
    content = gguf([tensor("q8_0", 64, 256, 1), tensor("q4_1", 64, 256, 2)], version=version)
    packed = comes_back(content, effort)
    assert packed == compress_bytes(content, fallback="auto", effort=effort)
    assert decompress_bytes(packed) == content
    (tmp_path / "model.gguf").write_bytes(content)
    compress_file(tmp_path / "model.gguf", tmp_path / "packed", fallback="auto", effort=effort)
    assert (tmp_path / "packed").read_bytes() == packed
    decompress_file(tmp_path / "packed", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    streamed = io.BytesIO()
    stats = z4ai.compress_stream(io.BytesIO(content), streamed, dtype="auto", effort=effort)
    assert z4ai.decompress(streamed.getvalue()) == content
    if effort != "fast":
        assert stats["dtype"] == "gguf"
        assert z4ai.info(packed).transforms == {"blocks": 1}
        assert z4ai.info(streamed.getvalue()).transforms == {"blocks": 1}


def test_any_number_of_threads_makes_the_same_bytes(tmp_path: Path) -> None:
    content = gguf([tensor("q4_0", 5000, 1024, 1), tensor("q8_0", 5000, 1024, 2)] * 5)
    assert len(content) > 33 << 20  # several waves, and not judged as a whole
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    made = set()
    for threads in (1, 3):
        compress_file(path, tmp_path / "packed", fallback="auto", threads=threads)
        made.add((tmp_path / "packed").read_bytes())
    assert len(made) == 1
    assert decompress_bytes(made.pop()) == content


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gets_smaller_than_bytes(kind: str) -> None:
    content = gguf([tensor(kind, 512, 1024, 1)], vocabulary())
    opaque = z4ai.compress(content)
    packed = comes_back(content)
    # By more than a hundredth, but for the nibbles of a symmetric grid with nothing in them.
    assert len(packed) < len(opaque) * 0.995, (len(packed), len(opaque), len(content))


def test_a_mixture_of_kinds() -> None:
    content = mixture()
    packed = comes_back(content)
    assert len(packed) < len(z4ai.compress(content)) * 0.95
    assert reference.decode_frame(packed).content == content
    assert len(z4ai.compress(content, dtype="auto", effort="max")) <= len(packed)
    found = z4ai.info(packed)
    assert found.dtype is None
    assert found.transforms == {"blocks": 1}
    assert len(found.parts) == 8
    assert sum(part.content_nbytes for part in found.parts) == len(content)


def test_the_command_says_what_it_took_a_file_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, packed = tmp_path / "model.gguf", tmp_path / "model.gguf.z4ai"
    path.write_bytes(mixture(32, 256))
    assert command(["compress", str(path)]) == 0
    assert "taken for gguf" in capsys.readouterr().err
    assert command(["info", str(packed)]) == 0
    told = capsys.readouterr().out
    assert "opaque, in blocks" in told
    assert "blocks 7" in told
    original = path.read_bytes()
    path.unlink()
    assert command(["decompress", str(packed)]) == 0
    assert path.read_bytes() == original


def test_without_auto_it_is_bytes() -> None:
    content = mixture(32, 256)
    assert "blocks" not in z4ai.info(z4ai.compress(content)).transforms
    assert compress_bytes(content, fallback="bytes") == z4ai.compress(content)
    typed = z4ai.info(z4ai.compress(content, dtype="uint8"))
    assert typed.dtype == "uint8"
    assert "blocks" not in typed.transforms


def test_tensors_of_noise_cost_no_more_than_bytes() -> None:
    rng = np.random.default_rng(3)
    noise = Tensor("w", (256, 4096), 12, rng.bytes(4096 * 144))
    content = gguf([noise])
    assert len(comes_back(content)) <= len(z4ai.compress(content)) + 64


def test_tensors_of_text_cost_no_more_than_bytes() -> None:
    text = (b"blocks that are none, and say the same again and again. " * 12_000)[: 4096 * 144]
    content = gguf([Tensor("w", (256, 4096), 12, text)])
    assert len(comes_back(content)) <= len(z4ai.compress(content)) + 64


def test_tensors_that_come_again_are_copied() -> None:
    once = tensor("q4_1", 512, 512, 1)
    content = gguf([once, tensor("q8_0", 100, 512, 2), once._replace(name="again")])
    packed = comes_back(content)
    found = z4ai.info(packed)
    assert found.copies is not None
    assert found.copies.nbytes > len(once.content) * 0.99
    assert found.transforms == {"blocks": 1}


def test_files_that_end_early_come_back() -> None:
    content = mixture(64, 256)
    for nbytes in (4, 20, 100, 5000, 9000, 20_000, len(content) - 1):
        comes_back(content[:nbytes])


def test_a_large_vocabulary_is_read_in_a_stream() -> None:
    tokens = [f"{k:040d}" for k in range(200_000)]
    values = {"tokens": (ARRAY, (STRING, tokens))}
    content = gguf([tensor("q4_1", 128, 1024, 1)], values)
    assert len(content) > 9 << 20
    out = io.BytesIO()
    assert z4ai.compress_stream(io.BytesIO(content), out, dtype="auto")["dtype"] == "gguf"
    assert z4ai.decompress(out.getvalue()) == content


# --- What only looks like GGUF --------------------------------------------------------------------


def header(version: int, n_tensors: int, n_values: int, rest: bytes = b"") -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, n_tensors, n_values) + rest


def value_of(kind: int, rest: bytes) -> bytes:
    return gguf_files.string("key") + struct.pack("<I", kind) + rest


def tensor_of(shape: tuple[int, ...], kind: int, offset: int, ndim: int | None = None) -> bytes:
    n = len(shape) if ndim is None else ndim
    head = gguf_files.string("w") + struct.pack("<I", n) + struct.pack(f"<{len(shape)}Q", *shape)
    return head + struct.pack("<IQ", kind, offset)


HUGE = 2**64 - 1
HOSTILE = {
    "nothing more": b"GGUF",
    "version 1": header(1, 0, 0),
    "big-endian": struct.pack(">4sIQQ", b"GGUF", 3, 0, 0),
    "many tensors": header(3, HUGE, 0),
    "many values": header(3, 0, HUGE),
    "more tensors than bytes": header(3, 1000, 0, bytes(500)),
    "many empty arrays": header(
        3, 0, 1, value_of(ARRAY, struct.pack("<IQ", ARRAY, 70_000) + bytes(12 * 70_000))
    ),
    "many tensors of nothing": header(3, 70_000, 0, tensor_of((0,), 0, 0) * 70_000),
    "a long key": header(3, 0, 1, struct.pack("<Q", HUGE) + bytes(99)),
    "a long string": header(3, 0, 1, value_of(STRING, struct.pack("<Q", HUGE) + bytes(99))),
    "a long array": header(3, 0, 1, value_of(ARRAY, struct.pack("<IQ", U32, HUGE) + bytes(99))),
    "many strings": header(3, 0, 1, value_of(ARRAY, struct.pack("<IQ", STRING, HUGE) + bytes(99))),
    "many arrays": header(3, 0, 1, value_of(ARRAY, struct.pack("<IQ", ARRAY, HUGE) + bytes(99))),
    "deep arrays": header(3, 0, 1, value_of(ARRAY, struct.pack("<IQ", ARRAY, 1) * 500)),
    "a value of no kind": header(3, 0, 1, value_of(13, bytes(99))),
    "alignment 0": gguf([], {"general.alignment": (U32, 0)}),
    "alignment 4": gguf([], {"general.alignment": (U32, 4)}),
    "many dimensions": header(3, 1, 0, tensor_of((), 0, 0, ndim=2**32 - 1) + bytes(99)),
    "many elements": header(3, 1, 0, tensor_of((HUGE - 31,) * 4, 2, 0) + bytes(99)),
    "a far offset": header(3, 1, 0, tensor_of((32,), 2, HUGE) + bytes(99)),
    "rows in part": header(3, 1, 0, tensor_of((33,), 2, 0) + bytes(99)),
    "one over the other": header(
        3, 2, 0, tensor_of((64,), 2, 0) + tensor_of((64,), 2, 32) + bytes(99)
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_only_looks_like_gguf_is_bytes(name: str) -> None:
    content = HOSTILE[name]
    assert find_layout(memoryview(content)) is None
    long = content + bytes(range(256)) * 40
    for effort in ("fast", "default", "max"):
        assert "blocks" not in z4ai.info(comes_back(long, effort)).transforms


@pytest.mark.parametrize(
    "content",
    [
        header(3, 0, 0),
        header(3, 1, 0, tensor_of((), 0, 0) + bytes(99)),
        header(3, 1, 0, tensor_of((0,), 2, 0) + bytes(99)),
        header(3, 1, 0, tensor_of((32, 0, 5), 2, 0) + bytes(99)),
        header(3, 1, 0, tensor_of((32,), 4000, 0) + bytes(99)),  # of no known kind
        header(3, 1, 0, tensor_of((1 << 40,), 3, 1 << 50) + bytes(99)),  # far behind the end
        header(3, 1, 0, tensor_of((1 << 50,), 3, 0) + bytes(9999)),
    ],
)
def test_odd_files_come_back(content: bytes) -> None:
    assert find_layout(memoryview(content)) is not None
    comes_back(content)
    comes_back(content, "max")


SMALL = gguf([tensor("q4_1", 4, 64, 1), tensor("q8_0", 4, 32, 2)], vocabulary(3))


@settings(max_examples=150)
@given(at=st.integers(0, len(SMALL) - 1), to=st.integers(0, 255), end=st.integers(0, len(SMALL)))
def test_damaged_files_come_back(at: int, to: int, end: int) -> None:
    damaged = bytearray(SMALL)
    damaged[at] = to
    comes_back(bytes(damaged))
    comes_back(bytes(damaged[: max(4, end)]))
