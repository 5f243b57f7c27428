"""`compress_delta` and `decompress_delta`: a buffer as what distinguishes it from another."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai._buffers import bytes_of, room_in
from z4ai._fast.chunks import BytesBuilder
from z4ai._fast.hashing import xxh3_128
from z4ai.codec import check_shape, is_big_endian
from z4ai.decoder import check_output
from z4ai.delta_frame import decode_delta, index_of_delta
from z4ai.dtypes import is_auto, resolve
from z4ai.errors import BaseMismatchError, CorruptError
from z4ai.options import Limits, resolve_effort, resolve_limits
from z4ai.plan import resolve_or_guess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["compress_delta", "decompress_delta"]


def compress_delta(
    current: Any,
    reference: Any,
    *,
    dtype: Any = None,
    effort: str | None = None,
    shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> bytes:
    """Compress a buffer against another one that it resembles.

    Each chunk is stored as what takes least: a note that it did not change, its differences in
    units of the last place, what it is exclusive-or the reference, or from scratch.

    Parameters
    ----------
    current : buffer, numpy.ndarray or torch.Tensor
        What to compress, as for `compress`; not modified.
    reference : buffer, numpy.ndarray or torch.Tensor
        What it resembles, element by element: the checkpoint before, the base of a fine-tune. If
        it is shorter, what goes beyond it is stored from scratch; if it is longer, the rest is
        not used. Not modified.
    dtype : str, numpy.dtype, torch.dtype or None
        Type of the elements of both, as for `compress`. None is the dtype of `current` where it
        is an array or a tensor, else opaque bytes.
    effort : {"fast", "balanced", "default", "max"}, optional
        How much to try. None is ``"balanced"``.
    shape : sequence of int, optional
        Shape of the tensor whose elements these are, in C order: the rows of a tensor change by
        different amounts, which makes the frame smaller. It is a hint, and not recorded. Default:
        the shape of `current` where its own dtype is used.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.

    Returns
    -------
    bytes
        A delta frame, which `decompress_delta` reads beside the same reference. The same input,
        options and release give the same bytes on every machine and with any number of threads.

    Raises
    ------
    TypeError
        If an input offers no buffer or holds Python objects.
    ValueError
        If `dtype`, `effort` or `threads` is not known, or `shape` does not fit the data.

    Examples
    --------
    >>> import numpy as np, z4ai
    >>> before = np.linspace(-1, 1, 4096, dtype=np.float32)
    >>> after = before + np.float32(1e-4)
    >>> blob = z4ai.compress_delta(after, before)
    >>> len(blob) < len(z4ai.compress_array(after))
    True
    >>> z4ai.decompress_delta(blob, before) == after.tobytes()
    True
    """
    from z4ai.delta_encoder import encode_delta  # noqa: PLC0415 - what writes is slow to import

    tier = resolve_effort(effort)
    content = bytes_of(current)
    known = bytes_of(reference)
    if dtype is None:
        dtype = _dtype_of(current, len(content))
        if shape is None and dtype is not None:
            shape = tuple(current.shape)
    if shape is not None and is_auto(dtype):
        msg = "a shape needs a dtype, got dtype='auto'"
        raise ValueError(msg)
    resolved = resolve_or_guess(dtype, content, tier)
    places = None if shape is None else check_shape(shape, len(content), resolved)
    return encode_delta(
        content,
        known,
        resolved,
        tier,
        places,
        threads,
        digest=xxh3_128(known),
        big_endian=resolved.width > 1 and is_big_endian(dtype),
    )


def _dtype_of(current: Any, nbytes: int) -> Any:
    """Dtype of an array or a tensor, or None where it is no kind of weight: then opaque bytes."""
    dtype, shape = getattr(current, "dtype", None), getattr(current, "shape", None)
    if dtype is None or shape is None:
        return None
    try:
        found = resolve(dtype)
    except ValueError:
        return None
    return dtype if found.item_nbytes * prod(shape) == nbytes else None


def decompress_delta(
    blob: Any,
    reference: Any,
    *,
    out: Any = None,
    threads: int | None = None,
    limits: Limits | None = None,
) -> bytes | memoryview:
    """Restore a buffer from its delta frame and the reference that it was made against.

    Parameters
    ----------
    blob : buffer
        One whole frame, made by `compress_delta`.
    reference : buffer or numpy.ndarray
        The very bytes that `compress_delta` had; its digest is compared before anything else.
    out : buffer, optional
        Writable and contiguous; the content is decoded straight into its first bytes. It must not
        overlap the reference.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    limits : Limits, optional
        What may be allocated because the frame says so.

    Returns
    -------
    bytes or memoryview
        The content; with `out`, a memoryview of the bytes of `out` that were filled.

    Raises
    ------
    BaseMismatchError
        If the reference is not the one of the frame; nothing is written then.
    FormatError
        If the frame is truncated, corrupt, or of another version; `out` may then be partly
        overwritten.
    LimitError
        If the content is larger than `limits` allow.
    ValueError
        If `out` is too small, read-only or overlaps the reference; nothing is written then.

    Examples
    --------
    >>> import z4ai
    >>> blob = z4ai.compress_delta(b"some weights", b"some height")
    >>> z4ai.decompress_delta(blob, b"some height")
    b'some weights'
    """
    buf = bytes_of(blob).data
    known = bytes_of(reference)
    limits = resolve_limits(limits)
    index = index_of_delta(buf, limits)
    recorded = index.header.reference
    if recorded is None:
        msg = "delta frame does not tell of its reference: it belongs to a model delta"
        raise CorruptError(msg)
    _check_reference(known, recorded.nbytes, recorded.digest)
    nbytes = index.content_nbytes
    if out is not None:
        target = room_in(out, nbytes, "the content")
        if np.may_share_memory(target, known):
            msg = "out overlaps the reference"
            raise ValueError(msg)
        decode_delta(buf, index, known, target, threads)
        return memoryview(target)
    check_output(nbytes, limits)
    builder = BytesBuilder(nbytes)
    with memoryview(builder) as view:
        decode_delta(buf, index, known, np.frombuffer(view, np.uint8), threads)
    return builder.finish(nbytes)


def _check_reference(reference: NDArray[np.uint8], nbytes: int, digest: int) -> None:
    if len(reference) != nbytes:
        msg = f"reference has {len(reference)} bytes, the delta was made against one of {nbytes}"
        raise BaseMismatchError(msg)
    found = xxh3_128(reference)
    if found != digest:
        msg = (
            f"reference has digest {found:032x}, the delta was made against one of "
            f"{digest:032x} (XXH3-128)"
        )
        raise BaseMismatchError(msg)
