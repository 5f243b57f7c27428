"""XXH3 with the default secret and a seed, as `docs/format/xxh3.md` and its source have it.

Integers are Python's, cut to 64 bits where the specification multiplies or adds; only the lanes of
inputs above 240 bytes are NumPy's, whose unsigned words wrap by themselves.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]

MASK = (1 << 64) - 1
PRIME32 = (0, 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
PRIME64 = (
    0,
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
MIX1 = 0x165667919E3779F9
MIX2 = 0x9FB21C651E98DF25

SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)

STRIPE = 64
BLOCK = 1024
LANES = (
    PRIME32[3],
    PRIME64[1],
    PRIME64[2],
    PRIME64[3],
    PRIME64[4],
    PRIME32[2],
    PRIME64[5],
    PRIME32[1],
)


def xxh3_64(data: bytes, seed: int = 0) -> int:
    """Return the 64-bit hash of ``data``."""
    n = len(data)
    if n > 240:
        return _Lanes(data, seed).low()
    if n > 16:
        return _avalanche(_medium_64(data, seed))
    if n > 8:
        low = (_key(24) ^ _key(32)) + seed & MASK ^ _word(data, 0)
        high = (_key(40) ^ _key(48)) - seed & MASK ^ _word(data, n - 8)
        return _avalanche(n + _swap(low, 8) + high + _fold(low, high) & MASK)
    if n >= 4:
        first, last = _word(data, 0, 4), _word(data, n - 4, 4)
        x = (_key(8) ^ _key(16)) - _four_seed(seed) & MASK ^ (last | first << 32)
        x ^= _rotate(x, 49) ^ _rotate(x, 24)
        x = x * MIX2 & MASK
        x ^= (x >> 35) + n
        x = x * MIX2 & MASK
        return x ^ x >> 28
    if n:
        return _avalanche_old((_key(0, 4) ^ _key(4, 4)) + seed & MASK ^ _three(data))
    return _avalanche_old(seed ^ _key(56) ^ _key(64))


def xxh3_128(data: bytes, seed: int = 0) -> int:
    """Return the 128-bit hash of ``data``, its high half in the high bits."""
    low, high = _xxh3_128(data, seed)
    return high << 64 | low


def _xxh3_128(data: bytes, seed: int) -> tuple[int, int]:
    n = len(data)
    if n > 240:
        lanes = _Lanes(data, seed)
        return lanes.low(), lanes.high()
    if n > 16:
        a, b = _medium_128(data, seed)
        high = a * PRIME64[1] + b * PRIME64[4] + (n - seed) * PRIME64[2] & MASK
        return _avalanche(a + b & MASK), -_avalanche(high) & MASK
    if n > 8:
        first, last = _word(data, 0), _word(data, n - 8)
        a = (_key(32) ^ _key(40)) - seed & MASK ^ first ^ last
        b = (_key(48) ^ _key(56)) + seed & MASK ^ last
        product = a * PRIME64[1]
        low = product + (n - 1 << 54) & MASK
        high = (product >> 64) + (b >> 32 << 32) + (b & 0xFFFFFFFF) * PRIME32[2] & MASK
        low ^= _swap(high, 8)
        product = (high << 64 | low) * PRIME64[2]
        return _avalanche(product & MASK), _avalanche(product >> 64 & MASK)
    if n >= 4:
        first, last = _word(data, 0, 4), _word(data, n - 4, 4)
        x = (_key(16) ^ _key(24)) + _four_seed(seed) & MASK ^ (first | last << 32)
        product = x * (PRIME64[1] + (n << 2))
        low, high = product & MASK, product >> 64
        high = high + (low << 1) & MASK
        low ^= high >> 3
        low ^= low >> 35
        low = low * MIX2 & MASK
        return low ^ low >> 28, _avalanche(high)
    if n:
        word = _three(data)
        swapped = _swap(word, 4)
        turned = (swapped << 13 | swapped >> 19) & 0xFFFFFFFF
        low = (_key(0, 4) ^ _key(4, 4)) + seed & MASK ^ word
        high = (_key(8, 4) ^ _key(12, 4)) - seed & MASK ^ turned
        return _avalanche_old(low), _avalanche_old(high)
    return _avalanche_old(seed ^ _key(64) ^ _key(72)), _avalanche_old(seed ^ _key(80) ^ _key(88))


# --- 17 to 240 bytes ------------------------------------------------------------------------------


def _mix(data: bytes, at: int, key: int, seed: int) -> int:
    """Mix 16 bytes of input with 16 bytes of secret."""
    return _fold(
        _word(data, at) ^ (_key(key) + seed & MASK),
        _word(data, at + 8) ^ (_key(key + 8) - seed & MASK),
    )


def _medium_64(data: bytes, seed: int) -> int:
    n = len(data)
    acc = n * PRIME64[1]
    if n <= 128:
        for i in range((n - 1) // 32 + 1):
            acc += _mix(data, 16 * i, 32 * i, seed) + _mix(data, n - 16 * i - 16, 32 * i + 16, seed)
        return acc & MASK
    acc += sum(_mix(data, 16 * i, 16 * i, seed) for i in range(8))
    acc = _avalanche(acc & MASK)
    acc += sum(_mix(data, 16 * i, 16 * (i - 8) + 3, seed) for i in range(8, n // 16))
    return acc + _mix(data, n - 16, 119, seed) & MASK


def _medium_128(data: bytes, seed: int) -> tuple[int, int]:
    n = len(data)
    a, b = n * PRIME64[1] & MASK, 0

    def mix_two(one: int, two: int, key: int, seed: int) -> None:
        nonlocal a, b
        a = a + _mix(data, one, key, seed) & MASK ^ (_word(data, two) + _word(data, two + 8) & MASK)
        b = b + _mix(data, two, key + 16, seed) & MASK
        b ^= _word(data, one) + _word(data, one + 8) & MASK

    if n <= 128:
        for i in reversed(range((n - 1) // 32 + 1)):
            mix_two(16 * i, n - 16 * i - 16, 32 * i, seed)
        return a, b
    for i in range(4):
        mix_two(32 * i, 32 * i + 16, 32 * i, seed)
    a, b = _avalanche(a), _avalanche(b)
    for i in range(4, n // 32):
        mix_two(32 * i, 32 * i + 16, 32 * (i - 4) + 3, seed)
    mix_two(n - 16, n - 32, 103, -seed & MASK)
    return a, b


# --- 241 bytes and more ---------------------------------------------------------------------------


class _Lanes:
    """The eight lanes after all input."""

    def __init__(self, data: bytes, seed: int) -> None:
        self.n = len(data)
        signs = (seed, -seed & MASK)
        words = [_key(8 * i) + signs[i % 2] & MASK for i in range(24)]
        self.secret = b"".join(word.to_bytes(8, "little") for word in words)
        # Row i is the secret for stripe i of a block.
        keys = np.stack([self._keys(8 * i) for i in range(16)])
        self.acc = np.array(LANES, np.uint64)
        last_block = (self.n - 1) // BLOCK * BLOCK
        for at in range(0, last_block, BLOCK):
            block = np.frombuffer(data, "<u8", BLOCK // 8, at).reshape(16, 8)
            self._accumulate(block, keys)
            self.acc ^= self.acc >> np.uint64(47)
            self.acc ^= self._keys(len(SECRET) - 64)
            self.acc *= np.uint64(PRIME32[1])
        n_stripes = (self.n - last_block - 1) // STRIPE
        block = np.frombuffer(data, "<u8", 8 * n_stripes, last_block).reshape(n_stripes, 8)
        self._accumulate(block, keys[:n_stripes])
        last = np.frombuffer(data, "<u8", 8, self.n - STRIPE).reshape(1, 8)
        self._accumulate(last, self._keys(len(SECRET) - 71).reshape(1, 8))

    def _keys(self, at: int) -> Words:
        return np.frombuffer(self.secret, "<u8", 8, at).astype(np.uint64)

    def _accumulate(self, stripes: Words, keys: Words) -> None:
        """Add stripes. What one adds does not depend on the lanes, so their order is free."""
        x = stripes ^ keys
        product = (x & np.uint64(0xFFFFFFFF)) * (x >> np.uint64(32))
        neighbour = stripes[:, [1, 0, 3, 2, 5, 4, 7, 6]]
        self.acc += (product + neighbour).sum(axis=0, dtype=np.uint64)

    def _merge(self, start: int, at: int) -> int:
        lanes = [int(lane) for lane in self.acc ^ self._keys(at)]
        return _avalanche(start + sum(_fold(lanes[i], lanes[i + 1]) for i in (0, 2, 4, 6)) & MASK)

    def low(self) -> int:
        return self._merge(self.n * PRIME64[1], 11)

    def high(self) -> int:
        return self._merge(~(self.n * PRIME64[2]) & MASK, len(SECRET) - 75)


# --- small parts ----------------------------------------------------------------------------------


def _word(data: bytes, at: int, nbytes: int = 8) -> int:
    return int.from_bytes(data[at : at + nbytes], "little")


def _key(at: int, nbytes: int = 8) -> int:
    return _word(SECRET, at, nbytes)


def _three(data: bytes) -> int:
    """Return 1 to 3 bytes and their number as one word of 32 bits."""
    n = len(data)
    return data[-1] | n << 8 | data[0] << 16 | data[n >> 1] << 24


def _four_seed(seed: int) -> int:
    return seed ^ _swap(seed & 0xFFFFFFFF, 4) << 32


def _swap(x: int, nbytes: int) -> int:
    return int.from_bytes(x.to_bytes(nbytes, "little"), "big")


def _rotate(x: int, bits: int) -> int:
    return (x << bits | x >> 64 - bits) & MASK


def _fold(a: int, b: int) -> int:
    product = a * b
    return product & MASK ^ product >> 64


def _avalanche(x: int) -> int:
    x ^= x >> 37
    x = x * MIX1 & MASK
    return x ^ x >> 32


def _avalanche_old(x: int) -> int:
    """Mix as XXH64 does."""
    x ^= x >> 33
    x = x * PRIME64[2] & MASK
    x ^= x >> 29
    x = x * PRIME64[3] & MASK
    return x ^ x >> 32
