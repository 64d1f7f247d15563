"""Starts the Python adapter with one broken piece in it, the one that MQ9_MUTANT names."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from .adapters import install


def main() -> None:
    """Runs the adapter in the current folder."""
    sys.path.insert(0, str(Path.cwd()))
    install(os.environ["MQ9_MUTANT"])
    importlib.import_module("adapter").main()


if __name__ == "__main__":
    main()
