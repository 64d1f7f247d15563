"""Compiles the engine with mypyc: from its typed Python, with the same results.

    python broker/native/engine.py FOLDER

puts a copy of the package there with the compiled modules in it, unless it is there already: with FOLDER in
PYTHONPATH the broker runs from it. Wheels have these modules. Where they are the sources beside them are not
read, so the environment of `make setup` has none. `MQ9_PURE=1` in the environment: nobody wants them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import build

# What is carried out for each request. What defines msgspec.Structs is left out: mypyc does not know them.
MODULES = (
    "dead_letters",
    "engine",
    "fetching",
    "groups",
    "keys",
    "mailbox",
    "ranges",
    "rendering",
    "segments",
    "sending",
    "settling",
    "state",
    "timers",
    "transaction",
    "walking",
)
# Of what mypyc makes, besides one file for each module.
GROUP = "mq9_broker_engine"
_SETUP = """\
import sys

from mypyc.build import mypycify
from setuptools import setup

modules = mypycify(sys.argv[2:], opt_level="1", debug_level="0", group_name=sys.argv[1])
setup(name=sys.argv[1], packages=[], ext_modules=modules, script_args=["-q", "build_ext", "--inplace"])
"""
_STAMP = "compiled-from"
_TIMEOUT_S = 900


def why_not() -> str:
    """Say what is missing to compile; empty = nothing."""
    return build.why_not() or ("" if _versions() else "mypy and setuptools are not installed")


def _versions() -> str:
    try:
        return " ".join(f"{name} {version(name)}" for name in ("mypy", "setuptools", "msgspec"))
    except PackageNotFoundError:
        return ""


def _state() -> str:
    """What the compiled modules are made from, and with what."""
    total = hashlib.sha256(f"{_versions()} {sys.version} {sys.platform}".encode())
    for path in sorted([Path(__file__), *build.PACKAGE.rglob("*")]):
        if path.is_file() and "__pycache__" not in path.parts:
            total.update(f"\0{path.name}\0".encode() + path.read_bytes())
    return total.hexdigest()


def compile_engine(folder: Path) -> str:
    """Compile a copy of the package in a folder, unless that is done; return why it was impossible, or ""."""
    reason = why_not() or build.build()
    if reason:
        return reason
    state = _state()
    if _is_from(folder, state):
        return ""
    # Beside its place and then moved there: somebody else may be at the same.
    fresh = folder.with_name(f"{folder.name}.{os.getpid()}")
    try:
        shutil.copytree(
            build.PACKAGE, fresh / build.PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__")
        )
        reason = _run_mypyc(fresh)
        if not reason and not _is_from(folder, state):
            (fresh / _STAMP).write_text(state, "utf-8")
            shutil.rmtree(folder, ignore_errors=True)
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return reason


def _is_from(folder: Path, state: str) -> bool:
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text("utf-8") == state


def _run_mypyc(folder: Path) -> str:
    """Compile in a folder; return what went wrong, or ""."""
    modules = [f"{build.PACKAGE.name}/engine/{name}.py" for name in MODULES]
    done = subprocess.run(
        [sys.executable, "-c", _SETUP, GROUP, "--config-file=", "--ignore-missing-imports", *modules],
        cwd=folder,
        env={**os.environ, "CFLAGS": "-g0", "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if done.returncode != 0:
        return f"mypyc failed:\n{(done.stdout + done.stderr).strip()[-4000:]}"
    for left in ("build", ".mypy_cache"):
        shutil.rmtree(folder / left, ignore_errors=True)
    return ""


def compiled_files(folder: Path) -> list[Path]:
    """The files that `compile_engine` made in a folder, as paths from there."""
    package = build.PACKAGE.name
    found = [*folder.glob(f"{GROUP}__mypyc.*"), *(folder / package / "engine").glob("*.so")]
    return sorted(path.relative_to(folder) for path in found)


def main() -> int:
    """Compile, and say so where that was impossible."""
    if len(sys.argv) != 2:
        print(f"usage: {Path(sys.argv[0]).name} FOLDER", file=sys.stderr)
        return 2
    reason = compile_engine(Path(sys.argv[1]).resolve())
    if reason:
        print(f"the engine stays in Python, which is slower: {reason}", file=sys.stderr)
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main())
