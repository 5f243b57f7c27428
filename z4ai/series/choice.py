"""What a step is stored against: which steps are tried, and which of them is the best by a sample.

A step is tried against the one before it in its stream, against the keyframe that one goes back
to, and against what holds the same tensors at the same step in another stream: a bf16 copy is
nothing but the cast of its fp32 master. A sample of the tensors tells which of them is worth it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai import model_delta
from z4ai._wire import U64
from z4ai.container import st_header
from z4ai.container.st_header import Tensor
from z4ai.safetensors import compress_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from z4ai.align import TensorSource
    from z4ai.series.manifest import Manifest, Step

__all__ = [
    "Bases",
    "Estimate",
    "Related",
    "candidates",
    "estimate",
    "related",
    "step_of",
    "stream_name",
]

# Numbers that names of checkpoints hold: step00050, checkpoint-500, epoch_3, …
_NUMBER = re.compile(r"(?:step|iter|iteration|epoch|ckpt|checkpoint)[-_ ]?(\d{1,18})(?!\d)", re.I)
# A sample: that many runs, of that many bytes together.
_RUNS = 16
_SAMPLE_NBYTES = 2 << 20
# Elements of a row at most, where a tensor has more dimensions to tell rows by.
_MOST_ROW = 1 << 18
# Share of the elements that makes two models kin.
_ALIKE = 0.5
# Share that makes it worth a try where names tell nothing: of such a model much has changed.
_SHAPED = 0.25
# Of names of streams that nobody chose; in any of UTF-8 short enough to be one.
_STREAM_CHARS = 40
# Streams whose last step is looked at.
_MOST_STREAMS = 16
# What a step more to read must save.
_PER_DEPTH = 0.01


def step_of(name: str) -> int | None:
    """Return the number that a name ends its ``step…`` with; None if it holds none."""
    found = _NUMBER.findall(name)
    return int(found[-1]) if found else None


class Related(NamedTuple):
    """A stream, by how much a model resembles its last step.

    Attributes
    ----------
    stream : str
        The stream.
    same : float
        Share of the elements that lie in tensors of the same name, shape and dtype.
    alike : float
        The same whatever the dtype.
    shaped : float
        The same whatever the name.
    """

    stream: str
    same: float
    alike: float
    shaped: float


def related(
    tensors: Sequence[Tensor],
    steps: Sequence[Step],
    tensors_of: Callable[[Step], Sequence[Tensor]],
) -> list[Related]:
    """Compare a model with the last step of each stream, those of late ones."""
    last: dict[str, Step] = {}
    for step in reversed(steps):
        if step.stream not in last and len(last) < _MOST_STREAMS:
            last[step.stream] = step
    found = []
    total = sum(map(_n_elements, tensors)) or 1
    for stream, step in last.items():
        model = tensors_of(step)
        theirs = {tensor.name: tensor for tensor in model}
        alike = [t for t in tensors if t.name in theirs and t.shape == theirs[t.name].shape]
        same = [t for t in alike if t.dtype == theirs[t.name].dtype]
        left = Counter((tensor.dtype, tensor.shape) for tensor in model)
        shaped = []
        for tensor in tensors:
            if left[tensor.dtype, tensor.shape]:
                left[tensor.dtype, tensor.shape] -= 1
                shaped.append(tensor)
        shares = [sum(map(_n_elements, matched)) / total for matched in (same, alike, shaped)]
        found.append(Related(stream, *shares))
    return found


def _n_elements(tensor: Tensor) -> int:
    count = 1
    for extent in tensor.shape:
        count *= extent
    return count


def stream_name(
    name: str, tensors: Sequence[Tensor], found: Sequence[Related], taken: Sequence[Step]
) -> str:
    """Name the stream of a model: one that it resembles, or a new one.

    A new one is called what is left of the step's name without its number, or else after the
    dtype that has most bytes.
    """
    best = max(found, key=lambda r: r.same, default=None)
    if best is not None and best.same >= _ALIKE:
        return best.stream
    nbytes: dict[str, int] = {}
    for tensor in tensors:
        nbytes[tensor.dtype] = nbytes.get(tensor.dtype, 0) + tensor.nbytes
    code = max(nbytes, key=lambda dtype: nbytes[dtype], default="empty")
    plain = re.sub(r"([._ -])[._ -]+", r"\1", _NUMBER.sub("", name)).strip("._- ")
    if not plain:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", code)[:32].lstrip("_") or "other"
    plain = plain[:_STREAM_CHARS]
    names = {step.stream for step in taken}
    number, stream = 1, plain
    while stream in names:
        number += 1
        stream = f"{plain}-{number}"
    return stream


def candidates(
    manifest: Manifest,
    stream: str,
    number: int | None,
    found: Sequence[Related],
    max_depth: int,
) -> Bases:
    """Find the steps that may be the base of one to be stored.

    Copies of a step in another dtype cost nothing against it, so the deltas of a stream leave
    them the last place of a chain.
    """
    kin = [r.stream for r in found if r.stream != stream and r.alike >= _ALIKE]
    limit = max(max_depth - 1, min(max_depth, 1)) if kin else max_depth
    allowed: list[Step] = []
    usual = None
    same = [step for step in manifest.steps if step.stream == stream]
    before = _nearest(same, number)
    if before is not None:
        chain = manifest.chain(before)
        shallow = [step for step in chain if step.depth < limit]
        allowed += [*shallow[:1], *shallow[-1:]]
        # A chain of its own: copies go as deep as what they are copies of.
        own = len(chain) > 1 and chain[1].stream == stream
        if own and before.depth >= limit and before.original_nbytes:
            usual = before.encoded_nbytes / before.original_nbytes
    for other in kin:
        theirs = [step for step in manifest.steps if step.stream == other]
        if number is not None:
            now = [step for step in theirs if step.step in (number, None)]
            nearest = _nearest(theirs, number)
            theirs = now if now or before or nearest is None else [nearest]
        allowed += [step for step in theirs[-1:] if step.depth < max_depth]
    renamed = None
    if not allowed:
        best = max(found, key=lambda r: r.shaped, default=None)
        if best is not None and best.shaped >= _SHAPED:
            renamed = _nearest([s for s in manifest.steps if s.stream == best.stream], number)
            if renamed is not None and renamed.depth >= max_depth:
                renamed = None
    return Bases(tuple(dict.fromkeys(allowed)), limit, usual, renamed)


def _nearest(steps: Sequence[Step], number: int | None) -> Step | None:
    """Return the step before a number, else the one behind it; without a number the last one."""
    if number is not None:
        numbered = [step for step in steps if step.step is not None]
        before = [step for step in numbered if step.step <= number]  # type: ignore[operator]
        if before:
            return max(reversed(before), key=_number)
        if numbered:
            return min(reversed(numbered), key=_number)
    return steps[-1] if steps else None


def _number(step: Step) -> int:
    return step.step if step.step is not None else -1


class Bases(NamedTuple):
    """Steps that may be the base of another.

    Attributes
    ----------
    steps : tuple of Step
        Those worth a try.
    limit : int
        How deep a delta in its own stream may lie.
    usual : float or None
        Where the chain of the step before has become too deep: the share of its size that a delta
        in this stream leaves, by that step.
    renamed : Step or None
        If there are no such steps: one that may hold the same tensors under other names, as far as
        shapes tell.
    """

    steps: tuple[Step, ...]
    limit: int
    usual: float | None
    renamed: Step | None


class Estimate(NamedTuple):
    """What a step would cost.

    Attributes
    ----------
    base : Step or None
        Against what; None: as a keyframe.
    share : float
        Share of its size that is left.
    """

    base: Step | None
    share: float

    def cost(self, limit: int, usual: float | None) -> float:
        """Return the share that is left, and something for each step that has to be read.

        Where a chain has to begin again, it is that of this step and of those that can follow it,
        on average: what lies higher costs more now and saves later.
        """
        depth = 0 if self.base is None else self.base.depth + 1
        share = self.share
        if usual is not None:
            follow = max(limit - depth, 0)
            share = (share + follow * usual) / (follow + 1)
        return share * (1 + _PER_DEPTH * depth)


def estimate(
    target: TensorSource,
    bases: Bases,
    model_of: Callable[[Step], TensorSource | None],
    effort: str,
    threads: int | None,
) -> list[Estimate]:
    """Estimate what each base makes of a model, and what a keyframe does; the cheapest first."""
    runs = _runs(target.tensors)
    content = _sample(target, target.tensors, runs)
    tier = "fast" if effort == "fast" else "balanced"
    whole = compress_bytes(content, effort=tier, threads=threads)
    found = [Estimate(None, len(whole) / len(content))]
    for base in bases.steps:
        model = model_of(base)
        if model is None:
            continue
        theirs = {tensor.name: k for k, tensor in enumerate(model.tensors)}
        rows: list[tuple[int, int, int]] = []
        matched: list[tuple[int, int, int]] = []
        for k, begin, end in runs:
            tensor = target.tensors[k]
            other = theirs.get(tensor.name)
            if other is None or model.tensors[other].shape != tensor.shape:
                continue
            if _n_rows(model.tensors[other]) != _n_rows(tensor):
                continue
            rows.append((k, begin, end))
            matched.append((other, begin, end))
        if not rows:
            continue
        part = content if len(rows) == len(runs) else _sample(target, target.tensors, rows)
        names = [_name(*row) for row in rows]
        reference = _sample(model, model.tensors, matched, names)
        delta = model_delta.compress(part, reference, effort=tier, threads=threads)
        # What has no counterpart costs what it costs in a keyframe.
        rest = (len(content) - len(part)) * found[0].share
        found.append(Estimate(base, (len(delta) + rest) / len(content)))
    return sorted(found, key=lambda e: e.cost(bases.limit, bases.usual))


def _runs(tensors: Sequence[Tensor]) -> list[tuple[int, int, int]]:
    """Choose runs of rows from all over a model; -> tensor, first row, one past the last."""
    ends = list(accumulate(tensor.nbytes for tensor in tensors))
    total = ends[-1] if ends else 0
    if total <= _SAMPLE_NBYTES:
        return [(k, 0, _n_rows(tensor)) for k, tensor in enumerate(tensors) if tensor.nbytes]
    found = set()
    for run in range(_RUNS):
        k = bisect_right(ends, total * (2 * run + 1) // (2 * _RUNS))
        n = _n_rows(tensors[k])
        take = max(1, min(n, _SAMPLE_NBYTES // _RUNS * n // tensors[k].nbytes))
        at = total * (2 * run + 1) // (2 * _RUNS) - (ends[k] - tensors[k].nbytes)
        # On a grid, so that no two runs of a tensor overlap.
        begin = min(at * n // tensors[k].nbytes // take * take, n - take)
        found.add((k, begin, begin + take))
    return sorted(found)


def _n_rows(tensor: Tensor) -> int:
    """Count the rows that can be told apart: those of whole bytes."""
    rows = prod(tensor.shape[: _n_outer(tensor)])
    return rows if rows and tensor.nbytes % rows == 0 else 1


def _n_outer(tensor: Tensor) -> int:
    """Count the dimensions that rows are counted by: so many that no row is large."""
    n = 1
    while n < len(tensor.shape) and prod(tensor.shape[n:]) > _MOST_ROW:
        n += 1
    return n


def _name(k: int, begin: int, end: int) -> str:
    return f"{k}.{begin}.{end}"


def _sample(
    model: TensorSource,
    tensors: Sequence[Tensor],
    runs: Sequence[tuple[int, int, int]],
    names: Sequence[str] | None = None,
) -> bytes:
    """Make a small `.safetensors` file of runs of rows."""
    header: list[Tensor] = []
    parts = []
    at = 0
    for place, (k, begin, end) in enumerate(runs):
        tensor = tensors[k]
        n = _n_rows(tensor)
        row = tensor.nbytes // n
        whole = begin == 0 and end == n
        shape = tensor.shape if whole else (end - begin, *tensor.shape[_n_outer(tensor) :])
        data = model.read(k, begin * row, end * row)
        name = _name(k, begin, end) if names is None else names[place]
        header.append(Tensor(name, tensor.dtype, shape, at, at + len(data)))
        parts.append(np.asarray(data).tobytes())
        at += len(data)
    text = st_header.write(header, None)
    return b"".join([U64.pack(len(text)), text, *parts])
