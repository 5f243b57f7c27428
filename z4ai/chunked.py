"""The load-often path: the same frames as `z4ai.compress`, with the tier that decodes fastest.

Splitting, entropy coding and interleaving run in C, chunk by chunk in cache, on several threads,
without the GIL.
"""

from __future__ import annotations

from typing import Any

from z4ai import codec
from z4ai.options import Limits

__all__ = ["compress", "decompress"]


def compress(
    data: Any, *, dtype: Any = None, effort: str | None = "fast", threads: int | None = None
) -> bytes:
    """Compress a buffer to one frame, ``"fast"`` unless told otherwise; as `z4ai.compress`.

    Examples
    --------
    >>> import z4ai.chunked as ck
    >>> ck.decompress(ck.compress(b"weights", dtype="bf16"))
    b'weights'
    """
    return codec.compress(
        data, dtype=dtype, effort="fast" if effort is None else effort, threads=threads
    )


def decompress(
    blob: Any, *, out: Any = None, threads: int | None = None, limits: Limits | None = None
) -> bytes | memoryview:
    """Restore the content of a frame made by any function of z4ai; as `z4ai.decompress`."""
    return codec.decompress(blob, out=out, threads=threads, limits=limits)
