"""`z4ai compress-model` and `z4ai decompress-model`: what they print, how they fail."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from model_folders import sharded, single, snapshot, write_all

from z4ai.cli import main
from z4ai.model_folder import carry

DATA, USAGE, SYSTEM = 1, 2, 3


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda _: None)
    sharded(Path("model"))


def run(*args: str) -> int:
    try:
        return main(args)
    except SystemExit as error:
        return int(error.code or 0)


def test_there_and_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compress-model", "model", "-o", "small", "--threads", "1", "--effort", "max") == 0
    out, told = capsys.readouterr()
    assert not out
    assert told.startswith("model -> small: 3 files of weights, ")
    assert run("compress-model", "model", "-o", "small", "--effort", "max") == 0
    assert "3 files of weights, 3 of them done before" in capsys.readouterr().err
    assert run("decompress-model", "-q", "small", "-o", "back") == 0
    assert capsys.readouterr() == ("", "")
    assert snapshot("back") == snapshot("model")


def test_several_folders_in_place(capsys: pytest.CaptureFixture[str]) -> None:
    single(Path("other"))
    before = snapshot(".")
    assert run("compress-model", "--in-place", "--variant", "v", "model", "other") == 0
    assert Path("other/model.v.safetensors").exists()
    assert not Path("other/model.safetensors").exists()
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert run("decompress-model", "--in-place", "--variant", "v", "model", "other") == 0
    assert snapshot(".") == before
    assert run("compress-model", "--in-place", "--no-variant", "other") == 0
    assert Path("other/model.safetensors").read_bytes()[:4] == b"ZSTN"
    assert run("decompress-model", "--in-place", "--no-variant", "other") == 0
    assert snapshot(".") == before
    assert run("compress-model", "-o", "x", "model", "other") == USAGE


def test_records(capsys: pytest.CaptureFixture[str]) -> None:
    def record(*args: str, status: int = 0) -> Any:
        assert run(*args, "--json") == status
        out, told = capsys.readouterr()
        assert not told or status
        (line,) = out.splitlines()
        return json.loads(line)

    told = record("compress-model", "model", "-o", "small", "--link", "--no-verify")
    assert (told["command"], told["input"], told["output"]) == ("compress-model", "model", "small")
    assert (told["n_weights"], told["n_skipped"], told["n_copied"], told["n_removed"]) == (
        3,
        0,
        1,
        0,
    )
    assert told["ok"]
    assert told["original_bytes"] > told["compressed_bytes"]
    assert os.path.samefile("model/config.json", "small/config.json")
    back = record("decompress-model", "small", "-o", "back")
    assert back["original_bytes"] == told["original_bytes"]
    Path("small/config.json").unlink()
    Path("small/config.json").write_text("mine")
    told = record("compress-model", "model", "-o", "small", status=USAGE)
    assert not told["ok"]
    assert "small/config.json: exists already" in told["error"]["message"]
    record("compress-model", "model", "-o", "small", "-f")


def test_statuses(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    before = snapshot(".")
    assert run("compress-model", "missing") == SYSTEM
    assert run("compress-model", "model/config.json") == SYSTEM
    for wrong in (
        ["compress-model", "model", "--no-variant"],
        ["compress-model", "model", "--variant", "a/b"],
        ["compress-model", "model", "--variant", "a", "--no-variant"],
        ["compress-model", "model", "--in-place", "-o", "x"],
        ["compress-model", "model", "--in-place", "--no-verify"],
        ["compress-model", "model", "--link"],
        ["compress-model", "model", "-o", "model/x"],
        ["compress-model", "-"],
        ["compress-model", "model", "-o", "-"],
        ["compress-model"],
        ["decompress-model", "model", "--effort", "max"],
    ):
        assert run(*wrong) == USAGE, wrong
    capsys.readouterr()
    monkeypatch.setattr(carry.Carrier, "_free", lambda _: 1)
    assert run("compress-model", "model", "-o", "x") == SYSTEM
    assert "not enough room" in capsys.readouterr().err
    assert snapshot(".") == before
    write_all(Path("model"), {"model.safetensors.index.json": b'{"weight_map": {"a": "../x"}}'})
    assert run("compress-model", "model") == DATA
    assert "'../x' is no name of a shard" in capsys.readouterr().err
    os.mkdir("empty")
    assert run("compress-model", "empty") == USAGE


@pytest.mark.skipif(os.name != "posix", reason="needs links")
def test_links_are_followed_when_asked() -> None:
    Path("secret").write_text("s")
    os.symlink("../secret", "model/notes")
    assert run("compress-model", "model", "-o", "small") == USAGE
    assert run("compress-model", "model", "-o", "small", "--follow-links") == 0
    assert Path("small/notes").read_text() == "s"


def test_a_bar_learns_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert run("compress-model", "model", "-o", "small") == 0
    assert "  0%|" in capsys.readouterr().err, "not a count alone"
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    assert run("compress-model", "model", "-o", "other") == 0
    assert "%" not in capsys.readouterr().err
