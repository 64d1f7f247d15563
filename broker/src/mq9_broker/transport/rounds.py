"""Rounds: what all clients sent in one turn of the event loop is carried out together, at its end.

One thing after the other for all of them costs less than everything for one of them after the other: the
engine stores the SENDs of several clients at once, and replies that are written in a row wake a client once.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from mq9_broker.transport.connection import INTERNAL_ERROR, Connection
from mq9_broker.transport.interface import Request
from mq9_broker.transport.parser import Event

if TYPE_CHECKING:
    from mq9_broker.transport.listener import Listener

log = logging.getLogger(__name__)

# Clients whose requests are carried out before anything is written: their replies are all in memory then.
_MOST_TOGETHER: Final = 16
# Bytes that came in, beyond which a round does not wait for the end of the turn.
_MOST_ARRIVED: Final = 4 * 2**20


class Rounds:
    """Collects what came in, and carries it out."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        # Once for each client, so that what is left of it is carried out before what it sent next.
        self._arrived: dict[Connection, list[Event]] = {}
        self._arrived_bytes = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for the end of a turn from now on; before, everything is carried out as it comes."""
        self._loop = loop

    def add(self, connection: Connection, events: list[Event], size: int) -> None:
        """Take what one read of a client's socket brought in.

        Args:
            connection: the client.
            events: what it was.
            size: how many bytes.
        """
        arrived = self._arrived
        if not arrived and self._loop is not None:
            self._loop.call_soon(self.end)
        before = arrived.get(connection)
        if before is None:
            arrived[connection] = events
        else:
            _append(before, events)
        self._arrived_bytes += size
        if self._loop is None or self._arrived_bytes > _MOST_ARRIVED:
            self.end()

    def end(self) -> None:
        """Carry out what has come in, each client's in its order, and write all that it led to."""
        arrived = self._arrived
        if not arrived:
            return
        self._arrived = {}
        self._arrived_bytes = 0
        listener = self._listener
        parts: list[tuple[Connection, list[Request]]] = []
        for connection, events in arrived.items():
            requests = connection.only_requests(events)
            if requests is None:
                self._carry_out(parts)
                listener.is_busy = True
                try:
                    connection.carry_out(events)
                except Exception:
                    # A mistake of the broker, and nobody else's: what others sent is carried out.
                    log.exception("connection %d: carrying out what came in failed", connection.client_id)
                    connection.fail(INTERNAL_ERROR)
                finally:
                    listener.flush()
                continue
            parts.append((connection, requests))
            if len(parts) >= _MOST_TOGETHER:
                self._carry_out(parts)
        self._carry_out(parts)

    def _carry_out(self, parts: list[tuple[Connection, list[Request]]]) -> None:
        """Carry out parts that are requests and nothing else, and forget them."""
        if not parts:
            return
        listener = self._listener
        handler = listener.handler
        listener.is_busy = True
        try:
            done = [handler.handle(*parts[0])] if len(parts) == 1 else handler.handle_all(parts)
            for (connection, requests), count in zip(parts, done, strict=True):
                if count < len(requests):
                    connection.carry_out_rest(requests[count:])
        except Exception:
            log.exception("carrying out requests of %d connections failed", len(parts))
            for connection, _ in parts:
                connection.fail(INTERNAL_ERROR)
        finally:
            listener.flush()
        parts.clear()


def _append(before: list[Event], events: list[Event]) -> None:
    """Add events of a client to those of an earlier read; requests that follow each other stay together."""
    if before and events and isinstance(before[-1], list) and isinstance(events[0], list):
        before[-1] = before[-1] + events[0]
        events = events[1:]
    before += events
