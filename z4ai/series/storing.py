"""How a step is stored: as a keyframe or a delta, and against what.

Everything is written under ``.partial``; the caller switches the manifest.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from z4ai import model_delta
from z4ai._fast.hashing import Xxh3
from z4ai.align import FileTensors
from z4ai.container.original import parse_original
from z4ai.container.source import open_source
from z4ai.errors import BaseMismatchError, FormatError
from z4ai.safetensors import compress_file
from z4ai.series import choice
from z4ai.series.chain import Chain
from z4ai.series.folder import Folder
from z4ai.series.manifest import Step, digest_text
from z4ai.series.opening import find_step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from z4ai._progress import Progress
    from z4ai.align import TensorSource
    from z4ai.container.st_header import Tensor
    from z4ai.series.manifest import Manifest
    from z4ai.series.opening import Opener

__all__ = ["Storing", "forget"]

_RUN_NBYTES = 4 << 20
# A delta must save that much of the keyframe, or what depends on nothing is kept.
_LEAST_SAVED = 0.01
# Where the sample says that delta and keyframe differ by less, both are made.
_CLOSE = 0.1
# What damaged files of steps are, and those that lie in the place of others.
_UNREADABLE = (FormatError, BaseMismatchError)


class Storing:
    """One file to be stored against the steps of a manifest.

    Parameters
    ----------
    opener : Opener
        Of the series, whose only writer is the caller.
    manifest : Manifest
        What there is.
    path : str
        The `.safetensors` file.
    bar : Progress
        Moved by its size for each pass.
    """

    def __init__(
        self,
        opener: Opener,
        manifest: Manifest,
        path: str,
        bar: Progress,
    ) -> None:
        self._opener = opener
        self._folder = opener.folder
        self._threads = opener.threads
        self._manifest = manifest
        self._path = path
        self._bar = bar

    def store(
        self,
        name: str,
        stream: str | None,
        number: int | None,
        max_depth: int,
        keyframe: bool | None,
    ) -> Step:
        """Write the file of a step in ``.partial``, in the best way; -> what it is."""
        state = Xxh3()
        source = open_source(self._path)
        try:
            header_bytes, header = parse_original(source)
            nbytes = source.nbytes
            buffer = np.empty(min(_RUN_NBYTES, source.nbytes), np.uint8)
            for at in range(0, source.nbytes, _RUN_NBYTES):
                piece = buffer[: min(_RUN_NBYTES, source.nbytes - at)]
                source.read_into(at, piece.data)
                state.update(piece)
            target = FileTensors(source, 8 + len(header_bytes), header)
            found = choice.related(header.tensors, self._manifest.steps, self._tensors_of)
            if stream is None:
                stream = choice.stream_name(name, header.tensors, found, self._manifest.steps)
            bases = choice.candidates(self._manifest, stream, number, found, max_depth)
            plans = [choice.Estimate(None, 1.0)]
            if keyframe is not True and bases.steps:
                plans = self._estimate(target, bases)
        finally:
            source.close()
        if keyframe is False:
            plans = [plan for plan in plans if plan.base is not None][:1] or plans
        if keyframe is not True and bases.renamed is not None:
            file, base = self._encode_smaller(name, bases.renamed)
        else:
            file, base = self._encode_best(name, plans)
        encoded = os.path.getsize(os.path.join(self._folder.partial, file))
        depth = 0 if base is None else base.depth + 1
        named = None if base is None else base.name
        digest = digest_text(state)
        return Step(name, stream, number, file, named, depth, nbytes, encoded, digest)

    def verify(self, made: Step) -> None:
        """Restore what was written and compare it with the digest of the file."""
        chain = [made]
        if made.base is not None:
            chain += self._manifest.chain(find_step(self._manifest, made.base))
        files = _Partly(self._folder, made.file)
        with Chain(files, chain, self._opener.limits, self._threads) as opened:
            opened.restore(forget, self._bar.update)

    def _tensors_of(self, step: Step) -> Sequence[Tensor]:
        # A step that cannot be read is no base; `verify` tells what is wrong with it.
        with contextlib.suppress(*_UNREADABLE), self._opener.open(self._manifest, step) as chain:
            return chain.model().tensors
        return ()

    def _estimate(self, target: FileTensors, bases: choice.Bases) -> list[choice.Estimate]:
        with contextlib.ExitStack() as stack:

            def model_of(step: Step) -> TensorSource | None:
                # As `_tensors_of`: one that cannot be read is no base.
                with contextlib.suppress(*_UNREADABLE):
                    return stack.enter_context(self._opener.open(self._manifest, step)).model()
                return None

            effort = self._manifest.effort
            return choice.estimate(target, bases, model_of, effort, self._threads)

    def _encode_best(self, name: str, plans: Sequence[choice.Estimate]) -> tuple[str, Step | None]:
        """Write the cheapest, or the smaller of two where a sample cannot tell."""
        whole = next((plan for plan in plans if plan.base is None), None)
        delta = next((plan for plan in plans if plan.base is not None), None)
        best = plans[0]
        if whole is not None and delta is not None:
            later = best is whole and delta.share < whole.share
            close = (1 - _CLOSE) * whole.share < delta.share < (1 + _CLOSE) * whole.share
            if close and not later:
                return self._encode_smaller(name, delta.base)
        return self._encode(name, best.base), best.base

    def _encode_smaller(self, name: str, base: Step | None) -> tuple[str, Step | None]:
        """Write a delta and a keyframe, and keep one."""
        found = [self._encode(name, base), self._encode(name, None)]
        paths = [os.path.join(self._folder.partial, file) for file in found]
        delta, whole = map(os.path.getsize, paths)
        pays = delta <= (1 - _LEAST_SAVED) * whole
        os.unlink(paths[pays])
        return (found[0], base) if pays else (found[1], None)

    def _encode(self, name: str, base: Step | None) -> str:
        file = self._folder.new_name(name, ".zstn" if base is None else ".z4dm")
        written = os.path.join(self._folder.partial, file)
        options: dict[str, Any] = {
            "effort": self._manifest.effort,
            "threads": self._threads,
            "progress": self._ahead(),
        }
        if base is None:
            compress_file(self._path, written, **options)
            return file
        with self._opener.open(self._manifest, base) as chain:
            model_delta.compress_file(self._path, chain.model(), written, **options)
        return file

    def _ahead(self) -> Callable[[int, int], None]:
        """Move the bar as a step of the work does, from its start to its end."""
        reached = 0
        whole = os.path.getsize(self._path)

        def to(done: int, total: int) -> None:
            nonlocal reached
            now = whole * done // max(total, 1)
            self._bar.update(now - reached)
            reached = now

        return to


class _Partly(Folder):
    """A folder one of whose files still lies in ``.partial``."""

    def __init__(self, folder: Folder, name: str) -> None:
        super().__init__(folder.path)
        self._written = name

    def at(self, name: str) -> str:
        return os.path.join(self.partial if name == self._written else self.path, name)


def forget(_: memoryview) -> None:
    """Take what is restored only to be verified."""
