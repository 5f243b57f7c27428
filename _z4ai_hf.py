"""Waits until safetensors is imported, and has it read compressed files then.

`z4ai_hf.pth` imports this at the start of every Python whose environment has Z4AI_ENABLE_HF. It is
no part of the package z4ai, since importing a part imports the whole, and most programs that are
started under that environment never load weights.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # not even typing, nor __future__
    from typing import Any

__all__ = ["is_waiting", "stop"]

_NAME = "safetensors"
_OFF = ("", "0", "false", "no", "off")


class _Finder:
    """Finds safetensors as the others do, and puts a word in when it is loaded."""

    waits = True

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != _NAME or not self.waits:
            return None
        for finder in sys.meta_path:
            find = getattr(finder, "find_spec", None)
            spec = None if finder is self or find is None else find(name, path, target)
            if spec is not None:
                if hasattr(spec.loader, "exec_module"):
                    spec.loader = _Loader(spec.loader)
                return spec
        return None


class _Loader:
    """Loads by another loader, takes itself out of the way, and enables."""

    def __init__(self, loader: "Any") -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> "Any":
        return getattr(self._loader, name)

    def create_module(self, spec: "Any") -> "Any":
        return self._loader.create_module(spec)

    def exec_module(self, module: "Any") -> None:
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        if not _FINDER.waits:
            return
        stop()
        try:
            from z4ai import enable_hf  # noqa: PLC0415 - what this module is there to put off

            enable_hf()
        except Exception as error:
            # Plain files can still be read: no reason to fail the import of safetensors.
            import warnings  # noqa: PLC0415 - seldom needed

            warnings.warn(
                f"Z4AI_ENABLE_HF is set, but compressed weights cannot be read: {error!r}",
                RuntimeWarning,
                stacklevel=2,
            )


# It stays where it is for good: to take it out would shift the others under threads that import.
_FINDER = _Finder()


def is_waiting() -> bool:
    """Tell whether safetensors is still to be imported, and will be enabled then."""
    return _FINDER.waits


def stop() -> None:
    """Wait no more."""
    _FINDER.waits = False


if os.environ.get("Z4AI_ENABLE_HF", "").strip().lower() in _OFF or _NAME in sys.modules:
    stop()
else:
    sys.meta_path.insert(0, _FINDER)
