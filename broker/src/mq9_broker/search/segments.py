"""Postings of many documents as four arrays that never change: which documents have a word, how well."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.vocabulary import Numbers

Rows = NDArray[np.int32]
Scores = NDArray[np.float32]

_LARGEST: Final = np.iinfo(np.int32).max
_NOTHING: Final = slice(0, 0)
# Of so small a part of some documents it is faster to look for each of them.
_FEW: Final = 16


class Gone(NamedTuple):
    """Documents that are gone, though segments may still have them.

    Attributes:
        rows: Ascending.
        mask: Whether each row is one of them.
    """

    rows: Rows
    mask: NDArray[np.bool_]

    def among(self, rows: Rows) -> int:
        """Return how many of some documents, ascending, are gone."""
        if len(self.rows) * _FEW > len(rows):
            return int(np.count_nonzero(self.mask[rows]))
        places = np.minimum(rows.searchsorted(self.rows), len(rows) - 1)
        return int(np.count_nonzero(rows[places] == self.rows))


def gone_of(alive: NDArray[np.bool_]) -> Gone | None:
    """Return the rows that are not alive; None: all are."""
    mask = ~alive
    rows = np.flatnonzero(mask).astype(np.int32)
    return Gone(rows, mask) if len(rows) else None


class Segment(NamedTuple):
    """Words, ascending, and the documents that each of them stands in.

    Attributes:
        words: Their numbers.
        starts: Where the documents of each begin; and where the last one's end.
        rows: Documents, word by word, those of one ascending.
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
        place = int(self.words.searchsorted(np.uint32(word)))
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
    order = _order(words, rows)
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
    # Documents that came later have larger rows, unless these were free again.
    segments = sorted(segments, key=lambda segment: int(segment.rows.min(initial=_LARGEST)))
    is_ascending = all(a.rows.max(initial=-1) < b.rows.min(initial=_LARGEST) for a, b in pairwise(segments))
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
    if not is_ascending:
        order = _order(np.repeat(np.arange(len(words), dtype=np.uint32), totals[1:]), rows)
        rows, impacts = rows[order], impacts[order]
    return Segment(words, starts, rows, impacts)


def _order(words: Numbers, rows: Rows) -> NDArray[np.int64]:
    return np.argsort(words.astype(np.uint64) << np.uint64(32) | rows.astype(np.uint64))


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
