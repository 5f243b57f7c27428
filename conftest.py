"""Which z4ai is under test, for tests/ and bench/ alike."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent

# Last on the path, so that `bench` and `tests` can be imported while an installed z4ai still wins.
sys.path.append(str(ROOT))


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

    try:
        from z4ai._fast import _dispatch
    except ImportError as error:
        kernels = f"not importable ({error})"
    else:
        kernels = f"{_dispatch.current()} of {', '.join(_dispatch.runnable())}"
    return [
        f"z4ai {z4ai.__version__} from {Path(z4ai.__file__).parent}",
        f"z4ai kernels: {kernels}",
    ]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
