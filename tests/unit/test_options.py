"""Efforts and limits."""

from __future__ import annotations

import os

import pytest

import z4ai
from z4ai import options


def test_efforts_and_their_other_names() -> None:
    assert [options.resolve_effort(e) for e in options.EFFORTS] == list(options.EFFORTS)
    assert options.resolve_effort("default") == options.resolve_effort(None) == "balanced"
    assert options.resolve_effort(None, "fast") == "fast"


@pytest.mark.parametrize("effort", ["", "best", "FAST", "Max", 1, True, b"fast", ["fast"]])
def test_an_unknown_effort_lists_the_known(effort: object) -> None:
    for call in (z4ai.compress, z4ai.compress_array):
        with pytest.raises(ValueError, match="unknown effort") as caught:
            call(b"" if call is z4ai.compress else [1.0], effort=effort)
        assert all(name in str(caught.value) for name in options.EFFORTS)


def test_efforts_do_not_grow_the_frame() -> None:
    content = bytes(range(256)) * 40 + b"the same words again and again " * 400
    sizes = [len(z4ai.compress(content, effort=effort)) for effort in options.EFFORTS]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] < len(content) / 10


def test_default_limits() -> None:
    limits = options.Limits()
    assert limits == options.DEFAULT_LIMITS
    assert limits.max_output_nbytes >= 1 << 28
    if hasattr(os, "sysconf"):
        assert limits.max_output_nbytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert limits.max_table_nbytes == 256 << 20
    with pytest.raises(AttributeError):
        limits.max_table_nbytes = 1  # type: ignore[misc]


def test_where_the_system_does_not_tell_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(name: str) -> int:
        raise ValueError(name)

    monkeypatch.setattr(os, "sysconf", silent, raising=False)
    assert options._machine_memory() == 64 << 30


@pytest.mark.parametrize("limits", [0, {}, (1, 2), "1 GiB"])
def test_limits_of_another_type_are_a_type_error(limits: object) -> None:
    blob = z4ai.compress_array([1.0])
    for call in (z4ai.decompress, z4ai.decompress_array, z4ai.info):
        with pytest.raises(TypeError, match="Limits"):
            call(blob, limits=limits)
