"""The doors to model deltas: arguments, errors, progress, and files that stay as they were."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from model_pairs import PAIRS, file_of, model, tensor, tuned

import z4ai
from z4ai import model_delta
from z4ai.deltas import encode
from z4ai.errors import BaseMismatchError, CorruptError, FormatError, LimitError, TruncatedError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    target, base = PAIRS["tuned"]()
    Path("t").write_bytes(file_of(target))
    Path("b").write_bytes(file_of(base))
    return tmp_path


def test_the_module_is_a_name_of_the_package() -> None:
    assert z4ai.model_delta is model_delta
    assert "model_delta" in dir(z4ai)


@pytest.mark.parametrize(
    "broken",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: b"\xff" * 8 + data[8:],
        lambda data: data[:8] + b"[" + data[9:],
        lambda data: b"not a safetensors file at all",
    ],
)
def test_files_that_safetensors_would_refuse_are_refused(
    broken: Callable[[bytes], bytes], folder: Path
) -> None:
    data = Path("t").read_bytes()
    Path("x").write_bytes(broken(data))
    Path("d").write_bytes(b"as it was")
    for arguments in (("x", "b"), ("t", "x")):
        with pytest.raises(FormatError):
            model_delta.compress_file(*arguments, "d")
    with pytest.raises(FormatError):
        model_delta.compress(broken(data), Path("b").read_bytes())
    assert Path("d").read_bytes() == b"as it was"
    assert sorted(os.listdir()) == ["b", "d", "t", "x"]


def test_wrong_arguments() -> None:
    data = file_of(model()[:1])
    with pytest.raises(ValueError, match="effort"):
        model_delta.compress(data, data, effort="most")
    with pytest.raises(TypeError):
        model_delta.compress(data, 5)
    with pytest.raises(FileNotFoundError):
        model_delta.compress(data, "missing")
    with pytest.raises(FileNotFoundError):
        model_delta.open("missing", data)


def test_files_may_be_replaced_by_what_is_made_of_them(folder: Path) -> None:
    target, base = Path("t").read_bytes(), Path("b").read_bytes()
    model_delta.compress_file("t", "b", "t")
    assert Path("t").read_bytes() == model_delta.compress(target, base)
    model_delta.decompress_file("t", "b", "b")
    assert Path("b").read_bytes() == target
    assert sorted(os.listdir()) == ["b", "t"]


def test_progress_counts_up_to_the_whole(folder: Path) -> None:
    size = Path("t").stat().st_size
    calls: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        calls.append((done, total))

    model_delta.compress_file("t", "b", "d", progress=note, verify=True)
    assert calls[-1] == (2 * size, 2 * size)
    calls.clear()
    model_delta.decompress_file("d", "b", "x", progress=note)
    assert calls[-1] == (size, size)
    assert sorted(done for done, _ in calls) == [done for done, _ in calls]


def test_what_changes_while_it_is_compressed_is_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = encode.align

    def change(*arguments: object) -> object:
        data = bytearray(Path("t").read_bytes())
        data[-5] ^= 1
        Path("t").write_bytes(data)
        return found(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(encode, "align", change)
    Path("d").write_bytes(b"as it was")
    with pytest.raises(FormatError):
        model_delta.compress_file("t", "b", "d", verify=True)
    assert Path("d").read_bytes() == b"as it was"


def test_limits_are_heeded(folder: Path) -> None:
    base = Path("b").read_bytes()
    blob = model_delta.compress(Path("t").read_bytes(), base)
    with pytest.raises(LimitError, match="max_output_nbytes"):
        model_delta.decompress(blob, base, limits=z4ai.Limits(max_output_nbytes=1000))
    with pytest.raises(LimitError, match="max_table_nbytes"):
        model_delta.decompress(blob, base, limits=z4ai.Limits(max_table_nbytes=100))
    with model_delta.open(blob, base, limits=z4ai.Limits(max_output_nbytes=1000)) as reader:
        assert len(reader.read_raw("layer.0.bias")) == 288
        with pytest.raises(LimitError, match="max_output_nbytes"):
            reader.read_numpy("layer.0.q")


def test_an_empty_file_and_an_empty_base() -> None:
    empty = file_of([])
    blob = model_delta.compress(empty, empty)
    assert model_delta.decompress(blob, empty) == empty
    with pytest.raises(BaseMismatchError) as caught:
        model_delta.decompress(blob, file_of(model()[:1]))
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), BaseMismatchError)


def test_threads_share_a_reader() -> None:
    base = [tensor(f"w{k}", "BF16", (200, 200), k) for k in range(6)]
    target = [*map(tuned, base[:4]), *base[4:]]
    blob = model_delta.compress(file_of(target), file_of(base))
    wrong: list[str] = []
    with model_delta.open(blob, file_of(base)) as reader:

        def read() -> None:
            wrong.extend(t.name for t in target * 3 if reader.read_raw(t.name) != t.data)

        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


def test_a_base_that_is_a_damaged_container_is_an_error_of_its_own() -> None:
    from z4ai.safetensors import compress_bytes

    target, base = map(file_of, PAIRS["tuned"]())
    container = compress_bytes(base)
    blob = model_delta.compress(target, container)
    with pytest.raises(TruncatedError):
        model_delta.decompress(blob, container[:-1])
    damaged = bytearray(container)
    damaged[len(container) // 2] ^= 1
    with pytest.raises((CorruptError, z4ai.errors.ChecksumError)):
        model_delta.decompress(blob, bytes(damaged))


def test_a_delta_does_not_take_the_place_of_its_base(folder: Path) -> None:
    before = Path("b").read_bytes()
    os.link("b", "linked")
    for name in ("b", "./b", "linked"):
        with pytest.raises(ValueError, match="is the base"):
            model_delta.compress_file("t", Path("b"), name)
    assert Path("b").read_bytes() == before
    assert sorted(os.listdir()) == ["b", "linked", "t"]
    # To bring a model to its next state in its place is another thing: both are known then.
    after = Path("t").read_bytes()
    model_delta.compress_file("t", "b", "d")
    model_delta.decompress_file("d", "b", "b")
    assert Path("b").read_bytes() == after


def test_a_closed_reader_holds_no_memory_of_the_base() -> None:
    target, base = (file_of(tensors) for tensors in PAIRS["tuned"]())
    memory = bytearray(base)
    reader = model_delta.open(model_delta.compress(target, base), memory)
    reader.read_raw(reader.names()[0])
    reader.close()
    memory.clear()  # BufferError while anybody looks at it
