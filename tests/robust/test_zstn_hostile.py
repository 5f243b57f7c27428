"""Containers that are cut, flipped or made to deceive: an error, in little time and memory."""

from __future__ import annotations

import io
import json
import os
import struct
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_writer import (
    Tensor,
    assemble,
    safetensors_file,
    safetensors_header,
    write_container,
    write_frame,
    xxh3,
)
from strategies import noise, weights

import z4ai
from z4ai import _wire, model, plan
from z4ai._fast import contexts
from z4ai._reference import restore
from z4ai.container import decode as zstn_decode
from z4ai.dtypes import resolve
from z4ai.encoder import encode_frame
from z4ai.errors import (
    ChecksumError,
    CorruptError,
    FormatError,
    LimitError,
    TruncatedError,
    UnsupportedVersionError,
    Z4Error,
)
from z4ai.frame import FrameHeader
from z4ai.safetensors import ZstnReader, compress_bytes, decompress_bytes, decompress_file

LIMITS = z4ai.Limits(max_output_nbytes=1 << 20, max_table_nbytes=1 << 20)
# Content of a few KiB, the scratch of a wave as far as it is touched, and what Python holds itself.
MOST_MEMORY = 16 << 20

A = Tensor("a", "BF16", (3, 2), weights(12, 2))
B = Tensor("layer.b", "F32", (40,), weights(160, 4))
TIED = Tensor("tied", "F32", (40,), B.data)
EMPTY = Tensor("empty", "F32", (0, 7), b"")
STRANGE = Tensor("strange", "Q5_K", (7,), weights(7, 1))
LARGER = Tensor("larger", "BF16", (500,), weights(1000, 2))
NOISE = Tensor("noise", "U8", (300,), noise(300))
SMALL = [EMPTY, A, B, STRANGE]


def file_of(tensors: list[Tensor]) -> bytes:
    return safetensors_file(safetensors_header(tensors), tensors)


def in_small_chunks(original: bytes) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CHUNK_NBYTES", 256)
        return compress_bytes(original)


#: Small containers of every kind: the container, the file that it holds.
SAMPLES: dict[str, tuple[bytes, bytes]] = {
    "ours": (compress_bytes(file_of(SMALL)), file_of(SMALL)),
    "no tensors": (compress_bytes(file_of([])), file_of([])),
    "only empty": (compress_bytes(file_of([EMPTY])), file_of([EMPTY])),
    "many chunks": (in_small_chunks(file_of([LARGER, NOISE])), file_of([LARGER, NOISE])),
    "shared": (
        write_container([B, TIED], shared={1: 0}),
        file_of([B, TIED]),
    ),
    "groups": (write_container([A, B, STRANGE], groups=[[1, 0], [2]]), file_of([A, B, STRANGE])),
    "streamed": (
        write_container([A, B], frame_options={"streamed": True, "chunk_nbytes": 48}),
        file_of([A, B]),
    ),
    "streamed index": (
        write_container([A], index_options={"streamed": True, "chunk_nbytes": 32}),
        file_of([A]),
    ),
    "zstd index": (
        write_container([A, B], index_options={"plans": [("bytes1", "zstd")]}),
        file_of([A, B]),
    ),
    "bytes": (compress_bytes(b"no safetensors file", fallback="bytes"), b"no safetensors file"),
}


def outcome(container: bytes) -> bytes | str:
    """The restored file, or the name of the error."""
    try:
        return decompress_bytes(container, limits=LIMITS, threads=1)
    except Z4Error as error:
        return type(error).__name__


@pytest.mark.parametrize("name", SAMPLES)
def test_every_flipped_bit_is_an_error_or_the_original(name: str) -> None:
    container, original = SAMPLES[name]
    assert outcome(container) == original
    seen: Counter[str] = Counter()
    damaged = bytearray(container)
    for bit in range(8 * len(container)):
        damaged[bit >> 3] ^= 1 << (bit & 7)
        found = outcome(bytes(damaged))
        damaged[bit >> 3] ^= 1 << (bit & 7)
        if isinstance(found, bytes):
            assert found == original, f"bit {bit} gave another file"
            found = "the original"
        seen[found] += 1
    print(f"{name}: {8 * len(container)} flips: {dict(seen)}")
    assert seen.total() == 8 * len(container)
    # Bits that Zstandard itself does not use.
    assert seen["the original"] <= len(container) // 20
    assert seen["ChecksumError"] > 0


@pytest.mark.parametrize("name", SAMPLES)
def test_every_proper_prefix_is_an_error(name: str, tmp_path: Path) -> None:
    container, _ = SAMPLES[name]
    path = tmp_path / "cut"
    seen: Counter[str] = Counter()
    for n in range(len(container)):
        found = outcome(container[:n])
        assert isinstance(found, str), f"the first {n} bytes restore something"
        seen[found] += 1
        if n % 9:
            continue
        path.write_bytes(container[:n])
        with pytest.raises(FormatError):
            decompress_file(path, tmp_path / "out", threads=1)
    print(f"{name}: {len(container)} prefixes: {dict(seen)}")
    assert seen.total() == len(container)
    assert seen["TruncatedError"] > 0
    assert os.listdir(tmp_path) == ["cut"]
    for behind in (b"\0", b"x" * 48, container):
        assert isinstance(outcome(container + behind), str), "bytes behind the container"


@pytest.mark.parametrize("name", ["ours", "many chunks", "groups", "streamed"])
def test_the_reader_and_the_reference_agree_on_flips(name: str) -> None:
    container, _ = SAMPLES[name]
    compared = 0
    damaged = bytearray(container)
    for bit in range(3, 8 * len(container), 13):
        damaged[bit >> 3] ^= 1 << (bit & 7)
        found = outcome(bytes(damaged))
        try:
            wanted: bytes | None = restore(damaged)
        except ValueError:
            wanted = None
        damaged[bit >> 3] ^= 1 << (bit & 7)
        assert (found if isinstance(found, bytes) else None) == wanted, bit
        compared += 1
    assert compared > 200


def test_the_reader_survives_flips_tensor_by_tensor() -> None:
    """Whatever opens gives right tensors or errors, whole and by slices."""
    container, _ = SAMPLES["ours"]
    right = {t.name: t for t in SMALL}
    opened = read = 0
    damaged = bytearray(container)
    for bit in range(8 * len(container)):
        damaged[bit >> 3] ^= 1 << (bit & 7)
        try:
            reader = ZstnReader.from_bytes(damaged, limits=LIMITS, threads=1)
        except Z4Error:
            reader = None
        if reader is not None:
            opened += 1
            for name in reader:
                try:
                    assert reader.read_raw(name) == right[name].data
                    read += 1
                    if right[name].dtype == "F32":
                        part = reader.read_slice(name, np.s_[1:])
                        assert part.tobytes() == right[name].data[4:] or not right[name].data
                except Z4Error:
                    pass
            del reader
        damaged[bit >> 3] ^= 1 << (bit & 7)
    assert opened > 1000
    assert read > 2 * opened


# --- One rule broken, all checksums right ---------------------------------------------------------

GOOD: dict[str, Any] = {"tensors": [A, B]}
_READER = ZstnReader.from_bytes(write_container([A, B]))
PLACES = [(_READER.frame_offset(t.name), _READER.frame_size(t.name), 0) for t in (A, B)]
(A0, A1, _), (B0, B1, _) = PLACES
END = B0 + B1


def at(*locations: tuple[int, int, int]) -> dict[str, Any]:
    return {"index": {"locations": list(locations)}}


RULES: dict[str, tuple[dict[str, Any], type[Z4Error], str]] = {
    "magic": ({"header": {"magic": b"ZSTM"}}, FormatError, "not a z4ai container"),
    "version 2": ({"header": {"version": 2}}, UnsupportedVersionError, "earlier package"),
    "version 17": ({"header": {"version": 17}}, UnsupportedVersionError, "version 17"),
    "reserved of the header": ({"header": {"reserved": b"\1\0\0"}}, CorruptError, "reserved"),
    "header checksum": ({"header": {"checksum": 1}}, ChecksumError, "checksum"),
    "index_offset below 16": (
        {"footer": {"index_offset": 15, "index_nbytes": 400}},
        CorruptError,
        "index of 400",
    ),
    "index_nbytes": ({"footer": {"index_nbytes": 1}}, CorruptError, "index of 1 bytes"),
    "index_nbytes 2**64-1": (
        {"footer": {"index_nbytes": 2**64 - 1}},
        CorruptError,
        "index of 18446",
    ),
    "index of the whole file": (
        {"footer": {"index_offset": 16, "index_nbytes": 2**63}},
        CorruptError,
        "index of",
    ),
    "original_nbytes": ({"footer": {"original_nbytes": 1}}, CorruptError, "original_nbytes is 1"),
    "reserved of the footer": ({"footer": {"reserved": 1}}, CorruptError, "reserved"),
    "footer checksum": ({"footer": {"checksum": 1}}, ChecksumError, "footer"),
    "footer version": ({"footer": {"version": 17}}, UnsupportedVersionError, "footer has"),
    "last reserved": ({"footer": {"reserved_bytes": b"\1\0\0"}}, CorruptError, "reserved"),
    "footer magic": ({"footer": {"magic": b"IA4Z"}}, TruncatedError, "ends in"),
    "index dtype": ({"index_options": {"dtype": "uint8"}}, CorruptError, "opaque"),
    "header_nbytes above 100 MB": (
        {"index": {"header_nbytes": 100_000_001}},
        CorruptError,
        "does not fit",
    ),
    "header_nbytes 2**64-1": (
        {"index": {"header_nbytes": 2**64 - 1}},
        CorruptError,
        "does not fit",
    ),
    "n_tensors too large": ({"index": {"n_tensors": 3}}, CorruptError, "for 3 tensors"),
    "n_tensors 2**64-1": ({"index": {"n_tensors": 2**64 - 1}}, CorruptError, "bytes of locations"),
    "n_tensors unlike the header": (at(*PLACES, (0, 0, 0)), CorruptError, "3 locations for 2"),
    "bytes behind the locations": ({"index": {"behind": b"x"}}, CorruptError, "bytes of locations"),
    "frame offset below 16": (at((0, B0, 0), PLACES[1]), CorruptError, "hole or overlap"),
    "overlap": (at(PLACES[0], (B0 - 1, B1 + 1, 0)), CorruptError, "hole or overlap"),
    "hole": (at((A0, A1 - 1, 0), PLACES[1]), CorruptError, "hole or overlap"),
    "hole before the index": (at(PLACES[0], (B0, B1 - 1, 0)), CorruptError, "hole or overlap"),
    "overlap with the index": (at(PLACES[0], (B0, B1 + 1, 0)), CorruptError, "hole or overlap"),
    "two sizes of one frame": (at(PLACES[0], (A0, END - A0, 0)), CorruptError, "hole or overlap"),
    "a frame inside a frame": (
        at((A0, END - A0, 0), (A0 + 1, 10, 0)),
        CorruptError,
        "hole or overlap",
    ),
    "frame of zero bytes": (at((A0, END - A0, 0), (END, 0, 0)), CorruptError, "zero bytes"),
    "offsets that wrap": (at(PLACES[0], (2**64 - 1, B1, 0)), CorruptError, "end of any file"),
    "sizes that wrap": (at(PLACES[0], (B0, 2**64 - 1, 0)), CorruptError, "end of any file"),
    "sizes that wrap together": (
        at((A0, 2**63 - 1, 0), (2**63 + A0 - 1, 2**63 - 1, 0)),
        CorruptError,
        "end of any file",
    ),
    "content offset 2**64-1": (
        at(PLACES[0], (*PLACES[1][:2], 2**64 - 1)),
        CorruptError,
        "end of any",
    ),
    "content offset": (at((A0, A1, 1), PLACES[1]), CorruptError, "not within its frame"),
    "wrong frame": (at(PLACES[1], PLACES[0]), CorruptError, "not within its frame"),
}


def test_the_good_container_is_good() -> None:
    assert decompress_bytes(write_container(**GOOD)) == file_of([A, B])
    assert decompress_bytes(write_container(**GOOD, **at(*PLACES))) == file_of([A, B])


@pytest.mark.parametrize("rule", RULES)
def test_rules(rule: str, tmp_path: Path) -> None:
    options, kind, message = RULES[rule]
    container = write_container(**GOOD, **options)
    with pytest.raises(kind, match=message):
        decompress_bytes(container)
    (tmp_path / "f").write_bytes(container)
    with pytest.raises(kind, match=message):
        decompress_file(tmp_path / "f", tmp_path / "out")
    with pytest.raises(kind, match=message), ZstnReader.open(tmp_path / "f") as reader:
        reader.verify()
    with pytest.raises(ValueError, match=r"."):
        restore(container)
    assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("location", [(16, 0, 0), (0, A1, 0), (0, 0, 1), (16, A1, 0)])
def test_a_tensor_of_zero_bytes_has_no_location(location: tuple[int, int, int]) -> None:
    container = write_container([EMPTY, A], **at(location, (16, A1, 0)))
    with pytest.raises(CorruptError, match="zero bytes") as caught:
        decompress_bytes(container)
    assert caught.value.tensor == "empty"


def test_a_json_header_that_breaks_the_rules_names_the_tensor() -> None:
    header = json.dumps({"a": {"dtype": "U8", "shape": [3], "data_offsets": [0, 2]}}).encode()
    container = assemble(
        header, [write_frame(b"ab")], [(0, 0)], original_nbytes=8 + len(header) + 2
    )
    with pytest.raises(CorruptError) as caught:
        decompress_bytes(container)
    assert caught.value.tensor == "a"


def test_a_frame_must_fill_its_place() -> None:
    frame = write_frame(A.data)
    header = safetensors_header([A])
    container = assemble(header, [frame + b"x"], [(0, 0)], original_nbytes=len(file_of([A])))
    with pytest.raises(FormatError) as caught:
        decompress_bytes(container)
    assert caught.value.tensor == "a"


# --- Claims ---------------------------------------------------------------------------------------


def peak(work: Callable[[], Any]) -> int:
    """Most bytes that Python and NumPy held at once; and the work must end in our error."""
    tracemalloc.start()
    try:
        with pytest.raises(Z4Error):
            work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def huge(nbytes: int) -> Tensor:
    return Tensor("huge", "U8", (nbytes,), b"")


def claiming(nbytes: int, frame: bytes, **options: Any) -> bytes:
    """A container whose only tensor claims so many bytes."""
    fields = {"dtype": "U8", "shape": [nbytes], "data_offsets": [0, nbytes]}
    header = json.dumps({"huge": fields}).encode()
    return assemble(header, [frame], [(0, 0)], original_nbytes=8 + len(header) + nbytes, **options)


@pytest.mark.parametrize("nbytes", [1 << 20, 1 << 30, 1 << 40, 1 << 60])
def test_a_tensor_that_claims_more_than_its_frame_allocates_nothing(nbytes: int) -> None:
    container = claiming(nbytes, write_frame(bytes(100), dtype="uint8"))
    no_limits = z4ai.Limits(max_output_nbytes=1 << 63)
    reader = ZstnReader.from_bytes(container, limits=no_limits)
    uses: dict[str, Callable[[], Any]] = {
        "read_raw": lambda: reader.read_raw("huge"),
        "read_numpy": lambda: reader.read_numpy("huge"),
        "read_slice": lambda: reader.read_slice("huge", np.s_[:-1]),
        "verify": reader.verify,
        "decompress_bytes": lambda: decompress_bytes(container),
    }
    for name, use in uses.items():
        assert peak(use) < MOST_MEMORY, name


def test_content_that_its_limit_forbids_is_not_restored() -> None:
    """A frame of a few bytes that holds 64 MiB for each of them, and says the truth."""
    frame = z4ai.compress(bytes(1 << 28), dtype="uint8")
    assert len(frame) < 10_000
    container = claiming(1 << 28, frame)
    reader = ZstnReader.from_bytes(container, limits=LIMITS)
    for use in (
        lambda: reader.read_raw("huge"),
        lambda: reader.read_numpy("huge"),
        lambda: reader.read_slice("huge", np.s_[: 1 << 21]),
        lambda: decompress_bytes(container, limits=LIMITS),
    ):
        with pytest.raises(LimitError, match="max_output_nbytes"):
            use()
        assert peak(use) < MOST_MEMORY
    assert reader.read_slice("huge", np.s_[5:8]).tolist() == [0, 0, 0]
    tracemalloc.start()
    reader.verify()
    assert tracemalloc.get_traced_memory()[1] < 4 * MOST_MEMORY
    tracemalloc.stop()


def test_an_index_that_its_limit_forbids_is_not_restored() -> None:
    content = struct.pack("<Q", 2) + b"{}" + struct.pack("<Q", 0) + bytes(1 << 22)
    index = z4ai.compress(content)
    assert len(index) < 2000
    container = replace_index(write_container([]), index)
    work = lambda: ZstnReader.from_bytes(container, limits=LIMITS)  # noqa: E731 - said once
    with pytest.raises(LimitError, match="max_table_nbytes"):
        work()
    assert peak(work) < MOST_MEMORY


def test_a_json_header_of_a_million_lists_is_not_parsed() -> None:
    header = b'{"a":[' + b"[]," * 200_000 + b"[]]}"
    content = struct.pack("<Q", len(header)) + header + struct.pack("<Q", 1) + bytes(24)
    container = replace_index(write_container([]), z4ai.compress(content))
    assert len(container) < 2000
    work = lambda: ZstnReader.from_bytes(container, limits=LIMITS)  # noqa: E731 - said once
    with pytest.raises(LimitError, match="max_table_nbytes"):
        work()
    assert peak(work) < MOST_MEMORY


def replace_index(container: bytes, index: bytes) -> bytes:
    """An empty container with another index."""
    head = container[:16]
    fields = struct.pack("<QQQQ", 16, len(index), 0, 0)
    checksum = xxh3(fields, struct.unpack("<Q", head[8:])[0])
    return head + index + fields + struct.pack("<QB3x4s", checksum, 16, b"NTSZ")


def test_an_index_as_large_as_a_file_full_of_holes_is_not_read(tmp_path: Path) -> None:
    """A sparse file costs nothing to make and would cost its size to read."""
    head = write_container([])[:16]
    nbytes = 1 << 36
    fields = struct.pack("<QQQQ", 16, nbytes - 64, 10, 0)
    checksum = xxh3(fields, struct.unpack("<Q", head[8:])[0])
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.write(head)
        try:
            file.seek(nbytes - 48)
            file.write(fields + struct.pack("<QB3x4s", checksum, 16, b"NTSZ"))
        except OSError:
            pytest.skip("the file system does not hold sparse files of this size")
    with pytest.raises(LimitError, match="max_table_nbytes"):
        ZstnReader.open(path)
    assert peak(lambda: ZstnReader.open(path)) < MOST_MEMORY


def test_tensors_that_each_want_a_chunk_of_their_own_are_too_much_work() -> None:
    """A thousand tensors of one byte, each in the other of two chunks that hold far more."""
    n = 1000
    frames = [z4ai.compress(bytes(1 << 18), dtype="uint8") for _ in range(2)]
    fields = {f"t{k}": {"dtype": "U8", "shape": [1], "data_offsets": [k, k + 1]} for k in range(n)}
    header = json.dumps(fields).encode()
    container = assemble(
        header,
        frames,
        [(k % 2, 7 * k) for k in range(n)],
        original_nbytes=8 + len(header) + n,
    )
    assert decompress_bytes(container)[-n:] == bytes(n), "within reason it is legal"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("z4ai.container.decode._WASTE_NBYTES", 1 << 24)
        with pytest.raises(CorruptError, match="far more content"):
            decompress_bytes(container)


def test_tiny_frames_with_large_models_are_held_a_wave_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each frame has a few hundred bytes, and a model that takes a MiB once it is read."""
    n, n_columns, nbytes = 60, 1 << 20, 64
    counts = np.zeros((1, 256), np.uint32)
    counts[0, 3] = 1
    table = contexts.write_tables(counts)[0]
    sized = _wire.put_varint(len(table)) + table
    record = model.FIXED.pack(0, model.COLUMNS << model.RECORD_SHIFT, 0)
    record += _wire.put_varint(n_columns) + sized + sized
    classes = np.full(n_columns, 3, np.uint8)
    record += contexts.encode(classes, None, contexts.read_tables(table))
    block = model.parse_model(memoryview(record), 0)
    assert len(record) < 1000 < n_columns < block.nbytes

    uint8 = resolve("uint8")
    content = [noise(nbytes, seed=k) for k in range(n)]
    frames = []
    for own in content:
        header = FrameHeader(uint8, nbytes, 1 << 20, model_record=record)
        chunks = np.frombuffer(own, np.uint8)
        frames.append(encode_frame(chunks, header, plan.make_plan(uint8, "fast"), 1))
    fields = {
        f"t{k}": {"dtype": "U8", "shape": [nbytes], "data_offsets": [k * nbytes, (k + 1) * nbytes]}
        for k in range(n)
    }
    header_bytes = json.dumps(fields).encode()
    container = assemble(
        header_bytes,
        frames,
        [(k, 0) for k in range(n)],
        original_nbytes=8 + len(header_bytes) + n * nbytes,
    )
    assert decompress_bytes(container).endswith(b"".join(content))
    reader = ZstnReader.from_bytes(container)
    for wave, holds_all in ((8 << 20, False), (1 << 30, True)):
        monkeypatch.setattr(zstn_decode, "wave_nbytes", lambda _, wave=wave: wave)
        monkeypatch.setattr(zstn_decode, "IN_PLACE_WAVE_NBYTES", wave)
        for use in (lambda: decompress_bytes(container), reader.verify):
            tracemalloc.start()
            use()
            held = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            # The models of a wave, and what reading one takes; all of them together are 60 MiB.
            assert (held > n << 20) if holds_all else (held < 2 * (8 << 20) + (4 << 20))


def test_a_file_object_that_lies_about_its_size_is_truncated() -> None:
    class Lying(io.BytesIO):
        def seek(self, offset: int, whence: int = 0) -> int:
            found = super().seek(offset, whence)
            return found + 1000 if whence == 2 else found

    container, _ = SAMPLES["ours"]
    with pytest.raises(TruncatedError):
        ZstnReader.open(Lying(container))


def test_a_file_that_is_cut_off_while_it_is_read_is_an_error(tmp_path: Path) -> None:
    container, _ = SAMPLES["many chunks"]
    path = tmp_path / "f"
    path.write_bytes(container)
    with ZstnReader.open(path) as reader:
        os.truncate(path, 100)
        with pytest.raises(TruncatedError):
            reader.read_raw("noise")
        with pytest.raises(FormatError):
            reader.verify()
