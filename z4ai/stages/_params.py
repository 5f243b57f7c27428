"""Parameters of chunks on the wire, as far as stages have them alike."""

from __future__ import annotations

from z4ai._wire import get_varint
from z4ai.errors import CorruptError, FormatError

__all__ = ["check_end", "varints"]


def varints(stage: str, params: memoryview, pos: int, count: int) -> tuple[list[int], int]:
    """Read integers from `pos` on; -> them, and where the last one ends."""
    found = []
    try:
        for _ in range(count):
            value, pos = get_varint(params, pos, len(params))
            found.append(value)
    except FormatError as error:
        msg = f"{stage}: parameters: {error.message}"
        raise CorruptError(msg) from error
    return found, pos


def check_end(stage: str, params: memoryview, pos: int) -> None:
    """Check that the parameters end at `pos`."""
    if pos != len(params):
        msg = f"{stage}: {len(params)} bytes of parameters, expected {pos}"
        raise CorruptError(msg)
