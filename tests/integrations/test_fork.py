"""Compressing in a forked child, after the parent has used OpenMP: GNU OpenMP would hang there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

PREAMBLE = """
import os, sys, warnings
import numpy as np
import z4ai
from z4ai._fast import _threads

weights = np.random.default_rng(7).normal(0, 0.02, 3 << 20).astype(np.float32)
blob = z4ai.compress(weights, dtype="fp32", threads=4)  # opens the parent's pool
assert z4ai.decompress(blob, threads=4) == weights.tobytes()

def check():
    assert z4ai.compress(weights, dtype="fp32", threads=4) == blob, "other bytes in the child"
    assert z4ai.compress(weights, dtype="fp32") == blob
    assert z4ai.decompress(blob, threads=4) == weights.tobytes()
    array = weights.reshape(3, -1)
    assert np.array_equal(z4ai.decompress_array(z4ai.compress_array(array)), array)

warnings.simplefilter("ignore")  # Python 3.12 warns of forking beside threads, which is the point
"""

FORK = """
def forked(body):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            body()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status

forked(check)
forked(lambda: forked(check))  # a grandchild
check()  # and the parent still has its threads
"""

POOL = """
import multiprocessing

def work(number):
    check()
    return number

with multiprocessing.get_context("fork").Pool(2) as pool:
    assert pool.map(work, range(4)) == [0, 1, 2, 3]
"""

THREAD = """
import threading

# fork while another thread is inside a parallel region and holds its lease
stop = threading.Event()
def busy():
    while not stop.is_set():
        z4ai.compress(weights, dtype="fp32", threads=2)
thread = threading.Thread(target=busy)
thread.start()
try:
    for _ in range(5):
        forked(check)
finally:
    stop.set()
    thread.join()
"""


@pytest.mark.parametrize("body", [FORK, POOL, FORK + THREAD], ids=["fork", "pool", "busy-parent"])
def test_a_forked_child_compresses(body: str) -> None:
    code = PREAMBLE + body + "print('done', _threads.openmp())\n"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[0] == "done"


def test_a_reader_made_before_a_fork_is_read_in_the_child(tmp_path: Path) -> None:
    body = """
from z4ai.safetensors import ZstnReader, save_numpy

save_numpy({"w": weights.reshape(3, -1)}, "fork.zstn", threads=4)
reader = ZstnReader.open("fork.zstn", threads=4)
def read():
    for _ in range(20):
        assert np.array_equal(reader.read_numpy("w").ravel(), weights)
    reader.verify()
read()
forked(read)
read()
"""
    code = PREAMBLE + FORK + f"os.chdir({os.fspath(tmp_path)!r})\n" + body + "print('done')\n"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
