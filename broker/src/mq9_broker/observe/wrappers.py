"""What stands between transport and shell and looks at requests and replies on their way."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from mq9_broker.transport.interface import ClientConnection, Handler, Reply, Request


class ConnectionWrapper(ABC):
    """A client's connection, seen from the shell.

    Args:
        connection: The connection itself.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    @property
    def is_closed(self) -> bool:
        """See `ClientConnection`."""
        return self._connection.is_closed

    def listens(self, subject: bytes) -> bool:
        """See `ClientConnection`."""
        return self._connection.listens(subject)

    @abstractmethod
    def send_replies(self, replies: list[Reply]) -> None:
        """Deliver replies; see `ClientConnection`."""


class HandlerWrapper(ABC):
    """Hands requests on to another handler.

    Args:
        handler: What carries out the requests.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    @abstractmethod
    def handle(self, connection: ClientConnection, requests: list[Request]) -> int:
        """Carry out requests of one connection; see `Handler`."""

    def handle_all(self, parts: Sequence[tuple[ClientConnection, list[Request]]]) -> Sequence[int]:
        """Carry out requests of several connections, one after the other; see `Handler`."""
        return [self.handle(connection, requests) for connection, requests in parts]

    @abstractmethod
    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a connection; requests that are not answered yet never will be."""
