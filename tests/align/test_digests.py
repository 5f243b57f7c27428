"""Digests of models: what they tell apart, and what not; against another implementation."""

from __future__ import annotations

import struct

import numpy as np
import xxhash
from align_models import model, weights

from z4ai.align import TensorSource, model_digest, tensor_digest, tensor_digests
from z4ai.align.digests import _RUN_NBYTES


def digest(source: TensorSource) -> bytes:
    return model_digest(source.tensors, tensor_digests(source))


def test_it_is_that_of_the_page() -> None:
    arrays = {"é.b": weights((3, 5), 1, "BF16"), "a": np.zeros(0, np.int8), "z": np.array(7.0)}
    text = b""
    for name in sorted(arrays):
        array = arrays[name]
        dtype = {"z": b"F64", "a": b"I8", "é.b": b"BF16"}[name]
        content = array.tobytes()
        state = xxhash.xxh3_128(content).intdigest()
        text += struct.pack("<Q", len(name.encode())) + name.encode()
        text += struct.pack("<Q", len(dtype)) + dtype
        text += struct.pack(f"<Q{array.ndim}QQ", array.ndim, *array.shape, len(content))
        text += struct.pack("<QQ", state & (2**64 - 1), state >> 64)
    assert digest(model(arrays)) == xxhash.xxh3_128(text).intdigest().to_bytes(16, "little")


def test_order_does_not_count() -> None:
    a, b = weights((4, 4), 1), weights((4, 4), 2)
    assert digest(model({"a": a, "b": b})) == digest(model({"b": b, "a": a}))


def test_names_dtypes_shapes_and_bytes_count() -> None:
    a, b = weights((4, 4), 1), weights((4, 4), 2)
    models = [
        {"a": a, "b": b},
        {"a": b, "b": a},
        {"a": a, "c": b},
        {"a": a},
        {"a": a, "b": b.reshape(2, 8)},
        {"a": a, "b": b.reshape(16)},
        {"a": a, "b": b.view(np.uint8).reshape(4, 16)},
        {"a": a, "b": -b},
        {"a": a, "b": b, "empty": np.zeros(0, np.float32)},
        {"a": a, "b": b, "empty": np.zeros((0, 2), np.float32)},
        {},
    ]
    assert len({digest(model(arrays)) for arrays in models}) == len(models)


def test_long_tensors_are_hashed_in_runs() -> None:
    source = model({"w": np.arange(_RUN_NBYTES // 8 * 2 + 3)})
    expected = xxhash.xxh3_128(source.read(0, 0, source.tensors[0].nbytes)).intdigest()
    assert tensor_digest(source, 0) == expected.to_bytes(16, "little")
