"""What a caller may choose: the effort tier and the limits of a decode."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

__all__ = ["EFFORTS", "NO_LIMITS", "Limits", "resolve_effort", "resolve_limits"]

EFFORTS = ("fast", "balanced", "max")


def resolve_effort(effort: str | None, default: str = "balanced") -> str:
    """Return the tier that the caller means; None is `default`.

    Raises
    ------
    ValueError
        If `effort` is none of ``"fast"``, ``"balanced"``, ``"default"``, ``"max"``, None.
    """
    if effort is None:
        return default
    if effort == "default":
        return "balanced"
    if isinstance(effort, str) and effort in EFFORTS:
        return effort
    msg = f"unknown effort {effort!r}: expected 'fast', 'balanced' (or 'default', None) or 'max'"
    raise ValueError(msg)


def _machine_memory() -> int:
    """Bytes of physical memory; 64 GiB where the system does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 64 << 30


class Limits(NamedTuple):
    """What a decode may allocate because a file says so.

    Parameters
    ----------
    max_output_nbytes : int
        Largest content, in bytes, that is restored into memory. Default: the machine's memory.
    max_table_nbytes : int
        Largest table (chunk table, table records, index of a container), in bytes. Default:
        256 MiB.

    Examples
    --------
    >>> import z4ai
    >>> blob = z4ai.compress(bytes(1 << 20))
    >>> try:
    ...     z4ai.decompress(blob, limits=z4ai.Limits(max_output_nbytes=1 << 10))
    ... except z4ai.errors.LimitError as error:
    ...     print(error.option)
    max_output_nbytes
    """

    max_output_nbytes: int = _machine_memory()
    max_table_nbytes: int = 256 << 20


DEFAULT_LIMITS = Limits()
# For what this process wrote itself.
NO_LIMITS = Limits(max_output_nbytes=2**63, max_table_nbytes=2**63)


def resolve_limits(limits: Any) -> Limits:
    """Return the limits that the caller means; None is the default.

    Raises
    ------
    TypeError
        If `limits` is neither.
    """
    if limits is None:
        return DEFAULT_LIMITS
    if not isinstance(limits, Limits):
        msg = f"limits must be a z4ai.Limits or None, not {type(limits).__name__}"
        raise TypeError(msg)
    return limits
