"""What a frame's content will be coded as: chunk size and coder, from dtype and effort."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from z4ai.dtypes import BYTES1, BYTES2, OPAQUE, resolve

if TYPE_CHECKING:
    from z4ai.dtypes import DType

__all__ = ["Plan", "make_plan"]

# One chunk of planes, its output and its scratch fit a second-level cache; see docs/performance.md.
CHUNK_NBYTES = 1 << 20
# Opaque bytes go through a match finder, which wants more to look back on.
OPAQUE_CHUNK_NBYTES = 4 << 20

_FP16 = resolve("fp16")
# Every level of a tier is tried and the smallest result kept, so no tier is larger than the one
# below it.
_ZSTD_LEVELS = {"fast": (3,), "balanced": (3,), "max": (3, 19)}


class Plan(NamedTuple):
    """How to code the content of one frame.

    Attributes
    ----------
    chunk_nbytes : int
        Content bytes of a chunk.
    layout : int
        Planes to split into.
    other_layout : int
        Planes to split a chunk into where that promises less; `layout` if there is no choice.
    zstd_levels : tuple of int or None
        Levels of the Zstandard library to try, none to store; None for planes by our own kernels.
    """

    chunk_nbytes: int
    layout: int
    other_layout: int
    zstd_levels: tuple[int, ...] | None


# For content of which nothing can be gained: as few chunk headers as the format allows.
STORE_PLAN = Plan(1 << 26, BYTES1, BYTES1, ())


def make_plan(dtype: DType, effort: str) -> Plan:
    """Choose how to code content of `dtype` at a tier."""
    if dtype is OPAQUE:
        return Plan(OPAQUE_CHUNK_NBYTES, BYTES1, BYTES1, _ZSTD_LEVELS[effort])
    # A skewed sign of fp16 is worth a place beside the exponent: then its plain bytes are the
    # better planes.
    other = BYTES2 if dtype is _FP16 else dtype.layout
    return Plan(CHUNK_NBYTES, dtype.layout, other, None)
