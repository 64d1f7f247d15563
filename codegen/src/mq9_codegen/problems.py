"""What is wrong with a specification, and where: the only way to report mistakes of a person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]
"""Where a value stands inside a YAML document: keys and list indexes from the top."""


@dataclass(frozen=True, order=True)
class Problem:
    """One mistake, with the place that a person has to edit.

    Attributes:
        file: File name as it was given (relative names stay relative).
        line: Line number from 1, or 0 where no single line is to blame.
        message: What is wrong.
        expected: What was expected instead; empty where the message says it all.
    """

    file: str
    line: int
    message: str
    expected: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" + (f"; expected {self.expected}" if self.expected else "")


class SpecError(Exception):
    """The specification, a target or a template is wrong; `problems` says where, all of them at once."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = sorted(set(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shown(value: object, limit: int = 60) -> str:
    """Writes a value from a YAML file as a person would recognise it, cut to `limit` characters."""
    if value is None:
        text = "null"
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, str):
        text = f"'{value}'"
    elif isinstance(value, dict):
        text = "a mapping"
    elif isinstance(value, list):
        text = "a list"
    else:
        text = str(value)
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint such as ` (did you mean 'ttl'?)` if a known name resembles `name`, else an empty text."""
    import difflib  # noqa: PLC0415 - only needed once something is wrong

    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.7)
    return f" (did you mean '{close[0]}'?)" if close else ""
