"""What a file tells of the tensors in it, whatever kind of file it is."""

from __future__ import annotations

import os
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from z4ai.cli import _show
from z4ai.cli._files import CONTAINER, SAFETENSORS
from z4ai.safetensors import ZstnReader, read_header
from z4ai.stream import stats_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from z4ai.deltas.records import Entry

__all__ = ["Model", "open_model"]


class Model(NamedTuple):
    """A file of tensors.

    Attributes
    ----------
    rows : list of dict
        One for each tensor.
    metadata : dict of str to str or None
        Of the file that was compressed.
    stats : dict
        Sizes.
    more : dict
        What else there is to record.
    told : list of (str, str)
        The same for people.
    """

    rows: list[dict[str, Any]]
    metadata: dict[str, str] | None
    stats: dict[str, Any]
    more: dict[str, Any]
    told: list[tuple[str, str]]


def open_model(path: str, kind: str) -> Model:
    """Read what a file tells of its tensors."""
    if kind == SAFETENSORS:
        header = read_header(path)
        rows = [_row(t.name, t.dtype, t.shape, t.nbytes, None) for t in header.tensors]
        nbytes = os.path.getsize(path)
        return Model(rows, header.metadata, stats_of(nbytes, nbytes), {}, [])
    return _container(path) if kind == CONTAINER else _model_delta(path)


def _row(
    name: str, dtype: str, shape: tuple[int, ...], content: int, encoded: int | None, **more: Any
) -> dict[str, Any]:
    ratio = content / encoded if encoded else None
    return {
        "name": name,
        "dtype": dtype,
        "shape": list(shape),
        "content_bytes": content,
        "encoded_bytes": encoded,
        "ratio": ratio,
        **more,
    }


def _container(path: str) -> Model:
    with ZstnReader.open(path) as reader:
        rows = [
            _row(t, reader.dtype(t), reader.shape(t), reader.nbytes(t), reader.encoded_nbytes(t))
            for t in reader.names()
        ]
        stats = stats_of(reader.original_nbytes, reader.compressed_nbytes)
        return Model(rows, reader.metadata(), stats, {}, [])


def _model_delta(path: str) -> Model:
    from z4ai.container.source import open_source  # noqa: PLC0415 - costs import time
    from z4ai.deltas.stats import describe, way_names  # noqa: PLC0415
    from z4ai.deltas.z4dm import parse_model_delta  # noqa: PLC0415
    from z4ai.options import resolve_limits  # noqa: PLC0415

    source = open_source(path)
    try:
        found = parse_model_delta(source, resolve_limits(None))
        stats = describe(found, source.nbytes)
    finally:
        source.close()
    tensors = found.header.tensors
    encoded = _shares(found.entries, [tensor.nbytes for tensor in tensors])
    ways = way_names(found.entries)
    rows = [
        _row(t.name, t.dtype, t.shape, t.nbytes, share, way=way)
        for t, share, way in zip(tensors, encoded, ways, strict=True)
    ]
    digest = f"{found.ends.base_digest:032x}"
    more = {"base_bytes": found.ends.base_nbytes, "base_digest": digest}
    told = [
        ("ways", ", ".join(f"{way} x {n}" for way, n in Counter(ways).items())),
        ("base", f"{_show.exact(found.ends.base_nbytes)} of tensors, XXH3-128 {digest}"),
    ]
    return Model(rows, found.header.metadata, stats, more, told)


def _shares(entries: Sequence[Entry], sizes: Sequence[int]) -> list[int]:
    """Bytes that each tensor takes: of a frame that several share, each by its size."""
    from z4ai.deltas.z4dm import frames_of  # noqa: PLC0415 - as above

    contents: Counter[tuple[int, int]] = Counter()
    for entry, nbytes in zip(entries, sizes, strict=True):
        if entry.location is not None:
            contents[entry.location[:2]] += nbytes
    shares = []
    for entry, nbytes in zip(entries, sizes, strict=True):
        share = sum(place[1] for place in frames_of(entry))
        if entry.location is not None:
            whole = entry.location[:2]
            share += round(whole[1] * nbytes / max(contents[whole], 1)) - whole[1]
        shares.append(share)
    return shares
