"""Transforms: elements to planes and back, as `docs/format/codecs/planes.md` has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Plane = npt.NDArray[Any]  # of uint8

#: name -> bytes of an element, which is also the number of its planes; in the order of their ids.
LAYOUTS = {
    "bytes1": 1,
    "bytes2": 2,
    "bytes4": 4,
    "bytes8": 8,
    "float2": 2,
    "float4": 4,
    "float8": 8,
}


def layout_width(layout: str) -> int:
    """Return the bytes of an element, which is also the number of its planes."""
    if layout not in LAYOUTS:
        raise ValueError(f"no such layout: {layout!r}")
    return LAYOUTS[layout]


def split(data: bytes, layout: str) -> list[bytes]:
    """Return the planes of the elements in ``data``, most significant first."""
    width = layout_width(layout)
    if len(data) % width:
        raise ValueError(f"{len(data)} bytes are no whole number of {width}-byte elements")
    elements = np.frombuffer(data, np.uint8).reshape(-1, width)
    planes: list[Plane] = [elements[:, width - 1 - k] for k in range(width)]
    if layout.startswith("float"):
        high, low = planes[:2]
        planes[0] = (high << 1) | (low >> 7)
        planes[1] = (high & 0x80) | (low & 0x7F)
    return [plane.tobytes() for plane in planes]


def interleave(planes: list[bytes], layout: str) -> bytes:
    """Return the elements that `split` made the planes of."""
    width = layout_width(layout)
    if len(planes) != width:
        raise ValueError(f"{len(planes)} planes given, expected {width}")
    if len({len(plane) for plane in planes}) != 1:
        raise ValueError("planes of different lengths")
    columns: list[Plane] = [np.frombuffer(plane, np.uint8) for plane in planes]
    if layout.startswith("float"):
        exponent, rest = columns[:2]
        columns[0] = (rest & 0x80) | (exponent >> 1)
        columns[1] = (exponent << 7) | (rest & 0x7F)
    return np.stack(columns[::-1], axis=1).tobytes()


def swap_bytes(data: bytes, width: int) -> bytes:
    """Reverse the bytes of each element."""
    if width < 1 or len(data) % width:
        raise ValueError(f"{len(data)} bytes are no whole number of {width}-byte elements")
    return np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
