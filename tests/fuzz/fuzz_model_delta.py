"""Model deltas of any index and frames: a z4ai error, or what the reference reads.

Input: the size of an index (2 bytes), its content, the frames. Header, index frame and footer are
made around them beside a base that is always the same; checksums of copies and the digest of the
target are those of what the reference restores, so that much is reached and little forgiven.
"""

from __future__ import annotations

import re
import struct
import sys

LIMIT = 1 << 22


def base_of() -> bytes:
    """The base: a `.safetensors` file."""
    from model_pairs import file_of, tensor

    return file_of(
        [
            tensor("a", "BF16", (24, 32), 1),
            tensor("b", "F32", (40, 48), 2),
            tensor("c", "U8", (40,), 3),
            tensor("d", "BF16", (16, 12), 4),
        ]
    )


def build(index: bytes, frames: bytes, base_digest: int, base_nbytes: int, target: int) -> bytes:
    """Make a model delta with everything right but what the index says."""
    import xxhash
    from reference_writer import write_frame

    head = b"Z4DM\x10\0\0\0"
    seed = xxhash.xxh3_64_intdigest(head, 0)
    frame = write_frame(index)
    header_nbytes = int.from_bytes(index[:8], "little")
    header = index[8 : 8 + header_nbytes]
    end = max((int(x) for x in re.findall(rb"(\d{1,9})\]", header)), default=0)
    fixed = struct.pack("<4Q", 16 + len(frames), len(frame), 8 + len(header) + end, base_nbytes)
    fixed += base_digest.to_bytes(16, "little") + target.to_bytes(16, "little")
    foot = struct.pack("<Q", xxhash.xxh3_64_intdigest(fixed, seed)) + b"\x10\0\0\0MD4Z"
    return head + struct.pack("<Q", seed) + frames + frame + fixed + foot


def one_input(data: bytes) -> None:
    """Restore and compare; raise for any disagreement and any error that is not z4ai's."""
    import z4ai
    import z4ai.model_delta
    from z4ai._reference import model_delta as reference

    n = int.from_bytes(data[:2], "little")
    index, frames = data[2 : 2 + n], data[2 + n :]
    base = base_of()
    model = reference.open_model(base)
    known = model.digest(), sum(map(len, model.contents))
    file = build(index, frames, *known, 0)
    wanted: bytes | None = None
    try:
        found = reference.Delta(file, model)
        wanted, sums, digest = found.trust()
        index = index[: len(index) - len(sums)] + sums
        file = build(index, frames, *known, digest)
    except (ValueError, struct.error):
        pass
    limits = z4ai.Limits(max_output_nbytes=LIMIT, max_table_nbytes=LIMIT)
    restored: bytes | None
    try:
        restored = z4ai.model_delta.decompress(file, base, limits=limits)
    except z4ai.errors.LimitError:
        return
    except z4ai.errors.Z4Error:
        restored = None
    assert restored == wanted, (restored, wanted)


def seeds() -> dict[str, bytes]:
    """Model deltas on the base, of each way."""
    from dataclasses import replace

    from model_pairs import cast_to_bf16, file_of, join, merged, nudged, tensor, tuned

    from z4ai import _reference, model_delta

    a, b, c, d = (
        tensor("a", "BF16", (24, 32), 1),
        tensor("b", "F32", (40, 48), 2),
        tensor("c", "U8", (40,), 3),
        tensor("d", "BF16", (16, 12), 4),
    )
    models = {
        "none": [],
        "copies": [a, b, c],
        "renamed": [replace(a, name="x"), replace(c, name="y")],
        "tuned": [tuned(a), tuned(b), replace(c, data=nudged(c.data, "U8"))],
        "cast": [cast_to_bf16(b), tuned(a)],
        "merged": [merged(b)],
        "rows": [join([tuned(a), tensor("n", "BF16", (2, 32), 9)], 0, "a")],
        "scratch": [tensor("new", "BF16", (20, 20), 7), d],
    }
    inputs = {}
    for name, tensors in models.items():
        file = model_delta.compress(file_of(tensors), base_of())
        offset, nbytes = struct.unpack_from("<QQ", file, len(file) - 80)
        index = _reference.decode_frame(file[offset : offset + nbytes]).content
        inputs[name] = len(index).to_bytes(2, "little") + index + file[16:offset]
    return inputs


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["z4ai"], enable_loader_override=False):
        import z4ai.model_delta  # noqa: F401 - so that its Python is followed
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
