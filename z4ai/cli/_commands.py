"""What each command does with one input; those of other modules are gathered at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai.cli import _delta, _describe, _files, _folders, _series, _show
from z4ai.cli._files import CONTAINER, CONTAINERS, FRAME, PIPE, PLAIN, SAFETENSORS, UsageError
from z4ai.cli._show import Result
from z4ai.dtypes import AUTO
from z4ai.safetensors import ZstnReader, compress_file, decompress_file
from z4ai.stream import compress_stream, decompress_stream, stats_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["COMMANDS"]


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
        if kind in (FRAME, CONTAINER, *_files.DELTAS):
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
    record = {"output": target, "container": CONTAINERS[kind], **stats}
    return Result(record, _report(name, target, sizes))


def decompress(args: argparse.Namespace, name: str) -> Result:
    """Restore one file."""
    with _files.input_file(name) as (file, kind, nbytes):
        _files.check_compressed(name, kind)
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
    record = {"output": target, "container": CONTAINERS[kind], **stats}
    sizes = f"{_show.human(stats['compressed_bytes'])} -> {_show.human(stats['original_bytes'])}"
    return Result(record, _report(name, target, sizes))


def verify(args: argparse.Namespace, name: str) -> Result:
    """Decode one file to nowhere."""
    with _files.input_file(name) as (file, kind, nbytes):
        delta = args.base and kind in _files.DELTAS
        if not delta:
            _files.check_compressed(name, kind)
        with _show.progress(f"verify {name}", nbytes, quiet=args.quiet or args.json) as bar:
            if delta:
                original, compressed = _delta.decoded(args.base, name, kind, file, args.threads)
            elif kind == CONTAINER:
                with _files.input_path(name, file) as path, ZstnReader.open(path) as reader:
                    reader.verify(threads=args.threads)
                    original, compressed = reader.original_nbytes, reader.compressed_nbytes
            else:
                source = bar.reading(file)
                nowhere: Any = _Nowhere()
                original = decompress_stream(source, nowhere, threads=args.threads)
                compressed = source.nbytes
    record = {"container": CONTAINERS[kind], **stats_of(original, compressed)}
    text = _show.printable(f"{name}: ok, {_show.human(original)} of content")
    return Result(record, lambda: print(text))


COMMANDS: dict[str, Callable[[argparse.Namespace, str], Result]] = {
    "compress": compress,
    "decompress": decompress,
    "info": _describe.info,
    "ls": _describe.ls,
    "verify": verify,
    **_folders.COMMANDS,
    **_delta.COMMANDS,
    **_series.COMMANDS,
}
