"""`compress` and `decompress` over buffers, and what can be told of a frame without decoding it."""

from __future__ import annotations

from math import prod
from operator import index as as_int
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from z4ai import frame
from z4ai._buffers import bytes_of, writable_bytes_of
from z4ai._fast.chunks import BytesBuilder
from z4ai._wire import FORMAT_VERSION, MAGIC_DELTA, MAGIC_FRAME
from z4ai.codecs import CODECS, FRAME
from z4ai.decoder import check_output, decode_frame, index_of_buffer, jobs_of_chunks
from z4ai.dtypes import FIRST_PARTS, OPAQUE, TRANSFORMS, DType, is_auto, resolve
from z4ai.encoder import encode_content
from z4ai.errors import FormatError
from z4ai.model import ModelInfo, describe_model
from z4ai.options import Limits, resolve_effort, resolve_limits
from z4ai.plan import STORE_PLAN, find_blocks, resolve_or_guess

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = [
    "CopiesInfo",
    "FrameInfo",
    "ModelInfo",
    "PartInfo",
    "PlaneInfo",
    "ReferenceInfo",
    "compress",
    "compress_bound",
    "decompress",
    "info",
    "peek_is_z4ai",
]

# A frame of one chunk and a small shape costs this much at most.
_MAX_OVERHEAD = 64


def compress(
    data: Any,
    *,
    dtype: Any = None,
    effort: str | None = None,
    shape: Sequence[int] | None = None,
    threads: int | None = None,
) -> bytes:
    """Compress a buffer to one frame.

    Parameters
    ----------
    data : buffer or numpy.ndarray
        bytes, bytearray, memoryview of any format, mmap, or array of any dtype but object; not
        modified. What is not contiguous is copied first.
    dtype : str, numpy.dtype, torch.dtype or None
        Type of the elements, so that their planes can be split: ``"bf16"``, ``"fp32"``, … None
        (the default) is opaque bytes, which are never taken for something else. The length need
        not be a multiple of the width. ``"auto"`` guesses by a sample whether the bytes are
        elements of some width, and knows the blocks of GGUF files; a wrong guess costs size
        alone, and `info` tells what it was.
    effort : {"fast", "balanced", "default", "max"}, optional
        Decode speed against size. None is ``"balanced"``.
    shape : sequence of int, optional
        Shape of the tensor whose elements these are, in C order: rows and columns of weights
        differ in scale, which makes the frame smaller. It is a hint, and not recorded.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.

    Returns
    -------
    bytes
        The frame. The same input, options and release give the same bytes on every machine and
        with any number of threads.

    Raises
    ------
    TypeError
        If `data` offers no buffer or holds Python objects.
    ValueError
        If `dtype`, `effort` or `threads` is not known, or `shape` does not fit the data, or
        comes with ``dtype="auto"``.

    Examples
    --------
    >>> import numpy as np, z4ai
    >>> w = np.linspace(-1, 1, 4096, dtype=np.float32)
    >>> blob = z4ai.compress(w, dtype="fp32")
    >>> z4ai.decompress(blob) == w.tobytes()
    True
    """
    tier = resolve_effort(effort)
    if shape is not None and is_auto(dtype):
        msg = "a shape needs a dtype, got dtype='auto'"
        raise ValueError(msg)
    content = bytes_of(data)
    blocks = find_blocks(dtype, content, tier)
    resolved = OPAQUE if blocks is not None else resolve_or_guess(dtype, content, tier)
    header = frame.FrameHeader(
        dtype=resolved,
        content_nbytes=len(content),
        big_endian=resolved.width > 1 and is_big_endian(dtype),
    )
    places = None if shape is None else check_shape(shape, len(content), resolved)
    return encode_content(content, header, tier, places, threads, blocks)


def check_extents(shape: Sequence[int] | None, dtype: DType) -> tuple[int, ...] | None:
    """Check a shape; -> it in elements, of which a complex number has two."""
    if shape is None:
        return None
    extents = tuple(as_int(extent) for extent in shape)
    if min(extents, default=0) < 0:
        msg = f"shape is {extents}, expected no negative extent"
        raise ValueError(msg)
    return element_shape(extents, dtype)


def check_shape(shape: Sequence[int], nbytes: int, dtype: DType) -> tuple[int, ...] | None:
    """Check a shape against the content; -> it in elements."""
    places = check_extents(shape, dtype)
    if places is None or prod(places) * dtype.width != nbytes:
        msg = f"shape {tuple(shape)} of {dtype.name} does not make {nbytes} bytes"
        raise ValueError(msg)
    return places


def element_shape(shape: tuple[int, ...], dtype: DType) -> tuple[int, ...]:
    """Shape in elements as the transforms see them: a complex number is two."""
    pairs = dtype.item_nbytes // dtype.width if dtype.item_nbytes else 1
    return (*shape, pairs) if pairs > 1 else shape


def is_big_endian(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and np.dtype(dtype).newbyteorder("<") != dtype


def compress_bound(nbytes: int, dtype: Any = None) -> int:
    """Return the largest size of a frame of `nbytes` bytes of content.

    Parameters
    ----------
    nbytes : int
        Bytes of content.
    dtype : str, numpy.dtype, torch.dtype or None
        As for `compress`; the bound is the same for all.

    Returns
    -------
    int
        Bytes that `compress` never exceeds, at any tier.

    Examples
    --------
    >>> import z4ai
    >>> len(z4ai.compress(b"x", dtype="bf16")) <= z4ai.compress_bound(1, "bf16")
    True
    """
    if not is_auto(dtype):
        resolve(dtype)
    nbytes = as_int(nbytes)
    if nbytes < 0:
        msg = f"nbytes is {nbytes}, expected 0 or more"
        raise ValueError(msg)
    chunks = -(-nbytes // STORE_PLAN.chunk_nbytes)
    per_chunk = frame.MIN_CHUNK_NBYTES - 1 + 4
    return nbytes + _MAX_OVERHEAD + chunks * per_chunk + frame.trailer_nbytes(0)


def decompress(
    blob: Any,
    *,
    out: Any = None,
    threads: int | None = None,
    limits: Limits | None = None,
) -> bytes | memoryview:
    """Restore the content of a frame.

    Parameters
    ----------
    blob : buffer
        One whole frame, of any tier, from any function of z4ai that makes frames.
    out : buffer, optional
        Writable and contiguous; the content is decoded straight into its first bytes.
    threads : int, optional
        Threads to use. Default: `Z4AI_NUM_THREADS`, or the processors that this process may use.
    limits : Limits, optional
        What may be allocated because the frame says so.

    Returns
    -------
    bytes or memoryview
        The content; with `out`, a memoryview of the bytes of `out` that were filled.

    Raises
    ------
    FormatError
        If the frame is truncated, corrupt, or of another version; `out` may then be partly
        overwritten.
    LimitError
        If the content is larger than `limits` allow.
    ValueError
        If `out` is too small or read-only; nothing is written then.

    Examples
    --------
    >>> import z4ai
    >>> blob = z4ai.compress(b"some weights", dtype="bf16")
    >>> z4ai.decompress(blob)
    b'some weights'
    >>> out = bytearray(12)
    >>> bytes(z4ai.decompress(blob, out=out))
    b'some weights'
    """
    buf = bytes_of(blob).data
    limits = resolve_limits(limits)
    index = index_of_buffer(buf, limits)
    nbytes = index.restored_nbytes
    if out is not None:
        target = writable_bytes_of(out)
        if len(target) < nbytes:
            msg = f"out has {len(target)} bytes, the content has {nbytes}"
            raise ValueError(msg)
        decode_frame(buf, index, target[:nbytes], threads)
        return memoryview(target[:nbytes])
    check_output(nbytes, limits)
    builder = BytesBuilder(nbytes)
    with memoryview(builder) as view:
        decode_frame(buf, index, np.frombuffer(view, np.uint8), threads)
    return builder.finish(nbytes)


def peek_is_z4ai(blob: Any) -> bool:
    """Tell whether `blob` begins like a frame that `decompress` reads.

    Looks at the first five bytes only: magic and format version.

    Parameters
    ----------
    blob : buffer
        Anything that has bytes.

    Returns
    -------
    bool
        Whether it does; what follows may still be damaged.

    Examples
    --------
    >>> import z4ai
    >>> z4ai.peek_is_z4ai(z4ai.compress(b"")), z4ai.peek_is_z4ai(b"PK")
    (True, False)
    """
    head = bytes(bytes_of(blob)[:5])
    return head == MAGIC_FRAME + bytes([FORMAT_VERSION])


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
        model=None if header.model is None else describe_model(header.model),
        copies=None
        if header.copies is None
        else CopiesInfo(len(header.copies), header.copied_nbytes),
        reference=None
        if header.reference is None
        else ReferenceInfo(header.reference.nbytes, f"{header.reference.digest:032x}"),
        missing_extras=_missing_extras(),
    )


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


def _missing_extras() -> tuple[str, ...]:
    from z4ai.codecs import best  # noqa: PLC0415 - the costly coders are seldom wanted

    return best.missing_extras()


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
