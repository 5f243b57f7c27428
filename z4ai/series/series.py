"""`Series`: steps in and out of a folder."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from z4ai._atomic import AtomicFile
from z4ai._progress import Progress
from z4ai.errors import CorruptError, FormatError, Z4Error
from z4ai.options import Limits, resolve_effort, resolve_limits
from z4ai.series import choice
from z4ai.series import manifest as wire
from z4ai.series.chain import Chain
from z4ai.series.folder import Folder
from z4ai.series.manifest import Manifest, Step, check_name
from z4ai.series.storing import Storing, find_step, forget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from z4ai.deltas.reader import DeltaReader
    from z4ai.safetensors import ZstnReader

    Path = str | os.PathLike[str]
    ProgressWish = bool | Callable[[int, int], object] | None

__all__ = ["DEFAULT_DEPTH", "Report", "Series"]

DEFAULT_DEPTH = 8


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


class Series:
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
        self._folder = Folder(folder)
        self._timeout = timeout
        self._limits = resolve_limits(limits)
        self._threads = threads

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
        with self._chain(name) as chain, AtomicFile(dst, like=chain.path) as target:
            with Progress(progress, chain.step.original_nbytes, "restore") as bar:
                chain.restore(target.write, bar.update)
            target.commit()
            return _stats(chain.step)

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
        with self._chain(name) as chain:
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
                    with self._chain(name) as chain:
                        chain.restore(forget, bar.update)
                        verified.append(chain.step)
                except KeyError:
                    continue  # dropped meanwhile
                except (Z4Error, OSError) as error:
                    failures[name] = error
        orphans = self._folder.orphans(self._folder.read_manifest())
        return Report(tuple(verified), failures, tuple(orphans))

    def _chain(self, name: str) -> Chain:
        """Open a step and its bases, as they are now; without a lock."""
        manifest = self._folder.read_manifest()
        while True:
            try:
                return self._opened(manifest, find_step(manifest, name))
            except CorruptError:
                # A file is gone: the step may have been stored anew since the manifest was read.
                newer = self._folder.read_manifest()
                if newer == manifest:
                    raise
                manifest = newer

    def _opened(self, manifest: Manifest, step: Step) -> Chain:
        try:
            return Chain(self._folder, manifest.chain(step), self._limits, self._threads)
        except FileNotFoundError as error:
            msg = f"step {step.name!r} lacks a file: {error.filename}"
            raise CorruptError(msg) from None

    # --- Writing ----------------------------------------------------------------------------------

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
        with self._writing() as manifest:
            if manifest.find(name) is not None:
                msg = f"the series has a step {name!r} already"
                raise ValueError(msg)
            nbytes = os.path.getsize(path)
            with Progress(progress, nbytes * (2 if verify else 1), "add") as bar:
                job = Storing(
                    self._folder, self._opened, self._threads, self._limits, manifest, path, bar
                )
                made = job.store(name, stream, number, manifest.max_depth, keyframe)
                if verify:
                    job.verify(made)
            self._folder.publish([made.file])
            self._folder.replace_manifest(manifest.with_steps([*manifest.steps, made]))
            return _stats(made)

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
        with self._writing() as before:
            dropped = find_step(before, name)
            affected, now = _heirs(before, dropped)
            total = sum(step.original_nbytes for step in affected)
            with Progress(progress, 3 * total, "drop") as bar:
                for old in affected:
                    made = self._store_anew(before, now, dropped, old, bar)
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
        with self._writing() as manifest:
            depth = manifest.max_depth if max_depth is None else _check_depth(max_depth)
            tier = resolve_effort(effort, manifest.effort)
            self._folder.replace_manifest(manifest._replace(max_depth=depth, effort=tier))

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Manifest]:
        """Be the only writer in the body, and leave nothing behind that failed."""
        with self._folder.locked(self._timeout):
            manifest = self._folder.read_manifest()
            self._folder.prepare(manifest)
            try:
                yield manifest
            except BaseException:
                with contextlib.suppress(OSError, Z4Error):
                    self._folder.prepare(self._folder.read_manifest())
                raise

    def _store_anew(
        self, before: Manifest, now: Manifest, dropped: Step, old: Step, bar: Progress
    ) -> Step:
        """Store a step without the one that goes; no deeper than it was."""
        written = os.path.join(self._folder.partial, f"{os.path.splitext(old.file)[0]}.safetensors")
        # What lies there meanwhile, and what is made of it, is as private as the step.
        with (
            self._opened(before, old) as chain,
            AtomicFile(written, like=chain.path) as file,
        ):
            chain.restore(file.write, bar.update)
            file.commit()
        place = now.steps.index(old)
        known = [step for step in now.steps[:place] if step.name != dropped.name]
        job = Storing(
            self._folder,
            self._opened,
            self._threads,
            self._limits,
            now.with_steps(known),
            written,
            bar,
        )
        made = job.store(old.name, old.stream, old.step, old.depth, None)
        job.verify(made)
        os.unlink(written)
        return made


def _heirs(manifest: Manifest, dropped: Step) -> tuple[list[Step], Manifest]:
    """Find the steps that must be stored anew, and one of them that takes the dropped one's place.

    That is the first of its stream: the others can be stored against it then, behind which they
    stand.
    """
    affected = manifest.dependents(dropped.name)
    if not affected:
        return affected, manifest
    heir = next((step for step in affected if step.stream == dropped.stream), affected[0])
    steps = [step for step in manifest.steps if step is not heir]
    steps.insert(steps.index(dropped) + 1, heir)
    return [heir, *(step for step in affected if step is not heir)], manifest.with_steps(steps)


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


def _stats(step: Step) -> dict[str, Any]:
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
