"""Tensors of torch where a buffer or an array is taken."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

import z4ai
from z4ai.safetensors import ZstnReader, ZstnWriter

# What an array of each dtype is made of.
DTYPES: dict[torch.dtype, Any] = {
    torch.bool: np.bool_,
    torch.uint8: np.uint8,
    torch.int8: np.int8,
    torch.uint16: np.uint16,
    torch.int16: np.int16,
    torch.uint32: np.uint32,
    torch.int32: np.int32,
    torch.uint64: np.uint64,
    torch.int64: np.int64,
    torch.float16: np.float16,
    torch.bfloat16: ml_dtypes.bfloat16,
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.complex64: np.complex64,
    torch.complex128: np.complex128,
    torch.float8_e4m3fn: ml_dtypes.float8_e4m3fn,
    torch.float8_e5m2: ml_dtypes.float8_e5m2,
    torch.float8_e4m3fnuz: ml_dtypes.float8_e4m3fnuz,
    torch.float8_e5m2fnuz: ml_dtypes.float8_e5m2fnuz,
    torch.float8_e8m0fnu: ml_dtypes.float8_e8m0fnu,
}

VIEWS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "whole": lambda t: t,
    "transposed": lambda t: t.t(),
    "strided": lambda t: t[::3, ::2],
    "one element": lambda t: t[3, 1],
    "no element": lambda t: t[:0],
    "column": lambda t: t[:, 1],
    "row of one column": lambda t: t.t()[1:2].t(),
    "expanded": lambda t: t[:1].expand(5, -1),
}


def matrix(dtype: torch.dtype) -> torch.Tensor:
    high = 2 if dtype == torch.bool else 256
    generator = torch.Generator().manual_seed(1)
    raw = torch.randint(0, high, (16, 256), dtype=torch.uint8, generator=generator)
    return raw.view(dtype)


def bits(tensor: torch.Tensor) -> bytes:
    flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))
    return flat.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_and_view(dtype: torch.dtype, view: str) -> None:
    tensor = VIEWS[view](matrix(dtype))
    expected = bits(tensor)
    assert z4ai.decompress(z4ai.compress(tensor, dtype=dtype)) == expected
    assert z4ai.compress(tensor) == z4ai.compress(expected)
    array = z4ai.decompress_array(z4ai.compress_array(tensor))
    assert array.dtype == np.dtype(DTYPES[dtype])
    assert array.shape == tuple(tensor.shape)
    assert array.tobytes() == expected
    blob = z4ai.compress_delta(tensor, reference=tensor.clone(), dtype=dtype)
    assert bytes(z4ai.decompress_delta(blob, reference=tensor)) == expected


def test_gradients_and_lazy_bits_are_no_hindrance() -> None:
    weight = torch.nn.Parameter(torch.randn(8, 8))
    assert z4ai.decompress(z4ai.compress(weight)) == bits(weight.detach())
    assert np.array_equal(z4ai.decompress_array(z4ai.compress_array(weight)), weight.data.numpy())
    conjugated = torch.randn(4, 4, dtype=torch.complex64).conj()
    for tensor in (conjugated, conjugated.imag):
        expected = tensor.resolve_conj().resolve_neg()
        assert z4ai.decompress(z4ai.compress(tensor)) == bits(expected)
        array = z4ai.decompress_array(z4ai.compress_array(tensor))
        assert np.array_equal(array, expected.numpy())


def test_a_container_takes_tensors_too() -> None:

    file = io.BytesIO()
    weight = torch.randn(8, 8).bfloat16().t()
    with ZstnWriter(file) as writer:
        writer.add("w", weight)
    with ZstnReader.from_bytes(file.getvalue()) as reader:
        assert reader.dtype("w") == "BF16"
        assert reader.read_raw("w") == bits(weight)


def test_pairs_of_fp4_are_bytes_and_no_array() -> None:
    pairs = matrix(torch.uint8).view(torch.float4_e2m1fn_x2)
    blob = z4ai.compress(pairs, dtype=pairs.dtype)
    assert z4ai.decompress(blob) == bits(pairs)
    with pytest.raises(TypeError, match=r"NumPy has no array of torch\.float4_e2m1fn_x2"):
        z4ai.compress_array(pairs)


@pytest.mark.filterwarnings("ignore:.*quant.*")
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: torch.zeros(3, device="meta"), "meta device: it has no data"),
        (lambda: torch.eye(3).to_sparse(), "torch.sparse_coo, torch.float32: expected a dense"),
        (
            lambda: torch.quantize_per_tensor(torch.ones(3), 1.0, 0, torch.qint8),
            "torch.qint8: expected a dense",
        ),
    ],
)
def test_what_has_no_elements_in_memory_is_refused(
    make: Callable[[], torch.Tensor], message: str
) -> None:
    for compress in (z4ai.compress, z4ai.compress_array):
        with pytest.raises(TypeError, match=message):
            compress(make())
