"""Codec `zstd` through the Zstandard library: planes that were made elsewhere, and opaque bytes.

Our own coder (`z4ai._fast.literals`) writes frames without sequences and reads those; everything
else that RFC 8878 allows in a stream comes here. Specification: docs/format/codecs/zstd.md.
"""

from __future__ import annotations

import zstandard

from z4ai.errors import CorruptError, UnsupportedCodecError

__all__ = ["decode", "encode"]

MAX_WINDOW_NBYTES = 1 << 27


def encode(content: memoryview, level: int) -> bytes:
    """Compress bytes to one Zstandard frame that declares its content size."""
    params = zstandard.ZstdCompressionParameters.from_level(
        level, source_size=content.nbytes, write_content_size=1
    )
    return zstandard.ZstdCompressor(compression_params=params).compress(content)


def decode(stream: memoryview, nbytes: int) -> bytes:
    """Decompress one Zstandard frame of exactly `nbytes` bytes of content.

    Raises
    ------
    CorruptError
        If the frame breaks RFC 8878, declares another size or a larger window, or does not fill
        the stream.
    UnsupportedCodecError
        If it needs a dictionary.
    """
    try:
        params = zstandard.get_frame_parameters(stream)
    except zstandard.ZstdError as error:
        msg = f"not a Zstandard frame: {error}"
        raise CorruptError(msg) from error
    if params.dict_id:
        msg = f"Zstandard frame needs dictionary {params.dict_id}"
        raise UnsupportedCodecError(msg)
    if params.content_size != nbytes:
        found = (
            "no size"
            if params.content_size == zstandard.CONTENTSIZE_UNKNOWN
            else params.content_size
        )
        msg = f"Zstandard frame declares {found}, expected {nbytes} bytes"
        raise CorruptError(msg)
    if params.window_size > MAX_WINDOW_NBYTES:
        msg = (
            f"Zstandard frame has a window of {params.window_size} bytes, "
            f"expected at most {MAX_WINDOW_NBYTES}"
        )
        raise CorruptError(msg)
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_NBYTES)
    try:
        content = decoder.decompress(stream, max_output_size=nbytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        msg = f"Zstandard frame does not decode: {error}"
        raise CorruptError(msg) from error
    if len(content) != nbytes:
        msg = f"Zstandard frame holds {len(content)} bytes, expected {nbytes}"
        raise CorruptError(msg)
    return content
