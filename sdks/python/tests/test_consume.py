"""The consume loop against a scripted mailbox: every requirement, and what goes wrong elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sdk_support import Mailbox, until

import mq9
from mq9._generated import constants


async def test_handler_gets_every_message_in_order_and_each_is_acknowledged_alone(fake: Any) -> None:
    box = Mailbox(25)
    client, connection = fake(box)
    seen: list[int] = []

    async def handle(message: mq9.Message) -> None:
        seen.append(message.msg_id)
        assert message.text() == str(message.msg_id)

    consumer = client.consume("a.b", "g", handle)
    await until(lambda: len(box.confirmed) == 25)
    await consumer.stop()

    assert seen == list(range(25))
    acks = [request.json for request in connection.of("msg.ack")]
    assert acks == [{"mail_address": "a.b", "group_name": "g", "msg_id": i} for i in range(25)]
    first = connection.of("msg.fetch")[0].json
    assert first == {"group_name": "g", "config": {"num_msgs": 10, "max_wait_ms": 5000, "lease_ms": 30000}}
    assert connection.of("msg.fetch")[0].timeout == pytest.approx(10.0)
    assert consumer.stats.acknowledged == 25
    assert not consumer.is_running


@pytest.mark.parametrize("group", ["", None, 5, "x" * 257, "a\nb"])
async def test_consume_without_a_group_fails_before_anything_is_sent(fake: Any, group: Any) -> None:
    client, connection = fake({"error": ""})
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        client.consume("a.b", group, None)
    assert (caught.value.field, caught.value.kind) == ("group_name", "invalid_argument")
    assert connection.requests == []


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("num_msgs", 0),
        ("num_msgs", 1001),
        ("max_wait_ms", 300001),
        ("lease_ms", 0),
        ("concurrency", 0),
        ("auto_ack", 1),
        ("from_id", -1),
        ("timeout", 0),
        ("handler", "no function"),
    ],
)
async def test_consume_checks_its_options_before_anything_is_sent(fake: Any, option: str, value: Any) -> None:
    client, connection = fake({"error": ""})
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        client.consume("a.b", "g", **{option: value})
    assert caught.value.field == option
    assert connection.requests == []


async def test_consume_from_time_needs_its_field(fake: Any) -> None:
    client, connection = fake({"error": ""})
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        client.consume("a.b", "g", deliver="from_time")
    assert caught.value.field == "from_time"
    assert connection.requests == []


async def test_failed_message_is_given_back_after_the_error_hook_and_comes_again(fake: Any) -> None:
    box = Mailbox(5)
    client, connection = fake(box)
    reported: list[tuple[str, int]] = []
    events: list[str] = []

    async def handle(message: mq9.Message) -> None:
        if message.msg_id == 3 and message.delivery_count == 1:
            raise ValueError("three")

    def hook(error: Exception, message: mq9.Message | None) -> None:
        assert message is not None
        reported.append((str(error), message.msg_id))
        events.append(f"hook, {len(connection.of('msg.nack'))} given back")

    consumer = client.consume("a.b", "g", handle, on_error=hook)
    await until(lambda: box.confirmed == {0, 1, 2, 3, 4})
    await consumer.stop()

    assert reported == [("three", 3)]
    assert events == ["hook, 0 given back"]
    assert [request.json for request in connection.of("msg.nack")] == [
        {"mail_address": "a.b", "group_name": "g", "msg_ids": [3], "lease_id": "L1", "delay_ms": 1000}
    ]
    assert [request.json["msg_id"] for request in connection.of("msg.ack")] == [0, 1, 2, 4, 3]
    assert consumer.stats.failed == 1


@pytest.mark.parametrize(
    ("count", "delay"), [(0, 1000), (1, 1000), (2, 2000), (6, 32000), (7, 60000), (8, 60000), (2**40, 60000)]
)
def test_delay_of_a_nack_doubles_up_to_a_minute(count: int, delay: int) -> None:
    from mq9._consume import nack_delay_ms

    assert nack_delay_ms(count) == delay


async def test_error_hook_that_fails_does_not_end_the_loop(fake: Any, caplog: Any) -> None:
    box = Mailbox(3)
    client, _ = fake(box)

    async def handle(message: mq9.Message) -> None:
        if message.msg_id == 1 and message.delivery_count == 1:
            raise ValueError

    async def hook(error: Exception, message: mq9.Message | None) -> None:
        raise RuntimeError("the hook is broken")

    consumer = client.consume("a.b", "g", handle, on_error=hook)
    await until(lambda: len(box.confirmed) == 3)
    await consumer.stop()
    assert "the error hook failed" in caplog.text


async def test_ack_that_fails_is_reported_once_and_the_message_comes_again(fake: Any) -> None:
    box = Mailbox(2)
    box.fail("msg.ack", {"error": "internal error: disk", "code": "internal"})
    client, connection = fake(box)
    reported: list[tuple[str | None, int]] = []

    async def handle(message: mq9.Message) -> None:
        pass

    def hook(error: Exception, message: mq9.Message | None) -> None:
        assert isinstance(error, mq9.Mq9Error)
        assert message is not None
        reported.append((error.code, message.msg_id))

    consumer = client.consume("a.b", "g", handle, on_error=hook)
    await until(lambda: box.confirmed == {1})
    box.leased.clear()  # Its lease is over.
    box.arrived.set()
    await until(lambda: box.confirmed == {0, 1})
    await consumer.stop()

    assert reported == [("internal", 0)]
    assert box.counts == {0: 2, 1: 1}
    assert consumer.stats.failed_acks == 1
    assert connection.of("msg.nack") == []


async def test_unfinished_messages_are_renewed_every_third_of_the_lease(fake: Any) -> None:
    box = Mailbox(3)
    client, connection = fake(box)
    release = asyncio.Event()

    async def handle(message: mq9.Message) -> None:
        if message.msg_id == 1:
            await release.wait()

    consumer = client.consume("a.b", "g", handle, lease_ms=60)
    await until(lambda: len(connection.of("msg.renew")) >= 2)
    release.set()
    await until(lambda: len(box.confirmed) == 3)
    count = len(connection.of("msg.renew"))
    await asyncio.sleep(0.1)
    await consumer.stop()

    body = connection.of("msg.renew")[0].json
    assert body == {
        "mail_address": "a.b",
        "group_name": "g",
        "msg_ids": [1, 2],
        "lease_id": "L1",
        "lease_ms": 60,
    }
    assert len(connection.of("msg.renew")) == count


async def test_concurrency_bounds_handlers_and_widens_the_batch(fake: Any) -> None:
    box = Mailbox(40)
    client, connection = fake(box)
    running = 0
    most = 0

    async def handle(message: mq9.Message) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        assert message.msg_id not in box.confirmed, "acknowledged while its handler runs"
        running -= 1

    consumer = client.consume("a.b", "g", handle, concurrency=16)
    await until(lambda: len(box.confirmed) == 40)
    await consumer.stop()
    assert most == 16
    assert connection.of("msg.fetch")[0].json["config"]["num_msgs"] == 16


async def test_with_concurrency_an_ack_never_confirms_a_message_whose_handler_still_runs(fake: Any) -> None:
    box = Mailbox(2)
    client, connection = fake(box)
    release = asyncio.Event()

    async def handle(message: mq9.Message) -> None:
        if message.msg_id == 0:
            await release.wait()

    consumer = client.consume("a.b", "g", handle, concurrency=2)
    await until(lambda: box.confirmed == {1})
    assert [request.json["msg_id"] for request in connection.of("msg.ack")] == [1]
    release.set()
    await consumer.stop()
    assert box.confirmed == {0, 1}


async def test_stop_waits_for_the_running_handler_and_its_ack_and_gives_back_the_rest(fake: Any) -> None:
    box = Mailbox(4)
    client, connection = fake(box)
    started = asyncio.Event()
    release = asyncio.Event()
    seen: list[int] = []

    async def handle(message: mq9.Message) -> None:
        seen.append(message.msg_id)
        started.set()
        await release.wait()

    consumer = client.consume("a.b", "g", handle)
    await started.wait()
    stopping = asyncio.create_task(consumer.stop())
    await asyncio.sleep(0.01)
    assert not stopping.done()
    release.set()
    await stopping
    await consumer.stop()  # Twice is fine.

    assert seen == [0]
    assert box.confirmed == {0}
    assert [request.json for request in connection.of("msg.nack")] == [
        {"mail_address": "a.b", "group_name": "g", "msg_ids": [1, 2, 3], "lease_id": "L1"}
    ]
    assert box.leased == {}


async def test_stop_from_inside_a_handler_and_from_a_task_of_it(fake: Any) -> None:
    box = Mailbox(3)
    client, _ = fake(box)
    consumer: mq9.Consumer

    async def handle(message: mq9.Message) -> None:
        await consumer.stop()
        await asyncio.create_task(consumer.stop())

    consumer = client.consume("a.b", "g", handle)
    await consumer
    assert box.confirmed == {0}
    assert box.leased == {}


async def test_stop_from_inside_the_error_hook(fake: Any) -> None:
    box = Mailbox(1)
    client, _ = fake(box)
    consumer: mq9.Consumer

    async def handle(message: mq9.Message) -> None:
        raise ValueError

    async def hook(error: Exception, message: mq9.Message | None) -> None:
        await consumer.stop()

    consumer = client.consume("a.b", "g", handle, on_error=hook)
    await consumer
    assert box.leased == {}


async def test_stop_during_a_waiting_fetch_leaves_no_message_leased_to_nobody(fake: Any) -> None:
    box = Mailbox()
    client, connection = fake(box)

    async def handle(message: mq9.Message) -> None:
        raise AssertionError("it was stopped before")

    consumer = client.consume("a.b", "g", handle)
    await until(lambda: box.fetches == 1)
    await consumer.stop()
    assert connection.of("msg.nack") == []
    box.add(2)  # The FETCH that nobody waits for any more brings them.
    await until(lambda: connection.of("msg.nack"))
    assert connection.of("msg.nack")[0].json["msg_ids"] == [0, 1]
    assert connection.of("msg.nack")[0].json["lease_id"] == "L1"
    await until(lambda: box.leased == {})


async def test_cancelled_leased_fetch_of_the_user_gives_back_what_it_brings(fake: Any) -> None:
    box = Mailbox()
    client, connection = fake(box)
    task = asyncio.create_task(client.fetch("a.b", group_name="g", num_msgs=5, lease_ms=1000))
    await until(lambda: box.fetches == 1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    box.add(1)
    await until(lambda: connection.of("msg.nack"))
    assert connection.of("msg.nack")[0].json == {
        "mail_address": "a.b",
        "group_name": "g",
        "msg_ids": [0],
        "lease_id": "L1",
    }


async def test_cancelling_the_task_that_awaits_a_consumer_cancels_handlers_and_gives_back(fake: Any) -> None:
    box = Mailbox(3)
    client, _ = fake(box)
    started = asyncio.Event()
    cleaned: list[int] = []

    async def handle(message: mq9.Message) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(message.msg_id)

    async def run() -> None:
        await client.consume("a.b", "g", handle)

    before = asyncio.all_tasks()
    task = asyncio.create_task(run())
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cleaned == [0]
    await until(lambda: box.leased == {})
    assert box.confirmed == set()
    await client.aclose()
    assert asyncio.all_tasks() == before


async def test_cancel_ends_the_loop_while_it_fetches_and_leaks_nothing(fake: Any) -> None:
    box = Mailbox()
    client, _ = fake(box)
    before = asyncio.all_tasks()

    async def handle(message: mq9.Message) -> None: ...

    consumer = client.consume("a.b", "g", handle)
    await until(lambda: box.fetches == 1)
    consumer.cancel()
    await consumer
    assert not consumer.is_running
    box.add(1)
    await until(lambda: box.leased == {} and len(asyncio.all_tasks()) == len(before))


async def test_handler_that_raises_cancelled_error_of_its_own_is_a_failure(fake: Any) -> None:
    box = Mailbox(2)
    client, _ = fake(box)
    errors: list[Exception] = []

    async def handle(message: mq9.Message) -> None:
        if message.delivery_count == 1:
            inner = asyncio.ensure_future(asyncio.sleep(60))
            inner.cancel()
            await inner

    consumer = client.consume("a.b", "g", handle, on_error=lambda error, _: errors.append(error))
    await until(lambda: box.confirmed == {0, 1})
    await consumer.stop()
    assert [type(error).__name__ for error in errors] == ["Mq9HandlerCancelledError"] * 2


async def test_failed_fetch_pauses_and_goes_on(fake: Any, monkeypatch: Any) -> None:
    box = Mailbox(1)
    box.fail("msg.fetch", *[{"error": "mailbox a.b does not exist", "code": "mailbox_not_found"}] * 8)
    client, _connection = fake(box)
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def no_sleep(seconds: float) -> None:
        if seconds >= 1:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("mq9._consume.asyncio.sleep", no_sleep)
    errors: list[tuple[Any, Any]] = []

    async def handle(message: mq9.Message) -> None: ...

    consumer = client.consume("a.b", "g", handle, on_error=lambda error, m: errors.append((error.code, m)))
    await until(lambda: box.confirmed == {0})
    monkeypatch.undo()
    await consumer.stop()
    assert errors == [("mailbox_not_found", None)] * 8
    assert consumer.stats.failed_fetches == 8
    waits = [pause for pause in pauses if pause < 100]
    for pause, expected in zip(waits, [1, 2, 4, 8, 16, 30, 30, 30], strict=False):
        assert expected <= pause <= expected * (1 + constants.CONSUME_FETCH_PAUSE_JITTER)


async def test_deliver_is_sent_until_the_first_fetch_succeeds(fake: Any, monkeypatch: Any) -> None:
    box = Mailbox(2)
    box.fail("msg.fetch", {"error": "internal error: x", "code": "internal"})
    client, connection = fake(box)
    monkeypatch.setattr(constants, "CONSUME_FETCH_PAUSE_MS", 1)

    async def handle(message: mq9.Message) -> None: ...

    consumer = client.consume(
        "a.b", "g", handle, num_msgs=1, deliver="from_id", from_id=0, force_deliver=True
    )
    await until(lambda: len(box.confirmed) == 2)
    await consumer.stop()
    sent = [
        set(request.json) & {"deliver", "from_id", "force_deliver"} for request in connection.of("msg.fetch")
    ]
    assert sent[0] == sent[1] == {"deliver", "from_id", "force_deliver"}
    assert sent[2] == set()


async def test_without_auto_ack_the_handler_decides(fake: Any) -> None:
    box = Mailbox(3)
    client, connection = fake(box)

    async def handle(message: mq9.Message) -> None:
        if message.msg_id == 0:
            await message.ack()
        elif message.msg_id == 1:
            assert await message.renew(lease_ms=7000)
            await message.nack(delay_ms=5)
            await consumer.stop()

    consumer = client.consume("a.b", "g", handle, auto_ack=False)
    await consumer
    assert box.confirmed == {0}
    renew = connection.of("msg.renew")[0].json
    assert (renew["lease_id"], renew["lease_ms"], renew["msg_ids"]) == ("L1", 7000, [1])
    nacks = [request.json for request in connection.of("msg.nack")]
    assert nacks[0] == {
        "mail_address": "a.b",
        "group_name": "g",
        "msg_ids": [1],
        "lease_id": "L1",
        "delay_ms": 5,
    }
    assert nacks[1]["msg_ids"] == [2]


async def test_handler_that_settled_its_message_is_not_acknowledged_again(fake: Any) -> None:
    box = Mailbox(2)
    client, connection = fake(box)

    async def handle(message: mq9.Message) -> None:
        if message.msg_id == 0 and message.delivery_count == 1:
            await message.nack()
        elif message.msg_id == 1:
            await message.ack()

    consumer = client.consume("a.b", "g", handle)
    await until(lambda: box.confirmed == {0, 1})
    await consumer.stop()
    assert [request.json["msg_id"] for request in connection.of("msg.ack")] == [1, 0]
    assert len(connection.of("msg.nack")) == 1


async def test_context_manager_stops_the_consumer(fake: Any) -> None:
    box = Mailbox(1)
    client, _ = fake(box)

    async def handle(message: mq9.Message) -> None: ...

    async with client.consume("a.b", "g", handle) as consumer:
        await until(lambda: box.confirmed == {0})
    assert not consumer.is_running


async def test_closing_the_client_stops_its_consumers_and_waits_for_their_handlers(fake: Any) -> None:
    box = Mailbox(2)
    client, _ = fake(box)
    done: list[int] = []
    started = asyncio.Event()

    async def handle(message: mq9.Message) -> None:
        started.set()
        await asyncio.sleep(0.02)
        done.append(message.msg_id)

    consumer = client.consume("a.b", "g", handle)
    await started.wait()
    await client.aclose()
    assert done == [0]
    assert box.confirmed == {0}
    assert box.leased == {}
    assert not consumer.is_running
    with pytest.raises(mq9.ConnectionClosedError):
        client.consume("a.b", "g", handle)


@pytest.mark.parametrize("form", ["loop", "handler"])
async def test_cancellation_at_any_moment_is_never_swallowed(fake: Any, form: str) -> None:
    for steps in range(150):
        box = Mailbox(3)
        client, _ = fake(box)

        async def handle(message: mq9.Message) -> None:
            await asyncio.sleep(0)

        async def run(client: mq9.Client = client) -> None:
            if form == "handler":
                await client.consume("a.b", "g", handle, num_msgs=1)
            else:
                async for message in client.consume("a.b", "g", num_msgs=1):
                    await handle(message)

        task = asyncio.create_task(run())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, f"swallowed after {steps} steps"
        assert task.cancelled(), f"ended otherwise after {steps} steps"
        await client.aclose()
        assert box.leased == {}


async def test_consumer_that_is_cancelled_before_it_starts_has_ended(fake: Any) -> None:
    client, connection = fake(Mailbox(1))

    async def handle(message: mq9.Message) -> None: ...

    consumer = client.consume("a.b", "g", handle)
    consumer.cancel()
    await consumer
    assert not consumer.is_running
    assert connection.requests == []


async def test_log_has_a_traceback_of_the_handler_and_none_of_the_consumer(fake: Any, caplog: Any) -> None:
    box = Mailbox(1)
    client, _ = fake(box)

    async def handle(message: mq9.Message) -> None:
        raise ValueError("told to fail")

    consumer = client.consume("a.b", "g", handle)
    await until(lambda: "told to fail" in caplog.text)
    await consumer.stop()
    assert "in handle" in caplog.text
    caplog.clear()

    client, _ = fake(lambda request: {"error": "mailbox a.b does not exist", "code": "mailbox_not_found"})
    consumer = client.consume("a.b", "g", handle)
    await until(lambda: "mailbox a.b does not exist" in caplog.text)
    await consumer.stop()
    assert "Traceback" not in caplog.text
