"""A run of checkpoints in a folder: keyframes, deltas, and a manifest that says what is what.

``manifest`` knows the manifest on the wire; ``folder`` changes a folder so that a crash loses
nothing; ``chain`` reads a step through what it depends on, ``opening`` finds its files while others
change them; ``choice`` finds what to store a step against, ``storing`` stores it; ``dropping``
stores anew what depends on a step that goes; ``reading`` and ``series`` are the doors, to look and
to change.
"""

from __future__ import annotations

from z4ai.series.manifest import Step
from z4ai.series.reading import Report
from z4ai.series.series import DEFAULT_DEPTH, Series

__all__ = ["DEFAULT_DEPTH", "Report", "Series", "Step"]
