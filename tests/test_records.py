"""Every codec, transform and dtype that is registered has what its tests are made from."""

from __future__ import annotations

import pytest
import strategies
from records import NOT_OF_PLANES, RECORDS

from z4ai import dtypes
from z4ai._reference import frame as reference
from z4ai._wire import FORMAT_VERSION
from z4ai.codecs import CODECS


def test_every_codec_has_a_record() -> None:
    assert list(RECORDS) == [name for name in CODECS.values() if name not in NOT_OF_PLANES]
    assert set(CODECS.values()) >= NOT_OF_PLANES


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_says_enough(name: str) -> None:
    record = RECORDS[name]
    assert record.name == name
    assert 16 <= record.since <= FORMAT_VERSION
    assert record.encoders
    assert len(record.planes) >= 3
    assert all(record.suits(plane) for plane in record.planes.values())
    for plane in record.planes.values():
        assert any(True for _ in record.hostile(plane))


def test_production_and_reference_register_the_same_numbers() -> None:
    assert CODECS == reference.CODECS
    assert dict(enumerate(dtypes.LAYOUT_WIDTHS)) == {
        number: width for number, (_, width) in reference.TRANSFORMS.items()
    }
    assert {
        row.code: (row.name, row.width, row.item_nbytes or None) for row in dtypes._TABLE
    } == reference.DTYPES


def test_every_dtype_is_drawn_from() -> None:
    assert set(strategies.DTYPES) == {name for name, _, _ in reference.DTYPES.values()}
    assert set(strategies.ARRAY_DTYPES) == {
        name for name, _, nbytes in reference.DTYPES.values() if nbytes is not None
    }
    for name in strategies.ARRAY_DTYPES:
        assert strategies.array_of(name, (2, 3)).shape == (2, 3)


def test_formulas_give_the_sizes_asked_for() -> None:
    for kind in strategies.KINDS:
        for width in (1, 2, 4, 8):
            for nbytes in (0, 1, 7, 8, 100):
                assert len(strategies.make(kind, nbytes, width, 1)) == nbytes
