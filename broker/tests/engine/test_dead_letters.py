"""max_deliveries, dead letters and their outbox."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest

from mq9_broker.engine.commands import OutboxRemove
from mq9_broker.engine.effects import DeadLetter, DeadLetterDropped, Deliverable, MailboxGone

from .support import BOX, Bench, contents, dedup_id

DEAD = "dead"


@pytest.fixture
def bench(new_bench: Callable[..., Bench]) -> Bench:
    made: Bench = new_bench()
    made.create(max_deliveries=2, dead_letter=DEAD)
    made.create(DEAD)
    return made


def use_up(bench: Bench, group: str = "g") -> list[object]:
    """Lets the last allowed lease run out."""
    assert bench.lease(group, lease_ms=1000) == [0]
    bench.pass_ms(1000)
    assert bench.lease(group, lease_ms=1000) == [0]
    return list(bench.pass_ms(1000))


def test_a_copy_goes_to_the_dead_letter_mailbox(bench: Bench) -> None:
    headers = {"X": ["1", "2"], "mq9-reply-to": ["me"]}
    bench.send("work", priority="urgent", tags=("t", "u"), key="k", ttl_s=100, headers=headers)
    effects = use_up(bench)
    (letter,) = effects
    assert isinstance(letter, DeadLetter)
    assert letter.source == BOX.encode()
    assert bench.deliver_dead_letters(bench.effects) == [{"error": "", "msg_id": 0}]
    (copy,) = bench.fetch_reply("", DEAD, deliver="earliest")["messages"]
    assert base64.b64decode(copy["payload"]) == b"work"
    assert (copy["priority"], copy["tags"], copy.get("key"), copy.get("expires_at")) == (
        "urgent",
        ["t", "u"],
        None,
        None,
    )
    assert copy["headers"] == {
        **headers,
        "mq9-dead-letter-from": [BOX],
        "mq9-dead-letter-group": ["g"],
        "mq9-dead-letter-msg-id": ["0"],
        "mq9-dead-letter-reason": ["max_deliveries"],
        "mq9-dead-letter-count": ["2"],
    }
    assert bench.lease() == []
    assert bench.query() == [0]
    assert bench.lease("other group") == [0]


def test_nack_of_the_last_delivery_whatever_its_delay(bench: Bench) -> None:
    bench.send()
    for delay_ms in (0, 5_000):
        assert bench.lease() == [0]
        bench.nack(0, delay_ms=delay_ms)
    assert [type(e) for e in bench.effects] == [DeadLetter]
    assert bench.groups() == {"g": (0, 0)}
    assert bench.pass_ms(5_000) == []


def test_delivering_twice_stores_once(bench: Bench) -> None:
    bench.send()
    use_up(bench)
    effects = list(bench.effects)
    bench.deliver_dead_letters(effects)
    bench.deliver_dead_letters(effects)
    assert bench.query(DEAD) == [0]


def test_the_outbox_keeps_an_entry_until_it_is_removed(bench: Bench) -> None:
    bench.send()
    (letter,) = use_up(bench)
    again = Bench(bench.store)
    again.now = bench.now
    assert list(again.engine.outbox()) == [letter]
    assert isinstance(letter, DeadLetter)
    again.apply(OutboxRemove(letter.source, letter.incarnation, letter.entry))
    assert list(again.engine.outbox()) == []
    again.apply(OutboxRemove(letter.source, letter.incarnation, letter.entry))


def test_a_client_cannot_take_the_dedup_id_of_a_copy(bench: Bench) -> None:
    bench.send()
    (letter,) = use_up(bench)
    assert isinstance(letter, DeadLetter)
    options = letter.send[4]
    assert options is not None
    assert "\x00" in options.dedup_id  # no client's dedup-id has control characters
    bench.send(name=DEAD, dedup_id=options.dedup_id.replace("\x00", ""))
    bench.deliver_dead_letters([letter])
    assert len(bench.query(DEAD)) == 2


def test_an_entry_outlives_its_mailbox(bench: Bench) -> None:
    bench.send("last words")
    (letter,) = use_up(bench)
    bench.drop()
    bench.create()
    assert list(bench.engine.outbox()) == [letter]
    bench.deliver_dead_letters(list(bench.engine.outbox()))
    assert bench.query(DEAD) == [0]
    assert isinstance(letter, DeadLetter)
    bench.apply(OutboxRemove(letter.source, letter.incarnation, letter.entry))
    assert not [key for key in contents(bench.store) if key.startswith(b"X")]


def test_a_mailbox_that_ends_with_the_lease_takes_its_messages_along(bench: Bench) -> None:
    bench.create("short", ttl=3, max_deliveries=1, dead_letter=DEAD)
    bench.send("x", "short")
    bench.lease("g", "short", lease_ms=3_000)
    assert [type(e) for e in bench.pass_ms(3_000)] == [MailboxGone]
    assert list(bench.engine.outbox()) == []


def test_a_new_mailbox_of_the_name_makes_other_letters(bench: Bench) -> None:
    bench.send("first")
    use_up(bench)
    bench.deliver_dead_letters(bench.effects)
    bench.drop()
    bench.create(max_deliveries=2, dead_letter=DEAD)
    bench.send("second")
    use_up(bench)
    bench.deliver_dead_letters(bench.effects)
    assert bench.query(DEAD) == [0, 1]


def test_a_reset_group_makes_another_letter(bench: Bench) -> None:
    bench.send()
    use_up(bench)
    bench.deliver_dead_letters(bench.effects)
    bench.fetch("g", deliver="earliest", force_deliver=True)
    use_up(bench)
    bench.deliver_dead_letters(bench.effects)
    assert bench.query(DEAD) == [0, 1]


def test_groups_count_for_themselves(bench: Bench) -> None:
    bench.send()
    use_up(bench, "g")
    assert bench.lease("h") == [0]
    use = [e for e in bench.effects if isinstance(e, DeadLetter)]
    assert use == []
    bench.nack(0, group="h")
    assert bench.lease("h") == [0]
    bench.nack(0, group="h")
    assert [type(e) for e in bench.effects] == [DeadLetter]


def test_unleased_deliveries_do_not_count(bench: Bench) -> None:
    bench.send()
    bench.fetch("g", deliver="earliest")
    for _ in range(10):
        assert bench.fetch("g") == [0]
    assert bench.lease(lease_ms=1000) == [0]
    assert bench.pass_ms(1000) == [Deliverable(BOX.encode(), 1, "g")]


def test_renewals_do_not_count(bench: Bench) -> None:
    bench.send()
    bench.lease(lease_ms=1000)
    for _ in range(5):
        bench.pass_ms(500)
        assert bench.renew(0, lease_ms=1000) == [0]
    assert bench.pass_ms(1000) == [Deliverable(BOX.encode(), 1, "g")]


def test_an_ack_in_time_makes_no_letter(bench: Bench) -> None:
    bench.send()
    bench.lease(lease_ms=1000)
    bench.nack(0)
    bench.lease(lease_ms=1000)
    bench.ack(0)
    assert bench.pass_ms(1000) == []


def test_a_message_that_expires_first_makes_no_letter(bench: Bench) -> None:
    bench.send(ttl_s=2)
    bench.lease(lease_ms=1000)
    bench.nack(0)
    bench.lease(lease_ms=2000)
    assert bench.pass_ms(5000) == []


def test_a_lease_that_ends_before_the_expiry_makes_one_even_if_seen_later(bench: Bench) -> None:
    bench.send(ttl_s=2)
    bench.lease(lease_ms=500)
    bench.nack(0)
    bench.lease(lease_ms=500)
    bench.now += 60_000
    bench.send("next")
    assert [type(e) for e in bench.effects] == [DeadLetter, Deliverable]


def test_without_dead_letter_mailbox_the_message_is_dropped_for_the_group(bench: Bench) -> None:
    bench.create("plain", max_deliveries=1)
    bench.send("x", "plain")
    bench.lease("g", "plain")
    bench.nack(0, name="plain")
    assert bench.effects == [DeadLetterDropped(b"plain", "g", 0, "no_dead_letter")]
    assert bench.lease("g", "plain") == []
    assert bench.query("plain") == [0]


@pytest.mark.parametrize("name", ["mq9-dead-letter-from", "MQ9-Dead-Letter-From"])
def test_a_dead_letter_does_not_die_twice(bench: Bench, name: str) -> None:
    bench.send(headers={name: ["elsewhere"]})
    assert use_up(bench) == [DeadLetterDropped(BOX.encode(), "g", 0, "already_dead_letter")]
    assert bench.query() == [0]
    assert bench.lease() == []


def test_max_deliveries_zero_is_without_end(bench: Bench) -> None:
    bench.create("endless", dead_letter=DEAD)
    bench.send("x", "endless")
    for _ in range(50):
        assert bench.lease("g", "endless") == [0]
        bench.nack(0, name="endless")


def test_dead_letters_of_one_moment_come_in_the_order_of_their_leases(bench: Bench) -> None:
    bench.create("b", max_deliveries=1, dead_letter=DEAD)
    bench.send_all(4, "b")
    bench.lease("g", "b", num_msgs=1, lease_ms=2000)
    bench.lease("h", "b", num_msgs=1, lease_ms=2000)
    bench.lease("g", "b", num_msgs=2, lease_ms=1000)
    bench.now += 5000
    bench.apply()
    letters = [dedup_id(e).split(":")[-3:-1] for e in bench.effects if isinstance(e, DeadLetter)]
    assert letters == [["1", "1"], ["1", "2"], ["1", "0"], ["2", "0"]]
