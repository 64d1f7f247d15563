"""Runs the Python SDK's own tests on every supported Python that pyenv or PATH has, by tox.

The version of the environment itself is left out: its tests are a stage of their own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ["3.10", "3.11", "3.12", "3.13"]


def interpreters() -> list[str]:
    """Python programs to offer to tox: those of pyenv and those on PATH."""
    found: list[str] = []
    if pyenv := shutil.which("pyenv"):
        versions = Path(
            subprocess.run([pyenv, "root"], capture_output=True, text=True, check=True).stdout.strip()
        )
        for version in VERSIONS:
            found += map(str, sorted(versions.glob(f"versions/{version}.*/bin/python")))
    for version in VERSIONS:
        if on_path := shutil.which(f"python{version}"):
            found.append(on_path)
    return found


def main() -> int:
    """Runs tox; its exit code is ours."""
    reports = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "reports").resolve()
    environment = {**os.environ, "MQ9_REPORTS": str(reports), "UV_PYTHON_DOWNLOADS": "never"}
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    names = ",".join(f"py{version.replace('.', '')}" for version in VERSIONS if version != own)
    command = ["tox", "run-parallel", "-e", names, "--parallel", "all", "--discover", *interpreters()]
    return subprocess.run(command, cwd=ROOT / "sdks" / "python", env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
