"""The `ZSTN` container on the wire: header, index, footer. Specification: docs/format/zstn.md."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai import _wire
from z4ai._fast.hashing import xxh3_64
from z4ai.codec import compress
from z4ai.container import st_header
from z4ai.container.source import Source, read
from z4ai.decoder import decode_frame, index_of_buffer
from z4ai.dtypes import OPAQUE
from z4ai.errors import (
    ChecksumError,
    CorruptError,
    LimitError,
    TruncatedError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.container.st_header import Header
    from z4ai.options import Limits

__all__ = [
    "HEADER_NBYTES",
    "NO_LOCATION",
    "Container",
    "Location",
    "check_frames",
    "parse_container",
    "parse_head",
    "read_index",
    "take_header",
    "write_end",
    "write_header",
]

_HEAD = Struct("<4sB3sQ")
_FOOTER = Struct("<QQQQQB3s4s")
_CHECKED = 32
HEADER_NBYTES = _HEAD.size
FOOTER_NBYTES = _FOOTER.size
_LOCATION_NBYTES = 24
_RESERVED = bytes(3)

# Offset of the frame in the container, size of the frame, offset of the tensor in its content.
Location = tuple[int, int, int]
NO_LOCATION: Location = (0, 0, 0)


@dataclass(frozen=True)
class Container:
    """What header, index and footer say.

    Attributes
    ----------
    header_bytes : bytes
        The JSON header of the `.safetensors` file, byte for byte.
    header : Header
        The same, checked.
    locations : list of Location
        Where each tensor lies, in the order of `header.tensors`.
    original_nbytes : int
        Size of the `.safetensors` file.
    index_offset : int
        Where the frames end.
    """

    header_bytes: bytes
    header: Header
    locations: list[Location]
    original_nbytes: int
    index_offset: int


def write_header(magic: bytes = _wire.MAGIC_CONTAINER) -> bytes:
    """Put the first bytes of a container on the wire."""
    head = magic + bytes([_wire.FORMAT_VERSION]) + _RESERVED
    return head + _wire.U64.pack(xxh3_64(head))


def write_end(
    header_bytes: bytes,
    locations: Sequence[Location],
    data_nbytes: int,
    index_offset: int,
    effort: str,
) -> bytes:
    """Put index and footer on the wire.

    Parameters
    ----------
    header_bytes : bytes
        The JSON header of the `.safetensors` file.
    locations : sequence of Location
        In the order of the tensors' data.
    data_nbytes : int
        Bytes of all tensors.
    index_offset : int
        Where this goes in the container.
    effort : str
        For the index.
    """
    table = np.array(locations, "<u8").tobytes()
    counts = _wire.U64.pack(len(header_bytes)), _wire.U64.pack(len(locations))
    content = b"".join([counts[0], header_bytes, counts[1], table])
    index = compress(content, effort=effort, threads=1)
    original_nbytes = 8 + len(header_bytes) + data_nbytes
    fields = _FOOTER.pack(index_offset, len(index), original_nbytes, 0, 0, 0, b"", b"")[:_CHECKED]
    checksum = xxh3_64(fields, _wire.U64.unpack(write_header()[8:])[0])
    version = bytes([_wire.FORMAT_VERSION])
    end = _wire.U64.pack(checksum) + version + _RESERVED + _wire.MAGIC_CONTAINER_END
    return index + fields + end


def parse_container(source: Source, limits: Limits) -> Container:
    """Read and check header, footer, index, JSON header and locations; no tensor is decoded.

    Raises
    ------
    FormatError, LimitError
    """
    checksum = parse_head(source, _wire.MAGIC_CONTAINER, FOOTER_NBYTES)
    index_offset, index_nbytes, original_nbytes = _parse_footer(source, checksum)
    content = read_index(source, index_offset, index_nbytes, limits)
    header_bytes, table = _split_index(content)
    header = st_header.parse(header_bytes, limits.max_table_nbytes)
    if len(table) != len(header.tensors):
        msg = f"index has {len(table)} locations for {len(header.tensors)} tensors"
        raise CorruptError(msg, offset=index_offset)
    _check_locations(header, table, index_offset)
    expected = 8 + len(header_bytes) + header.data_nbytes
    if original_nbytes != expected:
        msg = f"original_nbytes is {original_nbytes}, header and tensors make {expected}"
        raise CorruptError(msg, offset=source.nbytes - FOOTER_NBYTES + 16)
    locations = list(map(tuple, table.tolist()))
    return Container(header_bytes, header, locations, original_nbytes, index_offset)


def parse_head(
    source: Source, magic: bytes, footer_nbytes: int, what: str = "z4ai container"
) -> int:
    """Check the first bytes of a container; -> their checksum."""
    head = read(source, 0, min(source.nbytes, HEADER_NBYTES))
    _wire.check_magic(head, magic, what)
    if source.nbytes < HEADER_NBYTES + footer_nbytes:
        msg = f"container ends after {source.nbytes} bytes, before its footer"
        raise TruncatedError(msg, offset=source.nbytes)
    _, _, reserved, checksum = _HEAD.unpack(head)
    if xxh3_64(head[:8]) != checksum:
        msg = "container header does not match its checksum"
        raise ChecksumError(msg, offset=8)
    if reserved != _RESERVED:
        msg = "reserved bytes of the container header are not zero"
        raise CorruptError(msg, offset=5)
    return int(checksum)


def _parse_footer(source: Source, header_checksum: int) -> tuple[int, int, int]:
    """Check the footer; -> index_offset, index_nbytes, original_nbytes."""
    start = source.nbytes - FOOTER_NBYTES
    footer = read(source, start, FOOTER_NBYTES)
    (index_offset, index_nbytes, original_nbytes, reserved, checksum, version, reserved_bytes,
     magic) = _FOOTER.unpack(footer)  # fmt: skip
    if magic != _wire.MAGIC_CONTAINER_END:
        msg = f"container ends in {magic!r}, expected {_wire.MAGIC_CONTAINER_END!r}: truncated?"
        raise TruncatedError(msg, offset=start + 44)
    if version != _wire.FORMAT_VERSION:
        msg = f"footer has format version {version}, the header {_wire.FORMAT_VERSION}"
        raise UnsupportedVersionError(msg, offset=start + 40)
    if xxh3_64(footer[:_CHECKED], header_checksum) != checksum:
        msg = "container footer does not match its checksum"
        raise ChecksumError(msg, offset=start + _CHECKED)
    if reserved or reserved_bytes != _RESERVED:
        msg = "reserved bytes of the container footer are not zero"
        raise CorruptError(msg, offset=start + 24)
    if index_offset < HEADER_NBYTES or index_offset + index_nbytes != start:
        msg = f"index of {index_nbytes} bytes at {index_offset}, expected to end at {start}"
        raise CorruptError(msg, offset=start)
    return index_offset, index_nbytes, original_nbytes


def _index_limit(nbytes: int, limits: Limits) -> LimitError:
    msg = f"index of {nbytes} bytes exceeds the limit of {limits.max_table_nbytes} bytes"
    return LimitError(msg, option="max_table_nbytes")


def read_index(source: Source, offset: int, nbytes: int, limits: Limits) -> bytes:
    """Read and decode the index."""
    # What does not shrink costs a chunk header in 2**22 bytes: far below this slack.
    if nbytes > limits.max_table_nbytes + (limits.max_table_nbytes >> 8) + 4096:
        raise _index_limit(nbytes, limits)
    encoded = read(source, offset, nbytes)
    frame = index_of_buffer(encoded, limits)
    if frame.header.dtype is not OPAQUE or frame.header.shape is not None:
        msg = "the index is not a frame of opaque bytes"
        raise CorruptError(msg, offset=offset)
    if frame.restored_nbytes > limits.max_table_nbytes:
        raise _index_limit(frame.restored_nbytes, limits)
    content = np.empty(frame.restored_nbytes, np.uint8)
    # By one thread: the index of an ordinary model is one chunk.
    decode_frame(encoded, frame, content, 1)
    return content.tobytes()


def take_header(content: bytes) -> tuple[bytes, int, int]:
    """Take the JSON header off an index; -> it, the number of tensors, where the rest begins."""
    if len(content) < 16:
        msg = f"index holds {len(content)} bytes, expected at least 16"
        raise CorruptError(msg)
    (header_nbytes,) = _wire.U64.unpack_from(content)
    if header_nbytes > min(st_header.MAX_HEADER_NBYTES, len(content) - 16):
        msg = f"JSON header of {header_nbytes} bytes does not fit the index of {len(content)}"
        raise CorruptError(msg)
    table_offset = 16 + header_nbytes
    (n_tensors,) = _wire.U64.unpack_from(content, table_offset - 8)
    return content[8 : 8 + header_nbytes], n_tensors, table_offset


def _split_index(content: bytes) -> tuple[bytes, NDArray[np.uint64]]:
    """Split the content of the index; -> JSON header, table of locations."""
    header_bytes, n_tensors, table_offset = take_header(content)
    if n_tensors * _LOCATION_NBYTES != len(content) - table_offset:
        msg = f"{len(content) - table_offset} bytes of locations for {n_tensors} tensors"
        raise CorruptError(msg)
    table = np.frombuffer(content, "<u8", 3 * n_tensors, table_offset).reshape(-1, 3)
    return header_bytes, table


def _check_locations(header: Header, table: NDArray[np.uint64], index_offset: int) -> None:
    """Check that the frames that are named fill the container without holes or overlaps."""
    empty = np.fromiter((t.begin == t.end for t in header.tensors), np.bool_, len(header.tensors))

    def blame(wrong: Any, msg: str) -> None:
        if wrong.any():
            raise CorruptError(msg, tensor=header.tensors[int(wrong.argmax())].name)

    blame(empty & table.any(axis=1), "a tensor of zero bytes has a location")
    blame(~empty & (table[:, 1] == 0), "its frame has zero bytes")
    # Below this no sum wraps; frames behind the index are refused by the walk.
    far = np.uint64(1 << 63)
    blame((table >= far).any(axis=1), "its location lies behind the end of any file")
    check_frames(table[~empty, :2], [t.name for t in header.tensors if t.nbytes], index_offset)


def check_frames(frames: NDArray[np.uint64], names: Sequence[str], index_offset: int) -> None:
    """Check that frames, given by offset and size below 2**63, leave no holes and no overlaps.

    names : whose each one is, to blame; the same frame may be given more than once.
    """
    frames, first = np.unique(frames, axis=0, return_index=True)
    starts = np.append(frames[:, 0], np.uint64(index_offset))
    ends = np.append(np.uint64(HEADER_NBYTES), frames.sum(axis=1, dtype=np.uint64))
    wrong = np.flatnonzero(starts != ends)
    if len(wrong):
        k = int(wrong[0])
        msg = f"a frame or the index begins at {starts[k]}, expected at {ends[k]}: hole or overlap"
        blamed = names[int(first[min(k, len(first) - 1)])] if names else None
        raise CorruptError(msg, offset=int(starts[k]), tensor=blamed)
