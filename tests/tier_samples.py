"""Small valid frames of models, parts, copies and Brotli, to be damaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import strategies
import symbols_cases
import tier_contents
from frames import Sample
from reference_writer import Parts, write_frame
from symbols_writer import KINDS
from tier_features import features

import z4ai
from z4ai._reference import decode_frame, repeats
from z4ai._reference.repeats import Copy

#: Frames by the encoder: (dtype, kind, elements, feature that it must have).
WRITTEN = [
    ("fp8_e4m3", "rows", 24 * 100, "transform 7"),
    ("bf16", "rows", 24 * 80, "transform 8"),
    ("fp16", "weights", 1500, "transform 9"),
    ("fp32", "rows", 24 * 60, "transform 10"),
    ("fp64", "columns", 24 * 40, "transform 11"),
    ("bf16", "rows_and_columns", 24 * 200, "rows and columns"),
    ("int32", "mostly_zeros", 1200, "transform 16"),
    ("fp32", "palette_of_rows", 24 * 80, "transform 17"),
    ("bf16", "eight_values", 800, "transform 17"),
    ("fp32", "grid_with_exceptions", 1000, "transform 18"),
    ("bf16", "grid_of_groups", 1500, "transform 18"),
    ("int64", "sorted_but_one", 500, "transform 19"),
]


def _brotli_plane() -> Sample:
    content = strategies.make("text", 300, 1, 1) * 3
    frame = write_frame(content, dtype="uint8", plans=[("bytes1", "brotli")])
    return Sample(frame, content)


def _copies() -> Sample:
    """Two copies, the second from the first's source."""
    head = strategies.noise(150)
    copies = [Copy(170, 20, 100), Copy(300, 40, 80)]
    content = bytearray(400)
    content[:150] = head
    content[150:170] = b"\x11" * 20
    content[270:300] = b"\x22" * 30
    for dst, src, nbytes in copies:
        content[dst : dst + nbytes] = content[src : src + nbytes]
    dense = repeats.dense(bytes(content), copies)
    frame = write_frame(
        dense,
        tables=[(2, repeats.write(copies))],
        header={"content_nbytes": len(content)},
        chunk_nbytes=64,
    )
    return Sample(frame, bytes(content))


def samples() -> dict[str, Sample]:
    made = {}
    for name, kind, least, feature in WRITTEN:
        for n in (least, 2 * least, 4 * least, 8 * least):
            content = tier_contents.CONTENTS[kind](name, n, 4)
            shape = tier_contents.shape_of(name, n)
            frame = z4ai.compress(content, dtype=name, shape=shape)
            if feature in features(decode_frame(frame)):
                break
        else:
            raise AssertionError(f"no {feature} for {kind} of {name}")
        made[f"{name} {kind}"] = Sample(frame, content)
    for transform in KINDS:
        for model in ("all at once", "rows and columns", "rare"):
            n = 180
            content = symbols_cases.weights(n, transform) + b"t" * (KINDS[transform].width - 1)
            fitted = symbols_cases.model_for(model, transform)
            codecs = "brotli" if model == "rare" else "store"
            frame = symbols_cases.encode(content, transform, model=fitted, codecs=codecs)
            made[f"{transform} {model}"] = Sample(frame, content)
    made["brotli"] = _brotli_plane()
    made["copies"] = _copies()
    return made


#: A small chunk of each stage, as its page has it: dtype, parameters, parts, elements.
STAGE_CASES: dict[str, tuple[str, str, Sequence[str], str]] = {
    "zeros": ("bf16", "0000", ["8A01", "803F00BF0080C0FF"], "0000803F000000BF0000000000000080C0FF"),
    "palette": ("bf16", "0002", ["0000803F80BF", "02010100"], "80BF803F803F0000"),
    "palette of rows": (
        "bf16",
        "0302",
        ["000100", "050002000401FFFF", "0001000100"],
        "05000401020004 01FFFF",
    ),
    "grid": ("bf16", "0002000000", ["803F", "0001020304"], "00C080BF0000803F0040"),
    "grid with exceptions": (
        "bf16",
        "0702030202",
        ["0000803FCDCCCC3D000040C0", "03FF03FE", "C07F"],
        "803FC07FCD3D0080",
    ),
    "steps": ("int16", "0801000400", ["00000300", ""], "050006000A000B00"),
    "steps with low bytes": (
        "int32",
        "019CFFFFFF",
        ["0001FF", "00000080", "000277"],
        "9CFFFFFF9E00000000000080",
    ),
    "blocks": ("uint8", "010300010102000100 02", ["01020506", "03040708"], "0103040205070806"),
    "blocks in order": (
        "uint8",
        "018300020102020100 03",
        ["003C003C0000", "00440040003C", "A1A0A2"],
        "003C0044A0003C0040A10000003CA2",
    ),
}


def stage_case(name: str) -> tuple[str, bytes, list[bytes], bytes]:
    dtype, params, parts, elements = STAGE_CASES[name]
    return (
        dtype,
        bytes.fromhex(params),
        [bytes.fromhex(part) for part in parts],
        bytes.fromhex(elements),
    )


def of_parts(
    name: str,
    *,
    params: bytes | None = None,
    parts: Sequence[bytes] | None = None,
    frames: Mapping[int, bytes] | None = None,
    **options: Any,
) -> bytes:
    """The frame of a case; `parts` replaces contents, `frames` whole parts by their numbers."""
    dtype, good_params, good_parts, elements = stage_case(name)
    parts = good_parts if parts is None else parts
    made = [(frames or {}).get(k, write_frame(part)) for k, part in enumerate(parts)]
    width = strategies.DTYPES[dtype].width
    plan = Parts(good_params if params is None else params, made, width)
    content = options.pop("content", elements + b"t" * (width - 1))
    return write_frame(content, dtype=dtype, plans=[(name.split()[0], plan)], **options)
