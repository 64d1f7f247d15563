"""Bounds of the listener, and attempts to make the broker work or remember too much."""

import asyncio
import itertools
import socket
import time

import pytest

from mq9_broker.transport import ListenerOptions
from mq9_broker.transport import connection as under_test

from .support import PLAIN, TIMEOUT, eventually, serving


async def test_subscriptions_of_a_client_are_bounded() -> None:
    async with serving(ListenerOptions(max_subscriptions=3)) as served:
        client, other = await served.client(), await served.client()
        exceeded = b"-ERR 'maximum subscriptions exceeded'\r\n"
        got = await client.ask(b"".join(b"SUB a %d\r\n" % number for number in range(5)))
        assert got == exceeded * 2
        assert await other.ask(b"SUB a 1\r\n") == b""
        assert await client.ask(b"UNSUB 1\r\nSUB b 9\r\nSUB b 9\r\nPUB b 0\r\n\r\n") == b"MSG b 9 0\r\n\r\n"
        assert await client.ask(b"SUB c 10\r\n") == exceeded


async def test_connections_are_bounded() -> None:
    async with serving(ListenerOptions(max_connections=2)) as served:
        clients = [await served.client() for _ in range(2)]
        assert await clients[1].ask(b"") == b""
        refused = await served.client()
        assert await refused.rest() == b"-ERR 'maximum connections exceeded'\r\n"
        assert await clients[0].ask(b"") == b""


@pytest.mark.parametrize("sid", [b"9" * 65, b"x" * 4000, b"\xff" * 100])
async def test_absurd_sids(sid: bytes) -> None:
    async with serving() as served:
        bystander, client = await served.client(), await served.client()
        assert await client.refused(b"SUB a %b\r\n" % sid) == b"-ERR 'Invalid Subscription Identifier'\r\n"
        assert await bystander.ask(b"SUB a %b\r\nPUB a 0\r\n\r\n" % (b"9" * 64)) == b"MSG a %b 0\r\n\r\n" % (
            b"9" * 64
        )


async def test_subjects_of_endless_tokens() -> None:
    async with serving() as served:
        client = await served.client()
        long = b".".join([b"a"] * 129)
        assert (
            await client.ask(b"SUB %b.* 1\r\n" % long)
            == b"-ERR 'subject has exceeded number of tokens limit'\r\n"
        )
        assert await client.ask(b"SUB %b 1\r\n" % long[2:]) == b""


@pytest.mark.parametrize(
    "data",
    [
        b"HPUB $mq9.AI.X r 1048000 1048576\r\n" + b"a: b\r\n" * 174_762 + b"abcd\r\n",
        b"HPUB a 1048576 1048576\r\nNATS/1.0\r\n" + b"a" * 1048566 + b"\r\n",
        b"HPUB a 4 4\r\nNATS\r\n",
    ],
)
async def test_header_bombs(data: bytes) -> None:
    async with serving() as served:
        bystander, client = await served.client(), await served.client()
        client.send(data)
        assert await client.ask(b"") == b""  # they are bytes like others, and nobody looks into them here
        assert await bystander.ask(b"SUB b 1\r\nPUB b 0\r\n\r\n") == b"MSG b 1 0\r\n\r\n"


async def test_others_have_their_turn_while_one_asks_for_much_work() -> None:
    """A trie of wildcards that each of a thousand messages has to be looked up in."""
    async with serving() as served:
        attacker, other = await served.client(), await served.client()
        subjects = [b".".join(parts) for parts in itertools.product((b"a", b"*"), repeat=11)]
        await attacker.ask(b"".join(b"SUB %b.end %d\r\n" % (s, n) for n, s in enumerate(subjects)))
        turns: list[float] = []
        carry_out = under_test.Connection._carry_out

        def timed(self: under_test.Connection, events: list[object]) -> None:
            began = time.thread_time()
            carry_out(self, events)  # type: ignore[arg-type]
            turns.append(time.thread_time() - began)

        under_test.Connection._carry_out = timed  # type: ignore[assignment,method-assign]
        try:
            flood = b"".join(b"PUB %b.%d 0\r\n\r\n" % (b".".join([b"a"] * 11), n) for n in range(2000))
            attacker.send(flood + b"PING\r\n")
            await asyncio.sleep(0)
            for _ in range(20):
                assert (
                    await other.ask(b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1\r\na\r\n")
                    == b"MSG in.1 1 3\r\n<a>\r\n"
                )
            await attacker.until(b"PONG\r\n")
        finally:
            under_test.Connection._carry_out = carry_out  # type: ignore[method-assign]
        # The work was cut into many pieces (each ends at the first look at the clock after its turn).
        assert sum(turns) < 0.05 or len(turns) > 30 + sum(turns) / 0.2


async def test_a_flood_of_connections_that_say_nothing() -> None:
    async with serving(ListenerOptions(max_connections=50)) as served:
        client = await served.client()
        assert await client.ask(b"SUB in.* 1\r\n") == b""
        silent = []
        for _ in range(200):
            sock = socket.create_connection(("127.0.0.1", served.port), TIMEOUT)
            silent.append(sock)
            if len(silent) % 20 == 0:
                assert await client.ask(b"PUB $mq9.AI.X in.1 1\r\na\r\n") == b"MSG in.1 1 3\r\n<a>\r\n"
        for sock in silent:
            sock.close()
        await eventually(lambda: len(list(served.listener.connections)) == 1)
        assert await (await served.client(PLAIN)).ask(b"") == b""
