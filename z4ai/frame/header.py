"""The header of a frame on the wire, and the table records within it.

Specification: docs/format/frame.md.
"""

from __future__ import annotations

from math import prod
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from z4ai import _wire
from z4ai._fast.hashing import xxh3_64
from z4ai.copies import decode_record, encode_record
from z4ai.dtypes import DType, dtype_of_code
from z4ai.errors import (
    ChecksumError,
    CorruptError,
    LimitError,
    TruncatedError,
    UnsupportedCodecError,
)
from z4ai.model import parse_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from z4ai.options import Limits

__all__ = [
    "MAX_CHUNK_NBYTES",
    "RECORD_HEADER_NBYTES",
    "FrameHeader",
    "Reference",
    "checksum_of",
    "header_claim",
    "models_of",
    "parse_header",
    "write_header",
]

_HEAD = Struct("<4sBBBBQII")
_ARRAY, _FORTRAN, _BIG_ENDIAN, _STREAMED = 1, 2, 4, 8
_MAX_NDIM = 64
MAX_CHUNK_NBYTES = 1 << 26

_RECORD = Struct("<HHI")
RECORD_HEADER_NBYTES = _RECORD.size
# Kinds of table records.
_MODEL, _COPIES, _REFERENCE, _DIFFERENCE = 1, 2, 3, 4
_RECORD_FIELDS = {
    _MODEL: "model",
    _COPIES: "copies",
    _REFERENCE: "reference",
    _DIFFERENCE: "difference",
}
_ANCILLARY_RECORD = 1 << 15
_OF_REFERENCE = Struct("<QQQ")


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


def models_of(header: FrameHeader) -> list[NDArray[np.uint8]]:
    """Models that a header holds, in the order in which chunks count them."""
    return [model for model in (header.model, header.difference) if model is not None]


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
