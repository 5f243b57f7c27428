"""Who may import whom: every import of the package against the arrows of docs/architecture.md."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import z4ai

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "z4ai"
PAGE = ROOT / "docs" / "architecture.md"

# May be imported anywhere, at any time.
FREE = frozenset(sys.stdlib_module_names) | {"numpy", "cython", "libc", "cpython", "__future__"}
# Known to type checkers alone: free under TYPE_CHECKING, missing at run time.
TYPING = frozenset({"typing_extensions"})
# Imported inside functions only: optional, or only needed to draw.
DEFERRED = frozenset({"brotli", "rich", "tqdm", "torch", "safetensors"})
# What `import z4ai` takes along: enough to load, and to say what is wrong. All else is imported
# when it is first asked for.
EAGER = {"_buffers", "_fast", "_wire", "codec", "codecs", "copies", "decoder", "dtypes", "errors"}
EAGER |= {"frame", "model", "options"}


class Import(NamedTuple):
    line: int
    target: str
    deferred: bool
    typing: bool = False


@dataclass(frozen=True)
class Room:
    rooms: frozenset[str]
    packages: frozenset[str]


def read_arrows(text: str) -> dict[str, Room]:
    """Parse the ``arrows`` block of a Markdown page; rooms may only name rooms above them."""
    block = re.search(r"^```arrows\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if block is None:
        raise ValueError("no ```arrows block")
    table: dict[str, Room] = {}
    for line in block[1].splitlines():
        name, _, rest = line.partition(":")
        rooms, _, packages = rest.partition("<")
        names = {word.strip() for word in rooms.split(",")} - {""}
        if names == {"*"}:
            names = set(table)
        if name in table or names - set(table):
            raise ValueError(f"{line!r}: a room twice, or an arrow that does not point up")
        outside = {word.strip() for word in packages.split(",")} - {""}
        table[name] = Room(frozenset(names), frozenset(outside))
    return table


def room_of(module: str) -> str:
    """Room of a dotted module name: its first part below the package."""
    parts = module.split(".")
    room = parts[1] if len(parts) > 1 else "z4ai"
    return "cli" if room == "__main__" else room


def python_imports(source: str, module: str, is_package: bool) -> Iterator[Import]:
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test).endswith("TYPE_CHECKING")
        for statement in test.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        typing = id(node) in typing_only
        deferred = id(node) in inside or typing
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, deferred, typing)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node.module or "", node.level, module, is_package)
            for alias in node.names:
                # `from z4ai import errors` is an arrow to the room errors, not to the top
                target = f"{base}.{alias.name}" if base == "z4ai" else base
                yield Import(node.lineno, target, deferred, typing)


CIMPORT = re.compile(r"^(\s*)(?:from\s+(\S+)\s+)?(?:c?import)\s+([^#]+)")


def cython_imports(source: str, module: str) -> Iterator[Import]:
    for number, line in enumerate(source.splitlines(), 1):
        match = CIMPORT.match(line)
        if match is None:
            continue
        indent, base, names = match.groups()
        if base is None:
            targets = [name.split()[0] for name in names.split(",")]
        else:
            level = len(base) - len(base.lstrip("."))
            base = _absolute(base.lstrip("."), level, module, is_package=False)
            if base == "z4ai":
                targets = [f"z4ai.{name.split()[0]}" for name in names.strip("() ").split(",")]
            else:
                targets = [base]
        for target in targets:
            yield Import(number, target, bool(indent))


def _absolute(name: str, level: int, module: str, is_package: bool) -> str:
    if level == 0:
        return name
    parts = module.split(".")
    parts = parts[: len(parts) - level + is_package]
    return ".".join([*parts, name] if name else parts)


def arrow_to(target: str, modules: set[str]) -> str:
    """Room or outside package that an import leads to; a public name leads to the top."""
    parts = target.split(".")
    if parts[0] != "z4ai":
        return parts[0]
    return room_of(target) if ".".join(parts[:2]) in modules else "z4ai"


def violations(
    module: str, imports: Iterator[Import], table: dict[str, Room], modules: set[str]
) -> list[str]:
    """One line for each import that the table does not allow."""
    room = room_of(module)
    if room not in table:
        return [f"{module}: the room {room!r} is not in the table"]
    found = []
    for line, target, deferred, typing in imports:
        where = f"{module}:{line}: {target}"
        to = arrow_to(target, modules)
        top = target.partition(".")[0]
        if top == "z4ai":
            if to != room and to not in table[room].rooms:
                found.append(f"{where}: no arrow {room} -> {to}")
        elif typing and top in TYPING:
            continue
        elif top not in FREE and top not in table[room].packages:
            found.append(f"{where}: {room} may not import {top}")
        elif top in DEFERRED and not deferred:
            found.append(f"{where}: import it inside the function that needs it")
    return found


def all_modules() -> dict[str, Path]:
    found = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in {".py", ".pyx", ".pxd"}:
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[name + (".pxd" if path.suffix == ".pxd" else "")] = path
    return found


def imports_of(module: str, path: Path) -> Iterator[Import]:
    source = path.read_text()
    module = module.removesuffix(".pxd")
    if path.suffix == ".py":
        return python_imports(source, module, path.name == "__init__.py")
    return cython_imports(source, module)


MODULES = all_modules()


@pytest.mark.parametrize("module", MODULES)
def test_imports_follow_the_arrows(module: str) -> None:
    table = read_arrows(PAGE.read_text())
    found = violations(module, imports_of(module, MODULES[module]), table, set(MODULES))
    assert not found, "\n".join(found)


def test_every_arrow_is_used() -> None:
    used: dict[str, set[str]] = {}
    for module, path in MODULES.items():
        targets = {arrow_to(i.target, set(MODULES)) for i in imports_of(module, path)}
        used.setdefault(room_of(module), set()).update(targets)
    text = PAGE.read_text()
    idle = {
        room: sorted((row.rooms | row.packages) - used.get(room, set()))
        for room, row in read_arrows(text).items()
        if f"\n{room}: *" not in text
    }
    assert not any(idle.values()), {room: names for room, names in idle.items() if names}


def test_importing_z4ai_imports_nothing_deferred() -> None:
    code = f"import sys, z4ai; print(*sorted(set(sys.modules) & {set(DEFERRED)!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == []


def run_python(code: str) -> list[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_importing_z4ai_imports_what_loading_needs_alone() -> None:
    loaded = run_python("import sys, z4ai; print(*sys.modules)")
    rooms = {room_of(name) for name in loaded if name.startswith("z4ai.")}
    assert rooms == EAGER
    assert not {"zstandard", "ml_dtypes", "concurrent.futures"} & set(loaded)


def test_loading_a_frame_imports_nothing_that_makes_one() -> None:
    code = (
        "import sys, z4ai; z4ai.decompress(bytes.fromhex(sys.argv[1]))\n"
        "print(*(m for m in sys.modules if m.startswith('z4ai.')))"
    )
    weights = np.random.default_rng(1).normal(size=1 << 14).astype(np.float16)
    blob = z4ai.compress(weights, dtype="fp16")
    assert z4ai.info(blob).model is not None
    command = [sys.executable, "-c", code, blob.hex()]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert {room_of(name) for name in loaded} == EAGER


def test_the_fastest_tier_chooses_no_model() -> None:
    code = "import sys, z4ai; z4ai.compress(bytes(1 << 16), dtype='bf16', effort={!r})\n"
    code += "print('z4ai.model_choice' in sys.modules)"
    assert run_python(code.format("fast")) == ["False"]
    assert run_python(code.format("balanced")) == ["True"]


def test_every_public_name_is_there_however_it_is_asked_for() -> None:
    asked = "import z4ai; print(*(n for n in z4ai.__all__ if getattr(z4ai, n, None) is not None))"
    assert run_python(asked) == z4ai.__all__
    assert set(run_python("import z4ai; print(*dir(z4ai))")) >= set(z4ai.__all__)
    star = "from z4ai import *; print(*globals())"
    assert set(run_python(star)) >= set(z4ai.__all__)
    with pytest.raises(AttributeError, match="no attribute 'condense'"):
        z4ai.condense  # noqa: B018 - what it says is the test


def test_every_room_has_its_row_in_the_page() -> None:
    text = PAGE.read_text()
    described = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert described == set(read_arrows(text)), "table of jobs and table of arrows differ"


def test_every_room_exists() -> None:
    assert set(read_arrows(PAGE.read_text())) <= {room_of(module) for module in MODULES}


def test_the_reader_sees_every_import_form() -> None:
    source = (
        "import os, z4ai.frame\n"
        "from z4ai import errors\n"
        "from . import planes\n"
        "from ..dtypes import table\n"
        "def f():\n"
        "    import brotli\n"
    )
    seen = {(i.target, i.deferred) for i in python_imports(source, "z4ai.codecs.store", False)}
    assert seen == {
        ("os", False),
        ("z4ai.frame", False),
        ("z4ai.errors", False),
        ("z4ai.codecs", False),
        ("z4ai.dtypes", False),
        ("brotli", True),
    }
    source = (
        "cimport cython\n"
        "from libc.stdint cimport uint8_t\n"
        "from z4ai._fast cimport _threads\n"
        "from ._dispatch cimport isa\n"
        "from z4ai import frame\n"
    )
    assert [i.target for i in cython_imports(source, "z4ai._fast.planes")] == [
        "cython",
        "libc.stdint",
        "z4ai._fast",
        "z4ai._fast._dispatch",
        "z4ai.frame",
    ]


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("z4ai.errors", "from z4ai import frame", "no arrow errors -> frame"),
        ("z4ai._reference.frame", "from z4ai._fast import planes", "no arrow _reference -> _fast"),
        ("z4ai.frame", "import z4ai", "no arrow frame -> z4ai"),
        ("z4ai.frame", "from . import compress", "no arrow frame -> z4ai"),
        ("z4ai.codec", "import torch", "codec may not import torch"),
        ("z4ai.codec", "import typing_extensions", "codec may not import typing_extensions"),
        ("z4ai.cli", "import rich", "import it inside the function"),
        ("z4ai.attic", "", "is not in the table"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, message: str) -> None:
    table = read_arrows(PAGE.read_text())
    names = {f"z4ai.{room}" for room in table}
    found = violations(module, python_imports(source, module, False), table, names)
    assert len(found) == 1
    assert message in found[0]


def test_arrows_that_point_down_are_refused() -> None:
    with pytest.raises(ValueError, match="does not point up"):
        read_arrows("```arrows\na: b\nb:\n```\n")
