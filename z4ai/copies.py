"""Long repeats of a content: found, left out of what is coded, and restored by copying.

The rules are those of docs/format/copies.md. A list of copies is an array with a row of
(dst, src, nbytes) for each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from z4ai._fast import repeats
from z4ai.errors import CorruptError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Copies = NDArray[np.uint64]

KIND = 2  # of the table record


def find(content: NDArray[np.uint8], width: int, *, thorough: bool = False) -> Copies:
    """Return the ranges of a content that occurred before, as a legal list.

    A glance at a sixteenth of the content decides whether all of it is searched.

    Parameters
    ----------
    content
        Flat and contiguous.
    width
        Bytes of an element, or of a row: what is not copied keeps its place within it.
    thorough
        Search without a glance first, which costs ten times as much.
    """
    return repeats.find(content, width=width, thorough=thorough)


def dense(content: NDArray[np.uint8], copies: Copies) -> NDArray[np.uint8]:
    """Return what is left of a content without its copied ranges."""
    out = np.empty(repeats.dense_nbytes(copies, content.size), np.uint8)
    repeats.dense(content, copies, out)
    return out


def encode_record(copies: Copies, content_nbytes: int) -> bytes:
    """Return the table record of a list of one copy or more, without the header of the record."""
    return repeats.write_record(copies, content_nbytes)


def decode_record(record: bytes | memoryview, content_nbytes: int) -> tuple[Copies, int]:
    """Read a table record, without the header of the record.

    Parameters
    ----------
    record
        All of its bytes.
    content_nbytes
        Size of the whole content. It is a claim: nothing of that size is allocated here.

    Returns
    -------
    copies, dense_nbytes
        The list, and the size of the content without the copied ranges.

    Raises
    ------
    CorruptError
        If the record, or the list in it, breaks a rule.
    """
    try:
        copies = repeats.read_record(record, content_nbytes)
    except repeats.CopiesError as error:
        msg = f"record of copies: {error} (content of {content_nbytes} bytes)"
        raise CorruptError(msg) from None
    return copies, repeats.dense_nbytes(copies, content_nbytes)


def pieces(copies: Copies, start: int, stop: int) -> list[tuple[int, int, int]]:
    """Map a range of the content to the dense content.

    Parameters
    ----------
    copies
        A legal list.
    start, stop
        A range of the content.

    Returns
    -------
    list of (offset, dense_offset, nbytes)
        In order and without gaps: so many bytes of the range, from this offset in it on, are those
        at the offset in the dense content.
    """
    dst, src, nbytes = (copies[:, k].astype(np.int64) for k in range(3))
    removed = np.concatenate([[0], np.cumsum(nbytes)])
    # every source is literal: its place in the dense content needs no second step
    dense_src = src - removed[np.searchsorted(dst, src, "right")]
    out = []
    pos = start
    k = int(np.searchsorted(dst + nbytes, start, "right"))  # the first copy that ends behind it
    while pos < stop:
        if k < len(dst) and pos >= dst[k]:
            end, place = dst[k] + nbytes[k], dense_src[k] + pos - dst[k]
            k += 1
        else:
            end, place = dst[k] if k < len(dst) else stop, pos - removed[k]
        end = min(int(end), stop)
        out.append((pos - start, int(place), end - pos))
        pos = end
    return out


def expand(out: NDArray[np.uint8], copies: Copies, dense_nbytes: int) -> None:
    """Restore a content in place: its dense content lies in the first bytes of ``out``."""
    repeats.expand(out, copies, dense_nbytes)
