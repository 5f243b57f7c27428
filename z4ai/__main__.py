"""`python -m z4ai`."""

from __future__ import annotations

import sys

from z4ai.cli import main

if __name__ == "__main__":
    sys.exit(main())
