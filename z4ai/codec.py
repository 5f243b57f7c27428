"""`compress` and `decompress` over buffers."""

from __future__ import annotations

from math import prod
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai import frame
from z4ai._buffers import bytes_of, room_in
from z4ai._fast.chunks import BytesBuilder
from z4ai._wire import FORMAT_VERSION, MAGIC_FRAME
from z4ai.decoder import check_output, decode_frame, index_of_buffer
from z4ai.dtypes import OPAQUE, is_auto, resolve
from z4ai.options import Limits, resolve_effort, resolve_limits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.dtypes import DType

__all__ = ["compress", "compress_bound", "decompress", "peek_is_z4ai"]

# A frame of one chunk and a small shape costs this much at most.
_MAX_OVERHEAD = 64


def compress(
    data: Any,
    *,
    dtype: Any = None,
    effort: str | None = None,
    shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> bytes:
    """Compress a buffer to one frame.

    Parameters
    ----------
    data : buffer, numpy.ndarray or torch.Tensor
        bytes, bytearray, memoryview of any format, mmap, array of any dtype but object, or dense
        tensor; not modified. What is not contiguous is copied first.
    dtype : str, numpy.dtype, torch.dtype or None
        Type of the elements, so that their planes can be split: ``"bf16"``, ``"fp32"``, … None
        (the default) is opaque bytes, which are never taken for something else. The length need
        not be a multiple of the width. ``"auto"`` guesses by a sample whether the bytes are
        elements of some width, and knows the blocks of GGUF files; a wrong guess costs size
        alone, and `info` tells what it was.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"balanced"``.
    shape : sequence of int, optional
        Shape of the tensor whose elements these are, in C order: rows and columns of weights
        differ in scale, which makes the frame smaller. It is a hint, and not recorded.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.

    Returns
    -------
    bytes
        The frame. The same input, options and release give the same bytes on every machine and
        with any number of threads.

    Raises
    ------
    TypeError
        If `data` offers no buffer or holds Python objects.
    ValueError
        If `dtype`, `effort` or `threads` is not known, or `shape` does not fit the data, or
        comes with ``dtype="auto"``.

    Examples
    --------
    >>> import numpy as np, z4ai
    >>> w = np.linspace(-1, 1, 4096, dtype=np.float32)
    >>> blob = z4ai.compress(w, dtype="fp32")
    >>> z4ai.decompress(blob) == w.tobytes()
    True
    """
    from z4ai.encoder import encode_content  # noqa: PLC0415 - what only loads does without
    from z4ai.plan import find_blocks, resolve_or_guess  # noqa: PLC0415 - as above

    tier = resolve_effort(effort)
    if shape is not None and is_auto(dtype):
        msg = "a shape needs a dtype, got dtype='auto'"
        raise ValueError(msg)
    content = bytes_of(data)
    blocks = find_blocks(dtype, content, tier)
    resolved = OPAQUE if blocks is not None else resolve_or_guess(dtype, content, tier)
    header = frame.FrameHeader(
        dtype=resolved,
        content_nbytes=len(content),
        big_endian=resolved.width > 1 and is_big_endian(dtype),
    )
    places = None if shape is None else check_shape(shape, len(content), resolved)
    return encode_content(content, header, tier, places, threads, blocks)


def check_extents(shape: Sequence[int] | None, dtype: DType) -> tuple[int, ...] | None:
    """Check a shape; -> it in elements, of which a complex number has two."""
    if shape is None:
        return None
    extents = tuple(as_int(extent) for extent in shape)
    if min(extents, default=0) < 0:
        msg = f"shape is {extents}, expected no negative extent"
        raise ValueError(msg)
    return element_shape(extents, dtype)


def check_shape(shape: Sequence[int], nbytes: int, dtype: DType) -> tuple[int, ...] | None:
    """Check a shape against the content; -> it in elements."""
    places = check_extents(shape, dtype)
    if places is None or prod(places) * dtype.width != nbytes:
        msg = f"shape {tuple(shape)} of {dtype.name} does not make {nbytes} bytes"
        raise ValueError(msg)
    return places


def element_shape(shape: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    """Shape in elements as the transforms see them: a complex number is two."""
    pairs = dtype.item_nbytes // dtype.width if dtype.item_nbytes else 1
    return (*shape, pairs) if pairs > 1 else shape


def is_big_endian(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and np.dtype(dtype).newbyteorder("<") != dtype


def compress_bound(nbytes: int, dtype: Any = None) -> int:
    """Return the largest size of a frame of `nbytes` bytes of content.

    Parameters
    ----------
    nbytes : int
        Bytes of content.
    dtype : str, numpy.dtype, torch.dtype or None
        As for `compress`; the bound is the same for all.

    Returns
    -------
    int
        Bytes that `compress` never exceeds, at any tier.

    Examples
    --------
    >>> import z4ai
    >>> len(z4ai.compress(b"x", dtype="bf16")) <= z4ai.compress_bound(1, "bf16")
    True
    """
    if not is_auto(dtype):
        resolve(dtype)
    nbytes = as_int(nbytes)
    if nbytes < 0:
        msg = f"nbytes is {nbytes}, expected 0 or more"
        raise ValueError(msg)
    chunks = -(-nbytes // frame.MAX_CHUNK_NBYTES)
    per_chunk = frame.MIN_CHUNK_NBYTES - 1 + 4
    return nbytes + _MAX_OVERHEAD + chunks * per_chunk + frame.trailer_nbytes(0)


def decompress(
    blob: Any,
    *,
    out: Any = None,
    threads: int | None = None,
    limits: Limits | None = None,
) -> bytes | memoryview:
    """Restore the content of a frame.

    Parameters
    ----------
    blob : buffer
        One whole frame, of any tier, from any function of z4ai that makes frames.
    out : buffer, optional
        Writable and contiguous; the content is decoded straight into its first bytes.
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
    FormatError
        If the frame is truncated, corrupt, or of another version; `out` may then be partly
        overwritten.
    LimitError
        If the content is larger than `limits` allow.
    ValueError
        If `out` is too small or read-only; nothing is written then.

    Examples
    --------
    >>> import z4ai
    >>> blob = z4ai.compress(b"some weights", dtype="bf16")
    >>> z4ai.decompress(blob)
    b'some weights'
    >>> out = bytearray(12)
    >>> bytes(z4ai.decompress(blob, out=out))
    b'some weights'
    """
    buf = bytes_of(blob).data
    limits = resolve_limits(limits)
    index = index_of_buffer(buf, limits)
    nbytes = index.restored_nbytes
    if out is not None:
        target = room_in(out, nbytes, "the content")
        decode_frame(buf, index, target, threads)
        return memoryview(target)
    check_output(nbytes, limits)
    builder = BytesBuilder(nbytes)
    with memoryview(builder) as view:
        decode_frame(buf, index, np.frombuffer(view, np.uint8), threads)
    return builder.finish(nbytes)


def peek_is_z4ai(blob: Any) -> bool:
    """Tell whether `blob` begins like a frame that `decompress` reads.

    Looks at the first five bytes only: magic and format version.

    Parameters
    ----------
    blob : buffer
        Anything that has bytes.

    Returns
    -------
    bool
        Whether it does; what follows may still be damaged.

    Examples
    --------
    >>> import z4ai
    >>> z4ai.peek_is_z4ai(z4ai.compress(b"")), z4ai.peek_is_z4ai(b"PK")
    (True, False)
    """
    head = bytes(bytes_of(blob)[:5])
    return head == MAGIC_FRAME + bytes([FORMAT_VERSION])
