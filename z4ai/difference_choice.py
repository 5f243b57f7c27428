"""How the model of a frame of differences is chosen: by counts of a sample, or of everything.

Specification: docs/format/codecs/difference.md.
"""

from __future__ import annotations

from math import prod
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast import contexts, differences, models
from z4ai.difference import FLOATS, RARE, ROWS, block_of, n_symbols
from z4ai.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["Hints", "choose_difference", "mantissa_bits"]

# By dtype, elements and elements of a row: whether rows have classes, and the shift.
Hints = dict[tuple[int, int, int], tuple[bool, int]]

_FIXED = Struct("<BBBBH")
_MANTISSA = {
    "bf16": 7,
    "fp16": 10,
    "fp32": 23,
    "fp64": 52,
    "complex64": 23,
    "complex128": 52,
    "fp8_e4m3": 3,
    "fp8_e5m2": 2,
    "fp8_e4m3fnuz": 3,
    "fp8_e5m2fnuz": 2,
    "fp8_e4m3b11fnuz": 3,
    "fp8_e3m4": 4,
    "fp8_e4m3_ieee": 3,
}
# Elements that tables are made by, and those that contexts are chosen by.
_SAMPLE = 1 << 20
_DRAFT = 1 << 17
_RUNS = 16
# References that the top is chosen by; one in so many may lie above it.
_GLANCE = 1 << 12
_ABOVE = 200
# Class steps an octave: 2^3 as a rule.
_OCTAVE = 3
_MOST_CONTEXTS = {False: 64, True: 64}
_MOST_CLASS = 127
_LEAST_PERIOD = 16
_CLASS_TABLE_BITS = 160
# Steps of levels: finer ones cost tables more than they save symbols.
_PRECISION = 2
_BLANK = np.zeros((1, 256), np.uint16)
# Octaves between rows that do not change and those that hardly do.
_APART = 12


class _Terms(NamedTuple):
    """How elements become classes; see the record of the model."""

    width: int
    floats: bool
    below: int
    top: int
    octave: int


class _Counts(NamedTuple):
    """Symbols by class, and what classes of rows cost beside them in 1/256 bit."""

    counts: NDArray[np.uint32]
    rows: NDArray[np.uint8] | None
    least: int
    most: int
    side: int


class _Choice(NamedTuple):
    """Contexts for counts, and what everything takes in 1/256 bit."""

    cost: int
    shift: int
    n_contexts: int
    way: _Counts


class _Sample:
    """Whole rows of a content and of its reference: all, or runs of them behind one another.

    Attributes
    ----------
    content, reference : ndarray of uint8
        The rows.
    n : int
        Elements of them.
    complete : bool
        They are all.
    """

    def __init__(
        self,
        content: NDArray[np.uint8],
        reference: NDArray[np.uint8],
        width: int,
        period: int,
        most: int,
    ) -> None:
        n = len(content) // width
        step = max(period, 1)
        rows = -(-n // step)
        beside = max(1, most // _RUNS // step)
        self.complete = n <= most or rows < 2 * _RUNS * beside
        if self.complete:
            self.content, self.reference = content[: n * width], reference[: n * width]
        else:
            gap = (rows - beside) // (_RUNS - 1) * step * width
            size = beside * step * width
            ranges = [slice(k * gap, k * gap + size) for k in range(_RUNS)]
            self.content = np.concatenate([content[r] for r in ranges])
            self.reference = np.concatenate([reference[r] for r in ranges])
        self.n = len(self.content) // width


def mantissa_bits(dtype: DType) -> int | None:
    """Bits of a float's mantissa; None for what is no float with a sign."""
    return _MANTISSA.get(dtype.name)


def choose_difference(
    content: NDArray[np.uint8],
    reference: NDArray[np.uint8],
    dtype: DType,
    shape: tuple[int, ...] | None,
    *,
    thorough: bool = False,
    hints: Hints | None = None,
) -> Model | None:
    """Choose the model of a frame of differences; None for content of less than an element.

    Parameters
    ----------
    content, reference : ndarray of uint8
        Both little-endian; the reference is at least as long.
    dtype : DType
        Their elements.
    shape : tuple of int, optional
        The places of those elements, the last index running fastest.
    thorough : bool
        Allow more contexts.
    hints : dict, optional
        What was chosen for content like this, such as another layer's tensor of the same shape;
        it is looked up, and added to.
    """
    n = len(content) // dtype.width
    if n == 0:
        return None
    mantissa = mantissa_bits(dtype)
    floats = mantissa is not None
    octave = min(_OCTAVE, mantissa or 0) if floats else 2
    below = (mantissa or 0) - octave if floats else 0
    period = prod(shape[1:]) if shape is not None and len(shape) > 1 else 0
    if not _LEAST_PERIOD <= period <= n // 2 or period >= 1 << 32:
        period = 0
    top = _top_of(reference[: n * dtype.width], dtype.width, below) if floats else 0
    terms = _Terms(dtype.width, floats, below, top, octave)
    most = _MOST_CONTEXTS[thorough]
    like = dtype.code, n, period
    hint = None if hints is None else hints.get(like)
    if hint is None:
        draft = _Sample(content, reference, dtype.width, period, _DRAFT)
        best = _settle(_count(draft, terms, 0), terms, most)
        if period:
            rows = _settle(_count(draft, terms, period), terms, most)
            best = min(best, rows, key=lambda choice: choice.cost)
        hint = best.way.rows is not None, best.shift
        if hints is not None:
            hints[like] = hint
    with_rows, shift = hint
    period = period if with_rows else 0
    sample = _Sample(content, reference, dtype.width, period, _SAMPLE)
    best = _settle(_count(sample, terms, period), terms, most, shift)
    return _make(sample, dtype, terms, best, period)


def _settle(way: _Counts, terms: _Terms, most: int, only: int | None = None) -> _Choice:
    """Choose the contexts that classes are merged to; only : the shift, where that is known."""
    bins = len(way.counts)
    choices = []
    for shift in range(terms.octave + 2) if only is None else (only,):
        if bins >> shift <= 2 * most or only is not None:
            cost, n_contexts = models.merge(way.counts, shift, most)
            choices.append(_Choice(cost + way.side, shift, n_contexts, way))
        if bins >> shift <= 1:
            break
    return min(choices, key=lambda choice: choice.cost)


def _top_of(reference: NDArray[np.uint8], width: int, below: int) -> int:
    """Magnitude, in steps, that few references exceed."""
    words = reference.view(f"<u{width}")
    if len(words) > _GLANCE:
        # In runs: single elements at even distances may all be of one column.
        gap = (len(words) - _GLANCE // _RUNS) // (_RUNS - 1)
        starts = (np.arange(_RUNS) * gap)[:, None]
        words = words[(starts + np.arange(_GLANCE // _RUNS)).ravel()]
    sign = words.dtype.type((1 << (8 * width - 1)) - 1)
    steps = (words & sign) >> words.dtype.type(below)
    place = len(steps) - 1 - len(steps) // _ABOVE
    return min(int(np.partition(steps, place)[place]), 0xFFFF)


def _count(sample: _Sample, terms: _Terms, period: int) -> _Counts:
    """Count symbols, of rows of `period` elements by their classes."""
    pair = sample.content, sample.reference
    width, floats, below, top, octave = terms
    if not period:
        counts = differences.count(*pair, width, floats, below, top)
        return _Counts(counts, None, 0, 0, 0)
    levels, symbols, of_reference = differences.levels(
        *pair, width, floats, below, top, octave, period
    )
    ordered = np.sort(levels[levels > 0])
    low, high = (int(ordered[len(ordered) // 100]), int(ordered[-1])) if len(ordered) else (0, 0)
    # Rows that do not change at all stay far below those that do.
    apart = _APART << octave if len(ordered) < len(levels) else 0
    least = max(low - apart, high - _MOST_CLASS, 0)
    most = min(high - least, _MOST_CLASS)
    classes = np.minimum(np.maximum(levels, least) - np.uint16(least), most).astype(np.uint8)
    counts = differences.count_rows(symbols, of_reference, period, classes)
    side = models.cost(np.bincount(classes, minlength=256).astype(np.uint32))
    return _Counts(counts, classes, least, most, side + 256 * _CLASS_TABLE_BITS)


def _make(sample: _Sample, dtype: DType, terms: _Terms, choice: _Choice, period: int) -> Model:
    """Make the record of a model, and what the kernels take."""
    _, shift, n_contexts, way = choice
    kept, apart, escape = models.apart(
        way.counts, shift, n_contexts, n_symbols(dtype.width), sample.complete
    )
    flags = FLOATS if terms.floats else 0
    flags |= RARE if apart is not None else 0
    flags |= ROWS if way.rows is not None else 0
    plain = n_contexts == 1 and way.rows is None
    fixed = (0, 0, 0) if plain else (shift, terms.below, terms.top)
    period = period if way.rows is not None else 0
    record = _FIXED.pack(flags, escape, *fixed) + _wire.put_varint(period)
    tables = [_BLANK, _BLANK, _BLANK]
    described, tables[0] = _tables(kept)
    record += described
    if apart is not None:
        described, tables[1] = _tables(apart[None])
        record += described
    if way.rows is not None:
        classes = np.zeros((1, 256), np.uint32)
        # A piece of a row may be of any class.
        classes[0, : way.most + 1] = 1
        classes[0] += np.bincount(way.rows, minlength=256).astype(np.uint32)
        described, tables[2] = _tables(classes)
        record += described
    first, second, third = tables
    encoder = way.least, way.most, terms.octave
    return Model(record, block_of(flags, escape, *fixed, period, (first, second, third), encoder))


def _tables(counts: NDArray[np.uint32]) -> tuple[bytes, NDArray[np.uint16]]:
    """Describe tables for counts; -> the description with its size before it, and the tables."""
    described, tables = contexts.make_tables(counts, _PRECISION)
    return _wire.put_varint(len(described)) + described, tables
