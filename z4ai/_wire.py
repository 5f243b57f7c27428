"""Little-endian fields, varints and magics: the alphabet of the formats in docs/format."""

from __future__ import annotations

from struct import Struct

from z4ai.errors import CorruptError, FormatError, TruncatedError, UnsupportedVersionError

FORMAT_VERSION = 16
MAGIC_FRAME = b"Z4AI"
MAGIC_FRAME_END = b"IA4Z"
MAGIC_DELTA = b"Z4DL"
MAGIC_CONTAINER = b"ZSTN"
MAGIC_CONTAINER_END = b"NTSZ"
MAGIC_MODEL_DELTA = b"Z4DM"
MAGIC_MODEL_DELTA_END = b"MD4Z"

MAX_VARINT_NBYTES = 10

U32 = Struct("<I")
U64 = Struct("<Q")
MASK64 = 2**64 - 1
UNKNOWN_NBYTES = MASK64

# Versions that an unrelated package of the same name on PyPI wrote behind the same magics; one of
# its frames has letters where the version is.
_EARLIER_PACKAGE = frozenset({1, 2, 3, ord("M")})


# What else may lie where a frame or a container is expected.
_KINDS = {
    MAGIC_FRAME: " as a frame (z4ai.decompress)",
    MAGIC_DELTA: " as a delta frame (z4ai.decompress_delta)",
    MAGIC_CONTAINER: " as a container (z4ai.safetensors)",
    b"Z4DM": " as a model delta (z4ai.model_delta)",
}


def check_magic(buf: memoryview, magic: bytes, what: str) -> None:
    """Check the magic and the version byte behind it.

    Raises
    ------
    TruncatedError, FormatError, UnsupportedVersionError
    """
    found = bytes(buf[:4])
    if found != magic[: len(found)]:
        other = _KINDS.get(found)
        msg = f"not a {what}: begins with {found!r}{other or ''}, expected {magic!r}"
        raise FormatError(msg, offset=0)
    if len(buf) < 5:
        msg = f"{what} ends after {len(buf)} bytes, expected a version at byte 4"
        raise TruncatedError(msg, offset=len(buf))
    version = buf[4]
    if version in _EARLIER_PACKAGE:
        msg = (
            f"this {what} was written by the unrelated earlier package of the same name on PyPI "
            f"(z4ai 0.2 and before; version byte {version}), expected format version "
            f"{FORMAT_VERSION}: restore it with that package first"
        )
        raise UnsupportedVersionError(msg, offset=4)
    if version != FORMAT_VERSION:
        msg = f"{what} has format version {version}, this release reads {FORMAT_VERSION}"
        raise UnsupportedVersionError(msg, offset=4)


def put_varint(value: int) -> bytes:
    """Encode an unsigned number as LEB128, shortest form."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def get_varint(buf: memoryview, pos: int, end: int) -> tuple[int, int]:
    """Decode a LEB128 number at `pos`; -> (value, position behind it)."""
    value = shift = 0
    while True:
        if pos >= end:
            msg = "varint ends early"
            raise TruncatedError(msg, offset=pos)
        byte = buf[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift:
                msg = "varint is not in its shortest form"
                raise CorruptError(msg, offset=pos - 1)
            if value >= 1 << 64:
                msg = "varint does not fit in 64 bits"
                raise CorruptError(msg, offset=pos - 1)
            return value, pos
        shift += 7
        if shift > 63:
            msg = "varint is longer than ten bytes"
            raise CorruptError(msg, offset=pos)
