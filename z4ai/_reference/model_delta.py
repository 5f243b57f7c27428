"""The model delta ``Z4DM``: docs/format/model_delta.md in plain Python, in its order."""

from __future__ import annotations

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .frame import Bytes, check_version, decode_delta, decode_frame
from .wire import read_varint, take
from .xxh3 import xxh3_64, xxh3_128
from .zstn import ELEMENT_BITS, MAX_JSON_NBYTES, Tensor, open_container, parse_safetensors_header
from .zstn import MAGIC as CONTAINER_MAGIC

MAGIC = b"Z4DM"
END_MAGIC = b"MD4Z"
HEADER_NBYTES = 16
FOOTER_NBYTES = 80
OPAQUE = 0
SCRATCH, COPY, DELTA, RECORD = range(4)
FROM_NAME, FROM_WHOLE, FROM_PIECES, FROM_TARGET = range(4)
CODING_COPY, CODING_FRAME, CODING_BLOCKS = range(3)
MOST_BLOCK_NBYTES = 1 << 25
MOST_FRAME_NBYTES = 1 << 26
LEAST_BLOCK_NBYTES = 1 << 20
GROUP_NBYTES = 1 << 16
MOST_PIECES = 1 << 12
MOST_SKIPPED = 1 << 8
MOST_TRANSPOSED_NBYTES = 1 << 28
MATRICES = ("F16", "BF16", "F32", "F64")

#: Bytes, bits of exponent and of mantissa, whether there are infinities.
FLOATS = {
    "F64": (8, 11, 52, True),
    "F32": (4, 8, 23, True),
    "F16": (2, 5, 10, True),
    "BF16": (2, 8, 7, True),
    "F8_E5M2": (1, 5, 2, True),
    "F8_E4M3": (1, 4, 3, False),
}

Array = npt.NDArray[Any]


@dataclass
class Piece:
    """A range of columns of a tensor, and where its elements come from."""

    width: int
    source: int
    inner: int = 0
    first: int = 0
    transposed: bool = False


@dataclass
class Entry:
    """How a tensor is stored."""

    way: int
    origin: int = FROM_NAME
    coding: int = CODING_COPY
    location: tuple[int, int, int] = (0, 0, 0)
    number: int = -1
    outer: int = 1
    pieces: list[Piece] = field(default_factory=list)
    factors: tuple[int, int] | None = None
    block: int = 0
    blocks: list[list[tuple[int, int]]] = field(default_factory=list)
    ways: list[int] = field(default_factory=list)

    @property
    def is_copy(self) -> bool:
        """Whether it is one of the base."""
        return self.way in (COPY, RECORD) and not self.coding and self.origin != FROM_TARGET


@dataclass
class Model:
    """The tensors of a model by name, and their bytes."""

    tensors: list[Tensor]
    contents: list[bytes]

    def digest(self) -> int:
        """Return the digest of the model."""
        pairs = sorted(zip(self.tensors, self.contents, strict=True), key=lambda p: p[0].name)
        out = b""
        for tensor, content in pairs:
            for text in (tensor.name.encode(), tensor.dtype.encode()):
                out += struct.pack("<Q", len(text)) + text
            out += struct.pack(f"<{1 + len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            out += struct.pack("<Q", len(content))
            out += xxh3_128(content, 0).to_bytes(16, "little")
        return xxh3_128(out, 0)


def restore(delta: Bytes, base: Bytes | Model) -> bytes:
    """Restore the ``.safetensors`` file of a model delta.

    Parameters
    ----------
    delta
        The model delta.
    base
        A ``.safetensors`` file, a container, or a model.

    Raises
    ------
    ValueError
        If a rule of the format is broken, or the base is another one.
    """
    return Delta(bytes(delta), base if isinstance(base, Model) else open_model(base)).restore()


def open_model(file: Bytes) -> Model:
    """Read all tensors of a ``.safetensors`` file or a container."""
    data = bytes(file)
    if data[:4] == CONTAINER_MAGIC:
        container = open_container(data)
        return Model(list(container.tensors), [container.read(n) for n in container.names()])
    (header_nbytes,) = struct.unpack("<Q", take(data, 0, 8, "header_nbytes"))
    _, tensors = parse_safetensors_header(take(data, 8, header_nbytes, "JSON header"))
    start = 8 + header_nbytes
    return Model(tensors, [data[start + t.begin : start + t.end] for t in tensors])


def _refuse(message: str) -> ValueError:
    return ValueError(message)


def item_nbytes(dtype: str) -> int:
    """Return the bytes of an element; 1 where that is no whole number, or not known."""
    bits = ELEMENT_BITS.get(dtype, 8)
    return bits // 8 if bits % 8 == 0 else 1


class Delta:
    """A model delta beside its base."""

    def __init__(self, data: bytes, base: Model) -> None:
        self.data = data
        order = sorted(range(len(base.tensors)), key=lambda k: base.tensors[k].name)
        self.sources = [base.tensors[k] for k in order]
        self.contents = [base.contents[k] for k in order]
        checksum = self._parse_header()
        index = self._parse_footer(checksum)
        if self.base_nbytes != sum(map(len, self.contents)):
            raise _refuse("the base has another size")
        if self.base_digest != base.digest():
            raise _refuse("the base has another digest")
        self._parse_index(index)
        self._check_frames()

    # --- Header and footer ------------------------------------------------------------------------

    def _parse_header(self) -> int:
        if take(self.data, 0, 4, "magic") != MAGIC:
            raise _refuse(f"magic is {self.data[:4]!r}")
        check_version(take(self.data, 4, 1, "version")[0])
        (checksum,) = struct.unpack("<Q", take(self.data, 8, 8, "header"))
        if checksum != xxh3_64(self.data[:8], 0):
            raise _refuse("header checksum does not match")
        if self.data[5:8] != bytes(3):
            raise _refuse("reserved bytes of the header are not zero")
        return int(checksum)

    def _parse_footer(self, header_checksum: int) -> bytes:
        if len(self.data) < HEADER_NBYTES + FOOTER_NBYTES:
            raise _refuse("truncated: no room for the footer")
        footer = self.data[-FOOTER_NBYTES:]
        if footer[76:] != END_MAGIC:
            raise _refuse(f"the footer ends in {footer[76:]!r}")
        if footer[72] != self.data[4]:
            raise _refuse("another version in the footer")
        if footer[73:76] != bytes(3):
            raise _refuse("reserved bytes of the footer are not zero")
        (checksum,) = struct.unpack("<Q", footer[64:72])
        if checksum != xxh3_64(footer[:64], header_checksum):
            raise _refuse("footer checksum does not match")
        offset, nbytes, self.original_nbytes, self.base_nbytes = struct.unpack("<4Q", footer[:32])
        self.base_digest = int.from_bytes(footer[32:48], "little")
        self.target_digest = int.from_bytes(footer[48:64], "little")
        if offset < HEADER_NBYTES or offset + nbytes + FOOTER_NBYTES != len(self.data):
            raise _refuse(f"an index of {nbytes} bytes at {offset}")
        self.index_offset = offset
        index = decode_frame(self.data[offset : offset + nbytes])
        if index.header.dtype != OPAQUE or index.header.array:
            raise _refuse("the index is not a frame of opaque bytes")
        return index.content

    # --- Index ------------------------------------------------------------------------------------

    def _parse_index(self, index: bytes) -> None:
        (header_nbytes,) = struct.unpack("<Q", take(index, 0, 8, "header_nbytes"))
        if header_nbytes > MAX_JSON_NBYTES:
            raise _refuse(f"a JSON header of {header_nbytes} bytes")
        self.header = take(index, 8, header_nbytes, "JSON header")
        pos = 8 + header_nbytes
        (n,) = struct.unpack("<Q", take(index, pos, 8, "n_tensors"))
        _, self.tensors = parse_safetensors_header(self.header)
        if n != len(self.tensors):
            raise _refuse(f"{n} tensors, the JSON header names {len(self.tensors)}")
        expected = 8 + header_nbytes + (self.tensors[-1].end if n else 0)
        if self.original_nbytes != expected:
            raise _refuse(f"original_nbytes is {self.original_nbytes}, expected {expected}")
        pos += 8
        packed = take(index, pos, -(-n // 4), "ways")
        pos += len(packed)
        ways = [packed[k // 4] >> 2 * (k % 4) & 3 for k in range(4 * len(packed))]
        if any(ways[n:]):
            raise _refuse("reserved bits behind the ways are not zero")
        self.entries = []
        for tensor, way in zip(self.tensors, ways, strict=False):
            if tensor.nbytes == 0 and way != SCRATCH:
                raise _refuse(f"tensor {tensor.name!r} of zero bytes has way {way}")
            entry = Entry(way)
            if tensor.nbytes and way in (SCRATCH, DELTA):
                entry.location = struct.unpack("<QQQ", take(index, pos, 24, "location"))
                entry.coding = CODING_FRAME
                pos += 24
            self.entries.append(entry)
        for k, way in enumerate(ways[:n]):
            if way == RECORD:
                pos = self._parse_record(index, pos, k)
        groups = self._groups()
        if len(index) - pos != 8 * len(groups):
            raise _refuse(f"{len(index) - pos} bytes for checksums of {len(groups)} groups")
        self.checksums = list(struct.unpack(f"<{len(groups)}Q", index[pos:]))

    def _parse_record(self, index: bytes, pos: int, k: int) -> int:
        entry, tensor = self.entries[k], self.tensors[k]
        kind = take(index, pos, 1, "kind")[0]
        pos += 1
        entry.origin, entry.coding = kind & 3, kind >> 2 & 3
        has_factors = bool(kind & 16)
        if kind >= 32 or entry.coding == 3:
            raise _refuse(f"record of kind {kind}")
        if entry.origin in (FROM_WHOLE, FROM_TARGET):
            entry.number, pos = read_varint(index, pos)
        if entry.origin == FROM_TARGET:
            if entry.coding or has_factors:
                raise _refuse("a copy of the target that is more")
            if entry.number >= k or self.tensors[entry.number].nbytes != tensor.nbytes:
                raise _refuse("a copy of a tensor behind it, or of another size")
            if self.entries[entry.number].origin == FROM_TARGET:
                raise _refuse("a copy of a copy")
        if entry.origin == FROM_PIECES:
            pos = self._parse_pieces(index, pos, k)
        has_new = any(piece.source < 0 for piece in entry.pieces)
        if has_new and (entry.coding != CODING_BLOCKS or has_factors):
            raise _refuse("new elements where there must be none")
        if has_factors:
            if entry.coding == CODING_COPY:
                raise _refuse("factors of a copy")
            if len(tensor.shape) < 2 or tensor.dtype not in MATRICES:
                raise _refuse("factors of no matrix of floats")
            offset, pos = read_varint(index, pos)
            nbytes, pos = read_varint(index, pos)
            entry.factors = offset, nbytes
        if entry.coding == CODING_FRAME:
            numbers = []
            for _ in range(3):
                number, pos = read_varint(index, pos)
                numbers.append(number)
            entry.location = numbers[0], numbers[1], numbers[2]
        if entry.coding == CODING_BLOCKS:
            pos = self._parse_blocks(index, pos, k)
        return pos

    def _parse_pieces(self, index: bytes, pos: int, k: int) -> int:
        entry = self.entries[k]
        entry.outer, pos = read_varint(index, pos)
        n_pieces, pos = read_varint(index, pos)
        n = self.n_items(k)
        if not 1 <= entry.outer <= n or n % entry.outer or not 1 <= n_pieces <= MOST_PIECES:
            raise _refuse(f"{n_pieces} pieces of {entry.outer} rows of {n} elements")
        for _ in range(n_pieces):
            width, pos = read_varint(index, pos)
            source, pos = read_varint(index, pos)
            piece = Piece(width, source - 1)
            if source:
                piece.inner, pos = read_varint(index, pos)
                first, pos = read_varint(index, pos)
                piece.first, piece.transposed = first >> 1, bool(first & 1)
                if piece.first + width > piece.inner:
                    raise _refuse("a piece beyond the rows of its source")
            if width == 0:
                raise _refuse("a piece without elements")
            entry.pieces.append(piece)
        if sum(piece.width for piece in entry.pieces) != n // entry.outer:
            raise _refuse("pieces do not fill the rows")
        return pos

    def _parse_blocks(self, index: bytes, pos: int, k: int) -> int:
        entry, tensor = self.entries[k], self.tensors[k]
        entry.block, pos = read_varint(index, pos)
        nbytes = entry.block * item_nbytes(tensor.dtype)
        if not 1 <= nbytes <= MOST_BLOCK_NBYTES:
            raise _refuse(f"blocks of {nbytes} bytes")
        if nbytes < min(LEAST_BLOCK_NBYTES, tensor.nbytes):
            raise _refuse(f"blocks of {nbytes} bytes")
        n = self.n_items(k)
        if entry.factors and entry.block < n and entry.block % (n // tensor.shape[0]):
            raise _refuse("blocks of no whole rows beside factors")
        known = self._known(k)
        for begin in range(0, n, entry.block):
            way = take(index, pos, 1, "way of a block")[0]
            pos += 1
            mine = known[begin : begin + entry.block]
            if way > 1 or (way and not mine.any()):
                raise _refuse(f"block of way {way}")
            places = []
            for _ in range(2 if way and not mine.all() else 1):
                offset, pos = read_varint(index, pos)
                size, pos = read_varint(index, pos)
                places.append((offset, size))
            entry.ways.append(way)
            entry.blocks.append(places)
        return pos

    def n_items(self, k: int) -> int:
        return self.tensors[k].nbytes // item_nbytes(self.tensors[k].dtype)

    def _known(self, k: int) -> Array:
        """Tell for each element whether it has a reference."""
        entry = self.entries[k]
        if entry.origin != FROM_PIECES:
            return np.ones(self.n_items(k), bool)
        row = np.concatenate([np.full(p.width, p.source >= 0) for p in entry.pieces])
        return np.tile(row, entry.outer)

    def _groups(self) -> list[list[int]]:
        groups: list[list[int]] = []
        nbytes = GROUP_NBYTES
        for k, entry in enumerate(self.entries):
            if entry.is_copy:
                if nbytes >= GROUP_NBYTES:
                    groups.append([])
                    nbytes = 0
                groups[-1].append(k)
                nbytes += self.tensors[k].nbytes
        return groups

    # --- Frames -----------------------------------------------------------------------------------

    def _check_frames(self) -> None:
        plain: set[tuple[int, int]] = set()
        deltas: set[tuple[int, int]] = set()
        self.members: dict[int, list[tuple[int, int]]] = defaultdict(list)
        factors: list[tuple[int, int]] = []
        for k, entry in enumerate(self.entries):
            factors += [entry.factors] if entry.factors else []
            if self.tensors[k].nbytes and entry.coding == CODING_FRAME:
                (plain if entry.way == SCRATCH else deltas).add(entry.location[:2])
                if entry.way != SCRATCH:
                    self.members[entry.location[0]].append((entry.location[2], k))
            for way, places in zip(entry.ways, entry.blocks, strict=True):
                (deltas if way else plain).add(places[0])
                plain.update(places[1:])
        if plain & deltas:
            raise _refuse("a frame that is a delta frame too")
        if len(set(factors)) < len(factors) or set(factors) & (plain | deltas):
            raise _refuse("factors that share a frame")
        large = [places for entry in self.entries for places in entry.blocks]
        if any(size > MOST_FRAME_NBYTES for places in large for _, size in places):
            raise _refuse("a frame too large for a block")
        if any(size > MOST_FRAME_NBYTES for _, size in deltas):
            raise _refuse("a delta frame too large")
        plain.update(factors)
        pos = HEADER_NBYTES
        for offset, nbytes in sorted(plain | deltas):
            if offset != pos or nbytes == 0:
                raise _refuse(f"a frame at {offset}, expected at {pos}: hole or overlap")
            pos += nbytes
        if pos != self.index_offset:
            raise _refuse(f"the frames end at {pos}, the index begins at {self.index_offset}")
        for places in self.members.values():
            places.sort()
            end = 0
            for at, k in places:
                if at != end:
                    raise _refuse("hole or overlap in a delta frame")
                end += self.tensors[k].nbytes

    # --- References -------------------------------------------------------------------------------

    def _reference(self, k: int) -> bytes:
        """Gather the references of the known elements of a tensor, in their order."""
        entry, tensor = self.entries[k], self.tensors[k]
        n = self.n_items(k)
        if entry.origin == FROM_PIECES:
            turned = {piece.source for piece in entry.pieces if piece.transposed}
            if max(turned, default=0) >= max(len(self.sources), 1):
                raise _refuse(f"the base has no tensor {max(turned)}")
            if sum(self.sources[s].nbytes for s in turned) > MOST_TRANSPOSED_NBYTES:
                raise _refuse("too large to be transposed")
            known = [piece for piece in entry.pieces if piece.source >= 0]
            rows = [self._piece(tensor, piece, entry.outer) for piece in known]
            content = np.concatenate(rows, axis=1).tobytes() if rows else b""
        else:
            number = entry.number
            if entry.origin == FROM_NAME:
                found = [
                    s
                    for s, source in enumerate(self.sources)
                    if source.name == tensor.name and source.shape == tensor.shape
                ]
                number = found[0] if found else len(self.sources)
            if number >= len(self.sources):
                raise _refuse(f"the base has no tensor for {tensor.name!r}")
            content = self._piece(tensor, Piece(n, number, n), 1).tobytes()
            source = self.sources[number]
            if source.nbytes // item_nbytes(source.dtype) != n:
                raise _refuse("another number of elements")
        return self._predict(k, content) if entry.factors else content

    def _piece(self, tensor: Tensor, piece: Piece, outer: int) -> Array:
        """Gather a piece: rows of elements as bytes, of the tensor's dtype."""
        if piece.source >= len(self.sources):
            raise _refuse(f"the base has no tensor {piece.source}")
        source, content = self.sources[piece.source], self.contents[piece.source]
        item = item_nbytes(source.dtype)
        elements = np.frombuffer(content, np.uint8).reshape(-1, item)
        if piece.transposed:
            if (
                len(source.shape) < 2
                or source.dtype not in ELEMENT_BITS
                or item * 8 != ELEMENT_BITS[source.dtype]
            ):
                raise _refuse("a transposed tensor that is no matrix")
            matrix = elements.reshape(source.shape[0], -1, item)
            elements = matrix.transpose(1, 0, 2).reshape(-1, item)
        if not piece.inner or outer * piece.inner > len(elements):
            raise _refuse("more rows than the source has")
        if outer > 1 and piece.inner > MOST_SKIPPED * piece.width:
            raise _refuse("few elements of long rows")
        matrix = elements[: outer * piece.inner].reshape(outer, piece.inner, item)
        cut = matrix[:, piece.first : piece.first + piece.width]
        return cast(cut.tobytes(), source.dtype, tensor.dtype).reshape(outer, -1)

    def _predict(self, k: int, content: bytes) -> bytes:
        from .lowrank import decode_factors, predict

        entry, tensor = self.entries[k], self.tensors[k]
        assert entry.factors is not None
        offset, nbytes = entry.factors
        frame = decode_frame(self.data[offset : offset + nbytes])
        if frame.header.dtype != OPAQUE or frame.header.array:
            raise _refuse("factors are not a frame of opaque bytes")
        rows = tensor.shape[0]
        shape = rows, self.n_items(k) // rows
        return predict(content, tensor.dtype, decode_factors(frame.content, shape), shape)

    # --- Contents ---------------------------------------------------------------------------------

    def _content(self, k: int) -> bytes:
        entry, tensor = self.entries[k], self.tensors[k]
        if tensor.nbytes == 0:
            return b""
        if entry.way == SCRATCH:
            offset, nbytes, at = entry.location
            content = self._frame((offset, nbytes))
            if at + tensor.nbytes > len(content):
                raise _refuse(f"tensor {tensor.name!r} is not within its frame")
            return content[at : at + tensor.nbytes]
        if entry.origin == FROM_TARGET:
            return self._content(entry.number)
        if entry.coding == CODING_COPY:
            return self._reference(k)
        if entry.coding == CODING_FRAME:
            offset, nbytes, at = entry.location
            members = self.members[offset]
            reference = b"".join(self._reference(member) for _, member in members)
            return self._delta((offset, nbytes), reference)[at : at + tensor.nbytes]
        return self._blocks(k)

    def _blocks(self, k: int) -> bytes:
        entry = self.entries[k]
        item = item_nbytes(self.tensors[k].dtype)
        reference = np.frombuffer(self._reference(k), np.uint8).reshape(-1, item)
        known = self._known(k)
        pieces = []
        for b, (way, places) in enumerate(zip(entry.ways, entry.blocks, strict=True)):
            mine = known[b * entry.block : (b + 1) * entry.block]
            block = np.empty((len(mine), item), np.uint8)
            if not way:
                content = self._frame(places[0])
                if len(content) != block.size:
                    raise _refuse("a block of another size")
                block[:] = np.frombuffer(content, np.uint8).reshape(-1, item)
            else:
                first = int(known[: b * entry.block].sum())
                there = reference[first : first + int(mine.sum())]
                content = self._delta(places[0], there.tobytes())
                block[mine] = np.frombuffer(content, np.uint8).reshape(-1, item)
                if len(places) > 1:
                    new = np.frombuffer(self._frame(places[1]), np.uint8)
                    if new.size != (~mine).sum() * item:
                        raise _refuse("new elements of another size")
                    block[~mine] = new.reshape(-1, item)
            pieces.append(block.tobytes())
        return b"".join(pieces)

    def _frame(self, place: tuple[int, int]) -> bytes:
        return decode_frame(self.data[place[0] : sum(place)]).content

    def _delta(self, place: tuple[int, int], reference: bytes) -> bytes:
        frame = decode_delta(self.data[place[0] : sum(place)], reference, alone=False)
        content = frame.content
        if len(content) != len(reference) or len(content) > MOST_BLOCK_NBYTES:
            raise _refuse(f"a delta frame of {len(content)} bytes, expected {len(reference)}")
        return content

    def trust(self) -> tuple[bytes, bytes, int]:
        """Restore the file; -> it, the checksums of copies as they should be, its digest."""
        contents = [self._content(k) for k in range(len(self.tensors))]
        groups = [b"".join(contents[k] for k in group) for group in self._groups()]
        sums = b"".join(struct.pack("<Q", xxh3_64(group, 0)) for group in groups)
        file = b"".join([struct.pack("<Q", len(self.header)), self.header, *contents])
        return file, sums, Model(self.tensors, contents).digest()

    def restore(self) -> bytes:
        """Restore the file, and verify it."""
        file, sums, digest = self.trust()
        if sums != struct.pack(f"<{len(self.checksums)}Q", *self.checksums):
            raise _refuse("a group of copies does not match its checksum")
        if digest != self.target_digest:
            raise _refuse("the target does not match its digest")
        return file


# --- Casts ----------------------------------------------------------------------------------------


def cast(content: bytes, source: str, target: str) -> Array:
    """Cast elements; -> their bytes."""
    if source == target:
        return np.frombuffer(content, np.uint8)
    if source not in FLOATS or target not in FLOATS:
        raise _refuse(f"there is no cast from {source} to {target}")
    words = np.frombuffer(content, f"<u{FLOATS[source][0]}").tolist()
    out = [cast_one(word, source, target) for word in words]
    return np.array(out, f"<u{FLOATS[target][0]}").view(np.uint8)


@lru_cache(maxsize=1 << 20)
def cast_one(bits: int, source: str, target: str) -> int:
    """Cast one element, by exact arithmetic."""
    nbytes, e_bits, m_bits, infinite = FLOATS[source]
    nbytes_out, e_out, m_out, infinite_out = FLOATS[target]
    sign = bits >> (8 * nbytes - 1) << (8 * nbytes_out - 1)
    magnitude = bits & ((1 << (8 * nbytes - 1)) - 1)
    top_in = ((1 << e_bits) - 1) << m_bits if infinite else (1 << (8 * nbytes - 1)) - 1
    top = ((1 << e_out) - 1) << m_out if infinite_out else (1 << (8 * nbytes_out - 1)) - 1
    mantissa = magnitude & ((1 << m_bits) - 1)
    if magnitude > top_in or (not infinite and magnitude == top_in):
        kept = mantissa << (m_out - m_bits) if m_out >= m_bits else mantissa >> (m_bits - m_out)
        return sign | top | kept | 1 << (m_out - 1)
    if magnitude == top_in:
        return sign | top
    field = magnitude >> m_bits
    if field:
        mantissa |= 1 << m_bits
    exponent = max(field, 1) - ((1 << (e_bits - 1)) - 1) - m_bits
    least = 1 - ((1 << (e_out - 1)) - 1) - m_out
    unit = max(exponent + mantissa.bit_length() - 1 - m_out, least)
    shift = unit - exponent
    if shift <= 0:
        rounded = mantissa << -shift
    else:
        rounded, rest = mantissa >> shift, mantissa & ((1 << shift) - 1)
        half = 1 << (shift - 1)
        rounded += rest > half or (rest == half and rounded & 1)
    return sign | min(rounded + ((unit - least) << m_out), top)
