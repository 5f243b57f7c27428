"""Compressed weights wherever safetensors is used: its readers replaced, and given back.

Two names of the package `safetensors` read files: `safe_open`, and `deserialize` for bytes. All its
other readers (`load_file`, `load_model`, `load`, of every framework) call one of them by the name
in their own module, and so does whoever loads weights. Both names are replaced wherever a module
holds them, so that it does not matter what was imported first.

vLLM reads headers by its own code, to learn names and dtypes before it loads: that function is
replaced as well.
"""

from __future__ import annotations

import inspect
import os
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from z4ai import _wire
from z4ai.errors import FormatError
from z4ai.integrations._extras import need

if TYPE_CHECKING:
    from collections.abc import Mapping

    from z4ai.integrations.safe_open import SafeOpen

__all__ = ["disable_hf", "enable_hf", "enable_in_vllm", "is_enabled"]

_VARIABLE = "Z4AI_ENABLE_HF"
# What z4ai_hf.pth imports, where the environment asks for it.
_HOOK = "_z4ai_hf"
# Where vLLM reads the header of a file: is there an `lm_head`, what dtype do weights have?
_VLLM, _VLLM_READER = "vllm.transformers_utils.utils", "parse_safetensors_file_metadata"


class _State:
    """What was done, and how to undo it."""

    enabled = False
    # What the environment said before.
    variable: str | None = None
    # Each original with what takes its place; kept for good, as somebody may hold on to the latter.
    pairs: list[tuple[Any, Any]] = []  # noqa: RUF012 - there is one state


_LOCK = threading.Lock()


def _forget_lock() -> None:
    # Another thread of the parent may have held it.
    global _LOCK
    _LOCK = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_lock)


def enable_hf() -> None:
    """Let safetensors, and all that load with it, read compressed files too.

    From then on `safetensors.safe_open` and every `load_file`, `load_model` and `load` of its
    frameworks read containers as they read plain files: in transformers, accelerate, diffusers,
    peft, vLLM, and in the caller's own modules, whether they were imported before or are later.
    What a file is, its content says, not its name. Plain files are read by safetensors, as ever.

    Processes started from then on do the same: ``Z4AI_ENABLE_HF=1`` is set for them.

    Calling it again does no harm. Threads may call it at any time.

    Raises
    ------
    ImportError
        If safetensors is not installed.

    See Also
    --------
    disable_hf, is_enabled

    Examples
    --------
    >>> import numpy as np, z4ai
    >>> from safetensors.numpy import load_file
    >>> from z4ai.safetensors import compress_file
    >>> _ = compress_file("model.safetensors", "model.z4ai.safetensors")
    >>> z4ai.enable_hf()
    >>> load_file("model.z4ai.safetensors")["encoder.weight"].shape
    (64, 64)
    >>> z4ai.disable_hf()
    """
    # Not under the lock: an import that is under way in another thread may wait for it.
    safetensors = need("safetensors")
    with _LOCK:
        found = [
            (safetensors.safe_open, _make_safe_open),
            (safetensors.deserialize, _make_deserialize),
            (getattr(sys.modules.get(_VLLM), _VLLM_READER, None), _make_header_reader),
        ]
        ours = {id(new) for _, new in _State.pairs}
        for original, make in found:
            known = any(original is old for old, _ in _State.pairs)
            if original is not None and not known and id(original) not in ours:
                _State.pairs.append((original, make(original)))
        if not _State.enabled:
            _State.variable = os.environ.get(_VARIABLE)
            os.environ[_VARIABLE] = "1"
        _State.enabled = True
        _rebind(_State.pairs)


def disable_hf() -> None:
    """Give safetensors back what `enable_hf` replaced, everywhere; the environment too.

    Files that are open stay so. Calling it again does no harm.

    Examples
    --------
    >>> import z4ai
    >>> z4ai.enable_hf()
    >>> z4ai.disable_hf()
    >>> z4ai.is_enabled()
    False
    """
    hook = sys.modules.get(_HOOK)
    with _LOCK:
        if hook is not None:
            hook.stop()
        if not _State.enabled:
            return
        _State.enabled = False
        _rebind([(new, old) for old, new in _State.pairs])
        if _State.variable is None:
            os.environ.pop(_VARIABLE, None)
        else:
            os.environ[_VARIABLE] = _State.variable


def is_enabled() -> bool:
    """Tell whether safetensors reads compressed files in this process.

    Returns
    -------
    bool
        True after `enable_hf`; under ``Z4AI_ENABLE_HF=1`` even before safetensors is imported, as
        it will then.

    Examples
    --------
    >>> import z4ai
    >>> z4ai.enable_hf()
    >>> z4ai.is_enabled()
    True
    >>> z4ai.disable_hf()
    """
    hook = sys.modules.get(_HOOK)
    return _State.enabled or (hook is not None and hook.is_waiting())


def enable_in_vllm() -> None:
    """Let vLLM look into the headers of compressed files, if safetensors reads these.

    vLLM calls this in each of its processes, once it is imported and before it looks at a model:
    it is an entry point of the group ``vllm.general_plugins``.
    """
    if is_enabled():
        enable_hf()


def _rebind(pairs: list[tuple[Any, Any]]) -> None:
    """Replace objects by others in all modules that hold them by any name."""
    replacement = {id(old): new for old, new in pairs}
    for module in list(sys.modules.values()):
        try:
            # Not by the module's own ways: of some, they load it.
            names = object.__getattribute__(module, "__dict__")
        except AttributeError:
            continue
        if type(names) is not dict:
            continue  # no module: what else is put there need not stand this
        # A copy: other threads import.
        for name, value in names.copy().items():
            new = replacement.get(id(value))
            if new is not None:
                names[name] = new


# --- What takes their place -----------------------------------------------------------------------


def _is_container(file: Any) -> bool:
    """Tell whether a file is one; whatever cannot be read is for safetensors to refuse."""
    if not isinstance(file, str | os.PathLike):
        return False
    from z4ai.integrations._index import is_container  # noqa: PLC0415 - as late as can be

    try:
        return is_container(file)
    except FormatError:
        raise
    except (OSError, TypeError, ValueError):
        return False


class _EitherMeta(type):
    """A class whose call gives an object of another: of safetensors for plain files, or ours."""

    _plain: Any

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        file = args[0] if args else kwargs.get("filename")
        if _State.enabled and _is_container(file):
            return _safe_open()(*args, **kwargs)
        return cls._plain(*args, **kwargs)

    def __instancecheck__(cls, instance: Any) -> bool:
        return cls.__subclasscheck__(type(instance))

    def __subclasscheck__(cls, subclass: type) -> bool:
        if subclass is cls or issubclass(subclass, _safe_open()):
            return True
        plain = cls._plain
        return isinstance(plain, type) and issubclass(subclass, plain)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls._plain, name)

    def __dir__(cls) -> list[str]:
        return sorted({*dir(cls._plain), *super().__dir__()})


def _safe_open() -> type[SafeOpen]:
    from z4ai.integrations.safe_open import SafeOpen  # noqa: PLC0415 - as late as can be

    return SafeOpen


def _make_safe_open(plain: Any) -> Any:
    names: dict[str, Any] = {
        "__doc__": plain.__doc__,
        "__module__": getattr(plain, "__module__", __name__),
        "__slots__": (),
        "_plain": plain,
    }
    with suppress(TypeError, ValueError):  # builtins need not have one
        names["__signature__"] = inspect.signature(plain)
    return _EitherMeta(getattr(plain, "__name__", "safe_open"), (), names)


def _make_deserialize(plain: Any) -> Any:
    def deserialize(bytes: Any) -> list[tuple[str, Mapping[str, Any]]]:
        if _State.enabled and _begins_as_container(bytes):
            return _deserialize(bytes)
        found: list[tuple[str, Mapping[str, Any]]] = plain(bytes)
        return found

    deserialize.__doc__ = plain.__doc__
    deserialize.__module__ = getattr(plain, "__module__", __name__)
    deserialize.__qualname__ = "deserialize"
    return deserialize


def _make_header_reader(plain: Any) -> Any:
    def parse_safetensors_file_metadata(path: Any) -> dict[str, Any]:
        header: dict[str, Any]
        if _State.enabled and _is_container(path):
            import json  # noqa: PLC0415 - vLLM alone asks for it

            from z4ai.integrations._archive import Archive  # noqa: PLC0415

            header = json.loads(Archive(path).index.container.header_bytes)
        else:
            header = plain(path)
        return header

    parse_safetensors_file_metadata.__doc__ = plain.__doc__
    parse_safetensors_file_metadata.__module__ = getattr(plain, "__module__", __name__)
    parse_safetensors_file_metadata.__qualname__ = _VLLM_READER
    return parse_safetensors_file_metadata


def _begins_as_container(data: Any) -> bool:
    magic = _wire.MAGIC_CONTAINER
    return isinstance(data, bytes | bytearray | memoryview) and data[: len(magic)] == magic


def _deserialize(data: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """All tensors of a container that lies in memory, as safetensors' `deserialize` gives them."""
    import io  # noqa: PLC0415 - hardly anyone has weights as bytes

    from z4ai.integrations._archive import Archive  # noqa: PLC0415

    archive = Archive(io.BytesIO(data))
    found: dict[str, Any] = {}
    for name, content, twin in archive.read_all():
        # Twins are tensors of their own here, as in a plain file.
        found[name] = content if twin is None else found[twin].copy()
    return [
        (
            row.name,
            {"shape": list(row.shape), "dtype": row.dtype, "data": found[row.name].data},
        )
        for row in archive.tensors
    ]
