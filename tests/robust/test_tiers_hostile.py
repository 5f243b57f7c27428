"""Frames with models, parts, copies and Brotli: cut, damaged, and wrong by hand.

Whatever is read, production raises an error of its own or restores the exact original, and the
reference agrees.
"""

from __future__ import annotations

import importlib.util
import io
import os
import random
import struct
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import strategies
import symbols_cases
import tier_contents
from frames import Sample
from reference_writer import Parts, Tensor, safetensors_file, safetensors_header, write_frame
from symbols_writer import KINDS, varint
from tier_features import features
from tier_samples import STAGE_CASES, of_parts, samples, stage_case

import z4ai
from z4ai._reference import decode_frame, parse_header, repeats
from z4ai._reference.frame import STAGES
from z4ai._reference.repeats import Copy
from z4ai.errors import LimitError, TruncatedError, Z4Error
from z4ai.safetensors import ZstnReader, compress_bytes, decompress_bytes

LIMITS = z4ai.Limits(max_output_nbytes=1 << 20)
SANITIZED = bool(os.environ.get("Z4AI_SANITIZED"))
STEP = 7 if SANITIZED else 1

# Content, a model with a million columns, tables of 64 contexts, the decoder's scratch.
MOST_MEMORY = 16 << 20


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem + "_rules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RULES = load(Path(__file__).parents[1] / "unit" / "test_reference_symbols.py")

# --- Samples --------------------------------------------------------------------------------------


def _copies_of_weights() -> Sample:
    """By the encoder, which needs more to find any."""
    layer = tier_contents.weights("bf16", 12_000, 2)
    content = layer + strategies.noise(13) + layer[2000:] + b"t"
    frame = z4ai.compress(content, dtype="bf16")
    assert "copies" in set(features(decode_frame(frame)))
    return Sample(frame, content)


SAMPLES = samples()


def test_samples_are_valid_and_of_every_kind() -> None:
    seen: set[str] = set()
    for name, sample in SAMPLES.items():
        assert z4ai.decompress(sample.frame) == sample.content, name
        parsed = decode_frame(sample.frame)
        assert parsed.content == sample.content
        seen.update(features(parsed))
    wanted = {f"transform {number}" for number in (7, 8, 9, 10, 11, 16, 17, 18, 19)}
    wanted |= {f"codec {number}" for number in (0, 2, 3, 4, 5)}
    wanted |= {"model", "rows", "columns", "rows and columns", "rare", "raw", "copies", "trailer"}
    assert wanted <= seen | {"columns"}, sorted(wanted - seen)


# --- Cut ------------------------------------------------------------------------------------------


def test_every_prefix_is_a_truncated_error() -> None:
    tried = 0
    for name, sample in SAMPLES.items():
        step = STEP * (1 if len(sample.frame) < 1000 else 3)
        for nbytes in range(0, len(sample.frame), step):
            for read in (z4ai.decompress, z4ai.info, into_a_pipe):
                with pytest.raises(TruncatedError) as caught:
                    read(sample.frame[:nbytes])
                assert type(caught.value) is TruncatedError, (name, nbytes)
            tried += 1
    assert tried >= sum(len(sample.frame) // STEP // 3 for sample in SAMPLES.values())


def into_a_pipe(frame: bytes) -> bytes:
    pipe = io.BytesIO()
    z4ai.decompress_stream(io.BytesIO(frame), pipe, limits=LIMITS)
    return pipe.getvalue()


# --- Damaged --------------------------------------------------------------------------------------


def outcome(frame: bytes, read: Any = None) -> bytes | str:
    """The content, or the name of the error."""
    try:
        found = z4ai.decompress(frame, limits=LIMITS) if read is None else read(frame)
    except Z4Error as error:
        return type(error).__name__
    assert isinstance(found, bytes)
    return found


def flips(sample: Sample, step: int, first: int = 0) -> Iterator[tuple[int, bytes]]:
    frame = bytearray(sample.frame)
    for bit in range(first % step, 8 * len(frame), step):
        frame[bit >> 3] ^= 1 << (bit & 7)
        yield bit, bytes(frame)
        frame[bit >> 3] ^= 1 << (bit & 7)


def test_every_flipped_bit_is_an_error_or_the_original() -> None:
    seen: Counter[str] = Counter()
    for name, sample in SAMPLES.items():
        step = STEP * (1 if len(sample.frame) < 400 else 7)
        for bit, frame in flips(sample, step):
            found = outcome(frame)
            if isinstance(found, bytes):
                assert found == sample.content, f"{name}: bit {bit} gave other content"
                found = "the original"
            seen[found] += 1
    print(dict(seen))
    # Padding of packed remainders, and equal ways to say the same.
    assert seen["the original"] < seen.total() // 100
    assert {"ChecksumError", "CorruptError", "TruncatedError"} <= set(seen)


def test_flipped_bits_in_a_header_with_its_checksum_made_right() -> None:
    """Else the checksum is all that a damaged model or list of copies ever meets."""
    seen: Counter[str] = Counter()
    for name, sample in SAMPLES.items():
        header = parse_header(sample.frame)
        if header.model is None and not header.copies:
            continue
        end = header.nbytes
        body = sample.frame[end:]
        head = Sample(sample.frame[: end - 8], b"")
        for bit, flipped in flips(head, STEP * (1 if end < 500 else 3)):
            checksum = struct.pack("<Q", RULES.write_frame.__globals__["xxh3"](flipped, 0))
            frame = flipped + checksum + body
            found = outcome(frame)
            if isinstance(found, bytes):
                # A model that gives the same symbols, or another dtype for the same bytes.
                assert found == sample.content, (name, bit)
                found = "the original"
            seen[found] += 1
    print(dict(seen))
    assert {"ChecksumError", "CorruptError", "TruncatedError", "LimitError"} <= set(seen)


def test_the_reference_refuses_the_same_flips() -> None:
    compared = 0
    for name, sample in SAMPLES.items():
        step = 29 if len(sample.frame) < 400 else 401
        for bit, frame in flips(sample, step, sum(name.encode())):
            found = outcome(frame)
            try:
                wanted: bytes | None = decode_frame(frame).content
            except ValueError:
                wanted = None
            assert (found if isinstance(found, bytes) else None) == wanted, (name, bit, found)
            compared += 1
    assert compared > 1000


@pytest.mark.parametrize("seed", range(2))
def test_random_damage_is_an_error_or_an_original(seed: int) -> None:
    draw = random.Random(seed)
    names = list(SAMPLES)
    originals = {sample.content for sample in SAMPLES.values()}
    seen: Counter[str] = Counter()
    for _ in range(1500):
        frame = bytearray(SAMPLES[draw.choice(names)].frame)
        other = SAMPLES[draw.choice(names)].frame
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(frame))
            match draw.randrange(5):
                case 0:
                    frame[at] = draw.choice([0, 1, 127, 128, 255, draw.randrange(256)])
                case 1:
                    frame[at:at] = draw.randbytes(draw.randint(1, 9))
                case 2:
                    del frame[at : at + draw.randint(1, 9)]
                    frame = frame or bytearray(1)
                case 3:
                    number = draw.choice([0, 1, 2**31, 2**63, 2**64 - 1])
                    frame[at : at + 8] = number.to_bytes(8, "little")
                case _:
                    frame[at:] = other[at:] or b"\0"
        end = struct.unpack_from("<I", frame, 20)[0] + 24 if len(frame) > 24 else 0
        if draw.random() < 0.5 and end + 8 <= len(frame):
            # As if the damage had been meant.
            checksum = RULES.write_frame.__globals__["xxh3"](bytes(frame[:end]), 0)
            frame[end : end + 8] = struct.pack("<Q", checksum)
        for read in (None, into_a_pipe):
            found = outcome(bytes(frame), read)
            if isinstance(found, bytes):
                assert found in originals
                found = "an original"
            seen[found] += 1
    assert seen["an original"] < seen.total() // 20


def test_memory_is_bounded_whatever_is_flipped() -> None:
    tracemalloc.start()
    try:
        for sample in SAMPLES.values():
            step = STEP * (11 if len(sample.frame) < 500 else 201)
            for _, frame in flips(sample, step):
                outcome(frame)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY, peak


def test_damage_where_the_encoder_found_copies() -> None:
    sample = _copies_of_weights()
    header = parse_header(sample.frame)
    originals = errors = 0
    for _, frame in [
        *flips(Sample(sample.frame[: header.nbytes + 100], b""), STEP * 3),
        *flips(sample, 997 * STEP),
    ]:
        frame += sample.frame[len(frame) :]
        found = outcome(frame)
        assert isinstance(found, str) or found == sample.content
        originals += isinstance(found, bytes)
        errors += isinstance(found, str)
    assert errors > 100 // STEP
    assert originals < errors // 20


# --- Wrong by hand: models and chunks of symbols --------------------------------------------------


def refused(frame: bytes) -> None:
    """Both readers refuse a frame, through every door."""
    with pytest.raises(ValueError):  # noqa: PT011 - of any rule
        decode_frame(frame)
    for read in (z4ai.decompress, into_a_pipe):
        with pytest.raises(Z4Error):
            read(frame)


@pytest.mark.parametrize("rule", RULES.MODEL_RULES)
def test_model_rules(rule: str) -> None:
    """Those of the reference's tests, one broken at a time."""
    model, override, _ = RULES.MODEL_RULES[rule]
    assert z4ai.decompress(RULES.encode(RULES.CONTENT, model=model)) == RULES.CONTENT
    frame = RULES.encode(RULES.CONTENT, model=model, model_fields=override)
    refused(frame)
    with pytest.raises(Z4Error):
        z4ai.info(frame)


@pytest.mark.parametrize("rule", RULES.CHUNK_RULES)
def test_chunk_rules(rule: str) -> None:
    model, override, _ = RULES.CHUNK_RULES[rule]
    assert z4ai.decompress(RULES.encode(RULES.CONTENT, model=model)) == RULES.CONTENT
    refused(RULES.encode(RULES.CONTENT, model=model, chunks={0: override}))


@pytest.mark.parametrize("rule", RULES.STREAM_RULES)
def test_stream_rules(rule: str) -> None:
    override, _ = RULES.STREAM_RULES[rule]
    refused(RULES.encode(RULES.CONTENT, model=RULES.PLAIN, chunks={0: override}))


def test_there_is_one_model_where_there_are_symbols() -> None:
    record = RULES.fit(RULES.PLAIN, [("symbols2", RULES.CONTENT, 0)]).record()
    refused(RULES.encode(RULES.CONTENT, tables=[(1, record)]))
    refused(RULES.encode(RULES.CONTENT, header={"tables": b""}))
    header = {"tables": struct.pack("<HHI", 1, 1, len(record)) + record}
    refused(RULES.encode(RULES.CONTENT, header=header))


@pytest.mark.parametrize("transform", ["symbols1", "symbols2h"])
def test_where_the_symbol_is_the_field_there_is_no_base_and_nothing_raw(transform: str) -> None:
    content = symbols_cases.weights(50, transform)
    refused(symbols_cases.encode(content, transform, model_fields={"base": 1}))
    refused(symbols_cases.encode(content, transform, chunks={0: {"raw": b"\0\0"}}))


@pytest.mark.parametrize(("transform", "bits"), [("symbols2", 10), ("symbols4", 10)])
@pytest.mark.parametrize("above", [0, 1])
def test_fields_have_as_many_bits_as_there_are(transform: str, bits: int, above: int) -> None:
    content = symbols_cases.weights(50, transform)
    model = symbols_cases.Model(raw=range(4096))
    raw = struct.pack("<50H", *[2**bits - 1 + above] * 50)
    refused(symbols_cases.encode(content, transform, model=model, chunks={0: {"raw": raw}}))


@pytest.mark.parametrize("transform", [t for t in KINDS if KINDS[t].field_bits > 8])
def test_symbols_that_stand_for_too_much_are_refused(transform: str) -> None:
    """The base is raised behind the writer's back."""
    content = symbols_cases.weights(50, transform)
    for base in (2 ** KINDS[transform].field_bits - 1, 2**15, 2**16 - 300):
        refused(symbols_cases.encode(content, transform, model_fields={"base": base}))


def test_many_columns_from_few_bytes_stay_within_bounds() -> None:
    """A record of some dozens of bytes may stand for a class of each of many columns."""
    tracemalloc.start()
    try:
        model = symbols_cases.Model(period=1 << 17, columns=bytes(1 << 17), contexts=1)
        content = symbols_cases.weights(100, "symbols2")
        frame = symbols_cases.encode(content, model=model)
        assert len(frame) < 1000
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert z4ai.decompress(frame) == content
        assert tracemalloc.get_traced_memory()[1] - before < MOST_MEMORY
    finally:
        tracemalloc.stop()


def test_a_chunk_of_too_many_elements_is_refused() -> None:
    for nbytes in (2**23 + 2, 2**23):
        refused(
            RULES.encode(
                RULES.CONTENT,
                chunk_nbytes=1 << 24,
                header={"content_nbytes": nbytes},
                chunks={0: {"content_nbytes": nbytes}},
            )
        )


# --- Wrong by hand: parts -------------------------------------------------------------------------


def test_the_cases_are_of_every_stage() -> None:
    assert {name.split()[0] for name in STAGE_CASES} == set(STAGES.values())


@pytest.mark.parametrize("name", STAGE_CASES)
def test_parts_are_joined(name: str) -> None:
    frame = of_parts(name)
    _, _, _, elements = stage_case(name)
    found = z4ai.decompress(frame)
    assert found == decode_frame(frame).content
    assert bytes(found)[: len(elements)] == elements
    assert into_a_pipe(frame) == found


@pytest.mark.parametrize("name", STAGE_CASES)
def test_wrong_parameters_are_refused_or_read_alike(name: str) -> None:
    """Cut, extended, and each byte set to what is least and most: by both readers."""
    _, params, _, _ = stage_case(name)
    wrong = [params[:n] for n in range(len(params))] + [params + b"\0", params * 2, b"\xff" * 300]
    for at in range(len(params)):
        values = {0, 1, 7, 8, 127, 128, 255, params[at] ^ 1} - {params[at]}
        wrong += [params[:at] + bytes([value]) + params[at + 1 :] for value in values]
    refusals = 0
    for one in wrong:
        frame = of_parts(name, params=one)
        found = outcome(frame)
        try:
            wanted: bytes | None = decode_frame(frame).content
        except ValueError:
            wanted = None
        assert (found if isinstance(found, bytes) else None) == wanted, (one.hex(), found)
        refusals += wanted is None
    assert refusals > len(wrong) // 2


@pytest.mark.parametrize("name", STAGE_CASES)
def test_parts_of_a_wrong_size_are_refused(name: str) -> None:
    _, _, parts, _ = stage_case(name)
    for k, part in enumerate(parts):
        for wrong in (part + b"\0", part + bytes(8), part * 2, part[:-1], b"", bytes(1 << 16)):
            if wrong != part:
                refused(of_parts(name, parts=[*parts[:k], wrong, *parts[k + 1 :]]))
    refused(of_parts(name, parts=parts[:-1]))
    refused(of_parts(name, parts=parts[1:]))
    refused(of_parts(name, parts=[*parts, b""]))
    if parts[0] != parts[1]:
        refused(of_parts(name, parts=[parts[1], parts[0], *parts[2:]]))


@pytest.mark.parametrize("name", STAGE_CASES)
def test_parts_that_are_no_parts_are_refused(name: str) -> None:
    _, _, parts, _ = stage_case(name)
    part = parts[0]
    huge = {"content_nbytes": 2**40}
    shape = {"dtype": "uint8", "shape": (len(part),)}
    wrong = {
        "an array": write_frame(part, **shape),
        "streamed": write_frame(part, streamed=True),
        "not alone": write_frame(part) + b"\0",
        "cut": write_frame(part)[:-1],
        "nothing": b"",
        "no frame": part,
        "a huge claim": write_frame(part, header=huge),
        "a wrong checksum": write_frame(part, chunks={0: {"checksum": 0}}),
        "with copies": write_frame(
            part,
            tables=[(2, repeats.write([Copy(100, 0, 64)]))],
            header={"content_nbytes": 164},
        ),
    }
    if len(part) % 2 == 0:
        wrong["big-endian"] = write_frame(part, dtype="bf16", big_endian=True)
    for what, frame in wrong.items():
        assert what
        refused(of_parts(name, frames={0: frame}))
    for codec in (0, 1, 2, 3, 5, 6):
        streams = [(codec, write_frame(part)), *[(4, write_frame(p)) for p in parts[1:]]]
        refused(of_parts(name, chunks={0: {"streams": streams}}))
    for n in (0, 1, 9, 255):
        refused(of_parts(name, chunks={0: {"n_streams": n}}))
    refused(of_parts(name, chunks={0: {"checksum": 0}}))


def test_parts_within_parts_end_at_two() -> None:
    """Exact zeros within the dense rest of exact zeros, deeper and deeper."""
    content = bytes.fromhex("0000803F")
    frame = write_frame(content, dtype="bf16")
    for depth in range(1, 6):
        bitmap = write_frame(b"\x03")
        plan = ("zeros", Parts(b"\xee\xee", [bitmap, frame], 2))
        frame = write_frame(content, dtype="bf16", plans=[plan])
        if depth <= 2:
            assert z4ai.decompress(frame) == decode_frame(frame).content == content
        else:
            refused(frame)


def test_a_large_claim_of_parts_allocates_little() -> None:
    """A chunk of 64 MiB of content, whose bitmap is a byte: refused before its rest is made."""
    for nbytes in (1 << 26, 1 << 20):
        plan = ("zeros", Parts(b"\0\0", [write_frame(b"\xff"), write_frame(b"")], 2))
        frame = write_frame(
            b"\0\0",
            dtype="bf16",
            plans=[plan],
            chunk_nbytes=1 << 26,
            header={"content_nbytes": nbytes},
            chunks={0: {"content_nbytes": nbytes}},
        )
        refused(frame)
        tracemalloc.start()
        try:
            outcome(frame)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MOST_MEMORY


# --- Wrong by hand: copies ------------------------------------------------------------------------


def copies_record(*numbers: int, count: int | None = None, behind: bytes = b"") -> bytes:
    """Triples of gap, excess, step as they are."""
    n = len(numbers) // 3 if count is None else count
    return varint(n) + b"".join(map(varint, numbers)) + behind


DENSE = strategies.noise(156)
#: dst 101, src 0, nbytes 100 of 256 bytes.
GOOD = (101, 36, 201)
COPY_RULES: dict[str, tuple[bytes, int]] = {
    "no copies": (copies_record(), 156),
    "an empty record": (b"", 256),
    "a count alone": (copies_record(count=1), 256),
    "two numbers": (copies_record(101, 36, count=1), 256),
    "more copies than numbers": (copies_record(*GOOD, count=2), 256),
    "a count that no record could hold": (copies_record(*GOOD, count=2**40), 256),
    "more than 2^20": (copies_record(*GOOD, count=2**20 + 1), 256),
    "bytes behind": (copies_record(*GOOD, behind=b"\0"), 256),
    "a number not in its shortest form": (b"\x01\xe5\x00\x24\xc9\x01", 256),
    "beyond the content": (copies_record(101, 36 + 56, 201), 256),
    "to just beyond the content": (copies_record(157, 36, 201 + 112), 256),
    "from before the content": (copies_record(101, 36, 203), 256),
    "from behind itself": (copies_record(101, 36, 0), 256),
    "from its own bytes": (copies_record(50, 36, 1), 256),
    "from a copy": (copies_record(64, 0, 127, 0, 0, 0), 256),
    "from the end of a copy": (copies_record(64, 0, 127, 10, 0, 19), 256),
    "sums above 2^64": (copies_record(2**63, 2**63, 2**64 - 1), 256),
    "a gap of 2^64 - 1": (copies_record(2**64 - 1, 0, 1), 256),
    "all of the content": (copies_record(0, 192, 0), 256),
}


def with_copies(record: bytes, content_nbytes: int = 256, **options: Any) -> bytes:
    return write_frame(
        options.pop("dense", DENSE),
        tables=[(2, record), *options.pop("tables", [])],
        header={"content_nbytes": content_nbytes, **options.pop("header", {})},
        **options,
    )


def test_the_record_of_the_rules_is_right_itself() -> None:
    frame = with_copies(copies_record(*GOOD))
    content = DENSE[:101] + DENSE[:100] + DENSE[101:]
    content = content[:256]
    assert z4ai.decompress(frame) == decode_frame(frame).content
    assert bytes(z4ai.decompress(frame))[101:201] == DENSE[:100]


@pytest.mark.parametrize("rule", COPY_RULES)
def test_copy_rules(rule: str) -> None:
    record, content_nbytes = COPY_RULES[rule]
    frame = with_copies(record, content_nbytes)
    refused(frame)
    with pytest.raises(Z4Error):
        z4ai.info(frame)


def test_copies_belong_into_one_record_of_a_frame_that_knows_its_size() -> None:
    record = copies_record(*GOOD)
    refused(with_copies(record, tables=[(2, record)]))
    refused(write_frame(DENSE, tables=[(2, record)], streamed=True))
    refused(with_copies(record, 255))
    refused(with_copies(record, 257))
    refused(with_copies(record, header={"content_nbytes": 2**63}))


def test_copies_that_make_much_of_little_meet_the_limit_before_memory() -> None:
    """What the chunks hold is within the limit, what copies make of it is not."""
    size = 1 << 20
    for count in (1, 30_000):
        steps = varint(2 * size - 1)
        record = varint(count) + varint(size) + varint(size - 64) + steps
        record += (varint(0) + varint(size - 64) + steps) * (count - 1)
        constant = {"plans": [("bytes1", "constant")], "dense": bytes(size)}
        frame = with_copies(record, size * (count + 1), **constant)
        assert z4ai.info(frame, limits=z4ai.Limits(max_output_nbytes=2**40)).content_nbytes > size
        tracemalloc.start()
        try:
            with pytest.raises(LimitError):
                z4ai.decompress(frame, limits=LIMITS)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < MOST_MEMORY
    assert z4ai.decompress(with_copies(record_of_one(size), 2 * size, **constant)) == bytes(
        2 * size
    )


def record_of_one(size: int) -> bytes:
    return copies_record(size, size - 64, 2 * size - 1)


# --- Containers -----------------------------------------------------------------------------------


def container_tensors() -> list[Tensor]:
    layer = tier_contents.rows("bf16", 24 * 700, 1)
    return [
        Tensor("weights", "BF16", (24, 50), tier_contents.rows("bf16", 24 * 50, 1)),
        Tensor("zeros", "F32", (24, 30), tier_contents.mostly_zeros("fp32", 24 * 30, 1)),
        Tensor("grid", "BF16", (24, 40), tier_contents.grid("bf16", 24 * 40, 1)),
        Tensor("ids", "I64", (300,), tier_contents.sorted_integers("int64", 300, 1)),
        Tensor("twice", "BF16", (48, 700), layer + layer),
    ]


def test_a_container_that_is_cut_or_damaged_is_refused_or_read_right() -> None:
    tensors = container_tensors()
    file = safetensors_file(safetensors_header(tensors), tensors)
    packed = compress_bytes(file)
    for nbytes in range(0, len(packed), 97 * STEP):
        with pytest.raises(Z4Error):
            decompress_bytes(packed[:nbytes])
    seen: Counter[str] = Counter()
    small = max(0, len(packed) - 1500)  # where the index and the footer begin, about
    damaged = bytearray(packed)
    bits = [*range(0, 8 * len(packed), 601 * STEP), *range(8 * small, 8 * len(packed), 13 * STEP)]
    for bit in bits:
        damaged[bit >> 3] ^= 1 << (bit & 7)
        try:
            found = "the original"
            assert decompress_bytes(bytes(damaged), limits=LIMITS) == file
        except Z4Error as error:
            found = type(error).__name__
        for t in tensors:
            try:
                with ZstnReader.from_bytes(bytes(damaged), limits=LIMITS) as reader:
                    assert reader.read_raw(t.name) == t.data
            except Z4Error:
                pass
            except KeyError:
                assert found != "the original"
        seen[found] += 1
        damaged[bit >> 3] ^= 1 << (bit & 7)
    assert seen.total() == len(bits)
    assert seen["the original"] < seen.total() // 20
