"""`ZSTN` containers of any bytes: a z4ai error, or what the reference reads.

Input: how to mend the container (1 byte: bit 0 the header's checksum, bit 1 the footer's), the
container. With bit 2: the size of an index (2 bytes), its content, the frames; header, index frame
and footer are made around them with everything right, so that what the index says is reached.
"""

from __future__ import annotations

import re
import struct
import sys

LIMIT = 1 << 22


def mend(data: bytes, how: int) -> bytes:
    """Make the checksums of header and footer right."""
    import xxhash

    file = bytearray(data)
    if len(file) < 16 + 48:
        return data
    if how & 1:
        struct.pack_into("<Q", file, 8, xxhash.xxh3_64_intdigest(file[:8], 0))
    if how & 2:
        (seed,) = struct.unpack_from("<Q", file, 8)
        at = len(file) - 48
        struct.pack_into("<Q", file, at + 32, xxhash.xxh3_64_intdigest(file[at : at + 32], seed))
    return bytes(file)


def build(data: bytes) -> bytes:
    """Make a container of the content of an index and of frames."""
    import xxhash
    from reference_writer import write_frame

    n = int.from_bytes(data[:2], "little")
    content, frames = data[2 : 2 + n], data[2 + n :]
    head = b"ZSTN\x10\0\0\0"
    seed = xxhash.xxh3_64_intdigest(head, 0)
    index = write_frame(content)
    header_nbytes = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + header_nbytes]
    end = max((int(x) for x in re.findall(rb"(\d{1,9})\]", header)), default=0)
    offset = 16 + len(frames)
    fixed = struct.pack("<QQQQ", offset, len(index), 8 + len(header) + end, 0)
    foot = fixed + struct.pack("<Q", xxhash.xxh3_64_intdigest(fixed, seed)) + b"\x10\0\0\0NTSZ"
    return head + struct.pack("<Q", seed) + frames + index + foot


def one_input(data: bytes) -> None:
    """Restore and compare; raise for any disagreement and any error that is not z4ai's."""
    import z4ai
    import z4ai.safetensors
    from z4ai import _reference

    if data[:1] and data[0] & 4:
        file = build(data[1:])
    elif data[1:5] != b"ZSTN":
        return  # a single frame is welcome there too, and has a target of its own
    else:
        file = mend(data[1:], data[0])
    limits = z4ai.Limits(max_output_nbytes=LIMIT, max_table_nbytes=LIMIT)
    found: bytes | None
    try:
        found = bytes(z4ai.safetensors.decompress_bytes(file, limits=limits))
    except z4ai.errors.LimitError:
        return
    except z4ai.errors.FormatError:
        found = None
    try:
        wanted: bytes | None = _reference.restore(file)
    except ValueError:
        wanted = None
    assert found == wanted, (found, wanted)


def seeds() -> dict[str, bytes]:
    """Small valid containers, by production and by the reference writer."""
    from reference_writer import Tensor, write_container
    from strategies import weights

    from z4ai import _reference

    tensors = [
        Tensor("a", "BF16", (4, 8), weights(64, 2)),
        Tensor("b", "F32", (0,), b""),
        Tensor("c", "U8", (5,), b"abcde"),
        Tensor("d", "BF16", (4, 8), weights(64, 2)),
    ]
    made = {
        "none": write_container([]),
        "one": write_container(tensors[:1]),
        "four": write_container(tensors),
        "shared": write_container(tensors, shared={3: 0}),
        "grouped": write_container(tensors, groups=[[0, 2, 3]]),
    }
    inputs = {name: b"\3" + file for name, file in made.items()}
    for name, file in made.items():
        offset, nbytes = struct.unpack_from("<QQ", file, len(file) - 48)
        index = _reference.decode_frame(file[offset : offset + nbytes]).content
        parts = b"\4" + len(index).to_bytes(2, "little") + index + file[16:offset]
        assert _reference.restore(build(parts[1:])) == _reference.restore(file)
        inputs[f"{name}-parts"] = parts
    return inputs


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["z4ai"], enable_loader_override=False):
        import z4ai.safetensors  # noqa: F401 - so that its Python is followed
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
