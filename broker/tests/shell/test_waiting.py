"""FETCHes that wait: who is woken by what, in which order, and how waiting ends."""

import asyncio
from typing import Any

import pytest

from mq9_broker.shell.waking import ShellOptions

from .support import Broker, Connection, fetch_body, ids, payloads

LEASED: dict[str, Any] = {"lease_ms": 30_000, "deliver": "earliest"}


async def test_the_first_send_answers_a_waiting_fetch() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    waiting = broker.wait(client, "a", "g")
    assert client.replies == {}
    broker.send("a", b"hello")
    assert payloads(client.replies[waiting]) == [b"hello"]
    assert broker.shell.waiting == 0


async def test_max_wait_ends_with_an_empty_list_in_real_time() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    waiting = broker.wait(client, "a", "g", max_wait_ms=20)
    stateless = broker.wait(client, "a", max_wait_ms=20)
    assert client.replies == {}
    assert await client.reply(waiting) == {"error": "", "messages": []}
    assert await client.reply(stateless) == {"error": "", "messages": []}
    assert broker.shell.waiting == 0
    broker.send("a")
    assert len(client.replies) == 2


async def test_zero_does_not_wait() -> None:
    broker = Broker()
    broker.create("a")
    assert broker.fetch("a", "g", **LEASED) == []
    assert broker.fetch("a", "g") == []
    assert broker.fetch("a") == []
    assert broker.shell.waiting == 0


async def test_leased_waiters_are_served_in_the_order_they_began_to_wait() -> None:
    broker = Broker()
    broker.create("a")
    clients = [Connection() for _ in range(5)]
    waiting = [broker.wait(client, "a", "g", num_msgs=2, **LEASED) for client in clients]
    sender = Connection()
    broker.send_requests(sender, *[("MSG.SEND.a", b"x")] * 5)
    assert [ids(client.replies[w]) for client, w in zip(clients[:3], waiting, strict=False)] == [
        [0, 1],
        [2, 3],
        [4],
    ]
    assert not clients[3].replies
    assert not clients[4].replies
    broker.send_requests(sender, *[("MSG.SEND.a", b"x")] * 3)
    assert ids(clients[3].replies[waiting[3]]) == [5, 6]
    assert ids(clients[4].replies[waiting[4]]) == [7]


async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    broker, first, second = Broker(), Connection(), Connection()
    broker.create("a")
    waiting = broker.wait(first, "a", "g", num_msgs=1, **LEASED)
    # In one read: the message, and a FETCH of somebody else.
    late = broker.send_requests(
        second,
        ("MSG.SEND.a", b"x"),
        ("MSG.FETCH.a", fetch_body("g", max_wait_ms=60_000, num_msgs=1, **LEASED)),
    )
    assert ids(first.replies[waiting]) == [0]
    assert late[1] not in second.replies
    # And two FETCHes of one read around a SEND: the first one gets it.
    one, _, two = broker.send_requests(
        first,
        ("MSG.FETCH.a", fetch_body("h", max_wait_ms=60_000, lease_ms=1000)),
        ("MSG.SEND.a", b"y"),
        ("MSG.FETCH.a", fetch_body("h", max_wait_ms=60_000, lease_ms=1000)),
    )
    assert ids(first.replies[one]) == [1]
    assert two not in first.replies
    assert ids(second.replies[late[1]]) == [1]


async def test_unleased_waiters_are_all_answered_beside_leased_ones() -> None:
    broker = Broker()
    broker.create("a")
    clients = [Connection() for _ in range(6)]
    leased = [broker.wait(client, "a", "g", **LEASED) for client in clients[:2]]
    unleased = [broker.wait(client, "a", "g") for client in clients[2:4]]
    stateless = [broker.wait(client, "a") for client in clients[4:]]
    broker.send("a")
    answered = [
        client.replies.get(w) for client, w in zip(clients, leased + unleased + stateless, strict=True)
    ]
    assert [reply and ids(reply) for reply in answered] == [[0], None, [0], [0], [0], [0]]


async def test_groups_do_not_disturb_each_other() -> None:
    broker, one, two = Broker(), Connection(), Connection()
    broker.create("a")
    broker.create("b")
    in_g, in_h = broker.wait(one, "a", "g", **LEASED), broker.wait(two, "a", "h", **LEASED)
    elsewhere = broker.wait(one, "b", "g", **LEASED)
    broker.send("a")
    assert ids(one.replies[in_g]) == ids(two.replies[in_h]) == [0]
    assert elsewhere not in one.replies


async def test_a_stateless_latest_means_from_when_it_was_asked() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.send("a", b"old")
    waiting = broker.wait(client, "a")
    later = broker.wait(client, "a", deliver="from_id", from_id=2)
    broker.send("a", b"new")
    assert payloads(client.replies[waiting]) == [b"new"]
    assert later not in client.replies
    broker.send("a", b"newer")
    assert payloads(client.replies[later]) == [b"newer"]


async def test_a_nack_wakes() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.send("a")
    assert broker.fetch("a", "g", **LEASED) == [0]
    waiting = broker.wait(client, "a", "g", **LEASED)
    broker.ok("MSG.NACK.a", {"group_name": "g", "msg_ids": [0]})
    assert client.replies[waiting]["messages"][0]["delivery_count"] == 2


async def test_a_nack_delay_a_lease_and_a_message_delay_wake_when_they_are_over() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.send("a")
    assert broker.fetch("a", "g", **LEASED) == [0]
    broker.ok("MSG.NACK.a", {"group_name": "g", "msg_ids": [0], "delay_ms": 5000})
    first = broker.wait(client, "a", "g", lease_ms=1000)
    broker.shell.advance_clock(4999)
    assert client.replies == {}
    broker.shell.advance_clock(1)
    assert ids(client.replies[first]) == [0]
    second = broker.wait(client, "a", "g", lease_ms=1000)
    broker.shell.advance_clock(1000)
    assert ids(client.replies[second]) == [0]
    third = broker.wait(client, "a", "g", lease_ms=1000)
    assert broker.send("a", b"later", b"mq9-delay: 2") == -1
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 0})
    broker.shell.advance_clock(2000)
    assert ids(client.replies[third]) == [1]


async def test_a_forced_restart_wakes_the_others_of_the_group() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.send("a")
    assert broker.fetch("a", "g", **LEASED) == [0]
    waiting = broker.wait(client, "a", "g", **LEASED)
    assert broker.fetch("a", "g", force_deliver=True, deliver="earliest") == [0]
    assert ids(client.replies[waiting]) == [0]


@pytest.mark.parametrize("how", ["delete", "expire"])
async def test_waiting_ends_with_the_mailbox(how: str) -> None:
    broker, client = Broker(), Connection()
    broker.create("a", ttl=5)
    waiting = [
        broker.wait(client, "a", group, **options) for group, options in (("", {}), ("g", {}), ("g", LEASED))
    ]
    if how == "delete":
        broker.ok("MAILBOX.DELETE.a")
    else:
        broker.shell.advance_clock(5000)
    gone = {"error": "mailbox a does not exist", "code": "mailbox_not_found"}
    assert [client.replies[w] for w in waiting] == [gone] * 3
    broker.create("a")
    assert broker.shell.waiting == 0


async def test_one_read_may_delete_and_create_again() -> None:
    broker, old, new = Broker(), Connection(), Connection()
    broker.create("a")
    waiting = broker.wait(old, "a", "g")
    *_, fetch = broker.send_requests(
        new,
        ("MAILBOX.DELETE.a", b""),
        ("MAILBOX.CREATE", {"name": "a"}),
        ("MSG.SEND.a", b"x"),
        ("MSG.FETCH.a", fetch_body("g", deliver="earliest")),
    )
    assert old.replies[waiting]["code"] == "mailbox_not_found"
    assert ids(new.replies[fetch]) == [0]


async def test_shutdown_answers_unavailable() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.create("b")
    waiting = [broker.wait(client, name, group) for name in ("a", "b") for group in ("", "g")]
    broker.shell.shutdown()
    assert {client.replies[w]["code"] for w in waiting} == {"unavailable"}
    late = broker.wait(client, "a", "g")
    assert client.replies[late]["code"] == "unavailable"
    broker.send("a")
    assert broker.fetch("a", "g") == [0]


async def test_a_client_that_went_away_takes_no_lease() -> None:
    broker, gone, there = Broker(), Connection(), Connection()
    broker.create("a")
    broker.wait(gone, "a", "g", **LEASED)
    broker.wait(gone, "a", "g")
    broker.wait(gone, "a")
    waiting = broker.wait(there, "a", "g", **LEASED)
    gone.is_closed = True
    broker.shell.connection_closed(gone)
    assert broker.shell.waiting == 1
    broker.send("a")
    message = there.replies[waiting]["messages"][0]
    assert (message["msg_id"], message["delivery_count"]) == (0, 1)
    assert gone.replies == {}


async def test_a_connection_known_to_be_closed_takes_no_lease_even_before_the_shell_is_told() -> None:
    broker, gone, there = Broker(), Connection(), Connection()
    broker.create("a")
    for _ in range(3):
        broker.wait(gone, "a", "g", **LEASED)
    broker.wait(gone, "a")
    waiting = broker.wait(there, "a", "g", **LEASED)
    gone.is_closed = True
    broker.send("a")
    assert ids(there.replies[waiting]) == [0]
    assert gone.replies == {}
    broker.shell.connection_closed(gone)
    assert broker.shell.waiting == 0


async def test_an_inbox_taken_back_gets_no_lease() -> None:
    broker, impatient, there = Broker(), Connection(), Connection()
    broker.create("a")
    given_up = broker.wait(impatient, "a", "g", **LEASED)
    waiting = broker.wait(there, "a", "g", **LEASED)
    impatient.unsubscribed.add(given_up)
    broker.send("a")
    message = there.replies[waiting]["messages"][0]
    assert (message["msg_id"], message["delivery_count"]) == (0, 1)
    assert impatient.replies == {}
    assert broker.shell.waiting == 0


async def test_waiting_holds_nothing_up_and_replies_of_one_read_go_out_together() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    fetch, info, send = broker.send_requests(
        client,
        ("MSG.FETCH.a", fetch_body("g", max_wait_ms=60_000)),
        ("MAILBOX.INFO.a", b""),
        ("MSG.SEND.b", b"x"),
    )
    assert client.order == [info, send]
    assert client.writes == 1
    assert fetch not in client.replies


async def test_waiters_of_a_mailbox_can_be_bounded() -> None:
    broker, client = Broker(options=ShellOptions(max_waiting=2)), Connection()
    broker.create("a")
    broker.create("b")
    for name in ("a", "a", "b"):
        broker.wait(client, name)
    refused = broker.wait(client, "a", "g")
    assert client.replies[refused]["code"] == "mailbox_full"
    assert broker.shell.waiting == 3


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (ShellOptions(max_waiting_of_client=2), "2 FETCHes of this connection wait already"),
        (ShellOptions(max_waiting_in_all=3), "3 FETCHes wait already"),
    ],
)
async def test_waiters_of_a_client_and_in_all_can_be_bounded(options: ShellOptions, text: str) -> None:
    broker, client, other = Broker(options=options), Connection(), Connection()
    broker.create("a")
    broker.create("b")
    broker.wait(other, "b")
    for name in ("a", "b"):
        broker.wait(client, name)
    refused = broker.wait(client, "a", "g")
    assert client.replies[refused]["code"] == "unavailable"
    assert client.replies[refused]["error"].endswith(text)
    assert broker.shell.waiting == 3
    broker.shell.connection_closed(client)
    assert broker.shell.waiting == 1
    last = broker.wait(client, "a", "g")
    assert last not in client.replies


async def test_a_fetch_without_reply_subject_does_nothing() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.shell.handle(client, [(b"$mq9.AI.MSG.FETCH.a", None, None, b'{"group_name":"g"}')])
    assert broker.ok("MAILBOX.INFO.a")["mailbox"]["groups"] == []
    assert broker.shell.waiting == 0


async def test_thousands_wait_at_once_and_each_message_goes_to_one() -> None:
    broker = Broker()
    broker.create("a")
    clients = [Connection() for _ in range(3000)]
    waiting = [broker.wait(client, "a", "g", num_msgs=1, **LEASED) for client in clients]
    broker.send_requests(Connection(), *[("MSG.SEND.a", b"x")] * 2000)
    got = [ids(client.replies[w]) for client, w in zip(clients[:2000], waiting, strict=False)]
    assert got == [[number] for number in range(2000)]
    for client in clients[2000:]:
        broker.shell.connection_closed(client)
    assert broker.shell.waiting == 0


async def test_the_timer_of_an_answered_fetch_never_answers_again() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    waiting = broker.wait(client, "a", "g", max_wait_ms=10)
    broker.send("a")
    assert ids(client.replies[waiting]) == [0]
    await asyncio.sleep(0.05)
    assert client.order == [waiting]


async def test_close_leaves_no_timer_behind() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.wait(client, "a", "g", max_wait_ms=10)
    broker.shell.close()
    await asyncio.sleep(0.05)
    assert client.replies == {}
