"""Smallest sizes of rivals, kept in a JSON file: a file and a version are never measured twice."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.rivals import Missing, Worker

__all__ = ["RIVALS", "SizeCache"]

# Quick ones first.
RIVALS = ("bigsmall", "lmzip", "zipnn", "pcodec", "openzl", "zstandard")


class SizeCache:
    """Sizes by content (digest of the file), rival and its version."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.entries: dict[str, dict[str, Any]] = {}
        self._workers: dict[str, Worker] = {}
        if path is not None and path.exists():
            self.entries = json.loads(path.read_text())

    @staticmethod
    def key(name: str, content: bytes) -> str:
        """Return the key of a file: its name, and what it holds."""
        return f"{name} {hashlib.sha256(content).hexdigest()[:16]}"

    def sizes(self, key: str) -> dict[str, int]:
        """Return what is known: rival to its size, of rivals that take the file."""
        known = self.entries.get(key, {})
        return {rival: e["nbytes"] for rival, e in known.items() if e["nbytes"] is not None}

    def measure(
        self,
        key: str,
        path: Path,
        pythons: dict[str, str],
        names: Iterable[str] = RIVALS,
        base: Path | None = None,
    ) -> None:
        """Measure the rivals not yet known for `key`, the file at `path` or its delta to `base`."""
        for name in names:
            try:
                worker = self._workers.get(name) or Worker(name, pythons, threads=1)
            except Missing as error:
                print(f"left out: {error}", file=sys.stderr)
                continue
            self._workers[name] = worker
            known = self.entries.setdefault(key, {})
            if known.get(name, {}).get("version") == worker.version:
                continue
            start = time.perf_counter()
            try:
                found = worker.smallest_delta(path, base) if base else worker.smallest(path)
            except RuntimeError as error:
                print(f"{key}: {error}", file=sys.stderr)
                self._workers.pop(name)  # it may have ended
                continue
            seconds = round(time.perf_counter() - start, 2)
            known[name] = {"version": worker.version, **found, "seconds": seconds}
            print(f"{key} {name}: {found['nbytes']} ({found['way']}), {seconds} s", file=sys.stderr)
            self._write()

    def close(self) -> None:
        """End the workers."""
        for worker in self._workers.values():
            worker.close()
        self._workers.clear()

    def _write(self) -> None:
        if self.path is None:
            return
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(self.entries, indent=1) + "\n")
        partial.replace(self.path)
