"""QUERY, DELETE of messages, INFO's counts."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mq9_broker._generated.commands import MsgQuery
from mq9_broker.engine import EngineLimits
from mq9_broker.engine.keys import SEGMENT

from .support import BOX, START_MS, Bench, EngineError, contents, ids, opened

SECOND = START_MS // 1000


def test_query_ascends_over_all_priorities(bench: Bench) -> None:
    for number in range(12):
        bench.send(priority=("normal", "critical", "urgent")[number % 3])
    assert bench.query() == list(range(12))
    assert bench.query(from_id=0) == list(range(12))


def test_limit_takes_the_newest_or_the_first_from_an_id(bench: Bench) -> None:
    for number in range(300):
        bench.send(priority=("normal", "critical")[number % 2])
    assert bench.query() == list(range(200, 300))
    assert bench.query(limit=3) == [297, 298, 299]
    assert bench.query(limit=3, from_id=5) == [5, 6, 7]
    assert bench.query(limit=3, from_id=299) == [299]
    assert bench.query(from_id=300) == []
    assert bench.query(from_id=2**63 - 1) == []


def test_paging_reads_a_whole_mailbox(bench: Bench) -> None:
    bench.send_all(250)
    seen: list[int] = []
    while page := bench.query(from_id=seen[-1] + 1 if seen else 0):
        seen += page
    assert seen == list(range(250))


def test_tags_key_since_and_from_id_combine(bench: Bench) -> None:
    bench.send(tags=("a", "b"))
    bench.send(tags=("b",), key="k")
    bench.now += 2000
    bench.send(tags=("b", "c", "a"), key="l")
    bench.send()
    assert bench.query(tags=("b",)) == [0, 1, 2]
    assert bench.query(tags=("a", "b")) == [0, 2]
    assert bench.query(tags=("a", "d")) == []
    assert bench.query(key="k") == [1]
    assert bench.query(key="k", tags=("a",)) == []
    assert bench.query(since=SECOND + 1) == [2, 3]
    assert bench.query(since=SECOND + 3) == []
    assert bench.query(tags=("b",), from_id=1) == [1, 2]
    assert bench.query(tags=("b",), limit=1) == [2]
    assert bench.query(tags=("b",), limit=1, from_id=0) == [0]
    assert bench.query(key="l", since=SECOND + 1, from_id=2, tags=("c",)) == [2]
    assert bench.query(key="l", from_id=3) == []
    assert bench.query(key="nobody's") == []


def test_query_sees_confirmed_and_leased_but_not_delayed(bench: Bench) -> None:
    bench.send_all(3)
    bench.send(delay_s=5)
    bench.lease()
    bench.ack(0)
    before = contents(bench.store)
    reply = bench.read(MsgQuery(BOX.encode()))
    assert ids(reply) == [0, 1, 2]
    assert all("delivery_count" not in message for message in reply["messages"])
    assert contents(bench.store) == before


def test_query_of_another_mailbox_sees_nothing_of_this_one(bench: Bench) -> None:
    bench.create("box.b")
    bench.send(key="k", tags=("t",))
    assert bench.query("box.b") == []
    assert bench.query("box.b", key="k") == []


@pytest.mark.parametrize("count", [0, 1, 7, 40])
def test_a_large_reply_is_cut(new_bench: Callable[..., Bench], count: int) -> None:
    limit = 2_000
    bench = new_bench(EngineLimits(max_reply=limit))
    bench.create()
    for number in range(count):
        bench.send("x" * (number % 5))
    for from_id in (None, 0):
        reply = bench.engine.read(bench.now, MsgQuery(BOX.encode(), from_id=from_id))
        found = ids(opened(reply))
        assert len(reply) <= limit
        if count < 10:
            assert found == list(range(count))
        else:
            assert 5 < len(found) < 30
            assert len(reply) > limit - 200
            assert found == list(range(len(found)) if from_id == 0 else range(count - len(found), count))


def test_a_cut_reply_has_one_message_at_least(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_reply=500))
    bench.create()
    for _ in range(3):
        bench.send("x" * 1000)
    assert bench.query() == [2]
    assert bench.query(from_id=0) == [0]


def test_delete_removes_for_everybody(bench: Bench) -> None:
    bench.send_all(3)
    bench.lease(num_msgs=1)
    bench.fetch("h", deliver="earliest")
    assert bench.delete(0) == {"error": "", "deleted": True}
    bench.delete(1)
    assert bench.query() == [2]
    assert bench.fetch("h") == [2]
    assert bench.groups() == {"g": (1, 0), "h": (1, 0)}
    assert bench.info()["messages"]["normal"] == 1


def test_delete_of_what_is_not_there(bench: Bench) -> None:
    bench.send()
    bench.send(delay_s=1)
    bench.delete(0)
    for msg_id in (0, 1, 2**63 - 1):
        with pytest.raises(EngineError) as caught:
            bench.delete(msg_id)
        assert (caught.value.code, caught.value.text) == ("message_not_found", "message not found")


def test_deleting_much_frees_the_store(bench: Bench) -> None:
    bench.apply()
    empty = set(contents(bench.store))
    bench.send_all(300, batch=100)
    for msg_id in [*range(0, 300, 3), *range(1, 300, 3), *range(2, 300, 3)]:
        bench.delete(msg_id)
        if msg_id == 298:
            assert bench.query(from_id=0, limit=1000) == list(range(2, 300, 3))
            assert bench.fetch("", deliver="from_id", from_id=250) == list(range(251, 300, 3))
    assert set(contents(bench.store)) == empty
    assert bench.send() == 300


def test_payloads_of_deleted_messages_do_not_stay(bench: Bench) -> None:
    bench.apply(*[(BOX.encode(), 2, b"", b"secret %d" % n, None) for n in range(100)])
    for msg_id in range(60):
        bench.delete(msg_id)
    assert b"secret 99" in b"".join(contents(bench.store).values())
    assert b"secret 10" not in b"".join(contents(bench.store).values())


def test_large_messages_are_kept_apart(bench: Bench) -> None:
    bench.apply(*[(BOX.encode(), 2, b"", b"x" * 50_000, None)] * 10)
    values = [value for key, value in contents(bench.store).items() if key[9:10] == SEGMENT]
    assert len(values) >= 5
    assert bench.query() == list(range(10))


def test_pending_is_counted_over_many_segments(bench: Bench) -> None:
    for number in range(40):
        bench.send_all(1 + number % 7)
        bench.send("expires", ttl_s=1, priority=("normal", "urgent")[number % 2])
    total = sum(bench.info()["messages"].values())
    bench.fetch("g", deliver="earliest")
    bench.fetch("h", deliver="from_id", from_id=33)
    assert bench.groups() == {"g": (total, 0), "h": (total - 33, 0)}
    acknowledged = [*range(10, 30), *range(50, 90, 3), total - 1]
    bench.ack(*acknowledged)
    for msg_id in (12, 40, 41, 42, 43, 44, 45, 60):
        bench.delete(msg_id)
    left = set(bench.query(limit=1000)) - set(acknowledged)
    assert bench.groups()["g"] == (len(left), 0)
    bench.now += 1000
    left = set(bench.query(limit=1000)) - set(acknowledged)
    assert bench.groups()["g"] == (len(left), 0)
    bench.settle()
    assert bench.groups()["g"] == (len(left), 0)
    assert bench.groups()["h"] == (len([i for i in bench.query(limit=1000) if i >= 33]), 0)
