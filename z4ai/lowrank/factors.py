"""Factors: on the wire, and what they predict."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai import _wire
from z4ai._fast import contexts, lowrank
from z4ai.errors import CorruptError, TruncatedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = ["Factors", "decode_factors", "encode_factors", "predict"]

MAX_RANK = 1024
MAX_NUMBERS = 1 << 25
MIN_EXPONENT, MAX_EXPONENT = -900, 400
MAX_SHIFT = 62
MAX_LOW_BITS = 24
# Sums of products stay below this: two halves of them are exact in doubles.
_MOST = 1 << 62
# Below this one sum is.
_EXACT = 1 << 53
_HALF_BITS = 12
_ROUNDS = 1
# Rows of left factors that are held as doubles at a time.
_ROWS = 1024


class Factors:
    """Two thin matrices of integers whose product, scaled, is added to a base.

    Parameters
    ----------
    left : ndarray of int32
        Rank x rows: a component is contiguous.
    right : ndarray of int32
        Rank x columns.
    shifts : tuple of int
        Component k counts 2**shifts[k] times.
    exponent : int
        The product is multiplied by 2**exponent.
    rounds : bool
        Whether the product is rounded to the dtype before it is added.

    Raises
    ------
    ValueError
        If a prediction by these would not be exact.
    """

    def __init__(
        self,
        left: NDArray[np.int32],
        right: NDArray[np.int32],
        shifts: tuple[int, ...],
        exponent: int,
        *,
        rounds: bool = False,
    ) -> None:
        if left.shape[0] != right.shape[0] or len(shifts) != left.shape[0] or not shifts:
            msg = f"left {left.shape}, right {right.shape} and {len(shifts)} shifts do not fit"
            raise ValueError(msg)
        if not MIN_EXPONENT <= exponent <= MAX_EXPONENT:
            msg = f"exponent {exponent} is not {MIN_EXPONENT} to {MAX_EXPONENT}"
            raise ValueError(msg)
        self.left, self.right = left, right
        self.shifts, self.exponent, self.rounds = shifts, exponent, rounds
        self._bound = sum(
            _largest(a) * _largest(b) << c for a, b, c in zip(left, right, shifts, strict=True)
        )
        if self._bound >= _MOST:
            msg = f"sums of products reach {self._bound}, expected less than 2**62"
            raise ValueError(msg)

    @property
    def rank(self) -> int:
        """Number of components."""
        return len(self.shifts)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the matrix."""
        return self.left.shape[1], self.right.shape[1]

    @cached_property
    def right_as_doubles(self) -> NDArray[np.float64]:
        return self.right.astype(np.float64)

    def left_as_doubles(
        self, first: int, n: int
    ) -> tuple[NDArray[np.float64] | None, NDArray[np.float64]]:
        """Return the left factors of some rows as rows of doubles: high halves if needed, low."""
        # A component without a number that is not zero may have any shift.
        shifts = [c if self.left[k].any() else 0 for k, c in enumerate(self.shifts)]
        rows = self.left[:, first : first + n].T.astype(np.int64)
        rows <<= np.array(shifts, np.int64)
        if self._bound < _EXACT:
            return None, rows.astype(np.float64, order="C")
        low = rows & (1 << _HALF_BITS) - 1
        high = rows >> _HALF_BITS
        return high.astype(np.float64, order="C"), low.astype(np.float64, order="C")


def _largest(numbers: NDArray[np.int32]) -> int:
    return max(int(numbers.max()), -int(numbers.min()))


def predict(
    base: NDArray[np.uint8],
    dtype: DType,
    factors: Factors,
    first_row: int,
    n_rows: int,
    out: NDArray[np.uint8],
) -> None:
    """Add the product of factors to rows of a base; the same bits on every machine.

    Parameters
    ----------
    base : ndarray of uint8
        Content of the rows.
    dtype : DType
        ``fp16``, ``bf16``, ``fp32`` or ``fp64``.
    factors : Factors
        Of the whole matrix.
    first_row, n_rows : int
        The rows.
    out : ndarray of uint8
        Takes the prediction; as large as `base`, not overlapping it.

    Raises
    ------
    ValueError
        If dtype, rows or sizes do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.dtypes import resolve
    >>> from z4ai.lowrank import Factors, predict
    >>> left, right = np.array([[3, -2]], np.int32), np.array([[64, 1]], np.int32)
    >>> factors = Factors(left, right, (0,), -6)
    >>> base = np.ones((2, 2), np.float32)
    >>> out = np.empty_like(base)
    >>> flat = base.reshape(-1).view(np.uint8), out.reshape(-1).view(np.uint8)
    >>> predict(flat[0], resolve("fp32"), factors, 0, 2, flat[1])
    >>> out.tolist()
    [[4.0, 1.046875], [-1.0, 0.96875]]
    """
    kind = lowrank.KINDS.get(dtype.name)
    rows, columns = factors.shape
    if kind is None or not 0 <= first_row <= first_row + n_rows <= rows:
        msg = f"no prediction of {n_rows} rows from {first_row} of {rows} in {dtype.name}"
        raise ValueError(msg)
    pitch = columns * dtype.width
    if len(base) != n_rows * pitch or len(out) != len(base):
        msg = f"base has {len(base)} bytes, out {len(out)}, expected {n_rows * pitch}"
        raise ValueError(msg)
    for at in range(0, n_rows, _ROWS):
        n = min(_ROWS, n_rows - at)
        high, low = factors.left_as_doubles(first_row + at, n)
        part = slice(at * pitch, (at + n) * pitch)
        lowrank.predict(
            base[part],
            kind,
            low,
            factors.right_as_doubles,
            factors.exponent,
            out[part],
            high=high,
            rounds=factors.rounds,
        )


# --- On the wire ----------------------------------------------------------------------------------


class _Column(NamedTuple):
    """Numbers of one side of one component."""

    symbols: NDArray[np.uint8]
    bits: NDArray[np.uint8]
    n_low: int


def _columns(factors: Factors) -> list[NDArray[np.int32]]:
    pairs = zip(factors.left, factors.right, strict=True)
    return [column for pair in pairs for column in pair]


def _split(numbers: NDArray[np.int32]) -> _Column:
    n_low = max(0, int((_largest(numbers) | 1).bit_length()) - 7)
    if int(numbers.max()) >> n_low > 127 or int(numbers.min()) >> n_low < -128:
        n_low += 1
    symbols = (numbers >> n_low).astype(np.int8).view(np.uint8)
    bits = numbers[:, None] >> np.arange(n_low, dtype=np.int32) & 1
    return _Column(symbols, bits.astype(np.uint8).ravel(), n_low)


def _code(columns: list[_Column], n_tables: int) -> tuple[bytes, bytes, bytes]:
    """Return tables, contexts and the stream of symbols, with columns of like spread together."""
    spread = [
        np.abs(c.symbols.view(np.int8).astype(np.int32)).sum() / len(c.symbols) for c in columns
    ]
    order = sorted(range(len(columns)), key=spread.__getitem__)
    of_column = np.zeros(len(columns), np.uint8)
    for rank, k in enumerate(order):
        of_column[k] = rank * n_tables // len(columns)
    counts = np.zeros((n_tables, 256), np.uint32)
    for k, column in enumerate(columns):
        counts[of_column[k]] += np.bincount(column.symbols, minlength=256).astype(np.uint32)
    tables, _ = contexts.write_tables(counts)
    symbols = np.concatenate([c.symbols for c in columns])
    lengths = [len(c.symbols) for c in columns]
    where = np.repeat(of_column, lengths) if n_tables > 1 else None
    stream = contexts.encode(symbols, where, contexts.read_tables(tables))
    return tables, of_column.tobytes() if n_tables > 1 else b"", stream


def encode_factors(factors: Factors) -> bytes:
    """Encode factors, near their entropy.

    Returns
    -------
    bytes
        The record of docs/format/codecs/lowrank.md.

    Raises
    ------
    ValueError
        If the format has no room for factors so large.
    """
    rows, columns = factors.shape
    numbers = (rows + columns) * factors.rank
    if factors.rank > MAX_RANK or numbers > min(MAX_NUMBERS, rows * columns):
        msg = f"factors of rank {factors.rank} for {rows} x {columns} elements"
        raise ValueError(msg)
    split = [_split(column) for column in _columns(factors)]
    coded = [_code(split, n) for n in (1, 2, 4) if n <= len(split)]
    tables, where, stream = min(coded, key=lambda c: sum(map(len, c)))
    fixed = bytearray(_wire.put_varint(factors.rank))
    fixed.append(_ROUNDS if factors.rounds else 0)
    fixed += factors.exponent.to_bytes(2, "little", signed=True)
    fixed += bytes(factors.shifts)
    fixed += bytes([column.n_low for column in split])
    fixed += _wire.put_varint(len(tables)) + tables + where
    fixed += _wire.put_varint(len(stream)) + stream
    bits = np.packbits(np.concatenate([c.bits for c in split]), bitorder="little")
    return bytes(fixed) + bits.tobytes()


class _Reader:
    def __init__(self, buf: memoryview) -> None:
        self._buf, self.at = buf, 0

    def take(self, n: int) -> memoryview:
        if n > len(self._buf) - self.at:
            msg = f"factors end after {len(self._buf)} bytes, expected {n} at {self.at}"
            raise TruncatedError(msg, offset=self.at)
        self.at += n
        return self._buf[self.at - n : self.at]

    def varint(self) -> int:
        value, self.at = _wire.get_varint(self._buf, self.at, len(self._buf))
        return value

    def end(self) -> None:
        if self.at != len(self._buf):
            msg = f"{len(self._buf) - self.at} bytes behind the factors"
            raise CorruptError(msg, offset=self.at)


def _corrupt(message: str) -> CorruptError:
    return CorruptError(f"factors: {message}")


def decode_factors(buf: Any, shape: tuple[int, int]) -> Factors:
    """Decode factors of a matrix of so many rows and columns.

    Parameters
    ----------
    buf : buffer
        The record, as `encode_factors` makes it.
    shape : tuple of int
        Rows and columns of the matrix.

    Returns
    -------
    Factors

    Raises
    ------
    CorruptError, TruncatedError
        If the record breaks a rule. Memory is bounded by 24 bytes for each element of the matrix.

    Examples
    --------
    >>> import numpy as np
    >>> from z4ai.lowrank import Factors, decode_factors, encode_factors
    >>> numbers = np.arange(-8, 8, dtype=np.int32).reshape(2, 8)
    >>> factors = Factors(numbers, numbers, (0, 3), -20)
    >>> decode_factors(encode_factors(factors), (8, 8)).shifts
    (0, 3)
    """
    rows, columns = shape
    reader = _Reader(memoryview(buf).cast("B"))
    rank = reader.varint()
    if not 1 <= rank <= min(rows, columns, MAX_RANK):
        raise _corrupt(f"rank {rank} of {rows} x {columns} elements")
    n = (rows + columns) * rank
    if n > min(MAX_NUMBERS, rows * columns):
        raise _corrupt(f"{n} numbers for {rows} x {columns} elements")
    flags = reader.take(1)[0]
    if flags & ~_ROUNDS:
        raise _corrupt(f"reserved bits of flags {flags:#04x} are set")
    exponent = int.from_bytes(reader.take(2), "little", signed=True)
    shifts = tuple(reader.take(rank))
    n_low = bytes(reader.take(2 * rank))
    if max(shifts) > MAX_SHIFT or max(n_low) > MAX_LOW_BITS:
        raise _corrupt(f"shift {max(shifts)} or {max(n_low)} low bits")
    symbols = _decode_symbols(reader, rows, columns, rank)
    left = np.empty((rank, rows), np.int32)
    right = np.empty((rank, columns), np.int32)
    n_bits = sum(q * (columns if k & 1 else rows) for k, q in enumerate(n_low))
    packed = np.frombuffer(reader.take((n_bits + 7) // 8), np.uint8)
    reader.end()
    at = at_bit = 0
    for k, q in enumerate(n_low):
        column = (right if k & 1 else left)[k // 2]
        column[:] = symbols[at : at + len(column)].view(np.int8)
        at += len(column)
        column <<= q
        column += _low_bits(packed, at_bit, q, len(column))
        at_bit += q * len(column)
    try:
        return Factors(left, right, shifts, exponent, rounds=bool(flags & _ROUNDS))
    except ValueError as error:
        raise _corrupt(str(error)) from None


def _decode_symbols(reader: _Reader, rows: int, columns: int, rank: int) -> NDArray[np.uint8]:
    try:
        freqs = contexts.read_tables(reader.take(reader.varint()))
        where = None
        if len(freqs) > 1:
            of_column = np.frombuffer(reader.take(2 * rank), np.uint8)
            where = np.repeat(of_column, [rows, columns] * rank)
        n = (rows + columns) * rank
        decoded = contexts.decode(reader.take(reader.varint()), where, n, freqs)
    except contexts.ContextsError as error:
        raise _corrupt(str(error)) from None
    return np.frombuffer(decoded, np.uint8)


def _low_bits(packed: NDArray[np.uint8], at: int, q: int, n: int) -> NDArray[np.int32]:
    """Return n numbers of q bits that begin at a bit."""
    if q == 0:
        return np.zeros(n, np.int32)
    part = packed[at // 8 : (at + q * n + 7) // 8]
    bits = np.unpackbits(part, bitorder="little")[at % 8 :][: q * n].reshape(n, q)
    found = np.zeros(n, np.int32)
    for k in range(q):
        found |= bits[:, k].astype(np.int32) << k
    return found
