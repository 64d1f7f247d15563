"""What goes out to one client: replies, messages and remarks, collected and written together."""

import logging
from typing import TYPE_CHECKING

from mq9_broker.auth import Permissions
from mq9_broker.transport.channel import Channel
from mq9_broker.transport.interface import REQUEST_PREFIX, Reply
from mq9_broker.transport.parser import Publish
from mq9_broker.transport.subscriptions import Subscription, SubscriptionIndex

if TYPE_CHECKING:
    from mq9_broker.transport.listener import Listener

log = logging.getLogger(__name__)

SLOW_CONSUMER = "Slow Consumer"

# Bytes of output that are collected at most before they are written; replies to requests are not counted.
_MOST_COLLECTED = 1024 * 1024
_SHORT_REPLY = 1024
_LENGTH_LINES = tuple(b"%d\r\n" % length for length in range(_SHORT_REPLY))
# From so many replies on, handling them together costs less than one by one.
_MANY_REPLIES = 12


class Outgoing:
    """The half of a connection that writes, and the subscriptions that say what.

    Attributes:
        client_id: the number of the connection, unique while the broker runs.
        is_closed: nothing is sent to or taken from the client any more.
        accepts_headers: the client understands HMSG.
        verbose: the client wants every line acknowledged.
    """

    __slots__ = (
        "_collected",
        "_index",
        "_listener",
        "_out",
        "_permissions",
        "_sids",
        "_space",
        "_transport",
        "_write_paused",
        "_written",
        "accepts_headers",
        "client_id",
        "is_closed",
        "verbose",
    )

    def __init__(self, listener: "Listener") -> None:
        self._listener = listener
        self._transport: Channel | None = None
        self._sids: dict[bytes, Subscription] = {}
        self._index: SubscriptionIndex | None = None
        # The subscriptions of all whom this client hears and who hear it.
        self._space = listener.index
        self._permissions: Permissions | None = None
        self._out: list[bytes] = []
        self._collected = 0
        self._written = 0
        self._write_paused = False
        self.client_id = listener.next_client_id()
        self.is_closed = False
        # What holds until the client's CONNECT, as in the reference server.
        self.accepts_headers = False
        self.verbose = True

    def listens(self, subject: bytes) -> bool:
        """Whether a reply to this subject would reach a subscription of this connection now."""
        if self.is_closed or self._index is None or subject.startswith(REQUEST_PREFIX):
            return False
        return bool(self._index.match(subject))

    def send_replies(self, replies: list[Reply]) -> None:
        """Deliver replies to this connection's own matching subscriptions, and to nobody else."""
        index = self._index
        if self.is_closed or index is None or (self._write_paused and self._is_too_slow()):
            return
        listener = self._listener
        if not self._out:
            listener.with_output.append(self)
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
        if not listener.is_busy:
            listener.flush()

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
        if self._permissions is not None and not self._permissions.may_receive(message.subject):
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

    def _remove(self, subscription: Subscription) -> None:
        if self._sids.pop(subscription.sid, None) is None:
            return
        if self._index is not None and not subscription.subject.startswith(REQUEST_PREFIX):
            self._index.remove(subscription)
            self._space.remove(subscription)

    def _ok(self) -> None:
        if self.verbose:
            self._write(b"+OK\r\n")

    def _error(self, text: str) -> None:
        self._write(b"-ERR '%b'\r\n" % text.encode())

    def _write(self, data: bytes) -> None:
        if not self._out:
            self._listener.with_output.append(self)
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
        """Let the listener and other clients forget this one."""
        raise NotImplementedError
