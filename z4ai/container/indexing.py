"""Which part of a tensor an index selects, and which elements have to be decoded for it."""

from __future__ import annotations

from operator import index as as_int
from typing import Any

import numpy as np

__all__ = ["narrow"]


def narrow(shape: tuple[int, ...], index: Any) -> tuple[int, int, tuple[int, ...], tuple[Any, ...]]:
    """Find the block of a tensor that an index selects from.

    Returns
    -------
    begin, end : int
        The elements of the block, in C order.
    block_shape : tuple of int
        Its shape.
    rest : tuple
        What selects from the block.
    """
    parts = index if isinstance(index, tuple) else (index,)
    wanted: list[Any] = []
    for part in parts:
        if part is None or part is Ellipsis or isinstance(part, slice):
            wanted.append(part)
        elif isinstance(part, bool | np.bool_ | np.ndarray | list):
            raise _not_basic(part)
        else:
            try:
                wanted.append(as_int(part))
            except TypeError:
                raise _not_basic(part) from None
    n_axes = sum(part is not None and part is not Ellipsis for part in wanted)
    if wanted.count(Ellipsis) > 1:
        msg = "an index can only have one Ellipsis"
        raise IndexError(msg)
    if n_axes > len(shape):
        msg = f"too many indices: {n_axes} for shape {shape}"
        raise IndexError(msg)

    begin, size = 0, 1
    for extent in shape:
        size *= extent
    rest: list[Any] = []
    block_shape = list(shape)
    axis = 0
    end = size
    for place, part in enumerate(wanted):
        if part is None:
            rest.append(part)
            continue
        if part is Ellipsis:
            rest += wanted[place:]
            break
        extent = shape[axis]
        if isinstance(part, slice):
            chosen = range(*part.indices(extent))
            low, high, local = _slice_of_block(chosen)
            rest.append(local)
            if extent:
                size //= extent
                begin, end = begin + low * size, begin + high * size
            block_shape[axis] = high - low
            rest += wanted[place + 1 :]
            _check_axes(shape, axis + 1, wanted[place + 1 :])
            break
        row = part + extent if part < 0 else part
        if not 0 <= row < extent:
            msg = f"index {part} is out of bounds for axis {axis} of {extent}"
            raise IndexError(msg)
        size //= extent
        begin, end = begin + row * size, begin + (row + 1) * size
        block_shape[axis] = 1
        rest.append(0)
        axis += 1
    return begin, end, tuple(block_shape), tuple(rest)


def _slice_of_block(chosen: range) -> tuple[int, int, slice]:
    """Rows that a slice selects; -> first, one past the last, the slice among these."""
    if not len(chosen):
        return 0, 0, slice(0, 0)
    low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1
    return low, high, slice(None, None, chosen.step)


def _check_axes(shape: tuple[int, ...], axis: int, parts: list[Any]) -> None:
    """Check integers behind the first slice before anything is decoded for them."""
    if Ellipsis in parts:
        return
    for part in parts:
        if part is None:
            continue
        if isinstance(part, int) and not -shape[axis] <= part < shape[axis]:
            msg = f"index {part} is out of bounds for axis {axis} of {shape[axis]}"
            raise IndexError(msg)
        axis += 1


def _not_basic(part: Any) -> IndexError:
    msg = f"index {part!r:.100} is no integer, slice, Ellipsis or None: read_slice knows no other"
    return IndexError(msg)
