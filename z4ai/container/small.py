"""Tensors too small for a frame of their own: those of one dtype share one, where that pays."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from z4ai.encoder import encode_content
from z4ai.frame import FrameHeader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.container.encode import FrameWaves
    from z4ai.container.zstn import Location
    from z4ai.dtypes import DType

    Member = tuple[int, NDArray[np.uint8], tuple[int, ...]]

__all__ = ["GROUP_NBYTES", "SMALL_NBYTES", "SmallTensors", "frames_of", "is_small"]

# Tensors of less share a frame with others, so that its header and tables are paid once; and so
# much content closes such a frame, since one of them is never read without its neighbours.
SMALL_NBYTES = 1 << 15
GROUP_NBYTES = 1 << 18
# What sharing must save: the index may grow by it.
_SHARING_NBYTES = 64


def is_small(nbytes: int, effort: str) -> bool:
    """Tell whether a tensor may share a frame; the fastest tier does without."""
    return nbytes < SMALL_NBYTES and effort != "fast"


class SmallTensors:
    """Small tensors on their way into frames.

    Parameters
    ----------
    waves : FrameWaves
        Takes the frames.
    effort : str
        The tier.
    threads : int or None
        The caller's wish.
    """

    def __init__(self, waves: FrameWaves, effort: str, threads: int | None) -> None:
        self._waves = waves
        self._effort = effort
        self._threads = threads
        self._open: dict[DType, list[Member]] = {}
        # Frame of each tensor and its offset in the content, or none yet.
        self._places: list[tuple[int, int] | None] = []

    def add(self, dtype: DType, shape: tuple[int, ...], content: NDArray[np.uint8]) -> int:
        """Add a tensor; -> its number among them. The content must not change before `flush`."""
        number = len(self._places)
        members = self._open.setdefault(dtype, [])
        members.append((number, content, shape))
        self._places.append(None)
        if sum(len(content) for _, content, _ in members) >= GROUP_NBYTES:
            self._close(dtype)
        return number

    def flush(self) -> None:
        """Add the frames of groups that are not full."""
        for dtype in list(self._open):
            self._close(dtype)

    def waiting(self, number: int) -> NDArray[np.uint8] | None:
        """Content of a tensor that is in no frame yet."""
        groups = self._open.values()
        return next((own for group in groups for k, own, _ in group if k == number), None)

    def location(self, number: int) -> Location:
        """Return where a tensor is, once its frame has been added."""
        place = self._places[number]
        assert place is not None
        frame, at = place
        return (*self._waves.frames[frame], at)

    def _close(self, dtype: DType) -> None:
        members = self._open.pop(dtype)
        tensors = [(content, shape) for _, content, shape in members]
        first = 0
        for encoded, count in frames_of(dtype, tensors, self._effort, self._threads):
            mine = members[first : first + count]
            first += count
            frame = self._waves.add_encoded(encoded, sum(len(content) for _, content, _ in mine))
            at = 0
            for k, content, _ in mine:
                self._places[k] = frame, at
                at += len(content)


def frames_of(
    dtype: DType,
    tensors: Sequence[tuple[NDArray[np.uint8], tuple[int, ...]]],
    effort: str,
    threads: int | None,
) -> list[tuple[bytes, int]]:
    """Code a group of tensors, given by content and shape; -> frames, and the tensors in each."""

    def encode(content: NDArray[np.uint8], shape: tuple[int, ...], tier: str) -> bytes:
        places = shape if prod(shape) * dtype.width == len(content) else None
        return encode_content(content, FrameHeader(dtype, len(content)), tier, places, threads)

    content = np.concatenate([own for own, _ in tensors])
    if len(tensors) > 1 and effort != "fast":
        # The same at every tier, so that a higher one is never larger.
        apart = sum(len(encode(own, shape, "balanced")) for own, shape in tensors)
        if len(encode(content, (), "balanced")) + _SHARING_NBYTES < apart:
            return [(encode(content, (), effort), len(tensors))]
    return [(encode(own, shape, effort), 1) for own, shape in tensors]
