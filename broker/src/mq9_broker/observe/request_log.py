"""The log of requests: a line for each as it is answered, with an id, where the level of `requests` is debug.

A line costs several times what its request costs: it is for looking at a broker closely, not for every day.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from itertools import count
from typing import Final

import msgspec

from mq9_broker._generated.operations import OPERATIONS
from mq9_broker.observe.census import hash_of
from mq9_broker.observe.wrappers import ConnectionWrapper, HandlerWrapper
from mq9_broker.shell.refusal import RefusedError
from mq9_broker.shell.router import Router
from mq9_broker.transport.interface import ClientConnection, Handler, Reply, Request

_log = logging.getLogger("mq9_broker.requests")

_UNKNOWN_OPERATION: Final = "unknown"
_INTERNAL: Final = "internal"
_OK: Final = "ok"
_SILENT: Final = "no reply wanted"
_DISCONNECTED: Final = "connection closed"


class _Answer(msgspec.Struct):
    """What a line tells of a reply."""

    error: str = ""
    code: str = ""


class _Request:
    """What a line tells of a request."""

    __slots__ = ("began", "facts")

    def __init__(self, facts: dict[str, object]) -> None:
        self.facts = facts
        self.began = time.perf_counter()

    def end(self, result: str, error: str = "") -> None:
        """Write the line."""
        milliseconds = round((time.perf_counter() - self.began) * 1000, 3)
        facts = self.facts | {"result": result, "ms": milliseconds}
        text = "request %(request_id)s: %(operation)s"
        if "mailbox" in facts:
            text += ", mailbox %(mailbox)s"
        text += ", %(bytes)d bytes: %(result)s, %(ms).3f ms"
        if error:
            text += f" ({error})"
        _log.debug(text, facts, extra=facts)


_decode_answer = msgspec.json.Decoder(_Answer).decode


class _LoggedConnection(ConnectionWrapper):
    """A client's connection, which writes lines as the replies leave."""

    __slots__ = ("open",)

    def __init__(self, connection: ClientConnection) -> None:
        super().__init__(connection)
        # Requests that are not answered yet, by reply subject and in order.
        self.open: dict[bytes, list[_Request]] = {}

    def send_replies(self, replies: list[Reply]) -> None:
        self._connection.send_replies(replies)
        for reply_to, reply in replies if self.open else ():
            waiting = self.open.get(reply_to)
            if waiting is None:
                continue
            answer = _decode_answer(reply)
            result = (answer.code or _INTERNAL) if answer.error else _OK
            # Texts of other errors may name a mailbox; this one names the entry of the log that says more.
            waiting.pop(0).end(result, answer.error if result == _INTERNAL else "")
            if not waiting:
                del self.open[reply_to]


class RequestLog(HandlerWrapper):
    """Writes a line for each request that another handler carries out, as long as its level is debug.

    Once it has handled a request of a connection it has to hear of that one's end.

    Args:
        handler: What carries out the requests.
        show_addresses: Name mailboxes by address instead of by hash.
    """

    def __init__(self, handler: Handler, *, show_addresses: bool = False) -> None:
        super().__init__(handler)
        self._show_addresses = show_addresses
        self._router = Router(OPERATIONS)
        self._connections: dict[ClientConnection, _LoggedConnection] = {}
        # Ids of this process begin alike: lines of several runs in one file can be told apart.
        self._prefix = secrets.token_hex(2)
        self._numbers = count(1)

    @staticmethod
    def is_wanted() -> bool:
        """Whether the log's levels ask for these lines now."""
        return _log.isEnabledFor(logging.DEBUG)

    def handle(self, connection: ClientConnection, requests: list[Request]) -> int:
        """Carry out requests of one connection; see `Handler`."""
        if not self.is_wanted():
            return self._handler.handle(self._connections.get(connection, connection), requests)
        logged = self._connections.get(connection)
        if logged is None:
            logged = self._connections[connection] = _LoggedConnection(connection)
        begun = [self._begin(request) for request in requests]
        for (_, reply_to, _, _), request in zip(requests, begun, strict=True):
            if reply_to is not None:
                logged.open.setdefault(reply_to, []).append(request)
        done = self._handler.handle(logged, requests)
        for place, ((_, reply_to, _, _), request) in enumerate(zip(requests, begun, strict=True)):
            if reply_to is None:
                if place < done:
                    request.end(_SILENT)
            elif place >= done:  # comes again
                _forget(logged.open, reply_to, request)
        return done

    def handle_all(self, parts: Sequence[tuple[ClientConnection, list[Request]]]) -> Sequence[int]:
        """Carry out requests of several connections; see `Handler`."""
        if not self._connections and not self.is_wanted():
            return self._handler.handle_all(parts)
        return super().handle_all(parts)

    def connection_closed(self, connection: ClientConnection) -> None:
        """Forget a connection; requests that are not answered yet never will be."""
        # As it was known before the first line, too.
        self._handler.connection_closed(connection)
        logged = self._connections.pop(connection, None)
        if logged is None:
            return
        self._handler.connection_closed(logged)
        for waiting in logged.open.values():
            for request in waiting:
                request.end(_DISCONNECTED)
        logged.open.clear()

    def _begin(self, request: Request) -> _Request:
        subject, reply_to, headers, payload = request
        facts: dict[str, object] = {"request_id": f"{self._prefix}-{next(self._numbers)}"}
        try:
            route = self._router.route(subject)
        except RefusedError:
            facts["operation"] = _UNKNOWN_OPERATION
        else:
            facts["operation"] = route.operation.name
            if route.address:
                address = route.address
                facts["mailbox"] = address.decode() if self._show_addresses else hash_of(address)
        facts["bytes"] = len(headers or b"") + len(payload)
        if reply_to is not None:
            # What the client knows the request by.
            facts["reply_to"] = reply_to.decode(errors="backslashreplace")
        return _Request(facts)


def _forget(waiting: dict[bytes, list[_Request]], reply_to: bytes, request: _Request) -> None:
    requests = waiting[reply_to]
    requests.remove(request)
    if not requests:
        del waiting[reply_to]
