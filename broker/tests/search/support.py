"""An index over agents that a test names."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from mq9_broker.search.inline import InlineSearch
from mq9_broker.search.interface import Found, Hit, Outcome, Query
from mq9_broker.search.settings import OFF, SearchSettings

WORDS = SearchSettings(embedder=OFF)


class Agents(dict[str, bytes]):
    """Bodies by name."""

    def body(self, name: str) -> bytes | None:
        return self.get(name)

    def some_after(self, name: str | None, count: int) -> list[tuple[str, bytes]]:
        names = sorted((n for n in self if name is None or n.encode() > name.encode()), key=str.encode)
        return [(n, self[n]) for n in names[:count]]


class Registry:
    """Agents and their index."""

    def __init__(self, settings: SearchSettings = WORDS) -> None:
        self.agents = Agents()
        self.search = InlineSearch(self.agents, settings)

    def put(self, name: str, body: Any = None, **fields: Any) -> None:
        """Register an agent: a body, or fields of one."""
        text = body if isinstance(body, bytes) else json.dumps({"name": name, **fields}).encode()
        self.agents[name] = text
        self.search.changed(name)

    def remove(self, name: str) -> None:
        self.agents.pop(name, None)
        self.search.changed(name)

    def found(self, text: str, limit: int = 100, **options: Any) -> Found:
        outcomes: list[Outcome] = []
        query = Query(text=text, limit=limit, **{"by_meaning": False, **options})
        self.search.ask(query, outcomes.append)
        (outcome,) = outcomes
        if not isinstance(outcome, Found):
            raise outcome
        return outcome

    def hits(self, text: str, limit: int = 100, **options: Any) -> list[Hit]:
        return self.found(text, limit, **options).hits

    def names(self, text: str, limit: int = 100, **options: Any) -> list[str]:
        return [hit.name for hit in self.hits(text, limit, **options)]


def of(**descriptions: str) -> Registry:
    """A registry of agents with a description each."""
    registry = Registry()
    for name, text in descriptions.items():
        registry.put(name, description=text)
    return registry


async def eventually(condition: Callable[[], bool | Awaitable[bool]], tries: int = 3000) -> None:
    """Wait until something is so that another process brings about."""
    for _ in range(tries):
        found = condition()
        if await found if isinstance(found, Awaitable) else found:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not come to that")
