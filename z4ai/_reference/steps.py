"""Transform ``steps``: docs/format/codecs/steps.md in plain Python, with its names."""

from __future__ import annotations

STEPS = 1 << 3
COMPLETE = 1 << 4
ESCAPE = 255


def read_params(params: bytes, width: int) -> tuple[int, int, int | None]:
    """Return m, base, and start or None."""
    if width not in (2, 4, 8):
        raise ValueError(f"elements of {width} bytes, expected 2, 4 or 8")
    if not params:
        raise ValueError("no parameters")
    mode = params[0]
    m = mode & 7
    if mode >> 5:
        raise ValueError(f"reserved bits of mode {mode:#04x} are set")
    if m > 6 or m >= width:
        raise ValueError(f"{m} low bytes of elements of {width}")
    fields = 2 if mode & STEPS else 1
    if len(params) != 1 + fields * width:
        raise ValueError(f"{len(params)} bytes of parameters, expected {1 + fields * width}")
    base = int.from_bytes(params[1 : 1 + width], "little")
    start = int.from_bytes(params[1 + width :], "little") if mode & STEPS else None
    return m, base, start


def join(params: bytes, parts: list[bytes], width: int, nbytes: int) -> bytes:
    """Return the elements of symbols, exceptions and low bytes."""
    m, base, start = read_params(params, width)
    if params[0] & COMPLETE:
        parts = [*parts[:1], b"", *parts[1:]]
    if len(parts) != 2 + m:
        raise ValueError(f"{len(parts)} parts of {m} low bytes")
    n = nbytes // width
    sizes = [n, width * parts[0].count(ESCAPE)] + [n] * m
    for k, (part, size) in enumerate(zip(parts, sizes, strict=True)):
        if len(part) != size:
            raise ValueError(f"part {k} has {len(part)} bytes, expected {size}")
    symbols, exceptions, *low = parts
    out = bytearray()
    previous = start
    at = 0
    for i in range(n):
        if symbols[i] == ESCAPE:
            element = int.from_bytes(exceptions[at : at + width], "little")
            at += width
        else:
            v = symbols[i]
            for part in low:
                v = v * 256 + part[i]
            element = (base + v + (0 if previous is None else previous)) % (1 << 8 * width)
        if start is not None:
            previous = element
        out += element.to_bytes(width, "little")
    return bytes(out)
