"""`DeltaReader`: any tensor of a model delta without the rest; itself a base for others."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from z4ai.container.sink import Discard
from z4ai.container.tensor_reader import TensorReader
from z4ai.container.zstn import NO_LOCATION
from z4ai.decoder import check_output
from z4ai.deltas.contents import Contents
from z4ai.deltas.records import SCRATCH
from z4ai.deltas.restore import Restore, blaming_base
from z4ai.deltas.stats import way_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor
    from z4ai.deltas.models import Base
    from z4ai.options import Limits

__all__ = ["DeltaReader"]


class DeltaReader(TensorReader):
    """Reader of a model delta beside its base. Make one by `z4ai.model_delta.open`.

    It may be shared between threads, which then take turns, and may be given as a base itself.
    Every read verifies the checksums of what it decodes, and those of what it copies from the
    base; `verify` verifies everything, the base as a whole included.

    Examples
    --------
    >>> from z4ai import model_delta
    >>> _ = model_delta.compress_file("finetuned.safetensors", "base.safetensors", "doc.z4dm")
    >>> with model_delta.open("doc.z4dm", "base.safetensors") as reader:
    ...     print(reader.names(), reader.way("encoder.bias"))
    ...     print(reader.read_numpy("encoder.weight").shape)
    ['encoder.weight', 'encoder.bias'] copied
    (64, 64)
    >>> import os; os.unlink("doc.z4dm")
    """

    def __init__(
        self,
        source: Source,
        base: Base,
        limits: Limits,
        threads: int | None,
    ) -> None:
        self._source = source
        self._base = base
        self._limits = limits
        self._threads = threads
        self._lock = threading.Lock()
        self._restore = Restore(source, base, limits)
        delta = self._restore.delta
        super().__init__(delta.header_bytes, delta.header)
        with blaming_base(base, delta.ends):
            self._contents = Contents(source, delta, base, limits, threads)
            self._contents.check()
        self._ways = way_names(delta.entries)
        self.tensors: list[Tensor] = delta.header.tensors

    def close(self) -> None:
        """Close the reader, and what was opened as its base."""
        with self._lock:
            self._closed = True
            self._source.close()
            self._base.close()

    # --- What is in it ----------------------------------------------------------------------------

    def way(self, name: str) -> str:
        """Return how a tensor is stored: copied, delta, lowrank, scratch or shared."""
        return self._ways[self._number(name)]

    @property
    def original_nbytes(self) -> int:
        """Size of the `.safetensors` file that it stands for."""
        return self._restore.original_nbytes

    @property
    def compressed_nbytes(self) -> int:
        """Size of the model delta."""
        return self._source.nbytes

    # --- Reading ----------------------------------------------------------------------------------

    def read(self, k: int, begin: int, end: int) -> NDArray[np.uint8]:
        """Decode the bytes `begin` … `end` of ``tensors[k]``; the array is read-only."""
        out = np.empty(end - begin, np.uint8)
        self._fill(k, begin, end, out)
        out.flags.writeable = False
        return out

    def verify(self) -> None:
        """Restore everything, and verify all checksums, the base and the digest of the whole.

        Raises
        ------
        BaseMismatchError
            If the base is another one.
        FormatError
            If anything is damaged; `tensor` names the first one.
        """
        with self._lock:
            self._check_open()
            self._restore.write(Discard(), self._threads, _nothing)

    # --- Inside -----------------------------------------------------------------------------------

    def _check_claim(self, k: int) -> None:
        tensor = self.tensors[k]
        check_output(tensor.nbytes, self._limits)
        entry = self._restore.delta.entries[k]
        if entry.coding == SCRATCH:
            with self._lock:
                location = entry.location or NO_LOCATION
                self._contents.decoder.check_claims([tensor], [location])

    def _decode_into(self, k: int, out: NDArray[np.uint8]) -> None:
        self._fill(k, 0, self.tensors[k].nbytes, out)

    def _fill(self, k: int, begin: int, end: int, out: NDArray[np.uint8]) -> None:
        with self._lock:
            self._check_open()
            with blaming_base(self._base, self._restore.delta.ends):
                self._contents.verify_copy(k)
                self._contents.fill(k, begin, end, out)


def _nothing(nbytes: int) -> None:
    pass
