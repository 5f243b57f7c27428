"""`z4ai compress-model` and `z4ai decompress-model`: folders of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai.cli import _show
from z4ai.cli._files import PIPE, UsageError
from z4ai.cli._show import Result
from z4ai.errors import Z4Error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

__all__ = ["COMMANDS"]


def _run(
    args: argparse.Namespace, name: str, work: Callable[..., dict[str, Any]]
) -> dict[str, Any]:
    """Do the work; -> the record of it."""
    if PIPE in (name, args.output):
        raise UsageError("a folder is not read from standard input or written to standard output")
    options: dict[str, Any] = {
        "variant": args.variant,
        "in_place": args.in_place,
        "threads": args.threads,
        "link": args.link,
        "follow_links": args.follow_links,
        "force": args.force,
    }
    if args.command == "compress-model":
        options |= {"effort": args.effort, "verify": not args.no_verify}
    label = f"{args.command} {name}"
    try:
        with _show.progress(label, None, quiet=args.quiet or args.json) as bar:
            stats = work(name, args.output, progress=bar.to, **options)
    except Z4Error:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from None
    except FileExistsError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from None
    return {"output": args.output or name, **stats}


def _weights(stats: dict[str, Any]) -> str:
    text = f"{stats['n_weights']} files of weights"
    skipped = f", {stats['n_skipped']} of them done before" if stats["n_skipped"] else ""
    return text + skipped


def compress_model(args: argparse.Namespace, name: str) -> Result:
    """Compress one folder."""
    from z4ai.model_folder import compress_model as work  # noqa: PLC0415 - costs import time

    record = _run(args, name, work)
    sizes = _show.smaller(record["original_bytes"], record["compressed_bytes"])
    text = f"{name} -> {record['output']}: {_weights(record)}, {sizes}"
    return Result(record, lambda: _show.say(text))


def decompress_model(args: argparse.Namespace, name: str) -> Result:
    """Restore one folder."""
    from z4ai.model_folder import decompress_model as work  # noqa: PLC0415 - as above

    record = _run(args, name, work)
    before, after = _show.human(record["compressed_bytes"]), _show.human(record["original_bytes"])
    text = f"{name} -> {record['output']}: {_weights(record)}, {before} -> {after}"
    return Result(record, lambda: _show.say(text))


COMMANDS: dict[str, Callable[[argparse.Namespace, str], Result]] = {
    "compress-model": compress_model,
    "decompress-model": decompress_model,
}
