"""Callers' buffers as flat arrays of bytes, without a copy wherever that is possible."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.dtypes import numpy_dtype, resolve

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["array_of", "bytes_of", "room_in", "writable_bytes_of"]


def array_of(array: Any) -> NDArray[Any]:
    """View what is array-like, or a tensor of torch, as a plain array.

    Raises
    ------
    TypeError
        If it is a masked array: the mask would be lost. If it is a tensor without elements in
        memory, or of a dtype that has no NumPy form.
    """
    if _is_tensor(array):
        return _array_of_tensor(array)
    ma = sys.modules.get("numpy.ma")  # slow to import; there is no masked array without it
    if ma is not None and isinstance(array, ma.MaskedArray):
        msg = "a masked array would lose its mask: compress its data and its mask apart"
        raise TypeError(msg)
    return np.asarray(array)


def bytes_of(data: Any) -> NDArray[np.uint8]:
    """View the bytes of a buffer, or copy them if it is not contiguous.

    Parameters
    ----------
    data : buffer, numpy.ndarray or torch.Tensor
        bytes, bytearray, memoryview of any format, mmap, array of any dtype but object, dense
        tensor on any device that has data.

    Returns
    -------
    ndarray of uint8, shape (nbytes,)
        In C order, as ``data.tobytes()`` has them. Never written to.

    Raises
    ------
    TypeError
        If `data` offers no buffer, or holds Python objects.
    """
    if isinstance(data, np.ndarray):
        return _bytes_of_array(data)
    try:
        view = memoryview(data)
    except TypeError as error:
        if hasattr(data, "__array_interface__"):
            return _bytes_of_array(np.asarray(data))
        if _is_tensor(data):
            return _bytes_of_tensor(data)
        msg = f"expected a bytes-like object or an array, got {type(data).__name__}"
        raise TypeError(msg) from error
    with view:
        if _holds_objects(view):
            msg = "a buffer of Python objects cannot be compressed"
            raise TypeError(msg)
        if view.nbytes == 0:
            return np.empty(0, np.uint8)
        if view.c_contiguous:
            # Not memoryview.cast: that knows native formats only.
            return np.frombuffer(data, np.uint8)
        return np.frombuffer(view.tobytes(), np.uint8)


def _holds_objects(view: memoryview) -> bool:
    # The names of fields stand between colons.
    return "O" in re.sub(":[^:]*:", "", view.format)


def _bytes_of_array(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype.hasobject:
        msg = "an array of Python objects cannot be compressed"
        raise TypeError(msg)
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


# --- Tensors of torch, which is never imported: without it there is none --------------------------


def _is_tensor(data: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, getattr(torch, "Tensor", ()))


def _on_host(tensor: Any) -> Any:
    """The elements of a tensor in memory of the host; a copy only if they are elsewhere."""
    torch = sys.modules["torch"]
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = f"{tensor.layout}, {tensor.dtype}"
        msg = f"cannot compress a tensor that is {kind}: expected a dense one"
        raise TypeError(msg)
    if tensor.device.type == "meta":
        msg = "cannot compress a tensor on the meta device: it has no data"
        raise TypeError(msg)
    # That a tensor is conjugated or negated is a bit beside its elements: bring it into them.
    return tensor.detach().cpu().resolve_conj().resolve_neg()


def _bytes_of_tensor(tensor: Any) -> NDArray[np.uint8]:
    flat = _on_host(tensor).contiguous()
    # Not reshape: an axis of one element may keep any stride, and then has no bytes to view.
    flat = flat.as_strided((flat.numel(),), (1,))
    found: NDArray[np.uint8] = flat.view(sys.modules["torch"].uint8).numpy()
    return found


def _array_of_tensor(tensor: Any) -> NDArray[Any]:
    torch = sys.modules["torch"]
    plain = _on_host(tensor)
    try:
        dtype = numpy_dtype(resolve(plain.dtype))
    except ValueError as error:
        msg = f"NumPy has no array of {plain.dtype} (the bytes alone: z4ai.compress)"
        raise TypeError(msg) from error
    words = {1: torch.uint8, 2: torch.int16}
    if dtype.kind in "Vf" and dtype.itemsize in words:
        # What torch cannot hand to NumPy as what it is: bf16, fp8.
        plain = plain.view(words[dtype.itemsize])
    found: NDArray[Any] = plain.numpy()
    return found.view(dtype)


def room_in(out: Any, nbytes: int, what: str) -> NDArray[np.uint8]:
    """Return the first `nbytes` bytes of a writable contiguous buffer; `what`: that has so many.

    Raises
    ------
    TypeError, ValueError
        As `writable_bytes_of`, and if there are too few.
    """
    target = writable_bytes_of(out)
    if len(target) < nbytes:
        msg = f"out has {len(target)} bytes, {what} has {nbytes}"
        raise ValueError(msg)
    return target[:nbytes]


def writable_bytes_of(out: Any) -> NDArray[np.uint8]:
    """View a writable contiguous buffer as bytes.

    Raises
    ------
    TypeError
        If `out` offers no buffer, or holds Python objects.
    ValueError
        If it is read-only or not contiguous.
    """
    if isinstance(out, np.ndarray) and out.dtype.hasobject:
        msg = "out holds Python objects"
        raise TypeError(msg)
    if isinstance(out, np.ndarray) and out.flags.c_contiguous and out.flags.writeable:
        # Dtypes of ml_dtypes have no buffer of their own.
        return np.asarray(out).reshape(-1).view(np.uint8)
    try:
        view = memoryview(out)
    except TypeError as error:
        msg = f"out must be a writable bytes-like object, got {type(out).__name__}"
        raise TypeError(msg) from error
    with view:
        if _holds_objects(view):
            msg = "out holds Python objects"
            raise TypeError(msg)
        if view.readonly:
            msg = "out is read-only"
            raise ValueError(msg)
        if not view.c_contiguous:
            msg = "out is not contiguous"
            raise ValueError(msg)
        return np.frombuffer(out, np.uint8) if view.nbytes else np.empty(0, np.uint8)
