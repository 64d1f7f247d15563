"""Every store is an ordered map with atomic batches, checked against a plain dict."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rocksdict import ReadOptions

from mq9_broker import native
from mq9_broker.store import Batch, MemoryStore, RocksdbStore, Store
from mq9_broker.store.sorted_map import SortedMap, end_of_prefix

keys = st.binary(max_size=3)
batches = st.lists(
    st.tuples(
        st.lists(st.tuples(keys, keys).map(sorted).map(tuple), max_size=2),
        st.dictionaries(keys, st.none() | st.binary(max_size=4), max_size=6),
    ),
    max_size=8,
)


@pytest.fixture(params=["memory", "memory, in Python", "rocksdb"])
def new_store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], Store]]:
    opened: list[Store] = []
    numbers = count()
    if "in Python" in request.param:
        monkeypatch.setattr(native, "new_map", SortedMap)

    def make() -> Store:
        store: Store = (
            RocksdbStore(tmp_path / str(next(numbers))) if request.param == "rocksdb" else MemoryStore()
        )
        opened.append(store)
        return store

    yield make
    for store in opened:
        store.close()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=batches, start=keys, end=keys)
def test_store_is_an_ordered_map(
    new_store: Callable[[], Store],
    batches: list[tuple[list[tuple[bytes, bytes]], dict[bytes, bytes | None]]],
    start: bytes,
    end: bytes,
) -> None:
    store = new_store()
    expected: dict[bytes, bytes] = {}
    for ranges, writes in batches:
        store.write(Batch(ranges, list(writes.items())))
        for low, high in ranges:
            expected = {key: value for key, value in expected.items() if not low <= key < high}
        expected.update({key: value for key, value in writes.items() if value is not None})
        for key, value in writes.items():
            if value is None:
                expected.pop(key, None)
    inside = sorted((key, value) for key, value in expected.items() if start <= key < end)
    assert list(store.scan(start, end)) == inside
    assert store.first(start, end) == (inside[0] if inside else None)
    assert store.last(start, end) == (inside[-1] if inside else None)
    assert list(store.scan(b"", b"\xff" * 4)) == sorted(expected.items())
    for key in (start, end, *expected):
        assert store.get(key) == expected.get(key)


def test_rocksdb_store_keeps_what_was_written(tmp_path: Path) -> None:
    store = RocksdbStore(tmp_path / "data")
    store.write(Batch([], [(b"a", b"1"), (b"b", b""), (b"c", b"3")]))
    store.close()
    again = RocksdbStore(tmp_path / "data")
    assert list(again.scan(b"", b"z")) == [(b"a", b"1"), (b"b", b""), (b"c", b"3")]
    again.close()


def test_rocksdb_store_does_not_step_over_what_was_deleted_behind_the_end(tmp_path: Path) -> None:
    class Hasty(RocksdbStore):
        @staticmethod
        def _until(end: bytes) -> ReadOptions:
            options = RocksdbStore._until(end)
            options.set_max_skippable_internal_keys(10)
            return options

    store = Hasty(tmp_path / "data")
    deleted = [b"b%03d" % number for number in range(100)]
    store.write(Batch([], [(b"a", b"1"), (b"c", b"1"), *((key, b"1") for key in deleted)]))
    store.write(Batch([], [(key, None) for key in deleted]))
    assert list(store.scan(b"a", b"b")) == [(b"a", b"1")]
    assert store.first(b"aa", b"b") is None
    with pytest.raises(Exception, match="keys skipped"):
        store.first(b"b", b"d")
    store.close()


def test_sorted_map_with_many_chunks() -> None:
    numbers = [(n * 7919) % 20_011 for n in range(20_011)]
    stored: SortedMap[int] = SortedMap()
    for number in numbers:
        stored.set(number.to_bytes(4, "big"), number)
    assert [value for _, value in stored.scan(b"", b"\xff" * 5)] == list(range(20_011))
    stored.discard_range((100).to_bytes(4, "big"), (19_000).to_bytes(4, "big"))
    for number in range(19_000, 19_500):
        stored.discard(number.to_bytes(4, "big"))
    left = [*range(100), *range(19_500, 20_011)]
    assert [value for _, value in stored.scan(b"", b"\xff" * 5)] == left
    assert len(stored) == len(left)
    assert stored.last(b"", (19_400).to_bytes(4, "big")) == ((99).to_bytes(4, "big"), 99)
    assert stored.first((100).to_bytes(4, "big"), b"\xff") == ((19_500).to_bytes(4, "big"), 19_500)


def test_end_of_prefix() -> None:
    assert end_of_prefix(b"ab") == b"ac"
    assert end_of_prefix(b"a\xff\xff") == b"b"
