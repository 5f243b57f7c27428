"""Model deltas come back as they were, whatever happened to the model, and cost what they may."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_pairs import (
    ALIGNED,
    PAIRS,
    Pair,
    content,
    file_of,
    merged,
    model,
    nudged,
    tensor,
    tuned,
)
from reference_writer import Tensor, safetensors_file, safetensors_header
from strategies import noise

from z4ai import model_delta
from z4ai._fast import _dispatch
from z4ai._reference.model_delta import restore as reference_restore
from z4ai.deltas import blocks, encode
from z4ai.safetensors import ZstnReader, compress_bytes

EFFORTS = ["fast", "balanced", "max"]


def files(pair: Pair) -> tuple[bytes, bytes]:
    return file_of(pair[0]), file_of(pair[1])


def allowed(target: bytes, n_tensors: int, effort: str | None = None) -> int:
    """What the issue allows: the target alone, 256 bytes, 2 bits a tensor."""
    return len(compress_bytes(target, effort=effort)) + 256 + -(-n_tensors // 4)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", PAIRS)
def test_pairs_come_back(name: str, effort: str) -> None:
    pair = PAIRS[name]()
    target, base = files(pair)
    blob = model_delta.compress(target, base, effort=effort)
    assert model_delta.decompress(blob, base) == target
    assert len(blob) <= allowed(target, len(pair[0]), effort)
    if effort == "balanced":
        assert reference_restore(blob, base) == target


@pytest.mark.parametrize("name", ALIGNED)
def test_alignments_come_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pair, alignments = ALIGNED[name]()
    target, base = files(pair)
    monkeypatch.setattr(encode, "align", lambda *_: alignments)
    blob = model_delta.compress(target, base)
    assert model_delta.decompress(blob, base) == target
    assert reference_restore(blob, base) == target
    alone = len(compress_bytes(target))
    assert len(blob) < 0.7 * alone, "alignments were of no use"
    found = model_delta.info(blob)
    assert found["n_aligned"] == len(pair[0])
    with model_delta.open(blob, base) as reader:
        for k, t in enumerate(pair[0]):
            assert reader.read_raw(t.name) == t.data
            step = max(1, len(t.data) // 7)
            for begin in range(0, len(t.data), step):
                end = min(begin + step, len(t.data))
                assert reader.read(k, begin, end).tobytes() == t.data[begin:end]


@pytest.mark.parametrize("name", ALIGNED)
def test_alignments_come_back_by_blocks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As above, of tensors of several blocks."""
    pair, alignments = ALIGNED[name]()
    target, base = files(pair)
    monkeypatch.setattr(encode, "align", lambda *_: alignments)
    whole = model_delta.compress(target, base)
    for most in (20_000, 7001):
        monkeypatch.setattr(blocks, "MOST_BLOCK_NBYTES", most)
        monkeypatch.setattr("z4ai.deltas.records._LEAST_BLOCK_NBYTES", 1)
        blob = model_delta.compress(target, base)
        assert len(blob) > len(whole), "not more blocks than before"
        assert model_delta.decompress(blob, base) == target
        with model_delta.open(blob, base) as reader:
            for k, t in enumerate(pair[0]):
                step = max(1, len(t.data) // 11)
                for begin in range(0, len(t.data), step):
                    end = min(begin + step, len(t.data))
                    assert reader.read(k, begin, end).tobytes() == t.data[begin:end]
    monkeypatch.setattr("z4ai._reference.model_delta.LEAST_BLOCK_NBYTES", 1)
    assert reference_restore(blob, base) == target


def test_large_tensors_are_cut_into_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_BLOCK_NBYTES", 3 << 19)
    base = [tensor("w", "F32", (1000, 800), 1)]
    target, known = files((list(map(tuned, base)), base))
    blob = model_delta.compress(target, known)
    assert model_delta.decompress(blob, known) == target
    assert len(blob) < 0.6 * len(compress_bytes(target))
    # The first rows unlike, then as ever.
    some = noise(1 << 20) + tuned(base[0]).data[1 << 20 :]
    target = file_of([replace(base[0], data=some)])
    blob = model_delta.compress(target, known)
    assert model_delta.decompress(blob, known) == target


def test_memory_is_that_of_blocks_whatever_the_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MOST_BLOCK_NBYTES", 2 << 20)
    some = tensor("w", "BF16", (1024, 1024), 1)
    base = [replace(some, shape=(24 << 10, 1024), data=some.data * 24), tensor("z", "I8", (9,))]
    other = tuned(some).data
    target = [replace(base[0], data=b"".join([some.data, other] * 12)), base[1]]
    (tmp_path / "t").write_bytes(file_of(target))
    (tmp_path / "b").write_bytes(file_of(base))
    peaks = []
    tracemalloc.start()
    try:
        model_delta.compress_file(tmp_path / "t", tmp_path / "b", tmp_path / "d", threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
        model_delta.decompress_file(tmp_path / "d", tmp_path / "b", tmp_path / "x", threads=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
    finally:
        tracemalloc.stop()
    assert (tmp_path / "x").read_bytes() == file_of(target)
    print([peak >> 10 for peak in peaks])
    held = len(file_of(target))
    assert held > 48 << 20
    assert max(peaks) < 16 << 20


@pytest.mark.parametrize("most", [1 << 25, 1 << 20])
def test_merged_adapters_are_of_low_rank(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MOST_BLOCK_NBYTES", most)
    base = [tensor("w", "F32", (640, 512), 1), tensor("v", "F32", (64, 512), 2)]
    shape = (64, 8, 8, 8)
    target = [merged(base[0]), replace(merged(base[1]), shape=shape)]
    known = [base[0], replace(base[1], shape=shape)]
    one, other = files((target, known))
    blob = model_delta.compress(one, other)
    assert model_delta.decompress(blob, other) == one
    assert reference_restore(blob, other) == one
    assert model_delta.info(blob)["n_lowrank"] == 2
    monkeypatch.setattr("z4ai.lowrank.find_factors", lambda *_: None)
    assert len(blob) < len(model_delta.compress(one, other)) // 3
    with model_delta.open(blob, other) as reader:
        for k, t in enumerate(target):
            assert reader.read_raw(t.name) == t.data
            for begin in range(0, len(t.data), len(t.data) // 5):
                end = min(begin + 999, len(t.data))
                assert reader.read(k, begin, end).tobytes() == t.data[begin:end]


@pytest.mark.parametrize("name", ["tuned", "strange dtypes", "cast and tuned", "half gone"])
def test_same_bytes_by_any_threads_and_doors(name: str, tmp_path: Path) -> None:
    target, base = files(PAIRS[name]())
    (tmp_path / "t").write_bytes(target)
    (tmp_path / "b").write_bytes(base)
    (tmp_path / "z").write_bytes(compress_bytes(base))
    blobs = {model_delta.compress(target, base, threads=n) for n in (1, 2, 7)}
    for known in ("b", "z"):
        for n in (1, 2, 7):
            model_delta.compress_file(tmp_path / "t", tmp_path / known, tmp_path / "d", threads=n)
            blobs.add((tmp_path / "d").read_bytes())
    assert len(blobs) == 1
    for n in (1, 2, 7):
        assert model_delta.decompress(next(iter(blobs)), base, threads=n) == target


def test_same_bytes_by_any_instructions(tmp_path: Path) -> None:
    target, base = files(PAIRS["tuned"]())
    (tmp_path / "t").write_bytes(target)
    (tmp_path / "b").write_bytes(base)
    blobs = {model_delta.compress(target, base)}
    paths = [str(tmp_path / name) for name in "tbd"]
    code = (
        "import sys, z4ai.model_delta as m; m.compress_file(*sys.argv[1:], verify=True);"
        "from z4ai._fast import _dispatch; print(_dispatch.current())"
    )
    said = set()
    for isa in _dispatch.runnable():
        env = {**os.environ, "Z4AI_ISA": isa}
        command = [sys.executable, "-c", code, *paths]
        ran = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        said.add(ran.stdout.strip())
        blobs.add((tmp_path / "d").read_bytes())
    assert said == set(_dispatch.runnable())
    assert len(blobs) == 1


def test_bases_may_be_stored_anyhow(tmp_path: Path) -> None:
    """A container, a delta on another base, in memory and by path: all the same base."""
    first = model()
    second = list(map(tuned, first))
    third = [tuned(t, 5) for t in second]
    one, two, three = map(file_of, (first, second, third))
    step = model_delta.compress(two, one)
    with model_delta.open(step, one) as reader:
        blob = model_delta.compress(three, reader)
        assert blob == model_delta.compress(three, two)
        assert model_delta.decompress(blob, reader) == three
        with model_delta.open(blob, reader) as last:
            assert [last.read_raw(t.name) for t in third] == [t.data for t in third]
            reader.verify()
            last.verify()
    container = compress_bytes(two)
    assert model_delta.compress(three, container) == blob
    assert model_delta.decompress(blob, container) == three
    (tmp_path / "z").write_bytes(container)
    assert model_delta.decompress(blob, tmp_path / "z") == three
    with pytest.raises(ValueError, match="open it beside its own base"):
        model_delta.compress(three, step)


def test_header_padding_and_metadata_are_kept() -> None:
    tensors = model()[:2]
    header = safetensors_header(tensors)
    text = header.rstrip()[:-1] + b',"__metadata__":{"format":"pt","x":"\xc3\xa4"}} ' + b" " * 11
    target = safetensors_file(text, tensors)
    base = file_of([tuned(t) for t in tensors])
    blob = model_delta.compress(target, base)
    assert model_delta.decompress(blob, base) == target
    with model_delta.open(blob, base) as reader:
        assert reader.header_bytes == text
        assert reader.metadata() == {"format": "pt", "x": "ä"}
    # The base's layout does not count: the same model, written in another order.
    other = safetensors_file(
        safetensors_header([tuned(t) for t in tensors[::-1]]) + b"  ",
        [tuned(t) for t in tensors[::-1]],
    )
    assert model_delta.decompress(blob, other) == target


def test_an_identical_model_takes_next_to_nothing() -> None:
    tensors = [tensor(f"layer.{k}.weight", "BF16", (40, 50), k) for k in range(400)]
    target = file_of(tensors)
    blob = model_delta.compress(target, target)
    header = len(safetensors_header(tensors))
    assert len(blob) < 4096 + header
    stats = model_delta.info(blob)
    assert stats["n_copied"] == 400
    assert stats["compressed_bytes"] == stats["stored"] == len(blob)


def test_stats_tell_the_ways(tmp_path: Path) -> None:
    base = model()
    target = [base[0], tuned(base[1]), *base[4:6], tensor("new", "BF16", (200, 200), 50)]
    target.append(replace(tuned(base[2]), name="renamed"))
    target.append(replace(tuned(base[2]), name="tied"))
    (tmp_path / "t").write_bytes(file_of(target))
    (tmp_path / "b").write_bytes(file_of(base))
    stats = model_delta.compress_file(tmp_path / "t", tmp_path / "b", tmp_path / "d")
    size = (tmp_path / "d").stat().st_size
    assert stats["original_bytes"] == stats["original"] == len(file_of(target))
    assert stats["compressed_bytes"] == stats["stored"] == size
    assert stats["ratio"] == stats["original"] / size
    assert {key: stats[key] for key in stats if key.startswith("n_")} == {
        "n_tensors": 7,
        "n_copied": 3,
        "n_delta": 2,
        "n_lowrank": 0,
        "n_scratch": 1,
        "n_shared": 1,
        "n_aligned": 1,
    }
    assert model_delta.decompress_file(tmp_path / "d", tmp_path / "b", tmp_path / "x") == stats
    info = model_delta.info(tmp_path / "d")
    assert {key: info[key] for key in stats} == stats
    ways = {t["name"]: t["way"] for t in info["tensors"]}
    assert ways["embed.weight"] == "copied"
    assert ways["layer.0.q"] == "delta"
    assert ways["new"] == "scratch"
    assert {ways["renamed"], ways["tied"]} == {"delta", "shared"}


# --- Never larger ---------------------------------------------------------------------------------

DTYPES = ["BF16", "F32", "F16", "I8", "U8", "F64", "I32", "F4", "Q5_K"]


@st.composite
def pairs(draw: st.DrawFn) -> Pair:
    """Models of a few tensors, and bases of which some are near, some not, some are not there."""
    target, base = [], []
    for k in range(draw(st.integers(0, 8))):
        dtype = draw(st.sampled_from(DTYPES))
        n = draw(st.sampled_from([0, 1, 2, 7, 64, 300, 5000, 20_000]))
        kind = draw(st.sampled_from(["floats", "zeros", "few"]))
        width = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I32": 4}.get(dtype, 1)
        data = content(n, dtype, k)
        if kind == "zeros":
            data = bytes(n * width)
        elif kind == "few":
            data = (data[: 3 * width] * n)[: n * width]
        shape: tuple[int, ...] = (2 * n,) if dtype == "F4" else (n,)
        if n % 2 == 0 and dtype != "F4" and draw(st.booleans()):
            shape = (2, n // 2)
        t = Tensor(f"t{k}", dtype, shape, data)
        base_kind = draw(st.sampled_from(["same", "near", "other", "none", "renamed"]))
        target.append(t)
        if base_kind == "none":
            continue
        share = draw(st.integers(1, 255))
        known = {
            "same": data,
            "near": nudged(data, dtype, k, share),
            "other": content(n, dtype, k + 100),
            "renamed": nudged(data, dtype, k, share),
        }[base_kind]
        name = t.name if base_kind != "renamed" else f"x{k}"
        base.append(replace(t, name=name, data=known[: len(data)]))
    order = draw(st.permutations(range(len(base))))
    return target, [base[k] for k in order]


@given(pair=pairs(), effort=st.sampled_from(EFFORTS))
def test_never_larger_than_the_target_alone(pair: Pair, effort: str) -> None:
    target, base = files(pair)
    blob = model_delta.compress(target, base, effort=effort)
    assert model_delta.decompress(blob, base) == target
    assert len(blob) <= allowed(target, len(pair[0]), effort)
    for t in pair[0]:
        with model_delta.open(blob, base) as reader:
            assert reader.read_raw(t.name) == t.data


def test_a_reader_reads_as_a_reader_of_a_container() -> None:
    target, base = files(PAIRS["tuned"]())
    blob = model_delta.compress(target, base)
    zstn = ZstnReader.open(io.BytesIO(compress_bytes(target)))
    with model_delta.open(blob, base) as reader:
        assert reader.names() == zstn.names()
        assert reader.header() == zstn.header()
        assert len(reader) == len(zstn)
        for name in reader:
            assert (reader.dtype(name), reader.shape(name)) == (zstn.dtype(name), zstn.shape(name))
            one: Any = reader.read_numpy(name)
            other = zstn.read_numpy(name)
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()
            out = bytearray(reader.nbytes(name) + 3)
            assert bytes(reader.read_raw(name, out)) == zstn.read_raw(name)
        with pytest.raises(KeyError, match=r"did you mean 'layer\.0\.q'"):
            reader.read_raw("layer.0.qq")
        with pytest.raises(ValueError, match="out has"):
            reader.read_raw("layer.0.q", bytearray(3))
    with pytest.raises(ValueError, match="closed"):
        reader.read_raw("layer.0.q")
