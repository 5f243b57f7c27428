"""What names tell: namesakes, which of several candidates is meant, and how a model was renamed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from z4ai.align.elements import castable, n_items

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from z4ai.container.st_header import Tensor

__all__ = ["Identical", "Renames", "likeness", "namesakes"]

_MOST_RENAMES = 16


def namesakes(target: Sequence[Tensor], base: Sequence[Tensor]) -> list[int]:
    """Find for each tensor the base tensor of its name; -1 where there is none."""
    numbers = {tensor.name: k for k, tensor in enumerate(base)}
    return [numbers.get(tensor.name, -1) for tensor in target]


def likeness(one: str, other: str) -> tuple[int, int]:
    """Tell how alike two names are: common parts at the end, then common parts anywhere.

    Examples
    --------
    >>> from z4ai.align.names import likeness
    >>> likeness("encoder.layer.0.bias", "bert.encoder.layer.0.bias")
    (4, 4)
    """
    left, right = one.split("."), other.split(".")
    return _common_end(left, right), sum((Counter(left) & Counter(right)).values())


def _common_end(left: list[str], right: list[str]) -> int:
    n = 0
    for a, b in zip(reversed(left), reversed(right), strict=False):
        if a != b:
            break
        n += 1
    return n


class Identical:
    """The tensors of a base by what they hold.

    Parameters
    ----------
    tensors : sequence of Tensor
        Of the base.
    digests : sequence of bytes
        Of their bytes.
    """

    def __init__(self, tensors: Sequence[Tensor], digests: Sequence[bytes]) -> None:
        self._tensors = tensors
        self._by_content: dict[tuple[str, int, bytes], list[int]] = defaultdict(list)
        for k, (tensor, digest) in enumerate(zip(tensors, digests, strict=True)):
            self._by_content[tensor.dtype, tensor.nbytes, digest].append(k)

    def find(self, tensor: Tensor, digest: bytes) -> int:
        """Find a tensor with the same bytes and dtype, of the most likely name; else -1."""
        found = self._by_content.get((tensor.dtype, tensor.nbytes, digest), [])
        if len(found) < 2:
            return found[0] if found else -1
        # Ties of many: zeros, ones. Their own name is looked for first, the rest cut short.
        same = [k for k in found if self._tensors[k].name == tensor.name]
        return max(
            same or found[:64],
            key=lambda k: (likeness(tensor.name, self._tensors[k].name), -k),
        )


class Renames:
    """Beginnings of names that were changed, learned from tensors that were found otherwise.

    Parameters
    ----------
    pairs : iterable of (str, str)
        Names in the target and in the base.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        counts: Counter[tuple[str, str]] = Counter()
        for ours, theirs in pairs:
            left, right = ours.split("."), theirs.split(".")
            n = _common_end(left, right)
            if n:
                # Up to and with the last part that differs: what follows is kept.
                counts[_beginning(left, n), _beginning(right, n)] += 1
        self._known = [pair for pair, _ in counts.most_common(_MOST_RENAMES)]

    def guesses(self, name: str) -> Iterable[str]:
        """Names that the tensor may have had, the likeliest first."""
        for ours, theirs in self._known:
            if name.startswith(ours):
                yield theirs + name[len(ours) :]


def _beginning(parts: list[str], n: int) -> str:
    return "".join(f"{part}." for part in parts[: len(parts) - n])


def fits(tensor: Tensor, source: Tensor) -> bool:
    """Tell whether a base tensor can be the reference of a tensor as it lies."""
    return castable(source.dtype, tensor.dtype) and n_items(source) == n_items(tensor)
