"""The requests that one call of `Shell.handle` carries out."""

from __future__ import annotations

from typing import Final

from mq9_broker.engine.commands import Command
from mq9_broker.shell.waiting import Connection, Waiter

# (subject, reply subject, header block, payload); see mq9_broker.transport.interface.
Request = tuple[bytes, bytes | None, bytes | None, bytes]

# Requests of one call whose replies may be as long as a reply can be.
READS_PER_CALL: Final = 16


class EnoughError(Exception):
    """The replies of this call may be too many bytes already."""


class Chunk:
    """What the engine still has to do for one call, and the replies so far.

    Attributes:
        connection: Who asked.
        now_ms: When.
        commands: What the engine still has to do.
        requests: The request that each command came from, at the same place.
        fetches: FETCHes among the commands, by their place.
        replies: (reply subject, JSON), in the order of the requests.
    """

    __slots__ = ("_reads", "commands", "connection", "fetches", "now_ms", "replies", "requests")

    def __init__(self, connection: Connection, now_ms: int) -> None:
        self.connection = connection
        self.now_ms = now_ms
        self.commands: list[Command] = []
        self.requests: list[Request] = []
        self.fetches: dict[int, Waiter] = {}
        self.replies: list[tuple[bytes, bytes]] = []
        self._reads = 0

    def count_read(self) -> None:
        """Count a request whose reply may be long.

        Raises:
            EnoughError: There were as many as may be: this one has to wait until the client has read.
        """
        if self._reads >= READS_PER_CALL:
            raise EnoughError
        self._reads += 1

    def collect(self, command: Command, request: Request) -> None:
        """Note the command of a request."""
        self.commands.append(command)
        self.requests.append(request)

    def reply(self, reply_to: bytes | None, reply: bytes) -> None:
        """Answer, if anybody wants to know."""
        if reply_to is not None:
            self.replies.append((reply_to, reply))
