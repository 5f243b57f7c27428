"""One delta frame, in memory: find its chunks, decode them, put coded ones together.

Specification: docs/format/delta.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai import frame
from z4ai._fast.chunks import JOB, BytesBuilder
from z4ai.decoder import decode_jobs, index_of_buffer, jobs_of_chunks, models_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.decoder import FrameIndex
    from z4ai.options import Limits

__all__ = ["decode_delta", "index_of_delta", "write_delta"]


def index_of_delta(buf: memoryview, limits: Limits) -> FrameIndex:
    """Find the chunks of a delta frame that lies in memory, alone."""
    return index_of_buffer(buf, limits, delta=True)


def decode_delta(
    buf: memoryview,
    index: FrameIndex,
    reference: NDArray[np.uint8],
    out: NDArray[np.uint8],
    threads: int | None,
) -> None:
    """Decode a whole delta frame that lies in memory into `out`.

    Parameters
    ----------
    buf : memoryview
        The frame.
    index : FrameIndex
        From `index_of_delta`.
    reference : ndarray of uint8
        Flat and contiguous. That it is the right one the caller has checked; with another one
        the checksums of the chunks fail.
    out : ndarray of uint8
        As long as the content.
    threads : int or None
        The caller's wish.

    Raises
    ------
    FormatError
    """
    nbytes = index.content_nbytes
    if len(reference) < nbytes:
        padded = np.zeros(nbytes, np.uint8)
        padded[: len(reference)] = reference
        reference = padded
    jobs = jobs_of_chunks(buf, index, 0, index.n_chunks)
    jobs["reference_offset"] = jobs["seed"]
    encoded = np.frombuffer(buf, np.uint8)
    decode_jobs(encoded, out, jobs, models_of([index]), threads, reference=reference)


def write_delta(
    header: frame.FrameHeader, chunks: list[tuple[np.void, NDArray[np.uint8]]]
) -> bytes:
    """Make a delta frame of coded chunks: their jobs, and their bytes with gaps for headers."""
    head = frame.write_header(header)
    # What the trailer's checksum is seeded by.
    header = header._replace(checksum=frame.checksum_of(head))
    n = len(chunks)
    sizes = [len(chunk) for _, chunk in chunks]
    end_nbytes = frame.trailer_nbytes(n) if header.has_trailer else 0
    builder = BytesBuilder(len(head) + sum(sizes) + end_nbytes)
    at = len(head)
    with memoryview(builder) as view:
        view[:at] = head
        jobs = np.array([job for job, _ in chunks], JOB)
        for k, (_, chunk) in enumerate(chunks):
            view[at : at + len(chunk)] = chunk.data
            jobs["encoded_offset"][k] = at
            at += len(chunk)
        frame.write_chunk_headers(view, jobs)
        if end_nbytes:
            nbytes = header.content_nbytes or 0
            view[at : at + end_nbytes] = frame.write_trailer(header, sizes, nbytes)
    return builder.finish(at + end_nbytes)
