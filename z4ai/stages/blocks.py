"""Stage `blocks`: runs of equal records, a part for each field.

Specification: docs/format/codecs/blocks.md.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast import blocks
from z4ai.dtypes import OPAQUE, DType
from z4ai.errors import CorruptError
from z4ai.stages._part import Part, Split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from z4ai.stages._part import Decode

__all__ = [
    "BYTES",
    "BY_RATIO",
    "BY_RATIOS",
    "TRANSFORM",
    "Format",
    "Layout",
    "Run",
    "join",
    "n_parts",
    "split",
]

TRANSFORM = 20

# How the last field of blocks stands in its part, if not as it comes: by the ratio of the first two
# fields, or each half of a byte by the ratio of its sub-block.
BY_RATIO, BY_RATIOS = 1, 2

_MAX_FORMATS = 64
_MAX_WIDTH = 1 << 16
_MAX_PARAMS_NBYTES = (1 << 16) - 1
_ORDERED, _BY_SUB_BLOCKS = 128, 64
_RATIO_NBYTES = 2  # of each of the two fields whose ratio orders the last one
_LEAST_ORDERED_FIELDS = 3
# Where the last field is of sub-blocks: bytes of their scales, and of the field.
_SCALES_NBYTES, _SUB_BLOCKS_NBYTES = 12, 128
# Ordered fields change slowly: so many bytes are judged together.
_ORDERED_ROW = 4096
# Percent of a part that must be of rows of one length, for that to be its shape.
_OF_ONE_SHAPE = 75
_MAX_ROW = 1 << 20


class Format(NamedTuple):
    """Fields of a block.

    Attributes
    ----------
    fields : tuple of (DType, int)
        How each is coded, and its bytes.
    ordered : int
        How the last field is ordered: 0, `BY_RATIO` or `BY_RATIOS`.
    """

    fields: tuple[tuple[DType, int], ...]
    ordered: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of a block."""
        return sum(width for _, width in self.fields)


# What is not known to have fields.
BYTES = Format(((OPAQUE, 1),))


class Run(NamedTuple):
    """Blocks of one format, one behind the other.

    Attributes
    ----------
    format : Format
        Of each.
    n_blocks : int
        How many there are.
    row : int
        How many make a row of a tensor; 0 if there are none.
    """

    format: Format
    n_blocks: int
    row: int = 0

    @property
    def nbytes(self) -> int:
        """Bytes of the whole run."""
        return self.format.nbytes * self.n_blocks


class Layout:
    """What all the bytes of a content are: runs, and opaque bytes behind the last one.

    Parameters
    ----------
    runs : iterable of Run
        In the order of the content.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = _merged(runs)
        self._begins = [0]
        for run in self._runs:
            self._begins.append(self._begins[-1] + run.nbytes)

    def cut(self, begin: int, end: int) -> list[Run]:
        """Return what the bytes `begin` … `end` - 1 are; of blocks in part, just bytes."""
        found: list[Run] = []
        number = bisect_right(self._begins, begin) - 1
        while begin < end and number < len(self._runs):
            run = self._runs[number]
            size = run.format.nbytes
            stop = min(end, self._begins[number + 1])
            at = begin - self._begins[number]
            lead = min(-at % size, stop - begin)
            count = (stop - begin - lead) // size
            rest = stop - begin - lead - count * size
            found += [Run(BYTES, lead), Run(run.format, count, run.row), Run(BYTES, rest)]
            begin = stop
            number += 1
        found.append(Run(BYTES, end - begin))
        return _merged(found)

    def without(self, copies: NDArray[np.uint64], nbytes: int) -> Layout:
        """Return the layout of a content of so many bytes without the ranges that are copied."""
        runs: list[Run] = []
        begin = 0
        for dst, _, copied in copies.tolist():
            runs += self.cut(begin, dst)
            begin = dst + copied
        return Layout(runs + self.cut(begin, nbytes))


def _merged(runs: Iterable[Run]) -> list[Run]:
    """Put neighbours of one format together."""
    merged: list[Run] = []
    for run in runs:
        if not run.n_blocks:
            continue
        last = merged[-1] if merged else None
        if last is not None and last.format == run.format and last.row == run.row:
            merged[-1] = run._replace(n_blocks=last.n_blocks + run.n_blocks)
        else:
            merged.append(run)
    return merged


# --- Splitting ------------------------------------------------------------------------------------


def split(content: NDArray[np.uint8], runs: Sequence[Run]) -> Split | None:
    """Gather the fields of a chunk.

    Parameters
    ----------
    content : ndarray of uint8
        The chunk.
    runs : sequence of Run
        What it is made of, exactly.

    Returns
    -------
    Split or None
        None where the runs are too many to be described.
    """
    formats = list(dict.fromkeys(run.format for run in runs))
    if len(formats) > _MAX_FORMATS:
        return None
    owners, dtypes = _assign(formats, runs)
    described = [
        (form.ordered, [(owners[f, k], width) for k, (_, width) in enumerate(form.fields)])
        for f, form in enumerate(formats)
    ]
    numbers = [(formats.index(run.format), run.n_blocks) for run in runs]
    params = _params_of(described, numbers)
    if len(params) > _MAX_PARAMS_NBYTES:
        return None
    gathered = blocks.split(content, described, numbers, len(dtypes))
    parts = []
    for p, (dtype, part) in enumerate(zip(dtypes, gathered, strict=True)):
        mine = [key for key, owner in owners.items() if owner == p]
        row = 0
        if len(mine) == 1:
            ((f, k),) = mine
            row = _row_of(formats[f], k, [run for run in runs if run.format == formats[f]])
        shape = (-(-len(part) // (row * dtype.width)), row) if row else None
        parts.append(Part(dtype, part, shape))
    return Split(params, parts)


def _assign(
    formats: Sequence[Format], runs: Sequence[Run]
) -> tuple[dict[tuple[int, int], int], list[DType]]:
    """Give every field a part: its own, as far as there are enough, else one of its kind."""
    sizes = [sum(run.n_blocks for run in runs if run.format == form) for form in formats]
    groups: list[tuple[int, DType, bool, list[tuple[int, int]]]] = []
    for f, form in enumerate(formats):
        for k, (dtype, width) in enumerate(form.fields):
            fixed = form.ordered > 0 and k == len(form.fields) - 1
            groups.append((sizes[f] * width, dtype, fixed, [(f, k)]))
    while len(groups) > blocks.MOST_PARTS:
        loose = sorted((group for group in groups if not group[2]), key=lambda group: group[0])
        pairs = [(a, b) for i, a in enumerate(loose) for b in loose[i + 1 :] if a[1] == b[1]] or [
            (loose[0], loose[1])
        ]
        a, b = min(pairs, key=lambda pair: pair[0][0] + pair[1][0])
        groups = [group for group in groups if group is not a and group is not b]
        dtype = a[1] if a[1] == b[1] else OPAQUE
        groups.append((a[0] + b[0], dtype, False, sorted(a[3] + b[3])))
    groups.sort(key=lambda group: group[3])
    owners = {field: p for p, group in enumerate(groups) for field in group[3]}
    return owners, [group[1] for group in groups]


def _row_of(form: Format, k: int, runs: Sequence[Run]) -> int:
    """Elements of a row of the part of a field, if most of it is of one tensor's rows."""
    dtype, width = form.fields[k]
    if form.ordered and k == len(form.fields) - 1:
        return _ORDERED_ROW
    total: dict[int, int] = {}
    for run in runs:
        total[run.row] = total.get(run.row, 0) + run.n_blocks
    row = max(total, key=lambda row: (total[row], row))
    elements = row * width // dtype.width
    if total[row] * 100 < sum(total.values()) * _OF_ONE_SHAPE:
        return 0
    return elements if 1 < elements <= _MAX_ROW else 0


def _params_of(
    formats: list[tuple[int, list[tuple[int, int]]]], runs: list[tuple[int, int]]
) -> bytes:
    out = bytearray([len(formats)])
    for ordered, fields in formats:
        head = (0, _ORDERED, _ORDERED | _BY_SUB_BLOCKS)[ordered]
        out.append(len(fields) | head)
        for part, width in fields:
            out.append(part)
            out += _wire.put_varint(width)
    for f, count in runs:
        out.append(f)
        out += _wire.put_varint(count)
    return bytes(out)


# --- Joining --------------------------------------------------------------------------------------


class _Described(NamedTuple):
    """Parameters, checked.

    Attributes
    ----------
    formats, runs
        As the kernels take them.
    sizes : list of int
        Bytes of each part.
    nbytes : int
        Bytes of the content.
    """

    formats: list[tuple[int, list[tuple[int, int]]]]
    runs: list[tuple[int, int]]
    sizes: list[int]
    nbytes: int


def n_parts(params: memoryview) -> int:
    """Return the number of parts: one more than the highest that a field belongs to."""
    formats, _ = _parse_formats(params)
    return 1 + max(part for _, fields in formats for part, _ in fields)


def join(
    params: memoryview,
    parts: Decode,
    dtype: DType,
    nbytes: int,
    out: NDArray[np.uint8],
) -> None:
    """Restore a chunk from fields, as `Stage.join`; they have dtypes of their own."""
    described = _parse(params, nbytes)
    if described.nbytes != nbytes:
        msg = f"blocks of {described.nbytes} bytes, expected {nbytes}"
        raise CorruptError(msg)
    decoded = [parts(k, size) for k, size in enumerate(described.sizes)]
    blocks.join(decoded, described.formats, described.runs, out)


def _parse(params: memoryview, most: int) -> _Described:
    formats, pos = _parse_formats(params)
    per_block = []
    for _, fields in formats:
        sizes = [0] * blocks.MOST_PARTS
        for part, width in fields:
            sizes[part] += width
        per_block.append((sizes, sum(sizes)))
    counts = [0] * len(formats)
    runs = []
    nbytes = 0
    while pos < len(params):
        f = params[pos]
        count, pos = _wire.get_varint(params, pos + 1, len(params))
        if f >= len(formats) or count == 0:
            msg = f"run of {count} blocks of format {f}, expected one of {len(formats)}"
            raise CorruptError(msg)
        nbytes += count * per_block[f][1]
        if nbytes > most:
            msg = f"blocks exceed the {most} bytes of their chunk"
            raise CorruptError(msg)
        counts[f] += count
        runs.append((f, count))
    n = 1 + max(part for _, fields in formats for part, _ in fields)
    totals = [
        sum(c * sizes[p] for c, (sizes, _) in zip(counts, per_block, strict=True)) for p in range(n)
    ]
    return _Described(formats, runs, totals, nbytes)


def _parse_formats(
    params: memoryview,
) -> tuple[list[tuple[int, list[tuple[int, int]]]], int]:
    """Parse the formats; -> them, and where the runs begin."""
    n = params[0] if len(params) else 0
    if not 1 <= n <= _MAX_FORMATS:
        msg = f"{n} formats of blocks, expected 1 to {_MAX_FORMATS}"
        raise CorruptError(msg)
    formats = []
    users = [0] * blocks.MOST_PARTS
    alone = []
    pos = 1
    for _ in range(n):
        head = params[pos] if pos < len(params) else 0
        pos += 1
        n_fields = head & ~(_ORDERED | _BY_SUB_BLOCKS)
        ordered = BY_RATIOS if head & _BY_SUB_BLOCKS else BY_RATIO if head & _ORDERED else 0
        if ordered == BY_RATIOS and not head & _ORDERED:
            msg = "sub-blocks of blocks that are not ordered"
            raise CorruptError(msg)
        if not 1 <= n_fields <= blocks.MOST_FIELDS:
            msg = f"block of {n_fields} fields, expected 1 to {blocks.MOST_FIELDS}"
            raise CorruptError(msg)
        fields = []
        for _ in range(n_fields):
            part = params[pos] if pos < len(params) else 0
            width, pos = _wire.get_varint(params, pos + 1, len(params))
            if part >= blocks.MOST_PARTS or not 1 <= width <= _MAX_WIDTH:
                msg = f"field of part {part} and {width} bytes"
                raise CorruptError(msg)
            fields.append((part, width))
            users[part] += 1
        if ordered:
            ratio = [width for _, width in fields[:2]]
            if n_fields < _LEAST_ORDERED_FIELDS or ratio != [_RATIO_NBYTES] * 2:
                msg = f"ordered block of fields {fields}, expected a ratio and more"
                raise CorruptError(msg)
            if ordered == BY_RATIOS and (
                n_fields == _LEAST_ORDERED_FIELDS
                or (fields[2][1], fields[-1][1]) != (_SCALES_NBYTES, _SUB_BLOCKS_NBYTES)
            ):
                msg = f"ordered block of fields {fields}, expected scales and sub-blocks"
                raise CorruptError(msg)
            alone.append(fields[-1][0])
        formats.append((ordered, fields))
    if any(users[part] != 1 for part in alone):
        msg = "the part of an ordered field has other fields"
        raise CorruptError(msg)
    if 0 in users[: 1 + max(part for _, fields in formats for part, _ in fields)]:
        msg = "a part without fields"
        raise CorruptError(msg)
    return formats, pos
