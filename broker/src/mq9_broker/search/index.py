"""The search index: what is registered, by words and by meaning.

Nothing in a score depends on other agents but how rare the words are, and that is frozen in a cursor: an
agent that stays keeps its score from page to page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search import meaning
from mq9_broker.search.chinese import gloss, has_chinese, pinyin
from mq9_broker.search.chinese import words as split_words
from mq9_broker.search.embedders import (
    EmbedderError,
    FastEmbedder,
    MultilingualEmbedder,
    Vectors,
    normalized,
)
from mq9_broker.search.indexed import IndexedAgents
from mq9_broker.search.interface import CursorError, Found, Hit, Query
from mq9_broker.search.keywords import rarity
from mq9_broker.search.segments import Gone, Scores, gone_of
from mq9_broker.search.vectors import Column
from mq9_broker.search.words import last_word, query_words

_log = logging.getLogger(__name__)

# The weight of the cosine with the fast vector, beside 1 for that with the multilingual one. Chosen with the
# labelled queries of bench/registry_quality.py at hand, so what that measures is on the optimistic side.
# Between 0.5 and 0.9 little changes.
FAST_WEIGHT = 0.5
# And that of how well the words match, chosen in the same way. Between 0.1 and 0.5 little changes.
WORDS_WEIGHT = 0.3
# The part of a Chinese question's vector that its English gloss is.
_GLOSS: Final = 0.5
# An unfinished last word counts less than a whole one.
_BEGINNING: Final = 0.5
_LEAST_BEGINNING: Final = 2
_MOST_IMPACT: Final = 2.2

# Characters of a question that its vectors are made of.
_MOST_QUESTION: Final = 500

Rows = NDArray[np.int64]


class SearchIndex(IndexedAgents):
    """Agents by name, found by words and by meaning."""

    def search(self, query: Query, vectors: Sequence[Vectors] | None = None) -> Found:
        """Return the best agents.

        Args:
            query: What is looked for.
            vectors: The vectors of `texts_of(query)`, if they come from elsewhere.

        Raises:
            CursorError: The numbers of an earlier search do not belong to this query.
        """
        if self._keywords.collected:
            self._seal()
        if query.by_meaning and self._fast is not None:
            candidates, scores, rarities = self._by_meaning(query, self._fast, vectors)
        else:
            scores, rarities = self._by_words(query, self._gone())
            candidates = np.flatnonzero(self._alive[: len(scores)] if query.by_meaning else scores > 0)
            scores = scores[candidates]
        return Found(self._best(query, scores, candidates), rarities)

    def texts_of(self, query: Query) -> list[str]:
        """Return what has to be embedded for a query: itself, and its English gloss if it is Chinese."""
        text = query.text[:_MOST_QUESTION]
        return [text, gloss(text)[:_MOST_QUESTION]] if has_chinese(text) else [text]

    def _by_words(self, query: Query, gone: Gone | None) -> tuple[Scores, list[int]]:
        """How well each row matches, from 0 to 1; one more for all words, unless it is a sentence."""
        size = len(self._names)
        scores = np.zeros(size, np.float32)
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

        def weigh(having: Callable[..., int], *of: Any) -> float:
            count = frozen[len(rarities)] if frozen is not None else having(*of)
            rarities.append(count)
            return rarity(documents, min(count, documents)) if count else 0.0

        # Of a sentence nobody asks for all words.
        covered = np.zeros(size, np.int16) if not query.by_meaning else None
        needed = 0
        for word, is_needed in words:
            found = self._keywords.find(word)
            weight = weigh(found.count, gone)
            needed += is_needed
            possible += weight if is_needed else 0.0
            counts = is_needed and word != beginning
            self._keywords.score(found, weight, scores, covered if counts else None)
        for word in others:
            found = self._keywords.find(word)
            weight = weigh(found.count, gone)
            self._keywords.score(found, weight, scores, None)
        completed = self._completed(beginning, size) if beginning and covered is not None else None
        weight = weigh(self._having, completed)
        if completed is not None:
            scores += np.float32(_BEGINNING * weight) * completed
        if possible == 0.0:
            possible = rarity(documents, 1)
        scores /= np.float32(_MOST_IMPACT * max(possible, float(np.log1p(documents)), 1e-6))
        if needed and covered is not None:
            if completed is not None:
                covered += completed > 0
            scores[covered >= needed] += 1
        if gone is not None:
            scores[gone.rows] = 0
        return scores, rarities

    def _gone(self) -> Gone | None:
        """Rows that no agent has any more; None: there are none."""
        size = len(self._names)
        return gone_of(self._alive[:size]) if len(self._rows) < size else None

    def _completed(self, beginning: str, size: int) -> Scores:
        """What the words that begin so say about each row: the best of them counts."""
        if len(beginning) >= _LEAST_BEGINNING:
            return self._keywords.best(self._keywords.completions(beginning), size)
        number = self._keywords.number(beginning)
        return self._keywords.best([number] if number is not None else [], size)

    def _having(self, scores: Scores | None) -> int:
        """How many agents have a score."""
        return int(np.count_nonzero(self._alive[: len(scores)] & (scores > 0))) if scores is not None else 0

    def _by_meaning(
        self, query: Query, fast: FastEmbedder, vectors: Sequence[Vectors] | None
    ) -> tuple[Rows, Scores, list[int]]:
        """The rows that may be wanted, their scores, and the numbers for the next page."""
        self.embed_soon()
        texts = self.texts_of(query)
        known = query.rarities
        age = known[1] if known is not None and len(known) > 1 else self._column.age
        question = fast.embed(texts[-1:])[0]
        size = len(self._names)
        # Another thread looks through vectors if a processor is free: through the fast ones while this one
        # embeds, and through the better ones while it looks for words.
        is_large = size >= meaning.LEAST_ESTIMATED
        begun = self._fast_column.begin_estimate(question, size) if is_large else None
        better = self._better(texts, vectors, age)
        first = begun.finish() if begun is not None else None
        begun = better[0].begin_estimate(better[1], size) if better is not None and is_large else None
        gone = self._gone()
        words, rarities = self._by_words(query, gone)
        words *= np.float32(WORDS_WEIGHT)
        missing = None
        if better is not None:
            column = better[0]
            missing = column.missing(size, age if column is self._column else column.age, gone)
        second = begun.finish() if begun is not None else None
        comparison = meaning.Comparison(
            (self._fast_column, question), first, better, second, missing, words, FAST_WEIGHT
        )
        most = query.after[1] if query.after is not None else None
        return *meaning.candidates(comparison, gone, query.skip + query.limit, most), rarities

    def _better(
        self, texts: list[str], vectors: Sequence[Vectors] | None, age: int
    ) -> tuple[Column, Vectors] | None:
        """The better vectors, of whichever embedder has more of them, and the question's."""
        if self._embedder is None:
            return None
        if self._older is not None and self._older.count > self._column.count:
            if self._older_embedder is None:
                self._older_embedder = MultilingualEmbedder()
            return self._older, _mixed(list(self._older_embedder.embed(texts)))
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
        if len(vectors[0]) != self._column.dimensions:
            self._doubt()
            return None
        return self._column, _mixed(vectors)

    def _best(self, query: Query, found: Scores, candidates: Rows) -> list[Hit]:
        names = self._names
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
