"""Encoded sizes of seeded inputs are what bench/sizes.csv says, to the byte."""

from __future__ import annotations

import csv
from pathlib import Path

from bench import check_sizes

PINNED = Path(check_sizes.__file__).with_name("sizes.csv")


def test_encoded_sizes_are_as_pinned() -> None:
    with PINNED.open(newline="") as file:
        pinned = list(csv.DictReader(file))
    assert len(pinned) == len(check_sizes.INPUTS) * len(check_sizes.EFFORTS)
    said = check_sizes.differences(pinned, check_sizes.measure())
    assert not said, "\n".join(said)


def test_a_changed_size_is_said() -> None:
    row = {
        "name": "weights",
        "dtype": "bf16",
        "content_nbytes": "4096",
        "content_sha256": "00",
        "effort": "fast",
        "encoded_nbytes": "3000",
    }
    assert check_sizes.differences([row], [row]) == []
    smaller = {**row, "encoded_nbytes": "2999"}
    (said,) = check_sizes.differences([row], [smaller])
    assert "(-1)" in said
    (said,) = check_sizes.differences([row], [{**smaller, "content_sha256": "01"}])
    assert "input changed" in said
    assert len(check_sizes.differences([row], [])) == 1
    assert len(check_sizes.differences([], [row])) == 1
