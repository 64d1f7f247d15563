"""What the engine needs of a store: ordered keys, atomic batches, range scans, range delete."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class StoreUnavailableError(Exception):
    """The store can't be read or written now; the message says why. A batch that failed changed nothing."""


class Batch(NamedTuple):
    """Changes that take effect together or not at all; ranges are deleted before keys are written."""

    delete_ranges: Sequence[tuple[bytes, bytes]]
    """(first key, first key not deleted), the first not after the second."""
    writes: Sequence[tuple[bytes, bytes | None]]
    """(key, value), None deletes. A key appears once."""


class Store(Protocol):
    """An ordered key-value store; keys compare as bytes. A `scan` in progress must not meet a `write`."""

    def get(self, key: bytes) -> bytes | None:
        """The value under ``key``."""
        ...

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Ascending (key, value) with start <= key < end, read as far as the caller goes."""
        ...

    def first(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The smallest (key, value) with start <= key < end."""
        ...

    def last(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        """The greatest (key, value) with start <= key < end."""
        ...

    def write(self, batch: Batch) -> None:
        """Applies the batch atomically.

        Raises:
            StoreUnavailableError: it could not be applied.
        """
        ...

    def close(self) -> None:
        """Releases everything; the store is not used afterwards."""
        ...
