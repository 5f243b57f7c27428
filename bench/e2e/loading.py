"""Loading a state dict: compressed files against plain ones, and against ZipNN's loader.

    python bench/e2e/loading.py FOLDER MODEL.safetensors ... --rivals DIR     from page cache
    python bench/e2e/loading.py FOLDER --gigabytes 2                          a generated bf16 model
    python bench/e2e/loading.py FOLDER --gigabytes 2 --disk 1000 --disk 250   from a slow disk, cold
    python bench/e2e/loading.py FOLDER --pretrained DIR                       from_pretrained

Every load is made by a process of its own, which has torch and the loader imported before the clock
starts. Contenders take turns, round by round. In each the load ends with a touch of one byte of
every page of every tensor: a plain file is only mapped, so what it costs comes with the touch.
Memory is the growth of VmHWM during the load: of all resident pages, those of a mapped file too
(which the system can take back; `anonymous` says what it cannot). Before the first round each
contender's tensors are compared with those of the plain file, bit for bit.

The slow disk is a limit of the control group (`io.max`, or the throttle of blkio), which needs
root; the cache of the file is dropped before each load. Where it cannot be had, a model is printed
instead and called so: bytes read by the rate, and the time from page cache after that.

FOLDER takes the compressed files, and the generated model; all are removed unless --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench import measure, rivals

MIB = 1 << 20
MIN_ROUNDS = 5
PAGE = 4096
SLOWER_AT_MOST = 1.5
FASTER_THAN_ZIPNN = 2.0
GROUPS = Path("/sys/fs/cgroup")


@dataclass
class Lane:
    """One way to load one model, and what came out."""

    name: str
    kind: str
    path: Path
    threads: int
    python: str = sys.executable
    results: list[dict[str, Any]] = field(default_factory=list)

    def of(self, key: str) -> list[float]:
        return [result[key] for result in self.results]

    @property
    def best(self) -> float:
        return min(self.of("seconds"))

    @property
    def median(self) -> float:
        return statistics.median(self.of("seconds"))

    def times(self, other: Lane) -> tuple[float, float]:
        """How many times as long this takes: of the fastest rounds, and median of paired ones."""
        pairs = zip(self.of("seconds"), other.of("seconds"), strict=True)
        return self.best / other.best, statistics.median(a / b for a, b in pairs)


# --- The process that loads; the rest of the module is not used there ----------------------------


def memory() -> dict[str, int]:
    with open("/proc/self/status") as status:
        rows = (line.split() for line in status)
        return {r[0][:-1]: int(r[1]) * 1024 for r in rows if r[0][:3] in ("VmH", "VmR", "Rss")}


def read_so_far() -> tuple[int, int]:
    """Bytes asked for by calls, and bytes that came from the disk."""
    with open("/proc/self/io") as status:
        rows = dict(line.split(": ") for line in status)
    return int(rows["rchar"]), int(rows["read_bytes"])


def make_loader(kind: str, path: str, threads: int) -> Any:
    """Import what loads, and return a function that does."""
    import safetensors.torch

    if kind == "plain":
        return lambda: safetensors.torch.load_file(path)
    if kind == "copy":
        return lambda: {k: v.clone() for k, v in safetensors.torch.load_file(path).items()}
    if kind == "z4ai":
        import z4ai

        load_file = z4ai.load_file
        return lambda: load_file(path, threads=threads)
    if kind == "zipnn":
        import functools

        import zipnn.zipnn

        zipnn.zipnn.ZipNN = functools.partial(zipnn.zipnn.ZipNN, threads=threads)
        zipnn.zipnn_safetensors()

        def load() -> dict[str, Any]:
            # What safetensors.torch.load_file did when ZipNN was written: tensor by tensor.
            with safetensors.torch.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

        return load
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    if kind == "pretrained":
        return lambda: AutoModel.from_pretrained(path).state_dict()
    import z4ai

    z4ai.enable_hf()
    return lambda: AutoModel.from_pretrained(path, variant="z4ai").state_dict()


def touch(tensors: dict[str, Any]) -> int:
    import torch

    found = 0
    for tensor in tensors.values():
        flat = tensor.detach().reshape(-1).view(torch.uint8).numpy()
        found += int(flat[::PAGE].sum())
    return found


def drop(path: Path) -> None:
    """Drop what the system holds of a file, or of the files of a folder."""
    for file in [path] if path.is_file() else path.iterdir():
        handle = os.open(file, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def child(options: dict[str, Any]) -> dict[str, Any]:
    """Load once; runs in a process of its own."""
    import torch

    torch.set_num_threads(options["threads"])
    path = options["path"]
    load = make_loader(options["kind"], path, options["threads"])
    if options.get("group"):
        drop(Path(path))
        Path(options["group"], "cgroup.procs").write_text(str(os.getpid()))
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew
    asked, fetched = read_so_far()
    before = memory()
    cpu, start = time.process_time(), time.perf_counter()
    tensors = load()
    loaded = time.perf_counter() - start
    touch(tensors)
    seconds = time.perf_counter() - start
    cpu = time.process_time() - cpu
    after = memory()
    asked, fetched = (b - a for a, b in zip((asked, fetched), read_so_far(), strict=True))
    result: dict[str, Any] = {"seconds": seconds, "loaded_seconds": loaded, "cpu_seconds": cpu}
    result["peak_nbytes"] = after["VmHWM"] - before["VmRSS"]
    result["anon_nbytes"] = after["RssAnon"] - before["RssAnon"]
    result["read_nbytes"] = asked + max(0, after["RssFile"] - before["RssFile"])
    result["fetched_nbytes"] = fetched
    if options.get("original"):
        result["same"] = same(tensors, options["original"])
    return result


def same(tensors: dict[str, Any], original: str) -> bool:
    """Compare names, dtypes, shapes and bytes with those of plain files."""
    import torch
    from safetensors import safe_open

    plain = Path(original)
    files = [plain] if plain.is_file() else sorted(plain.glob("*.safetensors"))
    expected: dict[str, Any] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            expected.update({name: opened.get_tensor(name) for name in opened.keys()})  # noqa: SIM118
    if plain.is_file() and tensors.keys() != expected.keys():
        return False
    for name in tensors.keys() & expected.keys():
        a, b = tensors[name].detach(), expected[name]
        if (a.dtype, a.shape) != (b.dtype, b.shape):
            return False
        a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
        if not torch.equal(a, b):
            return False
    return len(tensors.keys() & expected.keys()) > 0


def zipnn_file(src: str, dst: str) -> None:
    """Write a file as ZipNN's loader wants it; runs where ZipNN is."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file
    from zipnn import ZipNN
    from zipnn import util_safetensors as util

    tensors, infos = {}, {}
    with safe_open(src, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            tensor = file.get_tensor(name)
            tensors[name] = tensor
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            codec = ZipNN(
                input_format="torch",
                bytearray_dtype=util.COMPRESSED_DTYPE,
                method=util.COMPRESSION_METHOD,
            )
            blob = codec.compress(tensor.clone())  # it is reordered in place
            tensors[name] = torch.frombuffer(bytearray(blob), dtype=util.COMPRESSED_DTYPE)
            infos[name] = util.build_compressed_tensor_info(tensor)
    metadata = {"format": "pt"}
    util.set_compressed_tensors_metadata(infos, metadata)
    save_file(tensors, dst, metadata)


# --- Running them --------------------------------------------------------------------------------


def call(python: str, *arguments: str) -> str:
    env = dict(os.environ)
    env.pop("PYTHONPATH", None)
    if python == sys.executable:
        env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    command = [python, __file__, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env).stdout


def load(lane: Lane, **options: Any) -> dict[str, Any]:
    options = {"kind": lane.kind, "path": lane.path, "threads": lane.threads, **options}
    text = call(lane.python, "--child", json.dumps(options, default=str))
    result: dict[str, Any] = json.loads(text.splitlines()[-1])
    return result


def check(lanes: Sequence[Lane], original: Path) -> None:
    for lane in lanes:
        if not load(lane, original=original)["same"]:
            raise SystemExit(f"{lane.name}: not the tensors of {original}")


def take_turns(lanes: Sequence[Lane], rounds: int, **options: Any) -> None:
    for _ in range(rounds):
        for lane in lanes:
            lane.results.append(load(lane, **options))


def generate(path: Path, nbytes: int) -> None:
    """Write a bf16 model of about `nbytes`, layer by layer.

    Each matrix is a sum of two of four seeded Gaussian blocks, shifted by numbers of its own, and
    each of its rows has a scale of its own; a normal distribution again, and no two are alike.
    """
    import numpy as np

    from bench import data

    side = 2048
    blocks = [data.normals(7 + k, side * side).astype(np.float32) for k in range(4)]
    shapes: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (32768, side))]
    left = nbytes - 2 * 32768 * side
    layer = 0
    while left > 0:
        for name, rows in (("q_proj", 2048), ("k_proj", 512), ("o_proj", 2048), ("mlp.up", 8192)):
            shapes.append((f"model.layers.{layer}.{name}.weight", (rows, side)))
            left -= 2 * rows * side
        shapes.append((f"model.layers.{layer}.norm.weight", (side,)))
        layer += 1
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        step = 0
        for _, shape in shapes:
            rows = shape[0] if len(shape) > 1 else 1
            while rows:
                step += 1
                n = min(rows, side)
                a = np.roll(blocks[step % 4], 4099 * step)
                a += np.roll(blocks[(step + 1 + step % 3) % 4], 7919 * step)
                words = data.uniform_bits(step, side)[:n] >> np.uint64(54)
                scale = 0.01 + words.astype(np.float32) / 32768
                matrix = a.reshape(side, side)[:n] * scale[:, None]
                file.write(data.bf16(matrix).astype("<u2").tobytes())
                rows -= n
        file.flush()
        os.fsync(file.fileno())
    partial.rename(path)


# --- A disk of a given speed ---------------------------------------------------------------------


def device_of(path: Path) -> str:
    """Number of the whole disk on which a file is."""
    number = path.stat().st_dev
    entry = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not entry.exists():
        raise OSError(f"{path} is on no block device")
    entry = entry.resolve()
    if (entry / "partition").exists():
        entry = entry.parent
    return (entry / "dev").read_text().strip()


@contextmanager
def slow_disk(path: Path, rate: int) -> Iterator[Path]:
    """Make a control group whose processes read `rate` bytes a second; OSError where it cannot."""
    device = device_of(path)
    if (GROUPS / "cgroup.controllers").exists():
        home, knob, text = GROUPS, "io.max", f"{device} rbps={rate}"
    else:
        home, knob = GROUPS / "blkio", "blkio.throttle.read_bps_device"
        text = f"{device} {rate}"
    group = home / f"z4ai-bench-{os.getpid()}"
    group.mkdir()
    try:
        (group / knob).write_text(text)
        yield group
    finally:
        group.rmdir()


# --- Tables --------------------------------------------------------------------------------------


def ratio(pair: tuple[float, float]) -> str:
    return f"{pair[0]:.2f}, {pair[1]:.2f}"


def verdict(met: bool) -> str:
    return "met" if met else "not met"


def mib(values: Sequence[float]) -> str:
    return f"{max(values) / MIB:,.0f}"


def short(name: str) -> str:
    return name.removesuffix(".safetensors")


def lanes_of(model: Path, args: argparse.Namespace) -> list[Lane]:
    """Make the compressed files of a model, and say how each is loaded."""
    from z4ai.safetensors import compress_file

    lanes = [Lane("plain, touched", "plain", model, 1), Lane("plain, copied", "copy", model, 1)]
    for effort in args.efforts:
        small = args.folder / f"{short(model.name)}.{effort}.zstn"
        if not small.exists():
            compress_file(model, small, effort=effort)
        lanes += [Lane(f"z4ai {effort}, {n} t", "z4ai", small, n) for n in (1, 2)]
    python = rivals.pythons(args).get("zipnn")
    if python is None:
        print("left out: ZipNN: no interpreter (--rivals DIR)", file=sys.stderr)
        return lanes
    theirs = args.folder / f"{short(model.name)}.znn.safetensors"
    if not theirs.exists():
        call(python, "--zipnn-file", str(model), str(theirs))
    return lanes + [Lane(f"ZipNN, {n} t", "zipnn", theirs, n, python) for n in (1, 2)]


def from_cache(models: Sequence[Path], args: argparse.Namespace) -> dict[str, list[Lane]]:
    """Load each model from page cache in every way."""
    found: dict[str, list[Lane]] = {}
    table, goals = [], []
    for model in models:
        lanes = lanes_of(model, args)
        check(lanes, model)
        take_turns(lanes, args.rounds)
        found[short(model.name)] = lanes
        plain = lanes[0]
        nbytes = model.stat().st_size
        limit = nbytes * 1.1 + 64 * MIB
        for lane in lanes:
            cells = [short(model.name), lane.name, f"{lane.path.stat().st_size:,}"]
            cells += [f"{lane.best * 1e3:,.0f}", f"{lane.median * 1e3:,.0f}"]
            cells.append("–" if lane is plain else ratio(lane.times(plain)))
            cores = [a / b for a, b in zip(lane.of("cpu_seconds"), lane.of("seconds"), strict=True)]
            cells.append(f"{statistics.median(cores):.1f}")
            cells += [mib(lane.of("peak_nbytes")), mib(lane.of("anon_nbytes"))]
            cells.append(f"{min(lane.of('read_nbytes')) / 1e6:,.0f}")
            table.append(cells)
        for lane in lanes:
            if lane.kind != "z4ai":
                continue
            name = f"{short(model.name)}, {lane.name}"
            if lane.threads == 2:
                times = lane.times(plain)
                met = verdict(max(times) <= SLOWER_AT_MOST)
                goals.append([name, "time / plain", f"≤ {SLOWER_AT_MOST}", ratio(times), met])
            for theirs in lanes:
                if theirs.kind == "zipnn" and theirs.threads == lane.threads:
                    fast = (1 / lane.times(theirs)[0], 1 / lane.times(theirs)[1])
                    met = verdict(min(fast) >= FASTER_THAN_ZIPNN)
                    aim = f"≥ {FASTER_THAN_ZIPNN:g}"
                    goals.append([name, "times faster than ZipNN", aim, ratio(fast), met])
            peak = max(lane.of("peak_nbytes"))
            met = verdict(peak <= limit)
            goals.append([name, "peak, MiB", f"≤ {limit / MIB:,.0f}", f"{peak / MIB:,.0f}", met])
    head = ["model", "loader", "file, B", "best, ms", "median, ms"]
    head += ["/ plain: of best, paired", "cores", "peak, MiB", "anonymous, MiB", "read, MB"]
    measure.print_markdown(head, table, "loading", args.into)
    head = ["", "what", "aim", "of best, paired", ""]
    measure.print_markdown(head, goals, "loading aims", args.into)
    return found


def from_disk(model: Path, cached: list[Lane], args: argparse.Namespace) -> dict[str, Any]:
    """Load from a cold cache at given rates; a model where the rate cannot be set."""
    table = []
    results: dict[str, Any] = {}
    known = {lane.name: lane for lane in cached}
    wanted = [cached[0], *(lane for lane in cached if lane.threads == 2)]
    for rate in args.disk:
        lanes = [Lane(x.name, x.kind, x.path, x.threads, x.python) for x in wanted]
        try:
            with slow_disk(model, rate * 1_000_000) as group:
                take_turns(lanes, args.disk_rounds, group=group)
        except OSError as error:
            print(f"no limit of {rate} MB/s: {error}; a model instead", file=sys.stderr)
        results[str(rate)] = lanes
        for lane in lanes:
            read = lane.path.stat().st_size
            modelled = read / (rate * 1e6) + known[lane.name].median
            plain = model.stat().st_size / (rate * 1e6) + known[wanted[0].name].median
            cells = [f"{rate:,} MB/s", lane.name, f"{modelled:.2f}", f"{modelled / plain:.2f}"]
            if lane.results:
                fetched = statistics.median(lane.of("fetched_nbytes")) / 1e6
                cells += [f"{fetched:,.0f}", f"{lane.best:.2f}", f"{lane.median:.2f}"]
                times = lane.times(lanes[0])
                cells.append("–" if lane.kind == "plain" else ratio(times))
            else:
                cells += ["–"] * 4
                times = (modelled / plain,) * 2
            met = verdict(max(times) < 1) if lane.kind == "z4ai" else ""
            table.append([*cells, met])
    head = ["disk", "loader", "model, s", "model / plain", "read, MB", "best, s", "median, s"]
    head += ["/ plain: of best, paired", "faster than plain"]
    measure.print_markdown(head, table, "loading cold", args.into)
    return results


def pretrained(folder: Path, args: argparse.Namespace) -> list[Lane]:
    """from_pretrained of a plain and a compressed model: time and peak memory."""
    import z4ai

    with tempfile.TemporaryDirectory(dir=args.folder, prefix="z4ai-bench-") as name:
        small = Path(name) / "model"
        z4ai.compress_model(folder, small)
        lanes = [Lane("plain", "pretrained", folder, 2), Lane("z4ai", "pretrained z4ai", small, 2)]
        check(lanes, folder)
        take_turns(lanes, args.rounds)
        nbytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    plain, ours = lanes
    limit = max(plain.of("peak_nbytes")) + nbytes * 0.1 + 64 * MIB
    table = []
    for lane in lanes:
        cells = [folder.name, lane.name, f"{lane.best * 1e3:,.0f}", f"{lane.median * 1e3:,.0f}"]
        cells.append("–" if lane is plain else ratio(lane.times(plain)))
        cells += [mib(lane.of("peak_nbytes")), mib(lane.of("anon_nbytes"))]
        met = verdict(max(ours.of("peak_nbytes")) <= limit)
        cells.append("" if lane is plain else f"≤ {limit / MIB:,.0f}: {met}")
        table.append(cells)
    head = ["model", "files", "best, ms", "median, ms", "/ plain: of best, paired"]
    head += ["peak, MiB", "anonymous, MiB", "aim"]
    measure.print_markdown(head, table, "from_pretrained", args.into)
    return lanes


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(json.loads(sys.argv[2]))))
        return 0
    if sys.argv[1:2] == ["--zipnn-file"]:
        zipnn_file(*sys.argv[2:4])
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="takes files while it runs")
    parser.add_argument("models", type=Path, nargs="*", help="plain .safetensors files")
    parser.add_argument("--gigabytes", type=float, help="generate a bf16 model of that size")
    parser.add_argument("--effort", action="append", dest="efforts", help="only these")
    parser.add_argument("--disk", type=int, action="append", default=[], metavar="MB/S")
    parser.add_argument("--disk-rounds", type=int, default=3, help="rounds of --disk")
    parser.add_argument("--pretrained", type=Path, metavar="DIR", help="a model of transformers")
    parser.add_argument("--rounds", type=int, default=MIN_ROUNDS, help="rounds, at least 5")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there too")
    parser.add_argument("--keep", action="store_true", help="keep the files in FOLDER")
    measure.into_option(parser)
    rivals.add_options(parser)
    args = parser.parse_args()
    if args.rounds < MIN_ROUNDS:
        parser.error(f"at least {MIN_ROUNDS} rounds")
    args.efforts = args.efforts or ["fast", "default"]
    ours = not args.folder.exists()
    args.folder.mkdir(parents=True, exist_ok=True)
    before = set(args.folder.iterdir())
    found: dict[str, Any] = {"load_average_before": os.getloadavg()}
    try:
        models = list(args.models)
        if args.gigabytes:
            generated = args.folder / f"generated-{args.gigabytes:g}gb.safetensors"
            if not generated.exists():
                print(f"writing {generated}", file=sys.stderr)
                generate(generated, int(args.gigabytes * 1e9))
            models.append(generated)
        if models:
            found["cache"] = from_cache(models, args)
            os.sync()  # what is not written yet stays in the cache
            if args.disk:
                lanes = found["cache"][short(models[-1].name)]
                found["disk"] = from_disk(models[-1], lanes, args)
        if args.pretrained:
            found["pretrained"] = pretrained(args.pretrained, args)
    finally:
        if not args.keep:
            for path in set(args.folder.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            if ours:
                args.folder.rmdir()
    found["load_average_after"] = os.getloadavg()
    print(f"load average: {found['load_average_before'][0]:.1f} before, ", end="")
    print(f"{found['load_average_after'][0]:.1f} after")
    results = json.loads(json.dumps(found, default=lambda x: {**vars(x), "path": str(x.path)}))
    measure.write_json(args.json, {"benchmark": "loading", **results})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
