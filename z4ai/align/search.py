"""Find for each tensor of a model what it was made from, if that is in the base."""

from __future__ import annotations

from typing import TYPE_CHECKING

from z4ai.align.digests import tensor_digests
from z4ai.align.names import Identical, fits, namesakes
from z4ai.align.pieces import Alignment, whole
from z4ai.align.source import ByName

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.align.source import TensorSource

__all__ = ["align"]


def align(
    target: TensorSource,
    base: TensorSource,
    digests_target: Sequence[bytes] | None = None,
    digests_base: Sequence[bytes] | None = None,
) -> list[Alignment | None]:
    """Find for each tensor of `target` the tensors of `base` that it was made from.

    Parameters
    ----------
    target, base : TensorSource
        The models.
    digests_target, digests_base : sequence of bytes, optional
        Of the bytes of their tensors, in the order of `tensors`; computed where they are left out.

    Returns
    -------
    list of Alignment or None
        One for each tensor of the target, in the order of `target.tensors`; None for one that
        nothing is known about. The pieces number the tensors of the base sorted by name.
    """
    sorted_base = base if isinstance(base, ByName) else ByName(base)
    ours = tensor_digests(target) if digests_target is None else digests_target
    theirs = tensor_digests(base) if digests_base is None else digests_base
    if sorted_base is not base:
        theirs = [theirs[k] for k in sorted_base.order]
    identical = Identical(sorted_base.tensors, theirs)
    found: list[Alignment | None] = []
    names = namesakes(target.tensors, sorted_base.tensors)
    for k, tensor in enumerate(target.tensors):
        if not tensor.nbytes:
            found.append(None)
            continue
        same = identical.find(tensor, ours[k])
        if same < 0 and names[k] >= 0 and fits(tensor, sorted_base.tensors[names[k]]):
            same = names[k]
        found.append(whole(tensor, same) if same >= 0 else None)
    return found
