import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

MOST_PARTS: int
MOST_FIELDS: int

def split(
    content: Buffer,
    formats: list[tuple[int, list[tuple[int, int]]]],
    runs: list[tuple[int, int]],
    n_parts: int,
) -> list[NDArray[np.uint8]]: ...
def join(
    parts: list[NDArray[np.uint8]],
    formats: list[tuple[int, list[tuple[int, int]]]],
    runs: list[tuple[int, int]],
    out: Buffer,
) -> None: ...
