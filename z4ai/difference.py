"""The model of a frame of differences: its record on the wire.

Specification: docs/format/codecs/difference.md.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

import numpy as np

from z4ai import _wire
from z4ai.errors import CorruptError
from z4ai.model import take_tables

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FLOATS", "RARE", "ROWS", "block_of", "n_symbols", "parse_difference"]

_FIXED = Struct("<BBBBH")
# z4_model of z4_model.h, for differences.
BLOCK = Struct("<QIIHBBBBHBBBBB3x")
_FOLD_NBYTES = 256
# Flags of the record.
FLOATS, ROWS, RARE = 1, 2, 4
# The same in the block.
_HAS = {ROWS: 1, RARE: 4, FLOATS: 8}
_MAX_CLASS = 127
_LEAST_PERIOD = 16


def n_symbols(width: int) -> int:
    """Count the symbols that differences of elements of `width` bytes can have."""
    return 255 if width == 8 else 247


def parse_difference(record: memoryview, offset: int, width: int) -> NDArray[np.uint8]:
    """Parse a table record of kind 4 to what the kernels take.

    Parameters
    ----------
    record : memoryview
        Its bytes.
    offset : int
        Where they begin in the frame, for messages.
    width : int
        Bytes of an element.

    Raises
    ------
    CorruptError
    """
    if len(record) < _FIXED.size + 1:
        msg = f"model of differences of {len(record)} bytes"
        raise CorruptError(msg, offset=offset)
    flags, escape, shift, below, top = _FIXED.unpack_from(record)
    period, pos = _wire.get_varint(record, _FIXED.size, len(record))
    wrong = None
    if flags > (FLOATS | ROWS | RARE):
        wrong = f"reserved bits are set: {flags:#x}"
    elif escape and not flags & RARE:
        wrong = f"escape is {escape} without rare symbols"
    elif shift > 7 or below > 63:
        wrong = f"shift is {shift}, {below} bits are below classes"
    elif (below or top) and not flags & FLOATS:
        wrong = "classes of references that are no floats"
    elif period and not flags & ROWS:
        wrong = f"period is {period} without rows"
    elif flags & ROWS and not _LEAST_PERIOD <= period < 1 << 32:
        wrong = f"period is {period}"
    if wrong:
        msg = f"model of differences: {wrong}"
        raise CorruptError(msg, offset=offset)
    most = n_symbols(width) - 1
    freqs, pos = take_tables(record, pos, offset)
    blank = np.zeros((1, 256), np.uint16)
    rare = classes = blank
    if flags & RARE:
        rare, pos = take_tables(record, pos, offset, single=True)
    if flags & ROWS:
        classes, pos = take_tables(record, pos, offset, single=True)
    if freqs[:, most + 1 :].any() or rare[0, most + 1 :].any() or escape > most:
        msg = f"model of differences: a symbol above {most}"
        raise CorruptError(msg, offset=offset)
    if classes[0, _MAX_CLASS + 1 :].any():
        msg = f"model of differences: a class above {_MAX_CLASS}"
        raise CorruptError(msg, offset=offset)
    if pos != len(record):
        msg = f"model of differences: {len(record) - pos} bytes behind its end"
        raise CorruptError(msg, offset=offset + pos)
    body = freqs.tobytes() + rare.tobytes() + classes.tobytes()
    has = sum(bit for flag, bit in _HAS.items() if flags & flag)
    nbytes = BLOCK.size + _FOLD_NBYTES + len(body)
    head = BLOCK.pack(nbytes, len(freqs), period, top, has, shift, escape, 0, 0, 0, 0, 1, below, 0)
    return np.frombuffer(head + bytes(_FOLD_NBYTES) + body, np.uint8)


def block_of(
    flags: int,
    escape: int,
    shift: int,
    below: int,
    top: int,
    period: int,
    tables: tuple[NDArray[np.uint16], NDArray[np.uint16], NDArray[np.uint16]],
    encoder: tuple[int, int, int] = (0, 0, 0),
) -> NDArray[np.uint8]:
    """Make what the kernels take.

    tables : of contexts, rare symbols and classes, with a blank one where there is none. encoder :
    what only encoders need: level of rows of class 0, highest class, class steps an octave (log2).
    """
    body = b"".join(table.tobytes() for table in tables)
    has = sum(bit for flag, bit in _HAS.items() if flags & flag)
    nbytes = BLOCK.size + _FOLD_NBYTES + len(body)
    least, most, octave = encoder
    n = len(tables[0])
    fixed = (nbytes, n, period, top, has, shift, escape, 0, least, most, 0, 1, below, octave)
    return np.frombuffer(BLOCK.pack(*fixed) + bytes(_FOLD_NBYTES) + body, np.uint8)
