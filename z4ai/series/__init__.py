"""A run of checkpoints in a folder: keyframes, deltas, and a manifest that says what is what.

``manifest`` knows the manifest on the wire; ``folder`` changes a folder so that a crash loses
nothing; ``chain`` reads a step through what it depends on; ``choice`` finds what to store a step
against; ``series`` is the door.
"""

from __future__ import annotations

from z4ai.series.manifest import Step
from z4ai.series.series import DEFAULT_DEPTH, Report, Series

__all__ = ["DEFAULT_DEPTH", "Report", "Series", "Step"]
