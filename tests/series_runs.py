"""Small series in a folder ``run``, changes to them, and what they should hold."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from checkpoints import checkpoint, write

from z4ai.series import Series

__all__ = [
    "KINDS",
    "adding",
    "configuring",
    "contents",
    "dropping",
    "expected",
    "litter",
    "made",
]

KINDS = ("fp32", "bf16")


def made(n: int, **options: Any) -> Series:
    """A series in ``run`` of so many checkpoints of each kind."""
    series = Series.create("run", **options)
    for step in range(n):
        for kind in KINDS:
            write(Path("in.safetensors"), kind, step)
            series.add("in.safetensors", f"{kind}.step{step}")
    return series


def contents(path: str | Path = "run") -> dict[str, bytes]:
    """Everything that can be restored, by name."""
    series = Series.open(path)
    found = {}
    for step in series.ls():
        series.restore(step.name, "restored")
        found[step.name] = Path("restored").read_bytes()
    return found


def expected(names: list[str]) -> dict[str, bytes]:
    """What `contents` of steps of these names should be."""
    return {name: checkpoint(name.split(".")[0], int(name.partition("step")[2])) for name in names}


def litter(series: Series) -> set[str]:
    """Files in the folder that belong to nothing."""
    files = {step.file for step in series.ls()}
    half = {f".partial/{name}" for name in os.listdir(os.path.join(series.path, ".partial"))}
    return (set(os.listdir(series.path)) - files - {"series.json", ".lock", ".partial"}) | half


def adding(series: Series) -> None:
    series.add("in.safetensors", "new.step9")


def dropping(series: Series) -> None:
    series.drop("fp32.step0")


def configuring(series: Series) -> None:
    series.configure(max_depth=5)
