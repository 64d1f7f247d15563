"""NATS by WebSocket: a public client library (nats-py), and frames written by hand."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import nats
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

from mq9_broker.auth import Access, User
from mq9_broker.auth.passwords import hash_password
from mq9_broker.transport import ListenerOptions
from mq9_broker.transport.tls import TlsOptions, load_context
from mq9_broker.transport.websocket import WebSocketChannel

from .credentials import CertificateAuthority
from .support import PLAIN, TIMEOUT, Served, eventually, serving


@asynccontextmanager
async def websocket(
    options: ListenerOptions | None = None,
    access: Access | None = None,
    tls: TlsOptions | None = None,
    origins: frozenset[str] = frozenset(),
) -> AsyncIterator[tuple[Served, int]]:
    async with serving(options, access, tls) as served:
        _, port = await served.listener.start_websocket(
            "127.0.0.1", 0, secure=tls is not None, origins=origins
        )
        yield served, port


class Browser:
    """A WebSocket client that shows every event."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    @classmethod
    async def connect(cls, port: int, *headers: tuple[bytes, bytes]) -> "Browser":
        browser = cls(*await asyncio.open_connection("127.0.0.1", port))
        browser.send(Request(host="localhost", target="/", extra_headers=list(headers)))
        return browser

    def send(self, event: Event) -> None:
        self.writer.write(self._ws.send(event))

    async def next(self) -> Event:
        while not self._events:
            data = await asyncio.wait_for(self._reader.read(65536), TIMEOUT)
            self._ws.receive_data(data or None)
            self._events += self._ws.events()
        return self._events.pop(0)

    async def until(self, end: bytes) -> bytes:
        received = b""
        while not received.endswith(end):
            event = await self.next()
            assert isinstance(event, BytesMessage), event
            received += event.data
        return received

    async def close(self) -> None:
        self.writer.close()


async def test_a_client_library() -> None:
    async with websocket() as (served, port), websocket():
        client = await nats.connect(f"ws://127.0.0.1:{port}", allow_reconnect=False)
        other = await nats.connect(served.url, allow_reconnect=False)
        subscription = await client.subscribe("news")
        await client.flush()
        await other.publish("news", b"x" * 300_000, headers={"A": "b"})
        message = await subscription.next_msg(TIMEOUT)
        assert (len(message.data), message.headers) == (300_000, {"A": "b"})
        for size in (1, 100, 70_000, 1_000_000):
            assert len((await client.request("$mq9.AI.X", b"a" * size, timeout=TIMEOUT)).data) == size + 2
        await client.close()
        await other.close()
        await eventually(lambda: not list(served.listener.connections))


async def test_with_tls_and_users(tmp_path: Path) -> None:
    authority = CertificateAuthority(tmp_path)
    server = authority.issue("server")
    tls = TlsOptions(load_context(server.certificate, server.key))
    access = Access(users=(User("alice", hash_password("secret", 4)),))
    context = ssl.create_default_context(cafile=str(authority.file))
    async with websocket(access=access, tls=tls) as (served, port):
        url = f"wss://localhost:{port}"
        options: dict[str, Any] = {"tls": context, "allow_reconnect": False, "user": "alice"}
        client = await nats.connect(url, password="secret", **options)
        assert (await client.request("$mq9.AI.X", b"a", timeout=5)).data == b"<a>"
        await client.close()
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await nats.connect(url, password="wrong", **options)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        assert b"TLS Required" in await asyncio.wait_for(reader.read(), TIMEOUT)
        writer.close()
        await eventually(lambda: served.listener._arriving == 0)


async def test_info_is_the_first_message() -> None:
    async with websocket() as (_, port):
        browser = await Browser.connect(port)
        assert isinstance(await browser.next(), AcceptConnection)
        info = await browser.until(b"\r\n")
        assert info.startswith(b"INFO {")
        assert b"tls" not in info
        browser.send(BytesMessage(data=PLAIN + b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1\r\na\r\nPI"))
        browser.send(Ping(payload=b"there?"))
        browser.send(BytesMessage(data=b"NG\r\n"))
        data, pongs = b"", []
        while not (pongs and data.endswith(b"PONG\r\n")):
            event = await browser.next()
            if isinstance(event, Pong):
                pongs.append(bytes(event.payload))
            else:
                assert isinstance(event, BytesMessage)
                data += event.data
        assert pongs == [b"there?"]
        assert data == b"MSG in.1 1 3\r\n<a>\r\nPONG\r\n"
        browser.send(CloseConnection(code=1000))
        assert isinstance(await browser.next(), CloseConnection)
        await browser.close()


async def test_messages_in_fragments() -> None:
    async with websocket() as (_, port):
        browser = await Browser.connect(port)
        await browser.next()
        await browser.until(b"\r\n")
        for byte in PLAIN + b"PING\r\n":
            browser.send(BytesMessage(data=bytes([byte]), message_finished=byte == 10))
        assert await browser.until(b"PONG\r\n") == b"PONG\r\n"
        await browser.close()


async def test_a_client_that_breaks_the_rules_learns_why() -> None:
    async with websocket() as (served, port):
        browser = await Browser.connect(port)
        await browser.next()
        await browser.until(b"\r\n")
        browser.send(BytesMessage(data=b"NONSENSE\r\n"))
        assert await browser.until(b"\r\n") == b"-ERR 'Unknown Protocol Operation'\r\n"
        assert isinstance(await browser.next(), CloseConnection)
        await browser.close()
        text = await Browser.connect(port)
        await text.next()
        await text.until(b"\r\n")
        text.send(TextMessage(data="PING\r\n"))
        closed = await text.next()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1003
        await text.close()
        await eventually(lambda: not list(served.listener.connections))


@pytest.mark.parametrize(
    "noise",
    [
        b"PING\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
        b"\x00\xff" * 1000,
        b"CONNECT {}\r\n",
    ],
)
async def test_noise_instead_of_a_handshake(noise: bytes) -> None:
    async with websocket() as (served, port):
        bystander = await served.client()
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(noise)
        try:
            writer.write_eof()
            answer = await asyncio.wait_for(reader.read(), TIMEOUT)
        except ConnectionError:
            answer = b""
        assert b"INFO" not in answer
        writer.close()
        assert await bystander.ask(b"") == b""
        await eventually(lambda: served.listener._arriving == 0)


async def test_frames_that_are_wrong() -> None:
    async with websocket() as (served, port):
        browser = await Browser.connect(port)
        await browser.next()
        await browser.until(b"\r\n")
        browser.writer.write(b"\xff\xff\xff\xff\xff\xff")  # reserved bits
        assert isinstance(await browser.next(), CloseConnection)
        await browser.close()
        await eventually(lambda: not list(served.listener.connections))


async def test_a_client_that_says_nothing_is_ended() -> None:
    async with websocket(ListenerOptions(auth_timeout=0.2)) as (served, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), TIMEOUT) == b""
        writer.close()
        await eventually(lambda: served.listener._arriving == 0)


async def test_pages_that_may_not_connect() -> None:
    async with websocket(origins=frozenset({"https://good.example"})) as (_, port):
        for origin, expected in (
            ("https://good.example", AcceptConnection),
            ("https://bad.example", RejectConnection),
        ):
            browser = await Browser.connect(port, (b"Origin", origin.encode()))
            assert isinstance(await browser.next(), expected)
            await browser.close()
        browser = await Browser.connect(port)  # no page at all
        assert isinstance(await browser.next(), AcceptConnection)
        await browser.close()


# Every chunking gives the same.


class Recorder:
    """Stands for the connection, and for the transport below."""

    def __init__(self) -> None:
        self.received = b""
        self.written = b""

    def connection_made(self, transport: object) -> None: ...

    def data_received(self, data: bytes) -> None:
        self.received += data

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return True

    def abort(self) -> None: ...

    def get_extra_info(self, name: str, default: object = None) -> object:
        return default


def client_bytes(messages: list[bytes]) -> bytes:
    client = WSConnection(ConnectionType.CLIENT)
    upgrade = client.send(Request(host="x", target="/"))
    key = upgrade.lower().split(b"sec-websocket-key: ")[1].split(b"\r\n")[0]
    assert key
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(upgrade)
    list(server.events())
    client.receive_data(server.send(AcceptConnection()))
    list(client.events())
    return upgrade + b"".join(client.send(BytesMessage(data=message)) for message in messages)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.binary(max_size=300), max_size=6),
    st.lists(st.integers(0, 3000), max_size=8),
    st.binary(max_size=20),
)
def test_every_chunking_gives_the_same(messages: list[bytes], places: list[int], noise: bytes) -> None:
    data = client_bytes(messages)

    async def run(stream: bytes, cuts: list[int]) -> Recorder:
        async with serving() as served:
            recorder = Recorder()
            channel = WebSocketChannel(served.listener, lambda: recorder, frozenset())  # type: ignore[arg-type,return-value]
            channel.connection_made(recorder)
            edges = [0, *sorted({place % (len(stream) + 1) for place in cuts}), len(stream)]
            for start, end in pairwise(sorted({*edges})):
                channel.data_received(stream[start:end])
            channel._arrived()
            return recorder

    whole, pieces = asyncio.run(run(data, [])), asyncio.run(run(data, places))
    assert whole.received == pieces.received == b"".join(messages)
    broken = asyncio.run(run(data + noise, places))  # whatever comes then, nothing is raised
    assert broken.received.startswith(whole.received)
