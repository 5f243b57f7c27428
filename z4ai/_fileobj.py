"""Callers' file objects: read until there is enough, write until all is taken."""

from __future__ import annotations

import errno
import io
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from typing import BinaryIO

__all__ = ["read_some", "write_all"]


def read_some(src: BinaryIO, nbytes: int) -> bytes:
    """Read at most `nbytes` bytes (1 or more); none only at the end of the file.

    Raises
    ------
    BlockingIOError
        If the file is in non-blocking mode and has nothing yet: that is not its end.
    """
    # One system call a time where the file offers it: an interrupt between two is then noticed.
    read = getattr(src, "read1", src.read)
    piece: bytes | None = read(nbytes)
    if piece == b"" and isinstance(src, io.BufferedReader):
        # Its read1 says the same of a file that has nothing yet as of one that ends; read does not.
        piece = src.read(1)
    if piece is None:
        _blocked("read: the file has nothing yet")
    return piece


def write_all(dst: Any, data: memoryview) -> None:
    """Write all of `data`, to raw files too, which may take less at a time.

    Raises
    ------
    BlockingIOError
        If the file is in non-blocking mode and takes no more.
    """
    while data.nbytes:
        n = dst.write(data)
        if n is None and isinstance(dst, io.RawIOBase):
            _blocked("write: the file takes no more")
        # Objects that only look like files need not say how much they took: all of it.
        data = data[data.nbytes if n is None else n :]


def _blocked(what: str) -> NoReturn:
    msg = f"cannot {what}, and it is in non-blocking mode"
    raise BlockingIOError(errno.EAGAIN, msg)
