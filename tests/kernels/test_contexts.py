"""The context coder: every variant against its reference, sizes against the entropy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from z4ai._fast import _dispatch, contexts
from z4ai._reference import contexts as reference

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "contexts.md"
KINDS = ["weights", "geometric", "uniform", "bytes", "one", "two", "rare"]
COUNTS = [1, 2, 8, 64]
# around the numbers of lanes, and tails of every length that matters
LENGTHS = [0, 1, 2, 63, 64, 65, 127, 2047, 2048, 2050, 2051, 16383, 16384, 16385, 16399, 20000]


def make(kind: str, n: int, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return symbols and contexts of a distribution, from a generator of fixed stream."""
    rng = np.random.Generator(np.random.PCG64(seed))
    context = rng.integers(0, count, n) * rng.integers(0, 2, n)  # unevenly
    if kind == "weights":  # exponent and two bits of mantissa of bf16, the scale by context
        bits = (rng.normal(0, 1, n) * 2.0 ** (context / 8)).astype(np.float32).view(np.uint32)
        values = (4 * 135 + 3 - (bits >> 21 & 1023).astype(np.int64)).clip(0, 255)
    elif kind == "geometric":
        values = np.minimum(rng.geometric(0.05 + 0.9 * context / count, n), 255)
    elif kind == "uniform":
        values = rng.integers(0, 256, n)
    elif kind == "bytes":
        values = rng.normal(128 - context, 30, n).clip(0, 255)
    elif kind == "one":
        values = np.full(n, 255)
    elif kind == "two":
        values = rng.integers(0, 2, n) * (context + 1)
    else:
        values = np.where(rng.random(n) < 0.001, 200, 7)
    return values.astype(np.uint8), context.astype(np.uint8)


def count_by_context(symbols: np.ndarray, context: np.ndarray, count: int) -> np.ndarray:
    at = context.astype(np.int64) * 256 + symbols
    return np.bincount(at, minlength=count * 256).reshape(count, 256).astype(np.uint32)


def encode(symbols: np.ndarray, context: np.ndarray | None, freqs: np.ndarray) -> bytes:
    """Encode with every variant; all must agree."""
    streams = {
        isa: contexts.encode(symbols, context, freqs, isa=isa) for isa in contexts.variants()
    }
    assert len(set(streams.values())) == 1, f"variants {list(streams)} differ"
    assert contexts.encode(symbols, context, freqs) in streams.values()
    return streams["scalar"]


def check(symbols: np.ndarray, context: np.ndarray, count: int, *, by_hand: bool = True) -> bytes:
    """Tables and stream there and back, every variant against the reference; return the stream."""
    n = len(symbols)
    counts = count_by_context(symbols, context, count)
    tables, size = contexts.write_tables(counts)
    freqs = contexts.read_tables(tables)
    assert freqs.shape == (count, 256)
    stream = encode(symbols, context, freqs)
    assert len(stream) <= contexts.bound(n)
    # what was promised, and three bytes a lane
    assert abs(len(stream) - (size / 2048 - len(tables)) - 3 * contexts.lanes(n)) <= (
        2 + contexts.lanes(n) + n / 5000
    )
    content = symbols.tobytes()
    for isa in contexts.variants():
        assert contexts.decode(stream, context, n, freqs, isa=isa) == content, isa
        for tile in (64, 4096):
            assert contexts.decode(stream, context, n, freqs, tile=tile, isa=isa) == content, isa
    if by_hand:
        assert reference.write_tables(counts.tolist()) == (tables, size)
        rows = reference.read_tables(tables)
        assert rows == freqs.tolist()
        assert reference.encode(content, context.tobytes(), rows) == stream
        assert reference.decode(stream, context.tobytes(), n, rows) == content
    return stream


def test_variants_are_those_this_machine_runs() -> None:
    """Every variant in these tests is runnable, and every runnable one that exists is in them."""
    compiled = {"scalar", "avx2", "avx512"}  # neon runs scalar
    assert contexts.variants()[0] == "scalar"
    assert set(contexts.variants()) == compiled & set(_dispatch.runnable())
    with pytest.raises(ValueError, match="no variant 'mmx'"):
        contexts.encode(b"", None, np.zeros((1, 256), np.uint16), isa="mmx")


@pytest.mark.parametrize("n", LENGTHS)
def test_lengths(n: int) -> None:
    assert contexts.lanes(n) == reference.lanes(n)
    check(*make("weights", n, 8, n), 8)
    check(*make("weights", n, 1, n), 1)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_distributions(kind: str, count: int) -> None:
    check(*make(kind, 1500, count, 1), count)
    check(*make(kind, 16500, count, 2), count, by_hand=kind in ("weights", "bytes", "one"))


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1 << 18, (1 << 18) + 63])
def test_sixty_four_lanes(kind: str, count: int, n: int) -> None:
    assert contexts.lanes(n) == 64
    check(*make(kind, n, count, 3), count, by_hand=False)


def test_sixty_four_lanes_against_the_reference() -> None:
    check(*make("weights", (1 << 18) + 37, 8, 4), 8)


def test_every_remainder() -> None:
    symbols, context = make("weights", (1 << 18) + 64, 8, 5)
    freqs = contexts.read_tables(contexts.write_tables(count_by_context(symbols, context, 8))[0])
    for n in range(1 << 18, (1 << 18) + 65, 7):
        stream = encode(symbols[:n], context[:n], freqs)
        for isa in contexts.variants():
            content = contexts.decode(stream, context[:n], n, freqs, isa=isa)
            assert content == symbols[:n].tobytes(), (isa, n)


@given(st.data())
def test_any_symbols(data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 1, 2, 3, 17, 64]))
    alphabet = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=30))
    n = data.draw(st.integers(0, 4000))
    skew = data.draw(st.floats(0.2, 6))
    rng = np.random.Generator(np.random.PCG64(data.draw(st.integers(0, 2**32))))
    context = rng.integers(0, count, n).astype(np.uint8)
    picks = (rng.random(n) ** (skew + context / 10) * len(alphabet)).astype(int)
    check(np.array(alphabet, np.uint8)[picks], context, count)


@given(st.data())
def test_any_table(data: st.DataObject) -> None:
    """Streams under tables that no counts led to, symbols of every frequency from 1 to 4095."""
    few = data.draw(st.lists(st.integers(1, 4000), min_size=1, max_size=40))
    weights = np.zeros(256, np.uint32)
    places = data.draw(st.permutations(range(256)))[: len(few)]
    weights[places] = few
    freqs = contexts.normalise(weights)[None, :]
    rng = np.random.Generator(np.random.PCG64(len(few)))
    for n in (100, 16384 + 100):
        symbols = rng.choice(np.flatnonzero(freqs[0]), n).astype(np.uint8)
        stream = encode(symbols, None, freqs)
        for isa in contexts.variants():
            assert contexts.decode(stream, None, n, freqs, isa=isa) == symbols.tobytes(), isa
        if n == 100:
            assert reference.encode(symbols.tobytes(), None, freqs.tolist()) == stream


def test_every_frequency_is_divided_by_exactly() -> None:
    """Each frequency once, and states of all sizes: vector variants estimate the quotient."""
    rng = np.random.Generator(np.random.PCG64(11))
    n = 1 << 18
    for first in range(1, 4095, 241):
        weights = np.zeros(256, np.uint32)
        weights[[3, 250]] = first, 4096 - first
        freqs = contexts.normalise(weights)[None, :]
        assert freqs[0, 3] == first
        symbols = np.where(rng.random(n) < 0.5, 3, 250).astype(np.uint8)
        stream = encode(symbols, None, freqs)
        assert contexts.decode(stream, None, n, freqs) == symbols.tobytes()


def test_capacity() -> None:
    """Room for the stream and for scribbling is enough; less is refused by all variants alike."""
    for n in (1, 100, 5000, 20000, 1 << 18):
        symbols, context = make("weights", n, 2, 6)
        tables, _ = contexts.write_tables(count_by_context(symbols, context, 2))
        freqs = contexts.read_tables(tables)
        stream = encode(symbols, context, freqs)
        for isa in contexts.variants():
            for more in (128, 129, 191):
                room = len(stream) + more
                assert contexts.encode(symbols, context, freqs, capacity=room, isa=isa) == stream
            for room in (0, 10, len(stream) // 2, len(stream) - 1):
                with pytest.raises(contexts.ContextsError) as caught:
                    contexts.encode(symbols, context, freqs, capacity=room, isa=isa)
                assert caught.value.status == contexts.CAPACITY


# --- frequencies and costs ------------------------------------------------------------------------


def bits(counts: np.ndarray, freqs: np.ndarray) -> float:
    occur = counts > 0
    return float(-(counts[occur] * np.log2(freqs[occur] / 4096)).sum())


def best_freqs(counts: np.ndarray) -> np.ndarray:
    """The optimum: give one unit after another to where it gains the most."""
    freqs = (counts > 0).astype(np.int64)
    while freqs.sum() < 4096:
        gain = np.where(freqs > 0, counts * np.log2(1 + 1 / np.maximum(freqs, 1)), -1)
        freqs[gain.argmax()] += 1
    return freqs


@pytest.mark.parametrize("kind", KINDS)
def test_normalise_is_as_good_as_the_optimum(kind: str) -> None:
    """0.001 bit a symbol are allowed, a tenth is needed."""
    for n in (10, 1000, 1 << 18):
        counts = count_by_context(make(kind, n, 1, 7)[0], np.zeros(n), 1)[0]
        freqs = contexts.normalise(counts)
        assert freqs.sum() == 4096
        assert (freqs[counts > 0] > 0).all()
        if (counts > 0).sum() > 1:
            assert bits(counts, freqs) <= bits(counts, best_freqs(counts)) + 0.0001 * n


@given(st.lists(st.one_of(st.just(0), st.integers(0, 2**32 - 1)), min_size=256, max_size=256))
def test_normalise_any_weights(weights: list[int]) -> None:
    freqs = contexts.normalise(np.array(weights, np.uint32))
    assert freqs.tolist() == reference.normalise(weights)
    assert freqs.sum() == 4096
    assert 0 < freqs.max() < 4096
    assert all(freqs[s] > 0 for s in range(256) if weights[s])


@pytest.mark.parametrize(
    "weights", [{}, {0: 1}, {255: 9}, {254: 2**32 - 1}, {3: 1, 4: 2**32 - 1}, {0: 1, 255: 1}]
)
def test_normalise_few(weights: dict[int, int]) -> None:
    row = [weights.get(s, 0) for s in range(256)]
    freqs = contexts.normalise(np.array(row, np.uint32)).tolist()
    assert freqs == reference.normalise(row)
    assert sum(freqs) == 4096
    assert max(freqs) < 4096


def test_normalise_many_rare_symbols() -> None:
    """More of 1 than there is to share: others give."""
    row = [10**9, 10**9, *[1] * 254]
    freqs = contexts.normalise(np.array(row, np.uint32)).tolist()
    assert freqs == reference.normalise(row) == [1921, 1921, *[1] * 254]


def test_cost_is_that_of_logarithms() -> None:
    for kind in KINDS:
        symbols, context = make(kind, 30000, 1, 8)
        counts = count_by_context(symbols, context, 1)[0]
        freqs = contexts.normalise(counts)
        cost = contexts.cost(counts, freqs)
        assert cost == reference.cost(counts.tolist(), freqs.tolist())
        exact = 256 * bits(counts, freqs)
        assert exact <= cost <= exact + 1 + 256 * 30000 / 65536
    for v in range(1, 4096):
        assert 0 <= np.log2(v) - reference.log2(v) / 65536 < 1 / 65536


def test_cost_of_what_cannot_be_coded() -> None:
    freqs = contexts.normalise(np.bincount([1, 2], minlength=256).astype(np.uint32))
    with pytest.raises(contexts.ContextsError):
        contexts.cost(np.bincount([3], minlength=256).astype(np.uint32), freqs)


# --- tables ---------------------------------------------------------------------------------------


@given(st.data())
def test_any_counts_make_tables(data: st.DataObject) -> None:
    count = data.draw(st.sampled_from([1, 2, 5]))
    precision = data.draw(st.integers(2, 5))
    each = st.one_of(st.just(0), st.integers(0, 9), st.integers(0, 2**32 - 1))
    counts = np.array(
        [data.draw(st.lists(each, min_size=256, max_size=256)) for _ in range(count)], np.uint32
    )
    tables, size = contexts.write_tables(counts, precision=precision)
    assert reference.write_tables(counts.tolist(), precision) == (tables, size)
    freqs = contexts.read_tables(tables)
    assert freqs.tolist() == reference.read_tables(tables)
    assert (freqs.sum(axis=1) == 4096).all()
    assert (freqs[counts > 0] > 0).all()


def test_the_precision_that_pays_is_taken() -> None:
    taken = set()
    for n in (100, 5000, 1 << 18, 1 << 22):
        counts = count_by_context(*make("weights", n, 1, 9), 1)
        sizes = {p: contexts.write_tables(counts, precision=p)[1] for p in range(2, 6)}
        tables, size = contexts.write_tables(counts)
        assert size == min(sizes.values())
        taken.add(2 + (tables[0] >> 6))
    assert min(taken) == 2
    assert max(taken) >= 4


def test_tables_are_small() -> None:
    """Sizes that the page quotes, for weights of 64 scales."""
    counts = count_by_context(*make("weights", 1 << 20, 64, 10), 64)
    occur = int((counts > 0).sum())
    tables, size = contexts.write_tables(counts)
    assert len(tables) * 8 < 4.5 * occur
    assert len(contexts.write_tables(counts[:1])[0]) <= 70
    assert size >= 2048 * len(tables)


# --- distance from the entropy --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "allowed"),
    [(1, 0.002), (8, 0.002), (64, 0.003)],
)
def test_size_against_the_entropy(count: int, allowed: float) -> None:
    """Tables, states and all, over a mebi of symbols; rare exponents cut off, as a caller would."""
    symbols, context = make("weights", 1 << 20, count, 12)
    symbols = np.minimum(symbols, symbols.min() + 4 * 10).astype(np.uint8)
    counts = count_by_context(symbols, context, count)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    entropy = -(counts[counts > 0] * np.log2(share[counts > 0])).sum() / 8
    tables, _ = contexts.write_tables(counts)
    stream = encode(symbols, context, contexts.read_tables(tables))
    size = len(tables) + len(stream)
    assert entropy < size <= entropy * (1 + allowed), f"{size} bytes, entropy {entropy:.0f}"


# --- rare symbols ---------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [5000, 70000, 1 << 18])
def test_rare_symbols_there_and_back(n: int) -> None:
    symbols, context = make("weights", n, 2, 13)
    counts = count_by_context(symbols, context, 2)
    rare = contexts.rare_symbols(counts)
    assert rare == reference.rare_symbols(counts.tolist())
    assert (len(rare) > 1) == (n > 5000)
    if not rare:
        return
    parted = symbols.copy()
    rest = contexts.set_apart(parted, rare)
    assert (parted.tobytes(), rest) == reference.set_apart(symbols.tobytes(), rare)
    assert reference.put_back(parted.tobytes(), rare[0], rest) == symbols.tobytes()
    whole, tiles, taken = parted.copy(), parted.copy(), 0
    assert contexts.put_back(whole, rare[0], rest) == len(rest)
    assert whole.tobytes() == symbols.tobytes()
    for at in range(0, n, 4111):
        taken += contexts.put_back(tiles[at : at + 4111], rare[0], rest[taken:])
    assert taken == len(rest)
    assert tiles.tobytes() == symbols.tobytes()
    with pytest.raises(contexts.ContextsError):
        contexts.put_back(parted.copy(), rare[0], rest[:-1])
    with pytest.raises(ValueError, match="corrupt"):
        reference.put_back(parted.tobytes(), rare[0], rest[:-1])


def test_rare_symbols_coded_apart_reach_the_entropy() -> None:
    """Every exponent as it comes: within 0.1 % of the entropy, where one table alone is not."""
    n = 1 << 22
    symbols, context = make("weights", n, 1, 14)
    counts = count_by_context(symbols, context, 1)
    share = counts[counts > 0] / n
    entropy = -(share * np.log2(share)).sum() * n / 8
    alone = contexts.write_tables(counts)[1] / 2048
    assert alone > entropy * 1.001
    rest = np.frombuffer(contexts.set_apart(symbols, contexts.rare_symbols(counts)), np.uint8)
    size = 0
    for part in (symbols, rest):
        tables, _ = contexts.write_tables(count_by_context(part, np.zeros(len(part)), 1))
        size += len(tables) + len(contexts.encode(part, None, contexts.read_tables(tables)))
    assert entropy < size <= entropy * 1.001, f"{size} bytes, entropy {entropy:.0f}"


# --- the page -------------------------------------------------------------------------------------


def lines(name: str) -> list[tuple[bytes, str]]:
    """The worked examples of the page: bytes, what they stand for."""
    found = re.search(rf"^```{name}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    pairs = [line.partition("=") for line in found[1].splitlines()]
    return [(bytes.fromhex(data), meaning.strip()) for data, _, meaning in pairs]


def test_tables_of_the_page() -> None:
    assert len(lines("tables")) >= 4
    for data, meaning in lines("tables"):
        rows = []
        for part in meaning.split("|"):
            row = [0] * 256
            for pair in part.split():
                symbol, _, freq = pair.partition(":")
                row[int(symbol, 16)] = int(freq)
            rows.append(row)
        assert contexts.read_tables(data).tolist() == rows
        assert reference.read_tables(data) == rows


def test_streams_of_the_page() -> None:
    row = [2048, 1024, 1024, *[0] * 253]
    freqs = np.array([row], np.uint16)
    assert len(lines("stream")) >= 4
    for data, meaning in lines("stream"):
        content = bytes.fromhex(meaning)
        assert encode(np.frombuffer(content, np.uint8), None, freqs) == data
        assert reference.encode(content, None, [row]) == data
        for isa in contexts.variants():
            assert contexts.decode(data, None, len(content), freqs, isa=isa) == content
        assert reference.decode(data, None, len(content), [row]) == content
