"""`save_file` and `load_file` against torch and safetensors themselves."""

from __future__ import annotations

import inspect
import itertools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

import z4ai
from z4ai.integrations import _load, is_container
from z4ai.integrations._archive import Archive
from z4ai.safetensors import ZstnReader, ZstnWriter, compress_file, decompress_file

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E8M0": torch.float8_e8m0fnu,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
    "F4": torch.float4_e2m1fn_x2,
}


def bits(tensor: torch.Tensor) -> bytes:
    """The elements of a tensor, bit by bit, in C order."""
    plain = tensor.detach().resolve_conj().resolve_neg().contiguous()
    flat = plain.as_strided((plain.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes()


def assert_same(loaded: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert set(loaded) == set(expected)
    for name, tensor in expected.items():
        assert loaded[name].dtype == tensor.dtype, name
        assert loaded[name].shape == tensor.shape, name
        assert bits(loaded[name]) == bits(tensor), name


def every_pattern(dtype: torch.dtype) -> torch.Tensor:
    """Random elements, with every byte in every place: NaN with payloads, -0.0, infinities."""
    generator = torch.Generator().manual_seed(5)
    if dtype == torch.bool:
        return torch.randint(0, 2, (64, 32), generator=generator).bool()
    raw = torch.randint(0, 256, (64, 64 * 8), dtype=torch.uint8, generator=generator)
    raw[:16] = torch.tensor([0, 0x80, 0x7F, 0xFF], dtype=torch.uint8).repeat(16, 128)
    return raw.view(dtype)


def test_every_dtype_of_safetensors_is_here() -> None:
    from z4ai.integrations._tensors import _dtypes

    assert _dtypes() == DTYPES
    theirs = {dtype for dtype in safetensors.torch._SIZE if dtype is not None}
    assert theirs == set(DTYPES.values())


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_every_bit_of_every_dtype_comes_back(tmp_path: Path, effort: str) -> None:
    state = {code: every_pattern(dtype) for code, dtype in DTYPES.items()}
    stats = z4ai.save_file(state, tmp_path / "m.z4", {"format": "pt"}, effort=effort)
    assert stats["n_tensors"] == len(DTYPES)
    assert_same(z4ai.load_file(tmp_path / "m.z4"), state)
    with ZstnReader.open(tmp_path / "m.z4") as reader:
        assert {name: reader.dtype(name) for name in reader} == {code: code for code in DTYPES}
        assert reader.shape("F4") == (64, 2 * 512), "two elements a byte"


def test_what_is_restored_is_a_file_of_safetensors(tmp_path: Path) -> None:
    state = {code: every_pattern(dtype) for code, dtype in DTYPES.items()}
    z4ai.save_file(state, tmp_path / "m.z4", {"format": "pt", "who": "me"})
    decompress_file(tmp_path / "m.z4", tmp_path / "m.safetensors")
    assert_same(safetensors.torch.load_file(tmp_path / "m.safetensors"), state)
    with safetensors.safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "who": "me"}


def test_their_file_compressed_loads_as_their_file(tmp_path: Path) -> None:
    state = {code: every_pattern(dtype) for code, dtype in DTYPES.items()}
    state |= {"none": torch.empty(0, 3), "one": torch.tensor(-0.0), "large": torch.randn(2**21)}
    safetensors.torch.save_file(state, tmp_path / "m.safetensors")
    compress_file(tmp_path / "m.safetensors", tmp_path / "m.z4", effort="fast")
    theirs = safetensors.torch.load_file(tmp_path / "m.safetensors")
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert_same(loaded, theirs)
    assert list(loaded) == list(theirs), "in another order"


def views() -> dict[str, torch.Tensor]:
    base = torch.randn(48, 40)
    return {
        "transposed": base.t(),
        "strided": base[::3, 1::2],
        "column": base[:, 7],
        "expanded": base[:1].expand(20, 40),
        "expanded scalar": torch.tensor(2.5).expand(3, 4),
        "row of one column": base.t()[3:4].t(),
        "permuted": torch.randn(3, 4, 5, dtype=torch.bfloat16).permute(2, 0, 1),
        "channels last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "conjugated": torch.randn(4, 5, dtype=torch.complex64).conj(),
        "negated": torch.randn(4, 5, dtype=torch.complex64).conj().imag,
        "parameter": torch.nn.Parameter(base[3:9]),
        "no elements": base[:0],
        "no elements, later": torch.empty(4, 0, 2, dtype=torch.bfloat16),
        "scalar": torch.tensor(7, dtype=torch.int64),
        "one of many": base[5, 5],
        "fp8, transposed": torch.randn(6, 7).to(torch.float8_e4m3fn).t(),
    }


def test_views_are_saved_as_what_they_show(tmp_path: Path) -> None:
    state = views()
    kept = {name: bits(tensor) for name, tensor in state.items()}
    z4ai.save_file(state, tmp_path / "m.z4")
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert_same(loaded, state)
    assert {name: bits(tensor) for name, tensor in state.items()} == kept, "an input was changed"
    assert all(tensor.is_contiguous() for tensor in loaded.values())
    assert not any(tensor.requires_grad for tensor in loaded.values())


def test_loaded_tensors_can_be_written_to_and_trained(tmp_path: Path) -> None:
    z4ai.save_file({f"{k}": torch.randn(100 + k) for k in range(9)}, tmp_path / "m.z4")
    loaded = z4ai.load_file(tmp_path / "m.z4")
    kept = {name: bits(tensor) for name, tensor in loaded.items()}
    for name in loaded:
        loaded[name].mul_(2.0)
        others = {n: bits(t) for n, t in loaded.items() if n != name}
        assert others == {n: kept[n] for n in others}, f"{name} shares memory"
        loaded[name].mul_(0.5)
    weight = loaded["3"].requires_grad_()
    weight.sum().backward()
    assert weight.grad is not None


def test_each_tensor_has_a_storage_of_its_own_size(tmp_path: Path) -> None:
    state = {"small": torch.randn(33), "other": torch.randn(5, 5), "large": torch.randn(2**21)}
    z4ai.save_file(state, tmp_path / "m.z4")
    loaded = z4ai.load_file(tmp_path / "m.z4")
    for tensor in loaded.values():
        assert tensor.untyped_storage().nbytes() == tensor.nbytes
        assert tensor.storage_offset() == 0
    # What asks how tensors share storage finds nothing.
    safetensors.torch.save_file(loaded, tmp_path / "again.safetensors")
    assert_same(safetensors.torch.load_file(tmp_path / "again.safetensors"), state)


# --- Tied -----------------------------------------------------------------------------------------


def test_tied_tensors_are_stored_once_and_tied_again(tmp_path: Path) -> None:
    weight = torch.randn(300, 500)
    state = {"embed": weight, "head": weight, "third": weight[:], "flat": weight.view(-1)}
    stats = z4ai.save_file(state, tmp_path / "m.z4", {"format": "pt"})
    assert stats["n_shared"] == 3
    assert stats["compressed_bytes"] < weight.nbytes * 1.01
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert_same(loaded, state)
    assert loaded["embed"].data_ptr() == loaded["head"].data_ptr() == loaded["third"].data_ptr()
    assert loaded["flat"].data_ptr() != loaded["embed"].data_ptr(), "of another shape"
    loaded["head"].zero_()
    assert not loaded["embed"].any()
    assert loaded["flat"].any()
    with ZstnReader.open(tmp_path / "m.z4") as reader:
        assert reader.metadata() == {"format": "pt", "head": "embed", "third": "embed"}


def test_ties_alone_do_not_hide_the_format(tmp_path: Path) -> None:
    """accelerate loads a file without metadata, but none with metadata that name no format."""
    weight = torch.randn(30, 30)
    for metadata in (None, {}, {"by": "me"}):
        z4ai.save_file({"a": weight, "b": weight}, tmp_path / "m.z4", metadata)
        z4ai.save_file({"a": weight}, tmp_path / "one.z4", metadata)
        with (
            ZstnReader.open(tmp_path / "m.z4") as tied,
            ZstnReader.open(tmp_path / "one.z4") as one,
        ):
            expected = {"format": "pt"} if metadata is None else metadata
            assert tied.metadata() == {"b": "a", **expected}
            assert one.metadata() == metadata, "as it was given"


def test_equal_tensors_are_stored_once_and_not_tied(tmp_path: Path) -> None:
    state = {"a": torch.randn(300, 500), "ones": torch.ones(9), "more": torch.ones(9)}
    state["b"] = state["a"].clone()
    state["c"] = state["a"].clone().view(torch.int32)
    stats = z4ai.save_file(state, tmp_path / "m.z4")
    assert stats["n_shared"] >= 2
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert_same(loaded, state)
    assert len({tensor.data_ptr() for tensor in loaded.values()}) == len(state)


def test_what_the_metadata_says_goes_before_ties(tmp_path: Path) -> None:
    weight = torch.randn(100, 100)
    z4ai.save_file({"a": weight, "b": weight}, tmp_path / "m.z4", {"b": "mine"})
    with ZstnReader.open(tmp_path / "m.z4") as reader:
        assert reader.metadata() == {"b": "mine"}
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert loaded["a"].data_ptr() != loaded["b"].data_ptr()


@pytest.mark.parametrize("claim", [{"a": "b"}, {"a": "b", "b": "a"}, {"a": "a"}, {"a": "c"}])
def test_metadata_ties_nothing_that_is_not_the_same(tmp_path: Path, claim: dict[str, str]) -> None:
    state = {"a": torch.randn(100, 100), "b": torch.randn(100, 100), "c": torch.randn(9)}
    z4ai.save_file(state, tmp_path / "m.z4", claim)
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert_same(loaded, state)
    assert len({tensor.data_ptr() for tensor in loaded.values()}) == 3


def test_overlapping_views_are_tensors_of_their_own(tmp_path: Path) -> None:
    base = torch.randn(2000)
    state = {"head": base[:1500], "tail": base[500:], "transposed": base.view(40, 50).t()}
    z4ai.save_file(state, tmp_path / "m.z4")
    loaded = z4ai.load_file(tmp_path / "m.z4")
    assert_same(loaded, state)
    assert len({tensor.untyped_storage().data_ptr() for tensor in loaded.values()}) == 3


# --- Refused --------------------------------------------------------------------------------------

QUANTIZED = "ignore:.*quant.*"


@pytest.mark.filterwarnings(QUANTIZED, "ignore:.*CSR.*", "ignore:.*nested tensors.*")
@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: torch.zeros(3, device="meta"), ValueError, "'x' is on the meta device"),
        (lambda: torch.eye(3).to_sparse(), ValueError, "'x' is sparse_coo: make it dense"),
        (lambda: torch.eye(3).to_sparse_csr(), ValueError, "'x' is sparse_csr: make it dense"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
            ValueError,
            "'x' is quantized",
        ),
        (
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            ValueError,
            "'x' is nested",
        ),
        (lambda: torch.zeros(3, dtype=torch.complex128), TypeError, "'x' is complex128, which"),
        (lambda: np.zeros(3), ValueError, "'x' is a ndarray, expected a torch.Tensor"),
        (lambda: [1.0], ValueError, "'x' is a list, expected a torch.Tensor"),
    ],
)
def test_what_cannot_be_saved_is_refused(
    tmp_path: Path, make: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        z4ai.save_file({"fine": torch.zeros(2), "x": make()}, tmp_path / "m.z4")
    assert list(tmp_path.iterdir()) == []


def test_a_list_of_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected a mapping of names to tensors, got list"):
        z4ai.save_file([torch.zeros(3)], tmp_path / "m.z4")  # type: ignore[arg-type]


@pytest.mark.parametrize("metadata", [{"a": 1}, {1: "a"}, "max", [("a", "b")]], ids=repr)
def test_metadata_is_text(tmp_path: Path, metadata: Any) -> None:
    with pytest.raises(TypeError, match="metadata maps strings to strings"):
        z4ai.save_file({"x": torch.zeros(3)}, tmp_path / "m.z4", metadata)
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_ours_are_refused_by_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    z4ai_frame = z4ai.compress(bytes(1000))
    delta = z4ai.compress_delta(bytes(1000), reference=bytes(1000))
    for blob, message in [
        (z4ai_frame, "is a single frame: decompress it with z4ai.decompress"),
        (delta, "is a delta of a buffer"),
        (b"Z4DM" + bytes(100), "is a model delta, which needs its base"),
    ]:
        path.write_bytes(blob)
        with pytest.raises(z4ai.errors.FormatError, match=message):
            z4ai.load_file(path)
        with pytest.raises(z4ai.errors.FormatError, match=message):
            is_container(path)


def test_what_is_no_file_of_ours_gives_the_errors_of_safetensors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        z4ai.load_file(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"ab")
    with pytest.raises(safetensors.SafetensorError):
        z4ai.load_file(tmp_path / "short")


def test_dtypes_without_a_form_in_torch_are_refused_by_name(tmp_path: Path) -> None:
    for code, shape, message in [
        ("F6_E2M3", (4, 4), "torch .* has no dtype for 'F6_E2M3'"),
        ("F4", (2, 3), "last axis is not even"),
    ]:
        with ZstnWriter(tmp_path / "m.z4") as writer:
            writer.add_raw("w", bytes(3 if code == "F4" else 12), code, shape)
        with pytest.raises(TypeError, match=message):
            z4ai.load_file(tmp_path / "m.z4")


def test_damage_is_an_error_that_names_the_tensor(tmp_path: Path) -> None:
    path = tmp_path / "m.z4"
    z4ai.save_file({"a": torch.randn(1000), "b": torch.randn(700_000)}, path)
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(blob)
    with pytest.raises(z4ai.errors.FormatError) as caught:
        z4ai.load_file(path)
    assert caught.value.tensor == "b"


def test_limits_bound_all_tensors_together(tmp_path: Path) -> None:
    z4ai.save_file({"a": torch.zeros(1000), "b": torch.ones(1000)}, tmp_path / "m.z4")
    z4ai.load_file(tmp_path / "m.z4", limits=z4ai.Limits(max_output_nbytes=8000))
    with pytest.raises(z4ai.errors.LimitError):
        z4ai.load_file(tmp_path / "m.z4", limits=z4ai.Limits(max_output_nbytes=7999))


def test_the_memory_of_the_host_does_not_bound_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model may fit into a GPU and not into the host, through which it goes in pieces."""
    z4ai.save_file({"a": torch.zeros(1000), "b": torch.ones(1000)}, tmp_path / "m.z4")
    small = z4ai.Limits(max_output_nbytes=3999)
    for module in ("z4ai.options", "z4ai.integrations._load"):
        monkeypatch.setattr(f"{module}.DEFAULT_LIMITS", small)
    with pytest.raises(z4ai.errors.LimitError):
        z4ai.load_file(tmp_path / "m.z4")
    assert z4ai.load_file(tmp_path / "m.z4", "meta").keys() == {"a", "b"}
    _load.load_one(Archive(tmp_path / "m.z4"), "a", torch.device("meta"))
    limits = z4ai.Limits(max_output_nbytes=3999)
    with pytest.raises(z4ai.errors.LimitError):
        z4ai.load_file(tmp_path / "m.z4", "meta", limits=limits)
    with pytest.raises(z4ai.errors.LimitError):
        _load.load_one(Archive(tmp_path / "m.z4", limits=limits), "a", torch.device("meta"))


# --- Many tensors, devices ------------------------------------------------------------------------


def many() -> dict[str, torch.Tensor]:
    """Small and large tensors of several dtypes, some with the same bytes."""
    state: dict[str, torch.Tensor] = {}
    dtypes = itertools.cycle([torch.bfloat16, torch.float32, torch.int8, torch.float64])
    for k, dtype in zip(range(120), dtypes, strict=False):
        shape = (k % 7 + 1, 31 * (k % 11) + 1)
        state[f"small.{k}"] = (torch.randn(shape) * 20).to(dtype)
    state["large"] = torch.randn(3_000_000)
    state["larger"] = torch.randn(7_000_001).bfloat16()
    state["tied"] = state["large"]
    state["same"] = state["large"].clone()
    state["same, cut"] = state["large"].clone().view(torch.int16).view(100, -1)
    state["empty"] = torch.empty(0)
    return state


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_many_tensors_by_any_number_of_threads(tmp_path: Path, effort: str) -> None:
    state = many()
    z4ai.save_file(state, tmp_path / "m.z4", effort=effort)
    for threads in (1, 2, 5):
        assert_same(z4ai.load_file(tmp_path / "m.z4", threads=threads), state)


def test_the_way_to_a_device_gives_the_same(tmp_path: Path) -> None:
    """There may be no other device here: the host takes its place."""
    state = many()
    z4ai.save_file(state, tmp_path / "m.z4", effort="fast")
    archive = Archive(tmp_path / "m.z4")
    rows = {row.name: row for row in archive.tensors}
    ties = archive.index.ties
    loaded = _load._load_through_staging(archive, rows, ties, torch.device("cpu"), None)
    assert_same(loaded, state)
    assert loaded["tied"].data_ptr() == loaded["large"].data_ptr()
    assert loaded["same"].data_ptr() != loaded["large"].data_ptr()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_tensors_go_to_a_cuda_device(tmp_path: Path) -> None:
    state = many()
    z4ai.save_file(state, tmp_path / "m.z4", effort="fast")
    loaded = z4ai.load_file(tmp_path / "m.z4", device="cuda:0")
    assert {tensor.device for tensor in loaded.values()} == {torch.device("cuda:0")}
    assert_same({name: tensor.cpu() for name, tensor in loaded.items()}, state)


def test_a_device_may_be_an_object_for_either_file(tmp_path: Path) -> None:
    state = {"w": torch.randn(5, 5)}
    z4ai.save_file(state, tmp_path / "m.z4")
    safetensors.torch.save_file(state, tmp_path / "m.safetensors")
    for path in (tmp_path / "m.z4", tmp_path / "m.safetensors"):
        for device in (torch.device("cpu"), torch.device("cpu", 0)):
            assert_same(z4ai.load_file(path, device), state)
        with pytest.raises((RuntimeError, AssertionError), match=r"(?i)cuda|device|pin_memory"):
            z4ai.load_file(path, torch.device("cuda", 99))


def test_arguments_are_those_of_safetensors(tmp_path: Path) -> None:
    """So that a program changes the name of the module and nothing else."""
    for name in ("load_file", "load_model", "save_file", "save_model"):
        ours = inspect.signature(getattr(z4ai, name)).parameters
        theirs = inspect.signature(getattr(safetensors.torch, name)).parameters
        for parameter in theirs.values():
            assert ours[parameter.name].kind == parameter.kind, (name, parameter)
            assert ours[parameter.name].default == parameter.default, (name, parameter)
        by_place = inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert [n for n, p in ours.items() if p.kind == by_place] == [
            n for n, p in theirs.items() if p.kind == by_place
        ], name
    model = torch.nn.Linear(4, 4)
    z4ai.save_model(model, tmp_path / "m.z4")
    safetensors.torch.save_model(model, str(tmp_path / "m.safetensors"))
    for path in (tmp_path / "m.z4", tmp_path / "m.safetensors"):
        for backend in ("mmap", "pread"):
            assert_same(z4ai.load_file(path, backend=backend), model.state_dict())
            assert z4ai.load_model(model, path, backend=backend) == (set(), [])
        with pytest.raises(safetensors.SafetensorError, match="backend"):
            z4ai.load_file(path, backend="other")


def test_a_device_context_does_not_move_what_is_loaded(tmp_path: Path) -> None:
    state = {"w": torch.randn(5, 5), "none": torch.empty(0, 2)}
    z4ai.save_file(state, tmp_path / "m.z4")
    with torch.device("meta"):
        loaded = z4ai.load_file(tmp_path / "m.z4")
        archive = Archive(tmp_path / "m.z4")
        rows = {row.name: row for row in archive.tensors}
        staged = _load._load_through_staging(archive, rows, {}, torch.device("cpu"), None)
    assert_same(loaded, state)
    assert_same(staged, state)


def test_progress_counts_every_byte_once(tmp_path: Path) -> None:
    z4ai.save_file(many(), tmp_path / "m.z4", effort="fast")
    calls: list[tuple[int, int]] = []
    loaded = z4ai.load_file(tmp_path / "m.z4", progress=lambda *call: calls.append(call))
    once = sum(t.nbytes for n, t in loaded.items() if n not in ("tied", "same", "same, cut"))
    assert calls[-1] == (once, once)
    assert calls == sorted(calls)


# --- Models ---------------------------------------------------------------------------------------


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(50, 16)
        self.norm = torch.nn.LayerNorm(16)
        self.head = torch.nn.Linear(16, 50, bias=False)
        self.head.weight = self.embed.weight


def test_models_are_saved_and_loaded_as_safetensors_has_it(tmp_path: Path) -> None:
    model = Tied()
    z4ai.save_model(model, tmp_path / "m.z4", {"format": "pt"})
    safetensors.torch.save_model(model, str(tmp_path / "m.safetensors"), {"format": "pt"})
    decompress_file(tmp_path / "m.z4", tmp_path / "restored.safetensors")
    with (
        safetensors.safe_open(tmp_path / "m.safetensors", "pt") as theirs,
        safetensors.safe_open(tmp_path / "restored.safetensors", "pt") as ours,
    ):
        assert (
            ours.metadata() == theirs.metadata() == {"format": "pt", "head.weight": "embed.weight"}
        )
        assert ours.keys() == theirs.keys()
    for path in ("m.z4", "m.safetensors"):
        other = Tied()
        assert z4ai.load_model(other, tmp_path / path) == (set(), [])
        assert_same(other.state_dict(), model.state_dict())
        assert other.head.weight is other.embed.weight


def test_a_model_takes_both_names_of_what_was_tied(tmp_path: Path) -> None:
    model, other = Tied(), Tied()
    z4ai.save_file(model.state_dict(), tmp_path / "m.z4")
    assert z4ai.load_model(other, tmp_path / "m.z4") == (set(), [])
    assert_same(other.state_dict(), model.state_dict())
    # Where the file has two tensors, only one can be what the model holds.
    state = model.state_dict()
    state["head.weight"] = state["head.weight"].clone()
    z4ai.save_file(state, tmp_path / "two.z4")
    safetensors.torch.save_file(state, tmp_path / "two.safetensors")
    theirs = safetensors.torch.load_model(Tied(), tmp_path / "two.safetensors", strict=False)
    assert z4ai.load_model(Tied(), tmp_path / "two.z4", strict=False) == theirs
    with pytest.raises(RuntimeError, match="does not fit"):
        z4ai.load_model(Tied(), tmp_path / "two.z4")


@pytest.mark.parametrize("load", ["ours", "theirs"])
def test_models_that_do_not_fit_are_refused_where_safetensors_refuses(
    tmp_path: Path, load: str
) -> None:
    state = {"embed.weight": torch.randn(50, 16), "stray": torch.zeros(2)}
    z4ai.save_file(state, tmp_path / "m.z4")
    safetensors.torch.save_file(state, tmp_path / "m.safetensors")

    def load_model(model: torch.nn.Module, *, strict: bool) -> Any:
        if load == "ours":
            return z4ai.load_model(model, tmp_path / "m.z4", strict=strict)
        return safetensors.torch.load_model(model, tmp_path / "m.safetensors", strict=strict)

    missing, unexpected = load_model(Tied(), strict=False)
    assert sorted(missing) == ["norm.bias", "norm.weight"]
    assert unexpected == ["stray"]
    with pytest.raises(RuntimeError) as caught:
        load_model(Tied(), strict=True)
    for name in ("norm.bias", "norm.weight", "stray"):
        assert f'"{name}"' in str(caught.value)


def test_a_model_that_covers_no_storage_is_refused(tmp_path: Path) -> None:
    model = torch.nn.Linear(4, 4)
    model.weight = torch.nn.Parameter(torch.randn(8, 4)[:4])
    with pytest.raises(RuntimeError, match="covering the entire storage"):
        z4ai.save_model(model, tmp_path / "m.z4")


def test_without_safetensors_containers_still_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    z4ai.save_file({"w": torch.arange(4)}, tmp_path / "m.z4")
    safetensors.torch.save_file({"w": torch.arange(4)}, tmp_path / "m.safetensors")
    monkeypatch.delitem(sys.modules, "safetensors.torch")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    assert torch.equal(z4ai.load_file(tmp_path / "m.z4")["w"], torch.arange(4))
    with pytest.raises(ImportError, match=r'safetensors is not installed: pip .* "z4ai\[hf\]"'):
        z4ai.load_file(tmp_path / "m.safetensors")
