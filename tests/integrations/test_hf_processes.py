"""Compressed files in processes that nobody told: forked, spawned, or started under the variable.

Where z4ai is installed, its `.pth` file is what makes a Python wait for safetensors. In a source
tree no `.pth` file is looked for: a `sitecustomize` with the same line does instead.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

import z4ai

ROOT = Path(__file__).resolve().parents[2]
LINE = (ROOT / "z4ai_hf.pth").read_text()
VARIABLE = "Z4AI_ENABLE_HF"
INSTALLED = bool(os.environ.get("Z4AI_TEST_INSTALLED"))


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of a process that the `.pth` file takes effect in; the variable is not set."""
    inherited = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if INSTALLED:
        return inherited
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(LINE)
    path = [str(folder), str(ROOT)]
    return {**inherited, "PYTHONPATH": os.pathsep.join(path)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`plain` and `small` hold one tensor `w` of 64 rows, each full of its number."""
    folder = tmp_path / "work"
    folder.mkdir()
    state = {"w": torch.arange(64.0).repeat_interleave(100).reshape(64, 100)}
    safetensors.torch.save_file(state, folder / "plain", metadata={"format": "pt"})
    z4ai.save_file(state, folder / "small", metadata={"format": "pt"})
    return folder


def run(code: str, environment: dict[str, str], folder: Path) -> list[str]:
    """Run a program from a file, so that spawned workers find it; -> the lines it prints."""
    script = folder / "program.py"
    script.write_text(code)
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
        cwd=folder,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout.splitlines()


# --- The hook -------------------------------------------------------------------------------------

SHOW = """
import sys
loaded = {"_z4ai_hf", "z4ai", "numpy", "safetensors"} & set(sys.modules)
print(*sorted(loaded), "at first")
import safetensors.numpy
print("torch" in sys.modules, "z4ai" in sys.modules)
try:
    print(safetensors.numpy.load_file("small")["w"].sum())
except safetensors.SafetensorError as error:
    print(error)
print(safetensors.numpy.load_file("plain")["w"].sum())
"""
REFUSED = "Error while deserializing header: header too large"


@pytest.mark.parametrize("value", ["1", "true", " Yes "])
def test_the_variable_is_enough(value: str, environment: dict[str, str], folder: Path) -> None:
    shown = run(SHOW, {**environment, VARIABLE: value}, folder)
    assert shown == ["_z4ai_hf at first", "False True", "201600.0", "201600.0"]


def test_without_the_variable_nothing_is_even_imported(
    environment: dict[str, str], folder: Path
) -> None:
    assert run(SHOW, environment, folder) == [
        "at first",
        "False False",
        REFUSED,
        "201600.0",
    ]


@pytest.mark.parametrize("value", ["", "0", "false", "Off", "no"])
def test_the_variable_can_say_no(value: str, environment: dict[str, str], folder: Path) -> None:
    assert run(SHOW, {**environment, VARIABLE: value}, folder)[1:] == [
        "False False",
        REFUSED,
        "201600.0",
    ]


def test_the_line_costs_next_to_nothing() -> None:
    """One line, which looks at the environment and goes; the module needs no package."""
    assert LINE.count("\n") == 1
    assert LINE.startswith("import os; os.environ.get(")
    code = (
        "import sys; before = set(sys.modules); import _z4ai_hf; print(*set(sys.modules) - before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert result.stdout.split() == ["_z4ai_hf"]


def test_it_can_be_called_off_before_it_began(environment: dict[str, str], folder: Path) -> None:
    code = """
import z4ai
print(z4ai.is_enabled())
z4ai.disable_hf()
print(z4ai.is_enabled())
import safetensors
print(type(safetensors.safe_open).__name__, z4ai.is_enabled())
z4ai.enable_hf()
print(type(safetensors.safe_open).__name__, z4ai.is_enabled())
"""
    shown = run(code, {**environment, VARIABLE: "1"}, folder)
    assert shown == ["True", "False", "type False", "_EitherMeta True"]


def test_who_looks_for_safetensors_finds_it_as_it_is(
    environment: dict[str, str], folder: Path
) -> None:
    code = """
import importlib, importlib.util, importlib.resources
from importlib.machinery import SourceFileLoader
spec = importlib.util.find_spec("safetensors")
print(spec.origin.endswith("__init__.py"), spec.loader.is_package("safetensors"))
import safetensors
print(type(safetensors.__loader__) is type(safetensors.__spec__.loader) is SourceFileLoader)
print((importlib.resources.files("safetensors") / "torch.py").is_file())
print(type(safetensors.safe_open).__name__)
importlib.reload(safetensors)
import z4ai
z4ai.enable_hf()
print(type(safetensors.safe_open).__name__)
"""
    shown = run(code, {**environment, VARIABLE: "1"}, folder)
    assert shown == ["True True", "True", "True", "_EitherMeta", "_EitherMeta"]


def test_threads_that_import_at_once(environment: dict[str, str], folder: Path) -> None:
    code = """
import sys, threading
start = threading.Barrier(8)
kinds, errors = [], []
def work(k):
    start.wait()
    try:
        if k % 2:
            import z4ai
            z4ai.enable_hf()
        from safetensors import safe_open
        import json.tool, wave, colorsys, zipfile, plistlib
        with safe_open("small", framework="np") as file:
            kinds.append(file.get_slice("w")[3, 0])
    except BaseException as error:
        errors.append(error)
threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join(60)
print(len(kinds), errors, any(thread.is_alive() for thread in threads))
"""
    shown = run(code, {**environment, VARIABLE: "1"}, folder)
    assert shown == ["8 [] False"]


def test_if_z4ai_is_broken_plain_files_are_read(environment: dict[str, str], folder: Path) -> None:
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import safetensors.numpy
print([str(w.message)[:60] for w in caught if w.category is RuntimeWarning])
print(safetensors.numpy.load_file("plain")["w"].sum())
"""
    shown = run(code, {**environment, VARIABLE: "1", "Z4AI_ISA": "abacus"}, folder)
    assert shown == [
        "['Z4AI_ENABLE_HF is set, but compressed weights cannot be read']",
        "201600.0",
    ]


# --- Workers --------------------------------------------------------------------------------------

POOL = """
import multiprocessing, sys

def row(k):
    from safetensors import safe_open
    with safe_open("small", framework="np") as file:
        return float(file.get_slice("w")[k, 0])

if __name__ == "__main__":
    import z4ai
    z4ai.enable_hf()
    print(row(7))  # the parent has read, and has threads
    with multiprocessing.get_context(METHOD).Pool(2) as pool:
        print(pool.map(row, range(64)) == list(range(64)))
    z4ai.disable_hf()
"""
METHODS = [
    pytest.param(
        method,
        marks=pytest.mark.skipif(
            method != "spawn" and not hasattr(os, "fork"), reason="no fork here"
        ),
    )
    for method in ("fork", "spawn", "forkserver")
]


@pytest.mark.parametrize("method", METHODS)
def test_workers_of_a_pool_read(method: str, environment: dict[str, str], folder: Path) -> None:
    assert run(POOL.replace("METHOD", repr(method)), environment, folder) == ["7.0", "True"]


LOADER = """
import torch, z4ai
from torch.utils.data import DataLoader, Dataset
from safetensors import safe_open

class Rows(Dataset):
    def __init__(self, keep):
        self.file = safe_open("small", framework="pt") if keep else None
    def __len__(self):
        return 64
    def __getitem__(self, k):
        if self.file is not None:
            return self.file.get_slice("w")[k]
        with safe_open("small", framework="pt") as file:
            return file.get_slice("w")[k]

if __name__ == "__main__":
    z4ai.enable_hf()
    # with what the parent has open, and with files of their own
    for method, keep in CASES:
        rows = Rows(keep)
        loader = DataLoader(rows, batch_size=8, num_workers=2, multiprocessing_context=method)
        for _ in range(2):
            seen = torch.cat(list(loader))
            assert torch.equal(seen, torch.arange(64.0).repeat_interleave(100).reshape(64, 100))
        print(method, keep)
"""


@pytest.mark.parametrize(
    "cases",
    [[("fork", True), ("fork", False)] if hasattr(os, "fork") else [], [("spawn", False)]],
    ids=["fork", "spawn"],
)
def test_workers_of_a_data_loader_read(
    cases: list[tuple[str, bool]], environment: dict[str, str], folder: Path
) -> None:
    shown = run(LOADER.replace("CASES", repr(cases)), environment, folder)
    assert shown == [f"{method} {keep}" for method, keep in cases]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_forked_while_threads_enable(environment: dict[str, str], folder: Path) -> None:
    code = """
import os, threading, warnings
warnings.simplefilter("ignore")
import z4ai
from safetensors.numpy import load_file
z4ai.enable_hf()

stop = threading.Event()
def enable():
    while not stop.is_set():
        z4ai.enable_hf()  # under the lock nearly all the time
thread = threading.Thread(target=enable, daemon=True)
thread.start()
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        z4ai.enable_hf()
        os._exit(int(load_file("small")["w"].sum() != 201600.0))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
stop.set()
thread.join()
print("done")
"""
    assert run(code, environment, folder) == ["done"]


@pytest.mark.parametrize(
    "order",
    [
        "import torch, z4ai; z4ai.enable_hf(); import safetensors.torch",
        "import z4ai; z4ai.enable_hf(); import torch, safetensors.torch",
        "import torch, safetensors.torch, z4ai; z4ai.enable_hf()",
    ],
)
def test_orders_of_import(order: str, environment: dict[str, str], folder: Path) -> None:
    code = f"{order}\nprint(safetensors.torch.load_file('small')['w'].sum().item())"
    assert run(code, environment, folder) == ["201600.0"]
