"""What is to be done with each file of a folder; everything that can be refused is refused here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from z4ai.container import zstn
from z4ai.container.source import open_source
from z4ai.errors import CorruptError, FormatError
from z4ai.model_folder import hint, index
from z4ai.model_folder.names import is_index, is_weights, with_variant, without_variant
from z4ai.model_folder.tree import is_container
from z4ai.options import NO_LIMITS
from z4ai.safetensors import read_header

if TYPE_CHECKING:
    from z4ai.model_folder.tree import File, Tree

__all__ = ["Plan", "Text", "Weights", "original_nbytes", "plan_compression", "plan_restoring"]

_LFS_POINTER = b"version https://git-lfs"


class Weights(NamedTuple):
    """Weights to compress or to restore: from where, to which name, and their size as a model."""

    source: File
    target: str
    original_nbytes: int


class Text(NamedTuple):
    """A file that is written anew: in the place of which one, if any."""

    source: File | None
    target: str
    data: bytes


class Plan(NamedTuple):
    """What is to be done.

    Attributes
    ----------
    weights : list of Weights
        What has another form in the end.
    ready : list of File
        Weights that have that form already.
    texts : list of Text
    others : list of File
        What stays as it is, with `ready`.
    """

    weights: list[Weights]
    ready: list[File]
    texts: list[Text]
    others: list[File]


def plan_compression(tree: Tree, variant: str | None, *, beside: bool) -> Plan:
    """Plan to compress a folder; `beside` the originals, two names are needed for each.

    Raises
    ------
    FormatError
        If weights or an index are damaged, or a shard is missing.
    ValueError
        If there are no weights.
    """
    plan = Plan([], [], [], [])
    containers, indexes = [], []
    for file in tree.files.values():
        base = file.name.rpartition("/")[2]
        if is_weights(base) and is_container(file.path):
            containers.append(file)
        elif is_weights(base):
            target = with_variant(file.name, variant)
            if beside and target == file.name:
                plan.others.append(file)
                continue
            _check_weights(file)
            plan.weights.append(Weights(file, target, file.nbytes))
        elif is_index(base) and variant is not None:
            indexes.append(file)
        elif not hint.is_hint(file):
            plan.others.append(file)
    made = {weights.target for weights in plan.weights}
    # What an earlier run made of weights that are here is made again, or recognised.
    plan.ready.extend(file for file in containers if file.name not in made)
    if not plan.weights and not plan.ready:
        msg = f"{tree.root}: no .safetensors weights that could be compressed here"
        raise ValueError(msg)
    plan.others.extend(plan.ready)
    if variant is None:
        return plan
    for file in indexes:
        plain = without_variant(file.name, variant)
        if plain != file.name:
            if plain not in tree.files:
                plan.others.append(file)
        else:
            _plan_index(tree, plan, file, variant)
    return plan


def _check_weights(file: File) -> None:
    with open(file.path, "rb") as opened:
        if opened.read(len(_LFS_POINTER)) == _LFS_POINTER:
            msg = f"{file.name}: a pointer of Git LFS, no weights: fetch them with git lfs pull"
            raise CorruptError(msg)
    try:
        read_header(file.path)
    except FormatError as error:
        raise _named(error, file) from None


def _named(error: FormatError, file: File) -> FormatError:
    where = {"offset": error.offset, "chunk": error.chunk, "tensor": error.tensor}
    return type(error)(f"{file.name}: {error.message}", **where)  # type: ignore[arg-type]


def _plan_index(tree: Tree, plan: Plan, file: File, variant: str) -> None:
    targets = {weights.source.name: weights.target for weights in plan.weights}
    ready = {container.name for container in plan.ready}
    folder = file.name[: file.name.rfind("/") + 1]
    data = _read_index(file)
    renamed = {}
    for shard in index.shards_of(data, file.name):
        name = folder + shard
        compressed = with_variant(name, variant)
        if targets.get(name, name) != name or (name not in tree.files and compressed in ready):
            renamed[shard] = compressed[len(folder) :]
        elif name not in tree.files:
            msg = f"{file.name}: names the shard {shard!r}, which is not there"
            raise CorruptError(msg)
    if renamed:
        changed = index.rename_shards(data, renamed, variant, file.name)
        plan.texts.append(Text(file, with_variant(file.name, variant), changed))
    else:
        plan.others.append(file)


def _read_index(file: File) -> bytes:
    if file.nbytes > index.MAX_NBYTES:
        msg = f"{file.name}: index of {file.nbytes} bytes, expected at most {index.MAX_NBYTES}"
        raise CorruptError(msg)
    with open(file.path, "rb") as opened:
        return opened.read()


def plan_restoring(tree: Tree, variant: str | None) -> Plan:
    """Plan to restore a folder.

    Raises
    ------
    FormatError
        If a container or an index is damaged.
    ValueError
        If there are no weights, or two containers would restore the same file.
    """
    plan = Plan([], [], [], [])
    sources: dict[str, str] = {}
    for file in tree.files.values():
        base = file.name.rpartition("/")[2]
        target = without_variant(file.name, variant)
        if is_weights(base) and is_container(file.path):
            if target in sources:
                msg = f"{tree.root}: {sources[target]} and {file.name} both restore {target}"
                raise ValueError(msg)
            sources[target] = file.name
            plan.weights.append(Weights(file, target, original_nbytes(file)))
        elif is_index(base) and variant is not None and target != file.name:
            data = _read_index(file)
            index.shards_of(data, file.name)
            plan.texts.append(Text(file, target, index.restore_index(data, variant, file.name)))
        elif not hint.is_hint(file):
            plan.others.append(file)
            if is_weights(base):
                plan.ready.append(file)
    if not plan.weights and not plan.ready:
        msg = f"{tree.root}: no .safetensors weights, compressed or not"
        raise ValueError(msg)
    return plan


def original_nbytes(file: File) -> int:
    """Size of the file that a container was made of.

    Raises
    ------
    FormatError
        If the container is damaged; its content is not looked at.
    """
    source = open_source(os.fspath(file.path))
    try:
        return zstn.parse_container(source, NO_LIMITS).original_nbytes
    except FormatError as error:
        raise _named(error, file) from None
    finally:
        source.close()
