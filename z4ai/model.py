"""The model of a frame of symbols: its record on the wire, and how one is chosen.

Specification: docs/format/codecs/symbols.md.
"""

from __future__ import annotations

from functools import cache
from math import prod
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast import contexts, models
from z4ai.dtypes import SYMBOLS1, SYMBOLS2, SYMBOLS4, SYMBOLS8
from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["Model", "ModelInfo", "choose_model", "describe_model", "parse_model"]

_FIXED = Struct("<HBB")
# z4_model of z4_model.h.
_BLOCK = Struct("<QIIHBBBBHBB6x")
_FOLD_NBYTES = 256
_ROWS, _COLUMNS, _RARE = 1, 2, 4
_MAX_CLASS = 127
_LEAST_PERIOD = 16
_MOST_COLUMNS = 1 << 20
_RECORD_SHIFT = 3

# Elements that tables are made by, and those that contexts are chosen by.
_SAMPLE = 1 << 22
_DRAFT = 1 << 19
# Rows of a sample that columns are judged by.
_DRAFT_ROWS = 64
# Elements side by side in a sample, at least.
_RUN = 4096
# Fewer elements do not pay for a table.
_LEAST_ELEMENTS = 512
_MOST_CONTEXTS = {False: 32, True: 64}
# Highest class of rows, and of columns.
_MOST = 63
# Rows where there is no shape: stretches in which weights may have a scale of their own.
_STRETCHES = (256, 1024)
# What a table of classes takes, about.
_CLASS_TABLE_BITS = 160
_WINDOW = 254
# The escape stands for a symbol that is rarer than one in so many.
_RAREST = 1024
_FIELD_BITS = {SYMBOLS2: 10, SYMBOLS4: 10, SYMBOLS8: 12}
_FIELD_SHIFT = {SYMBOLS2: 5, SYMBOLS4: 5, SYMBOLS8: 3}


def _magnitudes(zero: int) -> NDArray[np.uint8]:
    """Fold integers: four steps an octave of their distance from zero."""
    distance = np.abs(np.arange(256) - zero)
    # log2 in quarters, exactly: 4 log2(d) = log2(d^4).
    steps = [int(d) ** 4 for d in distance]
    return np.array([max(1, step.bit_length()) for step in steps], np.uint8)


@cache
def _fold_of(name: str) -> NDArray[np.uint8] | None:
    """What symbols of a dtype weigh: about four steps an octave; None: what they are."""
    symbols = np.arange(256)
    if name == "int8":
        return np.roll(_magnitudes(128), 128)
    if name == "uint8":
        return _magnitudes(128)
    if name == "uint4_x2":
        # Where both lie between the least and the most of their block.
        return ((symbols >> 4) + (symbols & 15)).astype(np.uint8)
    if name == "fp16":
        return (symbols >> 1).astype(np.uint8)
    if name == "fp8_e4m3":
        return (symbols % 128 >> 1).astype(np.uint8)
    return (symbols % 128).astype(np.uint8) if name == "fp8_e5m2" else None


class Model(NamedTuple):
    """A model, as the frame header has it and as the kernels take it.

    Attributes
    ----------
    record : bytes
        On the wire.
    block : ndarray of uint8
        In memory: z4_model of z4_model.h.
    """

    record: bytes
    block: NDArray[np.uint8]


class ModelInfo(NamedTuple):
    """What the chunks of symbols of a frame share.

    Attributes
    ----------
    n_contexts : int
        Tables of symbols.
    period : int
        Elements of a row, as the contexts see them; 0 where there are neither rows nor columns.
    rows, columns : bool
        Whether rows and columns have classes that contexts follow from.
    """

    n_contexts: int
    period: int
    rows: bool
    columns: bool


def describe_model(block: NDArray[np.uint8]) -> ModelInfo:
    """Tell what is in a model that has been parsed."""
    _, count, period, _, has, *_ = _BLOCK.unpack_from(block)
    return ModelInfo(count, period, bool(has & _ROWS), bool(has & _COLUMNS))


# --- On the wire ----------------------------------------------------------------------------------


def parse_model(record: memoryview, offset: int) -> NDArray[np.uint8]:
    """Parse a table record of kind 1 to what the kernels take.

    Parameters
    ----------
    record : memoryview
        Its bytes.
    offset : int
        Where they begin in the frame, for messages.

    Raises
    ------
    CorruptError
    """
    if len(record) < _FIXED.size + 1:
        msg = f"model of {len(record)} bytes"
        raise CorruptError(msg, offset=offset)
    base, flags, escape = _FIXED.unpack_from(record)
    has, shift = flags >> _RECORD_SHIFT, flags & 7
    period, pos = _wire.get_varint(record, _FIXED.size, len(record))
    wrong = None
    if has > (_ROWS | _COLUMNS | _RARE):
        wrong = f"reserved bits are set: {flags:#x}"
    elif escape and not has & _RARE:
        wrong = f"escape is {escape} without rare symbols"
    elif not has & (_ROWS | _COLUMNS):
        wrong = f"period is {period} without rows and columns" if period else None
    elif period < (_LEAST_PERIOD if has & _ROWS else 1) or period >= 1 << 32:
        wrong = f"period is {period}"
    elif has & _COLUMNS and period > _MOST_COLUMNS:
        wrong = f"{period} columns, expected {_MOST_COLUMNS} at most"
    if wrong:
        msg = f"model: {wrong}"
        raise CorruptError(msg, offset=offset)

    freqs, pos = take_tables(record, pos, offset)
    if len(freqs) > 1 and not has & (_ROWS | _COLUMNS):
        msg = f"model: {len(freqs)} tables without rows and columns"
        raise CorruptError(msg, offset=offset)
    blank = np.zeros((1, 256), np.uint16)
    rare = classes = blank
    if has & _RARE:
        rare, pos = take_tables(record, pos, offset, single=True)
    if has & (_ROWS | _COLUMNS):
        classes, pos = take_tables(record, pos, offset, single=True)
        if classes[0, _MAX_CLASS + 1 :].any():
            msg = "model: a class above 127"
            raise CorruptError(msg, offset=offset)
    columns = b""
    if has & _COLUMNS:
        try:
            columns = contexts.decode(record[pos:], None, period, classes)
        except contexts.ContextsError as error:
            msg = f"model: classes of columns: {error}"
            raise CorruptError(msg, offset=offset + pos) from error
    elif pos != len(record):
        msg = f"model: {len(record) - pos} bytes behind its end"
        raise CorruptError(msg, offset=offset + pos)
    body = freqs.tobytes() + rare.tobytes() + classes.tobytes() + columns
    head = _BLOCK.pack(
        _BLOCK.size + _FOLD_NBYTES + len(body),
        len(freqs),
        period,
        base,
        has,
        shift,
        escape,
        0,
        0,
        0,
        0,
    )
    return np.frombuffer(head + bytes(_FOLD_NBYTES) + body, np.uint8)


def take_tables(
    record: memoryview, pos: int, offset: int, *, single: bool = False
) -> tuple[NDArray[np.uint16], int]:
    nbytes, pos = _wire.get_varint(record, pos, len(record))
    if nbytes > len(record) - pos:
        msg = f"model: tables of {nbytes} bytes, of which {len(record) - pos} are there"
        raise CorruptError(msg, offset=offset + pos)
    try:
        freqs = contexts.read_tables(record[pos : pos + nbytes])
    except contexts.ContextsError as error:
        msg = f"model: tables: {error}"
        raise CorruptError(msg, offset=offset + pos) from error
    if single and len(freqs) != 1:
        msg = f"model: {len(freqs)} tables, expected one"
        raise CorruptError(msg, offset=offset + pos)
    return freqs, pos + nbytes


# --- How a model is chosen ------------------------------------------------------------------------


class _View(NamedTuple):
    """A way to see the elements: rows of so many, and whether rows and columns get classes."""

    period: int
    rows: bool
    columns: bool


class _Classes(NamedTuple):
    """Classes of the rows and columns of a sample; `least` and `most`: see z4_model.h."""

    rows: NDArray[np.uint8] | None
    columns: NDArray[np.uint8] | None
    least: int
    most: int


class _Draft(NamedTuple):
    """Contexts that a view leads to, and what they save over one table, in 1/256 bit."""

    gain: int
    view: _View
    shift: int
    n_contexts: int


def choose_model(
    content: NDArray[np.uint8],
    dtype: DType,
    shape: tuple[int, ...] | None,
    n: int,
    *,
    big_endian: bool = False,
    thorough: bool = False,
) -> Model | None:
    """Choose a model for a frame by a sample of its content; None if none would pay.

    Parameters
    ----------
    content : ndarray of uint8
        The content of the frame, or a sample of whole rows.
    dtype : DType
        Its elements.
    shape : tuple of int, optional
        The places of those elements, the last index running fastest.
    n : int
        Elements of the frame.
    big_endian : bool
        The elements are big-endian.
    thorough : bool
        Try more views, and more contexts.
    """
    if n < _LEAST_ELEMENTS or dtype.symbols == dtype.layout:
        return None
    sampler = _Sampler(content, dtype, big_endian=big_endian)
    floor = _floor_of(sampler.fold_of(sampler.take(1, _DRAFT)))
    most = _MOST_CONTEXTS[thorough]
    best: _Draft | None = None
    for view in _views(shape, sampler.n, thorough=thorough):
        draft = _draft(sampler, view, floor, n, most)
        if draft is not None and draft.gain > (best.gain if best is not None else 0):
            best = draft
    return _make_model(sampler, best, floor, n)


class _Sampler:
    """Symbols of whole rows, spread evenly over a content.

    Attributes
    ----------
    base : int
        Of the window of symbols.
    n : int
        Elements of the content.
    fold : ndarray of uint8 or None
        What each symbol weighs, if not itself.
    """

    def __init__(self, content: NDArray[np.uint8], dtype: DType, *, big_endian: bool) -> None:
        self._content = content
        self._kind = dtype.symbols - SYMBOLS1
        self._swap = big_endian
        self._kept: dict[tuple[int, ...], NDArray[np.uint8]] = {}
        self.n = len(content) // dtype.width
        self.base = self._choose_base(dtype)
        self.fold = _fold_of(dtype.name)

    def take(self, period: int, most: int) -> NDArray[np.uint8]:
        """Return the symbols of rows of `period` elements: all, or about `most` of them."""
        rows = max(1, self.n // period)
        beside = max(1, min(rows, -(-_RUN // period)))
        size = min(beside * period, self.n)
        n_runs = max(1, most // size)
        gap = (rows - beside) // max(1, n_runs - 1) * period if n_runs > 1 else 0
        if self.n <= most or gap < size:
            key: tuple[int, ...] = (0, self.n, 1)
        else:
            key = (gap, size, n_runs)
        if key not in self._kept:
            self._kept.clear()
            starts = [k * key[0] for k in range(key[2])]
            self._kept[key] = models.symbols_of(
                self._content, starts, key[1], self._kind, self.base, self._swap
            )
        return self._kept[key]

    def fold_of(self, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """What symbols weigh: about four steps an octave of magnitude."""
        return symbols if self.fold is None else self.fold[symbols]

    def _choose_base(self, dtype: DType) -> int:
        """Choose the window by the fields of a few elements: as many as can be within it."""
        if dtype.symbols not in _FIELD_SHIFT:
            return 0
        words = self._content[: self.n * dtype.width].view(">u2" if self._swap else "<u2")
        step = dtype.width // 2
        upper = words[0 if self._swap else step - 1 :: step]
        if len(upper) > 4 * _RUN:
            # Stretches: single elements at even distances may all be of one column.
            gap = (len(upper) - _RUN // 4) // 15
            upper = np.concatenate([upper[k * gap : k * gap + _RUN // 4] for k in range(16)])
        field = (upper >> _FIELD_SHIFT[dtype.symbols]) & ((1 << _FIELD_BITS[dtype.symbols]) - 1)
        counts = np.bincount(field, minlength=1 << _FIELD_BITS[dtype.symbols])
        counts[0] = 0  # has a symbol of its own
        sums = np.concatenate([[0], np.cumsum(counts)])
        if len(counts) <= _WINDOW:
            return 0
        within = sums[_WINDOW:] - sums[:-_WINDOW]
        top = np.flatnonzero(counts)
        if not len(top):
            return 0
        # Of the windows that hold the most, the one with two octaves to spare above.
        wanted = max(0, int(top[-1]) + 8 - _WINDOW)
        full = np.flatnonzero(within == within.max())
        return max(0, int(full[np.argmin(np.abs(full - wanted))]) - 1) if len(full) else 0


def _floor_of(symbols: NDArray[np.uint8]) -> int:
    """Symbol below which a small part of all lies: what is below counts as it in means."""
    counts = models.histogram(symbols)
    counts[0] = 0
    total = np.cumsum(counts)
    return min(int(np.searchsorted(total, total[-1] // 64, side="right")), 254)


def _views(shape: tuple[int, ...] | None, n: int, *, thorough: bool) -> Iterator[_View]:
    periods: list[int] = []
    if shape is not None and len(shape) > 1:
        periods = [prod(shape[1:])]
        if len(shape) > 2:
            periods.append(prod(shape[2:]))
        if len(shape) > 3 and thorough:
            periods.append(shape[-1])
    seen = set()
    for period in periods:
        if period in seen or not 1 < period <= n // 2:
            continue
        seen.add(period)
        columns = period <= _MOST_COLUMNS and period <= n // 8
        if period >= _LEAST_PERIOD:
            yield _View(period, rows=True, columns=False)
            if columns:
                yield _View(period, rows=True, columns=True)
        if columns:
            yield _View(period, rows=False, columns=True)
    if not seen or thorough:
        for stretch in _STRETCHES:
            if stretch <= n // 8:
                yield _View(stretch, rows=True, columns=False)


def _classes(symbols: NDArray[np.uint8], view: _View, floor: int) -> _Classes | None:
    """Sort rows and columns into classes by twice their mean symbol: eight an octave."""
    whole, rest = divmod(len(symbols), view.period)
    if whole == 0:
        return None
    row_sums, column_sums = models.weigh(symbols, view.period, floor)
    rows = columns = None
    least = most = 0
    if view.rows:
        sizes = np.full(len(row_sums), view.period, np.uint64)
        if rest:
            sizes[-1] = rest
        rows, least, most = _sort(row_sums, sizes)
    if view.columns:
        sizes = np.full(view.period, whole, np.uint64)
        sizes[:rest] += np.uint64(1)
        columns, _, _ = _sort(column_sums.astype(np.uint64), sizes)
    return _Classes(rows, columns, least, most)


def _sort(
    sums: NDArray[np.uint64], sizes: NDArray[np.uint64]
) -> tuple[NDArray[np.uint8], int, int]:
    twice = ((np.uint64(4) * sums + sizes) // (np.uint64(2) * sizes)).astype(np.int64)
    ordered = np.sort(twice)
    aside = len(ordered) // 200
    least, high = int(ordered[aside]), int(ordered[-1 - aside])
    most = min(high - least, _MOST)
    return np.clip(twice - least, 0, most).astype(np.uint8), least, most


def _draft(sampler: _Sampler, view: _View, floor: int, n: int, most: int) -> _Draft | None:
    wanted = min(max(_DRAFT, _DRAFT_ROWS * view.period), _SAMPLE) if view.columns else _DRAFT
    symbols = sampler.take(view.period, wanted)
    classes = _classes(sampler.fold_of(symbols), view, floor)
    if classes is None:
        return None
    counts = models.count(symbols, view.period, classes.rows, classes.columns)
    alone, _ = models.merge(counts.sum(0, dtype=np.uint32)[None], 0, 1)
    bins = int(np.flatnonzero(counts.any(1))[-1]) + 1
    side = 0
    if classes.rows is not None:
        side += _class_cost(classes.rows) * (-(-n // view.period)) // len(classes.rows)
    if classes.columns is not None:
        side += _class_cost(classes.columns)
    best = None
    for shift in range(4):
        cost, count = models.merge(counts[:bins], shift, most)
        gain = (alone - cost) * n // len(symbols) - side
        if best is None or gain > best.gain:
            best = _Draft(gain, view, shift, count)
        if bins >> shift <= 1:
            break
    # Contexts cost time as well.
    return best if best is not None and best.gain * 1000 > alone * n // len(symbols) else None


def _class_cost(classes: NDArray[np.uint8]) -> int:
    counts = np.bincount(classes, minlength=_MOST + 1).astype(np.uint32)
    return models.cost(counts) + 256 * _CLASS_TABLE_BITS


def _make_model(sampler: _Sampler, draft: _Draft | None, floor: int, n: int) -> Model:
    view = draft.view if draft is not None else _View(0, rows=False, columns=False)
    symbols = sampler.take(view.period or 1, _SAMPLE)
    complete = len(symbols) == n
    classes = _Classes(None, None, 0, 0)
    if draft is None:
        counts = models.histogram(symbols)[None].astype(np.uint64)
        shift = 0
    else:
        classes = _classes(sampler.fold_of(symbols), view, floor) or classes
        fine = models.count(symbols, view.period, classes.rows, classes.columns)
        shift = draft.shift
        context = np.minimum(np.arange(len(fine)) >> shift, draft.n_contexts - 1)
        counts = np.zeros((draft.n_contexts, 256), np.uint64)
        np.add.at(counts, context, fine)
    tables, rare, escape = tables_of(counts, complete=complete)
    has = (_ROWS if classes.rows is not None else 0) | (
        _COLUMNS if classes.columns is not None else 0
    )
    has |= _RARE if rare is not None else 0
    record = _FIXED.pack(sampler.base, has << _RECORD_SHIFT | shift, escape)
    record += _wire.put_varint(view.period if has & (_ROWS | _COLUMNS) else 0)
    record += _sized(contexts.write_tables(tables)[0])
    if rare is not None:
        record += _sized(contexts.write_tables(rare[None])[0])
    if has & (_ROWS | _COLUMNS):
        described = contexts.write_tables(_class_counts(classes)[None])[0]
        record += _sized(described)
        if classes.columns is not None:
            freqs = contexts.read_tables(described)
            record += contexts.encode(classes.columns, None, freqs)
    block = parse_model(memoryview(record), 0).copy()
    fields = list(_BLOCK.unpack_from(block))
    fields[7:11] = floor, classes.least, classes.most, sampler.fold is not None
    _BLOCK.pack_into(block, 0, *fields)
    if sampler.fold is not None:
        block[_BLOCK.size : _BLOCK.size + _FOLD_NBYTES] = sampler.fold
    return Model(record, block)


def _class_counts(classes: _Classes) -> NDArray[np.uint32]:
    """Count classes; a piece of a row may be of any class that rows have."""
    counts = np.zeros(256, np.uint32)
    if classes.rows is not None:
        counts[: classes.most + 1] = 1
        counts += np.bincount(classes.rows, minlength=256).astype(np.uint32)
    if classes.columns is not None:
        counts += np.bincount(classes.columns, minlength=256).astype(np.uint32)
    return counts


def tables_of(
    counts: NDArray[np.uint64], *, complete: bool
) -> tuple[NDArray[np.uint32], NDArray[np.uint32] | None, int]:
    """Take rare symbols out of counts by context; -> counts for tables, of rare ones, the escape.

    A symbol is rare in a context where a frequency of 1/4096 would be more than its due.
    """
    total = counts.sum(1, keepdims=True)
    rare = counts * np.uint64(4096) < total
    occurs = counts.sum(0)
    if complete and not (rare & (counts > 0)).any():
        return counts.astype(np.uint32), None, 0
    escape = int(np.argmin(occurs))
    if occurs[escape] * np.uint64(_RAREST) > occurs.sum():
        # Every symbol is frequent: none can stand for others.
        return np.maximum(counts, np.uint64(1)).astype(np.uint32), None, 0
    rare[:, escape] = True
    kept = np.where(rare, np.uint64(0), counts)
    apart = np.where(rare, counts, np.uint64(0))
    kept[:, escape] = apart.sum(1)
    tail = apart.sum(0)
    if not complete:
        kept[:, escape] = np.maximum(kept[:, escape], np.uint64(1))
        tail += np.uint64(1)
    return kept.astype(np.uint32), tail.astype(np.uint32), escape


def _sized(part: bytes) -> bytes:
    return _wire.put_varint(len(part)) + part
