"""Postings of many documents as four arrays that never change: which documents have a word, how well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.vocabulary import Numbers

Rows = NDArray[np.int32]
Scores = NDArray[np.float32]

_NOTHING: Final = slice(0, 0)


class Segment(NamedTuple):
    """Words, ascending, and the documents that each of them stands in.

    Attributes:
        words: Their numbers.
        starts: Where the documents of each begin; and where the last one's end.
        rows: Documents, word by word.
        impacts: What the word says about each, from 0 to 1 + k1.
    """

    words: Numbers
    starts: NDArray[np.int64]
    rows: Rows
    impacts: Scores

    @property
    def size(self) -> int:
        """The number of pairs of word and document."""
        return len(self.rows)

    def where(self, word: int) -> slice:
        """Return where the documents of a word stand in `rows` and `impacts`."""
        place = int(np.searchsorted(self.words, np.uint32(word)))
        if place == len(self.words) or self.words[place] != word:
            return _NOTHING
        return slice(int(self.starts[place]), int(self.starts[place + 1]))

    def among(self, words: Sequence[int]) -> list[slice]:
        """Return where the documents of those of some words stand that are here."""
        wanted = np.array(words, np.uint32)
        places = np.searchsorted(self.words, wanted)
        places[places == len(self.words)] = 0
        there = places[self.words[places] == wanted] if len(self.words) else places[:0]
        return [slice(int(self.starts[p]), int(self.starts[p + 1])) for p in there]

    def renumbered(self, numbers: NDArray[np.int64]) -> Segment:
        """Return the same with other numbers for words, in the same order."""
        return self._replace(words=numbers[self.words].astype(np.uint32))


def segment_of(words: Numbers, rows: Rows, impacts: Scores) -> Segment:
    """Return a segment of pairs of word and document in any order, no pair twice."""
    order = np.argsort(words, kind="stable")
    ordered = words[order]
    firsts = np.flatnonzero(np.diff(ordered, prepend=ordered[:1] + np.uint32(1)))
    starts = np.append(firsts, len(ordered))
    return Segment(ordered[firsts], starts, rows[order], impacts[order])


def merged(segments: Sequence[Segment], alive: NDArray[np.bool_] | None) -> Segment:
    """Return all of some segments as one.

    Args:
        segments: No document is in two of them.
        alive: Whether each document is still there; the others are left out. None: all are.
    """
    if alive is not None:
        segments = [_without_dead(segment, alive) for segment in segments]
    if len(segments) == 1:
        return segments[0]
    words: Numbers = np.unique(np.concatenate([segment.words for segment in segments]))
    places = [np.searchsorted(words, segment.words) for segment in segments]
    lengths = [np.diff(segment.starts) for segment in segments]
    totals = np.zeros(len(words) + 1, np.int64)
    for place, length in zip(places, lengths, strict=True):
        totals[1:][place] += length
    starts = np.cumsum(totals)
    free = starts[:-1].copy()
    rows = np.empty(starts[-1], np.int32)
    impacts = np.empty(starts[-1], np.float32)
    for segment, place, length in zip(segments, places, lengths, strict=True):
        targets = np.repeat(free[place] - segment.starts[:-1], length)
        targets += np.arange(len(targets))
        rows[targets] = segment.rows
        impacts[targets] = segment.impacts
        free[place] += length
    return Segment(words, starts, rows, impacts)


def _without_dead(segment: Segment, alive: NDArray[np.bool_]) -> Segment:
    kept = alive[segment.rows]
    if kept.all():
        return segment
    before = np.append(0, np.cumsum(kept))
    starts = before[segment.starts]
    some = np.flatnonzero(np.diff(starts))
    return Segment(
        segment.words[some],
        np.append(starts[some], starts[-1]),
        segment.rows[kept],
        segment.impacts[kept],
    )
