"""Codec ``contexts``: symbols under static tables that their contexts choose, and those tables.

`decode` and `read_tables` follow ``docs/format/codecs/contexts.md``; `encode` and `write_tables`
write the very bytes of the kernel. Numbers are Python's own: nothing is rounded but where the
page says so.
"""

from __future__ import annotations

from collections.abc import Sequence

BITS = 12
TOTAL = 1 << BITS
LOW = 1 << 15  # of a state at rest
MAX_CONTEXTS = 64
PRECISIONS = range(2, 6)


def lanes(n: int) -> int:
    """Return the number of states of a stream of ``n`` symbols."""
    return 64 if n >= 1 << 18 else 16 if n >= 1 << 14 else 4 if n >= 1 << 11 else 1 if n else 0


# --- frequencies ----------------------------------------------------------------------------------


def normalise(weights: Sequence[int]) -> list[int]:
    """Return 256 frequencies of sum `TOTAL`, nearly proportional to 256 weights."""
    freqs = [0] * 256
    present = [s for s in range(256) if weights[s]]
    if len(present) < 2:
        only = present[0] if present else 0
        freqs[only], freqs[only ^ 1] = TOTAL - 1, 1
        return freqs
    total = sum(weights)
    for s in present:
        freqs[s] = -(-weights[s] * TOTAL // total)
    while sum(freqs) > TOTAL:
        able = [s for s in present if freqs[s] > 1]
        best = able[0]
        for s in able[1:]:
            if weights[s] * (2 * freqs[best] - 1) < weights[best] * (2 * freqs[s] - 1):
                best = s
        freqs[best] -= 1
    return freqs


def log2(v: int) -> int:
    """Return log2(v) in 1/65536, rounded down as the kernel rounds."""
    whole = v.bit_length() - 1
    x, log = v << (31 - whole), whole
    for _ in range(16):
        x = x * x >> 31
        log = 2 * log + (x >> 32)
        x >>= x >> 32
    return log


def cost(counts: Sequence[int], freqs: Sequence[int]) -> int:
    """Return what symbols of these counts take under a table, in 1/256 bit."""
    size = 0
    for count, freq in zip(counts, freqs, strict=True):
        if count:
            if not freq:
                raise ValueError("corrupt: a symbol without a frequency")
            size += count * ((BITS << 16) - log2(freq))
    return (size + 255) >> 8


# --- tables on the wire ---------------------------------------------------------------------------


class _Bit:
    """The probability of one kind of bit, learnt as it goes."""

    def __init__(self) -> None:
        self.p = 32768  # of a 1, in 1/65536
        self.seen = 0

    def learn(self, bit: int) -> None:
        if bit:
            self.p += (65536 - self.p) // (self.seen + 2)
        else:
            self.p -= self.p // (self.seen + 2)
        self.seen = min(self.seen + 1, 20)


class _Bits:
    """Binary arithmetic coder: a number between low and high stands for all bits to come."""

    def __init__(self, data: bytes | None = None) -> None:
        self.low, self.high = 0, 0xFFFFFFFF
        self.data = data  # read if given
        self.out = bytearray()
        self.at = 4
        self.value = int.from_bytes((data + bytes(4))[:4], "big") if data is not None else 0

    def code(self, p: int, bit: int) -> int:
        middle = self.low + ((self.high - self.low) * p >> 16)
        if self.data is not None:
            bit = int(self.value <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while self.low >> 24 == self.high >> 24:
            self.out.append(self.high >> 24)
            self.low = self.low << 8 & 0xFFFFFFFF
            self.high = self.high << 8 & 0xFFFFFFFF | 255
            if self.data is not None:
                following = self.data[self.at] if self.at < len(self.data) else 0
                self.value = self.value << 8 & 0xFFFFFFFF | following
                self.at += 1
        return bit

    def adapt(self, kind: _Bit, bit: int) -> int:
        bit = self.code(kind.p, bit)
        kind.learn(bit)
        return bit

    def close(self) -> bytes:
        """Return all bytes: of a reader, those that it should have been given."""
        if self.low:
            self.out.append((self.low >> 24) + 1)
        return bytes(self.out)


def _expected(left: int, up: int, corner: int) -> int:
    if left == 0 or up == 0:
        return max(left, up, 1)
    if corner == 0:
        return (left + up) // 2
    return sorted([left, up, left + up - corner])[1]


def _code_levels(bits: _Bits, table: list[list[int]], precision: int) -> None:
    some = [_Bit() for _ in range(4)]
    more = [[_Bit() for _ in range(9)] for _ in range(2)]
    below = [_Bit() for _ in range(10)]
    second = [_Bit() for _ in range(10)]
    for k, levels in enumerate(table):
        differed = 0
        for s in range(256):
            left = levels[s - 1] if s else 0
            if k:
                row = table[k - 1]
                up, corner = row[s], row[s - 1] if s else 0
                following = row[s + 1] if s < 255 else 0
            else:
                up = levels[s - 4] if s > 3 else 0
                corner = levels[s - 5] if s > 4 else 0
                following = 0
            neighbours = (left > 0) + (up > 0) + (following > 0)
            if not bits.adapt(some[neighbours], int(levels[s] > 0)):
                levels[s] = 0
                continue
            expected = _expected(left, up, corner)
            difference = levels[s] - expected
            magnitude = abs(difference)
            size = 0
            while size < 9 and bits.adapt(more[differed][size], int(magnitude >> size > 0)):
                size += 1
            differed = int(size > 0)
            value = 0
            if size:
                value = 1
                sign = bits.adapt(below[size], int(difference < 0))
                if size > 1:
                    value = 2 * value + bits.adapt(second[size], magnitude >> (size - 2) & 1)
                for i in range(size - 3, -1, -1):
                    value = 2 * value + bits.code(32768, magnitude >> i & 1)
                value = -value if sign else value
            levels[s] = expected + value
            if not 1 <= levels[s] <= 12 << precision:
                raise ValueError("corrupt: a level out of range")


def levels_of(counts: Sequence[int], precision: int) -> list[int]:
    """Return the levels that an encoder gives to counted symbols."""
    total, levels = sum(counts), [0] * 256
    for s, count in enumerate(counts):
        if count:
            weight = max(((count << (13 + precision)) // total + 1) >> 1, 1 << precision)
            exponent = weight.bit_length() - 1 - precision
            mantissa = (weight + (1 << exponent >> 1)) >> exponent
            level = (exponent << precision) + mantissa - (1 << precision) + 1
            levels[s] = min(level, 12 << precision)
    return levels


def freqs_of(levels: Sequence[int], precision: int) -> list[int]:
    """Return the table that levels stand for."""
    one = 1 << precision
    weights = [
        (one + (level - 1) % one) << (level - 1 >> precision) if level else 0 for level in levels
    ]
    return normalise(weights)


def write_tables(counts: Sequence[Sequence[int]], precision: int = 0) -> tuple[bytes, int]:
    """Return the description of tables, and the size of tables and symbols in 1/256 bit."""
    candidates = []
    for p in [precision] if precision else PRECISIONS:
        levels = [levels_of(row, p) for row in counts]
        size = sum(cost(row, freqs_of(level, p)) for row, level in zip(counts, levels, strict=True))
        bits = _Bits()
        _code_levels(bits, levels, p)
        data = bytes([len(counts) - 1 | p - 2 << 6]) + bits.close()
        candidates.append((size + 2048 * len(data), p, data))
    size, _, data = min(candidates)
    return data, size


def read_tables(data: bytes) -> list[list[int]]:
    """Return the tables of a description, a list of 256 frequencies for each context."""
    data = bytes(data)
    if not data:
        raise ValueError("truncated: no tables")
    precision = 2 + (data[0] >> 6)
    levels = [[0] * 256 for _ in range((data[0] & 63) + 1)]
    bits = _Bits(data[1:])
    _code_levels(bits, levels, precision)
    if len(bits.close()) > len(data) - 1:
        raise ValueError("truncated: tables end early")
    if bits.out != data[1:]:
        raise ValueError("corrupt: bytes behind tables, or other than they should be")
    return [freqs_of(row, precision) for row in levels]


# --- rare symbols ---------------------------------------------------------------------------------


def rare_symbols(counts: Sequence[Sequence[int]]) -> list[int]:
    """Return the symbols that an encoder codes apart; none if there is only one."""
    sums = [sum(row[s] for row in counts) for s in range(256)]
    rare = [s for s in range(256) if 0 < sums[s] < sum(sums) // TOTAL]
    return rare if len(rare) > 1 else []


def set_apart(symbols: bytes, rare: Sequence[int]) -> tuple[bytes, bytes]:
    """Return the symbols with an escape for each rare one, and the rare ones."""
    rest = bytes(s for s in symbols if s in rare)
    return bytes(min(rare) if s in rare else s for s in symbols), rest


def put_back(symbols: bytes, escape: int, rest: bytes) -> bytes:
    """Undo `set_apart`."""
    if symbols.count(escape) != len(rest):
        raise ValueError("corrupt: escapes and rare symbols differ in number")
    following = iter(rest)
    return bytes(next(following) if s == escape else s for s in symbols)


# --- symbols --------------------------------------------------------------------------------------


def _check(freqs: Sequence[Sequence[int]], contexts: bytes | None, n: int) -> bytes:
    if any(sum(row) != TOTAL or max(row) >= TOTAL for row in freqs):
        raise ValueError("corrupt: not a table")
    if len(freqs) == 1:
        return bytes(n)
    if contexts is None or len(contexts) != n or max(contexts, default=0) >= len(freqs):
        raise ValueError("corrupt: contexts without a table")
    return bytes(contexts)


def _begins(row: Sequence[int]) -> list[int]:
    begins = [0]
    for freq in row:
        begins.append(begins[-1] + freq)
    return begins


def encode(symbols: bytes, contexts: bytes | None, freqs: Sequence[Sequence[int]]) -> bytes:
    """Encode symbols, the last one first."""
    n = len(symbols)
    contexts = _check(freqs, contexts, n)
    begins = [_begins(row) for row in freqs]
    count = lanes(n)
    states = [LOW] * count
    words = []
    for i in range(n - 1, -1, -1):
        freq = freqs[contexts[i]][symbols[i]]
        if freq == 0:
            raise ValueError("corrupt: a symbol without a frequency")
        x = states[i % count]
        if x >= freq << 19:
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % count] = (x // freq << BITS) + x % freq + begins[contexts[i]][symbols[i]]
    head = b"".join(x.to_bytes(4, "little") for x in states)
    return head + b"".join(word.to_bytes(2, "little") for word in reversed(words))


def decode(data: bytes, contexts: bytes | None, n: int, freqs: Sequence[Sequence[int]]) -> bytes:
    """Decode ``n`` symbols."""
    data = bytes(data)
    contexts = _check(freqs, contexts, n)
    begins = [_begins(row) for row in freqs]
    owners = [[s for s in range(256) for _ in range(row[s])] for row in freqs]
    count = lanes(n)
    if len(data) < 4 * count:
        raise ValueError("truncated: no room for the states")
    states = [int.from_bytes(data[4 * i : 4 * i + 4], "little") for i in range(count)]
    if len(data) % 2 or any(not LOW <= x < 1 << 31 for x in states):
        raise ValueError("corrupt: an odd size, or a state out of range")
    at = 4 * count
    out = bytearray(n)
    for i in range(n):
        c, x = contexts[i], states[i % count]
        s = out[i] = owners[c][x % TOTAL]
        x = freqs[c][s] * (x >> BITS) + x % TOTAL - begins[c][s]
        if x < LOW:
            if at == len(data):
                raise ValueError("truncated: the words run out")
            x = x << 16 | int.from_bytes(data[at : at + 2], "little")
            at += 2
        states[i % count] = x
    if at != len(data) or any(x != LOW for x in states):
        raise ValueError("corrupt: words are left, or states not at rest")
    return bytes(out)
