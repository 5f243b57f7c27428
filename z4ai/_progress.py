"""Progress of long work: to a callable, to a bar, or to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Progress"]


class Progress:
    """Counter of bytes done, which tells the caller.

    Parameters
    ----------
    wish : bool, callable or None
        True for a bar; a callable is called with ``(done_bytes, total_bytes)``.
    total_nbytes : int
        Bytes of all the work.
    what : str
        Label of the bar.
    """

    def __init__(
        self, wish: bool | Callable[[int, int], object] | None, total_nbytes: int, what: str
    ) -> None:
        self._tell = wish if callable(wish) else None
        self._bar: Any = None
        self._done = 0
        self._total = total_nbytes
        if wish is True:
            from tqdm import tqdm  # noqa: PLC0415 - only drawn bars pay for it

            self._bar = tqdm(
                total=total_nbytes, desc=what, unit="B", unit_scale=True, unit_divisor=1024
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
