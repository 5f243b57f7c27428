"""`.safetensors` files to `ZSTN` containers and back, and containers of arrays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai import _wire
from z4ai._atomic import AtomicFile
from z4ai._progress import Progress
from z4ai.container import st_header, zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.dedup import same_as
from z4ai.container.encode import FrameWaves
from z4ai.container.original import check_restores, parse_original
from z4ai.container.reader import ZstnReader
from z4ai.container.sink import Sink, WriteOut, collect, put
from z4ai.container.small import SmallTensors, is_small
from z4ai.container.source import Source, open_source, read, source_of_buffer
from z4ai.container.st_header import Header, Tensor
from z4ai.container.writer import ZstnWriter, container_stats
from z4ai.decoder import check_output, index_of_range
from z4ai.dtypes import AUTO, OPAQUE, DType
from z4ai.errors import FormatError
from z4ai.options import NO_LIMITS, Limits, resolve_effort, resolve_limits
from z4ai.plan import BLOCKS_HEAD_NBYTES, find_blocks, may_have_blocks, resolve_or_guess

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import BinaryIO, Literal

    from numpy.typing import NDArray

    from z4ai._progress import ProgressWish
    from z4ai.container.zstn import Location
    from z4ai.stages.blocks import Layout

    Path = str | bytes | os.PathLike[Any]

# By what a file is judged that is no safetensors file.
_RUNS, _RUN_NBYTES = 16, 1 << 16

__all__ = [
    "ZstnReader",
    "ZstnWriter",
    "compress_bytes",
    "compress_file",
    "decompress_bytes",
    "decompress_file",
    "load_numpy",
    "read_header",
    "save_numpy",
]


def compress_file(
    src: Path,
    dst: Path,
    *,
    effort: str | None = None,
    threads: int | None = None,
    progress: ProgressWish = None,
    verify: bool = False,
    fallback: Literal["bytes", "auto"] | None = None,
) -> dict[str, Any]:
    """Compress a `.safetensors` file to a `ZSTN` container.

    Parameters
    ----------
    src, dst : path-like
        The file to read and the one to write, which may be the same. `dst` is replaced only when
        the container is complete and on the disk; until then a temporary file lies beside it.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"balanced"``.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    progress : bool or callable, optional
        True draws a bar; a callable is called with ``(done_bytes, total_bytes)``.
    verify : bool
        Decode what was written and compare it with `src` before `dst` is replaced.
    fallback : {"bytes", "auto"}, optional
        What to do with a file that safetensors would refuse: None raises; ``"bytes"`` compresses
        it as a plain `Z4AI` frame, which `decompress_file` reads as well; so does ``"auto"``, after
        a guess what its bytes are, as ``dtype="auto"`` of `z4ai.compress`: the way for GGUF files.

    Returns
    -------
    dict
        ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct``; ``n_tensors``, and
        ``n_shared``, the number of them that share the bytes of another one.

    Raises
    ------
    FormatError
        If safetensors would refuse the file; `tensor` names the tensor to blame. If `verify`
        finds a difference.
    OSError
        If a file cannot be read or written.

    Notes
    -----
    Memory is a few chunks a thread, whatever the size of the file and of its tensors.

    Examples
    --------
    >>> from z4ai.safetensors import compress_file, decompress_file
    >>> stats = compress_file("model.safetensors", "model.zstn", verify=True)
    >>> stats["n_tensors"], stats["ratio"] > 1
    (2, True)
    >>> decompress_file("model.zstn", "again.safetensors") == stats
    True
    """
    tier = resolve_effort(effort)
    _check_fallback(fallback)
    source = open_source(src)
    try:
        job = _Compression(source, fallback)
        with AtomicFile(dst, like=src) as target:
            passes = 2 if verify else 1
            with Progress(progress, source.nbytes * passes, "compress") as bar:
                stats = job.write(WriteOut(target.write), tier, threads, bar)
                if verify:
                    check_restores(
                        source,
                        target.temporary,
                        lambda copy, sink: _plan_restore(copy, NO_LIMITS).restore(
                            sink, threads, bar
                        ),
                    )
            # Some systems do not replace a file that is open.
            source.close()
            target.commit()
    finally:
        source.close()
    return stats


def decompress_file(
    src: Path,
    dst: Path,
    *,
    threads: int | None = None,
    progress: ProgressWish = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Restore the file that `compress_file` compressed, byte for byte.

    Parameters
    ----------
    src, dst : path-like
        The file to read and the one to write, which may be the same. `dst` is replaced only when
        it is complete and verified; until then a temporary file lies beside it.
    threads, progress
        As `compress_file`.
    limits : Limits, optional
        Only ``max_table_nbytes`` applies: the content is never held as a whole.

    Returns
    -------
    dict
        As `compress_file`.

    Raises
    ------
    FormatError
        If `src` is neither a container nor a frame, or damaged; `tensor` names the tensor.
    LimitError
        If its index is larger than `limits` allow.
    OSError
        If a file cannot be read or written.

    Examples
    --------
    >>> from z4ai.safetensors import compress_file, decompress_file
    >>> _ = compress_file("model.safetensors", "model.zstn")
    >>> _ = decompress_file("model.zstn", "again.safetensors")
    >>> with open("model.safetensors", "rb") as one, open("again.safetensors", "rb") as other:
    ...     one.read() == other.read()
    True
    """
    source = open_source(src)
    try:
        plan = _plan_restore(source, resolve_limits(limits))
        with AtomicFile(dst, like=src) as target:
            with Progress(progress, plan.original_nbytes, "decompress") as bar:
                plan.restore(WriteOut(target.write), threads, bar)
            source.close()
            target.commit()
    finally:
        source.close()
    return plan.stats()


def compress_bytes(
    data: Any,
    *,
    effort: str | None = None,
    threads: int | None = None,
    progress: ProgressWish = None,
    fallback: Literal["bytes", "auto"] | None = None,
) -> bytes:
    """Compress the bytes of a `.safetensors` file to those of a container.

    Parameters
    ----------
    data : buffer
        The file.
    effort, threads, progress, fallback
        As `compress_file`.

    Returns
    -------
    bytes
        The same as `compress_file` writes.

    Raises
    ------
    FormatError
        As `compress_file`.

    Examples
    --------
    >>> from z4ai.safetensors import compress_bytes, decompress_bytes
    >>> file = b'\\x02' + bytes(7) + b'{}'
    >>> decompress_bytes(compress_bytes(file)) == file
    True
    """
    tier = resolve_effort(effort)
    _check_fallback(fallback)
    job = _Compression(source_of_buffer(data), fallback)
    with Progress(progress, job.nbytes, "compress") as bar:
        return collect(job.bound(), lambda sink: job.write(sink, tier, threads, bar))


def decompress_bytes(
    blob: Any,
    *,
    threads: int | None = None,
    progress: ProgressWish = None,
    limits: Limits | None = None,
) -> bytes:
    """Restore the bytes of the `.safetensors` file that a container in memory holds.

    Parameters
    ----------
    blob : buffer
        The container.
    threads, progress
        As `compress_file`.
    limits : Limits, optional
        What may be allocated because the container says so.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    FormatError
        If `blob` is neither a container nor a frame, or damaged.
    LimitError
        If the file or the index is larger than `limits` allow.

    Examples
    --------
    >>> from z4ai.safetensors import compress_bytes, decompress_bytes
    >>> with open("model.safetensors", "rb") as file:
    ...     data = file.read()
    >>> decompress_bytes(compress_bytes(data)) == data
    True
    """
    limits = resolve_limits(limits)
    plan = _plan_restore(source_of_buffer(blob), limits)
    check_output(plan.original_nbytes, limits)
    plan.check_claims()
    with Progress(progress, plan.original_nbytes, "decompress") as bar:
        return collect(plan.original_nbytes, lambda sink: plan.restore(sink, threads, bar))


def save_numpy(
    tensors: Mapping[str, Any],
    file: Path | BinaryIO,
    metadata: dict[str, str] | None = None,
    *,
    effort: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write arrays to a container, as `safetensors.numpy.save_file` writes them to its file.

    Parameters
    ----------
    tensors : mapping of str to array_like
        The arrays, of dtypes that safetensors knows.
    file : path-like or binary file object
        Where to write.
    metadata : dict of str to str, optional
        Kept beside them.
    effort, threads
        As `compress_file`.

    Returns
    -------
    dict
        As `compress_file`.

    Examples
    --------
    >>> import io, numpy as np
    >>> from z4ai.safetensors import load_numpy, save_numpy
    >>> file = io.BytesIO()
    >>> save_numpy({"w": np.zeros(1 << 16, np.float16)}, file)["n_tensors"]
    1
    >>> load_numpy(file)["w"].shape
    (65536,)
    """
    with ZstnWriter(file, effort=effort, threads=threads, metadata=metadata) as writer:
        for name, array in tensors.items():
            writer.add(name, array)
        return writer.close()


def load_numpy(
    file: Path | BinaryIO, *, threads: int | None = None, limits: Limits | None = None
) -> dict[str, np.ndarray[Any, Any]]:
    """Read all tensors of a container into arrays.

    Parameters
    ----------
    file : path-like or seekable binary file object
        The container.
    threads, limits
        As `ZstnReader.open`.

    Returns
    -------
    dict of str to ndarray
        In the order of the tensors' data; each array is new, writable and its own.

    Raises
    ------
    TypeError
        If a tensor's dtype has no NumPy form: use `ZstnReader.read_raw`.
    FormatError, LimitError, OSError
        As `ZstnReader.open` and `ZstnReader.read_numpy`.

    Examples
    --------
    >>> from z4ai.safetensors import compress_file, load_numpy
    >>> _ = compress_file("model.safetensors", "model.zstn")
    >>> {name: array.shape for name, array in load_numpy("model.zstn").items()}
    {'encoder.weight': (64, 64), 'encoder.bias': (64,)}
    """
    with ZstnReader.open(file, threads=threads, limits=limits) as reader:
        return {name: reader.read_numpy(name) for name in reader}


def read_header(file: Path | BinaryIO) -> Header:
    """Read the header of a plain `.safetensors` file, and check it as `compress_file` does.

    Parameters
    ----------
    file : path-like or seekable binary file object
        The file.

    Returns
    -------
    Header
        ``tensors``, in the order of their data, each with ``name``, ``dtype``, ``shape``,
        ``begin``, ``end``, ``nbytes``; and ``metadata``.

    Raises
    ------
    FormatError
        If safetensors would refuse the file.

    Examples
    --------
    >>> from z4ai.safetensors import read_header
    >>> header = read_header("model.safetensors")
    >>> header.metadata, header.tensors[1].name, header.tensors[1].nbytes
    ({'format': 'pt'}, 'encoder.bias', 256)
    """
    source = open_source(file)
    try:
        return parse_original(source)[1]
    finally:
        source.close()


# --- Compressing ----------------------------------------------------------------------------------


def _check_fallback(fallback: str | None) -> None:
    if fallback not in (None, "bytes", AUTO):
        msg = f"unknown fallback {fallback!r}: expected 'bytes', 'auto' or None"
        raise ValueError(msg)


class _Compression:
    """A file to compress: parsed, or taken as bytes where that is wished."""

    def __init__(self, source: Source, fallback: str | None) -> None:
        self._source = source
        self.nbytes = source.nbytes
        self._header: Header | None = None
        self._header_bytes = b""
        self._fallback = fallback
        try:
            self._header_bytes, self._header = parse_original(source)
        except FormatError:
            if fallback is None:
                raise

    def bound(self) -> int:
        """Memory that `write` may touch: the content, around it frames and index, and one wave."""
        n_tensors = len(self._header.tensors) if self._header is not None else 1
        return self.nbytes + (self.nbytes >> 10) + 256 * n_tensors + (16 << 20)

    def write(self, sink: Sink, effort: str, threads: int | None, bar: Progress) -> dict[str, Any]:
        """Write the compressed file, and describe it."""
        if self._header is None:
            waves = FrameWaves(sink, 0, effort, threads, bar.update)
            dtype = OPAQUE
            blocks = None
            if self._fallback == AUTO:
                blocks = _find_blocks(self._source, effort)
                if blocks is None:
                    dtype = resolve_or_guess(AUTO, _spread(self._source), effort)
            self._add(waves, 0, _whole(self.nbytes), dtype, blocks)
            waves.flush()
            return container_stats(self.nbytes, waves.position, 0, 0)
        start = 8 + len(self._header_bytes)
        put(sink, zstn.write_header())
        bar.update(start)
        waves = FrameWaves(sink, zstn.HEADER_NBYTES, effort, threads, bar.update)
        tensors = self._header.tensors
        first = same_as(self._source, start, tensors)
        small = SmallTensors(waves, effort, threads)
        # Of each tensor that has bytes of its own: whether it is small, and its number.
        places: dict[int, tuple[bool, int]] = {}
        n_shared = 0
        for k, tensor in enumerate(tensors):
            if tensor.begin == tensor.end:
                continue
            dtype = st_header.dtype_of(tensor.dtype)
            if first[k] != k:
                n_shared += 1
                bar.update(tensor.nbytes)
            elif is_small(tensor.nbytes, effort):
                content = np.empty(tensor.nbytes, np.uint8)
                self._source.read_into(start + tensor.begin, content.data)
                places[k] = True, small.add(dtype, tensor.shape, content)
            else:
                places[k] = False, self._add(waves, start + tensor.begin, tensor, dtype)
        small.flush()
        waves.flush()
        locations: list[Location] = []
        for k in first:
            if k not in places:
                locations.append(zstn.NO_LOCATION)
                continue
            shares, number = places[k]
            own = small.location(number) if shares else (*waves.frames[number], 0)
            locations.append(own)
        data_nbytes = self._header.data_nbytes
        end = zstn.write_end(self._header_bytes, locations, data_nbytes, waves.position, effort)
        put(sink, end)
        return container_stats(self.nbytes, waves.position + len(end), len(tensors), n_shared)

    def _add(
        self,
        waves: FrameWaves,
        begin: int,
        tensor: Tensor,
        dtype: DType,
        blocks: Layout | None = None,
    ) -> int:
        source = self._source
        if source.memory is not None:
            memory = source.memory
            return waves.add_from(dtype, tensor.shape, memory, begin, tensor.nbytes, blocks)

        def read_into(at: int, view: memoryview) -> None:
            source.read_into(begin + at, view)

        return waves.add(dtype, tensor.shape, tensor.nbytes, read_into, blocks)


def _spread(source: Source) -> NDArray[np.uint8]:
    """Read runs from all over a file, at offsets that any width of elements divides."""
    if source.nbytes <= _RUNS * _RUN_NBYTES:
        return np.frombuffer(read(source, 0, source.nbytes), np.uint8)
    last = source.nbytes - _RUN_NBYTES
    starts = [last * run // (_RUNS - 1) // 8 * 8 for run in range(_RUNS)]
    return np.concatenate([np.frombuffer(read(source, at, _RUN_NBYTES), np.uint8) for at in starts])


def _find_blocks(source: Source, effort: str) -> Layout | None:
    """Find what blocks a file is made of, if its header tells."""
    magic = np.frombuffer(read(source, 0, min(4, source.nbytes)), np.uint8)
    if not may_have_blocks(AUTO, magic, effort):
        return None
    head = read(source, 0, min(BLOCKS_HEAD_NBYTES, source.nbytes))
    return find_blocks(AUTO, np.frombuffer(head, np.uint8), effort)


def _whole(nbytes: int) -> Tensor:
    """A file that is not looked into, as one tensor of bytes."""
    return Tensor("", "", (nbytes,), 0, nbytes)


# --- Restoring ------------------------------------------------------------------------------------


class _Restore:
    """What restores a file: a container, or a frame alone."""

    def __init__(
        self,
        source: Source,
        limits: Limits,
        head: bytes,
        tensors: list[Tensor],
        locations: list[Location],
        n_tensors: int,
    ) -> None:
        self._source = source
        self._limits = limits
        self._head = head
        self._tensors = tensors
        self._locations = locations
        self._n_tensors = n_tensors
        self.original_nbytes = len(head) + (tensors[-1].end if tensors else 0)

    def restore(self, sink: Sink, threads: int | None, bar: Progress) -> None:
        """Hand the whole file to `sink`, piece by piece."""
        if self._head:
            put(sink, self._head)
            bar.update(len(self._head))
        decoder = TensorDecoder(self._source, self._limits, threads, bar.update)
        decoder.decode_all(self._tensors, self._locations, sink)

    def check_claims(self) -> None:
        """Check, as far as that is cheap, that so much content can be in the file."""
        decoder = TensorDecoder(self._source, self._limits, 1)
        decoder.check_claims(self._tensors, self._locations)

    def stats(self) -> dict[str, Any]:
        stored = {location for location in self._locations if location[1]}
        with_data = sum(location[1] > 0 for location in self._locations)
        n_shared = with_data - len(stored)
        return container_stats(self.original_nbytes, self._source.nbytes, self._n_tensors, n_shared)


def _plan_restore(source: Source, limits: Limits) -> _Restore:
    magic = bytes(read(source, 0, min(4, source.nbytes)))
    if magic == _wire.MAGIC_FRAME:
        index = index_of_range(lambda at, n: read(source, at, n), source.nbytes, limits)
        whole = _whole(index.restored_nbytes)
        return _Restore(source, limits, b"", [whole], [(0, source.nbytes, 0)], 0)
    container = zstn.parse_container(source, limits)
    head = _wire.U64.pack(len(container.header_bytes)) + container.header_bytes
    tensors = container.header.tensors
    return _Restore(source, limits, head, tensors, container.locations, len(tensors))
