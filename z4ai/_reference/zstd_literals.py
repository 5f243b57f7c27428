"""Codec ``zstd``: frames of Huffman-coded literals, in the order of RFC 8878.

`decode` reads what ``docs/format/codecs/zstd.md`` calls a frame of literals; a frame that is legal
Zstandard beyond that raises `UnsupportedFrame`. `encode` writes the very bytes of the kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .zstd_huffman import close_bits, code_lengths, codes, open_bits, read_tree, write_tree

MAGIC = 0xFD2FB528
BLOCK = 128 * 1024
MAX_WINDOW = 1 << 27  # literals need none; docs/format/limits.md
GROUP = 16  # blocks that the encoder looks at together
FOUR_STREAMS = 1024  # from here on the encoder writes four streams
MARGIN = 11  # what is quicker to decode may take 1/2048 more

RAW, RLE, COMPRESSED, TREELESS = range(4)


class UnsupportedFrame(ValueError):
    """Legal Zstandard, but not literals only."""


# --- 3.1.1: frame ---------------------------------------------------------------------------------


@dataclass
class _Reader:
    data: bytes
    pos: int = 0

    def take(self, n: int) -> bytes:
        if self.pos + n > len(self.data):
            raise ValueError("truncated: a Zstandard frame ends early")
        self.pos += n
        return self.data[self.pos - n : self.pos]

    def number(self, n: int) -> int:
        return int.from_bytes(self.take(n), "little")


def decode(data: bytes, content_nbytes: int) -> bytes:
    """Decode one frame, which must declare and hold ``content_nbytes``."""
    reader = _Reader(bytes(data))
    block_max = _read_header(reader, content_nbytes)
    content = bytearray()
    lengths: list[int] = []  # of the last tree
    last = 0
    while not last:
        head = reader.number(3)
        last, kind, size = head & 1, head >> 1 & 3, head >> 3
        if kind == 3 or size > block_max:
            raise ValueError("block of a reserved type, or too large")
        if kind == RAW:
            content += reader.take(size)
        elif kind == RLE:
            content += reader.take(1) * size
        else:
            literals, lengths = _decode_block(reader.take(size), lengths, block_max)
            content += literals
        if len(content) > content_nbytes:
            raise ValueError("more content than declared")
    if reader.pos != len(reader.data) or len(content) != content_nbytes:
        raise ValueError("bytes behind the last block, or less content than declared")
    return bytes(content)


def _read_header(reader: _Reader, content_nbytes: int) -> int:
    """Read the frame header; return the largest block it allows."""
    magic, flags = reader.number(4), reader.number(1)
    if magic >> 4 == 0x184D2A5:
        raise UnsupportedFrame("skippable frame")
    if magic != MAGIC:
        raise ValueError("not a Zstandard frame")
    single, size_flag = flags >> 5 & 1, flags >> 6
    if flags & 0b1111 or (size_flag == 0 and not single):
        raise UnsupportedFrame("dictionary, checksum, reserved bit, or no content size")
    window_byte = 0 if single else reader.number(1)
    content = reader.number(1 << size_flag) + (256 if size_flag == 1 else 0)
    window = content
    if not single:
        base = 1 << (10 + (window_byte >> 3))
        window = base + base // 8 * (window_byte & 7)
        if window > MAX_WINDOW:
            raise UnsupportedFrame(f"window of {window} bytes")
    if content != content_nbytes:
        raise ValueError(f"declares {content} bytes, expected {content_nbytes}")
    return min(window, BLOCK)


# --- 3.1.1.3: compressed blocks -------------------------------------------------------------------


def _decode_block(block: bytes, lengths: list[int], block_max: int) -> tuple[bytes, list[int]]:
    """Decode a compressed block with the last tree; return its literals and the tree after it."""
    if len(block) < 2:
        raise ValueError("compressed block of less than two bytes")
    kind, size_format = block[0] & 3, block[0] >> 2 & 3
    if kind in (RAW, RLE):
        head = {1: 2, 3: 3}.get(size_format, 1)
        n = int.from_bytes(block[:head], "little") >> (3 if head == 1 else 4)
        coded = 1 if kind == RLE else n
    else:
        head, width = {2: (4, 14), 3: (5, 18)}.get(size_format, (3, 10))
        fields = int.from_bytes(block[:head], "little") >> 4
        n, coded = fields & ((1 << width) - 1), fields >> width
    if n > block_max or head + coded >= len(block):
        raise ValueError("literals larger than their block")
    if block[head + coded] != 0:
        raise UnsupportedFrame("sequences")
    if head + coded + 1 != len(block):
        raise ValueError("bytes behind the sequences")
    data = block[head : head + coded]
    if kind == RAW:
        return data, lengths
    if kind == RLE:
        return data * n, lengths
    if kind == COMPRESSED:
        lengths, nbytes = read_tree(data)
        data = data[nbytes:]
    if not lengths or n == 0:
        raise ValueError("no tree, or no literals")
    if size_format == 0:
        return _decode_stream(data, n, lengths), lengths
    if n < 6 or len(data) < 6:
        raise ValueError("too little for four streams")
    sizes = [int.from_bytes(data[2 * k : 2 * k + 2], "little") for k in range(3)]
    at, out, segment = 6, b"", (n + 3) // 4
    if at + sum(sizes) > len(data):
        raise ValueError("streams larger than their block")
    for size in [*sizes, len(data) - at - sum(sizes)]:
        out += _decode_stream(data[at : at + size], min(segment, n - len(out)), lengths)
        at += size
    return out, lengths


def _decode_stream(data: bytes, n: int, lengths: Sequence[int]) -> bytes:
    """Decode ``n`` symbols, which must take all the bits (4.2.2)."""
    log = max(lengths)
    table = [0] * (1 << log)
    for symbol, code in enumerate(codes(lengths)):
        if code:
            first = int(code.ljust(log, "0"), 2)
            run = 1 << (log - len(code))
            table[first : first + run] = [symbol] * run
    bits = open_bits(data)
    padded = bits + "0" * log
    out = bytearray()
    pos = 0
    while len(out) < n and pos < len(bits):
        symbol = table[int(padded[pos : pos + log], 2)]
        out.append(symbol)
        pos += lengths[symbol]
    if len(out) != n or pos != len(bits):
        raise ValueError("Huffman stream not used up exactly")
    return bytes(out)


# --- encoder --------------------------------------------------------------------------------------


@dataclass
class _Tree:
    """A tree that can be written, or nothing (no lengths)."""

    lengths: list[int] = field(default_factory=list)
    description: bytes = b""

    @classmethod
    def of(cls, counts: Sequence[int]) -> _Tree:
        lengths = code_lengths(counts)
        description = write_tree(lengths) if lengths else None
        return cls() if description is None else cls(lengths, description)


class _Block:
    """What the encoder knows of a block before it writes it."""

    def __init__(self, content: bytes) -> None:
        n = len(content)
        segment = (n + 3) // 4 if n >= FOUR_STREAMS else n
        self.content = content
        self.streams = [content[at : at + segment] for at in range(0, n, segment)]
        self.counts = [[stream.count(s) for s in range(256)] for stream in self.streams]
        self.constant = n > 1 and content.count(content[:1]) == n
        self.raw_nbytes = 3 + n
        self.size_format = 0 if n < 1024 else 2 if n < 16384 else 3
        self.own = 0

    def stream_nbytes(self, tree: _Tree) -> list[int] | None:
        """Return the exact size of each stream, or None when a symbol has no code."""
        sizes = []
        lengths = tree.lengths
        for counts in self.counts:
            if any(counts[len(lengths) :]):
                return None
            if any(c and not length for c, length in zip(counts, lengths, strict=False)):
                return None
            bits = sum(c * length for c, length in zip(counts, lengths, strict=False))
            sizes.append(bits // 8 + 1)
        return sizes

    def coded_nbytes(self, tree: _Tree) -> int | None:
        """Return the size of the whole block without the tree, or None."""
        sizes = self.stream_nbytes(tree)
        if sizes is None:
            return None
        head = 3 if self.size_format == 0 else self.size_format + 2
        return 3 + head + (6 if len(sizes) == 4 else 0) + sum(sizes) + 1

    def least_nbytes(self, tree: _Tree) -> int:
        coded = self.coded_nbytes(tree)
        return self.raw_nbytes if coded is None else min(coded, self.raw_nbytes)


def _joint(blocks: Sequence[_Block]) -> tuple[int, _Tree]:
    """Return what blocks take with one tree for all, and the tree; none if all are better raw."""
    blocks = [block for block in blocks if not block.constant]
    tree = _Tree.of(
        [sum(sums) for sums in zip(*(c for b in blocks for c in b.counts), strict=True)]
    )
    raw = sum(block.raw_nbytes for block in blocks)
    coded = sum(block.least_nbytes(tree) for block in blocks) + len(tree.description)
    return (coded, tree) if tree.lengths and coded < raw else (raw, _Tree())


def encode(content: bytes, block_nbytes: int = BLOCK) -> bytes:
    """Encode a frame, in blocks of so much content: the same bytes as the kernel's."""
    content = bytes(content)
    n = len(content)
    flag = 0 if n < 256 else 1 if n < 65536 + 256 else 2
    out = [MAGIC.to_bytes(4, "little"), bytes([flag << 6 | 1 << 5])]
    out.append((n - 256 if flag == 1 else n).to_bytes(1 << flag, "little"))
    blocks = [_Block(content[at : at + block_nbytes]) for at in range(0, n, block_nbytes)]
    tree, live = _Tree(), False  # live: the decoder knows it
    for at in range(0, len(blocks), GROUP):
        for run, (joint, draft) in _plan(blocks[at : at + GROUP]):
            kept = sum(block.least_nbytes(tree) for block in run if not block.constant)
            if draft.lengths and (not live or kept > joint + (joint >> MARGIN)):
                tree, live = draft, False
            for block in run:
                coded, live = _encode_block(block, tree, live)
                out.append(coded)
    if not out[3:]:
        out.append(bytes(3))
    out[-1] = bytes([out[-1][0] | 1]) + out[-1][1:]  # the last block
    return b"".join(out)


def _plan(blocks: list[_Block]) -> list[tuple[list[_Block], tuple[int, _Tree]]]:
    """Cut a group into runs that share a tree: halve until one is as small as one a block."""
    if len(blocks) > 1:
        for block in blocks:
            block.own = _joint([block])[0]
    todo, runs = [blocks], []
    while todo:
        run = todo.pop()
        joint = _joint(run)
        split = sum(block.own for block in run)
        if len(run) > 1 and joint[0] > split + (split >> MARGIN):
            # halves of the original numbering: the first is the shorter where they differ
            todo += [run[len(run) // 2 :], run[: len(run) // 2]]
        else:
            runs.append((run, joint))
    return runs


def _encode_block(block: _Block, tree: _Tree, live: bool) -> tuple[bytes, bool]:
    """Encode one block; return it, and whether the decoder knows the tree after it."""
    n = len(block.content)
    if block.constant:
        return _block_header(RLE, n) + block.content[:1], live
    nbytes = block.coded_nbytes(tree)
    if nbytes is not None and not live:
        nbytes += len(tree.description)
    if nbytes is None or nbytes + (n >> MARGIN) >= block.raw_nbytes:
        return _block_header(RAW, n) + block.content, live
    words = codes(tree.lengths)
    streams = [close_bits("".join([words[s] for s in stream])) for stream in block.streams]
    data = b"" if live else tree.description
    if len(streams) == 4:
        data += b"".join(len(stream).to_bytes(2, "little") for stream in streams[:3])
    data += b"".join(streams)
    head, width = {2: (4, 14), 3: (5, 18)}.get(block.size_format, (3, 10))
    kind = TREELESS if live else COMPRESSED
    # size format 0 is a single stream, and the sizes 10 bits wide
    fields = kind | block.size_format << 2 | n << 4 | len(data) << (4 + width)
    section = fields.to_bytes(head, "little") + data
    return _block_header(COMPRESSED, len(section) + 1) + section + b"\0", True


def _block_header(kind: int, size: int) -> bytes:
    return (kind << 1 | size << 3).to_bytes(3, "little")
