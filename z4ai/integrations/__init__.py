"""Frameworks: each imported only when one of its names is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from z4ai.integrations._index import is_container
    from z4ai.integrations.huggingface import disable_hf, enable_hf, is_enabled
    from z4ai.integrations.safe_open import SafeOpen
    from z4ai.integrations.torch import load_file, load_model, save_file, save_model

__all__ = [
    "SafeOpen",
    "disable_hf",
    "enable_hf",
    "is_container",
    "is_enabled",
    "load_file",
    "load_model",
    "save_file",
    "save_model",
]

_LATER = {
    "_index": ("is_container",),
    "huggingface": ("disable_hf", "enable_hf", "is_enabled"),
    "safe_open": ("SafeOpen",),
    "torch": ("load_file", "load_model", "save_file", "save_model"),
}
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415 - only whoever asks pays for it

    found: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
