"""The tiers above fast: what they write comes back, by production and by the reference.

Contents are of every kind that a transform or a record is there for. What a frame is made of is
collected as the reference parses it, so that the tests can say what they compared.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import strategies
import tier_contents
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_writer import Tensor, safetensors_file, safetensors_header
from tier_features import CODECS, RECORDS, TRANSFORMS, features

import z4ai
import z4ai._reference as reference
from z4ai import dtypes
from z4ai.safetensors import ZstnReader, compress_bytes, compress_file, decompress_file

EFFORTS = ["balanced", "max"]

#: Types that are tried with every kind of content, and kinds that every type is tried with.
MAIN = ["bf16", "fp16", "fp32", "fp64", "complex64", "fp8_e4m3", "int8", "int16", "int32", "int64"]
COMMON = [
    "weights",
    "rows",
    "columns",
    "half_zeros",
    "eight_values",
    "noise",
    "constant",
    "special",
]
N = 24 * 80


def both(frame: bytes, content: bytes) -> set[str]:
    """Check a frame by every door of production and by the reference; -> what it is made of."""
    assert z4ai.decompress(frame) == content
    out = np.full(len(content) + 32, 0xA5, np.uint8)
    z4ai.decompress(frame, out=out[16:-16], threads=2)
    assert out[16:-16].tobytes() == content
    assert (out[:16] == 0xA5).all()
    assert (out[-16:] == 0xA5).all()
    pipe = io.BytesIO()
    z4ai.decompress_stream(io.BytesIO(frame), pipe)
    assert pipe.getvalue() == content
    parsed = reference.decode_frame(frame)
    assert parsed.content == content
    told = z4ai.info(frame)
    assert told.content_nbytes == len(content)
    assert told.encoded_nbytes == len(frame)
    return set(features(parsed))


@cache
def outcome(name: str, kind: str, n: int, seed: int, shaped: bool, effort: str) -> frozenset[str]:
    """Check one content; -> what its frame is made of."""
    content = tier_contents.CONTENTS[kind](name, n, seed)
    tail = b"tail behind"[: strategies.DTYPES[name].width - 1] if seed % 2 and not shaped else b""
    shape = tier_contents.shape_of(name, n) if shaped else None
    assert not shaped or shape is not None
    frame = z4ai.compress(content + tail, dtype=name, effort=effort, shape=shape)
    assert len(frame) <= len(content + tail) + 64
    return frozenset(both(frame, content + tail))


def kinds_of(name: str) -> list[str]:
    return list(tier_contents.CONTENTS) if name in MAIN else COMMON


def every_outcome(name: str, effort: str) -> Iterator[frozenset[str]]:
    for kind in kinds_of(name):
        yield outcome(name, kind, N, 1, False, effort)
        yield outcome(name, kind, N, 2, True, effort)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", strategies.DTYPES)
def test_every_dtype_and_kind_of_content_comes_back(name: str, effort: str) -> None:
    compared = sum(1 for _ in every_outcome(name, effort))
    assert compared == 2 * len(kinds_of(name)) >= 2 * len(COMMON)


#: What few elements do not make: (dtype, kind, elements, seed, with a shape, effort).
LARGER = [
    *(("bf16", "outliers", 61_440, 1, shaped, "balanced") for shaped in (False, True)),
    ("fp32", "outliers", 61_440, 3, True, "balanced"),
    ("bf16", "rows_and_columns", 24 * 1024, 2, True, "balanced"),
    ("bf16", "columns", 24 * 1024, 2, True, "max"),
    ("fp8_e4m3", "rows_and_columns", 24 * 1024, 2, True, "max"),
    ("int8", "rows", 24 * 2048, 2, True, "balanced"),
    ("bf16", "repeats", 40_000, 2, False, "balanced"),
    ("fp32", "repeats_in_step", 24 * 1024, 2, True, "max"),
    ("int64", "sorted_but_one", 12_000, 2, False, "max"),
    ("fp64", "weights", 20_000, 3, False, "max"),
    ("fp32", "low_bits_of_exponents", 20_000, 3, False, "max"),
    ("fp32", "turns", 24 * 1024, 2, True, "max"),
    ("opaque", "text", 30_000, 2, False, "max"),
    ("bf16", "mostly_zeros", 30_000, 2, False, "max"),
    ("fp16", "weights", 24 * 1024, 2, True, "max"),
]


@pytest.mark.parametrize("case", LARGER, ids=lambda case: "-".join(map(str, case)))
def test_more_elements_come_back(case: tuple[str, str, int, int, bool, str]) -> None:
    assert outcome(*case)


def test_every_transform_codec_and_record_was_compared() -> None:
    seen: set[str] = set()
    for name in MAIN:
        for effort in EFFORTS:
            seen = seen.union(*every_outcome(name, effort))
    seen = seen.union(*(outcome(*case) for case in LARGER))
    wanted = TRANSFORMS | CODECS | RECORDS - {"trailer"}
    assert wanted <= seen, f"never met: {sorted(wanted - seen)}"
    assert not seen - TRANSFORMS - CODECS - RECORDS


@settings(max_examples=120)
@given(st.data())
def test_any_mixture_comes_back(data: st.DataObject) -> None:
    """Pieces of any kinds behind each other, any size, shape, effort, and a tail."""
    name = data.draw(st.sampled_from(sorted(strategies.DTYPES)), "dtype")
    row = strategies.DTYPES[name]
    pieces = []
    for _ in range(data.draw(st.integers(0, 3), "pieces")):
        kind = data.draw(st.sampled_from(sorted(tier_contents.CONTENTS)), "kind")
        n = data.draw(st.one_of(st.integers(0, 70), st.integers(0, 3000)), "n")
        pieces.append(tier_contents.CONTENTS[kind](name, n, data.draw(st.integers(0, 9), "seed")))
    content = b"".join(pieces)
    effort = data.draw(st.sampled_from(["balanced", "max", None, "default"]), "effort")
    shape = None
    n_items = len(content) // row.item_nbytes if row.item_nbytes else 0
    if n_items and n_items * row.item_nbytes == len(content) and data.draw(st.booleans(), "shaped"):
        first = data.draw(st.sampled_from([d for d in range(1, 65) if n_items % d == 0]), "rows")
        shape = (first, n_items // first)
        if data.draw(st.booleans(), "more dimensions"):
            shape = (1, *shape, 1)
    else:
        content += data.draw(st.binary(max_size=2 * row.width), "tail")
    threads = data.draw(st.sampled_from([None, 1, 2, 5]), "threads")
    frame = z4ai.compress(content, dtype=name, effort=effort, shape=shape, threads=threads)
    assert len(frame) <= len(content) + 64
    assert both(frame, content) or not content


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", strategies.DTYPES)
def test_few_elements_come_back(name: str, effort: str) -> None:
    width = strategies.DTYPES[name].width
    for n in range(4):
        for tail in range(width):
            content = tier_contents.weights(name, n, 3) + b"tail behind"[:tail]
            both(z4ai.compress(content, dtype=name, effort=effort), content)


# --- Bits that arithmetic would lose --------------------------------------------------------------


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", ["bf16", "fp16", "int16", "uint16"])
def test_all_16_bit_patterns_come_back(name: str, effort: str) -> None:
    patterns = strategies.all_16_bit_patterns()
    both(z4ai.compress(patterns, dtype=name, effort=effort, shape=(256, 256)), patterns)
    mixed = tier_contents.rows(name, 9000, 1) + patterns + tier_contents.grid(name, 9000, 1)
    both(z4ai.compress(mixed, dtype=name, effort=effort), mixed)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("kind", ["weights", "grid", "half_zeros", "eight_values"])
@pytest.mark.parametrize("name", ["bf16", "fp16", "fp32", "fp64", "complex128"])
def test_nans_and_signed_zeros_among_others_come_back(name: str, kind: str, effort: str) -> None:
    """NaNs with payloads, infinities, -0.0 and subnormals in what a stage takes apart."""
    width = strategies.DTYPES[name].width
    n = 3000
    content = tier_contents.CONTENTS[kind](name, n, 4)
    words = np.frombuffer(content, f"<u{width}").copy()
    special = np.frombuffer(strategies.special_floats(width), f"<u{width}")
    words[7 :: n // len(special)][: len(special)] = special
    words[3::10] |= words.dtype.type(1) << words.dtype.type(8 * width - 1)
    both(z4ai.compress(words, dtype=name, effort=effort), words.tobytes())


# --- Arrays ---------------------------------------------------------------------------------------


def as_array(name: str, kind: str, shape: tuple[int, ...], seed: int) -> npt.NDArray[Any]:
    row = strategies.ARRAY_DTYPES[name]
    n = int(np.prod(shape, dtype=np.int64)) * row.item_nbytes // row.width
    raw = tier_contents.CONTENTS[kind](name, n, seed)
    if name == "bool":
        raw = bytes(byte & 1 for byte in raw)
    return np.frombuffer(raw, dtypes.numpy_dtype(row)).reshape(shape)


def forms(array: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """The same numbers, or some of them, as memory can have them."""
    room = np.empty(array.nbytes + 1, np.uint8)[1:]
    unaligned = room.view(array.dtype).reshape(array.shape)
    unaligned[...] = array
    made = {
        "as it is": array,
        "Fortran": np.asfortranarray(array),
        "transposed": array.T,
        "unaligned": unaligned,
        "not contiguous": array[:, ::2],
        "backwards": array[::-1],
        "one row": array[:1],
        "one element": array[0, 0],
        "empty": array[:0],
    }
    if array.dtype.isbuiltin == 1 and array.dtype.itemsize > 1:
        big = array.astype(array.dtype.newbyteorder(">"))
        made |= {"big-endian": big, "big-endian Fortran": np.asfortranarray(big)}
    return {form: np.asarray(one) for form, one in made.items()}


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", strategies.ARRAY_DTYPES)
def test_arrays_in_every_form_come_back(name: str, effort: str) -> None:
    tried = 0
    kinds = ["rows", "grid", "half_zeros"] if name in MAIN else ["rows"]
    for kind in kinds:
        array = as_array(name, kind, (30, 48), 5)
        assert not array.flags.writeable, "a read-only input is among those tried"
        for form, one in forms(array).items():
            frame = z4ai.compress_array(one, effort=effort)
            for back in (z4ai.decompress_array(frame), reference.decode_array(frame)):
                assert back.dtype == one.dtype, form
                assert back.shape == one.shape, form
                assert back.tobytes() == one.tobytes(), form
            assert len(frame) <= one.nbytes + 64 + 4 * one.ndim
            assert z4ai.decompress(frame) == one.tobytes("A")
            tried += 1
    assert tried >= 9 * len(kinds)


def test_rows_of_columns_of_a_fortran_array_are_seen() -> None:
    """The shape of what is coded is that of the content: reversed where the array is Fortran."""
    array = as_array("bf16", "rows", (64, 512), 2)
    sizes = {
        order: len(z4ai.compress_array(np.array(one, order=order)))
        for order, one in (("C", array), ("F", array.T))
    }
    assert abs(sizes["C"] - sizes["F"]) < 64
    assert sizes["F"] < len(z4ai.compress(array.tobytes()[::-1], dtype="bf16"))


# --- Streams --------------------------------------------------------------------------------------


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", MAIN)
def test_streams_come_back(name: str, effort: str) -> None:
    """Written without knowing the end, in pieces that end anywhere."""
    for kind in ("rows", "grid", "mostly_zeros", "sorted_integers"):
        content = tier_contents.CONTENTS[kind](name, N, 6)[:-1]
        pipe = io.BytesIO()
        z4ai.compress_stream(io.BytesIO(content), pipe, dtype=name, effort=effort)
        both(pipe.getvalue(), content)
        assert len(pipe.getvalue()) <= len(content) + 64 + 36


# --- Containers -----------------------------------------------------------------------------------


SAFETENSORS_NAMES = {
    "BF16": "bf16",
    "F16": "fp16",
    "F32": "fp32",
    "F64": "fp64",
    "C64": "complex64",
    "F8_E4M3": "fp8_e4m3",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
}


def tensors() -> list[Tensor]:
    """Small ones of every type and kind, that may share frames, and some that repeat themselves."""
    made = []
    for k, (dtype, name) in enumerate(SAFETENSORS_NAMES.items()):
        per = strategies.ARRAY_DTYPES[name].item_nbytes // strategies.DTYPES[name].width
        for j, kind in enumerate(tier_contents.CONTENTS):
            shape = (24, 1 + (k + j) % 5 * 10)
            n = per * shape[0] * shape[1]
            data = tier_contents.CONTENTS[kind](name, n, k)
            made.append(Tensor(f"{name}.{kind}", dtype, shape, data))
        made.append(Tensor(f"{name}.empty", dtype, (0, 3), b""))
        made.append(Tensor(f"{name}.scalar", dtype, (), tier_contents.weights(name, per, 1)))
    layer = tier_contents.rows("bf16", 48 * 512, 3)
    again = layer[4096:40960] + strategies.noise(13) + layer[:4096] + layer[4096:12275]
    again += bytes(-len(again) % 1024)
    made.append(Tensor("layer", "BF16", (48, 512), layer))
    made.append(Tensor("tied", "BF16", (48, 512), layer))
    twice = (layer + layer)[: 90 * 1024]
    made.append(Tensor("twice", "BF16", (90, 512), twice))
    made.append(Tensor("in pieces", "BF16", (len(again) // 1024, 512), again))
    for kind in ("grid_of_rows", "half_zeros", "palette_of_rows"):
        data = tier_contents.CONTENTS[kind]("fp32", 75 * 256, 8)
        made.append(Tensor(f"large {kind}", "F32", (75, 256), data))
    return made


TENSORS = tensors()
FILE = safetensors_file(safetensors_header(TENSORS, metadata={"format": "pt"}), TENSORS)


@cache
def container(effort: str) -> bytes:
    return compress_bytes(FILE, effort=effort, threads=2)


@pytest.mark.parametrize("effort", EFFORTS)
def test_containers_come_back(effort: str, tmp_path: Any) -> None:
    packed = container(effort)
    assert reference.restore(packed) == FILE
    (tmp_path / "a.safetensors").write_bytes(FILE)
    compress_file(tmp_path / "a.safetensors", tmp_path / "a.zstn", effort=effort)
    assert (tmp_path / "a.zstn").read_bytes() == packed
    decompress_file(tmp_path / "a.zstn", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == FILE
    assert len(packed) < len(FILE)


@pytest.mark.parametrize("effort", EFFORTS)
def test_frames_of_a_container_are_of_every_kind(effort: str) -> None:
    """Shared frames, models, parts, copies: read by the reference one by one."""
    packed = container(effort)
    opened = reference.open_container(packed)
    with ZstnReader.from_bytes(packed) as reader:
        places = {t.name: (reader.frame_offset(t.name), reader.frame_size(t.name)) for t in TENSORS}
    frames = {place for place in places.values() if place[1]}
    shared = [t for t in TENSORS if t.data and list(places.values()).count(places[t.name]) > 2]
    assert len(shared) > 20, "small tensors share frames"
    assert places["layer"] == places["tied"]
    seen: set[str] = set()
    for offset, nbytes in frames:
        parsed = reference.decode_frame(packed[offset : offset + nbytes])
        seen.update(features(parsed))
    assert {"copies", "model", "transform 16", "transform 17", "transform 18"} <= seen
    assert opened is not None


@pytest.mark.parametrize("effort", EFFORTS)
def test_tensors_of_a_container_are_read_alone(effort: str) -> None:
    with ZstnReader.from_bytes(container(effort)) as reader:
        for t in TENSORS:
            assert reader.read_raw(t.name) == t.data, t.name
            array = reader.read_numpy(t.name)
            assert array.shape == t.shape
            assert array.tobytes() == t.data


@settings(max_examples=60)
@given(st.sampled_from(EFFORTS), st.sampled_from(range(len(TENSORS))), st.data())
def test_slices_of_tensors_are_what_they_are_of_the_whole(
    effort: str, k: int, data: st.DataObject
) -> None:
    t = TENSORS[data.draw(st.sampled_from([k, len(TENSORS) - 1 - k % 7]), "tensor")]
    dtype = dtypes.numpy_dtype(strategies.ARRAY_DTYPES[SAFETENSORS_NAMES[t.dtype]])
    whole = np.frombuffer(t.data, dtype).reshape(t.shape)
    index: list[Any] = []
    for extent in t.shape:
        ends = st.none() | st.integers(-extent - 2, extent + 2)
        if extent and data.draw(st.integers(0, 3), "one") == 0:
            index.append(data.draw(st.integers(-extent, extent - 1), "index"))
        else:
            step = data.draw(st.sampled_from([None, 1, 2, 3]), "step")
            index.append(slice(data.draw(ends, "start"), data.draw(ends, "stop"), step))
    index = index[: data.draw(st.integers(0, len(index)), "axes")]
    with ZstnReader.from_bytes(container(effort)) as reader:
        part = reader.read_slice(t.name, tuple(index))
    wanted = whole[tuple(index)]
    assert part.shape == wanted.shape
    assert np.asarray(part).tobytes() == wanted.tobytes()
