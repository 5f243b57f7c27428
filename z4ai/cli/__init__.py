"""The command `z4ai`: arguments in, public functions called, errors as one line and a status."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from z4ai.cli import _show
from z4ai.cli._commands import COMMANDS
from z4ai.cli._files import PIPE, UsageError
from z4ai.cli._parser import parse
from z4ai.errors import FormatError, Z4Error

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

__all__ = ["main"]

EXIT_DATA, EXIT_USAGE, EXIT_SYSTEM = 1, 2, 3
EXIT_INTERRUPTED, EXIT_PIPE, EXIT_TERMINATED = 130, 141, 143  # 128 + number of the signal


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. Default: those of the process.

    Returns
    -------
    int
        Exit status: 0 done, 1 bad data, 2 wrong usage, 3 a file or the system failed, 130
        interrupted, 141 closed pipe, 143 terminated.
    """
    status = 0
    try:
        with _terminated_as_exit():
            try:
                status = _run(parse(argv))
            finally:
                _flush()
    except BrokenPipeError:
        _give_up_stdout()
        return EXIT_PIPE
    except OSError as error:  # the last flush
        _give_up_stdout()
        if status == 0:  # else it fails once more, of what has been told
            _complain(_reason(error))
            status = EXIT_SYSTEM
    except KeyboardInterrupt:
        _complain("interrupted")
        return EXIT_INTERRUPTED
    return status


def _run(args: argparse.Namespace) -> int:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # The data have standard output to themselves.
    data_to_stdout = hasattr(args, "output") and (
        PIPE in (args.output, *(() if args.output else args.files))
    )
    records = sys.stderr if data_to_stdout else sys.stdout
    status = 0
    for name in args.files:
        about = {"command": args.command, "input": name}
        try:
            result = COMMANDS[args.command](args, name)
        except BrokenPipeError:
            raise
        except (Z4Error, UsageError, OSError, MemoryError) as error:
            code = _status_of(error)
            status = status or code
            message = _message(name, error)
            _complain(message)
            if args.json:
                _show.json_line(about | {"ok": False, "error": _details(error, code)}, records)
            continue
        if args.json:
            _show.json_line(about | {"ok": True, **result.record}, records)
        elif not args.quiet or args.command.endswith(("info", "ls")):
            result.show()
    return status


def _status_of(error: BaseException) -> int:
    if isinstance(error, Z4Error):
        return EXIT_DATA
    return EXIT_USAGE if isinstance(error, UsageError) else EXIT_SYSTEM


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return str(error) or "out of memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def _message(name: str, error: BaseException) -> str:
    reason = _reason(error)
    known = isinstance(error, UsageError) or (isinstance(error, OSError) and error.filename)
    name = "standard input" if name == PIPE else name
    return reason if known else f"{name}: {reason}"


def _details(error: BaseException, code: int) -> dict[str, Any]:
    details = {"type": type(error).__name__, "message": _reason(error), "exit_status": code}
    if isinstance(error, FormatError):
        where = {"offset": error.offset, "chunk": error.chunk, "tensor": error.tensor}
        details |= {key: value for key, value in where.items() if value is not None}
    return details


def _complain(message: str) -> None:
    _show.say(f"z4ai: {message}")


def _flush() -> None:
    if sys.stdout is not None:
        sys.stdout.flush()


def _give_up_stdout() -> None:
    """Let the interpreter's own flush at exit succeed: what is left cannot be written."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Make SIGTERM unwind, so that unfinished output is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(*_: object) -> None:
        raise SystemExit(EXIT_TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
