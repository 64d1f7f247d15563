"""Projects that tests compile. They stay in `.cache`, and only what changed is written: compilers then do
again only what they have to, and a project of which nothing changed is not compiled again."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CACHE = ROOT / ".cache"
# What compilers and package managers make.
MADE = ("node_modules", "target", "classes", "obj", "bin", "dist", "temp", "__pycache__")


def need(*programs: str) -> None:
    """Fails under STRICT=1 if a program is missing, else shows that the test did not run."""
    missing = [program for program in programs if shutil.which(program) is None]
    if not missing:
        return
    reason = f"NOT RUN: {', '.join(missing)} not installed"
    if os.environ.get("STRICT") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def run(*command: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> tuple[str, str]:
    """Runs a program that has to succeed; returns what it wrote to stdout and to stderr."""
    done = subprocess.run(
        command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
    )
    said = f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}{done.stderr[-4000:]}"
    assert done.returncode == 0, said
    return done.stdout, done.stderr


@contextmanager
def project(name: str) -> Iterator[Path]:
    """A folder that stays, for one test at a time."""
    folder = CACHE / "codegen-tests" / name
    folder.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _state(paths: list[Path], tools: list[str]) -> str:
    """The sum over files and versions of tools that tools/once.py makes."""
    spec = importlib.util.spec_from_file_location("once", ROOT / "tools" / "once.py")
    assert spec and spec.loader
    once: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(once)
    state: str = once.state(paths, tools, [])
    return state


@contextmanager
def build(folder: Path, *tools: str) -> Iterator[bool]:
    """Says whether a project has to be compiled: not if that went well on exactly these files before.

    As with linters (tools/once.py), STRICT=1 in the environment always has it compiled.

    Args:
        folder: Where the project is. What compilers make there does not count, what else is there does.
        tools: Commands that say the versions of what compiles it.
    """
    paths = [path for path in folder.rglob("*") if path.is_file()]
    sources = [path for path in paths if not set(path.relative_to(folder).parts[:-1]).intersection(MADE)]
    now = _state([*sorted(sources), *sorted(HERE.glob("*.py"))], [*tools])
    kept = folder.with_name(f".{folder.name}.built")
    needed = os.environ.get("STRICT") == "1" or not kept.is_file() or kept.read_text("utf-8") != now
    if needed:
        kept.unlink(missing_ok=True)
    yield needed
    if needed:
        kept.write_text(now, "utf-8")


def mirror(source: Path, target: Path, left_alone: Collection[str] = ()) -> None:
    """Makes the files of target those of source, without touching what is equal.

    Args:
        source: Where the files come from.
        target: Where they go.
        left_alone: Names that are neither copied nor deleted, at any depth; what is generated there, and
            what compilers make. A `*` at the end stands for anything.
    """

    def is_left_alone(name: str) -> bool:
        return any(name == p or (p.endswith("*") and name.startswith(p[:-1])) for p in left_alone)

    target.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in source.iterdir() if not is_left_alone(path.name)}
    for path in list(target.iterdir()):
        if path.name in names or is_left_alone(path.name):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name in names:
        old, new = source / name, target / name
        if old.is_dir():
            mirror(old, new, left_alone)
        elif not new.is_file() or new.read_bytes() != old.read_bytes():
            shutil.copy(old, new)
