"""Lossless compression of AI model weights: smaller files, fast loading, every bit as it was."""

from __future__ import annotations

from z4ai import errors
from z4ai.array import compress_array, decompress_array
from z4ai.codec import (
    CopiesInfo,
    FrameInfo,
    ModelInfo,
    PartInfo,
    PlaneInfo,
    ReferenceInfo,
    compress,
    compress_bound,
    decompress,
    info,
    peek_is_z4ai,
)
from z4ai.delta import compress_delta, decompress_delta
from z4ai.dtypes import dtype_width
from z4ai.options import Limits
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
    "compress_stream",
    "decompress",
    "decompress_array",
    "decompress_delta",
    "decompress_stream",
    "dtype_width",
    "errors",
    "info",
    "peek_is_z4ai",
]

__version__ = "0.1.0"
