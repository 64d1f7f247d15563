"""What was deleted leaves the disk, and the way of readers."""

import os
from pathlib import Path

import pytest
from rocksdict import ReadOptions

from mq9_broker.store import Batch, RocksdbStore

KEYS = 20_000
VALUE = 500


class Watched(RocksdbStore):
    """Its scans fail instead of stepping over more than ten deleted keys, once told so."""

    is_hasty = False

    def _until(self, end: bytes) -> ReadOptions:  # type: ignore[override]
        options = RocksdbStore._until(end)
        if self.is_hasty:
            options.set_max_skippable_internal_keys(10)
        return options


def key(number: int) -> bytes:
    return b"k%06d" % number


def fill(store: RocksdbStore) -> None:
    for start in range(0, KEYS, 1000):
        writes = [(key(number), os.urandom(VALUE)) for number in range(start, start + 1000)]
        store.write(Batch((), [*writes]))


@pytest.mark.parametrize("how", ["keys", "range"])
@pytest.mark.parametrize("where", ["in files", "in memory"])
def test_deleted_data_leaves_the_disk(tmp_path: Path, how: str, where: str) -> None:
    store = Watched(tmp_path / "store", write_buffer=4 * 2**20)
    store.write(Batch((), [(b"a", b"1"), (b"z", b"1")]))
    fill(store)
    if where == "in files":
        store._database.flush(True)
        assert store.size() > KEYS * VALUE
    if how == "keys":
        for start in range(0, KEYS, 1000):
            store.write(Batch((), [(key(number), None) for number in range(start, start + 1000)]))
        assert store.is_untidy
    else:
        store.write(Batch([(b"k", b"l")], ()))
    store.tidy()
    assert not store.is_untidy
    for _ in range(200):
        if settled(store):
            break
        pause()
    assert settled(store), f"{store.size()} bytes are left of {KEYS * VALUE}"
    assert store.first(b"b", b"\xff") == (b"z", b"1")
    assert store.last(b"", b"y") == (b"a", b"1")
    store.close()


def settled(store: Watched) -> bool:
    """Whether little is left, and no reader has to step over what was deleted."""
    store.is_hasty = True
    try:
        list(store.scan(b"b", b"\xff"))
    except Exception:
        return False
    finally:
        store.is_hasty = False
    return store.size() < KEYS * VALUE // 4


def pause() -> None:
    import time

    time.sleep(0.1)


def test_nothing_deleted_is_nothing_to_do(tmp_path: Path) -> None:
    store = RocksdbStore(tmp_path / "store")
    fill(store)
    files = {path.name for path in (tmp_path / "store").glob("*.sst")}
    store.tidy()
    assert {path.name for path in (tmp_path / "store").glob("*.sst")} == files
    store.close()
