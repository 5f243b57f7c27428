"""The literals coder: every variant against its reference and against stock zstandard."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from z4ai._fast import _dispatch, literals
from z4ai._reference import zstd_huffman, zstd_literals

PAGE = Path(__file__).resolve().parents[2] / "docs" / "format" / "codecs" / "zstd.md"
BLOCK = 131072
KINDS = [
    "uniform", "exponents", "geometric", "halves", "two", "rare", "one", "bytes", "tail", "drift",
]  # fmt: skip


def make(kind: str, n: int, seed: int = 0) -> bytes:
    """Return n bytes of a distribution, from a generator of fixed stream."""
    rng = np.random.Generator(np.random.PCG64(seed))
    if kind == "uniform":
        values = rng.integers(0, 256, n)
    elif kind == "exponents":  # of normal weights in bf16
        values = rng.normal(0, 0.03, n).astype(np.float32).view(np.uint32) >> 23 & 255
    elif kind == "geometric":
        values = np.minimum(rng.geometric(0.3, n), 255)
    elif kind == "halves":  # Fibonacci-like: codes would outgrow 11 bits
        values = np.minimum(rng.geometric(0.5, n), 60)
    elif kind == "two":
        values = rng.integers(0, 2, n)
    elif kind == "rare":
        values = np.where(rng.random(n) < 0.001, 200, 7)
    elif kind == "one":
        values = np.full(n, 77)
    elif kind == "bytes":  # all 256 symbols, unevenly
        values = rng.normal(128, 30, n).clip(0, 255)
    elif kind == "tail":  # symbols that appear late
        values = np.where(np.arange(n) > n * 3 // 4, rng.integers(0, 40, n), rng.integers(0, 9, n))
    else:
        values = rng.normal(np.linspace(60, 200, n), 4).clip(0, 255)
    return values.astype(np.uint8).tobytes()


def encode(content: bytes) -> bytes:
    """Encode with every variant; all must agree."""
    frames = {isa: literals.encode(content, isa=isa) for isa in literals.variants()}
    assert len(set(frames.values())) == 1, f"variants {list(frames)} differ"
    assert literals.encode(content) in frames.values()
    return frames["scalar"]


def check(content: bytes, *, reference: bool = True) -> bytes:
    """Encode; decode with every variant and with stock zstandard; compare with the reference."""
    n = len(content)
    frame = encode(content)
    for isa in literals.variants():
        assert literals.decode(frame, n, isa=isa) == content, isa
    stock = zstandard.ZstdDecompressor().decompress(frame)
    assert stock == content, "stock zstandard reads something else"
    assert len(frame) <= literals.bound(n)
    if reference:
        assert zstd_literals.encode(content) == frame, "the reference writes another frame"
        assert zstd_literals.decode(frame, n) == content
    return frame


def block_kinds(frame: bytes) -> list[tuple[str, int]]:
    """Return kind and size of each block of one of our frames."""
    flag = frame[4] >> 6
    at, found, last = 5 + (1 << flag), [], 0
    while not last:
        head = int.from_bytes(frame[at : at + 3], "little")
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        name = ["raw", "rle", "compressed", "?"][kind]
        if kind == 2 and frame[at + 3] & 3 == 3:
            name = "treeless"
        found.append((name, size))
        at += 3 + (1 if kind == 1 else size)
    assert at == len(frame)
    return found


def test_variants_are_those_this_machine_runs() -> None:
    """Every variant in these tests is runnable, and every runnable one that exists is in them."""
    compiled = {"scalar", "avx2", "avx512"}  # neon runs scalar
    assert literals.variants()[0] == "scalar"
    assert set(literals.variants()) == compiled & set(_dispatch.runnable())
    with pytest.raises(ValueError, match="no variant 'mmx'"):
        literals.encode(b"abc", isa="mmx")


@pytest.mark.parametrize("kind", KINDS)
def test_tiny_lengths(kind: str) -> None:
    content = make(kind, 301, 1)
    for n in range(301):
        check(content[:n], reference=n % 5 == 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [511, 1023, 1024, 1025, 1026, 1027, 4095, 4097, 16383, 16385, 65791])
def test_lengths_around_the_header_forms(kind: str, n: int) -> None:
    check(make(kind, n, n))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [65792, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 500])
def test_lengths_around_blocks(kind: str, n: int) -> None:
    check(make(kind, n, n), reference=kind in ("halves", "bytes", "tail"))


def test_lengths_around_groups() -> None:
    parts = [make(kind, 3 * BLOCK, 5) for kind in KINDS]
    content = b"".join(parts)
    assert len(content) > 16 * BLOCK
    frame = check(content + b"the end")
    kinds = {kind for kind, _ in block_kinds(frame)}
    assert kinds == {"raw", "rle", "compressed", "treeless"}


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_bytes(data: st.DataObject) -> None:
    alphabet = data.draw(st.lists(st.integers(0, 255), min_size=1, max_size=20))
    seed = data.draw(st.integers(0, 2**32))
    n = data.draw(st.integers(0, 3000))
    skew = data.draw(st.floats(0.2, 4))
    rng = np.random.Generator(np.random.PCG64(seed))
    picks = (rng.random(n) ** skew * len(alphabet)).astype(int)
    check(np.array(alphabet, np.uint8)[picks].tobytes())


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=600))
def test_any_short_binary(content: bytes) -> None:
    check(content)


def test_every_block_but_the_last_holds_128_kib() -> None:
    """The fused decoder works in tiles of a block, whatever the kind of the block."""
    for kind in KINDS:
        content = make(kind, 5 * BLOCK // 2, 3)
        frame = literals.encode(content)
        assert len(block_kinds(frame)) == 3
        sizes = [size for name, size in block_kinds(frame) if name in ("raw", "rle")]
        assert set(sizes) <= {BLOCK, BLOCK // 2}


def test_one_tree_serves_blocks_alike() -> None:
    """Rare symbols that come late must not force a second tree."""
    content = make("exponents", 8 * BLOCK, 9)
    assert [kind for kind, _ in block_kinds(literals.encode(content))] == ["compressed"] + [
        "treeless"
    ] * 7


@pytest.mark.parametrize("kind", ["exponents", "halves", "bytes", "tail", "drift"])
def test_size_against_a_frame_a_block(kind: str) -> None:
    """Sharing trees costs at most 0.05 % of what the best tree for each block would give."""
    content = make(kind, 16 * BLOCK, 4)
    shared = len(literals.encode(content))
    header = 5 + 4
    alone = header + sum(
        len(literals.encode(content[at : at + BLOCK])) - header
        for at in range(0, len(content), BLOCK)
    )
    assert shared <= alone * 1.0005, f"{shared} bytes, {alone} with a tree a block"


def test_code_lengths_are_optimal_under_the_limit() -> None:
    """Package-merge against exhaustive search over all complete codes of a few symbols."""

    def best(counts: list[int], limit: int) -> int:
        counts = sorted(counts, reverse=True)

        def walk(i: int, left: int, shortest: int) -> int:
            if i == len(counts):
                return 0 if left == 0 else 10**9
            return min(
                (
                    counts[i] * length + walk(i + 1, left - (1 << (limit - length)), length)
                    for length in range(shortest, limit + 1)
                    if left >= 1 << (limit - length)
                ),
                default=10**9,
            )

        return walk(0, 1 << limit, 1)

    rng = np.random.Generator(np.random.PCG64(8))
    deep = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 377]
    histograms = [rng.integers(1, 1 << rng.integers(1, 12), rng.integers(2, 8)).tolist()
                  for _ in range(60)]  # fmt: skip
    for counts in [*histograms, deep[:12], deep[:13]]:
        lengths = zstd_huffman.code_lengths(counts)
        assert max(lengths) <= 11
        cost = sum(c * length for c, length in zip(counts, lengths, strict=True))
        assert cost == best(counts, 11), counts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("block", [literals.MIN_BLOCK_NBYTES, 32768, 65536])
def test_smaller_blocks_are_read_by_stock_and_written_by_the_reference(
    kind: str, block: int
) -> None:
    content = make(kind, 3 * block + 77, 8)
    frames = {
        isa: literals.encode(content, block_nbytes=block, isa=isa) for isa in literals.variants()
    }
    assert set(frames) == set(literals.variants())
    assert len(set(frames.values())) == 1, "variants differ"
    frame = frames["scalar"]
    assert zstandard.ZstdDecompressor().decompress(frame) == content
    assert zstd_literals.encode(content, block) == frame, "the reference writes another frame"
    assert literals.decode(frame, len(content)) == content
    assert len(frame) <= len(content) + 3 * (len(content) // block + 1) + 17


@pytest.mark.parametrize("block", [0, literals.MIN_BLOCK_NBYTES - 1, literals.MAX_BLOCK_NBYTES + 1])
def test_blocks_out_of_range_are_refused(block: int) -> None:
    with pytest.raises(ValueError, match="block_nbytes"):
        literals.encode(b"abc", block_nbytes=block)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [0, 1, 63, 5000, BLOCK, 5 * BLOCK])
def test_estimate_is_near_the_size(kind: str, n: int) -> None:
    content = make(kind, n, 2)
    counts = literals.histogram(content)
    assert counts == np.bincount(np.frombuffer(content, np.uint8), minlength=256).tolist()
    size = len(literals.encode(content))
    estimate = literals.estimate(counts, n)
    assert estimate <= literals.bound(n)
    assert estimate >= size - 8
    if kind not in ("tail", "drift"):  # those gain from several trees
        assert estimate <= size + size // 100 + 40
    scaled = [count << 10 for count in counts]
    assert abs(literals.estimate(scaled, n) - estimate) <= 64 + n // 500


def test_stock_frames_without_matches() -> None:
    """Frames that zstandard makes of noise, runs and matchless symbols are read; others refused."""
    outcome = {"read": 0, "sequences": 0, "else": 0}
    for kind in KINDS:
        for n in (0, 5, 70, 600, 3000, 70000, BLOCK + 7, 300000):
            content = make(kind, n, n + 1)
            for level in (-5, 1, 3, 19):
                frame = zstandard.ZstdCompressor(level=level).compress(content)
                for isa in literals.variants():
                    try:
                        assert literals.decode(frame, n, isa=isa) == content
                        outcome["read"] += 1
                    except literals.LiteralsError as error:
                        outcome["sequences"] += error.status == literals.UNSUPPORTED
                        outcome["else"] += error.status != literals.UNSUPPORTED
    assert outcome["read"] > 100, outcome
    assert outcome["sequences"] > 100, outcome
    assert outcome["else"] == 0, outcome


def test_stock_frames_with_a_window() -> None:
    """Not single-segment: the window byte comes before the content size."""
    content = make("uniform", 3 * BLOCK, 6)
    parameters = zstandard.ZstdCompressionParameters(window_log=17, write_content_size=True)
    frame = zstandard.ZstdCompressor(compression_params=parameters).compress(content)
    assert not frame[4] & 0x20
    for isa in literals.variants():
        assert literals.decode(frame, len(content), isa=isa) == content
    assert zstd_literals.decode(frame, len(content)) == content


def examples() -> list[tuple[bytes, bytes]]:
    """The worked examples of the page: frame, content."""
    text = PAGE.read_text(encoding="utf-8")
    found = re.search(r"^```zstd\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    lines = [line for line in found[1].splitlines() if line.strip()]
    pairs = []
    for line in lines:
        frame, _, content = line.partition("=")
        pairs.append((bytes.fromhex(frame), bytes.fromhex(content)))
    return pairs


def test_examples_of_the_page() -> None:
    assert len(examples()) >= 3
    for frame, content in examples():
        assert literals.decode(frame, len(content)) == content
        assert zstd_literals.decode(frame, len(content)) == content
        assert zstandard.ZstdDecompressor().decompress(frame) == content
