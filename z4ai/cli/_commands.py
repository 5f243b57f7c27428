"""What each command does with one input: a record for JSON, and a way to show it to people."""

from __future__ import annotations

import mmap
import os
from collections import Counter
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from z4ai import codec
from z4ai._wire import FORMAT_VERSION
from z4ai.cli import _files, _show
from z4ai.cli._files import CONTAINER, FRAME, PIPE, PLAIN, SAFETENSORS, UsageError
from z4ai.dtypes import AUTO
from z4ai.errors import FormatError
from z4ai.safetensors import ZstnReader, compress_file, decompress_file, read_header
from z4ai.stream import compress_stream, decompress_stream, stats_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["COMMANDS", "Result"]


_CONTAINERS = {CONTAINER: "zstn", SAFETENSORS: "zstn", FRAME: "z4ai", PLAIN: "z4ai"}


class Result(NamedTuple):
    """What a command found out about one input."""

    record: dict[str, Any]
    show: Callable[[], None]


class _Nowhere:
    """A file object that forgets."""

    def write(self, data: Any, /) -> int:
        return memoryview(data).nbytes


def _report(name: str, target: str, sizes: str) -> Callable[[], None]:
    """Say what became what; nothing in a pipeline, where other programs speak."""
    return lambda: None if target == PIPE else _show.say(f"{name} -> {target}: {sizes}")


def compress(args: argparse.Namespace, name: str) -> Result:
    """Compress one file."""
    with _files.input_file(name) as (file, found, nbytes):
        kind = PLAIN if args.raw else found
        if kind in (FRAME, CONTAINER):
            raise UsageError(f"{name}: is compressed already; --raw takes it as plain bytes")
        if kind == SAFETENSORS and (args.dtype is not None or args.shape is not None):
            what = "dtypes" if args.shape is None else "shapes"
            msg = f"{name}: a .safetensors file knows its {what}; --raw takes it as plain bytes"
            raise UsageError(msg)
        target = args.output or (PIPE if name == PIPE else _files.compressed_name(name, kind))
        _files.check_output_name(name, target, force=args.force)
        options = {"effort": args.effort, "threads": args.threads}
        with _show.progress(f"compress {name}", nbytes, quiet=args.quiet or args.json) as bar:
            if kind == SAFETENSORS:
                with _files.input_path(name, file) as source, _files.output_path(target) as out:
                    stats = compress_file(source, out, progress=bar.to, **options)
            else:
                options |= {"dtype": args.dtype or AUTO, "shape": args.shape}
                try:
                    with _files.output_file(target) as out_file:
                        stats = compress_stream(bar.reading(file), out_file, **options)
                except ValueError as error:
                    raise UsageError(f"{name}: {error}") from None
    sizes = _show.smaller(stats["original_bytes"], stats["compressed_bytes"])
    if kind != SAFETENSORS and args.dtype is None:
        sizes += f", taken for {stats['dtype'] or 'opaque bytes'}"
    record = {"output": target, "container": _CONTAINERS[kind], **stats}
    return Result(record, _report(name, target, sizes))


def decompress(args: argparse.Namespace, name: str) -> Result:
    """Restore one file."""
    with _files.input_file(name) as (file, kind, nbytes):
        _check_compressed(kind)
        target = args.output or (PIPE if name == PIPE else _files.restored_name(name, kind))
        _files.check_output_name(name, target, force=args.force)
        with _show.progress(f"decompress {name}", nbytes, quiet=args.quiet or args.json) as bar:
            if kind == CONTAINER:
                with _files.input_path(name, file) as path, _files.output_path(target) as out:
                    stats = decompress_file(path, out, threads=args.threads, progress=bar.to)
            else:
                source = bar.reading(file)
                with _files.output_file(target) as out_file:
                    original = decompress_stream(source, out_file, threads=args.threads)
                stats = stats_of(original, source.nbytes)
    record = {"output": target, "container": _CONTAINERS[kind], **stats}
    sizes = f"{_show.human(stats['compressed_bytes'])} -> {_show.human(stats['original_bytes'])}"
    return Result(record, _report(name, target, sizes))


def _check_compressed(kind: str) -> None:
    if kind not in (FRAME, CONTAINER):
        msg = "neither a z4ai frame nor a ZSTN container: begins with neither magic"
        raise FormatError(msg, offset=0)


def verify(args: argparse.Namespace, name: str) -> Result:
    """Decode one file to nowhere."""
    with _files.input_file(name) as (file, kind, nbytes):
        _check_compressed(kind)
        with _show.progress(f"verify {name}", nbytes, quiet=args.quiet or args.json) as bar:
            if kind == CONTAINER:
                with _files.input_path(name, file) as path, ZstnReader.open(path) as reader:
                    reader.verify(threads=args.threads)
                    original, compressed = reader.original_nbytes, reader.compressed_nbytes
            else:
                source = bar.reading(file)
                nowhere: Any = _Nowhere()
                original = decompress_stream(source, nowhere, threads=args.threads)
                compressed = source.nbytes
    record = {"container": _CONTAINERS[kind], **stats_of(original, compressed)}
    text = _show.printable(f"{name}: ok, {_show.human(original)} of content")
    return Result(record, lambda: print(text))


def info(args: argparse.Namespace, name: str) -> Result:
    """Describe one file."""
    with _files.input_file(name) as (file, kind, _):
        _check_compressed(kind)
        if kind == CONTAINER:
            with _files.input_path(name, file) as path:
                return _container_info(name, path)
        found = codec.info(_mapped(file))
    record = {"container": "z4ai", **found._asdict()}
    record |= stats_of(record.pop("content_nbytes"), record.pop("encoded_nbytes"))
    record["planes"] = [plane._asdict() | {"ratio": plane.ratio} for plane in found.planes]
    record["parts"] = [part._asdict() for part in found.parts]
    for key in ("model", "copies"):
        record[key] = record[key] and record[key]._asdict()

    def show() -> None:
        dtype = found.dtype or "opaque"
        if found.byteorder == ">":
            dtype += ", big-endian"
        rows = [
            ("file", name),
            ("container", f"frame, format version {found.format_version}"),
            ("dtype", dtype),
            ("content", _exact(found.content_nbytes)),
            ("encoded", f"{_exact(found.encoded_nbytes)}, ratio {found.ratio:.3f}"),
            ("chunks", f"{found.n_chunks} of {_show.human(found.chunk_nbytes)} at most"),
            *_coding(found),
        ]
        if found.shape is not None:
            rows.insert(3, ("shape", f"{_shape(found.shape)}, order {found.order}"))
        _show.fields(rows)
        coded = [
            [
                str(plane.plane),
                _times(plane.codecs),
                _show.human(plane.content_nbytes),
                _show.human(plane.encoded_nbytes),
                f"{plane.ratio:.3f}",
            ]
            for plane in found.planes
        ]
        if coded:
            print()
            _show.table(["plane", "codecs", "content", "encoded", "ratio"], coded, left=2)
        parts = [
            [
                f"{part.transform} {part.part}",
                _times(part.dtypes),
                _show.human(part.content_nbytes),
                _show.human(part.encoded_nbytes),
            ]
            for part in found.parts
        ]
        if parts:
            print()
            _show.table(["part", "dtypes", "content", "encoded"], parts, left=2)

    return Result(record, show)


def _coding(found: codec.FrameInfo) -> Iterator[tuple[str, str]]:
    """Say how the chunks of a frame are coded, beside their planes and parts."""
    if found.transforms:
        yield "transforms", _times(found.transforms)
    if found.model is not None:
        by = [name for name in ("rows", "columns") if getattr(found.model, name)]
        text = f"{found.model.n_contexts} contexts" if found.model.n_contexts > 1 else "1 context"
        if by:
            text += f" by {' and '.join(by)} of {found.model.period} elements"
        yield "model", text
    if found.copies is not None:
        yield "copies", f"{found.copies.n_copies}, {_exact(found.copies.nbytes)} of content"
    for extra in found.missing_extras:
        yield "missing", f"z4ai[{extra}] is not installed: max tries less without it"


def _times(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x {n}" for name, n in counts.items())


def _mapped(file: BinaryIO) -> Any:
    """Bytes of a whole file; a pipe is read into memory."""
    try:
        # Closed with the last view of it: an error on its way up may still hold one.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # a pipe, or an empty file
        return file.read()


def _exact(nbytes: int) -> str:
    return f"{nbytes} bytes" if nbytes < 1000 else f"{_show.human(nbytes)} ({nbytes} bytes)"


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _container_info(name: str, path: str) -> Result:
    with ZstnReader.open(path) as reader:
        names = reader.names()
        metadata = reader.metadata()
        dtypes = Counter(reader.dtype(tensor) for tensor in names)
        original = reader.original_nbytes
        stats = stats_of(original, reader.compressed_nbytes)
    record = {
        "container": "zstn",
        "format_version": FORMAT_VERSION,
        "n_tensors": len(names),
        "dtypes": dict(dtypes),
        "metadata": metadata,
        **stats,
    }

    def show() -> None:
        rows = [
            ("file", name),
            ("container", f"ZSTN, format version {FORMAT_VERSION}"),
            ("tensors", f"{len(names)}: {', '.join(f'{d} x {n}' for d, n in dtypes.items())}"),
            ("content", _exact(original)),
            ("encoded", f"{_exact(stats['compressed_bytes'])}, ratio {stats['ratio']:.3f}"),
        ]
        rows += [("metadata", f"{key} = {value}") for key, value in (metadata or {}).items()]
        _show.fields(rows)

    return Result(record, show)


def _row(
    name: str, dtype: str, shape: tuple[int, ...], content: int, encoded: int | None
) -> dict[str, Any]:
    ratio = content / encoded if encoded else None
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(shape),
        "content_bytes": content,
        "encoded_bytes": encoded,
        "ratio": ratio,
    }


def ls(args: argparse.Namespace, name: str) -> Result:
    """List the tensors of one file."""
    with _files.input_file(name) as (file, kind, _):
        if kind not in (CONTAINER, SAFETENSORS):
            what = "a frame, which holds no tensors" if kind == FRAME else "no file of tensors"
            msg = f"{what}: expected a ZSTN container or a .safetensors file"
            raise FormatError(msg, offset=0)
        with _files.input_path(name, file) as path:
            if kind == CONTAINER:
                with ZstnReader.open(path) as reader:
                    original, compressed = reader.original_nbytes, reader.compressed_nbytes
                    rows = [
                        _row(
                            t,
                            reader.dtype(t),
                            reader.shape(t),
                            reader.nbytes(t),
                            reader.encoded_nbytes(t),
                        )
                        for t in reader.names()
                    ]
            else:
                original = compressed = os.path.getsize(path)
                rows = [
                    _row(t.name, t.dtype, t.shape, t.nbytes, None)
                    for t in read_header(path).tensors
                ]
    container = _CONTAINERS[kind] if kind == CONTAINER else "safetensors"
    record = {"container": container, "tensors": rows, **stats_of(original, compressed)}

    def show() -> None:
        cells = [
            [
                row["name"],
                row["dtype"],
                _shape(row["shape"]),
                _show.human(row["content_bytes"]),
                "" if row["encoded_bytes"] is None else _show.human(row["encoded_bytes"]),
                "" if row["ratio"] is None else f"{row['ratio']:.3f}",
            ]
            for row in rows
        ]
        _show.table(["name", "dtype", "shape", "content", "encoded", "ratio"], cells, left=3)
        print(f"{len(rows)} tensor{'s' * (len(rows) != 1)}, {_show.smaller(original, compressed)}")

    return Result(record, show)


COMMANDS: dict[str, Callable[[argparse.Namespace, str], Result]] = {
    "compress": compress,
    "decompress": decompress,
    "info": info,
    "ls": ls,
    "verify": verify,
}
