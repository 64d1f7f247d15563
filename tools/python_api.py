"""Writes the list of the Python SDK's public names, so that a review sees each change of them.

`python tools/python_api.py` writes sdks/python/api.txt; with `--check` it only compares.
"""

from __future__ import annotations

import argparse
import difflib
import inspect
import sys
from pathlib import Path
from typing import Any

import mq9

LIST = Path(__file__).resolve().parent.parent / "sdks" / "python" / "api.txt"
SPECIAL = {"__aenter__", "__aexit__", "__aiter__", "__await__", "__init__"}


def lines_of_class(name: str, kind: type) -> list[str]:
    """A class with its bases, annotated attributes, properties and methods; inherited ones of ours too."""
    bases = ", ".join(base.__name__ for base in kind.__bases__ if base is not object)
    lines = [f"class {name}({bases})" if bases else f"class {name}"]
    members: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not owner.__module__.startswith("mq9"):
            continue
        for attribute, annotation in inspect.get_annotations(owner).items():
            if not attribute.startswith("_"):
                members[attribute] = f"{attribute}: {annotation}"
        for attribute, value in vars(owner).items():
            if attribute.startswith("_") and attribute not in SPECIAL:
                continue
            if text := member(attribute, value):
                members[attribute] = text
    return [*lines, *(f"    {members[attribute]}" for attribute in sorted(members))]


def member(name: str, value: Any) -> str:
    """One member of a class as a line; empty for what is no part of the interface."""
    if isinstance(value, property):
        returns = inspect.signature(value.fget).return_annotation if value.fget else ""
        return f"{name}: {returns} (property)"
    function = value.__func__ if isinstance(value, (staticmethod, classmethod)) else value
    return signature(name, function) if inspect.isfunction(function) else ""


def signature(name: str, function: Any) -> str:
    """A function as a line; `async def` where it has to be awaited."""
    word = "async def" if inspect.iscoroutinefunction(function) else "def"
    return f"{word} {name}{inspect.signature(function)}"


def listing() -> str:
    """Every public name, sorted."""
    blocks: list[str] = []
    for name in sorted(mq9.__all__):
        value = getattr(mq9, name)
        if isinstance(value, type):
            blocks.append("\n".join(lines_of_class(name, value)))
        elif inspect.isfunction(value):
            blocks.append(signature(name, value))
        elif isinstance(value, str):
            blocks.append(f"{name}: str")
        else:
            blocks.append(f"{name} = {value}")
    return "\n\n".join(blocks) + "\n"


def main() -> int:
    """Writes or compares the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--check", action="store_true", help="compare only; exit code 1 if it differs")
    options = parser.parse_args()
    text = listing()
    if not options.check:
        LIST.write_text(text, "utf-8")
        return 0
    old = LIST.read_text("utf-8") if LIST.exists() else ""
    if old == text:
        return 0
    difference = difflib.unified_diff(old.splitlines(), text.splitlines(), "api.txt", "now", lineterm="")
    print("\n".join(difference))
    print("the public API has changed; if that is meant: make api")
    return 1


if __name__ == "__main__":
    sys.exit(main())
