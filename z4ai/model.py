"""The model of a frame of symbols: its record on the wire.

Specification: docs/format/codecs/symbols.md.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast import contexts
from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Model", "parse_model"]

FIXED = Struct("<HBB")
# z4_model of z4_model.h.
BLOCK = Struct("<QIIHBBBBHBB6x")
FOLD_NBYTES = 256
ROWS, COLUMNS, RARE = 1, 2, 4
_MAX_CLASS = 127
LEAST_PERIOD = 16
MOST_COLUMNS = 1 << 20
RECORD_SHIFT = 3


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
    if len(record) < FIXED.size + 1:
        msg = f"model of {len(record)} bytes"
        raise CorruptError(msg, offset=offset)
    base, flags, escape = FIXED.unpack_from(record)
    has, shift = flags >> RECORD_SHIFT, flags & 7
    period, pos = _wire.get_varint(record, FIXED.size, len(record))
    wrong = None
    if has > (ROWS | COLUMNS | RARE):
        wrong = f"reserved bits are set: {flags:#x}"
    elif escape and not has & RARE:
        wrong = f"escape is {escape} without rare symbols"
    elif not has & (ROWS | COLUMNS):
        wrong = f"period is {period} without rows and columns" if period else None
    elif period < (LEAST_PERIOD if has & ROWS else 1) or period >= 1 << 32:
        wrong = f"period is {period}"
    elif has & COLUMNS and period > MOST_COLUMNS:
        wrong = f"{period} columns, expected {MOST_COLUMNS} at most"
    if wrong:
        msg = f"model: {wrong}"
        raise CorruptError(msg, offset=offset)

    freqs, pos = take_tables(record, pos, offset)
    if len(freqs) > 1 and not has & (ROWS | COLUMNS):
        msg = f"model: {len(freqs)} tables without rows and columns"
        raise CorruptError(msg, offset=offset)
    blank = np.zeros((1, 256), np.uint16)
    rare = classes = blank
    if has & RARE:
        rare, pos = take_tables(record, pos, offset, single=True)
    if has & (ROWS | COLUMNS):
        classes, pos = take_tables(record, pos, offset, single=True)
        if classes[0, _MAX_CLASS + 1 :].any():
            msg = "model: a class above 127"
            raise CorruptError(msg, offset=offset)
    columns = b""
    if has & COLUMNS:
        try:
            columns = contexts.decode(record[pos:], None, period, classes)
        except contexts.ContextsError as error:
            msg = f"model: classes of columns: {error}"
            raise CorruptError(msg, offset=offset + pos) from error
    elif pos != len(record):
        msg = f"model: {len(record) - pos} bytes behind its end"
        raise CorruptError(msg, offset=offset + pos)
    body = freqs.tobytes() + rare.tobytes() + classes.tobytes() + columns
    head = BLOCK.pack(
        BLOCK.size + FOLD_NBYTES + len(body),
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
    return np.frombuffer(head + bytes(FOLD_NBYTES) + body, np.uint8)


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
