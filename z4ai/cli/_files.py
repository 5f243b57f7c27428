"""Names of inputs and outputs, what a file is, and output that appears only when it is complete."""

from __future__ import annotations

import contextlib
import errno
import io
import mmap
import os
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any, BinaryIO

from z4ai._atomic import AtomicFile
from z4ai._fileobj import read_some, write_all
from z4ai._wire import MAGIC_CONTAINER, MAGIC_DELTA, MAGIC_FRAME
from z4ai.container.st_header import MAX_HEADER_NBYTES
from z4ai.errors import FormatError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CONTAINER",
    "CONTAINERS",
    "DELTA",
    "DELTAS",
    "FRAME",
    "MODEL_DELTA",
    "PIPE",
    "PLAIN",
    "SAFETENSORS",
    "UsageError",
    "check_compressed",
    "check_delta",
    "check_output_name",
    "compressed_name",
    "delta_name",
    "input_file",
    "input_path",
    "is_regular",
    "kind_of",
    "mapped",
    "output_file",
    "output_path",
    "restored_name",
]

PIPE = "-"
FRAME, CONTAINER, SAFETENSORS, PLAIN = "frame", "container", "safetensors", "plain"
DELTA, MODEL_DELTA = "delta", "model delta"
DELTAS = (DELTA, MODEL_DELTA)
_MAGICS = {
    MAGIC_FRAME: FRAME,
    MAGIC_CONTAINER: CONTAINER,
    MAGIC_DELTA: DELTA,
    b"Z4DM": MODEL_DELTA,
}
# What the output is called in records, by its kind or by that of what is compressed.
CONTAINERS = {FRAME: "z4ai", PLAIN: "z4ai", CONTAINER: "zstn", SAFETENSORS: "zstn"}
CONTAINERS |= {DELTA: "z4dl", MODEL_DELTA: "z4dm"}
_SUFFIXES = {FRAME: ".z4ai", CONTAINER: ".zstn", DELTA: ".z4dl", MODEL_DELTA: ".z4dm"}
_HEAD_NBYTES = 9


class UsageError(Exception):
    """The command line asks for what cannot be done."""


def kind_of(name: str, head: bytes, nbytes: int | None) -> str:
    """Tell what a file is from its name and its first bytes; `nbytes` is None for a pipe."""
    if head[:4] in _MAGICS:
        return _MAGICS[head[:4]]
    if name.lower().endswith(".safetensors"):
        return SAFETENSORS
    json_nbytes = int.from_bytes(head[:8], "little")
    most = MAX_HEADER_NBYTES if nbytes is None else min(MAX_HEADER_NBYTES, nbytes - 8)
    return SAFETENSORS if head[8:9] == b"{" and 2 <= json_nbytes <= most else PLAIN


def is_regular(name: str) -> bool:
    """Tell whether `name` is a file that can be read at any offset, or replaced."""
    return name != PIPE and os.path.isfile(name)


class _Pipe(io.RawIOBase):
    """A pipe whose first bytes have been looked at."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head = memoryview(head)
        self._rest = rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        if self._head:
            n = min(len(self._head), len(buffer))
            buffer[:n] = self._head[:n]
            self._head = self._head[n:]
            return n
        data = read_some(self._rest, len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def input_file(name: str) -> Iterator[tuple[BinaryIO, str, int | None]]:
    """Open an input; -> the file, its kind, its size (None if it cannot seek)."""
    if name == PIPE and sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    with contextlib.ExitStack() as stack:
        file: BinaryIO = sys.stdin.buffer if name == PIPE else stack.enter_context(open(name, "rb"))
        if is_regular(name):
            nbytes = os.fstat(file.fileno()).st_size
            kind = kind_of(name, file.read(_HEAD_NBYTES), nbytes)
            file.seek(0)
            yield file, kind, nbytes
            return
        head = b""
        while len(head) < _HEAD_NBYTES and (piece := read_some(file, _HEAD_NBYTES - len(head))):
            head += piece
        yield io.BufferedReader(_Pipe(head, file), 1 << 20), kind_of(name, head, None), None


@contextlib.contextmanager
def input_path(name: str, file: BinaryIO) -> Iterator[str]:
    """Path of an input that must be a file on disk; a pipe is copied to one."""
    if is_regular(name):
        yield name
        return
    with tempfile.TemporaryDirectory(prefix="z4ai-") as folder:
        path = os.path.join(folder, "input")
        with open(path, "wb") as copy:
            shutil.copyfileobj(file, copy, 1 << 20)
        yield path


def mapped(file: BinaryIO) -> Any:
    """Bytes of a whole file; a pipe is read into memory."""
    try:
        # Closed with the last view of it: an error on its way up may still hold one.
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):  # a pipe, or an empty file
        return file.read()


def check_compressed(name: str, kind: str) -> None:
    """Refuse what is no frame and no container.

    Raises
    ------
    FormatError, UsageError
    """
    if kind in DELTAS:
        shown = "standard input" if name == PIPE else name
        raise UsageError(f"{shown}: is a delta, which needs its base: see z4ai delta --help")
    if kind not in (FRAME, CONTAINER):
        msg = "neither a z4ai frame nor a ZSTN container: begins with neither magic"
        raise FormatError(msg, offset=0)


def check_delta(kind: str) -> None:
    """Refuse what is no delta.

    Raises
    ------
    FormatError
    """
    if kind not in DELTAS:
        msg = "no delta: begins with neither Z4DL nor Z4DM"
        raise FormatError(msg, offset=0)


def compressed_name(name: str, kind: str) -> str:
    """Name that `compress` gives its output."""
    return _of_models(name, CONTAINER) if kind == SAFETENSORS else name + _SUFFIXES[FRAME]


def delta_name(name: str, kind: str) -> str:
    """Name that `delta make` gives its output."""
    return _of_models(name, kind) if kind == MODEL_DELTA else name + _SUFFIXES[kind]


def _of_models(name: str, kind: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return (stem if dot and suffix.lower() == "safetensors" else name) + _SUFFIXES[kind]


def restored_name(name: str, kind: str) -> str:
    """Name that `decompress` and `delta apply` give their output.

    Raises
    ------
    UsageError
        If `name` has not the suffix that what made it gives.
    """
    suffix = _SUFFIXES[kind]
    stem = name[: -len(suffix)]
    if name == PIPE or not name.lower().endswith(suffix) or not os.path.basename(stem):
        msg = f"{name}: no name for the output, since it does not end in {suffix}: use --output"
        raise UsageError(msg)
    if kind in (CONTAINER, MODEL_DELTA) and not stem.lower().endswith(".safetensors"):
        stem += ".safetensors"
    return stem


def check_output_name(source: str, target: str, *, force: bool) -> None:
    """Refuse to overwrite what exists, the input itself, or a terminal.

    Raises
    ------
    UsageError
        If the output may not be written.
    """
    if target == PIPE:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "standard output is closed")
        if sys.stdout.isatty() and not force:
            msg = "the output is binary and would go to the terminal: redirect it, or use --output"
            raise UsageError(msg)
    elif os.path.exists(target):
        if os.path.isdir(target):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        if source != PIPE and os.path.exists(source) and os.path.samefile(source, target):
            raise UsageError(f"{target}: input and output are the same file")
        if not force and os.path.isfile(target):
            raise UsageError(f"{target}: exists already; --force overwrites it")
    elif not os.path.isdir(os.path.dirname(os.path.realpath(target))):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), target)


class _Named:
    """A file object whose errors name the file, as those of `open` do."""

    def __init__(self, file: Any, name: str) -> None:
        self._file = file
        self._name = name

    def write(self, data: Any, /) -> int:
        with named_errors(self._name):
            write_all(self._file, memoryview(data))
        return memoryview(data).nbytes


@contextlib.contextmanager
def named_errors(name: str) -> Iterator[None]:
    """Make errors of the system in the body name a file the user knows."""
    try:
        yield
    except OSError as error:
        error.filename = "standard output" if name == PIPE else name
        raise


@contextlib.contextmanager
def output_file(target: str) -> Iterator[BinaryIO]:
    """Open an output that takes its name only when it is complete and on disk.

    Standard output, devices and named pipes are written as they are.
    """
    special = target == PIPE or (os.path.exists(target) and not os.path.isfile(target))
    with contextlib.ExitStack() as stack:
        file: Any
        if target == PIPE:
            file = sys.stdout.buffer
        elif special:
            # With a buffer, closing would write again what failed to be written.
            file = stack.enter_context(open(target, "wb", buffering=0))
        else:
            with named_errors(target):
                file = stack.enter_context(AtomicFile(target))
        yield _Named(file, target)  # type: ignore[misc]
        with named_errors(target):
            file.flush() if special else file.commit()


@contextlib.contextmanager
def output_path(target: str) -> Iterator[str]:
    """Path for a writer that renames by itself; what cannot be renamed to gets a copy after it."""
    if target != PIPE and (os.path.isfile(target) or not os.path.exists(target)):
        path = os.path.realpath(target)
        try:
            yield path
        except OSError as error:
            # The temporary file is nobody's business, and a full disk has no name.
            if error.filename is None or os.path.dirname(path) == os.path.dirname(error.filename):
                error.filename = target
            raise
        return
    with tempfile.TemporaryDirectory(prefix="z4ai-") as folder:
        path = os.path.join(folder, "output")
        yield path
        with open(path, "rb") as file, output_file(target) as out:
            shutil.copyfileobj(file, out, 1 << 20)
