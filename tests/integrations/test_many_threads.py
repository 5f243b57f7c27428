"""Many Python threads in z4ai at once: right bytes for each, and no thread left on lease."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import z4ai
import z4ai.chunked
from z4ai._fast import _threads

N_THREADS = 16
DTYPES = ("fp32", "bf16", "fp16", "int8", None)


def content(seed: int) -> bytes:
    n = 40_000 + 999 * seed
    return np.random.default_rng(seed).normal(0, 0.02, n).astype(np.float32).tobytes()


def through_buffers(seed: int, expected: bytes, data: bytes) -> None:
    dtype = DTYPES[seed % len(DTYPES)]
    blob = z4ai.compress(data, dtype=dtype)
    assert blob == expected
    out = bytearray(len(data))
    assert z4ai.decompress(blob) == data
    assert z4ai.chunked.decompress(blob, out=out) == data


def through_streams(seed: int, expected: bytes, data: bytes) -> None:
    packed, back = io.BytesIO(), io.BytesIO()
    z4ai.compress_stream(io.BytesIO(data), packed, dtype="fp32")
    packed.seek(0)
    assert z4ai.decompress_stream(packed, back) == len(data)
    assert back.getvalue() == data


def run_all(task: Callable[[int, bytes, bytes], None]) -> None:
    inputs = [content(seed) for seed in range(N_THREADS)]
    expected = [
        z4ai.compress(data, dtype=DTYPES[seed % len(DTYPES)], threads=1)
        for seed, data in enumerate(inputs)
    ]
    barrier = threading.Barrier(N_THREADS)

    def work(seed: int) -> int:
        barrier.wait()
        for _ in range(10):
            task(seed, expected[seed], inputs[seed])
        return seed

    with ThreadPoolExecutor(N_THREADS) as pool:
        assert list(pool.map(work, range(N_THREADS))) == list(range(N_THREADS))
    assert _threads.in_use() == 0


def test_buffers() -> None:
    run_all(through_buffers)


def test_streams() -> None:
    run_all(through_streams)


def test_one_input_shared_by_all() -> None:
    data = content(3)
    blob = z4ai.compress(data, dtype="fp32")
    with ThreadPoolExecutor(N_THREADS) as pool:
        blobs = set(pool.map(lambda _: z4ai.compress(data, dtype="fp32"), range(64)))
        contents = set(pool.map(lambda _: z4ai.decompress(blob), range(64)))
    assert blobs == {blob}
    assert contents == {data}
    assert _threads.in_use() == 0
