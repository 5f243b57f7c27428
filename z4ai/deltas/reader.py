"""`DeltaReader`: any tensor of a model delta without the rest; itself a base for others."""

from __future__ import annotations

import difflib
import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai._buffers import writable_bytes_of
from z4ai._fast.chunks import BytesBuilder
from z4ai.container import st_header
from z4ai.container.sink import Discard
from z4ai.container.zstn import NO_LOCATION
from z4ai.decoder import check_output
from z4ai.deltas.contents import Contents
from z4ai.deltas.records import SCRATCH
from z4ai.deltas.restore import Restore, blaming_base
from z4ai.deltas.stats import way_names
from z4ai.dtypes import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from numpy.typing import NDArray

    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.deltas.models import Base
    from z4ai.options import Limits

__all__ = ["DeltaReader"]


class DeltaReader:
    """Reader of a model delta beside its base. Make one by `z4ai.model_delta.open`.

    It may be shared between threads, which then take turns, and may be given as a base itself.
    Every read verifies the checksums of what it decodes, and those of what it copies from the
    base; `verify` verifies everything, the base as a whole included.

    Examples
    --------
    >>> from z4ai import model_delta
    >>> _ = model_delta.compress_file("finetuned.safetensors", "base.safetensors", "doc.z4dm")
    >>> with model_delta.open("doc.z4dm", "base.safetensors") as reader:
    ...     print(reader.names(), reader.way("encoder.bias"))
    ...     print(reader.read_numpy("encoder.weight").shape)
    ['encoder.weight', 'encoder.bias'] copied
    (64, 64)
    >>> import os; os.unlink("doc.z4dm")
    """

    def __init__(
        self,
        source: Source,
        base: Base,
        limits: Limits,
        threads: int | None,
    ) -> None:
        self._source = source
        self._base = base
        self._limits = limits
        self._threads = threads
        self._lock = threading.Lock()
        self._closed = False
        self._restore = Restore(source, base, limits)
        delta = self._restore.delta
        with blaming_base(base, delta.ends):
            self._contents = Contents(source, delta, base, limits, threads)
            self._contents.check()
        self._ways = way_names(delta.entries)
        self._places = {tensor.name: k for k, tensor in enumerate(delta.header.tensors)}
        self.tensors: list[Tensor] = delta.header.tensors

    def close(self) -> None:
        """Close the reader, and what was opened as its base."""
        with self._lock:
            self._closed = True
            self._source.close()
            self._base.close()

    def __enter__(self) -> DeltaReader:
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
        return f"<DeltaReader: {state}{len(self.tensors)} tensors, {self.original_nbytes} bytes>"

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
        header: dict[str, Any] = json.loads(self._restore.delta.header_bytes)
        return header

    @property
    def header_bytes(self) -> bytes:
        """The JSON header of the `.safetensors` file, byte for byte, with its padding."""
        return self._restore.delta.header_bytes

    def metadata(self) -> dict[str, str] | None:
        """Return the file's `__metadata__`; None if it has none."""
        metadata = self._restore.delta.header.metadata
        return None if metadata is None else dict(metadata)

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor as safetensors spells it, such as ``"BF16"``."""
        return self.tensors[self._number(name)].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self.tensors[self._number(name)].shape

    def nbytes(self, name: str) -> int:
        """Return the bytes of a tensor's data."""
        return self.tensors[self._number(name)].nbytes

    def way(self, name: str) -> str:
        """Return how a tensor is stored: copied, delta, lowrank, scratch or shared."""
        return self._ways[self._number(name)]

    @property
    def original_nbytes(self) -> int:
        """Size of the `.safetensors` file that it stands for."""
        return self._restore.original_nbytes

    @property
    def compressed_nbytes(self) -> int:
        """Size of the model delta."""
        return self._source.nbytes

    # --- Reading ----------------------------------------------------------------------------------

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Decode the bytes `begin` … `end` of ``tensors[k]``; the array is read-only."""
        out = np.empty(end - begin, np.uint8)
        self._fill(k, begin, end, out)
        out.flags.writeable = False
        return out

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
            If its dtype has no NumPy form, or its shape too many dimensions: use `read_raw`.
        BaseMismatchError
            If the base turns out to be another one.
        FormatError
            If the tensor is damaged.
        LimitError
            If it is larger than `limits` allow.
        """
        k = self._number(name)
        tensor = self.tensors[k]
        try:
            dtype = numpy_dtype(st_header.dtype_of(tensor.dtype))
        except ValueError:
            msg = f"tensor {name!r} has dtype {tensor.dtype!r}, which has no NumPy form"
            raise TypeError(msg + ": use read_raw for its bytes") from None
        self._check_claim(k)
        try:
            array = np.empty(tensor.shape, dtype)
        except ValueError as error:
            msg = f"NumPy cannot hold the shape of tensor {name!r}: use read_raw ({error})"
            raise TypeError(msg) from error
        self._fill(k, 0, tensor.nbytes, array.reshape(-1).view(np.uint8))
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
        KeyError, BaseMismatchError, FormatError, LimitError
            As `read_numpy`; `out` may then be partly overwritten.
        ValueError
            If `out` is too small or read-only; nothing is written then.
        """
        k = self._number(name)
        nbytes = self.tensors[k].nbytes
        if out is not None:
            target = writable_bytes_of(out)
            if len(target) < nbytes:
                msg = f"out has {len(target)} bytes, tensor {name!r} has {nbytes}"
                raise ValueError(msg)
            self._fill(k, 0, nbytes, target[:nbytes])
            return memoryview(target[:nbytes])
        self._check_claim(k)
        builder = BytesBuilder(nbytes)
        with memoryview(builder) as view:
            self._fill(k, 0, nbytes, np.frombuffer(view, np.uint8))
        return builder.finish(nbytes)

    def verify(self) -> None:
        """Restore everything, and verify all checksums, the base and the digest of the whole.

        Raises
        ------
        BaseMismatchError
            If the base is another one.
        FormatError
            If anything is damaged; `tensor` names the first one.
        """
        with self._lock:
            self._check_open()
            self._restore.write(Discard(), self._threads, _nothing)

    # --- Inside -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._closed:
            msg = "the reader is closed"
            raise ValueError(msg)

    def _number(self, name: str) -> int:
        self._check_open()
        k = self._places.get(name)
        if k is None:
            close = difflib.get_close_matches(str(name), self._places, 3)
            hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
            msg = f"no tensor {name!r}{hint}"
            raise KeyError(msg)
        return k

    def _check_claim(self, k: int) -> None:
        """Check a tensor's claim on memory: against the limit, then against its frame."""
        tensor = self.tensors[k]
        check_output(tensor.nbytes, self._limits)
        entry = self._restore.delta.entries[k]
        if entry.coding == SCRATCH:
            with self._lock:
                location = entry.location or NO_LOCATION
                self._contents.decoder.check_claims([tensor], [location])

    def _fill(self, k: int, begin: int, end: int, out: NDArray[np.uint8]) -> None:
        with self._lock:
            self._check_open()
            with blaming_base(self._base, self._restore.delta.ends):
                self._contents.verify_copy(k)
                self._contents.fill(k, begin, end, out)


def _nothing(nbytes: int) -> None:
    pass
