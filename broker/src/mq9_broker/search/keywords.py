"""An inverted index in memory: which documents have a word, and how much it says about each of them.

Documents are rows, numbers from 0. What a word adds to a row's score depends on that row alone (BM25 with a
fixed length of an average document); how rare the word is comes in with the query. So the score of a document
that stays is the same on the next page, whoever registers meanwhile, if the numbers of the first page are
used again.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sortedcontainers import SortedList  # type: ignore[import-untyped]

_K1: Final = 1.2
_B: Final = 0.5
# The length of an average document, in weighted words.
_AVERAGE: Final = 80.0
# Words that a prefix stands for, at most.
_MOST_COMPLETIONS: Final = 256
# Terms looked at in one step of sweeping.
_SWEEP_STEP: Final = 2_000

Rows = NDArray[np.int64]
Scores = NDArray[np.float32]


class Posting(NamedTuple):
    """Where a word stands.

    Attributes:
        rows: Documents.
        impacts: What it says about each, from 0 to 1 + k1.
    """

    rows: Rows
    impacts: Scores


class KeywordIndex:
    """Words and their documents."""

    def __init__(self) -> None:
        # An impact and a row in 64 bits; most words stand in one document only, which needs no array.
        self._postings: dict[str, int | array[int]] = {}
        self._vocabulary: SortedList[str] = SortedList()
        self._fresh: set[str] = set()
        self._sweeping: Iterator[str] | None = None

    def __len__(self) -> int:
        """The number of different words."""
        return len(self._postings)

    def add(self, row: int, impacts: Iterable[tuple[str, float]]) -> None:
        """Add a document under a number that no document has, nor had since the last sweep."""
        postings = self._postings
        words, values = [], []
        for word, impact in impacts:
            words.append(word)
            values.append(impact)
        packed = np.empty((len(values), 2), np.uint32)
        packed[:, 0] = np.array(values, np.float32).view(np.uint32)
        packed[:, 1] = row
        for word, entry in zip(words, packed.view(np.uint64)[:, 0].tolist(), strict=True):
            known = postings.get(word)
            if known is None:
                postings[word] = entry
                self._fresh.add(word)
            elif isinstance(known, int):
                postings[word] = array("Q", (known, entry))
            else:
                known.append(entry)

    def find(self, word: str) -> Posting | None:
        """Return where a word stands, rows included whose document is gone."""
        known = self._postings.get(word)
        if known is None:
            return None
        packed = np.array([known], np.uint64) if isinstance(known, int) else np.array(known, np.uint64)
        halves = packed.view(np.uint32).reshape(-1, 2)
        return Posting(halves[:, 1].astype(np.int64), halves[:, 0].view(np.float32))

    def completions(self, prefix: str) -> list[str]:
        """Return the words that begin with a prefix, itself included, in their order."""
        if self._fresh:
            self._vocabulary.update(self._fresh)
            self._fresh.clear()
        found: list[str] = []
        for word in self._vocabulary.irange(prefix, prefix + "\U0010ffff"):
            found.append(word)
            if len(found) == _MOST_COMPLETIONS:
                break
        return found

    def sweep(self, alive: NDArray[np.bool_]) -> bool:
        """Take one step in forgetting documents that are gone; whether it was the last.

        Args:
            alive: Whether each row has a document. Rows that have none when a sweep begins are free for new
                documents when it has ended, not before.
        """
        if self._sweeping is None:
            self._sweeping = iter(list(self._postings))
        for _ in range(_SWEEP_STEP):
            word = next(self._sweeping, None)
            if word is None:
                self._sweeping = None
                return True
            self._sweep_word(word, alive)
        return False

    def _sweep_word(self, word: str, alive: NDArray[np.bool_]) -> None:
        known = self._postings[word]
        if isinstance(known, int):
            if not alive[known >> 32]:
                self._forget(word)
            return
        packed = np.array(known, np.uint64)
        kept = packed[alive[(packed >> np.uint64(32)).astype(np.int64)]]
        if len(kept) == len(packed):
            return
        if len(kept) == 0:
            self._forget(word)
        else:
            self._postings[word] = int(kept[0]) if len(kept) == 1 else array("Q", kept.tobytes())

    def _forget(self, word: str) -> None:
        del self._postings[word]
        if word in self._fresh:
            self._fresh.discard(word)
        else:
            self._vocabulary.remove(word)


def impacts_of(fields: Iterable[tuple[Iterable[str], float]]) -> list[tuple[str, float]]:
    """Return the words of a document, each with what it says about it.

    Args:
        fields: The words of each part of it, and how much they count there.
    """
    counts: Counter[str] = Counter()
    length = 0.0
    for words, weight in fields:
        for word in words:
            counts[word] += weight  # type: ignore[assignment]  # a weight need not be whole
            length += weight
    norm = _K1 * (1 - _B + _B * length / _AVERAGE)
    return [(word, count * (_K1 + 1) / (count + norm)) for word, count in counts.items()]


def rarity(documents: int, having: int) -> float:
    """Return how much it says that a document has a word that `having` of all have."""
    return float(np.log1p((documents - having + 0.5) / (having + 0.5)))
