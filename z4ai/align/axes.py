"""Find tensors that were cut, joined, resized or transposed: what stretches of them correspond."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai.align.elements import castable, n_items
from z4ai.align.matrices import Axis, Blocks, axes_of, can_turn, line_of, similar, telling
from z4ai.align.pieces import MAX_PIECES, Alignment, Piece
from z4ai.align.samples import kind_of
from z4ai.align.similar import candidates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from z4ai.align.source import ByName, TensorSource

__all__ = ["Cuts"]

# Places of an axis that are looked at: where a tensor of the other model may begin or end.
_MOST_PLACES = 512
# Then, where something was found and something is missing, every so many rows, if not too many.
_STEP = 16
_MOST_DENSE = 1024
_MOST_ALIKE = 8
# Places at which a stretch is looked at from end to end.
_PROBES = 16
# A stretch of less than this part of an axis is not worth a record.
_LEAST_PART = 16


class Stretch(NamedTuple):
    """A range of an axis of a target, and what it corresponds to.

    Attributes
    ----------
    begin, end : int
        Rows or columns of the target.
    source : Axis
        Of the base tensor.
    shift : int
        How much further the target's places are than those of the base.
    """

    begin: int
    end: int
    source: Axis
    shift: int


_Group = tuple[int, str]


class Cuts:
    """Looks for stretches of tensors in those of a base.

    Parameters
    ----------
    target : TensorSource
        The model.
    wanted : sequence of int
        The tensors of it that are looked for.
    base : ByName
        Where they may come from.
    """

    def __init__(self, target: TensorSource, wanted: Sequence[int], base: ByName) -> None:
        self._target, self._base = Blocks(target), Blocks(base)
        self._wanted = list(wanted)
        self._ours = self._grouped(target, wanted)
        self._theirs = self._grouped(base, range(len(base.tensors)))
        self._stretches: dict[Axis, list[Stretch]] = defaultdict(list)

    @staticmethod
    def _grouped(model: TensorSource, numbers: Iterable[int]) -> dict[_Group, list[Axis]]:
        """Sort axes by the length of the other one: only such can correspond."""
        groups: dict[_Group, list[Axis]] = defaultdict(list)
        for k in numbers:
            tensor = model.tensors[k]
            for axis in axes_of(tensor, k):
                if axis.length >= axis.along:
                    groups[axis.other, kind_of(tensor.dtype)].append(axis)
        return groups

    def find(self, hints: dict[int, int]) -> dict[int, tuple[Alignment, int]]:
        """Find alignments.

        Parameters
        ----------
        hints : dict of int to int
            Base tensors that tensors may be a resized form of, by their names.

        Returns
        -------
        dict of int to (Alignment, int)
            For the tensors for which one was found, and how many elements it has a reference for.
        """
        for group, ours in self._ours.items():
            theirs = self._theirs.get(group, [])
            if theirs:
                self._search(ours, theirs)
                self._target.forget()
                self._base.forget()
        for k, source in hints.items():
            self._try_hint(k, source)
        found: dict[int, tuple[Alignment, int]] = {}
        for axis, stretches in self._stretches.items():
            covered = sum(stretch.end - stretch.begin for stretch in stretches)
            elements = covered * axis.other
            if covered * _LEAST_PART < axis.length or elements <= (
                found[axis.k][1] if axis.k in found else 0
            ):
                continue
            alignment = self._alignment(axis, sorted(stretches))
            if alignment is not None:
                found[axis.k] = alignment, elements
        return found

    def _search(self, ours: list[Axis], theirs: list[Axis]) -> None:
        lengths = [sorted({axis.length for axis in axes}) for axes in (ours, theirs)]
        places = [(axis, p) for axis in ours for p in _places(axis, lengths[1])]
        there = [(axis, p) for axis in theirs for p in _places(axis, lengths[0])]
        hit = self._match(places, there)
        # A second look where only parts were found: such as heads of several tensors in turn.
        parts = {axis.length for axis in ours if 0 < self._covered(axis) < axis.length - axis.along}
        for axis in ours:
            if axis.length not in parts or self._covered(axis) >= axis.length - axis.along:
                continue
            places = [(axis, p) for p in _dense(axis) if self._is_free(axis, p)]
            more = self._match(places, there)
            dense = [(source, p) for source in sorted(hit | more) for p in _dense(source)]
            self._match([(a, p) for a, p in places if self._is_free(a, p)], dense)
            hit |= more

    def _match(self, places: list[tuple[Axis, int]], there: list[tuple[Axis, int]]) -> set[Axis]:
        """Explore the stretches around each place whose block is found in the base."""
        mine = _telling(places, self._target)
        others = _telling(there, self._base)
        if not mine or not others:
            return set()
        alike = candidates(
            np.array([entry[2] for entry in mine]),
            np.array([entry[2] for entry in others]),
            _MOST_ALIKE,
        )
        hit = set()
        for (axis, p, block), numbers in zip(mine, alike, strict=True):
            for number in numbers:
                source, q, its_block = others[number]
                if similar(block, its_block) and self._may_come(axis, source):
                    hit.add(source)
                    if self._is_free(axis, p):
                        self._explore(axis, source, p - q, p)
        return hit

    def _may_come(self, axis: Axis, source: Axis) -> bool:
        tensor = self._base.model.tensors[source.k]
        if not castable(tensor.dtype, self._target.model.tensors[axis.k].dtype):
            return False
        return axis.across == source.across or can_turn(tensor, source)

    def _explore(self, axis: Axis, source: Axis, shift: int, known: int | None) -> None:
        """Find how far an axis and its source agree.

        Either they are known to at a place, or they must at an end of what they may share.
        """
        low = max(0, shift)
        last = min(axis.length, source.length + shift) - axis.along
        if last < low:
            return
        # One at either end, those between no closer than blocks are long.
        n_steps = min(_PROBES - 1, (last - low) // axis.along + 1)
        probes = {low + (last - low) * i // n_steps for i in range(n_steps + 1)}
        if known is not None:
            probes.add(known)
        places = sorted(probes)

        def agrees(place: int) -> bool:
            return similar(self._target.at(axis, place), self._base.at(source, place - shift))

        n = line_of(axis, source)

        def agrees_alone(place: int) -> bool:
            line = self._target.line(axis, place, n)
            return similar(line, self._base.line(source, place - shift, n))

        if known is None and not any(
            agrees(place) and telling(self._target.at(axis, place))
            for place in places[:: len(places) - 1 or 1]
        ):
            return
        ours = self._target.all_at([(axis, place) for place in places])
        theirs = self._base.all_at([(source, place - shift) for place in places])
        good = [similar(one, other) for one, other in zip(ours, theirs, strict=True)]
        i = 0
        while i < len(places):
            if not good[i]:
                i += 1
                continue
            begin = places[i]
            if i:
                begin = _edge(places[i - 1], begin, agrees)
                begin = _trim(begin, axis.along if n else 0, 1, agrees_alone)
            while i + 1 < len(places) and good[i + 1]:
                i += 1
            end = places[i] + axis.along
            if i + 1 < len(places):
                end = _edge(places[i + 1], places[i], agrees) + axis.along
                end = _trim(end - 1, axis.along if n else 0, -1, agrees_alone) + 1
            self._add(axis, Stretch(begin, end, source, shift))
            i += 1

    def _add(self, axis: Axis, stretch: Stretch) -> None:
        """Keep what of a stretch is free."""
        begin, end = stretch.begin, stretch.end
        for known in sorted(self._stretches[axis]):
            if known.begin < end and begin < known.end:
                # Blocks at the edges may overlap; what is found first stays.
                if known.begin <= begin:
                    begin = known.end
                else:
                    end = known.begin
        if end - begin > axis.along // 2:
            self._stretches[axis].append(stretch._replace(begin=begin, end=end))

    def _covered(self, axis: Axis) -> int:
        return sum(stretch.end - stretch.begin for stretch in self._stretches.get(axis, ()))

    def _is_free(self, axis: Axis, place: int) -> bool:
        known = self._stretches.get(axis, ())
        return all(place >= s.end or place + axis.along // 2 <= s.begin for s in known)

    def _try_hint(self, k: int, source: int) -> None:
        """Look at leading and at trailing parts of a tensor of the right name."""
        for axis in axes_of(self._target.model.tensors[k], k):
            for theirs in axes_of(self._base.model.tensors[source], source):
                same = theirs.across == axis.across and theirs.other == axis.other
                if same and self._may_come(axis, theirs) and self._covered(axis) == 0:
                    for shift in sorted({0, axis.length - theirs.length}):
                        self._explore(axis, theirs, shift, None)

    def _alignment(self, axis: Axis, stretches: list[Stretch]) -> Alignment | None:
        """Put stretches and what lies between them as pieces, the whole axis long."""
        outer = axis.other if axis.across else 1
        unit = 1 if axis.across else axis.other
        pieces: list[Piece] = []
        pos = 0
        for stretch in [*stretches, None]:
            begin = axis.length if stretch is None else stretch.begin
            if begin > pos:
                pieces.append(Piece((begin - pos) * unit, -1, 0, 0, False))
            if stretch is None:
                break
            source = stretch.source
            inner = source.length if axis.across else n_items(self._base.model.tensors[source.k])
            first = (stretch.begin - stretch.shift) * unit
            width = (stretch.end - stretch.begin) * unit
            turned = source.across != axis.across
            pieces.append(Piece(width, source.k, inner, first, turned))
            pos = stretch.end
        return Alignment(outer, tuple(pieces)) if len(pieces) <= MAX_PIECES else None


def _telling(
    places: list[tuple[Axis, int]], blocks: Blocks
) -> list[tuple[Axis, int, NDArray[np.uint16]]]:
    """Sketch places, but leave out those that tell nothing."""
    sketches = zip(places, blocks.all_at(places), strict=True)
    return [(axis, place, block) for (axis, place), block in sketches if telling(block)]


def _edge(bad: int, good: int, agrees: Callable[[int], bool]) -> int:
    """Find the place next to `bad` that still agrees."""
    while abs(good - bad) > 1:
        middle = (bad + good) // 2
        if agrees(middle):
            good = middle
        else:
            bad = middle
    return good


def _trim(place: int, most: int, step: int, agrees: Callable[[int], bool]) -> int:
    """Leave out what a block at an edge has beyond it: its own rows do not agree."""
    for _ in range(most):
        if agrees(place):
            break
        place += step
    return place


def _places(axis: Axis, lengths: Sequence[int]) -> list[int]:
    """Choose where tensors of some lengths may begin in an axis, counted from either end."""
    last = axis.length - axis.along
    found = {0, last}
    for length in lengths:
        if length < axis.length:
            n = min(axis.length // length, _MOST_PLACES)
            found.update(i * length for i in range(1, n + 1))
            found.update(axis.length - i * length for i in range(1, n + 1))
    return sorted(place for place in found if 0 <= place <= last)[:_MOST_PLACES]


def _dense(axis: Axis) -> range:
    step = _STEP
    while axis.length > step * _MOST_DENSE:
        step *= 2
    return range(0, axis.length - axis.along + 1, step)
