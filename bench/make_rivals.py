"""Make the environments of the rivals, one each: python make_rivals.py DIR [NAME...]."""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

PACKAGES = {
    "zipnn": ["zipnn==0.5.4", "torch==2.13.0"],
    "lmzip": ["lmzip[zstd]==1.3.0"],
    "bigsmall": ["bigsmall==4.0.0", "safetensors", "numpy"],
    "openzl": ["openzl==0.3.0", "numpy"],
    "pcodec": ["pcodec==1.1.0", "numpy"],
    "blosc2": ["blosc2==4.14.1"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    args = parser.parse_args()
    unknown = set(args.names) - set(PACKAGES)
    if unknown:
        parser.error(f"unknown {sorted(unknown)}: expected some of {sorted(PACKAGES)}")
    failed = []
    for name in args.names or PACKAGES:
        home = args.folder / name
        if not home.exists():
            venv.create(home, with_pip=True)
        python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
        command = [str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name]]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
        print(f"{name}: {'failed' if name in failed else python}")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
