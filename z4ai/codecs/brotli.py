"""Codec `brotli`: a plane as one Brotli stream, through the brotli package where it is installed.

Specification: docs/format/codecs/brotli.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from z4ai.errors import CorruptError, TruncatedError, UnsupportedCodecError

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["EXTRA", "decode", "encode", "is_installed"]

EXTRA = "maxratio"

_LEAST_WINDOW, _MOST_WINDOW = 10, 24
# What the decoder is asked for at a time: it gives up to twice as much and a little more.
_STEP_NBYTES = 1 << 20


def is_installed() -> bool:
    """Tell whether this installation has a brotli that can be used."""
    return _library() is not None


def encode(content: memoryview, quality: int, window: int = _MOST_WINDOW) -> bytes:
    """Compress bytes to one Brotli stream.

    Parameters
    ----------
    content : memoryview
        Contiguous bytes.
    quality : int
        0 to 11.
    window : int
        Binary logarithm of the window, 10 to 24; made smaller where the content is.

    Raises
    ------
    UnsupportedCodecError
        If brotli is not installed.
    """
    # A window holds 16 bytes less than its name says.
    enough = (content.nbytes + 15).bit_length()
    window = max(min(window, enough, _MOST_WINDOW), _LEAST_WINDOW)
    coded: bytes = _require().compress(content, quality=quality, lgwin=window)
    return coded


def decode(stream: memoryview, nbytes: int) -> bytes:
    """Decompress one Brotli stream of exactly `nbytes` bytes of content.

    Raises
    ------
    CorruptError
        If the stream breaks RFC 7932, holds another number of bytes, or does not fill its place.
    TruncatedError
        If it ends before its last block does.
    UnsupportedCodecError
        If brotli is not installed.
    """
    brotli = _require()
    decoder = brotli.Decompressor()
    pieces: list[bytes] = []
    found = 0
    data: memoryview | bytes = stream
    try:
        while not decoder.is_finished() and found <= nbytes:
            # Content that ends where the limit does still needs a call that sees its end.
            limit = min(nbytes - found + 1, _STEP_NBYTES)
            piece = decoder.process(data, output_buffer_limit=limit)
            if not piece and not decoder.is_finished():
                break
            found += len(piece)
            pieces.append(piece)
            data = b""
    except brotli.error as error:
        msg = f"Brotli stream of {stream.nbytes} bytes does not decode"
        raise CorruptError(msg) from error
    if found > nbytes:
        msg = f"Brotli stream holds more than the expected {nbytes} bytes"
        raise CorruptError(msg)
    if not decoder.is_finished():
        msg = f"Brotli stream ends early, after {found} of {nbytes} bytes of content"
        raise TruncatedError(msg)
    if found != nbytes:
        msg = f"Brotli stream holds {found} bytes, expected {nbytes}"
        raise CorruptError(msg)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _library() -> ModuleType | None:
    """Return the brotli package, or None if it is missing or cannot bound what it decodes."""
    try:
        import brotli  # noqa: PLC0415 - optional, and z4ai is imported without it
    except ImportError:
        return None
    # Came with the bound on output, in 1.2.
    if not hasattr(getattr(brotli, "Decompressor", None), "can_accept_more_data"):
        return None
    library: ModuleType = brotli
    return library


def _require() -> ModuleType:
    library = _library()
    if library is None:
        msg = f'codec brotli needs brotli 1.2 or newer: pip install "z4ai[{EXTRA}]"'
        raise UnsupportedCodecError(msg)
    return library
