"""Huffman trees of Zstandard literals: their codes, and their descriptions (RFC 8878, 4.1 and 4.2).

Bit streams are strings of ``0`` and ``1`` here, in the order in which a decoder takes the bits.
Trees are lists of code lengths, one a symbol up to the last that occurs; 0 for one that does not.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_LOG = 11  # longest Huffman code
MAX_WEIGHTS = 255  # the last symbol's is not written
DIRECT_WEIGHTS = 128
FSE_LOGS = (6, 5)  # accuracies of the weights' FSE code, in the order they are tried
FSE_NBYTES = 127
FSE_SYMBOLS = 13


def open_bits(data: bytes) -> str:
    """Return the bits of a stream that is read backwards: those below its highest set bit."""
    if not data or data[-1] == 0:
        raise ValueError("bit stream without its final marker")
    return bin(int.from_bytes(data, "little"))[3:]


def close_bits(bits: str) -> bytes:
    """Return the stream that `open_bits` reads as ``bits``."""
    return int("1" + bits, 2).to_bytes(len(bits) // 8 + 1, "little")


# --- 4.1: FSE -------------------------------------------------------------------------------------


def read_counts(data: bytes) -> tuple[list[int], int, int]:
    """Read the table description (4.1.1): probabilities, accuracy, bytes read."""
    bits = bin(int.from_bytes(data, "little") | 1 << (8 * len(data)))[:2:-1]  # lowest first
    pos = 0

    def take(n: int) -> int:
        nonlocal pos
        if pos + n > len(bits):
            raise ValueError("FSE table description ends early")
        pos += n
        return int(bits[pos - n : pos][::-1], 2)

    accuracy = take(4) + 5
    if accuracy > max(FSE_LOGS):
        raise ValueError(f"FSE accuracy {accuracy} of Huffman weights")
    left = 1 << accuracy
    counts: list[int] = []
    while left > 0:
        n = (left + 1).bit_length()
        spare = (1 << n) - 1 - (left + 1)  # so many small values do with a bit less
        value = take(n - 1)
        if value >= spare:
            value |= take(1) << (n - 1)
            if value >= 1 << (n - 1):
                value -= spare
        counts.append(value - 1)  # -1: less than 1, counts as 1
        left -= abs(value - 1)
        if value == 1:
            more = 3
            while more == 3:
                more = take(2)
                counts += [0] * more
        if len(counts) > FSE_SYMBOLS:
            raise ValueError("FSE symbol that is no weight")
    return counts, accuracy, (pos + 7) // 8


def spread_symbols(counts: Sequence[int], accuracy: int) -> list[int]:
    """Give each state its symbol."""
    size = 1 << accuracy
    states = [0] * size
    high = size
    for symbol, count in enumerate(counts):
        if count < 0:
            high -= 1
            states[high] = symbol
    pos = 0
    for symbol, count in enumerate(counts):
        for _ in range(count):
            states[pos] = symbol
            pos = (pos + (size >> 1) + (size >> 3) + 3) % size
            while pos >= high:
                pos = (pos + (size >> 1) + (size >> 3) + 3) % size
    return states


def decode_fse(data: bytes) -> list[int]:
    """Decode FSE-coded weights (4.2.1.2): two states in turn, until the bits run out."""
    counts, accuracy, head = read_counts(data)
    symbol_of = spread_symbols(counts, accuracy)
    following = [abs(count) for count in counts]
    table = []  # symbol, bits, base
    for symbol in symbol_of:
        x = following[symbol]
        following[symbol] += 1
        width = accuracy + 1 - x.bit_length()
        table.append((symbol, width, (x << width) - (1 << accuracy)))
    bits = open_bits(data[head:])
    if len(bits) < 2 * accuracy:
        raise ValueError("FSE stream without its two states")
    states = [int(bits[:accuracy], 2), int(bits[accuracy : 2 * accuracy], 2)]
    pos = 2 * accuracy
    weights: list[int] = []
    while True:
        if len(weights) + 2 > MAX_WEIGHTS:
            raise ValueError("more than 255 weights")
        turn = len(weights) % 2
        symbol, width, base = table[states[turn]]
        weights.append(symbol)
        if pos + width > len(bits):
            return [*weights, table[states[1 - turn]][0]]
        states[turn] = base + int("0" + bits[pos : pos + width], 2)
        pos += width


def scale_counts(counts: Sequence[int], accuracy: int) -> list[int]:
    """Scale counts to the sum 2^accuracy; what occurs keeps 1 at least."""
    total, size = sum(counts), 1 << accuracy
    scaled = [(max(1, (c * size + total // 2) // total) if c else 0) for c in counts]
    while sum(scaled) != size:
        sign = 1 if sum(scaled) > size else -1
        movable = [s for s, c in enumerate(counts) if c and not (sign > 0 and scaled[s] == 1)]
        worst = max(movable, key=lambda s: (sign * (scaled[s] * total - counts[s] * size), -s))
        scaled[worst] -= sign
    return scaled


def write_counts(counts: Sequence[int], accuracy: int) -> bytes:
    """Write the table description that `read_counts` reads."""
    value, n_bits = accuracy - 5, 4

    def put(v: int, n: int) -> None:
        nonlocal value, n_bits
        value |= v << n_bits
        n_bits += n

    left = 1 << accuracy
    symbol = 0
    while left > 0:
        n = (left + 1).bit_length()
        spare = (1 << n) - 1 - (left + 1)
        v = counts[symbol] + 1
        if v < spare:
            put(v, n - 1)
        else:
            put(v + spare if v >= 1 << (n - 1) else v, n)
        left -= counts[symbol]
        symbol += 1
        if v == 1:
            run = 0
            while counts[symbol + run] == 0:
                run += 1
            symbol += run
            while run >= 3:
                put(3, 2)
                run -= 3
            put(run, 2)
    return value.to_bytes((n_bits + 7) // 8, "little")


def encode_fse(weights: Sequence[int], accuracy: int) -> bytes:
    """Encode two weights or more, of two kinds at least."""
    counts = scale_counts([weights.count(s) for s in range(FSE_SYMBOLS)], accuracy)
    size = 1 << accuracy
    states_of: list[list[int]] = [[] for _ in counts]
    for state, symbol in enumerate(spread_symbols(counts, accuracy)):
        states_of[symbol].append(state)
    states = [0, 0]
    parts: list[str] = []  # as written; read in the opposite order
    for i in reversed(range(len(weights))):
        own = states_of[weights[i]]
        if i + 2 >= len(weights):
            states[i % 2] = own[0]  # the one that asks for most bits: the reader runs dry here
            continue
        x = states[i % 2] + size
        width = accuracy + 1 - len(own).bit_length()
        if x >> width < len(own):
            width -= 1
        parts.append(format(x, "b")[-width:] if width else "")
        states[i % 2] = own[(x >> width) - len(own)]
    parts += [format(state, f"0{accuracy}b") for state in (states[1], states[0])]
    return write_counts(counts, accuracy) + close_bits("".join(reversed(parts)))


# --- 4.2.1: tree description ----------------------------------------------------------------------


def read_tree(data: bytes) -> tuple[list[int], int]:
    """Read a tree description: code lengths, bytes read."""
    if not data:
        raise ValueError("no tree description")
    head = data[0]
    if head >= 128:
        n = head - 127
        nbytes = 1 + (n + 1) // 2
        nibbles = [half for byte in data[1:nbytes] for half in (byte >> 4, byte & 15)]
        weights = nibbles[:n]
    else:
        nbytes = 1 + head
        weights = decode_fse(data[1:nbytes]) if nbytes <= len(data) else []
    if nbytes > len(data):
        raise ValueError("tree description ends early")
    if max(weights) > MAX_LOG:
        raise ValueError(f"weight {max(weights)}")
    total = sum(1 << (w - 1) for w in weights if w)
    log = total.bit_length()
    rest = (1 << log) - total
    if total == 0 or log > MAX_LOG or rest & (rest - 1):
        raise ValueError("weights that make no tree")
    weights.append(rest.bit_length())
    if weights.count(1) < 2:
        raise ValueError("no code of the greatest length")
    return [log + 1 - w if w else 0 for w in weights], nbytes


def write_tree(lengths: Sequence[int]) -> bytes | None:
    """Write the smaller description of a tree, or None where there is none."""
    log = max(lengths)
    weights = [log + 1 - length if length else 0 for length in lengths[:-1]]
    best = None
    if len(weights) <= DIRECT_WEIGHTS:
        even = [*weights, 0]
        pairs = zip(even[::2], even[1::2], strict=False)
        best = bytes([127 + len(weights), *(a << 4 | b for a, b in pairs)])
    if len(set(weights)) < 2:
        return best
    for accuracy in FSE_LOGS:
        coded = encode_fse(weights, accuracy)
        if len(coded) <= FSE_NBYTES and (best is None or len(coded) + 1 < len(best)):
            best = bytes([len(coded)]) + coded
    return best


def codes(lengths: Sequence[int]) -> list[str]:
    """Give out codes from value 0, the longest first, then by symbol (4.2.1.3)."""
    found = [""] * len(lengths)
    log = max(lengths)
    at = 0
    for length in range(log, 0, -1):
        for symbol, own in enumerate(lengths):
            if own == length:
                found[symbol] = format(at >> (log - length), f"0{length}b")
                at += 1 << (log - length)
    return found


# --- the encoder's trees --------------------------------------------------------------------------


def code_lengths(counts: Sequence[int]) -> list[int]:
    """Return optimal code lengths of at most 11 bits; an empty list below two symbols."""
    keys = sorted((count, symbol) for symbol, count in enumerate(counts) if count)
    if len(keys) < 2:
        return []
    weights = [count for count, _ in keys]
    depths = _huffman(weights)
    if depths[0] > MAX_LOG:
        depths = _package_merge(weights)
    lengths = [0] * (1 + max(symbol for _, symbol in keys))
    for (_, symbol), depth in zip(keys, depths, strict=True):
        lengths[symbol] = depth
    return lengths


def _huffman(sorted_weights: Sequence[int]) -> list[int]:
    n = len(sorted_weights)
    weights = list(sorted_weights)
    parent = [0] * (2 * n - 1)
    leaf, inner = 0, n
    while len(weights) < 2 * n - 1:
        pair = []
        for _ in range(2):  # at equal weight the leaf first
            no_inner = inner >= len(weights)
            if no_inner or (leaf < n and weights[leaf] <= weights[inner]):
                pair.append(leaf)
                leaf += 1
            else:
                pair.append(inner)
                inner += 1
        for x in pair:
            parent[x] = len(weights)
        weights.append(weights[pair[0]] + weights[pair[1]])
    depths = [0] * (2 * n - 1)
    for x in range(2 * n - 3, -1, -1):
        depths[x] = depths[parent[x]] + 1
    return depths[:n]


def _package_merge(weights: Sequence[int]) -> list[int]:
    n = len(weights)
    levels: list[list[tuple[int, int]]] = []  # weight, 0 for a leaf and 1 for a package
    below: list[tuple[int, int]] = []
    for _ in range(MAX_LOG):
        packages = [(a + b, 1) for (a, _), (b, _) in zip(below[::2], below[1::2], strict=False)]
        below = sorted([(weight, 0) for weight in weights] + packages)  # leaves first at a tie
        levels.append(below)
    depths = [0] * n
    take = 2 * n - 2
    for level in reversed(levels):
        n_leaves = sum(kind == 0 for _, kind in level[:take])
        for i in range(n_leaves):
            depths[i] += 1
        take = 2 * (take - n_leaves)
    return depths
