"""Low-rank deltas: a merged adapter is a product of two thin matrices, and nobody looks.

Specification: docs/format/codecs/lowrank.md.
"""

from __future__ import annotations

from z4ai.lowrank.factors import Factors, decode_factors, encode_factors, predict
from z4ai.lowrank.find import find_factors

__all__ = ["Factors", "decode_factors", "encode_factors", "find_factors", "predict"]
