"""An ordered map of bytes in short chunks: an operation touches one chunk and the list of chunks.

A dict beside a sorted list would be simpler, but a dict of a million keys stops everything while it grows.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final, Generic, Protocol, TypeVar

_Value = TypeVar("_Value")
_CHUNK: Final = 512
_PAGE: Final = 16
_LARGEST_PAGE: Final = 512


class OrderedBytes(Protocol):
    """What `SortedMap[bytes]` and its compiled form have in common; see there."""

    def __len__(self) -> int: ...
    def get(self, key: bytes, /) -> bytes | None: ...  # noqa: D102
    def set(self, key: bytes, value: bytes, /) -> None: ...  # noqa: D102
    def discard(self, key: bytes, /) -> None: ...  # noqa: D102
    def discard_range(self, start: bytes, end: bytes, /) -> None: ...  # noqa: D102
    def update(self, writes: Sequence[tuple[bytes, bytes | None]], /) -> None: ...  # noqa: D102
    def first(self, start: bytes, end: bytes, /) -> tuple[bytes, bytes] | None: ...  # noqa: D102
    def last(self, start: bytes, end: bytes, /) -> tuple[bytes, bytes] | None: ...  # noqa: D102
    def page(self, start: bytes, end: bytes, most: int, /) -> list[tuple[bytes, bytes]]: ...  # noqa: D102
    def clear(self) -> None: ...  # noqa: D102


class SortedMap(Generic[_Value]):
    """Keys in byte order with a value each."""

    __slots__ = ("_keys", "_last_keys", "_length", "_values")

    def __init__(self) -> None:
        self._keys: list[list[bytes]] = []
        self._values: list[list[_Value]] = []
        self._last_keys: list[bytes] = []
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def get(self, key: bytes) -> _Value | None:
        """The value under ``key``, None when there is none."""
        chunk = bisect_left(self._last_keys, key)
        if chunk == len(self._last_keys):
            return None
        keys = self._keys[chunk]
        at = bisect_left(keys, key)
        return self._values[chunk][at] if keys[at] == key else None

    def set(self, key: bytes, value: _Value) -> None:
        """Puts ``value`` under ``key``."""
        last_keys = self._last_keys
        chunk = bisect_left(last_keys, key)
        if chunk == len(last_keys):
            self._append(key, value)
            return
        keys = self._keys[chunk]
        at = bisect_left(keys, key)
        if keys[at] == key:
            self._values[chunk][at] = value
            return
        keys.insert(at, key)
        self._values[chunk].insert(at, value)
        self._length += 1
        if len(keys) > 2 * _CHUNK:
            values = self._values[chunk]
            self._keys.insert(chunk + 1, keys[_CHUNK:])
            self._values.insert(chunk + 1, values[_CHUNK:])
            del keys[_CHUNK:], values[_CHUNK:]
            last_keys.insert(chunk, keys[-1])

    def _append(self, key: bytes, value: _Value) -> None:
        self._length += 1
        if not self._keys or len(self._keys[-1]) >= _CHUNK:
            self._keys.append([key])
            self._values.append([value])
            self._last_keys.append(key)
            return
        self._keys[-1].append(key)
        self._values[-1].append(value)
        self._last_keys[-1] = key

    def update(self, writes: Sequence[tuple[bytes, _Value | None]]) -> None:
        """Puts each value under its key, and removes the keys with None."""
        for key, value in writes:
            if value is None:
                self.discard(key)
            else:
                self.set(key, value)

    def discard(self, key: bytes) -> None:
        """Removes ``key`` if it is there."""
        chunk = bisect_left(self._last_keys, key)
        if chunk == len(self._last_keys):
            return
        keys = self._keys[chunk]
        at = bisect_left(keys, key)
        if keys[at] == key:
            self._cut(chunk, at, at + 1)

    def discard_range(self, start: bytes, end: bytes) -> None:
        """Removes every key with start <= key < end."""
        if start >= end:
            return
        first = bisect_left(self._last_keys, start)
        if first == len(self._last_keys):
            return
        last = bisect_left(self._last_keys, end)
        low = bisect_left(self._keys[first], start)
        if first == last:
            self._cut(first, low, bisect_left(self._keys[first], end))
            return
        if last < len(self._keys):
            self._cut(last, 0, bisect_left(self._keys[last], end))
        if low:
            self._cut(first, low, len(self._keys[first]))
            first += 1
        self._length -= sum(map(len, self._keys[first:last]))
        del self._keys[first:last], self._values[first:last], self._last_keys[first:last]

    def _cut(self, chunk: int, low: int, high: int) -> None:
        """Removes positions low..high-1 of a chunk, and the chunk when nothing is left."""
        keys = self._keys[chunk]
        del keys[low:high], self._values[chunk][low:high]
        self._length -= high - low
        if keys:
            self._last_keys[chunk] = keys[-1]
        else:
            del self._keys[chunk], self._values[chunk], self._last_keys[chunk]

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, _Value]]:
        """Ascending (key, value) with start <= key < end; the map must not change meanwhile."""
        chunk = bisect_left(self._last_keys, start)
        if chunk == len(self._last_keys):
            return
        low = bisect_left(self._keys[chunk], start)
        while chunk < len(self._keys):
            keys, values = self._keys[chunk], self._values[chunk]
            if keys[-1] >= end:
                for at in range(low, bisect_left(keys, end)):
                    yield keys[at], values[at]
                return
            for at in range(low, len(keys)):
                yield keys[at], values[at]
            low = 0
            chunk += 1

    def page(self, start: bytes, end: bytes, most: int) -> list[tuple[bytes, _Value]]:
        """The first (key, value) with start <= key < end, ascending, at most so many."""
        return list(islice(self.scan(start, end), most))

    def first(self, start: bytes, end: bytes) -> tuple[bytes, _Value] | None:
        """The smallest (key, value) with start <= key < end."""
        chunk = bisect_left(self._last_keys, start)
        if chunk == len(self._last_keys):
            return None
        keys = self._keys[chunk]
        at = bisect_left(keys, start)
        key = keys[at]
        return (key, self._values[chunk][at]) if key < end else None

    def last(self, start: bytes, end: bytes) -> tuple[bytes, _Value] | None:
        """The greatest (key, value) with start <= key < end."""
        if not self._keys:
            return None
        chunk = bisect_left(self._last_keys, end)
        if chunk == len(self._keys):
            chunk -= 1
            at = len(self._keys[chunk]) - 1
        else:
            at = bisect_left(self._keys[chunk], end) - 1
            if at < 0:
                chunk -= 1
                if chunk < 0:
                    return None
                at = len(self._keys[chunk]) - 1
        key = self._keys[chunk][at]
        return (key, self._values[chunk][at]) if key >= start else None

    def clear(self) -> None:
        """Removes everything."""
        self._keys, self._values, self._last_keys, self._length = [], [], [], 0


def scan(stored: OrderedBytes, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Ascending (key, value) with start <= key < end; few at a time are taken out of the map."""
    most = _PAGE
    while True:
        page = stored.page(start, end, most)
        yield from page
        if len(page) < most:
            return
        start = page[-1][0] + b"\x00"
        most = _LARGEST_PAGE


def end_of_prefix(prefix: bytes) -> bytes:
    """The first key after all keys that begin with ``prefix`` (which is not all 0xff)."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes([trimmed[-1] + 1])
