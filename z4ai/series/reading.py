"""`SeriesReader`: what is in a series, and out of it; nothing here changes one."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from z4ai._atomic import AtomicFile
from z4ai._progress import Progress
from z4ai.errors import Z4Error
from z4ai.options import Limits, resolve_limits
from z4ai.series.folder import Folder
from z4ai.series.opening import Opener
from z4ai.series.storing import forget

if TYPE_CHECKING:
    from collections.abc import Iterator

    from z4ai._progress import ProgressWish
    from z4ai.deltas.reader import DeltaReader
    from z4ai.safetensors import ZstnReader
    from z4ai.series.manifest import Step

    Path = str | os.PathLike[str]

__all__ = ["Report", "SeriesReader", "stats_of"]


class Report(NamedTuple):
    """What `Series.verify` found.

    Attributes
    ----------
    steps : tuple of Step
        What was restored and compared.
    failures : dict of str to Exception
        What is wrong with a step, by its name.
    orphans : tuple of str
        Files of the folder that an interrupted writer left; the next one removes them.
    """

    steps: tuple[Step, ...]
    failures: dict[str, Exception]
    orphans: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether every step is what was added."""
        return not self.failures


class SeriesReader:
    """The half of `Series` that only reads; any number of these may be at work.

    Parameters
    ----------
    folder : path-like
        The folder.
    limits, threads
        As `Series.open`.
    """

    def __init__(self, folder: Path, limits: Limits | None, threads: int | None) -> None:
        self._folder = Folder(folder)
        self._opener = Opener(self._folder, resolve_limits(limits), threads)

    # --- What is in it ----------------------------------------------------------------------------

    @property
    def path(self) -> str:
        """The folder."""
        return self._folder.path

    @property
    def max_depth(self) -> int:
        """How deep a chain of those added from now on may become."""
        return self._folder.read_manifest().max_depth

    @property
    def effort(self) -> str:
        """Tier for what is added from now on."""
        return self._folder.read_manifest().effort

    def __len__(self) -> int:
        return len(self._folder.read_manifest().steps)

    def __contains__(self, name: object) -> bool:
        return any(step.name == name for step in self._folder.read_manifest().steps)

    def ls(self) -> list[Step]:
        """List the steps as they are now, in the order in which they were added.

        Where one was dropped, one that depended on it may have taken its place.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("ls_example")
        >>> _ = series.add("model.safetensors", "step0010")
        >>> step, = series.ls()
        >>> step.name, step.step, step.stream, step.base, step.depth
        ('step0010', 10, 'F32', None, 0)
        """
        return list(self._folder.read_manifest().steps)

    # --- Reading ----------------------------------------------------------------------------------

    def restore(self, name: str, dst: Path, *, progress: ProgressWish = None) -> dict[str, Any]:
        """Write the `.safetensors` file that was added, byte for byte.

        Parameters
        ----------
        name : str
            The step.
        dst : path-like
            Where to. It is replaced only when it is complete, verified and on the disk.
        progress : bool or callable, optional
            True draws a bar; a callable is called with ``(done_bytes, total_bytes)``.

        Returns
        -------
        dict
            As `add`.

        Raises
        ------
        KeyError
            If there is no such step.
        FormatError
            If a file of the series is damaged.
        OSError
            If a file cannot be read or written.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("restore_example")
        >>> _ = series.add("model.safetensors", "start")
        >>> series.restore("start", "again.safetensors")["name"]
        'start'
        """
        with self._opener.current(name) as chain, AtomicFile(dst, like=chain.path) as target:
            with Progress(progress, chain.step.original_nbytes, "restore") as bar:
                chain.restore(target.write, bar.update)
            target.commit()
            return stats_of(chain.step)

    @contextlib.contextmanager
    def reader(self, name: str) -> Iterator[ZstnReader | DeltaReader]:
        """Open a step to read single tensors of it, without the rest.

        Parameters
        ----------
        name : str
            The step.

        Yields
        ------
        ZstnReader or DeltaReader
            Closed with the block. The step may be dropped meanwhile.

        Raises
        ------
        KeyError, FormatError, OSError
            As `restore`.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("reader_example")
        >>> _ = series.add("model.safetensors", "start")
        >>> with series.reader("start") as reader:
        ...     reader.read_numpy("encoder.weight").shape
        (64, 64)
        """
        with self._opener.current(name) as chain:
            yield chain.reader()

    def verify(self, *, progress: ProgressWish = None) -> Report:
        """Restore every step to nowhere and compare it with its digest.

        Parameters
        ----------
        progress
            As `restore`.

        Returns
        -------
        Report
            What is wrong, step by step.

        Raises
        ------
        FormatError, OSError
            If there is no manifest that can be read.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("verify_example")
        >>> _ = series.add("model.safetensors", "start")
        >>> report = series.verify()
        >>> report.ok, len(report.steps), report.orphans
        (True, 1, ())
        """
        manifest = self._folder.read_manifest()
        failures: dict[str, Exception] = {}
        verified = []
        total = sum(step.original_nbytes for step in manifest.steps)
        with Progress(progress, total, "verify") as bar:
            for name in [step.name for step in manifest.steps]:
                try:
                    with self._opener.current(name) as chain:
                        chain.restore(forget, bar.update)
                        verified.append(chain.step)
                except KeyError:
                    continue  # dropped meanwhile
                except (Z4Error, OSError) as error:
                    failures[name] = error
        orphans = self._folder.orphans(self._folder.read_manifest())
        return Report(tuple(verified), failures, tuple(orphans))


def stats_of(step: Step) -> dict[str, Any]:
    """Tell of a step what `Series.add` and `Series.restore` return."""
    original, encoded = step.original_nbytes, step.encoded_nbytes
    return {
        "original_bytes": original,
        "compressed_bytes": encoded,
        "ratio": original / encoded if encoded else 0.0,
        "saved_pct": 100 * (1 - encoded / original) if original else 0.0,
        "name": step.name,
        "stream": step.stream,
        "step": step.step,
        "base": step.base,
        "depth": step.depth,
        "file": step.file,
    }
