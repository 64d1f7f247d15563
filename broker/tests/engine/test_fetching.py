"""FETCH: order, starts, groups, batches."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mq9_broker._generated.commands import MsgFetch
from mq9_broker.engine import EngineLimits
from mq9_broker.engine.commands import repeat_of
from mq9_broker.engine.effects import Deliverable, Fetched, GroupReset

from .support import BOX, START_MS, Bench, EngineError, contents, counts

SECOND = START_MS // 1000


def test_critical_then_urgent_then_normal(bench: Bench) -> None:
    for priority in ("normal", "urgent", "normal", "critical", "urgent", "critical"):
        bench.send(priority=priority)
    assert bench.fetch("", deliver="earliest") == [3, 5, 1, 4, 0, 2]
    assert bench.fetch("g", deliver="earliest", num_msgs=3) == [3, 5, 1]
    assert bench.lease("h", num_msgs=5) == [3, 5, 1, 4, 0]


def test_num_msgs_bounds_the_whole_batch(bench: Bench) -> None:
    bench.send_all(10)
    bench.send(priority="critical")
    assert bench.fetch("g", deliver="earliest", num_msgs=5) == [10, 0, 1, 2, 3]
    bench.ack(3)
    assert bench.fetch("g", num_msgs=5) == [10, 0, 1, 2, 4]
    bench.ack(10)
    assert bench.fetch("g", num_msgs=3) == [0, 1, 2]


def test_batches_over_many_segments(bench: Bench) -> None:
    for batch in (1, 200, 3, 64, 300):
        bench.send_all(batch)
    taken: list[int] = []
    while batch_ids := bench.lease(num_msgs=90):
        taken += batch_ids
    assert taken == list(range(568))


# Stateless


def test_stateless_records_nothing(bench: Bench) -> None:
    bench.send_all(3)
    before = contents(bench.store)
    assert bench.fetch("", deliver="earliest", num_msgs=2) == [0, 1]
    assert bench.fetch("", deliver="earliest", num_msgs=2) == [0, 1]
    assert bench.fetch("", deliver="from_id", from_id=2) == [2]
    assert bench.fetch("") == []
    assert bench.fetch("", deliver="earliest", force_deliver=True) == [0, 1, 2]
    assert contents(bench.store) == before


def test_a_waiting_stateless_latest_means_from_when_it_was_accepted(bench: Bench) -> None:
    bench.send()
    command = MsgFetch(BOX.encode())
    first = bench.engine.read_fetch(bench.now, command)
    assert (tuple(first.msg_ids), first.next_msg_id) == ((), 1)
    again = repeat_of(command, first.next_msg_id)
    bench.send()
    assert tuple(bench.engine.read_fetch(bench.now, again).msg_ids) == (1,)


def test_a_waiting_group_does_not_reset_again(bench: Bench) -> None:
    command = MsgFetch(BOX.encode(), "g", deliver="earliest", force_deliver=True, lease_ms=5)
    assert not repeat_of(command, 0).force_deliver
    assert repeat_of(command, 0).lease_ms == 5
    plain = MsgFetch(BOX.encode(), "g")
    assert repeat_of(plain, 3) == plain


# Creation and starts


def test_the_first_fetch_creates_the_group_even_if_it_ends_empty(bench: Bench) -> None:
    assert bench.fetch("g") == []
    bench.send_all(150)
    assert bench.fetch("g", num_msgs=1000) == list(range(150))
    assert bench.fetch("g", deliver="from_id", from_id=149, num_msgs=1) == [0]


def test_latest_is_from_now_on(bench: Bench) -> None:
    bench.send()
    assert bench.fetch("g", deliver="latest") == []
    assert bench.lease("h", deliver="latest") == []
    bench.send()
    assert bench.fetch("g") == [1]
    assert bench.lease("h") == [1]


def test_from_id_is_inclusive_and_starts_at_the_next_in_a_gap(bench: Bench) -> None:
    bench.send_all(6)
    bench.delete(3)
    assert bench.fetch("g", deliver="from_id", from_id=3) == [4, 5]
    assert bench.fetch("", deliver="from_id", from_id=5) == [5]
    assert bench.lease("h", deliver="from_id", from_id=0) == [0, 1, 2, 4, 5]


def test_from_id_is_a_lasting_condition(bench: Bench) -> None:
    bench.send()
    assert bench.fetch("g", deliver="from_id", from_id=3) == []
    assert bench.lease("h", deliver="from_id", from_id=3) == []
    bench.send_all(3)
    assert bench.fetch("g") == [3]
    assert bench.lease("h") == [3]
    assert bench.groups() == {"g": (1, 0), "h": (0, 1)}


def test_the_largest_from_id(bench: Bench) -> None:
    bench.send()
    assert bench.fetch("g", deliver="from_id", from_id=2**63 - 1) == []
    assert bench.lease("h", deliver="from_id", from_id=2**63 - 1) == []
    bench.send()
    assert bench.fetch("g") == []
    assert bench.lease("h") == []
    assert bench.fetch("", deliver="from_id", from_id=2**63 - 1) == []
    assert bench.groups() == {"g": (0, 0), "h": (0, 0)}


def test_from_time_takes_whole_seconds(bench: Bench) -> None:
    bench.now += 900  # ids 0 and 1 lie in one second
    bench.send()
    bench.now += 50
    bench.send(priority="urgent")
    bench.now += 100
    bench.send()
    assert bench.fetch("", deliver="from_time", from_time=SECOND) == [1, 0, 2]
    assert bench.fetch("g", deliver="from_time", from_time=SECOND + 1) == [2]
    assert bench.lease("h", deliver="from_time", from_time=SECOND + 1) == [2]
    assert bench.fetch("i", deliver="from_time", from_time=0) == [1, 0, 2]
    assert bench.fetch("", deliver="from_time", from_time=2**63 - 1) == []


@pytest.mark.parametrize("leased", [False, True])
def test_from_time_in_the_future_is_a_lasting_condition(bench: Bench, leased: bool) -> None:
    lease_ms = 60_000 if leased else 0
    bench.send()
    assert bench.fetch("g", deliver="from_time", from_time=SECOND + 5, lease_ms=lease_ms) == []
    bench.now += 4_999
    bench.send()
    bench.send(priority="critical")
    assert bench.fetch("g", lease_ms=lease_ms) == []
    assert bench.groups() == {"g": (0, 0)}
    bench.now += 1
    assert bench.fetch("g", lease_ms=lease_ms) == []
    bench.send()
    assert bench.groups() == {"g": (1, 0)}
    assert bench.fetch("g", lease_ms=lease_ms) == [3]
    bench.ack(3)
    assert bench.fetch("g", lease_ms=lease_ms) == []


def test_acknowledged_across_a_future_from_time(bench: Bench) -> None:
    bench.fetch("g", deliver="from_time", from_time=SECOND + 5)
    bench.send_all(3)
    bench.now += 5_000
    bench.send_all(3)
    bench.ack(2, 3)
    bench.ack(5)
    assert bench.fetch("g") == [4]
    bench.send()
    bench.ack(4)
    assert bench.fetch("g") == [6]


def test_acknowledged_before_a_future_from_time_was_reached(bench: Bench) -> None:
    bench.fetch("g", deliver="from_time", from_time=SECOND + 5)
    bench.send_all(3)
    bench.ack(1, 2)
    bench.now += 5_000
    bench.send_all(4)
    bench.ack(4, 3)
    assert bench.fetch("g") == [5, 6]
    bench.ack(0, 6)
    assert bench.fetch("g") == [5]


def test_force_deliver_makes_the_group_new(bench: Bench) -> None:
    bench.send_all(4)
    assert bench.lease("g", num_msgs=3) == [0, 1, 2]
    bench.ack(0)
    bench.nack(1, delay_ms=60_000)
    reply = bench.fetch_reply("g", deliver="earliest", force_deliver=True, lease_ms=1000)
    assert counts(reply) == {0: 1, 1: 1, 2: 1, 3: 1}
    assert [type(effect) for effect in bench.effects] == [GroupReset, Fetched, Deliverable]
    assert bench.groups() == {"g": (0, 4)}
    bench.pass_ms(1000)
    assert counts(bench.fetch_reply("g", lease_ms=1000)) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_force_deliver_defaults_to_latest(bench: Bench) -> None:
    bench.send()
    assert bench.fetch("g", deliver="earliest") == [0]
    assert bench.fetch("g", force_deliver=True) == []
    bench.send()
    assert bench.fetch("g") == [1]


def test_what_a_reset_group_held_leaves_nothing_behind(bench: Bench) -> None:
    bench.send_all(6)
    bench.fetch("g")
    kept = {key for key in contents(bench.store) if key[9:10] != b"t"}
    bench.fetch("g", deliver="earliest", force_deliver=True)
    bench.lease("g", num_msgs=4, lease_ms=40_000_000)
    bench.nack(0)
    bench.nack(1, delay_ms=80_000_000)
    bench.ack(5)
    bench.fetch("g", force_deliver=True)
    after = {key for key in contents(bench.store) if key[:1] not in {b"T", b"\x00"}}
    assert after == {key for key in kept if key[:1] not in {b"T", b"\x00"}}


def test_an_old_lease_of_a_reset_group_has_no_effect(bench: Bench) -> None:
    bench.send_all(2)
    old = bench.fetch_reply("g", deliver="earliest", lease_ms=5_000)["lease_id"]
    bench.fetch("g", deliver="earliest", force_deliver=True)
    assert bench.lease("g", lease_ms=60_000, num_msgs=1) == [0]
    bench.nack(0, lease_id=old)
    assert bench.renew(0, lease_id=old) == []
    assert bench.pass_ms(5_000) == []
    assert bench.lease("g") == [1]


# Groups


def test_groups_know_nothing_of_each_other(bench: Bench) -> None:
    bench.create("other")
    bench.send_all(2)
    bench.send_all(1, "other")
    assert bench.lease("g") == [0, 1]
    bench.ack(0)
    assert bench.lease("h") == [0, 1]
    assert bench.lease("g", "other") == [0]
    assert bench.groups() == {"g": (0, 1), "h": (0, 2)}


def test_groups_are_listed_by_name_in_byte_order(bench: Bench) -> None:
    for name in ("ä", "Z", "a", "aa", "z"):
        bench.fetch(name)
    assert list(bench.groups()) == ["Z", "a", "aa", "z", "ä"]


def test_groups_are_bounded(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_groups=2))
    bench.create()
    bench.fetch("a")
    bench.lease("b")
    for lease_ms in (0, 5):
        with pytest.raises(EngineError, match="mailbox_full"):
            bench.fetch("c", lease_ms=lease_ms)
    bench.fetch("a", force_deliver=True)
    assert set(bench.groups()) == {"a", "b"}


def test_a_look_is_refused_where_the_fetch_writes(bench: Bench) -> None:
    box = BOX.encode()

    def writes(command: MsgFetch) -> bool:
        return bench.engine.look(bench.now, command) is None

    assert writes(MsgFetch(box, "g"))
    assert not writes(MsgFetch(box))
    assert not writes(MsgFetch(box, force_deliver=True))
    assert not writes(MsgFetch(b"nowhere", "g", lease_ms=5))
    bench.fetch("g")
    assert not writes(MsgFetch(box, "g"))
    assert writes(MsgFetch(box, "g", lease_ms=5))
    assert writes(MsgFetch(box, "g", force_deliver=True))


def test_fetch_of_no_mailbox_is_answered_at_once(bench: Bench) -> None:
    found = bench.engine.read_fetch(bench.now, MsgFetch(b"nowhere"))
    assert found.incarnation == 0
    assert b"mailbox_not_found" in found.reply


def test_fetched_tells_the_batch_in_order(bench: Bench) -> None:
    bench.send()
    bench.send(priority="urgent")
    bench.fetch("g", deliver="earliest")
    assert bench.effects == [Fetched(BOX.encode(), 1, "g", (1, 0), False, 2)]
    bench.lease("h")
    assert bench.effects == [Fetched(BOX.encode(), 1, "h", (1, 0), True, 2)]
    bench.apply(MsgFetch(BOX.encode(), "", deliver="earliest", num_msgs=1))
    assert bench.effects == [Fetched(BOX.encode(), 1, "", range(1, 2), False, 2)]


# Without a lease


def test_without_a_lease_messages_come_again_until_acknowledged(bench: Bench) -> None:
    bench.send_all(3)
    assert bench.fetch("g", deliver="earliest") == [0, 1, 2]
    before = contents(bench.store)
    assert bench.fetch("g") == [0, 1, 2]
    assert contents(bench.store) == before
    bench.ack(1)
    assert bench.fetch("g") == [0, 2]
    bench.ack(0, 2)
    assert bench.fetch("g") == []


def test_out_of_order_acknowledgements(bench: Bench) -> None:
    bench.send_all(400)
    bench.fetch("g", deliver="earliest")
    left = set(range(400))
    for step in (7, 5, 3, 2):
        acknowledged = list(range(step, 400, step))
        for start in range(0, len(acknowledged), 50):
            bench.ack(*reversed(acknowledged[start : start + 50]))
        left -= set(acknowledged)
        assert bench.fetch("g", num_msgs=1000) == sorted(left)
        assert bench.groups() == {"g": (len(left), 0)}


# Size of replies


def test_a_batch_ends_before_max_reply(new_bench: Callable[..., Bench]) -> None:
    limit = 3_000
    bench = new_bench(EngineLimits(max_reply=limit))
    bench.create()
    for number in range(30):
        bench.send("x" * (40 * (number % 7)), headers={"H": ["v"]} if number % 3 else None)
    seen: list[int] = []
    while True:
        (reply,) = bench.apply(MsgFetch(BOX.encode(), "g", deliver="earliest", lease_ms=5, num_msgs=1000))
        (fetched,) = (effect for effect in bench.effects if isinstance(effect, Fetched))
        if not fetched.msg_ids:
            break
        assert len(reply) <= limit
        seen += fetched.msg_ids
        if seen[-1] < 29:
            assert len(reply) > limit - 700
    assert seen == list(range(30))


@pytest.mark.parametrize("lease_ms", [0, 5])
def test_a_batch_holds_at_least_one_message(new_bench: Callable[..., Bench], lease_ms: int) -> None:
    bench = new_bench(EngineLimits(max_reply=1_000))
    bench.create()
    for size in (2_000, 10, 2_000, 2_000):
        bench.send("x" * size)
    batches = []
    while batch := bench.fetch("g", deliver="earliest", lease_ms=lease_ms):
        batches.append(batch)
        bench.ack(*batch)
    assert batches == [[0], [1], [2], [3]]


def test_a_large_message_does_not_let_others_overtake(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_reply=1_000))
    bench.create()
    bench.send("x")
    bench.send("x" * 2_000)
    bench.send("x")
    bench.send("x", priority="critical")
    assert bench.lease() == [3, 0]
    assert bench.lease() == [1]
    assert bench.lease() == [2]


def test_stateless_batches_end_before_max_reply_too(new_bench: Callable[..., Bench]) -> None:
    bench = new_bench(EngineLimits(max_reply=1_000))
    bench.create()
    bench.send_all(50)
    assert bench.fetch("", deliver="earliest") == list(range(len(bench.fetch("", deliver="earliest"))))
    assert 1 <= len(bench.fetch("", deliver="earliest")) < 50
