"""Streams and tables of the context coder cut, flipped, forged: kernel and reference must agree."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from z4ai._fast import contexts
from z4ai._reference import contexts as reference


def generator(*seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def sample(n: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, bytes]:
    """Return symbols, contexts, the tables for them, and these tables as bytes."""
    rng = generator(n, count)
    context = rng.integers(0, count, n).astype(np.uint8)
    symbols = np.minimum(rng.geometric(0.1 + context / 100), 250).astype(np.uint8)
    counts = np.bincount(context.astype(np.int64) * 256 + symbols, minlength=count * 256)
    tables, _ = contexts.write_tables(counts.reshape(count, 256).astype(np.uint32))
    return symbols, context, contexts.read_tables(tables), tables


def kernel(data: bytes, context: np.ndarray, n: int, freqs: np.ndarray) -> bytes | int:
    """Return symbols or status; every variant must agree, whole and in tiles."""
    results: set[bytes | int] = set()
    for isa in contexts.variants():
        for tile in (0, 64):
            try:
                results.add(contexts.decode(data, context, n, freqs, tile=tile, isa=isa))
            except contexts.ContextsError as error:
                results.add(error.status)
    assert len(results) == 1, f"variants {contexts.variants()} differ"
    return results.pop()


def by_hand(data: bytes, context: np.ndarray, n: int, freqs: np.ndarray) -> bytes | int:
    try:
        return reference.decode(data, context.tobytes(), n, freqs.tolist())
    except ValueError as error:
        word = str(error).partition(":")[0]
        return {"corrupt": contexts.CORRUPT, "truncated": contexts.TRUNCATED}[word]


CASES = [(40, 1), (70, 3), (2050, 2), (2100, 1)]  # 1 and 4 lanes


@pytest.mark.parametrize(("n", "count"), CASES)
def test_every_prefix_is_refused(n: int, count: int) -> None:
    symbols, context, freqs, _ = sample(n, count)
    stream = contexts.encode(symbols, context, freqs)
    for size in range(len(stream)):
        result = kernel(stream[:size], context, n, freqs)
        odd = size % 2 and size > 4 * contexts.lanes(n)
        assert result == (contexts.CORRUPT if odd else contexts.TRUNCATED), size
    assert kernel(stream + b"\0\0", context, n, freqs) == contexts.CORRUPT
    assert kernel(stream + b"\0", context, n, freqs) == contexts.CORRUPT


@pytest.mark.parametrize(("n", "count"), CASES)
def test_every_bit_flip_is_read_as_by_hand(n: int, count: int) -> None:
    symbols, context, freqs, _ = sample(n, count)
    stream = contexts.encode(symbols, context, freqs)
    outcome: Counter[object] = Counter()
    for bit in range(8 * len(stream)):
        data = bytearray(stream)
        data[bit >> 3] ^= 1 << (bit & 7)
        result = kernel(bytes(data), context, n, freqs)
        if bit % (1 + n // 100) == 0:
            assert result == by_hand(bytes(data), context, n, freqs), bit
        assert result != symbols.tobytes(), "a bit that nothing depends on"
        outcome[result if isinstance(result, int) else "read"] += 1
    assert outcome[contexts.CORRUPT] > 0
    assert outcome["read"] <= 0.04 * 8 * len(stream), outcome  # nearly all show; no checksum


@pytest.mark.parametrize("n", [16384, 16400, 1 << 18, (1 << 18) + 5])
def test_many_lanes_damaged(n: int) -> None:
    symbols, context, freqs, _ = sample(n, 2)
    stream = contexts.encode(symbols, context, freqs)
    sizes = [0, 63, 64, 255, 256, 258, len(stream) // 2, *range(len(stream) - 8, len(stream))]
    for size in sizes:
        assert isinstance(kernel(stream[:size], context, n, freqs), int), size
    for bit in [31, 8 * len(stream) - 1, *generator(n).integers(0, 8 * len(stream), 12).tolist()]:
        data = bytearray(stream)
        data[bit >> 3] ^= 1 << (bit & 7)
        assert kernel(bytes(data), context, n, freqs) != symbols.tobytes()


@pytest.mark.parametrize("n", [1, 64, 2048, 16384, 20000, 1 << 18])
def test_noise(n: int) -> None:
    _, context, freqs, _ = sample(n, 4)
    for size in (4, 258, 2 * n, 4 * n):
        data = generator(n, size).integers(0, 256, size).astype(np.uint8)
        data[3 : 4 * contexts.lanes(n) : 4] &= 0x3F  # states in range
        data[2 : 4 * contexts.lanes(n) : 4] |= 0x01
        result = kernel(data.tobytes(), context, n, freqs)
        assert result in (contexts.CORRUPT, contexts.TRUNCATED)
        if n <= 20000:
            assert result == by_hand(data.tobytes(), context, n, freqs)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        (0, contexts.CORRUPT),
        ((1 << 15) - 1, contexts.CORRUPT),
        (1 << 15, None),
        ((1 << 31) - 1, None),
        (1 << 31, contexts.CORRUPT),
        ((1 << 32) - 1, contexts.CORRUPT),
    ],
)
def test_states_out_of_range(state: int, status: int | None) -> None:
    _, context, freqs, _ = sample(1, 1)
    try:
        contexts.decode(state.to_bytes(4, "little") + bytes(64), context, 1, freqs)
        found = "read"
    except contexts.ContextsError as error:
        found = str(error.status)
    assert found == str(status or contexts.CORRUPT)  # words are left in any case
    ends = kernel(state.to_bytes(4, "little"), context, 1, freqs)
    assert ends == by_hand(state.to_bytes(4, "little"), context, 1, freqs)


def test_nothing_is_a_stream_of_no_symbols() -> None:
    nothing = np.zeros(0, np.uint8)
    _, _, freqs, _ = sample(10, 3)
    assert contexts.encode(nothing, nothing, freqs) == b""
    assert kernel(b"", nothing, 0, freqs) == b""
    assert kernel(b"\0", nothing, 0, freqs) == contexts.CORRUPT
    assert kernel(b"\0\0", nothing, 0, freqs) == contexts.CORRUPT


@pytest.mark.parametrize("n", [5, 3000, 1 << 18])
def test_contexts_without_a_table(n: int) -> None:
    symbols, context, freqs, _ = sample(n, 3)
    stream = contexts.encode(symbols, context, freqs)
    for at in (0, n // 2, n - 1):
        for value in (3, 64, 255):
            bad = context.copy()
            bad[at] = value
            assert kernel(stream, bad, n, freqs) == contexts.CORRUPT
            for isa in contexts.variants():
                with pytest.raises(contexts.ContextsError) as caught:
                    contexts.encode(symbols, bad, freqs, isa=isa)
                assert caught.value.status == contexts.CORRUPT
    with pytest.raises(ValueError, match="no contexts"):
        contexts.decode(stream, None, n, freqs)
    with pytest.raises(ValueError, match="contexts for"):
        contexts.decode(stream, context[1:], n, freqs)


@pytest.mark.parametrize("n", [5, 3000, 20000, 1 << 18])
def test_symbols_without_a_frequency(n: int) -> None:
    symbols, context, freqs, _ = sample(n, 2)
    assert (freqs[:, 254] == 0).all()
    for at in (0, n // 2, n - 1):
        bad = symbols.copy()
        bad[at] = 254
        for isa in contexts.variants():
            for chosen, row in ((context, freqs), (None, freqs[:1])):
                with pytest.raises(contexts.ContextsError) as caught:
                    contexts.encode(bad, chosen, row, isa=isa)
                assert caught.value.status == contexts.CORRUPT


@pytest.mark.parametrize(
    "row", [{}, {0: 4096}, {0: 4095}, {0: 4095, 1: 2}, {0: 65535}, {0: 65535, 1: 4097}]
)
def test_what_is_not_a_table(row: dict[int, int]) -> None:
    freqs = np.zeros((2, 256), np.uint16)
    freqs[0, :2] = 2048
    freqs[1, list(row)] = list(row.values())
    one = np.zeros(1, np.uint8)
    with pytest.raises(contexts.ContextsError):
        contexts.encode(one, one, freqs)
    with pytest.raises(contexts.ContextsError):
        contexts.decode(b"\0\0\1\0", one, 1, freqs)


@pytest.mark.parametrize("shape", [(0, 256), (65, 256), (1, 255), (1, 257)])
def test_tables_of_another_shape(shape: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="shape"):
        contexts.encode(b"", None, np.zeros(shape, np.uint16))
    with pytest.raises(ValueError, match="shape"):
        contexts.decode(b"", None, 0, np.zeros(shape, np.uint16))
    with pytest.raises(ValueError, match="shape"):
        contexts.write_tables(np.zeros(shape, np.uint32))


def read_both(data: bytes) -> list[list[int]] | int:
    """Return tables or status; kernel and reference must agree."""
    try:
        tables: list[list[int]] | int = contexts.read_tables(data).tolist()
    except contexts.ContextsError as error:
        tables = error.status
    try:
        expected: list[list[int]] | int = reference.read_tables(data)
    except ValueError as error:
        word = str(error).partition(":")[0]
        expected = {"corrupt": contexts.CORRUPT, "truncated": contexts.TRUNCATED}[word]
    assert tables == expected
    return tables


@pytest.mark.parametrize("count", [1, 3])
def test_tables_cut_or_longer(count: int) -> None:
    _, _, freqs, tables = sample(3000, count)
    results = [read_both(tables[:size]) for size in range(len(tables))]
    assert freqs.tolist() not in results
    # a number that is cut off is a number: one in hundreds may be that of other tables
    assert sum(isinstance(result, int) for result in results) >= 0.95 * len(tables)
    for more in (b"\0", b"\xff", b"\0\0"):
        assert read_both(tables + more) == contexts.CORRUPT


@pytest.mark.parametrize("count", [1, 2])
def test_tables_flipped(count: int) -> None:
    _, _, freqs, tables = sample(3000, count)
    outcome: Counter[object] = Counter()
    for bit in range(8 * len(tables)):
        data = bytearray(tables)
        data[bit >> 3] ^= 1 << (bit & 7)
        result = read_both(bytes(data))
        outcome[result if isinstance(result, int) else "read"] += 1
        if not isinstance(result, int):
            assert all(sum(row) == 4096 and max(row) < 4096 for row in result)
            assert result != freqs.tolist()
    assert outcome[contexts.CORRUPT] > outcome["read"]


def test_tables_of_noise() -> None:
    for size in range(1, 400, 13):
        data = generator(size).integers(0, 256, size).astype(np.uint8)
        data[0] &= 0xC3
        read_both(data.tobytes())
    for fill in (0, 255):  # every symbol present, none
        for first in (0, 3, 0xC0):
            read_both(bytes([first]) + bytes([fill]) * 3000)
