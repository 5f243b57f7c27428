"""The usage page, example by example, in its order and with its names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch

import z4ai
import z4ai.chunked as ck
from z4ai import model_delta
from z4ai.safetensors import ZstnReader, compress_file, decompress_file


def weights(n: int, *, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Float32 numbers that look like a trained layer: small, bell-shaped, a few outliers."""
    rng = np.random.default_rng(seed)
    scale = np.where(rng.random(n) < 0.01, 0.2, 0.02)
    return (rng.standard_normal(n) * scale).astype(np.float32)


def buffer_of(dtype: str | None) -> bytes:
    """Weights as the bytes of a dtype."""
    values = weights(50_000, seed=1)
    if dtype is None:
        return b"config " * 1000 + values.tobytes()
    if dtype.startswith(("int", "uint")):
        return np.round(np.abs(values) * 500).astype(dtype).tobytes()
    names = {"fp16": "float16", "fp32": "float32", "fp64": "float64", "bf16": ml_dtypes.bfloat16}
    return values.astype(names[dtype]).tobytes()


# --- Buffers and dtypes ---------------------------------------------------------------------------

CODES = ["bf16", "fp16", "fp32", "fp64"]
CODES += [f"{sign}int{bits}" for bits in (8, 16, 32, 64) for sign in ("", "u")]


@pytest.mark.parametrize("dtype", [*CODES, None])
def test_a_buffer_of_each_dtype_comes_back(dtype: str | None) -> None:
    buffer = buffer_of(dtype)
    blob = z4ai.compress(buffer, dtype=dtype)
    data = z4ai.decompress(blob)
    assert isinstance(blob, bytes)
    assert isinstance(data, bytes)
    assert data == buffer
    assert len(blob) < len(buffer)


def test_decoding_into_a_buffer_made_before() -> None:
    buffer = buffer_of("fp32")
    blob = z4ai.compress(buffer, dtype="fp32")
    out = bytearray(len(buffer))
    z4ai.decompress(blob, out=out)
    assert out == buffer


# --- NumPy arrays ---------------------------------------------------------------------------------


def test_an_array_comes_back_with_dtype_and_shape() -> None:
    w = weights(256 * 512).reshape(256, 512).astype(np.float16)
    blob = z4ai.compress_array(w)
    back = z4ai.decompress_array(blob)
    assert np.array_equal(w, back)
    assert back.dtype == w.dtype
    assert back.shape == w.shape


# --- Effort tiers ---------------------------------------------------------------------------------


def test_every_tier_decodes_through_the_same_call() -> None:
    buffer = buffer_of("bf16")
    fast = z4ai.compress(buffer, dtype="bf16", effort="fast")
    default = z4ai.compress(buffer, dtype="bf16")
    smallest = z4ai.compress(buffer, dtype="bf16", effort="max")
    for blob in (fast, default, smallest):
        assert z4ai.decompress(blob) == buffer
    assert len(smallest) <= len(default) <= len(fast)


@pytest.mark.parametrize("dtype", [*CODES, None])
def test_max_is_never_larger_than_the_default(dtype: str | None) -> None:
    buffer = buffer_of(dtype)
    smallest = z4ai.compress(buffer, dtype=dtype, effort="max")
    assert len(smallest) <= len(z4ai.compress(buffer, dtype=dtype))
    assert z4ai.decompress(smallest) == buffer


def test_max_works_without_brotli() -> None:
    code = (
        "import sys; sys.modules['brotli'] = None\n"
        "import z4ai\n"
        "data = bytes(range(256)) * 500\n"
        "blob = z4ai.compress(data, dtype='bf16', effort='max')\n"
        "assert z4ai.decompress(blob) == data\n"
        "print(len(blob) <= len(z4ai.compress(data, dtype='bf16')))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout.split() == ["True"], result.stderr


# --- Checkpoint deltas ----------------------------------------------------------------------------


def test_checkpoint_deltas() -> None:
    prev_ckpt_bytes = buffer_of("bf16")
    words = np.frombuffer(prev_ckpt_bytes, np.uint16).copy()
    words[::7] += 1
    current_ckpt_bytes = words.tobytes()
    blob = z4ai.compress_delta(current_ckpt_bytes, reference=prev_ckpt_bytes, dtype="bf16")
    restored = z4ai.decompress_delta(blob, reference=prev_ckpt_bytes)
    assert bytes(restored) == current_ckpt_bytes
    assert len(blob) < len(current_ckpt_bytes) / 8
    with pytest.raises(z4ai.errors.BaseMismatchError):
        z4ai.decompress_delta(blob, reference=current_ckpt_bytes)


# --- Model deltas ---------------------------------------------------------------------------------


def checkpoint(tensors: dict[str, np.ndarray]) -> bytes:  # type: ignore[type-arg]
    return safetensors.numpy.save(tensors)


def fine_tune() -> tuple[bytes, bytes]:
    """A model, and one made from it: tensors added, dropped, renamed, in another order."""
    shapes = {
        "embed": (300, 64),
        "layer.0.w": (128, 128),
        "layer.1.w": (128, 128),
        "head": (64, 90),
    }
    base = {
        name: weights(n * m, seed=k).reshape(n, m)
        for k, (name, (n, m)) in enumerate(shapes.items())
    }
    moved = weights(128 * 128, seed=9).reshape(128, 128) / 1000
    finetuned = {
        "layer.1.w": base["layer.1.w"] + moved,
        "model.layer.0.w": base["layer.0.w"] + moved,
        "embed": base["embed"],
        "adapter": weights(50 * 64, seed=8).reshape(50, 64),
    }
    return checkpoint(finetuned), checkpoint(base)


def test_model_deltas_in_memory() -> None:
    finetuned_bytes, base_bytes = fine_tune()
    blob = model_delta.compress(finetuned_bytes, base_bytes)
    restored = model_delta.decompress(blob, base_bytes)
    assert restored == finetuned_bytes
    with pytest.raises(z4ai.errors.BaseMismatchError):
        model_delta.decompress(blob, finetuned_bytes)


def test_model_deltas_from_and_to_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    finetuned_bytes, base_bytes = fine_tune()
    Path("finetuned.safetensors").write_bytes(finetuned_bytes)
    Path("base.safetensors").write_bytes(base_bytes)
    stats = model_delta.compress_file("finetuned.safetensors", "base.safetensors", "finetuned.z4dm")
    assert f"{stats['ratio']:.1f}x smaller"
    assert stats["original"] == len(finetuned_bytes)
    assert stats["stored"] == os.path.getsize("finetuned.z4dm")
    assert stats["ratio"] == pytest.approx(stats["original"] / stats["stored"])
    compress_file("finetuned.safetensors", "alone.zstn")
    assert stats["stored"] < 0.7 * os.path.getsize("alone.zstn")
    model_delta.decompress_file("finetuned.z4dm", "base.safetensors", "again.safetensors")
    assert Path("again.safetensors").read_bytes() == finetuned_bytes


# --- safetensors with random access ---------------------------------------------------------------

EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:  # type: ignore[type-arg]
    """A `model.safetensors` in the current folder: an embedding, tied to the head, and a norm."""
    monkeypatch.chdir(tmp_path)
    embedding = weights(300 * 64).reshape(300, 64)
    tensors = {
        "lm_head.weight": embedding,
        EMBEDDING: embedding,
        "model.norm.weight": np.ones(64, np.float32),
    }
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, array in tensors.items():
        end = begin + array.nbytes
        header[name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    raw = json.dumps(header).encode()
    content = b"".join(array.tobytes() for array in tensors.values())
    Path("model.safetensors").write_bytes(len(raw).to_bytes(8, "little") + raw + content)
    return tensors


def test_a_checkpoint_file_comes_back(model: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    original = Path("model.safetensors").read_bytes()
    stats = compress_file("model.safetensors", "model.zstn")
    compressed = os.path.getsize("model.zstn")
    assert stats["original_bytes"] == len(original)
    assert stats["compressed_bytes"] == compressed
    assert stats["ratio"] == pytest.approx(len(original) / compressed)
    assert stats["saved_pct"] == pytest.approx(100 - 100 * compressed / len(original))
    assert f"{stats['saved_pct']:.0f}% smaller ({stats['ratio']:.2f}x)"
    os.remove("model.safetensors")
    decompress_file("model.zstn", "model.safetensors")
    assert Path("model.safetensors").read_bytes() == original


def test_tied_weights_are_stored_once(model: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    stats = compress_file("model.safetensors", "model.zstn")
    assert stats["compressed_bytes"] < 0.55 * stats["original_bytes"]


def test_one_tensor_is_read_alone(model: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    compress_file("model.safetensors", "model.zstn")
    with ZstnReader.open("model.zstn") as r:
        assert sorted(r.names()) == sorted(model)
        w = r.read_numpy(EMBEDDING)
    assert np.array_equal(w, model[EMBEDDING])
    assert w.dtype == np.float32


def test_one_tensor_is_read_though_another_is_damaged(model: dict[str, np.ndarray]) -> None:  # type: ignore[type-arg]
    """Only that tensor is decoded: damage elsewhere is not even seen."""
    compress_file("model.safetensors", "model.zstn")
    whole = Path("model.zstn").read_bytes()
    readable = 0
    for offset in range(16, len(whole), 101):
        blob = bytearray(whole)
        blob[offset] ^= 1
        Path("damaged.zstn").write_bytes(blob)
        try:
            with ZstnReader.open("damaged.zstn") as r:
                norm = r.read_numpy("model.norm.weight")
                readable += 1
                assert np.array_equal(norm, model["model.norm.weight"])
        except z4ai.errors.Z4Error:
            pass
    assert readable > len(whole) / 101 / 2


# --- HuggingFace integration ----------------------------------------------------------------------


def network() -> torch.nn.Module:
    """Some layers, in bf16, with a head that is tied to the embedding."""
    torch.manual_seed(3)
    model = torch.nn.ModuleDict(
        {
            "embed": torch.nn.Embedding(300, 64),
            "norm": torch.nn.LayerNorm(64),
            "head": torch.nn.Linear(64, 300, bias=False),
        }
    ).bfloat16()
    model["head"].weight = model["embed"].weight
    return model


def test_a_state_dict_is_saved_and_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = network()
    stats = z4ai.save_file(model.state_dict(), "model.z4ai.safetensors")
    assert f"{stats['saved_pct']:.0f}% smaller"
    assert stats["saved_pct"] > 50  # a third, and half of what is left
    state = z4ai.load_file("model.z4ai.safetensors")
    assert {name: type(tensor) for name, tensor in state.items()} == dict.fromkeys(
        model.state_dict(), torch.Tensor
    )
    for name, tensor in model.state_dict().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor)
    other = network()
    for parameter in other.parameters():
        parameter.data.zero_()
    other.load_state_dict(state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor)


def test_a_plain_file_passes_through_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    state = {"w": torch.arange(12.0).reshape(3, 4), "b": torch.zeros(3, dtype=torch.bfloat16)}
    safetensors.torch.save_file(state, path)
    loaded = z4ai.load_file(path)
    assert set(loaded) == set(state)
    for name, tensor in state.items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)


def test_the_module_of_integrations_has_them_too() -> None:
    from z4ai import integrations

    assert integrations.save_file is z4ai.save_file
    assert integrations.load_file is z4ai.load_file


def test_the_core_codec_needs_neither_torch_nor_safetensors() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['safetensors'] = None\n"
        "import z4ai\n"
        "assert z4ai.decompress(z4ai.compress(bytes(100))) == bytes(100)\n"
        "try: z4ai.load_file('model.z4ai.safetensors')\n"
        "except ImportError as error: print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.stdout == 'torch is not installed: pip install "z4ai[hf]"\n', result.stderr


EXAMPLE = """\
from z4ai import enable_hf
enable_hf() # before importing transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained("your-org/model", variant="z4ai")
tok = AutoTokenizer.from_pretrained("your-org/model")
"""
CHECK = """
import torch
expected = torch.load("expected.pt")
assert model.state_dict().keys() == expected["state"].keys()
for name, tensor in model.state_dict().items():
    assert tensor.dtype == expected["state"][name].dtype, name
    assert torch.equal(tensor, expected["state"][name]), name
ids = tok("a b c d", return_tensors="pt")
with torch.no_grad():
    assert torch.equal(model(**ids).logits, expected["logits"])
print("the same")
"""


@pytest.fixture
def organization(tmp_path: Path) -> Path:
    """A folder with `your-org/model`: a Llama trained for a few steps, and what it should give."""
    import tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path / "your-org" / "model"
    words = tokenizers.models.WordLevel({"?": 0, "a": 1, "b": 2, "c": 3, "d": 4}, unk_token="?")
    tokenizer = tokenizers.Tokenizer(words)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="?")
    fast.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    ids = torch.randint(0, 128, (4, 16))
    for _ in range(5):
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    inputs = fast("a b c d", return_tensors="pt")
    with torch.no_grad():
        expected = {"state": model.state_dict(), "logits": model(**inputs).logits}
    torch.save(expected, tmp_path / "expected.pt")
    model.save_pretrained(folder, variant="z4ai")
    path = folder / "model.z4ai.safetensors"
    plain = path.read_bytes()
    compress_file(path, folder / "compressed")
    (folder / "compressed").replace(path)
    assert path.stat().st_size < 0.95 * len(plain)
    assert not (folder / "model.safetensors").exists()
    return tmp_path


ORDERS = {
    "as on the page": EXAMPLE,
    "after transformers": "import transformers.modeling_utils\n" + EXAMPLE,
}


@pytest.mark.parametrize("order", ORDERS)
def test_from_pretrained_loads_compressed_weights(organization: Path, order: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", ORDERS[order] + CHECK],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=organization,
    )
    assert result.stdout == "the same\n", result.stderr


def test_without_enable_hf_compressed_weights_are_refused(organization: Path) -> None:
    """So that the test above cannot pass because of a file that is plain."""
    code = EXAMPLE.replace("enable_hf() #", "#")
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=organization,
    )
    assert result.returncode == 1
    assert "SafetensorError" in result.stderr


# --- High-throughput native path ------------------------------------------------------------------


def test_the_chunked_path_and_the_default_read_each_other() -> None:
    buffer = buffer_of("bf16")
    blob = ck.compress(buffer, dtype="bf16")
    assert ck.decompress(blob) == buffer
    assert z4ai.decompress(blob) == buffer
    assert ck.decompress(z4ai.compress(buffer, dtype="bf16")) == buffer
    assert ck.decompress(z4ai.compress(buffer, dtype="bf16", effort="max")) == buffer
