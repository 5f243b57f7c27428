"""Find tensors of a file that have the same bytes, without reading all of them twice."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from z4ai._fast.hashing import Xxh3
from z4ai.container.source import Scratch, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.container.source import Source
    from z4ai.container.st_header import Tensor

__all__ = ["SHARED_NBYTES", "same_as"]

# Below this a frame of its own costs little more than the look for another one.
SHARED_NBYTES = 256
_SAMPLE_NBYTES = 1024
_SAMPLES = 4
_BLOCK_NBYTES = 4 << 20
# Tensors that look alike in the samples and are not: how many of them to compare with.
_MOST_COMPARED = 4


def same_as(source: Source, start: int, tensors: Sequence[Tensor]) -> list[int]:
    """Find for each tensor the first one with the same bytes.

    Tensors of one size are told apart by a hash of a few samples; those that agree are compared
    byte by byte, so no hash is trusted with the data.

    Parameters
    ----------
    source : Source
        The `.safetensors` file.
    start : int
        Where its data begins.
    tensors : sequence of Tensor
        In the order of their data.

    Returns
    -------
    list of int
        Numbers of tensors; a tensor's own where there is none before it.
    """
    by_size: dict[int, list[int]] = defaultdict(list)
    for k, tensor in enumerate(tensors):
        if tensor.end - tensor.begin >= SHARED_NBYTES:
            by_size[tensor.end - tensor.begin].append(k)
    found = list(range(len(tensors)))
    buffers = Scratch(), Scratch()
    for nbytes, members in by_size.items():
        if len(members) == 1:
            continue
        alike: dict[int, list[int]] = defaultdict(list)
        for k in members:
            begin = start + tensors[k].begin
            firsts = alike[_sample(source, begin, nbytes)]
            for first in firsts[:_MOST_COMPARED]:
                if _equal(source, start + tensors[first].begin, begin, nbytes, buffers):
                    found[k] = first
                    break
            else:
                firsts.append(k)
    return found


def _sample(source: Source, begin: int, nbytes: int) -> int:
    digest = Xxh3()
    if nbytes <= _SAMPLES * _SAMPLE_NBYTES:
        digest.update(read(source, begin, nbytes))
    else:
        for k in range(_SAMPLES):
            at = (nbytes - _SAMPLE_NBYTES) * k // (_SAMPLES - 1)
            digest.update(read(source, begin + at, _SAMPLE_NBYTES))
    return digest.digest64()


def _equal(
    source: Source, one: int, other: int, nbytes: int, buffers: tuple[Scratch, Scratch]
) -> bool:
    for at in range(0, nbytes, _BLOCK_NBYTES):
        n = min(_BLOCK_NBYTES, nbytes - at)
        left = np.frombuffer(read(source, one + at, n, buffers[0]), np.uint8)
        right = np.frombuffer(read(source, other + at, n, buffers[1]), np.uint8)
        if not np.array_equal(left, right):
            return False
    return True
