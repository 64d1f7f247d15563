"""What goes wrong elsewhere, tried against the real broker: consumers, leases, restarts, cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sdk_support import until

import mq9
from mq9._generated import constants

FAST = {"reconnect_wait": 0.02, "reconnect_wait_max": 0.1}


@pytest.fixture
async def client(broker: Any) -> AsyncIterator[mq9.Client]:
    async with await mq9.connect(broker.url, **FAST) as client:
        yield client


@pytest.fixture
async def box(client: mq9.Client) -> str:
    return await client.mailbox_create()


async def group(client: mq9.Client, box: str) -> tuple[int, int]:
    """Pending and leased messages of the group."""
    groups = (await client.mailbox_info(box)).groups
    return (groups[0].pending, groups[0].leased) if groups else (-1, -1)


async def test_every_operation_once(client: mq9.Client, box: str) -> None:
    assert (
        await client.send(box, {"job": 1}, priority="urgent", key="k", tags=["a"], headers={"x-h": "v"}) == 0
    )
    assert await client.send(box, "later", delay=60) == -1
    result = await client.fetch(box, group_name="g", deliver="earliest", lease_ms=30000)
    message = result.messages[0]
    assert (message.json(), message.priority, message.key, message.tags) == ({"job": 1}, "urgent", "k", ["a"])
    assert message.headers is not None
    assert message.headers["x-h"] == ["v"]
    assert message.delivery_count == 1
    assert result.lease_id
    assert await client.renew(box, "g", [0], lease_ms=60000, lease_id=result.lease_id) == [0]
    await client.nack(box, "g", [0], lease_id=result.lease_id)
    assert (await client.fetch(box, group_name="g", max_wait_ms=0)).messages[0].msg_id == 0
    await client.ack(box, "g", 0)
    assert (await client.fetch(box, group_name="g", max_wait_ms=0)).messages == []
    info = await client.mailbox_info(box)
    assert (info.delayed, info.messages.urgent, info.groups[0].group_name) == (1, 1, "g")
    assert [found.msg_id for found in await client.query(box, tags=["a"], key="k")] == [0]
    assert await client.delete(box, 0) is True
    with pytest.raises(mq9.MessageNotFoundError):
        await client.delete(box, 0)
    assert await client.mailbox_delete(box) is True
    with pytest.raises(mq9.MailboxNotFoundError):
        await client.send(box, "x")


async def test_registry(client: mq9.Client) -> None:
    async with client.agent_keep_alive(
        "sdk-translator", mailbox="t.inbox", card={"skills": [{"id": "übersetzen"}]}
    ):
        found = await client.agent_discover("übersetzen")
        assert found.agents[0]["name"] == "sdk-translator"
        assert found.meta is not None
        assert found.meta[0].score is not None
        await client.agent_report("sdk-translator", report_info="idle", status={"load": 1})
        about = (await client.agent_discover("übersetzen")).meta
        assert about is not None
        assert about[0].status == {"report_info": "idle", "load": 1}
    assert (await client.agent_discover("übersetzen")).agents == []
    with pytest.raises(mq9.AgentNotFoundError):
        await client.agent_report("sdk-translator")


async def test_handler_fails_and_the_message_comes_again_after_its_delay(
    client: mq9.Client, box: str, broker: Any
) -> None:
    seen: list[tuple[int, int | None]] = []

    async def handle(message: mq9.Message) -> None:
        seen.append((message.msg_id, message.delivery_count))
        if message.msg_id == 3 and message.delivery_count == 1:
            raise ValueError("not yet")

    for number in range(5):
        await client.send(box, str(number))
    consumer = client.consume(box, "g", handle, deliver="earliest", on_error=lambda *_: None)
    await until(lambda: len(seen) == 5)
    await until(lambda: consumer.stats.given_back == 1)
    assert seen[-1] == (4, 1)
    await broker.advance(999)
    await asyncio.sleep(0.05)
    assert len(seen) == 5
    await broker.advance(1)
    await until(lambda: (3, 2) in seen)
    await consumer.stop()
    assert await group(client, box) == (0, 0)


async def test_stop_during_a_waiting_fetch_leaves_no_message_leased_to_nobody(
    client: mq9.Client, box: str
) -> None:
    async def handle(message: mq9.Message) -> None:
        raise AssertionError("it was stopped before")

    consumer = client.consume(box, "g", handle)
    await until(lambda: _has_group(client, box))
    await consumer.stop()
    await client.send(box, "x")
    await until(lambda: _is(client, box, (1, 0)))
    result = await client.fetch(box, group_name="g", lease_ms=1000)
    assert result.messages[0].text() == "x"


async def _has_group(client: mq9.Client, box: str) -> bool:
    return bool((await client.mailbox_info(box)).groups)


async def _is(client: mq9.Client, box: str, expected: tuple[int, int]) -> bool:
    return await group(client, box) == expected


@pytest.mark.parametrize("count", [0, 1, 3])
async def test_cancelled_fetch_leaves_no_message_leased_to_nobody(
    client: mq9.Client, box: str, count: int
) -> None:
    await client.fetch(box, group_name="g", lease_ms=60000, max_wait_ms=0)
    fetch = asyncio.create_task(client.fetch(box, group_name="g", lease_ms=60000, max_wait_ms=2000))
    await asyncio.sleep(0.02)
    fetch.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetch
    await asyncio.gather(*(client.send(box, str(number)) for number in range(count)))
    await until(lambda: _is(client, box, (count, 0)))


async def test_fetch_that_is_cancelled_at_any_moment_loses_nothing(client: mq9.Client, box: str) -> None:
    await client.fetch(box, group_name="g", lease_ms=60000, max_wait_ms=0)
    for turn in range(60):
        await client.send(box, str(turn))
        fetch = asyncio.create_task(client.fetch(box, group_name="g", lease_ms=60000, max_wait_ms=0))
        for _ in range(turn % 12):
            await asyncio.sleep(0)
        if turn % 5 == 4:
            await asyncio.sleep(0.0005 * (turn % 7))
        fetch.cancel()
        try:
            result = await fetch
        except asyncio.CancelledError:
            continue
        if result.messages:
            await client.nack(box, "g", [m.msg_id for m in result.messages], lease_id=result.lease_id or "")
    await until(lambda: _is(client, box, (60, 0)))


async def test_late_nack_does_not_touch_the_next_workers_lease(
    client: mq9.Client, box: str, broker: Any
) -> None:
    await client.send(box, "job")
    slow = asyncio.Event()
    messages: list[mq9.Message] = []

    async def first(message: mq9.Message) -> None:
        messages.append(message)
        await slow.wait()
        raise ValueError("too late")

    # Renewals are not due within this test: the lease of the first worker just runs out.
    one = client.consume(box, "g", first, deliver="earliest", lease_ms=3_600_000, on_error=lambda *_: None)
    await until(lambda: messages)
    await broker.advance(3_600_000)
    other = await client.fetch(box, group_name="g", lease_ms=60000)
    assert other.messages[0].delivery_count == 2
    one_stopped = asyncio.create_task(one.stop())
    slow.set()
    await one_stopped
    assert await group(client, box) == (0, 1)
    assert await client.renew(box, "g", [0], lease_id=other.lease_id or "", lease_ms=60000) == [0]
    assert await messages[0].renew() is False


async def test_slow_handler_keeps_its_message(client: mq9.Client, box: str, broker: Any) -> None:
    await client.send(box, "job")
    handled: list[int] = []

    async def handle(message: mq9.Message) -> None:
        # The real clock renews (every 100 ms), the broker's clock moves on by less than the lease at a time.
        for _ in range(5):
            await asyncio.sleep(0.15)
            await broker.advance(250)
        handled.append(message.delivery_count or 0)

    consumer = client.consume(box, "g", handle, deliver="earliest", lease_ms=300)
    await until(lambda: handled)
    await consumer.stop()
    assert handled == [1]
    assert await group(client, box) == (0, 0)


async def test_two_workers_of_a_group_share_and_never_both_get_a_message(broker: Any, box: str) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}

    def handler(name: str) -> mq9.Handler:
        async def handle(message: mq9.Message) -> None:
            await asyncio.sleep(0.001)
            seen[name].append(message.msg_id)

        return handle

    async with await mq9.connect(broker.url) as one, await mq9.connect(broker.url) as two:
        await asyncio.gather(*(one.send(box, str(number)) for number in range(200)))
        async with (
            one.consume(box, "g", handler("a"), deliver="earliest"),
            two.consume(box, "g", handler("b"), deliver="earliest"),
        ):
            await until(lambda: len(seen["a"]) + len(seen["b"]) == 200)
        assert sorted(seen["a"] + seen["b"]) == list(range(200))
        assert seen["a"]
        assert seen["b"]


async def test_broker_restart_during_consume(start_broker: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(constants, "CONSUME_FETCH_PAUSE_MS", 20)
    broker = start_broker()
    seen: list[str] = []

    async def handle(message: mq9.Message) -> None:
        seen.append(message.text())

    async with await mq9.connect(broker.url, **FAST) as client:
        await client.mailbox_create("box")
        consumer = client.consume("box", "g", handle, deliver="earliest", on_error=lambda *_: None)
        await client.send("box", "before")
        # The broker dies while a FETCH waits: the message is acknowledged, and one call is under way again.
        await until(lambda: consumer.stats.acknowledged == 1 and len(client._calls) == 1)
        broker.kill()
        await until(lambda: not client.is_connected)
        again = start_broker(port=broker.port)
        await client.mailbox_create("box")
        await client.send("box", "after")

        # `deliver` was only for the group's first FETCH: the new group starts at its own first FETCH.
        async def sent_and_seen() -> bool:
            await client.send("box", "after")
            return "after" in seen

        await until(sent_and_seen)
        assert consumer.is_running
        assert consumer.stats.failed_fetches > 0
        await consumer.stop()
        again.stop()


async def test_waiting_fetch_is_answered_at_once_not_by_a_sleep(client: mq9.Client, box: str) -> None:
    fetch = asyncio.create_task(client.fetch(box, group_name="g", max_wait_ms=300_000))
    await until(lambda: _has_group(client, box))
    await client.send(box, "x")
    assert (await asyncio.wait_for(fetch, 20)).messages[0].text() == "x"


async def test_wait_longer_than_the_timeout_is_no_timeout(broker: Any, box: str) -> None:
    async with await mq9.connect(broker.url, timeout=0.5) as client:
        result = await client.fetch(box, group_name="g", max_wait_ms=1200)
        assert result.messages == []


async def test_waiting_calls_do_not_hold_up_others(client: mq9.Client, box: str) -> None:
    fetches = [asyncio.create_task(client.fetch(box, max_wait_ms=60000)) for _ in range(500)]
    await asyncio.sleep(0.05)
    await client.send(box, "x")
    results = await asyncio.gather(*fetches)
    assert all([message.text() for message in result.messages] == ["x"] for result in results)


async def test_closing_with_a_waiting_consumer_is_prompt_and_leaves_nothing_leased(
    broker: Any, box: str
) -> None:
    async def handle(message: mq9.Message) -> None: ...

    async with await mq9.connect(broker.url) as other:
        client = await mq9.connect(broker.url)
        client.consume(box, "g", handle, max_wait_ms=60000)
        await until(lambda: _has_group(other, box))
        await asyncio.wait_for(client.aclose(), 10)
        # The broker sees the end of one connection before the beginning of the next.
        async with await mq9.connect(broker.url) as witness:
            await witness.query(box)
        await other.send(box, "x")
        await until(lambda: _is(other, box, (1, 0)))


async def test_payloads_come_back_bit_for_bit(client: mq9.Client, box: str) -> None:
    payloads = [
        b"",
        b"task",
        b"12345678",
        b"\x00\xff\xfe",
        bytes(range(256)),
        "你好 🎉".encode(),
        b"\r\n+OK\r\n",
    ]
    for payload in payloads:
        await client.send(box, payload)
    assert [message.payload for message in await client.query(box)] == payloads
    result = await client.fetch(box, deliver="earliest")
    assert [message.payload for message in result.messages] == payloads


async def test_send_retried_after_a_lost_reply_is_stored_once(start_broker: Any) -> None:
    broker = start_broker()
    swallow = True

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, downstream: bool) -> None:
        nonlocal swallow
        try:
            while data := await reader.read(65536):
                if downstream and b'"msg_id"' in data and swallow:
                    swallow = False
                    break
                writer.write(data)
        except ConnectionError:
            pass
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", broker.port)
        await asyncio.gather(
            pipe(reader, inner_writer, downstream=False), pipe(inner_reader, writer, downstream=True)
        )
        writer.transport.abort()

    proxy = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = proxy.sockets[0].getsockname()[1]
    async with await mq9.connect(f"127.0.0.1:{port}", **FAST) as client:
        await client.mailbox_create("box")
        assert await client.send("box", "once", retry=True) == 0
        assert swallow is False
        assert [message.text() for message in await client.query("box")] == ["once"]
    proxy.close()
    broker.stop()
