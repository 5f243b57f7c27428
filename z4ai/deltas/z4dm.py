"""The model delta on the wire: index and footer. Specification: docs/format/model_delta.md."""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast.hashing import Xxh3, xxh3_64
from z4ai.codec import compress
from z4ai.container import st_header
from z4ai.container.source import read
from z4ai.container.zstn import (
    HEADER_NBYTES,
    NO_LOCATION,
    check_frames,
    parse_head,
    read_index,
    take_header,
    write_header,
)
from z4ai.deltas.records import (
    COPY,
    FRAME,
    FROM_TARGET,
    SCRATCH,
    WAY_RECORD,
    WAY_SCRATCH,
    Entry,
    parse_record,
    write_record,
)
from z4ai.errors import (
    ChecksumError,
    CorruptError,
    TruncatedError,
    UnsupportedVersionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from z4ai.align import TensorSource
    from z4ai.container.source import Source
    from z4ai.container.st_header import Header
    from z4ai.options import Limits

__all__ = [
    "Ends",
    "ModelDelta",
    "copy_checksums",
    "copy_groups",
    "frames_of",
    "parse_model_delta",
    "write_end",
    "write_start",
]

_WHAT = "model delta"
_FOOTER = Struct("<QQQQQQQQQB3s4s")
_CHECKED = 64
FOOTER_NBYTES = _FOOTER.size
_RESERVED = bytes(3)
_LOCATION = Struct("<QQQ")
_FAR = 1 << 63
_GROUP_NBYTES = 1 << 16
_RUN_NBYTES = 4 << 20


class Ends(NamedTuple):
    """What the footer says of the two models.

    Attributes
    ----------
    base_nbytes : int
        Bytes of all tensors of the base.
    base_digest, target_digest : int
        XXH3-128 of each model.
    """

    base_nbytes: int
    base_digest: int
    target_digest: int


@dataclass(frozen=True)
class ModelDelta:
    """What header, index and footer say.

    Attributes
    ----------
    header_bytes : bytes
        The JSON header of the target, byte for byte.
    header : Header
        The same, checked.
    entries : list of Entry
        How each tensor is stored, in the order of `header.tensors`.
    checksums : list of int
        Of the groups that `copy_groups` makes.
    original_nbytes : int
        Size of the target.
    ends : Ends
        Of which models.
    """

    header_bytes: bytes
    header: Header
    entries: list[Entry]
    checksums: list[int]
    original_nbytes: int
    ends: Ends


def write_start() -> bytes:
    """Put the first bytes of a model delta on the wire."""
    return write_header(_wire.MAGIC_MODEL_DELTA)


def write_end(
    header_bytes: bytes,
    entries: Sequence[Entry],
    checksums: Sequence[int],
    data_nbytes: int,
    index_offset: int,
    ends: Ends,
    effort: str,
) -> bytes:
    """Put index and footer on the wire.

    Parameters
    ----------
    header_bytes : bytes
        The JSON header of the target.
    entries : sequence of Entry
        In the order of the tensors' data; an empty tensor is `SCRATCH` without a location.
    checksums : sequence of int
        Of the groups of copies.
    data_nbytes : int
        Bytes of all tensors.
    index_offset : int
        Where this goes in the file.
    ends : Ends
        For the footer.
    effort : str
        For the index.
    """
    ways = np.fromiter((entry.way for entry in entries), np.uint8, len(entries))
    content = b"".join(
        [
            _wire.U64.pack(len(header_bytes)),
            header_bytes,
            _wire.U64.pack(len(entries)),
            _pack_ways(ways),
            *(
                _LOCATION.pack(*entry.location)
                for entry in entries
                if entry.way != WAY_RECORD and entry.location is not None
            ),
            *(write_record(entry) for entry in entries if entry.way == WAY_RECORD),
            np.array(checksums, "<u8").tobytes(),
        ]
    )
    index = compress(content, effort=effort, threads=1)
    original_nbytes = 8 + len(header_bytes) + data_nbytes
    base, target = _halves(ends.base_digest), _halves(ends.target_digest)
    fields = _FOOTER.pack(
        index_offset, len(index), original_nbytes, ends.base_nbytes, *base, *target, 0, 0, b"", b""
    )[:_CHECKED]
    checksum = xxh3_64(fields, _wire.U64.unpack(write_start()[8:])[0])
    version = bytes([_wire.FORMAT_VERSION])
    end = _wire.U64.pack(checksum) + version + _RESERVED + _wire.MAGIC_MODEL_DELTA_END
    return index + fields + end


def _halves(digest: int) -> tuple[int, int]:
    return digest & _wire.MASK64, digest >> 64


def _pack_ways(ways: np.ndarray[tuple[int], np.dtype[np.uint8]]) -> bytes:
    padded = np.zeros(-(-len(ways) // 4) * 4, np.uint8)
    padded[: len(ways)] = ways
    return bytes((padded.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(1, np.uint8))


def copy_groups(entries: Sequence[Entry], tensors: Sequence[st_header.Tensor]) -> list[list[int]]:
    """Put copies of the base into groups that share a checksum; -> the numbers of their tensors."""
    groups: list[list[int]] = []
    nbytes = _GROUP_NBYTES
    for k, entry in enumerate(entries):
        if not entry.is_copy:
            continue
        if nbytes >= _GROUP_NBYTES:
            groups.append([])
            nbytes = 0
        groups[-1].append(k)
        nbytes += tensors[k].nbytes
    return groups


def copy_checksums(
    entries: Sequence[Entry], tensors: Sequence[st_header.Tensor], model: TensorSource
) -> list[int]:
    """Compute the checksum of each group of copies, from the contents of the target."""
    checksums = []
    for group in copy_groups(entries, tensors):
        state = Xxh3()
        for k in group:
            for at in range(0, tensors[k].nbytes, _RUN_NBYTES):
                state.update(model.read(k, at, min(at + _RUN_NBYTES, tensors[k].nbytes)))
        checksums.append(state.digest64())
    return checksums


# --- Reading --------------------------------------------------------------------------------------


def parse_model_delta(source: Source, limits: Limits) -> ModelDelta:
    """Read and check header, footer and index, as far as that goes without the base.

    Raises
    ------
    FormatError, LimitError
    """
    checksum = parse_head(source, _wire.MAGIC_MODEL_DELTA, FOOTER_NBYTES, _WHAT)
    index_offset, index_nbytes, original_nbytes, ends = _parse_footer(source, checksum)
    content = read_index(source, index_offset, index_nbytes, limits)
    header_bytes, n_tensors, pos = take_header(content)
    header = st_header.parse(header_bytes, limits.max_table_nbytes)
    if n_tensors != len(header.tensors):
        msg = f"index has {n_tensors} tensors, its JSON header {len(header.tensors)}"
        raise CorruptError(msg, offset=index_offset)
    entries, checksums = _parse_entries(content, pos, header.tensors, limits)
    _check_frames(header.tensors, entries, index_offset)
    expected = 8 + len(header_bytes) + header.data_nbytes
    if original_nbytes != expected:
        msg = f"original_nbytes is {original_nbytes}, header and tensors make {expected}"
        raise CorruptError(msg, offset=source.nbytes - FOOTER_NBYTES + 16)
    return ModelDelta(header_bytes, header, entries, checksums, original_nbytes, ends)


def _parse_footer(source: Source, header_checksum: int) -> tuple[int, int, int, Ends]:
    """Check the footer; -> index_offset, index_nbytes, original_nbytes, what it says of models."""
    start = source.nbytes - FOOTER_NBYTES
    footer = bytes(read(source, start, FOOTER_NBYTES))
    (index_offset, index_nbytes, original_nbytes, base_nbytes, *halves, checksum, version,
     reserved, magic) = _FOOTER.unpack(footer)  # fmt: skip
    if magic != _wire.MAGIC_MODEL_DELTA_END:
        msg = f"model delta ends in {magic!r}, expected {_wire.MAGIC_MODEL_DELTA_END!r}: truncated?"
        raise TruncatedError(msg, offset=start + 76)
    if version != _wire.FORMAT_VERSION:
        msg = f"footer has format version {version}, the header {_wire.FORMAT_VERSION}"
        raise UnsupportedVersionError(msg, offset=start + 72)
    if xxh3_64(footer[:_CHECKED], header_checksum) != checksum:
        msg = "footer of the model delta does not match its checksum"
        raise ChecksumError(msg, offset=start + _CHECKED)
    if reserved != _RESERVED:
        msg = "reserved bytes of the footer are not zero"
        raise CorruptError(msg, offset=start + 73)
    if index_offset < HEADER_NBYTES or index_offset + index_nbytes != start:
        msg = f"index of {index_nbytes} bytes at {index_offset}, expected to end at {start}"
        raise CorruptError(msg, offset=start)
    ends = Ends(base_nbytes, halves[0] | halves[1] << 64, halves[2] | halves[3] << 64)
    return index_offset, index_nbytes, original_nbytes, ends


def _parse_entries(
    content: bytes, pos: int, tensors: Sequence[st_header.Tensor], limits: Limits
) -> tuple[list[Entry], list[int]]:
    n = len(tensors)
    packed = np.frombuffer(_take(content, pos, -(-n // 4)), np.uint8)
    unpacked = (packed[:, None] >> np.array([0, 2, 4, 6], np.uint8) & 3).reshape(-1)
    if unpacked[n:].any():
        msg = "reserved bits behind the ways are not zero"
        raise CorruptError(msg)
    pos += len(packed)
    ways = unpacked[:n].tolist()
    entries: list[Entry] = []
    for way, tensor in zip(ways, tensors, strict=True):
        if not tensor.nbytes and way != WAY_SCRATCH:
            msg = f"a tensor of zero bytes has way {way}"
            raise CorruptError(msg, tensor=tensor.name)
        entry = Entry((SCRATCH, COPY, FRAME, COPY)[way])
        if tensor.nbytes and entry.coding != COPY:
            entry = entry._replace(location=_LOCATION.unpack(_take(content, pos, _LOCATION.size)))
            pos += _LOCATION.size
        entries.append(entry)
    room = limits.max_table_nbytes
    view = memoryview(content)
    for k in np.flatnonzero(unpacked[:n] == WAY_RECORD).tolist():
        entry, pos, room = parse_record(view, pos, k, tensors, room)
        other = entries[entry.source] if entry.origin == FROM_TARGET else entry
        if other is not entry:
            same_size = tensors[k].nbytes == tensors[entry.source].nbytes
            if other.origin == FROM_TARGET or not same_size:
                msg = f"a copy of tensor {entry.source}, which is a copy or not of its size"
                raise CorruptError(msg, tensor=tensors[k].name)
        entries[k] = entry
    n_groups = len(copy_groups(entries, tensors))
    if len(content) - pos != 8 * n_groups:
        msg = f"{len(content) - pos} bytes of checksums for {n_groups} groups of copies"
        raise (CorruptError if len(content) - pos > 8 * n_groups else TruncatedError)(msg)
    return entries, np.frombuffer(content, "<u8", n_groups, pos).tolist()


def _take(content: bytes, pos: int, nbytes: int) -> bytes:
    if pos + nbytes > len(content):
        msg = f"index of {len(content)} bytes ends in its ways or locations"
        raise TruncatedError(msg)
    return content[pos : pos + nbytes]


def frames_of(entry: Entry) -> Iterator[tuple[int, int]]:
    """List the places of the frames that an entry names."""
    if entry.location is not None:
        yield entry.location[:2]
    if entry.factors is not None:
        yield entry.factors
    for block in entry.blocks:
        yield block.frame
        if block.new is not None:
            yield block.new


def _check_frames(
    tensors: Sequence[st_header.Tensor], entries: Sequence[Entry], index_offset: int
) -> None:
    """Check that the frames that are named fill the file without holes or overlaps."""
    frames: list[tuple[int, int]] = []
    names: list[str] = []
    factors: set[int] = set()
    for tensor, entry in zip(tensors, entries, strict=True):
        mine = list(frames_of(entry))
        places = (*mine, (entry.location or NO_LOCATION)[2:])
        if any(number >= _FAR for place in places for number in place):
            msg = "its location lies behind the end of any file"
            raise CorruptError(msg, tensor=tensor.name)
        if any(nbytes == 0 for _, nbytes in mine):
            msg = "its frame has zero bytes"
            raise CorruptError(msg, tensor=tensor.name)
        if entry.factors is not None:
            factors.add(len(frames) + mine.index(entry.factors))
        frames += mine
        names += [tensor.name] * len(mine)
    apart = {frames[k] for k in factors}
    if len(apart) < len(factors) or any(
        place in apart for k, place in enumerate(frames) if k not in factors
    ):
        msg = "factors share a frame with something else"
        raise CorruptError(msg)
    check_frames(np.array(frames, np.uint64).reshape(-1, 2), names, index_offset)
