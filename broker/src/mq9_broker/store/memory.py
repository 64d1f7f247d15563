"""A store in memory, gone when the process ends."""

from collections.abc import Iterator

from mq9_broker.store.interface import Batch
from mq9_broker.store.sorted_map import SortedMap


class MemoryStore:
    """Implements `Store` without a disk."""

    def __init__(self) -> None:
        self._map: SortedMap[bytes] = SortedMap()
        self.get = self._map.get
        self.first = self._map.first
        self.last = self._map.last

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store.scan`."""
        return self._map.scan(start, end)

    def write(self, batch: Batch) -> None:
        """See `Store.write`."""
        stored = self._map
        for start, end in batch.delete_ranges:
            stored.discard_range(start, end)
        for key, value in batch.writes:
            if value is None:
                stored.discard(key)
            else:
                stored.set(key, value)

    def close(self) -> None:
        """See `Store.close`."""
        self._map.clear()
