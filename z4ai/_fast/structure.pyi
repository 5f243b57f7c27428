import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

BF16: int
FP16: int
FP32: int
FP64: int
MOST: int
MINUS_ZERO: int
EXCEPTION: int

def count(codes: Buffer, code: int) -> int: ...
def grid_groups(n: int, row: int, column: int, group: int) -> int: ...
def grid_probe(
    content: Buffer, kind: int, places: list[tuple[int, int]]
) -> tuple[int, int, int, float]: ...
def grid_split(
    content: Buffer, kind: int, row: int, column: int, group: int
) -> tuple[NDArray[np.int16], NDArray[np.float64], NDArray[np.uint64]] | None: ...
def grid_own(scales: NDArray[np.float64], kind: int) -> bool: ...
def grid_codes(
    numbers: NDArray[np.int16],
    content: Buffer,
    width: int,
    low: int,
    top: int,
    minus: int,
    n_exceptions: int,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...
def grid_join(
    kind: int,
    flags: int,
    low: int,
    row: int,
    column: int,
    group: int,
    scales: Buffer,
    codes: Buffer,
    exceptions: Buffer,
    out: Buffer,
) -> bool: ...
def palette_count(content: Buffer, width: int, step: int) -> int: ...
def palette_split(
    content: Buffer, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]] | None: ...
def palette_split_rows(
    content: Buffer, width: int, row: int, column: int, limit: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]] | None: ...
def palette_join(codes: Buffer, palette: Buffer, width: int, out: Buffer) -> bool: ...
def palette_join_rows(
    codes: Buffer, sizes: Buffer, palettes: Buffer, width: int, row: int, column: int, out: Buffer
) -> bool: ...
