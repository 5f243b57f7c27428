"""Transform ``blocks``: docs/format/codecs/blocks.md in plain Python, with its names."""

from __future__ import annotations

from dataclasses import dataclass

from .wire import read_varint


@dataclass(frozen=True)
class Format:
    """What a block looks like: part and width of each field."""

    fields: tuple[tuple[int, int], ...]
    ordered: bool
    by_sub_blocks: bool


def parse(params: bytes) -> tuple[list[Format], list[tuple[int, int]]]:
    """Return the formats, and the runs as pairs of format and count."""
    if not params or not 1 <= params[0] <= 64:
        raise ValueError("number of formats, expected 1 to 64")
    pos = 1
    formats = []
    for _ in range(params[0]):
        head, pos = _byte(params, pos)
        if not 1 <= head % 64 <= 16:
            raise ValueError(f"{head % 64} fields, expected 1 to 16")
        if head // 64 == 1:
            raise ValueError("by sub-blocks, but not ordered")
        fields = []
        for _ in range(head % 64):
            part, pos = _byte(params, pos)
            width, pos = read_varint(params, pos)
            if part > 7 or not 1 <= width <= 1 << 16:
                raise ValueError(f"field of part {part} and width {width}")
            fields.append((part, width))
        formats.append(Format(tuple(fields), head >= 128, head >= 192))
    used = [part for form in formats for part, _ in form.fields]
    if set(used) != set(range(1 + max(used))):
        raise ValueError("a part that no field belongs to")
    for form in formats:
        if not form.ordered:
            continue
        if len(form.fields) < 3 or [width for _, width in form.fields[:2]] != [2, 2]:
            raise ValueError("an ordered format without two fields of 2 bytes before the last")
        widths = [width for _, width in form.fields]
        if form.by_sub_blocks and (len(widths) < 4 or widths[2] != 12 or widths[-1] != 128):
            raise ValueError("sub-blocks without scales, or of another size")
        if used.count(form.fields[-1][0]) != 1:
            raise ValueError("the part of an ordered field has other fields")
    runs = []
    while pos < len(params):
        number, pos = _byte(params, pos)
        count, pos = read_varint(params, pos)
        if number >= len(formats) or count < 1:
            raise ValueError(f"run of {count} blocks of format {number}")
        runs.append((number, count))
    return formats, runs


def _byte(params: bytes, pos: int) -> tuple[int, int]:
    if pos >= len(params):
        raise ValueError("parameters end early")
    return params[pos], pos + 1


def magnitude(h: int) -> int:
    """Return v(h)."""
    e = h // 1024 % 32
    return h % 1024 if e == 0 else (1024 + h % 1024) << (e - 1)


def key(a: bytes, b: bytes) -> int:
    """Return what ordered fields stand by."""
    below = magnitude(int.from_bytes(a, "little"))
    above = magnitude(int.from_bytes(b, "little"))
    return 63 if below == 0 else min(63, 2 * above // below)


def sub_key(a: bytes, b: bytes, scales: bytes, s: int) -> int:
    """Return what the fields of sub-block ``s`` stand by."""
    if s < 4:
        p, q = scales[s] % 64, scales[s + 4] % 64
    else:
        p = scales[s + 4] % 16 + scales[s - 4] // 64 * 16
        q = scales[s + 4] // 16 + scales[s] // 64 * 16
    below = magnitude(int.from_bytes(a, "little")) * p
    above = magnitude(int.from_bytes(b, "little")) * q
    return 63 if below == 0 else min(63, 2 * above // below)


def interleave(pieces: list[bytes]) -> bytes:
    """Return the 128 bytes of eight pieces of 16."""
    out = b""
    for t in range(4):
        x, y = pieces[2 * t], pieces[2 * t + 1]
        out += bytes(x[i] % 16 + y[i] % 16 * 16 for i in range(16))
        out += bytes(x[i] // 16 + y[i] // 16 * 16 for i in range(16))
    return out


def join(params: bytes, parts: list[bytes], width: int, nbytes: int) -> bytes:
    """Return the content; the width of its elements does not matter."""
    formats, runs = parse(params)
    if sum(count * sum(w for _, w in formats[f].fields) for f, count in runs) != nbytes:
        raise ValueError(f"runs do not make {nbytes} bytes, as expected")
    n_parts = 1 + max(part for form in formats for part, _ in form.fields)
    if len(parts) != n_parts:
        raise ValueError(f"{len(parts)} parts, expected {n_parts}")
    sizes = [0] * n_parts
    for f, count in runs:
        for part, w in formats[f].fields:
            sizes[part] += count * w
    for k, size in enumerate(sizes):
        if len(parts[k]) != size:
            raise ValueError(f"part {k} has {len(parts[k])} bytes, expected {size}")

    # All but ordered fields, in the order of the content.
    at = [0] * n_parts
    blocks: list[tuple[int, list[bytes]]] = []
    for f, count in runs:
        form = formats[f]
        in_order = form.fields[:-1] if form.ordered else form.fields
        for _ in range(count):
            fields = []
            for part, w in in_order:
                fields.append(parts[part][at[part] : at[part] + w])
                at[part] += w
            blocks.append((f, fields))
    for f, form in enumerate(formats):
        if form.by_sub_blocks:
            part, _ = form.fields[-1]
            mine = [fields for number, fields in blocks if number == f]
            places = [(k, s) for k in range(len(mine)) for s in range(8)]
            places.sort(
                key=lambda at: sub_key(mine[at[0]][0], mine[at[0]][1], mine[at[0]][2], at[1])
            )
            pieces = {
                place: parts[part][16 * number : 16 * number + 16]
                for number, place in enumerate(places)
            }
            for k, fields in enumerate(mine):
                fields.append(interleave([pieces[k, s] for s in range(8)]))
        elif form.ordered:
            part, w = form.fields[-1]
            # `sorted` keeps the order of what is equal.
            mine = [fields for number, fields in blocks if number == f]
            for place, fields in enumerate(sorted(mine, key=lambda fields: key(*fields[:2]))):
                fields.append(parts[part][place * w : (place + 1) * w])
    return b"".join(b"".join(fields) for _, fields in blocks)
