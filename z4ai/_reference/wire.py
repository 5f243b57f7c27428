"""What all pages read with: pieces of a file, and `varint` of docs/format/index.md."""

from __future__ import annotations


def take(data: bytes, pos: int, nbytes: int, what: str) -> bytes:
    """Return ``nbytes`` bytes at ``pos``, or say that the file ends early."""
    if nbytes > len(data) - pos:
        raise ValueError(f"truncated: {what} needs {nbytes} bytes, {max(len(data) - pos, 0)} left")
    return data[pos : pos + nbytes]


def read_varint(data: bytes, pos: int) -> tuple[int, int]:
    """Read an unsigned LEB128 number at ``pos``; return it and the position behind it."""
    value = 0
    for i in range(10):
        byte = take(data, pos + i, 1, "varint")[0]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if i and byte == 0:
                raise ValueError("varint is not the shortest form of its value")
            if value >= 2**64:
                raise ValueError("varint does not fit in 64 bits")
            return value, pos + i + 1
    raise ValueError("varint does not fit in 64 bits")
