"""Files that appear under their name only when they are complete."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["AtomicFile", "is_temporary"]

_TEMPORARY = re.compile(r"\.z4ai-[0-9a-f]{16}\.tmp", re.ASCII)


class AtomicFile:
    """A file written under a temporary name beside its place, renamed by `commit`.

    Leaving the ``with`` block without `commit`, for whatever reason, removes the temporary file
    and leaves the place as it was.

    Parameters
    ----------
    path : path-like
        Where the file goes. A link is followed; what else is no regular file is refused.
    like : path-like, optional
        A file whose permissions the new one gets, less the umask. One that replaces a file gets
        the permissions of that one.

    Attributes
    ----------
    temporary : str
        The name it has until then.
    nbytes : int
        Bytes written so far.
    """

    def __init__(
        self,
        path: str | bytes | os.PathLike[str] | os.PathLike[bytes],
        like: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None = None,
    ) -> None:
        self.path = os.path.realpath(os.fsdecode(path))
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            msg = f"{self.path!r} is not a regular file: it cannot be replaced"
            raise ValueError(msg)
        self._folder = os.path.dirname(self.path)
        self.temporary = os.path.join(self._folder, f".z4ai-{secrets.token_hex(8)}.tmp")
        self.nbytes = 0
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        self._fd = -1
        self._home = os.getpid()
        replaced = _permissions(self.path)
        model = replaced if replaced is not None else _permissions(like)
        # Less the umask, as for any new file; a private model stays private when compressed.
        try:
            self._fd = os.open(self.temporary, flags, 0o666 if model is None else model)
        except OSError as error:
            error.filename = self.path  # the name that the caller knows
            raise
        if replaced is not None and hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):
                os.fchmod(self._fd, replaced)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.abort()

    def __del__(self) -> None:
        self.abort()

    def write(self, data: memoryview | bytes) -> None:
        """Write all of `data` behind what is there."""
        view = memoryview(data)
        while len(view):
            done = os.write(self._fd, view)
            self.nbytes += done
            view = view[done:]

    def commit(self) -> None:
        """Bring the file to the disk and to its name."""
        os.fsync(self._fd)
        os.close(self._fd)
        self._fd = -2
        os.replace(self.temporary, self.path)
        self._fd = -1
        _sync_folder(self._folder)

    def abort(self) -> None:
        """Remove the temporary file; nothing after `commit`."""
        fd = getattr(self, "_fd", -1)
        if fd == -1:
            return
        self._fd = -1
        if fd >= 0:
            os.close(fd)
        if os.getpid() != self._home:
            return  # a forked child that ends; the file is its parent's
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.temporary)


def is_temporary(name: str) -> bool:
    """Tell whether a file of that name is one that has not been committed."""
    return _TEMPORARY.fullmatch(name) is not None


def _permissions(
    path: str | bytes | os.PathLike[str] | os.PathLike[bytes] | None,
) -> int | None:
    """Who may do what with a regular file; None if there is none."""
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError:
        return None
    return stat.S_IMODE(found.st_mode) & 0o777 if stat.S_ISREG(found.st_mode) else None


def _sync_folder(folder: str) -> None:
    """Bring the new name to the disk, where folders can be opened for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    with contextlib.suppress(OSError):
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
