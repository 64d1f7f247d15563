"""Runs tests of the broker with its engine compiled, as wheels have it.

python broker/tests/compiled.py [PYTEST_ARGUMENT...]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "build" / "compiled"
# Where the engine is: alone, below the shell, in a process that is asked, backed up and killed.
PATHS = [f"broker/tests/{name}" for name in ("engine", "shell", "store", "process", "crash")]


def main() -> int:
    """Compile, then run pytest; its exit code."""
    compiled = subprocess.call([sys.executable, ROOT / "broker" / "native" / "engine.py", FOLDER])
    if compiled != 0:
        return compiled
    arguments = ["-m", "pytest", "-q", "-n", "2", "-m", "not interpreted", *PATHS, *sys.argv[1:]]
    return subprocess.call(
        [sys.executable, *arguments], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(FOLDER)}
    )


if __name__ == "__main__":
    sys.exit(main())
