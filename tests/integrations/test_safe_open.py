"""`SafeOpen` against `safetensors.safe_open`: the same answers from the compressed file."""

from __future__ import annotations

import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

import z4ai
from z4ai.integrations import SafeOpen, is_container
from z4ai.integrations._index import CACHE
from z4ai.safetensors import ZstnWriter, compress_file

STATE = {
    "cube": torch.arange(3 * 4 * 5, dtype=torch.float32).reshape(3, 4, 5),
    "matrix": (torch.arange(12) - 5).bfloat16().reshape(3, 4),
    "row": torch.arange(10, dtype=torch.int16),
    "scalar": torch.tensor(3.5),
    "none": torch.empty(0, 4),
    "thin": torch.arange(4, dtype=torch.uint8).reshape(4, 1),
    "bool": torch.tensor([True, False, True]),
    "fp8": torch.arange(8).to(torch.float8_e4m3fn).reshape(2, 4),
    "complex": torch.arange(4).to(torch.complex64).reshape(2, 2),
    "deep": torch.arange(2 * 3 * 2 * 3 * 2, dtype=torch.int64).reshape(2, 3, 2, 3, 2),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tensors in a plain file and in a container."""
    path = tmp_path_factory.mktemp("open")
    safetensors.torch.save_file(STATE, path / "plain.safetensors", {"format": "pt", "k": "v"})
    compress_file(path / "plain.safetensors", path / "z4.safetensors")
    return path


def both(folder: Path, framework: str = "pt") -> tuple[Any, SafeOpen]:
    theirs = safetensors.safe_open(folder / "plain.safetensors", framework)
    return theirs, SafeOpen(folder / "z4.safetensors", framework)


def bits(values: Any) -> bytes:
    if isinstance(values, torch.Tensor):
        flat = values.contiguous().as_strided((values.numel(),), (1,))
        return flat.view(torch.uint8).numpy().tobytes()
    return np.ascontiguousarray(values).tobytes()


def answer(call: Callable[[], Any]) -> Any:
    """What a call gives: dtype, shape and bits, or the class of its error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = call()
        except Exception as error:
            return type(error)
    return found.dtype, tuple(found.shape), bits(found)


# --- The same answers -----------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_names_metadata_shapes_and_dtypes(folder: Path, framework: str) -> None:
    theirs, ours = both(folder, framework)
    assert ours.keys() == theirs.keys()
    assert ours.offset_keys() == theirs.offset_keys()
    assert ours.metadata() == theirs.metadata()
    for name in theirs.keys():  # noqa: SIM118 - it is no mapping
        assert ours.get_slice(name).get_shape() == theirs.get_slice(name).get_shape()
        assert ours.get_slice(name).get_dtype() == theirs.get_slice(name).get_dtype()


def test_tensors_one_by_one_and_all(folder: Path) -> None:
    theirs, ours = both(folder)
    for name in STATE:
        assert answer(lambda name=name: ours.get_tensor(name)) == answer(
            lambda name=name: theirs.get_tensor(name)
        )
    everything = ours.get_tensors()
    assert list(everything) == list(theirs.get_tensors())
    for name, tensor in everything.items():
        assert answer(lambda tensor=tensor: tensor) == answer(lambda name=name: STATE[name])


def test_all_tensors_share_nothing_even_where_they_were_tied(tmp_path: Path) -> None:
    """So that they can be saved by safetensors, which refuses tensors that do."""
    weight = torch.randn(50, 50)
    z4ai.save_file({"a": weight, "b": weight}, tmp_path / "m.z4")
    loaded = SafeOpen(tmp_path / "m.z4", "pt").get_tensors()
    safetensors.torch.save_file(loaded, tmp_path / "again.safetensors")
    loaded["a"].zero_()
    assert torch.equal(loaded["b"], weight)


@pytest.mark.parametrize("framework", ["pt", "np"])
def test_limits_bound_all_tensors_together(tmp_path: Path, framework: str) -> None:
    weight = torch.randn(50, 50)
    z4ai.save_file({"a": weight, "b": weight}, tmp_path / "m.z4")
    for nbytes in (2 * weight.nbytes, 2 * weight.nbytes - 1):
        limits = z4ai.Limits(max_output_nbytes=nbytes)
        file = SafeOpen(tmp_path / "m.z4", framework, limits=limits)
        if nbytes == 2 * weight.nbytes:
            assert file.get_tensors().keys() == {"a", "b"}
        else:
            with pytest.raises(z4ai.errors.LimitError):
                file.get_tensors()


def test_arrays_of_numpy_and_of_ml_dtypes(folder: Path) -> None:
    theirs, ours = both(folder, "np")
    for name in set(STATE) - {"matrix", "fp8"}:
        assert answer(lambda name=name: ours.get_tensor(name)) == answer(
            lambda name=name: theirs.get_tensor(name)
        )
    assert ours.get_tensor("matrix").dtype == ml_dtypes.bfloat16
    assert ours.get_slice("fp8")[:, 1:3].dtype == ml_dtypes.float8_e4m3fn
    arrays = ours.get_tensors()
    assert {name: bits(array) for name, array in arrays.items()} == {
        name: bits(tensor) for name, tensor in STATE.items()
    }
    assert all(array.flags.writeable for array in arrays.values())


# --- Slices ---------------------------------------------------------------------------------------

NUMBERS = st.integers(-7, 7)
STEPS = st.one_of(st.none(), st.integers(1, 4), st.sampled_from([0, -1]))
SLICES = st.builds(slice, st.none() | NUMBERS, st.none() | NUMBERS, STEPS)
BASIC = st.one_of(SLICES, SLICES, NUMBERS, st.just(...), st.none(), NUMBERS.map(np.int64))
LISTS = st.lists(st.integers(-4, 4), max_size=5)
MASKS = st.lists(st.booleans(), min_size=1, max_size=5)
ADVANCED = st.one_of(
    BASIC,
    LISTS,
    LISTS.map(tuple),
    LISTS.map(lambda rows: torch.tensor(rows, dtype=torch.int64)),
    LISTS.map(lambda rows: np.array(rows, np.int64)),
    st.integers(-3, 3).map(torch.tensor),
    MASKS,
    MASKS.map(torch.tensor),
    st.booleans(),
    st.just([[0, 1], [1, 0]]),
    st.just(torch.tensor([[0, 1], [1, 0]])),
    st.sampled_from([1.0, "x", 2**63, -(2**63), 2**70]),
)


def indexes(part: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(part, st.lists(part, max_size=5).map(tuple))


@given(name=st.sampled_from(sorted(STATE)), index=indexes(BASIC))
def test_basic_indexes_give_what_safetensors_gives(folder: Path, name: str, index: Any) -> None:
    theirs, ours = both(folder)
    expected = answer(lambda: theirs.get_slice(name)[index])
    assert answer(lambda: ours.get_slice(name)[index]) == expected


@given(name=st.sampled_from(sorted(STATE)), index=indexes(ADVANCED))
def test_any_index_gives_what_safetensors_gives(folder: Path, name: str, index: Any) -> None:
    theirs, ours = both(folder)
    expected = answer(lambda: theirs.get_slice(name)[index])
    assert answer(lambda: ours.get_slice(name)[index]) == expected


@given(name=st.sampled_from(sorted(set(STATE) - {"matrix", "fp8"})), index=indexes(BASIC))
def test_with_numpy_whatever_safetensors_gives(folder: Path, name: str, index: Any) -> None:
    """Where it refuses or stumbles, what NumPy gives is right as well; nothing else is."""
    theirs, ours = both(folder, "np")
    found = answer(lambda: ours.get_slice(name)[index])
    if _may_panic(index):
        expected: Any = IndexError
    else:
        expected = answer(lambda: theirs.get_slice(name)[index])
    if isinstance(expected, type):
        right = answer(lambda: np.asarray(STATE[name].numpy()[index]))
        assert found == right or issubclass(found, (IndexError, expected))
        return
    assert found == expected


def _may_panic(index: Any) -> bool:
    """Slices that end before they begin bring safetensors down, not only to an exception."""
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(part, slice) and part.stop is not None for part in parts)


def test_an_index_that_fits_nothing_is_an_error_for_either_kind_of_caller(folder: Path) -> None:
    cube = SafeOpen(folder / "z4.safetensors", "np").get_slice("cube")
    for error in (safetensors.SafetensorError, IndexError):
        with pytest.raises(error, match="index 3 is out of bounds for axis 0 of 3"):
            cube[3]


def test_pairs_of_fp4_are_sliced_as_torch_has_them(tmp_path: Path) -> None:
    raw = torch.arange(24, dtype=torch.uint8).reshape(4, 6)
    z4ai.save_file({"w": raw.view(torch.float4_e2m1fn_x2)}, tmp_path / "m.z4")
    file = SafeOpen(tmp_path / "m.z4", "pt")
    assert file.get_slice("w").get_shape() == [4, 12]
    assert torch.equal(file.get_tensor("w").view(torch.uint8), raw)
    part = file.get_slice("w")[1:3, 2:4]
    assert part.dtype == torch.float4_e2m1fn_x2
    assert bits(part) == bits(raw[1:3, 2:4])
    with pytest.raises(TypeError, match="NumPy has no dtype for 'F4'"):
        SafeOpen(tmp_path / "m.z4", "np").get_tensor("w")


# --- Only what is needed --------------------------------------------------------------------------

ROWS, COLUMNS = 4096, 1536
CHUNK_ROWS = 2**20 // (2 * COLUMNS)  # in bf16


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A matrix of several chunks, none of which ends where a row does."""
    path = tmp_path_factory.mktemp("large") / "m.z4"
    torch.manual_seed(1)
    weight = torch.randn(ROWS, COLUMNS).bfloat16()
    z4ai.save_file({"w": weight, "b": torch.randn(8)}, path, effort="fast")
    return path, weight


def chunks_of(file: SafeOpen, weight: torch.Tensor, index: Any) -> int:
    """How many chunks hold the bytes that an index chooses, by the number of each element."""
    archive = file._archive
    assert archive is not None
    found = archive.find("w")
    assert found is not None
    chunk_nbytes = archive.decoder().frame_index(*found).header.chunk_nbytes
    assert weight.nbytes / chunk_nbytes > 5
    numbers = torch.arange(weight.numel(), dtype=torch.int32).view(weight.shape)
    return len(torch.unique(numbers[index].long() * weight.element_size() // chunk_nbytes))


@pytest.mark.parametrize(
    "index",
    [
        np.s_[0],
        np.s_[-1],
        np.s_[CHUNK_ROWS : CHUNK_ROWS + 1],
        np.s_[100:200],
        np.s_[1000:3000],
        np.s_[3000:, :10],
        np.s_[:, 512:1024],
        np.s_[::1400],
        np.s_[::2000, ::2],
        np.s_[5:4000:1900, 7],
        np.s_[[0, 4095]],
        np.s_[[0, 0, 1, 700], 3:9],
        np.s_[2000:2100, [3, 1]],
        np.s_[5, [3, 1]],
        np.s_[torch.tensor([[4095, 0]])],
        np.s_[:],
        np.s_[...],
        np.s_[0:0],
    ],
    ids=repr,
)
def test_only_the_chunks_that_hold_a_part_are_decoded(
    large: tuple[Path, torch.Tensor], index: Any
) -> None:
    path, weight = large
    file = SafeOpen(path, "pt")
    assert file._n_chunks == 0
    part = file.get_slice("w")[index]
    assert part.shape == weight[index].shape
    assert bits(part) == bits(weight[index])
    assert file._n_chunks == chunks_of(file, weight, index)


def test_shards_of_tensor_parallel_ranks_make_the_whole(large: tuple[Path, torch.Tensor]) -> None:
    path, weight = large
    for axis in (0, 1):
        for ranks in (2, 3):
            width = weight.shape[axis] // ranks
            shards = []
            for rank in range(ranks):
                part = SafeOpen(path, "pt").get_slice("w")
                cut = slice(rank * width, None if rank == ranks - 1 else (rank + 1) * width)
                shards.append(part[cut] if axis == 0 else part[:, cut])
            assert torch.equal(torch.cat(shards, axis), weight)


def test_a_part_of_a_large_tensor_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns touch every chunk: they are gathered group of rows by group of rows."""
    from z4ai.integrations import _strided

    weight = torch.randn(1200, 70, 9)
    z4ai.save_file({"w": weight}, tmp_path / "m.z4", effort="fast")
    sizes = []
    decode = _strided.StridedRead._decode

    def spy(self: Any, offset: int, sink: Any, nbytes: int) -> None:
        sizes.append(nbytes)
        decode(self, offset, sink, nbytes)

    monkeypatch.setattr(_strided, "_HULL_NBYTES", 1 << 16)
    monkeypatch.setattr(_strided.StridedRead, "_decode", spy)
    part = SafeOpen(tmp_path / "m.z4", "pt").get_slice("w")
    for index in (np.s_[:, 3:60], np.s_[:, :, 4], np.s_[::3, 1::2, ::4]):
        assert torch.equal(part[index], weight[index])
    assert sum(sizes) > 2 * weight.nbytes
    assert max(sizes) <= 1 << 20, "as large as a chunk"


def test_a_part_holds_no_more_memory_than_it_shows(large: tuple[Path, torch.Tensor]) -> None:
    part = SafeOpen(large[0], "pt").get_slice("w")[:, :7]
    assert part.untyped_storage().nbytes() == part.nbytes


def test_parts_of_frames_with_copies(tmp_path: Path) -> None:
    """Long repeats inside a tensor are restored by copying: parts of it come from elsewhere."""
    layer = torch.randn(300, 1000)
    weight = torch.cat([layer, torch.randn(50, 1000), layer])
    stats = z4ai.save_file({"w": weight}, tmp_path / "m.z4")
    assert stats["ratio"] > 1.5, "no copies here"
    part = SafeOpen(tmp_path / "m.z4", "pt").get_slice("w")
    for index in (np.s_[640], np.s_[299:352], np.s_[::7, 3], np.s_[[0, 649, 350]], np.s_[:, ::9]):
        assert torch.equal(part[index], weight[index])


# --- Errors ---------------------------------------------------------------------------------------


def test_unknown_names_are_errors_of_safetensors(folder: Path) -> None:
    file = SafeOpen(folder / "z4.safetensors", "pt")
    for get in (file.get_tensor, file.get_slice):
        with pytest.raises(safetensors.SafetensorError, match="does not contain tensor nope"):
            get("nope")
        with pytest.raises(TypeError, match="a tensor's name is a string, got int"):
            get(1)  # type: ignore[arg-type]


def test_a_closed_file_gives_nothing_but_its_slices(folder: Path) -> None:
    with SafeOpen(folder / "z4.safetensors", framework="pt", device="cpu") as file:
        part = file.get_slice("cube")
    for call in (file.keys, file.offset_keys, file.metadata, file.get_tensors):
        with pytest.raises(safetensors.SafetensorError, match="File is closed"):
            call()
    with pytest.raises(safetensors.SafetensorError, match="File is closed"):
        file.get_tensor("cube")
    assert torch.equal(part[1], STATE["cube"][1])
    assert part.get_shape() == [3, 4, 5]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="no list of open files here")
def test_files_are_closed_when_nobody_needs_them(folder: Path) -> None:
    def opened() -> int:
        links = (os.path.join("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd"))
        found = [os.readlink(link) for link in links if os.path.islink(link)]
        return sum("z4.safetensors" in path for path in found)

    before = opened()
    with SafeOpen(folder / "z4.safetensors", "pt") as file:
        file.get_tensor("cube")
        assert opened() == before + 1
    assert opened() == before
    part = SafeOpen(folder / "z4.safetensors", "pt").get_slice("cube")
    assert opened() == before + 1
    del part
    assert opened() == before


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"framework": "bogus"}, safetensors.SafetensorError),
        ({"framework": "PT"}, safetensors.SafetensorError),
        ({"framework": 1}, TypeError),
        ({"framework": "pt", "device": "bogus"}, safetensors.SafetensorError),
        ({"framework": "pt", "device": "meta"}, safetensors.SafetensorError),
        ({"framework": "pt", "device": -1}, safetensors.SafetensorError),
        ({"framework": "np", "device": "cuda:0"}, safetensors.SafetensorError),
        ({"framework": "np", "device": 0}, safetensors.SafetensorError),
        ({"framework": "pt", "backend": "x"}, safetensors.SafetensorError),
        ({"framework": "pt", "bogus": 1}, TypeError),
        ({}, TypeError),
    ],
    ids=repr,
)
def test_arguments_are_refused_where_safetensors_refuses(
    folder: Path, arguments: dict[str, Any], error: type[Exception]
) -> None:
    for opener, name in ((safetensors.safe_open, "plain"), (SafeOpen, "z4")):
        with pytest.raises(error):
            opener(folder / f"{name}.safetensors", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"framework": "torch"},
        {"framework": "pytorch", "device": None},
        {"framework": "numpy", "backend": "pread"},
        {"framework": "pt", "device": "cpu", "backend": "mmap"},
    ],
    ids=repr,
)
def test_arguments_are_taken_where_safetensors_takes_them(
    folder: Path, arguments: dict[str, Any]
) -> None:
    theirs = safetensors.safe_open(folder / "plain.safetensors", **arguments)
    ours = SafeOpen(str(folder / "z4.safetensors"), **arguments)
    found = answer(lambda: ours.get_tensor("row"))
    assert found == answer(lambda: theirs.get_tensor("row"))


def test_a_device_of_torch_may_be_named_by_an_object(folder: Path) -> None:
    file = SafeOpen(folder / "z4.safetensors", "pt", torch.device("cpu"))
    assert torch.equal(file.get_tensor("row"), STATE["row"])


def test_files_that_are_no_containers(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        SafeOpen(tmp_path / "none", "pt")
    with pytest.raises(FileNotFoundError):
        is_container(tmp_path / "none")
    with pytest.raises(z4ai.errors.FormatError):
        SafeOpen(folder / "plain.safetensors", "pt")
    cut = tmp_path / "cut"
    cut.write_bytes((folder / "z4.safetensors").read_bytes()[:-1])
    assert is_container(cut)
    with pytest.raises(z4ai.errors.FormatError):
        SafeOpen(cut, "pt")


def test_it_cannot_be_pickled_as_safe_open_cannot(folder: Path) -> None:
    for file in both(folder):
        with pytest.raises(TypeError, match="cannot pickle"):
            pickle.dumps(file)


# --- The index is read once -----------------------------------------------------------------------


def write(path: Path, value: float) -> None:
    with ZstnWriter(path) as writer:
        writer.add("w", np.full(5, value, np.float32))


@pytest.fixture
def reads() -> Callable[[], int]:
    before = CACHE.n_reads
    return lambda: CACHE.n_reads - before


def test_ten_openings_cost_one_read_of_the_index(tmp_path: Path, reads: Callable[[], int]) -> None:
    write(tmp_path / "m.z4", 1.0)
    time.sleep(0.1)  # a file that has just changed may change again unseen
    for _ in range(10):
        with SafeOpen(tmp_path / "m.z4", "np") as file:
            assert file.get_tensor("w")[0] == 1.0
    assert reads() == 1
    z4ai.load_file(tmp_path / "m.z4")
    assert reads() == 1


@pytest.mark.parametrize("in_place", [True, False])
def test_another_file_under_the_same_name_is_seen(tmp_path: Path, in_place: bool) -> None:
    path = tmp_path / "m.z4"
    for value in range(20):
        if in_place:
            write(tmp_path / "next", float(value))
            path.write_bytes((tmp_path / "next").read_bytes())
        else:
            write(path, float(value))
        for _ in range(3):
            assert SafeOpen(path, "np").get_tensor("w")[0] == value


def test_the_cache_of_indexes_has_bounds(tmp_path: Path) -> None:
    for k in range(80):
        write(tmp_path / f"{k}.z4", float(k))
    time.sleep(0.1)
    for k in range(80):
        assert SafeOpen(tmp_path / f"{k}.z4", "np").get_tensor("w")[0] == k
    assert len(CACHE._indexes) <= 64
    held = sum(len(index.container.header_bytes) for index in CACHE._indexes.values())
    assert CACHE._nbytes == held


# --- Threads --------------------------------------------------------------------------------------


def test_eight_threads_share_one_file(tmp_path: Path) -> None:
    state = {f"{k}": torch.randn(200 + k, 300) for k in range(6)}
    z4ai.save_file(state, tmp_path / "m.z4")
    file = SafeOpen(tmp_path / "m.z4", "pt")
    failures: list[Any] = []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(30):
            name = str(rng.integers(6))
            row = int(rng.integers(200))
            expected = state[name]
            part = file.get_slice(name)
            ok = torch.equal(file.get_tensor(name), expected)
            ok = ok and torch.equal(part[row:, ::3], expected[row:, ::3])
            ok = ok and torch.equal(part[[row, 0]], expected[[row, 0]])
            if not ok:
                failures.append((seed, name, row))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
