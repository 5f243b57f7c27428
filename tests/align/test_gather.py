"""References of random pieces against slices of NumPy; what an alignment may claim."""

from __future__ import annotations

import numpy as np
import pytest
from align_models import NUMPY, model
from hypothesis import given
from hypothesis import strategies as st

from z4ai.align import (
    Alignment,
    ByName,
    Piece,
    check_alignment,
    reference_of,
    reference_of_elements,
)
from z4ai.align.gather import _SHORT_NBYTES
from z4ai.container.st_header import Tensor
from z4ai.errors import CorruptError


@given(st.data())
def test_a_piece_is_a_slice(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 3000))
    transposed = data.draw(st.booleans())
    matrix = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    base = ByName(model({"b": np.zeros(3, np.int8), "a": matrix}))
    seen = matrix.T if transposed else matrix
    # Any view of the elements, not only that of the shape.
    outer = data.draw(st.integers(1, rows))
    inner = data.draw(st.integers(1, matrix.size // outer))
    view = np.ascontiguousarray(seen).reshape(-1)[: outer * inner].reshape(outer, inner)
    width = data.draw(st.integers(1, inner))
    first = data.draw(st.integers(0, inner - width))
    piece = Piece(width, 0, inner, first, transposed)
    dtype = data.draw(st.sampled_from(["F32", "F64", "BF16"]))
    expected = view[:, first : first + width].astype(NUMPY[dtype])
    row = data.draw(st.integers(0, outer - 1))
    n_rows = data.draw(st.integers(0, outer - row))
    got = reference_of(piece, base, dtype, row, n_rows)
    assert got.tobytes() == expected[row : row + n_rows].tobytes()
    begin = data.draw(st.integers(0, expected.size - 1))
    end = data.draw(st.integers(begin + 1, expected.size))
    got = reference_of_elements(piece, base, dtype, begin, end)
    assert got.tobytes() == expected.reshape(-1)[begin:end].tobytes()
    target = Tensor("t", "F32", (outer * width,), 0, 4 * outer * width)
    if outer == 1 or inner <= 256 * width:
        check_alignment(Alignment(outer, (piece,)), target, base.tensors)


def test_only_what_is_needed_is_read() -> None:
    columns = 4 * _SHORT_NBYTES
    source = model({"w": np.zeros((64, columns), np.float32)})
    base = ByName(source)
    reference_of(Piece(columns // 64, 0, columns, 5, False), base, "F32", 3, 10)
    assert source.nbytes_read == 10 * columns // 64 * 4
    source.nbytes_read = 0
    # Where the rows are dense, what lies between them may be read too, but not more.
    reference_of(Piece(columns // 2, 0, columns, 5, False), base, "F32", 3, 10)
    assert source.nbytes_read <= 10 * columns * 4


def test_a_transposed_tensor_is_read_once_and_released() -> None:
    source = model({"w": np.arange(64 * 48, dtype=np.float32).reshape(64, 48)})
    base = ByName(source)
    for row in range(48):
        reference_of(Piece(64, 0, 64, 0, True), base, "F32", row, 1)
    assert source.nbytes_read == 64 * 48 * 4
    base.release()
    reference_of(Piece(64, 0, 64, 0, True), base, "F32", 0, 1)
    assert source.nbytes_read == 2 * 64 * 48 * 4


BASE = [
    Tensor("a", "F32", (6, 4), 0, 96),
    Tensor("b", "I8", (24,), 96, 120),
    Tensor("c", "F32", (0,), 120, 120),
    Tensor("d", "F32", (24,), 120, 216),
    Tensor("e", "F32", (2, 1 << 26), 216, 216 + (1 << 29)),
    Tensor("f", "F32", (512,), 1 << 30, (1 << 30) + 2048),
    Tensor("g", "F4", (2, 12), 1 << 31, (1 << 31) + 12),
    Tensor("h", "F32", (2, 1 << 24), 1 << 32, (1 << 32) + (1 << 27)),
    Tensor("i", "F32", (2, 1 << 25), 1 << 33, (1 << 33) + (1 << 28)),
]
TARGET = Tensor("t", "F32", (6, 4), 0, 96)


def whole(source: int) -> Piece:
    return Piece(24, source, 24, 0, False)


@pytest.mark.parametrize(
    ("alignment", "message"),
    [
        (Alignment(0, (whole(0),)), "0 rows"),
        (Alignment(-1, (whole(0),)), "-1 rows"),
        (Alignment(5, (whole(0),)), "5 rows"),
        (Alignment(1 << 70, (whole(0),)), "rows of 24"),
        (Alignment(1, ()), "0 pieces"),
        (Alignment(1, (Piece(1, -1, 0, 0, False),) * 4097), "4097 pieces"),
        (Alignment(1, (whole(0), whole(0))), "do not fill"),
        (Alignment(1, (whole(0)._replace(width=23),)), "do not fill"),
        (Alignment(1, (whole(0), Piece(0, 0, 24, 0, False))), "of 0 elements"),
        (Alignment(1, (whole(0)._replace(width=34), Piece(-10, 0, 24, 0, False))), "at 0 of 34"),
        (Alignment(1, (Piece(24, -1, 24, 0, False),)), "no source"),
        (Alignment(1, (Piece(24, -1, 0, 1, False),)), "no source"),
        (Alignment(1, (Piece(24, -1, 0, 0, True),)), "no source"),
        (Alignment(1, (whole(-2),)), "base tensor -2"),
        (Alignment(1, (whole(9),)), "base tensor 9"),
        (Alignment(1, (whole(1),)), "dtype I8"),
        (Alignment(1, (whole(6),)), "dtype F4"),
        (Alignment(1, (whole(2),)), "of a base tensor of 0"),
        (Alignment(1, (whole(0)._replace(inner=0),)), "rows of 0"),
        (Alignment(1, (whole(0)._replace(inner=25),)), "rows of 25"),
        (Alignment(2, (Piece(12, 0, 13, 0, False),)), "2 rows of 13"),
        (Alignment(1, (whole(0)._replace(first=1),)), "at 1"),
        (Alignment(1, (whole(0)._replace(first=-1),)), "at -1"),
        (Alignment(6, (Piece(4, 4, 1 << 20, 0, False),)), "too few"),
        (Alignment(1, (whole(3)._replace(transposed=True),)), "cannot be transposed"),
        (Alignment(1, (Piece(24, 4, 24, 0, True),)), "cannot be transposed"),
        (
            Alignment(1, (Piece(12, 7, 24, 0, True), Piece(12, 8, 24, 0, True))),
            "transposes 402653184 bytes",
        ),
    ],
)
def test_an_illegal_alignment_is_refused(alignment: Alignment, message: str) -> None:
    with pytest.raises(CorruptError, match=message) as caught:
        check_alignment(alignment, TARGET, BASE)
    assert caught.value.tensor == "t"


@pytest.mark.parametrize(
    "alignment",
    [
        Alignment(1, (whole(0),)),
        Alignment(6, (Piece(4, 0, 4, 0, False),)),
        Alignment(4, (Piece(6, 0, 6, 0, True),)),
        Alignment(1, (Piece(12, 7, 24, 0, True), Piece(12, 7, 24, 3, True))),
        Alignment(1, (Piece(4, -1, 0, 0, False), Piece(20, 5, 512, 492, False))),
        Alignment(24, (Piece(1, 5, 21, 20, False),)),
    ],
)
def test_a_legal_one_is_taken(alignment: Alignment) -> None:
    check_alignment(alignment, TARGET, BASE)


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "Q5_K"])
def test_dtypes_of_no_whole_bytes_are_counted_in_bytes(dtype: str) -> None:
    source = Tensor("s", dtype, (4, 8), 0, 24)
    target = Tensor("t", dtype, (32,), 0, 24)
    check_alignment(Alignment(1, (whole(0),)), target, [source])
    with pytest.raises(CorruptError, match="cannot be transposed"):
        check_alignment(Alignment(1, (whole(0)._replace(transposed=True),)), target, [source])


@given(st.data())
def test_numbers_of_any_size_are_checked(data: st.DataObject) -> None:
    number = st.integers(-(1 << 66), 1 << 66) | st.integers(-1, 30)
    piece = st.builds(Piece, number, number, number, number, st.booleans())
    alignment = data.draw(st.builds(Alignment, number, st.lists(piece, max_size=3).map(tuple)))
    arrays = {"a": np.ones((6, 4), np.float32), "b": np.ones(24, np.int8)}
    base = ByName(model(arrays))
    try:
        check_alignment(alignment, TARGET, base.tensors)
    except CorruptError:
        return
    for piece in alignment.pieces:
        if piece.source >= 0:
            got = reference_of(piece, base, "F32", 0, alignment.outer)
            assert got.tobytes() == np.ones(alignment.outer * piece.width, np.float32).tobytes()
