"""Inputs that once broke a fuzz target, and a few seeds, through every target again."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

import z4ai

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
C_TARGETS = sorted(path.stem for path in HERE.glob("fuzz_*.c"))
PYTHON_TARGETS = sorted(path.stem for path in HERE.glob("fuzz_*.py"))


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = load(ROOT / "tools" / "fuzz.py")


def corpus_of(stem: str) -> list[Path]:
    return sorted((HERE / "corpus" / stem.removeprefix("fuzz_")).glob("*"))


def test_every_target_has_seeds_and_every_corpus_a_target() -> None:
    targets = {stem.removeprefix("fuzz_") for stem in C_TARGETS + PYTHON_TARGETS}
    assert {"literals", "chunk", "frame", "container", "model_delta"} <= targets
    assert set(TOOL.C_SEEDS) | {s.removeprefix("fuzz_") for s in PYTHON_TARGETS} == targets
    for target in targets:
        assert len(TOOL.seeds_of(target)) >= 5
    for folder in (HERE / "corpus").glob("*"):
        assert folder.name in targets
        assert sum(path.stat().st_size for path in folder.iterdir()) < 100_000


@pytest.mark.parametrize("stem", PYTHON_TARGETS)
def test_python_targets_pass_on_their_corpus(stem: str) -> None:
    module = load(HERE / f"{stem}.py")
    for name, seed in module.seeds().items():
        module.one_input(seed)
        assert name
    for path in corpus_of(stem):
        module.one_input(path.read_bytes())


@pytest.mark.parametrize("stem", PYTHON_TARGETS)
def test_python_targets_let_no_other_error_pass(stem: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module = load(HERE / f"{stem}.py")
    seed = max(module.seeds().values(), key=len)

    def fail(*args: object, **options: object) -> bytes:
        raise KeyError(args)

    monkeypatch.setattr(z4ai, "decompress", fail)
    monkeypatch.setattr(z4ai.safetensors, "decompress_bytes", fail)
    monkeypatch.setattr(z4ai.model_delta, "decompress", fail)
    with pytest.raises(KeyError):
        module.one_input(seed)


@pytest.mark.parametrize("stem", C_TARGETS)
def test_c_targets_pass_on_their_corpus(stem: str, tmp_path: Path) -> None:
    """Compiled here without a fuzzer, with the sanitizers where the compiler has them."""
    cc = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if cc is None or os.name == "nt":
        pytest.skip("no C compiler")
    if os.environ.get("Z4AI_SANITIZED"):
        pytest.skip("the sanitizer of this process is in the way of the compiler's")
    program = tmp_path / stem
    command = [cc, "-O0", "-std=c11", "-fno-strict-aliasing", "-DZ4_FUZZ_REPLAY"]
    command += ["-I", str(ROOT / "z4ai" / "_fast" / "c"), str(HERE / f"{stem}.c")]
    command += ["-o", str(program)]
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    if subprocess.run([*command, *sanitizers], capture_output=True, check=False).returncode != 0:
        subprocess.run(command, check=True)
    files = [str(path) for path in corpus_of(stem)]
    for k, seed in enumerate(TOOL.seeds_of(stem.removeprefix("fuzz_"))[:60]):
        (tmp_path / f"seed-{k}").write_bytes(seed)
        files.append(str(tmp_path / f"seed-{k}"))
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    ran = subprocess.run(
        [str(program), *files], env=env, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{len(files)} replayed\n"
