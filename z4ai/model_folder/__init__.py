"""Folders of models: their weights compressed under names that loaders look for, and back."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any

from z4ai._progress import AUTO, Progress
from z4ai.model_folder import hint
from z4ai.model_folder.carry import Carrier
from z4ai.model_folder.names import check_variant
from z4ai.model_folder.place import Place
from z4ai.model_folder.plan import Text, original_nbytes, plan_compression, plan_restoring
from z4ai.model_folder.tree import contains, read_tree
from z4ai.options import resolve_effort
from z4ai.stream import stats_of

if TYPE_CHECKING:
    from z4ai._progress import ProgressWish
    from z4ai.model_folder.plan import Plan
    from z4ai.model_folder.tree import Tree

    Path = str | bytes | os.PathLike[Any]

__all__ = ["compress_model", "decompress_model"]


def compress_model(
    src: Path,
    dst: Path | None = None,
    *,
    variant: str | None = "z4ai",
    in_place: bool = False,
    effort: str | None = None,
    threads: int | None = None,
    verify: bool = True,
    link: bool = False,
    follow_links: bool = False,
    force: bool = False,
    progress: ProgressWish = None,
) -> dict[str, Any]:
    """Compress the weights of a model's folder, for ``from_pretrained(folder, variant="z4ai")``.

    Every `.safetensors` file, in subfolders too, becomes a `ZSTN` container; indexes of shards are
    written for the new names. Weights in other formats are left as they are.

    Parameters
    ----------
    src : path-like
        The folder.
    dst : path-like, optional
        Where the compressed model goes, with all the other files. Default: beside the originals.
    variant : str or None
        What is put into the names, as ``save_pretrained(folder, variant=...)`` does:
        ``model.z4ai.safetensors``, ``model.z4ai-00001-of-00003.safetensors``. None keeps the names,
        for loaders that know no variants; it needs `dst` or `in_place`. Adapters, which have no
        variants, keep theirs always, and are left as they are beside the originals.
    in_place : bool
        Remove each original once what was made of it has been verified and is on the disk.
    effort, threads
        As `z4ai.safetensors.compress_file`.
    verify : bool
        Decode what was written and compare it with the original; must be so with `in_place`.
    link : bool
        Make hard links to the other files in `dst` where that is possible, not copies.
    follow_links : bool
        Take files that links outside the folder lead to. The cache of `huggingface_hub`, which is
        made of links, needs no permission.
    force : bool
        Replace files that were not made of these originals.
    progress : bool or callable, optional
        A callable is called with ``(done_bytes, total_bytes)``; True draws a bar. Default: a bar if
        this takes long and standard error is a terminal, unless `HF_HUB_DISABLE_PROGRESS_BARS`.

    Returns
    -------
    dict
        ``original_bytes``, ``compressed_bytes``, ``ratio``, ``saved_pct`` of the weights;
        ``n_weights``, the number of their files, and ``n_skipped``, how many of these were
        compressed already; ``n_copied`` other files; ``n_removed`` originals.

    Raises
    ------
    FormatError
        If weights or an index are damaged or name what is not there. Nothing is written then.
    FileExistsError
        If a file is there that was not made of these originals; with `force`, if it is one of them.
    ValueError
        If there are no weights, a link leads out of the folder or, with `in_place`, to what would
        be removed, or arguments exclude one another.
    OSError
        If a file cannot be read or written, or another run is at work in the folder.

    Notes
    -----
    A run that was interrupted, however, is taken up by calling the function again: what is complete
    is recognised by comparing its content with the original. With `in_place` originals are removed
    when the whole model is there in its new form; where there may not be room for both, one after
    the other.

    Examples
    --------
    >>> import os, shutil, z4ai
    >>> os.mkdir("model")
    >>> _ = shutil.copy("model.safetensors", "model")
    >>> stats = z4ai.compress_model("model", "small")
    >>> stats["n_weights"], sorted(os.listdir("small"))
    (1, ['README.z4ai.md', 'model.z4ai.safetensors'])
    >>> _ = z4ai.decompress_model("small", "again")
    >>> os.listdir("again")
    ['model.safetensors']
    """
    check_variant(variant)
    effort = resolve_effort(effort)
    if variant is None and dst is None and not in_place:
        msg = "without a variant, the compressed model needs a folder of its own, or in_place=True"
        raise ValueError(msg)
    if in_place and not verify:
        msg = "originals are not removed unless what was made of them is verified"
        raise ValueError(msg)
    tree, root = _open(src, dst, in_place, link, follow_links)
    beside = dst is None and not in_place
    plan = plan_compression(tree, variant, beside=beside)
    if not beside and not any(file.name == hint.NAME for file in plan.others):
        plan.texts.append(Text(None, hint.NAME, hint.text(variant)))
    carrier = Carrier(
        tree,
        Place(root, tree.mode),
        separate=dst is not None,
        remove=in_place,
        force=force,
        link=link,
        threads=threads,
    )
    ready = [(original_nbytes(file), file.nbytes) for file in plan.ready]
    passes = 2 if verify else 1
    with _bar(progress, plan, passes, "compress", separate=dst is not None) as bar:
        sizes = carrier.compress(plan, effort, bar, verify=verify)
    return _stats(plan, carrier, sizes + ready, n_ready=len(ready))


def decompress_model(
    src: Path,
    dst: Path | None = None,
    *,
    variant: str | None = "z4ai",
    in_place: bool = False,
    threads: int | None = None,
    link: bool = False,
    follow_links: bool = False,
    force: bool = False,
    progress: ProgressWish = None,
) -> dict[str, Any]:
    """Restore the folder that `compress_model` compressed, byte for byte.

    Parameters
    ----------
    src : path-like
        The folder.
    dst : path-like, optional
        Where the plain model goes, with all the other files. Default: beside the compressed one.
    variant : str or None
        The same as it was compressed with. Containers without it in their names are restored under
        the names that they have.
    in_place : bool
        Remove what is compressed once it is restored and on the disk.
    threads, link, follow_links, force, progress
        As `compress_model`.

    Returns
    -------
    dict
        As `compress_model`.

    Raises
    ------
    FormatError
        If a container or an index is damaged.
    FileExistsError
        If a file is there with another content than is to be restored.
    ValueError, OSError
        As `compress_model`.

    Examples
    --------
    >>> import os, shutil, z4ai
    >>> os.mkdir("tuned")
    >>> _ = shutil.copy("model.safetensors", "tuned")
    >>> _ = z4ai.compress_model("tuned", in_place=True)
    >>> sorted(os.listdir("tuned"))
    ['README.z4ai.md', 'model.z4ai.safetensors']
    >>> stats = z4ai.decompress_model("tuned", in_place=True)
    >>> stats["n_removed"], os.listdir("tuned")
    (2, ['model.safetensors'])
    """
    check_variant(variant)
    if variant is None and dst is None and not in_place:
        msg = "without a variant, the restored model needs a folder of its own, or in_place=True"
        raise ValueError(msg)
    tree, root = _open(src, dst, in_place, link, follow_links)
    plan = plan_restoring(tree, variant)
    if dst is None and not in_place:
        # Containers that would have to be replaced by what they hold stay as they are.
        movable = [item for item in plan.weights if item.target != item.source.name]
        if plan.weights and not movable:
            msg = (
                f"{plan.weights[0].source.name}: compressed under its plain name: "
                "the restored model needs a folder of its own, or in_place=True"
            )
            raise ValueError(msg)
        plan.weights[:] = movable
    notes = [file for file in tree.files.values() if in_place and hint.is_hint(file)]
    carrier = Carrier(
        tree,
        Place(root, tree.mode),
        separate=dst is not None,
        remove=in_place,
        force=force,
        link=link,
        threads=threads,
    )
    with _bar(progress, plan, 1, "decompress", separate=dst is not None) as bar:
        sizes = carrier.restore(plan, notes, bar)
    return _stats(plan, carrier, sizes, n_ready=0)


def _open(
    src: Path, dst: Path | None, in_place: bool, link: bool, follow_links: bool
) -> tuple[Tree, str]:
    """Read the source; -> it, and the real path of the folder to write to."""
    if dst is not None and in_place:
        msg = "in_place is for a folder itself: it goes without dst"
        raise ValueError(msg)
    if link and dst is None:
        msg = "link is for other files in a folder of their own: it needs dst"
        raise ValueError(msg)
    tree = read_tree(os.fsdecode(src), follow_links=follow_links)
    if dst is None:
        return tree, tree.root
    root = os.path.realpath(os.fsdecode(dst))
    if os.path.lexists(root) and not os.path.isdir(root):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), root)
    if contains(tree.root, root) or contains(root, tree.root):
        msg = f"{root}: source and destination must not be, or hold, one another"
        raise ValueError(msg)
    return tree, root


def _bar(wish: ProgressWish, plan: Plan, passes: int, what: str, *, separate: bool) -> Progress:
    total = sum(weights.original_nbytes for weights in plan.weights) * passes
    if separate:
        total += sum(file.nbytes for file in plan.others)
    return Progress(AUTO if wish is None else wish, total, what)


def _stats(
    plan: Plan, carrier: Carrier, sizes: list[tuple[int, int]], n_ready: int
) -> dict[str, Any]:
    original, compressed = (sum(size[k] for size in sizes) for k in (0, 1))
    return {
        **stats_of(original, compressed),
        "n_weights": len(plan.weights) + n_ready,
        "n_skipped": carrier.n_skipped + n_ready,
        "n_copied": carrier.n_copied,
        "n_removed": carrier.n_removed,
    }
