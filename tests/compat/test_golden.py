"""Files that releases wrote are read for ever, by production and by the reference."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_inputs import content_of
from tier_features import CODECS, RECORDS, TRANSFORMS, features

import z4ai
import z4ai._reference as reference
import z4ai.model_delta
import z4ai.safetensors
from z4ai._reference import model_delta
from z4ai.dtypes import numpy_dtype, resolve

GOLDEN = Path(__file__).with_name("golden")
MANIFESTS = {
    folder.name: json.loads((folder / "manifest.json").read_text())
    for folder in sorted(GOLDEN.iterdir())
}
FILES = [(version, file) for version, manifest in MANIFESTS.items() for file in manifest]

Entry = dict[str, Any]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def expected(entry: Entry) -> bytes:
    """The content by its formula, which must still give what the manifest says."""
    content = content_of(entry["recipe"])
    assert len(content) == entry["content_nbytes"]
    assert sha256(content) == entry["content_sha256"], "the formula has been changed"
    if entry["options"].get("dtype") == "bool" and entry["by"] == "compress_array":
        return bytes(byte & 1 for byte in content)
    return content


def test_every_format_version_has_files_and_none_is_missing_or_extra() -> None:
    assert list(MANIFESTS) == ["v16"]
    for version, manifest in MANIFESTS.items():
        there = {path.name for path in (GOLDEN / version).iterdir()} - {"manifest.json"}
        assert there == set(manifest)
    assert sum(path.stat().st_size for path in GOLDEN.rglob("*.z*")) < 500_000


def test_every_way_to_write_has_files() -> None:
    ways = {entry["by"] for manifest in MANIFESTS.values() for entry in manifest.values()}
    expected = {"compress", "compress_stream", "compress_array", "compress_file"}
    assert ways == expected | {"compress_delta", "model_delta"}


def test_files_have_every_transform_codec_and_record() -> None:
    seen: set[str] = set()
    for version, file in FILES:
        encoded = (GOLDEN / version / file).read_bytes()
        if file.endswith(".zstn"):
            opened = reference.open_container(encoded)
            ranges = {(t.frame_offset, t.frame_nbytes) for t in opened.tensors if t.frame_nbytes}
            frames = [encoded[at : at + nbytes] for at, nbytes in ranges]
        elif file.endswith((".z4dl", ".z4dm")):
            frames = []
        else:
            frames = [encoded]
        for frame in frames:
            seen.update(features(reference.decode_frame(frame)))
    missing = (TRANSFORMS | CODECS | RECORDS) - seen
    assert not missing, sorted(missing)


def test_delta_frames_have_every_transform_of_theirs() -> None:
    seen: set[str] = set()
    for version, file in FILES:
        if file.endswith(".z4dl"):
            seen.update(z4ai.info((GOLDEN / version / file).read_bytes()).transforms)
    theirs = {name for number, name in z4ai.dtypes.TRANSFORMS.items() if number >= 24}
    assert not theirs - seen, sorted(theirs - seen)


@pytest.mark.parametrize(("version", "file"), FILES)
def test_a_golden_file_is_as_it_was_and_is_read(version: str, file: str, tmp_path: Path) -> None:
    entry: Entry = MANIFESTS[version][file]
    path = GOLDEN / version / file
    encoded = path.read_bytes()
    assert len(encoded) == entry["encoded_nbytes"]
    assert sha256(encoded) == entry["encoded_sha256"], "golden files are never changed"
    content = expected(entry)
    if entry["by"] == "model_delta":
        base = content_of({"tensors": entry["recipe"]["base"]})
        for threads in (1, 2):
            assert z4ai.model_delta.decompress(encoded, base, threads=threads) == content
        assert model_delta.restore(encoded, base) == content
        return
    if entry["by"] == "compress_delta":
        base = content_of(entry["recipe"]["base"])
        for threads in (1, 2):
            assert z4ai.decompress_delta(encoded, base, threads=threads) == content
        assert reference.decode_delta(encoded, base).content == content
        return
    if entry["by"] == "compress_file":
        assert reference.restore(encoded) == content
        z4ai.safetensors.decompress_file(path, tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        read_tensors(path, entry)
        return
    for threads in (1, 2):
        assert z4ai.decompress(encoded, threads=threads) == content
    assert reference.decode_frame(encoded).content == content
    out = io.BytesIO()
    z4ai.decompress_stream(io.BytesIO(encoded), out)
    assert out.getvalue() == content
    if entry["by"] == "compress_array":
        read_array(encoded, content, entry["options"])


def read_array(encoded: bytes, content: bytes, options: Entry) -> None:
    dtype = numpy_dtype(resolve(options["dtype"]), big_endian=options.get("big_endian", False))
    order = options.get("order", "C")
    wanted = np.frombuffer(content, dtype).reshape(options["shape"], order=order)
    for array in (z4ai.decompress_array(encoded), reference.decode_array(encoded)):
        assert array.dtype == dtype
        assert array.shape == tuple(options["shape"])
        assert array.tobytes() == wanted.tobytes()
        assert array.flags.f_contiguous or order == "C"


def read_tensors(path: Path, entry: Entry) -> None:
    with z4ai.safetensors.ZstnReader.open(path) as reader:
        tensors = entry["recipe"]["tensors"]
        assert set(reader.names()) == {name for name, _, _, _ in tensors}
        for name, _, shape, inner in tensors:
            array = reader.read_numpy(name)
            assert list(array.shape) == shape
            assert array.tobytes() == content_of(inner)


def test_released_files_say_so() -> None:
    for manifest in MANIFESTS.values():
        for entry in manifest.values():
            assert entry["released"] is None or entry["released"] >= entry["library_version"]
