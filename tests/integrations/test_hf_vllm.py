"""The calls by which vLLM reads `.safetensors` files, on containers.

vLLM itself is no requirement: what its release 0.33.0 asks of safetensors is written down here in
other words, each iterator with the place that it stands for. All of these places are below
`vllm/`:

- `model_executor/model_loader/weight_utils.py`: one file after another by each strategy, by
  threads, tables for the CPU; which files of a folder count
- `model_executor/model_loader/sharded_state_loader.py`: files of one rank
- `lora/lora_model.py`: adapters
- `model_executor/models/jina.py`, `adapters.py`: small files as bytes; `mimo_audio.py`: a tokenizer
- `distributed/kv_transfer/kv_connector/v1/example_connector.py`,
  `example_hidden_states_connector.py`, `distributed/ec_transfer/ec_connector/example_connector.py`:
  caches, which vLLM writes itself
- `transformers_utils/utils.py`: headers, read without safetensors, to learn whether there is an
  `lm_head` (`transformers_utils/config.py`, `config/model.py`) and what dtype weights have
  (`model_arch_config_convertor.py`, the layers of AWQ and GPTQ)

A rank takes its part of a tensor that was read whole (`model_executor/parameter.py`,
`layers/linear.py`): the chunks that are decoded are counted. vLLM calls `get_slice` nowhere any
more; loaders that others register with it may, so that stays here as well.

What reads files by code of its own and gets an error from a container (`docs/guides/huggingface.md`
has the list): `fastsafetensors`, `runai_streamer`, `instanttensor`, and the fingerprint that
`weight_cache/protocol.py` takes of a header. `drop_checkpoint_cache` and `_prefetch_checkpoint` do
not care what a file holds.
"""

from __future__ import annotations

import concurrent.futures
import glob
import importlib.metadata
import json
import os
import re
import struct
import sys
import threading
import types
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
from z4ai.errors import FormatError
from z4ai.integrations._archive import Archive
from z4ai.integrations.huggingface import enable_in_vllm
from z4ai.safetensors import compress_file

pytestmark = pytest.mark.usefixtures("enabled")

Weights = Iterator[tuple[str, torch.Tensor]]
CHUNK = 1 << 20  # bytes of a chunk of such a tensor
INDEX = "model.safetensors.index.json"


class Decoded:
    """Counts the chunks that are decoded, whoever opens the files."""

    n_chunks = 0


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    found = Decoded()
    count = Archive.count

    def counting(archive: Archive, decoder: Any) -> None:
        found.n_chunks += decoder.n_chunks
        count(archive, decoder)

    monkeypatch.setattr(Archive, "count", counting)
    return found


# --- weight_utils.py: which files -----------------------------------------------------------------


def filter_duplicates(files: list[str], folder: str, index_file: str) -> list[str]:
    """`filter_duplicate_safetensors_files`: what the index names, if there is one."""
    path = os.path.join(folder, index_file)
    if not os.path.isfile(path):
        return files
    with open(path) as file:
        weight_map = json.load(file)["weight_map"]
    named = {os.path.join(folder, shard) for shard in weight_map.values()}
    if not named <= set(files):
        raise FileNotFoundError(named - set(files))
    return [name for name in files if name in named]


def filter_by_name(files: list[str], is_unused: Any) -> list[str]:
    """`filter_safetensors_files_by_weight_name`: opens each file for its names alone."""
    kept = []
    for path in files:
        with safe_open(path, framework="pt") as f:
            if not all(is_unused(name) for name in f.keys()):  # noqa: SIM118
                kept.append(path)
    return kept or files


def by_number(path: str) -> list[Any]:
    """`_natural_sort_key`."""
    parts = re.split(r"(\d+)", os.path.basename(path))
    return [int(part) if part.isdigit() else part for part in parts]


def skip(name: str, local: set[int] | None) -> bool:
    """`should_skip_weight` of `ep_weight_filter.py`: experts of other ranks, but no scales."""
    expert = re.search(r"\.experts\.(\d+)\.", name)
    if local is None or expert is None or not name.endswith((".weight", ".weight_packed")):
        return False
    return int(expert[1]) not in local


# --- weight_utils.py: iterators -------------------------------------------------------------------


def lazy(files: list[str], local: set[int] | None = None) -> Weights:
    """`safetensors_weights_iterator`, strategies None and "lazy"."""
    for path in sorted(files, key=by_number):
        with safe_open(path, framework="pt") as f:
            for name in f.keys():  # noqa: SIM118
                if not skip(name, local):
                    yield name, f.get_tensor(name)


def prefetched(files: list[str], local: set[int] | None = None) -> Weights:
    """The same, strategy "prefetch", chosen by itself on NFS: a thread reads ahead of it."""

    def read_ahead() -> None:
        for path in files:
            with open(path, "rb") as f:
                while f.read(1 << 24):
                    pass

    thread = threading.Thread(target=read_ahead)
    thread.start()
    yield from lazy(files, local)
    thread.join()


def eager(files: list[str], local: set[int] | None = None) -> Weights:
    """The same, strategy "eager": experts of others are left out when all is decoded."""
    for path in sorted(files, key=by_number):
        with open(path, "rb") as f:
            state = load(f.read())
        for name, tensor in state.items():
            if not skip(name, local):
                yield name, tensor


def torchao(files: list[str], local: set[int] | None = None) -> Weights:
    """The same, strategy "torchao": metadata says what belongs together, maybe in other files."""
    left: dict[str, torch.Tensor] = {}
    for path in sorted(files, key=by_number):
        with safe_open(path, framework="pt") as f:
            state = {}
            for name in f.keys():  # noqa: SIM118
                if not skip(name, local):
                    state[name] = f.get_tensor(name)
            state.update(left)
            complete, left = put_together(state, f.metadata())
        yield from complete.items()
    assert not left


def put_together(
    state: dict[str, torch.Tensor], metadata: dict[str, str]
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """In the place of torchao's `unflatten_tensor_state_dict`: tensors with all of their parts."""
    missing = {
        name
        for parts in json.loads(metadata["parts"])
        if not set(parts) <= state.keys()
        for name in parts
    }
    complete = {name: state[name] for name in state if name not in missing}
    return complete, {name: state[name] for name in state if name in missing}


def by_threads(files: list[str]) -> Weights:
    """`multi_thread_safetensors_weights_iterator`."""
    with concurrent.futures.ThreadPoolExecutor(max_workers=8) as executor:
        futures = (executor.submit(load_file, path, device="cpu") for path in files)
        for future in concurrent.futures.as_completed(futures):
            state = future.result()
            for key in list(state):
                yield key, state.pop(key)


def tables_on_cpu(files: list[str]) -> Weights:
    """`instanttensor_weights_iterator`, what it does by safetensors: all names, then the tables."""
    found: dict[str, list[str]] = {}
    for path in files:
        with safe_open(path, framework="pt") as metadata:
            for name in metadata.keys():  # noqa: SIM118
                found.setdefault(path, []).append(name)
    for path, names in found.items():
        with safe_open(path, framework="pt", device="cpu") as f:
            for name in names:
                yield name, f.get_tensor(name)


# --- Elsewhere in vLLM ----------------------------------------------------------------------------


def of_a_rank(files: list[str]) -> Weights:
    """`ShardedStateLoader.iterate_over_files`, which imports where it reads."""
    from safetensors.torch import safe_open

    for path in files:
        with safe_open(path, framework="pt") as f:
            for key in f.keys():  # noqa: SIM118
                tensor = f.get_tensor(key)
                yield key, tensor


def of_an_adapter(files: list[str], local: set[int] | None = None) -> Weights:
    """`LoRAModel.from_local_checkpoint`: by the name of the package, all names looked at first."""

    def check(modules: Any) -> None:
        for name in modules.keys():  # noqa: SIM118
            assert isinstance(name, str)

    for path in files:
        tensors = {}
        with safetensors.safe_open(path, framework="pt") as f:  # type: ignore[attr-defined]
            check(f)
            for module in f.keys():  # noqa: SIM118
                if not skip(module, local):
                    tensors[module] = f.get_tensor(module)
        yield from tensors.items()


def of_a_module(files: list[str]) -> Weights:
    """`_load_adapter` of `jina.py`, `_load_dense_weights` of `adapters.py`: bytes of a file."""
    from safetensors.torch import load as load_safetensors

    for path in files:
        yield from load_safetensors(Path(path).read_bytes()).items()


def of_a_tokenizer(files: list[str]) -> Weights:
    """`_load_audio_tokenizer` of `mimo_audio.py`, `load_hidden_states` of the connectors."""
    from safetensors.torch import load_file

    for path in files:
        yield from load_file(path, device="cpu").items()


def of_a_cache(files: list[str]) -> Weights:
    """`start_load_kv` of the example connectors: by attributes, one tensor of the file."""
    for path in files:
        for name in safetensors.torch.load_file(path):
            yield name, safetensors.torch.load_file(path)[name]


ITERATORS = [
    lazy,
    prefetched,
    eager,
    torchao,
    by_threads,
    tables_on_cpu,
    of_a_rank,
    of_an_adapter,
    of_a_module,
    of_a_tokenizer,
    of_a_cache,
]


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    found = {
        f"model.layers.{k}.mlp.{name}.weight": (torch.randn(shape) * 0.02).bfloat16()
        for k in range(3)
        for name, shape in [("up_proj", (160, 64)), ("down_proj", (64, 160))]
    }
    found |= {f"model.layers.{k}.norm.weight": torch.ones(64).bfloat16() for k in range(3)}
    for k in range(8):
        found[f"model.layers.1.mlp.experts.{k}.w1.weight"] = torch.randn(32, 64).bfloat16()
        found[f"model.layers.1.mlp.experts.{k}.w1.weight_scale"] = torch.rand(32)
    found["scale"] = torch.tensor(0.5)
    found["packed"] = torch.randint(-(2**31), 2**31 - 1, (64, 20), dtype=torch.int32)
    found["fp8"] = torch.randn(64, 64).to(torch.float8_e4m3fn)
    found["lm_head.weight"] = torch.randn(50, 64).bfloat16()
    return found


@pytest.fixture(scope="module")
def checkpoint(tensors: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three shards with their index, all compressed, and a file that the index does not name."""
    folder = tmp_path_factory.mktemp("checkpoint")
    metadata = {"format": "pt", "parts": json.dumps([["packed", "scale"], ["fp8"]])}
    names = list(tensors)
    weight_map = {}
    for k in range(3):
        shard = f"model-{k + 1:05}-of-00003.safetensors"
        part = {name: tensors[name] for name in names[k::3]}
        z4ai.save_file(part, folder / shard, metadata=metadata)
        weight_map.update(dict.fromkeys(part, shard))
    assert weight_map["packed"] != weight_map["scale"]
    z4ai.save_file(tensors, folder / "consolidated.safetensors", metadata=metadata)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return str(folder)


def weight_files(folder: str) -> list[str]:
    files = glob.glob(os.path.join(folder, "*.safetensors"))
    assert len(files) == 4
    files = filter_duplicates(files, folder, INDEX)
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


@pytest.mark.parametrize(
    "iterate", [lazy, prefetched, eager, torchao, of_an_adapter], ids=lambda f: f.__name__
)
def test_experts_of_other_ranks_are_left_out(
    iterate: Any, checkpoint: str, tensors: dict[str, torch.Tensor], decoded: Decoded
) -> None:
    """Expert parallelism: it goes by the name; nothing is decoded in vain where files are lazy."""
    local = {0, 1, 2, 3}
    kept = {name for name in tensors if not skip(name, local)}
    assert len(kept) == len(tensors) - 4
    seen = dict(iterate(weight_files(checkpoint), local))
    assert seen.keys() == kept
    for name in kept:
        assert same_bits(seen[name], tensors[name]), name
    if iterate is not eager:
        assert decoded.n_chunks == len(kept)  # one chunk each: none was decoded for another


def test_files_without_a_wanted_name_are_found_by_their_index_alone(
    checkpoint: str, tensors: dict[str, torch.Tensor], decoded: Decoded
) -> None:
    files = weight_files(checkpoint)
    of_scale = filter_by_name(files, lambda name: name != "scale")
    assert len(of_scale) == 1
    assert "scale" in dict(lazy(of_scale))
    before = decoded.n_chunks
    assert filter_by_name(files, lambda name: False) == files
    assert filter_by_name(files, lambda name: True) == files
    assert decoded.n_chunks == before < len(tensors)


# --- Headers, read without safetensors ------------------------------------------------------------


class Vllm:
    """Modules of vLLM that read headers: one defines the reader, the other imported it by name."""

    def __init__(self) -> None:
        self.utils = types.ModuleType("vllm.transformers_utils.utils")
        self.config = types.ModuleType("vllm.transformers_utils.config")

        def parse_safetensors_file_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
            with open(path, "rb") as f:
                (nbytes,) = struct.unpack("<Q", f.read(8))
                if nbytes > os.path.getsize(path):
                    raise MemoryError(nbytes)  # what reading so many bytes comes to
                found: dict[str, Any] = json.loads(f.read(nbytes).decode("utf-8"))
                return found

        self.original = parse_safetensors_file_metadata
        for module in (self.utils, self.config):
            vars(module)["parse_safetensors_file_metadata"] = self.original

    def headers(self, folder: str) -> dict[str, Any]:
        """`get_safetensors_params_metadata` of a folder."""
        read = vars(self.config)["parse_safetensors_file_metadata"]
        return {
            name: row
            for path in Path(folder).glob("*.safetensors")
            for name, row in read(path).items()
        }


@pytest.fixture
def vllm(monkeypatch: pytest.MonkeyPatch) -> Vllm:
    found = Vllm()
    for module in (found.utils, found.config):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return found


def test_vllm_learns_names_and_dtypes_before_it_loads(
    vllm: Vllm, checkpoint: str, tensors: dict[str, torch.Tensor]
) -> None:
    with pytest.raises(MemoryError):
        vllm.headers(checkpoint)  # vLLM came after `enable_hf`, and the plugin did not yet
    enable_in_vllm()
    found = vllm.headers(checkpoint)
    assert found.keys() - {"__metadata__"} == tensors.keys()
    # `checkpoint_has_lm_head`, asked for each model whose embeddings are tied
    assert any(name.endswith("lm_head.weight") for name in found)
    # `get_torch_dtype`, `maybe_update_config`
    dtypes = {name: row.get("dtype") for name, row in found.items()}
    assert dtypes["scale"] == "F32"
    assert dtypes["packed"] == "I32"
    assert dtypes["lm_head.weight"] == "BF16"
    assert dtypes["__metadata__"] is None
    z4ai.disable_hf()
    assert vars(vllm.utils)["parse_safetensors_file_metadata"] is vllm.original
    with pytest.raises(MemoryError):
        vllm.headers(checkpoint)


def test_vllm_may_be_imported_before(vllm: Vllm, checkpoint: str) -> None:
    z4ai.enable_hf()
    assert "scale" in vllm.headers(checkpoint)
    for module in (vllm.utils, vllm.config):
        assert vars(module)["parse_safetensors_file_metadata"] is not vllm.original
    new = vars(vllm.utils)["parse_safetensors_file_metadata"]
    enable_in_vllm()
    assert vars(vllm.utils)["parse_safetensors_file_metadata"] is new


def test_the_header_is_that_of_the_plain_file(
    vllm: Vllm, tensors: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    plain, small = tmp_path / "plain.safetensors", tmp_path / "small.safetensors"
    safetensors.torch.save_file(tensors, plain, metadata={"format": "pt"})
    compress_file(plain, small)
    z4ai.enable_hf()
    read = vars(vllm.config)["parse_safetensors_file_metadata"]
    assert read(small) == read(plain) == vllm.original(plain)
    damaged = bytearray(small.read_bytes())
    damaged[-40] ^= 1
    small.write_bytes(damaged)
    with pytest.raises(FormatError):
        read(small)


def test_the_plugin_alone_enables_nothing(vllm: Vllm, checkpoint: str) -> None:
    z4ai.disable_hf()
    enable_in_vllm()
    assert not z4ai.is_enabled()
    assert vars(vllm.utils)["parse_safetensors_file_metadata"] is vllm.original


@pytest.mark.skipif("Z4AI_TEST_INSTALLED" not in os.environ, reason="needs an installed package")
def test_vllm_finds_the_plugin() -> None:
    (plugin,) = importlib.metadata.entry_points(group="vllm.general_plugins", name="z4ai")
    assert plugin.load() is enable_in_vllm


# --- Tensor parallelism ---------------------------------------------------------------------------

ROWS, COLUMNS = 4096, 2048  # 16 MiB in bfloat16
N_CHUNKS = ROWS * COLUMNS * 2 // CHUNK


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    torch.manual_seed(4)
    part = (torch.randn(512, COLUMNS) * 0.02).bfloat16()
    weight = torch.cat([part.roll(k, 1) * (1 + k / 8) for k in range(ROWS // 512)])
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    # no copies of earlier parts, which are restored as a whole
    z4ai.save_file({"w": weight}, path, effort="fast")
    return path, weight


@pytest.mark.parametrize("dim", [0, 1], ids=["rows", "columns"])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_a_rank_cuts_its_part_out_of_a_whole_tensor(
    large: tuple[Path, torch.Tensor], ranks: int, dim: int, decoded: Decoded
) -> None:
    """`load_column_parallel_weight`, `load_row_parallel_weight`, `VocabParallelEmbedding`."""
    path, weight = large
    size = weight.shape[dim] // ranks
    for rank in range(ranks):
        before = decoded.n_chunks
        ((_, loaded),) = lazy([str(path)])
        mine = torch.empty_like(weight.narrow(dim, 0, size).contiguous())
        mine.copy_(loaded.narrow(dim, rank * size, size))
        assert same_bits(mine, weight.narrow(dim, rank * size, size))
        assert decoded.n_chunks - before == N_CHUNKS  # each once, whichever part is wanted


def test_fused_weights_are_cut_for_each_part(
    large: tuple[Path, torch.Tensor], decoded: Decoded
) -> None:
    """`QKVParallelLinear.weight_loader`: q, k and v lie in one tensor; a rank takes of each."""
    path, weight = large
    sizes, starts, ranks = [2048, 1024, 1024], [0, 2048, 3072], 2
    for rank in range(ranks):
        before = decoded.n_chunks
        ((_, loaded),) = lazy([str(path)])
        mine = torch.empty(ROWS // ranks, COLUMNS, dtype=weight.dtype)
        for start, size in zip(starts, sizes, strict=True):
            part = loaded.narrow(0, start, size)
            count = size // ranks
            mine.narrow(0, start // ranks, count).copy_(part.narrow(0, rank * count, count))
        begins = [start + rank * size // ranks for start, size in zip(starts, sizes, strict=True)]
        expected = [weight[at : at + n // ranks] for at, n in zip(begins, sizes, strict=True)]
        assert same_bits(mine, torch.cat(expected))
        assert decoded.n_chunks - before == N_CHUNKS


def test_ranks_read_one_file_at_once(large: tuple[Path, torch.Tensor]) -> None:
    path, weight = large

    def read(rank: int) -> bool:
        ((_, loaded),) = lazy([str(path)])
        return same_bits(loaded.narrow(0, rank * 512, 512), weight.narrow(0, rank * 512, 512))

    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as executor:
        assert all(executor.map(read, range(8)))


# --- get_slice, which vLLM no more calls itself: loaders of `register_model_loader` ---------------


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_rows_of_a_rank_cost_its_chunks(large: tuple[Path, torch.Tensor], ranks: int) -> None:
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
    """Every row gives a part, so every chunk is needed, but once."""
    path, weight = large
    size = COLUMNS // ranks
    for rank in range(ranks):
        with safe_open(path, framework="pt") as f:
            mine = f.get_slice("w")[:, rank * size : (rank + 1) * size]
            assert same_bits(mine, weight[:, rank * size : (rank + 1) * size])
            assert f._n_chunks == N_CHUNKS


def test_parts_of_fused_weights_cost_their_chunks(large: tuple[Path, torch.Tensor]) -> None:
    path, weight = large
    sizes, starts, ranks = [2048, 1024, 1024], [0, 2048, 3072], 2
    for rank in range(ranks):
        with safe_open(path, framework="pt") as f:
            fused = f.get_slice("w")
            cut = [
                (start + size // ranks * rank, start + size // ranks * (rank + 1))
                for start, size in zip(starts, sizes, strict=True)
            ]
            mine = torch.cat([fused[begin:end, ...] for begin, end in cut], dim=0)
            assert same_bits(mine, torch.cat([weight[begin:end] for begin, end in cut]))
            assert f._n_chunks == N_CHUNKS // ranks


def test_a_slice_becomes_a_tensor(large: tuple[Path, torch.Tensor]) -> None:
    path, weight = large
    with safe_open(path, framework="pt") as f:
        lazily = f.get_slice("w")
        assert not isinstance(lazily, torch.Tensor)
        assert same_bits(lazily[:], weight)
