"""Whatever the system refuses a writer, call by call: the series is as before, or as after."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from checkpoints import write
from series_runs import adding, configuring, contents, dropping, expected, litter, made

from z4ai.series import Series

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# --- The system fails -----------------------------------------------------------------------------

# What a writer asks of the system, and how much of it fails.
CALLS = ("write", "fsync", "replace", "open", "mkdir", "listdir", "unlink", "lstat", "close")


class Failing:
    """The functions of `os` fail from the n-th call on, once or for good."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, *, for_good: bool) -> None:
        self.count = 0
        self.at = at
        self.for_good = for_good
        self.failed: list[str] = []
        self.thread = threading.get_ident()
        for name in CALLS:
            patch.setattr(os, name, self._around(name, getattr(os, name)))

    def _around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def failing(*args: Any, **options: Any) -> Any:
            if threading.get_ident() != self.thread:
                return call(*args, **options)
            self.count += 1
            if self.count == self.at or (self.for_good and self.count > self.at):
                self.failed.append(name)
                if name == "close":  # closes nevertheless, as systems do
                    call(*args, **options)
                raise OSError(errno.ENOSPC, f"no room for {name}")
            if name != "fsync":  # slow, and no power is lost here
                return call(*args, **options)
            return None

        return failing


@posix
@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("change", [adding, dropping, configuring])
def test_whatever_fails_the_series_is_before_or_after(
    change: Callable[[Series], None], for_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(1)
    os.rename("run", "kept")
    write(Path("in.safetensors"), "fp32", 9)
    before, depth = contents("kept"), Series.open("kept").max_depth
    shutil.copytree("kept", "run")
    change(Series.open("run"))
    after = contents("run")
    outcomes = set()
    seen = set()
    for at in range(1, 1000):
        shutil.rmtree("run")
        shutil.copytree("kept", "run")
        series = Series.open("run")
        failed: OSError | None = None
        with monkeypatch.context() as patch:
            failing = Failing(patch, at, for_good=for_good)
            try:
                change(series)
            except OSError as error:
                failed = error
        seen.update(failing.failed)
        if not failing.failed:
            break
        # `series` once more: nothing of a failure is kept in memory.
        assert [s.name for s in series.ls()] == [s.name for s in Series.open("run").ls()]
        names = [step.name for step in series.ls()]
        done = names == list(after) and (before != after or series.max_depth != depth)
        assert done or (names == list(before) and series.max_depth == depth)
        if failed is None:
            assert done, f"call {at}: told to be done and is not"
        outcomes.add((failed is None, done))
        if for_good or at % 4 == 1:
            assert contents("run") == (after if done else before)
        # The next writer is not hindered, and cleans up.
        series.configure(max_depth=3)
        assert not litter(series), f"call {at}: {failing.failed}"
    else:
        pytest.fail("it never ends")
    assert (False, False) in outcomes
    assert {"write", "fsync", "replace", "open", "close"} <= seen


@posix
def test_a_failure_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    series = made(2)
    write(Path("in.safetensors"), "fp32", 9)
    for change in (adding, dropping):

        def full(*_: Any) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(OSError, match="No space left"):
                change(series)
        assert not litter(series)
    assert contents() == expected(list(contents()))
