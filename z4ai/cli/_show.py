"""What the user sees: sizes, tables, JSON lines, progress. Nothing is drawn but for a terminal."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, TextIO

from z4ai._fileobj import read_some
from z4ai._progress import bars_are_welcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Progress",
    "Result",
    "exact",
    "fields",
    "human",
    "json_line",
    "printable",
    "progress",
    "say",
    "smaller",
    "table",
]

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB", "EB")


class Result(NamedTuple):
    """What a command found out about one input."""

    record: dict[str, Any]
    show: Callable[[], None]


def human(nbytes: float) -> str:
    """Size in decimal units, three digits or more."""
    unit = 0
    while nbytes >= 999.5 and unit < len(_UNITS) - 1:
        nbytes /= 1000
        unit += 1
    digits = 0 if unit == 0 or nbytes >= 99.95 else 1 if nbytes >= 9.995 else 2
    return f"{nbytes:.{digits}f} {_UNITS[unit]}"


def exact(nbytes: int) -> str:
    """Size in decimal units, and in bytes."""
    return f"{nbytes} bytes" if nbytes < 1000 else f"{human(nbytes)} ({nbytes} bytes)"


def smaller(original: int, compressed: int) -> str:
    """Two sizes and what they say."""
    if not original or not compressed:
        return f"{human(original)} -> {human(compressed)}"
    return f"{human(original)} -> {human(compressed)}, ratio {original / compressed:.3f}"


def printable(text: str) -> str:
    """Text of a file as one line that cannot move the cursor."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def json_line(record: dict[str, Any], file: TextIO) -> None:
    """Write one object on a line of its own."""
    print(json.dumps(record, allow_nan=False), file=file, flush=True)


def say(text: str) -> None:
    """Print a line to standard error, if it is there."""
    with contextlib.suppress(OSError, AttributeError):
        sys.stderr.write(f"{printable(text)}\n")
        sys.stderr.flush()


def fields(rows: Sequence[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    for name, value in rows:
        print(f"{name:<12}{printable(value)}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table to standard output; the first `left` columns are flush left."""
    from rich import box  # noqa: PLC0415 - costs import time, needed to draw
    from rich.console import Console  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    lines = (sys.stdout.encoding or "ascii").lower().startswith("utf")
    drawn = Table(box=box.SIMPLE_HEAD if lines else None, show_edge=False, pad_edge=False)
    for number, head in enumerate(heads):
        drawn.add_column(
            head,
            justify="left" if number < left else "right",
            overflow="fold",
            no_wrap=number > 0,
        )
    for row in rows:
        drawn.add_row(*(Text(printable(cell)) for cell in row))
    terminal = sys.stdout.isatty()
    # Drawn in memory: rich ends the program by itself when a pipe is closed. A file or a pipe has
    # no width: nothing is folded there.
    page = io.StringIO()
    console = Console(
        file=page,
        force_terminal=terminal,
        width=shutil.get_terminal_size().columns if terminal else 1 << 16,
        legacy_windows=False,
    )
    console.print(drawn)
    for line in page.getvalue().splitlines():
        print(line.rstrip())


class Progress:
    """Bytes done so far, on a bar or nowhere."""

    def __init__(self, bar: Any = None) -> None:
        self._bar = bar
        self._done = 0

    def add(self, nbytes: int) -> None:
        """Count bytes of the input as done."""
        self._done += nbytes
        if self._bar is not None:
            self._bar.update(nbytes)

    def to(self, done: int, total: int) -> None:
        """Count bytes up to `done` as done; a bar that knows no end learns it."""
        if self._bar is not None and self._bar.total is None:
            self._bar.reset(total)
        self.add(done - self._done)

    def reading(self, file: Any) -> Any:
        """Wrap a file object so that what is read from it is counted, also in its `nbytes`."""
        return _Counted(file, self)


class _Counted:
    """A file object whose reads move a bar.

    Attributes
    ----------
    nbytes : int
        Bytes read so far.
    """

    def __init__(self, file: BinaryIO, bar: Progress) -> None:
        self._file = file
        self._bar = bar
        self.nbytes = 0

    def read(self, nbytes: int, /) -> bytes:
        # In pieces, so that the bar moves inside a long read.
        data = read_some(self._file, min(nbytes, 1 << 22))
        self.nbytes += len(data)
        self._bar.add(len(data))
        return data


@contextlib.contextmanager
def progress(label: str, nbytes: int | None, *, quiet: bool) -> Iterator[Progress]:
    """Show a bar while the body runs, if standard error is a terminal and bars are not off."""
    if quiet or not bars_are_welcome():
        yield Progress()
        return
    from tqdm import tqdm  # noqa: PLC0415 - costs import time, needed to draw

    with tqdm(
        desc=printable(label), total=nbytes, unit="B", unit_scale=True, leave=False, file=sys.stderr
    ) as bar:
        yield Progress(bar)
