"""The exceptions of z4ai: one tree, every class of it a `ValueError` too."""

from __future__ import annotations

from functools import partial
from typing import Any

__all__ = [
    "BaseMismatchError",
    "ChecksumError",
    "CorruptError",
    "FormatError",
    "LimitError",
    "TruncatedError",
    "UnsupportedCodecError",
    "UnsupportedVersionError",
    "Z4Error",
]


class Z4Error(ValueError):
    """Base of everything that z4ai raises about data.

    Wrong arguments are plain `ValueError` and `TypeError`, as everywhere in Python.
    """


class FormatError(Z4Error):
    """The bytes are not what the format says they must be.

    Parameters
    ----------
    message : str
        What, where, found, expected.
    offset : int, optional
        Byte offset in the frame or file.
    chunk : int, optional
        Number of the chunk in its frame.
    tensor : str, optional
        Name of the tensor in its container.
    """

    def __init__(
        self,
        message: str,
        *,
        offset: int | None = None,
        chunk: int | None = None,
        tensor: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.offset = offset
        self.chunk = chunk
        self.tensor = tensor

    def __str__(self) -> str:
        where = []
        if self.tensor is not None:
            where.append(f"tensor {self.tensor!r}")
        if self.chunk is not None:
            where.append(f"chunk {self.chunk}")
        if self.offset is not None:
            where.append(f"offset {self.offset}")
        return f"{self.message} ({', '.join(where)})" if where else self.message


class CorruptError(FormatError):
    """The bytes break a rule of the format."""


class TruncatedError(FormatError):
    """The bytes end before what they declare."""


class ChecksumError(FormatError):
    """What was read or restored is not what was written."""


class UnsupportedVersionError(FormatError):
    """A format version that this release does not read."""


class UnsupportedCodecError(FormatError):
    """A codec, transform, dtype or record that this release or installation does not know."""


class LimitError(Z4Error):
    """A declared size exceeds a limit that the caller may raise.

    Parameters
    ----------
    message : str
        Which size, found, allowed.
    option : str
        Field of `z4ai.Limits` that raises the limit.
    """

    def __init__(self, message: str, *, option: str) -> None:
        super().__init__(f"{message}; raise Limits.{option} to allow it")
        self.message = message
        self.option = option

    def __reduce__(self) -> tuple[Any, ...]:
        # A pool of processes hands errors over by pickle, which knows positional arguments only.
        return partial(type(self), self.message, option=self.option), ()


class BaseMismatchError(Z4Error):
    """A delta was applied to another base than the one it was made from."""
