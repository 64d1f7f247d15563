"""SEND: ids, keys, delays, ttl, dedup-ids, limits."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from mq9_broker.engine import EngineLimits
from mq9_broker.engine.effects import Deliverable

from .support import BOX, START_MS, Bench, EngineError, contents, payloads

MAX_TTL = 4_294_967_295


def test_ids_count_from_zero_across_priorities(bench: Bench) -> None:
    assert [bench.send(priority=p) for p in ("normal", "critical", "urgent", "normal")] == [0, 1, 2, 3]
    bench.delete(3)
    assert bench.send() == 4


def test_ids_are_per_mailbox_and_never_reused(bench: Bench) -> None:
    bench.create("other")
    assert [bench.send(), bench.send(name="other"), bench.send()] == [0, 0, 1]


def test_send_wakes_all_waiters_of_the_mailbox(bench: Bench) -> None:
    bench.send()
    (effect,) = bench.effects
    assert isinstance(effect, Deliverable)
    assert (effect.address, effect.group) == (BOX.encode(), "")


def test_message_as_it_is_delivered(bench: Bench) -> None:
    raw = bytes(range(256))
    bench.now += 1_234
    bench.apply((BOX.encode(), 1, b"", raw, None))
    (message,) = bench.fetch_reply("", deliver="earliest")["messages"]
    assert base64.b64decode(message.pop("payload"), validate=True) == raw
    assert message == {
        "msg_id": 0,
        "encoding": "base64",
        "priority": "urgent",
        "create_time": (START_MS + 1_234) // 1000,
        "create_time_ms": START_MS + 1_234,
    }


def test_message_with_everything(bench: Bench) -> None:
    headers = {"X-Trace": ["one", "two"], "mq9-reply-to": ["a.b"], 'ä"\\': [""]}
    bench.send("", key='k"ö', tags=("b", "a"), ttl_s=7, headers=headers)
    (message,) = bench.fetch_reply("g", deliver="earliest", lease_ms=1)["messages"]
    assert message == {
        "msg_id": 0,
        "payload": "",
        "encoding": "base64",
        "priority": "normal",
        "create_time": START_MS // 1000,
        "create_time_ms": START_MS,
        "key": 'k"ö',
        "tags": ["b", "a"],
        "headers": headers,
        "delivery_count": 1,
        "expires_at": START_MS // 1000 + 7,
    }


# Key


def test_a_key_keeps_only_its_newest_message_across_priorities(bench: Bench) -> None:
    bench.send("1", key="k")
    bench.send("other", key="l")
    bench.send("no key")
    bench.send("2", key="k", priority="critical")
    assert payloads(bench.fetch_reply("", deliver="earliest")) == ["2", "other", "no key"]
    bench.send("3", key="k")
    assert payloads(bench.fetch_reply("", deliver="earliest")) == ["other", "no key", "3"]
    assert bench.query(key="k") == [4]
    assert bench.info()["messages"] == {"critical": 0, "urgent": 0, "normal": 3}


def test_keys_within_one_call(bench: Bench) -> None:
    from mq9_broker.engine.commands import SendOptions

    sends = [
        (BOX.encode(), n % 3, b"", str(n).encode(), SendOptions(key=f"k{n % 4}") if n % 5 else None)
        for n in range(50)
    ]
    bench.apply(*sends)
    last = {f"k{n % 4}": n for n in range(50) if n % 5}
    assert bench.query() == sorted([*range(0, 50, 5), *last.values()])
    assert sum(bench.info()["messages"].values()) == 14


def test_the_successor_of_a_leased_key_is_deliverable_at_once(bench: Bench) -> None:
    bench.send("old", key="k")
    assert bench.lease() == [0]
    bench.send("new", key="k")
    assert bench.groups() == {"g": (1, 0)}
    bench.ack(0)
    bench.nack(0)
    assert bench.renew(0) == []
    reply = bench.fetch_reply(lease_ms=1000)
    assert [(m["msg_id"], m["delivery_count"]) for m in reply["messages"]] == [(1, 1)]
    assert bench.pass_ms(10_000) == [Deliverable(BOX.encode(), 1, "g")]
    assert bench.lease() == [1]


def test_a_deleted_or_expired_message_frees_its_key(bench: Bench) -> None:
    bench.send("a", key="k")
    bench.delete(0)
    assert bench.query(key="k") == []
    bench.send("b", key="k", ttl_s=1)
    assert bench.query(key="k") == [1]
    bench.now += 1000
    assert bench.query(key="k") == []
    bench.now += 1000
    bench.settle()
    assert not any(key[9:10] == b"k" for key in contents(bench.store) if key.startswith(b"M"))


# Delay


def test_a_delayed_message_appears_when_due(bench: Bench) -> None:
    assert bench.send("late", delay_s=2) == -1
    assert bench.effects == []
    assert bench.send("now") == 0
    assert bench.info()["delayed"] == 1
    assert bench.query() == [0]
    assert bench.engine.next_due() == START_MS + 2_000
    bench.pass_ms(1_999)
    assert (bench.effects, bench.query()) == ([], [0])
    bench.now += 5_000
    assert bench.send("after") == 2
    reply = bench.fetch_reply("", deliver="earliest")
    assert payloads(reply) == ["now", "late", "after"]
    assert [m["create_time_ms"] for m in reply["messages"]] == [
        START_MS,
        START_MS + 2_000,
        START_MS + 6_999,
    ]
    assert bench.info()["delayed"] == 0


def test_a_due_delay_wakes(bench: Bench) -> None:
    bench.send(delay_s=1)
    assert bench.pass_ms(1000) == [Deliverable(BOX.encode(), 1)]


def test_equal_due_times_come_in_send_order(bench: Bench) -> None:
    bench.send("a", delay_s=3)
    bench.now += 1000
    bench.send("b", delay_s=2)
    bench.send("c", delay_s=2, priority="critical")
    bench.send("sooner", delay_s=1)
    bench.pass_ms(10_000)
    reply = bench.read_all()
    assert dict(zip(*reply, strict=True)) == {0: "sooner", 1: "a", 2: "b", 3: "c"}


def test_a_delayed_key_replaces_when_due(bench: Bench) -> None:
    bench.send("delayed", key="k", delay_s=1)
    bench.send("now", key="k")
    assert payloads(bench.fetch_reply("", deliver="earliest")) == ["now"]
    bench.pass_ms(1000)
    assert payloads(bench.fetch_reply("", deliver="earliest")) == ["delayed"]
    assert bench.query(key="k") == [1]


def test_ttl_counts_from_send(bench: Bench) -> None:
    bench.send("short", delay_s=2, ttl_s=3)
    bench.pass_ms(2_000)
    assert bench.fetch_reply("", deliver="earliest")["messages"][0]["expires_at"] == START_MS // 1000 + 3
    bench.now += 1_000
    assert bench.query() == []


@pytest.mark.parametrize("ttl", [1, 2])
def test_ttl_not_beyond_the_delay_never_appears(bench: Bench, ttl: int) -> None:
    assert bench.send(delay_s=2, ttl_s=ttl, key="k", dedup_id="d") == -1
    assert bench.info()["delayed"] == 0
    assert bench.send(dedup_id="d") == -1
    bench.pass_ms(5_000)
    assert bench.query() == []
    assert bench.send() == 0


def test_the_longest_delay_and_ttl(bench: Bench) -> None:
    assert bench.send(delay_s=MAX_TTL) == -1
    assert bench.send(ttl_s=MAX_TTL) == 0
    bench.pass_ms(1000 * MAX_TTL - 1)
    assert bench.query() == [0]
    bench.pass_ms(1)
    assert bench.query() == [1]


def test_deliver_latest_gets_what_was_sent_with_delay_before(bench: Bench) -> None:
    bench.send("x", delay_s=1)
    assert bench.fetch("g") == []
    bench.pass_ms(1000)
    assert bench.fetch("g") == [0]


# Ttl


def test_an_expired_message_is_gone_at_its_deadline(bench: Bench) -> None:
    bench.send("x", ttl_s=1)
    bench.send("y")
    assert bench.fetch("g", deliver="earliest") == [0, 1]
    bench.now += 999
    assert bench.query() == [0, 1]
    bench.now += 1
    assert bench.query() == [1]
    assert bench.fetch("g") == [1]
    assert bench.fetch("h", deliver="earliest") == [1]
    assert bench.info()["messages"]["normal"] == 1
    assert bench.groups() == {"g": (1, 0), "h": (1, 0)}
    with pytest.raises(EngineError, match="message_not_found"):
        bench.delete(0)


def test_cleaning_takes_the_expired_out_of_the_store(bench: Bench) -> None:
    before = set(contents(bench.store)) | {b"\x00time"}
    bench.send("x", ttl_s=1, key="k", tags=("t",))
    bench.send("y", ttl_s=2, priority="urgent")
    bench.now += 5_000
    bench.settle()
    assert set(contents(bench.store)) == before
    assert bench.engine.next_due() is None


# Dedup


def test_a_repeat_gets_the_first_reply(bench: Bench) -> None:
    assert bench.send("1", dedup_id="d") == 0
    bench.now += 119_999
    assert bench.send("2", dedup_id="d") == 0
    assert bench.effects == []
    assert bench.query() == [0]
    bench.now += 1
    assert bench.send("3", dedup_id="d") == 1
    bench.now += 119_999
    assert bench.send("4", dedup_id="d") == 1


def test_the_window_is_not_extended_and_outlives_the_message(bench: Bench) -> None:
    bench.send("1", dedup_id="deleted")
    bench.delete(0)
    bench.send("2", dedup_id="expired", ttl_s=1)
    bench.send("3", dedup_id="replaced", key="k")
    bench.send("4", key="k")
    bench.send("5", dedup_id="delayed", delay_s=1)
    bench.now += 60_000
    for dedup_id, first in (("deleted", 0), ("expired", 1), ("replaced", 2), ("delayed", -1)):
        assert bench.send("again", dedup_id=dedup_id) == first
    bench.now += 60_000
    assert bench.send("new", dedup_id="deleted") == 5


def test_dedup_ids_are_per_mailbox(bench: Bench) -> None:
    bench.create("other")
    bench.send("filler")
    assert (bench.send(dedup_id="d"), bench.send(name="other", dedup_id="d")) == (1, 0)


def test_a_failed_send_is_not_remembered(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=1))
    bench.create()
    bench.send("x")
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send("y", dedup_id="d")
    bench.delete(0)
    assert bench.send("y", dedup_id="d") == 1


def test_dedup_ids_are_forgotten(bench: Bench) -> None:
    before = set(contents(bench.store)) | {b"\x00time"}
    for number in range(10):
        bench.send(dedup_id=f"d{number}")
        bench.now += 60_000
    bench.now += 120_000
    bench.settle()
    for msg_id in range(10):
        bench.delete(msg_id)
    assert set(contents(bench.store)) == before


# Limits


def test_a_message_that_cannot_fit_drives_nothing_out(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_bytes=100))
    bench.create()
    bench.fetch(deliver="earliest")
    bench.send("a" * 50)
    bench.ack(0)
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send("b" * 101)
    assert bench.query() == [0]
    assert bench.send("b" * 100) == 1
    assert bench.query() == [1]


def test_a_full_mailbox_refuses(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=3))
    bench.create()
    for _ in range(3):
        bench.send()
    for options in ({}, {"key": "k"}, {"delay_s": 1}):
        with pytest.raises(EngineError) as caught:
            bench.send(**options)
        assert caught.value.code == "mailbox_full"
        assert caught.value.text.startswith("mailbox box is full: ")
    bench.delete(1)
    assert bench.send() == 3


def test_delayed_messages_count(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=2))
    bench.create()
    bench.send(delay_s=5)
    bench.send()
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()
    bench.pass_ms(5_000)
    assert bench.query() == [0, 1]


def test_what_every_group_has_acknowledged_goes_first(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=4))
    bench.create()
    for priority in ("normal", "critical", "normal", "normal"):
        bench.send(priority=priority)
    bench.fetch("g", deliver="earliest")
    bench.fetch("h", deliver="earliest")
    bench.ack(0, 1, 2, group="g")
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()
    bench.ack(2, 1, group="h")
    assert bench.send() == 4
    assert bench.query() == [0, 2, 3, 4]
    assert bench.send() == 5
    assert bench.query() == [0, 3, 4, 5]
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()


def test_without_groups_nothing_goes(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=1))
    bench.create()
    bench.send()
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()


def test_a_new_or_reset_group_has_acknowledged_nothing(new_bench: Callable[..., Bench]) -> None:
    for reset in (False, True):
        bench = new_bench(EngineLimits(max_messages=2))
        bench.create()
        bench.send()
        bench.send()
        bench.fetch("g", deliver="earliest")
        bench.ack(0, 1)
        bench.fetch("g" if reset else "h", force_deliver=reset)
        with pytest.raises(EngineError, match="mailbox_full"):
            bench.send()
        bench.ack(1, group="g" if reset else "h")
        assert bench.send() == 2
        assert bench.query() == [0, 2]


def test_leased_acknowledgements_make_room_too(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=2))
    bench.create(max_deliveries=1)
    bench.send()
    bench.send()
    assert bench.lease() == [0, 1]
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()
    bench.ack(1)
    assert bench.send() == 2
    assert bench.query() == [0, 2]
    bench.nack(0)
    assert bench.send() == 3
    assert bench.query() == [2, 3]


def test_expired_messages_make_room_at_once(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=2))
    bench.create()
    bench.now += 100
    bench.send(ttl_s=1)
    bench.send()
    bench.now += 1_000
    assert bench.send() == 2
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()


def test_bytes_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_bytes=100))
    bench.create()
    bench.send("x" * 60)
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send("x" * 41)
    bench.send("x" * 40)
    bench.fetch("g", deliver="earliest")
    bench.ack(0, 1)
    bench.send("x" * 30)
    assert bench.query() == [1, 2]
    bench.send("x" * 70)
    assert bench.query() == [2, 3]


def test_a_successor_takes_the_place_of_its_keys_older_message(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_messages=2, max_bytes=100))
    bench.create()
    bench.send("x" * 50)
    bench.send("y" * 50, key="k")
    assert bench.send("z" * 50, key="k") == 2
    assert bench.query() == [0, 2]
    assert bench.send("z" * 40, key="k", priority="critical") == 3
    for options in ({"key": "other"}, {"key": "k", "delay_s": 1}, {}):
        with pytest.raises(EngineError, match="mailbox_full"):
            bench.send("z", **options)
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send("z" * 51, key="k")
    assert bench.query() == [0, 3]


def test_delayed_messages_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_delayed=1))
    bench.create()
    bench.send(delay_s=1)
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send(delay_s=1)
    bench.send()
    bench.pass_ms(1000)
    bench.send(delay_s=1)


def test_dedup_ids_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_dedup_ids=2))
    bench.create()
    bench.send(dedup_id="a")
    bench.send(dedup_id="b")
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send(dedup_id="c")
    assert bench.send(dedup_id="b") == 1
    bench.now += 120_000
    assert bench.send(dedup_id="c") == 2


def test_limits_that_come_later_find_what_was_acknowledged(new_bench: Callable[..., Bench]) -> None:
    before = new_bench()
    before.create()
    for _ in range(3):
        before.send()
    before.fetch("g", deliver="earliest")
    before.ack(1)
    bench = Bench(before.store, EngineLimits(max_messages=3), cold=before.cold)
    assert bench.send() == 3
    assert bench.query() == [0, 2, 3]
    with pytest.raises(EngineError, match="mailbox_full"):
        bench.send()
