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
    """Compress a buffer to one frame, ``"fast"`` unless told otherwise.

    Parameters
    ----------
    data, dtype, threads
        As for `z4ai.compress`, which raises the same errors.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"fast"``.

    Returns
    -------
    bytes
        The frame, for any function of z4ai that reads frames.

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
    """Restore the content of a frame made by any function of z4ai.

    Parameters
    ----------
    blob, out, threads, limits
        As for `z4ai.decompress`, which raises the same errors.

    Returns
    -------
    bytes or memoryview
        The content; with `out`, a memoryview of the bytes of `out` that were filled.

    Examples
    --------
    >>> import z4ai
    >>> import z4ai.chunked as ck
    >>> ck.decompress(z4ai.compress(b"weights", dtype="bf16", effort="max"))
    b'weights'
    """
    return codec.decompress(blob, out=out, threads=threads, limits=limits)
