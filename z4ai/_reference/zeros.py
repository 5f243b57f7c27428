"""Transform ``zeros``: docs/format/codecs/zeros.md in plain Python, with its names."""

from __future__ import annotations

from collections.abc import Iterator


def part_nbytes(params: bytes, parts: list[bytes], width: int, nbytes: int) -> int:
    """Return the bytes that the part behind ``parts`` must have."""
    if len(params) != width:
        raise ValueError(f"fill has {len(params)} bytes, expected {width}")
    n = nbytes // width
    if not parts:
        return (n + 7) // 8
    return width * sum(map(int.bit_count, parts[0]))


def join(params: bytes, parts: list[bytes], width: int, nbytes: int) -> bytes:
    """Return the elements of a bitmap and the dense rest."""
    if len(parts) != 2:
        raise ValueError(f"{len(parts)} parts, expected 2")
    for k in range(2):
        expected = part_nbytes(params, parts[:k], width, nbytes)
        if len(parts[k]) != expected:
            raise ValueError(f"part {k} has {len(parts[k])} bytes, expected {expected}")
    bitmap, dense = parts
    n = nbytes // width
    if n % 8 and bitmap[-1] >> (n % 8):
        raise ValueError("reserved bits of the bitmap are set")

    def elements() -> Iterator[bytes]:
        at = 0
        for i in range(n):
            if bitmap[i // 8] >> (i % 8) & 1:
                yield dense[at : at + width]
                at += width
            else:
                yield params

    return b"".join(elements())
