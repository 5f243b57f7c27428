"""How many threads a call gets: arguments, environment, affinity, control groups, leases, fork."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from z4ai._fast import _threads

pytestmark = pytest.mark.skipif(not _threads.openmp(), reason="built without OpenMP")


@pytest.fixture(autouse=True)
def nothing_on_lease(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    monkeypatch.delenv("Z4AI_NUM_THREADS", raising=False)
    assert _threads.in_use() == 0
    yield
    assert _threads.in_use() == 0


# --- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("threads", "n_jobs", "expected"),
    [
        (1, 100, 1),
        (3, 100, 3),
        (8, 5, 5),
        (5, 0, 1),
        (4, -1, 1),
        (256, 999, 256),
        (9999, 9999, 256),
    ],
)
def test_an_explicit_request_is_honoured(threads: int, n_jobs: int, expected: int) -> None:
    assert _threads.effective(threads, n_jobs) == expected
    with _threads.lease(threads, n_jobs) as granted:
        assert granted == expected


def test_any_integer_will_do() -> None:
    assert _threads.effective(np.int64(3), 10) == 3
    with _threads.lease(np.int64(3), 10) as granted:
        assert granted == 3
    assert _threads.effective(1 << 70, 10) == 10


@pytest.mark.parametrize("threads", [True, False, 2.0, "2", b"2", [2]])
def test_what_is_no_integer_is_refused(threads: object) -> None:
    with pytest.raises(TypeError, match="threads must be a positive integer or None"):
        _threads.effective(threads, 4)
    with pytest.raises(TypeError, match="threads must be a positive integer or None"):
        _threads.lease(threads, 4)


@pytest.mark.parametrize("threads", [0, -1])
def test_less_than_one_is_refused(threads: int) -> None:
    with pytest.raises(ValueError, match=f"threads must be at least 1, not {threads}"):
        _threads.effective(threads, 4)
    with pytest.raises(ValueError, match="threads must be at least 1"):
        _threads.lease(threads, 4)


# --- environment and machine ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), (" 7 ", 7), ("100000000000000000000", 256)]
)
def test_the_environment_sets_the_default(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: int
) -> None:
    monkeypatch.setenv("Z4AI_NUM_THREADS", text)
    assert _threads.default_threads() == expected
    assert _threads.effective(None, 1000) == expected
    assert _threads.effective(None, 2) == min(expected, 2)
    assert _threads.effective(3, 1000) == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5", "1e3", "+1", "0x2", "٣", "1 2"])
def test_a_wrong_environment_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("Z4AI_NUM_THREADS", text)
    with pytest.raises(ValueError, match="Z4AI_NUM_THREADS must be a positive integer"):
        _threads.effective(None, 4)
    assert _threads.effective(2, 4) == 2  # not asked, not read


def test_an_empty_environment_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    default = _threads.default_threads()
    monkeypatch.setenv("Z4AI_NUM_THREADS", "")
    assert _threads.default_threads() == default


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity masks here")
def test_the_affinity_mask_limits_only_the_default() -> None:
    code = (
        "import os\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from z4ai._fast import _threads\n"
        "print(_threads.effective(None, 99), _threads.effective(5, 99))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.split() == ["1", "5"]


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "800000 100000\n", "a/cpu.max": "300000 100000\n"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "cpu.max": "200000 100000\n"}, 2),
        ("0::/../../x\n", {"x/cpu.max": "200000 100000\n"}, 2),
        ("0::/elsewhere\n", {"cpu.max": "400000 100000\n"}, 4),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": "0 0\n"}, None),
        ("0::/\n", {"cpu.max": "\xff\xfe 100\n"}, None),
        ("", {"cpu.max": "100000 100000\n"}, None),
        ("garbage\n::\n:\n", {"cpu.max": "100000 100000\n"}, None),
        (
            "4:cpu,cpuacct:/box\n3:memory:/box\n",
            {
                "cpu,cpuacct/box/cpu.cfs_quota_us": "250000\n",
                "cpu,cpuacct/box/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            "4:cpu,cpuacct:/gone\n",
            {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
            1,
        ),
        (
            "4:cpu:/\n",
            {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
            None,
        ),
    ],
)
def test_control_groups(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int | None
) -> None:
    write(tmp_path / "proc", groups)
    for name, text in files.items():
        write(tmp_path / "root" / name, text)
    assert _threads.cgroup_cpus(str(tmp_path / "proc"), str(tmp_path / "root")) == expected


def test_no_control_groups(tmp_path: Path) -> None:
    assert _threads.cgroup_cpus(str(tmp_path / "none"), str(tmp_path)) is None


# --- leases ---------------------------------------------------------------------------------------


def test_callers_share_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Z4AI_NUM_THREADS", "4")
    with _threads.lease(None, 3) as first:
        assert (first, _threads.in_use()) == (3, 3)
        with _threads.lease(None, 100) as second:
            assert (second, _threads.in_use()) == (1, 4)
            with _threads.lease(None, 100) as third:
                assert third == 1  # never none at all
            with _threads.lease(2, 100) as explicit:
                assert explicit == 2  # asked for by name: not cut
        with _threads.lease(2, 100), _threads.lease(None, 100) as beside:
            assert beside == 1  # but it counts
    with _threads.lease(None, 100) as alone:
        assert alone == 4


def test_a_lease_ends_once() -> None:
    lease = _threads.lease(3, 3)
    assert (lease.threads, _threads.in_use()) == (3, 3)
    lease.release()
    lease.release()
    assert _threads.in_use() == 0
    with pytest.raises(KeyError), _threads.lease(2, 2):
        raise KeyError
    assert _threads.in_use() == 0
    lease = _threads.lease(2, 2)
    del lease
    gc.collect()
    assert _threads.in_use() == 0


def test_many_python_threads_never_exceed_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("Z4AI_NUM_THREADS", "6")
    callers = 5
    most = []

    def work() -> None:
        for _ in range(300):
            with _threads.lease(None, 3):
                most.append(_threads.in_use())

    workers = [threading.Thread(target=work) for _ in range(callers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(most) == callers * 300
    # each caller gets one thread at least, whatever is left of the budget
    assert max(most) <= 6 + callers - 1


# --- fork -----------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_is_single_threaded() -> None:
    code = (
        "import os\n"
        "from z4ai._fast import _threads\n"
        "lease = _threads.lease(4, 4)\n"
        "with _threads.lease(2, 2):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        assert _threads.effective(4, 4) == 1\n"
        "        assert _threads.in_use() == 0\n"
        "        with _threads.lease(8, 8) as granted:\n"
        "            assert granted == 1\n"
        "            lease.release()\n"
        "            assert _threads.in_use() == 1\n"
        "assert _threads.in_use() == (0 if pid == 0 else 4)\n"
        "if pid == 0:\n"
        "    os._exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7\n"
        "assert _threads.effective(4, 4) == 4\n"
        "print('parent fine')\n"
    )
    result = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.stdout == "parent fine\n", result.stderr
