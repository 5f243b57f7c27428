"""A writer of frames and containers for tests: all that docs/format allows, and what it does not.

The writer of z4ai makes few of the files that its reader must accept. This one makes any mix of
transforms, codecs, flags, tables and chunks; and every field can be overridden, so that a test can
break exactly one rule while all checksums are right. It is written from docs/format, and shares
only the tables of numbers with the reference reader.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import symbols_writer
import xxhash
import zstandard
from symbols_writer import varint

from z4ai._reference.frame import CODECS, DTYPES, FRAME, MODEL, STAGES, TRANSFORMS

DTYPE_CODES = {name: code for code, (name, _, _) in DTYPES.items()}
TRANSFORM_IDS = {name: number for number, (name, _) in TRANSFORMS.items()}
STAGE_IDS = {name: number for number, name in STAGES.items()}
CODEC_IDS = {name: number for number, name in CODECS.items()}

#: The codec of one plane: a name of ENCODERS, or (codec id, encoded bytes) as they are.
Codec = str | tuple[int, bytes]


@dataclass(frozen=True)
class Parts:
    """A chunk of parts: its parameters, a frame for each part, and the width of its elements."""

    params: bytes
    frames: Sequence[bytes]
    width: int


#: Transform of a chunk, and the codec of all its planes or of each. Of symbols, those of streams
#: 1 … w−1: stream 0 has but one codec.
Plan = tuple[str, Codec | Sequence[Codec] | Parts]
Fields = Mapping[str, Any]

STORED: Plan = ("bytes1", "store")


def xxh3(data: bytes, seed: int) -> int:
    return int(xxhash.xxh3_64_intdigest(data, seed))


# --- Planes and streams ---------------------------------------------------------------------------


def split(content: bytes, transform: str) -> list[bytes]:
    """Planes of the whole elements of ``content``, plane 0 first."""
    width = TRANSFORMS[TRANSFORM_IDS[transform]][1]
    n = len(content) // width
    words = np.frombuffer(content[: n * width], f"<u{width}")
    planes = [(words >> 8 * (width - 1 - k)).astype(np.uint8) for k in range(width)]
    if transform.startswith("float"):
        top = (words >> 8 * (width - 2)).astype(np.uint16)
        planes[0] = (top >> 7).astype(np.uint8)
        planes[1] = (top >> 8 & 0x80 | top & 0x7F).astype(np.uint8)
    return [plane.tobytes() for plane in planes]


def zstd(plane: bytes, level: int = 3, **options: Any) -> bytes:
    """One frame of the stock library."""
    return zstandard.ZstdCompressor(level=level, **options).compress(plane)


def _constant(plane: bytes) -> bytes:
    assert plane.count(plane[0]) == len(plane), "the plane is not constant"
    return plane[:1]


def _brotli(plane: bytes) -> bytes:
    import brotli

    return bytes(brotli.compress(plane, quality=5))


ENCODERS = {
    "store": (CODEC_IDS["store"], bytes),
    "constant": (CODEC_IDS["constant"], _constant),
    "zstd": (CODEC_IDS["zstd"], zstd),
    "zstd-19": (CODEC_IDS["zstd"], lambda plane: zstd(plane, 19)),
    "zstd-negative": (CODEC_IDS["zstd"], lambda plane: zstd(plane, -5)),
    "zstd+checksum": (CODEC_IDS["zstd"], lambda plane: zstd(plane, write_checksum=True)),
    "brotli": (CODEC_IDS["brotli"], _brotli),
}


def encode(plane: bytes, codec: Codec) -> tuple[int, bytes]:
    if not isinstance(codec, str):
        return codec
    number, encoder = ENCODERS[codec]
    return number, encoder(plane)


# --- Frames ---------------------------------------------------------------------------------------


def write_header(
    *,
    content_nbytes: int,
    dtype: str = "opaque",
    shape: Sequence[int] | None = None,
    fortran: bool = False,
    big_endian: bool = False,
    streamed: bool = False,
    chunk_nbytes: int = 1 << 21,
    tables: Sequence[tuple[int, bytes]] = (),
    override: Fields | None = None,
) -> bytes:
    """A frame header; ``override`` replaces fields by name, the checksum is made to match."""
    records = b"".join(struct.pack("<HHI", kind, 0, len(b)) + b for kind, b in tables)
    fields = {
        "magic": b"Z4AI",
        "version": 16,
        "flags": (shape is not None) | fortran << 1 | big_endian << 2 | streamed << 3,
        "dtype": DTYPE_CODES[dtype],
        "ndim": len(shape or ()),
        "content_nbytes": 2**64 - 1 if streamed else content_nbytes,
        "chunk_nbytes": chunk_nbytes,
        "shape": b"".join(map(varint, shape or ())),
        "tables": records,
        **(override or {}),
    }
    fields.setdefault("tables_nbytes", len(fields["tables"]))
    header = struct.pack(
        "<4sBBBBQII",
        *(fields[name] for name in ("magic", "version", "flags", "dtype", "ndim")),
        *(fields[name] for name in ("content_nbytes", "chunk_nbytes", "tables_nbytes")),
    )
    header += fields["shape"] + fields["tables"]
    return header + struct.pack("<Q", fields.get("checksum", xxh3(header, 0)))


def write_chunk(
    content: bytes,
    *,
    offset: int = 0,
    plan: Plan = STORED,
    big_endian: bool = False,
    fitted: symbols_writer.Fitted | None = None,
    override: Fields | None = None,
) -> bytes:
    """One chunk whose content begins at ``offset`` of the frame's.

    ``fitted`` is the model of a chunk of symbols, of which ``override`` may have ``rows``,
    ``rare``, ``raw`` and ``symbols``, the bytes that stream 0 consists of, and their parameters.
    """
    transform, codecs = plan
    if len(content) < width_of(plan):
        plan = transform, codecs = STORED
    elements = whole_elements(content, plan, big_endian=big_endian)
    params = b""
    if isinstance(codecs, Parts):
        number = STAGE_IDS[transform]
        encoded = [(FRAME, frame) for frame in codecs.frames]
        params = codecs.params
    elif transform in symbols_writer.KINDS:
        assert fitted is not None, "symbols without a model"
        number = symbols_writer.KINDS[transform].number
        stream, params = fitted.stream((transform, elements, offset // width_of(plan)), override)
        encoded = [(CODEC_IDS["contexts"], stream)]
        if width_of(plan) > 1:
            planes = [symbols_writer.remainders(elements, transform)]
            planes += symbols_writer.low_planes(elements, transform)
            each = _of_each(codecs, len(planes))
            if each[0] == "store":
                bits = symbols_writer.remainder_bits(transform)
                planes[0] = symbols_writer.pack(planes[0], bits)
            encoded += [encode(plane, codec) for plane, codec in zip(planes, each, strict=True)]
    else:
        number = TRANSFORM_IDS[transform]
        planes = split(elements, transform)
        each = _of_each(codecs, len(planes))
        encoded = [encode(plane, codec) for plane, codec in zip(planes, each, strict=True)]
    fields = {
        "content_nbytes": len(content),
        "checksum": xxh3(content, offset),
        "transform": number,
        "streams": encoded,
        "params": params,
        "tail": content[len(elements) :],
        **(override or {}),
    }
    streams = fields["streams"]
    body = b"".join(struct.pack("<BI", codec, len(encoded)) for codec, encoded in streams)
    body += fields["params"] + b"".join(encoded for _, encoded in reversed(streams))
    body += fields["tail"]
    return (
        struct.pack(
            "<IIQBBH",
            fields.get("encoded_nbytes", 20 + len(body)),
            fields["content_nbytes"],
            fields["checksum"],
            fields["transform"],
            fields.get("n_streams", len(streams)),
            fields.get("params_nbytes", len(fields["params"])),
        )
        + body
    )


def width_of(plan: Plan) -> int:
    transform, codecs = plan
    if isinstance(codecs, Parts):
        return codecs.width
    if transform in symbols_writer.KINDS:
        return symbols_writer.KINDS[transform].width
    return TRANSFORMS[TRANSFORM_IDS[transform]][1]


def whole_elements(content: bytes, plan: Plan, *, big_endian: bool) -> bytes:
    """The whole elements of a chunk as little-endian words."""
    width = width_of(plan)
    elements = content[: len(content) // width * width]
    if big_endian:
        return np.frombuffer(elements, f">u{width}").astype(f"<u{width}").tobytes()
    return elements


def _of_each(codecs: Codec | Sequence[Codec] | Parts, n: int) -> Sequence[Codec]:
    assert not isinstance(codecs, Parts)
    if isinstance(codecs, str) or isinstance(codecs[0], int):
        return [codecs] * n
    return codecs


def write_trailer(
    sizes: Sequence[int],
    content_nbytes: int,
    header_checksum: int,
    *,
    override: Fields | None = None,
) -> bytes:
    """A trailer; its checksum is made to match what is overridden."""
    fields = {
        "end": 0,
        "sizes": sizes,
        "n_chunks": len(sizes),
        "content_nbytes": content_nbytes,
        "magic": b"IA4Z",
        **(override or {}),
    }
    body = struct.pack(f"<I{len(fields['sizes'])}I", fields["end"], *fields["sizes"])
    body += struct.pack("<QQ", fields["n_chunks"], fields["content_nbytes"])
    checksum = fields.get("checksum", xxh3(body, header_checksum))
    return body + struct.pack("<Q", checksum) + fields["magic"]


def write_frame(
    content: bytes,
    *,
    plans: Sequence[Plan] = (STORED,),
    dtype: str = "opaque",
    shape: Sequence[int] | None = None,
    fortran: bool = False,
    big_endian: bool = False,
    streamed: bool = False,
    chunk_nbytes: int = 1 << 21,
    tables: Sequence[tuple[int, bytes]] = (),
    model: symbols_writer.Model | None = None,
    model_fields: Fields | None = None,
    header: Fields | None = None,
    chunks: Mapping[int, Fields] | None = None,
    trailer: Fields | None = None,
    pieces: Sequence[bytes] | None = None,
    with_trailer: bool | None = None,
) -> bytes:
    """A whole frame.

    ``plans`` are taken in turn, one a chunk. ``header``, ``chunks[k]`` and ``trailer`` override
    fields of those parts. ``pieces`` says the content of each chunk instead of cutting ``content``
    by ``chunk_nbytes``; ``with_trailer`` forces or forbids the trailer. ``model`` is what chunks of
    symbols share; its record is put in front of ``tables``, after ``model_fields`` have overridden
    what it says.
    """
    if pieces is None:
        starts = range(0, len(content), chunk_nbytes)
        pieces = [content[start : start + chunk_nbytes] for start in starts]
    fitted = None
    if model is not None:
        counted = []
        offset = 0
        for k, piece in enumerate(pieces):
            plan = plans[k % len(plans)]
            if plan[0] in symbols_writer.KINDS and len(piece) >= width_of(plan):
                elements = whole_elements(piece, plan, big_endian=big_endian)
                counted.append((plan[0], elements, offset // width_of(plan)))
            offset += len(piece)
        fitted = symbols_writer.fit(model, counted)
        tables = [(MODEL, fitted.record(model_fields)), *tables]
    head = write_header(
        content_nbytes=len(content),
        dtype=dtype,
        shape=shape,
        fortran=fortran,
        big_endian=big_endian,
        streamed=streamed,
        chunk_nbytes=chunk_nbytes,
        tables=tables,
        override=header,
    )
    encoded = []
    offset = 0
    for k, piece in enumerate(pieces):
        encoded.append(
            write_chunk(
                piece,
                offset=offset,
                plan=plans[k % len(plans)],
                big_endian=big_endian,
                fitted=fitted,
                override=(chunks or {}).get(k),
            )
        )
        offset += len(piece)
    frame = head + b"".join(encoded)
    if with_trailer is None:
        with_trailer = streamed or len(encoded) > 1
    if with_trailer:
        checksum = struct.unpack("<Q", head[-8:])[0]
        frame += write_trailer([len(e) for e in encoded], offset, checksum, override=trailer)
    return frame


def write_array(array: np.ndarray[Any, Any], dtype: str, **options: Any) -> bytes:
    """An ``array`` frame; byte order and memory order are those of ``array``."""
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    big_endian = array.dtype.byteorder == ">" and array.itemsize > 1
    content = array.tobytes(order="F" if fortran else "C")
    return write_frame(
        content,
        dtype=dtype,
        shape=array.shape,
        fortran=fortran,
        big_endian=big_endian,
        **options,
    )


# --- Containers -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tensor:
    """One tensor to write: as a ``.safetensors`` header names it, and its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes


#: Dtype names of a .safetensors header -> frame dtype; unknown ones are coded as opaque bytes.
SAFETENSORS_DTYPES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "fp16",
    "BF16": "bf16",
    "F32": "fp32",
    "F64": "fp64",
    "C64": "complex64",
    "F8_E4M3": "fp8_e4m3",
    "F8_E5M2": "fp8_e5m2",
}


def safetensors_header(
    tensors: Sequence[Tensor],
    *,
    metadata: Mapping[str, str] | None = None,
    order: Sequence[int] | None = None,
    padding: int = 0,
) -> bytes:
    """The JSON header of tensors whose data lie in the order given; ``order`` orders the keys."""
    entries = []
    begin = 0
    for t in tensors:
        end = begin + len(t.data)
        fields = {"dtype": t.dtype, "shape": list(t.shape), "data_offsets": [begin, end]}
        entries.append((t.name, fields))
        begin = end
    keys: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    keys |= dict(entries[i] for i in (order or range(len(entries))))
    return json.dumps(keys, separators=(",", ":"), ensure_ascii=False).encode() + b" " * padding


def safetensors_file(header: bytes, tensors: Sequence[Tensor]) -> bytes:
    """The ``.safetensors`` file with that JSON header."""
    return struct.pack("<Q", len(header)) + header + b"".join(t.data for t in tensors)


def assemble(
    json_header: bytes,
    frames: Sequence[bytes],
    locations: Sequence[tuple[int, int] | None],
    *,
    original_nbytes: int = 0,
    header: Fields | None = None,
    index: Fields | None = None,
    index_options: Mapping[str, Any] | None = None,
    footer: Fields | None = None,
) -> bytes:
    """A container of frames; each location is (number of the frame, content offset) or None.

    ``header``, ``index`` and ``footer`` override fields; ``index_options`` go to ``write_frame``.
    ``index["locations"]`` are (frame offset, frame_nbytes, content offset).
    """
    head_fields = {"magic": b"ZSTN", "version": 16, "reserved": bytes(3), **(header or {})}
    head = struct.pack("<4sB3s", *(head_fields[n] for n in ("magic", "version", "reserved")))
    header_checksum = head_fields.get("checksum", xxh3(head, 0))
    head += struct.pack("<Q", header_checksum)

    offsets = []
    pos = len(head)
    for frame in frames:
        offsets.append(pos)
        pos += len(frame)
    index_offset = pos

    index_fields = {
        "header_nbytes": len(json_header),
        "header": json_header,
        "locations": [
            (0, 0, 0) if at is None else (offsets[at[0]], len(frames[at[0]]), at[1])
            for at in locations
        ],
        "behind": b"",
        **(index or {}),
    }
    content = struct.pack("<Q", index_fields["header_nbytes"]) + index_fields["header"]
    content += struct.pack("<Q", index_fields.get("n_tensors", len(index_fields["locations"])))
    content += b"".join(struct.pack("<QQQ", *at) for at in index_fields["locations"])
    index_frame = write_frame(content + index_fields["behind"], **(index_options or {}))

    foot_fields = {
        "index_offset": index_offset,
        "index_nbytes": len(index_frame),
        "original_nbytes": original_nbytes,
        "reserved": 0,
        "version": head_fields["version"],
        "reserved_bytes": bytes(3),
        "magic": b"NTSZ",
        **(footer or {}),
    }
    names = ("index_offset", "index_nbytes", "original_nbytes", "reserved")
    foot = struct.pack("<QQQQ", *(foot_fields[n] for n in names))
    foot += struct.pack("<Q", foot_fields.get("checksum", xxh3(foot, header_checksum)))
    foot += struct.pack("<B3s4s", *(foot_fields[n] for n in ("version", "reserved_bytes", "magic")))
    return head + b"".join(frames) + index_frame + foot


def write_container(
    tensors: Sequence[Tensor],
    *,
    json_header: bytes | None = None,
    groups: Sequence[Sequence[int]] | None = None,
    shared: Mapping[int, int] | None = None,
    frame_options: Mapping[str, Any] | None = None,
    **overrides: Any,
) -> bytes:
    """A container of tensors whose data lie in the order given.

    ``groups`` lists the tensors of each frame, frames in the order of the file (default: a frame
    for each tensor); ``shared`` maps a tensor to one with the same bytes, whose location it takes.
    ``frame_options`` go to ``write_frame``; everything else to :func:`assemble`.
    """
    if json_header is None:
        json_header = safetensors_header(tensors)
    shared = shared or {}
    if groups is None:
        groups = [[i] for i, t in enumerate(tensors) if t.data and i not in shared]
    frames = []
    locations: list[tuple[int, int] | None] = [None] * len(tensors)
    for number, group in enumerate(groups):
        pos = 0
        for i in group:
            locations[i] = (number, pos)
            pos += len(tensors[i].data)
        options = {"dtype": SAFETENSORS_DTYPES.get(tensors[group[0]].dtype, "opaque")}
        options |= frame_options or {}
        frames.append(write_frame(b"".join(tensors[i].data for i in group), **options))
    for i, other in shared.items():
        assert tensors[i].data == tensors[other].data, "tensors that share must be equal"
        locations[i] = locations[other]
    original_nbytes = len(safetensors_file(json_header, tensors))
    return assemble(json_header, frames, locations, original_nbytes=original_nbytes, **overrides)
