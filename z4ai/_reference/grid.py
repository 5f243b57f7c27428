"""Transform 18, ``grid``: docs/format/codecs/grid.md in plain Python, with exact fractions."""

from __future__ import annotations

from fractions import Fraction

from .wire import read_varint

#: Bits of the mantissa that are stored, bits of the exponent.
Format = tuple[int, int]
BF16, FP16, FP32, FP64 = (7, 8), (10, 5), (23, 8), (52, 11)

#: dtype -> (element, arithmetic, scale without bit 0, scale with bit 0 or None)
DTYPES: dict[str, tuple[Format, Format, Format, Format | None]] = {
    "bf16": (BF16, FP32, BF16, FP32),
    "fp16": (FP16, FP32, FP16, FP32),
    "fp32": (FP32, FP32, FP32, None),
    "complex64": (FP32, FP32, FP32, None),
    "fp64": (FP64, FP64, FP64, FP32),
    "complex128": (FP64, FP64, FP64, FP32),
}


def n_parts(params: bytes) -> int:
    """Return the number of parts."""
    if not params:
        raise ValueError("truncated: no parameters")
    return 3 if params[0] & 2 else 2


def join(params: bytes, parts: list[bytes], dtype: str, nbytes: int) -> bytes:
    """Restore ``nbytes`` bytes of elements of a dtype from their parts."""
    if dtype not in DTYPES:
        raise ValueError(f"a grid of {dtype}")
    element, arithmetic, narrow, wide = DTYPES[dtype]
    width = _width(element)
    n = nbytes // width

    if len(params) < 2:
        raise ValueError("truncated: no parameters")
    flags, low = params[0], params[1]
    if flags & 0xF8:
        raise ValueError(f"reserved flags {flags:#04x}")
    row, pos = read_varint(params, 2)
    column, pos = read_varint(params, pos)
    group, pos = read_varint(params, pos)
    if pos != len(params):
        raise ValueError("bytes behind the parameters")
    if row >= 2**32 or column >= max(row, 1) or group >= (row or n):
        raise ValueError(f"row {row}, column {column}, group {group}")
    scale = wide if flags & 1 else narrow
    if scale is None:
        raise ValueError(f"wide scales of {dtype}")
    exceptions, minus_zeros = bool(flags & 2), bool(flags & 4)
    if len(parts) != n_parts(params):
        raise ValueError(f"{len(parts)} parts, expected {n_parts(params)}")

    groups: list[tuple[int, int]] = []
    number_of = []
    for i in range(n):
        at_row = (column + i) // row if row else 0
        at_column = (column + i) % row if row else i
        place = (at_row, at_column // group if group else 0)
        if not groups or groups[-1] != place:
            groups.append(place)
        number_of.append(len(groups) - 1)

    size = _width(scale)
    if len(parts[0]) != size * len(groups):
        raise ValueError(f"{len(parts[0])} bytes of scales, {len(groups)} groups")
    words = [parts[0][at : at + size] for at in range(0, len(parts[0]), size)]
    scales = [_scale(word, scale, arithmetic) for word in words]
    codes = parts[1]
    if len(codes) != n:
        raise ValueError(f"{len(codes)} codes, expected {n}")
    rest = [parts[2][i : i + width] for i in range(0, len(parts[2]), width)] if exceptions else []
    if exceptions and len(parts[2]) != width * codes.count(255):
        raise ValueError(f"{len(parts[2])} bytes of exceptions, {codes.count(255)} codes")

    minus = bytes(width - 1) + b"\x80"
    out = []
    for code, number in zip(codes, number_of, strict=True):
        if exceptions and code == 255:
            out.append(rest.pop(0))
        elif minus_zeros and code == (254 if exceptions else 255):
            out.append(minus)
        else:
            negative, magnitude = scales[number]
            k = code - low
            sign = negative != (k < 0)
            product = _value(_round(abs(k) * magnitude, arithmetic), arithmetic)
            if product is None:  # infinity stays infinity
                mantissa, exponent = element
                word = ((1 << exponent) - 1) << mantissa
            else:
                word = _round(product, element)
            out.append((word | sign << (8 * width - 1)).to_bytes(width, "little"))
    return b"".join(out)


def _width(kind: Format) -> int:
    return (1 + sum(kind)) // 8


def _scale(data: bytes, kind: Format, arithmetic: Format) -> tuple[bool, Fraction]:
    """Return the sign and the magnitude of a scale."""
    word = int.from_bytes(data, "little")
    top = 8 * len(data) - 1
    magnitude = _value(word & (1 << top) - 1, kind)
    if magnitude is None:
        raise ValueError("a scale that is not finite")
    least = Fraction(1, 2 ** (2 ** (arithmetic[1] - 1) - 2))
    if 0 < magnitude < least:
        raise ValueError("a scale that is subnormal")
    return bool(word >> top), magnitude


def _value(word: int, kind: Format) -> Fraction | None:
    """Return what a word without a sign stands for; None is infinity or NaN."""
    mantissa, exponent = kind
    e, m = word >> mantissa, word & (1 << mantissa) - 1
    if e == (1 << exponent) - 1:
        return None
    if e:
        m |= 1 << mantissa
    shift = max(e, 1) - (1 << (exponent - 1)) + 1 - mantissa
    return Fraction(m) * Fraction(2) ** shift


def _round(x: Fraction, kind: Format) -> int:
    """Return the word of the number nearest to ``x``, ties to even."""
    mantissa, exponent = kind
    bias = (1 << (exponent - 1)) - 1
    if x == 0:
        return 0
    e = x.numerator.bit_length() - x.denominator.bit_length()
    if Fraction(2) ** e > x:
        e -= 1
    e = max(e, 1 - bias)
    units = x / Fraction(2) ** (e - mantissa)
    # Python's round is to nearest, ties to even. A carry into the exponent is where it belongs.
    word = round(units) + ((e + bias - 1) << mantissa)
    return min(word, ((1 << exponent) - 1) << mantissa)
