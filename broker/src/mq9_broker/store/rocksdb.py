"""A store on disk, kept by RocksDB (rocksdict)."""

from collections.abc import Iterator
from pathlib import Path

from rocksdict import Options, Rdict, ReadOptions, WriteBatch, WriteOptions

from mq9_broker.store.interface import Batch


class RocksdbStore:
    """Implements `Store` in the folder ``path``, which it creates. One process at a time.

    What `write` was given survives the end of the process in any case. A loss of power it survives once
    `sync` has returned, or at once with ``sync_writes``.
    """

    def __init__(self, path: Path, *, sync_writes: bool = False) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = Rdict(str(path), options)
        self._read_options = ReadOptions()
        self._write_options = WriteOptions()
        self._write_options.sync = sync_writes
        self._is_synced = True

    def get(self, key: bytes) -> bytes | None:
        """See `Store.get`."""
        value: bytes | None = self._database.get(key)
        return value

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store.scan`."""
        options = self._until(end)
        position = self._database.iter(options)
        position.seek(start)
        while position.valid():
            yield position.key(), position.value()
            position.next()
        position.status()

    def first(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """See `Store.first`."""
        return next(self.scan(start, end), None)

    @staticmethod
    def _until(end: bytes) -> ReadOptions:
        # Without a bound RocksDB steps over all that was deleted behind the end, to find what comes next.
        # There is none for `last`: rocksdict's set_iterate_lower_bound sets the upper one.
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        return options

    def last(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """See `Store.last`."""
        position = self._database.iter(self._read_options)
        position.seek_for_prev(end)
        if position.valid() and position.key() == end:
            position.prev()
        if not position.valid():
            position.status()
            return None
        key = position.key()
        return (key, position.value()) if key >= start else None

    def write(self, batch: Batch) -> None:
        """See `Store.write`."""
        changes = WriteBatch(raw_mode=True)
        for start, end in batch.delete_ranges:
            changes.delete_range(start, end)
        for key, value in batch.writes:
            if value is None:
                changes.delete(key)
            else:
                changes.put(key, value)
        self._database.write(changes, self._write_options)
        self._is_synced = self._write_options.sync

    def sync(self) -> None:
        """Bring all that was written to the disk itself. May be called from another thread."""
        if not self._is_synced:
            self._is_synced = True
            self._database.flush_wal(True)

    def close(self) -> None:
        """See `Store.close`."""
        self._database.close()
