"""`compress_array` and `decompress_array`: what is refused, and why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import strategies

import z4ai
from z4ai import errors


@pytest.mark.parametrize(
    "array",
    [
        np.array([None, 1]),
        np.array([object()]),
        np.zeros(2, "f4,i4"),
        np.zeros(2, [("a", object)]),
        np.array(["text"]),
        np.array([b"text"]),
        np.zeros(2, "V3"),
        np.zeros(2, "M8[s]"),
        np.zeros(2, "m8[s]"),
        np.zeros(2, np.clongdouble),
        "text",
        None,
        {"a": 1},
    ],
    ids=lambda array: str(getattr(array, "dtype", array)),
)
def test_arrays_of_no_kind_of_weight_are_a_type_error(array: Any) -> None:
    with pytest.raises(TypeError, match="dtype"):
        z4ai.compress_array(array)


def test_a_ragged_list_is_refused() -> None:
    with pytest.raises(ValueError, match="inhomogeneous"):
        z4ai.compress_array([[1], [1, 2]])


def test_a_buffer_frame_holds_no_array() -> None:
    for dtype in (None, "fp32"):
        frame = z4ai.compress(b"abcd", dtype=dtype)
        with pytest.raises(errors.FormatError, match="without shape"):
            z4ai.decompress_array(frame)
    assert z4ai.decompress(z4ai.compress_array(np.float32(1))) == b"\0\0\x80\x3f"


def test_what_comes_back_is_new_and_owned() -> None:
    array = np.arange(10.0)
    frame = z4ai.compress_array(array)
    one, other = z4ai.decompress_array(frame), z4ai.decompress_array(frame)
    one[0] = 99
    assert other[0] == 0
    assert one.flags.writeable
    assert one.flags.aligned


def test_fortran_order_is_kept_only_where_it_means_something() -> None:
    for shape, kept in [((3, 4), True), ((1, 4), False), ((4,), False), ((2, 3, 4), True)]:
        array = np.asfortranarray(strategies.array_of("int16", shape))
        told = z4ai.info(z4ai.compress_array(array))
        assert (told.order == "F") == kept
    view = np.asfortranarray(strategies.array_of("fp32", (6, 8)))[:, ::2]
    back = z4ai.decompress_array(z4ai.compress_array(view))
    assert back.tobytes() == view.tobytes()


def test_limits_and_threads_are_passed_on() -> None:
    frame = z4ai.compress_array(np.zeros(1000))
    with pytest.raises(errors.LimitError, match="max_output_nbytes"):
        z4ai.decompress_array(frame, limits=z4ai.Limits(max_output_nbytes=7999))
    assert len(z4ai.decompress_array(frame, threads=3)) == 1000
    with pytest.raises(ValueError, match="unknown effort"):
        z4ai.compress_array(np.zeros(3), effort="slow")


def test_a_shape_that_numpy_cannot_hold_is_a_format_error() -> None:
    from reference_writer import write_frame

    frame = write_frame(b"", dtype="fp64", shape=(0, 2**62, 2**62))
    with pytest.raises(errors.FormatError, match="NumPy"):
        z4ai.decompress_array(frame)
