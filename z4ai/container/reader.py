"""`ZstnReader`: any tensor of a `ZSTN` container, or a part of it, without the rest."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai.container import zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.indexing import narrow
from z4ai.container.sink import Discard, IntoMemory
from z4ai.container.source import Source, open_source, source_of_buffer
from z4ai.container.tensor_reader import TensorReader, empty, numpy_dtype_of
from z4ai.decoder import check_output
from z4ai.options import Limits, resolve_limits

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from z4ai.container.st_header import Tensor
    from z4ai.container.zstn import Container, Location

__all__ = ["ZstnReader"]


class ZstnReader(TensorReader):
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
        self._container = zstn.parse_container(source, self._limits)
        super().__init__(self._container.header_bytes, self._container.header)

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

    # --- What is in it ----------------------------------------------------------------------------

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
        dtype = numpy_dtype_of(tensor)
        begin, end, block_shape, rest = narrow(tensor.shape, index)
        item = dtype.itemsize
        nbytes = (end - begin) * item
        check_output(nbytes, self._limits)
        decoder = self._decoder()
        if nbytes:
            decoder.frame_index(tensor, location)
        block = empty(tensor, block_shape, dtype)
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
        self._check_open()
        container = self._container
        once = {(*location, tensor.nbytes): k for k, (tensor, location) in _pairs(container)}
        tensors = [container.header.tensors[k] for k in once.values()]
        locations = [container.locations[k] for k in once.values()]
        threads = self._threads if threads is None else threads
        decoder = TensorDecoder(self._source, self._limits, threads)
        decoder.decode_all(tensors, locations, Discard())

    # --- Inside -----------------------------------------------------------------------------------

    def _tensor(self, name: str) -> tuple[Tensor, Location]:
        k = self._number(name)
        return self._container.header.tensors[k], self._container.locations[k]

    def _decoder(self) -> TensorDecoder:
        return TensorDecoder(self._source, self._limits, self._threads)

    def _check_claim(self, k: int) -> None:
        container = self._container
        check_output(container.header.tensors[k].nbytes, self._limits)
        self._decoder().check_claims([container.header.tensors[k]], [container.locations[k]])

    def _decode_into(self, k: int, out: NDArray[np.uint8]) -> None:
        tensor, location = self._container.header.tensors[k], self._container.locations[k]
        self._decoder().decode_all([tensor], [location], IntoMemory(out))


def _pairs(container: Container) -> Iterator[tuple[int, tuple[Tensor, Location]]]:
    return enumerate(zip(container.header.tensors, container.locations, strict=True))
