"""What passes between a transport and whatever carries out mq9 requests (the shell)."""

from collections.abc import Sequence
from typing import Protocol

from mq9_broker._generated import SUBJECT_PREFIX

# (subject, reply subject or None, raw header block "NATS/1.0\r\n...\r\n\r\n" or None, payload)
Request = tuple[bytes, bytes | None, bytes | None, bytes]

# (reply subject, JSON bytes)
Reply = tuple[bytes, bytes]

# Every request subject of mq9 starts with this; the broker alone receives what is published below it.
REQUEST_PREFIX = SUBJECT_PREFIX


class ClientConnection(Protocol):
    """One client, as the handler of its requests sees it. Usable as a dictionary key."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended: replies to it go nowhere."""

    def listens(self, subject: bytes) -> bool:
        """Whether a reply to this subject would reach a subscription of this connection now."""

    def send_replies(self, replies: list[Reply]) -> None:
        """Deliver replies to this connection's own matching subscriptions, and to nobody else.

        All of them are joined and written together. A reply that no subscription of this connection
        matches is dropped.
        """


class Handler(Protocol):
    """What carries out requests below `$mq9.AI.`."""

    def handle(self, connection: ClientConnection, requests: list[Request]) -> int:
        """Carry out requests of one connection, in the order in which they were sent.

        Called synchronously, with all that one read of the socket brought in (at most a few hundred at a
        time). Answers with `connection.send_replies`, now or later.

        Returns:
            How many of them were carried out, one at least. The others are asked for again, when the client
            has read most of what it was sent.
        """

    def handle_all(self, parts: Sequence[tuple[ClientConnection, list[Request]]]) -> Sequence[int]:
        """Carry out requests of several connections, each there once; does what `handle` does, part by part.

        Returns:
            How many of each part were carried out, as `handle` does.
        """

    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a connection: called once, when it has ended for whatever reason."""
