"""Record ``copies``: docs/format/copies.md in plain Python, in its order and with its names."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

MIN_NBYTES = 64
MAX_COUNT = 2**20


class Copy(NamedTuple):
    """Bytes ``[dst, dst + nbytes)`` of the content are those of ``[src, src + nbytes)``."""

    dst: int
    src: int
    nbytes: int


def read(record: bytes, content_nbytes: int) -> list[Copy]:
    """Return the copies of a record.

    Raises
    ------
    ValueError
        If a rule of the page is broken.
    """
    count, pos = _varint(record, 0)
    if not 1 <= count <= MAX_COUNT:
        raise ValueError(f"{count} copies, expected 1 to {MAX_COUNT}")
    copies = []
    end = source_end = 0
    for _ in range(count):
        gap, pos = _varint(record, pos)
        excess, pos = _varint(record, pos)
        step, pos = _varint(record, pos)
        d = step // 2 if step % 2 == 0 else -(step + 1) // 2
        copy = Copy(end + gap, source_end + gap + d, MIN_NBYTES + excess)
        copies.append(copy)
        end, source_end = copy.dst + copy.nbytes, copy.src + copy.nbytes
    if pos != len(record):
        raise ValueError(f"{len(record) - pos} bytes behind the last copy")
    check(copies, content_nbytes)
    return copies


def check(copies: Sequence[Copy], content_nbytes: int) -> None:
    """Refuse a list that breaks a rule.

    Raises
    ------
    ValueError
        With the number of the copy.
    """
    end = 0
    for k, (dst, src, nbytes) in enumerate(copies):
        if nbytes < MIN_NBYTES:
            raise ValueError(f"copy {k} has {nbytes} bytes, expected {MIN_NBYTES} at least")
        if dst < end:
            raise ValueError(f"copy {k} begins at {dst}, the one before it ends at {end}")
        if dst + nbytes > content_nbytes:
            raise ValueError(f"copy {k} ends behind the content of {content_nbytes} bytes")
        if src < 0 or src + nbytes > dst:
            raise ValueError(f"copy {k} at {dst} has its source at {src}")
        end = dst + nbytes
    starts = [copy.dst for copy in copies]
    for k, (_, src, nbytes) in enumerate(copies):
        # the last copied range that begins before the source ends
        i = bisect_right(starts, src + nbytes - 1) - 1
        if i >= 0 and copies[i].dst + copies[i].nbytes > src:
            raise ValueError(f"the source of copy {k} touches copy {i}")


def write(copies: Sequence[Copy]) -> bytes:
    """Return the record of a list."""
    out = _leb128(len(copies))
    end = source_end = 0
    for dst, src, nbytes in copies:
        gap = dst - end
        d = src - source_end - gap
        out += (
            _leb128(gap) + _leb128(nbytes - MIN_NBYTES) + _leb128(2 * d if d >= 0 else -2 * d - 1)
        )
        end, source_end = dst + nbytes, src + nbytes
    return out


def dense_nbytes(copies: Sequence[Copy], content_nbytes: int) -> int:
    """Return the size of the dense content."""
    return content_nbytes - sum(copy.nbytes for copy in copies)


def dense(content: bytes, copies: Sequence[Copy]) -> bytes:
    """Return the literal ranges of a content, put together."""
    out = b""
    end = 0
    for dst, _, nbytes in copies:
        out += content[end:dst]
        end = dst + nbytes
    return out + content[end:]


def restore(dense: bytes, copies: Sequence[Copy]) -> bytes:
    """Return the content. Every source lies before its copy, so it can be built from the left."""
    out = bytearray()
    pos = 0
    for dst, src, nbytes in copies:
        literal = dst - len(out)
        out += dense[pos : pos + literal]
        pos += literal
        out += out[src : src + nbytes]
    return bytes(out + dense[pos:])


def _varint(data: bytes, pos: int) -> tuple[int, int]:
    value = 0
    for i in range(10):
        if pos + i >= len(data):
            raise ValueError("the record ends in a varint")
        byte = data[pos + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if (i and byte == 0) or value >= 2**64:
                raise ValueError("varint is not the shortest form of a number of 64 bits")
            return value, pos + i + 1
    raise ValueError("varint does not fit in 64 bits")


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
