"""Mailboxes: create, info, delete, ttl."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mq9_broker._generated.commands import MailboxCreate
from mq9_broker.engine import Engine, EngineLimits
from mq9_broker.engine.effects import Deliverable, MailboxGone
from mq9_broker.store import Batch, MemoryStore

from .support import BOX, START_MS, Bench, EngineError, contents


def test_create_answers_the_address_and_info_describes_it(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    command = MailboxCreate(b"a.b", ttl=60, desc="Ärger", max_deliveries=3, dead_letter=b"dead")
    assert bench.call(command) == {"error": "", "mail_address": "a.b"}
    assert bench.info("a.b") == {
        "mail_address": "a.b",
        "desc": "Ärger",
        "ttl": 60,
        "create_time": START_MS // 1000,
        "expires_at": START_MS // 1000 + 60,
        "max_deliveries": 3,
        "dead_letter": "dead",
        "messages": {"critical": 0, "urgent": 0, "normal": 0},
        "delayed": 0,
        "groups": [],
    }


def test_info_without_ttl_has_no_end(bench: Bench) -> None:
    info = bench.info()
    assert "expires_at" not in info
    assert (info["ttl"], info["desc"], info["dead_letter"], info["max_deliveries"]) == (0, "", "", 0)


def test_create_of_a_living_name_is_mailbox_exists(bench: Bench) -> None:
    with pytest.raises(EngineError) as caught:
        bench.create(BOX, ttl=9, desc="other")
    assert (caught.value.code, caught.value.text) == ("mailbox_exists", "mailbox box already exists")
    assert bench.info()["ttl"] == 0


def test_own_address_as_dead_letter_is_invalid(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    with pytest.raises(EngineError) as caught:
        bench.create("x", dead_letter="x")
    assert caught.value.code == "invalid_argument"
    assert caught.value.text.startswith("dead_letter: ")
    with pytest.raises(EngineError, match="mailbox_not_found"):
        bench.info("x")


def test_every_mailbox_operation_needs_the_mailbox(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    calls: list[Callable[[], object]] = [
        bench.info,
        bench.drop,
        lambda: bench.send("x"),
        lambda: bench.send("x", key="k"),
        bench.fetch,
        lambda: bench.fetch(""),
        bench.lease,
        lambda: bench.ack(0),
        lambda: bench.nack(0),
        lambda: bench.renew(0),
        bench.query,
        lambda: bench.delete(0),
    ]
    for call in calls:
        with pytest.raises(EngineError) as caught:
            call()
        assert (caught.value.code, caught.value.text) == ("mailbox_not_found", "mailbox box does not exist")


def test_a_deleted_mailbox_leaves_nothing_behind(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    bench.create("other")
    bench.send("stays", "other")
    bench.now += 1
    bench.apply()
    before = contents(bench.store)
    bench.create(ttl=1000)
    incarnation = None
    for priority in ("critical", "urgent", "normal"):
        bench.send("x", priority=priority, key=f"k-{priority}", ttl_s=100, tags=("t",), dedup_id=priority)
        bench.send("later", priority=priority, delay_s=50)
    assert bench.lease("g", num_msgs=2) == [0, 1]
    bench.nack(0)
    bench.nack(1, delay_ms=5000)
    bench.fetch("un-leased", deliver="earliest")
    bench.ack(2, group="un-leased")
    assert bench.drop() == {"error": "", "deleted": True}
    (gone,) = bench.effects
    assert isinstance(gone, MailboxGone)
    incarnation = gone.incarnation
    after = contents(bench.store)
    assert {k: v for k, v in after.items() if k != b"\x00incarnation"} == {
        k: v for k, v in before.items() if k != b"\x00incarnation"
    }
    bench.create()
    assert bench.lease("g") == []
    assert bench.query() == []
    assert bench.send("new", dedup_id="normal") == 0
    assert [e.incarnation for e in bench.effects if isinstance(e, Deliverable)] != [incarnation]


def test_ttl_ends_mailbox_messages_and_groups_together(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    bench.create(ttl=10)
    bench.send("x")
    assert bench.lease("g", lease_ms=60_000) == [0]
    bench.pass_ms(9_999)
    assert bench.effects == []
    assert bench.groups() == {"g": (0, 1)}
    bench.pass_ms(1)
    assert [type(e) for e in bench.effects] == [MailboxGone]
    with pytest.raises(EngineError, match="mailbox_not_found"):
        bench.send("y")
    bench.create(ttl=10)
    assert bench.query() == []
    assert bench.groups() == {}
    assert bench.send("first again") == 0


def test_nothing_renews_a_mailbox(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    bench.create(ttl=10)
    bench.now += 9_000
    bench.send("x")
    bench.lease("g")
    bench.now += 1_000
    with pytest.raises(EngineError, match="mailbox_not_found"):
        bench.send("late")


def test_the_end_of_a_mailbox_leaves_nothing_in_the_store(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    bench.apply()
    before = set(contents(bench.store))
    bench.create(ttl=1)
    bench.send("x", ttl_s=5000, dedup_id="d")
    bench.send("x", delay_s=5000)
    bench.lease("g", lease_ms=5_000_000)
    bench.pass_ms(1000)
    assert set(contents(bench.store)) == before | {b"\x00incarnation"}
    assert bench.engine.next_due() is None


def test_create_and_send_in_one_call(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench()
    plain = (b"n", 2, b"", b"x", None)
    replies = bench.apply(plain, MailboxCreate(b"n"), plain, plain)
    assert [b"mailbox_not_found" in reply for reply in replies] == [True, False, False, False]
    assert bench.query("n") == [0, 1]


def test_a_store_of_another_format_is_refused() -> None:
    store = MemoryStore()
    store.write(Batch((), ((b"\x00format", b"mq9 99"),)))
    with pytest.raises(ValueError, match="mq9 99"):
        Engine(store, EngineLimits())


def test_time_never_runs_backwards(bench: Bench) -> None:
    bench.now += 5_000
    bench.send("a")
    bench.now -= 4_000
    bench.send("b")
    reply = bench.fetch_reply("", deliver="earliest")
    assert [m["create_time_ms"] for m in reply["messages"]] == [START_MS + 5_000] * 2
    assert bench.engine.time_ms == START_MS + 5_000
