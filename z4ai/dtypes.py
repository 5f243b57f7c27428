"""One table of element types: name, wire code, width, layout of the planes, aliases."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["AUTO", "OPAQUE", "DType", "dtype_of_code", "dtype_width", "numpy_dtype", "resolve"]

# Layouts of planes, as in docs/format/codecs/planes.md; the numbers are the transform ids.
BYTES1, BYTES2, BYTES4, BYTES8, FLOAT2, FLOAT4, FLOAT8 = range(7)
LAYOUT_WIDTHS = (1, 2, 4, 8, 2, 4, 8)
# Transforms to symbols, as in docs/format/codecs/symbols.md: widths of all transforms.
SYMBOLS1, SYMBOLS2, SYMBOLS2H, SYMBOLS4, SYMBOLS8 = range(7, 12)
TRANSFORM_WIDTHS = (*LAYOUT_WIDTHS, 1, 2, 2, 4, 8)
# As in docs/format/ids.md; those from 16 on make parts of a chunk.
TRANSFORMS = {
    BYTES1: "bytes1",
    BYTES2: "bytes2",
    BYTES4: "bytes4",
    BYTES8: "bytes8",
    FLOAT2: "float2",
    FLOAT4: "float4",
    FLOAT8: "float8",
    SYMBOLS1: "symbols1",
    SYMBOLS2: "symbols2",
    SYMBOLS2H: "symbols2h",
    SYMBOLS4: "symbols4",
    SYMBOLS8: "symbols8",
    16: "zeros",
    17: "palette",
    18: "grid",
    19: "steps",
    20: "blocks",
    24: "same",
    25: "xor",
    28: "difference1",
    29: "difference2",
    30: "difference4",
    31: "difference8",
}
# Transforms from here on make a chunk of parts, up to those of delta frames.
FIRST_PARTS = 16
# Transforms of delta frames, as in docs/format/codecs/difference.md.
SAME, XOR = 24, 25
DIFFERENCE_WIDTHS = {28: 1, 29: 2, 30: 4, 31: 8}
_SYMBOLS_OF_LAYOUT = {BYTES1: SYMBOLS1, FLOAT2: SYMBOLS2, FLOAT4: SYMBOLS4, FLOAT8: SYMBOLS8}


class DType(NamedTuple):
    """An element type as z4ai knows it.

    Attributes
    ----------
    name : str
        The user's code, such as ``"bf16"``.
    code : int
        Number on the wire.
    layout : int
        How elements become planes.
    item_nbytes : int
        Bytes of one array item; twice the width for complex numbers, 0 where the type has no
        array form.
    numpy_name : str or None
        Name of the NumPy or ml_dtypes type of an array of it.
    """

    name: str
    code: int
    layout: int
    item_nbytes: int
    numpy_name: str | None

    @property
    def width(self) -> int:
        """Bytes of one element as the planes see it."""
        return LAYOUT_WIDTHS[self.layout]

    @property
    def symbols(self) -> int:
        """Transform to symbols, or `layout` where there is none for such elements."""
        if self.name == "fp16":
            return SYMBOLS2H
        return _SYMBOLS_OF_LAYOUT.get(self.layout, self.layout)

    @property
    def difference(self) -> int:
        """Transform to differences from a reference."""
        return 28 + (1, 2, 4, 8).index(self.width)


_TABLE = [
    DType("opaque", 0, BYTES1, 0, None),
    DType("bool", 1, BYTES1, 1, "bool"),
    DType("int8", 2, BYTES1, 1, "int8"),
    DType("uint8", 3, BYTES1, 1, "uint8"),
    DType("int16", 4, BYTES2, 2, "int16"),
    DType("uint16", 5, BYTES2, 2, "uint16"),
    DType("int32", 6, BYTES4, 4, "int32"),
    DType("uint32", 7, BYTES4, 4, "uint32"),
    DType("int64", 8, BYTES8, 8, "int64"),
    DType("uint64", 9, BYTES8, 8, "uint64"),
    DType("fp16", 16, FLOAT2, 2, "float16"),
    DType("bf16", 17, FLOAT2, 2, "bfloat16"),
    DType("fp32", 18, FLOAT4, 4, "float32"),
    DType("fp64", 19, FLOAT8, 8, "float64"),
    DType("complex64", 20, FLOAT4, 8, "complex64"),
    DType("complex128", 21, FLOAT8, 16, "complex128"),
    DType("fp8_e4m3", 32, BYTES1, 1, "float8_e4m3fn"),
    DType("fp8_e5m2", 33, BYTES1, 1, "float8_e5m2"),
    DType("fp8_e4m3fnuz", 34, BYTES1, 1, "float8_e4m3fnuz"),
    DType("fp8_e5m2fnuz", 35, BYTES1, 1, "float8_e5m2fnuz"),
    DType("fp8_e8m0", 36, BYTES1, 1, "float8_e8m0fnu"),
    DType("fp8_e4m3b11fnuz", 37, BYTES1, 1, "float8_e4m3b11fnuz"),
    DType("fp8_e3m4", 38, BYTES1, 1, "float8_e3m4"),
    DType("fp8_e4m3_ieee", 39, BYTES1, 1, "float8_e4m3"),
    DType("fp4", 48, BYTES1, 0, None),
    DType("fp4_unpacked", 49, BYTES1, 1, "float4_e2m1fn"),
    DType("fp6_e2m3_unpacked", 50, BYTES1, 1, "float6_e2m3fn"),
    DType("fp6_e3m2_unpacked", 51, BYTES1, 1, "float6_e3m2fn"),
    DType("int4_unpacked", 52, BYTES1, 1, "int4"),
    DType("uint4_unpacked", 53, BYTES1, 1, "uint4"),
    DType("int2_unpacked", 54, BYTES1, 1, "int2"),
    DType("uint2_unpacked", 55, BYTES1, 1, "uint2"),
    DType("uint4_x2", 56, BYTES1, 0, None),
]

OPAQUE = _TABLE[0]
# In the place of a dtype: find out.
AUTO = "auto"
_BY_CODE = {d.code: d for d in _TABLE}
_BY_NUMPY = {d.numpy_name: d for d in _TABLE if d.numpy_name is not None}

# Spellings of other libraries, lower case: codes of safetensors, names of NumPy and torch.
_ALIASES = {
    "bfloat16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "f16": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "f32": "fp32",
    "float64": "fp64",
    "double": "fp64",
    "f64": "fp64",
    "i8": "int8",
    "u8": "uint8",
    "byte": "uint8",
    "i16": "int16",
    "short": "int16",
    "u16": "uint16",
    "i32": "int32",
    "int": "int32",
    "u32": "uint32",
    "i64": "int64",
    "long": "int64",
    "u64": "uint64",
    "boolean": "bool",
    "c64": "complex64",
    "cfloat": "complex64",
    "c128": "complex128",
    "cdouble": "complex128",
    "float8_e4m3fn": "fp8_e4m3",
    "f8_e4m3": "fp8_e4m3",
    "f8_e4m3fn": "fp8_e4m3",
    "float8_e5m2": "fp8_e5m2",
    "f8_e5m2": "fp8_e5m2",
    "float8_e4m3fnuz": "fp8_e4m3fnuz",
    "f8_e4m3fnuz": "fp8_e4m3fnuz",
    "float8_e5m2fnuz": "fp8_e5m2fnuz",
    "f8_e5m2fnuz": "fp8_e5m2fnuz",
    "float8_e8m0fnu": "fp8_e8m0",
    "f8_e8m0": "fp8_e8m0",
    "float8_e4m3b11fnuz": "fp8_e4m3b11fnuz",
    "float8_e3m4": "fp8_e3m4",
    "float8_e4m3": "fp8_e4m3_ieee",
    "float4_e2m1fn_x2": "fp4",
    "float4_e2m1fn": "fp4_unpacked",
    "float6_e2m3fn": "fp6_e2m3_unpacked",
    "float6_e3m2fn": "fp6_e3m2_unpacked",
    "int4": "int4_unpacked",
    "uint4": "uint4_unpacked",
    "int2": "int2_unpacked",
    "uint2": "uint2_unpacked",
}
_BY_NAME = {d.name: d for d in _TABLE}
_BY_NAME |= {alias: _BY_NAME[name] for alias, name in _ALIASES.items()}
# In capitals only, as safetensors has it: to NumPy, f4 is float32.
_EXACT = {"F4": _BY_NAME["fp4"]}


def resolve(dtype: Any) -> DType:
    """Find the element type that the caller means.

    Parameters
    ----------
    dtype : str, numpy.dtype, type, torch.dtype or None
        A code such as ``"bf16"``, one of its aliases, or a dtype object of NumPy, ml_dtypes or
        torch. None is opaque bytes.

    Returns
    -------
    DType
        The row of the table.

    Raises
    ------
    ValueError
        If the dtype is not known; the message lists the codes.
    """
    if dtype is None:
        return OPAQUE
    if isinstance(dtype, DType):
        return dtype
    if isinstance(dtype, str):
        found = _EXACT.get(dtype) or _BY_NAME.get(dtype.lower())
    elif type(dtype).__module__.partition(".")[0] == "torch":
        found = _BY_NAME.get(str(dtype).removeprefix("torch."))
    else:
        found = _of_numpy(dtype)
    if found is None:
        known = ", ".join(d.name for d in _TABLE)
        msg = f"unknown dtype {dtype!r}: expected None or one of {known}"
        raise ValueError(msg)
    return found


def _of_numpy(dtype: DTypeLike) -> DType | None:
    try:
        return _BY_NUMPY.get(np.dtype(dtype).name)
    except TypeError:
        return None


def is_auto(dtype: object) -> bool:
    """Tell whether the caller wants the dtype to be guessed."""
    return isinstance(dtype, str) and dtype.lower() == AUTO


def dtype_of_code(code: int) -> DType | None:
    """Find the element type of a wire code; None if it is unassigned."""
    return _BY_CODE.get(code)


def numpy_dtype(dtype: DType, *, big_endian: bool = False) -> np.dtype[Any]:
    """Make the NumPy dtype of an array of `dtype`.

    Raises
    ------
    ValueError
        If the type has no array form.
    """
    name = dtype.numpy_name
    if name is None:
        msg = f"dtype {dtype.name!r} has no NumPy form"
        raise ValueError(msg)
    try:
        found: np.dtype[Any] = np.dtype(name)
    except TypeError:
        import ml_dtypes  # noqa: PLC0415 - costs import time, needed by few arrays

        found = np.dtype(getattr(ml_dtypes, name))
    return found.newbyteorder(">") if big_endian else found


def dtype_width(code: Any) -> int:
    """Return the width in bytes of one element of a dtype.

    Parameters
    ----------
    code : str, numpy.dtype, torch.dtype or None
        As the `dtype` of `compress`. None is opaque bytes, of width 1.

    Returns
    -------
    int
        1, 2, 4, 8 or 16.

    Raises
    ------
    ValueError
        If the dtype is not known.

    Examples
    --------
    >>> import z4ai
    >>> z4ai.dtype_width("bf16")
    2
    """
    found = resolve(code)
    return found.item_nbytes or found.width
