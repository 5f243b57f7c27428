"""`z4ai series`: checkpoints into a folder and out of it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from z4ai.cli import _files, _show
from z4ai.cli._files import PIPE, UsageError
from z4ai.cli._show import Result
from z4ai.errors import CorruptError, Z4Error
from z4ai.stream import stats_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from z4ai.series import Series

__all__ = ["COMMANDS"]


@contextlib.contextmanager
def _usage() -> Iterator[None]:
    """Make wrong arguments wrong usage: a step that is not there, a name that is taken."""
    try:
        yield
    except Z4Error:
        raise
    except (KeyError, ValueError) as error:
        raise UsageError(str(error.args[0])) from None


def _open(args: argparse.Namespace, folder: str) -> Series:
    from z4ai.series import Series  # noqa: PLC0415 - costs import time

    timeout = getattr(args, "timeout", None)
    return Series.open(folder, timeout=timeout, threads=getattr(args, "threads", None))


def _made(args: argparse.Namespace) -> Series:
    """Open the series to add to; it is made if it is not there."""
    from z4ai.series import DEFAULT_DEPTH, Series  # noqa: PLC0415 - as above

    options: dict[str, Any] = {"timeout": args.timeout, "threads": args.threads}
    depth = DEFAULT_DEPTH if args.max_depth is None else args.max_depth
    with contextlib.suppress(FileExistsError):
        return Series.create(args.folder, max_depth=depth, effort=args.effort, **options)
    series = Series.open(args.folder, **options)
    # Those of the first addition last; later ones change what is to come.
    changed = args.max_depth not in (None, series.max_depth)
    if changed or args.effort is not None:
        series.configure(max_depth=args.max_depth, effort=args.effort)
    return series


def add(args: argparse.Namespace, name: str) -> Result:
    """Add one checkpoint."""
    if not _files.is_regular(name):
        if os.path.exists(name) or name == PIPE:
            raise UsageError(f"{name}: not a regular file")
        os.stat(name)
    nbytes = os.path.getsize(name) * (1 if args.no_verify else 2)
    with (
        _usage(),
        _show.progress(f"series add {name}", nbytes, quiet=args.quiet or args.json) as bar,
    ):
        stats = _made(args).add(
            name,
            args.name,
            step=args.step,
            stream=args.stream,
            keyframe=args.keyframe,
            verify=not args.no_verify,
            progress=bar.to,
        )
    sizes = _show.smaller(stats["original_bytes"], stats["compressed_bytes"])
    against = "a keyframe" if stats["base"] is None else f"against {stats['base']}"
    text = f"{name} -> {args.folder}: {stats['name']}, {sizes}, {against}"
    return Result({"series": args.folder, **stats}, lambda: _show.say(text))


def restore(args: argparse.Namespace, name: str) -> Result:
    """Restore one step."""
    target = args.output or f"{name}.safetensors"
    with _usage():
        series = _open(args, args.folder)
        found = {step.name: step for step in series.ls()}
        nbytes = found[name].original_nbytes if name in found else None
        _files.check_output_name(PIPE, target, force=args.force)
        with (
            _show.progress(f"series restore {name}", nbytes, quiet=args.quiet or args.json) as bar,
            _files.output_path(target) as out,
        ):
            stats = series.restore(name, out, progress=bar.to)
    sizes = f"{_show.human(stats['compressed_bytes'])} -> {_show.human(stats['original_bytes'])}"
    text = f"{args.folder}: {name} -> {target}: {sizes}"
    record = {"series": args.folder, "output": target, **stats}
    return Result(record, lambda: None if target == PIPE else _show.say(text))


def ls(args: argparse.Namespace, name: str) -> Result:
    """List the steps of one series."""
    series = _open(args, name)
    steps = series.ls()
    rows = [
        {
            "name": step.name,
            "stream": step.stream,
            "step": step.step,
            "base": step.base,
            "depth": step.depth,
            "file": step.file,
            "digest": step.digest,
            **stats_of(step.original_nbytes, step.encoded_nbytes),
        }
        for step in steps
    ]
    original = sum(step.original_nbytes for step in steps)
    encoded = sum(step.encoded_nbytes for step in steps)
    record = {
        "max_depth": series.max_depth,
        "effort": series.effort,
        **stats_of(original, encoded),
        "steps": rows,
    }

    def show() -> None:
        cells = [
            [
                row["name"],
                row["stream"],
                "" if row["step"] is None else str(row["step"]),
                row["base"] or "–",
                str(row["depth"]),
                _show.human(row["original_bytes"]),
                _show.human(row["compressed_bytes"]),
                f"{row['ratio']:.3f}",
            ]
            for row in rows
        ]
        heads = ["name", "stream", "step", "base", "depth", "original", "stored", "ratio"]
        _show.table(heads, cells, left=2)
        print(_show.printable(f"{len(steps)} steps, {_show.smaller(original, encoded)}"))

    return Result(record, show)


def drop(args: argparse.Namespace, name: str) -> Result:
    """Drop one step."""
    with _usage():
        series = _open(args, args.folder)
        with _show.progress(f"series drop {name}", None, quiet=args.quiet or args.json) as bar:
            found = series.drop(name, progress=bar.to)
    text = f"{args.folder}: {name} dropped, {len(found['rewritten'])} steps stored anew"
    return Result({"series": args.folder, **found}, lambda: _show.say(text))


def verify(args: argparse.Namespace, name: str) -> Result:
    """Restore every step of one series to nowhere."""
    series = _open(args, name)
    nbytes = sum(step.original_nbytes for step in series.ls())
    with _show.progress(f"series verify {name}", nbytes, quiet=args.quiet or args.json) as bar:
        report = series.verify(progress=bar.to)
    failures = report.failures
    if failures:
        if all(isinstance(error, OSError) for error in failures.values()):
            raise next(iter(failures.values()))
        told = "; ".join(f"{step!r}: {error}" for step, error in list(failures.items())[:5])
        more = f"; and {len(failures) - 5} more" if len(failures) > 5 else ""
        n_steps = len(failures) + len(report.steps)
        msg = f"{len(failures)} of {n_steps} steps cannot be restored: {told}{more}"
        raise CorruptError(msg)
    original = sum(step.original_nbytes for step in report.steps)
    encoded = sum(step.encoded_nbytes for step in report.steps)
    record = {"n_steps": len(report.steps), "orphans": list(report.orphans)}
    text = f"{name}: ok, {len(report.steps)} steps, {_show.human(original)} of content"
    if report.orphans:
        text += f"; {len(report.orphans)} files left by an interrupted writer"
    return Result(record | stats_of(original, encoded), lambda: print(_show.printable(text)))


COMMANDS = {
    "series add": add,
    "series restore": restore,
    "series ls": ls,
    "series drop": drop,
    "series verify": verify,
}
