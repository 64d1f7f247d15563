"""TLS in all its ways, with a public client library (nats-py), raw sockets, and clients that do it wrong."""

import asyncio
import json
import ssl
import threading
from pathlib import Path
from typing import Any

import nats
import pytest

from mq9_broker.auth import Access, User
from mq9_broker.auth.access import PermissionLists
from mq9_broker.auth.passwords import hash_password
from mq9_broker.transport import ListenerOptions
from mq9_broker.transport.handshakes import step
from mq9_broker.transport.tls import Handshake, TlsError, TlsOptions, load_context

from .credentials import Certificate, CertificateAuthority
from .support import PLAIN, TIMEOUT, RawClient, Served, eventually, serving

REQUIRED = b"-ERR 'Secure Connection - TLS Required'\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return CertificateAuthority(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(authority: CertificateAuthority) -> Certificate:
    return authority.issue("server")


def options(
    server: Certificate,
    *,
    authorities: Path | None = None,
    required: bool = True,
    handshake: Handshake = "after-info",
) -> TlsOptions:
    return TlsOptions(load_context(server.certificate, server.key, authorities), required, handshake)


def client_context(authority: CertificateAuthority, own: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.file))
    if own is not None:
        context.load_cert_chain(own.certificate, own.key)
    return context


async def works(served: Served, context: ssl.SSLContext, **more: Any) -> None:
    client = await nats.connect(served.url, tls=context, allow_reconnect=False, **more)
    for size in (1, 100_000, 1_000_000):
        assert len((await client.request("$mq9.AI.X", b"a" * size, timeout=TIMEOUT)).data) == size + 2
    await client.close()


def info_of(client: RawClient) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(client.info.removeprefix(b"INFO "))
    return found


@pytest.mark.parametrize("handshake", ["after-info", "auto"])
async def test_upgrade_after_info(
    authority: CertificateAuthority, server: Certificate, handshake: Handshake
) -> None:
    async with serving(tls=options(server, handshake=handshake)) as served:
        await works(served, client_context(authority))
        client = await served.client(b"")
        assert info_of(client)["tls_required"] is True
        assert not info_of(client).keys() & {"tls_available", "tls_verify"}
        assert await client.refused(PLAIN) == REQUIRED
        await eventually(lambda: not list(served.listener.connections))


@pytest.mark.parametrize("handshake", ["first", "auto"])
async def test_handshake_first(
    authority: CertificateAuthority, server: Certificate, handshake: Handshake
) -> None:
    async with serving(tls=options(server, handshake=handshake)) as served:
        await works(served, client_context(authority), tls_handshake_first=True)


async def test_tls_only_for_those_who_want_it(authority: CertificateAuthority, server: Certificate) -> None:
    async with serving(tls=options(server, required=False)) as served:
        await works(served, client_context(authority))
        client = await served.client()
        assert info_of(client)["tls_available"] is True
        assert "tls_required" not in info_of(client)
        assert await client.ask(b"SUB in.* 1\r\nPUB $mq9.AI.X in.1 1\r\na\r\n") == b"MSG in.1 1 3\r\n<a>\r\n"


async def test_info_says_nothing_of_tls_without_it() -> None:
    async with serving() as served:
        assert not [name for name in info_of(await served.client()) if name.startswith("tls")]


async def test_many_clients_at_once(authority: CertificateAuthority, server: Certificate) -> None:
    context = client_context(authority)
    # All share one loop with the listener: a busy machine takes longer than a client's usual patience.
    async with serving(ListenerOptions(auth_timeout=60), tls=options(server)) as served:
        clients = await asyncio.gather(
            *(
                nats.connect(served.url, tls=context, allow_reconnect=False, connect_timeout=60)
                for _ in range(60)
            )
        )
        replies = await asyncio.gather(
            *(client.request("$mq9.AI.X", b"%d" % n, timeout=30) for n, client in enumerate(clients))
        )
        assert [reply.data for reply in replies] == [b"<%d>" % n for n in range(60)]
        for client in clients:
            await client.close()
        await eventually(lambda: not list(served.listener.connections))
        assert served.listener._arriving == 0


async def test_client_certificates(
    authority: CertificateAuthority, server: Certificate, tmp_path: Path
) -> None:
    stranger = CertificateAuthority(tmp_path, "somebody else").issue("stranger")
    async with serving(tls=options(server, authorities=authority.file)) as served:
        assert info_of(await served.client(b""))["tls_verify"] is True
        await works(served, client_context(authority, authority.issue("client")))
        for own in (None, stranger):
            with pytest.raises((OSError, ssl.SSLError, nats.errors.Error, asyncio.TimeoutError)):
                await nats.connect(
                    served.url, tls=client_context(authority, own), allow_reconnect=False, connect_timeout=2
                )
        assert len(served.handler.requests) == 3


@pytest.mark.parametrize("name", ["CN=alice,O=mq9", "alice@example.org"])
async def test_certificates_say_who_the_user_is(
    authority: CertificateAuthority, server: Certificate, name: str
) -> None:
    only_a = PermissionLists(publish_allow=("$mq9.AI.A",))
    access = Access(users=(User(name, permissions=only_a), User("bob", hash_password("secret", 4))))
    tls = options(server, authorities=authority.file)
    async with serving(access=access, tls=tls, map_certificates=True) as served:
        context = client_context(authority, authority.issue("alice", "mq9", "alice@example.org"))
        client = await nats.connect(served.url, tls=context, allow_reconnect=False)
        assert (await client.request("$mq9.AI.A", b"a", timeout=5)).data == b"<a>"
        assert b'"code":"unauthorized"' in (await client.request("$mq9.AI.B", b"a", timeout=5)).data
        await client.close()
        nobody = client_context(authority, authority.issue("nobody"))
        with pytest.raises(nats.errors.Error, match=r"(?i)authorization"):
            await nats.connect(served.url, tls=nobody, allow_reconnect=False)
        client = await nats.connect(
            served.url, tls=nobody, user="bob", password="secret", allow_reconnect=False
        )
        await client.close()


# Clients that do it wrong.


@pytest.mark.parametrize("handshake", ["after-info", "first"])
async def test_noise_instead_of_tls(
    authority: CertificateAuthority, server: Certificate, handshake: Handshake
) -> None:
    async with serving(tls=options(server, handshake=handshake)) as served:
        for noise in (
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600,
            b"\x16" * 50,
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(noise)
            writer.write_eof()
            await asyncio.wait_for(reader.read(), TIMEOUT)
            writer.close()
        await works(served, client_context(authority), tls_handshake_first=handshake == "first")
        await eventually(lambda: served.listener._arriving == 0)
        assert len(served.handler.requests) == 3


async def test_a_handshake_that_does_not_end(server: Certificate) -> None:
    async with serving(ListenerOptions(auth_timeout=0.2), tls=options(server)) as served:
        client = await served.client(b"\x16\x03\x01")
        assert await client.rest() == b""
        silent = await served.client(b"")
        assert await silent.rest() == b""
        assert served.listener._arriving == 0


async def test_clients_in_the_middle_of_a_handshake_count(
    authority: CertificateAuthority, server: Certificate
) -> None:
    tls = options(server, handshake="first")
    async with serving(ListenerOptions(max_connections=2, auth_timeout=60), tls=tls) as served:
        waiting = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(2)]
        await eventually(lambda: served.listener._arriving == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1), TIMEOUT)
        writer.close()
        for _, other in waiting:
            other.close()
        await eventually(lambda: served.listener._arriving == 0)
        await works(served, client_context(authority), tls_handshake_first=True)


async def test_errors_reach_the_client_through_tls(
    authority: CertificateAuthority, server: Certificate
) -> None:
    async with serving(tls=options(server, handshake="first")) as served:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=client_context(authority), server_hostname="localhost"
        )
        await reader.readline()
        writer.write(PLAIN + b"NONSENSE\r\n")
        assert await asyncio.wait_for(reader.read(), TIMEOUT) == b"-ERR 'Unknown Protocol Operation'\r\n"
        writer.close()
        await eventually(lambda: not list(served.listener.connections))


async def test_slow_consumer_with_tls_is_cut(authority: CertificateAuthority, server: Certificate) -> None:
    limits = ListenerOptions(max_pending=2**20, write_high_water=2**18)
    async with serving(limits, tls=options(server, handshake="first")) as served:
        _, writer = await asyncio.open_connection(
            "127.0.0.1", served.port, ssl=client_context(authority), server_hostname="localhost", limit=1024
        )
        writer.write(PLAIN + b"SUB flood 1\r\n")
        sender = await nats.connect(
            served.url, tls=client_context(authority), tls_handshake_first=True, allow_reconnect=False
        )
        for _ in range(10_000):
            await sender.publish("flood", b"x" * 65536)
            await sender.flush()
            if len(list(served.listener.connections)) == 1:
                break
        assert len(list(served.listener.connections)) == 1
        writer.close()
        await sender.close()


async def test_reload_of_the_certificate(authority: CertificateAuthority, tmp_path: Path) -> None:
    other = CertificateAuthority(tmp_path, "new authority")
    async with serving(tls=options(authority.issue("old"))) as served:
        await works(served, client_context(authority))
        served.listener.reload(None, options(other.issue("new")))
        await works(served, client_context(other))
        with pytest.raises(ssl.SSLError):
            await works(served, client_context(authority))


def test_certificates_that_cannot_be_used(authority: CertificateAuthority, tmp_path: Path) -> None:
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(TlsError, match="key and certificate do not fit"):
        load_context(one.certificate, other.key)
    with pytest.raises(TlsError, match="No such file"):
        load_context(tmp_path / "none.pem", one.key)
    (tmp_path / "text.pem").write_text("hello")
    with pytest.raises(TlsError, match="not the PEM"):
        load_context(tmp_path / "text.pem", one.key)
    with pytest.raises(TlsError, match=r"text\.pem"):
        load_context(one.certificate, one.key, tmp_path / "text.pem")


def slow_handshakes(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let handshakes take their time; return what shows that one has begun, and what lets them go on."""
    begun, go_on = threading.Event(), threading.Event()

    def slow_step(*arguments: Any) -> Any:
        begun.set()
        assert go_on.wait(60)
        return step(*arguments)

    monkeypatch.setattr("mq9_broker.transport.handshakes.step", slow_step)
    return begun, go_on


async def test_a_handshake_holds_nobody_up(
    authority: CertificateAuthority, server: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that are connected are served while the handshakes of others take as long as they like."""
    context = client_context(authority)
    async with serving(ListenerOptions(auth_timeout=60), tls=options(server)) as served:
        connected = await nats.connect(served.url, tls=context, allow_reconnect=False, connect_timeout=60)
        begun, go_on = slow_handshakes(monkeypatch)
        joining = [
            asyncio.create_task(
                nats.connect(served.url, tls=context, allow_reconnect=False, connect_timeout=60)
            )
            for _ in range(3)
        ]
        assert await asyncio.to_thread(begun.wait, 60)
        for number in range(20):
            reply = await connected.request("$mq9.AI.X", b"%d" % number, timeout=30)
            assert reply.data == b"<%d>" % number
        assert not any(task.done() for task in joining)
        go_on.set()
        for client in (connected, *await asyncio.gather(*joining)):
            await client.close()


async def test_a_client_that_leaves_during_its_handshake_is_forgotten(
    authority: CertificateAuthority, server: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = slow_handshakes(monkeypatch)
    outgoing = ssl.MemoryBIO()
    client = client_context(authority).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    async with serving(ListenerOptions(auth_timeout=60), tls=options(server, handshake="first")) as served:
        _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(outgoing.read())
        assert await asyncio.to_thread(begun.wait, 60)
        writer.transport.abort()
        go_on.set()
        await eventually(lambda: served.listener._arriving == 0)
        assert list(served.listener.connections) == []
        await works(served, client_context(authority), tls_handshake_first=True)
