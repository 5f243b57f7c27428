"""Stage `steps`: integers close to one another. Specification: docs/format/codecs/steps.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai._fast import sparse
from z4ai.dtypes import resolve
from z4ai.errors import CorruptError
from z4ai.stages._cost import planes_order0
from z4ai.stages._part import Part, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.stages._part import Decode

    Words = NDArray[np.uint64]

__all__ = ["TRANSFORM", "join", "n_parts", "split"]

TRANSFORM = 19

_UINT8 = resolve("uint8")
_INTEGERS = frozenset(resolve(f"{sign}int{bits}") for sign in ("", "u") for bits in (16, 32, 64))
_STEPS = 1 << 3
_COMPLETE = 1 << 4
_ESCAPE = 255
# Elements of the sample, in runs: the steps within a run are looked at.
_SAMPLE, _RUN = 1 << 14, 1 << 8
# Percent of the plain planes that may be left, by estimate, and bytes that must be gained, since
# each part is a frame with a header.
_WORTH, _GAIN_NBYTES = 97, 256
_BIT = 1 << 16  # what the kernel counts entropy in


class _Rule(NamedTuple):
    """How numbers are told.

    Attributes
    ----------
    cost : int
        Of the sample, in 1/65536 bit.
    n_low : int
        Low bytes apart.
    base : int
        Of the numbers.
    usual : int
        The most frequent number.
    """

    cost: int
    n_low: int
    base: int
    usual: int


def split(content: NDArray[np.uint8], dtype: DType, row: int = 0, first: int = 0) -> Split | None:
    """Take a chunk of integers apart if small numbers make it smaller.

    Parameters
    ----------
    content : ndarray of uint8
        Whole elements.
    dtype : DType
        What they are.
    row, first : int
        Not looked at: sorted elements go on in the next row.

    Returns
    -------
    Split or None
        None where plain planes would do as well.
    """
    width = dtype.width
    n = len(content) // width
    if dtype not in _INTEGERS or n < 64:
        return None
    runs = _sample(content, width)
    steps = runs[:, 1:] - runs[:, :-1]
    rules = [(_best(steps, width), True), (_best(runs, width), False)]
    # Costs of as many elements each: a run has one step less.
    (rule, differences) = min(rules, key=lambda found: found[0].cost * (_RUN + found[1]))
    sampled = runs if not differences else runs[:, 1:]
    plain = planes_order0(np.ascontiguousarray(sampled).reshape(-1).view(np.uint8), dtype)
    gain = (plain - rule.cost) * n // (sampled.size * 8 * _BIT)
    if rule.cost * 100 >= plain * _WORTH or gain < _GAIN_NBYTES:
        return None
    start = None
    if differences:
        head = int.from_bytes(content[:width].tobytes(), "little")
        start = (head - rule.usual) % (1 << 8 * width)
    symbols, exceptions, lows = sparse.split_steps(content, width, rule.base, start, rule.n_low)
    if len(exceptions) > plain * n // (sampled.size * 8 * _BIT):
        return None  # the sample was not like the rest
    fields = [rule.base] if start is None else [rule.base, start]
    mode = rule.n_low | (_STEPS if differences else 0)
    parts = [Part(_UINT8, symbols), *(Part(_UINT8, low) for low in lows)]
    if len(exceptions):
        parts.insert(1, Part(dtype, exceptions))
    else:
        mode |= _COMPLETE
    return Split(
        bytes([mode]) + b"".join(field.to_bytes(width, "little") for field in fields), parts
    )


def join(
    params: memoryview,
    parts: Decode,
    dtype: DType,
    nbytes: int,
    out: NDArray[np.uint8],
) -> None:
    """Restore a chunk from symbols, exceptions and low bytes, as `Stage.join`."""
    width = dtype.width
    if width == 1:
        msg = f"steps of {dtype.name}, expected elements of 2, 4 or 8 bytes"
        raise CorruptError(msg)
    n_low = n_parts(params) - _n_fixed(params)
    differences = bool(params[0] & _STEPS)
    if n_low >= width:
        msg = f"steps have {n_low} low bytes of elements of {width}"
        raise CorruptError(msg)
    expected = 1 + width * (1 + differences)
    if len(params) != expected:
        msg = f"steps have {len(params)} bytes of parameters, expected {expected}"
        raise CorruptError(msg)
    base = int.from_bytes(params[1 : 1 + width], "little")
    start = int.from_bytes(params[1 + width :], "little") if differences else None
    n = nbytes // width
    symbols = parts(0, n)
    n_exceptions = sparse.count_escapes(symbols)
    if _n_fixed(params) == 2:
        exceptions = parts(1, n_exceptions * width)
    elif n_exceptions:
        msg = f"steps without exceptions have {n_exceptions} symbols that ask for one"
        raise CorruptError(msg)
    else:
        exceptions = np.empty(0, np.uint8)
    lows = [parts(_n_fixed(params) + k, n) for k in range(n_low)]
    sparse.join_steps(symbols, exceptions, lows, width, base, start, out)


def n_parts(params: memoryview) -> int:
    """Return the number of parts: symbols, exceptions if there are any, and each low byte."""
    if len(params) == 0:
        msg = "steps have no parameters"
        raise CorruptError(msg)
    if params[0] >> 5:
        msg = f"steps have mode {params[0]:#04x}, expected bits 5 to 7 zero"
        raise CorruptError(msg)
    n_low = params[0] & 7
    if n_low > sparse.MAX_LOW:
        msg = f"steps have {n_low} low bytes, expected at most {sparse.MAX_LOW}"
        raise CorruptError(msg)
    return _n_fixed(params) + n_low


def _n_fixed(params: memoryview) -> int:
    """Return the number of parts in front of the low bytes."""
    return 1 if params[0] & _COMPLETE else 2


def _sample(content: NDArray[np.uint8], width: int) -> Words:
    """Take runs of consecutive elements, evenly spread: one run a row."""
    n = len(content) // width
    words = content[: n * width].view(f"<u{width}")
    run = min(n, _RUN)
    runs = min(n // run, _SAMPLE // _RUN)
    starts = np.arange(runs) * (n - run) // max(runs - 1, 1)
    sample: Words = words[starts[:, None] + np.arange(run)]
    return sample


def _best(words: Words, width: int) -> _Rule:
    """Find the window of numbers, and the low bytes apart, by which the sample takes least."""
    # Signed order, whatever the dtype: steps go both ways, and -100 is next to 0.
    half = words.dtype.type(1 << 8 * width - 1)
    ordered = np.sort(words.reshape(-1) + half)
    values, counts = np.unique(words, return_counts=True)
    usual = int(values[counts.argmax()])
    best = _Rule(words.size * 8 * width * _BIT, 0, 0, usual)
    for n_low, base, cost in _windows(words.reshape(-1), ordered, width):
        if cost * 200 < best.cost * 199:  # another part must be worth its decoding
            best = _Rule(cost, n_low, base, usual)
    return best


def _windows(words: Words, ordered: Words, width: int) -> Iterator[tuple[int, int, int]]:
    """Try each number of low bytes that serves most of the sample; -> low bytes, base, cost."""
    top = (1 << 8 * width) - 1
    for n_low in range(min(width - 1, sparse.MAX_LOW) + 1):
        last = (_ESCAPE << 8 * n_low) - 1
        # Behind each element, as far as a window reaches that begins with it.
        reach = ordered + np.minimum(ordered ^ top, last).astype(ordered.dtype)
        behind = np.searchsorted(ordered, reach, "right")
        n_caught = behind - np.arange(len(ordered))
        i = int(n_caught.argmax())
        if int(n_caught[i]) * 2 < len(ordered):
            continue
        base = _place(ordered[i : int(behind[i])], last)
        base = (base - (1 << 8 * width - 1)) & top
        yield n_low, base, _cost(words, base, n_low, width)


def _place(caught: Words, last: int) -> int:
    """Choose where the window begins: what is spare goes to the ends as they thin out."""
    k = min(8, len(caught) - 1)
    low, high = int(caught[0]), int(caught[-1])
    thin_low = int(caught[k]) - low
    thin_high = high - int(caught[-1 - k])
    spare = last - (high - low)
    share = spare * thin_low // (thin_low + thin_high) if thin_low + thin_high else 0
    return max(low - share, 0)


def _cost(words: Words, base: int, n_low: int, width: int) -> int:
    small = words - words.dtype.type(base)
    symbols = np.minimum(small >> words.dtype.type(8 * n_low), _ESCAPE)
    caught = small[symbols < _ESCAPE]
    cost = sparse.entropy(np.bincount(symbols.astype(np.intp)))
    cost += (len(words) - len(caught)) * 8 * width * _BIT
    for k in range(n_low):
        cost += sparse.entropy(np.bincount((caught >> caught.dtype.type(8 * k)).astype(np.uint8)))
    return cost
