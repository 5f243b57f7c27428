"""Loading with torch in other processes: memory, import orders, workers forked and spawned."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import z4ai
from z4ai.integrations import SafeOpen

MIB = 1 << 20


def run(code: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.split()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty tensors of 4 MiB, one of 60 MiB, and many small ones: 320 MiB."""
    path = tmp_path_factory.mktemp("processes") / "m.z4"
    torch.manual_seed(2)
    part = (torch.randn(2 * MIB) * 0.02).bfloat16()
    state = {f"{k}": torch.roll(part, k * 1001).view(1024, -1) for k in range(60)}
    state["large"] = torch.cat([part.roll(k) for k in range(70, 85)])
    state |= {f"small.{k}": part[k : k + 9000].clone() for k in range(1000)}
    z4ai.save_file(state, path, effort="fast")
    return path


PEAK = """
import resource, sys
import torch, z4ai
from z4ai import errors
from z4ai.integrations import SafeOpen, _load, _archive
import z4ai._fast.chunks
def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
z4ai.load_file(sys.argv[2])  # whatever is made at the first call
before = peak()
state = z4ai.load_file(sys.argv[1])
print(peak() - before, sum(t.nbytes for t in state.values()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage here")
def test_loading_takes_the_memory_of_the_model(model: Path, tmp_path: Path) -> None:
    z4ai.save_file({"w": torch.randn(100)}, tmp_path / "tiny.z4")
    taken, nbytes = map(int, run(PEAK, model, tmp_path / "tiny.z4"))
    assert nbytes > 300 * MIB
    assert taken <= nbytes * 1.1 + 64 * MIB, f"{taken / MIB:.0f} MiB for {nbytes / MIB:.0f} MiB"


SAVE_PEAK = """
import resource, sys
import torch, z4ai
def peak():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
part = (torch.randn(1 << 21) * 0.02).bfloat16()
state = {f"{k}": part.roll(k).view(1024, -1).t() for k in range(60)}  # no one is contiguous
z4ai.save_file({"w": part[:3000000]}, sys.argv[1])
before = peak()
z4ai.save_file(state, sys.argv[1], effort="fast")
print(peak() - before, sum(t.nbytes for t in state.values()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no getrusage here")
def test_saving_copies_a_tensor_at_a_time(tmp_path: Path) -> None:
    taken, nbytes = map(int, run(SAVE_PEAK, tmp_path / "m.z4"))
    assert nbytes > 200 * MIB
    assert taken <= 96 * MIB, f"{taken / MIB:.0f} MiB beside {nbytes / MIB:.0f} MiB"


ORDERS = """
w = torch.arange(3 << 18, dtype=torch.float32).reshape(3, -1)
torch.mm(w[:, :512], w[:, :512].t())  # torch's threads
z4ai.save_file({"w": w, "v": w.t()}, sys.argv[1], threads=2)
for _ in range(3):
    state = z4ai.load_file(sys.argv[1], threads=2)
    assert torch.equal(state["w"], w) and torch.equal(state["v"], w.t())
    assert torch.mm(state["w"][:, :512], state["v"][:512]).isfinite().all()
print("done")
"""


@pytest.mark.parametrize(
    "order",
    [
        "import sys, torch, z4ai",
        "import sys, z4ai, torch",
        "import sys, z4ai; z4ai.save_file; import torch",
        "import sys, z4ai; z4ai.decompress(z4ai.compress(bytes(1 << 23), threads=2)); import torch",
    ],
)
def test_either_may_be_imported_first(order: str, tmp_path: Path) -> None:
    assert run(order + ORDERS, tmp_path / "m.z4") == ["done"]


def test_importing_z4ai_imports_no_torch() -> None:
    code = (
        "import sys, z4ai, z4ai.integrations\n"
        "assert callable(z4ai.save_file) and callable(z4ai.integrations.SafeOpen)\n"
        "print('torch' in sys.modules, 'safetensors' in sys.modules)"
    )
    assert run(code) == ["False", "False"]


# --- Workers --------------------------------------------------------------------------------------


class Rows(torch.utils.data.Dataset):  # type: ignore[type-arg]
    """Rows of a matrix in a container, which each worker opens for itself."""

    def __init__(self, path: Path, opened: SafeOpen | None = None) -> None:
        self.path = path
        self.opened = opened

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> torch.Tensor:
        file = self.opened or SafeOpen(self.path, "pt")
        whole = z4ai.load_file(self.path)["w"]
        part: torch.Tensor = file.get_slice("w")[row]
        assert torch.equal(whole[row], part)
        return part


@pytest.fixture
def rows(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    weight = torch.randn(40, 30_000)
    z4ai.save_file({"w": weight, "b": torch.zeros(3)}, tmp_path / "m.z4")
    assert torch.equal(z4ai.load_file(tmp_path / "m.z4", threads=2)["w"], weight)
    return tmp_path / "m.z4", weight


FORKED = "ignore:.*fork.*:DeprecationWarning"


@pytest.mark.filterwarnings(FORKED)
@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("shared", [False, True])
def test_workers_of_a_data_loader(
    rows: tuple[Path, torch.Tensor], start: str, shared: bool
) -> None:
    if start not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {start} here")
    if shared and start == "spawn":
        pytest.skip("an open file is not sent to another process")
    path, weight = rows
    opened = SafeOpen(path, "pt") if shared else None
    if opened is not None:
        assert torch.equal(opened.get_tensor("w"), weight)
    loader = torch.utils.data.DataLoader(
        Rows(path, opened), batch_size=8, num_workers=2, multiprocessing_context=start
    )
    assert torch.equal(torch.cat(list(loader)), weight)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings(FORKED)
def test_a_child_reads_what_the_parent_opened(rows: tuple[Path, torch.Tensor]) -> None:
    path, weight = rows
    file = SafeOpen(path, "pt")
    part = file.get_slice("w")
    # By NumPy: torch itself may hang in a child of a process that has used its threads.
    expected = weight.numpy()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            signal.alarm(60)
            ok = np.array_equal(file.get_tensor("w").numpy(), expected)
            ok = ok and np.array_equal(part[3:9, ::7].numpy(), expected[3:9, ::7])
            ok = ok and np.array_equal(z4ai.load_file(path)["w"].numpy(), expected)
            with SafeOpen(path, "pt") as again:
                ok = ok and np.array_equal(again.get_tensor("w").numpy(), expected)
            status = 0 if ok else 2
        finally:
            os._exit(status)
    assert torch.equal(file.get_tensor("w"), weight)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
