"""`z4ai delta`: a file as what distinguishes it from another, and back."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from z4ai.cli import _describe, _files, _show
from z4ai.cli._files import (
    CONTAINER,
    CONTAINERS,
    DELTA,
    DELTAS,
    FRAME,
    MODEL_DELTA,
    PIPE,
    PLAIN,
    SAFETENSORS,
    UsageError,
)
from z4ai.cli._show import Result
from z4ai.delta import compress_delta, decompress_delta
from z4ai.dtypes import AUTO
from z4ai.errors import BaseMismatchError, ChecksumError
from z4ai.stream import stats_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator

__all__ = ["COMMANDS", "decoded"]


def make(args: argparse.Namespace, name: str) -> Result:
    """Make the delta of one file against another."""
    base = args.base[0]
    with (
        _files.input_file(name) as (file, found, nbytes),
        _files.input_file(base) as (base_file, base_kind, _),
    ):
        kind = DELTA if args.raw else _delta_of(name, found, base, base_kind)
        if kind == MODEL_DELTA and args.dtype is not None:
            msg = f"{name}: a .safetensors file knows its dtypes; --raw takes it as plain bytes"
            raise UsageError(msg)
        target = args.output or (PIPE if name == PIPE else _files.delta_name(name, kind))
        _check_names(args, name, target)
        options: dict[str, Any] = {"effort": args.effort, "threads": args.threads}
        with _show.progress(f"delta make {name}", nbytes, quiet=args.quiet or args.json) as bar:
            if kind == MODEL_DELTA:
                from z4ai.model_delta import compress_file  # noqa: PLC0415 - costs import time

                options |= {"verify": args.verify, "progress": bar.to}
                with (
                    _files.input_path(name, file) as source,
                    _opened_model(args.base, base_file, args.threads) as model,
                    _files.output_path(target) as out,
                ):
                    stats = compress_file(source, model, out, **options)
            else:
                current, reference = _files.mapped(file), _only(args.base, base_file)
                blob = compress_delta(current, reference, dtype=args.dtype or AUTO, **options)
                bar.add(memoryview(current).nbytes)
                if args.verify and decompress_delta(blob, reference) != memoryview(current):
                    msg = "the delta does not give the file back"
                    raise ChecksumError(msg)
                with _files.output_file(target) as out_file:
                    out_file.write(blob)
                stats = stats_of(memoryview(current).nbytes, len(blob))
    sizes = _show.smaller(stats["original_bytes"], stats["compressed_bytes"])
    record = {"base": base, "output": target, "container": CONTAINERS[kind], **stats}
    return Result(record, _report(f"{name} against {base}", target, sizes))


def _delta_of(name: str, kind: str, base: str, base_kind: str) -> str:
    """Choose the kind of delta by what the target and its base are."""
    if kind in (FRAME, CONTAINER, *DELTAS):
        raise UsageError(f"{name}: is compressed already; --raw takes it as plain bytes")
    if kind == PLAIN:
        return DELTA
    if base_kind not in (SAFETENSORS, CONTAINER, MODEL_DELTA):
        msg = f"{base}: no model, as the target is: no .safetensors file, and not made of one"
        raise UsageError(f"{msg}; --raw takes both as plain bytes")
    return MODEL_DELTA


def _check_names(args: argparse.Namespace, name: str, target: str) -> None:
    for source in (name, *args.base):
        _files.check_output_name(source, target, force=args.force)


def _only(bases: list[str], file: Any) -> Any:
    """Bytes of the base of a plain delta, which cannot be a delta itself."""
    if len(bases) > 1:
        raise UsageError(f"{bases[1]}: only a model delta can have a base of its own")
    return _files.mapped(file)


def _report(what: str, target: str, sizes: str) -> Callable[[], None]:
    return lambda: None if target == PIPE else _show.say(f"{what} -> {target}: {sizes}")


def apply(args: argparse.Namespace, name: str) -> Result:
    """Restore one file from its delta and the base."""
    base = args.base[0]
    with (
        _files.input_file(name) as (file, kind, nbytes),
        _files.input_file(base) as (base_file, _, _),
    ):
        _files.check_delta(kind)
        target = args.output or (PIPE if name == PIPE else _files.restored_name(name, kind))
        _check_names(args, name, target)
        with (
            _show.progress(f"delta apply {name}", nbytes, quiet=args.quiet or args.json) as bar,
            _named_base(base),
        ):
            if kind == MODEL_DELTA:
                from z4ai.model_delta import decompress_file  # noqa: PLC0415 - as above

                with (
                    _files.input_path(name, file) as path,
                    _opened_model(args.base, base_file, args.threads) as model,
                    _files.output_path(target) as out,
                ):
                    options: dict[str, Any] = {"threads": args.threads, "progress": bar.to}
                    stats = decompress_file(path, model, out, **options)
            else:
                blob, reference = _files.mapped(file), _only(args.base, base_file)
                content = decompress_delta(blob, reference, threads=args.threads)
                bar.add(memoryview(blob).nbytes)
                with _files.output_file(target) as out_file:
                    out_file.write(content)
                stats = stats_of(len(content), memoryview(blob).nbytes)
    record = {"base": base, "output": target, "container": CONTAINERS[kind], **stats}
    sizes = f"{_show.human(stats['compressed_bytes'])} -> {_show.human(stats['original_bytes'])}"
    return Result(record, _report(f"{name} with {base}", target, sizes))


@contextlib.contextmanager
def _named_base(base: str) -> Iterator[None]:
    """Make an error about the base name it."""
    try:
        yield
    except BaseMismatchError as error:
        shown = "standard input" if base == PIPE else base
        msg = f"{shown} is not the base of it: {error}"
        raise BaseMismatchError(msg) from None


@contextlib.contextmanager
def _opened_model(bases: list[str], file: Any, threads: int | None) -> Iterator[Any]:
    """Open the base of a model delta: a path, or a reader where it is a delta itself."""
    from z4ai import model_delta  # noqa: PLC0415 - as above

    with contextlib.ExitStack() as stack:
        paths = [stack.enter_context(_files.input_path(bases[0], file)), *bases[1:]]
        for k, path in enumerate(paths):
            with _files.input_file(path) as (_, kind, _):
                if (kind == MODEL_DELTA) != (k < len(bases) - 1):
                    lacks = "is a model delta: its own base must stand behind it"
                    msg = lacks if kind == MODEL_DELTA else "is no model delta: no base behind it"
                    raise UsageError(f"{bases[k]}: {msg}")
        model: Any = paths.pop()
        while paths:
            model = stack.enter_context(model_delta.open(paths.pop(), model, threads=threads))
        yield model


def decoded(
    bases: list[str], name: str, kind: str, file: Any, threads: int | None
) -> tuple[int, int]:
    """Decode a delta to nowhere; -> bytes of the content, and of the delta."""
    with _files.input_file(bases[0]) as (base_file, _, _), _named_base(bases[0]):
        if kind == DELTA:
            blob = _files.mapped(file)
            content = decompress_delta(blob, _only(bases, base_file), threads=threads)
            return len(content), memoryview(blob).nbytes
        from z4ai import model_delta  # noqa: PLC0415 - as above

        with (
            _files.input_path(name, file) as path,
            _opened_model(bases, base_file, threads) as model,
            model_delta.open(path, model, threads=threads) as reader,
        ):
            reader.verify()
            return reader.original_nbytes, reader.compressed_nbytes


def info(args: argparse.Namespace, name: str) -> Result:
    """Describe one delta."""
    return _describe.info(args, name, only=DELTAS)


COMMANDS: dict[str, Callable[[argparse.Namespace, str], Result]] = {
    "delta make": make,
    "delta apply": apply,
    "delta info": info,
}
