"""The frame ``Z4AI``: docs/format/frame.md in plain Python, in its order and with its names.

And the delta frame ``Z4DL``: docs/format/delta.md.

Every rule of the page is one ``if`` here. The whole frame and the whole content are held in memory,
and nothing is done twice to be fast.
"""

from __future__ import annotations

import importlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import difference, planes, repeats, symbols, zstd_literals
from .wire import read_varint, take
from .xxh3 import xxh3_64, xxh3_128

Bytes = bytes | bytearray | memoryview

# --- docs/format/ids.md ---------------------------------------------------------------------------

MAGIC = b"Z4AI"
DELTA_MAGIC = b"Z4DL"
END_MAGIC = b"IA4Z"
VERSION = 16

#: code -> (name, width, bytes of an element in an array or None where arrays do not have it).
DTYPES: dict[int, tuple[str, int, int | None]] = {
    0: ("opaque", 1, None),
    1: ("bool", 1, 1),
    2: ("int8", 1, 1),
    3: ("uint8", 1, 1),
    4: ("int16", 2, 2),
    5: ("uint16", 2, 2),
    6: ("int32", 4, 4),
    7: ("uint32", 4, 4),
    8: ("int64", 8, 8),
    9: ("uint64", 8, 8),
    16: ("fp16", 2, 2),
    17: ("bf16", 2, 2),
    18: ("fp32", 4, 4),
    19: ("fp64", 8, 8),
    20: ("complex64", 4, 8),
    21: ("complex128", 8, 16),
    32: ("fp8_e4m3", 1, 1),
    33: ("fp8_e5m2", 1, 1),
    34: ("fp8_e4m3fnuz", 1, 1),
    35: ("fp8_e5m2fnuz", 1, 1),
    36: ("fp8_e8m0", 1, 1),
    37: ("fp8_e4m3b11fnuz", 1, 1),
    38: ("fp8_e3m4", 1, 1),
    39: ("fp8_e4m3_ieee", 1, 1),
    48: ("fp4", 1, None),
    49: ("fp4_unpacked", 1, 1),
    50: ("fp6_e2m3_unpacked", 1, 1),
    51: ("fp6_e3m2_unpacked", 1, 1),
    52: ("int4_unpacked", 1, 1),
    53: ("uint4_unpacked", 1, 1),
    54: ("int2_unpacked", 1, 1),
    55: ("uint2_unpacked", 1, 1),
    56: ("uint4_x2", 1, None),
}

#: id -> (name, width of an element) of the transforms to planes, which have as many planes as
#: their elements have bytes. Those to symbols are `symbols.TRANSFORMS`.
TRANSFORMS: dict[int, tuple[str, int]] = {
    0: ("bytes1", 1),
    1: ("bytes2", 2),
    2: ("bytes4", 4),
    3: ("bytes8", 8),
    4: ("float2", 2),
    5: ("float4", 4),
    6: ("float8", 8),
}

#: id -> name of the transforms to parts, which is that of their module too; elements have the
#: width of the dtype.
STAGES = {16: "zeros", 17: "palette", 18: "grid", 19: "steps", 20: "blocks"}

STORE, CONSTANT, ZSTD, CONTEXTS, FRAME, BROTLI = 0, 1, 2, 3, 4, 5
CODECS = {
    STORE: "store",
    CONSTANT: "constant",
    ZSTD: "zstd",
    CONTEXTS: "contexts",
    FRAME: "frame",
    BROTLI: "brotli",
}

MODEL, COPIES, REFERENCE, DIFFERENCE = 1, 2, 3, 4
#: Table records that this reader understands: of a frame, and of a delta frame.
TABLE_KINDS = frozenset({MODEL, COPIES})
DELTA_TABLE_KINDS = frozenset({MODEL, REFERENCE, DIFFERENCE})
FIRST_SKIPPABLE_KIND = 32768

#: Names of NumPy and ml_dtypes for the dtype codes, where the two differ from ours.
_NUMPY_NAMES = {
    "fp16": "float16",
    "fp32": "float32",
    "fp64": "float64",
}
_ML_DTYPES_NAMES = {
    "bf16": "bfloat16",
    "fp8_e4m3": "float8_e4m3fn",
    "fp8_e5m2": "float8_e5m2",
    "fp8_e4m3fnuz": "float8_e4m3fnuz",
    "fp8_e5m2fnuz": "float8_e5m2fnuz",
    "fp8_e8m0": "float8_e8m0fnu",
    "fp8_e4m3b11fnuz": "float8_e4m3b11fnuz",
    "fp8_e3m4": "float8_e3m4",
    "fp8_e4m3_ieee": "float8_e4m3",
    "fp4_unpacked": "float4_e2m1fn",
    "fp6_e2m3_unpacked": "float6_e2m3fn",
    "fp6_e3m2_unpacked": "float6_e3m2fn",
    "int4_unpacked": "int4",
    "uint4_unpacked": "uint4",
    "int2_unpacked": "int2",
    "uint2_unpacked": "uint2",
}

# --- docs/format/limits.md ------------------------------------------------------------------------

MAX_CHUNK_NBYTES = 1 << 26
MAX_NDIM = 64
MIN_CHUNK_ENCODED_NBYTES = 26
MIN_DELTA_CHUNK_ENCODED_NBYTES = 20
MAX_CHUNK_GROWTH = 1 << 16
MAX_ZSTD_WINDOW = 1 << 27
MAX_PARTS = 8
MAX_DEPTH = 2

# --- What a frame says ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """A table record of kind 3."""

    nbytes: int
    digest: int


@dataclass(frozen=True)
class Header:
    """The fields of a frame header, in the order of the page."""

    array: bool
    fortran: bool
    big_endian: bool
    streamed: bool
    dtype: int
    content_nbytes: int | None  #: None if streamed
    chunk_nbytes: int
    shape: tuple[int, ...]
    tables: tuple[tuple[int, bytes], ...]  #: (kind, bytes) of each record, skipped ones too
    model: symbols.Model | None  #: what the table record of that kind says
    copies: tuple[repeats.Copy, ...]  #: likewise; none without the record
    delta: bool  #: what follows only delta frames have
    reference: Reference | None
    difference: difference.Model | None
    checksum: int
    nbytes: int  #: size of the header, its checksum included

    @property
    def dtype_name(self) -> str:
        """The name of the dtype code."""
        return DTYPES[self.dtype][0]

    @property
    def width(self) -> int:
        """Bytes of one element as the transforms see it."""
        return DTYPES[self.dtype][1]

    @property
    def dense_nbytes(self) -> int | None:
        """What the chunks hold: content without what is copied; None if streamed."""
        if self.content_nbytes is None:
            return None
        return repeats.dense_nbytes(self.copies, self.content_nbytes)

    @property
    def order(self) -> str:
        """``"F"`` for column-major content, ``"C"`` for row-major."""
        return "F" if self.fortran else "C"


@dataclass(frozen=True)
class Stream:
    """One encoded plane, or whatever else a transform has streams of."""

    codec: int
    encoded: bytes


@dataclass(frozen=True)
class Chunk:
    """The fields of one chunk; ``streams[p]`` is stream ``p``, in whatever order they lie."""

    encoded_nbytes: int
    content_nbytes: int
    checksum: int
    transform: int
    streams: tuple[Stream, ...]
    params: bytes
    tail: bytes


@dataclass(frozen=True)
class Frame:
    """A whole frame, decoded and checked."""

    header: Header
    chunks: tuple[Chunk, ...]
    content: bytes
    encoded_nbytes: int

    def array(self) -> npt.NDArray[Any]:
        """Return the array of an ``array`` frame, writable, in its own byte and memory order."""
        return _as_array(self.header, self.content)


def decode_frame(frame: Bytes, *, alone: bool = True) -> Frame:
    """Decode the frame at the start of ``frame`` and check every rule of the page.

    Parameters
    ----------
    frame
        The bytes of the frame.
    alone
        Refuse bytes behind the frame.

    Returns
    -------
    Frame
        Header facts, chunks and content.

    Raises
    ------
    ValueError
        If a rule of the format is broken.
    """
    return _decode_frame(bytes(frame), alone, 0)


def decode_delta(frame: Bytes, reference: Bytes, *, alone: bool = True) -> Frame:
    """Decode a delta frame beside its reference, as `decode_frame`.

    Parameters
    ----------
    frame
        The bytes of the frame.
    reference
        What it was made against.
    alone
        It stands alone: not within a model delta, nothing behind it.
    """
    data, beside = bytes(frame), bytes(reference)
    header = parse_header(data, delta=True)
    if alone:
        if header.reference is None:
            raise ValueError("a delta frame that does not tell of its reference")
        if header.reference != Reference(len(beside), xxh3_128(beside)):
            raise ValueError("the reference is another one")
    elif header.reference is not None:
        raise ValueError("a delta frame within another file that tells of its reference")
    return _decode_frame(data, alone, 0, beside)


def _decode_frame(data: bytes, alone: bool, depth: int, reference: bytes | None = None) -> Frame:
    """Decode a frame within `depth` others."""
    header = parse_header(data, delta=reference is not None)
    chunks, end = _parse_chunks(data, header)
    if header.streamed or len(chunks) > 1:
        end = _parse_trailer(data, end, header, chunks)
    if alone and end != len(data):
        raise ValueError(f"{len(data) - end} trailing bytes behind the frame")
    pieces = []
    offset = 0
    for chunk in chunks:
        pieces.append(decode_chunk(chunk, header, offset, depth, reference))
        offset += chunk.content_nbytes
    content = repeats.restore(b"".join(pieces), header.copies)
    return Frame(header, tuple(chunks), content, end)


def decode_array(frame: Bytes) -> npt.NDArray[Any]:
    """Decode a frame that holds an array.

    Raises
    ------
    ValueError
        If a rule of the format is broken, or the frame holds no array.
    """
    return decode_frame(frame).array()


# --- Header ---------------------------------------------------------------------------------------


def parse_header(frame: Bytes, *, delta: bool = False) -> Header:
    """Parse and check the header of a frame, in the order that the page demands.

    delta : it must be a delta frame; else it must not.
    """
    data = bytes(frame)
    # 1. magic
    magic = DELTA_MAGIC if delta else MAGIC
    if take(data, 0, 4, "magic") != magic:
        raise ValueError(f"magic is {data[:4]!r}, expected {magic!r}")
    # 2. version
    check_version(take(data, 4, 1, "version")[0])
    # 3. that the header is complete
    flags, dtype, ndim, content_nbytes, chunk_nbytes, tables_nbytes = struct.unpack(
        "<BBBQII", take(data, 5, 19, "header")
    )
    pos = 24
    shape = []
    for _ in range(ndim):
        dim, pos = read_varint(data, pos)
        shape.append(dim)
    tables = take(data, pos, tables_nbytes, "tables")
    pos += tables_nbytes
    (checksum,) = struct.unpack("<Q", take(data, pos, 8, "header checksum"))
    # 4. its checksum
    if checksum != xxh3_64(data[:pos], 0):
        raise ValueError("header checksum does not match")
    # 5. the fields
    if flags & 0xF0:
        raise ValueError(f"reserved flags {flags & 0xF0:#04x} are set")
    array, fortran, big_endian, streamed = (bool(flags >> bit & 1) for bit in range(4))
    if fortran and not array:
        raise ValueError("flag fortran without array")
    if array and streamed:
        raise ValueError("flags array and streamed exclude each other")
    if delta and streamed:
        raise ValueError("flag streamed in a delta frame")
    if dtype not in DTYPES:
        raise ValueError(f"dtype code {dtype} is unknown")
    name, width, array_nbytes = DTYPES[dtype]
    if big_endian and width == 1:
        raise ValueError(f"flag big_endian with {name}, whose width is 1")
    if ndim > MAX_NDIM:
        raise ValueError(f"{ndim} dimensions, at most {MAX_NDIM}")
    if ndim and not array:
        raise ValueError(f"{ndim} dimensions without flag array")
    if streamed:
        if content_nbytes != 2**64 - 1:
            raise ValueError(f"content_nbytes is {content_nbytes} in a streamed frame")
    elif content_nbytes >= 2**63:
        raise ValueError(f"content_nbytes is {content_nbytes}, not below 2**63")
    if not 1 <= chunk_nbytes <= MAX_CHUNK_NBYTES or chunk_nbytes % 16:
        raise ValueError(f"chunk_nbytes is {chunk_nbytes}")
    if array:
        if array_nbytes is None:
            raise ValueError(f"an array of {name}")
        elements = 1
        for dim in shape:
            elements *= dim
        if elements * array_nbytes != content_nbytes:
            raise ValueError(f"shape {shape} of {name} does not have {content_nbytes} bytes")
    records = tuple(_parse_tables(tables, DELTA_TABLE_KINDS if delta else TABLE_KINDS))
    return Header(
        array=array,
        fortran=fortran,
        big_endian=big_endian,
        streamed=streamed,
        dtype=dtype,
        content_nbytes=None if streamed else content_nbytes,
        chunk_nbytes=chunk_nbytes,
        shape=tuple(shape),
        tables=records,
        model=_parse_model(records),
        copies=_parse_copies(records, None if streamed else content_nbytes),
        delta=delta,
        reference=_parse_reference(records),
        difference=_parse_difference(records, width),
        checksum=checksum,
        nbytes=pos + 8,
    )


def check_version(version: int) -> None:
    """Refuse a format version that is not 16."""
    if 1 <= version <= 3:
        raise ValueError(
            f"format version {version} belongs to an unrelated earlier package of the same name"
        )
    if version != VERSION:
        raise ValueError(f"format version {version} is unknown")


def _parse_tables(tables: bytes, kinds: frozenset[int]) -> Iterator[tuple[int, bytes]]:
    pos = 0
    while pos < len(tables):
        kind, reserved, nbytes = struct.unpack("<HHI", take(tables, pos, 8, "table record"))
        if reserved:
            raise ValueError(f"reserved field of a table record is {reserved}")
        if kind not in kinds and kind < FIRST_SKIPPABLE_KIND:
            raise ValueError(f"table record of unknown kind {kind}")
        yield kind, take(tables, pos + 8, nbytes, "table record")
        pos += 8 + nbytes


def _parse_model(records: tuple[tuple[int, bytes], ...]) -> symbols.Model | None:
    models = [record for kind, record in records if kind == MODEL]
    if len(models) > 1:
        raise ValueError(f"{len(models)} models in a frame")
    return symbols.parse_model(models[0]) if models else None


def _parse_reference(records: tuple[tuple[int, bytes], ...]) -> Reference | None:
    references = [record for kind, record in records if kind == REFERENCE]
    if not references:
        return None
    if len(references) > 1:
        raise ValueError(f"{len(references)} references in a frame")
    if len(references[0]) != 24:
        raise ValueError(f"a reference of {len(references[0])} bytes, expected 24")
    nbytes, low, high = struct.unpack("<QQQ", references[0])
    return Reference(nbytes, high << 64 | low)


def _parse_difference(
    records: tuple[tuple[int, bytes], ...], width: int
) -> difference.Model | None:
    models = [record for kind, record in records if kind == DIFFERENCE]
    if len(models) > 1:
        raise ValueError(f"{len(models)} models of differences in a frame")
    return difference.parse_model(models[0], width) if models else None


def _parse_copies(
    records: tuple[tuple[int, bytes], ...], content_nbytes: int | None
) -> tuple[repeats.Copy, ...]:
    lists = [record for kind, record in records if kind == COPIES]
    if not lists:
        return ()
    if len(lists) > 1:
        raise ValueError(f"{len(lists)} records of copies in a frame")
    if content_nbytes is None:
        raise ValueError("copies in a streamed frame")
    return tuple(repeats.read(lists[0], content_nbytes))


# --- Chunks ---------------------------------------------------------------------------------------


def _parse_chunks(data: bytes, header: Header) -> tuple[list[Chunk], int]:
    """Parse all chunks; return them and the position behind the last."""
    pos = header.nbytes
    chunks: list[Chunk] = []
    dense_nbytes = header.dense_nbytes
    if dense_nbytes is None:
        while take(data, pos, 4, "chunk") != bytes(4):
            if chunks and chunks[-1].content_nbytes != header.chunk_nbytes:
                raise ValueError(f"chunk {len(chunks) - 1} is short, but not the last")
            chunk = _parse_chunk(data, pos, header)
            if chunk.content_nbytes > header.chunk_nbytes:
                raise ValueError(f"chunk {len(chunks)} has {chunk.content_nbytes} content bytes")
            chunks.append(chunk)
            pos += chunk.encoded_nbytes
        return chunks, pos
    n_chunks = -(-dense_nbytes // header.chunk_nbytes)
    least = MIN_DELTA_CHUNK_ENCODED_NBYTES if header.delta else MIN_CHUNK_ENCODED_NBYTES
    if n_chunks * least > len(data) - pos:
        raise ValueError(f"{n_chunks} chunks do not fit in {len(data) - pos} bytes")
    for k in range(n_chunks):
        chunk = _parse_chunk(data, pos, header)
        start = k * header.chunk_nbytes
        expected = min(header.chunk_nbytes, dense_nbytes - start)
        if chunk.content_nbytes != expected:
            raise ValueError(
                f"chunk {k} has {chunk.content_nbytes} content bytes, expected {expected}"
            )
        chunks.append(chunk)
        pos += chunk.encoded_nbytes
    return chunks, pos


def _parse_chunk(data: bytes, pos: int, header: Header) -> Chunk:
    encoded_nbytes, content_nbytes, checksum, transform, n_streams, params_nbytes = struct.unpack(
        "<IIQBBH", take(data, pos, 20, "chunk header")
    )
    chunk = take(data, pos, encoded_nbytes, "chunk")
    if content_nbytes < 1:
        raise ValueError("a chunk without content")
    if encoded_nbytes > content_nbytes + MAX_CHUNK_GROWTH:
        raise ValueError(f"{encoded_nbytes} bytes for {content_nbytes} content bytes")
    name, width = transform_of(transform, header)
    if width not in (1, header.width):
        raise ValueError(f"transform {name} with {header.dtype_name} of width {header.width}")
    if transform in STAGES:
        if not 1 <= n_streams <= MAX_PARTS:
            raise ValueError(f"{n_streams} streams, but {name} has 1 to {MAX_PARTS} parts")
    elif transform in (difference.SAME, difference.XOR):
        if n_streams != transform - difference.SAME or params_nbytes:
            raise ValueError(f"{n_streams} streams and {params_nbytes} parameters of {name}")
    elif transform in difference.TRANSFORMS:
        if n_streams != difference.STREAMS:
            raise ValueError(f"{n_streams} streams, but {name} has {difference.STREAMS}")
        if header.difference is None:
            raise ValueError(f"a chunk of {name} in a frame without a model of differences")
        if header.big_endian:
            raise ValueError(f"a chunk of {name} in a big-endian frame")
    elif n_streams != width:
        raise ValueError(f"{n_streams} streams, but {name} has {width} planes")
    if params_nbytes and transform in TRANSFORMS:
        raise ValueError(f"{params_nbytes} bytes of parameters, but {name} has none")
    if content_nbytes < width:
        raise ValueError(f"a chunk of {name} without a whole element")
    if transform in symbols.TRANSFORMS and header.model is None:
        raise ValueError(f"a chunk of {name} in a frame without a model")

    here = 20
    table = []
    for _ in range(n_streams):
        codec, nbytes = struct.unpack("<BI", take(chunk, here, 5, "streams"))
        if codec not in CODECS:
            raise ValueError(f"codec {codec} is unknown")
        table.append((codec, nbytes))
        here += 5
    params = take(chunk, here, params_nbytes, "params")
    here += params_nbytes
    streams: dict[int, Stream] = {}
    for number in reversed(range(n_streams)):
        codec, nbytes = table[number]
        streams[number] = Stream(codec, take(chunk, here, nbytes, f"stream {number}"))
        here += nbytes
    tail = chunk[here:]
    if len(tail) != content_nbytes % width:
        raise ValueError("the sizes of a chunk do not add up to encoded_nbytes")
    return Chunk(
        encoded_nbytes=encoded_nbytes,
        content_nbytes=content_nbytes,
        checksum=checksum,
        transform=transform,
        streams=tuple(streams[number] for number in range(n_streams)),
        params=params,
        tail=tail,
    )


def transform_of(number: int, header: Header) -> tuple[str, int]:
    """Return the name of a transform and the width of its elements."""
    if number in TRANSFORMS:
        return TRANSFORMS[number]
    if number in symbols.TRANSFORMS:
        return symbols.TRANSFORMS[number][:2]
    if number in STAGES:
        return STAGES[number], header.width
    if header.delta:
        if number == difference.SAME:
            return "same", 1
        if number == difference.XOR:
            return "xor", 1
        if number in difference.TRANSFORMS:
            return difference.TRANSFORMS[number]
    raise ValueError(f"transform {number} is unknown")


def decode_chunk(
    chunk: Chunk, header: Header, offset: int, depth: int = 0, reference: bytes | None = None
) -> bytes:
    """Restore the content bytes of one chunk that begins at ``offset`` in the content, and check.

    ``depth`` is the number of frames that its frame is a part within, ``reference`` that of a delta
    frame.
    """
    content = restore_chunk(chunk, header, offset, depth, reference)
    if xxh3_64(content, offset) != chunk.checksum:
        raise ValueError(f"checksum of the chunk at content offset {offset} does not match")
    return content


def restore_chunk(
    chunk: Chunk, header: Header, offset: int, depth: int = 0, reference: bytes | None = None
) -> bytes:
    """Restore the content bytes of one chunk, whatever its checksum says."""
    name, width = transform_of(chunk.transform, header)
    n = chunk.content_nbytes // width
    if chunk.transform in TRANSFORMS:
        decoded = [decode_stream(stream, n) for stream in chunk.streams]
        elements = planes.interleave(decoded, name)
    elif chunk.transform in symbols.TRANSFORMS:
        elements = _restore_symbols(chunk, header, n, offset // width)
    elif chunk.transform not in STAGES:
        beside = (reference or b"")[offset : offset + chunk.content_nbytes]
        beside = beside.ljust(chunk.content_nbytes, b"\0")
        return _restore_beside(chunk, header, offset // width, depth, beside) + chunk.tail
    else:
        elements = _restore_parts(chunk, header, n * width, depth)
    if header.big_endian:
        # The transform's elements: in a chunk of width 1 there is nothing to reverse.
        elements = planes.swap_bytes(elements, width)
    return elements + chunk.tail


def _restore_beside(
    chunk: Chunk, header: Header, first: int, depth: int, reference: bytes
) -> bytes:
    """docs/format/codecs/difference.md: the elements of a chunk beside its reference."""
    if chunk.transform == difference.SAME:
        return reference
    if chunk.transform == difference.XOR:
        mask = _decode_part(chunk.streams[0], depth + 1)
        if len(mask) != chunk.content_nbytes:
            raise ValueError(f"a mask of {len(mask)} bytes, expected {chunk.content_nbytes}")
        return bytes(a ^ b for a, b in zip(mask, reference, strict=True))
    assert header.difference is not None
    stream, apart = chunk.streams
    if stream.codec != CONTEXTS or apart.codec != STORE:
        raise ValueError(f"differences by {CODECS[stream.codec]} and {CODECS[apart.codec]}")
    _, width = difference.TRANSFORMS[chunk.transform]
    n = chunk.content_nbytes // width
    return difference.restore(
        header.difference, width, chunk.params, stream.encoded, apart.encoded, reference, n, first
    )


def _restore_symbols(chunk: Chunk, header: Header, n: int, first: int) -> bytes:
    """docs/format/codecs/symbols.md: streams to what `symbols.restore` takes."""
    assert header.model is not None
    transform = symbols.TRANSFORMS[chunk.transform]
    if n > symbols.MAX_ELEMENTS:
        raise ValueError(f"{n} elements in a chunk, at most {symbols.MAX_ELEMENTS}")
    stream, *others = chunk.streams
    if stream.codec != CONTEXTS:
        raise ValueError(f"symbols by codec {CODECS[stream.codec]}")
    remainders = None
    if others:
        if others[0].codec == STORE:
            remainders = symbols.unpack(others[0].encoded, transform.remainder_bits, n)
        else:
            remainders = decode_stream(others[0], n)
    low = [decode_stream(other, n) for other in others[1:]]
    return symbols.restore(
        transform, header.model, chunk.params, stream.encoded, remainders, low, n, first
    )


def _restore_parts(chunk: Chunk, header: Header, nbytes: int, depth: int) -> bytes:
    """docs/format/codecs/structure.md."""
    if depth == MAX_DEPTH:
        raise ValueError("parts within parts within parts")
    name = STAGES[chunk.transform]
    parts = [_decode_part(stream, depth + 1) for stream in chunk.streams]
    # A stage is a module of its own, imported for the files that have it.
    stage = importlib.import_module(f".{name}", __package__)
    # Arithmetic depends on more than the width.
    elements_are = header.dtype_name if name == "grid" else header.width
    elements: bytes = stage.join(chunk.params, parts, elements_are, nbytes)
    if len(elements) != nbytes:
        raise ValueError(f"{name} restores {len(elements)} bytes, expected {nbytes}")
    return elements


def _decode_part(stream: Stream, depth: int) -> bytes:
    if stream.codec != FRAME:
        raise ValueError(f"a part by codec {CODECS[stream.codec]}")
    header = parse_header(stream.encoded)
    for flag in ("array", "streamed", "big_endian"):
        if getattr(header, flag):
            raise ValueError(f"a part with flag {flag}")
    if header.copies:
        raise ValueError("a part with copies")
    return _decode_frame(stream.encoded, True, depth).content


# --- Codecs: docs/format/codecs/ ------------------------------------------------------------------


def decode_stream(stream: Stream, n: int) -> bytes:
    """Decode the ``n`` bytes of one plane."""
    if stream.codec == STORE:
        if len(stream.encoded) != n:
            raise ValueError(f"a stored stream of {len(stream.encoded)} bytes, expected {n}")
        return stream.encoded
    if stream.codec == CONSTANT:
        if len(stream.encoded) != 1:
            raise ValueError(f"a constant stream of {len(stream.encoded)} bytes, expected 1")
        return stream.encoded * n
    if stream.codec == ZSTD:
        plane = _decode_zstd(stream.encoded, n)
    elif stream.codec == BROTLI:
        plane = _decode_brotli(stream.encoded, n)
    else:
        raise ValueError(f"a plane by codec {CODECS[stream.codec]}")
    if len(plane) != n:
        raise ValueError(f"a stream decodes to {len(plane)} bytes, expected {n}")
    return plane


def _decode_zstd(encoded: bytes, n: int) -> bytes:
    """Decode one Zstandard frame; one that is not literals alone goes to the library."""
    window = _zstd_window(encoded)
    if window > MAX_ZSTD_WINDOW:
        raise ValueError(f"a Zstandard frame with a window of {window} bytes")
    try:
        return zstd_literals.decode(encoded, n)
    except zstd_literals.UnsupportedFrame:
        return _decode_by_library(encoded, n)


def _zstd_window(encoded: bytes) -> int:
    """Return the window that a Zstandard frame declares (RFC 8878, 3.1.1.1.2), 0 if none."""
    single_segment = 1 << 5
    if len(encoded) < 6 or encoded[4] & single_segment:
        return 0  # the window is the content
    base = 1 << (10 + (encoded[5] >> 3))
    return base + base // 8 * (encoded[5] & 7)


def _decode_by_library(encoded: bytes, n: int) -> bytes:
    import zstandard

    try:
        parameters = zstandard.get_frame_parameters(encoded)
        if parameters.content_size != n:
            raise ValueError(f"a Zstandard frame declares another size than {n}")
        if parameters.dict_id:
            raise ValueError("a Zstandard frame with a dictionary")
        decoder = zstandard.ZstdDecompressor().decompressobj()
        plane = decoder.decompress(encoded)
    except zstandard.ZstdError as error:
        raise ValueError(f"a Zstandard frame does not decode: {error}") from error
    if not decoder.eof:
        raise ValueError("truncated: a Zstandard frame ends early")
    if decoder.unused_data:
        raise ValueError(f"{len(decoder.unused_data)} bytes behind a Zstandard frame")
    return plane


def _decode_brotli(encoded: bytes, n: int) -> bytes:
    """Decode one Brotli stream, but little more than ``n`` bytes of it."""
    import brotli

    decoder = brotli.Decompressor()
    plane, fresh = b"", encoded
    try:
        while not decoder.is_finished():
            more = decoder.process(fresh, output_buffer_limit=n + 1)
            if not more and not decoder.is_finished():
                raise ValueError("truncated: a Brotli stream ends early")
            plane, fresh = plane + more, b""
            if len(plane) > n:
                raise ValueError(f"a Brotli stream holds more than {n} bytes")
    except brotli.error as error:
        raise ValueError(f"a Brotli stream does not decode: {error}") from error
    return plane


# --- Trailer --------------------------------------------------------------------------------------


def _parse_trailer(data: bytes, pos: int, header: Header, chunks: list[Chunk]) -> int:
    """Check the trailer at ``pos``; return the position behind it."""
    sizes = struct.pack(f"<{len(chunks)}I", *(chunk.encoded_nbytes for chunk in chunks))
    trailer = take(data, pos, 32 + len(sizes), "trailer")
    body = trailer[:-12]
    checksum, magic = struct.unpack("<Q4s", trailer[-12:])
    if magic != END_MAGIC:
        raise ValueError(f"trailer ends in {magic!r}, expected {END_MAGIC!r}")
    if checksum != xxh3_64(body, header.checksum):
        raise ValueError("trailer checksum does not match")
    if body[:4] != bytes(4):
        raise ValueError("the trailer does not begin with zero")
    if body[4 : 4 + len(sizes)] != sizes:
        raise ValueError("sizes in the trailer differ from those of the chunks")
    n_chunks, content_nbytes = struct.unpack("<QQ", body[-16:])
    if n_chunks != len(chunks):
        raise ValueError(f"the trailer counts {n_chunks} chunks, there are {len(chunks)}")
    if content_nbytes != sum(chunk.content_nbytes for chunk in chunks):
        raise ValueError(f"the trailer says {content_nbytes} content bytes")
    return pos + len(trailer)


def find_chunks(frame: Bytes) -> list[tuple[int, int]]:
    """Find the chunks of a frame that is alone by seeking, without reading them.

    Returns
    -------
    list of (offset, encoded_nbytes)
        Where each chunk begins in the frame, and its size.
    """
    data = bytes(frame)
    header = parse_header(data)
    if not header.streamed and (header.dense_nbytes or 0) <= header.chunk_nbytes:
        behind = len(data) - header.nbytes
        return [(header.nbytes, behind)] if header.dense_nbytes else []
    if len(data) < header.nbytes + 32 or data[-4:] != END_MAGIC:
        raise ValueError("the frame does not end in a trailer")
    (n_chunks,) = struct.unpack("<Q", data[-28:-20])
    trailer_nbytes = 32 + 4 * n_chunks
    if trailer_nbytes > len(data) - header.nbytes:
        raise ValueError(f"a trailer of {n_chunks} chunks does not fit in the frame")
    trailer = data[-trailer_nbytes:]
    if struct.unpack("<Q", trailer[-12:-4])[0] != xxh3_64(trailer[:-12], header.checksum):
        raise ValueError("trailer checksum does not match")
    sizes = struct.unpack(f"<{n_chunks}I", trailer[4 : 4 + 4 * n_chunks])
    if header.nbytes + sum(sizes) + trailer_nbytes != len(data):
        raise ValueError("the sizes in the trailer do not add up to the frame")
    found = []
    pos = header.nbytes
    for size in sizes:
        found.append((pos, size))
        pos += size
    return found


# --- Arrays ---------------------------------------------------------------------------------------


def numpy_dtype(code: int, *, big_endian: bool = False) -> np.dtype[Any]:
    """Return the NumPy dtype of a dtype code; ml_dtypes is imported for those NumPy lacks."""
    name, _, array_nbytes = DTYPES[code]
    if array_nbytes is None:
        raise ValueError(f"{name} is not a dtype of arrays")
    if name in _ML_DTYPES_NAMES:
        import ml_dtypes

        dtype = np.dtype(getattr(ml_dtypes, _ML_DTYPES_NAMES[name]))
    else:
        dtype = np.dtype(_NUMPY_NAMES.get(name, name))
    ordered: np.dtype[Any] = dtype.newbyteorder(">" if big_endian else "<")
    return ordered


def _as_array(header: Header, content: bytes) -> npt.NDArray[Any]:
    if not header.array:
        raise ValueError("the frame holds no array")
    dtype = numpy_dtype(header.dtype, big_endian=header.big_endian)
    flat = np.frombuffer(bytearray(content), dtype)
    return flat.reshape(header.shape, order="F" if header.fortran else "C")
