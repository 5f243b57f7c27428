"""Write one frame, run by run: header, chunks of the content as it comes, trailer."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from z4ai import frame
from z4ai._fast.chunks import JOB, BytesBuilder
from z4ai.codecs import run
from z4ai.copies import dense, find
from z4ai.dtypes import OPAQUE
from z4ai.options import NO_LIMITS
from z4ai.parts import BLOCKS, MAX_DEPTH, ZEROS
from z4ai.plan import PART_CHUNK_NBYTES, STORE_PLAN, adapt_plan, make_plan

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.plan import Plan
    from z4ai.stages._part import Part
    from z4ai.stages.blocks import Layout

__all__ = ["FrameEncoder", "encode_content", "encode_frame", "find_copies"]

# Up to here the tier below is tried as well: where everything is small, samples say little.
_SURE_NBYTES = 1 << 16
# Repeats are not looked for in less.
_LEAST_COPIED_NBYTES = 1 << 15
# What a large part of a chunk of blocks is judged by, and in how many pieces.
_JUDGED_NBYTES, _STRETCHES = 1 << 20, 32
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
        self._begin(header, plan)
        self.content_nbytes = 0
        self._sizes: list[int] = []
        self._saved = 0

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
        self._saved += int(jobs["saved"].sum())

    def worth(self, saved: int) -> bool:
        """Tell whether a model that saves so many bytes of chunks pays for its record."""
        model = self.plan.model
        return model is None or saved > len(model.record) + frame.RECORD_HEADER_NBYTES

    @property
    def pays(self) -> bool:
        """Whether the model has paid, by what has been encoded."""
        return self.worth(self._saved)

    def drop_model(self) -> None:
        """Go back to planes, before anything was written."""
        self._begin(self.header._replace(model_record=b"", model=None), self.plan.without_model())

    def _begin(self, header: frame.FrameHeader, plan: Plan) -> None:
        if plan.model is not None:
            header = header._replace(model_record=plan.model.record)
        self.header_bytes = frame.write_header(header)
        self.header = frame.parse_header(memoryview(self.header_bytes), NO_LIMITS)
        self.plan = plan

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
        end = self.encode_jobs(content, out, offset, jobs, threads, self.models)
        self.seal(out.data, jobs)
        return end

    def encode_jobs(
        self,
        content: NDArray[np.uint8],
        out: NDArray[np.uint8],
        offset: int,
        jobs: NDArray[np.void],
        threads: int | None,
        models: Sequence[NDArray[np.uint8]],
    ) -> int:
        """Encode jobs of one frame, or of several of one kind of plan; -> where they end."""
        plan = self.plan
        if plan.blocks is not None:
            return self._encode_blocks(content, out, offset, jobs, threads)
        if plan.zstd_levels is not None:
            return run.encode_library_run(
                content, out, offset, jobs, _GAP, _GAP_STREAM, threads, plan.zstd_levels, plan.long
            )
        if not plan.stages and plan.effort != "max":
            return run.encode_run(content, out, offset, jobs, _GAP, _GAP_STREAM, threads, models)

        from z4ai.candidates import encode_best  # noqa: PLC0415 - with libraries, and rarely needed

        def encode_one(job: np.void) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
            return encode_best(
                content,
                job,
                plan,
                self.header.dtype,
                models,
                (_GAP, _GAP_STREAM),
                self._encode_part,
            )

        slow = plan.effort == "max"
        return run.encode_each(encode_one, out, offset, jobs, threads, slow=slow)

    def _encode_blocks(
        self,
        content: NDArray[np.uint8],
        out: NDArray[np.uint8],
        offset: int,
        jobs: NDArray[np.void],
        threads: int | None,
    ) -> int:
        from z4ai.candidates import encode_blocks  # noqa: PLC0415 - with libraries, rarely needed

        def encode_one(job: np.void) -> tuple[NDArray[np.void], NDArray[np.uint8]]:
            return encode_blocks(content, job, self.plan, (_GAP, _GAP_STREAM), self._encode_part)

        return run.encode_each(
            encode_one, out, offset, jobs, threads, slow=self.plan.effort == "max"
        )

    def _encode_part(self, part: Part, transform: int) -> bytes:
        """Make a frame of a part; zeros leave what may have a structure again, as fields may."""
        depth = self.plan.depth + 1 if transform in (ZEROS, BLOCKS) else MAX_DEPTH
        plan = make_plan(part.dtype, self.plan.effort)._replace(
            chunk_nbytes=PART_CHUNK_NBYTES, depth=depth
        )
        judged = _stretches(part) if transform == BLOCKS else part.content
        plan = adapt_plan(plan, judged, part.dtype, part.shape, nbytes=len(part.content))
        header = frame.FrameHeader(part.dtype, len(part.content), plan.chunk_nbytes)
        return encode_frame(part.content, header, plan, 1)

    def trailer(self) -> bytes:
        """Return the trailer, or nothing where the frame needs none."""
        if not self.header.has_trailer:
            return b""
        return frame.write_trailer(self.header, self._sizes, self.content_nbytes)


def _stretches(part: Part) -> NDArray[np.uint8]:
    """Take stretches of whole rows from all over a part of blocks, to judge it by."""
    content, row = part.content, part.dtype.width
    if part.shape is not None:
        row *= part.shape[-1]
    size = _JUDGED_NBYTES // _STRETCHES // row * row
    if len(content) <= 2 * _JUDGED_NBYTES or not size:
        return content
    gap = (len(content) - size) // (_STRETCHES - 1) // row * row
    return np.concatenate([content[k * gap : k * gap + size] for k in range(_STRETCHES)])


def find_copies(
    content: NDArray[np.uint8], dtype: DType, shape: tuple[int, ...] | None
) -> tuple[NDArray[np.uint64] | None, NDArray[np.uint8], tuple[int, ...] | None]:
    """Find long repeats; -> the copies, what is left of the content, and the shape of that."""
    if len(content) < _LEAST_COPIED_NBYTES:
        return None, content, shape
    if dtype is OPAQUE:
        shape = None
    row_nbytes = prod(shape[1:]) * dtype.width if shape is not None and len(shape) > 1 else 0
    in_rows = dtype.width < row_nbytes <= _LEAST_COPIED_NBYTES // 16
    copies = find(content, row_nbytes if in_rows else dtype.width)
    if not len(copies):
        return None, content, shape
    content = dense(content, copies)
    if shape is not None:
        shape = (len(content) // row_nbytes, *shape[1:]) if in_rows else None
    return copies, content, shape


def encode_content(
    content: NDArray[np.uint8],
    header: frame.FrameHeader,
    effort: str,
    shape: tuple[int, ...] | None,
    threads: int | None,
    blocks: Layout | None = None,
    adapted: Plan | None = None,
) -> bytes:
    """Compress a whole content that lies in memory.

    Parameters
    ----------
    content : ndarray of uint8
        The content.
    header : FrameHeader
        As it will be written, except that chunk size and copies are chosen here.
    effort : str
        The tier.
    shape : tuple of int or None
        Of the elements, in the order of the content.
    threads : int or None
        The caller's wish.
    blocks : Layout, optional
        What opaque content is made of.
    adapted : Plan, optional
        The plan of a tier above the fastest, where that has been made; `find_copies` found none.
    """
    plan = make_plan(header.dtype, effort, blocks)
    if effort == "fast":
        return encode_frame(content, header._replace(chunk_nbytes=plan.chunk_nbytes), plan, threads)
    whole, whole_shape = content, shape
    copies = None
    if adapted is None:
        copies, content, shape = find_copies(content, header.dtype, shape)
    header = header._replace(copies=copies, content_nbytes=len(content))
    if copies is not None and blocks is not None:
        plan = plan._replace(blocks=blocks.without(copies, len(whole)))
    plan = adapted or adapt_plan(
        plan, content, header.dtype, shape, big_endian=header.big_endian, in_memory=True
    )
    header = header._replace(chunk_nbytes=plan.chunk_nbytes)
    coded = encode_frame(content, header, plan, threads)
    if effort == "balanced" and len(whole) <= _SURE_NBYTES:
        below = header._replace(copies=None, content_nbytes=len(whole))
        return min(coded, encode_content(whole, below, "fast", None, threads), key=len)
    if effort == "max":
        # Searching is no promise: what the tier below makes is the least that counts.
        below = header._replace(copies=None, content_nbytes=len(whole))
        other = encode_content(whole, below, "balanced", whole_shape, threads, blocks)
        return min(coded, other, key=len)
    return coded


def encode_frame(
    content: NDArray[np.uint8], header: frame.FrameHeader, plan: Plan, threads: int | None
) -> bytes:
    """Compress flat bytes to the frame that `header` and `plan` describe, or to a smaller one."""
    encoder = FrameEncoder(header, plan)
    begin = len(encoder.header_bytes)
    end_nbytes = frame.trailer_nbytes(header.n_chunks or 0) if header.has_trailer else 0
    builder = BytesBuilder(begin + encoder.bound(len(content)) + end_nbytes)
    with memoryview(builder) as view:
        out = np.frombuffer(view, np.uint8)
        view[:begin] = encoder.header_bytes
        end = encoder.encode(content, out, begin, threads)
        trailer = encoder.trailer()
        view[end : end + len(trailer)] = trailer
        del out
    end += len(trailer)
    if not encoder.pays:
        del builder  # before the next one: both would be as large as the content
        return encode_frame(content, header, plan.without_model(), threads)
    if plan is not STORE_PLAN and end > begin + _stored_nbytes(len(content)):
        # Nothing was gained and the content spans many chunks: fewer headers are smaller.
        del builder
        header = header._replace(chunk_nbytes=STORE_PLAN.chunk_nbytes)
        return encode_frame(content, header, STORE_PLAN, threads)
    return builder.finish(end)


def _stored_nbytes(content_nbytes: int) -> int:
    """Bytes behind the header of a frame that stores its content."""
    n = -(-content_nbytes // STORE_PLAN.chunk_nbytes)
    chunk_headers = n * (frame.MIN_CHUNK_NBYTES - 1)
    return content_nbytes + chunk_headers + (frame.trailer_nbytes(n) if n > 1 else 0)
