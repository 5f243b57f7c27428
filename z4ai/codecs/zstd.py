"""Codec `zstd` through the Zstandard library: planes that were made elsewhere, and opaque bytes.

Our own coder (`z4ai._fast.literals`) writes frames without sequences and reads those; everything
else that RFC 8878 allows in a stream comes here. Specification: docs/format/codecs/zstd.md.
"""

from __future__ import annotations

import zstandard

from z4ai.errors import CorruptError, UnsupportedCodecError

__all__ = ["decode", "decode_into", "encode"]

MAX_WINDOW_NBYTES = 1 << 27

_MIN_WINDOW_LOG, _MAX_WINDOW_LOG = 10, 27
# Blocks of a frame that are followed one by one; a frame of more is made of empty ones.
_MAX_BLOCKS = 1 << 16
_RLE, _COMPRESSED = 1, 2


def encode(content: memoryview, level: int, *, long: bool = False) -> bytes:
    """Compress bytes to one Zstandard frame that declares its content size.

    Parameters
    ----------
    content : memoryview
        What to compress.
    level : int
        Level of the library.
    long : bool
        Look for long matches at any distance within the content, beside those that the level finds
        in its own window. Takes up to a third longer.
    """
    if long:
        reach = max(content.nbytes - 1, 0).bit_length()
        params = zstandard.ZstdCompressionParameters.from_level(
            level,
            source_size=content.nbytes,
            write_content_size=1,
            enable_ldm=True,
            window_log=min(max(reach, _MIN_WINDOW_LOG), _MAX_WINDOW_LOG),
        )
    else:
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
    _check_header(stream, nbytes)
    if nbytes == 0 and not _ends_with_the_stream(stream):
        # The package does not look behind a header that says so.
        msg = "Zstandard frame of nothing does not end with the stream"
        raise CorruptError(msg)
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_NBYTES)
    try:
        content = decoder.decompress(stream, max_output_size=nbytes, allow_extra_data=False)
    except zstandard.ZstdError as error:
        msg = f"Zstandard frame does not decode: {error}"
        raise CorruptError(msg) from error
    _check_length(len(content), nbytes)
    return content


def decode_into(stream: memoryview, out: memoryview) -> None:
    """Decompress one Zstandard frame that must fill `out`, without a copy between.

    Raises
    ------
    CorruptError, UnsupportedCodecError
        As `decode`.
    """
    if not _ends_with_the_stream(stream):
        # The library says what is wrong with it, if anything is.
        out[:] = decode(stream, out.nbytes)
        return
    _check_header(stream, out.nbytes)
    if out.nbytes == 0:
        decode(stream, 0)
        return
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_NBYTES)
    try:
        # All of the input and room for all of the output are there: one call decodes in place.
        with decoder.stream_reader(stream) as reader:
            found = reader.readinto(out)
            more = reader.read(1)
    except zstandard.ZstdError as error:
        msg = f"Zstandard frame does not decode: {error}"
        raise CorruptError(msg) from error
    _check_length(found + len(more), out.nbytes)


def _check_header(stream: memoryview, nbytes: int) -> None:
    """Check what a frame declares, before anything is allocated by it."""
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


def _check_length(found: int, nbytes: int) -> None:
    if found != nbytes:
        msg = f"Zstandard frame holds {found} bytes, expected {nbytes}"
        raise CorruptError(msg)


def _ends_with_the_stream(stream: memoryview) -> bool:
    """Follow a frame from block to block: whether it has nothing behind it, of few blocks."""
    try:
        checksum = zstandard.get_frame_parameters(stream).has_checksum
        at = zstandard.frame_header_size(stream)
    except zstandard.ZstdError:
        return False
    for _ in range(_MAX_BLOCKS):
        if at + 3 > stream.nbytes:
            return False
        header = int.from_bytes(stream[at : at + 3], "little")
        last, kind, nbytes = header & 1, header >> 1 & 3, header >> 3
        at += 3 + (1 if kind == _RLE else nbytes)
        if kind > _COMPRESSED:
            return False
        if last:
            return bool(at + (4 if checksum else 0) == stream.nbytes)
    return False
