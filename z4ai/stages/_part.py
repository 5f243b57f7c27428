"""What a stage is, and what it makes of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

    Decode = Callable[[int, int], NDArray[np.uint8]]

__all__ = ["Part", "Split", "Splitter", "Stage"]


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


class Stage(Protocol):
    """A module that brings chunks of one transform back."""

    def n_parts(self, params: memoryview, /) -> int:
        """Return the number of parts of a chunk of these parameters.

        Raises
        ------
        CorruptError
            If parameters break a rule of the format.
        """

    def join(
        self,
        params: memoryview,
        parts: Decode,
        dtype: DType,
        nbytes: int,
        out: NDArray[np.uint8],
        /,
    ) -> None:
        """Restore a chunk into `out`.

        Parameters
        ----------
        params : memoryview
            As they were made when it was taken apart.
        parts : callable
            ``parts(k, nbytes)`` decodes part k, which must have so many bytes.
        dtype : DType
            What its elements are.
        nbytes : int
            Its bytes: whole elements.
        out : ndarray of uint8
            Where they go.

        Raises
        ------
        CorruptError
            If parameters or parts break a rule of the format.
        """


class Splitter(Stage, Protocol):
    """One that finds the structure itself."""

    def split(
        self, content: NDArray[np.uint8], dtype: DType, row: int, first: int, /
    ) -> Split | None:
        """Take a chunk apart.

        Parameters
        ----------
        content : ndarray of uint8
            Whole little-endian elements.
        dtype : DType
            What they are.
        row : int
            Elements of a row of the tensor, 0 if that is not known.
        first : int
            Number of the first element in the tensor.

        Returns
        -------
        Split or None
            None where that would not be smaller.
        """
