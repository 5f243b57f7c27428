"""Frames by the production encoder with every choice open: chunk size, planes, threads, kernels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from z4ai import frame
from z4ai._fast import chunks
from z4ai.decoder import index_of_buffer, jobs_of_chunks
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
    plan = replace(
        usual,
        chunk_nbytes=chunk_nbytes,
        layout=usual.layout if layout is None else layout,
        other_layout=usual.other_layout if layout is None else layout,
        zstd_level=level,
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
    ok = chunks.decode(np.frombuffer(blob, np.uint8), room[:-64], raw, threads, isa=isa)
    assert ok, f"status {jobs['status'].tolist()}"
    assert (room[-64:] == 0xA5).all(), "the decoder wrote behind its output"
    return room[:-64].tobytes()
