"""Arrays come back equal in every bit, in dtype, byte order, shape and memory order."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import strategies
from hypothesis import given
from reference_writer import write_array

import z4ai
from z4ai._reference import decode_array

Array = npt.NDArray[Any]


def check(array: Array, back: Array) -> None:
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable
    fortran = array.flags.f_contiguous and not array.flags.c_contiguous
    assert back.flags.f_contiguous if fortran else back.flags.c_contiguous


@given(strategies.arrays())
def test_any_array_comes_back(array: Array) -> None:
    before = array.tobytes()
    frame = z4ai.compress_array(array)
    assert array.tobytes() == before
    check(array, z4ai.decompress_array(frame))
    check(array, decode_array(frame))
    assert z4ai.decompress(frame) == array.tobytes("A")
    told = z4ai.info(frame)
    assert told.shape == array.shape
    assert told.content_nbytes == array.nbytes
    if array.ndim < 2:
        assert len(frame) <= array.nbytes + 64


@given(strategies.arrays())
def test_arrays_by_the_reference_writer_come_back(array: Array) -> None:
    array = np.array(array, order="K")
    name = next(
        name for name, row in strategies.ARRAY_DTYPES.items() if row.numpy_name == array.dtype.name
    )
    check(array, z4ai.decompress_array(write_array(array, name, chunk_nbytes=16)))


@pytest.mark.parametrize("name", strategies.ARRAY_DTYPES)
@pytest.mark.parametrize("effort", ["fast", "balanced", "max"])
def test_every_dtype_of_arrays_comes_back(name: str, effort: str) -> None:
    array = strategies.array_of(name, (31, 67))
    frame = z4ai.compress_array(array, effort=effort, threads=2)
    check(array, z4ai.decompress_array(frame, threads=2))
    check(array, decode_array(frame))
    assert z4ai.info(frame).dtype == name


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (1,) * 64, (0,) * 32, (2, 1) * 8])
@pytest.mark.parametrize("name", ["bool", "int16", "fp32", "bf16", "complex128", "int4_unpacked"])
def test_scalars_empty_arrays_and_many_dimensions_come_back(
    name: str, shape: tuple[int, ...]
) -> None:
    array = strategies.array_of(name, shape)
    check(array, z4ai.decompress_array(z4ai.compress_array(array)))


@pytest.mark.parametrize("name", ["int16", "uint64", "fp16", "fp32", "fp64", "complex64"])
def test_big_endian_is_kept_and_costs_nothing(name: str) -> None:
    little = np.frombuffer(
        strategies.weights(64_000, z4ai.dtype_width(name)),
        strategies.dtypes.numpy_dtype(strategies.ARRAY_DTYPES[name]),
    )
    big = little.astype(little.dtype.newbyteorder(">"))
    frames = [z4ai.compress_array(array) for array in (little, big)]
    for array, frame in zip((little, big), frames, strict=True):
        check(array, z4ai.decompress_array(frame))
        check(array, decode_array(frame))
    assert len(frames[0]) == len(frames[1])
    assert [z4ai.info(frame).byteorder for frame in frames] == ["<", ">"]


def test_a_buffer_may_be_told_to_be_big_endian() -> None:
    array = np.frombuffer(strategies.weights(64_000, 4), "<f4")
    big = array.astype(">f4")
    frame = z4ai.compress(big.tobytes(), dtype=big.dtype)
    assert z4ai.decompress(frame) == big.tobytes()
    assert z4ai.info(frame).byteorder == ">"
    assert len(frame) == len(z4ai.compress(array.tobytes(), dtype="fp32"))


@pytest.mark.parametrize(
    "given", [2.5, 3, True, [1, 2], [[1.5], [2.5]], (), np.float16(0.1), range(5)], ids=repr
)
def test_array_likes_are_arrays(given: Any) -> None:
    check(np.asarray(given), z4ai.decompress_array(z4ai.compress_array(given)))


def test_a_subclass_is_taken_for_its_values() -> None:
    class Tagged(np.ndarray[Any, Any]):
        pass

    array = np.arange(5.0).view(Tagged)
    check(np.asarray(array), z4ai.decompress_array(z4ai.compress_array(array)))
