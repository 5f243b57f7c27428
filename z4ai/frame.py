"""The `Z4AI` frame on the wire: header, chunk headers, trailer.

Specification: docs/format/frame.md.
"""

from __future__ import annotations

from functools import cache
from math import prod
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast.hashing import xxh3_64
from z4ai.codecs import CODECS, CONTEXTS, FRAME, STORE
from z4ai.copies import decode_record, encode_record
from z4ai.dtypes import (
    BYTES1,
    DIFFERENCE_WIDTHS,
    FIRST_PARTS,
    SAME,
    SYMBOLS1,
    TRANSFORM_WIDTHS,
    XOR,
    DType,
    dtype_of_code,
)
from z4ai.errors import (
    ChecksumError,
    CorruptError,
    LimitError,
    TruncatedError,
    UnsupportedCodecError,
)
from z4ai.model import parse_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.options import Limits

__all__ = [
    "CHUNK_FIXED_NBYTES",
    "CHUNK_SIZES_NBYTES",
    "CHUNK_STREAM_NBYTES",
    "MAX_CHUNK_NBYTES",
    "RECORD_HEADER_NBYTES",
    "TRAILER_END_NBYTES",
    "FrameHeader",
    "Reference",
    "checksum_of",
    "chunk_params",
    "header_claim",
    "is_end_mark",
    "least_chunk_nbytes",
    "models_of",
    "most_chunk_nbytes",
    "parse_chunk_header",
    "parse_chunk_sizes",
    "parse_header",
    "parse_trailer",
    "parse_trailer_claim",
    "trailer_nbytes",
    "write_chunk_headers",
    "write_header",
    "write_trailer",
]

_HEAD = Struct("<4sBBBBQII")
_CHUNK = Struct("<IIQBBH")
_SIZES = Struct("<II")  # the first fields of a chunk
_STREAM = Struct("<BI")
_MAX_STREAMS = 8
# A row of z4ai._fast.chunks.JOB: packed at once, since setting its fields one by one takes as long
# as decoding a small tensor.
_JOB_ROW = Struct("<6Q8QQ8x8I8B4xIIIHHH6xBBB3xB5x")
_RECORD = Struct("<HHI")
_SYMBOLS_PARAMS = Struct("<IIHH")
_TRAILER_END = Struct("<QQQ4s")

_ARRAY, _FORTRAN, _BIG_ENDIAN, _STREAMED = 1, 2, 4, 8
_MAX_NDIM = 64
_ANCILLARY_RECORD = 1 << 15
# Kinds of table records.
_MODEL, _COPIES, _REFERENCE, _DIFFERENCE = 1, 2, 3, 4
_OF_REFERENCE = Struct("<QQQ")
_RECORD_FIELDS = {
    _MODEL: "model",
    _COPIES: "copies",
    _REFERENCE: "reference",
    _DIFFERENCE: "difference",
}
# Transforms to parts: each stream is a frame.
_LAST_PARTS = 20

MAX_CHUNK_NBYTES = 1 << 26
CHUNK_FIXED_NBYTES = _CHUNK.size
CHUNK_SIZES_NBYTES = _SIZES.size
CHUNK_STREAM_NBYTES = _STREAM.size
RECORD_HEADER_NBYTES = _RECORD.size
# The smallest chunk: one stream of one byte.
MIN_CHUNK_NBYTES = _CHUNK.size + _STREAM.size + 1
# How much larger than its content a chunk may claim to be.
_MAX_EXPANSION = 1 << 16
# Begins the trailer, where a chunk could begin: one of no bytes.
_END_MARK = bytes(4)
TRAILER_END_NBYTES = _TRAILER_END.size


class Reference(NamedTuple):
    """What a delta frame was made against.

    Attributes
    ----------
    nbytes : int
        Its size.
    digest : int
        Its XXH3-128.
    """

    nbytes: int
    digest: int


class FrameHeader(NamedTuple):
    """What a frame says of itself.

    Attributes
    ----------
    dtype : DType
        Element type of the content.
    content_nbytes : int or None
        Bytes of content that the chunks hold; None if the writer did not know (the trailer tells).
    chunk_nbytes : int
        Content bytes of every chunk but the last.
    shape : tuple of int or None
        Shape of an array; None for a buffer.
    fortran : bool
        The array's content is in column-major order.
    big_endian : bool
        The elements of the content are big-endian.
    nbytes : int
        Size of the header on the wire (0 before it is written).
    checksum : int
        Its checksum, which also seeds that of the trailer.
    model_record : bytes
        The model of its chunks of symbols, as it will be written; empty if there is none.
    model : ndarray of uint8 or None
        The same, as it was read.
    copies : ndarray of uint64 or None
        Ranges of the content that no chunk holds; see docs/format/copies.md.
    delta : bool
        It is a delta frame; see docs/format/delta.md. Only such frames have what follows.
    reference : Reference or None
        Its reference; None within a model delta, which tells of that itself.
    difference_record : bytes
        The model of its chunks of differences, as it will be written; empty if there is none.
    difference : ndarray of uint8 or None
        The same, as it was read.
    """

    dtype: DType
    content_nbytes: int | None
    chunk_nbytes: int = 1 << 20
    shape: tuple[int, ...] | None = None
    fortran: bool = False
    big_endian: bool = False
    nbytes: int = 0
    checksum: int = 0
    model_record: bytes = b""
    model: NDArray[np.uint8] | None = None
    copies: NDArray[np.uint64] | None = None
    delta: bool = False
    reference: Reference | None = None
    difference_record: bytes = b""
    difference: NDArray[np.uint8] | None = None

    @property
    def copied_nbytes(self) -> int:
        """Bytes of content that no chunk holds."""
        return 0 if self.copies is None else int(self.copies[:, 2].sum())

    @property
    def n_chunks(self) -> int | None:
        """Number of chunks; None if the header does not tell."""
        if self.content_nbytes is None:
            return None
        return -(-self.content_nbytes // self.chunk_nbytes)

    @property
    def has_trailer(self) -> bool:
        n = self.n_chunks
        return n is None or n > 1

    def chunk_content_nbytes(self, k: int) -> int:
        """Content bytes of chunk `k` where the header tells, else the most it may have."""
        if self.content_nbytes is None:
            return self.chunk_nbytes
        return min(self.chunk_nbytes, self.content_nbytes - k * self.chunk_nbytes)


def write_header(header: FrameHeader) -> bytes:
    """Put a header on the wire."""
    flags = 0
    shape = b""
    if header.shape is not None:
        flags |= _ARRAY | (_FORTRAN if header.fortran else 0)
        shape = b"".join(_wire.put_varint(n) for n in header.shape)
    if header.big_endian:
        flags |= _BIG_ENDIAN
    content_nbytes = header.content_nbytes
    if content_nbytes is None:
        flags |= _STREAMED
        content_nbytes = _wire.UNKNOWN_NBYTES
    tables = b""
    if header.model_record:
        tables = _RECORD.pack(_MODEL, 0, len(header.model_record)) + header.model_record
    if header.copies is not None:
        content_nbytes += header.copied_nbytes
        record = encode_record(header.copies, content_nbytes)
        tables += _RECORD.pack(_COPIES, 0, len(record)) + record
    if header.reference is not None:
        low, high = header.reference.digest & _wire.MASK64, header.reference.digest >> 64
        record = _OF_REFERENCE.pack(header.reference.nbytes, low, high)
        tables += _RECORD.pack(_REFERENCE, 0, len(record)) + record
    if header.difference_record:
        record = header.difference_record
        tables += _RECORD.pack(_DIFFERENCE, 0, len(record)) + record
    head = _HEAD.pack(
        _wire.MAGIC_DELTA if header.delta else _wire.MAGIC_FRAME,
        _wire.FORMAT_VERSION,
        flags,
        header.dtype.code,
        len(header.shape or ()),
        content_nbytes,
        header.chunk_nbytes,
        len(tables),
    )
    head += shape + tables
    return head + _wire.U64.pack(xxh3_64(head))


def header_claim(head: memoryview) -> int:
    """Bytes that a header may take, by what it says; `head` holds its fixed part at least."""
    _, _, _, _, ndim, _, _, tables_nbytes = _HEAD.unpack_from(head)
    nbytes: int = _HEAD.size + ndim * _wire.MAX_VARINT_NBYTES + tables_nbytes + _wire.U64.size
    return nbytes


def checksum_of(head: bytes) -> int:
    """Checksum that a header on the wire ends with."""
    checksum: int = _wire.U64.unpack_from(head, len(head) - _wire.U64.size)[0]
    return checksum


def parse_header(buf: memoryview, limits: Limits, *, delta: bool = False) -> FrameHeader:
    """Parse the header at the start of `buf`, which may hold more, or less.

    delta : a delta frame is expected, and nothing else.

    Raises
    ------
    TruncatedError, FormatError, LimitError
    """
    if delta:
        _wire.check_magic(buf, _wire.MAGIC_DELTA, "z4ai delta frame")
    else:
        _wire.check_magic(buf, _wire.MAGIC_FRAME, "z4ai frame")
    if len(buf) < _HEAD.size + 8:
        msg = f"frame header ends after {len(buf)} bytes, expected at least {_HEAD.size + 8}"
        raise TruncatedError(msg, offset=len(buf))
    _, _, flags, code, ndim, content_nbytes, chunk_nbytes, tables_nbytes = _HEAD.unpack_from(buf)
    if ndim > _MAX_NDIM:
        msg = f"frame has {ndim} dimensions, expected at most {_MAX_NDIM}"
        raise CorruptError(msg, offset=7)
    if tables_nbytes > limits.max_table_nbytes:
        msg = f"tables of {tables_nbytes} bytes exceed the limit of {limits.max_table_nbytes} bytes"
        raise LimitError(msg, option="max_table_nbytes")
    pos = _HEAD.size
    shape = []
    for _ in range(ndim):
        extent, pos = _wire.get_varint(buf, pos, len(buf))
        shape.append(extent)
    end = pos + tables_nbytes
    if end + 8 > len(buf):
        msg = f"frame header ends after {len(buf)} bytes, expected {end + 8}"
        raise TruncatedError(msg, offset=len(buf))
    checksum = xxh3_64(buf[:end])
    if checksum != _wire.U64.unpack_from(buf, end)[0]:
        msg = "frame header does not match its checksum"
        raise ChecksumError(msg, offset=end)

    if flags > 15:
        msg = f"reserved flags are set: {flags:#x}"
        raise CorruptError(msg, offset=5)
    dtype = dtype_of_code(code)
    if dtype is None:
        msg = f"frame has dtype code {code}, which this release does not know"
        raise UnsupportedCodecError(msg, offset=6)
    _check_flags(flags, ndim, dtype, delta=delta)
    if not 1 <= chunk_nbytes <= MAX_CHUNK_NBYTES or chunk_nbytes % 16:
        msg = f"chunk_nbytes is {chunk_nbytes}, expected a multiple of 16 up to {MAX_CHUNK_NBYTES}"
        raise CorruptError(msg, offset=16)
    streamed = bool(flags & _STREAMED)
    if streamed != (content_nbytes == _wire.UNKNOWN_NBYTES) or (
        not streamed and content_nbytes >= 1 << 63
    ):
        msg = f"content_nbytes is {content_nbytes}, which does not fit the flags"
        raise CorruptError(msg, offset=8)
    if flags & _ARRAY and prod(shape) * dtype.item_nbytes != content_nbytes:
        msg = f"shape {tuple(shape)} of {dtype.name} does not make {content_nbytes} bytes"
        raise CorruptError(msg, offset=_HEAD.size)
    records = _parse_records(buf, pos, end, dtype, None if streamed else content_nbytes, delta)
    header = FrameHeader(
        dtype=dtype,
        content_nbytes=None if streamed else content_nbytes,
        chunk_nbytes=chunk_nbytes,
        shape=tuple(shape) if flags & _ARRAY else None,
        fortran=bool(flags & _FORTRAN),
        big_endian=bool(flags & _BIG_ENDIAN),
        nbytes=end + 8,
        checksum=checksum,
        delta=delta,
        **records,
    )
    if header.copies is None:
        return header
    return header._replace(content_nbytes=content_nbytes - header.copied_nbytes)


def _check_flags(flags: int, ndim: int, dtype: DType, *, delta: bool) -> None:
    wrong = None
    if delta and flags & _STREAMED:
        wrong = "a delta frame cannot be streamed"
    elif flags & _ARRAY:
        if flags & _STREAMED:
            wrong = "an array cannot be streamed"
        elif not dtype.item_nbytes:
            wrong = f"dtype {dtype.name!r} has no arrays"
    elif ndim or flags & _FORTRAN:
        wrong = "a buffer has neither dimensions nor memory order"
    if flags & _BIG_ENDIAN and dtype.width == 1:
        wrong = f"dtype {dtype.name!r} has no byte order"
    if wrong:
        raise CorruptError(wrong, offset=5)


def _parse_records(
    buf: memoryview, pos: int, end: int, dtype: DType, content_nbytes: int | None, delta: bool
) -> dict[str, Any]:
    """Walk the table records; -> what they say, by the name of its field in the header."""
    found: dict[str, Any] = {}
    while pos < end:
        if end - pos < _RECORD.size:
            msg = "a table record does not fit the tables"
            raise CorruptError(msg, offset=pos)
        kind, reserved, nbytes = _RECORD.unpack_from(buf, pos)
        if reserved or nbytes > end - pos - _RECORD.size:
            msg = "a table record does not fit the tables"
            raise CorruptError(msg, offset=pos)
        begin = pos + _RECORD.size
        field = _RECORD_FIELDS.get(kind)
        if field is None and kind < _ANCILLARY_RECORD:
            msg = f"table record of kind {kind}, which this release does not know"
            raise UnsupportedCodecError(msg, offset=pos)
        if field is not None:
            if field in found:
                msg = f"a second table record of kind {kind}"
                raise CorruptError(msg, offset=pos)
            if (kind in (_REFERENCE, _DIFFERENCE) and not delta) or (kind == _COPIES and delta):
                msg = f"table record of kind {kind} in a {'delta ' if delta else ''}frame"
                raise CorruptError(msg, offset=pos)
            if kind == _COPIES and content_nbytes is None:
                msg = "copies in a streamed frame"
                raise CorruptError(msg, offset=pos)
            record = buf[begin : begin + nbytes]
            found[field] = _parse_record(kind, record, begin, dtype, content_nbytes or 0)
        pos = begin + nbytes
    return found


def _parse_record(
    kind: int, record: memoryview, offset: int, dtype: DType, content_nbytes: int
) -> Any:
    if kind == _MODEL:
        return parse_model(record, offset)
    if kind == _COPIES:
        return decode_record(record, content_nbytes)[0]
    if kind == _DIFFERENCE:
        from z4ai.difference import parse_difference  # noqa: PLC0415 - deltas only

        return parse_difference(record, offset, dtype.width)
    if len(record) != _OF_REFERENCE.size:
        msg = f"reference record of {len(record)} bytes, expected {_OF_REFERENCE.size}"
        raise CorruptError(msg, offset=offset)
    nbytes, low, high = _OF_REFERENCE.unpack(record)
    return Reference(nbytes, low | high << 64)


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


def models_of(header: FrameHeader) -> list[NDArray[np.uint8]]:
    """Models that a header holds, in the order in which chunks count them."""
    return [model for model in (header.model, header.difference) if model is not None]


def least_chunk_nbytes(header: FrameHeader) -> int:
    """Bytes of the smallest chunk that such a frame may have."""
    return _CHUNK.size if header.delta else MIN_CHUNK_NBYTES


def chunk_params(buf: memoryview, offset: int) -> memoryview:
    """Return the parameters of the chunk at `offset`, whose header has been parsed."""
    _, _, _, _, n, nbytes = _CHUNK.unpack_from(buf, offset)
    begin = offset + _CHUNK.size + n * _STREAM.size
    return buf[begin : begin + nbytes]


def is_end_mark(buf: memoryview, pos: int) -> bool:
    """Tell whether the trailer begins at `pos`, and no chunk."""
    return bytes(buf[pos : pos + len(_END_MARK)]) == _END_MARK


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


def most_chunk_nbytes(header: FrameHeader) -> int:
    """Encoded bytes that a chunk of the frame may claim at most."""
    return header.chunk_nbytes + _MAX_EXPANSION


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
