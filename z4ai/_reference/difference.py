"""Transforms ``difference…``: docs/format/codecs/difference.md in its order and with its names.

`parse_model` reads what all chunks of a frame share, `restore` the elements of one chunk beside
their reference. Whatever breaks a rule of the page is a ``ValueError``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from . import contexts
from .symbols import CLASSES, MAX_ELEMENTS, MAX_ROW, MIN_ROW, Freqs, parse_params
from .wire import read_varint, take

SAME, XOR = 24, 25
#: id -> (name, bytes of an element).
TRANSFORMS = {
    28: ("difference1", 1),
    29: ("difference2", 2),
    30: ("difference4", 4),
    31: ("difference8", 8),
}
STREAMS = 2

# --- Differences ----------------------------------------------------------------------------------


def granularity(width: int) -> int:
    """Return g: an octave has 2^g levels."""
    return 1 if width == 8 else 2


def n_symbols(width: int) -> int:
    """Return how many symbols tables may have."""
    return 255 if width == 8 else 247


def bits_apart(symbol: int, g: int) -> int:
    """Return x, the number of bits that follow apart."""
    level = (symbol + 1) // 2
    return (level >> g) - 1 if level >> g else 0


def residual(symbol: int, apart: int, g: int) -> int:
    """Return r for a symbol and its bits apart."""
    level = (symbol + 1) // 2
    if level < 1 << g:
        m = level
    else:
        m = (((level & (1 << g) - 1) + (1 << g)) << bits_apart(symbol, g)) + apart
    return -m if symbol & 1 else m


def add(b: int, r: int, bits: int, floats: bool) -> int:
    """Return t for an element of the reference and r; all numbers of so many bits."""
    ones, sign = (1 << bits) - 1, 1 << (bits - 1)
    if not floats:
        return (b + r) & ones

    def ordered(u: int) -> int:
        return u ^ (ones if u & sign else sign)

    ordered_t = (ordered(b) + (-r if b & sign else r)) & ones
    return ordered_t ^ (sign if ordered_t & sign else ones)


# --- Model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A table record of kind 4."""

    floats: bool
    has_rows: bool
    escape: int | None  #: None unless rare symbols are coded apart
    shift: int
    below: int
    top: int
    period: int
    tables: tuple[Freqs, ...]
    rare_table: Freqs | None
    class_table: Freqs | None

    def context_of(self, b: int, row_class: int, bits: int) -> int:
        """Return the context of an element beside the element `b` of the reference."""
        reference_class = 0
        if self.floats:
            steps = b % (1 << (bits - 1)) >> self.below
            reference_class = min(max(self.top - steps, 0), 255)
        return min((reference_class + row_class) >> self.shift, len(self.tables) - 1)


def parse_model(record: bytes, width: int) -> Model:
    """Read a model and check everything in it; `width`: bytes of an element of the frame."""
    flags, escape, shift, below, top = struct.unpack("<BBBBH", take(record, 0, 6, "model"))
    if flags & 0xF8:
        raise ValueError(f"corrupt: reserved bits {flags & 0xF8:#04x} of a model are set")
    floats, has_rows, has_rare = (bool(flags >> bit & 1) for bit in range(3))
    if escape and not has_rare:
        raise ValueError(f"corrupt: escape {escape} without rare symbols")
    if escape >= n_symbols(width):
        raise ValueError(f"corrupt: escape {escape}, which no difference has")
    if shift > 7 or below > 63:
        raise ValueError(f"corrupt: a shift of {shift}, {below} bits below classes")
    if (below or top) and not floats:
        raise ValueError("corrupt: classes of references that are no floats")
    period, pos = read_varint(record, 6)
    least, most = (MIN_ROW, MAX_ROW) if has_rows else (0, 0)
    if not least <= period <= most:
        raise ValueError(f"corrupt: a period of {period}, expected {least} to {most}")
    tables, pos = _read_tables(record, pos, n_symbols(width))
    rare_table = class_table = None
    if has_rare:
        (rare_table,), pos = _read_tables(record, pos, n_symbols(width), single=True)
    if has_rows:
        (class_table,), pos = _read_tables(record, pos, CLASSES, single=True)
    if pos != len(record):
        raise ValueError(f"corrupt: {len(record) - pos} bytes behind a model")
    return Model(
        floats=floats,
        has_rows=has_rows,
        escape=escape if has_rare else None,
        shift=shift,
        below=below,
        top=top,
        period=period,
        tables=tables,
        rare_table=rare_table,
        class_table=class_table,
    )


def _read_tables(
    record: bytes, pos: int, most: int, *, single: bool = False
) -> tuple[tuple[Freqs, ...], int]:
    """Read tables that have no symbol from `most` on."""
    nbytes, pos = read_varint(record, pos)
    tables = contexts.read_tables(take(record, pos, nbytes, "tables"))
    if single and len(tables) != 1:
        raise ValueError(f"corrupt: {len(tables)} tables, expected 1")
    if any(any(table[most:]) for table in tables):
        raise ValueError(f"corrupt: a symbol of {most} or above in a table")
    return tuple(tuple(table) for table in tables), pos + nbytes


# --- Chunk ----------------------------------------------------------------------------------------


def restore(
    model: Model,
    width: int,
    params: bytes,
    stream: bytes,
    apart: bytes,
    reference: bytes,
    n: int,
    first: int,
) -> bytes:
    """Restore the elements of a chunk.

    Parameters
    ----------
    model
        Of its frame.
    width
        Bytes of an element.
    params, stream, apart
        The parameters, and both streams as they are encoded.
    reference
        Of the chunk: n elements, or more.
    n
        Number of whole elements in the chunk.
    first
        Number of its first element in the frame.

    Returns
    -------
    bytes
        The elements, little-endian words.
    """
    if n > MAX_ELEMENTS:
        raise ValueError(f"{n} elements in a chunk, at most {MAX_ELEMENTS}")
    bits, g = 8 * width, granularity(width)
    beside = [int.from_bytes(reference[i * width : (i + 1) * width], "little") for i in range(n)]
    symbols = _symbols(model, params, stream, beside, bits, first)
    needed = sum(bits_apart(symbol, g) for symbol in symbols)
    if len(apart) != (needed + 7) // 8:
        raise ValueError(f"corrupt: {len(apart)} bytes apart for {needed} bits")
    # A piece at a time: of a long string each shift would copy all of it.
    out = bytearray()
    piece, have, taken = 0, 0, 0
    for symbol, b in zip(symbols, beside, strict=True):
        size = bits_apart(symbol, g)
        while have < size:
            piece |= int.from_bytes(apart[taken : taken + 8], "little") << have
            have += 64
            taken += 8
        r = residual(symbol, piece & (1 << size) - 1, g)
        piece >>= size
        have -= size
        out += add(b, r, bits, model.floats).to_bytes(width, "little")
    return bytes(out)


def _symbols(
    model: Model, params: bytes, stream: bytes, beside: list[int], bits: int, first: int
) -> bytes:
    """Decode stream 0."""
    rows_nbytes, rare_nbytes, n_rare, n_raw = parse_params(params)
    if n_raw:
        raise ValueError(f"corrupt: {n_raw} raw fields of differences")
    rows = take(stream, 0, rows_nbytes, "classes of rows")
    rare = take(stream, rows_nbytes, rare_nbytes, "rare symbols")
    of_elements = bytes(_contexts(model, rows, beside, bits, first))
    rest = stream[rows_nbytes + rare_nbytes :]
    symbols = contexts.decode(rest, of_elements, len(beside), model.tables)
    if model.escape is None:
        if n_rare or rare:
            raise ValueError("corrupt: rare symbols without a table")
        return symbols
    assert model.rare_table is not None
    apart = contexts.decode(rare, None, n_rare, [model.rare_table])
    return contexts.put_back(symbols, model.escape, apart)


def _contexts(model: Model, rows: bytes, beside: list[int], bits: int, first: int) -> list[int]:
    """Return the context of each element; `rows` is the stream of the classes of rows."""
    if not model.has_rows:
        if rows:
            raise ValueError("corrupt: classes of rows without a table")
        return [model.context_of(b, 0, bits) for b in beside]
    assert model.class_table is not None
    first_row = first // model.period
    touched = (first + len(beside) - 1) // model.period - first_row + 1
    classes = contexts.decode(rows, None, touched, [model.class_table])
    return [
        model.context_of(b, classes[(first + i) // model.period - first_row], bits)
        for i, b in enumerate(beside)
    ]
