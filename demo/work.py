"""The work that the demo's agents do, as plain functions, which the check at the end calls too."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

PATTERN = r"\b(message|mailbox|agent)s?\b"


def count(text: str) -> dict[str, Any]:
    """Lines, words and characters, and the five most frequent words of four letters or more."""
    words = re.findall(r"\w+", text)
    frequent = Counter(word.lower() for word in words if len(word) > 3)
    top = sorted(frequent.items(), key=lambda item: (-item[1], item[0]))[:5]
    return {
        "lines": text.count("\n"),
        "words": len(words),
        "characters": len(text),
        "frequent": [list(t) for t in top],
    }


def locate(text: str) -> dict[str, Any]:
    """Line and column, both from 1, of every match of PATTERN."""
    found = [
        [number, match.start() + 1]
        for number, line in enumerate(text.splitlines(), 1)
        for match in re.finditer(PATTERN, line, re.IGNORECASE)
    ]
    return {"pattern": PATTERN, "matches": len(found), "positions": found}


def outline(text: str) -> dict[str, Any]:
    """The headings of a Markdown text as a table of contents: [level, title]."""
    headings: list[list[Any]] = []
    fenced = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        match = re.match(r"(#{1,6})\s+(.+?)\s*#*$", line)
        if match and not fenced:
            headings.append([len(match[1]), match[2]])
    return {"headings": headings}


WORK: dict[str, Callable[[str], dict[str, Any]]] = {
    "mcp-wordcounter": count,
    "lsp-tools": locate,
    "neurolorap-code-collector": outline,
}
