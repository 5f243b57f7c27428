"""Coverage-guided fuzzing of everything that parses.

Targets are the files tests/fuzz/fuzz_*: those in C need clang with libFuzzer (Debian: `clang` and
`libclang-rt-*-dev`), those in Python need `atheris` from PyPI. What is missing is said, and the
other targets run. Each target runs for ten minutes (`--seconds`), from seeds made of small valid
frames and from tests/fuzz/corpus; what it learns stays in .fuzz/corpus. An input that breaks
something is written to tests/fuzz/corpus/TARGET, where the test suite replays it for ever: commit
it with the fix.

    make fuzz ARGS="chunk literals --seconds 60"
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "tests" / "fuzz"
WORK = Path(os.environ.get("Z4AI_FUZZ_DIR", ROOT / ".fuzz"))
# Behind what is installed, so that an installed z4ai is the one that is tested.
sys.path += [str(ROOT / "tests"), str(ROOT)]

C_FLAGS = ["-g", "-O1", "-std=c11", "-fno-strict-aliasing", "-fno-omit-frame-pointer"]
C_FLAGS += ["-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=undefined"]
MOST_INPUT_NBYTES = 1 << 14

C_TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.c"))
PYTHON_TARGETS = sorted(path.stem.removeprefix("fuzz_") for path in HERE.glob("fuzz_*.py"))


def load(target: str) -> ModuleType:
    """Import a Python target from its file."""
    spec = importlib.util.spec_from_file_location(f"fuzz_{target}", HERE / f"fuzz_{target}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeds_of_streams() -> list[bytes]:
    from records import RECORDS

    record = RECORDS["zstd"]
    made = []
    for k, plane in enumerate(record.planes.values()):
        head = bytes([k]) + len(plane).to_bytes(3, "little")
        made += [head + encoder(plane) for encoder in record.encoders.values()]
    return [seed for seed in made if len(seed) < MOST_INPUT_NBYTES]


def seeds_of_planes() -> list[bytes]:
    from records import EDGE_PLANES

    planes = [plane for plane in EDGE_PLANES.values() if len(plane) < MOST_INPUT_NBYTES]
    settings = [(255, 0), (0, 130), (9, 255)]
    return [bytes(setting) + plane for setting in settings for plane in planes]


def seeds_of_chunks() -> list[bytes]:
    from frames import samples

    from z4ai import _reference

    made = []
    for sample in samples().values():
        frame = _reference.decode_frame(sample.frame)
        for chunk in frame.chunks[:2]:
            head = bytes([chunk.transform | frame.header.big_endian << 4])
            head += chunk.content_nbytes.to_bytes(3, "little")
            for stream in chunk.streams:
                head += bytes([stream.codec]) + len(stream.encoded).to_bytes(2, "little")
            streams = b"".join(stream.encoded for stream in reversed(chunk.streams))
            made.append(head + streams + chunk.tail)
    return made


def seeds_of_symbols() -> list[bytes]:
    import symbols_cases
    from symbols_writer import KINDS, fit

    from z4ai import _reference
    from z4ai._reference.symbols import parse_params

    made = []
    for number, (transform, kind) in enumerate(KINDS.items()):
        for name in symbols_cases.MODELS:
            model = symbols_cases.model_for(name, transform)
            if model.period >= 1 << 16:
                continue
            big = kind.width > 1 and len(made) % 3 == 0
            content = symbols_cases.weights(150 + len(made) % 64, transform)
            codecs = ("store", "zstd")[len(made) % 2]
            frame = symbols_cases.encode(
                content, transform, model=model, codecs=codecs, big_endian=big
            )
            (chunk,) = _reference.decode_frame(frame).chunks
            elements = content
            if big:
                elements = _reference.planes.swap_bytes(content, kind.width)
            fitted = fit(model, [(transform, elements, 0)])
            parts = [fitted.tables, fitted.rare_table or b"", fitted.class_table or b""]
            columns = bytes(model.columns or ())[:255]
            has = (model.rows is not None) | (model.columns is not None) << 1
            has |= (model.rare is not None) << 2
            params = parse_params(chunk.params)
            escape = model.escape if model.rare is not None else 0
            head = struct.pack(
                "<BBBHH",
                number | big << 3,
                has | model.shift << 3,
                escape,
                model.base,
                model.period if has & 3 else 0,
            )
            head += len(content).to_bytes(3, "little") + bytes(4) + struct.pack("<4H", *params)
            head += struct.pack("<3HB", *map(len, parts), len(columns))
            for stream in reversed(chunk.streams):
                head += struct.pack("<BH", stream.codec, len(stream.encoded))
            streams = b"".join(stream.encoded for stream in reversed(chunk.streams))
            made.append(head + b"".join(parts) + columns + streams + chunk.tail)
    return made


def seeds_of_differences() -> list[bytes]:
    import numpy as np
    from differences_writer import Model, encode, fit

    made = []
    choices = [
        Model(),
        Model(floats=False),
        Model(below=3, top=60, contexts=20, shift=1),
        Model(period=16, rows=lambda row: row % 5, contexts=5),
        Model(rare=range(9, 200), escape=10),
        Model(below=2, top=99, contexts=30, period=20, rows=lambda row: row, rare=[1], escape=1),
    ]
    for kind, width in enumerate((1, 2, 4, 8)):
        for k, model in enumerate(choices):
            n = 150 + 9 * k
            rng = np.random.default_rng(k)
            pattern = rng.integers(0, 256, 24, dtype=np.uint8)
            reference = np.resize(pattern, n * width)
            content = reference.copy()
            t = content.view(f"<u{width}")
            t[::3] += rng.integers(0, 1 << (2 * width), len(t[::3]), dtype=np.uint64).astype(
                t.dtype
            )
            fitted = fit(model, content, reference, width)
            chunk = encode(fitted, content, reference, width)
            with_rare, with_rows = model.escape is not None, model.rows is not None
            tables, rare, classes = fitted.written()
            parts = [tables, rare if with_rare else b"", classes if with_rows else b""]
            has = 8 * model.floats | with_rows | with_rare << 2
            head = struct.pack(
                "<BBBBHH",
                kind,
                has | model.shift << 4,
                model.escape or 0,
                model.below,
                model.top,
                model.period,
            )
            head += len(content).to_bytes(3, "little") + bytes(4)
            head += struct.pack("<4H", chunk.rows_nbytes, chunk.rare_nbytes, chunk.n_rare, 0)
            head += struct.pack("<3H", *map(len, parts))
            head += struct.pack("<3H", len(pattern), len(chunk.apart), len(chunk.symbols))
            made.append(head + b"".join(parts) + pattern.tobytes() + chunk.apart + chunk.symbols)
    return made


def seeds_of_contents() -> list[bytes]:
    from strategies import KINDS, make

    layouts = [1, 2, 4, 8, 2, 4, 8, 2]
    return [
        bytes([layout | big << 3, times]) + make(kind, 700 + layout, width, layout)
        for layout, width in enumerate(layouts)
        for kind in KINDS
        for big in (0, 1)
        for times in (0, 140)
    ]


C_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "literals": seeds_of_streams,
    "literals_round_trip": seeds_of_planes,
    "chunk": seeds_of_chunks,
    "chunk_round_trip": seeds_of_contents,
    "chunk_symbols": seeds_of_symbols,
    "chunk_difference": seeds_of_differences,
}


def seeds_of(target: str) -> list[bytes]:
    """Valid inputs to begin with."""
    made: list[bytes]
    made = C_SEEDS[target]() if target in C_SEEDS else list(load(target).seeds().values())
    return made


def find_clang() -> str | None:
    """Return the clang that links libFuzzer, if there is one."""
    for name in (os.environ.get("CLANG", "clang"), *(f"clang-{v}" for v in range(22, 12, -1))):
        if shutil.which(name) is None:
            continue
        probe = [name, "-fsanitize=fuzzer", "-x", "c", "-", "-o", os.devnull]
        code = "int LLVMFuzzerTestOneInput(const char *d, unsigned long n){return !d && n;}"
        if subprocess.run(probe, input=code.encode(), capture_output=True).returncode == 0:
            return name
    return None


def command_of(target: str, clang: str | None) -> list[str] | str:
    """Return the command that fuzzes a target, or what it lacks."""
    if target in PYTHON_TARGETS:
        if importlib.util.find_spec("atheris") is None:
            return "needs atheris: pip install atheris"
        return [sys.executable, str(HERE / f"fuzz_{target}.py")]
    if clang is None:
        return "needs clang with libFuzzer (Debian: apt install clang libclang-rt-dev), or CLANG"
    program = WORK / f"fuzz_{target}"
    include = ["-I", str(ROOT / "z4ai" / "_fast" / "c"), "-I", str(HERE)]
    source = str(HERE / f"fuzz_{target}.c")
    subprocess.run([clang, *C_FLAGS, *include, source, "-o", str(program)], check=True)
    return [str(program)]


def fuzz(target: str, command: list[str], seconds: int) -> bool:
    """Fuzz one target; return whether nothing broke."""
    corpus = WORK / "corpus" / target
    kept = HERE / "corpus" / target
    corpus.mkdir(parents=True, exist_ok=True)
    kept.mkdir(parents=True, exist_ok=True)
    for k, seed in enumerate(seeds_of(target)):
        (corpus / f"seed-{k}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", f"-max_len={MOST_INPUT_NBYTES}", "-timeout=20"]
    options += ["-rss_limit_mb=4096", "-print_final_stats=1", f"-artifact_prefix={kept}/"]
    path = os.pathsep.join([*filter(None, [os.environ.get("PYTHONPATH")]), str(ROOT / "tests")])
    if importlib.util.find_spec("z4ai") is not None:
        path += os.pathsep + str(ROOT)
    env = {**os.environ, "PYTHONPATH": path}
    ran = subprocess.run([*command, *options, str(corpus), str(kept)], env=env, check=False)
    return ran.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", help=", ".join(C_TARGETS + PYTHON_TARGETS))
    parser.add_argument("--seconds", type=int, default=600, help="time of each target")
    args = parser.parse_args()
    targets = args.targets or C_TARGETS + PYTHON_TARGETS
    unknown = set(targets) - set(C_TARGETS + PYTHON_TARGETS)
    if unknown:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    WORK.mkdir(parents=True, exist_ok=True)
    clang = find_clang()
    broken, skipped = [], []
    for target in targets:
        command = command_of(target, clang)
        if isinstance(command, str):
            print(f"{target}: {command}")
            skipped.append(target)
            continue
        print(f"{target}: {args.seconds} s", flush=True)
        if not fuzz(target, command, args.seconds):
            broken.append(target)
    if broken:
        print(f"broken: {', '.join(broken)}; the inputs are in {HERE / 'corpus'}")
    if skipped:
        print(f"not run: {', '.join(skipped)}")
    return 1 if broken or len(skipped) == len(targets) else 0


if __name__ == "__main__":
    raise SystemExit(main())
