"""Folders of models whose compression is killed, runs out of disk, or is given lies."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_folders import index_of, pipeline, sharded, shards, snapshot, weights, write_all

import z4ai
from z4ai.errors import FormatError
from z4ai.model_folder import carry, index
from z4ai.model_folder.names import with_variant, without_variant
from z4ai.safetensors import decompress_bytes

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Nobody cuts the power here, and it takes most of the time.
    monkeypatch.setattr(os, "fsync", lambda _: None)


def lost(folder: str, originals: dict[str, bytes], variant: str | None) -> list[str]:
    """Weights that are there neither as they were nor in a container."""
    gone = []
    for name, data in originals.items():
        for form in (name, with_variant(name, variant)):
            path = Path(folder, form)
            if path.exists():
                found = path.read_bytes()
                if found == data or (found[:4] == b"ZSTN" and decompress_bytes(found) == data):
                    break
        else:
            gone.append(name)
    return gone


def killed_after(n: int, work: Callable[[], object]) -> bool:
    """Do the work in a child that is killed before its n-th change of a folder; -> whether so."""
    child = os.fork()
    if child == 0:
        left = n

        def watched(change: Callable[..., Any]) -> Callable[..., Any]:
            def changed(*args: Any, **options: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                return change(*args, **options)

            return changed

        for name in ("replace", "unlink", "mkdir", "rmdir", "chmod", "fsync", "write", "utime"):
            setattr(os, name, watched(getattr(os, name)))
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL), "the work itself must not fail"
    return status != 0


@posix
@pytest.mark.parametrize("little_room", [False, True])
@pytest.mark.parametrize("variant", ["z4ai", None])
def test_killed_anywhere_in_place(
    variant: str | None, little_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_all(Path("model"), {"config.json": b"{}", **shards("model", 2)})
    originals = {p.name: p.read_bytes() for p in Path("model").glob("*.safetensors")}
    before = snapshot("model")
    z4ai.compress_model("model", "small", variant=variant)
    after = snapshot("small")
    if little_room:
        monkeypatch.setattr(carry.Carrier, "_free", lambda _: 14_000)

    def there() -> None:
        z4ai.compress_model("work", variant=variant, in_place=True, threads=1)

    def back() -> None:
        z4ai.decompress_model("work", variant=variant, in_place=True, threads=1)

    for work, first, last in ((there, before, after), (back, after, before)):
        n = 0
        while True:
            shutil.rmtree("work", ignore_errors=True)
            shutil.copytree("model" if first is before else "small", "work")
            was_killed = killed_after(n, work)
            assert lost("work", originals, variant) == []
            if not was_killed:
                break
            if not little_room:
                whole = [
                    all(Path("work", f).exists() for f in files if f.endswith(".safetensors"))
                    for files in (before, after)
                ]
                assert any(whole), "the model is complete under one of its names"
            work()
            assert snapshot("work") == last, f"killed at change {n}"
            n += 1
        assert n > 10, "there were moments to be killed at"


@posix
def test_killed_anywhere_into_another_folder() -> None:
    pipeline(Path("model"))
    before = snapshot("model")
    z4ai.compress_model("model", "small")
    after = snapshot("small")
    for first, last, work in (
        ("model", after, z4ai.compress_model),
        ("small", before, z4ai.decompress_model),
    ):
        n = 0
        while killed_after(n, lambda: work(first, "work", threads=1)):  # noqa: B023
            n += 7
            if n % 3 == 0:  # also resumed by one that is killed in its turn
                continue
            work(first, "work")
            assert snapshot("work") == last
            shutil.rmtree("work")
        assert n > 50
        shutil.rmtree("work", ignore_errors=True)
    assert snapshot("model") == before


_SCRIPT = """
import sys, z4ai
print("ready", flush=True)
z4ai.compress_model("work", in_place=True, effort="max")
"""


@posix
def test_killed_from_outside() -> None:
    files = {f"{k}.safetensors": weights(k, "a", "b", n=2048) for k in range(4)}
    write_all(Path("model"), files)
    before = snapshot("model")
    for delay in (0.0, 0.1, 0.4):
        shutil.copytree("model", "work")
        environment = {**os.environ, "PYTHONPATH": str(Path(z4ai.__file__).parents[1])}
        command = [sys.executable, "-c", _SCRIPT]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline()
            time.sleep(delay)
            process.kill()
        assert lost("work", files, "z4ai") == []
        z4ai.compress_model("work", in_place=True)
        z4ai.decompress_model("work", in_place=True)
        assert snapshot("work") == before
        shutil.rmtree("work")


@posix
@pytest.mark.parametrize("in_place", [False, True])
def test_a_full_disk_leaves_the_originals(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(Path("model"))
    before = snapshot("model")
    write = os.write
    room = 15_000

    def full(fd: int, data: Any) -> int:
        nonlocal room
        if (room := room - len(data)) < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            z4ai.compress_model("model", in_place=in_place)
    now = snapshot("model")
    assert {name: now[name] for name in before} == before
    more = {"model.z4ai-00001-of-00003.safetensors"}
    assert set(now) - set(before) == more, "what was complete; it is taken up again"
    z4ai.compress_model("model", in_place=in_place)
    z4ai.decompress_model("model", in_place=True)
    assert snapshot("model") == before


@posix
def test_originals_go_when_all_else_is_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(Path("model"))
    events: list[str] = []

    def watched(name: str, label: Callable[..., str]) -> None:
        change = getattr(os, name)

        def changed(*args: Any, **options: Any) -> Any:
            events.append(label(*args))
            return change(*args, **options)

        monkeypatch.setattr(os, name, changed)

    watched("fsync", lambda fd: "sync folder" if os.path.isdir(f"/dev/fd/{fd}") else "sync")
    watched("replace", lambda _, new: f"name {os.path.basename(new)}")
    watched("unlink", lambda path: f"remove {os.path.basename(path)}")
    z4ai.compress_model("model", in_place=True)
    new = [k for k, event in enumerate(events) if event.startswith("name ") and "z4ai" in event]
    assert len(new) == 3 + 1 + 1, "shards, their index, the note"
    for k in new:
        assert "sync" in events[:k]
        assert events[k - 1] != f"name {events[k][5:]}"
        assert events[k + 1] == "sync folder"
    removed = [k for k, event in enumerate(events) if event.startswith("remove model")]
    assert len(removed) == 3 + 1
    assert min(removed) > max(new) + 1
    assert events[removed[-1]] == "remove model.safetensors.index.json", "last"


@posix
@pytest.mark.parametrize("work", ["compress_model", "decompress_model"])
def test_what_was_there_is_on_the_disk_before_originals_go(
    work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever wrote it may have left that to the system."""
    sharded(Path("model"))
    z4ai.compress_model("model")
    made = {path.name for path in Path("model").glob("*.safetensors")}
    made = {name for name in made if ("z4ai" in name) == (work == "compress_model")}
    synced: set[int] = set()
    fsync, unlink = os.fsync, os.unlink

    def synced_too(fd: int) -> None:
        synced.add(os.fstat(fd).st_ino)
        fsync(fd)

    def removed(path: str) -> None:
        if path.endswith(".safetensors"):
            assert {Path("model", name).stat().st_ino for name in made} <= synced
        unlink(path)

    monkeypatch.setattr(os, "fsync", synced_too)
    monkeypatch.setattr(os, "unlink", removed)
    stats = getattr(z4ai, work)("model", in_place=True)
    assert len(made) == stats["n_skipped"] == 3
    assert stats["n_removed"] >= 3


def test_an_original_that_changes_meanwhile_is_kept() -> None:
    write_all(Path("model"), {"a.safetensors": weights(1, "a"), "b.safetensors": weights(2, "b")})
    new = weights(3, "a")

    def change(done: int, total: int) -> None:
        if done == total:
            Path("model/a.safetensors").write_bytes(new)

    with pytest.raises(FormatError, match="changed meanwhile"):
        z4ai.compress_model("model", in_place=True, progress=change)
    assert Path("model/a.safetensors").read_bytes() == new


# --- Lies ----------------------------------------------------------------------------------------

LIES: dict[str, bytes] = {
    "not_json": b"{",
    "not_utf8": b'{"weight_map": {"a": "\xff.safetensors"}}',
    "a_list": b"[]",
    "a_number": b"7",
    "no_map": b'{"metadata": {}}',
    "map_is_a_list": b'{"weight_map": []}',
    "map_is_a_string": b'{"weight_map": "model"}',
    "shard_is_a_number": b'{"weight_map": {"a": 1}}',
    "shard_is_a_list": b'{"weight_map": {"a": ["x"]}}',
    "tensor_twice": b'{"weight_map": {"a": "m.safetensors", "a": "n.safetensors"}}',
    "map_twice": b'{"weight_map": {}, "weight_map": {"a": "m.safetensors"}}',
    "deep": b'{"weight_map": ' + b"[" * 200_000,
    "large_number": b'{"weight_map": {}, "x": ' + b"9" * 5000 + b"}",
    **{
        f"shard_{k}": json.dumps({"weight_map": {"a": shard}}).encode()
        for k, shard in enumerate(
            [
                "../secret.safetensors",
                "/etc/passwd",
                "sub/../../secret.safetensors",
                "..",
                "",
                ".",
                "./m.safetensors",
                "sub//m.safetensors",
                "..\\secret.safetensors",
                "C:\\m.safetensors",
                "C:m.safetensors",
                "m.safetensors\0",
                "missing.safetensors",
                "M.SAFETENSORS",
                "\ud800.safetensors",
            ]
        )
    },
}


@pytest.mark.parametrize("lie", LIES)
def test_an_index_that_lies_is_refused(lie: str) -> None:
    write_all(Path("."), {"secret.safetensors": weights(7, "a")})
    files = {"m.safetensors": weights(1, "a"), "model.safetensors.index.json": LIES[lie]}
    write_all(Path("model"), files)
    before = snapshot(".")
    for options in ({}, {"in_place": True}, {"dst": "small"}):
        with pytest.raises(FormatError, match=r"index\.json"):
            z4ai.compress_model("model", **options)  # type: ignore[arg-type]
    os.rename("model/model.safetensors.index.json", "model/model.safetensors.index.z4ai.json")
    missing = {"missing.safetensors", "M.SAFETENSORS", "\ud800.safetensors"}
    is_name = lie.startswith("shard_") and lie[6:].isdecimal()
    if not (is_name and json.loads(LIES[lie])["weight_map"]["a"] in missing):
        with pytest.raises(FormatError, match=r"index\.z4ai\.json"):
            z4ai.decompress_model("model", "small")
    os.rename("model/model.safetensors.index.z4ai.json", "model/model.safetensors.index.json")
    assert snapshot(".") == before


@pytest.mark.parametrize(
    "own", [7, {}, {"original": 7}, {"original": "{}"}, {"original": "\ud800"}]
)
def test_an_original_index_that_lies_is_refused(own: Any) -> None:
    lie = json.dumps({"weight_map": {"a": "m.z4ai.safetensors"}, "z4ai": own}).encode()
    with pytest.raises(FormatError, match="what"):
        index.restore_index(lie, "z4ai", "what")
    other = json.dumps({"weight_map": {"a": "/etc/passwd"}})
    lie = json.dumps({"weight_map": {"a": "m.safetensors"}, "z4ai": {"original": other}}).encode()
    with pytest.raises(FormatError, match="what"):
        index.restore_index(lie, "z4ai", "what")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"", "model.safetensors"),
        (weights(1, "a")[:-1], "model.safetensors"),
        (weights(1, "a") + b"x", "model.safetensors"),
        (b"ZSTN" + bytes(100), "model.safetensors"),
        (b"ZSTN", "model.safetensors"),
    ],
)
def test_damaged_weights_are_refused_before_anything_is_written(data: bytes, told: str) -> None:
    write_all(Path("model"), {"a.safetensors": weights(1, "a"), "model.safetensors": data})
    before = snapshot("model")
    for options in ({}, {"in_place": True}, {"dst": "small"}):
        with pytest.raises(FormatError, match=told):
            z4ai.compress_model("model", **options)  # type: ignore[arg-type]
    if data[:4] == b"ZSTN":
        with pytest.raises(FormatError, match=told):
            z4ai.decompress_model("model", "small")
    assert snapshot("model") == before
    assert not Path("small").exists()


def test_two_containers_of_one_name() -> None:
    write_all(Path("model"), {"model.safetensors": weights(1, "a")})
    z4ai.compress_model("model")
    z4ai.compress_model("model", "same", variant=None)
    shutil.copy("model/model.z4ai.safetensors", "same")
    with pytest.raises(ValueError, match="both restore"):
        z4ai.decompress_model("same", "back")
    assert not Path("back").exists()


# --- Indexes in general --------------------------------------------------------------------------

NAMES = st.one_of(
    st.text(min_size=1, max_size=8).filter(lambda s: not set(s) & set('/\\:\0"') and s[0] != "."),
    st.integers(1, 9).map(lambda k: f"model-{k:05}-of-00009"),
    st.sampled_from(["model", "model.z4ai", "adapter_model", "z4ai", "weight_map", "x/model"]),
).map(lambda s: f"{s}.safetensors")
VALUES = st.one_of(
    NAMES, st.text(max_size=5), st.integers(), st.none(), st.lists(NAMES, max_size=2)
)


@given(
    st.dictionaries(st.one_of(NAMES, st.text(max_size=6)), NAMES, max_size=6),
    st.dictionaries(st.sampled_from(["metadata", "z4ai", "model.safetensors"]), VALUES),
    st.booleans(),
    st.sampled_from([None, 1, "\t"]),
)
def test_any_index_is_renamed_and_restored(
    shards: dict[str, str], more: dict[str, Any], ascii_only: bool, indent: Any
) -> None:
    document = {**more, "weight_map": shards}
    try:
        data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    except UnicodeEncodeError:
        return
    renamed = {name: with_variant(name, "z4ai") for name in shards.values()}
    named = index.rename_shards(data, renamed, "z4ai", "what")
    found = json.loads(named)
    assert found["weight_map"] == {k: renamed[v] for k, v in shards.items()}
    assert found.get("metadata") == document.get("metadata")
    assert index.restore_index(named, "z4ai", "what") == data


@given(NAMES)
def test_any_name_comes_back(name: str) -> None:
    named = with_variant(name, "z4ai")
    assert without_variant(named, "z4ai") == name
    assert index.shards_of(index_of({name: ["a"]}), "what") == [name]
