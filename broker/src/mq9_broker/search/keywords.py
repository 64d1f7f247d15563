"""An inverted index in memory: which documents have a word, and how much it says about each of them.

Documents are rows, numbers from 0. What a word adds to a row's score depends on that row alone (BM25 with a
fixed length of an average document); how rare the word is comes in with the query. So the score of a document
that stays is the same on the next page, whoever registers meanwhile, if the numbers of the first page are
used again.

Documents are collected, and become a segment when somebody asks or when there are many. Small segments are
merged at once, large ones by a `Merge`, which may run in a thread of its own: segments never change.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.segments import Gone, Scores, Segment, merged, segment_of
from mq9_broker.search.vocabulary import Collected, Vocabulary

_K1: Final = 1.2
_B: Final = 0.5
# The length of an average document, in weighted words.
_AVERAGE: Final = 80.0
# Pairs of word and document that are collected before they become a segment, merged at once (a millisecond
# or two), and segments that are there before larger ones are merged.
_MOST_COLLECTED: Final = 100_000
_MERGED_AT_ONCE: Final = 20_000
_MOST_SEGMENTS: Final = 8
# New words that the next search for beginnings may have to take in order.
_MOST_UNSORTED: Final = 50_000
# A segment before several others is merged with them if it is not larger than so many times their size.
_ALIKE: Final = 2
# A word of so many documents, and of so large a part of them, is kept as one number for each document too.
_LEAST_DENSE: Final = 4096
_DENSE_PART: Final = 8
_MOST_DENSE: Final = 64
# Words are numbered again when so many, and so large a part of them, are in no document any more.
_LEAST_UNUSED: Final = 1024
_UNUSED_PART: Final = 4

Alive = NDArray[np.bool_]


class Impacts(NamedTuple):
    """A document's words, each with what it says about it.

    Attributes:
        words: Its words.
        impacts: From 0 to 1 + k1, 32-bit floats.
    """

    words: list[str]
    impacts: bytes


class Unspelled(NamedTuple):
    """What a document's `Impacts` are made of: spelling the words is put off until they are wanted."""

    spelling: list[str]
    numbers: NDArray[np.uint32]
    impacts: Scores

    def spelled(self) -> Impacts:
        """Return the impacts."""
        spelling = self.spelling
        return Impacts([spelling[number] for number in self.numbers.tolist()], self.impacts.tobytes())


class Postings(NamedTuple):
    """Where the documents of a word stand.

    Attributes:
        number: The word's; negative: no document has it.
        places: In each segment that has some.
    """

    number: int
    places: list[tuple[Segment, slice]]

    def count(self, gone: Gone | None) -> int:
        """Return how many documents there are.

        Args:
            gone: Rows that have no document; None: all have one.
        """
        found = 0
        for segment, where in self.places:
            found += where.stop - where.start
            if gone is not None:
                found -= gone.among(segment.rows[where])
        return found


@dataclass(frozen=True)
class Merge:
    """Some segments that shall be one; `run` may be called in any thread."""

    first: int
    segments: tuple[Segment, ...]
    alive: Alive | None

    def run(self) -> Segment:
        """Return the segment."""
        return merged(self.segments, self.alive)


class _Collected:
    """Documents that are in no segment yet."""

    def __init__(self) -> None:
        # Of new documents: their fields, and how many each has.
        self.new = Collected()
        self.counts = array("I")
        self.rows: list[int] = []
        # Of documents whose impacts are known: words, impacts, and how many each document has.
        self.known_words = array("I")
        self.known_impacts = array("f")
        self.known_lengths = array("I")
        self.known_rows: list[int] = []

    @property
    def size(self) -> int:
        return len(self.new.words) + len(self.known_words)


class KeywordIndex:
    """Words and their documents."""

    def __init__(self) -> None:
        self._vocabulary = Vocabulary()
        self._segments: list[Segment] = []
        self._collected = _Collected()
        self._merge: Merge | None = None
        # Of common words in the first segment: their impacts as an array over all rows.
        self._dense: dict[int, Scores] = {}

    def __len__(self) -> int:
        """The number of different words."""
        return len(self._vocabulary)

    @property
    def collected(self) -> int:
        """Words of documents that are in no segment yet, repeats included."""
        return self._collected.size

    @property
    def is_full(self) -> bool:
        """Whether so much is collected that it should become a segment."""
        return self._collected.size >= _MOST_COLLECTED

    @property
    def is_merging(self) -> bool:
        """Whether a merge has begun and not ended."""
        return self._merge is not None

    @property
    def can_merge(self) -> bool:
        """Whether there are more segments than there should be."""
        return self._merge is None and len(self._segments) > _MOST_SEGMENTS

    def add(self, row: int, fields: Sequence[tuple[str, float]]) -> None:
        """Add a document under a number that no document has, nor any segment.

        Args:
            row: The number.
            fields: Its texts, and how much the words count in each.
        """
        collected = self._collected
        collected.rows.append(row)
        self._vocabulary.add(fields, collected.new)
        collected.counts.append(len(fields))

    def add_known(self, row: int, known: Impacts) -> None:
        """Add a document whose impacts are known; they are of what `seal` returned for it."""
        collected = self._collected
        collected.known_words.extend(self._vocabulary.of_words(known.words))
        collected.known_impacts.frombytes(known.impacts)
        collected.known_lengths.append(len(known.words))
        collected.known_rows.append(row)

    def seal(self, wanted: bool = False) -> list[tuple[int, Unspelled]]:
        """Make a segment of what was collected.

        Args:
            wanted: Whether to return the impacts of the documents that came by `add`.
        """
        collected = self._collected
        if not collected.rows and not collected.known_rows:
            return []
        self._collected = _Collected()
        new, impacts, lengths = _impacts_of(collected)
        known = np.array(collected.known_words, np.uint32)
        rows = np.repeat(
            np.array([*collected.rows, *collected.known_rows], np.int32),
            np.append(lengths, np.array(collected.known_lengths, np.uint32)),
        )
        self._segments.append(
            segment_of(
                np.concatenate((new, known)),
                rows,
                np.concatenate((impacts, np.array(collected.known_impacts, np.float32))),
            )
        )
        if self._vocabulary.unsorted > _MOST_UNSORTED:
            self._vocabulary.sort()
        self._merge_small()
        if not wanted:
            return []
        spelling = self._vocabulary.spelling
        ends = np.cumsum(lengths).tolist()
        return [
            (row, Unspelled(spelling, new[start:end], impacts[start:end]))
            for row, start, end in zip(collected.rows, [0, *ends], ends, strict=False)
        ]

    def _merge_small(self) -> None:
        segments = self._segments
        first = self._merge.first + len(self._merge.segments) if self._merge is not None else 0
        while len(segments) - first >= 2:
            before, last = segments[-2:]
            if before.size + last.size > _MERGED_AT_ONCE or before.size > _ALIKE * last.size:
                break
            segments[-2:] = [merged((before, last), None)]
            self._dense_of(first=len(segments) - 1)

    def parts(self) -> tuple[list[str], list[Segment]]:
        """Return all words and segments; everything that was added has been sealed."""
        return self._vocabulary.all(), self._segments.copy()

    def restore(self, words: list[str], segments: list[Segment]) -> None:
        """Take what `parts` returned, in an index that has nothing."""
        self._vocabulary.restore(words)
        self._segments = segments

    # Larger merges.

    def begin_merge(self, alive: Alive | None = None) -> Merge:
        """Return what has to be done next, to be handed to `end_merge` with what came out of it.

        Args:
            alive: Whether each row has a document. All segments are merged then, and documents that are gone
                are left out: after `end_merge` their rows are free.
        """
        first = 0
        if alive is not None:
            alive = alive.copy()
        else:
            first = len(self._segments) - 1
            size = self._segments[first].size
            while first > 0 and self._segments[first - 1].size <= _ALIKE * size:
                first -= 1
                size += self._segments[first].size
            first = min(first, len(self._segments) - 2)
        self._merge = Merge(first, tuple(self._segments[first:]), alive)
        return self._merge

    def end_merge(self, merge: Merge, segment: Segment) -> None:
        """Take what came out of a merge."""
        self._segments[merge.first : merge.first + len(merge.segments)] = [segment]
        self._dense_of(first=merge.first)
        self._merge = None
        if merge.alive is not None:
            self._forget_unused()

    def _forget_unused(self) -> None:
        self.seal()
        used = np.unique(np.concatenate([segment.words for segment in self._segments]))
        unused = len(self._vocabulary) - len(used)
        if unused > max(_LEAST_UNUSED, len(self._vocabulary) // _UNUSED_PART):
            numbers = self._vocabulary.keep_only(used)
            self._segments = [segment.renumbered(numbers) for segment in self._segments]
            self._dense.clear()

    def _dense_of(self, first: int) -> None:
        """Forget what was made of the first segment if that is another one now."""
        if first == 0:
            self._dense.clear()

    # Questions; everything that was added has been sealed.

    def find(self, word: str) -> Postings:
        """Return where the documents of a word stand."""
        number = self._vocabulary.find(word)
        if number is None:
            return Postings(-1, [])
        places = [(segment, segment.where(number)) for segment in self._segments]
        return Postings(number, [(segment, place) for segment, place in places if place.stop > place.start])

    def score(
        self, found: Postings, weight: float, scores: Scores, covered: NDArray[np.int16] | None
    ) -> None:
        """Add what a word says about each document.

        Args:
            found: Where its documents stand.
            weight: How much it counts.
            scores: Where it is added, by row.
            covered: Where 1 is added for each document that has it, by row.
        """
        least_dense = max(_LEAST_DENSE, len(scores) // _DENSE_PART)
        for segment, where in found.places:
            if segment is self._segments[0] and where.stop - where.start >= least_dense:
                dense = self._spread(found.number, segment, where, len(scores))
                size = len(dense)
                scores[:size] += np.float32(weight) * dense
                if covered is not None:
                    covered[:size] += dense > 0
                continue
            rows = segment.rows[where]
            scores[rows] += np.float32(weight) * segment.impacts[where]
            if covered is not None:
                covered[rows] += 1

    def _spread(self, number: int, segment: Segment, where: slice, size: int) -> Scores:
        dense = self._dense.get(number)
        if dense is None:
            if len(self._dense) >= _MOST_DENSE:
                self._dense.clear()
            dense = np.zeros(size, np.float32)
            dense[segment.rows[where]] = segment.impacts[where]
            self._dense[number] = dense
        return dense

    def best(self, numbers: Sequence[int], size: int) -> Scores:
        """Return the most that any of some words says about each row."""
        best = np.zeros(size, np.float32)
        for segment in self._segments:
            for where in segment.among(numbers):
                rows = segment.rows[where]
                best[rows] = np.maximum(best[rows], segment.impacts[where])
        return best

    def completions(self, prefix: str) -> list[int]:
        """Return the words that begin with a prefix, itself included, in their order."""
        return self._vocabulary.completions(prefix)

    def number(self, word: str) -> int | None:
        """Return the number of a word, if a document has it."""
        return self._vocabulary.find(word)


def _impacts_of(collected: _Collected) -> tuple[NDArray[np.uint32], Scores, NDArray[np.int64]]:
    """Of new documents: their words, each with what it says about its document, and how many each has."""
    count = len(collected.rows)
    field_lengths = np.array(collected.new.lengths, np.uint32)
    words = np.array(collected.new.words, np.uint32)
    fields = np.repeat(np.arange(count, dtype=np.uint32), np.array(collected.counts, np.uint32))
    places = np.repeat(fields, field_lengths)
    weights = np.repeat(np.array(collected.new.weights, np.float64), field_lengths)
    lengths = np.bincount(places, weights, minlength=count)
    keys = places.astype(np.uint64) << np.uint64(32) | words
    order = np.argsort(keys)
    keys = keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1)))
    sums = np.add.reduceat(weights[order], firsts) if len(firsts) else np.zeros(0)
    documents = (keys[firsts] >> np.uint64(32)).astype(np.int64)
    norms = _K1 * (1 - _B + _B * lengths / _AVERAGE)
    impacts = (sums * (_K1 + 1) / (sums + norms[documents])).astype(np.float32)
    return keys[firsts].astype(np.uint32), impacts, np.bincount(documents, minlength=count)


def rarity(documents: int, having: int) -> float:
    """Return how much it says that a document has a word that `having` of all have."""
    return float(np.log1p((documents - having + 0.5) / (having + 0.5)))
