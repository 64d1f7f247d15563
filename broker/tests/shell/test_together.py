"""Requests of several connections at once: what comes out is what comes out one by one."""

import asyncio
import json
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from .support import PREFIX, Broker, Connection, fetch_body

Request = tuple[bytes, bytes, bytes | None, bytes]

# Few different ones, so that most are known to the shell when they come again.
MAILBOXES = st.sampled_from(["a", "a", "a", "b"])
GROUPS = st.sampled_from(["g", "h"])
IDS = st.integers(0, 12)


def _fetch(group: str, lease_ms: int, num_msgs: int, max_wait_ms: int, reset: bool) -> dict[str, Any]:
    body = fetch_body(
        group, lease_ms=lease_ms, num_msgs=num_msgs, max_wait_ms=max_wait_ms, deliver="earliest"
    )
    return body | {"force_deliver": True} if reset else body


FETCHES = st.builds(
    _fetch,
    GROUPS,
    st.sampled_from([0, 1000]),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 0, 500]),
    st.sampled_from([False] * 9 + [True]),
)
ACKS = st.one_of(
    st.builds(lambda group, msg_id: {"group_name": group, "msg_id": msg_id}, GROUPS, IDS),
    st.builds(
        lambda group, first, count: {"group_name": group, "msg_ids": list(range(first, first + count))},
        GROUPS,
        IDS,
        st.integers(1, 4),
    ),
)
HEADERS = st.sampled_from([None, None, None, b"NATS/1.0\r\nmq9-priority: urgent\r\n\r\n"])
ONE = st.one_of(
    st.tuples(st.just("MSG.SEND."), MAILBOXES, st.just("x"), HEADERS),
    st.tuples(st.just("MSG.FETCH."), MAILBOXES, FETCHES, st.none()),
    st.tuples(st.just("MSG.ACK."), MAILBOXES, ACKS, st.none()),
    st.tuples(st.just("MSG.NACK."), MAILBOXES, ACKS.filter(lambda body: "msg_ids" in body), st.none()),
)
PART = st.tuples(
    st.integers(0, 4),
    st.one_of(
        ONE.map(lambda one: [one]),
        st.integers(1, 4).map(lambda count: [("MSG.SEND.", "a", "x", None)] * count),
        st.lists(ONE, min_size=1, max_size=3),
    ),
)
ROUNDS = st.lists(
    st.tuples(
        st.lists(PART, min_size=1, max_size=5, unique_by=lambda part: part[0]),
        st.sampled_from([0, 0, 400, 1500]),
    ),
    max_size=8,
)


class _Side:
    """A broker, and clients that all sent something before."""

    def __init__(self) -> None:
        self.broker = Broker()
        self.clients = [Connection() for _ in range(5)]
        for name in ("a", "b"):
            self.broker.create(name)
            self.broker.send(name)
        self.names = {id(client): number for number, client in enumerate(self.clients)}

    def told(self) -> list[Any]:
        """All that the clients were told, each in its order."""
        return [
            [(reply_to, client.replies[reply_to]) for reply_to in client.order] for client in self.clients
        ]

    def state(self) -> list[Any]:
        return [
            self.broker.ok("MAILBOX.INFO.a"),
            self.broker.ok("MAILBOX.INFO.b"),
            self.broker.ok("MSG.QUERY.a", {"limit": 100}),
        ]


# Whoever waits is served by the first of two clients that send.
@example(
    [
        ([(0, [("MSG.FETCH.", "a", _fetch("h", 0, 3, 500, False), None)] * 2)], 0),
        ([(0, [("MSG.SEND.", "a", "x", None)]), (1, [("MSG.SEND.", "a", "x", None)])], 0),
    ]
)
@example(
    [
        ([(0, [("MSG.FETCH.", "a", _fetch("h", 1000, 1, 0, False), None)])], 0),
        ([(0, [("MSG.FETCH.", "a", _fetch("h", 0, 3, 500, False), None)])], 0),
        ([(0, [("MSG.SEND.", "a", "x", None)]), (1, [("MSG.SEND.", "a", "x", None)])], 0),
    ]
)
@given(ROUNDS)
@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_together_and_one_by_one_are_the_same(rounds: list[Any]) -> None:
    async def run() -> None:
        together, one_by_one = _Side(), _Side()
        number = 0
        for parts, pause_ms in rounds:
            chunks: list[tuple[int, list[Request]]] = []
            for client, wanted in parts:
                requests = []
                for operation, name, body, headers in wanted:
                    number += 1
                    payload = json.dumps(body).encode()
                    requests.append((PREFIX + (operation + name).encode(), b"%d" % number, headers, payload))
                chunks.append((client, requests))
            done = together.broker.shell.handle_all(
                [(together.clients[client], requests) for client, requests in chunks]
            )
            assert done == [len(requests) for _, requests in chunks]
            for client, requests in chunks:
                one_by_one.broker.shell.handle(one_by_one.clients[client], requests)
            assert together.told() == one_by_one.told()
            for side in (together, one_by_one):
                side.broker.shell.advance_clock(pause_ms)
        assert together.state() == one_by_one.state()
        for side in (together, one_by_one):
            side.broker.shell.shutdown()
            assert side.broker.shell.counters.internal_errors == 0
            side.broker.shell.close()
        assert together.told() == one_by_one.told()
        assert together.broker.shell.meter.failed == one_by_one.broker.shell.meter.failed
        counts = [
            {name: histogram.count for name, histogram in side.broker.shell.meter.durations.items()}
            for side in (together, one_by_one)
        ]
        assert counts[0] == counts[1]

    asyncio.run(run())
