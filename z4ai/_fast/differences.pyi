import numpy as np
from numpy.typing import NDArray
from typing_extensions import Buffer

CLASSES: int

def variants() -> list[str]: ...
def picked(isa: str | None = None) -> str: ...
def levels(
    content: Buffer,
    reference: Buffer,
    width: int,
    floats: bool,
    below: int,
    top: int,
    octave: int,
    period: int,
    isa: str | None = None,
) -> tuple[NDArray[np.uint16], NDArray[np.uint8], NDArray[np.uint8]]: ...
def count(
    content: Buffer,
    reference: Buffer,
    width: int,
    floats: bool,
    below: int,
    top: int,
    isa: str | None = None,
) -> NDArray[np.uint32]: ...
def count_rows(
    symbols: Buffer, classes: Buffer, period: int, rows: Buffer
) -> NDArray[np.uint32]: ...
def count_bits(counts: Buffer, width: int) -> int: ...
def xor(a: Buffer, b: Buffer, out: Buffer) -> None: ...
def split(
    content: Buffer, reference: Buffer, width: int, floats: bool, isa: str | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]: ...
def merge_back(
    symbols: Buffer,
    bits: Buffer,
    reference: Buffer,
    width: int,
    floats: bool,
    isa: str | None = None,
) -> NDArray[np.uint8] | None: ...
