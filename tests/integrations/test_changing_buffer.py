"""A buffer that another thread changes while it is compressed: the frame is lost, nothing else."""

from __future__ import annotations

import threading

import numpy as np

import z4ai
from z4ai import errors

N_ROUNDS = 60


def test_a_buffer_that_changes_meanwhile_harms_nothing_else() -> None:
    # Coded where they lie, so what is coded may not be what was counted: from codes of eight bits
    # and a few of eleven to those of eleven alone, and back.
    rng = np.random.default_rng(11)
    calm = rng.integers(0, 199, 1 << 20, dtype=np.uint8)
    calm[::2000] = 205
    wild = np.full_like(calm, 205)
    content = calm.copy()
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            content[:] = wild
            content[:] = calm

    thread = threading.Thread(target=change)
    thread.start()
    outcomes = {"same": 0, "other": 0, "refused": 0}
    try:
        for _ in range(N_ROUNDS):
            blob = z4ai.compress(content, dtype="uint8", threads=1)
            assert len(blob) <= z4ai.compress_bound(content.nbytes)
            try:
                back = z4ai.decompress(blob)
            except errors.FormatError:
                outcomes["refused"] += 1
            else:
                assert len(back) == content.nbytes
                outcomes["same" if back in (calm.tobytes(), wild.tobytes()) else "other"] += 1
    finally:
        stop.set()
        thread.join()
    assert sum(outcomes.values()) == N_ROUNDS
    # Whatever happened above, the next one is right.
    assert z4ai.decompress(z4ai.compress(calm, dtype="uint8")) == calm.tobytes()
