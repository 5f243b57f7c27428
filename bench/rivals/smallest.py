"""The smallest file that a codec makes of a file, by any of the ways its users have.

Run inside a worker, by the interpreter of the codec's own environment. A *way* is a set of options
or of stock parts; each is restored and compared before its size counts. What a codec of buffers
cannot take (the header, tensors of other types, tensors that would grow) counts as it is, and its
index of tensors is not counted at all: what is said here is never worse than what a user gets.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

__all__ = ["WAYS", "smallest"]

WIDTHS = {"F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4}
WIDTHS |= {"BF16": 2, "F16": 2, "I16": 2, "U16": 2}


class Tensor(NamedTuple):
    code: str
    content: bytes


class File(NamedTuple):
    path: str
    raw: bytes
    header: bytes
    tensors: dict[str, Tensor]  # nothing if it is no safetensors

    def joined(self) -> dict[str, bytes]:
        """Return the tensors of each dtype as one buffer, in file order."""
        found: dict[str, list[bytes]] = {}
        for tensor in self.tensors.values():
            found.setdefault(tensor.code, []).append(tensor.content)
        return {code: b"".join(contents) for code, contents in found.items()}


def read(path: str) -> File:
    raw = Path(path).read_bytes()
    if not path.endswith(".safetensors"):
        return File(path, raw, raw, {})
    end = 8 + int.from_bytes(raw[:8], "little")
    entries = [(k, v) for k, v in json.loads(raw[8:end]).items() if k != "__metadata__"]
    tensors = {
        name: Tensor(t["dtype"], raw[end + t["data_offsets"][0] : end + t["data_offsets"][1]])
        for name, t in sorted(entries, key=lambda entry: entry[1]["data_offsets"][0])
    }
    return File(path, raw, raw[:end], tensors)


Coder = Callable[[str, bytes], int]  # (dtype, content) -> size
Build = Callable[[Any], Any]  # (compressor of OpenZL) -> graph


def of_buffers(file: File, coder: Coder) -> Iterator[tuple[str, int]]:
    """Yield the sizes with each tensor alone and with all of one dtype together."""
    plans = {"by tensor": [(t.code, t.content) for t in file.tensors.values()]}
    joined = file.joined()
    if len(joined) < len(file.tensors):
        plans["by dtype"] = list(joined.items())
    for plan, buffers in plans.items():
        total = len(file.header)
        for code, content in buffers:
            total += min(coder(code, content), len(content)) if content else 0
        if buffers:
            yield plan, total


# --- codecs of files --------------------------------------------------------------------------


def by_file(
    file: File,
    compress: Callable[[str, str], Any],
    decompress: Callable[[str, str], Any],
    *,
    tensors_only: bool = False,
) -> int:
    with tempfile.TemporaryDirectory() as folder:
        coded, back = f"{folder}/coded", f"{folder}/back.safetensors"
        compress(file.path, coded)
        decompress(coded, back)
        if tensors_only:
            same = read(back).tensors == file.tensors
        else:
            same = Path(back).read_bytes() == file.raw
        if not same:
            raise RuntimeError(f"{file.path} was not restored")
        return Path(coded).stat().st_size


def lmzip(file: File) -> Iterator[tuple[str, int]]:
    import lmz

    def decompress(src: str, dst: str) -> None:
        lmz.decompress(src, dst, workers=1, overwrite=True)

    for level in (1, 19):
        for shared in (False, True):

            def compress(src: str, dst: str, level: int = level, shared: bool = shared) -> None:
                lmz.compress(src, dst, workers=1, level=level, shared_tables=shared)

            yield f"level {level}{', shared' * shared}", by_file(file, compress, decompress)


def bigsmall(file: File) -> Iterator[tuple[str, int]]:
    import bigsmall

    if not file.tensors:
        return
    for grouped in (False, True):

        def compress(src: str, dst: str, grouped: bool = grouped) -> None:
            bigsmall.compress(src, dst, workers=1, progress=False, group_streams=grouped)

        def decompress(src: str, dst: str) -> None:
            bigsmall.decompress(src, dst, progress=False)

        name = "group streams" if grouped else "default"
        yield name, by_file(file, compress, decompress, tensors_only=True)


def zstandard(file: File) -> Iterator[tuple[str, int]]:
    import zstandard

    coded = zstandard.ZstdCompressor(level=19).compress(file.raw)
    if zstandard.ZstdDecompressor().decompress(coded) != file.raw:
        raise RuntimeError(f"{file.path} was not restored")
    yield "level 19", len(coded)


# --- codecs of buffers ------------------------------------------------------------------------


def zipnn(file: File) -> Iterator[tuple[str, int]]:
    import zipnn

    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F8_E4M3": "float8_e4m3fn"}
    names |= {"F8_E5M2": "float8_e5m2"}
    widths = {"bfloat16": 2, "float16": 2, "float32": 4}

    def coded(name: str, content: bytes) -> int:
        if len(content) % widths.get(name, 1):
            raise ValueError("no whole number of elements")
        codec = zipnn.ZipNN(input_format="byte", bytearray_dtype=name, threads=1)
        blob = bytes(codec.compress(bytearray(content)))  # it reorders its input in place
        if codec.decompress(blob) != content:
            raise RuntimeError(f"{name} was not restored")
        return len(blob)

    def tries(code: str, content: bytes) -> Iterator[int]:
        for name in [names[code]] if code in names else names.values():
            try:
                yield coded(name, content)
            except Exception as error:
                print(f"zipnn {name} on {code}: {error}", file=sys.stderr)

    def coder(code: str, content: bytes) -> int:
        return min(tries(code, content), default=len(content))

    yield from of_buffers(file, coder)
    # Its script for any file: the whole file as one buffer of one dtype.
    found = {names[t.code] for t in file.tensors.values() if t.code in names}
    for name in sorted(found or names.values()):
        try:
            yield f"whole file as {name}", coded(name, file.raw)
        except Exception as error:
            print(f"zipnn {name} on {file.path}: {error}", file=sys.stderr)


def openzl(file: File) -> Iterator[tuple[str, int]]:
    import numpy as np
    from openzl import ext

    graphs, nodes = ext.graphs, ext.nodes

    def generic(c: Any) -> Any:
        return graphs.Compress()(c)

    def entropy(c: Any) -> Any:
        return graphs.Entropy()(c)

    def zstd(c: Any) -> Any:
        return graphs.Zstd(compression_level=19)(c)

    def split(then: Build) -> Build:
        return lambda c: nodes.TransposeSplit()(c, then(c))

    def cut(node: str, fraction: Build) -> Build:
        return lambda c: getattr(nodes, node)()(c, fraction(c), entropy(c))

    def tokens(indices: Build) -> Build:
        node = nodes.TokenizeNumeric(sort=True)
        return lambda c: node(c, graphs.FieldLz()(c), indices(c))

    numeric: dict[str, Build] = {
        "generic": generic,
        "tokens, entropy": tokens(entropy),
        "tokens, generic": tokens(generic),
        "delta, generic": lambda c: nodes.DeltaInt()(c, generic(c)),
        "delta, split, entropy": lambda c: nodes.DeltaInt()(c, split(entropy)(c)),
        "split, entropy": split(entropy),
        "split, generic": split(generic),
    }
    integers = {**numeric, "split, zstd 19": split(zstd)}
    floats = {"BF16": "BFloat16", "F16": "Float16", "F32": "Float32"}
    serial: dict[str, Build] = {"generic": generic, "entropy": entropy, "zstd 19": zstd}

    def coded(build: Build, kind: Any, array: Any) -> int:
        compressor = ext.Compressor()
        compressor.select_starting_graph(build(compressor))
        context = ext.CCtx()
        context.ref_compressor(compressor)
        context.set_parameter(ext.CParam.FormatVersion, ext.MAX_FORMAT_VERSION)
        blob = context.compress([ext.Input(kind, array)])
        (output,) = ext.DCtx().decompress(blob)
        if output.content.as_nparray().tobytes() != array.tobytes():
            raise RuntimeError("was not restored")
        return len(blob)

    def tries(code: str, content: bytes) -> Iterator[int]:
        width = WIDTHS.get(code, 1)
        if width == 1 or len(content) % width:
            array, kind, ways = np.frombuffer(content, np.uint8), ext.Type.Serial, serial
        else:
            array, kind = np.frombuffer(content, f"<u{width}"), ext.Type.Numeric
            ways = dict(numeric if code in floats else integers)
            if code in floats:
                node = floats[code] + "Deconstruct"
                bodies: dict[str, Build] = {"entropy": entropy, "generic": generic}
                if code != "BF16":  # more than a byte of sign and fraction
                    bodies = {f"split, {k}": split(body) for k, body in bodies.items()}
                for name, body in bodies.items():
                    ways[f"float split, {name}"] = cut(node, body)
        for name, build in ways.items():
            try:
                yield coded(build, kind, array)
            except RuntimeError as error:
                print(f"openzl {name} on {code}: {str(error)[:80]!r}", file=sys.stderr)

    def coder(code: str, content: bytes) -> int:
        return min(tries(code, content), default=len(content))

    yield from of_buffers(file, coder)
    if not file.tensors:
        yield "serial", coder("U8", file.raw)


def pcodec(file: File) -> Iterator[tuple[str, int]]:
    import numpy as np
    from pcodec import ChunkConfig, ModeSpec, standalone

    def widened(content: bytes) -> Any:
        """Give bf16 as the fp32 that it is the upper half of."""
        return (np.frombuffer(content, "<u2").astype(np.uint32) << 16).view(np.float32)

    def words(kind: str) -> Callable[[bytes], Any]:
        return lambda content: np.frombuffer(content, kind)

    views = {
        "BF16": [words("<u2"), widened],
        "F16": [words("<f2"), words("<u2")],
        "F32": [words("<f4"), words("<u4")],
        "F64": [words("<f8"), words("<u8")],
        "I64": [words("<i8")],
        "I32": [words("<i4")],
        "I16": [words("<i2")],
        "I8": [words("i1")],
    }

    def tries(code: str, content: bytes) -> Iterator[int]:
        modes = ModeSpec.auto(), ModeSpec.try_dict()
        for make in views.get(code, [words("u1")]):
            array = make(content)
            for mode in modes:
                config = ChunkConfig(compression_level=12, mode_spec=mode, enable_8_bit=True)
                blob = standalone.simple_compress(array, config)
                if standalone.simple_decompress(blob).tobytes() != array.tobytes():
                    raise RuntimeError(f"{file.path} was not restored")
                yield len(blob)

    def coder(code: str, content: bytes) -> int:
        return min(tries(code, content), default=len(content))

    yield from of_buffers(file, coder)
    if not file.tensors:
        yield "bytes", coder("U8", file.raw)


WAYS: dict[str, Callable[[File], Iterator[tuple[str, int]]]] = {
    "zipnn": zipnn,
    "lmzip": lmzip,
    "bigsmall": bigsmall,
    "openzl": openzl,
    "pcodec": pcodec,
    "zstandard": zstandard,
}


def smallest(name: str, path: str) -> dict[str, Any]:
    """Return the size in bytes, the way that gave it, and the size of every way."""
    ways = dict(WAYS[name](read(path)))
    way = min(ways, key=lambda key: ways[key], default=None)
    return {"nbytes": ways[way] if way else None, "way": way, "ways": ways}
