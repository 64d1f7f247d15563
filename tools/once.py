"""Runs a command unless it already passed on exactly these files with these tools.

`once.py NAME [--tool COMMAND]... [--file PATH]... -- COMMAND` is called in the folder whose files the command
reads. Their names and contents, those of the files named beside them, and what the tools say of their
versions are summed up; after a success the sum is kept in .cache/once/NAME. With STRICT=1 in the environment,
as .ci/run has it, the command always runs, and what came of it is kept too. Where git cannot tell what
belongs to the folder it always runs as well.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def files(folder: Path) -> list[Path]:
    """What the folder holds that is not ignored by git, sorted; nothing where git does not know it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return []
    return sorted(folder / os.fsdecode(name) for name in set(done.stdout.split(b"\0")) if name)


def state(paths: list[Path], tools: list[str], command: list[str]) -> str:
    """A sum over the command, versions of tools, and names and contents of files."""
    total = hashlib.sha256(repr(command).encode())
    for tool in tools:
        done = subprocess.run(tool, shell=True, capture_output=True, check=True)
        total.update(b"\0tool\0" + done.stdout + done.stderr)
    for path in paths:
        # A file that git knows and the folder has lost counts by its name.
        content = path.read_bytes() if path.is_file() else b"gone"
        total.update(f"\0{path}\0{len(content)}\0".encode() + content)
    return total.hexdigest()


def main() -> int:
    """Runs the command if it has to be run; its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("name")
    parser.add_argument("--tool", action="append", default=[])
    parser.add_argument("--file", action="append", default=[], type=Path)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    found = files(Path.cwd())
    if not found:
        return subprocess.call(options.command)
    paths = [*found, *(path.resolve() for path in options.file)]
    now = state(paths, options.tool, options.command)
    kept = ROOT / ".cache" / "once" / options.name
    if os.environ.get("STRICT") != "1" and kept.is_file() and kept.read_text("utf-8") == now:
        return 0
    kept.unlink(missing_ok=True)
    code = subprocess.call(options.command)
    # A file that changed meanwhile was perhaps not seen.
    if code == 0 and state(paths, options.tool, options.command) == now:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(now, "utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
