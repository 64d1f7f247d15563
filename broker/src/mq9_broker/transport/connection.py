"""One client's connection: carries out what the parser read, writes what the client is to get."""

import asyncio
import logging
import time
from typing import TYPE_CHECKING, cast

import msgspec

from mq9_broker._generated import errors
from mq9_broker.auth import Identity, Permissions
from mq9_broker.auth.identity import STANDARD
from mq9_broker.auth.naming import forbidden
from mq9_broker.transport.admission import (
    AUTHENTICATION_EXPIRED,
    AUTHENTICATION_REVOKED,
    AUTHORIZATION_VIOLATION,
    TOO_MANY_OF_ACCOUNT,
    Admission,
    ConnectOptions,
    decode_connect,
)
from mq9_broker.transport.channel import CERTIFICATE, Channel
from mq9_broker.transport.interface import REQUEST_PREFIX, Request
from mq9_broker.transport.outgoing import Outgoing
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
    from mq9_broker.auth import Authenticator
    from mq9_broker.transport.listener import Listener
    from mq9_broker.transport.tls import TlsOptions

log = logging.getLogger(__name__)

STALE_CONNECTION = "Stale Connection"
INVALID_SUBJECT = "Invalid Subject"
INVALID_PUBLISH_SUBJECT = "Invalid Publish Subject"
INVALID_CLIENT_PROTOCOL = "invalid client protocol"
NO_RESPONDERS_REQUIRES_HEADERS = "no responders requires headers support"
INTERNAL_ERROR = "Internal Error"
MAXIMUM_SUBSCRIPTIONS_EXCEEDED = "maximum subscriptions exceeded"
TOO_MANY_TOKENS = "subject has exceeded number of tokens limit"
INVALID_SUBSCRIPTION_ID = "Invalid Subscription Identifier"
PUBLISH_FORBIDDEN = 'Permissions Violation for Publish to "%s"'
SUBSCRIPTION_FORBIDDEN = 'Permissions Violation for Subscription to "%s"'

# A handler gets at most so many requests in one call: the replies to them are the most that a client which
# does not read can make the broker hold beyond the bound on pending bytes.
_REQUESTS_PER_CALL = 128
# Seconds for which a connection that was ended may still read the reason.
_LINGER = 1.0
# Seconds of work for one client after which the others have their turn.
_TURN = 0.01
# A sid is a short number; a subject has a handful of tokens. More is an attempt to fill the memory.
_LONGEST_SID = 64
_MOST_TOKENS = 128


class Connection(Outgoing, asyncio.Protocol):
    """One client.

    Attributes:
        identity: who the client is; None where nobody is asked, and before it is known.
    """

    connection_type = STANDARD

    __slots__ = (
        "_admission",
        "_deferred",
        "_expiry",
        "_parser",
        "accepts_info",
        "echo",
        "has_connected",
        "identity",
        "no_responders",
        "pedantic",
        "pings_out",
        "seen",
    )

    def __init__(self, listener: "Listener") -> None:
        super().__init__(listener)
        self._parser = Parser(listener.parser_limits)
        # Events that wait until the client has read what it was sent, or is let in.
        self._deferred: list[Event] | None = None
        # Until the client is let in; None where everybody is.
        self._admission: Admission | None = None
        self._expiry: asyncio.TimerHandle | None = None
        self.identity: Identity | None = None
        # What holds until the client's CONNECT, as in the reference server.
        self.has_connected = False
        self.accepts_info = False
        self.no_responders = False
        self.pedantic = True
        self.echo = True
        # Keep-alive: whether anything came since the last look, and PINGs without an answer.
        self.seen = True
        self.pings_out = 0

    # Called by the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client."""
        self._transport = channel = cast("Channel", transport)
        channel.set_write_buffer_limits(high=self._listener.options.write_high_water)
        self._admission = self._listener.admission(self)
        nonce = self._admission.nonce if self._admission is not None else b""
        channel.write(self._listener.info_line(self, self.address, nonce))
        self._listener.add(self)

    def attach(self, transport: Channel) -> None:
        """Go on with another transport of the same client."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Take what came in: it is carried out in this turn of the event loop, with what others sent."""
        if not self.is_closed:
            self.seen = True
            self._listener.rounds.add(self, self._parser.feed(data), len(data))

    def eof_received(self) -> None:
        """Carry out what the client has sent, and let the transport close: it sends no more."""
        self._listener.rounds.end()

    def connection_lost(self, error: Exception | None) -> None:
        """Carry out what the client has sent, and forget everything about it."""
        self._listener.rounds.end()
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
        self._go_on()

    def _go_on(self) -> None:
        """Carry out what had to wait, if nothing keeps it waiting."""
        if self._deferred is None or self.is_closed or self._write_paused or self._admission is not None:
            return
        events, self._deferred = self._deferred, None
        self._listener.is_busy = True
        try:
            self._carry_out(events)
        finally:
            self._listener.flush()
        if self._deferred is None and self._transport is not None and not self.is_closed:
            self._transport.resume_reading()

    # What the client asked for.

    def only_requests(self, events: list[Event]) -> list[Request] | None:
        """Return what came in if it is requests and nothing else, and nothing stands in their way."""
        if len(events) != 1 or not isinstance(events[0], list) or len(events[0]) > _REQUESTS_PER_CALL:
            return None
        if self._permissions is not None or self._admission is not None or self._deferred is not None:
            return None
        if self.pedantic or self.verbose or self._write_paused or not self.accepts_headers or self.is_closed:
            return None
        return events[0]

    def carry_out_rest(self, requests: list[Request]) -> None:
        """Carry out requests that were left, once the client has read what it was sent."""
        self.flush()  # shows whether the client keeps up
        self.carry_out([requests])

    def carry_out(self, events: list[Event]) -> None:
        """Carry out what came in, all of it, or let it wait."""
        if self._deferred is None:
            self._carry_out(events)
            return
        self._deferred += events
        if self._admission is not None and self._transport is not None:
            self._transport.pause_reading()

    def _carry_out(self, events: list[Event]) -> None:
        turn_ends = time.monotonic() + _TURN
        for position, event in enumerate(events):
            if self.is_closed:
                return
            if self._admission is not None and not isinstance(event, Connect | ProtocolError):
                self.fail(AUTHORIZATION_VIOLATION)
            elif isinstance(event, list):
                remaining = self._handle_requests(event, turn_ends)
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
                if self._admission is not None and not self.is_closed:
                    self._defer(events[position + 1 :])
                    return
            else:
                self._end(event)
            if position & 15 == 15 and time.monotonic() > turn_ends and position + 1 < len(events):
                self._defer(events[position + 1 :])
                return

    def _handle_requests(self, requests: list[Request], turn_ends: float) -> list[Request]:
        """Hand requests over to the handler; return those that have to wait."""
        if not self.accepts_headers:
            for request in requests:
                if request[2] is not None:
                    self.fail(PARSER_ERROR)
                    return []
        if self._permissions is not None:
            requests = self._permitted(requests, self._permissions)
        handler = self._listener.handler
        # One by one where each is acknowledged: the handler may leave some of several.
        most = 1 if self.pedantic or self.verbose else _REQUESTS_PER_CALL
        start = 0
        while start < len(requests) and not self.is_closed:
            if self._write_paused or (start and time.monotonic() > turn_ends):
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

    def _permitted(self, requests: list[Request], permissions: Permissions) -> list[Request]:
        """Answer the requests that the client may not make, and return the others."""
        permitted = []
        for request in requests:
            subject, reply, _, payload = request
            lacking = forbidden(permissions, subject, payload)
            if not lacking:
                permitted.append(request)
            elif reply is None:
                self._error(PUBLISH_FORBIDDEN % lacking)
            else:
                why = errors.unauthorized(f"no permission for {lacking}")
                self._route(Publish(reply, None, None, why))
        return permitted

    def _defer(self, events: list[Event]) -> None:
        """Let events wait: for the client to read, to be let in, or for other clients to have their turn."""
        self._deferred = events
        if self._admission is not None:
            return  # read on, to see whether the client goes away
        if self._transport is not None:
            self._transport.pause_reading()
        if not self._write_paused:
            asyncio.get_running_loop().call_soon(self._go_on)

    def _connect(self, event: Connect) -> None:
        try:
            options = decode_connect(event.options)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            log.info("connection %d: CONNECT refused: %s", self.client_id, error)
            self.fail(PARSER_ERROR)
            return
        if not self._set(options):
            return
        log.debug(
            "connection %d: %s %s, name %r", self.client_id, options.lang, options.version, options.name
        )
        if self._admission is not None:
            self._admission.check(options)
        else:
            self.has_connected = True
            self._ok()

    def _set(self, options: ConnectOptions) -> bool:
        """Keep what a CONNECT says; whether it can be."""
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
                return False
            self.accepts_info = options.protocol >= 1
        if self.no_responders and not self.accepts_headers:
            self.fail(NO_RESPONDERS_REQUIRES_HEADERS)
            return False
        return True

    def let_in(self, identity: Identity) -> None:
        """Begin to serve a client, now that it is known who it is."""
        self._admission = None
        if not self._listener.enter_account(identity.account):
            self.fail(TOO_MANY_OF_ACCOUNT)
            return
        self.identity = identity
        self._space = self._listener.space(identity.account)
        self._apply(identity)
        self.has_connected = True
        self._ok()
        self._listener.flush_unless_busy()
        self._go_on()

    def tls_info(self, tls: "TlsOptions | None") -> dict[str, object]:
        """Return what INFO says of TLS."""
        return {} if tls is None else tls.info()

    def _apply(self, identity: Identity) -> None:
        """Let an identity's rules hold from now on."""
        self.identity = identity
        self._permissions = identity.permissions
        if identity.max_payload is not None:
            self._parser.set_limits(self._listener.limits_for(identity.max_payload))
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if identity.expires_at is not None:
            remaining = max(identity.expires_at - time.time(), 0.0)
            self._expiry = asyncio.get_running_loop().call_later(remaining, self.fail, AUTHENTICATION_EXPIRED)

    def reconsider(self, authenticator: "Authenticator | None") -> None:
        """Let a changed configuration hold: the rules of the client's user now, or it has to go."""
        if authenticator is None and self._admission is None:
            self._permissions = None
            return
        identity = None
        if self.identity is not None and authenticator is not None:
            identity = authenticator.renewed(self.identity, self.address, self.connection_type)
        if identity is None:
            self.fail(AUTHENTICATION_REVOKED)
            return
        self._apply(identity)
        permissions = identity.permissions
        if permissions is not None:
            for subscription in list(self._sids.values()):
                if not permissions.may_subscribe(subscription.subject, subscription.queue):
                    self._forbid(subscription.subject, subscription.queue)
                    self._remove(subscription)
            self._listener.flush_unless_busy()

    def _forbid(self, subject: bytes, queue: bytes | None) -> None:
        text = SUBSCRIPTION_FORBIDDEN % subject.decode(errors="backslashreplace")
        if queue is not None:
            text += f' using queue "{queue.decode(errors="backslashreplace")}"'
        self._error(text)

    def _subscribe(self, event: Subscribe) -> None:
        if not is_valid_subject(event.subject):
            self._error(INVALID_SUBJECT)
            return
        if self._permissions is not None and not self._permissions.may_subscribe(event.subject, event.queue):
            self._forbid(event.subject, event.queue)
            return
        if event.sid not in self._sids:
            if len(event.sid) > _LONGEST_SID:
                self.fail(INVALID_SUBSCRIPTION_ID)
                return
            if event.subject.count(b".") >= _MOST_TOKENS:
                self._error(TOO_MANY_TOKENS)
                return
            if len(self._sids) >= self._most_subscriptions():
                self._error(MAXIMUM_SUBSCRIPTIONS_EXCEEDED)
                return
            subscription = Subscription(self, event.subject, event.queue, event.sid)
            self._sids[event.sid] = subscription
            # Below `$mq9.AI.` nothing is ever delivered: such a subscription only waits for its UNSUB.
            if not event.subject.startswith(REQUEST_PREFIX):
                if self._index is None:
                    self._index = SubscriptionIndex()
                self._index.add(subscription)
                self._space.add(subscription)
        self._ok()

    def _most_subscriptions(self) -> int:
        most = self._listener.options.max_subscriptions
        own = self.identity.max_subscriptions if self.identity is not None else None
        return most if own is None else min(most, own)

    def _unsubscribe(self, event: Unsubscribe) -> None:
        subscription = self._sids.get(event.sid)
        if subscription is not None:
            subscription.limit = event.limit
            if subscription.delivered >= event.limit:
                self._remove(subscription)
        self._ok()

    def _publish(self, event: Publish) -> None:
        subject, reply, headers, _ = event
        if headers is not None and not self.accepts_headers:
            self.fail(PARSER_ERROR)
            return
        if self._permissions is not None and not self._permissions.may_publish(subject):
            self._error(PUBLISH_FORBIDDEN % subject.decode(errors="backslashreplace"))
            return
        if self.pedantic or self.verbose:
            self._acknowledge(subject)
        delivered = False
        for subscription in self._space.match(subject).receivers(None if self.echo else self):
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

    # What the broker says by itself.

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

    @property
    def address(self) -> str:
        """The client's IP address."""
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        return str(peer[0]) if peer else ""

    @property
    def subscription_count(self) -> int:
        """How many subscriptions the client has."""
        return len(self._sids)

    def describe(self) -> dict[str, object]:
        """What an operator may know of this client."""
        return {
            "id": self.client_id,
            "address": self.address,
            "user": self.identity.name if self.identity is not None else None,
            "type": self.connection_type,
            "subscriptions": self.subscription_count,
            "pending_bytes": self.pending,
            "held_up": self.is_held_up,
        }

    @property
    def certificate(self) -> bytes | None:
        """The client's TLS certificate, DER; None without."""
        found: bytes | None = None
        if self._transport is not None:
            found = self._transport.get_extra_info(CERTIFICATE)
        return found

    @property
    def is_held_up(self) -> bool:
        """Whether the client's requests wait until it has read what it was sent."""
        return self._deferred is not None

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

    def _forget(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._deferred = None
        if self._admission is not None:
            self._admission.end()
            self._admission = None
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        if self.identity is not None:
            self._listener.leave_account(self.identity.account)
        for subscription in list(self._sids.values()):
            self._remove(subscription)
        self._listener.remove(self)
