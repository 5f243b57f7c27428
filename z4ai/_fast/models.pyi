from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

CLASSES: int

def symbols_of(
    content: Buffer, starts: Sequence[int], n: int, kind: int, base: int, swap: bool
) -> NDArray[np.uint8]: ...
def weigh(
    symbols: Buffer, period: int, floor: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]: ...
def count(
    symbols: Buffer, period: int, rows: Buffer | None, columns: Buffer | None
) -> NDArray[np.uint32]: ...
def histogram(symbols: Buffer) -> NDArray[np.uint32]: ...
def cost(counts: Buffer) -> int: ...
def merge(counts: Buffer, shift: int, most: int) -> tuple[int, int]: ...
