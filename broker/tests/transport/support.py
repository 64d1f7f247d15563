"""A listener in the test's own event loop, a handler that answers, and a client that speaks raw bytes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from mq9_broker.auth import Access, Authenticator
from mq9_broker.auth.passwords import PasswordChecker
from mq9_broker.transport import ClientConnection, Listener, ListenerOptions, Reply, Request
from mq9_broker.transport.tls import TlsOptions

PLAIN = b'CONNECT {"verbose":false,"pedantic":false,"headers":true,"no_responders":true,"protocol":1}\r\n'
TIMEOUT = 10.0


class RecordingHandler:
    """Remembers what it was given; answers every request that has a reply subject with `answer(request)`."""

    def __init__(self) -> None:
        self.calls: list[list[Request]] = []
        self.closed: list[ClientConnection] = []
        self.connections: dict[ClientConnection, None] = {}
        self.rounds: list[int] = []
        """Of how many connections each call of `handle_all` was."""
        self.most = 1_000_000
        """Requests that one call carries out."""
        self.answer: Callable[[Request], bytes | None] = lambda request: b"<" + request[3] + b">"

    def handle(self, connection: ClientConnection, requests: list[Request]) -> int:
        requests = requests[: self.most]
        self.calls.append(list(requests))
        self.connections[connection] = None
        replies: list[Reply] = []
        for request in requests:
            body = self.answer(request)
            if request[1] is not None and body is not None:
                replies.append((request[1], body))
        connection.send_replies(replies)
        return len(requests)

    def handle_all(self, parts: Sequence[tuple[ClientConnection, list[Request]]]) -> list[int]:
        self.rounds.append(len(parts))
        return [self.handle(connection, requests) for connection, requests in parts]

    def connection_closed(self, connection: ClientConnection) -> None:
        self.closed.append(connection)

    @property
    def requests(self) -> list[Request]:
        return [request for call in self.calls for request in call]


class RawClient:
    """Sends bytes and looks at the bytes that come back."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.info = b""

    @classmethod
    async def connect(cls, port: int, greeting: bytes = PLAIN) -> "RawClient":
        client = cls(*await asyncio.open_connection("127.0.0.1", port, limit=2**26))
        client.info = await asyncio.wait_for(client.reader.readuntil(b"\r\n"), TIMEOUT)
        client.send(greeting)
        return client

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def until(self, end: bytes) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(end), TIMEOUT)

    async def ask(self, data: bytes) -> bytes:
        """Send, and return all that comes before the answer to a PING sent behind it."""
        self.send(data + b"PING\r\n")
        received = await self.until(b"PONG\r\n")
        return received[: -len(b"PONG\r\n")]

    async def rest(self) -> bytes:
        """Return all that comes until the server ends the connection."""
        received = b""
        while True:
            try:
                chunk = await asyncio.wait_for(self.reader.read(2**20), TIMEOUT)
            except ConnectionResetError:
                return received
            if not chunk:
                return received
            received += chunk

    async def refused(self, data: bytes) -> bytes:
        """Send something that ends the connection, and return what came before the end."""
        self.send(data)
        received = await self.rest()
        await self.close()
        return received

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


class Served:
    """A running listener and its handler."""

    def __init__(self, listener: Listener, handler: RecordingHandler) -> None:
        self.listener = listener
        self.handler = handler
        self.port = listener.address[1]
        self._clients: list[RawClient] = []

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def client(self, greeting: bytes = PLAIN) -> RawClient:
        client = await RawClient.connect(self.port, greeting)
        self._clients.append(client)
        return client

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        await self.listener.close()


@asynccontextmanager
async def serving(
    options: ListenerOptions | None = None,
    access: Access | None = None,
    tls: TlsOptions | None = None,
    *,
    map_certificates: bool = False,
) -> AsyncIterator[Served]:
    handler = RecordingHandler()
    passwords = PasswordChecker()
    authenticator = Authenticator(access, passwords, map_certificates=map_certificates) if access else None
    listener = Listener(handler, options, authenticator, tls)
    await listener.start("127.0.0.1", 0)
    served = Served(listener, handler)
    try:
        yield served
    finally:
        await served.close()
        passwords.close()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait until something holds; fail if it never does."""

    async def poll() -> None:
        while not condition():  # noqa: ASYNC110  # anything may be waited for
            await asyncio.sleep(0.005)

    await asyncio.wait_for(poll(), TIMEOUT)
