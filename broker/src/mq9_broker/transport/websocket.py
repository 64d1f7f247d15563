"""NATS in the binary messages of a WebSocket, for browsers."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, cast

from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from mq9_broker.auth.identity import WEBSOCKET
from mq9_broker.transport.channel import Channel, MakeUpper
from mq9_broker.transport.connection import Connection

if TYPE_CHECKING:
    from mq9_broker.transport.listener import Listener
    from mq9_broker.transport.tls import TlsOptions

log = logging.getLogger(__name__)

_END_OF_REQUEST = b"\r\n\r\n"
_LONGEST_REQUEST = 16 * 1024


class WebSocketConnection(Connection):
    """A NATS client that came by WebSocket."""

    __slots__ = ()
    connection_type = WEBSOCKET

    def tls_info(self, tls: TlsOptions | None) -> dict[str, object]:
        """Return what INFO says of TLS: nothing, it is below or not there."""
        return {}


class WebSocketChannel(asyncio.Protocol):
    """One client's WebSocket: a protocol for the socket or TLS below, a transport for the connection on it.

    Args:
        listener: counts clients.
        make_upper: makes the connection.
        origins: web pages that may connect; empty = all.
    """

    __slots__ = (
        "_is_shut",
        "_listener",
        "_make_upper",
        "_origins",
        "_request",
        "_timer",
        "_transport",
        "_upper",
        "_ws",
    )

    def __init__(self, listener: Listener, make_upper: MakeUpper, origins: frozenset[str]) -> None:
        self._listener = listener
        self._make_upper = make_upper
        self._origins = origins
        self._upper: Any = None
        self._transport: Channel | None = None
        self._ws = WSConnection(ConnectionType.SERVER)
        self._request = b""
        self._is_shut = False
        self._timer: asyncio.TimerHandle | None = None

    # Called by the event loop, or by the TLS below.

    def connection_made(self, transport: Any) -> None:
        """Wait for the client's HTTP request."""
        self._transport = cast("Channel", transport)
        if not self._listener.arrive():
            self._transport.abort()
            return
        self._timer = asyncio.get_running_loop().call_later(
            self._listener.options.auth_timeout, self._transport.abort
        )

    def attach(self, transport: Any) -> None:
        """Go on with another channel."""
        self._transport = cast("Channel", transport)

    def data_received(self, data: bytes) -> None:
        """Take frames, and pass on what the messages in them hold."""
        if self._transport is None or self._is_shut:
            return
        try:
            if self._upper is None:
                data = self._shake_hands(data)
            if data and not self._is_shut:
                self._ws.receive_data(data)
                self._carry_out()
        except RemoteProtocolError as error:
            log.info("WebSocket from %s: %s", self._peer(), error)
            if error.event_hint is not None and not self._is_shut:
                self._send(error.event_hint)
            self._end()

    def _shake_hands(self, data: bytes) -> bytes:
        """Gather the HTTP request and answer it once it is complete; return what came behind it."""
        self._request += data
        head, end, rest = self._request.partition(_END_OF_REQUEST)
        if not end and len(head) <= _LONGEST_REQUEST:
            return b""
        self._request = b""
        # It is passed on alone: wsproto would lose what comes before it has answered.
        self._ws.receive_data(head + end)
        self._carry_out()
        return rest

    def eof_received(self) -> None:
        """Let the transport close."""
        if self._upper is not None:
            self._upper.eof_received()

    def connection_lost(self, error: Exception | None) -> None:
        """Forget the client."""
        self._arrived()
        self._transport = None
        if self._upper is not None:
            self._upper.connection_lost(error)

    def pause_writing(self) -> None:
        """Tell the connection."""
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        """Tell the connection."""
        if self._upper is not None:
            self._upper.resume_writing()

    def _carry_out(self) -> None:
        received: list[bytes] = []
        for event in self._ws.events():
            if isinstance(event, BytesMessage):
                received.append(bytes(event.data))
            elif isinstance(event, Request):
                self._answer(event)
            elif isinstance(event, Ping):
                self._send(event.response())
            elif isinstance(event, TextMessage):
                self._close(CloseReason.UNSUPPORTED_DATA)
            elif isinstance(event, CloseConnection):
                self._pass_on(received)
                if self._ws.state is ConnectionState.REMOTE_CLOSING:
                    self._send(event.response())
                self._end()
                return
        self._pass_on(received)

    def _pass_on(self, received: list[bytes]) -> None:
        data = b"".join(received)
        if data and self._upper is not None:
            self._upper.data_received(data)

    def _answer(self, request: Request) -> None:
        """Accept the client, or refuse the page that it comes from."""
        origins = [value.decode("latin-1") for name, value in request.extra_headers if name == b"origin"]
        if self._origins and not self._origins.issuperset(origins):
            log.info("WebSocket from %s: origin %s is not allowed", self._peer(), ", ".join(origins)[:200])
            self._send(RejectConnection(status_code=403, has_body=True))
            self._send(RejectData(data=b"this origin is not allowed\n"))
            self._end()
            return
        self._arrived()
        self._send(AcceptConnection())
        self._upper = self._make_upper()
        self._upper.connection_made(self)

    def _arrived(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._listener.arrived()

    def _peer(self) -> str:
        return str((self.get_extra_info("peername") or ("?",))[0])

    def _send(self, event: Any) -> None:
        if self._transport is None:
            return
        try:
            self._transport.write(self._ws.send(event))
        except LocalProtocolError as error:  # the client has closed meanwhile
            log.debug("WebSocket from %s: %s", self._peer(), error)

    def _close(self, reason: CloseReason) -> None:
        if self._ws.state is ConnectionState.OPEN:
            self._send(CloseConnection(code=reason))
        self._end()

    def _end(self) -> None:
        """Write nothing more, and let go once the client has taken what was written."""
        self._is_shut = True
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.write_eof()
        asyncio.get_running_loop().call_later(1.0, transport.abort)

    # Called by the connection, as by a transport.

    def write(self, data: bytes) -> None:
        """Send data in one message."""
        if not self._is_shut:
            self._send(BytesMessage(data=data))

    def write_eof(self) -> None:
        """Say that nothing more comes."""
        if not self._is_shut:
            self._close(CloseReason.NORMAL_CLOSURE)

    def abort(self) -> None:
        """End at once."""
        if self._transport is not None:
            self._transport.abort()

    def is_closing(self) -> bool:
        """Whether it is ending or has ended."""
        return self._is_shut or self._transport is None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Take nothing more from the client for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Take again what the client sends."""
        if self._transport is not None:
            self._transport.resume_reading()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called, and when `resume_writing`."""
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known about the client."""
        return self._transport.get_extra_info(name, default) if self._transport is not None else default


_: type[Channel] = WebSocketChannel
