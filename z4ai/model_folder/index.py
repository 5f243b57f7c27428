"""The index of a sharded model, and the same under other names of shards; nothing of it is lost."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from z4ai.errors import CorruptError
from z4ai.model_folder.names import without_variant

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAX_NBYTES", "rename_shards", "restore_index", "shards_of"]

# Those of the largest models take some 10 MB.
MAX_NBYTES = 256 << 20
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_OWN = "z4ai"


def _parse(data: bytes, what: str) -> tuple[str, dict[str, Any]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            msg = "an object has a key twice"
            raise ValueError(msg)
        return found

    try:
        text = data.decode()
        document = json.loads(text, object_pairs_hook=unique)
        weight_map = document["weight_map"]
        are_names = all(isinstance(shard, str) for shard in weight_map.values())
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        msg = f"{what}: no index of shards: {reason}"
        raise CorruptError(msg) from None
    if not are_names:
        msg = f"{what}: no index of shards: the name of a shard is no string"
        raise CorruptError(msg)
    return text, document


def shards_of(data: bytes, what: str) -> list[str]:
    """Name the shards of an index, each once, in their order; `what` is for errors.

    Raises
    ------
    FormatError
        If it is no index, or a name leads out of its folder.
    """
    shards = sorted(set(_parse(data, what)[1]["weight_map"].values()))
    for shard in shards:
        bad = "\\" in shard or "\0" in shard or ":" in shard
        if bad or any(part in ("", ".", "..") for part in shard.split("/")):
            msg = f"{what}: {shard!r} is no name of a shard"
            raise CorruptError(msg)
    return shards


def rename_shards(data: bytes, renamed: Mapping[str, str], variant: str, what: str) -> bytes:
    """Write an index with other names of shards, from which the original can be restored.

    Nothing but the names changes where that is enough: not a blank. Where it is not (a tensor that
    is called like a shard, say), the original is kept inside.
    """
    text, document = _parse(data, what)
    shards = document["weight_map"]
    wanted = {**document, "weight_map": {k: renamed.get(v, v) for k, v in shards.items()}}
    changed = _replace(text, renamed).encode()
    try:
        if _parse(changed, what)[1] == wanted and restore_index(changed, variant, what) == data:
            return changed
    except CorruptError:
        pass
    wanted[_OWN] = {"original": text}
    return (json.dumps(wanted, indent=2) + "\n").encode()


def restore_index(data: bytes, variant: str, what: str) -> bytes:
    """Restore what `rename_shards` was given.

    Raises
    ------
    FormatError
        If it is no such index.
    """
    text, document = _parse(data, what)
    shards = document["weight_map"]
    if _OWN not in document:
        return _replace(text, {v: without_variant(v, variant) for v in shards.values()}).encode()
    own = document[_OWN]
    original = own.get("original") if isinstance(own, dict) else None
    if isinstance(original, str):
        restored = original.encode("utf-8", "surrogatepass")
        plain = {k: without_variant(v, variant) for k, v in shards.items()}
        if _parse(restored, what)[1]["weight_map"] == plain:
            return restored
    msg = f"{what}: the original index in it is not the one it was made of"
    raise CorruptError(msg)


def _replace(text: str, names: Mapping[str, str]) -> str:
    """Replace strings of a JSON text that are written without escapes."""
    tokens = {f'"{old}"': f'"{new}"' for old, new in names.items()}
    return _STRING.sub(lambda found: tokens.get(found[0], found[0]), text)
