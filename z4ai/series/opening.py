"""Steps of a series, opened as they are now, without a lock."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from z4ai.errors import CorruptError
from z4ai.series.chain import Chain

if TYPE_CHECKING:
    from z4ai.options import Limits
    from z4ai.series.folder import Folder
    from z4ai.series.manifest import Manifest, Step

__all__ = ["Opener", "find_step"]


class Opener:
    """What opens steps of a series.

    Parameters
    ----------
    folder : Folder
        Where they lie.
    limits : Limits
        For the tables of each file.
    threads : int or None
        The caller's wish.
    """

    def __init__(self, folder: Folder, limits: Limits, threads: int | None) -> None:
        self.folder = folder
        self.limits = limits
        self.threads = threads

    def current(self, name: str) -> Chain:
        """Open a step and its bases, as they are now."""
        manifest = self.folder.read_manifest()
        while True:
            try:
                return self.open(manifest, find_step(manifest, name))
            except CorruptError:
                # A file is gone: the step may have been stored anew since the manifest was read.
                newer = self.folder.read_manifest()
                if newer == manifest:
                    raise
                manifest = newer

    def open(self, manifest: Manifest, step: Step) -> Chain:
        """Open a step and its bases, as a manifest has them."""
        try:
            return Chain(self.folder, manifest.chain(step), self.limits, self.threads)
        except FileNotFoundError as error:
            msg = f"step {step.name!r} lacks a file: {error.filename}"
            raise CorruptError(msg) from None


def find_step(manifest: Manifest, name: str) -> Step:
    """Find a step of a manifest by its name.

    Raises
    ------
    KeyError
        If there is none; the message names a similar one.
    """
    step = manifest.find(name)
    if step is None:
        near = difflib.get_close_matches(str(name), [s.name for s in manifest.steps], 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        msg = f"no step {name!r}{hint}"
        raise KeyError(msg)
    return step
