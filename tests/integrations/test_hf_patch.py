"""`enable_hf`: which names are replaced, what takes their place, and that all of it is undone."""

from __future__ import annotations

import inspect
import os
import sys
import threading
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import safetensors.torch
import torch
from hf_models import enabled  # noqa: F401 - a fixture

import z4ai
from z4ai.integrations import SafeOpen
from z4ai.safetensors import compress_file


class Plain:
    """The originals, where no scan of modules finds them."""

    safe_open: Any = safetensors.safe_open
    deserialize: Any = safetensors.deserialize


VARIABLE = "Z4AI_ENABLE_HF"


@pytest.fixture(autouse=True)
def nothing_stays_behind(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delenv(VARIABLE, raising=False)
    yield
    z4ai.disable_hf()
    assert safetensors.safe_open is Plain.safe_open
    assert safetensors.torch.safe_open is Plain.safe_open


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    return {
        "w": torch.randn(300, 64).bfloat16(),
        "half": torch.randn(40, 40).half(),
        "ids": torch.arange(100),
        "flags": torch.arange(9) % 2 == 0,
        "nothing": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
    }


@pytest.fixture
def files(state: dict[str, torch.Tensor], tmp_path: Path) -> tuple[Path, Path]:
    """The same tensors in a plain file and in a container, neither with a name that says so."""
    plain, small = tmp_path / "a.bin", tmp_path / "b.bin"
    safetensors.torch.save_file(state, plain, metadata={"format": "pt"})
    compress_file(plain, small)
    return plain, small


def read_all(file: Any) -> dict[str, Any]:
    return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(
        a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a
    )


# --- What is read ---------------------------------------------------------------------------------

LOADERS: dict[str, Callable[[Path], dict[str, torch.Tensor]]] = {
    "safe_open": lambda path: read_all(safetensors.safe_open(path, "pt")),
    "torch.safe_open": lambda path: read_all(safetensors.torch.safe_open(path, framework="pt")),
    "by keyword": lambda path: read_all(
        safetensors.safe_open(filename=str(path), framework="pt", device="cpu", backend="pread")
    ),
    "load_file": lambda path: safetensors.torch.load_file(path),
    "load_file to": lambda path: safetensors.torch.load_file(str(path), device="cpu"),
    "load": lambda path: safetensors.torch.load(path.read_bytes()),
}


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.usefixtures("enabled")
def test_each_loader_reads_either_file(
    name: str, files: tuple[Path, Path], state: dict[str, torch.Tensor]
) -> None:
    for path in files:
        assert same(LOADERS[name](path), state), path


@pytest.mark.parametrize("name", LOADERS)
def test_without_it_a_container_is_refused(name: str, files: tuple[Path, Path]) -> None:
    """What a user without z4ai sees: the guide of Hugging Face quotes it."""
    with pytest.raises(safetensors.SafetensorError, match="header too large"):
        LOADERS[name](files[1])


@pytest.mark.usefixtures("enabled")
def test_numpy_reads_either_file(tmp_path: Path) -> None:
    plain, small = tmp_path / "plain", tmp_path / "small"
    arrays = {"a": np.arange(1000, dtype=np.float32).reshape(10, 100), "b": np.ones(3, np.int8)}
    safetensors.numpy.save_file(arrays, plain)
    compress_file(plain, small)
    for path in (plain, small):
        for loaded in (
            safetensors.numpy.load_file(path),
            safetensors.numpy.load(path.read_bytes()),
            read_all(safetensors.safe_open(path, framework="np")),
        ):
            assert loaded.keys() == arrays.keys()
            assert all(np.array_equal(loaded[name], arrays[name]) for name in arrays)


@pytest.mark.usefixtures("enabled")
def test_load_model_ties_what_was_tied(tmp_path: Path) -> None:
    def make() -> torch.nn.Module:
        model = torch.nn.ModuleDict(
            {"embed": torch.nn.Embedding(100, 32), "head": torch.nn.Linear(32, 100, bias=False)}
        )
        model["head"].weight = model["embed"].weight
        return model

    model, other = make(), make()
    safetensors.torch.save_model(model, str(tmp_path / "plain"))
    compress_file(tmp_path / "plain", tmp_path / "small")
    assert safetensors.torch.load_model(other, tmp_path / "small") == (set(), [])
    assert torch.equal(other["head"].weight, model["embed"].weight)
    assert other["head"].weight is other["embed"].weight


@pytest.mark.usefixtures("enabled")
def test_tensors_of_bytes_are_writable_and_share_nothing(tmp_path: Path) -> None:
    weight = torch.randn(64, 64)
    safetensors.torch.save_file({"a": weight, "b": weight.clone()}, tmp_path / "plain")
    compress_file(tmp_path / "plain", tmp_path / "small")
    loaded = safetensors.torch.load((tmp_path / "small").read_bytes())
    loaded["a"].zero_()
    assert torch.equal(loaded["b"], weight)


@pytest.mark.usefixtures("enabled")
def test_what_z4ai_wrote_but_cannot_load_is_named(tmp_path: Path) -> None:
    path = tmp_path / "frame.safetensors"
    path.write_bytes(z4ai.compress(bytes(1000)))
    with pytest.raises(z4ai.errors.FormatError, match=r"decompress it with z4ai\.decompress"):
        safetensors.safe_open(path, framework="pt")


@pytest.mark.parametrize("path", ["missing", "", ".", "a\0b", b"bytes", None, 3])
def test_what_cannot_be_read_fails_as_ever(
    path: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception) as plain:  # noqa: PT011 - which one is the question
        safetensors.safe_open(path, framework="pt")
    z4ai.enable_hf()
    with pytest.raises(type(plain.value)) as ours:
        safetensors.safe_open(path, framework="pt")
    assert str(ours.value) == str(plain.value)


def test_wrong_arguments_fail_as_ever(files: tuple[Path, Path]) -> None:
    z4ai.enable_hf()
    for path in files:
        with pytest.raises(TypeError, match="framework"):
            safetensors.safe_open(path)
        with pytest.raises(safetensors.SafetensorError):
            safetensors.safe_open(path, "abacus")
        with pytest.raises(safetensors.SafetensorError):
            safetensors.safe_open(path, "pt").get_tensor("no such tensor")


# --- What is replaced -----------------------------------------------------------------------------


@pytest.mark.usefixtures("enabled")
def test_it_is_still_a_class(files: tuple[Path, Path]) -> None:
    safe_open = safetensors.safe_open
    plain, ours = (safe_open(path, framework="pt") for path in files)
    assert type(plain) is Plain.safe_open
    assert type(ours) is SafeOpen
    assert isinstance(plain, safe_open)
    assert isinstance(ours, safe_open)
    assert not isinstance("a", safe_open)
    assert issubclass(Plain.safe_open, safe_open)
    assert issubclass(SafeOpen, safe_open)
    assert not issubclass(str, safe_open)
    assert inspect.isclass(safe_open)
    assert safe_open.__name__ == "safe_open"
    assert safe_open.__doc__ == Plain.safe_open.__doc__
    assert inspect.signature(safe_open) == inspect.signature(Plain.safe_open)
    assert safe_open.get_slice is Plain.safe_open.get_slice
    assert set(dir(Plain.safe_open)) <= set(dir(safe_open))


def test_names_bound_before_and_after_are_replaced_and_restored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = types.ModuleType("bound_before"), types.ModuleType("bound_after")
    monkeypatch.setitem(sys.modules, "bound_before", before)
    monkeypatch.setitem(sys.modules, "bound_after", after)
    source = (
        "from safetensors import safe_open, deserialize\n"
        "from safetensors.torch import safe_open as another, load_file\n"
    )
    exec(source, before.__dict__)
    load_file = before.load_file
    z4ai.enable_hf()
    exec(source, after.__dict__)
    ours = safetensors.safe_open
    assert ours is not Plain.safe_open
    for module in (before, after, safetensors.torch, safetensors.numpy, safetensors):
        assert module.safe_open is ours
        assert module.deserialize is safetensors.deserialize is not Plain.deserialize
    assert before.another is after.another is ours
    z4ai.disable_hf()
    for module in (before, after, safetensors.torch, safetensors.numpy, safetensors):
        assert module.safe_open is Plain.safe_open
        assert module.deserialize is Plain.deserialize
    assert before.another is after.another is Plain.safe_open
    assert before.load_file is after.load_file is load_file


def test_no_name_of_any_module_differs_afterwards() -> None:
    def names() -> dict[str, dict[str, int]]:
        return {
            module: {name: id(value) for name, value in vars(content).copy().items()}
            for module, content in sys.modules.copy().items()
            if module.startswith(("safetensors", "transformers", "accelerate", "torch.utils"))
        }

    z4ai.enable_hf()
    z4ai.disable_hf()
    first = names()
    z4ai.enable_hf()
    assert names() != first
    z4ai.disable_hf()
    assert names() == first


def test_a_name_kept_elsewhere_follows(files: tuple[Path, Path]) -> None:
    """A closure, an attribute of a class: no scan finds them, so what they hold must obey."""
    z4ai.enable_hf()
    kept = safetensors.safe_open
    z4ai.disable_hf()
    assert type(kept(files[0], framework="pt")) is Plain.safe_open
    with pytest.raises(safetensors.SafetensorError):
        kept(files[1], framework="pt")
    z4ai.enable_hf()
    assert kept is safetensors.safe_open
    assert type(kept(files[1], framework="pt")) is SafeOpen


def test_twice_is_as_good_as_once() -> None:
    assert not z4ai.is_enabled()
    z4ai.disable_hf()
    z4ai.enable_hf()
    ours = safetensors.safe_open
    z4ai.enable_hf()
    assert safetensors.safe_open is ours
    assert z4ai.is_enabled()
    z4ai.disable_hf()
    assert safetensors.safe_open is Plain.safe_open
    assert not z4ai.is_enabled()
    z4ai.disable_hf()
    assert safetensors.safe_open is Plain.safe_open


def test_enabling_again_reaches_what_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    z4ai.enable_hf()
    module = types.ModuleType("escaped")
    module.safe_open = Plain.safe_open  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "escaped", module)
    z4ai.enable_hf()
    assert module.safe_open is safetensors.safe_open


def test_another_patch_is_kept(files: tuple[Path, Path]) -> None:
    """Others replace `safe_open` too, even by a function: theirs reads what is not ours."""
    seen = []

    def theirs(filename: Any, framework: str, **options: Any) -> Any:
        seen.append(filename)
        return Plain.safe_open(filename, framework, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(safetensors, "safe_open", theirs)
        z4ai.enable_hf()
        for path in files:
            assert "w" in safetensors.safe_open(path, framework="pt").keys()  # noqa: SIM118
        assert seen == [files[0]]
        assert not isinstance("a", safetensors.safe_open)
        z4ai.disable_hf()
        assert safetensors.safe_open is theirs


@pytest.mark.parametrize("before", [None, "1", "0"])
def test_the_environment_is_set_for_processes_and_restored(
    before: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is not None:
        monkeypatch.setenv(VARIABLE, before)
    z4ai.enable_hf()
    z4ai.enable_hf()
    assert os.environ[VARIABLE] == "1"
    z4ai.disable_hf()
    assert os.environ.get(VARIABLE) == before


def test_modules_of_every_kind_are_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    class Touchy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise RuntimeError(f"asked for {name}")

    class Slotted:
        __slots__ = ()

    monkeypatch.setitem(sys.modules, "touchy", Touchy("touchy"))
    monkeypatch.setitem(sys.modules, "slotted", Slotted())  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "none", None)  # type: ignore[arg-type]
    z4ai.enable_hf()
    z4ai.disable_hf()


# --- Threads --------------------------------------------------------------------------------------


def test_threads_may_enable_disable_and_read_at_once(
    files: tuple[Path, Path], state: dict[str, torch.Tensor]
) -> None:
    failures: list[BaseException] = []
    start = threading.Barrier(6)

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            start.wait()
            try:
                for _ in range(30):
                    work()
            except BaseException as error:
                failures.append(error)

        return run

    def toggle() -> None:
        z4ai.enable_hf()
        z4ai.disable_hf()

    def plain() -> None:
        assert same(safetensors.torch.load_file(files[0]), state)

    def either() -> None:
        with suppress(safetensors.SafetensorError):  # while it is disabled
            assert same(safetensors.torch.load_file(files[1]), state)

    work = [toggle, toggle, plain, plain, either, either]
    threads = [threading.Thread(target=guarded(w)) for w in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not failures, failures
    assert safetensors.safe_open is Plain.safe_open


def test_without_safetensors_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)  # type: ignore[arg-type]
    with pytest.raises(ImportError, match=r'pip install "z4ai\[hf\]"'):
        z4ai.enable_hf()
    assert not z4ai.is_enabled()
