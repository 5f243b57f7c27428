"""Hypothesis profiles of the suite: dev, ci, nightly, chosen by HYPOTHESIS_PROFILE."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings

# No deadline: the machines that run this share their cores, and a slow example is not a bug.
COMMON: dict[str, Any] = {
    "deadline": None,
    "print_blob": True,
    "suppress_health_check": [HealthCheck.too_slow],
}
settings.register_profile("dev", max_examples=50, **COMMON)
settings.register_profile("ci", max_examples=100, derandomize=True, **COMMON)
settings.register_profile("nightly", max_examples=5000, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
