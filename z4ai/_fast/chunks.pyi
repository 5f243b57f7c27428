from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

JOB: np.dtype[np.void]
CAN_FETCH: bool
FETCHED: int

def decode(
    encoded: Buffer,
    content: Buffer,
    jobs: Buffer,
    threads: int,
    isa: str | None = None,
    models: Sequence[Buffer] = (),
    reference: Buffer | None = None,
    fetch: tuple[int, NDArray[np.uint64]] | None = None,
) -> bool: ...
def encode(
    content: Buffer,
    out: Buffer,
    offset: int,
    jobs: Buffer,
    gap: int,
    gap_stream: int,
    threads: int,
    isa: str | None = None,
    models: Sequence[Buffer] = (),
    reference: Buffer | None = None,
) -> int: ...
def encode_bound(content_nbytes: int, layout: int, gap: int, gap_stream: int) -> int: ...
def fresh_array(nbytes: int) -> NDArray[np.uint8]: ...
def huge_stretches_tried(slow: Iterable[bool]) -> list[bool]: ...

class BytesBuilder:
    def __new__(cls, nbytes: int) -> BytesBuilder: ...
    def __buffer__(self, flags: int, /) -> memoryview: ...
    def finish(self, nbytes: int) -> bytes: ...
