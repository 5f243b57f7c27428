import numpy as np
from numpy.typing import NDArray

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
