"""Compare the encoded sizes of seeded inputs with those pinned in sizes.csv, exactly.

    python bench/check_sizes.py            fails on any difference
    python bench/check_sizes.py --update   pins the sizes of now

A change of a size is a change of the encoder and belongs in the commit that makes it, to be read
there. A changed input (its hash is pinned too) is an error of this file and not of the encoder.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench import data

PINNED = Path(__file__).resolve().parent / "sizes.csv"
# "max" may use a library whose own output changes between versions, so it is not pinned.
EFFORTS = ("fast", "balanced")
COLUMNS = ("name", "dtype", "content_nbytes", "content_sha256", "effort", "encoded_nbytes")

MIB = 1 << 20


def token_ids(n: int) -> bytes:
    """int64 ids below 32000, most of them small."""
    bits = data.uniform_bits(7, n)
    ids = (bits >> np.uint64(49)) * (bits & np.uint64(0x7FFF)) >> np.uint64(15)
    return (ids % np.uint64(32000)).astype(np.int64).tobytes()


def sparse(n: int) -> bytes:
    """fp32 of which nine in ten are zero."""
    kept = (data.uniform_bits(8, n) % np.uint64(10)) == 0
    return np.where(kept, data.weights(8, 1, n)[0], np.float32(0)).astype(np.float32).tobytes()


def cast_back(n: int) -> bytes:
    """fp32 that holds bf16 values: the low half is zero."""
    return (data.bf16(data.weights(9, 1, n)[0]).astype(np.uint32) << 16).tobytes()


def specials(n: int) -> bytes:
    """bf16 with NaN payloads, infinities, both zeros and subnormals among weights."""
    x = data.bf16(data.weights(10, 1, n)[0]).copy()
    odd = np.array([0x7FC0, 0xFFC1, 0x7F80, 0xFF80, 0x0000, 0x8000, 0x0001, 0x7F81], np.uint16)
    x[::97] = np.resize(odd, x[::97].size)
    return x.tobytes()


def ramp(n: int) -> bytes:
    """int16 counting up: the low byte is flat, the high byte is steps."""
    return np.arange(n, dtype=np.uint32).astype(np.uint16).tobytes()


def two_scales(n: int) -> bytes:
    """bf16 whose halves have different scales, the second half a hundred times smaller."""
    x = data.weights(11, 1, n)[0]
    x[n // 2 :] *= np.float32(0.01)
    return data.bf16(x).tobytes()


def noise(n: int) -> bytes:
    return data.uniform_bits(12, (n + 7) // 8).tobytes()[:n]


def small(dtype: str, nbytes: int) -> bytes:
    return data.weights_of(dtype, 4096)[:nbytes]


INPUTS: dict[str, tuple[str | None, Callable[[], bytes]]] = {
    "weights-bf16-5m": ("bf16", lambda: data.weights_of("bf16", 5 * MIB)),
    "weights-bf16-1m": ("bf16", lambda: data.weights_of("bf16", MIB)),
    "weights-bf16-64k": ("bf16", lambda: data.weights_of("bf16", 64 << 10)),
    "weights-bf16-odd": ("bf16", lambda: data.weights_of("bf16", MIB)[:-1]),
    "weights-fp16-3m": ("fp16", lambda: data.weights_of("fp16", 3 * MIB)),
    "weights-fp32-5m": ("fp32", lambda: data.weights_of("fp32", 5 * MIB)),
    "weights-fp32-odd": ("fp32", lambda: data.weights_of("fp32", MIB)[:-3]),
    "weights-fp64-2m": ("fp64", lambda: data.weights_of("fp64", 2 * MIB)),
    "weights-fp8-1m": ("fp8_e4m3", lambda: data.weights_of("fp8_e4m3", MIB)),
    "weights-int8-1m": ("int8", lambda: data.weights_of("int8", MIB)),
    "weights-bf16-opaque": (None, lambda: data.weights_of("bf16", MIB)),
    "two-scales-bf16-4m": ("bf16", lambda: two_scales(2 * MIB)),
    "specials-bf16-1m": ("bf16", lambda: specials(MIB // 2)),
    "token-ids-int64": ("int64", lambda: token_ids(100_000)),
    "ramp-int16": ("int16", lambda: ramp(300_000)),
    "sparse-fp32": ("fp32", lambda: sparse(300_000)),
    "cast-back-fp32": ("fp32", lambda: cast_back(300_000)),
    "noise-opaque": (None, lambda: noise(MIB + 13)),
    "noise-fp32": ("fp32", lambda: noise(MIB)),
    "zeros-fp32": ("fp32", lambda: bytes(3 * MIB)),
    "empty-bf16": ("bf16", lambda: b""),
    "one-byte-bf16": ("bf16", lambda: small("bf16", 1)),
    "three-bytes-opaque": (None, lambda: small("bf16", 3)),
    "hundred-bytes-bf16": ("bf16", lambda: small("bf16", 100)),
    "two-kib-bf16": ("bf16", lambda: small("bf16", 2048)),
}


def measure() -> list[dict[str, str]]:
    """Encode every input at every effort, check the round trip, return the rows."""
    import z4ai

    rows = []
    for name, (dtype, make) in INPUTS.items():
        content = make()
        digest = hashlib.sha256(content).hexdigest()[:16]
        for effort in EFFORTS:
            blob = z4ai.compress(content, dtype=dtype, effort=effort, threads=1)
            if z4ai.decompress(blob) != content:
                raise SystemExit(f"{name} at {effort}: not restored")
            values = (name, dtype or "", str(len(content)), digest, effort, str(len(blob)))
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def differences(pinned: list[dict[str, str]], measured: list[dict[str, str]]) -> list[str]:
    """Say every difference between pinned and measured rows."""
    before = {(row["name"], row["effort"]): row for row in pinned}
    after = {(row["name"], row["effort"]): row for row in measured}
    said = [f"{' '.join(key)}: pinned but not measured" for key in before.keys() - after.keys()]
    said += [f"{' '.join(key)}: measured but not pinned" for key in after.keys() - before.keys()]
    for key in before.keys() & after.keys():
        old, new = before[key], after[key]
        if any(old[c] != new[c] for c in ("dtype", "content_nbytes", "content_sha256")):
            said.append(f"{' '.join(key)}: the input changed, so its size says nothing")
        elif old["encoded_nbytes"] != new["encoded_nbytes"]:
            change = int(new["encoded_nbytes"]) - int(old["encoded_nbytes"])
            said.append(
                f"{' '.join(key)}: {old['encoded_nbytes']} pinned, "
                f"{new['encoded_nbytes']} now ({change:+d})"
            )
    return sorted(said)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--update", action="store_true", help="pin the sizes of now")
    args = parser.parse_args()
    measured = measure()
    pinned: list[dict[str, str]] = []
    if PINNED.exists():
        with PINNED.open(newline="") as file:
            pinned = list(csv.DictReader(file))
    elif not args.update:
        print(f"{PINNED.name} is missing: nothing to compare with")
        return 1
    said = differences(pinned, measured)
    print("\n".join(said) if said else f"{len(measured)} sizes as pinned")
    if args.update:
        with PINNED.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(measured)
        return 0
    return 1 if said else 0


if __name__ == "__main__":
    raise SystemExit(main())
