"""A writer of models and chunks of differences for tests: docs/format/codecs/difference.md.

It makes any model that the page allows, most of which the encoder of z4ai would never choose. It
shares the context coder with the reference reader, and nothing else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from symbols_writer import varint

from z4ai._reference import contexts

Bytes = npt.NDArray[np.uint8]
Freqs = list[int]
#: z4_model of z4_model.h: a model as kernels take it.
BLOCK = struct.Struct("<QIIHBBBBHBBBBB3x")
HAS_ROWS, HAS_RARE, HAS_FLOATS = 1, 4, 8
TRANSFORMS = {1: 28, 2: 29, 4: 30, 8: 31}
PRECISION = 5
MOST_SYMBOL = {1: 246, 2: 246, 4: 246, 8: 254}


@dataclass(frozen=True)
class Model:
    """Choices of a model; classes of rows follow from the number of the row."""

    floats: bool = True
    below: int = 0
    top: int = 0
    shift: int = 0
    contexts: int = 1  #: at most; no more than there can be
    period: int = 0
    rows: Callable[[int], int] | None = None
    rare: Collection[int] = ()
    escape: int | None = None


class Fitted(NamedTuple):
    """A model with its tables."""

    model: Model
    tables: list[Freqs]
    rare: Freqs
    classes: Freqs
    counts: tuple[npt.NDArray[np.int64], ...] = ()  #: what the three were made of

    def written(self) -> list[bytes]:
        """Return descriptions of the three, by which they come out the same."""
        return [contexts.write_tables(part.tolist(), PRECISION)[0] for part in self.counts]

    def record(self) -> bytes:
        """Return the table record."""
        m = self.model
        flags = m.floats | (m.rows is not None) << 1 | (m.escape is not None) << 2
        head = struct.pack("<BBBBH", flags, m.escape or 0, m.shift, m.below, m.top)
        out = head + varint(m.period)
        for part, there in zip(self.written(), (True, m.escape is not None, m.rows), strict=True):
            out += varint(len(part)) + part if there else b""
        return out

    def block(self, *, octave: int = 0, least: int = 0, most: int = 127) -> Bytes:
        """Return what kernels take; the options are the encoder's."""
        m = self.model
        body = np.array([*self.tables, self.rare, self.classes], "<u2").tobytes()
        has = HAS_FLOATS * m.floats | HAS_ROWS * (m.rows is not None)
        has |= HAS_RARE * (m.escape is not None)
        head = BLOCK.pack(
            BLOCK.size + 256 + len(body),
            len(self.tables),
            m.period,
            m.top,
            has,
            m.shift,
            m.escape or 0,
            0,
            least,
            most,
            0,
            1,
            m.below,
            octave,
        )
        return np.frombuffer(head + bytes(256) + body, np.uint8)


class Chunk(NamedTuple):
    """The streams of a chunk, and the fields of its parameters."""

    symbols: bytes
    apart: bytes
    rows_nbytes: int
    rare_nbytes: int
    n_rare: int


# --- Elements -------------------------------------------------------------------------------------


def words(data: Bytes, width: int) -> list[int]:
    """Return elements as numbers."""
    return [int(x) for x in data[: len(data) // width * width].view(f"<u{width}")]


def residuals(content: Bytes, reference: Bytes, width: int, *, floats: bool) -> list[int]:
    """Return r of each element."""
    bits = 8 * width
    ones, sign = (1 << bits) - 1, 1 << (bits - 1)

    def ordered(u: int) -> int:
        return u ^ (ones if u & sign else sign)

    found = []
    for t, b in zip(words(content, width), words(reference, width), strict=False):
        r = ordered(t) - ordered(b) if floats else t - b
        r = -r if floats and b & sign else r
        r &= ones
        found.append(r - (1 << bits) if r & sign else r)
    return found


def symbol_of(r: int, width: int) -> tuple[int, int, int]:
    """Return the symbol of a residual, its bits apart and their number."""
    g, m = (1 if width == 8 else 2), abs(r)
    x = max(m.bit_length() - 1 - g, 0)
    level = (x << g) + (m >> x)
    return 2 * level - (r < 0) if m else 0, m & (1 << x) - 1, x


def reference_class(b: int, model: Model, width: int) -> int:
    """Return the class of an element of the reference."""
    if not model.floats:
        return 0
    return min(max(model.top - ((b & (1 << (8 * width - 1)) - 1) >> model.below), 0), 255)


def string_of(pieces: list[tuple[int, int]]) -> bytes:
    """Put numbers of so many bits together, the first in the lowest bits."""
    out, held, have = bytearray(), 0, 0
    for x, bits in pieces:
        held |= x << have
        have += bits
        while have >= 8:
            out.append(held & 255)
            held >>= 8
            have -= 8
    if have:
        out.append(held)
    return bytes(out)


# --- Models and chunks ----------------------------------------------------------------------------


def context_of(model: Model, count: int, b: int, i: int, width: int) -> int:
    """Return the context of element `i`."""
    row = model.rows(i // model.period) if model.rows else 0
    return min((reference_class(b, model, width) + row) >> model.shift, count - 1)


def fit(model: Model, content: Bytes, reference: Bytes, width: int, first: int = 0) -> Fitted:
    """Count, and make tables; every symbol of the content gets a frequency, and a few more."""
    y = [symbol_of(r, width)[0] for r in residuals(content, reference, width, floats=model.floats)]
    beside = words(reference, width)
    at = [
        context_of(model, model.contexts, b, first + i, width)
        for i, b in zip(range(len(y)), beside, strict=False)
    ]
    count = max(at, default=0) + 1
    counts = np.zeros((count, 256), np.int64)
    rare = np.zeros(256, np.int64)
    for c, symbol in zip(at, y, strict=True):
        if symbol in model.rare:
            rare[symbol] += 1
        else:
            counts[c, symbol] += 20
    counts[:, [0, 1, MOST_SYMBOL[width]]] += 1
    if model.escape is not None:
        counts[:, model.escape] += len(y) // 16 + 1
        rare[model.escape] += 1
    classes = np.zeros(256, np.int64)
    for i in range(0, len(y), model.period or 1):
        classes[model.rows((first + i) // model.period) if model.rows else 0] += 1
    classes[:128] += 1
    parts = counts, rare[None], classes[None]
    tables, (rare_table,), (class_table,) = ([_table(row) for row in part] for part in parts)
    return Fitted(model, tables, rare_table, class_table, parts)


def _table(counts: npt.NDArray[np.int64]) -> Freqs:
    return contexts.freqs_of(contexts.levels_of(counts.tolist(), PRECISION), PRECISION)


def encode(fitted: Fitted, content: Bytes, reference: Bytes, width: int, first: int = 0) -> Chunk:
    """Code whole elements; `first`: number of the first one in the frame."""
    m, count = fitted.model, len(fitted.tables)
    beside = words(reference, width)
    coded = [symbol_of(r, width) for r in residuals(content, reference, width, floats=m.floats)]
    n = len(coded)
    at = bytes(context_of(m, count, b, first + i, width) for i, b in enumerate(beside[:n]))
    rows = b""
    if m.rows is not None:
        numbers = range(first // m.period, (first + n - 1) // m.period + 1)
        rows = contexts.encode(bytes(map(m.rows, numbers)), None, [fitted.classes])
    y, rare, n_rare = bytes(symbol for symbol, _, _ in coded), b"", 0
    if m.escape is not None:
        apart = bytes(s for s in y if s in m.rare or s == m.escape)
        rare, n_rare = contexts.encode(apart, None, [fitted.rare]), len(apart)
        y = bytes(m.escape if s in m.rare else s for s in y)
    stream = contexts.encode(y, at, fitted.tables)
    string = string_of([(x, bits) for _, x, bits in coded])
    return Chunk(rows + rare + stream, string, len(rows), len(rare), n_rare)
