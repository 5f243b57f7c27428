"""What a frame is coded as: chunk size, transform, model; from dtype, effort and content."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from z4ai.codecs import zstd
from z4ai.dtypes import BYTES1, BYTES2, OPAQUE, is_auto, resolve
from z4ai.parts import MAX_DEPTH, find_stages

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from z4ai.dtypes import DType
    from z4ai.model import Model
    from z4ai.stages.blocks import Layout

__all__ = ["PART_CHUNK_NBYTES", "STORE_PLAN", "Plan", "adapt_plan", "make_plan"]

# One chunk of planes, its output and its scratch fit a second-level cache; see docs/performance.md.
CHUNK_NBYTES = 1 << 20
# Opaque bytes go through a match finder, which wants more to look back on.
OPAQUE_CHUNK_NBYTES = 4 << 20
# And more still where it is told to look further than its window.
LONG_CHUNK_NBYTES = 16 << 20
# Parts are frames with headers of their own: fewer of them are smaller.
PART_CHUNK_NBYTES = 4 << 20
LARGE_PART_CHUNK_NBYTES = 16 << 20
# Each field of blocks is a small part of a chunk.
BLOCKS_CHUNK_NBYTES = 8 << 20
# Vocabularies take some MiB of a header: one that does not end here is none.
BLOCKS_HEAD_NBYTES = 32 << 20
_MAGIC_BLOCKS = b"GGUF"

_FP16 = resolve("fp16")
# Every level of a tier is tried and the smallest result kept, so no tier is larger than the one
# below it.
_MATCH_LEVELS = {"fast": (3,), "balanced": (3, 9), "max": (3, 9, 19)}
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
        Levels of the Zstandard library to try, none to store; None for our own kernels.
    effort : str
        The tier.
    model : Model or None
        For chunks of symbols.
    transform : int
        What the chunks are tried as first: symbols, or `layout`.
    long : bool
        Large chunks for the library are searched for distant matches.
    stages : tuple of int
        Transforms to parts that are tried as well.
    row : int
        Elements of a row of the tensor, for the stages; 0 if that is not known.
    depth : int
        0 for a frame of its own, 1 for a part of a chunk, 2 for a part of a chunk of a part.
    blocks : Layout or None
        What opaque content is made of, where that is known.
    """

    chunk_nbytes: int
    layout: int
    other_layout: int
    zstd_levels: tuple[int, ...] | None
    effort: str
    model: Model | None
    transform: int
    long: bool = False
    stages: tuple[int, ...] = ()
    row: int = 0
    depth: int = 0
    blocks: Layout | None = None

    @property
    def match_levels(self) -> tuple[int, ...]:
        """Levels of the Zstandard library for elements that come again."""
        return _MATCH_LEVELS[self.effort]

    def without_model(self) -> Plan:
        """Return the same plan for planes."""
        return self._replace(model=None, transform=self.layout)


# For content of which nothing can be gained: as few chunk headers as the format allows.
STORE_PLAN = Plan(1 << 26, BYTES1, BYTES1, (), "fast", None, BYTES1)


def resolve_or_guess(dtype: Any, content: NDArray[np.uint8], effort: str) -> DType:
    """Find the element type that the caller means, by a look at the content if he says so."""
    if is_auto(dtype):
        from z4ai.probe import guess_dtype  # noqa: PLC0415 - rarely needed

        return guess_dtype(content, stages=effort != "fast")
    return resolve(dtype)


def may_have_blocks(dtype: Any, head: NDArray[np.uint8], effort: str) -> bool:
    """Tell whether it pays to look for blocks: the caller leaves the type of a file open.

    head : its first four bytes at least. The fastest tier does without.
    """
    return effort != "fast" and is_auto(dtype) and bytes(head[:4]) == _MAGIC_BLOCKS


def find_blocks(dtype: Any, head: NDArray[np.uint8], effort: str) -> Layout | None:
    """Find what blocks a content is made of, by its header; None if it tells of none.

    Parameters
    ----------
    dtype : object
        What the caller says it is.
    head : ndarray of uint8
        What it begins with: all, or at least `BLOCKS_HEAD_NBYTES`.
    effort : str
        The tier.
    """
    if not may_have_blocks(dtype, head, effort):
        return None
    from z4ai.gguf import find_layout  # noqa: PLC0415 - rarely needed

    return find_layout(head[:BLOCKS_HEAD_NBYTES].data)


def make_plan(dtype: DType, effort: str, blocks: Layout | None = None) -> Plan:
    """Choose how to code content of `dtype` at a tier, as far as that does not depend on it.

    blocks : what opaque content is made of, if that is known.
    """
    if dtype is OPAQUE and blocks is not None:
        levels = _ZSTD_LEVELS[effort]
        return Plan(
            BLOCKS_CHUNK_NBYTES, BYTES1, BYTES1, levels, effort, None, BYTES1, blocks=blocks
        )
    if dtype is OPAQUE:
        levels = _ZSTD_LEVELS[effort]
        long = effort != "fast"
        chunk_nbytes = LONG_CHUNK_NBYTES if long else OPAQUE_CHUNK_NBYTES
        return Plan(chunk_nbytes, BYTES1, BYTES1, levels, effort, None, BYTES1, long)
    # A skewed sign of fp16 is worth a place beside the exponent: then its plain bytes are the
    # better planes.
    other = BYTES2 if dtype is _FP16 else dtype.layout
    return Plan(CHUNK_NBYTES, dtype.layout, other, None, effort, None, dtype.layout)


def _reach(plan: Plan, content: NDArray[np.uint8]) -> Plan:
    """Choose between large chunks that are searched for distant matches and smaller ones."""
    some = content[:LONG_CHUNK_NBYTES]
    # Level 19 looks far by itself.
    if not plan.long or plan.effort == "max" or len(some) <= OPAQUE_CHUNK_NBYTES // 2:
        return plan
    near = 0
    for begin in range(0, len(some), OPAQUE_CHUNK_NBYTES):
        near += len(zstd.encode(some[begin : begin + OPAQUE_CHUNK_NBYTES].data, 3))
    if len(zstd.encode(some.data, 3, long=True)) < near:
        return plan
    return plan._replace(long=False, chunk_nbytes=OPAQUE_CHUNK_NBYTES)


def adapt_plan(
    plan: Plan,
    content: NDArray[np.uint8],
    dtype: DType,
    shape: tuple[int, ...] | None,
    *,
    nbytes: int | None = None,
    big_endian: bool = False,
    in_memory: bool = False,
) -> Plan:
    """Choose what depends on the content.

    Parameters
    ----------
    plan : Plan
        From `make_plan`.
    content : ndarray of uint8
        The content, or a sample of whole rows of it.
    dtype : DType
        Its elements.
    shape : tuple of int or None
        The places of those elements, the last index running fastest.
    nbytes : int, optional
        Bytes of all the content, where `content` is a sample.
    big_endian : bool
        The elements are big-endian.
    in_memory : bool
        The content is held as a whole, so that chunks of parts may be large.
    """
    if plan.effort == "fast" or plan.blocks is not None:
        return plan
    if plan.zstd_levels is not None:
        return _reach(plan, content)
    if plan.depth < MAX_DEPTH and not big_endian:
        row = prod(shape[1:]) if shape is not None and len(shape) > 1 else 0
        stages, sure = find_stages(content, dtype, row)
        if stages:
            chunk_nbytes = PART_CHUNK_NBYTES
            while in_memory and 2 * chunk_nbytes <= min(len(content) // 2, LARGE_PART_CHUNK_NBYTES):
                chunk_nbytes *= 2
            plan = plan._replace(stages=stages, row=row, chunk_nbytes=chunk_nbytes)
        if sure:
            return plan
    from z4ai.model_choice import choose_model  # noqa: PLC0415 - not for the fastest tier

    n = (len(content) if nbytes is None else nbytes) // dtype.width
    model = choose_model(
        content, dtype, shape, n, big_endian=big_endian, thorough=plan.effort == "max"
    )
    if model is None:
        return plan
    return plan._replace(model=model, transform=dtype.symbols)
