"""Pairs of models: `.safetensors` files and bases that they resemble in one way or another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from reference_writer import Tensor, safetensors_file, safetensors_header
from strategies import noise

from z4ai.align import Alignment, Piece

WIDTHS = {"BF16": 2, "F16": 2, "F32": 4, "F64": 8, "I8": 1, "U8": 1, "I32": 4, "F8_E4M3": 1}


def file_of(tensors: Sequence[Tensor]) -> bytes:
    return safetensors_file(safetensors_header(list(tensors)), list(tensors))


def floats(n: int, dtype: str, seed: int = 0) -> bytes:
    """Values of a bell curve, from a formula."""
    bits = np.frombuffer(noise(8 * n, seed), np.uint8).reshape(n, 8).astype(np.int64)
    values = (bits.sum(1) - 1020).astype(np.float64) / 4096
    if dtype == "BF16":
        words = values.astype("<f4").view("<u4")
        return (words >> 16).astype("<u2").tobytes()
    return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()


def content(n: int, dtype: str, seed: int = 0) -> bytes:
    """Content of so many elements."""
    if dtype in ("BF16", "F16", "F32", "F64"):
        return floats(n, dtype, seed)
    return noise(n * WIDTHS.get(dtype, 1), seed)


def nudged(data: bytes, dtype: str, seed: int = 0, share: int = 60) -> bytes:
    """The same, a share of 256 of the elements moved by little."""
    width = WIDTHS.get(dtype, 1)
    words = np.frombuffer(data, f"<u{width}").copy()
    some = np.frombuffer(noise(len(words), seed + 1), np.uint8) < share
    step = np.frombuffer(noise(len(words), seed + 2), np.uint8) % 7
    words[some] += step[some].astype(words.dtype)
    return words.tobytes()


def tensor(name: str, dtype: str, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    return Tensor(name, dtype, shape, content(int(np.prod(shape)), dtype, seed))


def tuned(t: Tensor, seed: int = 0) -> Tensor:
    return replace(t, data=nudged(t.data, t.dtype, seed))


def merged(t: Tensor, rank: int = 3) -> Tensor:
    """A matrix with a product of thin ones added to it."""
    rows, columns = t.shape
    left = np.frombuffer(floats(rows * rank, "F32", 50), "<f4").reshape(rows, rank)
    right = np.frombuffer(floats(rank * columns, "F32", 51), "<f4").reshape(rank, columns)
    matrix = np.frombuffer(t.data, "<f4").reshape(t.shape) + left @ right
    return replace(t, data=matrix.astype("<f4").tobytes())


def cut(t: Tensor, rows: slice, columns: slice, name: str) -> Tensor:
    """A part of a matrix."""
    matrix = np.frombuffer(t.data, f"<u{WIDTHS[t.dtype]}").reshape(t.shape)[rows, columns]
    return Tensor(name, t.dtype, matrix.shape, matrix.tobytes())


def join(tensors: Sequence[Tensor], axis: int, name: str) -> Tensor:
    """Matrices, one behind the other or side by side."""
    arrays = [np.frombuffer(t.data, f"<u{WIDTHS[t.dtype]}").reshape(t.shape) for t in tensors]
    matrix = np.concatenate(arrays, axis)
    return Tensor(name, tensors[0].dtype, matrix.shape, matrix.tobytes())


def transposed(t: Tensor, name: str) -> Tensor:
    matrix = np.frombuffer(t.data, f"<u{WIDTHS[t.dtype]}").reshape(t.shape).T
    return Tensor(name, t.dtype, matrix.shape, matrix.tobytes())


def cast_to_bf16(t: Tensor) -> Tensor:
    """To the nearest; of values that are no NaN and far from the largest."""
    words = np.frombuffer(t.data, "<u4").astype(np.uint64)
    words = (words + 0x7FFF + ((words >> 16) & 1)) >> 16
    return replace(t, dtype="BF16", data=words.astype("<u2").tobytes())


def model(dtype: str = "BF16", scale: int = 1) -> list[Tensor]:
    """A small model: tensors of a frame of their own, small ones, empty and odd ones."""
    return [
        tensor("embed.weight", dtype, (100 * scale, 192), 1),
        tensor("layer.0.q", dtype, (144, 144), 2),
        tensor("layer.0.k", dtype, (144, 144), 3),
        tensor("layer.0.v", dtype, (144, 144), 4),
        tensor("layer.0.bias", dtype, (144,), 5),
        tensor("layer.0.norm", dtype, (144,), 6),
        Tensor("layer.0.empty", dtype, (0, 3), b""),
        tensor("step", "I32", (), 7),
        tensor("mask", "U8", (3, 17), 8),
    ]


Pair = tuple[list[Tensor], list[Tensor]]


def _renamed() -> Pair:
    base = model()
    return [replace(tuned(t), name="x." + t.name) for t in base][::-1], base


def _half_gone() -> Pair:
    base = model()
    return [tuned(t) for t in base[::2]] + [tensor("new", "BF16", (200, 100), 99)], base


def _tied() -> Pair:
    base = model()
    head = replace(base[0], name="head")
    changed = tuned(head)
    return [replace(changed, name="embed.weight"), *map(tuned, base[1:]), changed], [*base, head]


def _strange() -> Pair:
    base = [
        Tensor("f4", "F4", (40, 2), noise(40, 1)),
        Tensor("strange", "Q5_K", (7,), noise(40_001, 2)),
        Tensor("no rows", "Q5_K", (0, 4), noise(40_002, 7)),
        tensor("f8", "F8_E4M3", (300, 200), 3),
        tensor("i8", "I8", (300, 200), 4),
        tensor("f64", "F64", (60, 100), 5),
        replace(tensor("c", "U8", (1000,), 6), dtype="C64", shape=(125,)),
    ]
    return [replace(t, data=nudged(t.data, "U8")) for t in base], base


#: Pairs by what happened: target, base.
PAIRS: dict[str, Callable[[], Pair]] = {
    "identical": lambda: (model(), model()),
    "tuned": lambda: (list(map(tuned, model())), model()),
    "tuned fp32": lambda: (list(map(tuned, model("F32"))), model("F32")),
    "tuned fp16": lambda: (list(map(tuned, model("F16"))), model("F16")),
    "reordered": lambda: (model()[::-1], model()),
    "renamed": _renamed,
    "half gone": _half_gone,
    "cast": lambda: (
        [cast_to_bf16(t) if t.dtype == "F32" else t for t in model("F32")],
        model("F32"),
    ),
    "cast and tuned": lambda: (
        [tuned(cast_to_bf16(t)) if t.dtype == "F32" else t for t in model("F32")],
        model("F32"),
    ),
    "tied": _tied,
    "strange dtypes": _strange,
    "merged": lambda: (
        [merged(tensor("w", "F32", (96, 128), 1)), tensor("x", "BF16", (9, 9), 2)],
        [tensor("w", "F32", (96, 128), 1), tensor("x", "BF16", (9, 9), 2)],
    ),
    "unrelated": lambda: (model(), [replace(t, data=noise(len(t.data), 9)) for t in model()]),
    "no base": lambda: (model(), []),
    "nothing": lambda: ([], model()),
    "only empty": lambda: ([Tensor("e", "F32", (0,), b"")], [Tensor("e", "F32", (0,), b"")]),
}


def whole(n: int, source: int) -> Alignment:
    return Alignment(1, (Piece(n, source, n, 0, False),))


def _aligned_rows() -> tuple[Pair, list[Alignment | None]]:
    """Rows added behind, and before."""
    base = [tensor("a", "BF16", (300, 96), 1), tensor("b", "BF16", (300, 96), 2)]
    new = tensor("", "BF16", (9, 96), 3)
    target = [join([tuned(base[0]), new], 0, "a"), join([new, tuned(base[1])], 0, "b")]
    n, more = 300 * 96, 9 * 96
    none = Piece(more, -1, 0, 0, False)
    return (target, base), [
        Alignment(1, (Piece(n, 0, n, 0, False), none)),
        Alignment(1, (none, Piece(n, 1, n, 0, False))),
    ]


def _aligned_columns() -> tuple[Pair, list[Alignment | None]]:
    """Columns added in the middle, and cut away."""
    base = [tensor("a", "F32", (200, 90), 1), tensor("b", "F32", (200, 150), 2)]
    new = tensor("", "F32", (200, 7), 3)
    a = tuned(base[0])
    target = [
        join(
            [cut(a, slice(None), slice(50), ""), new, cut(a, slice(None), slice(50, 90), "")],
            1,
            "a",
        ),
        cut(tuned(base[1]), slice(None), slice(20, 120), "b"),
    ]
    return (target, base), [
        Alignment(
            200,
            (Piece(50, 0, 90, 0, False), Piece(7, -1, 0, 0, False), Piece(40, 0, 90, 50, False)),
        ),
        Alignment(200, (Piece(100, 1, 150, 20, False),)),
    ]


def _fused() -> tuple[Pair, list[Alignment | None]]:
    """Three matrices become one, by rows and by columns; and one three."""
    base = [tensor(name, "BF16", (144, 144), k) for k, name in enumerate("kqvz")]
    base.append(tensor("zz", "BF16", (432, 144), 9))
    k, q, v = map(tuned, base[:3])
    big = tuned(base[4])
    target = [join([q, k, v], 0, "rows"), join([q, k, v], 1, "columns")]
    target += [cut(big, slice(144 * i, 144 * (i + 1)), slice(None), f"part{i}") for i in range(3)]
    n = 144 * 144
    return (target, base), [
        Alignment(1, tuple(Piece(n, source, n, 0, False) for source in (1, 0, 2))),
        Alignment(144, tuple(Piece(144, source, 144, 0, False) for source in (1, 0, 2))),
        *(Alignment(1, (Piece(n, 4, 3 * n, n * i, False),)) for i in range(3)),
    ]


def _transposed() -> tuple[Pair, list[Alignment | None]]:
    base = [tensor("a", "F16", (160, 200), 1), tensor("b", "F32", (100, 120), 2)]
    target = [transposed(tuned(base[0]), "t"), cast_to_bf16(transposed(base[1], "u"))]
    n, m = 160 * 200, 100 * 120
    return (target, base), [
        Alignment(1, (Piece(n, 0, n, 0, True),)),
        Alignment(1, (Piece(m, 1, m, 0, True),)),
    ]


#: Pairs with alignments that are told, whatever is found by search.
ALIGNED: dict[str, Callable[[], tuple[Pair, list[Alignment | None]]]] = {
    "rows": _aligned_rows,
    "columns": _aligned_columns,
    "fused": _fused,
    "transposed": _transposed,
}
