"""The codecs of a stream, by wire id. Specification: docs/format/codecs."""

from __future__ import annotations

STORE, CONSTANT, ZSTD, CONTEXTS, FRAME, BROTLI = range(6)

CODECS = {
    STORE: "store",
    CONSTANT: "constant",
    ZSTD: "zstd",
    CONTEXTS: "contexts",
    FRAME: "frame",
    BROTLI: "brotli",
}
