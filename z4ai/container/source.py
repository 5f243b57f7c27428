"""Ranged reads of a file, of any seekable file object or of a buffer, shared by threads."""

from __future__ import annotations

import io
import os
import threading
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from z4ai._buffers import bytes_of
from z4ai._fast.chunks import CAN_FETCH
from z4ai.errors import TruncatedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = ["Scratch", "Source", "open_source", "source_of_buffer"]

# Reads of so much, one close behind the other, are taken for those of a run through the file.
_RUN_NBYTES = 1 << 20

_Path = (str, bytes, os.PathLike)


class Scratch:
    """Memory that is used again and again, and grows when more is asked for."""

    def __init__(self) -> None:
        self._memory: NDArray[np.uint8] = np.empty(0, np.uint8)

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """Return that many bytes; what was taken before is theirs too."""
        if len(self._memory) < nbytes:
            # First let go of the old memory, so that both never exist at once.
            self._memory = np.empty(0, np.uint8)
            self._memory = np.empty(nbytes, np.uint8)
        return self._memory[:nbytes]


class Source(Protocol):
    """Bytes that can be read at any place.

    Attributes
    ----------
    nbytes : int
        How many there are.
    memory : ndarray of uint8 or None
        All of them, where they lie in memory; None after `close`, so it is asked once and kept.
    identity : tuple of int, or None
        What changes when another file, or other content, comes under the same path: device,
        inode, size, and the latest change in nanoseconds. None where there is no such thing.
    fetches : bool
        It has a file descriptor, from which any thread may read at a place.
    """

    nbytes: int
    memory: NDArray[np.uint8] | None
    identity: tuple[int, ...] | None
    fetches: bool

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset` on, or raise `TruncatedError`."""

    def announce(self, begin: int, end: int) -> None:
        """Tell what is read next, so that the disk can begin with it."""

    def fetching(self) -> AbstractContextManager[int]:
        """Hold a source that `fetches` open; -> the file descriptor."""

    def close(self) -> None:
        """Give back what the source holds; reads that are under way end first."""


def read(source: Source, offset: int, nbytes: int, scratch: Scratch | None = None) -> memoryview:
    """Return a range: a view if it lies in memory, else read into `scratch` or a fresh buffer."""
    memory = source.memory
    if memory is not None:
        if offset + nbytes > source.nbytes:
            raise _ends_early(source.nbytes, offset + nbytes)
        return memory[offset : offset + nbytes].data
    out = np.empty(nbytes, np.uint8) if scratch is None else scratch.take(nbytes)
    source.read_into(offset, out.data)
    return out.data


def _ends_early(nbytes: int, expected: int) -> TruncatedError:
    msg = f"file ends after {nbytes} bytes, expected at least {expected}"
    return TruncatedError(msg, offset=nbytes)


class _Open:
    """Keeps what is read from open until the last reader is out of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._readers = 0
        self._closed = False

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with self._lock:
            if self._closed:
                msg = "the reader is closed"
                raise ValueError(msg)
            self._readers += 1
        try:
            yield
        finally:
            if self._leave():
                self._release()

    fetches = False

    def announce(self, begin: int, end: int) -> None:
        pass

    @contextmanager
    def fetching(self) -> Iterator[int]:
        with self._reading():
            yield self._descriptor()

    def _descriptor(self) -> int:
        raise NotImplementedError

    def _leave(self) -> bool:
        """Count a reader out; -> whether it was the last one of a closed source."""
        with self._lock:
            self._readers -= 1
            return self._closed and self._readers == 0

    def close(self) -> None:
        with self._lock:
            idle = not self._closed and self._readers == 0
            self._closed = True
        if idle:
            self._release()

    def _release(self) -> None:
        pass


class _BufferSource(_Open):
    identity: tuple[int, ...] | None = None

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        super().__init__()
        self.memory: NDArray[np.uint8] | None = memory
        self.nbytes = len(memory)

    def read_into(self, offset: int, out: memoryview) -> None:
        with self._reading():
            memory = self.memory
            if memory is None or offset + len(out) > self.nbytes:
                raise _ends_early(self.nbytes, offset + len(out))
            out[:] = memory[offset : offset + len(out)].data

    def _release(self) -> None:
        # So that a map or a bytearray can be closed or resized again; who reads has its own view.
        self.memory = None


class _FileSource(_Open):
    """A real file, read at a place of each reader's own."""

    memory: NDArray[np.uint8] | None = None
    fetches = CAN_FETCH

    def __init__(self, file: Any, *, owned: bool) -> None:
        super().__init__()
        # Kept, whatever wraps it too: a file that nobody holds any more closes itself.
        self._file = file
        self._owned = owned
        self._fd: int = file.fileno()
        status = os.fstat(self._fd)
        self.nbytes = status.st_size
        changed = max(status.st_mtime_ns, status.st_ctime_ns)
        self.identity: tuple[int, ...] | None
        self.identity = (status.st_dev, status.st_ino, status.st_size, changed)
        self._expected = 0

    def read_into(self, offset: int, out: memoryview) -> None:
        done = 0
        with self._reading():
            while done < len(out):
                got = _pread_into(self._fd, out[done:], offset + done)
                if got == 0:
                    raise _ends_early(offset + done, offset + len(out))
                done += got
            if done >= _RUN_NBYTES and self._follows(offset, offset + done):
                self._advise(offset + done, done)

    def announce(self, begin: int, end: int) -> None:
        # And what probably comes next, while this is worked on.
        self._advise(begin, (2 if self._follows(begin, end) else 1) * (end - begin))

    def _descriptor(self) -> int:
        return self._fd

    def _follows(self, begin: int, end: int) -> bool:
        """Tell whether a range is the next one of a run through the file."""
        follows = 0 <= begin - self._expected <= _RUN_NBYTES
        self._expected = end
        return follows

    def _advise(self, begin: int, nbytes: int) -> None:
        if begin < self.nbytes and hasattr(os, "posix_fadvise"):
            # What the system makes of it does not matter.
            with suppress(OSError):
                os.posix_fadvise(self._fd, begin, nbytes, os.POSIX_FADV_WILLNEED)

    def _release(self) -> None:
        if self._owned:
            self._file.close()


def _pread_into(fd: int, out: memoryview, offset: int) -> int:
    if hasattr(os, "preadv"):
        return os.preadv(fd, [out], offset)
    got = os.pread(fd, min(len(out), 1 << 24), offset)
    out[: len(got)] = got
    return len(got)


class _ObjectSource(_Open):
    """Any seekable binary file object: one reader at a time moves its position."""

    memory: NDArray[np.uint8] | None = None
    identity: tuple[int, ...] | None = None

    def __init__(self, file: Any, *, owned: bool) -> None:
        super().__init__()
        self._file = file
        self._owned = owned
        self._position_lock = threading.Lock()
        self.nbytes = int(file.seek(0, os.SEEK_END))

    def read_into(self, offset: int, out: memoryview) -> None:
        done = 0
        with self._reading(), self._position_lock:
            self._file.seek(offset)
            while done < len(out):
                done += self._read_some(out[done:], offset + done)

    def _read_some(self, out: memoryview, offset: int) -> int:
        fill = getattr(self._file, "readinto", None)
        if fill is not None:
            got = int(fill(out) or 0)
        else:
            data = self._file.read(len(out))
            got = len(data)
            out[:got] = data
        if got == 0:
            raise _ends_early(offset, offset + len(out))
        return got

    def _release(self) -> None:
        if self._owned:
            self._file.close()


def source_of_buffer(data: Any) -> Source:
    """Make a source of a buffer; nothing is copied."""
    return _BufferSource(bytes_of(data))


def open_source(file: Any) -> Source:
    """Open a path, or take a seekable binary file object, which stays the caller's.

    Raises
    ------
    TypeError
        If it is neither.
    OSError
        If the file cannot be opened.
    """
    if isinstance(file, _Path):
        raw = io.FileIO(file, "rb")
        try:
            if not hasattr(os, "pread"):
                return _ObjectSource(raw, owned=True)
            return _FileSource(raw, owned=True)
        except BaseException:
            raw.close()
            raise
    if not hasattr(file, "seek") or not hasattr(file, "read"):
        msg = f"expected a path or a seekable binary file, got {type(file).__name__}"
        raise TypeError(msg)
    if isinstance(file, io.TextIOBase):
        msg = "expected a binary file, got one opened as text"
        raise TypeError(msg)
    raw = getattr(file, "raw", file)
    # Not whatever has a fileno: that of a gzip file is that of the compressed one.
    if hasattr(os, "pread") and type(raw) is io.FileIO:
        if file.writable():
            file.flush()
        return _FileSource(file, owned=False)
    return _ObjectSource(file, owned=False)
