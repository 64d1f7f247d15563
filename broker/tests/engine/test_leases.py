"""Leases, ACK, NACK, RENEW, redelivery."""

from __future__ import annotations

import pytest

from mq9_broker.engine.effects import Deliverable

from .support import BOX, Bench, contents, counts

READY = Deliverable(BOX.encode(), 1, "g")


def test_leased_messages_are_hidden_from_the_group(bench: Bench) -> None:
    bench.send_all(5)
    assert bench.lease(num_msgs=2) == [0, 1]
    assert bench.fetch("g") == [2, 3, 4]
    assert bench.lease(num_msgs=2) == [2, 3]
    assert bench.fetch("g") == [4]
    assert bench.groups() == {"g": (1, 4)}


def test_what_is_out_on_lease_never_goes_to_two(bench: Bench) -> None:
    bench.send_all(100)
    taken = [bench.lease(num_msgs=7) for _ in range(20)]
    flat = [msg_id for batch in taken for msg_id in batch]
    assert flat == list(range(100))


def test_a_lease_ends_at_its_deadline_and_messages_come_again_in_their_place(bench: Bench) -> None:
    bench.send_all(3)
    bench.send(priority="critical")
    assert bench.lease(num_msgs=2, lease_ms=1_000) == [3, 0]
    bench.now += 500
    assert bench.lease(num_msgs=1, lease_ms=10_000) == [1]
    assert bench.engine.next_due() is not None
    assert bench.pass_ms(499) == []
    assert bench.fetch("g") == [2]
    assert bench.pass_ms(1) == [READY]
    reply = bench.fetch_reply("g", lease_ms=1_000)
    assert counts(reply) == {3: 2, 0: 2, 2: 1}
    assert [m["msg_id"] for m in reply["messages"]] == [3, 0, 2]


def test_a_lease_of_one_millisecond(bench: Bench) -> None:
    bench.send()
    assert bench.lease(lease_ms=1) == [0]
    assert bench.lease(lease_ms=1) == []
    bench.now += 1
    assert bench.lease(lease_ms=1) == [0]


def test_reply_names_the_lease_only_with_messages(bench: Bench) -> None:
    assert "lease_id" not in bench.fetch_reply("g", lease_ms=10)
    bench.send()
    assert "lease_id" not in bench.fetch_reply("h", deliver="earliest")
    first = bench.fetch_reply("g", lease_ms=10)["lease_id"]
    bench.send()
    assert bench.fetch_reply("g", lease_ms=10)["lease_id"] not in {"", first}


# ACK


def test_an_ack_confirms_exactly_its_message(bench: Bench) -> None:
    bench.send_all(3)
    bench.lease(lease_ms=1000)
    bench.ack(2)
    bench.pass_ms(1000)
    assert bench.lease() == [0, 1]


def test_a_late_ack_counts_until_the_message_is_confirmed(bench: Bench) -> None:
    bench.send_all(2)
    bench.lease(lease_ms=1000)
    bench.pass_ms(5000)
    bench.ack(0)
    assert bench.lease(lease_ms=1000) == [1]
    bench.ack(1)
    bench.pass_ms(5000)
    assert bench.lease() == []


def test_an_ack_of_a_message_that_another_worker_holds_now(bench: Bench) -> None:
    bench.send()
    bench.lease(lease_ms=1000)
    bench.pass_ms(1000)
    assert bench.lease(lease_ms=1000) == [0]
    bench.ack(0)
    assert bench.pass_ms(1000) == []
    assert bench.lease() == []


def test_ack_of_what_was_not_delivered(bench: Bench) -> None:
    bench.send_all(6)
    bench.fetch("g", deliver="earliest", num_msgs=1)
    bench.ack(1, 4)
    assert bench.fetch("g") == [0, 2, 3, 5]
    assert bench.lease(num_msgs=3) == [0, 2, 3]
    assert bench.lease() == [5]


def test_ids_to_come_unknown_and_repeated_are_ignored(bench: Bench) -> None:
    bench.send_all(2)
    bench.fetch("g", deliver="earliest")
    bench.ack(2, 3, 2**63 - 1)
    bench.send_all(2)
    assert bench.fetch("g") == [0, 1, 2, 3]
    bench.lease()
    bench.ack(1, 1, 0, 1)
    bench.ack(1)
    assert bench.groups() == {"g": (0, 2)}


def test_ack_by_an_unknown_group_creates_nothing(bench: Bench) -> None:
    bench.send()
    before = contents(bench.store)
    bench.ack(0, group="nobody")
    bench.nack(0, group="nobody")
    assert bench.renew(0, group="nobody") == []
    assert contents(bench.store) == before


def test_ack_of_gone_messages_succeeds(bench: Bench) -> None:
    bench.send("x", ttl_s=1)
    bench.send()
    bench.lease()
    bench.delete(1)
    bench.now += 1000
    bench.ack(0, 1)
    assert bench.groups() == {"g": (0, 0)}


def test_ack_of_a_delayed_nack(bench: Bench) -> None:
    bench.send()
    bench.lease()
    bench.nack(0, delay_ms=1000)
    bench.ack(0)
    assert bench.pass_ms(1000) == []
    assert bench.lease() == []


def test_part_of_a_lease_acknowledged_part_given_back_part_renewed(bench: Bench) -> None:
    bench.send_all(8)
    lease_id = bench.fetch_reply("g", deliver="earliest", lease_ms=1000)["lease_id"]
    bench.ack(0, 5)
    bench.nack(1, lease_id=lease_id)
    assert bench.renew(2, 6, lease_ms=5000, lease_id=lease_id) == [2, 6]
    assert bench.groups() == {"g": (1, 5)}
    assert bench.pass_ms(1000) == [READY]
    assert counts(bench.fetch_reply("g", lease_ms=100_000)) == {1: 2, 3: 2, 4: 2, 7: 2}
    bench.nack(6, lease_id=lease_id)
    assert counts(bench.fetch_reply("g", lease_ms=100_000)) == {6: 2}
    bench.pass_ms(4000)
    assert counts(bench.fetch_reply("g", lease_ms=100_000)) == {2: 2}


# NACK


def test_nack_gives_back_at_once_in_its_place(bench: Bench) -> None:
    bench.send_all(4)
    bench.send(priority="urgent")
    assert bench.lease(num_msgs=4) == [4, 0, 1, 2]
    bench.nack(2, 0)
    assert bench.effects == [READY]
    assert bench.lease() == [0, 2, 3]
    bench.nack(4)
    assert bench.fetch("g") == [4]


def test_nack_with_delay_hides_from_the_whole_group(bench: Bench) -> None:
    bench.send_all(2)
    bench.lease(lease_ms=60_000)
    bench.nack(0, delay_ms=2_000)
    assert bench.effects == []
    assert bench.fetch("g") == []
    assert bench.groups() == {"g": (1, 1)}
    bench.nack(0)  # not leased now
    assert bench.renew(0, lease_ms=1) == []
    assert bench.pass_ms(1_999) == []
    assert bench.pass_ms(1) == [READY]
    assert counts(bench.fetch_reply("g", lease_ms=1000)) == {0: 2}


def test_nack_touches_only_what_is_leased_now(bench: Bench) -> None:
    bench.send_all(4)
    bench.fetch("g", deliver="earliest")
    bench.nack(0, 1, 99)
    assert bench.effects == []
    bench.lease(num_msgs=2)
    bench.ack(0)
    bench.nack(0, 1, 2)
    assert bench.lease() == [1, 2, 3]


def test_nack_under_another_lease_is_ignored(bench: Bench) -> None:
    bench.send()
    old = bench.fetch_reply("g", deliver="earliest", lease_ms=1000)["lease_id"]
    bench.pass_ms(1000)
    new = bench.fetch_reply("g", lease_ms=1000)["lease_id"]
    bench.nack(0, lease_id=old)
    bench.nack(0, lease_id="no such lease")
    assert bench.renew(0, lease_id=old) == []
    assert bench.lease() == []
    bench.nack(0, lease_id=new)
    assert bench.lease() == [0]


def test_a_lease_of_a_mailbox_that_was_made_again_is_another(bench: Bench) -> None:
    bench.send()
    old = bench.fetch_reply("g", deliver="earliest", lease_ms=1000)["lease_id"]
    bench.drop()
    bench.create()
    bench.send()
    assert bench.fetch_reply("g", deliver="earliest", lease_ms=1000)["lease_id"] != old
    bench.nack(0, lease_id=old)
    assert bench.lease() == []


# RENEW


def test_renew_counts_from_now_and_is_no_delivery(bench: Bench) -> None:
    bench.send_all(2)
    bench.lease(lease_ms=1000)
    bench.now += 900
    assert bench.renew(1, 0, 7, lease_ms=1000) == [1, 0]
    assert bench.pass_ms(999) == []
    assert bench.pass_ms(1) == [READY]
    assert counts(bench.fetch_reply("g", lease_ms=1000)) == {0: 2, 1: 2}


def test_renew_may_shorten(bench: Bench) -> None:
    bench.send()
    bench.lease(lease_ms=60_000)
    assert bench.renew(0, lease_ms=10) == [0]
    assert bench.pass_ms(10) == [READY]
    assert bench.lease() == [0]


def test_renew_of_nothing_ends_the_lease(bench: Bench) -> None:
    bench.send()
    bench.lease()
    assert bench.renew(0, lease_ms=0) == [0]
    assert bench.effects == [READY]
    assert bench.lease() == [0]


def test_renew_keeps_the_lease_id(bench: Bench) -> None:
    bench.send_all(3)
    lease_id = bench.fetch_reply("g", deliver="earliest", lease_ms=1000)["lease_id"]
    for part in ((0,), (1, 0), (0, 1, 2)):
        assert bench.renew(*part, lease_ms=1000, lease_id=lease_id) == list(part)
    bench.now += 999
    assert bench.renew(0, 1, 2, lease_ms=1000, lease_id=lease_id) == [0, 1, 2]
    bench.pass_ms(1000)
    assert bench.renew(0, lease_id=lease_id) == []


# Gone while leased


@pytest.mark.parametrize("way", ["delete", "ttl", "key"])
def test_a_message_that_goes_while_leased_ends_its_lease(bench: Bench, way: str) -> None:
    bench.send(ttl_s=1 if way == "ttl" else 0, key="k")
    bench.send()
    bench.lease(lease_ms=5_000)
    if way == "delete":
        bench.delete(0)
    elif way == "key":
        bench.send(key="k", delay_s=1)
        bench.pass_ms(1000)
    else:
        bench.now += 1000
    bench.apply()
    pending = 1 if way == "key" else 0
    assert bench.groups() == {"g": (pending, 1)}
    assert bench.renew(0, 1) == [1]
    bench.nack(0)
    bench.pass_ms(20_000)
    assert 0 not in bench.lease()


@pytest.mark.parametrize("way", ["delete", "ttl"])
def test_a_message_that_goes_while_it_waits_to_come_again(bench: Bench, way: str) -> None:
    bench.send(ttl_s=3 if way == "ttl" else 0)
    bench.send()
    bench.lease()
    bench.nack(0, 1)
    if way == "delete":
        bench.delete(0)
    bench.now += 3_000
    assert bench.fetch("g") == [1]
    assert bench.groups() == {"g": (1, 0)}
    assert bench.lease() == [1]
    assert bench.groups() == {"g": (0, 1)}


def test_a_confirmed_message_stays_for_others(bench: Bench) -> None:
    bench.send()
    bench.lease()
    bench.ack(0)
    assert bench.query() == [0]
    assert bench.lease("h") == [0]
    assert bench.info()["messages"]["normal"] == 1


def test_mixed_leased_and_unleased_use_of_one_group(bench: Bench) -> None:
    bench.send_all(6)
    assert bench.fetch("g", deliver="earliest", num_msgs=2) == [0, 1]
    assert bench.lease(num_msgs=3) == [0, 1, 2]
    bench.nack(1)
    assert counts(bench.fetch_reply("g")) == {1: 1, 3: 0, 4: 0, 5: 0}
    bench.ack(1, 4)
    assert bench.fetch("g") == [3, 5]
    bench.pass_ms(10_000)
    assert counts(bench.fetch_reply("g")) == {0: 1, 2: 1, 3: 0, 5: 0}
    assert counts(bench.fetch_reply("g", lease_ms=1)) == {0: 2, 2: 2, 3: 1, 5: 1}


def test_leases_survive_a_new_engine(bench: Bench) -> None:
    bench.send_all(3)
    lease_id = bench.fetch_reply("g", deliver="earliest", lease_ms=1000, num_msgs=2)["lease_id"]
    again = Bench(bench.store)
    again.now = bench.now
    assert again.fetch("g") == [2]
    assert again.renew(0, lease_id=lease_id, lease_ms=2000) == [0]
    again.ack(1)
    assert again.pass_ms(1000) == []
    assert again.pass_ms(1000) == [READY]
    assert counts(again.fetch_reply("g", lease_ms=5)) == {0: 2, 2: 1}
