"""Casts and pieces against plain Python written from docs/format/alignment.md, and its table."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from align_models import model
from hypothesis import given
from hypothesis import strategies as st

from z4ai._reference import alignment as reference
from z4ai.align import ByName, Piece, cast, reference_of
from z4ai.align.elements import FLOATS

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "alignment.md"
ROW = re.compile(r"^(\w+) ([0-9A-F ]+) -> (\w+) ((?:[0-9A-F]+ ?)+)", re.MULTILINE)


def examples() -> list[tuple[str, int, str, int]]:
    table = re.search(r"<!-- casts -->\n```\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert table is not None
    found = ROW.findall(table[1])
    assert len(found) == table[1].count("\n") == 22
    return [
        (base, int(bits.replace(" ", ""), 16), target, int(result.replace(" ", ""), 16))
        for base, bits, target, result in found
    ]


def fast(bits: int, base: str, target: str) -> int:
    content = np.frombuffer(bits.to_bytes(FLOATS[base].nbytes, "little"), np.uint8)
    return int.from_bytes(cast(content, base, target).tobytes(), "little")


@pytest.mark.parametrize(("base", "bits", "target", "result"), examples())
def test_the_table_of_the_page(base: str, bits: int, target: str, result: int) -> None:
    assert reference.cast(bits, base, target) == result
    assert fast(bits, base, target) == result


def test_both_know_the_same_dtypes() -> None:
    assert set(reference.FLOATS) == set(FLOATS)


@given(st.data(), st.sampled_from(sorted(FLOATS)), st.sampled_from(sorted(FLOATS)))
def test_casts_are_those_of_the_page(data: st.DataObject, base: str, target: str) -> None:
    row, to = FLOATS[base], FLOATS[target]
    # Near the ends of the target's range, and anything.
    exponent = data.draw(
        st.integers(0, (1 << row.exponent) - 1)
        | st.integers(-3, 3).map(lambda k: row.bias + to.bias + k)
        | st.integers(-3, to.mantissa + 3).map(lambda k: row.bias - to.bias - k)
    )
    exponent = min(max(exponent, 0), (1 << row.exponent) - 1)
    less = max(row.mantissa - to.mantissa, 0)
    mantissa = data.draw(
        st.integers(0, (1 << row.mantissa) - 1)
        | st.integers(0, (1 << row.mantissa >> less) - 1).map(
            lambda k: (k << less) + (1 << less >> 1)
        )
    )
    sign = data.draw(st.integers(0, 1))
    bits = sign << (8 * row.nbytes - 1) | exponent << row.mantissa | mantissa
    assert fast(bits, base, target) == reference.cast(bits, base, target)


@given(st.data())
def test_pieces_are_those_of_the_page(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 12))
    n = rows * columns
    outer = data.draw(st.integers(1, n))
    inner = data.draw(st.integers(1, n // outer))
    width = data.draw(st.integers(1, inner))
    first = data.draw(st.integers(0, inner - width))
    transposed = data.draw(st.booleans())
    matrix = np.arange(n, dtype=np.uint8).reshape(rows, columns)
    base = ByName(model({"m": matrix}))
    got = reference_of(Piece(width, 0, inner, first, transposed), base, "U8", 0, outer)
    expected = reference.piece(
        list(range(n)), (rows, columns), outer, width, inner, first, transposed
    )
    assert got.tolist() == expected
