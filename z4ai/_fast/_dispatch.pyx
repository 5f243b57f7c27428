# cython: language_level=3
# cython: freethreading_compatible=True
"""Choose the instruction set once, at import; every kernel module takes its variant from here."""

from __future__ import annotations

import os

cdef extern from "z4_cpu.h":
    const int Z4_ISA_COUNT
    int z4_cpu_runs(int isa) noexcept nogil

ENVIRONMENT_VARIABLE = "Z4AI_ISA"

# In the order of enum z4_isa, which is also from worst to best on any one machine.
_NAMES = ("scalar", "avx2", "avx512", "neon")
assert len(_NAMES) == Z4_ISA_COUNT

_RUNNABLE = tuple([name for code, name in enumerate(_NAMES) if z4_cpu_runs(code)])


def runnable() -> tuple[str, ...]:
    """Return the names of the instruction sets this machine can run, worst first."""
    return _RUNNABLE


def isa_code(name: str) -> int:
    """Return the number of an instruction set.

    Raises
    ------
    ValueError
        If ``name`` is unknown or cannot run on this machine.
    """
    if name not in _RUNNABLE:
        known = ", ".join(_RUNNABLE)
        raise ValueError(f"instruction set {name!r} cannot run here; runnable: {known}")
    return _NAMES.index(name)


def _from_environment() -> int:
    name = os.environ.get(ENVIRONMENT_VARIABLE, "")
    if not name:
        return isa_code(_RUNNABLE[-1])
    try:
        return isa_code(name)
    except ValueError as error:
        raise ValueError(f"{ENVIRONMENT_VARIABLE}: {error}") from None


isa = _from_environment()


cdef int current_isa() noexcept nogil:
    return isa


def current() -> str:
    """Return the name of the instruction set in use."""
    return _NAMES[isa]
