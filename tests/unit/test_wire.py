"""Varints and magics."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai import _wire
from z4ai._reference.frame import read_varint
from z4ai.errors import CorruptError, FormatError, TruncatedError, UnsupportedVersionError


@given(st.integers(0, 2**64 - 1))
def test_varints_come_back_and_the_reference_agrees(value: int) -> None:
    raw = _wire.put_varint(value)
    assert len(raw) == max(1, -(-value.bit_length() // 7))
    for behind in (b"", b"\xff", b"\0"):
        buf = memoryview(b"\x80" + raw + behind)
        assert _wire.get_varint(buf, 1, len(buf)) == (value, 1 + len(raw))
        assert read_varint(bytes(buf), 1) == (value, 1 + len(raw))


@given(st.binary(max_size=12))
def test_any_bytes_mean_the_same_to_the_reference(raw: bytes) -> None:
    try:
        wanted = read_varint(raw, 0)
    except ValueError:
        with pytest.raises(FormatError):
            _wire.get_varint(memoryview(raw), 0, len(raw))
    else:
        assert _wire.get_varint(memoryview(raw), 0, len(raw)) == wanted


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", TruncatedError),
        (b"\x80", TruncatedError),
        (b"\xff" * 9, TruncatedError),
        (b"\x80\x00", CorruptError),
        (b"\xff\x80\x00", CorruptError),
        (b"\x80" * 9 + b"\x02", CorruptError),
        (b"\xff" * 10, CorruptError),
        (b"\xff" * 11, CorruptError),
    ],
)
def test_a_varint_that_breaks_a_rule(raw: bytes, expected: type[FormatError]) -> None:
    with pytest.raises(expected) as caught:
        _wire.get_varint(memoryview(raw), 0, len(raw))
    assert type(caught.value) is expected


def test_a_varint_ends_where_its_room_ends() -> None:
    with pytest.raises(TruncatedError):
        _wire.get_varint(memoryview(b"\x80\x01"), 0, 1)


def test_magics() -> None:
    good = _wire.MAGIC_FRAME + b"\x10"
    _wire.check_magic(memoryview(good), _wire.MAGIC_FRAME, "frame")
    for n in range(5):
        with pytest.raises(TruncatedError):
            _wire.check_magic(memoryview(good[:n]), _wire.MAGIC_FRAME, "frame")
    for wrong in (b"X", b"Z4AJ\x10", b"ZSTN\x10", b"\0\0\0\0\0"):
        with pytest.raises(FormatError, match="not a frame") as caught:
            _wire.check_magic(memoryview(wrong), _wire.MAGIC_FRAME, "frame")
        assert type(caught.value) is FormatError
        assert caught.value.offset == 0
    for version in set(range(256)) - {16}:
        with pytest.raises(UnsupportedVersionError) as version_error:
            _wire.check_magic(memoryview(good[:4] + bytes([version])), _wire.MAGIC_FRAME, "frame")
        theirs = version in (1, 2, 3, ord("M"))
        assert ("earlier package" in str(version_error.value)) == theirs
