"""Folders of models: what becomes of each file, and that every byte comes back."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from model_folders import SHAPES, index_of, sharded, shards, single, snapshot, weights, write_all

import z4ai
from z4ai.model_folder import carry
from z4ai.model_folder.hint import NAME as NOTE
from z4ai.model_folder.names import check_variant, with_variant, without_variant
from z4ai.safetensors import ZstnReader, compress_bytes, decompress_file

posix = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX system")


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Nobody cuts the power here, and it takes most of the time.
    monkeypatch.setattr(os, "fsync", lambda _: None)


def names(folder: str) -> set[str]:
    return {name for name, kept in snapshot(folder).items() if isinstance(kept, tuple)}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("variant", ["own.x-1", None])
def test_there_and_back(shape: str, variant: str | None) -> None:
    SHAPES[shape](Path("model"))
    before = snapshot("model")
    stats = z4ai.compress_model("model", "small", variant=variant)
    assert snapshot("model") == before, "the source is not touched"
    for name in names("small"):
        data = Path("small", name).read_bytes()
        assert (data[:4] == b"ZSTN") == name.endswith(".safetensors")
    n_weights = sum(name.endswith(".safetensors") for name in before)
    assert stats["n_weights"] == n_weights
    assert stats["original_bytes"] == sum(
        len(kept[0])  # type: ignore[index]
        for name, kept in before.items()
        if name.endswith(".safetensors")
    )
    assert z4ai.decompress_model("small", "back", variant=variant)["n_weights"] == n_weights
    assert snapshot("back") == before


@pytest.mark.parametrize(
    ("shape", "variant"), [*((shape, "z4ai") for shape in SHAPES), ("pipeline", None)]
)
def test_in_place_and_back(shape: str, variant: str | None) -> None:
    SHAPES[shape](Path("model"))
    before = snapshot("model")
    z4ai.compress_model("model", "small", variant=variant)
    stats = z4ai.compress_model("model", variant=variant, in_place=True)
    assert stats["n_removed"] > 0
    assert snapshot("model") == snapshot("small")
    again = z4ai.compress_model("model", variant=variant, in_place=True)
    assert snapshot("model") == snapshot("small")
    assert (again["n_removed"], again["n_skipped"]) == (0, stats["n_weights"])
    assert again["ratio"] == stats["ratio"]
    z4ai.decompress_model("model", variant=variant, in_place=True)
    assert snapshot("model") == before


@pytest.mark.parametrize("shape", SHAPES)
def test_beside_and_back(shape: str) -> None:
    SHAPES[shape](Path("model"))
    before = snapshot("model")
    z4ai.compress_model("model")
    beside = snapshot("model")
    assert {name: beside[name] for name in before} == before
    more = set(beside) - set(before)
    assert more, "something was written"
    assert all(".z4ai" in name for name in more)
    again = z4ai.compress_model("model")
    assert again["n_skipped"] == again["n_weights"]
    assert snapshot("model") == beside
    # Undone: the originals are there and the same, so that the others can go.
    z4ai.decompress_model("model", in_place=True)
    assert snapshot("model") == before
    # Also where the originals are gone.
    z4ai.compress_model("model")
    for name in before:
        if name.endswith(".safetensors") and "adapter" not in name:
            os.unlink(Path("model", name))
    z4ai.decompress_model("model")
    assert snapshot("model") == beside


def test_names_are_those_of_the_loaders() -> None:
    """As `_add_variant` of transformers 5.23 and `save_pretrained(variant=...)` make them."""
    for plain, named in {
        "model.safetensors": "model.z4ai.safetensors",
        "model-00001-of-00003.safetensors": "model.z4ai-00001-of-00003.safetensors",
        "model.safetensors.index.json": "model.safetensors.index.z4ai.json",
        "unet/diffusion_pytorch_model.safetensors": "unet/diffusion_pytorch_model.z4ai.safetensors",
        "model.fp16.safetensors": "model.fp16.z4ai.safetensors",
        "model.fp16-00001-of-00002.safetensors": "model.fp16.z4ai-00001-of-00002.safetensors",
        "model.safetensors.index.fp16.json": "model.safetensors.index.fp16.z4ai.json",
    }.items():
        assert with_variant(plain, "z4ai") == named
        assert without_variant(named, "z4ai") == plain
        assert with_variant(plain, None) == plain
        assert without_variant(plain, "z4ai") == plain
    for fixed in ("adapter_model.safetensors", "config.json", "x.bin", ".safetensors", "a.json"):
        assert with_variant(fixed, "z4ai") == fixed == without_variant(fixed, "z4ai")
    assert without_variant("adapter_model.z4ai.safetensors", "z4ai").count("z4ai") == 1
    for bad in ("", ".", "a/b", "..", "a\\b", "a b", "-00001-of-00002", "x-00001-of-00002", "a\n"):
        with pytest.raises(ValueError, match="variant"):
            check_variant(bad)
        with pytest.raises(ValueError, match="variant"):
            z4ai.compress_model("nowhere", "else", variant=bad)


def test_a_sharded_model_is_found_through_its_index() -> None:
    sharded(Path("model"))
    z4ai.compress_model("model", "small")
    original = json.loads(Path("model/model.safetensors.index.json").read_text())
    index = json.loads(Path("small/model.safetensors.index.z4ai.json").read_text())
    assert index["metadata"] == original["metadata"]
    assert set(index) == set(original)
    assert set(index["weight_map"]) == set(original["weight_map"])
    for tensor, shard in index["weight_map"].items():
        with ZstnReader.open(f"small/{shard}") as reader:
            assert tensor in reader.names()
    assert names("small") == {
        "config.json",
        NOTE,
        "model.safetensors.index.z4ai.json",
        *(f"model.z4ai-{k:05}-of-00003.safetensors" for k in (1, 2, 3)),
    }


def test_adapters_keep_their_name() -> None:
    write_all(Path("model"), {"adapter_model.safetensors": weights(1, "a"), "c.json": b"{}"})
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        z4ai.compress_model("model")
    assert names("model") == {"adapter_model.safetensors", "c.json"}
    z4ai.compress_model("model", "small")
    assert names("small") == {"adapter_model.safetensors", "c.json", NOTE}
    before = snapshot("model")
    z4ai.compress_model("model", in_place=True)
    assert Path("model/adapter_model.safetensors").read_bytes()[:4] == b"ZSTN"
    z4ai.decompress_model("model", in_place=True)
    assert snapshot("model") == before


def test_the_note_says_what_to_do() -> None:
    single(Path("model"))
    z4ai.compress_model("model", "small", variant="v")
    note = Path("small", NOTE).read_text()
    for word in ("header too large", "enable_hf()", 'variant="v"', "z4ai decompress-model"):
        assert word in note
    Path("model", NOTE).write_text("mine")
    z4ai.compress_model("model", "other")
    assert Path("other", NOTE).read_text() == "mine"
    z4ai.decompress_model("other", "back")
    assert snapshot("back") == snapshot("model")


# --- Resumed, refused ----------------------------------------------------------------------------


def test_what_is_there_is_not_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(Path("model"))
    z4ai.compress_model("model", "small")
    done = snapshot("small")
    os.unlink("small/model.z4ai-00002-of-00003.safetensors")
    os.unlink("small/config.json")
    made: list[str] = []
    compress_file = carry.compress_file

    def counted(src: str, *args: Any, **options: Any) -> dict[str, Any]:
        made.append(os.path.basename(src))
        return compress_file(src, *args, **options)

    monkeypatch.setattr(carry, "compress_file", counted)
    stats = z4ai.compress_model("model", "small")
    assert made == ["model-00002-of-00003.safetensors"]
    assert (stats["n_skipped"], stats["n_copied"]) == (2, 1)
    assert snapshot("small") == done


def test_a_model_that_changed_is_not_taken_for_done() -> None:
    """Same names, shapes and sizes: only the values are others."""
    single(Path("model"))
    Path("model/model.safetensors").write_bytes(weights(1, "a"))
    z4ai.compress_model("model", "small")
    old = snapshot("small")
    Path("model/model.safetensors").write_bytes(weights(2, "a"))
    with pytest.raises(FileExistsError, match=r"model\.safetensors becomes"):
        z4ai.compress_model("model", "small")
    assert snapshot("small") == old
    z4ai.compress_model("model", "small", force=True)
    z4ai.decompress_model("small", "back")
    assert snapshot("back") == snapshot("model")


@pytest.mark.parametrize(
    "name", ["model.z4ai.safetensors", "config.json", "model.safetensors.index.z4ai.json"]
)
@pytest.mark.parametrize("data", [b"mine", compress_bytes(weights(5, "other"))])
def test_files_of_others_are_not_overwritten(name: str, data: bytes) -> None:
    write_all(Path("model"), {"config.json": b"{}", **shards("model", 1)})
    Path("model/model.safetensors").write_bytes(weights(1, "a"))
    write_all(Path("small"), {name: data})
    before = snapshot("small")
    with pytest.raises(FileExistsError):
        z4ai.compress_model("model", "small")
    assert snapshot("small") == before, "refused before anything is written"
    z4ai.compress_model("model", "small", force=True)
    z4ai.decompress_model("small", "back")
    assert snapshot("back", modes=False) == snapshot("model", modes=False)


@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_weights_do_not_replace_others_that_are_to_be_compressed(
    in_place: bool, force: bool
) -> None:
    files = {"model.safetensors": weights(1, "a"), "model.z4ai.safetensors": weights(2, "b")}
    write_all(Path("model"), files)
    before = snapshot("model")
    with pytest.raises(FileExistsError):
        z4ai.compress_model("model", in_place=in_place, force=force)
    assert snapshot("model") == before
    z4ai.compress_model("model", "small")
    small = snapshot("small")
    with pytest.raises(FileExistsError):
        z4ai.decompress_model("small", in_place=in_place, force=force)
    assert snapshot("small") == small
    z4ai.decompress_model("small", "back")
    assert snapshot("back") == before


def test_what_cannot_be_restored_beside_is_said() -> None:
    """Not silence, as if it were done."""
    sharded(Path("model"))
    z4ai.compress_model("model", "small", variant=None)
    before = snapshot("small")
    with pytest.raises(ValueError, match=r"plain name: .* a folder of its own"):
        z4ai.decompress_model("small")
    assert snapshot("small") == before
    assert z4ai.decompress_model("model")["n_weights"] == 0, "nothing is compressed here"
    z4ai.decompress_model("small", in_place=True)
    assert snapshot("small") == snapshot("model")


def test_restoring_does_not_overwrite_others() -> None:
    single(Path("model"))
    z4ai.compress_model("model", "small")
    write_all(Path("back"), {"model.safetensors": b"mine"})
    before = snapshot("back")
    with pytest.raises(FileExistsError):
        z4ai.decompress_model("small", "back")
    assert snapshot("back") == before
    # Of the same size, but another content.
    data = bytearray(Path("model/model.safetensors").read_bytes())
    data[-1] ^= 1
    Path("small/model.safetensors").write_bytes(data)
    with pytest.raises(FileExistsError):
        z4ai.decompress_model("small")
    with pytest.raises(FileExistsError):
        z4ai.decompress_model("small", "else")
    assert Path("small/model.safetensors").read_bytes() == data
    assert Path("small/model.z4ai.safetensors").exists()
    z4ai.decompress_model("small", force=True)
    assert Path("small/model.safetensors").read_bytes() != data


def test_a_container_that_does_not_decode_removes_nothing() -> None:
    single(Path("model"))
    z4ai.compress_model("model")
    path = Path("model/model.z4ai.safetensors")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    before = snapshot("model")
    with pytest.raises(FileExistsError):
        z4ai.compress_model("model", in_place=True)
    with pytest.raises(z4ai.errors.FormatError):
        z4ai.decompress_model("model", in_place=True)
    assert snapshot("model") == before


def test_arguments_that_exclude_one_another() -> None:
    single(Path("model"))
    for options in (
        {"in_place": True, "verify": False},
        {"in_place": True, "dst": "x"},
        {"variant": None},
        {"link": True},
        {"dst": "model"},
        {"dst": "model/sub"},
        {"dst": "."},
        {"dst": "x", "effort": "most"},
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - each its own message
            z4ai.compress_model("model", **options)  # type: ignore[arg-type]
    assert os.listdir() == ["model"]
    with pytest.raises(FileNotFoundError):
        z4ai.compress_model("missing", "x")
    with pytest.raises(NotADirectoryError):
        z4ai.compress_model("model/config.json", "x")
    with pytest.raises(NotADirectoryError):
        z4ai.compress_model("model", "model/config.json")
    os.mkdir("none")
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        z4ai.compress_model("none", "x")
    with pytest.raises(ValueError, match=r"no \.safetensors weights"):
        z4ai.decompress_model("none", "x")
    assert sorted(os.listdir()) == ["model", "none"]


@pytest.mark.parametrize("in_place", [False, True])
def test_progress_counts_every_byte_once(in_place: bool) -> None:
    sharded(Path("model"))
    calls: list[tuple[int, int]] = []

    def tell(done: int, total: int) -> None:
        calls.append((done, total))

    def check() -> None:
        assert len({total for _, total in calls}) == 1
        assert [done for done, _ in calls] == sorted({done for done, _ in calls}), "must rise"
        assert calls[-1][0] == calls[-1][1]
        calls.clear()

    dst = None if in_place else "small"
    z4ai.compress_model("model", dst, in_place=in_place, progress=tell)
    check()
    if not in_place:
        z4ai.compress_model("model", dst, progress=tell)
        check()
    src = "model" if in_place else "small"
    dst = None if in_place else "back"
    z4ai.decompress_model(src, dst, in_place=in_place, progress=tell)
    check()


def test_bars_only_where_they_are_welcome(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from z4ai import _progress

    single(Path("model"))
    z4ai.compress_model("model", "a")
    assert capsys.readouterr() == ("", "")
    z4ai.compress_model("model", "b", progress=True)
    assert "100%" in capsys.readouterr().err
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert _progress.bars_are_welcome()
    monkeypatch.setattr(_progress, "_DELAY_SECONDS", 0)
    z4ai.compress_model("model", "c")
    assert "100%" in capsys.readouterr().err
    for value, off in {"1": True, "on": True, "True": True, "0": False, "": False}.items():
        monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", value)
        assert _progress.bars_are_welcome() != off
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "YES")
    z4ai.compress_model("model", "d")
    z4ai.compress_model("model", "e", progress=True)
    assert capsys.readouterr() == ("", "")


# --- Links, modes, room --------------------------------------------------------------------------


@posix
def test_what_is_private_stays_private() -> None:
    """At every moment, also where the process would let others read."""
    single(Path("model/sub"))
    os.chmod("model", 0o700)
    os.chmod("model/sub", 0o750)
    before = snapshot("model")
    umask = os.umask(0)
    try:
        seen = set()

        def look(*_: int) -> None:
            seen.add(Path("small").stat().st_mode & 0o77)
            seen.add(Path("small/.z4ai-partial").stat().st_mode & 0o77)
            if Path("small/sub").exists():
                assert Path("small/sub").stat().st_mode & 0o777 == 0o750

        z4ai.compress_model("model", "small", progress=look)
        assert seen == {0}
        os.umask(0o77)
        z4ai.decompress_model("small", "back")
    finally:
        os.umask(umask)
    assert snapshot("back") == before, "also where the umask takes more away"


@posix
def test_links_lead_nowhere_else() -> None:
    single(Path("model"))
    Path("secret").write_text("s")
    os.symlink("../secret", "model/notes.txt")
    for work in (z4ai.compress_model, z4ai.decompress_model):
        with pytest.raises(ValueError, match="leads out of the folder"):
            work("model", "small")
    assert not Path("small").exists()
    z4ai.compress_model("model", "small", follow_links=True)
    assert Path("small/notes.txt").read_text() == "s"
    assert not Path("small/notes.txt").is_symlink()
    os.unlink("model/notes.txt")
    os.mkdir("folder")
    for target in ("../folder", str(Path("model").absolute()), ".."):
        os.symlink(target, "model/sub")
        with pytest.raises(ValueError, match="link"):
            z4ai.compress_model("model", "other")
        os.unlink("model/sub")
    os.symlink("missing", "model/dangling")
    with pytest.raises(FileNotFoundError):
        z4ai.compress_model("model", "other")
    os.unlink("model/dangling")
    os.mkfifo("model/pipe")
    with pytest.raises(ValueError, match="neither a file nor a folder"):
        z4ai.compress_model("model", "other")
    assert not Path("other").exists()


@posix
def test_links_inside_are_kept_or_followed() -> None:
    single(Path("model/step-1"))
    os.symlink("step-1", "model/latest")
    os.symlink("step-1/config.json", "model/config.json")
    z4ai.compress_model("model", "small")
    assert os.readlink("small/latest") == "step-1"
    assert Path("small/latest/model.z4ai.safetensors").is_file()
    assert Path("small/config.json").read_bytes() == Path("model/config.json").read_bytes()
    z4ai.compress_model("model", "small")
    z4ai.decompress_model("small", "back")
    assert os.readlink("back/latest") == "step-1"
    assert (
        Path("back/latest/model.safetensors").read_bytes()
        == Path("model/latest/model.safetensors").read_bytes()
    )


@posix
@pytest.mark.parametrize("linked", ["model.safetensors.index.json", "model-00002-of-00003"])
def test_no_link_is_left_to_nothing(linked: str) -> None:
    sharded(Path("model"))
    name = next(name for name in os.listdir("model") if name.startswith(linked))
    os.symlink(name, "model/latest")
    before = snapshot("model")
    with pytest.raises(ValueError, match="latest: a link"):
        z4ai.compress_model("model", in_place=True)
    assert snapshot("model") == before
    z4ai.compress_model("model", variant=None, in_place=True)
    assert Path("model/latest").read_bytes() == Path("model", name).read_bytes()
    z4ai.decompress_model("model", variant=None, in_place=True)
    assert snapshot("model") == before


@posix
def test_a_snapshot_of_the_hub_cache() -> None:
    """Links to blobs beside the snapshots: read without asking, never removed."""
    single(Path("plain"))
    home = Path("hub/models--x--y")
    snap = home / "snapshots" / "abc"
    snap.mkdir(parents=True)
    (home / "blobs").mkdir()
    for k, name in enumerate(sorted(os.listdir("plain"))):
        shutil.copy(f"plain/{name}", home / "blobs" / str(k))
        os.symlink(f"../../blobs/{k}", snap / name)
    (snap / "unet").mkdir()
    os.symlink("../../../blobs/1", snap / "unet" / "model.safetensors")
    z4ai.compress_model(snap / "unet", "part")
    assert names("part") == {"model.z4ai.safetensors", NOTE}
    os.unlink(snap / "unet" / "model.safetensors")
    (snap / "unet").rmdir()
    blobs = snapshot(home)
    z4ai.compress_model(snap, "small")
    z4ai.decompress_model("small", "back")
    assert snapshot("back") == snapshot("plain")
    for variant in ("z4ai", None):
        with pytest.raises(ValueError, match="a link"):
            z4ai.compress_model(snap, variant=variant, in_place=True)
    assert snapshot(home) == blobs
    z4ai.compress_model(snap)
    assert set(snapshot(home)) - set(blobs) == {"snapshots/abc/model.z4ai.safetensors"}


@posix
def test_nothing_is_written_through_links() -> None:
    single(Path("model"))
    single(Path("model/sub"))
    os.makedirs("small")
    os.mkdir("outside")
    os.symlink("../outside", "small/sub")
    with pytest.raises(ValueError, match="behind a link"):
        z4ai.compress_model("model", "small")
    os.unlink("small/sub")
    Path("outside/file").write_text("kept")
    for name in ("model.z4ai.safetensors", "config.json", NOTE):
        os.symlink("../outside/file", f"small/{name}")
        with pytest.raises(ValueError, match="not a regular file"):
            z4ai.compress_model("model", "small", force=True)
        os.unlink(f"small/{name}")
    os.symlink("../outside", "small/.z4ai-partial")
    with pytest.raises(FileExistsError):
        z4ai.compress_model("model", "small")
    assert snapshot("outside") == {"file": snapshot("outside")["file"]}
    assert Path("outside/file").read_text() == "kept"


@posix
def test_hard_links_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    single(Path("model"))
    z4ai.compress_model("model", "small", link=True)
    assert os.path.samefile("model/config.json", "small/config.json")
    assert z4ai.compress_model("model", "small", link=True)["n_copied"] == 0
    z4ai.decompress_model("small", "back")
    assert snapshot("back") == snapshot("model")
    assert not os.path.samefile("model/config.json", "back/config.json")

    def fail(*_: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", fail)
    z4ai.compress_model("model", "copied", link=True)
    assert snapshot("copied") == snapshot("small")


@posix
def test_a_source_that_nobody_may_write_to() -> None:
    sharded(Path("model/sub"))
    for path in [*Path("model").rglob("*"), Path("model")]:
        os.chmod(path, 0o555 if path.is_dir() else 0o444)
    before = snapshot("model")
    z4ai.compress_model("model", "small")
    z4ai.decompress_model("small", "back")
    assert snapshot("back") == before == snapshot("model")
    if os.geteuid() != 0:
        with pytest.raises(PermissionError):
            z4ai.compress_model("model", in_place=True)
    for folder in ("model", "small", "back"):
        os.chmod(folder, 0o755)
        os.chmod(f"{folder}/sub", 0o755)


@pytest.mark.parametrize("in_place", [False, True])
def test_no_room_to_restore(in_place: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    sharded(Path("model"))
    z4ai.compress_model("model", "small")
    before = snapshot("small")
    monkeypatch.setattr(carry.Carrier, "_free", lambda _: 100)
    with pytest.raises(OSError, match="not enough room"):
        z4ai.decompress_model("small", None if in_place else "back", in_place=in_place)
    assert snapshot("small") == before
    assert not Path("back").exists()


def test_little_room_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where both forms of a model may not have room, each original goes as soon as it can."""
    sharded(Path("model"))
    before = snapshot("model")
    most: list[int] = []
    compress_file = carry.compress_file

    def counted(*args: Any, **options: Any) -> dict[str, Any]:
        most.append(sum(name.endswith(".safetensors") for name in os.listdir("model")))
        return compress_file(*args, **options)

    monkeypatch.setattr(carry, "compress_file", counted)
    z4ai.compress_model("model", "whole")
    most.clear()
    monkeypatch.setattr(carry.Carrier, "_free", lambda _: 14_000)
    z4ai.compress_model("model", in_place=True)
    assert most == [3, 3, 3]
    assert snapshot("model") == snapshot("whole")
    z4ai.decompress_model("model", in_place=True)
    assert snapshot("model") == before
    monkeypatch.undo()


def test_one_run_at_a_time() -> None:
    single(Path("model"))

    def again(*_: int) -> None:
        with pytest.raises(BlockingIOError, match="another run"):
            z4ai.compress_model("model", "small")
        raise KeyboardInterrupt

    if os.name == "posix":
        with pytest.raises(KeyboardInterrupt):
            z4ai.compress_model("model", "small", progress=again)
        assert ".z4ai-partial" not in os.listdir("small")
    z4ai.compress_model("model", "small")


def test_containers_are_ordinary_ones() -> None:
    single(Path("model"))
    z4ai.compress_model("model", "small", effort="fast", threads=1, verify=False)
    decompress_file("small/model.z4ai.safetensors", "one")
    assert Path("one").read_bytes() == Path("model/model.safetensors").read_bytes()


def test_an_index_whose_shards_have_other_names() -> None:
    files = {"anything.safetensors": weights(1, "a"), "b.safetensors": weights(2, "b")}
    index = index_of({"anything.safetensors": ["a"], "b.safetensors": ["b"]}, note="ü")
    write_all(Path("model"), files | {"model.safetensors.index.json": index})
    z4ai.compress_model("model", "small")
    found = json.loads(Path("small/model.safetensors.index.z4ai.json").read_bytes())
    assert found["weight_map"] == {"a": "anything.z4ai.safetensors", "b": "b.z4ai.safetensors"}
    assert found["metadata"]["note"] == "ü"
