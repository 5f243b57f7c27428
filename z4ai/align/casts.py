"""Casts between floats, in integers alone: the same bits on every machine."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.align.elements import FLOATS, castable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.align.elements import Float

__all__ = ["cast"]

# Elements that are cast at a time: their intermediate results stay in cache.
_TILE = 1 << 15


def cast(content: NDArray[np.uint8], base: str, target: str) -> NDArray[np.uint8]:
    """Cast the elements of a buffer, to the nearest, ties to even.

    The rules are those of `docs/format/alignment.md`: directly from one dtype to the other,
    subnormal numbers kept, no flags or modes of the machine heeded.

    Parameters
    ----------
    content : ndarray of uint8
        Elements of dtype `base`, little-endian, contiguous.
    base, target : str
        Codes of safetensors.

    Returns
    -------
    ndarray of uint8
        Elements of dtype `target`; `content` itself if the dtypes are equal.

    Raises
    ------
    ValueError
        If there is no such cast.

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.align import cast
    >>> cast(np.array([1.00390625], "<f4").view(np.uint8), "F32", "BF16").view("<u2")
    array([16256], dtype=uint16)
    """
    if base == target:
        return content
    if not castable(base, target):
        msg = f"{base} is not cast to {target}"
        raise ValueError(msg)
    return _cast_words(content.view(_words(FLOATS[base])), base, target).view(np.uint8)


def _words(row: Float) -> np.dtype[Any]:
    return np.dtype(f"<u{row.nbytes}")


def _cast_words(words: NDArray[Any], base: str, target: str) -> NDArray[Any]:
    row = FLOATS[target]
    out = np.empty(len(words), _words(row))
    table = _table(base, target) if FLOATS[base].nbytes <= 2 else None
    for at in range(0, len(words), _TILE):
        tile = words[at : at + _TILE]
        if table is not None:
            out[at : at + _TILE] = table[tile]
        elif FLOATS[base].nbytes < row.nbytes:
            out[at : at + _TILE] = _widen(tile, FLOATS[base], row)
        else:
            out[at : at + _TILE] = _narrow(tile, FLOATS[base], row)
    return out


@lru_cache(maxsize=32)
def _table(base: str, target: str) -> NDArray[Any]:
    """Make the cast of every pattern of a dtype of one or two bytes."""
    source, row = FLOATS[base], FLOATS[target]
    every = np.arange(1 << (8 * source.nbytes)).astype(_words(source))
    if target == "F64":
        return _widen(every, source, row)
    # F32 holds each of them exactly: it is rounded once.
    wide = _widen(every, source, FLOATS["F32"])
    return wide if target == "F32" else _narrow(wide, FLOATS["F32"], row)


def _widen(words: NDArray[Any], base: Float, target: Float) -> NDArray[Any]:
    """Cast to a dtype with more bits of exponent and of mantissa."""
    wide = words.astype(_words(target))
    u = wide.dtype.type
    ones = u((1 << (8 * base.nbytes - 1)) - 1)
    magnitude = wide & ones
    sign = (wide ^ magnitude) << u(8 * (target.nbytes - base.nbytes))
    more = target.mantissa - base.mantissa
    out: NDArray[Any] = (magnitude << u(more)) + u((target.bias - base.bias) << target.mantissa)
    small = np.flatnonzero(magnitude < u(1 << base.mantissa))
    if len(small):
        out[small] = _widen_subnormal(magnitude[small], base, target)
    special = magnitude >= u(base.top)
    if special.any():
        quiet = u(1 << (target.mantissa - 1))
        mantissa = (magnitude[special] & u((1 << base.mantissa) - 1)) << u(more)
        nan = magnitude[special] > u(base.top) if base.infinite else np.True_
        out[special] = u(target.top) | mantissa | np.where(nan, quiet, u(0))
    out |= sign
    return out


def _widen_subnormal(magnitude: NDArray[Any], base: Float, target: Float) -> NDArray[Any]:
    u = magnitude.dtype.type
    if base.exponent == target.exponent:
        shifted: NDArray[Any] = magnitude << u(target.mantissa - base.mantissa)
        return shifted
    # The highest bit becomes the hidden one; frexp of such small integers is exact.
    length = np.frexp(magnitude.astype(np.float64))[1].astype(magnitude.dtype)
    shift = u(target.mantissa + 1) - length
    bits = (magnitude << shift) & u((1 << target.mantissa) - 1)
    exponent = length + u(target.bias - base.bias - base.mantissa)
    out: NDArray[Any] = (exponent << u(target.mantissa)) | bits
    out[magnitude == 0] = 0
    return out


def _narrow(words: NDArray[Any], base: Float, target: Float) -> NDArray[Any]:
    """Cast to a dtype with fewer bits of mantissa and no more of exponent."""
    u = words.dtype.type
    magnitude = words & u((1 << (8 * base.nbytes - 1)) - 1)
    less = base.mantissa - target.mantissa
    # Carries run into the exponent, as they must.
    half = u((1 << (less - 1)) - 1)
    out: NDArray[Any] = (magnitude + (half + ((magnitude >> u(less)) & u(1)))) >> u(less)
    if base.exponent != target.exponent:
        shifted = u((base.bias - target.bias) << target.mantissa)
        # The first magnitude that is a normal number of the target.
        first = u((base.bias - target.bias + 1) << base.mantissa)
        small = np.flatnonzero(magnitude < first)
        out = out - shifted
        if len(small):
            out[small] = _narrow_subnormal(magnitude[small], base, target)
        np.minimum(out, u(target.top), out=out)
    nan = magnitude > u(base.top)
    if nan.any():
        quiet = u(1 << (target.mantissa - 1))
        mantissa = (magnitude[nan] >> u(less)) & u((1 << target.mantissa) - 1)
        out[nan] = u(target.top) | mantissa | quiet
    sign = words >> u(8 * base.nbytes - 1) << u(8 * target.nbytes - 1)
    out |= sign
    return out.astype(_words(target))


def _narrow_subnormal(magnitude: NDArray[Any], base: Float, target: Float) -> NDArray[Any]:
    """Round to whole multiples of the least magnitude of the target."""
    u = magnitude.dtype.type
    hidden = u(1 << base.mantissa)
    exponent = magnitude >> u(base.mantissa)
    # A subnormal number has the exponent of the least normal one, and no hidden bit.
    mantissa = (magnitude & (hidden - u(1))) | np.where(exponent == 0, u(0), hidden)
    exponent = np.maximum(exponent, u(1))
    away = u(base.mantissa - target.mantissa + base.bias - target.bias + 1) - exponent
    away = np.minimum(away, u(base.mantissa + 2))
    half = (u(1) << (away - u(1))) - u(1)
    out: NDArray[Any] = (mantissa + (half + ((mantissa >> away) & u(1)))) >> away
    return out
