"""Find for each tensor of a model what it was made from, if that is in the base."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from z4ai.align.axes import Cuts
from z4ai.align.digests import tensor_digests
from z4ai.align.elements import item_nbytes, n_items
from z4ai.align.names import Identical, Renames, fits, likeness, namesakes
from z4ai.align.pieces import Alignment, Piece, check_alignment, whole
from z4ai.align.samples import (
    RUN,
    RUNS,
    Relation,
    in_order,
    kind_of,
    relate,
    relate_runs,
    sample,
    sketch,
)
from z4ai.align.similar import candidates
from z4ai.align.source import ByName
from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from z4ai.align.source import TensorSource
    from z4ai.container.st_header import Tensor

__all__ = ["align"]

# So few bytes are simply tried against what their name says.
_SMALL_NBYTES = 1 << 16
# Fewer elements show no likeness that could not be chance, and are not worth a record.
_FEWEST = 36
_MOST_ALIKE = 8
_HELD_NBYTES = 16 << 20
# Bits that an element of a namesake saves, if no better one need be looked for.
_CLEARLY = 4
# Sixteenths of the bits of an element that differ where nothing but the name speaks for a match.
_CLOSE = 11


def align(
    target: TensorSource,
    base: TensorSource,
    digests_target: Sequence[bytes] | None = None,
    digests_base: Sequence[bytes] | None = None,
) -> list[Alignment | None]:
    """Find for each tensor of `target` the tensors of `base` that it was made from.

    Tried are, one after the other: equal bytes; the same name; the same number of elements with
    similar ones among them; names as others were found to be changed; parts of tensors, along
    their rows or columns, transposed too. A match that is none costs time, no correctness.

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

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.align import FileTensors, align
    >>> from z4ai.container.source import source_of_buffer
    >>> from z4ai.container.st_header import Header, Tensor
    >>> data = source_of_buffer(np.arange(12, dtype=np.uint8))
    >>> base = FileTensors(data, 0, Header([Tensor("m", "U8", (3, 4), 0, 12)], None))
    >>> target = FileTensors(data, 0, Header([Tensor("renamed", "U8", (12,), 0, 12)], None))
    >>> align(target, base)
    [Alignment(outer=1, pieces=(Piece(width=12, source=0, inner=12, first=0, transposed=False),))]
    """
    sorted_base = base if isinstance(base, ByName) else ByName(base)
    ours = tensor_digests(target) if digests_target is None else digests_target
    theirs = tensor_digests(base) if digests_base is None else digests_base
    if sorted_base is not base:
        theirs = [theirs[k] for k in sorted_base.order]
    search = _Search(target, sorted_base)
    search.by_content(ours, theirs)
    search.by_name()
    search.by_likeness()
    search.by_renames()
    search.by_parts()
    return search.found


class _Search:
    """The tensors that were found so far, and those that are left."""

    def __init__(self, target: TensorSource, base: ByName) -> None:
        self._target, self._base = target, base
        self._names = namesakes(target.tensors, base.tensors)
        self.found: list[Alignment | None] = [None] * len(target.tensors)
        # Tensors that are left; with the cost of what they have for want of a better one.
        self._left: dict[int, int | None] = {}
        # Those of them that are like their namesake, if not so much that no other could be more.
        self._certain: set[int] = set()

    def _settle(self, k: int, source: int) -> None:
        self.found[k] = whole(self._target.tensors[k], source)
        self._left.pop(k, None)

    def by_content(self, ours: Sequence[bytes], theirs: Sequence[bytes]) -> None:
        """Settle what the base has byte for byte, under any name."""
        identical = Identical(self._base.tensors, theirs)
        for k, tensor in enumerate(self._target.tensors):
            if tensor.nbytes:
                source = identical.find(tensor, ours[k])
                if source >= 0:
                    self._settle(k, source)
                else:
                    self._left[k] = None

    def by_name(self) -> None:
        """Take tensors of the same name; settle those that are visibly alike."""
        for k in list(self._left):
            source, tensor = self._names[k], self._target.tensors[k]
            if source < 0 or not fits(tensor, self._base.tensors[source]):
                continue
            relation = self._relate(k, source)
            if relation.certain and relation.saved >= _CLEARLY * _n_sampled(tensor):
                self._settle(k, source)
            elif relation.certain or self._is_worth_a_try(k, source):
                self.found[k] = whole(tensor, source)
                self._left[k] = relation.cost
            if relation.certain:
                self._certain.add(k)

    def _relate(self, k: int, source: int) -> Relation:
        dtype, base_dtype = self._target.tensors[k].dtype, self._base.tensors[source].dtype
        ours, theirs = sample(self._target, k), sample(self._base, source)
        return relate(ours, dtype, theirs, base_dtype)

    def _is_worth_a_try(self, k: int, source: int) -> bool:
        """Tell whether a tensor is small, or some stretch of it like its namesake."""
        tensor, other = self._target.tensors[k], self._base.tensors[source]
        if tensor.nbytes <= _SMALL_NBYTES:
            return True
        ours, theirs = sample(self._target, k), sample(self._base, source)
        return any(r.certain for r in relate_runs(ours, tensor.dtype, theirs, other.dtype))

    def by_likeness(self) -> None:
        """Find similar tensors of as many elements, whatever their names and shapes."""
        groups: dict[tuple[int, str], list[int]] = defaultdict(list)
        for k in self._left:
            tensor = self._target.tensors[k]
            if n_items(tensor) >= _FEWEST:
                groups[n_items(tensor), kind_of(tensor.dtype)].append(k)
        sources: dict[tuple[int, str], list[int]] = defaultdict(list)
        for k, tensor in enumerate(self._base.tensors):
            group = n_items(tensor), kind_of(tensor.dtype)
            if group in groups:
                sources[group].append(k)
        for group, theirs in sources.items():
            self._match(groups[group], theirs)
        for k in self._certain:
            self._left.pop(k, None)

    def _match(self, ours: list[int], theirs: list[int]) -> None:
        mine, others = _Samples(self._target), _Samples(self._base)
        listed = candidates(mine.sketches(ours), others.sketches(theirs), _MOST_ALIKE)
        for k, numbers in zip(ours, listed, strict=True):
            tensor = self._target.tensors[k]
            options = []
            for number in (theirs[number] for number in numbers):
                source = self._base.tensors[number]
                relation = relate(mine[k], tensor.dtype, others[number], source.dtype)
                if relation.certain:
                    a, b = likeness(tensor.name, source.name)
                    options.append((relation.cost, -a, -b, number))
            if not options:
                continue
            cost, _, _, source_number = min(options)
            known = self._left[k]
            # A namesake is left only for one that is better by a bit an element.
            if known is None or cost + _n_sampled(tensor) <= known:
                self._settle(k, source_number)

    def by_renames(self) -> None:
        """Follow the changes of names that were found out from other tensors."""
        target, base = self._target.tensors, self._base.tensors
        numbers = {tensor.name: k for k, tensor in enumerate(base)}
        renames = Renames(
            (target[k].name, base[alignment.pieces[0].source].name)
            for k, alignment in enumerate(self.found)
            if alignment is not None
        )
        for k in list(self._left):
            if self.found[k] is not None:
                continue
            for name in renames.guesses(target[k].name):
                source = numbers.get(name, -1)
                if source >= 0 and self._names[k] < 0:
                    self._names[k] = source
                if source >= 0 and fits(target[k], base[source]):
                    relation = self._relate(k, source)
                    if relation.certain or _is_close(relation, target[k], _n_sampled(target[k])):
                        self._settle(k, source)
                        break

    def by_parts(self) -> None:
        """Find tensors that were cut, joined, resized or transposed."""
        wanted = [k for k in self._left if n_items(self._target.tensors[k]) >= _FEWEST]
        hints = {k: self._names[k] for k in wanted if self._names[k] >= 0}
        for k, (alignment, n) in Cuts(self._target, wanted, self._base).find(hints).items():
            # A namesake is left only for most of a tensor.
            some = self.found[k] is None or 2 * n > n_items(self._target.tensors[k])
            if some and self._is_legal(k, alignment):
                self.found[k] = alignment
                del self._left[k]
        for k in self._left:
            source = self._names[k]
            if self.found[k] is None and source >= 0:
                self._lead(k, source)

    def _is_legal(self, k: int, alignment: Alignment) -> bool:
        try:
            check_alignment(alignment, self._target.tensors[k], self._base.tensors)
        except CorruptError:
            return False
        return True

    def _lead(self, k: int, source: int) -> None:
        """Try a small tensor of the right name that has more or fewer rows than its namesake."""
        tensor, other = self._target.tensors[k], self._base.tensors[source]
        if tensor.nbytes > _SMALL_NBYTES or kind_of(tensor.dtype) != kind_of(other.dtype):
            return
        if tensor.shape[1:] != other.shape[1:] or not other.nbytes:
            return
        n, n_base = n_items(tensor), n_items(other)
        width = min(n, n_base)
        if n == n_base:
            return
        if tensor.name != other.name:
            n_read = min(width, RUN * RUNS)
            ours = self._target.read(k, 0, n_read * item_nbytes(tensor.dtype))
            theirs = self._base.read(source, 0, n_read * item_nbytes(other.dtype))
            relation = relate(ours, tensor.dtype, theirs, other.dtype)
            if not relation.certain and not _is_close(relation, tensor, n_read):
                return
        pieces = [Piece(width, source, n_base, 0, False)]
        if width < n:
            pieces.append(Piece(n - width, -1, 0, 0, False))
        self.found[k] = Alignment(1, tuple(pieces))


def _n_sampled(tensor: Tensor) -> int:
    return min(n_items(tensor), RUN * RUNS)


def _is_close(relation: Relation, tensor: Tensor, n: int) -> bool:
    """Tell whether `n` elements differ so little that even what is hardly likely may be tried."""
    return 16 * relation.cost <= _CLOSE * 8 * item_nbytes(tensor.dtype) * n


class _Samples:
    """Samples of the tensors of a group: not held where they are many, but read again."""

    def __init__(self, model: TensorSource) -> None:
        self._model = model
        self._held: dict[int, NDArray[np.uint8]] = {}
        self._nbytes = 0

    def __getitem__(self, k: int) -> NDArray[np.uint8]:
        found = self._held.get(k)
        if found is None:
            found = sample(self._model, k)
            if self._nbytes + len(found) <= _HELD_NBYTES:
                self._held[k] = found
                self._nbytes += len(found)
        return found

    def sketches(self, numbers: list[int]) -> NDArray[np.uint16]:
        tensors = self._model.tensors
        return np.array([sketch(in_order(self[k], tensors[k].dtype), RUN * RUNS) for k in numbers])
