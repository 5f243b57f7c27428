"""The reference reader of series against the fast one: the same steps, the same refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import file_of, write
from hypothesis import given
from hypothesis import strategies as st

from z4ai._fast.hashing import xxh3_128
from z4ai._reference import series as reference
from z4ai.errors import Z4Error
from z4ai.series import Series
from z4ai.series import manifest as wire


def test_both_restore_the_same(tmp_path: Path) -> None:
    series = Series.create(tmp_path / "run")
    rng = np.random.default_rng(3)
    content = rng.normal(0, 0.02, (24, 32)).astype(np.float32)
    files = {}
    for step in range(3):
        content = content + np.float32(1e-5) * rng.standard_normal(content.shape, np.float32)
        files[f"step{step}"] = file_of({"w": content, "b": content[0]})
        (tmp_path / "in").write_bytes(files[f"step{step}"])
        series.add(tmp_path / "in", f"step{step}", keyframe=None if step == 0 else False)
    assert [step.depth for step in series.ls()] == [0, 1, 2]
    found = reference.read_manifest((tmp_path / "run/series.json").read_bytes())["steps"]
    assert found == [step._asdict() for step in series.ls()]
    for name, data in files.items():
        assert reference.restore(tmp_path / "run", name) == data
    file = tmp_path / "run" / series.ls()[1].file
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(ValueError, match="the size of a file"):
        reference.restore(tmp_path / "run", "step2")


@st.composite
def manifests(draw: st.DrawFn) -> bytes:
    """Manifests most of which break a rule or two."""
    texts = st.sampled_from(["a", "b", "c", "", ".a", "x" * 201, "ä/", "a.zstn"])
    counts = st.sampled_from([0, 5, -1, 2**63 - 1, 2**63, 1.0, True, None, "1"])
    rows = []
    for k, name in enumerate(draw(st.lists(st.sampled_from("abcd"), max_size=4))):
        base = draw(st.sampled_from([None, *"abcd"]))
        rows.append(
            {
                "name": name,
                "stream": "s",
                "step": None,
                "file": f"x.{k:016x}.{'zstn' if base is None else 'z4dm'}",
                "base": base,
                "original_nbytes": 1,
                "encoded_nbytes": 1,
                "digest": "0" * 32,
            }
        )
    fields: dict[str, Any] = {
        "format": "z4ai series",
        "version": 16,
        "max_depth": 8,
        "effort": "fast",
        "steps": rows,
    }
    anything = texts | counts | st.just([]) | st.sampled_from(["x.0000000000000000.zstn", "0" * 32])
    for _ in range(draw(st.integers(0, 2))):
        where = draw(st.sampled_from([fields, *rows]))
        key = draw(st.sampled_from([*where, "more"]))
        where[key] = draw(anything)
    body = json.dumps(fields)[1:].encode()
    return b'{"checksum":"%032x",\n' % xxh3_128(body) + body


@given(manifests())
def test_both_refuse_the_same(data: bytes) -> None:
    try:
        expected = reference.read_manifest(data)
    except ValueError:
        with pytest.raises(Z4Error):
            wire.parse(data)
        return
    found = wire.parse(data)
    assert [step._asdict() for step in found.steps] == expected["steps"]
    assert (found.max_depth, found.effort) == (expected["max_depth"], expected["effort"])


def test_a_manifest_of_this_release_stays_readable(tmp_path: Path) -> None:
    """As the page shows one."""
    page = Path(__file__).resolve().parents[2] / "docs" / "format" / "series.md"
    text = page.read_text(encoding="utf-8").partition("```json\n")[2].partition("```")[0]
    data = text.encode()
    found = wire.parse(data)
    assert wire.write(found) == data
    assert [step.base for step in found.steps] == [None, "step0100"]
    assert reference.read_manifest(data)["steps"] == [step._asdict() for step in found.steps]


def test_it_says_what_it_wants(tmp_path: Path) -> None:
    series = Series.create(tmp_path / "run")
    write(tmp_path / "in", "empty", 0)
    series.add(tmp_path / "in", "a")
    assert reference.restore(tmp_path / "run", "a") == (tmp_path / "in").read_bytes()
    (tmp_path / "run/series.json").write_bytes(b"{}")
    with pytest.raises(ValueError, match="the first line"):
        reference.restore(tmp_path / "run", "a")
