"""Starts the Python adapter with one broken piece in it, the one that MQ9_MUTANT names."""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from .adapters import install


def preload() -> None:
    """Loads the adapter in the current folder, for processes that are forked too."""
    sys.path.insert(0, str(Path.cwd()))
    importlib.import_module("adapter")


def main() -> int:
    """Runs the adapter."""
    install(os.environ["MQ9_MUTANT"])
    importlib.import_module("adapter").main()
    return 0


if __name__ == "__main__":
    preload()
    sys.exit(main())
