"""Counts what a call costs in steps that do not depend on the machine: executed lines and store accesses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from mq9_broker.store import Batch, Store


class CountingStore:
    """A store that counts keys looked up, read by scans, and written."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.accesses = 0

    def get(self, key: bytes) -> bytes | None:
        self.accesses += 1
        return self.store.get(key)

    def first(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.accesses += 1
        return self.store.first(start, end)

    def last(self, start: bytes, end: bytes) -> tuple[bytes, bytes] | None:
        self.accesses += 1
        return self.store.last(start, end)

    def scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        for item in self.store.scan(start, end):
            self.accesses += 1
            yield item

    def write(self, batch: Batch) -> None:
        self.accesses += len(batch.delete_ranges) + len(batch.writes)
        self.store.write(batch)

    def close(self) -> None:
        self.store.close()


def lines_of(call: Callable[[], object]) -> int:
    """How many lines of Python a call executes; each turn of a loop or comprehension counts."""
    lines = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(None)
    return lines
