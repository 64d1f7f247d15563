"""A public client library (nats-py) against the listener: it should notice no difference to a NATS server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
import nats.errors
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from .support import Served, eventually, serving


@asynccontextmanager
async def connected(served: Served, **options: object) -> AsyncIterator[Client]:
    client = await nats.connect(served.url, **options)
    try:
        yield client
    finally:
        if not client.is_closed:
            await client.close()


async def test_publish_and_subscribe_with_headers() -> None:
    async with serving() as served, connected(served) as client, connected(served) as other:
        subscription = await client.subscribe("orders.*.new")
        await client.flush()
        await other.publish("orders.eu.new", b"\x00\xff", headers={"Trace": "1", "Kind": "a b"})
        message = await subscription.next_msg(5)
        assert (message.subject, message.data) == ("orders.eu.new", b"\x00\xff")
        assert message.headers == {"Trace": "1", "Kind": "a b"}


@pytest.mark.parametrize("old_style", [False, True])
async def test_request_and_reply(old_style: bool) -> None:
    async with serving() as served, connected(served) as client, connected(served) as service:

        async def respond(message: Msg) -> None:
            await message.respond(b"re: " + message.data)

        await service.subscribe("service", queue="workers", cb=respond)
        await service.flush()
        for number in range(20):
            reply = await client.request("service", b"%d" % number, timeout=5, old_style=old_style)
            assert reply.data == b"re: %d" % number


async def test_no_responders() -> None:
    async with serving() as served, connected(served) as client:
        with pytest.raises(nats.errors.NoRespondersError):
            await client.request("nobody", b"", timeout=5)


@pytest.mark.parametrize("old_style", [False, True])
async def test_mq9_requests(old_style: bool) -> None:
    async with serving() as served, connected(served) as client, connected(served) as spy:
        seen: list[Msg] = []

        async def see(message: Msg) -> None:
            seen.append(message)

        await spy.subscribe(">", cb=see)
        await spy.flush()
        replies = await asyncio.gather(
            *(
                client.request("$mq9.AI.MSG.SEND.box", b"%d" % number, timeout=5, old_style=old_style)
                for number in range(200)
            )
        )
        assert [reply.data for reply in replies] == [b"<%d>" % number for number in range(200)]
        reply = await client.request(
            "$mq9.AI.MSG.SEND.box", b"x", timeout=5, headers={"mq9-priority": "urgent"}
        )
        assert reply.data == b"<x>"
        assert served.handler.requests[-1][2] == b"NATS/1.0\r\nmq9-priority: urgent\r\n\r\n"
        await spy.flush()
        assert seen == []


async def test_queue_groups() -> None:
    async with serving() as served, connected(served) as one, connected(served) as two:
        counts = [0, 0]

        def counter(which: int) -> object:
            async def count(_: Msg) -> None:
                counts[which] += 1

            return count

        await one.subscribe("work", queue="team", cb=counter(0))  # type: ignore[arg-type]
        await two.subscribe("work", queue="team", cb=counter(1))  # type: ignore[arg-type]
        await one.flush()
        await two.flush()
        for _ in range(100):
            await one.publish("work", b"")
        await one.flush()
        await eventually(lambda: sum(counts) == 100)
        assert min(counts) > 10


async def test_unsubscribe_after_some_messages() -> None:
    async with serving() as served, connected(served) as client:
        subscription = await client.subscribe("few")
        await subscription.unsubscribe(limit=3)
        for _ in range(5):
            await client.publish("few", b"x")
        await client.flush()
        assert [(await subscription.next_msg(5)).data for _ in range(3)] == [b"x"] * 3
        with pytest.raises((nats.errors.TimeoutError, nats.errors.BadSubscriptionError)):
            await subscription.next_msg(0.2)


async def test_drain() -> None:
    async with serving() as served, connected(served) as client, connected(served) as sender:
        received: list[bytes] = []

        async def slow(message: Msg) -> None:
            await asyncio.sleep(0.01)
            received.append(message.data)

        await client.subscribe("jobs", cb=slow)
        await client.flush()
        for number in range(20):
            await sender.publish("jobs", b"%d" % number)
        await sender.flush()
        await client.drain()
        assert received == [b"%d" % number for number in range(20)]
        await eventually(lambda: len(list(served.listener.connections)) == 1)


async def test_verbose_and_pedantic() -> None:
    async with serving() as served, connected(served, verbose=True, pedantic=True) as client:
        subscription = await client.subscribe("a.*")
        await client.publish("a.b", b"hello")
        await client.flush()
        assert (await subscription.next_msg(5)).data == b"hello"
        assert (await client.request("$mq9.AI.MAILBOX.CREATE", b"{}", timeout=5)).data == b"<{}>"


async def test_reconnects_to_a_broker_that_comes_back() -> None:
    async with serving() as served:
        port = served.port
        reconnected = asyncio.Event()

        async def on_reconnect() -> None:
            reconnected.set()

        async def ignore(_: Exception) -> None:
            pass

        options = {"reconnect_time_wait": 0.05, "max_reconnect_attempts": -1, "reconnected_cb": on_reconnect}
        async with connected(served, error_cb=ignore, **options) as client:
            subscription = await client.subscribe("a")
            await client.flush()
            await served.listener.close(0.1)
            served.listener._is_lame_duck = False
            await served.listener.start("127.0.0.1", port)
            await asyncio.wait_for(reconnected.wait(), 10)
            await client.publish("a", b"again")
            assert (await subscription.next_msg(5)).data == b"again"
