"""torch brings an OpenMP of its own: both import orders, with threads at work on both sides."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="no torch here")

BODY = """
import numpy as np

torch.set_num_threads(2)
weights = np.random.default_rng(3).normal(0, 0.02, 2 << 20).astype(np.float32)
matrix = torch.from_numpy(weights[: 1 << 18].reshape(512, 512).copy())
square = matrix @ matrix
blob = z4ai.compress(weights, dtype=torch.float32, threads=2)
for _ in range(20):
    assert torch.equal(matrix @ matrix, square)
    assert z4ai.compress(weights, dtype="fp32", threads=2) == blob
    assert z4ai.decompress(blob, threads=2) == weights.tobytes()

# both at once
import threading
failures = []
def multiply():
    for _ in range(50):
        if not torch.equal(matrix @ matrix, square):
            failures.append("torch")
def compress():
    for _ in range(20):
        if z4ai.compress(weights, dtype="fp32", threads=2) != blob:
            failures.append("z4ai")
threads = [threading.Thread(target=t) for t in (multiply, compress, multiply, compress)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failures, failures
print("done", torch.get_num_threads())
"""


@pytest.mark.parametrize("order", ["import torch, z4ai", "import z4ai, torch"])
def test_torch_and_z4ai_share_a_process(order: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", order + BODY],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["done", "2"]
