"""A note beside compressed weights, for who has them and does not know z4ai."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from z4ai.model_folder.tree import File

__all__ = ["NAME", "is_hint", "is_own", "text"]

NAME = "README.z4ai.md"
_HEAD = b"# Weights compressed by z4ai\n"


def is_hint(file: File) -> bool:
    """Tell whether a file is such a note, of this release or another."""
    return file.name == NAME and is_own(file.path)


def is_own(path: str) -> bool:
    """Tell by its first line whether z4ai wrote a file of that name."""
    with open(path, "rb") as file:
        return file.read(len(_HEAD)) == _HEAD


def text(variant: str | None) -> bytes:
    """Write the note."""
    names = "`.safetensors` files" if variant is None else f"`.{variant}` weights"
    wish = "" if variant is None else f', variant="{variant}"'
    option = " --no-variant" if variant is None else f" --variant {variant}"
    return (
        _HEAD.decode()
        + f"""
The {names} in this folder are compressed, without loss. A program that knows plain
`.safetensors` only stops at them, with an error such as "header too large".

To load them, `pip install "z4ai[hf]"`, and before transformers or vllm is imported:

    from z4ai import enable_hf
    enable_hf()

    from transformers import AutoModel
    model = AutoModel.from_pretrained("this folder"{wish})

To have plain files again, every byte as it was:

    z4ai decompress-model "this folder"{option} -o "another folder"
"""
    ).encode()
