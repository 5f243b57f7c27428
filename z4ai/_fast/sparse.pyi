from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

MAX_LOW: int

def variants() -> tuple[str, ...]: ...
def picked(isa: str | None = None) -> str: ...
def entropy(counts: NDArray[np.intp]) -> int: ...
def probe(content: NDArray[np.uint8], width: int) -> tuple[int, int, int]: ...
def compact(
    content: NDArray[np.uint8], width: int, fill: int, *, isa: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...
def count_ones(bitmap: NDArray[np.uint8], n: int) -> int: ...
def expand(
    bitmap: NDArray[np.uint8],
    dense: NDArray[np.uint8],
    width: int,
    fill: int,
    out: NDArray[np.uint8],
    *,
    isa: str | None = None,
) -> None: ...
def split_steps(
    content: NDArray[np.uint8], width: int, base: int, start: int | None, n_low: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], list[NDArray[np.uint8]]]: ...
def count_escapes(symbols: NDArray[np.uint8]) -> int: ...
def join_steps(
    symbols: NDArray[np.uint8],
    exceptions: NDArray[np.uint8],
    lows: Sequence[NDArray[np.uint8]],
    width: int,
    base: int,
    start: int | None,
    out: NDArray[np.uint8],
) -> None: ...
