"""Settings of the whole suite: hypothesis profiles, the `slow` marker, which z4ai is tested."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent

# No deadline: the machines that run this share their cores, and a slow example is not a bug.
COMMON = {"deadline": None, "print_blob": True}
settings.register_profile("dev", max_examples=50, **COMMON)
settings.register_profile(
    "ci", max_examples=100, derandomize=True, suppress_health_check=[HealthCheck.too_slow], **COMMON
)
settings.register_profile(
    "nightly", max_examples=5000, suppress_health_check=[HealthCheck.too_slow], **COMMON
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow too")


def pytest_configure(config: pytest.Config) -> None:
    """Stop at once if `make test` would test the source tree instead of what it installed."""
    spec = importlib.util.find_spec("z4ai")
    if spec is None or spec.origin is None:
        raise pytest.UsageError("z4ai is not installed: use 'make test', or set PYTHONPATH")
    from_tree = Path(spec.origin).resolve().is_relative_to(ROOT / "z4ai")
    if os.environ.get("Z4AI_TEST_INSTALLED") and from_tree:
        raise pytest.UsageError(f"the installed z4ai is shadowed by the source tree: {spec.origin}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    import z4ai

    return [f"z4ai {z4ai.__version__} from {Path(z4ai.__file__).parent}", *_native_header()]


def _native_header() -> list[str]:
    try:
        from z4ai._fast import _dispatch
    except ImportError as error:
        return [f"z4ai kernels: not importable ({error})"]
    return [f"z4ai kernels: {_dispatch.current()} of {', '.join(_dispatch.runnable())}"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
