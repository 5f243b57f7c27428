"""What unknown bytes are taken for: weights by their width, and everything else for bytes."""

from __future__ import annotations

import gzip
import io
import sys
import sysconfig
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest

from z4ai.dtypes import resolve
from z4ai.probe import guess_dtype

Bytes = npt.NDArray[np.uint8]

FLOATS = {
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp16": np.dtype(np.float16),
    "fp32": np.dtype(np.float32),
    "fp64": np.dtype(np.float64),
}


def draw(kind: str, n: int) -> npt.NDArray[np.float64]:
    rng = np.random.default_rng(n)
    if kind == "gaussian":
        return rng.standard_normal(n) * 0.02
    if kind == "uniform":
        return rng.random(n) * 0.2 - 0.1
    if kind == "layers":
        scales = np.repeat(rng.uniform(0.005, 0.5, -(-n // 40_000)), 40_000)[:n]
        return rng.standard_normal(n) * scales
    if kind == "pruned":
        return rng.standard_normal(n) * 0.02 * (rng.random(n) < 0.4)
    if kind == "dequantised":
        return np.rint(rng.standard_normal(n) * 3) * 0.0123
    raise AssertionError(kind)


def guess(content: object) -> str:
    raw = np.frombuffer(bytes(memoryview(content)), np.uint8)  # type: ignore[arg-type]
    raw.flags.writeable = False
    found = guess_dtype(raw)
    assert found is resolve(found.name)
    return found.name


def text(nbytes: int) -> bytes:
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))
    assert len(found) >= nbytes
    return found[:nbytes]


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "layers", "pruned", "dequantised"])
@pytest.mark.parametrize("name", FLOATS)
def test_weights_are_told_by_width_and_format(name: str, kind: str) -> None:
    for nbytes in (100_000, 3_000_000):
        values = draw(kind, nbytes // FLOATS[name].itemsize).astype(FLOATS[name])
        found = guess(values.view(np.uint8))
        # Which of the two formats of 16 bits a few values are, nobody can tell.
        either = kind == "dequantised" and name == "fp16"
        assert found in ({"bf16", "fp16"} if either else {name}), nbytes


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_a_header_before_the_weights_and_a_tail_do_not_matter(name: str) -> None:
    values = draw("gaussian", 500_000).astype(FLOATS[name]).tobytes()
    header = b'{"weight":{"dtype":"?","shape":[500000],"data_offsets":[0,1]}}'
    for before in (64, 128, 4096):
        assert guess(header.ljust(before) + values + b"end") == name


def test_wide_floats_of_narrow_ones_are_wide() -> None:
    values = draw("gaussian", 300_000)
    for narrow in ("bf16", "fp16"):
        assert guess(values.astype(FLOATS[narrow]).astype(np.float32)) == "fp32"


def test_code_text_and_machine_code_are_bytes() -> None:
    assert guess(text(3_000_000)) == "opaque"
    for nbytes in (5000, 50_000, 70_001):
        assert guess(text(nbytes)) == "opaque"
    assert guess(Path(sys.executable).read_bytes()) == "opaque"
    folder = Path(np.__file__).parent
    libraries = sorted(folder.rglob("*.so")) + sorted(folder.rglob("*.pyd"))
    assert libraries
    for library in libraries[:10]:
        assert guess(library.read_bytes()) == "opaque", library.name


def png(rows: Bytes) -> bytes:
    """The chunks of a PNG are what matters here: filtered rows, deflated."""
    import zlib

    filtered = b"".join(b"\0" + row.tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + zlib.compress(filtered, 6)


def test_what_is_compressed_already_is_bytes() -> None:
    weights = draw("gaussian", 250_000).astype(np.float32).tobytes()
    assert guess(gzip.compress(weights, 1, mtime=0)) == "opaque"
    assert guess(gzip.compress(text(1_000_000), mtime=0)) == "opaque"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.writestr("a.txt", text(1_000_000))
    assert guess(archive.getvalue()) == "opaque"
    rows = (np.add.outer(np.arange(700), np.arange(900)) // 7 % 256).astype(np.uint8)
    rows += np.random.default_rng(0).integers(0, 9, rows.shape, np.uint8)
    assert guess(png(rows)) == "opaque"
    assert guess(np.random.default_rng(0).bytes(2_000_000)) == "opaque"


def test_what_takes_nothing_or_is_little_is_bytes() -> None:
    assert guess(b"") == "opaque"
    assert guess(b"1234567") == "opaque"
    assert guess(bytes(1_000_000)) == "opaque"
    assert guess(np.full(200_000, 1.5, np.float32)) == "opaque"
    assert guess(draw("gaussian", 500).astype(np.float32)) == "opaque"
    assert guess(b"abcdefghijk" * 100_000) == "opaque"


def test_mostly_text_stays_bytes() -> None:
    weights = draw("gaussian", 100_000).astype(ml_dtypes.bfloat16).tobytes()
    assert guess(text(1_500_000) + weights) == "opaque"
    assert guess(weights * 1 + text(100_000)) == "opaque"
    assert guess(text(60_000).ljust(60_008) + weights * 10) == "bf16"


def test_integers() -> None:
    rng = np.random.default_rng(2)
    ids = np.sort(rng.integers(0, 1 << 30, 200_000))
    assert guess(ids) == "int64"
    assert guess(ids.astype(np.int32)) == "int32"
    assert guess(rng.integers(0, 50_000, 200_000)) == "int64"
    walk = np.cumsum(rng.integers(-60, 61, 400_000)).astype(np.int16)
    assert guess(walk) == "int16"
    # Without the stage for steps, planes of them are no better than bytes.
    raw = np.arange(200_000).view(np.uint8)
    assert guess_dtype(raw).name == "int64"
    assert guess_dtype(raw, stages=False).name == "opaque"


def test_the_guess_pays() -> None:
    """An estimate is kept: planes of what was guessed take less than the library makes of it."""
    from z4ai._fast import planes
    from z4ai.codecs import zstd

    for name, dtype in FLOATS.items():
        raw = draw("layers", 2_000_000 // dtype.itemsize).astype(dtype).view(np.uint8)
        found = guess_dtype(raw)
        assert found.name == name
        total = 0.0
        for plane in planes.split(raw, found.layout):
            counts = np.bincount(plane)
            counts = counts[counts > 0]
            total += float((counts * np.log2(len(plane) / counts)).sum()) / 8
        assert total < 0.98 * len(zstd.encode(raw.data, 3))


def test_no_more_than_the_sample_is_read() -> None:
    class Counting:
        def __init__(self, raw: Bytes) -> None:
            self.raw, self.nbytes = raw, 0

        def __len__(self) -> int:
            return len(self.raw)

        def __getitem__(self, where: slice) -> Bytes:
            found = self.raw[where]
            self.nbytes += len(found)
            return found

    counting = Counting(np.random.default_rng(3).integers(0, 256, 40_000_000, np.uint8))
    guess_dtype(counting)  # type: ignore[arg-type]
    assert counting.nbytes == 1 << 20
