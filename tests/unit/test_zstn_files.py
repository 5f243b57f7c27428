"""Whole files: `compress_file`, `decompress_file` and their twins over bytes, exactly."""

from __future__ import annotations

import json
import os
import stat
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reference_writer import Tensor, safetensors_file, safetensors_header, write_container
from safetensors.numpy import load as safetensors_load
from strategies import noise, weights

import z4ai
from z4ai import plan
from z4ai._reference import open_container, restore
from z4ai.container import decode as zstn_decode
from z4ai.container import encode as zstn_encode
from z4ai.container.dedup import same_as
from z4ai.errors import ChecksumError, CorruptError, FormatError, LimitError, TruncatedError
from z4ai.safetensors import (
    ZstnReader,
    compress_bytes,
    compress_file,
    decompress_bytes,
    decompress_file,
    read_header,
)

STATS = {"original_bytes", "compressed_bytes", "ratio", "saved_pct", "n_tensors", "n_shared"}
WIDTHS = {"F32": 4, "BF16": 2, "F16": 2, "F64": 8, "U8": 1, "I64": 8, "F8_E4M3": 1}
DTYPES = {**WIDTHS, "BOOL": 1, "I8": 1, "C64": 8, "F4": 1, "F8_E8M0": 1, "Q5_K": 1}


def tensor(name: str, dtype: str, n: int, seed: int = 0) -> Tensor:
    width = DTYPES[dtype]
    extent = 2 * n if dtype == "F4" else n
    return Tensor(name, dtype, (extent,), weights(n * width, width, seed))


def file_of(tensors: list[Tensor], **options: Any) -> bytes:
    return safetensors_file(safetensors_header(tensors, **options), tensors)


MIXED = [
    tensor("a", "BF16", 700),
    tensor("b", "F32", 5000, 1),
    Tensor("empty", "F16", (0, 3), b""),
    Tensor("scalar", "I64", (), weights(8, 8)),
    tensor("opaque", "Q5_K", 999),
    tensor("packed", "F4", 777, 2),
    tensor("odd", "F8_E4M3", 12345, 3),
    tensor("noise", "U8", 1, 4),
    Tensor("random", "U8", (3000,), noise(3000)),
    tensor("last", "C64", 321, 5),
]
FILES = {
    "mixed": file_of(MIXED),
    "metadata and padding": file_of(MIXED, metadata={"format": "pt", "ключ": "√"}, padding=13),
    "keys in another order": file_of(MIXED, order=list(range(len(MIXED)))[::-1]),
    "no tensors": file_of([]),
    "one empty tensor": file_of([MIXED[2]]),
    "every dtype": file_of([tensor(d, d, 300, k) for k, d in enumerate(DTYPES)]),
}


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def small_waves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 4 KiB and waves of 16 KiB, so that small files have many."""
    monkeypatch.setattr(plan, "CHUNK_NBYTES", 1 << 12)
    monkeypatch.setattr(plan, "OPAQUE_CHUNK_NBYTES", 1 << 13)
    monkeypatch.setattr(zstn_encode, "wave_nbytes", lambda _: 1 << 14)
    monkeypatch.setattr(zstn_decode, "wave_nbytes", lambda _: 1 << 14)


def comes_back(original: bytes, **options: Any) -> bytes:
    """Check all doors against each other and against the reference; -> the container."""
    Path("in").write_bytes(original)
    stats = compress_file("in", "packed", verify=True, **options)
    packed = Path("packed").read_bytes()
    assert compress_bytes(original, **options) == packed, "file and bytes differ"
    assert stats["original_bytes"] == len(original)
    assert stats["compressed_bytes"] == len(packed)
    assert set(stats) == STATS
    assert decompress_file("packed", "out") == stats
    assert Path("out").read_bytes() == original, "decompress_file"
    assert decompress_bytes(packed) == original, "decompress_bytes"
    return packed


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("effort", ["fast", None, "max"])
def test_files_come_back(name: str, effort: str | None) -> None:
    packed = comes_back(FILES[name], effort=effort)
    assert restore(packed) == FILES[name], "the reference"


@pytest.mark.parametrize("name", FILES)
def test_files_of_many_waves_come_back(name: str, small_waves: None) -> None:
    packed = comes_back(FILES[name])
    assert restore(packed) == FILES[name], "the reference"


@pytest.mark.parametrize("n", [(1 << 12) - 1, 1 << 12, 3 << 12, (1 << 14) + 1, 5 << 14])
def test_tensors_around_the_edges_of_waves_come_back(n: int, small_waves: None) -> None:
    tensors = [tensor(f"t{k}", "U8", n + k - 2, k) for k in range(5)]
    tensors += [tensor(f"q{k}", "Q5_K", n + k - 2, k) for k in range(3)]
    assert restore(comes_back(file_of(tensors))) == file_of(tensors)


@pytest.mark.parametrize(
    "options",
    [
        {"groups": [[0, 1, 3], [4, 5], [6, 7, 8, 9]]},
        {"groups": [[9], [8], [7], [6], [5], [4], [3], [1], [0]]},
        {"groups": [[8, 0], [9, 1], [7, 3, 5], [6, 4]]},
        {"frame_options": {"streamed": True, "chunk_nbytes": 1024}},
        {"frame_options": {"chunk_nbytes": 48}, "groups": [[1, 0, 9], [8, 3, 4, 5], [6, 7]]},
        {"index_options": {"streamed": True, "chunk_nbytes": 32}},
    ],
    ids=str,
)
@pytest.mark.parametrize("waves", ["small", "large"])
def test_containers_of_other_writers_are_restored(
    options: dict[str, Any], waves: str, request: pytest.FixtureRequest
) -> None:
    if waves == "small":
        request.getfixturevalue("small_waves")
    packed = write_container(MIXED, **options)
    assert restore(packed) == FILES["mixed"]
    Path("packed").write_bytes(packed)
    decompress_file("packed", "out")
    assert Path("out").read_bytes() == FILES["mixed"]
    assert decompress_bytes(packed) == FILES["mixed"]


def test_the_bytes_do_not_depend_on_threads() -> None:
    original = file_of([tensor("large", "F32", 900_000), *MIXED])
    packed = {compress_bytes(original, threads=n) for n in (1, 2, 5)}
    assert len(packed) == 1
    for n in (1, 2, 5):
        assert decompress_bytes(next(iter(packed)), threads=n) == original


def test_a_buffer_of_any_kind_is_compressed() -> None:
    original = FILES["mixed"]
    packed = compress_bytes(original)
    for buffer in (bytearray(original), memoryview(original), np.frombuffer(original, np.uint8)):
        assert compress_bytes(buffer) == packed
    assert decompress_bytes(bytearray(packed)) == original


def test_the_restored_file_is_read_by_safetensors() -> None:
    tensors = [tensor("a", "F32", 10), tensor("b", "F16", 30)]
    found = safetensors_load(decompress_bytes(compress_bytes(file_of(tensors))))
    assert {n: a.tobytes() for n, a in found.items()} == {t.name: t.data for t in tensors}


def test_paths_are_of_any_kind() -> None:
    Path("in").write_bytes(FILES["mixed"])
    compress_file(Path("in"), b"packed")
    decompress_file(b"packed", Path("out"))
    assert Path("out").read_bytes() == FILES["mixed"]


def test_wrong_arguments() -> None:
    Path("in").write_bytes(FILES["mixed"])
    with pytest.raises(ValueError, match="effort"):
        compress_file("in", "packed", effort="ultra")
    with pytest.raises(ValueError, match="fallback"):
        compress_file("in", "packed", fallback="store")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="threads"):
        compress_file("in", "packed", threads=0)
    with pytest.raises(FileNotFoundError):
        compress_file("missing", "packed")
    with pytest.raises(FileNotFoundError):
        compress_file("in", "no/such/folder")
    with pytest.raises(TypeError):
        compress_file(7, "packed")  # type: ignore[arg-type]
    assert os.listdir() == ["in"]


# --- Identical tensors ----------------------------------------------------------------------------


def test_identical_tensors_are_stored_once() -> None:
    embedding = weights(40_000, 4)
    tensors = [
        Tensor("embed", "F32", (100, 100), embedding),
        tensor("b", "F32", 10_000, 9),
        Tensor("lm_head", "F32", (100, 100), embedding),
        Tensor("other view", "U8", (40_000,), embedding),
        Tensor("small", "U8", (10,), bytes(10)),
        Tensor("small too", "U8", (10,), bytes(10)),
    ]
    assert restore(comes_back(file_of(tensors))) == file_of(tensors)
    # Above fast, small tensors share a frame whether they are alike or not.
    packed = comes_back(file_of(tensors), effort="fast")
    assert restore(packed) == file_of(tensors)
    with ZstnReader.from_bytes(packed) as reader:
        assert reader.frame_offset("lm_head") == reader.frame_offset("embed")
        assert reader.frame_offset("other view") == reader.frame_offset("embed")
        assert reader.frame_offset("b") != reader.frame_offset("embed")
        assert reader.frame_offset("small") != reader.frame_offset("small too")
        assert reader.read_raw("other view") == embedding
    Path("in").write_bytes(file_of(tensors))
    assert compress_file("in", "packed")["n_shared"] == 2
    alone = len(compress_bytes(file_of(tensors[:2]), effort="fast"))
    assert len(packed) < alone + 500


@pytest.mark.parametrize("mib", [3, 20, 36])
def test_any_number_of_threads_and_any_door_make_the_same_bytes(mib: int) -> None:
    """Tensors that begin in the middle of a wave, and those that are larger than one."""
    draws = np.random.default_rng(mib)
    n = mib << 19
    scales = np.repeat(np.exp(draws.normal(size=n >> 16)), 1 << 16)
    drifting = (draws.normal(size=n) * scales).astype(np.float16)
    tensors = [tensor("a", "U8", 5 << 20), Tensor("b", "F16", (n,), drifting.tobytes())]
    Path("in").write_bytes(file_of(tensors))
    made = set()
    for threads in (1, 10):
        compress_file("in", "packed", threads=threads)
        made.add(Path("packed").read_bytes())
        made.add(compress_bytes(file_of(tensors), threads=threads))
    (packed,) = made
    assert decompress_bytes(packed) == file_of(tensors)


def test_tensors_that_look_alike_are_not_shared() -> None:
    """Alike in size and in every sampled place, different between them."""
    one = bytes(100_000)
    others = [one[:k] + b"\x01" + one[k + 1 :] for k in (20_000, 50_000, 80_000)]
    tensors = [Tensor(str(k), "U8", (100_000,), d) for k, d in enumerate([one, *others, one])]
    packed = comes_back(file_of(tensors))
    with ZstnReader.from_bytes(packed) as reader:
        offsets = [reader.frame_offset(name) for name in reader]
    assert offsets[0] == offsets[4]
    assert len(set(offsets)) == 4


def test_no_tensor_is_read_twice_to_find_that_it_is_alone() -> None:
    tensors = [tensor(f"t{k}", "F32", 100_000, k) for k in range(6)]
    original = file_of(tensors)

    class Counting:
        def __init__(self) -> None:
            self.memory = None
            self.nbytes = len(original)
            self.read = 0

        def read_into(self, offset: int, out: memoryview) -> None:
            self.read += len(out)
            out[:] = original[offset : offset + len(out)]

        def close(self) -> None:
            pass

    source = Counting()
    same_as(source, len(original) - 2_400_000, read_header_of(original))
    assert 0 < source.read < 6 * 10_000


def read_header_of(original: bytes) -> list[Any]:
    Path("header").write_bytes(original)
    return read_header("header").tensors


# --- Files that safetensors refuses ---------------------------------------------------------------


def entry(begin: int, end: int, **changes: Any) -> dict[str, Any]:
    return {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end], **changes}


def raw_file(header: Any, data: bytes, header_nbytes: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if header_nbytes is None else header_nbytes) + text + data


#: The file, the class of the error, the tensor it blames.
REFUSED: dict[str, tuple[bytes, type[FormatError], str | None]] = {
    "nothing": (b"", TruncatedError, None),
    "seven bytes": (bytes(7), TruncatedError, None),
    "no header": (bytes(8), CorruptError, None),
    "not a safetensors file": (b"PK\x03\x04" + bytes(100), TruncatedError, None),
    "header above 100 MB": (raw_file(b"{}", b"", 100_000_001), CorruptError, None),
    "header longer than the file": (raw_file(b"{}", b"", 3), TruncatedError, None),
    "header begins with a space": (raw_file(b" {}", b""), CorruptError, None),
    "hole": (raw_file({"a": entry(0, 2), "b": entry(3, 5)}, bytes(5)), CorruptError, "b"),
    "hole in front": (raw_file({"a": entry(1, 2)}, bytes(2)), CorruptError, "a"),
    "overlap": (raw_file({"a": entry(0, 3), "b": entry(2, 5)}, bytes(5)), CorruptError, "b"),
    "trailing bytes": (raw_file({"a": entry(0, 2)}, bytes(3)), CorruptError, "a"),
    "trailing bytes, no tensors": (raw_file({}, bytes(1)), CorruptError, None),
    "data that ends early": (raw_file({"a": entry(0, 2)}, bytes(1)), TruncatedError, "a"),
    "size unlike the shape": (raw_file({"a": entry(0, 2, shape=[3])}, bytes(2)), CorruptError, "a"),
    "begin behind end": (
        raw_file({"a": entry(0, 2, data_offsets=[2, 0])}, bytes(2)),
        CorruptError,
        "a",
    ),
    "half a byte": (
        raw_file({"a": entry(0, 2, dtype="F4", shape=[3])}, bytes(2)),
        CorruptError,
        "a",
    ),
    "duplicate tensor": (
        raw_file(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 2)).encode(),) * 2), bytes(2)),
        CorruptError,
        "a",
    ),
    "duplicate field": (
        raw_file(b'{"b":{"dtype":"U8","dtype":"U8","shape":[2],"data_offsets":[0,2]}}', bytes(2)),
        CorruptError,
        "b",
    ),
    "not UTF-8": (
        raw_file(b'{"\xff":%b}' % json.dumps(entry(0, 2)).encode(), bytes(2)),
        CorruptError,
        None,
    ),
    "no JSON": (raw_file(b"{'a': 1}", b""), CorruptError, None),
    "nested deeply": (raw_file(b'{"a":' + b"[" * 100_000, b""), CorruptError, None),
    "a number of many digits": (
        raw_file(
            b'{"a":{"dtype":"U8","shape":[%b],"data_offsets":[0,2]}}' % (b"9" * 10_000), bytes(2)
        ),
        CorruptError,
        None,
    ),
    "a shape that overflows": (
        raw_file({"a": entry(0, 0, shape=[2**63, 4, 0])}, b""),
        CorruptError,
        "a",
    ),
    "a container": (write_container(MIXED), FormatError, None),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_safetensors_refuses_is_refused(name: str) -> None:
    original, kind, blamed = REFUSED[name]
    Path("in").write_bytes(original)
    with pytest.raises(kind) as caught:
        compress_file("in", "packed")
    assert caught.value.tensor == blamed
    if blamed is not None:
        assert repr(blamed) in str(caught.value)
    with pytest.raises(kind):
        compress_bytes(original)
    assert os.listdir() == ["in"], "nothing may be left behind"


@pytest.mark.parametrize("name", REFUSED)
def test_what_safetensors_refuses_is_compressed_as_bytes_where_asked(name: str) -> None:
    original = REFUSED[name][0]
    packed = comes_back(original, fallback="bytes")
    assert z4ai.peek_is_z4ai(packed)
    assert z4ai.decompress(packed) == original
    assert decompress_file("packed", "out")["n_tensors"] == 0


@pytest.mark.parametrize("effort", ["fast", None])
def test_a_file_that_is_refused_is_taken_for_what_it_is(effort: str | None) -> None:
    data = weights(3 << 20, 4)
    for content, dtype in ((data, "fp32"), (b"some words, " * 1000, None)):
        packed = comes_back(content, fallback="auto", effort=effort)
        assert z4ai.info(packed).dtype == dtype
    assert len(compress_bytes(data, fallback="auto")) < len(compress_bytes(data, fallback="bytes"))


def test_the_fallback_is_only_taken_where_needed() -> None:
    assert comes_back(FILES["mixed"], fallback="bytes") == compress_bytes(FILES["mixed"])


def test_what_is_neither_container_nor_frame_is_refused() -> None:
    for blob in (b"", b"Z4", b"PK\x03\x04", FILES["mixed"], b"Z4DL" + bytes(100)):
        Path("packed").write_bytes(blob)
        with pytest.raises(FormatError):
            decompress_file("packed", "out")
        with pytest.raises(FormatError):
            decompress_bytes(blob)
    assert os.listdir() == ["packed"]


def test_a_file_of_the_earlier_package_says_so() -> None:
    for version in (1, 2, 3):
        with pytest.raises(FormatError, match="earlier package"):
            decompress_bytes(b"ZSTN" + bytes([version]) + bytes(100))


# --- Progress -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("verify", [False, True])
def test_progress_counts_every_byte_once(name: str, verify: bool, small_waves: None) -> None:
    calls: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        calls.append((done, total))

    def check(total: int) -> None:
        assert {t for _, t in calls} == {total}
        assert [d for d, _ in calls] == sorted({d for d, _ in calls}), "must rise"
        assert calls[-1][0] == total
        calls.clear()

    Path("in").write_bytes(FILES[name])
    compress_file("in", "packed", progress=tell, verify=verify)
    check(len(FILES[name]) * (2 if verify else 1))
    decompress_file("packed", "out", progress=tell)
    check(len(FILES[name]))
    compress_bytes(FILES[name], progress=tell)
    check(len(FILES[name]))


def test_progress_true_draws_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    Path("in").write_bytes(FILES["mixed"])
    compress_file("in", "packed", progress=True)
    assert "100%" in capsys.readouterr().err
    for silent in (False, None):
        compress_file("in", "packed", progress=silent)
    assert capsys.readouterr() == ("", "")


# --- Output appears when it is complete -----------------------------------------------------------


class Stop(BaseException):
    """What no `except Exception` stops, as KeyboardInterrupt."""


def stop(done: int, total: int) -> None:
    raise Stop


@pytest.mark.parametrize("existing", [None, b"what was there"])
def test_an_interrupted_run_leaves_no_trace(existing: bytes | None) -> None:
    Path("in").write_bytes(FILES["mixed"])
    compress_file("in", "packed")
    if existing is not None:
        Path("out").write_bytes(existing)
    before = sorted(os.listdir())
    with pytest.raises(Stop):
        compress_file("in", "out", progress=stop)
    with pytest.raises(Stop):
        decompress_file("packed", "out", progress=stop)
    assert sorted(os.listdir()) == before
    if existing is not None:
        assert Path("out").read_bytes() == existing


def test_a_damaged_file_leaves_no_trace(small_waves: None) -> None:
    packed = bytearray(compress_bytes(FILES["mixed"]))
    with ZstnReader.from_bytes(packed) as reader:
        packed[reader.frame_offset("odd") + reader.frame_size("odd") - 60] ^= 1
    Path("packed").write_bytes(packed)
    Path("out").write_bytes(b"before")
    with pytest.raises(FormatError) as caught:
        decompress_file("packed", "out")
    assert caught.value.tensor == "odd"
    assert Path("out").read_bytes() == b"before"
    assert sorted(os.listdir()) == ["out", "packed"]


def test_input_may_be_output() -> None:
    Path("f").write_bytes(FILES["mixed"])
    compress_file("f", "f", verify=True)
    assert Path("f").read_bytes() == compress_bytes(FILES["mixed"])
    decompress_file("f", "f")
    assert Path("f").read_bytes() == FILES["mixed"]


@pytest.mark.skipif(os.name != "posix", reason="modes and links of POSIX")
def test_the_output_is_an_ordinary_new_file_also_behind_a_link() -> None:
    Path("in").write_bytes(FILES["mixed"])
    old = os.umask(0o027)
    try:
        compress_file("in", "packed")
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat("packed").st_mode) == 0o640
    os.mkdir("folder")
    os.symlink("folder/target", "link")
    compress_file("in", "link")
    assert os.path.islink("link")
    assert sorted(os.listdir("folder")) == ["target"]
    with pytest.raises(ValueError, match="regular file"):
        compress_file("in", "folder")
    with pytest.raises(ValueError, match="regular file"):
        compress_file("in", os.devnull)


def test_verify_refuses_what_does_not_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coder that forgets a bit behind the checksum's back is found before the rename."""
    Path("in").write_bytes(FILES["mixed"])
    honest = zstn_encode.run.encode_run

    def dishonest(content: np.ndarray, *rest: Any) -> Any:
        content = content.copy()
        content[-1] ^= 1
        return honest(content, *rest)

    monkeypatch.setattr(zstn_encode.run, "encode_run", dishonest)
    with pytest.raises(CorruptError, match="does not restore"):
        compress_file("in", "packed", verify=True)
    assert os.listdir() == ["in"]
    compress_file("in", "packed")
    decompress_file("packed", "out")
    assert Path("out").read_bytes() != FILES["mixed"]


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="needs preadv")
def test_a_file_that_is_cut_off_meanwhile_is_an_error(small_waves: None) -> None:
    original = file_of([tensor("a", "F32", 50_000)])
    Path("in").write_bytes(original)

    def cut(done: int, total: int) -> None:
        os.truncate("in", 60_000)

    with pytest.raises(TruncatedError):
        compress_file("in", "packed", progress=cut)
    assert os.listdir() == ["in"]


# --- Limits ---------------------------------------------------------------------------------------


def test_limits() -> None:
    original = file_of([Tensor("zeros", "U8", (1 << 20,), bytes(1 << 20))])
    packed = compress_bytes(original)
    assert len(packed) < 1000
    with pytest.raises(LimitError, match="max_output_nbytes"):
        decompress_bytes(packed, limits=z4ai.Limits(max_output_nbytes=1 << 20))
    assert decompress_bytes(packed, limits=z4ai.Limits(max_output_nbytes=len(original))) == original
    # Into a file nothing is held, so only the tables count.
    Path("packed").write_bytes(packed)
    decompress_file("packed", "out", limits=z4ai.Limits(max_output_nbytes=1))
    assert Path("out").read_bytes() == original
    with pytest.raises(LimitError, match="max_table_nbytes"):
        decompress_file("packed", "out", limits=z4ai.Limits(max_table_nbytes=50))


def test_small_tensors_share_frames_and_are_found_in_them() -> None:
    """Such a frame holds elements of one dtype, and ends when it is large enough to be one."""
    dtypes = ("F32", "BF16", "I8")
    tensors = [tensor(f"t{k:03}", dtypes[k % 3], 500 + 30 * k, k) for k in range(150)]
    packed = comes_back(file_of(tensors))
    assert restore(packed) == file_of(tensors), "the reference"
    assert len(packed) < len(compress_bytes(file_of(tensors), effort="fast"))
    with ZstnReader.from_bytes(packed) as reader:
        frames: dict[int, list[Tensor]] = {}
        for t in tensors:
            frames.setdefault(reader.frame_offset(t.name), []).append(t)
            assert reader.read_raw(t.name) == t.data
        for frame in frames.values():
            taken = sum(reader.encoded_nbytes(t.name) for t in frame)
            assert 0 <= taken - reader.frame_size(frame[0].name) < len(frame), "parts by content"
    held = [sum(len(t.data) for t in frame) for frame in frames.values()]
    assert all(len({t.dtype for t in frame}) == 1 for frame in frames.values())
    assert len(dtypes) <= len(frames) < 10
    assert max(held) < (1 << 18) + (1 << 15)


def test_an_error_in_a_shared_frame_names_the_first_tensor_of_it() -> None:
    tensors = [tensor(f"t{k}", "F32", 700, k) for k in range(30)]
    packed = bytearray(compress_bytes(file_of(tensors)))
    with ZstnReader.from_bytes(packed) as reader:
        offset, nbytes = reader.frame_offset("t20"), reader.frame_size("t20")
        assert offset == reader.frame_offset("t0")
    packed[offset + nbytes - 2] ^= 4
    with pytest.raises(FormatError) as caught:
        decompress_bytes(packed)
    assert caught.value.tensor == "t0"
    with pytest.raises(FormatError) as caught:
        ZstnReader.from_bytes(packed).read_raw("t20")
    assert caught.value.tensor == "t20"


def test_every_error_of_a_wave_names_its_own_tensor(small_waves: None) -> None:
    tensors = [tensor(f"t{k}", "F32", 700, k) for k in range(30)]
    packed = compress_bytes(file_of(tensors), effort="fast")
    with ZstnReader.from_bytes(packed) as reader:
        places = {name: (reader.frame_offset(name), reader.frame_size(name)) for name in reader}
    for name, (offset, nbytes) in places.items():
        damaged = bytearray(packed)
        damaged[offset + nbytes - 2] ^= 4
        with pytest.raises(FormatError) as caught:
            decompress_bytes(damaged)
        assert caught.value.tensor == name
        if caught.value.offset is not None:
            assert offset <= caught.value.offset <= offset + nbytes


def test_the_chunk_that_fails_is_named(small_waves: None) -> None:
    packed = bytearray(
        compress_bytes(file_of([tensor("x", "U8", 100), tensor("t", "F32", 20_000)]))
    )
    with ZstnReader.from_bytes(packed) as reader:
        offset, nbytes = reader.frame_offset("t"), reader.frame_size("t")
    found = set()
    for at in range(offset + 100, offset + nbytes - 130, 3500):
        packed[at] ^= 1
        with pytest.raises((ChecksumError, CorruptError)) as caught:
            decompress_bytes(packed)
        packed[at] ^= 1
        assert caught.value.tensor == "t"
        found.add(caught.value.chunk)
    assert len(found) > 10


def test_read_header() -> None:
    Path("in").write_bytes(FILES["metadata and padding"])
    header = read_header("in")
    assert [t.name for t in header.tensors] == [t.name for t in MIXED]
    assert [t.nbytes for t in header.tensors] == [len(t.data) for t in MIXED]
    assert header.metadata == {"format": "pt", "ключ": "√"}


def test_the_reference_sees_the_same_container() -> None:
    packed = compress_bytes(FILES["metadata and padding"])
    opened = open_container(packed)
    with ZstnReader.from_bytes(packed) as reader:
        assert opened.names() == reader.names()
        assert opened.metadata == reader.metadata()
        assert opened.header == reader.header_bytes
        for t in opened.tensors:
            assert (t.dtype, t.shape) == (reader.dtype(t.name), reader.shape(t.name))
            assert opened.read(t.name) == reader.read_raw(t.name)
