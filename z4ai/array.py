"""`compress_array` and `decompress_array`: values, dtype, shape, byte order and memory order."""

from __future__ import annotations

from typing import Any

import numpy as np

from z4ai import frame
from z4ai._buffers import array_of, bytes_of
from z4ai._fast.chunks import fresh_array
from z4ai.codec import element_shape
from z4ai.decoder import check_output, decode_frame, index_of_buffer
from z4ai.dtypes import DType, numpy_dtype, resolve
from z4ai.encoder import encode_content
from z4ai.errors import FormatError
from z4ai.options import Limits, resolve_effort, resolve_limits

__all__ = ["compress_array", "decompress_array"]


def compress_array(array: Any, *, effort: str | None = None, threads: int | None = None) -> bytes:
    """Compress an array with its dtype and shape to one frame.

    Parameters
    ----------
    array : array_like or torch.Tensor
        Any shape, strides and byte order; bool, integers, floats, complex numbers and the types
        of ml_dtypes. Not modified. A Fortran-ordered array stays one; a tensor comes back as an
        array.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"balanced"``.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.

    Returns
    -------
    bytes
        The frame; `decompress` restores its bytes, `decompress_array` the array.

    Raises
    ------
    TypeError
        If the dtype is object, structured, a string, a time, or otherwise no kind of weight; if
        the array is masked.

    Examples
    --------
    >>> import numpy as np, z4ai
    >>> w = np.arange(6, dtype=np.float16).reshape(2, 3)
    >>> back = z4ai.decompress_array(z4ai.compress_array(w))
    >>> np.array_equal(w, back) and back.dtype == w.dtype
    True
    """
    values = array_of(array)
    dtype = _dtype_of(values)
    fortran = values.flags.f_contiguous and not values.flags.c_contiguous
    content = bytes_of(values.T if fortran else values)
    header = frame.FrameHeader(
        dtype=dtype,
        content_nbytes=len(content),
        shape=values.shape,
        fortran=fortran,
        big_endian=dtype.width > 1 and values.dtype.newbyteorder("<") != values.dtype,
    )
    order = values.shape[::-1] if fortran else values.shape
    tier = resolve_effort(effort)
    return encode_content(content, header, tier, element_shape(order, dtype), threads)


def _dtype_of(values: np.ndarray[Any, Any]) -> DType:
    found = None
    if not values.dtype.hasobject and values.dtype.names is None:
        try:
            found = resolve(values.dtype)
        except ValueError:
            found = None
    if found is None or found.item_nbytes != values.dtype.itemsize:
        msg = (
            f"cannot compress an array of dtype {values.dtype}: expected bool, integers, floats, "
            "complex numbers or a type of ml_dtypes (other bytes: z4ai.compress)"
        )
        raise TypeError(msg)
    return found


def decompress_array(
    blob: Any, *, threads: int | None = None, limits: Limits | None = None
) -> np.ndarray[Any, Any]:
    """Restore an array from its frame.

    Parameters
    ----------
    blob : buffer
        A frame made by `compress_array`.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    limits : Limits, optional
        What may be allocated because the frame says so.

    Returns
    -------
    ndarray
        New and writable, equal to what was compressed in every bit, in dtype with byte order,
        shape, and C or Fortran order.

    Raises
    ------
    FormatError
        If the frame is damaged, or holds no array.
    LimitError
        If the array is larger than `limits` allow.

    Examples
    --------
    >>> import numpy as np, z4ai
    >>> blob = z4ai.compress_array(np.ones((2, 3), ">f4", order="F"))
    >>> back = z4ai.decompress_array(blob)
    >>> back.shape, back.dtype.str, back.flags.f_contiguous
    ((2, 3), '>f4', True)
    """
    buf = bytes_of(blob).data
    limits = resolve_limits(limits)
    index = index_of_buffer(buf, limits)
    header = index.header
    if header.shape is None:
        msg = "frame holds a buffer without shape, expected an array: use z4ai.decompress"
        raise FormatError(msg, offset=5)
    check_output(index.restored_nbytes, limits)
    content = fresh_array(index.restored_nbytes)
    decode_frame(buf, index, content, threads)
    flat = content.view(numpy_dtype(header.dtype, big_endian=header.big_endian))
    try:
        if header.fortran:
            return flat.reshape(header.shape[::-1]).T
        return flat.reshape(header.shape)
    except ValueError as error:
        msg = f"shape {header.shape} is more than NumPy can hold: {error}"
        raise FormatError(msg, offset=24) from error
