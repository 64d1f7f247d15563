"""What the search index holds of each agent: its words, its vectors, and what is still to be made of it."""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

import numpy as np

from mq9_broker.search.cache import FORMAT, Cache, Entry
from mq9_broker.search.cards import Card, read_card
from mq9_broker.search.chinese import gloss, has_chinese
from mq9_broker.search.embedders import (
    Embedder,
    FastEmbedder,
    MultilingualEmbedder,
    Vectors,
    normalized,
)
from mq9_broker.search.keywords import KeywordIndex, Merge, Unspelled
from mq9_broker.search.segments import Segment
from mq9_broker.search.snapshot import Snapshot, read
from mq9_broker.search.vectors import Column, Packed, dimensions_of, pack

_log = logging.getLogger(__name__)

# The part of an agent's vector that its skills are, beside 1 for what it is.
_SKILLS: Final = 0.5

# Stands for the digest of a text that is no agent's.
_PROBE: Final = b""

_FIRST_ROWS: Final = 1024
_LEAST_GARBAGE: Final = 1024
# Changes after which the snapshot is made again: so many, and so large a part of all agents.
LEAST_UNSAVED: Final = 256
_UNSAVED_PART: Final = 10


@dataclass(slots=True)
class _Soon:
    """An agent that has no fast vector yet; it gets one before anybody asks by meaning."""

    digest: bytes
    texts: bytes
    parts: tuple[str, str, str]
    impacts: Unspelled | None = None

    @property
    def text(self) -> str:
        """What the vector is made of."""
        text = ". ".join(part for part in self.parts if part)
        return gloss(text) if has_chinese(text) else text


@dataclass(slots=True)
class _Waiting:
    """Texts that have no multilingual vector yet, and the agents that they are of."""

    head: str
    skills: str
    rows: set[int] = field(default_factory=set)

    @property
    def texts(self) -> list[str]:
        """What has to be embedded."""
        return [self.head, self.skills] if self.skills else [self.head]


# What was taken from the queue: the digest of texts, and the texts.
Taken = tuple[bytes, _Waiting]


class IndexedAgents:
    """Agents by name, and what they are found by; `SearchIndex` finds them.

    Args:
        fast: Makes vectors at once; None: nothing is found by meaning.
        embedder: Makes better ones, later; None: there are none.
        cache: What was made before.

    Attributes:
        wants_bodies: Whether all agents have to be put again: the embedder makes other vectors than before.
    """

    def __init__(self, fast: FastEmbedder | None, embedder: Embedder | None, cache: Cache) -> None:
        self._fast = fast
        self._embedder = embedder
        self._cache = cache
        self._keywords = KeywordIndex()
        self._names: list[str] = []
        self._rows: dict[str, int] = {}
        # Of each row: the digest of its body, and that of the texts that its better vector is made of.
        self._digests: list[bytes] = []
        self._texts: list[bytes] = []
        self._alive = np.zeros(_FIRST_ROWS, np.bool_)
        self._free: list[int] = []
        self._garbage: list[int] = []
        self._swept: list[int] = []
        self._fast_column = Column(FastEmbedder.identity)
        self._column = Column(embedder.identity if embedder is not None else "")
        # A row for each digest of texts that there is a vector of.
        self._row_of: dict[bytes, int] = {}
        # Vectors of the embedder before this one serve until this one has caught up.
        self._older: Column | None = None
        self._older_embedder: Embedder | None = None
        older = MultilingualEmbedder.identity
        if embedder is not None and embedder.identity != older and older in cache.embedders():
            self._older = Column(older)
        self._soon: dict[int, _Soon] = {}
        self._waiting: dict[bytes, _Waiting] = {}
        self._waiting_rows = 0
        self._queue: deque[bytes] = deque()
        self.wants_bodies = False
        # Rows of a snapshot whose agents nobody has put since, and changes that no snapshot has.
        self._unconfirmed: set[int] = set()
        self._unsaved = 0
        file = cache.snapshot_file
        snapshot = read(file, self._identity) if file is not None else None
        if snapshot is not None:
            self._restore(snapshot)

    def __len__(self) -> int:
        """The number of agents."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """The number of agents that have no vector of the embedder yet."""
        return self._waiting_rows

    @property
    def has_texts(self) -> bool:
        """Whether `next_texts` has something."""
        return bool(self._waiting)

    @property
    def has_vectors(self) -> bool:
        """Whether there are vectors of the embedder."""
        return self._column.count > 0

    @property
    def soon(self) -> int:
        """The number of agents that have no fast vector yet."""
        return len(self._soon)

    @property
    def words(self) -> int:
        """The number of different words."""
        return len(self._keywords)

    @property
    def capacity(self) -> int:
        """The number of places for agents, those of agents that are gone included."""
        return len(self._names)

    @property
    def embedder(self) -> Embedder | None:
        """What makes the better vectors."""
        return self._embedder

    @property
    def serves_own_vectors(self) -> bool:
        """Whether queries are compared with vectors of the embedder, not with those of the one before it."""
        return self._column.count > 0 and (self._older is None or self._older.count <= self._column.count)

    # The whole of it.

    @property
    def _identity(self) -> str:
        return f"{FORMAT} {self._fast_column.identity} {self._column.identity}"

    @property
    def snapshot_file(self) -> Path | None:
        """Where a snapshot belongs; None: none is wanted."""
        return self._cache.snapshot_file

    @property
    def wants_snapshot(self) -> bool:
        """Whether much has changed since the last one, and nothing is about to."""
        return (
            self._unsaved > max(LEAST_UNSAVED, len(self._rows) // _UNSAVED_PART)
            and self._older is None
            and not self._soon
            and self.snapshot_file is not None
        )

    def snapshot(self) -> Snapshot:
        """Return all there is of agents that have a fast vector."""
        self.embed_soon()
        self._seal()
        self._unsaved = 0
        return Snapshot(
            self._identity,
            self._names.copy(),
            self._digests.copy(),
            self._texts.copy(),
            *self._keywords.parts(),
            self._fast_column.parts(),
            self._column.parts(),
        )

    def not_saved(self) -> None:
        """Note that the last snapshot was not written: another one is wanted."""
        self._unsaved += max(LEAST_UNSAVED, len(self._rows) // _UNSAVED_PART) + 1

    def _restore(self, snapshot: Snapshot) -> None:
        self._names = snapshot.names
        self._rows = {name: row for row, name in enumerate(snapshot.names) if name}
        self._digests, self._texts = snapshot.digests, snapshot.texts
        self._alive = np.zeros(max(len(self._names), _FIRST_ROWS), np.bool_)
        self._alive[list(self._rows.values())] = True
        self._garbage = np.flatnonzero(~self._alive[: len(self._names)]).tolist()
        for row in self._garbage:
            self._digests[row] = self._texts[row] = b""
        self._keywords.restore(snapshot.words, snapshot.segments)
        self._fast_column.restore(snapshot.fast)
        self._column.restore(snapshot.better)
        self._row_of = {self._texts[row]: row for row in snapshot.better.rows.tolist()}
        self._unconfirmed = set(self._rows.values())

    # Changes.

    def put(self, name: str, body: bytes) -> None:
        """Index an agent, or replace it."""
        self.put_all([(name, body)])

    def put_all(self, agents: Sequence[tuple[str, bytes]]) -> None:
        """Index some agents, or replace them; one that cannot be read is left out, and logged."""
        agents, digests = self._changed(agents)
        if not agents:
            return
        entries = self._cache.entries(digests)
        cards: dict[bytes, Card] = {}
        texts = {digest: entry.text for digest, entry in entries.items()}
        for (name, body), digest in zip(agents, digests, strict=True):
            if digest not in texts:
                try:
                    card = cards[digest] = read_card(body)
                except (ValueError, RecursionError):
                    _log.exception("agent %r cannot be indexed", name)
                    continue
                texts[digest] = _digest_of(card)
        columns = [column for column in (self._column, self._older) if column is not None]
        wanted = list(texts.values()) if self._embedder is not None else []
        vectors = [self._cache.vectors(wanted, column.identity) for column in columns]
        # Vectors that are known, by column and row.
        fast: dict[int, Packed] = {}
        known: list[dict[int, Packed]] = [{} for _ in columns]
        for (name, body), digest in zip(agents, digests, strict=True):
            row = self._rows.get(name)
            if row is not None and self._digests[row] == digest:
                self._unconfirmed.discard(row)
            else:
                self._unsaved += 1
                self.remove(name)
                if digest not in texts:
                    continue
                row = self._new_row(name, digest, texts[digest])
                entry = entries.get(digest)
                if entry is not None:
                    self._keywords.add_known(row, entry.impacts)
                    fast[row] = entry.fast
                else:
                    card = cards[digest]
                    self._keywords.add(row, card.fields)
                    if self._fast is not None:
                        self._soon[row] = _Soon(digest, texts[digest], card.parts)
            if self._embedder is not None and not self._column.has(row) and row not in known[0]:
                self._want_vector(row, texts[digest], vectors, known, cards.get(digest), body)
        for column, some in zip((self._fast_column, *columns), (fast, *known), strict=True):
            rows = [row for row in some if self._alive[row]]
            column.put_all(rows, [some[row] for row in rows])
        for row in known[0]:
            if self._alive[row]:
                self._row_of[self._texts[row]] = row
        if self._keywords.is_full:
            self._seal()

    def _changed(self, agents: Sequence[tuple[str, bytes]]) -> tuple[list[tuple[str, bytes]], list[bytes]]:
        """Those of some agents about which something is new, and the digests of their bodies."""
        changed: dict[str, list[tuple[bytes, bytes]]] = {}
        for name, body in agents:
            digest = hashlib.blake2b(body, digest_size=16).digest()
            row = self._rows.get(name)
            if (
                row is not None
                and self._digests[row] == digest
                and (self._embedder is None or self._column.has(row))
                and name not in changed
            ):
                self._unconfirmed.discard(row)
            else:
                changed.setdefault(name, []).append((body, digest))
        return (
            [(name, body) for name, some in changed.items() for body, _ in some],
            [digest for some in changed.values() for _, digest in some],
        )

    def _want_vector(
        self,
        row: int,
        texts: bytes,
        vectors: list[dict[bytes, Packed]],
        known: list[dict[int, Packed]],
        card: Card | None,
        body: bytes,
    ) -> None:
        """Note the vector of a row's texts among those that are known, or put the texts in the queue."""
        same = self._row_of.get(texts)
        vector = vectors[0].get(texts) if same is None else self._column.get(same)
        if vector is not None and self._column.dimensions in (0, dimensions_of(vector)):
            known[0][row] = vector
            return
        if self._older is not None and texts in vectors[1]:
            known[1][row] = vectors[1][texts]
        waiting = self._waiting.get(texts)
        if waiting is None:
            card = card or read_card(body)
            waiting = self._waiting[texts] = _Waiting(card.head or card.rest, card.skills)
            self._queue.append(texts)
        if row not in waiting.rows:
            waiting.rows.add(row)
            self._waiting_rows += 1

    def remove(self, name: str) -> None:
        """Forget an agent; nothing happens if it is not there."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        texts = self._texts[row]
        self._unsaved += 1
        self._unconfirmed.discard(row)
        self._alive[row] = False
        self._names[row] = ""
        self._digests[row] = self._texts[row] = b""
        self._garbage.append(row)
        self._soon.pop(row, None)
        if self._row_of.get(texts) == row:
            del self._row_of[texts]
        waiting = self._waiting.get(texts)
        if waiting is not None and row in waiting.rows:
            waiting.rows.remove(row)
            self._waiting_rows -= 1
            if not waiting.rows:
                del self._waiting[texts]
        for column in (self._fast_column, self._column, self._older):
            if column is not None:
                column.remove(row)

    def filled(self) -> None:
        """Note that everything that was registered at the start is there now: nothing else is."""
        for row in list(self._unconfirmed):
            self.remove(self._names[row])
        self._cache.keep_only(set(self._digests), set(self._texts))

    def _new_row(self, name: str, digest: bytes, texts: bytes) -> int:
        if self._free:
            row = self._free.pop()
        else:
            row = len(self._names)
            self._names.append("")
            self._digests.append(b"")
            self._texts.append(b"")
            if row >= len(self._alive):
                self._alive = np.concatenate((self._alive, np.zeros(len(self._alive), np.bool_)))
        self._names[row] = name
        self._digests[row] = digest
        self._texts[row] = texts
        self._alive[row] = True
        self._rows[name] = row
        return row

    def _seal(self) -> None:
        """Make what was put findable by words."""
        for row, impacts in self._keywords.seal(self._cache.keeps and self._fast is not None):
            soon = self._soon.get(row)
            if soon is not None:
                soon.impacts = impacts

    def embed_soon(self, count: int | None = None) -> None:
        """Make the fast vectors of some agents that have none yet, or of all."""
        if self._fast is None or not self._soon:
            return
        self._seal()
        rows = list(islice(self._soon, count))
        for start in range(0, len(rows), self._fast.batch):
            batch = rows[start : start + self._fast.batch]
            soon = [self._soon.pop(row) for row in batch]
            vectors = self._fast.embed([agent.text for agent in soon])
            packed = pack(vectors)
            self._fast_column.put_all(batch, packed)
            self._cache.put_entries(
                (s.digest, Entry(s.texts, s.impacts.spelled(), vector))
                for s, vector in zip(soon, packed, strict=True)
                if s.impacts is not None
            )

    # What is done when there is nothing else to do.

    def next_texts(self, count: int | None = None) -> tuple[list[Taken], list[str]]:
        """Take texts from the queue of those that have no vector yet; some at least, more than `count` never.

        Without `count`, as many as the embedder likes best.
        """
        taken: list[Taken] = []
        texts: list[str] = []
        most = count if count is not None or self._embedder is None else self._embedder.batch
        while self._queue and self._embedder is not None and (not texts or len(texts) < (most or 0)):
            digest = self._queue.popleft()
            waiting = self._waiting.get(digest)
            if waiting is not None:
                taken.append((digest, waiting))
                texts += waiting.texts
        return taken, texts

    def set_vectors(self, taken: Sequence[Taken], vectors: Vectors) -> None:
        """Take the vectors of the texts of `next_texts`."""
        if taken and self._column.dimensions not in (0, vectors.shape[1]):
            self._start_over(vectors.shape[1])
        place = 0
        made: list[tuple[bytes, Packed]] = []
        for digest, waiting in taken:
            vector = vectors[place]
            if waiting.skills:
                vector = normalized(vector + _SKILLS * vectors[place + 1])
            place += len(waiting.texts)
            now = self._waiting.pop(digest, None)
            if now is not None:
                (packed,) = pack(vector[None])
                rows = list(now.rows)
                self._waiting_rows -= len(rows)
                self._column.put_all(rows, [packed] * len(rows))
                self._unsaved += len(rows)
                if rows:
                    self._row_of[digest] = rows[0]
                    made.append((digest, packed))
        self._cache.put_vectors(self._column.identity, made)
        if not self._waiting:
            if self._older is not None:
                self._older = self._older_embedder = None
                self._cache.keep_only_embedder(self._column.identity)
            self._cache.commit()

    def _doubt(self) -> None:
        """Embed some text: a query's vector has another length than those of the agents."""
        if _PROBE not in self._waiting:
            self._waiting[_PROBE] = _Waiting("?", "")
            self._queue.append(_PROBE)

    def _start_over(self, dimensions: int) -> None:
        """Forget all better vectors: they compare with nothing that the embedder makes now."""
        _log.warning(
            "the embedder's vectors have %d numbers now, not %d: all are made anew",
            dimensions,
            self._column.dimensions,
        )
        age = self._column.age
        self._column = Column(self._column.identity)
        self._column.age = age
        self._row_of.clear()
        self._cache.forget_embedder(self._column.identity)
        self.wants_bodies = True

    def put_back(self, taken: Sequence[Taken]) -> None:
        """Return to the queue what could not be embedded now."""
        self._queue.extendleft(digest for digest, _ in reversed(taken))

    def give_up(self, taken: Sequence[Taken]) -> None:
        """Leave those that cannot be embedded to the fast vectors."""
        for digest, _ in taken:
            waiting = self._waiting.pop(digest, None)
            if waiting is not None:
                self._waiting_rows -= len(waiting.rows)

    @property
    def has_work(self) -> bool:
        """Whether `begin_work` has something to do."""
        if self._keywords.is_merging:
            return False
        return self._has_garbage or self._keywords.can_merge

    @property
    def _has_garbage(self) -> bool:
        return len(self._garbage) > max(_LEAST_GARBAGE, len(self._rows) // 4)

    def begin_work(self) -> Merge:
        """Return what has to be done beside everything else: its `run` may be called in any thread."""
        if not self._has_garbage:
            return self._keywords.begin_merge()
        self._seal()
        self._swept, self._garbage = self._garbage, []
        return self._keywords.begin_merge(self._alive)

    def end_work(self, work: Merge, done: Segment) -> None:
        """Take what came out of it."""
        self._seal()
        self._keywords.end_merge(work, done)
        if work.alive is not None:
            self._free += self._swept
            self._swept = []

    def work(self) -> None:
        """Do at once what has to be done beside everything else."""
        work = self.begin_work()
        self.end_work(work, work.run())

    def close(self) -> None:
        """Write what is pending."""
        self._cache.close()


def _digest_of(card: Card) -> bytes:
    """The digest of the texts that the better vector is made of."""
    return hashlib.blake2b("\0".join((card.head or card.rest, card.skills)).encode(), digest_size=16).digest()
