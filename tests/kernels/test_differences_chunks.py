"""Chunks of differences: kernels against the reference reader and a writer of any model."""

from __future__ import annotations

from dataclasses import replace

import differences_writer as writer
import numpy as np
import numpy.typing as npt
import pytest
from differences_writer import Fitted, Model, encode, fit
from hypothesis import given, settings
from hypothesis import strategies as st

from z4ai._fast import _dispatch, chunks
from z4ai._fast.hashing import xxh3_64
from z4ai._reference import difference

Bytes = npt.NDArray[np.uint8]
Jobs = npt.NDArray[np.void]

ISAS = _dispatch.runnable()
WIDTHS = [1, 2, 4, 8]
PLANES = {1: 0, 2: 4, 4: 5, 8: 6}
SAME = 24
GAP, GAP_STREAM, PARAMS = 20, 5, 12
STORE, CONTEXTS = 0, 3
OK, CORRUPT, TRUNCATED, CAPACITY, CHECKSUM = 0, -1, -2, -4, -5
GUARD, FILL = 64, 0xA5


def weights(n: int, width: int, seed: int = 1, share: float = 0.4) -> tuple[Bytes, Bytes]:
    """Elements near each other, and a reference of which some have moved, some of them far."""
    rng = np.random.default_rng(seed)
    bits = 8 * width
    b = np.full(n, 3 << (bits - 4), np.uint64) + rng.integers(0, 1 << (bits - 3), n, np.uint64)
    b ^= rng.integers(0, 2, n, np.uint64) << np.uint64(bits - 1)
    moves = rng.integers(0, 1 << (bits - 2), n, np.uint64) >> rng.integers(0, bits, n, np.uint64)
    moves[rng.random(n) >= share] = 0
    down = rng.random(n) < 0.5
    t = np.where(down, b - moves, b + moves)
    return t.astype(f"<u{width}").view(np.uint8), b.astype(f"<u{width}").view(np.uint8)


def classes(width: int, **options: object) -> Model:
    """A model whose contexts tell references apart."""
    below = 8 * width - 7
    return replace(Model(below=below, top=70, contexts=64), **options)  # type: ignore[arg-type]


MODELS = {
    "one table": Model(),
    "no floats": Model(floats=False),
    "classes of references": Model(below=1, top=120, contexts=64),
    "a shift": Model(below=1, top=120, contexts=12, shift=3),
    "classes cut off": Model(below=0, top=65535, contexts=2, shift=7),
    "rows": Model(period=16, rows=lambda row: row % 9, contexts=9),
    "rows, one table": Model(period=37, rows=lambda row: 127 - row % 5),
    "rows of whole numbers": Model(floats=False, period=50, rows=lambda row: row % 3, contexts=3),
    "rows and classes": Model(
        below=1, top=90, shift=1, period=100, rows=lambda row: 2 * (row % 60), contexts=64
    ),
    "rows longer than all": Model(period=2**32 - 1, rows=lambda _: 3, contexts=5),
    "rare": Model(rare=range(3, 200), escape=100),
    "everything rare": Model(rare=range(256), escape=0),
    "rare, but none is": Model(escape=1),
    "all at once": Model(
        below=1,
        top=99,
        shift=2,
        period=70,
        rows=lambda row: row % 30,
        contexts=20,
        rare=range(30, 200),
        escape=1,
    ),
}
models = pytest.mark.parametrize("name", MODELS)
widths = pytest.mark.parametrize("width", WIDTHS)
isas = pytest.mark.parametrize("isa", ISAS)


def model_of(name: str, width: int) -> Model:
    """One of the models, with as many bits below its classes as elements have further down."""
    model = MODELS[name]
    return replace(model, below=model.below + 8 * (width - 1)) if model.below else model


def bound_for(sizes: list[int], width: int) -> int:
    transform = writer.TRANSFORMS[width]
    return sum(chunks.encode_bound(n, transform, GAP, GAP_STREAM) for n in sizes)


def jobs_for(sizes: list[int], width: int, first: int = 0) -> Jobs:
    jobs = np.zeros(len(sizes), chunks.JOB)
    starts = np.cumsum([0, *sizes])[:-1]
    jobs["content_offset"] = jobs["reference_offset"] = starts
    jobs["content_nbytes"], jobs["seed"] = sizes, starts + first
    jobs["layout"], jobs["model"] = writer.TRANSFORMS[width], 1
    jobs["planes"] = jobs["other_layout"] = PLANES[width]
    return jobs


def run(
    content: Bytes, reference: Bytes, jobs: Jobs, blocks: list[Bytes], isa: str, threads: int = 1
) -> tuple[Bytes, Jobs]:
    """Encode into a guarded buffer."""
    jobs = jobs.copy()
    bound = sum(
        chunks.encode_bound(int(j["content_nbytes"]), int(j["layout"]), GAP, GAP_STREAM)
        for j in jobs
    )
    room = np.full(bound + GUARD, FILL, np.uint8)
    end = chunks.encode(
        content,
        room[:-GUARD],
        0,
        jobs.view(np.uint8),
        GAP,
        GAP_STREAM,
        threads,
        isa=isa,
        models=blocks,
        reference=reference,
    )
    assert (room[-GUARD:] == FILL).all(), "wrote behind the output"
    return room[:end].copy(), jobs


def decode(
    encoded: Bytes,
    jobs: Jobs,
    nbytes: int,
    blocks: list[Bytes],
    reference: Bytes | None,
    isa: str,
    threads: int = 1,
) -> tuple[Bytes, list[int]]:
    jobs = jobs.copy()
    room = np.full(nbytes + 2 * GUARD, FILL, np.uint8)
    out = room[GUARD : GUARD + nbytes]
    ok = chunks.decode(
        encoded, out, jobs.view(np.uint8), threads, isa=isa, models=blocks, reference=reference
    )
    assert (room[:GUARD] == FILL).all(), "wrote in front of the output"
    assert (room[GUARD + nbytes :] == FILL).all(), "wrote behind the output"
    assert ok == bool((jobs["status"] == 0).all())
    return out.copy(), [int(s) for s in jobs["status"]]


def by_reference(
    encoded: Bytes, job: np.void, fitted: Fitted, reference: Bytes, width: int
) -> bytes:
    """Restore a chunk by the reference reader."""
    cut = [
        encoded[int(at) : int(at) + int(n)].tobytes()
        for at, n in zip(job["stream_offset"][:2], job["stream_nbytes"][:2], strict=True)
    ]
    params = b"".join(int(job[f]).to_bytes(4, "little") for f in ("rows_nbytes", "rare_nbytes"))
    params += b"".join(int(job[f]).to_bytes(2, "little") for f in ("n_rare", "n_raw"))
    assert int(job["params_nbytes"]) in (0, PARAMS)
    assert job["params_nbytes"] or not any(params)
    n, tail = divmod(int(job["content_nbytes"]), width)
    at = int(job["reference_offset"])
    model = difference.Model(
        floats=fitted.model.floats,
        has_rows=fitted.model.rows is not None,
        escape=fitted.model.escape,
        shift=fitted.model.shift,
        below=fitted.model.below,
        top=fitted.model.top,
        period=fitted.model.period,
        tables=tuple(map(tuple, fitted.tables)),
        rare_table=tuple(fitted.rare),
        class_table=tuple(fitted.classes),
    )
    elements = difference.restore(
        model,
        width,
        params if job["params_nbytes"] else b"",
        cut[0],
        cut[1],
        reference[at : at + n * width].tobytes(),
        n,
        int(job["seed"]) // width,
    )
    end = int(job["tail_offset"])
    return elements + encoded[end : end + tail].tobytes()


def as_job(chunk: writer.Chunk, content: Bytes, width: int, first: int = 0) -> tuple[Bytes, Jobs]:
    """Lay the streams of a chunk out, and describe them for the decoder."""
    n = len(content) // width * width
    encoded = np.frombuffer(chunk.apart + chunk.symbols + content[n:].tobytes(), np.uint8)
    job = jobs_for([len(content)], width, first * width)
    job["checksum"] = xxh3_64(content, first * width)
    job["encoded_nbytes"] = len(encoded)
    job["stream_offset"][0, :2] = len(chunk.apart), 0
    job["stream_nbytes"][0, :2] = len(chunk.symbols), len(chunk.apart)
    job["stream_codec"][0, :2] = CONTEXTS, STORE
    job["tail_offset"] = len(chunk.apart) + len(chunk.symbols)
    job["rows_nbytes"], job["rare_nbytes"] = chunk.rows_nbytes, chunk.rare_nbytes
    job["n_rare"], job["n_streams"] = chunk.n_rare, 2
    return encoded, job


# --- Whatever the page allows is decoded ----------------------------------------------------------


@widths
@models
def test_chunks_of_any_model_are_decoded(name: str, width: int) -> None:
    model, decoded = model_of(name, width), 0
    # Around the ends of lanes and of tiles; the last one has a tail.
    for n, first in ((1, 0), (7, 5), (2047, 33), (2048, 0), (2049, 1 << 20), (4097, 16)):
        content, reference = weights(n, width, seed=n)
        fitted = fit(model, content, reference, width, first)
        chunk = encode(fitted, content, reference, width, first)
        whole = np.append(content, np.arange(width - 1, dtype=np.uint8))
        beside = np.append(reference, np.zeros(width, np.uint8))
        encoded, job = as_job(chunk, whole, width, first)
        for isa in ISAS:
            out, status = decode(encoded, job, len(whole), [fitted.block()], beside, isa)
            assert status == [OK], (n, isa)
            assert np.array_equal(out, whole), (n, isa)
            decoded += 1
    assert decoded == 6 * len(ISAS)


@widths
def test_tiles_that_are_alike_and_tiles_that_are_not(width: int) -> None:
    """Each way that a tile is restored in, one behind the other in one chunk."""
    n = 5 * 2048 + 100
    reference = weights(n, width)[1]
    content = reference.copy()
    t = content.view(f"<u{width}")
    t[2048 : 2 * 2048 : 5] += 1  # near
    t[3 * 2048 : 4 * 2048 : 3] ^= 1 << (8 * width - 3)  # far
    t[5 * 2048 + 99] += 1
    fitted = fit(Model(), content, reference, width)
    encoded, job = as_job(encode(fitted, content, reference, width), content, width)
    for isa in ISAS:
        out, status = decode(encoded, job, len(content), [fitted.block()], reference, isa)
        assert status == [OK]
        assert np.array_equal(out, content)


# --- What the encoder writes ----------------------------------------------------------------------


@widths
@models
def test_encoded_chunks_are_read_by_all(name: str, width: int) -> None:
    n = 9001
    content, reference = weights(n, width, seed=width)
    model = model_of(name, width)
    fitted = fit(model, content, reference, width)
    blocks = [fitted.block(octave=2, least=1, most=127)]
    sizes = [16 * 100 * width] * 5 + [len(content) - 8000 * width]
    jobs = jobs_for(sizes, width)
    first: tuple[Bytes, Jobs] | None = None
    for isa in ISAS:
        for threads in (1, 2):
            encoded, done = run(content, reference, jobs, blocks, isa, threads)
            for job in done:  # gaps are not written
                at = int(job["encoded_offset"])
                gap = GAP + int(job["n_streams"]) * GAP_STREAM + int(job["params_nbytes"])
                encoded[at : at + gap] = 0
            if first is None:
                first = encoded, done
            assert np.array_equal(encoded, first[0]), isa
            assert np.array_equal(done, first[1]), isa
            out, status = decode(encoded, done, len(content), blocks, reference, isa, threads)
            assert status == [OK] * 6
            assert np.array_equal(out, content)
    assert first is not None
    taken = 0
    for job in first[1]:
        if job["layout"] != writer.TRANSFORMS[width]:
            continue
        begin = int(job["content_offset"])
        expected = content[begin : begin + int(job["content_nbytes"])].tobytes()
        assert by_reference(first[0], job, fitted, reference, width) == expected
        assert int(job["encoded_nbytes"]) < len(expected) + 400
        taken += 1
    # Contexts of rows are the encoder's own; a symbol may then have no frequency.
    assert taken == 6 or model.rows is not None


@isas
@widths
def test_classes_of_rows_are_those_that_are_written_down(width: int, isa: str) -> None:
    """The class of a row is its level above `least`, `most` at most; chunks cut rows."""
    n, period, octave, least, most = 6000, 70, 3, 150, 40
    content, reference = weights(n, width, seed=9)
    for first in range(0, 20 * period * width, 3 * period * width):
        content[first : first + period * width] = reference[first : first + period * width]
    model = classes(width, period=period, rows=lambda row: 0, shift=7, contexts=1)
    fitted = fit(replace(model, rows=lambda row: row % 128), content, reference, width)
    sizes = [1000 * width] * 6
    encoded, done = run(
        content,
        reference,
        jobs_for(sizes, width),
        [fitted.block(octave=octave, least=least, most=most)],
        isa,
    )
    compared = 0
    for job in done:
        assert job["layout"] == writer.TRANSFORMS[width]
        at, begin = int(job["stream_offset"][0]), int(job["content_offset"]) // width
        touched = range(begin // period, (begin + 999) // period + 1)
        rows = difference.contexts.decode(
            encoded[at : at + int(job["rows_nbytes"])].tobytes(),
            None,
            len(touched),
            [fitted.classes],
        )
        for row, got in zip(touched, rows, strict=True):
            here = slice(
                max(row * period, begin) * width, min((row + 1) * period, begin + 1000) * width
            )
            sizes_of = writer.residuals(content[here], reference[here], width, floats=True)
            of = [
                writer.reference_class(b, model, width)
                for b in writer.words(reference[here], width)
            ]
            scaled = [
                (min(abs(r), (1 << 43) - 1) << 20) >> min(c >> octave, 63)
                for r, c in zip(sizes_of, of, strict=True)
            ]
            mean = sum(scaled) % (1 << 64) // len(scaled)
            e = mean.bit_length() - 1
            step = (mean << octave) >> e if mean else 0
            level = (e << octave) + step - (1 << octave) + 1 if mean else 0
            assert got == min(max(level - least, 0), most), row
            compared += 1
    assert compared > 80


@isas
def test_a_chunk_that_is_its_reference_becomes_a_header(isa: str) -> None:
    content, reference = weights(5000, 4)
    reference[4000:12000] = content[4000:12000]
    fitted = fit(Model(), content, reference, 4)
    encoded, done = run(
        content, reference, jobs_for([4000, 4000, 4000, 8000], 4), [fitted.block()], isa
    )
    assert done["layout"].tolist() == [30, SAME, SAME, 30]
    assert done["n_streams"].tolist() == [2, 0, 0, 2]
    assert done["encoded_nbytes"][1:3].tolist() == [GAP, GAP]
    assert not done["doubtful"][1:3].any()
    out, status = decode(encoded, done, len(content), [fitted.block()], reference, isa)
    assert status == [OK] * 4
    assert np.array_equal(out, content)


@isas
def test_what_does_not_fit_a_model_becomes_planes(isa: str) -> None:
    content, reference = weights(70_000, 2, share=1)
    only_zero = Fitted(Model(), [[4095, 1] + [0] * 254], [0] * 256, [0] * 256)
    all_rare = Fitted(
        Model(escape=0, rare=range(256)), [[4095, 1] + [0] * 254], [16] * 246 + [160] + [0] * 9, []
    )
    all_rare = all_rare._replace(classes=all_rare.rare)
    for fitted, n in ((only_zero, 70_000), (all_rare, 70_000), (all_rare, 60_000)):
        blocks = [fitted.block()]
        encoded, done = run(content[: 2 * n], reference, jobs_for([2 * n], 2), blocks, isa)
        wanted = writer.TRANSFORMS[2] if n == 60_000 else PLANES[2]
        assert done["layout"].tolist() == [wanted], n
        assert done["doubtful"].all()
        out, status = decode(encoded, done, 2 * n, blocks, reference, isa)
        assert status == [OK]
        assert np.array_equal(out, content[: 2 * n])
    # Neither a model of symbols nor none serves; less than an element has none either.
    for nbytes, blocks, model in ((2000, [], 0), (1, [only_zero.block()], 1)):
        jobs = jobs_for([nbytes], 2)
        jobs["model"] = model
        encoded, done = run(content, reference, jobs, blocks, isa)
        assert done["layout"][0] < 7
        out, status = decode(encoded, done, nbytes, blocks, reference, isa)
        assert status == [OK]
        assert np.array_equal(out, content[:nbytes])


def test_doubt_is_where_planes_might_do_as_well() -> None:
    content, reference = weights(1 << 17, 2, share=0.05)
    fitted = fit(Model(), content[:20000], reference, 2)
    every = np.array([[16] * 247 + [0] * 9])
    every[0, 0] += 4096 - every.sum()
    fitted = fitted._replace(tables=every.tolist())
    noise = np.random.default_rng(1).integers(0, 256, 1 << 18, dtype=np.uint8)
    for beside, nbytes, doubtful in (
        (reference, 1 << 18, False),
        (reference, 1 << 16, True),  # small
        (noise, 1 << 18, True),
    ):
        _, done = run(content, beside, jobs_for([nbytes], 2), [fitted.block()], ISAS[-1])
        assert done["layout"][0] == writer.TRANSFORMS[2]
        assert bool(done["doubtful"][0]) == doubtful


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_content_beside_any_reference(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    n = data.draw(st.integers(0, 300))
    tail = data.draw(st.integers(0, width - 1))
    nbytes = n * width + tail
    if nbytes == 0:
        return
    piece = st.binary(min_size=nbytes, max_size=nbytes)
    content = np.frombuffer(data.draw(piece), np.uint8)
    reference = np.frombuffer(data.draw(st.one_of(st.just(content.tobytes()), piece)), np.uint8)
    model = model_of(data.draw(st.sampled_from(sorted(MODELS))), width)
    fitted = fit(model, content, reference, width) if n else fit(Model(), *weights(9, width), width)
    blocks = [fitted.block(octave=2)]
    results = []
    for isa in ISAS:
        encoded, done = run(content, reference, jobs_for([nbytes], width), blocks, isa)
        out, status = decode(encoded, done, nbytes, blocks, reference, isa)
        assert status == [OK]
        assert np.array_equal(out, content)
        results.append(
            encoded[int(done["encoded_nbytes"][0]) - int(done["content_nbytes"][0]) % width :]
        )
        if done["layout"][0] == writer.TRANSFORMS[width]:
            assert by_reference(encoded, done[0], fitted, reference, width) == content.tobytes()
    assert all(np.array_equal(results[0], other) for other in results)


# --- Hostile jobs ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> tuple[Bytes, Jobs, Bytes, Bytes, Fitted]:
    content, reference = weights(3000, 4, seed=4)
    model = model_of("all at once", 4)
    fitted = fit(model, content, reference, 4)
    encoded, job = as_job(encode(fitted, content, reference, 4), content, 4)
    return encoded, job, content, reference, fitted


@isas
def test_jobs_that_lie_are_refused(
    isa: str, whole: tuple[Bytes, Jobs, Bytes, Bytes, Fitted]
) -> None:
    encoded, job, content, reference, fitted = whole
    block = fitted.block()
    n = len(content)
    assert decode(encoded, job, n, [block], reference, isa)[1] == [OK]

    def status(
        *, blocks: list[Bytes] | None = None, beside: Bytes | None = reference, **fields: int
    ) -> int:
        mine = job.copy()
        for field, value in fields.items():
            name, _, k = field.partition("__")
            if k:
                mine[name][0, int(k)] = value
            else:
                mine[name] = value
        return decode(encoded, mine, n, [block] if blocks is None else blocks, beside, isa)[1][0]

    apart, symbols = int(job["stream_nbytes"][0, 1]), int(job["stream_nbytes"][0, 0])
    rows, rare, n_rare = (int(job[f][0]) for f in ("rows_nbytes", "rare_nbytes", "n_rare"))
    assert status(beside=None) == CORRUPT
    assert status(beside=reference[:-1]) == CORRUPT
    assert status(reference_offset=1) == CORRUPT
    assert status(reference_offset=2**64 - 1) == CORRUPT
    assert status(model=0) == CORRUPT
    assert status(swap=1) == CORRUPT
    assert status(n_streams=1) == CORRUPT
    assert status(n_streams=4) == CORRUPT
    assert status(stream_codec__0=STORE) == CORRUPT
    assert status(stream_codec__1=CONTEXTS) == CORRUPT
    assert status(stream_codec__1=1) == CORRUPT
    assert status(stream_offset__1=len(encoded) + 1) == CAPACITY
    assert status(stream_nbytes__0=len(encoded)) == CAPACITY
    assert status(tail_offset=len(encoded) + 1) == CAPACITY
    assert status(stream_nbytes__1=apart - 1) == CORRUPT
    assert status(stream_nbytes__1=apart + 1) == CORRUPT
    assert status(stream_nbytes__1=0) == CORRUPT
    assert status(stream_nbytes__0=0) == CORRUPT
    assert status(stream_nbytes__0=symbols - 1) in (CORRUPT, TRUNCATED)
    assert status(stream_nbytes__0=symbols - 2) in (CORRUPT, TRUNCATED)
    assert status(rows_nbytes=rows + 2, rare_nbytes=rare - 2) in (CORRUPT, TRUNCATED)
    assert status(rows_nbytes=2**32 - 1) == CORRUPT
    assert status(n_rare=n_rare + 1) in (CORRUPT, TRUNCATED)
    assert status(n_rare=n_rare - 1) in (CORRUPT, TRUNCATED)
    assert status(n_raw=1) == CORRUPT
    assert status(checksum=1) == CHECKSUM
    assert status(layout=29) in (CORRUPT, TRUNCATED, CHECKSUM)
    assert status(layout=SAME) == CORRUPT  # with streams
    assert status(layout=SAME, n_streams=0) == CHECKSUM
    assert status(layout=SAME, n_streams=0, beside=None) == CORRUPT
    assert status(layout=SAME, n_streams=0, params_nbytes=12) == CORRUPT
    for field in ("rows", "rare"):
        other = replace(
            fitted.model, **{"rows": {"rows": None, "period": 0}, "rare": {"escape": None}}[field]
        )
        assert status(blocks=[fitted._replace(model=other).block()]) == CORRUPT


@isas
def test_a_model_of_the_other_kind_is_refused(isa: str) -> None:
    content, reference = weights(64, 2)
    fitted = fit(model_of("classes of references", 2), content, reference, 2)
    assert len(fitted.tables) > 1
    encoded, job = as_job(encode(fitted, content, reference, 2), content, 2)
    # All else is as chunks of symbols have it: stream 1 are remainders of six bits.
    job["layout"], job["stream_nbytes"][0, 1], job["stream_offset"][0, 1] = 8, 48, 0
    encoded = np.append(encoded, np.zeros(48, np.uint8))
    assert decode(encoded, job, 128, [fitted.block()], reference, isa)[1] == [CORRUPT]
    jobs = jobs_for([128], 2)
    jobs["layout"] = 8
    encoded, done = run(content, reference, jobs, [fitted.block()], isa)
    assert done["layout"][0] in (0, PLANES[2])

    content, reference = weights(900, 1)
    fitted = fit(Model(floats=False), content, reference, 1)
    block = fitted.block().copy()
    fields = list(writer.BLOCK.unpack_from(block))
    fields[11] = 0  # of symbols
    writer.BLOCK.pack_into(block, 0, *fields)
    encoded, job = as_job(encode(fitted, content, reference, 1), content, 1)
    assert decode(encoded, job, 900, [fitted.block()], reference, isa)[1] == [OK]
    assert decode(encoded, job, 900, [block], reference, isa)[1] == [CORRUPT]
    encoded, done = run(content, reference, jobs_for([900], 1), [block], isa)
    assert done["layout"].tolist() == [0]


@isas
def test_rare_symbols_must_be_as_many_as_the_escapes(isa: str) -> None:
    content, reference = weights(600, 2)
    fitted = fit(model_of("everything rare", 2), content, reference, 2)
    mine = [encode(fitted, content[: 2 * n], reference, 2) for n in (500, 501)]
    for rare, symbols, wanted in ((0, 0, OK), (1, 0, CORRUPT), (0, 1, CORRUPT)):
        side, main = mine[rare], mine[symbols]
        chunk = main._replace(
            symbols=side.symbols[: side.rare_nbytes] + main.symbols[main.rare_nbytes :],
            rare_nbytes=side.rare_nbytes,
            n_rare=side.n_rare,
        )
        nbytes = 2 * (500 + symbols)
        encoded, job = as_job(chunk, content[:nbytes], 2)
        status = decode(encoded, job, nbytes, [fitted.block()], reference, isa)[1]
        assert status == [wanted], (rare, symbols)


@isas
def test_models_with_symbols_that_no_difference_has_are_refused(
    isa: str, whole: tuple[Bytes, Jobs, Bytes, Bytes, Fitted]
) -> None:
    encoded, job, content, reference, fitted = whole
    for which in range(2):
        table = list(fitted.tables[0] if which == 0 else fitted.rare)
        most = max(range(256), key=table.__getitem__)
        table[most] -= 1
        table[247] += 1
        bad = (
            fitted._replace(tables=[table, *fitted.tables[1:]])
            if which == 0
            else fitted._replace(rare=table)
        )
        assert decode(encoded, job, len(content), [bad.block()], reference, isa)[1] == [CORRUPT]


def test_blocks_that_are_no_models_are_refused(
    whole: tuple[Bytes, Jobs, Bytes, Bytes, Fitted],
) -> None:
    encoded, job, content, reference, fitted = whole
    block = fitted.block()
    fields = writer.BLOCK.unpack_from(block)
    count = fields[1]
    for k, value in (
        (0, len(block) + 1),
        (1, 0),
        (1, 65),
        (1, count - 1),
        (2, 15),
        (4, fields[4] | 2),
        (5, 8),
        (11, 2),
        (11, 0),
        (13, 9),
    ):
        mine = list(fields)
        mine[k] = value
        bad = block.copy()
        writer.BLOCK.pack_into(bad, 0, *mine)
        with pytest.raises(ValueError, match="model 0 is none"):
            decode(encoded, job, len(content), [bad], reference, ISAS[0])


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damage_gives_the_same_status_everywhere(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from(WIDTHS))
    content, reference = weights(2500, width, seed=width)
    model = model_of(data.draw(st.sampled_from(sorted(MODELS))), width)
    fitted = fit(model, content, reference, width)
    encoded, job = as_job(encode(fitted, content, reference, width), content, width)
    encoded = encoded.copy()
    for _ in range(data.draw(st.integers(1, 4))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] ^= data.draw(st.integers(1, 255))
    mine = job.copy()
    if data.draw(st.booleans()):
        cut = data.draw(st.integers(0, 40))
        mine["stream_nbytes"][0, 1] -= min(cut, int(mine["stream_nbytes"][0, 1]))
    got = [decode(encoded, mine, len(content), [fitted.block()], reference, isa) for isa in ISAS]
    assert len({status[0] for _, status in got}) == 1
    if got[0][1][0] in (OK, CHECKSUM):
        assert all(np.array_equal(out, got[0][0]) for out, _ in got)


def test_an_encoder_refuses_jobs_without_all_of_their_reference() -> None:
    content, reference = weights(1000, 2)
    fitted = fit(Model(), content, reference, 2)
    out = np.empty(bound_for([2000], 2), np.uint8)

    def attempt(beside: Bytes | None, **fields: int) -> None:
        jobs = jobs_for([2000], 2)
        for field, value in fields.items():
            jobs[field] = value
        chunks.encode(
            content,
            out,
            0,
            jobs.view(np.uint8),
            GAP,
            GAP_STREAM,
            1,
            models=[fitted.block()],
            reference=beside,
        )

    attempt(reference)
    for beside, fields in (
        (None, {}),
        (reference[:-1], {}),
        (reference, {"reference_offset": 1}),
        (reference, {"reference_offset": 2**64 - 1}),
    ):
        with pytest.raises(ValueError, match="reference"):
            attempt(beside, **fields)
    with pytest.raises(ValueError, match="does not lie in the content"):
        attempt(reference, layout=SAME)
    with pytest.raises(ValueError, match="width"):
        attempt(reference, planes=5)


def test_every_variant_was_exercised() -> None:
    assert set(ISAS) == set(_dispatch.runnable())
