"""Where files go: complete or not at all, never through a link, one run at a time."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
from typing import TYPE_CHECKING

from z4ai._atomic import AtomicFile
from z4ai.model_folder.tree import PARTIAL, contains

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from z4ai.model_folder.tree import File

__all__ = ["Place"]

_PIECE_NBYTES = 4 << 20


class Place:
    """A folder to write to, by one run at a time.

    Files are made in a folder of their own inside, which the next run empties if this one is
    killed, and moved to their names when they are complete and on the disk.

    Parameters
    ----------
    root : str
        Real path of the folder; made if it is not there.
    mode : int
        Who may do what with it then, besides its owner.
    """

    def __init__(self, root: str, mode: int = 0o777) -> None:
        self.root = root
        self._mode = mode
        self._partial = os.path.join(root, PARTIAL)
        self._new = os.path.join(self._partial, "new")
        self._lock = -1

    def __enter__(self) -> Place:
        if not os.path.isdir(self.root):
            os.makedirs(os.path.dirname(self.root), exist_ok=True)
            os.mkdir(self.root, self._mode | 0o700)
        self._take_lock()
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self._partial, 0o700)
            # A link would have files written, and others removed, elsewhere.
            is_folder = stat.S_ISDIR(os.lstat(self._partial).st_mode)
            if is_folder:
                self._empty()
        except BaseException:
            self._release()
            raise
        if not is_folder:
            self._release()
            raise FileExistsError(errno.EEXIST, "not a folder of z4ai's", self._partial)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with contextlib.suppress(OSError):
            self._empty()
            os.rmdir(self._partial)
        self._release()

    def _empty(self) -> None:
        for name in os.listdir(self._partial):
            os.unlink(os.path.join(self._partial, name))

    def _take_lock(self) -> None:
        if sys.platform == "win32":
            return
        self._lock = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            self._lock = -1
            msg = "another run is at work in this folder"
            raise BlockingIOError(errno.EWOULDBLOCK, msg, self.root) from None
        except OSError:
            pass  # a file system without locks

    def _release(self) -> None:
        if sys.platform != "win32" and self._lock >= 0:
            with contextlib.suppress(OSError):
                # Closing is not enough: a child that was forked meanwhile holds the same lock.
                fcntl.flock(self._lock, fcntl.LOCK_UN)
            os.close(self._lock)
            self._lock = -1

    def at(self, name: str) -> str:
        """Path of a name in the folder.

        Raises
        ------
        ValueError
            If a link leads out of the folder, or what is there is no file.
        """
        path = os.path.join(self.root, *name.split("/"))
        self.check_parent(path)
        if os.path.islink(path) or (os.path.lexists(path) and not os.path.isfile(path)):
            msg = f"{path}: not a regular file: it is not replaced"
            raise ValueError(msg)
        return path

    def check_parent(self, path: str) -> None:
        """Refuse a path behind a link that leads out of the folder.

        Raises
        ------
        ValueError
        """
        if not contains(self.root, os.path.realpath(os.path.dirname(path))):
            msg = f"{path}: lies behind a link that leads out of the folder"
            raise ValueError(msg)

    def make_folders(self, name: str) -> None:
        """Make the folders that a file lies in."""
        path = self.at(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)

    def put(self, name: str, mode: int | None, write: Callable[[str], None]) -> None:
        """Have a file written, and give it its name; a mode of None is that of any new file."""
        self.make_folders(name)
        write(self._new)
        if mode is not None:
            os.chmod(self._new, mode)
        os.replace(self._new, self.at(name))
        self.sync(name)

    def put_bytes(self, name: str, mode: int | None, data: bytes) -> None:
        """Write a file of these bytes."""

        def write(path: str) -> None:
            with AtomicFile(path) as file:
                file.write(data)
                file.commit()

        self.put(name, mode, write)

    def put_copy(self, name: str, file: File, done: Callable[[int], None], *, link: bool) -> None:
        """Copy a file, or make a hard link to it where that is wished and possible."""

        if link and self._put_link(name, file.path):
            done(file.nbytes)
            return

        def write(path: str) -> None:
            with open(file.path, "rb") as source, AtomicFile(path) as target:
                while piece := source.read(_PIECE_NBYTES):
                    target.write(piece)
                    done(len(piece))
                target.commit()
            os.utime(path, ns=(file.status.st_atime_ns, file.status.st_mtime_ns))

        self.put(name, file.mode, write)

    def _put_link(self, name: str, path: str) -> bool:
        self.make_folders(name)
        try:
            os.link(path, self._new)
        except OSError:  # another disk, another owner, a file system without
            return False
        os.replace(self._new, self.at(name))
        return True

    def remove(self, name: str) -> None:
        """Remove a file."""
        os.unlink(os.path.join(self.root, *name.split("/")))
        self.sync(name)

    def settle(self, name: str) -> None:
        """Bring a file that was there before to the disk, whoever wrote it."""
        fd = os.open(self.at(name), os.O_RDONLY if hasattr(os, "O_DIRECTORY") else os.O_RDWR)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
        self.sync(name)

    def sync(self, name: str) -> None:
        """Bring the names of the folder of a file to the disk."""
        if not hasattr(os, "O_DIRECTORY"):
            return
        with contextlib.suppress(OSError):
            path = os.path.dirname(os.path.join(self.root, *name.split("/")))
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
