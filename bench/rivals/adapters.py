"""One adapter per codec: `encode`, `decode`, and where the codec has them `decode_into` and files.

`fresh` makes the input of one encode (for codecs that destroy it) and `keep` the blob that is
decoded; neither is timed. A codec of deltas has `open_pair`, `fresh_delta`, `encode_delta` and
`decode_delta`, of which the first two are not timed, nor are `delta_nbytes` and `restored`.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

__all__ = ["ADAPTERS", "Adapter", "make"]


class Adapter:
    """A codec with fixed options."""

    name = ""
    version = ""
    OPS = ("encode", "decode", "decode_into", "encode_file", "decode_file")
    OPS += ("encode_delta", "decode_delta")

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    def ops(self) -> list[str]:
        """Return the names of the operations that this codec has."""
        return [op for op in self.OPS if getattr(type(self), op, None) is not None]

    def open(self, dtype: str) -> None:
        """Prepare for data of a dtype; ValueError where the codec does not know it."""
        self.dtype = dtype

    def fresh(self, raw: bytes) -> Any:
        return raw

    def keep(self, blob: Any) -> Any:
        return blob

    encode: Any = None
    decode: Any = None
    decode_into: Any = None
    encode_file: Any = None
    decode_file: Any = None
    encode_delta: Any = None
    decode_delta: Any = None

    def open_pair(self, target: str, base: str) -> None:
        raise NotImplementedError

    def fresh_delta(self) -> Any:
        return None

    def delta_nbytes(self, result: Any) -> int:
        return len(result)

    def restored(self, result: Any) -> Any:
        return result


class Z4ai(Adapter):
    def __init__(self, threads: int = 1, effort: str = "fast", low_rank: bool = True) -> None:
        super().__init__(threads)
        import z4ai

        self.z4ai = z4ai
        self.effort = effort
        self.version = z4ai.__version__
        if not low_rank:  # deltas without the search for factors, to tell what it costs
            from z4ai import lowrank

            lowrank.find_factors = lambda *_: None

    def encode(self, raw: bytes) -> bytes:
        return self.z4ai.compress(raw, dtype=self.dtype, effort=self.effort, threads=self.threads)

    def decode(self, blob: bytes) -> bytes:
        return self.z4ai.decompress(blob, threads=self.threads)

    def decode_into(self, blob: bytes, out: bytearray) -> None:
        self.z4ai.decompress(blob, out=out, threads=self.threads)

    def encode_file(self, src: str, dst: str) -> None:
        from z4ai.safetensors import compress_file

        compress_file(src, dst, effort=self.effort, threads=self.threads)

    def decode_file(self, src: str, dst: str) -> None:
        from z4ai.safetensors import decompress_file

        decompress_file(src, dst, threads=self.threads)

    def open_pair(self, target: str, base: str) -> None:
        from z4ai import model_delta

        self.deltas = model_delta
        self.target, self.base = Path(target).read_bytes(), Path(base).read_bytes()
        self.delta = self.encode_delta(None)

    def encode_delta(self, _: None) -> bytes:
        options: dict[str, Any] = {"effort": self.effort, "threads": self.threads}
        return self.deltas.compress(self.target, self.base, **options)

    def decode_delta(self) -> bytes:
        return self.deltas.decompress(self.delta, self.base, threads=self.threads)


class ZipNN(Adapter):
    NAMES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}  # noqa: RUF012

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        from importlib.metadata import version

        import zipnn

        self.make = zipnn.ZipNN
        self.version = version("zipnn")

    def open(self, dtype: str) -> None:
        if dtype not in self.NAMES:
            raise ValueError(f"no {dtype}")
        self.codec = self.make(
            input_format="byte", bytearray_dtype=self.NAMES[dtype], threads=self.threads
        )

    def fresh(self, raw: bytes) -> bytearray:
        return bytearray(raw)  # it is reordered in place

    def keep(self, blob: Any) -> bytes:
        return bytes(blob)

    def encode(self, raw: bytearray) -> Any:
        return self.codec.compress(raw)

    def decode(self, blob: bytes) -> Any:
        return self.codec.decompress(blob)


class Lmz(Adapter):
    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        import lmz

        self.lmz = lmz
        self.version = lmz.__version__

    def encode_file(self, src: str, dst: str) -> None:
        self.lmz.compress(src, dst, workers=self.threads)

    def decode_file(self, src: str, dst: str) -> None:
        self.lmz.decompress(src, dst, workers=self.threads, overwrite=True)

    def open_pair(self, target: str, base: str) -> None:
        shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = tempfile.TemporaryDirectory(dir=shared, prefix="z4ai-bench-")
        home = Path(self.folder.name)
        self.target, self.back = home / "target.safetensors", home / "back"
        self.archive, self.both = home / "archive", home / "both"
        shutil.copyfile(target, self.target)
        shutil.copyfile(base, home / "base.safetensors")
        self.lmz.compress(str(home / "base.safetensors"), str(self.archive), workers=self.threads)
        self.fresh_delta()
        self.encode_delta(None)

    def fresh_delta(self) -> None:
        shutil.copyfile(self.archive, self.both)

    def encode_delta(self, _: None) -> None:
        self.lmz.append(str(self.both), str(self.target), workers=self.threads)

    def delta_nbytes(self, _: None) -> int:
        return self.both.stat().st_size - self.archive.stat().st_size

    def decode_delta(self) -> None:
        member, both = self.target.name, str(self.both)
        self.lmz.extract(both, member, str(self.back), workers=self.threads, overwrite=True)

    def restored(self, _: None) -> bytes:
        return self.back.read_bytes()


class BigSmall(Adapter):
    def __init__(self, threads: int = 1, mode: str = "balanced") -> None:
        super().__init__(threads)
        os.environ["BIGSMALL_DISABLE_VERSION_CHECK"] = "1"
        import bigsmall

        self.bigsmall = bigsmall
        self.mode = mode
        self.version = bigsmall.__version__

    def encode_file(self, src: str, dst: str) -> None:
        self.bigsmall.compress(src, dst, mode=self.mode, workers=self.threads, progress=False)

    def decode_file(self, src: str, dst: str) -> None:
        self.bigsmall.decompress(src, dst, progress=False)


class OpenZL(Adapter):
    """Its own float split, entropy coding of both parts."""

    NODES = {  # noqa: RUF012
        "bf16": ("BFloat16Deconstruct", "uint16"),
        "fp16": ("Float16Deconstruct", "uint16"),
        "fp32": ("Float32Deconstruct", "uint32"),
    }

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        from importlib.metadata import version

        import numpy as np
        from openzl import ext

        self.np = np
        self.ext = ext
        self.version = version("openzl")

    def open(self, dtype: str) -> None:
        if dtype not in self.NODES:
            raise ValueError(f"no {dtype}")
        ext = self.ext
        node, self.word = self.NODES[dtype]
        self.compressor = ext.Compressor()
        entropy = ext.graphs.Entropy()
        fractions = entropy
        if dtype != "bf16":  # several bytes of fraction: each position coded apart
            fractions = ext.nodes.TransposeSplit()(self.compressor, entropy)
        graph = getattr(ext.nodes, node)()(self.compressor, fractions, entropy)
        self.compressor.select_starting_graph(graph)

    def encode(self, raw: bytes) -> bytes:
        ext = self.ext
        context = ext.CCtx()
        context.ref_compressor(self.compressor)
        context.set_parameter(ext.CParam.FormatVersion, ext.MAX_FORMAT_VERSION)
        return context.compress([ext.Input(ext.Type.Numeric, self.np.frombuffer(raw, self.word))])

    def decode(self, blob: bytes) -> Any:
        (output,) = self.ext.DCtx().decompress(blob)
        return output.content.as_nparray()


class Pcodec(Adapter):
    WORDS = {"bf16": "uint16", "fp16": "float16", "fp32": "float32", "fp64": "float64"}  # noqa: RUF012

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        from importlib.metadata import version

        import numpy as np
        from pcodec import ChunkConfig, standalone

        self.np = np
        self.codec = standalone
        self.config = ChunkConfig()
        self.version = version("pcodec")

    def open(self, dtype: str) -> None:
        if dtype not in self.WORDS:
            raise ValueError(f"no {dtype}")
        self.word = self.WORDS[dtype]

    def encode(self, raw: bytes) -> bytes:
        return self.codec.simple_compress(self.np.frombuffer(raw, self.word), self.config)

    def decode(self, blob: bytes) -> Any:
        return self.codec.simple_decompress(blob)

    def decode_into(self, blob: bytes, out: bytearray) -> None:
        self.codec.simple_decompress_into(blob, self.np.frombuffer(out, self.word))


class Blosc2(Adapter):
    """Byte shuffle and Zstandard at its usual level."""

    WIDTHS = {"bf16": 2, "fp16": 2, "fp32": 4, "fp64": 8}  # noqa: RUF012

    def __init__(self, threads: int = 1) -> None:
        super().__init__(threads)
        import blosc2

        self.blosc2 = blosc2
        blosc2.set_nthreads(threads)
        self.version = blosc2.__version__

    def encode(self, raw: bytes) -> bytes:
        b = self.blosc2
        return b.compress2(
            raw,
            typesize=self.WIDTHS.get(self.dtype, 1),
            codec=b.Codec.ZSTD,
            clevel=5,
            filters=[b.Filter.SHUFFLE],
            nthreads=self.threads,
        )

    def decode(self, blob: bytes) -> Any:
        return self.blosc2.decompress2(blob, nthreads=self.threads)


class Zstd(Adapter):
    """Zstandard over the elements as they are: what one would have without a codec for weights."""

    def __init__(self, threads: int = 1, level: int = 3) -> None:
        super().__init__(threads)
        import zstandard

        self.compressor = zstandard.ZstdCompressor(
            level=level, threads=threads if threads > 1 else 0
        )
        self.decompressor = zstandard.ZstdDecompressor()
        self.version = zstandard.__version__

    def encode(self, raw: bytes) -> bytes:
        return self.compressor.compress(raw)

    def decode(self, blob: bytes) -> bytes:
        return self.decompressor.decompress(blob)


class Memcpy(Adapter):
    """Not a codec: the bytes copied, the limit of any decoder."""

    version = "libc"

    def encode(self, raw: bytes) -> bytes:
        return raw

    def decode(self, blob: bytes) -> bytearray:
        return bytearray(blob)

    def decode_into(self, blob: bytes, out: bytearray) -> None:
        memoryview(out)[:] = blob


ADAPTERS: dict[str, type[Adapter]] = {
    "z4ai": Z4ai,
    "zipnn": ZipNN,
    "lmzip": Lmz,
    "bigsmall": BigSmall,
    "openzl": OpenZL,
    "pcodec": Pcodec,
    "blosc2": Blosc2,
    "zstandard": Zstd,
    "memcpy": Memcpy,
}


def make(name: str, **options: Any) -> Adapter:
    """Return the adapter of that name."""
    adapter = ADAPTERS[name](**options)
    adapter.name = name
    return adapter
