"""Which tensors of a base a model's tensors are made from, and the bytes of such a reference.

``source`` reads the tensors of any model; ``digests`` tells models apart; ``elements`` counts what
an alignment counts; ``pieces`` says what an alignment is; ``casts`` and ``gather`` make the bytes
that it describes. ``search`` looks for alignments: by content, by ``names``, by ``samples`` that
are ``similar``, and by ``axes`` of tensors seen as ``matrices``.
"""

from __future__ import annotations

from z4ai.align.casts import cast
from z4ai.align.digests import (
    DIGEST_NBYTES,
    model_digest,
    tensor_digest,
    tensor_digests,
)
from z4ai.align.elements import castable, item_nbytes, n_items
from z4ai.align.gather import reference_of, reference_of_elements
from z4ai.align.pieces import MAX_PIECES, Alignment, Piece, check_alignment, nbytes_of, whole
from z4ai.align.search import align
from z4ai.align.source import ByName, FileTensors, TensorSource

__all__ = [
    "DIGEST_NBYTES",
    "MAX_PIECES",
    "Alignment",
    "ByName",
    "FileTensors",
    "Piece",
    "TensorSource",
    "align",
    "cast",
    "castable",
    "check_alignment",
    "item_nbytes",
    "model_digest",
    "n_items",
    "nbytes_of",
    "reference_of",
    "reference_of_elements",
    "tensor_digest",
    "tensor_digests",
    "whole",
]
