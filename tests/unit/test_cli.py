"""The command line: what it writes, what it prints, how it fails; every failure is one line."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import z4ai
from z4ai._fast import _dispatch, _threads
from z4ai.cli import main
from z4ai.cli._commands import COMMANDS
from z4ai.cli._files import UsageError, compressed_name, kind_of, restored_name
from z4ai.cli._show import human, printable
from z4ai.codecs import best

DATA, USAGE, SYSTEM, INTERRUPTED, PIPE, TERMINATED = 1, 2, 3, 130, 141, 143

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


def weights(n: int = 20_000) -> bytes:
    return np.random.default_rng(5).normal(0, 0.02, n).astype(np.float32).tobytes()


def safetensors_file(tensors: dict[str, np.ndarray[Any, Any]], **metadata: str) -> bytes:
    codes = {"float32": "F32", "int8": "I8"}
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    begin = 0
    for name, array in tensors.items():
        span = [begin, begin + array.nbytes]
        header[name] = {
            "dtype": codes[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": span,
        }
        begin = span[1]
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + b"".join(a.tobytes() for a in tensors.values())


TENSORS: dict[str, np.ndarray[Any, Any]] = {
    "block.weight": np.frombuffer(weights(64 * 300), np.float32).reshape(300, 64),
    "block.bias": np.zeros(64, np.float32),
    "scale": np.array(1.5, np.float32),
    "nothing": np.zeros((0, 4), np.int8),
}
MODEL = safetensors_file(TENSORS, format="pt")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own current folder that holds one file of weights and one model."""
    monkeypatch.chdir(tmp_path)
    # a process of its own finds the same z4ai from here
    monkeypatch.setenv("PYTHONPATH", str(Path(z4ai.__file__).parents[1]))
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # buffers fail later: the harder case
    Path("w.bin").write_bytes(weights())
    Path("model.safetensors").write_bytes(MODEL)
    return tmp_path


def listing() -> list[str]:
    return sorted(os.listdir())


def run(
    *args: str, stdin: bytes | None = b"", env: dict[str, str] | None = None, **options: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command as a process of its own."""
    command = [sys.executable, "-m", "z4ai", *args]
    return subprocess.run(
        command,
        input=stdin,
        timeout=60,
        check=False,
        env={**os.environ, **(env or {})},
        **({"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options),
    )


def usage_status(*args: str) -> object:
    """Status of a command line that argparse refuses."""
    with pytest.raises(SystemExit) as caught:
        main(args)
    return caught.value.code


def one_line(text: str | bytes) -> str:
    """The only line of an error, without a traceback."""
    text = text.decode() if isinstance(text, bytes) else text
    lines = text.splitlines()
    assert len(lines) == 1, text
    assert lines[0].startswith("z4ai: ")
    return lines[0]


def one_told(text: str) -> str:
    """The only line of a report."""
    (line,) = text.splitlines()
    return line


# --- Names and kinds ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("model.safetensors", "safetensors", "model.zstn"),
        ("a/b.c/Model.SafeTensors", "safetensors", "a/b.c/Model.zstn"),
        ("model.bin", "safetensors", "model.bin.zstn"),
        ("x.bin", "plain", "x.bin.z4ai"),
        ("x", "plain", "x.z4ai"),
        ("model.safetensors", "plain", "model.safetensors.z4ai"),
    ],
)
def test_a_name_gets_its_suffix(name: str, kind: str, expected: str) -> None:
    assert compressed_name(name, kind) == expected


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("model.zstn", "container", "model.safetensors"),
        ("model.safetensors.zstn", "container", "model.safetensors"),
        ("x.bin.z4ai", "frame", "x.bin"),
        ("d.z4ai/x.Z4AI", "frame", "d.z4ai/x"),
    ],
)
def test_a_name_loses_its_suffix(name: str, kind: str, expected: str) -> None:
    assert restored_name(name, kind) == expected


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.zstn", "frame"),
        ("x.z4ai", "container"),
        ("x", "frame"),
        (".z4ai", "frame"),
        ("-", "frame"),
    ],
)
def test_a_name_without_the_suffix_is_refused(name: str, kind: str) -> None:
    with pytest.raises(UsageError, match="use --output"):
        restored_name(name, kind)


@pytest.mark.parametrize(
    ("name", "head", "nbytes", "kind"),
    [
        ("x", b"Z4AI\x10\0\0\0\0", 100, "frame"),
        ("x.safetensors", b"ZSTN\x10\0\0\0\0", 100, "container"),
        ("x", MODEL[:9], len(MODEL), "safetensors"),
        ("-", MODEL[:9], None, "safetensors"),
        ("x", MODEL[:9], 20, "plain"),  # no room for the header that it would have
        ("x", b"\x40\0\0\0\0\0\0\0[", 1000, "plain"),
        ("x", b"\xff" * 8 + b"{", None, "plain"),
        ("x", b"", 0, "plain"),
        ("x.SAFETENSORS", b"", 0, "safetensors"),
    ],
)
def test_a_file_is_known_by_name_or_content(
    name: str, head: bytes, nbytes: int | None, kind: str
) -> None:
    assert kind_of(name, head, nbytes) == kind


def test_sizes_for_people() -> None:
    sizes = [0, 999, 1000, 9_999, 99_960, 999_499, 999_500, 15 * 10**17]
    told = ["0 B", "999 B", "1.00 kB", "10.0 kB", "100 kB", "999 kB", "1.00 MB", "1.50 EB"]
    assert [human(n) for n in sizes] == told


def test_text_of_a_file_cannot_move_the_cursor() -> None:
    assert printable("a\x1b[2J\nb\u202e\udc80é") == "a\\x1b[2J\\nb\\u202e\\udc80é"


# --- Frames ---------------------------------------------------------------------------------------


def test_a_file_becomes_a_frame_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--dtype", "fp32", "w.bin"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("w.bin -> w.bin.z4ai: 80.0 kB -> ")
    blob = Path("w.bin.z4ai").read_bytes()
    assert z4ai.decompress(blob) == weights()
    assert z4ai.info(blob).dtype == "fp32"
    assert len(blob) < len(weights())
    os.remove("w.bin")
    assert main(["decompress", "w.bin.z4ai"]) == 0
    assert Path("w.bin").read_bytes() == weights()
    assert listing() == ["model.safetensors", "w.bin", "w.bin.z4ai"]


@pytest.mark.parametrize("data", [b"", b"x", bytes(100)])
def test_small_files_come_back(data: bytes) -> None:
    Path("small").write_bytes(data)
    assert main(["compress", "-q", "small", "-o", "small.z4ai"]) == 0
    assert main(["verify", "-q", "small.z4ai"]) == 0
    assert main(["decompress", "-q", "small.z4ai", "-o", "again"]) == 0
    assert Path("again").read_bytes() == data


def test_options_reach_the_encoder() -> None:
    for effort in ("fast", "balanced", "default", "max"):
        options = ["--dtype", "F32", "--effort", effort, "--threads", "2"]
        assert main(["compress", "-q", "-f", *options, "w.bin"]) == 0
        assert z4ai.decompress(Path("w.bin.z4ai").read_bytes()) == weights()
    assert main(["compress", "-q", "-f", "--dtype", "opaque", "w.bin"]) == 0
    assert z4ai.info(Path("w.bin.z4ai").read_bytes()).dtype is None


@pytest.mark.parametrize("options", [[], ["--dtype", "auto"], ["--dtype", "AUTO", "--raw"]])
def test_what_a_file_is_taken_for_is_told(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("words").write_bytes(b"some words, and again some words; " * 400)
    for name, dtype, words in (("w.bin", "fp32", "fp32"), ("words", None, "opaque bytes")):
        assert main(["compress", "-f", *options, name]) == 0
        told = one_told(capsys.readouterr().err)
        assert told.endswith(f", taken for {words}") == (not options)
        assert main(["compress", "-f", "--json", *options, name]) == 0
        assert json.loads(capsys.readouterr().out)["dtype"] == dtype
        blob = Path(f"{name}.z4ai").read_bytes()
        assert z4ai.info(blob).dtype == dtype
        assert z4ai.decompress(blob) == Path(name).read_bytes()
        assert main(["info", f"{name}.z4ai"]) == 0
        assert (dtype or "opaque") in capsys.readouterr().out


def test_a_shape_reaches_the_encoder(capsys: pytest.CaptureFixture[str]) -> None:
    draws = np.random.default_rng(3)
    rows = np.exp2(draws.integers(0, 9, 200))[:, None]
    matrix = (draws.normal(size=(200, 300)) * rows).astype(np.float32)
    Path("m.bin").write_bytes(matrix.tobytes())
    assert main(["compress", "-q", "--dtype", "fp32", "m.bin"]) == 0
    flat = os.path.getsize("m.bin.z4ai")
    for text in ("200x300", "200,300", "200X300"):
        assert main(["compress", "-qf", "--dtype", "fp32", "--shape", text, "m.bin"]) == 0
        assert os.path.getsize("m.bin.z4ai") < 0.99 * flat
        blob = Path("m.bin.z4ai").read_bytes()
        assert z4ai.decompress(blob) == matrix.tobytes()
    model = z4ai.info(blob).model
    assert model is not None
    assert model.rows
    capsys.readouterr()
    for options in (["--dtype", "fp32", "--shape", "200x301"], ["--shape", "200x300"]):
        assert main(["compress", "-f", *options, "m.bin"]) == USAGE
        assert "shape" in one_line(capsys.readouterr().err)
        assert Path("m.bin.z4ai").read_bytes() == blob, "what was there stays there"
    assert main(["compress", "--shape", "3", "model.safetensors"]) == USAGE
    assert "knows its shapes" in one_line(capsys.readouterr().err)
    for text in ("", "x", "3x", "-1", "1.5", "3;4", "9" * 20):
        assert usage_status("compress", "--shape=" + text, "m.bin") == USAGE


def test_several_files_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    Path("v.bin").write_bytes(b"v" * 500)
    assert main(["compress", "--json", "w.bin", "missing", "v.bin"]) == SYSTEM
    out, err = capsys.readouterr()
    assert one_line(err) == "z4ai: missing: No such file or directory"
    records = [json.loads(line) for line in out.splitlines()]
    assert [(r["input"], r["ok"]) for r in records] == [
        ("w.bin", True),
        ("missing", False),
        ("v.bin", True),
    ]
    assert main(["verify", "-q", "w.bin.z4ai", "v.bin.z4ai"]) == 0


def test_info_describes_a_frame(capsys: pytest.CaptureFixture[str]) -> None:
    array = np.frombuffer(weights(), "<f4").reshape(100, 200).astype(">f4", order="F")
    blob = z4ai.compress_array(array)
    Path("a.z4ai").write_bytes(blob)
    assert main(["info", "--json", "a.z4ai"]) == 0
    record = json.loads(capsys.readouterr().out)
    expected = {"container": "z4ai", "format_version": 16, "dtype": "fp32", "shape": [100, 200]}
    expected |= {"order": "F", "byteorder": ">", "original_bytes": 80_000, "ok": True}
    expected |= {"compressed_bytes": len(blob), "command": "info", "input": "a.z4ai"}
    assert {key: record[key] for key in expected} == expected
    assert [plane["plane"] for plane in record["planes"]] == [0, 1, 2, 3]
    assert record["transforms"] == {"symbols4": 1}
    assert record["model"] == z4ai.info(blob).model._asdict()
    assert (record["copies"], record["parts"]) == (None, [])
    assert main(["info", "a.z4ai"]) == 0
    text = capsys.readouterr().out
    for word in ("a.z4ai", "fp32, big-endian", "[100, 200], order F", "80000 bytes", "ratio"):
        assert word in text
    assert re.search(r"^transforms +symbols4 x 1$", text, re.M)
    assert re.search(r"^model +\d+ contexts?", text, re.M)


def test_info_describes_structure(capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(6).normal(size=100_000).astype(np.float32)
    noise[np.random.default_rng(7).random(100_000) < 0.5] = 0
    blob = z4ai.compress(np.concatenate([noise, noise]), dtype="fp32")
    assert z4ai.decompress(blob) == noise.tobytes() * 2
    Path("s.z4ai").write_bytes(blob)
    assert main(["info", "--json", "s.z4ai"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["transforms"] == {"zeros": 1}
    assert record["copies"] == {"n_copies": 1, "nbytes": 400_000}
    assert [(part["transform"], part["part"]) for part in record["parts"]] == [
        ("zeros", 0),
        ("zeros", 1),
    ]
    assert record["planes"] == []
    assert main(["info", "s.z4ai"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^copies +1, 400 kB \(400000 bytes\) of content$", text, re.M)
    assert re.search(r"^zeros 1 +fp32 x 1 ", text, re.M)


def test_info_names_what_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(best.brotli, "is_installed", lambda: False)
    main(["compress", "-q", "w.bin"])
    assert main(["info", "w.bin.z4ai"]) == 0
    assert "z4ai[maxratio] is not installed" in capsys.readouterr().out
    assert main(["info", "--json", "w.bin.z4ai"]) == 0
    assert json.loads(capsys.readouterr().out)["missing_extras"] == ["maxratio"]


# --- Containers -----------------------------------------------------------------------------------


def test_a_model_becomes_a_container_and_comes_back(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "model.safetensors"]) == 0
    assert "model.safetensors -> model.zstn: " in capsys.readouterr().err
    blob = Path("model.zstn").read_bytes()
    assert blob[:4] == b"ZSTN"
    os.remove("model.safetensors")
    assert main(["decompress", "model.zstn"]) == 0
    assert Path("model.safetensors").read_bytes() == MODEL
    assert listing() == ["model.safetensors", "model.zstn", "w.bin"]


def test_a_model_of_another_name_is_known_by_its_content() -> None:
    os.rename("model.safetensors", "model.bin")
    assert main(["compress", "-q", "model.bin"]) == 0
    assert main(["decompress", "-q", "model.bin.zstn"]) == 0
    assert Path("model.bin.safetensors").read_bytes() == MODEL


def test_raw_takes_a_model_as_plain_bytes() -> None:
    assert main(["compress", "-q", "--raw", "--dtype", "fp32", "model.safetensors"]) == 0
    assert z4ai.decompress(Path("model.safetensors.z4ai").read_bytes()) == MODEL


def test_ls_lists_the_tensors(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "-q", "model.safetensors"])
    assert main(["ls", "model.zstn"]) == 0
    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.strip()}
    assert lines["name"] == ["name", "dtype", "shape", "content", "encoded", "ratio"]
    assert set(TENSORS) <= set(lines)
    assert lines["block.weight"][1:6] == ["F32", "[300,", "64]", "76.8", "kB"]
    assert main(["ls", "--json", "model.zstn"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["original_bytes"] == len(MODEL)
    assert record["compressed_bytes"] == os.path.getsize("model.zstn")
    rows = {row["name"]: row for row in record["tensors"]}
    assert [row["name"] for row in record["tensors"]] == list(TENSORS)
    for name, array in TENSORS.items():
        assert rows[name]["shape"] == list(array.shape)
        assert rows[name]["content_bytes"] == array.nbytes
    assert rows["nothing"]["dtype"] == "I8"
    weight = rows["block.weight"]
    assert weight["encoded_bytes"] < weight["content_bytes"]
    assert weight["ratio"] == pytest.approx(weight["content_bytes"] / weight["encoded_bytes"])


def test_ls_lists_a_plain_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--json", "model.safetensors"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["container"] == "safetensors"
    assert [row["name"] for row in record["tensors"]] == list(TENSORS)
    assert {row["encoded_bytes"] for row in record["tensors"]} == {None}
    assert main(["ls", "model.safetensors"]) == 0
    assert "block.weight" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["w.bin", "w.bin.z4ai"])
def test_ls_of_what_holds_no_tensors(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "-q", "w.bin"])
    assert main(["ls", name]) == DATA
    assert "tensors" in one_line(capsys.readouterr().err)


def test_names_of_a_hostile_model_are_shown_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "\x1b]0;owned\x07[red]w[/red]\nname é"
    Path("n.safetensors").write_bytes(safetensors_file({nasty: np.zeros(3, np.float32)}))
    main(["compress", "-q", "n.safetensors"])
    assert main(["ls", "n.zstn"]) == 0
    out = capsys.readouterr().out
    assert "\\x1b]0;owned\\x07[red]w[/red]\\nname é" in out
    assert "\x1b" not in out


def test_info_describes_a_container(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "-q", "model.safetensors"])
    assert main(["info", "--json", "model.zstn"]) == 0
    record = json.loads(capsys.readouterr().out)
    expected = {"container": "zstn", "format_version": 16, "n_tensors": 4}
    expected |= {"dtypes": {"F32": 3, "I8": 1}, "metadata": {"format": "pt"}}
    expected |= {"original_bytes": len(MODEL), "compressed_bytes": os.path.getsize("model.zstn")}
    assert {key: record[key] for key in expected} == expected
    assert main(["info", "model.zstn"]) == 0
    assert "format = pt" in capsys.readouterr().out


def test_verify_finds_every_damaged_byte(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "-q", "model.safetensors", "w.bin"])
    assert main(["verify", "model.zstn", "w.bin.z4ai"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model.zstn: ok, 77.4 kB of content",
        "w.bin.z4ai: ok, 80.0 kB of content",
    ]
    for name in ("model.zstn", "w.bin.z4ai"):
        whole = Path(name).read_bytes()
        for offset in range(0, len(whole), len(whole) // 40):
            blob = bytearray(whole)
            blob[offset] ^= 0x10
            Path("damaged").write_bytes(blob)
            assert main(["verify", "--json", "damaged"]) == DATA
            out, err = capsys.readouterr()
            assert one_line(err).startswith("z4ai: damaged: ")
            record = json.loads(out)
            assert record["ok"] is False
            assert record["error"]["exit_status"] == DATA
            assert hasattr(z4ai.errors, record["error"]["type"])


def test_cut_files_are_one_line_for_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "-q", "model.safetensors", "w.bin"])
    for name in ("model.zstn", "w.bin.z4ai"):
        whole = Path(name).read_bytes()
        for nbytes in (0, 3, 4, 5, 9, 20, 40, len(whole) // 2, len(whole) - 1):
            Path(f"cut-{name}").write_bytes(whole[:nbytes])
            for command in ("verify", "info", "ls", "decompress"):
                status = main([command, f"cut-{name}"])
                err = capsys.readouterr().err
                one_line(err)
                assert status == DATA
    assert listing() == [
        "cut-model.zstn", "cut-w.bin.z4ai", "model.safetensors", "model.zstn", "w.bin", "w.bin.z4ai"
    ]  # fmt: skip


def test_a_model_that_safetensors_would_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    Path("bad.safetensors").write_bytes(MODEL + b"more")
    assert main(["compress", "bad.safetensors"]) == DATA
    one_line(capsys.readouterr().err)
    assert "bad.zstn" not in listing()
    assert main(["compress", "-q", "--raw", "bad.safetensors"]) == 0
    assert z4ai.decompress(Path("bad.safetensors.z4ai").read_bytes()) == MODEL + b"more"


@pytest.mark.parametrize("magic", [b"Z4AI\x03", b"ZSTN\x02"])
def test_files_of_the_earlier_package_are_named(
    magic: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("old").write_bytes(magic + bytes(200))
    for command in ("verify", "info"):
        assert main([command, "old"]) == DATA
        assert "earlier package" in one_line(capsys.readouterr().err)


# --- Output ---------------------------------------------------------------------------------------


def test_existing_output_is_kept_unless_forced(capsys: pytest.CaptureFixture[str]) -> None:
    for source, target in (("w.bin", "w.bin.z4ai"), ("model.safetensors", "model.zstn")):
        Path(target).write_bytes(b"precious")
        assert main(["compress", source]) == USAGE
        assert one_line(capsys.readouterr().err) == (
            f"z4ai: {target}: exists already; --force overwrites it"
        )
        assert Path(target).read_bytes() == b"precious"
        assert main(["compress", "-q", "--force", source]) == 0
        assert main(["decompress", target]) == USAGE
        assert "exists already" in one_line(capsys.readouterr().err)
        assert main(["decompress", "-qf", target]) == 0
    assert Path("w.bin").read_bytes() == weights()
    assert Path("model.safetensors").read_bytes() == MODEL


def test_a_failure_leaves_existing_output_alone() -> None:
    main(["compress", "-q", "w.bin", "model.safetensors"])
    for name in ("w.bin.z4ai", "model.zstn"):
        blob = bytearray(Path(name).read_bytes())
        blob[len(blob) // 2] ^= 1
        Path(name).write_bytes(blob)
        Path("out").write_bytes(b"precious")
        before = listing()
        assert main(["decompress", "-q", "--force", name, "-o", "out"]) == DATA
        assert Path("out").read_bytes() == b"precious"
        assert listing() == before


def test_input_and_output_must_differ(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--force", "w.bin", "-o", "./w.bin"]) == USAGE
    assert "same file" in one_line(capsys.readouterr().err)
    assert Path("w.bin").read_bytes() == weights()


@posix
def test_a_link_stays_one_and_new_files_have_the_usual_permissions() -> None:
    os.mkdir("far")
    os.symlink("far/target", "link")
    assert main(["compress", "-q", "w.bin", "-o", "link"]) == 0
    assert os.path.islink("link")
    assert z4ai.decompress(Path("far/target").read_bytes()) == weights()
    before = os.umask(0o027)
    try:
        main(["compress", "-q", "w.bin", "model.safetensors"])
    finally:
        os.umask(before)
    for name in ("w.bin.z4ai", "model.zstn"):
        assert stat.S_IMODE(os.stat(name).st_mode) == 0o640, name


def test_what_is_compressed_already_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    main(["compress", "-q", "w.bin"])
    assert main(["compress", "w.bin.z4ai"]) == USAGE
    assert "compressed already" in one_line(capsys.readouterr().err)
    assert main(["compress", "-q", "--raw", "w.bin.z4ai"]) == 0
    assert main(["decompress", "-q", "w.bin.z4ai.z4ai", "-o", "again"]) == 0
    assert Path("again").read_bytes() == Path("w.bin.z4ai").read_bytes()


# --- Usage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ([], "command"),
        (["squash", "w.bin"], "squash"),
        (["compress"], "file"),
        (["compress", "--dtype", "fp7", "w.bin"], "bf16"),
        (["compress", "--effort", "most", "w.bin"], "most"),
        (["compress", "--threads", "0", "w.bin"], "positive"),
        (["compress", "--threads", "x", "w.bin"], "positive"),
        (["compress", "-o", "out", "w.bin", "model.safetensors"], "--output"),
        (["verify", "-", "-"], "standard input"),
        (["verify", "--force", "w.bin"], "--force"),
    ],
)
def test_wrong_usage_is_told(
    args: Sequence[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert usage_status(*args) == USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert word in err.splitlines()[-1]


def test_a_dtype_for_a_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compress", "--dtype", "bf16", "model.safetensors"]) == USAGE
    assert "--raw" in one_line(capsys.readouterr().err)


def test_a_wrong_environment_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("Z4AI_NUM_THREADS", "many")
    assert usage_status("verify", "w.bin") == USAGE
    assert "Z4AI_NUM_THREADS" in capsys.readouterr().err.splitlines()[-1]


def test_version_tells_how_it_works_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_status("--version") == 0
    assert capsys.readouterr().out.splitlines() == [
        f"z4ai {z4ai.__version__}",
        f"isa {_dispatch.current()} (of {', '.join(_dispatch.runnable())})",
        f"openmp {'yes' if _threads.openmp() else 'no'}",
        f"threads {_threads.effective(None, 256)}",
    ]


def test_help_tells_the_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert usage_status("--help") == 0
    text = capsys.readouterr().out
    for word in ("compress", "decompress", "info", "ls", "verify", "130 interrupted"):
        assert word in text


# --- Systems that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["compress", "decompress", "info", "ls", "verify"])
def test_files_that_cannot_be_read(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "missing"]) == SYSTEM
    assert one_line(capsys.readouterr().err) == "z4ai: missing: No such file or directory"
    assert main([command, "."]) == SYSTEM
    one_line(capsys.readouterr().err)


@posix
@pytest.mark.parametrize("name", ["w.bin", "model.safetensors"])
def test_folders_that_are_not_there(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    target = os.path.join("no", "such", "out")
    assert main(["compress", name, "-o", target]) == SYSTEM
    assert target in one_line(capsys.readouterr().err)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("name", ["w.bin", "model.safetensors"])
def test_a_full_disk(name: str) -> None:
    before = listing()
    result = run("compress", name, "-o", "/dev/full")
    assert result.returncode == SYSTEM
    assert one_line(result.stderr) == "z4ai: /dev/full: No space left on device"
    for args in (["compress", name, "-o", "-"], ["info", "f.z4ai"], ["--version"]):
        Path("f.z4ai").write_bytes(z4ai.compress(weights()))
        with open("/dev/full", "wb") as full:
            result = run(*args, stdout=full)
        assert result.returncode == SYSTEM, args
        assert one_line(result.stderr).endswith("No space left on device")
    os.remove("f.z4ai")
    assert listing() == before
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)


@posix
def test_a_device_is_written_and_not_replaced() -> None:
    for name in ("w.bin", "model.safetensors"):
        assert main(["compress", "-q", "-f", name, "-o", os.devnull]) == 0
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


# --- Pipes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.bin", "model.safetensors"])
def test_pipes_both_ways(name: str) -> None:
    data = Path(name).read_bytes()
    packed = run("compress", "-", stdin=data)
    assert (packed.returncode, packed.stderr) == (0, b"")
    assert packed.stdout[:4] == (b"ZSTN" if name == "model.safetensors" else b"Z4AI")
    back = run("decompress", "-", stdin=packed.stdout)
    assert (back.returncode, back.stderr) == (0, b"")
    assert back.stdout == data
    assert run("verify", "-", stdin=packed.stdout).returncode == 0
    info = run("info", "--json", "-", stdin=packed.stdout)
    assert json.loads(info.stdout)["original_bytes"] == len(data)


def test_json_goes_beside_the_data() -> None:
    result = run("compress", "--json", "-", stdin=weights())
    record = json.loads(result.stderr)
    assert record["output"] == "-"
    assert record["compressed_bytes"] == len(result.stdout)
    assert record["original_bytes"] == len(weights())


def test_output_of_a_pipe_can_have_a_name() -> None:
    assert run("compress", "-", "-o", "named.z4ai", stdin=weights()).returncode == 0
    assert z4ai.decompress(Path("named.z4ai").read_bytes()) == weights()


@pytest.mark.parametrize("data", [b"", b"Z4A", b"ZSTN\x10", b"neither of the two"])
def test_a_bad_pipe_is_one_line(
    data: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("decompress", "verify", "info", "ls"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        assert main([command, "-"]) == DATA
        out, err = capsys.readouterr()
        assert out == ""
        assert one_line(err).startswith("z4ai: standard input: ")


@posix
@pytest.mark.parametrize(
    "args", [["compress", "big", "-o", "-"], ["ls", "many.zstn"], ["info", "many.zstn"]]
)
def test_a_closed_pipe_is_no_traceback(args: list[str]) -> None:
    Path("big").write_bytes(weights(1 << 20))
    many = {f"tensor.{i}.with.a.long.name": np.full(3, i, np.float32) for i in range(2000)}
    Path("many.safetensors").write_bytes(safetensors_file(many))
    assert main(["compress", "-q", "many.safetensors"]) == 0
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = run(*args, stdout=writer)
    finally:
        os.close(writer)
    assert (result.returncode, result.stderr) == (PIPE, b"")


@posix
def test_closed_standard_streams() -> None:
    for redirect, args in (
        ("<&-", "compress -"),
        (">&-", "compress w.bin -o -"),
        ("<&- >&- 2>&-", "compress -"),
    ):
        command = f"exec {sys.executable} -m z4ai {args} {redirect}"
        result = subprocess.run(
            ["sh", "-c", command], capture_output=True, timeout=60, check=False, stdin=None
        )
        assert result.returncode == SYSTEM, command
        assert b"Traceback" not in result.stderr


# --- Terminals ------------------------------------------------------------------------------------


def on_terminal(*args: str) -> tuple[int, str]:
    """Run with standard output and error on a terminal; -> status, what it showed."""
    import fcntl
    import pty
    import termios

    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    command = [sys.executable, "-m", "z4ai", *args]
    process = subprocess.Popen(command, stdout=follower, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # how Linux tells the end of a terminal
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    return process.wait(timeout=60), shown.decode()


@posix
@pytest.mark.parametrize("name", ["w.bin", "model.safetensors"])
def test_a_bar_on_a_terminal_only(name: str) -> None:
    status, shown = on_terminal("compress", name)
    assert status == 0
    assert f"compress {name}" in shown
    assert "%" in shown
    for flag in ("--quiet", "--json"):
        status, shown = on_terminal("compress", "--force", flag, name)
        assert status == 0
        assert "%" not in shown.replace("saved_pct", "")
    assert b"%" not in run("compress", "--force", name).stderr


@posix
def test_binary_output_is_kept_from_the_terminal() -> None:
    status, shown = on_terminal("compress", "w.bin", "-o", "-")
    assert status == USAGE
    assert "terminal" in shown


@posix
def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    long = {"a.very.long.name." * 6: np.zeros(5, np.float32)}
    Path("long.safetensors").write_bytes(safetensors_file(long))
    main(["compress", "-q", "long.safetensors"])
    status, shown = on_terminal("ls", "long.zstn")
    assert status == 0
    lines = [line.replace("\x1b[1m", "").replace("\x1b[0m", "") for line in shown.splitlines()]
    assert max(len(line) for line in lines) <= 60
    assert any("[5]" in line for line in lines)


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_tables_are_printed_in_any_encoding(encoding: str) -> None:
    Path("é.safetensors").write_bytes(safetensors_file({"π": np.zeros(5, np.float32)}))
    main(["compress", "-q", "é.safetensors"])
    result = run("ls", "é.zstn", env={"PYTHONIOENCODING": encoding})
    assert (result.returncode, result.stderr) == (0, b"")
    assert "π".encode(encoding, "backslashreplace") in result.stdout


# --- Signals --------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, INTERRUPTED), (signal.SIGTERM, TERMINATED)]
)
def test_a_signal_ends_it_and_leaves_nothing(number: int, status: int) -> None:
    before = listing()
    command = [sys.executable, "-m", "z4ai", "compress", "-", "-o", "out"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as process:
        try:
            process.stdin.write(weights(1 << 20))  # more is promised: the pipe stays open
            process.stdin.flush()
            wait_for(lambda: len(listing()) > len(before))  # the unfinished output is there
            time.sleep(0.3)  # and all that was sent is read: the next read waits
            process.send_signal(number)
            err = process.stderr.read()
            assert process.wait(timeout=30) == status
        finally:
            process.kill()
    assert err == (b"z4ai: interrupted\n" if number == signal.SIGINT else b"")
    assert listing() == before


@posix
def test_ctrl_c_ends_the_compression_of_a_large_file() -> None:
    nbytes = 8 << 30
    span = [0, nbytes]
    header = json.dumps({"w": {"dtype": "F32", "shape": [nbytes // 4], "data_offsets": span}})
    with open("large.safetensors", "wb") as file:  # a hole, read only until the signal
        file.write(len(header).to_bytes(8, "little") + header.encode())
        file.truncate(8 + len(header) + nbytes)
    before = listing()
    command = [sys.executable, "-m", "z4ai", "compress", "large.safetensors"]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: len(listing()) > len(before))
            time.sleep(0.2)
            assert process.poll() is None, "it is done already"
            process.send_signal(signal.SIGINT)
            sent = time.monotonic()
            assert process.wait(timeout=30) == INTERRUPTED
            took = time.monotonic() - sent
            assert process.stderr is not None
            assert one_line(process.stderr.read()) == "z4ai: interrupted"
        finally:
            process.kill()
    assert listing() == before
    assert took < 5, "waves of a few chunks a thread take milliseconds"


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)


def test_main_can_be_called_from_any_thread() -> None:
    import threading

    statuses: list[int] = []
    thread = threading.Thread(target=lambda: statuses.append(main(["compress", "-q", "w.bin"])))
    thread.start()
    thread.join()
    assert statuses == [0]


def test_what_draws_is_imported_only_when_something_is_drawn() -> None:
    code = (
        "import sys; from z4ai.cli import main; main(['compress', '-q', 'w.bin'])\n"
        "main(['verify', 'w.bin.z4ai']); print(sorted({'rich', 'tqdm'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


def test_a_read_only_view_of_a_pipe_loses_nothing() -> None:
    from z4ai.cli._files import _Pipe

    pipe = io.BufferedReader(_Pipe(b"head", io.BytesIO(b"tail" * 10)), 8)
    assert pipe.read(3) + pipe.read(5) + pipe.read() == b"head" + b"tail" * 10


# --- The page -------------------------------------------------------------------------------------


def test_the_page_names_every_option_and_status(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    for command in COMMANDS:
        assert usage_status(*command.split(), "--help") == 0
    options = set(re.findall(r"--[a-z][a-z-]*", capsys.readouterr().out)) - {"--help"}
    assert {"--dtype", "--json", "--threads"} <= options
    assert {option for option in options if f"`{option}`" not in page} == set()
    for status in (0, DATA, USAGE, SYSTEM, INTERRUPTED, PIPE, TERMINATED):
        assert f"\n| {status} | " in page
