"""Tensors too small for a frame of their own: they share frames and delta frames by dtype."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai.container.small import GROUP_NBYTES, frames_of
from z4ai.delta_encoder import encode_delta
from z4ai.deltas.choose import is_clearly_smaller, looks_related

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from z4ai.container.encode import FrameWaves
    from z4ai.dtypes import DType

__all__ = ["SmallTensors"]


class _Member(NamedTuple):
    """A tensor: its number, shape, content, what it differs from, and its record, in bytes."""

    number: int
    shape: tuple[int, ...]
    content: NDArray[np.uint8]
    reference: NDArray[np.uint8] | None
    record_nbytes: int


# A frame: its bytes, whose content is in it, and whether it is a delta frame.
_Frame = tuple[bytes, list[_Member], bool]


class SmallTensors:
    """Small tensors on their way into frames, as few as pay.

    Parameters
    ----------
    waves : FrameWaves
        Takes the frames.
    effort : str
        The tier.
    threads : int or None
        The caller's wish.
    place : callable
        ``place(number, frame, offset, delta)`` is told where each tensor went.
    """

    def __init__(
        self,
        waves: FrameWaves,
        effort: str,
        threads: int | None,
        place: Callable[[int, int, int, bool], None],
    ) -> None:
        self._waves = waves
        self._effort = effort
        self._threads = threads
        self._place = place
        self._open: dict[DType, list[_Member]] = {}
        self._nbytes: dict[DType, int] = {}

    def add(
        self,
        number: int,
        dtype: DType,
        shape: tuple[int, ...],
        content: NDArray[np.uint8],
        reference: NDArray[np.uint8] | None,
        record_nbytes: int,
    ) -> None:
        """Add a tensor and its reference, and what its record takes if it is a delta."""
        if reference is not None and not looks_related(content, reference, dtype):
            reference = None
        members = self._open.setdefault(dtype, [])
        members.append(_Member(number, shape, content, reference, record_nbytes))
        self._nbytes[dtype] = self._nbytes.get(dtype, 0) + len(content)
        if self._nbytes[dtype] >= GROUP_NBYTES:
            self._close(dtype)

    def flush(self) -> None:
        """Write the groups that are not full."""
        for dtype in list(self._open):
            self._close(dtype)

    def _close(self, dtype: DType) -> None:
        del self._nbytes[dtype]
        for encoded, members, delta in self._smallest(dtype, self._open.pop(dtype)):
            frame = self._waves.add_encoded(encoded, sum(len(m.content) for m in members))
            at = 0
            for member in members:
                self._place(member.number, frame, at, delta)
                at += len(member.content)

    def _smallest(self, dtype: DType, members: list[_Member]) -> list[_Frame]:
        known = [member for member in members if member.reference is not None]
        if not known:
            return self._scratch(dtype, members)
        content = np.concatenate([member.content for member in known])
        reference = np.concatenate([m.reference for m in known if m.reference is not None])
        shape = known[0].shape if len(known) == 1 else None
        delta = encode_delta(
            content, reference, dtype, self._effort, _places(shape, dtype, content), self._threads
        )
        records = sum(member.record_nbytes for member in known)
        frames: list[_Frame] = [(delta, known, True)]
        if (
            len(known) == len(members)
            and self._effort != "max"
            and is_clearly_smaller(len(delta) + records, content, dtype, None)
        ):
            return frames
        rest = [member for member in members if member.reference is None]
        frames += self._scratch(dtype, rest) if rest else []
        alone = self._scratch(dtype, members)
        return frames if _nbytes(frames) + records < _nbytes(alone) else alone

    def _scratch(self, dtype: DType, members: list[_Member]) -> list[_Frame]:
        """Code tensors as a container does, together or apart."""
        tensors = [(member.content, member.shape) for member in members]
        frames: list[_Frame] = []
        first = 0
        for encoded, count in frames_of(dtype, tensors, self._effort, self._threads):
            frames.append((encoded, members[first : first + count], False))
            first += count
        return frames


def _nbytes(frames: list[_Frame]) -> int:
    return sum(len(encoded) for encoded, _, _ in frames)


def _places(
    shape: tuple[int, ...] | None, dtype: DType, content: NDArray[np.uint8]
) -> tuple[int, ...] | None:
    """Shape of a content, where it is one of its elements."""
    return shape if shape is not None and prod(shape) * dtype.width == len(content) else None
