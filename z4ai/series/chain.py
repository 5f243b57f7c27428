"""A step and what it depends on: open files, the tensors in them, the whole file they stand for."""

from __future__ import annotations

import contextlib
import io
from typing import TYPE_CHECKING

from z4ai import _wire
from z4ai._fast.hashing import Xxh3
from z4ai.container import zstn
from z4ai.container.decode import TensorDecoder
from z4ai.container.sink import WriteOut, put
from z4ai.container.source import open_source
from z4ai.deltas.models import ZstnTensors, open_base
from z4ai.deltas.reader import DeltaReader
from z4ai.deltas.restore import Restore
from z4ai.errors import BaseMismatchError, ChecksumError, CorruptError, TruncatedError
from z4ai.safetensors import ZstnReader
from z4ai.series.manifest import digest_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from z4ai.align import TensorSource
    from z4ai.options import Limits
    from z4ai.series.folder import Folder
    from z4ai.series.manifest import Step

__all__ = ["Chain"]


class Chain:
    """The open files of a step and of its bases; they are read whatever happens to their names.

    Parameters
    ----------
    folder : Folder
        Where they lie.
    steps : sequence of Step
        The step, its base, the base of that, down to the keyframe.
    limits : Limits
        For the tables of each file.
    threads : int or None
        The caller's wish.

    Attributes
    ----------
    step : Step
        The step.
    path : str
        Its file.

    Raises
    ------
    FileNotFoundError
        If a file is not there.
    FormatError, OSError
    """

    def __init__(
        self, folder: Folder, steps: Sequence[Step], limits: Limits, threads: int | None
    ) -> None:
        self.step = steps[0]
        self.path = folder.at(steps[0].file)
        self._limits = limits
        self._threads = threads
        self._stack = contextlib.ExitStack()
        with contextlib.ExitStack() as opening:
            self._files = [opening.enter_context(_open(folder, step)) for step in steps]
            self._stack = opening.pop_all()

    def __enter__(self) -> Chain:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    def model(self) -> TensorSource:
        """Return the tensors of the step, for whoever takes it as a base."""
        return self._model_of(self._files)

    def reader(self) -> ZstnReader | DeltaReader:
        """Return a reader of single tensors."""
        if len(self._files) > 1:
            model = self._model_of(self._files[1:])
            base = open_base(model, self._limits, self._threads)
            source = open_source(self._files[0])
            delta = DeltaReader(source, base, self._limits, self._threads)
            return self._stack.enter_context(delta)
        reader = ZstnReader.open(self._files[0], limits=self._limits, threads=self._threads)
        return self._stack.enter_context(reader)

    def restore(self, write: Callable[[memoryview], object], done: Callable[[int], None]) -> None:
        """Hand the `.safetensors` file to `write`, piece by piece, and verify it.

        Raises
        ------
        ChecksumError
            If what was handed over is not what was added.
        """
        state = Xxh3()
        nbytes = 0

        def hashed(piece: memoryview) -> None:
            nonlocal nbytes
            write(piece)
            state.update(piece)
            nbytes += len(piece)

        sink = WriteOut(hashed)
        source = open_source(self._files[0])
        if len(self._files) == 1:
            container = zstn.parse_container(source, self._limits)
            head = _wire.U64.pack(len(container.header_bytes)) + container.header_bytes
            put(sink, head)
            done(len(head))
            decoder = TensorDecoder(source, self._limits, self._threads, done)
            decoder.decode_all(container.header.tensors, container.locations, sink)
        else:
            try:
                base = open_base(self._model_of(self._files[1:]), self._limits, self._threads)
                Restore(source, base, self._limits).write(sink, self._threads, done)
            except BaseMismatchError as error:
                # The caller gave no base: a file lies in the place of another.
                msg = f"step {self.step.name!r}: {error}"
                raise ChecksumError(msg) from None
        if nbytes != self.step.original_nbytes or digest_text(state) != self.step.digest:
            msg = (
                f"step {self.step.name!r}: restored {nbytes} bytes of digest {digest_text(state)}, "
                f"{self.step.original_nbytes} of {self.step.digest} were added"
            )
            raise ChecksumError(msg)

    def _model_of(self, files: Sequence[io.FileIO]) -> TensorSource:
        model: TensorSource = ZstnTensors(open_source(files[-1]), self._limits, self._threads)
        for file in reversed(files[:-1]):
            base = open_base(model, self._limits, self._threads)
            reader = DeltaReader(open_source(file), base, self._limits, self._threads)
            model = self._stack.enter_context(reader)
        return model


def _open(folder: Folder, step: Step) -> io.FileIO:
    nbytes = folder.check_regular(step.file)
    if nbytes != step.encoded_nbytes:
        kind = TruncatedError if nbytes < step.encoded_nbytes else CorruptError
        msg = f"{step.file} has {nbytes} bytes, step {step.name!r} has {step.encoded_nbytes}"
        raise kind(msg)
    return io.FileIO(folder.at(step.file), "rb")
