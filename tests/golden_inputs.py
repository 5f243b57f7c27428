"""What the golden files hold: formulas over integers, never to be changed once files use them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np


def mixed(n: int, seed: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Numbers i + seed × 2^32, each through a mixing function of 64 bits."""
    z = np.arange(n, dtype=np.uint64) + np.uint64(seed << 32)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def noise(nbytes: int, seed: int, width: int) -> bytes:
    """The top byte of each number."""
    return (mixed(nbytes, seed) >> np.uint64(56)).astype(np.uint8).tobytes()


def weights(nbytes: int, seed: int, width: int) -> bytes:
    """Little-endian words: sign, then an exponent that falls off on both sides, then noise."""
    n = nbytes // width + 1
    z = mixed(n, seed)
    coins = np.unpackbits((z & np.uint64(0xFF)).astype(np.uint8)[:, None], axis=1).sum(axis=1)
    if width == 1:
        return (coins.astype(np.uint8) * 16 + 8).tobytes()[:nbytes]
    word = z & np.uint64(0x807FFFFFFFFFFFFF)
    word |= (coins.astype(np.uint64) + np.uint64(116)) << np.uint64(55)
    words: bytes = (word >> np.uint64(64 - 8 * width)).astype(f"<u{width}").tobytes()
    return words[:nbytes]


def sparse(nbytes: int, seed: int, width: int) -> bytes:
    """Zeros, with 1 KiB of weights at byte 70,000 and the last 3,000 bytes all weights."""
    out = bytearray(nbytes)
    out[70_000:71_024] = weights(1024, seed, width)
    out[nbytes - 3000 :] = weights(3000, seed + 1, width)
    return bytes(out)


def steps(nbytes: int, seed: int, width: int) -> bytes:
    """Each whole MiB is one word of 8 bytes over and over; what is left is weights."""
    whole = nbytes >> 20
    words = noise(8 * whole, seed, width)
    constant = b"".join(words[8 * k : 8 * k + width] * ((1 << 20) // width) for k in range(whole))
    return constant + weights(nbytes - (whole << 20), seed, width)


def text(nbytes: int, seed: int, width: int) -> bytes:
    """Numbered lines."""
    lines = (b"line %d of the same text\n" % (k % (seed + 50)) for k in range(nbytes // 20 + 1))
    return b"".join(lines)[:nbytes]


def patterns(nbytes: int, seed: int, width: int) -> bytes:
    """Every word of 16 bits, in order, over and over."""
    return (struct.pack("<65536H", *range(65536)) * (nbytes >> 17 or 1))[:nbytes]


FORMULAS = {f.__name__: f for f in (noise, weights, sparse, steps, text, patterns)}


def content_of(recipe: Mapping[str, Any]) -> bytes:
    """The content that a recipe of the manifest describes."""
    if "tensors" in recipe:
        return safetensors_of(recipe)
    formula = FORMULAS[recipe["formula"]]
    return formula(recipe["nbytes"], recipe["seed"], recipe["width"])


def safetensors_of(recipe: Mapping[str, Any]) -> bytes:
    """A .safetensors file; tensors are (name, dtype, shape, recipe of the content)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    data = []
    at = 0
    for name, dtype, shape, inner in recipe["tensors"]:
        piece = content_of(inner)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(piece)]}
        at += len(piece)
        data.append(piece)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(data)
