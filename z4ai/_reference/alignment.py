"""References of tensors: casts and pieces, as docs/format/alignment.md has them."""

from __future__ import annotations

from fractions import Fraction

# E, M, magnitude bits of infinity, or of the NaN of a dtype without one.
FLOATS = {
    "F64": (11, 52, 2047 << 52),
    "F32": (8, 23, 255 << 23),
    "BF16": (8, 7, 255 << 7),
    "F16": (5, 10, 31 << 10),
    "F8_E5M2": (5, 2, 31 << 2),
    "F8_E4M3": (4, 3, 127),
}


def distance(x: int, dtype: str) -> Fraction:
    """Distance from zero of the number of magnitude bits `x`."""
    n_exponent, n_mantissa, _ = FLOATS[dtype]
    bias = (1 << (n_exponent - 1)) - 1
    e, f = divmod(x, 1 << n_mantissa)
    hidden = (1 << n_mantissa) if e > 0 else 0
    return (f + hidden) * Fraction(2) ** (max(e, 1) - bias - n_mantissa)


def is_nan(x: int, dtype: str) -> bool:
    """Tell whether magnitude bits are those of a NaN."""
    _, _, top = FLOATS[dtype]
    return x >= top if dtype == "F8_E4M3" else x > top


def cast(bits: int, base: str, target: str) -> int:
    """Cast one element, given by its bits."""
    if base == target:
        return bits
    n_exponent, n_mantissa, top_of_base = FLOATS[base]
    sign, x = divmod(bits, 1 << (n_exponent + n_mantissa))
    n_exponent, m, top = FLOATS[target]
    sign <<= n_exponent + m
    if is_nan(x, base):
        f = x % (1 << n_mantissa)
        kept = (f << m) >> n_mantissa
        return sign | top | 1 << (m - 1) | kept
    if x >= top_of_base:
        return sign | top
    return sign | nearest(distance(x, base), target)


def nearest(value: Fraction, dtype: str) -> int:
    """Magnitude bits whose distance from zero is nearest to a value; of two, the even ones."""
    _, _, top = FLOATS[dtype]
    if value >= distance(top, dtype):
        return top
    low, high = 0, top
    while high - low > 1:
        middle = (low + high) // 2
        if distance(middle, dtype) <= value:
            low = middle
        else:
            high = middle
    below, above = value - distance(low, dtype), distance(high, dtype) - value
    if below == above:
        return low if low % 2 == 0 else high
    return low if below < above else high


def piece(
    source: list[int],
    shape: tuple[int, ...],
    outer: int,
    width: int,
    source_inner: int,
    first: int,
    transposed: bool,
) -> list[int]:
    """Elements of a piece, row by row, of the elements of its source."""
    if transposed:
        rows = shape[0]
        columns = len(source) // rows
        source = [source[i % rows * columns + i // rows] for i in range(len(source))]
    return [source[r * source_inner + first + c] for r in range(outer) for c in range(width)]
