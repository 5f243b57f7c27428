"""Chunks that workers read from a file: the same content, and errors where it is not whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import z4ai
from z4ai._fast import chunks
from z4ai.codecs import run
from z4ai.decoder import decode_jobs, index_of_buffer, jobs_of_chunks, models_of
from z4ai.errors import TruncatedError
from z4ai.options import NO_LIMITS
from z4ai.safetensors import ZstnReader, compress_file

pytestmark = pytest.mark.skipif(not chunks.CAN_FETCH, reason="there is no pread")

MIB = 1 << 20


def weights(nbytes: int, seed: int) -> np.ndarray:
    """Words like those of bf16 weights."""
    x = np.random.default_rng(seed).standard_normal(nbytes // 2, np.float32) * np.float32(0.02)
    return (x.view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_fetched_chunks_have_the_same_content(tmp_path: Path, effort: str, threads: int) -> None:
    content = weights(9 * MIB + 2, 1).view(np.uint8)
    blob = z4ai.compress(content, dtype="bf16", effort=effort)
    path = tmp_path / "file"
    path.write_bytes(b"in front" + blob)
    index = index_of_buffer(memoryview(blob), NO_LIMITS)
    assert index.n_chunks > 8
    heads = np.zeros(len(blob), np.uint8)  # of chunks their headers alone, but one that is whole
    whole = np.frombuffer(blob, np.uint8)
    for k, (at, end) in enumerate(zip(index.offsets[:-1], index.offsets[1:], strict=True)):
        n = 200 if k != 3 else int(end - at)
        heads[int(at) : int(at) + n] = whole[int(at) : int(at) + n]
    jobs = jobs_of_chunks(heads.data, index, 0, index.n_chunks)
    places = jobs["encoded_offset"] + np.uint64(8)
    places[3] = chunks.FETCHED
    out = np.empty(len(content), np.uint8)
    with path.open("rb") as file:
        fetch = run.Fetch(file.fileno(), places)
        decode_jobs(heads, out, jobs, models_of([index]), threads, fetch=fetch)
    assert np.array_equal(out, content)
    assert np.array_equal(
        heads[int(index.offsets[0]) : int(index.offsets[-1])],
        whole[int(index.offsets[0]) : int(index.offsets[-1])],
    )


def one_job(size: int = MIB) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    blob = z4ai.compress(weights(size, 2), dtype="bf16")
    encoded = np.frombuffer(blob, np.uint8).copy()
    index = index_of_buffer(encoded.data, NO_LIMITS)
    jobs = jobs_of_chunks(encoded.data, index, 0, index.n_chunks)
    return encoded, np.empty(size, np.uint8), jobs, models_of([index])


def test_a_file_that_ends_early_is_an_error_of_its_chunk(tmp_path: Path) -> None:
    encoded, out, jobs, models = one_job(3 * MIB)
    path = tmp_path / "file"
    path.write_bytes(encoded[: len(encoded) // 2])
    with path.open("rb") as file:
        fetch = run.Fetch(file.fileno(), jobs["encoded_offset"].copy())
        with pytest.raises(TruncatedError, match="file ends") as caught:
            decode_jobs(encoded, out, jobs, models, 2, fetch=fetch)
    assert caught.value.chunk == 1


def test_a_read_that_fails_says_why() -> None:
    encoded, out, jobs, models = one_job()
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(29)):  # ESPIPE: a pipe has no places
            decode_jobs(
                encoded, out, jobs, models, 1, fetch=run.Fetch(reading, jobs["encoded_offset"])
            )
    finally:
        os.close(reading)
        os.close(writing)


def test_chunks_that_do_not_fit_are_not_fetched(tmp_path: Path) -> None:
    encoded, out, jobs, models = one_job()
    path = tmp_path / "file"
    path.write_bytes(encoded)
    jobs["encoded_nbytes"] = 2**63
    with path.open("rb") as file, pytest.raises(TruncatedError):
        decode_jobs(encoded, out, jobs, models, 1, fetch=run.Fetch(file.fileno(), jobs["seed"]))
    few = run.Fetch(0, np.zeros(2, np.uint64))
    with pytest.raises(ValueError, match="place"):
        decode_jobs(encoded, out, jobs, models, 1, fetch=few)


def test_nothing_is_fetched_over_what_may_not_be_written(tmp_path: Path) -> None:
    encoded, out, jobs, models = one_job()
    encoded.flags.writeable = False
    path = tmp_path / "file"
    path.write_bytes(encoded)
    with path.open("rb") as file, pytest.raises((ValueError, BufferError), match="read-only"):
        decode_jobs(encoded, out, jobs, models, 1, fetch=run.Fetch(file.fileno(), jobs["seed"]))


@pytest.mark.parametrize("cut", [0.2, 0.6, 0.9])
def test_a_container_that_is_cut_while_it_is_open(tmp_path: Path, cut: float) -> None:
    from safetensors.numpy import save_file

    path, small = tmp_path / "m.safetensors", tmp_path / "m.zstn"
    tensors = {f"t{k}": weights(6 * MIB, k).reshape(-1, 64) for k in range(3)}
    save_file(tensors, path)
    compress_file(path, small)
    with ZstnReader.open(small) as reader:
        for name, values in tensors.items():
            assert np.array_equal(reader.read_numpy(name), values)
        os.truncate(small, int(small.stat().st_size * cut))
        failed = []
        for name, values in tensors.items():
            try:
                assert np.array_equal(reader.read_numpy(name), values)
            except TruncatedError as error:
                failed.append((name, error.tensor))
        assert failed
        assert all(name == said for name, said in failed)
