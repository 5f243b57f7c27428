"""Pairs of models, one of which came of the other: those of the corpus, and some made of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import data

__all__ = ["STRAIGHT", "Goal", "Pair", "pairs"]

SUFFIX = ".safetensors"
# A pair that others are held against: what they change must not cost.
STRAIGHT = {"": "minilm_ft.step040", ".bf16": "minilm_ft.step040.bf16"}
STEPS = (0, 50, 100, 150, 200, 400, 450, 500)


class Goal(NamedTuple):
    """What is asked of the size of a delta; None: nothing."""

    ratio: float | None = None  # of the target to its delta
    against_best: float | None = None  # smallest rival to z4ai
    straight: tuple[str, float] | None = None  # share of the ratio of another pair
    within: int | None = None  # bytes, beside the header
    unrelated: bool = False  # not above the target alone, 256 bytes, and 2 bits a tensor


class Pair(NamedTuple):
    """A target, the base it is coded against, and what is asked of it."""

    name: str
    group: str
    target: Path
    base: Path
    goal: Goal = Goal()


class Tensor(NamedTuple):
    dtype: str
    shape: tuple[int, ...]
    content: bytes


Model = dict[str, Tensor]  # in file order
Matrix = NDArray[np.float64]


# --- Models as dictionaries -------------------------------------------------------------------


def read(path: Path) -> Model:
    """Read the tensors of a file, in file order."""
    raw = path.read_bytes()
    return {name: Tensor(t, shape, raw[a:b]) for name, t, shape, a, b in data.tensors(path)}


def write(path: Path, model: Model) -> Path:
    """Write a file that holds the tensors in that order."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    begin = 0
    for name, tensor in model.items():
        end = begin + len(tensor.content)
        offsets = [begin, end]
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.writelines(tensor.content for tensor in model.values())
    return path


def words(tensor: Tensor) -> NDArray[np.unsignedinteger]:
    """Give the elements as they are, in their shape."""
    width = {"F32": 4, "BF16": 2}[tensor.dtype]
    return np.frombuffer(tensor.content, f"<u{width}").reshape(tensor.shape)


def values(tensor: Tensor) -> Matrix:
    """Give the elements as numbers."""
    if tensor.dtype == "F32":
        return words(tensor).view(np.float32).astype(np.float64)
    wide = words(tensor).astype(np.uint32) << np.uint32(16)
    return wide.view(np.float32).astype(np.float64)


def in_bf16(x: Matrix) -> Tensor:
    """Round to bf16."""
    return Tensor("BF16", x.shape, data.bf16(x.astype(np.float32)).tobytes())


# --- Models made of others --------------------------------------------------------------------


def renamed(model: Model) -> Model:
    """Give each tensor a name that says nothing, and another place."""
    order = np.random.default_rng(1).permutation(len(model))
    names = list(model)
    return {f"p{number:04d}": model[names[k]] for number, k in enumerate(order)}


def fused(model: Model) -> Model:
    """Join query, key and value of each layer, as other programs store them."""
    found: Model = {}
    for name, tensor in model.items():
        stem, _, part = name.partition(".self.")
        kind, _, what = part.partition(".")
        if kind == "query":
            parts = [model[f"{stem}.self.{k}.{what}"] for k in ("query", "key", "value")]
            shape = (3 * tensor.shape[0], *tensor.shape[1:])
            content = b"".join(p.content for p in parts)
            found[f"{stem}.self.qkv.{what}"] = Tensor(tensor.dtype, shape, content)
        elif kind not in ("key", "value"):
            found[name] = tensor
    return found


def transposed(model: Model) -> Model:
    """Transpose every matrix of a layer, square ones as well."""

    def turned(name: str, tensor: Tensor) -> Tensor:
        if len(tensor.shape) != 2 or ".layer." not in name:
            return tensor
        return Tensor(tensor.dtype, tensor.shape[::-1], words(tensor).T.tobytes())

    return {name: turned(name, tensor) for name, tensor in model.items()}


def merged(base: Model, plain: Model, adapted: Model, rank: int = 16) -> Model:
    """Merge an adapter in bf16: of rank `rank`, seeded, as large as that of `adapted`."""
    rng = np.random.default_rng(0)
    found: Model = {}
    for name, tensor in base.items():
        if plain[name] == adapted[name]:
            found[name] = tensor
            continue
        rows, columns = tensor.shape
        product = rng.standard_normal((rows, rank)) @ rng.standard_normal((rank, columns))
        wanted = np.linalg.norm(values(adapted[name]) - values(plain[name]))
        step = in_bf16(product * (wanted / np.linalg.norm(product)))
        found[name] = in_bf16(values(tensor) + values(step))
    return found


# --- The pairs --------------------------------------------------------------------------------


def pairs(corpus: Path, folder: Path) -> Iterator[Pair]:
    """Yield the pairs of a corpus, quick ones first; what is made for them lands in `folder`."""

    def at(name: str) -> Path:
        return corpus / f"{name}{SUFFIX}"

    def made(name: str, make: Callable[[], Model]) -> Path:
        path = folder / f"{name}{SUFFIX}"
        return path if path.exists() else write(path, make())

    def of(name: str) -> Model:
        return read(at(name))

    run = "train/bytellama"
    for dtype in (".bf16", ""):
        for a, b in pairwise(STEPS):
            target, base = at(f"{run}/step{b:05d}{dtype}"), at(f"{run}/step{a:05d}{dtype}")
            goal = Goal(against_best=1.0)
            yield Pair(f"bytellama{dtype} {a} → {b}", "training", target, base, goal)
    for dtype in (".bf16", ""):
        for step in ("005", "040"):
            goal = {
                "005.bf16": Goal(against_best=1.25),
                "040.bf16": Goal(ratio=13.3),
                "005": Goal(ratio=3.2),
            }.get(step + dtype, Goal())
            name = f"minilm_ft.step{step}{dtype}"
            yield Pair(name, "fine-tune", at(name), at(f"minilm{dtype}"), goal)
    yield Pair("minilm_lora.bf16", "LoRA", at("minilm_lora.bf16"), at("minilm.bf16"), Goal(60.0))
    make = lambda: merged(of("minilm.bf16"), of("minilm"), of("minilm_lora"))  # noqa: E731
    path = made("minilm_merged.bf16", make)
    yield Pair("rank 16, merged in bf16", "LoRA", path, at("minilm.bf16"), Goal(90.0))
    yield Pair("minilm_lora", "LoRA", at("minilm_lora"), at("minilm"), Goal(150.0))

    for dtype, straight in STRAIGHT.items():
        base, target = at(f"minilm{dtype}"), at(straight)

        def changed(
            what: str, change: Callable[[Model], Model], source: Path, dtype: str = dtype
        ) -> Path:
            return made(f"{source.name.removesuffix(SUFFIX)}.{what}", lambda: change(read(source)))

        held = Goal(straight=(straight, 0.95))
        kind = f"step 40{dtype}, "
        path = changed("renamed", renamed, base)
        yield Pair(f"minilm{dtype} renamed, moved", "structure", path, base, Goal(300.0))
        path = changed("fused", fused, target)
        yield Pair(f"{kind}q, k, v fused", "structure", path, base, held)
        path = changed("fused", fused, base)
        yield Pair(f"{kind}q, k, v split", "structure", target, path, held)
        path = changed("transposed", transposed, target)
        yield Pair(f"{kind}transposed", "structure", path, base, held)
    held = Goal(straight=(STRAIGHT[""], 0.97))
    yield Pair("minilm_struct", "structure", at("minilm_struct"), at("minilm"), held)

    step = f"{run}/step00500"
    yield Pair("bytellama 500 cast to bf16", "dtype", at(f"{step}.bf16"), at(step))
    target = at(f"{run}/adam.step00500")
    yield Pair("Adam state → weights", "unrelated", target, at(step), Goal(unrelated=True))
    for a, b in (("craft.bf16", "minilm.bf16"), ("minilm.bf16", "craft.bf16")):
        yield Pair(f"{a} → {b}", "unrelated", at(b), at(a), Goal(unrelated=True))
    for name in ("minilm.bf16", "minilm"):
        yield Pair(f"{name}, the same", "same", at(name), at(name), Goal(within=4096))
