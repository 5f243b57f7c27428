"""How the model of a frame of symbols is chosen: by a sample of its content.

Specification: docs/format/codecs/symbols.md.
"""

from __future__ import annotations

from functools import cache
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast import contexts, models
from z4ai.dtypes import SYMBOLS1, SYMBOLS2, SYMBOLS4, SYMBOLS8
from z4ai.model import (
    BLOCK,
    COLUMNS,
    FIXED,
    FOLD_NBYTES,
    LEAST_PERIOD,
    MOST_COLUMNS,
    RARE,
    RECORD_SHIFT,
    ROWS,
    Model,
    parse_model,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["choose_model"]

# Elements that tables are made by, and those that contexts are chosen by. Elements of a byte are
# quickly counted, and a symbol that a sample lacks costs every other one a little.
_SAMPLE = 1 << 22
_SAMPLE_OF_BYTES = 1 << 23
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
    most : int
        Elements that tables are made by, at most.
    fold : ndarray of uint8 or None
        What each symbol weighs, if not itself.
    """

    def __init__(self, content: NDArray[np.uint8], dtype: DType, *, big_endian: bool) -> None:
        self._content = content
        self._kind = dtype.symbols - SYMBOLS1
        self._swap = big_endian
        self._kept: dict[tuple[int, ...], NDArray[np.uint8]] = {}
        self.most = _SAMPLE_OF_BYTES if dtype.width == 1 else _SAMPLE
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
        return symbols if self.fold is None else self.fold.take(symbols)

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
        columns = period <= MOST_COLUMNS and period <= n // 8
        if period >= LEAST_PERIOD:
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
    wanted = min(max(_DRAFT, _DRAFT_ROWS * view.period), sampler.most) if view.columns else _DRAFT
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
    symbols = sampler.take(view.period or 1, sampler.most)
    complete = len(symbols) == n
    classes = _Classes(None, None, 0, 0)
    if draft is None:
        counts, shift, n_contexts = models.histogram(symbols)[None], 0, 1
    else:
        classes = _classes(sampler.fold_of(symbols), view, floor) or classes
        counts = models.count(symbols, view.period, classes.rows, classes.columns)
        shift, n_contexts = draft.shift, draft.n_contexts
    tables, rare, escape = models.apart(counts, shift, n_contexts, 256, complete)
    has = (ROWS if classes.rows is not None else 0) | (
        COLUMNS if classes.columns is not None else 0
    )
    has |= RARE if rare is not None else 0
    record = FIXED.pack(sampler.base, has << RECORD_SHIFT | shift, escape)
    record += _wire.put_varint(view.period if has & (ROWS | COLUMNS) else 0)
    record += _sized(contexts.write_tables(tables)[0])
    if rare is not None:
        record += _sized(contexts.write_tables(rare[None])[0])
    if has & (ROWS | COLUMNS):
        described = contexts.write_tables(_class_counts(classes)[None])[0]
        record += _sized(described)
        if classes.columns is not None:
            freqs = contexts.read_tables(described)
            record += contexts.encode(classes.columns, None, freqs)
    block = parse_model(memoryview(record), 0).copy()
    fields = list(BLOCK.unpack_from(block))
    fields[7:11] = floor, classes.least, classes.most, sampler.fold is not None
    BLOCK.pack_into(block, 0, *fields)
    if sampler.fold is not None:
        block[BLOCK.size : BLOCK.size + FOLD_NBYTES] = sampler.fold
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


def _sized(part: bytes) -> bytes:
    return _wire.put_varint(len(part)) + part
