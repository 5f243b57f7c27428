"""What the index of a model delta says of a tensor. Specification: docs/format/model_delta.md."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from z4ai._wire import get_varint, put_varint
from z4ai.align import MAX_PIECES, Piece, item_nbytes, n_items
from z4ai.errors import CorruptError, LimitError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.container.st_header import Tensor
    from z4ai.container.zstn import Location

__all__ = [
    "BLOCKS",
    "COPY",
    "FRAME",
    "FROM_NAME",
    "FROM_PIECES",
    "FROM_TARGET",
    "FROM_WHOLE",
    "MOST_BLOCK_NBYTES",
    "SCRATCH",
    "WAY_RECORD",
    "WAY_SCRATCH",
    "Block",
    "Columns",
    "Entry",
    "parse_record",
    "row_items",
    "write_record",
]

# Ways of tensors; 3 is whatever needs a record.
WAY_SCRATCH, WAY_COPY, WAY_DELTA, WAY_RECORD = range(4)
# Where the reference comes from.
FROM_NAME, FROM_WHOLE, FROM_PIECES, FROM_TARGET = range(4)
# Where the content is; SCRATCH is no coding of a record.
COPY, FRAME, BLOCKS, SCRATCH = range(4)
_FACTORS = 1 << 4
_KINDS = 1 << 5

MOST_BLOCK_NBYTES = 1 << 25
_LEAST_BLOCK_NBYTES = 1 << 20
# Dtypes whose differences may be of low rank.
_MATRICES = ("F16", "BF16", "F32", "F64")
# What one piece or block of a list takes in memory.
_ITEM_NBYTES = 200


class Block(NamedTuple):
    """One block of a tensor: where its frames are, by offset and size.

    Attributes
    ----------
    delta : bool
        Whether `frame` is a delta frame of the known elements, or a frame of all.
    frame : (int, int)
        Its place.
    new : (int, int) or None
        Place of the frame of the new elements.
    """

    delta: bool
    frame: tuple[int, int]
    new: tuple[int, int] | None = None


class Entry(NamedTuple):
    """How one tensor is stored.

    Attributes
    ----------
    coding : int
        `SCRATCH`, `COPY`, `FRAME` (one delta frame) or `BLOCKS`.
    origin : int
        Where the reference comes from: one of the constants ``FROM_…``.
    location : (int, int, int) or None
        Of `SCRATCH` and `FRAME`: offset and size of the frame, offset in its content.
    source : int
        Number of a tensor, of the base or of the target, by `origin`.
    outer, pieces
        Of `FROM_PIECES`.
    factors : (int, int) or None
        Offset and size of the frame of factors.
    block : int
        Elements of a block.
    blocks : tuple of Block
        All of them.
    """

    coding: int
    origin: int = FROM_NAME
    location: Location | None = None
    source: int = -1
    outer: int = 1
    pieces: tuple[Piece, ...] = ()
    factors: tuple[int, int] | None = None
    block: int = 0
    blocks: tuple[Block, ...] = ()

    @property
    def way(self) -> int:
        """Its way on the wire."""
        if self.coding == SCRATCH:
            return WAY_SCRATCH
        if self.origin == FROM_NAME and self.factors is None and self.coding != BLOCKS:
            return WAY_COPY if self.coding == COPY else WAY_DELTA
        return WAY_RECORD

    @property
    def is_copy(self) -> bool:
        """Whether the content is that of the base."""
        return self.coding == COPY and self.origin != FROM_TARGET

    @property
    def has_new(self) -> bool:
        """Whether there are elements without a reference."""
        return any(piece.source < 0 for piece in self.pieces)


class Columns:
    """The pieces of a row, for questions about ranges of it."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        self.starts = [0, *accumulate(piece.width for piece in pieces)]
        known = (0 if piece.source < 0 else piece.width for piece in pieces)
        self._known = [0, *accumulate(known)]
        self.inner = self.starts[-1]
        self.known = self._known[-1]

    def n_known(self, begin: int, end: int) -> int:
        """Count the known elements of a range of the tensor's elements."""
        return self._before(end) - self._before(begin)

    def between(self, left: int, right: int) -> range:
        """Numbers of the pieces that lie in a range of columns, with a part at least."""
        first = bisect_right(self.starts, left) - 1
        return range(first, bisect_left(self.starts, right))

    def _before(self, at: int) -> int:
        row, column = divmod(at, self.inner)
        count = row * self.known
        if column:
            p = bisect_right(self.starts, column) - 1
            inside = 0 if self.pieces[p].source < 0 else column - self.starts[p]
            count += self._known[p] + inside
        return count


# --- On the wire ----------------------------------------------------------------------------------


def write_record(entry: Entry) -> bytes:
    """Put the record of a tensor on the wire."""
    factors = entry.factors is not None
    out = bytearray([entry.origin | entry.coding << 2 | (_FACTORS if factors else 0)])
    if entry.origin in (FROM_WHOLE, FROM_TARGET):
        out += put_varint(entry.source)
    elif entry.origin == FROM_PIECES:
        out += put_varint(entry.outer) + put_varint(len(entry.pieces))
        for piece in entry.pieces:
            out += put_varint(piece.width) + put_varint(piece.source + 1)
            if piece.source >= 0:
                out += put_varint(piece.inner) + put_varint(2 * piece.first + piece.transposed)
    numbers = [] if entry.factors is None else [*entry.factors]
    if entry.coding == FRAME and entry.location is not None:
        numbers += entry.location
    elif entry.coding == BLOCKS:
        numbers.append(entry.block)
    out += b"".join(map(put_varint, numbers))
    for block in entry.blocks:
        out.append(block.delta)
        out += b"".join(map(put_varint, (*block.frame, *(block.new or ()))))
    return bytes(out)


class _Reader:
    """Takes numbers off the records."""

    def __init__(self, buf: memoryview, pos: int, room: int) -> None:
        self.buf = buf
        self.pos = pos
        self._room = room

    def byte(self) -> int:
        if self.pos >= len(self.buf):
            msg = "records end early"
            raise TruncatedError(msg)
        self.pos += 1
        return self.buf[self.pos - 1]

    def number(self) -> int:
        value, self.pos = get_varint(self.buf, self.pos, len(self.buf))
        return value

    def place(self) -> tuple[int, int]:
        return self.number(), self.number()

    def pay(self) -> None:
        """Count what an item of a list takes in memory."""
        self._room -= _ITEM_NBYTES
        if self._room < 0:
            msg = "pieces and blocks exceed the limit of bytes in memory"
            raise LimitError(msg, option="max_table_nbytes")


def parse_record(
    buf: memoryview, pos: int, number: int, tensors: Sequence[Tensor], room: int
) -> tuple[Entry, int, int]:
    """Parse the record of tensor `number`; -> it, where it ends, what is left of `room`."""
    reader = _Reader(buf, pos, room)
    entry = _parse(reader, number, tensors)
    return entry, reader.pos, reader._room


def _parse(reader: _Reader, number: int, tensors: Sequence[Tensor]) -> Entry:
    tensor = tensors[number]
    kind = reader.byte()
    origin, coding = kind & 3, kind >> 2 & 3
    has_factors = bool(kind & _FACTORS)
    if kind >= _KINDS or coding == SCRATCH:
        raise _corrupt(tensor, f"record of kind {kind:#x}")
    if not tensor.nbytes:
        raise _corrupt(tensor, "a tensor of zero bytes has a record")
    if (origin == FROM_TARGET and (coding or has_factors)) or (coding == COPY and has_factors):
        raise _corrupt(tensor, f"record of kind {kind:#x}, a copy that is more than that")
    entry = Entry(coding, origin)
    if origin in (FROM_WHOLE, FROM_TARGET):
        entry = entry._replace(source=reader.number())
        if origin == FROM_TARGET and entry.source >= number:
            raise _corrupt(tensor, f"a copy of tensor {entry.source}, itself {number}")
    elif origin == FROM_PIECES:
        entry = _parse_pieces(reader, tensor, entry)
        if entry.has_new and (coding != BLOCKS or has_factors):
            raise _corrupt(tensor, "elements without a reference where all must have one")
    if has_factors:
        if len(tensor.shape) < 2 or tensor.dtype not in _MATRICES:
            raise _corrupt(tensor, f"factors of {tensor.dtype} of {len(tensor.shape)} dimensions")
        entry = entry._replace(factors=reader.place())
    if coding == FRAME:
        location = reader.number(), reader.number(), reader.number()
        return entry._replace(location=location)
    return _parse_blocks(reader, tensor, entry) if coding == BLOCKS else entry


def _corrupt(tensor: Tensor, msg: str) -> CorruptError:
    return CorruptError(msg, tensor=tensor.name)


def _parse_pieces(reader: _Reader, tensor: Tensor, entry: Entry) -> Entry:
    outer, n_pieces = reader.number(), reader.number()
    elements = n_items(tensor)
    if outer == 0 or elements % outer or not 1 <= n_pieces <= MAX_PIECES:
        raise _corrupt(tensor, f"{n_pieces} pieces of {outer} rows of {elements} elements")
    pieces = []
    for _ in range(n_pieces):
        reader.pay()
        width, source = reader.number(), reader.number() - 1
        if width == 0:
            raise _corrupt(tensor, "a piece of no elements")
        if source < 0:
            pieces.append(Piece(width, -1, 0, 0, False))
            continue
        inner, first = reader.number(), reader.number()
        pieces.append(Piece(width, source, inner, first >> 1, bool(first & 1)))
        if (first >> 1) + width > inner:
            raise _corrupt(tensor, f"a piece of {width} from {first >> 1} in rows of {inner}")
    if sum(piece.width for piece in pieces) != elements // outer:
        raise _corrupt(tensor, f"pieces do not fill rows of {elements // outer} elements")
    return entry._replace(outer=outer, pieces=tuple(pieces))


def _parse_blocks(reader: _Reader, tensor: Tensor, entry: Entry) -> Entry:
    block = reader.number()
    elements, width = n_items(tensor), item_nbytes(tensor.dtype)
    least = min(_LEAST_BLOCK_NBYTES, tensor.nbytes)
    if not least <= block * width <= MOST_BLOCK_NBYTES:
        raise _corrupt(tensor, f"blocks of {block} elements of {width} bytes")
    if entry.factors is not None and block < elements and block % row_items(tensor):
        raise _corrupt(tensor, f"blocks of {block} elements where factors ask for rows")
    columns = Columns(entry.pieces) if entry.has_new else None
    blocks = []
    for begin in range(0, elements, block):
        reader.pay()
        way = reader.byte()
        if way > 1:
            raise _corrupt(tensor, f"block of way {way}")
        frame, new = reader.place(), None
        if way and columns is not None:
            end = min(begin + block, elements)
            known = columns.n_known(begin, end)
            if known == 0:
                raise _corrupt(tensor, "a delta frame where no element has a reference")
            new = reader.place() if known < end - begin else None
        blocks.append(Block(bool(way), frame, new))
    return entry._replace(block=block, blocks=tuple(blocks))


def row_items(tensor: Tensor) -> int:
    """Count the elements of a row of a tensor seen as a matrix of ``shape[0]`` rows."""
    # There may be bytes where there are no rows: of a dtype that is not known.
    return n_items(tensor) // max(tensor.shape[0], 1)
