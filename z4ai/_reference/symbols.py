"""Transforms ``symbols…``: docs/format/codecs/symbols.md in its order and with its names.

`parse_model` reads what all chunks of a frame share, `restore` the elements of one chunk. Whatever
breaks a rule of the page is a ``ValueError``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import contexts
from .wire import read_varint, take

Freqs = tuple[int, ...]  #: a table: 256 frequencies
Words = npt.NDArray[Any]  # of uint64

MAX_ELEMENTS = 1 << 22  # of a chunk
MIN_ROW = 16  # elements of a row, where rows have classes
MAX_ROW = (1 << 32) - 1
MAX_COLUMNS = 1 << 20
CLASSES = 128
PARAMS_NBYTES = 12
GROUP = 64  # remainders that are packed together

# --- Elements -------------------------------------------------------------------------------------


class Transform(NamedTuple):
    """One row of the table of transforms; the field lies right above the low part."""

    name: str
    width: int
    field_bits: int
    low_bits: int  #: of the upper half word, below the field: the remainder without the sign

    @property
    def remainder_bits(self) -> int:
        """The bits of a remainder, the sign included; 0 where there are none."""
        return 0 if self.width == 1 else self.low_bits + 1

    @property
    def is_direct(self) -> bool:
        """Whether the symbol is the field."""
        return self.field_bits == 8


TRANSFORMS = {
    7: Transform("symbols1", 1, 8, 0),
    8: Transform("symbols2", 2, 10, 5),
    9: Transform("symbols2h", 2, 8, 7),
    10: Transform("symbols4", 4, 10, 5),
    11: Transform("symbols8", 8, 12, 3),
}


def field_of(symbol: int, base: int, bits: int, raw: Iterator[int]) -> int:
    """Return the field of a symbol where the two differ."""
    if symbol == 0:
        return 0
    if symbol == 255:
        field = next(raw, None)
        if field is None:
            raise ValueError("corrupt: fewer raw fields than symbols 255")
        return field
    field = (base + symbol) % 65536
    if field >> bits:
        raise ValueError(f"corrupt: symbol {symbol} stands for {field}, not below 2**{bits}")
    return field


# --- Model ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """A table record of kind 1."""

    base: int
    shift: int
    escape: int | None  #: None unless rare symbols are coded apart
    period: int
    has_rows: bool
    tables: tuple[Freqs, ...]
    rare_table: Freqs | None
    class_table: Freqs | None
    columns: bytes | None  #: the class of each column

    def context_of(self, row_class: int, column_class: int) -> int:
        """Return the context of an element of these classes."""
        return min((row_class + column_class) >> self.shift, len(self.tables) - 1)


def parse_model(record: bytes) -> Model:
    """Read a model and check everything in it."""
    base, bits, escape = struct.unpack("<HBB", take(record, 0, 4, "model"))
    if bits & 0xC0:
        raise ValueError(f"corrupt: reserved bits {bits & 0xC0:#04x} of a model are set")
    shift = bits & 7
    has_rows, has_columns, has_rare = (bool(bits >> bit & 1) for bit in (3, 4, 5))
    if escape and not has_rare:
        raise ValueError(f"corrupt: escape {escape} without rare symbols")
    period, pos = read_varint(record, 4)
    least, most = 0, 0
    if has_rows or has_columns:
        least = MIN_ROW if has_rows else 1
        most = MAX_COLUMNS if has_columns else MAX_ROW
    if not least <= period <= most:
        raise ValueError(f"corrupt: a period of {period}, expected {least} to {most}")
    tables, pos = _read_tables(record, pos, "tables")
    if not has_rows and not has_columns and len(tables) != 1:
        raise ValueError(f"corrupt: {len(tables)} tables without classes, expected 1")
    rare_table = class_table = columns = None
    if has_rare:
        rare_table, pos = _read_table(record, pos, "rare table")
    if has_rows or has_columns:
        class_table, pos = _read_table(record, pos, "class table")
        if any(class_table[CLASSES:]):
            raise ValueError(f"corrupt: classes of {CLASSES} or above")
    rest = record[pos:]
    if has_columns:
        columns = _read_alone(rest, period, class_table)
    elif rest:
        raise ValueError(f"corrupt: {len(rest)} bytes behind a model")
    return Model(
        base=base,
        shift=shift,
        escape=escape if has_rare else None,
        period=period,
        has_rows=has_rows,
        tables=tuple(tables),
        rare_table=rare_table,
        class_table=class_table,
        columns=columns,
    )


def _read_tables(record: bytes, pos: int, what: str) -> tuple[list[Freqs], int]:
    nbytes, pos = read_varint(record, pos)
    tables = contexts.read_tables(take(record, pos, nbytes, what))
    return [tuple(table) for table in tables], pos + nbytes


def _read_table(record: bytes, pos: int, what: str) -> tuple[Freqs, int]:
    tables, pos = _read_tables(record, pos, what)
    if len(tables) != 1:
        raise ValueError(f"corrupt: {len(tables)} tables in the {what}, expected 1")
    return tables[0], pos


def _read_alone(stream: bytes, n: int, table: Freqs | None) -> bytes:
    """Decode symbols that all have one context."""
    assert table is not None
    return contexts.decode(stream, None, n, [table])


# --- Chunk ----------------------------------------------------------------------------------------


class Params(NamedTuple):
    """The parameters of a chunk."""

    rows_nbytes: int
    rare_nbytes: int
    n_rare: int
    n_raw: int


def parse_params(params: bytes) -> Params:
    """Read the parameters of a chunk, or none of them."""
    if len(params) not in (0, PARAMS_NBYTES):
        raise ValueError(f"corrupt: {len(params)} bytes of parameters, expected 0 or 12")
    return Params(*struct.unpack("<IIHH", params or bytes(PARAMS_NBYTES)))


def restore(
    transform: Transform,
    model: Model,
    params: bytes,
    stream: bytes,
    remainders: bytes | None,
    low: Sequence[bytes],
    n: int,
    first: int,
) -> bytes:
    """Restore the elements of a chunk.

    Parameters
    ----------
    transform, model
        Of the chunk and of its frame.
    params, stream
        The parameters, and stream 0 as it is encoded.
    remainders
        One a byte; None where elements have one byte.
    low
        Streams 2 … w−1, decoded.
    n
        Number of whole elements in the chunk, at most `MAX_ELEMENTS`.
    first
        Number of its first element in the frame.

    Returns
    -------
    bytes
        The elements, little-endian words.
    """
    if model.base and transform.is_direct:
        raise ValueError(f"corrupt: a base of {model.base} with {transform.name}")
    fields = _fields(transform, model, parse_params(params), stream, n, first)
    if remainders is None:
        upper = fields
    else:
        rest = np.frombuffer(remainders, np.uint8).astype(np.uint64)
        bits = transform.low_bits
        sign = rest >> bits & 1
        upper = sign << 15 | fields << bits | rest & ((1 << bits) - 1)
    words = upper
    for plane in low:
        words = words << 8 | np.frombuffer(plane, np.uint8)
    return words.astype(f"<u{transform.width}").tobytes()


def _fields(
    transform: Transform, model: Model, params: Params, stream: bytes, n: int, first: int
) -> Words:
    """Decode stream 0 to the fields of the elements."""
    pos = 0
    rows = take(stream, pos, params.rows_nbytes, "classes of rows")
    pos += params.rows_nbytes
    rare = take(stream, pos, params.rare_nbytes, "rare symbols")
    pos += params.rare_nbytes
    raw = [at for (at,) in struct.iter_unpack("<H", take(stream, pos, 2 * params.n_raw, "raw"))]
    pos += 2 * params.n_raw

    symbols = contexts.decode(stream[pos:], _contexts(model, rows, n, first), n, model.tables)
    if model.escape is not None:
        rest = _read_alone(rare, params.n_rare, model.rare_table)
        symbols = contexts.put_back(symbols, model.escape, rest)
    elif params.n_rare or rare:
        raise ValueError("corrupt: rare symbols without a table")
    if transform.is_direct:
        if raw:
            raise ValueError(f"corrupt: raw fields with {transform.name}")
        return np.frombuffer(symbols, np.uint8).astype(np.uint64)
    for field in raw:
        if field >> transform.field_bits:
            raise ValueError(f"corrupt: raw field {field} with {transform.name}")
    following = iter(raw)
    fields = [field_of(y, model.base, transform.field_bits, following) for y in symbols]
    left = len(list(following))
    if left:
        raise ValueError(f"corrupt: {left} raw fields are left")
    return np.array(fields, np.uint64)


def _contexts(model: Model, rows: bytes, n: int, first: int) -> bytes:
    """Return the context of each element; `rows` is the stream of the classes of rows."""
    if not model.period:
        if rows:
            raise ValueError("corrupt: classes of rows without a table")
        return bytes(n)
    elements = range(first, first + n)
    first_row = first // model.period
    row_classes = None
    if model.has_rows:
        touched = elements[-1] // model.period - first_row + 1
        row_classes = _read_alone(rows, touched, model.class_table)
    elif rows:
        raise ValueError("corrupt: classes of rows where rows have none")
    of_elements = bytearray()
    for i in elements:
        row, column = divmod(i, model.period)
        row_class = 0 if row_classes is None else row_classes[row - first_row]
        column_class = 0 if model.columns is None else model.columns[column]
        of_elements.append(model.context_of(row_class, column_class))
    return bytes(of_elements)


# --- Packed remainders ----------------------------------------------------------------------------


def packed_nbytes(bits: int, n: int) -> int:
    """Return the bytes of `n` packed remainders."""
    if bits == 8:
        return n
    return n // GROUP * GROUP * bits // 8 + (n % GROUP * bits + 7) // 8


def unpack(packed: bytes, bits: int, n: int) -> bytes:
    """Return `n` remainders of 4, 6 or 8 bits, one a byte."""
    if len(packed) != packed_nbytes(bits, n):
        raise ValueError(f"corrupt: {len(packed)} bytes of {n} remainders of {bits} bits")
    if bits == 8:
        return packed
    out = bytearray()
    group_nbytes = GROUP * bits // 8
    whole = n // GROUP
    for g in range(whole):
        out += _unpack_group(packed[g * group_nbytes : (g + 1) * group_nbytes], bits)
    string = int.from_bytes(packed[whole * group_nbytes :], "little")
    for k in range(n % GROUP):
        out.append(string >> bits * k & ((1 << bits) - 1))
    return bytes(out)


def _unpack_group(group: bytes, bits: int) -> bytes:
    remainders = bytearray(GROUP)
    for j in range(32):
        remainders[j] = group[j] & 15
        remainders[j + 32] = group[j] >> 4
    if bits == 6:
        for j in range(16):
            for k in range(4):
                remainders[j + 16 * k] |= (group[32 + j] >> 2 * k & 3) << 4
    return bytes(remainders)
