"""`.safetensors` files as what distinguishes them from a base, tensor by tensor, and back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from z4ai._atomic import AtomicFile
from z4ai._progress import Progress
from z4ai.container.original import check_restores
from z4ai.container.sink import WriteOut, collect
from z4ai.container.source import open_source, source_of_buffer
from z4ai.decoder import check_output
from z4ai.deltas.encode import Compression
from z4ai.deltas.models import open_base, source_of
from z4ai.deltas.reader import DeltaReader
from z4ai.deltas.restore import Restore
from z4ai.deltas.stats import describe, way_names
from z4ai.deltas.z4dm import frames_of, parse_model_delta
from z4ai.options import NO_LIMITS, Limits, resolve_effort, resolve_limits

if TYPE_CHECKING:
    from z4ai._progress import ProgressWish

    Path = str | bytes | os.PathLike[Any]

__all__ = [
    "DeltaReader",
    "compress",
    "compress_file",
    "decompress",
    "decompress_file",
    "info",
    "open",
]


def compress(
    data: Any,
    base: Any,
    *,
    effort: str | None = None,
    threads: int | None = None,
    progress: ProgressWish = None,
) -> bytes:
    """Compress the bytes of a `.safetensors` file against a base.

    Parameters
    ----------
    data : buffer
        The file.
    base : buffer, path-like or DeltaReader
        A model that it resembles: a `.safetensors` file or a `ZSTN` container, in memory or by
        path; or a reader of another model delta.
    effort : {"fast", "balanced", "default", "max"}, optional
        How much to try. None is ``"balanced"``.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    progress : bool or callable, optional
        True draws a bar; a callable is called with ``(done_bytes, total_bytes)``.

    Returns
    -------
    bytes
        The same as `compress_file` writes.

    Raises
    ------
    FormatError
        If safetensors would refuse the file or the base.

    Examples
    --------
    >>> from pathlib import Path
    >>> from z4ai import model_delta
    >>> finetuned = Path("finetuned.safetensors").read_bytes()
    >>> base = Path("base.safetensors").read_bytes()
    >>> blob = model_delta.compress(finetuned, base)
    >>> model_delta.decompress(blob, base) == finetuned
    True
    """
    tier = resolve_effort(effort)
    known = open_base(base, NO_LIMITS, threads)
    try:
        job = Compression(source_of_buffer(data), known)
        with Progress(progress, job.nbytes, "compress") as bar:
            return collect(job.bound(), lambda sink: job.write(sink, tier, threads, bar.update))
    finally:
        known.close()


def decompress(
    blob: Any,
    base: Any,
    *,
    threads: int | None = None,
    progress: ProgressWish = None,
    limits: Limits | None = None,
) -> bytes:
    """Restore the bytes of the `.safetensors` file that a model delta in memory holds.

    Parameters
    ----------
    blob : buffer
        The model delta.
    base : buffer, path-like or DeltaReader
        The model that it was made against, however it is stored now. It is compared with what the
        delta tells of it before anything is restored.
    threads, progress
        As `compress`.
    limits : Limits, optional
        What may be allocated because the delta says so.

    Returns
    -------
    bytes
        The file.

    Raises
    ------
    BaseMismatchError
        If the base is another model.
    FormatError
        If `blob` is no model delta, or damaged.
    LimitError
        If the file or the index is larger than `limits` allow.

    Examples
    --------
    >>> from pathlib import Path
    >>> from z4ai import model_delta
    >>> finetuned = Path("finetuned.safetensors").read_bytes()
    >>> blob = model_delta.compress(finetuned, "base.safetensors")
    >>> try:
    ...     model_delta.decompress(blob, "finetuned.safetensors")
    ... except ValueError as error:
    ...     print(type(error).__name__)
    BaseMismatchError
    """
    limits = resolve_limits(limits)
    known = open_base(base, limits, threads)
    try:
        job = Restore(source_of_buffer(blob), known, limits)
        job.check_base()
        check_output(job.original_nbytes, limits)
        job.check_claims()
        with Progress(progress, job.original_nbytes, "decompress") as bar:
            return collect(job.original_nbytes, lambda sink: job.write(sink, threads, bar.update))
    finally:
        known.close()


def compress_file(
    src: Path,
    base: Any,
    dst: Path,
    *,
    effort: str | None = None,
    threads: int | None = None,
    progress: ProgressWish = None,
    verify: bool = False,
) -> dict[str, Any]:
    """Compress a `.safetensors` file against a base.

    Parameters
    ----------
    src : path-like
        The file.
    base : path-like, buffer or DeltaReader
        As `compress`.
    dst : path-like
        Where to write. It is replaced only when the model delta is complete and on the disk; until
        then a temporary file lies beside it.
    effort, threads, progress
        As `compress`.
    verify : bool
        Restore what was written and compare it with `src` before `dst` is replaced.

    Returns
    -------
    dict
        ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct``; ``original`` and
        ``stored``, the first two again; ``n_tensors``, and how many of them took which way:
        ``n_copied`` from the base, ``n_delta``, ``n_lowrank``, ``n_scratch``, ``n_shared`` with
        another tensor of the file; and ``n_aligned``, the number of those whose counterpart was
        found by content or under another shape.

    Raises
    ------
    FormatError
        If safetensors would refuse the file or the base. If `verify` finds a difference.
    ValueError
        If `dst` is the base: without it, nobody could restore what was written.
    OSError
        If a file cannot be read or written.

    Examples
    --------
    >>> from z4ai import model_delta
    >>> stats = model_delta.compress_file(
    ...     "finetuned.safetensors", "base.safetensors", "finetuned.z4dm"
    ... )
    >>> stats["ratio"] > 3, stats["n_copied"], stats["n_delta"]
    (True, 1, 1)
    """
    tier = resolve_effort(effort)
    source = open_source(src)
    try:
        known = open_base(base, NO_LIMITS, threads)
        try:
            _check_apart(base, dst)
            job = Compression(source, known)
            with AtomicFile(dst, like=src) as target:
                passes = 2 if verify else 1
                with Progress(progress, source.nbytes * passes, "compress") as bar:
                    stats = job.write(WriteOut(target.write), tier, threads, bar.update)
                    if verify:
                        check_restores(
                            source,
                            target.temporary,
                            lambda copy, sink: Restore(copy, known, NO_LIMITS).write(
                                sink, threads, bar.update
                            ),
                        )
                # Some systems do not replace a file that is open.
                source.close()
                known.close()
                target.commit()
        finally:
            known.close()
    finally:
        source.close()
    return stats


def decompress_file(
    src: Path,
    base: Any,
    dst: Path,
    *,
    threads: int | None = None,
    progress: ProgressWish = None,
    limits: Limits | None = None,
) -> dict[str, Any]:
    """Restore the file that `compress_file` compressed, byte for byte.

    Parameters
    ----------
    src : path-like
        The model delta.
    base : path-like, buffer or DeltaReader
        The model that it was made against, however it is stored now.
    dst : path-like
        Where to write. It is replaced only when the file is complete, and both it and the base
        have been compared with what the delta tells of them.
    threads, progress, limits
        As `decompress`; of the limits only ``max_table_nbytes`` applies.

    Returns
    -------
    dict
        As `compress_file`.

    Raises
    ------
    BaseMismatchError
        If the base is another model.
    FormatError
        If `src` is no model delta, or damaged; `tensor` names the tensor.
    LimitError
        If its index is larger than `limits` allow.
    OSError
        If a file cannot be read or written.

    Examples
    --------
    >>> from pathlib import Path
    >>> from z4ai import model_delta
    >>> _ = model_delta.compress_file("finetuned.safetensors", "base.safetensors", "finetuned.z4dm")
    >>> _ = model_delta.decompress_file("finetuned.z4dm", "base.safetensors", "again.safetensors")
    >>> Path("again.safetensors").read_bytes() == Path("finetuned.safetensors").read_bytes()
    True
    """
    limits = resolve_limits(limits)
    source = open_source(src)
    try:
        known = open_base(base, limits, threads)
        try:
            job = Restore(source, known, limits)
            with AtomicFile(dst, like=src) as target:
                with Progress(progress, job.original_nbytes, "decompress") as bar:
                    job.write(WriteOut(target.write), threads, bar.update)
                stats = job.stats()
                source.close()
                known.close()
                target.commit()
        finally:
            known.close()
    finally:
        source.close()
    return stats


def info(delta: Any, *, limits: Limits | None = None) -> dict[str, Any]:
    """Describe a model delta, without its base and without decoding it.

    Parameters
    ----------
    delta : buffer or path-like
        The model delta.
    limits : Limits, optional
        For its index.

    Returns
    -------
    dict
        What `compress_file` returns, and ``base_bytes``, ``base_digest``, ``target_digest`` (hex),
        ``metadata``, and ``tensors``, a list of dicts: ``name``, ``dtype``, ``shape``, ``nbytes``,
        ``way``, and ``encoded_nbytes``, the size of the frames it lies in, alone or with others.

    Raises
    ------
    FormatError, LimitError, OSError
        As `open`.

    Examples
    --------
    >>> from z4ai import model_delta
    >>> _ = model_delta.compress_file("finetuned.safetensors", "base.safetensors", "finetuned.z4dm")
    >>> found = model_delta.info("finetuned.z4dm")
    >>> [(tensor["name"], tensor["way"]) for tensor in found["tensors"]]
    [('encoder.weight', 'delta'), ('encoder.bias', 'copied')]
    """
    source = source_of(delta)
    try:
        found = parse_model_delta(source, resolve_limits(limits))
        tensors = [
            {
                "name": tensor.name,
                "dtype": tensor.dtype,
                "shape": tensor.shape,
                "nbytes": tensor.nbytes,
                "way": way,
                "encoded_nbytes": sum(nbytes for _, nbytes in frames_of(entry)),
            }
            for tensor, entry, way in zip(
                found.header.tensors, found.entries, way_names(found.entries), strict=True
            )
        ]
        return {
            **describe(found, source.nbytes),
            "base_bytes": found.ends.base_nbytes,
            "base_digest": f"{found.ends.base_digest:032x}",
            "target_digest": f"{found.ends.target_digest:032x}",
            "metadata": found.header.metadata,
            "tensors": tensors,
        }
    finally:
        source.close()


def open(
    delta: Any, base: Any, *, threads: int | None = None, limits: Limits | None = None
) -> DeltaReader:
    """Open a model delta beside its base, to read single tensors.

    Parameters
    ----------
    delta : path-like or buffer
        The model delta.
    base : path-like, buffer or DeltaReader
        The model that it was made against; only its header is read now. A reader stays the
        caller's to close.
    threads : int, optional
        Threads that one read may use.
    limits : Limits, optional
        What may be allocated because the delta says so.

    Returns
    -------
    DeltaReader
        The reader, which may be the base of another delta.

    Raises
    ------
    BaseMismatchError
        If the base is another model, as far as its header tells; else reading will.
    FormatError
        If it is no model delta, or damaged.
    LimitError
        If its index is larger than `limits` allow.
    OSError
        If a file cannot be read.

    Examples
    --------
    >>> from z4ai import model_delta
    >>> _ = model_delta.compress_file("finetuned.safetensors", "base.safetensors", "finetuned.z4dm")
    >>> with model_delta.open("finetuned.z4dm", "base.safetensors") as reader:
    ...     reader.read_numpy("encoder.weight").shape
    (64, 64)
    """
    limits = resolve_limits(limits)
    source = source_of(delta)
    try:
        known = open_base(base, limits, threads)
        try:
            return DeltaReader(source, known, limits, threads)
        except BaseException:
            known.close()
            raise
    except BaseException:
        source.close()
        raise


def _check_apart(base: Any, dst: Path) -> None:
    """Check that a delta does not take the place of the file that it is made against."""
    if isinstance(base, str | os.PathLike) and os.path.exists(dst) and os.path.samefile(base, dst):
        msg = f"{os.fsdecode(dst)!r} is the base: what is written could not be read without it"
        raise ValueError(msg)
