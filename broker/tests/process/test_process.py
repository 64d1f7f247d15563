"""The command as a person or a supervisor meets it."""

import asyncio
import json
import resource
import signal
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path

import pytest

from mq9_broker.config import Config

from .support import Broker, connect, request, run


def fetch(url: str, data: bytes | None = None, method: str | None = None) -> tuple[int, dict[str, object]]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as response:
            return response.status, json.loads(response.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"{}")


# Starting.


def test_version() -> None:
    done = run("version")
    assert done.returncode == 0
    assert run("--version").stdout == done.stdout
    assert done.stdout.startswith(f"mq9-broker {version('mq9-broker')} ")


def test_help_names_every_option() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    for field in fields(Config):
        if field.name == "access":
            continue  # sections of the file only
        assert "--" + field.name.replace("_", "-") in done.stdout
        assert f"[MQ9_{field.name.upper()}]" in done.stdout


def test_ready_line_is_all_there_is_on_stdout() -> None:
    with Broker() as broker:
        assert broker.nats_url.startswith("nats://127.0.0.1:")
        assert broker.http_url.startswith("http://127.0.0.1:")
        broker.signal(signal.SIGTERM)
        code, out, err = broker.wait()
        assert (code, out) == (0, "")
        assert "Traceback" not in err


def test_http_off() -> None:
    with Broker("--http", "off") as broker:
        assert broker.http_url == "off"


def test_options_from_environment_and_file(tmp_path: Path) -> None:
    file = tmp_path / "broker.yaml"
    file.write_text("server_name: from-file\nmax_payload: 2KiB\n")
    with Broker("--config", str(file), env={"MQ9_MAX_PAYLOAD": "3KiB"}) as broker:
        with socket.create_connection(("127.0.0.1", broker.port), 10) as client:
            info = json.loads(client.makefile("rb").readline().removeprefix(b"INFO "))
        assert (info["server_name"], info["max_payload"]) == ("from-file", 3072)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["serve", "--max-payload", "x"], 2, "mq9-broker: --max-payload: expected bytes"),
        (["serve", "--config", "/nowhere/x.yaml"], 2, "mq9-broker: /nowhere/x.yaml: cannot read"),
        (
            ["serve", "--listen", "256.0.0.1:0", "--http", "off"],
            1,
            "mq9-broker: --listen 256.0.0.1:0: cannot",
        ),
        (
            ["serve", "--data", "/dev/null/x", "--http", "off"],
            1,
            "mq9-broker: --data /dev/null/x: Not a directory",
        ),
        (["serve", "--data", "/dev/null", "--http", "off"], 1, "mq9-broker: --data /dev/null: "),
    ],
)
def test_mistakes(arguments: list[str], code: int, message: str) -> None:
    done = run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["serve", "--no-such-option"], ["no-such-command"], ["serve", "x"]]
)
def test_misuse_of_the_command_line(arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: mq9-broker")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_port_in_use(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        other = "--http" if option == "--listen" else "--listen"
        done = run("serve", option, f"127.0.0.1:{port}", other, "127.0.0.1:0")
    assert done.returncode == 1
    assert f"{option} 127.0.0.1:{port}: cannot listen there: address already in use" in done.stderr.lower()
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_data_folder_in_use(tmp_path: Path) -> None:
    with Broker("--data", str(tmp_path / "data")):
        done = run("serve", "--listen", "127.0.0.1:0", "--http", "off", "--data", str(tmp_path / "data"))
        assert done.returncode == 1
        assert f"--data {tmp_path / 'data'}: cannot open the store: another process" in done.stderr
        assert "Traceback" not in done.stderr


# HTTP.


def test_health() -> None:
    with Broker() as broker:
        assert fetch(broker.http_url + "/healthz") == (
            200,
            {"status": "ok", "version": version("mq9-broker")},
        )
        assert fetch(broker.http_url + "/readyz?verbose") == (200, {"status": "ready"})
        assert fetch(broker.http_url + "/healthz", method="HEAD") == (200, {})
        assert fetch(broker.http_url + "/nothing")[0] == 404
        assert fetch(broker.http_url + "/healthz", b"x")[0] == 405
        # Without --test-clock there is none.
        assert fetch(broker.http_url + "/clock", b'{"advance_ms":1}')[0] == 404


def test_http_survives_nonsense() -> None:
    with Broker() as broker:
        port = int(broker.http_url.rpartition(":")[2])
        for data in (b"\x00\xff\r\n\r\n", b"GET /\r\n\r\n", b"A" * 100_000, b"GET / HTTP/1.1\r\n\r\n"):
            with socket.create_connection(("127.0.0.1", port), 10) as client:
                client.sendall(data)
                assert client.recv(100).startswith(b"HTTP/1.1 4")
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(
                b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 70_000
            )
            assert client.recv(100).startswith(b"HTTP/1.1 413 ")
        # Several requests on one connection, sent together.
        with socket.create_connection(("127.0.0.1", port), 10) as client:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
            text = b""
            while text.count(b"HTTP/1.1 200 OK\r\n") < 3 or not text.endswith(b"}\n"):
                text += client.recv(4096)
        assert fetch(broker.http_url + "/healthz")[0] == 200


async def test_clock_moves_stored_deadlines() -> None:
    with Broker("--test-clock") as broker:
        client = await connect(broker)
        await request(client, "MAILBOX.CREATE", {"name": "short", "ttl": 60})
        before = (await asyncio.to_thread(fetch, broker.http_url + "/clock", b'{"advance_ms":0}'))[1][
            "now_ms"
        ]
        assert isinstance(before, int)
        assert (await request(client, "MAILBOX.INFO.short"))["error"] == ""
        moved = await asyncio.to_thread(fetch, broker.http_url + "/clock", b'{"advance_ms":60000}')
        assert moved == (200, {"now_ms": before + 60_000})
        assert (await request(client, "MAILBOX.INFO.short"))["code"] == "mailbox_not_found"
        for wrong in (
            b"",
            b"{}",
            b"[]",
            b'{"advance_ms":-1}',
            b'{"advance_ms":99999999999999999999}',
            b'{"advance_ms":"1"}',
            b'{"advance_ms":1,"x":1}',
        ):
            status, answer = await asyncio.to_thread(fetch, broker.http_url + "/clock", wrong)
            assert (status, list(answer)) == (400, ["error"])
        await client.close()


async def test_clock_goes_on_after_a_restart(tmp_path: Path) -> None:
    async def advance(broker: Broker, milliseconds: int) -> int:
        body = b'{"advance_ms":%d}' % milliseconds
        _, answer = await asyncio.to_thread(fetch, broker.http_url + "/clock", body)
        now_ms = answer["now_ms"]
        assert isinstance(now_ms, int)
        return now_ms

    with Broker("--test-clock", "--data", str(tmp_path / "data")) as broker:
        client = await connect(broker)
        moved = await advance(broker, 3_600_000)
        await request(client, "MAILBOX.CREATE", {"name": "short", "ttl": 60})
        await client.close()
        broker.process.kill()
        await broker.wait_async()
    with Broker("--test-clock", "--data", str(tmp_path / "data")) as broker:
        client = await connect(broker)
        assert await advance(broker, 59_999) == moved + 59_999
        assert (await request(client, "MAILBOX.INFO.short"))["error"] == ""
        await advance(broker, 1)
        assert (await request(client, "MAILBOX.INFO.short"))["code"] == "mailbox_not_found"
        await client.close()


# Ending.


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_clean_shutdown(number: signal.Signals) -> None:
    with Broker("--shutdown-grace", "20") as broker:
        client = await connect(broker)
        await request(client, "MAILBOX.CREATE", {"name": "box"})
        waiting = asyncio.create_task(
            request(client, "MSG.FETCH.box", {"group_name": "g", "config": {"max_wait_ms": 60_000}}, 60)
        )
        assert (await request(client, "MSG.SEND.other"))["code"] == "mailbox_not_found"
        await asyncio.sleep(0.2)
        assert not waiting.done()
        broker.signal(number)
        assert (await waiting)["code"] == "unavailable"
        # A client that is connected may finish what it does: it is still served.
        assert (await request(client, "MSG.SEND.box", b"last words"))["error"] == ""
        status = (await asyncio.to_thread(fetch, broker.http_url + "/readyz"))[0]
        assert status == 503
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", broker.port)
        # And when all have gone, the broker ends without waiting for the rest of the grace time.
        await client.close()
        code, out, err = await broker.wait_async()
        assert (code, out) == (0, "")
        assert err.rstrip().endswith("stopped")
        assert "Traceback" not in err


def test_lame_duck_is_announced() -> None:
    with (
        Broker("--shutdown-grace", "0.2") as broker,
        socket.create_connection(("127.0.0.1", broker.port), 10) as client,
    ):
        lines = client.makefile("rb")
        lines.readline()
        client.sendall(b'CONNECT {"verbose":false,"protocol":1}\r\nPING\r\n')
        assert lines.readline() == b"PONG\r\n"
        broker.signal(signal.SIGTERM)
        assert json.loads(lines.readline().removeprefix(b"INFO "))["ldm"] is True
        # This client does not care and stays: it is disconnected at the end of the grace time.
        assert lines.read() == b""
        assert broker.wait()[0] == 0


def test_second_signal_ends_at_once() -> None:
    with (
        Broker("--shutdown-grace", "600") as broker,
        socket.create_connection(("127.0.0.1", broker.port), 10) as client,
    ):
        client.makefile("rb").readline()
        broker.signal(signal.SIGINT)
        lines = broker.process.stderr
        assert lines is not None
        while "stopping" not in lines.readline():
            pass
        broker.signal(signal.SIGINT)
        assert broker.wait()[0] == 128 + signal.SIGINT


async def test_rocksdb_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    for fsync in ("always", "interval", "never"):
        options = ("--data", str(tmp_path / fsync), "--fsync", fsync)
        with Broker(*options) as broker:
            client = await connect(broker)
            await request(client, "MAILBOX.CREATE", {"name": "kept"})
            assert (await request(client, "MSG.SEND.kept", b"one"))["msg_id"] == 0
            await client.close()
            broker.signal(signal.SIGTERM)
            assert (await broker.wait_async())[0] == 0
        with Broker(*options) as broker:
            client = await connect(broker)
            assert (await request(client, "MSG.SEND.kept", b"two"))["msg_id"] == 1
            await client.close()
            broker.process.kill()
            await broker.wait_async()
        with Broker(*options) as broker:
            client = await connect(broker)
            messages = (await request(client, "MSG.QUERY.kept"))["messages"]
            assert [message["msg_id"] for message in messages] == [0, 1]
            await client.close()


# Cost.


def test_an_idle_connection_costs_less_than_four_kilobytes() -> None:
    with Broker("--http", "off") as broker, ExitStack() as sockets:
        memory = Path(f"/proc/{broker.process.pid}/statm")

        def connect_idle(count: int) -> int:
            """Connect clients with a subscription each; return the broker's resident memory in bytes."""
            for number in range(count):
                client = sockets.enter_context(socket.create_connection(("127.0.0.1", broker.port), 10))
                greeting = b'CONNECT {"verbose":false,"headers":true,"no_responders":true,"name":"idle"}\r\n'
                client.sendall(greeting + b"SUB _INBOX.%022d.* 1\r\nPING\r\n" % (count * 1000 + number))
                received = b""
                while not received.endswith(b"PONG\r\n"):
                    received += client.recv(4096)
            return int(memory.read_text().split()[1]) * resource.getpagesize()

        before = connect_idle(100)
        assert (connect_idle(800) - before) / 800 < 4096
