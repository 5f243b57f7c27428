from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

BYTES1: int
BYTES2: int
BYTES4: int
BYTES8: int
FLOAT2: int
FLOAT4: int
FLOAT8: int
LAYOUTS: tuple[int, ...]

def variants() -> tuple[str, ...]: ...
def picked(isa: str | None = None) -> str: ...
def layout_width(layout: int) -> int: ...
def split(
    src: Any, layout: int, out: Sequence[Any] | None = None, *, isa: str | None = None
) -> list[NDArray[np.uint8]]: ...
def interleave(
    planes: Sequence[Any],
    layout: int,
    n_elems: int,
    out: Any = None,
    *,
    stream: bool = False,
    isa: str | None = None,
) -> NDArray[np.uint8]: ...
def swap_bytes(
    src: Any, width: int, out: Any = None, *, isa: str | None = None
) -> NDArray[np.uint8]: ...
def stream_copy(src: Any, out: Any, *, isa: str | None = None) -> None: ...
