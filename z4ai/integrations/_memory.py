"""Fresh memory for content, and how tensors lie in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z4ai._fast.chunks import fresh_array
from z4ai.container import st_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from z4ai.container.st_header import Tensor

__all__ = ["fresh_memory", "item_nbytes", "memory_shape"]

# Frameworks and caches like their data to begin with a line of the cache.
_ALIGNMENT = 64


def fresh_memory(nbytes: int) -> NDArray[np.uint8]:
    """Allocate aligned memory, not initialised; in huge pages where they come quickly."""
    memory = fresh_array(nbytes + _ALIGNMENT - 1)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + nbytes]


def item_nbytes(tensor: Tensor) -> int:
    """Bytes of one item in memory; of F4, which is packed in pairs, those of a pair.

    Raises
    ------
    TypeError
        If the dtype has no form in memory.
    """
    if tensor.dtype == "F4":
        return 1
    nbytes = st_header.dtype_of(tensor.dtype).item_nbytes
    if not nbytes:
        msg = (
            f"tensor {tensor.name!r} has dtype {tensor.dtype!r}, which has no form in memory: "
            "ZstnReader.read_raw gives its bytes"
        )
        raise TypeError(msg)
    return nbytes


def memory_shape(tensor: Tensor) -> tuple[int, ...]:
    """Shape of a tensor in memory: of F4, half the extent of the last axis.

    Raises
    ------
    TypeError
        If pairs of F4 would not lie within a row.
    """
    if tensor.dtype != "F4":
        return tensor.shape
    if not tensor.shape or tensor.shape[-1] % 2:
        msg = f"tensor {tensor.name!r} is F4 of shape {tensor.shape}: its last axis is not even"
        raise TypeError(msg)
    return (*tensor.shape[:-1], tensor.shape[-1] // 2)
