"""GGUF files, made here: headers as the format has them, tensors quantised from normal weights."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

U32, F32, STRING, ARRAY = 4, 6, 8, 9


class Tensor(NamedTuple):
    """One tensor of a file: its extents as GGUF counts them (the fastest first), its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    content: bytes


def string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def value(kind: int, it: Any) -> bytes:
    if kind == U32:
        return struct.pack("<I", it)
    if kind == F32:
        return struct.pack("<f", it)
    if kind == STRING:
        return string(it)
    inner, items = it
    return struct.pack("<IQ", inner, len(items)) + b"".join(value(inner, item) for item in items)


def gguf(
    tensors: Sequence[Tensor],
    values: dict[str, tuple[int, Any]] | None = None,
    *,
    alignment: int = 32,
    version: int = 3,
) -> bytes:
    """Return the bytes of a file."""
    values = dict(values or {"general.architecture": (STRING, "llama")})
    if alignment != 32:
        values["general.alignment"] = U32, alignment
    head = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(values))
    for name, (kind, it) in values.items():
        head += string(name) + struct.pack("<I", kind) + value(kind, it)
    data = b""
    for tensor in tensors:
        data += bytes(-len(data) % alignment)
        head += string(tensor.name) + struct.pack("<I", len(tensor.shape))
        head += struct.pack(f"<{len(tensor.shape)}Q", *tensor.shape)
        head += struct.pack("<IQ", tensor.kind, len(data))
        data += tensor.content
    data += bytes(-len(data) % alignment)
    return head + bytes(-len(head) % alignment) + data


def weights(n: int, seed: int) -> Floats:
    """Normal weights in bf16, as models have them, in rows of scales of their own."""
    rng = np.random.default_rng(seed)
    made = rng.standard_normal(n).astype(np.float32) * np.float32(0.02)
    return (made.view(np.uint32) & 0xFFFF0000).view(np.float32)


def half(x: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    return x.astype("<f2").view(np.uint8).reshape(len(x), -1)


def q4_1(x: Floats) -> bytes:
    x = x.reshape(-1, 32)
    least = x.min(1)
    d = (x.max(1) - least) / np.float32(15)
    q = np.clip((x - least[:, None]) / np.maximum(d, 1e-12)[:, None] + 0.5, 0, 15).astype(np.uint8)
    return np.hstack([half(d), half(least), q[:, :16] | q[:, 16:] << 4]).tobytes()


def q4_0(x: Floats) -> bytes:
    x = x.reshape(-1, 32)
    d = np.take_along_axis(x, np.abs(x).argmax(1)[:, None], 1)[:, 0] / np.float32(-8)
    d = np.where(d == 0, np.float32(1), d)
    q = np.clip(x / d[:, None] + 8.5, 0, 15).astype(np.uint8)
    return np.hstack([half(d), q[:, :16] | q[:, 16:] << 4]).tobytes()


def q8_0(x: Floats) -> bytes:
    x = x.reshape(-1, 32)
    d = np.maximum(np.abs(x).max(1) / np.float32(127), np.float32(1e-12))
    q = np.rint(x / d[:, None]).astype(np.int8).view(np.uint8)
    return np.hstack([half(d), q]).tobytes()


def q6_k(x: Floats) -> bytes:
    x = x.reshape(-1, 16, 16)
    scales = np.maximum(np.abs(x).max(2) / np.float32(32), np.float32(1e-12))
    d = scales.max(1) / np.float32(127)
    scale = np.maximum(np.rint(scales / d[:, None]), 1).astype(np.int8)
    step = d[:, None] * scale
    q = (np.clip(np.rint(x / step[:, :, None]), -32, 31) + 32).astype(np.uint8)
    q = q.reshape(-1, 2, 4, 32)
    low = (q[:, :, :2] & 15) | (q[:, :, 2:] & 15) << 4
    high = sum((q[:, :, k] >> 4) << (2 * k) for k in range(4))
    parts = [low.reshape(len(x), -1), np.asarray(high).reshape(len(x), -1), scale.view(np.uint8)]
    return np.hstack([*parts, half(d)]).tobytes()


def q4_k(x: Floats) -> bytes:
    x = x.reshape(-1, 8, 32)
    least = np.minimum(x.min(2), 0)
    scales = np.maximum((x.max(2) - least) / np.float32(15), np.float32(1e-12))
    d, dmin = scales.max(1) / np.float32(63), np.maximum(-least.min(1), 1e-12) / np.float32(63)
    sc = np.rint(scales / d[:, None]).astype(np.uint8)
    mn = np.rint(-least / dmin[:, None]).astype(np.uint8)
    step = np.maximum(d[:, None] * sc, np.float32(1e-12))
    q = np.clip((x + (dmin[:, None] * mn)[:, :, None]) / step[:, :, None] + 0.5, 0, 15)
    q = q.astype(np.uint8).reshape(-1, 4, 2, 32)
    packed = np.hstack(
        [
            sc[:, :4] & 63 | (sc[:, 4:] >> 4) << 6,
            mn[:, :4] & 63 | (mn[:, 4:] >> 4) << 6,
            sc[:, 4:] & 15 | (mn[:, 4:] & 15) << 4,
        ]
    )
    nibbles = (q[:, :, 0] | q[:, :, 1] << 4).reshape(len(x), -1)
    return np.hstack([half(d), half(dmin), packed, nibbles]).tobytes()


def f16(x: Floats) -> bytes:
    return x.astype("<f2").tobytes()


def bf16(x: Floats) -> bytes:
    return (x.view("<u4") >> 16).astype("<u2").tobytes()


def f32(x: Floats) -> bytes:
    return x.astype("<f4").tobytes()


KINDS: dict[str, tuple[int, Callable[[Floats], bytes]]] = {
    "f32": (0, f32),
    "f16": (1, f16),
    "q4_0": (2, q4_0),
    "q4_1": (3, q4_1),
    "q8_0": (8, q8_0),
    "q4_K": (12, q4_k),
    "q6_K": (14, q6_k),
    "bf16": (30, bf16),
}


def tensor(kind: str, rows: int, columns: int, seed: int = 0) -> Tensor:
    """Return a tensor of weights."""
    number, quantise = KINDS[kind]
    content = quantise(weights(rows * columns, seed))
    return Tensor(f"blk.{seed}.{kind}.weight", (columns, rows), number, content)


def vocabulary(n: int = 500) -> dict[str, tuple[int, Any]]:
    return {
        "general.architecture": (STRING, "llama"),
        "tokenizer.ggml.tokens": (ARRAY, (STRING, [f"token{k}" for k in range(n)])),
        "tokenizer.ggml.scores": (ARRAY, (F32, [float(-k) for k in range(n)])),
        "nested": (ARRAY, (ARRAY, [(U32, [1, 2]), (STRING, ["x", ""])])),
        "llama.block_count": (U32, 2),
    }
