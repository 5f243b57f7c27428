"""Factors found: a glance that mostly says no, then the product that explains a difference."""

from __future__ import annotations

from math import frexp, log2, sqrt
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from z4ai._fast import lowrank, sparse
from z4ai.lowrank.factors import MAX_EXPONENT, MAX_RANK, MIN_EXPONENT, Factors, predict

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

    Bytes = NDArray[np.uint8]
    Doubles = NDArray[np.float64]

__all__ = ["find_factors"]

# Smaller matrices do not pay for factors.
_LEAST_SIDE = 32
_LEAST_NBYTES = 1 << 13
# Rows of a sample, by bytes of the matrix: what is done grows with their cube.
_SAMPLES = ((1 << 26, 160), (1 << 24, 112), (1 << 22, 72), (0, 40))
# Of the squares of the singular values of noise, how far one may be above what is expected.
_EDGE = 1.7
# Of the mean square of a unit in the last place: less is nearly nothing.
_LEAST_ENERGY = 0.03
# Of all differences, squared: what the singular values that stand out must have.
_LEAST_SHARE = 0.35
_MANTISSA = {"fp16": 10, "bf16": 7, "fp32": 23, "fp64": 52}
_EXPONENT_BITS = {"fp16": 5, "bf16": 8, "fp32": 8, "fp64": 11}
# Vectors of the range finder beyond the rank that the glance saw.
_MORE = 8
# A singular value is no noise if it is so many times the largest of noise.
_STANDS_OUT = 1.3
# Multiply-adds of a sweep with weights of each row's own.
_EXACT_WORK = 1 << 31
_SHARED_STEP = 16
# Binary exponents by which elements must be larger to weigh less, by mean weights, which are none
# of the heaviest elements.
_EVEN = 4
_SWEEPS = 2
# Steps of precision that are tried: twice as coarse while numbers are too large, then finer by
# half a bit.
_COARSER, _FINER = 64, 26
# Elements that a choice of precision is judged by.
_JUDGED = 1 << 16
# Times that an error within the rounding of an element is forgiven, and how much of it.
_FORGIVING = 10
_FORGIVING_WORK = 1 << 28
_SLACK = 0.35
# Bytes of a record, its frame and its place beside its numbers.
_OVERHEAD_BITS = 8 * 250
# Of what the plain differences take: what factors must save, and what forgiving may mend.
_GAIN = 0.97
_HOPE = 1.3


class _Pair(NamedTuple):
    """Target and base, as matrices of bytes, and both transposed."""

    target: Bytes
    base: Bytes
    kind: int
    shape: tuple[int, int]

    def transposed(self, width: int) -> _Pair:
        rows, columns = self.shape
        word = f"<u{width}"
        turned = [
            np.ascontiguousarray(x.view(word).reshape(rows, columns).T).reshape(-1).view(np.uint8)
            for x in (self.target, self.base)
        ]
        return _Pair(turned[0], turned[1], self.kind, (columns, rows))

    def project(self, factor: Doubles) -> Doubles:
        found: Doubles = lowrank.project(self.target, self.base, self.kind, *self.shape, factor)
        return found


class _Product(NamedTuple):
    """Singular vectors, one a row, and values."""

    left: Doubles
    values: Doubles
    right: Doubles


class _Choice(NamedTuple):
    """Factors of one precision, and what they and the differences take, in bits."""

    bits: float
    factors: Factors
    step: float


def find_factors(
    target: NDArray[np.uint8], base: NDArray[np.uint8], dtype: DType, shape: tuple[int, int]
) -> Factors | None:
    """Find the product of thin matrices that explains how a matrix differs from its base.

    Parameters
    ----------
    target, base : ndarray of uint8
        Content of the matrices; aligned to their elements.
    dtype : DType
        Of both: ``fp16``, ``bf16``, ``fp32`` or ``fp64``.
    shape : tuple of int
        Rows and columns.

    Returns
    -------
    Factors or None
        None where the difference is not of low rank, or factors would not pay.

    Raises
    ------
    ValueError
        If sizes do not fit.

    Notes
    -----
    A no mostly costs a small sample's singular values. Memory: the transposes of both matrices,
    and factors of doubles.

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.dtypes import resolve
    >>> from z4ai.lowrank import find_factors
    >>> rng = np.random.default_rng(0)
    >>> base = rng.normal(0, 0.05, (256, 256)).astype(np.float32)
    >>> adapter = rng.normal(0, 0.05, (256, 2)) @ rng.normal(0, 0.05, (2, 256))
    >>> target = base + adapter.astype(np.float32)
    >>> flat = [x.reshape(-1).view(np.uint8) for x in (target, base)]
    >>> find_factors(*flat, resolve("fp32"), base.shape).rank
    2
    """
    kind = lowrank.KINDS.get(dtype.name)
    rows, columns = shape
    if kind is None or len(target) != rows * columns * dtype.width or len(base) != len(target):
        msg = f"no pair of {rows} x {columns} elements of {dtype.name}"
        raise ValueError(msg)
    if min(shape) < _LEAST_SIDE or len(target) < _LEAST_NBYTES:
        return None
    pair = _Pair(target, base, kind, shape)
    seen = _glance(pair)
    return None if seen is None else _Finder(pair, dtype).find(seen)


class _Glance(NamedTuple):
    """What a sample shows: a rank, and the mean square of what is noise."""

    rank: int
    noise: float


def _glance(pair: _Pair) -> _Glance | None:
    """Look at a small sample; None: nothing beyond rounding, or too much."""
    n = next(rows for nbytes, rows in _SAMPLES if len(pair.target) >= nbytes)
    found, most = _look(pair, n)
    # Some, but not all of the sample is beyond rounding: so it was too small.
    if found is not None and most < found.rank < 3 * most // 2:
        found, most = _look(pair, 2 * n)
    return found if found is not None and found.rank <= most else None


def _look(pair: _Pair, n: int) -> tuple[_Glance | None, int]:
    """Return what so many rows show, and the largest rank that they can."""
    rows, columns = pair.shape
    n = min(n, rows)
    across = min(2 * n, columns) // lowrank.RUN * lowrank.RUN
    sample = lowrank.Sample(pair.target, pair.base, pair.kind, rows, columns, n, across)
    most = 2 * min(sample.changed, across) // 3
    # Errors of rounding, twice where the base was rounded too; no more than there is at all.
    noise = min(sample.steps / 6, sample.energy)
    edge = _EDGE * noise * (sqrt(n) + sqrt(across)) ** 2
    rank = sample.above(edge)
    if rank == 0 or sample.energy < _LEAST_ENERGY * sample.steps:
        return None, most
    if rank <= most and _share(sample, edge, rank) < _LEAST_SHARE * sample.energy * n * across:
        return None, most
    return _Glance(rank, noise), most


def _share(sample: lowrank.Sample, edge: float, rank: int) -> float:
    """Return about the sum of the squares of singular values above an edge."""
    total, high, k = 0.0, sample.trace * 1.01, 0
    while k < rank:
        low = max(edge, high / 1.2)
        above = sample.above(low)
        total += (above - k) * sqrt(low * high)
        if low <= edge:
            break
        high, k = low, above
    return total


class _Finder:
    """One search."""

    def __init__(self, pair: _Pair, dtype: DType) -> None:
        self._pair, self._dtype = pair, dtype
        self._turned = pair.transposed(dtype.width)
        rows, columns = pair.shape
        n = max(1, min(rows, _JUDGED // columns))
        self._judged = np.arange(n) * rows // n
        take = [x.reshape(rows, -1)[self._judged].reshape(-1) for x in (pair.target, pair.base)]
        self._few_target, self._few_base = take
        field = take[1].view(f"<u{dtype.width}") >> _MANTISSA[dtype.name]
        self._top = int((field & (1 << _EXPONENT_BITS[dtype.name]) - 1).max())
        self._parts = rows / n
        self._plain = self._bits(self._few_base)

    def find(self, seen: _Glance) -> Factors | None:
        product = self._range(seen)
        if product is None:
            return None
        rows, columns = self._pair.shape
        energy = float((product.values**2).sum()) / (rows * columns)
        least = max(-500, min(500, frexp(sqrt(energy))[1] - 2))
        work = rows * columns * len(product.values)
        if not self._is_exact(len(product.values)):
            least += _EVEN
        best, product = self._improve(product, least)
        if best is None or best.bits > _HOPE * self._plain:
            return None
        for _ in range(max(1, min(_FORGIVING, _FORGIVING_WORK // work))):
            product = self._sweep(product, least, _SLACK)
        other, _ = self._shortest(product)
        if other is not None and other.bits < best.bits:
            best = other
        return best.factors if best.bits <= _GAIN * self._plain else None

    def _improve(self, product: _Product, least: int) -> tuple[_Choice | None, _Product]:
        """Make steps of least squares, of which one that goes astray is made anew, more evenly."""
        best, chosen = None, product
        for _ in range(_SWEEPS):
            product = self._sweep(chosen, least, 0.0)
            found = self._quantise(product)
            if found is not None and (best is None or found.bits < best.bits):
                best, chosen = found, product
            else:
                least += _EVEN
        return self._shortest(chosen)

    def _shortest(self, product: _Product) -> tuple[_Choice | None, _Product]:
        """Choose a precision, and leave out components that do not pay."""
        best = self._quantise(product)
        while best is not None and len(product.values) > 1:
            fewer = _Product(*(part[:-1] for part in product))
            other = self._judge(fewer, best.step)
            if other is None or other.bits >= best.bits:
                break
            best, product = other, fewer
        return best, product

    def _range(self, seen: _Glance) -> _Product | None:
        """Find the largest singular values and their vectors, as many as stand out."""
        rows, columns = self._pair.shape
        most = min(min(self._pair.shape) // 4, MAX_RANK)
        noise = sqrt(seen.noise) * (sqrt(rows) + sqrt(columns))
        q = min(seen.rank, most) + _MORE
        while True:
            found = self._leading(q)
            last, first = float(found.values[-1]), float(found.values[0])
            floor = max(_STANDS_OUT * last, 0.6 * noise, 1e-13 * first)
            n = int((found.values > floor).sum())
            if last <= _STANDS_OUT * noise and n <= q - _MORE // 2:
                return _Product(found.left[:n], found.values[:n], found.right[:n]) if n else None
            if q >= most:
                return None
            q = min(2 * q, most) + _MORE

    def _leading(self, q: int) -> _Product:
        factor = _signs(self._pair.shape[1], q)
        for again in (True, False):
            left = np.ascontiguousarray(self._pair.project(factor).T)
            lowrank.orthonormal(left)
            factor = self._turned.project(np.ascontiguousarray(left.T))
            if again:
                right = np.ascontiguousarray(factor.T)
                lowrank.orthonormal(right)
                factor = np.ascontiguousarray(right.T)
        return _singular(left, np.eye(q), np.ascontiguousarray(factor.T))

    def _is_exact(self, rank: int) -> bool:
        rows, columns = self._pair.shape
        return rows * columns * rank**2 <= _EXACT_WORK

    def _sweep(self, product: _Product, least: int, slack: float) -> _Product:
        """Improve both sides by weighted least squares."""
        root = np.sqrt(product.values)[:, None]
        left = np.ascontiguousarray((root * product.left).T)
        right = np.ascontiguousarray(root * product.right)
        exact = self._is_exact(len(root))
        step = 0 if exact else _SHARED_STEP

        def refine(pair: _Pair, one: Doubles, other: Doubles) -> None:
            target, base = pair.target, pair.base
            lowrank.refine(target, base, pair.kind, one, other, least, slack=slack, step=step)

        refine(self._pair, left, right)
        across, along = np.ascontiguousarray(right.T), np.ascontiguousarray(left.T)
        refine(self._turned, across, along)
        return _resolve(along, np.ascontiguousarray(across.T))

    # --- Precision --------------------------------------------------------------------------------

    def _bits(self, reference: Bytes) -> float:
        """Return what differences from a reference take, by a sample of rows."""
        counts = lowrank.count(self._few_target, reference, self._pair.kind, self._top)
        bits = sum(sparse.entropy(row) for row in counts if row.any()) / 65536
        level = np.arange(256) // 2
        g = 1 if self._dtype.width == 8 else 2
        apart = np.maximum((level >> g) - 1, 0)
        return (bits + float((counts.sum(axis=0) * apart).sum())) * self._parts

    def _quantise(self, product: _Product) -> _Choice | None:
        """Choose the step that minimises numbers and differences together."""
        rows, columns = self._pair.shape
        mantissa = _MANTISSA[self._dtype.name]
        # Exponents of typical elements tell a unit in the last place.
        values = self._few_base.view(f"<u{self._dtype.width}")
        bias = (1 << _EXPONENT_BITS[self._dtype.name] - 1) - 1
        field = values >> mantissa & (1 << _EXPONENT_BITS[self._dtype.name]) - 1
        unit = 2.0 ** (float(np.median(field)) - bias - mantissa)
        rank = len(product.values)
        # Such a step makes an error of about one and a half units.
        step = 1.5 * unit * sqrt(12 / (rank * (1 / rows + 1 / columns)))
        best = None
        for _ in range(_COARSER):
            best = self._judge(product, step)
            if best is not None:
                break
            step *= 2
        if best is None:
            return None
        worse = 0
        for _ in range(_FINER):
            step *= sqrt(0.5)
            found = self._judge(product, step)
            if found is not None and found.bits < best.bits:
                best, worse = found, 0
            elif found is None or worse == 2:
                break
            else:
                worse += 1
        return best

    def _judge(self, product: _Product, step: float) -> _Choice | None:
        best: _Choice | None = None
        for rounds in (False, True):
            factors = _integers(product, step, rounds=rounds)
            if factors is None:
                return None
            few = Factors(
                np.ascontiguousarray(factors.left[:, self._judged]),
                factors.right,
                factors.shifts,
                factors.exponent,
                rounds=rounds,
            )
            out = np.empty_like(self._few_base)
            predict(self._few_base, self._dtype, few, 0, len(self._judged), out)
            bits = self._bits(out) + _numbers_bits(factors)
            if best is None or bits < best.bits:
                best = _Choice(bits, factors, step)
        return best


def _signs(n: int, q: int) -> Doubles:
    """Return n x q numbers without a pattern, always the same."""
    state = np.arange(n * q, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state ^= state >> np.uint64(29)
    state *= np.uint64(0xBF58476D1CE4E5B9)
    state ^= state >> np.uint64(32)
    return ((state >> np.uint64(40)).astype(np.float64) - 2.0**23).reshape(n, q)


def _times(a: Doubles, b: Doubles) -> Doubles:
    """Return a @ b, its sums in order whatever the machine."""
    out = np.zeros((len(a), b.shape[1]))
    for k in range(len(b)):
        out += a[:, k, None] * b[k]
    return out


def _singular(left: Doubles, core: Doubles, right: Doubles) -> _Product:
    """Return singular vectors and values of left^T core right, left being orthonormal rows."""
    upper = lowrank.orthonormal(right)
    turned = np.ascontiguousarray(_times(core, np.ascontiguousarray(upper.T)))
    other = np.eye(len(left))
    lowrank.jacobi(turned, other)
    values = np.sqrt((turned**2).sum(axis=1))
    order = np.argsort(-values, kind="stable")
    values = values[order]
    rows = turned[order] / np.where(values > 0, values, 1.0)[:, None]
    return _Product(_times(other[order], left), values, _times(rows, right))


def _resolve(left: Doubles, right: Doubles) -> _Product:
    """Return singular vectors and values of left^T right."""
    upper = lowrank.orthonormal(left)
    return _singular(left, upper, right)


def _integers(product: _Product, step: float, *, rounds: bool) -> Factors | None:
    """Round the singular vectors times their values to multiples of about a step."""
    lefts, rights, exponents = [], [], []
    for value, left, right in zip(product.values, product.left, product.right, strict=True):
        exponent = round(log2(value / step**2)) if value > 0 else 0
        scale = sqrt(value * 2.0**exponent)
        sides = np.rint(left * scale), np.rint(right * scale)
        if max(float(np.abs(side).max()) for side in sides) >= 2.0**31:
            return None
        if not all(side.any() for side in sides):
            continue
        lefts.append(sides[0].astype(np.int32))
        rights.append(sides[1].astype(np.int32))
        exponents.append(-exponent)
    if not exponents:
        return None
    least = min(exponents)
    if not MIN_EXPONENT <= least <= MAX_EXPONENT or max(exponents) - least > 62:
        return None
    try:
        return Factors(
            np.array(lefts),
            np.array(rights),
            tuple(e - least for e in exponents),
            least,
            rounds=rounds,
        )
    except ValueError:
        return None


def _numbers_bits(factors: Factors) -> float:
    """Return about what factors take: as Gaussian numbers of the spread of their column."""
    bits = float(_OVERHEAD_BITS)
    for side in (factors.left, factors.right):
        squares = (side.astype(np.float64) ** 2).mean(axis=1) + 1 / 12
        bits += side.shape[1] * float((0.5 * np.log2(squares) + 2.047).sum())
    return bits
