"""Pages and docstrings keep their word: their examples run, their links lead somewhere.

Every ```python block of README.md and docs/ is run: page by page, in one namespace a page, in a
folder that holds only small models: `model.safetensors`, and `finetuned.safetensors` beside
`base.safetensors`. A block that cannot run says so where it opens: ```python not-run.
"""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import z4ai

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^(`{3,})(.*)$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")

# Importing __main__ would run the command line.
MODULES = sorted(
    info.name
    for info in pkgutil.walk_packages(z4ai.__path__, "z4ai.")
    if not info.name.endswith("__main__")
)


class Block(NamedTuple):
    line: int
    info: str
    text: str


def blocks(text: str) -> Iterator[Block]:
    """Fenced blocks of a page, each with the number of its first line."""
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        opening = FENCE.match(lines[number])
        number += 1
        if opening is None:
            continue
        first = number
        while number < len(lines) and lines[number].rstrip() != opening[1]:
            number += 1
        assert number < len(lines), f"the block of line {first} is never closed"
        yield Block(first + 1, opening[2].strip(), "\n".join(lines[first:number]))
        number += 1


def runnable(text: str) -> list[Block]:
    return [block for block in blocks(text) if block.info == "python"]


def without_blocks(text: str) -> str:
    for block in blocks(text):
        text = text.replace(block.text, "")
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings, made as GitHub makes them."""
    heads = re.findall(r"^#+\s+(.*)$", without_blocks(text), re.MULTILINE)
    heads += re.findall(r"^#+\s+(.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def write_models(folder: Path) -> None:
    """A model, and another one that was made from a base."""
    write_model(folder / "model.safetensors")
    write_model(folder / "base.safetensors")
    write_model(folder / "finetuned.safetensors", every=50)


def write_model(path: Path, every: int = 0) -> None:
    """A safetensors file of two small tensors, written by hand; some weights moved a little."""
    weight = (np.arange(4096, dtype=np.float32) / 4096 - 0.5).reshape(64, 64)
    if every:
        weight.reshape(-1)[::every] += np.float32(1e-4)
    tensors = {"encoder.weight": weight, "encoder.bias": np.zeros(64, np.float32)}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, array in tensors.items():
        span = [offset, offset + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": span}
        offset = span[1]
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    content = b"".join(array.tobytes() for array in tensors.values())
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + content)


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p.read_text())], ids=page_id)
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path)
    namespace: dict[str, object] = {"__name__": "__page__"}
    for block in runnable(page.read_text()):
        # the blank lines make a traceback show the page's own line number
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        exec(code, namespace)


@pytest.mark.parametrize("name", ["z4ai", *MODULES])
def test_docstring_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_models(tmp_path)
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0, f"{result.failed} of {result.attempted} examples fail: see stdout"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for link in LINK.findall(without_blocks(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif anchor and anchor not in anchors(target.read_text()):
            broken.append(f"{link}: no such heading")
    assert not broken, "\n".join(broken)


def test_the_readme_shows_code_that_runs() -> None:
    assert runnable((ROOT / "README.md").read_text())


def test_a_block_is_found_with_its_line_and_mark() -> None:
    page = "# Title\n\n```python\na = 1\n```\n\n```python not-run\nb\n```\n```sh\nls\n```\n"
    assert [block.info for block in blocks(page)] == ["python", "python not-run", "sh"]
    assert runnable(page) == [Block(4, "python", "a = 1")]
    assert anchors(page) == {"title"}
