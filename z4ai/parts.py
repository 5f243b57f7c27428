"""Chunks that are made of parts: which stage makes the smallest, and how the content comes back.

Specification: docs/format/codecs/structure.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np

from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.stages import blocks, grid, palette, steps, zeros
    from z4ai.stages._part import Part, Splitter, Stage

    # What `import_module` gives, checked beforehand.
    _SPLITTERS: tuple[Splitter, ...] = (zeros, palette, grid, steps)
    _ALL: tuple[Stage, ...] = (*_SPLITTERS, blocks)

__all__ = [
    "BLOCKS",
    "MATCHES",
    "MAX_DEPTH",
    "STAGES",
    "ZEROS",
    "SplitChunk",
    "find_stages",
    "join_chunk",
    "split_chunk",
]

# By transform; imported when they are needed.
ZEROS = 16
# Not tried, but known: of content whose blocks somebody has told.
BLOCKS = 20
STAGES = {ZEROS: "zeros", 17: "palette", 18: "grid", 19: "steps", BLOCKS: "blocks"}
# Beside them: elements that come again, for the match finder of the Zstandard library.
MATCHES = 0
# Parts may have parts, which have none.
MAX_DEPTH = 2
# The order in which they are asked. One that gives all elements a code makes the others needless:
# zeros are a code like any other.
_ORDER = (18, 17, 16, 19)
_CODES = (18, 17)
# Elements of so many bytes do not come again by chance; how many of them are looked at.
_MATCHED_WIDTH = 4
_MATCHED = 1 << 13
# A stage looks at so much content when a frame begins.
_GLANCE_NBYTES = 1 << 20


class SplitChunk(NamedTuple):
    """A chunk as parts.

    Attributes
    ----------
    transform : int
        Of the stage.
    params : bytes
        Of the chunk.
    streams : list of bytes
        The encoded parts.
    """

    transform: int
    params: bytes
    streams: list[bytes]


def _stage(transform: int) -> Stage:
    return cast("Stage", import_module(f"z4ai.stages.{STAGES[transform]}"))


def _splitter(transform: int) -> Splitter:
    return cast("Splitter", _stage(transform))


def find_stages(content: NDArray[np.uint8], dtype: DType, row: int) -> tuple[tuple[int, ...], bool]:
    """Find the stages that a content has a structure for, by two pieces of it.

    Returns
    -------
    stages, sure : tuple of int, bool
        Transforms; and whether one of them fits both pieces, so that nothing else will be needed.
    """
    width = dtype.width
    size = min(len(content), _GLANCE_NBYTES) // width * width
    if size == 0:
        return (), False
    middle = (len(content) - size) // 2 // width * width
    sure = False
    found = [MATCHES] if _has_matches(content[middle : middle + size], width) else []
    for transform in _ORDER:
        stage = _splitter(transform)
        pieces = [(begin, content[begin : begin + size]) for begin in sorted({0, middle})]
        fits = [stage.split(piece, dtype, row, at // width) is not None for at, piece in pieces]
        if any(fits):
            found.append(transform)
            sure = sure or all(fits)
            if sure and transform in _CODES:
                # Of two values one is as good as zero, and a bitmap is the shortest of codes.
                few = len(np.unique(pieces[0][1][: _MATCHED * width].view(f"<u{width}"))) == 2
                found += [ZEROS] if few else []
                break
    return tuple(found), sure


def _has_matches(content: NDArray[np.uint8], width: int) -> bool:
    """Tell whether wide elements come again within some thousands, as those of noise do not."""
    if width < _MATCHED_WIDTH:
        return False
    words = content[: _MATCHED * width].view(f"<u{width}")
    if len(words) < _MATCHED // 4:
        return False
    words = np.sort(words)
    again = int(np.count_nonzero(words[1:] == words[:-1]))
    return 8 * again > len(words)


def split_chunk(
    stages: Sequence[int],
    content: NDArray[np.uint8],
    dtype: DType,
    row: int,
    first: int,
    encode: Callable[[Part, int], bytes],
) -> SplitChunk | None:
    """Take a chunk apart by the stage that makes it the smallest.

    Parameters
    ----------
    stages : sequence of int
        Transforms to try.
    content : ndarray of uint8
        Whole little-endian elements.
    dtype, row, first
        As the stages take them.
    encode : callable
        Makes a frame of a part of the chunk of that transform.
    """
    best = None
    least = len(content)
    for transform in stages:
        if transform == MATCHES:
            continue
        split = _splitter(transform).split(content, dtype, row, first)
        if split is None:
            continue
        streams = [encode(part, transform) for part in split.parts]
        nbytes = len(split.params) + sum(map(len, streams))
        if nbytes < least:
            best, least = SplitChunk(transform, split.params, streams), nbytes
    return best


def join_chunk(
    transform: int,
    params: memoryview,
    streams: Sequence[memoryview],
    decode: Callable[[memoryview, int], NDArray[np.uint8]],
    dtype: DType,
    out: NDArray[np.uint8],
) -> None:
    """Restore the whole little-endian elements of a chunk from its parts.

    Parameters
    ----------
    transform : int
        Of the chunk.
    params : memoryview
        Its parameters.
    streams : sequence of memoryview
        Its streams.
    decode : callable
        ``decode(stream, nbytes)`` restores a part that must have so many bytes.
    dtype : DType
        Of the frame.
    out : ndarray of uint8
        Where the elements go.
    """
    stage = _stage(transform)
    expected = stage.n_parts(params)
    if len(streams) != expected:
        msg = f"transform {transform} with {len(streams)} streams, expected {expected}"
        raise CorruptError(msg)
    stage.join(params, lambda k, nbytes: decode(streams[k], nbytes), dtype, len(out), out)
