"""`SafeOpen`: a container opened lazily, as `safetensors.safe_open` opens its files."""

from __future__ import annotations

import os
from operator import index as as_int
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from z4ai.container import st_header
from z4ai.decoder import check_output
from z4ai.dtypes import numpy_dtype
from z4ai.integrations._archive import Archive
from z4ai.integrations._extras import need, need_torch
from z4ai.integrations._load import load_all, load_one, resolve_device
from z4ai.integrations._memory import item_nbytes, memory_shape
from z4ai.integrations._rows import read_rows, rows_of
from z4ai.integrations._tensors import dtype_of, tensor_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from z4ai.container.st_header import Tensor as Row
    from z4ai.options import Limits

__all__ = ["SafeOpen", "Slice", "check_backend"]

_TORCH = ("pt", "torch", "pytorch")
_NUMPY = ("np", "numpy")
_OTHERS = ("tf", "tensorflow", "jax", "flax", "mlx", "paddle")
_BACKENDS = ("mmap", "pread")
# What safetensors knows as a device; the others of these may have a number.
_DEVICES = ("cpu", "mps", "cuda", "npu", "xpu", "xla", "mlu", "musa", "hpu")


class SafeOpen:
    """A container that gives any tensor, or a part of one, without the rest.

    Takes the place of `safetensors.safe_open` where the file is a container. Threads may share
    one. Files opened last keep their index in memory, so that opening them again costs no read
    of it.

    Parameters
    ----------
    filename : path-like
        The container.
    framework : {"pt", "torch", "pytorch", "np", "numpy"}
        What tensors are made of.
    device : str, int, torch.device or None
        Where they go; None is ``"cpu"``.
    backend : {"mmap", "pread"}
        For compatibility: containers are always read by ranges.
    limits : Limits, optional
        What may be allocated because the file says so.
    threads : int, optional
        Threads that one read may use. Default: `Z4AI_NUM_THREADS`, or the processors that this
        process may use.

    Raises
    ------
    FormatError
        If the file is no container, or damaged.
    SafetensorError
        If framework, device or backend is not known.
    OSError
        If it cannot be read.

    Examples
    --------
    >>> import z4ai
    >>> from z4ai.integrations import SafeOpen
    >>> from z4ai.safetensors import compress_file
    >>> _ = compress_file("model.safetensors", "model.zstn")
    >>> with SafeOpen("model.zstn", framework="np") as file:
    ...     print(file.keys(), file.metadata())
    ...     print(file.get_slice("encoder.weight")[-4:, ::16].shape)
    ['encoder.bias', 'encoder.weight'] {'format': 'pt'}
    (4, 4)
    """

    def __init__(
        self,
        filename: str | os.PathLike[str],
        framework: str,
        device: Any = "cpu",
        *,
        backend: str = "mmap",
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> None:
        self._framework = _check_framework(framework)
        _check_device(device, self._framework)
        self._device = device
        check_backend(backend)
        self._archive: Archive | None = Archive(filename, limits=limits, threads=threads)

    def __enter__(self) -> SafeOpen:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # Slices that were taken keep the file open.
        self._archive = None

    def __reduce__(self) -> NoReturn:
        msg = f"cannot pickle {type(self).__name__!r} object: open the file where it is read"
        raise TypeError(msg)

    def __repr__(self) -> str:
        archive = self._archive
        state = "closed" if archive is None else f"{len(archive.tensors)} tensors"
        return f"<SafeOpen: {state}>"

    def keys(self) -> list[str]:
        """Return the names of the tensors, sorted."""
        return sorted(self._open().index.places)

    def offset_keys(self) -> list[str]:
        """Return the names of the tensors, in the order of their data."""
        return list(self._open().index.places)

    def metadata(self) -> dict[str, str] | None:
        """Return the file's `__metadata__`; None if it has none."""
        metadata = self._open().index.container.header.metadata
        return None if metadata is None else dict(metadata)

    def get_tensor(self, name: str) -> Any:
        """Decode a tensor.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        torch.Tensor or ndarray
            New and writable.

        Raises
        ------
        SafetensorError
            If there is no such tensor, or the file is closed.
        FormatError
            If the tensor is damaged.
        TypeError
            If the framework has no such dtype.
        """
        archive, row = self._find(name)
        if self._framework == "np":
            _numpy_dtype(row)
            return _array_of(row, archive.read(name), row.shape)
        return load_one(archive, name, resolve_device(self._device))

    def get_tensors(self) -> dict[str, Any]:
        """Decode all tensors; none shares memory with another, as with `get_tensor`."""
        archive = self._open()
        if self._framework == "np":
            check_output(sum(row.nbytes for row in archive.tensors), archive.limits)
            for row in archive.tensors:
                _numpy_dtype(row)
            return {
                row.name: _array_of(row, archive.read(row.name), row.shape)
                for row in archive.tensors
            }
        return load_all(archive, resolve_device(self._device), tie=False)

    def get_slice(self, name: str) -> Slice:
        """Return what decodes a part of a tensor when it is indexed.

        Parameters
        ----------
        name : str
            Its name.

        Returns
        -------
        Slice
            Usable after the file is closed, too.

        Raises
        ------
        SafetensorError
            If there is no such tensor, or the file is closed.
        """
        archive, row = self._find(name)
        return Slice(archive, row, self._framework, self._device)

    @property
    def _n_chunks(self) -> int:
        """Chunks decoded so far."""
        return self._open().n_chunks

    def _open(self) -> Archive:
        if self._archive is None:
            raise _error("File is closed")
        return self._archive

    def _find(self, name: str) -> tuple[Archive, Row]:
        archive = self._open()
        _check_name(name)
        found = archive.find(name)
        if found is None:
            raise _error(f"File does not contain tensor {name}")
        return archive, found[0]


class Slice:
    """A tensor of which any part can be decoded; `SafeOpen.get_slice` makes it.

    With torch, an index means what it means to a tensor. With NumPy, it is made of integers,
    slices with positive steps, and one Ellipsis, as safetensors has it there.

    Examples
    --------
    >>> from z4ai.integrations import SafeOpen
    >>> from z4ai.safetensors import compress_file
    >>> _ = compress_file("model.safetensors", "model.zstn")
    >>> weight = SafeOpen("model.zstn", "np").get_slice("encoder.weight")
    >>> weight.get_shape(), weight.get_dtype(), weight[1, :3].tolist()
    ([64, 64], 'F32', [-0.484375, -0.484130859375, -0.48388671875])
    """

    def __init__(self, archive: Archive, row: Row, framework: str, device: Any) -> None:
        self._archive = archive
        self._row = row
        self._framework = framework
        self._device = device

    def __repr__(self) -> str:
        return f"<Slice: {self._row.name!r}, {self._row.dtype} {list(self._row.shape)}>"

    def get_shape(self) -> list[int]:
        """Return the shape of the tensor, in elements."""
        return list(self._row.shape)

    def get_dtype(self) -> str:
        """Return its dtype as safetensors spells it, such as ``"BF16"``."""
        return self._row.dtype

    def __getitem__(self, index: Any) -> Any:
        if self._framework == "np":
            _numpy_dtype(self._row)
            offset, shape, strides = _resolve(memory_shape(self._row), index)
            content = self._archive.read_strided(self._row.name, offset, shape, strides)
            return _array_of(self._row, content, shape)
        part = self._torch_part(index)
        device = resolve_device(self._device)
        return part if device.type == "cpu" else part.to(device)

    def _torch_part(self, index: Any) -> Any:
        torch = need_torch()
        dtype_of(self._row)
        shape = memory_shape(self._row)
        # A tensor without memory: torch itself says what the index means, or why it means nothing.
        phantom = torch.empty(shape, dtype=torch.uint8, device="meta")
        if _is_basic(index):
            return self._read(phantom[index])
        first, rest = _peel(index)
        if first:
            part = self._read(phantom[first])
            return part[tuple(slice(None) for f in first if isinstance(f, slice)) + rest]
        rows = rows_of(rest[0], shape) if rest else None
        if rows is None:
            return self._read(phantom)[index]
        chosen, places = rows
        block = tensor_of(
            self._row,
            read_rows(self._archive, self._row, chosen),
            (len(chosen), *shape[1:]),
        )
        return block[(torch.from_numpy(places), *rest[1:])]

    def _read(self, view: Any) -> Any:
        """Decode what a view of the phantom shows."""
        content = self._archive.read_strided(
            self._row.name, view.storage_offset(), view.shape, view.stride()
        )
        return tensor_of(self._row, content, tuple(view.shape))


# --- Indexes --------------------------------------------------------------------------------------


def _is_integer(part: Any) -> bool:
    if isinstance(part, bool | np.bool_ | np.ndarray) or hasattr(part, "dim"):
        return False
    return hasattr(part, "__index__")


def _is_basic(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(p is None or p is Ellipsis or isinstance(p, slice) or _is_integer(p) for p in parts)


def _peel(index: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Split off integers at the front and the first slice: they alone say which part is read."""
    parts = index if isinstance(index, tuple) else (index,)
    for k, part in enumerate(parts):
        if isinstance(part, slice):
            return parts[: k + 1], parts[k + 1 :]
        if not _is_integer(part):
            return parts[:k], parts[k:]
    return parts, ()


def _resolve(shape: Sequence[int], index: Any) -> tuple[int, tuple[int, ...], tuple[int, ...]]:
    """Where the elements lie that an index of NumPy chooses: offset, shape, strides."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if isinstance(index, list):
        # What safetensors does with an empty list, and with another.
        if index:
            raise _index_error("non-empty lists are not implemented")
        parts = [slice(0, 0)]
    n_dots = sum(part is Ellipsis for part in parts)
    if n_dots > 1:
        raise _index_error("only one ellipsis (...) is allowed")
    if len(parts) - n_dots > len(shape):
        raise _index_error(f"{len(parts) - n_dots} indexes for a tensor of {len(shape)} dimensions")
    if n_dots:
        at = next(k for k, part in enumerate(parts) if part is Ellipsis)
        parts[at : at + 1] = [slice(None)] * (len(shape) - len(parts) + 1)
    parts += [slice(None)] * (len(shape) - len(parts))
    stride = int(np.prod(shape, dtype=object))
    offset = 0
    extents, strides = [], []
    for axis, (part, extent) in enumerate(zip(parts, shape, strict=True)):
        stride = stride // extent if extent else 0
        if isinstance(part, slice):
            step = 1 if part.step is None else as_int(part.step)
            if step < 1:
                raise _index_error(f"slice step must be a positive integer, got {step}")
            start, stop, step = part.indices(extent)
            extents.append(len(range(start, stop, step)))
            strides.append(step * stride)
            offset += start * stride
            continue
        if not hasattr(part, "__index__") or isinstance(part, np.ndarray):
            raise _index_error(f"expected slice, int, or ellipsis, got {type(part).__name__}")
        row = as_int(part)
        if not -extent <= row < extent:
            raise _index_error(f"index {row} is out of bounds for axis {axis} of {extent}")
        offset += row % extent * stride
    return offset, tuple(extents), tuple(strides)


# --- Checks ---------------------------------------------------------------------------------------


def _numpy_dtype(row: Row) -> np.dtype[Any]:
    item_nbytes(row)
    try:
        return numpy_dtype(st_header.dtype_of(row.dtype))
    except ValueError:
        msg = f"NumPy has no dtype for {row.dtype!r} (tensor {row.name!r}): open it as 'pt'"
        raise TypeError(msg) from None


def _array_of(row: Row, content: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Any:
    return content.view(_numpy_dtype(row)).reshape(shape)


def _check_framework(framework: Any) -> str:
    if not isinstance(framework, str):
        msg = f"framework is a {type(framework).__name__}, expected a string"
        raise TypeError(msg)
    if framework in _TORCH:
        need_torch()
        return "pt"
    if framework in _NUMPY:
        return "np"
    if framework in _OTHERS:
        msg = f"z4ai loads into torch or NumPy, not {framework}: decompress the file for that"
        raise _error(msg)
    raise _error(f"framework {framework} is invalid")


def check_backend(backend: Any) -> None:
    """Refuse what safetensors does not know, though all are the same here."""
    if backend not in _BACKENDS:
        known = ", ".join(_BACKENDS)
        raise _error(f"backend {backend!r} is invalid (expected one of: {known})")


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        msg = f"a tensor's name is a string, got {type(name).__name__}"
        raise TypeError(msg)


def _check_device(device: Any, framework: str) -> None:
    name = str(device).partition(":")[0]
    is_number = isinstance(device, int) and not isinstance(device, bool) and device >= 0
    if device is None or is_number:
        name = "cpu" if device is None else "cuda"
    if name not in _DEVICES:
        raise _error(f"device {device} is invalid")
    if framework == "np" and name != "cpu":
        raise _error(f"Device {device} is not supported for framework numpy")


def _safetensor_error() -> type[Exception]:
    """The error of safetensors, which callers catch; without it, ours."""
    try:
        found: type[Exception] = need("safetensors").SafetensorError
    except ImportError:
        from z4ai.errors import Z4Error  # noqa: PLC0415 - the only case in which it is needed

        return Z4Error
    return found


def _error(msg: str) -> Exception:
    return _safetensor_error()(msg)


def _index_error(msg: str) -> Exception:
    class SliceError(_safetensor_error(), IndexError):  # type: ignore[misc]
        """What safetensors raises, and what everybody else does."""

    return SliceError(msg)
