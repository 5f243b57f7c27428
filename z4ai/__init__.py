"""Lossless compression of AI model weights: smaller files, fast loading, every bit as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z4ai import errors
from z4ai.codec import compress, compress_bound, decompress, peek_is_z4ai
from z4ai.dtypes import dtype_width
from z4ai.options import Limits

if TYPE_CHECKING:
    from z4ai.array import compress_array, decompress_array
    from z4ai.delta import compress_delta, decompress_delta
    from z4ai.frame_info import (
        CopiesInfo,
        FrameInfo,
        ModelInfo,
        PartInfo,
        PlaneInfo,
        ReferenceInfo,
        info,
    )
    from z4ai.integrations.huggingface import disable_hf, enable_hf, is_enabled
    from z4ai.integrations.torch import load_file, load_model, save_file, save_model
    from z4ai.model_folder import compress_model, decompress_model
    from z4ai.stream import compress_stream, decompress_stream

__all__ = [
    "CopiesInfo",
    "FrameInfo",
    "Limits",
    "ModelInfo",
    "PartInfo",
    "PlaneInfo",
    "ReferenceInfo",
    "__version__",
    "compress",
    "compress_array",
    "compress_bound",
    "compress_delta",
    "compress_model",
    "compress_stream",
    "decompress",
    "decompress_array",
    "decompress_delta",
    "decompress_model",
    "decompress_stream",
    "disable_hf",
    "dtype_width",
    "enable_hf",
    "errors",
    "info",
    "is_enabled",
    "load_file",
    "load_model",
    "peek_is_z4ai",
    "save_file",
    "save_model",
]

__version__ = "0.1.0"

# Imported when they are first asked for: not every process needs them.
_LATER = {
    "array": ("compress_array", "decompress_array"),
    "delta": ("compress_delta", "decompress_delta"),
    "frame_info": (
        "CopiesInfo",
        "FrameInfo",
        "ModelInfo",
        "PartInfo",
        "PlaneInfo",
        "ReferenceInfo",
        "info",
    ),
    "integrations.huggingface": ("disable_hf", "enable_hf", "is_enabled"),
    "integrations.torch": ("load_file", "load_model", "save_file", "save_model"),
    "model_folder": ("compress_model", "decompress_model"),
    "stream": ("compress_stream", "decompress_stream"),
}
# Modules that are names themselves.
_MODULES = ("integrations", "model_delta")
_MODULE_OF = {name: module for module, names in _LATER.items() for name in names}


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF and name not in _MODULES:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    from importlib import import_module  # noqa: PLC0415 - see above

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    found: object = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
