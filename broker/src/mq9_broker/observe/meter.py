"""Counters of the hot path: requests by operation and result, and how long they took. No I/O, no locks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

# Upper bounds of the buckets in seconds: a short reply takes some microseconds, a long one milliseconds.
BUCKETS: Final = (
    0.000_01,
    0.000_025,
    0.000_05,
    0.000_1,
    0.000_25,
    0.000_5,
    0.001,
    0.002_5,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    1.0,
    5.0,
)


class Histogram:
    """How often a duration fell into each bucket; the last bucket has no bound.

    Attributes:
        counts: Per bucket of `BUCKETS`, and one more.
        total: Sum of all seconds.
    """

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float, times: int = 1) -> None:
        """Note that something took so long, so many times."""
        self.counts[bisect_left(BUCKETS, seconds)] += times
        self.total += seconds * times

    @property
    def count(self) -> int:
        """How many durations there were."""
        return sum(self.counts)


class Meter:
    """Requests since the start of the process.

    Attributes:
        durations: By operation: seconds from the moment at which the requests of one read were taken up until
            all of them were carried out. What a FETCH waited and what a sync took is not in it.
        failed: Requests that were answered with an error, by operation and code.
    """

    __slots__ = ("durations", "failed")

    def __init__(self) -> None:
        self.durations: dict[str, Histogram] = {}
        self.failed: Counter[tuple[str, str]] = Counter()

    def requests(self, operation: str, times: int, seconds: float) -> None:
        """Note requests of one operation that were carried out together."""
        histogram = self.durations.get(operation)
        if histogram is None:
            histogram = self.durations[operation] = Histogram()
        histogram.counts[bisect_left(BUCKETS, seconds)] += times
        histogram.total += seconds * times
