"""Memory for outputs: fresh, whole, and in huge pages only where these come quickly."""

from __future__ import annotations

import numpy as np
import pytest

from z4ai._fast import chunks

MIB = 1 << 20


@pytest.mark.parametrize("nbytes", [0, 1, 4095, 2 * MIB - 1, 2 * MIB, 5 * MIB + 3, 97 * MIB + 1])
def test_fresh_memory_can_be_filled(nbytes: int) -> None:
    out = chunks.fresh_array(nbytes)
    assert (out.dtype, out.shape, out.flags.writeable) == (np.dtype(np.uint8), (nbytes,), True)
    out[:] = 7
    assert int(out[::4093].sum()) == 7 * -(-nbytes // 4093)
    built = chunks.BytesBuilder(nbytes)
    with memoryview(built) as view:
        view[:] = memoryview(out)
    assert built.finish(nbytes) == out.tobytes()


def test_huge_pages_are_tried_everywhere_as_long_as_they_are_quick() -> None:
    assert chunks.huge_stretches_tried([False] * 100) == [True] * 100


def test_slow_huge_pages_are_tried_less_and_less_often_but_not_never() -> None:
    tried = chunks.huge_stretches_tried([True] * 1000)
    places = np.flatnonzero(tried)
    gaps = np.diff(places)
    assert places[0] == 0
    assert gaps[:4].tolist() == [2, 4, 8, 16]
    assert set(gaps[3:]) == {16}


def test_luck_may_turn() -> None:
    tried = chunks.huge_stretches_tried([True] * 64 + [False] * 200)
    assert sum(tried[:64]) < 10
    assert all(tried[64 + 16 :])
