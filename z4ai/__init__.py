"""Lossless compression of AI model weights."""

from __future__ import annotations

__version__ = "0.1.0"
