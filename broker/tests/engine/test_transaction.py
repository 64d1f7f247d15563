"""The overlay over a store reads as if it were written, and nothing is written unless all is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mq9_broker._generated.commands import MailboxInfo, MsgFetch, MsgQuery
from mq9_broker.engine.transaction import Transaction
from mq9_broker.store import Batch, MemoryStore

from .support import BOX, Bench, contents

keys = st.binary(min_size=1, max_size=2)
changes = st.lists(
    st.tuples(st.just("put"), keys, st.binary(max_size=2))
    | st.tuples(st.just("delete"), keys, st.none())
    | st.tuples(st.just("range"), keys, keys)
    | st.tuples(st.just("commit"), st.none(), st.none()),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(changes=changes, start=keys, end=keys)
def test_reads_see_what_was_changed(changes: list[tuple[str, Any, Any]], start: bytes, end: bytes) -> None:
    store = MemoryStore()
    transaction = Transaction(store)
    expected: dict[bytes, bytes] = {}
    written: dict[bytes, bytes] = {}
    for kind, key, value in changes:
        if kind == "put":
            transaction.put(key, value)
            expected[key] = value
        elif kind == "delete":
            transaction.delete(key)
            expected.pop(key, None)
        elif kind == "range":
            low, high = sorted((key, value))
            transaction.delete_range(low, high)
            expected = {k: v for k, v in expected.items() if not low <= k < high}
        else:
            transaction.commit()
            written = dict(expected)
        inside = sorted((k, v) for k, v in expected.items() if start <= k < end)
        assert list(transaction.scan(start, end)) == inside
        assert transaction.first(start, end) == (inside[0] if inside else None)
        assert transaction.last(start, end) == (inside[-1] if inside else None)
        assert transaction.get(start) == expected.get(start)
        assert contents(store) == written
    transaction.discard()
    assert list(transaction.scan(b"", b"\xff\xff\xff")) == sorted(written.items())


class FailingStore(MemoryStore):
    """Refuses to write while told so."""

    fails = False

    def write(self, batch: Batch) -> None:
        if self.fails:
            raise OSError("disk full")
        super().write(batch)


def test_a_call_that_fails_changes_nothing() -> None:
    store = FailingStore()
    bench = Bench(store)
    bench.create(ttl=100)
    bench.send_all(10)
    lease_id = bench.fetch_reply("g", deliver="earliest", num_msgs=5, lease_ms=1000)["lease_id"]
    before = contents(store)
    views = [
        bench.engine.read(bench.now, command)
        for command in (MailboxInfo(BOX.encode()), MsgQuery(BOX.encode()), MsgFetch(BOX.encode(), "g"))
    ]
    due, time = bench.engine.next_due(), bench.engine.time_ms

    store.fails = True
    calls: list[Callable[[], object]] = [
        lambda: bench.send("x", key="k"),
        bench.lease,
        lambda: bench.ack(0, 1, 7),
        lambda: bench.nack(2),
        lambda: bench.fetch("new"),
        lambda: bench.delete(3),
        lambda: bench.create("other"),
        bench.drop,
        lambda: bench.pass_ms(200_000),
    ]
    for call in calls:
        with pytest.raises(OSError, match="disk full"):
            call()
    store.fails = False

    bench.now -= 200_000
    assert contents(store) == before
    assert bench.engine.time_ms == time
    assert views == [
        bench.engine.read(bench.now, command)
        for command in (MailboxInfo(BOX.encode()), MsgQuery(BOX.encode()), MsgFetch(BOX.encode(), "g"))
    ]
    assert bench.renew(0, lease_id=lease_id, lease_ms=1000) == [0]
    bench.apply()
    assert bench.engine.next_due() == due
    assert bench.send("y") == 10


@pytest.mark.interpreted
def test_a_mailbox_in_no_cache_is_as_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mq9_broker.engine.state._CACHED_MAILBOXES", 8)
    bench = Bench(MemoryStore())
    names = [f"m{number}" for number in range(30)]
    for turn in range(3):
        for name in names:
            if not turn:
                bench.create(name)
            assert bench.send("x", name) == turn
            assert bench.lease("g", name) == [turn]
    assert len(bench.engine._state.mailboxes) <= 8
