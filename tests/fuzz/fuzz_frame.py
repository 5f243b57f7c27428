"""`decompress` and its kin on any bytes: a z4ai error, or what the reference reads.

Input: how to mend the frame (1 byte), the frame. With bit 0 the header's checksum is made right,
with bit 1 that of every chunk, with bit 2 that of the trailer, so that the fuzzer gets behind them.
"""

from __future__ import annotations

import contextlib
import io
import struct
import sys

LIMIT = 1 << 22


def mend(data: bytes, how: int) -> bytes:
    """Make checksums right as far as the frame can be followed."""
    import xxhash

    from z4ai import _reference

    frame = bytearray(data)
    if len(frame) < 32 or not how & 1:
        return data
    pos = 24
    for _ in range(frame[7]):
        while pos < len(frame) and frame[pos] & 0x80:
            pos += 1
        pos += 1
    pos += struct.unpack_from("<I", frame, 20)[0]
    if pos + 8 > len(frame):
        return data
    checksum = xxhash.xxh3_64_intdigest(frame[:pos], 0)
    struct.pack_into("<Q", frame, pos, checksum)
    with contextlib.suppress(ValueError, struct.error):
        header = _reference.parse_header(frame)
        pos += 8
        if how & 2:
            pos = mend_chunks(frame, pos, header)
        if how & 4 and len(frame) - pos >= 32:
            n = (len(frame) - pos - 32) // 4
            end = pos + 4 + 4 * n + 16
            body = bytes(frame[pos:end])
            struct.pack_into("<Q", frame, end, xxhash.xxh3_64_intdigest(body, checksum))
    return bytes(frame)


def mend_chunks(frame: bytearray, pos: int, header: object) -> int:
    """Make the checksum of every chunk that decodes right; return where they end."""
    from z4ai._reference import frame as reference

    offset = 0
    while len(frame) - pos >= 26 and frame[pos : pos + 4] != bytes(4):
        chunk = reference._parse_chunk(bytes(frame), pos, header)
        if chunk.content_nbytes > LIMIT:
            break
        wrong = reference.decode_chunk
        try:
            wrong(chunk, header, offset)
        except ValueError as error:
            if "checksum" not in str(error):
                break
            content = reference.restore_chunk(chunk, header, offset)
            import xxhash

            struct.pack_into("<Q", frame, pos + 8, xxhash.xxh3_64_intdigest(content, offset))
        pos += chunk.encoded_nbytes
        offset += chunk.content_nbytes
    return pos


def one_input(data: bytes) -> None:
    """Decode and compare; raise for any disagreement and any error that is not z4ai's."""
    import z4ai
    from z4ai import _reference

    if not data:
        return
    frame = mend(data[1:], data[0])
    limits = z4ai.Limits(max_output_nbytes=LIMIT, max_table_nbytes=LIMIT)
    found: list[bytes | None] = []
    for threads in (1, 2):
        try:
            found.append(bytes(z4ai.decompress(frame, limits=limits, threads=threads)))
        except z4ai.errors.LimitError:
            return
        except z4ai.errors.FormatError:
            found.append(None)
    piped = io.BytesIO()
    try:
        z4ai.decompress_stream(io.BytesIO(frame), piped, limits=limits)
        found.append(piped.getvalue())
    except z4ai.errors.Z4Error:
        found.append(None)
    with contextlib.suppress(z4ai.errors.Z4Error):
        z4ai.info(frame, limits=limits)
    with contextlib.suppress(z4ai.errors.Z4Error):
        z4ai.decompress_array(frame, limits=limits)
    try:
        wanted: bytes | None = _reference.decode_frame(frame).content
    except ValueError:
        wanted = None
    assert found == [wanted] * 3, (found, wanted)


def seeds() -> dict[str, bytes]:
    """Small valid frames."""
    import tier_samples
    from frames import samples

    made = {name: s.frame for name, s in samples().items() if len(s.frame) < 700}
    made |= {f"tier {name}": s.frame for name, s in tier_samples.samples().items()}
    made |= {f"parts {name}": tier_samples.of_parts(name) for name in tier_samples.STAGE_CASES}
    return {name: b"\7" + frame for name, frame in made.items() if len(frame) < 2000}


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["z4ai"], enable_loader_override=False):
        import z4ai  # noqa: F401 - so that its Python is followed
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
