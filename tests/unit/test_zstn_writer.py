"""`ZstnWriter`, `save_numpy`, `load_numpy`: containers of arrays, without a `.safetensors` file."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import deserialize, safe_open
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save
from strategies import weights

from z4ai import plan
from z4ai._reference import restore
from z4ai.container import decode as zstn_decode
from z4ai.container import encode as zstn_encode
from z4ai.safetensors import (
    ZstnReader,
    ZstnWriter,
    compress_bytes,
    decompress_bytes,
    load_numpy,
    save_numpy,
)

DTYPES: list[Any] = [
    *["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8"],
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2),
    *(ml_dtypes.float8_e8m0fnu, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2fnuz),
]


def array(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray[Any, Any]:
    dtype = np.dtype(dtype)
    n = int(np.prod(shape))
    if dtype.kind == "b":
        return (np.arange(n) % 3 == 0).reshape(shape)
    return np.frombuffer(weights(n * dtype.itemsize, dtype.itemsize, seed), dtype).reshape(shape)


ARRAYS = {
    **{f"t.{k}": array(dtype, (5, 7), k) for k, dtype in enumerate(DTYPES)},
    "scalar": array("f4", ()),
    "empty": array("f8", (0, 3)),
    "large": array("f4", (700, 1000), 3),
}


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert found[name].tobytes() == value.tobytes()
        assert found[name].flags.writeable


@pytest.mark.parametrize("effort", ["fast", None, "max"])
def test_arrays_come_back(effort: str | None) -> None:
    stats = save_numpy(ARRAYS, "f.zstn", {"k": "v"}, effort=effort)
    assert stats["compressed_bytes"] == os.path.getsize("f.zstn")
    assert stats["n_tensors"] == len(ARRAYS)
    same(load_numpy("f.zstn"), ARRAYS)
    same(load_numpy("f.zstn", threads=1), ARRAYS)
    packed = Path("f.zstn").read_bytes()
    original = decompress_bytes(packed)
    assert stats["original_bytes"] == len(original)
    assert restore(packed) == original, "the reference"
    assert os.listdir() == ["f.zstn"]


def test_a_file_object_gets_the_same_bytes() -> None:
    save_numpy(ARRAYS, "f.zstn")
    file = io.BytesIO(b"")
    save_numpy(ARRAYS, file)
    assert file.getvalue() == Path("f.zstn").read_bytes()
    file.seek(0)
    same(load_numpy(file), ARRAYS)


class Raw:
    """A file object whose `write` takes a little and says how much."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: memoryview) -> int:
        n = min(len(data), 1000)
        self.data += bytes(data[:n])
        return n


def test_a_file_that_takes_a_little_at_a_time_gets_all() -> None:
    file = Raw()
    arrays = {name: value for name, value in ARRAYS.items() if name != "large"}
    save_numpy(arrays, file)  # type: ignore[arg-type]
    same(load_numpy(io.BytesIO(file.data)), arrays)


def test_the_restored_file_is_what_safetensors_reads() -> None:
    save_numpy(ARRAYS, "f.zstn", {"format": "np"})
    original = decompress_bytes(Path("f.zstn").read_bytes())
    Path("f.safetensors").write_bytes(original)
    with safe_open("f.safetensors", "np") as file:
        assert file.metadata() == {"format": "np"}
        assert set(file.keys()) == set(ARRAYS)
    found = {name: value["data"] for name, value in deserialize(original)}
    assert found == {name: value.tobytes() for name, value in ARRAYS.items()}
    header_nbytes = int.from_bytes(original[:8], "little")
    assert header_nbytes % 8 == 0
    with ZstnReader.open("f.zstn") as reader:
        for name, value in ARRAYS.items():
            begin = reader.header()[name]["data_offsets"][0]
            assert begin % value.dtype.itemsize == 0, "every tensor is aligned to its elements"


def test_save_numpy_says_what_safetensors_says() -> None:
    arrays = {"a": array("f4", (3, 4)), "b": array("i8", (5,)), "c": array("f2", (2, 2))}
    file = io.BytesIO()
    save_numpy(arrays, file)
    wanted = safetensors_load(safetensors_save(arrays))
    found = safetensors_load(decompress_bytes(file.getvalue()))
    same(found, wanted)


def test_any_order_and_byte_order_is_stored_as_safetensors_has_it() -> None:
    values = array("f4", (6, 8))
    arrays = {
        "fortran": np.asfortranarray(values),
        "strided": values[::2, ::-1],
        "big": values.astype(">f4"),
        "transposed": values.T,
        "list": [[1.0, 2.0], [3.0, 4.0]],
        "number": 1.5,
    }
    file = io.BytesIO()
    save_numpy(arrays, file)
    found = load_numpy(file)
    for name, value in arrays.items():
        assert np.array_equal(found[name], value)
        assert found[name].dtype.byteorder in "=|"
    values = np.asarray(3.0)
    file = io.BytesIO()
    save_numpy({"scalar": values}, file)
    assert load_numpy(file)["scalar"].shape == ()


def test_identical_arrays_are_stored_once() -> None:
    one = array("f4", (300, 1000))
    small = array("f4", (80,), 1)
    arrays = {"a": one, "b": array("f4", (300, 1000), 5), "c": one.copy(), "s": small, "t": small}
    stats = save_numpy(arrays, "f.zstn")
    assert stats["n_shared"] == 2
    with ZstnReader.open("f.zstn") as reader:
        assert reader.frame_offset("a") == reader.frame_offset("c")
        assert reader.frame_offset("s") == reader.frame_offset("t")
        assert reader.frame_offset("a") != reader.frame_offset("b")
    same(load_numpy("f.zstn"), arrays)


def test_a_hash_alone_does_not_make_tensors_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("z4ai.container.writer.xxh3_128", lambda _: 7)
    arrays = {"a": array("f4", (500,)), "b": array("f4", (500,), 5), "c": array("f4", (500,))}
    assert save_numpy(arrays, "f.zstn")["n_shared"] == 1
    same(load_numpy("f.zstn"), arrays)


def test_what_was_added_may_change_afterwards() -> None:
    for shape in ((50,), (600, 1000)):
        values = array("f4", shape).copy()
        wanted = values.copy()
        file = io.BytesIO()
        with ZstnWriter(file) as writer:
            writer.add("a", values)
            values[:] = 0
            writer.add("b", values)
        assert np.array_equal(load_numpy(file)["a"], wanted)
        assert not load_numpy(file)["b"].any()


def test_add_raw() -> None:
    with ZstnWriter("f.zstn", metadata={}) as writer:
        writer.add_raw("fp4", b"abc", "F4", [2, 3])
        writer.add_raw("bf16", memoryview(b"wxyz").cast("H"), "BF16", (2,))
        writer.add_raw("six", bytearray(3), "F6_E3M2", (np.int64(4),))
        writer.add_raw("empty", b"", "I64", (0, 9))
        for data, dtype, shape in [
            (b"abc", "F4", (5,)),
            (b"abc", "F32", (1,)),
            (b"", "U8", (-1,)),
            (b"abc", "Q5_K", (3,)),
            (b"abc", "fp32", (3,)),
            (b"abc", "U8", (2**63, 4)),
        ]:
            with pytest.raises(ValueError, match=r"shape|dtype"):
                writer.add_raw("x", data, dtype, shape)
    with ZstnReader.open("f.zstn") as reader:
        assert reader.metadata() == {}
        assert reader.read_raw("fp4") == b"abc"
        assert reader.shape("fp4") == (2, 3)
        assert reader.read_raw("bf16") == b"wxyz"
        assert reader.dtype("six") == "F6_E3M2"
        assert reader.shape("empty") == (0, 9)
    original = decompress_bytes(Path("f.zstn").read_bytes())
    Path("f.safetensors").write_bytes(original)
    with safe_open("f.safetensors", "np") as file:
        assert set(file.keys()) == {"fp4", "bf16", "six", "empty"}


def test_wrong_arguments_change_nothing() -> None:
    with ZstnWriter("f.zstn") as writer:
        writer.add("a", np.ones(3, np.float32))
        for value in (np.array(["x"]), np.array([None]), np.zeros(2, "c16"), np.zeros(2, "M8[s]")):
            with pytest.raises(TypeError, match="safetensors has no dtype"):
                writer.add("b", value)
        with pytest.raises(TypeError, match="no dtype"):
            writer.add("b", np.zeros(3, ml_dtypes.int4))
        for name in ("a", "__metadata__"):
            with pytest.raises(ValueError, match="taken"):
                writer.add(name, np.ones(3, np.float32))
        with pytest.raises(ValueError, match="surrogate"):
            writer.add("\ud800", np.ones(3, np.float32))
        with pytest.raises(TypeError, match="string"):
            writer.add(3, np.ones(3, np.float32))  # type: ignore[arg-type]
    assert list(load_numpy("f.zstn")) == ["a"]
    with pytest.raises(TypeError, match="metadata"):
        ZstnWriter("g.zstn", metadata={"k": 1})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="effort"):
        ZstnWriter("g.zstn", effort="ultra")
    assert os.listdir() == ["f.zstn"]


def test_an_exception_in_the_block_leaves_no_file() -> None:
    class Stop(BaseException):
        pass

    Path("f.zstn").write_bytes(b"before")
    with pytest.raises(Stop), ZstnWriter("f.zstn") as writer:  # noqa: PT012 - the block is it
        writer.add("a", np.ones(2_000_000, np.float32))
        assert len(os.listdir()) == 2
        raise Stop
    with pytest.raises(TypeError):
        save_numpy({"a": np.ones(9), "b": object()}, "f.zstn")
    assert os.listdir() == ["f.zstn"]
    assert Path("f.zstn").read_bytes() == b"before"
    # Nor does one that is forgotten.
    writer = ZstnWriter("g.zstn")
    writer.add("a", np.ones(3))
    del writer
    assert os.listdir() == ["f.zstn"]


def test_a_write_that_fails_is_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    large = np.ones(2_000_000, np.float32)
    with (  # noqa: PT012 - the block is it
        pytest.raises(ValueError, match="earlier call failed"),
        ZstnWriter("f.zstn") as writer,
    ):
        writer.add("a", large)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space"):
                writer.add("b", large[1:])
        with pytest.raises(ValueError, match="earlier call failed"):
            writer.add("c", large)
    assert os.listdir() == []


def test_close_is_the_end() -> None:
    writer = ZstnWriter("f.zstn")
    writer.add("a", np.ones(3))
    stats = writer.close()
    assert writer.close() == stats
    with pytest.raises(ValueError, match="closed"):
        writer.add("b", np.ones(3))
    writer.abort()
    assert os.path.exists("f.zstn")
    writer = ZstnWriter("g.zstn")
    writer.abort()
    for use in (writer.close, lambda: writer.add("b", np.ones(3))):
        with pytest.raises(ValueError, match="closed"):
            use()
    with ZstnWriter("g.zstn") as writer:
        writer.abort()
    assert os.listdir() == ["f.zstn"]


def test_small_arrays_are_coded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    honest = zstn_encode.run.encode_run

    def counting(content: Any, out: Any, offset: int, jobs: Any, *rest: Any) -> Any:
        runs.append(len(jobs))
        return honest(content, out, offset, jobs, *rest)

    monkeypatch.setattr(zstn_encode.run, "encode_run", counting)
    save_numpy({str(k): array("f2", (100,), k) for k in range(200)}, "f.zstn", effort="fast")
    assert runs == [200]


def test_small_arrays_of_a_dtype_share_a_frame() -> None:
    arrays = {f"{code}{k}": array(code, (100,), k) for k in range(200) for code in ("f2", "f4")}
    save_numpy(arrays, "f.zstn")
    same(load_numpy("f.zstn"), arrays)
    with ZstnReader.open("f.zstn") as reader:
        assert len({reader.frame_offset(name) for name in arrays}) == 2
    packed = Path("f.zstn").read_bytes()
    assert abs(len(compress_bytes(decompress_bytes(packed))) - len(packed)) < 100


@pytest.mark.parametrize("n_between", [0, 60])
def test_a_small_array_that_is_there_is_stored_once(n_between: int) -> None:
    # With 60 between them the first one is in a frame already, else it still waits.
    arrays = {"one": array("f4", (2000,), 1)}
    arrays |= {f"between{k}": array("f4", (2000,), 2 + k) for k in range(n_between)}
    arrays["other"] = arrays["one"].copy()
    assert save_numpy(arrays, "f.zstn")["n_shared"] == 1
    same(load_numpy("f.zstn"), arrays)


@given(st.lists(st.tuples(st.sampled_from(DTYPES), st.lists(st.integers(0, 40), max_size=3))))
def test_any_arrays_come_back(kinds: list[tuple[Any, list[int]]]) -> None:
    arrays = {f"{k}": array(d, tuple(s), k % 3) for k, (d, s) in enumerate(kinds)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "CHUNK_NBYTES", 1 << 12)
        patch.setattr(zstn_encode, "wave_nbytes", lambda _: 1 << 14)
        patch.setattr(zstn_decode, "wave_nbytes", lambda _: 1 << 14)
        stats = save_numpy(arrays, "f.zstn")
        same(load_numpy("f.zstn"), arrays)
        packed = Path("f.zstn").read_bytes()
        original = decompress_bytes(packed)
        assert stats["original_bytes"] == len(original)
        # The file that it stands for compresses to as many bytes, give or take.
        assert abs(len(compress_bytes(original)) - len(packed)) < 100
        save_numpy(arrays, "f.zstn", effort="fast")
        fast = Path("f.zstn").read_bytes()
        assert abs(len(compress_bytes(original, effort="fast")) - len(fast)) < 100
