"""Spans of requests, over a shell in this process and with an exporter in memory."""

import asyncio
import json
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mq9_broker.observe.traces import Allowance, TracedHandler, TraceOptions, WatchedExporter

from .support import PREFIX, Broker, Connection, fetch_body

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
UNSAMPLED = f"00-{TRACE}-{SPAN}-00"


class Traced:
    """A shell behind a handler that traces, and what was recorded."""

    def __init__(self, options: TraceOptions | None = None, **limits: int) -> None:
        self.broker = Broker(**limits)
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.handler = TracedHandler(self.broker.shell, provider.get_tracer("test"), options)
        self.connection = Connection()
        self._number = 0

    def request(self, subject: str, body: Any = b"", *headers: str) -> bytes:
        self._number += 1
        reply_to = b"inbox.%d" % self._number
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        block = ("NATS/1.0\r\n" + "".join(f"{line}\r\n" for line in headers) + "\r\n").encode()
        one = (PREFIX + subject.encode(), reply_to, block if headers else None, payload)
        assert self.handler.handle(self.connection, [one]) == 1
        return reply_to

    def ask(self, subject: str, body: Any = b"", *headers: str) -> Any:
        return self.connection.replies[self.request(subject, body, *headers)]

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    @property
    def last(self) -> ReadableSpan:
        return self.spans[-1]


def parent_of(span: ReadableSpan) -> str:
    assert span.context is not None
    return f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_a_message_without_a_context_gets_that_of_its_span() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "secret.box"})
    assert traced.ask("MSG.SEND.secret.box", b"hello", "a: b")["msg_id"] == 0
    assert traced.ask("MSG.SEND.secret.box", b"hello")["msg_id"] == 1
    create, first, second = traced.spans
    assert (create.name, create.kind) == ("mailbox.create", SpanKind.SERVER)
    assert (first.name, first.kind, first.parent) == ("msg.send", SpanKind.PRODUCER, None)
    assert attributes_of(first) == {
        "messaging.system": "mq9",
        "messaging.operation.name": "msg.send",
        "messaging.operation.type": "send",
        "messaging.message.body.size": 5,
        "messaging.message.id": "0",
        "mq9.mailbox.hash": "a4489041e89c",
    }
    fetched = traced.ask("MSG.FETCH.secret.box", {"group_name": "workers", "deliver": "earliest"})
    assert fetched["messages"][0]["headers"] == {"a": ["b"], "traceparent": [parent_of(first)]}
    assert fetched["messages"][1]["headers"] == {"traceparent": [parent_of(second)]}
    fetch = traced.last
    assert (fetch.name, fetch.kind) == ("msg.fetch", SpanKind.SERVER)
    assert [link.context.span_id for link in fetch.links] == [
        span.context.span_id for span in (first, second) if span.context
    ]
    assert attributes_of(fetch)["messaging.batch.message_count"] == 2
    assert attributes_of(fetch)["messaging.consumer.group.name"] == "workers"
    assert attributes_of(fetch)["messaging.operation.type"] == "receive"
    traced.ask("MSG.ACK.secret.box", {"group_name": "workers", "msg_ids": [0]})
    assert (traced.last.name, attributes_of(traced.last)["messaging.operation.type"]) == ("msg.ack", "settle")
    assert all(span.status.status_code is StatusCode.UNSET for span in traced.spans)


async def test_a_context_that_was_sent_is_parent_and_stays_as_it_is() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    traced.ask("MSG.SEND.box", b"x", f"Traceparent: {PARENT}", "tracestate: a=1,b=2")
    span = traced.last
    assert span.kind is SpanKind.SERVER
    assert span.context is not None and span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN and span.parent.is_remote
    assert span.context.trace_state.to_header() == "a=1,b=2"
    found = traced.ask("MSG.QUERY.box", b"", f"traceparent: {PARENT}")["messages"][0]["headers"]
    assert found == {"Traceparent": [PARENT], "tracestate": ["a=1,b=2"]}
    assert traced.last.parent is not None and f"{traced.last.parent.span_id:016x}" == SPAN


async def test_a_malformed_context_begins_a_new_trace_and_stays_in_the_message() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    traced.ask("MSG.SEND.box", b"x", "traceparent: nonsense")
    assert traced.last.parent is None and traced.last.kind is SpanKind.SERVER
    assert traced.ask("MSG.QUERY.box")["messages"][0]["headers"] == {"traceparent": ["nonsense"]}


async def test_the_sender_decides_whether_it_is_traced_and_the_ratio_where_it_does_not() -> None:
    traced = Traced(TraceOptions(ratio=0))
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    traced.ask("MSG.SEND.box", b"x")
    traced.ask("MSG.SEND.box", b"x", f"traceparent: {UNSAMPLED}")
    assert traced.spans == []
    traced.ask("MSG.SEND.box", b"x", f"traceparent: {PARENT}")
    assert [span.name for span in traced.spans] == ["msg.send"]
    headers = [message.get("headers") for message in traced.ask("MSG.QUERY.box")["messages"]]
    assert headers == [None, {"traceparent": [UNSAMPLED]}, {"traceparent": [PARENT]}]
    every = Traced(TraceOptions(ratio=1))
    every.ask("MAILBOX.CREATE", {"name": "box"}, f"traceparent: {UNSAMPLED}")
    assert every.spans == []


async def test_addresses_are_told_only_where_the_operator_asks_for_them() -> None:
    for shown in (False, True):
        traced = Traced(TraceOptions(show_addresses=shown))
        traced.ask("MAILBOX.CREATE", {"name": "secret.box"})
        traced.ask("MSG.SEND.secret.box", b"x")
        traced.ask("MSG.FETCH.secret.box", fetch_body("g", deliver="earliest"))
        traced.ask("MSG.SEND.secret.nowhere", b"x")
        traced.ask("MSG.SEND.secret..wrong", b"x")
        traced.ask("NO.SUCH.secret", b"x")
        told = "".join(span.to_json() for span in traced.spans)
        assert ("secret" in told) is shown
        names = {attributes_of(span).get("messaging.destination.name") for span in traced.spans}
        assert names == ({None, "secret.box", "secret.nowhere"} if shown else {None})


async def test_a_failed_request_has_the_code_of_its_error() -> None:
    traced = Traced()
    for subject, body, name, code in (
        ("MSG.SEND.nowhere", b"x", "msg.send", "mailbox_not_found"),
        ("MSG.SEND.No", b"x", "unknown", "invalid_mail_address"),
        ("NO.SUCH", b"", "unknown", "unsupported_operation"),
        ("MSG.FETCH.nowhere", b'{"group_name":[]}', "msg.fetch", "invalid_argument"),
        ("MSG.FETCH.nowhere", b'{"group_name":' + b"[" * 5000, "msg.fetch", "invalid_argument"),
    ):
        assert traced.ask(subject, body)["code"] == code
        assert (traced.last.name, attributes_of(traced.last)["error.type"]) == (name, code)
        assert traced.last.status.status_code is StatusCode.ERROR
        assert traced.last.status.description is None


async def test_a_span_lasts_until_its_request_is_answered() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    body = fetch_body("g", max_wait_ms=60_000)
    waiting = traced.request("MSG.FETCH.box", body)
    assert [span.name for span in traced.spans] == ["mailbox.create"]
    traced.ask("MSG.SEND.box", b"x")
    assert traced.connection.replies[waiting]["messages"][0]["msg_id"] == 0
    assert {span.name for span in traced.spans[1:]} == {"msg.send", "msg.fetch"}
    fetch = next(span for span in traced.spans if span.name == "msg.fetch")
    assert len(fetch.links) == 1


async def test_requests_that_share_an_inbox_are_told_apart() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    seen: list[bytes] = []

    class Everything(Connection):
        def send_replies(self, replies: list[tuple[bytes, bytes]]) -> None:
            assert all(type(reply_to) is bytes for reply_to, _ in replies)
            seen.extend(reply_to for reply_to, _ in replies)

    connection = Everything()
    fetch = json.dumps(fetch_body("g", max_wait_ms=60_000)).encode()
    send = PREFIX + b"MSG.SEND.box"
    requests = [
        (PREFIX + b"MSG.FETCH.box", b"same", None, fetch),
        (send, b"same", None, b"1"),
        (PREFIX + b"MSG.SEND.nowhere", b"same", None, b"2"),
        (send, None, None, b"3"),
    ]
    assert traced.handler.handle(connection, requests) == 4
    assert seen == [b"same"] * 3
    found = {
        (span.name, attributes_of(span).get("error.type"), attributes_of(span).get("messaging.message.id"))
        for span in traced.spans[1:]
    }
    assert found == {
        ("msg.fetch", None, None),
        ("msg.send", None, "0"),
        ("msg.send", "mailbox_not_found", None),
        ("msg.send", None, None),  # nobody waits for its reply
    }


async def test_a_connection_that_ends_ends_its_spans() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    traced.request("MSG.FETCH.box", fetch_body("g", max_wait_ms=60_000))
    traced.connection.is_closed = True
    traced.handler.connection_closed(traced.connection)
    assert attributes_of(traced.last)["error.type"] == "connection_closed"
    assert traced.broker.shell.waiting == 0
    traced.handler.connection_closed(Connection())  # one that never asked for anything


async def test_requests_that_have_to_come_again_have_one_span() -> None:
    traced = Traced()
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    body = json.dumps(fetch_body(max_wait_ms=0)).encode()
    requests = [(PREFIX + b"MSG.FETCH.box", b"r.%d" % number, None, body) for number in range(100)]
    while requests:
        done = traced.handler.handle(traced.connection, list(requests))
        assert done > 0
        requests = requests[done:]
    assert [span.name for span in traced.spans].count("msg.fetch") == 100


async def test_a_message_never_becomes_too_large_by_its_context() -> None:
    traced = Traced(TraceOptions(max_message=200), max_message=200)
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    for size in range(90, 201):
        assert traced.ask("MSG.SEND.box", b"x" * size)["error"] == "", size
    with_context = sum(
        "headers" in message for message in traced.ask("MSG.QUERY.box", {"limit": 1000})["messages"]
    )
    assert with_context == 11  # of 90 to 100 bytes


async def test_the_engine_does_the_same_with_and_without() -> None:
    traced, plain = Traced(TraceOptions(ratio=0)), Broker()
    for subject, body in (
        ("MAILBOX.CREATE", {"name": "box"}),
        ("MSG.SEND.box", b"1"),
        ("MSG.FETCH.box", fetch_body("g", deliver="earliest", lease_ms=1000)),
        ("MSG.NACK.box", {"group_name": "g", "msg_ids": [0]}),
        ("MAILBOX.INFO.box", b""),
        ("MSG.DELETE.box.0", b""),
        ("MSG.QUERY.box", b""),
    ):
        assert traced.ask(subject, body) == plain.ask(subject, body)


async def test_no_more_are_traced_than_the_broker_can_afford() -> None:
    traced = Traced(TraceOptions(per_second=3))
    now = 0.0
    traced.handler.allowance = Allowance(3, lambda: now)
    traced.ask("MAILBOX.CREATE", {"name": "box"})
    for _ in range(5):
        traced.ask("MSG.SEND.box", b"x", f"traceparent: {PARENT}")
    assert [span.name for span in traced.spans] == ["mailbox.create", "msg.send", "msg.send"]
    assert traced.handler.allowance.refused == 3
    now = 0.5  # enough for one
    assert traced.ask("MSG.SEND.box", b"x")["msg_id"] == 5
    assert traced.ask("MSG.SEND.box", b"x")["msg_id"] == 6
    assert len(traced.spans) == 4
    now = 1000.0
    for _ in range(10):
        traced.ask("MSG.SEND.box", b"x")
    assert len(traced.spans) == 7


class Scripted(SpanExporter):
    """Answers exports as it is told."""

    def __init__(self) -> None:
        self.result = SpanExportResult.SUCCESS

    def export(self, spans: Any) -> SpanExportResult:
        return self.result


def test_what_is_delivered_is_counted_and_a_failure_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    inner = Scripted()
    watched = WatchedExporter(inner)
    caplog.set_level("INFO")
    span = TracerProvider(shutdown_on_exit=False).get_tracer("test").start_span("x")
    assert isinstance(span, ReadableSpan)
    watched.export([span])
    inner.result = SpanExportResult.FAILURE
    watched.export([span, span])
    watched.export([span])
    inner.result = SpanExportResult.SUCCESS
    watched.export([span])
    assert (watched.delivered, watched.failed) == (2, 3)
    messages = [record.getMessage() for record in caplog.records if "traces" in record.getMessage()]
    assert messages == ["traces are lost: nothing takes them at the endpoint", "traces are delivered again"]
    watched.shutdown()


async def test_a_search_is_traced_too() -> None:
    traced = Traced()
    traced.ask("AGENT.REGISTER", {"name": "translator", "payload": "French"})
    reply_to = traced.request("AGENT.DISCOVER", {"text": "French"})
    reply = await traced.connection.reply(reply_to)
    assert [agent["name"] for agent in reply["agents"]] == ["translator"]
    await asyncio.sleep(0)
    assert traced.last.name == "agent.discover"
