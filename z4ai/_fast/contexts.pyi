from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from typing_extensions import Buffer

CORRUPT: int
TRUNCATED: int
CAPACITY: int
TOTAL: int
MAX_CONTEXTS: int
MIN_PRECISION: int
MAX_PRECISION: int

class ContextsError(ValueError):
    status: int
    def __init__(self, status: int) -> None: ...

def variants() -> tuple[str, ...]: ...
def lanes(n: int) -> int: ...
def bound(n: int) -> int: ...
def normalise(weights: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint16]: ...
def cost(counts: npt.NDArray[np.uint32], freqs: npt.NDArray[np.uint16]) -> int: ...
def write_tables(counts: npt.NDArray[np.uint32], *, precision: int = ...) -> tuple[bytes, int]: ...
def make_tables(
    counts: npt.NDArray[np.uint32], precision: int
) -> tuple[bytes, npt.NDArray[np.uint16]]: ...
def read_tables(src: Buffer) -> npt.NDArray[np.uint16]: ...
def rare_symbols(counts: npt.NDArray[np.uint32]) -> list[int]: ...
def set_apart(symbols: Buffer, rare: Sequence[int]) -> bytes: ...
def put_back(symbols: Buffer, escape: int, rest: Buffer) -> int: ...
def encode(
    symbols: Buffer,
    contexts: Buffer | None,
    freqs: npt.NDArray[np.uint16],
    *,
    capacity: int | None = ...,
    isa: str | None = None,
) -> bytes: ...
def decode(
    src: Buffer,
    contexts: Buffer | None,
    n: int,
    freqs: npt.NDArray[np.uint16],
    *,
    tile: int = ...,
    isa: str | None = None,
) -> bytes: ...
