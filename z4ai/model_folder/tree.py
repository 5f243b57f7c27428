"""What is in a folder: files, folders, links that stay inside. Nothing outside is touched."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from z4ai._wire import MAGIC_CONTAINER

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["PARTIAL", "File", "Tree", "contains", "is_container", "read_tree"]

# Of a run that is under way, or was interrupted.
PARTIAL = ".z4ai-partial"


class File(NamedTuple):
    """A file of a folder.

    Attributes
    ----------
    name : str
        Its path in the folder, parts separated by slashes.
    path : str
        Where it is; of a link, where that leads.
    status : stat_result
        As it was when the folder was read.
    is_link : bool
    """

    name: str
    path: str
    status: os.stat_result
    is_link: bool

    @property
    def nbytes(self) -> int:
        """Its size."""
        return self.status.st_size

    @property
    def mode(self) -> int:
        """Who may do what with it."""
        return stat.S_IMODE(self.status.st_mode) & 0o777

    def is_unchanged(self) -> bool:
        """Tell whether it is still what it was when the folder was read."""
        now = os.stat(self.path)
        return (now.st_ino, now.st_size, now.st_mtime_ns) == (
            self.status.st_ino,
            self.status.st_size,
            self.status.st_mtime_ns,
        )


class Tree(NamedTuple):
    """A folder: files by name, mode of each folder inside, and where links to those lead."""

    root: str
    mode: int
    files: dict[str, File]
    folders: dict[str, int]
    links: dict[str, str]


def is_container(path: str) -> bool:
    """Tell by its first bytes whether a file is a `ZSTN` container."""
    with open(path, "rb") as file:
        return file.read(4) == MAGIC_CONTAINER


def contains(folder: str, path: str) -> bool:
    """Tell whether a real path is that of a folder or of something inside."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def read_tree(folder: str, *, follow_links: bool) -> Tree:
    """Read a folder with all that is inside.

    Raises
    ------
    ValueError
        If a link leads out of it, unless `follow_links`; if there is a device or a pipe.
    OSError
    """
    root = os.path.realpath(folder)
    if not os.path.isdir(root):
        code = errno.ENOTDIR if os.path.exists(root) else errno.ENOENT
        raise OSError(code, os.strerror(code), folder)
    tree = Tree(root, stat.S_IMODE(os.stat(root).st_mode) & 0o777, {}, {}, {})
    may_lead_to = _may_lead_to(root, follow_links=follow_links)
    _read(tree, root, "", may_lead_to)
    return tree


def _may_lead_to(root: str, *, follow_links: bool) -> Callable[[str], bool]:
    homes = [root]
    # The cache of huggingface_hub: `snapshots/<revision>` is made of links to files in `blobs`.
    above = os.path.dirname(root)
    while above != os.path.dirname(above):
        if os.path.basename(above) == "snapshots":
            homes.append(os.path.join(os.path.dirname(above), "blobs"))
        above = os.path.dirname(above)
    return lambda path: follow_links or any(contains(home, path) for home in homes)


def _read(tree: Tree, folder: str, prefix: str, may_lead_to: Callable[[str], bool]) -> None:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        name = prefix + entry.name
        if name == PARTIAL:
            continue
        path = os.path.realpath(entry.path)
        is_link = entry.is_symlink()
        status = os.stat(path)  # fails where a link leads nowhere
        if is_link and not may_lead_to(path):
            msg = f"{entry.path}: a link that leads out of the folder, to {path}"
            raise ValueError(msg)
        if stat.S_ISREG(status.st_mode):
            tree.files[name] = File(name, path, status, is_link)
        elif not stat.S_ISDIR(status.st_mode):
            msg = f"{entry.path}: neither a file nor a folder"
            raise ValueError(msg)
        elif not is_link:
            tree.folders[name] = stat.S_IMODE(status.st_mode) & 0o777
            _read(tree, entry.path, f"{name}/", may_lead_to)
        else:
            target = os.readlink(entry.path)
            if os.path.isabs(target) or not contains(tree.root, path):
                msg = f"{entry.path}: a link to a folder, which is not followed"
                raise ValueError(msg)
            tree.links[name] = target
