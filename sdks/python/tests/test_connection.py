"""Connecting, reconnecting, refusals and sizes: real brokers, a real NATS server, servers that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
import trustme
from sdk_support import Peer, until

import mq9
from mq9._connection import server_list

NATS_SERVER = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or "nats-server"
FAST = {"reconnect_wait": 0.02, "reconnect_wait_max": 0.1}


@pytest.fixture
async def peer() -> AsyncIterator[Callable[..., Awaitable[Peer]]]:
    peers: list[Peer] = []

    async def start(*arguments: Any, **info: Any) -> Peer:
        peer = Peer(*arguments, **info)
        await peer.start()
        peers.append(peer)
        return peer

    yield start
    for peer in peers:
        await peer.stop()


@pytest.fixture
def nats_server() -> Iterator[Callable[..., str]]:
    """Starts real NATS servers, without any broker, and gives their URLs."""
    running: list[tuple[subprocess.Popen[bytes], tempfile.TemporaryDirectory[str]]] = []

    def start(*arguments: str) -> str:
        folder = tempfile.TemporaryDirectory()
        process = subprocess.Popen(
            [NATS_SERVER, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", folder.name, *arguments],
            stderr=subprocess.DEVNULL,
        )
        running.append((process, folder))
        file = Path(folder.name) / f"nats-server_{process.pid}.ports"
        for _ in range(1000):
            with contextlib.suppress(OSError, ValueError):
                return str(json.loads(file.read_text())["nats"][0])
            if process.poll() is not None:
                break
            subprocess.run(["sleep", "0.02"], check=True)
        raise RuntimeError(f"nats-server did not start: exit code {process.poll()}")

    yield start
    for process, folder in running:
        process.terminate()
        process.wait()
        folder.cleanup()


@pytest.mark.parametrize(
    ("given", "urls"),
    [
        ("nats://h", ("nats://h:4222",)),
        ("h", ("nats://h:4222",)),
        ("h:5", ("nats://h:5",)),
        ("a:1, b:2,,a:1", ("nats://a:1", "nats://b:2")),
        (["a:1", "tls://b"], ("nats://a:1", "tls://b:4222")),
        (("a:1,b:2",), ("nats://a:1", "nats://b:2")),
        ("nats://u:p@h", ("nats://u:p@h:4222",)),
        ("nats://[::1]", ("nats://[::1]:4222",)),
        ("wss://h/x", ("wss://h/x",)),
    ],
)
def test_servers_are_one_url_a_list_or_a_string_with_commas(given: Any, urls: tuple[str, ...]) -> None:
    assert server_list(given) == urls


@pytest.mark.parametrize(
    "given", ["", ",", [], None, 5, [5], "http://h", "nats://", "nats://h:x", "nats://a b", "ws://a,nats://b"]
)
async def test_servers_that_are_none(given: Any) -> None:
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        await mq9.connect(given)
    assert caught.value.field == "servers"


def test_password_in_a_url_stays_out_of_errors() -> None:
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        server_list("nats://user:secret@h:x")
    assert "secret" not in str(caught.value)


async def test_no_server_is_connection_closed_and_leaks_nothing() -> None:
    before = asyncio.all_tasks()
    with pytest.raises(mq9.ConnectionClosedError) as caught:
        await mq9.connect("nats://u:secret@127.0.0.1:1,127.0.0.1:2")
    assert (caught.value.kind, caught.value.code) == ("connection_closed", None)
    assert "127.0.0.1:1" in str(caught.value)
    assert "127.0.0.1:2" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert asyncio.all_tasks() == before


async def test_server_that_says_nothing_is_given_up(peer: Any) -> None:
    connections: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: connections.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    with pytest.raises(mq9.ConnectionClosedError, match="no answer in time"):
        await mq9.connect(f"127.0.0.1:{port}", connect_timeout=0.1)
    silent.close()
    for writer in connections:
        writer.close()


async def test_next_server_is_used_when_one_is_down(broker: Any) -> None:
    async with await mq9.connect(f"127.0.0.1:1,{broker.url}") as client:
        assert client.is_connected
        assert client.connected_url == broker.url


async def test_wrong_password_is_unauthorized(nats_server: Any) -> None:
    url = nats_server("--user", "u", "--pass", "secret")
    with pytest.raises(mq9.ConnectionClosedError) as caught:
        await mq9.connect(url, user="u", password="wrong")
    assert (caught.value.kind, caught.value.code) == ("connection_closed", "unauthorized")
    for options in ({"user": "u", "password": "secret"}, {}):
        target = url if options else url.replace("//", "//u:secret@")
        async with await mq9.connect(target, **options) as client:
            assert client.is_connected
            assert "secret" not in str(client.connected_url)


async def test_token(nats_server: Any) -> None:
    url = nats_server("--auth", "t0ken")
    with pytest.raises(mq9.ConnectionClosedError):
        await mq9.connect(url, token="wrong")
    async with await mq9.connect(url, token="t0ken") as client:
        assert client.is_connected


async def test_credentials_file_that_is_not_there(broker: Any) -> None:
    with pytest.raises(mq9.InvalidArgumentError) as caught:
        await mq9.connect(broker.url, credentials_file="/no/such.creds")
    assert caught.value.field == "credentials_file"


async def test_credentials_file_signs_the_nonce(peer: Any, tmp_path: Path) -> None:
    import nkeys

    seed = nkeys.encode_seed(bytes(range(32)), nkeys.PREFIX_BYTE_USER)
    creds = tmp_path / "user.creds"
    creds.write_text(
        "-----BEGIN NATS USER JWT-----\nthe.jwt\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed.decode()}\n------END USER NKEY SEED------\n"
    )
    server = await peer(auth_required=True, nonce="abc")
    async with await mq9.connect(server.url, credentials_file=creds):
        sent = server.connects[0]
        assert sent["jwt"] == "the.jwt"
        assert sent["sig"]


async def test_tls(nats_server: Any, tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "server.key")
    url = nats_server(
        "--tls", "--tlscert", str(tmp_path / "server.pem"), "--tlskey", str(tmp_path / "server.key")
    )
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with pytest.raises(mq9.ConnectionClosedError, match="certificate verify failed"):
        await mq9.connect(url, tls=True)
    async with await mq9.connect(url, tls=context) as client:
        with pytest.raises(mq9.NoRespondersError):
            await client.send("a.b", "x")


@pytest.mark.parametrize("scheme", ["nats", "tls"])
async def test_password_is_not_sent_in_clear_when_tls_was_asked_for(peer: Any, scheme: str) -> None:
    server = await peer()
    with pytest.raises(mq9.ConnectionClosedError, match="does not offer TLS"):
        await mq9.connect(f"{scheme}://u:p@127.0.0.1:{server.port}", tls=True if scheme == "nats" else None)
    assert server.connects == []


async def test_options_of_the_connection_reach_the_server(peer: Any) -> None:
    server = await peer()
    async with await mq9.connect(server.url, name="a name", user="u", password="p"):
        assert server.connects[0]["name"] == "a name"
    assert server.connects[0]["headers"] is True
    assert server.connects[0]["no_responders"] is True


async def test_nobody_serves_mq9_here(nats_server: Any) -> None:
    async with await mq9.connect(nats_server()) as client:
        client._pause_unit = 0.0
        with pytest.raises(mq9.NoRespondersError) as caught:
            await client.query("a.b")
        assert caught.value.kind == "no_responders"
        assert caught.value.operation == "msg.query"


async def test_request_without_a_reply_ends_at_its_timeout(peer: Any) -> None:
    server = await peer()
    async with await mq9.connect(server.url, timeout=0.05) as client:
        client._pause_unit = 0.0
        with pytest.raises(mq9.Mq9TimeoutError) as caught:
            await client.send("a.b", "x")
        assert caught.value.kind == "timeout"
        with pytest.raises(mq9.Mq9TimeoutError):
            await client.query("a.b")
    assert len(server.published) == 4


async def test_request_in_flight_when_the_connection_breaks_fails_at_once(peer: Any) -> None:
    async def cut(server: Peer, subject: str, inbox: str, body: bytes) -> None:
        server.cut()

    server = await peer(cut)
    async with await mq9.connect(server.url, timeout=60, **FAST) as client:
        client._pause_unit = 0.0
        with pytest.raises(mq9.ConnectionClosedError, match="broke before the reply came"):
            await client.send("a.b", "x")
        with pytest.raises(mq9.ConnectionClosedError):
            await client.query("a.b")  # Tried again on the next connection, twice.
    assert len(server.published) == 4


async def test_error_that_the_server_reports_is_followed_by_a_reconnect(peer: Any) -> None:
    async def refuse(server: Peer, subject: str, inbox: str, body: bytes) -> None:
        if len(server.published) == 1:
            server.writers[-1].write(b"-ERR 'User Authentication Expired'\r\n")
        else:
            await server.reply(inbox, '{"error": "", "messages": []}')

    server = await peer(refuse)
    async with await mq9.connect(server.url, **FAST) as client:
        assert await client.query("a.b") == []
    assert len(server.connects) == 2


async def test_calls_while_disconnected_wait_and_time_out_without_being_sent_later(peer: Any) -> None:
    async def answer(server: Peer, subject: str, inbox: str, body: bytes) -> None:
        await server.reply(inbox, '{"error": "", "msg_id": 1}')

    server = await peer(answer)
    port = server.port
    async with await mq9.connect(server.url, **FAST) as client:
        await server.stop()
        await until(lambda: not client.is_connected)
        with pytest.raises(mq9.Mq9TimeoutError, match="nothing was sent"):
            await client.send("a.b", "lost", timeout=0.05)
        waiting = asyncio.create_task(client.send("a.b", "waits", timeout=30))
        cancelled = asyncio.create_task(client.send("a.b", "cancelled", timeout=30))
        await asyncio.sleep(0.02)
        cancelled.cancel()
        server.published.clear()
        await server.start(port)
        assert await waiting == 1
        await asyncio.gather(cancelled, return_exceptions=True)
        assert cancelled.cancelled()
        assert [body for _, body in server.published] == [b"waits"]


async def test_closing_while_disconnected_ends_waiting_calls(peer: Any) -> None:
    server = await peer()
    before = asyncio.all_tasks()
    client = await mq9.connect(server.url, timeout=0.2, **FAST)
    await server.stop()
    await until(lambda: not client.is_connected)
    waiting = asyncio.create_task(client.send("a.b", "x", timeout=60))
    await asyncio.sleep(0.01)
    await client.aclose()
    with pytest.raises(mq9.ConnectionClosedError):
        await waiting
    await until(lambda: asyncio.all_tasks() <= before)


async def test_next_server_is_used_when_the_connection_is_lost(peer: Any) -> None:
    def answer(name: str) -> Any:
        async def reply(server: Peer, subject: str, inbox: str, body: bytes) -> None:
            await server.reply(inbox, json.dumps({"error": "", "mail_address": name}))

        return reply

    first, second = await peer(answer("first")), await peer(answer("second"))
    async with await mq9.connect([first.url, second.url], **FAST) as client:
        assert await client.mailbox_create() == "first"
        await first.stop()
        await until(lambda: not client.is_connected)
        assert await client.mailbox_create() == "second"
        await first.start(first.port)
        second.cut()
        await until(lambda: len(first.connects) == 2)
        assert await client.mailbox_create() == "first"


async def test_servers_that_a_cluster_announces_are_used_too(peer: Any) -> None:
    second = await peer()
    first = await peer(connect_urls=[f"127.0.0.1:{second.port}"])
    async with await mq9.connect(first.url.replace("//", "//u:p@"), **FAST):
        await first.stop()
        await until(lambda: second.connects)
    assert (second.connects[0]["user"], second.connects[0]["pass"]) == ("u", "p")


async def test_restart_of_the_broker_is_survived(start_broker: Any) -> None:
    broker = start_broker()
    async with await mq9.connect(broker.url, **FAST) as client:
        await client.mailbox_create("box")
        broker.kill()
        await until(lambda: not client.is_connected)
        again = start_broker(port=broker.port)
        await client.mailbox_create("box")
        assert await client.send("box", "x") == 0
        again.stop()


async def test_existing_connection_is_used_and_left_open(broker: Any) -> None:
    connection = await nats.connect(broker.url)
    before = asyncio.all_tasks()
    async with await mq9.connect(nats=connection) as client:
        address = await client.mailbox_create()
        assert await client.send(address, "x") == 0
        assert client.connected_url == broker.url
    assert connection.is_connected
    async with await mq9.connect(nats=connection) as client:
        assert len(await client.query(address)) == 1
    with pytest.raises(mq9.ConnectionClosedError):
        await client.query(address)
    await connection.flush()
    assert asyncio.all_tasks() <= before
    await connection.close()
    with pytest.raises(mq9.ConnectionClosedError):
        await mq9.connect(nats=connection)


async def test_existing_connection_that_its_owner_closes(broker: Any) -> None:
    connection = await nats.connect(broker.url)
    client = await mq9.connect(nats=connection)
    await connection.close()
    with pytest.raises(mq9.ConnectionClosedError):
        await client.query("a.b")
    assert client.is_closed
    await client.aclose()


async def test_closing_on_an_existing_connection_waits_for_its_cancelled_fetch(broker: Any) -> None:
    connection = await nats.connect(broker.url)
    async with await mq9.connect(broker.url) as other, await mq9.connect(nats=connection) as client:
        address = await other.mailbox_create()
        fetch = asyncio.create_task(client.fetch(address, group_name="g", lease_ms=60000, max_wait_ms=5000))
        await until_group(other, address)
        fetch.cancel()
        closing = asyncio.create_task(client.aclose())
        await asyncio.sleep(0.01)
        await other.send(address, "x")
        await closing
        group = (await other.mailbox_info(address)).groups[0]
        assert (group.pending, group.leased) == (1, 0)
    await connection.close()


async def until_group(client: mq9.Client, address: str) -> None:
    for _ in range(1000):
        if (await client.mailbox_info(address)).groups:
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the group was never created")


async def test_largest_payload_and_one_byte_more(broker: Any) -> None:
    async with await mq9.connect(broker.url) as client:
        address = await client.mailbox_create()
        largest = b"\xff" * (1 << 20)
        assert await client.send(address, largest) == 0
        with pytest.raises(mq9.Mq9Error) as caught:
            await client.send(address, largest + b"x")
        assert caught.value.code == "payload_too_large"
        assert (await client.query(address))[0].payload == largest
        assert await client.send(address, "still here") == 1


async def test_size_counts_headers_so_that_the_server_does_not_hang_up(peer: Any) -> None:
    async def answer(server: Peer, subject: str, inbox: str, body: bytes) -> None:
        await server.reply(inbox, '{"error": "", "msg_id": 1}')

    server = await peer(answer, max_payload=100)
    async with await mq9.connect(server.url) as client:
        assert await client.send("a.b", b"x" * 100) == 1
        assert await client.send("a.b", b"x" * 70, headers={"name": "0123456"}) == 1
        with pytest.raises(mq9.InvalidArgumentError) as caught:
            await client.send("a.b", b"x" * 80, headers={"name": "0123456"})
        assert (caught.value.field, caught.value.code) == ("payload", "payload_too_large")
    assert len(server.published) == 2


async def test_many_large_payloads_at_once(broker: Any) -> None:
    async with await mq9.connect(broker.url) as client:
        address = await client.mailbox_create()
        payload = b"x" * 600_000
        ids = await asyncio.gather(*(client.send(address, payload) for _ in range(20)))
        assert sorted(ids) == list(range(20))


async def test_request_that_cannot_be_written_times_out_and_can_be_cancelled() -> None:
    stopped = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"max_payload": 10000000, "headers": true}\r\n')
        while (await reader.readline()).strip() != b"PING":
            pass
        writer.write(b"PONG\r\n")
        await stopped.wait()  # Reads no more: the socket fills up.
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    port = server.sockets[0].getsockname()[1]
    client = await mq9.connect(f"127.0.0.1:{port}", timeout=0.5, **FAST)
    sends = [asyncio.create_task(client.send("a.b", b"x" * 4_000_000)) for _ in range(8)]
    cancelled = asyncio.create_task(client.send("a.b", b"x" * 4_000_000, timeout=60))
    await asyncio.sleep(0.1)
    cancelled.cancel()
    done = await asyncio.gather(cancelled, *sends, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert all(isinstance(error, mq9.Mq9TimeoutError) for error in done[1:])
    stopped.set()
    await client.aclose()
    server.close()


async def test_ten_thousand_messages_in_order(broker: Any) -> None:
    async with await mq9.connect(broker.url) as client:
        address = await client.mailbox_create()
        for start in range(0, 10_000, 1000):
            numbers = range(start, start + 1000)
            ids = await asyncio.gather(*(client.send(address, str(number)) for number in numbers))
            assert ids == list(numbers)
        seen: list[str] = []
        async for message in client.consume(address, "g", num_msgs=1000, deliver="earliest"):
            seen.append(message.text())
            if len(seen) == 10_000:
                break
        assert seen == [str(number) for number in range(10_000)]


async def test_client_leaves_no_task_behind(broker: Any) -> None:
    before = asyncio.all_tasks()
    client = await mq9.connect(broker.url)
    address = await client.mailbox_create()
    tasks = [
        asyncio.create_task(client.fetch(address, group_name="g", lease_ms=1000, max_wait_ms=30000))
        for _ in range(5)
    ]
    await until_group(client, address)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


async def test_cancelling_a_call_at_any_moment_is_never_swallowed(peer: Any) -> None:
    server = await peer()
    async with await mq9.connect(server.url, timeout=60) as client:
        for steps in range(40):
            for call in (
                client.send("a.b", b"x" * steps * 100),
                client.fetch("a.b", group_name="g", lease_ms=5),
            ):
                task = asyncio.create_task(call)
                for _ in range(steps):
                    await asyncio.sleep(0)
                task.cancel()
                done, _ = await asyncio.wait({task}, timeout=5)
                assert done, f"swallowed after {steps} steps"
                assert task.cancelled()
        client._timeout = 0.1
        server.cut()


async def test_cancelling_connect_at_any_moment_is_never_swallowed_and_leaks_nothing(peer: Any) -> None:
    server = await peer()
    before = asyncio.all_tasks()
    for steps in range(120):
        task = asyncio.create_task(mq9.connect(server.url))
        for _ in range(steps):
            await asyncio.sleep(0)
        connected = task.done()
        task.cancel()
        done, _ = await asyncio.wait({task}, timeout=5)
        assert done, f"swallowed after {steps} steps"
        if connected:
            await task.result().aclose()
        else:
            assert task.cancelled(), f"swallowed after {steps} steps"
    await until(lambda: not [t for t in asyncio.all_tasks() - before if "Peer.serve" not in repr(t)])


async def test_cancelling_close_still_closes(peer: Any) -> None:
    server = await peer()
    client = await mq9.connect(server.url, timeout=0.2)
    waiting = asyncio.create_task(client.send("a.b", "x", timeout=60))
    await until(lambda: server.published)
    closing = asyncio.create_task(client.aclose())
    await asyncio.sleep(0.01)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    with pytest.raises(mq9.ConnectionClosedError):
        await waiting
    assert client.is_closed


async def test_existing_connection_that_drains_is_closed_for_us(broker: Any) -> None:
    connection = await nats.connect(broker.url)
    client = await mq9.connect(nats=connection, timeout=30)
    release = asyncio.Event()

    async def slow(_: Any) -> None:
        await release.wait()

    await connection.subscribe("slow", cb=slow)
    await connection.publish("slow", b"")
    await connection.flush()
    draining = asyncio.create_task(connection.drain())
    await until(lambda: connection.is_draining)
    with pytest.raises(mq9.ConnectionClosedError):
        await client.query("a.b")
    release.set()
    await draining
    await client.aclose()


@pytest.mark.parametrize(
    "error", [OSError("broken"), nats.errors.OutboundBufferLimitError(), nats.errors.StaleConnectionError()]
)
async def test_no_exception_of_the_transport_gets_through(
    broker: Any, monkeypatch: Any, error: Exception
) -> None:
    async with await mq9.connect(broker.url) as client:

        async def publish(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(client._connection._nats, "publish", publish)
        with pytest.raises(mq9.ConnectionClosedError) as caught:
            await client.send("a.b", "x")
        assert caught.value.__cause__ is error
        assert caught.value.operation == "msg.send"


async def test_web_socket_urls_name_the_package_that_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(mq9.InvalidArgumentError, match="pip install aiohttp"):
        await mq9.connect("ws://127.0.0.1:4222")
