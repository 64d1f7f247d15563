"""Consuming by the language's own iteration, against a scripted mailbox."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sdk_support import Mailbox, until

import mq9


async def test_iteration_gives_the_same_messages_and_acknowledges_as_it_goes_on(fake: Any) -> None:
    box = Mailbox(12)
    client, _connection = fake(box)
    seen: list[int] = []
    consumer = client.consume("a.b", "g")
    async for message in consumer:
        assert message.msg_id not in box.confirmed
        seen.append(message.msg_id)
        if len(seen) == 12:
            await consumer.stop()
    assert seen == list(range(12))
    assert box.confirmed == set(range(12))
    assert not consumer.is_running


async def test_leaving_the_loop_gives_back_what_was_not_finished(fake: Any) -> None:
    box = Mailbox(3)
    client, connection = fake(box)
    before = asyncio.all_tasks()
    async for message in client.consume("a.b", "g"):
        if message.msg_id == 1:
            break
    await until(lambda: box.leased == {})
    assert box.confirmed == {0}
    assert connection.of("msg.nack")[0].json["msg_ids"] == [1, 2]
    await until(lambda: asyncio.all_tasks() == before)


async def test_exception_in_the_body_gives_back_and_reaches_the_user(fake: Any) -> None:
    box = Mailbox(2)
    client, _ = fake(box)
    with pytest.raises(KeyError):
        async for message in client.consume("a.b", "g"):
            raise KeyError(message.msg_id)
    await until(lambda: box.leased == {})
    assert box.confirmed == set()


async def test_cancelling_an_iteration_ends_it_and_leaks_nothing(fake: Any) -> None:
    box = Mailbox(1)
    client, _ = fake(box)
    before = asyncio.all_tasks()

    async def run() -> None:
        async for _ in client.consume("a.b", "g"):
            pass

    task = asyncio.create_task(run())
    await until(lambda: box.confirmed == {0} and box.fetches == 2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    box.add(1)
    await until(lambda: box.leased == {} and asyncio.all_tasks() == before)


async def test_slow_loop_body_is_renewed(fake: Any) -> None:
    box = Mailbox(2)
    client, connection = fake(box)
    consumer = client.consume("a.b", "g", lease_ms=60)
    async for _ in consumer:
        await until(lambda: connection.of("msg.renew"))
        await consumer.stop()
    assert connection.of("msg.renew")[0].json["msg_ids"] == [0, 1]
    assert box.confirmed == {0}
    assert box.leased == {}


async def test_stop_of_an_iteration_from_another_task_waits_for_its_body(fake: Any) -> None:
    box = Mailbox(2)
    client, _ = fake(box)
    consumer = client.consume("a.b", "g")
    release = asyncio.Event()
    started = asyncio.Event()

    async def run() -> None:
        async for _ in consumer:
            started.set()
            await release.wait()

    task = asyncio.create_task(run())
    await started.wait()
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    release.set()
    await asyncio.gather(task, stopping)
    assert box.confirmed == {0}
    assert box.leased == {}


async def test_closing_the_client_inside_a_loop_does_not_wait_for_itself(fake: Any) -> None:
    box = Mailbox(3)
    client, _ = fake(box)
    seen = 0
    async for _ in client.consume("a.b", "g"):
        seen += 1
        await client.aclose()
    assert seen == 1


async def test_a_consumer_is_either_iterated_or_has_a_handler(fake: Any) -> None:
    client, _ = fake(Mailbox())

    async def handle(message: mq9.Message) -> None: ...

    with_handler = client.consume("a.b", "g", handle)
    with pytest.raises(mq9.InvalidArgumentError):
        aiter(with_handler)
    await with_handler.stop()
    without = client.consume("a.b", "g")
    with pytest.raises(mq9.InvalidArgumentError):
        await without
    await without.stop()


async def test_message_that_consume_did_not_bring_says_what_to_use(fake: Any) -> None:
    client, _ = fake({"error": "", "messages": [{"msg_id": 7}]})
    result = await client.fetch("a.b", group_name="g")
    with pytest.raises(mq9.InvalidArgumentError, match="message 7 did not come from consume"):
        await result.messages[0].ack()


async def test_cancellation_of_a_loop_that_is_being_stopped_is_not_swallowed(fake: Any) -> None:
    for steps in range(30):
        box = Mailbox(1)
        client, _ = fake(box)
        consumer = client.consume("a.b", "g")

        async def run(consumer: mq9.Consumer = consumer) -> None:
            async for _ in consumer:
                pass
            await asyncio.sleep(60)

        task = asyncio.create_task(run())
        await until(lambda box=box: box.confirmed == {0} and box.fetches == 2)
        stopping = asyncio.create_task(consumer.stop())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, f"swallowed after {steps} steps"
        assert task.cancelled()
        await stopping
        await client.aclose()


@pytest.mark.parametrize("ending", ["stop", "close", "leave"])
async def test_an_iterator_that_was_never_advanced_keeps_nothing_from_ending(fake: Any, ending: str) -> None:
    client, connection = fake(Mailbox(3))
    consumer = client.consume("a.b", "g")
    iterator = aiter(consumer)
    if ending == "stop":
        await asyncio.wait_for(consumer.stop(), 10)
    elif ending == "leave":
        await asyncio.wait_for(consumer.__aexit__(None, None, None), 10)
    else:
        await asyncio.wait_for(client.aclose(), 10)
    assert not consumer.is_running
    assert [message async for message in iterator] == []
    assert connection.of("msg.fetch") == []
