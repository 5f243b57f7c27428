"""Models, pipelines and adapters of the real diffusers, out of folders that `compress_model` made.

What is compared is every bit of the weights, and images up to the last places: of what a kernel
does, those depend on where in memory weights begin, which differs between plain files as well.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hf_models import VARIANT, bits_of, enabled  # noqa: F401 - a fixture

import z4ai
from z4ai.integrations import SafeOpen

diffusers = pytest.importorskip("diffusers")

pytestmark = [
    pytest.mark.usefixtures("enabled"),
    # The configuration of a scheduler that is as it comes.
    pytest.mark.filterwarnings("ignore:(?s).*configuration file of this scheduler:FutureWarning"),
]

WEIGHTS, ADAPTER = "diffusion_pytorch_model", "pytorch_lora_weights.safetensors"


def unet() -> Any:
    torch.manual_seed(1)
    return diffusers.UNet2DModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
    )


def vae() -> Any:
    torch.manual_seed(2)
    return diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        block_out_channels=(32,),
        norm_num_groups=8,
        sample_size=16,
    )


def conditional_unet() -> Any:
    torch.manual_seed(3)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(32, 32),
        norm_num_groups=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=4,
    )


def compressed(path: Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4) == b"ZSTN"


@pytest.fixture(scope="module", params=[unet, vae], ids=["unet", "vae"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A model, and it in one file and in shards, plain and compressed."""
    model = request.param()
    folder = tmp_path_factory.mktemp("models")
    for name, options in [("single", {}), ("sharded", {"max_shard_size": "100KB"})]:
        model.save_pretrained(folder / name, **options)
        z4ai.compress_model(folder / name, folder / f"{name} small")
    single = sorted((folder / "single small").glob("*.safetensors"))
    assert [path.name for path in single] == [f"{WEIGHTS}.{VARIANT}.safetensors"]
    shards = sorted((folder / "sharded small").glob("*.safetensors"))
    assert len(shards) > 2
    assert all(map(compressed, single + shards))
    return model, folder


OPTIONS: dict[str, dict[str, Any]] = {
    "no option": {},
    "float16": {"torch_dtype": torch.float16},
    "without low_cpu_mem_usage": {"low_cpu_mem_usage": False},
    "without mmap": {"disable_mmap": True},
    "safetensors only": {"use_safetensors": True},
    "device_map": {"device_map": "cpu"},
}


# diffusers does not close what it reads as bytes
@pytest.mark.filterwarnings("ignore:.*:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", ["single", "sharded"])
@pytest.mark.parametrize("name", OPTIONS)
def test_each_option_does_what_it_does_to_plain_files(folders: Any, kind: str, name: str) -> None:
    model, folder = folders
    plain = type(model).from_pretrained(folder / kind, **OPTIONS[name])
    again, report = type(model).from_pretrained(
        folder / f"{kind} small", variant=VARIANT, output_loading_info=True, **OPTIONS[name]
    )
    assert not any(report.values()), report
    assert again.dtype == plain.dtype
    assert bits_of(again) == bits_of(plain)
    if name != "float16":
        assert bits_of(again) == bits_of(model)


def test_a_rank_reads_its_part(folders: Any) -> None:
    """`_load_shard_file_tp`: shapes of slices, parts of some tensors, the whole of others."""
    model, folder = folders
    with SafeOpen(folder / "single small" / f"{WEIGHTS}.{VARIANT}.safetensors", "pt") as f:
        for name, tensor in model.state_dict().items():
            lazily = f.get_slice(name)
            assert lazily.get_shape() == list(tensor.shape)
            assert torch.equal(lazily[...], tensor)
            for dim, extent in enumerate(tensor.shape):
                index = [slice(None)] * tensor.dim()
                index[dim] = slice(extent // 2, extent)
                assert torch.equal(lazily[tuple(index)].contiguous(), tensor[tuple(index)])


# --- Pipelines ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stable Diffusion with a text encoder of transformers: `plain`, `small`, `unnamed`."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("pipeline")
    words = ["<|startoftext|>", "<|endoftext|>", *"abc", *(f"{c}</w>" for c in "abc")]
    vocabulary = folder / "vocabulary"
    vocabulary.mkdir()
    (vocabulary / "vocab.json").write_text(json.dumps({w: k for k, w in enumerate(words)}))
    (vocabulary / "merges.txt").write_text("#version: 0.2\n")
    torch.manual_seed(4)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=16,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    whole = diffusers.StableDiffusionPipeline(
        vae=vae(),
        text_encoder=encoder,
        tokenizer=CLIPTokenizer.from_pretrained(vocabulary, model_max_length=16),
        unet=conditional_unet(),
        scheduler=diffusers.DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    whole.save_pretrained(folder / "plain")
    z4ai.compress_model(folder / "plain", folder / "small")
    z4ai.compress_model(folder / "plain", folder / "unnamed", variant=None)
    for name in ["small", "unnamed"]:
        files = list((folder / name).rglob("*.safetensors"))
        assert len(files) == 3
        assert all(map(compressed, files))
    return folder


def load(path: Path, variant: str | None = None) -> Any:
    found = diffusers.StableDiffusionPipeline.from_pretrained(path, variant=variant)
    found.set_progress_bar_config(disable=True)
    return found


def image(pipeline: Any) -> torch.Tensor:
    found = pipeline(
        "a b c",
        generator=torch.Generator().manual_seed(0),
        num_inference_steps=2,
        height=16,
        width=16,
        output_type="pt",
    ).images
    assert isinstance(found, torch.Tensor)
    return found


def bits_of_all(pipeline: Any) -> dict[str, Any]:
    return {name: bits_of(getattr(pipeline, name)) for name in ["unet", "vae", "text_encoder"]}


@pytest.mark.parametrize(("folder", "variant"), [("small", VARIANT), ("unnamed", None)])
def test_a_pipeline_loads_and_draws(pipeline: Path, folder: str, variant: str | None) -> None:
    plain, again = load(pipeline / "plain"), load(pipeline / folder, variant)
    assert bits_of_all(again) == bits_of_all(plain)
    torch.testing.assert_close(image(again), image(plain), rtol=0, atol=1e-4)


def test_adapters_and_embeddings_load_into_it(pipeline: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    from diffusers.utils import convert_state_dict_to_diffusers

    trained = load(pipeline / "plain")
    torch.manual_seed(5)
    trained.unet.add_adapter(
        peft.LoraConfig(r=4, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    layers = convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(trained.unet))
    trained.save_lora_weights(tmp_path / "lora", unet_lora_layers=layers)
    z4ai.compress_model(tmp_path / "lora", tmp_path / "small")
    assert compressed(tmp_path / "small" / ADAPTER)
    word = torch.randn(1, 32)
    z4ai.save_file({"<d>": word}, tmp_path / "small" / "learned_embeds.safetensors")

    plain, again = load(pipeline / "plain"), load(pipeline / "small", VARIANT)
    before = image(plain)
    plain.load_lora_weights(tmp_path / "lora")
    again.load_lora_weights(tmp_path / "small", weight_name=ADAPTER)
    assert bits_of(again.unet) == bits_of(plain.unet)
    torch.testing.assert_close(image(again), image(plain), rtol=0, atol=1e-4)
    assert not torch.allclose(image(again), before, rtol=0, atol=1e-2)

    again.load_textual_inversion(tmp_path / "small", weight_name="learned_embeds.safetensors")
    number = again.tokenizer.convert_tokens_to_ids("<d>")
    assert torch.equal(again.text_encoder.get_input_embeddings().weight[number], word[0])
