from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from mq9_broker import native
from mq9_broker.engine import EngineLimits
from mq9_broker.store import MemoryStore, RocksdbStore, Store
from mq9_broker.store.sorted_map import SortedMap

from .support import BOX, Bench


@pytest.fixture(params=["memory", "memory, in Python, cold caches", "rocksdb"])
def new_bench(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Bench]]:
    """Makes engines: the same tests run over both stores, and without compiled parts and caches."""
    if "in Python" in request.param:
        monkeypatch.setattr(native, "new_map", SortedMap)
        monkeypatch.setattr(native, "render_run", None)
    opened: list[Store] = []
    numbers = count()

    def make(limits: EngineLimits | None = None) -> Bench:
        store: Store = (
            RocksdbStore(tmp_path / str(next(numbers))) if request.param == "rocksdb" else MemoryStore()
        )
        opened.append(store)
        return Bench(store, limits, cold="cold" in request.param)

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    """An engine with one mailbox named ``box``."""
    made = new_bench()
    made.create(BOX)
    return made
