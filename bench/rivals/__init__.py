"""Codecs run side by side, each in a worker process of its own environment.

Which interpreter runs a codec comes from ``--python NAME=PATH`` or from the environment variable
``Z4AI_BENCH_NAME`` (``Z4AI_BENCH_ZIPNN=/path/to/venv/bin/python``), or from the folder that
``make_rivals.py`` filled (``--rivals DIR`` or ``Z4AI_BENCH_RIVALS``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Missing", "Sample", "Worker", "add_options", "pythons"]

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

# Run by the interpreter that runs the benchmark: they are installed beside z4ai.
OURS = ("z4ai", "zstandard", "memcpy")
NAMES = ("zipnn", "lmzip", "bigsmall", "openzl", "pcodec", "blosc2")

# glibc: results of any size stay in the heap and their pages are given again, already mapped.
RECYCLE = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}


class Missing(RuntimeError):
    """No interpreter has this codec."""


@dataclass(frozen=True)
class Sample:
    """One timed call."""

    seconds: float
    cpu_seconds: float
    faults: int
    encoded_nbytes: int


class Worker:
    """A codec in a process of its own.

    Parameters
    ----------
    name : str
        Name of the adapter.
    pythons : dict of str to str
        Interpreter of each rival.
    recycle : bool
        Keep freed memory mapped, so that outputs land on warm pages.
    isa : str, optional
        Instruction set that z4ai must use; RuntimeError where it cannot run.
    options
        Passed to the adapter, such as ``threads=1`` or ``effort="fast"``.
    """

    def __init__(
        self,
        name: str,
        pythons: dict[str, str],
        *,
        recycle: bool = False,
        isa: str | None = None,
        **options: Any,
    ) -> None:
        python = sys.executable if name in OURS else pythons.get(name)
        if python is None:
            raise Missing(f"no interpreter for {name}: --python {name}=PATH or --rivals DIR")
        env = {**os.environ, **(RECYCLE if recycle else {})}
        if isa is not None:
            env["Z4AI_ISA"] = isa
        if name in OURS:  # after what is installed: the source tree, as for the benchmark itself
            env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
        else:
            env.pop("PYTHONPATH", None)
        self.name = name
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), name, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )
        hello = self._receive()
        self.version: str = hello["version"]
        self.ops: list[str] = hello["ops"]

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: worker ended with status {self._process.wait()}")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RuntimeError(f"{self.name}: {reply['error']}")
        return reply

    def _ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._receive()

    def load(self, path: str | Path, dtype: str) -> int:
        """Read the input from `path`, encode it once, untimed; return the encoded size."""
        nbytes: int = self._ask("load", path=str(path), dtype=dtype)["encoded_nbytes"]
        return nbytes

    def load_pair(self, target: str | Path, base: str | Path) -> None:
        """Read a target and its base, make the delta once, untimed."""
        self._ask("load_pair", target=str(target), base=str(base))

    def run(self, op: str, **arguments: Any) -> Sample:
        """Run one operation, timed in the worker; RuntimeError if it did not restore the input."""
        reply = self._ask(op, **arguments)
        if reply.get("same") is False:
            raise RuntimeError(f"{self.name}: {op} did not restore the input")
        return Sample(
            reply["seconds"], reply["cpu_seconds"], reply["faults"], reply.get("encoded_nbytes", 0)
        )

    def smallest(self, path: str | Path) -> dict[str, Any]:
        """Return the smallest file that the codec makes of the file: nbytes, way, ways."""
        return self._ask("smallest", path=str(path))

    def smallest_delta(self, target: str | Path, base: str | Path) -> dict[str, Any]:
        """Return the smallest delta that the codec makes of `target`: nbytes, way, ways."""
        return self._ask("smallest_delta", target=str(target), base=str(base))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the rivals are."""
    parser.add_argument(
        "--python", action="append", default=[], metavar="NAME=PATH", help="interpreter of a rival"
    )
    parser.add_argument(
        "--rivals",
        type=Path,
        default=os.environ.get("Z4AI_BENCH_RIVALS"),
        metavar="DIR",
        help="folder of environments made by make_rivals.py",
    )


def pythons(args: argparse.Namespace) -> dict[str, str]:
    """Return the interpreter of each rival that was found."""
    found: dict[str, str] = {}
    for name in NAMES:
        for sub in ("bin/python", "Scripts/python.exe"):
            if args.rivals and (Path(args.rivals) / name / sub).exists():
                found[name] = str(Path(args.rivals) / name / sub)
        if os.environ.get(f"Z4AI_BENCH_{name.upper()}"):
            found[name] = os.environ[f"Z4AI_BENCH_{name.upper()}"]
    for given in args.python:
        name, _, path = given.partition("=")
        if name not in NAMES or not path:
            raise SystemExit(
                f"--python {given}: expected NAME=PATH, NAME one of {', '.join(NAMES)}"
            )
        found[name] = path
    return found
