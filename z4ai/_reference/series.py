"""A series of checkpoints: docs/format/series.md in plain Python."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from . import model_delta, zstn
from .xxh3 import xxh3_128

VERSION = 16
FIRST_LINE = re.compile(rb'\{"checksum":"([0-9a-f]{32})",\n')
FILE = re.compile(r"[A-Za-z0-9_-]{1,64}\.[0-9a-f]{16}\.(zstn|z4dm)")
NAME = re.compile(r"[^.\-/\\:\x00-\x1f\x7f-\x9f][^/\\:\x00-\x1f\x7f-\x9f]*")
DIGEST = re.compile(r"[0-9a-f]{32}")
KEYS = {"checksum", "format", "version", "max_depth", "effort", "steps"}
STEP_KEYS = {"name", "stream", "step", "file", "base", "original_nbytes", "encoded_nbytes"}
STEP_KEYS |= {"digest"}
MAX_DEPTH = 40
MAX_NUMBER = 2**63 - 1

Step = dict[str, Any]


def read_manifest(data: bytes) -> dict[str, Any]:
    """Check a manifest; ValueError if it breaks a rule.

    Returns
    -------
    dict
        As in the file; each step has its ``depth`` too.
    """
    first = FIRST_LINE.match(data)
    _require(first is not None and len(data) <= 1 << 25, "the first line")
    assert first is not None
    _require(int(first[1], 16) == xxh3_128(data[first.end() :]), "the checksum")
    manifest = json.loads(data.decode("utf-8"), object_pairs_hook=_object)
    _require(manifest.keys() == KEYS, "the keys")
    _require(manifest["format"] == "z4ai series", "the format")
    _require(_is_count(manifest["version"]) and manifest["version"] == VERSION, "the version")
    _require(_is_count(manifest["max_depth"], MAX_DEPTH), "max_depth")
    _require(manifest["effort"] in ("fast", "balanced", "max"), "effort")
    _require(isinstance(manifest["steps"], list) and len(manifest["steps"]) <= 1 << 16, "steps")
    depths: dict[str | None, int] = {None: -1}
    files = set()
    for step in manifest["steps"]:
        _check_step(step)
        _require(step["base"] in depths, "a base that stands before")
        _require(step["name"] not in depths and step["file"] not in files, "a step of its own")
        step["depth"] = depths[step["name"]] = depths[step["base"]] + 1
        _require(step["depth"] <= MAX_DEPTH, "the depth")
        files.add(step["file"])
    return dict(manifest)


def _check_step(step: Any) -> None:
    _require(isinstance(step, dict) and step.keys() == STEP_KEYS, "the keys of a step")
    for key in ("name", "stream"):
        name = step[key]
        _require(isinstance(name, str) and NAME.fullmatch(name) is not None, key)
        _require(len(name.encode()) <= 200, key)
    _require(step["base"] is None or isinstance(step["base"], str), "base")
    _require(step["step"] is None or _is_count(step["step"]), "step")
    _require(_is_count(step["original_nbytes"]) and _is_count(step["encoded_nbytes"]), "sizes")
    file, digest = step["file"], step["digest"]
    _require(isinstance(digest, str) and DIGEST.fullmatch(digest) is not None, "digest")
    found = FILE.fullmatch(file) if isinstance(file, str) else None
    _require(found is not None, "file")
    assert found is not None
    _require(found[1] == ("zstn" if step["base"] is None else "z4dm"), "file")


def restore(folder: str | os.PathLike[str], name: str) -> bytes:
    """Restore the ``.safetensors`` file of a step, all of it and all bases in memory."""
    with open(os.path.join(folder, "series.json"), "rb") as file:
        steps = read_manifest(file.read())["steps"]
    by_name = {step["name"]: step for step in steps}
    chain = [by_name[name]]
    while chain[-1]["base"] is not None:
        chain.append(by_name[chain[-1]["base"]])
    content = b""
    for step in reversed(chain):
        with open(os.path.join(folder, step["file"]), "rb") as file:
            data = file.read()
        _require(len(data) == step["encoded_nbytes"], "the size of a file")
        content = zstn.restore(data) if step["base"] is None else model_delta.restore(data, content)
        _require(len(content) == step["original_nbytes"], "the size of what is restored")
        _require(xxh3_128(content) == int(step["digest"], 16), "the digest of what is restored")
    return content


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _require(len(dict(pairs)) == len(pairs), "keys that occur once")
    return dict(pairs)


def _is_count(value: Any, most: int = MAX_NUMBER) -> bool:
    return type(value) is int and 0 <= value <= most


def _require(holds: bool, what: str) -> None:
    if not holds:
        msg = f"series: not as it must be: {what}"
        raise ValueError(msg)
