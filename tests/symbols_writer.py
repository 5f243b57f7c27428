"""A writer of models and chunks of symbols for tests: docs/format/codecs/symbols.md, every choice.

The encoder of z4ai makes few of the models that its decoder must accept. This one makes any: it
takes the choices as they are, counts, and codes one symbol after the other. It shares the context
coder with the reference reader, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from z4ai._reference import contexts

Words = npt.NDArray[np.uint64]
#: The class of a row, by its number and the number of the first element of the chunk.
Rows = Callable[[int, int], int]
#: A chunk to be counted: transform, elements, number of the first.
Piece = tuple[str, bytes, int]


class Kind(NamedTuple):
    """A transform: its id, bytes of an element, bits of the field, remainder bits below it."""

    number: int
    width: int
    field_bits: int
    below: int


KINDS = {
    "symbols1": Kind(7, 1, 8, 0),
    "symbols2": Kind(8, 2, 10, 5),
    "symbols2h": Kind(9, 2, 8, 7),
    "symbols4": Kind(10, 4, 10, 5),
    "symbols8": Kind(11, 8, 12, 3),
}
RAW = 255


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# --- Elements -------------------------------------------------------------------------------------


def words_of(elements: bytes, kind: Kind) -> Words:
    return np.frombuffer(elements, f"<u{kind.width}").astype(np.uint64)


def _upper(elements: bytes, kind: Kind) -> npt.NDArray[np.int64]:
    shift = max(8 * kind.width - 16, 0)
    return (words_of(elements, kind) >> np.uint64(shift)).astype(np.int64)


def fields(elements: bytes, transform: str) -> list[int]:
    kind = KINDS[transform]
    found: list[int] = (_upper(elements, kind) >> kind.below & 2**kind.field_bits - 1).tolist()
    return found


def remainders(elements: bytes, transform: str) -> bytes:
    """The remainders, one a byte."""
    kind = KINDS[transform]
    t = _upper(elements, kind)
    return (t // 2**15 * 2**kind.below + t % 2**kind.below).astype(np.uint8).tobytes()


def remainder_bits(transform: str) -> int:
    return KINDS[transform].below + 1


def low_planes(elements: bytes, transform: str) -> list[bytes]:
    """Streams 2 … w−1."""
    kind = KINDS[transform]
    words = words_of(elements, kind)
    shifts = range(8 * (kind.width - 3), -1, -8)
    return [(words >> np.uint64(shift)).astype(np.uint8).tobytes() for shift in shifts]


def pack(rest: bytes, bits: int) -> bytes:
    """Remainders of 4, 6 or 8 bits as they are stored."""
    if bits == 8:
        return rest
    whole = len(rest) // 64 * 64
    group = np.frombuffer(rest[:whole], np.uint8).reshape(-1, 64)
    packed = group[:, :32] & 15 | group[:, 32:] << 4
    if bits == 6:
        two = (group >> 4).reshape(-1, 4, 16)
        high = two[:, 0] | two[:, 1] << 2 | two[:, 2] << 4 | two[:, 3] << 6
        packed = np.concatenate([packed, high], axis=1)
    string = "".join(format(value, f"0{bits}b") for value in reversed(rest[whole:]))
    left = int(string or "0", 2).to_bytes(-(-len(string) // 8), "little")
    return packed.tobytes() + left


# --- Models ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Model:
    """What a model shall be; its tables follow from what is coded.

    ``rows`` is the class of each row, or a function of the row and of the first element of the
    chunk: chunks need not agree. ``rare`` are the symbols that are coded apart, the escape always;
    None codes none apart. Fields of ``raw`` are coded as such though they may have a symbol;
    with ``zero_by_base`` field 0 has the symbol that the base gives it. With ``every_symbol`` all
    256 have a frequency, with ``full_params`` four zeros are written as parameters.
    """

    base: int = 0
    shift: int = 0
    contexts: int = 1
    period: int = 0
    rows: Sequence[int] | Rows | None = None
    columns: Sequence[int] | None = None
    rare: Collection[int] | None = None
    escape: int = 0
    raw: Collection[int] = ()
    zero_by_base: bool = False
    every_symbol: bool = False
    full_params: bool = False
    precision: int = 3

    def symbol(self, field: int, kind: Kind) -> int:
        if kind.field_bits == 8:
            return field
        if field in self.raw:
            return RAW
        if field == 0 and not self.zero_by_base:
            return 0
        y = (field - self.base) % 2**16
        return y if 1 <= y <= 254 else RAW

    def row_classes(self, first: int, n: int) -> list[int]:
        """Classes of the rows that a chunk touches."""
        if self.rows is None:
            return []
        touched = range(first // self.period, (first + n - 1) // self.period + 1)
        if callable(self.rows):
            return [self.rows(row, first) for row in touched]
        return [self.rows[row] for row in touched]

    def contexts_of(self, first: int, n: int) -> bytes:
        if not self.period:
            return bytes(n)
        row_classes = self.row_classes(first, n)
        out = bytearray()
        for i in range(first, first + n):
            both = 0
            if row_classes:
                both += row_classes[i // self.period - first // self.period]
            if self.columns is not None:
                both += self.columns[i % self.period]
            out.append(min(both >> self.shift, self.contexts - 1))
        return bytes(out)


@dataclass(frozen=True)
class Symbols:
    """The symbols of one chunk before they are coded."""

    contexts: bytes
    first_pass: bytes  #: with an escape for each rare one
    rare: bytes
    raw: list[int]
    row_classes: list[int]


def _symbols(model: Model, piece: Piece) -> Symbols:
    transform, elements, first = piece
    kind = KINDS[transform]
    found = fields(elements, transform)
    symbols = bytes(model.symbol(field, kind) for field in found)
    raw = [f for f, y in zip(found, symbols, strict=True) if y == RAW and kind.field_bits > 8]
    rare = b""
    first_pass = symbols
    if model.rare is not None:
        apart = {*model.rare, model.escape}
        rare = bytes(y for y in symbols if y in apart)
        first_pass = bytes(model.escape if y in apart else y for y in symbols)
    return Symbols(
        contexts=model.contexts_of(first, len(found)),
        first_pass=first_pass,
        rare=rare,
        raw=raw,
        row_classes=model.row_classes(first, len(found)),
    )


@dataclass(frozen=True)
class Fitted:
    """A model with its tables, as encoded bytes."""

    model: Model
    tables: bytes
    rare_table: bytes | None
    class_table: bytes | None

    def record(self, override: Mapping[str, Any] | None = None) -> bytes:
        """The table record of kind 1; ``override`` replaces its fields by name, None leaves out."""
        m = self.model
        has_classes = m.rows is not None or m.columns is not None
        columns = b""
        if m.columns is not None:
            columns = self.alone(bytes(m.columns), self.class_table)
        bits = (m.rows is not None) << 3 | (m.columns is not None) << 4 | (m.rare is not None) << 5
        field: dict[str, Any] = {
            "base": m.base,
            "shift": m.shift | bits,
            "escape": m.escape if m.rare is not None else 0,
            "period": varint(m.period if has_classes else 0),
            "tables": self.tables,
            "rare_table": self.rare_table,
            "class_table": self.class_table,
            "columns": columns,
            **(override or {}),
        }
        out = struct.pack("<HBB", field["base"], field["shift"], field["escape"]) + field["period"]
        for name in ("tables", "rare_table", "class_table"):
            if field[name] is not None:
                out += varint(field.get(name + "_nbytes", len(field[name]))) + field[name]
        return out + field["columns"]

    def stream(
        self, piece: Piece, override: Mapping[str, Any] | None = None
    ) -> tuple[bytes, bytes]:
        """Stream 0 and the parameters of a chunk; ``override`` replaces what they are made of."""
        found = _symbols(self.model, piece)
        rows = rare = b""
        if self.model.rows is not None:
            rows = self.alone(bytes(found.row_classes), self.class_table)
        if self.model.rare is not None:
            rare = self.alone(found.rare, self.rare_table)
        freqs = contexts.read_tables(self.tables)
        field: dict[str, Any] = {
            "rows": rows,
            "rare": rare,
            "n_rare": len(found.rare),
            "raw": struct.pack(f"<{len(found.raw)}H", *found.raw),
            "symbols": contexts.encode(found.first_pass, found.contexts, freqs),
            **(override or {}),
        }
        params = struct.pack(
            "<IIHH",
            field.get("rows_nbytes", len(field["rows"])),
            field.get("rare_nbytes", len(field["rare"])),
            field["n_rare"],
            field.get("n_raw", len(field["raw"]) // 2),
        )
        if not any(params) and not self.model.full_params:
            params = b""
        stream = b"".join(field[name] for name in ("rows", "rare", "raw", "symbols"))
        return stream, params

    @staticmethod
    def alone(symbols: bytes, table: bytes | None) -> bytes:
        """Symbols that all have one context."""
        assert table is not None
        return contexts.encode(symbols, None, contexts.read_tables(table))


def fit(model: Model, pieces: Sequence[Piece]) -> Fitted:
    """Make the tables of a model for chunks."""
    assert 0 <= model.escape < 256
    counts = [[int(model.every_symbol)] * 256 for _ in range(model.contexts)]
    rare = [int(model.every_symbol)] * 256
    classes = [0] * 256
    for c in model.columns or ():
        classes[c] += 1
    for piece in pieces:
        found = _symbols(model, piece)
        for context, symbol in zip(found.contexts, found.first_pass, strict=True):
            counts[context][symbol] += 1
        for symbol in found.rare:
            rare[symbol] += 1
        for c in found.row_classes:
            classes[c] += 1
    has_classes = model.rows is not None or model.columns is not None
    return Fitted(
        model=model,
        tables=table(*counts, precision=model.precision),
        rare_table=table(rare, precision=model.precision) if model.rare is not None else None,
        class_table=table(classes, precision=model.precision) if has_classes else None,
    )


def table(*counts: Sequence[int], precision: int = 3) -> bytes:
    """The description of tables that fit counted symbols, those not counted being behind."""
    padded = [[*row, *[0] * (256 - len(row))] for row in counts]
    return contexts.write_tables(padded, precision)[0]
