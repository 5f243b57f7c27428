import numpy as np
from numpy.typing import NDArray

RUN: int
KINDS: dict[str, int]

def variants() -> tuple[str, ...]: ...
def picked(isa: str | None = None) -> str: ...
def predict(
    base: NDArray[np.uint8],
    kind: int,
    low: NDArray[np.float64],
    right: NDArray[np.float64],
    exponent: int,
    out: NDArray[np.uint8],
    *,
    high: NDArray[np.float64] | None = None,
    rounds: bool = False,
    isa: str | None = None,
) -> None: ...

class Sample:
    energy: float
    steps: float
    changed: int
    trace: float
    def __init__(
        self,
        target: NDArray[np.uint8],
        base: NDArray[np.uint8],
        kind: int,
        rows: int,
        columns: int,
        n_rows: int,
        n_columns: int,
        *,
        isa: str | None = None,
    ) -> None: ...
    def above(self, bound: float) -> int: ...

def project(
    target: NDArray[np.uint8],
    base: NDArray[np.uint8],
    kind: int,
    rows: int,
    columns: int,
    factor: NDArray[np.float64],
    *,
    isa: str | None = None,
) -> NDArray[np.float64]: ...
def refine(
    target: NDArray[np.uint8],
    base: NDArray[np.uint8],
    kind: int,
    left: NDArray[np.float64],
    right: NDArray[np.float64],
    least: int,
    *,
    slack: float = 0.0,
    step: int = 0,
    isa: str | None = None,
) -> None: ...
def orthonormal(vectors: NDArray[np.float64]) -> NDArray[np.float64]: ...
def jacobi(rows: NDArray[np.float64], other: NDArray[np.float64]) -> None: ...
def count(
    target: NDArray[np.uint8], reference: NDArray[np.uint8], kind: int, top: int
) -> NDArray[np.intp]: ...
