"""The codecs of a stream, by wire id. Specification: docs/format/codecs."""

from __future__ import annotations

STORE, CONSTANT, ZSTD = range(3)

CODECS = {STORE: "store", CONSTANT: "constant", ZSTD: "zstd"}
