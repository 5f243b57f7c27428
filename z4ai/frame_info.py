"""What can be told of a frame without decoding it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai._buffers import bytes_of
from z4ai._wire import FORMAT_VERSION, MAGIC_DELTA
from z4ai.codecs import CODECS, FRAME, best
from z4ai.decoder import index_of_buffer, jobs_of_chunks
from z4ai.dtypes import FIRST_PARTS, TRANSFORMS
from z4ai.errors import FormatError
from z4ai.model import BLOCK, COLUMNS, ROWS
from z4ai.options import Limits, resolve_limits

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from z4ai.dtypes import DType

__all__ = [
    "CopiesInfo",
    "FrameInfo",
    "ModelInfo",
    "PartInfo",
    "PlaneInfo",
    "ReferenceInfo",
    "info",
]


class PlaneInfo(NamedTuple):
    """One plane of a frame, over all its chunks.

    Attributes
    ----------
    plane : int
        Number, from the most significant one.
    codecs : dict of str to int
        Streams by codec.
    content_nbytes, encoded_nbytes : int
        Bytes before and after.
    """

    plane: int
    codecs: dict[str, int]
    content_nbytes: int
    encoded_nbytes: int

    @property
    def ratio(self) -> float:
        """Content bytes by encoded bytes."""
        return self.content_nbytes / self.encoded_nbytes if self.encoded_nbytes else 1.0


class PartInfo(NamedTuple):
    """One part of the chunks that one stage took apart, over all of them.

    Attributes
    ----------
    transform : str
        Name of the stage's transform.
    part : int
        Number of the part, as the page of the transform counts them.
    dtypes : dict of str to int
        Parts by the code of what they were coded as.
    content_nbytes, encoded_nbytes : int
        Bytes of the parts, and of the frames that hold them.
    """

    transform: str
    part: int
    dtypes: dict[str, int]
    content_nbytes: int
    encoded_nbytes: int


class ModelInfo(NamedTuple):
    """What the chunks of symbols of a frame share.

    Attributes
    ----------
    n_contexts : int
        Tables of symbols.
    period : int
        Elements of a row, as the contexts see them; 0 where there are neither rows nor columns.
    rows, columns : bool
        Whether rows and columns have classes that contexts follow from.
    """

    n_contexts: int
    period: int
    rows: bool
    columns: bool


class CopiesInfo(NamedTuple):
    """Ranges of the content that are copied from before, instead of being coded.

    Attributes
    ----------
    n_copies : int
        Number of them.
    nbytes : int
        Bytes of content in them.
    """

    n_copies: int
    nbytes: int


class ReferenceInfo(NamedTuple):
    """The reference that a delta frame needs to be read.

    Attributes
    ----------
    nbytes : int
        Its size.
    digest : str
        Its XXH3-128, in hexadecimal.
    """

    nbytes: int
    digest: str


class FrameInfo(NamedTuple):
    """What a frame tells without being decoded.

    Attributes
    ----------
    format_version : int
        Version of the format.
    dtype : str or None
        Code of the element type; None for opaque bytes.
    shape : tuple of int or None
        Shape of an array; None for a buffer.
    order : {"C", "F"} or None
        Memory order of an array.
    byteorder : {"<", ">"}
        Byte order of the elements of the content.
    content_nbytes, encoded_nbytes : int
        Bytes of the content and of the frame.
    chunk_nbytes, n_chunks : int
        Content bytes of a chunk, and how many there are.
    header_nbytes : int
        Bytes of the header, with model and copies.
    transforms : dict of str to int
        Chunks by transform.
    planes : tuple of PlaneInfo
        By plane number, of the chunks that have planes. Chunks that are coded as bytes count as
        plane 0; of chunks of symbols plane 0 is the symbols, 1 the remainders.
    parts : tuple of PartInfo
        Of the chunks that a stage took apart.
    model : ModelInfo or None
        What the chunks of symbols share.
    copies : CopiesInfo or None
        What no chunk holds.
    reference : ReferenceInfo or None
        What a delta frame was made against.
    missing_extras : tuple of str
        Extras of this installation, not of the frame, that are missing: with them ``"max"`` tries
        more, and frames that used them can be decoded.
    """

    format_version: int
    dtype: str | None
    shape: tuple[int, ...] | None
    order: str | None
    byteorder: str
    content_nbytes: int
    encoded_nbytes: int
    chunk_nbytes: int
    n_chunks: int
    header_nbytes: int
    transforms: dict[str, int]
    planes: tuple[PlaneInfo, ...]
    parts: tuple[PartInfo, ...]
    model: ModelInfo | None
    copies: CopiesInfo | None
    reference: ReferenceInfo | None
    missing_extras: tuple[str, ...]

    @property
    def ratio(self) -> float:
        """Content bytes by encoded bytes."""
        return self.content_nbytes / self.encoded_nbytes


def info(blob: Any, *, limits: Limits | None = None) -> FrameInfo:
    """Describe a frame without decoding it.

    Parameters
    ----------
    blob : buffer
        One whole frame, or delta frame.
    limits : Limits, optional
        For the tables of the frame.

    Raises
    ------
    FormatError
        If the frame is not well formed. Its content is not verified.

    Examples
    --------
    >>> import z4ai
    >>> z4ai.info(z4ai.compress(bytes(100), dtype="fp32")).planes[0].codecs
    {'constant': 1}
    """
    buf = bytes_of(blob).data
    limits = resolve_limits(limits)
    index = index_of_buffer(buf, limits, delta=bytes(buf[:4]) == MAGIC_DELTA)
    jobs = jobs_of_chunks(buf, index, 0, index.n_chunks)
    header = index.header
    of_parts = jobs["stream_codec"][:, 0] == FRAME
    with_planes = jobs[jobs["layout"] < FIRST_PARTS]
    n_planes = int(with_planes["n_streams"].max(initial=0))
    return FrameInfo(
        format_version=FORMAT_VERSION,
        dtype=_name(header.dtype),
        shape=header.shape,
        order=None if header.shape is None else "F" if header.fortran else "C",
        byteorder=">" if header.big_endian else "<",
        content_nbytes=index.restored_nbytes,
        encoded_nbytes=index.nbytes,
        chunk_nbytes=header.chunk_nbytes,
        n_chunks=index.n_chunks,
        header_nbytes=header.nbytes,
        transforms=_transforms(jobs),
        planes=tuple(_plane_info(with_planes, p) for p in range(n_planes)),
        parts=_parts_info(buf, jobs[of_parts], limits),
        model=None if header.model is None else _model_info(header.model),
        copies=None
        if header.copies is None
        else CopiesInfo(len(header.copies), header.copied_nbytes),
        reference=None
        if header.reference is None
        else ReferenceInfo(header.reference.nbytes, f"{header.reference.digest:032x}"),
        missing_extras=best.missing_extras(),
    )


def _model_info(block: NDArray[np.uint8]) -> ModelInfo:
    """Tell what is in a model that has been parsed."""
    _, count, period, _, has, *_ = BLOCK.unpack_from(block)
    return ModelInfo(count, period, bool(has & ROWS), bool(has & COLUMNS))


def _transforms(jobs: NDArray[np.void]) -> dict[str, int]:
    found, counts = np.unique(jobs["layout"], return_counts=True)
    return {TRANSFORMS[t]: n for t, n in zip(found.tolist(), counts.tolist(), strict=True)}


def _parts_info(buf: memoryview, jobs: NDArray[np.void], limits: Limits) -> tuple[PartInfo, ...]:
    """Read the headers of the frames that hold the parts of chunks."""
    found: dict[tuple[int, int], PartInfo] = {}
    for job in jobs:
        transform = int(job["layout"])
        for p in range(int(job["n_streams"])):
            at, nbytes = int(job["stream_offset"][p]), int(job["stream_nbytes"][p])
            try:
                index = index_of_buffer(buf[at : at + nbytes], limits)
            except FormatError as error:
                if error.offset is not None:
                    error.offset += at
                raise
            info = found.get((transform, p)) or PartInfo(TRANSFORMS[transform], p, {}, 0, 0)
            name = index.header.dtype.name
            found[transform, p] = info._replace(
                dtypes={**info.dtypes, name: info.dtypes.get(name, 0) + 1},
                content_nbytes=info.content_nbytes + index.restored_nbytes,
                encoded_nbytes=info.encoded_nbytes + nbytes,
            )
    return tuple(found[key] for key in sorted(found))


def _name(dtype: DType) -> str | None:
    return dtype.name if dtype.code else None


def _plane_info(jobs: NDArray[np.void], plane: int) -> PlaneInfo:
    with_plane = jobs[jobs["n_streams"] > plane]
    codecs = np.bincount(with_plane["stream_codec"][:, plane], minlength=len(CODECS))
    return PlaneInfo(
        plane=plane,
        codecs={CODECS[c]: int(n) for c, n in enumerate(codecs) if n},
        content_nbytes=int((with_plane["content_nbytes"] // with_plane["n_streams"]).sum()),
        encoded_nbytes=int(with_plane["stream_nbytes"][:, plane].sum()),
    )
