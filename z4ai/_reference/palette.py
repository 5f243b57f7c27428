"""Transform 17, ``palette``: docs/format/codecs/palette.md in plain Python."""

from __future__ import annotations

from .wire import read_varint


def n_parts(params: bytes) -> int:
    """Return the number of parts."""
    row, _ = read_varint(params, 0)
    return 3 if row else 2


def join(params: bytes, parts: list[bytes], width: int, nbytes: int) -> bytes:
    """Restore ``nbytes`` bytes of elements from their parts."""
    if width not in (2, 4, 8):
        raise ValueError(f"a palette of elements of {width} bytes")
    n = nbytes // width
    row, pos = read_varint(params, 0)
    if row >= 2**32:
        raise ValueError(f"rows of {row} elements")
    if row == 0:
        if len(params) != pos + 1:
            raise ValueError(f"{len(params)} bytes of parameters, expected {pos + 1}")
        palette, codes = parts
        _check_size(palette, (params[pos] + 1) * width)
        _check_size(codes, n)
        return _restore(codes, _elements(palette, width))
    column, pos = read_varint(params, pos)
    if pos != len(params):
        raise ValueError("bytes behind the parameters")
    if column >= row:
        raise ValueError(f"column {column} of a row of {row}")
    sizes, palettes, codes = parts
    _check_size(codes, n)
    _check_size(sizes, (column + n - 1) // row + 1 if n else 0)
    _check_size(palettes, sum(last + 1 for last in sizes) * width)
    out = b""
    begin = 0
    for number, last in enumerate(sizes):
        palette = palettes[begin * width : (begin + last + 1) * width]
        begin += last + 1
        of_row = codes[max(number * row - column, 0) : (number + 1) * row - column]
        out += _restore(of_row, _elements(palette, width))
    return out


def _check_size(part: bytes, expected: int) -> None:
    if len(part) != expected:
        raise ValueError(f"a part of {len(part)} bytes, expected {expected}")


def _elements(palette: bytes, width: int) -> list[bytes]:
    elements = [palette[i : i + width] for i in range(0, len(palette), width)]
    numbers = [int.from_bytes(element, "little") for element in elements]
    if numbers != sorted(set(numbers)):
        raise ValueError("a palette that does not ascend")
    return elements


def _restore(codes: bytes, elements: list[bytes]) -> bytes:
    if any(code >= len(elements) for code in codes):
        raise ValueError(f"a code that is not below {len(elements)}")
    return b"".join(elements[code] for code in codes)
