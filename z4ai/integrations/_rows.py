"""Rows of a tensor that a list of numbers or a mask chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.decoder import check_output
from z4ai.integrations._memory import fresh_memory, item_nbytes, memory_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.container.st_header import Tensor as Row
    from z4ai.integrations._archive import Archive

__all__ = ["read_rows", "rows_of"]


def rows_of(
    part: Any, shape: tuple[int, ...]
) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Find out which rows a part of an index chooses from the first axis.

    Returns
    -------
    tuple of ndarray, or None
        The rows, each once and in order, and the place among these of each one that is wanted, in
        the shape of the part. None if that cannot be told: the whole tensor is needed then.
    """
    if not shape or not shape[0]:
        return None
    if isinstance(part, list | tuple) and any(type(k) is not int for k in part):
        return None  # what that means changes with the release of torch
    try:
        numbers = np.asarray(part.detach().cpu() if hasattr(part, "detach") else part)
    except (TypeError, ValueError, RuntimeError):
        return None
    if numbers.dtype.kind not in "iu" or numbers.size == 0 or numbers.dtype == np.uint8:
        return None
    rows = numbers.astype(np.int64)
    if rows.min() < -shape[0] or rows.max() >= shape[0]:
        return None
    chosen, places = np.unique(rows % shape[0], return_inverse=True)
    return chosen, places.reshape(rows.shape)


def read_rows(archive: Archive, row: Row, chosen: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Decode rows of the first axis, given in order; -> their bytes, one behind the other."""
    shape = memory_shape(row)
    count = int(np.prod(shape[1:], dtype=object))
    nbytes = count * item_nbytes(row)
    check_output(len(chosen) * nbytes, archive.limits)
    out = fresh_memory(len(chosen) * nbytes)
    archive.read_ranges(
        row.name, [(int(k) * nbytes, nbytes) for k in chosen] if nbytes else [], out
    )
    return out
