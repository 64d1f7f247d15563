"""Retries, errors, replies, options and closing, on a scripted connection."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
from typing import Any

import pytest
from sdk_support import until

import mq9
from mq9._generated import constants, errors, operations

OK = {"error": ""}


def failing(status: str, statuses: Any, times: int, then: Any = None) -> list[Any]:
    """A script that fails so often and then succeeds."""
    failure = (
        statuses[status]() if status in statuses else {"error": "unavailable: busy", "code": "unavailable"}
    )
    return [failure] * times + [then or {**OK, "msg_id": 7, "messages": [], "agents": [], "mailbox": None}]


ALWAYS = {
    "mailbox_info": ("a.b",),
    "query": ("a.b",),
    "agent_discover": (),
    "ack": ("a.b", "g", 1),
    "renew": ("a.b", "g", [1]),
    "agent_register": ("n",),
    "agent_report": ("n",),
    "agent_unregister": ("n",),
}
UNEXECUTED = {
    "fetch": ("a.b",),
    "nack": ("a.b", "g", [1]),
    "mailbox_create": (),
    "mailbox_delete": ("a.b",),
    "delete": ("a.b", 1),
}


async def attempts(
    client: Any, connection: Any, method: str, arguments: tuple[Any, ...], **options: Any
) -> int:
    if method == "renew":
        options["lease_ms"] = 1000
    with pytest.raises(mq9.Mq9Error):
        await getattr(client, method)(*arguments, **options)
    return len(connection.requests)


@pytest.mark.parametrize("status", ["no_responders", "unavailable", "timeout", "connection_closed"])
@pytest.mark.parametrize("method", [*ALWAYS, *UNEXECUTED])
async def test_what_is_retried_after_what(fake: Any, statuses: Any, method: str, status: str) -> None:
    client, connection = fake(failing(status, statuses, 1000))
    again = method in ALWAYS or status in ("no_responders", "unavailable")
    arguments = {**ALWAYS, **UNEXECUTED}[method]
    assert await attempts(client, connection, method, arguments) == (3 if again else 1)


@pytest.mark.parametrize("status", ["no_responders", "unavailable", "timeout", "connection_closed"])
async def test_send_without_a_dedup_id_is_never_sent_twice(fake: Any, statuses: Any, status: str) -> None:
    client, connection = fake(failing(status, statuses, 1000))
    assert await attempts(client, connection, "send", ("a.b", "x")) == 1
    assert "mq9-dedup-id" not in connection.requests[0].headers


@pytest.mark.parametrize("status", ["no_responders", "unavailable", "timeout", "connection_closed"])
@pytest.mark.parametrize(
    "options", [{"dedup_id": "mine"}, {"retry": True}, {"retry": True, "dedup_id": "mine"}]
)
async def test_send_with_a_dedup_id_is_sent_again_under_it(
    fake: Any, statuses: Any, status: str, options: Any
) -> None:
    client, connection = fake(failing(status, statuses, 2))
    assert await client.send("a.b", "x", **options) == 7
    ids = [request.headers["mq9-dedup-id"] for request in connection.requests]
    assert len(ids) == 3
    assert len(set(ids)) == 1
    if "dedup_id" in options:
        assert ids[0] == "mine"
    else:
        assert len(ids[0]) == 32
        assert int(ids[0], 16) >= 0


async def test_two_sends_with_retry_have_different_ids(fake: Any) -> None:
    client, connection = fake({**OK, "msg_id": 1})
    await client.send("a.b", "x", retry=True)
    await client.send("a.b", "x", retry=True)
    assert connection.requests[0].headers != connection.requests[1].headers


async def test_retries_of_a_send_end_within_the_dedup_window(
    fake: Any, statuses: Any, monkeypatch: Any
) -> None:
    client, connection = fake(failing("timeout", statuses, 1000), timeout=50.0)
    now = 1000.0
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "time", lambda: now)
    answer = connection.answer

    def late(request: Any) -> Any:
        nonlocal now
        now += request.timeout
        return answer[0]

    connection.answer = late
    with pytest.raises(mq9.Mq9TimeoutError):
        await client.send("a.b", "x", retry=True)
    assert [request.timeout for request in connection.requests] == [50.0, 10.0]


@pytest.mark.parametrize(
    "code", ["mailbox_not_found", "invalid_argument", "internal", "mailbox_full", "brand_new", None]
)
async def test_any_other_error_is_final(fake: Any, code: str | None) -> None:
    client, connection = fake({"error": "so sorry", "code": code})
    with pytest.raises(mq9.Mq9Error) as caught:
        await client.query("a.b")
    assert len(connection.requests) == 1
    assert (caught.value.kind, caught.value.code, str(caught.value)) == ("server", code, "so sorry")
    assert caught.value.operation == "msg.query"
    assert isinstance(caught.value, mq9.ServerError)


async def test_pauses_grow_with_jitter(fake: Any, statuses: Any, monkeypatch: Any) -> None:
    client, _ = fake(failing("timeout", statuses, 1000))
    client._pause_unit = constants.RETRY_PAUSE_MS / 1000
    pauses: list[float] = []

    async def no_sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("mq9._client.asyncio.sleep", no_sleep)
    with pytest.raises(mq9.Mq9TimeoutError):
        await client.query("a.b")
    assert 0.1 <= pauses[0] <= 0.15
    assert 0.2 <= pauses[1] <= 0.3
    assert len(pauses) == 2


async def test_cancelled_call_ends_at_once_and_sends_nothing_more(fake: Any, statuses: Any) -> None:
    client, connection = fake([statuses["timeout"]()] * 9)
    client._pause_unit = 60.0
    task = asyncio.create_task(client.query("a.b"))
    await until(lambda: connection.requests)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(connection.requests) == 1


async def test_timeouts(fake: Any) -> None:
    client, connection = fake({**OK, "messages": []}, timeout=3.0)
    await client.fetch("a.b")
    await client.fetch("a.b", max_wait_ms=60000)
    await client.fetch("a.b", max_wait_ms=0, timeout=1)
    await client.query("a.b", timeout=0.5)
    assert [request.timeout for request in connection.requests] == [3.5, 63.0, 1.0, 0.5]


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), True, "5"])
async def test_timeout_that_is_none(fake: Any, timeout: Any) -> None:
    client, connection = fake(OK)
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        await client.query("a.b", timeout=timeout)
    assert caught.value.field == "timeout"
    assert connection.requests == []


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"no json",
        b"[]",
        b"null",
        b'{"error": 1}',
        b"{}",
        b"\xff",
        b'{"error": "", "n": NaN}',
        b"[" * 100_000,
    ],
)
async def test_reply_that_is_no_reply(fake: Any, reply: bytes) -> None:
    client, connection = fake(reply)
    with pytest.raises(mq9.ProtocolError) as caught:
        await client.agent_unregister("x")
    assert caught.value.kind == "protocol"
    assert len(connection.requests) == 1


@pytest.mark.parametrize(
    "reply", [{}, {"msg_id": None}, {"msg_id": "1"}, {"msg_id": 1.0}, {"msg_id": True}, {"msg_id": 2**63}]
)
async def test_reply_without_its_result(fake: Any, reply: Any) -> None:
    client, _ = fake({**OK, **reply})
    with pytest.raises(mq9.ProtocolError, match=r"msg\.send: reply\.msg_id"):
        await client.send("a.b", "x")


async def test_odd_item_is_left_out_and_logged(fake: Any, caplog: Any) -> None:
    client, _ = fake(
        {**OK, "messages": [None, 5, {"payload": "x"}, {"msg_id": 1, "tags": "x", "payload": 3, "key": 4}]}
    )
    result = await client.fetch("a.b")
    assert [message.msg_id for message in result.messages] == [1]
    message = result.messages[0]
    assert (message.tags, message.key, message.payload, message.priority) == (None, None, b"", "normal")
    assert len([record for record in caplog.records if "odd item" in record.message]) == 3


async def test_half_a_surrogate_in_a_payload_spoils_nothing(fake: Any) -> None:
    client, _ = fake(b'{"error": "", "messages": [{"msg_id": 1, "payload": "\\ud800"}]}')
    assert (await client.fetch("a.b")).messages[0].payload == b"?"


async def test_payloads_in_and_out(fake: Any) -> None:
    client, connection = fake({**OK, "msg_id": 1})
    for payload, sent in (
        (b"\xff\x00", b"\xff\x00"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ("dé", "dé".encode()),
        ({"a": [1, 2.5, None, True, "é"]}, '{"a":[1,2.5,null,true,"é"]}'.encode()),
        ([2**63 - 1], b"[9223372036854775807]"),
        (None, b"null"),
        (5, b"5"),
        ("", b""),
    ):
        await client.send("a.b", payload)
        assert connection.requests[-1].payload == sent
        assert connection.requests[-1].headers == {}


@pytest.mark.parametrize("payload", [object(), {1, 2}, float("nan"), "\ud800", {"a": "\ud800"}, [b"x"]])
async def test_payload_that_is_none(fake: Any, payload: Any) -> None:
    client, connection = fake(OK)
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        await client.send("a.b", payload)
    assert caught.value.field == "payload"
    assert connection.requests == []


def test_message_as_text_and_json() -> None:
    assert mq9.Message(msg_id=1, payload=b'{"n": 9007199254740993}').json() == {"n": 9007199254740993}
    assert mq9.Message(msg_id=1, payload="é".encode()).text() == "é"
    with pytest.raises(UnicodeDecodeError):
        mq9.Message(msg_id=1, payload=b"\xff").text()
    with pytest.raises(ValueError, match="Expecting value"):
        mq9.Message(msg_id=1, payload=b"").json()


def test_message_is_a_value() -> None:
    one = mq9.Message(msg_id=1, payload=b"x", tags=["a"])
    assert one == pickle.loads(pickle.dumps(one))
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        one.msg_id = 2  # type: ignore[misc]


@pytest.mark.parametrize("value", ["5", 1.0, True, None, -1, 2**63])
async def test_numbers_are_whole_and_in_their_bounds(fake: Any, value: Any) -> None:
    client, connection = fake(OK)
    for call, field in (
        (lambda: client.nack("a.b", "g", [value]), "msg_ids"),
        (lambda: client.delete("a.b", value), "msg_id"),
        (lambda: client.renew("a.b", "g", [1], lease_ms=value), "lease_ms"),
        (lambda: client.fetch("a.b", num_msgs=value), "num_msgs"),
    ):
        with pytest.raises(mq9.InvalidArgumentError) as caught:
            await call()
        assert caught.value.field == field
    assert connection.requests == []


@pytest.mark.parametrize(
    "headers",
    [
        {"": "x"},
        {"a b": "x"},
        {"a:": "x"},
        {"é": "x"},
        {"a\r\nb": "x"},
        {"MQ9-Priority": "urgent"},
        {"mq9-key": "k"},
        {"a": "x\r\ny"},
        {"a": " x"},
        {"a": "é"},
        {"a": ""},
        {"a": 5},
        {"a": ["x"]},
        [("a", "x")],
    ],
)
async def test_headers_that_cannot_be_sent(fake: Any, headers: Any) -> None:
    client, connection = fake(OK)
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        await client.send("a.b", "x", headers=headers)
    assert caught.value.field == "headers"
    assert connection.requests == []


async def test_register_keeps_the_card_and_its_own_parameters_win(fake: Any) -> None:
    client, connection = fake(OK)
    card = {"name": "other", "description": "x", "ttl": 5, "nested": {"n": None}}
    await client.agent_register("mine", ttl=60, card=card)
    assert connection.requests[0].json == {
        "name": "mine",
        "ttl": 60,
        "description": "x",
        "nested": {"n": None},
    }
    assert card["name"] == "other"
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        await client.agent_register("mine", card={"bad": object()})
    assert caught.value.field == "card"


async def test_defaults_are_shown_and_not_sent_unless_given(fake: Any) -> None:
    shown = {name: p.default for name, p in inspect.signature(mq9.Client.fetch).parameters.items()}
    assert (shown["num_msgs"], shown["max_wait_ms"], shown["deliver"]) == (100, 500, "latest")
    assert "num_msgs: 'int' = 100" in str(inspect.signature(mq9.Client.fetch))
    client, connection = fake({**OK, "messages": []})
    await client.fetch("a.b", num_msgs=100, max_wait_ms=500, deliver="latest")
    assert connection.requests[0].json == {
        "deliver": "latest",
        "config": {"num_msgs": 100, "max_wait_ms": 500},
    }


def test_options_are_keywords() -> None:
    for name, method in inspect.getmembers(operations.Operations, inspect.iscoroutinefunction):
        if not name.startswith("_"):
            parameters = list(inspect.signature(method).parameters.values())[1:]
            required = [p for p in parameters if p.default is p.empty]
            assert all(p.kind is not p.VAR_KEYWORD for p in parameters), name
            assert parameters[-1].name == "timeout", name
            assert all(p.kind is p.KEYWORD_ONLY or p in required or p.default is None for p in parameters), (
                name
            )


def test_connect_offers_what_the_specification_says() -> None:
    parameters = inspect.signature(mq9.connect).parameters
    assert set(parameters) == {*constants.CONNECT_PARAMETERS, "nats"}
    assert parameters["timeout"].default == constants.REQUEST_TIMEOUT_MS / 1000


@pytest.mark.parametrize("code", sorted(errors.BY_CODE))
def test_every_code_is_a_class_that_can_be_caught(code: str) -> None:
    error = errors.server_error("text", code, operation="msg.send")
    assert (error.kind, error.code, error.operation) == ("server", code, "msg.send")
    name = "".join(word.capitalize() for word in code.split("_")) + "Error"
    assert isinstance(error, getattr(mq9, name))
    assert isinstance(error, mq9.ServerError)
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), copy.code, str(copy), copy.operation) == (type(error), code, "text", "msg.send")


def test_builtin_exceptions_are_bases_where_they_fit() -> None:
    assert issubclass(mq9.Mq9TimeoutError, TimeoutError)
    assert issubclass(mq9.ConnectionClosedError, ConnectionError)
    assert issubclass(mq9.InvalidArgumentError, ValueError)
    assert not issubclass(asyncio.CancelledError, mq9.Mq9Error)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("mailbox a.b already exists", "mailbox_exists"),
        ("mailbox not found: a.b", "mailbox_not_found"),
        ("Tenant default topic 'a.b' not found in broker cache", "mailbox_not_found"),
        ("missing field `group_name`", "invalid_argument"),
        ("something else", None),
        ("mailbox  does not exist", "mailbox_not_found"),
        ("mailbox does not exist", None),
    ],
)
async def test_reply_without_a_code_is_classified_by_its_text(fake: Any, text: str, code: str | None) -> None:
    client, _ = fake({"error": text})
    with pytest.raises(mq9.ServerError) as caught:
        await client.mailbox_info("a.b")
    assert caught.value.code == code


async def test_broker_that_does_not_know_an_operation(fake: Any) -> None:
    client, _ = fake({"error": "unsupported operation: RENEW", "code": "unsupported_operation"})
    with pytest.raises(mq9.UnsupportedOperationError):
        await client.renew("a.b", "g", [1], lease_ms=5)


async def test_closing_waits_for_calls_in_flight_and_twice_is_fine(fake: Any) -> None:
    release = asyncio.Event()

    async def slow(request: Any) -> Any:
        await release.wait()
        return {**OK, "msg_id": 3}

    client, _ = fake(slow)
    sending = asyncio.create_task(client.send("a.b", "x"))
    await asyncio.sleep(0.01)
    closing = [asyncio.create_task(client.aclose()), asyncio.create_task(client.aclose())]
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in closing)
    release.set()
    await asyncio.gather(*closing)
    assert await sending == 3
    await client.aclose()
    assert client.is_closed
    with pytest.raises(mq9.ConnectionClosedError) as caught:
        await client.send("a.b", "x")
    assert caught.value.kind == "connection_closed"


async def test_closing_does_not_wait_longer_than_the_timeout(fake: Any) -> None:
    async def never(request: Any) -> Any:
        await asyncio.Event().wait()

    client, _ = fake(never, timeout=0.05)
    task = asyncio.create_task(client.send("a.b", "x", timeout=60))
    await asyncio.sleep(0.01)
    await client.aclose()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_context_manager_closes(fake: Any) -> None:
    client, _ = fake(OK)
    async with client as same:
        assert same is client
    assert client.is_closed


async def test_keep_alive_registers_reports_and_unregisters(fake: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(constants, "AGENT_KEEP_ALIVE_REPORT_EVERY_MS", 5)
    replies = {"agent.report": [OK, {"error": "agent not found", "code": "agent_not_found"}, {"error": "x"}]}

    def answer(request: Any) -> Any:
        queue = replies.get(request.operation)
        return queue.pop(0) if queue else OK

    client, connection = fake(answer)
    async with client.agent_keep_alive("t", mailbox="t.inbox", card={"description": "Translates"}):
        await until(lambda: len(connection.of("agent.report")) == 5)
    names = [request.operation for request in connection.requests]
    assert names[:4] == ["agent.register", "agent.report", "agent.report", "agent.register"]
    assert names[-1] == "agent.unregister"
    assert connection.requests[0].json == {
        "name": "t",
        "mailbox": "t.inbox",
        "ttl": 60,
        "description": "Translates",
    }
    assert connection.of("agent.register")[1].json == connection.requests[0].json
    assert all(json.loads(request.payload) == {"name": "t"} for request in connection.of("agent.report"))
    assert constants.AGENT_KEEP_ALIVE_REGISTER_TTL == 60


async def test_keep_alive_that_cannot_register_says_so(fake: Any) -> None:
    client, _ = fake({"error": "unauthorized: no", "code": "unauthorized"})
    with pytest.raises(mq9.UnauthorizedError):
        async with client.agent_keep_alive("t"):
            raise AssertionError("never entered")


async def test_closing_the_client_unregisters_what_is_kept_alive(fake: Any) -> None:
    client, connection = fake(OK)
    keeper = client.agent_keep_alive("t")
    await keeper.start()
    await client.aclose()
    assert connection.requests[-1].operation == "agent.unregister"
    await keeper.stop()
    assert len(connection.of("agent.unregister")) == 1
