"""`AtomicFile`: complete under its name, or not there."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from z4ai._atomic import AtomicFile


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_it_appears_at_commit() -> None:
    with AtomicFile("f") as file:
        file.write(b"ab")
        file.write(memoryview(b"cd"))
        assert os.listdir() == [os.path.basename(file.temporary)]
        assert file.nbytes == 4
        file.commit()
        assert os.listdir() == ["f"]
    assert Path("f").read_bytes() == b"abcd"
    file.abort()
    del file
    gc.collect()
    assert os.listdir() == ["f"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_removes_it(kind: type[BaseException]) -> None:
    Path("f").write_bytes(b"before")
    with pytest.raises(kind), AtomicFile("f") as file:  # noqa: PT012 - the block is it
        file.write(b"ab")
        raise kind
    assert os.listdir() == ["f"]
    assert Path("f").read_bytes() == b"before"


def test_a_disk_that_is_full_is_an_error_and_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"), AtomicFile("f") as file:  # noqa: PT012
        monkeypatch.setattr(os, "write", full)
        file.write(b"ab")
    assert os.listdir() == []


def test_a_write_that_takes_a_little_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    with AtomicFile("f") as file:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
            file.write(b"0123456789")
        file.commit()
    assert Path("f").read_bytes() == b"0123456789"


def test_the_bytes_are_on_the_disk_before_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(fd: int) -> None:
        order.append("fsync")
        fsync(fd)

    def noting_replace(one: str, other: str) -> None:
        order.append("replace")
        replace(one, other)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    with AtomicFile("f") as file:
        file.commit()
    assert order[:2] == ["fsync", "replace"]
    if os.name == "posix":
        assert order == ["fsync", "replace", "fsync"], "and the folder behind it"


def test_a_rename_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(one: str, other: str) -> None:
        raise PermissionError("in use")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PermissionError), AtomicFile("f") as file:
        file.commit()
    assert os.listdir() == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_in_the_middle_of_a_file_leaves_nothing() -> None:
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from z4ai.safetensors import ZstnWriter\n"
        "import numpy as np\n"
        "data = np.arange(1 << 20, dtype=np.float32)\n"
        "with ZstnWriter('f') as writer:\n"
        "    writer.add('0', data)\n"
        "    print('ready', flush=True)\n"
        "    for k in range(1, 100_000):\n"
        "        data += 1\n"
        "        writer.add(str(k), data)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        time.sleep(0.05)
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, errors = child.communicate(timeout=30)
        assert time.monotonic() - sent < 5
    assert b"KeyboardInterrupt" in errors
    assert os.listdir() == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_that_ends_leaves_the_file_to_its_parent() -> None:
    child = """
import os, sys
from z4ai._atomic import AtomicFile
with AtomicFile("f") as file:
    file.write(b"abcd")
    pid = os.fork()
    if pid == 0:
        sys.exit()
    assert os.waitpid(pid, 0)[1] == 0
    file.commit()
"""
    subprocess.run([sys.executable, "-c", child], check=True)
    assert os.listdir() == ["f"]
    assert Path("f").read_bytes() == b"abcd"


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_permissions_are_those_of_the_model_or_of_what_is_replaced() -> None:
    from z4ai.safetensors import compress_file, decompress_file, save_numpy

    save_numpy({"a": np.arange(9, dtype=np.float32)}, "plain.zstn")
    decompress_file("plain.zstn", "m.safetensors")
    os.chmod("m.safetensors", 0o600)
    compress_file("m.safetensors", "m.zstn")
    assert os.stat("m.zstn").st_mode & 0o777 == 0o600
    os.chmod("m.zstn", 0o640)
    compress_file("m.safetensors", "m.zstn")
    assert os.stat("m.zstn").st_mode & 0o777 == 0o640
    decompress_file("m.zstn", "back.safetensors")
    assert os.stat("back.safetensors").st_mode & 0o777 == 0o640


def test_a_missing_folder_is_told_by_the_name_that_was_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "nowhere" / "file"
    with pytest.raises(FileNotFoundError) as caught:
        AtomicFile(path)
    assert caught.value.filename == str(path)
