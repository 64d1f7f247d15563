"""Ranges of keys, joined where they touch."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator


class Ranges:
    """A set of keys made of ranges (first key, first key after it); a look-up halves its way through them."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[bytes] = []
        self._ends: list[bytes] = []

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        """All ranges, ascending."""
        return zip(self._starts, self._ends, strict=True)

    def add(self, start: bytes, end: bytes) -> None:
        """Puts every key with start <= key < end in."""
        low = bisect_left(self._ends, start)
        high = bisect_right(self._starts, end)
        if low < high:
            start = min(start, self._starts[low])
            end = max(end, self._ends[high - 1])
        self._starts[low:high] = [start]
        self._ends[low:high] = [end]

    def around(self, key: bytes) -> tuple[bytes, bytes] | None:
        """The range in which a key lies."""
        at = bisect_right(self._starts, key) - 1
        return (self._starts[at], self._ends[at]) if at >= 0 and key < self._ends[at] else None

    def clear(self) -> None:
        """Takes all out."""
        self._starts.clear()
        self._ends.clear()
