"""`TensorReader`: what readers of single tensors have in common, whatever file they read."""

from __future__ import annotations

import difflib
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai._buffers import room_in
from z4ai._fast.chunks import BytesBuilder
from z4ai.container import st_header
from z4ai.dtypes import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from z4ai.container.st_header import Header, Tensor

__all__ = ["TensorReader", "empty", "numpy_dtype_of"]


class TensorReader(ABC):
    """A file that stands for a `.safetensors` file: what is in it, and any tensor of it.

    How tensors are told, found and handed out is the same for all such files. A subclass decodes
    one into memory, and says before whether the file can hold so much.

    Parameters
    ----------
    header_bytes : bytes
        The JSON header of the `.safetensors` file.
    header : Header
        The same, parsed and checked.
    """

    def __init__(self, header_bytes: bytes, header: Header) -> None:
        self._header_bytes = header_bytes
        self._header = header
        self._places = {tensor.name: k for k, tensor in enumerate(header.tensors)}
        self._closed = False

    @abstractmethod
    def close(self) -> None:
        """Close the reader."""

    @property
    @abstractmethod
    def original_nbytes(self) -> int:
        """Size of the `.safetensors` file."""

    @abstractmethod
    def _check_claim(self, k: int) -> None:
        """Check a tensor's claim on memory: against the limit, then against its frame."""

    @abstractmethod
    def _decode_into(self, k: int, out: NDArray[np.uint8]) -> None:
        """Decode tensor `k` into memory of its size."""

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed, " if self._closed else ""
        what = f"{len(self._places)} tensors, {self.original_nbytes} bytes"
        return f"<{type(self).__name__}: {state}{what}>"

    # --- What is in it ----------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Return the names of the tensors, in the order of their data."""
        return list(self._places)

    def keys(self) -> list[str]:
        """Return the names, as `names` does."""
        return list(self._places)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def header(self) -> dict[str, Any]:
        """Return the JSON header of the `.safetensors` file, parsed, in its own order."""
        header: dict[str, Any] = json.loads(self._header_bytes)
        return header

    @property
    def header_bytes(self) -> bytes:
        """The JSON header of the `.safetensors` file, byte for byte, with its padding."""
        return self._header_bytes

    def metadata(self) -> dict[str, str] | None:
        """Return the file's `__metadata__`; None if it has none."""
        metadata = self._header.metadata
        return None if metadata is None else dict(metadata)

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor as safetensors spells it, such as ``"BF16"``."""
        return self._header.tensors[self._number(name)].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._header.tensors[self._number(name)].shape

    def nbytes(self, name: str) -> int:
        """Return the bytes of a tensor's data."""
        return self._header.tensors[self._number(name)].nbytes

    # --- Reading ----------------------------------------------------------------------------------

    def read_numpy(self, name: str) -> np.ndarray[Any, Any]:
        """Decode a tensor into a new array.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        ndarray
            Writable, in C order. BF16 and F8 are dtypes of ml_dtypes.

        Raises
        ------
        KeyError
            If there is no such tensor.
        TypeError
            If its dtype has no NumPy form (F4, F6, or one that is not known), or its shape too
            many dimensions: use `read_raw`.
        FormatError
            If the tensor is damaged; `BaseMismatchError`, if it is made from another base.
        LimitError
            If it is larger than `limits` allow.

        Examples
        --------
        >>> from z4ai.safetensors import ZstnReader, compress_file
        >>> _ = compress_file("model.safetensors", "model.zstn")
        >>> with ZstnReader.open("model.zstn") as reader:
        ...     reader.read_numpy("encoder.weight")[0, :2]
        array([-0.5       , -0.49975586], dtype=float32)
        """
        k = self._number(name)
        tensor = self._header.tensors[k]
        dtype = numpy_dtype_of(tensor)
        self._check_claim(k)
        array = empty(tensor, tensor.shape, dtype)
        self._decode_into(k, array.reshape(-1).view(np.uint8))
        return array

    def read_raw(self, name: str, out: Any = None) -> bytes | memoryview:
        """Decode the bytes of a tensor, of whatever dtype.

        Parameters
        ----------
        name : str
            Its name.
        out : buffer, optional
            Writable and contiguous; decoded into directly.

        Returns
        -------
        bytes or memoryview
            The bytes; with `out`, a memoryview of those that were filled.

        Raises
        ------
        KeyError
            If there is no such tensor.
        FormatError
            As `read_numpy`; `out` may then be partly overwritten.
        LimitError
            If it is larger than `limits` allow, and has no `out`.
        ValueError
            If `out` is too small or read-only; nothing is written then.

        Examples
        --------
        >>> from z4ai.safetensors import ZstnReader, compress_file
        >>> _ = compress_file("model.safetensors", "model.zstn")
        >>> out = bytearray(256)
        >>> with ZstnReader.open("model.zstn") as reader:
        ...     reader.read_raw("encoder.bias", out) == reader.read_raw("encoder.bias")
        True
        """
        k = self._number(name)
        nbytes = self._header.tensors[k].nbytes
        if out is not None:
            target = room_in(out, nbytes, f"tensor {name!r}")
            self._decode_into(k, target)
            return memoryview(target)
        self._check_claim(k)
        builder = BytesBuilder(nbytes)
        with memoryview(builder) as view:
            self._decode_into(k, np.frombuffer(view, np.uint8))
        return builder.finish(nbytes)

    # --- Inside -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            msg = "the reader is closed"
            raise ValueError(msg)

    def _number(self, name: str) -> int:
        """Find a tensor: its number among those of the file."""
        self._check_open()
        k = self._places.get(name)
        if k is None:
            close = difflib.get_close_matches(str(name), self._places, 3)
            hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
            msg = f"no tensor {name!r}{hint}"
            raise KeyError(msg)
        return k


def numpy_dtype_of(tensor: Tensor) -> np.dtype[Any]:
    """Find the dtype that NumPy has for a tensor; `TypeError` if it has none."""
    try:
        return numpy_dtype(st_header.dtype_of(tensor.dtype))
    except ValueError:
        msg = (
            f"tensor {tensor.name!r} has dtype {tensor.dtype!r}, which has no NumPy form: "
            "use read_raw for its bytes"
        )
        raise TypeError(msg) from None


def empty(tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Make an array for (a part of) a tensor; `TypeError` if NumPy has none of that shape."""
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        msg = f"NumPy cannot hold the shape of tensor {tensor.name!r}: use read_raw ({error})"
        raise TypeError(msg) from error
