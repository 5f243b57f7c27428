"""All tensors of a container, or one of them, as tensors of torch on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai._progress import AUTO, Progress
from z4ai.container.encode import wave_nbytes
from z4ai.decoder import check_output
from z4ai.integrations._extras import need_torch
from z4ai.integrations._memory import memory_shape
from z4ai.integrations._tensors import dtype_of, tensor_of
from z4ai.options import DEFAULT_LIMITS

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, device

    from z4ai.container.st_header import Tensor as Row
    from z4ai.container.zstn import Location
    from z4ai.integrations._archive import Archive

__all__ = ["ToDevice", "load_all", "load_one", "resolve_device"]


def resolve_device(wish: Any) -> device:
    """Make a device of what the caller means by it: a name, a number, or a device."""
    torch = need_torch()
    return torch.device("cpu" if wish is None else wish)  # type: ignore[no-any-return]


def load_all(
    archive: Archive, device: device, progress: Any = AUTO, *, tie: bool = True
) -> dict[str, Tensor]:
    """Decode every tensor, in the order of their data.

    Tensors that were one when they were saved are one again if `tie`; others that have the same
    bytes are copies.
    """
    ties = archive.index.ties if tie else {}
    rows = {row.name: row for row in archive.tensors}
    for row in archive.tensors:
        memory_shape(row)
        dtype_of(row)
    with Progress(progress, archive.decoded_nbytes, "load") as bar:
        if device.type == "cpu":
            found = _load_on_host(archive, rows, ties, bar.update)
        else:
            found = _load_through_staging(archive, rows, ties, device, bar.update)
    return {name: found[name] for name in rows}


def _load_on_host(
    archive: Archive,
    rows: dict[str, Row],
    ties: dict[str, str],
    done: Callable[[int], None] | None,
) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, content, twin in archive.read_all(done):
        if twin is None:
            found[name] = tensor_of(rows[name], content)
        else:
            _add_twin(ties, found, rows, name, twin)
    return found


def _add_twin(
    ties: dict[str, str], found: dict[str, Tensor], rows: dict[str, Row], name: str, twin: str
) -> None:
    """Add a tensor whose bytes another has: the same memory if the two are tied, else a copy."""
    root = ties.get(name, name)
    for other in (twin, root):
        if other in found and ties.get(other, other) == root:
            found[name] = found[other].detach()
            return
    copy = _as_bytes(found[twin]).clone()
    found[name] = copy.view(dtype_of(rows[name])).view(memory_shape(rows[name]))
    found.setdefault(root, found[name])


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(need_torch().uint8)


def _check_on_device(archive: Archive, nbytes: int) -> None:
    """Check content for a device, of whose memory the default limits know nothing."""
    if archive.limits is not DEFAULT_LIMITS:
        check_output(nbytes, archive.limits)


def _load_through_staging(
    archive: Archive,
    rows: dict[str, Row],
    ties: dict[str, str],
    device: device,
    done: Callable[[int], None] | None,
) -> dict[str, Tensor]:
    """Decode into memory that is used again, and copy from there to the device."""
    torch = need_torch()
    _check_on_device(archive, sum(row.nbytes for row in rows.values()))
    found: dict[str, Tensor] = {}
    first: dict[tuple[Location, int], str] = {}
    once, places, twins = [], [], {}
    for row, location in zip(archive.tensors, archive.index.container.locations, strict=True):
        twin = first.setdefault((location, row.nbytes), row.name) if row.nbytes else row.name
        if twin == row.name:
            found[row.name] = torch.empty(memory_shape(row), dtype=dtype_of(row), device=device)
            once.append(row)
            places.append(location)
        else:
            twins[row.name] = twin
    decoder = archive.decoder(done)
    decoder.check_claims(once, places)
    sink = ToDevice([_as_bytes(found[row.name]) for row in once], archive.threads)
    decoder.decode_all(once, places, sink)
    sink.finish()
    archive.count(decoder)
    for name, twin in twins.items():
        _add_twin(ties, found, rows, name, twin)
    return found


class ToDevice:
    """Sink that copies each piece to the next tensors of a device, while the next is decoded.

    Parameters
    ----------
    targets : list of tensors of uint8
        Flat; filled one behind the other.
    threads : int or None
        The caller's wish: how large a piece is.
    """

    in_place = False

    def __init__(self, targets: list[Tensor], threads: int | None) -> None:
        self._targets = [target for target in targets if target.numel()]
        self._next = 0
        self._filled = 0
        # Two, so that one is copied while the other is filled; pinned, so that it can be.
        self._stages: list[Tensor | None] = [None, None]
        self._copied: list[Any] = [None, None]
        self._turn = 0
        self._least = wave_nbytes(threads)

    def room(self, nbytes: int) -> NDArray[np.uint8]:
        torch = need_torch()
        self._turn ^= 1
        self._wait(self._turn)
        stage = self._stages[self._turn]
        if stage is None or len(stage) < nbytes:
            self._stages[self._turn] = None  # the old one goes before the new one comes
            on_gpu = bool(self._targets) and self._targets[0].is_cuda
            # Wherever the caller has new tensors go: this one is for the host.
            stage = torch.empty(
                max(nbytes, self._least), dtype=torch.uint8, device="cpu", pin_memory=on_gpu
            )
            self._stages[self._turn] = stage
        memory: NDArray[np.uint8] = stage[:nbytes].numpy()
        return memory

    def commit(self, nbytes: int) -> None:
        torch = need_torch()
        stage = self._stages[self._turn]
        assert stage is not None
        pos = 0
        target = None
        while pos < nbytes:
            target = self._targets[self._next]
            count = min(nbytes - pos, len(target) - self._filled)
            part = target[self._filled : self._filled + count]
            part.copy_(stage[pos : pos + count], non_blocking=target.is_cuda)
            pos += count
            self._filled += count
            if self._filled == len(target):
                self._next += 1
                self._filled = 0
        if target is not None and target.is_cuda:
            event = torch.cuda.Event()
            event.record(torch.cuda.current_stream(target.device))
            self._copied[self._turn] = event

    def finish(self) -> None:
        """Wait until everything is where it belongs."""
        self._wait(0)
        self._wait(1)

    def _wait(self, turn: int) -> None:
        event = self._copied[turn]
        if event is not None:
            event.synchronize()
            self._copied[turn] = None


def load_one(archive: Archive, name: str, device: device) -> Tensor:
    """Decode one tensor."""
    torch = need_torch()
    found = archive.find(name)
    if found is None:
        raise KeyError(name)
    row, location = found
    memory_shape(row)
    dtype_of(row)
    if device.type == "cpu":
        return tensor_of(row, archive.read(name))
    _check_on_device(archive, row.nbytes)
    decoder = archive.decoder()
    decoder.check_claims([row], [location])
    tensor: Tensor = torch.empty(memory_shape(row), dtype=dtype_of(row), device=device)
    sink = ToDevice([_as_bytes(tensor)], archive.threads)
    decoder.decode_all([row], [location], sink)
    sink.finish()
    archive.count(decoder)
    return tensor
