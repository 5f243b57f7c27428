"""An index of a model delta changed at random, all checksums right: two readers judge it alike."""

from __future__ import annotations

from collections import Counter

import pytest
from model_pairs import ALIGNED, PAIRS, file_of
from strategies import noise

import z4ai
from z4ai import model_delta
from z4ai._fast.hashing import xxh3_64
from z4ai._reference.model_delta import restore as reference_restore
from z4ai.container.source import source_of_buffer
from z4ai.container.zstn import read_index
from z4ai.deltas import encode, z4dm
from z4ai.errors import Z4Error
from z4ai.options import NO_LIMITS

LIMITS = z4ai.Limits(max_output_nbytes=1 << 24, max_table_nbytes=1 << 22)
ROUNDS = 200


def with_index(blob: bytes, index: bytes) -> bytes:
    """The same frames and footer, another content of the index."""
    offset = int.from_bytes(blob[-80:-72], "little")
    frame = z4ai.compress(index)
    fields = blob[-80:-72] + len(frame).to_bytes(8, "little") + blob[-64:-16]
    checksum = xxh3_64(fields, int.from_bytes(blob[8:16], "little")).to_bytes(8, "little")
    return blob[:offset] + frame + fields + checksum + blob[-8:]


def index_of(blob: bytes) -> bytes:
    offset = int.from_bytes(blob[-80:-72], "little")
    nbytes = int.from_bytes(blob[-72:-64], "little")
    return read_index(source_of_buffer(blob), offset, nbytes, NO_LIMITS)


def sample(name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, bytes, bytes]:
    if name in PAIRS:
        target, base = map(file_of, PAIRS[name]())
        return model_delta.compress(target, base), target, base
    pair, alignments = ALIGNED[name]()
    target, base = map(file_of, pair)
    monkeypatch.setattr(encode, "align", lambda *_: alignments)
    return model_delta.compress(target, base), target, base


def mutated(index: bytes, first: int, seed: int) -> bytes:
    """Some bytes behind the JSON header changed, taken out or put in."""
    dice = noise(16, seed)
    out = bytearray(index)
    for k in range(1 + dice[0] % 3):
        at = first + int.from_bytes(noise(4, seed * 7 + k), "little") % (len(out) - first)
        value = dice[4 + k]
        kind = dice[8 + k] % 5
        if kind == 0:
            out[at] ^= 1 << value % 8
        elif kind == 1:
            out[at] = value
        elif kind == 2:
            out[at] = (out[at] + value % 5 - 2) % 256
        elif kind == 3:
            del out[at]
        else:
            out.insert(at, value)
    return bytes(out)


@pytest.mark.parametrize(
    "name", ["tied", "cast", "merged", "rows", "columns", "fused", "transposed"]
)
def test_two_readers_judge_a_changed_index_alike(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob, target, base = sample(name, monkeypatch)
    index = index_of(blob)
    assert with_index(blob, index)[-80:-72] == blob[-80:-72]
    assert model_delta.decompress(with_index(blob, index), base) == target
    found = z4dm.parse_model_delta(source_of_buffer(blob), NO_LIMITS)
    first = 8 + len(found.header_bytes)
    known = reference_restore(blob, base) == target
    assert known
    seen: Counter[str] = Counter()
    for seed in range(ROUNDS):
        changed = with_index(blob, mutated(index, first, seed))
        try:
            ours: bytes | None = model_delta.decompress(changed, base, limits=LIMITS, threads=1)
        except Z4Error as error:
            ours = None
            seen[type(error).__name__] += 1
        assert ours in (None, target), f"seed {seed} gave another file"
        if seed % 5 == 0 or ours is not None:
            try:
                theirs: bytes | None = reference_restore(changed, base)
            except ValueError:
                theirs = None
            assert ours == theirs, f"seed {seed}: z4ai and the reference disagree"
        if ours is not None:
            seen["the original"] += 1
    print(f"{name}: {dict(seen)}")
    assert seen.total() == ROUNDS
    assert seen["CorruptError"] > ROUNDS // 5
