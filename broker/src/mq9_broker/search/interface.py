"""What the shell knows of search."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

import msgspec


class Hit(NamedTuple):
    """An agent that was found.

    Attributes:
        name: Its name.
        score: How well it matches; greater is better.
    """

    name: str
    score: float


class Query(msgspec.Struct, array_like=True, frozen=True):
    """What is looked for.

    Attributes:
        text: Words, or a sentence.
        by_meaning: Whether all agents are ranked by meaning; else those with any of the words are found.
        limit: The most agents to return.
        skip: Leave out that many from the beginning.
        after: Leave out this hit of an earlier search (name and score), and all before it.
        rarities: The numbers of that search.
    """

    text: str
    by_meaning: bool
    limit: int
    skip: int = 0
    after: tuple[str, float] | None = None
    rarities: list[int] | None = None


class Found(NamedTuple):
    """What was found.

    Attributes:
        hits: Best first, equal ones by name in byte order.
        rarities: How many agents there are, how many vectors have been made, and how many agents have each
            word; the next page needs the same.
    """

    hits: list[Hit]
    rarities: list[int]


class SearchError(Exception):
    """A search has no result; the message says why."""


class CursorError(SearchError):
    """The numbers of an earlier search do not belong to the query."""


Outcome = Found | SearchError
WhenFound = Callable[[Outcome], None]


class Agents(Protocol):
    """What is registered, as search sees it."""

    def body(self, name: str) -> bytes | None:
        """The body of a registered agent, None if it is not registered."""

    def some_after(self, name: str | None, count: int) -> list[tuple[str, bytes]]:
        """Some registered agents after a name, or from the first, in order: their names and bodies."""


class Search(Protocol):
    """An index of what is registered; answers may come later, in whatever order."""

    @property
    def by_meaning(self) -> bool:
        """Whether agents can be found by meaning."""

    @property
    def agents(self) -> int:
        """How many agents there are."""

    def start(self) -> None:
        """Take in all that is registered, and nothing of what was taken in before."""

    def changed(self, name: str) -> None:
        """Take in that an agent was registered, replaced or removed; every later question sees it."""

    def ask(self, query: Query, when_found: WhenFound) -> None:
        """Answer a question, at once or later."""

    def close(self) -> None:
        """End; questions that are open get no answer."""
