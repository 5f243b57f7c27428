"""No prefix of a frame is taken for a frame."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from frames import Sample, samples

import z4ai
from z4ai.errors import TruncatedError

SAMPLES = samples()

READERS: dict[str, Callable[[Any], Any]] = {"decompress": z4ai.decompress, "info": z4ai.info}


@pytest.mark.parametrize("reader", READERS)
def test_every_prefix_is_a_truncated_error(reader: str) -> None:
    seen: Counter[str] = Counter()
    for name, sample in SAMPLES.items():
        for nbytes in range(len(sample.frame)):
            with pytest.raises(TruncatedError) as caught:
                READERS[reader](sample.frame[:nbytes])
            assert type(caught.value) is TruncatedError, (name, nbytes)
            seen["truncated"] += 1
    assert seen["truncated"] == sum(len(sample.frame) for sample in SAMPLES.values())


@pytest.mark.parametrize("name", [name for name in SAMPLES if name.startswith("array")])
def test_every_prefix_of_an_array_is_a_truncated_error(name: str) -> None:
    frame = SAMPLES[name].frame
    for nbytes in range(len(frame)):
        with pytest.raises(TruncatedError):
            z4ai.decompress_array(frame[:nbytes])


def test_every_prefix_of_a_pipe_is_a_truncated_error() -> None:
    tried = 0
    for name, sample in SAMPLES.items():
        for nbytes in range(len(sample.frame)):
            with pytest.raises(TruncatedError):
                z4ai.decompress_stream(io.BytesIO(sample.frame[:nbytes]), io.BytesIO())
            tried += 1
        if name.startswith("coded"):
            assert tried > 500
    assert tried == sum(len(sample.frame) for sample in SAMPLES.values())


@pytest.mark.parametrize("behind", [b"\0", b"\0\0\0\0", b"Z4AI", b"IA4Z"])
def test_bytes_behind_a_frame_are_an_error(behind: bytes) -> None:
    for name, sample in SAMPLES.items():
        with pytest.raises(z4ai.errors.FormatError) as caught:
            z4ai.decompress(sample.frame + behind)
        assert caught.value.offset is not None, name
        with pytest.raises(z4ai.errors.FormatError):
            z4ai.info(sample.frame + behind)


def test_a_frame_behind_a_frame_is_an_error() -> None:
    for sample in SAMPLES.values():
        with pytest.raises(z4ai.errors.FormatError):
            z4ai.decompress(sample.frame * 2)


def test_a_part_that_is_missing_is_an_error() -> None:
    """Bytes cut out of the middle, so that the end is right."""
    for name, sample in SAMPLES.items():
        frame = sample.frame
        for begin in range(0, len(frame), 3):
            for nbytes in (1, 4, 26):
                cut = frame[:begin] + frame[begin + nbytes :]
                try:
                    found = z4ai.decompress(cut)
                except z4ai.errors.Z4Error:
                    continue
                assert found == sample.content, (name, begin, nbytes)
                assert cut == frame, (name, begin, nbytes)


def test_samples_are_valid() -> None:
    for name, sample in SAMPLES.items():
        assert z4ai.decompress(sample.frame) == sample.content, name
    assert isinstance(SAMPLES["empty"], Sample)
