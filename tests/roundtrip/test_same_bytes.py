"""Output depends on input and options alone, and every reader agrees on it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import strategies
import zstandard
from frames import decode, encode

import z4ai
from z4ai import dtypes
from z4ai._fast import _dispatch
from z4ai._reference import decode_frame, planes
from z4ai._reference.frame import CONSTANT, STORE, TRANSFORMS, ZSTD

THREADS = (1, 2, 5)
ISAS = _dispatch.runnable()
DTYPES = ["int8", "int16", "bf16", "fp32", "int32", "fp64", "int64"]


def content_of(name: str) -> bytes:
    """Chunks of every kind, none of them aligned with the elements."""
    width = z4ai.dtype_width(name)
    parts = [strategies.make(kind, 7001, width, 5) for kind in strategies.KINDS]
    return b"".join(parts) + strategies.special_floats(width) if width > 1 else b"".join(parts)


@pytest.mark.parametrize("name", DTYPES)
@pytest.mark.parametrize("big_endian", [False, True])
def test_threads_and_instruction_sets_give_the_same_bytes(name: str, big_endian: bool) -> None:
    big_endian = big_endian and z4ai.dtype_width(name) > 1
    content = content_of(name)
    for chunk_nbytes in (64, 4096, 1 << 20):
        options = {"dtype": name, "chunk_nbytes": chunk_nbytes, "big_endian": big_endian}
        made = {
            (isa, threads): encode(content, **options, threads=threads, isa=isa)
            for isa in ISAS
            for threads in THREADS
        }
        assert {isa for isa, _ in made} == set(_dispatch.runnable())
        (blob,) = set(made.values())
        assert blob == encode(content, **options)
        for isa in ISAS:
            for threads in THREADS:
                assert decode(blob, isa=isa, threads=threads) == content
        assert decode_frame(blob).content == content


@pytest.mark.parametrize("name", [None, *DTYPES])
@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
def test_the_public_functions_give_the_same_bytes_on_any_number_of_threads(
    name: str | None, effort: str
) -> None:
    content = strategies.weights(5_000_003, dtypes.resolve(name).width)
    made = [z4ai.compress(content, dtype=name, effort=effort, threads=n) for n in (None, *THREADS)]
    assert len(set(made)) == 1
    for n in THREADS:
        assert z4ai.decompress(made[0], threads=n) == content


def test_the_environment_does_not_change_the_bytes() -> None:
    """The whole library under each instruction set, each in a process of its own."""
    program = (
        "import hashlib, sys, numpy as np, z4ai\n"
        "from z4ai._fast import _dispatch\n"
        "h = hashlib.sha256()\n"
        "x = (np.arange(300000, dtype=np.uint64) * 0x9E3779B97F4A7C15 >> 40).astype(np.uint32)\n"
        "for name in ('bf16', 'fp32', 'int64', 'int8', None):\n"
        "    for y in (x, x >> 9, x // 70001):\n"
        "        blob = z4ai.compress(y, dtype=name)\n"
        "        assert z4ai.decompress(blob) == y.tobytes()\n"
        "        h.update(blob)\n"
        "print(_dispatch.current(), h.hexdigest())\n"
    )
    said = {}
    for isa in ISAS:
        env = {**os.environ, "Z4AI_ISA": isa, "Z4AI_NUM_THREADS": str(len(said) + 1)}
        ran = subprocess.run(
            [sys.executable, "-c", program], env=env, check=True, capture_output=True, text=True
        )
        name, digest = ran.stdout.split()
        said[name] = digest
    assert set(said) == set(_dispatch.runnable())
    assert len(set(said.values())) == 1


@pytest.mark.parametrize("name", DTYPES)
def test_the_stock_library_decodes_every_stream_to_its_plane(name: str) -> None:
    """Streams of production frames against zstandard and the reference's planes, one by one."""
    compared = {STORE: 0, CONSTANT: 0, ZSTD: 0}
    content = content_of(name)
    for chunk_nbytes in (256, 4096, 1 << 20):
        frame = decode_frame(encode(content, dtype=name, chunk_nbytes=chunk_nbytes))
        at = 0
        for chunk in frame.chunks:
            piece = content[at : at + chunk.content_nbytes]
            at += chunk.content_nbytes
            transform, width = TRANSFORMS[chunk.transform]
            whole = len(piece) - len(piece) % width
            for plane, stream in zip(
                planes.split(piece[:whole], transform), chunk.streams, strict=True
            ):
                compared[stream.codec] += 1
                if stream.codec == ZSTD:
                    decoder = zstandard.ZstdDecompressor()
                    assert decoder.decompress(stream.encoded, allow_extra_data=False) == plane
                elif stream.codec == CONSTANT:
                    assert stream.encoded * len(plane) == plane
                else:
                    assert stream.encoded == plane
            assert chunk.tail == piece[whole:]
        assert at == len(content)
    assert all(compared.values()), f"streams compared: {compared}"


def test_many_callers_at_once_do_not_disturb_each_other() -> None:
    contents = [strategies.weights(400_000 + k, 2, k) for k in range(6)]
    wanted = [z4ai.compress(content, dtype="bf16", threads=1) for content in contents]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(5):
            blob = z4ai.compress(contents[k], dtype="bf16")
            if blob != wanted[k] or z4ai.decompress(blob) != contents[k]:
                wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_one_frame_may_be_decoded_by_many_at_once() -> None:
    content = strategies.weights(3_000_000, 4)
    blob = z4ai.compress(content, dtype="fp32")
    outs = [np.zeros(len(content), np.uint8) for _ in range(4)]

    def work(out: np.ndarray) -> None:  # type: ignore[type-arg]
        z4ai.decompress(blob, out=out, threads=2)

    workers = [threading.Thread(target=work, args=(out,)) for out in outs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert all(out.tobytes() == content for out in outs)
