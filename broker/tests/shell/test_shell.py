"""Requests through the shell: order, silence, ACKs of batches, timers, dead letters, failures."""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mq9_broker._generated.commands import MsgDelete
from mq9_broker.clock import WallClock
from mq9_broker.engine import Applied, Engine, EngineLimits
from mq9_broker.engine.commands import Command, OutboxRemove
from mq9_broker.shell.shell import Shell
from mq9_broker.store import MemoryStore

from .support import Broker, Connection, fetch_body, ids, payloads

LEASED: dict[str, Any] = {"lease_ms": 30_000, "deliver": "earliest"}


class FailingEngine:
    """An engine that fails unexpectedly at the commands that `fails` picks."""

    def __init__(self) -> None:
        self._engine = Engine(MemoryStore(), EngineLimits())
        self.fails: Callable[[Command], bool] = lambda _: False
        self.ticks_fail = False
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def apply(self, time_ms: int, commands: Sequence[Command]) -> Applied:
        self.calls += 1
        if any(self.fails(command) for command in commands) or (self.ticks_fail and not commands):
            raise RuntimeError("planted")
        return self._engine.apply(time_ms, commands)


async def test_moving_the_clock_ends_where_a_timer_fails() -> None:
    engine = FailingEngine()
    broker = Broker(engine)
    broker.create("a", ttl=1)
    engine.ticks_fail = True
    with pytest.raises(RuntimeError, match="a timer failed"):
        broker.shell.advance_clock(1000)
    engine.ticks_fail = False
    broker.shell.advance_clock(0)
    assert broker.ask("MAILBOX.INFO.a")["code"] == "mailbox_not_found"


async def test_one_call_answers_few_requests_with_long_replies() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    broker.send("a")
    read = (b"$mq9.AI.MSG.QUERY.a", b"")
    fetch = (b"$mq9.AI.MSG.FETCH.a", b'{"deliver":"earliest","config":{"max_wait_ms":0}}')
    lease = (b"$mq9.AI.MSG.FETCH.a", b'{"group_name":"g","config":{"max_wait_ms":0,"lease_ms":1}}')
    send = (b"$mq9.AI.MSG.SEND.a", b"x")
    chunk = [
        (subject, b"r%d" % number, None, body)
        for number, (subject, body) in enumerate([read, send, fetch, send, lease] * 20)
    ]
    done = 0
    calls = 0
    while done < len(chunk):
        done += broker.shell.handle(client, chunk[done:])
        calls += 1
        assert len(client.replies) == done
    assert client.order == [reply_to for _, reply_to, _, _ in chunk]
    assert calls == 4
    assert broker.shell.handle(client, [(b"$mq9.AI.MSG.SEND.a", None, None, b"x")] * 128) == 128


async def test_requests_of_one_read_take_effect_in_order() -> None:
    broker, client = Broker(), Connection()
    sent = broker.send_requests(
        client,
        ("MAILBOX.CREATE", {"name": "a"}),
        ("MSG.SEND.a", b"1"),
        ("MSG.QUERY.a", b""),
        ("MSG.SEND.a", b"2"),
        ("MSG.DELETE.a.0", b""),
        ("MSG.QUERY.a", b""),
        ("MAILBOX.DELETE.a", b""),
        ("MSG.SEND.a", b"3"),
        ("NO.SUCH.OPERATION", b""),
        ("MAILBOX.CREATE", b"{}"),
    )
    assert client.writes == 1
    assert client.order == sent
    replies = [client.replies[reply_to] for reply_to in sent]
    assert payloads(replies[2]) == [b"1"]
    assert payloads(replies[5]) == [b"2"]
    assert [reply.get("code", "") for reply in replies] == [
        "",
        "",
        "",
        "",
        "",
        "",
        "",
        "mailbox_not_found",
        "unsupported_operation",
        "",
    ]


async def test_plain_sends_of_one_read_are_one_call_of_the_engine() -> None:
    engine = FailingEngine()
    broker, client = Broker(engine), Connection()
    broker.create("a")
    broker.create("b")
    before = engine.calls
    broker.send_requests(client, *[("MSG.SEND.a", b"x"), ("MSG.SEND.b", b"y")] * 100)
    assert engine.calls == before + 1
    assert [reply["msg_id"] for reply in client.replies.values()] == [n // 2 for n in range(200)]


@pytest.mark.parametrize("with_fetch", [False, True])
async def test_what_failed_is_counted_by_operation(with_fetch: bool) -> None:
    broker, client = Broker(), Connection()
    ack = ("MSG.ACK.missing", {"group_name": "g", "msg_ids": [1]})
    requests: list[tuple[str, Any]] = [("MSG.SEND.missing", b"x"), ack, ("MSG.SEND.missing", b"x")]
    failed = {("msg.send", "mailbox_not_found"): 2, ("msg.ack", "mailbox_not_found"): 1}
    if with_fetch:
        requests.append(("MSG.FETCH.missing", fetch_body("g", lease_ms=1000)))
        failed["msg.fetch", "mailbox_not_found"] = 1
    broker.send_requests(client, *requests)
    assert dict(broker.shell.meter.failed) == failed


async def test_requests_without_reply_subject_are_carried_out_silently() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    names = [
        b"MSG.SEND.a",
        b"MSG.SEND.missing",
        b"MSG.QUERY.a",
        b"AGENT.DISCOVER",
        b"NO.SUCH",
        b"MSG.SEND.A",
        b"MAILBOX.CREATE",
    ]
    broker.shell.handle(client, [(b"$mq9.AI." + name, None, None, b"{") for name in names])
    assert client.writes == 0
    assert payloads(broker.ok("MSG.QUERY.a")) == [b"{"]


async def test_headers_reach_the_message() -> None:
    broker = Broker()
    broker.create("a")
    broker.send(
        "a", b"x", b"mq9-priority: urgent\r\nX-One: 1\r\nX-One: 2\r\nmq9-tags: a,b\r\nmq9-reply-to: me"
    )
    (message,) = broker.ok("MSG.QUERY.a")["messages"]
    assert message["priority"] == "urgent"
    assert message["tags"] == ["a", "b"]
    assert message["headers"] == {"X-One": ["1", "2"], "mq9-reply-to": ["me"]}
    assert broker.ask("MSG.SEND.a", b"x", b"mq9-priority: high")["code"] == "invalid_argument"
    assert len(broker.ok("MSG.QUERY.a")["messages"]) == 1


async def test_generated_addresses_are_valid_and_differ() -> None:
    broker = Broker()
    made = {broker.ok("MAILBOX.CREATE")["mail_address"] for _ in range(100)}
    assert len(made) == 100
    for address in made:
        assert len(address) == 32
        broker.send(address)


# ACK of what was delivered without a lease.


async def test_an_ack_confirms_its_batch_up_to_the_message() -> None:
    broker = Broker()
    broker.create("a")
    for _ in range(3):
        broker.send("a", b"normal")
    assert broker.fetch("a", "g", deliver="earliest") == [0, 1, 2]
    broker.send("a", b"now", b"mq9-priority: critical")
    # Not the critical one, which stood in no batch yet.
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 1})
    assert broker.fetch("a", "g") == [3, 2]
    # The ACK of the critical one alone swallows nothing.
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 3})
    assert broker.fetch("a", "g") == [2]
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 2})
    assert broker.fetch("a", "g") == []


async def test_an_ack_in_the_same_read_as_its_fetch() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    for _ in range(3):
        broker.send("a")
    body = fetch_body("g", deliver="earliest", max_wait_ms=0)
    *_, again = broker.send_requests(
        client, ("MSG.FETCH.a", body), ("MSG.ACK.a", {"group_name": "g", "msg_id": 1}), ("MSG.FETCH.a", body)
    )
    assert ids(client.replies[again]) == [2]


async def test_a_fetch_that_waited_makes_a_batch_too() -> None:
    broker, client = Broker(), Connection()
    broker.create("a")
    waiting = broker.wait(client, "a", "g")
    broker.send_requests(Connection(), *[("MSG.SEND.a", b"x")] * 3)
    assert ids(client.replies[waiting]) == [0, 1, 2]
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 2})
    assert broker.fetch("a", "g") == []


async def test_under_a_lease_an_ack_confirms_one_message() -> None:
    broker = Broker()
    broker.create("a")
    for _ in range(3):
        broker.send("a")
    assert broker.fetch("a", "g", **LEASED) == [0, 1, 2]
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 2})
    broker.shell.advance_clock(30_000)
    assert broker.fetch("a", "g") == [0, 1]


async def test_a_message_leased_after_the_batch_is_confirmed_alone() -> None:
    broker = Broker()
    broker.create("a")
    for _ in range(3):
        broker.send("a")
    assert broker.fetch("a", "g", deliver="earliest") == [0, 1, 2]
    assert broker.fetch("a", "g", lease_ms=1000, num_msgs=2) == [0, 1]
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 1})
    broker.shell.advance_clock(1000)
    assert broker.fetch("a", "g") == [0, 2]


@pytest.mark.parametrize("how", ["force", "delete", "expire"])
async def test_batches_are_forgotten(how: str) -> None:
    broker = Broker()
    broker.create("a", ttl=0 if how == "force" else 10)
    for _ in range(3):
        broker.send("a")
    assert broker.fetch("a", "g", deliver="earliest") == [0, 1, 2]
    if how == "force":
        assert broker.fetch("a", "g", force_deliver=True, deliver="earliest", num_msgs=1) == [0]
        broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 2})
        assert broker.fetch("a", "g") == [0, 1]
        return
    if how == "delete":
        broker.ok("MAILBOX.DELETE.a")
    else:
        broker.shell.advance_clock(10_000)
    broker.create("a")
    for _ in range(3):
        broker.send("a")
    broker.ok("MSG.FETCH.a", fetch_body("g", max_wait_ms=0, deliver="earliest", lease_ms=1))
    broker.shell.advance_clock(1)
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 2})
    assert broker.fetch("a", "g") == [0, 1]


async def test_msg_ids_win_over_msg_id() -> None:
    broker = Broker()
    broker.create("a")
    for _ in range(4):
        broker.send("a")
    assert broker.fetch("a", "g", deliver="earliest") == [0, 1, 2, 3]
    broker.ok("MSG.ACK.a", {"group_name": "g", "msg_id": 3, "msg_ids": [1]})
    assert broker.fetch("a", "g") == [0, 2, 3]


# Time.


async def test_with_the_wall_clock_deadlines_run_by_themselves() -> None:
    shell = Shell(Engine(MemoryStore(), EngineLimits()), WallClock())
    shell.start(asyncio.get_running_loop())
    client = Connection()
    body = json.dumps(fetch_body("g", deliver="earliest", max_wait_ms=60_000, lease_ms=20)).encode()
    shell.handle(
        client,
        [(b"$mq9.AI.MAILBOX.CREATE", b"c", None, b'{"name":"a"}'), (b"$mq9.AI.MSG.SEND.a", b"s", None, b"x")],
    )
    shell.handle(client, [(b"$mq9.AI.MSG.FETCH.a", b"1", None, body)])
    shell.handle(client, [(b"$mq9.AI.MSG.FETCH.a", b"2", None, body)])
    assert ids(client.replies[b"1"]) == [0]
    assert (await client.reply(b"2"))["messages"][0]["delivery_count"] == 2
    with pytest.raises(TypeError):
        shell.advance_clock(1)
    shell.close()


async def test_the_test_clock_stands_still() -> None:
    broker = Broker()
    broker.create("a", ttl=1)
    await asyncio.sleep(0.02)
    broker.send("a")
    broker.shell.advance_clock(999)
    broker.send("a")
    broker.shell.advance_clock(1)
    assert broker.ask("MSG.SEND.a", b"x")["code"] == "mailbox_not_found"
    with pytest.raises(ValueError):
        broker.shell.advance_clock(-1)


# Dead letters.


async def dead_letter(broker: Broker, target: str = "d") -> None:
    """Let the only delivery of message 0 of `a` end."""
    broker.create("a", max_deliveries=1, dead_letter=target)
    broker.send("a", b"poison", b"mq9-priority: urgent\r\nmq9-key: k\r\nX-Trace: 7")
    assert broker.fetch("a", "g", **LEASED) == [0]


async def test_a_message_whose_deliveries_are_used_up_goes_to_the_dead_letter_mailbox() -> None:
    broker, client = Broker(), Connection()
    broker.create("d")
    waiting = broker.wait(client, "d", "repair")
    await dead_letter(broker)
    broker.shell.advance_clock(30_000)
    (message,) = client.replies[waiting]["messages"]
    assert message["priority"] == "urgent"
    assert "key" not in message
    assert message["headers"] == {
        "X-Trace": ["7"],
        "mq9-dead-letter-from": ["a"],
        "mq9-dead-letter-group": ["g"],
        "mq9-dead-letter-msg-id": ["0"],
        "mq9-dead-letter-reason": ["max_deliveries"],
        "mq9-dead-letter-count": ["1"],
    }
    assert payloads(client.replies[waiting]) == [b"poison"]
    assert broker.shell.counters.dead_letters_delivered == 1
    assert list(broker.engine.outbox()) == []
    assert broker.fetch("a", "g") == []


async def test_a_nack_delivers_the_dead_letter_before_the_next_request() -> None:
    broker = Broker()
    broker.create("d")
    await dead_letter(broker)
    client = Connection()
    nack = {"group_name": "g", "msg_ids": [0], "delay_ms": 60_000}
    _, query = broker.send_requests(client, ("MSG.NACK.a", nack), ("MSG.QUERY.d", b""))
    assert payloads(client.replies[query]) == [b"poison"]


@pytest.mark.parametrize(("target", "reason"), [("d", "mailbox_not_found"), ("full", "mailbox_full")])
async def test_a_dead_letter_that_can_go_nowhere_is_dropped_and_counted(target: str, reason: str) -> None:
    broker = Broker(max_messages=1)
    broker.create("full")
    broker.send("full")
    await dead_letter(broker, target)
    broker.shell.advance_clock(30_000)
    assert broker.shell.counters.dead_letters_dropped == {reason: 1}
    assert broker.shell.counters.dead_letters_delivered == 0
    assert list(broker.engine.outbox()) == []


async def test_a_dead_letter_does_not_die_again() -> None:
    broker = Broker()
    broker.create("d", max_deliveries=1, dead_letter="a")
    await dead_letter(broker)
    broker.shell.advance_clock(30_000)
    assert broker.fetch("d", "g", **LEASED) == [0]
    broker.shell.advance_clock(30_000)
    assert sum(broker.shell.counters.dead_letters_dropped.values()) == 1
    assert [m["msg_id"] for m in broker.ok("MSG.QUERY.a")["messages"]] == [0]


async def test_what_is_left_in_an_outbox_is_delivered_at_the_start() -> None:
    store = MemoryStore()
    broker = Broker(Engine(store, EngineLimits()))
    broker.create("d")
    await dead_letter(broker)
    # The process ends between the lease's end and the delivery.
    Engine(store, EngineLimits()).apply(broker.clock.now_ms() + 30_000, [])
    engine = Engine(store, EngineLimits())
    assert len(list(engine.outbox())) == 1
    again = Broker(engine)
    assert len(again.ok("MSG.QUERY.d")["messages"]) == 1
    assert list(engine.outbox()) == []


async def test_a_crash_before_the_removal_delivers_the_copy_once() -> None:
    engine = FailingEngine()
    broker = Broker(engine)
    broker.create("d")
    await dead_letter(broker)
    engine.fails = lambda command: isinstance(command, OutboxRemove)
    broker.shell.advance_clock(30_000)
    assert len(list(engine.outbox())) == 1
    engine.fails = lambda _: False
    again = Broker(engine)
    assert list(engine.outbox()) == []
    assert len(again.ok("MSG.QUERY.d")["messages"]) == 1


async def test_a_dead_letter_that_the_broker_could_not_store_is_tried_again() -> None:
    engine = FailingEngine()
    broker, client = Broker(engine), Connection()
    broker.create("d")
    waiting = broker.wait(client, "d", "repair")
    await dead_letter(broker)
    engine.fails = lambda command: isinstance(command, tuple) and command[0] == b"d"
    broker.shell.advance_clock(30_000)
    assert client.replies == {}
    engine.fails = lambda _: False
    assert payloads(await client.reply(waiting)) == [b"poison"]
    assert list(engine.outbox()) == []


# Failures.


async def test_only_the_command_that_failed_is_answered_internal(caplog: pytest.LogCaptureFixture) -> None:
    engine = FailingEngine()
    broker, client = Broker(engine), Connection()
    broker.create("a")
    engine.fails = lambda command: isinstance(command, tuple) and command[3] == b"bad"
    with caplog.at_level(logging.ERROR):
        sent = broker.send_requests(client, *[("MSG.SEND.a", payload) for payload in (b"1", b"bad", b"3")])
    assert [client.replies[r].get("code") for r in sent] == [None, "internal", None]
    assert payloads(broker.ok("MSG.QUERY.a")) == [b"1", b"3"]
    assert "planted" in caplog.text
    assert "Traceback" in caplog.text
    assert broker.shell.counters.internal_errors == 1


async def test_a_failing_read_and_a_failing_waiter_hurt_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FailingEngine()
    broker, client = Broker(engine), Connection()
    broker.create("a")
    waiting = broker.wait(client, "a", "g")
    leased = broker.wait(client, "a", "g", **LEASED)

    def fail(*_: object) -> Any:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "read", fail)
        assert broker.ask("MSG.QUERY.a")["code"] == "internal"
        patch.setattr(engine, "read_fetch", fail)
        engine.fails = lambda command: not isinstance(command, tuple)
        broker.send("a")
    assert client.replies[waiting]["code"] == "internal"
    assert client.replies[leased]["code"] == "internal"
    engine.fails = lambda _: False
    assert broker.fetch("a", "g") == [0]


async def test_failing_timers_are_tried_again_without_a_busy_loop() -> None:
    engine = FailingEngine()
    shell = Shell(engine, WallClock())
    shell.start(asyncio.get_running_loop())
    client = Connection()
    shell.handle(client, [(b"$mq9.AI.MAILBOX.CREATE", b"c", None, b'{"name":"a","ttl":1}')])
    body = json.dumps(fetch_body("g", max_wait_ms=60_000)).encode()
    shell.handle(client, [(b"$mq9.AI.MSG.FETCH.a", b"1", None, body)])
    engine.ticks_fail = True
    await asyncio.sleep(1.2)
    assert shell.counters.internal_errors
    calls = engine.calls
    await asyncio.sleep(0.1)
    assert engine.calls - calls <= 2
    engine.ticks_fail = False
    assert (await client.reply(b"1"))["code"] == "mailbox_not_found"
    shell.close()


async def test_an_operation_without_a_handler_is_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "handles", lambda self, name: name != "msg.delete")
    broker = Broker()
    broker.create("a")
    assert broker.ask("MSG.DELETE.a.0")["code"] == "unsupported_operation"
    assert MsgDelete.__struct_config__.tag == "msg.delete"


# Whatever arrives, each request with a reply subject is answered exactly once, now or when its waiting ends.

NAMES = st.sampled_from(["a", "b", "A"])
BODIES = st.sampled_from(
    [
        {},
        {"name": "a"},
        {"name": "b", "ttl": 1, "max_deliveries": 1, "dead_letter": "a"},
        {"group_name": "g", "msg_id": 1},
        {"group_name": "g", "msg_ids": [0, 1]},
        {"group_name": "g", "msg_ids": [0], "lease_ms": 5, "delay_ms": 10},
        {"group_name": "g", "deliver": "earliest", "config": {"lease_ms": 1000}},
        {"group_name": "g", "deliver": "earliest"},
        {"deliver": "earliest", "config": {"max_wait_ms": 0}},
        {"group_name": "g", "force_deliver": True, "deliver": "from_id", "from_id": 1},
        {"name": "a", "mailbox": "m", "ttl": 1, "text": "word"},
        {"mailbox": "m", "text": "word", "limit": 1},
        [],
        "x",
    ]
)
SUBJECTS = st.one_of(
    st.sampled_from(
        ["MAILBOX.CREATE", "AGENT.REGISTER", "AGENT.REPORT", "AGENT.UNREGISTER", "AGENT.DISCOVER", "X"]
    ),
    st.builds(
        "{}.{}".format,
        st.sampled_from(
            [
                "MSG.SEND",
                "MSG.FETCH",
                "MSG.ACK",
                "MSG.NACK",
                "MSG.RENEW",
                "MSG.QUERY",
                "MAILBOX.INFO",
                "MAILBOX.DELETE",
            ]
        ),
        NAMES,
    ),
    st.just("MSG.DELETE.a.0"),
)
HEADERS = st.sampled_from(
    [
        None,
        None,
        b"mq9-priority: urgent",
        b"mq9-delay: 1",
        b"mq9-key: k",
        b"mq9-ttl: 1",
        b"mq9-ttl: x",
        b"\xff",
    ]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 2), st.lists(st.tuples(SUBJECTS, BODIES, HEADERS), min_size=1, max_size=5)),
        st.tuples(st.just("advance"), st.sampled_from([1, 1000, 5000])),
        st.tuples(st.just("close"), st.integers(0, 2)),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_every_request_is_answered_exactly_once(steps: list[Any]) -> None:
    async def run() -> None:
        broker = Broker()
        clients = [Connection() for _ in range(3)]
        asked: dict[Connection, set[bytes]] = {client: set() for client in clients}
        number = 0
        for first, second in steps:
            if first == "advance":
                broker.shell.advance_clock(second)
            elif first == "close":
                clients[second].is_closed = True
                broker.shell.connection_closed(clients[second])
                clients[second] = Connection()
                asked[clients[second]] = set()
            else:
                chunk = []
                for subject, body, header in second:
                    number += 1
                    block = None if header is None else b"NATS/1.0\r\n" + header + b"\r\n\r\n"
                    chunk.append(
                        (b"$mq9.AI." + subject.encode(), b"r%d" % number, block, json.dumps(body).encode())
                    )
                    asked[clients[first]].add(b"r%d" % number)
                broker.shell.handle(clients[first], chunk)
        broker.shell.shutdown()
        for client, wanted in asked.items():
            answered = set(client.replies)
            assert answered == wanted if not client.is_closed else answered <= wanted
        assert broker.shell.waiting == 0
        assert broker.shell.counters.internal_errors == 0
        assert list(broker.engine.outbox()) == []
        broker.shell.close()

    asyncio.run(run())
