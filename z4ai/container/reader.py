"""`ZstnReader`: any tensor of a `ZSTN` container, or a part of it, without the rest."""

from __future__ import annotations

import difflib
import json
from functools import cached_property
from operator import index as as_int
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai._buffers import writable_bytes_of
from z4ai._fast.chunks import BytesBuilder
from z4ai.container import st_header, zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.sink import Discard, IntoMemory
from z4ai.container.source import Source, open_source, source_of_buffer
from z4ai.decoder import check_output
from z4ai.dtypes import numpy_dtype
from z4ai.options import Limits, resolve_limits

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from types import TracebackType
    from typing import BinaryIO

    from z4ai.container.st_header import Tensor
    from z4ai.container.zstn import Container, Location

__all__ = ["ZstnReader"]


class ZstnReader:
    """Reader of a `ZSTN` container. Make one by `open` or `from_bytes`.

    Threads may share a reader. Every read verifies the checksums of what it decodes.

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.safetensors import ZstnReader, save_numpy
    >>> _ = save_numpy({"w": np.arange(6, dtype=np.float32).reshape(2, 3)}, "doc.zstn")
    >>> with ZstnReader.open("doc.zstn") as reader:
    ...     print(reader.names(), reader.dtype("w"), reader.shape("w"))
    ...     print(reader.read_slice("w", np.s_[1, ::2]))
    ['w'] F32 (2, 3)
    [3. 5.]
    >>> import os; os.unlink("doc.zstn")
    """

    def __init__(self, source: Source, limits: Limits | None, threads: int | None) -> None:
        self._source = source
        self._limits = resolve_limits(limits)
        self._threads = threads
        self._closed = False
        self._container = zstn.parse_container(source, self._limits)
        tensors = self._container.header.tensors
        self._places = {tensor.name: k for k, tensor in enumerate(tensors)}

    @classmethod
    def open(
        cls,
        file: str | bytes | os.PathLike[Any] | BinaryIO,
        *,
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> ZstnReader:
        """Open a container; reads and checks its index only.

        Parameters
        ----------
        file : path-like or binary file object
            A file object must be able to seek; it stays the caller's to close.
        limits : Limits, optional
            What may be allocated because the file says so.
        threads : int, optional
            Threads that one read may use. Default: `Z4AI_NUM_THREADS`, or the processors that
            this process may use.

        Raises
        ------
        FormatError
            If the file is no container, or damaged.
        LimitError
            If its index is larger than `limits` allow.
        OSError
            If it cannot be read.

        Examples
        --------
        >>> from z4ai.safetensors import ZstnReader, compress_file
        >>> _ = compress_file("model.safetensors", "model.zstn")
        >>> with open("model.zstn", "rb") as file, ZstnReader.open(file) as reader:
        ...     len(reader), reader.metadata(), reader.encoded_nbytes("encoder.bias") < 256
        (2, {'format': 'pt'}, True)
        """
        source = open_source(file)
        try:
            return cls(source, limits, threads)
        except BaseException:
            source.close()
            raise

    @classmethod
    def from_bytes(
        cls, data: Any, *, limits: Limits | None = None, threads: int | None = None
    ) -> ZstnReader:
        """Open a container that lies in memory; nothing is copied.

        Parameters
        ----------
        data : buffer
            The container.
        limits, threads
            As `open`, which raises the same errors.

        Examples
        --------
        >>> import io, numpy as np
        >>> from z4ai.safetensors import ZstnReader, save_numpy
        >>> file = io.BytesIO()
        >>> _ = save_numpy({"w": np.zeros((2, 2), np.int8)}, file)
        >>> "w" in ZstnReader.from_bytes(file.getvalue())
        True
        """
        return cls(source_of_buffer(data), limits, threads)

    def close(self) -> None:
        """Close the reader; what other threads are reading is finished first."""
        self._closed = True
        self._source.close()

    def __enter__(self) -> ZstnReader:
        self._open_container()
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
        return f"<ZstnReader: {state}{len(self._places)} tensors, {self.original_nbytes} bytes>"

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
        header: dict[str, Any] = json.loads(self._container.header_bytes)
        return header

    @property
    def header_bytes(self) -> bytes:
        """The JSON header of the `.safetensors` file, byte for byte, with its padding."""
        return self._container.header_bytes

    def metadata(self) -> dict[str, str] | None:
        """Return the file's `__metadata__`; None if it has none."""
        metadata = self._container.header.metadata
        return None if metadata is None else dict(metadata)

    def dtype(self, name: str) -> str:
        """Return the dtype of a tensor as safetensors spells it, such as ``"BF16"``."""
        return self._tensor(name)[0].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor."""
        return self._tensor(name)[0].shape

    def nbytes(self, name: str) -> int:
        """Return the bytes of a tensor's data."""
        return self._tensor(name)[0].nbytes

    def frame_size(self, name: str) -> int:
        """Return the bytes of the frame that holds a tensor; tensors may share a frame.

        A tensor of zero bytes has no frame: 0.
        """
        return self._tensor(name)[1][1]

    def frame_offset(self, name: str) -> int:
        """Return where that frame begins in the file; the same for tensors that share one."""
        return self._tensor(name)[1][0]

    def encoded_nbytes(self, name: str) -> int:
        """Return the bytes that a tensor takes: its frame, or its part of one by content.

        Small tensors may lie behind one another in one frame. Tensors that are the same bytes
        (tied weights) take them together: each is told to take all.
        """
        tensor, (offset, nbytes, _) = self._tensor(name)
        return -(-nbytes * tensor.nbytes // self._held[offset]) if nbytes else 0

    @cached_property
    def _held(self) -> dict[int, int]:
        """Content of each frame, by its offset, as far as tensors lie in it."""
        held: dict[int, int] = {}
        for _, (tensor, (offset, _, begin)) in _pairs(self._container):
            held[offset] = max(held.get(offset, 1), begin + tensor.nbytes)
        return held

    @property
    def original_nbytes(self) -> int:
        """Size of the `.safetensors` file that `decompress_file` restores."""
        return self._container.original_nbytes

    @property
    def compressed_nbytes(self) -> int:
        """Size of the container."""
        return self._source.nbytes

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
            If the tensor is damaged.
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
        tensor, location = self._tensor(name)
        dtype = _numpy_dtype_of(tensor)
        self._check(tensor, location)
        array = _empty(tensor, tensor.shape, dtype)
        self._decode_into(tensor, location, array.reshape(-1).view(np.uint8))
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
            If the tensor is damaged; `out` may then be partly overwritten.
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
        tensor, location = self._tensor(name)
        nbytes = tensor.nbytes
        if out is not None:
            target = writable_bytes_of(out)
            if len(target) < nbytes:
                msg = f"out has {len(target)} bytes, tensor {name!r} has {nbytes}"
                raise ValueError(msg)
            self._decode_into(tensor, location, target[:nbytes])
            return memoryview(target[:nbytes])
        self._check(tensor, location)
        builder = BytesBuilder(nbytes)
        with memoryview(builder) as view:
            self._decode_into(tensor, location, np.frombuffer(view, np.uint8))
        return builder.finish(nbytes)

    def read_slice(self, name: str, index: Any) -> Any:
        """Decode a part of a tensor, from the chunks that hold it.

        Integers at the front of the index and the first slice behind them narrow down what is
        decoded; the rest of the index selects from that.

        Parameters
        ----------
        name : str
            Its name.
        index : int, slice, Ellipsis, None, or a tuple of these
            Basic indexing, as NumPy has it; ``np.s_[...]`` writes one.

        Returns
        -------
        ndarray or scalar
            What ``read_numpy(name)[index]`` gives; an array of its own.

        Raises
        ------
        IndexError
            If the index does not fit the shape, or is no basic one.
        KeyError, TypeError, FormatError, LimitError
            As `read_numpy`.

        Examples
        --------
        >>> import numpy as np
        >>> from z4ai.safetensors import ZstnReader, compress_file
        >>> _ = compress_file("model.safetensors", "model.zstn")
        >>> with ZstnReader.open("model.zstn") as reader:
        ...     reader.read_slice("encoder.weight", np.s_[-4:, ::16]).shape
        (4, 4)
        """
        tensor, location = self._tensor(name)
        dtype = _numpy_dtype_of(tensor)
        begin, end, block_shape, rest = _narrow(tensor.shape, index)
        item = dtype.itemsize
        nbytes = (end - begin) * item
        check_output(nbytes, self._limits)
        decoder = self._decoder()
        if nbytes:
            decoder.frame_index(tensor, location)
        block = _empty(tensor, block_shape, dtype)
        sink = IntoMemory(block.reshape(-1).view(np.uint8))
        decoder.decode(tensor, location, begin * item, end * item, sink)
        part = block[rest]
        if isinstance(part, np.ndarray) and part.nbytes < block.nbytes:
            return part.copy()
        return part

    def verify(self, *, threads: int | None = None) -> None:
        """Decode every tensor and verify the checksums; keep nothing.

        Parameters
        ----------
        threads : int, optional
            Threads to use. Default: those of the reader.

        Raises
        ------
        FormatError
            If anything is damaged; `tensor` names the first one.

        Examples
        --------
        >>> from z4ai.safetensors import ZstnReader, compress_file
        >>> _ = compress_file("model.safetensors", "model.zstn")
        >>> with ZstnReader.open("model.zstn") as reader:
        ...     reader.verify()
        """
        container = self._open_container()
        once = {(*location, tensor.nbytes): k for k, (tensor, location) in _pairs(container)}
        tensors = [container.header.tensors[k] for k in once.values()]
        locations = [container.locations[k] for k in once.values()]
        threads = self._threads if threads is None else threads
        decoder = TensorDecoder(self._source, self._limits, threads)
        decoder.decode_all(tensors, locations, Discard())

    # --- Inside -----------------------------------------------------------------------------------

    def _open_container(self) -> Container:
        if self._closed:
            msg = "the reader is closed"
            raise ValueError(msg)
        return self._container

    def _tensor(self, name: str) -> tuple[Tensor, Location]:
        container = self._open_container()
        k = self._places.get(name)
        if k is None:
            close = difflib.get_close_matches(str(name), self._places, 3)
            hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
            msg = f"no tensor {name!r}{hint}"
            raise KeyError(msg)
        return container.header.tensors[k], container.locations[k]

    def _decoder(self) -> TensorDecoder:
        return TensorDecoder(self._source, self._limits, self._threads)

    def _check(self, tensor: Tensor, location: Location) -> None:
        """Check a tensor's claim on memory: against the limit, then against its frame."""
        check_output(tensor.nbytes, self._limits)
        self._decoder().check_claims([tensor], [location])

    def _decode_into(self, tensor: Tensor, location: Location, out: np.ndarray[Any, Any]) -> None:
        self._decoder().decode_all([tensor], [location], IntoMemory(out))


def _pairs(container: Container) -> Iterator[tuple[int, tuple[Tensor, Location]]]:
    return enumerate(zip(container.header.tensors, container.locations, strict=True))


def _numpy_dtype_of(tensor: Tensor) -> np.dtype[Any]:
    try:
        return numpy_dtype(st_header.dtype_of(tensor.dtype))
    except ValueError:
        msg = (
            f"tensor {tensor.name!r} has dtype {tensor.dtype!r}, which has no NumPy form: "
            "use read_raw for its bytes"
        )
        raise TypeError(msg) from None


def _empty(tensor: Tensor, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
    try:
        return np.empty(shape, dtype)
    except ValueError as error:
        msg = f"NumPy cannot hold the shape of tensor {tensor.name!r}: use read_raw ({error})"
        raise TypeError(msg) from error


def _narrow(
    shape: tuple[int, ...], index: Any
) -> tuple[int, int, tuple[int, ...], tuple[Any, ...]]:
    """Find the block of a tensor that an index selects from.

    Returns
    -------
    begin, end : int
        The elements of the block, in C order.
    block_shape : tuple of int
        Its shape.
    rest : tuple
        What selects from the block.
    """
    parts = index if isinstance(index, tuple) else (index,)
    wanted: list[Any] = []
    for part in parts:
        if part is None or part is Ellipsis or isinstance(part, slice):
            wanted.append(part)
        elif isinstance(part, bool | np.bool_ | np.ndarray | list):
            raise _not_basic(part)
        else:
            try:
                wanted.append(as_int(part))
            except TypeError:
                raise _not_basic(part) from None
    n_axes = sum(part is not None and part is not Ellipsis for part in wanted)
    if wanted.count(Ellipsis) > 1:
        msg = "an index can only have one Ellipsis"
        raise IndexError(msg)
    if n_axes > len(shape):
        msg = f"too many indices: {n_axes} for shape {shape}"
        raise IndexError(msg)

    begin, size = 0, 1
    for extent in shape:
        size *= extent
    rest: list[Any] = []
    block_shape = list(shape)
    axis = 0
    end = size
    for place, part in enumerate(wanted):
        if part is None:
            rest.append(part)
            continue
        if part is Ellipsis:
            rest += wanted[place:]
            break
        extent = shape[axis]
        if isinstance(part, slice):
            chosen = range(*part.indices(extent))
            low, high, local = _slice_of_block(chosen)
            rest.append(local)
            if extent:
                size //= extent
                begin, end = begin + low * size, begin + high * size
            block_shape[axis] = high - low
            rest += wanted[place + 1 :]
            _check_axes(shape, axis + 1, wanted[place + 1 :])
            break
        row = part + extent if part < 0 else part
        if not 0 <= row < extent:
            msg = f"index {part} is out of bounds for axis {axis} of {extent}"
            raise IndexError(msg)
        size //= extent
        begin, end = begin + row * size, begin + (row + 1) * size
        block_shape[axis] = 1
        rest.append(0)
        axis += 1
    return begin, end, tuple(block_shape), tuple(rest)


def _slice_of_block(chosen: range) -> tuple[int, int, slice]:
    """Rows that a slice selects; -> first, one past the last, the slice among these."""
    if not len(chosen):
        return 0, 0, slice(0, 0)
    low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1
    return low, high, slice(None, None, chosen.step)


def _check_axes(shape: tuple[int, ...], axis: int, parts: list[Any]) -> None:
    """Check integers behind the first slice before anything is decoded for them."""
    if Ellipsis in parts:
        return
    for part in parts:
        if part is None:
            continue
        if isinstance(part, int) and not -shape[axis] <= part < shape[axis]:
            msg = f"index {part} is out of bounds for axis {axis} of {shape[axis]}"
            raise IndexError(msg)
        axis += 1


def _not_basic(part: Any) -> IndexError:
    msg = f"index {part!r:.100} is no integer, slice, Ellipsis or None: read_slice knows no other"
    return IndexError(msg)
