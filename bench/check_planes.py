"""Decode every plane of every frame of a corpus with stock zstandard, and compare.

    python bench/check_planes.py DIR [--effort fast] [--only GLOB]

Each tensor becomes a frame. A stream coded as Zstandard is given to the `zstandard` package, and
what comes out is compared with that plane as NumPy cuts it from the tensor. The frame is walked by
z4ai; neither its decoder nor its split takes part.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np
import zstandard

import z4ai
from bench import data, measure
from z4ai._reference import planes as reference
from z4ai.codecs import CODECS, ZSTD
from z4ai.decoder import index_of_buffer, jobs_of_chunks
from z4ai.dtypes import resolve
from z4ai.options import DEFAULT_LIMITS

LAYOUTS = tuple(reference.LAYOUTS)


def check(content: bytes, blob: bytes, counts: Counter[str]) -> None:
    """Check the Zstandard streams of one frame of `content`; count its streams by codec."""
    view = memoryview(blob)
    index = index_of_buffer(view, DEFAULT_LIMITS)
    jobs = jobs_of_chunks(view, index, 0, index.n_chunks)
    stock = zstandard.ZstdDecompressor()
    for job in jobs:
        n_streams = int(job["n_streams"])
        start, nbytes = int(job["content_offset"]), int(job["content_nbytes"])
        whole = nbytes - nbytes % n_streams
        planes = reference.split(content[start : start + whole], LAYOUTS[int(job["layout"])])
        if len(planes) != n_streams:
            raise SystemExit(f"chunk at {start}: {n_streams} streams of {len(planes)} planes")
        for k, plane in enumerate(planes):
            codec = int(job["stream_codec"][k])
            counts[CODECS[codec]] += 1
            if codec != ZSTD:
                continue
            at, size = int(job["stream_offset"][k]), int(job["stream_nbytes"][k])
            if stock.decompress(view[at : at + size], max_output_size=len(plane)) != plane:
                raise SystemExit(f"chunk at {start}, plane {k}: zstandard restores other bytes")
            counts["zstd bytes"] += len(plane)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--effort", default="fast")
    parser.add_argument("--only", default="*", help="glob of file names, without the suffix")
    args = parser.parse_args()
    folder = args.folder / "st" if (args.folder / "st").is_dir() else args.folder
    lines = []
    total: Counter[str] = Counter()
    for path in sorted(folder.glob(f"{args.only}.safetensors")):
        counts: Counter[str] = Counter()
        raw = np.memmap(path, np.uint8, "r")
        for _, code, _, start, end in data.tensors(path):
            try:
                dtype = resolve(code).name
            except ValueError:
                dtype = None
            content = raw[start:end].tobytes()
            check(content, z4ai.compress(content, dtype=dtype, effort=args.effort), counts)
            counts["frames"] += 1
        total += counts
        columns = ("frames", "zstd", "store", "constant", "zstd bytes")
        lines.append([path.name.removesuffix(".safetensors"), *(str(counts[c]) for c in columns)])
    measure.print_table(["", "frames", "zstd", "stored", "constant", "bytes by zstd"], lines)
    print(f"zstandard {zstandard.__version__} restored all {total['zstd']} planes")
    return 0 if total["zstd"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
