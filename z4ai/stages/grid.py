"""Stage ``grid``: whole numbers times a scale, rounded. Page: docs/format/codecs/grid.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai._fast import structure
from z4ai._wire import put_varint
from z4ai.dtypes import resolve
from z4ai.errors import CorruptError
from z4ai.stages._cost import bits_of, plain_bits
from z4ai.stages._params import check_end, varints
from z4ai.stages._part import Part, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.stages._part import Decode

__all__ = ["TRANSFORM", "join", "n_parts", "split"]

TRANSFORM = 18

WIDE_SCALES, EXCEPTIONS, MINUS_ZEROS = 1, 2, 4

_FP32 = resolve("fp32")
_CODES = resolve("uint8")
# Kind of element, and the dtype of its parts.
_KINDS = {
    "bf16": (structure.BF16, resolve("bf16")),
    "fp16": (structure.FP16, resolve("fp16")),
    "fp32": (structure.FP32, _FP32),
    "complex64": (structure.FP32, _FP32),
    "fp64": (structure.FP64, resolve("fp64")),
    "complex128": (structure.FP64, resolve("fp64")),
}

# Below this, the frames of the parts cost more than they save.
_MIN_NBYTES = 2048
_SMALLEST_GROUP = 16
_LARGEST_IN_ROW = 2048
_LARGEST_FLAT = 1 << 17
_WINDOWS = 6
_ATTEMPTS = 3
# Bits an element by which a layout of smaller groups must be better, on a sample.
_CLEARLY = 0.75
# The kernel gives up above this part of the elements, too.
_EXCEPTIONS_IN = 50
# Any elements fit in small enough groups. Where scales and exceptions are more than few beside the
# codes, the parts must take less than this of what the content is estimated to take without them.
_FEW = 20
_WORTH = 0.98


class _Layout(NamedTuple):
    """Where groups begin, as the parameters have it."""

    row: int
    column: int
    group: int

    def checked(self, n: int) -> tuple[int, int, int]:
        """Row, column and group as the kernels want them: none of them means "all"."""
        row = self.row or max(n, 1)
        return row, self.column, self.group or row

    def window(self, n: int, at: int) -> tuple[int, int]:
        """First element and size of the group that holds element `at`, within the chunk."""
        row, column, group = self.checked(n)
        place = (column + at) % row
        begin = at - place % group
        end = begin + min(group, row - (place - place % group))
        begin, end = max(begin, 0), min(end, n)
        return begin, end - begin


_ONE_SCALE = _Layout(0, 0, 0)


def split(content: NDArray[np.uint8], dtype: DType, row: int, first: int) -> Split | None:
    """Take a chunk apart into scales, codes and exceptions.

    Parameters
    ----------
    content : ndarray of uint8
        Whole little-endian elements of `dtype`.
    dtype : DType
        Type of the elements.
    row : int
        Elements of a row of the tensor, 0 if that is not known.
    first : int
        Number of the first element in the tensor.

    Returns
    -------
    Split or None
        None if the elements are on no grid, or if that would save nothing.
    """
    if dtype.name not in _KINDS or len(content) < _MIN_NBYTES:
        return None
    kind, _ = _KINDS[dtype.name]
    n = len(content) // dtype.width
    finest = _layout(row, first, min(_SMALLEST_GROUP, row) if row else _SMALLEST_GROUP)
    sure, perhaps, none, _ = structure.grid_probe(content, kind, _windows(finest, n))
    if none >= sure + perhaps:
        return None
    for layout in _promising(content, dtype, row, first)[:_ATTEMPTS]:
        found = structure.grid_split(content, kind, *layout.checked(n))
        made = None if found is None else _make(content, dtype, layout, *found)
        if made is not None:
            return made
    return None


def _promising(content: NDArray[np.uint8], dtype: DType, row: int, first: int) -> list[_Layout]:
    """Return the layouts that a few groups agree with, the cheapest first.

    Wide groups take less for scales. What fits by chance takes large numbers, as the elements
    of two groups seen as one do.
    """
    kind, _ = _KINDS[dtype.name]
    n = len(content) // dtype.width
    found: list[tuple[float, _Layout]] = []
    for layout in _layouts(row, first, n):
        sure, perhaps, none, size = structure.grid_probe(content, kind, _windows(layout, n))
        # A scale for the chunk costs nothing: it may fit by chance, if the elements are few enough.
        if 3 * none >= sure + perhaps or (sure == 0 and layout != _ONE_SCALE):
            continue
        _, _, group = layout.checked(n)
        cost = size + 8 * dtype.width / group
        if not found or cost < found[0][0] - _CLEARLY:
            found.insert(0, (cost, layout))
        else:
            found.append((cost, layout))
    return [layout for _, layout in found]


def _layout(row: int, first: int, group: int) -> _Layout:
    """Groups of one size within rows; without rows, one behind the other from element 0 on."""
    if row:
        return _Layout(row, first % row, group if group < row else 0)
    return _Layout(group, first % group, 0)


def _layouts(row: int, first: int, n: int) -> Iterator[_Layout]:
    """Yield layouts that are in use, those of large groups first."""
    yield _ONE_SCALE
    if row >= _SMALLEST_GROUP and row < 1 << 32:
        yield _Layout(row, first % row, 0)
    group = _LARGEST_IN_ROW if row else _LARGEST_FLAT
    while group >= _SMALLEST_GROUP:
        if group < (row or n):
            yield _layout(row, first, group)
        group //= 2


def _windows(layout: _Layout, n: int) -> list[tuple[int, int]]:
    """Return a few groups, spread over the chunk."""
    if not layout.row and not layout.group:
        return [(0, n)]
    found = {layout.window(n, at) for at in range(n // (2 * _WINDOWS), n, max(n // _WINDOWS, 1))}
    return sorted(found)


def _make(
    content: NDArray[np.uint8],
    dtype: DType,
    layout: _Layout,
    numbers: NDArray[np.int16],
    scales: NDArray[np.float64],
    counts: NDArray[np.uint64],
) -> Split | None:
    """Choose codes for whole numbers and pack everything up, if it is worth it."""
    kind, part_dtype = _KINDS[dtype.name]
    most = structure.MOST
    of_numbers = counts[: 2 * most + 1].astype(np.int64)
    used = np.flatnonzero(of_numbers) - most
    if len(used) + (counts[2 * most + 1 :] > 0).sum() < 2 and len(scales) == 1:
        return None  # one element, again and again
    if not len(used):
        return None
    # Code 0 stands for `least`, at most 0; code 255 is needed for exceptions.
    least, last = min(int(used[0]), 0), int(used[-1])
    n_exceptions = int(counts[most + structure.EXCEPTION])
    n_minus = int(counts[most + structure.MINUS_ZERO])
    minus_zeros = n_minus > 0
    while last - least + 1 + (n_exceptions > 0) + minus_zeros > 256:
        if minus_zeros:
            minus_zeros = False
            n_exceptions += n_minus
        elif of_numbers[most + last] <= of_numbers[most + least] or least == 0:
            n_exceptions += int(of_numbers[most + last])
            last -= 1
        else:
            n_exceptions += int(of_numbers[most + least])
            least += 1
    if n_exceptions - (0 if minus_zeros else n_minus) > len(numbers) // _EXCEPTIONS_IN:
        return None
    exceptions = n_exceptions > 0

    own = structure.grid_own(scales, kind)
    scale_dtype = part_dtype if own else _FP32
    if kind == structure.FP64 and _fit_binary32(scales):
        own, scale_dtype = False, _FP32

    kept = of_numbers[most + least : most + last + 1]
    symbols = np.append(kept, [n_exceptions, n_minus if minus_zeros else 0])
    bits = bits_of(symbols)
    beside = 8 * (len(scales) * scale_dtype.width + n_exceptions * dtype.width)
    if beside * _FEW > bits and bits + beside > _WORTH * plain_bits(content, dtype):
        return None

    codes, rest = structure.grid_codes(
        numbers,
        content,
        dtype.width,
        -least,
        last - least,
        (254 if exceptions else 255) if minus_zeros else -1,
        n_exceptions,
    )
    flags = (0 if own else WIDE_SCALES) | (EXCEPTIONS if exceptions else 0)
    flags |= MINUS_ZEROS if minus_zeros else 0
    params = bytes([flags, -least]) + b"".join(map(put_varint, layout))
    parts = [Part(scale_dtype, _pack(scales, scale_dtype)), Part(_CODES, codes)]
    if exceptions:
        parts.append(Part(part_dtype, rest))
    return Split(params, parts)


def _fit_binary32(scales: NDArray[np.float64]) -> bool:
    size = np.abs(scales)
    if not bool(((size >= 2.0**-126) & (size < 2.0**127)).all()):
        return False
    return bool((scales.astype(np.float32).astype(np.float64) == scales).all())


def _pack(scales: NDArray[np.float64], dtype: DType) -> NDArray[np.uint8]:
    """Little-endian words of scales that are known to be numbers of `dtype`."""
    if dtype.name == "bf16":
        return (scales.astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
    return scales.astype({"fp16": "<f2", "fp32": "<f4", "fp64": "<f8"}[dtype.name]).view(np.uint8)


class _Params(NamedTuple):
    flags: int
    low: int
    layout: _Layout


def _parse(params: memoryview) -> _Params:
    if len(params) < 2:
        msg = f"grid: {len(params)} bytes of parameters, expected 5 at least"
        raise CorruptError(msg)
    flags = params[0]
    if flags & ~(WIDE_SCALES | EXCEPTIONS | MINUS_ZEROS):
        msg = f"grid: reserved flags {flags:#04x} are set"
        raise CorruptError(msg)
    fields, pos = varints("grid", params, 2, 3)
    check_end("grid", params, pos)
    layout = _Layout(*fields)
    if layout.row >= 1 << 32 or layout.column >= max(layout.row, 1):
        msg = f"grid: column {layout.column} of rows of {layout.row} elements"
        raise CorruptError(msg)
    return _Params(flags, params[1], layout)


def n_parts(params: memoryview) -> int:
    """Return how many streams a chunk of these parameters has."""
    return 3 if _parse(params).flags & EXCEPTIONS else 2


def join(
    params: memoryview,
    parts: Decode,
    dtype: DType,
    nbytes: int,
    out: NDArray[np.uint8],
) -> None:
    """Restore a chunk from scales, codes and exceptions, as `Stage.join`."""
    if dtype.name not in _KINDS:
        msg = f"grid: elements of {dtype.name}, expected one of {', '.join(_KINDS)}"
        raise CorruptError(msg)
    kind, part_dtype = _KINDS[dtype.name]
    flags, low, layout = _parse(params)
    n = nbytes // dtype.width
    if layout.group >= (layout.row or n):
        msg = f"grid: groups of {layout.group}, expected less than {layout.row or n} elements"
        raise CorruptError(msg)
    if flags & WIDE_SCALES and part_dtype is _FP32:
        msg = f"grid: wide scales of {dtype.name}"
        raise CorruptError(msg)
    scale_nbytes = 4 if flags & WIDE_SCALES else part_dtype.width
    row, column, group = layout.checked(n)
    n_groups = structure.grid_groups(n, row, column, group)
    scales = parts(0, n_groups * scale_nbytes)
    codes = parts(1, n)
    exceptions = np.empty(0, np.uint8)
    if flags & EXCEPTIONS:
        exceptions = parts(2, structure.count(codes, 255) * dtype.width)
    if not structure.grid_join(
        kind, flags, low, row, column, group, scales, codes, exceptions, out
    ):
        msg = f"grid: one of {n_groups} scales is subnormal or not finite"
        raise CorruptError(msg)
