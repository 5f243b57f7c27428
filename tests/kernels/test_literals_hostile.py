"""Frames of literals cut, flipped, forged: kernel, reference and stock zstandard must agree."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import zstandard

from z4ai._fast import literals
from z4ai._reference import zstd_huffman, zstd_literals

RNG = np.random.Generator(np.random.PCG64(2026))
SKEWED = np.minimum(RNG.geometric(0.4, 4000), 20).astype(np.uint8).tobytes()
HIGH = (180 + np.minimum(RNG.geometric(0.4, 4000), 20)).astype(np.uint8).tobytes()  # wants FSE
LENGTHS = {
    content: zstd_huffman.code_lengths(np.bincount(np.frombuffer(content, np.uint8)).tolist())
    for content in (SKEWED, HIGH)
}


def block(kind: int, size: int, data: bytes) -> bytes:
    return (kind << 1 | size << 3).to_bytes(3, "little") + data


def frame(content_nbytes: int, *blocks: bytes) -> bytes:
    """Assemble a frame: two-byte content size, the last block marked."""
    *others, last = blocks
    head = b"\x28\xb5\x2f\xfd\x60" + (content_nbytes - 256).to_bytes(2, "little")
    return head + b"".join(others) + bytes([last[0] | 1]) + last[1:]


def section(
    literals_kind: int, size_format: int, n: int, data: bytes, sequences: bytes = b"\0"
) -> bytes:
    """Return a compressed block around a literals section."""
    if literals_kind in (0, 1):
        head, shift = {1: (2, 4), 3: (3, 4)}.get(size_format, (1, 3))
        fields = literals_kind | size_format << 2 | n << shift
    else:
        head, width = {2: (4, 14), 3: (5, 18)}.get(size_format, (3, 10))
        fields = literals_kind | size_format << 2 | n << 4 | len(data) << (4 + width)
    body = fields.to_bytes(head, "little") + data + sequences
    return block(2, len(body), body)


def stream(content: bytes, lengths: list[int]) -> bytes:
    words = zstd_huffman.codes(lengths)
    return zstd_huffman.close_bits("".join(words[s] for s in content))


def four(content: bytes, lengths: list[int]) -> bytes:
    segment = (len(content) + 3) // 4
    parts = [stream(content[k * segment : (k + 1) * segment], lengths) for k in range(4)]
    return b"".join(len(part).to_bytes(2, "little") for part in parts[:3]) + b"".join(parts)


def tree(lengths: list[int]) -> bytes:
    description = zstd_huffman.write_tree(lengths)
    assert description is not None
    return description


def forged() -> dict[str, tuple[bytes, bytes]]:
    """Small legal frames of every kind, those that our encoder never writes included."""
    low, high = LENGTHS[SKEWED], LENGTHS[HIGH]
    assert tree(low)[0] < 128 or len(low) <= 128
    assert tree(high)[0] < 128
    direct = bytes([127 + len(low) - 1]) + bytes(
        a << 4 | b
        for a, b in zip(
            *[[max(low) + 1 - x if x else 0 for x in [*low[:-1], 0]][k : len(low) // 2 * 2 : 2]
              for k in (0, 1)],
            strict=True,
        )
    )  # fmt: skip
    a, b, c = SKEWED[:150], SKEWED[150:350], SKEWED[350:360]
    h, i = HIGH[:200], HIGH[200:300]
    return {
        "raw": (frame(256, block(0, 256, bytes(range(256)))), bytes(range(256))),
        "rle": (frame(300, block(1, 300, b"z")), b"z" * 300),
        "one stream, FSE tree": (frame(300,
                                       section(2, 0, 300, tree(high) + stream(HIGH[:300], high))),
                                 HIGH[:300]),
        "one stream, direct tree": (frame(300,
                                          section(2, 0, 300, direct + stream(SKEWED[:300], low))),
                                    SKEWED[:300]),
        "four streams, all size formats, treeless": (
            frame(360,
                  section(2, 1, 150, tree(low) + four(a, low)),
                  section(3, 2, 200, four(b, low)),
                  section(3, 3, 10, four(c, low))),
            a + b + c),
        "treeless, one stream, after raw, rle and an empty block": (
            frame(356, section(2, 0, 200, tree(high) + stream(h, high)),
                  block(0, 6, b"abcdef"), block(1, 50, b"q"), block(0, 0, b""),
                  section(3, 0, 100, stream(i, high))),
            h + b"abcdef" + b"q" * 50 + i),
        "raw and rle literals in compressed blocks": (
            frame(401, section(0, 0, 20, a[:20]), section(0, 1, 130, a[:130]),
                  section(1, 0, 30, b"x"), section(1, 1, 100, b"y"), section(0, 0, 21, a[:21]),
                  section(1, 3, 100, b"w")),
            a[:20] + a[:130] + b"x" * 30 + b"y" * 100 + a[:21] + b"w" * 100),
    }  # fmt: skip


FRAMES = forged()
OURS = {
    "ours, one stream": SKEWED[:500],
    "ours, four streams": SKEWED[:1030],
    "ours, FSE tree": HIGH[:700],
    "ours, one symbol a look-up": RNG.normal(60, 23, 1030).clip(0, 127).astype(np.uint8).tobytes(),
    "ours, nothing": b"",
    "ours, one byte": b"a",
}
FRAMES |= {name: (literals.encode(content), content) for name, content in OURS.items()}


def kernel(data: bytes, n: int) -> bytes | int:
    """Return what the kernel makes of a frame: content or status; every variant must agree."""
    results: set[bytes | int] = set()
    for isa in literals.variants():
        try:
            results.add(literals.decode(data, n, isa=isa))
        except literals.LiteralsError as error:
            results.add(error.status)
    assert len(results) == 1, f"variants {literals.variants()} differ"
    return results.pop()


def reference(data: bytes, n: int) -> bytes | None:
    try:
        return zstd_literals.decode(data, n)
    except ValueError:
        return None


def stock(data: bytes, n: int) -> bytes | None:
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=max(n, 1))
    except zstandard.ZstdError:
        return None


@pytest.mark.parametrize("name", FRAMES)
def test_legal_frames_are_read_by_all(name: str) -> None:
    data, content = FRAMES[name]
    assert kernel(data, len(content)) == content
    assert reference(data, len(content)) == content
    assert stock(data, len(content)) == content


@pytest.mark.parametrize("name", FRAMES)
def test_every_proper_prefix_is_truncated(name: str) -> None:
    data, content = FRAMES[name]
    for n in range(len(data)):
        assert kernel(data[:n], len(content)) == literals.TRUNCATED, n
        assert reference(data[:n], len(content)) is None


@pytest.mark.parametrize("name", FRAMES)
def test_trailing_bytes_and_other_sizes_are_refused(name: str) -> None:
    data, content = FRAMES[name]
    n = len(content)
    for wrong in (data + b"\0", data + data):
        assert kernel(wrong, n) == literals.CORRUPT
        assert reference(wrong, n) is None
    for size in {0, n - 1, n + 1, 2**40} - {n, -1}:
        assert kernel(data, size) == literals.CORRUPT


@pytest.mark.parametrize("name", FRAMES)
def test_every_flipped_bit(name: str) -> None:
    """An error, or content of the declared size, the same for whoever accepts the frame."""
    data, content = FRAMES[name]
    n = len(content)
    seen: Counter[str] = Counter()
    for bit in range(8 * len(data)):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        ours = kernel(bytes(bad), n)
        expected = reference(bytes(bad), n)
        if isinstance(ours, int):
            assert ours in (literals.CORRUPT, literals.TRUNCATED, literals.UNSUPPORTED)
            assert expected is None, f"bit {bit}: the reference reads what the kernel refuses"
            seen["refused"] += 1
            continue
        assert len(ours) == n
        assert ours == expected, f"bit {bit}: the reference reads something else"
        theirs = stock(bytes(bad), n)
        assert theirs is None or theirs == ours, f"bit {bit}: stock zstandard reads something else"
        seen["accepted by both" if theirs is not None else "accepted by us alone"] += 1
    assert seen["refused"] > 0, seen
    assert seen["accepted by us alone"] == 0, seen
    assert sum(seen.values()) == 8 * len(data)


def test_random_damage() -> None:
    """Several bytes at once, in the larger frames."""
    rng = np.random.Generator(np.random.PCG64(5))
    seen: Counter[str] = Counter()
    for data, content in FRAMES.values():
        for _ in range(300):
            bad = bytearray(data)
            for at in rng.integers(5, len(data), rng.integers(1, 5)):
                bad[at] = rng.integers(0, 256)
            ours = kernel(bytes(bad), len(content))
            expected = reference(bytes(bad), len(content))
            assert (expected is None) == isinstance(ours, int)
            assert expected is None or expected == ours
            seen["refused" if expected is None else "read"] += 1
    assert min(seen["refused"], seen["read"]) > 100, seen


UNSUPPORTED = {
    "skippable frame": b"\x50\x2a\x4d\x18\x04\0\0\0abcd",
    "dictionary": b"\x28\xb5\x2f\xfd\x21\x01\x01\x09\0\0a",
    "checksum": b"\x28\xb5\x2f\xfd\x24\x01\x09\0\0a\0\0\0\0",
    "reserved bit": b"\x28\xb5\x2f\xfd\x28\x01\x09\0\0a",
    "window of 144 MiB": b"\x28\xb5\x2f\xfd\x40\x89\0\0\x09\0\0a",
    "no content size": b"\x28\xb5\x2f\xfd\x00\x00\x09\0\0a",
    "sequences": b"\x28\xb5\x2f\xfd\x20\x09" + b"\x1d\0\0" + b"\x08a\x01",
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_legal_but_not_literals_only(name: str) -> None:
    data = UNSUPPORTED[name]
    n = 9 if name == "sequences" else 1
    assert kernel(data, n) == literals.UNSUPPORTED
    with pytest.raises(zstd_literals.UnsupportedFrame):
        zstd_literals.decode(data, n)


def corrupt() -> dict[str, bytes]:
    low = LENGTHS[SKEWED]
    one = tree(low) + stream(SKEWED[:300], low)
    return {
        "magic": b"\x29" + FRAMES["raw"][0][1:],
        "reserved block type": frame(300, block(3, 0, b"")),
        "treeless first": frame(300, section(3, 0, 300, stream(SKEWED[:300], low))),
        "no literals, but a tree": frame(256, section(2, 0, 0, one), block(1, 256, b"a")),
        "more content than declared": frame(299, section(2, 0, 300, one)),
        "less content than declared": frame(301, section(2, 0, 300, one)),
        "block above the window": frame(300, block(1, 301, b"a")),
        "byte behind no sequences": frame(300, section(2, 0, 300, one, b"\0\0")),
        "no sequences byte": frame(300, section(2, 0, 300, one, b"")),
        "bits left over": frame(299, section(2, 0, 299, one)),
        "four streams for five symbols": frame(
            261, block(1, 256, b"a"), section(2, 1, 5, tree(low) + four(SKEWED[:5] + b"", low))
        ),
        "jump table past the end": frame(
            300, section(2, 1, 300, tree(low) + b"\xff\xff" + four(SKEWED[:300], low)[2:])
        ),
        "direct weights all zero": frame(300, section(2, 0, 300, b"\x83\0\0" + b"\1" * 9)),
        "weight 12": frame(300, section(2, 0, 300, b"\x80\xc0" + b"\1" * 9)),
        "log 12": frame(300, section(2, 0, 300, b"\x81\xbb" + b"\1" * 9)),
        "no longest code": frame(300, section(2, 0, 300, b"\x80\x20" + b"\x80" * 50)),
        "rest no power of two": frame(300, section(2, 0, 300, b"\x82\x31\x10" + b"\x80" * 50)),
        "empty stream": frame(300, section(2, 0, 300, tree(low))),
        "stream without marker": frame(300, section(2, 0, 300, one + b"\0")),
    }


@pytest.mark.parametrize("name", corrupt())
def test_corrupt(name: str) -> None:
    data = corrupt()[name]
    n = int.from_bytes(data[5:7], "little") + 256
    assert kernel(data, n) == literals.CORRUPT
    assert reference(data, n) is None
    assert stock(data, n) != SKEWED[:n]


def test_all_weight_counts_through_fse() -> None:
    """Trees over every number of symbols up to 256, both accuracies, read back as written."""
    rng = np.random.Generator(np.random.PCG64(11))
    logs: Counter[int] = Counter()
    for n in range(3, 257):
        counts = rng.integers(0, 2 ** rng.integers(1, 16), n)
        counts[-1] = 1
        lengths = zstd_huffman.code_lengths(counts.tolist())
        weights = [max(lengths) + 1 - x if x else 0 for x in lengths[:-1]]
        if len(set(weights)) < 2:
            continue
        for accuracy in zstd_huffman.FSE_LOGS:
            coded = zstd_huffman.encode_fse(weights, accuracy)
            assert zstd_huffman.decode_fse(coded) == weights
            logs[accuracy] += 1
        content = np.repeat(np.arange(n), np.minimum(counts, 40)).astype(np.uint8)
        rng.shuffle(content)
        data = literals.encode(content.tobytes())
        assert kernel(data, len(content)) == content.tobytes()
        assert stock(data, len(content)) == content.tobytes()
        assert zstd_literals.encode(content.tobytes()) == data
    assert min(logs[a] for a in zstd_huffman.FSE_LOGS) > 200


def test_errors_carry_their_status() -> None:
    with pytest.raises(ValueError, match="truncated") as caught:
        literals.decode(b"\x28\xb5\x2f\xfd", 5)
    assert isinstance(caught.value, literals.LiteralsError)
    assert caught.value.status == literals.TRUNCATED
    with pytest.raises(ValueError, match="negative"):
        literals.decode(b"", -1)
