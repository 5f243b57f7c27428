"""The `.safetensors` file itself: its header, checked against what is behind it; comparisons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai import _wire
from z4ai.container import st_header
from z4ai.container.sink import WriteOut
from z4ai.container.source import Source, open_source, read
from z4ai.container.st_header import Tensor
from z4ai.errors import CorruptError, TruncatedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from z4ai.container.sink import Sink
    from z4ai.container.st_header import Header

__all__ = ["check_restores", "parse_original", "whole_file"]


def parse_original(source: Source) -> tuple[bytes, Header]:
    """Read and check the header of a `.safetensors` file, and that its data is all there.

    Raises
    ------
    FormatError
        If safetensors would refuse it.
    """
    if source.nbytes < 8:
        msg = f"safetensors file ends after {source.nbytes} bytes, expected at least 8"
        raise TruncatedError(msg, offset=source.nbytes)
    (header_nbytes,) = _wire.U64.unpack(read(source, 0, 8))
    if header_nbytes > st_header.MAX_HEADER_NBYTES:
        msg = (
            f"not a safetensors file: JSON header of {header_nbytes} bytes, "
            f"expected at most {st_header.MAX_HEADER_NBYTES}"
        )
        raise CorruptError(msg, offset=0)
    if header_nbytes > source.nbytes - 8:
        msg = f"JSON header of {header_nbytes} bytes does not fit a file of {source.nbytes}"
        raise TruncatedError(msg, offset=source.nbytes)
    header_bytes = bytes(read(source, 8, header_nbytes))
    header = st_header.parse(header_bytes)
    expected = 8 + header_nbytes + header.data_nbytes
    if source.nbytes != expected:
        last = header.tensors[-1].name if header.tensors else None
        if source.nbytes < expected:
            msg = f"safetensors file has {source.nbytes} bytes, its tensors end at {expected}"
            raise TruncatedError(msg, offset=source.nbytes, tensor=last)
        msg = f"{source.nbytes - expected} bytes follow the data of the last tensor"
        raise CorruptError(msg, offset=expected, tensor=last)
    return header_bytes, header


def whole_file(nbytes: int) -> Tensor:
    """Return a file that is not looked into, as one tensor of bytes."""
    return Tensor("", "", (nbytes,), 0, nbytes)


def check_restores(
    original: Source, written: str, restore: Callable[[Source, Sink], object]
) -> None:
    """Check that a file that has just been written restores the original, byte for byte.

    Parameters
    ----------
    original : Source
        What was compressed.
    written : str
        Path of what was made of it.
    restore : callable
        ``restore(source, sink)`` restores what `source` holds.

    Raises
    ------
    CorruptError
        If there is a difference.
    """
    position = 0
    expected = np.empty(0, np.uint8)

    def compare(part: memoryview) -> None:
        nonlocal position, expected
        if len(expected) < len(part):
            expected = np.empty(len(part), np.uint8)
        content = expected[: len(part)]
        original.read_into(position, content.data)
        if not np.array_equal(content, np.frombuffer(part, np.uint8)):
            msg = "what was written does not restore the original: did it change meanwhile?"
            raise CorruptError(msg, offset=position)
        position += len(part)

    copy = open_source(written)
    try:
        restore(copy, WriteOut(compare))
    finally:
        copy.close()
    if position != original.nbytes:
        msg = f"what was written restores {position} bytes, the original has {original.nbytes}"
        raise CorruptError(msg, offset=position)
