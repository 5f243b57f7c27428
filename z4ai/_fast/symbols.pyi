from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SYMBOLS1: int
SYMBOLS2: int
SYMBOLS2H: int
SYMBOLS4: int
SYMBOLS8: int
KINDS: tuple[int, ...]
MAX_CONTEXTS: int
RARES_TILE: int

def variants() -> tuple[str, ...]: ...
def picked(isa: str | None = None) -> str: ...
def width(kind: int) -> int: ...
def rest_bits(kind: int) -> int: ...
def field_bits(kind: int) -> int: ...
def packed_nbytes(kind: int, n: int) -> int: ...
def field(kind: int, element: Any) -> int: ...
def patch(kind: int, field: int, element: Any) -> None: ...
def split(
    src: Any,
    kind: int,
    base: int = 0,
    out: Sequence[Any] | None = None,
    *,
    isa: str | None = None,
) -> list[NDArray[np.uint8]]: ...
def merge(
    symbols: Any,
    rest: Any,
    low: Sequence[Any],
    kind: int,
    base: int = 0,
    out: Any = None,
    *,
    isa: str | None = None,
) -> NDArray[np.uint8]: ...
def merge_packed(
    symbols: Any,
    packed: Any,
    low: Sequence[Any],
    kind: int,
    base: int = 0,
    out: Any = None,
    *,
    isa: str | None = None,
) -> NDArray[np.uint8]: ...
def pack(rest: Any, kind: int, out: Any = None, *, isa: str | None = None) -> NDArray[np.uint8]: ...
def unpack(
    packed: Any, n: int, kind: int, out: Any = None, *, isa: str | None = None
) -> NDArray[np.uint8]: ...
def contexts(
    row: int,
    columns: Any,
    n: int,
    shift: int,
    most: int,
    out: Any = None,
    *,
    isa: str | None = None,
) -> NDArray[np.uint8]: ...
def count(
    symbols: Any, contexts: Any, counts: NDArray[np.uint32], *, isa: str | None = None
) -> None: ...
def weigh(
    symbols: Any, floor: int, sums: NDArray[np.uint32] | None = None, *, isa: str | None = None
) -> int: ...
def find_rares(
    symbols: Any, contexts: Any, freqs: Any, escape: int, *, isa: str | None = None
) -> NDArray[np.uint16]: ...
