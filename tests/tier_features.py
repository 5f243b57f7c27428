"""What frames are made of: a test of what is written says which of it was met."""

from __future__ import annotations

from collections.abc import Iterator

from z4ai._reference import decode_frame, symbols
from z4ai._reference import frame as reference_frame

#: What must have been met: transforms and codecs by their numbers, records by their parts.
TRANSFORMS = {f"transform {number}" for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11)} | {
    f"transform {number}" for number in (16, 17, 18, 19)
}
CODECS = {f"codec {number}" for number in range(6)}
RECORDS = {
    *("model", "rows", "columns", "rows and columns", "several tables", "one table", "rare", "raw"),
    *("copies", "parts within parts", "trailer"),
}


def features(frame: reference_frame.Frame, depth: int = 0) -> Iterator[str]:
    """What a frame is made of, its parts included."""
    header = frame.header
    model = header.model
    if header.copies:
        yield "copies"
    if len(frame.chunks) > 1:
        yield "trailer"
    if model is not None:
        yield "model"
        yield "one table" if len(model.tables) == 1 else "several tables"
        if model.has_rows:
            yield "rows"
        if model.columns is not None:
            yield "rows and columns" if model.has_rows else "columns"
    for chunk in frame.chunks:
        yield f"transform {chunk.transform}"
        if chunk.transform in symbols.TRANSFORMS:
            params = symbols.parse_params(chunk.params)
            yield from ("rare",) * (params.n_rare > 0)
            yield from ("raw",) * (params.n_raw > 0)
        for stream in chunk.streams:
            yield f"codec {stream.codec}"
            if stream.codec == reference_frame.FRAME:
                if depth:
                    yield "parts within parts"
                yield from features(decode_frame(stream.encoded), depth + 1)
