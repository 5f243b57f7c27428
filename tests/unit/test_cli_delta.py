"""`z4ai delta` and what the other commands do with deltas: results, reports, refusals."""

from __future__ import annotations

import io
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import z4ai
from z4ai.cli import main
from z4ai.cli._files import UsageError, delta_name, kind_of, restored_name

DATA, USAGE, SYSTEM = 1, 2, 3

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")

BEFORE = np.random.default_rng(5).normal(0, 0.02, 60_000).astype(np.float32)
AFTER = BEFORE + np.random.default_rng(6).normal(0, 1e-6, len(BEFORE)).astype(np.float32)


def model(weights: np.ndarray[Any, Any], **more: np.ndarray[Any, Any]) -> bytes:
    """A file of the weights in two tensors, and of more."""
    tensors = {"a.weight": weights[:40_000].reshape(200, 200), "b.weight": weights[40_000:], **more}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, array in tensors.items():
        span = [begin, begin + array.nbytes]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": span}
        begin = span[1]
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + b"".join(a.tobytes() for a in tensors.values())


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own current folder that holds two checkpoints, plain and as models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(z4ai.__file__).parents[1]))
    Path("before.bin").write_bytes(BEFORE.tobytes())
    Path("after.bin").write_bytes(AFTER.tobytes())
    Path("before.safetensors").write_bytes(model(BEFORE))
    Path("after.safetensors").write_bytes(model(AFTER, c=np.zeros(3, np.float32)))
    return tmp_path


# Target, base, delta, magic.
PLAIN = ("after.bin", "before.bin", "after.bin.z4dl", b"Z4DL")
MODELS = ("after.safetensors", "before.safetensors", "after.z4dm", b"Z4DM")
both = pytest.mark.parametrize(("target", "base", "delta", "magic"), [PLAIN, MODELS])


def listing() -> list[str]:
    return sorted(os.listdir())


def run(*args: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "z4ai", *args]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)


def one_line(text: str) -> str:
    """The only line of an error, without a traceback."""
    (line,) = text.splitlines()
    assert line.startswith("z4ai: ")
    return line


# --- Names and kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "delta", "back"),
    [
        ("x.bin", "delta", "x.bin.z4dl", "x.bin"),
        ("a.b/Tuned.SafeTensors", "model delta", "a.b/Tuned.z4dm", "a.b/Tuned.safetensors"),
        ("model.bin", "model delta", "model.bin.z4dm", "model.bin.safetensors"),
        ("model.safetensors", "delta", "model.safetensors.z4dl", "model.safetensors"),
    ],
)
def test_names_of_deltas(name: str, kind: str, delta: str, back: str) -> None:
    assert delta_name(name, kind) == delta
    assert restored_name(delta, kind) == back
    with pytest.raises(UsageError, match="use --output"):
        restored_name(name, kind)


def test_deltas_are_known_by_content() -> None:
    assert kind_of("x.safetensors", b"Z4DL\x10\0\0\0\0", 100) == "delta"
    assert kind_of("x", b"Z4DM\x10\0\0\0\0", None) == "model delta"


# --- Making and applying --------------------------------------------------------------------------


@both
def test_a_file_becomes_a_delta_and_comes_back(
    target: str, base: str, delta: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    content = Path(target).read_bytes()
    assert main(["delta", "make", target, base]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"{target} against {base} -> {delta}: 24\d kB -> .*, ratio .*\n", err)
    blob = Path(delta).read_bytes()
    assert blob[:4] == magic
    assert len(blob) < 0.75 * len(content)
    os.remove(target)
    assert main(["delta", "apply", delta, base]) == 0
    assert f"{delta} with {base} -> {target}: " in capsys.readouterr().err
    assert Path(target).read_bytes() == content


@both
def test_options_reach_the_encoder(target: str, base: str, delta: str, magic: bytes) -> None:
    content = Path(target).read_bytes()
    for effort in ("fast", "balanced", "default", "max"):
        options = ["--effort", effort, "--threads", "2", "--verify"]
        assert main(["delta", "make", "-q", "-f", *options, target, base]) == 0
        assert main(["delta", "apply", "-q", "--threads", "1", delta, base, "-o", effort]) == 0
        assert Path(effort).read_bytes() == content
        assert Path(delta).read_bytes()[:4] == magic


def test_a_dtype_reaches_the_encoder() -> None:
    sizes = {}
    for dtype in ("fp32", "auto", "opaque"):
        assert main(["delta", "make", "-qf", "--dtype", dtype, "after.bin", "before.bin"]) == 0
        blob = Path("after.bin.z4dl").read_bytes()
        assert z4ai.info(blob).dtype == (None if dtype == "opaque" else "fp32")
        assert z4ai.decompress_delta(blob, BEFORE) == AFTER.tobytes()
        sizes[dtype] = len(blob)
    assert sizes["fp32"] == sizes["auto"] < sizes["opaque"]


def test_raw_takes_models_as_plain_bytes() -> None:
    args = ["delta", "make", "-q", "--raw", "--dtype", "fp32"]
    assert main([*args, "after.safetensors", "before.safetensors"]) == 0
    blob = Path("after.safetensors.z4dl").read_bytes()
    assert z4ai.decompress_delta(blob, model(BEFORE)) == Path("after.safetensors").read_bytes()


@pytest.mark.parametrize("data", [b"", b"x"])
def test_small_files_come_back(data: bytes) -> None:
    Path("small").write_bytes(data)
    for base in ("small", "before.bin"):
        assert main(["delta", "make", "-qf", "--verify", "small", base]) == 0
        assert main(["delta", "apply", "-qf", "small.z4dl", base, "-o", "again"]) == 0
        assert Path("again").read_bytes() == data


def test_a_container_is_the_same_base() -> None:
    assert main(["compress", "-q", "before.safetensors"]) == 0
    assert main(["delta", "make", "-q", "after.safetensors", "before.zstn"]) == 0
    for base in ("before.zstn", "before.safetensors"):
        assert main(["delta", "apply", "-qf", "after.z4dm", base, "-o", "again"]) == 0
        assert Path("again").read_bytes() == Path("after.safetensors").read_bytes()


def test_a_delta_can_be_the_base_of_another() -> None:
    last = AFTER * np.float32(1 + 1e-6)
    Path("last.safetensors").write_bytes(model(last))
    assert main(["delta", "make", "-q", "after.safetensors", "before.safetensors"]) == 0
    chain = ["after.z4dm", "before.safetensors"]
    assert main(["delta", "make", "-q", "last.safetensors", *chain]) == 0
    os.remove("after.safetensors")
    assert main(["delta", "apply", "-q", "last.z4dm", *chain, "-o", "again"]) == 0
    assert Path("again").read_bytes() == model(last)
    bases = [word for path in chain for word in ("--base", path)]
    assert main(["verify", "-q", "last.z4dm", *bases]) == 0


def test_a_chain_that_lacks_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delta", "make", "-q", "after.safetensors", "before.safetensors"]) == 0
    before = listing()
    assert main(["delta", "make", "before.safetensors", "after.z4dm"]) == USAGE
    assert "its own base" in one_line(capsys.readouterr().err)
    args = ["delta", "make", "after.bin", "before.bin", "before.bin"]
    assert main(args) == USAGE
    assert "only a model delta" in one_line(capsys.readouterr().err)
    assert listing() == before


# --- Telling --------------------------------------------------------------------------------------


@both
def test_records_of_deltas(
    target: str, base: str, delta: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    nbytes = os.path.getsize(target)
    container = magic.decode().lower()
    assert main(["delta", "make", "--json", target, base]) == 0
    assert main(["delta", "apply", "--json", "-f", delta, base]) == 0
    assert main(["verify", "--json", "--base", base, delta]) == 0
    assert main(["delta", "info", "--json", delta]) == 0
    assert main(["info", "--json", delta]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    records = [json.loads(line) for line in out.splitlines()]
    commands = ["delta make", "delta apply", "verify", "delta info", "info"]
    assert [record["command"] for record in records] == commands
    for record in records:
        expected = {"ok": True, "container": container, "original_bytes": nbytes}
        expected["compressed_bytes"] = os.path.getsize(delta)
        assert {key: record[key] for key in expected} == expected
    for record, output in zip(records, (delta, target), strict=False):
        assert (record["base"], record["output"]) == (base, output)
    assert {**records[3], "command": "info"} == records[4]


def test_info_describes_a_delta_frame(capsys: pytest.CaptureFixture[str]) -> None:
    main(["delta", "make", "-q", "--dtype", "fp32", "after.bin", "before.bin"])
    assert main(["delta", "info", "after.bin.z4dl"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^container +delta frame, format version 16$", text, re.M)
    assert re.search(r"^base +240 kB \(240000 bytes\), XXH3-128 [0-9a-f]{32}$", text, re.M)
    assert main(["info", "--json", "after.bin.z4dl"]) == 0
    reference = z4ai.info(Path("after.bin.z4dl").read_bytes()).reference
    assert reference is not None
    assert json.loads(capsys.readouterr().out)["reference"] == reference._asdict()


def test_info_and_ls_describe_a_model_delta(capsys: pytest.CaptureFixture[str]) -> None:
    main(["delta", "make", "-q", "after.safetensors", "before.safetensors"])
    assert main(["delta", "info", "after.z4dm"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^container +Z4DM, format version 16$", text, re.M)
    assert re.search(r"^base +240 kB \(240000 bytes\) of tensors, XXH3-128 ", text, re.M)
    assert re.search(r"^tensors +3: F32 x 3$", text, re.M)
    assert main(["ls", "--json", "after.z4dm"]) == 0
    rows = json.loads(capsys.readouterr().out)["tensors"]
    assert [row["name"] for row in rows] == ["a.weight", "b.weight", "c"]
    assert [row["way"] for row in rows] == ["delta", "delta", "scratch"]
    assert main(["ls", "after.z4dm"]) == 0
    head = next(line for line in capsys.readouterr().out.splitlines() if line.strip())
    assert head.split() == ["name", "dtype", "shape", "way", "content", "encoded", "ratio"]


@both
def test_what_needs_a_base_says_so(
    target: str, base: str, delta: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["delta", "make", "-q", target, base])
    for command in ("decompress", "verify"):
        assert main([command, delta]) == USAGE
        assert "needs its base" in one_line(capsys.readouterr().err)
    assert main(["compress", delta]) == USAGE
    assert main(["delta", "make", delta, base]) == USAGE
    assert capsys.readouterr().err.count("compressed already") == 2
    assert main(["verify", "--base", base, delta]) == 0
    assert re.fullmatch(rf"{delta}: ok, 240 kB of content\n", capsys.readouterr().out)
    if magic == b"Z4DL":
        assert main(["ls", delta]) == DATA
        assert "holds no tensors" in one_line(capsys.readouterr().err)


# --- Refusals -------------------------------------------------------------------------------------


@both
def test_another_base_is_refused(
    target: str, base: str, delta: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["delta", "make", "-q", target, base])
    wrong = bytearray(Path(base).read_bytes())
    wrong[-5] ^= 1
    Path("wrong").write_bytes(wrong)
    kept = Path(target).read_bytes()
    before = listing()
    for args in (
        ["delta", "apply", delta, "wrong", "-o", "new"],
        ["delta", "apply", "-f", delta, "wrong"],
        ["delta", "apply", "-f", delta, target, "-o", "new"],
        ["verify", "--base", "wrong", delta],
    ):
        assert main(args) == DATA
        assert "is not the base of it: " in one_line(capsys.readouterr().err)
    assert main(["delta", "apply", "--json", delta, "wrong", "-o", "new"]) == DATA
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["type"], error["exit_status"]) == ("BaseMismatchError", DATA)
    assert listing() == before
    assert Path(target).read_bytes() == kept


@both
def test_damaged_deltas_are_refused(
    target: str, base: str, delta: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["delta", "make", "-q", target, base])
    whole = Path(delta).read_bytes()
    damaged = [whole[:n] for n in (0, 3, 4, 20, len(whole) // 2, len(whole) - 1)]
    for offset in range(0, len(whole), len(whole) // 12):
        flipped = bytearray(whole)
        flipped[offset] ^= 0x10
        damaged.append(bytes(flipped))
    Path("damaged").touch()
    before = listing()
    for blob in damaged:
        Path("damaged").write_bytes(blob)
        assert main(["delta", "apply", "damaged", base, "-o", "new"]) == DATA
        assert one_line(capsys.readouterr().err).startswith("z4ai: ")
        assert listing() == before
    for name in ("damaged", base):
        Path("damaged").write_bytes(b"neither of the two")
        for args in (["delta", "info", name], ["delta", "apply", name, base, "-o", "new"]):
            assert main(args) == DATA
            assert "no delta" in one_line(capsys.readouterr().err)


@both
def test_existing_files_are_kept(
    target: str, base: str, delta: str, magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(delta).write_bytes(b"precious")
    assert main(["delta", "make", target, base]) == USAGE
    assert "--force" in one_line(capsys.readouterr().err)
    assert Path(delta).read_bytes() == b"precious"
    for output in (target, base):
        assert main(["delta", "make", "-f", target, base, "-o", output]) == USAGE
        assert "same file" in one_line(capsys.readouterr().err)
    assert main(["delta", "make", "-q", "--force", target, base]) == 0
    assert main(["delta", "apply", delta, base]) == USAGE
    assert "--force" in one_line(capsys.readouterr().err)
    assert main(["delta", "apply", "-f", delta, base, "-o", base]) == USAGE
    assert "same file" in one_line(capsys.readouterr().err)
    for words in (["missing", base], [target, "missing"]):
        assert main(["delta", "make", *words, "-o", "new"]) == SYSTEM
        assert one_line(capsys.readouterr().err) == "z4ai: missing: No such file or directory"
    assert "new" not in listing()


def test_a_model_needs_a_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["delta", "make", "after.safetensors", "before.bin"]) == USAGE
    assert "before.bin: no model" in one_line(capsys.readouterr().err)
    assert main(["delta", "make", "--dtype", "fp32", *MODELS[:2]]) == USAGE
    assert "knows its dtypes" in one_line(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ([], "action"),
        (["squash"], "squash"),
        (["make", "after.bin"], "base"),
        (["make", "-", "-"], "standard input"),
        (["apply", "--dtype", "fp32", "x", "y"], "--dtype"),
        (["info"], "file"),
    ],
)
def test_wrong_usage_is_told(
    args: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["delta", *args])
    assert caught.value.code == USAGE
    assert word in capsys.readouterr().err.splitlines()[-1]


def test_verify_compares_before_the_delta_has_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from z4ai.cli import _delta

    monkeypatch.setattr(_delta, "decompress_delta", lambda *_: b"something else")
    before = listing()
    assert main(["delta", "make", "--verify", "after.bin", "before.bin"]) == DATA
    assert "does not give the file back" in one_line(capsys.readouterr().err)
    assert listing() == before


# --- Pipes and systems ----------------------------------------------------------------------------


@both
def test_pipes_of_targets_and_deltas(target: str, base: str, delta: str, magic: bytes) -> None:
    content = Path(target).read_bytes()
    packed = run("delta", "make", "-", base, stdin=content)
    assert (packed.returncode, packed.stderr) == (0, b"")
    assert packed.stdout[:4] == magic
    back = run("delta", "apply", "-", base, stdin=packed.stdout)
    assert (back.returncode, back.stderr) == (0, b"")
    assert back.stdout == content
    Path(delta).write_bytes(packed.stdout)
    back = run("delta", "apply", delta, "-", "-o", "-", stdin=Path(base).read_bytes())
    assert (back.returncode, back.stdout) == (0, content)


def test_json_goes_beside_the_data() -> None:
    result = run("delta", "make", "--json", "-o", "-", "after.bin", "before.bin")
    record = json.loads(result.stderr)
    assert (record["output"], record["compressed_bytes"]) == ("-", len(result.stdout))


@pytest.mark.parametrize("data", [b"", b"Z4D", b"Z4DL\x10", b"Z4DM\x10", b"neither of the two"])
def test_a_bad_pipe_is_one_line(
    data: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for args in (["info", "-"], ["apply", "-", "before.safetensors"]):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main(["delta", *args]) == DATA
        assert one_line(capsys.readouterr().err).startswith("z4ai: standard input: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@both
def test_a_full_disk(target: str, base: str, delta: str, magic: bytes) -> None:
    assert main(["delta", "make", "-q", target, base]) == 0
    before = listing()
    for args in (["make", "-f", target, base], ["apply", "-f", delta, base]):
        result = run("delta", *args, "-o", "/dev/full")
        assert result.returncode == SYSTEM
        message = "z4ai: /dev/full: No space left on device"
        assert one_line(result.stderr.decode()) == message
    assert listing() == before


@posix
@both
def test_new_files_have_the_usual_permissions(
    target: str, base: str, delta: str, magic: bytes
) -> None:
    before = os.umask(0o027)
    try:
        assert main(["delta", "make", "-q", target, base]) == 0
        assert main(["delta", "apply", "-q", delta, base, "-o", "again"]) == 0
    finally:
        os.umask(before)
    assert [stat.S_IMODE(os.stat(name).st_mode) for name in (delta, "again")] == [0o640] * 2
