"""No tier makes anything larger than the tier below it, nor than the content and a header."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import strategies
import tier_contents
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_writer import Tensor, safetensors_file, safetensors_header

import z4ai
from z4ai.safetensors import compress_bytes

TIERS = ("fast", "balanced", "max")
MAIN = ["opaque", "bf16", "fp16", "fp32", "fp64", "fp8_e4m3", "int8", "int16", "int32", "int64"]


def sizes(content: bytes, name: str, shape: tuple[int, ...] | None = None) -> list[int]:
    """Encoded bytes of each tier, the lowest first."""
    return [len(z4ai.compress(content, dtype=name, effort=e, shape=shape)) for e in TIERS]


def check(content: bytes, name: str, shape: tuple[int, ...] | None, what: object) -> None:
    found = sizes(content, name, shape)
    assert found == sorted(found, reverse=True), (what, dict(zip(TIERS, found, strict=True)))
    assert max(found) <= len(content) + 64, (what, len(content), found)


def check_kind(name: str, kind: str, n: int, seeds: Sequence[int] = (1, 2)) -> int:
    compared = 0
    for seed in seeds:
        content = tier_contents.CONTENTS[kind](name, n, seed)
        for shape in {None, tier_contents.shape_of(name, n)}:
            check(content, name, shape, (name, kind, n, seed, shape))
            compared += 1
    return compared


@pytest.mark.parametrize("kind", tier_contents.CONTENTS)
@pytest.mark.parametrize("name", MAIN)
def test_a_higher_tier_is_never_larger(name: str, kind: str) -> None:
    compared = sum(check_kind(name, kind, n, (n,)) for n in (0, 1, 50, 600))
    compared += check_kind(name, kind, 3000)
    assert compared >= 6


@pytest.mark.parametrize("name", sorted(set(strategies.DTYPES) - set(MAIN)))
def test_a_higher_tier_is_never_larger_for_any_dtype(name: str) -> None:
    assert sum(check_kind(name, kind, 1536, (1,)) for kind in tier_contents.CONTENTS) >= 30


@pytest.mark.parametrize("kind", ["rows", "grid_of_rows", "half_zeros", "half_noise", "turns"])
@pytest.mark.parametrize("name", ["bf16", "fp32", "int8", "int64"])
def test_a_higher_tier_is_never_larger_for_more_elements(name: str, kind: str) -> None:
    check_kind(name, kind, 24 * 2048, (3,))


@settings(max_examples=80)
@given(st.data())
def test_no_mixture_is_larger_at_a_higher_tier(data: st.DataObject) -> None:
    """Pieces that promise something, and pieces that break the promise."""
    name = data.draw(st.sampled_from(MAIN), "dtype")
    pieces = []
    for _ in range(data.draw(st.integers(1, 4), "pieces")):
        kind = data.draw(st.sampled_from(sorted(tier_contents.CONTENTS)), "kind")
        n = data.draw(st.one_of(st.integers(0, 100), st.integers(0, 4000)), "n")
        pieces.append(tier_contents.CONTENTS[kind](name, n, data.draw(st.integers(0, 9), "seed")))
    content = b"".join(pieces)
    n = len(content) // strategies.DTYPES[name].width
    shape = None
    if n and data.draw(st.booleans(), "shaped"):
        first = data.draw(st.sampled_from([d for d in range(1, 65) if n % d == 0]), "rows")
        shape = (first, n // first)
    else:
        content += data.draw(st.binary(max_size=9), "tail")
    check(content, name, shape, (name, len(content), shape))


#: What a search among mixtures found: pieces by kind, elements and seed; shape.
FOUND = [
    ("fp16", [("ids", 92_350, 6)], None),
    ("fp64", [("ids", 79_513, 6)], None),
    ("int4_unpacked", [("weights", 87_919, 3)], (13, 6763)),
    ("opaque", [("special", 34_108, 7), ("mostly_zeros", 11_250, 0), ("zero", 114_250, 6)], None),
    (
        "opaque",
        [
            ("special", 34108, 7),
            ("mostly_zeros", 3691, 0),
            ("mostly_zeros", 7559, 0),
            ("zero", 114250, 6),
        ],
        (281, 568),
    ),
    ("opaque", [("repeats", 46_017, 1), ("half_noise", 152, 9)], None),
    ("bf16", [("half_zeros", 49_950, 6), ("palette_of_rows", 34_120, 7)], None),
]


@pytest.mark.parametrize("case", FOUND, ids=lambda case: f"{case[0]}-{case[1][0][0]}")
def test_what_was_larger_once_is_not(
    case: tuple[str, list[tuple[str, int, int]], tuple[int, ...] | None],
) -> None:
    name, pieces, shape = case
    content = b"".join(tier_contents.CONTENTS[kind](name, n, seed) for kind, n, seed in pieces)
    check(content, name, shape, case)


@pytest.mark.parametrize("name", MAIN)
@pytest.mark.parametrize("block", [64, 1000, 4096])
def test_blocks_that_take_turns_are_no_larger_at_a_higher_tier(name: str, block: int) -> None:
    width = strategies.DTYPES[name].width
    for one, other in [
        ("noise", "zero"),
        ("noise", "weights"),
        ("grid", "noise"),
        ("eight_values", "weights"),
        ("counting", "noise"),
        ("constant", "mostly_zeros"),
    ]:
        n = 6000
        whole = [tier_contents.CONTENTS[kind](name, n, 3) for kind in (one, other)]
        content = b"".join(
            whole[k % 2][at : at + block * width]
            for k, at in enumerate(range(0, n * width, block * width))
        )
        check(content, name, None, (name, one, other, block))


@pytest.mark.parametrize("name", MAIN)
def test_random_bytes_cost_a_header_at_most(name: str) -> None:
    """Uniform bytes: as integers, and as floats among which are NaNs."""
    for nbytes in (0, 1, 15, 512, 4099, 40_000, 300_001):
        content = strategies.noise(nbytes, nbytes)
        found = sizes(content, name)
        assert found == sorted(found, reverse=True), (name, nbytes, found)
        assert max(found) <= nbytes + 57, (name, nbytes, found)


def test_random_bytes_cost_two_chunk_headers_at_most_where_there_are_many() -> None:
    content = np.random.default_rng(1).bytes(9 << 20)
    for name in ("bf16", "fp64", "int8"):
        found = [len(z4ai.compress(content, dtype=name, effort=e)) for e in TIERS[:2]]
        assert max(found) <= len(content) + 64, (name, found)


def container_of(tensors: Sequence[Tensor]) -> list[int]:
    file = safetensors_file(safetensors_header(tensors), tensors)
    return [len(compress_bytes(file, effort=effort)) for effort in TIERS]


@pytest.mark.parametrize("kind", tier_contents.CONTENTS)
def test_a_container_is_never_larger_at_a_higher_tier(kind: str) -> None:
    """Alone and many, small and larger."""
    content = tier_contents.CONTENTS[kind]
    for dtype, name in (("BF16", "bf16"), ("F32", "fp32"), ("I8", "int8")):
        for count, shape in ((1, (20, 30)), (8, (24, 40)), (2, (48, 400))):
            tensors = [
                Tensor(f"t{k}", dtype, shape, content(name, shape[0] * shape[1], k))
                for k in range(count)
            ]
            found = container_of(tensors)
            where = (kind, dtype, count, shape, found)
            assert found == sorted(found, reverse=True), where
            raw = sum(len(t.data) for t in tensors)
            assert max(found) <= raw + 64 * count + 256 + 100 * count, where
