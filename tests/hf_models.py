"""Small models of transformers, plain and compressed, and a patch that never stays behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors

import z4ai
from z4ai.safetensors import compress_file

VARIANT = "z4ai"


@pytest.fixture
def enabled() -> Iterator[None]:
    """`enable_hf` for one test; everything as before afterwards, or the test fails."""
    before = safetensors.safe_open, safetensors.deserialize, os.environ.get("Z4AI_ENABLE_HF")
    z4ai.enable_hf()
    try:
        yield
    finally:
        z4ai.disable_hf()
    after = safetensors.safe_open, safetensors.deserialize, os.environ.get("Z4AI_ENABLE_HF")
    assert after == before


def llama(**changes: Any) -> Any:
    """A Llama of four layers with random weights, in bfloat16 as they come."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = {
        "vocab_size": 320,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }
    torch.manual_seed(5)
    # Not .bfloat16(), which would round the table of angles, which is never saved, as well.
    return LlamaForCausalLM._from_config(
        LlamaConfig(**{**config, **changes}), dtype=torch.bfloat16
    ).eval()


def bert() -> Any:
    """A Bert with a head tied to its embedding, in float32."""
    import torch
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(6)
    config = BertConfig(
        vocab_size=300,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=64,
    )
    return BertForMaskedLM(config).eval()


def save_compressed(model: Any, folder: Path, **options: Any) -> None:
    """Have transformers write a variant, under the names it looks for, and compress each file."""
    model.save_pretrained(folder, variant=VARIANT, **options)
    for path in sorted(folder.glob("*.safetensors")):
        compress_file(path, path.with_suffix(".zstn"))
        path.with_suffix(".zstn").replace(path)
        assert path.read_bytes()[:4] == b"ZSTN"


def bits_of(model: Any) -> dict[str, tuple[Any, ...]]:
    """Every parameter and buffer by name: dtype, shape and bytes."""
    import torch

    return {
        name: (
            tensor.dtype,
            tuple(tensor.shape),
            tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes(),
        )
        for name, tensor in model.state_dict().items()
    }
