"""The work of the demo's agents as a plain function, for the check at the end: a direct computation."""

from __future__ import annotations

from typing import Any

LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
BLANKS = " \t\r\n\v\f"


def count(text: str, n: int) -> dict[str, Any]:
    """The number of words between blanks, and the n most frequent runs of four or more ASCII letters.

    Written letter by letter, unlike the agents' own ways, so that a common mistake would show.
    """
    words, inside = 0, False
    frequent: dict[str, int] = {}
    run = ""
    for char in text + " ":
        blank = char in BLANKS
        words += not blank and not inside
        inside = not blank
        if char in LETTERS:
            run += char.lower()
        else:
            if len(run) >= 4:
                frequent[run] = frequent.get(run, 0) + 1
            run = ""
    top = sorted(frequent.items(), key=lambda item: (-item[1], item[0]))[:n]
    return {"words": words, "top": [list(item) for item in top]}
