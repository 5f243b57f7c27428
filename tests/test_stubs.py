"""Type stubs say what the compiled modules are: one beside each .pyx, checked against it."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted((ROOT / "z4ai").rglob("*.pyx"))
# Written by Cython into every module or class; no caller's business.
CYTHON_OWN = r"""
.*\.__test__
.*\.__pyx_capi__
.*\.__buffer__
.*\.__release_buffer__
.*\.__pyx_.*
.*\.__reduce_cython__
.*\.__setstate_cython__
.*\.__reduce__
.*\.__setstate__
"""


def module_name(source: Path) -> str:
    return ".".join(source.relative_to(ROOT).with_suffix("").parts)


def stub_names(source: Path) -> set[str]:
    """Public top-level names that a stub declares itself."""
    names: set[str] = set()
    for node in ast.parse(source.with_suffix(".pyi").read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("__")}


def test_there_are_compiled_modules() -> None:
    assert SOURCES


@pytest.mark.parametrize("source", SOURCES, ids=module_name)
def test_every_compiled_module_has_a_stub(source: Path) -> None:
    assert source.with_suffix(".pyi").exists()


@pytest.mark.parametrize("source", SOURCES, ids=module_name)
def test_stub_names_what_the_module_defines(source: Path) -> None:
    module = importlib.import_module(module_name(source))
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", None) == module.__name__
    }
    stub = stub_names(source)
    assert own <= stub, f"not in the stub: {sorted(own - stub)}"
    missing = {name for name in stub if not hasattr(module, name)}
    assert not missing, f"in the stub, not in the module: {sorted(missing)}"


def test_stubtest_agrees(tmp_path: Path) -> None:
    """mypy's stubtest: signatures, defaults and classes of the stubs against the modules."""
    pytest.importorskip("mypy.stubtest", reason="mypy is in requirements/test.txt")
    allowed = tmp_path / "allowed.txt"
    allowed.write_text(CYTHON_OWN)
    modules = [module_name(source) for source in SOURCES]
    command = [sys.executable, "-m", "mypy.stubtest", *modules]
    command += ["--allowlist", str(allowed), "--ignore-unused-allowlist", "--concise"]
    command += ["--ignore-disjoint-bases"]  # every cdef class is one; Cython writes no marker
    result = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stdout + result.stderr
