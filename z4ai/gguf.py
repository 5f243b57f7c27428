"""GGUF files: where their tensors lie, and what blocks those are made of.

Only enough is read to code such a file well. One that is not as it should be is opaque bytes.
"""

from __future__ import annotations

from math import prod
from struct import Struct, error
from typing import TYPE_CHECKING, NamedTuple

from z4ai.dtypes import resolve
from z4ai.stages.blocks import BY_RATIO, BY_RATIOS, BYTES, Format, Layout, Run

if TYPE_CHECKING:
    from z4ai.dtypes import DType

__all__ = ["MAGIC", "find_layout"]

MAGIC = b"GGUF"

_VERSIONS = (2, 3)
_HEAD = Struct("<4sIQQ")
_U32 = Struct("<I")
_U64 = Struct("<Q")
# Bytes of the kinds of values; strings and arrays have lengths of their own.
_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_MAX_DEPTH = 4  # of arrays of arrays
# Of tensors, of values and of arrays: far more than any model has, and read in no time.
_MOST_ITEMS = 1 << 16
_MAX_NDIM = 8
_MOST = 1 << 62
_ALIGNMENT = b"general.alignment"
_ALIGNMENT_KIND = 4

_U8, _I8, _F16, _F32 = map(resolve, ("uint8", "int8", "fp16", "fp32"))
_NIBBLES = resolve("uint4_x2")


class _Kind(NamedTuple):
    """A type of tensors: elements of a block, and its fields."""

    elements: int
    format: Format


def _plain(name: str) -> _Kind:
    dtype = resolve(name)
    return _Kind(1, Format(((dtype, dtype.width),)))


def _blocks(elements: int, *fields: tuple[DType, int], ordered: int = 0) -> _Kind:
    return _Kind(elements, Format(fields, ordered))


_D = (_F16, 2)
_SUPER = 256
# By the numbers of ggml. What is left out is opaque.
_KINDS = {
    0: _plain("fp32"),
    1: _plain("fp16"),
    2: _blocks(32, _D, (_U8, 16)),  # q4_0
    3: _blocks(32, _D, _D, (_NIBBLES, 16), ordered=BY_RATIO),  # q4_1
    6: _blocks(32, _D, (_U8, 4), (_U8, 16)),  # q5_0
    7: _blocks(32, _D, _D, (_U8, 4), (_U8, 16)),  # q5_1
    8: _blocks(32, _D, (_I8, 32)),  # q8_0
    9: _blocks(32, _D, _D, (_I8, 32)),  # q8_1
    10: _blocks(_SUPER, (_U8, 16), (_U8, 64), _D, _D),  # q2_K
    11: _blocks(_SUPER, (_U8, 32), (_U8, 64), (_U8, 12), _D),  # q3_K
    12: _blocks(_SUPER, _D, _D, (_U8, 12), (_NIBBLES, 128), ordered=BY_RATIOS),  # q4_K
    13: _blocks(_SUPER, _D, _D, (_U8, 12), (_U8, 32), (_U8, 128)),  # q5_K
    14: _blocks(_SUPER, (_U8, 128), (_U8, 64), (_I8, 16), _D),  # q6_K
    15: _blocks(_SUPER, (_F32, 4), (_I8, 256), (resolve("int16"), 32)),  # q8_K
    16: _blocks(_SUPER, _D, (_U8, 64)),  # iq2_xxs
    17: _blocks(_SUPER, _D, (_U8, 64), (_U8, 8)),  # iq2_xs
    18: _blocks(_SUPER, _D, (_U8, 64), (_U8, 32)),  # iq3_xxs
    19: _blocks(_SUPER, _D, (_U8, 32), (_U8, 16)),  # iq1_s
    20: _blocks(32, _D, (_U8, 16)),  # iq4_nl
    21: _blocks(_SUPER, _D, (_U8, 64), (_U8, 8), (_U8, 32), (_U8, 4)),  # iq3_s
    22: _blocks(_SUPER, _D, (_U8, 64), (_U8, 8), (_U8, 8)),  # iq2_s
    23: _blocks(_SUPER, _D, (_U8, 2), (_U8, 4), (_U8, 128)),  # iq4_xs
    24: _plain("int8"),
    25: _plain("int16"),
    26: _plain("int32"),
    27: _plain("int64"),
    28: _plain("fp64"),
    29: _blocks(_SUPER, (_U8, 32), (_U8, 16), (_U8, 8)),  # iq1_m
    30: _plain("bf16"),
    34: _blocks(_SUPER, (_U8, 48), (_U8, 4), _D),  # tq1_0
    35: _blocks(_SUPER, (_U8, 64), _D),  # tq2_0
    39: _blocks(32, (_U8, 1), (_U8, 16)),  # mxfp4
}


class _NotGguf(Exception):
    """The header is not one that this reader understands."""


def find_layout(head: memoryview) -> Layout | None:
    """Find what a file is made of.

    Parameters
    ----------
    head : memoryview
        The bytes that it begins with: its header at least.

    Returns
    -------
    Layout or None
        None if it is no GGUF file, or a damaged one.
    """
    if bytes(head[:4]) != MAGIC:
        return None
    try:
        return _layout_of(_Reader(head))
    except (_NotGguf, error):  # what struct raises at the end of the bytes
        return None


class _Reader:
    def __init__(self, buf: memoryview) -> None:
        self.buf = buf
        self.pos = 0
        self._left = _MOST_ITEMS

    def u32(self) -> int:
        (value,) = _U32.unpack_from(self.buf, self.pos)
        self.pos += 4
        return int(value)

    def u64(self) -> int:
        (value,) = _U64.unpack_from(self.buf, self.pos)
        self.pos += 8
        return int(value)

    def skip(self, nbytes: int) -> memoryview:
        begin, self.pos = self.pos, self.pos + nbytes
        if self.pos > len(self.buf):
            raise _NotGguf
        return self.buf[begin : self.pos]

    def string(self) -> memoryview:
        return self.skip(self.u64())

    def skip_value(self, kind: int, depth: int = 0) -> None:
        if kind == _STRING:
            self.string()
        elif kind == _ARRAY and depth < _MAX_DEPTH and self._left > 0:
            self._left -= 1
            inner, count = self.u32(), self.u64()
            if inner in _SCALARS:
                self.skip(_SCALARS[inner] * count)
            elif inner == _STRING:
                self.skip_strings(count)
            else:
                for _ in range(self._at_most(count)):
                    self.skip_value(inner, depth + 1)
        elif kind in _SCALARS:
            self.skip(_SCALARS[kind])
        else:
            raise _NotGguf

    def skip_strings(self, count: int) -> None:
        buf, pos, end = self.buf, self.pos, len(self.buf)
        for _ in range(self._at_most(count)):
            (nbytes,) = _U64.unpack_from(buf, pos)
            pos += 8 + nbytes
            if pos > end:
                raise _NotGguf
        self.pos = pos

    def _at_most(self, count: int) -> int:
        if 8 * count > len(self.buf) - self.pos:  # strings and arrays begin with eight bytes
            raise _NotGguf
        return count


def _layout_of(reader: _Reader) -> Layout:
    magic, version, n_tensors, n_values = _HEAD.unpack_from(reader.buf)
    reader.pos = _HEAD.size
    if magic != MAGIC or version not in _VERSIONS or max(n_tensors, n_values) > _MOST_ITEMS:
        raise _NotGguf
    alignment = 32
    for _ in range(n_values):
        key = bytes(reader.string())
        kind = reader.u32()
        if key == _ALIGNMENT and kind == _ALIGNMENT_KIND:
            alignment = reader.u32()
        else:
            reader.skip_value(kind)
    if alignment == 0 or alignment % 8:
        raise _NotGguf
    tensors = []
    for _ in range(n_tensors):
        reader.string()
        ndim = reader.u32()
        if ndim > _MAX_NDIM:
            raise _NotGguf
        shape = [reader.u64() for _ in range(ndim)]
        number = reader.u32()
        offset = reader.u64()
        kind_of = _KINDS.get(number)
        if kind_of is None:
            continue
        row, rest = divmod(shape[0] if shape else 1, kind_of.elements)
        count = row * prod(shape[1:])
        if rest or count * kind_of.format.nbytes > _MOST or offset > _MOST:
            raise _NotGguf
        tensors.append((offset, kind_of.format, count, row))
    begin = -(-reader.pos // alignment) * alignment
    runs = [Run(BYTES, begin)]
    end = 0
    for offset, form, count, row in sorted(tensors, key=lambda tensor: tensor[0]):
        if offset < end:
            raise _NotGguf
        run = Run(form, count, row)
        runs += [Run(BYTES, offset - end), run]
        end = offset + run.nbytes
    return Layout(runs)
