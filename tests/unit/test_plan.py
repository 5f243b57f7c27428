"""What is chosen for a dtype and an effort."""

from __future__ import annotations

from itertools import pairwise

import pytest

from z4ai import dtypes, frame
from z4ai.options import EFFORTS
from z4ai.plan import STORE_PLAN, Plan, make_plan


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("row", dtypes._TABLE, ids=lambda row: row.name)
def test_plans_keep_the_rules_of_the_format(row: dtypes.DType, effort: str) -> None:
    plan = make_plan(row, effort)
    assert plan == make_plan(row, effort)
    check(plan)
    assert plan.layout == row.layout
    width = dtypes.LAYOUT_WIDTHS[plan.other_layout]
    assert width == row.width
    # Opaque bytes want a match finder; planes of known elements do not.
    assert (plan.zstd_levels is None) == (row is not dtypes.OPAQUE)


def check(plan: Plan) -> None:
    assert 1 <= plan.chunk_nbytes <= frame.MAX_CHUNK_NBYTES
    assert plan.chunk_nbytes % 16 == 0
    assert plan.layout in range(len(dtypes.LAYOUT_WIDTHS))


def test_storing_takes_the_largest_chunks_there_are() -> None:
    check(STORE_PLAN)
    assert STORE_PLAN.chunk_nbytes == frame.MAX_CHUNK_NBYTES
    assert STORE_PLAN.zstd_levels == ()
    assert STORE_PLAN.layout == dtypes.BYTES1


def test_a_tier_tries_all_that_the_tier_below_it_tries() -> None:
    levels = [make_plan(dtypes.OPAQUE, effort).zstd_levels for effort in EFFORTS]
    for below, above in pairwise(levels):
        assert below is not None
        assert above is not None
        assert set(below) <= set(above)
