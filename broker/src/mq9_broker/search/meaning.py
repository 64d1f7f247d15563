"""Scores by meaning: which of many agents can be among the best, and the exact scores of those.

The score is one sum: the cosine with the multilingual vector, that with the fast one, and how well the words
match, each with a fixed weight. With estimates of the cosines and bounds of their errors most agents are
known not to be wanted; the others are compared exactly, so what is found is what comparing all of them finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mq9_broker.search.embedders import Vectors
from mq9_broker.search.segments import Gone, Scores
from mq9_broker.search.vectors import Column, Estimates

# What the cosine with the multilingual vector is expected to be, by the fast one, for an agent that has none
# yet.
_EXPECTED_AT_0: Final = 0.04
_EXPECTED_SLOPE: Final = 0.4
# Fewer agents are compared exactly at once.
LEAST_ESTIMATED = 8_192
# Agents that are compared exactly to learn which score is enough, for each that is wanted and at least.
_TRIED: Final = 4
_LEAST_TRIED: Final = 100
# Of so large a part of all agents the exact comparison is not worth an estimate.
_LARGE_PART: Final = 8
# Rows of which the best one stands for all when a first threshold is looked for.
_BLOCK: Final = 32
# More than the rounding of a score.
_ROUNDING: Final = 1e-4

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Comparison:
    """A question by meaning, and what it is compared with.

    Attributes:
        fast: The fast vectors, and the question's.
        first: About the cosines with the fast vectors; None: it is not known.
        better: The better vectors, and the question's; None: there are none.
        second: About the cosines with the better vectors; None: it is not known.
        missing: Which rows have no better vector; None: all have one.
        words: How well the words of each row match, with its weight.
        fast_weight: The weight of the cosine with the fast vector.
    """

    fast: tuple[Column, Vectors]
    first: Estimates | None
    better: tuple[Column, Vectors] | None
    second: Estimates | None
    missing: NDArray[np.bool_] | None
    words: Scores
    fast_weight: float

    def scores(self) -> Scores:
        """Return the scores of all rows."""
        size = len(self.words)
        column, question = self.fast
        cosines = column.compare(question, size)
        better = None if self.better is None else self.better[0].compare(self.better[1], size)
        return self._sum(cosines, better, self.missing, self.words)

    def scores_of(self, rows: Rows) -> Scores:
        """Return the scores of some rows."""
        column, question = self.fast
        cosines = column.compare_some(question, rows)
        better = None if self.better is None else self.better[0].compare_some(self.better[1], rows)
        missing = None if self.missing is None else self.missing[rows]
        return self._sum(cosines, better, missing, self.words[rows])

    def _sum(
        self, cosines: Vectors, better: Vectors | None, missing: NDArray[np.bool_] | None, words: Scores
    ) -> Scores:
        found: Scores = cosines * np.float32(self.fast_weight)
        if better is None:
            found += _expected(cosines)
        else:
            if missing is not None:
                np.copyto(better, _expected(cosines), where=missing)
            found += better
        found += words
        return found

    def estimate(self) -> Estimated | None:
        """Return about what `scores` does, and how far it may be off; None: it is not known."""
        if self.first is None or (self.better is not None and self.second is None):
            return None
        cosines = None if self.second is None else self.second.cosines
        about = self._sum(self.first.cosines, cosines, self.missing, self.words)
        return Estimated(about, self.first, self.fast_weight, self.second, self.missing)


class Estimated(NamedTuple):
    """Scores that are about right, each off by no more than its bound.

    Attributes:
        scores: Of all rows.
        fast: The cosines with the fast vectors that are in them.
        fast_weight: And their weight.
        better: Those with the better vectors; None: there are none.
        missing: Which rows have no better vector; None: all have one.
    """

    scores: Scores
    fast: Estimates
    fast_weight: float
    better: Estimates | None
    missing: NDArray[np.bool_] | None

    def bounds(self, rows: Rows) -> Scores:
        """Return the bounds of some rows."""
        fast = self.fast.bounds(rows)
        found: Scores = fast * np.float32(self.fast_weight)
        expected = fast * np.float32(_EXPECTED_SLOPE)
        if self.better is None:
            found += expected
            return found
        better = self.better.bounds(rows)
        found += better if self.missing is None else np.where(self.missing[rows], expected, better)
        return found

    @property
    def bound(self) -> float:
        """More than any of the bounds, or as much."""
        found = self.fast_weight * self.fast.bound
        if self.better is None or self.missing is not None:
            found += _EXPECTED_SLOPE * self.fast.bound
        return found + (self.better.bound if self.better is not None else 0.0)


def _expected(cosines: Vectors) -> Vectors:
    found: Vectors = np.float32(_EXPECTED_AT_0) + np.float32(_EXPECTED_SLOPE) * cosines
    return found


def candidates(
    comparison: Comparison, gone: Gone | None, wanted: int, most: float | None
) -> tuple[Rows, Scores]:
    """Return rows and their scores, the best `wanted` ones of those with a score below `most` among them.

    Rows that are as good as the last of these, or as `most`, are among them too.

    Args:
        comparison: What is compared.
        gone: Rows that are no agent's; None: all are one's.
        wanted: How many rows are wanted.
        most: A score; None: from the best one on.
    """
    rows = _promising(comparison, gone, wanted, most)
    if rows is not None:
        return rows, comparison.scores_of(rows)
    found = comparison.scores()
    if gone is None:
        return np.arange(len(found)), found
    rows = np.flatnonzero(~gone.mask)
    return rows, found[rows]


def _promising(comparison: Comparison, gone: Gone | None, wanted: int, most: float | None) -> Rows | None:
    """Rows that can be wanted; None if they are too many, or not known."""
    size = len(comparison.words)
    tried = max(_TRIED * wanted, _LEAST_TRIED)
    if tried >= size // _BLOCK:
        return None
    estimated = comparison.estimate()
    if estimated is None:
        return None
    about = estimated.scores
    if gone is not None:
        about[gone.rows] = -np.inf
    # One bound for all first: few rows are left then to look at more closely.
    bound = estimated.bound + _ROUNDING
    below = about
    if most is not None:
        # Only rows that certainly come after it: what the best of them have is enough.
        below = np.where(about < np.float32(most - bound), about, np.float32(-np.inf))
    best = _best(below, tried)
    if not wanted <= len(best) <= size // _LARGE_PART:
        return None
    enough = np.partition(comparison.scores_of(best), len(best) - wanted)[len(best) - wanted]
    possible = about >= np.float32(enough - bound)
    if most is not None:
        possible &= about <= np.float32(most + bound)
    rows = np.flatnonzero(possible)
    about, bounds = about[rows], estimated.bounds(rows)
    kept = about + bounds >= enough - np.float32(_ROUNDING)
    if most is not None:
        kept &= about - bounds <= most + _ROUNDING
    rows = rows[kept]
    return rows if len(rows) <= size // _LARGE_PART else None


def _best(scores: Scores, count: int) -> Rows:
    """Return some of the best rows, `count` at least if so many have a score; there are more blocks."""
    # The largest of each block: as many of them are at least as good as the last one that is wanted.
    blocks = scores[: len(scores) // _BLOCK * _BLOCK].reshape(_BLOCK, -1).max(axis=0)
    least = np.partition(blocks, len(blocks) - count)[len(blocks) - count]
    rows = np.flatnonzero(scores >= least)
    return rows if least > -np.inf else rows[scores[rows] > -np.inf]
