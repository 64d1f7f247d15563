"""OpenTelemetry traces: a span for each request, between transport and shell. Only imported when asked for.

Without tracing nothing of this exists: the listener calls the shell itself. With it, `TracedHandler` stands
between them. The engine knows nothing of it: what it puts into a message is a header like any other.

What kind a span is follows the conventions for messaging (https://opentelemetry.io/docs/specs/semconv/messaging):

- A request is a SERVER span, whose parent is the `traceparent` of the request's headers.
- A SEND whose message has no `traceparent` gives it the one of its own span, which then is the message's
  creation context: a PRODUCER span.
- A FETCH links to the contexts of the messages that it brought: they are others than its parent's.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from prometheus_client.core import CounterMetricFamily, Metric

from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.observe.census import hash_of
from mq9_broker.observe.trace_context import ADDED_BYTES, TraceContext, context_of, parse, with_parent
from mq9_broker.observe.wrappers import ConnectionWrapper, HandlerWrapper
from mq9_broker.shell.refusal import RefusedError
from mq9_broker.shell.router import Router
from mq9_broker.transport.interface import ClientConnection, Handler, Reply, Request
from mq9_broker.version import __version__

_log = logging.getLogger(__name__)

# What cannot be delivered within so many seconds when the broker ends is given up.
_LAST_DELIVERY_S: Final = 2.0
_TYPES: Final = {
    "mailbox.create": "create",
    "msg.send": "send",
    "msg.fetch": "receive",
    "msg.ack": "settle",
    "msg.nack": "settle",
    "msg.renew": "settle",
}
_SENDS: Final = frozenset(operation.name for operation in OPERATIONS if operation.body == "payload")
_UNKNOWN_OPERATION: Final = "unknown"
_CONNECTION_CLOSED: Final = "connection_closed"
# Links of one span: what its SDK keeps unless told otherwise.
_MOST_LINKS: Final = 128


class _Message(msgspec.Struct):
    headers: dict[str, list[str]] = {}


class _Answer(msgspec.Struct):
    """What a span tells of a reply."""

    code: str = ""
    error: str = ""
    msg_id: int | None = None
    mail_address: str = ""
    messages: list[_Message] | None = None


class _Group(msgspec.Struct):
    group_name: str | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_group = msgspec.json.Decoder(_Group).decode


@dataclass(frozen=True)
class TraceOptions:
    """How requests are traced.

    Attributes:
        ratio: Share of requests that are traced, 0 to 1, of those whose sender has not decided that.
        show_addresses: Name mailboxes by address instead of by hash.
        per_second: Requests that are traced in a second at most, whoever wants more of them; 0 = no bound.
        max_message: Bytes that a stored message may have with its headers; 0 = no bound. None is made larger
            than that by its trace context.
    """

    ratio: float = 1.0
    show_addresses: bool = False
    per_second: int = 0
    max_message: int = 0


class Allowance:
    """How many requests may be traced now: as many as a second brings, and no more than that at once.

    Args:
        per_second: 0 = any number.
        clock: Seconds that go on evenly.

    Attributes:
        refused: Requests that were too many.
    """

    def __init__(self, per_second: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._left = float(per_second)
        self._looked = clock()
        self.refused = 0

    def take(self) -> bool:
        """Whether one more may be."""
        if not self._per_second:
            return True
        if self._left < 1:
            now = self._clock()
            self._left = min(self._per_second, self._left + (now - self._looked) * self._per_second)
            self._looked = now
            if self._left < 1:
                self.refused += 1
                return False
        self._left -= 1
        return True


class _ReplyTo(bytes):
    """A reply subject that knows the span of its request: the shell hands it back as it was."""

    span: Span


class _TracedConnection(ConnectionWrapper):
    """A client's connection, which ends spans as the replies leave."""

    __slots__ = ("open",)

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection)
        # Spans of requests that are not answered yet.
        self.open: dict[Span, None] = {}

    def listens(self, subject: bytes) -> bool:
        return self._connection.listens(bytes(subject))

    def send_replies(self, replies: list[Reply]) -> None:
        if not self.open:  # so nothing that is answered has a span
            self._connection.send_replies(replies)
            return
        self._connection.send_replies([(bytes(reply_to), reply) for reply_to, reply in replies])
        for reply_to, reply in replies:
            if isinstance(reply_to, _ReplyTo) and reply_to.span in self.open:
                del self.open[reply_to.span]
                _end(reply_to.span, reply)


class TracedHandler(HandlerWrapper):
    """Gives each request that another handler carries out a span.

    Args:
        handler: What carries out the requests.
        tracer: Makes the spans, and records all of them: what is sampled is decided here.
        options: How.

    Attributes:
        allowance: How many more may be traced.
    """

    def __init__(self, handler: Handler, tracer: Tracer, options: TraceOptions | None = None) -> None:
        super().__init__(handler)
        self._tracer = tracer
        self._options = options if options is not None else TraceOptions()
        self.allowance = Allowance(self._options.per_second)
        self._router = Router(OPERATIONS)
        self._connections: dict[ClientConnection, _TracedConnection] = {}

    def handle(self, connection: ClientConnection, requests: list[Request]) -> int:
        """Carry out requests of one connection; see `Handler`."""
        traced = self._connections.get(connection)
        if traced is None:
            traced = self._connections[connection] = _TracedConnection(connection)
        begun: list[tuple[int, Span]] = []
        passed = requests
        for place, request in enumerate(requests):
            context = context_of(request[2])
            if not (context.is_sampled if context.trace_id else self._is_chosen()):
                continue
            if not self.allowance.take():
                continue
            if passed is requests:
                passed = list(requests)
            span, passed[place] = self._begin(request, context)
            begun.append((place, span))
            if request[1] is not None:
                traced.open[span] = None
        done = self._handler.handle(traced, passed)
        for place, span in begun:
            if place >= done:  # comes again
                traced.open.pop(span, None)
            elif requests[place][1] is None:
                span.end()
        return done

    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a connection; requests that are not answered yet never will be."""
        traced = self._connections.pop(connection, None)
        if traced is None:
            self._handler.connection_closed(connection)
            return
        self._handler.connection_closed(traced)
        for span in traced.open:
            _fail(span, _CONNECTION_CLOSED)
            span.end()
        traced.open.clear()

    def _is_chosen(self) -> bool:
        """Whether to trace a request whose sender has not decided that."""
        return random.random() < self._options.ratio  # noqa: S311  # nobody gains by guessing it

    def _begin(self, request: Request, context: TraceContext) -> tuple[Span, Request]:
        """Begin the span of a request; return it with the request that is carried out."""
        subject, reply_to, headers, payload = request
        try:
            route = self._router.route(subject)
        except RefusedError:
            name, address = _UNKNOWN_OPERATION, b""
        else:
            name, address = route.operation.name, route.address
        gives_context = name in _SENDS and not context.is_named and self._has_room(headers, payload)
        attributes: dict[str, str | int] = {"messaging.system": "mq9", "messaging.operation.name": name}
        if name in _TYPES:
            attributes["messaging.operation.type"] = _TYPES[name]
        if address:
            attributes.update(self._destination(address))
        if name in _SENDS:
            attributes["messaging.message.body.size"] = len(payload)
        elif group := _group_of(payload):
            attributes["messaging.consumer.group.name"] = group
        span = self._tracer.start_span(
            name,
            context=set_span_in_context(NonRecordingSpan(_span_context(context))),
            kind=SpanKind.PRODUCER if gives_context else SpanKind.SERVER,
            attributes=attributes,
        )
        if gives_context:
            own = span.get_span_context()
            headers = with_parent(headers, own.trace_id, own.span_id)
        if reply_to is not None:
            reply_to = _ReplyTo(reply_to)
            reply_to.span = span
        return span, (subject, reply_to, headers, payload)

    def _destination(self, address: bytes) -> dict[str, str | int]:
        if self._options.show_addresses:
            return {"messaging.destination.name": address.decode()}
        return {"mq9.mailbox.hash": hash_of(address)}

    def _has_room(self, headers: bytes | None, payload: bytes) -> bool:
        most = self._options.max_message
        return not most or len(headers or b"") + len(payload) + ADDED_BYTES <= most


def _span_context(context: TraceContext) -> SpanContext:
    return SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if context.is_sampled else TraceFlags.DEFAULT),
        trace_state=TraceState.from_header(list(context.state)),
    )


def _group_of(payload: bytes) -> str:
    """The consumer group that a request names, if it does."""
    if b'"group_name"' not in payload:
        return ""
    try:
        return _decode_group(payload).group_name or ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the reply says so
        return ""


def _end(span: Span, reply: bytes) -> None:
    """End the span of a request with what its reply says."""
    answer = _decode_answer(reply)
    if answer.error:
        _fail(span, answer.code or "internal")
    if answer.msg_id is not None and answer.msg_id >= 0:
        span.set_attribute("messaging.message.id", str(answer.msg_id))
    if answer.messages is not None:
        span.set_attribute("messaging.batch.message_count", len(answer.messages))
        for message in answer.messages[:_MOST_LINKS]:
            for value in message.headers.get("traceparent", ())[:1]:
                if (context := parse(value)).trace_id:
                    span.add_link(_span_context(context))
    span.end()


def _fail(span: Span, code: str) -> None:
    span.set_attribute("error.type", code)
    span.set_status(Status(StatusCode.ERROR))  # the text of an error may name a mailbox


class WatchedExporter(SpanExporter):
    """Counts what another exporter delivers, and says when it begins and ceases to fail.

    Args:
        exporter: What delivers.

    Attributes:
        delivered: Spans that were.
        failed: Spans that were not.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False
        self.delivered = 0
        self.failed = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Deliver spans."""
        result = self._exporter.export(spans)
        fails = result is not SpanExportResult.SUCCESS
        if fails:
            self.failed += len(spans)
        else:
            self.delivered += len(spans)
        if fails != self._fails:
            self._fails = fails
            if fails:
                _log.warning("traces are lost: nothing takes them at the endpoint")
            else:
                _log.info("traces are delivered again")
        return result

    def shutdown(self) -> None:
        """End."""
        self._exporter.shutdown()


class _CountingProcessor(BatchSpanProcessor):
    ended = 0

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1
        super().on_end(span)


class Tracing:
    """Makes spans and delivers them by OTLP over HTTP, from a thread of its own.

    At most 2,048 ended spans wait for it (`OTEL_BSP_MAX_QUEUE_SIZE`); beyond them the oldest is dropped.
    Nothing here ever waits for the endpoint, except for two seconds at the end.

    Args:
        endpoint: URL of the collector's endpoint for traces.
        server_name: The name of this broker among others.
        options: How requests are traced.
    """

    def __init__(self, endpoint: str, server_name: str, options: TraceOptions) -> None:
        # It would say the same for every batch, and for every span that is dropped.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        self._options = options
        self._allowances: list[Allowance] = []
        self._exporter = WatchedExporter(OTLPSpanExporter(endpoint=endpoint))
        resource = Resource.create(
            {
                "service.name": "mq9-broker",
                "service.version": __version__,
                "service.instance.id": server_name,
                **OTELResourceDetector().detect().attributes,  # OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES
            }
        )
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._processor = _CountingProcessor(self._exporter)
        self._provider.add_span_processor(self._processor)

    def traced(self, handler: Handler) -> TracedHandler:
        """Return a handler that does what another does, with spans."""
        tracer = self._provider.get_tracer("mq9_broker", __version__)
        traced = TracedHandler(handler, tracer, self._options)
        self._allowances.append(traced.allowance)
        return traced

    def metrics(self) -> Iterator[Metric]:
        """What became of the spans, for `/metrics`."""
        spans = CounterMetricFamily(
            "mq9_trace_spans",
            "Spans that ended, what became of them, and requests that were too many to have one.",
            labels=("result",),
        )
        spans.add_metric(("ended",), self._processor.ended)
        spans.add_metric(("delivered",), self._exporter.delivered)
        spans.add_metric(("failed",), self._exporter.failed)
        spans.add_metric(("left_out",), sum(allowance.refused for allowance in self._allowances))
        yield spans

    async def close(self) -> None:
        """Deliver what waits, for two seconds at most, and end."""
        # A thread that ends with the process: the SDK may wait for much longer.
        thread = threading.Thread(target=self._provider.shutdown, name="last-traces", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, _LAST_DELIVERY_S)
