"""Flat views of callers' buffers: no copy where none is needed, errors that say why."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies

import z4ai
from z4ai._buffers import bytes_of, writable_bytes_of
from z4ai.safetensors import ZstnWriter


@pytest.mark.parametrize(
    "data",
    [
        b"abcd",
        bytearray(b"abcd"),
        memoryview(b"abcdefgh").cast("d"),
        np.arange(4.0),
        np.zeros((2, 3), ">i4"),
        memoryview(np.zeros(3, ">f4")),
        strategies.array_of("bf16", (3, 4)),
        np.zeros(2, "f4,i8"),
        np.float32(1.5).reshape(()),
    ],
    ids=lambda data: type(data).__name__,
)
def test_contiguous_data_are_viewed(data: Any) -> None:
    view = bytes_of(data)
    assert view.dtype == np.uint8
    assert view.ndim == 1
    assert view.tobytes() == (data.tobytes() if hasattr(data, "tobytes") else bytes(data))
    if isinstance(data, np.ndarray):
        assert np.shares_memory(view, data)
    elif isinstance(data, (bytes, bytearray)):
        assert np.shares_memory(view, np.frombuffer(data, np.uint8))


def test_what_is_not_contiguous_is_copied_in_its_order() -> None:
    grid = np.arange(12, dtype=np.int16).reshape(3, 4)
    for data in (grid[:, ::2], grid.T, grid[::-1], np.broadcast_to(grid[0], (2, 4))):
        assert bytes_of(data).tobytes() == data.tobytes()
        assert bytes_of(memoryview(data)).tobytes() == data.tobytes()
        assert not np.shares_memory(bytes_of(data), grid)


def test_empty_data() -> None:
    for data in (b"", bytearray(), np.zeros(0), np.zeros((3, 0)), memoryview(np.zeros((0, 2)))):
        assert len(bytes_of(data)) == 0


class _Interface:
    """An array by its interface alone, as other array libraries have it."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.__array_interface__ = array.__array_interface__
        self.kept = array


def test_an_array_of_another_library() -> None:
    array = np.arange(5.0)
    assert bytes_of(_Interface(array)).tobytes() == array.tobytes()


@pytest.mark.parametrize("data", ["text", 5, None, [1, 2], object(), 2.5])
def test_no_buffer_is_a_type_error(data: Any) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        bytes_of(data)
    with pytest.raises(TypeError, match="bytes-like"):
        writable_bytes_of(data)


def test_python_objects_are_a_type_error() -> None:
    objects = np.array([None, 1])
    records = np.zeros(2, [("a", "f4"), ("b", object)])
    for data in (objects, records, memoryview(objects), memoryview(records)):
        with pytest.raises(TypeError, match="Python objects"):
            bytes_of(data)


class _Record(ctypes.Structure):
    _fields_ = (("Offset", ctypes.c_int), ("O", ctypes.c_double))


def test_the_name_of_a_field_is_no_python_object() -> None:
    record = _Record(3, 2.5)
    assert bytes_of(record).tobytes() == bytes(record)
    view = memoryview(np.ones(2, [("Output", "f4"), ("O", "u1")]))
    assert bytes_of(view).tobytes() == view.tobytes()
    assert len(writable_bytes_of(record)) == ctypes.sizeof(_Record)


def test_a_masked_array_is_refused_where_its_mask_would_be_lost(tmp_path: Path) -> None:
    masked = np.ma.masked_array(np.arange(3.0), [0, 1, 0])
    with pytest.raises(TypeError, match="mask"):
        z4ai.compress_array(masked)
    with (
        pytest.raises(TypeError, match="mask"),
        ZstnWriter(tmp_path / "file.zstn") as writer,
    ):
        writer.add("w", masked)
    assert z4ai.decompress(z4ai.compress(masked)) == masked.data.tobytes()


@pytest.mark.parametrize(
    "out",
    [
        bytearray(8),
        memoryview(bytearray(8)).cast("f"),
        np.zeros(2, np.float32),
        np.zeros((2, 2), ">i2"),
        strategies.array_of("bf16", (4,)),
        np.zeros(1, "M8[s]"),
    ],
    ids=lambda out: type(out).__name__,
)
def test_writable_buffers_are_viewed(out: Any) -> None:
    view = writable_bytes_of(out)
    assert len(view) == 8
    view[:] = 7
    assert memoryview(np.asarray(out).view(np.uint8)).tobytes() == b"\7" * 8


def test_out_that_cannot_be_written_is_refused() -> None:
    frozen = np.zeros(8, np.uint8)
    frozen.flags.writeable = False
    for out in (b"12345678", memoryview(b"12345678"), frozen):
        with pytest.raises(ValueError, match="read-only"):
            writable_bytes_of(out)
    for out in (np.zeros(16, np.uint8)[::2], np.zeros((4, 4), order="F")):
        with pytest.raises(ValueError, match="contiguous"):
            writable_bytes_of(out)


def test_out_of_python_objects_is_refused() -> None:
    for out in (np.array([None, 1]), np.zeros(2, [("a", "f4"), ("b", object)])):
        with pytest.raises(TypeError, match="Python objects"):
            writable_bytes_of(out)
        with pytest.raises(TypeError, match="Python objects"):
            writable_bytes_of(memoryview(out))


def test_empty_out() -> None:
    assert len(writable_bytes_of(bytearray())) == 0
    assert len(writable_bytes_of(np.zeros((0, 3)))) == 0
