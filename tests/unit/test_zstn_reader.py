"""`ZstnReader`: one tensor, a part of one, from files, file objects and memory, by many threads."""

from __future__ import annotations

import gzip
import io
import json
import mmap
import os
import struct
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reference_writer import Tensor, safetensors_file, safetensors_header, write_container
from strategies import weights

import z4ai
from z4ai import plan
from z4ai.container import decode as zstn_decode
from z4ai.container import encode as zstn_encode
from z4ai.container.source import open_source
from z4ai.errors import CorruptError, LimitError
from z4ai.safetensors import ZstnReader, compress_bytes

SHAPE = (11, 7, 5)
N = 11 * 7 * 5
TENSORS = [
    Tensor("bf16", "BF16", SHAPE, weights(2 * N, 2)),
    Tensor("fp8", "F8_E4M3", (N,), weights(N, 1)),
    Tensor("e5m2", "F8_E5M2", (N,), weights(N, 1)),
    Tensor("e8m0", "F8_E8M0", (N,), weights(N, 1)),
    Tensor("fnuz", "F8_E4M3FNUZ", (N,), weights(N, 1)),
    Tensor("fp32", "F32", SHAPE, weights(4 * N, 4)),
    Tensor("complex", "C64", SHAPE, weights(8 * N, 4)),
    Tensor("bool", "BOOL", (4,), b"\0\1\1\0"),
    Tensor("scalar", "F64", (), weights(8, 8)),
    Tensor("empty", "I16", (3, 0, 2), b""),
    Tensor("fp4", "F4", (6,), b"abc"),
    Tensor("fp6", "F6_E2M3", (4,), b"xyz"),
    Tensor("strange", "Q5_K", (2,), b"12345"),
]
NUMPY = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp8": np.dtype(ml_dtypes.float8_e4m3fn),
    "e5m2": np.dtype(ml_dtypes.float8_e5m2),
    "e8m0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "fnuz": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "fp32": np.dtype(np.float32),
    "complex": np.dtype(np.complex64),
    "bool": np.dtype(bool),
    "scalar": np.dtype(np.float64),
    "empty": np.dtype(np.int16),
}
HEADER = safetensors_header(TENSORS, metadata={"format": "pt"}, padding=3)
PACKED = compress_bytes(safetensors_file(HEADER, TENSORS))


def array_of(t: Tensor) -> np.ndarray[Any, Any]:
    return np.frombuffer(t.data, NUMPY[t.name]).reshape(t.shape)


class NoReadinto:
    """A file object with as little as can be: seek and read, a few bytes at a time."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def read(self, nbytes: int) -> bytes:
        return self._file.read(min(nbytes, 7))

    def writable(self) -> bool:
        return False


def open_path(path: Path) -> ZstnReader:
    return ZstnReader.open(path)


DOORS: dict[str, Callable[[Path], ZstnReader]] = {
    "path": open_path,
    "str": lambda path: ZstnReader.open(str(path)),
    "one thread": lambda path: ZstnReader.open(path, threads=1),
    "buffered file": lambda path: ZstnReader.open(path.open("rb")),
    "raw file": lambda path: ZstnReader.open(path.open("rb", buffering=0)),
    "file for both": lambda path: ZstnReader.open(path.open("r+b")),
    "BytesIO": lambda path: ZstnReader.open(io.BytesIO(path.read_bytes())),
    "reads a little": lambda path: ZstnReader.open(NoReadinto(path.read_bytes())),  # type: ignore[arg-type]
    "from_bytes": lambda path: ZstnReader.from_bytes(path.read_bytes()),
    "from bytearray": lambda path: ZstnReader.from_bytes(bytearray(path.read_bytes())),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.zstn"
    path.write_bytes(PACKED)
    return path


@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize("door", DOORS)
def test_every_door(door: str, path: Path) -> None:
    with DOORS[door](path) as reader:
        assert reader.names() == [t.name for t in TENSORS]
        for t in TENSORS:
            assert reader.read_raw(t.name) == t.data
            if t.name in NUMPY:
                array = reader.read_numpy(t.name)
                assert array.dtype == NUMPY[t.name]
                assert array.shape == t.shape
                assert array.tobytes() == t.data
                assert array.flags.writeable
                assert array.flags.c_contiguous
        reader.verify()
        reader.verify(threads=1)


def test_what_is_in_it() -> None:
    reader = ZstnReader.from_bytes(PACKED)
    names = [t.name for t in TENSORS]
    assert reader.names() == reader.keys() == list(reader) == names
    assert len(reader) == len(names)
    assert "bf16" in reader
    assert "bf" not in reader
    assert 3 not in reader
    assert reader.header() == json.loads(HEADER)
    assert reader.header_bytes == HEADER
    assert reader.metadata() == {"format": "pt"}
    for t in TENSORS:
        assert reader.dtype(t.name) == t.dtype
        assert reader.shape(t.name) == t.shape
        assert reader.nbytes(t.name) == len(t.data)
        assert (reader.frame_size(t.name) > 0) == bool(t.data)
    frames = {reader.frame_offset(t.name): reader.frame_size(t.name) for t in TENSORS if t.data}
    assert 16 + sum(frames.values()) < reader.compressed_nbytes == len(PACKED)
    assert reader.original_nbytes == len(safetensors_file(HEADER, TENSORS))
    assert repr(reader) == f"<ZstnReader: {len(names)} tensors, {reader.original_nbytes} bytes>"
    # What is returned is the caller's to change.
    reader.header().clear()
    reader.names().clear()
    metadata = reader.metadata()
    assert metadata is not None
    metadata.clear()
    assert reader.metadata() == {"format": "pt"}


def test_no_metadata_is_none() -> None:
    packed = compress_bytes(safetensors_file(b"{}", []))
    assert ZstnReader.from_bytes(packed).metadata() is None
    assert ZstnReader.from_bytes(packed).names() == []


def test_an_unknown_name_is_a_key_error_with_close_matches() -> None:
    reader = ZstnReader.from_bytes(PACKED)
    reads: list[Callable[[str], Any]] = [
        reader.read_numpy,
        reader.read_raw,
        reader.dtype,
        reader.shape,
        reader.frame_size,
        lambda name: reader.read_slice(name, 0),
    ]
    for read in reads:
        with pytest.raises(KeyError, match="did you mean 'bf16'"):
            read("bf17")
        with pytest.raises(KeyError, match="no tensor 'nothing like it'"):
            read("nothing like it")


@pytest.mark.parametrize("name", ["fp4", "fp6", "strange"])
def test_a_dtype_without_numpy_form_points_to_read_raw(name: str) -> None:
    reader = ZstnReader.from_bytes(PACKED)
    with pytest.raises(TypeError, match="read_raw"):
        reader.read_numpy(name)
    with pytest.raises(TypeError, match="read_raw"):
        reader.read_slice(name, 0)


def test_read_raw_into_the_callers_memory() -> None:
    reader = ZstnReader.from_bytes(PACKED)
    data = TENSORS[0].data
    out = bytearray(b"\xaa" * (len(data) + 5))
    found = reader.read_raw("bf16", out=out)
    assert isinstance(found, memoryview)
    assert found == data
    assert out == data + b"\xaa" * 5
    array = np.zeros(SHAPE, ml_dtypes.bfloat16)
    assert reader.read_raw("bf16", array) == data
    assert array.tobytes() == data
    small = bytearray(len(data) - 1)
    with pytest.raises(ValueError, match="out has"):
        reader.read_raw("bf16", out=small)
    assert not any(small)
    with pytest.raises(ValueError, match="read-only"):
        reader.read_raw("bf16", out=bytes(len(data)))


def test_a_closed_reader_is_a_value_error(path: Path) -> None:
    for reader in (ZstnReader.open(path), ZstnReader.from_bytes(PACKED)):
        reader.close()
        reader.close()
        uses: list[Callable[[], Any]] = [
            lambda r=reader: r.read_numpy("bf16"),
            lambda r=reader: r.read_raw("bf16"),
            lambda r=reader: r.read_slice("bf16", 0),
            lambda r=reader: r.shape("bf16"),
            lambda r=reader: r.verify(),
            lambda r=reader: r.__enter__(),
        ]
        for use in uses:
            with pytest.raises(ValueError, match="closed"):
                use()
        assert repr(reader).startswith("<ZstnReader: closed")


def test_a_closed_reader_lets_go_of_the_memory(path: Path) -> None:
    packed = bytearray(PACKED)
    with ZstnReader.from_bytes(packed) as reader:
        kept = reader.read_numpy("fp32")
        with pytest.raises(BufferError):
            packed.clear()
    packed.clear()
    assert kept.shape == SHAPE
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        reader = ZstnReader.from_bytes(mapped)
        reader.verify()
        reader.close()


def test_a_file_object_stays_open_and_a_path_does_not_leak(path: Path) -> None:
    with path.open("rb") as file:
        with ZstnReader.open(file) as reader:
            reader.read_raw("bf16")
        assert file.read(4) == b"ZSTN", "and its position is the caller's"
    if os.path.isdir("/proc/self/fd"):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            ZstnReader.open(path).close()
            with pytest.raises(z4ai.errors.FormatError):
                ZstnReader.open(__file__)
        assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_no_file_is_a_type_error(path: Path) -> None:
    with pytest.raises(TypeError):
        ZstnReader.open(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="binary"), path.open() as text:
        ZstnReader.open(text)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        ZstnReader.open(path.with_suffix(".missing"))


def test_the_file_number_of_a_gzip_file_is_not_used(tmp_path: Path) -> None:
    """A gzip file has a file number, behind which lie other bytes."""
    path = tmp_path / "model.zstn.gz"
    path.write_bytes(gzip.compress(PACKED))
    with gzip.open(path) as file, ZstnReader.open(file) as reader:  # type: ignore[arg-type]
        assert reader.read_raw("bf16") == TENSORS[0].data


def test_unwritten_bytes_of_a_file_are_seen(tmp_path: Path) -> None:
    with (tmp_path / "model.zstn").open("w+b") as file:
        file.write(PACKED)
        assert ZstnReader.open(file).read_raw("bf16") == TENSORS[0].data


# --- Slices ---------------------------------------------------------------------------------------

READER = ZstnReader.from_bytes(PACKED)
extents = st.integers(-13, 13)
slices = st.builds(
    slice,
    st.none() | extents,
    st.none() | extents,
    st.none() | extents.filter(bool),
)
parts = st.one_of(extents, slices, slices, st.none(), st.just(...))
indexes = parts | st.lists(parts, max_size=5).map(tuple)


def same(found: Any, wanted: Any) -> None:
    assert type(found) is type(wanted)
    assert found.dtype == wanted.dtype
    assert found.shape == wanted.shape
    assert found.tobytes() == wanted.tobytes()


@given(st.sampled_from(["bf16", "fp32", "complex", "fp8", "scalar", "empty"]), indexes)
def test_read_slice_is_what_numpy_gives(name: str, index: Any) -> None:
    array = READER.read_numpy(name)
    try:
        wanted = array[index]
    except (IndexError, ValueError):
        with pytest.raises(IndexError):
            READER.read_slice(name, index)
        return
    same(READER.read_slice(name, index), wanted)


@pytest.mark.parametrize(
    "index",
    [
        (),
        ...,
        np.int64(3),
        (np.uint8(3), slice(np.int16(1), None)),
        np.s_[-1],
        np.s_[::-1],
        np.s_[8:2:-3, ..., 1],
        np.s_[None, 3, None, 2:, None],
        np.s_[5, 6, 4],
        np.s_[5, 6, 4, ...],
        np.s_[3:3],
        np.s_[100:],
        np.s_[:, :, -1],
        np.s_[0, ::2, ::-1],
    ],
    ids=str,
)
def test_read_slice_by_hand(index: Any) -> None:
    for name in ("bf16", "fp32"):
        same(READER.read_slice(name, index), READER.read_numpy(name)[index])


@pytest.mark.parametrize(
    "index",
    [
        *(True, np.bool_(True), [1, 2], np.array([1]), (0, [1]), 1.0, "1", (..., ...)),
        *((0, 0, 0, 0), 11, (0, 7), (slice(None), 7), (..., 5), np.s_[:, :, -6]),
    ],
    ids=str,
)
def test_what_is_no_basic_index_of_the_shape_is_an_index_error(index: Any) -> None:
    with pytest.raises(IndexError):
        READER.read_slice("bf16", index)


def test_a_slice_is_an_array_of_its_own() -> None:
    part = READER.read_slice("fp32", np.s_[2:4, 1])
    assert part.base is None
    part[:] = 0
    assert READER.read_numpy("fp32").tobytes() == TENSORS[5].data


@pytest.fixture(scope="module")
def tall() -> tuple[bytes, np.ndarray[Any, Any]]:
    """A tensor of 64 chunks of 4 KiB, and its container."""
    array = np.frombuffer(weights(1 << 18, 4), np.float32).reshape(256, 16, 16)
    t = Tensor("t", "F32", array.shape, array.tobytes())
    other = Tensor("u", "U8", (100,), weights(100, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CHUNK_NBYTES", 1 << 12)
        packed = compress_bytes(safetensors_file(safetensors_header([other, t]), [other, t]))
    return packed, array


@pytest.mark.parametrize(
    ("index", "n_chunks"),
    [
        (np.s_[0], 1),
        (np.s_[3], 1),
        (np.s_[4], 1),
        (np.s_[3:5], 2),
        (np.s_[4:8], 1),
        (np.s_[-1, ..., 0], 1),
        (np.s_[200:100:-50], 14),
        (np.s_[7, 3:5], 1),
        (np.s_[5:5], 0),
        (np.s_[:], 64),
        (np.s_[10, 2, 3], 1),
    ],
    ids=str,
)
def test_a_slice_decodes_the_chunks_it_needs(
    index: Any,
    n_chunks: int,
    tall: tuple[bytes, np.ndarray[Any, Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    packed, array = tall
    (tmp_path / "f").write_bytes(packed)
    decoded = 0
    honest = zstn_decode.decode_jobs

    def counting(encoded: Any, content: Any, jobs: Any, *rest: Any, **options: Any) -> None:
        nonlocal decoded
        decoded += len(jobs)
        honest(encoded, content, jobs, *rest, **options)

    monkeypatch.setattr(zstn_decode, "decode_jobs", counting)
    with ZstnReader.open(tmp_path / "f") as reader:
        decoded = read = 0
        source = open_source(tmp_path / "f")
        fill = source.read_into

        def measuring(offset: int, out: memoryview) -> None:
            nonlocal read
            read += len(out)
            fill(offset, out)

        reader._source.close()
        reader._source = source
        monkeypatch.setattr(source, "read_into", measuring)
        same(reader.read_slice("t", index), array[index])
        assert decoded == n_chunks
        # The chunks and twice the frame's header and trailer.
        assert read <= decoded * 4200 + 2 * 1000


def test_one_tensor_costs_one_read_of_its_frame(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ZstnReader.open(path) as reader:
        reads = []
        fill = reader._source.read_into
        monkeypatch.setattr(
            reader._source,
            "read_into",
            lambda at, out: (reads.append((at, len(out))), fill(at, out)),
        )
        reader.read_numpy("fp32")
        assert reads == [(reader.frame_offset("fp32"), reader.frame_size("fp32"))]


# --- Threads --------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", ["path", "BytesIO", "from_bytes"])
def test_threads_share_a_reader(
    door: str, tall: tuple[bytes, np.ndarray[Any, Any]], tmp_path: Path
) -> None:
    """Two threads, a thousand reads, each compared."""
    packed, array = tall
    (tmp_path / "f").write_bytes(packed)
    wrong: list[str] = []
    done = [0, 0]

    with DOORS[door](tmp_path / "f") as reader:

        def work(seed: int) -> None:
            random = np.random.default_rng(seed)
            for k in range(500):
                row = int(random.integers(256))
                if k % 50 == 0:
                    if reader.read_raw("t") != array.tobytes():
                        wrong.append(f"all {k}")
                elif reader.read_slice("t", row).tobytes() != array[row].tobytes():
                    wrong.append(f"row {row}")
                done[seed] += 1

        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert done == [500, 500]


def test_close_waits_for_reads_that_are_under_way(path: Path) -> None:
    source = open_source(path)
    inside, leave = threading.Event(), threading.Event()
    found: list[bool] = []

    def hold() -> None:
        with source._reading():  # type: ignore[attr-defined]
            inside.set()
            leave.wait(10)
            found.append(not source._file.closed)  # type: ignore[attr-defined]

    thread = threading.Thread(target=hold)
    thread.start()
    inside.wait(10)
    source.close()
    leave.set()
    thread.join()
    assert found == [True]
    assert source._file.closed  # type: ignore[attr-defined]


# --- Limits and damage ----------------------------------------------------------------------------


def test_a_tensor_larger_than_the_limit_is_not_read() -> None:
    limits = z4ai.Limits(max_output_nbytes=800)
    reader = ZstnReader.from_bytes(PACKED, limits=limits)
    assert reader.read_raw("bf16") == TENSORS[0].data
    with pytest.raises(LimitError, match="max_output_nbytes"):
        reader.read_numpy("fp32")
    with pytest.raises(LimitError, match="max_output_nbytes"):
        reader.read_raw("fp32")
    same(reader.read_slice("fp32", 3), READER.read_numpy("fp32")[3])
    out = bytearray(4 * N)
    assert reader.read_raw("fp32", out=out) == TENSORS[5].data


def test_damage_concerns_the_damaged_tensor_alone() -> None:
    packed = bytearray(PACKED)
    offset, nbytes = READER.frame_offset("fp32"), READER.frame_size("fp32")
    packed[offset + nbytes - 1] ^= 1
    reader = ZstnReader.from_bytes(packed)
    for t in TENSORS:
        if t.name == "fp32":
            with pytest.raises(z4ai.errors.FormatError) as caught:
                reader.read_raw(t.name)
            assert caught.value.tensor == "fp32"
        else:
            assert reader.read_raw(t.name) == t.data
    with pytest.raises(z4ai.errors.FormatError) as caught:
        reader.verify()
    assert caught.value.tensor == "fp32"


def test_verify_reads_a_shared_frame_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [Tensor(str(k), "F32", (100,), weights(400, 4)) for k in range(20)]
    packed = compress_bytes(safetensors_file(safetensors_header(tensors), tensors))
    decoded = []
    honest = zstn_decode.decode_jobs

    def counting(encoded: Any, content: Any, jobs: Any, *rest: Any, **options: Any) -> None:
        decoded.append(len(jobs))
        honest(encoded, content, jobs, *rest, **options)

    reader = ZstnReader.from_bytes(packed)
    monkeypatch.setattr(zstn_decode, "decode_jobs", counting)
    reader.verify()
    assert decoded == [1]


def test_frames_of_other_dtypes_and_orders_are_read() -> None:
    tensors = [t for t in TENSORS if t.data]
    for frame_options in ({"dtype": "opaque"}, {"streamed": True, "chunk_nbytes": 64}):
        packed = write_container(tensors, frame_options=frame_options)
        reader = ZstnReader.from_bytes(packed)
        for t in tensors:
            assert reader.read_raw(t.name) == t.data
        same(reader.read_slice("fp32", np.s_[3:5, 1]), READER.read_numpy("fp32")[3:5, 1])
    groups = [[0, 1], [5, 4, 3], [2, 6], list(range(7, len(tensors)))]
    reader = ZstnReader.from_bytes(write_container(tensors, groups=groups))
    for t in tensors:
        assert reader.read_raw(t.name) == t.data
    same(reader.read_slice("bf16", np.s_[3]), READER.read_numpy("bf16")[3])
    reader.verify()


def test_a_tensor_that_is_not_within_its_frame_is_refused() -> None:
    tensors = [TENSORS[0], TENSORS[5]]
    good = ZstnReader.from_bytes(write_container(tensors))
    place = [(good.frame_offset(t.name), good.frame_size(t.name)) for t in tensors]
    for locations in ([(*place[1], 0), (*place[0], 0)], [(*place[0], 1), (*place[1], 0)]):
        reader = ZstnReader.from_bytes(write_container(tensors, index={"locations": locations}))
        blamed = "fp32" if locations[0][2] == 0 else "bf16"
        for use in (reader.read_raw, reader.read_numpy, partial(reader.read_slice, index=-1)):
            with pytest.raises(CorruptError, match="not within its frame") as caught:
                use(blamed)
            assert caught.value.tensor == blamed
        with pytest.raises(CorruptError):
            reader.verify()


def test_more_dimensions_than_numpy_has() -> None:
    t = Tensor("t", "F32", (1,) * 70, struct.pack("<f", 1.5))
    reader = ZstnReader.from_bytes(compress_bytes(safetensors_file(safetensors_header([t]), [t])))
    assert reader.shape("t") == (1,) * 70
    assert reader.read_raw("t") == t.data
    with pytest.raises(TypeError, match="read_raw"):
        reader.read_numpy("t")
    with pytest.raises(TypeError, match="read_raw"):
        reader.read_slice("t", 0)


def test_large_frames_are_read_piece_by_piece(
    tall: tuple[bytes, np.ndarray[Any, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    packed, array = tall
    (tmp_path / "f").write_bytes(packed)
    monkeypatch.setattr(zstn_decode, "wave_nbytes", lambda _: 1 << 14)
    monkeypatch.setattr(zstn_decode, "_SLACK", 100)
    assert zstn_encode.wave_nbytes(1) >= 1 << 20
    with ZstnReader.open(tmp_path / "f") as reader:
        largest = 0
        fill = reader._source.read_into

        def measuring(offset: int, out: memoryview) -> None:
            nonlocal largest
            largest = max(largest, len(out))
            fill(offset, out)

        monkeypatch.setattr(reader._source, "read_into", measuring)
        assert reader.read_numpy("t").tobytes() == array.tobytes()
        reader.verify()
        assert largest <= (1 << 14) + 100
