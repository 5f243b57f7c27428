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


def _scaled(nbytes: int, seed: int, width: int, of_rows: bool, of_columns: bool) -> bytes:
    """Weights in rows of 64 whose exponent each row, each column lowers by as much as it likes."""
    n = nbytes // width + 1
    i = np.arange(n, dtype=np.uint64)
    row = mixed(n // 64 + 1, seed + 1)[(i // np.uint64(64)).astype(np.int64)] % np.uint64(7)
    column = mixed(64, seed + 2)[(i % np.uint64(64)).astype(np.int64)] % np.uint64(7)
    down = row * np.uint64(of_rows) + column * np.uint64(of_columns)
    z = mixed(n, seed)
    coins = np.unpackbits((z & np.uint64(0xFF)).astype(np.uint8)[:, None], axis=1).sum(axis=1)
    exponent = coins.astype(np.uint64) // np.uint64(2)
    if width == 1:
        lowered = exponent + np.uint64(6) - np.minimum(down, exponent + np.uint64(6))
        top = (z >> np.uint64(56) & np.uint64(0x87)) | lowered << np.uint64(3)
        return top.astype(np.uint8).tobytes()[:nbytes]
    if width == 8:  # exponents of 11 bits
        word = z & np.uint64(0x800FFFFFFFFFFFFF)
        word |= (exponent + np.uint64(1010) - down) << np.uint64(52)
        return word.astype("<u8").tobytes()[:nbytes]
    word = z & np.uint64(0x807FFFFFFFFFFFFF)
    word |= (exponent + np.uint64(116) - down) << np.uint64(55)
    words: bytes = (word >> np.uint64(64 - 8 * width)).astype(f"<u{width}").tobytes()
    return words[:nbytes]


def rows(nbytes: int, seed: int, width: int) -> bytes:
    """Rows of 64 elements have scales of their own."""
    return _scaled(nbytes, seed, width, True, False)


def columns(nbytes: int, seed: int, width: int) -> bytes:
    """So have the columns of such rows."""
    return _scaled(nbytes, seed, width, False, True)


def rows_and_columns(nbytes: int, seed: int, width: int) -> bytes:
    """And both."""
    return _scaled(nbytes, seed, width, True, True)


def outliers(nbytes: int, seed: int, width: int) -> bytes:
    """Rows of weights, and one in about 200 that is any word."""
    words = np.frombuffer(rows(nbytes // width * width, seed, width), f"<u{width}").copy()
    z = mixed(len(words), seed + 1)
    at = z % np.uint64(200) == 0
    words[at] = (z[at] >> np.uint64(64 - 8 * width)).astype(words.dtype)
    return words.tobytes() + bytes(nbytes % width)


def pruned(nbytes: int, seed: int, width: int) -> bytes:
    """Weights of which three in four are zero."""
    words = np.frombuffer(weights(nbytes // width * width, seed, width), f"<u{width}").copy()
    words[mixed(len(words), seed + 1) % np.uint64(4) > 0] = 0
    return words.tobytes() + bytes(nbytes % width)


def _dequantised(nbytes: int, seed: int, width: int, group: int) -> bytes:
    """Whole numbers of 7 bits by a scale for each group, in the upper half of what single holds."""
    n = nbytes // width + 1
    z = mixed(n, seed)
    bits = np.unpackbits((z & np.uint64(0xFFFF)).astype("<u2").view(np.uint8).reshape(n, 2), axis=1)
    codes = bits.sum(axis=1).astype(np.int64) * 8 - 64 + (z >> np.uint64(61)).astype(np.int64)
    scales = (mixed(n // group + 1, seed + 1) % np.uint64(2048) + np.uint64(2048)).astype(np.int64)
    # The product of 7 and 12 bits is exact; a power of two makes it small.
    single = (codes * np.repeat(scales, group)[:n]).astype(np.float32) * np.float32(2.0**-20)
    if width == 8:
        return single.astype("<f8").tobytes()[:nbytes]
    words = single.view(np.uint32)
    if width == 2:
        half = np.uint32(0x7FFF) + (words >> np.uint32(16) & np.uint32(1))
        return (words + half >> np.uint32(16)).astype("<u2").tobytes()[:nbytes]
    return words.astype("<u4").tobytes()[:nbytes]


def grid(nbytes: int, seed: int, width: int) -> bytes:
    """Dequantised weights with one scale."""
    return _dequantised(nbytes, seed, width, nbytes)


def grid_of_groups(nbytes: int, seed: int, width: int) -> bytes:
    """Dequantised weights with a scale for each 64."""
    return _dequantised(nbytes, seed, width, 64)


def grid_and_others(nbytes: int, seed: int, width: int) -> bytes:
    """Dequantised weights, one in 100 of which is not."""
    words = np.frombuffer(grid(nbytes // width * width, seed, width), f"<u{width}").copy()
    other = np.frombuffer(weights(nbytes // width * width, seed + 3, width), f"<u{width}")
    words[::100] = other[::100]
    return words.tobytes() + bytes(nbytes % width)


def few(nbytes: int, seed: int, width: int) -> bytes:
    """Weights of eleven values."""
    values = np.frombuffer(weights(11 * width, seed, width), f"<u{width}")
    z = mixed(nbytes // width + 1, seed + 1)
    return values[(z % np.uint64(11)).astype(np.int64)].tobytes()[:nbytes]


def few_a_row(nbytes: int, seed: int, width: int) -> bytes:
    """Weights of four values in each row of 512."""
    n = nbytes // width + 1
    values = np.frombuffer(weights(4 * (n // 512 + 1) * width, seed, width), f"<u{width}")
    which = (mixed(n, seed + 1) % np.uint64(4)).astype(np.int64)
    return values[np.arange(n) // 512 * 4 + which].tobytes()[:nbytes]


def rising(nbytes: int, seed: int, width: int) -> bytes:
    """Integers that rise by 0 to 9, but for one in 300, which is any."""
    n = nbytes // width + 1
    z = mixed(n, seed)
    numbers = np.cumsum(z % np.uint64(10)).astype(np.uint64)
    at = z >> np.uint64(32) & np.uint64(0xFFFF) < np.uint64(200)
    numbers[at] = z[at]
    words: bytes = numbers.astype(f"<u{width}").tobytes()
    return words[:nbytes]


def vocabulary(nbytes: int, seed: int, width: int) -> bytes:
    """Integers from a range of 30,000, in no order."""
    z = mixed(nbytes // width + 1, seed)
    words: bytes = (z % np.uint64(30_000) + np.uint64(500)).astype(f"<u{width}").tobytes()
    return words[:nbytes]


def layers(nbytes: int, seed: int, width: int) -> bytes:
    """A layer of weights, and copies of it with thirteen bytes before each."""
    layer = weights(nbytes // 4, seed, width)
    made = b"".join(noise(13, seed + k, width) + layer for k in range(5))
    return made[:nbytes]


def gguf(nbytes: int, seed: int, width: int) -> bytes:
    """A GGUF file of three tensors, q4_1, fp32 and q8_0; what is left is text."""
    n = nbytes // 80
    z = mixed(n * 16, seed)
    coins = np.unpackbits((z & np.uint64(0xFF)).astype(np.uint8)[:, None], axis=1).sum(axis=1)
    # Scales of half precision, minima of about eight times as much, values around the middle.
    four = np.zeros((n, 20), np.uint8)
    four[:, 0] = (z[:n] >> np.uint64(40)).astype(np.uint8)
    four[:, 1] = 24 + coins[:n] // 4
    four[:, 2] = 0x80 * (z[:n] >> np.uint64(63)).astype(np.uint8)
    four[:, 3] = 0x80 + 35 + coins[:n] // 4
    low = (coins + (z >> np.uint64(61)).astype(np.uint8)).reshape(n, 16)
    four[:, 4:] = low | np.roll(low, 1, axis=1) << 4
    norm = weights(4 * 64, seed + 1, 4)
    eight = np.zeros((n, 34), np.uint8)
    eight[:, :2] = four[:, :2]
    eight[:, 2:] = (mixed(n * 32, seed + 2) >> np.uint64(59)).astype(np.uint8).reshape(n, 32)
    data = b""
    head = struct.pack("<4sIQQ", b"GGUF", 3, 3, 1)
    head += struct.pack("<Q", 1) + b"k" + struct.pack("<II", 4, seed)
    for kind, extent, content in (
        (3, 32 * n, four.tobytes()),
        (0, 64, norm),
        (8, 32 * n, eight.tobytes()),
    ):
        data += bytes(-len(data) % 32)
        head += struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, extent, kind, len(data))
        data += content
    made = head + bytes(-len(head) % 32) + data
    return (made + text(nbytes, seed, width))[:nbytes]


def gguf_of_sub_blocks(nbytes: int, seed: int, width: int) -> bytes:
    """A GGUF file of one tensor, q4_K; what is left is text."""
    n = nbytes // 144
    z = mixed(n * 128, seed)
    coins = np.unpackbits((z & np.uint64(0xFF)).astype(np.uint8)[:, None], axis=1).sum(axis=1)
    made = np.zeros((n, 144), np.uint8)
    made[:, 0] = (z[:n] >> np.uint64(40)).astype(np.uint8)
    made[:, 1] = 24 + coins[:n] // 4
    made[:, 2] = (z[:n] >> np.uint64(48)).astype(np.uint8)
    made[:, 3] = 34 + coins[:n] // 4
    made[:, 4:16] = (z[: 12 * n] >> np.uint64(24)).astype(np.uint8).reshape(n, 12) & 0x4C
    low = coins.reshape(n, 128)
    made[:, 16:] = low | np.roll(low, 5, axis=1) << 4
    head = struct.pack("<4sIQQ", b"GGUF", 2, 1, 0) + struct.pack("<Q", 1) + b"w"
    head += struct.pack("<IQIQ", 1, 256 * n, 12, 0)
    whole = head + bytes(-len(head) % 32) + made.tobytes()
    return (whole + text(nbytes, seed, width))[:nbytes]


def nudged(nbytes: int, seed: int, width: int) -> bytes:
    """Weights of that seed, a quarter of them moved by a few units in the last place."""
    words = np.frombuffer(weights(nbytes, seed, width), f"<u{width}").copy()
    z = mixed(len(words), seed + 1000)
    moved = z & np.uint64(3) == np.uint64(0)
    steps = ((z >> np.uint64(8)) % np.uint64(5)).astype(words.dtype)
    words[moved] += steps[moved]
    return words.tobytes()


def merged(nbytes: int, seed: int, width: int) -> bytes:
    """Weights of that seed, as rows of 128 fp32, to which a product of rank 1 was added."""
    matrix = np.frombuffer(weights(nbytes, seed, 4), "<f4").reshape(-1, 128)
    left = (mixed(len(matrix), seed + 1) % np.uint64(509)).astype(np.float32) - np.float32(254)
    right = (mixed(128, seed + 2) % np.uint64(253)).astype(np.float32) - np.float32(126)
    # Integers below 2^17, and a power of two: exact on every machine.
    product = left[:, None] * right[None, :] * np.float32(2.0**-22)
    return (matrix + product).astype("<f4").tobytes()


FORMULAS = {
    f.__name__: f
    for f in (
        *(noise, weights, sparse, steps, text, patterns),
        *(rows, columns, rows_and_columns, outliers, pruned),
        *(grid, grid_of_groups, grid_and_others, few, few_a_row, rising, vocabulary, layers),
        *(gguf, gguf_of_sub_blocks, nudged, merged),
    )
}


def content_of(recipe: Mapping[str, Any]) -> bytes:
    """The content that a recipe of the manifest describes."""
    if "tensors" in recipe:
        return safetensors_of(recipe)
    formula = FORMULAS[recipe["formula"]]
    content = formula(recipe["nbytes"], recipe["seed"], recipe["width"])
    if recipe.get("big_endian"):
        return np.frombuffer(content, f"<u{recipe['width']}").byteswap().tobytes()
    return content


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
