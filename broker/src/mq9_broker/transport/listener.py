"""The broker's own NATS server side: accepts clients, knows all connections and subscriptions."""

import asyncio
import contextlib
import json
import logging
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from mq9_broker.auth import Authenticator
from mq9_broker.transport.admission import Admission
from mq9_broker.transport.connection import STALE_CONNECTION, Connection
from mq9_broker.transport.handshakes import Handshakes
from mq9_broker.transport.interface import Handler
from mq9_broker.transport.outgoing import SLOW_CONSUMER, Outgoing
from mq9_broker.transport.parser import DEFAULT_MAX_CONTROL_LINE, DEFAULT_MAX_PAYLOAD, ParserLimits
from mq9_broker.transport.rounds import Rounds
from mq9_broker.transport.subscriptions import SubscriptionIndex
from mq9_broker.transport.tls import SecureChannel, TlsOptions
from mq9_broker.version import __version__

log = logging.getLogger(__name__)

_BACKLOG = 4096
_LOOKS_PER_PING_INTERVAL = 16
MAXIMUM_CONNECTIONS_EXCEEDED = "maximum connections exceeded"


@dataclass(frozen=True)
class ListenerOptions:
    """How the listener treats its clients.

    Args:
        server_name: the name that clients are told.
        max_payload: bytes of a message that a client may send, headers included.
        max_control_line: bytes of a protocol line that a client may send.
        max_connections: clients at a time; one more is refused.
        max_subscriptions: of one client; one more is refused.
        auth_timeout: seconds that a client has for TLS, and for CONNECT where it has to say who it is.
        max_pending: bytes written for a client and not taken by it, beyond which it is cut as too slow.
        write_high_water: bytes not taken, beyond which the client's further requests wait.
        write_deadline: seconds after which a client that has that much pending and takes nothing is cut.
        ping_interval: seconds of silence after which a client is asked whether it is there.
        max_pings_out: questions without an answer; at the next one the connection ends.
    """

    server_name: str = "mq9"
    max_payload: int = DEFAULT_MAX_PAYLOAD
    max_control_line: int = DEFAULT_MAX_CONTROL_LINE
    max_connections: int = 65536
    max_subscriptions: int = 10_000
    auth_timeout: float = 5.0
    max_pending: int = 64 * 1024 * 1024
    write_high_water: int = 4 * 1024 * 1024
    write_deadline: float = 10.0
    ping_interval: float = 120.0
    max_pings_out: int = 2


class _Account:
    """Clients that hear each other."""

    __slots__ = ("clients", "index")

    def __init__(self) -> None:
        self.index = SubscriptionIndex()
        self.clients = 0


class Listener:
    """Accepts NATS clients and passes their mq9 requests on.

    Args:
        handler: carries out the requests below `$mq9.AI.`.
        options: see there.
        authenticator: knows who may connect; None = everybody, and he may do everything.
        tls: None = without TLS.

    Attributes:
        is_busy: input is being carried out, and output collected until `flush`.
        with_output: connections that have something to write.
    """

    def __init__(
        self,
        handler: Handler,
        options: ListenerOptions | None = None,
        authenticator: Authenticator | None = None,
        tls: TlsOptions | None = None,
    ) -> None:
        self.handler = handler
        self.authenticator = authenticator
        self.tls = tls
        self.handshakes = Handshakes()
        self.options = options or ListenerOptions()
        self.parser_limits = ParserLimits(self.options.max_payload, self.options.max_control_line)
        self.index = SubscriptionIndex()
        self._server_id = secrets.token_hex(16).upper()
        self._last_client_id = 0
        self._address = ("", 0)
        self._is_lame_duck = False
        self._servers: list[asyncio.Server] = []
        self._accounts: dict[str, _Account] = {}
        self._limits: dict[int, ParserLimits] = {}
        self._connections: dict[Connection, None] = {}
        # Clients in the middle of TLS or of an HTTP upgrade: no connections yet.
        self._arriving = 0
        # Transports outlive their connections: a client may still read why its connection was ended.
        self._open_transports = 0
        self._empty = asyncio.Event()
        # Keep-alive looks at one of these groups at a time, so that not all clients are asked at once.
        self._groups: list[dict[Connection, None]] = [{} for _ in range(_LOOKS_PER_PING_INTERVAL)]
        self._next_group = 0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # Connections with more pending than the high water mark: bytes that the client had taken when last
        # looked at, and since when it is that many.
        self._slow_writers: dict[Connection, tuple[int, float]] = {}
        # While input is being carried out, output is collected and written at its end.
        self.is_busy = False
        self.with_output: list[Outgoing] = []
        self.rounds = Rounds(self)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that the listener is bound to."""
        return self._address

    @property
    def connections(self) -> Iterator[Connection]:
        """The clients that are connected now."""
        return iter(list(self._connections))

    def __len__(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def subscription_count(self) -> int:
        """How many subscriptions they have together."""
        return sum(connection.subscription_count for connection in self._connections)

    def describe(self) -> Iterator[dict[str, object]]:
        """What an operator may know of each client."""
        return (connection.describe() for connection in self._connections)

    async def start(self, host: str, port: int) -> None:
        """Begin to accept clients.

        Raises:
            OSError: the address is in use, unknown or not allowed.
        """
        loop = asyncio.get_running_loop()
        self.rounds.start(loop)
        server = await loop.create_server(self._accept, host, port, backlog=_BACKLOG)
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        self._address = (bound[0], bound[1])
        self._schedule_keep_alive()
        self._schedule_writing_check()

    def _accept(self) -> asyncio.BaseProtocol:
        # Looked at for each client: a reload may change it.
        if self.tls is None:
            return Connection(self)
        return SecureChannel(self, self.tls, lambda: Connection(self))

    async def start_websocket(
        self, host: str, port: int, *, secure: bool, origins: frozenset[str] = frozenset()
    ) -> tuple[str, int]:
        """Accept clients that speak NATS in WebSocket messages, such as browsers; return where.

        Args:
            host: where to listen.
            port: 0 takes a free one.
            secure: with TLS.
            origins: web pages that may connect, such as `https://example.org`; empty = all.

        Raises:
            OSError: the address is in use, unknown or not allowed.
        """
        # Slow to load, and few brokers need it.
        from mq9_broker.transport.websocket import WebSocketChannel, WebSocketConnection  # noqa: PLC0415

        def make_upper() -> WebSocketChannel:
            return WebSocketChannel(self, lambda: WebSocketConnection(self), origins)

        def accept() -> asyncio.BaseProtocol:
            if self.tls is None or not secure:
                return make_upper()
            return SecureChannel(self, self.tls.only_first(), make_upper)

        server = await asyncio.get_running_loop().create_server(accept, host, port, backlog=_BACKLOG)
        self._servers.append(server)
        bound = server.sockets[0].getsockname()
        return bound[0], bound[1]

    def reload(self, authenticator: Authenticator | None, tls: TlsOptions | None) -> None:
        """Let other users and another certificate hold: for new clients, and the users for those connected.

        A connected client whose user is gone, or has another password, is disconnected; one that may do
        less than before loses the subscriptions that it may not have any more. Clients that were let in
        when nobody was asked have to connect again once somebody is.
        """
        self.authenticator = authenticator
        self.tls = tls
        for connection in self.connections:
            connection.reconsider(authenticator)

    def stop_accepting(self) -> None:
        """Refuse new clients and tell the connected ones that they should go (lame duck)."""
        for server in self._servers:
            server.close()
        self._servers.clear()
        if not self._is_lame_duck:
            self._is_lame_duck = True
            for connection in self.connections:
                connection.send_info()

    async def drain(self, grace: float) -> None:
        """Wait until all clients have left, at most `grace` seconds."""
        await self._until_empty(grace)

    async def close(self, flush_timeout: float = 1.0) -> None:
        """End all connections; wait until clients took what was written, at most `flush_timeout` seconds."""
        self.stop_accepting()
        for timer in self._timers.values():
            timer.cancel()
        for connection in self.connections:
            connection.close()
        await self._until_empty(flush_timeout)
        self.handshakes.close()

    async def _until_empty(self, timeout: float) -> None:
        if self._open_transports:
            self._empty.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._empty.wait(), timeout)

    def info_line(self, connection: Connection, client_ip: str = "", nonce: bytes = b"") -> bytes:
        """Return the INFO that one client gets."""
        info: dict[str, object] = {
            "server_id": self._server_id,
            "server_name": self.options.server_name,
            "version": __version__,
            "proto": 1,
            "go": "",  # a field that clients expect; there is no Go here
            "host": self._address[0],
            "port": self._address[1],
            "headers": True,
            "max_payload": self.options.max_payload,
            "client_id": connection.client_id,
        }
        if self.authenticator is not None:
            info["auth_required"] = True
        if nonce:
            info["nonce"] = nonce.decode()
        info |= connection.tls_info(self.tls)
        if client_ip:
            info["client_ip"] = client_ip
        if self._is_lame_duck:
            info["ldm"] = True
        return b"INFO " + json.dumps(info, separators=(",", ":")).encode() + b" \r\n"

    # Called by connections.

    def next_client_id(self) -> int:
        """Return the number of a new connection."""
        self._last_client_id += 1
        return self._last_client_id

    def admission(self, connection: Connection) -> Admission | None:
        """Return what a client has to pass; None where everybody is let in."""
        if self.authenticator is None:
            return None
        return Admission(connection, self.authenticator, self.options.auth_timeout)

    def limits_for(self, max_payload: int) -> ParserLimits:
        """Return the limits of a client that may send less than others."""
        max_payload = min(max_payload, self.options.max_payload)
        limits = self._limits.get(max_payload)
        if limits is None:
            limits = self._limits[max_payload] = ParserLimits(max_payload, self.options.max_control_line)
        return limits

    def space(self, account: str) -> SubscriptionIndex:
        """Return the subscriptions of an account."""
        return self._accounts[account].index if account else self.index

    def enter_account(self, account: str) -> bool:
        """Count a client of an account in; whether it may have one more."""
        if not account:
            return True
        entry = self._accounts.setdefault(account, _Account())
        limit = self.authenticator.account_limit(account) if self.authenticator is not None else None
        if limit is not None and entry.clients >= limit:
            return False
        entry.clients += 1
        return True

    def leave_account(self, account: str) -> None:
        """Count a client of an account out."""
        if account:
            self._accounts[account].clients -= 1

    def arrive(self) -> bool:
        """Count a client in that is not connected yet; whether there may be one more."""
        if self._arriving + len(self._connections) >= self.options.max_connections:
            return False
        self._arriving += 1
        return True

    def arrived(self) -> None:
        """Count such a client out: it is connected, or has gone."""
        self._arriving -= 1

    def add(self, connection: Connection) -> None:
        """Take note of a new connection."""
        self._open_transports += 1
        if len(self._connections) >= self.options.max_connections:
            connection.fail(MAXIMUM_CONNECTIONS_EXCEEDED)
            return
        self._connections[connection] = None
        self._groups[connection.client_id % len(self._groups)][connection] = None

    def remove(self, connection: Connection) -> None:
        """Forget a connection that has ended."""
        self._slow_writers.pop(connection, None)
        if connection in self._connections:
            del self._connections[connection]
            del self._groups[connection.client_id % len(self._groups)][connection]
            # Not now: the handler may be in the middle of something, such as a reply to this very client.
            asyncio.get_running_loop().call_soon(self.handler.connection_closed, connection)

    def transport_closed(self) -> None:
        """Take note that nothing is left of a connection."""
        self._open_transports -= 1
        if not self._open_transports:
            self._empty.set()

    def flush(self) -> None:
        """Write all that was collected."""
        self.is_busy = False
        connections, self.with_output = self.with_output, []
        for connection in connections:
            connection.flush()

    def flush_unless_busy(self) -> None:
        """Write what was collected if nobody else will."""
        if not self.is_busy:
            self.flush()

    def watch_writing(self, connection: Connection) -> None:
        """Take note of a connection that does not take its output quickly."""
        self._slow_writers[connection] = (connection.taken, asyncio.get_running_loop().time())

    def stop_watching_writing(self, connection: Connection) -> None:
        """Take note of a connection that has caught up."""
        self._slow_writers.pop(connection, None)

    # Timers.

    def _schedule_keep_alive(self) -> None:
        delay = self.options.ping_interval / len(self._groups)
        self._timers["keep-alive"] = asyncio.get_running_loop().call_later(delay, self._keep_alive)

    def _keep_alive(self) -> None:
        for connection in list(self._groups[self._next_group]):
            if connection.is_held_up:
                continue  # not read from, so it cannot answer: the write deadline watches it
            if connection.seen:
                connection.seen = False
                connection.pings_out = 0
            elif connection.pings_out >= self.options.max_pings_out:
                connection.fail(STALE_CONNECTION)
            elif connection.has_connected:
                connection.ping()
            else:
                connection.pings_out += 1  # no PING before CONNECT, but no silence for ever either
        self._next_group = (self._next_group + 1) % len(self._groups)
        self._schedule_keep_alive()

    def _schedule_writing_check(self) -> None:
        delay = self.options.write_deadline / 4
        self._timers["writing"] = asyncio.get_running_loop().call_later(delay, self._check_writing)

    def _check_writing(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection, (taken, since) in list(self._slow_writers.items()):
            if connection.taken > taken:
                self._slow_writers[connection] = (connection.taken, now)
            elif now - since >= self.options.write_deadline:
                connection.cut(f"{SLOW_CONSUMER}: {connection.pending} bytes pending, none taken for a while")
        self._schedule_writing_check()
