"""The search index within the process of its user: for tests, and for tools that need no broker."""

from __future__ import annotations

from mq9_broker.search.interface import Agents, CursorError, Query, WhenFound
from mq9_broker.search.settings import OFF, SearchSettings
from mq9_broker.search.worker import open_index


class InlineSearch:
    """Answers every question at once.

    Args:
        agents: What is registered.
        settings: How the index is made; without, by words alone.
    """

    def __init__(self, agents: Agents, settings: SearchSettings | None = None) -> None:
        self._settings = settings if settings is not None else SearchSettings(embedder=OFF)
        self._agents = agents
        self.index = open_index(self._settings)

    @property
    def by_meaning(self) -> bool:
        """Whether agents can be found by meaning."""
        return self._settings.by_meaning

    @property
    def agents(self) -> int:
        """How many agents there are."""
        return len(self.index)

    def start(self) -> None:
        """Take in all that is registered, and nothing of what was taken in before."""
        self.index.close()
        self.index = open_index(self._settings)
        self._put_all()
        self.index.filled()

    def _put_all(self) -> None:
        after: str | None = None
        while some := self._agents.some_after(after, 1000):
            self.index.put_all(some)
            after = some[-1][0]

    def changed(self, name: str) -> None:
        """Take in that an agent was registered, replaced or removed."""
        body = self._agents.body(name)
        if body is None:
            self.index.remove(name)
        else:
            self.index.put(name, body)

    def embed_all(self) -> None:
        """Embed what waits to be."""
        self.index.embed_soon()
        embedder = self.index.embedder
        while embedder is not None and self.index.has_texts:
            taken, texts = self.index.next_texts()
            self.index.set_vectors(taken, embedder.embed(texts))
            if self.index.wants_bodies:
                self.index.wants_bodies = False
                self._put_all()

    def ask(self, query: Query, when_found: WhenFound) -> None:
        """Answer a question."""
        embedder = self.index.embedder
        if query.by_meaning and self.index.has_vectors and embedder is not None and not embedder.is_ready:
            embedder.embed([""])
        try:
            found = self.index.search(query)
        except CursorError as error:
            when_found(error)
            return
        when_found(found)

    def close(self) -> None:
        """Write what is pending."""
        self.index.close()
