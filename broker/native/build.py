"""Compiles mq9_broker._native into src/mq9_broker/, for the Python that runs this.

    python broker/native/build.py

Without a C compiler, or without Python's header files, it says so and leaves everything as it is: the broker
then does the same in Python. `MQ9_PURE=1` in the environment means that nobody wants it.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

NATIVE = Path(__file__).resolve().parent
PACKAGE = NATIVE.parent / "src" / "mq9_broker"
_FLAGS = [
    "-std=c11",
    "-O2",
    "-fPIC",
    "-pthread",
    "-fvisibility=hidden",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-DNDEBUG",
]
_COMPILE_TIMEOUT_S = 300


def module_file() -> Path:
    """Where the module belongs, for the Python that runs this."""
    return PACKAGE / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"


def why_not() -> str:
    """Say what is missing to compile; empty = nothing."""
    if os.environ.get("MQ9_PURE"):
        return "MQ9_PURE is set"
    if os.name != "posix" or sys.implementation.name != "cpython":
        return f"not made for {sys.implementation.name} on {sys.platform}"
    if not _compiler():
        return "no C compiler found (CC, or cc, gcc, clang on the path)"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return f"no Python.h in {sysconfig.get_path('include')}"
    return ""


def _compiler() -> list[str]:
    names = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc", "gcc", "clang"]
    commands = (shlex.split(name) for name in names if name)
    return next((command for command in commands if command and shutil.which(command[0])), [])


def build() -> str:
    """Compile, unless that is done already; return why it was impossible, empty = the module is there."""
    target = module_file()
    sources = sorted(NATIVE.glob("*.c"))
    if target.exists() and all(
        target.stat().st_mtime > file.stat().st_mtime
        for file in (*sources, *NATIVE.glob("*.h"), Path(__file__))
    ):
        return ""
    reason = why_not()
    if reason:
        return reason
    linking = ["-bundle", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
    # Beside its place and then moved there: a running broker keeps the file that it has.
    fresh = target.with_name(f"{target.name}.{os.getpid()}")
    include = sysconfig.get_path("include")
    command = [*_compiler(), *_FLAGS, *linking, f"-I{include}", "-o", str(fresh), *map(str, sources)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_COMPILE_TIMEOUT_S
        )
        if done.returncode != 0:
            return f"{shlex.join(command)} failed:\n{done.stderr.strip()[-2000:]}"
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)
    return ""


def main() -> int:
    """Compile, and say so where that was impossible, which is no failure."""
    reason = build()
    if reason:
        print(f"mq9-broker without its compiled parts, which is slower: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
