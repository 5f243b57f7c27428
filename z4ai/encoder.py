"""Write one frame, run by run: header, chunks of the content as it comes, trailer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai import frame
from z4ai._fast.chunks import JOB
from z4ai.codecs import run

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.plan import Plan

__all__ = ["FrameEncoder"]

_GAP, _GAP_STREAM = frame.CHUNK_FIXED_NBYTES, frame.CHUNK_STREAM_NBYTES


class FrameEncoder:
    """Encoder of one frame; remembers what the trailer needs.

    Parameters
    ----------
    header : FrameHeader
        As it will be written; its `nbytes` and `checksum` are filled in here.
    plan : Plan
        How to code the content.

    Attributes
    ----------
    header_bytes : bytes
        The header on the wire.
    """

    def __init__(self, header: frame.FrameHeader, plan: Plan) -> None:
        if plan.model is not None:
            header = header._replace(model_record=plan.model.record)
        self.header_bytes = frame.write_header(header)
        self.header = frame.parse_header(memoryview(self.header_bytes), frame.NO_LIMITS)
        self.plan = plan
        self.content_nbytes = 0
        self._sizes: list[int] = []

    def bound(self, content_nbytes: int) -> int:
        """Room that `encode` needs for so much content."""
        chunk_nbytes = self.header.chunk_nbytes
        whole, rest = divmod(content_nbytes, chunk_nbytes)
        overhead = _GAP + _GAP_STREAM
        total = content_nbytes + (whole + (rest > 0)) * overhead
        # What the last chunk may touch before it turns out that storing it is smaller.
        largest = min(content_nbytes, chunk_nbytes)
        return total + run.encode_bound(largest, self.plan.transform, _GAP, _GAP_STREAM) - largest

    @property
    def models(self) -> list[NDArray[np.uint8]]:
        """Models of the jobs, for the kernels."""
        return [] if self.plan.model is None else [self.plan.model.block]

    def jobs(self, content_offset: int, content_nbytes: int, lead: int = 0) -> NDArray[np.void]:
        """Describe the next content as jobs of the kernels.

        Parameters
        ----------
        content_offset, content_nbytes : int
            Where the content lies in its buffer. A multiple of the chunk size, unless it is the
            end of the frame's content.
        lead : int
            Bytes to leave in front of the first chunk.
        """
        chunk_nbytes = self.header.chunk_nbytes
        n = -(-content_nbytes // chunk_nbytes)
        jobs = np.zeros(n, JOB)
        starts = np.arange(n, dtype=np.uint64) * np.uint64(chunk_nbytes)
        jobs["content_offset"] = starts + np.uint64(content_offset)
        jobs["content_nbytes"] = np.minimum(
            np.uint64(content_nbytes) - starts, np.uint64(chunk_nbytes)
        )
        jobs["seed"] = starts + np.uint64(self.content_nbytes)
        jobs["layout"] = self.plan.transform
        jobs["planes"] = self.plan.layout
        jobs["model"] = self.plan.model is not None
        jobs["other_layout"] = self.plan.other_layout
        jobs["swap"] = self.header.big_endian
        if n:
            jobs["lead"][0] = lead
        self.content_nbytes += content_nbytes
        return jobs

    def seal(self, out: memoryview, jobs: NDArray[np.void]) -> None:
        """Write the headers of chunks that have been encoded."""
        frame.write_chunk_headers(out, jobs)
        self._sizes += jobs["encoded_nbytes"].tolist()

    def encode(
        self,
        content: NDArray[np.uint8],
        out: NDArray[np.uint8],
        offset: int,
        threads: int | None,
    ) -> int:
        """Encode the next content to `out` from `offset` on; -> where it ends.

        `out` must offer `bound(len(content))` bytes behind `offset`.
        """
        jobs = self.jobs(0, len(content))
        if self.plan.zstd_levels is None:
            end = run.encode_run(
                content, out, offset, jobs, _GAP, _GAP_STREAM, threads, self.models
            )
        else:
            end = run.encode_library_run(
                content, out, offset, jobs, _GAP, _GAP_STREAM, threads, self.plan.zstd_levels
            )
        self.seal(out.data, jobs)
        return end

    def trailer(self) -> bytes:
        """Return the trailer, or nothing where the frame needs none."""
        if not self.header.has_trailer:
            return b""
        return frame.write_trailer(self.header, self._sizes, self.content_nbytes)
