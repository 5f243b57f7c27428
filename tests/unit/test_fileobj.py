"""File objects that do less at a time than they are asked for, or nothing yet."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import z4ai
from z4ai._fileobj import read_some, write_all
from z4ai.safetensors import ZstnWriter

CONTENT = bytes(range(256)) * 300


class Dribble:
    """A file object with the two methods alone, which does a little at a time."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)

    def read(self, nbytes: int) -> bytes:
        n = min(nbytes, 777)
        piece = bytes(self.content[:n])
        del self.content[:n]
        return piece

    def write(self, data: Any) -> int:
        n = min(len(data), 777)
        self.content += data[:n]
        return n


class Silent(Dribble):
    """One that does not tell how much it took: all of it."""

    def write(self, data: Any) -> None:  # type: ignore[override]
        self.content += data


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe in non-blocking mode: (reading end, writing end)."""
    ends = os.pipe()
    for fd in ends:
        os.set_blocking(fd, False)
    yield ends
    for fd in ends:
        os.close(fd)


@pytest.mark.parametrize("kind", [Dribble, Silent])
def test_streams_need_nothing_but_read_and_write(kind: type[Dribble]) -> None:
    packed, back = kind(), kind()
    z4ai.compress_stream(Dribble(CONTENT), packed, dtype="bf16")  # type: ignore[arg-type]
    source = Dribble(bytes(packed.content))
    assert z4ai.decompress_stream(source, back) == len(CONTENT)  # type: ignore[arg-type]
    assert bytes(back.content) == CONTENT


@pytest.mark.parametrize("buffering", [0, 4096], ids=["raw", "buffered"])
def test_a_file_that_has_nothing_yet_is_not_taken_for_one_that_ends(
    pipe: tuple[int, int], buffering: int
) -> None:
    with open(pipe[0], "rb", buffering=buffering, closefd=False) as src:
        with pytest.raises(BlockingIOError, match="nothing yet"):
            read_some(src, 10)
        os.write(pipe[1], b"abc")
        assert read_some(src, 10) == b"abc"
        with pytest.raises(BlockingIOError, match="nothing yet"):
            z4ai.compress_stream(src, io.BytesIO())


@pytest.mark.parametrize("buffering", [0, 4096], ids=["raw", "buffered"])
def test_a_file_that_takes_no_more_is_an_error(pipe: tuple[int, int], buffering: int) -> None:
    # More than any pipe holds; a buffered writer says so by itself.
    noise = np.random.default_rng(5).bytes(4 << 20)
    dst = open(pipe[1], "wb", buffering=buffering, closefd=False)  # noqa: SIM115
    with pytest.raises(BlockingIOError):
        z4ai.compress_stream(io.BytesIO(noise), dst)
    if buffering:
        dst.raw.close()
    dst.close()


def test_a_container_in_a_raw_file_is_never_half_written(pipe: tuple[int, int]) -> None:
    noise = np.frombuffer(np.random.default_rng(6).bytes(4 << 20), np.uint8)
    with (
        open(pipe[1], "wb", buffering=0, closefd=False) as dst,
        pytest.raises(BlockingIOError, match="takes no more"),
        ZstnWriter(dst) as writer,
    ):
        writer.add("noise", noise)


def test_the_end_of_a_file_is_no_bytes(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"ab")
    for buffering in (0, 4096):
        with open(tmp_path / "file", "rb", buffering=buffering) as src:
            assert [read_some(src, 9), read_some(src, 9)] == [b"ab", b""]


def test_write_all_gives_the_rest_again() -> None:
    dst = Dribble()
    write_all(dst, memoryview(CONTENT))
    assert bytes(dst.content) == CONTENT
