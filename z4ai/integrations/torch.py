"""State dicts of torch to containers and back, as `safetensors.torch` has it for its files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai._buffers import bytes_of
from z4ai._progress import AUTO
from z4ai.container.writer import ZstnWriter
from z4ai.integrations._archive import Archive
from z4ai.integrations._extras import need, need_torch
from z4ai.integrations._index import is_container
from z4ai.integrations._load import load_all, resolve_device
from z4ai.integrations._tensors import (
    check_dense,
    code_of,
    is_one_tensor,
    logical_shape,
)
from z4ai.integrations.safe_open import check_backend
from z4ai.options import resolve_effort

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping
    from typing import Literal

    from torch import Tensor, device
    from torch.nn import Module

    from z4ai.options import Limits

    Path = str | os.PathLike[str]
    ProgressWish = bool | Literal["auto"] | Callable[[int, int], object] | None

__all__ = ["load_file", "load_model", "save_file", "save_model"]


def save_file(
    tensors: Mapping[str, Tensor],
    filename: Path,
    metadata: dict[str, str] | None = None,
    *,
    effort: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write a state dict to a compressed file, as `safetensors.torch.save_file` to a plain one.

    Parameters
    ----------
    tensors : mapping of str to torch.Tensor
        Dense tensors of any dtype that safetensors knows, on any device. They need not be
        contiguous, and may share memory: what is tied is stored once.
    filename : path-like
        The file. It appears under its name when it is complete.
    metadata : dict of str to str, optional
        Kept beside the tensors. Loaders of transformers want ``{"format": "pt"}``. The name of a
        tied tensor is added, with the name of the one that it is tied to, so that `load_file`
        ties them again; what the caller says goes first. If that is nothing, so is the format.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"balanced"``.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.

    Returns
    -------
    dict
        ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct``, ``n_tensors``,
        ``n_shared``.

    Raises
    ------
    ValueError
        If a value is no tensor, or is sparse, quantized, a wrapper of others, or without data
        (on the meta device).
    TypeError
        If safetensors has no code for a dtype, or `metadata` maps other than strings.
    OSError
        If the file cannot be written.

    Notes
    -----
    `z4ai.safetensors.decompress_file` makes a plain `.safetensors` file of it. One tensor at a
    time is copied, if it is not contiguous or not on the host; the model as a whole never is.

    Examples
    --------
    >>> import torch, z4ai
    >>> model = torch.nn.Linear(256, 256)
    >>> stats = z4ai.save_file(model.state_dict(), "model.z4ai.safetensors")
    >>> stats["n_tensors"], stats["ratio"] > 1
    (2, True)
    >>> model.load_state_dict(z4ai.load_file("model.z4ai.safetensors"))
    <All keys matched successfully>
    """
    need_torch()
    resolve_effort(effort)
    if not hasattr(tensors, "items"):
        msg = f"expected a mapping of names to tensors, got {type(tensors).__name__}"
        raise ValueError(msg)
    codes = {}
    for name, tensor in tensors.items():
        check_dense(name, tensor)
        codes[name] = code_of(name, tensor)
    ties = _find_ties(tensors)
    if ties:
        # Loaders take a file without metadata for one of torch, one with any must say so.
        metadata = {**ties, **({"format": "pt"} if metadata is None else metadata)}
    with ZstnWriter(filename, effort=effort, threads=threads, metadata=metadata) as writer:
        for name, tensor in tensors.items():
            code = codes[name]
            writer.add_raw(name, bytes_of(tensor), code, logical_shape(code, tensor))
        return writer.close()


def _find_ties(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that are one with another, each with the name that comes first."""
    ties = {}
    first: dict[int, list[str]] = {}
    for name, tensor in tensors.items():
        if not tensor.numel():
            continue
        same_place = first.setdefault(tensor.data_ptr(), [])
        for other in same_place:
            if is_one_tensor(tensor, tensors[other]):
                ties[name] = other
                break
        else:
            same_place.append(name)
    return ties


def load_file(
    filename: Path,
    device: str | int | device = "cpu",
    *,
    backend: str = "mmap",
    threads: int | None = None,
    progress: ProgressWish = AUTO,
    limits: Limits | None = None,
) -> dict[str, Tensor]:
    """Read a state dict from a compressed or a plain file.

    Parameters
    ----------
    filename : path-like
        A container, whatever its name; any other file goes to `safetensors.torch.load_file`.
    device : str, int or torch.device
        Where the tensors go. To a CUDA device they go through pinned memory, while others are
        decoded.
    backend : {"mmap", "pread"}
        How safetensors reads plain files; containers are always read by ranges.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    progress : {"auto"}, bool, callable or None
        ``"auto"`` draws a bar on a terminal if loading takes long and
        `HF_HUB_DISABLE_PROGRESS_BARS` is not set; True draws one at once and anywhere, unless it
        is set; a callable is called with ``(done_bytes, total_bytes)``.
    limits : Limits, optional
        What may be allocated because the file says so; ``max_output_nbytes`` bounds all tensors
        together, on another device than the host only if it is given. Not for plain files, which
        are mapped.

    Returns
    -------
    dict of str to torch.Tensor
        In the order of their data. Tensors that `save_file` found tied share memory again; others
        share none, even if they hold the same values.

    Raises
    ------
    FormatError
        If the file is damaged, or a frame or a delta.
    LimitError
        If it is larger than `limits` allow.
    TypeError
        If torch has no dtype for a tensor.
    OSError
        If it cannot be read.

    Notes
    -----
    Each tensor is decoded into its own memory; small ones lie beside one another in pieces of
    some MiB, each with a storage of its own.

    Examples
    --------
    >>> import torch, z4ai
    >>> _ = z4ai.save_file({"w": torch.eye(2).bfloat16()}, "model.z4ai.safetensors")
    >>> z4ai.load_file("model.z4ai.safetensors")
    {'w': tensor([[1., 0.],
            [0., 1.]], dtype=torch.bfloat16)}
    """
    torch = need_torch()
    if not is_container(filename):
        if isinstance(device, torch.device):
            # safetensors knows names and numbers alone, and one CPU.
            device = "cpu" if device.type == "cpu" else str(device)
        # Releases before 0.8 have no choice.
        more = {} if backend == "mmap" else {"backend": backend}
        plain: dict[str, Tensor]
        plain = need("safetensors.torch").load_file(filename, device=device, **more)
        return plain
    check_backend(backend)
    archive = Archive(filename, limits=limits, threads=threads)
    return load_all(archive, resolve_device(device), progress)


def save_model(
    model: Module,
    filename: Path,
    metadata: dict[str, str] | None = None,
    force_contiguous: bool = True,
    *,
    effort: str | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Write a model to a compressed file, as `safetensors.torch.save_model` to a plain one.

    Of tensors that share a storage only one name is written; each of the others becomes a key of
    the metadata, with that name as its text.

    Parameters
    ----------
    model : torch.nn.Module
        The model.
    filename, metadata, effort, threads
        As `save_file`.
    force_contiguous : bool
        For compatibility: what is not contiguous is always saved as if it were.

    Returns
    -------
    dict
        As `save_file`.

    Raises
    ------
    RuntimeError
        If of tensors that share a storage none covers it.
    ValueError, TypeError, OSError
        As `save_file`.

    Examples
    --------
    >>> import torch, z4ai
    >>> model = torch.nn.Linear(4, 4)
    >>> _ = z4ai.save_model(model, "model.z4ai.safetensors")
    >>> z4ai.load_model(torch.nn.Linear(4, 4), "model.z4ai.safetensors")
    (set(), [])
    """
    need_torch()
    state = model.state_dict()
    for kept, others in _removable(state).items():
        for other in others:
            metadata = {other: kept, **(metadata or {})}
            del state[other]
    return save_file(state, filename, metadata, effort=effort, threads=threads)


def load_model(
    model: Module,
    filename: Path,
    strict: bool = True,
    device: str | int | device = "cpu",
    *,
    backend: str = "mmap",
    threads: int | None = None,
    limits: Limits | None = None,
) -> tuple[set[str], list[str]]:
    """Load a model from a compressed or a plain file, as `safetensors.torch.load_model`.

    Parameters
    ----------
    model : torch.nn.Module
        Takes the weights.
    filename, device, backend, threads, limits
        As `load_file`.
    strict : bool
        Whether names that are missing or not expected are an error. Names of tensors that share
        memory with one that is loaded are never missing.

    Returns
    -------
    missing : set of str
        Names of the model that the file does not have.
    unexpected : list of str
        Names of the file that the model does not have.

    Raises
    ------
    RuntimeError
        If `strict` and there are any, or if a shape does not fit.
    FormatError, LimitError, TypeError, OSError
        As `load_file`.

    Examples
    --------
    >>> import torch, z4ai
    >>> _ = z4ai.save_model(torch.nn.Linear(4, 4), "model.z4ai.safetensors")
    >>> try:
    ...     z4ai.load_model(torch.nn.Linear(4, 4, bias=False), "model.z4ai.safetensors")
    ... except RuntimeError as error:
    ...     print(error)
    Linear does not fit the file: it has no "bias"
    """
    state = load_file(filename, device, backend=backend, threads=threads, limits=limits)
    removable = _removable(model.state_dict(), preferred_names=list(state))
    keys = model.load_state_dict(state, strict=False)
    missing, unexpected = set(keys.missing_keys), list(keys.unexpected_keys)
    for kept, names in removable.items():
        for name in names:
            if name in missing:
                missing.remove(name)
            elif kept not in state or not is_one_tensor(state[name], state[kept]):
                # Two tensors of the file for one of the model; `save_file` keeps both names of one.
                unexpected.append(name)
    if strict and (missing or unexpected):
        problems = []
        if unexpected:
            problems.append(f"it has no {_listed(unexpected)}")
        if missing:
            problems.append(f"the file lacks {_listed(missing)}")
        msg = f"{type(model).__name__} does not fit the file: {'; '.join(problems)}"
        raise RuntimeError(msg)
    return missing, unexpected


def _removable(state: dict[str, Tensor], **choice: Any) -> dict[str, list[str]]:
    """Which names safetensors would leave out, by the name that it would keep."""
    found: dict[str, list[str]]
    found = need("safetensors.torch")._remove_duplicate_names(state, **choice)
    return found


def _listed(names: Any) -> str:
    return ", ".join(f'"{name}"' for name in sorted(names))
