"""The log of requests: a line each, with an id, and nothing else is different."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from mq9_broker.observe.request_log import RequestLog

from .support import PREFIX, Broker, Connection, fetch_body

LOGGER = "mq9_broker.requests"


class _Logged:
    """A shell behind the log of requests."""

    def __init__(self, **options: Any) -> None:
        self.broker = Broker()
        self.handler = RequestLog(self.broker.shell, **options)
        self.connection = Connection()
        self._number = 0

    def request(self, subject: str, payload: bytes = b"", *, silent: bool = False) -> bytes:
        self._number += 1
        reply_to = b"in.%d" % self._number
        one = (PREFIX + subject.encode(), None if silent else reply_to, None, payload)
        assert self.handler.handle(self.connection, [one]) == 1
        return reply_to


def _run(test: Callable[[_Logged], None], **options: Any) -> None:
    async def run() -> None:
        test(_Logged(**options))

    asyncio.run(run())


def _facts(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    names = ("request_id", "operation", "mailbox", "bytes", "reply_to", "result", "ms")
    return [
        {name: vars(record)[name] for name in names if name in vars(record)}
        for record in caplog.records
        if record.name == LOGGER
    ]


def test_a_line_says_what_was_asked_and_what_became_of_it(caplog: pytest.LogCaptureFixture) -> None:
    def test(logged: _Logged) -> None:
        logged.request("MAILBOX.CREATE", b'{"name":"a.secret"}')
        logged.request("MSG.SEND.a.secret", b"hello")
        logged.request("MSG.SEND.nowhere", b"hello")
        logged.request("NO.SUCH.THING")
        logged.request("MSG.SEND.a.secret", b"hi", silent=True)

    caplog.set_level(logging.DEBUG, LOGGER)
    _run(test)
    facts = _facts(caplog)
    assert [(fact["operation"], fact["result"], fact["bytes"]) for fact in facts] == [
        ("mailbox.create", "ok", 19),
        ("msg.send", "ok", 5),
        ("msg.send", "mailbox_not_found", 5),
        ("unknown", "unsupported_operation", 0),
        ("msg.send", "no reply wanted", 2),
    ]
    assert [fact.get("reply_to") for fact in facts] == ["in.1", "in.2", "in.3", "in.4", None]
    assert len({fact["request_id"] for fact in facts}) == 5
    assert len({fact["request_id"].split("-")[0] for fact in facts}) == 1
    assert all(fact["ms"] >= 0 for fact in facts)
    assert facts[1]["mailbox"] == facts[4]["mailbox"] != facts[2]["mailbox"]
    assert "secret" not in caplog.text and "nowhere" not in caplog.text
    line = caplog.records[1].getMessage()
    assert line.startswith(
        f"request {facts[1]['request_id']}: msg.send, mailbox {facts[1]['mailbox']}, 5 bytes: ok, "
    )


def test_addresses_where_the_operator_wants_them(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, LOGGER)
    _run(lambda logged: [None, logged.request("MSG.SEND.nowhere")][0], show_addresses=True)
    assert _facts(caplog)[0]["mailbox"] == "nowhere"


def test_a_fetch_that_waits_has_its_line_when_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    def test(logged: _Logged) -> None:
        logged.request("MAILBOX.CREATE", b'{"name":"a"}')
        body = str(fetch_body("g", max_wait_ms=60_000)).replace("'", '"').encode()
        logged.request("MSG.FETCH.a", body)
        waited = logged.request("MSG.FETCH.a", body)
        assert [fact["operation"] for fact in _facts(caplog)] == ["mailbox.create"]
        logged.request("MSG.SEND.a", b"x")
        assert [fact["operation"] for fact in _facts(caplog)][1:] == ["msg.send", "msg.fetch", "msg.fetch"]
        assert waited in logged.connection.replies

    caplog.set_level(logging.DEBUG, LOGGER)
    _run(test)


def test_what_a_closed_connection_waited_for_is_in_the_log_too(caplog: pytest.LogCaptureFixture) -> None:
    def test(logged: _Logged) -> None:
        logged.request("MAILBOX.CREATE", b'{"name":"a"}')
        logged.request("MSG.FETCH.a", b'{"config":{"max_wait_ms":60000}}')
        logged.connection.is_closed = True
        logged.handler.connection_closed(logged.connection)
        assert logged.broker.shell.waiting == 0
        assert _facts(caplog)[-1]["result"] == "connection closed"

    caplog.set_level(logging.DEBUG, LOGGER)
    _run(test)


def test_levels_may_change_while_connections_wait(caplog: pytest.LogCaptureFixture) -> None:
    def test(logged: _Logged) -> None:
        logged.request("MAILBOX.CREATE", b'{"name":"a"}')
        before = logged.request("MSG.FETCH.a", b'{"config":{"max_wait_ms":60000}}')
        caplog.set_level(logging.DEBUG, LOGGER)
        during = logged.request("MSG.FETCH.a", b'{"config":{"max_wait_ms":60000}}')
        caplog.set_level(logging.INFO, LOGGER)
        after = logged.request("MSG.FETCH.a", b'{"config":{"max_wait_ms":60000}}')
        assert logged.broker.shell.waiting == 3
        logged.request("MSG.SEND.a", b"x")
        assert {before, during, after} <= logged.connection.replies.keys()
        # Answered when nobody wanted a line any more.
        assert _facts(caplog) == []
        for _ in range(2):
            logged.request("MSG.FETCH.a", b'{"deliver":"latest","config":{"max_wait_ms":60000}}')
        logged.handler.connection_closed(logged.connection)
        assert logged.broker.shell.waiting == 0

    _run(test)


def test_several_connections_at_once(caplog: pytest.LogCaptureFixture) -> None:
    def test(logged: _Logged) -> None:
        logged.request("MAILBOX.CREATE", b'{"name":"a"}')
        other = Connection()
        caplog.set_level(logging.DEBUG, LOGGER)
        one = (PREFIX + b"MSG.SEND.a", b"r", None, b"x")
        assert list(logged.handler.handle_all([(logged.connection, [one]), (other, [one])])) == [1, 1]
        assert logged.connection.replies[b"r"]["msg_id"] == 0
        assert other.replies[b"r"]["msg_id"] == 1
        assert len(_facts(caplog)) == 2

    _run(test)
