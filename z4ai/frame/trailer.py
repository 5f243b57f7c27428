"""The trailer of a frame on the wire: how large each of many chunks is.

Specification: docs/format/frame.md.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from z4ai import _wire
from z4ai._fast.hashing import xxh3_64
from z4ai.errors import ChecksumError, CorruptError, LimitError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.frame.header import FrameHeader
    from z4ai.options import Limits

__all__ = [
    "TRAILER_END_NBYTES",
    "is_end_mark",
    "parse_trailer",
    "parse_trailer_claim",
    "trailer_nbytes",
    "write_trailer",
]

_TRAILER_END = Struct("<QQQ4s")
TRAILER_END_NBYTES = _TRAILER_END.size
# Begins the trailer, where a chunk could begin: one of no bytes.
_END_MARK = bytes(4)


def is_end_mark(buf: memoryview, pos: int) -> bool:
    """Tell whether the trailer begins at `pos`, and no chunk."""
    return bytes(buf[pos : pos + len(_END_MARK)]) == _END_MARK


def trailer_nbytes(n_chunks: int) -> int:
    """Size of the trailer of a frame of `n_chunks` chunks, if it has one."""
    return len(_END_MARK) + 4 * n_chunks + _TRAILER_END.size


def write_trailer(header: FrameHeader, sizes: Sequence[int], content_nbytes: int) -> bytes:
    """Put the trailer of a written frame on the wire."""
    table = _END_MARK + np.asarray(sizes, "<u4").tobytes()
    fixed = _TRAILER_END.pack(len(sizes), content_nbytes, 0, _wire.MAGIC_FRAME_END)
    checksum = xxh3_64(table + fixed[:16], header.checksum)
    return table + fixed[:16] + _wire.U64.pack(checksum) + _wire.MAGIC_FRAME_END


def parse_trailer_claim(buf: memoryview, end: int) -> int:
    """Read the number of chunks that the trailer at the end of `buf` claims; `end`: for messages.

    Raises
    ------
    TruncatedError
        If there is no trailer: the number would be one of other bytes.
    """
    if len(buf) < TRAILER_END_NBYTES or bytes(buf[-4:]) != _wire.MAGIC_FRAME_END:
        msg = f"frame does not end with its trailer's magic {_wire.MAGIC_FRAME_END!r}"
        raise TruncatedError(msg, offset=end)
    n_chunks: int = _TRAILER_END.unpack_from(buf, len(buf) - TRAILER_END_NBYTES)[0]
    return n_chunks


def parse_trailer(
    buf: memoryview, header: FrameHeader, limits: Limits, *, base: int = 0
) -> tuple[NDArray[np.uint32], int]:
    """Parse the trailer that `buf` ends with.

    Parameters
    ----------
    buf : memoryview
        The whole trailer, or bytes that end with it.
    header : FrameHeader
        Header of the same frame.
    limits : Limits
        For the table of chunks.
    base : int
        Offset of `buf` in the frame, for messages.

    Returns
    -------
    sizes : ndarray of uint32
        Encoded bytes of each chunk.
    content_nbytes : int
        Content of the frame.
    """
    end = base + len(buf)
    n_chunks = parse_trailer_claim(buf, end)
    _, content_nbytes, checksum, _ = _TRAILER_END.unpack_from(buf, len(buf) - TRAILER_END_NBYTES)
    start = len(buf) - trailer_nbytes(n_chunks)
    if start < 0:
        msg = f"trailer of {n_chunks} chunks does not fit the frame"
        raise CorruptError(msg, offset=end - TRAILER_END_NBYTES)
    if 4 * n_chunks > limits.max_table_nbytes:
        msg = f"table of {n_chunks} chunks exceeds the limit of {limits.max_table_nbytes} bytes"
        raise LimitError(msg, option="max_table_nbytes")
    if xxh3_64(buf[start : len(buf) - 12], header.checksum) != checksum:
        msg = "frame trailer does not match its checksum"
        raise ChecksumError(msg, offset=end - 12)
    expected = header.content_nbytes
    if (
        not is_end_mark(buf, start)
        or (expected is not None and (content_nbytes != expected or n_chunks != header.n_chunks))
        or n_chunks != -(-content_nbytes // header.chunk_nbytes)
    ):
        msg = f"trailer of {n_chunks} chunks and {content_nbytes} bytes does not match the header"
        raise CorruptError(msg, offset=base + start)
    return np.frombuffer(buf, "<u4", n_chunks, start + len(_END_MARK)), content_nbytes
