"""The choice of the instruction set: once, at import, and forced by the environment."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from z4ai._fast import _dispatch

SHOW = "from z4ai._fast import _dispatch, planes; print(_dispatch.current(), planes.picked())"


def run(code: str, isa: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "Z4AI_ISA"}
    if isa is not None:
        env["Z4AI_ISA"] = isa
    return subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False
    )


def test_scalar_always_runs() -> None:
    assert _dispatch.runnable()[0] == "scalar"
    assert _dispatch.current() in _dispatch.runnable()


def test_the_codes_are_those_of_the_headers() -> None:
    known = {"scalar": 0, "avx2": 1, "avx512": 2, "neon": 3}
    assert {name: _dispatch.isa_code(name) for name in _dispatch.runnable()} == {
        name: code for name, code in known.items() if name in _dispatch.runnable()
    }


def test_what_runs_is_what_the_kernel_reports() -> None:
    if platform.machine() in {"aarch64", "arm64"}:
        assert _dispatch.runnable() == ("scalar", "neon")
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return
    with open("/proc/cpuinfo") as file:
        flags = next(line for line in file if line.startswith("flags")).split()
    avx2 = {"avx2", "bmi1", "bmi2", "abm", "popcnt"}
    avx512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512vbmi", "avx512_vbmi2"}
    expected = ["scalar"]
    if avx2 <= set(flags):
        expected.append("avx2")
        if avx512 <= set(flags):
            expected.append("avx512")
    assert list(_dispatch.runnable()) == expected


def test_the_best_is_taken_by_default() -> None:
    assert run(SHOW, None).stdout.split()[0] == _dispatch.runnable()[-1]
    assert run(SHOW, "").stdout.split()[0] == _dispatch.runnable()[-1]


@pytest.mark.parametrize("isa", _dispatch.runnable())
def test_the_environment_forces_one(isa: str) -> None:
    nearest = isa if isa != "neon" else "scalar"
    assert run(SHOW, isa).stdout.split() == [isa, nearest]


@pytest.mark.parametrize(
    "isa",
    ["mmx", "AVX2", "scalar ", "avx512" if platform.machine() in {"aarch64", "arm64"} else "neon"],
)
def test_the_environment_names_what_cannot_run(isa: str) -> None:
    result = run(SHOW, isa)
    assert result.returncode != 0
    assert "ValueError: Z4AI_ISA" in result.stderr
    assert f"runnable: {', '.join(_dispatch.runnable())}" in result.stderr


@pytest.mark.parametrize("name", ["mmx", "", "SCALAR"])
def test_an_unknown_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="runnable: scalar"):
        _dispatch.isa_code(name)
