"""One `ZstnReader` for several threads: right bytes, a thousand times a thread."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from z4ai._fast import _threads
from z4ai.safetensors import ZstnReader, save_numpy

N_READS = 1000
Array = np.ndarray  # of any dtype


@pytest.fixture(scope="module")
def tensors() -> dict[str, Array]:
    """Small tensors of several dtypes, one of several chunks, two alike."""
    rng = np.random.default_rng(23)
    found: dict[str, Array] = {
        f"layer.{k}": rng.normal(0, 0.02, (16 + k, 32)).astype((np.float32, np.float16)[k % 2])
        for k in range(12)
    }
    found["large"] = rng.normal(0, 0.02, (1200, 1024)).astype(np.float32)
    found["tied"] = found["layer.3"]
    return found


@pytest.fixture(scope="module")
def packed(tensors: dict[str, Array]) -> bytes:
    file = io.BytesIO()
    save_numpy(tensors, file)
    return file.getvalue()


def open_path(blob: bytes, folder: Path) -> ZstnReader:
    path = folder / "model.zstn"
    path.write_bytes(blob)
    return ZstnReader.open(path)


def open_object(blob: bytes, folder: Path) -> ZstnReader:
    return ZstnReader.open(io.BytesIO(blob))  # one position for all threads


def open_bytes(blob: bytes, folder: Path) -> ZstnReader:
    return ZstnReader.from_bytes(blob)


@pytest.mark.parametrize("opened", [open_path, open_object, open_bytes])
def test_threads_share_a_reader(
    opened: Callable[[bytes, Path], ZstnReader],
    packed: bytes,
    tensors: dict[str, Array],
    tmp_path: Path,
) -> None:
    names = [name for name in tensors if name != "large"]
    wrong: list[str] = []
    reads = [0, 0]
    barrier = threading.Barrier(2)

    def read(reader: ZstnReader, thread: int) -> None:
        barrier.wait()
        for k in range(N_READS):
            name = names[(k * (5 + 2 * thread)) % len(names)]
            array = reader.read_numpy(name)
            if array.dtype != tensors[name].dtype or not np.array_equal(array, tensors[name]):
                wrong.append(name)
            if k % 50 == 0:
                row = (37 * k) % 1200
                part = reader.read_slice("large", np.s_[row : row + 3, 5:])
                if not np.array_equal(part, tensors["large"][row : row + 3, 5:]):
                    wrong.append(f"large from {row}")
            reads[thread] += 1

    with opened(packed, tmp_path) as reader:
        threads = [threading.Thread(target=read, args=(reader, k)) for k in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert reads == [N_READS, N_READS]
    assert _threads.in_use() == 0
