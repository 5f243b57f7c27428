"""Frames by the production encoder with every choice open: chunk size, planes, threads, kernels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import reference_writer as writer
import strategies
from records import RECORDS

import z4ai
from z4ai import frame
from z4ai._fast import chunks
from z4ai._reference import planes
from z4ai.decoder import index_of_buffer, jobs_of_chunks, models_of
from z4ai.dtypes import resolve
from z4ai.encoder import FrameEncoder
from z4ai.options import Limits
from z4ai.plan import make_plan

GAP, GAP_STREAM = frame.CHUNK_FIXED_NBYTES, frame.CHUNK_STREAM_NBYTES


def encode(
    content: bytes,
    *,
    dtype: Any = None,
    chunk_nbytes: int = 1 << 20,
    layout: int | None = None,
    level: int | None = None,
    shape: tuple[int, ...] | None = None,
    fortran: bool = False,
    big_endian: bool = False,
    streamed: bool = False,
    run_chunks: int | None = None,
    threads: int = 1,
    isa: str | None = None,
) -> bytes:
    """One frame. `run_chunks` chunks a call of the encoder; `isa` runs the kernels of that name.

    The output buffer is exactly as large as the encoder asks for, and guarded.
    """
    resolved = resolve(dtype)
    header = frame.FrameHeader(
        dtype=resolved,
        content_nbytes=None if streamed else len(content),
        chunk_nbytes=chunk_nbytes,
        shape=shape,
        fortran=fortran,
        big_endian=big_endian,
    )
    usual = make_plan(resolved, "balanced")
    plan = usual._replace(
        chunk_nbytes=chunk_nbytes,
        layout=usual.layout if layout is None else layout,
        other_layout=usual.other_layout if layout is None else layout,
        zstd_levels=None if level is None else (level,) if level else (),
    )
    encoder = FrameEncoder(header, plan)
    made = [encoder.header_bytes]
    step = len(content) if run_chunks is None else run_chunks * chunk_nbytes
    source = np.frombuffer(content, np.uint8)
    for at in range(0, len(content), max(step, 1)):
        piece = source[at : at + step].copy()
        room = np.full(encoder.bound(len(piece)) + 64, 0xA5, np.uint8)
        if isa is None:
            end = encoder.encode(piece, room[:-64], 0, threads)
        else:
            jobs = encoder.jobs(0, len(piece))
            raw = jobs.view(np.uint8)
            end = chunks.encode(piece, room[:-64], 0, raw, GAP, GAP_STREAM, threads, isa=isa)
            encoder.seal(room.data, jobs)
        assert (room[-64:] == 0xA5).all(), "the encoder wrote behind its output"
        assert piece.tobytes() == content[at : at + step], "the encoder wrote to its input"
        made.append(room[:end].tobytes())
    made.append(encoder.trailer())
    return b"".join(made)


def decode(blob: bytes, *, threads: int = 1, isa: str | None = None) -> bytes:
    """The content of a frame by the kernels alone, which must know all of its streams."""
    buf = memoryview(blob)
    index = index_of_buffer(buf, Limits())
    jobs = jobs_of_chunks(buf, index, 0, index.n_chunks)
    room: npt.NDArray[np.uint8] = np.full(index.content_nbytes + 64, 0xA5, np.uint8)
    raw = jobs.view(np.uint8)
    models = models_of([index])
    ok = chunks.decode(
        np.frombuffer(blob, np.uint8), room[:-64], raw, threads, isa=isa, models=models
    )
    assert ok, f"status {jobs['status'].tolist()}"
    assert (room[-64:] == 0xA5).all(), "the decoder wrote behind its output"
    return room[:-64].tobytes()


@dataclass(frozen=True)
class Sample:
    """A small valid frame and what it holds."""

    frame: bytes
    content: bytes


def samples() -> dict[str, Sample]:
    """Small frames of every kind: dtypes, codecs, transforms, chunks, arrays, orders, trailers."""
    made: dict[str, Sample] = {}

    def add(name: str, frame: bytes, content: bytes) -> None:
        assert name not in made
        made[name] = Sample(frame, content)

    for name, row in strategies.DTYPES.items():
        content = strategies.weights(13 * row.width + 1, row.width, row.code)
        add(f"dtype {name}", z4ai.compress(content, dtype=name), content)
    add("empty", z4ai.compress(b"", dtype="bf16"), b"")
    add("one byte", z4ai.compress(b"\x07"), b"\x07")
    add("constant", z4ai.compress(bytes(500), dtype="fp32"), bytes(500))
    text = strategies.make("text", 300, 1, 1)
    for effort in ("fast", "max"):
        add(f"library {effort}", z4ai.compress(text, effort=effort), text)
    for name in ("bf16", "int16", "fp32", "fp64"):
        width = strategies.DTYPES[name].width
        content = strategies.weights(600 * width + width - 1, width)
        add(f"coded {name}", z4ai.compress(content, dtype=name), content)
        mixed = strategies.weights(80, width) + bytes(64) + strategies.noise(20 + width - 1)
        for streamed in (False, True):
            for big_endian in (False, True):
                frame = encode(
                    mixed,
                    dtype=name,
                    chunk_nbytes=48,
                    streamed=streamed,
                    big_endian=big_endian,
                )
                where = f"{'streamed ' * streamed}{'big-endian ' * big_endian}{name}"
                add(f"chunks {where}", frame, mixed)
    for name in ("bool", "int16", "fp32", "bf16", "complex128", "int4_unpacked"):
        array = strategies.array_of(name, (2, 3, 2))
        add(f"array {name}", z4ai.compress_array(array), array.tobytes())
    for name, array in {
        "Fortran": np.asfortranarray(np.arange(12, dtype=np.float32).reshape(3, 4)),
        "big-endian": np.arange(12, dtype=">i4").reshape(3, 4),
        "big-endian Fortran": np.asfortranarray(np.arange(6, dtype=">f8").reshape(3, 2)),
        "0-d": np.array(2.5),
        "empty": np.zeros((3, 0, 300), np.float16),
        "wide": np.zeros((1,) * 64, np.uint8),
    }.items():
        add(f"array {name}", z4ai.compress_array(array), array.tobytes("A"))
    add("streamed empty", encode(b"", streamed=True), b"")
    for record in RECORDS.values():
        plane = next(p for name, p in record.planes.items() if 1 < len(p) < 20 or name == "zeros")
        number = writer.CODEC_IDS[record.name]
        for name, encoder in record.encoders.items():
            streams = [(number, encoder(plane)), (0, bytes(len(plane)))][: 1 + (len(plane) < 20)]
            transform = "bytes2" if len(streams) == 2 else "bytes1"
            content = planes.interleave([plane, bytes(len(plane))][: len(streams)], transform)
            frame = writer.write_frame(
                content, dtype="int16", plans=[(transform, streams)], tables=[(40000, b"x")]
            )
            add(f"codec {record.name} {name}", frame, content)
    return made
