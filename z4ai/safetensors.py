"""`.safetensors` files to `ZSTN` containers and back, and containers of arrays in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai._atomic import AtomicFile
from z4ai._progress import Progress
from z4ai.container.compress import Compression
from z4ai.container.original import check_restores, parse_original
from z4ai.container.reader import ZstnReader
from z4ai.container.restore import plan_restore
from z4ai.container.sink import WriteOut, collect
from z4ai.container.source import open_source, source_of_buffer
from z4ai.container.st_header import Header
from z4ai.container.writer import ZstnWriter
from z4ai.decoder import check_output
from z4ai.dtypes import AUTO
from z4ai.options import NO_LIMITS, Limits, resolve_effort, resolve_limits

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping
    from typing import BinaryIO, Literal

    import numpy as np

    from z4ai._progress import ProgressWish

    Path = str | bytes | os.PathLike[Any]

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
        job = Compression(source, fallback)
        with AtomicFile(dst, like=src) as target:
            passes = 2 if verify else 1
            with Progress(progress, source.nbytes * passes, "compress") as bar:
                stats = job.write(WriteOut(target.write), tier, threads, bar.update)
                if verify:
                    check_restores(
                        source,
                        target.temporary,
                        lambda copy, sink: plan_restore(copy, NO_LIMITS).restore(
                            sink, threads, bar.update
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
        plan = plan_restore(source, resolve_limits(limits))
        with AtomicFile(dst, like=src) as target:
            with Progress(progress, plan.original_nbytes, "decompress") as bar:
                plan.restore(WriteOut(target.write), threads, bar.update)
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
    job = Compression(source_of_buffer(data), fallback)
    with Progress(progress, job.nbytes, "compress") as bar:
        return collect(job.bound(), lambda sink: job.write(sink, tier, threads, bar.update))


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
    plan = plan_restore(source_of_buffer(blob), limits)
    check_output(plan.original_nbytes, limits)
    plan.check_claims()
    with Progress(progress, plan.original_nbytes, "decompress") as bar:
        return collect(plan.original_nbytes, lambda sink: plan.restore(sink, threads, bar.update))


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


def _check_fallback(fallback: str | None) -> None:
    if fallback not in (None, "bytes", AUTO):
        msg = f"unknown fallback {fallback!r}: expected 'bytes', 'auto' or None"
        raise ValueError(msg)
