"""A store in memory, gone when the process ends."""

from collections.abc import Iterator

from mq9_broker import native
from mq9_broker.store.interface import Batch
from mq9_broker.store.sorted_map import scan


class MemoryStore:
    """Implements `Store` without a disk."""

    def __init__(self) -> None:
        self._map = native.new_map()
        self.get = self._map.get
        self.first = self._map.first
        self.last = self._map.last

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store.scan`."""
        return scan(self._map, start, end)

    def write(self, batch: Batch) -> None:
        """See `Store.write`."""
        for start, end in batch.delete_ranges:
            self._map.discard_range(start, end)
        self._map.update(batch.writes)

    def close(self) -> None:
        """See `Store.close`."""
        self._map.clear()
