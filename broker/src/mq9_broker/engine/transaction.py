"""Changes collected on top of a store until they are written as one batch; reads see them."""

from collections.abc import Callable, Iterator
from typing import Final

from mq9_broker import native
from mq9_broker.engine.ranges import Ranges
from mq9_broker.store import Batch, Store
from mq9_broker.store.sorted_map import OrderedBytes, scan

# Both compared by identity.
_DELETED: Final = b"\x00deleted"
_UNKNOWN: Final = b"\x00unknown"


class Transaction:
    """An overlay over a store."""

    put: Callable[[bytes, bytes], None]
    """Sets a key."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pending: dict[bytes, bytes | None] = {}
        """What was written; None = deleted."""
        self._ordered: OrderedBytes | None = None
        """The same in order: made when somebody asks for it, which most commands do not."""
        self._ranges = Ranges()
        """What was deleted of the store; keys written since are among the pending."""
        self._has_ranges = False
        # As long as nothing is in order: writing is half of what a transaction does.
        self.put = self._pending.__setitem__

    def _put_in_order(self, key: bytes, value: bytes) -> None:
        self._pending[key] = value
        self._order().set(key, value)

    def delete(self, key: bytes) -> None:
        """Removes ``key`` if it is there."""
        self._pending[key] = None
        if self._ordered is not None:
            self._ordered.set(key, _DELETED)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Removes every key with start <= key < end."""
        for key in [key for key, _ in scan(self._order(), start, end)]:
            del self._pending[key]
        self._order().discard_range(start, end)
        self._ranges.add(start, end)
        self._has_ranges = True

    def _order(self) -> OrderedBytes:
        ordered = self._ordered
        if ordered is None:
            ordered = self._ordered = native.new_map()
            for key in sorted(self._pending):
                value = self._pending[key]
                ordered.set(key, _DELETED if value is None else value)
            self.put = self._put_in_order
        return ordered

    def get(self, key: bytes) -> bytes | None:
        """The value under ``key``."""
        value = self._pending.get(key, _UNKNOWN)
        if value is not _UNKNOWN:
            return value
        if self._has_ranges and self._end_of_deleted(key) is not None:
            return None
        return self._store.get(key)

    def first(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The smallest (key, value) with start <= key < end."""
        if not self._pending and not self._has_ranges:
            return self._store.first(start, end)
        return next(self.scan(start, end), None)

    def last(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The greatest (key, value) with start <= key < end."""
        if not self._pending and not self._has_ranges:
            return self._store.last(start, end)
        pending = self._order()
        while True:
            new = pending.last(start, end)
            old = self._last_stored(start, end)
            if new is None or (old is not None and old[0] > new[0]):
                return old
            if new[1] is not _DELETED:
                return new
            end = new[0]

    def _last_stored(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        found = self._store.last(start, end)
        while found is not None and self._has_ranges:
            covering = self._ranges.around(found[0])
            if covering is None:
                break
            found = self._store.last(start, covering[0])
        return found

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Ascending (key, value) with start <= key < end; nothing may change while it runs."""
        pending = scan(self._order(), start, end)
        stored = self._scan_stored(start, end) if self._has_ranges else self._store.scan(start, end)
        new = next(pending, None)
        if new is None:
            yield from stored
            return
        old = next(stored, None)
        while new is not None:
            if old is not None and old[0] < new[0]:
                yield old
                old = next(stored, None)
                continue
            if old is not None and old[0] == new[0]:
                old = next(stored, None)
            if new[1] is not _DELETED:
                yield new
            new = next(pending, None)
        if old is not None:
            yield old
            yield from stored

    def _scan_stored(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        position: bytes | None = start
        while position is not None:
            begin, position = position, None
            for item in self._store.scan(begin, end):
                position = self._end_of_deleted(item[0])
                if position is not None:
                    break
                yield item

    def _end_of_deleted(self, key: bytes) -> bytes | None:
        """The end of a deleted range around ``key``."""
        covering = self._ranges.around(key)
        return None if covering is None else covering[1]

    def commit(self) -> None:
        """Writes everything as one batch."""
        if not self._pending and not self._has_ranges:
            return
        ranges = tuple(self._ranges) if self._has_ranges else ()
        self._store.write(tuple.__new__(Batch, (ranges, list(self._pending.items()))))
        if self._ordered is None and not ranges:
            self._pending.clear()
        else:
            self.discard()

    def discard(self) -> None:
        """Forgets everything not written."""
        self._pending.clear()
        if self._ordered is not None:
            self._ordered = None
            self.put = self._pending.__setitem__
        if self._has_ranges:
            self._has_ranges = False
            self._ranges.clear()
