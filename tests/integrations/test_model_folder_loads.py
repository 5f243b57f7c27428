"""Folders that `compress_model` made, in the hands of transformers: with z4ai, and without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import z4ai

pytest.importorskip("torch")
pytest.importorskip("transformers")


# In a process of its own: what is patched stays patched, and other tests need it as it was.
SCRIPT = """
import torch, transformers, z4ai
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

transformers.utils.logging.set_verbosity_error()
torch.manual_seed(0)
config = LlamaConfig(hidden_size=64, intermediate_size=96, num_hidden_layers=2, vocab_size=99,
                     num_attention_heads=4, num_key_value_heads=2)
plain = LlamaForCausalLM(config).to(torch.bfloat16).eval()
plain.save_pretrained("single")
plain.save_pretrained("sharded", max_shard_size="60KB")
plain.save_pretrained("theirs", max_shard_size="60KB", variant="z4ai")
for folder in ("single", "sharded"):
    z4ai.compress_model(folder, f"{folder}.small")
    try:
        AutoModelForCausalLM.from_pretrained(f"{folder}.small", variant="z4ai")
    except Exception as error:
        print(type(error).__name__, error)
plain = AutoModelForCausalLM.from_pretrained("single").eval()
z4ai.enable_hf()
ids = torch.arange(12)[None]
for folder in ("single", "sharded"):
    model = AutoModelForCausalLM.from_pretrained(f"{folder}.small", variant="z4ai")
    got, expected = model.state_dict(), plain.state_dict()
    assert got.keys() == expected.keys()
    assert all(got[k].dtype == v.dtype and torch.equal(got[k], v) for k, v in expected.items())
    assert torch.equal(model.eval()(ids).logits, plain(ids).logits)
z4ai.compress_model("sharded", "same", variant=None)
model = AutoModelForCausalLM.from_pretrained("same")
assert all(torch.equal(model.state_dict()[k], v) for k, v in plain.state_dict().items())
print("done")
"""


def test_transformers_loads_what_was_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    *told, done = result.stdout.splitlines()
    assert done == "done"
    # What the guide and the note in the folder quote.
    assert told == ["SafetensorError Error while deserializing header: header too large"] * 2
    assert "header too large" in Path("sharded.small/README.z4ai.md").read_text()
    # The same names that save_pretrained(variant="z4ai") gives.
    named = {path.name for path in Path("theirs").iterdir() if "z4ai" in path.name}
    small = {path.name for path in Path("sharded.small").iterdir()}
    assert len(named) > 3
    assert small - {"README.z4ai.md"} == {path.name for path in Path("theirs").iterdir()}
    index = "model.safetensors.index.z4ai.json"
    assert Path("sharded.small", index).read_bytes() == Path("theirs", index).read_bytes()
    z4ai.decompress_model("sharded.small", "back")
    assert all(
        path.read_bytes() == Path("back", path.name).read_bytes()
        for path in Path("sharded").iterdir()
    )
