"""One client's connection: carries out what the parser read, writes what the client is to get."""

import asyncio
import logging
from typing import TYPE_CHECKING, cast

import msgspec

from mq9_broker.transport.interface import REQUEST_PREFIX, Reply, Request
from mq9_broker.transport.parser import (
    PARSER_ERROR,
    Connect,
    Event,
    Parser,
    Ping,
    Pong,
    ProtocolError,
    Publish,
    Subscribe,
    Unsubscribe,
)
from mq9_broker.transport.subscriptions import (
    Subscription,
    SubscriptionIndex,
    is_publishable,
    is_valid_subject,
)

if TYPE_CHECKING:
    from mq9_broker.transport.listener import Listener

log = logging.getLogger(__name__)

SLOW_CONSUMER = "Slow Consumer"
STALE_CONNECTION = "Stale Connection"
INVALID_SUBJECT = "Invalid Subject"
INVALID_PUBLISH_SUBJECT = "Invalid Publish Subject"
INVALID_CLIENT_PROTOCOL = "invalid client protocol"
NO_RESPONDERS_REQUIRES_HEADERS = "no responders requires headers support"
INTERNAL_ERROR = "Internal Error"

# A handler gets at most so many requests in one call: the replies to them are the most that a client which
# does not read can make the broker hold beyond the bound on pending bytes.
_REQUESTS_PER_CALL = 128
# Bytes of output that are collected at most before they are written; replies to requests are not counted.
_MOST_COLLECTED = 1024 * 1024
# Seconds for which a connection that was ended may still read the reason.
_LINGER = 1.0
_SHORT_REPLY = 1024
_LENGTH_LINES = tuple(b"%d\r\n" % length for length in range(_SHORT_REPLY))
# From so many replies on, handling them together costs less than one by one.
_MANY_REPLIES = 12


class _ConnectOptions(msgspec.Struct):
    """What CONNECT may say and the broker looks at; everything else is ignored."""

    verbose: bool | None = None
    pedantic: bool | None = None
    echo: bool | None = None
    headers: bool | None = None
    no_responders: bool | None = None
    protocol: int | None = None
    name: str | None = None
    lang: str | None = None
    version: str | None = None


_decode_connect = msgspec.json.Decoder(_ConnectOptions).decode


class Connection(asyncio.Protocol):
    """One client.

    Attributes:
        client_id: the number of the connection, unique while the broker runs.
        is_closed: nothing is sent to or taken from the client any more.
    """

    __slots__ = (
        "_collected",
        "_deferred",
        "_index",
        "_listener",
        "_out",
        "_parser",
        "_sids",
        "_transport",
        "_write_paused",
        "_written",
        "accepts_headers",
        "accepts_info",
        "client_id",
        "echo",
        "has_connected",
        "is_closed",
        "no_responders",
        "pedantic",
        "pings_out",
        "seen",
        "verbose",
    )

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._parser = Parser(listener.parser_limits)
        self._transport: asyncio.Transport | None = None
        self._sids: dict[bytes, Subscription] = {}
        self._index: SubscriptionIndex | None = None
        self._out: list[bytes] = []
        self._collected = 0
        self._written = 0
        self._write_paused = False
        # Events that wait until the client has read what it was sent.
        self._deferred: list[Event] | None = None
        self.client_id = listener.next_client_id()
        self.is_closed = False
        # What holds until the client's CONNECT, as in the reference server.
        self.has_connected = False
        self.accepts_info = False
        self.accepts_headers = False
        self.no_responders = False
        self.verbose = True
        self.pedantic = True
        self.echo = True
        # Keep-alive: whether anything came since the last look, and PINGs without an answer.
        self.seen = True
        self.pings_out = 0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client."""
        self._transport = transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        transport.set_write_buffer_limits(high=self._listener.options.write_high_water)
        peer = transport.get_extra_info("peername")
        transport.write(self._listener.info_line(self, str(peer[0]) if peer else ""))
        self._listener.add(self)

    def data_received(self, data: bytes) -> None:
        """Carry out what came in, all of it, and write all that it led to at once."""
        if self.is_closed:
            return
        self.seen = True
        events = self._parser.feed(data)
        if self._deferred is not None:
            self._deferred += events
            return
        self._listener.begin()
        try:
            self._carry_out(events)
        finally:
            self._listener.flush()

    def eof_received(self) -> None:
        """Let the transport close: the client sends no more."""

    def connection_lost(self, error: Exception | None) -> None:
        """Forget everything about the client."""
        self._forget()
        self._transport = None
        self._listener.transport_closed()

    def pause_writing(self) -> None:
        """Remember that the client reads more slowly than the broker writes."""
        self._write_paused = True
        self._listener.watch_writing(self)

    def resume_writing(self) -> None:
        """Go on with what had to wait for the client to read."""
        self._write_paused = False
        self._listener.stop_watching_writing(self)
        if self._deferred is None or self.is_closed:
            return
        events, self._deferred = self._deferred, None
        self._listener.begin()
        try:
            self._carry_out(events)
        finally:
            self._listener.flush()
        if self._deferred is None and self._transport is not None and not self.is_closed:
            self._transport.resume_reading()

    # What the client asked for.

    def _carry_out(self, events: list[Event]) -> None:
        for position, event in enumerate(events):
            if self.is_closed:
                return
            if isinstance(event, list):
                remaining = self._handle_requests(event)
                if remaining:
                    self._defer([remaining, *events[position + 1 :]])
                    return
            elif isinstance(event, Publish):
                self._publish(event)
            elif isinstance(event, Subscribe):
                self._subscribe(event)
            elif isinstance(event, Unsubscribe):
                self._unsubscribe(event)
            elif isinstance(event, Ping):
                self._write(b"PONG\r\n")
            elif isinstance(event, Pong):
                self.pings_out = 0
            elif isinstance(event, Connect):
                self._connect(event)
            else:
                self._end(event)

    def _handle_requests(self, requests: list[Request]) -> list[Request]:
        """Hand requests over to the handler; return those that have to wait."""
        if not self.accepts_headers and any(request[2] is not None for request in requests):
            self.fail(PARSER_ERROR)
            return []
        handler = self._listener.handler
        # One by one where each is acknowledged: the handler may leave some of several.
        most = 1 if self.pedantic or self.verbose else _REQUESTS_PER_CALL
        start = 0
        while start < len(requests) and not self.is_closed:
            if self._write_paused:
                return requests[start:]
            some = requests if len(requests) <= most and not start else requests[start : start + most]
            if self.pedantic or self.verbose:
                self._acknowledge(some[0][0])
            try:
                start += handler.handle(self, some)
            except Exception:
                log.exception("connection %d: carrying out requests failed", self.client_id)
                self.fail(INTERNAL_ERROR)
            if start < len(requests):
                self.flush()  # shows whether the client keeps up
        return []

    def _defer(self, events: list[Event]) -> None:
        self._deferred = events
        if self._transport is not None:
            self._transport.pause_reading()

    def _connect(self, event: Connect) -> None:
        try:
            options = _decode_connect(event.options)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.info("connection %d: CONNECT refused: %s", self.client_id, error)
            self.fail(PARSER_ERROR)
            return
        if options.verbose is not None:
            self.verbose = options.verbose
        if options.pedantic is not None:
            self.pedantic = options.pedantic
        if options.echo is not None:
            self.echo = options.echo
        if options.headers is not None:
            self.accepts_headers = options.headers
        if options.no_responders is not None:
            self.no_responders = options.no_responders
        if options.protocol is not None:
            if not 0 <= options.protocol <= 1:
                self.fail(INVALID_CLIENT_PROTOCOL)
                return
            self.accepts_info = options.protocol >= 1
        if self.no_responders and not self.accepts_headers:
            self.fail(NO_RESPONDERS_REQUIRES_HEADERS)
            return
        self.has_connected = True
        log.debug(
            "connection %d: %s %s, name %r", self.client_id, options.lang, options.version, options.name
        )
        self._ok()

    def _subscribe(self, event: Subscribe) -> None:
        if not is_valid_subject(event.subject):
            self._error(INVALID_SUBJECT)
            return
        if event.sid not in self._sids:
            subscription = Subscription(self, event.subject, event.queue, event.sid)
            self._sids[event.sid] = subscription
            # Below `$mq9.AI.` nothing is ever delivered: such a subscription only waits for its UNSUB.
            if not event.subject.startswith(REQUEST_PREFIX):
                if self._index is None:
                    self._index = SubscriptionIndex()
                self._index.add(subscription)
                self._listener.index.add(subscription)
        self._ok()

    def _unsubscribe(self, event: Unsubscribe) -> None:
        subscription = self._sids.get(event.sid)
        if subscription is not None:
            subscription.limit = event.limit
            if subscription.delivered >= event.limit:
                self._remove(subscription)
        self._ok()

    def _remove(self, subscription: Subscription) -> None:
        if self._sids.pop(subscription.sid, None) is None:
            return
        if self._index is not None and not subscription.subject.startswith(REQUEST_PREFIX):
            self._index.remove(subscription)
            self._listener.index.remove(subscription)

    def _publish(self, event: Publish) -> None:
        subject, reply, headers, _ = event
        if headers is not None and not self.accepts_headers:
            self.fail(PARSER_ERROR)
            return
        if self.pedantic or self.verbose:
            self._acknowledge(subject)
        delivered = False
        for subscription in self._listener.index.match(subject).receivers(None if self.echo else self):
            if subscription.connection.deliver(subscription, event):
                delivered = True
        if not delivered and reply is not None and self.no_responders:
            self._send_no_responders(reply, subject)

    def _send_no_responders(self, reply: bytes, subject: bytes) -> None:
        """Tell the client, by one subscription, that nobody listens on a subject."""
        if self._index is None or reply.startswith(REQUEST_PREFIX):
            return
        status = b"NATS/1.0 503\r\nNats-Subject: %b\r\n\r\n" % subject
        for subscription in self._index.match(reply).plain[:1]:
            self.deliver(subscription, Publish(reply, None, status, b""))

    # What the client gets.

    def listens(self, subject: bytes) -> bool:
        """Whether a reply to this subject would reach a subscription of this connection now."""
        if self.is_closed or self._index is None or subject.startswith(REQUEST_PREFIX):
            return False
        return bool(self._index.match(subject))

    def send_replies(self, replies: list[Reply]) -> None:
        """Deliver replies to this connection's own matching subscriptions, and to nobody else."""
        index = self._index
        if self.is_closed or index is None or self._is_too_slow():
            return
        if not self._out:
            self._listener.has_output(self)
        if len(replies) < _MANY_REPLIES or not self._send_many(index, replies):
            out = self._out
            literal = index.literal
            inbox = None
            known_prefix = None
            for subject, body in replies:
                prefix, _, token = subject.rpartition(b".")
                if prefix != known_prefix:
                    known_prefix = prefix
                    inbox = index.sole_inbox(prefix)
                if inbox is None or not token or (literal and subject in literal):
                    self._route(Publish(subject, None, None, body))
                else:
                    inbox.delivered += 1
                    length = len(body)
                    out += (
                        b"MSG ",
                        subject,
                        inbox.head,
                        _LENGTH_LINES[length] if length < _SHORT_REPLY else b"%d\r\n" % length,
                        body,
                        b"\r\n",
                    )
        self._listener.flush_unless_busy()

    def _send_many(self, index: SubscriptionIndex, replies: list[Reply]) -> bool:
        """Do what `send_replies` does at 2/3 of the cost, by loops in C, one step for all replies at a time.

        Returns:
            Whether it was possible: all of them short, and for one inbox. Otherwise nothing was done.
        """
        subjects, bodies = zip(*replies, strict=True)
        prefix = subjects[0].rpartition(b".")[0]
        inbox = index.sole_inbox(prefix)
        start = prefix + b"."
        joined = b"\n".join(subjects)
        count = len(subjects)
        if (
            inbox is None
            or joined.count(b"\n" + start) != count - 1
            or joined.count(b".") != count * start.count(b".")
            or b".\n" in joined
            or joined.endswith(b".")
            or (index.literal and not index.literal.keys().isdisjoint(subjects))
        ):
            return False
        lengths = list(map(len, bodies))
        longest = max(lengths)
        if longest >= _SHORT_REPLY:
            return False
        inbox.delivered += count
        if longest == min(lengths):  # as replies to SENDs mostly are
            parts = [b"\r\nMSG ", b"", inbox.head + _LENGTH_LINES[longest], b""] * count
            parts[1::4] = subjects
            parts[3::4] = bodies
        else:
            parts = [b"\r\nMSG ", b"", inbox.head, b"", b""] * count
            parts[1::5] = subjects
            parts[3::5] = map(_LENGTH_LINES.__getitem__, lengths)
            parts[4::5] = bodies
        parts[0] = b"MSG "
        parts.append(b"\r\n")
        self._out += parts
        return True

    def _route(self, message: Publish) -> None:
        """Deliver a message to this connection's own matching subscriptions."""
        if self._index is None or message.subject.startswith(REQUEST_PREFIX):
            return
        for subscription in self._index.match(message.subject).receivers():
            self.deliver(subscription, message)

    def deliver(self, subscription: Subscription, message: Publish) -> bool:
        """Send a message to one subscription of this connection; whether it was."""
        if self.is_closed or self._is_too_slow():
            return False
        subscription.delivered += 1
        if subscription.limit and subscription.delivered >= subscription.limit:
            self._remove(subscription)
        subject, reply, headers, payload = message
        middle = subscription.head if reply is None else subscription.head + reply + b" "
        if headers is not None and self.accepts_headers:
            length = len(headers)
            self._write(
                b"HMSG %b%b%d %d\r\n%b%b\r\n"
                % (subject, middle, length, length + len(payload), headers, payload)
            )
        else:
            self._write(b"MSG %b%b%d\r\n%b\r\n" % (subject, middle, len(payload), payload))
        return True

    def ping(self) -> None:
        """Ask the client whether it is there."""
        self.pings_out += 1
        self._write(b"PING\r\n")
        self._listener.flush_unless_busy()

    def send_info(self) -> None:
        """Tell the client what has changed about the server, if it understands that."""
        if self.accepts_info and not self.is_closed:
            self._write(self._listener.info_line(self))
            self._listener.flush_unless_busy()

    def _acknowledge(self, subject: bytes) -> None:
        """Say what a pedantic or verbose client wants to hear of a message that is carried out anyway."""
        if self.pedantic and not is_publishable(subject):
            self._error(INVALID_PUBLISH_SUBJECT)
        self._ok()

    def _ok(self) -> None:
        if self.verbose:
            self._write(b"+OK\r\n")

    def _error(self, text: str) -> None:
        self._write(b"-ERR '%b'\r\n" % text.encode())

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._listener.has_output(self)
        self._out.append(data)
        self._collected += len(data)
        if self._collected > _MOST_COLLECTED:
            self.flush()  # one read may lead to far more output than it was long

    def flush(self) -> None:
        """Hand what was collected over to the transport."""
        if self._out:
            data = b"".join(self._out)
            self._out = []
            self._collected = 0
            self._written += len(data)
            if self._transport is not None:
                self._transport.write(data)

    @property
    def is_held_up(self) -> bool:
        """Whether the client's requests wait until it has read what it was sent."""
        return self._deferred is not None

    @property
    def pending(self) -> int:
        """Bytes that the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    @property
    def taken(self) -> int:
        """Bytes that have left for the client so far."""
        return self._written - self.pending

    def _is_too_slow(self) -> bool:
        if self._write_paused and self.pending > self._listener.options.max_pending:
            self.cut(f"{SLOW_CONSUMER}: {self.pending} bytes pending")
            return True
        return False

    # How it ends.

    def _end(self, error: ProtocolError) -> None:
        self.fail(error.text)

    def fail(self, text: str) -> None:
        """End the connection and tell the client why."""
        if self.is_closed:
            return
        log.info("connection %d: %s", self.client_id, text)
        self._error(text)
        self.close()

    def close(self) -> None:
        """End the connection once the client has got what was written."""
        if self.is_closed:
            return
        self._forget()
        self.flush()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        # Closing a socket that holds unread input would reset it, and the reason might never be read. So end
        # only this direction and ignore the other, for a moment.
        try:
            transport.write_eof()
            transport.resume_reading()
        except OSError:  # the client has gone already
            transport.abort()
        else:
            asyncio.get_running_loop().call_later(_LINGER, transport.abort)

    def cut(self, reason: str) -> None:
        """End the connection at once; what is pending is thrown away."""
        if self.is_closed:
            return
        log.warning("connection %d: cut: %s", self.client_id, reason)
        self._forget()
        self._out = []
        if self._transport is not None:
            self._transport.abort()

    def _forget(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._deferred = None
        for subscription in list(self._sids.values()):
            self._remove(subscription)
        self._listener.remove(self)
