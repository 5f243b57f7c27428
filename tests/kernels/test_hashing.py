"""XXH3: each variant and the reference against the xxhash package, in all three forms."""

from __future__ import annotations

import random
import re
import threading
from pathlib import Path

import numpy as np
import pytest
import xxhash

from z4ai._fast import _dispatch, hashing
from z4ai._reference import xxh3 as reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "xxh3.md"
SEEDS = [0, 1, 0x9E3779B185EBCA87, 1 << 63, (1 << 64) - 1]
LENGTHS = range(2101)
LARGE = [3071, 3072, 3073, 65_535, 65_536, 65_537, 1_000_003]
DATA = random.Random(20).randbytes(max(LARGE) + 16)


def oracle(data: bytes, seed: int) -> tuple[int, int]:
    return xxhash.xxh3_64_intdigest(data, seed), xxhash.xxh3_128_intdigest(data, seed)


def ours(data: object, seed: int, isa: str) -> tuple[int, int]:
    return hashing.xxh3_64(data, seed, isa=isa), hashing.xxh3_128(data, seed, isa=isa)


def test_the_private_door_runs_every_variant() -> None:
    x86 = {"scalar", "avx2", "avx512"}
    assert set(hashing.variants()) == set(_dispatch.runnable()) & x86
    for isa in hashing.variants():
        assert hashing.picked(isa) == isa
    assert hashing.picked() == hashing.picked(_dispatch.current())


@pytest.mark.parametrize("isa", _dispatch.runnable())
@pytest.mark.parametrize("seed", SEEDS, ids=hex)
def test_every_length(seed: int, isa: str) -> None:
    for n in [*LENGTHS, *LARGE]:
        assert ours(DATA[:n], seed, isa) == oracle(DATA[:n], seed), n


@pytest.mark.parametrize("isa", _dispatch.runnable())
def test_every_offset(isa: str) -> None:
    view = memoryview(DATA)
    for n in [*range(260), 1023, 1024, 1025, 2048, 2049, 5000]:
        for offset in range(16):
            piece = view[offset : offset + n]
            assert ours(piece, 7, isa) == oracle(bytes(piece), 7), (n, offset)


@pytest.mark.parametrize("seed", [0, 1 << 63, (1 << 64) - 1], ids=hex)
def test_the_reference(seed: int) -> None:
    for n in [*LENGTHS, *LARGE]:
        data = DATA[:n]
        got = reference.xxh3_64(data, seed), reference.xxh3_128(data, seed)
        assert got == oracle(data, seed), n


@pytest.mark.parametrize("isa", _dispatch.runnable())
def test_a_buffer_hashed_while_it_fills(isa: str) -> None:
    draw = random.Random(21)
    for n in [*range(0, 2101, 7), 240, 241, 1024, 1025, 2048, 2049, *LARGE]:
        fills = sorted(draw.randint(0, n) for _ in range(draw.randint(0, 6)))
        if n > 4096:  # tiles as the chunk decoder makes them
            fills = sorted([*fills, *range(0, n, 16_384), n, n])
        seed = draw.getrandbits(64)
        assert hashing.xxh3_filling(DATA[:n], fills, seed, isa=isa) == oracle(DATA[:n], seed), n


@pytest.mark.parametrize("isa", _dispatch.runnable())
def test_many_buffers(isa: str) -> None:
    draw = random.Random(22)
    for n in [*range(0, 3000, 11), 1024, 1025, 2048, 2049, *LARGE]:
        seed = draw.getrandbits(64)
        state = hashing.Xxh3(seed, isa=isa)
        done = 0
        while done < n:
            step = draw.choice([0, 1, 63, 64, 65, 1023, 1024, 1025, draw.randint(0, 100_000)])
            state.update(DATA[done : min(done + step, n)])
            done = min(done + step, n)
            if draw.random() < 0.1:  # a digest in between changes nothing
                assert (state.digest64(), state.digest128()) == oracle(DATA[:done], seed), done
        assert (state.digest64(), state.digest128()) == oracle(DATA[:n], seed), n


@pytest.mark.parametrize("isa", _dispatch.runnable())
@pytest.mark.parametrize("first", [1, 64, 1000, 1023, 1024])
@pytest.mark.parametrize("second", [1, 16, 63, 64, 65, 1024, 1087, 1088, 2048])
def test_the_last_64_bytes_across_two_buffers(first: int, second: int, isa: str) -> None:
    data = DATA[: first + 1024 + second]
    state = hashing.Xxh3(3, isa=isa)
    for piece in (data[:first], data[first : first + 1024], data[first + 1024 :]):
        state.update(piece)
    assert (state.digest64(), state.digest128()) == oracle(data, 3)


def test_any_contiguous_buffer() -> None:
    array = np.frombuffer(DATA[:4096], "<f4").reshape(32, 32)
    expected = oracle(DATA[:4096], 0)[0]
    assert not array.flags.writeable
    buffers = (array, bytearray(DATA[:4096]), memoryview(array), array.T.copy(order="F").T)
    for buffer in buffers:
        assert hashing.xxh3_64(buffer) == expected
    with pytest.raises(ValueError, match="contiguous"):
        hashing.xxh3_64(array[:, ::2])
    with pytest.raises(TypeError):
        hashing.xxh3_64("text")


def test_wrong_arguments_are_refused() -> None:
    for seed in (-1, 1 << 64):
        for call in (hashing.xxh3_64, hashing.xxh3_128):
            with pytest.raises(ValueError, match="seed"):
                call(b"", seed)
        with pytest.raises(ValueError, match="seed"):
            hashing.Xxh3(seed)
    with pytest.raises(ValueError, match="cannot run here"):
        hashing.xxh3_64(b"", isa="mmx")
    with pytest.raises(ValueError, match="fill of 2 bytes after 3"):
        hashing.xxh3_filling(b"abcd", [3, 2])
    with pytest.raises(ValueError, match="fill of 5 bytes"):
        hashing.xxh3_filling(b"abcd", [5])


def test_threads_may_share_one_state() -> None:
    state = hashing.Xxh3()
    piece = bytes(70_000)  # all the same, so that their order does not matter
    workers = [
        threading.Thread(target=lambda: [state.update(piece) for _ in range(20)]) for _ in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (state.digest64(), state.digest128()) == oracle(piece * 80, 0)


def test_check_values_of_the_page() -> None:
    block = re.search(r"```xxh3\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = block[1].splitlines()
    inputs = [b"", b"Z4AI", bytes(range(256)) * 8]
    assert len(lines) == len(inputs)
    for line, data in zip(lines, inputs, strict=True):
        values = [bytes.fromhex(part) for part in line.partition("=")[2].split("|")]
        for made in (reference, hashing):
            assert made.xxh3_64(data, 0).to_bytes(8, "little") == values[0]
            assert made.xxh3_64(data, 1).to_bytes(8, "little") == values[1]
            assert made.xxh3_128(data, 0).to_bytes(16, "little") == values[2]
