"""The header of a chunk on the wire: to the kernels' description of it, and back.

Specification: docs/format/frame.md.
"""

from __future__ import annotations

from functools import cache
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from z4ai.codecs import CODECS, CONTEXTS, FRAME, STORE
from z4ai.dtypes import (
    BYTES1,
    DIFFERENCE_WIDTHS,
    FIRST_PARTS,
    SAME,
    SYMBOLS1,
    TRANSFORM_WIDTHS,
    XOR,
)
from z4ai.errors import CorruptError, TruncatedError, UnsupportedCodecError
from z4ai.frame.header import models_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from z4ai.frame.header import FrameHeader

__all__ = [
    "CHUNK_FIXED_NBYTES",
    "CHUNK_HEAD_NBYTES",
    "CHUNK_SIZES_NBYTES",
    "CHUNK_STREAM_NBYTES",
    "MIN_CHUNK_NBYTES",
    "chunk_params",
    "least_chunk_nbytes",
    "most_chunk_nbytes",
    "parse_chunk_header",
    "parse_chunk_sizes",
    "write_chunk_headers",
]

_CHUNK = Struct("<IIQBBH")
_SIZES = Struct("<II")  # the first fields of a chunk
_STREAM = Struct("<BI")
_MAX_STREAMS = 8
_SYMBOLS_PARAMS = Struct("<IIHH")
# A row of z4ai._fast.chunks.JOB: packed at once, since setting its fields one by one takes as long
# as decoding a small tensor.
_JOB_ROW = Struct("<6Q8QQ8x8I8B4xIIIHHH6xBBB3xB5x")
# Transforms to parts: each stream is a frame.
_LAST_PARTS = 20

CHUNK_FIXED_NBYTES = _CHUNK.size
CHUNK_SIZES_NBYTES = _SIZES.size
CHUNK_STREAM_NBYTES = _STREAM.size
# What `parse_chunk_header` looks at: no more than so much of the beginning of a chunk.
CHUNK_HEAD_NBYTES = _CHUNK.size + _MAX_STREAMS * _STREAM.size + _SYMBOLS_PARAMS.size
# The smallest chunk: one stream of one byte.
MIN_CHUNK_NBYTES = _CHUNK.size + _STREAM.size + 1
# How much larger than its content a chunk may claim to be.
_MAX_EXPANSION = 1 << 16


def least_chunk_nbytes(header: FrameHeader) -> int:
    """Bytes of the smallest chunk that such a frame may have."""
    return _CHUNK.size if header.delta else MIN_CHUNK_NBYTES


def most_chunk_nbytes(header: FrameHeader) -> int:
    """Encoded bytes that a chunk of the frame may claim at most."""
    return header.chunk_nbytes + _MAX_EXPANSION


class _Shape(NamedTuple):
    """What chunks of a transform consist of.

    least, most : streams. first, other : the codec of stream 0, and of the others, where it is one.
    """

    width: int
    least: int
    most: int
    first: int | None = None
    other: int | None = None
    any_params: bool = False


@cache
def _shape_of(transform: int, width: int, delta: bool, big_endian: bool) -> _Shape | None:
    """Find what chunks of a transform consist of; None if a frame cannot have such."""
    if FIRST_PARTS <= transform <= _LAST_PARTS:
        return _Shape(width, 1, _MAX_STREAMS, FRAME, FRAME, any_params=True)
    if transform < len(TRANSFORM_WIDTHS):
        width = TRANSFORM_WIDTHS[transform]
        return _Shape(width, width, width, CONTEXTS if transform >= SYMBOLS1 else None)
    if not delta:
        return None
    if transform in (SAME, XOR):
        return _Shape(1, transform - SAME, transform - SAME, FRAME)
    if transform in DIFFERENCE_WIDTHS and not big_endian:
        return _Shape(DIFFERENCE_WIDTHS[transform], 2, 2, CONTEXTS, STORE)
    return None


def _model_number(transform: int, header: FrameHeader) -> int:
    """Number, from 1, of the model of such a chunk among those of the frame; 0: it has none."""
    if transform in DIFFERENCE_WIDTHS:
        return 0 if header.difference is None else len(models_of(header))
    return int(header.model is not None)


def write_chunk_headers(out: memoryview, jobs: NDArray[np.void]) -> None:
    """Write the headers of encoded chunks into the gaps that the encoder left for them."""
    for offset, encoded, content, checksum, layout, n, codecs, sizes, *params in zip(
        jobs["encoded_offset"].tolist(),
        jobs["encoded_nbytes"].tolist(),
        jobs["content_nbytes"].tolist(),
        jobs["checksum"].tolist(),
        jobs["layout"].tolist(),
        jobs["n_streams"].tolist(),
        jobs["stream_codec"].tolist(),
        jobs["stream_nbytes"].tolist(),
        jobs["params_nbytes"].tolist(),
        jobs["rows_nbytes"].tolist(),
        jobs["rare_nbytes"].tolist(),
        jobs["n_rare"].tolist(),
        jobs["n_raw"].tolist(),
        strict=True,
    ):
        _CHUNK.pack_into(out, offset, encoded, content, checksum, layout, n, params[0])
        for p in range(n):
            _STREAM.pack_into(out, offset + _CHUNK.size + p * _STREAM.size, codecs[p], sizes[p])
        if params[0] and (layout < FIRST_PARTS or layout in DIFFERENCE_WIDTHS):
            _SYMBOLS_PARAMS.pack_into(out, offset + _CHUNK.size + n * _STREAM.size, *params[1:])


def chunk_params(buf: memoryview, offset: int) -> memoryview:
    """Return the parameters of the chunk at `offset`, whose header has been parsed."""
    _, _, _, _, n, nbytes = _CHUNK.unpack_from(buf, offset)
    begin = offset + _CHUNK.size + n * _STREAM.size
    return buf[begin : begin + nbytes]


def parse_chunk_sizes(buf: memoryview, pos: int) -> tuple[int, int]:
    """Read what the chunk at `pos` claims: its bytes, and those of its content."""
    encoded, content = _SIZES.unpack_from(buf, pos)
    return encoded, content


def parse_chunk_header(
    buf: memoryview,
    pos: int,
    end: int,
    header: FrameHeader,
    k: int,
    rows: memoryview,
    row: int,
    content_offset: int,
) -> int:
    """Parse the header of chunk `k` at `pos` into a job; -> position behind the chunk.

    Parameters
    ----------
    buf : memoryview
        Bytes that hold the whole chunk.
    pos, end : int
        Where the chunk begins; where the bytes of chunks end at the latest.
    header : FrameHeader
        Header of the frame.
    k : int
        Number of the chunk.
    rows : memoryview
        The bytes of an array of `JOB`.
    row : int
        Which of them to fill in.
    content_offset : int
        Where the content of the chunk goes in the output.

    Raises
    ------
    TruncatedError, CorruptError, UnsupportedCodecError
    """
    if end - pos < _CHUNK.size:
        msg = "chunk header ends early"
        raise TruncatedError(msg, offset=pos, chunk=k)
    encoded, content, checksum, layout, n, params = _CHUNK.unpack_from(buf, pos)
    expected = header.chunk_content_nbytes(k)
    if not 1 <= content <= expected or (header.content_nbytes is not None and content != expected):
        msg = f"chunk holds {content} bytes of content, expected {expected}"
        raise CorruptError(msg, offset=pos + 4, chunk=k)
    if not least_chunk_nbytes(header) <= encoded <= content + _MAX_EXPANSION:
        msg = f"chunk of {encoded} bytes for {content} bytes of content"
        raise CorruptError(msg, offset=pos, chunk=k)
    shape = _shape_of(layout, header.dtype.width, header.delta, header.big_endian)
    if shape is None and (layout in (SAME, XOR) or layout in DIFFERENCE_WIDTHS):
        msg = f"transform {layout} in a frame that cannot have it"
        raise CorruptError(msg, offset=pos + 16, chunk=k)
    if shape is None:
        msg = f"transform {layout}, which this release does not know"
        raise UnsupportedCodecError(msg, offset=pos + 16, chunk=k)
    width = shape.width
    of_symbols = shape.first == CONTEXTS
    if (
        not shape.least <= n <= shape.most
        or not (shape.any_params or params == 0 or (of_symbols and params == _SYMBOLS_PARAMS.size))
        or width not in (1, header.dtype.width)
        or content < width
    ):
        msg = f"transform {layout} with {n} streams and {params} bytes of parameters"
        raise CorruptError(msg, offset=pos + 16, chunk=k)
    if encoded > end - pos:
        msg = f"chunk of {encoded} bytes, of which {end - pos} are there"
        raise TruncatedError(msg, offset=end, chunk=k)
    table = pos + _CHUNK.size
    data = table + n * _STREAM.size + params
    tail = content % width
    chunk_end = pos + encoded
    fits = data <= chunk_end
    streams = [_STREAM.unpack_from(buf, table + p * _STREAM.size) for p in range(n if fits else 0)]
    if not fits or data + sum(nbytes for _, nbytes in streams) + tail != chunk_end:
        msg = f"streams do not add up to the {encoded} bytes of the chunk"
        raise CorruptError(msg, offset=table, chunk=k)
    offsets = [0] * n
    at = data
    for p in reversed(range(n)):
        codec, nbytes = streams[p]
        if codec not in CODECS:
            msg = f"stream {p} has codec {codec}, which this release does not know"
            raise UnsupportedCodecError(msg, offset=table + p * _STREAM.size, chunk=k)
        wanted = shape.first if p == 0 else shape.other
        if codec != wanted if wanted is not None else codec in (CONTEXTS, FRAME):
            msg = f"stream {p} of transform {layout} has codec {codec}"
            raise CorruptError(msg, offset=table + p * _STREAM.size, chunk=k)
        offsets[p] = at
        at += nbytes
    rows_nbytes = rare_nbytes = n_rare = n_raw = 0
    model = 0
    if of_symbols:
        model = _model_number(layout, header)
        if not model:
            msg = f"transform {layout} in a frame without a model"
            raise CorruptError(msg, offset=pos + 16, chunk=k)
        if params:
            rows_nbytes, rare_nbytes, n_rare, n_raw = _SYMBOLS_PARAMS.unpack_from(
                buf, data - params
            )
    pad = (0,) * (_MAX_STREAMS - n)
    _JOB_ROW.pack_into(
        rows,
        row * _JOB_ROW.size,
        content_offset,
        content,
        k * header.chunk_nbytes,
        checksum,
        pos,
        encoded,
        *offsets,
        *pad,
        at,
        *[nbytes for _, nbytes in streams],
        *pad,
        *[codec for codec, _ in streams],
        *pad,
        model,
        rows_nbytes,
        rare_nbytes,
        n_rare,
        n_raw,
        params,
        layout,
        header.big_endian and layout != BYTES1,
        n,
        header.dtype.code,
    )
    return int(chunk_end)
