"""What a model delta cost, and which of its tensors took which way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from z4ai.deltas.records import COPY, FROM_PIECES, FROM_TARGET, FROM_WHOLE, SCRATCH
from z4ai.stream import stats_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.deltas.records import Entry
    from z4ai.deltas.z4dm import ModelDelta

__all__ = ["describe", "way_names"]


def way_names(entries: Sequence[Entry]) -> list[str]:
    """Name the way of each tensor: scratch, copied, delta, lowrank, or shared with another one."""
    names = []
    seen = set()
    for entry in entries:
        if entry.coding == SCRATCH:
            twice = entry.location is not None and entry.location in seen
            seen.add(entry.location)
            names.append("shared" if twice else "scratch")
        elif entry.origin == FROM_TARGET:
            names.append("shared")
        elif entry.coding == COPY:
            names.append("copied")
        else:
            names.append("delta" if entry.factors is None else "lowrank")
    return names


def describe(delta: ModelDelta, nbytes: int) -> dict[str, Any]:
    """Describe a model delta, with the keys that every door reports and those of deltas."""
    stats = stats_of(delta.original_nbytes, nbytes)
    names = way_names(delta.entries)
    found = (FROM_WHOLE, FROM_PIECES)
    return {
        **stats,
        "original": stats["original_bytes"],
        "stored": stats["compressed_bytes"],
        "n_tensors": len(names),
        **{
            f"n_{name}": names.count(name)
            for name in ("copied", "delta", "lowrank", "scratch", "shared")
        },
        "n_aligned": sum(entry.origin in found for entry in delta.entries),
    }
