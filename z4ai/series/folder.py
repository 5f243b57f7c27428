"""The folder of a series: its lock, and changes that happen as a whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
import sys
import time
from typing import TYPE_CHECKING

from z4ai._atomic import AtomicFile, is_temporary
from z4ai.errors import CorruptError, Z4Error
from z4ai.series import manifest as wire
from z4ai.series.manifest import Manifest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = ["Folder"]

_LOCK = ".lock"
_PARTIAL = ".partial"
_LABEL_NBYTES = 64
_POLL_SECONDS = 0.02


class Folder:
    """A folder that is a series, or will be one.

    Parameters
    ----------
    path : path-like
        The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.realpath(os.fspath(path))
        self.partial = os.path.join(self.path, _PARTIAL)

    def at(self, name: str) -> str:
        """Return the path of a file in the folder."""
        return os.path.join(self.path, name)

    # --- Reading ----------------------------------------------------------------------------------

    def read_manifest(self) -> Manifest:
        """Read and check the manifest.

        Raises
        ------
        FileNotFoundError
            If there is none: the folder is no series.
        FormatError, OSError
        """
        path = self.at(wire.NAME)
        try:
            self.check_regular(wire.NAME)
            with open(path, "rb") as file:
                data = file.read(wire.MAX_NBYTES + 1)
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, f"no series: no {wire.NAME}", self.path) from None
        if len(data) > wire.MAX_NBYTES:
            msg = f"manifest of the series has more than {wire.MAX_NBYTES} bytes"
            raise CorruptError(msg)
        return wire.parse(data)

    def check_regular(self, name: str) -> int:
        """Check that a name is that of a regular file of the folder itself; -> its size.

        A pipe would block who opens it, and a link would lead out of the folder.
        """
        path = self.at(name)
        found = os.lstat(path)
        if not stat.S_ISREG(found.st_mode):
            msg = f"{path}: not a regular file"
            raise CorruptError(msg)
        return found.st_size

    def orphans(self, manifest: Manifest) -> list[str]:
        """Name the files that look like those of steps and are in no step."""
        known = {step.file for step in manifest.steps}
        names = sorted(os.listdir(self.path))
        return [name for name in names if wire.FILE_NAME.fullmatch(name) and name not in known]

    def foreign(self) -> list[str]:
        """Name what lies in ``.partial`` and no writer can have left there."""
        try:
            names = sorted(os.listdir(self.partial))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return [name for name in names if not _is_left(name)]

    # --- Writing ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def locked(self, timeout: float | None) -> Iterator[None]:
        """Be the only writer in the body.

        Raises
        ------
        TimeoutError
            If another writer is still at work after `timeout` seconds; None waits for ever.
        """
        flags = os.O_RDWR | os.O_CREAT
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(self.at(_LOCK), flags, 0o666)
        try:
            end = None if timeout is None else time.monotonic() + timeout
            while not _try_lock(fd):
                if end is not None and time.monotonic() >= end:
                    msg = f"another writer has been at work for {timeout:g} seconds"
                    raise TimeoutError(errno.ETIMEDOUT, msg, self.path)
                time.sleep(_POLL_SECONDS)
            try:
                yield
            finally:
                _unlock(fd)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def changing(self, timeout: float | None) -> Iterator[Manifest]:
        """Be the only writer in the body, and leave nothing behind that failed.

        Raises
        ------
        TimeoutError
            As `locked`.
        """
        with self.locked(timeout):
            manifest = self.read_manifest()
            self.prepare(manifest)
            try:
                yield manifest
            except BaseException:
                with contextlib.suppress(OSError, Z4Error):
                    self.prepare(self.read_manifest())
                raise

    def prepare(self, manifest: Manifest | None) -> None:
        """Make ready to write: remove what a writer left that was interrupted."""
        try:
            os.mkdir(self.partial)
        except FileExistsError:
            # A link would have files of the series written, and others removed, elsewhere.
            if not stat.S_ISDIR(os.lstat(self.partial).st_mode):
                msg = f"{self.partial}: not a folder"
                raise CorruptError(msg) from None
        left = [os.path.join(_PARTIAL, name) for name in os.listdir(self.partial)]
        self.remove(left + ([] if manifest is None else self.orphans(manifest)))

    def new_name(self, label: str, suffix: str) -> str:
        """Draw a name for a new file of a step."""
        plain = re.sub(r"[^A-Za-z0-9_-]", "_", label)[:_LABEL_NBYTES]
        return f"{plain}.{secrets.token_hex(8)}{suffix}"

    def publish(self, names: Sequence[str]) -> None:
        """Bring complete files out of ``.partial`` to their place; nobody knows of them yet."""
        for name in names:
            os.replace(os.path.join(self.partial, name), self.at(name))
        if names:
            _sync(self.path)

    def replace_manifest(self, manifest: Manifest) -> None:
        """Switch to another manifest."""
        data = wire.write(manifest)
        if len(data) > wire.MAX_NBYTES:
            msg = f"manifest of the series would have {len(data)} bytes"
            raise ValueError(msg)
        written = os.path.join(self.partial, wire.NAME)
        with AtomicFile(written) as file:
            file.write(data)
            file.commit()
        os.replace(written, self.at(wire.NAME))
        _sync(self.path)

    def remove(self, names: Sequence[str]) -> None:
        """Remove files that are in no step; what cannot be removed now stays an orphan."""
        if not names:
            return
        # Else, after a loss of power, an older manifest could come back that still names them.
        _sync(self.path)
        for name in names:
            with contextlib.suppress(OSError):
                os.unlink(self.at(name))


def _is_left(name: str) -> bool:
    """Tell whether a name is one of those that are written to ``.partial``."""
    stem, suffix = os.path.splitext(name)
    if suffix == ".safetensors":
        return wire.FILE_NAME.fullmatch(f"{stem}.zstn") is not None
    if name == wire.NAME or wire.FILE_NAME.fullmatch(name) is not None:
        return True
    return is_temporary(name)


def _sync(path: str) -> None:
    """Bring the names in a folder to the disk, where folders can be opened for that."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(fd)


if sys.platform == "win32":

    def _try_lock(fd: int) -> bool:
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EDEADLK):
                raise
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:

    def _try_lock(fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        # Closing is not enough: a child that was forked meanwhile holds the same lock.
        fcntl.flock(fd, fcntl.LOCK_UN)
