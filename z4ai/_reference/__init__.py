"""The format in plain Python and NumPy, written from docs/format alone.

An executable specification: it follows the order of the pages and uses their names, and does
nothing to be fast. It is the oracle of the tests, and a reader on a machine where nothing compiles.
It imports nothing of z4ai outside this folder, and raises ``ValueError`` for a file that breaks a
rule. ``zstandard`` is imported for planes that have sequences, ``brotli`` for planes coded by it,
``ml_dtypes`` for arrays of dtypes that NumPy lacks; each only then.

Entry points
------------
:func:`decode_frame`
    A whole ``Z4AI`` frame: content, header facts and chunks; ``.array()`` gives the array back.
:func:`decode_delta`
    A whole ``Z4DL`` frame, beside its reference.
:func:`decode_array`
    The array of an ``array`` frame.
:func:`parse_header`
    Only the header of a frame.
:func:`find_chunks`
    Where the chunks of a frame lie, found from its end.
:func:`open_container`
    A ``ZSTN`` container: its tensors, ``.read(name)``, ``.restore()``.
:func:`restore`
    The ``.safetensors`` file of a container.
``model_delta.restore``
    The ``.safetensors`` file of a ``Z4DM`` model delta, beside its base.

One page each: ``frame``, ``zstn`` and ``model_delta`` here; ``planes``, ``symbols``,
``difference``, ``contexts``, ``zstd_literals`` and ``xxh3`` are what they stand on, and a module
for each transform whose chunks are made of parts.
"""

from __future__ import annotations

from .frame import (
    Frame,
    Header,
    decode_array,
    decode_delta,
    decode_frame,
    find_chunks,
    parse_header,
)
from .zstn import Container, Tensor, open_container, restore

__all__ = [
    "Container",
    "Frame",
    "Header",
    "Tensor",
    "decode_array",
    "decode_delta",
    "decode_frame",
    "find_chunks",
    "open_container",
    "parse_header",
    "restore",
]
