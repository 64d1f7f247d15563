"""Says which programs an SDK needs that are not on PATH; nothing if all are there."""

from __future__ import annotations

import sys
from pathlib import Path

from mq9_conformance.adapter import find_adapters


def main() -> int:
    """Prints what is missing for the SDK named."""
    root = Path(__file__).resolve().parent.parent
    for config in find_adapters(root):
        if config.folder.parent.name == sys.argv[1] and (missing := config.missing()):
            print(missing)
    return 0


if __name__ == "__main__":
    sys.exit(main())
