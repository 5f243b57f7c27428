"""Stages: chunks with a structure, taken apart into parts. Specification: docs/format/codecs."""
