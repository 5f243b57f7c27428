"""A flipped bit is an error or, where the format ignores it, the exact original."""

from __future__ import annotations

import os
import random
import tracemalloc
from collections import Counter

import pytest
from frames import samples

import z4ai
from z4ai._reference import decode_frame
from z4ai.errors import Z4Error

SAMPLES = samples()
LIMITS = z4ai.Limits(max_output_nbytes=1 << 20)

# Under the sanitizers a decode costs milliseconds: there every seventh bit is enough.
STEP = 7 if os.environ.get("Z4AI_SANITIZED") else 1

# Content of 16 KiB at most, the decoder's scratch, and what Python holds itself.
MOST_MEMORY = 8 << 20


def outcome(frame: bytes) -> bytes | str:
    """The content, or the name of the error."""
    try:
        found = z4ai.decompress(frame, limits=LIMITS)
    except Z4Error as error:
        return type(error).__name__
    assert isinstance(found, bytes)
    return found


def test_every_flipped_bit_is_an_error_or_the_original() -> None:
    seen: Counter[str] = Counter()
    for name, sample in SAMPLES.items():
        frame = bytearray(sample.frame)
        for bit in range(0, 8 * len(frame), STEP):
            frame[bit >> 3] ^= 1 << (bit & 7)
            found = outcome(bytes(frame))
            frame[bit >> 3] ^= 1 << (bit & 7)
            if isinstance(found, bytes):
                assert found == sample.content, f"{name}: bit {bit} gave other content"
                found = "the original"
            seen[found] += 1
    total = sum(-(-8 * len(sample.frame) // STEP) for sample in SAMPLES.values())
    print(f"{total} flips: {dict(seen)}")
    assert seen.total() == total
    # Bits that Zstandard itself does not use, and equal ways to say the same.
    assert seen["the original"] < total // 200
    assert {"ChecksumError", "CorruptError", "TruncatedError"} <= set(seen)


def test_the_reference_refuses_the_same_flips() -> None:
    """Production against the reference: the same verdict, and the same content if there is one.

    The one difference: production may decode what it has been told before it looks at the trailer.
    """
    compared = 0
    for name, sample in SAMPLES.items():
        frame = bytearray(sample.frame)
        step = 11 if len(frame) < 400 else 301
        for bit in range(hash_of(name) % step, 8 * len(frame), step):
            frame[bit >> 3] ^= 1 << (bit & 7)
            found = outcome(bytes(frame))
            try:
                wanted: bytes | None = decode_frame(frame).content
            except ValueError:
                wanted = None
            assert (found if isinstance(found, bytes) else None) == wanted, (name, bit, found)
            frame[bit >> 3] ^= 1 << (bit & 7)
            compared += 1
    assert compared > 2000


def hash_of(name: str) -> int:
    return sum(name.encode())


@pytest.mark.parametrize("seed", range(3))
def test_random_damage_is_an_error_or_the_original(seed: int) -> None:
    """Several bytes at once: overwritten, inserted, taken out, swapped between frames."""
    draw = random.Random(seed)
    names = list(SAMPLES)
    seen: Counter[str] = Counter()
    for _ in range(3000 if os.environ.get("HYPOTHESIS_PROFILE") != "nightly" else 200_000):
        name = draw.choice(names)
        frame = bytearray(SAMPLES[name].frame)
        other = SAMPLES[draw.choice(names)].frame
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(frame))
            match draw.randrange(5):
                case 0:
                    frame[at] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])
                case 1:
                    frame[at:at] = bytes(draw.randrange(256) for _ in range(draw.randint(1, 9)))
                case 2:
                    del frame[at : at + draw.randint(1, 9)]
                    frame = frame or bytearray(1)
                case 3:
                    frame[at : at + 8] = draw.choice([0, 1, 2**31, 2**63, 2**64 - 1]).to_bytes(
                        8, "little"
                    )
                case _:
                    frame[at:] = other[at:] or b"\0"
        found = outcome(bytes(frame))
        if isinstance(found, bytes):
            assert found in {SAMPLES[name].content, *(s.content for s in SAMPLES.values())}
            found = "an original"
        seen[found] += 1
    assert seen["an original"] < seen.total() // 20


def test_memory_is_bounded_whatever_is_flipped() -> None:
    tracemalloc.start()
    try:
        for name in ("chunks streamed bf16", "coded fp64", "array wide", "library max"):
            frame = bytearray(SAMPLES[name].frame)
            for bit in range(0, 8 * len(frame), 1 if len(frame) < 500 else 37):
                frame[bit >> 3] ^= 1 << (bit & 7)
                outcome(bytes(frame))
                frame[bit >> 3] ^= 1 << (bit & 7)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
