"""A store on disk, kept by RocksDB (rocksdict)."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBCompressionType,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteOptions,
)

from mq9_broker.store.interface import Batch, StoreUnavailableError
from mq9_broker.store.reserve import Reserve

#: Bytes written before they leave memory for a sorted file. Recovery needs room for two such files.
WRITE_BUFFER: Final = 32 * 2**20
_BLOCK_CACHE: Final = 64 * 2**20
# A file with so many deletions among so many entries in a row is compacted, however small it is.
_DELETION_WINDOW: Final = 4096
_DELETION_TRIGGER: Final = 1024
# So many deletions in memory are brought to a file at once: readers have to step over them until they meet,
# in a compaction, what they delete. Fewer wait for the next tidying.
_MOST_DELETIONS: Final = 20_000
_MANY_RANGES: Final = 16


class RocksdbStore:
    """Implements `Store` in the folder ``path``, which it creates. One process at a time.

    What `write` was given survives the end of the process in any case, and a loss of power once `sync` has
    returned. When RocksDB has failed (a full disk, say) it takes no writes any more, even once the cause is
    gone: `failure` says why, and `recover` opens it anew.

    Args:
        path: the folder.
        reserve: room that is given back for recovery.
        write_buffer: bytes kept in memory before they become a file.
        read_only: nothing is changed; another process may have it open.
    """

    def __init__(
        self,
        path: Path,
        *,
        reserve: Reserve | None = None,
        write_buffer: int = WRITE_BUFFER,
        read_only: bool = False,
    ) -> None:
        self._path = path
        self._reserve = reserve
        self._write_buffer = write_buffer
        self._read_only = read_only
        self._read_options = ReadOptions()
        self._write_options = WriteOptions()
        self._failure: str | None = None
        self._must_reopen = False
        self._sync_failed = False
        self._syncing = threading.Lock()
        self._tidying = threading.Lock()
        self._written = self._synced = 0
        self._deletions = 0
        self._deleted_ranges: list[tuple[bytes, bytes]] = []
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = self._open()
        except Exception as error:
            if reserve is None or not is_full(str(error)):
                raise
            reserve.release()
            self._database = self._open()
        self._take_reserve()

    def _open(self) -> Rdict:
        options = Options(raw_mode=True)
        if self._read_only:
            return Rdict(str(self._path), options, access_type=AccessType.read_only(False))
        options.create_if_missing(True)
        options.set_write_buffer_size(self._write_buffer)
        options.set_max_write_buffer_number(2)
        # Ends of files that RocksDB keeps about itself; the default keeps 1,000 of them.
        options.set_keep_log_file_num(4)
        # What is stored is mostly base64, in which fast compression finds nothing.
        options.set_compression_type(DBCompressionType.none())
        tables = BlockBasedOptions()
        # Most looks at a segment's marks of gone messages find none: without the filter each reads a block.
        tables.set_bloom_filter(10, False)
        tables.set_block_cache(Cache(_BLOCK_CACHE))
        options.set_block_based_table_factory(tables)
        options.add_compact_on_deletion_collector_factory(_DELETION_WINDOW, _DELETION_TRIGGER, 0.0)
        return Rdict(str(self._path), options)

    # What `Store` asks for.

    def get(self, key: bytes) -> bytes | None:
        """See `Store.get`."""
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise StoreUnavailableError(str(error)) from None
        return value

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """See `Store.scan`."""
        options = self._until(end)
        try:
            position = self._database.iter(options)
            position.seek(start)
            while position.valid():
                yield position.key(), position.value()
                position.next()
            position.status()
        except Exception as error:
            raise StoreUnavailableError(str(error)) from None

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
        try:
            position = self._database.iter(self._read_options)
            position.seek_for_prev(end)
            if position.valid() and position.key() == end:
                position.prev()
            if not position.valid():
                position.status()
                return None
            key = position.key()
            return (key, position.value()) if key >= start else None
        except Exception as error:
            raise StoreUnavailableError(str(error)) from None

    def write(self, batch: Batch) -> None:
        """See `Store.write`."""
        if self._failure is not None:
            raise StoreUnavailableError(self._failure)
        changes = WriteBatch(raw_mode=True)
        for start, end in batch.delete_ranges:
            changes.delete_range(start, end)
            self._deleted_ranges.append((start, end))
        put, delete = changes.put, changes.delete
        for key, value in batch.writes:
            if value is None:
                delete(key)
                self._deletions += 1
            else:
                put(key, value)
        try:
            self._database.write(changes, self._write_options)
        except Exception as error:
            raise self._failed(error) from None
        self._written += 1

    def close(self) -> None:
        """See `Store.close`."""
        with self._syncing, self._tidying:
            if self._failure is None:
                self._database.close()
                return
            with contextlib.suppress(Exception):  # it failed before, and says so again
                self._database.close()

    # Power loss.

    @property
    def is_synced(self) -> bool:
        """Whether all that was written has reached the disk itself."""
        return self._synced == self._written

    def sync(self) -> None:
        """Bring all that was written before this call to the disk itself. May be called from another thread.

        Raises:
            StoreUnavailableError: it is not known what of it is there.
        """
        with self._syncing:
            written = self._written
            if written == self._synced:
                return
            if self._sync_failed:
                # A second try could succeed without having done anything: the system forgets what it could
                # not write.
                raise StoreUnavailableError(self._failure or "")
            try:
                self._database.flush_wal(True)
            except Exception as error:
                self._sync_failed = True
                raise self._failed(error) from None
            self._synced = written

    # Failure and recovery.

    @property
    def failure(self) -> str | None:
        """Why nothing can be written, None when it can."""
        return self._failure

    def _failed(self, error: Exception) -> StoreUnavailableError:
        self._failure = str(error)
        self._must_reopen = True
        return StoreUnavailableError(self._failure)

    def recover(self) -> bool:
        """Try to get out of a failure; whether there is none any more.

        Whoever read from the store has to read again: what was written without being synced may be gone.
        """
        if self._must_reopen:
            if self._reserve is not None:
                self._reserve.release()
            with self._syncing, self._tidying:
                with contextlib.suppress(Exception):  # it has failed already
                    self._database.close()
                try:
                    # What is in the log is brought into a file, and to the disk.
                    self._database = self._open()
                except Exception as error:
                    self._failure = str(error)
                    return False
                self._must_reopen = self._sync_failed = False
                self._synced = self._written
        self._take_reserve()
        return self._failure is None

    def _take_reserve(self) -> None:
        self._failure = None
        if self._reserve is not None:
            try:
                self._reserve.take()
            except OSError as error:
                self._failure = f"no room for the reserve: {error.strerror or error}"

    # The disk.

    def tidy(self) -> None:
        """Let what was deleted leave the disk, and the way of readers. May take long; for another thread.

        Raises:
            StoreUnavailableError: the store has failed.
        """
        with self._tidying:
            if self._failure is not None:
                return
            ranges, self._deleted_ranges = self._deleted_ranges, []
            if not self._deletions and not ranges:
                return
            self._deletions = 0
            if len(ranges) > _MANY_RANGES:
                ranges = [(min(start for start, _ in ranges), max(end for _, end in ranges))]
            try:
                # The collector compacts what is mostly deletions; nothing looks at deleted ranges.
                self._database.flush(True)
                for start, end in ranges:
                    self._database.compact_range(start, end)
            except Exception as error:
                raise self._failed(error) from None

    @property
    def is_untidy(self) -> bool:
        """Whether so much was deleted that `tidy` should not wait."""
        return self._deletions >= _MOST_DELETIONS

    def checkpoint(self, path: Path) -> None:
        """Make a copy of the store as it is now, in a new folder on the same disk, by links to its files."""
        with self._tidying:
            # So that little is left to do while nothing else runs: rocksdict keeps the interpreter's lock.
            self._database.flush(True)
            Checkpoint(self._database).create_checkpoint(str(path))

    def size(self) -> int:
        """Bytes that the store takes on the disk."""
        return sum(entry.stat().st_size for entry in self._path.iterdir() if entry.is_file())


def is_full(message: str) -> bool:
    """Whether a failure of RocksDB comes of a full disk."""
    return "No space left on device" in message or "Disk quota exceeded" in message
