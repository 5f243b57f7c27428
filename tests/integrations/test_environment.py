"""`Z4AI_ISA` and `Z4AI_NUM_THREADS` are obeyed, and neither changes a byte."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from z4ai._fast import _dispatch, _threads

CODE = """
import hashlib, json, sys
import numpy as np
import z4ai
from z4ai._fast import _dispatch, _threads

rng = np.random.default_rng(11)
weights = rng.normal(0, 0.02, (3 << 20) // 4 + 5).astype(np.float32)
inputs = {
    "fp64": rng.normal(0, 1, 150_001), "fp32": weights, "fp16": weights.astype(np.float16),
    "bf16": (weights.view(np.uint32) >> 16).astype(np.uint16),
    "int8": np.clip(rng.normal(0, 20, 3_000_001), -128, 127).astype(np.int8),
    "int16": rng.integers(-300, 300, 100_000).astype(np.int16),
    "int32": rng.integers(-9, 9, 100_000).astype(np.int32),
    "uint64": np.arange(70_000, dtype=np.uint64), None: rng.bytes(100_000) + bytes(100_000),
}
digests = {}
for dtype, data in inputs.items():
    for effort in ("fast", "balanced", "max"):
        blob = z4ai.compress(data, dtype=dtype, effort=effort)
        assert z4ai.decompress(blob) == bytes(memoryview(data).cast("B")), (dtype, effort)
        digests[f"{dtype} {effort}"] = hashlib.sha256(blob).hexdigest()
print(json.dumps({
    "isa": _dispatch.current(), "threads": _threads.default_threads(), "digests": digests,
}))
"""


def run(**variables: str) -> dict[str, Any]:
    env = {k: v for k, v in os.environ.items() if k not in ("Z4AI_ISA", "Z4AI_NUM_THREADS")}
    result = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=env | variables,
    )
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


@pytest.fixture(scope="module")
def usual() -> dict[str, Any]:
    return run()


def test_every_instruction_set_gives_the_same_bytes(usual: dict[str, Any]) -> None:
    exercised = set()
    for isa in _dispatch.runnable():
        found = run(Z4AI_ISA=isa)
        assert found["digests"] == usual["digests"], isa
        exercised.add(found["isa"])
    assert exercised == set(_dispatch.runnable())
    assert len(usual["digests"]) == 27


@pytest.mark.parametrize("threads", [1, 2, 7])
def test_every_thread_count_gives_the_same_bytes(threads: int, usual: dict[str, Any]) -> None:
    found = run(Z4AI_NUM_THREADS=str(threads))
    assert found["threads"] == threads
    assert found["digests"] == usual["digests"]


def test_an_unknown_instruction_set_is_refused_with_the_known_ones() -> None:
    result = subprocess.run(
        [sys.executable, "-c", "import z4ai"],
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ, Z4AI_ISA="mmx"),
    )
    assert result.returncode != 0
    last = result.stderr.splitlines()[-1]
    assert "ValueError" in last
    assert "mmx" in last
    assert all(isa in last for isa in _dispatch.runnable())


def test_a_wrong_thread_count_is_refused() -> None:
    code = "import z4ai\ntry: z4ai.compress(b'x')\nexcept ValueError as error: print(error)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ, Z4AI_NUM_THREADS="many"),
    )
    assert _threads.ENVIRONMENT_VARIABLE in result.stdout
    assert "many" in result.stdout
