"""What frames of symbols are tried with: contents, and models of every kind.

Most of these models the encoder of z4ai would never choose.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from reference_writer import write_frame
from symbols_writer import KINDS, Model

DTYPES = {
    "symbols1": "fp8_e4m3",
    "symbols2": "bf16",
    "symbols2h": "fp16",
    "symbols4": "fp32",
    "symbols8": "fp64",
}
BASES = {"symbols1": 0, "symbols2": 250, "symbols2h": 0, "symbols4": 250, "symbols8": 1900}
CODECS = ["store", "zstd", "brotli"]


def weights(n: int, transform: str, seed: int = 1) -> bytes:
    """Gaussian weights of the type that a transform is meant for, some of them zero."""
    x = np.random.default_rng(seed).standard_normal(n) * 0.02
    x[::7] = 0
    if transform == "symbols1":
        return np.rint(x * 1000).astype(np.int8).tobytes()
    if transform == "symbols2":
        return (x.astype("<f4").view("<u4") >> 16).astype("<u2").tobytes()
    width = KINDS[transform].width
    return x.astype(f"<f{width}").tobytes()


def encode(content: bytes, transform: str = "symbols2", **options: Any) -> bytes:
    """A frame whose chunks all have that transform; ``codecs`` are those of streams 1 … w−1."""
    codecs = options.pop("codecs", "store")
    model = options.pop("model", Model(base=BASES[transform]))
    dtype = options.pop("dtype", DTYPES[transform])
    return write_frame(content, dtype=dtype, plans=[(transform, codecs)], model=model, **options)


def model_for(name: str, transform: str) -> Model:
    """One of the models below, with a base that the weights of a transform can be told from."""
    model = MODELS[name]
    if KINDS[transform].field_bits == 8:
        return replace(model, base=0)
    return model if model.base else replace(model, base=BASES[transform])


MODELS: dict[str, Model] = {
    "one table": Model(),
    "one table, parameters written": Model(full_params=True),
    "rows": Model(period=16, rows=lambda row, _: row % 5, contexts=4),
    "rows of an odd length": Model(period=37, rows=lambda row, _: row % 9, contexts=9),
    "rows longer than all": Model(period=2**32 - 1, rows=[3], contexts=5),
    "columns": Model(period=24, columns=[c % 7 for c in range(24)], contexts=7),
    "columns, one in a row": Model(period=1, columns=[5], contexts=7),
    "columns, three lanes of classes": Model(period=2500, columns=[1] * 2500, contexts=2),
    "rows and columns": Model(
        period=20, rows=lambda row, _: row % 4, columns=[c // 5 for c in range(20)], contexts=7
    ),
    "one context for all classes": Model(period=16, rows=lambda row, _: row % 128),
    "contexts cut off": Model(period=16, rows=lambda row, _: 127 - row % 9, contexts=3),
    "contexts that nothing has": Model(period=16, rows=lambda row, _: 63 * (row % 2), contexts=64),
    "rows told otherwise by each chunk": Model(
        period=100,
        rows=lambda row, first: (row + first) % 3,
        contexts=3,
        every_symbol=True,
    ),
    "highest classes": Model(period=16, rows=lambda row, _: 127, columns=[127] * 16, contexts=64),
    "rare": Model(rare=range(40), escape=3),
    "rare, the escape an unused symbol": Model(rare=range(40), escape=254),
    "rare, the escape that of raw fields": Model(rare=range(40), escape=255, raw=range(490, 494)),
    "rare, but none is": Model(rare=(), escape=254),
    "everything rare": Model(rare=range(256), escape=255),
    "raw fields": Model(raw=range(480, 500)),
    "raw fields, all of them": Model(raw=range(1024)),
    "raw fields, zero too": Model(raw=[0]),
    "zero has the symbol of the base": Model(base=65526, zero_by_base=True),
    "every symbol has a frequency": Model(every_symbol=True),
    **{f"precision {p}": Model(precision=p) for p in range(2, 6)},
    **{
        f"shift {s}": Model(
            shift=s,
            period=30,
            rows=lambda row, _: 3 * row,
            columns=[4 * c for c in range(30)],
            contexts=64,
        )
        for s in range(8)
    },
    "all at once": Model(
        shift=1,
        period=50,
        rows=lambda row, _: row % 30,
        columns=[c % 3 for c in range(50)],
        contexts=11,
        rare=range(230, 250),
        escape=255,
        raw=range(490, 494),
    ),
}
