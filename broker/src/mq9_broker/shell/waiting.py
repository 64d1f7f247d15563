"""FETCHes that wait for a message: who waits where, since when, and until when."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from typing import Protocol

from mq9_broker._generated.commands import MsgFetch


class Connection(Protocol):
    """What the shell needs of a client's connection; hashable by identity."""

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended: replies to it go nowhere."""

    def listens(self, subject: bytes) -> bool:
        """Whether a reply to this subject would reach a subscription of this connection now."""

    def send_replies(self, replies: list[tuple[bytes, bytes]]) -> None:
        """Deliver replies to this connection's own matching subscriptions, and to nobody else."""


class Waiter:
    """One FETCH that found nothing and may wait.

    Attributes:
        connection: Who asked.
        reply_to: Where the answer goes.
        command: What is asked again when something becomes deliverable.
        empty_reply: The answer when the time is over.
        timer: What ends the waiting; None before it begins.
    """

    __slots__ = ("command", "connection", "empty_reply", "reply_to", "timer")

    def __init__(self, connection: Connection, reply_to: bytes, command: MsgFetch) -> None:
        self.connection = connection
        self.reply_to = reply_to
        self.command = command
        self.empty_reply = b""
        self.timer: asyncio.TimerHandle | None = None


# Ordered sets with cheap removal at the front and in the middle.
Queue = OrderedDict[Waiter, None]


class _Mailbox:
    """The waiters of one mailbox, in the order they began to wait."""

    __slots__ = ("leased", "open", "size")

    def __init__(self) -> None:
        self.open: Queue = OrderedDict()
        self.leased: dict[str, Queue] = {}
        self.size = 0


class WaitingRoom:
    """All waiters of this process.

    Attributes:
        mailboxes: Where somebody waits.
    """

    def __init__(self) -> None:
        self.mailboxes: dict[bytes, _Mailbox] = {}
        self._connections: dict[Connection, Queue] = {}
        self._size = 0

    def __contains__(self, address: bytes) -> bool:
        """Whether anybody waits at a mailbox."""
        return address in self.mailboxes

    def __bool__(self) -> bool:
        """Whether anybody waits at all."""
        return bool(self.mailboxes)

    def __len__(self) -> int:
        """How many wait."""
        return self._size

    def size(self, address: bytes) -> int:
        """How many wait at a mailbox."""
        mailbox = self.mailboxes.get(address)
        return mailbox.size if mailbox is not None else 0

    def size_of(self, connection: Connection) -> int:
        """How many of one connection wait."""
        return len(self._connections.get(connection, ()))

    def add(self, waiter: Waiter) -> None:
        """Let a FETCH wait, behind all that wait already."""
        command = waiter.command
        mailbox = self.mailboxes.setdefault(command.address, _Mailbox())
        mailbox.size += 1
        self._size += 1
        queue = (
            mailbox.leased.setdefault(command.group_name, OrderedDict()) if command.lease_ms else mailbox.open
        )
        queue[waiter] = None
        self._connections.setdefault(waiter.connection, OrderedDict())[waiter] = None

    def remove(self, waiter: Waiter) -> None:
        """End the waiting of a FETCH; nothing happens if it does not wait any more."""
        if waiter.timer is not None:
            waiter.timer.cancel()
        command = waiter.command
        mailbox = self.mailboxes.get(command.address)
        if mailbox is None:
            return
        queue = mailbox.leased.get(command.group_name) if command.lease_ms else mailbox.open
        if queue is None or waiter not in queue:
            return
        del queue[waiter]
        mailbox.size -= 1
        self._size -= 1
        if command.lease_ms and not queue:
            del mailbox.leased[command.group_name]
        if not mailbox.size:
            del self.mailboxes[command.address]
        own = self._connections[waiter.connection]
        del own[waiter]
        if not own:
            del self._connections[waiter.connection]

    def open(self, address: bytes, groups: set[str]) -> list[Waiter]:
        """Return who waits without a lease at a mailbox, of these groups; "" among them means everybody."""
        mailbox = self.mailboxes.get(address)
        if mailbox is None:
            return []
        everybody = "" in groups
        return [waiter for waiter in mailbox.open if everybody or waiter.command.group_name in groups]

    def leased_groups(self, address: bytes, groups: set[str]) -> list[str]:
        """Return the groups, of these, in which somebody waits for a lease; "" among them means all."""
        mailbox = self.mailboxes.get(address)
        if mailbox is None:
            return []
        return [group for group in mailbox.leased if "" in groups or group in groups]

    def first_leased(self, address: bytes, group: str, count: int) -> list[Waiter]:
        """Return the first `count` of those who wait for a lease in a group."""
        mailbox = self.mailboxes.get(address)
        queue = mailbox.leased.get(group) if mailbox is not None else None
        return [waiter for waiter, _ in zip(queue or (), range(count), strict=False)]

    def at(self, address: bytes) -> list[Waiter]:
        """Return all who wait at a mailbox."""
        mailbox = self.mailboxes.get(address)
        if mailbox is None:
            return []
        return [*mailbox.open, *(waiter for queue in mailbox.leased.values() for waiter in queue)]

    def of(self, connection: Connection) -> list[Waiter]:
        """Return the waiters of one connection."""
        return list(self._connections.get(connection, ()))

    def __iter__(self) -> Iterator[Waiter]:
        """All waiters, mailbox by mailbox."""
        for address in tuple(self.mailboxes):
            yield from self.at(address)
