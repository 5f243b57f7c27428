"""The smallest delta that a codec makes of a file against another, by any of the ways it has.

Run inside a worker, by the interpreter of the codec's own environment, as `smallest.py` is and by
the same rules: each way is restored and compared before its size counts, and what the codec makes
of the file alone is one of its ways. What it has no format for (an index, a header) costs nothing
beyond the header as it is.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import smallest
from smallest import File

__all__ = ["WAYS", "smallest_delta"]


class Pair(NamedTuple):
    target: File
    base: File


def _check(same: bool, way: str) -> None:
    if not same:
        raise RuntimeError(f"{way}: was not restored")


# --- lmzip: both in an archive ----------------------------------------------------------------


def lmzip(pair: Pair) -> Iterator[tuple[str, int]]:
    import lmz

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        both, coded, back = folder / "both", folder / "coded", folder / "back"
        both.mkdir()
        first, second = both / "a.safetensors", both / "b.safetensors"  # coded in this order

        def restored(way: str) -> int:
            lmz.decompress(str(coded), str(back), workers=1, overwrite=True)
            _check((back / second.name).read_bytes() == pair.target.raw, way)
            nbytes = coded.stat().st_size
            shutil.rmtree(back)
            coded.unlink()
            return nbytes

        for level in (1, 19):
            for shared in (False, True):
                way = f"level {level}{', shared' * shared}"
                options: dict[str, Any] = {"workers": 1, "level": level, "shared_tables": shared}
                second.unlink(missing_ok=True)
                if not first.exists():
                    shutil.copyfile(pair.base.path, first)
                lmz.compress(str(both), str(coded), **options)
                alone = coded.stat().st_size
                if not shared:  # its command for one more file
                    shutil.copyfile(pair.target.path, folder / second.name)
                    lmz.append(str(coded), str(folder / second.name), level=level, workers=1)
                    yield f"{way}, appended", restored(way) - alone
                coded.unlink(missing_ok=True)
                shutil.copyfile(pair.target.path, second)
                lmz.compress(str(both), str(coded), **options)
                yield way, restored(way) - alone
    yield from (("alone, " + way, nbytes) for way, nbytes in smallest.lmzip(pair.target))


# --- bigsmall ---------------------------------------------------------------------------------


def bigsmall(pair: Pair) -> Iterator[tuple[str, int]]:
    import bigsmall

    base = pair.base.path
    for force in (False, True):

        def compress(src: str, dst: str, force: bool = force) -> None:
            options: dict[str, Any] = {"force_delta": force, "smallest_wins": not force}
            bigsmall.compress_delta(src, base, dst, workers=1, progress=False, **options)

        def decompress(src: str, dst: str) -> None:
            bigsmall.decompress_delta(src, base, dst, progress=False)

        nbytes = smallest.by_file(pair.target, compress, decompress, tensors_only=True)
        yield "delta of all" if force else "delta", nbytes
    yield from (("alone, " + way, nbytes) for way, nbytes in smallest.bigsmall(pair.target))


# --- ZipNN: its XOR ---------------------------------------------------------------------------


def zipnn(pair: Pair) -> Iterator[tuple[str, int]]:
    import zipnn

    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    widths = {"bfloat16": 2, "float16": 2, "float32": 4}

    def coded(name: str, content: bytes, against: bytes) -> int:
        if len(content) % widths[name]:
            raise ValueError("no whole number of elements")
        options: dict[str, Any] = {"input_format": "byte", "bytearray_dtype": name, "threads": 1}
        codec = zipnn.ZipNN(delta_compressed_type="byte", **options)
        # its reordering is in place, of whatever it is given
        blob = bytes(codec.compress(bytearray(content), delta_second_data=bytes(against)))
        _check(codec.decompress(blob, delta_second_data=bytes(against)) == content, name)
        return len(blob)

    def coder(code: str, content: bytes, against: bytes | None) -> int:
        sizes = [len(content)]
        if against is not None and len(against) == len(content):
            try:
                sizes.append(coded(names.get(code, "bfloat16"), content, against))
            except Exception as error:
                print(f"zipnn on {code}: {error}", file=sys.stderr)
        return min(sizes)

    target, base = pair.target.tensors, pair.base.tensors
    total = len(pair.target.header)
    for name, tensor in target.items():
        like = base.get(name)
        against = like.content if like and like.code == tensor.code else None
        total += coder(tensor.code, tensor.content, against) if tensor.content else 0
    yield "by tensor", total
    total = len(pair.target.header)
    joined = pair.base.joined()
    for code, content in pair.target.joined().items():
        total += coder(code, content, joined.get(code))
    yield "by dtype", total
    if len(pair.base.raw) == len(pair.target.raw):  # its script for files
        for code in sorted({tensor.code for tensor in target.values()} & set(names)):
            yield f"whole file as {names[code]}", coder(code, pair.target.raw, pair.base.raw)
    yield from (("alone, " + way, nbytes) for way, nbytes in smallest.zipnn(pair.target))


# --- Zstandard: --patch-from ------------------------------------------------------------------


def zstandard(pair: Pair) -> Iterator[tuple[str, int]]:
    yield "level 19, base as dictionary", _dictionary(pair)
    if not shutil.which("zstd"):
        return
    with tempfile.TemporaryDirectory() as folder:
        coded, back = Path(folder) / "coded", Path(folder) / "back"
        target = Path(folder) / "target"  # it refuses a file that is its base
        shutil.copyfile(pair.target.path, target)
        patch = ["zstd", "-q", "-f", "--long=31", f"--patch-from={pair.base.path}"]
        for options in (["-19", "--single-thread"], ["-19"], ["-3"]):  # 3: of what hardly differs
            make = [*patch, *options, str(target), "-o", str(coded)]
            subprocess.run(make, check=True)
            undo = [*patch, "-d", "--memory=2048MB", str(coded), "-o", str(back)]
            subprocess.run(undo, check=True)
            _check(back.read_bytes() == pair.target.raw, "zstd --patch-from")
            yield " ".join([*options, "--patch-from"]), coded.stat().st_size


def _dictionary(pair: Pair) -> int:
    """Do what the command does: the base as what comes before, in a window over both."""
    import zstandard as library

    window = max(27, (len(pair.target.raw) + len(pair.base.raw)).bit_length())
    kind = library.DICT_TYPE_RAWCONTENT
    given = library.ZstdCompressionDict(pair.base.raw, dict_type=kind)
    parameters = library.ZstdCompressionParameters.from_level(
        19, window_log=min(window, 31), enable_ldm=True, source_size=len(pair.target.raw)
    )
    coder = library.ZstdCompressor(dict_data=given, compression_params=parameters)
    blob = coder.compress(pair.target.raw)
    decoder = library.ZstdDecompressor(dict_data=given, max_window_size=1 << 31)
    _check(decoder.decompress(blob) == pair.target.raw, "zstandard")
    return len(blob)


WAYS: dict[str, Callable[[Pair], Iterator[tuple[str, int]]]] = {
    "bigsmall": bigsmall,
    "lmzip": lmzip,
    "zipnn": zipnn,
    "zstandard": zstandard,
}


def smallest_delta(name: str, target: str, base: str) -> dict[str, Any]:
    """Return the size in bytes, the way that gave it, and the size of every way."""
    ways = dict(WAYS[name](Pair(smallest.read(target), smallest.read(base))))
    way = min(ways, key=lambda key: ways[key], default=None)
    return {"nbytes": ways[way] if way else None, "way": way, "ways": ways}
