"""What align finds in models that were renamed, moved, cast, resized, joined, split, transposed.

The reference that an alignment describes is always compared with the base arrays themselves.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from align_models import NUMPY, Array, model, tuned, weights

from z4ai.align import (
    Alignment,
    ByName,
    align,
    check_alignment,
    model_digest,
    reference_of,
    tensor_digests,
)
from z4ai.align.elements import item_nbytes

HIDDEN = 96
LAYERS = 4


def layer(prefix: str, seed: int, dtype: str = "F32") -> dict[str, Array]:
    shapes: dict[str, tuple[int, ...]] = {
        "attn.q.weight": (HIDDEN, HIDDEN),
        "attn.k.weight": (HIDDEN, HIDDEN),
        "attn.v.weight": (HIDDEN, HIDDEN),
        "attn.q.bias": (HIDDEN * 2,),
        "mlp.up.weight": (4 * HIDDEN, HIDDEN),
        "mlp.down.weight": (HIDDEN, 4 * HIDDEN),
    }
    found = {
        f"{prefix}.{name}": weights(shape, 40 * seed + k, dtype)
        for k, (name, shape) in enumerate(shapes.items())
    }
    found[f"{prefix}.norm.weight"] = np.ones(HIDDEN, NUMPY[dtype])
    return found


def network(dtype: str = "F32", seed: int = 1) -> dict[str, Array]:
    found = {"embed.weight": weights((500, HIDDEN), 900 + seed, dtype)}
    for number in range(LAYERS):
        found |= layer(f"layers.{number}", 10 * seed + number, dtype)
    found["head.weight"] = weights((500, HIDDEN), 901 + seed, dtype)
    return found


def trained(arrays: dict[str, Array], step: float = 1e-4) -> dict[str, Array]:
    return {name: tuned(array, k, step) for k, (name, array) in enumerate(arrays.items())}


class Aligned:
    """The alignments of a model, with what they take from the base."""

    def __init__(self, target: dict[str, Array], base: dict[str, Array]) -> None:
        self.base = base
        self.source = ByName(model(base))
        found = align(model(target), model(base))
        self.found: dict[str, Alignment | None] = dict(zip(target, found, strict=True))
        self.target = target
        for tensor, alignment in zip(model(target).tensors, found, strict=True):
            if alignment is not None:
                check_alignment(alignment, tensor, self.source.tensors)

    def names(self, name: str) -> list[str | None]:
        """Base tensors that a tensor has pieces of."""
        alignment = self.found[name]
        assert alignment is not None, f"nothing found for {name}"
        names = [tensor.name for tensor in self.source.tensors]
        return [names[p.source] if p.source >= 0 else None for p in alignment.pieces]

    def reference(self, name: str) -> Array:
        """The reference of a tensor; NaN where it has none."""
        alignment, array = self.found[name], self.target[name]
        assert alignment is not None, f"nothing found for {name}"
        dtype = {d: code for code, d in NUMPY.items()}[array.dtype]
        parts: list[Any] = []
        for piece in alignment.pieces:
            if piece.source < 0:
                part = np.full((alignment.outer, piece.width), np.nan, array.dtype)
            else:
                flat = reference_of(piece, self.source, dtype, 0, alignment.outer)
                assert len(flat) == alignment.outer * piece.width * item_nbytes(dtype)
                part = flat.view(array.dtype).reshape(alignment.outer, -1)
            parts.append(part)
        return np.concatenate(parts, axis=1).reshape(array.shape)

    def expect(self, name: str, reference: Array) -> None:
        """Compare a reference with what it should be; NaN where none is expected."""
        got = self.reference(name)
        same = (got == reference) | (np.isnan(got) & np.isnan(reference))
        assert same.all(), f"{name}: {np.count_nonzero(~same)} of {same.size} from elsewhere"


def nothing(*shape: int) -> Array:
    return np.full(shape, np.nan, np.float32)


def test_the_same_names_are_taken_as_they_are() -> None:
    base = network()
    aligned = Aligned(trained(base), base)
    assert {name: aligned.names(name) for name in base} == {name: [name] for name in base}


@pytest.mark.parametrize(("ours", "theirs"), [("BF16", "F32"), ("F32", "BF16"), ("F16", "BF16")])
def test_another_dtype_of_the_same_name(ours: str, theirs: str) -> None:
    base = network(theirs)
    target = {name: tuned(array, 3).astype(NUMPY[ours]) for name, array in base.items()}
    aligned = Aligned(target, base)
    for name, array in base.items():
        assert aligned.names(name) == [name]
        assert np.array_equal(aligned.reference(name), array.astype(NUMPY[ours]))


def rename(name: str) -> str:
    return "model.decoder." + name.replace("layers", "block").replace("attn", "self_attention")


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
@pytest.mark.parametrize("step", [0.0, 1e-4])
def test_renamed_and_reordered(step: float, dtype: str) -> None:
    base = network(dtype)
    target = {rename(name): array for name, array in reversed(trained(base, step).items())}
    aligned = Aligned(target, base)
    for name in base:
        if "norm" not in name:
            assert aligned.names(rename(name)) == [name]
        elif step == 0:
            # All of them are ones: the name says which.
            assert aligned.names(rename(name)) == [name]


def test_a_beginning_that_changed_is_learned_for_what_is_too_small_to_tell() -> None:
    base = network() | {f"layers.{k}.scale": np.array([0.5 + k], np.float32) for k in range(LAYERS)}
    target = {f"model.{name}": array for name, array in trained(base).items()}
    aligned = Aligned(target, base)
    for name in base:
        assert aligned.names(f"model.{name}") == [name]


def test_renamed_cast_and_reshaped_at_once() -> None:
    base = network("F32")
    target = {
        f"x{k}": tuned(array, k).reshape(-1).astype(NUMPY["BF16"])
        for k, array in enumerate(base.values())
    }
    aligned = Aligned(target, base)
    for k, name in enumerate(base):
        if "norm" not in name:
            assert aligned.names(f"x{k}") == [name]


def test_layers_that_moved_by_one() -> None:
    base = network()
    target = trained({name: array for name, array in base.items() if "layers.0" not in name})
    target = {
        "layers." + str(int(name[7]) - 1) + name[8:] if name.startswith("layers") else name: array
        for name, array in target.items()
    }
    aligned = Aligned(target, base)
    for name in target:
        if name.startswith("layers") and "norm" not in name:
            assert aligned.names(name) == [f"layers.{int(name[7]) + 1}{name[8:]}"]


def test_a_layer_that_is_there_twice() -> None:
    base = network()
    target = base | {name.replace("s.3", "s.4"): base[name] for name in base if "s.3" in name}
    aligned = Aligned(trained(target), base)
    assert aligned.names("layers.4.mlp.up.weight") == ["layers.3.mlp.up.weight"]


def test_rows_behind_before_and_between() -> None:
    base = {"e": weights((500, HIDDEN), 1)}
    new = weights((7, HIDDEN), 2)
    e = base["e"]
    for name in ("e", "renamed.e"):
        for parts in ([e, new], [new, e], [e[:301], new, e[301:]], [e[:-9]], [e[9:]]):
            array = tuned(np.concatenate(parts), 3)
            expected = np.concatenate([nothing(*p.shape) if p is new else p for p in parts])
            Aligned({name: array}, base).expect(name, expected)


def test_columns_behind_and_before() -> None:
    base = {"w": weights((HIDDEN, 200), 1)}
    new = weights((HIDDEN, 24), 2)
    w = base["w"]
    for parts in ([w, new], [new, w], [w[:, :150]], [w[:, 50:]]):
        array = tuned(np.concatenate(parts, axis=1), 3)
        expected = np.concatenate([nothing(*p.shape) if p is new else p for p in parts], axis=1)
        Aligned({"renamed": array}, base).expect("renamed", expected)


def test_a_head_of_other_classes() -> None:
    base = {"head.weight": weights((3, HIDDEN), 1), "head.bias": weights((3,), 2)}
    target = {"head.weight": weights((5, HIDDEN), 1), "head.bias": weights((2,), 2)}
    aligned = Aligned(target, base)
    assert aligned.names("head.weight") == ["head.weight", None]
    assert aligned.names("head.bias") == ["head.bias"]


def qkv(seed: int, heads: int = HIDDEN, grouped: int = HIDDEN) -> list[Array]:
    rows = (heads, grouped, grouped)
    return [weights((n, HIDDEN), seed + k) for k, n in enumerate(rows)]


@pytest.mark.parametrize("grouped", [HIDDEN, 32])
@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_rows_of_three_matrices_in_one_and_back(grouped: int, dtype: str) -> None:
    parts = [array.astype(NUMPY[dtype]) for array in qkv(5, HIDDEN, grouped)]
    apart = dict(zip("qkv", parts, strict=True))
    bias = {f"{name}_bias": weights((2 * len(array),), 9) for name, array in apart.items()}
    apart |= {"noise": weights((HIDDEN, HIDDEN), 50)} | (bias if grouped == HIDDEN else {})
    joined = {"c_attn": np.concatenate(parts), "noise": apart["noise"]}
    if grouped == HIDDEN:
        joined["c_bias"] = np.concatenate(list(bias.values()))
    aligned = Aligned(trained(joined), apart)
    aligned.expect("c_attn", joined["c_attn"])
    aligned = Aligned(trained(apart), joined)
    for name in "qkv":
        aligned.expect(name, apart[name])


def test_columns_of_three_matrices_in_one_and_back() -> None:
    parts = qkv(5)
    apart = dict(zip("qkv", parts, strict=True))
    joined = {"c_attn": np.concatenate(parts, axis=1)}
    Aligned(trained(joined), apart).expect("c_attn", joined["c_attn"])
    aligned = Aligned(trained(apart), joined)
    for name in "qkv":
        aligned.expect(name, apart[name])


def test_matrices_transposed_before_they_are_joined() -> None:
    parts = qkv(5)
    apart = dict(zip("qkv", parts, strict=True))
    joined = {"c_attn": np.concatenate([array.T for array in parts], axis=1)}
    Aligned(trained(joined), apart).expect("c_attn", joined["c_attn"])
    aligned = Aligned(trained(apart), joined)
    for name in "qkv":
        aligned.expect(name, apart[name])


def test_heads_of_three_matrices_in_turn() -> None:
    parts = qkv(5, 192, 192)
    heads = [array.reshape(6, 32, HIDDEN) for array in parts]
    joined = {"query_key_value": np.stack(heads, axis=1).reshape(3 * 192, HIDDEN)}
    apart = dict(zip("qkv", parts, strict=True))
    Aligned(trained(joined), apart).expect("query_key_value", joined["query_key_value"])
    aligned = Aligned(trained(apart), joined)
    for name in "qkv":
        aligned.expect(name, apart[name])


def test_experts_in_one_tensor_and_back() -> None:
    apart = {f"experts.{k}.up": weights((64, HIDDEN), 70 + k) for k in range(8)}
    joined = {"experts.up": np.stack(list(apart.values()))}
    Aligned(trained(joined), apart).expect("experts.up", joined["experts.up"])
    aligned = Aligned(trained(apart), joined)
    for name in apart:
        aligned.expect(name, apart[name])


@pytest.mark.parametrize("shape", [(HIDDEN, 200), (HIDDEN, HIDDEN), (HIDDEN, 20, 3, 3)])
def test_a_transposed_matrix(shape: tuple[int, ...]) -> None:
    base = {"w": weights(shape, 1), "other": weights(shape, 2)}
    turned = np.ascontiguousarray(base["w"].reshape(shape[0], -1).T)
    # Whether the name is kept or not.
    for name in ("w", "renamed"):
        aligned = Aligned({name: tuned(turned, 3)}, base)
        aligned.expect(name, turned)
        assert aligned.names(name) == ["w"]


def test_integers_too() -> None:
    levels = np.clip(np.round(weights((300, HIDDEN), 1, scale=30.0)), -127, 127).astype(np.int8)
    base = {"w": levels, "x": levels[::-1].copy()}
    moved = levels.copy()
    moved[::7, ::5] += 1
    target = {"renamed": moved, "longer": np.concatenate([moved, moved[:20]])}
    aligned = Aligned(target, base)
    assert aligned.names("renamed") == ["w"]
    assert aligned.names("longer")[0] == "w"


def test_unrelated_models_have_nothing_in_common() -> None:
    base = {f"a.{name}": array for name, array in network(seed=1).items() if "norm" not in name}
    target = {f"b.{name}": array for name, array in network(seed=7).items() if "norm" not in name}
    assert set(Aligned(target, base).found.values()) == {None}


def test_large_namesakes_that_are_unrelated_are_left() -> None:
    base, target = {"w": weights((300, 300), 1)}, {"w": weights((300, 300), 2)}
    assert Aligned(target, base).found == {"w": None}


def test_empty_tensors_and_models() -> None:
    base = {"a": np.zeros((0, 4), np.float32), "b": np.zeros(4, np.float32)}
    assert Aligned(base, base).found["a"] is None
    assert Aligned(base, {}).found == {"a": None, "b": None}
    assert Aligned({}, base).found == {}


def test_order_of_either_model_changes_nothing() -> None:
    base = network()
    target = {rename(name): array for name, array in trained(base).items()}
    one = Aligned(target, base).found
    other = Aligned(dict(reversed(target.items())), dict(reversed(base.items()))).found
    assert one == other


def test_digests_are_taken_in_the_order_of_the_tensors() -> None:
    base = dict(reversed(network().items()))
    target = {rename(name): array for name, array in base.items()}
    ours, theirs = model(target), model(base)
    digests = tensor_digests(ours), tensor_digests(theirs)
    assert align(ours, theirs, *digests) == align(ours, theirs)
    sorted_base = ByName(theirs)
    assert align(ours, sorted_base, digests[0], tensor_digests(sorted_base)) == align(ours, theirs)
    assert model_digest(theirs.tensors, digests[1]) == model_digest(
        sorted_base.tensors, tensor_digests(sorted_base)
    )


def test_only_samples_are_read() -> None:
    shapes = {"a": (2048, 1024), "b": (1024, 2048), "c": (4096, 512)}
    base = {name: weights(shape, k) for k, (name, shape) in enumerate(shapes.items())}
    target = {
        f"new.{name}": weights(shape, 9 + k) for k, (name, shape) in enumerate(shapes.items())
    }
    ours, theirs = model(target), model(base)
    digests = tensor_digests(ours), tensor_digests(theirs)
    for source in (ours, theirs):
        source.nbytes_read = 0
    assert align(ours, theirs, *digests) == [None] * 3
    nbytes = sum(array.nbytes for array in base.values())
    assert ours.nbytes_read + theirs.nbytes_read < nbytes // 5


def test_many_tensors_of_one_size_are_not_compared_each_with_each() -> None:
    n = 3000
    one = weights((n, 64), 1)
    base = {f"e.{k:04}": row for k, row in enumerate(one)}
    target = {f"f.{k:04}": tuned(row, k) for k, row in enumerate(one[::-1])}
    ours, theirs = model(target), model(base)
    found = align(ours, theirs)
    assert [a.pieces[0].source for a in found if a is not None] == list(range(n))[::-1]
    # Each sample of such small tensors is all of it: digests, samples, and not much more.
    assert theirs.nbytes_read < 8 * one.nbytes
