"""The smallest archive that lmzip makes of a folder, by any of the ways it has.

Run by the interpreter of lmzip's own environment: `python archive.py FOLDER` prints one JSON
object: for each way the bytes of the archive, and the seconds of making it and of restoring all.
Each archive is restored and compared before it counts. Files are coded in the order of their
names, the way the folder gives them, or appended one by one as a run would; each against what its
planner finds.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def measure(folder: Path, make: Callable[[Path, Path], None]) -> dict[str, Any]:
    """Make an archive, restore and compare it."""
    import lmz

    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        coded, back = Path(name) / "coded", Path(name) / "back"
        start = time.perf_counter()
        make(folder, coded)
        made = time.perf_counter()
        lmz.decompress(str(coded), str(back), workers=1, overwrite=True)
        done = time.perf_counter()
        for path in folder.iterdir():
            if (back / path.name).read_bytes() != path.read_bytes():
                raise RuntimeError(f"{path.name}: was not restored")
        nbytes = coded.stat().st_size
        return {"nbytes": nbytes, "make": made - start, "restore": done - made}


def ways() -> dict[str, Callable[[Path, Path], None]]:
    """Return what makes an archive, by name."""
    import lmz

    found: dict[str, Callable[[Path, Path], None]] = {}
    for level in (1, 19):
        for shared in (False, True):

            def at_once(
                folder: Path, coded: Path, level: int = level, shared: bool = shared
            ) -> None:
                options: dict[str, Any] = {"level": level, "shared_tables": shared}
                lmz.compress(str(folder), str(coded), workers=1, **options)

            found[f"level {level}{', shared' * shared}"] = at_once

        def one_by_one(folder: Path, coded: Path, level: int = level) -> None:
            with tempfile.TemporaryDirectory(dir=folder.parent) as name:
                first = Path(name) / "first"
                first.mkdir()
                paths = sorted(folder.iterdir())
                shutil.copyfile(paths[0], first / paths[0].name)
                lmz.compress(str(first), str(coded), workers=1, level=level)
            for path in paths[1:]:
                lmz.append(str(coded), str(path), workers=1, level=level)

        found[f"level {level}, appended"] = one_by_one
    return found


def main() -> None:
    import lmz

    folder = Path(sys.argv[1]).resolve()
    results: dict[str, Any] = {"version": lmz.__version__, "ways": {}}
    for way, make in ways().items():
        try:
            results["ways"][way] = measure(folder, make)
        except Exception as error:
            print(f"lmzip, {way}: {type(error).__name__}: {error}", file=sys.stderr)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
