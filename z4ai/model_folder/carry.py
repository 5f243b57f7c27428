"""A plan carried out: in an order that can be interrupted anywhere and taken up again."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
from typing import TYPE_CHECKING

import numpy as np

from z4ai import _wire
from z4ai.container import zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.original import parse_original
from z4ai.container.sink import WriteOut
from z4ai.container.source import open_source, read
from z4ai.errors import CorruptError, FormatError
from z4ai.model_folder.hint import is_own
from z4ai.options import NO_LIMITS
from z4ai.safetensors import compress_file, decompress_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from z4ai._progress import Progress
    from z4ai.model_folder.place import Place
    from z4ai.model_folder.plan import Plan, Text, Weights
    from z4ai.model_folder.tree import File, Tree

__all__ = ["Carrier"]


class _Different(Exception):
    """Two contents are not the same."""


class _Share:
    """What one file contributes to the progress of all."""

    def __init__(self, bar: Progress, nbytes: int) -> None:
        self._bar = bar
        self._left = nbytes
        self._done = 0

    def add(self, nbytes: int) -> None:
        """Count bytes as done, but no more than the file's share."""
        nbytes = min(nbytes, self._left)
        self._left -= nbytes
        self._bar.update(nbytes)

    def to(self, done: int, total: int) -> None:
        """Count up to a number of bytes as done."""
        self.add(done - self._done)
        self._done = done

    def finish(self) -> None:
        """Count the rest as done."""
        self.add(self._left)


class Carrier:
    """Carries out one plan.

    Parameters
    ----------
    tree : Tree
        The folder to read.
    place : Place
        Where to write.
    separate : bool
        Whether these are two folders, so that other files have to be copied.
    remove : bool
        Whether to remove what has been replaced.
    force, link, threads
        As the public functions.

    Attributes
    ----------
    n_skipped, n_copied, n_removed : int
        Weights found complete; other files copied; files removed.
    """

    def __init__(
        self,
        tree: Tree,
        place: Place,
        *,
        separate: bool,
        remove: bool,
        force: bool,
        link: bool,
        threads: int | None,
    ) -> None:
        self._tree = tree
        self._place = place
        self._separate = separate
        self._remove = remove
        self._force = force
        self._link = link
        self._threads = threads
        self._doomed: list[File] = []
        self._early = False
        self.n_skipped = 0
        self.n_copied = 0
        self.n_removed = 0

    def compress(
        self, plan: Plan, effort: str, bar: Progress, *, verify: bool
    ) -> list[tuple[int, int]]:
        """Compress the weights; -> sizes before and after of each."""

        def make(item: Weights, path: str, share: _Share) -> None:
            options = {"effort": effort, "threads": self._threads}
            compress_file(item.source.path, path, verify=verify, progress=share.to, **options)  # type: ignore[arg-type]

        def is_done(item: Weights, path: str, share: _Share) -> bool:
            return _restores(path, item.source.path, self._threads, share.add)

        self._check_sources(plan)
        for item in plan.weights:
            self._check_target(item, lambda item, path: _may_restore(path, item.source.path))
        self._check(plan)
        copies = sum(file.nbytes for file in plan.others) if self._separate else 0
        self._check_room(0 if self._link else copies)
        # Compressed weights take less; how much less, only compressing them tells.
        self._early = self._free() < sum(item.original_nbytes for item in plan.weights)
        with self._place:
            if self._separate:
                self._copy(plan, bar)
            sizes = []
            for item in plan.weights:
                share = _Share(bar, item.original_nbytes * (2 if verify else 1))
                self._convert(item, make, is_done, share)
                sizes.append((item.original_nbytes, os.path.getsize(self._place.at(item.target))))
            self._finish(plan, [])
        return sizes

    def restore(self, plan: Plan, notes: Sequence[File], bar: Progress) -> list[tuple[int, int]]:
        """Restore the weights; -> sizes of each, plain and compressed."""

        def make(item: Weights, path: str, share: _Share) -> None:
            decompress_file(item.source.path, path, threads=self._threads, progress=share.to)

        def is_done(item: Weights, path: str, share: _Share) -> bool:
            return _restores(item.source.path, path, self._threads, share.add, is_sound=True)

        self._check_sources(plan)
        for item in plan.weights:
            self._check_target(
                item, lambda item, path: os.path.getsize(path) == item.original_nbytes
            )
        self._check(plan)
        missing = [
            item.original_nbytes
            for item in plan.weights
            if not os.path.exists(self._place.at(item.target)) or item.target == item.source.name
        ]
        self._early = self._free() < sum(missing)
        copies = sum(file.nbytes for file in plan.others) if self._separate else 0
        needed = max(missing, default=0) if self._remove and self._early else sum(missing)
        self._check_room(needed + (0 if self._link else copies))
        with self._place:
            if self._separate:
                self._copy(plan, bar)
            for item in plan.weights:
                self._convert(item, make, is_done, _Share(bar, item.original_nbytes))
            self._finish(plan, notes)
        return [(item.original_nbytes, item.source.nbytes) for item in plan.weights]

    # --- Before anything is written -----------------------------------------------------------

    def _check_sources(self, plan: Plan) -> None:
        """Check that nothing replaces what is still to be read, and leaves no link to nothing."""
        sources = {item.source.name for item in plan.weights}
        moved = {item.source.path for item in plan.weights if item.target != item.source.name}
        moved.update(text.source.path for text in plan.texts if text.source is not None)
        for item in plan.weights:
            if not self._separate and item.target in sources - {item.source.name}:
                # Not by force either: this would be gone before its turn comes.
                msg = f"has weights of its own, and is what {item.source.name} becomes"
                raise FileExistsError(errno.EEXIST, msg, self._place.at(item.target))
        for file in self._tree.files.values():
            if self._remove and file.is_link and file.path in moved:
                msg = f"{file.name}: a link; what it leads to is not removed or replaced"
                raise ValueError(msg)

    def _check_target(self, item: Weights, may_be: Callable[[Weights, str], bool]) -> None:
        if self._remove and item.source.is_link:  # though it keeps its name
            msg = f"{item.source.name}: a link; what it leads to is not removed or replaced"
            raise ValueError(msg)
        path = self._place.at(item.target)
        own = not self._separate and item.target == item.source.name
        if not own and not self._force and os.path.exists(path) and not may_be(item, path):
            raise _exists(path, item.source)

    def _check(self, plan: Plan) -> None:
        for text in plan.texts:
            path = self._place.at(text.target)
            if self._remove and text.source is not None and text.source.is_link:
                msg = f"{text.source.name}: a link, which is not removed"
                raise ValueError(msg)
            self._is_written(text, path)
        if not self._separate:
            return
        for file in plan.others:
            path = self._place.at(file.name)
            if not self._force and os.path.exists(path) and os.path.getsize(path) != file.nbytes:
                raise _exists(path, file)

    def _is_written(self, text: Text, path: str) -> bool:
        """Tell whether a text is there already; another one in its place is left alone."""
        if not os.path.exists(path):
            return False
        if _holds(path, text.data):
            return True
        if text.source is None:
            return not is_own(path)
        if not self._force:
            raise _exists(path, text.source)
        return False

    def _free(self) -> int:
        path = self._place.root
        while not os.path.isdir(path):
            path = os.path.dirname(path)
        return shutil.disk_usage(path).free

    def _check_room(self, nbytes: int) -> None:
        if nbytes > (free := self._free()):
            msg = f"not enough room: {nbytes} bytes needed, {free} free"
            raise OSError(errno.ENOSPC, msg, self._place.root)

    # --- Writing ------------------------------------------------------------------------------

    def _copy(self, plan: Plan, bar: Progress) -> None:
        """Copy the other files, folders and links to folders."""
        for name, mode in self._tree.folders.items():
            with contextlib.suppress(FileExistsError):
                # Never open to more than it is in the end; the umask is set aside then.
                os.mkdir(self._folder(name), mode | 0o700)
        for name, target in self._tree.links.items():
            path = self._folder(name)
            if not (os.path.islink(path) and os.readlink(path) == target):
                os.symlink(target, path, target_is_directory=True)
        for file in plan.others:
            share = _Share(bar, file.nbytes)
            path = self._place.at(file.name)
            if os.path.exists(path) and filecmp.cmp(path, file.path, shallow=False):
                share.finish()
                continue
            if os.path.exists(path) and not self._force:
                raise _exists(path, file)
            self._place.put_copy(file.name, file, share.add, link=self._link)
            share.finish()
            self.n_copied += 1

    def _folder(self, name: str) -> str:
        """Path of a folder to write to, or of a link to one."""
        path = os.path.join(self._place.root, *name.split("/"))
        self._place.check_parent(path)
        return path

    def _convert(
        self,
        item: Weights,
        make: Callable[[Weights, str, _Share], None],
        is_done: Callable[[Weights, str, _Share], bool],
        share: _Share,
    ) -> None:
        """Make one file of another, unless that is done already."""
        path = self._place.at(item.target)
        source = item.source
        own = not self._separate and item.target == source.name
        if not own and os.path.exists(path):
            if is_done(item, path, share):
                if self._remove:
                    self._place.settle(item.target)
                self.n_skipped += 1
                share.finish()
                self._give_up(source)
                return
            if not self._force:
                raise _exists(path, source)

        def write(partial: str) -> None:
            make(item, partial, share)
            _check_unchanged(source)

        self._place.put(item.target, source.mode, write)
        share.finish()
        if own:
            self.n_removed += 1
        else:
            self._give_up(source)

    def _finish(self, plan: Plan, notes: Sequence[File]) -> None:
        """Write what names the weights, then remove what they were made of."""
        for text in plan.texts:
            path = self._place.at(text.target)
            if not self._is_written(text, path):
                mode = None if text.source is None else text.source.mode
                self._place.put_bytes(text.target, mode, text.data)
        for file in self._doomed:
            self._drop(file)
        for text in plan.texts:
            if self._remove and text.source is not None:
                self._drop(text.source)
        for file in notes:
            self._drop(file)
        if self._separate:
            # Last: a folder may be one that nobody writes to.
            for name, mode in reversed(self._tree.folders.items()):
                os.chmod(self._folder(name), mode)

    def _give_up(self, file: File) -> None:
        """Have an original removed: now if there is no room for it, else when all is done."""
        if not self._remove:
            return
        if self._early:
            self._drop(file)
        else:
            self._doomed.append(file)

    def _drop(self, file: File) -> None:
        _check_unchanged(file)
        self._place.remove(file.name)
        self.n_removed += 1


def _exists(path: str, source: File) -> FileExistsError:
    msg = f"exists already, and is not what {source.name} becomes"
    return FileExistsError(errno.EEXIST, msg, path)


def _check_unchanged(file: File) -> None:
    if not file.is_unchanged():
        msg = f"{file.name}: has changed meanwhile"
        raise CorruptError(msg)


def _holds(path: str, data: bytes) -> bool:
    if os.path.getsize(path) != len(data):
        return False
    with open(path, "rb") as file:
        return file.read() == data


def _may_restore(container: str, original: str) -> bool:
    """Tell by its index whether a file can be a container of the original."""
    try:
        _compare(container, original, None, None)
    except (_Different, FormatError):
        return False
    return True


def _restores(
    container: str,
    original: str,
    threads: int | None,
    done: Callable[[int], None],
    *,
    is_sound: bool = False,
) -> bool:
    """Tell by decoding it whether a file is a container of the original.

    Raises
    ------
    FormatError
        If the container is damaged and has to be sound.
    """
    try:
        _compare(container, original, threads, done)
    except _Different:
        return False
    except FormatError:
        if is_sound:
            raise
        return False
    return True


def _compare(
    container: str, original: str, threads: int | None, done: Callable[[int], None] | None
) -> None:
    """Compare a container with the original: headers, and unless `done` is None the content."""
    packed, plain = open_source(container), open_source(original)
    try:
        found = zstn.parse_container(packed, NO_LIMITS)
        try:
            header_bytes, _ = parse_original(plain)
        except FormatError:
            raise _Different from None
        if found.header_bytes != header_bytes or found.original_nbytes != plain.nbytes:
            raise _Different
        if done is None:
            return
        position = len(_wire.U64.pack(0)) + len(header_bytes)

        def compare(part: memoryview) -> None:
            nonlocal position
            expected = np.frombuffer(read(plain, position, len(part)), np.uint8)
            if not np.array_equal(expected, np.frombuffer(part, np.uint8)):
                raise _Different
            position += len(part)

        decoder = TensorDecoder(packed, NO_LIMITS, threads, done)
        decoder.decode_all(found.header.tensors, found.locations, WriteOut(compare))
        if position != plain.nbytes:
            raise _Different
    finally:
        packed.close()
        plain.close()
