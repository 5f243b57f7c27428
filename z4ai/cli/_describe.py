"""What `info` and `ls` tell of one file, without decoding it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from z4ai import frame_info
from z4ai._wire import FORMAT_VERSION
from z4ai.cli import _files, _models, _show
from z4ai.cli._files import CONTAINER, CONTAINERS, DELTA, DELTAS, FRAME, MODEL_DELTA, SAFETENSORS
from z4ai.cli._show import Result
from z4ai.errors import FormatError
from z4ai.stream import stats_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Collection, Iterator, Sequence

__all__ = ["info", "ls"]

_KINDS = (FRAME, CONTAINER, DELTA, MODEL_DELTA)


def info(args: argparse.Namespace, name: str, *, only: Collection[str] = _KINDS) -> Result:
    """Describe one file, of the kinds that are asked for."""
    with _files.input_file(name) as (file, kind, _):
        if only is DELTAS:
            _files.check_delta(kind)
        elif kind not in only:
            _files.check_compressed(name, kind)
        if kind in (CONTAINER, MODEL_DELTA):
            with _files.input_path(name, file) as path:
                return _model_info(name, kind, path)
        return _frame_info(name, kind, frame_info.info(_files.mapped(file)))


def _frame_info(name: str, kind: str, found: frame_info.FrameInfo) -> Result:
    record = {"container": CONTAINERS[kind], **found._asdict()}
    record |= stats_of(record.pop("content_nbytes"), record.pop("encoded_nbytes"))
    record["planes"] = [plane._asdict() | {"ratio": plane.ratio} for plane in found.planes]
    record["parts"] = [part._asdict() for part in found.parts]
    for key in ("model", "copies", "reference"):
        record[key] = record[key] and record[key]._asdict()

    def show() -> None:
        dtype = found.dtype or ("opaque, in blocks" if "blocks" in found.transforms else "opaque")
        if found.byteorder == ">":
            dtype += ", big-endian"
        what = "frame" if kind == FRAME else "delta frame"
        rows = [
            ("file", name),
            ("container", f"{what}, format version {found.format_version}"),
            ("dtype", dtype),
            ("content", _show.exact(found.content_nbytes)),
            ("encoded", f"{_show.exact(found.encoded_nbytes)}, ratio {found.ratio:.3f}"),
            ("chunks", f"{found.n_chunks} of {_show.human(found.chunk_nbytes)} at most"),
            *_coding(found),
        ]
        if found.shape is not None:
            rows.insert(3, ("shape", f"{_shape(found.shape)}, order {found.order}"))
        _show.fields(rows)
        coded = [
            [
                str(plane.plane),
                _times(plane.codecs),
                _show.human(plane.content_nbytes),
                _show.human(plane.encoded_nbytes),
                f"{plane.ratio:.3f}",
            ]
            for plane in found.planes
        ]
        if coded:
            print()
            _show.table(["plane", "codecs", "content", "encoded", "ratio"], coded, left=2)
        parts = [
            [
                f"{part.transform} {part.part}",
                _times(part.dtypes),
                _show.human(part.content_nbytes),
                _show.human(part.encoded_nbytes),
            ]
            for part in found.parts
        ]
        if parts:
            print()
            _show.table(["part", "dtypes", "content", "encoded"], parts, left=2)

    return Result(record, show)


def _coding(found: frame_info.FrameInfo) -> Iterator[tuple[str, str]]:
    """Say how the chunks of a frame are coded, beside their planes and parts."""
    if found.transforms:
        yield "transforms", _times(found.transforms)
    if found.model is not None:
        by = [name for name in ("rows", "columns") if getattr(found.model, name)]
        text = f"{found.model.n_contexts} contexts" if found.model.n_contexts > 1 else "1 context"
        if by:
            text += f" by {' and '.join(by)} of {found.model.period} elements"
        yield "model", text
    if found.copies is not None:
        yield "copies", f"{found.copies.n_copies}, {_show.exact(found.copies.nbytes)} of content"
    if found.reference is not None:
        yield "base", f"{_show.exact(found.reference.nbytes)}, XXH3-128 {found.reference.digest}"
    for extra in found.missing_extras:
        yield "missing", f"z4ai[{extra}] is not installed: max tries less without it"


def _times(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} x {n}" for name, n in counts.items())


def _shape(shape: Sequence[int]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _model_info(name: str, kind: str, path: str) -> Result:
    found = _models.open_model(path, kind)
    dtypes = Counter(row["dtype"] for row in found.rows)
    record = {
        "container": CONTAINERS[kind],
        "format_version": FORMAT_VERSION,
        "n_tensors": len(found.rows),
        "dtypes": dict(dtypes),
        "metadata": found.metadata,
        **found.more,
        **found.stats,
    }

    def show() -> None:
        sizes = found.stats
        rows = [
            ("file", name),
            ("container", f"{CONTAINERS[kind].upper()}, format version {FORMAT_VERSION}"),
            ("tensors", f"{len(found.rows)}: {_times(dtypes)}"),
            *((key, text) for key, text in found.told),
            ("content", _show.exact(sizes["original_bytes"])),
            ("encoded", f"{_show.exact(sizes['compressed_bytes'])}, ratio {sizes['ratio']:.3f}"),
        ]
        rows += [("metadata", f"{key} = {value}") for key, value in (found.metadata or {}).items()]
        _show.fields(rows)

    return Result(record, show)


def ls(args: argparse.Namespace, name: str) -> Result:
    """List the tensors of one file."""
    with _files.input_file(name) as (file, kind, _):
        if kind not in (CONTAINER, MODEL_DELTA, SAFETENSORS):
            is_frame = kind in (FRAME, DELTA)
            what = "a frame, which holds no tensors" if is_frame else "no file of tensors"
            msg = f"{what}: expected a ZSTN container, a model delta or a .safetensors file"
            raise FormatError(msg, offset=0)
        with _files.input_path(name, file) as path:
            found = _models.open_model(path, kind)
    container = "safetensors" if kind == SAFETENSORS else CONTAINERS[kind]
    record = {"container": container, "tensors": found.rows, **found.stats}

    def show() -> None:
        ways = kind == MODEL_DELTA
        cells = [
            [
                row["name"],
                row["dtype"],
                _shape(row["shape"]),
                *([row["way"]] if ways else []),
                _show.human(row["content_bytes"]),
                "" if row["encoded_bytes"] is None else _show.human(row["encoded_bytes"]),
                "" if row["ratio"] is None else f"{row['ratio']:.3f}",
            ]
            for row in found.rows
        ]
        head = ["name", "dtype", "shape", *(["way"] if ways else []), "content", "encoded", "ratio"]
        _show.table(head, cells, left=3 + ways)
        n = len(cells)
        sizes = _show.smaller(found.stats["original_bytes"], found.stats["compressed_bytes"])
        print(f"{n} tensor{'s' * (n != 1)}, {sizes}")

    return Result(record, show)
