"""The container ``ZSTN``: docs/format/zstn.md in plain Python, in its order and with its names."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from .frame import Bytes, Header, check_version, decode_frame, parse_header
from .wire import take
from .xxh3 import xxh3_64

MAGIC = b"ZSTN"
END_MAGIC = b"NTSZ"
VERSION = 16
HEADER_NBYTES = 16
FOOTER_NBYTES = 48
MAX_JSON_NBYTES = 100_000_000
OPAQUE = 0

#: Bits of one element, for the dtypes of a ``.safetensors`` file that this reader knows.
ELEMENT_BITS = {
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "U16": 16,
    "I16": 16,
    "F16": 16,
    "BF16": 16,
    "U32": 32,
    "I32": 32,
    "F32": 32,
    "U64": 64,
    "I64": 64,
    "F64": 64,
    "C64": 64,
}


@dataclass(frozen=True)
class Tensor:
    """One tensor: what the JSON header says of it, and where its bytes are."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    frame_offset: int = 0
    frame_nbytes: int = 0
    content_offset: int = 0

    @property
    def nbytes(self) -> int:
        """Size of the tensor's data."""
        return self.end - self.begin


@dataclass(frozen=True)
class Container:
    """A container whose header, footer, index and locations are checked."""

    data: bytes
    header: bytes  #: the JSON header of the ``.safetensors`` file, byte for byte
    metadata: dict[str, str] | None
    tensors: tuple[Tensor, ...]  #: in the order of their data
    original_nbytes: int

    def names(self) -> list[str]:
        """Return the names of the tensors, in the order of their data."""
        return [tensor.name for tensor in self.tensors]

    def read(self, name: str) -> bytes:
        """Decode the bytes of one tensor.

        Raises
        ------
        KeyError
            If there is no such tensor.
        ValueError
            If a rule of the format is broken.
        """
        for tensor in self.tensors:
            if tensor.name == name:
                return self._read(tensor, {})
        raise KeyError(name)

    def restore(self) -> bytes:
        """Restore the ``.safetensors`` file.

        Raises
        ------
        ValueError
            If a rule of the format is broken.
        """
        pieces = [struct.pack("<Q", len(self.header)), self.header]
        contents: dict[int, bytes] = {}
        pieces += [self._read(tensor, contents) for tensor in self.tensors]
        return b"".join(pieces)

    def _read(self, tensor: Tensor, contents: dict[int, bytes]) -> bytes:
        if tensor.nbytes == 0:
            return b""
        if tensor.frame_offset not in contents:
            end = tensor.frame_offset + tensor.frame_nbytes
            contents[tensor.frame_offset] = decode_frame(
                self.data[tensor.frame_offset : end]
            ).content
        content = contents[tensor.frame_offset]  # as long as its header or trailer said
        end = tensor.content_offset + tensor.nbytes
        return content[tensor.content_offset : end]


def open_container(container: Bytes) -> Container:
    """Check a container and list its tensors; no tensor is decoded.

    Raises
    ------
    ValueError
        If a rule of the format is broken.
    """
    data = bytes(container)
    # 1. header and footer
    header_checksum = _parse_header(data)
    index_offset, index_nbytes, original_nbytes = _parse_footer(data, header_checksum)
    # 2. index, JSON header, locations
    index = decode_frame(data[index_offset : index_offset + index_nbytes])
    if index.header.dtype != OPAQUE or index.header.array:
        raise ValueError("the index is not a frame of opaque bytes")
    header, locations = _split_index(index.content)
    metadata, tensors = parse_safetensors_header(header)
    if len(locations) != len(tensors):
        raise ValueError(f"{len(locations)} locations for {len(tensors)} tensors")
    located = tuple(
        Tensor(t.name, t.dtype, t.shape, t.begin, t.end, *location)
        for t, location in zip(tensors, locations, strict=True)
    )
    _check_locations(data, located, index_offset)
    expected = 8 + len(header) + (tensors[-1].end if tensors else 0)
    if original_nbytes != expected:
        raise ValueError(f"original_nbytes is {original_nbytes}, expected {expected}")
    return Container(data, header, metadata, located, original_nbytes)


def restore(container: Bytes) -> bytes:
    """Restore the ``.safetensors`` file that a container holds."""
    return open_container(container).restore()


# --- Header and footer ----------------------------------------------------------------------------


def _parse_header(data: bytes) -> int:
    """Check the header; return its checksum."""
    if take(data, 0, 4, "magic") != MAGIC:
        raise ValueError(f"magic is {data[:4]!r}, expected {MAGIC!r}")
    check_version(take(data, 4, 1, "version")[0])
    (checksum,) = struct.unpack("<Q", take(data, 0, HEADER_NBYTES, "header")[8:])
    if checksum != xxh3_64(data[:8], 0):
        raise ValueError("header checksum does not match")
    if data[5:8] != bytes(3):
        raise ValueError("reserved bytes of the header are not zero")
    return int(checksum)


def _parse_footer(data: bytes, header_checksum: int) -> tuple[int, int, int]:
    """Check the footer; return index_offset, index_nbytes and original_nbytes."""
    if len(data) < HEADER_NBYTES + FOOTER_NBYTES:
        raise ValueError("truncated: no room for the footer")
    footer = data[-FOOTER_NBYTES:]
    index_offset, index_nbytes, original_nbytes, reserved, checksum = struct.unpack(
        "<QQQQQ", footer[:40]
    )
    if footer[44:] != END_MAGIC:
        raise ValueError(f"the footer ends in {footer[44:]!r}, expected {END_MAGIC!r}")
    if footer[40] != data[4]:
        raise ValueError(f"version {footer[40]} in the footer, {data[4]} in the header")
    if footer[41:44] != bytes(3):
        raise ValueError("reserved bytes of the footer are not zero")
    if checksum != xxh3_64(footer[:32], header_checksum):
        raise ValueError("footer checksum does not match")
    if reserved:
        raise ValueError("reserved bytes of the footer are not zero")
    if index_offset < HEADER_NBYTES:
        raise ValueError(f"index_offset is {index_offset}")
    if index_offset + index_nbytes + FOOTER_NBYTES != len(data):
        raise ValueError(f"an index of {index_nbytes} bytes at {index_offset} in {len(data)} bytes")
    return index_offset, index_nbytes, original_nbytes


# --- Index ----------------------------------------------------------------------------------------


def _split_index(index: bytes) -> tuple[bytes, list[tuple[int, int, int]]]:
    """Split the content of the index into the JSON header and the locations."""
    (header_nbytes,) = struct.unpack("<Q", take(index, 0, 8, "header_nbytes"))
    if header_nbytes > MAX_JSON_NBYTES:
        raise ValueError(f"a JSON header of {header_nbytes} bytes, at most {MAX_JSON_NBYTES}")
    header = take(index, 8, header_nbytes, "JSON header")
    pos = 8 + header_nbytes
    (n_tensors,) = struct.unpack("<Q", take(index, pos, 8, "n_tensors"))
    locations = index[pos + 8 :]
    if len(locations) != 24 * n_tensors:
        raise ValueError(f"{len(locations)} bytes of locations for {n_tensors} tensors")
    return header, list(struct.iter_unpack("<QQQ", locations))


def _check_locations(data: bytes, tensors: tuple[Tensor, ...], index_offset: int) -> None:
    frames: dict[int, int] = {}
    for t in tensors:
        if t.nbytes == 0:
            if t.frame_offset or t.frame_nbytes or t.content_offset:
                raise ValueError(f"tensor {t.name!r} of zero bytes has a location")
        elif frames.setdefault(t.frame_offset, t.frame_nbytes) != t.frame_nbytes:
            raise ValueError(f"two sizes of the frame at {t.frame_offset}")
    pos = HEADER_NBYTES
    for offset in sorted(frames):
        if offset != pos:
            raise ValueError(f"a frame at {offset}, expected at {pos}: hole or overlap")
        if frames[offset] == 0:
            raise ValueError(f"a frame of zero bytes at {offset}")
        pos += frames[offset]
    if pos != index_offset:
        raise ValueError(f"the frames end at {pos}, but the index begins at {index_offset}")
    headers = {o: parse_header(data[o : o + nbytes]) for o, nbytes in frames.items()}
    for t in tensors:
        if t.nbytes:
            content_nbytes = _content_nbytes(headers[t.frame_offset], data, t)
            if t.content_offset + t.nbytes > content_nbytes:
                raise ValueError(f"tensor {t.name!r} is not within its frame")


def _content_nbytes(header: Header, data: bytes, tensor: Tensor) -> int:
    """Return the content bytes that a frame claims; a streamed one says so in its trailer."""
    if header.content_nbytes is not None:
        return header.content_nbytes
    end = tensor.frame_offset + tensor.frame_nbytes
    return int(struct.unpack("<Q", take(data[:end], end - 20, 8, "trailer"))[0])


# --- The JSON header of a .safetensors file -------------------------------------------------------


def parse_safetensors_header(
    header: bytes,
) -> tuple[dict[str, str] | None, list[Tensor]]:
    """Check a JSON header; return its metadata and its tensors in the order of their data."""
    if header[:1] != b"{":
        raise ValueError("the JSON header does not begin with {")
    try:
        parsed = json.loads(
            header.decode("utf-8"),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
        )
    except RecursionError as error:
        raise ValueError("the JSON header is nested too deeply") from error
    metadata = None
    tensors = []
    for name, value in parsed.items():
        name.encode()  # a lone surrogate is no text
        if name == "__metadata__":
            metadata = _check_metadata(value)
        else:
            tensors.append(_parse_tensor(name, value))
    tensors.sort(key=lambda t: (t.begin, t.end))  # stable: then by position in the header
    pos = 0
    for t in tensors:
        if t.begin != pos:
            raise ValueError(f"tensor {t.name!r} begins at {t.begin}, expected {pos}")
        pos = t.end
    return metadata, tensors


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"duplicate key {key!r}")
        found[key] = value
    return found


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _check_metadata(value: Any) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise ValueError("__metadata__ does not map strings to strings")
    return value


def _parse_tensor(name: str, value: Any) -> Tensor:
    if not isinstance(value, dict):
        raise ValueError(f"tensor {name!r} is not described by an object")
    for key in ("dtype", "shape", "data_offsets"):
        if key not in value:
            raise ValueError(f"tensor {name!r} has no {key}")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str):
        raise ValueError(f"dtype of tensor {name!r} is not a string")
    shape = list(_numbers(name, "shape", shape))
    offsets = list(_numbers(name, "data_offsets", offsets))
    if len(offsets) != 2 or offsets[0] > offsets[1]:
        raise ValueError(f"data_offsets of tensor {name!r} are {offsets}")
    begin, end = offsets
    if dtype in ELEMENT_BITS:
        bits = ELEMENT_BITS[dtype]
        for dim in shape:
            bits *= dim
        if bits != 8 * (end - begin):
            raise ValueError(f"tensor {name!r}: {dtype} {shape} does not have {end - begin} bytes")
    return Tensor(name, dtype, tuple(shape), begin, end)


def _numbers(name: str, key: str, value: Any) -> Iterator[int]:
    if not isinstance(value, list):
        raise ValueError(f"{key} of tensor {name!r} is not a list")
    for number in value:
        # bool is an int of Python, but not of JSON
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 2**64:
            raise ValueError(f"{key} of tensor {name!r} holds {number!r}")
        yield number
