"""Headers, chunk headers and trailers on the wire, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
import reference_writer as writer
import strategies
from hypothesis import given
from hypothesis import strategies as st

from z4ai import _reference, frame
from z4ai._fast.chunks import JOB
from z4ai.decoder import index_of_buffer, index_of_range
from z4ai.dtypes import resolve
from z4ai.errors import CorruptError, LimitError, TruncatedError
from z4ai.frame import chunk
from z4ai.options import Limits

LIMITS = Limits()


@given(
    st.sampled_from(sorted(strategies.ARRAY_DTYPES)),
    st.one_of(st.none(), st.lists(st.integers(0, 2**20), max_size=3)),
    st.booleans(),
    st.booleans(),
    st.one_of(st.none(), st.integers(0, 2**63 - 1)),
    st.integers(1, 2**22).map(lambda n: 16 * n),
)
def test_headers_come_back_and_the_reference_agrees(
    name: str,
    shape: list[int] | None,
    fortran: bool,
    big_endian: bool,
    nbytes: int | None,
    chunk_nbytes: int,
) -> None:
    dtype = resolve(name)
    if shape is not None:
        nbytes = int(np.prod(shape, dtype=object)) * dtype.item_nbytes
    header = frame.FrameHeader(
        dtype=dtype,
        content_nbytes=nbytes,
        chunk_nbytes=chunk_nbytes,
        shape=None if shape is None else tuple(shape),
        fortran=fortran and shape is not None,
        big_endian=big_endian and dtype.width > 1,
    )
    raw = frame.write_header(header)
    assert raw == writer.write_header(
        content_nbytes=nbytes or 0,
        dtype=name,
        shape=shape,
        fortran=header.fortran,
        big_endian=header.big_endian,
        streamed=nbytes is None,
        chunk_nbytes=chunk_nbytes,
    )
    for behind in (b"", b"more"):
        back = frame.parse_header(memoryview(raw + behind), LIMITS)
        for field in ("dtype", "content_nbytes", "chunk_nbytes", "shape", "fortran", "big_endian"):
            assert getattr(back, field) == getattr(header, field)
        assert back.nbytes == len(raw)
    told = _reference.parse_header(raw)
    assert told.dtype_name == name
    assert told.content_nbytes == nbytes
    assert told.shape == tuple(shape or ())
    assert told.checksum == back.checksum
    if nbytes is not None:
        assert header.n_chunks == -(-nbytes // chunk_nbytes)
        assert header.has_trailer == (nbytes > chunk_nbytes)
    else:
        assert header.has_trailer


@given(st.lists(st.integers(26, 2**32 - 1), max_size=20))
def test_trailers_are_those_of_the_reference_writer(sizes: list[int]) -> None:
    header = frame.FrameHeader(resolve(None), None, 64, checksum=0x0123456789ABCDEF)
    nbytes = len(sizes) * 64
    raw = frame.write_trailer(header, sizes, nbytes)
    assert raw == writer.write_trailer(sizes, nbytes, header.checksum)
    assert len(raw) == frame.trailer_nbytes(len(sizes))
    found, total = frame.parse_trailer(memoryview(b"xyz" + raw), header, LIMITS)
    assert found.tolist() == sizes
    assert total == nbytes


def test_the_number_of_chunks_is_not_believed_without_the_magic() -> None:
    with pytest.raises(TruncatedError):
        frame.parse_trailer_claim(memoryview(b"\xff" * 28), 28)
    with pytest.raises(TruncatedError):
        frame.parse_trailer_claim(memoryview(b"IA4Z"), 4)
    assert frame.parse_trailer_claim(memoryview(b"\xff" * 24 + b"IA4Z"), 28) == 2**64 - 1


def test_a_trailer_larger_than_its_bytes_is_corrupt_and_than_the_limit_is_limited() -> None:
    header = frame.FrameHeader(resolve(None), None, 64)
    raw = frame.write_trailer(header, [30] * 10, 640)
    with pytest.raises(CorruptError):
        frame.parse_trailer(memoryview(raw[1:]), header, LIMITS)
    with pytest.raises(LimitError):
        frame.parse_trailer(memoryview(raw), header, Limits(max_table_nbytes=39))


def test_chunk_headers_are_those_of_the_reference_writer() -> None:
    content = strategies.noise(131)
    raw = writer.write_chunk(content, offset=192, plan=("float4", "store"))
    header = frame.FrameHeader(resolve("fp32"), 192 + 131, 192)
    assert chunk._JOB_ROW.size == JOB.itemsize
    jobs = np.zeros(2, JOB)
    end = frame.parse_chunk_header(
        memoryview(raw), 0, len(raw), header, 1, jobs.view(np.uint8).data, 1, 5
    )
    assert end == len(raw)
    job = jobs[1]
    assert [int(job[f]) for f in ("content_offset", "content_nbytes", "seed")] == [5, 131, 192]
    assert job["stream_offset"][:4].tolist() == [40 + 32 * p for p in (3, 2, 1, 0)]
    assert job["tail_offset"] == len(raw) - 3
    again = bytearray(raw)
    again[:40] = bytes(40)
    frame.write_chunk_headers(memoryview(again), jobs[1:])
    assert bytes(again) == raw


@pytest.mark.parametrize("streamed", [False, True])
def test_ranged_reads_touch_header_and_trailer_only(streamed: bool) -> None:
    content = strategies.noise(64 * 50)
    shape = None if streamed else (1,) * 63 + (len(content),)
    blob = writer.write_frame(
        content, dtype="uint8", chunk_nbytes=64, streamed=streamed, shape=shape
    )
    reads: list[tuple[int, int]] = []

    def read(offset: int, nbytes: int) -> memoryview:
        assert 0 <= offset <= offset + nbytes <= len(blob)
        reads.append((offset, nbytes))
        return memoryview(blob)[offset : offset + nbytes]

    index = index_of_range(read, len(blob), LIMITS)
    assert index.nbytes == len(blob)
    assert index.content_nbytes == len(content)
    whole = index_of_buffer(memoryview(blob), LIMITS)
    assert index.offsets.tolist() == whole.offsets.tolist()
    assert index.offsets.tolist()[:-1] == [at for at, _ in _reference.find_chunks(blob)]
    assert all(
        offset + nbytes <= 1200 or offset >= int(index.offsets[-1]) for offset, nbytes in reads
    )


def test_a_header_longer_than_the_first_read_is_read_again() -> None:
    blob = writer.write_frame(b"abc", tables=[(40000, bytes(1000))])
    index = index_of_buffer(memoryview(blob), LIMITS)
    assert index.header.nbytes == 24 + 1008 + 8
    for nbytes in (127, 128, 129, 1000):
        with pytest.raises(TruncatedError):
            index_of_buffer(memoryview(blob)[:nbytes], LIMITS)
