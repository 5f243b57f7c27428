"""Low-rank predictions: docs/format/codecs/lowrank.md in plain Python, with its names.

Numbers are Python's own: integers of any size, and floats, which are binary64.
"""

from __future__ import annotations

from math import inf, ldexp
from struct import Struct
from typing import NamedTuple

from . import contexts
from .wire import read_varint, take

ROUNDS = 1
MOST_NUMBERS = 1 << 25

# Mantissa bits, bits of the exponent.
_FORMATS = {"F16": (10, 5), "BF16": (7, 8), "F32": (23, 8), "F64": (52, 11)}
_F64 = Struct("<d")
_U64 = Struct("<Q")


class Factors(NamedTuple):
    """l[k] and r[k]: the numbers of component k."""

    left: list[list[int]]
    right: list[list[int]]
    shifts: list[int]
    exponent: int
    rounds: bool


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, n: int) -> bytes:
        part = take(self.data, self.at, n, "factors")
        self.at += n
        return part

    def varint(self) -> int:
        value, self.at = read_varint(self.data, self.at)
        return value


def decode_factors(data: bytes, shape: tuple[int, int]) -> Factors:
    """Return the factors of a record, of a matrix of m rows and n columns."""
    m, n = shape
    reader = _Reader(data)
    rank = reader.varint()
    if not 1 <= rank <= min(m, n, 1024):
        raise ValueError(f"rank {rank} of {m} x {n} elements")
    count = (m + n) * rank
    if count > min(MOST_NUMBERS, m * n):
        raise ValueError(f"{count} numbers for {m} x {n} elements")
    flags = reader.take(1)[0]
    if flags & ~ROUNDS:
        raise ValueError(f"reserved bits of flags {flags:#04x} are set")
    exponent = int.from_bytes(reader.take(2), "little", signed=True)
    if not -900 <= exponent <= 400:
        raise ValueError(f"exponent {exponent}")
    shifts = list(reader.take(rank))
    if max(shifts) > 62:
        raise ValueError(f"shift {max(shifts)}")
    low_bits = reader.take(2 * rank)
    if max(low_bits) > 24:
        raise ValueError(f"{max(low_bits)} low bits")
    freqs = contexts.read_tables(reader.take(reader.varint()))
    where = None
    if len(freqs) > 1:
        chosen = reader.take(2 * rank)
        where = b"".join(bytes([c]) * (n if k & 1 else m) for k, c in enumerate(chosen))
    symbols = contexts.decode(reader.take(reader.varint()), where, count, freqs)
    n_bits = sum(q * (n if k & 1 else m) for k, q in enumerate(low_bits))
    bits = int.from_bytes(reader.take((n_bits + 7) // 8), "little")
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes behind the factors")
    columns = []
    at = 0
    for k, q in enumerate(low_bits):
        column = []
        for _ in range(n if k & 1 else m):
            s = symbols[at] - 256 if symbols[at] >= 128 else symbols[at]
            column.append((s << q) + (bits & (1 << q) - 1))
            bits >>= q
            at += 1
        columns.append(column)
    left, right = columns[::2], columns[1::2]
    total = sum(
        (max(map(abs, a)) * max(map(abs, b))) << c
        for a, b, c in zip(left, right, shifts, strict=True)
    )
    if total >= 1 << 62:
        raise ValueError(f"sums of products reach {total}")
    return Factors(left, right, shifts, exponent, bool(flags & ROUNDS))


def value(word: int, mantissa: int, exponent_bits: int) -> float:
    """Return what a finite word stands for."""
    bias = (1 << exponent_bits - 1) - 1
    field = word >> mantissa & (1 << exponent_bits) - 1
    fraction = word & (1 << mantissa) - 1
    if field:
        fraction += 1 << mantissa
    magnitude = ldexp(float(fraction), max(field, 1) - bias - mantissa)
    return -magnitude if word >> mantissa + exponent_bits else magnitude


def nearest(x: float, mantissa: int, exponent_bits: int) -> int:
    """Return the word nearest to a float, of two the even one."""
    bits = _U64.unpack(_F64.pack(x))[0]
    sign = bits >> 63 << mantissa + exponent_bits
    infinity = (1 << exponent_bits) - 1 << mantissa
    bits &= (1 << 63) - 1
    if bits == 0:
        return int(sign)
    if bits >> 52 == 0x7FF:
        return int(sign | infinity)
    # x = fraction * 2^(field - 1075), field at least 1.
    field = max(bits >> 52, 1)
    fraction = (bits & (1 << 52) - 1) + ((1 << 52) if bits >> 52 else 0)
    bias = (1 << exponent_bits - 1) - 1
    # In steps of the mantissa's last place, and of subnormal numbers at least.
    drop = max(52 - mantissa, 1 - bias - mantissa - (field - 1075))
    whole, rest = fraction >> drop, fraction & (1 << drop) - 1
    half = 1 << drop >> 1
    if drop and (rest > half or (rest == half and whole & 1)):
        whole += 1
    # The leading one of `whole` counts into the exponent, as does a carry.
    step = field - 1075 + drop
    word = whole + (step + bias + mantissa - 1 << mantissa) if whole else 0
    return int(sign | min(word, infinity))


def predict(base: bytes, dtype: str, factors: Factors, shape: tuple[int, int]) -> bytes:
    """Return the prediction from all rows of a base; dtypes as safetensors spells them."""
    mantissa, exponent_bits = _FORMATS[dtype]
    width = (mantissa + exponent_bits + 1) // 8
    m, n = shape
    if len(base) != m * n * width:
        raise ValueError(f"{len(base)} bytes of {m} x {n} elements of {dtype}")
    every = (1 << exponent_bits) - 1
    out = bytearray()
    for i in range(m):
        for j in range(n):
            at = (i * n + j) * width
            b = int.from_bytes(base[at : at + width], "little")
            field = b >> mantissa & every
            if field == every or (dtype == "F64" and field < 64):
                out += base[at : at + width]
                continue
            total = sum(
                (lk[i] * rk[j]) << c
                for lk, rk, c in zip(factors.left, factors.right, factors.shifts, strict=True)
            )
            p = ldexp(float(total), factors.exponent)
            if factors.rounds:
                word = nearest(p, mantissa, exponent_bits)
                if word >> mantissa & every == every:
                    p = -inf if p < 0 else inf
                else:
                    p = value(word, mantissa, exponent_bits)
            prediction = nearest(value(b, mantissa, exponent_bits) + p, mantissa, exponent_bits)
            out += prediction.to_bytes(width, "little")
    return bytes(out)
