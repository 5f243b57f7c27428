"""Folders of models: generated, of every shape that loaders know; and what is in a folder."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

from checkpoints import checkpoint
from model_pairs import file_of, tensor


def weights(seed: int, *names: str, n: int = 96) -> bytes:
    """A small `.safetensors` file."""
    return file_of([tensor(name, "BF16", (n, 32), seed + k) for k, name in enumerate(names)])


def index_of(shards: dict[str, list[str]], **metadata: object) -> bytes:
    """An index, as `save_pretrained` writes it."""
    weight_map = {name: shard for shard, names in shards.items() for name in names}
    document = {"metadata": {"total_size": 1, **metadata}, "weight_map": weight_map}
    return (json.dumps(document, indent=2, sort_keys=True) + "\n").encode()


def write_all(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def single(folder: Path) -> None:
    files = {"config.json": b'{"model_type": "x"}', "tokenizer.json": b"{}", "modeling_x.py": b"#"}
    write_all(folder, files | {"model.safetensors": checkpoint("bf16", 0)})
    os.chmod(folder / "modeling_x.py", 0o755)
    os.chmod(folder / "model.safetensors", 0o600)


def shards(stem: str, n: int = 3, seed: int = 0) -> dict[str, bytes]:
    names = {f"{stem}-{k:05}-of-{n:05}.safetensors": [f"a.{k}", f"b.{k}"] for k in range(1, n + 1)}
    files = {name: weights(seed + k, *tensors) for k, (name, tensors) in enumerate(names.items())}
    return files | {f"{stem}.safetensors.index.json": index_of(names)}


def sharded(folder: Path) -> None:
    write_all(folder, {"config.json": b"{}", **shards("model")})


def pipeline(folder: Path) -> None:
    """As diffusers has them, with empty folders and an adapter."""
    files = {"model_index.json": b"{}", "scheduler/scheduler_config.json": b"{}"}
    files["unet/config.json"] = files["vae/config.json"] = b"{}"
    files |= {f"unet/{k}": v for k, v in shards("diffusion_pytorch_model", 2).items()}
    files["vae/diffusion_pytorch_model.safetensors"] = weights(9, "v")
    files["text_encoder/model.safetensors"] = weights(10, "t")
    files["text_encoder/model.fp16.safetensors"] = weights(11, "t")
    files["lora/adapter_model.safetensors"] = weights(12, "l")
    files["lora/adapter_config.json"] = b"{}"
    write_all(folder, files)
    (folder / "empty" / "inside").mkdir(parents=True)


def formats(folder: Path) -> None:
    """Other formats, unicode names, a second variant, an empty file, odd names."""
    files = {
        "pytorch_model.bin": b"PK" + bytes(9),
        "model.gguf": b"GGUF",
        "x.pt": b"",
        ".hidden": b"h",
    }
    files["modèle-重み.safetensors"] = weights(20, "重み")
    files["model.safetensors"] = weights(21, "m")
    files["consolidated.00.safetensors"] = weights(22, "c")
    files["nothing.safetensors"] = file_of([])
    files["naïve/наследие.json"] = "{}".encode("utf-16")
    fp16 = shards("model.fp16", 2, 30)
    fp16["model.safetensors.index.fp16.json"] = fp16.pop("model.fp16.safetensors.index.json")
    write_all(folder, files | fp16)


def odd_indexes(folder: Path) -> None:
    """Indexes that cannot be rewritten by replacing names alone, or are written otherwise."""
    name = "model-00001-of-00001.safetensors"
    trap = json.dumps({"metadata": {name: name}, "weight_map": {name: name}}).encode()
    write_all(folder / "trap", {name: weights(1, name), "model.safetensors.index.json": trap})
    escaped = (
        b'{"weight_map":\t{"a": "m\\u006fdel-00001-of-00001.safetensors"}, "z4ai": [NaN, 1e9]}'
    )
    write_all(folder / "escaped", {name: weights(2, "a"), "model.safetensors.index.json": escaped})
    plain = json.dumps({"weight_map": {"ü": "ä.safetensors", "b": "sub/b.safetensors"}})
    files = {"ä.safetensors": weights(3, "ü"), "sub/b.safetensors": weights(4, "b")}
    files["model.safetensors.index.json"] = plain.replace(" ", "\r\n ").encode()
    write_all(folder / "bare", files)


SHAPES: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (single, sharded, pipeline, formats, odd_indexes)
}


def snapshot(folder: Path | str, *, modes: bool = True) -> dict[str, object]:
    """Everything in a folder: content and mode of files, folders, where links lead."""
    found: dict[str, object] = {}
    for path in sorted(Path(folder).rglob("*")):
        name = str(path.relative_to(folder))
        mode = stat.S_IMODE(path.lstat().st_mode) if modes else None
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_dir():
            found[name] = mode
        else:
            found[name] = (path.read_bytes(), mode)
    return found
