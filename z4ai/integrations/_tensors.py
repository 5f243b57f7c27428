"""Tensors of torch: their dtypes as safetensors names them, their bytes, and back."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.integrations._extras import need_torch
from z4ai.integrations._memory import memory_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, dtype

    from z4ai.container.st_header import Tensor as Row

__all__ = [
    "check_dense",
    "code_of",
    "dtype_of",
    "is_one_tensor",
    "logical_shape",
    "tensor_of",
]

# Code of safetensors, name in torch. Older releases of torch lack some of them.
_NAMES = {
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "U16": "uint16",
    "I16": "int16",
    "U32": "uint32",
    "I32": "int32",
    "U64": "uint64",
    "I64": "int64",
    "F16": "float16",
    "BF16": "bfloat16",
    "F32": "float32",
    "F64": "float64",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F4": "float4_e2m1fn_x2",
}


@cache
def _dtypes() -> dict[str, Any]:
    torch = need_torch()
    return {code: getattr(torch, name) for code, name in _NAMES.items() if hasattr(torch, name)}


@cache
def _codes() -> dict[Any, str]:
    return {dtype: code for code, dtype in _dtypes().items()}


def dtype_of(row: Row) -> dtype:
    """Find the dtype of torch for a tensor of a container.

    Raises
    ------
    TypeError
        If torch has none.
    """
    found = _dtypes().get(row.dtype)
    if found is None:
        msg = (
            f"torch {need_torch().__version__} has no dtype for {row.dtype!r} "
            f"(tensor {row.name!r}): ZstnReader.read_raw gives its bytes"
        )
        raise TypeError(msg)
    return found  # type: ignore[no-any-return]


def code_of(name: str, tensor: Tensor) -> str:
    """Find the code of safetensors for the dtype of a tensor.

    Raises
    ------
    TypeError
        If there is none.
    """
    code = _codes().get(tensor.dtype)
    if code is None:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _codes())
        dtype = str(tensor.dtype).removeprefix("torch.")
        msg = f"tensor {name!r} is {dtype}, which safetensors does not know: expected {known}"
        raise TypeError(msg)
    return code


def logical_shape(code: str, tensor: Tensor) -> tuple[int, ...]:
    """Shape as safetensors counts it: two elements for a pair that is packed in a byte."""
    shape = tuple(tensor.shape)
    return (*shape[:-1], 2 * shape[-1]) if code == "F4" and shape else shape


def check_dense(name: str, tensor: Any) -> None:
    """Check that a value of a state dict is a tensor whose elements lie in memory.

    Raises
    ------
    ValueError
        If it is none; the message says what it is.
    """
    torch = need_torch()
    if not isinstance(tensor, torch.Tensor):
        msg = f"{name!r} is a {type(tensor).__name__}, expected a torch.Tensor"
        raise ValueError(msg)
    if tensor.is_nested:
        msg = f"tensor {name!r} is nested: save each of its .unbind() apart"
        raise ValueError(msg)
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        msg = f"tensor {name!r} is {layout}: make it dense first, by .to_dense()"
        raise ValueError(msg)
    if tensor.device.type == "meta":
        msg = f"tensor {name!r} is on the meta device: it has no data to save"
        raise ValueError(msg)
    if tensor.is_quantized:
        msg = f"tensor {name!r} is quantized: save its .int_repr() and its scales apart"
        raise ValueError(msg)
    if torch.utils._python_dispatch.is_traceable_wrapper_subclass(tensor):
        msg = (
            f"tensor {name!r} is a {type(tensor).__name__}, which wraps others: "
            "save the tensors that it wraps"
        )
        raise ValueError(msg)


def tensor_of(row: Row, content: NDArray[np.uint8], shape: tuple[int, ...] | None = None) -> Tensor:
    """Make a tensor of bytes that stay where they are.

    Parameters
    ----------
    row : Tensor of st_header
        What the container says of it.
    content : ndarray of uint8
        Its bytes, contiguous and writable.
    shape : tuple of int, optional
        If not its own.
    """
    torch = need_torch()
    shape = memory_shape(row) if shape is None else shape
    dtype = dtype_of(row)
    if not len(content):
        return torch.empty(shape, dtype=dtype, device="cpu")  # type: ignore[no-any-return]
    return torch.from_numpy(content).view(dtype).view(shape)  # type: ignore[no-any-return]


def is_one_tensor(a: Tensor, b: Tensor) -> bool:
    """Tell whether two tensors are the same elements of the same storage."""
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and a.stride() == b.stride()
        and a.device == b.device
        and a.numel() > 0
        and a.data_ptr() == b.data_ptr()
        and a.is_conj() == b.is_conj()
        and a.is_neg() == b.is_neg()
    )
