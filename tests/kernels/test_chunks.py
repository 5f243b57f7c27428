"""The fused chunk kernels: each variant against the reference, ends of buffers, jobs that lie."""

from __future__ import annotations

import ctypes
import gc
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import strategies

from z4ai._fast import _dispatch, chunks
from z4ai._reference import planes
from z4ai._reference.frame import Stream, decode_stream
from z4ai._reference.xxh3 import xxh3_64
from z4ai.dtypes import LAYOUT_WIDTHS

Bytes = npt.NDArray[np.uint8]
Jobs = npt.NDArray[np.void]

LAYOUTS = dict(enumerate(planes.LAYOUTS))
ISAS = _dispatch.runnable()
GUARD, FILL = 64, 0xA5
STORE, CONSTANT, ZSTD = range(3)
OK, CORRUPT, TRUNCATED, UNSUPPORTED, CAPACITY, CHECKSUM = 0, -1, -2, -3, -4, -5


def at_offset(data: bytes, offset: int) -> Bytes:
    """A copy that begins `offset` bytes into its memory and ends where that ends."""
    room = np.empty(offset + len(data), np.uint8)
    room[offset:] = np.frombuffer(data, np.uint8)
    return room[offset:]


def jobs_for(
    sizes: list[int], layout: int, *, swap: bool = False, other: int | None = None
) -> Jobs:
    jobs = np.zeros(len(sizes), chunks.JOB)
    ends = np.cumsum([0, *sizes])
    jobs["content_offset"], jobs["content_nbytes"] = ends[:-1], sizes
    jobs["seed"] = ends[:-1] + 7
    jobs["layout"] = layout
    jobs["other_layout"] = layout if other is None else other
    jobs["swap"] = swap
    return jobs


def encode(
    content: Bytes, jobs: Jobs, *, gap: int = 0, gap_stream: int = 0, threads: int = 1, isa: str
) -> tuple[bytes, Jobs]:
    """Encode into a guarded buffer of exactly the room that is asked for."""
    jobs = jobs.copy()
    each = [
        chunks.encode_bound(int(job["content_nbytes"]), int(job["layout"]), gap, gap_stream)
        + int(job["lead"])
        for job in jobs
    ]
    room = np.full(sum(each) + GUARD, FILL, np.uint8)
    end = chunks.encode(
        content, room[:-GUARD], 0, jobs.view(np.uint8), gap, gap_stream, threads, isa=isa
    )
    assert (room[-GUARD:] == FILL).all(), "wrote behind the output"
    return room[:end].tobytes(), jobs


def decode(
    encoded: Bytes, jobs: Jobs, nbytes: int, *, offset: int = 0, threads: int = 1, isa: str
) -> tuple[bytes, Jobs]:
    jobs = jobs.copy()
    jobs["status"] = 99
    room = np.full(GUARD + offset + nbytes + GUARD, FILL, np.uint8)
    out = room[GUARD + offset : GUARD + offset + nbytes]
    ok = chunks.decode(encoded, out, jobs.view(np.uint8), threads, isa=isa)
    assert (room[: GUARD + offset] == FILL).all(), "wrote in front of the output"
    assert (room[GUARD + offset + nbytes :] == FILL).all(), "wrote behind the output"
    assert ok == bool((jobs["status"] == 0).all())
    return out.tobytes(), jobs


def by_reference(encoded: bytes, job: np.void, *, swap: bool) -> bytes:
    """The content of one chunk from its streams, by the reference alone."""
    name = LAYOUTS[int(job["layout"])]
    width = planes.layout_width(name)
    n, tail = divmod(int(job["content_nbytes"]), width)
    decoded = []
    for p in range(width):
        at, size = int(job["stream_offset"][p]), int(job["stream_nbytes"][p])
        stream = Stream(int(job["stream_codec"][p]), encoded[at : at + size])
        decoded.append(decode_stream(stream, n))
    content = planes.interleave(decoded, name)
    if swap and width > 1:
        content = planes.swap_bytes(content, width)
    at = int(job["tail_offset"])
    return content + encoded[at : at + tail]


def test_jobs_mirror_the_struct() -> None:
    """Importing checks the size against C's; every byte of it has a name."""
    fields = [chunks.JOB.fields[name][0].itemsize for name in chunks.JOB.names]
    assert sum(fields) == chunks.JOB.itemsize


@pytest.mark.parametrize("layout", LAYOUTS, ids=LAYOUTS.get)
@pytest.mark.parametrize("swap", [False, True], ids=["little", "big"])
def test_every_length_by_every_variant_equals_the_reference(layout: int, swap: bool) -> None:
    compared: set[str] = set()
    width = planes.layout_width(LAYOUTS[layout])
    for nbytes in [*range(1, 258), 1023, 4099, 40_000]:
        kind = strategies.KINDS[nbytes % len(strategies.KINDS)]
        content = strategies.make(kind, nbytes, width, nbytes)
        jobs = jobs_for([nbytes], layout, swap=swap)
        made = {}
        for k, isa in enumerate(ISAS):
            source = at_offset(content, (nbytes + 5 * k) % 16)
            made[isa] = encode(source, jobs, gap=3, gap_stream=2, isa=isa)
            assert source.tobytes() == content
        encoded, done = made[ISAS[0]]
        (job,) = done
        for isa in ISAS:
            assert made[isa][0] == encoded
            assert (made[isa][1] == done).all()
        assert job["status"] == OK
        assert int(job["checksum"]) == xxh3_64(content, 7)
        assert by_reference(encoded, job, swap=swap) == content
        assert len(encoded) == int(job["encoded_nbytes"]) <= nbytes + 5
        for k, isa in enumerate(ISAS):
            source = at_offset(encoded, (nbytes + 3 * k) % 16)
            back, ended = decode(source, done, nbytes, offset=(nbytes * 5 + k) % 16, isa=isa)
            assert back == content, (isa, nbytes)
            assert ended["status"][0] == OK
            compared.add(isa)
    assert compared == set(_dispatch.runnable())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_many_chunks_with_leads_lie_where_the_jobs_say(isa: str, threads: int) -> None:
    sizes = [1, 2, 3, 4000, 17, 70_000, 1, 300_001, 5, 4096] * 3
    content = b"".join(
        strategies.make(strategies.KINDS[k % 7], size, 4, k) for k, size in enumerate(sizes)
    )
    jobs = jobs_for(sizes, 5)
    jobs["lead"] = np.arange(len(sizes)) % 4 * 11
    source = np.frombuffer(content, np.uint8)
    wanted, done = encode(source, jobs, gap=20, gap_stream=5, isa="scalar")
    encoded, found = encode(source, jobs, gap=20, gap_stream=5, threads=threads, isa=isa)
    assert (found == done).all()
    at = 0
    for job in found:
        at += int(job["lead"])
        assert int(job["encoded_offset"]) == at
        gap = 20 + 5 * int(job["n_streams"])
        nbytes = int(job["encoded_nbytes"])
        assert encoded[at + gap : at + nbytes] == wanted[at + gap : at + nbytes]
        at += nbytes
    assert at == len(encoded)
    source = np.frombuffer(encoded, np.uint8)
    back, _ = decode(source, found, len(content), threads=threads, isa=isa)
    assert back == content


def test_the_planes_that_promise_less_are_left() -> None:
    """fp16 of one sign: plain bytes are better than the float layout; noise decides neither way."""
    mostly = np.abs(np.frombuffer(strategies.noise(60_000), np.int8).astype(np.float16)) / 100
    content = mostly.tobytes()
    taken = set()
    for layout, other in ((4, 1), (1, 4), (4, 4), (1, 1)):
        jobs = jobs_for([len(content)], layout, other=other)
        made = [encode(np.frombuffer(content, np.uint8), jobs, isa=isa) for isa in ISAS]
        assert len({encoded for encoded, _ in made}) == 1
        encoded, done = made[0]
        assert by_reference(encoded, done[0], swap=False) == content
        taken.add((layout, other, int(done["layout"][0])))
    both = {found for layout, other, found in taken if layout != other}
    assert len(both) == 1, "the order of the two layouts decides"


# --- Refusals -------------------------------------------------------------------------------------


def test_a_job_outside_the_content_is_refused() -> None:
    content, out = np.zeros(100, np.uint8), np.zeros(1000, np.uint8)
    for field, value in [
        ("content_nbytes", 0),
        ("content_nbytes", 101),
        ("content_nbytes", (1 << 26) + 1),
        ("content_nbytes", 2**64 - 1),
        ("content_offset", 1),
        ("content_offset", 2**64 - 1),
        ("layout", 7),
        ("layout", 255),
        ("other_layout", 7),
        ("other_layout", 5),
    ]:
        jobs = jobs_for([100], 4)
        jobs[field] = value
        with pytest.raises(ValueError, match="job"):
            chunks.encode(content, out, 0, jobs.view(np.uint8), 0, 0, 1)
    assert not out.any()


@pytest.mark.parametrize("threads", [1, 2])
def test_an_output_that_is_too_small_is_refused(threads: int) -> None:
    content = np.frombuffer(strategies.noise(10_000), np.uint8)
    jobs = jobs_for([5000, 5000], 4)
    least = 10_000
    for nbytes in range(0, least, 501):
        room = np.full(nbytes + GUARD, FILL, np.uint8)
        with pytest.raises(ValueError, match="too small"):
            chunks.encode(content, room[:nbytes], 0, jobs.copy().view(np.uint8), 0, 0, threads)
        assert (room[nbytes:] == FILL).all()
    with pytest.raises(ValueError, match="offset"):
        chunks.encode(content, np.zeros(9, np.uint8), 10, jobs.view(np.uint8), 0, 0, threads)


def test_doors_check_their_arguments() -> None:
    content, out = np.zeros(100, np.uint8), np.zeros(1000, np.uint8)
    raw = jobs_for([100], 4).view(np.uint8)
    with pytest.raises(ValueError, match="threads"):
        chunks.encode(content, out, 0, raw, 0, 0, 0)
    with pytest.raises(ValueError, match="threads"):
        chunks.decode(content, out, raw, -1)
    with pytest.raises(ValueError, match="rows"):
        chunks.decode(content, out, raw[:-1], 1)
    with pytest.raises(ValueError, match="avx0"):
        chunks.decode(content, out, raw, 1, isa="avx0")
    with pytest.raises(ValueError, match="layout"):
        chunks.encode_bound(1, 12, 0, 0)
    with pytest.raises(ValueError, match="large"):
        chunks.encode_bound((1 << 26) + 1, 0, 0, 0)
    assert chunks.encode(content, out, 5, raw[:0], 0, 0, 1) == 5
    assert chunks.decode(content, out, raw[:0], 1)
    read_only = out.view()
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        chunks.encode(content, read_only, 0, raw, 0, 0, 1)


LIES: list[tuple[str, Any, set[int]]] = [
    ("content_offset", 1, {CAPACITY}),
    ("content_offset", 2**64 - 1, {CAPACITY}),
    ("content_nbytes", 0, {CAPACITY}),
    ("content_nbytes", 2**64 - 1, {CAPACITY}),
    ("content_nbytes", 1, {CORRUPT}),
    ("stream_offset", 2**64 - 1, {CAPACITY}),
    ("stream_offset", 10**6, {CAPACITY}),
    ("stream_nbytes", 2**32 - 1, {CAPACITY}),
    ("stream_nbytes", 0, {CORRUPT, TRUNCATED}),
    ("stream_nbytes", 1, {CORRUPT, TRUNCATED}),
    ("stream_codec", 3, {CORRUPT}),  # symbols, in a plane
    ("stream_codec", 4, {UNSUPPORTED}),
    ("stream_codec", 255, {UNSUPPORTED}),
    ("stream_codec", CONSTANT, {CORRUPT}),
    ("stream_codec", STORE, {CORRUPT}),
    ("tail_offset", 2**64 - 1, {CAPACITY}),
    ("tail_offset", 10**6, {CAPACITY}),
    ("layout", 7, {CORRUPT}),
    ("layout", 10, {CORRUPT}),
    ("layout", 12, {UNSUPPORTED}),
    ("layout", 255, {UNSUPPORTED}),
    ("layout", 0, {CORRUPT}),
    ("layout", 6, {CORRUPT}),
    ("n_streams", 0, {CORRUPT}),
    ("n_streams", 9, {CORRUPT}),
    ("checksum", 0, {CHECKSUM}),
    ("seed", 0, {CHECKSUM}),
    ("swap", 1, {CHECKSUM}),
    ("layout", 2, {CHECKSUM}),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("field", "value", "expected"), LIES)
def test_a_job_that_lies_is_found_out(isa: str, field: str, value: int, expected: set[int]) -> None:
    content = strategies.weights(40_001, 4)
    encoded, done = encode(np.frombuffer(content, np.uint8), jobs_for([40_001], 5), isa=isa)
    assert ZSTD in done["stream_codec"][0]
    assert STORE in done["stream_codec"][0]
    source = at_offset(encoded, 3)
    for p in range(4) if done.dtype[field].shape else [None]:
        jobs = done.copy()
        if p is None:
            jobs[field] = value
        else:
            if jobs[field][0, p] == value:
                continue
            jobs[field][0, p] = value
        _, ended = decode(source, jobs, len(content), isa=isa)
        assert int(ended["status"][0]) in expected, p


@pytest.mark.parametrize("isa", ISAS)
def test_streams_cut_short_or_damaged_never_leave_their_buffers(isa: str) -> None:
    """Every cut and some flips of a coded stream; the sanitizer sees reads behind the end."""
    content = strategies.weights(9000, 2)
    encoded, done = encode(np.frombuffer(content, np.uint8), jobs_for([9000], 4), isa=isa)
    at, nbytes = int(done["stream_offset"][0, 0]), int(done["stream_nbytes"][0, 0])
    assert done["stream_codec"][0, 0] == ZSTD
    assert at + nbytes == len(encoded)
    for cut in range(0, nbytes, 13):
        jobs = done.copy()
        jobs["stream_nbytes"][0, 0] = cut
        jobs["tail_offset"] = at + cut
        _, ended = decode(at_offset(encoded[: at + cut], 1), jobs, 9000, isa=isa)
        assert ended["status"][0] < 0, cut
    for bit in range(8 * at, 8 * len(encoded), 5):
        damaged = bytearray(encoded)
        damaged[bit >> 3] ^= 1 << (bit & 7)
        back, ended = decode(at_offset(bytes(damaged), 2), done, 9000, isa=isa)
        assert ended["status"][0] < 0 or back == content, bit


def test_one_bad_chunk_does_not_disturb_the_others() -> None:
    content = strategies.weights(64 * 1000, 2)
    encoded, done = encode(np.frombuffer(content, np.uint8), jobs_for([1000] * 64, 4), isa="scalar")
    done["checksum"][[5, 40]] ^= 1
    for threads in (1, 2, 5):
        back, ended = decode(
            np.frombuffer(encoded, np.uint8), done, len(content), threads=threads, isa="scalar"
        )
        assert np.flatnonzero(ended["status"]).tolist() == [5, 40]
        assert back[:5000] == content[:5000]
        assert back[41_000:] == content[41_000:]


# --- BytesBuilder ---------------------------------------------------------------------------------


def test_a_builder_gives_what_was_written() -> None:
    for capacity in (0, 1, 100, 5 << 20):
        for kept in {0, min(1, capacity), capacity // 2, capacity}:
            builder = chunks.BytesBuilder(capacity)
            with memoryview(builder) as view:
                assert len(view) == capacity
                assert not view.readonly
                view[:kept] = strategies.noise(kept)
            made = builder.finish(kept)
            assert type(made) is bytes
            assert made == strategies.noise(kept)
            assert hash(made) == hash(bytes(bytearray(made)))
            ended = ctypes.string_at(id(made) + bytes.__basicsize__ - 1 + kept, 1)
            assert ended == b"\0", "a bytes object ends in a zero"
            with pytest.raises(ValueError, match="finished"):
                builder.finish(0)
    assert sys.getrefcount(made) == 2


def test_a_builder_refuses_to_move_under_a_view() -> None:
    builder = chunks.BytesBuilder(10)
    view = memoryview(builder)
    with pytest.raises(BufferError):
        builder.finish(5)
    view.release()
    for nbytes in (-1, 11):
        with pytest.raises(ValueError, match="capacity"):
            builder.finish(nbytes)
    assert len(builder.finish(10)) == 10
    with pytest.raises(BufferError):
        memoryview(builder)
    with pytest.raises(ValueError, match="negative"):
        chunks.BytesBuilder(-1)


def test_a_builder_that_is_dropped_gives_its_memory_back() -> None:
    gc.collect()
    for _ in range(200):
        builder = chunks.BytesBuilder(64 << 20)
        view = memoryview(builder)
        del builder
        view[0] = 1  # the view keeps it
        del view


@pytest.mark.parametrize(("layout", "width"), list(enumerate(LAYOUT_WIDTHS)))
def test_room_for_the_largest_chunk_is_room_for_any(layout: int, width: int) -> None:
    edges = (1, 1023, 4096, 32768, 65536, 131072, 1 << 20)
    sizes = [n for edge in edges for n in (edge - 1, edge, edge + 1)]
    beside = [chunks.encode_bound(n * width, layout, 25, 5) - n * width for n in sizes]
    assert beside == sorted(beside)
