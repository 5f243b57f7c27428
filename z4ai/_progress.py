"""Progress of long work: to a callable, to a bar, or to nobody."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    # What callers may ask for.
    ProgressWish = bool | Callable[[int, int], object] | None

__all__ = ["AUTO", "Progress", "bars_are_welcome"]

AUTO: Final = "auto"
# So that what is done at once leaves no trace.
_DELAY_SECONDS = 1.0


def bars_are_welcome() -> bool:
    """Tell whether a bar that nobody asked for may be drawn: on a terminal, if not turned off."""
    return not _bars_are_off() and sys.stderr is not None and sys.stderr.isatty()


def _bars_are_off() -> bool:
    # One switch for all the bars of a program that loads models.
    return os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS", "").upper() in ("1", "ON", "YES", "TRUE")


class Progress:
    """Counter of bytes done, which tells the caller.

    Parameters
    ----------
    wish : bool, callable, "auto" or None
        True for a bar, unless `HF_HUB_DISABLE_PROGRESS_BARS` is set; a callable is called with
        ``(done_bytes, total_bytes)``; ``AUTO`` draws a bar on a terminal if this takes long.
    total_nbytes : int
        Bytes of all the work.
    what : str
        Label of the bar.
    """

    def __init__(
        self, wish: bool | str | Callable[[int, int], object] | None, total_nbytes: int, what: str
    ) -> None:
        self._tell = wish if callable(wish) else None
        self._bar: Any = None
        self._done = 0
        self._total = total_nbytes
        if (wish is True and not _bars_are_off()) or (wish == AUTO and bars_are_welcome()):
            from tqdm import tqdm  # noqa: PLC0415 - only drawn bars pay for it

            self._bar = tqdm(
                total=total_nbytes,
                desc=what,
                unit="B",
                unit_scale=True,
                unit_divisor=1024,
                delay=_DELAY_SECONDS if wish == AUTO else 0,
            )

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def update(self, nbytes: int) -> None:
        """Count bytes as done."""
        if not nbytes:
            return
        self._done += nbytes
        if self._bar is not None:
            self._bar.update(nbytes)
        if self._tell is not None:
            self._tell(self._done, self._total)
