"""A frame on the wire: `header`, `chunk` and `trailer`, and all of them by one name.

Nothing here decodes content: what a frame says of itself is parsed and checked, or written.
"""

from __future__ import annotations

from z4ai.frame.chunk import (
    CHUNK_FIXED_NBYTES,
    CHUNK_HEAD_NBYTES,
    CHUNK_SIZES_NBYTES,
    CHUNK_STREAM_NBYTES,
    MIN_CHUNK_NBYTES,
    chunk_params,
    least_chunk_nbytes,
    most_chunk_nbytes,
    parse_chunk_header,
    parse_chunk_sizes,
    write_chunk_headers,
)
from z4ai.frame.header import (
    MAX_CHUNK_NBYTES,
    RECORD_HEADER_NBYTES,
    FrameHeader,
    Reference,
    checksum_of,
    header_claim,
    models_of,
    parse_header,
    write_header,
)
from z4ai.frame.trailer import (
    TRAILER_END_NBYTES,
    is_end_mark,
    parse_trailer,
    parse_trailer_claim,
    trailer_nbytes,
    write_trailer,
)

__all__ = [
    "CHUNK_FIXED_NBYTES",
    "CHUNK_HEAD_NBYTES",
    "CHUNK_SIZES_NBYTES",
    "CHUNK_STREAM_NBYTES",
    "MAX_CHUNK_NBYTES",
    "MIN_CHUNK_NBYTES",
    "RECORD_HEADER_NBYTES",
    "TRAILER_END_NBYTES",
    "FrameHeader",
    "Reference",
    "checksum_of",
    "chunk_params",
    "header_claim",
    "is_end_mark",
    "least_chunk_nbytes",
    "models_of",
    "most_chunk_nbytes",
    "parse_chunk_header",
    "parse_chunk_sizes",
    "parse_header",
    "parse_trailer",
    "parse_trailer_claim",
    "trailer_nbytes",
    "write_chunk_headers",
    "write_header",
    "write_trailer",
]
