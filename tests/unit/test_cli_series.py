"""`z4ai series`: what it does to a folder, what it prints, how it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from checkpoints import checkpoint, write

from z4ai.cli import main
from z4ai.series import Series

DATA, USAGE, SYSTEM = 1, 2, 3


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for step in range(3):
        for kind in ("fp32", "bf16"):
            write(Path(f"{kind}.step{step}.safetensors"), kind, step)


def run(*args: str) -> int:
    try:
        return main(["series", *args])
    except SystemExit as error:
        return int(error.code or 0)


def records(*args: str, capsys: pytest.CaptureFixture[str], status: int = 0) -> list[Any]:
    capsys.readouterr()
    assert run(*args, "--json") == status
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{kind}.step{step}.safetensors" for step in range(3) for kind in ("fp32", "bf16")]
    assert run("add", "run", *files) == 0
    out, told = capsys.readouterr()
    assert not out
    assert told.count("->") == 2 * len(files)
    assert "bf16.step2, " in told
    assert told.splitlines()[-1].endswith("against fp32.step2")
    assert run("ls", "run") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 6 + 1
    os.mkdir("back")
    os.chdir("back")
    names = [file.removesuffix(".safetensors") for file in files]
    assert run("restore", "../run", *names) == 0
    for name in names:
        data = Path(f"{name}.safetensors").read_bytes()
        assert data == checkpoint(name[:4], int(name[-1]))
    assert run("restore", "../run", *names[:1]) == USAGE, "it exists"
    assert run("restore", "../run", "-f", *names[:1]) == 0
    assert run("restore", "../run", "-q", "-o", "else", names[0]) == 0
    assert Path("else").read_bytes() == checkpoint("fp32", 0)
    capsys.readouterr()
    assert run("drop", "../run", "fp32.step0", "fp32.step1") == 0
    assert "fp32.step0 dropped, 2 steps stored anew" in capsys.readouterr().err
    assert run("verify", "../run") == 0
    assert "ok, 4 steps" in capsys.readouterr().out


def test_a_step_to_standard_output(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run("add", "run", "fp32.step0.safetensors") == 0
    capfdbinary.readouterr()
    assert run("restore", "run", "fp32.step0", "-o", "-") == 0
    assert capfdbinary.readouterr().out == checkpoint("fp32", 0)


def test_options_reach_the_series(capsys: pytest.CaptureFixture[str]) -> None:
    first, second = "fp32.step0.safetensors", "fp32.step1.safetensors"
    assert run("add", "run", "--max-depth", "2", "--effort", "fast", first) == 0
    series = Series.open("run")
    assert (series.max_depth, series.effort) == (2, "fast")
    options = ["--name", "x", "--step", "7", "--stream", "s", "--keyframe", "--no-verify"]
    assert run("add", "run", *options, "--timeout", "1", "--threads", "1", second) == 0
    added = series.ls()[1]
    assert (added.name, added.step, added.stream, added.base) == ("x", 7, "s", None)
    assert run("add", "run", "--max-depth", "5", "--delta", "--name", "y", second) == 0
    assert (series.max_depth, series.effort, series.ls()[2].is_keyframe) == (5, "fast", False)
    assert run("add", "run", "--effort", "default", "--name", "z", second) == 0
    assert (series.max_depth, series.effort) == (5, "balanced")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    files = ["fp32.step0.safetensors", "bf16.step0.safetensors"]
    added = records("add", "run", *files, capsys=capsys)
    assert [r["base"] for r in added] == [None, "fp32.step0"]
    assert all(r["ok"] and r["command"] == "series add" and r["series"] == "run" for r in added)
    (listed,) = records("ls", "run", capsys=capsys)
    assert [step["compressed_bytes"] for step in listed["steps"]] == [
        r["compressed_bytes"] for r in added
    ]
    assert listed["compressed_bytes"] == sum(r["compressed_bytes"] for r in added)
    (back,) = records("restore", "run", "bf16.step0", "-o", "x", capsys=capsys)
    assert (back["output"], back["original_bytes"]) == ("x", os.path.getsize("x"))
    (whole,) = records("verify", "run", capsys=capsys)
    assert (whole["n_steps"], whole["orphans"]) == (2, [])
    (dropped,) = records("drop", "run", "fp32.step0", capsys=capsys)
    assert dropped["rewritten"] == ["bf16.step0"]
    (wrong,) = records("drop", "run", "fp32.step0", capsys=capsys, status=USAGE)
    assert (wrong["ok"], wrong["error"]["exit_status"]) == (False, USAGE)


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (["add", "run", "fp32.step0.safetensors"], USAGE, "has a step 'fp32.step0' already"),
        (["add", "run", "--name", "a/b", "fp32.step1.safetensors"], USAGE, "name 'a/b'"),
        (["add", "run", "--name", "a", "x", "y"], USAGE, "--name needs a single input"),
        (["add", "run", "--step", "-1", "x"], USAGE, "expected a number"),
        (["add", "run", "--timeout", "soon", "x"], USAGE, "expected seconds"),
        (["add", "run", "--max-depth", "41", "bf16.step0.safetensors"], USAGE, "max_depth is 41"),
        (["add", "run", "--keyframe", "--delta", "x"], USAGE, "not allowed with"),
        (["add", "run", "missing.safetensors"], SYSTEM, "missing.safetensors: No such file"),
        (["add", "run", "."], USAGE, "not a regular file"),
        (["add", "run", "-"], USAGE, "not a regular file"),
        (["add", "run", "bad.safetensors"], DATA, "bad.safetensors"),
        (["restore", "run", "step0"], USAGE, "no step 'step0'"),
        (["restore", "run", "fp32.step0", "fp32.step1", "-o", "x"], USAGE, "a single input"),
        (["restore", "nowhere", "x"], SYSTEM, "no series"),
        (["drop", "run", "fp32.step"], USAGE, "did you mean 'fp32.step0'"),
        (["ls", "nowhere"], SYSTEM, "no series"),
        (["verify", "nowhere"], SYSTEM, "no series"),
        ([], USAGE, "required"),
    ],
    ids=str,
)
def test_failures_are_one_line(
    args: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("bad.safetensors").write_bytes(b"no model")
    assert run("add", "run", "fp32.step0.safetensors") == 0
    capsys.readouterr()
    assert run(*args) == status
    told = capsys.readouterr().err
    assert message in told
    assert told.startswith("usage:") or told.count("\n") == 1
    assert Series.open("run").verify().ok


def test_damage_is_bad_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("add", "run", "fp32.step0.safetensors", "fp32.step1.safetensors") == 0
    file = Path("run", Series.open("run").ls()[0].file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    capsys.readouterr()
    assert run("verify", "run") == DATA
    assert "2 of 2 steps cannot be restored: 'fp32.step0'" in capsys.readouterr().err
    assert run("restore", "run", "fp32.step1", "-o", "x") == DATA
    assert not os.path.exists("x")
