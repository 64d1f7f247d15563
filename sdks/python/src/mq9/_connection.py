"""The connection to a NATS server: it carries requests, and comes back by itself when it is lost.

nats-py can reconnect too, but keeps what was published meanwhile and sends it later: a FETCH whose caller has
given up long ago would then take messages that nobody handles. So every connection here is a fresh nats-py
client without reconnection, and this module decides what happens in between:

- A request waits for the connection as long as its timeout allows; if that runs out, nothing was sent.
- A request that was sent when the connection broke fails at once: its reply can't come any more.
- A cancelled request is forgotten; where its reply may bring messages under a lease, that reply is still
listened for.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import random
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

import nats.errors
from nats.aio.client import Client as NatsClient
from nats.aio.msg import Msg

from mq9._base import Mq9Error
from mq9._encode import invalid
from mq9._generated.errors import (
    ConnectionClosedError,
    InvalidArgumentError,
    Mq9TimeoutError,
    NoRespondersError,
)

T = TypeVar("T")

logger = logging.getLogger("mq9")

_SCHEMES = ("nats", "tls", "ws", "wss")
_HEADER_LINE = len("NATS/1.0\r\n\r\n")
_PENDING = (
    1 << 20
)  # Publishing may have to wait for the socket when this much is on its way to it (nats-py: twice that).
_PING_INTERVAL = 20.0
_STATE_CHECK = 0.05
_JITTER = 0.5


@dataclass(frozen=True)
class ConnectOptions:
    """How to connect; see `mq9.connect`."""

    servers: tuple[str, ...]
    name: str | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    credentials_file: str | None = None
    tls: ssl.SSLContext | None = None
    connect_timeout: float = 5.0
    reconnect_wait: float = 0.25
    reconnect_wait_max: float = 10.0


def server_list(servers: object) -> tuple[str, ...]:
    """Server URLs from one URL, a list, or one string with commas between URLs.

    Raises:
        InvalidArgumentError: If there is none, or one is no URL of a NATS server.
    """
    if isinstance(servers, str):
        parts = servers.split(",")
    elif isinstance(servers, (list, tuple)) and all(isinstance(part, str) for part in servers):
        parts = [piece for part in servers for piece in part.split(",")]
    else:
        raise invalid("servers", f"must be a URL or a list of URLs, not {type(servers).__name__}")
    urls = tuple(dict.fromkeys(_server_url(part.strip()) for part in parts if part.strip()))
    if not urls:
        raise invalid("servers", "must not be empty")
    if len({urlsplit(url).scheme.startswith("ws") for url in urls}) > 1:
        raise invalid("servers", "must be all WebSocket URLs or none")
    return urls


def needs_aiohttp(servers: Sequence[str]) -> bool:
    """Tells whether these URLs ask for WebSocket, and the package that carries it is not there."""
    return urlsplit(servers[0]).scheme.startswith("ws") and importlib.util.find_spec("aiohttp") is None


def _server_url(text: str) -> str:
    url = text if "://" in text else f"nats://{text}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise invalid("servers", f"{_redacted(url)!r} is no URL: {error}") from None
    if parts.scheme not in _SCHEMES or not parts.hostname or any(c.isspace() for c in url):
        raise invalid("servers", f"{_redacted(url)!r} is no URL like nats://host:4222")
    if port is None and parts.scheme in ("nats", "tls"):
        parts = parts._replace(netloc=f"{parts.netloc.rstrip(':')}:4222")
    return parts.geturl()


def _redacted(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else url


class _Nats(NatsClient):
    """nats-py's client with two additions.

    Attributes:
        lost: Called once when the connection has ended, before nats-py waits for the socket (which may take
            long).
    """

    lost: Callable[[], None] | None = None
    wants_tls = False

    def _connect_command(self) -> bytes:
        # nats-py goes on in clear text when a server does not ask for TLS, and would send the password now.
        if self.wants_tls and not self._server_info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        return super()._connect_command()

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if self.lost is not None:
            self.lost()
        await super()._close(status, do_cbs)


class Connection:
    """Carries requests over NATS."""

    def __init__(self, options: ConnectOptions | None, injected: NatsClient | None = None) -> None:
        self._options = options
        self._servers = list(options.servers) if options else []
        self._injected = injected
        self._nats: NatsClient | None = None
        self._inbox = ""
        self._subscription: Any = None
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._next = 0
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._closed = False
        self._supervisor: asyncio.Task[None] | None = None
        self._publishing: set[asyncio.Task[None]] = set()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed for good; one that was given may be closed by its owner."""
        return self._closed or (self._injected is not None and self._injected.is_closed)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to a server right now."""
        return (
            not self._closed and self._ready.is_set() and self._nats is not None and self._nats.is_connected
        )

    @property
    def url(self) -> str | None:
        """The server that it is connected to, without credentials."""
        if not self.is_connected or self._nats is None or self._nats.connected_url is None:
            return None
        return f"{self._nats.connected_url.scheme}://{self._nats.connected_url.netloc.rpartition('@')[2]}"

    async def open(self) -> None:
        """Connects to the first server that can be reached.

        Raises:
            ConnectionClosedError: If there is none; with code `unauthorized` if one refused the credentials.
        """
        if self._injected is not None:
            if self._injected.is_closed:
                raise ConnectionClosedError("the NATS connection that was given is closed")
            await self._attach(self._injected)
            return
        await self._connect()
        self._supervisor = asyncio.create_task(self._supervise(), name="mq9-connection")

    async def request(
        self,
        operation: str,
        subject: str,
        payload: bytes,
        headers: Mapping[str, str] | None,
        timeout: float,
        *,
        abandoned: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> bytes:
        """Sends a request and waits for its reply.

        Args:
            operation: What to call it in errors.
            subject: The subject.
            payload: The body.
            headers: One value a name.
            timeout: Seconds in all, from now.
            abandoned: Called with the reply if it comes after the caller was cancelled.

        Returns:
            The body of the reply.

        Raises:
            Mq9TimeoutError: No reply in time, or no connection.
            NoRespondersError: Nobody listens on the subject.
            ConnectionClosedError: The connection is closed, or broke before the reply came.
            InvalidArgumentError: The server does not take messages of this size.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        client = await self._connected(operation, deadline, timeout)
        size = len(payload) + (
            _HEADER_LINE + sum(len(k) + len(v) + 4 for k, v in headers.items()) if headers else 0
        )
        if size > client.max_payload:
            raise InvalidArgumentError(
                f"payload: {size} bytes with its headers, the server takes at most {client.max_payload}",
                code="payload_too_large",
                field="payload",
                operation=operation,
            )
        self._next += 1
        token = str(self._next)
        reply: asyncio.Future[Msg] = loop.create_future()
        late = Mq9TimeoutError(f"{operation}: no reply within {timeout:g} s", operation=operation)
        timer = loop.call_at(deadline, _fail, reply, late)
        self._waiting[token] = reply
        listens_on = False
        try:
            inbox = f"{self._inbox}.{token}"
            await self._publish(client, subject, payload, inbox=inbox, headers=headers, reply=reply)
            message = await asyncio.shield(reply) if abandoned else await reply
        except asyncio.CancelledError:
            if abandoned is not None and not reply.cancelled():
                listens_on = True
                reply.add_done_callback(lambda done: self._abandoned(token, timer, done, abandoned))
            raise
        except Mq9Error as error:
            error.operation = operation
            raise
        except (nats.errors.Error, OSError) as error:
            raise ConnectionClosedError(f"{operation}: {error}", operation=operation) from error
        finally:
            if not listens_on:
                timer.cancel()
                self._waiting.pop(token, None)
        if not message.data and (message.headers or {}).get("Status") == "503":
            raise NoRespondersError(
                f"{operation}: no mq9 broker answers on this NATS server",
                operation=operation,
            )
        return message.data

    def _abandoned(
        self,
        token: str,
        timer: asyncio.TimerHandle,
        reply: asyncio.Future[Msg],
        callback: Callable[[bytes], Awaitable[None]],
    ) -> None:
        timer.cancel()
        self._waiting.pop(token, None)
        if reply.cancelled() or reply.exception() is not None:
            return
        task = asyncio.ensure_future(callback(reply.result().data))
        self._publishing.add(task)
        task.add_done_callback(self._forget)

    async def _publish(
        self,
        client: NatsClient,
        subject: str,
        payload: bytes,
        *,
        inbox: str,
        headers: Mapping[str, str] | None,
        reply: asyncio.Future[Msg],
    ) -> None:
        sending = client.publish(subject, payload, inbox, dict(headers) if headers else None)
        if client.pending_data_size + len(payload) < _PENDING:
            await sending
            return
        # The socket is full. nats-py waits for it without a limit, and swallows a cancellation while it does.
        task = asyncio.ensure_future(sending)
        self._publishing.add(task)
        task.add_done_callback(self._forget)
        waits: set[asyncio.Future[Any]] = {task, reply}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._publishing.discard(task)
        if not task.cancelled() and task.exception() is not None:
            logger.debug("a request could not be sent: %s", task.exception())

    async def _on_reply(self, message: Msg) -> None:
        reply = self._waiting.get(message.subject.rpartition(".")[2])
        if reply is not None and not reply.done():
            reply.set_result(message)

    async def _connected(self, operation: str, deadline: float, timeout: float) -> NatsClient:
        loop = asyncio.get_running_loop()
        while not self._closed:
            client = self._nats
            if self._injected is not None and (self._injected.is_closed or self._injected.is_draining):
                raise ConnectionClosedError(
                    f"{operation}: the NATS connection is closed", operation=operation
                )
            if client is not None and self._ready.is_set() and client.is_connected:
                return client
            remaining = deadline - loop.time()
            if remaining <= 0:
                raise Mq9TimeoutError(
                    f"{operation}: not connected to a server for {timeout:g} s; nothing was sent",
                    operation=operation,
                )
            # An injected connection reports its state to its owner only, so it is looked at now and then.
            pause = min(remaining, _STATE_CHECK) if self._ready.is_set() else remaining
            await within(pause, self._ready_or_pause(), default=None)
        raise ConnectionClosedError(f"{operation}: the client is closed", operation=operation)

    async def _ready_or_pause(self) -> None:
        if self._ready.is_set():
            await asyncio.sleep(_STATE_CHECK)
        else:
            await self._ready.wait()

    async def flush(self, timeout: float) -> None:
        """Makes a round trip to the server, so that what it has sent so far has been handled.

        Args:
            timeout: Seconds to wait at most; a connection that is broken is no error.
        """
        if self.is_connected and self._nats is not None:
            with suppress(nats.errors.Error, OSError):
                await self._nats.flush(max(1, round(timeout)))

    @property
    def listening(self) -> bool:
        """Whether replies of cancelled requests are still waited for, or handled."""
        return bool(self._waiting or self._publishing)

    @property
    def is_injected(self) -> bool:
        """Whether the NATS connection belongs to somebody else."""
        return self._injected is not None

    async def settle(self, timeout: float) -> None:
        """Waits until replies of cancelled requests have come and been handled."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        while (self._waiting or self._publishing) and not self._closed and loop.time() < deadline:
            waits: set[asyncio.Future[Any]] = {*self._waiting.values(), *self._publishing}
            await asyncio.wait(waits, timeout=deadline - loop.time(), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Closes the connection for good; one that was given stays open."""
        if self._closed:
            return
        self._closed = True
        self._fail_waiting("the client was closed before the reply came")
        self._ready.set()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        for task in tuple(self._publishing):
            task.cancel()
        client, self._nats = self._nats, None
        if client is None or client.is_closed:
            return
        with suppress(nats.errors.Error, OSError):
            if client is self._injected:
                await self._subscription.unsubscribe()
            else:
                await client.close()

    # Connecting and reconnecting.

    async def _connect(self) -> None:
        failures: list[str] = []
        refused = False
        last: BaseException | None = None
        for index, url in enumerate(tuple(self._servers)):
            try:
                client = await self._connect_to(url)
            except (nats.errors.Error, OSError, asyncio.TimeoutError) as error:
                why = _why(error)
                refused = refused or _is_refusal(why)
                failures.append(f"{_redacted(url)}: {why}")
                last = error
                continue
            await self._attach(client)
            self._servers = self._servers[index:] + self._servers[:index]
            self._add_discovered(client, url)
            return
        raise ConnectionClosedError(
            f"could not connect to {'; '.join(failures)}", code="unauthorized" if refused else None
        ) from last

    async def _connect_to(self, url: str) -> NatsClient:
        assert self._options is not None
        options = self._options
        client = _Nats()
        errors: list[Exception] = []

        async def on_error(error: Exception) -> None:
            errors.append(error)
            logger.debug("nats: %s", error)

        client.wants_tls = options.tls is not None or urlsplit(url).scheme == "tls"
        if client.wants_tls and options.tls is None:
            options = replace(options, tls=ssl.create_default_context())
        try:
            await within(
                options.connect_timeout,
                client.connect(
                    servers=[url],
                    name=options.name,
                    user=options.user,
                    password=options.password,
                    token=options.token,
                    user_credentials=options.credentials_file,
                    tls=options.tls,
                    error_cb=on_error,
                    allow_reconnect=False,
                    reconnect_time_wait=0,
                    max_reconnect_attempts=1,
                    connect_timeout=options.connect_timeout,  # type: ignore[arg-type]
                    ping_interval=_PING_INTERVAL,  # type: ignore[arg-type]
                ),
            )
        except BaseException as error:
            with suppress(Exception):
                await within(1, client.close())
            if isinstance(error, nats.errors.NoServersError) and errors:
                raise errors[-1] from None
            raise
        return client

    async def _attach(self, client: NatsClient) -> None:
        self._lost.clear()
        if isinstance(client, _Nats):
            client.lost = self._lost.set
        self._inbox = client.new_inbox()
        self._subscription = await client.subscribe(
            f"{self._inbox}.*", cb=self._on_reply, pending_msgs_limit=0, pending_bytes_limit=0
        )
        self._nats = client
        if client.is_closed:
            self._lost.set()
        else:
            self._ready.set()

    def _add_discovered(self, client: NatsClient, url: str) -> None:
        user = urlsplit(url).netloc.rpartition("@")
        for found in client.discovered_servers:
            server = SplitResult(
                urlsplit(url).scheme, f"{user[0]}{user[1]}{found.netloc}", "", "", ""
            ).geturl()
            if server not in self._servers:
                self._servers.append(server)

    async def _supervise(self) -> None:
        assert self._options is not None
        while True:
            await self._lost.wait()
            self._ready.clear()
            self._fail_waiting("the connection broke before the reply came")
            logger.info("mq9: connection lost, reconnecting")
            await self._reconnect()
            logger.info("mq9: connected again to %s", self.url)

    async def _reconnect(self) -> None:
        assert self._options is not None
        wait = self._options.reconnect_wait
        while True:
            await asyncio.sleep(min(wait * random.uniform(1, 1 + _JITTER), self._options.reconnect_wait_max))  # noqa: S311
            wait = min(wait * 2, self._options.reconnect_wait_max)
            # The server that was just lost comes last.
            self._servers.append(self._servers.pop(0))
            try:
                await self._connect()
                return
            except ConnectionClosedError as error:
                logger.info("mq9: %s", error)
            except Exception:
                logger.exception("mq9: reconnecting failed, trying again")

    def _fail_waiting(self, why: str) -> None:
        for reply in tuple(self._waiting.values()):
            _fail(reply, ConnectionClosedError(why))


async def within(seconds: float, action: Coroutine[Any, Any, T], **default: T) -> T:
    """Runs an action for at most so long.

    Unlike `asyncio.wait_for` of Python 3.10 and 3.11 it never swallows a cancellation.

    Args:
        seconds: How long.
        action: What to run.
        **default: `default` = what to give back when the time is over; else that is an
        `asyncio.TimeoutError`.
    """
    task = asyncio.ensure_future(action)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if task.done():
            return task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task}, timeout=1)
    if "default" in default:
        return default["default"]
    raise asyncio.TimeoutError


def _fail(reply: asyncio.Future[Msg], error: Exception) -> None:
    if not reply.done():
        reply.set_exception(error)


def _why(error: BaseException) -> str:
    if isinstance(error, nats.errors.SecureConnWantedError):
        return "the server does not offer TLS, and TLS was asked for"
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return "no answer in time"
    text = str(error) or type(error).__name__
    return text.removeprefix("nats: ").strip("'\" ")


def _is_refusal(why: str) -> bool:
    lowered = why.lower()
    return "authoriz" in lowered or "authentic" in lowered
