"""The `.safetensors` file itself: its header, checked against what is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z4ai import _wire
from z4ai.container import st_header
from z4ai.container.source import Source, read
from z4ai.errors import CorruptError, TruncatedError

if TYPE_CHECKING:
    from z4ai.container.st_header import Header

__all__ = ["parse_original"]


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
