"""The client: one connection, every operation, consumers and keep-alives."""

from __future__ import annotations

import asyncio
import math
import random
import ssl
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Any

from nats.aio.client import Client as NatsClient

from mq9 import _decode, _encode
from mq9._base import Mq9Error, Operation
from mq9._connection import Connection, ConnectOptions, logger, needs_aiohttp, server_list
from mq9._consume import Consumer, ErrorHook, Handler
from mq9._generated import constants, decoders
from mq9._generated.errors import ConnectionClosedError
from mq9._generated.operations import Operations
from mq9._keep_alive import AgentKeepAlive

__all__ = ["Client", "connect"]

_INTERNAL: ContextVar[bool] = ContextVar("mq9_internal", default=False)
"""Set in tasks of our own that may still send while the client closes."""


async def connect(
    servers: str | Sequence[str] = constants.CONNECT_SERVERS,
    *,
    name: str | None = None,
    user: str | None = None,
    password: str | None = None,
    token: str | None = None,
    credentials_file: str | PathLike[str] | None = None,
    tls: ssl.SSLContext | bool | None = None,
    timeout: float = constants.CONNECT_TIMEOUT,
    connect_timeout: float = constants.CONNECT_CONNECT_TIMEOUT,
    reconnect_wait: float = constants.CONNECT_RECONNECT_WAIT,
    reconnect_wait_max: float = constants.CONNECT_RECONNECT_WAIT_MAX,
    nats: NatsClient | None = None,
) -> Client:
    """Connects to one of the servers and reconnects for ever.

    While the connection is down, a call waits for it as long as its timeout allows and then raises
    `Mq9TimeoutError`; nothing was sent then. A call that was waiting for its reply when the connection broke
    raises `ConnectionClosedError` at once, unless it may be tried again.

    Args:
        servers: Server URLs: one, a list, or one string with commas between. Each is tried once, in this
            order.
        name: A name that the server shows for this connection.
        user: User name.
        password: Password of the user.
        token: Authentication token.
        credentials_file: A credentials file with a JWT and an NKey seed; needs the extra `mq9[nkeys]`.
        tls: True, or a context of your own, to insist on TLS; so does a URL with `tls://`.
        timeout: Seconds that a request waits for its reply, unless a call says otherwise.
        connect_timeout: Seconds that connecting to one server may take.
        reconnect_wait: The first pause before a reconnect, in seconds; doubles with jitter.
        reconnect_wait_max: The longest pause before a reconnect, in seconds.
        nats: An existing connection of nats-py to use instead; it stays open when the client is closed. The
            options above but `timeout` have no meaning then.

    Returns:
        A connected client: `async with await mq9.connect(url) as client`.

    Raises:
        InvalidArgumentError: An option is not as it should be.
        ConnectionClosedError: No server could be reached; with code `unauthorized` if one refused the
            credentials.
    """
    seconds = _encode.timeout(timeout)
    if nats is not None:
        connection = Connection(None, nats)
    else:
        if credentials_file is not None and not Path(credentials_file).is_file():  # noqa: ASYNC240 - one look, at start
            raise _encode.invalid("credentials_file", f"there is no file {fspath(credentials_file)!r}")
        urls = server_list(servers)
        if needs_aiohttp(urls):
            raise _encode.invalid("servers", "WebSocket URLs need another package: pip install aiohttp")
        options = ConnectOptions(
            servers=urls,
            name=name,
            user=user,
            password=password,
            token=token,
            credentials_file=fspath(credentials_file) if credentials_file is not None else None,
            tls=ssl.create_default_context() if tls is True else tls or None,
            connect_timeout=_encode.timeout(connect_timeout),
            reconnect_wait=_encode.timeout(reconnect_wait),
            reconnect_wait_max=_encode.timeout(reconnect_wait_max),
        )
        connection = Connection(options)
    await connection.open()
    return Client(connection, timeout=seconds)


class Client(Operations):
    """A connection to mq9. Made by `mq9.connect`; safe to use from many tasks of one event loop at once."""

    def __init__(self, connection: Connection, *, timeout: float = constants.CONNECT_TIMEOUT) -> None:
        """Puts a client on top of a connection; use `mq9.connect` instead."""
        self._connection = connection
        self._timeout = timeout
        self._calls: set[asyncio.Future[None]] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._open: weakref.WeakSet[Consumer | AgentKeepAlive] = weakref.WeakSet()
        self._closing: asyncio.Task[None] | None = None
        self._closed = False
        self._pause_unit = constants.RETRY_PAUSE_MS / 1000

    @property
    def is_closed(self) -> bool:
        """Whether it was closed; calls fail then."""
        return self._closed or self._connection.is_closed

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to a server right now."""
        return self._connection.is_connected

    @property
    def connected_url(self) -> str | None:
        """The server that it is connected to, without credentials; None while there is none."""
        return self._connection.url

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Ends consumers and keep-alives, waits for calls in flight and closes the connection.

        It waits for handlers that run, and for at most the client's timeout for calls; what takes longer
        fails with `ConnectionClosedError`. A NATS connection that was given to `mq9.connect` stays open.
        Closing twice is fine.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._close(), name="mq9-close")
        await asyncio.shield(self._closing)

    drain = aclose

    async def _close(self) -> None:
        try:
            for part in tuple(self._open):
                with suppress(Mq9Error):
                    await part._close()
            self._closed = True
            waits: set[asyncio.Future[Any]] = {*self._calls, *self._background}
            if waits:
                await asyncio.wait(waits, timeout=self._timeout)
            if self._connection.listening:
                # Cancelled FETCHes that still wait. The end of our own connection ends them at the broker
                # too; on somebody else's they have to be waited for. What they have brought until now is
                # given back.
                if self._connection.is_injected:
                    await self._connection.settle(self._timeout + constants.CONSUME_MAX_WAIT_MS / 1000)
                else:
                    await self._connection.flush(self._timeout)
                if self._background:
                    await asyncio.wait(self._background, timeout=self._timeout)
        finally:
            self._closed = True
            await self._connection.close()
            for task in tuple(self._background):
                task.cancel()

    # What the generated operations stand on.

    async def _call(
        self,
        operation: Operation,
        subject: str,
        payload: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        wait_ms: int = 0,
        repeatable: bool = True,
        lease: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """Carries an operation out: sends it, and again where that is allowed, and gives the reply's fields.

        Args:
            operation: The operation.
            subject: Its subject.
            payload: Its body.
            headers: Its headers.
            timeout: Seconds for each attempt; default: the client's.
            wait_ms: Milliseconds that the broker may take on top.
            repeatable: Whether this call may be tried again at all.
            lease: Mailbox and consumer group, if the reply may bring messages under a lease.
        """
        if self._closed and not _INTERNAL.get():
            raise ConnectionClosedError(f"{operation.name}: the client is closed", operation=operation.name)
        seconds = (self._timeout if timeout is None else _encode.timeout(timeout)) + wait_ms / 1000
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._calls.add(done)
        try:
            return await self._attempts(
                operation,
                subject,
                payload,
                headers=headers,
                seconds=seconds,
                repeatable=repeatable,
                lease=lease,
            )
        except Mq9Error as error:
            error.operation = operation.name
            raise
        finally:
            self._calls.discard(done)
            done.set_result(None)

    async def _attempts(
        self,
        operation: Operation,
        subject: str,
        payload: bytes,
        *,
        headers: Mapping[str, str] | None,
        seconds: float,
        repeatable: bool,
        lease: tuple[str, str] | None,
    ) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + operation.give_up_ms / 1000 if operation.give_up_ms else math.inf
        attempts = constants.RETRY_ATTEMPTS if repeatable else 1
        abandoned = self._give_back_late(*lease) if lease else None
        pause = self._pause_unit
        for attempt in range(1, attempts + 1):
            try:
                data = await self._connection.request(
                    operation.name, subject, payload, headers, seconds, abandoned=abandoned
                )
                return _decode.reply(operation.name, data)
            except Mq9Error as error:
                again = error.kind in operation.retries_on or (
                    error.kind == "server" and error.code in operation.retries_on
                )
                if not again or attempt == attempts or self._connection.is_closed:
                    raise
                wait = pause * random.uniform(1, 1 + constants.RETRY_JITTER)  # noqa: S311 - jitter
                if loop.time() + wait >= give_up:
                    raise
                logger.debug("%s: attempt %d failed (%s), trying again", operation.name, attempt, error)
            await asyncio.sleep(wait)
            pause *= constants.RETRY_PAUSE_FACTOR
            seconds = min(seconds, give_up - loop.time())
        raise AssertionError("the last attempt returns or raises")

    def _give_back_late(self, mail_address: str, group_name: str) -> Callable[[bytes], Awaitable[None]]:
        """What to do with the reply of a cancelled FETCH under a lease: its messages go back."""

        async def give_back(data: bytes) -> None:
            _INTERNAL.set(True)
            try:
                result = decoders.msg_fetch(_decode.reply("msg.fetch", data))
                if result.lease_id and result.messages:
                    ids = [message.msg_id for message in result.messages]
                    await self.nack(mail_address, group_name, ids, lease_id=result.lease_id)
            except Mq9Error as error:
                logger.warning("messages that a cancelled FETCH brought could not be given back: %s", error)

        return give_back

    def _consumer(
        self,
        mail_address: str,
        group_name: str,
        handler: Handler | None,
        *,
        options: dict[str, Any],
        start: dict[str, Any],
        on_error: ErrorHook | None,
        timeout: float | None,
    ) -> Consumer:
        if self._closed or self._closing is not None:
            raise ConnectionClosedError("consume: the client is closed")
        return Consumer(
            self,
            mail_address,
            group_name,
            handler,
            start=start,
            on_error=on_error,
            timeout=None if timeout is None else _encode.timeout(timeout),
            **options,
        )

    def agent_keep_alive(
        self,
        name: str,
        *,
        mailbox: str | None = None,
        payload: str | None = None,
        card: Mapping[str, Any] | None = None,
    ) -> AgentKeepAlive:
        """Keeps an agent in the registry for as long as a block runs.

        Registers it on entry, reports it regularly, registers it again when the registry has forgotten it,
        and unregisters it at the end: `async with client.agent_keep_alive("translator",
        mailbox="translator.inbox"): ...`.

        Args:
            name: The agent's name; an agent of this name is replaced.
            mailbox: The mailbox to reach it by.
            payload: A description in plain text.
            card: More fields of the registration, as in an agent card.

        Returns:
            AgentKeepAlive: A context manager; its `start` and `stop` can be called too.

        Requirements: KEEPALIVE-001, KEEPALIVE-002.
        """
        given = {"mailbox": mailbox, "payload": payload, "card": card}
        return AgentKeepAlive(self, name, {key: value for key, value in given.items() if value})

    def _run_in_background(self, action: Awaitable[Any]) -> asyncio.Task[Any]:
        """Runs something that must end before the client closes."""

        async def run() -> None:
            _INTERNAL.set(True)
            await action

        task: asyncio.Task[Any] = asyncio.create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task
