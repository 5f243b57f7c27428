"""The JSON header of a `.safetensors` file: parse it, and check what safetensors checks."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from z4ai.dtypes import OPAQUE, DType, resolve
from z4ai.errors import CorruptError, FormatError, LimitError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "MAX_HEADER_NBYTES",
    "METADATA",
    "Header",
    "Tensor",
    "dtype_of",
    "known_codes",
    "parse",
    "st_code",
    "tensor_nbytes",
    "write",
]

MAX_HEADER_NBYTES = 100_000_000
METADATA = "__metadata__"
# What one bracket, comma or colon of JSON can cost once it is parsed.
_NODE_NBYTES = 64
_MAX_NUMBER = 2**64 - 1

# Code of safetensors: bits of one element, our dtype; None where no planes are known.
_DTYPES: dict[str, tuple[int, str | None]] = {
    "BOOL": (8, "bool"),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "U16": (16, "uint16"),
    "I16": (16, "int16"),
    "U32": (32, "uint32"),
    "I32": (32, "int32"),
    "U64": (64, "uint64"),
    "I64": (64, "int64"),
    "F16": (16, "fp16"),
    "BF16": (16, "bf16"),
    "F32": (32, "fp32"),
    "F64": (64, "fp64"),
    "C64": (64, "complex64"),
    "F8_E4M3": (8, "fp8_e4m3"),
    "F8_E5M2": (8, "fp8_e5m2"),
    "F8_E8M0": (8, "fp8_e8m0"),
    "F8_E4M3FNUZ": (8, "fp8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "fp8_e5m2fnuz"),
    "F4": (4, "fp4"),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
}
_ROWS = {code: resolve(name) for code, (_, name) in _DTYPES.items() if name is not None}
_CODES = {row.name: code for code, row in _ROWS.items()}


class Tensor(NamedTuple):
    """One tensor as the header describes it.

    Attributes
    ----------
    name : str
        Its key.
    dtype : str
        The code of safetensors, such as ``"BF16"``.
    shape : tuple of int
        Its shape.
    begin, end : int
        Its bytes, counted from the end of the header.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


class Header(NamedTuple):
    """A checked header.

    Attributes
    ----------
    tensors : list of Tensor
        In the order of their data: by begin, end, place in the header.
    metadata : dict of str to str, or None
        What `__metadata__` holds, if it is there.
    """

    tensors: list[Tensor]
    metadata: dict[str, str] | None

    @property
    def data_nbytes(self) -> int:
        return self.tensors[-1].end if self.tensors else 0


def dtype_of(code: str) -> DType:
    """Find how the elements of a code of safetensors are coded; opaque if it is not known."""
    return _ROWS.get(code, OPAQUE)


def st_code(dtype: DType) -> str | None:
    """Find the code of safetensors for one of our dtypes; None if it has none."""
    return _CODES.get(dtype.name)


def known_codes() -> tuple[str, ...]:
    """Return the codes of safetensors whose element size is known."""
    return tuple(_DTYPES)


def tensor_nbytes(code: str, shape: Sequence[int]) -> int | None:
    """Compute the bytes of a tensor; None for a dtype that is not known.

    Raises
    ------
    ValueError
        If the product does not fit 64 bits or the bits do not fill whole bytes.
    """
    if code not in _DTYPES:
        return None
    n = 1
    # In the order of safetensors, which gives up at the first product that does not fit.
    for extent in (*shape, _DTYPES[code][0]):
        n *= extent
        if n > _MAX_NUMBER:
            msg = f"shape {_short(shape)} of {code} overflows 64 bits"
            raise ValueError(msg)
    if n % 8:
        msg = f"shape {_short(shape)} of {code} does not fill whole bytes"
        raise ValueError(msg)
    return n // 8


def _short(shape: Sequence[int]) -> str:
    shown = ", ".join(str(n) for n in shape[:8])
    return f"[{shown}{', …' if len(shape) > 8 else ''}]"


def parse(header: bytes, max_nbytes: int | None = None) -> Header:
    """Check a JSON header and list its tensors.

    Parameters
    ----------
    header : bytes
        With its padding, without the length in front.
    max_nbytes : int, optional
        What its objects may take in memory; from `Limits.max_table_nbytes` where the header
        comes out of a compressed file, and may be far larger than that.

    Raises
    ------
    FormatError
        If safetensors would refuse it; `tensor` names the first tensor to blame.
    LimitError
        If it exceeds `max_nbytes`.
    """
    if len(header) > MAX_HEADER_NBYTES:
        msg = f"JSON header of {len(header)} bytes, expected at most {MAX_HEADER_NBYTES}"
        raise CorruptError(msg)
    if header[:1] != b"{":
        msg = f"JSON header begins with {header[:1]!r}, expected b'{{'"
        raise CorruptError(msg)
    if max_nbytes is not None:
        nodes = sum(header.count(mark) for mark in (b"[", b"{", b",", b":"))
        if nodes * _NODE_NBYTES > max_nbytes:
            msg = f"JSON header of {nodes} parts exceeds the limit of {max_nbytes} bytes in memory"
            raise LimitError(msg, option="max_table_nbytes")
    fields = _load(header)
    metadata = None
    tensors = []
    for name, value in fields.items():
        if name == METADATA:
            metadata = _check_metadata(value)
        else:
            tensors.append(_parse_tensor(name, value))
    _check_text("".join(fields))
    tensors.sort(key=_data_order)
    pos = 0
    for tensor in tensors:
        if tensor.begin != pos:
            what = "a hole" if tensor.begin > pos else "an overlap"
            msg = f"data begins at {tensor.begin}, expected {pos}: {what}"
            raise CorruptError(msg, tensor=tensor.name)
        pos = tensor.end
    return Header(tensors, metadata)


def _data_order(tensor: Tensor) -> tuple[int, int]:
    return tensor.begin, tensor.end


class _Twice(dict[str, Any]):
    """An object with a duplicate key."""

    key: str


def _load(header: bytes) -> dict[str, Any]:
    twice: list[_Twice] = []

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) == len(pairs):
            return found
        seen = set()
        marked = _Twice(found)
        for key, _ in pairs:
            if key in seen:
                marked.key = key
                break
            seen.add(key)
        twice.append(marked)
        return marked

    try:
        fields = json.loads(
            header.decode("utf-8"),
            object_pairs_hook=make_object,
            parse_constant=_refuse_constant,
            # Only then can there be a negative zero, which is no count to safetensors.
            parse_int=_parse_int if b"-0" in header else None,
        )
    except RecursionError as error:
        msg = "JSON header is nested too deeply"
        raise CorruptError(msg) from error
    except FormatError:
        raise
    except ValueError as error:
        # UnicodeDecodeError, JSONDecodeError, and a number of too many digits.
        msg = f"JSON header cannot be parsed: {error}"
        raise CorruptError(msg) from error
    if twice:
        _refuse_twice(fields, twice[0])
    return dict(fields)


def _refuse_twice(fields: dict[str, Any], first: _Twice) -> NoReturn:
    tensor = None
    if fields is first:
        tensor = first.key
    for name, value in fields.items():
        if value is first:
            tensor = name
    msg = f"JSON header has the key {first.key!r} twice"
    raise CorruptError(msg, tensor=tensor)


def _refuse_constant(constant: str) -> NoReturn:
    msg = f"JSON header holds {constant}, which is not JSON"
    raise CorruptError(msg)


def _parse_int(text: str) -> int | float:
    return -0.0 if text == "-0" else int(text)


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        msg = "JSON header holds a lone surrogate, which is not text"
        raise CorruptError(msg) from error


def _check_metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(type(text) is str for text in value.values()):
        msg = f"{METADATA} does not map strings to strings"
        raise CorruptError(msg, tensor=METADATA)
    _check_text("".join(value))
    _check_text("".join(value.values()))
    return value


def _parse_tensor(name: str, value: Any) -> Tensor:
    try:
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    except (KeyError, TypeError, IndexError):
        msg = "tensor is not described by an object with dtype, shape and data_offsets"
        raise CorruptError(msg, tensor=name) from None
    if type(dtype) is not str:
        msg = f"dtype is {dtype!r:.100}, expected a string"
        raise CorruptError(msg, tensor=name)
    _check_numbers(name, "shape", shape)
    _check_numbers(name, "data_offsets", offsets)
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        msg = f"data_offsets are {_short(offsets)}, expected begin and end"
        raise CorruptError(msg, tensor=name)
    begin, end = offsets
    try:
        nbytes = tensor_nbytes(dtype, shape)
    except ValueError as error:
        raise CorruptError(str(error), tensor=name) from None
    if nbytes is not None and nbytes != end - begin:
        msg = f"{dtype} of shape {_short(shape)} has {nbytes} bytes, its data {end - begin}"
        raise CorruptError(msg, tensor=name)
    return Tensor(name, dtype, tuple(shape), begin, end)


def _check_numbers(name: str, field: str, value: Any) -> None:
    if type(value) is not list:
        msg = f"{field} is {value!r:.100}, expected a list"
        raise CorruptError(msg, tensor=name)
    for number in value:
        # bool is an int to Python, not to JSON.
        if type(number) is not int or not 0 <= number <= _MAX_NUMBER:
            msg = f"{field} holds {number!r:.100}, expected a count"
            raise CorruptError(msg, tensor=name)


def write(tensors: Sequence[Tensor], metadata: dict[str, str] | None) -> bytes:
    """Put a header on the wire, padded with spaces to whole words as safetensors does."""
    fields: dict[str, Any] = {} if metadata is None else {METADATA: metadata}
    for tensor in tensors:
        fields[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": tensor.shape,
            "data_offsets": [tensor.begin, tensor.end],
        }
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER_NBYTES:
        msg = f"JSON header of {len(text)} bytes, safetensors reads {MAX_HEADER_NBYTES} at most"
        raise ValueError(msg)
    return text
