"""What a stage makes of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["Part", "Split"]


class Part(NamedTuple):
    """A buffer to be coded by itself.

    Attributes
    ----------
    dtype : DType
        How its elements should be coded.
    content : ndarray of uint8
        Its bytes.
    shape : tuple of int, optional
        Rows and the elements of one, the last row perhaps in part: a hint.
    """

    dtype: DType
    content: NDArray[np.uint8]
    shape: tuple[int, ...] | None = None


class Split(NamedTuple):
    """A chunk taken apart.

    Attributes
    ----------
    params : bytes
        What `join` needs beside the parts.
    parts : list of Part
        In the order of the streams.
    """

    params: bytes
    parts: list[Part]
