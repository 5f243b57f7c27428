"""Names of weights and of their indexes, with and without a variant, as Hugging Face has them."""

from __future__ import annotations

import re

__all__ = ["check_variant", "is_index", "is_weights", "with_variant", "without_variant"]

# `model-00001-of-00003.safetensors`: the variant stands before the number of the shard.
_WEIGHTS = re.compile(r"(?P<stem>.+?)(?P<end>(-\d{5}-of-\d{5})?\.safetensors)", re.DOTALL)
_INDEX = re.compile(r"(?P<stem>.+\.safetensors\.index(\..+)?)(?P<end>\.json)", re.DOTALL)
_VARIANT = re.compile(r"\w([\w.-]*\w)?")
_SHARD = re.compile(r"-\d{5}-of-\d{5}")
# What their libraries look for under these names alone.
_FIXED = frozenset(
    {"adapter_model.safetensors", "pytorch_lora_weights.safetensors", "learned_embeds.safetensors"}
)


def check_variant(variant: str | None) -> None:
    """Refuse what cannot stand in a name, or not be found in one again.

    Raises
    ------
    ValueError
    """
    if variant is None:
        return
    if not isinstance(variant, str) or not _VARIANT.fullmatch(variant) or _SHARD.search(variant):
        msg = f"bad variant {variant!r}: expected a word such as 'z4ai' or 'fp16.z4ai'"
        raise ValueError(msg)


def is_weights(name: str) -> bool:
    """Tell whether a file name is that of weights."""
    return _WEIGHTS.fullmatch(name) is not None


def is_index(name: str) -> bool:
    """Tell whether a file name is that of an index of shards."""
    return _INDEX.fullmatch(name) is not None


def with_variant(path: str, variant: str | None) -> str:
    """Put the variant into the name of weights or of an index.

    Other names, and those that nothing looks for in a variant, stay as they are.
    """
    folder, slash, name = path.rpartition("/")
    found = _INDEX.fullmatch(name) or _WEIGHTS.fullmatch(name)
    if variant is None or found is None or name in _FIXED:
        return path
    return f"{folder}{slash}{found['stem']}.{variant}{found['end']}"


def without_variant(path: str, variant: str | None) -> str:
    """Take the variant out of a name; the same name if it is not there."""
    folder, slash, name = path.rpartition("/")
    found = _INDEX.fullmatch(name) or _WEIGHTS.fullmatch(name)
    if variant is None or found is None or not found["stem"].endswith(f".{variant}"):
        return path
    plain = f"{folder}{slash}{found['stem'][: -len(variant) - 1]}{found['end']}"
    return plain if with_variant(plain, variant) == path else path
