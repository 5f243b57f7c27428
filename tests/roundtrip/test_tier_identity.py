"""What the tiers above fast write depends neither on threads nor on the instruction set."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import strategies
import tier_contents
from reference_writer import Tensor, safetensors_file, safetensors_header
from tier_features import CODECS, TRANSFORMS, features

import z4ai
from z4ai._fast import _dispatch
from z4ai._reference import decode_frame
from z4ai.safetensors import compress_bytes, decompress_bytes

HERE = Path(__file__).resolve().parent
ISAS = _dispatch.runnable()
THREADS = (1, 2, 7)
EFFORTS = ("balanced", "max")

#: Small ones of every kind: (dtype, kind, elements, seed).
SMALL = [
    (name, kind, 24 * 100, 2)
    for name in ("bf16", "fp16", "fp32", "fp8_e4m3", "int64")
    for kind in tier_contents.CONTENTS
]
SMALL += [
    (name, kind, 24 * 100, 2)
    for name in ("fp64", "int8", "int16", "int32")
    for kind in ("rows", "grid", "half_zeros", "palette_of_rows", "sorted_but_one", "turns")
]
SMALL += [("fp64", kind, 24 * 100, 2) for kind in ("one_other_value", "counting", "half_noise")]
#: Of several chunks: a model, and parts of chunks of 4 MiB.
LARGE = [
    ("bf16", "rows_and_columns", 256 * 6001, 3),
    ("fp16", "weights", 256 * 6001, 3),
    ("fp8_e4m3", "rows", 256 * 12_003, 3),
    ("bf16", "outliers", 256 * 6001, 3),
    ("fp32", "grid_of_rows", 256 * 4700, 3),
    ("fp32", "mostly_zeros", 256 * 4700, 3),
    ("fp32", "repeats_in_step", 256 * 4000, 3),
    ("int64", "sorted_integers", 600_000, 3),
    ("bf16", "eight_values", 256 * 9000, 3),
]
#: Several chunks under max cost seconds each: some will do.
LARGE_AT_MAX = {("bf16", "rows_and_columns"), ("fp32", "grid_of_rows")}

Case = tuple[str, str, int, int]


def content_of(case: Case) -> bytes:
    name, kind, n, seed = case
    return tier_contents.CONTENTS[kind](name, n, seed)


def frame_of(case: Case, effort: str, threads: int | None) -> bytes:
    shape = tier_contents.shape_of(case[0], case[2])
    return z4ai.compress(
        content_of(case), dtype=case[0], effort=effort, shape=shape, threads=threads
    )


def cases() -> list[tuple[Case, str]]:
    made = [(case, effort) for case in SMALL for effort in EFFORTS]
    for case in LARGE:
        made.append((case, "balanced"))
        if case[:2] in LARGE_AT_MAX:
            made.append((case, "max"))
    return made


def container_file() -> bytes:
    tensors = []
    for k, kind in enumerate(tier_contents.CONTENTS):
        for dtype, name in (("BF16", "bf16"), ("F32", "fp32"), ("I8", "int8")):
            data = tier_contents.CONTENTS[kind](name, 24 * (40 + k), k)
            tensors.append(Tensor(f"{name} {kind}", dtype, (24, 40 + k), data))
    data = tier_contents.rows("bf16", 4096 * 300, 1)
    tensors.append(Tensor("layer", "BF16", (4096, 300), data))
    return safetensors_file(safetensors_header(tensors), tensors)


@cache
def written() -> dict[Any, bytes]:
    """Frames by one thread and by this process's instruction set."""
    made: dict[Any, bytes] = {(case, effort): frame_of(case, effort, 1) for case, effort in cases()}
    for effort in EFFORTS:
        made["container", effort] = compress_bytes(container_file(), effort=effort, threads=1)
    return made


def compare(threads: int | None, wanted: dict[Any, bytes]) -> int:
    """Write everything again and read what has been written; -> how many were compared."""
    compared = 0
    for case, effort in cases():
        frame = wanted[case, effort]
        assert frame_of(case, effort, threads) == frame, (case, effort, threads)
        assert z4ai.decompress(frame, threads=threads) == content_of(case), (case, effort)
        compared += 1
    for effort in EFFORTS:
        packed = wanted["container", effort]
        assert compress_bytes(container_file(), effort=effort, threads=threads) == packed, effort
        assert decompress_bytes(packed, threads=threads) == container_file()
        compared += 1
    return compared


def test_the_cases_have_every_transform_and_codec() -> None:
    seen: set[str] = set()
    several = 0
    for case, effort in cases():
        frame = decode_frame(written()[case, effort]) if case in SMALL else None
        if frame is None:
            several += z4ai.info(written()[case, effort]).n_chunks > 1
        else:
            seen.update(features(frame))
    missing = TRANSFORMS | CODECS | {"model", "rows", "columns", "rows and columns"}
    assert missing <= seen, f"never written: {sorted(missing - seen)}"
    assert several >= 5, "frames of several chunks"
    assert z4ai.info(written()[LARGE[0], "balanced"]).n_chunks > 2


@pytest.mark.parametrize("threads", THREADS[1:])
def test_any_number_of_threads_writes_the_same_bytes(threads: int) -> None:
    assert compare(threads, written()) == len(cases()) + len(EFFORTS)


def test_every_instruction_set_writes_and_reads_the_same_bytes(tmp_path: Path) -> None:
    """In a process of its own each, since the choice falls at import."""
    with (tmp_path / "frames").open("wb") as file:
        pickle.dump(written(), file)
    program = (
        "import pickle, sys\n"
        "from z4ai._fast import _dispatch\n"
        "import test_tier_identity as test\n"
        "wanted = pickle.load(open(sys.argv[1], 'rb'))\n"
        "print(_dispatch.current(), test.compare(2, wanted))\n"
    )
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, sys.path)])
    said = {}
    for isa in ISAS:
        ran = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "frames")],
            env={**os.environ, "Z4AI_ISA": isa, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.returncode == 0, ran.stderr
        name, compared = ran.stdout.split()
        said[name] = int(compared)
    assert said == dict.fromkeys(_dispatch.runnable(), len(cases()) + len(EFFORTS))


@pytest.mark.parametrize("name", strategies.ARRAY_DTYPES)
def test_arrays_of_every_dtype_are_the_same_by_any_number_of_threads(name: str) -> None:
    row = strategies.ARRAY_DTYPES[name]
    raw = tier_contents.rows(name, 24 * 200 * max(1, row.item_nbytes // row.width), 1)
    if name == "bool":
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(raw, strategies.dtypes.numpy_dtype(row)).reshape(24, 200)
    for effort in EFFORTS:
        made = {z4ai.compress_array(array, effort=effort, threads=n) for n in (None, *THREADS)}
        assert len(made) == 1
