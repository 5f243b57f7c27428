"""Casts in integers against those of ml_dtypes and NumPy, which round in the machine's floats."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from align_models import NUMPY, Array
from hypothesis import given
from hypothesis import strategies as st

from z4ai.align import cast, castable
from z4ai.align.elements import FLOATS

CODES = list(FLOATS)


def words(dtype: np.dtype[Any]) -> str:
    return f"<u{dtype.itemsize}"


def patterns(code: str) -> Array:
    """Every pattern of a short dtype; of a long one all kinds, and what lies half way."""
    dtype = NUMPY[code]
    n = dtype.itemsize
    if n <= 2:
        return np.arange(1 << (8 * n)).astype(f"<u{n}").view(dtype)
    rng = np.random.default_rng(7)
    unsigned = words(dtype)
    found = [
        rng.integers(0, 1 << 63, 50_000, dtype=np.uint64).astype(unsigned) * 2 + 1,
        rng.standard_normal(20_000).astype(dtype).view(unsigned),
        (10.0 ** rng.uniform(-45, 38, 50_000)).astype(dtype).view(unsigned),
    ]
    with np.errstate(all="ignore"):
        for short in ("F16", "BF16", "F8_E4M3", "F8_E5M2"):
            every = patterns(short).astype(np.float64)
            every = every[np.isfinite(every)]
            half = ((every[1:] + every[:-1]) / 2).astype(dtype).view(unsigned)
            one = half.dtype.type(1)
            found += [every.astype(dtype).view(unsigned), half, half + one, half - one]
    return np.concatenate(found).view(dtype)


def same(got: Array, expected: Array) -> Array:
    """Compare by bits, but any NaN with any NaN."""
    with np.errstate(invalid="ignore"):
        nan = np.isnan(got.astype(np.float64)) & np.isnan(expected.astype(np.float64))
    unsigned = words(got.dtype)
    return nan | (got.view(unsigned) == expected.view(unsigned))


@pytest.mark.parametrize("target", CODES)
@pytest.mark.parametrize("base", [code for code in CODES if code != "F64"])
def test_finite_numbers_are_cast_as_everyone_casts_them(base: str, target: str) -> None:
    source = patterns(base)
    got = cast(source.view(np.uint8), base, target).view(NUMPY[target])
    with np.errstate(all="ignore"):
        expected = source.astype(NUMPY[target])
    wrong = np.flatnonzero(~same(got, expected))
    assert not len(wrong), (source[wrong[:5]], got[wrong[:5]], expected[wrong[:5]])


@pytest.mark.parametrize("target", ["F32", "F16"])
def test_doubles_are_cast_as_numpy_casts_them(target: str) -> None:
    source = patterns("F64")
    got = cast(source.view(np.uint8), "F64", target).view(NUMPY[target])
    with np.errstate(all="ignore"):
        assert same(got, source.astype(NUMPY[target])).all()


@given(st.floats(allow_nan=False, width=64), st.sampled_from(["BF16", "F8_E5M2", "F16", "F32"]))
def test_doubles_are_rounded_once(value: float, target: str) -> None:
    # ml_dtypes goes through float32: here the nearest neighbour is found in exact arithmetic.
    source = np.array([value])
    got = cast(source.view(np.uint8), "F64", target).view(NUMPY[target])
    row = FLOATS[target]
    bits = int(got.view(words(got.dtype))[0])
    magnitude = bits & ((1 << (8 * row.nbytes - 1)) - 1)
    assert (bits != magnitude) == bool(np.signbit(value))
    top = Fraction(2) ** row.bias * (2 - Fraction(1, 2**row.mantissa))
    limit = top + Fraction(2) ** (row.bias - row.mantissa - 1)
    exact = abs(Fraction(value)) if np.isfinite(value) else limit
    if exact >= limit:
        assert magnitude == row.top
        return

    def number(pattern: int) -> Fraction:
        exponent, mantissa = divmod(pattern, 1 << row.mantissa)
        hidden = (1 << row.mantissa) if exponent else 0
        return (mantissa + hidden) * Fraction(2) ** (max(exponent, 1) - row.bias - row.mantissa)

    error = abs(number(magnitude) - exact)
    for other in {max(magnitude - 1, 0), magnitude + 1} - {magnitude}:
        further = abs(number(other) - exact) - error
        assert further > 0 or (further == 0 and magnitude % 2 == 0)


def test_doubles_that_two_roundings_get_wrong() -> None:
    # Just above half way between two bfloat16; to float32 it is half way.
    source = np.array([1 + 2**-8 + 2**-40])
    got = cast(source.view(np.uint8), "F64", "BF16").view("<u2")
    assert got.tolist() == [0x3F81]


@pytest.mark.parametrize("target", CODES)
@pytest.mark.parametrize("base", CODES)
def test_nans_keep_sign_and_top_of_mantissa_and_are_quiet(base: str, target: str) -> None:
    if base == target:
        return
    source, row = FLOATS[base], FLOATS[target]
    width = 8 * source.nbytes
    every = range(source.top + source.infinite, min(1 << (width - 1), source.top + 500))
    some = [*every, (1 << (width - 1)) - 1]
    nans = np.array(some + [nan | 1 << (width - 1) for nan in some], np.uint64)
    got = cast(nans.astype(f"<u{source.nbytes}").view(np.uint8), base, target)
    for nan, found in zip(nans.tolist(), got.view(f"<u{row.nbytes}").tolist(), strict=True):
        sign = nan >> (width - 1)
        mantissa = nan & ((1 << source.mantissa) - 1)
        more = row.mantissa - source.mantissa
        kept = mantissa << more if more >= 0 else mantissa >> -more
        kept |= 1 << (row.mantissa - 1)
        expected = row.top | kept | sign << (8 * row.nbytes - 1)
        assert found == expected, (base, target, hex(nan), hex(found), hex(expected))


def test_a_cast_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="I8"):
        cast(np.zeros(4, np.uint8), "I8", "F32")
    assert not castable("I8", "F32")


def test_a_cast_to_the_same_dtype_is_no_copy() -> None:
    content = np.arange(8, dtype=np.uint8)
    assert cast(content, "I16", "I16") is content


@pytest.mark.parametrize("n", [0, 1, (1 << 15) - 1, 1 << 15, (1 << 15) + 1])
def test_lengths_around_tiles(n: int) -> None:
    source = np.linspace(-3, 3, n, dtype=np.float32)
    got = cast(source.view(np.uint8), "F32", "BF16").view(NUMPY["BF16"])
    assert np.array_equal(got, source.astype(NUMPY["BF16"]))
