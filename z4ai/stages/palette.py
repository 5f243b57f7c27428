"""Stage ``palette``: elements by their number in a list. Page: docs/format/codecs/palette.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai._fast import structure
from z4ai._wire import put_varint
from z4ai.dtypes import resolve
from z4ai.errors import CorruptError
from z4ai.stages._cost import bits_of, plain_bits
from z4ai.stages._params import check_end, varints
from z4ai.stages._part import Part, Split

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.stages._part import Decode

__all__ = ["TRANSFORM", "join", "n_parts", "split"]

TRANSFORM = 17

_CODES = resolve("uint8")
_WORDS = {2: resolve("uint16"), 4: resolve("uint32"), 8: resolve("uint64")}

# Below this, the frames of the parts cost more than they save.
_MIN_NBYTES = 1024
_MOST = 256
_SAMPLE = 4096
# Palettes of rows: rows must be this many times longer than their palettes.
_ROW_PER_COLOUR = 4
_PROBED_ROWS = 3
_WORTH = 0.97


def split(content: NDArray[np.uint8], dtype: DType, row: int, first: int) -> Split | None:
    """Take a chunk apart into its distinct elements and codes.

    Parameters
    ----------
    content : ndarray of uint8
        Whole little-endian elements of `dtype`.
    dtype : DType
        Type of the elements; those of one byte have no palette.
    row : int
        Elements of a row of the tensor, 0 if that is not known.
    first : int
        Number of the first element in the tensor.

    Returns
    -------
    Split or None
        None if there are too many distinct elements, or only one.
    """
    width = dtype.width
    if width not in _WORDS or len(content) < _MIN_NBYTES:
        return None
    n = len(content) // width
    if structure.palette_count(content, width, max(n // _SAMPLE, 1)) > _MOST:
        return _split_rows(content, dtype, row, first) if row else None
    found = structure.palette_split(content, width)
    if found is None:
        return _split_rows(content, dtype, row, first) if row else None
    codes, palette = found
    size = len(palette) // width
    if size == 1 or size * _ROW_PER_COLOUR > n:
        return None
    params = put_varint(0) + bytes([size - 1])
    return Split(params, [Part(_WORDS[width], palette), Part(_CODES, codes)])


def _split_rows(content: NDArray[np.uint8], dtype: DType, row: int, first: int) -> Split | None:
    width = dtype.width
    n = len(content) // width
    column = first % row
    if not 2 * _ROW_PER_COLOUR <= row < min(n, 1 << 32):
        return None
    for k in range(_PROBED_ROWS):
        begin = (n - row) * k // (_PROBED_ROWS - 1)
        begin = max(begin - (column + begin) % row, 0)
        length = min(row - (column + begin) % row, n - begin)
        some = content[begin * width : (begin + length) * width]
        if structure.palette_count(some, width, 1) > min(row // _ROW_PER_COLOUR, _MOST):
            return None
    found = structure.palette_split_rows(content, width, row, column, n // _ROW_PER_COLOUR)
    if found is None:
        return None
    codes, sizes, palettes = found
    bits = bits_of(np.bincount(codes)) + 8 * (len(sizes) + len(palettes))
    if bits > _WORTH * plain_bits(content, dtype):
        return None
    params = put_varint(row) + put_varint(column)
    return Split(params, [Part(_CODES, sizes), Part(_WORDS[width], palettes), Part(_CODES, codes)])


def _parse(params: memoryview) -> tuple[int, int]:
    """-> row, and the last code or the column."""
    (row,), pos = varints("palette", params, 0, 1)
    if row == 0:
        column, pos = params[pos] if pos < len(params) else 0, pos + 1
    else:
        (column,), pos = varints("palette", params, pos, 1)
    check_end("palette", params, pos)
    if row >= 1 << 32 or 0 < row <= column:
        msg = f"palette: column {column} of rows of {row} elements"
        raise CorruptError(msg)
    return row, column


def n_parts(params: memoryview) -> int:
    """Return how many streams a chunk of these parameters has."""
    return 3 if _parse(params)[0] else 2


def join(
    params: memoryview,
    parts: Decode,
    dtype: DType,
    nbytes: int,
    out: NDArray[np.uint8],
) -> None:
    """Restore a chunk from palettes and codes, as `Stage.join`."""
    width = dtype.width
    if width not in _WORDS:
        msg = f"palette: elements of {width} bytes, expected 2, 4 or 8"
        raise CorruptError(msg)
    row, second = _parse(params)
    n = nbytes // width
    if row == 0:
        palette = parts(0, (second + 1) * width)
        codes = parts(1, n)
        if not structure.palette_join(codes, palette, width, out):
            msg = f"palette: it does not ascend, or codes are not below its size {second + 1}"
            raise CorruptError(msg)
        return
    n_rows = structure.grid_groups(n, row, second, row)
    sizes = parts(0, n_rows)
    total = int(sizes.sum(dtype=np.int64)) + n_rows
    palettes = parts(1, total * width)
    codes = parts(2, n)
    if not structure.palette_join_rows(codes, sizes, palettes, width, row, second, out):
        msg = f"palette: one of {n_rows} does not ascend, or codes are not below its size"
        raise CorruptError(msg)
