"""A series that is killed, that runs out of disk, that others read meanwhile, that lies."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import checkpoint, write
from series_runs import KINDS, adding, configuring, contents, dropping, expected, litter, made

import z4ai
from z4ai._fast.hashing import xxh3_128
from z4ai.deltas import models
from z4ai.errors import ChecksumError, CorruptError, FormatError, Z4Error
from z4ai.series import Series
from z4ai.series import folder as folders

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- Killed ---------------------------------------------------------------------------------------


@posix
def test_killed_at_any_moment_it_loses_nothing() -> None:
    """The script does so fifty times and more; here a few."""
    script = ROOT / "bench" / "e2e" / "series_kill.py"
    run = subprocess.run(
        [sys.executable, str(script), "--kills", "4", "--folder", "killed", "--seed", "3"],
        env={**os.environ, "PYTHONPATH": _path()},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "4 kills" in run.stdout


def _path() -> str:
    here = [str(Path(z4ai.__file__).parents[1]), str(ROOT)]
    return os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")])


# --- What is read-only ----------------------------------------------------------------------------


@posix
def test_a_folder_that_cannot_be_written_is_read() -> None:
    """As somebody else where that can be, since root may write anywhere."""
    is_root = os.getuid() == 0
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.chmod(folder, 0o755)
        series = made(1)
        assert series.verify().ok
        for path in (*(f"run/{step.file}" for step in series.ls()), "in.safetensors"):
            os.chmod(path, 0o644)
        os.chmod("run", 0o755 if is_root else 0o555)
        if is_root:
            os.seteuid(65534)
        try:
            series = Series.open("run")
            assert series.verify().ok
            with series.reader("bf16.step0") as reader:
                assert len(reader.names()) == 3
            for change in (adding, dropping, configuring):
                with pytest.raises(PermissionError):
                    change(series)
        finally:
            if is_root:
                os.seteuid(0)
            os.chmod("run", 0o755)
            os.chdir("/")


# --- Others at work -------------------------------------------------------------------------------


def test_writers_wait_for_one_another() -> None:
    series = made(1)
    other = Series.open("run", timeout=0.1)
    with series._folder.locked(None):
        for change in (dropping, configuring, lambda s: s.add("in.safetensors", "x")):
            with pytest.raises(TimeoutError, match="another writer"):
                change(other)
        assert contents() == expected(["fp32.step0", "bf16.step0"]), "readers do not wait"
    configuring(other)


def test_threads_that_write_take_turns() -> None:
    series = made(1)
    failures: list[BaseException] = []

    def work(k: int) -> None:
        try:
            path = Path(f"in{k}.safetensors")
            for step in range(3):
                write(path, "fp32", step + 1, run=k)
                series.add(path, f"{k}.step{step}")
            series.drop(f"{k}.step1")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert series.verify().ok
    assert len(series) == 2 + 3 * 2


@posix
def test_readers_in_other_processes_while_it_is_written() -> None:
    """Whatever is named when they look is restored, whatever is dropped meanwhile."""
    series = made(2)
    script = (
        "import sys, time\n"
        "from checkpoints import checkpoint\n"
        "from z4ai.series import Series\n"
        "n = 0; end = time.monotonic() + 2\n"
        "while time.monotonic() < end:\n"
        "    s = Series.open('run')\n"
        "    for step in s.ls():\n"
        "        try: s.restore(step.name, sys.argv[1])\n"
        "        except KeyError: continue\n"
        "        kind, number = step.name.split('.step')\n"
        "        assert open(sys.argv[1], 'rb').read() == checkpoint(kind, int(number))\n"
        "        n += 1\n"
        "print(n)\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([_path(), str(ROOT / "tests")])}
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", script, f"out{k}"], env=env, stdout=-1, stderr=-1, text=True
        )
        for k in range(2)
    ]
    changes = 0
    step = 2
    while any(reader.poll() is None for reader in readers):
        for kind in KINDS:
            write(Path("in.safetensors"), kind, step % 10)
            series.add("in.safetensors", f"{kind}.step{step % 10}")
            series.drop(series.ls()[0].name)
            changes += 1
        step += 1
    for reader in readers:
        out, error = reader.communicate()
        assert reader.returncode == 0, error
        assert int(out) > 4
    assert changes > 2


def test_a_reader_with_an_old_manifest_looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made(2)
    reader = Series.open("run")
    read = folders.Folder.read_manifest
    late: list[int] = []

    def then_dropped(self: folders.Folder) -> Any:
        found = read(self)
        if not late:
            late.append(1)
            Series.open("run").drop("fp32.step0")
        return found

    monkeypatch.setattr(folders.Folder, "read_manifest", then_dropped)
    reader.restore("bf16.step0", "out")
    assert Path("out").read_bytes() == checkpoint("bf16", 0)


class Disk:
    """What of a folder has reached the disk, by the calls that bring it there."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: str) -> None:
        self._folder = folder
        self._flushed: set[int] = set()
        #: Names of the folder that changed since it was flushed.
        self.waiting: set[str] = set()
        self.changes: list[str] = []
        for name in ("fsync", "replace", "unlink"):
            patch.setattr(os, name, self._around(getattr(self, f"_{name}"), getattr(os, name)))

    @staticmethod
    def _around(look: Callable[..., None], call: Callable[..., Any]) -> Callable[..., Any]:
        def looking(*args: Any) -> Any:
            look(*args)
            return call(*args)

        return looking

    def _fsync(self, fd: int) -> None:
        found = os.fstat(fd)
        self._flushed.add(found.st_ino)
        if found.st_ino == os.stat(self._folder).st_ino:
            self.waiting.clear()

    def _replace(self, src: str, dst: str) -> None:
        if os.path.dirname(dst) != self._folder:
            return
        name = os.path.basename(dst)
        assert os.stat(src).st_ino in self._flushed, f"{name} gets its name before its content"
        assert not self.waiting, f"{name} before {self.waiting}"
        self.waiting.add(name)
        self.changes.append(name)

    def _unlink(self, path: str) -> None:
        if os.path.dirname(path) == self._folder:
            assert not self.waiting, f"{path} goes before {self.waiting} came"
            self.changes.append("-")


@posix
@pytest.mark.parametrize(
    ("change", "changes"),
    [
        (adding, [".z4dm", ".json"]),
        (configuring, [".json"]),
        # Three steps are stored anew; their old files and that of the dropped one go.
        (lambda series: series.drop("fp32.step0"), [".zstn", ".z4dm", ".json", *["-"] * 3]),
    ],
)
def test_what_must_be_on_the_disk_before_what(
    change: Callable[[Series], object], changes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power may undo whatever was not flushed, and none of what was."""
    series = made(2)
    disk = Disk(monkeypatch, series.path)
    change(series)
    assert not disk.waiting
    assert [os.path.splitext(name)[1] or name for name in disk.changes] == changes
    # What an interrupted writer left goes no sooner either.
    Path(series.path, "x.0123456789abcdef.zstn").write_bytes(b"")
    disk.waiting.add("whatever came last")
    configuring(series)
    assert disk.changes[-2:] == ["-", "series.json"]


# --- A folder that lies ---------------------------------------------------------------------------


def forge(change: Callable[[dict[str, Any]], None]) -> None:
    """Change the manifest, and let its checksum fit."""
    path = Path("run/series.json")
    fields = json.loads(path.read_bytes())
    del fields["checksum"]
    change(fields)
    body = json.dumps(fields)[1:].encode()
    path.write_bytes(b'{"checksum":"%032x",\n' % xxh3_128(body) + body)


@pytest.mark.parametrize("file", ["../secret", "/etc/passwd", "../run/x.0000000000000000.zstn"])
def test_no_manifest_leads_out_of_the_folder(file: str) -> None:
    made(1)
    Path("secret").write_bytes(b"secret")
    forge(lambda fields: fields["steps"][0].update(file=file))
    for call in (
        lambda: Series.open("run"),
        lambda: Series("run").drop("fp32.step0"),
        lambda: Series("run").verify(),
        lambda: Series("run").add("in.safetensors", "x"),
    ):
        with pytest.raises(CorruptError, match="no name of a step's file"):
            call()
    assert Path("secret").read_bytes() == b"secret"


@posix
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_file_that_is_none_is_refused(kind: str) -> None:
    series = made(1)
    file = Path("run", series.ls()[0].file)
    os.rename(file, "elsewhere")
    if kind == "link":
        file.symlink_to(Path("elsewhere").resolve())
    elif kind == "pipe":
        os.mkfifo(file)
    else:
        file.mkdir()
    with pytest.raises(CorruptError, match="not a regular file"):
        series.restore("fp32.step0", "x")
    assert set(series.verify().failures) == {"fp32.step0", "bf16.step0"}
    with pytest.raises(CorruptError, match="not a regular file"):
        series.drop("fp32.step0")
    assert Path("elsewhere").exists()


@posix
def test_links_do_not_lead_writers_out_of_the_folder() -> None:
    series = made(1)
    os.mkdir("outside")
    Path("outside/precious").write_bytes(b"x")
    shutil.rmtree("run/.partial")
    os.symlink(Path("outside").resolve(), "run/.partial")
    with pytest.raises(CorruptError, match="not a folder"):
        configuring(series)
    assert os.listdir("outside") == ["precious"]
    os.unlink("run/.partial")
    os.unlink("run/.lock")
    os.symlink(Path("outside/new").resolve(), "run/.lock")
    with pytest.raises(OSError, match=r"\.lock"):
        configuring(series)
    assert os.listdir("outside") == ["precious"]
    os.unlink("run/.lock")
    configuring(series)
    # An orphan that is a link goes, and what it leads to stays.
    os.symlink(Path("outside/precious").resolve(), "run/x.0000000000000000.zstn")
    os.symlink(Path("outside/precious").resolve(), "run/.partial/x")
    configuring(series)
    assert Path("outside/precious").read_bytes() == b"x"
    assert not litter(series)


def test_other_files_of_the_folder_are_left_alone() -> None:
    series = made(1)
    others = ["notes.txt", "model.zstn", "x.0123.zstn", "X.000000000000000A.zstn", ".hidden"]
    for name in others:
        Path("run", name).write_bytes(b"mine")
    os.mkdir("run/y.0000000000000000.zstn")
    configuring(series)
    series.drop("fp32.step0")
    assert litter(series) == {*others, "y.0000000000000000.zstn"}


def test_orphans_are_told_and_then_removed() -> None:
    series = made(1)
    Path("run/x.0000000000000000.zstn").write_bytes(b"")
    Path("run/.partial/x").write_bytes(b"")
    report = series.verify()
    assert report.ok
    assert report.orphans == ("x.0000000000000000.zstn",)
    configuring(series)
    assert series.verify().orphans == ()
    assert not litter(series)


def test_damage_is_told_step_by_step() -> None:
    series = made(2)
    # step1 depends on step0; the copies depend on both.
    file = Path("run", series.ls()[2].file)
    assert series.ls()[2].name == "fp32.step1"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    report = series.verify()
    assert set(report.failures) == {"fp32.step1", "bf16.step1"}
    assert all(isinstance(error, FormatError) for error in report.failures.values())
    Path("out").write_bytes(b"before")
    with pytest.raises(FormatError):
        series.restore("fp32.step1", "out")
    assert Path("out").read_bytes() == b"before"
    with pytest.raises(FormatError):
        series.drop("fp32.step1")
    assert set(series.verify().failures) == {"fp32.step1", "bf16.step1"}
    file.write_bytes(data[:-1])
    with pytest.raises(Z4Error, match=r"has \d+ bytes"):
        series.restore("fp32.step1", "out")
    file.unlink()
    with pytest.raises(CorruptError, match="lacks a file"):
        series.restore("fp32.step1", "out")
    # What is damaged hinders nothing that does not need it.
    write(Path("in.safetensors"), "fp32", 2)
    assert series.add("in.safetensors", "fp32.step2")["base"] is None
    series.drop("bf16.step1")
    series.drop("fp32.step1")
    assert series.verify().ok


def test_another_file_in_the_place_of_a_step_is_refused() -> None:
    series = made(1)
    write(Path("in.safetensors"), "fp32", 0, run=7)
    other = Series.create("other")
    other.add("in.safetensors", "x")
    shutil.copy(Path("other", other.ls()[0].file), Path("run", series.ls()[0].file))
    nbytes = other.ls()[0].encoded_nbytes
    forge(lambda fields: fields["steps"][0].update(encoded_nbytes=nbytes))
    with pytest.raises(ChecksumError, match="were added"):
        series.restore("fp32.step0", "out")
    assert set(series.verify().failures) == {"fp32.step0", "bf16.step0"}
    # Who restores a step has given no base that could be the wrong one.
    with pytest.raises(ChecksumError, match=r"step 'bf16\.step0': .*base"):
        series.restore("bf16.step0", "out")
    assert not os.path.exists("out")


@pytest.mark.parametrize(
    "change", [{"original_nbytes": 5}, {"digest": "0" * 32}, {"encoded_nbytes": 5}]
)
def test_what_the_manifest_says_of_a_step_is_compared(change: dict[str, Any]) -> None:
    made(1)
    forge(lambda fields: fields["steps"][0].update(change))
    series = Series.open("run")
    with pytest.raises(FormatError, match=r"were added|has \d+ bytes"):
        series.restore("fp32.step0", "out")
    assert not os.path.exists("out")


def test_a_step_whose_base_is_not_its_own_is_no_base() -> None:
    series = made(1)
    Path("tiny.safetensors").write_bytes(checkpoint("empty", 0))
    other = Series.create("other")
    other.add("tiny.safetensors", "x")
    shutil.copy(Path("other", other.ls()[0].file), Path("run", series.ls()[0].file))
    nbytes = other.ls()[0].encoded_nbytes
    forge(lambda fields: fields["steps"][0].update(encoded_nbytes=nbytes))
    write(Path("in.safetensors"), "bf16", 1)
    assert series.add("in.safetensors", "bf16.step1")["base"] != "bf16.step0"
    assert set(series.verify().failures) == {"fp32.step0", "bf16.step0"}


def test_damage_at_the_end_of_a_chain_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delta could look again whether its base is the right one, and each of these again."""
    series = Series.create("run", max_depth=12)
    for step in range(12):
        write(Path("in.safetensors"), "fp32", step)
        series.add("in.safetensors", f"step{step}", keyframe=step == 0, verify=False)
    assert series.ls()[-1].depth == 11
    file = Path("run", series.ls()[0].file)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    reads = 0
    read = models.ZstnTensors.read

    def counted(self: models.ZstnTensors, k: int, begin: int, end: int) -> Any:
        nonlocal reads
        reads += 1
        return read(self, k, begin, end)

    monkeypatch.setattr(models.ZstnTensors, "read", counted)
    with pytest.raises(ChecksumError):
        series.restore("step11", "out")
    assert 1 <= reads <= 12


def test_a_manifest_beyond_all_measure_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made(1)
    monkeypatch.setattr("z4ai.series.manifest.MAX_NBYTES", 100)
    with pytest.raises(CorruptError, match="more than 100 bytes"):
        Series.open("run")
