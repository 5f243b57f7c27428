"""`Series`: a run of checkpoints, and whatever changes it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from z4ai._progress import Progress
from z4ai.errors import FormatError
from z4ai.options import Limits, resolve_effort
from z4ai.series import choice
from z4ai.series import manifest as wire
from z4ai.series.dropping import heirs, store_anew
from z4ai.series.manifest import Manifest, check_name
from z4ai.series.opening import find_step
from z4ai.series.reading import SeriesReader, stats_of
from z4ai.series.storing import Storing

if TYPE_CHECKING:
    from z4ai._progress import ProgressWish

    Path = str | os.PathLike[str]

__all__ = ["DEFAULT_DEPTH", "Series"]

DEFAULT_DEPTH = 8


class Series(SeriesReader):
    """A run of checkpoints in a folder. Make one by `create` or `open`.

    Any number of processes and threads may read a series while one adds and drops steps; writers
    wait for one another. A crash at any moment leaves it as it was before the change, or after it.

    Examples
    --------
    >>> from z4ai.series import Series
    >>> series = Series.create("run")
    >>> stats = series.add("model.safetensors", "start")
    >>> stats["base"] is None, stats["ratio"] > 1
    (True, True)
    >>> series.add("model.safetensors", "step0001")["base"]
    'start'
    >>> [step.name for step in series.ls()]
    ['start', 'step0001']
    >>> _ = series.drop("start")
    >>> _ = series.restore("step0001", "again.safetensors")
    >>> with open("model.safetensors", "rb") as one, open("again.safetensors", "rb") as other:
    ...     one.read() == other.read()
    True
    """

    def __init__(
        self,
        folder: Path,
        *,
        timeout: float | None = None,
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> None:
        super().__init__(folder, limits, threads)
        self._timeout = timeout

    @classmethod
    def create(
        cls,
        folder: Path,
        *,
        max_depth: int = DEFAULT_DEPTH,
        effort: str | None = None,
        timeout: float | None = None,
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> Series:
        """Make a folder a series without steps; the folder is made too if it is not there.

        Parameters
        ----------
        folder : path-like
            Where it will be.
        max_depth : int
            How many steps may have to be read beside one to restore it. More make the series
            smaller, and reading slower; 0 makes every step a keyframe.
        effort : {"fast", "balanced", "default", "max"}, optional
            Tier for the steps that are added.
        timeout, limits, threads
            As `open`.

        Raises
        ------
        FileExistsError
            If the folder is a series already.
        FormatError
            If it holds files of steps and no manifest, or a ``.partial`` of something else.
        OSError
            If it cannot be written.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> Series.create("create_example", max_depth=4).max_depth
        4
        """
        options = Manifest(_check_depth(max_depth), resolve_effort(effort))
        series = cls(folder, timeout=timeout, limits=limits, threads=threads)
        os.makedirs(series._folder.path, exist_ok=True)
        with series._folder.locked(timeout):
            if os.path.lexists(series._folder.at(wire.NAME)):
                raise FileExistsError(17, "is a series already", series._folder.path)
            left = series._folder.orphans(options)
            if left:
                msg = f"{series._folder.path} holds steps but no {wire.NAME}: {', '.join(left[:3])}"
                raise FormatError(msg)
            foreign = series._folder.foreign()
            if foreign:
                msg = f"{series._folder.partial} is not that of a series: {', '.join(foreign[:3])}"
                raise FormatError(msg)
            series._folder.prepare(None)
            series._folder.replace_manifest(options)
        return series

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        timeout: float | None = None,
        limits: Limits | None = None,
        threads: int | None = None,
    ) -> Series:
        """Open the series in a folder.

        Parameters
        ----------
        folder : path-like
            The folder. To read, it need not be writable.
        timeout : float, optional
            Seconds to wait for another writer before `TimeoutError`; None waits for ever.
        limits : Limits, optional
            What may be allocated because a file says so.
        threads : int, optional
            Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may
            use.

        Raises
        ------
        FileNotFoundError
            If the folder is no series.
        FormatError
            If its manifest is damaged.
        OSError
            If it cannot be read.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> _ = Series.create("open_example")
        >>> len(Series.open("open_example"))
        0
        """
        series = cls(folder, timeout=timeout, limits=limits, threads=threads)
        series._folder.read_manifest()
        return series

    def __repr__(self) -> str:
        return f"<Series: {self._folder.path}>"

    def add(
        self,
        path: Path,
        name: str | None = None,
        *,
        step: int | None = None,
        stream: str | None = None,
        keyframe: bool | None = None,
        verify: bool = True,
        progress: ProgressWish = None,
    ) -> dict[str, Any]:
        """Add a checkpoint.

        Parameters
        ----------
        path : path-like
            A `.safetensors` file.
        name : str, optional
            What the step is called. Default: the file's name without its suffix.
        step : int, optional
            Its number in the run. Default: that of a name like ``step00050``.
        stream : str, optional
            What it is a step of. Default: the stream whose last step has the same tensors (by name,
            shape and dtype, at least half of all elements), else a new one. Weights, their copies
            in another dtype and the state of an optimizer are so streams of their own.
        keyframe : bool, optional
            True stores it without a base, False against a base wherever one is allowed. Default:
            whatever is smaller; keyframes wherever a delta does not pay.
        verify : bool
            Restore what was written and compare it with the file before it counts.
        progress
            As `restore`.

        Returns
        -------
        dict
            ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct``; ``name``,
            ``stream``, ``step``, ``base``, ``depth``, ``file``.

        Raises
        ------
        ValueError
            If there is a step of that name, or a name that is none.
        FormatError
            If safetensors would refuse the file, or a file of the series is damaged.
        TimeoutError
            If another writer is at work for longer than `timeout`.
        OSError
            If a file cannot be read or written; the series is as it was.

        Notes
        -----
        Add a master copy before the copies that are cast from it: then these cost next to nothing.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("add_example")
        >>> series.add("model.safetensors", step=10, stream="weights")["name"]
        'model'
        """
        path = os.fspath(path)
        name = check_name(_stem(path) if name is None else name)
        if stream is not None:
            check_name(stream, "stream")
        number = choice.step_of(name) if step is None else _check_number(step)
        with self._folder.changing(self._timeout) as manifest:
            if manifest.find(name) is not None:
                msg = f"the series has a step {name!r} already"
                raise ValueError(msg)
            nbytes = os.path.getsize(path)
            with Progress(progress, nbytes * (2 if verify else 1), "add") as bar:
                job = Storing(self._opener, manifest, path, bar)
                made = job.store(name, stream, number, manifest.max_depth, keyframe)
                if verify:
                    job.verify(made)
            self._folder.publish([made.file])
            self._folder.replace_manifest(manifest.with_steps([*manifest.steps, made]))
            return stats_of(made)

    def drop(self, name: str, *, progress: ProgressWish = None) -> dict[str, Any]:
        """Remove a step; what is stored against it is stored anew first.

        Parameters
        ----------
        name : str
            The step.
        progress
            As `restore`.

        Returns
        -------
        dict
            ``name``, ``rewritten`` (names of the steps that were stored anew) and ``freed_bytes``,
            by how much the series is smaller now; less than 0 if it is larger.

        Raises
        ------
        KeyError
            If there is no such step.
        FormatError, TimeoutError, OSError
            As `add`; the series is as it was.

        Notes
        -----
        The disk must have room for one `.safetensors` file, and for the steps stored anew beside
        the old ones.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("drop_example")
        >>> _ = series.add("model.safetensors", "one"), series.add("model.safetensors", "two")
        >>> series.drop("one")["rewritten"]
        ['two']
        """
        with self._folder.changing(self._timeout) as before:
            dropped = find_step(before, name)
            affected, now = heirs(before, dropped)
            total = sum(step.original_nbytes for step in affected)
            with Progress(progress, 3 * total, "drop") as bar:
                for old in affected:
                    made = store_anew(self._opener, before, now, dropped, old, bar)
                    now = now.with_steps([made if s.name == old.name else s for s in now.steps])
                    self._folder.publish([made.file])
            now = now.with_steps([step for step in now.steps if step.name != name])
            self._folder.replace_manifest(now)
            kept = {step.file for step in now.steps}
            self._folder.remove([step.file for step in before.steps if step.file not in kept])
            freed = _encoded_nbytes(before) - _encoded_nbytes(now)
            names = [step.name for step in affected]
            return {"name": name, "rewritten": names, "freed_bytes": freed}

    def configure(self, *, max_depth: int | None = None, effort: str | None = None) -> None:
        """Change how steps are added from now on; those that are there stay as they are.

        Parameters
        ----------
        max_depth, effort
            As `create`; None leaves it.

        Examples
        --------
        >>> from z4ai.series import Series
        >>> series = Series.create("configure_example")
        >>> series.configure(max_depth=2, effort="max")
        >>> series.max_depth, series.effort
        (2, 'max')
        """
        with self._folder.changing(self._timeout) as manifest:
            depth = manifest.max_depth if max_depth is None else _check_depth(max_depth)
            tier = resolve_effort(effort, manifest.effort)
            self._folder.replace_manifest(manifest._replace(max_depth=depth, effort=tier))


def _stem(path: str) -> str:
    stem = os.path.basename(path)
    return stem[: -len(".safetensors")] if stem.lower().endswith(".safetensors") else stem


def _check_depth(max_depth: int) -> int:
    if not isinstance(max_depth, int) or not 0 <= max_depth <= wire.DEPTH_CAP:
        msg = f"max_depth is {max_depth!r}, expected an integer from 0 to {wire.DEPTH_CAP}"
        raise ValueError(msg)
    return int(max_depth)


def _check_number(step: int) -> int:
    if not isinstance(step, int) or not 0 <= step < 2**63:
        msg = f"step is {step!r}, expected an integer from 0 on"
        raise ValueError(msg)
    return int(step)


def _encoded_nbytes(manifest: Manifest) -> int:
    return sum(step.encoded_nbytes for step in manifest.steps)
