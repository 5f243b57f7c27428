"""Adapters of the real peft, compressed: loaded, added, swapped and merged, every bit."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hf_models import VARIANT, bits_of, enabled, llama, save_compressed  # noqa: F401 - a fixture

import z4ai

peft = pytest.importorskip("peft")

pytestmark = [
    pytest.mark.usefixtures("enabled"),
    # peft asks transformers by an old name
    pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning"),
]

ROOT = Path(__file__).resolve().parents[2]
IDS = torch.arange(3, 27).reshape(2, 12)
WEIGHTS = "adapter_model.safetensors"
SOME = {"task_type": "CAUSAL_LM", "target_modules": ["q_proj", "v_proj"]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "lora": lambda: peft.LoraConfig(r=4, **SOME),
    "lora with a head": lambda: peft.LoraConfig(r=4, modules_to_save=["lm_head"], **SOME),
    "dora": lambda: peft.LoraConfig(r=4, use_dora=True, **SOME),
    "vera": lambda: peft.VeraConfig(r=4, **SOME),
    "ia3": lambda: peft.IA3Config(feedforward_modules=[], **SOME),
    "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM"),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "no option": {},
    "low_cpu_mem_usage": {"low_cpu_mem_usage": True},
    "device": {"torch_device": "cpu"},
}


def save(config: Any, folder: Path, base: Any = None) -> None:
    """An adapter of random weights: `plain` and `small`."""
    model = peft.get_peft_model(llama() if base is None else base, config)
    torch.manual_seed(7)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder / "plain")
    z4ai.compress_model(folder / "plain", folder / "small")
    assert (folder / "small" / WEIGHTS).read_bytes()[:4] == b"ZSTN"
    assert (folder / "plain" / WEIGHTS).read_bytes()[:4] != b"ZSTN"


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


@pytest.fixture(scope="module", params=CONFIGS)
def adapter(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    save(CONFIGS[request.param](), folder)
    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    save(CONFIGS["lora"](), folder)
    return folder


@pytest.mark.parametrize("name", OPTIONS)
def test_an_adapter_loads_as_the_plain_one_does(adapter: Path, name: str) -> None:
    plain = peft.PeftModel.from_pretrained(llama(), adapter / "plain", **OPTIONS[name])
    again = peft.PeftModel.from_pretrained(llama(), adapter / "small", **OPTIONS[name])
    assert bits_of(again) == bits_of(plain)
    assert torch.equal(logits(again), logits(plain))
    # as many as the base gives, behind virtual tokens of a prompt
    assert not torch.equal(logits(again)[:, -12:], logits(llama()))


def test_adapters_are_added_and_merged(lora: Path) -> None:
    plain = peft.PeftModel.from_pretrained(llama(), lora / "plain")
    again = peft.PeftModel.from_pretrained(llama(), lora / "plain")
    plain.load_adapter(lora / "plain", "second")
    again.load_adapter(lora / "small", "second")
    again.set_adapter("second")
    assert bits_of(again) == bits_of(plain)
    assert bits_of(again.merge_and_unload()) == bits_of(plain.merge_and_unload())


def test_adapters_are_swapped(lora: Path, tmp_path: Path) -> None:
    from peft.utils.hotswap import hotswap_adapter

    torch.manual_seed(8)
    other = peft.LoraConfig(r=4, init_lora_weights=False, **SOME)
    peft.get_peft_model(llama(), other).save_pretrained(tmp_path)
    model = peft.PeftModel.from_pretrained(llama(), tmp_path)
    expected = bits_of(peft.PeftModel.from_pretrained(llama(), lora / "plain"))
    assert bits_of(model) != expected
    hotswap_adapter(model, lora / "small", "default")
    assert bits_of(model) == expected


def test_transformers_loads_adapters_too(lora: Path) -> None:
    plain, again = llama(), llama()
    plain.load_adapter(lora / "plain")
    again.load_adapter(lora / "small")
    assert bits_of(again) == bits_of(plain)
    assert torch.equal(logits(again), logits(plain))


def test_base_and_adapter_may_both_be_compressed(tmp_path: Path) -> None:
    """The adapter names the folder of its base; the variant says which weights of it."""
    save_compressed(llama(), tmp_path / "base")
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base", variant=VARIANT)
    save(CONFIGS["lora"](), tmp_path, base)
    expected = peft.PeftModel.from_pretrained(llama(), tmp_path / "plain")
    again = peft.AutoPeftModelForCausalLM.from_pretrained(tmp_path / "small", variant=VARIANT)
    assert bits_of(again) == bits_of(expected)
    assert torch.equal(logits(again), logits(expected))


# --- Which was imported first ---------------------------------------------------------------------

EARLY = """
import sys
import z4ai
z4ai.enable_hf()
from diffusers import AutoencoderKL
from peft.utils import load_peft_weights

def same(a, b):
    return len(a) > 9 and a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)

plain, small = sys.argv[1:3]
print(same(load_peft_weights(plain, device="cpu"), load_peft_weights(small, device="cpu")))
plain, small = sys.argv[3:5]
a = AutoencoderKL.from_pretrained(plain).state_dict()
b = AutoencoderKL.from_pretrained(small, variant="z4ai").state_dict()
print(same(a, b))
"""


def test_peft_and_diffusers_may_be_imported_after(lora: Path, tmp_path: Path) -> None:
    """In this process they were imported before."""
    diffusers = pytest.importorskip("diffusers")
    plain, small = tmp_path / "plain", tmp_path / "small"
    diffusers.AutoencoderKL(block_out_channels=(32,)).save_pretrained(plain)
    z4ai.compress_model(plain, small)
    folders = [lora / "plain", lora / "small", plain, small]
    tree = {} if os.environ.get("Z4AI_TEST_INSTALLED") else {"PYTHONPATH": str(ROOT)}
    environment = {name: value for name, value in os.environ.items() if name != "Z4AI_ENABLE_HF"}
    result = subprocess.run(
        [sys.executable, "-c", EARLY, *map(str, folders)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**environment, **tree},
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["True", "True"]
