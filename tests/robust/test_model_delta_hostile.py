"""Model deltas that are cut, flipped or made to deceive, and other bases: an error, always."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_pairs import PAIRS, file_of, nudged, tensor, tuned
from reference_writer import Tensor
from strategies import noise

import z4ai
from z4ai import model_delta
from z4ai._fast.hashing import xxh3_64
from z4ai._reference.model_delta import restore as reference_restore
from z4ai.align import Piece
from z4ai.container import st_header
from z4ai.container.source import source_of_buffer
from z4ai.delta_encoder import encode_delta
from z4ai.deltas import contents, z4dm
from z4ai.deltas.records import (
    BLOCKS,
    COPY,
    FRAME,
    FROM_PIECES,
    FROM_TARGET,
    FROM_WHOLE,
    SCRATCH,
    Block,
    Entry,
)
from z4ai.dtypes import resolve
from z4ai.errors import (
    BaseMismatchError,
    ChecksumError,
    CorruptError,
    FormatError,
    LimitError,
    TruncatedError,
    Z4Error,
)
from z4ai.options import NO_LIMITS

LIMITS = z4ai.Limits(max_output_nbytes=1 << 22, max_table_nbytes=1 << 20)
MOST_MEMORY = 24 << 20

BASE = [
    tensor("a", "BF16", (10, 12), 1),
    tensor("b", "F32", (30,), 2),
    tensor("c", "U8", (40,), 3),
    tensor("gone", "BF16", (20, 30), 4),
    Tensor("e", "F32", (0,), b""),
]
TARGET = [
    BASE[0],
    tuned(BASE[1]),
    tensor("c2", "U8", (50,), 5),
    tuned(replace(BASE[3], name="found")),
    replace(tuned(BASE[3]), name="tied"),
    BASE[4],
]


def small_delta() -> tuple[bytes, bytes, bytes]:
    """A model delta of a few hundred bytes: of every way, as far as so few bytes go."""
    target, base = file_of(TARGET), file_of(BASE)
    return model_delta.compress(target, base), target, base


def outcome(blob: bytes, base: bytes) -> bytes | str:
    try:
        return model_delta.decompress(blob, base, limits=LIMITS, threads=1)
    except Z4Error as error:
        return type(error).__name__


# --- Damage ---------------------------------------------------------------------------------------


def test_every_flipped_bit_is_an_error_or_the_original() -> None:
    blob, target, base = small_delta()
    assert outcome(blob, base) == target
    seen: Counter[str] = Counter()
    damaged = bytearray(blob)
    for bit in range(8 * len(blob)):
        damaged[bit >> 3] ^= 1 << (bit & 7)
        found = outcome(bytes(damaged), base)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        if isinstance(found, bytes):
            assert found == target, f"bit {bit} gave another file"
            found = "the original"
        seen[found] += 1
    print(f"{8 * len(blob)} flips: {dict(seen)}")
    assert seen.total() == 8 * len(blob)
    assert seen["the original"] <= len(blob) // 20
    assert seen["ChecksumError"] > 0


def test_every_prefix_is_an_error() -> None:
    blob, _, base = small_delta()
    seen: Counter[str] = Counter()
    for n in range(len(blob)):
        found = outcome(blob[:n], base)
        assert isinstance(found, str), f"{n} of {len(blob)} bytes gave a file"
        seen[found] += 1
    print(dict(seen))
    assert seen["TruncatedError"] > len(blob) // 2
    assert isinstance(outcome(blob + b"\0", base), str)


def test_lazy_reads_notice_every_flipped_bit() -> None:
    blob, _, base = small_delta()
    data = {t.name: t.data for t in TARGET}
    damaged = bytearray(blob)
    n_read = 0
    for bit in range(0, 8 * len(blob), 7):
        damaged[bit >> 3] ^= 1 << (bit & 7)
        try:
            with model_delta.open(bytes(damaged), base, limits=LIMITS, threads=1) as reader:
                for name, expected in data.items():
                    try:
                        assert reader.read_raw(name) == expected, f"bit {bit}: another {name}"
                        n_read += 1
                    except Z4Error:
                        pass
        except Z4Error:
            pass
        damaged[bit >> 3] ^= 1 << (bit & 7)
    assert n_read > 0


# --- Another base ---------------------------------------------------------------------------------


def swapped(tensors: list[Tensor]) -> list[Tensor]:
    """The same bytes under swapped names."""
    one, other = tensors[1], tensors[2]
    return [tensors[0], replace(one, data=other.data), replace(other, data=one.data), *tensors[3:]]


def _flipped(tensors: list[Tensor]) -> list[Tensor]:
    data = bytearray(tensors[-1].data)
    data[-1] ^= 1
    return [*tensors[:-1], replace(tensors[-1], data=bytes(data))]


WRONG: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
    "one bit, in a tensor that is not used": _flipped,
    "swapped names": swapped,
    "another shape": lambda ts: [replace(ts[0], shape=ts[0].shape[::-1]), *ts[1:]],
    "another dtype": lambda ts: [replace(ts[0], dtype="F16"), *ts[1:]],
    "a name more": lambda ts: [*ts, Tensor("x", "F32", (0,), b"")],
    "one less": lambda ts: ts[1:],
    "none": lambda ts: [],
    "unrelated": lambda ts: [replace(t, data=noise(len(t.data), 77)) for t in ts],
    "renamed": lambda ts: [replace(t, name="x" + t.name) for t in ts],
}


@pytest.mark.parametrize("name", WRONG)
def test_another_base_is_refused_and_the_target_untouched(name: str, tmp_path: Path) -> None:
    base = [tensor(f"w{k}", "BF16", (150, 160), k) for k in range(4)]
    target = [base[0], *map(tuned, base[1:3])]
    other = WRONG[name](base)
    blob = model_delta.compress(file_of(target), file_of(base))
    with pytest.raises(BaseMismatchError) as caught:
        model_delta.decompress(blob, file_of(other))
    if sum(len(t.data) for t in other) == sum(len(t.data) for t in base):
        digest = model_delta.info(blob)["base_digest"]
        assert digest in str(caught.value)
        assert str(caught.value).count("digest ") >= 1
    (tmp_path / "d").write_bytes(blob)
    (tmp_path / "b").write_bytes(file_of(other))
    (tmp_path / "out").write_bytes(b"as it was")
    with pytest.raises(BaseMismatchError):
        model_delta.decompress_file(tmp_path / "d", tmp_path / "b", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"as it was"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "d", "out"]
    with pytest.raises(ValueError, match="base"):
        reference_restore(blob, file_of(other))
    # Single tensors: what is read is right, or an error.
    try:
        with model_delta.open(blob, file_of(other)) as reader:
            for t in target:
                try:
                    assert reader.read_raw(t.name) == t.data
                except BaseMismatchError:
                    continue
            with pytest.raises(BaseMismatchError):
                reader.verify()
    except BaseMismatchError:
        pass


def test_damage_leaves_the_target_untouched(tmp_path: Path) -> None:
    blob, target, base = small_delta()
    (tmp_path / "b").write_bytes(base)
    (tmp_path / "out").write_bytes(b"as it was")
    for n in (0, 3, 20, len(blob) // 2, len(blob) - 1):
        (tmp_path / "d").write_bytes(blob[:n])
        with pytest.raises(FormatError):
            model_delta.decompress_file(tmp_path / "d", tmp_path / "b", tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == b"as it was"
    (tmp_path / "d").write_bytes(blob)
    model_delta.decompress_file(tmp_path / "d", tmp_path / "b", tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == target
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "d", "out"]


def test_a_target_that_is_not_what_the_footer_says_is_an_error() -> None:
    blob, _, base = small_delta()
    found = z4dm.parse_model_delta(source_of_buffer(blob), NO_LIMITS)
    ends = found.ends._replace(target_digest=found.ends.target_digest ^ 1)
    with pytest.raises(ChecksumError, match="restored has digest"):
        model_delta.decompress(rewritten(blob, ends=ends), base)


# --- Made to deceive ------------------------------------------------------------------------------


def rewritten(
    blob: bytes,
    entries: list[Entry] | None = None,
    *,
    frames: bytes | None = None,
    checksums: list[int] | None = None,
    ends: z4dm.Ends | None = None,
) -> bytes:
    """A model delta with another index, all checksums right."""
    found = z4dm.parse_model_delta(source_of_buffer(blob), NO_LIMITS)
    end = int.from_bytes(blob[-80:-72], "little")
    start = blob[:end] if frames is None else blob[:16] + frames
    return start + z4dm.write_end(
        found.header_bytes,
        found.entries if entries is None else entries,
        found.checksums if checksums is None else checksums,
        found.header.data_nbytes,
        len(start),
        found.ends if ends is None else ends,
        "balanced",
    )


N = 300 * 100
HOST = [tensor("w", "BF16", (300, 100), 1), tensor("x", "BF16", (300, 100), 2)]
KNOWN = [replace(HOST[0], data=nudged(HOST[0].data, "BF16", 5)), HOST[1]]


def frame_of(data: bytes, dtype: str = "bf16") -> bytes:
    return z4ai.compress(data, dtype=dtype)


def delta_of(target: bytes, reference: bytes, **options: Any) -> bytes:
    one, other = np.frombuffer(target, np.uint8), np.frombuffer(reference, np.uint8)
    return encode_delta(one, other, resolve("bf16"), "balanced", None, 1, **options)


def made(make: Callable[[bytes], tuple[list[Entry], bytes]]) -> tuple[bytes, bytes, bytes]:
    """A delta of HOST on KNOWN whose entries and frames are what `make` says."""
    target, base = file_of(HOST), file_of(KNOWN)
    blob = model_delta.compress(target, base)
    delta = delta_of(HOST[0].data, KNOWN[0].data)
    entries, frames = make(delta)
    return (
        rewritten(blob, entries, frames=frames, checksums=[7, 8][: _groups(entries)]),
        target,
        base,
    )


def _groups(entries: list[Entry]) -> int:
    tensors = st_header.parse(file_of(HOST)[8 : 8 + file_of(HOST)[0] + 256 * file_of(HOST)[1]])
    return len(z4dm.copy_groups(entries, tensors.tensors))


C = Entry(COPY)
P = Piece


def pieces(*found: Piece, outer: int = 1, coding: int = FRAME, **fields: Any) -> Entry:
    return Entry(coding, FROM_PIECES, outer=outer, pieces=found, **fields)


def one(entry: Entry) -> Callable[[bytes], tuple[list[Entry], bytes]]:
    """The first tensor as `entry` says; its frame the right delta frame."""

    def make(delta: bytes) -> tuple[list[Entry], bytes]:
        mine = entry
        if entry.coding == FRAME and entry.location is None:
            mine = entry._replace(location=(16, len(delta), 0))
        if entry.coding == BLOCKS and not entry.blocks:
            mine = entry._replace(blocks=(Block(True, (16, len(delta))),))
        uses = mine.coding != COPY
        return [mine, C], delta if uses else b""

    return make


DECEIVING: dict[str, tuple[Callable[[bytes], tuple[list[Entry], bytes]], type[Z4Error], str]] = {
    "no such base tensor": (
        one(Entry(FRAME, FROM_WHOLE, source=2)),
        CorruptError,
        "no such tensor",
    ),
    "no such base tensor by far": (
        one(Entry(FRAME, FROM_WHOLE, source=1 << 63)),
        CorruptError,
        "no such tensor",
    ),
    "copy of itself": (
        lambda _: ([Entry(COPY, FROM_TARGET, source=0), C], b""),
        CorruptError,
        "copy of tensor",
    ),
    "copy of what follows": (
        lambda _: ([Entry(COPY, FROM_TARGET, source=1), C], b""),
        CorruptError,
        "copy of tensor",
    ),
    "too narrow": (one(pieces(P(N - 1, 0, N, 0, False))), CorruptError, "do not fill"),
    "too wide": (one(pieces(P(N, 0, N, 0, False), P(1, 0, N, 0, False))), CorruptError, "fill"),
    "out of a row": (one(pieces(P(N, 0, N, 1, False))), CorruptError, "in rows of"),
    "out of the base": (one(pieces(P(N, 0, N + 1, 1, False))), CorruptError, "alignment"),
    "rows out of the base": (
        one(pieces(P(100, 0, 101, 1, False), outer=300)),
        CorruptError,
        "alignment",
    ),
    "rows that do not divide": (
        one(pieces(P(100, 0, 100, 0, False), outer=299)),
        CorruptError,
        "299 rows",
    ),
    "no rows": (one(pieces(P(100, 0, 100, 0, False), outer=0)), CorruptError, "0 rows"),
    "huge numbers": (
        one(pieces(P((1 << 64) - 1, 0, (1 << 64) - 1, 0, False))),
        CorruptError,
        "do not fill",
    ),
    "new in a frame": (one(pieces(P(N, -1, 0, 0, False))), CorruptError, "without a reference"),
    "new in a copy": (
        one(pieces(P(N, -1, 0, 0, False), coding=COPY)),
        CorruptError,
        "without a reference",
    ),
    "few of long rows": (
        one(pieces(*[P(1, 0, 300, 0, False)] * 300, outer=100)),
        CorruptError,
        "too few",
    ),
    "blocks of nothing": (one(Entry(BLOCKS, block=0)), CorruptError, "blocks of 0"),
    "blocks too small": (one(Entry(BLOCKS, block=1)), CorruptError, "blocks of 1 "),
    "blocks too large": (one(Entry(BLOCKS, block=1 << 24 | 1)), CorruptError, "blocks of"),
    "frames that overlap": (
        lambda d: ([Entry(FRAME, location=(16, len(d), 0)), Entry(FRAME, location=(17, 9, 0))], d),
        CorruptError,
        "hole or overlap",
    ),
    "a hole": (
        lambda d: ([Entry(FRAME, location=(17, len(d), 0)), C], b"\0" + d),
        CorruptError,
        "hole or overlap",
    ),
    "not at the beginning": (
        lambda d: ([Entry(FRAME, location=(16, len(d), 2)), C], d),
        CorruptError,
        "hole or overlap",
    ),
    "two in one place": (
        lambda d: ([Entry(FRAME, location=(16, len(d), 0))] * 2, d),
        CorruptError,
        "hole or overlap",
    ),
    "far away": (
        lambda d: ([Entry(FRAME, location=(1 << 63, len(d), 0)), C], d),
        CorruptError,
        "behind the end",
    ),
    "a frame that is a delta frame too": (
        lambda d: (
            [Entry(FRAME, location=(16, len(d), 0)), Entry(SCRATCH, location=(16, len(d), 0))],
            d,
        ),
        FormatError,
        ".",
    ),
    "factors of two tensors": (
        lambda d: (
            [
                Entry(FRAME, location=(at, len(d), 0), factors=(16 + len(d), 40))
                for at in (16, 56 + len(d))
            ],
            d + bytes(40) + d,
        ),
        CorruptError,
        "factors share",
    ),
    "factors that are a tensor too": (
        lambda d: (
            [
                Entry(FRAME, location=(16, len(d), 0), factors=(16 + len(d), 40)),
                Entry(SCRATCH, location=(16 + len(d), 40, 0)),
            ],
            d + bytes(40),
        ),
        CorruptError,
        "factors share",
    ),
    "factors of nothing": (
        lambda d: (
            [Entry(FRAME, location=(16, len(d), 0), factors=(16 + len(d), 40)), C],
            d + bytes(40),
        ),
        FormatError,
        ".",
    ),
}


def read_all(blob: bytes, base: bytes) -> list[bytes | memoryview]:
    with model_delta.open(blob, base) as reader:
        return [reader.read_raw(name) for name in reader]


@pytest.mark.parametrize("name", DECEIVING)
def test_what_an_index_claims_is_checked(name: str) -> None:
    make, kind, message = DECEIVING[name]
    blob, _, base = made(make)
    with pytest.raises(kind, match=message):
        model_delta.decompress(blob, base)
    with pytest.raises(kind, match=message):
        read_all(blob, base)
    with pytest.raises(ValueError, match=r"."):
        reference_restore(blob, base)


def _frames(frame: bytes) -> Callable[[bytes], tuple[list[Entry], bytes]]:
    return lambda _: ([Entry(FRAME, location=(16, len(frame), 0)), C], frame)


LYING = {
    "content of another size": delta_of(HOST[0].data[:-2], KNOWN[0].data[:-2]),
    "no delta frame": frame_of(HOST[0].data),
    "a frame that tells of its reference": delta_of(HOST[0].data, KNOWN[0].data, digest=5),
    "garbage": noise(200),
}


@pytest.mark.parametrize("name", LYING)
def test_what_a_frame_claims_is_checked(name: str) -> None:
    blob, _, base = made(_frames(LYING[name]))
    with pytest.raises(FormatError):
        model_delta.decompress(blob, base)
    with pytest.raises(ValueError, match=r"."):
        reference_restore(blob, base)


def test_a_copy_that_is_none_is_noticed() -> None:
    blob, _, base = made(lambda _: ([C, C], b""))
    with pytest.raises(ChecksumError, match="checksum"):
        model_delta.decompress(blob, base)
    with model_delta.open(blob, base) as reader, pytest.raises(ChecksumError, match="checksum"):
        reader.read_raw("w")


def test_blocks_that_share_a_delta_frame_are_told_apart() -> None:
    """What is new in each is its own; a part of a block is read as the whole is."""
    known, *new = (noise(2000, seed) for seed in range(3))
    base = file_of([Tensor("k", "BF16", (1000,), known)])
    tensors = [Tensor(name, "BF16", (2000,), known + n) for name, n in zip("ab", new, strict=True)]
    delta, frames = delta_of(known, known), [frame_of(n) for n in new]
    entries, at = [], 16 + len(delta)
    for frame in frames:
        blocks = (Block(True, (16, len(delta)), (at, len(frame))),)
        found = P(1000, 0, 1000, 0, False), P(1000, -1, 0, 0, False)
        entries.append(pieces(*found, coding=BLOCKS, block=2000, blocks=blocks))
        at += len(frame)
    blob = model_delta.compress(file_of(tensors), base)
    blob = rewritten(blob, entries, frames=b"".join([delta, *frames]), checksums=[])
    assert reference_restore(blob, base) == file_of(tensors)
    assert model_delta.decompress(blob, base) == file_of(tensors)
    with model_delta.open(blob, base) as reader:
        parts = [reader.read(k, 1, 3999).tobytes() for k in (0, 1, 0)]
    assert parts == [(known + n)[1:-1] for n in (new[0], new[1], new[0])]


def huge(entry: Entry, shape: tuple[int, ...]) -> bytes:
    """A small file of a large tensor, by its index."""
    nbytes = 2 * int(np.prod([float(n) for n in shape]))
    tensors = [st_header.Tensor("t", "BF16", shape, 0, nbytes)]
    header = st_header.write(tensors, None)
    base = file_of(KNOWN)
    known = z4dm.parse_model_delta(source_of_buffer(model_delta.compress(base, base)), NO_LIMITS)
    checksums = [0] * len(z4dm.copy_groups([entry], tensors))
    end = z4dm.write_end(header, [entry], checksums, nbytes, 16, known.ends, "balanced")
    return z4dm.write_start() + end


def measured(call: Callable[[], Any], kind: type[Z4Error]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(kind):
            call()
        assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_huge_claims_take_no_memory() -> None:
    base = file_of(KNOWN)
    blob = huge(Entry(COPY, FROM_WHOLE, source=0), (1 << 30, 100))
    measured(lambda: model_delta.decompress(blob, base, limits=LIMITS), LimitError)
    measured(lambda: model_delta.open(blob, base, limits=LIMITS), CorruptError)
    many = huge(
        Entry(BLOCKS, block=1 << 19, blocks=(Block(True, (16, 9)),) * 200_000), (1 << 20, 100_000)
    )
    measured(lambda: model_delta.open(many, base, limits=LIMITS), LimitError)
    some = huge(pieces(*[P(1, 0, 1, 0, False)] * 4096, coding=COPY), (4096,))
    little = LIMITS._replace(max_table_nbytes=200 * 4095)
    measured(lambda: model_delta.open(some, base, limits=little), LimitError)
    more = huge(pieces(*[P(1, 0, 1, 0, False)] * 4097, coding=COPY), (4097,))
    measured(lambda: model_delta.info(more, limits=LIMITS), CorruptError)


def test_many_tensors_in_turns_of_large_delta_frames_are_no_bomb(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tensors that take turns lying in delta frames: none is decoded again for each."""
    monkeypatch.setattr("z4ai.deltas.contents._HELD_NBYTES", 0)
    monkeypatch.setattr("z4ai.deltas.contents._WASTE_NBYTES", 0)
    monkeypatch.setattr("z4ai.deltas.contents._WASTE_FACTOR", 1)
    base = [tensor(f"{'ab'[k % 2]}{k:03}", ["BF16", "F16"][k % 2], (200,), k) for k in range(400)]
    target = list(map(tuned, base))
    blob = model_delta.compress(file_of(target), file_of(base))
    with pytest.raises(CorruptError, match="far more content"):
        model_delta.decompress(blob, file_of(base))


def test_reserved_bits_are_refused() -> None:
    blob, _, base = small_delta()
    for at, n in ((5, 3), (len(blob) - 7, 3)):
        for k in range(at, at + n):
            damaged = bytearray(blob)
            damaged[k] = 1
            if at == 5:
                damaged[8:16] = xxh3_64(bytes(damaged[:8])).to_bytes(8, "little")
            with pytest.raises(CorruptError, match="reserved"):
                model_delta.decompress(bytes(damaged), base)


def test_versions_and_magics() -> None:
    blob, target, base = small_delta()
    with pytest.raises(FormatError, match="not a model delta"):
        model_delta.decompress(target, base)
    with pytest.raises(ValueError, match="earlier package"):
        model_delta.decompress(blob[:4] + b"\x01" + blob[5:], base)
    with pytest.raises(TruncatedError):
        model_delta.decompress(blob[:4], base)


def test_a_reader_may_serve_many_deltas(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it decodes in vain is little beside what it is asked for, however often that is."""
    monkeypatch.setattr("z4ai.deltas.contents._HELD_NBYTES", 0)
    monkeypatch.setattr("z4ai.deltas.contents._WASTE_NBYTES", 0)
    monkeypatch.setattr("z4ai.deltas.restore._COPY_NBYTES", 1 << 10)
    base = [tensor(name, "F32", (100, 200), k) for k, name in enumerate("xyz")]
    target = file_of(list(map(tuned, base)))
    with model_delta.open(model_delta.compress(target, file_of(base)), file_of(base)) as reader:
        copy = model_delta.compress(target, reader)
        for _ in range(50):
            assert model_delta.decompress(copy, reader) == target


def turning(n: int, sources: Callable[[int], int]) -> tuple[bytes, bytes]:
    """A delta of so many bytes, each of a transposed tensor."""
    base = file_of([tensor(name, "U8", (300, 200), 1) for name in "ab"])
    tensors = [st_header.Tensor(f"t{k}", "U8", (1,), k, k + 1) for k in range(n)]
    entries = [pieces(P(1, sources(k), 60_000, k, True), coding=COPY) for k in range(n)]
    ends = z4dm.parse_model_delta(
        source_of_buffer(model_delta.compress(base, base)), NO_LIMITS
    ).ends
    checksums = [0] * len(z4dm.copy_groups(entries, tensors))
    end = z4dm.write_end(st_header.write(tensors, None), entries, checksums, n, 16, ends, "fast")
    return z4dm.write_start() + end, base


def test_matrices_transposed_again_and_again_are_no_bomb(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of a byte may ask for it; thousands of them are a few hundred bytes."""
    monkeypatch.setattr("z4ai.deltas.contents._WASTE_NBYTES", 0)
    transposed = 0
    contiguous = np.ascontiguousarray

    def counted(array: Any) -> Any:
        nonlocal transposed
        transposed += 1
        return contiguous(array)

    monkeypatch.setattr("z4ai.align.source.np.ascontiguousarray", counted)
    blob, base = turning(3000, lambda k: k % 2)
    with pytest.raises(CorruptError, match="far more content of the base is transposed"):
        model_delta.decompress(blob, base)
    assert 64 < transposed < 200
    transposed = 0
    blob, base = turning(3000, lambda k: 0)
    with pytest.raises(ChecksumError):
        model_delta.decompress(blob, base)
    assert transposed < 8  # one of them that of the matrix


LIMITED = {
    "_MOST_FRAME_NBYTES": (1 << 26, "frame of .* bytes, expected at most"),
    "MOST_BLOCK_NBYTES": (1 << 25, "bytes in a delta frame, expected at most"),
    "_MOST_FACTORS_NBYTES": (1 << 26, "factors of .* bytes"),
}


@pytest.mark.parametrize("name", LIMITED)
def test_what_is_too_large_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limits of the page, made smaller."""
    limit, message = LIMITED[name]
    target, base = map(file_of, PAIRS["merged"]())
    blob = model_delta.compress(target, base)
    assert model_delta.info(blob)["n_lowrank"] == 1
    assert getattr(contents, name) == limit
    monkeypatch.setattr(contents, name, 100)
    with pytest.raises(CorruptError, match=message):
        model_delta.decompress(blob, base)


@pytest.mark.parametrize("dtype", ["uint8", "array"])
def test_factors_are_opaque_bytes(dtype: str) -> None:
    target, base = map(file_of, PAIRS["merged"]())
    blob = model_delta.compress(target, base)
    found = z4dm.parse_model_delta(source_of_buffer(blob), NO_LIMITS)
    at, nbytes = next(entry.factors for entry in found.entries if entry.factors)
    end = int.from_bytes(blob[-80:-72], "little")

    def with_factors(frame: bytes) -> bytes:
        """The same beside another frame of factors."""

        def moved(entry: Entry) -> Entry:
            if entry.factors:
                entry = entry._replace(factors=(at, len(frame)))
            if entry.location and entry.location[0] > at:
                offset, *rest = entry.location
                entry = entry._replace(location=(offset + len(frame) - nbytes, *rest))
            return entry

        frames = blob[16:at] + frame + blob[at + nbytes : end]
        return rewritten(blob, list(map(moved, found.entries)), frames=frames)

    content = z4ai.decompress(blob[at : at + nbytes])
    same = with_factors(z4ai.compress(content, effort="fast"))
    assert model_delta.decompress(same, base) == target
    whole = np.frombuffer(content, np.uint8)
    wrong = z4ai.compress_array(whole) if dtype == "array" else z4ai.compress(content, dtype=dtype)
    with pytest.raises(CorruptError, match="not a frame of opaque bytes"):
        model_delta.decompress(with_factors(wrong), base)
    with pytest.raises(ValueError, match="not a frame of opaque bytes"):
        reference_restore(with_factors(wrong), base)


def test_blocks_beside_factors_are_whole_rows() -> None:
    def blocks(n: int) -> Entry:
        there = (Block(True, (16, 9)),) * -(-2_000_000 // n)
        return Entry(BLOCKS, factors=(25, 9), block=n, blocks=there)

    for n in (600_001, 999_999):
        with pytest.raises(CorruptError, match="factors ask for rows"):
            model_delta.info(huge(blocks(n), (2000, 1000)))
    for n in (600_000, 2_000_000, 2_000_001):
        with pytest.raises(CorruptError, match="hole or overlap"):
            model_delta.info(huge(blocks(n), (2000, 1000)))
