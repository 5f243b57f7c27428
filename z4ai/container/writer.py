"""`ZstnWriter`: a `ZSTN` container tensor by tensor, out of arrays in memory."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai._atomic import AtomicFile
from z4ai._buffers import array_of, bytes_of
from z4ai._fast.hashing import xxh3_128
from z4ai._fileobj import write_all
from z4ai.container import st_header, zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.dedup import SHARED_NBYTES
from z4ai.container.encode import FrameWaves
from z4ai.container.sink import WriteOut, put
from z4ai.container.small import SmallTensors, is_small
from z4ai.container.source import open_source
from z4ai.container.st_header import Tensor
from z4ai.dtypes import resolve
from z4ai.options import NO_LIMITS, resolve_effort
from z4ai.stream import stats_of

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType
    from typing import BinaryIO

    from numpy.typing import NDArray

    from z4ai.container.zstn import Location

    # Whether a tensor may share a frame, and its number among those, or that of its frame.
    _Number = tuple[bool, int]

__all__ = ["ZstnWriter", "container_stats"]

# Smaller content waits for others, so that one run codes many tensors.
_WAITING_NBYTES = 1 << 20


class ZstnWriter:
    """Writer of a `ZSTN` container. Add tensors, then `close`; or use it in a ``with`` block.

    The file appears under its name when it is complete. If the block ends by an exception, or
    `close` is never called, nothing appears.

    Parameters
    ----------
    file : path-like or binary file object
        Where to write. A file object is written in order, need not seek, stays open, and cannot
        be unwritten if an error occurs.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"balanced"``.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    metadata : dict of str to str, optional
        The `__metadata__` of the `.safetensors` file that the container stands for.

    Notes
    -----
    In that file the tensors lie by falling size of their elements, so that each is aligned, and
    otherwise in the order in which they were added. Small ones of one dtype share a frame where
    that is smaller. Identical tensors are stored once, except in
    a file object.

    Examples
    --------
    >>> import io, numpy as np
    >>> from z4ai.safetensors import ZstnReader, ZstnWriter
    >>> file = io.BytesIO()
    >>> with ZstnWriter(file) as writer:
    ...     writer.add("w", np.ones(3, np.float32))
    >>> ZstnReader.from_bytes(file.getvalue()).read_numpy("w")
    array([1., 1., 1.], dtype=float32)
    """

    def __init__(
        self,
        file: str | bytes | os.PathLike[Any] | BinaryIO,
        *,
        effort: str | None = None,
        threads: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self._effort = resolve_effort(effort)
        self._threads = threads
        self._metadata = _check_metadata(metadata)
        self._tensors: list[Tensor] = []
        self._numbers: list[_Number | None] = []
        self._names: set[str] = set()
        self._digests: dict[tuple[int, int], _Number] = {}
        self._n_shared = 0
        self._stats: dict[str, Any] | None = None
        self._aborted = False
        self._failed = False
        self._atomic: AtomicFile | None = None
        if not hasattr(file, "write"):
            self._atomic = AtomicFile(file)
        self._sink = WriteOut(partial(write_all, self._atomic or file))
        put(self._sink, zstn.write_header())
        self._waves = FrameWaves(self._sink, zstn.HEADER_NBYTES, self._effort, threads)
        self._small = SmallTensors(self._waves, self._effort, threads)

    def __enter__(self) -> ZstnWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and (self._failed or not self._aborted):
            self.close()
        else:
            self.abort()

    def add(self, name: str, array: Any) -> None:
        """Add an array.

        Parameters
        ----------
        name : str
            Its name, which no other tensor has.
        array : array_like
            Of a dtype that safetensors knows; bf16 and fp8 are dtypes of ml_dtypes. Stored in C
            order and little-endian, as safetensors has it.

        Raises
        ------
        TypeError
            If safetensors has no such dtype, or the array is masked.
        ValueError
            If the name is taken, or is no text, or the writer is closed.
        OSError
            If the file cannot be written; that is its end then, as `abort`.
        """
        values = array_of(array)
        code = _code_of(values.dtype)
        if code is None:
            msg = f"safetensors has no dtype for {values.dtype} (tensor {name!r}): see add_raw"
            raise TypeError(msg)
        little = values.dtype.newbyteorder("<")
        if little != values.dtype:
            values = values.astype(little)
        self._add(name, code, values.shape, bytes_of(values))

    def add_raw(self, name: str, data: Any, dtype: str, shape: Sequence[int]) -> None:
        """Add a tensor by its bytes.

        Parameters
        ----------
        name : str
            Its name, which no other tensor has.
        data : buffer
            Its bytes, in C order and little-endian.
        dtype : str
            A code of safetensors, such as ``"BF16"`` or ``"F4"``.
        shape : sequence of int
            Its shape; together with `dtype` it gives the number of bytes.

        Raises
        ------
        ValueError
            If dtype and shape do not give that number of bytes, or as `add`.

        Examples
        --------
        >>> import io
        >>> from z4ai.safetensors import ZstnWriter
        >>> with ZstnWriter(io.BytesIO()) as writer:
        ...     writer.add_raw("packed", bytes(16), "F4", (4, 8))
        """
        content = bytes_of(data)
        extents = tuple(int(n) for n in shape)
        if min(extents, default=0) < 0:
            msg = f"shape is {extents}, expected no negative extent"
            raise ValueError(msg)
        nbytes = st_header.tensor_nbytes(dtype, extents)
        if nbytes is None:
            known = ", ".join(st_header.known_codes())
            msg = f"unknown dtype {dtype!r}: expected one of {known}"
            raise ValueError(msg)
        if nbytes != len(content):
            msg = f"{dtype} of shape {extents} has {nbytes} bytes, data has {len(content)}"
            raise ValueError(msg)
        self._add(name, dtype, extents, content)

    def close(self) -> dict[str, Any]:
        """Write index and footer, and bring the file to its name.

        Returns
        -------
        dict
            ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct``, ``n_tensors``,
            ``n_shared``. A second call returns the same.
        """
        if self._stats is not None:
            return dict(self._stats)
        self._check_open()
        try:
            self._stats = self._finish()
        except BaseException:
            self.abort()
            raise
        return dict(self._stats)

    def abort(self) -> None:
        """Give up: remove what has been written. Nothing after `close`."""
        if self._stats is None:
            self._aborted = True
            if self._atomic is not None:
                self._atomic.abort()

    # --- Inside -----------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._stats is not None or self._aborted:
            msg = "the writer is closed" + (": an earlier call failed" if self._failed else "")
            raise ValueError(msg)

    def _add(
        self, name: str, code: str, shape: tuple[int, ...], content: NDArray[np.uint8]
    ) -> None:
        self._check_open()
        self._check_name(name)
        number = None
        if len(content):
            try:
                number = self._find_same(content)
                if number is None:
                    number = self._encode(code, shape, content)
                else:
                    self._n_shared += 1
            except BaseException:
                # A part of a wave may be written: what follows it would not be where it should.
                self.abort()
                self._failed = True
                raise
        self._names.add(name)
        self._tensors.append(Tensor(name, code, shape, 0, len(content)))
        self._numbers.append(number)

    def _check_name(self, name: Any) -> None:
        if not isinstance(name, str):
            msg = f"a tensor's name is a string, got {type(name).__name__}"
            raise TypeError(msg)
        if name in self._names or name == st_header.METADATA:
            msg = f"the name {name!r} is taken"
            raise ValueError(msg)
        name.encode()

    def _encode(self, code: str, shape: tuple[int, ...], content: NDArray[np.uint8]) -> _Number:
        dtype = st_header.dtype_of(code)
        shares = is_small(len(content), self._effort)
        if shares:
            number = self._small.add(dtype, shape, content.copy())
        elif len(content) < _WAITING_NBYTES:

            def read_into(begin: int, view: memoryview) -> None:
                view[:] = content[begin : begin + len(view)].data

            number = self._waves.add(dtype, shape, len(content), read_into)
        else:
            number = self._waves.add_from(dtype, shape, content, 0, len(content))
            # The caller may change it from now on.
            self._waves.flush()
        if self._atomic is not None and len(content) >= SHARED_NBYTES:
            self._digests.setdefault((len(content), xxh3_128(content)), (shares, number))
        return shares, number

    def _location(self, number: _Number) -> Location:
        shares, k = number
        return self._small.location(k) if shares else (*self._waves.frames[k], 0)

    def _find_same(self, content: NDArray[np.uint8]) -> _Number | None:
        """Number of a tensor with the same bytes: by its hash, then by decoding it."""
        if self._atomic is None or len(content) < SHARED_NBYTES or not self._digests:
            return None
        number = self._digests.get((len(content), xxh3_128(content)))
        if number is None:
            return None
        waiting = self._small.waiting(number[1]) if number[0] else None
        if waiting is not None:
            return number if np.array_equal(waiting, content) else None
        self._waves.flush()
        same = True
        done = 0

        def compare(part: memoryview) -> None:
            nonlocal same, done
            same = same and np.array_equal(part, content[done : done + len(part)])
            done += len(part)

        source = open_source(self._atomic.temporary)
        try:
            tensor = Tensor("", "U8", (len(content),), 0, len(content))
            decoder = TensorDecoder(source, NO_LIMITS, self._threads)
            decoder.decode_all([tensor], [self._location(number)], WriteOut(compare))
        finally:
            source.close()
        return number if same else None

    def _finish(self) -> dict[str, Any]:
        self._small.flush()
        self._waves.flush()
        order = sorted(range(len(self._tensors)), key=self._alignment)
        tensors, locations = [], []
        pos = 0
        for k in order:
            tensor, number = self._tensors[k], self._numbers[k]
            tensors.append(tensor._replace(begin=pos, end=pos + tensor.nbytes))
            pos += tensor.nbytes
            locations.append(zstn.NO_LOCATION if number is None else self._location(number))
        header = st_header.write(tensors, self._metadata)
        # The index lists empty tensors as a reader of the header will sort them.
        places = {tensor.name: place for place, tensor in enumerate(tensors)}
        ordered = [places[tensor.name] for tensor in st_header.parse(header).tensors]
        end = zstn.write_end(
            header, [locations[place] for place in ordered], pos, self._waves.position, self._effort
        )
        put(self._sink, end)
        if self._atomic is not None:
            self._atomic.commit()
        return container_stats(
            8 + len(header) + pos,
            self._waves.position + len(end),
            len(tensors),
            self._n_shared,
        )

    def _alignment(self, k: int) -> int:
        return -st_header.dtype_of(self._tensors[k].dtype).item_nbytes


def container_stats(
    original_nbytes: int, compressed_nbytes: int, n_tensors: int, n_shared: int
) -> dict[str, Any]:
    """Describe what a container cost, with the keys that every door reports."""
    stats = stats_of(original_nbytes, compressed_nbytes)
    return {**stats, "n_tensors": n_tensors, "n_shared": n_shared}


def _code_of(dtype: np.dtype[Any]) -> str | None:
    if dtype.hasobject or dtype.names is not None:
        return None
    try:
        return st_header.st_code(resolve(dtype))
    except ValueError:
        return None


def _check_metadata(metadata: dict[Any, Any] | None) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not hasattr(metadata, "items"):
        msg = f"metadata maps strings to strings, got {type(metadata).__name__}"
        raise TypeError(msg)
    for key, text in metadata.items():
        if not isinstance(key, str) or not isinstance(text, str):
            msg = f"metadata maps strings to strings, got {key!r}: {text!r}"
            raise TypeError(msg)
        key.encode()
        text.encode()
    return dict(metadata)
