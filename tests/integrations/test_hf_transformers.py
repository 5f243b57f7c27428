"""`from_pretrained(dir, variant="z4ai")` with the real transformers: every bit, all options."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch
import transformers
from hf_models import VARIANT, bert, bits_of, enabled, llama, save_compressed  # noqa: F401

import z4ai
from z4ai.integrations import SafeOpen

pytestmark = pytest.mark.usefixtures("enabled")

IDS = torch.arange(3, 27).reshape(2, 12)
MODELS = {
    "llama": (llama, transformers.AutoModelForCausalLM),
    "llama, tied": (lambda: llama(tie_word_embeddings=True), transformers.LlamaForCausalLM),
    "bert": (bert, transformers.AutoModelForMaskedLM),
}


@pytest.fixture(scope="module", params=MODELS)
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model; folders with it plain, compressed, compressed in shards; the class to load it."""
    make, auto = MODELS[request.param]
    model = make()
    folder = tmp_path_factory.mktemp("models")
    model.save_pretrained(folder / "plain")
    save_compressed(model, folder / "single")
    save_compressed(model, folder / "sharded", max_shard_size="100KB")
    assert (folder / "single" / f"model.{VARIANT}.safetensors").exists()
    index = json.loads((folder / "sharded" / f"model.safetensors.index.{VARIANT}.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 2
    assert all(name.startswith(f"model.{VARIANT}-0000") for name in shards)
    return model, folder, auto


@pytest.fixture(scope="module")
def a_llama(tmp_path_factory: pytest.TempPathFactory) -> Any:
    model = llama()
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder / "plain")
    save_compressed(model, folder / "single")
    save_compressed(model, folder / "sharded", max_shard_size="100KB")
    return model, folder


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def load(auto: Any, path: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    model, report = auto.from_pretrained(path, variant=VARIANT, output_loading_info=True, **options)
    return model, report


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_every_bit_and_every_logit_is_the_same(saved: Any, kind: str) -> None:
    model, folder, auto = saved
    again, report = load(auto, folder / kind)
    assert type(again) is type(model)
    assert not any(report.values()), report
    assert bits_of(again) == bits_of(model)
    assert torch.equal(logits(again), logits(model))


OPTIONS: dict[str, dict[str, Any]] = {
    "device_map cpu": {"device_map": "cpu"},
    "device_map auto": {"device_map": "auto"},
    "device_map of modules": {"device_map": {"": "cpu"}},
    "low_cpu_mem_usage": {"low_cpu_mem_usage": True},
    "dtype auto": {"dtype": "auto"},
    "float32": {"dtype": torch.float32},
    "float16": {"dtype": torch.float16},
    "without mmap": {"disable_mmap": True},
    "safetensors only": {"use_safetensors": True},
}


@pytest.mark.parametrize("kind", ["single", "sharded"])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_does_what_it_does_to_plain_files(a_llama: Any, kind: str, name: str) -> None:
    _, folder = a_llama
    auto = transformers.AutoModelForCausalLM
    plain = auto.from_pretrained(folder / "plain", **OPTIONS[name])
    again, report = load(auto, folder / kind, **OPTIONS[name])
    assert not any(report.values()), report
    assert again.dtype == plain.dtype
    assert getattr(again, "hf_device_map", None) == getattr(plain, "hf_device_map", None)
    assert bits_of(again) == bits_of(plain)
    assert torch.equal(logits(again), logits(plain))


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_layers_on_disk_are_read_when_they_are_run(a_llama: Any, kind: str, tmp_path: Path) -> None:
    """Accelerate reads them again from the container at every step."""
    model, folder = a_llama
    device_map = {
        "model.embed_tokens": "cpu",
        "model.layers.0": "cpu",
        "model.layers.1": "disk",
        "model.layers.2": "disk",
        "model.layers.3": "cpu",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    again = transformers.AutoModelForCausalLM.from_pretrained(
        folder / kind, variant=VARIANT, device_map=device_map, offload_folder=tmp_path
    )
    assert again.model.layers[1].mlp.up_proj.weight.device.type == "meta"
    assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize("kind", ["single", "sharded"])
def test_it_generates_the_same(a_llama: Any, kind: str) -> None:
    model, folder = a_llama
    again, _ = load(transformers.AutoModelForCausalLM, folder / kind)
    options = {"max_new_tokens": 8, "do_sample": False, "attention_mask": torch.ones_like(IDS)}
    written = again.generate(IDS, **options)
    assert written.shape == (2, 20)
    assert torch.equal(written, model.generate(IDS, **options))


def test_tied_weights_are_one_tensor(tmp_path: Path) -> None:
    model = llama(tie_word_embeddings=True)
    save_compressed(model, tmp_path)
    again, _ = load(transformers.AutoModelForCausalLM, tmp_path)
    assert again.lm_head.weight is again.model.embed_tokens.weight
    again.lm_head.weight.data.zero_()
    assert not again.model.embed_tokens.weight.any()


def test_save_load_save_is_stable(saved: Any, tmp_path: Path) -> None:
    _, folder, auto = saved
    for kind in ("single", "sharded"):
        again, _ = load(auto, folder / kind)
        again.save_pretrained(tmp_path / kind)
        name = "model.safetensors"
        assert (tmp_path / kind / name).read_bytes() == (folder / "plain" / name).read_bytes()
    for path in sorted((folder / "single").glob("*.safetensors")):
        save_compressed(again, tmp_path / "again")
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


def test_a_state_dict_is_read_from_either(a_llama: Any) -> None:
    from transformers.modeling_utils import load_state_dict

    model, folder = a_llama
    path = str(folder / "single" / f"model.{VARIANT}.safetensors")
    for options in ({}, {"disable_mmap": True}):
        state = load_state_dict(path, **options)
        assert {name: tensor.dtype for name, tensor in state.items()} == {
            name: tensor.dtype for name, tensor in model.state_dict().items()
        }
        assert all(torch.equal(state[name], t) for name, t in model.state_dict().items())
    meta = load_state_dict(path, map_location="meta")
    assert {name: (t.shape, t.dtype) for name, t in meta.items()} == {
        name: (t.shape, t.dtype) for name, t in model.state_dict().items()
    }


def test_accelerate_loads_a_checkpoint(a_llama: Any) -> None:
    from accelerate import init_empty_weights, load_checkpoint_and_dispatch

    model, folder = a_llama
    path = folder / "single" / f"model.{VARIANT}.safetensors"
    with init_empty_weights():
        empty = transformers.LlamaForCausalLM(model.config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = load_checkpoint_and_dispatch(
            empty, str(path), device_map={"": "cpu"}, dtype=torch.bfloat16
        )
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, model.get_parameter(name)), name


# --- Which name is bound where --------------------------------------------------------------------


def test_the_modules_that_were_imported_before_have_it() -> None:
    import accelerate.utils.modeling
    import accelerate.utils.offload
    import transformers.integrations.accelerate
    import transformers.modeling_layers
    import transformers.modeling_utils

    modules = [
        accelerate.utils.modeling,
        accelerate.utils.offload,
        transformers.integrations.accelerate,
        transformers.modeling_layers,
        transformers.modeling_utils,
    ]
    ours = safetensors.safe_open
    assert all(module.safe_open is ours for module in modules)
    z4ai.disable_hf()
    assert all(module.safe_open is safetensors.safe_open is not ours for module in modules)
    z4ai.enable_hf()


def test_loading_decodes_each_tensor_once(a_llama: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, folder = a_llama
    opened: list[SafeOpen] = []
    remember = SafeOpen.__init__

    def init(self: SafeOpen, *args: Any, **options: Any) -> None:
        remember(self, *args, **options)
        opened.append(self)
        self.archives = self._archive  # type: ignore[attr-defined]

    monkeypatch.setattr(SafeOpen, "__init__", init)
    load(transformers.AutoModelForCausalLM, folder / "single")
    reads = [file for file in opened if file.archives.n_chunks]  # type: ignore[attr-defined]
    assert len(reads) == 1
    n_tensors = len(reads[0].archives.tensors)  # type: ignore[attr-defined]
    # each tensor is less than a chunk, and some share one: read each time one of them is wanted
    assert reads[0].archives.n_chunks == n_tensors  # type: ignore[attr-defined]


def test_without_it_the_error_is_that_of_safetensors(a_llama: Any) -> None:
    """What a user without z4ai sees: the guide of Hugging Face quotes it."""
    _, folder = a_llama
    z4ai.disable_hf()
    with pytest.raises(safetensors.SafetensorError, match="header too large"):
        load(transformers.AutoModelForCausalLM, folder / "single")
    z4ai.enable_hf()
