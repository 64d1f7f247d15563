"""The search index: what is registered, by words and by meaning.

The score of `semantic` is one sum: the cosine with the multilingual vector, that with the fast one, and how
well the words match, each with a fixed weight. Nothing in it depends on other agents but how rare the words
are, and that is frozen in a cursor: an agent that stays keeps its score from page to page.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.cache import Cache, Entry, Impacts
from mq9_broker.search.cards import Card, read_card
from mq9_broker.search.chinese import gloss, has_chinese, pinyin
from mq9_broker.search.chinese import words as split_words
from mq9_broker.search.embedders import (
    Embedder,
    EmbedderError,
    FastEmbedder,
    MultilingualEmbedder,
    Vectors,
    normalized,
)
from mq9_broker.search.interface import CursorError, Found, Hit, Query
from mq9_broker.search.keywords import KeywordIndex, Scores, impacts_of, rarity
from mq9_broker.search.vectors import Column, PackedVector
from mq9_broker.search.words import index_words, last_word, query_words

_log = logging.getLogger(__name__)

# Weights of the sum, beside 1 for the cosine with the multilingual vector. Chosen with the labelled queries
# of bench/registry_quality.py at hand, so what that measures is on the optimistic side. Between 0.5 and 0.9,
# and 0.1 and 0.5, little changes.
_FAST: Final = 0.5
WORDS_WEIGHT = 0.3
# What the cosine with the multilingual vector is expected to be, by the fast one, for an agent that has none
# yet.
_EXPECTED_AT_0: Final = 0.04
_EXPECTED_SLOPE: Final = 0.4
# Parts of a vector: skills beside the head; an English gloss beside a Chinese query.
_SKILLS: Final = 0.5
_GLOSS: Final = 0.5
# An unfinished last word counts less than a whole one.
_BEGINNING: Final = 0.5
_LEAST_BEGINNING: Final = 2
_MOST_IMPACT: Final = 2.2

# Characters of a question that its vectors are made of.
_MOST_QUESTION: Final = 500

_FIRST_ROWS: Final = 1024
_LEAST_GARBAGE: Final = 1024


@dataclass(slots=True)
class _Soon:
    """An agent that has no fast vector yet; it gets one before anybody asks by meaning."""

    digest: bytes
    text: str
    impacts: Impacts


@dataclass(slots=True)
class _Waiting:
    """Texts of an agent that have no multilingual vector yet."""

    digest: bytes
    head: str
    skills: str

    @property
    def texts(self) -> list[str]:
        """What has to be embedded."""
        return [self.head, self.skills] if self.skills else [self.head]


# An agent's row, and what it had to say when it was taken from the queue.
Taken = tuple[int, _Waiting]


class SearchIndex:
    """Agents by name, found by words and by meaning.

    Args:
        fast: Makes vectors at once; None: nothing is found by meaning.
        embedder: Makes better ones, later; None: there are none.
        cache: What was made before.
    """

    def __init__(self, fast: FastEmbedder | None, embedder: Embedder | None, cache: Cache) -> None:
        self._fast = fast
        self._embedder = embedder
        self._cache = cache
        self._keywords = KeywordIndex()
        self._names: list[str] = []
        self._rows: dict[str, int] = {}
        self._digests: list[bytes] = []
        self._alive = np.zeros(_FIRST_ROWS, np.bool_)
        self._free: list[int] = []
        self._garbage: list[int] = []
        self._swept: list[int] | None = None
        self._fast_column = Column(FastEmbedder.identity)
        self._column = Column(embedder.identity if embedder is not None else "")
        # Vectors of the embedder before this one serve until this one has caught up.
        self._older: Column | None = None
        self._older_embedder: Embedder | None = None
        older = MultilingualEmbedder.identity
        if embedder is not None and embedder.identity != older and older in cache.embedders():
            self._older = Column(older)
        self._soon: dict[int, _Soon] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._queue: deque[int] = deque()

    def __len__(self) -> int:
        """The number of agents."""
        return len(self._rows)

    @property
    def waiting(self) -> int:
        """The number of agents that have no vector of the embedder yet."""
        return len(self._waiting)

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

    @property
    def has_work(self) -> bool:
        """Whether `work` has something to do."""
        return self._swept is not None or len(self._garbage) > max(_LEAST_GARBAGE, len(self._rows) // 4)

    # Changes.

    def put(self, name: str, body: bytes) -> None:
        """Index an agent, or replace it."""
        self.remove(name)
        row = self._new_row(name)
        digest = hashlib.blake2b(body, digest_size=16).digest()
        self._digests[row] = digest
        entry = self._cache.entry(digest)
        card: Card | None = None
        if entry is None:
            card = read_card(body)
            impacts = impacts_of((index_words(text), weight) for text, weight in card.fields)
            self._keywords.add(row, impacts)
            if self._fast is not None:
                text = ". ".join(part for part in (card.head, card.skills, card.rest) if part)
                self._soon[row] = _Soon(digest, text, impacts)
        else:
            self._keywords.add(row, entry.impacts)
            self._fast_column.put(row, entry.fast)
        if self._embedder is None:
            return
        known = self._cache.vector(digest, self._column.identity)
        if known is not None:
            self._column.put(row, known)
            return
        if self._older is not None:
            older = self._cache.vector(digest, self._older.identity)
            if older is not None:
                self._older.put(row, older)
        card = card or read_card(body)
        self._waiting[row] = _Waiting(digest, card.head or card.rest, card.skills)
        self._queue.append(row)

    def remove(self, name: str) -> None:
        """Forget an agent; nothing happens if it is not there."""
        row = self._rows.pop(name, None)
        if row is None:
            return
        self._alive[row] = False
        self._names[row] = ""
        self._digests[row] = b""
        self._garbage.append(row)
        self._waiting.pop(row, None)
        self._soon.pop(row, None)
        for column in (self._fast_column, self._column, self._older):
            if column is not None:
                column.remove(row)

    def filled(self) -> None:
        """Note that everything that was registered at the start is there now."""
        self._cache.keep_only({digest for digest in self._digests if digest})

    def _new_row(self, name: str) -> int:
        if self._free:
            row = self._free.pop()
            self._names[row] = name
        else:
            row = len(self._names)
            self._names.append(name)
            self._digests.append(b"")
            if row >= len(self._alive):
                self._alive = np.concatenate((self._alive, np.zeros(len(self._alive), np.bool_)))
        self._alive[row] = True
        self._rows[name] = row
        return row

    def embed_soon(self, count: int | None = None) -> None:
        """Make the fast vectors of some agents that have none yet, or of all."""
        if self._fast is None:
            return
        rows = list(islice(self._soon, count))
        for start in range(0, len(rows), self._fast.batch):
            batch = rows[start : start + self._fast.batch]
            texts = [self._soon[row].text for row in batch]
            vectors = self._fast.embed([gloss(text) if has_chinese(text) else text for text in texts])
            for row, vector in zip(batch, vectors, strict=True):
                soon, packed = self._soon.pop(row), PackedVector(vector)
                self._fast_column.put(row, packed)
                self._cache.put_entry(soon.digest, Entry(soon.impacts, packed))

    # What is done when there is nothing else to do.

    def next_texts(self) -> tuple[list[Taken], list[str]]:
        """Take agents from the queue of those that have no vector yet, and all their texts."""
        taken: list[Taken] = []
        texts: list[str] = []
        while self._queue and self._embedder is not None and len(texts) < self._embedder.batch:
            row = self._queue.popleft()
            waiting = self._waiting.get(row)
            if waiting is not None:
                taken.append((row, waiting))
                texts += waiting.texts
        return taken, texts

    def set_vectors(self, taken: Sequence[Taken], vectors: Vectors) -> None:
        """Take the vectors of the texts of `next_texts`; what changed meanwhile waits for its own."""
        place = 0
        for row, waiting in taken:
            vector = vectors[place]
            if waiting.skills:
                vector = normalized(vector + _SKILLS * vectors[place + 1])
            place += len(waiting.texts)
            if self._waiting.get(row) is waiting:
                packed = PackedVector(vector)
                self._column.put(row, packed)
                self._cache.put_vector(waiting.digest, self._column.identity, packed)
                del self._waiting[row]
        if not self._waiting:
            if self._older is not None:
                self._older = self._older_embedder = None
                self._cache.keep_only_embedder(self._column.identity)
            self._cache.commit()

    def put_back(self, taken: Sequence[Taken]) -> None:
        """Return to the queue what could not be embedded now."""
        self._queue.extendleft(row for row, _ in reversed(taken))

    def give_up(self, taken: Sequence[Taken]) -> None:
        """Leave those that cannot be embedded to the fast vectors."""
        for row, waiting in taken:
            if self._waiting.get(row) is waiting:
                del self._waiting[row]

    def work(self) -> None:
        """Do a little of what can wait."""
        if self._swept is None:
            self._swept, self._garbage = self._garbage, []
        if self._keywords.sweep(self._alive):
            self._free += self._swept
            self._swept = None

    def close(self) -> None:
        """Write what is pending."""
        self._cache.close()

    # Questions.

    def search(self, query: Query, vectors: Sequence[Vectors] | None = None) -> Found:
        """Return the best agents.

        Args:
            query: What is looked for.
            vectors: The vectors of `texts_of(query)`, if they come from elsewhere.

        Raises:
            CursorError: The numbers of an earlier search do not belong to this query.
        """
        scores, rarities = self._by_words(query)
        if query.by_meaning:
            scores = self._by_meaning(query, scores, vectors, rarities[1])
            candidates = np.flatnonzero(self._alive[: len(scores)])
        else:
            candidates = np.flatnonzero(scores > 0)
        return Found(self._best(query, scores, candidates), rarities)

    def texts_of(self, query: Query) -> list[str]:
        """Return what has to be embedded for a query: itself, and its English gloss if it is Chinese."""
        text = query.text[:_MOST_QUESTION]
        return [text, gloss(text)[:_MOST_QUESTION]] if has_chinese(text) else [text]

    def _by_words(self, query: Query) -> tuple[Scores, list[int]]:
        """How well each row matches, from 0 to 1; one more for all words, unless it is a sentence."""
        size = len(self._names)
        alive = self._alive[:size]
        scores = np.zeros(size, np.float32)
        covered = np.zeros(size, np.int16)
        needed = 0
        is_chinese = has_chinese(query.text)
        # Of a sentence, pairs of characters that belong to two words say nothing.
        words = query_words(split_words(query.text) if is_chinese and query.by_meaning else query.text)
        beginning = last_word(query.text)
        others = pinyin(query.text) if is_chinese else []
        frozen = query.rarities
        if frozen is not None and len(frozen) != 2 + len(words) + len(others) + 1:
            raise CursorError
        rarities = frozen[:2] if frozen is not None else [len(self._rows), self._column.age]
        documents = rarities[0]
        possible = 0.0

        def weigh(having: int) -> float:
            count = frozen[len(rarities)] if frozen is not None else having
            rarities.append(count)
            return rarity(documents, min(count, documents)) if count else 0.0

        for word, is_needed in words:
            found = self._keywords.find(word)
            weight = weigh(int(np.count_nonzero(alive[found.rows])) if found is not None else 0)
            needed += is_needed
            possible += weight if is_needed else 0.0
            if found is not None:
                scores[found.rows] += np.float32(weight) * found.impacts
                if is_needed and word != beginning:
                    covered[found.rows] += 1
        for word in others:
            found = self._keywords.find(word)
            weight = weigh(int(np.count_nonzero(alive[found.rows])) if found is not None else 0)
            if found is not None:
                scores[found.rows] += np.float32(weight) * found.impacts
        completed = self._completed(beginning, size) if beginning and not query.by_meaning else None
        weight = weigh(int(np.count_nonzero(alive & (completed > 0))) if completed is not None else 0)
        if completed is not None:
            scores += np.float32(_BEGINNING * weight) * completed
            covered += completed > 0
        elif beginning:
            needed = 0  # of a sentence nobody asks for all words
        if possible == 0.0:
            possible = rarity(documents, 1)
        scores /= np.float32(_MOST_IMPACT * max(possible, float(np.log1p(documents)), 1e-6))
        if not query.by_meaning and needed:
            scores[covered >= needed] += 1
        scores[~alive] = 0
        return scores, rarities

    def _completed(self, beginning: str, size: int) -> Scores:
        """What the words that begin so say about each row: the best of them counts."""
        best = np.zeros(size, np.float32)
        words = self._keywords.completions(beginning) if len(beginning) >= _LEAST_BEGINNING else [beginning]
        for word in words:
            found = self._keywords.find(word)
            if found is not None:
                best[found.rows] = np.maximum(best[found.rows], found.impacts)
        return best

    def _by_meaning(self, query: Query, words: Scores, vectors: Sequence[Vectors] | None, age: int) -> Scores:
        size = len(words)
        texts = self.texts_of(query)
        if self._fast is None:
            return words
        self.embed_soon()
        fast = self._fast_column.compare(PackedVector(self._fast.embed(texts[-1:])[0]), size)
        fast = np.nan_to_num(fast, copy=False)
        expected = np.float32(_EXPECTED_AT_0) + np.float32(_EXPECTED_SLOPE) * fast
        better = self._better(texts, size, vectors, age)
        better = np.where(np.isnan(better), expected, better) if better is not None else expected
        scores: Scores = better + np.float32(_FAST) * fast + np.float32(WORDS_WEIGHT) * words
        return scores

    def _better(
        self, texts: list[str], size: int, vectors: Sequence[Vectors] | None, age: int
    ) -> Vectors | None:
        """The cosine of each row with the better vectors, of whichever embedder has more of them."""
        if self._embedder is None:
            return None
        if self._older is not None and self._older.count > self._column.count:
            if self._older_embedder is None:
                self._older_embedder = MultilingualEmbedder()
            mixed = _mixed(list(self._older_embedder.embed(texts)))
            return self._older.compare(PackedVector(mixed), size)
        if not self._column.count or not age:
            return None
        if vectors is None:
            if not self._embedder.is_ready:
                return None
            try:
                vectors = list(self._embedder.embed(texts))
            except EmbedderError as error:
                _log.warning("a query is answered by the fast vectors: %s", error)
                return None
        if not vectors:
            return None
        return self._column.compare(PackedVector(_mixed(vectors)), size, age)

    def _best(self, query: Query, scores: Scores, candidates: NDArray[np.int64]) -> list[Hit]:
        names = self._names
        found = scores[candidates]
        if query.after is not None:
            name, score = query.after
            key = name.encode()
            below = found < np.float32(score)
            for place in np.flatnonzero(found == np.float32(score)):
                below[place] = names[candidates[place]].encode() > key
            candidates, found = candidates[below], found[below]
        wanted = query.skip + query.limit
        if len(found) > wanted:
            # Those as good as the last one wanted come along: names decide among them.
            last = np.partition(found, len(found) - wanted)[len(found) - wanted]
            kept = found >= last
            candidates, found = candidates[kept], found[kept]
        hits = [Hit(names[row], float(score)) for row, score in zip(candidates, found, strict=True)]
        hits.sort(key=lambda hit: (-hit.score, hit.name.encode()))
        return hits[query.skip : wanted]


def _mixed(vectors: Sequence[Vectors]) -> Vectors:
    return normalized(vectors[0] + _GLOSS * vectors[1]) if len(vectors) > 1 else vectors[0]
