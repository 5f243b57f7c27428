"""The optional packages, or an error that says how to get them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["need", "need_torch"]


def need(name: str) -> Any:
    """Import a package of the `hf` extra, or a module of one.

    Raises
    ------
    ImportError
        If it is not installed; the message says what to install.
    """
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        package = name.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise  # it is there, and something that it needs is not
        msg = f'{package} is not installed: pip install "z4ai[hf]"'
        raise ImportError(msg, name=package) from error


def need_torch() -> Any:
    """Import torch."""
    return need("torch")
