"""A series gives back what was added, whatever was added and dropped in between."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import checkpoint, file_of, write
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from z4ai.errors import FormatError
from z4ai.safetensors import ZstnReader, compress_file
from z4ai.series import Series, Step, choice, storing
from z4ai.series.manifest import DEPTH_CAP

KINDS = ("fp32", "bf16", "adam")


@pytest.fixture(autouse=True)
def _in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda fd: None)  # slow, and no power is lost here


def add(series: Series, kind: str, step: int, **options: Any) -> dict[str, Any]:
    name = f"{kind}.step{step:03d}.safetensors"
    write(Path(name), kind, step)
    return series.add(name, **options)


def restored(series: Series, name: str) -> bytes:
    series.restore(name, "restored")
    return Path("restored").read_bytes()


def steps(series: Series) -> dict[str, Step]:
    return {step.name: step for step in series.ls()}


def only_what_belongs(series: Series) -> None:
    """No file is there that no step has, and nothing half written."""
    files = {step.file for step in series.ls()}
    assert set(os.listdir(series.path)) == files | {"series.json", ".lock", ".partial"}
    assert os.listdir(os.path.join(series.path, ".partial")) == []


# --- What is stored against what ------------------------------------------------------------------


def test_a_run_of_three_streams() -> None:
    series = Series.create("run")
    for step in range(3):
        for kind in KINDS:
            add(series, kind, step)
    found = steps(series)
    assert {s.stream for s in found.values()} == {"fp32", "bf16", "adam"}
    assert [s.step for s in found.values()] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [found[f"fp32.step00{k}"].base for k in range(3)] == [
        None,
        "fp32.step000",
        "fp32.step001",
    ]
    for k in range(3):
        copy = found[f"bf16.step00{k}"]
        assert copy.base == f"fp32.step00{k}", "a cast costs nothing"
        assert copy.encoded_nbytes < copy.original_nbytes / 20
        assert found[f"adam.step00{k}"].is_keyframe, "noise has no base"
        for kind in KINDS:
            assert restored(series, f"{kind}.step00{k}") == checkpoint(kind, k)
    only_what_belongs(series)


def test_copies_may_come_first() -> None:
    series = Series.create("run")
    for step in range(2):
        add(series, "bf16", step)
        add(series, "fp32", step)
    found = steps(series)
    assert [s.base for s in found.values()][:2] == [None, "bf16.step000"]
    assert all(restored(series, n) == checkpoint(n[:4], int(n[-1])) for n in found)


@pytest.mark.parametrize("max_depth", [0, 1, 2, 3])
def test_no_chain_is_deeper_than_the_bound(max_depth: int) -> None:
    series = Series.create("run", max_depth=max_depth)
    for step in range(7):
        add(series, "fp32", step)
        add(series, "bf16", step)
    found = series.ls()
    assert max(step.depth for step in found) == max_depth
    if max_depth > 1:
        # However deep the master lies, there is room for its copy.
        assert all(s.base == f"fp32{s.name[4:]}" for s in found if s.stream == "bf16")
    assert series.verify().ok


def test_a_keyframe_on_demand_and_a_delta_on_demand() -> None:
    series = Series.create("run")
    add(series, "fp32", 0)
    assert add(series, "fp32", 1, keyframe=True)["base"] is None
    write(Path("other.safetensors"), "fp32", 0, run=5)
    unlike = series.add("other.safetensors", stream="fp32", keyframe=False)
    assert unlike["base"] == "fp32.step001"
    assert (
        unlike["compressed_bytes"]
        < 1.01 * compress_file("other.safetensors", "x")["compressed_bytes"]
    )
    assert (
        series.add("other.safetensors", "more", stream="else", keyframe=False)["stream"] == "else"
    )
    assert series.verify().ok


def test_a_delta_that_does_not_pay_is_none() -> None:
    series = Series.create("run")
    add(series, "fp32", 0)
    write(Path("other.safetensors"), "fp32", 0, run=5)
    stats = series.add("other.safetensors")
    assert (stats["stream"], stats["base"]) == ("fp32", None)
    assert stats["compressed_bytes"] == compress_file("other.safetensors", "x")["compressed_bytes"]


def test_steps_may_be_added_in_any_order() -> None:
    series = Series.create("run")
    for step in (9, 0, 3, 4):
        add(series, "fp32", step)
    found = steps(series)
    assert found["fp32.step000"].base == "fp32.step009", "nothing is before it"
    assert found["fp32.step003"].base == "fp32.step000"
    assert found["fp32.step004"].base == "fp32.step003"
    assert series.verify().ok


def test_a_number_may_be_given_or_be_unknown() -> None:
    series = Series.create("run")
    write(Path("a.safetensors"), "fp32", 0)
    assert series.add("a.safetensors")["step"] is None
    assert series.add("a.safetensors", "checkpoint-12")["step"] == 12
    assert series.add("a.safetensors", "epoch_3.step0040.x")["step"] == 40
    assert series.add("a.safetensors", "step7", step=8)["step"] == 8
    assert series.add("a.safetensors", "footstep")["step"] is None
    identical = series.ls()[-1]
    assert identical.encoded_nbytes < 1000


def test_streams_are_told_apart_by_their_tensors() -> None:
    series = Series.create("run")
    for name, kind in (("step1", "fp32"), ("step2", "fp32"), ("step1.bf16", "bf16")):
        write(Path("f.safetensors"), kind, 1)
        series.add("f.safetensors", name)
    Path("f.safetensors").write_bytes(file_of({"x": np.zeros(9, np.uint8)}))
    series.add("f.safetensors", "step3")
    series.add("f.safetensors", "step4", stream="mine")
    write(Path("f.safetensors"), "empty", 1)
    series.add("f.safetensors", "step5")
    assert [s.stream for s in series.ls()] == ["F32", "F32", "bf16", "U8", "mine", "empty"]
    assert series.verify().ok


def test_the_deepest_chain_there_may_be() -> None:
    """Each step that is read through another takes calls inside calls: Python has so many only."""
    series = Series.create("run", max_depth=DEPTH_CAP)
    content = np.arange(4000, dtype=np.float32)
    for step in range(DEPTH_CAP + 1):
        Path("in.safetensors").write_bytes(file_of({"w": content + np.float32(step / 1e4)}))
        series.add("in.safetensors", f"step{step}", keyframe=False, verify=False)
    assert series.ls()[-1].depth == DEPTH_CAP
    series.restore(f"step{DEPTH_CAP}", "out")
    assert Path("out").read_bytes() == Path("in.safetensors").read_bytes()
    with series.reader(f"step{DEPTH_CAP}") as reader:
        assert reader.read_numpy("w")[0] == np.float32(DEPTH_CAP / 1e4)
    assert series.add("in.safetensors", "more", keyframe=False)["depth"] <= DEPTH_CAP


# --- Reading --------------------------------------------------------------------------------------


def test_single_tensors_are_read_through_a_chain() -> None:
    series = Series.create("run")
    for step in range(4):
        add(series, "fp32", step)
    assert series.ls()[-1].depth == 3
    compress_file("fp32.step003.safetensors", "whole.zstn")
    with ZstnReader.open("whole.zstn") as expected, series.reader("fp32.step003") as reader:
        series.drop("fp32.step003")
        series.drop("fp32.step001")
        assert reader.names() == expected.names()
        for name in expected:
            assert np.array_equal(reader.read_numpy(name), expected.read_numpy(name))
    with series.reader("fp32.step000") as reader:
        assert isinstance(reader, ZstnReader)


def test_threads_share_a_series() -> None:
    series = Series.create("run")
    for step in range(3):
        add(series, "fp32", step)
    failures: list[BaseException] = []

    def read(step: int) -> None:
        try:
            for _ in range(5):
                target = f"out{threading.get_ident()}"
                series.restore(f"fp32.step00{step}", target)
                assert Path(target).read_bytes() == checkpoint("fp32", step)
        except BaseException as error:
            failures.append(error)

    readers = [threading.Thread(target=read, args=(k % 3,)) for k in range(4)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    assert not failures


def test_progress_reaches_its_end() -> None:
    series = Series.create("run")
    seen: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        seen.append((done, total))

    for step in range(2):
        write(Path("a.safetensors"), "fp32", step)
        seen.clear()
        series.add("a.safetensors", f"step{step}", progress=note)
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1] == 2 * len(checkpoint("fp32", step))
    for call in (
        lambda: series.restore("step1", "x", progress=note),
        lambda: series.verify(progress=note),
        lambda: series.drop("step0", progress=note),
    ):
        seen.clear()
        call()
        assert seen == sorted(seen)
        assert seen[-1][0] == seen[-1][1] > 0


# --- Dropping -------------------------------------------------------------------------------------


def test_dropping_rewrites_what_depends_on_it() -> None:
    series = Series.create("run")
    for step in range(4):
        add(series, "fp32", step)
        add(series, "bf16", step)
    before = steps(series)
    found = series.drop("fp32.step001")
    assert found["rewritten"] == ["fp32.step002", "bf16.step001"]
    after = steps(series)
    assert sum(s.encoded_nbytes for s in before.values()) - found["freed_bytes"] == sum(
        s.encoded_nbytes for s in after.values()
    )
    assert after["fp32.step002"].base == "fp32.step000"
    untouched = set(before) - {"fp32.step001", *found["rewritten"]}
    assert all(after[name].file == before[name].file for name in untouched)
    assert all(after[name].depth <= before[name].depth for name in after)
    only_what_belongs(series)
    for name in after:
        assert restored(series, name) == checkpoint(name[:4], int(name[-1]))


def test_the_heir_of_a_keyframe_is_of_its_stream() -> None:
    series = Series.create("run")
    add(series, "fp32", 0)
    add(series, "bf16", 0)
    add(series, "fp32", 1)
    add(series, "fp32", 2, keyframe=True)
    series.drop("fp32.step000")
    assert [(s.name, s.base) for s in series.ls()] == [
        ("fp32.step001", None),
        ("bf16.step000", "fp32.step001"),
        ("fp32.step002", None),
    ], "not the copy, which would have had the weights stored against it"
    assert series.verify().ok


def test_renamed_tensors_are_found() -> None:
    series = Series.create("run")
    data = write(Path("a.safetensors"), "fp32", 3)
    series.add("a.safetensors")
    Path("b.safetensors").write_bytes(
        data.replace(b"layer.", b"block.").replace(b"head.", b"tail.")
    )
    stats = series.add("b.safetensors")
    assert (stats["stream"], stats["base"]) == ("b", "a")
    assert stats["ratio"] > 20
    write(Path("c.safetensors"), "fp32", 3, run=4)
    Path("c.safetensors").write_bytes(Path("c.safetensors").read_bytes().replace(b"er.", b"ra."))
    assert series.add("c.safetensors", stream="c")["base"] is None
    assert series.verify().ok


@pytest.mark.parametrize("shape", [(2, 600, 1000), (1, 1_200_000), (3, 1, 400_000)])
def test_a_sample_is_small_however_few_the_rows_are(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Experts of a layer in one tensor are few rows, and each of them is large."""
    series = Series.create("run")
    rng = np.random.default_rng(1)
    content = rng.normal(0, 0.02, shape).astype(np.float32)
    Path("in.safetensors").write_bytes(file_of({"w": content}))
    series.add("in.safetensors", "step0", verify=False)
    content += rng.normal(0, 1e-6, shape).astype(np.float32)
    Path("in.safetensors").write_bytes(file_of({"w": content}))
    sizes = []
    compress_bytes = choice.compress_bytes

    def noting(sample: bytes, **options: Any) -> bytes:
        sizes.append(len(sample))
        return compress_bytes(sample, **options)

    monkeypatch.setattr(choice, "compress_bytes", noting)
    assert series.add("in.safetensors", "step1", verify=False)["base"] == "step0"
    assert len(sizes) == 1
    assert 1 << 19 < sizes[0] < 5 << 19


def test_dropping_all_of_it() -> None:
    series = Series.create("run")
    for step in range(3):
        add(series, "fp32", step)
    while len(series):
        series.drop(series.ls()[0].name)
        assert series.verify().ok
        only_what_belongs(series)
    add(series, "fp32", 0)
    assert restored(series, "fp32.step000") == checkpoint("fp32", 0)


# --- Doors ----------------------------------------------------------------------------------------


def test_what_is_no_series_is_not_opened() -> None:
    with pytest.raises(FileNotFoundError, match="no series"):
        Series.open("nowhere")
    os.mkdir("empty")
    with pytest.raises(FileNotFoundError, match="no series"):
        Series.open("empty")
    Path("empty/series.json").write_bytes(b"{}")
    with pytest.raises(FormatError, match="not the manifest"):
        Series.open("empty")


def test_a_series_is_created_once() -> None:
    Series.create("run", max_depth=3, effort="default")
    with pytest.raises(FileExistsError, match="series already"):
        Series.create("run")
    series = Series.open("run")
    assert (series.max_depth, series.effort, len(series)) == (3, "balanced", 0)
    series.configure(effort="fast")
    assert (series.max_depth, series.effort) == (3, "fast")
    add(series, "fp32", 0)
    os.unlink("run/series.json")
    with pytest.raises(FormatError, match=r"holds steps but no series\.json"):
        Series.create("run")
    assert len(os.listdir("run")) == 3


def test_a_folder_of_something_else_is_not_cleared() -> None:
    os.makedirs("run/.partial")
    Path("run/.partial/thesis.pdf.part").write_bytes(b"precious")
    with pytest.raises(FormatError, match=r"not that of a series: thesis\.pdf\.part"):
        Series.create("run")
    assert Path("run/.partial/thesis.pdf.part").read_bytes() == b"precious"
    os.unlink("run/.partial/thesis.pdf.part")
    # What a writer may have left is no obstacle.
    name = "x.0123456789abcdef"
    for left in ("series.json", f".z4ai-{'0' * 16}.tmp", f"{name}.z4dm", f"{name}.safetensors"):
        Path("run/.partial", left).write_bytes(b"")
    Series.create("run")
    assert os.listdir("run/.partial") == []


@pytest.mark.parametrize("name", ["", ".x", "-x", "a/b", "a\\b", "a\0", "x" * 201, "a\n"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    series = Series.create("run")
    write(Path("a.safetensors"), "fp32", 0)
    with pytest.raises(ValueError, match="name"):
        series.add("a.safetensors", name)
    with pytest.raises(ValueError, match="stream"):
        series.add("a.safetensors", "a", stream=name)
    with pytest.raises(KeyError, match="no step"):
        series.restore(name, "x")
    assert len(series) == 0


def test_wrong_arguments_are_told() -> None:
    series = Series.create("run")
    add(series, "fp32", 0)
    with pytest.raises(ValueError, match=r"has a step 'fp32\.step000' already"):
        series.add("fp32.step000.safetensors")
    for call in (series.drop, series.reader("fp32.step00").__enter__):
        with pytest.raises(KeyError, match=r"did you mean 'fp32\.step000'"):
            call("fp32.step00") if call == series.drop else call()
    for wrong in (-1, 2**63, 1.5, "3"):
        with pytest.raises(ValueError, match="step is"):
            series.add("fp32.step000.safetensors", "b", step=wrong)  # type: ignore[arg-type]
    for depth in (-1, 41, 2.0):
        with pytest.raises(ValueError, match="max_depth is"):
            series.configure(max_depth=depth)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="max_depth is"):
            Series.create("more", max_depth=depth)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="effort"):
        series.configure(effort="best")
    Path("bad.safetensors").write_bytes(b"no model")
    with pytest.raises(FormatError):
        series.add("bad.safetensors")
    with pytest.raises(FileNotFoundError):
        series.add("missing.safetensors")
    only_what_belongs(series)
    assert not os.path.exists("more")


def test_a_restored_file_is_as_private_as_the_original() -> None:
    series = Series.create("run")
    write(Path("a.safetensors"), "fp32", 0)
    os.chmod("a.safetensors", 0o600)
    series.add("a.safetensors")
    series.restore("a", "b")
    assert os.stat("b").st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.name != "posix", reason="permissions are of a POSIX system")
def test_what_is_stored_anew_stays_private(monkeypatch: pytest.MonkeyPatch) -> None:
    series = Series.create("run")
    for step in range(2):
        write(Path("a.safetensors"), "fp32", step)
        os.chmod("a.safetensors", 0o600)
        series.add("a.safetensors", f"step{step}")
    assert series.ls()[1].base == "step0"
    modes = []
    store = storing.Storing.store

    def looking(self: storing.Storing, *args: Any) -> Step:
        modes.extend(os.stat(Path("run/.partial", n)).st_mode for n in os.listdir("run/.partial"))
        return store(self, *args)

    monkeypatch.setattr(storing.Storing, "store", looking)
    assert series.drop("step0")["rewritten"] == ["step1"]
    modes += [os.stat(Path("run", series.ls()[0].file)).st_mode]
    assert [mode & 0o777 for mode in modes] == [0o600, 0o600]


# --- Any sequence ---------------------------------------------------------------------------------


class SeriesMachine(RuleBasedStateMachine):
    """A series beside a dict of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.series = Series.create(self.root / "run", max_depth=2)
        self.expected: dict[str, bytes] = {}
        self.count = 0

    @rule(
        kind=st.sampled_from([*KINDS, "empty"]),
        step=st.integers(0, 6),
        run=st.integers(0, 1),
        keyframe=st.sampled_from([None, None, True, False]),
        numbered=st.booleans(),
        stream=st.sampled_from([None, None, "one"]),
    )
    def add(
        self,
        kind: str,
        step: int,
        run: int,
        keyframe: bool | None,
        numbered: bool,
        stream: str | None,
    ) -> None:
        self.count += 1
        name = f"{self.count}.step{step}" if numbered else f"n{self.count}"
        data = write(self.root / "in.safetensors", kind, step, run)
        options = {"keyframe": keyframe, "stream": stream}
        stats = self.series.add(self.root / "in.safetensors", name, **options)  # type: ignore[arg-type]
        assert stats["depth"] <= self.series.max_depth
        assert keyframe is not True or stats["base"] is None
        self.expected[name] = data

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.expected)))
        depths = {step.name: step.depth for step in self.series.ls()}
        self.series.drop(name)
        del self.expected[name]
        assert all(step.depth <= depths[step.name] for step in self.series.ls())

    @precondition(lambda self: self.expected)
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.expected)))
        self.series.restore(name, self.root / "out")
        assert (self.root / "out").read_bytes() == self.expected[name]

    @rule(depth=st.integers(0, 3))
    def configure(self, depth: int) -> None:
        self.series.configure(max_depth=depth)

    @rule()
    def reopen(self) -> None:
        self.series = Series.open(self.root / "run")

    @invariant()
    def it_holds_what_was_added(self) -> None:
        assert sorted(step.name for step in self.series.ls()) == sorted(self.expected)
        only_what_belongs(self.series)

    def teardown(self) -> None:
        report = self.series.verify()
        assert report.ok
        assert sorted(step.name for step in report.steps) == sorted(self.expected)
        for name, data in self.expected.items():
            self.series.restore(name, self.root / "out")
            assert (self.root / "out").read_bytes() == data
        self.folder.cleanup()


TestSeries = SeriesMachine.TestCase
TestSeries.settings = settings(
    max_examples=max(4, settings.default.max_examples // 8), stateful_step_count=10
)
