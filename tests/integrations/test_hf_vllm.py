"""The calls by which vLLM reads `.safetensors` files, on containers.

vLLM itself is no requirement: what its loaders ask of safetensors is written down here, as its
release 0.30.0 does it. Each iterator says where it was read:

- `vllm/model_executor/model_loader/weight_utils.py`: the iterators, one file after another and by
  threads; which files of a folder count
- `vllm/model_executor/model_loader/sharded_state_loader.py`: files of one rank
- `vllm/model_executor/model_loader/bitsandbytes_loader.py`: parts of tensors for a rank
- `vllm/lora/lora_model.py`: adapters

What a rank takes of a tensor (`vllm/model_executor/layers/linear.py`: rows for a column-parallel
layer, columns for a row-parallel one) is asked of `get_slice` here: the chunks that are decoded are
counted.
"""

from __future__ import annotations

import concurrent.futures
import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hf_models import enabled  # noqa: F401 - a fixture
from safetensors.torch import load, load_file, safe_open  # the import of weight_utils.py

import z4ai

pytestmark = pytest.mark.usefixtures("enabled")

Weights = Iterator[tuple[str, torch.Tensor]]
CHUNK = 1 << 20  # bytes of a chunk of such a tensor


# --- weight_utils.py ------------------------------------------------------------------------------


def filter_duplicates(files: list[str], folder: str, index_file: str) -> list[str]:
    """`filter_duplicate_safetensors_files`: what the index names, if there is one."""
    path = os.path.join(folder, index_file)
    if not os.path.isfile(path):
        return files
    with open(path) as file:
        weight_map = json.load(file)["weight_map"]
    named = {os.path.join(folder, shard) for shard in weight_map.values()}
    return [name for name in files if name in named]


def lazy(files: list[str], skip: Any = lambda name: False) -> Weights:
    """`safetensors_weights_iterator`, strategies None, "lazy" and "prefetch"."""
    for path in sorted(files):
        with safe_open(path, framework="pt") as f:
            for name in f.keys():  # noqa: SIM118
                if skip(name):
                    continue
                yield name, f.get_tensor(name)


def eager(files: list[str]) -> Weights:
    """The same, strategy "eager": for network file systems."""
    for path in sorted(files):
        with open(path, "rb") as f:
            state = load(f.read())
        yield from state.items()


def torchao(files: list[str]) -> Weights:
    """The same, strategy "torchao", which wants the metadata too."""
    for path in sorted(files):
        with safe_open(path, framework="pt") as f:
            state = {}
            for name in f.keys():  # noqa: SIM118
                state[name] = f.get_tensor(name)
            assert f.metadata() == {"format": "pt"}
        yield from state.items()


def prefetched(files: list[str]) -> Weights:
    """`_prefetch_checkpoint` reads each file through before."""
    for path in files:
        with open(path, "rb") as f:
            while f.read(1 << 24):
                pass
    return lazy(files)


def by_threads(files: list[str]) -> Weights:
    """`multi_thread_safetensors_weights_iterator`."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as executor:
        futures = (executor.submit(load_file, path, device="cpu") for path in files)
        for future in concurrent.futures.as_completed(futures):
            state = future.result()
            for key in list(state):
                yield key, state.pop(key)


# --- sharded_state_loader.py, lora_model.py -------------------------------------------------------


def of_a_rank(files: list[str]) -> Weights:
    """`ShardedStateLoader.iterate_over_files`, which imports where it reads."""
    from safetensors.torch import safe_open

    for path in files:
        with safe_open(path, framework="pt") as f:
            for key in f.keys():  # noqa: SIM118
                yield key, f.get_tensor(key)


def of_an_adapter(files: list[str]) -> Weights:
    """`LoRAModel.from_local_checkpoint`, by the name of the package."""
    for path in files:
        with safetensors.safe_open(path, framework="pt") as f:  # type: ignore[attr-defined]
            for module in f.keys():  # noqa: SIM118
                yield module, f.get_tensor(module)


ITERATORS = [lazy, eager, torchao, prefetched, by_threads, of_a_rank, of_an_adapter]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    found = {
        f"model.layers.{k}.mlp.{name}.weight": (torch.randn(shape) * 0.02).bfloat16()
        for k in range(3)
        for name, shape in [("up_proj", (160, 64)), ("down_proj", (64, 160))]
    }
    found |= {f"model.layers.{k}.norm.weight": torch.ones(64).bfloat16() for k in range(3)}
    found |= {
        f"model.layers.1.mlp.experts.{k}.w1.weight": torch.randn(32, 64).bfloat16()
        for k in range(8)
    }
    found["scale"] = torch.tensor(0.5)
    found["packed"] = torch.randint(-(2**31), 2**31 - 1, (64, 20), dtype=torch.int32)
    found["fp8"] = torch.randn(64, 64).to(torch.float8_e4m3fn)
    return found


@pytest.fixture(scope="module")
def checkpoint(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three shards with their index, all compressed, and a file that the index does not name."""
    folder = tmp_path_factory.mktemp("checkpoint")
    names = list(tensors)
    weight_map = {}
    for k in range(3):
        shard = f"model-{k + 1:05}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[k::3]}
        z4ai.save_file(part, folder / shard, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(part, shard))
    z4ai.save_file(tensors, folder / "consolidated.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return str(folder)


def weight_files(folder: str) -> list[str]:
    files = glob.glob(os.path.join(folder, "*.safetensors"))
    assert len(files) == 4
    files = filter_duplicates(files, folder, "model.safetensors.index.json")
    assert len(files) == 3
    return files


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    a, b = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    return torch.equal(a, b)


@pytest.mark.parametrize("iterate", ITERATORS, ids=lambda iterate: iterate.__name__)
def test_every_weight_arrives_once(
    iterate: Any, checkpoint: str, tensors: dict[str, torch.Tensor]
) -> None:
    seen: dict[str, torch.Tensor] = {}
    for name, tensor in iterate(weight_files(checkpoint)):
        assert name not in seen
        assert tensor.device.type == "cpu"
        seen[name] = tensor
    assert seen.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert same_bits(seen[name], tensor), name


def test_experts_of_other_ranks_are_not_decoded(
    checkpoint: str, tensors: dict[str, torch.Tensor]
) -> None:
    """Expert parallelism: `should_skip_weight` goes by the name, before anything is read."""
    kept = {f"model.layers.1.mlp.experts.{k}.w1.weight" for k in range(4)}

    def skip(name: str) -> bool:
        return ".experts." in name and name not in kept

    files = weight_files(checkpoint)
    seen = dict(lazy(files, skip))
    assert seen.keys() == {name for name in tensors if not skip(name)}
    decoded = 0
    for path in files:
        with safe_open(path, framework="pt") as f:
            for name in f.keys():  # noqa: SIM118
                if not skip(name):
                    f.get_tensor(name)
            decoded += f._n_chunks
    assert decoded == len(seen)  # one chunk for each: none was decoded for another


# --- Tensor parallelism ---------------------------------------------------------------------------

ROWS, COLUMNS = 4096, 2048  # 16 MiB in bfloat16


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    torch.manual_seed(4)
    part = (torch.randn(512, COLUMNS) * 0.02).bfloat16()
    weight = torch.cat([part.roll(k, 1) * (1 + k / 8) for k in range(ROWS // 512)])
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    # no copies of earlier parts, which are restored as a whole
    z4ai.save_file({"w": weight, "small": weight[:4]}, path, effort="fast")
    return path, weight


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_rows_of_a_rank_cost_its_chunks(large: tuple[Path, torch.Tensor], ranks: int) -> None:
    """A column-parallel layer: `narrow(0, rank * size, size)` of the loaded weight."""
    path, weight = large
    size = ROWS // ranks
    for rank in range(ranks):
        with safe_open(path, framework="pt") as f:
            part = f.get_slice("w")
            assert part.get_shape() == [ROWS, COLUMNS]
            assert part.get_dtype() == "BF16"
            mine = part[rank * size : (rank + 1) * size]
            assert same_bits(mine, weight[rank * size : (rank + 1) * size])
            nbytes = size * COLUMNS * 2
            assert f._n_chunks == -(-nbytes // CHUNK)  # the parts begin where chunks do


@pytest.mark.parametrize("ranks", [2, 4])
def test_columns_of_a_rank_decode_each_chunk_once(
    large: tuple[Path, torch.Tensor], ranks: int
) -> None:
    """A row-parallel layer: every row gives a part, so every chunk is needed, but once."""
    path, weight = large
    size = COLUMNS // ranks
    for rank in range(ranks):
        with safe_open(path, framework="pt") as f:
            mine = f.get_slice("w")[:, rank * size : (rank + 1) * size]
            assert same_bits(mine, weight[:, rank * size : (rank + 1) * size])
            assert f._n_chunks == ROWS * COLUMNS * 2 // CHUNK


def test_fused_weights_are_cut_for_each_part(large: tuple[Path, torch.Tensor]) -> None:
    """`bitsandbytes_loader.py`: q, k and v lie in one tensor; a rank takes a part of each."""
    path, weight = large
    sizes, ranks = [2048, 1024, 1024], 2
    starts = [0, 2048, 3072]
    for rank in range(ranks):
        with safe_open(path, framework="pt") as f:
            fused = f.get_slice("w")
            cut = [
                (start + size // ranks * rank, start + size // ranks * (rank + 1))
                for start, size in zip(starts, sizes, strict=True)
            ]
            mine = torch.cat([fused[begin:end, ...] for begin, end in cut], dim=0)
            assert same_bits(mine, torch.cat([weight[begin:end] for begin, end in cut]))
            assert f._n_chunks == ROWS // ranks * COLUMNS * 2 // CHUNK


def test_a_slice_becomes_a_tensor(large: tuple[Path, torch.Tensor]) -> None:
    """`convert_pyslice_to_tensor`: `x[:]` of whatever is no tensor yet."""
    path, weight = large
    with safe_open(path, framework="pt") as f:
        lazily = f.get_slice("w")
        assert not isinstance(lazily, torch.Tensor)
        assert same_bits(lazily[:], weight)


def test_ranks_read_one_file_at_once(large: tuple[Path, torch.Tensor]) -> None:
    path, weight = large

    def read(rank: int) -> bool:
        with safe_open(path, framework="pt") as f:
            mine = f.get_slice("w")[rank * 512 : (rank + 1) * 512]
            return same_bits(mine, weight[rank * 512 : (rank + 1) * 512])

    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as executor:
        assert all(executor.map(read, range(8)))
